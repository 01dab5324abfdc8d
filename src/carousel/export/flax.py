"""LSTMs from and to flax (`flax.linen` and `flax.nnx`) and haiku.

Flax names the dense maps of the gates: ii, if, ig, io of the input without bias, hi, hf, hg, ho of the state with it.
Haiku has one linear map of [x, h] with gates in the order i, g, f, o, and adds 1 to the forget gate at run time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from carousel import atomic
from carousel.cell import CellSpec
from carousel.errors import CarouselError, NotSupported
from carousel.export.layers import Array, Layers, four_gates, refuse, reorder, stack_of
from carousel.export.torch import WITHOUT

__all__ = ["read", "to_params", "write"]

HAIKU_GATES = "igfo"
HAIKU_FORGET = 1.0


def read(params: Any) -> Layers:
    """The parameters of one cell, of a Bidirectional, or a list of them, one for each layer.

    Accepted are `{"params": {...}}`, what an `RNN` or `Bidirectional` wraps around its cells, `if_` for `if` as in
    flax.nnx, and haiku's `{"w": [I + H, 4H], "b": [4H]}`.
    """
    layers = list(params) if isinstance(params, Sequence) else [params]
    if not layers:
        raise CarouselError("from_flax got no layers; give the parameters of at least one cell.")
    found = [[_cell(way, number) for way in _ways(one)] for number, one in enumerate(layers)]
    directions, size = len(found[0]), found[0][0]["weight_hh"].shape[1]
    weights: dict[str, Array] = {}
    for number, layer in enumerate(found):
        if len(layer) != directions or layer[0]["weight_hh"].shape[1] != size:
            raise NotSupported(
                f"layer {number} differs from layer 0 in its size or directions; import them one by one."
            )
        for suffix, way in zip(("", "_reverse"), layer, strict=False):
            weights |= {f"{name}_l{number}{suffix}": value for name, value in way.items()}
    width = found[0][0]["weight_ih"].shape[1]
    return Layers(CellSpec(), width, size, len(found), directions == 2, batch_first=True, weights=weights)


def _ways(params: Any) -> list[Any]:
    """The cells of one layer: what wraps them is taken off."""
    if not isinstance(params, Mapping):
        raise CarouselError(f"from_flax takes mappings of parameters, got {type(params).__name__}; give the params.")
    if set(params) >= {"forward_rnn", "backward_rnn"}:
        return [*_ways(params["forward_rnn"]), *_ways(params["backward_rnn"])]
    if len(params) == 1 and isinstance(inner := next(iter(params.values())), Mapping):
        return _ways(inner)
    return [params]


def _cell(params: Mapping[str, Any], number: int) -> dict[str, Array]:
    if set(params) == {"w", "b"}:
        return _haiku(np.asarray(params["w"]), np.asarray(params["b"]), number)
    params = {name.rstrip("_"): value for name, value in params.items()}
    names = {f"{side}{gate}" for side in "ih" for gate in "ifgo"}
    if set(params) != names:
        odd = sorted(names.symmetric_difference(params))[0]
        raise CarouselError(
            f"layer {number} is no LSTM cell of flax: {odd!r} is {'missing' if odd in names else 'unknown'}; expected"
            " ii, if, ig, io, hi, hf, hg and ho, or haiku's w and b."
        )
    kernel = {name: np.asarray(params[name]["kernel"]) for name in names}
    size = kernel["hi"].shape[0]
    for name, value in kernel.items():
        wanted = (kernel["ii"].shape[0] if name[0] == "i" else size, size)
        if value.shape != wanted:
            raise CarouselError(
                f"layer {number}: the kernel of {name!r} is {list(value.shape)}; expected {list(wanted)}."
            )
    bias = [_bias(params[f"i{gate}"], size) + _bias(params[f"h{gate}"], size) for gate in "ifgo"]
    found = {f"weight_{side}h": np.concatenate([kernel[side + gate].T for gate in "ifgo"]) for side in "ih"}
    joined = np.concatenate(bias).astype(kernel["hi"].dtype)
    return found | {"bias_ih": joined, "bias_hh": np.zeros_like(joined)}


def _bias(dense: Mapping[str, Any], size: int) -> Array:
    return np.asarray(dense["bias"]) if dense.get("bias") is not None else np.zeros(size, np.float32)


def _haiku(w: Array, b: Array, number: int) -> dict[str, Array]:
    size = b.shape[0] // 4
    if w.ndim != 2 or w.shape[1] != 4 * size or w.shape[0] <= size or b.shape != (4 * size,):
        raise CarouselError(f"layer {number}: haiku's LSTM has w [I + H, 4H] and b [4H], got {w.shape} and {b.shape}.")
    rows, bias = reorder(w.T, HAIKU_GATES, "ifgo"), reorder(b, HAIKU_GATES, "ifgo")
    bias[size : 2 * size] += HAIKU_FORGET
    width = w.shape[0] - size
    made = {"weight_ih": rows[:, :width], "weight_hh": rows[:, width:], "bias_ih": bias, "bias_hh": np.zeros_like(bias)}
    return {name: np.ascontiguousarray(value) for name, value in made.items()}


def to_params(layers: Layers, style: str = "flax") -> list[Any]:
    """The parameters of each layer: of its cell, or of {"forward_rnn": {"cell": ...}, "backward_rnn": ...}.

    style: "flax", or "haiku" for w and b of its linear map (of one direction).
    """
    if style not in ("flax", "haiku"):
        raise CarouselError(f"style must be flax or haiku, got {style!r}.")
    refuse(layers.spec, f"{style}'s LSTM cell")
    if style == "haiku" and layers.bidirectional:
        raise NotSupported("haiku has no bidirectional LSTM: export each direction on its own.")
    found: list[Any] = []
    for number in range(layers.num_layers):
        cells = [_to_haiku(w) if style == "haiku" else _to_flax(w) for w in four_gates(layers, number)]
        both = {name: {"cell": cell} for name, cell in zip(("forward_rnn", "backward_rnn"), cells, strict=False)}
        found.append(both if layers.bidirectional else cells[0])
    return found


def _to_flax(w: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    found: dict[str, dict[str, Array]] = {}
    for side in "ih":
        for gate, part in zip("ifgo", np.split(w[f"weight_{side}h"], 4), strict=True):
            found[side + gate] = {"kernel": np.ascontiguousarray(part.T)}
    for gate, part in zip("ifgo", np.split(w["bias"], 4), strict=True):
        found["h" + gate]["bias"] = part.copy()
    return found


def _to_haiku(w: Mapping[str, Array]) -> dict[str, Array]:
    both = reorder(np.concatenate([w["weight_ih"], w["weight_hh"]], 1), "ifgo", HAIKU_GATES)
    bias = w["bias"].copy()
    size = len(bias) // 4
    bias[size : 2 * size] -= HAIKU_FORGET
    return {"w": np.ascontiguousarray(both.T), "b": reorder(bias, "ifgo", HAIKU_GATES)}


def write(model: Path, out: Path, member: int | None = None) -> dict[str, Any]:
    """The model's stack as arrays named `layer_0/ii/kernel` and so on in a safetensors file."""
    layers = stack_of(model, member)
    found = {name: value for n, one in enumerate(to_params(layers)) for name, value in _flat(one, f"layer_{n}")}
    atomic.write_bytes(out, save(found))
    notes = ['flax.traverse_util.unflatten_dict(safetensors.numpy.load_file(...), sep="/")["layer_0"]']
    return {"out": [str(out)], "weights": {k: list(v.shape) for k, v in found.items()}, "notes": [*notes, WITHOUT]}


def _flat(params: Mapping[str, Any], prefix: str) -> list[tuple[str, Array]]:
    found: list[tuple[str, Array]] = []
    for name, value in params.items():
        path = f"{prefix}/{name}"
        found += _flat(value, path) if isinstance(value, Mapping) else [(path, value)]
    return found
