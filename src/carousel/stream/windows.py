"""The stream of a forecaster: the last rows in a ring, the window run anew with every row, as `predict` does."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel import _core
from carousel.errors import DataError
from carousel.heads.forecast import read_out
from carousel.inputs.clock import calendar_features, utc_of_wall, utc_offset
from carousel.inputs.fitted import FIRST, MISSING, UNSEEN, Column, TableInput
from carousel.stream.forecast_head import scaled_quantiles
from carousel.stream.history import Covariates, History
from carousel.stream.loading import Model, add_stack
from carousel.stream.reading import number, plain
from carousel.stream.times import read_time, zone_of

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
        roles = self.table.roles
        self.columns = roles.target + roles.features + roles.known
        self.known_names = frozenset(roles.columns)
        self.shared = [self._member(k) for k in range(model.config.seeds)] if shared is None else shared
        self._codes = {c.name: {v: FIRST + k for k, v in enumerate(c.values)} for c in self.table.embedded}
        self.reset(None)

    def _member(self, k: int) -> tuple[Any, dict[str, Any], list[Any]]:
        """Its stack, its head's weights, its embeddings."""
        weights, config = self.model.weights, self.model.config
        stack = _core.Stack()
        add_stack(stack.add_layer, config.stack, weights, f"{k}.", self.table.step_size, self.model.storage)
        prefix = f"{k}.head."
        head = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
        return stack, head, [weights[f"{k}.input.embed.{e}.weight"] for e in range(len(self.table.embedded))]

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
        where = f"row {self._given + 1}"
        values, static, time = self._read(row, time, where)
        when, local = self._time(time, where)
        gap = self._gap(when, where)
        target = np.array([number(values[n], f"{where}, column {n!r}") for n in self.table.roles.target])
        covariates = self._covariates(values, local, where)
        for name, value in zip(self.table.roles.target, target, strict=True):
            _refuse_infinite(value, f"{where}, column {name!r}")
        following = self._following(when, ahead, where)
        fixed = None if static is None else self._static(static, where)
        # Nothing is refused from here on.
        if fixed is not None and static is not None:
            self._history.static[0], self._history.static_codes[0] = fixed
            self._fixed = {c.name: plain(static[c.name]) for c in self.table.static}
        self._fill(gap)
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

    def _read(self, row: Any, time: Any, where: str) -> tuple[Mapping[str, Any], Mapping[str, Any] | None, Any]:
        """The row's columns, its static ones where they are given for the first time, and its time."""
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
            unknown = [name for name in row if name not in self.known_names]
            if unknown:
                raise DataError(
                    f"{where}: the column {unknown[0]!r} is unknown to the model, which has {', '.join(roles.columns)};"
                    " leave it out."
                )
            missing = [name for name in self.columns if name not in row]
            if missing:
                raise DataError(f"{where}: the column {missing[0]!r} is missing; give it (null where not observed).")
            if roles.time in row:
                if time is not None:
                    raise DataError(f"{where}: the time is given twice, in the row and beside it; give it once.")
                time = row[roles.time]
        if self.table.static and self._fixed is None:
            static = {name: row[name] for name in roles.static if name in row}
        elif self.table.static:
            self._refuse_change(row, where)
        return row, static, time

    def _refuse_change(self, row: Mapping[str, Any], where: str) -> None:
        for name, known in (self._fixed or {}).items():
            value = plain(row.get(name))
            if value is not None and value != known:
                raise DataError(
                    f"{where}, column {name!r}: a static column may not change within a stream, it was {known!r} and is"
                    f" {value!r}; reset the stream for another series."
                )

    def _fix(self, static: Mapping[str, Any], where: str) -> None:
        self._history.static[0], self._history.static_codes[0] = self._static(static, where)
        self._fixed = {c.name: plain(static[c.name]) for c in self.table.static}

    def _static(self, given: Mapping[str, Any], where: str) -> tuple[Floats, Ints]:
        missing = [c.name for c in self.table.static if c.name not in given]
        if missing:
            raise DataError(f"{where}: the static column {missing[0]!r} is missing; give it (null where not known).")
        return self._encode(self.table.static, given, where)

    def _time(self, time: Any, where: str) -> tuple[float, float]:
        roles, grid = self.table.roles, self.table.grid
        if roles.time is None:
            if time is not None:
                raise DataError(f"{where}: the model was trained without a time column, its rows count; leave it out.")
            return float(self._given), float(self._given)
        place = f"{where}, column {roles.time!r}"
        when, _ = read_time(time, self.table.stamps, place)
        aware = getattr(time, "tzinfo", None) is not None
        if self.table.stamps and aware != (grid.zone is not None):
            given = getattr(time, "tzinfo", None)
            was, now = (f"in the time zone {z}" if z else "without a time zone" for z in (grid.zone, given))
            raise DataError(f"{place}: the model was trained on times {was}, this is {now}; convert it.")
        local = float(_local(np.array([when]), grid.zone)[0])
        return (local, local) if grid.wall else (when, local)

    def _gap(self, when: float, where: str) -> int:
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
        names = dict.fromkeys(self.columns)
        for tick in range(first + skipped, first + absent):
            when = float(table.grid.ahead(np.array([history.begin]), np.array([tick]))[0])
            local = when if table.grid.wall else float(_local(np.array([when]), table.grid.zone)[0])
            history.append(when, np.full(table.targets, np.nan), self._covariates(names, float(local), ""))

    def _covariates(self, values: Mapping[str, Any], local: float, where: str) -> Covariates:
        table = self.table
        features, feature_codes = self._encode(table.features, values, where)
        known, known_codes = self._encode(table.known, values, where)
        calendar = calendar_features(np.array(local), table.calendar)
        return Covariates(features, feature_codes, np.concatenate([known, calendar]), known_codes)

    def _encode(self, columns: tuple[Column, ...], values: Mapping[str, Any], where: str) -> tuple[Floats, Ints]:
        numbers: list[float] = []
        codes: list[int] = []
        for c in columns:
            value, place = values[c.name], f"{where}, column {c.name!r}"
            if c.kind == "category":
                codes.append(self._code(c, value, place))
                continue
            x = number(value, place)
            _refuse_infinite(x, place)
            numbers += [0.0, 0.0] if x != x else [(x - c.mean) / c.scale, 1.0]
        return np.array(numbers), np.array(codes, np.int64)

    def _code(self, column: Column, value: Any, where: str) -> int:
        if value is None or value != value:
            return MISSING
        if not isinstance(value, str):
            raise DataError(f"{where}: it held text in training and holds {value!r} here; convert it to text.")
        return self._codes[column.name].get(value, UNSEEN)

    def _following(self, when: float, ahead: Any, where: str) -> tuple[Floats, Floats, Ints] | None:
        """Times, known numbers with the calendar, and known codes of the steps ahead; None: no forecast is asked."""
        table = self.table
        if not table.known and ahead is not None:
            raise DataError(f"{where}: the model was trained without known columns; leave ahead out.")
        if table.known and ahead is None:
            return None
        steps = np.arange(1, table.horizon + 1)
        time = np.asarray(table.grid.ahead(np.array(when), steps), np.float64)
        calendar = calendar_features(time if table.grid.wall else _local(time, table.grid.zone), table.calendar)
        if not table.known:
            return time, calendar, np.zeros((table.horizon, 0), np.int64)
        rows = list(ahead)
        if len(rows) != table.horizon:
            raise DataError(
                f"{where}: ahead has {len(rows)} rows; give the known columns of all {table.horizon} steps."
            )
        known, codes = [], []
        for k, row in enumerate(rows):
            place = f"{where}, step {k + 1} ahead"
            for c in table.known:
                if row.get(c.name) is None or row[c.name] != row[c.name]:
                    raise DataError(f"{place}: there is no {c.name!r}; give the known columns for every step.")
            one, code = self._encode(table.known, row, place)
            known.append(one)
            codes.append(code)
        return time, np.concatenate([np.stack(known), calendar], 1), np.stack(codes)

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
        made = np.asarray(np.mean([self._run(member, w) for member in self.shared], 0, dtype=np.float64))
        values = read_out(head, made, w.level, w.spread).reshape(-1, len(names))
        found["forecast"] = values[:, head.median].copy()
        return found | {name: values[:, k].copy() for k, name in enumerate(names)}

    def _run(self, member: tuple[Any, dict[str, Any], list[Any]], w: Any) -> NDArray[np.float32]:
        stack, head, tables = member
        order = [c.name for c in self.table.embedded]

        def embedded(numbers: Any, codes: Ints, columns: tuple[Column, ...]) -> NDArray[np.float32]:
            own = [tables[order.index(c.name)] for c in columns if c.kind == "category"]
            parts = [numbers, *(t[codes[..., k]] for k, t in enumerate(own))]
            return np.ascontiguousarray(np.concatenate(parts, -1), np.float32)

        table = self.table
        x = embedded(w.steps, w.step_codes, table.features + table.known)[0]
        stack.reset()
        stack.run(
            x, np.ascontiguousarray(w.elapsed[0], np.float32) if self.model.config.stack.cell.decay else None, None
        )
        top = np.empty(self.model.config.stack.output_size, np.float32)
        stack.top(top)
        state = np.concatenate([top[None], embedded(w.static, w.static_codes, table.static)], -1)
        ahead = embedded(w.ahead, w.ahead_codes, table.known)
        return scaled_quantiles(self.model.config.head, head, state, ahead, w.linear, w.base)

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


def _refuse_infinite(value: float, where: str) -> None:
    if value in (np.inf, -np.inf):
        raise DataError(f"{where}: the value is infinite; correct it, or null for missing.")


def _local(time: Floats, zone: str | None) -> Floats:
    """By the wall clock of the zone."""
    return time if zone is None else time + utc_offset(time, zone)
