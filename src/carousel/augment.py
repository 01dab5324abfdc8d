"""Sequences with fewer or noisier observations than there were, so that a model learns to do with less."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from carousel.inputs.sequence import GAPPED, Channels, SequenceInput

__all__ = ["blur_readings", "hide_observations"]


def hide_observations(
    seen: Channels, fitted: SequenceInput, share: float | NDArray[np.float64], rng: np.random.Generator
) -> Channels:
    """Hide a random part of the readings of columns that had gaps, `share` on average (one number, or one for each of
    these columns); ages and last values follow.

    Of each sequence another part is hidden, between none and twice the share, and a column altogether with a
    probability of half that part: sensors fail one at a time as well. Rows stay, with less in them.

    >>> from carousel.inputs.roles import Roles
    >>> from carousel.inputs.sequence import Channel
    >>> fitted = SequenceInput(Roles(), False, False, 1.0, (), (Channel("pulse", "number", gaps=True),), ())
    >>> rows = np.array([[1, 1, 0, 1], [2, 1, 0, 2]], np.float32)
    >>> none = np.zeros((1, 0), np.int64)
    >>> seen = Channels(rows, np.zeros((2, 0), np.int64), np.array([0, 1], np.float32), np.array([0, 2]), none, none)
    >>> hide_observations(seen, fitted, 0.5, np.random.default_rng(2)).values.tolist()  # the second, one unit later
    [[1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.5, 1.0]]
    """
    starts, at = [], 0
    for channel in fitted.numbers:
        if channel.gaps:
            starts.append(at)
        at += GAPPED if channel.gaps else 1
    if not starts or not np.any(share):
        return seen
    first = np.array(starts)
    n, count = len(seen.values), len(seen.offsets) - 1
    part = np.minimum(rng.random((count, 1)) * 2 * share, 1.0)
    lost = rng.random((count, len(first))) < part / 2
    rate = np.repeat(np.where(lost, 1.0, part), seen.lengths, 0)
    values = seen.values.copy()
    kept = (values[:, first + 1] > 0) & (rng.random((n, len(first))) >= rate)
    row = np.arange(n)[:, None]
    start = np.repeat(seen.offsets[:-1], seen.lengths)[:, None]
    latest = np.maximum.accumulate(np.where(kept, row, -1))
    there = latest >= start
    latest = np.maximum(latest, 0)
    time = np.cumsum(seen.elapsed, dtype=np.float64)
    since = time[:, None] - time[latest]
    values[:, first + 3] = np.where(there, np.take_along_axis(values[:, first], latest, 0), 0.0)
    values[:, first + 2] = np.where(there, since / (1.0 + since), 1.0)
    values[:, first + 1] = kept
    values[:, first] = np.where(kept, values[:, first], 0.0)
    return seen._replace(values=values)


def blur_readings(seen: Channels, fitted: SequenceInput, spread: float, rng: np.random.Generator) -> Channels:
    """Add normal noise of that spread to columns that had no gaps, in units of the scaled columns (Bishop 1995).

    Columns with gaps are left to `hide_observations`, which costs them less.

    >>> from carousel.inputs.roles import Roles
    >>> from carousel.inputs.sequence import Channel
    >>> columns = (Channel("pulse", "number", gaps=True), Channel("flow", "number"))
    >>> fitted = SequenceInput(Roles(), False, False, 1.0, (), columns, ())
    >>> rows, none = np.array([[1, 1, 0, 1, 2]], np.float32), np.zeros((1, 0), np.int64)
    >>> seen = Channels(rows, none, np.zeros(1, np.float32), np.array([0, 1]), none, none)
    >>> blur_readings(seen, fitted, 0.5, np.random.default_rng(0)).values.astype(float).round(2).tolist()
    [[1.0, 1.0, 0.0, 1.0, 2.06]]
    """
    widths = [GAPPED if channel.gaps else 1 for channel in fitted.numbers]
    starts = np.cumsum([0, *widths])[:-1]
    plain = starts[np.array(widths) == 1] if widths else starts
    if not len(plain):
        return seen
    values = seen.values.copy()
    values[:, plain] += rng.normal(scale=spread, size=(len(values), len(plain))).astype(np.float32)
    return seen._replace(values=values)
