"""Translators as one ONNX graph: a source's tokens in, the greedy translation's tokens and their probability out.

The search is a Loop that ends with the last answer. Beams, bans and sampling stay with `Translator`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.config import ModelConfig
from carousel.export.layers import Layers
from carousel.export.onnx_cells import Run, stack
from carousel.export.onnx_graph import Graph, Value
from carousel.export.onnx_rows import linear, zeros
from carousel.inputs.text import BEGIN, END

__all__ = ["graph"]

Weights = Mapping[str, NDArray[np.float32]]


class _Memory(NamedTuple):
    """What one member's encoder says: values [B, S, M], keys [B, S, .], the decoder's first state [L, B, H]."""

    values: Value
    keys: Value
    h: Value
    c: Value


def graph(config: ModelConfig, weights: Weights, scan: bool = False) -> Graph:
    g = Graph("translate", scan=scan)
    tokens = g.input("tokens", np.int64, ["batch", "time"], "ids of the source vocabulary; each source ends with END")
    lengths = g.input("lengths", np.int64, ["batch"], "tokens of each source, END counted")
    limits = g.input(
        "limits", np.int64, ["batch"], "tokens that each answer may have; predict allows 2 (lengths - 1) + 10"
    )
    zero, one = (g.constant(np.array(n, np.int64)) for n in (0, 1))
    number = g.op("Range", zero, tokens.size(1).squeeze(0), one).unsqueeze(0)
    real = (number < lengths.unsqueeze(1)).unsqueeze(1)  # [B, 1, S]
    members = [{name: weights[f"{k}.{name}"] for name in config.member_shapes()} for k in range(config.seeds)]
    memories = [_encode(g, config, w, tokens, lengths) for w in members]
    begin = lengths * 0
    states = {"token": begin + BEGIN, "ended": begin > 0, "total": begin.cast(np.float32)}
    for k, memory in enumerate(memories):
        fed = zeros(g, [lengths.size(0), config.head.embedding])
        states |= {f"h{k}": memory.h, f"c{k}": memory.c, f"fed{k}": fed}

    def step(body: Graph, at: Value, given: dict[str, Value]) -> tuple[Value, list[Value], list[Value]]:
        logs, following = [], []
        for k, (w, memory) in enumerate(zip(members, memories, strict=True)):
            own = _Memory(body.within(memory.values), body.within(memory.keys), given[f"h{k}"], given[f"c{k}"])
            mixed, h, c = _advance(body, config, w, own, body.within(real), given["token"], given[f"fed{k}"])
            logs.append(body.op("LogSoftmax", linear(mixed, w["target.weight"], w["bias"]), axis=-1))
            following += [h, c, mixed]
        log = logs[0]
        if len(logs) > 1:
            axis = body.constant(np.array([2], np.int64))
            every = body.concat([part.unsqueeze(2) for part in logs], 2)
            log = body.op("ReduceLogSumExp", every, axis, keepdims=0) - float(np.log(len(logs)))
        best = body.op("ArgMax", log, dtype=np.int64, axis=1, keepdims=0)
        over = given["ended"] | (body.within(limits) <= at)
        token = body.where(over, END, best)
        gain = body.op("GatherElements", log, token.unsqueeze(1), axis=1).squeeze(1)
        total = given["total"] + body.where(given["ended"], 0.0, gain)
        ended = given["ended"] | body.op("Equal", token, body.constant(np.array(END, np.int64)), dtype=bool)
        left = (~ended).cast(np.int64).reduce("Max", 0) > 0
        return left, [token, ended, total, *following], [token]

    last, (found,) = g.loop(states, step)
    g.output(
        found.transpose(1, 0),
        "translation",
        ["batch", "answer"],
        "ids of the target vocabulary, END behind each answer",
    )
    g.output(last[2], "log_probability", ["batch"], "of the answer, END counted")
    return g


def _encode(g: Graph, config: ModelConfig, w: Weights, tokens: Value, lengths: Value) -> _Memory:
    """`heads.translate_net.TranslateNet.encode`."""
    encoder, size = config.encoder, config.stack.hidden_size
    table = g.constant(w["target.weight"] if config.head.shared else w["source.weight"])
    x = g.op("Gather", table, tokens.transpose(1, 0), dtype=np.float32, axis=0)
    count = encoder.num_layers * 2
    h, c = (
        zeros(g, [count, lengths.size(0), n])
        for n in (encoder.cell.output_size(encoder.hidden_size), encoder.hidden_size)
    )
    layers = Layers(
        encoder.cell, config.head.embedding, encoder.hidden_size, encoder.num_layers, True, weights=_part(w, "encoder.")
    )
    made = stack(g, layers, Run(x, h, c, lengths.cast(np.int32)))
    first = []
    for part, name in ((made.h, "bridge_h"), (made.c, "bridge_c")):
        ends = g.concat([part.take(count - 2 + d, count - 1 + d, 0).squeeze(0) for d in (0, 1)], 1)
        mapped = linear(ends, w[f"{name}.weight"], w[f"{name}.bias"])
        first.append(mapped.reshape(0, config.stack.num_layers, size).transpose(1, 0, 2))
    values = made.x.transpose(1, 0, 2)
    keys = values if config.head.attention == "dot" else linear(values, w["attention.key.weight"])
    return _Memory(values, keys, g.op("Tanh", first[0]), first[1])


def _part(w: Weights, prefix: str) -> dict[str, NDArray[np.float32]]:
    return {name.removeprefix(prefix): value for name, value in w.items() if name.startswith(prefix)}


def _advance(
    g: Graph, config: ModelConfig, w: Weights, memory: _Memory, real: Value, token: Value, fed: Value
) -> tuple[Value, Value, Value]:
    """`heads.translate_net.TranslateNet.advance`: the mixed output [B, E] and the decoder's state."""
    head, decoder = config.head, config.stack
    x = g.op("Gather", g.constant(w["target.weight"]), token, dtype=np.float32, axis=0)
    width = head.embedding
    if head.input_feeding:
        x, width = g.concat([x, fed], 1), 2 * width
    layers = Layers(decoder.cell, width, decoder.hidden_size, decoder.num_layers, weights=_part(w, "decoder."))
    made = stack(g, layers, Run(x.unsqueeze(0), memory.h, memory.c))
    out = made.x.squeeze(0)
    query = out.unsqueeze(1)  # [B, 1, H]
    if head.attention == "additive":
        asked = linear(query, w["attention.query.weight"], w["attention.query.bias"])
        scores = linear(g.op("Tanh", asked + memory.keys), w["attention.score.weight"]).transpose(0, 2, 1)
    else:
        scores = query @ memory.keys.transpose(0, 2, 1)
    attended = g.op("Softmax", g.where(real, scores, -np.inf), axis=-1) @ memory.values
    mixed = linear(g.concat([out, attended.squeeze(1)], 1), w["mix.weight"], w["mix.bias"])
    return g.op("Tanh", mixed), made.h, made.c
