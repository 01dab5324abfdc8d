"""Handwritten digits, read pixel by pixel, as an endless task: training digits shifted anew each time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from carousel.datasets import Examples, Task, digits
from carousel.ragged import Ragged

__all__ = ["HeldOut", "SeenDigits", "digit_tasks"]

SIDE = 8


@dataclass(frozen=True, eq=False)
class SeenDigits(Task):
    """Digits of the training part, each moved by up to `shift` pixels (fractions as well) and blurred by `noise`."""

    images: np.ndarray = field(repr=False)  # [B, 8, 8] in 0 ... 1
    labels: np.ndarray = field(repr=False)
    shift: float = 0.5
    noise: float = 0.05

    name: ClassVar[str] = "sequential digits"
    source: ClassVar[str] = "Alpaydin & Kaynak 1998; pixel by pixel after Le et al. 2015"
    kind: ClassVar[Literal["class"]] = "class"
    inputs: ClassVar[int] = 1
    outputs: ClassVar[int] = 10

    def draw(self, count: int, rng: np.random.Generator) -> Examples:
        chosen = rng.integers(0, len(self.labels), count)
        seen = _moved(self.images[chosen], rng.uniform(-self.shift, self.shift, (count, 2)))
        seen = seen + rng.normal(0, self.noise, seen.shape)
        return _examples(seen.astype(np.float32), self.labels[chosen])


@dataclass(frozen=True, eq=False)
class HeldOut(SeenDigits):
    """All digits of a part as they are, whatever count is asked for."""

    def draw(self, count: int, rng: np.random.Generator) -> Examples:
        return _examples(self.images, self.labels)


def digit_tasks(seed: int = 0, *, validate: bool = False) -> tuple[SeenDigits, HeldOut]:
    """What to train on, and the test part; with `validate` a sixth of the training part stands for the test part."""
    train, test = digits(seed=seed)
    x, y = train.x.values.reshape(-1, SIDE, SIDE), train.answer
    if validate:
        held = np.random.default_rng([seed, 0xA1]).permutation(len(y)) < len(y) // 6
        return SeenDigits(x[~held], y[~held]), HeldOut(x[held], y[held])
    return SeenDigits(x, y), HeldOut(test.x.values.reshape(-1, SIDE, SIDE), test.answer)


def _moved(images: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Images [B, 8, 8] moved by `by` [B, 2] pixels, down and to the right, linear between pixels, with 0 around."""
    for axis in (1, 2):
        move = by[:, axis - 1]
        whole = np.floor(move).astype(np.int64)
        part = (move - whole)[:, None, None].astype(np.float32)
        room = int(np.abs(by).max(initial=0)) + 2
        edge = [(0, 0), (0, 0), (0, 0)]
        edge[axis] = (room, room)
        wide = np.pad(images, edge)
        at = np.arange(SIDE)[None, :] + room - whole[:, None]  # [B, 8]
        at = at[:, :, None] if axis == 1 else at[:, None, :]
        images = (1 - part) * np.take_along_axis(wide, at, axis) + part * np.take_along_axis(wide, at - 1, axis)
    return images


def _examples(images: np.ndarray, labels: np.ndarray) -> Examples:
    offsets = np.arange(len(labels) + 1) * SIDE * SIDE
    return Examples(Ragged(np.ascontiguousarray(images.reshape(-1, 1)), offsets), offsets[1:] - 1, labels)
