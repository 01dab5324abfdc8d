"""`ConvLSTM`: the LSTM over frames, with convolutions for the affine maps. Layers, lengths and checks; no maths.

The equations are those of `cell.py`, at every place of the frame; what computes them stands behind `backends.conv`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from carousel.backends import Rows
from carousel.backends.conv import BACKENDS, ConvCall, Window, load, run
from carousel.cell import CellSpec
from carousel.errors import CarouselError, DataError
from carousel.layout import dense_rows, ragged_rows
from carousel.lstm import check_arguments
from carousel.ragged import Ragged
from carousel.recurrent import check_sizes

__all__ = ["ConvLSTM"]

Pair = int | tuple[int, int]


class ConvLSTM(nn.Module):
    """A stack of convolutional LSTMs over frames [T, B, C, H, W] (Shi et al. 2015, "Convolutional LSTM Network").

    - kernel_size: of both convolutions, odd; a number or (rows, columns). Zeros around the frame keep its size.
    - stride: of the first layer's input convolution; the states are [ceil(H / stride), ceil(W / stride)].
    - dilation: of every layer's input convolution; the recurrent one has dilation 1.
    - dropout: on the output of each layer but the last, in training.
    - peephole, coupled, layer_norm, cell_clip: as in LSTM. Peepholes have one weight for each channel and gate, where
      Shi et al. have one for each place besides: so frames of any size go through the same weights. Layer norm is
      over the channels of each place.
    - forget_bias: added to the forget gates' bias_ih at the start (Gers et al. 2000; 1.0 is common);
    - backend: "auto", "native" (the CPU), or "reference" (any device, differentiable as often as wanted).

    The weights are weight_ih_l0 [4H, C, k, k], weight_hh_l0 [4H, H, k, k], bias_ih_l0 and bias_hh_l0 [4H], gates in the
    order i, f, g, o; the others are LSTM's. They begin uniform in +-1 / sqrt((C + H) k k), as the one convolution over
    input and state together would.

    The state that comes out goes in again: frames one at a time, or in chunks, give what the whole clip gives.

    Raises TypeError and ValueError for arguments out of range; carousel.DataError (a ValueError) for frames or states
    that do not fit; NotSupported where no backend computes the combination.

    >>> import carousel, torch
    >>> layer = carousel.ConvLSTM(3, 8, kernel_size=3, num_layers=2, stride=2, peephole=True)
    >>> out, (h, c) = layer(torch.zeros(7, 2, 3, 15, 10))
    >>> out.shape, h.shape
    (torch.Size([7, 2, 8, 8, 5]), torch.Size([2, 2, 8, 8, 5]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        kernel_size: Pair = 3,
        num_layers: int = 1,
        *,
        stride: Pair = 1,
        dilation: Pair = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        peephole: bool = False,
        coupled: bool = False,
        layer_norm: bool = False,
        cell_clip: float = 0.0,
        forget_bias: float | None = None,
        backend: str = "auto",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        check_sizes(input_size, hidden_size, bias, 0)
        check_arguments(num_layers, batch_first, dropout, 0)
        if forget_bias is not None and not bias:
            raise CarouselError("forget_bias is added to the forget gate's bias: it needs bias=True.")
        for name in BACKENDS if backend == "auto" else (backend,):
            load(name)  # an unknown name is refused here, not at the first call
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.kernel_size, self.stride = _pair("kernel_size", kernel_size), _pair("stride", stride)
        self.dilation = _pair("dilation", dilation)
        if not (self.kernel_size[0] % 2 and self.kernel_size[1] % 2):
            raise CarouselError(f"kernel_size must be odd, so that a state keeps its size, got {kernel_size}.")
        self.batch_first, self.dropout, self.forget_bias, self.backend = (
            batch_first,
            float(dropout),
            forget_bias,
            backend,
        )
        self.spec = CellSpec(bias=bias, peephole=peephole, coupled=coupled, layer_norm=layer_norm, cell_clip=cell_clip)
        for layer in range(num_layers):
            for name, shape in self._shapes(layer).items():
                parameter = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
                self.register_parameter(f"{name}_l{layer}", parameter)
        self.reset_parameters()

    def _width(self, layer: int) -> int:
        return self.hidden_size if layer else self.input_size

    def _shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        shapes = self.spec.shapes(self._width(layer), self.hidden_size)
        return {name: shape + self.kernel_size * (len(shape) == 2) for name, shape in shapes.items()}

    def _window(self, layer: int) -> Window:
        return Window(self.kernel_size, (1, 1) if layer else self.stride, self.dilation)

    def _weights(self, layer: int) -> dict[str, Tensor]:
        names = self.spec.shapes(self._width(layer), self.hidden_size)
        return {name: getattr(self, f"{name}_l{layer}") for name in names}

    def reset_parameters(self) -> None:
        """Uniform in +-1 / sqrt(fan-in of input and state together); gains of layer norm 1, its offset 0."""
        for layer in range(self.num_layers):
            fan_in = (self._width(layer) + self.hidden_size) * math.prod(self.kernel_size)
            for name, weight in self._weights(layer).items():
                if name == "norm_bias_c":
                    nn.init.zeros_(weight)
                elif name.startswith("norm_"):
                    nn.init.ones_(weight)
                else:
                    nn.init.uniform_(weight, -(fan_in**-0.5), fan_in**-0.5)
            if self.forget_bias is not None:
                start = self.spec.gates.index("f") * self.hidden_size
                with torch.no_grad():
                    self._weights(layer)["bias_ih"][start : start + self.hidden_size] += self.forget_bias

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}, kernel_size={self.kernel_size}"
        defaults = {"num_layers": 1, "stride": (1, 1), "dilation": (1, 1), "batch_first": False, "dropout": 0.0}
        defaults |= {"forget_bias": None, "backend": "auto"}
        chosen = [(name, getattr(self, name)) for name, default in defaults.items() if getattr(self, name) != default]
        plain = CellSpec()
        for name in ("bias", "peephole", "coupled", "layer_norm", "cell_clip"):
            if getattr(self.spec, name) != getattr(plain, name):
                chosen.append((name, getattr(self.spec, name)))
        return text + "".join(f", {name}={value!r}" for name, value in chosen)

    def forward(
        self, input: Tensor | Ragged, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Any, tuple[Tensor, Tensor]]:
        """`out, (h, c)`: the last layer's output at every step, and the state of every layer after the last.

        input: [T, B, C, H, W], [B, T, C, H, W] with batch_first, or a Ragged of values [N, C, H, W]; `out` is of the
        same kind with hidden_size channels. state: h and c [L, B, hidden_size, H', W'] each, of an earlier call;
        zeros without it. What comes out lies in memory channels last.
        """
        frames, rows, wrap = self._frames(input)
        h, c = self._states(state, frames, rows)
        kind = frames.device.type
        casting = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if casting else frames.dtype
        y, h, c = frames.to(dtype), h.to(dtype), c.to(dtype)
        last: list[tuple[Tensor, Tensor]] = []
        off = torch.autocast(kind, enabled=False) if casting else contextlib.nullcontext()
        with off:  # each layer is of one type as a whole
            for layer in range(self.num_layers):
                if layer and self.dropout and self.training:
                    y = F.dropout(y, self.dropout)
                weights = {name: weight.to(dtype) for name, weight in self._weights(layer).items()}
                call = ConvCall(y, rows, h[layer], c[layer], weights, self._window(layer))
                y, *ends = run(self.spec, call, self.backend)
                last.append((ends[0], ends[1]))
        h, c = (torch.stack(ends) for ends in zip(*last, strict=True))
        return wrap(y), (h, c)

    def _frames(self, given: Any) -> tuple[Tensor, Rows, Callable[[Tensor], Any]]:
        """Frames [N, C, H, W], where each lies, and the way back to the kind that came in."""
        if isinstance(given, PackedSequence):
            raise TypeError("ConvLSTM takes a Tensor or a carousel.Ragged: make one by Ragged.from_packed.")
        is_ragged = isinstance(given, Ragged)
        x = given.values if is_ragged else given
        if not isinstance(x, Tensor):
            got = "a Ragged of NumPy arrays: give ragged.tensors()" if is_ragged else type(given).__name__
            raise TypeError(f"ConvLSTM takes a Tensor or a carousel.Ragged, got {got}")
        wanted = "[N, C, H, W]" if is_ragged else "[B, T, C, H, W]" if self.batch_first else "[T, B, C, H, W]"
        if x.dim() != (4 if is_ragged else 5):
            raise DataError(f"ConvLSTM takes frames {wanted}, got shape {list(x.shape)}.")
        if x.shape[-3] != self.input_size:
            raise DataError(f"the frames have {x.shape[-3]} channels, this ConvLSTM takes {self.input_size}.")
        if not x.shape[-1] or not x.shape[-2]:
            raise DataError(f"the frames have no pixels: shape {list(x.shape)}.")
        weight = self._weights(0)["weight_ih"]
        if x.device != weight.device:
            raise DataError(f"the frames are on {x.device}, this ConvLSTM on {weight.device}: move one to the other.")
        if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
            raise DataError(f"the frames are {x.dtype}, this ConvLSTM is {weight.dtype}: convert one to the other.")
        if is_ragged:
            return x, ragged_rows(given), given.with_values
        first, second = x.shape[:2]
        steps, batch = (second, first) if self.batch_first else (first, second)
        if not steps:
            raise DataError(f"ConvLSTM takes one frame at least, got shape {list(x.shape)}.")
        rows = dense_rows(steps, batch, not self.batch_first, x.device)
        return x.flatten(0, 1), rows, lambda y: y.unflatten(0, (first, second))

    def _states(self, state: tuple[Tensor, Tensor] | None, frames: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        places = self._window(0).places(*frames.shape[-2:])
        shape = (self.num_layers, rows.first.shape[0], self.hidden_size, *places)
        if state is None:
            return frames.new_zeros(shape), frames.new_zeros(shape)
        if not isinstance(state, tuple | list) or len(state) != 2:
            raise DataError("the state of a ConvLSTM is a pair (h, c), as an earlier call gave it.")
        for name, given in zip("hc", state, strict=True):
            if not isinstance(given, Tensor) or tuple(given.shape) != shape:
                got = list(given.shape) if isinstance(given, Tensor) else type(given).__name__
                raise DataError(f"the state {name} must be {list(shape)} for these frames, got {got}.")
            if given.device != frames.device:
                raise DataError(f"the state {name} is on {given.device}, the frames on {frames.device}: move one.")
            if given.dtype != frames.dtype and not torch.is_autocast_enabled(frames.device.type):
                raise DataError(f"the state {name} is {given.dtype}, the frames are {frames.dtype}: convert one.")
        return state[0], state[1]


def _pair(name: str, value: Pair) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, tuple | list) else ()
    if len(pair) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in pair):
        raise CarouselError(f"{name} must be a whole number above 0, or two of them (rows, columns), got {value!r}.")
    return pair[0], pair[1]
