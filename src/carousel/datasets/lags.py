"""Tasks whose answer hangs on a few steps long ago."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from carousel.datasets.examples import Examples, Ints, Singles, Task, at_least, ragged
from carousel.ragged import Ragged

__all__ = ["Adding", "Copy", "Distractors", "Multiplication", "NoisyLag", "TemporalOrder"]


@dataclass(frozen=True)
class Adding(Task):
    """Add the two marked numbers of a sequence of T to 1.1 T numbers.

    A step is (number in [-1, 1], marker). One mark falls into steps 1 to 9, the other one before step T / 2; the first
    and the last marker are -1. The answer is 0.5 + (X1 + X2) / 4.

    >>> batch = next(Adding(100).stream(3, seed=1))
    >>> row = batch.x[0]
    >>> bool(np.isclose(0.5 + row[row[:, 1] == 1, 0].sum() / 4, batch.answer[0, 0]))
    True
    """

    length: int = 100

    name: ClassVar[str] = "adding"
    source: ClassVar[str] = "Hochreiter & Schmidhuber 1997, experiment 4"
    kind: ClassVar[Literal["number"]] = "number"
    inputs: ClassVar[int] = 2
    outputs: ClassVar[int] = 1

    def __post_init__(self) -> None:
        at_least("length", self.length, 24)  # two places for marks within the first half

    def draw(self, count: int, rng: np.random.Generator) -> Examples:
        numbers, offsets, first, second = self._marked(count, rng, -1.0)
        sums = numbers[first, 0] + numbers[second, 0]
        return _answered(numbers, offsets, (0.5 + sums / 4)[:, None])

    def _marked(self, count: int, rng: np.random.Generator, low: float) -> tuple[Singles, Ints, Ints, Ints]:
        lengths = rng.integers(self.length, self.length + self.length // 10 + 1, count)
        values, offsets, _, _ = ragged(lengths, 2)
        values[:, 0] = rng.uniform(low, 1, len(values))
        first = rng.integers(1, 10, count)
        second = rng.integers(1, self.length // 2 - 1, count)
        second += second >= first
        for mark in (first, second):
            values[offsets[:-1] + mark, 1] = 1
        for end in (offsets[:-1], offsets[1:] - 1):
            values[end, 1] = -1
        return values, offsets, offsets[:-1] + first, offsets[:-1] + second


@dataclass(frozen=True)
class Multiplication(Adding):
    """The same with numbers in [0, 1] and their product as the answer.

    >>> bool((next(Multiplication(50).stream(8)).answer <= 1).all())
    True
    """

    name: ClassVar[str] = "multiplication"
    source: ClassVar[str] = "Hochreiter & Schmidhuber 1997, experiment 5"

    def draw(self, count: int, rng: np.random.Generator) -> Examples:
        numbers, offsets, first, second = self._marked(count, rng, 0.0)
        product = numbers[first, 0] * numbers[second, 0]
        return _answered(numbers, offsets, product[:, None])


@dataclass(frozen=True)
class TemporalOrder(Task):
    """Which of X and Y stood at two (or three) places far apart, among distractors: 4 (or 8) classes.

    Symbols are one-hot: E(nd), B(egin), a, b, c, d, X, Y. Lengths 100 to 110; the places lie in 10-20 and 50-60, with
    three of them in 10-20, 33-43 and 66-76; both scale with `length`.

    >>> batch = next(TemporalOrder().stream(4))
    >>> marks = [row[row[:, 6:].any(1), 7] for row in batch.x]  # 1 where Y stands, 0 where X does
    >>> [int(m @ [2, 1]) for m in marks] == batch.answer.tolist()
    True
    """

    marks: Literal[2, 3] = 2
    length: int = 100

    name: ClassVar[str] = "temporal order"
    source: ClassVar[str] = "Hochreiter & Schmidhuber 1997, experiment 6"
    kind: ClassVar[Literal["class"]] = "class"
    inputs: ClassVar[int] = 8

    def __post_init__(self) -> None:
        at_least("length", self.length, 20)
        if self.marks not in (2, 3):
            raise ValueError(f"marks must be 2 or 3, got {self.marks}")

    @property
    def outputs(self) -> int:
        return int(2**self.marks)

    def draw(self, count: int, rng: np.random.Generator) -> Examples:
        lengths = rng.integers(self.length, self.length + self.length // 10 + 1, count)
        values, offsets, place, owner = ragged(lengths, self.inputs)
        symbol = rng.integers(2, 6, len(values))
        symbol[place == 0] = 1
        symbol[place == lengths[owner] - 1] = 0
        begins = {2: (0.1, 0.5), 3: (0.1, 0.33, 0.66)}[self.marks]
        answer = np.zeros(count, np.int64)
        for begin in begins:
            which = rng.integers(0, 2, count)
            at = int(begin * self.length) + rng.integers(0, self.length // 10 + 1, count)
            symbol[offsets[:-1] + at] = 6 + which
            answer = 2 * answer + which
        values[np.arange(len(values)), symbol] = 1
        return Examples(Ragged(values, offsets), offsets[1:] - 1, answer)


@dataclass(frozen=True)
class NoisyLag(Task):
    """The two-sequence problem: the first `carriers` numbers say the class (+1 or -1), Gaussian noise (variance 0.2)
    follows; with `noise` the carriers are noisy as well and answers are 0.2 and 0.8 plus noise of deviation 0.1
    (task 3c), in expectation to be answered by those means.

    >>> batch = next(NoisyLag(50).stream(5))
    >>> ((batch.x[0][:3, 0] > 0) == (batch.answer[0, 0] > 0.5)).all()
    np.True_
    """

    length: int = 100
    carriers: int = 3
    noise: bool = False

    name: ClassVar[str] = "noisy lag"
    source: ClassVar[str] = "Bengio et al. 1994; Hochreiter & Schmidhuber 1997, experiment 3"
    kind: ClassVar[Literal["number"]] = "number"
    inputs: ClassVar[int] = 1
    outputs: ClassVar[int] = 1

    def __post_init__(self) -> None:
        at_least("carriers", self.carriers, 1)
        at_least("length", self.length, self.carriers + 1)

    def draw(self, count: int, rng: np.random.Generator) -> Examples:
        lengths = rng.integers(self.length, self.length + self.length // 10 + 1, count)
        values, offsets, place, owner = ragged(lengths, 1)
        which = rng.integers(0, 2, count)
        values[:, 0] = rng.normal(0, np.sqrt(0.2), len(values))
        carrier = place < self.carriers
        clean = (2 * which[owner[carrier]] - 1).astype(np.float32)
        values[carrier, 0] = clean + (values[carrier, 0] if self.noise else 0)
        answer = np.where(which, 0.8, 0.2) + rng.normal(0, 0.1, count) if self.noise else which.astype(np.float64)
        return _answered(values, offsets, answer[:, None])


@dataclass(frozen=True)
class Distractors(Task):
    """After `lag` random symbols and a trigger, say again which of two symbols came first.

    >>> batch = next(Distractors(lag=20).stream(5))
    >>> [int(row[1].argmax()) for row in batch.x] == batch.answer.tolist()
    True
    """

    lag: int = 100
    symbols: int = 20

    name: ClassVar[str] = "distractors"
    source: ClassVar[str] = "Hochreiter & Schmidhuber 1997, experiment 2c"
    kind: ClassVar[Literal["class"]] = "class"
    outputs: ClassVar[int] = 2

    def __post_init__(self) -> None:
        at_least("lag", self.lag, 1)
        at_least("symbols", self.symbols, 1)

    @property
    def inputs(self) -> int:
        return self.symbols + 4  # x, y, begin, trigger, distractors

    def draw(self, count: int, rng: np.random.Generator) -> Examples:
        more = np.minimum(rng.geometric(0.1, count) - 1, self.lag)  # the paper: every further symbol at 9 in 10
        lengths = self.lag + more + 3
        values, offsets, place, owner = ragged(lengths, self.inputs)
        symbol = rng.integers(4, self.inputs, len(values))
        answer = rng.integers(0, 2, count)
        symbol[place == 0] = 2
        symbol[place == 1] = answer
        symbol[place == lengths[owner] - 1] = 3
        values[np.arange(len(values)), symbol] = 1
        return Examples(Ragged(values, offsets), offsets[1:] - 1, answer)


@dataclass(frozen=True)
class Copy(Task):
    """Repeat `symbols` symbols after `lag` blanks and a trigger; asked at each of the last steps.

    >>> batch = next(Copy(lag=7, symbols=3).stream(2))
    >>> batch.x.lengths.tolist(), batch.answer.shape, batch.x[1][:3].argmax(1).tolist() == batch.answer[3:].tolist()
    ([14, 14], (6,), True)
    """

    lag: int = 100
    symbols: int = 10
    alphabet: int = 8

    name: ClassVar[str] = "copy"
    source: ClassVar[str] = "Graves et al. 2014; Arjovsky et al. 2016"
    kind: ClassVar[Literal["class"]] = "class"

    def __post_init__(self) -> None:
        for field in ("lag", "symbols"):
            at_least(field, getattr(self, field), 1)
        at_least("alphabet", self.alphabet, 2)

    @property
    def inputs(self) -> int:
        return self.alphabet + 2  # blank, trigger

    @property
    def outputs(self) -> int:
        return self.alphabet

    def draw(self, count: int, rng: np.random.Generator) -> Examples:
        m = self.symbols
        answer = rng.integers(0, self.alphabet, (count, m))
        symbol = np.full((count, 2 * m + self.lag + 1), self.alphabet)
        symbol[:, :m] = answer
        symbol[:, m + self.lag] = self.alphabet + 1
        values, offsets, place, _ = ragged(np.full(count, symbol.shape[1]), self.inputs)
        values[np.arange(len(values)), symbol.reshape(-1)] = 1
        return Examples(Ragged(values, offsets), np.flatnonzero(place > m + self.lag), answer.reshape(-1))


def _answered(values: Singles, offsets: Ints, answer: NDArray[np.floating[Any]]) -> Examples:
    return Examples(Ragged(values, offsets), offsets[1:] - 1, np.asarray(answer, np.float32))
