"""The tasks of `bench memory`: what is trained on, what is asked in the end, how many sequences there are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from carousel.bench.memory_digits import digit_tasks
from carousel.datasets import (
    Adding,
    Copy,
    Counting,
    CycleNavigation,
    Distractors,
    EmbeddedReber,
    EvenPairs,
    ModularArithmetic,
    Multiplication,
    NoisyLag,
    Parity,
    Task,
    TemporalOrder,
)

__all__ = ["Trial", "quick", "trials"]


@dataclass(frozen=True)
class Trial:
    """One task; learned when `least` of fresh sequences of `test` are right, or the squared error is below `most`."""

    train: Task
    test: Task
    said: str  # what is asked
    budget: int  # sequences
    batch: int = 20
    span: int = 0  # the longest lag, which gated networks are told at the start; 0: not told
    least: float = 0.99
    most: float = 0.01
    fresh: int = 500

    def good(self, right: float, error: float) -> bool:
        return error < self.most if self.train.kind == "number" else right >= self.least

    @property
    def plan(self) -> str:
        """All that a result depends on: where it differs, a result of another time is measured anew."""
        told = [f"{one.name} {_told(one)}" for one in (self.train, self.test)]
        return "; ".join(
            [*told, *(str(getattr(self, f)) for f in ("budget", "batch", "span", "least", "most", "fresh"))]
        )


def _told(task: Task) -> str:
    if not dataclasses.is_dataclass(task):
        return ""
    return " ".join(str(getattr(task, f.name)) for f in dataclasses.fields(task) if f.repr)


def trials(length: int = 100) -> dict[str, Trial]:
    """All tasks by name; lags of `length` steps, languages learned up to 40 symbols and asked for 500."""

    def lag(task: Task, said: str, budget: int = 12_000) -> Trial:
        return Trial(task, task, said, budget, span=length)

    def language(cls: type, budget: int, said: str) -> Trial:
        test = cls(shortest=499, longest=500)
        return Trial(cls(longest=40, every_step=True), test, said, budget, batch=32, fresh=100)

    pixels, held_out = digit_tasks(validate=True)  # rates are chosen by it, so it is no test part
    return {
        "adding": lag(Adding(length), f"{length} steps, squared error < 0.01"),
        "multiplication": lag(Multiplication(length), f"{length} steps, squared error < 0.01"),
        "temporal-order": lag(TemporalOrder(2, length), f"{length} steps, 4 classes"),
        "temporal-order-3": lag(TemporalOrder(3, length), f"{length} steps, 8 classes"),
        "noisy-lag": lag(NoisyLag(length), f"{length} steps, squared error < 0.01"),
        "distractors": lag(Distractors(length), f"{length} distractors"),
        "copy": Trial(Copy(50, 5), Copy(50, 5), "5 symbols of 8 after 50 blanks", 60_000, span=50),
        "embedded-reber": Trial(EmbeddedReber(), EmbeddedReber(), "every symbol foreseen", 8_440, batch=4, span=20),
        "counting": Trial(
            Counting(2), Counting(2, 11, 20), "a^n b^n, n <= 10, asked for n of 11 to 20", 20_000, batch=10
        ),
        "counting-3": Trial(
            Counting(3), Counting(3, 11, 20), "a^n b^n c^n, n <= 10, asked for n of 11 to 20", 20_000, batch=10
        ),
        "even-pairs": language(EvenPairs, 30_000, "<= 40 symbols, asked for 500"),
        "parity": language(Parity, 30_000, "<= 40 symbols, asked for 500"),
        "cycle-navigation": language(CycleNavigation, 30_000, "<= 40 symbols, asked for 500"),
        "modular-arithmetic": language(ModularArithmetic, 200_000, "<= 40 symbols, asked for 499"),
        "digits": Trial(
            pixels, held_out, "64 pixels, 95 % of the training digits held out", 40_000, batch=32, least=0.95
        ),
    }


def quick() -> dict[str, Trial]:
    """Three that end within seconds, to see that all works."""
    few = {"adding": Trial(Adding(30), Adding(30), "30 steps, squared error < 0.01", 4_000, span=30, fresh=100)}
    for name in ("embedded-reber", "parity"):
        few[name] = dataclasses.replace(trials()[name], budget=3_000, fresh=100)
    return few
