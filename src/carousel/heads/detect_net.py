"""The detect head's module and loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.heads.classify_net import Output
from carousel.heads.detect import SMALLEST, DetectHead
from carousel.lstm import LSTM
from carousel.ragged import Ragged

__all__ = ["Autoencoder", "DetectNet", "detect_net", "student_loss"]

FREEDOM = 4.0  # degrees of freedom of Student's t: rows far off, which may be anomalies, pull little


class DetectNet(Output):
    """Rows of the stack, Ragged [N, P] -> change to the next row and raw scale of its forecast [N, 2 C]."""

    def __init__(self, head: DetectHead, state: int, dropout: float = 0.0) -> None:
        super().__init__(state, head.width, head.outputs)
        self.dropout = nn.Dropout(dropout)
        with torch.no_grad():
            self.out.weight.mul_(0.1)  # so that training starts from "as it was"
            self.out.bias.zero_()

    def forward(self, rows: Ragged) -> Tensor:
        return self.output(self.dropout(rows.values))


class Autoencoder(nn.Module):
    """Rows of the stack over windows, Ragged [N, P] -> reconstruction [N, C], read out from the last row backwards.

    Srivastava et al. 2015, Malhotra et al. 2016: what the encoder remembers of the whole window passes through a few
    numbers, which are all that the decoder is given.
    """

    def __init__(self, head: DetectHead, state: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.narrow = nn.Linear(state, head.code)
        self.decoder = LSTM(head.code, head.width)
        self.out = nn.Linear(head.width, head.outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, rows: Ragged) -> Tensor:
        offsets: Tensor = rows.offsets
        sequence: Tensor = rows.sequence
        code = self.narrow(self.dropout(rows.values[offsets[1:] - 1]))
        decoded, _ = self.decoder(rows.with_values(code[sequence]))
        backwards = offsets[sequence] + offsets[sequence + 1] - 1 - torch.arange(len(sequence), device=code.device)
        found: Tensor = self.out(decoded.values[backwards])
        return found


def detect_net(head: DetectHead, state: int, directions: int, dropout: float = 0.0) -> nn.Module:
    if head.method == "forecast":
        return DetectNet(head, state, dropout)
    return Autoencoder(head, state, dropout)


def student_loss(outputs: Tensor, base: Tensor, truth: Tensor) -> Tensor:
    """Negative log-likelihood [N, C] of Student's t, without its constant: outputs [N, 2 C], truth [N, C] ahead."""
    size = base.shape[1]
    scale = F.softplus(outputs[:, size:]) + SMALLEST
    r = (truth - base - outputs[:, :size]) / scale
    return torch.log(scale) + (FREEDOM + 1) / 2 * torch.log1p(r * r / FREEDOM)
