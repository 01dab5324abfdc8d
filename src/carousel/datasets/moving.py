"""Clips of handwritten digits, made on the spot: digits that move, and digits whose order is the label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.datasets.digits import digits

__all__ = ["digit_images", "digit_order", "moving_digits"]

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]


def digit_images(part: str = "train", side: int = 28) -> tuple[Bytes, Ints]:
    """scikit-learn's digits (Alpaydin & Kaynak 1998), enlarged to side x side: images [n, side, side] and labels [n].

    The parts `train` and `test` share no image. Pixels between the 8 x 8 of the originals are bilinear.

    >>> images, labels = digit_images("test")
    >>> images.shape, images.dtype, labels[:3].tolist()
    ((359, 28, 28), dtype('uint8'), [0, 5, 0])
    """
    if part not in ("train", "test"):
        raise ValueError(f"part must be train or test, got {part!r}")
    found = digits()[part == "test"]
    small = np.stack([x[:, 0] for x in found.x]).reshape(-1, 8, 8)
    place = np.clip((np.arange(side) + 0.5) * 8 / side - 0.5, 0, 7)
    low = np.minimum(place.astype(np.int64), 6)
    share = (place - low).astype(np.float32)
    tall = small[:, low] * (1 - share)[:, None] + small[:, low + 1] * share[:, None]
    wide = tall[:, :, low] * (1 - share) + tall[:, :, low + 1] * share
    return np.rint(wide * 255).astype(np.uint8), found.answer.astype(np.int64)


def moving_digits(
    clips: int,
    *,
    frames: int = 20,
    size: int = 64,
    digits: int = 2,
    speed: float = 3.6,
    images: Bytes | None = None,
    part: str = "train",
    seed: int = 0,
) -> Bytes:
    """Clips [clips, frames, size, size] of digits that move straight on, at `speed` pixels a frame, and bounce off the
    edges, after Srivastava et al. (2015, "Moving MNIST"); where digits overlap the brighter pixel shows.

    `images` [n, h, w] are drawn from, or, without them, `digit_images(part)`. The same seed gives the same clips.

    >>> moving_digits(2, frames=5, seed=1).shape
    (2, 5, 64, 64)
    """
    if min(clips, frames, digits) < 1:
        raise ValueError(f"clips, frames and digits must be at least 1, got {clips}, {frames} and {digits}")
    images = digit_images(part)[0] if images is None else images
    height, width = images.shape[1:]
    if size < max(height, width):
        raise ValueError(f"digits of {height} x {width} pixels need frames at least as large, got {size}")
    rng = np.random.default_rng([seed, 0xB0])
    made = np.zeros((clips, frames, size, size), np.uint8)
    for k in range(clips):
        for _ in range(digits):
            image = images[rng.integers(len(images))]
            angle = rng.uniform(0, 2 * math.pi)
            rows = _path(rng.uniform(0, size - height), speed * math.sin(angle), size - height, frames)
            columns = _path(rng.uniform(0, size - width), speed * math.cos(angle), size - width, frames)
            for t, (y, x) in enumerate(zip(rows, columns, strict=True)):
                place = made[k, t, y : y + height, x : x + width]
                np.maximum(place, image, out=place)
    return made


def _path(start: float, speed: float, room: float, frames: int) -> list[int]:
    """Whole positions within 0 ... room of what moves on and bounces."""
    if room <= 0:
        return [0] * frames
    straight = (start + speed * np.arange(frames)) % (2 * room)
    found: list[int] = np.rint(np.where(straight > room, 2 * room - straight, straight)).astype(int).tolist()
    return found


def digit_order(
    clips: int,
    *,
    frames: tuple[int, int] = (6, 12),
    size: int = 28,
    pair: tuple[int, int] = (3, 7),
    part: str = "train",
    seed: int = 0,
    shuffled: bool = False,
) -> tuple[list[Bytes], list[str]]:
    """Clips [T, size, size] that show digits one after another, and labels that only their order tells: which of the
    `pair` comes first ("3 first" or "7 first"). The other frames show other digits.

    The frames themselves are as likely under either label; `shuffled` puts them into random order after the label was
    taken, so that nothing of it is left. Lengths lie within `frames`, both included.

    >>> clips, labels = digit_order(3, seed=1)
    >>> [len(clip) for clip in clips], labels
    ([7, 7, 11], ['7 first', '7 first', '7 first'])
    """
    least, most = frames
    if not 2 <= least <= most:
        raise ValueError(f"frames must be two lengths of at least 2, got {frames}")
    if pair[0] == pair[1] or not all(0 <= digit <= 9 for digit in pair):
        raise ValueError(f"pair must be two different digits, got {pair}")
    images, digit = digit_images(part, size)
    own: Sequence[Any] = [np.flatnonzero(digit == name) for name in pair]
    rest = np.flatnonzero(~np.isin(digit, pair))
    rng, mixing = np.random.default_rng([seed, 0x0D]), np.random.default_rng([seed, 0x05])
    made, labels = [], []
    for _ in range(clips):
        count = int(rng.integers(least, most + 1))
        which = rng.choice(rest, count)
        first = int(rng.integers(2))
        at = np.sort(rng.choice(count, 2, replace=False))
        which[at[0]], which[at[1]] = rng.choice(own[first]), rng.choice(own[1 - first])
        made.append(images[mixing.permutation(which) if shuffled else which])
        labels.append(f"{pair[first]} first")
    return made, labels
