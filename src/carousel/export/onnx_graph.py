"""ONNX graphs written as expressions: a `Value` is a tensor in the graph, its operators add nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from carousel.export import require

__all__ = ["IR_VERSION", "OPSET", "Graph", "State", "Value"]

OPSET = 22
IR_VERSION = 10  # the one that came with opset 22

Shape = Sequence[int | str | None]


class Value:
    """A tensor of the graph; numbers beside it become constants of its own type."""

    def __init__(self, graph: Graph, name: str, dtype: DTypeLike) -> None:
        self.graph, self.name, self.dtype = graph, name, np.dtype(dtype)

    def _binary(self, kind: str, other: Any, dtype: DTypeLike | None = None, swap: bool = False) -> Value:
        other = other if isinstance(other, Value) else self.graph.constant(np.asarray(other, self.dtype))
        left, right = (other, self) if swap else (self, other)
        return self.graph.op(kind, left, right, dtype=dtype or self.dtype)

    def __add__(self, other: Any) -> Value:
        return self._binary("Add", other)

    def __radd__(self, other: Any) -> Value:
        return self._binary("Add", other, swap=True)

    def __sub__(self, other: Any) -> Value:
        return self._binary("Sub", other)

    def __rsub__(self, other: Any) -> Value:
        return self._binary("Sub", other, swap=True)

    def __mul__(self, other: Any) -> Value:
        return self._binary("Mul", other)

    def __rmul__(self, other: Any) -> Value:
        return self._binary("Mul", other, swap=True)

    def __truediv__(self, other: Any) -> Value:
        return self._binary("Div", other)

    def __rtruediv__(self, other: Any) -> Value:
        return self._binary("Div", other, swap=True)

    def __matmul__(self, other: Any) -> Value:
        return self._binary("MatMul", other)

    def __neg__(self) -> Value:
        return self.graph.op("Neg", self)

    def __lt__(self, other: Any) -> Value:
        return self._binary("Less", other, bool)

    def __le__(self, other: Any) -> Value:
        return self._binary("LessOrEqual", other, bool)

    def __gt__(self, other: Any) -> Value:
        return self._binary("Greater", other, bool)

    def __ge__(self, other: Any) -> Value:
        return self._binary("GreaterOrEqual", other, bool)

    def __and__(self, other: Value) -> Value:
        return self._binary("And", other, bool)

    def __or__(self, other: Value) -> Value:
        return self._binary("Or", other, bool)

    def __invert__(self) -> Value:
        return self.graph.op("Not", self)

    def cast(self, dtype: DTypeLike) -> Value:
        if np.dtype(dtype) == self.dtype:
            return self
        return self.graph.op("Cast", self, dtype=dtype, to=self.graph.type_of(dtype))

    def take(self, start: int, stop: int | None, axis: int, step: int = 1) -> Value:
        """The slice start:stop:step along one axis."""
        end = (np.iinfo(np.int64).max if step > 0 else np.iinfo(np.int64).min) if stop is None else stop
        parts = [self.graph.constant(np.array([n], np.int64)) for n in (start, end, axis, step)]
        return self.graph.op("Slice", self, *parts)

    def reshape(self, *shape: int) -> Value:
        """0 keeps the size of that axis, -1 is what is left."""
        return self.graph.op("Reshape", self, self.graph.constant(np.array(shape, np.int64)))

    def unsqueeze(self, *axes: int) -> Value:
        return self.graph.op("Unsqueeze", self, self.graph.constant(np.array(axes, np.int64)))

    def squeeze(self, *axes: int) -> Value:
        return self.graph.op("Squeeze", self, self.graph.constant(np.array(axes, np.int64)))

    def transpose(self, *order: int) -> Value:
        return self.graph.op("Transpose", self, perm=order)

    def reduce(self, kind: str, axis: int, keep: bool = False) -> Value:
        """kind: Sum, Mean, Max, Min."""
        return self.graph.op("Reduce" + kind, self, self.graph.constant(np.array([axis], np.int64)), keepdims=int(keep))

    def size(self, axis: int) -> Value:
        """[1], int64."""
        return self.graph.op("Shape", self, dtype=np.int64, start=axis, end=axis + 1)

    def split(self, sizes: Sequence[int], axis: int) -> list[Value]:
        if len(sizes) == 1:
            return [self]
        return self.graph.ops(
            "Split", self, self.graph.constant(np.array(sizes, np.int64)), outputs=len(sizes), axis=axis
        )


class State(NamedTuple):
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]
    begin: float


class Graph:
    """Nodes in the order of their making; the constants of a body of Scan stand in its outermost graph.

    `scan`: LSTM cells are written out in a Scan even where the LSTM operator would do.
    """

    def __init__(self, name: str, parent: Graph | None = None, scan: bool = False) -> None:
        self.onnx = require("onnx", "ONNX export")
        self.helper = self.onnx.helper
        self.name, self.scan_cells = name, scan
        self.root: Graph = self if parent is None else parent.root
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.states: dict[str, State] = {}
        self._initializers: dict[str, Any] = {}
        self._constants: dict[tuple[Any, ...], Value] = {}
        self._count = 0

    def type_of(self, dtype: DTypeLike) -> int:
        kind: int = self.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return kind

    def input(self, name: str, dtype: DTypeLike, shape: Shape | None, about: str = "") -> Value:
        """A shape's text is a dynamic size; `about` stands in the file for whoever reads it."""
        self.inputs.append(self.helper.make_tensor_value_info(name, self.type_of(dtype), shape, about))
        return Value(self, name, dtype)

    def state(self, name: str, dtype: DTypeLike, shape: Shape, begin: float, about: str) -> Value:
        """An input that the output `next_NAME` of the run before becomes; `begin` is its number at first."""
        self.states[name] = State(np.dtype(dtype), tuple(shape), begin)
        return self.input(name, dtype, shape, f"{about}; {begin:g} at first")

    def carry(self, name: str, value: Value) -> None:
        self.output(value, f"next_{name}", self.states[name].shape, f"becomes {name}")

    def output(self, value: Value, name: str, shape: Shape | None, about: str = "") -> None:
        self.nodes.append(self.helper.make_node("Identity", [value.name], [name]))
        self.outputs.append(self.helper.make_tensor_value_info(name, self.type_of(value.dtype), shape, about))

    def constant(self, array: NDArray[Any], name: str = "") -> Value:
        """Equal constants are stored once."""
        root, array = self.root, np.asarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in root._constants:
            name = name if name and name not in root._initializers else root.fresh("constant")
            root._initializers[name] = self.onnx.numpy_helper.from_array(
                np.ascontiguousarray(array).reshape(array.shape), name
            )
            root._constants[key] = Value(root, name, array.dtype)
        return Value(self, root._constants[key].name, array.dtype)

    def fresh(self, kind: str) -> str:
        self.root._count += 1
        return f"{kind.lower()}_{self.root._count}"

    def ops(
        self, kind: str, *inputs: Value | None, outputs: int, dtype: DTypeLike | None = None, **attributes: Any
    ) -> list[Value]:
        """A node of several outputs, all of one type: `dtype`, without it that of the first input."""
        names = [self.fresh(kind) for _ in range(outputs)]
        given = [value.name if value is not None else "" for value in inputs]
        while given and not given[-1]:
            given.pop()
        self.nodes.append(self.helper.make_node(kind, given, names, **attributes))
        if dtype is None:
            dtype = next(value.dtype for value in inputs if value is not None)
        return [Value(self, name, dtype) for name in names]

    def op(self, kind: str, *inputs: Value | None, dtype: DTypeLike | None = None, **attributes: Any) -> Value:
        return self.ops(kind, *inputs, outputs=1, dtype=dtype, **attributes)[0]

    def scan(
        self,
        states: Mapping[str, Value],
        sequences: Mapping[str, Value],
        step: Callable[[Graph, dict[str, Value]], tuple[Sequence[Value], Sequence[Value]]],
        *,
        rank: int = 2,
        backwards: bool = False,
    ) -> tuple[list[Value], list[Value]]:
        """A Scan over the first axis of `sequences`: `step` gives the next states and the outputs of one step, in a
        graph that also sees the values of this one; both have `rank` axes, as runtimes want to know within a Loop.
        Returns the last states and the outputs, one behind the other."""
        body = Graph(self.fresh("step"), self)
        given = {
            name: body.input(f"{body.name}_{name}", value.dtype, None)
            for name, value in (*states.items(), *sequences.items())
        }
        made = [list(part) for part in step(body, given)]
        for k, value in enumerate(made[0] + made[1]):
            body.output(value, f"{body.name}_out_{k}", [None] * rank)
        names = [self.fresh("scan") for _ in made[0] + made[1]]
        directions = {"scan_input_directions": [int(backwards)] * len(sequences)}
        directions["scan_output_directions"] = [int(backwards)] * len(made[1])
        self.nodes.append(
            self.helper.make_node(
                "Scan",
                [value.name for value in (*states.values(), *sequences.values())],
                names,
                body=body.proto(),
                num_scan_inputs=len(sequences),
                **directions,
            )
        )
        found = [Value(self, name, value.dtype) for name, value in zip(names, made[0] + made[1], strict=True)]
        return found[: len(made[0])], found[len(made[0]) :]

    def loop(
        self,
        states: Mapping[str, Value],
        step: Callable[[Graph, Value, dict[str, Value]], tuple[Value, Sequence[Value], Sequence[Value]]],
    ) -> tuple[list[Value], list[Value]]:
        """A Loop: `step` is given its number and the states, and says whether another follows, the next states and the
        outputs. Returns the last states and the outputs, one behind the other."""
        body = Graph(self.fresh("step"), self)
        at = body.input(f"{body.name}_number", np.int64, [])
        body.input(f"{body.name}_going_on", bool, [])
        given = {name: body.input(f"{body.name}_{name}", value.dtype, None) for name, value in states.items()}
        going_on, following, outputs = step(body, at, given)
        made = [*following, *outputs]
        body.output(going_on, f"{body.name}_out_going_on", [])
        for k, value in enumerate(made):
            body.output(value, f"{body.name}_out_{k}", None)
        names = [self.fresh("loop") for _ in made]
        start = ["", self.constant(np.array(True)).name, *(value.name for value in states.values())]
        self.nodes.append(self.helper.make_node("Loop", start, names, body=body.proto()))
        found = [Value(self, name, value.dtype) for name, value in zip(names, made, strict=True)]
        return found[: len(states)], found[len(states) :]

    def choose(self, condition: Value, yes: Callable[[Graph], Value], no: Callable[[Graph], Value]) -> Value:
        """An If: only one of the two is computed, in a graph that also sees the values of this one."""
        bodies, dtype = {}, condition.dtype
        for branch, make in (("then_branch", yes), ("else_branch", no)):
            body = Graph(self.fresh(branch), self)
            value = make(body)
            dtype = value.dtype
            body.output(value, f"{body.name}_out", None)
            bodies[branch] = body.proto()
        return self.op("If", condition, dtype=dtype, **bodies)

    def within(self, value: Value) -> Value:
        """A value of a graph outside, for expressions in this one."""
        return Value(self, value.name, value.dtype)

    def where(self, condition: Value, yes: Any, no: Any) -> Value:
        some = yes if isinstance(yes, Value) else no
        yes, no = (v if isinstance(v, Value) else self.constant(np.asarray(v, some.dtype)) for v in (yes, no))
        return self.op("Where", condition, yes, no, dtype=some.dtype)

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        return values[0] if len(values) == 1 else self.op("Concat", *values, axis=axis)

    def clip(self, value: Value, low: float | None, high: float | None) -> Value:
        bounds = [None if b is None else self.constant(np.asarray(b, value.dtype)) for b in (low, high)]
        return self.op("Clip", value, *bounds)

    def proto(self) -> Any:
        """The graph without what its outputs do not depend on."""
        wanted = {output.name for output in self.outputs}
        nodes = []
        for node in reversed(self.nodes):
            if wanted.isdisjoint(node.output):
                continue
            nodes.append(node)
            wanted.update(node.input)
            for attribute in node.attribute:  # what the body of a Scan or an If takes from outside
                wanted.update(_used(attribute.g))
        initializers = [array for name, array in self._initializers.items() if name in wanted]
        return self.helper.make_graph(nodes[::-1], self.name, self.inputs, self.outputs, initializers)

    def model(self, metadata: Mapping[str, str], about: str = "") -> bytes:
        """The whole model, checked by ONNX's own checker."""
        made = self.helper.make_model(
            self.proto(),
            producer_name="carousel",
            doc_string=about,
            opset_imports=[self.helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        self.helper.set_model_props(made, dict(metadata))
        self.onnx.checker.check_model(made)
        data: bytes = made.SerializeToString(deterministic=True)
        return data


def _used(graph: Any) -> set[str]:
    """Names that the nodes of a graph and of those inside it read."""
    found = {name for node in graph.node for name in node.input}
    found |= {output.name for output in graph.output}
    return found.union(*(_used(attribute.g) for node in graph.node for attribute in node.attribute))
