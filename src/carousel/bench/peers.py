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

__all__ = ["INFERENCE_PEERS", "Handwritten", "inference", "installed", "onnx_graph", "training"]


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


def onnx_graph(lstm: nn.LSTM) -> bytes:
    """One unidirectional layer as an ONNX LSTM (gates i, o, f, c), dynamic in time and batch."""
    from onnx import TensorProto, helper, numpy_helper

    i, f, g, o = (np.arange(k * lstm.hidden_size, (k + 1) * lstm.hidden_size) for k in range(4))
    order = np.concatenate([i, o, f, g])
    w, r = lstm.weight_ih_l0.detach().numpy()[order][None], lstm.weight_hh_l0.detach().numpy()[order][None]
    b = np.concatenate([lstm.bias_ih_l0.detach().numpy()[order], lstm.bias_hh_l0.detach().numpy()[order]])[None]
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
    feed, made = {"x": x.numpy()}, []

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
    tensor, made = ov.Tensor(x.numpy()), []

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
    bias = lstm.bias_ih_l0 + lstm.bias_hh_l0
    layer.set_weights([t.detach().numpy() for t in (lstm.weight_ih_l0.T, lstm.weight_hh_l0.T, bias)])
    made: list[Any] = []

    def run() -> None:
        made[:] = [np.asarray(t) for t in layer(batch)]

    return Contender("keras", run, lambda: [made[0].transpose(1, 0, 2), made[1][None], made[2][None]])


class Handwritten(nn.Module):
    """A variant as people write it in torch: the input product of all steps at once, then a Python loop of steps.

    It shares the parameters of the carousel.LSTM given (one layer, one direction, time-major input).
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.spec = layer.spec

    def forward(self, x: Tensor, elapsed: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        spec, w = self.spec, {n.removesuffix("_l0"): p for n, p in self.layer.named_parameters()}
        size = self.layer.hidden_size
        h = x.new_zeros(x.shape[1], spec.output_size(size))
        c = x.new_zeros(x.shape[1], size)
        bias = w["bias_ih"] + w["bias_hh"]
        a = torch.nn.functional.linear(x, w["weight_ih"], None if spec.layer_norm else bias)
        if spec.layer_norm:
            a = torch.nn.functional.layer_norm(a, a.shape[-1:], w["norm_ih"]) + bias
        fade = self._fade(w, elapsed)
        dropped = self._dropped(h)
        outputs = []
        for t in range(x.shape[0]):
            h, c = self._step(w, a[t], h, c, None if fade is None else fade[t], dropped)
            outputs.append(h)
        return torch.stack(outputs), (h[None], c[None])

    def _fade(self, w: dict[str, Tensor], elapsed: Tensor | None) -> Tensor | None:
        if not self.spec.decay or elapsed is None:
            return None
        return torch.exp(-elapsed[..., None] * torch.nn.functional.softplus(w["decay_rate"]))

    def _dropped(self, h: Tensor) -> Tensor | None:
        p = self.spec.recurrent_dropout
        return torch.empty_like(h).bernoulli_(1 - p) / (1 - p) if p and self.training else None

    def _step(
        self,
        w: dict[str, Tensor],
        a: Tensor,
        h: Tensor,
        c: Tensor,
        fade: Tensor | None,
        dropped: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        spec, size, old_h = self.spec, self.layer.hidden_size, h
        if fade is not None:
            c = c * fade
        r = torch.nn.functional.linear(h if dropped is None else h * dropped, w["weight_hh"])
        if spec.layer_norm:
            r = torch.nn.functional.layer_norm(r, r.shape[-1:], w["norm_hh"])
        z = dict(zip(spec.gates, (a + r).split(size, -1), strict=True))
        peep = dict(zip(spec.gates.replace("g", ""), w["weight_ch"].split(size), strict=True)) if spec.peephole else {}
        f = torch.sigmoid(z["f"] + peep["f"] * c if peep else z["f"])
        i = 1 - f if spec.coupled else torch.sigmoid(z["i"] + peep["i"] * c if peep else z["i"])
        new_c = f * c + i * torch.tanh(z["g"])
        if spec.cell_clip:
            new_c = new_c.clamp(-spec.cell_clip, spec.cell_clip)
        o = torch.sigmoid(z["o"] + peep["o"] * new_c if peep else z["o"])
        seen = new_c
        if spec.layer_norm:
            seen = torch.nn.functional.layer_norm(new_c, (size,), w["norm_c"], w["norm_bias_c"])
        new_h = o * torch.tanh(seen)
        if spec.proj_size:
            new_h = torch.nn.functional.linear(new_h, w["weight_hr"])
        return self._zoneout(old_h, new_h, spec.zoneout_h), self._zoneout(c, new_c, spec.zoneout_c)

    def _zoneout(self, old: Tensor, new: Tensor, p: float) -> Tensor:
        if not p:
            return new
        return torch.where(torch.rand_like(new) < p, old, new) if self.training else p * old + (1 - p) * new


Build = Callable[[nn.LSTM, Tensor], Contender]
INFERENCE_PEERS: dict[str, Build] = {"onnxruntime": onnxruntime, "openvino": openvino, "keras": keras}
