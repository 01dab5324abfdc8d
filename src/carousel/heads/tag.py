"""A label, a number, or an early warning per step: what the head is, and its read-out in NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from carousel.heads.classify import output_shapes

__all__ = ["TagHead", "event_labels", "event_probability"]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TagHead:
    """Outputs of the stack [N, P] -> of each row one logit for each class, one number, or one logit of a warning.

    A warning's probability is that of an onset of the event within `ahead` (in the clock's numbers: seconds for
    timestamps) after the row; it is an alarm from `threshold` on. Classes, temperature, numbers and quantiles are
    those of `ClassifyHead`.
    """

    kind: Literal["label", "regression", "event"]
    width: int = 0
    classes: tuple[str, ...] = ()
    type: Literal["text", "integer", "number", "boolean"] = "text"
    temperature: float = 1.0
    mean: float = 0.0
    scale: float = 1.0
    quantiles: tuple[float, ...] = (0.05, 0.95)
    errors: tuple[float, ...] = (0.0, 0.0)
    ahead: float = 0.0
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if (self.kind == "label") != (len(self.classes) > 1):
            raise ValueError(f"a head of labels needs two classes or more, any other none, got {self.classes}")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes must differ, got {self.classes}")
        for name in ("temperature", "scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.width < 0:
            raise ValueError(f"width must be at least 0, got {self.width}")
        if (self.kind == "event") != (self.ahead > 0):
            raise ValueError(f"ahead is positive for events and 0 otherwise, got {self.ahead}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is a probability, got {self.threshold}")
        if len(self.errors) != len(self.quantiles) or list(self.quantiles) != sorted(set(self.quantiles)):
            raise ValueError(f"quantiles must ascend and have one error each, got {self.quantiles} and {self.errors}")

    @property
    def outputs(self) -> int:
        return len(self.classes) or 1

    def shapes(self, state: int) -> dict[str, tuple[int, ...]]:
        """The weights of the torch module for outputs of the stack of that size."""
        return output_shapes(state, self.width, self.outputs)

    def numbers(self, outputs: Singles | Floats) -> Floats:
        """Outputs [N, 1] in the target's own units: the prediction and its quantiles [N, 1 + Q]."""
        y = np.asarray(outputs[:, :1], np.float64) * self.scale + self.mean
        return np.concatenate([y, y + np.asarray(self.errors)], 1)

    def alarms(self, probability: Floats) -> NDArray[np.bool_]:
        return np.asarray(probability >= self.threshold)


def event_probability(logits: Singles | Floats, temperature: float) -> Floats:
    """Sigmoid of logits [N, 1] / temperature, as [N], in float64.

    >>> event_probability(np.array([[0.0], [np.log(3.0)]]), 1.0).round(3).tolist()
    [0.5, 0.75]
    """
    z = np.asarray(logits, np.float64)[..., 0] / temperature
    e = np.exp(-np.abs(z))
    return np.asarray(np.where(z >= 0, 1.0, e) / (1.0 + e))


def event_labels(time: Floats, event: Floats, offsets: Ints, ahead: float) -> Floats:
    """Of each row [N] whether an event begins within `ahead` after it: 1, 0, or NaN where that is not to be learned.

    `event` [N] is 1 while the event lasts, 0 when not, NaN where unknown. Onsets are rows with 1 whose latest known row
    before is not 1. NaN are: rows during an event (there is nothing left to warn of) and rows whose future is censored:
    no onset was seen within `ahead`, but the rows of the sequence end sooner or some of them are unknown.

    >>> t, e = np.arange(7.0), np.array([0, 0, 0, 1, 1, 0, 0.0])
    >>> event_labels(t, e, np.array([0, 7]), 2.0).tolist()
    [0.0, 1.0, 1.0, nan, nan, nan, nan]
    """
    n = len(time)
    rows = np.arange(n)
    owner = np.searchsorted(offsets, rows, side="right") - 1
    end = offsets[owner + 1]
    onset = onsets(event, offsets)
    following = _next(onset)  # the first onset after each row, n where there is none
    distance = np.where(following < end, time[np.minimum(following, n - 1)] - time, np.inf)
    unknown = _next(np.isnan(event))
    blind = np.where(unknown < end, time[np.minimum(unknown, n - 1)] - time, np.inf)
    covered = (time[end - 1] - time >= ahead) & (blind > ahead)
    label = np.where(distance <= ahead, 1.0, np.where(covered, 0.0, np.nan))
    label[during(event, offsets)] = np.nan
    return label


def onsets(event: Floats, offsets: Ints) -> NDArray[np.bool_]:
    """[N] the rows at which an event begins."""
    n = len(event)
    rows = np.arange(n)
    owner = np.searchsorted(offsets, rows, side="right") - 1
    state = np.maximum.accumulate(np.where(np.isfinite(event), rows, -1))
    before = np.concatenate([[-1], state[:-1]])
    was = (before >= offsets[owner]) & (event[np.maximum(before, 0)] == 1)
    return np.asarray((event == 1) & ~was)


def _next(marked: NDArray[np.bool_]) -> Ints:
    """For each row the first marked row after it, N where there is none."""
    n = len(marked)
    at = np.where(marked, np.arange(n), n)
    from_here = np.minimum.accumulate(at[::-1])[::-1]
    return np.concatenate([from_here[1:], [n]]).astype(np.int64)


def choose_threshold(
    probability: Floats, truth: Floats, cost: float | None = None, precision: float | None = None
) -> float:
    """The threshold at which alarms do best on held-out rows: probability [n], truth [n] of 0 and 1.

    With `cost`: least false alarms + cost * missed rows. With `precision`: the lowest threshold at which that share of
    the alarms is right, or 1 where there is none. Else the best F1. 0.5 (or 1 / (1 + cost)) where one kind is absent.

    >>> choose_threshold(np.array([0.1, 0.4, 0.6, 0.9]), np.array([0.0, 1.0, 0.0, 1.0]), cost=3.0)
    0.4
    """
    total = float(truth.sum())
    if not total or total == len(truth):
        return 0.5 if cost is None else 1 / (1 + cost)
    order = np.argsort(-probability, kind="stable")
    p, right = probability[order], np.cumsum(truth[order])
    alarms = np.arange(1, len(p) + 1)
    last = np.append(p[1:] != p[:-1], True)  # equal probabilities alarm together
    if cost is not None:
        score = -(alarms - right + cost * (total - right))
    elif precision is not None:
        score = np.where(right / alarms >= precision, right, -1.0)
    else:
        score = 2 * right / (alarms + total)
    score = np.where(last, score, -np.inf)
    if cost is not None and score.max() < -cost * total:
        return 1.0
    best = int(np.flatnonzero(score == score.max())[-1]) if precision is not None else int(score.argmax())
    return 1.0 if score[best] < 0 and precision is not None else float(p[best])


def during(event: Floats, offsets: Ints) -> NDArray[np.bool_]:
    """[N] whether the event lasts at the row, by the last row that knows."""
    rows = np.arange(len(event))
    begin = offsets[np.searchsorted(offsets, rows, side="right") - 1]
    state = np.maximum.accumulate(np.where(np.isfinite(event), rows, -1))
    return np.asarray((state >= begin) & (event[np.maximum(state, 0)] == 1))
