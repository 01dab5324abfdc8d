"""Early warnings as those who must act on them count: events warned of, how long before, and how often for nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.heads.tag import during, onsets

__all__ = ["Warned", "alarms_within", "warned", "warning_report"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Warned:
    """`lead` is in the clock's units (seconds for timestamps), from the first alarm within `ahead` to the onset.

    `alarms` counts rings: after one the alarm is silent for `ahead`, then it may ring again, so that one which never
    stops counts again and again. `false_alarms` are rings without an onset within `ahead` in the data. `span` is the
    time from each row outside events to the next.
    """

    events: int
    warned: int
    alarms: int
    false_alarms: int
    lead_median: float | None
    lead_mean: float | None
    span: float

    @property
    def share(self) -> float | None:
        return self.warned / self.events if self.events else None

    def per(self, unit: float) -> float | None:
        """Alarms in `unit` of time (86,400 for a day of seconds)."""
        return self.alarms * unit / self.span if self.span > 0 else None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"share": self.share}


def warned(
    time: Floats, onset: Bools, alarm: Bools, offsets: Ints, ahead: float, lasting: Bools | None = None
) -> Warned:
    """Count on rows of sequences: time [N] ascending within each, `onset` [N] of the event, `alarm` [N].

    An event can be warned of only by rows before it: one in the first row of a sequence does not count. While it is
    `lasting` [N] (None: nowhere), neither alarms nor time count.

    >>> t = np.arange(8.0)
    >>> found = warned(t, t == 6, (t == 1) | (t == 4) | (t == 5), np.array([0, 8]), 3.0)
    >>> found.events, found.warned, found.alarms, found.false_alarms, found.lead_median
    (1, 1, 2, 1, 2.0)
    """
    leads: list[float] = []
    events = alarms = false = 0
    span = 0.0
    outside = np.ones(len(time), bool) if lasting is None else ~lasting
    for start, stop in pairwise(offsets.tolist()):
        if stop == start:
            continue
        t, on, free = time[start:stop], onset[start:stop], outside[start:stop]
        rung = alarm[start:stop] & free
        span += float(np.diff(t)[free[:-1]].sum())
        when, bells = t[on], t[rung]
        when = when[when > t[0]]
        events += len(when)
        first = np.searchsorted(bells, when - ahead, side="left")  # alarm in [onset - ahead, onset)
        hit = first < np.searchsorted(bells, when, side="left")
        leads += (when[hit] - bells[first[hit]]).tolist()
        rings = _rings(bells, ahead)
        following = np.searchsorted(when, rings, side="right")
        coming = np.append(when, np.inf)[following]
        alarms += len(rings)
        false += int((coming - rings > ahead).sum())
    known = np.array(leads)
    return Warned(
        events,
        len(leads),
        alarms,
        false,
        float(np.median(known)) if leads else None,
        float(known.mean()) if leads else None,
        span,
    )


def warning_report(
    time: Floats,
    event: Floats,
    alarm: NDArray[np.bool_],
    offsets: Ints,
    ahead: float,
    day: float,
    watched: NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    """What alarms were worth: events, the share warned of, lead times, and alarms a day.

    Counted as `warned` counts, of which `alarms_per_day` are the rings by `day` (in the clock's numbers)
    of time outside events. Only rows `watched` [N] are looked at (None: all).

    >>> t, e = np.arange(8.0), np.array([0, 0, 0, 0, 1, 1, 0, 0.0])
    >>> warning_report(t, e, np.array([1, 0, 1, 1, 1, 0, 0, 0], bool), np.array([0, 8]), 3.0, day=1.0)
    {'events': 1.0, 'events_warned': 1.0, 'lead_time': 2.0, 'alarms_per_day': 0.2}
    """
    seen = np.ones(len(time), bool) if watched is None else watched
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    kept = np.concatenate([[0], np.cumsum(np.bincount(owner[seen], minlength=len(offsets) - 1))])
    onset, lasting = onsets(event, offsets)[seen], during(event, offsets)[seen]
    found = warned(time[seen], onset, alarm[seen], kept, ahead, lasting)
    share, lead, often = found.share, found.lead_median, found.per(day)
    return {
        "events": float(found.events),
        "events_warned": float("nan") if share is None else share,
        "lead_time": float("nan") if lead is None else lead,
        "alarms_per_day": float("nan") if often is None else often,
    }


def _rings(alarms: Floats, silence: float) -> Floats:
    """Of ascending times those at which an alarm rings that is silent for a while after each ring."""
    found = []
    at = 0
    while at < len(alarms):
        found.append(alarms[at])
        at = int(np.searchsorted(alarms, alarms[at] + silence, side="right"))
    return np.array(found)


def alarms_within(
    time: Floats,
    probability: Floats,
    onset: Bools,
    offsets: Ints,
    ahead: float,
    most: int,
    lasting: Bools | None = None,
) -> float:
    """The lowest threshold, among 400 quantiles of the probabilities, at which the alarm rings `most` times or less.

    It lets methods be compared at an equal number of alarms, whatever their probabilities mean.
    """
    levels = np.unique(np.quantile(probability, 1 - np.geomspace(1, 1e-4, 400)))
    low, high = 0, len(levels)  # bisection: fewer rows ring at higher levels
    while low < high:
        middle = (low + high) // 2
        if warned(time, onset, probability >= levels[middle], offsets, ahead, lasting).alarms <= most:
            high = middle
        else:
            low = middle + 1
    return float(levels[low]) if low < len(levels) else float(np.nextafter(probability.max(), np.inf))
