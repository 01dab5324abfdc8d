"""One layer of an LSTM in an ONNX graph: the LSTM operator where it computes the cell, a Scan where it does not.

The operator's `clip` bounds what goes into the gates and not the cell state, it has no projection, no layer norm and
no decay; a cell with any of these is written out in the body of a Scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.cell import LAYER_NORM_EPS, CellSpec
from carousel.export.layers import Layers, reorder
from carousel.export.onnx_graph import Graph, Value

__all__ = ["Run", "fits_operator", "operator_weights", "stack"]

Weights = dict[str, NDArray[Any]]

OPERATOR_GATES = "iofg"  # ONNX calls the candidate c


class Run(NamedTuple):
    """What goes through a stack: x [T, B, I], h [L * D, B, P], c [L * D, B, H], lengths [B], elapsed [T, B]."""

    x: Value
    h: Value
    c: Value
    lengths: Value | None = None
    elapsed: Value | None = None


def fits_operator(spec: CellSpec) -> bool:
    """Whether the LSTM operator computes this cell in evaluation."""
    return not (spec.layer_norm or spec.decay or spec.proj_size or spec.cell_clip or spec.zoneout_c or spec.zoneout_h)


def stack(g: Graph, layers: Layers, run: Run) -> Run:
    """All layers: x becomes the output [T, B, D * P], h and c the last states."""
    each = [layers.directions] * layers.num_layers
    starts = list(zip(run.h.split(each, 0), run.c.split(each, 0), strict=True))
    x, ends = run.x, []
    for number, (h, c) in enumerate(starts):
        # ONNX Runtime has the operator in float32 only
        fits = fits_operator(layers.spec) and not g.root.scan_cells and x.dtype == np.float32
        one = _operator if fits else _scans
        made = one(g, layers, number, run._replace(x=x, h=h, c=c))
        x = made.x
        ends.append((made.h, made.c))
    h, c = (g.concat(list(part), 0) for part in zip(*ends, strict=True))
    return run._replace(x=x, h=h, c=c)


def operator_weights(spec: CellSpec, directions: Sequence[Weights]) -> Weights:
    """W [D, 4H, I], R [D, 4H, H], B [D, 8H] and P [D, 3H] of the LSTM operator.

    The input gate of coupled ones gets the forget gate's weights with the sign changed, since 1 - sigmoid(z) is
    sigmoid(-z): so they are right in a runtime that computes `input_forget` as f = 1 - i (ONNX Runtime), as i = 1 - f
    (the specification does not say), or not at all (OpenVINO).
    """

    def blocks(weight: NDArray[Any], gates: str, want: str) -> NDArray[Any]:
        if spec.coupled:
            size = len(weight) // len(gates)
            forget = gates.index("f") * size
            weight = np.concatenate([-weight[forget : forget + size], weight])
            gates = "i" + gates
        return reorder(weight, gates, want)

    made = {
        "W": [blocks(w["weight_ih"], spec.gates, OPERATOR_GATES) for w in directions],
        "R": [blocks(w["weight_hh"], spec.gates, OPERATOR_GATES) for w in directions],
    }
    if spec.bias:
        merged = [blocks(w["bias_ih"] + w["bias_hh"], spec.gates, OPERATOR_GATES) for w in directions]
        made["B"] = [np.concatenate([b, np.zeros_like(b)]) for b in merged]
    if spec.peephole:
        made["P"] = [blocks(w["weight_ch"], spec.gates.replace("g", ""), "iof") for w in directions]
    return {name: np.stack(parts) for name, parts in made.items()}


def _operator(g: Graph, layers: Layers, number: int, run: Run) -> Run:
    found = operator_weights(layers.spec, layers.layer(number))
    weight = {name: g.constant(array, f"{name}_l{number}") for name, array in found.items()}
    y, h, c = g.ops(
        "LSTM",
        run.x,
        weight["W"],
        weight["R"],
        weight.get("B"),
        run.lengths,
        run.h,
        run.c,
        weight.get("P"),
        outputs=3,
        hidden_size=layers.hidden_size,
        direction="bidirectional" if layers.bidirectional else "forward",
        input_forget=int(layers.spec.coupled),
    )
    y = y.transpose(0, 2, 1, 3).reshape(0, 0, -1) if layers.bidirectional else y.squeeze(1)  # [T, D, B, H] -> 3-D
    return run._replace(x=y, h=h, c=c)


def _scans(g: Graph, layers: Layers, number: int, run: Run) -> Run:
    """One Scan a direction; rows behind the end of a sequence keep the states and give 0, as the operator does."""
    live = None
    if run.lengths is not None:
        live = _steps(g, run.x) < run.lengths.cast(np.int64).unsqueeze(0)  # [T, B]
    outputs, ends_h, ends_c = [], [], []
    for d, w in enumerate(layers.layer(number)):
        elapsed = run.elapsed if d == 0 or run.elapsed is None else _reversed_gaps(g, run)
        start = tuple(state.take(d, d + 1, 0).squeeze(0) for state in (run.h, run.c))
        y, h, c = _scan(g, layers, _folded(layers.spec, w), run.x, start, live, elapsed, d)
        outputs.append(y)
        ends_h.append(h.unsqueeze(0))
        ends_c.append(c.unsqueeze(0))
    return run._replace(x=g.concat(outputs, 2), h=g.concat(ends_h, 0), c=g.concat(ends_c, 0))


def _steps(g: Graph, x: Value) -> Value:
    """[T, 1]: 0 ... T - 1."""
    zero, one = (g.constant(np.array(n, np.int64)) for n in (0, 1))
    return g.op("Range", zero, x.size(0).squeeze(0), one).unsqueeze(1)


def _reversed_gaps(g: Graph, run: Run) -> Value:
    """What went by since the row that the reversed direction visited before; 0 for its first row."""
    assert run.elapsed is not None
    later = g.concat([run.elapsed.take(1, None, 0), run.elapsed.take(0, 1, 0) * 0.0], 0)
    if run.lengths is None:
        return later
    last = run.lengths.cast(np.int64).unsqueeze(0) - 1
    return g.where(_steps(g, run.x) < last, later, 0.0)


def _folded(spec: CellSpec, w: Weights) -> Weights:
    """What a step multiplies by and adds: worked out once, here, rather than in every run."""
    made = {name: value for name, value in w.items() if name.startswith("norm")}
    made |= {name: value.T for name, value in w.items() if name.startswith("weight") and value.ndim == 2}
    if spec.bias:
        made["bias"] = w["bias_ih"] + w["bias_hh"]
    if spec.peephole:
        gates = spec.gates.replace("g", "")
        made |= {f"peephole_{k}": part for k, part in zip(gates, np.split(w["weight_ch"], len(gates)), strict=True)}
    if spec.decay:
        rate = w["decay_rate"]
        made["rate"] = np.logaddexp(rate.astype(np.float64), 0.0).astype(rate.dtype)
    return made


def _scan(
    g: Graph,
    layers: Layers,
    weights: Weights,
    x: Value,
    start: tuple[Value, ...],
    live: Value | None,
    elapsed: Value | None,
    direction: int,
) -> tuple[Value, Value, Value]:
    spec, w = layers.spec, {name: g.constant(value) for name, value in weights.items()}
    a = x @ w["weight_ih"]  # of all steps at once: [T, B, 4H]
    if spec.layer_norm:
        a = _normalise(a, w["norm_ih"])
    if spec.bias:
        a = a + w["bias"]
    sequences = {"a": a}
    if elapsed is not None:
        sequences["fade"] = g.op("Exp", -(elapsed.unsqueeze(2) * w["rate"]))
    if live is not None:
        sequences["live"] = live.unsqueeze(2)

    def step(body: Graph, given: dict[str, Value]) -> tuple[list[Value], list[Value]]:
        inner = {name: body.within(value) for name, value in w.items()}
        h, c = _step(body, spec, layers.hidden_size, inner, given, given["h"], given["c"])
        if live is None:
            return [h, c], [h]
        alive = given["live"]
        return [body.where(alive, h, given["h"]), body.where(alive, c, given["c"])], [body.where(alive, h, 0.0)]

    (last_h, last_c), (y,) = g.scan(dict(zip("hc", start, strict=True)), sequences, step, backwards=direction == 1)
    return y, last_h, last_c


def _step(
    g: Graph, spec: CellSpec, size: int, w: dict[str, Value], given: dict[str, Value], h: Value, c: Value
) -> tuple[Value, Value]:
    """`carousel.cell.step` in evaluation: h [B, P], c [B, H], given a [B, 4H] and, with decay, fade [B, H]."""
    if spec.decay:
        c = c * given["fade"]
    r = h @ w["weight_hh"]
    if spec.layer_norm:
        r = _normalise(r, w["norm_hh"])
    z = dict(zip(spec.gates, (given["a"] + r).split([size] * len(spec.gates), -1), strict=True))
    if spec.peephole:
        z |= {gate: z[gate] + w[f"peephole_{gate}"] * c for gate in spec.gates if gate in "if"}
    f = g.op("Sigmoid", z["f"])
    i = 1.0 - f if spec.coupled else g.op("Sigmoid", z["i"])
    new_c = f * c + i * g.op("Tanh", z["g"])
    if spec.cell_clip:
        new_c = g.clip(new_c, -spec.cell_clip, spec.cell_clip)
    o = g.op("Sigmoid", z["o"] + w["peephole_o"] * new_c if spec.peephole else z["o"])
    exposed = new_c
    if spec.layer_norm:
        exposed = _normalise(new_c, w["norm_c"], w.get("norm_bias_c"))
    new_h = o * g.op("Tanh", exposed)
    if spec.proj_size:
        new_h = new_h @ w["weight_hr"]
    if spec.zoneout_c:
        new_c = spec.zoneout_c * c + (1 - spec.zoneout_c) * new_c
    if spec.zoneout_h:
        new_h = spec.zoneout_h * h + (1 - spec.zoneout_h) * new_h
    return new_h, new_c


def _normalise(z: Value, gain: Value, shift: Value | None = None) -> Value:
    return z.graph.op("LayerNormalization", z, gain, shift, axis=-1, epsilon=LAYER_NORM_EPS)
