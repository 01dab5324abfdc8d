"""Which seasons a table of series has, when nobody says: by the clock's usual cycles and by autocorrelation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from carousel.inputs.clock import usual_season
from carousel.inputs.table import Series

__all__ = ["autocorrelation", "infer_seasons"]

Floats = NDArray[np.float64]


def infer_seasons(series: Series) -> tuple[int, ...]:
    """Ascending; empty where there is none, as on an uneven clock."""
    if series.grid.kind == "uneven":
        return ()
    season = usual_season(series.grid) if series.clock.stamps else 1
    return (season,) if season > 1 else ()


def autocorrelation(values: Floats, lags: int) -> Floats:
    """Of the differences between neighbours, at lags 0 ... `lags`, over the pairs that are both observed.

    >>> autocorrelation(np.array([0.0, 1, 0, 1, 0, 1, 0, 1]), 2).round(1).tolist()
    [1.0, -1.0, 1.0]
    """
    change = np.diff(values)
    seen = np.isfinite(change)
    if not seen.any():
        return np.zeros(lags + 1)
    centred = np.where(seen, change - change[seen].mean(), 0.0)
    bound = 4 * centred[seen].std()
    centred = np.clip(centred, -bound, bound)
    size = 2 * len(change)
    power = np.abs(np.fft.rfft(centred, size)) ** 2
    pairs = np.abs(np.fft.rfft(seen.astype(float), size)) ** 2
    total = np.fft.irfft(power, size)[: lags + 1]
    count = np.rint(np.fft.irfft(pairs, size)[: lags + 1])
    found = total / np.maximum(count, 1)
    return found / found[0] if found[0] > 0 else np.zeros(lags + 1)
