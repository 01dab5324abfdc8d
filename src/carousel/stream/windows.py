"""The stream of a forecaster: the core keeps the last rows of its series and runs their window anew with every row."""

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
from carousel.inputs.clock import utc_of_wall
from carousel.inputs.fitted import TableInput
from carousel.stream.forecasting import forecaster
from carousel.stream.loading import Model
from carousel.stream.table_rows import Covariates, Following, TableReader, by_the_wall
from carousel.stream.times import zone_of
from carousel.stream.values import plain, read_fixed

__all__ = ["WindowEngine", "forecasts"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FAR = 1_000_000  # rows of a grid that may be absent between two that are given: beyond them a time is wrong


class WindowEngine:
    """One series of a forecaster."""

    def __init__(self, model: Model, shared: Any = None, series: Any = None, place: int = 0) -> None:
        """`shared` is the core's forecaster of another engine of the same model, `series` the set that this series is
        number `place` of."""
        self.model = model
        self.table: TableInput = model.config.input
        self.reader = TableReader(self.table)
        self.shared = forecaster(model, rows=False) if shared is None else shared
        self.series = _core.SeriesSet(self.shared) if series is None else series
        self.series.grow(place + 1)
        self.place = place
        self.reset(None)

    @property
    def rows(self) -> int:
        return self._given

    def reset(self, static: Mapping[str, Any] | None) -> None:
        if static is not None and not self.table.static:
            raise DataError("reset: the model has no static columns; leave static out.")
        read = None if static is None else self.reader.static(static, "static")
        self.series.begin(self.place)
        self._given = 0
        self._zone: str | None = None
        self._kind: str | None = None
        self._fixed: dict[str, Any] | None = None
        if static is not None and read is not None:
            self._fix(static, *read)

    def push(self, row: Any, time: Any, ahead: Any) -> dict[str, Any]:
        following = self.take(row, time, ahead, f"row {self._given + 1}")
        if following is None:
            return {}
        made = forecasts([self], [following])[0]
        return {name: values if isinstance(values, list) else values.copy() for name, values in made.items()}

    def take(self, row: Any, time: Any, ahead: Any, where: str) -> Following | None:
        """The series with one row more; the steps ahead, None where no forecast is asked."""
        reader = self.reader
        values, static, time = reader.read(row, time, self._fixed, where)
        when, local = reader.time(time, self._given, where)
        absent = self._absent(when, where)
        target = reader.target(values, where)
        covariates = reader.covariates(values, local, where)
        following = reader.following(when, ahead, where)
        if static is not None:
            self._fix(static, *reader.static(static, where))
        # Nothing is refused from here on.
        self._fill(absent)
        self._append(when, target, covariates)
        self._given += 1
        self._kind, self._zone = _kind(time), zone_of(time) or self.table.grid.zone
        return following

    def push_many(self, rows: Iterable[Any], time: Iterable[Any] | None, ahead: Any) -> list[dict[str, Any]]:
        kept, found = self.keep(), []
        times = None if time is None else iter(time)
        try:
            for row in rows:
                try:
                    when = None if times is None else next(times)
                except StopIteration:
                    raise DataError(
                        f"row {self._given + 1}: there are fewer times than rows; give one for each."
                    ) from None
                found.append(self.push(row, when, ahead))
            if times is not None and next(times, self) is not self:
                raise DataError(f"there are more times than the {len(found)} rows; give one for each.")
        except BaseException:
            self.back(kept)
            raise
        return found

    def keep(self) -> Any:
        """What `back` needs to undo the pushes that follow."""
        return self.series.save(self.place), self._given, self._zone, self._kind, self._fixed

    def back(self, kept: Any) -> None:
        block, self._given, self._zone, self._kind, self._fixed = kept
        self.series.load(self.place, block)

    def save(self) -> bytes:
        about = {"given": self._given, "zone": self._zone, "kind": self._kind, "fixed": self._fixed}
        head = json.dumps(about, default=plain).encode()
        return b"".join([struct.pack("<I", len(head)), head, self.series.save(self.place)])

    def load(self, payload: bytes) -> bool:
        (size,) = struct.unpack_from("<I", payload)
        given, zone, kind, fixed = _about(json.loads(payload[4 : 4 + size]), self.table)
        if not self.series.load(self.place, payload[4 + size :]):
            return False
        self._given, self._zone, self._kind, self._fixed = given, zone, kind, fixed
        return True

    def _fix(self, static: Mapping[str, Any], numbers: Floats, codes: Ints) -> None:
        fixed = {c.name: plain(static[c.name]) for c in self.table.static}
        self.series.set_static(self.place, np.asarray(numbers, np.float32), codes)
        self._fixed = fixed

    def _append(self, time: float, target: Floats, row: Covariates) -> None:
        self.series.append(self.place, time, target, row.features, row.feature_codes, row.known, row.known_codes)

    def _about(self) -> tuple[int, float, float]:
        """Rows of the series so far, those that nobody gave included; times of the first and of the latest."""
        return self.series.about(self.place)  # type: ignore[no-any-return]

    def _absent(self, when: float, where: str) -> int:
        """Rows that the grid has between the latest row and this one."""
        grid = self.table.grid
        rows, begin, last = self._about()
        if not rows:
            return 0
        if when <= last:
            what = "is that of the row before" if when == last else "lies before that of the row before"
            raise DataError(f"{where}: its time {what} ({self._describe(last)}); rows come in order of time.")
        if grid.kind == "uneven":
            return 0
        if grid.kind == "even":
            exact = min((when - begin) / grid.step, 2.0**53)
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
        absent = tick - rows
        if absent < 0:
            raise DataError(f"{where}: the grid has a row for this time already; rows come in order of time.")
        if absent > FAR:
            raise DataError(f"{where}: the time {self._describe(when)} lies {absent:,} steps ahead; correct it.")
        return absent

    def _fill(self, absent: int) -> None:
        """Rows that the grid has and nobody gave; those beyond a window's reach only count."""
        if not absent:
            return
        table = self.table
        rows, begin, _ = self._about()
        skipped = max(0, absent - table.reach)
        self.series.skip(self.place, skipped)
        names = dict.fromkeys(self.reader.columns)
        for tick in range(rows + skipped, rows + absent):
            when = float(table.grid.ahead(np.array([begin]), np.array([tick]))[0])
            local = when if table.grid.wall else float(by_the_wall(np.array([when]), table.grid.zone)[0])
            self._append(when, np.full(table.targets, np.nan), self.reader.covariates(names, float(local), ""))

    def named(self, time: Floats, values: Floats) -> dict[str, Any]:
        """What a forecast [H, K, Q] of the times [H] is called, step by step and target by target."""
        table, head = self.table, self.model.config.head
        names = [f"q{level:g}" for level in head.quantiles]
        found: dict[str, Any] = {
            table.roles.time or "row": [t for t in self._all_written(time) for _ in range(table.targets)],
            "step": np.repeat(np.arange(1, table.horizon + 1), table.targets),
        }
        if table.targets > 1:
            found["target"] = list(table.roles.target) * table.horizon
        values = values.reshape(-1, len(names))
        found["forecast"] = values[:, head.median]
        return found | {name: values[:, k] for k, name in enumerate(names)}

    def _describe(self, time: float) -> str:
        return str(self._written(time))

    def _all_written(self, times: Floats) -> list[Any]:
        whole = np.rint(times)
        counted = self.table.roles.time is None
        if not self.table.stamps and (counted or (self._kind == "whole" and np.array_equal(whole, times))):
            return list(whole.astype(np.int64).tolist())
        return [self._written(t) for t in times.tolist()]

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


def forecasts(engines: Sequence[WindowEngine], ahead: Sequence[Following]) -> list[dict[str, Any]]:
    """Of series of one set, all different, with the steps ahead of each: one call of the core."""
    first = engines[0]
    head, table = first.model.config.head, first.table
    which = np.array([engine.place for engine in engines], np.int64)
    time, known, codes = (np.stack(parts) for parts in zip(*ahead, strict=True))
    out = np.empty((len(engines), table.horizon, table.targets, len(head.quantiles)))
    first.series.forecast(which, time, known, codes, out)
    return [engine.named(t, values) for engine, t, values in zip(engines, time, out, strict=True)]


def _about(found: Any, table: TableInput) -> tuple[int, str | None, str | None, dict[str, Any] | None]:
    """What `save` keeps beside the series; ValueError where it cannot be that."""
    if not isinstance(found, dict) or set(found) != {"given", "zone", "kind", "fixed"}:
        raise ValueError("this is no state of a series")
    given, zone, kind = found["given"], found["zone"], found["kind"]
    if type(given) is not int or given < 0 or kind not in (None, *_KINDS):
        raise ValueError("this is no state of a series")
    if zone is not None:
        from zoneinfo import ZoneInfo

        ZoneInfo(zone)
    return given, zone, kind, read_fixed(found["fixed"], table.roles.static)


_KINDS = ("text", "numpy", "datetime", "date", "whole", "number")


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
