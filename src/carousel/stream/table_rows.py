"""Rows of a forecaster's series as a user has them, as the numbers and codes that its windows are gathered from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError
from carousel.inputs.clock import calendar_features, utc_offset
from carousel.inputs.fitted import FIRST, MISSING, UNSEEN, Column, TableInput
from carousel.stream.times import LARGEST, LAST, read_time
from carousel.stream.values import missing, number, refuse_change

__all__ = ["Covariates", "Following", "TableReader", "by_the_wall"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Covariates(NamedTuple):
    """Of one row: scaled numbers with whether they are observed, calendar included, and codes."""

    features: Floats  # [.]
    feature_codes: Ints
    known: Floats  # [.] with the calendar
    known_codes: Ints


class Following(NamedTuple):
    """The steps ahead of one series."""

    time: Floats  # [H]
    known: Floats  # [H, .] with the calendar
    codes: Ints  # [H, .]


class TableReader:
    """How rows of one model are read; DataError, which names the row and the column, for what is refused."""

    def __init__(self, table: TableInput) -> None:
        self.table = table
        roles = table.roles
        self.columns = roles.target + roles.features + roles.known
        self._known = frozenset(roles.columns)
        self._codes = {c.name: {v: FIRST + k for k, v in enumerate(c.values)} for c in table.embedded}

    def read(
        self, row: Any, time: Any, fixed: Mapping[str, Any] | None, where: str
    ) -> tuple[Mapping[str, Any], Mapping[str, Any] | None, Any]:
        """The row's columns, its static ones where `fixed` holds none yet, and its time."""
        roles = self.table.roles
        static: Mapping[str, Any] | None = None
        if not isinstance(row, Mapping):
            if isinstance(row, str | bytes) or not isinstance(row, Sequence | np.ndarray) or np.ndim(row) != 1:
                raise DataError(
                    f"{where}: a row is a mapping of columns, or a sequence or 1-D array of {len(self.columns)} values,"
                    f" got {type(row).__name__}; convert it."
                )
            if len(row) != len(self.columns):
                raise DataError(
                    f"{where}: {len(self.columns)} values ({', '.join(self.columns)}) make a row, got {len(row)}."
                )
            row = dict(zip(self.columns, row, strict=True))
        else:
            unknown = [name for name in row if name not in self._known]
            if unknown:
                raise DataError(
                    f"{where}: the column {unknown[0]!r} is unknown to the model, which has {', '.join(roles.columns)};"
                    " leave it out."
                )
            absent = [name for name in self.columns if name not in row]
            if absent:
                raise DataError(f"{where}: the column {absent[0]!r} is missing; give it (null where not observed).")
            if roles.time in row:
                if time is not None:
                    raise DataError(f"{where}: the time is given twice, in the row and beside it; give it once.")
                time = row[roles.time]
        if self.table.static and fixed is None:
            static = {name: row[name] for name in roles.static if name in row}
        elif self.table.static:
            refuse_change(row, roles.static, fixed, where)
        return row, static, time

    def target(self, values: Mapping[str, Any], where: str) -> Floats:
        """[K], NaN where not observed."""
        found = []
        for name in self.table.roles.target:
            place = f"{where}, column {name!r}"
            found.append(number(values[name], place))
            _refuse_huge(found[-1], place)
        return np.array(found)

    def static(self, given: Mapping[str, Any], where: str) -> tuple[Floats, Ints]:
        names = self.table.roles.static
        unknown = [name for name in given if name not in names]
        if unknown:
            raise DataError(f"{where}: {unknown[0]!r} is no static column of the model; it has {', '.join(names)}.")
        absent = [name for name in names if name not in given]
        if absent:
            raise DataError(f"{where}: the static column {absent[0]!r} is missing; give it (null where not known).")
        return self._encode(self.table.static, given, where)

    def time(self, time: Any, rows: int, where: str) -> tuple[float, float]:
        """In the grid's numbers, and by the wall clock; without a time column the number of rows so far."""
        roles, grid = self.table.roles, self.table.grid
        if roles.time is None:
            if time is not None:
                raise DataError(f"{where}: the model was trained without a time column, its rows count; leave it out.")
            return float(rows), float(rows)
        place = f"{where}, column {roles.time!r}"
        when, _ = read_time(time, self.table.stamps, place)
        aware = getattr(time, "tzinfo", None) is not None
        if self.table.stamps and aware != (grid.zone is not None):
            given = getattr(time, "tzinfo", None)
            was, now = (f"in the time zone {z}" if z else "without a time zone" for z in (grid.zone, given))
            raise DataError(f"{place}: the model was trained on times {was}, this is {now}; convert it.")
        local = float(by_the_wall(np.array([when]), grid.zone)[0])
        return (local, local) if grid.wall else (when, local)

    def covariates(self, values: Mapping[str, Any], local: float, where: str) -> Covariates:
        table = self.table
        features, feature_codes = self._encode(table.features, values, where)
        known, known_codes = self._encode(table.known, values, where)
        calendar = calendar_features(np.array(local), table.calendar)
        return Covariates(features, feature_codes, np.concatenate([known, calendar]), known_codes)

    def following(self, when: float, ahead: Any, where: str) -> Following | None:
        """Times, known numbers with the calendar, and known codes of the steps ahead; None: no forecast is asked."""
        table = self.table
        if not table.known and ahead is not None:
            raise DataError(f"{where}: the model was trained without known columns; leave ahead out.")
        if table.known and ahead is None:
            return None
        steps = np.arange(1, table.horizon + 1)
        time = np.asarray(table.grid.ahead(np.array(when), steps), np.float64)
        if table.stamps and not time[-1] < LAST:
            raise DataError(f"{where}: its forecast lies beyond the year 9998; correct the time.")
        calendar = calendar_features(time if table.grid.wall else by_the_wall(time, table.grid.zone), table.calendar)
        if not table.known:
            return Following(time, calendar, np.zeros((table.horizon, 0), np.int64))
        rows = list(ahead) if isinstance(ahead, Iterable) else []
        if not isinstance(ahead, Iterable) or not all(isinstance(row, Mapping) for row in rows):
            raise DataError(
                f"{where}: ahead holds a mapping of the known columns for each of {table.horizon} steps; give that."
            )
        if len(rows) != table.horizon:
            raise DataError(
                f"{where}: ahead has {len(rows)} rows; give the known columns of all {table.horizon} steps."
            )
        known, codes = [], []
        for k, row in enumerate(rows):
            place = f"{where}, step {k + 1} ahead"
            unknown = [name for name in row if name not in self._known]
            if unknown:
                raise DataError(f"{place}: the column {unknown[0]!r} is unknown to the model; leave it out.")
            for c in table.known:
                if missing(row.get(c.name)):
                    raise DataError(f"{place}: there is no {c.name!r}; give the known columns for every step.")
            one, code = self._encode(table.known, row, place)
            known.append(one)
            codes.append(code)
        return Following(time, np.concatenate([np.stack(known), calendar], 1), np.stack(codes))

    def _encode(self, columns: tuple[Column, ...], values: Mapping[str, Any], where: str) -> tuple[Floats, Ints]:
        numbers: list[float] = []
        codes: list[int] = []
        for c in columns:
            value, place = values[c.name], f"{where}, column {c.name!r}"
            if c.kind == "category":
                codes.append(self._code(c, value, place))
                continue
            x = number(value, place)
            _refuse_huge(x, place)
            numbers += [0.0, 0.0] if x != x else [(x - c.mean) / c.scale, 1.0]
        return np.array(numbers), np.array(codes, np.int64)

    def _code(self, column: Column, value: Any, where: str) -> int:
        if missing(value):
            return MISSING
        if not isinstance(value, str):
            raise DataError(f"{where}: it held text in training and holds {value!r} here; convert it to text.")
        return self._codes[column.name].get(value, UNSEEN)


def by_the_wall(time: Floats, zone: str | None) -> Floats:
    """Seconds of the zone's wall clock."""
    return time if zone is None else time + utc_offset(time, zone)


def _refuse_huge(value: float, where: str) -> None:
    if abs(value) > LARGEST:
        raise DataError(f"{where}: the value is infinite, or beyond 1e140; correct it, or null for missing.")
