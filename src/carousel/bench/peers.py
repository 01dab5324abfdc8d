"""Other people's LSTMs, given our weights, behind the same little interface as our own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from carousel.bench.timing import Contender
from carousel.ragged import Ragged

Array = np.ndarray[Any, Any]

__all__ = ["INFERENCE_PEERS", "inference", "installed", "onnx_graph", "training"]


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def inference(name: str, module: nn.Module, x: object, tolerance: float = 1e-4) -> Contender:
    """A torch module on an input of its own kind; the outputs are taken from the last run."""
    module.eval()
    made: list[Tensor] = []

    @torch.no_grad()
    def run() -> None:
        made[:] = _tensors(module(x))

    return Contender(name, run, lambda: [t.float().numpy() for t in made], tolerance)


def training(name: str, module: nn.Module, x: object, seed: Tensor, tolerance: float = 1e-3) -> Contender:
    """Forward and backward of a torch module; compared are the output and the gradients of all weights."""
    module.train()
    made: list[Tensor] = []

    def run() -> None:
        module.zero_grad(set_to_none=True)
        y = _tensors(module(x))[0]
        y.backward(seed)
        made[:] = [y.detach()]

    def outputs() -> list[Array]:
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        return [t.float().numpy() for t in (*made, *gradients)]

    return Contender(name, run, outputs, tolerance)


def _tensors(found: Any) -> list[Tensor]:
    """Output, h and c of whatever a layer gave back; a packed or ragged output by its rows."""
    y, (h, c) = found[0], found[1]
    if not isinstance(y, Tensor):
        y = y.values if isinstance(y, Ragged) else y.data
    return [y, h, c]


def _weights(lstm: nn.LSTM) -> tuple[Array, Array, Array, Array]:
    """W, U and both biases of a single layer."""
    w, u, b, r = (p.detach().numpy() for p in lstm.all_weights[0])
    return w, u, b, r


def onnx_graph(lstm: nn.LSTM) -> bytes:
    """One unidirectional layer as an ONNX LSTM (gates i, o, f, c), dynamic in time and batch."""
    from onnx import TensorProto, helper, numpy_helper

    weight_ih, weight_hh, bias_ih, bias_hh = _weights(lstm)
    i, f, g, o = (np.arange(k * lstm.hidden_size, (k + 1) * lstm.hidden_size) for k in range(4))
    order = np.concatenate([i, o, f, g])
    w, r = weight_ih[order][None], weight_hh[order][None]
    b = np.concatenate([bias_ih[order], bias_hh[order]])[None]
    graph = helper.make_graph(
        [
            helper.make_node(
                "LSTM",
                ["x", "W", "R", "B"],
                ["y4", "h", "c"],
                hidden_size=lstm.hidden_size,
                direction="forward",
            ),
            helper.make_node("Squeeze", ["y4", "axis"], ["y"]),
        ],
        "lstm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", lstm.input_size])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["T", "B", lstm.hidden_size]),
            helper.make_tensor_value_info("h", TensorProto.FLOAT, [1, "B", lstm.hidden_size]),
            helper.make_tensor_value_info("c", TensorProto.FLOAT, [1, "B", lstm.hidden_size]),
        ],
        [numpy_helper.from_array(a, n) for n, a in {"W": w, "R": r, "B": b, "axis": np.array([1], np.int64)}.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def onnxruntime(lstm: nn.LSTM, x: Tensor) -> Contender:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = ort.InferenceSession(onnx_graph(lstm), options, providers=["CPUExecutionProvider"])
    feed = {"x": x.numpy()}
    made: list[Array] = []

    def run() -> None:
        made[:] = session.run(["y", "h", "c"], feed)

    return Contender("onnxruntime", run, lambda: made)


def openvino(lstm: nn.LSTM, x: Tensor) -> Contender:
    import openvino as ov

    core = ov.Core()
    config = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    model = core.read_model(onnx_graph(lstm))
    model.reshape({"x": list(x.shape)})
    request = core.compile_model(model, "CPU", config).create_infer_request()
    tensor = ov.Tensor(x.numpy())
    made: list[Array] = []

    def run() -> None:
        request.infer({"x": tensor})
        made[:] = [request.get_output_tensor(k).data for k in range(3)]

    return Contender("openvino", run, lambda: made)


def keras(lstm: nn.LSTM, x: Tensor) -> Contender:
    """Keras on whatever backend it is set to; its gates are i, f, c, o and it has one bias."""
    import keras as k

    layer = k.layers.LSTM(lstm.hidden_size, return_sequences=True, return_state=True)
    batch = x.transpose(0, 1).contiguous().numpy()
    layer(batch)
    weight_ih, weight_hh, bias_ih, bias_hh = _weights(lstm)
    layer.set_weights([weight_ih.T, weight_hh.T, bias_ih + bias_hh])
    made: list[Any] = []

    def run() -> None:
        made[:] = [np.asarray(t) for t in layer(batch)]

    return Contender("keras", run, lambda: [made[0].transpose(1, 0, 2), made[1][None], made[2][None]])


Build = Callable[[nn.LSTM, Tensor], Contender]
INFERENCE_PEERS: dict[str, Build] = {"onnxruntime": onnxruntime, "openvino": openvino, "keras": keras}
