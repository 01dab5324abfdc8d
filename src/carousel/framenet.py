"""The encoder of frames: a small convolutional network, the same for every frame, before the LSTM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.convlstm import ConvLSTM
from carousel.inputs.frames import FramesInput
from carousel.inputs.sequence import Channels
from carousel.ragged import Ragged

__all__ = ["FrameEncoder", "move_pictures", "normalised", "pieces"]

Ints = NDArray[np.int64]
Memory = tuple[Tensor, Tensor] | None

PIECE = 128  # frames encoded at once where no gradient is wanted: memory does not grow with a clip's length


class FrameEncoder(nn.Module):
    """Frames, bytes [N, H, W, C] -> features [N, F]; numbers [N, F] have been encoded already and pass by."""

    def __init__(self, config: FramesInput) -> None:
        super().__init__()
        self.picture = config.picture
        sizes = (config.picture.channels, *config.filters)
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1, bias=False) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(nn.GroupNorm(_groups(b), b) for b in config.filters)
        size = config.convlstm or sizes[-1]
        self.memory = ConvLSTM(sizes[-1], size, forget_bias=1.0) if config.convlstm else None
        height, width = config.grid
        self.out = nn.Linear(size * height * width, config.features)
        self.scaling: tuple[Tensor, Tensor] = (torch.tensor(config.mean) * 255, 1 / (torch.tensor(config.scale) * 255))

    def forward(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Features [N, F] of the frames of a SequenceBatch, and its static channels, of which there are none."""
        clips: Ragged = batch.values
        if clips.values.ndim == 2:
            return clips.values, batch.static
        if torch.is_grad_enabled():
            x = self._seen(clips.values)
            if self.memory is not None:
                x = self.memory(clips.with_values(x))[0].values
            return self._out(x), batch.static
        return self.encode_clips(clips.values, clips.offsets.cpu().numpy()), batch.static

    def encode_clips(
        self, frames: Any, offsets: NDArray[np.int64], told: Callable[[int], None] = lambda rows: None
    ) -> Tensor:
        """Features [N, F] of whole clips, frames offsets[b]:offsets[b + 1] each, piece by piece; `frames` [N, H, W, C]
        may be a tensor, or an array that lies in a file. `told` how many frames are done."""
        ends = offsets if self.memory is not None else np.array([0, offsets[-1]])
        found = []
        for a, b in pairwise(ends.tolist()):
            memory: Memory = None
            for part in pieces(b - a):
                piece = frames[a + part.start : a + part.stop]
                features, memory = self.encode(
                    piece if isinstance(piece, Tensor) else torch.from_numpy(np.array(piece)), memory
                )
                found.append(features)
                told(len(features))
        return torch.cat(found)

    def encode(self, pictures: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        """Features [n, F] of frames of one clip that follow one another, and what the next ones need."""
        x = self._seen(pictures)
        if self.memory is not None:
            x, memory = self.memory(x[:, None], memory)
            x = x[:, 0]
        return self._out(x), memory

    def _seen(self, pictures: Tensor) -> Tensor:
        x = normalised(pictures, *self.scaling)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(norm(convolution(x)))
        return x

    def _out(self, x: Tensor) -> Tensor:
        return F.relu(self.out(x.flatten(1)))


def _groups(filters: int) -> int:
    """Groups of eight filters, or as near to that as divides them."""
    return next(g for g in range(max(1, filters // 8), 0, -1) if filters % g == 0)


def normalised(pictures: Tensor, mean: Tensor, gain: Tensor) -> Tensor:
    """Bytes [N, H, W, C] -> numbers [N, C, H, W], in memory still channels last."""
    x = pictures.to(torch.get_default_dtype() if not pictures.is_floating_point() else pictures.dtype)
    return ((x - mean.to(x)) * gain.to(x)).permute(0, 3, 1, 2)


def pieces(count: int, size: int = PIECE) -> Iterator[slice]:
    """Slices of at most `size` of so many rows."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def move_pictures(seen: Channels, config: FramesInput, rng: np.random.Generator) -> Channels:
    """Shift, and mirror where that is wanted, all frames of a clip alike; what moves in stands still at the edge.

    Only what the estimator was told to do (`shift`, `flip`): where things are, and which way they go, may be the label.
    """
    height, width = config.picture.size
    down, across = int(config.shift * height), int(config.shift * width)
    if not (down or across or config.flip):
        return seen
    values = seen.values.copy()
    for a, b in zip(seen.offsets[:-1].tolist(), seen.offsets[1:].tolist(), strict=True):
        y, x = rng.integers(-down, down + 1), rng.integers(-across, across + 1)
        mirror = config.flip and rng.random() < 0.5
        rows = np.clip(np.arange(height) + y, 0, height - 1)
        columns = np.clip(np.arange(width) + x, 0, width - 1)
        columns = columns[::-1] if mirror else columns
        values[a:b] = values[a:b][:, rows[:, None], columns[None, :]]
    return seen._replace(values=values)
