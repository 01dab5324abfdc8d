"""Which seasons a table of series has, when nobody says: autocorrelation tells, the clock says where to look."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from carousel.inputs.clock import cycles
from carousel.inputs.table import Series

__all__ = ["autocorrelation", "infer_seasons"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_SERIES = 300  # looked at, evenly over the table
LONGEST = 800  # steps, where the clock does not say where to look


def infer_seasons(series: Series, end: Ints | None = None) -> tuple[int, ...]:
    """Ascending seasons in steps, at most two; empty where there is none, as on an uneven clock.

    Looks at the rows of each series before `end` [B] (all rows by default). With timestamps the usual cycles (day,
    week, year) are tried; plain numbers leave the question to the autocorrelation of the differences alone.
    """
    if series.grid.kind == "uneven":
        return ()
    lengths = (series.offsets[1:] if end is None else end) - series.offsets[:-1]
    third = int(np.median(lengths)) // 3
    tried = cycles(series.grid) if series.clock.stamps else ()
    longest = min(third, max((LONGEST, *(3 * m // 2 for m in tried)) if tried else (LONGEST,)))
    if longest < 2:
        return ()
    which = np.flatnonzero(lengths >= 8)
    which = which[np.linspace(0, len(which) - 1, min(len(which), MOST_SERIES)).astype(np.int64)]
    if not len(which):
        return ()
    *pooled, rows = _pooled(series, which, lengths, longest)
    if tried:
        least = 0.1 + 1.5 / np.sqrt(rows)
        strong = [m for m in tried if m <= third and max(map(_strength, pooled, _LOWS, (m, m))) > least]
        if len(strong) > 1 and strong[1] % strong[0] == 0:
            strong = [m for m in strong if m == strong[0] or any(_stands_out(r, strong[0], m) for r in pooled)]
        return tuple(strong[:2])
    return max(_search(r, low, 0.15 + 3 / np.sqrt(rows)) for r, low in zip(pooled, _LOWS, strict=True))[1]


def autocorrelation(values: Floats, lags: int) -> Floats:
    """At lags 0 ... `lags` over the pairs that are both observed, without the linear trend.

    >>> autocorrelation(np.array([0.0, 1, 0, 1, 0, 1, 0, 1] * 4), 2).round(1).tolist()
    [1.0, -1.0, 1.0]
    """
    seen = np.isfinite(values)
    if seen.sum() < 3:
        return np.zeros(lags + 1)
    at = np.arange(len(values)) - len(values) / 2
    slope, height = np.polyfit(at[seen], values[seen], 1)
    centred = np.where(seen, values - slope * at - height, 0.0)
    bound = 4 * centred[seen].std()  # one jump shall not hide the rest
    centred = np.clip(centred, -bound, bound)
    size = 2 * len(values)
    power = np.abs(np.fft.rfft(centred, size)) ** 2
    pairs = np.abs(np.fft.rfft(seen.astype(float), size)) ** 2
    total = np.fft.irfft(power, size)[: lags + 1]
    count = np.rint(np.fft.irfft(pairs, size)[: lags + 1])
    found = total / np.maximum(count, 1)
    return found / found[0] if found[0] > 0 else np.zeros(len(found))


def _pooled(series: Series, which: Ints, lengths: Ints, longest: int) -> tuple[Floats, Floats, int]:
    """Median autocorrelations over series and targets, each up to a third of its length, and rows looked at.

    Of the values, where noise leaves the season standing, and of the changes, where a wandering level does.
    """
    targets = series.target.shape[1]
    tables = np.full((2, len(which) * targets, longest + 1), np.nan)
    for i, b in enumerate(which):
        begin, lags = int(series.offsets[b]), min(longest, int(lengths[b]) // 3)
        for k in range(targets):
            values = series.target[begin : begin + int(lengths[b]), k]
            tables[0, i * targets + k, : lags + 1] = autocorrelation(values, lags)
            tables[1, i * targets + k, : lags + 1] = autocorrelation(np.diff(values), lags)
    enough = np.isfinite(tables[0]).sum(0) * 4 >= tables.shape[1]
    values, changes = np.nanmedian(tables[:, :, enough], 1)
    changes[:4] = values[:4]  # a change is the opposite of its neighbour where the values are noise
    return values, changes, int(lengths[which].sum()) * targets


def _half_way(r: Floats, teeth: Ints) -> float:
    """Half a season off: what a wandering level has in common with itself anyway."""
    between = teeth - teeth[0] / 2
    return float((r[np.floor(between).astype(np.int64)] + r[np.ceil(between).astype(np.int64)]).mean() / 2)


def _between(r: Floats, teeth: Ints) -> float:
    """At the lags between: half a season off may be a shorter season's tooth."""
    return float(np.median(r[teeth[0] // 2 : teeth[-1] + 1]))


_LOWS = (_half_way, _between)  # of values, of changes


def _strength(r: Floats, low: Callable[[Floats, Ints], float], m: int) -> float:
    """How much more alike rows are whole seasons of `m` apart than otherwise: a comb of up to three teeth."""
    if not 2 <= m < len(r):
        return 0.0
    teeth = np.arange(m, len(r), m)[:3]
    return float(r[teeth].mean() - low(r, teeth))


def _search(r: Floats, low: Callable[[Floats, Ints], float], least: float) -> tuple[float, tuple[int, ...]]:
    """The strength of the strongest comb, and the season: its shortest part that is about as strong, with the
    multiple that stands out among the multiples."""
    inner = np.arange(3, len(r) // 2)
    peaks = inner[(r[inner] > r[inner - 1]) & (r[inner] >= r[inner + 1]) & (r[inner] > least)]
    strength = np.array([_strength(r, low, int(m)) for m in peaks])
    if not len(peaks) or strength.max() <= least:
        return 0.0, ()
    best = int(peaks[strength.argmax()])
    parts = best / np.maximum(np.rint(best / peaks), 1)
    divides = (np.abs(peaks - parts) <= 1) & (strength >= 0.75 * strength.max())
    first = int(peaks[divides][0])
    longer = [m for m in range(2 * first, len(r) - first, first) if _stands_out(r, first, m)]
    return float(strength.max()), (first, *longer[:1])


def _stands_out(r: Floats, first: int, m: int) -> bool:
    """Whether the multiple `m` of season `first` is a season too: more alike than the multiples around it."""
    if m + first >= len(r):
        return False
    return bool(r[m] - max(r[m - first], r[m + first]) > 0.03 and r[m] >= r[first:m:first].max())
