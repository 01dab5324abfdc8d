"""A time as the model counts it, from what a row holds: the same readings as those of a table."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from carousel.errors import DataError
from carousel.inputs.clock import utc_offset
from carousel.stream.values import missing

__all__ = ["LAST", "read_time", "zone_of"]

FIRST, LAST = -62104060800.0, 253370764800.0  # seconds of the years 2 and 9999: every zone can write those between
LARGEST = 1e140  # as in native/src/stream.cpp
_MONTH = re.compile(r"\d{4}-\d{2}")


def read_time(value: Any, stamps: bool, where: str) -> tuple[float, float]:
    """The time in the model's numbers, and by the wall clock (of its zone, where it has one).

    Timestamps are datetime, date, numpy.datetime64 or ISO 8601 text. Raises DataError for a time that is missing, of
    the other kind than in training, unreadable or not finite.

    >>> read_time("1970-01-02", True, "row 1"), read_time(5, False, "row 1")
    ((86400.0, 86400.0), (5.0, 5.0))
    """
    if missing(value):
        raise DataError(f"{where}: the time is missing; give it with every row.")
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if number and stamps:
        raise DataError(f"{where}: the time held timestamps in training and {value!r} is a number; give a timestamp.")
    if number:
        return (_number(value, where),) * 2
    if not stamps and isinstance(value, str | date | np.datetime64):
        what = "text" if isinstance(value, str) else "a timestamp"
        raise DataError(f"{where}: the time held numbers in training and {value!r} is {what}; give a number.")
    try:
        found = _stamp(value, where)
    except OverflowError:  # a zone's clock at the ends of Python's calendar
        found = (math.inf, math.inf)
    if not all(FIRST <= seconds < LAST for seconds in found):
        raise DataError(f"{where}: the time {value!s} lies outside of the years 2 to 9998; correct it.")
    return found


def _number(value: Any, where: str) -> float:
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not abs(found) <= LARGEST:
        what = "is not finite" if math.isinf(found) else "is too large to compute with"
        raise DataError(f"{where}: the time {what}; correct it.")
    return found


def _stamp(value: Any, where: str) -> tuple[float, float]:
    if isinstance(value, str):
        text = value.strip()
        try:
            stamp = datetime.fromisoformat(f"{text}-01" if _MONTH.fullmatch(text) else text)
        except ValueError:
            raise DataError(
                f"{where}: {value!r} is not a time; write it as 2024-03-01 or 2024-03-01 12:00:00."
            ) from None
        seconds = (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()
        return seconds, seconds  # as a column of text, which has no zone of its own
    if isinstance(value, np.datetime64):
        seconds = float(value.astype("datetime64[us]").astype(np.int64)) / 1e6
        return seconds, seconds
    if isinstance(value, datetime):
        if value.tzinfo is None:
            seconds = value.replace(tzinfo=UTC).timestamp()
            return seconds, seconds
        seconds, zone = value.timestamp(), getattr(value.tzinfo, "key", None)
        if zone:
            return seconds, seconds + float(utc_offset(np.array([seconds]), zone)[0])
        return seconds, value.replace(tzinfo=UTC).timestamp()
    if isinstance(value, date):
        seconds = datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
        return seconds, seconds
    raise DataError(f"{where}: {value!r} of type {type(value).__name__} is no time; give a timestamp or a number.")


def zone_of(value: Any) -> str | None:
    """The name of a timestamp's zone, None where it has none by name.

    >>> from zoneinfo import ZoneInfo
    >>> zone_of(datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))), zone_of("2024-01-01")
    ('Europe/Berlin', None)
    """
    zone = getattr(value, "tzinfo", None)
    if zone is UTC:
        return "UTC"
    name = getattr(zone, "key", None)
    return None if name is None else str(name)
