"""`Stream`: one sequence of one model."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from carousel.errors import CarouselError
from carousel.stream.loading import Model, load

__all__ = ["Stream", "engine", "pack", "take_state", "unpack"]

_MAGIC, _VERSION = b"crsl", 2
_HEAD = struct.Struct("<4sHH8sII")  # magic, version, task, fingerprint, length of the payload, its CRC-32
_TASKS = ("forecast", "classify", "tag", "detect")


class Stream:
    """A model that takes one row at a time and says after each what its head gives.

    `path` is a model file of a classifier, tagger, detector or forecaster. `weights`: "float32" gives the numbers of
    `predict`; "bf16" and "int8" store the matrices of the stack in a half and a quarter of the memory, which is
    faster where they do not fit into the cache, and loses accuracy. Raises ModelFileError for a file that is refused,
    NotSupported for a model without a streaming form, DataError for a row that is refused; the stream is then as it was
    before.

    A stream is not to be used by two threads at once.

    >>> from carousel.stream.examples import model_file
    >>> stream = Stream(model_file())  # two numbers a row, three classes
    >>> sorted(stream.push([0.3, -1.2]))
    ['p_0', 'p_1', 'p_2', 'prediction']
    >>> before = stream.state()
    >>> first, again = stream.push([0.1, 0.2]), stream.restore(before)
    >>> stream.push([0.1, 0.2]) == first
    True
    """

    def __init__(
        self, path: str | os.PathLike[str], *, weights: str = "float32", static: Mapping[str, Any] | None = None
    ) -> None:
        self._model = load(path, weights)
        self._engine: Any = engine(self._model)
        self.reset(static)

    @property
    def rows(self) -> int:
        """Rows since the beginning of the sequence."""
        return int(self._engine.rows)

    def push(self, row: Any, time: Any = None, *, ahead: Any = None) -> dict[str, Any]:
        """One row, as a mapping of columns, or as a sequence or 1-D array of them in the model's order.

        None or NaN is missing, which is allowed in columns that had gaps in training. `time` where it is not in the
        mapping: a number, or a timestamp as in training. `ahead` (forecasts with known columns): the rows to come, one
        mapping for each step of the horizon. Gives a dict whose keys are the columns of `predict`.
        """
        return self._engine.push(row, time, ahead)  # type: ignore[no-any-return]

    def push_many(self, rows: Iterable[Any], time: Iterable[Any] | None = None) -> list[dict[str, Any]]:
        """Several rows, with what each gives; where one is refused, none was pushed."""
        return self._engine.push_many(rows, time, None)  # type: ignore[no-any-return]

    def reset(self, static: Mapping[str, Any] | None = None) -> None:
        """To the beginning of another sequence; `static` names its static columns where rows do not."""
        self._engine.reset(static)

    def state(self) -> bytes:
        """All that the next rows depend on, the same on every machine."""
        return pack(self._model, self._engine.save())

    def restore(self, state: bytes) -> None:
        """Go on from what `state` gave; CarouselError where it is of another model or version, or damaged."""
        payload = unpack(self._model, state)
        take_state(self._engine.load, payload)


def engine(model: Model, shared: Any = None) -> Any:
    """What runs one sequence; `shared` of another engine of the same model saves laying its weights out again."""
    if model.config.task == "forecast":
        from carousel.stream.windows import WindowEngine

        return WindowEngine(model, shared)
    from carousel.stream.rows import RowEngine

    return RowEngine(model, shared)


def take_state(load: Callable[[bytes], bool], payload: bytes) -> None:
    """CarouselError where `load`, which then changes nothing, says or shows that this is no state."""
    try:
        good = load(payload)
    except (ValueError, TypeError, LookupError, OSError, RecursionError, struct.error):
        good = False
    if not good:
        raise CarouselError("the state is damaged; take one that `state` gave.")


def pack(model: Model, payload: bytes) -> bytes:
    """A state with what is needed to know it again."""
    task = _TASKS.index(model.config.task)
    return _HEAD.pack(_MAGIC, _VERSION, task, model.fingerprint, len(payload), zlib.crc32(payload)) + payload


def unpack(model: Model, state: Any) -> bytes:
    """The payload; CarouselError for what is not a state of this model in this version."""
    if not isinstance(state, bytes | bytearray | memoryview):
        raise CarouselError(f"a state is bytes, got {type(state).__name__}; give what `state` gave.")
    state = bytes(state)
    if len(state) < _HEAD.size or state[:4] != _MAGIC:
        raise CarouselError("these bytes are no state of a stream; give what `state` gave.")
    _, version, task, fingerprint, length, check = _HEAD.unpack_from(state)
    if version != _VERSION:
        raise CarouselError(f"the state is of version {version}, this version reads {_VERSION}; start the stream anew.")
    if fingerprint != model.fingerprint:
        raise CarouselError(f"the state belongs to another model than {model.name}; use the model that it came from.")
    payload: bytes = state[_HEAD.size :]
    if len(payload) != length or zlib.crc32(payload) != check or task != _TASKS.index(model.config.task):
        raise CarouselError("the state is damaged; take one that `state` gave.")
    return payload
