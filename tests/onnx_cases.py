"""LSTM layers and nodes beside ONNX Runtime, as functions that raise AssertionError where they differ."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper

from carousel import LSTM, Ragged
from carousel.export.layers import Layers
from carousel.export.onnx import layers_model

# float32 of both sides: each rounds sums of some 10 products, tanh and the sigmoid of ONNX Runtime are polynomials
# with errors of 1e-7, and 23 steps of a stack hand them on
RELATIVE = 1e-6
DOUBLE, DOUBLE_NORMED = 1e-12, 1e-9  # the epsilon of LayerNormalization is a float32 attribute

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no bias": {"bias": False},
    "peephole": {"peephole": True},
    "coupled": {"coupled": True},
    "coupled peephole": {"coupled": True, "peephole": True},
    "layer norm": {"layer_norm": True},
    "layer norm without bias": {"layer_norm": True, "bias": False},
    "projection": {"proj_size": 3},
    "decay": {"decay": True},
    "cell clip": {"cell_clip": 0.2},
    "zoneout": {"zoneout_c": 0.3, "zoneout_h": 0.2},
    "dropouts": {"recurrent_dropout": 0.3, "weight_drop": 0.2},
    "all": {
        "peephole": True,
        "coupled": True,
        "layer_norm": True,
        "decay": True,
        "proj_size": 3,
        "cell_clip": 0.4,
        "zoneout_c": 0.2,
        "zoneout_h": 0.1,
    },
}


def session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # beyond it products are fused with factors that are kept in float32, whatever the tensors are
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(model: bytes, feeds: dict[str, Any]) -> dict[str, Any]:
    made = session(model)
    return dict(zip([one.name for one in made.get_outputs()], made.run(None, feeds), strict=True))


def require_close(found: Any, expected: Any, relative: float = RELATIVE) -> None:
    """In units of the largest number of `expected`."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    worst = np.abs(found - expected).max() / np.abs(expected).max()
    assert worst <= relative, f"differs by {worst:.1e} of the largest"


def layer(seed: int = 0, **choices: Any) -> LSTM:
    """Two layers with random weights; with gains of layer norm near 1 random recurrences would be chaotic."""
    torch.manual_seed(seed)
    lstm = LSTM(5, 8, 2, **choices).eval()
    with torch.no_grad():
        for name, weight in lstm.named_parameters():
            weight.copy_(torch.randn_like(weight) * (0.1 if name.startswith("norm") else 0.5))
            if name.startswith("norm_") and not name.startswith("norm_bias"):
                weight.add_(0.4)
    return lstm


LENGTHS = [23, 1, 7, 22]


class Rows(NamedTuple):
    """x [T, B, I], h, c, elapsed [T, B]."""

    x: torch.Tensor
    h: torch.Tensor
    c: torch.Tensor
    elapsed: torch.Tensor


def tolerance(lstm: LSTM) -> float:
    """Layer norm divides by spreads that can be small, and hands on roundings enlarged: there both sides may differ by
    ten times what our own float32 differs from float64; that the graph is right is seen in float64.
    """
    if lstm.weight_ih_l0.dtype == torch.float64:
        return DOUBLE_NORMED if lstm.spec.layer_norm else DOUBLE
    if not lstm.spec.layer_norm:
        return RELATIVE
    given, found = rows(lstm), []
    for dtype in (torch.float32, torch.float64):
        own = copy.deepcopy(lstm).to(dtype)
        x, h, c, elapsed = (part.to(dtype) for part in given)
        own.batch_first = False
        with torch.no_grad():
            out, states = own(x, (h, c), **({"elapsed": elapsed} if lstm.spec.decay else {}))
        found.append([part.double() for part in (out, *states)])
    worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*found, strict=True))
    return max(RELATIVE, 10 * worst)


def rows(lstm: LSTM, steps: int = 23, batch: int = 4) -> Rows:
    torch.manual_seed(1)
    layers = lstm.num_layers * (1 + lstm.bidirectional)
    h = torch.randn(layers, batch, lstm.proj_size or lstm.hidden_size)
    made = Rows(
        torch.randn(steps, batch, lstm.input_size),
        0.5 * h,
        0.5 * torch.randn(layers, batch, lstm.hidden_size),
        2 * torch.rand(steps, batch),
    )
    return Rows(*(part.to(lstm.weight_ih_l0.dtype) for part in made))


def feeds(lstm: LSTM, given: Rows) -> dict[str, Any]:
    turn = (1, 0, 2) if lstm.batch_first else (0, 1, 2)
    found = {"input": given.x.permute(turn).numpy(), "h0": given.h.numpy(), "c0": given.c.numpy()}
    if lstm.spec.decay:
        found["elapsed"] = given.elapsed.permute(turn[:2]).numpy()
    return found


def check_dense(lstm: LSTM) -> None:
    given = rows(lstm)
    found = run(layers_model(Layers.of(lstm)), feeds(lstm, given))
    gaps = {"elapsed": given.elapsed.t() if lstm.batch_first else given.elapsed} if lstm.spec.decay else {}
    with torch.no_grad():
        out, (h, c) = lstm(given.x.transpose(0, 1) if lstm.batch_first else given.x, (given.h, given.c), **gaps)
    for name, value in (("output", out), ("hn", h), ("cn", c)):
        require_close(found[name], value, tolerance(lstm))


def check_ragged(lstm: LSTM) -> None:
    """Lengths with a 1; rows behind the end hold numbers that must not matter, and come out as 0."""
    given = rows(lstm)
    fed = feeds(lstm, given) | {"sequence_lens": np.array(LENGTHS, np.int32)}
    found = run(layers_model(Layers.of(lstm), ragged=True), fed)
    x, gaps = (Ragged.from_list([part[:n, b] for b, n in enumerate(LENGTHS)]) for part in (given.x, given.elapsed))
    with torch.no_grad():
        out, (h, c) = lstm(x, (given.h, given.c), **({"elapsed": gaps} if lstm.spec.decay else {}))
    y = np.concatenate([found["output"][:n, b] for b, n in enumerate(LENGTHS)])
    for ours, theirs in ((y, out.values), (found["hn"], h), (found["cn"], c)):
        require_close(ours, theirs, tolerance(lstm))
    assert all(not found["output"][n:, b].any() for b, n in enumerate(LENGTHS))


def check_pieces(lstm: LSTM) -> None:
    """The states of one piece are those that the next one begins with."""
    given = rows(lstm)
    made, whole = session(layers_model(Layers.of(lstm))), feeds(lstm, given)
    out = made.run(None, whole)
    states, pieces = (whole["h0"], whole["c0"]), []
    for start, stop in ((0, 1), (1, 9), (9, 23)):
        part = {name: whole[name][start:stop] for name in ("input", "elapsed") if name in whole}
        y, *states = made.run(None, part | {"h0": states[0], "c0": states[1]})
        pieces.append(y)
    for ours, theirs in zip((np.concatenate(pieces), *states), out, strict=True):
        require_close(ours, theirs, tolerance(lstm))


def node_model(seed: int = 0, **choices: Any) -> tuple[bytes, dict[str, Any]]:
    """A model of one LSTM node with random weights, and what to feed it.

    choices: direction, layout, input_forget, activations, clip; bias, peephole, lengths and states, on unless False.
    """
    rng = np.random.default_rng(seed)
    steps, batch, width, size = 9, 4, 3, 5
    directions = 2 if choices.get("direction") == "bidirectional" else 1

    def drawn(*shape: int) -> Any:
        return (0.6 * rng.normal(size=shape)).astype(np.float32)

    weights = {"W": drawn(directions, 4 * size, width), "R": drawn(directions, 4 * size, size)}
    optional = {
        "B": drawn(directions, 8 * size),
        "sequence_lens": np.array([9, 1, 4, 8], np.int32),
        "initial_h": drawn(directions, batch, size),
        "initial_c": drawn(directions, batch, size),
        "P": drawn(directions, 3 * size),
    }
    left_out = {"bias": ("B",), "lengths": ("sequence_lens",), "states": ("initial_h", "initial_c"), "peephole": ("P",)}
    for choice, names in left_out.items():
        if choices.pop(choice, True) is False:
            optional = {name: value for name, value in optional.items() if name not in names}
    values = {"X": drawn(steps, batch, width)} | weights | optional
    if choices.get("layout"):
        values |= {name: values[name].swapaxes(0, 1) for name in ("X", "initial_h", "initial_c") if name in values}
    order = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
    names = [name if name in values else "" for name in order]
    node = helper.make_node("LSTM", names, ["Y", "Y_h", "Y_c"], name="lstm", hidden_size=size, **choices)
    fixed = {name: value for name, value in values.items() if name in ("W", "R", "B", "P")}
    fed = {name: np.ascontiguousarray(value) for name, value in values.items() if name not in fixed}
    inputs = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in fed.items()
    ]
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("Y", "Y_h", "Y_c")]
    initializers = [numpy_helper.from_array(value, name) for name, value in fixed.items()]
    graph = helper.make_graph([node], "one", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    return model.SerializeToString(), fed
