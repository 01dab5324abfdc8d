"""The tag head's module."""

from __future__ import annotations

from torch import Tensor, nn

from carousel.heads.classify_net import Output
from carousel.heads.tag import TagHead
from carousel.ragged import Ragged

__all__ = ["TagNet"]


class TagNet(Output):
    """Rows of the stack, Ragged [N, D * P] -> logits or a number of each row [N, K]."""

    def __init__(self, head: TagHead, state: int, directions: int, dropout: float = 0.0) -> None:
        super().__init__(state, head.width, head.outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, rows: Ragged) -> Tensor:
        return self.output(self.dropout(rows.values))
