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

__all__ = ["graph"]

Weights = Mapping[str, NDArray[np.float32]]


def graph(config: ModelConfig, weights: Weights, scan: bool = False) -> Graph:
    """The ensemble's mean probability, as its logarithm. Tokens of sequences behind their `lengths` are not read."""
    g = Graph("generate", scan=scan)
    tokens = g.input("tokens", np.int64, ["batch", "time"], "ids of the vocabulary in the metadata")
    lengths = g.input("lengths", np.int64, ["batch"], "tokens of each sequence")
    count, size = config.stack.num_layers, config.stack.hidden_size
    sizes = (config.stack.cell.output_size(size), size)
    about = f"state of {config.seeds} members of {count} layers"
    before = [
        g.state(name, np.float32, [config.seeds * count, "batch", size], 0.0, about)
        for name, size in zip("hc", sizes, strict=True)
    ]
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
    for name, part in zip("hc", zip(*states, strict=True), strict=True):
        g.carry(name, g.concat(list(part), 0))
    return g


def _mean(g: Graph, logs: list[Value]) -> Value:
    """Of probabilities, from their logarithms to its own."""
    if len(logs) == 1:
        return logs[0]
    every = g.concat([one.unsqueeze(3) for one in logs], 3)
    axis = g.constant(np.array([3], np.int64))
    return g.op("ReduceLogSumExp", every, axis, keepdims=0) - float(np.log(len(logs)))
