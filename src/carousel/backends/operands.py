"""What the C++ core may read: tensors are checked here before their addresses leave torch, and who is watching."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from carousel.cell import CellSpec
from carousel.errors import NotSupported

__all__ = ["check", "check_gradients", "plain", "refuse_transforms", "transformed"]


@lru_cache(maxsize=256)
def _weights(spec: CellSpec, input_size: int, hidden_size: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(spec.shapes(input_size, hidden_size).items())


def check(
    spec: CellSpec,
    x: Tensor,
    rows: Sequence[Tensor],
    h: Tensor,
    c: Tensor,
    weights: Sequence[Tensor],
    elapsed: Tensor | None,
) -> None:
    """RuntimeError, as torch raises, where a tensor has another device, dtype or shape than the others imply."""
    if x.dim() != 2 or h.dim() != 3 or c.dim() != 3:
        raise RuntimeError(f"x, h and c must have 2, 3 and 3 dimensions, got {x.dim()}, {h.dim()} and {c.dim()}")
    directions, batch, _ = h.shape
    hidden = c.shape[2]
    _is("h", h, x, (directions, batch, spec.output_size(hidden)))
    _is("c", c, x, (directions, batch, hidden))
    expected = _weights(spec, x.shape[1], hidden)
    if len(weights) != directions * len(expected):
        raise RuntimeError(f"{directions} directions have {directions * len(expected)} weights, got {len(weights)}")
    for k, weight in enumerate(weights):
        name, shape = expected[k % len(expected)]
        _is(name, weight, x, shape)
    if (elapsed is not None) != spec.decay:
        raise RuntimeError("elapsed belongs to decay: give both or none")
    if elapsed is not None:
        _is("elapsed", elapsed, x, (directions, x.shape[0]))
    first, ahead, lengths = rows
    if first.shape != (batch,) or lengths.shape != (batch,) or ahead.dim() != 1:
        raise RuntimeError(f"rows must be first [{batch}], ahead [T] and lengths [{batch}]")
    for t in rows:
        if t.dtype is not torch.int64 or not t.is_cpu:
            raise RuntimeError(f"rows must be int64 on the CPU, got {t.dtype} on {t.device}")


def check_gradients(
    x: Tensor, h: Tensor, c: Tensor, y: Tensor, of: Sequence[Tensor], reserve: Tensor, kept: tuple[int, ...]
) -> None:
    """The same for what backward reads besides; `kept` is the shape of the reserve that forward leaves."""
    if tuple(reserve.shape) != kept:
        raise RuntimeError(
            "this forward pass kept nothing for backward: run, trace or export it with gradients enabled and with "
            "weights or input that require them"
        )
    width = (x.shape[0], h.shape[0] * h.shape[2])
    for name, tensor, shape in zip(
        ("y", "the gradient of y", "the gradient of h", "the gradient of c"),
        (y, *of),
        (width, width, tuple(h.shape), tuple(c.shape)),
        strict=True,
    ):
        _is(name, tensor, x, shape)


def _is(name: str, t: Tensor, x: Tensor, shape: tuple[int, ...]) -> None:
    if not t.is_cpu or not x.is_cpu:
        raise RuntimeError(
            "Input and parameter tensors are not at the same device, found input tensor at "
            f"{x.device} and {name} at {t.device}"
        )
    if t.dtype is not x.dtype:
        raise RuntimeError(f"{name} is {t.dtype} but the input {x.dtype}: convert one to the other")
    if t.shape != shape or t.layout is not torch.strided:
        raise RuntimeError(f"{name} must be a dense tensor of shape {list(shape)}, got {list(t.shape)} ({t.layout})")


def plain(tensors: Sequence[Tensor | None]) -> bool:
    """Whether nobody watches: then the operators' own machinery (0.2 ms a step) is not needed."""
    return (
        all(t is None or type(t) in (Tensor, torch.nn.Parameter) for t in tensors)
        and not torch.is_autocast_enabled("cpu")
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._ops._len_torch_dispatch_stack_pre_dispatch() == 0
        and torch._C._get_tracing_state() is None
        and not transformed(tensors)
    )


def transformed(tensors: Sequence[Tensor | None]) -> bool:
    """Whether torch.func or a vectorised Jacobian looks on."""
    functorch: Any = torch._C._functorch
    return functorch.peek_interpreter_stack() is not None or any(
        t is not None and (functorch.is_batchedtensor(t) or functorch.is_legacy_batchedtensor(t)) for t in tensors
    )


def refuse_transforms(tensors: Sequence[Tensor | None]) -> None:
    """The core computes no tangents, and an operator without them would pass for a constant; torch's operators with
    a registered derivative cannot be transformed by torch.func.grad."""
    top: Any = torch._C._functorch.peek_interpreter_stack()
    if top is not None and top.key() == torch._C._functorch.TransformType.Grad:
        raise NotSupported(
            "torch.func.grad, vjp and jacrev cannot look into the native backend: use torch.autograd.grad, or "
            "backend='reference'."
        )
    if forward_ad._current_level < 0:
        return
    if transformed(tensors) or any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors):
        raise NotSupported(
            "the native backend computes no forward-mode derivatives (jvp, jacfwd): use backend='reference', or "
            "torch.autograd.grad."
        )
