"""How views of a detector are fitted on rows of normal operation, which may hold some anomalies."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from carousel.heads.tail import tail_limit
from carousel.heads.view import View, window_means

__all__ = ["best_threshold", "few_samples", "fit_view"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

SHRINK = 0.1  # of correlations towards none
TRIM = 0.005  # share of means at either end that count as no further out


def fit_view(
    of: Literal["error", "value"],
    rows: int,
    values: Floats,
    offsets: Ints,
    learned: Flags,
    held: Flags,
    risk: float,
    contamination: float = 0.0,
    span: int = 1,
) -> View:
    """A view of values [N, C] over `rows` rows. `learned` [N] are rows that the weights were trained on, `held` [N]
    others; distances of the former are stretched as far as they are smaller than those of the latter. All other rows
    are as if they were missing. The farthest rows, a share `contamination`, are taken for anomalies and left out.
    `span`: rows that a value stands for, of windows that were averaged before.
    """
    normal = learned | held
    means, known = window_means(np.where(normal[:, None], values, np.nan), offsets, rows)
    position = np.arange(len(values)) - np.repeat(offsets[:-1], np.diff(offsets))
    used = normal & (position >= rows - 1)
    if not used.any():
        used = normal
    view = _fitted(of, rows, means, known, used, learned, held, risk, span)
    for _ in range(2 if contamination else 0):  # what is left out changes what is far
        distance, _ = view.distance(means, known)
        near = np.nan_to_num(distance) <= np.nanquantile(distance[used], 1 - contamination)
        view = _fitted(of, rows, means, known, used & near, learned, held, risk, span)
    return view


def _fitted(
    of: Literal["error", "value"],
    rows: int,
    means: Floats,
    known: Ints,
    used: Flags,
    learned: Flags,
    held: Flags,
    risk: float,
    span: int,
) -> View:
    columns = means[used]
    centre, spread = np.zeros(columns.shape[1]), np.ones(columns.shape[1])
    low, high = centre.copy(), centre.copy()
    trimmed = np.zeros_like(columns)
    for c in range(columns.shape[1]):
        x = columns[:, c][~np.isnan(columns[:, c])]
        if len(x):
            low[c], high[c] = x.min(), x.max()
            x = np.clip(x, *np.quantile(x, (TRIM, 1 - TRIM))) if len(x) >= 200 else x
            centre[c], spread[c] = x.mean(), x.std()
            if spread[c] <= 1e-9 * max(1.0, abs(centre[c])):  # constant: a thousandth of it is far
                spread[c] = 1e-3 * max(1.0, abs(centre[c]))
            trimmed[:, c] = np.nan_to_num(np.clip(columns[:, c], x.min(), x.max()) - centre[c]) / spread[c]
    products = trimmed.T @ trimmed
    size = np.sqrt(np.maximum(np.diag(products), 1e-12))
    correlation = (1 - SHRINK) * products / np.outer(size, size)
    np.fill_diagonal(correlation, 1.0)
    numbers = (_floats(centre), _floats(spread), tuple(_floats(row) for row in correlation))
    view = View(of, rows, *numbers, _floats(low), _floats(high), 1.0, 1.0)
    distance, _ = view.distance(means, known)
    ours, theirs = (distance[part & used & ~np.isnan(distance)] for part in (learned, held))
    stretch = 1.0
    if len(ours) and len(theirs) and np.median(ours) > 0:
        stretch = max(1.0, float(np.median(theirs) / np.median(ours)))
    normal = np.concatenate([ours * stretch, theirs])
    if not len(normal):
        return view
    seen = int((known[used] > 0).any(0).sum())
    limit = max(tail_limit(normal, risk) * few_samples(len(normal) / (rows * span), seen, risk), 1e-6)
    return View(of, rows, *numbers, _floats(low), _floats(high), limit, max(float(normal.max()), limit))


def few_samples(independent: float, columns: int, risk: float) -> float:
    """How much farther the limit must be because centre and correlations come from so many independent rows.

    The distance of a new row from few others follows an F distribution, not the chi-squared one that the others show
    (Tracy et al. 1992, "Multivariate control charts for individual observations"); means over rows that overlap count
    as one.

    >>> round(few_samples(1e6, 8, 1e-3), 2), round(few_samples(20, 8, 1e-3), 2)
    (1.0, 1.98)
    """
    from scipy import stats

    p, n = columns, max(independent, columns + 3.0)
    wider = (n * n - 1) / (n * (n - p)) * stats.f.isf(risk, p, n - p) / (stats.chi2.isf(risk, p) / p)
    return float(np.sqrt(max(wider, 1.0)))


def best_threshold(scores: Floats, labels: Flags) -> float:
    """The threshold of the highest F1 over the rows, for scores [N] (NaN: none) and labels [N] of validation rows.

    >>> best_threshold(np.array([0.2, 0.9, 1.4, 0.7]), np.array([False, True, True, False]))
    0.8
    """
    order = np.argsort(-np.nan_to_num(scores), kind="stable")
    down = np.nan_to_num(scores)[order]
    ends = np.append(np.flatnonzero(np.diff(down)), len(down) - 1)
    hits = np.cumsum(labels[order])[ends]
    f1 = 2 * hits / (ends + 1 + max(int(labels.sum()), 1))
    best = int(f1.argmax())
    above = float(down[ends[best]])
    below = float(down[ends[best + 1]]) if best + 1 < len(ends) else above
    return max((above + below) / 2, 1e-6)


def _floats(values: NDArray[Any]) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
