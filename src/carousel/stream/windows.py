"""The stream of a forecaster: the last rows in a ring, the window run anew with every row, as `predict` does."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError
from carousel.heads.forecast import read_out
from carousel.inputs.clock import utc_of_wall
from carousel.inputs.fitted import TableInput
from carousel.stream.history import History
from carousel.stream.loading import Model
from carousel.stream.members import Member
from carousel.stream.reading import plain
from carousel.stream.table_rows import TableReader, by_the_wall
from carousel.stream.times import zone_of

__all__ = ["WindowEngine"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FAR = 1_000_000  # rows of a grid that may be absent between two that are given: beyond them a time is wrong
LEAST = 2  # observed values of each target before which nothing is forecast


class WindowEngine:
    """One series of a forecaster."""

    def __init__(self, model: Model, shared: Any = None) -> None:
        """`shared` are the members of another engine of the same model."""
        self.model = model
        self.table: TableInput = model.config.input
        self.reader = TableReader(self.table)
        self.shared = [Member(model, k) for k in range(model.config.seeds)] if shared is None else shared
        self.reset(None)

    @property
    def rows(self) -> int:
        return self._given

    def reset(self, static: Mapping[str, Any] | None) -> None:
        self._history = History(self.table)
        self._given = 0
        self._zone: str | None = None
        self._kind: str | None = None
        self._fixed: dict[str, Any] | None = None
        if static is not None:
            if not self.table.static:
                raise DataError("reset: the model has no static columns; leave static out.")
            self._fix(static, "static")

    def push(self, row: Any, time: Any, ahead: Any) -> dict[str, Any]:
        where, reader = f"row {self._given + 1}", self.reader
        values, static, time = reader.read(row, time, self._fixed, where)
        when, local = reader.time(time, self._given, where)
        absent = self._absent(when, where)
        target = reader.target(values, where)
        covariates = reader.covariates(values, local, where)
        following = reader.following(when, ahead, where)
        if static is not None:
            self._fix(static, where)
        # Nothing is refused from here on.
        self._fill(absent)
        self._history.append(when, target, covariates)
        self._given += 1
        self._kind, self._zone = _kind(time), zone_of(time) or self.table.grid.zone
        return {} if following is None else self._forecast(*following)

    def push_many(self, rows: Iterable[Any], time: Iterable[Any] | None, ahead: Any) -> list[dict[str, Any]]:
        kept, found = self.save(), []
        times = None if time is None else iter(time)
        try:
            for row in rows:
                try:
                    when = None if times is None else next(times)
                except StopIteration:
                    raise DataError(f"row {self._given + 1}: there are fewer times than rows; give one each.") from None
                found.append(self.push(row, when, ahead))
        except BaseException:
            self.load(kept)
            raise
        return found

    def save(self) -> bytes:
        arrays = self._history.save()
        about = {
            "given": self._given,
            "zone": self._zone,
            "kind": self._kind,
            "fixed": self._fixed,
            "arrays": [[name, a.dtype.str, list(a.shape)] for name, a in arrays],
        }
        head = json.dumps(about, default=plain).encode()
        return b"".join([struct.pack("<I", len(head)), head, *(np.ascontiguousarray(a).tobytes() for _, a in arrays)])

    def load(self, payload: bytes) -> bool:
        (size,) = struct.unpack_from("<I", payload)
        about = json.loads(payload[4 : 4 + size])
        at, arrays = 4 + size, {}
        for name, dtype, shape in about["arrays"]:
            count = int(np.prod(shape, dtype=np.int64))
            arrays[name] = np.frombuffer(payload, dtype, count, at).reshape(shape)
            at += arrays[name].nbytes
        history = History(self.table)
        if not history.load(arrays):
            return False
        self._history, self._given, self._zone = history, int(about["given"]), about["zone"]
        self._kind, self._fixed = about["kind"], about["fixed"]
        return True

    def _fix(self, static: Mapping[str, Any], where: str) -> None:
        self._history.static[0], self._history.static_codes[0] = self.reader.static(static, where)
        self._fixed = {c.name: plain(static[c.name]) for c in self.table.static}

    def _absent(self, when: float, where: str) -> int:
        """Rows that the grid has between the latest row and this one."""
        history, grid = self._history, self.table.grid
        if not history.rows:
            return 0
        last = float(history.time[self.table.reach - 1])
        if when <= last:
            what = "is that of the row before" if when == last else "lies before that of the row before"
            raise DataError(f"{where}: its time {what} ({self._describe(last)}); rows come in order of time.")
        if grid.kind == "uneven":
            return 0
        begin = history.begin
        if grid.kind == "even":
            exact = (when - begin) / grid.step
            tick = round(exact)
            off = abs(exact - tick) > 1e-3
        else:
            one, two = grid.ticks(np.array([begin, when]))
            tick = int(two - one)
            off = abs(float(grid.ahead(np.array([begin]), np.array([tick]))[0]) - when) > 1.0
        if off:
            raise DataError(
                f"{where}: the time {self._describe(when)} does not lie on the {grid.kind} grid of step {grid.step:g}"
                " that the model was trained on; resample the rows to it."
            )
        absent = tick - history.rows
        if absent < 0:
            raise DataError(f"{where}: the grid has a row for this time already; rows come in order of time.")
        if absent > FAR:
            raise DataError(f"{where}: the time {self._describe(when)} lies {absent:,} steps ahead; correct it.")
        return absent

    def _fill(self, absent: int) -> None:
        """Rows that the grid has and nobody gave; those beyond a window's reach only count."""
        if not absent:
            return
        history, table = self._history, self.table
        skipped = max(0, absent - table.reach)
        first = history.rows
        history.rows += skipped
        if skipped:
            history.start[0] = max(history.start[0] - skipped, 0)
        names = dict.fromkeys(self.reader.columns)
        for tick in range(first + skipped, first + absent):
            when = float(table.grid.ahead(np.array([history.begin]), np.array([tick]))[0])
            local = when if table.grid.wall else float(by_the_wall(np.array([when]), table.grid.zone)[0])
            history.append(when, np.full(table.targets, np.nan), self.reader.covariates(names, float(local), ""))

    def _forecast(self, time: Floats, known: Floats, codes: Ints) -> dict[str, Any]:
        table, head = self.table, self.model.config.head
        horizon, targets = table.horizon, table.targets
        names = [f"q{level:g}" for level in head.quantiles]
        found: dict[str, Any] = {
            table.roles.time or "row": [self._written(t) for t in np.repeat(time, targets).tolist()],
            "step": np.repeat(np.arange(1, horizon + 1), targets),
        }
        if targets > 1:
            found["target"] = list(table.roles.target) * horizon
        if (self._history.count < LEAST).any():
            blank = np.full(horizon * targets, np.nan)
            return found | {"forecast": blank} | dict.fromkeys(names, blank)
        w = self._history.window(time, known, codes)
        made = np.asarray(np.mean([member(w) for member in self.shared], 0, dtype=np.float64))
        values = read_out(head, made, w.level, w.spread).reshape(-1, len(names))
        found["forecast"] = values[:, head.median].copy()
        return found | {name: values[:, k].copy() for k, name in enumerate(names)}

    def _describe(self, time: float) -> str:
        return str(self._written(time))

    def _written(self, time: float) -> Any:
        """As the rows have their times."""
        if not self.table.stamps:
            whole = self.table.roles.time is None or (self._kind == "whole" and time == round(time))
            return round(time) if whole else time
        if self.table.grid.wall and self.table.grid.zone:
            time = float(utc_of_wall(np.array([time]), self.table.grid.zone)[0])
        if self._kind == "numpy":
            return np.datetime64(round(time * 1e6), "us")
        stamp = datetime.fromtimestamp(time, UTC)
        if self._kind == "text":
            return stamp.strftime("%Y-%m-%dT%H:%M:%S").removesuffix("T00:00:00")
        if self._kind == "date":
            return stamp.date()
        if self._zone is None:
            return stamp.replace(tzinfo=None)
        from zoneinfo import ZoneInfo

        return stamp.astimezone(ZoneInfo(self._zone))


def _kind(time: Any) -> str | None:
    """What a time was given as, so that those of forecasts are written alike."""
    if isinstance(time, str):
        return "text"
    if isinstance(time, np.datetime64):
        return "numpy"
    if isinstance(time, datetime):
        return "datetime"
    if isinstance(time, date):
        return "date"
    return "whole" if isinstance(time, int | np.integer) else "number"
