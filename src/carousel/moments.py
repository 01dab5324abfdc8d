"""Moments as users write them, and the rows of a table before or after one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from carousel.errors import DataError
from carousel.inputs import columns
from carousel.inputs.clock import Clock

__all__ = ["read_time", "rows_before", "rows_until"]


def rows_until(frame: Any, time: str, until: str | float, *, source: str = "data") -> Any:
    """The rows of a table whose time is `until` at the latest: what to train on, to evaluate on the rest.

    Raises DataError where there is no such column, a time cannot be read, or no row is left.
    """
    table = columns.as_frame(frame, source)
    columns.require(table, (time,), source)
    found, clock = columns.times(table[time], source)
    keep = found <= read_time(until, clock, "until")
    if not keep.any():
        first = clock.describe(float(found.min()))
        raise DataError(f"{source}, column {time!r}: no row is left until {until}; the first is at {first}.")
    return table.filter(keep.tolist()).to_native()


def rows_before(
    frame: Any, time: str | None, moment: str | float, source: str = "data", last: float | None = None
) -> Any:
    """The rows of a table whose time is before `moment`; those at the moment as well where it is `last`, the last one
    of training.

    Raises DataError where there is no time column, a time cannot be read, or no row is left.
    """
    if time is None:
        raise DataError(f"{source}: the model knows no time column, so that no moment can split the rows.")
    table = columns.as_frame(frame, source)
    columns.require(table, (time,), source)
    found, clock = columns.times(table[time], source)
    first = read_time(moment, clock, "since")
    keep = (found <= first) if first == last else (found < first)
    if not keep.any():
        raise DataError(
            f"{source}, column {time!r}: no row is before {moment}; the first is at"
            f" {clock.describe(float(found.min()))}."
        )
    return table.filter(keep.tolist()).to_native()


def read_time(given: str | float, clock: Clock, role: str, *, wall: bool = False) -> float:
    """A moment written as the table's time column writes it, as a number (`wall`: of the wall clock)."""
    try:
        if not clock.stamps:
            return float(given)
        stamp = datetime.fromisoformat(str(given))
    except ValueError:
        form = "a time like 2024-03-01 or 2024-03-01 12:00:00" if clock.stamps else "a number, as the time column has"
        raise DataError(f"{role}: {given!r} is not {form}.") from None
    zone = ZoneInfo(clock.zone) if clock.zone else UTC
    stamp = stamp.astimezone(zone) if stamp.tzinfo else stamp.replace(tzinfo=zone)
    return (stamp.replace(tzinfo=UTC) if wall else stamp).timestamp()
