"""How good is an anomaly detector? Rows, events and both at once; the share flagged beside them, no point adjustment.

A score of one row per event ("point adjustment") is not offered: with it, flagging rows at random is nearly perfect
(Kim et al. 2022). Event recall alone is perfect for a detector that flags everything, so the share flagged stands
beside it everywhere. Series never touch: `offsets` [B + 1] says where each begins.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError

__all__ = ["Detection", "detection", "runs", "vus_pr"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Detection:
    """Precision, recall and F1 over rows, over events, and composite: row precision with event recall.

    A precision is 0 where nothing is flagged; recalls are None where nothing is labelled.
    """

    precision: float
    recall: float | None
    f1: float | None
    event_precision: float
    event_recall: float | None
    event_f1: float | None
    composite_f1: float | None
    flagged: float  # share of the rows
    false_alarm_rate: float | None  # share of the rows that are not labelled
    missed_rate: float | None  # share of the labelled rows
    events: int
    events_found: int
    false_events: int  # flagged runs that touch no event


def runs(flags: NDArray[Any], offsets: NDArray[Any] | None = None) -> Ints:
    """First and last row [E, 2] of every run of flagged rows; no run goes from one series into the next.

    >>> runs(np.array([0, 1, 1, 0, 1, 1]), np.array([0, 5, 6])).tolist()
    [[1, 2], [4, 4], [5, 5]]
    """
    on: Flags = np.asarray(flags).astype(bool)
    first, last = on.copy(), on.copy()
    first[1:] &= ~on[:-1]
    last[:-1] &= ~on[1:]
    for edge in () if offsets is None else np.asarray(offsets)[1:-1]:
        if 0 < edge < len(on):
            first[edge], last[edge - 1] = on[edge], on[edge - 1]
    return np.stack([np.flatnonzero(first), np.flatnonzero(last)], 1).astype(np.int64)


def detection(flags: NDArray[Any], labels: NDArray[Any], offsets: NDArray[Any] | None = None) -> Detection:
    """Flagged rows [N] beside labelled ones [N].

    Composite F1: Garg et al. 2021, "An evaluation of anomaly detection and diagnosis in multivariate time series".
    Raises DataError where the two differ in length.

    >>> found = detection(np.array([0, 1, 0, 1, 0]), np.array([0, 1, 1, 0, 0]))
    >>> found.recall, found.event_recall, round(found.composite_f1, 3)
    (0.5, 1.0, 0.667)
    """
    flagged, truth = _aligned(flags, labels)
    made, events = runs(flagged, offsets), runs(truth, offsets)
    hits, alarms = int((flagged & truth).sum()), int(flagged.sum())
    positives, rows = int(truth.sum()), len(truth)
    found, right = _touched(events, flagged), _touched(made, truth)
    precision = hits / alarms if alarms else 0.0
    event_precision = right / len(made) if len(made) else 0.0
    recall = hits / positives if positives else None
    event_recall = found / len(events) if len(events) else None
    return Detection(
        precision=precision,
        recall=recall,
        f1=_f1(precision, recall),
        event_precision=event_precision,
        event_recall=event_recall,
        event_f1=_f1(event_precision, event_recall),
        composite_f1=_f1(precision, event_recall),
        flagged=alarms / rows if rows else 0.0,
        false_alarm_rate=(alarms - hits) / (rows - positives) if rows > positives else None,
        missed_rate=None if recall is None else 1 - recall,
        events=len(events),
        events_found=found,
        false_events=len(made) - right,
    )


def vus_pr(scores: NDArray[Any], labels: NDArray[Any], offsets: NDArray[Any] | None = None, *, window: int) -> float:
    """Volume under the precision-recall surface over all thresholds and all buffers 0 ... `window` (in rows).

    Paparrizos et al. 2022, "Volume under the surface". Rows up to half a buffer beside an event count as partly
    anomalous; recall is multiplied by the share of events that are touched. Every distinct score is a threshold (the
    authors' code samples 250), in O(window N + N log N): sorted once, one cumulative sum a buffer. The mean over the
    series with labelled rows. Raises DataError for unequal lengths, scores that are not finite, and without labels.

    >>> labels = np.array([0, 0, 1, 1, 0, 0])
    >>> vus_pr(labels.astype(float), labels, window=0), round(vus_pr(np.arange(6.0), labels, window=2), 3)
    (1.0, 0.343)
    """
    values = np.asarray(scores, np.float64)
    if len(values) != len(labels):
        raise DataError(f"there are {len(values)} scores and {len(labels)} labels; give one label a row.")
    if not np.isfinite(values).all():
        raise DataError(f"row {int(np.argmin(np.isfinite(values))) + 1}: the score is not a finite number.")
    truth: Flags = np.asarray(labels).astype(bool)
    edges = np.array([0, len(truth)]) if offsets is None else np.asarray(offsets)
    parts = [slice(int(a), int(b)) for a, b in itertools.pairwise(edges) if truth[a:b].any()]
    if not parts:
        raise DataError("no row is labelled as an anomaly, so there is no precision-recall surface; give labels.")
    return float(np.mean([_volume(values[part], truth[part], window) for part in parts]))


def _volume(scores: Floats, truth: Flags, window: int) -> float:
    order = np.argsort(-scores, kind="stable")
    down = scores[order]
    ends = np.append(np.flatnonzero(np.diff(down)), len(down) - 1)  # last row of each distinct score
    thresholds, events, positives = down[ends], runs(truth), float(truth.sum())
    total = 0.0
    for buffer in range(window + 1):
        weight = _buffered(truth, events, buffer)
        true = np.cumsum(weight[order])[ends]
        parts = runs(weight > 0)
        peaks = np.sort([scores[a : b + 1].max() for a, b in parts])
        touched = 1 - np.searchsorted(peaks, thresholds, side="left") / len(peaks)
        recall = np.minimum(true / ((positives + weight.sum()) / 2), 1) * touched
        precision = true / (ends + 1)
        rise = np.diff(recall, prepend=0.0)
        total += float(rise @ (precision + np.concatenate([[1.0], precision[:-1]]))) / 2
    return total / (window + 1)


def _buffered(truth: Flags, events: Ints, buffer: int) -> Floats:
    """Labels [N] with sqrt(1 - distance / buffer) up to half a buffer beside each event."""
    weight = truth.astype(np.float64)
    reach = np.arange(1, buffer // 2 + 1)
    for first, last in events if len(reach) else ():
        slope = np.sqrt(1 - reach / buffer)
        after = reach[last + reach < len(weight)]
        before = reach[first - reach >= 0]
        weight[last + after] += slope[: len(after)]
        weight[first - before] += slope[: len(before)]
    return np.minimum(weight, 1)


def _aligned(flags: NDArray[Any], labels: NDArray[Any]) -> tuple[Flags, Flags]:
    if len(flags) != len(labels):
        raise DataError(f"there are {len(flags)} rows and {len(labels)} labels; give one label a row.")
    return np.asarray(flags).astype(bool), np.asarray(labels).astype(bool)


def _touched(spans: Ints, rows: Flags) -> int:
    before = np.concatenate([[0], np.cumsum(rows)])
    return int((before[spans[:, 1] + 1] > before[spans[:, 0]]).sum())


def _f1(precision: float, recall: float | None) -> float | None:
    if recall is None:
        return None
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
