"""A label, a number or a warning for each row: labels of events, thresholds, causality, order, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from carousel import CarouselError, DataError, Tagger, TrainConfig, cli
from carousel.estimators import load
from carousel.heads.tag import (
    TagHead,
    choose_threshold,
    during,
    event_labels,
    event_probability,
    onsets,
)
from carousel.inputs.clock import parse_span
from carousel.trust.warnings import warning_report

QUICK = TrainConfig(
    steps=60, hidden_size=8, least_steps=20, warmup=5, batch_size=16, width=0, learning_rate=0.02, evaluate_every=20
)


def random_events(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """time, event with unknown rows, offsets of lengths 1, 9, 14, 2 and 20."""
    rng = np.random.default_rng(seed)
    offsets = np.cumsum([0, 1, 9, 14, 2, 20])
    n = int(offsets[-1])
    event = (rng.random(n) < 0.2).astype(float)
    event[1:] = np.where(rng.random(n - 1) < 0.3, event[:-1], event[1:])  # some last for several rows
    event[rng.random(n) < 0.1] = np.nan
    return np.cumsum(rng.integers(0, 4, n)).astype(float), event, offsets


def state_before(event: np.ndarray, start: int, row: int) -> float | None:
    known = [e for e in event[start:row] if not np.isnan(e)]
    return known[-1] if known else None


def labels_by_hand(time, event, offsets, ahead) -> np.ndarray:
    """The definition, row by row."""
    found = np.full(len(time), np.nan)
    for start, end in pairwise(offsets):
        for r in range(start, end):
            now = state_before(event, start, r + 1)
            if now == 1:
                continue  # the event lasts
            later = [q for q in range(r + 1, end) if event[q] == 1 and state_before(event, start, q) != 1]
            if later and time[later[0]] - time[r] <= ahead:
                found[r] = 1
                continue
            seen_all = time[end - 1] - time[r] >= ahead
            unknown = any(np.isnan(event[q]) and time[q] - time[r] <= ahead for q in range(r + 1, end))
            if seen_all and not unknown:
                found[r] = 0
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ahead", [1.0, 5.0, 100.0])
def test_labels_of_events_are_those_of_their_definition(seed, ahead):
    time, event, offsets = random_events(seed)
    np.testing.assert_array_equal(
        event_labels(time, event, offsets, ahead), labels_by_hand(time, event, offsets, ahead)
    )


def test_events_at_the_edges():
    t = np.arange(7.0)

    def labels(*event: float, ahead: float = 2.0) -> list[float]:
        return event_labels(t, np.array(event, float), np.array([0, 7]), ahead).tolist()

    nan = pytest.approx(np.nan, nan_ok=True)
    assert labels(0, 0, 0, 1, 1, 0, 0) == [0, 1, 1, nan, nan, nan, nan]  # what follows is censored
    assert labels(1, 0, 0, 0, 0, 0, 0) == [nan, 0, 0, 0, 0, nan, nan]  # an event before the first row has no onset
    assert labels(0, 0, 0, 0, 0, 0, 1) == [0, 0, 0, 0, 1, 1, nan]
    assert labels(0, 0, np.nan, 0, 0, 0, 0) == [nan, nan, 0, 0, 0, nan, nan]  # the unknown row may have been one
    assert onsets(np.array([1, np.nan, 1, 0, 1, 1, 0.0]), np.array([0, 4, 7])).tolist() == [1, 0, 0, 0, 1, 0, 0]
    assert during(np.array([0, 1, np.nan, 0, np.nan, 1, 1.0]), np.array([0, 4, 7])).tolist() == [0, 1, 1, 0, 0, 1, 1]


@pytest.mark.parametrize("seed", range(4))
def test_the_threshold_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    truth = (rng.random(80) < 0.3).astype(float)
    p = np.round(np.clip(0.3 * truth + 0.6 * rng.random(80), 0, 1), 2)  # with ties

    def counts(threshold: float) -> tuple[int, int, int]:
        alarm = p >= threshold
        return int((alarm & (truth == 1)).sum()), int((alarm & (truth == 0)).sum()), int((~alarm & (truth == 1)).sum())

    every = [*np.unique(p), 1.0]
    cost = {t: counts(t)[1] + 4.0 * counts(t)[2] for t in every}
    assert cost[choose_threshold(p, truth, cost=4.0)] == min(cost.values())
    f1 = {t: 2 * counts(t)[0] / (2 * counts(t)[0] + counts(t)[1] + counts(t)[2]) for t in every}
    assert f1[choose_threshold(p, truth)] == pytest.approx(max(f1.values()))
    right = {t: counts(t)[0] for t in every if sum(counts(t)[:2]) and counts(t)[0] / sum(counts(t)[:2]) >= 0.7}
    chosen = choose_threshold(p, truth, precision=0.7)
    assert right[chosen] == max(right.values())


def test_thresholds_without_a_choice():
    p, y = np.array([0.2, 0.9]), np.array([0.0, 0.0])
    assert choose_threshold(p, y) == 0.5
    assert choose_threshold(p, y, cost=3.0) == 0.25
    assert choose_threshold(np.array([0.9, 0.1]), np.array([0.0, 1.0]), precision=1.0) == 1.0
    assert choose_threshold(np.array([0.9, 0.8, 0.1]), np.array([0.0, 0.0, 1.0]), cost=0.1) == 1.0  # best not to alarm


def test_what_alarms_were_worth():
    time = np.array([0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13.0])
    event = np.array([0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1.0])
    alarm = np.array([1, 1, 0, 1, 1, 0, 0, 0, 0, 0, 1, 1], bool)
    found = warning_report(time, event, alarm, np.array([0, 8, 12]), ahead=2.0, day=10.0)
    # onsets at 3 (first alarm within 2 before: 1), 7 (none), 13 (12); the one at 10 is a sequence's first row
    assert found["events"] == 3
    assert found["events_warned"] == pytest.approx(2 / 3)
    assert found["lead_time"] == 1.5
    # outside events two rings, at 0 (silent until 2) and 12; time from 0, 1, 2, 5, 6, 11, 12 to the next row
    assert found["alarms_per_day"] == pytest.approx(2 / 0.7)


@pytest.mark.parametrize(
    ("given", "stamps", "expected"),
    [("6h", True, 21600.0), ("30min", True, 1800.0), ("1.5 d", True, 129600.0), (45, True, 45.0), (3, False, 3.0)],
)
def test_spans_of_time(given, stamps, expected):
    assert parse_span(given, stamps, "ahead") == expected


@pytest.mark.parametrize(
    ("given", "stamps"), [("6", True), ("6h", False), ("6 parsecs", True), ("-6h", True), (0, False)]
)
def test_spans_that_are_none(given, stamps):
    with pytest.raises(CarouselError, match="ahead"):
        parse_span(given, stamps, "ahead")


def beds(count: int = 30, seed: int = 0, rows: int = 24) -> pl.DataFrame:
    """A pulse that climbs for three rows before the alarm goes; every row is labelled high or low as well."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(count):
        n = rows + int(rng.integers(0, 5))
        start = int(rng.integers(6, n - 6))
        pulse = rng.normal(size=n) * 0.3
        pulse[start - 3 : start] += (1.0, 2.0, 3.0)
        event = np.zeros(n, int)
        event[start : start + 2] = 1
        minute = 5 * np.arange(n) + rng.integers(0, 3, n)
        frames.append(
            pl.DataFrame(
                {
                    "bed": k,
                    "at": pl.Series(1_700_000_000 + 60 * minute).cast(pl.Int64) * 1_000_000,
                    "pulse": pl.Series(np.where(rng.random(n) < 0.1, np.nan, pulse), nan_to_null=True),
                    "level": np.where(pulse > 0.5, "high", "low"),
                    "twice": 2.0 * pulse + 1.0,
                    "alarm": event,
                }
            )
        )
    return pl.concat(frames).with_columns(pl.col("at").cast(pl.Datetime("us")))


def tagger(**more) -> Tagger:
    given = {"id": "bed", "time": "at", "features": ("pulse",), "config": QUICK} | more
    return Tagger(given.pop("target", None), **given)


def test_a_warning_is_learned_and_the_file_gives_the_same(tmp_path):
    frame = beds()
    settings = dataclasses.replace(QUICK, steps=150)
    model = tagger(event="alarm", ahead="15min", cost=5.0, config=settings, seeds=2).fit(frame)
    found = model.predict(frame)
    assert found.columns == ["bed", "at", "probability", "alarm"]
    assert found.select("bed", "at").equals(frame.select("bed", "at"))
    assert found["alarm"].to_list() == (found["probability"] >= model.config_.head.threshold).to_list()
    assert model.score(beds(seed=1)) > 0.6  # average precision; 0.13 of the rows lie before an event
    metrics = model.provenance_["metrics"]
    truth = model.read_labelled(frame)[1]
    counts = [int((truth == 1).sum()), int((truth == 0).sum()), int(np.isnan(truth).sum())]
    assert list(model.provenance_["learned"].values()) == counts
    assert {"validation_events_warned", "validation_alarms_per_day", "validation_lead_time"} < set(metrics)
    assert metrics["validation_events"] == 6  # one in each of the six beds held out
    path = tmp_path / "m.safetensors"
    model.save(path)
    assert load(path).predict(frame).equals(found)
    assert load(path).ahead == 900.0


def test_nothing_said_of_a_row_depends_on_rows_after_it():
    frame = beds(12)
    for model in (
        tagger(event="alarm", ahead="15min").fit(frame),
        tagger(target="level", config=dataclasses.replace(QUICK, num_layers=2)).fit(frame),
    ):
        before = model.predict_proba(frame)[:, 1]
        late = frame.with_row_index().with_columns(later=pl.int_range(pl.len()).over("bed") >= 9)
        changed = late.with_columns(
            pulse=pl.when("later").then(pl.col("pulse").fill_null(0.0) * -3 + 7).otherwise("pulse"),
            alarm=pl.when("later").then(1 - pl.col("alarm")).otherwise("alarm"),
        )
        after = model.predict_proba(changed)[:, 1]
        kept = ~late["later"].to_numpy()
        np.testing.assert_array_equal(after[kept], before[kept])
        assert (after[~kept] != before[~kept]).mean() > 0.9
        short = frame.filter(pl.Series(kept))  # cut off instead of changed
        np.testing.assert_allclose(model.predict_proba(short)[:, 1], before[kept], atol=1e-6)


def test_a_bidirectional_model_does_see_the_future():
    frame = beds(12)
    model = tagger(target="level", config=dataclasses.replace(QUICK, bidirectional=True)).fit(frame)
    before = model.predict_proba(frame)
    after = model.predict_proba(frame.with_columns(pulse=pl.col("pulse").shift(-1).over("bed")))
    assert (before != after).mean() > 0.9


@pytest.mark.parametrize("kind", ["polars", "pandas", "arrow"])
def test_one_row_out_for_each_row_in_its_order(kind):
    frame = beds(14).sample(fraction=1.0, shuffle=True, seed=3)
    given = {"polars": frame, "pandas": frame.to_pandas(), "arrow": frame.to_arrow()}[kind]
    with pytest.warns(UserWarning, match="time goes backwards"):
        model = tagger(target="level", seeds=2).fit(frame)
    with pytest.warns(UserWarning, match="time goes backwards"):
        found = model.predict(given)
    found = pl.DataFrame(found.to_dict("list")) if kind == "pandas" else pl.DataFrame(found)
    assert found.columns == ["bed", "at", "prediction", "p_high", "p_low"]
    assert found["bed"].to_list() == frame["bed"].to_list()
    ordered = model.predict(frame.sort("bed", "at"))
    again = frame.select("bed", "at").join(ordered, on=["bed", "at"], how="left", maintain_order="left")
    np.testing.assert_allclose(found["p_high"], again["p_high"])
    assert model.score(frame.sort("bed", "at")) > 0.8
    np.testing.assert_array_equal(model.predict_proba(frame.sort("bed", "at"))[:, 0], ordered["p_high"])


def test_a_number_for_each_row():
    model = tagger(target="twice", kind="regression", config=dataclasses.replace(QUICK, steps=200)).fit(beds())
    new = beds(seed=2)
    found = model.predict(new)
    assert found.columns == ["bed", "at", "prediction", "q0.05", "q0.95"]
    assert model.score(new) > 0.7
    inside = (new["twice"] >= found["q0.05"]) & (new["twice"] <= found["q0.95"])
    assert 0.8 < inside.mean() <= 1.0


def test_rows_without_a_label_are_not_learned_but_predicted():
    frame = beds().with_columns(level=pl.when(pl.int_range(pl.len()) % 3 == 0).then("level").otherwise(None))
    model = tagger(target="level").fit(frame)
    assert model.predict(frame).height == frame.height
    _, truth = model.read_labelled(frame)
    assert np.isnan(truth).mean() == pytest.approx(2 / 3, abs=0.02)
    assert model.score(beds(seed=4)) > 0.75


def test_few_sequences_are_held_out_by_time():
    frame = beds(3, rows=60)
    model = tagger(event="alarm", ahead="15min").fit(frame)
    sequences, truth = model.read_labelled(frame)
    from carousel.inputs.labels import Labels

    split = model._split(sequences, Labels(truth), None)
    assert split.training.tolist() == split.held_out.tolist() == [0, 1, 2]
    for start, end in pairwise(sequences.offsets):
        judge, learn = split.judge[start:end], split.learn[start:end]
        border = int(judge.argmax())
        assert judge[border:].all()
        assert border == int(np.ceil(0.8 * (end - start)))
        first = sequences.time[start + border]  # rows that look into the held-out part are left out
        np.testing.assert_array_equal(learn, sequences.time[start:end] + 900 < first)


def test_later_rows_of_the_same_sequences_can_be_held_out():
    frame = beds(12).with_columns(late=pl.int_range(pl.len()).over("bed") >= 15)
    early, late = (frame.filter(pl.col("late") == part).drop("late") for part in (False, True))
    new = beds(3, seed=9).with_columns(bed=pl.col("bed") + 100)
    model = tagger(target="level")
    sequences, _, since = model._read_with_valid(early, None, pl.concat([late, new]), "level", "data")
    assert len(sequences.time) == frame.height + new.height
    assert (since[12:] == -np.inf).all()
    from carousel.inputs.labels import Labels

    split = model._split(sequences, Labels(np.zeros(len(sequences.time))), since)
    assert split.training.tolist() == list(range(12))
    assert split.held_out.tolist() == list(range(15))
    assert int(split.judge.sum()) == late.height + new.height
    np.testing.assert_array_equal(split.learn, ~split.judge)
    assert tagger(target="level").fit(early, valid=late).provenance_["metrics"]["validation_accuracy"] > 0.7
    with pytest.raises(DataError, match="valid: sequence 0 is in the data as well and does not go on after it in time"):
        tagger(target="level").fit(late, valid=early)


def test_arrays_with_labels_for_each_step():
    rng = np.random.default_rng(8)
    x = [rng.normal(size=(int(rng.integers(1, 12)), 2)) for _ in range(40)]
    y = [np.where(part[:, 0] > 0, "up", "down") for part in x]
    model = Tagger(config=QUICK).fit(x, y, valid=(x[:4], y[:4]))
    found = model.predict(x[:5])
    assert [len(part) for part in found] == [len(part) for part in x[:5]]
    assert model.classes_.tolist() == ["down", "up"]
    assert model.score(x, y) > 0.8
    assert model.predict_proba(x[:2])[1].shape == (len(x[1]), 2)
    cube = rng.normal(size=(20, 7, 1))
    model = Tagger(config=QUICK).fit(cube, (cube[:, :, 0] > 0).astype(int))
    assert model.predict(cube).shape == (20, 7)
    event = np.zeros((20, 7), int)
    event[:, 5] = 1
    warner = Tagger(ahead=2, config=QUICK).fit(cube, event)
    assert warner.predict(cube).dtype == bool
    assert warner.classes_.tolist() == [0, 1]
    for wrong, message in (
        (y[:5], "there are 40 sequences in X and 5 in y"),
        ([part[:1] for part in y], r"y\[0\] has 1 labels, and the sequence \d+ rows"),
        (None, "requires y to be passed"),
    ):
        with pytest.raises(DataError, match=message):
            Tagger(config=QUICK).fit(x, wrong)


BAD = {
    "nothing to learn": ({}, "name the target, or the event"),
    "two tasks": ({"target": "level", "event": "alarm", "ahead": "6h"}, "two tasks; name one"),
    "no span": ({"event": "alarm"}, "event needs ahead"),
    "a span of a target": ({"target": "level", "ahead": "6h"}, "ahead is about an event"),
    "a cost of labels": ({"target": "level", "cost": 2.0}, "cost is about the alarms of an event"),
    "cost and precision": ({"event": "alarm", "ahead": "6h", "cost": 2.0, "precision": 0.5}, "give one of them"),
    "no cost": ({"event": "alarm", "ahead": "6h", "cost": 0.0}, "cost must be positive"),
    "a precision": ({"event": "alarm", "ahead": "6h", "precision": 2.0}, r"precision must be within \(0, 1\]"),
    "an event that is no state": ({"event": "twice", "ahead": "6h"}, r"row \d+, column 'twice': .* is neither 0"),
    "one class": ({"target": "one"}, "all rows have the label 'a', one class only"),
    "no label": ({"target": "none"}, "no row has a label"),
    "no event": ({"event": "zero", "ahead": "15min"}, "no row lies within 15min before the beginning of an event"),
    "an event before the first row": (
        {"event": "first", "ahead": "15min"},
        "an event in the first row cannot be warned",
    ),
    "an event without end": (
        {"event": "lasting", "ahead": "15min"},
        "lasts in every row, so there is nothing to warn of",
    ),
    "ends that are too near": (
        {"event": "zero", "ahead": "9d"},
        "of no row is it known whether an event begins within 9d",
    ),
    "all too near": ({"event": "alarm", "ahead": "9d"}, "no row without an event to come is known"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_learned_is_refused_in_one_sentence(case):
    parameters, message = BAD[case]
    frame = beds(12).with_columns(
        one=pl.lit("a"),
        none=pl.lit(None, pl.Float64),
        zero=pl.lit(0),
        lasting=pl.lit(1),
        first=(pl.int_range(pl.len()).over("bed") == 0).cast(pl.Int64),
    )
    with pytest.raises(CarouselError, match=message):
        tagger(**parameters).fit(frame)


def test_heads_refuse_what_they_cannot_be():
    for kind, wrong, message in (
        ("event", {}, "ahead is positive for events"),
        ("event", {"ahead": 1.0, "threshold": 1.5}, "threshold is a probability"),
        ("label", {"classes": ("a",)}, "two classes or more"),
        ("regression", {"scale": 0.0}, "scale must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            TagHead(kind, **wrong)
    np.testing.assert_allclose(event_probability(np.array([[800.0], [-800.0]]), 1.0), [1.0, 0.0])


def test_the_command_line_warns(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    frame = beds()
    frame.write_csv("beds.csv")
    settings = [f"--set={name}" for name in ("steps=20", "hidden_size=4", "least_steps=10", "warmup=2")]
    roles = ["--id=bed", "--time=at", "--features=pulse", *settings]
    fit = ["fit", "tag", "beds.csv", *roles, "--event=alarm", "--ahead=15min", "--precision=0.5"]
    assert cli.run([*fit, "--json", "--out=m.safetensors"]) == 0
    assert json.loads(capsys.readouterr().out)["provenance"]["metrics"]["validation_events"] == 6
    assert cli.run(["predict", "m.safetensors", "beds.csv", "--out=p.parquet"]) == 0
    assert pl.read_parquet("p.parquet").equals(load("m.safetensors").predict(frame))
    for wrong, message in (
        (["fit", "tag", "beds.csv", *roles, "--out=n.safetensors"], "name --target, or --event with --ahead"),
        ([*fit, "--horizon=3", "--out=n.safetensors"], "--horizon does not apply to fit tag, only to forecast"),
        ([*fit, "--until=1999-01-01", "--out=n.safetensors"], "no row is left until 1999-01-01"),
    ):
        assert cli.run(wrong) == 2
        assert message in capsys.readouterr().err


def test_a_loaded_model_is_fitted_anew_with_the_choices_it_was_made_with(tmp_path):
    tiny = Tagger.defaults.with_settings(["steps=2", "hidden_size=2", "evaluate_every=1", "refit=false"])
    frame = beds(12).with_columns(ward=pl.Series(np.arange(len(beds(12))) % 3))
    made = tagger(target="level", categorical=["ward"], class_weight={"low": 1, "high": np.float64(2)})
    made.set_params(features=("pulse", "ward"), config=tiny).fit(frame).save(tmp_path / "m")
    assert made.provenance_["parameters"] == {"categorical": ["ward"], "class_weight": {"low": 1.0, "high": 2.0}}
    found = Tagger.load(tmp_path / "m")
    assert (list(found.categorical), found.class_weight, found.cost) == (["ward"], {"low": 1.0, "high": 2.0}, None)
    again, first = found.fit(frame).predict(frame), made.predict(frame)
    assert again.equals(first)
    made = tagger(event="alarm", ahead="15min", cost=np.float32(3.0), config=tiny).fit(frame)
    made.save(tmp_path / "w")
    assert (Tagger.load(tmp_path / "w").cost, Tagger.load(tmp_path / "w").precision) == (3.0, None)
    del made.provenance_["parameters"]
    made.save(tmp_path / "old")
    assert Tagger.load(tmp_path / "old").cost is None
