"""Many sequences of a classifier, tagger or detector: rows of all of them go to the core in one call."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel import _core
from carousel.errors import DataError
from carousel.stream.loading import Model, answers, program
from carousel.stream.reading import Reader
from carousel.stream.times import read_time
from carousel.stream.values import each, plain, read_fixed, refuse_change

__all__ = ["ManyRows"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class ManyRows:
    """Sequences by place, 0 to `count` - 1; who they are is not known here but for messages."""

    def __init__(self, model: Model) -> None:
        self.model, self.reader = model, Reader(model.config.input)
        self._names, self._classes = answers(model.config)
        self._columns = self._classes or ()
        self._program = program(model, rows=True)
        self._core = _core.Streams(self._program, self._names, self._classes)
        self._fixed: dict[int, dict[str, Any] | None] = {}

    @property
    def count(self) -> int:
        return int(self._core.count)

    def grow(self, count: int) -> None:
        self._core.grow(count)

    def begin(self, place: int, static: Mapping[str, Any] | None, where: str) -> None:
        seen = self.model.config.input
        values = codes = None
        if static is not None:
            if not seen.static:
                raise DataError(f"{where}: the model has no static columns; leave static out.")
            values, codes = self.reader.static(static, where)
        elif seen.static:
            names = ", ".join(c.name for c in seen.static)
            raise DataError(f"{where}: the model has static columns; open it with static={{{names}}}.")
        fixed = None if static is None else {name: plain(value) for name, value in static.items()}
        self._core.begin(place, values, codes)
        self._fixed[place] = fixed

    def forget(self, place: int) -> None:
        self._fixed.pop(place, None)

    def push(self, which: Ints, keys: Sequence[Hashable], rows: Any, time: Any, ahead: Any) -> dict[str, NDArray[Any]]:
        """Rows [n] of the sequences `which` [n]; none is taken where one is refused."""
        if ahead is not None:
            raise DataError("rows ahead are for models that forecast; leave ahead out.")
        numbers, times, codes, calendar = self._rows(rows, time, keys, which)
        out = np.empty((len(which), self._program.outputs))
        why, at = self._core.push_many(which, numbers, times, codes, calendar, out)
        if why:
            last = self._core.time(int(which[at]))
            raise self.reader.refusal(why, rows[at], last, f"row {at + 1}, stream {keys[at]!r}")
        return self._found(out)

    def save(self, place: int) -> bytes:
        fixed = json.dumps(self._fixed.get(place), default=plain).encode()
        return len(fixed).to_bytes(4, "little") + fixed + bytes(self._core.save(place))

    def load(self, place: int, payload: bytes) -> bool:
        size = int.from_bytes(payload[:4], "little")
        names = [c.name for c in self.model.config.input.static]
        fixed = read_fixed(json.loads(payload[4 : 4 + size]), names)
        if not self._core.load(place, payload[4 + size :]):
            return False
        self._fixed[place] = fixed
        return True

    def _found(self, out: Floats) -> dict[str, NDArray[Any]]:
        if self.model.config.task == "detect":
            return self._scores(out)
        found: dict[str, NDArray[Any]] = {}
        if self._classes is not None:
            found["prediction"] = np.array(self._classes)[out.argmax(1)]
        names = self._names[len(found) :]
        found |= {name: out[:, k] for k, name in enumerate(names)}
        if "alarm" in found:
            found["alarm"] = found["alarm"] != 0
        return found

    def _scores(self, out: Floats) -> dict[str, NDArray[Any]]:
        because = np.full(len(out), None, object)
        for k in np.flatnonzero(out[:, 2] >= 0).tolist():
            because[k] = ", ".join(self._columns[int(c)] for c in out[k, 2:] if c >= 0)
        return {"score": out[:, 0], "anomaly": out[:, 1] != 0, "because": because}

    def _rows(self, rows: Any, time: Any, keys: Sequence[Hashable], which: Ints) -> tuple[Any, Any, Any, Any]:
        """Rows as the core takes them: numbers [n, .], times [n], codes [n, .], calendar [n, .]."""
        reader, size = self.reader, len(self.reader.columns)
        if reader.bare and isinstance(rows, np.ndarray) and rows.dtype.kind == "f":
            if rows.ndim != 2 or rows.shape[1] != size:
                raise DataError(f"rows must be [n, {size}] ({', '.join(reader.columns)}), got {list(rows.shape)}.")
            return _plain(rows), self._times(time, keys), None, None
        read = []
        times = each("time", time, len(keys))
        static = frozenset(c.name for c in reader.seen.static)
        for k, (row, when) in enumerate(zip(rows, times, strict=True)):
            where = f"row {k + 1}, stream {keys[k]!r}"
            if static and isinstance(row, Mapping):
                row = self._without_static(row, int(which[k]), static, where)
            read.append(reader.read(row, when, where))
        made = [None if part[0] is None else part for part in map(list, zip(*read, strict=True))] or [
            [],
            None,
            None,
            None,
        ]
        return (
            np.array(made[0], np.float64).reshape(len(keys), len(reader.numbers)),
            None if made[1] is None else np.array(made[1], np.float64),
            None if made[2] is None else np.array(made[2], np.int64),
            None if made[3] is None else np.array(made[3], np.float64),
        )

    def _times(self, time: Any, keys: Sequence[Hashable]) -> Floats | None:
        if time is None and self.reader.timed:
            raise DataError("the time is missing; give one with every row.")
        if time is None:
            return None
        if not self.reader.timed:
            raise DataError("the model was trained without a time column, its rows count; leave time out.")
        items = time if isinstance(time, np.ndarray) else each("time", time, len(keys))
        given = np.asanyarray(items)
        if given.shape != (len(keys),):
            raise DataError(f"time must be [{len(keys)}], one for each row, got {list(given.shape)}.")
        if given.dtype.kind in "iuf":
            return _plain(given)
        read = [read_time(t, False, f"row {k + 1}, stream {keys[k]!r}")[0] for k, t in enumerate(items)]
        return np.array(read, np.float64)

    def _without_static(self, row: Mapping[str, Any], place: int, static: frozenset[str], where: str) -> Any:
        refuse_change(row, static & row.keys(), self._fixed.get(place), where)
        return {name: value for name, value in row.items() if name not in static}


def _plain(values: Any) -> Floats:
    """In order and in double; what an array masks is missing."""
    if hasattr(values, "mask"):
        values = values.astype(np.float64).filled(np.nan)
    return np.ascontiguousarray(values, np.float64)
