"""Forecasters as subjects: the windows that end in some rows of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from carousel.errors import DataError
from carousel.estimators import Forecaster
from carousel.explain.subject import MOST_SEQUENCES, Channel, Pace, Subject, chosen
from carousel.forecast_task import ForecastTask
from carousel.heads.forecast_net import pinball
from carousel.inputs.fitted import TableInput
from carousel.inputs.origins import long_enough, split_by_time
from carousel.inputs.table import Series, read_table
from carousel.inputs.windows import Rows
from carousel.model import Batch, to_batch
from carousel.train import Task, TrainConfig

__all__ = ["ForecastSubject", "forecast_subject", "table_channels"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(kw_only=True)
class ForecastSubject(Subject):
    """The answer is the median forecast, mean over the steps ahead and targets, in the windows' scaled units."""

    estimator: Forecaster
    series: Series
    batch: Batch
    weights: Tensor  # [n, K]

    def run(self, which: Tensor, net: nn.Module | None = None) -> Tensor:
        made = (net or self.net)(self._select(which))
        found: Tensor = made[..., self.estimator.config_.head.median].mean((1, 2))
        return found

    def loss(self, which: Tensor, net: nn.Module) -> Tensor:
        batch = self._select(which)
        quantiles = torch.tensor(self.estimator.config_.head.quantiles)
        return pinball(net(batch), batch.truth, torch.ones_like(batch.truth[:, 0]), quantiles) * len(which)

    def training(self, settings: TrainConfig) -> Task | str:
        config = self.estimator.config_
        table = config.input
        try:
            series = long_enough(self.series, table.horizon, holdout=False, skip_short=True)
            split = split_by_time(series, table.horizon, table.context, 0.0)
        except DataError:
            return "no series is long enough to train on"
        return ForecastTask(config, Rows(series, table), split, settings)

    def _select(self, which: Tensor) -> Batch:
        return Batch(*(part[which] for part in self.batch))


def forecast_subject(
    estimator: Forecaster, frame: Any, *, source: str, wanted: tuple[str, ...] = (), member: int = 0
) -> ForecastSubject:
    """Windows spread evenly over the rows that have what comes after them; DataError where there are none."""
    config = estimator.config_
    table: TableInput = config.input
    series = read_table(frame, table.roles, source=source, grid=table.grid, stamps=table.stamps)
    which, notes = chosen(series.ids, wanted, source, len(series.ids))
    series = series.select(which) if len(which) < len(series.ids) else series
    rows = Rows(series, table)
    origins = _origins(series, table)
    if not len(origins):
        raise DataError(
            f"{source}: no series has rows to look back on ({table.context}) and an observed target within"
            f" {table.horizon} rows after them; give longer series."
        )
    if len(origins) > MOST_SEQUENCES:
        notes.append(
            f"{MOST_SEQUENCES} of {len(origins):,} possible windows of {table.context} rows were looked at, evenly"
            " among all."
        )
        origins = origins[np.linspace(0, len(origins) - 1, MOST_SEQUENCES).astype(np.int64)]
    at = rows.place(origins)
    windows = rows.gather(at)
    c = table.context
    if (origins - series.offsets[np.searchsorted(series.offsets, origins, side="right") - 1] < c - 1).any():
        notes.append(
            f"No series has the {c} rows that a window looks back on: rows before its beginning are counted as steps"
            " without an observation."
        )
    index = at[:, None] + np.arange(1 - c, 1)
    inside = index >= rows.start[rows.owner[at]][:, None]
    owner = rows.owner[at]
    flat = index.clip(0).reshape(-1)
    signals = {
        name: np.where(inside.reshape(-1), rows.target[flat, k], np.nan) for k, name in enumerate(table.roles.target)
    }
    for role in ("features", "known"):
        for k, column in enumerate(getattr(table, role)):
            if column.kind == "number":
                place = np.searchsorted(rows.start, flat, side="right") - 1
                row = np.clip(flat - rows.start[place], 0, series.lengths[place] - 1) + series.offsets[place]
                signals[column.name] = np.where(inside.reshape(-1), getattr(series, role)[row, k], np.nan)
    describe = series.clock.describe
    return ForecastSubject(
        title=source,
        task="forecast",
        net=estimator.model_[member],
        lengths=np.full(len(at), c, np.int64),
        names=[
            (f"{series.ids[b]}, " if table.roles.id else "") + f"until {describe(float(rows.time[a]))}"
            for a, b in zip(at, owner, strict=True)
        ],
        channels=table_channels(table),
        answer="the median forecast, mean over the steps ahead (in the window's spreads)",
        pace=Pace(_pace(rows), series.clock.stamps, str(table.roles.time)) if series.clock.kind != "row" else Pace(),
        clock=series.clock,
        time=rows.time[flat],
        signals=signals,
        seasons=table.seasons,
        notes=notes,
        member=member,
        own_steps=_own_steps(estimator, member),
        aside="the linear path, the last values and seasons, and what is known ahead",
        estimator=estimator,
        series=series,
        batch=to_batch(windows),
        weights=torch.ones(len(at), table.targets),
    )


def _origins(series: Series, table: TableInput) -> Ints:
    """Rows with a whole context behind them (or, where no series has one, with any) and a target to come."""
    n = int(series.offsets[-1])
    position = np.arange(n) - np.repeat(series.offsets[:-1], series.lengths)
    counted = np.concatenate([[0], np.cumsum(np.isfinite(series.target).any(1))])
    end = np.repeat(series.offsets[1:], series.lengths)
    after = counted[np.minimum(np.arange(n) + 1 + table.horizon, end)] - counted[np.arange(n) + 1]
    before = counted[np.arange(n) + 1] - counted[np.maximum(np.arange(n) + 1 - table.context, 0)]
    able = (after > 0) & (before > 0)
    for least in (table.reach - 1, table.context - 1, 1):
        found = np.flatnonzero(able & (position >= least))
        if len(found):
            return found
    return np.zeros(0, np.int64)


def _pace(rows: Rows) -> float:
    """The median time from row to row."""
    gaps = np.diff(rows.time)[np.diff(rows.owner) == 0]
    return float(np.median(gaps)) if len(gaps) else 1.0


def _own_steps(estimator: Any, member: int) -> int:
    steps = estimator.provenance_.get("steps") or [0]
    return int(steps[min(member, len(steps) - 1)])


def table_channels(table: TableInput) -> list[Channel]:
    """Of a step as the stack reads it, in the order of `inputs.windows.Rows` and the embeddings after it."""
    targets = table.roles.target
    kinds = ["", "observed", "age", "change", *(f"{m} before" for m in table.seasons)]
    found = [Channel(f"{name} {kind}".strip(), name) for kind in kinds for name in targets]
    for role in (table.features, table.known):
        for column in role:
            if column.kind == "number":
                found += [Channel(column.name, column.name), Channel(f"{column.name} observed", column.name)]
    found += [
        Channel(f"{name} {wave}".replace("_", " "), "calendar")
        for name in table.calendar
        for wave in ("sine", "cosine")
    ]
    found += [Channel("time since the previous row", "time")] if table.uneven else []
    for column in table.features + table.known:
        if column.kind == "category":
            found += [Channel(f"{column.name} [{k}]", column.name) for k in range(column.width)]
    return found
