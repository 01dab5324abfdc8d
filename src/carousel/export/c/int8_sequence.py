"""Models of sequences in integers: weights and formats, and the NumPy reference that the C file equals bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from carousel.export.c.calendars import whole_features
from carousel.export.c.fixed import MISSING, WIDE, divide, exp2_minus, rounded, sat, sigmoid16, to16
from carousel.export.c.int8 import EMBED_BITS, ONE, factor_shift, raw_bits, raw_of
from carousel.export.c.plan import Plan
from carousel.export.c.quantise import Layer, Matrix, bits_for, layer_of, matrix_of, start, step16
from carousel.export.c.record_sequence import Pushed
from carousel.export.c.reference import Ranges
from carousel.export.c.sequence import pooling
from carousel.inputs.sequence import BOUND, Channel, SequenceInput

__all__ = ["Column", "Member", "WholeSequence", "answers", "quantised", "raw_rows"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LOG2E = 94548  # 16 fraction bits


@dataclass(frozen=True)
class Column:
    """A number column: raw = value * 2^bits; see `column` in templates/sequence_int8.c."""

    bits: int
    mean: int
    factor: int
    shift: int
    squash: int
    gaps: bool

    def scaled(self, raw: Ints, bits: int) -> Ints:
        """With `bits` fraction bits; 0 where missing."""
        x = np.where(raw == MISSING, 0, raw)
        if self.squash:
            x = divide(x * ONE, np.abs(x) + self.squash)
        x = sat(rounded((x - self.mean) * self.factor, self.shift), int(BOUND) * ONE)
        return np.where(raw == MISSING, 0, to16(x, 16 - bits))


@dataclass(frozen=True)
class Member:
    stack: tuple[Layer, ...]
    matrices: dict[str, Matrix]  # initial, attention, hidden, out
    embed: tuple[NDArray[np.int16], ...]


@dataclass(frozen=True)
class WholeSequence:
    """A classifier or tagger in integers."""

    plan: Plan
    columns: dict[str, tuple[Column, ...]]  # row and fixed numbers
    time_bits: int
    tick: tuple[int, int]  # factor and shift from ticks to units with 16 fraction bits
    bits: dict[str, int]  # step, wide
    members: tuple[Member, ...]
    read_out: dict[str, Any]

    @property
    def table(self) -> SequenceInput:
        return cast(SequenceInput, self.plan.config.input)


def quantised(plan: Plan, pushed: Pushed, ranges: Ranges) -> WholeSequence:
    """The integer model, scaled by what calibration saw (`ranges`) in the sequences `pushed`."""
    table = cast(SequenceInput, plan.config.input)
    bits = {"step": bits_for(max(ranges["x"], 1.0), EMBED_BITS), "wide": bits_for(ranges.get("wide", 1.0), 14)}
    own_time = 0 if table.stamps or table.roles.time is None else 12 - int(np.floor(np.log2(table.unit)))
    return WholeSequence(
        plan,
        {
            "row": _columns(table.numbers, pushed.numbers),
            "fixed": _columns(table.static_numbers, pushed.static_numbers),
        },
        own_time,
        factor_shift(ONE / (table.unit * 2.0**own_time)),
        bits,
        tuple(_member(plan, m, bits, ranges) for m in range(plan.config.seeds)),
        _read_out(plan.config.head),
    )


def _columns(columns: tuple[Channel, ...], values: Floats) -> tuple[Column, ...]:
    found = []
    for k, c in enumerate(columns):
        seen = np.append(np.abs(values[np.isfinite(values[:, k]), k]), 0.0).max()
        own = max(seen, c.squash) if c.squash else max(seen, abs(c.mean) + 4 * c.scale)
        bits = raw_bits(np.array([own]))
        inner = 16 if c.squash else bits
        factor, shift = factor_shift(2.0 ** (16 - inner) / c.scale)
        squash = max(1, round(c.squash * 2.0**bits)) if c.squash else 0
        found.append(Column(bits, round(c.mean * 2.0**inner), factor, shift, squash, c.gaps))
    return tuple(found)


def _member(plan: Plan, m: int, bits: dict[str, int], ranges: Ranges) -> Member:
    weights = {name: w.astype(np.float64) for name, w in plan.members[m].items()}
    layers: list[Layer] = []
    for n in range(plan.config.stack.num_layers):
        layers.append(layer_of(plan, m, n, layers[-1].out_bits if layers else bits["step"], ranges))
    last = layers[-1].out_bits
    matrices = {}
    if "static.weight" in weights:
        matrices["initial"] = matrix_of(weights["static.weight"], weights["static.bias"], bits["step"], 16)
    if "head.attention.weight" in weights:
        matrices["attention"] = matrix_of(weights["head.attention.weight"], None, last, 16)
    if plan.config.head.width:
        matrices["hidden"] = matrix_of(weights["head.hidden.weight"], weights["head.hidden.bias"], last, 16)
        last = bits["wide"]
    matrices["out"] = matrix_of(weights["head.out.weight"], weights["head.out.bias"], last, 16)
    embed = [weights[f"input.embed.{k}.weight"] for k in range(sum(n.startswith("input.embed.") for n in weights))]
    short = tuple(np.clip(np.rint(e * 2**EMBED_BITS), -32767, 32767).astype(np.int16) for e in embed)
    return Member(tuple(layers), matrices, short)


def _read_out(head: Any) -> dict[str, Any]:
    """What the read-out multiplies with, and how a number comes out."""
    if head.kind == "label":
        return {"sharpness": round(np.log2(np.e) / head.temperature * ONE)}
    if head.kind == "event":
        return {"sharpness": round(ONE / head.temperature), "threshold": round(head.threshold * ONE)}
    bits = raw_bits(np.array([abs(head.mean) + 8 * head.scale, *head.errors]))
    factor, shift = factor_shift(head.scale * 2.0 ** (bits - 16))
    errors = np.rint(np.asarray(head.errors) * 2.0**bits).astype(np.int32)
    return {"bits": bits, "mean": round(head.mean * 2.0**bits), "factor": factor, "shift": shift, "errors": errors}


def raw_rows(whole: WholeSequence, pushed: Pushed) -> dict[str, Ints]:
    """The sequences as integers, as the caller of the C functions gives them."""

    def columns(values: Floats, by: tuple[Column, ...]) -> Ints:
        made = [raw_of(values[:, k], c.bits) for k, c in enumerate(by)]
        return np.stack(made, 1) if made else np.zeros((len(values), 0), np.int64)

    return {
        "NUMBER": columns(pushed.numbers, whole.columns["row"]),
        "FIXED_NUMBER": columns(pushed.static_numbers, whole.columns["fixed"]),
        "TIME": np.rint(pushed.time * 2.0**whole.time_bits).astype(np.int64),
        "WALL": np.rint(pushed.wall).astype(np.int64),
    }


def _fade(age: Ints, bits: int) -> Ints:
    return to16(divide(age * 32768, ONE + age), 15 - bits)


def _numeric(whole: WholeSequence, pushed: Pushed, raw: dict[str, Ints]) -> tuple[Ints, Ints]:
    """Numeric channels [N, F] of all rows, and elapsed units [N] with 16 fraction bits."""
    table, bits, time = whole.table, whole.bits["step"], raw["TIME"]
    n, rows = len(time), np.arange(len(time))
    begin = np.repeat(pushed.offsets[:-1], np.diff(pushed.offsets))
    factor, shift = whole.tick

    def units(ticks: Ints) -> Ints:
        return sat(rounded(sat(ticks, 2**31 - 1) * factor, shift), 2**31 - 1)

    elapsed = np.where(rows == begin, 0, units(time - time[np.maximum(rows - 1, 0)]))
    parts = []
    for k, by in enumerate(whole.columns["row"]):
        seen = raw["NUMBER"][:, k] != MISSING
        value = by.scaled(raw["NUMBER"][:, k], bits)
        latest = np.maximum.accumulate(np.where(seen, rows, -1))
        latest = np.where(latest >= begin, latest, -1)
        ever = latest >= 0
        if by.gaps:
            age = _fade(units(np.where(ever, time - time[np.maximum(latest, 0)], 0)), bits)
            parts += [value, seen * np.int64(1 << bits), np.where(ever, age, 1 << bits)]
        parts.append(np.where(ever, value[np.maximum(latest, 0)], 0))
    if table.uneven:
        parts.append(_fade(elapsed, bits))
    for wave in whole_features(raw["WALL"], table.calendar):
        parts.append(to16(wave, 15 - bits))
    return np.stack(parts, 1) if parts else np.zeros((n, 0), np.int64), elapsed


def _embed(table: NDArray[np.int16], code: Ints, bits: int) -> Ints:
    return to16(table[code].astype(np.int64), EMBED_BITS - bits)


def _static(whole: WholeSequence, m: Member, pushed: Pushed, raw: dict[str, Ints]) -> Ints:
    """Static channels [B, S]."""
    table, bits, parts = whole.table, whole.bits["step"], []
    for k, by in enumerate(whole.columns["fixed"]):
        own = raw["FIXED_NUMBER"][:, k]
        parts.append(by.scaled(own, bits)[:, None])
        if by.gaps:
            parts.append(((own != MISSING) * np.int64(1 << bits))[:, None])
    for k in range(len(table.static_categories)):
        parts.append(_embed(m.embed[len(table.categories) + k], pushed.static_codes[:, k], bits))
    return np.concatenate([np.zeros((len(pushed.offsets) - 1, 0), np.int64), *parts], 1)


class Pool:
    """As `pool` in the C file, for the sequences that have a row number t."""

    def __init__(self, whole: WholeSequence, m: Member, batch: int) -> None:
        self.kind = pooling(whole.plan.config.head)
        size = whole.plan.config.stack.output_size
        self.member = m
        self.total = np.zeros((batch, size), np.int64)
        self.weight, self.top = np.zeros((batch, 1), np.int64), np.zeros((batch, 1), np.int64)

    def add(self, h: Ints, on: Any, t: int) -> Ints:
        if self.kind == "last":
            return h
        if self.kind == "max":
            self.total[on] = h if t == 0 else np.maximum(self.total[on], h)
            return np.asarray(self.total[on])
        if self.kind == "mean":
            self.total[on] += h
            return divide(self.total[on], t + 1)
        score = self.member.matrices["attention"].apply(h)
        top = self.top[on] if t else score
        more = score > top
        gone = exp2_minus(rounded(np.abs(score - top) * LOG2E, 16))
        old, fresh = np.where(more, gone, 32768), np.where(more, 32768, gone)
        self.top[on] = np.maximum(top, score)
        weight = rounded(self.weight[on] * old, 15) + fresh
        total = rounded(self.total[on] * old, 15) + fresh * h
        found = divide(total, weight)
        much = weight > WIDE
        self.weight[on] = np.where(much, rounded(weight, 1), weight)
        self.total[on] = np.where(much, rounded(total, 1), total)
        return found


def _begin(whole: WholeSequence, m: Member, static: Ints, h: list[Ints], c: list[Ints]) -> None:
    flat, stack = m.matrices["initial"].apply(static), whole.plan.config.stack
    size = stack.num_layers * stack.output_size
    for n, part in enumerate(np.split(flat[:, :size], stack.num_layers, 1)):
        h[n][:] = to16(part, 16 - m.stack[n].out_bits)
    for n, part in enumerate(np.split(flat[:, size:], stack.num_layers, 1)):
        c[n][:] = to16(part, 16 - m.stack[n].cell_bits)


def _outputs(whole: WholeSequence, pushed: Pushed) -> Ints:
    """Head outputs [N, K] after every row, 16 fraction bits."""
    raw, table, bits = raw_rows(whole, pushed), whole.table, whole.bits
    numeric, elapsed = _numeric(whole, pushed, raw)
    lengths, batch = np.diff(pushed.offsets), len(pushed.offsets) - 1
    made = np.zeros((len(numeric), whole.plan.config.head.outputs), np.int64)
    for m in whole.members:
        static = _static(whole, m, pushed, raw)
        coded = [_embed(m.embed[k], pushed.codes[:, k], bits["step"]) for k in range(len(table.categories))]
        x = np.concatenate([numeric, *coded, np.repeat(static, lengths, 0)], 1)
        h, c = start(whole.plan, batch)
        if "initial" in m.matrices:
            _begin(whole, m, static, h, c)
        pool = Pool(whole, m, batch)
        for t in range(int(lengths.max())):
            on = np.flatnonzero(lengths > t)
            at = pushed.offsets[:-1][on] + t
            out = x[at]
            for n, layer in enumerate(m.stack):
                h[n][on], c[n][on] = step16(layer, out, h[n][on], c[n][on], elapsed[at])
                out = h[n][on]
            out = pool.add(out, on, t)
            if "hidden" in m.matrices:
                out = to16(np.maximum(m.matrices["hidden"].apply(out), 0), 16 - bits["wide"])
            made[at] += m.matrices["out"].apply(out)
    return divide(made, len(whole.members))


def answers(whole: WholeSequence, pushed: Pushed) -> Ints:
    """What the C file answers after every row [N, .]."""
    y, by, kind = _outputs(whole, pushed), whole.read_out, whole.plan.config.head.kind
    if kind == "label":
        share = exp2_minus(rounded((y.max(1, keepdims=True) - y) * by["sharpness"], 16))
        return divide(share * ONE, share.sum(1, keepdims=True))
    if kind == "event":
        p = sigmoid16(sat(rounded(y[:, 0] * by["sharpness"], 19), 1 << 20))
        return np.stack([p, (p >= by["threshold"]).astype(np.int64)], 1)
    value = by["mean"] + rounded(y[:, :1] * by["factor"], by["shift"])
    return sat(np.concatenate([value, value + by["errors"].astype(np.int64)], 1), 2**31 - 1)
