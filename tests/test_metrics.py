"""Metrics against scikit-learn's, and against small cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as oracle

from carousel.trust import metrics


@pytest.mark.parametrize("ties", [False, True])
def test_binary_scores_are_scikit_learns(ties: bool) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(500) < 0.3
    p = np.clip(0.3 * truth + 0.7 * rng.random(500), 0, 1)
    p = np.round(p, 1) if ties else p
    found = metrics.binary_scores(truth, p, 0.6)
    said = p >= 0.6
    expected = {
        "auroc": oracle.roc_auc_score(truth, p),
        "ap": oracle.average_precision_score(truth, p),
        "f1": oracle.f1_score(truth, said),
        "precision": oracle.precision_score(truth, said),
        "recall": oracle.recall_score(truth, said),
        "balanced_accuracy": oracle.balanced_accuracy_score(truth, said),
        "accuracy": oracle.accuracy_score(truth, said),
        "log_loss": oracle.log_loss(truth, np.clip(p, 1e-15, 1 - 1e-15)),
        "brier": oracle.brier_score_loss(truth, p),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-9), name


def test_class_scores_are_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, 400)
    p = rng.dirichlet(np.ones(4), 400) + 0.3 * np.eye(4)[truth]
    p /= p.sum(1, keepdims=True)
    found = metrics.class_scores(truth, p)
    assert found["accuracy"] == pytest.approx(oracle.accuracy_score(truth, p.argmax(1)))
    assert found["balanced_accuracy"] == pytest.approx(oracle.balanced_accuracy_score(truth, p.argmax(1)))
    assert found["f1"] == pytest.approx(oracle.f1_score(truth, p.argmax(1), average="macro"))
    assert found["auroc"] == pytest.approx(oracle.roc_auc_score(truth, p, multi_class="ovr", average="macro"))
    assert found["log_loss"] == pytest.approx(oracle.log_loss(truth, p))


def test_a_class_alone_has_no_area() -> None:
    found = metrics.binary_scores(np.ones(5, bool), np.linspace(0, 1, 5))
    assert found["auroc"] is None
    assert found["ap"] == 1.0
    none = metrics.binary_scores(np.zeros(5, bool), np.linspace(0, 0.4, 5))
    assert none["ap"] is None
    assert none["f1"] is None
    assert none["balanced_accuracy"] == 1.0


def test_calibration_error_is_that_of_the_bins() -> None:
    p = np.r_[np.full(50, 0.2), np.full(50, 0.9)]
    truth = np.r_[np.arange(50) < 10, np.arange(50) < 30]  # 20 % as said, 60 % where 90 % was said
    assert metrics.ece(truth, p, bins=2) == pytest.approx(0.5 * 0.3)
    assert metrics.reliability(truth, p, 2) == [
        (pytest.approx(0.2), pytest.approx(0.2), 50),
        (pytest.approx(0.9), pytest.approx(0.6), 50),
    ]
    rng = np.random.default_rng(0)
    q = rng.random(20_000)
    assert metrics.ece(rng.random(20_000) < q, q) < 0.02
    assert metrics.ece(rng.random(20_000) < q**2, q) > 0.1


def test_number_scores() -> None:
    truth, made = np.array([1.0, 2.0, 3.0, 6.0]), np.array([1.0, 3.0, 3.0, 3.0])
    found = metrics.number_scores(truth, made, made - 1.5, made + 1.5)
    assert found["rmse"] == pytest.approx(np.sqrt(10 / 4))
    assert found["mae"] == 1.0
    assert found["r2"] == pytest.approx(1 - 10 / 14)
    assert found["coverage"] == 0.75
    assert found["width"] == 3.0


def test_spread_over_seeds() -> None:
    assert metrics.spread([0.8, 0.9, None, 0.7]) == (pytest.approx(0.8), pytest.approx(0.1))
    assert metrics.spread([0.8, None]) is None
