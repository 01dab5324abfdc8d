"""Tables as a model sees them: windows of `context` rows up to an origin, scaled by their own level and spread.

Everything a window holds about the target is causal: it
depends on rows up to and including its origin. All windows of a batch are gathered at once, as pieces of memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError
from carousel.inputs.clock import calendar_features
from carousel.inputs.fitted import FIRST, MISSING, PER_LAG, PER_TARGET, UNSEEN, Column, TableInput

if TYPE_CHECKING:  # streams gather windows without narwhals
    from carousel.inputs.table import Series

__all__ = ["Rows", "Windows", "codes_of"]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]

FAR = 10.0  # spreads between a window's level and the mean of all history that count as one
NEVER = np.float32(-1)  # the age before a first observation; not 0, or such rows would be all zeros
LEAST = 1e-9  # spread of a series that was always 0; less where the series itself is smaller
BOUND = np.float32(100)  # of scaled inputs: a window that was flat until now must not drown the rest


class Windows(NamedTuple):
    """n windows: C context rows, H rows ahead, K targets. Scaled values are (value - level) / spread."""

    steps: Singles  # [n, C, .]
    step_codes: Ints  # [n, C, categories of features and known]
    ahead: Singles  # [n, H, .]
    ahead_codes: Ints  # [n, H, categories of known]
    static: Singles  # [n, .]
    static_codes: Ints  # [n, categories of static]
    base: Singles  # [n, H, K, G]: naive forecasts: last value, level, and of each season last season, with drift
    truth: Singles  # [n, H, K], NaN where not observed
    level: Floats  # [n, K]
    spread: Floats  # [n, K]
    elapsed: Singles  # [n, C] time since the previous row, in steps
    linear: Singles  # [n, C + 1, K] scaled values with gaps interpolated, and how far the level is from all history


class Rows:
    """Series made ready for gathering: every series followed by `horizon` rows to come.

    Raises DataError where columns are of another kind than in training.
    """

    def __init__(self, series: Series, config: TableInput) -> None:
        self.config, self.series = config, series
        _check_kinds(series, config)
        h = config.horizon
        lengths = series.lengths
        self.start = series.offsets[:-1] + h * np.arange(len(lengths))  # [B] in rows of this object
        total = int(series.offsets[-1]) + h * len(lengths)
        self.owner = np.repeat(np.arange(len(lengths)), lengths + h)  # [M]
        place = np.arange(series.offsets[-1]) + h * np.repeat(np.arange(len(lengths)), lengths)
        self._views: dict[str, NDArray[Any]] = {}
        self.own = np.zeros(total, bool)
        self.own[place] = True
        self.time = self._times(place, lengths)
        self.target = _scatter(series.target, place, total)  # [M, K]
        known = np.isfinite(self.target)
        rows = np.arange(total)[:, None]
        latest = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
        self.latest = np.where(latest >= self.start[self.owner][:, None], latest, -1)  # [M, K], -1: none yet
        self._history()
        self._ages()
        covariates = [_encode(series, c, "features") for c in config.features]
        ahead = [_encode(series, c, "known") for c in config.known]
        self.codes = _scatter_codes([c for n, c in covariates + ahead if c is not None], place, total)
        self.ahead_codes = _scatter_codes([c for n, c in ahead if c is not None], place, total)
        calendar = calendar_features(series.clock.local(self.time, series.grid), config.calendar)
        ahead_numbers = [_scatter(n, place, total, 0.0) for n, _ in ahead if n is not None]
        self.ahead = np.concatenate([*ahead_numbers, calendar, np.zeros((total, 0))], 1).astype(np.float32)
        numbers = [_scatter(n, place, total, 0.0) for n, _ in covariates if n is not None]
        self.elapsed = self._elapsed()
        elapsed = [np.log1p(self.elapsed)] if config.uneven else []
        self.numbers = np.concatenate([*numbers, self.ahead, *elapsed, np.zeros((total, 0))], 1).astype(np.float32)
        static = [_encode(series, c, "static") for c in config.static]
        fixed = [n for n, _ in static if n is not None]
        self.static = np.concatenate([*fixed, np.zeros((len(lengths), 0))], 1).astype(np.float32)
        self.static_codes = _scatter_codes(
            [c for _, c in static if c is not None], np.arange(len(lengths)), len(lengths)
        )

    def place(self, origins: Ints) -> Ints:
        """Rows of this object for row indices into the series."""
        which = np.searchsorted(self.series.offsets, origins, side="right") - 1
        return origins + self.config.horizon * which

    def gather(self, at: Ints) -> Windows:
        """The windows whose last row is `at` [n] (rows of this object, see `place`)."""
        config = self.config
        c, reach, h = config.context, config.reach, config.horizon
        which = self.owner[at]
        before = np.maximum(reach - 1 - at + self.start[which], 0)  # [n] rows that lie before the series
        outside = np.arange(reach + h) < before[:, None] if before.any() else None
        values = self._pieces("target", at, reach, h)  # [n, reach + H, K]
        if outside is not None:
            np.copyto(values, np.nan, where=outside[..., None])
        level, spread, last = self._scale(at, values[:, reach - c : reach])
        np.subtract(values, level[:, None], out=values)
        scaled = np.empty(values.shape, np.float32)
        np.divide(values, spread[:, None], out=scaled, casting="same_kind")
        past, truth = scaled[:, :reach], scaled[:, reach:]
        seen = np.isfinite(past)
        out = None if outside is None else outside[:, reach - c : reach, None]
        latest = ((last - level) / spread).astype(np.float32)
        lags, base = self._lags(at, past, seen, latest, level, spread)
        ahead = [lags, self._pieces("ahead", at, 0, h)]
        if config.uneven:
            following = at[:, None] + np.arange(1, h + 1)
            lead = (self.time[following] - self.time[at][:, None]) / config.grid.step
            ahead.append(np.log1p(np.maximum(lead, 0))[..., None].astype(np.float32))
        size = np.log(np.maximum(spread / (np.abs(level) + spread), 1e-6)) / 3
        return Windows(
            steps=self._steps(at, np.where(seen, past, np.float32(0)), seen, out),
            step_codes=_masked(self._pieces("codes", at, c, 0), out, MISSING),
            ahead=np.concatenate(ahead, -1),
            ahead_codes=self._pieces("ahead_codes", at, 0, h),
            static=np.concatenate([latest, size.astype(np.float32), self.static[which]], -1),
            static_codes=self.static_codes[which],
            base=base,
            truth=truth,
            level=level,
            spread=spread,
            elapsed=_masked(self._pieces("elapsed", at, c, 0), out, 1)[..., 0],
            linear=self._linear(at, past[:, -c:], seen[:, -c:], level, spread, latest),
        )

    def _pieces(self, name: str, at: Ints, before: int, after: int) -> NDArray[Any]:
        """The rows named [M, F] around each of `at` [n]: the last `before` up to it and `after` that follow, [n, ., F].

        A copy of neighbouring rows is a piece of memory, which costs a fraction of what single rows by index do.
        """
        if name not in self._views:
            self._views[name] = _windows_of(getattr(self, name), before, after)
        return np.asarray(self._views[name][at])

    def _scale(self, at: Ints, x: Floats) -> tuple[Floats, Floats, Floats]:
        """Level, spread and latest value [n, K] of context rows x [n, C, K]."""
        seen = np.isfinite(x)
        count = seen.sum(1)
        n = np.maximum(count, 1)
        filled = np.where(seen, x, 0.0)
        row = self.latest[at]
        last = np.where(row >= 0, np.take_along_axis(self.target, np.maximum(row, 0), 0), 0.0)
        mean = np.where(count > 0, filled.sum(1) / n, last)
        level = last if self.config.level == "last" else mean
        away = np.subtract(filled, level[:, None])
        np.multiply(np.abs(away, out=away), seen, out=away)
        spread = away.sum(1) / n
        running = np.take_along_axis(self.running, np.maximum(row, 0), 0)
        spread = np.maximum(np.where(count > 1, spread, 0.0), 0.1 * running)
        size = np.maximum(np.abs(filled, out=filled).sum(1) / n, np.abs(last))
        least = np.maximum(size, running)
        floor = 1e-4 * size + np.where(least > 0, np.minimum(LEAST, 1e-5 * least), LEAST)
        return level, np.maximum(spread, floor), last

    def _steps(self, at: Ints, past: Singles, seen: NDArray[np.bool_], out: NDArray[np.bool_] | None) -> Singles:
        """Channels [n, C, .]: of each target the scaled value, whether observed, age, difference, and the values one
        season before; then the covariates. `past` is 0 where nothing was observed."""
        c, reach, k = self.config.context, self.config.reach, self.config.targets
        seasons, numbers = self.config.seasons, self.numbers.shape[1]
        made = np.empty((len(past), c, k * (PER_TARGET + len(seasons)) + numbers), np.float32)
        x, known = past[:, -c:], seen[:, -c:]
        made[..., :k] = x
        made[..., k : 2 * k] = known
        made[..., 2 * k : 3 * k] = _masked(self._pieces("age", at, c, 0), out, float(NEVER))
        made[:, 0, 3 * k : 4 * k] = 0
        np.multiply(x[:, 1:] - x[:, :-1], known[:, 1:] & known[:, :-1], out=made[:, 1:, 3 * k : 4 * k])
        for n, m in enumerate(seasons, PER_TARGET):
            made[..., n * k : (n + 1) * k] = past[:, reach - c - m : reach - m]
        own = made[..., : made.shape[-1] - numbers]
        np.clip(own, -BOUND, BOUND, out=own)
        if numbers:
            made[..., -numbers:] = _masked(self._pieces("numbers", at, c, 0), out, 0)
        return made

    def _linear(
        self, at: Ints, x: Singles, seen: NDArray[np.bool_], level: Floats, spread: Floats, latest: Singles
    ) -> Singles:
        """What the linear path reads: context x [n, C, K] without gaps, and (level - mean so far) / spread."""
        made = np.empty((len(x), x.shape[1] + 1, x.shape[2]), np.float32)
        np.clip(_interpolate(x, seen, latest), -BOUND, BOUND, out=made[:, :-1])
        made[:, -1] = np.clip((level - self.mean[at]) / (FAR * spread), -1, 1)
        return made

    def _lags(
        self, at: Ints, past: Singles, seen: NDArray[np.bool_], latest: Singles, level: Floats, spread: Floats
    ) -> tuple[Singles, Singles]:
        """What the last seasons say of each step ahead: channels [n, H, 4 K S] and bases [n, H, K, G].

        Of season m: the value one season (or as many as needed) before, the same relative to the latest value,
        whether it is missing, and the change since one season before the latest value.
        """
        config = self.config
        h, reach = np.arange(1, config.horizon + 1), config.reach
        k, seasons = config.targets, len(config.seasons)
        shape = (len(at), config.horizon)
        lags = np.empty((*shape, PER_LAG * k * seasons), np.float32)
        base = np.empty((*shape, k, config.bases), np.float32)
        now = latest[:, None]
        base[..., 0], base[..., 1] = now, 0
        for n, m in enumerate(config.seasons):
            ahead = -(-h // m)  # seasons from the value to its step
            again = (1, int(ahead[-1]), 1)
            value = np.tile(past[:, reach - m : reach], again)[:, : len(h)]
            sure = np.tile(seen[:, reach - m : reach], again)[:, : len(h)]
            found = lags[..., PER_LAG * k * n : PER_LAG * k * (n + 1)]
            np.logical_not(sure, out=found[..., 2 * k : 3 * k])
            value = np.where(sure, value, now)
            found[..., :k] = value
            np.subtract(value, now, out=found[..., k : 2 * k])
            before, known = self._before(at, m)
            anchor = np.nan_to_num(((before - level) / spread).astype(np.float32))[:, None]
            sure &= known[:, None]
            found[..., 3 * k :] = np.where(sure, value - anchor, 0)
            base[..., 2 + 2 * n] = value
            base[..., 3 + 2 * n] = np.where(sure, value + ahead[:, None] * (now - anchor), now)
        return np.clip(lags, -BOUND, BOUND, out=lags), base

    def _before(self, at: Ints, m: int) -> tuple[Floats, NDArray[np.bool_]]:
        """The target [n, K] m rows before the latest observed one, and whether it is observed."""
        row = self.latest[at] - m
        inside = row >= self.start[self.owner[at]][:, None]
        value = np.take_along_axis(self.target, np.where(inside, row, 0), 0)
        return value, inside & np.isfinite(value)

    def _times(self, place: Ints, lengths: Ints) -> Floats:
        h, series = self.config.horizon, self.series
        time = np.empty(len(self.owner))
        time[place] = series.time
        ends = self.start + lengths
        k = np.arange(1, h + 1)
        time[ends[:, None] + k - 1] = series.grid.ahead(series.time[series.offsets[1:] - 1][:, None], k)
        return time

    def _history(self) -> None:
        """Mean absolute change between observed neighbours so far [M, K], the scale where a window has none; and the
        mean so far."""
        before = np.where(np.roll(self.owner, 1)[:, None] == self.owner[:, None], np.roll(self.latest, 1, 0), -1)
        before[0] = -1
        pair = np.isfinite(self.target) & (before >= 0)
        earlier = np.take_along_axis(self.target, np.maximum(before, 0), 0)
        change = np.where(pair, np.abs(self.target - earlier), 0.0)
        self.running = self._so_far(change, pair)
        seen = np.isfinite(self.target)
        self.mean = self._so_far(np.where(seen, self.target, 0.0), seen)

    def _so_far(self, values: Floats, counted: NDArray[np.bool_]) -> Floats:
        """The mean [M, K] of the counted values of the same series up to each row; 0 where there are none yet."""
        total, count = np.empty_like(values), np.empty_like(values)
        ends = np.append(self.start[1:], len(values))
        for begin, end in zip(self.start, ends, strict=True):  # one sum over all would round small series away
            np.cumsum(values[begin:end], 0, out=total[begin:end])
            np.cumsum(counted[begin:end], 0, out=count[begin:end])
        return np.asarray(total / np.maximum(count, 1))

    def _ages(self) -> None:
        """log(1 + steps since the target was observed) / 3; NEVER before the first observation."""
        since = self.time[:, None] - self.time[np.maximum(self.latest, 0)]
        rows = np.arange(len(self.owner))[:, None] - self.latest
        steps = since / self.config.grid.step if self.config.uneven else rows.astype(np.float64)
        self.age = np.where(self.latest >= 0, np.log1p(np.maximum(steps, 0)) / 3, NEVER).astype(np.float32)

    def _elapsed(self) -> Singles:
        """Time since the previous row in (median) steps: [M, 1], 1 on a grid and for the first row of a series."""
        if not self.config.uneven:
            return np.ones((len(self.owner), 1), np.float32)
        gap = np.diff(self.time, prepend=self.time[:1]) / self.config.grid.step
        gap[self.start] = 1
        return gap.astype(np.float32)[:, None]


def _check_kinds(series: Series, config: TableInput) -> None:
    for role in ("features", "known", "static"):
        for k, column in enumerate(getattr(config, role)):
            text = column.name in series.categories
            if text != (column.kind == "category") and np.isfinite(getattr(series, role)[:, k]).any():
                was, now = ("text", "numbers") if column.kind == "category" else ("numbers", "text")
                raise DataError(
                    f"{series.source}, column {column.name!r}: it held {was} in training and holds {now} here;"
                    f" convert it to {was}."
                )


def _encode(series: Series, column: Column, role: str) -> tuple[Floats | None, Ints | None]:
    """A number column as [N, 2] (scaled, observed), or a category as its codes [N]."""
    values = getattr(series, role)[:, getattr(series.roles, role).index(column.name)]
    seen = np.isfinite(values)
    if column.kind == "number":
        scaled = np.where(seen, (values - column.mean) / column.scale, 0.0)
        return np.stack([scaled, seen.astype(np.float64)], 1), None
    return None, codes_of(column, values, series.categories)


def codes_of(column: Column, values: Floats, categories: Mapping[str, tuple[str, ...]]) -> Ints:
    """The column's own codes of `values` [N], which index into the table's categories; NaN is MISSING."""
    fitted = {value: FIRST + k for k, value in enumerate(column.values)}
    codes = np.array([MISSING] + [fitted.get(v, UNSEEN) for v in categories.get(column.name, ())], np.int64)
    return np.asarray(codes[np.where(np.isfinite(values), values + 1, 0).astype(np.int64)])


def _interpolate(x: Singles, seen: NDArray[np.bool_], latest: Singles) -> Singles:
    """x [n, C, K] with gaps filled on a line between neighbours, at the ends by the nearest value, else `latest`."""
    gaps = ~seen.all((1, 2))
    if not gaps.any():
        return x
    filled = x.copy()
    filled[gaps] = _fill(x[gaps], seen[gaps], latest[gaps])
    return filled


def _fill(x: Singles, seen: NDArray[np.bool_], latest: Singles) -> Singles:
    x, seen = np.ascontiguousarray(x.swapaxes(1, 2)), np.ascontiguousarray(seen.swapaxes(1, 2))  # [n, K, C]
    c = x.shape[2]
    if (seen[..., 1:] >= seen[..., :-1]).all():  # as where windows only begin before their series
        first = np.take_along_axis(x, seen.argmax(2)[..., None], 2)
        return np.where(seen, x, np.where(seen[..., -1:], first, latest[..., None])).swapaxes(1, 2)
    at = np.arange(c)
    before = np.maximum.accumulate(np.where(seen, at, -1), 2)
    after = np.minimum.accumulate(np.where(seen, at, c)[..., ::-1], 2)[..., ::-1]
    left = np.where(before < 0, np.minimum(after, c - 1), before)
    right = np.where(after >= c, left, after)
    a, b = (np.take_along_axis(x, side, 2) for side in (left, right))
    share = (at - left) / np.maximum(right - left, 1)
    filled = a + np.clip(share, 0, 1).astype(np.float32) * (b - a)
    return np.where(np.isfinite(filled), filled, latest[..., None]).swapaxes(1, 2)


def _windows_of(rows: NDArray[Any], before: int, after: int) -> NDArray[Any]:
    """A view [M, before + after, F] of (a copy of) rows [M, F]: window m has those from m + 1 - before to m + after; at
    the ends the first and the last one stand for what is not there."""
    padded = np.concatenate([rows[:1].repeat(before, 0), rows, rows[-1:].repeat(after, 0)])[1:]
    apart, step = padded.strides
    shape = len(rows), before + after, rows.shape[1]
    return np.lib.stride_tricks.as_strided(padded, shape, (apart, apart, step), writeable=False)


def _masked(values: NDArray[Any], out: NDArray[np.bool_] | None, fill: float) -> NDArray[Any]:
    """`values`, which are the caller's own, with `fill` where a window begins before its series."""
    if out is not None and values.size:
        np.copyto(values, np.asarray(fill, values.dtype), where=out)
    return values


def _scatter(values: Floats, place: Ints, total: int, fill: float = np.nan) -> Floats:
    made = np.full((total, values.shape[1]), fill)
    made[place] = values
    return made


def _scatter_codes(columns: list[Ints], place: Ints, total: int) -> Ints:
    made = np.full((total, len(columns)), MISSING, np.int64)
    for k, codes in enumerate(columns):
        made[place, k] = codes
    return made
