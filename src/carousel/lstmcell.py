"""`LSTMCell`: one step of an LSTM as a module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from carousel import backends
from carousel.backends import Call, Rows
from carousel.cell import CellSpec
from carousel.errors import DataError
from carousel.interchange import CellInterchange
from carousel.layout import check_gaps
from carousel.recurrent import Recurrent, check_input_dtype, check_sizes, check_state

__all__ = ["LSTMCell"]


class LSTMCell(CellInterchange, Recurrent):
    """torch.nn.LSTMCell with the variants: one step, `h, c = cell(x, (h, c))`, weights without the suffix _l0.

    Dropout that holds one mask for a whole sequence (recurrent_dropout, weight_drop) is not a matter of one step:
    use LSTM. Raises as LSTM does.

    >>> import carousel, torch
    >>> cell = carousel.LSTMCell(3, 5, coupled=True)
    >>> h, c = cell(torch.zeros(2, 3))
    >>> h.shape, cell.weight_ih.shape
    (torch.Size([2, 5]), torch.Size([15, 3]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        proj_size: int = 0,
        peephole: bool = False,
        coupled: bool = False,
        layer_norm: bool = False,
        decay: bool = False,
        cell_clip: float = 0.0,
        zoneout_c: float = 0.0,
        zoneout_h: float = 0.0,
        forget_bias: float | None = None,
        backend: str = "auto",
    ) -> None:
        check_sizes(input_size, hidden_size, bias, proj_size)
        spec = CellSpec(
            bias=bias,
            peephole=peephole,
            coupled=coupled,
            layer_norm=layer_norm,
            decay=decay,
            proj_size=proj_size,
            cell_clip=cell_clip,
            zoneout_c=zoneout_c,
            zoneout_h=zoneout_h,
        )
        super().__init__(input_size, hidden_size, spec, forget_bias, backend)
        self._register("", input_size, device, dtype)
        self.reset_parameters()

    @property
    def proj_size(self) -> int:
        return self.spec.proj_size

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        text += f", proj_size={self.proj_size}" if self.proj_size else ""
        return text + ("" if self.bias else ", bias=False") + self._variant_repr()

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None, *, elapsed: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """input [B, I] or [I]; hx = h [B, P], c [B, H] or without B; elapsed [B] or a single number, with decay."""
        self.check_elapsed(elapsed)
        if input.dim() not in (1, 2):
            raise ValueError(f"LSTMCell: Expected input to be 1D or 2D, got {input.dim()}D instead")
        for k, state in enumerate(hx or ()):
            if state.dim() not in (1, 2):
                raise ValueError(f"LSTMCell: Expected hx[{k}] to be 1D or 2D, got {state.dim()}D instead")
        x = input if input.dim() == 2 else input[None]
        h, c = self._states(x, hx)
        gaps = None
        if elapsed is not None:
            if elapsed.shape != input.shape[:-1]:
                raise DataError(f"elapsed must be {list(input.shape[:-1])}, got {list(elapsed.shape)}.")
            check_gaps(elapsed)
            gaps = elapsed.reshape(1, -1).to(x.device, x.dtype)
        at = torch.arange(x.shape[0], device=x.device)
        rows = Rows(at, at.new_zeros(1), torch.ones_like(at), dense=True, time_major=True)
        call = Call(x, rows, h[None], c[None], (self._weights(),), gaps, self._seed(x.device), False, 0)
        made = backends.run(self._running_spec(), call, self.backend)
        return (made.h[0], made.c[0]) if input.dim() == 2 else (made.h[0, 0], made.c[0, 0])

    def _states(self, x: Tensor, hx: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        sizes = (self.spec.output_size(self.hidden_size), self.hidden_size)
        if x.shape[1] != self.input_size:
            raise RuntimeError(f"input has inconsistent input_size: got {x.shape[1]} expected {self.input_size}")
        check_input_dtype(x, self._weight("weight_ih"))
        if hx is None:
            h, c = (x.new_zeros(x.shape[0], size) for size in sizes)
            return h, c
        states = [state if state.dim() == 2 else state[None] for state in hx]
        for k, (state, size) in enumerate(zip(states, sizes, strict=True)):
            if state.shape[0] != x.shape[0]:
                raise RuntimeError(f"Input batch size {x.shape[0]} doesn't match hidden{k} batch size {state.shape[0]}")
            if state.shape[1] != size:
                raise RuntimeError(f"hidden{k} has inconsistent hidden_size: got {state.shape[1]}, expected {size}")
            check_state(f"hx[{k}]", state, x)
        return states[0], states[1]
