"""Which rows are odd: what the detect head is, and its read-out in NumPy, for a table and for a stream alike.

Every row is looked at in several `View`s: the mean, over the last so many rows, of the forecast's (or the
reconstruction's) standardised errors, or of the values themselves. A view's distance is Mahalanobis' (Malhotra et al.
2015 for the errors of an LSTM; Hotelling 1947 for values). The score of a row is that of its oddest view, so scaled
that 1 is the limit: an anomaly is a score of at least `threshold`.

Sums run in one fixed order, so that a stream gives the scores of the table bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.heads.classify import output_shapes
from carousel.heads.view import View, window_means

__all__ = [
    "DetectHead",
    "DetectState",
    "Scores",
    "View",
    "forecast",
    "forecast_errors",
    "last_values",
    "most_of",
    "score_rows",
    "window_means",
]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

Method = Literal["forecast", "autoencoder"]
Reference = Literal["training", "history"]
NAMED = 3  # columns that an anomaly is put down to, at most
SMALLEST = 0.01  # of a forecast's scale, in scaled units: no column is ever certain


@dataclass(frozen=True)
class DetectHead:
    """Outputs of the stack [N, P] -> change to the next row and raw scale of its forecast [N, 2 C] ("forecast"), or
    a reconstruction [N, C] of the rows of a window through `code` numbers ("autoencoder").

    `columns` are the number columns that are scored, C of them. `width` is a hidden layer of ReLUs (0: none), and of
    the autoencoder the size of its decoder. A forecast begins with the last value times `keep` [C] (none: 1), and its
    scale counts as at least `floor` [C]. `reference`: what a
    view's distance is measured against, the limit from training, or the largest in the history of the sequence so
    far, and values against the range so far; then, for `rest` rows after a score, only higher ones stand.
    """

    method: Method
    columns: tuple[str, ...]
    width: int = 0
    window: int = 0
    code: int = 0
    reference: Reference = "training"
    rest: int = 0
    threshold: float = 1.0
    floor: tuple[float, ...] = ()
    views: tuple[View, ...] = ()
    keep: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("a detector needs at least one number column")
        if (self.method == "autoencoder") != (self.window > 0 and self.code > 0 and self.width > 0):
            raise ValueError("an autoencoder needs window, code and width, a forecast neither window nor code")
        if min(self.width, self.window, self.code, self.rest) < 0 or not self.threshold > 0:
            raise ValueError("width, window, code and rest are at least 0 and the threshold is positive")
        if len(self.floor) != len(self.columns) or any(not f > 0 for f in self.floor):
            raise ValueError(f"floor must be {len(self.columns)} positive numbers, got {self.floor}")
        if len(self.keep) not in (0, len(self.columns)) or any(not 0 <= k <= 1 for k in self.keep):
            raise ValueError(f"keep must be {len(self.columns)} numbers in [0, 1], or none, got {self.keep}")
        if any(len(view.centre) != len(self.columns) for view in self.views):
            raise ValueError(f"every view must be of {len(self.columns)} columns")

    @property
    def kept(self) -> Floats:
        """`keep` [C], 1 where none is said."""
        return np.array(self.keep or (1.0,) * len(self.columns))

    @property
    def outputs(self) -> int:
        return len(self.columns) * (2 if self.method == "forecast" else 1)

    def shapes(self, state: int) -> dict[str, tuple[int, ...]]:
        """The weights of the torch module for outputs of the stack of that size."""
        if self.method == "forecast":
            return output_shapes(state, self.width, self.outputs)
        gates = 4 * self.width
        return {
            "narrow.weight": (self.code, state),
            "narrow.bias": (self.code,),
            "decoder.weight_ih_l0": (gates, self.code),
            "decoder.weight_hh_l0": (gates, self.width),
            "decoder.bias_ih_l0": (gates,),
            "decoder.bias_hh_l0": (gates,),
            "out.weight": (self.outputs, self.width),
            "out.bias": (self.outputs,),
        }


def forecast(head: DetectHead, outputs: Floats | Singles, last: Floats) -> tuple[Floats, Floats]:
    """Mean and scale [N, C] of the next row, in scaled units, from outputs [N, 2 C] and the last values [N, C]."""
    made = np.asarray(outputs, np.float64)
    size = last.shape[-1]
    raw = made[..., size:]
    scale = np.log1p(np.exp(-np.abs(raw))) + np.maximum(raw, 0.0) + SMALLEST
    return last * head.kept + made[..., :size], np.maximum(scale, np.asarray(head.floor))


def forecast_errors(head: DetectHead, outputs: Floats | Singles, scaled: Floats, offsets: Ints) -> Floats:
    """Standardised errors [N, C] of each row's forecast by the row before; NaN for first rows and what is missing.

    outputs [N, 2 C] of the head; scaled [N, C] are the values as the model counts them, NaN where missing.
    """
    mean, scale = forecast(head, outputs, last_values(scaled, offsets))
    errors = np.full_like(scaled, np.nan)
    errors[1:] = (scaled[1:] - mean[:-1]) / scale[:-1]
    errors[offsets[:-1][offsets[:-1] < offsets[1:]]] = np.nan
    return errors


def last_values(scaled: Floats, offsets: Ints) -> Floats:
    """The last observed values [N, C] up to each row of its sequence, 0 where there is none yet."""
    n = len(scaled)
    start = np.repeat(offsets[:-1], np.diff(offsets))[:, None]
    at = np.maximum.accumulate(np.where(np.isnan(scaled), -1, np.arange(n)[:, None]), 0)
    return np.where(at >= start, np.take_along_axis(scaled, np.maximum(at, 0), 0), 0.0) if n else scaled


class Scores(NamedTuple):
    """Of N rows: score [N] (NaN where nothing is observed), whether it is an anomaly, the columns' parts [N, C] in
    the oddest view, and which view that is (-1: none)."""

    score: Floats
    anomaly: Flags
    parts: Floats
    view: Ints


def score_rows(head: DetectHead, errors: Floats, values: Floats, offsets: Ints) -> Scores:
    """Of rows [N] of sequences: their standardised errors [N, C] and values [N, C] in their own units, NaN: missing."""
    n, size = values.shape
    seen = (~np.isnan(values)).any(1)
    best, parts, which = np.zeros(n), np.zeros((n, size)), np.full(n, -1)
    for k, view in enumerate(head.views):
        means, known = window_means(errors if view.of == "error" else values, offsets, view.rows)
        if head.reference == "history" and view.of == "value":
            score, part = _beyond_range(view, means, known, offsets)
        else:
            distance, part = view.distance(means, known)
            if head.reference == "history":
                score = distance / _before(distance, offsets, view.largest)
            else:
                score = distance / view.limit
        better = np.nan_to_num(score) > best
        best = np.where(better, score, best)
        parts[better], which[better] = part[better], k
    if head.reference == "history" and head.rest:
        best = _rested(best, offsets, head.rest)
    score = np.where(seen, best, np.nan)
    return Scores(score, np.nan_to_num(score) >= head.threshold, parts, which)


def _before(distance: Floats, offsets: Ints, first: float) -> Floats:
    """The largest distance [N] in the rows before, at least `first`."""
    found = np.empty(len(distance))
    for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        found[a:b] = np.fmax.accumulate(np.concatenate([[first], distance[a:b]]))[:-1] if b > a else 0
    return found


def _beyond_range(view: View, means: Floats, known: Ints, offsets: Ints) -> tuple[Floats, Floats]:
    """How far means of full windows lie from the middle of the range so far, in units of half of it: 1 is its edge."""
    full = np.where(known == view.rows, means, np.nan)
    low, high = np.empty_like(full), np.empty_like(full)
    for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        low[a:b] = np.fmin.accumulate(np.vstack([view.low, full[a:b]]), 0)[:-1]
        high[a:b] = np.fmax.accumulate(np.vstack([view.high, full[a:b]]), 0)[:-1]
    return _range_score(full, low, high)


def _range_score(full: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    half = (high - low) / 2
    away = np.abs(full - (low + half)) / np.where(half > 0, half, np.inf)
    away = np.where((half > 0) | np.isnan(full), away, np.where(full == low, 0.0, 2.0))  # of a constant: any change
    score = np.fmax.reduce(away, 1) if away.shape[1] else np.zeros(len(away))
    return score, np.maximum(np.nan_to_num(away) - 1, 0.0)


def _rested(score: Floats, offsets: Ints, rest: int) -> Floats:
    """After a score above 1 only higher ones stand for `rest` rows; the others count as 1 at most."""
    found = score.copy()
    for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        held, left = 1.0, 0
        for t in range(a, b):
            found[t], held, left = _rest(float(score[t]), held, left, rest)
    return found


def _rest(score: float, held: float, left: int, rest: int) -> tuple[float, float, int]:
    if score > held:
        return score, score, rest
    left -= 1
    return min(score, 1.0), held if left > 0 else 1.0, max(left, 0)


def most_of(parts: Floats, columns: tuple[str, ...]) -> list[str]:
    """The columns that make up nine tenths of a score's parts [C], at most three, most first.

    >>> most_of(np.array([1.0, 8.0, 0.1]), ("a", "b", "c"))
    ['b', 'a']
    """
    total = parts.sum()
    if not total > 0:
        return []
    order = np.argsort(-parts, kind="stable")[:NAMED]
    before = np.concatenate([[0.0], np.cumsum(parts[order])[:-1]])
    return [
        columns[k] for k, b in zip(order.tolist(), before.tolist(), strict=True) if b < 0.9 * total and parts[k] > 0
    ]


@dataclass
class DetectState:
    """What the score of one row needs of those before it: `step` gives the score of the next row and moves on.

    The LSTM's own state is kept by whoever runs the stack.
    """

    head: DetectHead
    mean: Floats = field(default_factory=lambda: np.zeros(0))  # [C] the forecast of the next row, NaN before the first
    scale: Floats = field(default_factory=lambda: np.zeros(0))
    last: Floats = field(default_factory=lambda: np.zeros(0))
    rings: list[Floats] = field(default_factory=list)  # of each view the last rows [rows, C], oldest first
    largest: list[float] = field(default_factory=list)
    low: list[Floats] = field(default_factory=list)
    high: list[Floats] = field(default_factory=list)
    held: float = 1.0
    left: int = 0

    def __post_init__(self) -> None:
        if self.head.method != "forecast":
            raise ValueError("an autoencoder sees whole windows and has no form for streams; fit method='forecast'")
        if not len(self.mean):
            size = len(self.head.columns)
            self.mean, self.scale, self.last = np.full(size, np.nan), np.ones(size), np.zeros(size)
            for view in self.head.views:
                self.rings.append(np.full((view.rows, size), np.nan))
                self.largest.append(view.largest)
                self.low.append(np.array(view.low))
                self.high.append(np.array(view.high))

    def step(self, outputs: Floats | Singles, scaled: Floats, values: Floats) -> Scores:
        """One row: outputs [2 C] of the head for it, its values as the model counts them [C] and as they are [C].

        Bit for bit what `score_rows` gives for that row.
        """
        found = self.judge((scaled - self.mean) / self.scale, values)
        self.last = np.where(np.isnan(scaled), self.last, scaled)
        self.mean, self.scale = forecast(self.head, outputs, self.last)
        return found

    def judge(self, errors: Floats, values: Floats) -> Scores:
        """One row: its standardised errors [C], and its values as they are [C]."""
        head = self.head
        best, parts, which = 0.0, np.zeros((1, len(values))), -1
        for k, view in enumerate(head.views):
            ring = self.rings[k]
            ring[:-1] = ring[1:]
            ring[-1] = errors if view.of == "error" else values
            known = (~np.isnan(ring)).sum(0)[None]
            total = np.cumsum(np.nan_to_num(ring), 0)[-1:]
            means = np.where(known > 0, total / np.maximum(known, 1), np.nan)
            if head.reference == "history" and view.of == "value":
                full = np.where(known == view.rows, means, np.nan)
                found, part = _range_score(full, self.low[k], self.high[k])
                self.low[k], self.high[k] = np.fmin(self.low[k], full[0]), np.fmax(self.high[k], full[0])
                score = float(found[0])
            else:
                distance, part = view.distance(means, known)
                score = float(distance[0]) / (self.largest[k] if head.reference == "history" else view.limit)
                self.largest[k] = float(np.fmax(self.largest[k], distance[0]))
            if score > best:
                best, parts, which = score, part, k
        if head.reference == "history" and head.rest:
            best, self.held, self.left = _rest(best, self.held, self.left, head.rest)
        score = best if not np.isnan(values).all() else np.nan
        flag = bool(score >= head.threshold)
        return Scores(np.array([score]), np.array([flag]), parts, np.array([which]))
