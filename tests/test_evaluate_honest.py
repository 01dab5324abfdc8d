"""What an evaluation is told of its rows: groups, labels of their own, scales, and which rows a model has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from carousel import Detector, cli
from carousel.classifier import Classifier
from carousel.errors import DataError
from carousel.evaluate_detection import evaluate_detection
from carousel.evaluate_sequences import evaluate
from carousel.inputs.tokens import TextConfig
from carousel.tagger import Tagger
from carousel.train import TrainConfig
from command_line import QUICK, Result

TINY = TrainConfig(steps=2, least_steps=1, hidden_size=4, width=0, warmup=1, evaluate_every=1, batch_size=8)


def rows(count: int, first: int, size: int = 20) -> pl.DataFrame:
    """Sequences by the day with a label in each row, and two to a patient."""
    rng = np.random.default_rng(first)
    start = pl.datetime(2024, 1, 1)
    when = pl.datetime_range(start, start + pl.duration(days=size - 1), "1d", eager=True)
    tables = [
        pl.DataFrame(
            {
                "stay": first + k,
                "t": when,
                "x": rng.normal(size=size),
                "patient": f"p{(first + k) // 2}",
                "odd": rng.integers(0, 2, size),
            }
        )
        for k in range(count)
    ]
    return pl.concat(tables)


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return Tagger("odd", id="stay", time="t", features=["x"], config=TINY).fit(rows(12, 0))


def kinds(found: Any) -> list[str]:
    return [f.kind for f in found.trust.audit.findings]


def test_training_sequences_are_known_again_without_the_training_data(tagger: Tagger, tmp_path: Path) -> None:
    tagger.save(tmp_path / "m.safetensors")
    model = Tagger.load(tmp_path / "m.safetensors")
    found = evaluate(model, pl.concat([rows(12, 100), rows(3, 0)]), baselines=()).trust
    assert kinds(evaluate(model, rows(12, 100), baselines=())) == []
    assert [f.kind for f in found.audit.findings] == ["duplicates"]
    assert "3 of 12 training sequences that the model remembers are in these data, value" in found.sentences()[0]
    words = [["a", "b"], ["b", "c"], ["c", "a", "b"], ["d", "a"]]
    tags = [["X" if w == "a" else "O" for w in text] for text in words]
    text = Tagger(words=TextConfig(tokens="word", spelling=0, merges=0.0), config=TINY).fit(words, tags)
    told = evaluate(text, words[:2] + [["a", "d"]] * 2, tags[:2] + [["X", "O"]] * 2).trust.sentences()[0]
    assert "2 of 4 training sequences" in told


def test_a_group_in_both_parts_is_found_whenever_its_rows_are(tagger: Tagger) -> None:
    train, test = rows(12, 0), rows(12, 100)
    again = test.with_columns(patient=pl.col("patient").replace("p50", "p3"))
    found = evaluate(tagger, again, train=train, group="patient", baselines=())
    assert kinds(found) == ["group"]
    assert "1 of 6 groups of the test part are in the training part as well ('p3')" in found.trust.sentences()[0]
    assert kinds(evaluate(tagger, test, train=train, group="patient", baselines=())) == []


def test_scales_of_late_rows_are_found_with_since() -> None:
    data = rows(12, 0, 40).with_columns(
        x=pl.col("x") + pl.when(pl.col("t") >= pl.datetime(2024, 1, 21)).then(4).otherwise(0)
    )
    since = "2024-01-21"
    early = data.filter(pl.col("t") < pl.datetime(2024, 1, 21))
    config = TINY.with_settings(["holdout=0"])
    for seen, expected in ((data, ["scaler"]), (early, [])):
        model = Tagger("odd", id="stay", time="t", features=["x"], config=config).fit(seen)
        assert kinds(evaluate(model, data, since=since, baselines=())) == expected


def test_the_last_row_of_training_is_not_judged_where_judging_begins_there() -> None:
    data = rows(6, 0)
    early = data.filter(pl.col("t") <= pl.datetime(2024, 1, 15))
    model = Tagger("odd", id="stay", time="t", features=["x"], config=TINY).fit(early)
    for since, judged in (("2024-01-15", 5), ("2024-01-14", 7), ("2024-01-16", 5)):
        found = evaluate(model, data, since=since, baselines=())
        assert found.count == 6 * judged, since


def test_scales_of_a_detector_are_audited() -> None:
    train, test = rows(12, 0, 60).with_columns(odd=0), rows(12, 100, 60).with_columns(pl.col("x") * 3 + 2)
    for seen, expected in ((pl.concat([train, test.with_columns(odd=0)]), ["scaler"]), (train, [])):
        model = Detector(id="stay", time="t", target="odd", features=["x"], config=TINY).fit(seen)
        found = evaluate_detection(model, test.with_columns(odd=(pl.col("t").dt.day() == 9).cast(int)), train=train)
        assert kinds(found) == expected


def test_groups_are_checked_where_labels_are_a_table_of_their_own() -> None:
    train, test = rows(40, 0, 5), rows(40, 39, 5)
    labels, more = (f.group_by("stay").agg(died=pl.col("odd").first()) for f in (test, train))
    model = Classifier("died", id="stay", time="t", features=["x"], config=TINY).fit(train, labels=more)
    given = {"labels": labels, "train": train, "train_labels": more, "baselines": ()}
    found = evaluate(model, test.filter(pl.col("stay") > 39), group="patient", **given)
    assert [f.sentence for f in found.trust.audit.findings] == []
    found = evaluate(
        model,
        test.with_columns(stay=pl.col("stay") + 100),
        group="patient",
        **given | {"labels": labels.with_columns(pl.col("stay") + 100)},
    )
    assert kinds(found) == ["group"]
    assert "('p19')" in found.trust.audit.findings[0].sentence
    twice = pl.concat([more, more.head(1)])
    with pytest.raises(DataError, match=r"^train_labels, column 'stay': .* is labelled more than once"):
        evaluate(model, test.filter(pl.col("stay") > 39), **given | {"train_labels": twice})


def test_the_command_line_names_the_faulty_file_and_the_unseen_rows(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def call(*given: str) -> Result:
        return Result(cli.run(list(given)), *capsys.readouterr())

    data = rows(12, 0).with_columns(event=(pl.col("t").dt.day() == 9).cast(int))
    data.write_csv("data.csv")
    roles = ["--id=stay", "--time=t", "--features=x", *QUICK, "--out=m.safetensors"]
    warns = ["fit", "tag", "data.csv", "--event=event", *roles]
    done = call(*warns, "--ahead=6")
    assert done.status == 2
    assert "ahead '6' has no unit, and the time column holds timestamps; write it as 6h" in done.err
    done = call(*warns, "--ahead=2d", "--until=2024-01-15 00:00:00")
    assert done.out.endswith("carousel evaluate m.safetensors data.csv --since '2024-01-15 00:00:00'\n"), done
    done = call("fit", "detect", "data.csv", *roles, "--until=2024-01-15")
    assert done.out.endswith("carousel evaluate m.safetensors LATER\n"), done
    data.group_by("stay").agg(died=pl.col("odd").first()).write_csv("labels.csv")
    pl.concat([pl.read_csv("labels.csv")] * 2).write_csv("twice.csv")
    done = call("fit", "classify", "data.csv", "--labels=labels.csv", "--target=died", *roles)
    assert done.status == 0, done.err
    files = ["--train=data.csv", "--labels=labels.csv", "--train-labels=twice.csv"]
    done = call("evaluate", "m.safetensors", "data.csv", *files)
    assert "twice.csv, column 'stay'" in done.err
