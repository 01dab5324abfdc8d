"""LSTM nodes of ONNX graphs as our layers: one node, or a stack of them that hand on nothing but their outputs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from carousel.cell import CellSpec
from carousel.errors import CarouselError, MissingExtra, NotSupported
from carousel.export import require
from carousel.export.layers import Array, Layers, reorder
from carousel.export.onnx_cells import OPERATOR_GATES

__all__ = ["Node", "attributes_of", "layer_of", "read"]

DEFAULT_ACTIVATIONS = ("Sigmoid", "Tanh", "Tanh")
KNOWN = (
    "activation_alpha",
    "activation_beta",
    "activations",
    "clip",
    "direction",
    "hidden_size",
    "input_forget",
    "layout",
)


class Node(NamedTuple):
    """One LSTM node: its weights as one of our layers, and how it goes over the rows."""

    layers: Layers
    direction: str  # forward, reverse or bidirectional
    layout: int  # 0: [T, B, I], 1: [B, T, I]


def attributes_of(node: Any) -> dict[str, Any]:
    helper = require("onnx", "Reading ONNX").helper
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def layer_of(attributes: Mapping[str, Any], w: Array, r: Array, b: Array | None, p: Array | None) -> Node:
    """W [D, 4H, I], R [D, 4H, H], B [D, 8H] and P [D, 3H] of the LSTM operator as a layer.

    With `input_forget` the operator's forget gate is 1 - i, which ONNX Runtime computes and the specification leaves
    open; here it is the other way round, i = 1 - f, so the signs of the input gate's weights change. Raises
    NotSupported, with the reason, for other activations than the default ones and for `clip`.
    """
    direction = _text(attributes.get("direction", "forward"))
    directions = 2 if direction == "bidirectional" else 1
    size = r.shape[-1]
    _check(attributes, direction, directions, size)
    for name, array, shape in (
        ("W", w, (directions, 4 * size, w.shape[-1])),
        ("R", r, (directions, 4 * size, size)),
        ("B", b, (directions, 8 * size)),
        ("P", p, (directions, 3 * size)),
    ):
        if array is not None and array.shape != shape:
            raise CarouselError(f"the LSTM's {name} has shape {list(array.shape)}; expected {list(shape)}.")
    coupled = bool(attributes.get("input_forget", 0))
    spec = CellSpec(bias=b is not None, peephole=p is not None, coupled=coupled)

    def rows(array: Array) -> Array:
        if not coupled:
            return reorder(array, OPERATOR_GATES, "ifgo")
        return reorder(np.concatenate([-array[:size], array[size:]]), "fo_g", "fgo")

    weights: dict[str, Array] = {}
    for d, suffix in enumerate(("", "_reverse")[:directions]):
        weights |= {f"weight_ih_l0{suffix}": rows(w[d]), f"weight_hh_l0{suffix}": rows(r[d])}
        if b is not None:
            weights |= {f"bias_ih_l0{suffix}": rows(b[d, : 4 * size]), f"bias_hh_l0{suffix}": rows(b[d, 4 * size :])}
        if p is not None:
            i, o, f = np.split(p[d], 3)
            weights[f"weight_ch_l0{suffix}"] = np.concatenate([-i, o] if coupled else [i, f, o])
    layout = int(attributes.get("layout", 0))
    layers = Layers(spec, w.shape[-1], size, 1, directions == 2, layout == 1, weights=weights)
    return Node(layers, direction, layout)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _check(attributes: Mapping[str, Any], direction: str, directions: int, size: int) -> None:
    for name in attributes:
        if name not in KNOWN:
            raise NotSupported(f"the LSTM node has an attribute {name!r}, which ONNX's LSTM does not know.")
    if direction not in ("forward", "reverse", "bidirectional"):
        raise CarouselError(f"the LSTM node has direction {direction!r}; expected forward, reverse or bidirectional.")
    if attributes.get("hidden_size", size) != size:
        raise CarouselError(f"the LSTM node has hidden_size {attributes['hidden_size']}, but its R is of {size}.")
    if attributes.get("layout", 0) not in (0, 1):
        raise CarouselError(f"the LSTM node has layout {attributes['layout']}; expected 0 or 1.")
    given = [_text(one) for one in attributes.get("activations", DEFAULT_ACTIVATIONS * directions)]
    if len(given) != 3 * directions:
        raise CarouselError(f"the LSTM node has {len(given)} activations; expected {3 * directions}.")
    for gate, one, wanted in zip(("gate", "candidate", "output") * 2, given, DEFAULT_ACTIVATIONS * 2, strict=False):
        if one.lower() != wanted.lower():
            raise NotSupported(f"the LSTM node has {one} as {gate} activation; only {wanted} is supported there.")
    if attributes.get("clip"):
        raise NotSupported(
            f"the LSTM node has clip={attributes['clip']:g}, which bounds what goes into the gates; cell_clip bounds"
            " the cell state instead, and nothing else is bounded here."
        )


def read(model: Any, node: str | None = None) -> Layers:
    """The LSTM nodes of an ONNX model (a path, its bytes or a ModelProto) as one stack.

    `node`: the name of one node, or of one of its outputs, to read that alone. Raises NotSupported where the nodes are
    no stack of equal layers, where a state begins with other numbers than 0 that stand in the graph, and where a node
    goes backwards only.
    """
    onnx = require("onnx", "Reading ONNX")
    graph = _Graph(onnx, _load(onnx, model))
    model = graph.model
    nodes = [one for one in model.graph.node if one.op_type == "LSTM" and one.domain in ("", "ai.onnx")]
    if node is not None:
        chosen = [one for one in nodes if node == one.name or node in one.output]
        if not chosen:
            raise CarouselError(f"there is no LSTM node {node!r}; there are {', '.join(map(_name, nodes)) or 'none'}.")
        nodes = chosen
    if not nodes:
        raise NotSupported("there is no LSTM node in the graph; what we export as a Scan is read from its model file.")
    found = []
    for k, one in enumerate(nodes):
        found.append(_layer(graph, one))
        if k:
            graph.require_handed_on(nodes[k - 1], one, found[k - 1])
    return _stack(found, [_name(one) for one in nodes])


def _load(onnx: Any, model: Any) -> Any:
    if isinstance(model, onnx.ModelProto):
        return model
    if not isinstance(model, bytes | str | os.PathLike):
        raise CarouselError(f"from_onnx takes a path, bytes or an onnx.ModelProto, got {type(model).__name__}.")
    name = "the ONNX model" if isinstance(model, bytes) else os.fspath(model)
    try:
        made = onnx.load_model_from_string(model) if isinstance(model, bytes) else onnx.load(name)
    except OSError as error:
        raise CarouselError(f"{name}: it cannot be read ({error.strerror or error}); check the path.") from None
    except Exception as error:  # of protobuf, whose parser has exceptions of its own
        raise CarouselError(f"{name}: this is no readable ONNX model ({error}); export it again.") from None
    if not made.graph.node:
        raise CarouselError(f"{name}: this is no readable ONNX model (its graph is empty); export it again.")
    return made


def _name(node: Any) -> str:
    return str(node.name or next(name for name in node.output if name))


def _layer(graph: _Graph, node: Any) -> Layers:
    inputs = [*node.input, *[""] * (8 - len(node.input))]
    w, r, b, p = (graph.constant(inputs[k], node) if inputs[k] else None for k in (1, 2, 3, 7))
    if w is None or r is None:
        raise CarouselError(f"the LSTM node {_name(node)!r} lacks its W or R.")
    made = layer_of(attributes_of(node), w, r, b, p)
    if made.direction == "reverse":
        raise NotSupported(
            f"the LSTM node {_name(node)!r} goes backwards only; there is no such layer here: a bidirectional one, or"
            " reversed sequences, have it."
        )
    if inputs[4] and graph.fixed(inputs[4]) is not None:
        raise NotSupported(f"the LSTM node {_name(node)!r} has fixed sequence_lens; give ragged sequences instead.")
    for name in inputs[5:7]:
        value = graph.fixed(name) if name else None
        if value is not None and value.any():
            raise NotSupported(
                f"the LSTM node {_name(node)!r} begins with states that stand in the graph; give them as hx instead."
            )
    return made.layers


def _stack(found: list[Layers], names: list[str]) -> Layers:
    first = found[0]
    for layer, name in zip(found, names, strict=True):
        same = ("hidden_size", "bidirectional", "batch_first")
        odd = [k for k in same if getattr(layer, k) != getattr(first, k)]
        odd += ["input_forget"] if layer.spec.coupled != first.spec.coupled else []
        if odd:
            raise NotSupported(f"the LSTM nodes {names[0]!r} and {name!r} differ in {odd[0]}; read them one by one.")
    # a bias or a peephole that a layer lacks is one of zeros
    spec = replace(first.spec, bias=any(x.spec.bias for x in found), peephole=any(x.spec.peephole for x in found))
    weights: dict[str, Array] = {}
    for number, layer in enumerate(found):
        for suffix, own in zip(("", "_reverse"), layer.layer(0), strict=False):
            for name, shape in spec.shapes(layer.input_size, layer.hidden_size).items():
                empty = np.zeros(shape, own["weight_ih"].dtype)
                weights[f"{name}_l{number}{suffix}"] = own.get(name, empty)
    return Layers(
        spec, first.input_size, first.hidden_size, len(found), first.bidirectional, first.batch_first, weights=weights
    )


class _Graph:
    """Values of a graph: worked out by ONNX's reference evaluator, LSTM nodes apart."""

    PROBE = 2  # size of every dynamic axis when a value is worked out

    def __init__(self, onnx: Any, model: Any) -> None:
        self.onnx, self.model, graph = onnx, model, model.graph
        self.maker = {name: node for node in graph.node for name in node.output}
        self.initializers = {one.name: one for one in graph.initializer}
        self.inputs = {one.name: one for one in graph.input if one.name not in self.initializers}

    @cached_property
    def sizes(self) -> tuple[int, int]:
        """The first two axes of what the first LSTM node reads, which may be fixed in the graph."""
        first = next(node for node in self.model.graph.node if node.op_type == "LSTM").input[0]
        leaves = self._leaves(first)
        if not leaves <= set(self.inputs):
            return self.PROBE, self.PROBE
        found = self._value(first, self._draw(leaves, 1)).shape
        return found[0], found[1]

    def constant(self, name: str, node: Any) -> Array:
        if self._leaves(name):
            raise NotSupported(
                f"the LSTM node {_name(node)!r} has weights {name!r} that follow from the graph's inputs; only constant"
                " ones can be read."
            )
        return self._value(name, {})

    def fixed(self, name: str) -> Array | None:
        """A value that is the same whatever the inputs hold, for inputs of the probe's size; None for others."""
        leaves = self._leaves(name)
        if any(leaf not in self.inputs for leaf in leaves):
            return None
        draws = [self._value(name, self._draw(leaves, seed)) for seed in (1, 2)]
        return draws[0] if np.array_equal(draws[0], draws[1]) else None

    def require_handed_on(self, before: Any, after: Any, layers: Layers) -> None:
        """NotSupported unless `after` reads the outputs of `before` as they are, the directions side by side."""
        leaves = self._leaves(after.input[0])
        y = before.output[0] if before.output else ""
        problem = f"the LSTM nodes {_name(before)!r} and {_name(after)!r} are no stack"
        if y not in leaves or leaves - {y} - set(self.inputs):
            raise NotSupported(f"{problem}: the second does not read the first one's Y; name the one to read.")
        d, h, (outer, inner) = layers.directions, layers.hidden_size, self.sizes
        shape = (outer, inner, d, h) if layers.batch_first else (outer, d, inner, h)
        probe = np.random.default_rng(3).normal(0, 2, shape).astype(layers.weights["weight_ih_l0"].dtype)
        x = self._value(after.input[0], self._draw(leaves & set(self.inputs), 1) | {y: probe})
        wanted = probe if layers.batch_first else probe.transpose(0, 2, 1, 3)
        if not np.array_equal(x, wanted.reshape(outer, inner, d * h)):
            raise NotSupported(f"{problem}: something stands between them that changes values; name the one to read.")

    def _leaves(self, name: str) -> set[str]:
        """The graph's inputs and the outputs of LSTM nodes that a value follows from."""
        found, waiting, seen = set(), [name], set()
        while waiting:
            one = waiting.pop()
            if not one or one in seen or one in self.initializers:
                continue
            seen.add(one)
            maker = self.maker.get(one)
            if maker is None or maker.op_type == "LSTM":
                found.add(one)
            else:
                waiting += maker.input
        return found

    def _draw(self, names: set[str], seed: int) -> dict[str, Array]:
        rng = np.random.default_rng(seed)
        found = {}
        for name in sorted(names):
            kind = self.inputs[name].type.tensor_type
            shape = [axis.dim_value or self.PROBE for axis in kind.shape.dim]
            dtype = self.onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
            found[name] = np.asarray(
                rng.normal(size=shape) if np.dtype(dtype).kind == "f" else np.full(shape, seed), dtype
            )
        return found

    def _value(self, name: str, given: Mapping[str, Array]) -> Array:
        if name in given:
            return given[name]
        if name in self.initializers:
            made: Array = self.onnx.numpy_helper.to_array(self.initializers[name])
            return made
        needed, waiting = set(), [name]
        while waiting:
            one = waiting.pop()
            if one in self.maker and one not in given and one not in needed:
                needed.add(one)
                waiting += self.maker[one].input
        nodes = [node for node in self.model.graph.node if needed & set(node.output)]
        helper, used = self.onnx.helper, {one for node in nodes for one in node.input}
        inputs = [
            helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for k, v in given.items()
        ]
        output = helper.make_value_info(name, self.onnx.TypeProto())
        constants = [one for key, one in self.initializers.items() if key in used]
        part = helper.make_graph(nodes, "part", inputs, [output], constants)
        model = helper.make_model(part, opset_imports=self.model.opset_import)
        try:
            evaluator = require("onnx.reference", "Reading ONNX").ReferenceEvaluator(model)
            return np.asarray(evaluator.run([name], dict(given))[0])
        except MissingExtra:
            raise
        except Exception as error:  # operators raise what they like
            reason = " ".join(str(error).split())
            raise NotSupported(f"the value {name!r} of the graph cannot be worked out ({reason}).") from error
