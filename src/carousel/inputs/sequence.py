"""Whole ragged sequences as an LSTM reads them row by row: the fitted input, and its rows as channels.

A table and a stream go through the same arithmetic: `Channels` is computed for all rows of all sequences at once by
`SequenceInput.transform`, and for one row with an explicit `Memory` by `SequenceInput.step`; the two agree to the
last bit. Numeric channels use + - * / min max and comparisons only, in float64 with one cast to float32 at the end, so
that a restatement in C agrees as well; calendar channels (sine and cosine) are the exception.

Step channels, in this order: of each number column `value`, or `value, observed, age, last` where it had gaps in
training; where the clock is uneven the time since the previous row; the calendar. Then, in the model, the embeddings of
the categories, the static numbers and their embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.inputs.clock import calendar_features
from carousel.inputs.fitted import FIRST, MISSING, UNSEEN
from carousel.inputs.roles import Roles

__all__ = ["BOUND", "Channel", "Channels", "Memory", "SequenceInput", "hash_text"]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]

BOUND = 10.0  # of scaled values: one wild reading must not drown the rest
GAPPED = 4  # channels of a number that had gaps: value, observed, age, last


@dataclass(frozen=True)
class Channel:
    """A column as fitted on training rows.

    A number x becomes (x' - mean) / scale within +-BOUND, where x' is x, or x / (|x| + squash) with squash > 0 (heavy
    tails). A category has its place among `values`, a hash one of `buckets`; both are embedded. `gaps`: some training
    row had no value, so the model is shown whether there is one, how old the last one is, and what it was.
    """

    name: str
    kind: Literal["number", "category", "hash"]
    mean: float = 0.0
    scale: float = 1.0
    squash: float = 0.0
    values: tuple[str, ...] = ()
    buckets: int = 0
    gaps: bool = False

    def __post_init__(self) -> None:
        if self.scale <= 0 or self.squash < 0:
            raise ValueError(f"column {self.name!r} needs scale > 0 and squash >= 0")
        if (self.kind == "hash") != (self.buckets > 0) or self.buckets < 0:
            raise ValueError(f"column {self.name!r}: buckets are for the kind hash, which needs some")

    @property
    def codes(self) -> int:
        """Rows of the embedding: missing, unseen, then the categories or buckets."""
        return FIRST + (self.buckets if self.kind == "hash" else len(self.values))

    @property
    def width(self) -> int:
        """Size of the embedding of a category, which grows slowly with their number; 0 for a number."""
        count = self.buckets or len(self.values)
        return 0 if self.kind == "number" else min(16, 1 + round(1.6 * count**0.5))

    def scaled(self, values: Floats) -> Floats:
        """Numbers [...] as the model counts them, NaN where they are missing."""
        x = values / (np.abs(values) + self.squash) if self.squash else values
        return np.asarray(np.minimum(np.maximum((x - self.mean) / self.scale, -BOUND), BOUND))

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {value: FIRST + k for k, value in enumerate(self.values)}

    def code(self, text: str | None) -> int:
        """The row of the embedding for a category, None being a missing one.

        >>> Channel("city", "category", values=("Bonn", "Rome")).code("Rome")
        3
        """
        if text is None:
            return MISSING
        if self.kind == "hash":
            return FIRST + hash_text(text) % self.buckets
        return self._places.get(text, UNSEEN)


def hash_text(text: str) -> int:
    """FNV-1a of the UTF-8 bytes, 32 bits (Fowler, Noll & Vo 1991): the same in every process and language.

    >>> hash_text("terminal 7")
    1044626588
    """
    found = 2166136261
    for byte in text.encode():
        found = (found ^ byte) * 16777619 & 0xFFFFFFFF
    return found


class Channels(NamedTuple):
    """B sequences of N rows in all, as the model takes them; rows of sequence b are offsets[b]:offsets[b + 1]."""

    values: Singles  # [N, F]
    codes: Ints  # [N, E] of the categories among the columns
    elapsed: Singles  # [N] time since the previous row in units; 0 for the first
    offsets: Ints  # [B + 1]
    static: Singles  # [B, S]
    static_codes: Ints  # [B, ES]

    @property
    def lengths(self) -> Ints:
        return np.diff(self.offsets)

    def select(self, which: Ints, start: Ints | None = None, stop: Ints | None = None) -> tuple[Channels, Ints]:
        """The sequences `which` [b] and the rows that were theirs; of each only its rows start:stop, where given.

        Elapsed time of a first row is kept as it is within the sequence.
        """
        first = self.offsets[:-1][which] if start is None else self.offsets[:-1][which] + start
        last = self.offsets[1:][which] if stop is None else self.offsets[:-1][which] + stop
        offsets = np.concatenate([[0], np.cumsum(last - first)]).astype(np.int64)
        rows = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], last - first)
        made = Channels(
            self.values[rows],
            self.codes[rows],
            self.elapsed[rows],
            offsets,
            self.static[which],
            self.static_codes[which],
        )
        return made, rows


@dataclass
class Memory:
    """What one row needs of those before it: when the last row was, and of each number when it was seen last."""

    time: float = float("nan")
    seen: Floats = field(default_factory=lambda: np.zeros(0))  # [numbers], NaN: not yet
    last: Floats = field(default_factory=lambda: np.zeros(0))  # [numbers], scaled


@dataclass(frozen=True)
class SequenceInput:
    """Which rows and columns a model of sequences sees, with what was fitted on its training rows.

    `unit`: the median time from row to row (seconds, numbers, or 1 without a time column), in which elapsed time and
    ages are counted. `uneven`: the time from row to row varies, and is shown to the model. `variable` and `value` name
    the columns of a table of events (one row per reading) instead of one with a column for each variable. `zone` is the
    time zone whose wall clock calendar channels are about, wherever the rows to come are from.
    """

    roles: Roles
    stamps: bool
    uneven: bool
    unit: float
    calendar: tuple[str, ...]
    columns: tuple[Channel, ...]
    static: tuple[Channel, ...]
    variable: str | None = None
    value: str | None = None
    zone: str | None = None

    def __post_init__(self) -> None:
        if not self.unit > 0:
            raise ValueError(f"unit must be positive, got {self.unit}")
        if (self.variable is None) != (self.value is None):
            raise ValueError("variable and value are named together or not at all")
        if not self.step_size:
            raise ValueError("there must be at least one column to see")

    @property
    def numbers(self) -> tuple[Channel, ...]:
        return tuple(c for c in self.columns if c.kind == "number")

    @property
    def categories(self) -> tuple[Channel, ...]:
        return tuple(c for c in self.columns if c.kind != "number")

    @property
    def static_numbers(self) -> tuple[Channel, ...]:
        return tuple(c for c in self.static if c.kind == "number")

    @property
    def static_categories(self) -> tuple[Channel, ...]:
        return tuple(c for c in self.static if c.kind != "number")

    @property
    def embedded(self) -> tuple[Channel, ...]:
        """The categorical columns in the order of their embeddings: those of rows, then the static ones."""
        return self.categories + self.static_categories

    @property
    def value_size(self) -> int:
        """Numeric channels of a row."""
        return sum(GAPPED if c.gaps else 1 for c in self.numbers) + self.uneven + 2 * len(self.calendar)

    @property
    def static_size(self) -> int:
        """Channels of the static columns, embeddings included."""
        return sum(1 + c.gaps for c in self.static_numbers) + sum(c.width for c in self.static_categories)

    @property
    def step_size(self) -> int:
        """Channels of one step of the stack's input: the row's, its embeddings, and the static ones."""
        return self.value_size + sum(c.width for c in self.categories) + self.static_size

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The embeddings, as in the input module's `state_dict`."""
        return {f"embed.{k}.weight": (c.codes, c.width) for k, c in enumerate(self.embedded)}

    def channel_names(self) -> tuple[str, ...]:
        """Of the `value_size` numeric channels, for explanations and exports."""
        found: list[str] = []
        for c in self.numbers:
            found += [c.name, f"{c.name} observed", f"{c.name} age", f"{c.name} last"] if c.gaps else [c.name]
        found += ["time since the previous row"] if self.uneven else []
        return (*found, *(f"{name} {wave}" for name in self.calendar for wave in ("sine", "cosine")))

    def transform(
        self,
        time: Floats,
        numbers: Floats,
        codes: Ints,
        offsets: Ints,
        static_numbers: Floats,
        static_codes: Ints,
        local: Floats | None = None,
    ) -> Channels:
        """All rows of all sequences at once.

        time [N], ascending within a sequence; numbers [N, .] of the number columns with NaN where missing; codes
        [N, E]; offsets [B + 1]; static_numbers [B, .]; static_codes [B, ES]. `local` [N] are the times by the wall
        clock, for the calendar (None: `time`).
        """
        n = len(time)
        first = np.zeros(n, bool)
        first[offsets[:-1][offsets[:-1] < offsets[1:]]] = True
        start = np.maximum.accumulate(np.where(first, np.arange(n), 0))  # [N] where the row's sequence begins
        before = np.where(first, time, np.concatenate([time[:1], time[:-1]]))
        elapsed = (time - before) / self.unit
        values = np.empty((n, self.value_size))
        at = 0
        for k, channel in enumerate(self.numbers):
            scaled = channel.scaled(numbers[:, k])
            latest = np.maximum.accumulate(np.where(np.isnan(scaled), -1, np.arange(n)))
            latest = np.where(latest >= start, latest, -1)
            seen = time[np.maximum(latest, 0)] if n else time
            last = np.where(latest >= 0, scaled[np.maximum(latest, 0)] if n else scaled, 0.0)
            if channel.gaps:
                missing = np.isnan(scaled)
                values[:, at] = np.where(missing, 0.0, scaled)
                values[:, at + 1] = ~missing
                values[:, at + 2] = np.where(latest >= 0, _fade((time - seen) / self.unit), 1.0)
                values[:, at + 3] = last
                at += GAPPED
            else:
                values[:, at] = last
                at += 1
        if self.uneven:
            values[:, at] = _fade(elapsed)
            at += 1
        values[:, at:] = calendar_features(time if local is None else local, self.calendar)
        return Channels(
            values=values.astype(np.float32),
            codes=np.ascontiguousarray(codes, np.int64),
            elapsed=elapsed.astype(np.float32),
            offsets=np.ascontiguousarray(offsets, np.int64),
            static=self.static_channels(static_numbers),
            static_codes=np.ascontiguousarray(static_codes, np.int64),
        )

    def static_channels(self, numbers: Floats) -> Singles:
        """[B, .] of the static number columns as channels [B, S]."""
        found = []
        for k, channel in enumerate(self.static_numbers):
            scaled = channel.scaled(numbers[:, k])
            missing = np.isnan(scaled)
            found.append(np.where(missing, 0.0, scaled))
            if channel.gaps:
                found.append((~missing).astype(np.float64))
        made = np.stack(found, 1) if found else np.zeros((len(numbers), 0))
        return np.asarray(made, np.float32)

    def memory(self) -> Memory:
        """Of a sequence that has not begun."""
        count = len(self.numbers)
        return Memory(float("nan"), np.full(count, np.nan), np.zeros(count))

    def step(
        self, memory: Memory, time: float, numbers: Floats, local: float | None = None
    ) -> tuple[Singles, np.float32]:
        """One row [numbers] at `time` -> its numeric channels [F] and its elapsed time; `memory` moves on.

        Bit for bit what `transform` gives for that row. The caller refuses a time before that of the previous row.
        """
        elapsed = 0.0 if np.isnan(memory.time) else (time - memory.time) / self.unit
        values = np.empty(self.value_size)
        at = 0
        for k, channel in enumerate(self.numbers):
            scaled = float(channel.scaled(np.asarray(numbers[k], np.float64)))
            missing = np.isnan(scaled)
            if not missing:
                memory.seen[k], memory.last[k] = time, scaled
            if channel.gaps:
                since = (time - memory.seen[k]) / self.unit
                values[at] = 0.0 if missing else scaled
                values[at + 1] = not missing
                values[at + 2] = 1.0 if np.isnan(since) else since / (1.0 + since)
                values[at + 3] = memory.last[k]
                at += GAPPED
            else:
                values[at] = memory.last[k]
                at += 1
        if self.uneven:
            values[at] = elapsed / (1.0 + elapsed)
            at += 1
        values[at:] = calendar_features(np.asarray(time if local is None else local), self.calendar)
        memory.time = time
        return values.astype(np.float32), np.float32(elapsed)

    def row_codes(self, texts: Sequence[Any]) -> Ints:
        """The codes [E] of one row's categories, as text or None."""
        return np.array([c.code(text) for c, text in zip(self.categories, texts, strict=True)], np.int64)


def _fade(age: Floats) -> Floats:
    """0 now, one half after one unit, towards 1 as time goes by."""
    return np.asarray(age / (1.0 + age))
