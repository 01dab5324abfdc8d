"""Classifiers and taggers as one ONNX graph: raw rows of ragged sequences in, probabilities or numbers out.

A tagger of one direction takes and gives its state, so that a sequence can come in pieces of any length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.config import ModelConfig
from carousel.export.layers import stack_layers
from carousel.export.onnx_cells import Run, stack
from carousel.export.onnx_channels import Given, Seen, carry, channels, inputs
from carousel.export.onnx_graph import Graph, Value
from carousel.export.onnx_rows import at, embed, linear, mean_of, zeros
from carousel.inputs.sequence import SequenceInput

__all__ = ["feeds", "graph", "mean_output", "output", "run_stack"]

Weights = Mapping[str, NDArray[np.float32]]


class _State(NamedTuple):
    h: Value  # [L * D, B, P]
    c: Value  # [L * D, B, H]


def graph(config: ModelConfig, weights: Weights, scan: bool = False) -> Graph:
    """The whole ensemble: its members share the channels, and their outputs are averaged before the read-out."""
    g = Graph(config.task, scan=scan)
    stateful = config.task == "tag" and not config.stack.bidirectional
    given = inputs(g, config.input, decay=config.stack.cell.decay, stateful=stateful)
    seen = channels(g, config.input, given)
    made = mean_output(g, config, weights, given, seen, lambda w, rows: _head(g, config, w, rows, given, seen))
    _read_out(g, config, made)
    if stateful:
        carry(g, seen)
    return g


def mean_output(
    g: Graph,
    config: ModelConfig,
    weights: Weights,
    given: Given,
    seen: Seen,
    head: Callable[[Weights, Value], Value],
) -> Value:
    """What `head` makes of each member's rows [B, T, D * P], averaged in float64; states are taken and given on where
    the graph has a memory."""
    count, sizes = config.stack.num_layers * config.stack.directions, _sizes(config)
    about = f"state of {config.seeds} members of {count} layers, not looked at while last_time is NaN"
    before: list[Value] = []
    if given.memory is not None:
        for name, size in zip("hc", sizes, strict=True):
            before.append(g.state(name, np.float32, [config.seeds * count, "batch", size], 0.0, about))
    found, states = [], []
    for k in range(config.seeds):
        own = {name: weights[f"{k}.{name}"] for name in config.member_shapes()}
        start = [part.take(k * count, (k + 1) * count, 0) for part in before]
        rows, state = run_stack(g, config, own, given, seen, start)
        found.append(head(own, rows).cast(np.float64))
        states.append(state)
    if before:
        for name, part in zip("hc", zip(*states, strict=True), strict=True):
            g.carry(name, g.concat(list(part), 0))
    return mean_of(found)


def _sizes(config: ModelConfig) -> tuple[int, int]:
    return config.stack.cell.output_size(config.stack.hidden_size), config.stack.hidden_size


def run_stack(
    g: Graph, config: ModelConfig, w: Weights, given: Given, seen: Seen, before: list[Value]
) -> tuple[Value, _State]:
    """`model.SequenceModel.rows`: the stack's outputs [B, T, D * P] and its last state."""
    table, cell, count = config.input, config.stack.cell, len(config.input.categories)
    tables = [w[f"input.embed.{k}.weight"] for k in range(len(table.embedded))]
    x = embed(seen.values, given.codes, tables[:count])
    layers = config.stack.num_layers * config.stack.directions
    sizes = _sizes(config)
    start = [zeros(g, [layers, given.lengths.size(0), size]) for size in sizes]
    if table.static_size:
        numbers = zeros(g, [given.lengths.size(0), 0]) if seen.static is None else seen.static
        static = embed(numbers, given.static_codes, tables[count:])
        ones = g.constant(np.array([1], np.int64))
        everywhere = g.op("Expand", static.unsqueeze(1), g.concat([ones, x.size(1), ones], 0))
        x = g.concat([x, everywhere], 2)
        flat = linear(static, w["static.weight"], w["static.bias"])
        parts = flat.split([layers * size for size in sizes], 1)
        start = [p.reshape(0, layers, n).transpose(1, 0, 2) for p, n in zip(parts, sizes, strict=True)]
    if before and given.memory is not None:
        fresh = g.op("IsNaN", given.memory.time, dtype=bool).unsqueeze(0, 2)
        start = [g.where(fresh, new, old) for new, old in zip(start, before, strict=True)]
    elapsed = seen.elapsed.transpose(1, 0) if cell.decay else None
    run = Run(x.transpose(1, 0, 2), start[0], start[1], given.lengths.cast(np.int32), elapsed)
    made = stack(g, stack_layers(config, w), run)
    return made.x.transpose(1, 0, 2), _State(made.h, made.c)


def _head(g: Graph, config: ModelConfig, w: Weights, rows: Value, given: Given, seen: Seen) -> Value:
    """Outputs [B, T, K] of rows, or [B, K] of sequences."""
    x = _pool(g, config, w, rows, given, seen) if config.task == "classify" else rows
    return output(config, w, x)


def output(config: ModelConfig, w: Weights, x: Value) -> Value:
    """One linear layer, or a hidden one of ReLUs before it."""
    if config.head.width:
        x = x.graph.op("Relu", linear(x, w["head.hidden.weight"], w["head.hidden.bias"]))
    return linear(x, w["head.out.weight"], w["head.out.bias"])


def _pool(g: Graph, config: ModelConfig, w: Weights, rows: Value, given: Given, seen: Seen) -> Value:
    live, pooling = seen.live.unsqueeze(2), config.head.pooling
    if pooling == "last":
        ends = at(rows, given.lengths.unsqueeze(1) - 1).squeeze(1)
        if not config.stack.bidirectional:
            return ends
        half = config.stack.output_size // 2
        return g.concat([ends.take(0, half, 1), rows.take(0, 1, 1).squeeze(1).take(half, None, 1)], 1)
    if pooling == "max":
        return g.where(live, rows, -np.inf).reduce("Max", 1)
    inside = g.where(live, rows, 0.0)
    if pooling == "mean":
        return inside.reduce("Sum", 1) / given.lengths.cast(np.float32).unsqueeze(1)
    score = g.where(live, linear(rows, w["head.attention.weight"]), -np.inf)
    return (g.op("Softmax", score, axis=1) * inside).reduce("Sum", 1)


def _read_out(g: Graph, config: ModelConfig, made: Value) -> None:
    """The outputs of the graph from those of the ensemble [..., K], float64."""
    head, rows = config.head, ["batch", "time"] if config.task == "tag" else ["batch"]
    if head.kind == "label":
        found = g.op("Softmax", made / head.temperature, axis=-1)
        g.output(found, "probabilities", [*rows, len(head.classes)], f"classes {list(head.classes)}")
        chosen = g.op("ArgMax", found, dtype=np.int64, axis=-1, keepdims=0)
        g.output(chosen, "prediction", rows, "number of the likeliest class")
    elif head.kind == "event":
        probability = g.op("Sigmoid", (made / head.temperature).squeeze(-1))
        g.output(probability, "probability", rows, f"of an onset within {head.ahead:g}")
        g.output(probability >= head.threshold, "alarm", rows, f"from {head.threshold:g} on")
    else:
        y = made * head.scale + head.mean
        g.output(y.squeeze(-1), "prediction", rows)
        errors = g.constant(np.asarray(head.errors))
        g.output(y + errors, "quantiles", [*rows, len(head.errors)], f"levels {list(head.quantiles)}")


def feeds(
    config: ModelConfig,
    time: NDArray[np.float64],
    numbers: NDArray[np.float64],
    codes: NDArray[np.int64],
    offsets: NDArray[np.int64],
    static_numbers: NDArray[np.float64],
    static_codes: NDArray[np.int64],
    local: NDArray[np.float64] | None = None,
) -> dict[str, NDArray[Any]]:
    """What `graph` is run on, from what `SequenceInput.transform` takes; states are left to `onnx_feeds.start`."""
    lengths = np.diff(offsets)

    def pad(values: NDArray[Any]) -> NDArray[Any]:
        made = np.zeros((len(lengths), int(lengths.max()), *values.shape[1:]), values.dtype)
        made[np.arange(made.shape[1]) < lengths[:, None]] = values
        return made

    table: SequenceInput = config.input
    found = {"lengths": lengths.astype(np.int64), "time": pad(time), "numbers": pad(numbers), "codes": pad(codes)}
    found |= {
        "static": static_numbers,
        "static_codes": static_codes,
        "wall_time": pad(time if local is None else local),
    }
    g = Graph("names")
    stateful = config.task in ("tag", "detect") and not config.stack.bidirectional
    inputs(g, table, decay=config.stack.cell.decay, stateful=stateful)
    return {one.name: found[one.name] for one in g.inputs if one.name in found}
