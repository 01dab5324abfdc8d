"""The C++ core."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from carousel import _core
from carousel.backends import Call, Result
from carousel.cell import CellSpec

_TYPES = {torch.float32: 0, torch.float64: 1}


def supports(spec: CellSpec, device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cpu":
        return "it runs on the CPU"
    if dtype not in _TYPES:
        return "it computes float32 and float64"
    if spec != CellSpec(bias=spec.bias, weight_drop=spec.weight_drop):
        return "it computes the plain cell only"
    return "it has no backward pass yet" if torch.is_grad_enabled() else None


@lru_cache(maxsize=256)
def _plan(spec: CellSpec, dtype: torch.dtype, input_size: int, hidden_size: int, output_size: int, directions: int) -> _core.Plan:
    return _core.Plan(
        type=_TYPES[dtype],
        bias=spec.bias,
        peephole=spec.peephole,
        coupled=spec.coupled,
        layer_norm=spec.layer_norm,
        decay=spec.decay,
        projection=spec.proj_size > 0,
        cell_clip=spec.cell_clip,
        recurrent_dropout=spec.recurrent_dropout,
        zoneout_c=spec.zoneout_c,
        zoneout_h=spec.zoneout_h,
        input_size=input_size,
        hidden_size=hidden_size,
        output_size=output_size,
        directions=directions,
    )


def run(spec: CellSpec, call: Call) -> Result:
    d, b, p = call.h.shape
    plan = _plan(spec, call.x.dtype, call.x.shape[-1], call.c.shape[-1], p, d)
    x = call.x if call.x.stride(-1) == 1 else call.x.contiguous()
    keep = [t.contiguous() for t in (*call.rows[:3], call.h, call.c)]
    weights = [w.contiguous() for direction in call.weights for w in direction.values()]
    y, h, c = x.new_empty(x.shape[0], d * p), torch.empty_like(keep[3]), torch.empty_like(keep[4])
    _core.forward(
        plan,
        [x.shape[0], b, call.rows.ahead.numel(), x.stride(0)],
        [t.data_ptr() for t in (x, *keep)] + [0],
        [t.data_ptr() for t in weights],
        [y.data_ptr(), h.data_ptr(), c.data_ptr(), 0, 0],
        False,
        0,
        torch.get_num_threads(),
    )
    return Result(y, h, c, None)
