"""Formal languages: answers that follow from every symbol so far, and grammars whose next symbol is to be foreseen."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from carousel.datasets.examples import Examples, Ints, Task, at_least, ragged
from carousel.ragged import Ragged

__all__ = ["Counting", "CycleNavigation", "EmbeddedReber", "EvenPairs", "ModularArithmetic", "Parity"]


@dataclass(frozen=True)
class _Automaton(Task):
    """Strings of `shortest` to `longest` symbols with one answer at the end, or with one for every prefix."""

    shortest: int = 1
    longest: int = 40
    every_step: bool = False

    kind: ClassVar[Literal["class"]] = "class"
    source: ClassVar[str] = "Deletang et al. 2023"

    def __post_init__(self) -> None:
        at_least("shortest", self.shortest, 1)
        at_least("longest", self.longest, self.shortest)

    def draw(self, count: int, rng: np.random.Generator) -> Examples:
        lengths = self._lengths(count, rng)
        values, offsets, place, owner = ragged(lengths, self.inputs)
        padded = np.zeros((count, int(lengths.max())), np.int64)
        symbol = self._symbols(place, rng)
        padded[owner, place] = symbol
        values[np.arange(len(values)), symbol] = 1
        answer = self._answers(padded)[owner, place]
        at = np.flatnonzero(self._asked(place)) if self.every_step else offsets[1:] - 1
        return Examples(Ragged(values, offsets), at, answer[at])

    def _lengths(self, count: int, rng: np.random.Generator) -> Ints:
        return rng.integers(self.shortest, self.longest + 1, count)

    def _symbols(self, place: Ints, rng: np.random.Generator) -> Ints:
        return rng.integers(0, self.inputs, len(place))

    def _asked(self, place: Ints) -> NDArray[np.bool_]:
        return np.ones(len(place), bool)

    @abstractmethod
    def _answers(self, symbols: Ints) -> Ints:
        """Of every prefix of the padded symbols [B, T], causal along T."""


@dataclass(frozen=True)
class Parity(_Automaton):
    """Is the number of ones odd?

    >>> batch = next(Parity(longest=9).stream(4))
    >>> [int(row[:, 1].sum() % 2) for row in batch.x] == batch.answer.tolist()
    True
    """

    name: ClassVar[str] = "parity"
    inputs: ClassVar[int] = 2
    outputs: ClassVar[int] = 2

    def _answers(self, symbols: Ints) -> Ints:
        return np.asarray(symbols.cumsum(1) % 2)


@dataclass(frozen=True)
class EvenPairs(_Automaton):
    """Is the number of changes between neighbours even, that is, are the first and the last symbol the same?

    >>> batch = next(EvenPairs(longest=9).stream(4))
    >>> [int((row[0] == row[-1]).all()) for row in batch.x] == batch.answer.tolist()
    True
    """

    name: ClassVar[str] = "even pairs"
    inputs: ClassVar[int] = 2
    outputs: ClassVar[int] = 2

    def _answers(self, symbols: Ints) -> Ints:
        return np.asarray(symbols == symbols[:, :1], np.int64)


@dataclass(frozen=True)
class CycleNavigation(_Automaton):
    """Where on a ring of five places do steps of -1, 0 and +1 lead?

    >>> batch = next(CycleNavigation(longest=9).stream(4))
    >>> [int((row @ [-1, 0, 1]).sum() % 5) for row in batch.x] == batch.answer.tolist()
    True
    """

    name: ClassVar[str] = "cycle navigation"
    inputs: ClassVar[int] = 3
    outputs: ClassVar[int] = 5

    def _answers(self, symbols: Ints) -> Ints:
        return np.asarray((symbols - 1).cumsum(1) % 5)


@dataclass(frozen=True)
class ModularArithmetic(_Automaton):
    """The value, modulo 5, of digits joined by +, - and *, where products bind closer; lengths are odd.

    Symbols are one-hot: the digits 0 to 4, then +, -, *.

    >>> task = ModularArithmetic()
    >>> int(task._answers(np.array([[1, 6, 2, 7, 4]]))[0, -1])  # 1 - 2 * 4 = -7
    3
    """

    name: ClassVar[str] = "modular arithmetic"
    inputs: ClassVar[int] = 8
    outputs: ClassVar[int] = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("longest", self.longest, self.shortest + 1 - self.shortest % 2)

    def _lengths(self, count: int, rng: np.random.Generator) -> Ints:
        low, high = self.shortest // 2, (self.longest - 1) // 2
        return 2 * rng.integers(low, high + 1, count) + 1

    def _symbols(self, place: Ints, rng: np.random.Generator) -> Ints:
        return np.where(place % 2, rng.integers(5, 8, len(place)), rng.integers(0, 5, len(place)))

    def _asked(self, place: Ints) -> NDArray[np.bool_]:
        return np.asarray(place % 2 == 0)

    def _answers(self, symbols: Ints) -> Ints:
        total, term = np.zeros(len(symbols), np.int64), symbols[:, 0] % 5
        found = np.zeros_like(symbols)
        found[:, 0] = term
        for t in range(2, symbols.shape[1], 2):
            how, digit = symbols[:, t - 1], symbols[:, t]
            total = np.where(how == 7, total, total + term) % 5
            term = np.where(how == 7, term * digit, np.where(how == 6, -digit, digit)) % 5
            found[:, t - 1] = found[:, t - 2]
            found[:, t] = (total + term) % 5
        return found


@dataclass(frozen=True)
class Counting(Task):
    """Foresee the next symbol of a^n b^n, or with three `letters` of a^n b^n c^n, for n up to `most`.

    Symbols are one-hot: the start, the letters, the end. The first letter may go on or not, after it all is certain.

    >>> batch = next(Counting(most=3).stream(1, seed=5))
    >>> batch.x[0].argmax(1).tolist(), batch.answer.astype(int)[-1].tolist()
    ([0, 1, 1, 2, 2], [0, 0, 0, 1])
    """

    letters: Literal[2, 3] = 2
    least: int = 1
    most: int = 10

    name: ClassVar[str] = "counting"
    source: ClassVar[str] = "Gers & Schmidhuber 2001"
    kind: ClassVar[Literal["symbols"]] = "symbols"

    def __post_init__(self) -> None:
        if self.letters not in (2, 3):
            raise ValueError(f"letters must be 2 or 3, got {self.letters}")
        at_least("least", self.least, 1)
        at_least("most", self.most, self.least)

    @property
    def inputs(self) -> int:
        return self.letters + 2

    @property
    def outputs(self) -> int:
        return self.letters + 2

    def draw(self, count: int, rng: np.random.Generator) -> Examples:
        n = rng.integers(self.least, self.most + 1, count)
        values, offsets, place, owner = ragged(self.letters * n + 1, self.inputs)
        symbol = (place + n[owner] - 1) // n[owner]
        rows = np.arange(len(values))
        values[rows, symbol] = 1
        legal = np.zeros((len(values), self.outputs), bool)
        legal[rows, place // n[owner] + 1] = True
        legal[symbol == 1, 1] = legal[symbol == 1, 2] = True
        return Examples(Ragged(values, offsets), rows, legal)


_REBER = {0: "B1", 1: "T2P3", 2: "S2X4", 3: "T3V5", 4: "X3S6", 5: "P4V6", 6: "E7"}  # state: symbol and next state


@dataclass(frozen=True)
class EmbeddedReber(Task):
    """Foresee the next symbol of the embedded Reber grammar: the second symbol (T or P) comes back as the last but one,
    after a Reber string of any length. Symbols are one-hot, in the order of `letters`.

    >>> batch = next(EmbeddedReber().stream(3))
    >>> [row[1].argmax() == row[-1].argmax() for row in batch.x]
    [np.True_, np.True_, np.True_]
    """

    letters: ClassVar[str] = "BTPSXVE"
    name: ClassVar[str] = "embedded Reber"
    source: ClassVar[str] = "Cleeremans et al. 1989; Hochreiter & Schmidhuber 1997, experiment 1"
    kind: ClassVar[Literal["symbols"]] = "symbols"
    inputs: ClassVar[int] = 7
    outputs: ClassVar[int] = 7

    def draw(self, count: int, rng: np.random.Generator) -> Examples:
        symbols, follow = _reber_tables()
        state, alive = np.zeros(count, np.int64), np.ones(count, bool)
        made, left = [], []
        while alive.any():
            choice = rng.integers(0, 2, count)
            made.append(np.where(alive, symbols[state, choice], -1))
            state = np.where(alive, follow[state, choice], state)
            left.append(state.copy())
            alive &= state < len(symbols) - 1
        said, after = np.stack(made, 1), np.stack(left, 1)
        values, offsets, place, owner = ragged((said >= 0).sum(1), 7)
        rows = np.arange(len(values))
        values[rows, said[owner, place]] = 1
        legal = np.zeros((len(values), 7), bool)
        for way in (0, 1):
            legal[rows, symbols[after[owner, place], way]] = True
        keep = np.ones(len(values), bool)
        keep[offsets[1:] - 1] = False  # the last E is foreseen, not shown
        shown = np.concatenate([[0], np.cumsum(keep)])[offsets]
        return Examples(Ragged(values[keep], shown.astype(np.int64)), np.arange(keep.sum()), legal[keep])


def _reber_tables() -> tuple[Ints, Ints]:
    """Of each state and either way on: the symbol, and the state it leads to; the last state is the end."""
    names = EmbeddedReber.letters
    table: list[list[tuple[str, int]]] = [[("B", 1)] * 2, [("T", 2), ("P", 9)]]
    for arm, start in (("T", 2), ("P", 9)):  # seven inner states, then the arm's symbol again
        for ways in _REBER.values():
            on = [(ways[k], int(ways[k + 1])) for k in range(0, len(ways), 2)]
            ahead = [(s, start + to if to < 7 else (16 if arm == "T" else 17)) for s, to in on]
            table.append((ahead * 2)[:2])
    table += [[("T", 18)] * 2, [("P", 18)] * 2, [("E", 19)] * 2, [("E", 19)] * 2]
    symbols = np.array([[names.index(s) for s, _ in ways] for ways in table])
    return symbols, np.array([[to for _, to in ways] for ways in table])
