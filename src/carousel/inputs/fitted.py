"""The fitted table input: which rows and columns a model sees, with scalers and categories of its training rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError
from carousel.inputs.clock import Grid
from carousel.inputs.roles import Roles

if TYPE_CHECKING:  # reading frames takes narwhals, which predicting from arrays does without
    from carousel.inputs.table import Series

__all__ = ["FIRST", "MISSING", "UNSEEN", "Column", "TableInput", "fit_columns"]

Ints = NDArray[np.int64]

MISSING, UNSEEN, FIRST = 0, 1, 2  # codes of categories; those seen in training follow
PER_TARGET = 4  # channels of a step: value, observed, age, difference; and one for each season
PER_LAG = 4  # channels of a step ahead and season: see `windows.Rows`


@dataclass(frozen=True)
class Column:
    """A covariate as fitted: a number is (x - mean) / scale and whether it is observed, a category is embedded."""

    name: str
    kind: Literal["number", "category"]
    mean: float = 0.0
    scale: float = 1.0
    values: tuple[str, ...] = ()

    @property
    def codes(self) -> int:
        return FIRST + len(self.values)

    @property
    def width(self) -> int:
        """Channels that the column takes: an embedding grows slowly with the number of categories."""
        return 2 if self.kind == "number" else min(16, 1 + round(1.6 * len(self.values) ** 0.5))


@dataclass(frozen=True)
class TableInput:
    """Which rows and columns a model sees, and the scalers and categories fitted on its training rows."""

    roles: Roles
    grid: Grid
    stamps: bool
    context: int
    horizon: int
    seasons: tuple[int, ...]
    level: Literal["last", "mean"]
    calendar: tuple[str, ...]
    features: tuple[Column, ...]
    known: tuple[Column, ...]
    static: tuple[Column, ...]

    def __post_init__(self) -> None:
        for name in ("context", "horizon", *(f"seasons[{k}]" for k in range(len(self.seasons)))):
            value = self.seasons[int(name[8:-1])] if name.startswith("seasons") else getattr(self, name)
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    @property
    def targets(self) -> int:
        return len(self.roles.target)

    @property
    def embedded(self) -> tuple[Column, ...]:
        """The categorical columns in the order of their embeddings."""
        return tuple(c for c in self.features + self.known + self.static if c.kind == "category")

    @property
    def uneven(self) -> bool:
        return self.grid.kind == "uneven"

    @property
    def reach(self) -> int:
        """Rows up to the origin that a window looks at."""
        return self.context + max(self.seasons, default=0)

    @property
    def bases(self) -> int:
        """Naive forecasts that the head weighs: last value, level, and two of each season."""
        return 2 + 2 * len(self.seasons)

    @property
    def step_size(self) -> int:
        """Channels of one step of the stack's input, embeddings included."""
        own = self.targets * (PER_TARGET + len(self.seasons)) + 2 * len(self.calendar) + self.uneven
        return own + sum(c.width for c in self.features + self.known)

    @property
    def ahead_size(self) -> int:
        """Channels of one step ahead, embeddings included."""
        own = self.targets * PER_LAG * len(self.seasons) + 2 * len(self.calendar) + self.uneven
        return own + sum(c.width for c in self.known)

    @property
    def static_size(self) -> int:
        """Channels of one series: its level and spread, and the static columns."""
        return 2 * self.targets + sum(c.width for c in self.static)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The embeddings, as in the input module's `state_dict`."""
        return {f"embed.{k}.weight": (c.codes, c.width) for k, c in enumerate(self.embedded)}


def fit_columns(series: Series, role: Literal["features", "known", "static"], training: Ints) -> tuple[Column, ...]:
    """Means, scales and categories of one role's columns over the `training` rows (series, for static ones).

    Raises DataError for a column that is never observed there.
    """
    found = []
    for k, name in enumerate(getattr(series.roles, role)):
        values = getattr(series, role)[training, k]
        values = values[np.isfinite(values)]
        if not len(values):
            raise DataError(
                f"{series.source}, column {name!r}: no value is observed in the training part; leave the column out."
            )
        if name in series.categories:
            seen = tuple(series.categories[name][int(code)] for code in np.unique(values))
            found.append(Column(name, "category", values=seen))
        else:
            scale = float(values.std())
            found.append(Column(name, "number", float(values.mean()), scale if scale > 0 else 1.0))
    return tuple(found)
