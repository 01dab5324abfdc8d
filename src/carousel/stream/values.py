"""One value as a user has it: missing, a number, a category, or something that is none of these."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from carousel.errors import CarouselError, DataError

__all__ = ["each", "missing", "number", "plain", "read_fixed", "refuse_change", "text"]


def missing(value: Any) -> bool:
    """None, NaN, and what pandas has for them.

    >>> missing(None), missing(float("nan")), missing(0)
    (True, True, False)
    """
    if value is None:
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):  # of pandas' NA, and of arrays
        return type(value).__name__ == "NAType"


def number(value: Any, where: str) -> float:
    """NaN where it is missing; DataError for what is no number."""
    if value.__class__ is float:
        return float(value)
    if missing(value):
        return math.nan
    if isinstance(value, str | bytes):
        raise DataError(f"{where}: {value!r} is text, and the column holds numbers; give a number, or null.")
    try:
        return float(value)
    except OverflowError:
        raise DataError(f"{where}: the value is too large to compute with; correct it, or null for missing.") from None
    except (TypeError, ValueError):
        raise DataError(f"{where}: {value!r} is no number; give a number, or null where not observed.") from None


def text(value: Any, where: str) -> str | None:
    """A category as training wrote it: whole numbers without a point; None where it is missing."""
    if missing(value):
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | np.bool_ | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    raise DataError(f"{where}: {value!r} is neither text nor a number; give the category as text.")


def plain(value: Any) -> Any:
    """Text, numbers and what is missing as JSON knows them."""
    if isinstance(value, np.bool_ | np.integer):
        return value.item()
    if missing(value):
        return None
    if isinstance(value, np.generic) and not isinstance(value, str):
        value = float(value)
    if isinstance(value, int | float | str | bool):
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        raise CarouselError(
            f"{value!r} cannot be saved with the state; give static columns as text and numbers."
        ) from None


def refuse_change(row: Mapping[str, Any], names: Iterable[str], fixed: Mapping[str, Any] | None, where: str) -> None:
    """DataError where a row has another value in a static column than the first had; missing says nothing."""
    for name in names:
        known, value = (fixed or {}).get(name), plain(row.get(name))
        if value is not None and value != known:
            raise DataError(
                f"{where}, column {name!r}: a static column may not change within a stream, it was {known!r} and is"
                f" {value!r}; begin another stream."
            )


def each(name: str, values: Any, count: int) -> list[Any]:
    """One of `values` for each of `count` rows, None where there are none at all; DataError where they do not fit."""
    if values is None:
        return [None] * count
    whole = not isinstance(values, str | bytes | Mapping) and getattr(values, "ndim", 1) > 0
    given = list(values) if isinstance(values, Iterable) and whole else None
    if given is None or len(given) != count:
        found = f"{len(given)} items" if given is not None else f"a {type(values).__name__}"
        raise DataError(f"{name} has {found} for {count} rows; give one for each.")
    return given


def read_fixed(fixed: Any, names: Iterable[str]) -> dict[str, Any] | None:
    """The static columns of a saved state; ValueError for what cannot be those of `names`."""
    wanted = set(names)
    if fixed is None or (isinstance(fixed, dict) and wanted and set(fixed) == wanted):
        return fixed
    raise ValueError("these are not the model's static columns")
