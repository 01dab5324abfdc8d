"""The door of convolutional layers: which sibling computes a call. One layer, one direction, frames for rows."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from carousel.backends import Rows
from carousel.cell import CellSpec
from carousel.errors import NotSupported

__all__ = ["BACKENDS", "ConvCall", "ConvResult", "Window", "pick", "run"]

BACKENDS = ("native", "reference")  # in order of preference


class Window(NamedTuple):
    """How the input convolution looks at a frame; each (rows, columns). The recurrent one has stride and dilation 1.

    Zeros are added around the frame so that it becomes smaller by the stride alone: kernels are odd.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def padding(self) -> tuple[int, int]:
        (k, m), (d, e) = self.kernel, self.dilation
        return d * (k - 1) // 2, e * (m - 1) // 2

    @property
    def recurrent_padding(self) -> tuple[int, int]:
        return self.kernel[0] // 2, self.kernel[1] // 2

    def places(self, height: int, width: int) -> tuple[int, int]:
        """H', W' of a frame H, W."""
        return -(-height // self.stride[0]), -(-width // self.stride[1])


class ConvCall(NamedTuple):
    """N frames; weights named as CellSpec.shapes says, the two matrices with a kernel behind: [4H, I, k, k]."""

    x: Tensor  # [N, I, height, width]
    rows: Rows  # of frames
    h: Tensor  # [B, H, height', width']
    c: Tensor
    weights: dict[str, Tensor]
    window: Window


class ConvResult(NamedTuple):
    y: Tensor  # [N, H, height', width']
    h: Tensor
    c: Tensor


_LOADED: dict[str, ModuleType] = {}


def load(name: str) -> ModuleType:
    if name not in BACKENDS:
        raise ValueError(f"backend must be 'auto' or one of {', '.join(BACKENDS)}, got {name!r}")
    if name not in _LOADED:
        _LOADED[name] = importlib.import_module(f"carousel.backends.conv_{name}")
    return _LOADED[name]


def pick(spec: CellSpec, device: torch.device, dtype: torch.dtype, backend: str = "auto") -> ModuleType:
    """The backend asked for, or the first that can; NotSupported says why none does."""
    refused: list[str] = []
    for name in BACKENDS if backend == "auto" else (backend,):
        module = load(name)
        reason: str | None = module.supports(spec, device, dtype)
        if reason is None:
            return module
        refused.append(f"{name}: {reason}")
    raise NotSupported(f"no backend computes this ConvLSTM on {device.type} in {dtype}: {'; '.join(refused)}.")


def run(spec: CellSpec, call: ConvCall, backend: str = "auto") -> ConvResult:
    result: ConvResult = pick(spec, call.x.device, call.x.dtype, backend).run(spec, call)
    return result
