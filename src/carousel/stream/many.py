"""`Streams`: many independent sequences of one model, stepped together."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel import _core
from carousel.errors import CarouselError, DataError
from carousel.stream.loading import Model, load
from carousel.stream.one import pack, take_state, unpack
from carousel.stream.values import missing

__all__ = ["Streams"]

Ints = NDArray[np.int64]
_ROOM = 64  # streams that memory is made for at once


class Streams:
    """Independent sequences by id, one call for many rows of them: the numbers are those of as many `Stream`s.

    `path` and `weights` as in `Stream`. A stream begins with `open`, or with
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
        self.limit = limit
        self._held = _held(self._model)
        self._places: dict[Hashable, int] = {}
        self._table = _core.Places()  # the same for ids that are whole numbers
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
        if _usable(id) in self._places:
            raise DataError(f"stream {id!r} is open already; close it first.")
        place = self._place(id)
        try:
            self._held.begin(place, static, f"stream {id!r}")
        except BaseException:
            self._free.append(place)
            raise
        self._keep(id, place)

    def close(self, id: Hashable) -> None:
        """Forget a stream; DataError where there is none of this id."""
        place = self._known(id)
        del self._places[id]
        self._table.drop(place)
        self._held.forget(place)
        self._free.append(place)

    def idle(self, count: int) -> list[Hashable]:
        """The ids of the `count` streams that were not pushed for longest, the longest first."""
        return sorted(self._places, key=lambda id: int(self._pushed[self._places[id]]))[:count]

    def push(
        self, ids: Any, rows: Any, time: Any = None, *, open_new: bool = False, ahead: Any = None
    ) -> dict[str, NDArray[Any]]:
        """Rows [n] of the streams `ids` [n], taken in order; an id may come more than once.

        `rows` is an array [n, columns], or a sequence of rows as `Stream.push` takes them; `time` [n] where it is not
        in the rows, `ahead` [n] as in `Stream.push`, with None where no forecast is asked. Gives arrays [n] under the
        names that `Stream.push` has, [n, horizon x targets] of forecasters. Where one row is refused none is taken, and
        no stream has been opened.
        """
        keys: Any = ids if isinstance(ids, np.ndarray) and ids.ndim == 1 else list(ids)
        if not hasattr(rows, "__len__"):
            rows = list(rows)
        if hasattr(rows, "columns"):
            raise DataError(
                f"rows are a {type(rows).__name__}; give its rows as mappings: `to_dicts()` of polars,"
                " `to_dict('records')` of pandas."
            )
        if len(keys) != len(rows):
            raise DataError(f"there are {len(keys)} ids and {len(rows)} rows; give one id for each row.")
        which, opened = self._find(keys), []
        if which is None:
            names: list[Hashable] = keys.tolist() if isinstance(keys, np.ndarray) else keys
            if not open_new:
                raise _not_open(next(id for id in names if _usable(id) not in self._places))
            opened = self._open_missing(names, rows)
            which = np.fromiter(map(self._places.__getitem__, names), np.int64, len(names))
        try:
            found: dict[str, NDArray[Any]] = self._held.push(which, _Names(keys), rows, time, ahead)
        except BaseException:
            for id in opened:
                self.close(id)
            raise
        self._calls += 1
        self._pushed[which] = self._calls
        return found

    def state(self, id: Hashable) -> bytes:
        """As `Stream.state`; either can restore the other's."""
        return pack(self._model, self._held.save(self._known(id)))

    def restore(self, id: Hashable, state: bytes) -> None:
        """Open the stream, or replace the one that is open, with what `state` gave."""
        payload = unpack(self._model, state)
        new = _usable(id) not in self._places
        place = self._place(id) if new else self._places[id]
        try:
            take_state(lambda state: bool(self._held.load(place, state)), payload)
        except BaseException:
            if new:
                self._free.append(place)
            raise
        self._keep(id, place)

    def _keep(self, id: Hashable, place: int) -> None:
        self._places[id] = place
        self._pushed[place] = self._calls
        if isinstance(id, int | np.integer) and -(2**63) <= id < 2**63:
            self._table.put(int(id), place)

    def _find(self, ids: Any) -> Ints | None:
        """The places of ids, None where one is not open. Arrays of whole numbers are looked up in the core."""
        if isinstance(ids, np.ndarray) and ids.dtype.kind == "i" and ids.ndim == 1:
            which = np.empty(len(ids), np.int64)
            if self._table.find(np.ascontiguousarray(ids, np.int64), which) == len(ids):
                return which
        keys = ids.tolist() if isinstance(ids, np.ndarray) else ids
        try:
            return np.fromiter(map(self._places.__getitem__, keys), np.int64, len(keys))
        except (KeyError, TypeError):
            return None

    def _open_missing(self, keys: list[Hashable], rows: Any) -> list[Hashable]:
        """Streams of the ids that are not open, with the static columns of their first row."""
        opened: list[Hashable] = []
        names = [c.name for c in self._model.config.input.static]
        try:
            for k, id in enumerate(keys):
                if _usable(id) in self._places:
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
            count = self._held.count
            self._held.grow(count + max(_ROOM, count // 2))
            self._free.extend(range(self._held.count - 1, count - 1, -1))
            self._pushed = np.concatenate([self._pushed, np.zeros(self._held.count - count, np.int64)])
        return self._free.pop()

    def _known(self, id: Hashable) -> int:
        if _usable(id) not in self._places:
            raise _not_open(id)
        return self._places[id]


class _Names(Sequence[Hashable]):
    """Ids as messages name them: those of an array become Python's only when they are asked for."""

    def __init__(self, ids: Any) -> None:
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, k: Any) -> Any:
        id = self._ids[k]
        return id.item() if isinstance(id, np.generic) else id


def _held(model: Model) -> Any:
    if model.config.task == "forecast":
        from carousel.stream.many_series import ManySeries

        return ManySeries(model)
    from carousel.stream.many_rows import ManyRows

    return ManyRows(model)


def _usable(id: Hashable) -> Hashable:
    """DataError for an id that no stream could be found by again."""
    if not isinstance(id, Hashable) or missing(id):
        raise DataError(f"the id {id!r} tells no stream from another; give text or a number for each.")
    return id


def _not_open(id: Hashable) -> DataError:
    return DataError(f"stream {id!r} is not open; open it, or push with open_new=True.")
