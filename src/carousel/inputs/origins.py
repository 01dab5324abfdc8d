"""Rows to forecast from: for training, for validation, for forecasting; and complaints about series that have none."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError
from carousel.inputs.table import Series

__all__ = ["SkippedSeries", "Split", "last_origins", "long_enough", "split_by_table", "split_by_time"]

Ints = NDArray[np.int64]

LEAST = 2  # rows that a window must have behind its origin, the origin included
ENOUGH = 10  # held-out windows without overlap, over all series, beyond which more are not needed


class SkippedSeries(UserWarning):
    """Series that were too short to train on and were left out because `skip_short` says so."""


@dataclass(frozen=True)
class Split:
    """Origins, as rows of the series: the first and last to train on of each trainable one, and all held-out ones.

    `beside` are origins to train on whose windows count in the calibration as the held-out ones do.
    """

    first: Ints  # [S]
    last: Ints  # [S]
    held_out: Ints  # [n]
    beside: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def independent(self, horizon: int) -> int:
        """How many held-out windows follow one another without overlap."""
        return len(np.unique(self.held_out[:, None] + np.arange(horizon))) // horizon


def long_enough(series: Series, horizon: int, *, holdout: bool, skip_short: bool) -> Series:
    """The series that can be trained on, with a warning about the others.

    Raises DataError, which names them, unless `skip_short` and there are others.
    """
    observed = np.add.reduceat(np.isfinite(series.target).any(1), series.offsets[:-1])
    lengths = series.lengths
    needed = LEAST + horizon
    if holdout and lengths.max() < needed + horizon:
        needed += horizon
    bare = np.flatnonzero((lengths >= needed) & (observed < LEAST))
    if len(bare):
        return _without_bare(series, bare, observed, horizon, holdout=holdout, skip_short=skip_short)
    short = np.flatnonzero(lengths < needed)
    if not len(short):
        return series
    text = (
        f"{series.source}: {series.name(short)} {'are' if len(short) > 1 else 'is'} shorter than the {needed} rows"
        f" that a horizon of {horizon} needs (rows: {', '.join(str(n) for n in lengths[short][:3])}"
        f"{', ...' if len(short) > 3 else ''})"
    )
    long = np.setdiff1d(np.arange(len(lengths)), short)
    if not skip_short or not len(long):
        raise DataError(f"{text}; give more rows or a shorter horizon{', or skip short series' if len(long) else ''}.")
    warnings.warn(SkippedSeries(f"{text}; they are left out of training."), stacklevel=4)
    return series.select(long)


def _without_bare(
    series: Series, bare: Ints, observed: Ints, horizon: int, *, holdout: bool, skip_short: bool
) -> Series:
    """The series that can be trained on, where the `bare` ones have rows enough, but no target in them."""
    text = (
        f"{series.source}: {series.name(bare)} {'have' if len(bare) > 1 else 'has'} fewer than {LEAST} observed values"
        f" of the target (observed: {', '.join(f'{observed[k]} of {series.lengths[k]} rows' for k in bare[:3])}"
        f"{', ...' if len(bare) > 3 else ''})"
    )
    rest = np.setdiff1d(np.arange(len(series.lengths)), bare)
    if not skip_short or not len(rest):
        raise DataError(f"{text}; fill them in{', or skip short series' if len(rest) else ''}.")
    warnings.warn(SkippedSeries(f"{text}; they are left out of training."), stacklevel=5)
    return long_enough(series.select(rest), horizon, holdout=holdout, skip_short=skip_short)


def split_by_time(series: Series, horizon: int, context: int, holdout: float) -> Split:
    """The last rows of each series are held out: a horizon where series are many, up to `holdout` where few.

    A series that has no rows to spare is trained on only.
    """
    lengths = series.lengths
    wanted = horizon * -(-ENOUGH // len(lengths))
    held = np.clip(np.minimum(wanted, (holdout * lengths).astype(np.int64)), horizon, None)
    held = np.where((holdout > 0) & (lengths >= LEAST + horizon + held), held, 0)
    short = (holdout > 0) & (held == 0) & (lengths >= LEAST + 2 * horizon)
    held = np.where(short, horizon, held)
    end = series.offsets[1:]
    first, last = _training(series, horizon, context, end - held)
    return Split(first, last, _ranges(end - held - 1, np.where(held > 0, held - horizon + 1, 0)))


def split_by_table(series: Series, horizon: int, context: int, rows: int) -> Split:
    """The rows of the table after the first `rows` are held out: later rows of the same series, or other series.

    A table of its own may be one odd season, calmer or rougher than those to come. So as many windows of the training
    part's end stand beside it in the calibration. Raises DataError where no horizon of them follows any row.
    """
    own = (series.row > 0) & (series.row <= rows)
    begin, end = series.offsets[:-1], series.offsets[1:]
    index = np.arange(len(own))
    cut = np.maximum(np.maximum.reduceat(np.where(own, index + 1, -1), begin), begin)
    trainable = cut - begin >= LEAST + horizon
    if not trainable.any():
        raise DataError(f"{series.source}: no series has the {LEAST + horizon} rows that a horizon of {horizon} needs.")
    first, last = _training(series, horizon, context, cut)
    start = np.maximum(cut - 1, begin + LEAST - 1)
    held_out = _ranges(start, np.maximum(end - horizon - start, 0))
    if not len(held_out):
        raise DataError(f"valid: no series has {horizon} rows after a first one to forecast from; give more rows.")
    first, last = first[trainable], last[trainable]
    count = np.minimum(np.maximum(end - horizon - start, 0)[trainable], last - first + 1)
    return Split(first, last, held_out, _ranges(last - count + 1, count))


def last_origins(series: Series, rows: int | None) -> Ints:
    """The row [B] that each series is to be forecast from: its last one among the first `rows` of the table.

    With `rows` None and known covariates, rows after the last observed target are the steps ahead. Raises DataError
    where a series has no observed target or a single one, or lacks known covariates of the steps ahead.
    """
    observed = np.asarray(np.isfinite(series.target).any(1))
    begin, end = series.offsets[:-1], series.offsets[1:]
    index = np.arange(len(observed))
    if rows is not None:
        inside = (series.row > 0) & (series.row <= rows)
    else:
        inside = observed if series.roles.known else np.ones(len(observed), bool)
    latest = np.maximum.accumulate(np.where(inside, index, -1))[end - 1]
    seen = np.maximum.accumulate(np.where(observed, index, -1))
    bad = np.flatnonzero((latest < begin) | (seen[np.maximum(latest, 0)] < begin))
    if len(bad):
        raise DataError(
            f"{series.source}: {series.name(bad)} has no observed target to forecast from; leave it out or fill it in."
        )
    count = np.cumsum(np.isfinite(series.target), 0)
    count = count[latest] - count[begin] + np.isfinite(series.target[begin])  # [B, K]
    bad = np.flatnonzero((count < LEAST).any(1))
    if len(bad):
        name = series.roles.target[int(np.argmax(count[bad[0]] < LEAST))]
        raise DataError(
            f"{series.source}, column {name!r}: {series.name(bad)} {'have' if len(bad) > 1 else 'has'} fewer than"
            f" {LEAST} observed rows to forecast from, which tell no spread; give more rows or leave"
            f" {'them' if len(bad) > 1 else 'it'} out."
        )
    return np.asarray(latest)


def require_known(series: Series, origins: Ints, horizon: int, where: str) -> None:
    """DataError, which names the table `where`, for a known covariate that is missing at one of the steps ahead."""
    if not series.roles.known:
        return
    wanted = origins[:, None] + np.arange(1, horizon + 1)
    which = np.searchsorted(series.offsets, origins, side="right") - 1
    inside = wanted < series.offsets[1:][which][:, None]
    values = series.known[np.where(inside, wanted, 0)]  # [n, H, Kn]
    missing = ~inside[..., None] | ~np.isfinite(values)
    if missing.any():
        i, k, column = (int(v) for v in np.argwhere(missing)[0])
        when = series.grid.ahead(series.time[origins[i]], k + 1)
        raise DataError(
            f"{where}: {series.name(which[i : i + 1])} has no {series.roles.known[column]!r} at"
            f" {series.clock.describe(float(when))} (step {k + 1} of {horizon}); give the known columns for every step"
            " ahead, in future (--future FILE) or as rows without a target."
        )


def _training(series: Series, horizon: int, context: int, cut: Ints) -> tuple[Ints, Ints]:
    """First and last origin of each series such that its targets lie before row `cut`.

    A window shall have some context behind it, but a short series gives half of what it has; and it starts at the
    second observed row, before which there is nothing to learn from.
    """
    begin, end = series.offsets[:-1], series.offsets[1:]
    last = cut - horizon - 1
    room = np.maximum(last - begin + 1, 1)
    behind = np.minimum(max(LEAST, int(0.3 * context)), np.maximum(LEAST, room // 2))
    observed = np.asarray(np.isfinite(series.target).any(1))
    count: Ints = np.cumsum(observed) - np.repeat(np.cumsum(observed)[begin] - observed[begin], end - begin)
    second = np.minimum.reduceat(np.where(count >= LEAST, np.arange(len(count)), end[-1]), begin)
    return np.minimum(np.maximum(begin + behind - 1, second), np.maximum(last, begin)), np.maximum(last, begin)


def _ranges(start: Ints, count: Ints) -> Ints:
    """start[b], start[b] + 1, ... of count[b] numbers each, one after the other."""
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.asarray(np.repeat(start, count) + number)
