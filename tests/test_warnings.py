"""Early warnings are counted over the rows that are judged, outside events, and their event column is audited."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from carousel import evaluate_sequences
from carousel.evaluate_sequences import evaluate
from carousel.tagger import Tagger
from carousel.train import TrainConfig
from carousel.trust.warnings import warned, warning_report

TINY = TrainConfig(steps=2, least_steps=1, hidden_size=4, width=0, warmup=1, evaluate_every=1, batch_size=8)


def walks(count: int, first: int, rows: int = 60) -> pl.DataFrame:
    """Readings every hour of a slow walk; an event lasts while it is high."""
    rng = np.random.default_rng(first)
    tables = []
    for k in range(count):
        x = np.cumsum(rng.normal(size=rows)) * 0.5
        start = pl.datetime(2024, 1, 1)
        when = pl.datetime_range(start, start + pl.duration(hours=rows - 1), "1h", eager=True)
        tables.append(pl.DataFrame({"id": first + k, "t": when, "x": x - x.mean(), "high": x - x.mean() > 1}))
    return pl.concat(tables).with_columns(pl.col("high").cast(int))


@pytest.fixture(scope="module")
def model() -> Tagger:
    made = Tagger(event="high", ahead="6h", id="id", time="t", features=["x"], config=TINY)
    return made.fit(walks(20, 0))


def ring(monkeypatch: pytest.MonkeyPatch, alarm: Any) -> None:
    """In place of the model's outputs: far above any threshold where `alarm` holds of sequences, else far below."""

    def outputs(members: Any, sequences: Any, *more: Any) -> Any:
        return np.where(alarm(sequences), 50.0, -50.0)[:, None]

    monkeypatch.setattr(evaluate_sequences, "channels", lambda sequences, config: sequences)
    monkeypatch.setattr(evaluate_sequences, "outputs", outputs)


def test_alarms_and_time_are_of_the_same_rows(model: Tagger, monkeypatch: pytest.MonkeyPatch) -> None:
    stays = walks(100, 500, rows=8).with_columns(high=0)
    ring(monkeypatch, lambda s: s.time % 86400 >= 3 * 3600)
    found = evaluate(model, stays, baselines=()).warnings
    assert found is not None
    own = found.by["LSTM"]
    assert own.span == 100 * 7 * 3600
    assert (own.alarms, own.false_alarms, own.events) == (100, 100, 0)
    assert own.per(86400) == pytest.approx(24 / 7)


def test_alarms_during_an_event_and_its_time_do_not_count() -> None:
    time, event = np.arange(12.0), np.r_[np.zeros(4), np.ones(3), np.zeros(5)]
    report = warning_report(time, event, np.ones(12, bool), np.array([0, 12]), ahead=3.0, day=1.0)
    # rings at 0, at 7 after the event and at 11; time from rows 0-3 and 7-10
    assert report == {"events": 1.0, "events_warned": 1.0, "lead_time": 3.0, "alarms_per_day": 3 / 8}
    lasting = event == 1
    onset = np.arange(12) == 4
    found = warned(time, onset, np.ones(12, bool), np.array([0, 12]), 3.0, lasting)
    assert (found.alarms, found.false_alarms, found.span) == (3, 3, 8.0)


def test_training_reports_alarms_a_day_as_evaluation_does() -> None:
    known, late = walks(20, 0), walks(8, 300)
    model = Tagger(event="high", ahead="6h", id="id", time="t", features=["x"], config=TINY).fit(known, valid=late)
    found = evaluate(model, late, baselines=()).warnings
    assert found is not None
    metrics = model.provenance_["metrics"]
    assert metrics["validation_alarms_per_day"] == pytest.approx(found.by["LSTM"].per(86400))
    assert metrics["validation_events"] == found.by["LSTM"].events
    assert found.by["LSTM"].alarms > 0


def test_since_counts_what_the_late_rows_alone_do(model: Tagger, monkeypatch: pytest.MonkeyPatch) -> None:
    ring(monkeypatch, lambda s: (s.time // 3600).astype(int) % 5 == 0)
    data, moment = walks(12, 700), pl.datetime(2024, 1, 2, 6)
    whole = evaluate(model, data, since="2024-01-02 06:00:00", baselines=("prior",))
    late = evaluate(model, data.filter(pl.col("t") >= moment), baselines=("prior",))
    assert whole.warnings is not None
    assert late.warnings is not None
    assert whole.warnings.by["LSTM"] == late.warnings.by["LSTM"]
    assert whole.warnings.by["LSTM"].events > 0
    assert whole.warnings.by["LSTM"].events < evaluate(model, data, baselines=()).warnings.by["LSTM"].events


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_event_shifted_is_the_future(steps: int) -> None:
    shifted = pl.col("high").shift(-steps).over("id").cast(float).alias("hint")
    known, late = (walks(12, first).with_columns(shifted) for first in (0, 900))
    model = Tagger(event="high", ahead="6h", id="id", time="t", features=["x", "hint"], config=TINY).fit(known)
    for more in ({"train": known}, {}):
        audit = evaluate(model, late, baselines=(), **more).trust.audit
        assert [(f.kind, f.column) for f in audit.findings if f.kind == "future"] == [("future", "hint")]
    clean = walks(12, 900).with_columns(hint=pl.lit(0.0))
    assert evaluate(model, clean, train=walks(12, 0).with_columns(hint=pl.lit(0.0)), baselines=()).trust.audit.clean
