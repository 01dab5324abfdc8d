"""The trust report of detectors: labels that a column gives away, copies of training rows, the spread over members."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from carousel import Detector, TrainConfig
from carousel.evaluate_detection import evaluate_detection


def machines(count: int, first: int, odd: bool = True) -> pl.DataFrame:
    rng = np.random.default_rng(first)
    tables = []
    for k in range(first, first + count):
        t = np.arange(120.0)
        x = np.sin(t / 4 + rng.uniform(0, 6)) + 0.1 * rng.normal(size=120)
        y = np.cos(t / 4) + 0.1 * rng.normal(size=120)
        flag = np.zeros(120)
        if odd:
            at = int(rng.integers(30, 100))
            flag[at : at + 8] = 1
            x[at : at + 8] += 3
        tables.append(pl.DataFrame({"machine": k, "t": t, "x": x, "y": y, "odd": flag}))
    return pl.concat(tables)


@pytest.fixture(scope="module")
def fitted() -> Detector:
    quick = TrainConfig(steps=6, least_steps=6, hidden_size=4, batch_size=8, warmup=2, evaluate_every=3)
    model = Detector(id="machine", time="t", target="odd", features=["x", "y"], seeds=2, config=quick)
    return model.fit(machines(12, 0, odd=False))


def test_the_report_of_a_detector(fitted: Detector) -> None:
    train, test = machines(12, 0, odd=False), machines(6, 500)
    found = evaluate_detection(fitted, test, train=train)
    trust = found.trust
    assert trust is not None
    assert trust.audit.findings == ()
    assert trust.split.kind.startswith("by sequence")
    assert trust.balance["anomaly"][2] == 6 * 8
    assert trust.members == 2
    assert set(trust.seeds) >= {"flagged"}
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["trust"]["leaks"]["found"] == []
    assert "Leaks: none found" in found.markdown()


def test_leaks_of_a_detector_are_found(fitted: Detector) -> None:
    train, test = machines(12, 0, odd=False), machines(6, 500)
    copied = pl.concat([test, train.filter(pl.col("machine") < 2).with_columns(pl.col("machine") + 9000)])
    found = evaluate_detection(fitted, copied, train=train)
    assert found.trust is not None
    assert "duplicates" in {f.kind for f in found.trust.audit.findings}
    given_away = test.with_columns(y=pl.col("odd") * 5 + 1)
    found = evaluate_detection(fitted, given_away)
    assert found.trust is not None
    assert ("target", "y") in {(f.kind, f.column) for f in found.trust.audit.findings}
