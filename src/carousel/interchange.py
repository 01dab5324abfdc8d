"""`from_*` and `to_*` of LSTM and LSTMCell. The formats stand above the layer, so they are loaded when asked for."""

from __future__ import annotations

import os
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from typing import Self

__all__ = ["CellInterchange", "Interchange"]


def _format(name: str) -> Any:
    # a plain import would turn the direction of imports round: exports know the layer, not the layer its exports
    return import_module(f"carousel.export.{name}")


class Interchange:
    """Layers from and to other libraries. NotSupported, with the reason, for what has no equal on the other side.

    What is read is float64 where it was, float32 otherwise, and in training mode, as a new layer is. Weights are
    copied. Recurrent dropout and weight drop change nothing in evaluation and are not written.
    """

    @classmethod
    def from_onnx(cls, model: Any, *, node: str | None = None) -> Self:
        """The LSTM node of an ONNX model (a path, its bytes or a ModelProto), or its stack of LSTM nodes.

        `node`: the name of one node or of one of its outputs, to read that alone. Inputs are [T, B, I], or [B, T, I]
        where the node's layout is 1.
        """
        return cls.of_layers(_format("onnx_import").read(model, node))

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        """A torch.nn.LSTM or LSTMCell.

        >>> import carousel, torch
        >>> theirs = torch.nn.LSTM(3, 5, num_layers=2)
        >>> ours = carousel.LSTM.from_torch(theirs)
        >>> x = torch.ones(7, 2, 3)
        >>> bool(torch.allclose(ours(x)[0], theirs(x)[0], atol=1e-6))
        True
        """
        return cls.of_layers(_format("torch").read(module))

    @classmethod
    def from_keras(cls, layers: Any) -> Self:
        """A Keras LSTM, LSTMCell or Bidirectional LSTM, its get_weights(), or a list of them as a stack.

        The weights are kernel [I, 4H], recurrent_kernel [H, 4H] and, unless use_bias=False, bias [4H], with the gates
        in the order i, f, c, o. Inputs are [B, T, I].
        """
        return cls.of_layers(_format("keras").read(layers))

    @classmethod
    def from_flax(cls, params: Any) -> Self:
        """The parameters of a flax LSTMCell, OptimizedLSTMCell, RNN or Bidirectional, or of a haiku LSTM ({"w", "b"},
        whose forget bias grows by the 1 that haiku adds at run time); or a list of them as a stack.

        Inputs are [B, T, I].
        """
        return cls.of_layers(_format("flax").read(params))

    @classmethod
    def of_layers(cls, layers: Any) -> Self:
        """The module with the weights of a `carousel.export.layers.Layers`."""
        weights = {name: torch.from_numpy(value.copy()) for name, value in layers.weights.items()}
        build: Any = cls
        made = build(
            layers.input_size,
            layers.hidden_size,
            layers.num_layers,
            batch_first=layers.batch_first,
            dropout=layers.dropout,
            bidirectional=layers.bidirectional,
            dtype=weights["weight_ih_l0"].dtype,
            **asdict(layers.spec),
        )
        made.load_state_dict(weights)
        found: Self = made
        return found

    def to_onnx(self, path: str | os.PathLike[str], *, ragged: bool = False, scan: bool = False) -> None:
        """Write an ONNX file (opset 22) of every variant, as it is in evaluation.

        Inputs: `input` as the layer takes it, `h0` [L * D, B, P], `c0` [L * D, B, H]; with decay `elapsed`; with ragged
        `sequence_lens` [B], int32: rows behind the end of a sequence are not looked at, and 0 in the output. Outputs:
        `output`, `hn`, `cn`. Batch and time are dynamic. scan: write the cell out even where ONNX's LSTM operator would
        do, for runtimes that leave out its peepholes.
        """
        from carousel import atomic

        layers = _format("layers").Layers.of(self)
        atomic.write_bytes(path, _format("onnx").layers_model(layers, ragged=ragged, scan=scan))

    def to_torch(self) -> torch.nn.LSTM:
        """A torch.nn.LSTM that computes the same in evaluation; coupled gates become four."""
        made: torch.nn.LSTM = _format("torch").to_module(_format("layers").Layers.of(self))
        return made

    def to_keras(self) -> list[list[Any]]:
        """What `set_weights` of each Keras layer takes: [kernel, recurrent_kernel, bias], of both directions if two."""
        made: list[list[Any]] = _format("keras").to_weights(_format("layers").Layers.of(self))
        return made

    def to_flax(self, style: str = "flax") -> list[Any]:
        """The parameters of each layer's flax cell (or {"forward_rnn": ..., "backward_rnn": ...} of its Bidirectional);
        style="haiku": {"w", "b"} of each layer's linear map, the forget bias less by 1."""
        made: list[Any] = _format("flax").to_params(_format("layers").Layers.of(self), style)
        return made


class CellInterchange:
    """`from_torch` of LSTMCell."""

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        """A torch.nn.LSTMCell.

        >>> import carousel, torch
        >>> carousel.LSTMCell.from_torch(torch.nn.LSTMCell(3, 5))
        LSTMCell(3, 5)
        """
        if not isinstance(module, torch.nn.LSTMCell):
            raise TypeError(f"LSTMCell.from_torch takes a torch.nn.LSTMCell, got {type(module).__name__}")
        layers = _format("torch").read(module)
        weights = {name.removesuffix("_l0"): torch.from_numpy(value) for name, value in layers.weights.items()}
        build: Any = cls
        made = build(layers.input_size, layers.hidden_size, dtype=weights["weight_ih"].dtype, bias=layers.spec.bias)
        made.load_state_dict(weights)
        found: Self = made
        return found
