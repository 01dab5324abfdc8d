"""One step of an LSTM layer by others: torch, ONNX Runtime, and a C function compiled on the spot."""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

__all__ = ["CStep", "Peer", "onnx_bytes", "onnx_session", "peers"]

Singles = NDArray[np.float32]


@dataclass(frozen=True)
class Peer:
    """`step` takes one row from where the last left off; `h` is the state that it left, of `reset` the first."""

    name: str
    step: Callable[[], object]
    h: Callable[[], Singles]
    reset: Callable[[], None]


def peers(layer: nn.LSTM, x: Singles) -> list[Peer]:
    """Every one that is installed, fed with the row x [I] again and again."""
    found = [_lstm(layer, x), _cell(layer, x)]
    with contextlib.suppress(ModuleNotFoundError):
        found += [_onnx(layer, x), _bound(layer, x)]
    return found


def _lstm(layer: nn.LSTM, x: Singles) -> Peer:
    row, size = torch.from_numpy(x)[None, None], layer.hidden_size
    kept: list[Any] = [None]

    def reset() -> None:
        kept[0] = (torch.zeros(1, 1, size), torch.zeros(1, 1, size))

    def step() -> None:
        with torch.inference_mode():
            kept[0] = layer(row, kept[0])[1]

    reset()
    return Peer("torch.nn.LSTM", step, lambda: kept[0][0].numpy().reshape(-1), reset)


def _cell(layer: nn.LSTM, x: Singles) -> Peer:
    cell = nn.LSTMCell(layer.input_size, layer.hidden_size)
    cell.load_state_dict({n.removesuffix("_l0"): w for n, w in layer.state_dict().items()})
    row, size = torch.from_numpy(x)[None], layer.hidden_size
    kept: list[Any] = [None]

    def reset() -> None:
        kept[0] = (torch.zeros(1, size), torch.zeros(1, size))

    def step() -> None:
        with torch.inference_mode():
            kept[0] = cell(row, kept[0])

    reset()
    return Peer("torch.nn.LSTMCell", step, lambda: kept[0][0].numpy().reshape(-1), reset)


def onnx_bytes(layer: nn.LSTM) -> bytes:
    """The layer as a graph: X [1, B, I], h0 and c0 [1, B, H] -> h, c."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    size = layer.hidden_size
    w = {n.removesuffix("_l0"): p.detach().numpy() for n, p in layer.named_parameters()}

    def ordered(weight: Singles) -> Singles:  # i f g o becomes i o f c
        i, f, g, o = np.split(weight, 4)
        return np.concatenate([i, o, f, g])

    bias = np.concatenate([ordered(w["bias_ih"]), ordered(w["bias_hh"])])
    tensors = {"W": ordered(w["weight_ih"])[None], "R": ordered(w["weight_hh"])[None], "B": bias[None]}
    node = helper.make_node("LSTM", ["X", "W", "R", "B", "", "h0", "c0"], ["", "h", "c"], hidden_size=size)

    def info(name: str, width: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, width])

    graph = helper.make_graph(
        [node],
        "step",
        [info("X", layer.input_size), info("h0", size), info("c0", size)],
        [info("h", size), info("c", size)],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    found: bytes = model.SerializeToString()
    return found


def onnx_session(layer: nn.LSTM) -> Any:
    """ONNX Runtime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(onnx_bytes(layer), options, providers=["CPUExecutionProvider"])


def _onnx(layer: nn.LSTM, x: Singles) -> Peer:
    session, row = onnx_session(layer), x[None, None]
    kept: list[Any] = [None, None]

    def reset() -> None:
        kept[:] = [np.zeros((1, 1, layer.hidden_size), np.float32) for _ in range(2)]

    def step() -> None:
        kept[:] = session.run(None, {"X": row, "h0": kept[0], "c0": kept[1]})

    reset()
    return Peer("ONNX Runtime", step, lambda: kept[0].reshape(-1), reset)


def _bound(layer: nn.LSTM, x: Singles) -> Peer:
    """With buffers bound once; two sets take turns as input and output."""
    import onnxruntime

    session, size = onnx_session(layer), layer.hidden_size
    buffers = [[np.zeros((1, 1, size), np.float32) for _ in range(2)] for _ in range(2)]
    values = [[onnxruntime.OrtValue.ortvalue_from_numpy(b) for b in pair] for pair in buffers]
    row = onnxruntime.OrtValue.ortvalue_from_numpy(x[None, None])
    bindings = []
    for k in range(2):
        binding = session.io_binding()
        binding.bind_ortvalue_input("X", row)
        for name, value in zip(("h0", "c0"), values[k], strict=True):
            binding.bind_ortvalue_input(name, value)
        for name, value in zip(("h", "c"), values[1 - k], strict=True):
            binding.bind_ortvalue_output(name, value)
        bindings.append(binding)
    turn = [0]
    run = session.run_with_iobinding

    def step() -> None:
        run(bindings[turn[0]])
        turn[0] = 1 - turn[0]

    def reset() -> None:
        zero = np.zeros((1, 1, size), np.float32)
        for value in values[turn[0]]:
            value.update_inplace(zero)

    return Peer("ONNX Runtime, bound", step, lambda: values[turn[0]][0].numpy().reshape(-1), reset)


_SOURCE = """
#include <math.h>
#include <time.h>
static float W[I + H][4 * H], B[4 * H];
void load(const float *w, const float *b) {
    for (int k = 0; k < I + H; ++k)
        for (int j = 0; j < 4 * H; ++j) W[k][j] = w[k * 4 * H + j];
    for (int j = 0; j < 4 * H; ++j) B[j] = b[j];
}
static void step(const float *restrict x, float *restrict h, float *restrict c) {
    float z[4 * H];
    for (int j = 0; j < 4 * H; ++j) z[j] = B[j];
    for (int k = 0; k < I; ++k)
        for (int j = 0; j < 4 * H; ++j) z[j] += x[k] * W[k][j];
    for (int k = 0; k < H; ++k)
        for (int j = 0; j < 4 * H; ++j) z[j] += h[k] * W[I + k][j];
    for (int j = 0; j < H; ++j) {
        float i = 1 / (1 + expf(-z[j])), f = 1 / (1 + expf(-z[H + j])), o = 1 / (1 + expf(-z[3 * H + j]));
        c[j] = f * c[j] + i * (1 - 2 / (1 + expf(2 * z[2 * H + j])));
        h[j] = o * (1 - 2 / (1 + expf(2 * c[j])));
    }
}
void run(const float *x, int steps, float *h, float *c, long long *nanoseconds) {
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int t = 0; t < steps; ++t, x += I) {
        step(x, h, c);
        clock_gettime(CLOCK_MONOTONIC, &b);
        nanoseconds[t] = (b.tv_sec - a.tv_sec) * 1000000000LL + (b.tv_nsec - a.tv_nsec);
        a = b;
    }
}
"""


class CStep:
    """The step as one writes it in C: sizes and weights static, `-O3 -march=native -ffast-math`."""

    def __init__(self, layer: nn.LSTM) -> None:
        compiler = next((c for c in ("gcc", "cc", "clang") if shutil.which(c)), None)
        if compiler is None:
            raise FileNotFoundError("no C compiler")
        sizes = [f"-DI={layer.input_size}", f"-DH={layer.hidden_size}"]
        flags = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC", *sizes]
        with tempfile.TemporaryDirectory() as folder:  # what is loaded needs no file
            source, library = (Path(folder) / name for name in ("step.c", "step.so"))
            source.write_text(_SOURCE)
            subprocess.run([compiler, *flags, str(source), "-o", str(library), "-lm"], check=True, capture_output=True)
            self._library = ctypes.CDLL(str(library))
        w = {n.removesuffix("_l0"): p.detach().numpy() for n, p in layer.named_parameters()}
        weight = np.ascontiguousarray(np.concatenate([w["weight_ih"], w["weight_hh"]], 1).T)
        bias = w["bias_ih"] + w["bias_hh"]
        self._library.load(_pointer(weight), _pointer(bias))
        self.h, self.c = (np.zeros(layer.hidden_size, np.float32) for _ in range(2))

    def run(self, x: Singles, nanoseconds: NDArray[np.int64]) -> None:
        """The rows x [T, I], and how long each took [T]."""
        self._library.run(_pointer(x), len(x), _pointer(self.h), _pointer(self.c), _pointer(nanoseconds))


def _pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
