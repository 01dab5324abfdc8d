"""Two tables as the audit sees them: flat arrays of sorted sequences, with codes that both share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carousel.inputs import columns
from carousel.inputs.clock import Clock

if TYPE_CHECKING:
    from carousel.inputs.rows import Sequences

__all__ = ["Part", "parts_of", "read_parts"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Part:
    """B sequences of N rows, sorted by id and time: rows of sequence b are offsets[b]:offsets[b + 1].

    `values` [N, F] are the columns `names` that a model may look at, NaN where nothing was observed, categories (and
    the ids of hashing) as codes that the parts of one call share; `target` [N], of a label per sequence repeated in
    each of its rows; `row` [N] is the 1-based row of the user's table.
    """

    ids: NDArray[Any]  # [B]
    offsets: Ints  # [B + 1]
    time: Floats  # [N]
    names: tuple[str, ...]
    values: Floats
    target: Floats
    categorical: frozenset[str]
    row: Ints
    clock: Clock
    labels: tuple[str, ...] = ()  # what the codes of `target` stand for; () for numbers
    static: frozenset[str] = frozenset()  # columns that are constant within a sequence

    @property
    def lengths(self) -> Ints:
        return np.diff(self.offsets)

    @property
    def owner(self) -> Ints:
        """[N]: the number of each row's sequence."""
        return np.repeat(np.arange(len(self.ids)), self.lengths)

    def where(self, keep: NDArray[np.bool_]) -> Part:
        """The rows that are kept, and the sequences that still have some."""
        counts = np.bincount(self.owner[keep], minlength=len(self.ids))
        left = counts > 0
        return Part(
            self.ids[left],
            np.concatenate([[0], np.cumsum(counts[left])]).astype(np.int64),
            self.time[keep],
            self.names,
            self.values[keep],
            self.target[keep],
            self.categorical,
            self.row[keep],
            self.clock,
            self.labels,
            self.static,
        )


def read_parts(
    frames: Sequence[Any],
    *,
    id: str | None,
    time: str | None,
    target: str,
    names: Sequence[str],
    sources: Sequence[str],
) -> list[Part]:
    """One Part for each pandas, polars or Arrow table.

    Raises DataError as reading does: for missing columns, unreadable numbers and times.
    """
    tables = [columns.as_frame(frame, source) for frame, source in zip(frames, sources, strict=True)]
    for table, source in zip(tables, sources, strict=True):
        columns.require(table, [n for n in (id, time, target, *names) if n], source)
    read = {name: _column([t[name] for t in tables], sources) for name in dict.fromkeys((*names, target))}
    made = []
    for k, (table, source) in enumerate(zip(tables, sources, strict=True)):
        ids, owner = columns.keys(table[id], source) if id else ([0], np.zeros(len(table), np.int64))
        if time:
            moment, clock = columns.times(table[time], source)
        else:
            moment, clock = np.arange(len(table), dtype=np.float64), Clock("row")
        order = np.lexsort((moment, owner))
        values = [read[name][0][k][order] for name in names]
        made.append(
            Part(
                np.array(ids, dtype=object),
                np.searchsorted(owner[order], np.arange(len(ids) + 1)).astype(np.int64),
                moment[order],
                tuple(names),
                np.stack(values, 1) if values else np.empty((len(table), 0)),
                read[target][0][k][order],
                frozenset(name for name in names if read[name][1] is not None),
                order.astype(np.int64) + 1,
                clock,
                read[target][1] or (),
            )
        )
    return made


def parts_of(given: Sequence[Sequences], targets: Sequence[Floats], labels: tuple[str, ...] = ()) -> list[Part]:
    """One Part for each set of sequences with its target [N], or [B] of a label per sequence."""
    names = (*given[0].roles.features, *given[0].roles.static)
    texts = {
        name: sorted({text for s in given for text in s.categories[name]})
        for name in names
        if name in given[0].categories
    }
    made = []
    for sequences, target in zip(given, targets, strict=True):
        values = np.concatenate([sequences.features, np.repeat(sequences.static, sequences.lengths, axis=0)], axis=1)
        for name, known in texts.items():
            k, place = names.index(name), {text: n for n, text in enumerate(known)}
            table = np.array([*(place[text] for text in sequences.categories[name]), np.nan])
            values[:, k] = table[np.where(np.isnan(values[:, k]), -1, values[:, k]).astype(np.int64)]
        made.append(
            Part(
                np.array(sequences.ids, dtype=object),
                sequences.offsets,
                sequences.time,
                names,
                values,
                np.repeat(target, sequences.lengths) if len(target) == len(sequences.ids) else target,
                frozenset(texts),
                sequences.row,
                sequences.clock,
                labels,
                frozenset(given[0].roles.static),
            )
        )
    return made


def _column(given: Sequence[Any], sources: Sequence[str]) -> tuple[list[Floats], tuple[str, ...] | None]:
    """The column of each table as numbers, or as codes into the texts of all of them."""
    if not any(columns.is_category(c) and c.null_count() < len(c) for c in given):
        return [columns.numbers(c, source) for c, source in zip(given, sources, strict=True)], None
    coded = [columns.categories(c) for c in given]
    texts = sorted({text for _, own in coded for text in own})
    place = {text: k for k, text in enumerate(texts)}
    found = []
    for codes, own in coded:
        table = np.array([place[text] for text in own] + [0], dtype=np.float64)
        code = np.where(np.isnan(codes), len(own), codes).astype(np.int64)
        found.append(np.where(np.isnan(codes), np.nan, table[code]))
    return found, tuple(texts)
