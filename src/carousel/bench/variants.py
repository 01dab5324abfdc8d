"""`carousel bench variants`: what each variant costs over the plain cell, and gains over the same cell by hand."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from carousel.bench import machine, peers
from carousel.bench.handwritten import Handwritten
from carousel.bench.layer import STEPS, Grid
from carousel.bench.report import Cell, Report
from carousel.bench.timing import Contender, alternate, geometric_mean
from carousel.lstm import LSTM

__all__ = ["VARIANTS", "compare"]

VARIANTS: dict[str, dict[str, Any]] = {
    "peephole": {"peephole": True},
    "coupled": {"coupled": True},
    "zoneout": {"zoneout_c": 0.1, "zoneout_h": 0.1},
    "recurrent dropout": {"recurrent_dropout": 0.2},
    "weight drop": {"weight_drop": 0.2},
    "decay": {"decay": True},
    "cell clip": {"cell_clip": 3.0},
    "layer norm": {"layer_norm": True},
    "projection": {"proj_size": -2},  # half of H
}


class _Timed(nn.Module):
    """Hands the elapsed times on with the input, so that every contender takes one argument."""

    def __init__(self, layer: nn.Module, elapsed: Tensor | None) -> None:
        super().__init__()
        self.layer, self.elapsed = layer, elapsed

    def forward(self, x: Tensor) -> Any:
        return self.layer(x) if self.elapsed is None else self.layer(x, elapsed=self.elapsed)


def compare(grid: Grid, *, compiled: bool = False) -> Report:
    """Training, T = 100; random regularisers are compared in evaluation mode and timed in training mode."""
    columns = ["variant", "H = I", "B", "carousel ms", "/ own plain", "by hand ms", "x by hand"]
    columns += ["torch.compile ms", "x torch.compile", "compiling s"] if compiled else []
    report = Report(f"variants, training {grid.precision}, T = {STEPS}", columns, machine.describe())
    costs: dict[str, list[float]] = {name: [] for name in VARIANTS}
    gains: dict[str, list[float]] = {"by hand": [], "torch.compile": []}
    for name, fields in VARIANTS.items():
        for size in grid.hidden:
            for batch in grid.batch:
                row = _variant(name, fields, size, batch, grid, compiled, costs, gains)
                report.rows.append(row)
    for name, found in costs.items():
        report.summary[f"{name} / own plain"] = geometric_mean(found)
    for name, found in gains.items():
        if found:
            report.summary[f"geometric mean against the cell {name}"] = geometric_mean(found)
            report.summary[f"worst against the cell {name}"] = min(found)
    return report


def _variant(
    name: str,
    fields: dict[str, Any],
    size: int,
    batch: int,
    grid: Grid,
    compiled: bool,
    costs: dict[str, list[float]],
    gains: dict[str, list[float]],
) -> list[Cell]:
    torch.manual_seed(size)
    fields = {k: size // 2 if k == "proj_size" else v for k, v in fields.items()}
    own = LSTM(size, size, backend="native", **fields).to(grid.dtype)
    plain = LSTM(size, size, backend="native").to(grid.dtype)
    x = torch.randn(STEPS, batch, size).to(grid.dtype).requires_grad_()
    elapsed = torch.rand(STEPS, batch).to(grid.dtype) if own.spec.decay else None
    width, spec = own.spec.output_size(size), own.spec
    draws = any((spec.zoneout_c, spec.zoneout_h, spec.recurrent_dropout, spec.weight_drop))
    seed = torch.randn(STEPS, batch, width).to(grid.dtype)

    made = [
        _contender("by hand", _Timed(Handwritten(own), elapsed), x, seed, draws),
        _contender("carousel", _Timed(own, elapsed), x, seed, draws),
        replace(peers.training("plain", plain, x, torch.randn(STEPS, batch, size).to(grid.dtype)), group="plain"),
    ]
    seconds = 0.0
    if compiled:
        torch.compiler.reset()
        module = _Timed(Handwritten(own), elapsed)
        started = time.perf_counter()
        fast = _contender("torch.compile", torch.compile(module), x, seed, draws)
        fast.run()
        seconds = time.perf_counter() - started
        made.append(fast)
    times = alternate(made, grid.seconds)
    ours = times["carousel"].median
    costs[name].append(ours / times["plain"].median)
    row: list[Cell] = [name, size, batch, 1e3 * ours, costs[name][-1]]
    for peer in ("by hand", "torch.compile") if compiled else ("by hand",):
        gains[peer].append(times[peer].median / ours)
        row += [1e3 * times[peer].median, gains[peer][-1]]
    return [*row, seconds] if compiled else row


def _contender(name: str, module: Any, x: Tensor, seed: Tensor, draws: bool) -> Contender:
    """Trains; what is compared is the output, where masks are drawn that of evaluation mode: compiled once more."""

    def outputs() -> list[peers.Array]:
        module.train(not draws)
        with torch.set_grad_enabled(not draws):
            y, (h, c) = module(x)
        module.train()
        return [t.detach().float().numpy() for t in (y, h, c)]

    return replace(peers.training(name, module, x, seed), outputs=outputs)
