"""Whole models as streams: a row of a tagger, a detector and a forecaster, alone and many together."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from carousel.bench import machine
from carousel.bench.layer import Grid
from carousel.bench.report import Report
from carousel.config import ModelConfig, StackConfig
from carousel.heads.detect import DetectHead, View
from carousel.heads.forecast import ForecastHead
from carousel.inputs.clock import Grid as Clock
from carousel.inputs.fitted import TableInput
from carousel.inputs.roles import Roles
from carousel.stream import Stream, Streams
from carousel.stream.examples import model_config, model_file

__all__ = ["models"]

COLUMNS, TOGETHER = 8, 96  # of a row; streams that are pushed at once
CONTEXT, HORIZON, SEASON = 168, 48, 24


def models(grid: Grid) -> Report:
    """A row of each model with one layer, by `Stream.push` and by `Streams.push` of many."""
    columns = ["H", "model", "Stream.push us", f"{TOGETHER} Streams, us a row"]
    report = Report("whole models, one row", columns, machine.describe())
    with tempfile.TemporaryDirectory() as folder:
        for size in (size for size in grid.hidden if size <= 64):
            for config in (model_config(COLUMNS, size), _detector(size), _forecaster(size)):
                path = model_file(config, Path(folder) / f"{config.task}.safetensors")
                alone = _median(_alone(path, config), grid.seconds)
                together = _median(_together(path, config), grid.seconds) / TOGETHER
                report.rows.append([size, config.task, alone / 1000, together / 1000])
    report.notes.append("CPU time of the calling thread, medians; rows are arrays, of forecasters mappings with a time")
    report.notes.append(
        f"forecast: {HORIZON} steps from {CONTEXT} rows, season {SEASON}; detect: three views of 8 columns"
    )
    return report


def _detector(size: int) -> ModelConfig:
    seen = model_config(COLUMNS, size).input
    zero, one = (0.0,) * COLUMNS, (1.0,) * COLUMNS
    near = tuple(tuple(1.0 if i == j else 0.3 for j in range(COLUMNS)) for i in range(COLUMNS))
    low = (-1.0,) * COLUMNS
    views = (
        View("error", 1, zero, one, near, low, one, 3.0, 3.0),
        View("error", 20, zero, one, near, low, one, 3.0, 3.0),
        View("value", 20, zero, one, near, low, one, 3.0, 3.0),
    )
    head = DetectHead("forecast", tuple(c.name for c in seen.columns), floor=(0.05,) * COLUMNS, views=views)
    return ModelConfig("detect", seen, StackConfig(size), head)


def _forecaster(size: int) -> ModelConfig:
    roles = Roles(None, "t", ("y",))
    table = TableInput(roles, Clock("even", 1.0), False, CONTEXT, HORIZON, (SEASON,), "mean", (), (), (), ())
    return ModelConfig("forecast", table, StackConfig(size), ForecastHead())


def _alone(path: Path, config: ModelConfig) -> Callable[[], object]:
    stream, row = Stream(path), _rows(config)
    for _ in range(2 * CONTEXT):
        stream.push(row(1)[0])
    return lambda: stream.push(row(1)[0])


def _together(path: Path, config: ModelConfig) -> Callable[[], object]:
    streams, row, ids = Streams(path), _rows(config), np.arange(TOGETHER)
    for _ in range(CONTEXT if config.task == "forecast" else 2):
        streams.push(ids, row(TOGETHER), open_new=True)
    return lambda: streams.push(ids, row(TOGETHER))


def _rows(config: ModelConfig) -> Callable[[int], Any]:
    """What the next call pushes: n rows of the same time."""
    values = np.random.default_rng(0).normal(size=(TOGETHER, COLUMNS))
    if config.task != "forecast":
        return lambda n: values[:n]
    now = [0]

    def rows(n: int) -> list[dict[str, float]]:
        now[0] += 1
        return [{"t": now[0], "y": float(values[k, now[0] % COLUMNS])} for k in range(n)]

    return rows


def _median(run: Callable[[], object], seconds: float) -> float:
    """Nanoseconds of a call."""
    times: list[int] = []
    started = time.perf_counter()
    run()
    while len(times) < 5 or time.perf_counter() - started < seconds:
        before = time.thread_time_ns()
        run()
        times.append(time.thread_time_ns() - before)
    return statistics.median(times)
