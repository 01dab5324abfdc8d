"""`Streams`: many independent sequences of one model, stepped together."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel import _core
from carousel.errors import CarouselError, DataError, NotSupported
from carousel.stream.loading import answers, load, program
from carousel.stream.one import pack, unpack
from carousel.stream.reading import Reader, plain

__all__ = ["Streams"]

Floats = NDArray[np.float64]
_ROOM = 64  # streams that memory is made for at once


class Streams:
    """Independent sequences by id, one call for many rows of them: the numbers are those of as many `Stream`s.

    `path` and `weights` as in `Stream`; models of sequences only (classify, tag). A stream begins with `open`, or with
    its first row where `open_new` says so, and lives until `close`: nothing is ever evicted by itself; `limit` refuses
    more streams than that, and `idle` names those that were not pushed for longest. Raises what `Stream` raises, and
    DataError for an id that is not open.

    >>> from carousel.stream.examples import model_file
    >>> streams = Streams(model_file())
    >>> found = streams.push(["anna", "ben", "anna"], [[0.3, 1.0], [0.1, -1.0], [0.2, 0.5]], open_new=True)
    >>> len(streams), list(found), found["p_0"].shape
    (2, ['prediction', 'p_0', 'p_1', 'p_2'], (3,))
    """

    def __init__(self, path: str | os.PathLike[str], *, weights: str = "float32", limit: int | None = None) -> None:
        if limit is not None and (isinstance(limit, bool) or limit < 1):
            raise CarouselError(f"limit must be a number of streams, at least 1, got {limit!r}.")
        self._model = load(path, weights)
        if self._model.config.task == "forecast":
            raise NotSupported(f"{self._model.name}: a forecaster reruns its window; use one Stream for each series.")
        if self._model.config.task == "detect":
            raise NotSupported(
                f"{self._model.name}: a detector keeps its scores apart; use one Stream for each series."
            )
        self.limit = limit
        self._reader = Reader(self._model.config.input)
        self._names, self._classes = answers(self._model.config)
        self._program = program(self._model, rows=True)
        self._core = _core.Streams(self._program, self._names, self._classes)
        self._places: dict[Hashable, int] = {}
        self._fixed: dict[Hashable, dict[str, Any]] = {}
        self._free: list[int] = []
        self._pushed = np.zeros(0, np.int64)  # [places] the call that pushed it last
        self._calls = 0

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, id: Hashable) -> bool:
        return id in self._places

    @property
    def ids(self) -> list[Hashable]:
        """Of the open streams, in the order in which they were opened."""
        return list(self._places)

    def open(self, id: Hashable, static: Mapping[str, Any] | None = None) -> None:
        """A sequence begins; `static` holds its static columns, if the model has some."""
        if id in self._places:
            raise DataError(f"stream {id!r} is open already; close it first.")
        seen = self._model.config.input
        values = codes = None
        if static is not None:
            if not seen.static:
                raise DataError(f"stream {id!r}: the model has no static columns; leave static out.")
            values, codes = self._reader.static(static, f"stream {id!r}")
        elif seen.static:
            names = ", ".join(c.name for c in seen.static)
            raise DataError(f"stream {id!r}: the model has static columns; open it with static={{{names}}}.")
        place = self._place(id)
        self._core.begin(place, values, codes)
        self._places[id] = place
        self._pushed[place] = self._calls
        if static is not None:
            self._fixed[id] = {name: plain(value) for name, value in static.items()}

    def close(self, id: Hashable) -> None:
        """Forget a stream; DataError where there is none of this id."""
        place = self._known(id)
        del self._places[id]
        self._fixed.pop(id, None)
        self._free.append(place)

    def idle(self, count: int) -> list[Hashable]:
        """The ids of the `count` streams that were not pushed for longest, the longest first."""
        return sorted(self._places, key=lambda id: int(self._pushed[self._places[id]]))[:count]

    def push(self, ids: Any, rows: Any, time: Any = None, *, open_new: bool = False) -> dict[str, NDArray[Any]]:
        """Rows [n] of the streams `ids` [n], taken in order; an id may come more than once.

        `rows` is an array [n, columns], or a sequence of rows as `Stream.push` takes them; `time` [n] where it is not
        in the rows. Gives arrays [n] under the names that `Stream.push` has. Where one row is refused none is taken,
        and no stream has been opened.
        """
        keys: list[Hashable] = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
        if len(keys) != len(rows):
            raise DataError(f"there are {len(keys)} ids and {len(rows)} rows; give one id for each row.")
        opened = self._open_missing(keys, rows) if open_new else []
        try:
            return self._push(keys, rows, time)
        except BaseException:
            for id in opened:
                self.close(id)
            raise

    def state(self, id: Hashable) -> bytes:
        """As `Stream.state`; either can restore the other's."""
        fixed = json.dumps(self._fixed.get(id), default=plain).encode()
        payload = len(fixed).to_bytes(4, "little") + fixed + bytes(self._core.save(self._known(id)))
        return pack(self._model, payload)

    def restore(self, id: Hashable, state: bytes) -> None:
        """Open the stream, or replace the one that is open, with what `state` gave."""
        payload = unpack(self._model, state)
        size = int.from_bytes(payload[:4], "little")
        fixed, new = json.loads(payload[4 : 4 + size]), id not in self._places
        place = self._place(id) if new else self._places[id]
        if not self._core.load(place, payload[4 + size :]):
            if new:
                self._free.append(place)
            raise CarouselError("the state is damaged; take one that `state` gave.")
        self._places[id] = place
        self._pushed[place] = self._calls
        if fixed is not None:
            self._fixed[id] = fixed

    def _push(self, keys: list[Hashable], rows: Any, time: Any) -> dict[str, NDArray[Any]]:
        places = self._places
        try:
            which = np.fromiter(map(places.__getitem__, keys), np.int64, len(keys))
        except KeyError as error:
            raise DataError(f"stream {error.args[0]!r} is not open; open it, or push with open_new=True.") from None
        numbers, times, codes, calendar = self._rows(rows, time, keys)
        out = np.empty((len(keys), self._program.outputs))
        why, at = self._core.push_many(which, numbers, times, codes, calendar, out)
        if why:
            last = self._core.time(int(which[at]))
            raise self._reader.refusal(why, rows[at], last, f"row {at + 1}, stream {keys[at]!r}")
        self._calls += 1
        self._pushed[which] = self._calls
        return self._found(out)

    def _found(self, out: Floats) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {}
        if self._classes is not None:
            found["prediction"] = np.array(self._classes)[out.argmax(1)]
        names = self._names[len(found) :]
        found |= {name: out[:, k] for k, name in enumerate(names)}
        if "alarm" in found:
            found["alarm"] = found["alarm"] != 0
        return found

    def _rows(self, rows: Any, time: Any, keys: list[Hashable]) -> tuple[Any, Any, Any, Any]:
        """Rows as the core takes them: numbers [n, .], times [n], codes [n, .], calendar [n, .]."""
        reader, size = self._reader, len(self._reader.columns)
        if reader.bare and isinstance(rows, np.ndarray) and rows.dtype.kind == "f":
            if rows.ndim != 2 or rows.shape[1] != size:
                raise DataError(f"rows must be [n, {size}] ({', '.join(reader.columns)}), got {list(rows.shape)}.")
            return np.ascontiguousarray(rows, np.float64), self._times(time, len(keys)), None, None
        read = []
        times: Sequence[Any] = [None] * len(keys) if time is None else list(time)
        if len(times) != len(keys):
            raise DataError(f"there are {len(times)} times and {len(keys)} rows; give one for each.")
        static = frozenset(c.name for c in reader.seen.static)
        for k, (row, when) in enumerate(zip(rows, times, strict=True)):
            where = f"row {k + 1}, stream {keys[k]!r}"
            if static and isinstance(row, Mapping):
                row = self._without_static(row, keys[k], static, where)
            read.append(reader.read(row, when, where))
        made = [None if part[0] is None else part for part in map(list, zip(*read, strict=True))] or [
            [],
            None,
            None,
            None,
        ]
        return (
            np.array(made[0], np.float64).reshape(len(keys), -1),
            None if made[1] is None else np.array(made[1], np.float64),
            None if made[2] is None else np.array(made[2], np.int64),
            None if made[3] is None else np.array(made[3], np.float64),
        )

    def _times(self, time: Any, count: int) -> Floats | None:
        if time is None and self._reader.timed:
            raise DataError("the time is missing; give one with every row.")
        if time is None:
            return None
        if not self._reader.timed:
            raise DataError("the model was trained without a time column, its rows count; leave time out.")
        times = np.ascontiguousarray(time, np.float64)
        if times.shape != (count,):
            raise DataError(f"time must be [{count}], one for each row, got {list(times.shape)}.")
        return times

    def _without_static(self, row: Mapping[str, Any], id: Hashable, static: frozenset[str], where: str) -> Any:
        fixed = self._fixed.get(id, {})
        for name in static & row.keys():
            value = plain(row[name])
            if value is not None and value != fixed.get(name):
                raise DataError(
                    f"{where}, column {name!r}: a static column may not change within a stream, it was"
                    f" {fixed.get(name)!r} and is {value!r}; close the stream first."
                )
        return {name: value for name, value in row.items() if name not in static}

    def _open_missing(self, keys: list[Hashable], rows: Any) -> list[Hashable]:
        """Streams of the ids that are not open, with the static columns of their first row."""
        opened: list[Hashable] = []
        names = [c.name for c in self._model.config.input.static]
        try:
            for k, id in enumerate(keys):
                if id in self._places:
                    continue
                row = rows[k]
                given = {n: row[n] for n in names if n in row} if names and isinstance(row, Mapping) else None
                self.open(id, given)
                opened.append(id)
        except BaseException:
            for id in opened:
                self.close(id)
            raise
        return opened

    def _place(self, id: Hashable) -> int:
        if self.limit is not None and len(self._places) >= self.limit:
            raise CarouselError(
                f"stream {id!r} would be one more than the limit of {self.limit}; close others first, for example those"
                " of idle(1)."
            )
        if not self._free:
            count = self._core.count
            self._core.grow(count + max(_ROOM, count // 2))
            self._free.extend(range(self._core.count - 1, count - 1, -1))
            self._pushed = np.concatenate([self._pushed, np.zeros(self._core.count - count, np.int64)])
        return self._free.pop()

    def _known(self, id: Hashable) -> int:
        if id not in self._places:
            raise DataError(f"stream {id!r} is not open; open it, or push with open_new=True.")
        return self._places[id]
