"""LSTMs from and to Keras: kernels [I, 4H] and [H, 4H] and one bias [4H], gates in the order i, f, c, o."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from carousel import atomic
from carousel.cell import CellSpec
from carousel.errors import CarouselError, NotSupported
from carousel.export.layers import Array, Layers, four_gates, refuse, reorder, stack_of

__all__ = ["read", "to_weights", "write"]

GATES = "ifgo"  # Keras calls the candidate c
# what a layer must be for its weights to mean what ours do: attribute, value, why not otherwise
_NEEDED = (
    ("activation", "tanh", "the candidate and the output are activated by tanh here"),
    ("recurrent_activation", "sigmoid", "gates are sigmoids here"),
    ("go_backwards", False, "a single reversed direction has no equal; reverse each sequence instead"),
    ("dropout", 0.0, "dropout of a layer's input has no equal; set it to 0, or give layer.get_weights()"),
)


def read(layers: Any) -> Layers:
    """A Keras LSTM layer, LSTMCell or Bidirectional LSTM, what its `get_weights()` gives, or a list of any of them.

    The arrays are [kernel, recurrent_kernel, bias], the bias left out with use_bias=False, twice with Bidirectional.
    """
    if _is_weights(layers) or not isinstance(layers, Sequence):
        layers = [layers]
    if not layers:
        raise CarouselError("from_keras got no layers; give at least one.")
    found = [_weights(one, number) for number, one in enumerate(layers)]
    directions, size = len(found[0]), found[0][0][1].shape[0]
    bias = any(len(way) == 3 for layer in found for way in layer)
    weights: dict[str, Array] = {}
    for number, layer in enumerate(found):
        if len(layer) != directions or layer[0][1].shape[0] != size:
            raise NotSupported(
                f"layer {number} differs from layer 0 in its units or directions; import them one by one."
            )
        for suffix, way in zip(("", "_reverse"), layer, strict=False):
            weights |= {f"{name}_l{number}{suffix}": value for name, value in _ours(way, bias).items()}
    rate = _recurrent_dropout(layers)
    spec = CellSpec(bias=bias, recurrent_dropout=rate)
    width = found[0][0][0].shape[0]
    return Layers(spec, width, size, len(found), directions == 2, batch_first=True, weights=weights)


def _is_weights(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) > 0 and all(hasattr(array, "ndim") for array in value)


def _weights(layer: Any, number: int) -> list[list[Array]]:
    """Of each direction [kernel, recurrent_kernel, bias]."""
    if not _is_weights(layer):
        if not hasattr(layer, "get_weights"):
            raise CarouselError(
                f"from_keras takes layers or their get_weights(), got {type(layer).__name__}; give layer.get_weights()."
            )
        merge = getattr(layer, "merge_mode", "concat")
        if merge != "concat":
            raise NotSupported(f"layer {number} merges its directions by {merge!r}; only 'concat' has an equal.")
        inner = [getattr(layer, name) for name in ("forward_layer", "backward_layer") if hasattr(layer, name)]
        for k, one in enumerate(inner or [layer]):
            _check(one, number, backward=k == 1)
        layer = layer.get_weights()
    arrays = [np.asarray(array) for array in layer]
    count = {2: 1, 3: 1, 4: 2, 6: 2}.get(len(arrays))
    if count is None:
        raise CarouselError(
            f"layer {number} has {len(arrays)} weights; an LSTM has 2 or 3, a bidirectional one 4 or 6."
        )
    ways = [arrays[k * len(arrays) // count : (k + 1) * len(arrays) // count] for k in range(count)]
    for kernel, recurrent, *bias in ways:
        units = recurrent.shape[0] if recurrent.ndim == 2 else 0
        if kernel.ndim != 2 or recurrent.shape != (units, 4 * units) or kernel.shape[1] != 4 * units:
            raise CarouselError(
                f"layer {number} has kernels {list(kernel.shape)} and {list(recurrent.shape)}; an LSTM has [I, 4H] and"
                " [H, 4H]."
            )
        if bias and bias[0].shape != (4 * units,):
            raise CarouselError(f"layer {number} has a bias {list(bias[0].shape)}; expected [{4 * units}].")
    return ways


def _check(layer: Any, number: int, backward: bool) -> None:
    for name, value, why in _NEEDED:
        if backward and name == "go_backwards":
            continue
        given = getattr(layer, name, value)
        given = getattr(given, "__name__", given)
        if given != value:
            raise NotSupported(f"layer {number} has {name}={given!r}: {why}.")


def _recurrent_dropout(layers: Sequence[Any]) -> float:
    rates = {float(getattr(getattr(one, "forward_layer", one), "recurrent_dropout", 0.0)) for one in layers}
    if len(rates) > 1:
        raise NotSupported(f"the layers differ in recurrent_dropout ({sorted(rates)}); import them one by one.")
    return rates.pop()


def _ours(way: list[Array], bias: bool) -> dict[str, Array]:
    kernel, recurrent, *own = way
    found = {"weight_ih": reorder(kernel.T, GATES, "ifgo"), "weight_hh": reorder(recurrent.T, GATES, "ifgo")}
    if bias:
        given = own[0] if own else np.zeros(kernel.shape[1], kernel.dtype)
        found |= {"bias_ih": reorder(given, GATES, "ifgo"), "bias_hh": np.zeros_like(given)}
    return {name: np.ascontiguousarray(value) for name, value in found.items()}


def to_weights(layers: Layers) -> list[list[Array]]:
    """What `set_weights` of each Keras layer takes; the arrays of both directions with a bidirectional one."""
    refuse(layers.spec, "Keras' LSTM")
    found = []
    for number in range(layers.num_layers):
        arrays = []
        for w in four_gates(layers, number):
            arrays += [np.ascontiguousarray(reorder(w[name], "ifgo", GATES).T) for name in ("weight_ih", "weight_hh")]
            arrays += [reorder(w["bias"], "ifgo", GATES)] if layers.spec.bias else []
        found.append(arrays)
    return found


def write(model: Path, out: Path, member: int | None = None) -> dict[str, Any]:
    """The model's stack in an .npz file: `layer_0/forward/kernel`, `.../recurrent_kernel`, `.../bias` and so on."""
    layers = stack_of(model, member)
    ways = ("forward", "backward")[: layers.directions]
    kinds = ("kernel", "recurrent_kernel", "bias")[: 3 if layers.spec.bias else 2]
    names = [[f"layer_{n}/{way}/{kind}" for way in ways for kind in kinds] for n in range(layers.num_layers)]
    found = {
        k: v for own, arrays in zip(names, to_weights(layers), strict=True) for k, v in zip(own, arrays, strict=True)
    }
    data = io.BytesIO()
    np.savez(data, **found)  # type: ignore[arg-type]
    atomic.write_bytes(out, data.getvalue())
    from carousel.export.torch import WITHOUT

    notes = [f"layer.set_weights of {layers.num_layers} keras.layers.LSTM({layers.hidden_size}): {', '.join(found)}"]
    return {"out": [str(out)], "weights": {k: list(v.shape) for k, v in found.items()}, "notes": [*notes, WITHOUT]}
