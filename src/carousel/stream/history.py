"""The last rows of one series, and sums over all of it: what a forecast's window is gathered from, row by row.

`inputs.windows.Rows` holds whole tables; this holds as many rows as a window looks at (`reach`), followed by the
`horizon` to come, and gathers with the same code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.inputs.fitted import MISSING, TableInput
from carousel.inputs.windows import NEVER, Rows, Windows

__all__ = ["Covariates", "History"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Covariates(NamedTuple):
    """Of one row: scaled numbers with whether they are observed, calendar included, and codes."""

    features: Floats  # [.]
    feature_codes: Ints
    known: Floats  # [.] with the calendar
    known_codes: Ints


class History(Rows):
    """One series. Row `reach - 1` is the latest; the slot behind the rows to come holds each target's latest value."""

    def __init__(self, config: TableInput) -> None:
        self.config = config
        reach, h, k = config.reach, config.horizon, config.targets
        self.total = reach + h + 1
        known = sum(2 for c in config.known if c.kind == "number") + 2 * len(config.calendar)
        features = sum(2 for c in config.features if c.kind == "number")
        codes = [sum(c.kind == "category" for c in part) for part in (config.features, config.known)]
        n = self.total
        self.near = np.arange(1 - reach, h + 1)
        self.ordinal = np.arange(len(self.near))
        self.owner = np.zeros(n, np.int64)
        self.start = np.array([reach])
        self.time = np.zeros(n)
        self.target = np.full((n, k), np.nan)
        self.age = np.full((n, k), NEVER, np.float32)
        self.elapsed = np.ones(n, np.float32)
        self.numbers = np.zeros((n, features + known + config.uneven), np.float32)
        self.codes = np.full((n, sum(codes)), MISSING, np.int64)
        self.ahead = np.zeros((n, known), np.float32)
        self.ahead_codes = np.full((n, codes[1]), MISSING, np.int64)
        self.running = np.zeros((n, k))
        self.mean = np.zeros((n, k))
        self.latest = np.full((n, k), -1)
        self.rows = 0  # of the series, those that the grid has and nobody gave included
        self.seen_time = np.full(k, np.nan)
        self.seen_row = np.full(k, -1, np.int64)  # row of the series in which a target was observed last
        self.count, self.sum = np.zeros(k), np.zeros(k)
        self.changes, self.change = np.zeros(k), np.zeros(k)
        self.before = np.full((len(config.seasons), k), np.nan)  # one season before the latest value
        self.static = np.zeros((1, sum(2 for c in config.static if c.kind == "number")), np.float32)
        self.static_codes = np.zeros((1, sum(c.kind == "category" for c in config.static)), np.int64)
        self.begin = 0.0  # time of the first row

    ROLLED = ("time", "target", "age", "elapsed", "numbers", "codes", "ahead", "ahead_codes", "mean")
    KEPT = (
        *ROLLED,
        "running",
        "latest",
        "start",
        "seen_time",
        "seen_row",
        "count",
        "sum",
        "changes",
        "change",
        "before",
        "static",
        "static_codes",
    )

    def append(self, time: float, target: Floats, covariates: Covariates) -> None:
        """One more row, target [K] with NaN where not observed."""
        config, at = self.config, self.config.reach - 1
        gap = np.float32((time - self.time[at]) / config.grid.step) if config.uneven and self.rows else np.float32(1)
        for name in self.ROLLED:
            values = getattr(self, name)
            values[:at] = values[1 : at + 1]
        self.start[0] = max(self.start[0] - 1, 0)
        self.begin = self.begin if self.rows else time
        self.time[at], self.target[at], self.elapsed[at] = time, target, gap
        uneven = [np.log1p(gap)] if config.uneven else []
        self.numbers[at] = np.concatenate([covariates.features, covariates.known.astype(np.float32), uneven])
        self.codes[at] = np.concatenate([covariates.feature_codes, covariates.known_codes])
        self.ahead[at], self.ahead_codes[at] = covariates.known, covariates.known_codes
        self._remember(time, target)
        self.mean[at] = self.sum / np.maximum(self.count, 1)
        self.rows += 1
        steps = (time - self.seen_time) / config.grid.step if config.uneven else self.rows - 1.0 - self.seen_row
        age = np.log1p(np.maximum(np.nan_to_num(steps), 0)) / 3
        self.age[at] = np.where(self.seen_row >= 0, age, NEVER)

    def _remember(self, time: float, target: Floats) -> None:
        slot, at = self.total - 1, self.config.reach - 1
        seen = np.isfinite(target)
        again = seen & (self.seen_row >= 0)
        self.change = self.change + np.where(again, np.abs(target - self.target[slot]), 0.0)
        self.changes = self.changes + again
        self.sum, self.count = self.sum + np.where(seen, target, 0.0), self.count + seen
        for n, m in enumerate(self.config.seasons):
            earlier = self.target[at - m] if at - m >= self.start[0] else np.full(len(target), np.nan)
            self.before[n] = np.where(seen, earlier, self.before[n])
        self.target[slot] = np.where(seen, target, self.target[slot])
        self.running[slot] = self.change / np.maximum(self.changes, 1)
        self.seen_row = np.where(seen, self.rows, self.seen_row)
        self.seen_time = np.where(seen, time, self.seen_time)
        self.latest[at] = np.where(self.seen_row >= 0, slot, -1)

    def _before(self, at: Ints, m: int) -> tuple[Floats, NDArray[np.bool_]]:
        value = self.before[self.config.seasons.index(m)][None]
        return value, np.isfinite(value)

    def window(self, time: Floats, known: Floats, codes: Ints) -> Windows:
        """From the latest row; time [H], known [H, .] and codes [H, .] of the steps ahead."""
        config = self.config
        ahead = slice(config.reach, config.reach + config.horizon)
        self.time[ahead], self.ahead[ahead], self.ahead_codes[ahead] = time, known, codes
        return self.gather(np.array([config.reach - 1]))

    def save(self) -> list[tuple[str, NDArray[Any]]]:
        """All that later windows depend on."""
        return [(name, np.asarray(getattr(self, name))) for name in self.KEPT] + [
            ("rows", np.array(self.rows, np.int64)),
            ("begin", np.array(self.begin)),
        ]

    def load(self, arrays: dict[str, NDArray[Any]]) -> bool:
        """What `save` gave; False where it does not fit this model."""
        for name, now in self.save():
            found = arrays.get(name)
            if found is None or found.shape != now.shape or found.dtype != now.dtype:
                return False
        for name in self.KEPT:
            setattr(self, name, arrays[name].copy())
        self.rows, self.begin = int(arrays["rows"]), float(arrays["begin"])
        return self.rows >= 0
