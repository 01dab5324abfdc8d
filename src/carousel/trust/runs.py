"""Copies between two parts: whole sequences by their hash, runs of rows by rolling hashes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carousel.trust.parts import Part

__all__ = ["Run", "copied_runs", "same_sequences"]

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]
CELLS = 8  # observed cells of a sequence, below which equality says nothing
WIDTH, WIDEST = 8, 64  # rows of a run


@dataclass(frozen=True)
class Run:
    """How many windows of `width` rows are copies, and the user's row where the first begins."""

    windows: int
    width: int
    row: int


def same_sequences(train: Part, test: Part) -> list[tuple[int, int]]:
    """Pairs (training sequence, test sequence) of equal content, whatever their ids and times."""
    known: dict[int, int] = {}
    for k, key in enumerate(_whole(train)):
        if key:
            known.setdefault(key, k)
    return [(known[key], k) for k, key in enumerate(_whole(test)) if key and key in known]


def copied_runs(train: Part, test: Part) -> Run | None:
    """Runs of test rows, all different from one another, that training has once; None where chance explains them.

    A run must be long enough that two unrelated tables would hardly share one, by how often training rows recur; and
    more of them must be copies than training sequences share among themselves.
    """
    a, b = _rows(train), _rows(test)
    if not len(a) or not len(b):
        return None
    _, counts = np.unique(a, return_counts=True)
    pairs = float((counts * (counts - 1.0)).sum()) / max(1.0, len(a) * (len(a) - 1.0))
    bits = -np.log2(max(pairs, 2.0**-40))
    wanted = 1.5 * np.log2(max(2.0, 1000.0 * len(a) * len(b))) / max(bits, 1e-3)
    if wanted > WIDEST:
        return None  # rows recur so much that even long runs do
    width = max(WIDTH, int(np.ceil(wanted)))
    own, _ = _windows(a, train, width)
    other, at = _windows(b, test, width)
    if not len(own) or not len(other):
        return None
    values, counts = np.unique(own, return_counts=True)
    recurring = float((counts[counts > 1]).sum()) / len(own)
    once = values[counts == 1]
    hit = np.isin(other, once)
    hits = int(hit.sum())
    if hits < 2 or hits <= 3 * recurring * len(other):
        return None
    return Run(hits, width, int(test.row[at[int(np.argmax(hit))]]))


_PRIME = np.uint64(0x9E3779B97F4A7C15)
_STEP = np.uint64(0xD6E8FEB86659FD93)


def _mix(h: Hashes) -> Hashes:
    h = (h ^ (h >> np.uint64(32))) * _STEP
    found: Hashes = h ^ (h >> np.uint64(29))
    return found


def _rows(part: Part) -> Hashes:
    """A hash of each row's cells, in float32; 0 of a row without an observed cell."""
    found = np.full(len(part.time), 0x51, np.uint64)
    for column in part.values.T:
        cells = np.where(np.isnan(column), np.float32(np.nan), column).astype(np.float32)
        cells[cells == 0] = 0  # the sign of zero is no content
        found = _mix((found + cells.view(np.uint32).astype(np.uint64)) * _PRIME)
    found[~np.isfinite(part.values).any(1)] = 0
    return found


def _whole(part: Part) -> list[int]:
    """A hash of each sequence's content, 0 where it has too little."""
    rows = _rows(part)
    cells = np.isfinite(part.values).sum(1)
    place = (np.arange(len(rows)) - np.repeat(part.offsets[:-1], part.lengths)).astype(np.uint64)
    weight = _mix((place + np.uint64(1)) * _PRIME)
    total = np.add.reduceat(rows * weight, part.offsets[:-1])
    enough = np.add.reduceat(cells, part.offsets[:-1]) >= CELLS
    varied = np.array([len(np.unique(rows[a : a + 64])) for a in part.offsets[:-1]]) >= np.minimum(3, part.lengths)
    return [int(h) if fine else 0 for h, fine in zip(_mix(total), enough & varied, strict=True)]


def _windows(rows: Hashes, part: Part, width: int) -> tuple[Hashes, Ints]:
    """The hash of each run of `width` rows that are all observed and all different, and where it begins."""
    count = len(rows) - width + 1
    if count <= 0:
        return rows[:0], np.zeros(0, np.int64)
    begin = np.arange(count)
    end = np.repeat(part.offsets[1:], part.lengths)[:count]
    fine = begin + width <= end
    for lag in range(1, width):
        bad = np.flatnonzero(rows[lag:] == rows[:-lag])  # every run that holds both rows is out
        for_runs = np.zeros(count + 1, np.int64)
        first, last = np.maximum(bad + lag - width + 1, 0), np.minimum(bad, count - 1)
        keep = first <= last
        np.add.at(for_runs, first[keep], 1)
        np.add.at(for_runs, last[keep] + 1, -1)
        fine &= np.cumsum(for_runs)[:count] == 0
    empty = np.concatenate([[0], np.cumsum(rows == 0)])
    fine &= empty[width:] == empty[:-width]
    total = np.zeros(count, np.uint64)
    for k in range(width):
        total = _mix((total + rows[k : k + count]) * _PRIME)
    return total[fine], begin[fine]
