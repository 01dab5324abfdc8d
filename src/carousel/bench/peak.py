"""`carousel bench peak`: the memory of a training step above weights and input, each in a process of its own."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from carousel.bench import machine
from carousel.bench.layer import Grid
from carousel.bench.report import Report

__all__ = ["compare", "long_sequence"]

STEPS = 100


def compare(grid: Grid) -> Report:
    """MiB above what stood before the step; the ratio is ours to torch.nn.LSTM's. Shapes of less than 8 MiB say
    more about allocators than about layers and are left out."""
    report = Report(
        f"peak memory of a training step, {grid.precision}, T = {STEPS}",
        ["H = I", "B", "carousel MiB", "torch.nn.LSTM MiB", "ratio"],
        machine.describe(),
    )
    ratios = []
    for size, rows in itertools.product(grid.hidden, grid.batch):
        if STEPS * rows * size * 4 * 8 >= 2**23:
            ours, theirs = (measure(name, size, STEPS, rows, 0, grid.precision) for name in ("carousel", "torch"))
            ratios.append(ours / theirs)
            report.rows.append([size, rows, ours, theirs, ratios[-1]])
    report.summary = {"largest ratio": max(ratios)}
    return report


def long_sequence(grid: Grid, steps: int = 100_000, hidden: int = 128, every: Sequence[int] = (0, 300)) -> Report:
    """One sequence: what `recompute` saves."""
    report = Report(
        f"peak memory of a training step over one sequence of {steps:,} steps, H = I = {hidden}",
        ["recompute", "MiB above the input"],
        machine.describe(),
    )
    report.rows = [[k, measure("carousel", hidden, steps, 1, k, grid.precision)] for k in every]
    return report


def measure(which: str, hidden: int, steps: int, batch: int, recompute: int, dtype: str) -> float:
    """MiB that a step adds to the process, measured from outside it."""
    command = [sys.executable, "-m", "carousel.bench.peak", which, dtype]
    command += [str(number) for number in (hidden, steps, batch, recompute)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def _step(which: str, dtype: str, hidden: int, steps: int, batch: int, recompute: int) -> float:
    import torch

    from carousel.lstm import LSTM

    torch.set_default_dtype(getattr(torch, dtype))
    small = torch.randn(2, batch, hidden)
    own = LSTM(hidden, hidden, recompute=recompute, backend="native")
    layer = own if which == "carousel" else torch.nn.LSTM(hidden, hidden)
    layer(small)[0].sum().backward()  # what the first call loads is not what a step needs
    x = torch.randn(steps, batch, hidden, requires_grad=True)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    layer(x)[0].sum().backward()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    """A figure of this process in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    print(json.dumps(_step(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))))  # noqa: T201
