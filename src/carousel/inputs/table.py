"""Tables of series, one row per observation: from a user's frame to `Series`, and from arrays back to such a frame.

Every fault of the data is found here, before any training. A regular grid with absent rows becomes unobserved rows
on that grid, so that seasons stay aligned; a truly uneven clock keeps its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError
from carousel.inputs import columns
from carousel.inputs.clock import (
    MAX_ROWS_PER_OBSERVATION,
    Clock,
    Grid,
    infer_grid,
    require_zone,
    utc_of_wall,
    utc_offset,
)
from carousel.inputs.remarks import describe_grid, remark_dates_as_numbers, remark_off_grid
from carousel.inputs.roles import Roles

__all__ = ["Roles", "Series", "append_rows", "infer_roles", "read_table", "write_table"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Series:
    """B series, sorted by id and time, as flat arrays of N rows; rows of series b are offsets[b]:offsets[b + 1].

    NaN is not observed. Columns of text are codes into `categories[name]`. `row` is the 1-based row of the user's
    table, 0 for a row that the grid has and the table has not.
    """

    roles: Roles
    ids: list[Any]
    offsets: Ints  # [B + 1]
    time: Floats  # [N]
    target: Floats  # [N, K]
    features: Floats  # [N, F]
    known: Floats  # [N, Kn]
    static: Floats  # [B, S]
    categories: Mapping[str, tuple[str, ...]]
    grid: Grid
    clock: Clock
    row: Ints  # [N]
    source: str
    id_dtype: Any
    backend: Any

    @property
    def step(self) -> float:
        """Spacing of the grid: seconds, numbers, months or business days, as `grid.kind` says."""
        return self.grid.step

    @property
    def lengths(self) -> Ints:
        return np.diff(self.offsets)

    def select(self, which: Ints) -> Series:
        """The series numbered `which`, in that order."""
        lengths = self.lengths[which]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.arange(offsets[-1]) + np.repeat(self.offsets[which] - offsets[:-1], lengths)
        return replace(
            self,
            ids=[self.ids[k] for k in which],
            offsets=offsets,
            time=self.time[rows],
            target=self.target[rows],
            features=self.features[rows],
            known=self.known[rows],
            static=self.static[which],
            row=self.row[rows],
        )

    def name(self, which: Ints) -> str:
        """Series as a message names them: the first three and how many more."""
        if self.roles.id is None:
            return "the series"
        named = ", ".join(repr(self.ids[k]) for k in which[:3])
        more = f" and {len(which) - 3} more" if len(which) > 3 else ""
        return f"series {named}{more}"


def infer_roles(
    frame: Any,
    *,
    id: str | None,
    time: str | None,
    target: tuple[str, ...],
    features: tuple[str, ...] | None,
    static: tuple[str, ...],
    known: tuple[str, ...],
    source: str = "data",
) -> Roles:
    """Fill in what the table makes plain: the only timestamp column is the time, the only numeric one the target,
    and with `features` None every column without a role is a feature.

    Raises DataError where the target is ambiguous, or text looks like dates and no column is the time.
    """
    table = columns.as_frame(frame, source)
    taken = {name for name in (id, time, *target, *(features or ()), *static, *known) if name}
    columns.require(table, sorted(taken), source)
    free = [name for name in table.columns if name not in taken]
    if time is None:
        stamps = [n for n in free if table[n].dtype == nw.Date or isinstance(table[n].dtype, nw.Datetime)]
        time = stamps[0] if len(stamps) == 1 else None
        free = [name for name in free if name != time]
    if time is None and features is None:
        for name in free:
            _refuse_unread_times(table[name], source)
    if not target:
        numeric = [name for name in free if table[name].dtype.is_numeric()]
        if len(numeric) != 1:
            among = f"one of {', '.join(numeric)}" if numeric else "a numeric column, of which there is none"
            raise DataError(f"{source}: which column is to be forecast is not clear; name the target, {among}.")
        target = (numeric[0],)
        free.remove(numeric[0])
    return Roles(id, time, target, tuple(free) if features is None else features, static, known)


def _refuse_unread_times(column: nw.Series[Any], source: str) -> None:
    """Dates in text would be taken as a category of as many values as there are days."""
    if not columns.is_text(column):
        return
    first = columns.first_date(column)
    if first and first[1] == "iso":
        raise DataError(
            f"{source}, column {column.name!r}: text like {first[0]!r} looks like a time; name the column as the time,"
            " or as a feature."
        )
    if first:
        raise DataError(
            f"{source}, column {column.name!r}: text like {first[0]!r} looks like dates of which day and month cannot"
            " be told apart; write them as 2024-03-01, or name the column as a feature."
        )


def read_table(
    frame: Any,
    roles: Roles,
    *,
    source: str = "data",
    grid: Grid | None = None,
    stamps: bool | None = None,
    valid: Any = None,
    future: Any = None,
) -> Series:
    """All series of a pandas, polars or Arrow table.

    `valid` brings more rows; `future` too, of which only id, time and the known columns are read. `grid` is the one
    a model was trained on, with its time zone, `stamps` whether its times were timestamps; without them, they are
    inferred. Times in another zone are read in that of the grid. Raises
    DataError, which names source, row, column and remedy, for: no table, no rows, missing column, text in a numeric
    column, unreadable or missing time, infinite values, the same time twice in a series, an all-missing target, a
    static column that changes within a series, times off the grid, times that are no longer timestamps. Warns of
    rows off a grid that nearly all others lie on, and of dates that are written as numbers.
    """
    table = columns.as_frame(frame, source)
    columns.require(table, roles.columns, source)
    table = table.select(roles.columns)
    own = len(table)
    if stamps is not None:
        _refuse_other_clock(table, roles, stamps, source)
    if valid is not None:
        read_table(valid, roles, source="valid")  # its own faults, under its own name
        table = append_rows(table, valid, roles.columns, "valid")
    if future is not None:
        ahead = Roles(roles.id, roles.time, known=roles.known)
        read_table(future, ahead, source="future")
        table = append_rows(table, future, ahead.columns, "future")
    ids, series = columns.keys(table[roles.id], source) if roles.id else ([0], np.zeros(len(table), np.int64))
    if roles.time:
        time, clock = columns.times(table[roles.time], source)
    else:
        time, clock = _row_numbers(series, len(ids)), Clock("row")
    order = np.lexsort((time, series))
    series, time, row = series[order], time[order], order + 1
    offsets = np.searchsorted(series, np.arange(len(ids) + 1)).astype(np.int64)
    _refuse_duplicates(series, time, row, own, roles, ids, clock, source)
    trained = grid is not None
    grid, clock, settled = _settle_grid(grid, time, offsets, clock, f"{source}, column {roles.time!r}")
    if roles.time and not trained:
        if clock.kind == "number":
            remark_dates_as_numbers(time, roles.time, source)
        if grid.kind == "uneven":
            remark_off_grid(time, offsets, row, own, clock, roles.time, source)
    time = settled

    found: dict[str, tuple[str, ...]] = {}
    read = {role: _read(table, getattr(roles, role), found, source)[order] for role in _COVARIATES}
    read["target"] = _read_target(table, roles.target, source)[order]
    observed = np.isfinite(read["target"][row <= own]).any(0)
    if not observed.all():
        name = roles.target[int(np.argmin(observed))]
        raise DataError(f"{source}, column {name!r}: no value of the target is observed; there is nothing to learn.")
    static = _constant(read.pop("static"), offsets, roles, row, ids, source)
    made = Series(
        roles=roles,
        ids=ids,
        offsets=offsets,
        time=time,
        static=static,
        categories=found,
        grid=grid,
        clock=clock,
        row=row,
        source=source,
        id_dtype=table[roles.id].dtype if roles.id else None,
        backend=table.implementation,
        **read,
    )
    return made if grid.kind == "uneven" else _on_grid(made)


ABSENT = 1_000_000  # rows that a grid may lack in a table of any length: beyond them a time is wrong
_COVARIATES = ("features", "known", "static")


def write_table(series: Series, which: Ints, time: Floats, rest: Mapping[str, NDArray[Any] | list[Any]]) -> Any:
    """A frame of the kind that `series` came from: the id of series `which` [M], `time` [M], then the `rest`."""
    backend = series.backend
    made = []
    if series.roles.id:
        ids = [series.ids[k] for k in which]
        dtype = nw.String() if series.id_dtype in (nw.Categorical, nw.Enum) else series.id_dtype
        made.append(nw.new_series(series.roles.id, ids, dtype, backend=backend))
    name = series.roles.time or "row"
    made.append(_write_time(name, time, series))
    made += [nw.new_series(key, values, backend=backend) for key, values in rest.items()]
    return nw.from_dict({column.name: column for column in made}).to_native()


_NARROW = (nw.Int8, nw.Int16, nw.Int32, nw.UInt8, nw.UInt16, nw.UInt32)  # the times ahead may not fit


def _write_time(name: str, time: Floats, series: Series) -> nw.Series[Any]:
    clock, backend = series.clock, series.backend
    if clock.kind == "row":
        return nw.new_series(name, np.rint(time).astype(np.int64), backend=backend)
    if clock.kind == "number":
        whole = clock.dtype.is_integer() and np.all(time == np.rint(time))
        values = np.rint(time).astype(np.int64) if whole else time
        dtype = nw.Int64() if clock.dtype in _NARROW else clock.dtype
        return nw.new_series(name, values, dtype if whole else nw.Float64(), backend=backend)
    stamps = np.rint(time * 1e6).astype(np.int64).astype("datetime64[us]")
    if clock.kind == "text":
        return nw.new_series(name, [clock.describe(t) for t in time], nw.String(), backend=backend)
    if clock.zone and series.grid.wall:
        stamps = np.rint(utc_of_wall(time, clock.zone) * 1e6).astype(np.int64).astype("datetime64[us]")
    plain = nw.new_series(name, stamps, nw.Datetime("us"), backend=backend)
    if clock.zone:
        plain = plain.dt.replace_time_zone("UTC").dt.convert_time_zone(clock.dtype.time_zone)
    return plain.cast(clock.dtype)


def _refuse_other_clock(table: columns.Frame, roles: Roles, stamps: bool, source: str) -> None:
    """Numbers would pass as seconds since 1970 where timestamps are meant."""
    if roles.time and columns.times(table[roles.time], source)[1].stamps != stamps:
        was, now = ("timestamps", "numbers") if stamps else ("numbers", "timestamps")
        raise DataError(
            f"{source}, column {roles.time!r}: it held {was} in training and holds {now} here; convert it to {was}."
        )


def append_rows(table: columns.Frame, rows: Any, names: tuple[str, ...], source: str) -> columns.Frame:
    """The table with more rows below it, which may lack columns; numbers take the types of the table."""
    more = columns.as_frame(rows, source)
    if more.implementation is not table.implementation:
        raise DataError(f"{source}: give a {table.implementation.name.lower()} table, as the data are.")
    more = more.select(names)
    try:
        more = more.with_columns([nw.col(n).cast(table[n].dtype) for n in names if more[n].dtype != table[n].dtype])
        absent = [nw.lit(None).cast(table[n].dtype).alias(n) for n in table.columns if n not in names]
        return nw.concat([table, more.with_columns(absent).select(table.columns)])
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{source}: its columns do not fit those of the data ({reason}); use the same types.") from None


def _row_numbers(series: Ints, count: int) -> Floats:
    """0, 1, 2, ... within each series, in the order of the table."""
    order = np.argsort(series, kind="stable")
    starts = np.searchsorted(series[order], np.arange(count))
    number = np.empty(len(series))
    number[order] = np.arange(len(series)) - starts[series[order]]
    return number


def _refuse_duplicates(
    series: Ints, time: Floats, row: Ints, own: int, roles: Roles, ids: list[Any], clock: Clock, source: str
) -> None:
    same = np.flatnonzero((np.diff(series) == 0) & (np.diff(time) == 0))
    if len(same):
        k = int(same[0])
        first, second = sorted((int(row[k]), int(row[k + 1])))
        who = f"series {ids[series[k]]!r} has" if roles.id else "this is"
        where = f"row {second}" if second <= own else f"row {second - own} of the added rows"
        raise DataError(
            f"{source}, {where}, column {roles.time!r}: {who} the time {clock.describe(time[k])} a second time"
            f" (first in row {first}); keep one of the two{'' if roles.id else ', or name the id column'}."
        )


def _settle_grid(
    grid: Grid | None, time: Floats, offsets: Ints, clock: Clock, where: str
) -> tuple[Grid, Clock, Floats]:
    """The grid, the clock in the grid's own time zone, and the times as it counts them."""
    if grid is None:
        grid = infer_grid(time, offsets, stamps=clock.stamps)
        if grid.kind == "uneven" and clock.zone:
            local = time + utc_offset(time, clock.zone)
            wall = infer_grid(local, offsets, stamps=True)
            if wall.kind != "uneven":
                grid = replace(wall, wall=True)
        grid = replace(grid, zone=clock.zone)
    require_zone(clock.zone, grid.zone, where)
    clock = replace(clock, zone=grid.zone)
    if grid.wall and grid.zone:
        time = time + utc_offset(time, grid.zone)
    return grid, clock, time


def _read(table: columns.Frame, names: tuple[str, ...], found: dict[str, tuple[str, ...]], source: str) -> Floats:
    made = np.empty((len(table), len(names)))
    for k, name in enumerate(names):
        if columns.is_category(table[name]):
            made[:, k], found[name] = columns.categories(table[name])
        else:
            made[:, k] = columns.moderate(table[name], source)
    return made


def _read_target(table: columns.Frame, names: tuple[str, ...], source: str) -> Floats:
    """Only numbers can be forecast: text is refused here, where a covariate would be a category."""
    made = np.empty((len(table), len(names)))
    for k, name in enumerate(names):
        made[:, k] = columns.moderate(table[name], source)
    return made


def _constant(values: Floats, offsets: Ints, roles: Roles, row: Ints, ids: list[Any], source: str) -> Floats:
    """The one value [B, S] that each static column has in each series, NaN where it is never given."""
    if not values.size:
        return np.zeros((len(ids), values.shape[1]))
    given = np.where(np.isnan(values), len(values), np.arange(len(values))[:, None])
    first = np.minimum.reduceat(given, offsets[:-1], axis=0)  # row of the first value, N without one
    top = np.vstack([values, np.full(values.shape[1], np.nan)])[first, np.arange(values.shape[1])]
    differs = ~np.isnan(values) & (values != np.repeat(top, np.diff(offsets), axis=0))
    if differs.any():
        at, column = (int(v) for v in np.argwhere(differs)[0])
        which = int(np.searchsorted(offsets, at, side="right")) - 1
        who = f"series {ids[which]!r}" if roles.id else "the series"
        raise DataError(
            f"{source}, row {int(row[at])}, column {roles.static[column]!r}: a static column may not change within"
            f" {who}; correct it, or give it as a feature."
        )
    return np.asarray(top)


def _refuse_gap(series: Series, ticks: Ints) -> None:
    gaps = np.diff(ticks, prepend=ticks[:1])
    gaps[series.offsets[:-1]] = 0
    at = int(gaps.argmax())
    raise DataError(
        f"{series.source}, row {int(series.row[at])}, column {series.roles.time!r}: the time"
        f" {series.clock.describe(series.time[at])} lies {int(gaps[at])} steps of"
        f" {describe_grid(series.grid, stamps=series.clock.stamps)} after the row before; correct it or drop the row."
    )


def _on_grid(series: Series) -> Series:
    """Rows of the grid that the table lacks become unobserved rows."""
    grid, lengths = series.grid, series.lengths
    starts = np.repeat(series.time[series.offsets[:-1]], lengths)
    if grid.kind == "even":
        exact = (series.time - starts) / grid.step
        ticks = np.rint(exact).astype(np.int64)
        off = np.flatnonzero(np.abs(exact - ticks) > 1e-3)
    else:
        ticks = grid.ticks(series.time) - np.repeat(grid.ticks(series.time[series.offsets[:-1]]), lengths)
        off = np.flatnonzero(np.abs(grid.ahead(starts, ticks) - series.time) > 1.0)
    if len(off):
        at = int(off[0])
        raise DataError(
            f"{series.source}, row {int(series.row[at])}, column {series.roles.time!r}: the time"
            f" {series.clock.describe(series.time[at])} does not lie on the {grid.kind} grid of step {grid.step:g} that"
            " the model was trained on; resample the data to it."
        )
    offsets = np.concatenate([[0], np.cumsum(ticks[series.offsets[1:] - 1] + 1)])
    if offsets[-1] == len(series.time):
        return series
    if offsets[-1] > MAX_ROWS_PER_OBSERVATION * len(series.time) + ABSENT:
        _refuse_gap(series, ticks)
    at = ticks + np.repeat(offsets[:-1], lengths)
    new = np.diff(offsets)
    k = np.arange(offsets[-1]) - np.repeat(offsets[:-1], new)
    time = grid.ahead(np.repeat(series.time[series.offsets[:-1]], new), k)
    time[at] = series.time
    row = np.zeros(offsets[-1], np.int64)
    row[at] = series.row

    def spread(values: Floats) -> Floats:
        made = np.full((int(offsets[-1]), values.shape[1]), np.nan)
        made[at] = values
        return made

    return replace(
        series,
        offsets=offsets,
        time=time,
        row=row,
        target=spread(series.target),
        features=spread(series.features),
        known=spread(series.known),
    )
