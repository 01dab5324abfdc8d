"""Sequences to test and calibrate with: taken from the user's data, or made up where there are none."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.inputs.sequence import Channel, Channels, SequenceInput

__all__ = ["Pushed", "first", "synthetic"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LENGTHS = (1, 9, 24)
JANUARY = 1704067200.0


class Pushed(NamedTuple):
    """B sequences of N rows as the caller of the C functions gives them: NaN is missing, categories are codes."""

    time: Floats  # [N]
    numbers: Floats  # [N, .]
    codes: Ints  # [N, E]
    offsets: Ints  # [B + 1]
    static_numbers: Floats  # [B, .]
    static_codes: Ints  # [B, ES]
    wall: Floats  # [N] seconds on the clock of the wall, for the calendar

    def channels(self, table: SequenceInput) -> Channels:
        return table.transform(*self)


def synthetic(table: SequenceInput, seed: int = 0) -> Pushed:
    """Three sequences of 1, 9 and 24 rows around the means of the columns, with gaps where training had some."""
    rng = np.random.default_rng(seed)
    n, b = sum(LENGTHS), len(LENGTHS)
    gaps = rng.uniform(0.2, 1.8, n) if table.uneven else np.ones(n)
    time = np.cumsum(gaps) * table.unit
    time = np.rint(time) + JANUARY if table.stamps else time
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)])
    if table.roles.time is None:
        time = np.concatenate([np.arange(float(k)) for k in LENGTHS])

    def numbers(columns: tuple[Channel, ...], rows: int) -> Floats:
        found = np.empty((rows, len(columns)))
        for k, c in enumerate(columns):
            x = c.mean + c.scale * rng.normal(size=rows)
            if c.squash:
                x = np.clip(x, -0.9, 0.9)
                x = c.squash * x / (1 - np.abs(x))
            found[:, k] = np.where(c.gaps & (rng.random(rows) < 0.3), np.nan, x)
        return found

    def codes(columns: tuple[Channel, ...], rows: int) -> Ints:
        made = [rng.integers(0, c.codes, rows) for c in columns]
        return np.stack(made, 1) if made else np.zeros((rows, 0), np.int64)

    return Pushed(
        time,
        numbers(table.numbers, n),
        codes(table.categories, n),
        offsets.astype(np.int64),
        numbers(table.static_numbers, b),
        codes(table.static_categories, b),
        time + 3600.0 if table.calendar else time,
    )


def first(pushed: Pushed, sequences: int, rows: int) -> Pushed:
    """The first sequences, and of each the first rows."""
    b = min(sequences, len(pushed.offsets) - 1)
    lengths = np.minimum(np.diff(pushed.offsets)[:b], rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    keep = np.arange(offsets[-1]) + np.repeat(pushed.offsets[:b] - offsets[:-1], lengths)
    return Pushed(
        pushed.time[keep],
        pushed.numbers[keep],
        pushed.codes[keep],
        offsets,
        pushed.static_numbers[:b],
        pushed.static_codes[:b],
        pushed.wall[keep],
    )
