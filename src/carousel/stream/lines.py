"""JSON lines in, JSON lines out: one row a line, each sequence on its own where the model has an id column."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from typing import Any, NamedTuple, NoReturn
from zoneinfo import ZoneInfo

import numpy as np

from carousel.errors import CarouselError, DataError
from carousel.stream.loading import load
from carousel.stream.one import engine
from carousel.stream.times import zone_of

__all__ = ["Answer", "answer_lines"]


class Answer(NamedTuple):
    """What one line gave: a line of JSON, and whether its row was refused."""

    text: str
    refused: bool


def answer_lines(
    path: str | os.PathLike[str], lines: Iterable[bytes], weights: str = "float32", keep: int | None = None
) -> Iterator[Answer]:
    """For each line with a row its answer, after the row's own id and time; for a bad line its number and the error.

    A line is an object with the model's columns; rows of forecasters with known columns may hold `ahead`, a list of
    objects with those columns for the steps ahead. Blank lines are passed over. With `keep` no more than so many
    sequences are remembered: beyond it the one whose last row is oldest is forgotten, and begins anew should it come
    again. Raises what `Stream` raises of the model file, and CarouselError for a `keep` below 1.
    """
    if keep is not None and keep < 1:
        raise CarouselError(f"--keep is a number of sequences, at least 1, got {keep}.")
    model = load(path, weights)
    roles = model.config.input.roles
    first = engine(model)
    engines: dict[Any, Any] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = _parse(line)
            id = _id(row, roles.id)
            own = engines.get(id)
            if own is None:  # the stream is kept once a row of it was taken
                own = engine(model, first.shared)
                own.reset(None)
            time = _zoned(row.pop(roles.time, None), model.config.input) if roles.time else None
            ahead = row.pop("ahead", None) if roles.known and "ahead" not in roles.columns else None
            found = own.push(row, time, ahead)
        except CarouselError as error:
            yield Answer(json.dumps({"line": number, "error": str(error)}, ensure_ascii=False), True)
            continue
        engines.pop(id, None)  # the last is the one that came last
        engines[id] = own
        if keep is not None and len(engines) > keep:
            del engines[next(iter(engines))]
        shown = {} if roles.id is None else {roles.id: row[roles.id]}
        if roles.time is not None and roles.time not in found:
            shown[roles.time] = _written(time)
        found = {name: _written(value) for name, value in found.items()}
        yield Answer(json.dumps(shown | found, ensure_ascii=False, allow_nan=False), False)


def _parse(line: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"the column {twice!r} is given twice; give it once.")
        return found

    def constant(word: str) -> NoReturn:
        raise DataError(f"{word} is not JSON; write null for a value that is missing.")

    try:
        row = json.loads(line.strip(), object_pairs_hook=unique, parse_constant=constant)
    except CarouselError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"the line is not JSON ({error}); write one object on each line.") from None
    if not isinstance(row, dict):
        raise DataError("the line is no JSON object; write one object with the columns on each line.")
    return row


def _id(row: Mapping[str, Any], column: str | None) -> Any:
    if column is None:
        return None
    id = row.get(column)
    if id is None or isinstance(id, list | dict) or id in (math.inf, -math.inf):
        raise DataError(f"column {column!r}: the id says which sequence a row belongs to; give it as text or a number.")
    return id


def _zoned(time: Any, seen: Any) -> Any:
    """Text with an offset becomes a timestamp where the model has a time zone."""
    zone = getattr(getattr(seen, "grid", seen), "zone", None)
    if zone is None or not isinstance(time, str):
        return time
    try:
        stamp = datetime.fromisoformat(time.strip())
    except ValueError:
        return time  # which reading it says
    try:
        return stamp if stamp.tzinfo is None or zone_of(stamp) == zone else stamp.astimezone(ZoneInfo(zone))
    except OverflowError:
        raise DataError(f"the time {time!r} lies at the end of the calendar; correct it.") from None


def _written(value: Any) -> Any:
    """As JSON knows it; what is not a finite number is null."""
    if isinstance(value, np.ndarray):
        return [_written(v) for v in value.tolist()]
    if isinstance(value, list):
        return [_written(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value
