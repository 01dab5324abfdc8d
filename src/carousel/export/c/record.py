"""Series to test and calibrate with: cut from the user's data, or made up where there are none."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from carousel.inputs.clock import Clock
from carousel.inputs.fitted import FIRST, MISSING, UNSEEN, Column, TableInput
from carousel.inputs.table import Series
from carousel.inputs.windows import Rows, Windows

__all__ = ["Recording", "codes", "numbers", "recording", "synthetic"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DAY = 86400.0
JANUARY = 1704067200.0  # the first of 2024, a Monday


@dataclass(frozen=True)
class Recording:
    """Rows of one series that are pushed one after the other, and the origins after which a forecast is asked for."""

    series: Series
    rows: Rows
    origins: Ints

    @property
    def windows(self) -> Windows:
        return self.rows.gather(self.rows.place(self.origins))


def recording(series: Series, table: TableInput) -> Recording:
    """The end of the first series of `series`: a little more rows than a window reaches over, three origins."""
    wanted = table.reach + table.horizon + 6
    length = int(series.lengths[0])
    keep = np.arange(max(0, length - wanted), length)
    one = _on_the_wall(_cut(series, keep))
    last = len(keep) - 1 - table.horizon
    if table.uneven:  # the steps ahead lie where a forecast expects them
        time = one.time.copy()
        time[last + 1 :] = table.grid.ahead(time[last], np.arange(1, table.horizon + 1))
        one = replace(one, time=time)
    seen = np.flatnonzero(np.isfinite(one.target[: last + 1]).any(1))
    first = int(seen[0]) if len(seen) else 0
    origins = [last] if table.uneven else [max(first, 1), (first + last) // 2, last]
    return Recording(one, Rows(one, table), np.unique(np.array(origins, np.int64)))


def _on_the_wall(series: Series) -> Series:
    """The same times of day without a time zone, and so without changes of the clocks."""
    wall = series.clock.local(series.time, series.grid)
    return replace(series, time=series.time + (wall[0] - series.time[0]), clock=replace(series.clock, zone=None))


def _cut(series: Series, keep: Ints) -> Series:
    one = series.select(np.array([0]))
    return replace(
        one,
        offsets=np.array([0, len(keep)]),
        time=one.time[keep],
        target=one.target[keep],
        features=one.features[keep],
        known=one.known[keep],
        row=one.row[keep],
    )


def synthetic(table: TableInput, seed: int = 0) -> Series:
    """A season, a trend, noise and gaps; covariates around their means, categories of every code."""
    rng = np.random.default_rng(seed)
    n = table.reach + table.horizon + 6
    t = np.arange(n)
    if table.uneven:
        time = np.cumsum(rng.uniform(0.2, 1.8, n)) * table.grid.step
        time = np.rint(time) if table.stamps else time
    else:
        first = JANUARY + 30 * DAY * (table.grid.kind == "month_end") if table.stamps else 0.0
        time = np.asarray(table.grid.ahead(np.full(n, first), t))
    m = min(table.seasons, default=9)
    target = 100 + 10 * np.sin(2 * np.pi * t[:, None] / m + np.arange(table.targets)) + rng.normal(0, 2, (n, 1))
    target[rng.random(target.shape) < 0.1] = np.nan
    target[0] = 100.0

    def columns(some: tuple[Column, ...], rows: int, gaps: float) -> Floats:
        found = np.empty((rows, len(some)))
        for k, column in enumerate(some):
            if column.kind == "number":
                found[:, k] = column.mean + column.scale * rng.normal(size=rows)
            else:
                found[:, k] = rng.integers(0, len(column.values) + 1, rows)  # the last stands for one never seen
        found[rng.random(found.shape) < gaps] = np.nan
        return found

    return Series(
        roles=table.roles,
        ids=[0],
        offsets=np.array([0, n]),
        time=time,
        target=target,
        features=columns(table.features, n, 0.1),
        known=columns(table.known, n, 0.0),
        static=columns(table.static, 1, 0.0),
        categories={c.name: (*c.values, "a value that training never saw") for c in table.embedded},
        grid=table.grid,
        clock=Clock("timestamp" if table.stamps else "number"),
        row=np.arange(1, n + 1),
        source="made-up rows",
        id_dtype=None,
        backend=None,
    )


def numbers(series: Series, columns: tuple[Column, ...], role: str) -> Floats:
    """The number columns of a role, as the caller of the C functions gives them."""
    names = getattr(series.roles, role)
    some = [names.index(c.name) for c in columns if c.kind == "number"]
    return np.asarray(getattr(series, role)[:, some], np.float64)


def codes(series: Series, columns: tuple[Column, ...], role: str) -> Ints:
    """The categorical columns of a role as codes."""
    names, values = getattr(series.roles, role), getattr(series, role)
    found = np.zeros((len(values), 0), np.int64)
    for column in columns:
        if column.kind != "category":
            continue
        own = values[:, names.index(column.name)]
        fitted = {value: FIRST + k for k, value in enumerate(column.values)}
        lookup = np.array([MISSING] + [fitted.get(v, UNSEEN) for v in series.categories[column.name]])
        made = lookup[np.where(np.isfinite(own), own + 1, 0).astype(np.int64)]
        found = np.concatenate([found, made[:, None]], 1)
    return found
