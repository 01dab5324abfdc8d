"""The stream of a model of sequences: each row goes through the core's program once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from carousel import _core
from carousel.errors import DataError
from carousel.stream.loading import Model, answers, program
from carousel.stream.reading import Reader
from carousel.stream.values import plain, read_fixed, refuse_change

__all__ = ["RowEngine"]


class RowEngine:
    """One sequence of a classifier, tagger or detector."""

    def __init__(self, model: Model, shared: Any = None) -> None:
        """`shared` is the core's program of another engine of the same model."""
        self.model, self.reader = model, Reader(model.config.input)
        names, classes = answers(model.config)
        self.shared = program(model, rows=False) if shared is None else shared
        self._core = _core.Streams(self.shared, names, classes)
        self._core.grow(1)
        self._push = self._core.push
        self._plain = self.reader.bare
        self._timed = self.reader.timed
        self._fixed: dict[str, Any] | None = None  # the static columns, as they were given

    @property
    def rows(self) -> int:
        return int(self._core.rows(0))

    def reset(self, static: Mapping[str, Any] | None) -> None:
        if static is not None and not self.model.config.input.static:
            raise DataError("reset: the model has no static columns; leave static out.")
        if static is None:
            self._core.begin(0, None, None)
            self._fixed = None
            return
        values, codes = self.reader.static(static, "static")
        fixed = {name: plain(value) for name, value in static.items()}
        self._core.begin(0, values, codes)
        self._fixed = fixed

    def push(self, row: Any, time: Any, ahead: Any) -> dict[str, Any]:
        if ahead is not None:
            self.refuse_ahead()
        if self._plain and row.__class__ is not dict and (time is not None) is self._timed:
            found = self._push(0, row, time, None, None)
            if found.__class__ is dict:
                return found
        return self._take(row, time)

    def _take(self, row: Any, time: Any) -> dict[str, Any]:
        """Any row, read in Python."""
        where = self._where()
        static = self.model.config.input.static
        fixed = None
        if static and isinstance(row, Mapping):
            fixed, row = self._split(row, where)
        read = self.reader.read(row, time, where)
        begin = fixed is not None and not self._core.begun(0)
        if begin and fixed is not None:
            values, codes = self.reader.static(fixed, where)
            fixed = {name: plain(value) for name, value in fixed.items()}
            self._core.begin(0, values, codes)
        found = self._push(0, *read)
        if isinstance(found, dict):
            if begin:
                self._fixed = fixed
            return found
        if begin:
            self._core.begin(0, None, None)
        raise self.reader.refusal(found, row, self._core.time(0), where)

    def push_many(self, rows: Iterable[Any], time: Iterable[Any] | None, ahead: Any) -> list[dict[str, Any]]:
        kept, found = self.keep(), []
        times = None if time is None else iter(time)
        try:
            for row in rows:
                try:
                    when = None if times is None else next(times)
                except StopIteration:
                    raise DataError(f"{self._where()}: there are fewer times than rows; give one for each.") from None
                found.append(self.push(row, when, ahead))
            if times is not None and next(times, self) is not self:
                raise DataError(f"there are more times than the {len(found)} rows; give one for each.")
        except BaseException:
            self.back(kept)
            raise
        return found

    def keep(self) -> Any:
        """What `back` needs to undo the pushes that follow."""
        self._core.keep(0)
        return self._fixed

    def back(self, kept: Any) -> None:
        self._core.back(0)
        self._fixed = kept

    def refuse_ahead(self) -> None:
        raise DataError(f"{self._where()}: rows ahead are for models that forecast; leave ahead out.")

    def save(self) -> bytes:
        fixed = json.dumps(self._fixed, default=plain).encode()
        return len(fixed).to_bytes(4, "little") + fixed + bytes(self._core.save(0))

    def load(self, payload: bytes) -> bool:
        size = int.from_bytes(payload[:4], "little")
        names = [c.name for c in self.model.config.input.static]
        fixed = read_fixed(json.loads(payload[4 : 4 + size]), names)
        if not self._core.load(0, payload[4 + size :]):
            return False
        self._fixed = fixed
        return True

    def _where(self) -> str:
        return f"row {self.rows + 1}"

    def _split(self, row: Mapping[str, Any], where: str) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """The static columns of a row, which may be left out after the first, and the others."""
        names = [c.name for c in self.model.config.input.static]
        given = {name: row[name] for name in names if name in row}
        rest = {name: value for name, value in row.items() if name not in given}
        if not self._core.begun(0):
            return given, rest
        refuse_change(given, given, self._fixed, where)
        return None, rest
