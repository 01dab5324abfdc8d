"""The loss of the forecast head with all of its gradients, in one call of the native core.

In torch the head's loss is some sixty operators on small tensors, forward and back, which cost more than the sums in
them. `loss` computes the same in one pass where it can, as `computes` says: float32 on the processor, and nobody
watching but autograd. Elsewhere `forecast_net` computes it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from carousel import _core
from carousel.backends.direct import ordinary, quiet
from carousel.heads.forecast_net import ForecastNet

__all__ = ["computes", "loss"]

OPERANDS = 6  # state, rows, linear, base, truth, share: gradients go to the first three


def computes(head: ForecastNet, state: Tensor) -> bool:
    """Whether `loss` may be called: for a training step in float32 on the processor."""
    return torch.is_grad_enabled() and quiet() and state.dtype is torch.float32 and all(
        ordinary(weight, torch.float32) and weight.requires_grad for weight in _weights(head)
    )  # fmt: skip


def loss(
    head: ForecastNet, state: Tensor, ahead: Tensor, linear: Tensor, base: Tensor, truth: Tensor, share: Tensor
) -> Tensor:
    """`pinball(head(state, ahead, linear, base), truth, share, quantiles)`: see there for shapes. A number."""
    apply: Any = _Loss.apply
    made: Tensor = apply(
        head,
        head.state(state),
        ahead.contiguous(),
        head.linear(linear.transpose(1, 2)),
        base.contiguous(),
        truth.contiguous(),
        share.contiguous(),
        *_weights(head),
    )
    return made


def _weights(head: ForecastNet) -> list[Tensor]:
    """In the core's order; without channels of the steps ahead there is no weight for them."""
    ahead = [] if head.ahead is None else [head.ahead.weight]
    layers = [part for layer in (head.hidden, head.out, head.gate) for part in (layer.weight, layer.bias)]
    return [head.step, *ahead, *layers, head.gate_step]


class _Loss(torch.autograd.Function):
    """Gradients are worked out with the loss, and wait for backward."""

    @staticmethod
    def forward(ctx: Any, head: ForecastNet, *given: Tensor) -> Tensor:
        operands, weights = given[:OPERANDS], given[OPERANDS:]
        state, rows, _, base, *_ = operands
        n, h, k, g = base.shape
        dims = [n, h, k, len(head.head.quantiles), head.head.median, g, state.shape[1], rows.shape[2]]
        wanted = [True, ctx.needs_input_grad[2] and rows.shape[2] > 0, True]
        found = [torch.empty_like(t) if want else None for t, want in zip(operands, wanted, strict=False)]
        of_weights = [torch.empty_like(t) for t in weights]
        value = _core.forecast_loss(
            dims,
            [_levels(head.head.quantiles).data_ptr(), *(t.data_ptr() for t in operands)],
            _addresses(weights, rows),
            [0 if t is None else t.data_ptr() for t in found],
            _addresses(of_weights, rows),
            torch.get_num_threads(),
        )
        ctx.found = [None, *found, None, None, None, *of_weights]
        return state.new_tensor(value)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of: Tensor) -> tuple[Tensor | None, ...]:
        factor = float(of)
        found, ctx.found = ctx.found, None
        return tuple(found) if factor == 1 else tuple(None if t is None else t * factor for t in found)


def _addresses(weights: list[Tensor] | tuple[Tensor, ...], rows: Tensor) -> list[int]:
    found = [t.data_ptr() for t in weights]
    return found if rows.shape[2] else [found[0], 0, *found[1:]]


@cache
def _levels(quantiles: tuple[float, ...]) -> Tensor:
    return torch.tensor(quantiles, dtype=torch.float32)
