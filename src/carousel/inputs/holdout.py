"""Which sequences, or which of their rows, are held out of training."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.inputs.rows import Sequences

__all__ = ["FEWEST", "Split", "last_rows", "split_since", "spread_over"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

FEWEST = 10  # sequences of which some are held out whole


class Split(NamedTuple):
    """Which sequences train and which are held out, and which rows [N] of them count."""

    training: Ints
    held_out: Ints
    learn: Flags | None = None
    judge: Flags | None = None


def spread_over(values: Floats, share: float, seed: int) -> Ints:
    """A share of the sequences at random, but evenly over the order of their `values` [B] (classes, or numbers).

    >>> held_out = spread_over(np.repeat([0.0, 1.0], [15, 5]), 0.2, seed=0)
    >>> (held_out < 15).sum(), (held_out >= 15).sum()
    (np.int64(3), np.int64(1))
    """
    order = np.random.default_rng([seed, 0xCC]).permutation(len(values))
    order = order[np.argsort(values[order], kind="stable")]
    at = np.arange(len(values)) * share
    return np.sort(order[np.floor(at + share + 1e-9) > np.floor(at + 1e-9)])


def last_rows(sequences: Sequences, share: float) -> Floats:
    """The time [B] at which the last share of each sequence's rows begins; inf for one that is too short."""
    border = sequences.offsets[:-1] + np.ceil((1 - share) * sequences.lengths).astype(np.int64)
    inside = border < sequences.offsets[1:]
    return np.where(inside, sequences.time[np.minimum(border, len(sequences.time) - 1)], np.inf)


def split_since(sequences: Sequences, since: Floats, ahead: float) -> Split:
    """Rows from the time `since` [B] on are held out: -inf holds out a whole sequence, inf none of it.

    Rows whose label looks `ahead` into them are left out of both parts.
    """
    if np.isinf(since).all():
        return Split(np.flatnonzero(since > 0), np.flatnonzero(since < 0))
    border = np.repeat(since, sequences.lengths)
    judge = sequences.time >= border
    learn = ~judge & (sequences.time + ahead < border)
    training = np.flatnonzero(np.logical_or.reduceat(~judge, sequences.offsets[:-1]))
    return Split(training, np.flatnonzero(since < np.inf), learn, judge)
