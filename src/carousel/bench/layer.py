"""`carousel bench layer`: one layer over a grid of sizes, against torch.nn.LSTM and the inference engines."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from carousel.bench import machine, peers
from carousel.bench.report import Report
from carousel.bench.timing import Contender, alternate, geometric_mean
from carousel.lstm import LSTM

__all__ = ["BATCH", "HIDDEN", "Grid", "inference", "training"]

HIDDEN, BATCH, STEPS = (32, 64, 128, 256, 512), (1, 8, 32, 64), 100


def flops(hidden: int, batch: int, steps: int, training: bool) -> int:
    """Of the matrix products with H = I; backward has two for each of forward's."""
    return 2 * steps * batch * 4 * hidden * (hidden + hidden) * (3 if training else 1)


def pair(hidden: int, dtype: torch.dtype) -> tuple[nn.LSTM, LSTM]:
    """torch's layer and ours with the same random weights."""
    torch.manual_seed(hidden)
    theirs, ours = nn.LSTM(hidden, hidden), LSTM(hidden, hidden, backend="native")
    ours.load_state_dict(theirs.state_dict())
    return theirs.to(dtype), ours.to(dtype)


@dataclass(frozen=True)
class Grid:
    """What to measure: every H = I with every B; `seconds` for each contender of a cell."""

    hidden: Sequence[int] = HIDDEN
    batch: Sequence[int] = BATCH
    dtype: torch.dtype = torch.float32
    seconds: float = 1.0

    @property
    def precision(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def inference(grid: Grid) -> Report:
    """Forward only; the ratios say how many times faster ours is than each peer."""
    engines = [n for n in peers.INFERENCE_PEERS if peers.installed(n)] if grid.dtype == torch.float32 else []
    tolerance = 1e-4 if grid.dtype == torch.float32 else 0.05

    def contenders(size: int, rows: int) -> Iterator[list[Contender]]:
        theirs, ours = pair(size, grid.dtype)
        x = torch.randn(STEPS, rows, size).to(grid.dtype)
        own = peers.inference("carousel", ours, x, tolerance)
        yield [peers.inference("torch.nn.LSTM", theirs, x, tolerance), own]
        for name in engines:  # one at a time: idle threads of the one would slow down the others
            yield [peers.INFERENCE_PEERS[name](theirs, x), own]

    return _measure(f"inference {grid.precision}, T = {STEPS}", grid, contenders, engines, training=False)


def training(grid: Grid) -> Report:
    """Forward and backward, gradients of input and weights."""
    tolerance = 1e-3 if grid.dtype == torch.float32 else 0.1

    def contenders(size: int, rows: int) -> Iterator[list[Contender]]:
        theirs, ours = pair(size, grid.dtype)
        x = torch.randn(STEPS, rows, size).to(grid.dtype).requires_grad_()
        seed = torch.randn(STEPS, rows, size).to(grid.dtype)
        yield [
            peers.training("torch.nn.LSTM", theirs, x, seed, tolerance),
            peers.training("carousel", ours, x, seed, tolerance),
        ]

    return _measure(f"training {grid.precision}, T = {STEPS}", grid, contenders, [], training=True)


def _measure(
    title: str,
    grid: Grid,
    contenders: Callable[[int, int], Iterator[list[Contender]]],
    engines: Sequence[str],
    *,
    training: bool,
) -> Report:
    roof = machine.gemm_rate(grid.dtype)
    others = ["torch.nn.LSTM", *engines]
    columns = [
        "H = I",
        "B",
        "carousel ms",
        *(f"{n} ms" for n in others),
        *(f"x {n}" for n in others),
        "% of GEMM",
    ]
    report = Report(title, columns, machine.describe())
    ratios: dict[str, list[float]] = {name: [] for name in others}
    shares: list[float] = []
    for size, rows in itertools.product(grid.hidden, grid.batch):
        milliseconds: list[float] = []
        for name, couple in zip(others, contenders(size, rows), strict=True):
            times = alternate(couple, grid.seconds)
            own, their = times["carousel"].median, times[name].median
            ratios[name].append(their / own)
            milliseconds += [1e3 * their] if milliseconds else [1e3 * own, 1e3 * their]
        own = milliseconds[0] / 1e3
        share = 100 * flops(size, rows, STEPS, training) / own / roof
        report.rows.append([size, rows, *milliseconds, *(ratios[name][-1] for name in others), share])
        if size >= 256 and rows >= 32:
            shares.append(share)
    for name, found in ratios.items():
        report.summary[f"geometric mean against {name}"] = geometric_mean(found)
        report.summary[f"worst against {name}"] = min(found)
    if training and shares:
        report.summary["least % of GEMM where H >= 256 and B >= 32"] = min(shares)
    report.notes.append(f"GEMM rate measured here ({grid.precision}, 1024 x 1024): {roof / 1e9:.0f} GFLOP/s")
    return report
