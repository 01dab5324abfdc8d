"""Lines of C that make the calendar's features: of a time in seconds (double), or in whole seconds (int64_t)."""

from __future__ import annotations

__all__ = ["FLOAT_LINES", "WHOLE_LINES"]

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
