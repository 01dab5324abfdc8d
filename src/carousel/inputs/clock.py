"""Clocks: times of any type as numbers, the grid they lie on, the way back to the user's type, calendar features.

Times are float64: seconds since 1970 for timestamps, the numbers themselves otherwise. A grid is what makes "52
steps earlier" mean the same season: even spacing, months (of 28 to 31 days), or business days.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from carousel.errors import CarouselError, DataError

__all__ = ["CALENDAR", "Clock", "Grid", "calendar_features", "infer_grid", "parse_span", "require_zone"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DAY = 86400.0
# A grid may hold at most this many rows for one row of data; beyond it the clock is called uneven.
MAX_ROWS_PER_OBSERVATION = 4.0
LONGEST_CYCLE = 2016  # steps: a week of five-minute readings

CALENDAR = ("minute_of_hour", "hour_of_day", "day_of_week", "day_of_month", "day_of_year")
PERIOD = {
    "minute_of_hour": 3600.0,
    "hour_of_day": DAY,
    "day_of_week": 7 * DAY,
    "day_of_month": 30.4375 * DAY,
    "day_of_year": 365.25 * DAY,
}


@dataclass(frozen=True)
class Grid:
    """Where rows lie. `step` counts seconds or numbers (even, uneven: the median), months or business days.

    `zone` is the time zone whose wall clock calendar features are about; with `wall` rows are spaced evenly by that
    clock as well, rather than in UTC (local days have 23 to 25 hours).
    """

    kind: Literal["even", "month", "month_end", "business", "uneven"]
    step: float
    wall: bool = False
    zone: str | None = None

    def ticks(self, time: Floats) -> Ints:
        """Which grid point each time [N] is, counted from an arbitrary one; undefined for an uneven clock."""
        if self.kind == "even":
            return np.rint((time - time[0]) / self.step).astype(np.int64) if len(time) else np.zeros(0, np.int64)
        if self.kind == "business":
            days = _days(time)
            return np.busday_count(np.datetime64("1970-01-01"), days).astype(np.int64)
        return _months(time).astype(np.int64) // int(self.step)

    def ahead(self, time: Floats, steps: Ints | int) -> Floats:
        """The times `steps` grid points after `time`; the two broadcast."""
        time, steps = np.broadcast_arrays(time, np.asarray(steps, dtype=np.int64))
        if self.kind in ("even", "uneven"):
            return time + steps * self.step
        if self.kind == "business":
            days = _days(time)
            moved = np.busday_offset(days, steps * int(self.step))
            return np.asarray(time + (moved - days).astype(np.float64) * DAY)
        months = _months(time)
        later = months + steps * int(self.step)
        if self.kind == "month_end":
            return time - _month_start(months + 1) + _month_start(later + 1)
        return time - _month_start(months) + _month_start(later)


@dataclass(frozen=True)
class Clock:
    """What the time column was, so that forecasts are written in the same type.

    `kind` is "row" where the table has no time column, `dtype` is the column's narwhals type, which may have another
    time zone than `zone`, that of the model. With a time zone the numbers are UTC seconds, or seconds of the wall
    clock where `Grid.wall` says so.
    """

    kind: Literal["row", "number", "timestamp", "text"]
    dtype: Any = None
    zone: str | None = None
    pattern: str = ""  # strftime's, of text

    @property
    def stamps(self) -> bool:
        return self.kind in ("timestamp", "text")

    def local(self, time: Floats, grid: Grid) -> Floats:
        """Seconds of the wall clock, which is what calendar features are about."""
        return time if self.zone is None or grid.wall else time + utc_offset(time, self.zone)

    def describe(self, time: float) -> str:
        """One time as a user would write it."""
        if not self.stamps:
            return f"{time:g}"
        if self.pattern:
            return datetime.fromtimestamp(time, UTC).strftime(self.pattern)
        text = str(np.datetime64(round(time * 1e6), "us")).replace("T", " ").removesuffix(".000000")
        return text.removesuffix(" 00:00:00")


def infer_grid(time: Floats, offsets: Ints, *, stamps: bool) -> Grid:
    """The coarsest grid that holds every row: time [N] ascends within each series of offsets [B + 1].

    >>> infer_grid(np.array([0.0, 7.0, 14.0, 28.0]), np.array([0, 4]), stamps=False)
    Grid(kind='even', step=7.0, wall=False, zone=None)
    """
    gaps = _gaps(time, offsets)
    if not len(gaps):
        return Grid("even", DAY if stamps else 1.0)
    rows = len(time)
    if stamps and _is_business(time, gaps):
        return Grid("business", 1.0)
    step = _common_step(gaps, rows)
    if step:
        return Grid("even", step)
    if stamps:
        months = _months(time)
        month_step = _common_step(_gaps(months.astype(np.float64), offsets), rows)
        for kind, inside in (
            ("month", time - _month_start(months)),
            ("month_end", time - _month_start(months + 1)),
        ):
            if month_step and not np.any(_gaps(inside, offsets)):
                return Grid("month" if kind == "month" else "month_end", month_step)
    return Grid("uneven", float(np.median(gaps)))


def off_grid(time: Floats, offsets: Ints, *, stamps: bool) -> tuple[Grid, int, float] | None:
    """Of an uneven clock: the grid of nearly all rows, the first row that leaves it, and the share of rows on it.

    None where fewer than 90 % of the rows lie on any. A row out of place spoils the gaps on both sides of it.

    >>> off_grid(np.array([*range(10), 10.5, *range(11, 20)], float), np.array([0, 20]), stamps=False)[1]
    10
    """
    inner = np.ones(len(time), bool)
    inner[offsets[:-1][offsets[:-1] < len(time)]] = False
    follows = np.flatnonzero(inner)
    if not len(follows):
        return None

    def change(values: Floats | Ints) -> Floats:
        return np.asarray(values[follows] - values[follows - 1], dtype=np.float64)

    def multiples(gaps: Floats) -> tuple[float, NDArray[np.bool_]]:
        values, counts = np.unique(np.round(gaps, 6), return_counts=True)
        step = float(values[counts.argmax()])
        if step <= 0 or 2 * counts.max() < len(gaps):
            return 0.0, np.zeros(len(gaps), bool)
        times = gaps / step
        near = np.abs(times - np.rint(times)) < 1e-3
        return step, near & (times > 0.5) & (times < MAX_ROWS_PER_OBSERVATION + 0.5)

    step, fits = multiples(change(time))
    found = [(Grid("even", step), fits)]
    if stamps:
        months = _months(time)
        step, fits = multiples(change(months))
        found.append((Grid("month", step), fits & (change(time - _month_start(months)) == 0)))
        found.append((Grid("month_end", step), fits & (change(time - _month_start(months + 1)) == 0)))
    grid, fits = max(found, key=lambda one: int(one[1].sum()))
    share = 1 - float((~fits).mean()) / 2
    return (grid, int(follows[np.argmin(fits)]), share) if 0.9 <= share < 1 else None


def calendar_features(local: Floats, names: tuple[str, ...]) -> Floats:
    """Sine and cosine of the position within each named period: [..., 2 * len(names)].

    >>> calendar_features(np.array([0.0, 6 * 3600.0]), ("hour_of_day",)).round(6).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    found = []
    for name in names:
        # 1970-01-01 was a Thursday; months and years are taken at their mean lengths from their own starts.
        if name == "day_of_month":
            at = local - _month_start(_months(local))
        elif name == "day_of_year":
            months = _months(local)
            at = local - _month_start(months - months % 12)
        elif name == "day_of_week":
            at = local + 3 * DAY
        else:
            at = local
        angle = 2 * np.pi * (at / PERIOD[name] % 1)
        found += [np.sin(angle), np.cos(angle)]
    return np.stack(found, -1) if found else np.zeros((*local.shape, 0))


def useful_calendar(grid: Grid, time: Floats) -> tuple[str, ...]:
    """The calendar features that vary from row to row on this grid and of which two periods were seen."""
    if not len(time):
        return ()
    step = {"month": 30.4375 * DAY, "month_end": 30.4375 * DAY, "business": DAY}.get(grid.kind, 1.0) * grid.step
    span = float(time.max() - time.min())
    names = [name for name in CALENDAR if step < PERIOD[name] and span >= 2 * PERIOD[name]]
    if grid.kind in ("month", "month_end") or step > 6.9 * DAY:
        names = [name for name in names if name not in ("day_of_week", "day_of_month")]
    return tuple(names)


def cycles(grid: Grid) -> tuple[int, ...]:
    """Steps of the hour, day, week and year on this grid, ascending: where a season may be looked for.

    >>> cycles(Grid("month", 1.0)), cycles(Grid("even", 3600.0)), cycles(Grid("business", 1.0))
    ((12,), (24, 168), (5, 261))
    """
    if grid.kind == "uneven":
        return ()
    if grid.kind == "business":
        return (5, 261)
    if grid.kind in ("month", "month_end"):
        return (round(12 / grid.step),) if grid.step < 12 else ()
    found = []
    for period in (3600.0, DAY, 7 * DAY, 365.25 * DAY):
        steps = period / grid.step
        whole = abs(steps - round(steps)) < 1e-6 or period > 7 * DAY
        if steps >= 1.99 and whole and round(steps) <= LONGEST_CYCLE:
            found.append(round(steps))
    return tuple(found)


def require_zone(given: str | None, trained: str | None, where: str) -> None:
    """DataError where times have a zone and those of training had none, or the other way round: hours would be wrong.

    >>> require_zone("UTC", "Europe/Berlin", "data")  # the same moments by another clock
    """
    if (given is None) != (trained is None):
        was, now = (f"in the time zone {zone}" if zone else "without a time zone" for zone in (trained, given))
        raise DataError(
            f"{where}: the model was trained on times {was}, these are {now}; convert them to what they were."
        )


def utc_offset(utc: Floats, zone: str) -> Floats:
    """Seconds that the wall clock of `zone` is ahead of UTC; looked up once an hour that occurs."""
    hours, inverse = np.unique(np.floor(utc / 900).astype(np.int64), return_inverse=True)
    from zoneinfo import ZoneInfo  # imported for models with a time zone only

    info = ZoneInfo(zone)
    ahead = [datetime.fromtimestamp(int(h) * 900, UTC).astimezone(info).utcoffset() for h in hours]
    return np.array([a.total_seconds() if a else 0.0 for a in ahead])[inverse].reshape(utc.shape)


def utc_of_wall(wall: Floats, zone: str) -> Floats:
    """UTC seconds of wall-clock seconds [N]: the first of two where the clocks go back, an hour later in their gap."""
    from zoneinfo import ZoneInfo  # imported for models with a time zone only

    info = ZoneInfo(zone)
    start = datetime(1970, 1, 1, tzinfo=info)
    ahead = [(start + timedelta(seconds=float(t))).utcoffset() for t in wall]  # adds to the wall clock, with fold 0
    return np.asarray(wall - np.array([a.total_seconds() if a else 0.0 for a in ahead]))


def _gaps(values: Floats, offsets: Ints) -> Floats:
    """Differences between neighbours of the same series."""
    if len(values) < 2:
        return np.zeros(0)
    keep = np.ones(len(values) - 1, bool)
    inner = offsets[1:-1]
    keep[inner[(inner > 0) & (inner < len(values))] - 1] = False
    return np.diff(values)[keep]


def _common_step(gaps: Floats, rows: int) -> float:
    """The step of which all gaps are multiples, 0 if there is none or the grid would be mostly empty."""
    if not len(gaps) or gaps.min() <= 0:
        return 0.0
    values, counts = np.unique(np.round(gaps, 6), return_counts=True)
    for step in (float(values[counts.argmax()]), float(values[0])):
        multiple = gaps / step
        if np.abs(multiple - np.rint(multiple)).max() < 1e-3 and multiple.sum() <= MAX_ROWS_PER_OBSERVATION * rows:
            return step
    return 0.0


def _is_business(time: Floats, gaps: Floats) -> bool:
    days = gaps / DAY
    weekday = (_days(time).astype(np.int64) + 3) % 7  # 0 is Monday
    weekends = int((days >= 3).sum())
    return bool(np.all(days == np.rint(days)) and np.median(days) == 1 and weekday.max() < 5 and weekends >= 2)


def _days(time: Floats) -> NDArray[np.datetime64]:
    return np.floor(time / DAY).astype(np.int64).astype("datetime64[D]")


def _months(time: Floats) -> Ints:
    return _days(time).astype("datetime64[M]").astype(np.int64)


def _month_start(months: Ints) -> Floats:
    return months.astype("datetime64[M]").astype("datetime64[s]").astype(np.float64)


def parse_span(given: str | float, stamps: bool, name: str) -> float:
    """A span of time in the clock's numbers: seconds of "6h" where it shows timestamps, a number as it is.

    >>> parse_span("6h", True, "ahead"), parse_span("90 min", True, "ahead"), parse_span(5, False, "ahead")
    (21600.0, 5400.0, 5.0)
    """
    text = str(given).strip()
    found = re.fullmatch(r"([0-9.]+)\s*([a-z]*)", text.lower())
    unit = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
    try:
        size = float(found[1]) if found else float("nan")
    except ValueError:
        size = float("nan")
    if not found or not 0 < size < float("inf") or (found[2] and found[2] not in unit):
        raise CarouselError(f"{name} must be a positive span of time as 6h, 30min, 2d or 45s, got {given!r}.")
    if stamps and not found[2] and isinstance(given, str):
        raise CarouselError(f"{name} {given!r} has no unit, and the time column holds timestamps; write it as 6h.")
    if found[2] and not stamps:
        raise CarouselError(
            f"{name} {given!r} has a unit, and the rows are counted in numbers; give it in those numbers."
        )
    return size * unit.get(found[2], 1.0)
