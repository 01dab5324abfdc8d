"""Observations removed from sequences, and noise added to those that stay: what sensors do in the field."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from carousel.inputs.rows import Sequences

__all__ = ["KINDS", "carried", "corrupt"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

KINDS = {
    "points": "single readings at random",
    "bursts": "stretches of time, all sensors at once",
    "sensor": "whole sensors, others in each sequence",
    "lost": "whole sensors, the same in all test sequences and none in training",
}
BURSTS = 3  # stretches of a sequence


def corrupt(
    sequences: Sequences, kind: str, share: float, noise: float, spread: Floats, rng: np.random.Generator
) -> Sequences:
    """Remove about `share` of the readings in the way `kind` says (see KINDS), then add noise of `noise` * spread [F].

    Rows of which nothing is left are dropped, but for the first of each sequence, so that each keeps a row. Columns of
    categories are removed like others and get no noise. Raises ValueError for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no way to remove observations; choose from {', '.join(KINDS)}")
    values = sequences.features.copy()
    gone = _gone(sequences, kind, share, rng)  # drawn first: the same readings go whatever the noise
    names = sequences.roles.features
    numeric = np.array([name not in sequences.categories for name in names])
    values[:, numeric] += noise * spread[numeric] * rng.normal(size=(len(values), int(numeric.sum())))
    values[gone] = np.nan
    found = replace(sequences, features=values)
    kept = np.asarray(np.isfinite(values).any(1) | ~np.isfinite(sequences.features).any(1))
    kept[sequences.offsets[:-1]] = True
    return found if kept.all() else rows(found, kept)


def _gone(sequences: Sequences, kind: str, share: float, rng: np.random.Generator) -> Bools:
    """[N, F]: which readings are removed."""
    shape = sequences.features.shape
    count, owner = len(sequences.ids), sequences.owner
    if kind == "points":
        return np.asarray(rng.random(shape) < share)
    if kind == "sensor":
        return np.asarray((_chosen(count, shape[1], share, rng))[owner])
    if kind == "lost":
        return np.broadcast_to(_chosen(1, shape[1], share, rng), shape)
    start, end = sequences.offsets[:-1], sequences.offsets[1:] - 1
    length = (sequences.time[end] - sequences.time[start])[owner]
    since = np.divide(sequences.time - sequences.time[start][owner], length, out=np.zeros(shape[0]), where=length > 0)
    begins = (np.arange(BURSTS) + (1 - share) * rng.random((count, BURSTS))) / BURSTS  # one in each third
    inside = (since[:, None] >= begins[owner]) & (since[:, None] < begins[owner] + share / BURSTS)
    return np.broadcast_to(np.asarray(inside.any(1))[:, None], shape)


def _chosen(count: int, columns: int, share: float, rng: np.random.Generator) -> Bools:
    """[count, columns]: of each row round(share * columns) at random."""
    order = rng.random((count, columns)).argsort(1).argsort(1)
    return np.asarray(order < round(share * columns))


def rows(sequences: Sequences, kept: Bools) -> Sequences:
    """The rows [N] that are kept; every sequence keeps one."""
    counts = np.bincount(sequences.owner[kept], minlength=len(sequences.ids))
    return replace(
        sequences,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        time=sequences.time[kept],
        features=sequences.features[kept],
        row=sequences.row[kept],
        keys=None,
        target=None,
    )


def carried(sequences: Sequences, means: Floats, static_means: Floats) -> list[Floats]:
    """What a plain LSTM is given: each sequence [T, F + S + 1] with the last value carried forward.

    Means of training where nothing was seen yet; then the static columns, and the time since the first row. Nothing
    tells an old value from a new one.
    """
    values, n = sequences.features, len(sequences.time)
    start = np.repeat(sequences.offsets[:-1], sequences.lengths)[:, None]
    latest = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(n)[:, None], -1))
    held = np.where(latest >= start, np.take_along_axis(values, np.maximum(latest, 0), 0), means)
    static = np.where(np.isfinite(sequences.static), sequences.static, static_means)
    since = sequences.time - sequences.time[start[:, 0]]
    whole = np.concatenate([held, np.repeat(static, sequences.lengths, axis=0), since[:, None]], axis=1)
    return np.split(whole, sequences.offsets[1:-1])
