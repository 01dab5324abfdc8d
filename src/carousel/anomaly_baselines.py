"""What a detector of anomalies must beat: rules of one line and classical methods, each a score for every row."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BASELINES",
    "beyond_range",
    "hotelling",
    "isolation_forest",
    "random_scores",
    "windowed_gaussian",
    "z_difference",
    "z_value",
]

Floats = NDArray[np.float64]
Baseline = Callable[[Floats, int], Floats]  # values [T, C] of one series, rows to learn from -> scores [T]
SMOOTH = 20  # rows whose mean Hotelling's statistic is of


def random_scores(values: Floats, training: int) -> Floats:
    return np.random.default_rng(0).random(len(values))


def z_value(values: Floats, training: int) -> Floats:
    """Largest distance of a value from the training rows' mean, in their standard deviations."""
    return _largest(values, training)


def z_difference(values: Floats, training: int) -> Floats:
    """The same of the change from row to row."""
    return _largest(np.diff(values, axis=0, prepend=values[:1]), training)


def beyond_range(values: Floats, training: int) -> Floats:
    """How far a value lies outside of all values before it, in units of their range; 0 within the training rows."""
    low = np.fmin.accumulate(values, 0)
    high = np.fmax.accumulate(values, 0)
    low, high = np.vstack([low[:1], low[:-1]]), np.vstack([high[:1], high[:-1]])
    beyond = np.maximum(values - high, low - values)
    width = high - low
    found = np.where(width > 0, np.nan_to_num(beyond) / np.where(width > 0, width, 1.0), 0.0).max(1)
    found[:training] = 0
    return np.asarray(np.maximum(found, 0))


def hotelling(values: Floats, training: int) -> Floats:
    """Hotelling's T (1947): how far the mean of the last 20 rows is from that of training, in their covariance."""
    z = _scaled(values, training)
    total = np.vstack([np.zeros(z.shape[1]), np.cumsum(z, 0)])
    at = np.arange(1, len(z) + 1)
    first = np.maximum(at - SMOOTH, 0)
    means = (total[at] - total[first]) / (at - first)[:, None]
    covariance = np.atleast_2d(np.cov(means[:training].T))
    inverse = np.linalg.inv(covariance + 1e-3 * np.eye(len(covariance)))
    return np.asarray(np.sqrt(np.einsum("ti,ij,tj->t", means, inverse, means)))


def isolation_forest(values: Floats, training: int) -> Floats:
    """Liu et al. 2008, scikit-learn's, of the rows one by one."""
    from sklearn.ensemble import IsolationForest

    z = _scaled(values, training)
    return np.asarray(-IsolationForest(random_state=0).fit(z[:training]).score_samples(z))


def windowed_gaussian(values: Floats, size: int = 6400, step: int = 100) -> Floats:
    """One minus the tail probability of each value [T] under a Gaussian of `size` rows before, renewed every `step`.

    The baseline of the Numenta Anomaly Benchmark with its choices (Lavin & Ahmad 2015), to the 12 digits of its files.
    """
    at = np.arange(len(values))
    stop = np.where(at <= size, at, size + (at - size) // step * step)
    start = np.maximum(stop - size, 0)
    centred = values - values.mean()  # so that the sums of squares keep their digits
    one, two = (np.concatenate([[0.0], np.cumsum(centred**power)]) for power in (1, 2))
    count = np.maximum(stop - start, 1)
    mean = (one[stop] - one[start]) / count
    spread = np.sqrt(np.maximum((two[stop] - two[start]) / count - mean**2, 0))
    spread = np.where(spread < 1e-9 * np.abs(centred).max(initial=0.0) + 1e-12, 1e-6, spread)
    tail = [0.5 * math.erfc(z) for z in np.abs(centred - mean) / spread / math.sqrt(2)]
    found = np.round(1 - np.array(tail), 12)
    found[:1] = 0
    return found


BASELINES: dict[str, Baseline] = {
    "random": random_scores,
    "z-score of value": z_value,
    "z-score of change": z_difference,
    "beyond the range so far": beyond_range,
    "Hotelling's T, 20 rows": hotelling,
    "isolation forest": isolation_forest,
}


def _scaled(values: Floats, training: int) -> Floats:
    """In standard deviations from the mean of the training rows; missing values count as the mean."""
    known = values[:training]
    seen = np.isfinite(known)
    count = np.maximum(seen.sum(0), 1)
    mean = np.where(seen, known, 0).sum(0) / count
    spread = np.sqrt((np.where(seen, known - mean, 0) ** 2).sum(0) / count)
    return np.asarray(np.nan_to_num((values - mean) / np.where(spread > 0, spread, 1.0)))


def _largest(values: Floats, training: int) -> Floats:
    return np.asarray(np.abs(_scaled(values, training)).max(1))
