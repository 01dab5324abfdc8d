"""What a `SequenceInput` learns from training rows: scalers, categories, clock, and which columns had gaps."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError
from carousel.inputs.clock import Grid, useful_calendar
from carousel.inputs.roles import Roles
from carousel.inputs.rows import Sequences
from carousel.inputs.sequence import Channel, SequenceInput

__all__ = ["MANY_VALUES", "fit_input"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MANY_VALUES = 100  # categories beyond which they share hashed embeddings
MOST_BUCKETS = 4096
TAIL = 10.0  # of the spread between outer and inner quantiles; 3.8 in a normal distribution
JITTER = 0.01  # of the median step: rows closer to even than this are even


def fit_input(
    sequences: Sequences,
    training: Ints,
    *,
    calendar: Sequence[str] | None = None,
    variable: str | None = None,
    value: str | None = None,
) -> SequenceInput:
    """The input of a model, fitted on the rows `training` [n] of the sequences, and on the sequences they lie in.

    `calendar` None: the calendar features that vary and of which two periods lie within the longest sequence (what
    varies between sequences only tells these apart). Warns of columns, static ones too, that are never observed or
    constant, by name; they are kept, so that they can be given later as well. Raises DataError where no row is left to
    see.
    """
    if not len(training):
        raise DataError(f"{sequences.source}: there is no row to train on; give more sequences.")
    which = np.unique(sequences.owner[training])
    roles = sequences.roles
    numbers = [_column(sequences, "features", name, training) for name in roles.features]
    static = [_column(sequences, "static", name, which) for name in roles.static]
    found = [(c, sequences.features[training, k]) for k, c in enumerate(numbers)]
    _remark_useless(sequences, found + [(c, sequences.static[which, k]) for k, c in enumerate(static)])
    unit, uneven = _clock(sequences, training)
    if calendar is None:
        spacing = Grid("uneven" if uneven else "even", unit)
        longest = sequences.owner[training] == which[sequences.lengths[which].argmax()]
        calendar = useful_calendar(spacing, sequences.time[training][longest]) if sequences.clock.stamps else ()
    elif calendar and not sequences.clock.stamps:
        raise DataError(f"{sequences.source}: calendar features need timestamps; leave calendar out.")
    return SequenceInput(
        roles=Roles(roles.id, roles.time, roles.target, roles.features, roles.static),
        stamps=sequences.clock.stamps,
        uneven=uneven,
        unit=unit,
        calendar=tuple(calendar),
        columns=tuple(numbers),
        static=tuple(static),
        variable=variable,
        value=value,
        zone=sequences.clock.zone,
    )


def _column(sequences: Sequences, role: str, name: str, rows: Ints) -> Channel:
    values = getattr(sequences, role)[rows, getattr(sequences.roles, role).index(name)]
    seen = values[~np.isnan(values)]
    if name in sequences.categories:
        used = tuple(sequences.categories[name][int(code)] for code in np.unique(seen))
        if len(used) <= MANY_VALUES:
            return Channel(name, "category", values=used)
        buckets = min(MOST_BUCKETS, 2 ** int(np.ceil(np.log2(len(used)))))
        return Channel(name, "hash", buckets=buckets)
    gaps = len(seen) < len(values)
    if not len(seen):
        return Channel(name, "number", gaps=gaps)
    squash = _tail(seen)
    x = seen / (np.abs(seen) + squash) if squash else seen
    low, high = np.quantile(x, (0.005, 0.995)) if len(x) >= 200 else (x.min(), x.max())
    if low < high:
        x = np.clip(x, low, high)
    scale = float(x.std())
    size = max(1.0, float(np.abs(x).max()))
    return Channel(name, "number", float(x.mean()), scale if scale > 1e-12 * size else 1.0, squash, gaps=gaps)


def _tail(seen: Floats) -> float:
    """The median size in a column whose tails are so heavy that scaling would press all else together, else 0."""
    low, inner_low, inner_high, high = np.quantile(seen, (0.005, 0.25, 0.75, 0.995))
    heavy = len(seen) >= 200 and high - low > TAIL * (inner_high - inner_low) > 0
    return float(np.median(np.abs(seen))) if heavy else 0.0


def _clock(sequences: Sequences, training: Ints) -> tuple[float, bool]:
    """The median time from row to row, and whether it varies."""
    inner = np.ones(len(sequences.time), bool)
    inner[sequences.offsets[:-1]] = False
    rows = training[inner[training]]
    gaps = sequences.time[rows] - sequences.time[rows - 1]
    gaps = gaps[gaps > 0] if (gaps > 0).any() else np.ones(1)
    unit = float(np.median(gaps))
    every = sequences.time[rows] - sequences.time[rows - 1]
    return unit, bool(len(every) and (np.abs(every - unit) > JITTER * unit).any())


def _remark_useless(sequences: Sequences, found: list[tuple[Channel, Floats]]) -> None:
    """Name the columns that tell nothing: a sensor that is off in all training rows may be on later."""
    never = [c.name for c, values in found if np.isnan(values).all()]
    constant = [(c.name, bool(np.isnan(values).any())) for c, values in found if _never_changes(values)]
    whole = [name for name, gaps in constant if not gaps]
    gappy = [name for name, gaps in constant if gaps]
    for names, what, use in (
        (never, "no value is observed", "cannot learn from it"),
        (whole, "the value never changes", "cannot learn from it"),
        (gappy, "the value never changes where there is one", "can learn only from where it is missing"),
    ):
        if names:
            plural = "columns" if len(names) > 1 else "column"
            warnings.warn(
                f"{sequences.source}, {plural} {', '.join(map(repr, names))}: {what} in the training rows; the model"
                f" is trained with it nonetheless and {use}.",
                stacklevel=5,
            )


def _never_changes(values: Floats) -> bool:
    seen = values[~np.isnan(values)]
    return len(seen) > 0 and bool(seen.min() == seen.max())
