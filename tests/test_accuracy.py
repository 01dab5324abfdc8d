"""The registry of public sets: means over seeds, tables, files; delayed rates against a slow count; readers' shapes."""

from __future__ import annotations

import importlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from carousel.bench import accuracy, accuracy_arrays, sets
from carousel.bench.accuracy import SETS, Outcome, Stopwatch, compare, over_seeds
from carousel.bench.accuracy_tables import over_folds
from carousel.errors import CarouselError
from carousel.trust.warnings import Warned

OUTCOME = Outcome(
    "toy",
    "A toy.",
    "hide=0.5",
    2,
    {"LSTM": {"auroc": 0.875, "ap": 0.5}, "prior": {"auroc": 0.5, "ap": None}},
    {"auroc": 0.0125, "ap": None},
    {"auroc": (">=", 0.86), "ap": ("<=", 0.55)},
    12.3,
    {"someone": {"auroc": 0.9}},
    ("leak audit: none found",),
)


def test_every_set_leads_to_a_function() -> None:
    for place in SETS.values():
        module, _, name = place.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_means_and_deviations_over_seeds() -> None:
    found = [
        {"LSTM": {"a": 1.0, "b": None}, "prior": {"a": 0.5, "b": 2.0}},
        {"LSTM": {"a": 3.0, "b": 4.0}},
    ]
    rows, sd = over_seeds(found, ("a", "b"))
    assert rows == {"LSTM": {"a": 2.0, "b": 4.0}, "prior": {"a": 0.5, "b": 2.0}}
    assert sd == {"a": pytest.approx(np.sqrt(2)), "b": None}


def test_what_must_be_reached_is_compared_in_its_own_direction() -> None:
    assert OUTCOME.met()
    assert not replace(OUTCOME, must={"auroc": (">=", 0.88)}).met()
    assert not replace(OUTCOME, must={"auroc": ("<=", 0.8)}).met()
    assert not replace(OUTCOME, must={"missing": (">=", 0.0)}).met()
    lines = compare(OUTCOME)
    assert "| LSTM | 0.875 ± 0.013 | 0.5 |" in lines
    assert "| prior | 0.5 | – |" in lines
    assert "| someone (published) | 0.9 | – |" in lines
    assert "- wanted: auroc >= 0.86, ap <= 0.55: **reached**" in lines


def test_outcomes_are_written_one_by_one_and_together(tmp_path: Path) -> None:
    accuracy.write(OUTCOME, tmp_path)
    accuracy.write(replace(OUTCOME, set="other", must={}), tmp_path)
    record = json.loads((tmp_path / "accuracy-toy.json").read_text())
    assert record["rows"]["LSTM"]["auroc"] == 0.875
    assert record["machine"]["python"]
    text = (tmp_path / "accuracy.md").read_text()
    assert text.index("### other") < text.index("### toy")
    assert text.count("| LSTM |") == 2


def test_sets_are_run_by_name_with_their_seeds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[tuple[int, ...]] = []

    def fake(seeds: tuple[int, ...]) -> Outcome:
        ran.append(seeds)
        return OUTCOME

    monkeypatch.setattr(importlib.import_module("carousel.bench.accuracy_tables"), "cgm", fake)
    said: list[str] = []
    assert accuracy.measure(["cgm"], seeds=2, out=tmp_path / "new", say=said.append) == [OUTCOME]
    assert ran == [(0, 1)]
    assert said[0].startswith("### toy")
    assert (tmp_path / "new" / "accuracy-toy.json").is_file()
    with pytest.raises(CarouselError, match="there is no set 'cake'"):
        accuracy.measure(["cake"])


@pytest.mark.parametrize("permuted", [False, True])
def test_the_runner_of_pixels(permuted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)

    def digits(part: str, shuffled: bool) -> tuple[np.ndarray, np.ndarray]:
        assert shuffled == permuted
        y = np.arange(60) % 2
        x = np.where(y[:, None, None] == 1, 0.9, 0.1) + 0.05 * rng.random((60, 9, 1))
        return x.astype(np.float32), y

    quick = {"hidden_size": 4, "steps": 60, "least_steps": 60, "learning_rate": 0.02, "refit": False, "holdout": 0.2}
    monkeypatch.setattr(accuracy_arrays, "PERMUTED" if permuted else "PIXELS", quick)
    monkeypatch.setattr(sets, "mnist", digits)
    found = (accuracy_arrays.mnist_permuted if permuted else accuracy_arrays.mnist)((0,))
    assert found.rows["LSTM"]["accuracy"] == 100
    assert found.must == {"accuracy": (">=", 90.0 if permuted else 97.5)}
    assert found.met()
    assert "hidden_size=4" in found.flag


def test_the_stopwatch_counts_the_processor_only() -> None:
    watch = Stopwatch()
    for _ in range(2):
        with watch:
            sum(range(200_000))
    assert 0 < watch.seconds < 5


def test_delayed_rates_are_those_of_a_slow_count() -> None:
    rng = np.random.default_rng(0)
    time = np.sort(rng.integers(0, 400, 300))
    key, mark = rng.integers(0, 5, 300), (rng.random(300) < 0.2).astype(np.int8)
    delay, window = 20, 50
    count, marked = sets._delayed(time, key, mark, delay, window)
    for k in range(300):
        before = (key == key[k]) & (time <= time[k] - delay) & (time > time[k] - delay - window)
        assert count[k] == before.sum()
        assert marked[k] == mark[before].sum()


def test_events_are_counted_over_all_folds() -> None:
    class Part:
        def __init__(self, events: int, hits: int) -> None:
            self.rows = {"LSTM": {"auroc": 0.8, "ap": None, "ece": 0.1}}
            by = {"LSTM": Warned(events, hits, 10, 4, 10.0, 10.0, 1440.0)}
            self.warnings = type("W", (), {"by": by})()

    found = over_folds([Part(10, 5), Part(30, 30)])["LSTM"]  # type: ignore[list-item]
    assert found["events warned"] == 35 / 40
    assert found["alarms a day"] == 10
    assert found["median lead (min)"] == 10
    assert found["ap"] is None


def test_a_set_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAROUSEL_DATA", "/nowhere")
    with pytest.raises(CarouselError, match="holds mnist/"):
        sets.mnist("train")


@pytest.mark.parametrize("name", ["physionet2012", "cmapss_fd001", "cgm_glucose", "japanese_vowels"])
def test_readers_give_what_the_sets_say_of_themselves(name: str) -> None:
    if not (Path(os.environ.get("CAROUSEL_DATA", "")) / name).is_dir():
        pytest.skip(f"CAROUSEL_DATA does not lead to {name}/")
    if name == "physionet2012":
        hourly = sets.physionet("a", hourly=True)
        assert hourly["record_id"].n_unique() == 4000
        died = hourly.group_by("record_id").agg(pl.col("death").first())["death"]
        assert died.mean() == pytest.approx(0.1385, abs=1e-4)
        assert (hourly["minute"] % 60 == 0).all()
        assert not hourly.select("record_id", "minute", "parameter").is_duplicated().any()
    if name == "cmapss_fd001":
        test = sets.cmapss("test")
        last = test.group_by("engine").agg(pl.col("rul").last())["rul"]
        assert (len(last), last.min(), last.max()) == (100, 7, 145)
        assert sets.cmapss("train")["rul"].max() == 125
    if name == "cgm_glucose":
        frame = sets.cgm()
        assert frame["id"].n_unique() == 19
        assert frame["low"].mean() == pytest.approx(0.017, abs=1e-3)
    if name == "japanese_vowels":
        x, y = sets.japanese_vowels("TEST")
        assert (len(x), x[0].shape[1], len(set(y))) == (370, 12, 9)
