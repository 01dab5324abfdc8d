"""The evaluation of labels, numbers and warnings: figures that agree with the model's own, baselines, trust report."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from carousel.classifier import Classifier
from carousel.errors import CarouselError, DataError
from carousel.evaluate_sequences import evaluate
from carousel.summaries import BASELINES
from carousel.tagger import Tagger
from carousel.train import TrainConfig
from carousel.trust.tables import SequenceEvaluation
from carousel.trust.warnings import alarms_within, warned

QUICK = TrainConfig(steps=30, least_steps=30, hidden_size=8, learning_rate=0.02, evaluate_every=10, warmup=5)


def stays(count: int, first: int, seed: int = 0) -> pl.DataFrame:
    """Ragged sequences of which a slow rise tells the label, with gaps, a category and a static column."""
    rng = np.random.default_rng([seed, first])
    tables = []
    for k in range(count):
        n, sick = int(rng.integers(3, 25)), int(rng.random() < 0.4)
        x = rng.normal(size=n) + np.linspace(0, 2.5, n) * sick
        tables.append(
            pl.DataFrame(
                {
                    "stay": first + k,
                    "t": np.cumsum(rng.exponential(1.0, n)),
                    "x": np.where(rng.random(n) < 0.2, np.nan, x),
                    "ward": rng.choice(["a", "b"], n),
                    "age": float(rng.integers(20, 90)),
                    "patient": (first + k) // 2,
                    "died": ["no", "yes"][sick],
                    "dose": 3.0 * sick + rng.normal(),
                }
            ).with_columns(pl.col("dose").first())
        )
    return pl.concat(tables)


def walks(count: int, first: int) -> pl.DataFrame:
    """Readings every 5 minutes of a slow walk; an event lasts while it is high."""
    rng = np.random.default_rng(first)
    tables = []
    for k in range(count):
        x = np.cumsum(rng.normal(size=150)) * 0.5
        x -= x.mean()
        start = pl.datetime(2024, 1, 1)
        when = pl.datetime_range(start, start + pl.duration(minutes=5 * 149), "5m", eager=True)
        tables.append(pl.DataFrame({"id": first + k, "t": when, "x": x, "high": (x > 2).astype(int)}))
    return pl.concat(tables)


FEATURES = ["x", "ward"]


@pytest.fixture(scope="module")
def classified() -> tuple[Classifier, pl.DataFrame, pl.DataFrame, SequenceEvaluation]:
    train, test = stays(120, 0), stays(80, 1000)
    model = Classifier("died", id="stay", time="t", features=FEATURES, static=["age"], seeds=2, config=QUICK)
    model.fit(train)
    return model, train, test, evaluate(model, test, train=train, group="patient")


def test_figures_are_those_of_the_models_own_probabilities(classified: Any) -> None:
    model, _, test, found = classified
    truth = test.group_by("stay", maintain_order=True).first().sort("stay")["died"].to_numpy() == "yes"
    chance = model.predict_proba(test)[:, 1]
    assert found.of("LSTM")["auroc"] == pytest.approx(roc_auc_score(truth, chance))
    assert found.of("LSTM")["brier"] == pytest.approx(float(np.square(chance - truth).mean()))
    assert found.of("LSTM")["accuracy"] == pytest.approx(model.score(test))
    assert found.of("prior")["auroc"] == 0.5
    assert tuple(found.rows) == ("LSTM", *BASELINES)
    assert found.of("boosted trees on summaries")["auroc"] > 0.7
    assert (found.count, found.sequences) == (80, 80)


def test_the_trust_report_says_what_stands_behind(classified: Any) -> None:
    _, train, test, found = classified
    trust = found.trust
    assert trust.audit.clean
    assert set(trust.audit.checked) == {"group", "duplicates", "scaler", "target"}
    assert trust.split.kind == "by sequence"
    assert trust.split.train["rows"] == len(train)
    assert trust.split.test["sequences"] == 80
    yes = test.group_by("stay").first()["died"] == "yes"
    assert trust.balance["yes"] == (pytest.approx(trust.balance["yes"][0]), yes.mean(), yes.sum())
    mean, sd = trust.seeds["auroc"]
    assert 0.4 < mean < 1
    assert sd > 0
    assert trust.calibration is not None
    assert sum(n for *_, n in trust.calibration.bins) == 80
    said = "\n".join(trust.sentences())
    for part in ("none found", "Split by sequence", "yes", "2 members", "Calibration: expected error"):
        assert part in said
    again = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert again["trust"]["leaks"]["found"] == []
    assert again["rows"][0]["auroc"] == found.of("LSTM")["auroc"]
    assert found.verdict() in found.markdown()


def test_leaks_of_a_real_evaluation_are_reported(classified: Any) -> None:
    model, train, test, _ = classified
    shared = pl.concat([test, train.filter(pl.col("stay") < 5)])
    assert [f.kind for f in evaluate(model, shared, train=train, baselines=("prior",)).trust.audit.findings] == [
        "group"
    ]
    copied = pl.concat([test, train.filter(pl.col("stay") < 9).with_columns(pl.col("stay") + 5000)])
    found = evaluate(model, copied, train=train, baselines=("prior",))
    assert [f.kind for f in found.trust.audit.findings] == ["duplicates"]
    patients = test.with_columns(patient=pl.col("patient") - 500)
    found = evaluate(model, patients, train=train, group="patient", baselines=("prior",))
    assert [f.kind for f in found.trust.audit.findings] == ["group"]
    assert any(line.startswith("LEAK (sequences in two splits)") for line in found.trust.sentences())


def test_a_model_fitted_on_both_parts_betrays_its_scaler() -> None:
    train, test = stays(120, 0), stays(80, 1000).with_columns(pl.col("x") * 1.5 + 0.5)
    config = TrainConfig(steps=2, least_steps=1, hidden_size=4, warmup=1, evaluate_every=1)
    model = Classifier("died", id="stay", time="t", features=FEATURES, static=["age"], config=config)
    model.fit(pl.concat([train, test]))
    found = evaluate(model, test, train=train, baselines=("prior",)).trust.audit.findings
    assert [f.kind for f in found] == ["scaler"]


def test_without_training_rows_baselines_are_cross_validated_and_it_is_said(classified: Any) -> None:
    model, _, test, whole = classified
    found = evaluate(model, test)
    assert found.of("LSTM") == whole.of("LSTM")
    assert found.of("boosted trees on summaries") != whole.of("boosted trees on summaries")
    assert "cross-validated" in found.notes[0]
    assert {"group", "duplicates", "scaler"} <= set(found.trust.audit.unchecked)
    assert "not known" in found.trust.split.sentence()


def test_numbers_have_their_own_metrics_and_coverage() -> None:
    train, test = stays(120, 0), stays(80, 1000)
    model = Classifier("dose", id="stay", time="t", features=FEATURES, kind="regression", config=QUICK).fit(train)
    found = evaluate(model, test, train=train)
    made = model.predict(test)
    truth = test.group_by("stay", maintain_order=True).first().sort("stay")["dose"].to_numpy()
    error = made["prediction"].to_numpy() - truth
    assert found.of("LSTM")["rmse"] == pytest.approx(float(np.sqrt(np.square(error).mean())))
    inside = (made["q0.05"].to_numpy() <= truth) & (truth <= made["q0.95"].to_numpy())
    assert found.trust.coverage == {"90": pytest.approx(float(inside.mean()))}
    assert found.trust.calibration is None
    assert found.main == ("rmse", False)
    assert "covered" in found.markdown()


def test_a_warning_is_counted_in_events_lead_and_alarms(capsys: pytest.CaptureFixture[str]) -> None:
    train, test = walks(30, 0), walks(12, 100)
    model = Tagger(event="high", ahead="30min", id="id", time="t", features=["x"], config=QUICK).fit(train)
    found = evaluate(model, test, train=train)
    assert found.warnings is not None
    assert found.warnings.ahead == 1800
    own = found.warnings.by["LSTM"]
    begins = test.with_columns(new=(pl.col("high").diff() == 1).over("id"))["new"].sum()
    assert own.events == begins
    assert 0 < own.warned <= own.events
    assert own.lead_median is not None
    assert 0 < own.lead_median <= 1800
    assert all(other.alarms <= own.alarms for other in found.warnings.by.values())
    assert found.trust.audit.clean
    assert set(found.trust.balance) == {"no event ahead", "event ahead"}
    found.show()
    said = capsys.readouterr().out
    assert "events warned of" in said
    assert "alarms a day" in said


def test_warnings_against_a_count_by_hand() -> None:
    time = np.r_[np.arange(10.0), np.arange(6.0)]
    offsets = np.array([0, 10, 16])
    onset = np.zeros(16, bool)
    onset[[4, 9, 10, 15]] = True  # the third is in a first row: no one can warn of it
    alarm = np.zeros(16, bool)
    alarm[[2, 3, 5, 11]] = True
    found = warned(time, onset, alarm, offsets, 3.0)
    assert (found.events, found.warned) == (3, 1)
    assert found.lead_median == 2.0
    assert found.alarms == 2  # at 2 (3 and 5 are within its silence), and in the other sequence
    assert found.false_alarms == 1
    assert found.span == 14.0
    assert found.per(7.0) == 1.0
    always = warned(time, onset, np.ones(16, bool), offsets, 3.0)
    assert always.warned == 3
    assert always.alarms == 5  # 0, 4, 8 and 0, 4: a bell that never stops rings again and again
    none = warned(time, onset, np.zeros(16, bool), offsets, 3.0)
    assert (none.warned, none.alarms, none.lead_median) == (0, 0, None)


def test_a_threshold_for_a_number_of_alarms() -> None:
    rng = np.random.default_rng(0)
    time, offsets = np.tile(np.arange(100.0), 5), np.arange(0, 501, 100)
    p = rng.random(500)
    onset = np.zeros(500, bool)
    for most in (0, 3, 20):
        level = alarms_within(time, p, onset, offsets, 5.0, most)
        assert warned(time, onset, p >= level, offsets, 5.0).alarms <= most
    assert alarms_within(time, np.full(500, 0.3), onset, offsets, 5.0, 4) > 0.3


def test_what_cannot_be_evaluated_is_refused(classified: Any) -> None:
    model, train, test, _ = classified
    with pytest.raises(CarouselError, match="give train as well"):
        evaluate(model, test, group="patient")
    with pytest.raises(DataError, match="has no label"):
        evaluate(model, test.with_columns(died=None), train=train)
    with pytest.raises(DataError, match="'perhaps' was not among those of training"):
        evaluate(model, test.with_columns(died=pl.lit("perhaps")), train=train)


def test_arrays_are_evaluated_as_tables_are() -> None:
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(rng.integers(4, 9), 2)) + k % 3 for k in range(90)]
    y = [k % 3 for k in range(90)]
    model = Classifier(config=QUICK).fit(X[:60], y[:60])
    found = evaluate(model, X[60:], y[60:], train=X[:60], train_y=y[:60])
    assert found.main == ("accuracy", True)
    assert found.of("LSTM")["accuracy"] == pytest.approx(model.score(X[60:], y[60:]))
    assert found.trust.audit.clean
    assert found.trust.audit.unchecked["group"] == "arrays have no ids"
    copied = evaluate(model, [*X[60:], *X[:3]], [*y[60:], *y[:3]], train=X[:60], train_y=y[:60], baselines=())
    assert [f.kind for f in copied.trust.audit.findings] == ["duplicates"]
