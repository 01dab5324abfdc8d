"""The classify head's module and loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.heads.classify import ClassifyHead
from carousel.ragged import Ragged

__all__ = ["ClassifyNet", "Output", "pool"]


class Output(nn.Module):
    """[..., P] -> [..., K]: one linear layer, or a hidden one of ReLUs before it."""

    def __init__(self, state: int, width: int, outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(state, width) if width else None
        self.out = nn.Linear(width or state, outputs)

    def output(self, x: Tensor) -> Tensor:
        if self.hidden is not None:
            x = F.relu(self.hidden(x))
        found: Tensor = self.out(x)
        return found


class ClassifyNet(Output):
    """Rows of the stack, Ragged [N, D * P] -> logits or a number [B, K]."""

    def __init__(self, head: ClassifyHead, state: int, directions: int, dropout: float = 0.0) -> None:
        super().__init__(state, head.width, head.outputs)
        self.pooling, self.directions = head.pooling, directions
        self.attention = nn.Linear(state, 1, bias=False) if head.pooling == "attention" else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, rows: Ragged) -> Tensor:
        score = None if self.attention is None else self.attention(rows.values)[:, 0]
        return self.output(self.dropout(pool(rows, self.pooling, self.directions, score)))


def pool(rows: Ragged, pooling: str, directions: int = 1, score: Tensor | None = None) -> Tensor:
    """Values [N, P] of sequences of one row or more -> [B, P]; `score` [N] are the logits of attention."""
    values: Tensor = rows.values
    offsets: Tensor = rows.offsets
    count, width = len(rows), values.shape[1]
    if pooling == "last":
        ends = values[offsets[1:] - 1]
        if directions == 1:
            return ends
        return torch.cat([ends[:, : width // 2], values[offsets[:-1]][:, width // 2 :]], 1)
    sequence: Tensor = rows.sequence
    if pooling == "max":
        index = sequence[:, None].expand_as(values)
        return values.new_full((count, width), -torch.inf).scatter_reduce(0, index, values, "amax")
    if pooling == "mean":
        total = values.new_zeros(count, width).index_add(0, sequence, values)
        lengths: Tensor = rows.lengths
        return total / lengths[:, None].to(values.dtype)
    if score is None:
        raise ValueError(f"pooling {pooling!r} needs scores")
    top = score.detach().new_full((count,), -torch.inf).scatter_reduce(0, sequence, score.detach(), "amax")
    weight = torch.exp(score - top[sequence])
    total = values.new_zeros(count, width).index_add(0, sequence, values * weight[:, None])
    return total / weight.new_zeros(count).index_add(0, sequence, weight)[:, None]
