"""Metrics of detection against literal restatements of their definitions, and NAB's score against a published one."""

import itertools
import json
import math
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carousel.anomaly import detection, runs, vus_pr
from carousel.anomaly_baselines import windowed_gaussian
from carousel.errors import DataError
from carousel.nab import LOW_FN, LOW_FP, STANDARD, NabProfile, NabSeries, nab_score, probation


def random_labels(rng: np.random.Generator, rows: int, events: int) -> np.ndarray:
    labels = np.zeros(rows, int)
    for start in rng.integers(0, rows, events):
        labels[start : start + rng.integers(1, 12)] = 1
    return labels


def literal_vus_pr(scores: np.ndarray, labels: np.ndarray, window: int) -> float:
    """Equations of Paparrizos et al. 2022, one threshold and one buffer after the other."""
    areas = []
    for buffer in range(window + 1):
        weight = labels.astype(float)
        for first, last in runs(labels):
            for k in range(1, buffer // 2 + 1):
                for at in (first - k, last + k):
                    if 0 <= at < len(labels):
                        weight[at] += math.sqrt(1 - k / buffer)
        weight = np.minimum(weight, 1)
        segments = runs(weight > 0)
        points = [(0.0, 1.0)]
        for threshold in sorted(set(scores), reverse=True):
            flagged = scores >= threshold
            true = float(weight[flagged].sum())
            found = sum(flagged[a : b + 1].any() for a, b in segments) / len(segments)
            recall = min(true / ((labels.sum() + weight.sum()) / 2), 1) * found
            points.append((recall, true / flagged.sum()))
        areas.append(sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points)))
    return float(np.mean(areas))


@pytest.mark.parametrize("seed", range(6))
def test_vus_pr_is_the_published_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = random_labels(rng, 150, 4)
    scores = rng.normal(size=150) + labels
    if seed % 2:
        scores = scores.round(1)  # with ties
    for window in (0, 1, 7, 40):
        assert vus_pr(scores, labels, window=window) == pytest.approx(literal_vus_pr(scores, labels, window), abs=1e-12)


def test_vus_pr_is_a_mean_over_series_and_events_do_not_reach_into_the_next() -> None:
    rng = np.random.default_rng(1)
    parts = [random_labels(rng, n, 2) for n in (60, 1, 45)]
    parts[0][-3:] = 1
    scores = [rng.normal(size=len(p)) for p in parts]
    parts[1][:] = 0
    got = vus_pr(np.concatenate(scores), np.concatenate(parts), np.array([0, 60, 61, 106]), window=9)
    assert got == pytest.approx((vus_pr(scores[0], parts[0], window=9) + vus_pr(scores[2], parts[2], window=9)) / 2)


def test_vus_pr_refuses_what_has_no_surface() -> None:
    with pytest.raises(DataError, match="3 scores and 2 labels"):
        vus_pr(np.zeros(3), np.ones(2), window=1)
    with pytest.raises(DataError, match="row 2: the score is not a finite"):
        vus_pr(np.array([0.0, np.nan]), np.ones(2), window=1)
    with pytest.raises(DataError, match="no row is labelled"):
        vus_pr(np.zeros(3), np.zeros(3), window=1)


def test_rows_events_and_both() -> None:
    #                  found       missed    beside
    labels = np.array([0, 1, 1, 1, 0, 1, 1, 0, 0, 0])
    flags = np.array([0, 0, 1, 0, 0, 0, 0, 0, 1, 1])
    found = detection(flags, labels)
    assert found.precision == pytest.approx(1 / 3)
    assert found.recall == pytest.approx(1 / 5)
    assert found.event_precision == 0.5
    assert found.event_recall == 0.5
    assert found.composite_f1 == pytest.approx(2 * (1 / 3) * 0.5 / (1 / 3 + 0.5))
    assert (found.events, found.events_found, found.false_events) == (2, 1, 1)
    assert found.flagged == pytest.approx(0.3)
    assert found.false_alarm_rate == pytest.approx(2 / 5)
    assert found.missed_rate == pytest.approx(4 / 5)


def test_flagging_everything_has_full_event_f1_and_a_share_of_one() -> None:
    labels = random_labels(np.random.default_rng(0), 200, 3)
    found = detection(np.ones(200), labels)
    assert found.event_f1 == 1.0
    assert found.flagged == 1.0
    assert found.composite_f1 == pytest.approx(2 * labels.mean() / (labels.mean() + 1))


def test_flagging_nothing_and_labelling_nothing() -> None:
    labels = np.array([0, 1, 0])
    nothing = detection(np.zeros(3), labels)
    assert (nothing.f1, nothing.composite_f1, nothing.event_recall) == (0.0, 0.0, 0.0)
    without = detection(np.array([0, 1, 0]), np.zeros(3))
    assert (without.recall, without.f1, without.missed_rate) == (None, None, None)
    assert without.false_alarm_rate == pytest.approx(1 / 3)
    with pytest.raises(DataError, match="3 rows and 2 labels"):
        detection(labels, np.zeros(2))


def test_events_end_with_their_series() -> None:
    labels = np.array([0, 1, 1, 1, 0])
    offsets = np.array([0, 2, 2, 5])
    assert runs(labels, offsets).tolist() == [[1, 1], [2, 3]]
    assert detection(labels, labels, offsets).events == 2


def literal_nab(scores: np.ndarray, windows: list[tuple[int, int]], profile: NabProfile, threshold: float) -> float:
    """Row by row after Lavin & Ahmad 2015: worth above flagging nothing, of one series at one threshold."""
    best = [-profile.missed] * len(windows)
    false, counted = 0.0, set()
    for t, score in enumerate(scores):
        if t < min(math.floor(0.15 * len(scores)), 750.0):
            continue
        inside = [k for k, (a, b) in enumerate(windows) if a <= t <= b]
        if inside:
            (k,), (a, b) = inside, windows[inside[0]]
            counted.add(k)
            if score >= threshold:
                position = -(b - t + 1) / (b - a + 1)
                worth = 2 / (1 + math.exp(5 * position)) - 1
                best[k] = max(best[k], profile.found * worth / (2 / (1 + math.exp(-5)) - 1))
        elif score >= threshold:
            before = [(a, b) for a, b in windows if b < t]
            worth = -1.0
            if before:
                position = (t - before[-1][1]) / (before[-1][1] - before[-1][0])
                worth = -1.0 if position > 3 else 2 / (1 + math.exp(5 * position)) - 1
            false += profile.false * worth
    return false + sum(best[k] + profile.missed for k in counted)


@pytest.mark.parametrize("profile", [STANDARD, LOW_FP, LOW_FN])
def test_nab_score_is_the_published_one(profile: NabProfile) -> None:
    rng = np.random.default_rng(4)
    series = []
    for rows, windows in ((300, [(60, 89), (150, 170)]), (90, []), (120, [(5, 30), (100, 119)]), (101, [(40, 55)])):
        scores = rng.random(rows).round(2)  # ties across series
        for a, _ in windows:
            scores[a + 3] += 0.3
        series.append((scores, windows))
    total = sum(len(w) for _, w in series) * (profile.found + profile.missed)
    made = [NabSeries(s, np.array(w).reshape(-1, 2)) for s, w in series]
    thresholds = sorted({float(v) for s, _ in series for v in s})
    literal = [100 * sum(literal_nab(s, w, profile, t) for s, w in series) / total for t in thresholds]
    for threshold, expected in zip(thresholds, literal, strict=True):
        assert nab_score(made, profile, threshold=threshold).score == pytest.approx(expected, abs=1e-9)
    best = nab_score(made, profile)
    assert best.score == pytest.approx(max(0.0, *literal), abs=1e-9)
    assert best.threshold == thresholds[int(np.argmax(literal))]
    assert nab_score(made, profile, threshold=best.threshold) == best


def test_nab_probation_does_not_count() -> None:
    scores = np.zeros(1000)
    scores[149] = 1.0
    windows = np.array([[140, 160], [500, 600]])
    assert probation(1000) == 150
    assert nab_score([NabSeries(scores, windows)]).threshold == math.inf
    scores[150] = 1.0
    found = nab_score([NabSeries(scores, windows)])
    assert (found.windows, found.windows_found, found.false_rows) == (2, 1, 0)


def test_nab_refuses_bad_windows() -> None:
    flat = np.zeros(50)
    with pytest.raises(DataError, match="no series has a labelled window"):
        nab_score([NabSeries(flat, np.zeros((0, 2)))])
    with pytest.raises(DataError, match="must lie in the 50 rows"):
        nab_score([NabSeries(flat, np.array([[40, 50]]))])
    with pytest.raises(DataError, match="may not overlap"):
        nab_score([NabSeries(flat, np.array([[5, 10], [10, 12]]))])
    with pytest.raises(DataError, match="row 4: the score is not a finite"):
        nab_score([NabSeries(np.where(np.arange(50) == 3, np.inf, 0.0), np.array([[5, 10]]))])


def test_the_windowed_gaussian_scores_as_published() -> None:
    """39.65, 20.87 and 47.41 stand in NAB's results for its windowed Gaussian (6,400 rows, renewed every 100)."""
    folder = Path(os.environ.get("CAROUSEL_DATA", "nowhere")) / "nab"
    if not folder.is_dir():
        pytest.skip("CAROUSEL_DATA does not lead to a folder that holds nab/")
    import polars as pl

    windows: dict[str, Any] = json.loads((folder / "combined_windows.json").read_text())
    series = []
    for (name,), part in pl.read_parquet(folder / "nab.parquet").group_by(["series"], maintain_order=True):
        stamps = part["timestamp"].to_list()
        spans = [[stamps.index(datetime.fromisoformat(t)) for t in pair] for pair in windows[str(name)]]
        series.append(NabSeries(windowed_gaussian(part["value"].to_numpy()), np.array(spans, int).reshape(-1, 2)))
    scores = [nab_score(series, profile).score for profile in (STANDARD, LOW_FP, LOW_FN)]
    assert scores == pytest.approx([39.6495, 20.8680, 47.4100], abs=2e-3)
