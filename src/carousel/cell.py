"""The LSTM cell: its variants as data (`CellSpec`), its equations (`step`), for NumPy and torch arrays alike."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

__all__ = ["LAYER_NORM_EPS", "NO_MASKS", "CellSpec", "Masks", "Step", "step"]

LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True, kw_only=True)
class CellSpec:
    """Which LSTM: every field is independent of the others.

    Sources: peephole, Gers & Schmidhuber 2000; coupled input and forget gates, Greff et al. 2017; layer norm of
    W x, U h and c, Ba et al. 2016; projection and cell clip, Sak et al. 2014; recurrent dropout (one mask per
    sequence), Gal & Ghahramani 2016; zoneout, Krueger et al. 2017; weight drop, Merity et al. 2018; decay of the
    cell state over elapsed time with one learned rate per unit, after Baytas et al. 2017 and Che et al. 2018.
    Raises ValueError where a value is outside its range.

    >>> CellSpec(coupled=True, peephole=True).shapes(input_size=3, hidden_size=5)["weight_ih"]
    (15, 3)
    """

    bias: bool = True
    peephole: bool = False
    coupled: bool = False
    layer_norm: bool = False
    decay: bool = False
    proj_size: int = 0
    cell_clip: float = 0.0
    recurrent_dropout: float = 0.0
    zoneout_c: float = 0.0
    zoneout_h: float = 0.0
    weight_drop: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            kind: Any = {"bool": bool, "int": int, "float": (int, float)}[str(field.type)]
            value = getattr(self, field.name)
            if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
                raise ValueError(f"CellSpec.{field.name} must be a {field.type}, got {value!r}")
        for name in ("recurrent_dropout", "zoneout_c", "zoneout_h", "weight_drop"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"CellSpec.{name} is a probability in [0, 1), got {getattr(self, name)}")
        if self.proj_size < 0:
            raise ValueError(f"CellSpec.proj_size must be 0 (off) or larger, got {self.proj_size}")
        if not 0 <= self.cell_clip < float("inf"):
            raise ValueError(f"CellSpec.cell_clip must be finite and >= 0 (0 is off), got {self.cell_clip}")

    @property
    def gates(self) -> str:
        """The gates in stored order; with `coupled` there is no input gate of its own."""
        return "fgo" if self.coupled else "ifgo"

    def output_size(self, hidden_size: int) -> int:
        return self.proj_size or hidden_size

    def shapes(self, input_size: int, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of one layer and direction, in torch's order and layout; then those torch lacks."""
        rows = len(self.gates) * hidden_size
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, input_size)}
        shapes["weight_hh"] = (rows, self.output_size(hidden_size))
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, hidden_size)
        if self.peephole:  # of i, f, o; with `coupled` of f, o
            shapes["weight_ch"] = ((len(self.gates) - 1) * hidden_size,)
        if self.layer_norm:
            shapes |= {"norm_ih": (rows,), "norm_hh": (rows,), "norm_c": (hidden_size,)}
        if self.layer_norm and self.bias:
            shapes["norm_bias_c"] = (hidden_size,)
        return shapes | ({"decay_rate": (hidden_size,)} if self.decay else {})


class Masks(NamedTuple):
    """What the regularisers of the recurrence do to one step; each a number or an array."""

    h: Any = 1.0  # factor of h before U, [B, P]: 0 or 1 / (1 - recurrent_dropout)
    keep_c: Any = 0.0  # share of the old c that stays, [B, H]: 0 or 1 in training, zoneout_c in evaluation
    keep_h: Any = 0.0  # share of the old h that stays, [B, P]


NO_MASKS = Masks()


class Step(NamedTuple):
    """h [B, P], c [B, H] and the activated gates i, f, g, o [B, H] that made them."""

    h: Any
    c: Any
    i: Any
    f: Any
    g: Any
    o: Any


def affine(weights: Mapping[str, Any], x: Any, h: Any) -> tuple[Any, Any]:
    """W x and U h, [B, 4H] each; a convolutional LSTM has other maps and the same equations."""
    return x @ weights["weight_ih"].T, h @ weights["weight_hh"].T


def step(
    spec: CellSpec,
    weights: Mapping[str, Any],
    x: Any,
    h: Any,
    c: Any,
    elapsed: Any = None,
    masks: Masks = NO_MASKS,
    maps: Callable[[Mapping[str, Any], Any, Any], tuple[Any, Any]] = affine,
) -> Step:
    """One step of one layer: x [B, I], h [B, P], c [B, H], elapsed [B] (time since the previous row, with `decay`)."""
    xp, w = np if isinstance(x, np.ndarray) else sys.modules["torch"], weights
    if spec.decay:
        rate = xp.logaddexp(w["decay_rate"], xp.zeros_like(w["decay_rate"]))  # softplus: never negative
        c = c * xp.exp(-elapsed[:, None] * rate)

    a, r = maps(w, x, h * masks.h)
    if spec.layer_norm:
        a, r = _normalise(a) * w["norm_ih"], _normalise(r) * w["norm_hh"]
    z = a + r + (w["bias_ih"] + w["bias_hh"] if spec.bias else 0.0)
    size = c.shape[-1]
    z = {gate: z[:, k * size : (k + 1) * size] for k, gate in enumerate(spec.gates)}
    p = dict.fromkeys("ifo", 0.0)
    if spec.peephole:
        p |= {gate: w["weight_ch"][k * size : (k + 1) * size] for k, gate in enumerate(spec.gates.replace("g", ""))}

    f = _sigmoid(xp, z["f"] + p["f"] * c)
    i = 1 - f if spec.coupled else _sigmoid(xp, z["i"] + p["i"] * c)
    g = xp.tanh(z["g"])
    new_c = f * c + i * g
    if spec.cell_clip:
        new_c = xp.clip(new_c, -spec.cell_clip, spec.cell_clip)

    o = _sigmoid(xp, z["o"] + p["o"] * new_c)
    exposed = new_c
    if spec.layer_norm:
        exposed = _normalise(new_c) * w["norm_c"] + (w["norm_bias_c"] if spec.bias else 0.0)
    new_h = o * xp.tanh(exposed)
    if spec.proj_size:
        new_h = new_h @ w["weight_hr"].T
    if masks is not NO_MASKS:  # then h comes from the very c that goes on, as gradients by state want it
        new_c = masks.keep_c * c + (1 - masks.keep_c) * new_c
        new_h = masks.keep_h * h + (1 - masks.keep_h) * new_h
    return Step(new_h, new_c, i, f, g, o)


def _sigmoid(xp: Any, z: Any) -> Any:
    return 0.5 * xp.tanh(0.5 * z) + 0.5


def _normalise(z: Any) -> Any:
    centred = z - z.mean(axis=-1, keepdims=True)
    return centred / ((centred * centred).mean(axis=-1, keepdims=True) + LAYER_NORM_EPS) ** 0.5
