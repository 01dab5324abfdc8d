"""torch's own kernel for the plain cell, with or without biases and projection (oneDNN on CPU, cuDNN on CUDA)."""

from __future__ import annotations

import functools
import warnings
from dataclasses import fields

import torch
from torch import _VF, Tensor

from carousel.backends import Call, Result
from carousel.cell import CellSpec

LACKS = {"trace": "torch's kernel hides its gates", "recompute": "torch's kernel keeps every step for backward"}


def supports(spec: CellSpec, device: torch.device, dtype: torch.dtype) -> str | None:
    # weight_drop is done to the weights before they come here
    free = {"bias", "proj_size", "weight_drop"}
    wanted = [f.name for f in fields(spec) if f.name not in free and getattr(spec, f.name)]
    if wanted:
        return f"torch's kernel computes the plain cell, without {', '.join(wanted)}"
    return None if dtype.is_floating_point else "it computes floating point numbers only"


def run(spec: CellSpec, call: Call) -> Result:
    if torch.compiler.is_compiling():  # torch.compile cannot differentiate torch's LSTM kernel, nor torch.nn.LSTM
        outside: Result = torch.compiler.disable(_run)(spec, call)
        return outside
    return _run(spec, call)


def _run(spec: CellSpec, call: Call) -> Result:
    if spec.proj_size and call.x.device.type == "cpu":
        _spend_warning()
    weights = [weight for direction in call.weights for weight in direction.values()]
    if call.rows.dense:
        y, h, c = _dense(spec, call, weights)
    else:
        y, h, c = _packed(spec, call, weights)
    return Result(y, h, c, None)


def _dense(spec: CellSpec, call: Call, weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    steps, batch = call.rows.ahead.shape[0], call.rows.first.shape[0]
    shape = (steps, batch) if call.rows.time_major else (batch, steps)
    x = call.x.view(*shape, call.x.shape[1])
    y, h, c = _VF.lstm(
        x, (call.h, call.c), weights, spec.bias, 1, 0.0, torch.is_grad_enabled(), len(call.weights) == 2,
        not call.rows.time_major,
    )  # fmt: skip
    return y.reshape(steps * batch, y.shape[2]), h, c


def _packed(spec: CellSpec, call: Call, weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows in any order are put into packed order first: by step, and within a step longest sequence first."""
    lengths, first, ahead = call.rows.lengths, call.rows.first, call.rows.ahead
    order = torch.argsort(lengths, descending=True, stable=True)
    order = order[: int((lengths > 0).sum())]  # a sequence without rows keeps its states
    if not order.numel():
        return call.x.new_zeros(0, len(call.weights) * call.h.shape[-1]), call.h, call.c
    live = torch.arange(ahead.shape[0], device=ahead.device)[:, None] < lengths[order]  # [T, B]
    row = (ahead[:, None] + first[order])[live]
    y, h, c = _VF.lstm(
        call.x[row], live.sum(1).cpu(), (call.h[:, order], call.c[:, order]), weights, spec.bias, 1, 0.0,
        torch.is_grad_enabled(), len(call.weights) == 2,
    )  # fmt: skip
    return (
        torch.zeros_like(y).index_copy(0, row, y),
        call.h.to(h.dtype).index_copy(1, order, h),
        call.c.to(c.dtype).index_copy(1, order, c),
    )


@functools.cache
def _spend_warning() -> None:
    """torch warns once a process that oneDNN has no projection: that is of no use to our callers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zeros = torch.zeros(1, 1, 2)
        state = (zeros[..., :1], zeros)
        _VF.lstm(
            zeros, state, [torch.zeros(8, 2), torch.zeros(8, 1), torch.zeros(1, 2)], False, 1, 0.0, False, False, False
        )
