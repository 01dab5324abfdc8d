"""The loop over `cell.step`: slow, differentiable as often as wanted, any dtype and device. It defines the truth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from carousel import masks
from carousel.backends import Call, Result, Rows
from carousel.cell import CellSpec, Masks, step

__all__ = ["SLOW", "Visit", "run", "supports", "visits_of"]

SLOW = "a Python loop over the steps"


def supports(spec: CellSpec, device: torch.device, dtype: torch.dtype) -> str | None:
    return None if dtype.is_floating_point else "it computes floating point numbers only"


def run(spec: CellSpec, call: Call) -> Result:
    found = [_direction(spec, call, d) for d in range(len(call.weights))]
    y, h, c, trace = zip(*found, strict=True)
    return Result(torch.cat(y, -1), torch.stack(h), torch.stack(c), torch.stack(trace, 1) if call.trace else None)


class Visit(NamedTuple):
    """One step of one direction: the sequences that have it, which of their steps it is, and its row of each."""

    live: Tensor
    t: Tensor
    row: Tensor


def visits_of(rows: Rows, reverse: bool) -> list[Visit]:
    order = torch.argsort(rows.lengths, descending=True, stable=True)
    steps = rows.ahead.shape[0]
    if rows.dense:
        counts = [rows.first.shape[0]] * steps
    else:
        counts = (rows.lengths[:, None] > torch.arange(steps, device=order.device)).sum(0).tolist()
    visits = []
    for s, count in enumerate(counts):
        live = order[:count]
        t = rows.lengths[live] - 1 - s if reverse else torch.full_like(live, s)
        visits.append(Visit(live, t, rows.first[live] + rows.ahead[t]))
    return visits


def _direction(spec: CellSpec, call: Call, d: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    n, h, c = call.x.shape[0], call.h[d], call.c[d]
    if not n:
        return call.x.new_zeros(0, h.shape[-1]), h, c, call.x.new_zeros(5, 0, c.shape[-1])
    visits = visits_of(call.rows, reverse=d == 1)
    span = call.recompute or len(visits)
    outputs: list[Tensor] = []
    traced: list[Tensor] = []
    for start in range(0, len(visits), span):
        steps = visits[start : start + span]
        if call.recompute:  # no torch random numbers are drawn: masks follow from the seed
            made = checkpoint(_span, spec, call, d, steps, h, c, use_reentrant=False, preserve_rng_state=False)
        else:
            made = _span(spec, call, d, steps, h, c)
        y, h, c, trace = made
        outputs.append(y)
        traced += trace
    where = torch.argsort(torch.cat([visit.row for visit in visits]))
    return torch.cat(outputs)[where], h, c, torch.cat(traced, 1)[:, where] if call.trace else None


def _span(
    spec: CellSpec, call: Call, d: int, visits: list[Visit], h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Consecutive steps from the states h [B, P], c [B, H]: outputs in the order of the visits, states, trace."""
    outputs, traced = [], []
    for live, t, row in visits:
        elapsed = None if call.elapsed is None else call.elapsed[d, row]
        made = step(spec, call.weights[d], call.x[row], h[live], c[live], elapsed, _masks(spec, call, d, live, t))
        h, c = h.index_copy(0, live, made.h.to(h.dtype)), c.index_copy(0, live, made.c.to(c.dtype))
        outputs.append(made.h)
        if call.trace:
            traced.append(torch.stack([*made[2:], made.c]).detach())
    return torch.cat(outputs), h, c, traced


def _masks(spec: CellSpec, call: Call, d: int, sequence: Tensor, t: Tensor) -> Masks:
    if call.seed is None:
        return Masks(1.0, spec.zoneout_c, spec.zoneout_h)
    seed, rows, steps = int(call.seed) + d, sequence.cpu().numpy(), t.cpu().numpy()
    size, output_size = call.c.shape[-1], call.h.shape[-1]

    def drawn(name: str, probability: float, at: NDArray[np.int64], units: int) -> Tensor | float:
        if not probability:
            return 0.0
        found = masks.hit(probability, seed, masks.STREAMS[name], rows, at, units)
        return torch.from_numpy(found).to(call.x.device, call.x.dtype)

    dropped = drawn("recurrent_dropout", spec.recurrent_dropout, np.zeros_like(steps), output_size)
    return Masks(
        h=(1 - dropped) / (1 - spec.recurrent_dropout),
        keep_c=drawn("zoneout_c", spec.zoneout_c, steps, size),
        keep_h=drawn("zoneout_h", spec.zoneout_h, steps, output_size),
    )
