"""A forecaster as one ONNX graph: raw rows of every series in, quantiles in the target's own units out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.config import ModelConfig
from carousel.export.layers import stack_layers
from carousel.export.onnx_cells import Run, stack
from carousel.export.onnx_graph import Graph, Value
from carousel.export.onnx_rows import embed, linear, mean_of, zeros
from carousel.export.onnx_windows import Window, inputs, window
from carousel.heads.forecast import ForecastHead
from carousel.inputs.fitted import Column
from carousel.inputs.windows import codes_of

__all__ = ["feeds", "graph"]

Weights = Mapping[str, NDArray[np.float32]]


def graph(config: ModelConfig, weights: Weights, scan: bool = False) -> Graph:
    """The whole ensemble: its members share the window and are averaged before the read-out."""
    g = Graph("forecast", scan=scan)
    seen = window(g, config.input, inputs(g, config.input))
    found = []
    for k in range(config.seeds):
        own = {name: weights[f"{k}.{name}"] for name in config.member_shapes()}
        found.append(_member(g, config, own, seen).cast(np.float64))
    quantiles = _read_out(config.head, mean_of(found), seen)
    shape = ["series", config.input.horizon, config.input.targets]
    g.output(quantiles, "quantiles", [*shape, len(config.head.quantiles)], f"levels {list(config.head.quantiles)}")
    g.output(quantiles.take(config.head.median, config.head.median + 1, 3).squeeze(3), "forecast", shape, "the median")
    return g


def _member(g: Graph, config: ModelConfig, w: Weights, seen: Window) -> Value:
    """`model.ForecastModel.forward`: quantiles [B, H, K, Q] in scaled units."""
    table, head = config.input, config.head
    order = [c.name for c in table.embedded]

    def tables(columns: tuple[Column, ...]) -> list[NDArray[np.float32]]:
        return [w[f"input.embed.{order.index(c.name)}.weight"] for c in columns if c.kind == "category"]

    x = embed(seen.steps, seen.step_codes, tables(table.features + table.known)).transpose(1, 0, 2)
    cell, layers = config.stack.cell, config.stack.num_layers
    h, c = (zeros(g, [layers, x.size(1), n]) for n in (config.stack.output_size, config.stack.hidden_size))
    elapsed = seen.elapsed.transpose(1, 0) if cell.decay else None
    made = stack(g, stack_layers(config, w), Run(x, h, c, None, elapsed))
    static = embed(seen.static, seen.static_codes, tables(table.static))
    state = g.concat([made.x.take(-1, None, 0).squeeze(0), static], -1)

    z = linear(state, w["head.state.weight"], w["head.state.bias"]).unsqueeze(1) + g.constant(w["head.step"])
    if table.ahead_size:
        z = z + linear(embed(seen.ahead, seen.ahead_codes, tables(table.known)), w["head.ahead.weight"])
    z = _silu(linear(_silu(z), w["head.hidden.weight"], w["head.hidden.bias"]))
    raw = linear(z, w["head.out.weight"], w["head.out.bias"]).reshape(0, 0, table.targets, len(head.quantiles))
    gate = linear(z, w["head.gate.weight"], w["head.gate.bias"]) + g.constant(w["head.gate_step"])
    gate = g.op("Softmax", gate.reshape(0, 0, table.targets, table.bases), axis=-1)
    straight = linear(seen.linear.transpose(0, 2, 1), w["head.linear.weight"], w["head.linear.bias"])
    middle = head.median
    median = (gate * seen.base).reduce("Sum", 3, keep=True) + raw.take(middle, middle + 1, 3)
    median = median + straight.transpose(0, 2, 1).unsqueeze(3)
    return median + g.op("Softplus", raw - 1.0) @ g.constant(_away(len(head.quantiles), middle))


def _silu(z: Value) -> Value:
    return z * z.graph.op("Sigmoid", z)


def _away(quantiles: int, median: int) -> NDArray[np.float32]:
    """[Q, Q]: how positive steps between neighbouring quantiles add up to their distances from the median.

    >>> _away(3, 1).tolist()
    [[-1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    row, column = np.mgrid[:quantiles, :quantiles]
    above, below = (row > median) & (column >= row), (row < median) & (column <= row)
    return np.asarray(above.astype(np.float32) - below.astype(np.float32))


def _read_out(head: ForecastHead, scaled: Value, seen: Window) -> Value:
    """`heads.forecast.read_out`, float64."""
    g = scaled.graph
    middle = scaled.take(head.median, head.median + 1, 3)
    stretched = middle + (scaled - middle) * g.constant(np.asarray(head.factors))
    count = g.constant(np.array([len(head.quantiles)], np.int64))
    ascending = g.ops("TopK", stretched, count, outputs=2, axis=3, largest=0, sorted=1)[0]
    return ascending * seen.spread.unsqueeze(1, 3) + seen.level.unsqueeze(1, 3)


def feeds(config: ModelConfig, series: Any, origins: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """What `graph` is run on, from the `Series` that `inputs.table.read_table` made; origins: a row of each series."""
    table = config.input
    begin = series.offsets[:-1]
    lengths = np.asarray(origins - begin + 1)
    rows, ahead = int(lengths.max()), table.horizon
    found: dict[str, NDArray[Any]] = {"lengths": lengths}

    def spread(values: NDArray[Any], fill: Any, further: int = 0) -> NDArray[Any]:
        made = np.full((len(begin), rows + further, values.shape[1]), fill, values.dtype)
        for b, start in enumerate(begin):
            stop = min(int(start + lengths[b] + further), int(series.offsets[b + 1]))
            made[b, : stop - start] = values[start:stop]
        return made

    found["target"] = spread(series.target, np.nan)
    for role, name, further in (("features", "feature", 0), ("known", "known", ahead)):
        numbers, codes = _columns(series, role, getattr(table, role))
        if numbers.shape[1]:
            found[role] = spread(numbers, np.nan, further)
        if codes.shape[1]:
            found[f"{name}_codes"] = spread(codes, 0, further)
    numbers, codes = _columns(series, "static", table.static)
    if numbers.shape[1]:
        found["static"] = numbers
    if codes.shape[1]:
        found["static_codes"] = codes
    if not table.uneven and not table.calendar:
        return found
    time = np.zeros((len(begin), rows + ahead))
    for b, (start, stop) in enumerate(zip(begin, series.offsets[1:], strict=True)):
        own = series.time[start:stop]
        further = series.grid.ahead(np.repeat(own[-1:], ahead), np.arange(1, ahead + 1))
        time[b, : lengths[b] + ahead] = np.concatenate([own, further])[: lengths[b] + ahead]
    if table.uneven:
        found["time"] = time
    if table.calendar:
        found["wall_time"] = series.clock.local(time, series.grid)
    return found


def _columns(series: Any, role: str, columns: tuple[Column, ...]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Raw numbers [N, F] and codes [N, E] of one role."""
    names, values = getattr(series.roles, role), getattr(series, role)
    numbers = [values[:, names.index(c.name)] for c in columns if c.kind == "number"]
    codes = [codes_of(c, values[:, names.index(c.name)], series.categories) for c in columns if c.kind == "category"]
    empty = np.zeros((len(values), 0))
    return np.stack(numbers, 1) if numbers else empty, np.stack(codes, 1) if codes else empty.astype(np.int64)
