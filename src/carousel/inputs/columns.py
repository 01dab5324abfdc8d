"""One column of a user's frame as NumPy: numbers, categories, times; every complaint names row, column and remedy."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError
from carousel.inputs.clock import Clock

__all__ = [
    "LARGEST",
    "as_frame",
    "categories",
    "is_text",
    "moderate",
    "numbers",
    "require",
    "table_of",
    "texts",
    "times",
]

LARGEST = 1e140  # beyond it, sums of squares leave the range of float64
Frame = nw.DataFrame[Any]
Column = nw.Series[Any]


def as_frame(frame: Any, source: str) -> Frame:
    """Any pandas, polars or Arrow table, as narwhals sees it.

    Raises DataError where it is none of these, has no rows, or names of columns that are no text or stand twice.
    """
    _refuse_odd_names(frame, source)
    try:
        found: Frame = nw.from_native(frame, eager_only=True)
    except TypeError:
        raise DataError(
            f"{source}: expected a pandas, polars or Arrow table but got {type(frame).__name__}; convert it first."
        ) from None
    if not len(found):
        raise DataError(f"{source}: the table has no rows; give it at least one observation.")
    return found


def _refuse_odd_names(frame: Any, source: str) -> None:
    """pandas and Arrow allow names of columns that are no text, and the same name twice."""
    if not hasattr(frame, "shape"):  # no table, which is said elsewhere
        return
    arrow = type(frame).__module__.startswith("pyarrow")
    names = list(frame.column_names if arrow else getattr(frame, "columns", ()))
    odd = [name for name in names if not isinstance(name, str)]
    if odd:
        raise DataError(f"{source}: the names of columns must be text, got {odd[0]!r}; rename the columns.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{source}: there is more than one column {twice[0]!r}; rename or drop the others.")


def require(frame: Frame, names: Sequence[str], source: str) -> None:
    """DataError for the first name that is no column, with the nearest ones that are."""
    for name in names:
        if name not in frame.columns:
            near = difflib.get_close_matches(name, frame.columns, n=3)
            hint = (
                f"did you mean {' or '.join(map(repr, near))}?" if near else f"columns are {', '.join(frame.columns)}."
            )
            raise DataError(f"{source}: there is no column {name!r}; {hint}")


def is_text(column: Column) -> bool:
    return column.dtype in (nw.String, nw.Categorical, nw.Enum) or column.dtype == nw.Object


def is_category(column: Column) -> bool:
    """Text of which fewer than half of the values are numbers: a category, rather than numbers with a slip."""
    if not is_text(column):
        return False
    values = _texts(column)
    sample = [v for v in values[:1000] if v is not None]
    return 2 * sum(_is_number(v) for v in sample) < len(sample) if sample else True


def first_date(column: Column) -> tuple[str, str] | None:
    """The first text and "iso" or "slashed" where every text of the column is a date of that form, else None."""
    given = [value.strip() for value in _texts(column) if value is not None]
    for form, pattern in (("iso", _ISO_DATE), ("slashed", _SLASHED_DATE)):
        if given and all(pattern.match(value) for value in given):
            return given[0], form
    return None


def numbers(column: Column, source: str) -> NDArray[np.float64]:
    """float64 [N], NaN where the value is missing; text is taken where all of it is numbers.

    Raises DataError for other text, for infinite values and for types that are no numbers.
    """
    name = column.name
    if column.null_count() == len(column):
        return np.full(len(column), np.nan)
    if is_text(column):
        for row, value in enumerate(_texts(column)):
            if value is not None and not _is_number(value):
                raise DataError(
                    f"{source}, row {row + 1}, column {name!r}: {value!r} is not a number;"
                    " correct it or leave it empty."
                )
        found = np.array([np.nan if value is None else float(value) for value in _texts(column)])
    elif not (column.dtype.is_numeric() or column.dtype == nw.Boolean or column.null_count() == len(column)):
        raise DataError(f"{source}, column {name!r}: {column.dtype} is not a numeric type; convert it to numbers.")
    else:
        found = np.asarray(column.cast(nw.Float64).to_numpy(), dtype=np.float64)
    infinite = np.flatnonzero(np.isinf(found))
    if len(infinite):
        row = int(infinite[0])
        raise DataError(
            f"{source}, row {row + 1}, column {name!r}: the value is infinite; correct it or leave it empty."
        )
    return found


def moderate(column: Column, source: str) -> NDArray[np.float64]:
    """`numbers`; DataError for one so large that sums of squares would leave the range of float64."""
    found = numbers(column, source)
    huge = np.flatnonzero(np.abs(found) > LARGEST)
    if len(huge):
        row = int(huge[0])
        raise DataError(
            f"{source}, row {row + 1}, column {column.name!r}: the value {found[row]:g} is too large to compute with;"
            " correct it, or give the column in a larger unit."
        )
    return found


def texts(frame: Frame, name: str, source: str) -> list[str]:
    """The texts of a column, empty where one is missing.

    Raises DataError where there is no such column, or it holds no text.
    """
    require(frame, (name,), source)
    if not is_text(frame[name]):
        raise DataError(f"{source}, column {name!r}: {frame[name].dtype} is no text; name a column of texts.")
    return ["" if text is None else str(text) for text in _texts(frame[name])]


def table_of(rows: Sequence[tuple[Any, ...]], names: Mapping[str, Any], backend: Any) -> Any:
    """A table of the library `backend` from its rows, and its columns with their types."""
    values = zip(*rows, strict=True) if rows else ([] for _ in names)
    made = [
        nw.new_series(name, list(column), kind, backend=backend)
        for (name, kind), column in zip(names.items(), values, strict=True)
    ]
    return nw.from_dict({column.name: column for column in made}).to_native()


def categories(column: Column) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Codes [N] into the sorted texts that occur, NaN where the value is missing."""
    values = _texts(column)
    missing = np.array([v is None for v in values])
    texts, codes = np.unique(np.array(["" if v is None else v for v in values], dtype=str), return_inverse=True)
    used = np.unique(codes[~missing])
    position = np.full(len(texts), np.nan)
    position[used] = np.arange(len(used))
    found = position[codes]
    found[missing] = np.nan
    return found, tuple(str(texts[k]) for k in used)


def keys(column: Column, source: str) -> tuple[list[Any], NDArray[np.int64]]:
    """The distinct values of an id column, sorted, and which one each row has.

    Raises DataError where an id is missing.
    """
    missing = np.flatnonzero(column.is_null().to_numpy())
    if len(missing):
        raise DataError(
            f"{source}, row {int(missing[0]) + 1}, column {column.name!r}: the id is missing;"
            " fill it in or drop the row."
        )
    values = _texts(column) if is_text(column) else column.to_numpy()
    distinct, codes = np.unique(np.asarray(values, dtype=str if is_text(column) else None), return_inverse=True)
    return [str(v) for v in distinct] if is_text(column) else distinct.tolist(), codes.astype(np.int64)


def times(column: Column, source: str) -> tuple[NDArray[np.float64], Clock]:
    """float64 [N] and what they were: seconds since 1970 for timestamps and ISO 8601 text, numbers as they are.

    Raises DataError where a time is missing, cannot be read, or is infinite.
    """
    name = column.name
    missing = np.flatnonzero(column.is_null().to_numpy())
    if len(missing):
        raise DataError(
            f"{source}, row {int(missing[0]) + 1}, column {name!r}: the time is missing; fill it in or drop the row."
        )
    dtype = column.dtype
    if dtype == nw.Date:
        days = np.asarray(column.cast(nw.Datetime("us")).to_numpy(), dtype="datetime64[us]")
        return days.astype(np.float64) / 1e6, Clock("timestamp", dtype)
    if isinstance(dtype, nw.Datetime):
        zone = dtype.time_zone
        plain = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if zone else column
        stamps = np.asarray(plain.to_numpy(), dtype="datetime64[us]")  # of nanoseconds, 64 bits end in 2262
        return stamps.astype(np.int64) / 1e6, Clock("timestamp", dtype, zone)
    if is_text(column):
        found, pattern = _parse(column, source)
        return found, Clock("text", nw.String(), pattern=pattern)
    if dtype.is_numeric():
        found = numbers(column, source)
        bad = np.flatnonzero(np.isnan(found))
        if len(bad):
            raise DataError(
                f"{source}, row {int(bad[0]) + 1}, column {name!r}: the time is missing; fill it in or drop the row."
            )
        return found, Clock("number", dtype)
    raise DataError(f"{source}, column {name!r}: {dtype} is no time; use timestamps, ISO 8601 text or numbers.")


def _parse(column: Column, source: str) -> tuple[NDArray[np.float64], str]:
    """Seconds, and the strftime pattern that writes the first one as it stood ("" where none of ours does)."""
    values = _texts(column)
    found = np.empty(len(values))
    for row, value in enumerate(values):
        text = str(value).strip()
        try:
            stamp = datetime.fromisoformat(f"{text}-01" if _MONTH.fullmatch(text) else text)
        except ValueError:
            raise DataError(
                f"{source}, row {row + 1}, column {column.name!r}: {value!r} is not a time;"
                " write it as 2024-03-01 or 2024-03-01 12:00:00."
            ) from None
        found[row] = (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()
    first = datetime.fromtimestamp(found[0], UTC)
    return found, next((p for p in _PATTERNS if first.strftime(p) == values[0]), "")


_ISO_DATE = re.compile(r"\d{4}-\d{1,2}(-\d{1,2})?($|[ T]\d)")
_SLASHED_DATE = re.compile(r"(\d{1,2}([/.-])\d{1,2}\2(\d{4}|\d{2})|\d{4}([/.])\d{1,2}\4\d{1,2})($|[ T]\d)")
_MONTH = re.compile(r"\d{4}-\d{2}")
_PATTERNS = (
    "%Y-%m",
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%dT%H:%M:%SZ",
)


def _texts(column: Column) -> list[str | None]:
    missing = column.is_null().to_list()
    return [None if gone else str(value) for value, gone in zip(column.to_list(), missing, strict=True)]


def _is_number(text: str) -> bool:
    if "_" in text:  # which Python allows within digits
        return False
    try:
        float(text)
    except ValueError:
        return False
    return True
