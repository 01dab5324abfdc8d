"""`cell.step` with convolutions for its affine maps, place by place: differentiable as often as wanted, any device.

The input convolution of all frames is one call; the recurrent one is a call a step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from carousel.backends.conv import ConvCall, ConvResult
from carousel.backends.reference import visits_of
from carousel.cell import CellSpec, step

__all__ = ["run", "supports"]


def supports(spec: CellSpec, device: torch.device, dtype: torch.dtype) -> str | None:
    return None if dtype.is_floating_point else "it computes floating point numbers only"


def run(spec: CellSpec, call: ConvCall) -> ConvResult:
    x, window, weights = call.x, call.window, call.weights
    h, c = (_places(t) for t in (call.h, call.c))  # [B, height', width', H]
    height, width, hidden = h.shape[1:]
    if not x.shape[0]:
        return ConvResult(x.new_zeros(0, hidden, height, width), call.h, call.c)
    wide = F.conv2d(x, weights["weight_ih"], stride=window.stride, padding=window.padding, dilation=window.dilation)
    z = _places(wide)  # [N, height', width', 4H]

    def maps(w: Any, a: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        frames = before.reshape(-1, height, width, hidden).permute(0, 3, 1, 2)
        return a, _rows(_places(F.conv2d(frames, w["weight_hh"], padding=window.recurrent_padding)))

    outputs: list[Tensor] = []
    visits = visits_of(call.rows, reverse=False)
    for live, _, row in visits:
        made = step(spec, weights, _rows(z[row]), _rows(h[live]), _rows(c[live]), maps=maps)
        shape = (live.shape[0], height, width, hidden)
        new_h, new_c = made.h.view(shape), made.c.view(shape)
        h, c = h.index_copy(0, live, new_h), c.index_copy(0, live, new_c)
        outputs.append(new_h)
    where = torch.argsort(torch.cat([visit.row for visit in visits]))
    return ConvResult(*(t.permute(0, 3, 1, 2) for t in (torch.cat(outputs)[where], h, c)))


def _places(frames: Tensor) -> Tensor:
    """[N, C, height, width] -> [N, height, width, C]"""
    return frames.permute(0, 2, 3, 1)


def _rows(places: Tensor) -> Tensor:
    """[N, height, width, C] -> [N * height * width, C]"""
    return places.reshape(-1, places.shape[-1])
