"""Frames ahead: what the heads `forecast` and `detect` are for clips, and their read-outs in NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from carousel.heads.view import View

__all__ = ["NextFramesHead", "OddFramesHead", "block_errors", "block_means", "block_names"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class NextFramesHead:
    """The next `horizon` frames after `context` of them, by convolutional LSTMs that go on with their own frames.

    A frame is cut into patches of `patch` x `patch` pixels, which are the channels of one place; layer k of the stack
    works on places halved k times, with kernels of `kernel` x `kernel`. What the layers remember is brought back to
    the patches from the topmost down, and says of each pixel which share of its brightness (as a logit) stays, and what
    is added.
    """

    context: int
    horizon: int
    patch: int = 4
    kernel: int = 3

    def __post_init__(self) -> None:
        if self.context < 1 or self.horizon < 1:
            raise ValueError(f"context and horizon must be at least 1, got {self.context} and {self.horizon}")
        _check_patches(self.patch, self.kernel)

    def member_shapes(self, config: Any) -> Shapes:
        """All weights of a member."""
        return _member_shapes(config, self.patch, self.kernel)


@dataclass(frozen=True)
class OddFramesHead:
    """How odd each frame is: the error of its prediction from the frames before, in `blocks` (rows, columns) of the
    picture, seen in several `views` as the errors of columns are in `DetectHead`, which explains the other fields.
    """

    method: ClassVar[str] = "forecast"
    blocks: tuple[int, ...]
    patch: int = 4
    kernel: int = 3
    reference: Literal["training", "history"] = "training"
    rest: int = 0
    threshold: float = 1.0
    views: tuple[View, ...] = ()

    def __post_init__(self) -> None:
        if len(self.blocks) != 2 or min(self.blocks) < 1:
            raise ValueError(f"blocks must be rows and columns, at least 1 each, got {self.blocks}")
        if self.rest < 0 or not self.threshold > 0:
            raise ValueError("rest is at least 0 and the threshold is positive")
        if any(len(view.centre) != self.blocks[0] * self.blocks[1] for view in self.views):
            raise ValueError(f"every view must be of {self.blocks[0] * self.blocks[1]} blocks")
        _check_patches(self.patch, self.kernel)

    @property
    def columns(self) -> tuple[str, ...]:
        return block_names(self.blocks)

    def member_shapes(self, config: Any) -> Shapes:
        """All weights of a member."""
        return _member_shapes(config, self.patch, self.kernel)


def _check_patches(patch: int, kernel: int) -> None:
    if patch < 1:
        raise ValueError(f"patch must be at least 1 pixel, got {patch}")
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"kernel must be odd, got {kernel}")


def _member_shapes(config: Any, patch: int, kernel: int) -> Shapes:
    """Of the layers, of what merges each with the one above it, and of the output."""
    stack, pixels = config.stack, config.input.picture.channels * patch * patch
    size, hidden, found = pixels, stack.hidden_size, {}
    for layer in range(stack.num_layers):
        for name, shape in stack.cell.shapes(size, hidden).items():
            window = (kernel, kernel) if len(shape) == 2 else ()
            found[f"layers.{layer}.{name}_l0"] = shape + window
        size = hidden
    for layer in range(stack.num_layers - 1):
        found[f"merge.{layer}.weight"] = (hidden, 2 * hidden, 1, 1)
        found[f"merge.{layer}.bias"] = (hidden,)
    found["out.weight"] = (2 * pixels, hidden + pixels, 3, 3)
    found["out.bias"] = (2 * pixels,)
    return found


def block_names(blocks: tuple[int, ...]) -> tuple[str, ...]:
    """Of the blocks of a picture, rows from its top and columns from its left.

    >>> block_names((1, 2))
    ('row 1 column 1', 'row 1 column 2')
    """
    return tuple(f"row {y + 1} column {x + 1}" for y in range(blocks[0]) for x in range(blocks[1]))


def block_errors(predicted: Floats, truth: Floats, blocks: tuple[int, ...]) -> Floats:
    """Root mean square [N, rows * columns] of differences [N, H, W, C] within each block of the picture.

    >>> block_errors(np.zeros((1, 2, 4, 1)), np.array([[[[3], [4], [0], [0]]] * 2]), (1, 2)).round(2).tolist()
    [[3.54, 0.0]]
    """
    return np.sqrt(_means((np.asarray(predicted, np.float64) - truth) ** 2, blocks))


def block_means(frames: NDArray[np.uint8], blocks: tuple[int, ...]) -> Floats:
    """Mean brightness [N, rows * columns] in [0, 1] of each block of frames [N, H, W, C] of bytes."""
    found = [_means(frames[k : k + 256].astype(np.float64), blocks) / 255 for k in range(0, len(frames), 256)]
    return np.concatenate(found)


def _means(values: Floats, blocks: tuple[int, ...]) -> Floats:
    n, height, width = values.shape[:3]
    rows = np.linspace(0, height, blocks[0] + 1).astype(np.int64)
    columns = np.linspace(0, width, blocks[1] + 1).astype(np.int64)
    total = np.add.reduceat(np.add.reduceat(values.mean(3), rows[:-1], 1), columns[:-1], 2)
    area = np.diff(rows)[:, None] * np.diff(columns)[None, :]
    return np.asarray((total / area).reshape(n, -1))
