"""What is to be learned of sequences: a column or an array of labels, numbers or events, as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError
from carousel.inputs import columns

__all__ = ["Labels", "label_array", "label_column", "per_sequence"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Kind = Literal["text", "integer", "number", "boolean"]


@dataclass(frozen=True)
class Labels:
    """values [n]: places among `classes` (which are text, of that `type`), or numbers without classes; NaN: missing."""

    values: Floats
    classes: tuple[str, ...] = ()
    type: Kind = "number"

    def among(self, classes: Sequence[str], where: str) -> Floats:
        """The values as places among other classes, where 1 and 1.0 are one; DataError for a label that is none."""
        place = {name: k for k, name in enumerate(classes)}
        if self.type in ("integer", "number"):
            whole = {_whole(name): k for k, name in enumerate(classes)}
            place |= {name: whole[_whole(name)] for name in self.classes if name not in place and _whole(name) in whole}
        used = np.unique(self.values[~np.isnan(self.values)]).astype(np.int64)
        for k in used:
            if self.classes[k] not in place:
                raise DataError(
                    f"{where}: the label {self.classes[k]!r} was not among those of training"
                    f" ({', '.join(map(repr, list(classes)[:10]))}{', ...' if len(classes) > 10 else ''}); leave such"
                    " sequences out, or train with them."
                )
        table = np.array([place.get(name, -1) for name in self.classes] or [0], np.float64)
        return np.where(np.isnan(self.values), np.nan, table[np.nan_to_num(self.values).astype(np.int64)])


def _whole(name: str) -> str:
    """A label as an integer is written, where it is a whole number."""
    try:
        return str(int(float(name)))
    except ValueError:
        return name


def label_column(column: nw.Series[Any], kind: str, source: str) -> Labels:
    """A column of a table. `kind`: label, regression (numbers), or event (0 and 1).

    Raises DataError for text as numbers, for fractions as labels and for events that are neither 0 nor 1.
    """
    where = f"{source}, column {column.name!r}"
    if kind == "label" and columns.is_text(column):
        return Labels(*columns.categories(column), "text")
    values = columns.moderate(column, source)
    if kind == "regression":
        return Labels(values)
    if kind == "event":
        wrong = np.flatnonzero(~np.isnan(values) & (values != 0) & (values != 1))
        if len(wrong):
            row = int(wrong[0])
            raise DataError(
                f"{source}, row {row + 1}, column {column.name!r}: {values[row]:g} is neither 0 (no event) nor 1 (the"
                " event lasts); write the column so."
            )
        return Labels(values)
    return _classes(values, "boolean" if column.dtype == nw.Boolean else "integer", where)


def label_array(values: Any, kind: str, source: str = "y") -> Labels:
    """An array or list [n]; text, numbers or booleans. Raises DataError as `label_column` does."""
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{source}: expected one value each, a 1-D array, got shape {list(array.shape)}.")
    if np.iscomplexobj(array):
        raise DataError(f"{source}: Complex data not supported; give real numbers.")
    if array.dtype.kind in "US" or (array.dtype == object and any(isinstance(v, str) for v in array)):
        if kind != "label":
            raise DataError(f"{source}: text is no number; give numbers, or kind='label'.")
        texts = ["" if v is None else str(v) for v in array]
        classes, codes = np.unique(np.array(texts, dtype=str), return_inverse=True)
        missing = np.array([v is None for v in array])
        used = np.unique(codes[~missing])
        place = np.full(len(classes), np.nan)
        place[used] = np.arange(len(used))
        return Labels(np.where(missing, np.nan, place[codes]), tuple(str(classes[k]) for k in used), "text")
    try:
        numbers = array.astype(np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{source}: Unknown label type: {array.dtype} holds no labels or numbers.") from None
    if np.isinf(numbers).any():
        raise DataError(f"{source}: a value is infinite (inf); correct it.")
    if (np.abs(numbers) > columns.LARGEST).any():
        raise DataError(f"{source}: a value is too large to compute with (beyond {columns.LARGEST:g}); correct it.")
    if kind != "label":
        return Labels(numbers)
    type: Kind = {"b": "boolean", "f": "number"}.get(array.dtype.kind, "integer")  # type: ignore[assignment]
    return _classes(numbers, type, source)


def _classes(values: Floats, type: Kind, where: str) -> Labels:
    seen = ~np.isnan(values)
    distinct, codes = np.unique(values[seen], return_inverse=True)
    if np.any(distinct != np.rint(distinct)):
        raise DataError(
            f"{where}: Unknown label type: numbers like {distinct[distinct != np.rint(distinct)][0]:g} are continuous"
            " and no labels; choose kind='regression'."
        )
    found = np.full(len(values), np.nan)
    found[seen] = codes
    if type == "boolean":
        return Labels(found, tuple("True" if v else "False" for v in distinct), type)
    return Labels(found, tuple(str(int(v)) if type == "integer" else repr(float(v)) for v in distinct), type)


def per_sequence(labels: Labels, offsets: Ints, row: Ints, name: str, source: str, ids: Sequence[Any]) -> Labels:
    """The one value of each sequence from values of rows [N] in the sequences' order, NaN where none is given.

    Raises DataError for a value that changes within a sequence.
    """
    values = labels.values
    given = np.where(np.isnan(values), len(values), np.arange(len(values)))
    first = np.minimum.reduceat(given, offsets[:-1])
    top = np.append(values, np.nan)[first]
    differs = np.flatnonzero(~np.isnan(values) & (values != np.repeat(top, np.diff(offsets))))
    if len(differs):
        at = int(differs[0])
        which = int(np.searchsorted(offsets, at, side="right")) - 1
        raise DataError(
            f"{source}, row {int(row[at])}, column {name!r}: the label changes within sequence {ids[which]!r}; a"
            " sequence has one label (for one a row there is `tag`)."
        )
    return Labels(top, labels.classes, labels.type)
