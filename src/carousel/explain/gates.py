"""What single units do: which of them count, follow a trend, a cycle, an event or a column; and an order to show them.

Correlations are taken within sequences: each sequence's own mean is taken off first, so that a unit that merely
differs from sequence to sequence is not said to follow anything.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.explain.record import Layer
from carousel.explain.subject import Subject

__all__ = ["Role", "order", "roles"]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]

CLEAR = 0.7  # correlation from which on a unit is said to follow something
COUNTING = 0.95  # share of a counter's variance that a running sum explains
SHORTEST = 8  # steps of a sequence that correlations are taken over
MOST_ROWS = 20_000
RARE = 0.2  # share of rows: what is on more often is no event


class Role(NamedTuple):
    """What a unit follows: kind is counter, cycle, trend, event, follows or none; strength a correlation in [0, 1]."""

    unit: int
    kind: str
    of: str  # the column, or the period of a cycle in words
    strength: float

    def describe(self) -> str:
        """The role as words after "unit k".

        >>> Role(3, "cycle", "52 steps", 0.91).describe()
        'goes with a cycle of 52 steps (r = 0.91)'
        """
        if self.kind == "none":
            return "follows no single thing"
        words = {
            "counter": "counts {}",
            "cycle": "goes with a cycle of {}",
            "trend": "goes with {}",
            "event": "answers to {}",
            "follows": "follows {}",
        }[self.kind].format(self.of)
        return f"{words} (r = {self.strength:.2f})"


class _Rows(NamedTuple):
    """The rows that correlations are taken over, the sequence and step of each, and how many sequences there are."""

    at: Ints
    owner: Ints
    step: Ints
    sequences: int

    @property
    def last(self) -> NDArray[np.bool_]:
        """Whether a row is the last of its sequence [N]."""
        return np.asarray(np.diff(self.owner, append=self.sequences) != 0)


def roles(layer: Layer, subject: Subject, inputs: Singles | None) -> list[Role]:
    """What each unit's cell state follows; `inputs` [N, C] are the rows as the first layer reads them."""
    rows = _rows(layer.offsets)
    units = layer.units
    if rows is None:
        return [Role(k, "none", "", 0.0) for k in range(units)]
    c = _within(layer.c[rows.at].astype(np.float64), rows)
    found: list[list[Role]] = [[] for _ in range(units)]
    time = _within(rows.step[:, None].astype(np.float64), rows)
    step = "the steps" if layer.backwards is False else "the steps that are left"
    for k, r in enumerate(_correlation(c, time)[:, 0]):
        found[k].append(Role(k, "trend", "time", float(abs(r))))
    for k, (name, strength) in enumerate(_cycles(c, rows, subject)):
        found[k].append(Role(k, "cycle", name, strength))
    signals = _signals(subject, inputs, layer)
    for name, values in signals.items():
        _follow(found, name, values[rows.at], c, layer, rows)
    counters = _counters(layer, rows, signals, step)
    made = []
    for k, candidates in enumerate(found):
        best = counters.get(k) or max(candidates, key=lambda role: role.strength)
        made.append(best if best.strength >= CLEAR else Role(k, "none", "", best.strength))
    return made


def _rows(offsets: Ints) -> _Rows | None:
    lengths = np.diff(offsets)
    which = np.flatnonzero(lengths >= SHORTEST)
    if not len(which):
        return None
    keep = np.cumsum(lengths[which]) <= max(MOST_ROWS, lengths[which[0]])
    which = which[keep]
    at = np.concatenate([np.arange(offsets[b], offsets[b + 1]) for b in which])
    owner = np.repeat(np.arange(len(which)), lengths[which])
    return _Rows(at, owner, at - offsets[:-1][which][owner], len(which))


def _within(values: Floats, rows: _Rows) -> Floats:
    """Less the mean of each sequence."""
    total = np.zeros((rows.sequences, values.shape[1]))
    np.add.at(total, rows.owner, values)
    return np.asarray(values - (total / np.bincount(rows.owner)[:, None])[rows.owner])


def _correlation(a: Floats, b: Floats) -> Floats:
    """Of columns a [N, H] and b [N, K], both centred: [H, K], 0 where one of them is constant."""
    size = np.sqrt((a * a).sum(0))[:, None] * np.sqrt((b * b).sum(0))[None]
    return np.asarray(np.where(size > 1e-12, a.T @ b / np.maximum(size, 1e-12), 0.0))


def _cycles(c: Floats, rows: _Rows, subject: Subject) -> list[tuple[str, float]]:
    """The best period of each unit: the model's own seasons, and the strongest of its spectrum.

    Two harmonics, in each sequence with a phase of its own, since sequences begin anywhere in a cycle. A period is
    tried where a sequence has two of it; what noise alone would give the waves is taken off.
    """
    total = np.maximum((c * c).sum(0), 1e-12)
    steps = int(rows.step.max()) + 1
    usual = {float(m) for m in subject.seasons if 3 <= m <= steps / 2}
    periods = sorted(usual | {steps / n for n in range(2, min(steps // 4, 40))})
    best: list[tuple[str, float]] = [("", 0.0)] * c.shape[1]
    flat = _groups(c, rows)
    for period in periods:
        parts, able = _waves(flat, period)
        free = sum((x.shape[1] - 2) * len(x) for x in able)
        left = free - 4 * sum(map(len, able))
        if left < free / 2:
            continue
        whole = np.maximum(sum((x * x).sum((0, 1)) for x in able), 1e-12)
        share = 1 - (1 - parts.sum(0) / whole) * free / left  # adjusted for what was fitted
        share = np.clip(share, 0, 1) * np.minimum(whole / total, 1)  # a trend is no cycle
        # all of it in the second harmonic: that is a cycle of half the length
        r = np.where(parts[:2].sum(0) > 0.25 * parts.sum(0), np.sqrt(share), 0.0)
        bonus = 0.02 if period in usual else 0.0  # of equal fits, the season that the model knows of
        for k in np.flatnonzero(r + bonus > [b[1] for b in best]).tolist():
            best[k] = (subject.pace.describe(period), float(r[k]))
    return best


def _groups(c: Floats, rows: _Rows) -> list[Floats]:
    """States of sequences that are equally long [S, T, H], each without its own line."""
    lengths = np.bincount(rows.owner)
    first = np.cumsum(lengths) - lengths
    found = []
    for steps in np.unique(lengths):
        x = c[first[lengths == steps][:, None] + np.arange(steps)]
        line = np.arange(steps) - (steps - 1) / 2
        slope = np.einsum("t,sth->sh", line, x) / (line @ line)
        found.append(x - x.mean(1, keepdims=True) - line[:, None] * slope[:, None])
    return found


def _waves(flat: list[Floats], period: float) -> tuple[Floats, list[Floats]]:
    """What sine and cosine of a period and of its half explain [4, H], and the sequences that have two of it."""
    able = [x for x in flat if x.shape[1] >= 2 * period]
    parts = np.zeros((4, flat[0].shape[2]))
    for x in able:
        angle = 2 * np.pi * np.arange(x.shape[1]) / period
        waves = np.stack([np.sin(angle), np.cos(angle), np.sin(2 * angle), np.cos(2 * angle)], 1)
        waves, _ = np.linalg.qr(waves - waves.mean(0))
        parts += (np.einsum("tw,sth->swh", waves, x) ** 2).sum(0)
    return parts, able


def _signals(subject: Subject, inputs: Singles | None, layer: Layer) -> dict[str, Floats]:
    """Columns [N] that units may follow; gaps hold the value before them."""
    n = int(layer.offsets[-1])
    found = {}
    for name, values in subject.signals.items():
        if len(values) == n and np.isfinite(values).any():
            found[name] = _held(values, layer.offsets)
    if not found and inputs is not None and len(inputs) == n and subject.tokens is None:
        found = {channel.name: inputs[:, k].astype(np.float64) for k, channel in enumerate(subject.channels)}
    return found


def _held(values: Floats, offsets: Ints) -> Floats:
    first = np.zeros(len(values), bool)
    first[offsets[:-1][offsets[:-1] < offsets[1:]]] = True
    start = np.maximum.accumulate(np.where(first, np.arange(len(values)), 0))
    latest = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(len(values)), -1))
    return np.where(latest >= start, values[np.maximum(latest, 0)], np.nanmean(values))


def _follow(found: list[list[Role]], name: str, values: Floats, c: Floats, layer: Layer, rows: _Rows) -> None:
    """The column itself, or, of one that is rarely on, the change that it makes to the state."""
    distinct = np.unique(values)
    usual = float(np.median(values))
    on = (values != usual) if len(distinct) <= 5 else None
    if on is not None and 0 < on.mean() <= RARE:
        c = layer.c[rows.at].astype(np.float64)
        change = np.abs(np.diff(c, axis=0, append=0.0) if layer.backwards else np.diff(c, axis=0, prepend=0.0))
        change[rows.last if layer.backwards else rows.step == 0] = 0.0
        r = _correlation(_within(change, rows), _within(on[:, None].astype(np.float64), rows))[:, 0]
        for k, value in enumerate(r):
            found[k].append(Role(k, "event", name, float(max(value, 0.0))))
        return
    r = _correlation(c, _within(values[:, None], rows))[:, 0]
    for k, value in enumerate(r):
        found[k].append(Role(k, "follows", name, float(abs(value))))


def _counters(layer: Layer, rows: _Rows, signals: dict[str, Floats], step: str) -> dict[int, Role]:
    """Units that forget nothing and whose state is a running sum of a column, or of the steps."""
    longest = int(np.diff(layer.offsets).max())
    kept = layer.keep[rows.at].astype(np.float64)
    holds = np.flatnonzero(-np.log(np.maximum(kept, 1e-30)).mean(0) * longest < 0.05)
    if not len(holds):
        return {}
    c = _within(layer.c[rows.at][:, holds].astype(np.float64), rows)
    total = (c * c).sum(0)
    moving = total > 1e-9 * max(len(c), 1)
    found: dict[int, Role] = {}
    time = rows.step[:, None].astype(np.float64) + 1
    for name, values in {step: None, **signals}.items():
        columns = time
        if values is not None:
            own = values[rows.at] - values[rows.at].min()
            running = np.cumsum(own)
            begin = running[rows.step == 0] - own[rows.step == 0]
            columns = np.concatenate([time, (running - begin[rows.owner])[:, None]], 1)
        basis, _ = np.linalg.qr(_within(columns, rows))
        share = ((basis.T @ c) ** 2).sum(0) / np.maximum(total, 1e-30)
        for j in np.flatnonzero(moving & (share >= COUNTING)).tolist():
            k, r = int(holds[j]), float(np.sqrt(min(share[j], 1.0)))
            if k not in found or r > found[k].strength + 1e-3:
                found[k] = Role(k, "counter", name, r)
    return found


def order(layer: Layer) -> tuple[Ints, Ints]:
    """Units [H] in an order that puts alike ones together, and the cluster of each in that order.

    Average linkage of 1 - |correlation| of their cell states, leaves ordered so that neighbours are alike
    (Bar-Joseph et al. 2001).
    """
    from scipy.cluster.hierarchy import fcluster, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    units = layer.units
    if units < 3:
        return np.arange(units), np.zeros(units, np.int64)
    at = np.linspace(0, len(layer.c) - 1, min(len(layer.c), 3000)).astype(np.int64)
    c = layer.c[at].astype(np.float64)
    c = c - c.mean(0)
    distance = 1 - np.abs(_correlation(c, c))
    distance = np.clip((distance + distance.T) / 2, 0, None)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), "average")
    if units <= 300:
        tree = optimal_leaf_ordering(tree, squareform(distance, checks=False))
    groups = fcluster(tree, 0.5, "distance")
    from scipy.cluster.hierarchy import leaves_list

    leaves = np.asarray(leaves_list(tree), np.int64)
    return leaves, np.asarray(groups[leaves], np.int64)
