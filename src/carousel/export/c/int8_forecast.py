"""The integer forecaster in NumPy, which the C file equals bit for bit.

The names are those of templates/forecast_int8.c; all origins are computed at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from carousel.export.c.calendars import whole_features
from carousel.export.c.fixed import (
    MISSING,
    WIDE,
    divide,
    exp2_minus,
    log2_of,
    quotient,
    reciprocal,
    rounded,
    sat,
    sigmoid16,
    softplus16,
    to16,
)
from carousel.export.c.int8 import EMBED_BITS, LOG_THIRD, LOG_WHOLE, ONE, Member, Whole, raw_rows
from carousel.export.c.quantise import start, step16
from carousel.export.c.record import codes
from carousel.inputs.fitted import MISSING as NO_CODE
from carousel.inputs.windows import Rows

__all__ = ["forecast"]

Ints = NDArray[np.int64]


def bounded(x: Ints, bits: int) -> Ints:
    """`input16` in the C file: from 16 fraction bits, within the bound of 100."""
    return sat(rounded(x, 16 - bits), 100 << bits if bits < 9 else 32767)


def log16(x: Ints, factor: int) -> Ints:
    return rounded((log2_of(x) - 16 * ONE) * factor, 20)


class Windows:
    """What the C file holds of each of n origins, as integers."""

    def __init__(self, whole: Whole, rows: Rows, origins: Ints) -> None:
        self.whole, self.rows, self.table = whole, rows, whole.table
        self.raw = raw_rows(whole, rows)
        series, table = rows.series, whole.table
        self.place = np.flatnonzero(rows.own)  # of the series' rows among those of `rows`
        self.at = rows.place(origins)
        self.start = rows.start[rows.owner[self.at]]
        target = np.full((len(rows.owner), table.targets), MISSING, np.int64)
        target[self.place] = self.raw["TARGET"]
        self.target, self.time = target, self.raw["TIME"]
        self.codes = {
            "row": np.concatenate([codes(series, table.features, "features"), codes(series, table.known, "known")], 1),
            "fixed": codes(series, table.static, "static"),
        }
        self._scale()

    def _so_far(self, values: Ints) -> Ints:
        """Sums [n, K] of the series' rows up to each origin."""
        total = np.concatenate([np.zeros((1, values.shape[1]), np.int64), np.cumsum(values, 0)])
        return np.asarray(total[self.at + 1] - total[self.start])

    def _scale(self) -> None:
        rows, c = self.rows, self.table.context
        seen = self.target != MISSING
        index = self.at[:, None] + np.arange(1 - c, 1)
        out = index < self.start[:, None]
        past = np.where(out[..., None], MISSING, self.target[np.where(out, 0, index)])
        has = past != MISSING
        n = has.sum(1)
        some, filled = np.maximum(n, 1), np.where(has, past, 0)
        latest = rows.latest[self.at]
        self.any = latest >= 0
        last = np.where(self.any, np.take_along_axis(self.target, np.maximum(latest, 0), 0), 0)
        mean = np.where(n > 0, divide(filled.sum(1), some), last)
        self.level = last if self.table.level == "last" else mean
        away = np.where(n > 1, (np.abs(filled - self.level[:, None]) * has).sum(1) // some, 0)
        before = np.where(np.roll(rows.owner, 1)[:, None] == rows.owner[:, None], np.roll(rows.latest, 1, 0), -1)
        before[0] = -1
        pair = seen & (before >= 0)
        change = np.where(pair, np.abs(self.target - np.take_along_axis(self.target, np.maximum(before, 0), 0)), 0)
        running = self._so_far(change) // np.maximum(self._so_far(pair.astype(np.int64)), 1) // 10
        size = np.maximum(np.abs(filled).sum(1) // some, np.abs(last)) // 10000 + 1
        self.spread = np.maximum(np.maximum(away, running), size)
        self.by = reciprocal(self.spread)
        self.latest = self.scaled(last, self.level)
        count = self._so_far(seen.astype(np.int64))
        sums = self._so_far(np.where(seen, self.target, 0))
        self.mean = np.where(count > 0, divide(sums, np.maximum(count, 1)), 0)

    def scaled(self, raw: Ints, level: Ints) -> Ints:
        """(raw - level) / spread [n, ..., K] with 16 fraction bits."""
        extra = raw.ndim - 2
        shape = (len(self.at), *([1] * extra), -1)
        by = (self.by[0].reshape(shape), self.by[1].reshape(shape))
        return quotient(raw - level.reshape(shape), by, 16)

    def rows_back(self, back: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """Targets [n, len(back), K] scaled, and whether they were observed."""
        index = self.at[:, None] - back
        inside = index >= self.start[:, None]
        raw = np.where(inside[..., None], self.target[np.where(inside, index, 0)], MISSING)
        seen = raw != MISSING
        return np.where(seen, self.scaled(np.where(seen, raw, 0), self.level), 0), seen

    def numbers(self, bits: int, at: Ints, inside: NDArray[np.bool_], first: int, wall: Ints) -> list[Ints]:
        """Number columns from `first` on of the rows `at` [n, T], and the calendar at `wall` [n, T], as [n, T, .]."""
        whole = self.whole
        raw = np.full((len(self.rows.owner), len(whole.columns["row"])), MISSING, np.int64)
        raw[self.place] = self.raw["NUMBER"]
        found = [by.encode(raw[at, first + k], bits) for k, by in enumerate(whole.columns["row"][first:])]
        waves = whole_features(wall, self.table.calendar)
        found += [to16(wave, 15 - bits)[..., None] for wave in waves]
        return [np.where(inside[..., None], part, 0) for part in found]

    def steps_of(self, ticks: Ints) -> Ints:
        factor, shift = self.whole.tick
        return sat(rounded(sat(ticks, 2**31 - 1) * factor, shift), 2**31 - 1)

    def elapsed(self) -> Ints:
        """Of all rows, with 16 fraction bits."""
        if not self.table.uneven:
            return np.full(len(self.time), ONE, np.int64)
        gap = self.steps_of(np.diff(self.time, prepend=self.time[:1]))
        gap[self.rows.start] = ONE
        return gap

    def ages(self, bits: int) -> Ints:
        """Of all rows [M, K]."""
        latest = self.rows.latest
        if self.table.uneven:
            steps = self.steps_of(self.time[:, None] - self.time[np.maximum(latest, 0)])
        else:
            steps = np.minimum(np.arange(len(latest))[:, None] - latest, 65535) * ONE
        age = bounded(log16(ONE + np.maximum(steps, 0), LOG_THIRD), bits)
        return np.where(latest >= 0, age, -(1 << bits))


def embed(table: NDArray[np.int16], at: Ints, bits: int) -> Ints:
    return to16(table[at].astype(np.int64), EMBED_BITS - bits)


def _channels(w: Windows, m: Member) -> tuple[Ints, Ints]:
    """The stack's input [n, C, I] and elapsed [n, C]."""
    table, bits, c = w.table, w.whole.bits["step"], w.table.context
    back = np.arange(c - 1, -1, -1)
    value, seen = w.rows_back(back)
    one = np.int64(1 << bits)
    both = seen[:, 1:] & seen[:, :-1]
    difference = np.zeros_like(value)
    difference[:, 1:] = np.where(both, bounded(value[:, 1:] - value[:, :-1], bits), 0)
    index = w.at[:, None] - back
    inside = index >= w.start[:, None]
    index = np.where(inside, index, 0)
    age = np.where(inside[..., None], w.ages(bits)[index], -one)
    parts = [np.where(seen, bounded(value, bits), 0), seen * one, age, difference]
    for season in table.seasons:
        before, known = w.rows_back(back + season)
        parts.append(np.where(known, bounded(before, bits), 0))
    parts += w.numbers(bits, index, inside, 0, w.raw["WALL"][index])
    elapsed = np.where(inside, w.elapsed()[index], ONE)
    if table.uneven:
        parts.append(np.where(inside, bounded(log16(ONE + w.elapsed()[index], LOG_WHOLE), bits), 0)[..., None])
    all_codes = np.full((len(w.rows.owner), w.codes["row"].shape[1]), NO_CODE, np.int64)
    all_codes[w.place] = w.codes["row"]
    for k in range(all_codes.shape[1]):
        parts.append(embed(m.embed[k], np.where(inside, all_codes[index, k], NO_CODE), bits))
    return np.concatenate(parts, -1), elapsed


def _linear(w: Windows) -> Ints:
    """[n, K, C + 1]."""
    bits, c = w.whole.bits["linear"], w.table.context
    value, seen = w.rows_back(np.arange(c - 1, -1, -1))
    x = bounded(value, bits)
    at = np.arange(c)[:, None]
    before = np.maximum.accumulate(np.where(seen, at, -1), 1)
    after = np.minimum.accumulate(np.where(seen, at, c)[:, ::-1], 1)[:, ::-1]
    left = np.where(before < 0, np.minimum(after, c - 1), before)
    right = np.where(after >= c, left, after)
    a, b = np.take_along_axis(x, left, 1), np.take_along_axis(x, right, 1)
    filled = a + divide(np.clip(at - left, 0, None) * (b - a), np.maximum(right - left, 1))
    filled = np.where(np.asarray(seen.any(1))[:, None], filled, bounded(w.latest, bits)[:, None])
    away = sat(divide(quotient(w.level - w.mean, w.by, 16), 10), ONE)
    return np.moveaxis(np.concatenate([filled, bounded(away, bits)[:, None]], 1), 1, 2)


def _lags(w: Windows) -> tuple[list[Ints], Ints]:
    """Channels of the steps ahead [n, H, .], and the naive forecasts [n, H, K, G]."""
    table, bits = w.table, w.whole.bits["ahead"]
    h = np.arange(1, table.horizon + 1)
    now = np.broadcast_to(w.latest[:, None], (len(w.at), table.horizon, table.targets))
    parts, bases = [], [now, np.zeros_like(now)]
    for m in table.seasons:
        gone = -(-h // m)
        value, seen = w.rows_back(m * gone - h)
        value = np.where(seen, value, now)
        row = w.rows.latest[w.at] - m
        inside = (row >= w.start[:, None]) & w.any
        raw = np.where(inside, np.take_along_axis(w.target, np.where(inside, row, 0), 0), MISSING)
        anchor = w.scaled(np.where(raw == MISSING, 0, raw), w.level)[:, None]
        sure = seen & np.asarray(raw != MISSING)[:, None]
        parts += [bounded(value, bits), bounded(value - now, bits), ~seen * np.int64(1 << bits)]
        parts.append(np.where(sure, bounded(value - anchor, bits), 0))
        drift = sat(value + gone[:, None] * (now - anchor), WIDE)
        bases += [value, np.where(sure, drift, now)]
    return parts, np.stack(bases, -1)


def _silu(z: Ints, bits: int) -> Ints:
    z = sat(z, 1 << 20)
    return to16(z * sigmoid16(z), 29 - bits)


def _ahead(w: Windows, m: Member, parts: list[Ints]) -> Ints:
    """[n, H, .]"""
    table, bits, h = w.table, w.whole.bits["ahead"], w.table.horizon
    following = w.at[:, None] + np.arange(1, h + 1)
    features = sum(c.kind == "number" for c in table.features)
    wall = table.grid.ahead(w.raw["WALL"][w.at][:, None].astype(np.float64), np.arange(1, h + 1))
    everywhere, seconds = np.ones(following.shape, bool), np.rint(wall).astype(np.int64)
    parts = parts + w.numbers(bits, following, everywhere, features, seconds)
    if table.uneven:
        lead = to16(log16((np.arange(1, h + 1) + 1) * ONE, LOG_WHOLE), 16 - bits)
        parts.append(np.broadcast_to(lead[:, None], (len(w.at), h, 1)))
    first = sum(c.kind == "category" for c in table.features)
    for k in range(first, w.codes["row"].shape[1]):
        all_codes = np.full(len(w.rows.owner), NO_CODE, np.int64)
        all_codes[w.place] = w.codes["row"][:, k]
        parts.append(embed(m.embed[k], all_codes[following], bits))
    return np.concatenate([*parts, np.zeros((len(w.at), h, 0), np.int64)], -1)


def _state(w: Windows, m: Member, out: Ints) -> Ints:
    """What the decoder reads once: the stack's output, place and size of the targets, static columns [n, .]."""
    bits, last = w.whole.bits["state"], m.stack[-1].out_bits
    h = rounded(out, last - bits) if last >= bits else out << (bits - last)
    share = rounded((log2_of(w.spread) - log2_of(np.abs(w.level) + w.spread)) * LOG_THIRD, 20)
    parts = [sat(h, 32767), to16(w.latest, 16 - bits), to16(np.maximum(share, -301804), 16 - bits)]
    which = w.rows.owner[w.at]
    for k, by in enumerate(w.whole.columns["fixed"]):
        parts.append(by.encode(w.raw["FIXED_NUMBER"][which, k], bits))
    first = w.codes["row"].shape[1]
    for k in range(w.codes["fixed"].shape[1]):
        parts.append(embed(m.embed[first + k], w.codes["fixed"][which, k], bits))
    return np.concatenate(parts, -1)


def _decode(w: Windows, m: Member, state: Ints, ahead: Ints, base: Ints, limit: int) -> Ints:
    """[n, H, K, Q] with 16 fraction bits."""
    head, bits = w.whole.head, w.whole.bits
    n, h, k = len(state), w.table.horizon, w.table.targets
    step = rounded(m.step.w.astype(np.int64) * m.step.factor.astype(np.int64)[:, None], m.step.shift)
    z = m.matrices["state"].apply(state)[:, None] + step
    if "ahead" in m.matrices:
        z = z + m.matrices["ahead"].apply(ahead)
    z = _silu(m.matrices["hidden"].apply(_silu(z, bits["first"])), bits["second"])
    gate_step = m.gate_step.astype(np.int64) * (1 << m.gate_step_shift)
    gate = sat(m.matrices["gate"].apply(z) + gate_step, WIDE).reshape(n, h, k, -1)
    share = exp2_minus(rounded((gate.max(-1, keepdims=True) - gate) * 94548, 16))
    mixed = divide((share * base).sum(-1), share.sum(-1))
    raw = m.matrices["out"].apply(z).reshape(n, h, k, -1)
    linear = np.moveaxis(m.matrices["linear"].apply(_linear(w)), 1, 2)
    found = np.empty_like(raw)
    middle = head.median
    found[..., middle] = sat(mixed + linear + raw[..., middle], limit)
    for direction, last in ((1, raw.shape[-1]), (-1, -1)):
        for i in range(middle + direction, last, direction):
            away = softplus16(raw[..., i] - ONE)
            found[..., i] = sat(found[..., i - direction] + direction * away, limit)
    return found


def forecast(whole: Whole, rows: Rows, origins: Ints) -> Ints:
    """Quantiles [n, H, K, Q] in the scales of the targets, of the steps after `origins` (rows of the series)."""
    w = Windows(whole, rows, origins)
    seeds, head = whole.plan.config.seeds, whole.head
    parts, base = _lags(w)
    total = np.zeros((len(origins), w.table.horizon, w.table.targets, len(head.quantiles)), np.int64)
    for m in whole.members:
        x, elapsed = _channels(w, m)
        h, c = start(whole.plan, len(x))
        for t in range(w.table.context):
            out = x[:, t]
            for n, layer in enumerate(m.stack):
                out, c[n] = step16(layer, out, h[n], c[n], elapsed[:, t])
                h[n] = out
        total += _decode(w, m, _state(w, m, out), _ahead(w, m, parts), base, WIDE // seeds)
    q = divide(total, seeds)
    middle = q[..., head.median, None]
    factor = np.rint(np.asarray(head.factors) * 2**14).astype(np.int64)
    q = np.sort(sat(middle + rounded((q - middle) * factor, 14), WIDE), -1)
    spread, level = w.spread[:, None, :, None], w.level[:, None, :, None]
    return sat(level + rounded(q * spread, 16), 2**31 - 1)
