"""One way to look at the rows of a detector: how far the mean over some rows is from normal operation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["View", "window_means"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PATTERNS = 4096  # of gaps whose inverses are kept


@dataclass(frozen=True)
class View:
    """Means over `rows` rows of the errors or of the values, and how they were spread in normal operation.

    centre, spread, low and high [C]; correlation [C][C]; `limit` is the distance that hardly any normal row exceeds,
    `largest` the largest distance of the rows learned from, but not below the limit: where a history begins.
    """

    of: Literal["error", "value"]
    rows: int
    centre: tuple[float, ...]
    spread: tuple[float, ...]
    correlation: tuple[tuple[float, ...], ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    limit: float
    largest: float

    def __post_init__(self) -> None:
        size = len(self.centre)
        if any(len(part) != size for part in (self.spread, self.correlation, self.low, self.high, *self.correlation)):
            raise ValueError(f"a view of {size} columns needs {size} of each of its numbers")
        if self.rows < 1 or not self.limit > 0 or not self.largest > 0 or not all(s > 0 for s in self.spread):
            raise ValueError("a view needs rows, limit, largest and spread above 0")

    def distance(self, means: Floats, known: Ints) -> tuple[Floats, Floats]:
        """Means [N, C] of `known` [N, C] observed values each -> distances [N], and the columns' parts in them [N, C].

        A mean of fewer than `rows` values varies more, and counts less: as if they were independent. Columns without
        any stay out, and the others are judged by their own correlations. NaN where there is none at all.
        """
        share = np.sqrt(known / self.rows)
        d = np.where(known > 0, (means - np.asarray(self.centre)) / np.asarray(self.spread) * share, 0.0)
        parts = np.zeros_like(d)
        seen = known > 0
        packed = np.packbits(seen, axis=1) if seen.shape[1] else np.zeros((len(seen), 1), np.uint8)
        patterns, which = np.unique(packed, axis=0, return_inverse=True)
        for k in range(len(patterns)):
            rows = np.flatnonzero(which.reshape(-1) == k)
            columns = np.flatnonzero(seen[rows[0]])
            inverse = self._inverse(tuple(columns.tolist()))
            here = d[np.ix_(rows, columns)]
            pulled = np.zeros_like(here)
            for j in range(len(columns)):
                pulled += here[:, j : j + 1] * inverse[j]
            parts[np.ix_(rows, columns)] = here * pulled
        count = seen.sum(1)
        total = np.cumsum(parts, 1)[:, -1] if parts.shape[1] else np.zeros(len(parts))
        distance = np.sqrt(np.maximum(total, 0.0) / np.maximum(count, 1))
        return np.where(count > 0, distance, np.nan), np.maximum(parts, 0.0)

    def _inverse(self, columns: tuple[int, ...]) -> Floats:
        """Of the correlations of what is observed; a few patterns of gaps come again and again."""
        found = self._inverses.get(columns)
        if found is None:
            if len(self._inverses) >= PATTERNS:
                self._inverses.clear()
            kept = np.array(self.correlation, np.float64)[np.ix_(columns, columns)]
            found = np.asarray(np.linalg.inv(kept), np.float64)
            self._inverses[columns] = found
        return found

    @cached_property
    def _inverses(self) -> dict[tuple[int, ...], Floats]:
        return {}


def window_means(values: Floats, offsets: Ints, rows: int) -> tuple[Floats, Ints]:
    """Means [N, C] of what is observed in the last `rows` rows of the sequence, NaN without any, and how many."""
    seen = ~np.isnan(values)
    filled = np.where(seen, values, 0.0)
    total = np.zeros_like(filled)
    known = np.zeros(filled.shape, np.int64)
    position = np.arange(len(values)) - np.repeat(offsets[:-1], np.diff(offsets))
    for back in range(rows - 1, -1, -1):  # the oldest first, as a stream adds them
        at = np.flatnonzero(position >= back)
        total[at] += filled[at - back]
        known[at] += seen[at - back]
    return np.where(known > 0, total / np.maximum(known, 1), np.nan), known
