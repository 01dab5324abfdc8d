"""Cross-entropy over a large vocabulary, without ever holding all logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["linear_cross_entropy"]

CACHE = 2**19  # logits that are worked on at once: 2 MB, so that they stay in the cache
ROUND = 64  # products of sizes that come again need no new code, which takes them longer than the product
BLOCK = 2**25  # gradients of logits that are kept at once


def linear_cross_entropy(x: Tensor, weight: Tensor, bias: Tensor, truth: Tensor, smoothing: float = 0.0) -> Tensor:
    """The mean over rows of `cross_entropy(x @ weight.T + bias, truth, label_smoothing=smoothing)`.

    x [N, E], weight [V, E], bias [V], truth [N]. The gradients are computed with the loss, piece by piece while logits
    are in the cache; products are in autocast's type where it is on, sums and exponentials in float32 or better.

    >>> x, weight, bias = torch.eye(2), torch.eye(3, 2), torch.zeros(3)
    >>> linear_cross_entropy(x, weight, bias, torch.tensor([0, 1]))  # log(e + 1 + 1) - 1
    tensor(0.5514)
    """
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    apply: Any = _LinearCrossEntropy.apply
    found: Tensor = apply(x, weight, bias, truth, smoothing, dtype)
    return found


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, truth: Tensor, smoothing: float, dtype: torch.dtype
    ) -> Tensor:
        rows, size = len(x), len(weight)
        wide = torch.promote_types(torch.float32, weight.dtype)
        with torch.autocast(x.device.type, enabled=False):
            weight_, bias_ = weight.detach().to(dtype), bias.detach().to(dtype)
            x_ = F.pad(x.detach().to(dtype), (0, 0, 0, -rows % ROUND))
            wanted = any(ctx.needs_input_grad)
            grads = [torch.zeros_like(part, dtype=wide) for part in (x, weight, bias)] if wanted else []
            total = x.new_zeros((), dtype=wide)
            step = max(ROUND, CACHE // size // ROUND * ROUND)
            block = max(step, BLOCK // size // ROUND * ROUND)
            kept = x_.new_zeros(min(block, len(x_)), size) if wanted else x_.new_empty(0)
            for a in range(0, rows, block):
                b = min(rows, a + block)
                for k in range(a, b, step):
                    m = min(b, k + step)
                    log = torch.addmm(bias_, x_[k : k + step], weight_.t())[: m - k].log_softmax(1, dtype=wide)
                    own = truth[k:m, None]
                    total -= (1 - smoothing) * log.gather(1, own).sum()
                    if smoothing:
                        total -= smoothing / size * log.sum()
                    if wanted:
                        log.exp_().sub_(smoothing / size)
                        log.scatter_add_(1, own, log.new_full(own.shape, smoothing - 1))
                        grads[2].add_(log.sum(0))
                        kept[k - a : m - a] = log
                if wanted:
                    whole = kept[: len(x_) - a]  # with the rows that round it up, whose x is 0
                    grads[0][a:b] = (whole @ weight_)[: b - a]
                    grads[1].add_(whole.t() @ x_[a : a + len(whole)])
        if wanted:
            ctx.save_for_backward(*(g / rows for g in grads))
        ctx.dtypes = (x.dtype, weight.dtype, bias.dtype)
        return total / rows

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        found = [(g * grads[0]).to(d) for g, d in zip(ctx.saved_tensors, ctx.dtypes, strict=True)]
        return (*found, None, None, None)
