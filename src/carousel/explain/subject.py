"""What explaining asks of a model and its data, whatever its input: the one place where a new input plugs in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from carousel.errors import CarouselError
from carousel.explain.record import Layer, record, recurrent
from carousel.inputs.clock import Clock
from carousel.ragged import Ragged
from carousel.train import Task, TrainConfig

__all__ = [
    "MOST_SEQUENCES",
    "MOST_STEPS",
    "Channel",
    "Pace",
    "Subject",
    "affordable",
    "chosen",
    "duration",
    "log_odds",
    "longest",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_SEQUENCES = 32  # that are looked at
MOST_STEPS = 2000  # of a sequence: its last ones
MOST_STATES = 1 << 23  # steps times units, of which each has five numbers

_UNITS = (
    ("s", 1.0),
    ("min", 60.0),
    ("h", 3600.0),
    ("days", 86400.0),
    ("weeks", 7 * 86400.0),
    ("years", 365.25 * 86400),
)


class Channel(NamedTuple):
    """One number of a row as the first layer reads it, and the column of the user's data that it tells of."""

    name: str
    column: str


class Pace(NamedTuple):
    """What a step is: so many seconds of a clock, or so many of whatever the time column `name` counts; None: just a
    step."""

    size: float | None = None
    stamps: bool = False
    name: str = "time"

    def describe(self, steps: float) -> str:
        """A number of steps as a length of time.

        >>> Pace(604800.0, True).describe(26), Pace(None).describe(26), Pace(5.0, name="minute").describe(26)
        ('26 weeks', '26 steps', '130 in minute')
        """
        if self.size is None:
            return f"{_short(steps)} steps"
        if not self.stamps:
            return f"{_short(steps * self.size)} in {self.name}"
        return duration(steps * self.size)


def duration(seconds: float) -> str:
    """Seconds in the largest unit of which there are at least two; weeks up to a year.

    >>> duration(90), duration(86400 * 40), duration(3600 * 24 * 365.25 * 7)
    ('90 s', '5.7 weeks', '7 years')
    """
    fitting = [(name, size) for name, size in _UNITS if seconds >= 2 * size] or [_UNITS[0]]
    name, size = fitting[-1]
    return f"{_short(seconds / size)} {name}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 20 or value == round(value) else f"{value:.2g}"


@dataclass(kw_only=True)
class Subject(ABC):
    """A trained net beside B sequences of rows to look at it with.

    What attribution is about are the `leaves`: rows as they enter the `inlet`, the first LSTM; an input whose rows are
    something else before (pixels) says so by its own `leaves`, `reading`, `fold` and `without`. `channels` name what
    `fold` gives.
    """

    title: str
    task: str
    net: nn.Module
    lengths: Ints  # [B]
    names: list[str]  # [B]
    channels: list[Channel]
    answer: str  # what `run` gives, in words
    pace: Pace
    clock: Clock | None = None
    time: Floats | None = None  # [N]
    signals: dict[str, Floats] = field(default_factory=dict)  # columns in the user's units [N], NaN where not observed
    tokens: list[str] | None = None  # [N] of texts
    seasons: tuple[int, ...] = ()
    notes: list[str] = field(default_factory=list)  # what was left out, as sentences
    member: int = 0
    own_steps: int = 0  # that the member was trained for
    loss_name: str = "the loss"  # what `loss` gives, in words
    aside: str = ""  # what reaches the answer past the inlet, as a noun

    @property
    def inlet(self) -> nn.Module:
        return recurrent(self.net)[0][1]

    @property
    def offsets(self) -> Ints:
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    @abstractmethod
    def run(self, which: Tensor, net: nn.Module | None = None) -> Tensor:
        """The answer [n], one number for each of the sequences `which` [n], differentiable."""

    @abstractmethod
    def loss(self, which: Tensor, net: nn.Module) -> Tensor:
        """The sum of the sequences' losses as in training; where the truth is not known, minus the answer's log
        likelihood or the answer itself, as `loss_name` says."""

    @abstractmethod
    def training(self, settings: TrainConfig) -> Task | str:
        """The training task on these data, or why there is none, as a clause."""

    def everything(self) -> Tensor:
        return torch.arange(len(self.lengths))

    def judged(self) -> Ints:
        """Of which sequences `loss` knows the truth; all where it knows none."""
        return np.arange(len(self.lengths))

    def layers(self) -> list[Layer]:
        """Gates and cell states of all sequences."""
        return record(self.net, lambda: self.run(self.everything()))

    def leaves(self, which: Tensor) -> Tensor:
        """What enters the inlet [n, T, ...], zeros after the end of a sequence."""
        caught: list[Tensor] = []

        def catch(module: nn.Module, args: tuple[Any, ...]) -> None:
            if not caught:
                given = args[0]
                padded = given.to_padded(batch_first=True) if isinstance(given, Ragged) else given.transpose(0, 1)
                caught.append(padded.detach())

        hook = self.inlet.register_forward_pre_hook(catch)
        try:
            with torch.no_grad():
                self.run(which)
        finally:
            hook.remove()
        return caught[0]

    @contextmanager
    def reading(self, leaves: Tensor) -> Iterator[None]:
        """The inlet reads `leaves` [n, T, ...] instead of what the next `run` of n sequences gives it."""
        used: list[bool] = []

        def swap(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if used:
                return None
            used.append(True)
            given = args[0]
            if isinstance(given, Ragged):
                return (given.with_values(leaves[given.sequence, given.position]), *args[1:])
            return (leaves.transpose(0, 1).contiguous(), *args[1:])

        hook = self.inlet.register_forward_pre_hook(swap)
        try:
            yield
        finally:
            hook.remove()

    def fold(self, values: Tensor) -> Tensor:
        """Attributions of leaves [n, T, ...] -> of channels [n, T, C]."""
        return values

    def without(self, leaves: Tensor, baseline: Tensor, gone: Tensor, column_of: Tensor) -> Tensor:
        """Leaves [n, T, ...] with those of the columns `gone` [n, T, K] as in the baseline; of channel c the column is
        `column_of` [C]."""
        return torch.where(gone[..., column_of], baseline, leaves)


def longest(lengths: Ints, most: int) -> Ints:
    """Places of the `most` longest, in order; of those that are equally long at the edge some evenly among all.

    >>> longest(np.array([5, 9, 5, 5, 5, 2]), 3).tolist()
    [0, 1, 4]
    """
    if len(lengths) <= most:
        return np.arange(len(lengths))
    edge = np.sort(lengths)[-most]
    sure, equal = np.flatnonzero(lengths > edge), np.flatnonzero(lengths == edge)
    some = equal[np.linspace(0, len(equal) - 1, most - len(sure)).astype(np.int64)]
    return np.sort(np.concatenate([sure, some]))


def affordable(which: Ints, lengths: Ints, units: int, notes: list[str]) -> Ints:
    """Places in `which` that can be looked at together: evenly so many that their gates fit into memory, at least one;
    a note says so where these are not all. `lengths` [n] are the steps of each, `units` those of all layers."""
    most = max(1, int(MOST_STATES / max(1, units * int(lengths.mean()))))
    if len(which) <= most:
        return np.arange(len(which))
    notes.append(f"Of these {most} were looked at, since the gates of {units:,} units are many numbers.")
    return np.linspace(0, len(which) - 1, most).astype(np.int64)


def log_odds(logits: Tensor, label: Tensor) -> Tensor:
    """Of one label [n] against all others, from logits [n, K]: unlike log probabilities they do not level off.

    >>> log_odds(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0])).item()
    1.3068528175354004
    """
    own = torch.zeros_like(logits, dtype=torch.bool).scatter(1, label[:, None], True)
    return logits[own] - logits.masked_fill(own, float("-inf")).logsumexp(1)


def chosen(ids: list[Any], wanted: tuple[str, ...], source: str, most: int = MOST_SEQUENCES) -> tuple[Ints, list[str]]:
    """Which sequences to look at: those named, else evenly `most` of all; and notes on what was left out.

    A wanted text that is no name as it stands is several, with commas between. Raises CarouselError where none of the
    data has a name that was asked for, or there is none at all.
    """
    texts = [str(name) for name in ids]
    if wanted:
        parts = [name for text in wanted for name in ([text] if text in texts else text.split(","))]
        wanted = tuple(dict.fromkeys(name if name in texts else name.strip() for name in parts if name.strip()))
        if not wanted:
            raise CarouselError(f"{source}: the ids that were asked for are empty, so nothing is selected; name some.")
        missing = [name for name in wanted if name not in texts]
        if missing:
            some = ", ".join(texts[:5]) + (", ..." if len(texts) > 5 else "")
            raise CarouselError(
                f"{source}: no sequence is called {missing[0]!r}, so nothing is selected; there are {some}."
            )
        found = np.array([texts.index(name) for name in wanted], np.int64)
    else:
        found = np.arange(len(ids))
    if not len(found):
        raise CarouselError(f"{source}: the selection is empty, so there is nothing to look at; give rows.")
    if len(found) <= most:
        return found, []
    part = found[np.linspace(0, len(found) - 1, most).astype(np.int64)]
    return part, [f"{most} of {len(found):,} sequences were looked at, evenly among all."]
