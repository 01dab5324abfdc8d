"""Warnings about times that can be read, but hardly as they were meant: rows off the grid, dates as numbers."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from carousel.inputs.clock import DAY, Clock, Grid, off_grid, utc_offset

__all__ = ["describe_grid", "remark_dates_as_numbers", "remark_off_grid"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def describe_grid(grid: Grid, *, stamps: bool) -> str:
    """The spacing as a user would say it.

    >>> describe_grid(Grid("even", 86400.0), stamps=True), describe_grid(Grid("even", 7.0), stamps=False)
    ('1 day', '7')
    """
    if not stamps:
        return f"{grid.step:g}"
    if grid.kind in ("month", "month_end"):
        size, unit = grid.step, "month"
    elif grid.kind == "business":
        size, unit = grid.step, "business day"
    elif grid.step % DAY == 0:
        size, unit = grid.step / DAY, "day"
    else:
        size, unit = grid.step, "second"
    return f"{size:g} {unit}{'' if size == 1 else 's'}"


def remark_off_grid(time: Floats, offsets: Ints, row: Ints, own: int, clock: Clock, column: str, source: str) -> None:
    """Warn where an uneven clock would be even but for a few rows: a single slip costs the season.

    `own` rows are the table's, `row` [N] counts from 1.
    """
    found = [off_grid(time, offsets, stamps=clock.stamps)]
    if clock.zone:
        found.append(off_grid(time + utc_offset(time, clock.zone), offsets, stamps=True))
    likely = max((one for one in found if one), key=lambda one: one[2], default=None)
    if likely is None:
        return
    grid, at, _ = likely
    number = int(row[at])
    where = f"row {number}" if number <= own else f"row {number - own} of the added rows"
    warnings.warn(
        f"{source}, {where}, column {column!r}: the time {clock.describe(time[at])} does not follow the one before on"
        f" the grid of {describe_grid(grid, stamps=clock.stamps)} that nearly all rows lie on, and so the table counts"
        " as uneven and has no season; correct or drop such rows.",
        stacklevel=4,
    )


def remark_dates_as_numbers(time: Floats, column: str, source: str) -> None:
    """Warn where all numbers read as YYYYMM or YYYYMMDD: December would be 89 steps before January."""
    if len(time) < 2 or np.any(time != np.rint(time)):
        return
    found = _written(time.astype(np.int64))
    if found:
        pattern, remedy = found
        warnings.warn(
            f"{source}, column {column!r}: times like {int(time[0])} look like {pattern} but count as plain numbers;"
            f" write them as {remedy}.",
            stacklevel=4,
        )


def _written(values: Ints) -> tuple[str, str] | None:
    low, high = int(values.min()), int(values.max())
    if low >= 1900_01 and high <= 2099_12:
        month = values % 100
        return ("YYYYMM", "2022-12") if month.min() >= 1 and month.max() <= 12 else None
    if low < 1900_01_01 or high > 2099_12_31:
        return None
    months, day = values // 100, values % 100
    if (months % 100).min() < 1 or (months % 100).max() > 12 or day.min() < 1:
        return None
    start = (12 * (months // 100 - 1970) + months % 100 - 1).astype("datetime64[M]")
    days = ((start + 1).astype("datetime64[D]") - start.astype("datetime64[D]")).astype(np.int64)
    return ("YYYYMMDD", "2022-12-30") if np.all(day <= days) else None
