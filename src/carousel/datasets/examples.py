"""What a synthetic task hands out, and what all tasks have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from carousel.ragged import Ragged

__all__ = ["Examples", "Task"]

Ints = NDArray[np.int64]
Singles = NDArray[np.float32]


@dataclass(frozen=True)
class Examples:
    """B sequences and the M places in them where an answer is asked."""

    x: Ragged  # values float32 [N, I]
    at: Ints  # [M] rows of x.values, ascending
    answer: NDArray[
        Any
    ]  # numbers: float32 [M, K]; a class: int64 [M]; symbols, of which several may follow: bool [M, K]

    @property
    def owner(self) -> Ints:
        """The sequence that each answer belongs to [M]."""
        return np.asarray(np.searchsorted(self.x.offsets, self.at, side="right") - 1)

    def right(self, output: NDArray[Any], tolerance: float = 0.04) -> NDArray[np.bool_]:
        """Whether each sequence [B] is answered right at every place, for outputs [M, K]: numbers within `tolerance`
        (0.04 as in Hochreiter & Schmidhuber 1997), the largest output at the class, every legal symbol above every
        other one.
        """
        if self.answer.dtype == np.bool_:
            legal = np.where(self.answer, output, np.inf).min(1)
            good = legal > np.where(self.answer, -np.inf, output).max(1)
        elif self.answer.dtype == np.int64:
            good = output.argmax(1) == self.answer
        else:
            good = (np.abs(output - self.answer) < tolerance).all(1)
        return np.asarray(np.bincount(self.owner, ~good, len(self.x)) == 0)


class Task(ABC):
    """An endless, seeded source of sequences: the same seed gives the same ones, drawn in batches of the same size."""

    name: ClassVar[str]
    source: ClassVar[str]
    kind: ClassVar[Literal["number", "class", "symbols"]]

    @property
    @abstractmethod
    def inputs(self) -> int:
        """Channels of a step."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Numbers, classes or symbols to answer with."""

    @abstractmethod
    def draw(self, count: int, rng: np.random.Generator) -> Examples:
        """`count` fresh sequences."""

    def stream(self, batch_size: int, seed: int = 0) -> Iterator[Examples]:
        """Batches without end."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        rng = np.random.default_rng([seed, 0xDA])
        while True:
            yield self.draw(batch_size, rng)


def ragged(lengths: Ints, width: int) -> tuple[Singles, Ints, Ints, Ints]:
    """Zeros [N, width] for sequences of these lengths, their offsets [B + 1], and of each row its place and owner."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    return np.zeros((int(offsets[-1]), width), np.float32), offsets, np.arange(offsets[-1]) - offsets[owner], owner


def at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
