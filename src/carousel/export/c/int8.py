"""The forecaster in integers: weights and formats, scaled by what calibration saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from carousel.errors import NotSupported
from carousel.export.c.fixed import (
    MISSING,
    WIDE,
    rounded,
    sat,
    to16,
)
from carousel.export.c.plan import Plan
from carousel.export.c.quantise import Layer, Matrix, bits_for, layer_of, matrix_of
from carousel.export.c.record import numbers
from carousel.export.c.reference import Ranges
from carousel.heads.forecast import ForecastHead
from carousel.inputs.fitted import Column, TableInput
from carousel.inputs.windows import Rows

__all__ = [
    "LOG_THIRD",
    "LOG_WHOLE",
    "ONE",
    "Member",
    "Scaling",
    "Whole",
    "factor_shift",
    "quantised",
    "raw_bits",
    "raw_of",
    "raw_rows",
    "wall",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ONE = 65536  # 16 fraction bits
EMBED_BITS = 12
LOG_THIRD = round(np.log(2) / 3 * 2**20)
LOG_WHOLE = round(np.log(2) * 2**20)


@dataclass(frozen=True)
class Scaling:
    """A number column: raw = value * 2^bits; (raw - mean) * factor / 2^shift has 16 fraction bits."""

    bits: int
    mean: int
    factor: int
    shift: int

    def encode(self, raw: Ints, bits: int) -> Ints:
        """raw [...] -> [..., 2]: the scaled value and whether it was observed."""
        scaled = to16(sat(rounded((raw - self.mean) * self.factor, self.shift), WIDE), 16 - bits)
        seen = raw != MISSING
        return np.stack([np.where(seen, scaled, 0), seen * np.int64(1 << bits)], -1)


@dataclass(frozen=True)
class Member:
    stack: tuple[Layer, ...]
    matrices: dict[str, Matrix]  # state, ahead, hidden, out, gate, linear
    step: Matrix  # of bias-free rows, one for each step ahead; only its w, factor and shift are used
    gate_step: NDArray[np.int16]  # [H, K * G]
    gate_step_shift: int
    embed: tuple[NDArray[np.int16], ...]


@dataclass(frozen=True)
class Whole:
    """A forecaster in integers."""

    plan: Plan
    target_bits: tuple[int, ...]
    columns: dict[str, tuple[Scaling, ...]]  # row, known and fixed numbers
    time_bits: int
    tick: tuple[int, int]  # factor and shift from ticks to steps of the clock with 16 fraction bits
    bits: dict[str, int]  # step, state, ahead, linear, first, second
    members: tuple[Member, ...]

    @property
    def table(self) -> TableInput:
        return cast(TableInput, self.plan.config.input)

    @property
    def head(self) -> ForecastHead:
        return cast(ForecastHead, self.plan.config.head)


def factor_shift(value: float, bits: int = 30) -> tuple[int, int]:
    """value = factor / 2^shift with `bits` significant bits."""
    shift = int(np.clip(bits - 1 - np.floor(np.log2(value)), 1, 62))
    return int(np.rint(value * 2.0**shift)), shift


def raw_bits(values: Floats, room: float = 16.0) -> int:
    """Fraction bits that leave `room` times the largest value below 2^30."""
    largest = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    return int(np.clip(np.floor(30 - np.log2(largest * room)), -60, 60))


def quantised(plan: Plan, rows: Rows, ranges: Ranges) -> Whole:
    """The integer model, scaled by what calibration saw (`ranges`) in the series of `rows`.

    Raises NotSupported for a window that does not fit 16-bit indices.
    """
    table, series = cast(TableInput, plan.config.input), rows.series
    if table.reach >= 65535:
        raise NotSupported(f"a window of {table.reach} rows is beyond the 16-bit counters of the integer form.")
    bits = {name: bits_for(ranges[key], 12) for name, key in (("step", "x"), ("state", "state"), ("linear", "context"))}
    bits["ahead"] = bits_for(ranges.get("ahead", 1.0), 12)
    bits |= {name: bits_for(ranges[name], 14) for name in ("first", "second")}
    own_time = 0 if table.stamps else 12 - int(np.floor(np.log2(table.grid.step)))
    return Whole(
        plan,
        tuple(raw_bits(series.target[:, k]) for k in range(table.targets)),
        {
            "row": _scalings(table.features + table.known),
            "known": _scalings(table.known),
            "fixed": _scalings(table.static),
        },
        own_time,
        factor_shift(ONE / (table.grid.step * 2.0**own_time)),
        bits,
        tuple(_member(plan, m, bits, ranges) for m in range(plan.config.seeds)),
    )


def _scalings(columns: tuple[Column, ...]) -> tuple[Scaling, ...]:
    found = []
    for c in columns:
        if c.kind == "number":
            bits = raw_bits(np.array([abs(c.mean) + 4 * c.scale]))
            found.append(Scaling(bits, round(c.mean * 2.0**bits), *factor_shift(2.0 ** (16 - bits) / c.scale)))
    return tuple(found)


def _member(plan: Plan, m: int, bits: dict[str, int], ranges: Ranges) -> Member:
    weights = {name: w.astype(np.float64) for name, w in plan.members[m].items()}
    layers: list[Layer] = []
    for n in range(plan.config.stack.num_layers):
        layers.append(layer_of(plan, m, n, layers[-1].out_bits if layers else bits["step"], ranges))

    def matrix(name: str, given: int, made: int) -> Matrix:
        return matrix_of(weights[f"head.{name}.weight"], weights.get(f"head.{name}.bias"), given, made)

    matrices = {
        "state": matrix("state", bits["state"], 13),
        "hidden": matrix("hidden", bits["first"], 13),
        "out": matrix("out", bits["second"], 16),
        "gate": matrix("gate", bits["second"], 16),
        "linear": matrix("linear", bits["linear"], 16),
    }
    if "head.ahead.weight" in weights:
        matrices["ahead"] = matrix("ahead", bits["ahead"], 13)
    gate_step = weights["head.gate_step"] * ONE
    shift = 0
    while np.abs(gate_step).max() / 2**shift > 32767:
        shift += 1
    embed = [weights[f"input.embed.{k}.weight"] for k in range(sum(n.startswith("input.embed.") for n in weights))]
    return Member(
        tuple(layers),
        matrices,
        matrix_of(weights["head.step"], None, 0, 13),
        np.rint(gate_step / 2**shift).astype(np.int16),
        shift,
        tuple(np.clip(np.rint(e * 2**EMBED_BITS), -32767, 32767).astype(np.int16) for e in embed),
    )


def raw_of(values: Floats, bits: int) -> Ints:
    """Numbers as the caller of the C functions gives them."""
    held = np.clip(np.rint(np.nan_to_num(values) * 2.0**bits), -WIDE, WIDE).astype(np.int64)
    return np.where(np.isfinite(values), held, MISSING)


def raw_rows(whole: Whole, rows: Rows) -> dict[str, Ints]:
    """All rows of a series as integers: targets, numbers of rows and of the series, times."""
    table, series = whole.table, rows.series
    given = np.concatenate([numbers(series, table.features, "features"), numbers(series, table.known, "known")], 1)
    fixed = numbers(series, table.static, "static")
    return {
        "TARGET": np.stack([raw_of(series.target[:, k], b) for k, b in enumerate(whole.target_bits)], 1),
        "NUMBER": _columns(given, whole.columns["row"]),
        "FIXED_NUMBER": _columns(fixed, whole.columns["fixed"]),
        "TIME": np.rint(rows.time * 2.0**whole.time_bits).astype(np.int64),
        "WALL": np.rint(wall(rows)).astype(np.int64),
    }


def wall(rows: Rows) -> Floats:
    """Seconds on the clock of the wall of all rows."""
    return np.asarray(rows.series.clock.local(rows.time, rows.series.grid))


def _columns(values: Floats, scalings: tuple[Scaling, ...]) -> Ints:
    made = [raw_of(values[:, k], by.bits) for k, by in enumerate(scalings)]
    return np.stack(made, 1) if made else np.zeros((len(values), 0), np.int64)
