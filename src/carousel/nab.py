"""The score of the Numenta Anomaly Benchmark, computed for all thresholds at once.

Lavin & Ahmad 2015, "Evaluating real-time anomaly detection algorithms": the first detection in a labelled window
earns the more the earlier it is, a missed window costs, and so does every row flagged outside of one. The first
15 % of a series (at most 750 rows) are probation and do not count. One threshold, the best for the whole corpus, is
part of the protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError

__all__ = ["LOW_FN", "LOW_FP", "STANDARD", "NabProfile", "NabResult", "NabSeries", "nab_score", "probation"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class NabProfile:
    """What a window found, a window missed and a row flagged outside of all windows are worth."""

    found: float = 1.0
    missed: float = 1.0
    false: float = 0.11


STANDARD = NabProfile()
LOW_FP = NabProfile(false=0.22)
LOW_FN = NabProfile(missed=2.0)


class NabSeries(NamedTuple):
    """Scores [T] of one series and its labelled windows [W, 2]: first and last row, ascending, not overlapping."""

    scores: NDArray[Any]
    windows: NDArray[Any]


@dataclass(frozen=True)
class NabResult:
    """`score` is 0 for a detector that flags nothing and 100 for one that finds every window in its first row.

    Rows with a score of at least `threshold` are flagged; it is infinite where flagging nothing is best.
    """

    score: float
    threshold: float
    windows: int
    windows_found: int
    false_rows: int


def probation(rows: int) -> int:
    """How many rows at the start of a series do not count.

    >>> probation(1127), probation(22695)
    (169, 750)
    """
    return min(int(0.15 * rows), 750)


def nab_score(
    series: Sequence[NabSeries], profile: NabProfile = STANDARD, *, threshold: float | None = None
) -> NabResult:
    """The corpus' score at the best of all thresholds, or at the one given.

    Raises DataError for windows that are not in order, scores that are not finite, or no windows at all.

    >>> quiet = np.zeros(200)
    >>> alert = np.where(np.arange(200) == 100, 1.0, 0.0)
    >>> window = np.array([[100, 119]])
    >>> nab_score([NabSeries(quiet, window)]).score, nab_score([NabSeries(alert, window)]).score
    (0.0, 100.0)
    """
    values, points, gains, finds = (np.concatenate(part) for part in zip(*map(_weigh(profile), series), strict=True))
    total = sum(len(one.windows) for one in series)
    if not total:
        raise DataError("no series has a labelled window, so there is nothing to score; give windows.")
    order = np.argsort(-values, kind="stable")
    values = values[order]
    ends = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    worth = np.concatenate([[0.0], np.cumsum(gains[order])[ends]])  # above flagging nothing
    cuts = np.concatenate([[np.inf], values[ends]])
    best = int(worth.argmax()) if threshold is None else int((cuts >= threshold).sum()) - 1
    kept = order[: ends[best - 1] + 1] if best else order[:0]
    return NabResult(
        score=100 * float(worth[best]) / (total * (profile.found + profile.missed)),
        threshold=float(cuts[best]) if threshold is None else threshold,
        windows=total,
        windows_found=int(finds[kept].sum()),
        false_rows=int(points[kept].sum()),
    )


def _weigh(profile: NabProfile) -> Any:
    """Of one series: scores of the rows that count, which of them are false, and what flagging each adds.

    Within a window only what a row adds to those with higher scores counts: the running maximum of the worths.
    """

    def weigh(one: NabSeries) -> tuple[Floats, Ints, Floats, Ints]:
        scores, windows = np.asarray(one.scores, np.float64), np.asarray(one.windows, np.int64).reshape(-1, 2)
        _require(scores, windows)
        owner, worth = _worths(len(scores), windows, profile)
        start = probation(len(scores))
        gains = np.where(owner < 0, worth, 0.0)
        finds = np.zeros(len(scores), np.int64)
        for first, last in windows:
            rows = np.arange(max(first, start), last + 1)
            if not len(rows):
                continue
            rows = rows[np.argsort(-scores[rows], kind="stable")]
            best = np.maximum.accumulate(worth[rows])
            gains[rows] = np.diff(best, prepend=-profile.missed)
            finds[rows[0]] = 1
        return scores[start:], (owner < 0)[start:].astype(np.int64), gains[start:], finds[start:]

    return weigh


def _worths(rows: int, windows: Ints, profile: NabProfile) -> tuple[Ints, Floats]:
    """Which window each row is in (-1: none) and what flagging it is worth on its own, both [T]."""
    owner = np.full(rows, -1)
    worth = np.full(rows, -profile.false)
    at = np.arange(rows)
    for k, (first, last) in enumerate(windows):
        width = last - first + 1
        inside = at[first : last + 1]
        owner[inside] = k
        worth[inside] = profile.found * _sigmoid((inside - last - 1) / width) / _sigmoid(-1.0)
        until = windows[k + 1][0] if k + 1 < len(windows) else rows
        after = at[last + 1 : until]
        position = (after - last) / max(width - 1, 1)
        worth[after] = profile.false * np.where(position > 3, -1.0, _sigmoid(position))
    return owner, worth


def _sigmoid(position: Any) -> Any:
    """From 1 long before the end of a window through 0 at its end to -1 behind it."""
    return 2 / (1 + np.exp(5 * np.minimum(position, 100))) - 1


def _require(scores: Floats, windows: Ints) -> None:
    if not np.isfinite(scores).all():
        raise DataError(f"row {int(np.argmin(np.isfinite(scores))) + 1}: the score is not a finite number.")
    edges = windows.reshape(-1)
    if len(edges) and (edges[0] < 0 or edges[-1] >= len(scores) or (np.diff(windows, axis=1) < 0).any()):
        raise DataError(f"the windows must lie in the {len(scores)} rows and end after they begin; correct them.")
    if len(windows) > 1 and (windows[1:, 0] <= windows[:-1, 1]).any():
        raise DataError("the windows must be in order and may not overlap; sort and merge them.")
