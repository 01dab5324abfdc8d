"""Rows as a user has them (mappings, sequences, arrays) for a model of sequences, and why some are refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.errors import CarouselError, DataError
from carousel.inputs.clock import calendar_features, require_zone, utc_offset
from carousel.inputs.sequence import Channel, SequenceInput
from carousel.stream.times import read_time
from carousel.stream.values import number, text

__all__ = ["ReadRow", "Reader"]

_MISSING = "the value is missing, and no row of the training had a gap here; fill it in, or train with such rows"
_LENGTH, _TYPE, _TIME = 100, 101, 102  # what the core says beside `Refusal` of native/src/stream.h


class ReadRow(NamedTuple):
    """One row as the core takes it."""

    numbers: Any  # [numbers] a list or an array
    time: float | None
    codes: list[int] | None  # [categories]
    calendar: list[float] | None


class Reader:
    """How rows of one model are read.

    `bare`: a row is nothing but numbers, so that an array or a list goes to the core as it is.
    """

    def __init__(self, seen: SequenceInput) -> None:
        self.seen, self.roles = seen, seen.roles
        self.numbers = tuple(c.name for c in seen.numbers)
        self.categories = tuple(seen.categories)
        self.columns = tuple(c.name for c in seen.columns)
        self.events = seen.variable is not None
        self.timed = seen.roles.time is not None
        self.bare = not self.categories and not seen.calendar and not seen.stamps
        self.known = frozenset(seen.roles.columns)
        self._places = {name: k for k, name in enumerate(self.columns)}

    def read(self, row: Any, time: Any, where: str) -> ReadRow:
        """A row given as a mapping of columns, or as a sequence or array of them in the model's order.

        Raises DataError for missing and unknown columns, for text in a number and for an unreadable time.
        """
        if isinstance(row, Mapping):
            values = self._by_name(row, where)
            if self.roles.time in row:
                if time is not None:
                    raise DataError(f"{where}: the time is given twice, in the row and beside it; give it once.")
                time = row[self.roles.time]
        else:
            values = self._by_place(row, where)
        when = local = None
        if self.timed:
            when, local = self._time(time, f"{where}, column {self.roles.time!r}")
        elif time is not None:
            raise DataError(f"{where}: the model was trained without a time column, its rows count; leave time out.")
        places = self._places
        return ReadRow(
            [number(values[places[name]], f"{where}, column {name!r}") for name in self.numbers],
            when,
            [self._code(c, values[places[c.name]], where) for c in self.categories] if self.categories else None,
            calendar_features(np.asarray(local), self.seen.calendar).tolist() if self.seen.calendar else None,
        )

    def _time(self, time: Any, where: str) -> tuple[float, float]:
        """In the model's numbers, and by the wall clock of its zone."""
        when, local = read_time(time, self.seen.stamps, where)
        zone, given = self.seen.zone, getattr(time, "tzinfo", None)
        if self.seen.stamps and not (zone is None and isinstance(time, str)):  # text is read as it stands
            require_zone(None if given is None else str(given), zone, where)
        return when, local if zone is None else when + float(utc_offset(np.array([when]), zone)[0])

    def _by_name(self, row: Mapping[str, Any], where: str) -> list[Any]:
        unknown = [name for name in row if name not in self.known]
        if unknown:
            raise DataError(
                f"{where}: the column {unknown[0]!r} is unknown to the model, which has"
                f" {', '.join(self.roles.columns)}; leave it out."
            )
        if self.events:  # a reading of one variable says nothing of the others
            return [row.get(name) for name in self.columns]
        missing = [name for name in self.columns if name not in row]
        if missing:
            raise DataError(f"{where}: the column {missing[0]!r} is missing; give it (null where not observed).")
        return [row[name] for name in self.columns]

    def _by_place(self, row: Any, where: str) -> list[Any]:
        if isinstance(row, np.ndarray):
            row = row.tolist() if row.ndim == 1 else row
        if isinstance(row, str | bytes) or not isinstance(row, Sequence):
            raise DataError(
                f"{where}: a row is a mapping of columns, or a sequence or 1-D array of {len(self.columns)} values, got"
                f" {type(row).__name__}; convert it."
            )
        if len(row) != len(self.columns):
            raise DataError(
                f"{where}: {len(self.columns)} values ({', '.join(self.columns)}) make a row, got {len(row)}."
            )
        return list(row)

    def _code(self, channel: Channel, value: Any, where: str) -> int:
        return channel.code(text(value, f"{where}, column {channel.name!r}"))

    def static(self, given: Mapping[str, Any], where: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The static columns' channels and codes."""
        seen = self.seen
        names = [c.name for c in seen.static]
        unknown = [name for name in given if name not in names]
        if unknown:
            raise DataError(f"{where}: {unknown[0]!r} is no static column of the model; it has {', '.join(names)}.")
        missing = [name for name in names if name not in given]
        if missing:
            raise DataError(f"{where}: the static column {missing[0]!r} is missing; give it (null where not known).")
        numbers = [number(given[c.name], f"{where}, column {c.name!r}") for c in seen.static_numbers]
        for c, value in zip(seen.static_numbers, numbers, strict=True):
            if math.isnan(value) and not c.gaps:
                raise DataError(f"{where}, column {c.name!r}: {_MISSING}.")
            if math.isinf(value):
                raise DataError(f"{where}, column {c.name!r}: the value is infinite; correct it, or null for missing.")
        codes = [self._code(c, given[c.name], where) for c in seen.static_categories]
        values = seen.static_channels(np.array([numbers], np.float64).reshape(1, -1))[0]
        return values, np.array(codes, np.int64)

    def refusal(self, code: int, row: Any, time: float, where: str) -> CarouselError:
        """The sentence for a number that the core gave instead of an answer."""
        why, column = code & 255, code >> 8
        if why in (_LENGTH, _TYPE):  # told apart by looking at the row as a whole
            shape = f" with shape {list(row.shape)} of {row.dtype}" if isinstance(row, np.ndarray) else ""
            return DataError(
                f"{where}: {len(self.columns)} numbers ({', '.join(self.columns)}) make a row, got"
                f" {type(row).__name__}{shape}; give a mapping, a sequence, or a 1-D array of floats."
            )
        if why == _TIME:
            return DataError(f"{where}: the time must be a number; convert it.")
        if why == 1:
            return DataError(f"{where}, column {self.numbers[column]!r}: {_MISSING}.")
        if why == 2:
            return DataError(
                f"{where}, column {self.numbers[column]!r}: the value is infinite, or beyond 1e140; correct it, or null"
                " for missing."
            )
        if why == 3:
            return DataError(f"{where}: the time is missing, infinite or beyond 1e140; give it with every row.")
        if why == 4:
            return DataError(
                f"{where}: its time lies before that of the row before ({time:g}); rows come in order of time."
            )
        if why == 6:
            names = ", ".join(c.name for c in self.seen.static)
            return DataError(f"{where}: the static columns are not known yet; give {names} with reset(static=...).")
        return CarouselError(f"{where}: a category's code is out of range.")
