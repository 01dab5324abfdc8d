"""Language models as ONNX graphs: tokens in, the log-probabilities of what follows each of them out, with the state."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from carousel.config import ModelConfig
from carousel.export.layers import stack_layers
from carousel.export.onnx_cells import Run, stack
from carousel.export.onnx_graph import Graph, Value
from carousel.export.onnx_rows import linear

__all__ = ["graph", "start"]

Weights = Mapping[str, NDArray[np.float32]]


def graph(config: ModelConfig, weights: Weights, scan: bool = False) -> Graph:
    """The ensemble's mean probability, as its logarithm. Tokens of sequences behind their `lengths` are not read."""
    g = Graph("generate", scan=scan)
    tokens = g.input("tokens", np.int64, ["batch", "time"], "ids of the vocabulary in the metadata")
    lengths = g.input("lengths", np.int64, ["batch"], "tokens of each sequence")
    count, sizes = config.stack.num_layers, _sizes(config)
    shapes: list[list[int | str | None]] = [[config.seeds * count, "batch", size] for size in sizes]
    before = [g.input(n, np.float32, shape, "zeros before any token") for n, shape in zip("hc", shapes, strict=True)]
    logs, states = [], []
    for k in range(config.seeds):
        w = {name: weights[f"{k}.{name}"] for name in config.member_shapes()}
        table = g.constant(w["embedding.weight"])
        x = g.op("Gather", table, tokens.transpose(1, 0), dtype=np.float32, axis=0)  # [T, B, E]
        start = [part.take(k * count, (k + 1) * count, 0) for part in before]
        made = stack(g, stack_layers(config, w), Run(x, start[0], start[1], lengths.cast(np.int32)))
        y = linear(made.x, w["mix.weight"], w["mix.bias"]) if "mix.weight" in w else made.x
        logits = linear(y.transpose(1, 0, 2), w["embedding.weight"], w["bias"])
        logs.append(g.op("LogSoftmax", logits, axis=-1))
        states.append((made.h, made.c))
    g.output(
        _mean(g, logs), "log_probabilities", ["batch", "time", len(weights["0.bias"])], "of the token that follows"
    )
    for name, part, shape in zip("hc", zip(*states, strict=True), shapes, strict=True):
        g.output(g.concat(list(part), 0), f"next_{name}", shape)
    return g


def _mean(g: Graph, logs: list[Value]) -> Value:
    """Of probabilities, from their logarithms to its own."""
    if len(logs) == 1:
        return logs[0]
    every = g.concat([one.unsqueeze(3) for one in logs], 3)
    axis = g.constant(np.array([3], np.int64))
    return g.op("ReduceLogSumExp", every, axis, keepdims=0) - float(np.log(len(logs)))


def _sizes(config: ModelConfig) -> tuple[int, int]:
    return config.stack.cell.output_size(config.stack.hidden_size), config.stack.hidden_size


def start(config: ModelConfig, batch: int) -> dict[str, NDArray[np.float32]]:
    """The states of `batch` sequences before any token."""
    count = config.seeds * config.stack.num_layers
    return {n: np.zeros((count, batch, size), np.float32) for n, size in zip("hc", _sizes(config), strict=True)}
