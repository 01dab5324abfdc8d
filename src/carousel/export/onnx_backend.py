"""An ONNX backend that runs models of one LSTM node on `carousel.LSTM`, to hold the import to ONNX's own cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, numpy_helper
from onnx.backend.base import Backend, BackendRep

from carousel.errors import NotSupported
from carousel.export.layers import Array
from carousel.export.onnx_import import attributes_of, layer_of
from carousel.lstm import LSTM
from carousel.ragged import Ragged

__all__ = ["CarouselBackend", "CarouselRep"]


class CarouselRep(BackendRep):
    """One LSTM node, made into a layer when its weights are known: they may be inputs of the graph."""

    def __init__(self, model: ModelProto) -> None:
        (self.node,) = model.graph.node
        self.given = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
        self.inputs = [one.name for one in model.graph.input if one.name not in self.given]
        self.outputs = [one.name for one in model.graph.output]

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Array, ...]:
        """The graph's outputs, from its inputs in their order or by name."""
        fed = dict(inputs) if isinstance(inputs, dict) else dict(zip(self.inputs, inputs, strict=True))
        fed |= self.given
        names = [*self.node.input, *[""] * (8 - len(self.node.input))]
        x, w, r = (fed[name] for name in names[:3])
        b, lengths, h, c, p = (fed[name] if name else None for name in names[3:])
        made = layer_of(attributes_of(self.node), w, r, b, p)
        time_first = x if made.layout == 0 else x.swapaxes(0, 1)
        states = [None if s is None else s if made.layout == 0 else s.swapaxes(0, 1) for s in (h, c)]
        lstm = LSTM.of_layers(made.layers)
        rows, count = time_first.shape[:2]
        ends = np.full(count, rows) if lengths is None else np.asarray(lengths, np.int64)
        y, h, c = _run(lstm, time_first, ends, states, made.direction == "reverse")
        if made.layout == 1:
            y, h, c = y.transpose(2, 0, 1, 3), h.swapaxes(0, 1), c.swapaxes(0, 1)
        found = dict(zip(self.node.output, (y, h, c), strict=False))
        return tuple(found[name] for name in self.outputs)


def _run(
    lstm: LSTM, x: Array, ends: Array, states: Sequence[Array | None], reverse: bool
) -> tuple[Array, Array, Array]:
    """Y [T, D, B, H], Y_h and Y_c [D, B, H] of x [T, B, I]; rows behind the end of a sequence are 0."""
    steps, count = x.shape[:2]
    directions = 2 if lstm.bidirectional else 1
    empty = np.zeros((directions, count, lstm.hidden_size), x.dtype)
    sequences = [x[:end, k][:: -1 if reverse else 1] for k, end in enumerate(ends)]
    rows = Ragged.from_list([torch.from_numpy(one.copy()) for one in sequences])
    start = tuple(torch.from_numpy(np.ascontiguousarray(empty if s is None else s)) for s in states)
    lstm.batch_first = False
    with torch.no_grad():
        out, (h, c) = lstm(rows, (start[0], start[1]))
    y = np.zeros((steps, directions, count, lstm.hidden_size), x.dtype)
    for k, one in enumerate(out.to_list()):
        found = one.numpy()[:: -1 if reverse else 1]
        y[: len(found), :, k] = found.reshape(len(found), directions, -1)
    return y, h.numpy(), c.numpy()


class CarouselBackend(Backend):
    """`prepare(model).run(inputs)`, as onnx.backend.base has it; NotSupported for graphs of other nodes."""

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> CarouselRep:
        kinds = [node.op_type for node in model.graph.node]
        if kinds != ["LSTM"]:
            raise NotSupported(f"this backend runs graphs of one LSTM node, got {', '.join(kinds) or 'none'}.")
        if not cls.supports_device(device):
            raise NotSupported(f"this backend runs on the CPU, not on {device!r}.")
        return CarouselRep(model)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device == "CPU"
