"""`carousel bench ragged`: sequences of different lengths, against PackedSequence and against our own dense batch."""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch
from torch.nn.utils.rnn import pack_sequence

from carousel.bench import machine, peers
from carousel.bench.layer import STEPS, Grid, pair
from carousel.bench.report import Report
from carousel.bench.timing import Contender, alternate, geometric_mean
from carousel.ragged import Ragged

__all__ = ["compare"]


def compare(grid: Grid) -> Report:
    """Training with lengths uniform in T/4..T; the dense batch has as many rows, none of them padding."""
    columns = [
        "H = I",
        "B",
        "ragged ms",
        "PackedSequence ms",
        "own dense ms",
        "x PackedSequence",
        "ragged / dense",
    ]
    title = f"ragged training {grid.precision}, lengths uniform in {STEPS // 4}..{STEPS}"
    report = Report(title, columns, machine.describe())
    faster, cost = [], []
    for size, rows in itertools.product(grid.hidden, [b for b in grid.batch if b > 1]):
        times = alternate(_contenders(size, rows, grid.dtype), grid.seconds)
        ours, packed, dense = (times[n].median for n in ("ragged", "PackedSequence", "own dense"))
        faster.append(packed / ours)
        cost.append(ours / dense)
        report.rows.append([size, rows, 1e3 * ours, 1e3 * packed, 1e3 * dense, faster[-1], cost[-1]])
    report.summary = {
        "geometric mean against PackedSequence": geometric_mean(faster),
        "worst against PackedSequence": min(faster),
        "ragged / own dense, geometric mean": geometric_mean(cost),
        "ragged / own dense, worst": max(cost),
    }
    return report


def _contenders(size: int, batch: int, dtype: torch.dtype) -> list[Contender]:
    theirs, ours = pair(size, dtype)
    lengths = torch.randint(STEPS // 4, STEPS + 1, (batch,), generator=torch.Generator().manual_seed(batch))
    lengths = lengths.sort(descending=True).values
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    n = int(offsets[-1])
    values, seed = torch.randn(n, size).to(dtype), torch.randn(n, size).to(dtype)

    order = pack_sequence(list(torch.arange(n).split(lengths.tolist()))).data  # rows in PackedSequence's order
    packed = pack_sequence(list(values.split(lengths.tolist())))
    tolerance = 1e-3 if dtype == torch.float32 else 0.1
    ragged = peers.training("ragged", ours, Ragged(values, offsets), seed, tolerance)

    def in_packed_order() -> list[peers.Array]:
        y, *gradients = ragged.outputs()
        return [y[order.numpy()], *gradients]

    steps = max(1, round(n / batch))
    dense = torch.randn(steps, batch, size).to(dtype)
    return [
        peers.training("PackedSequence", theirs, packed, seed[order], tolerance),
        replace(ragged, outputs=in_packed_order),
        replace(peers.training("own dense", ours, dense, torch.randn_like(dense), tolerance), group="dense"),
    ]
