"""The forecast head's module and loss."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.heads.forecast import ForecastHead

__all__ = ["ForecastNet", "pinball"]


class ForecastNet(nn.Module):
    """State of the stack at the origin -> quantiles [n, H, K, Q] of all steps ahead, in scaled units.

    The median is a mean of naive forecasts, weighed by a gate for each window and step, plus a linear map of the
    context (after Zeng et al. 2023), plus what the decoder reads from the state; the other quantiles lie at positive
    distances from it, so they never cross.
    """

    def __init__(
        self,
        head: ForecastHead,
        *,
        state: int,
        static: int,
        ahead: int,
        context: int,
        horizon: int,
        targets: int,
        bases: int,
    ) -> None:
        super().__init__()
        width, self.head, self.targets = head.width, head, targets
        self.step = nn.Parameter(0.1 * torch.randn(horizon, width))
        self.gate_step = nn.Parameter(torch.zeros(horizon, targets * bases))
        self.state = nn.Linear(state + static, width)
        self.ahead = nn.Linear(ahead, width, bias=False) if ahead else None
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, targets * len(head.quantiles))
        self.gate = nn.Linear(width, targets * bases)
        self.linear = nn.Linear(context + 1, horizon)
        with torch.no_grad():
            self.out.weight.mul_(0.1)
            for start in (self.out.bias, self.linear.weight, self.linear.bias):
                start.zero_()

    def forward(self, state: Tensor, ahead: Tensor, linear: Tensor, base: Tensor) -> Tensor:
        """state [n, .], ahead [n, H, .], linear [n, C + 1, K], base [n, H, K, G]: see `inputs.windows.Windows`."""
        z = self.state(state)[:, None] + self.step
        if self.ahead is not None:
            z = z + self.ahead(ahead)
        z = F.silu(self.hidden(F.silu(z)))
        raw = self.out(z).unflatten(-1, (self.targets, -1))  # [n, H, K, Q]
        gate = (self.gate(z) + self.gate_step).unflatten(-1, (self.targets, -1))  # [n, H, K, G]
        weight = (
            gate - gate.detach().amax(-1, keepdim=True)
        ).exp()  # torch's softmax over a handful costs thrice as much
        middle = self.head.median
        median = (
            (weight * base).sum(-1) / weight.sum(-1)
            + raw[..., middle]
            + self.linear(linear.transpose(1, 2)).transpose(1, 2)
        )
        found: Tensor = median[..., None] + F.softplus(raw - 1) @ _away(raw.shape[-1], middle, raw.device, raw.dtype)
        return found


@cache
def _away(quantiles: int, median: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[Q, Q]: how positive steps between neighbouring quantiles add up to their distances from the median.

    >>> _away(4, 1, torch.device("cpu"), torch.float32)
    tensor([[-1.,  0.,  0.,  0.],
            [ 0.,  0.,  0.,  0.],
            [ 0.,  0.,  1.,  1.],
            [ 0.,  0.,  0.,  1.]])
    """
    made = torch.zeros(quantiles, quantiles)
    for k in range(quantiles):
        if k < median:
            made[k, : k + 1] = -1
        elif k > median:
            made[k, k:] = 1
    return made.to(device, dtype)


def pinball(predicted: Tensor, truth: Tensor, weight: Tensor, quantiles: Tensor) -> Tensor:
    """Mean quantile loss (Koenker & Bassett 1978): predicted [n, H, K, Q], truth [n, H, K] with NaN, weight [n, K]."""
    seen = torch.isfinite(truth)
    error = torch.nan_to_num(truth)[..., None] - predicted
    loss = torch.maximum(quantiles * error, (quantiles - 1) * error).mean(-1) * seen
    return (loss.sum(1) / seen.sum(1).clamp(min=1) * weight).mean()
