"""Weights as 8-bit integers with a factor for each row, and the number formats that calibration chose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.cell import CellSpec
from carousel.export.c.fixed import (
    WIDE,
    ZF,
    divide,
    exp2_minus,
    quotient,
    reciprocal,
    root,
    rounded,
    sat,
    sigmoid16,
    tanh15,
    to16,
)
from carousel.export.c.plan import Plan
from carousel.export.c.reference import Ranges

__all__ = ["Layer", "Matrix", "bits_for", "layer_of", "matrix_of", "start", "step16"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROOM = 1.25  # beyond the largest value that calibration saw
NORM_BITS = 12  # fraction bits of layer norm's gains
NORM_BIAS_BITS = 10


def bits_for(largest: float, most: int) -> int:
    """Fraction bits of a 16-bit number that holds `largest` and some more.

    >>> bits_for(3.0, 15), bits_for(0.5, 12), bits_for(1000.0, 15)
    (13, 12, 4)
    """
    return int(np.clip(np.floor(np.log2(32767 / max(largest * ROOM, 1e-9))), 0, most))


@dataclass(frozen=True)
class Matrix:
    """y = W x + b: see `matrix` in templates/stack_int8.c."""

    w: NDArray[np.int8]  # [rows, n]
    factor: NDArray[np.uint16]  # [rows]
    bias: NDArray[np.int16] | None  # [rows]
    shift: int
    bias_shift: int

    def apply(self, x: Ints) -> Ints:
        """x [..., n] -> [..., rows]; float64 products of such integers are exact."""
        total = (x.astype(np.float64) @ self.w.T.astype(np.float64)).astype(np.int64)
        y = rounded(total * self.factor.astype(np.int64), self.shift)
        if self.bias is not None:
            y = y + self.bias.astype(np.int64) * (1 << self.bias_shift)
        return sat(y, WIDE)

    @property
    def wide_sums(self) -> bool:
        """Whether a sum of products may leave 32 bits."""
        return bool((np.abs(self.w.astype(np.int64)).sum(1) * 32768 >= 2**31).any())


def matrix_of(weight: Floats, bias: Floats | None, from_bits: int, to_bits: int) -> Matrix:
    """The nearest Matrix for x of `from_bits` fraction bits and y of `to_bits`."""
    scale = np.abs(weight).max(1) / 127
    scale = np.where(scale > 0, scale, 1e-12)
    factor = scale * 2.0 ** (to_bits - from_bits)
    shift = int(np.clip(np.floor(16 - 1e-9 - np.log2(factor.max())), 1, 45))
    whole = np.minimum(np.rint(factor * 2.0**shift), 65535)
    stored, bias_shift = None, 0
    if bias is not None:
        exact = bias * 2.0**to_bits
        while np.abs(exact).max() / 2**bias_shift > 32767:
            bias_shift += 1
        stored = np.rint(exact / 2**bias_shift).astype(np.int16)
    w = np.rint(weight / scale[:, None]).astype(np.int8)
    return Matrix(w, whole.astype(np.uint16), stored, shift, bias_shift)


@dataclass(frozen=True)
class Layer:
    """One layer; `cell_bits` and `out_bits` are the fraction bits of c and h."""

    spec: CellSpec
    ih: Matrix
    hh: Matrix
    cell_bits: int
    out_bits: int
    hr: Matrix | None = None
    ch: NDArray[np.int16] | None = None
    peephole_shift: int = 0
    norm_ih: NDArray[np.int16] | None = None
    norm_hh: NDArray[np.int16] | None = None
    norm_c: NDArray[np.int16] | None = None
    bias: NDArray[np.int16] | None = None
    norm_bias_c: NDArray[np.int16] | None = None
    rate: NDArray[np.uint32] | None = None


def layer_of(plan: Plan, member: int, layer: int, from_bits: int, ranges: Ranges) -> Layer:
    """The layer in integers, its input having `from_bits` fraction bits."""
    spec, weights = plan.spec, plan.layer(member, layer)
    largest = min(ranges[f"c{layer}"], spec.cell_clip or np.inf)
    cell_bits = bits_for(largest, 14)
    bounded = not spec.proj_size and ranges[f"h{layer}"] <= 1  # an initial state may be larger than any output
    out_bits = 15 if bounded else bits_for(ranges[f"h{layer}"], 15)
    bias = weights.get("bias")
    more: dict[str, Any] = {}
    if spec.proj_size:
        more["hr"] = matrix_of(weights["weight_hr"], None, 15, out_bits)
    if spec.peephole:
        bits = bits_for(float(np.abs(weights["weight_ch"]).max()), 14)
        bits = max(bits, ZF - cell_bits)
        more |= {"ch": _short(weights["weight_ch"], bits), "peephole_shift": bits + cell_bits - ZF}
    if spec.layer_norm:
        more |= {n: _short(weights[n], NORM_BITS) for n in ("norm_ih", "norm_hh", "norm_c")}
        if bias is not None:
            more |= {
                "bias": _short(bias, NORM_BIAS_BITS),
                "norm_bias_c": _short(weights["norm_bias_c"], NORM_BIAS_BITS),
            }
        bias = None
    if spec.decay:
        more["rate"] = np.minimum(np.rint(weights["rate"] * np.log2(np.e) * 2**24), 2**31 - 1).astype(np.uint32)
    return Layer(
        spec,
        matrix_of(weights["weight_ih"], bias, from_bits, ZF),
        matrix_of(weights["weight_hh"], None, out_bits, ZF),
        cell_bits,
        out_bits,
        **more,
    )


def _short(values: Floats, bits: int) -> NDArray[np.int16]:
    return np.clip(np.rint(values * 2.0**bits), -32767, 32767).astype(np.int16)


def start(plan: Plan, batch: int) -> tuple[list[Ints], list[Ints]]:
    """h [B, P] and c [B, H] of every layer."""
    stack = plan.config.stack
    made = [(np.zeros((batch, stack.output_size), np.int64), np.zeros((batch, stack.hidden_size), np.int64))]
    made *= stack.num_layers
    return [h.copy() for h, _ in made], [c.copy() for _, c in made]


def step16(layer: Layer, x: Ints, h: Ints, c: Ints, elapsed: Ints) -> tuple[Ints, Ints]:
    """As `layer_step` in templates/stack_int8.c: x [B, I], h [B, P], c [B, H]; elapsed [B] has 16 fraction bits."""
    spec, bits, size = layer.spec, layer.cell_bits, c.shape[1]
    a, r = layer.ih.apply(x), layer.hh.apply(h)
    if layer.norm_ih is not None and layer.norm_hh is not None:
        a, r = _normalise(a, ZF), _normalise(r, ZF)
        z = rounded(a * layer.norm_ih.astype(np.int64), 12) + rounded(r * layer.norm_hh.astype(np.int64), 12)
        z = z + (layer.bias.astype(np.int64) * 8 if layer.bias is not None else 0)
    else:
        z = a + r
    z = sat(z, 1 << 20)
    at = {gate: z[:, k * size : (k + 1) * size] for k, gate in enumerate(spec.gates)}
    peep = {gate: np.zeros(size, np.int64) for gate in "ifo"}
    if layer.ch is not None:
        ch = layer.ch.astype(np.int64)
        peep |= {gate: ch[k * size : (k + 1) * size] for k, gate in enumerate(spec.gates.replace("g", ""))}

    def gate(name: str, cell: Ints) -> Ints:
        seen = rounded(peep[name] * cell, layer.peephole_shift) if spec.peephole else 0
        return (sigmoid16(at[name] + seen) + 1) >> 1

    if layer.rate is not None:
        gone = exp2_minus(rounded(layer.rate.astype(np.int64) * elapsed[:, None], 24))
        c = to16(c * gone, 15)
    f = gate("f", c)
    i = 32768 - f if spec.coupled else gate("i", c)
    fresh = to16(f * c + rounded(i * tanh15(at["g"]), 15 - bits), 15)
    if spec.cell_clip:
        fresh = sat(fresh, int(np.rint(spec.cell_clip * 32768)) >> (15 - bits))
    if layer.norm_c is not None:
        shown = rounded(_normalise(fresh, bits) * layer.norm_c.astype(np.int64), 12)
        shown = sat(shown + (layer.norm_bias_c.astype(np.int64) * 8 if layer.norm_bias_c is not None else 0), 1 << 20)
    else:
        shown = rounded(fresh, bits - ZF) if bits >= ZF else fresh << (ZF - bits)
    out = to16(gate("o", fresh) * tanh15(shown), 15)
    if spec.zoneout_c:
        keep = int(np.rint(spec.zoneout_c * 32768))
        fresh = rounded(keep * c + (32768 - keep) * fresh, 15)
    out = rounded(out, 15 - layer.out_bits) if layer.hr is None else sat(layer.hr.apply(out), 32767)
    if spec.zoneout_h:
        keep = int(np.rint(spec.zoneout_h * 32768))
        out = rounded(keep * h + (32768 - keep) * out, 15)
    return out, fresh


def _normalise(z: Ints, bits: int) -> Ints:
    n = z.shape[-1]
    d = sat(z - divide(z.sum(-1, keepdims=True), n), 1 << 22)
    square = divide((d * d).sum(-1, keepdims=True), n) + ((1 << (2 * bits)) * 10 + 500000) // 1000000
    return quotient(d, reciprocal(root(square * 65536) + 1), 21)
