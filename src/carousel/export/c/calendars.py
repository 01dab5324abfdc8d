"""Calendar features as lines of C, of a time in seconds (double) or in whole seconds (int64_t), and in integers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from carousel.export.c.fixed import sine15

__all__ = ["FLOAT_LINES", "WHOLE_LINES", "whole_features"]

Ints = NDArray[np.int64]

_MONTH, _YEAR = "month_start(month)", "month_start(month - (month % 12 + 12) % 12)"

FLOAT_LINES = {
    "minute_of_hour": "x = turn(x, time, 3600.0);",
    "hour_of_day": "x = turn(x, time, 86400.0);",
    "day_of_week": "x = turn(x, time + 3.0 * 86400.0, 7.0 * 86400.0);",
    "day_of_month": f"x = turn(x, time - (double){_MONTH} * 86400.0, 30.4375 * 86400.0);",
    "day_of_year": f"x = turn(x, time - (double){_YEAR} * 86400.0, 365.25 * 86400.0);",
}
WHOLE_LINES = {
    "minute_of_hour": "x = turn(x, time, 3600, bits);",
    "hour_of_day": "x = turn(x, time, 86400, bits);",
    "day_of_week": "x = turn(x, time + 3 * 86400, 7 * 86400, bits);",
    "day_of_month": f"x = turn(x, time - {_MONTH} * 86400, 2629800, bits);",
    "day_of_year": f"x = turn(x, time - {_YEAR} * 86400, 31557600, bits);",
}


def whole_features(time: Ints, names: tuple[str, ...]) -> list[Ints]:
    """Sine and cosine [...] with 15 fraction bits of each calendar feature; time [...] in whole seconds."""
    months = (time // 86400).astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    places: dict[str, Callable[[], tuple[Ints, int]]] = {
        "minute_of_hour": lambda: (time, 3600),
        "hour_of_day": lambda: (time, 86400),
        "day_of_week": lambda: (time + 3 * 86400, 7 * 86400),
        "day_of_month": lambda: (time - _month_start(months), 2629800),
        "day_of_year": lambda: (time - _month_start(months - months % 12), 31557600),
    }
    found = []
    for name in names:
        at, period = places[name]()
        turn = at % period * 65536 // period
        found += [sine15(turn), sine15(turn + 16384)]
    return found


def _month_start(months: Ints) -> Ints:
    return months.astype("datetime64[M]").astype("datetime64[s]").astype(np.int64)
