"""The verbs that measure, on the command line: evaluations of labels and warnings, and what their options refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from carousel import cli
from command_line import QUICK, Result
from test_evaluate_sequences import stays, walks

Call = Callable[..., Result]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: object) -> Result:
        capsys.readouterr()
        status = cli.run([str(a) for a in arguments])
        return Result(status, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a classifier and a tagger, and their tables."""
    folder = tmp_path_factory.mktemp("models")
    for name, frame in {"train": stays(60, 0), "test": stays(40, 1000)}.items():
        frame.drop("dose").write_csv(folder / f"{name}.csv")
        frame.group_by("stay").first().select("stay", "died").write_csv(folder / f"{name}-labels.csv")
    walks(24, 0).write_csv(folder / "walks.csv")
    for command in (
        "fit classify train.csv --id stay --time t --target died --static age --features x,ward --out c.safetensors",
        "fit tag walks.csv --event high --ahead 30min --id id --time t --features x --out t.safetensors",
    ):
        words = [f"{folder}/{word}" if "." in word else word for word in command.split()]
        assert cli.run([*words, *QUICK]) == 0
    return folder


def test_evaluate_of_a_classifier_ends_with_the_trust_report(call: Call, models: Path) -> None:
    command = ("evaluate", models / "c.safetensors", models / "test.csv", "--train", models / "train.csv")
    done = call(*command, "--group", "patient")
    assert done.status == 0, done.err
    for part in ("AUROC", "boosted trees on summaries", "Leaks: none found", "Split by sequence", "Calibration"):
        assert part in done.out
    found = json.loads(call(*command, "--json").out)
    assert found["trust"]["leaks"]["found"] == []
    assert {row["model"] for row in found["rows"]} >= {"LSTM", "prior"}
    same = json.loads(
        call(
            "evaluate",
            models / "c.safetensors",
            models / "test.csv",
            "--labels",
            models / "test-labels.csv",
            "--train",
            models / "train.csv",
            "--train-labels",
            models / "train-labels.csv",
            "--json",
        ).out
    )
    assert same["rows"] == found["rows"]


def test_evaluate_of_a_warning_splits_one_table_by_time(call: Call, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    done = call("evaluate", models / "t.safetensors", models / "walks.csv", "--since", "2024-01-01 08:00", "--out", out)
    assert done.status == 0, done.err
    assert "Split by time (24 sequences go on in the test part)" in " ".join(done.out.split())
    assert "| model | events warned of |" in out.read_text()


def test_a_copied_sequence_is_said_on_the_command_line(call: Call, models: Path, tmp_path: Path) -> None:
    train = pl.read_csv(models / "train.csv")
    copied = pl.concat([pl.read_csv(models / "test.csv"), train.with_columns(pl.col("stay") + 5000)])
    copied.write_csv(tmp_path / "copied.csv")
    done = call("evaluate", models / "c.safetensors", tmp_path / "copied.csv", "--train", models / "train.csv")
    assert "LEAK (duplicates across splits)" in done.out


@pytest.mark.parametrize(
    ("given", "said"),
    {
        "windows": (["c.safetensors", "test.csv", "--windows", 3], "--windows is for models of forecast, and"),
        "since": (["c.safetensors", "test.csv", "--since", 3], "--since is for models of forecast and tag"),
        "labels": (["t.safetensors", "walks.csv", "--labels", "x.csv"], "--labels is for models of classify"),
        "group": (["c.safetensors", "test.csv", "--group", "patient"], "give train as well"),
        "late": (["t.safetensors", "walks.csv", "--since", "2023-01-01"], "no row is before 2023-01-01"),
    }.values(),
)
def test_options_of_other_tasks_are_refused(call: Call, models: Path, given: list[object], said: str) -> None:
    done = call("evaluate", models / str(given[0]), models / str(given[1]), *given[2:])
    assert done.status == 2
    assert said in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["accuracy", "cake"], "there is no set 'cake'; choose from physionet,"),
        (["accuracy", "--hidden", "8"], "--hidden is not about accuracy"),
        (["layer", "physionet"], "a set is not about layer"),
        (["layer", "--seeds", "2"], "--seeds is not about layer"),
        (["accuracy", "physionet", "--out", "x.json"], "name a folder"),
    ],
)
def test_bench_refuses_what_is_not_about_the_measure(call: Call, given: list[object], said: str) -> None:
    done = call("bench", *given)
    assert done.status == 2
    assert said in done.err


def test_accuracy_says_where_the_sets_are_looked_for(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAROUSEL_DATA", raising=False)
    done = call("bench", "accuracy", "cgm")
    assert done.status == 2
    assert "CAROUSEL_DATA does not lead to a folder that holds cgm_glucose/" in done.err
