"""The C++ core, for convolutional layers."""

from __future__ import annotations

import torch

from carousel.backends.conv import ConvCall, ConvResult
from carousel.cell import CellSpec

__all__ = ["run", "supports"]


def supports(spec: CellSpec, device: torch.device, dtype: torch.dtype) -> str | None:
    return "it computes no convolutions here"


def run(spec: CellSpec, call: ConvCall) -> ConvResult:
    raise NotImplementedError
