"""Honest probabilities and intervals from held-out outputs, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["conformal_errors", "fit_temperature"]

Floats = NDArray[np.float64]

COLDEST, HOTTEST = 0.2, 5.0
LEAST = 10  # held-out examples below which nothing is calibrated


def fit_temperature(logits: Floats, truth: Floats, weight: Floats) -> float:
    """The temperature that makes the held-out `truth` [n] most likely, given logits [n, K], or [n, 1] of a warning.

    Guo et al. 2017. 1 where fewer than 10 examples were held out.

    >>> fit_temperature(np.array([[4.0], [4.0], [4.0], [-4.0]] * 9), np.array([1, 1, 0, 0.0] * 9), np.ones(36)) > 2
    True
    """
    used = np.isfinite(truth) & (weight > 0) & np.isfinite(logits).all(1)
    if int(used.sum()) < LEAST:
        return 1.0
    z, y, w = logits[used], truth[used], weight[used]
    if z.shape[1] == 1:
        z, y = np.concatenate([np.zeros_like(z), z], 1), y.astype(np.int64)
    y = y.astype(np.int64)

    def loss(log_t: float) -> float:
        s = z / math.exp(log_t)
        top = s.max(1)
        own = s[np.arange(len(y)), y]
        return float((w * (np.log(np.exp(s - top[:, None]).sum(1)) + top - own)).sum())

    low, high = math.log(COLDEST), math.log(HOTTEST)
    golden = (math.sqrt(5) - 1) / 2
    a, b = high - golden * (high - low), low + golden * (high - low)
    fa, fb = loss(a), loss(b)
    for _ in range(40):
        if fa < fb:
            high, b, fb = b, a, fa
            a = high - golden * (high - low)
            fa = loss(a)
        else:
            low, a, fa = a, b, fb
            b = low + golden * (high - low)
            fb = loss(b)
    return math.exp((low + high) / 2)


def conformal_errors(residuals: Floats, quantiles: Sequence[float]) -> tuple[float, ...]:
    """What to add to a prediction for each quantile, from n held-out residuals truth - prediction.

    Split-conformal (Vovk et al. 2005; Lei et al. 2018), each side on its own: the order statistic that leaves at most
    the asked share outside for exchangeable data. 0 for all below 10 residuals.

    >>> conformal_errors(np.arange(-9.0, 10.0), (0.05, 0.5, 0.95))
    (-9.0, 0.0, 9.0)
    """
    r = np.sort(residuals[np.isfinite(residuals)])
    n = len(r)
    if n < LEAST:
        return (0.0,) * len(quantiles)
    found = []
    for q in quantiles:
        k = math.floor(round(q * (n + 1), 9)) if q < 0.5 else math.ceil(round(q * (n + 1), 9))
        found.append(float(r[min(max(k, 1), n) - 1]))
    return tuple(found)
