"""Dropout that costs little beside a small network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Dropout"]

LEVELS = 256


class Dropout(nn.Module):
    """As torch.nn.Dropout (Srivastava et al. 2014); on the processor with shares in steps of 1/256: one random byte
    decides about one number, where torch draws a double for each.

    >>> dropped = Dropout(0.25)(torch.ones(1000))
    >>> dropped.unique().tolist() == [0.0, torch.tensor(4 / 3).item()], 200 < int((dropped == 0).sum()) < 300
    (True, True)
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        bar = min(LEVELS - 1, round(self.share * LEVELS))
        if not self.training or not bar:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.share)
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= bar
        return x * kept.to(x.dtype).mul_(LEVELS / (LEVELS - bar))

    def extra_repr(self) -> str:
        return f"{self.share}"
