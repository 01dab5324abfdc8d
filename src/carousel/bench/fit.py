"""`carousel bench fit`: what training costs: milliseconds a step, their parts, and a whole process from table to file.

The setting is that in which others were measured: M4 hourly (or a set generated in its shape), hidden 64, one layer,
32 windows a step, context 168, horizon 48.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from carousel.bench import machine
from carousel.bench.accuracy_forecast import m4, mase
from carousel.bench.layer import Grid
from carousel.bench.report import Report
from carousel.errors import CarouselError
from carousel.estimators import Forecaster
from carousel.forecast_task import TOGETHER, ForecastTask
from carousel.train import Event, TrainConfig

if TYPE_CHECKING:
    import polars as pl

__all__ = ["compare"]

HORIZON, CONTEXT, BATCH, HIDDEN, SEASON = 48, 168, 32, 64, 24
MEASURED, WHOLE, LEARNT = 200, 200, 1000  # steps: timed one by one, of a whole process, before MASE is taken
PROCESSES = 3  # of which the fastest counts
# Measured by ourselves on a 2-core machine with AVX-512, idle, in the same setting; steps of 32 windows.
OTHERS: dict[str, tuple[float, float, float]] = {
    "neuralforecast LSTM": (28.7, 10.1, 1.52),
    "darts BlockRNNModel": (8.1, 5.9, 1.83),
}


@dataclass
class _Clock:
    """Seconds of each part of each step, by wrapping what the loop calls."""

    data: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    look: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    then: tuple[float, float] = (0.0, 0.0)

    def __call__(self, event: Event) -> None:
        now = time.perf_counter(), time.process_time()
        if self.then[0]:
            self.steps.append(now[0] - self.then[0])
            self.processor.append(now[1] - self.then[1])
        self.then = now

    @contextmanager
    def watching(self) -> Iterator[None]:
        own = {name: getattr(ForecastTask, name) for name in ("batch", "loss", "metric")}
        lists = {"batch": self.data, "loss": self.loss, "metric": self.look}

        def timed(name: str) -> Callable[..., Any]:
            def run(*given: Any) -> Any:
                started, losses = time.perf_counter(), len(self.loss)
                found = own[name](*given)
                if name == "metric":
                    del self.loss[losses:]  # those of held-out windows
                lists[name].append(time.perf_counter() - started)
                return found

            return run

        for name in own:
            setattr(ForecastTask, name, timed(name))
        try:
            yield
        finally:
            for name, method in own.items():
                setattr(ForecastTask, name, method)


def compare(grid: Grid) -> Report:
    """Milliseconds a step and of its parts, seconds of a whole process, and MASE after 1,000 steps where M4 is there.

    Raises CarouselError for sizes that were named, since the setting is fixed so that figures can be compared.
    """
    if grid != Grid(seconds=grid.seconds):
        raise CarouselError("bench fit has one setting, that of the figures beside it; leave --hidden, --batch out.")
    frame, truth = _table()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    found = Report(
        title=f"fit forecast: hidden {HIDDEN}, 1 layer, {BATCH} windows a step, context {CONTEXT}, horizon {HORIZON}",
        columns=(
            "",
            "ms a step",
            "processor ms",
            "of it data",
            f"process, {WHOLE} steps, s",
            "processor s",
            f"MASE after {LEARNT} steps",
        ),
        machine=machine.describe(),
    )
    steps, busy, parts, looks = _steps(frame)
    process, whole = min(_process(frame, refit=False) for _ in range(PROCESSES))
    twice, _ = _process(frame, refit=True)
    learnt = None if truth is None else _learnt(frame, truth)
    share = f"{parts['data'] / steps:.0%}"
    found.rows.append(["Carousel", steps, busy, share, process, whole, learnt])
    for who, (step, seconds, error) in OTHERS.items():
        found.rows.append([f"{who}, as measured before", step, None, None, seconds, None, error])
    layer = _layer()
    found.summary = {f"{who.split()[0]} / Carousel, ms a step": OTHERS[who][0] / steps for who in OTHERS}
    found.summary |= {f"{who.split()[0]} / Carousel, process": OTHERS[who][1] / process for who in OTHERS}
    found.summary["Carousel's whole step / forward and backward of torch.nn.LSTM alone"] = steps / layer
    told = ", ".join(f"{name} {value:.2f}" for name, value in parts.items())
    found.notes = [
        f"parts of a step, ms: {told}; torch.nn.LSTM of this shape alone takes {layer:.2f} ms here and now.",
        f"{load:.1f} processes wanted the {os.cpu_count()} cores when this began.",
        f"a look at the held-out windows takes {looks:.0f} ms, every {TrainConfig().evaluate_every} steps.",
        f"with refit, the default, {WHOLE} steps and then as many as were best on all rows take {twice:.1f} s.",
        "the others' figures were measured on a machine of this kind at rest, not now: where this one is busy, the"
        " ratio to torch.nn.LSTM says more."
        + ("" if truth is not None else " The set is generated in M4's shape: CAROUSEL_DATA does not lead to m4/."),
    ]
    return found


def _table() -> tuple[pl.DataFrame, np.ndarray | None]:
    try:
        frame, truth = m4("hourly")
    except CarouselError:
        import polars as pl

        rng = np.random.default_rng(0)
        parts = []
        for k in range(414):
            t = np.arange(int(rng.integers(700, 961)))
            wave = np.sin(2 * np.pi * t / 24 + rng.random()) + 0.3 * np.sin(2 * np.pi * t / 168)
            y = 10 ** rng.uniform(1, 4) * (2 + wave + 0.1 * rng.normal(size=len(t)))
            parts.append(pl.DataFrame({"id": f"H{k}", "t": t, "y": y}))
        return pl.concat(parts), None
    return frame, truth


def _config(steps: int) -> TrainConfig:
    return TrainConfig(hidden_size=HIDDEN, batch_size=BATCH, steps=steps, least_steps=steps, patience=0, refit=False)


def _forecaster(steps: int) -> Forecaster:
    return Forecaster(HORIZON, id="id", time="t", target="y", context=CONTEXT, config=_config(steps))


def _steps(frame: pl.DataFrame) -> tuple[float, float, dict[str, float], float]:
    """Medians in milliseconds: a step, the processor's time of it, its parts, and a look at the held-out windows.

    Data are made ready for several steps at once, so these are counted together.
    """
    clock = _Clock()
    with clock.watching():
        _forecaster(MEASURED).fit(frame, progress=clock)
    every, together = TrainConfig().evaluate_every, max(1, TOGETHER // BATCH)

    def usual(times: list[float], first: int) -> float:
        """Of a step; `times[0]` is that of the step `first`. Those with a look at held-out windows do not count."""
        starts = range(10, len(times) - together + 1, together)
        calm = [k for k in starts if all((first + k + j) % every for j in range(together))]
        return 1e3 * statistics.median(statistics.mean(times[k : k + together]) for k in calm)

    whole, busy, data = usual(clock.steps, 2), usual(clock.processor, 2), usual(clock.data, 1)
    loss = 1e3 * statistics.median(clock.loss[10:])
    parts = {"data": data, "forward and loss": loss, "backward and update": whole - data - loss}
    return whole, busy, parts, 1e3 * statistics.median(clock.look)


def _process(frame: pl.DataFrame, *, refit: bool) -> tuple[float, float]:
    """Seconds, and those of the processor, of `carousel fit forecast` from CSV to model file, the start included."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        frame.write_csv(place / "data.csv")
        settings = {"steps": WHOLE, "least_steps": WHOLE, "patience": 0, "batch_size": BATCH, "hidden_size": HIDDEN}
        command = f"fit forecast {place / 'data.csv'} --out {place / 'm.safetensors'} --id id --time t --target y"
        command += f" --horizon {HORIZON} --context {CONTEXT} --set refit={str(refit).lower()}"
        command += "".join(f" --set {name}={value}" for name, value in settings.items())
        code = "import sys; from carousel.cli import main; sys.exit(main())"
        before, started = os.times(), time.perf_counter()
        subprocess.run([sys.executable, "-c", code, *command.split()], check=True, capture_output=True)
        seconds, after = time.perf_counter() - started, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, used


def _learnt(frame: pl.DataFrame, truth: np.ndarray) -> float:
    made = _forecaster(LEARNT).fit(frame).predict(frame)
    return mase(made["forecast"].to_numpy().reshape(truth.shape), truth, frame, SEASON)


def _layer() -> float:
    """The fastest of torch's own layer forward and backward on one batch of this shape, ms."""
    layer, x = nn.LSTM(6, HIDDEN), torch.randn(CONTEXT, BATCH, 6)
    times = []
    for _ in range(40):
        started = time.perf_counter()
        layer(x)[0][-1].sum().backward()
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times)
