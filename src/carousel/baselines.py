"""Forecasts that need no network, to stand beside every model: last value, seasonal naive (with drift), linear.

Each sees the rows of a series up to and including the origin only, passes over unobserved rows, and computes all
origins at once. Points are [n, H, K] for n origins, H steps and K targets, in the target's own units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from carousel.inputs.table import Series

__all__ = ["BASELINES", "Rows", "forecasts", "seasonal_scale"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MAX_WINDOWS = 20_000  # as many windows are enough to fit the linear model and the intervals
RIDGE = tuple(10.0 ** np.arange(-4, 4))


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a Series with what every baseline looks up; `first` [B] is each series' first origin."""

    series: Series
    first: Ints
    season: int
    owner: Ints = field(init=False)  # [N] which series
    start: Ints = field(init=False)  # [N] the series' first row
    latest: Ints = field(init=False)  # [N, K] the latest observed row up to here, -1 without one
    same: Ints = field(init=False)  # [N, K] the same among the rows of the same phase of the season
    mean: Floats = field(init=False)  # [B, K] of the target up to the first origin
    scale: Floats = field(init=False)  # [B, K] of MASE

    def __post_init__(self) -> None:
        offsets, observed = self.series.offsets, ~np.isnan(self.series.target)
        lengths = np.diff(offsets)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        start = offsets[owner]
        position = np.arange(len(owner)) - start
        order = np.lexsort((position, position % self.season, owner))
        turn = np.flatnonzero(np.diff(owner[order] * self.season + position[order] % self.season, prepend=-1))
        begin = np.repeat(turn, np.diff(turn, append=len(order)))
        place = _latest(observed[order], begin)
        same = np.empty_like(place)
        same[order] = np.where(place >= 0, order[place], -1)
        for name, value in {
            "owner": owner,
            "start": start,
            "latest": _latest(observed, start),
            "same": same,
            "mean": _mean(self.series, self.first),
            "scale": seasonal_scale(self.series, self.first, self.season),
        }.items():
            object.__setattr__(self, name, value)


def _latest(observed: NDArray[np.bool_], begin: Ints) -> Ints:
    """[N, K]: the last True at or before each row and not before `begin`, or -1."""
    at = np.where(observed, np.arange(len(observed))[:, None], -1)
    latest = np.maximum.accumulate(at, axis=0)
    return np.where(latest >= begin[:, None], latest, -1)


def seasonal_scale(series: Series, first: Ints, season: int) -> Floats:
    """[B, K]: mean |y[t] - y[t - season]| up to each series' first origin, the scale of MASE (Hyndman & Koehler 2006).

    A series without a single such pair is scaled by its steps of one row; NaN where nothing can be compared.
    """
    scale = _mean_change(series, first, season)
    if season > 1:
        scale = np.where(np.isnan(scale), _mean_change(series, first, 1), scale)
    return scale


def _mean_change(series: Series, first: Ints, lag: int) -> Floats:
    return _mean(series, first, np.abs(_change(series, lag)))


def _mean(series: Series, first: Ints, values: Floats | None = None) -> Floats:
    """[B, K]: the mean of the target, or of `values` [N, K], up to each series' first origin; NaN without any."""
    values = series.target if values is None else values
    inside = np.arange(len(values)) <= np.repeat(first, np.diff(series.offsets))
    counted = ~np.isnan(values) & inside[:, None]
    total, count = (_sums(part, series.offsets) for part in (np.where(counted, values, 0.0), counted))
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _change(series: Series, lag: int) -> Floats:
    """[N, K]: y[t] - y[t - lag] within a series, NaN where either is unobserved or outside."""
    change = np.full_like(series.target, np.nan)
    change[lag:] = series.target[lag:] - series.target[:-lag]
    position = np.arange(len(change)) - np.repeat(series.offsets[:-1], np.diff(series.offsets))
    change[position < lag] = np.nan
    return change


def _sums(values: NDArray[np.float64] | NDArray[np.bool_], offsets: Ints) -> Floats:
    return np.add.reduceat(values, offsets[:-1], axis=0, dtype=np.float64)


def last_value(rows: Rows, origins: Ints, horizon: int) -> Floats:
    """The last observed value, for all steps."""
    source = rows.latest[origins]  # [n, K]
    value = _take(rows.series.target, source)
    return np.repeat(value[:, None], horizon, axis=1)


def seasonal_naive(rows: Rows, origins: Ints, horizon: int, *, drift: bool = False) -> Floats:
    """The last observed value of the same phase of the season; a phase never observed takes the last value.

    With drift, plus the mean change over a season up to the origin, times the seasons gone by (Hyndman &
    Athanasopoulos 2021, 5.2); a history shorter than a season has no drift.
    """
    step = np.arange(1, horizon + 1)
    row = origins[:, None] + step - rows.season * -(-step // rows.season)  # [n, H], at or before the origin
    inside = row >= rows.start[origins][:, None]
    source = np.where(inside[..., None], rows.same[np.maximum(row, 0)], -1)  # [n, H, K]
    source = np.where(source >= 0, source, rows.latest[origins][:, None])
    point = _take(rows.series.target, source)
    if drift:
        seasons = (origins[:, None, None] + step[:, None] - source) / rows.season
        point = point + _drift(rows)[origins][:, None] * seasons
    return point


def _drift(rows: Rows) -> Floats:
    """[N, K]: the mean change over a season among the rows of the series up to here; 0 before the first."""
    change = _change(rows.series, rows.season)
    total, count = (_running(part, rows.series.offsets) for part in (np.nan_to_num(change), ~np.isnan(change)))
    return np.divide(total, count, out=np.zeros_like(total), where=count > 0)


def _running(values: NDArray[np.float64] | NDArray[np.bool_], offsets: Ints) -> Floats:
    """Sums up to each row, series by series: one sum over all would lose small series behind large ones."""
    parts = np.split(values, offsets[1:-1])
    return np.concatenate([np.cumsum(part, axis=0, dtype=np.float64) for part in parts])


def _take(values: Floats, source: Ints) -> Floats:
    """values[source, k] with k the last axis; NaN where source is -1."""
    found = values[source, np.arange(values.shape[1])]
    return np.where(source >= 0, found, np.nan)


def linear_autoregression(rows: Rows, origins: Ints, horizon: int) -> Floats:
    """Ridge regression on the lags, one equation a step, one model for all series, per target.

    Fitted on windows up to the first origins. A window is taken relative to its last observed value and in units
    of the series' own scale; gaps inside it are interpolated, before its begin the first value stands. The strength of
    the penalty is chosen by leave-one-out among the training windows.
    """
    known = _history(rows, horizon)
    lags = min(max(2 * rows.season, horizon, 8), max(1, int((rows.first - rows.series.offsets[:-1]).max())))
    points = np.full((len(origins), horizon, rows.series.target.shape[1]), np.nan)
    for k in range(points.shape[2]):
        inputs, level, scale = _windows(rows, np.concatenate([known, origins]), lags, k)
        wanted = (_truth(rows, known, horizon)[..., k] - level[: len(known), None]) / scale[: len(known), None]
        made = _ridge(inputs[: len(known)], wanted, inputs[len(known) :])
        points[..., k] = level[len(known) :, None] + scale[len(known) :, None] * made
    return points


def _ridge(inputs: Floats, wanted: Floats, ask: Floats) -> Floats:
    """[n, H]: one regression for all steps that are observed in the same windows; 0 for a step never observed."""
    from sklearn.linear_model import Ridge, RidgeCV

    observed: NDArray[np.bool_] = np.isfinite(wanted) & np.isfinite(inputs).all(axis=1, keepdims=True)
    made = np.zeros((len(ask), wanted.shape[1]))
    patterns, which = np.unique(observed, axis=1, return_inverse=True)
    counts = patterns.sum(0)
    if counts.max(initial=0) < 2:
        return made
    widest = int(np.argmax(counts))
    train = patterns[:, widest]
    penalty = RidgeCV(alphas=RIDGE).fit(inputs[train], wanted[train][:, which == widest]).alpha_
    for pattern in np.flatnonzero(counts >= 2):
        train, steps = patterns[:, pattern], which == pattern
        fitted = Ridge(alpha=penalty).fit(inputs[train], wanted[train][:, steps])
        made[:, steps] = fitted.predict(np.nan_to_num(ask)).reshape(len(ask), -1)
    return made


def _windows(rows: Rows, origins: Ints, lags: int, k: int) -> tuple[Floats, Floats, Floats]:
    """Lags [n, L] relative to the last observed value [n], and the scale [n]; nothing after the origin is seen."""
    target = rows.series.target[:, k]
    seen = np.flatnonzero(~np.isnan(target))
    if not len(seen):
        return np.full((len(origins), lags), np.nan), np.full(len(origins), np.nan), np.ones(len(origins))
    filled: Floats = np.interp(np.arange(len(target)), seen, target[seen])
    begin = np.searchsorted(seen, rows.start[origins])  # the first observed row of the series
    begin = np.maximum(rows.start[origins], seen[np.minimum(begin, len(seen) - 1)])
    last = rows.latest[origins, k]
    row = np.clip(origins[:, None] - np.arange(lags)[::-1], begin[:, None], np.maximum(begin, last)[:, None])
    level = np.where(last >= 0, target[last], np.nan)
    scale = rows.scale[rows.owner[origins], k]
    scale = np.where(scale > 0, scale, 1.0)
    away = level - rows.mean[rows.owner[origins], k]
    return (np.column_stack([filled[row] - level[:, None], away])) / scale[:, None], level, scale


def _history(rows: Rows, horizon: int) -> Ints:
    """Origins before the first ones whose steps are all known by then, past one season where there is so much."""
    begin, first = rows.series.offsets[:-1], rows.first
    room = first - horizon - begin + 1  # origins with all steps up to the first origin
    skip = np.clip(room - 1, 0, 2 * rows.season)
    counts = np.maximum(room - skip, 0)
    if not counts.any():  # all too short: take what there is, steps past the first origin stay unknown
        skip, counts = np.zeros_like(room), np.maximum(first - begin, 0)
    origins = np.repeat(begin + skip - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts) + np.arange(counts.sum())
    every = -(-len(origins) // MAX_WINDOWS)
    return np.asarray(origins[:: max(every, 1)])


def _truth(rows: Rows, origins: Ints, horizon: int) -> Floats:
    """[n, H, K]: what followed, NaN past the series' first origin."""
    row = origins[:, None] + np.arange(1, horizon + 1)
    limit = rows.first[rows.owner[origins]][:, None]
    return np.where((row <= limit)[..., None], rows.series.target[np.minimum(row, limit)], np.nan)


Baseline = Callable[[Rows, Ints, int], Floats]
BASELINES: dict[str, Baseline] = {
    "last value": last_value,
    "seasonal naive": seasonal_naive,
    "seasonal naive with drift": partial(seasonal_naive, drift=True),
    "linear autoregression": linear_autoregression,
}


def forecasts(
    name: str, rows: Rows, origins: Ints, horizon: int, quantiles: tuple[float, ...]
) -> tuple[Floats, Floats]:
    """Points [n, H, K] and quantiles [n, H, K, Q] of one baseline.

    The quantiles are the point plus those of its own errors before the first origins, step by step, in units of
    each series' scale: an interval as honest as a method without a distribution can give.
    """
    known = _history(rows, horizon)
    both = BASELINES[name](rows, np.concatenate([known, origins]), horizon)
    scale = np.where(rows.scale > 0, rows.scale, np.nan)[rows.owner]  # [N, K]
    errors = (_truth(rows, known, horizon) - both[: len(known)]) / scale[known][:, None]
    spread = np.zeros((horizon, errors.shape[2], len(quantiles)))
    usable = np.isfinite(errors)
    for h, k in np.argwhere(usable.any(0)):
        spread[h, k] = np.quantile(errors[usable[:, h, k], h, k], quantiles)
    point = both[len(known) :]
    return point, point[..., None] + np.nan_to_num(scale[origins])[:, None, :, None] * spread
