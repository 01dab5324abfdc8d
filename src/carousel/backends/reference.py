"""The loop over `cell.step`: slow, differentiable as often as wanted, any dtype and device. It defines the truth."""

from __future__ import annotations

import torch
from torch import Tensor

from carousel import masks
from carousel.backends import Call, Result
from carousel.cell import CellSpec, Masks, step


def supports(spec: CellSpec, device: torch.device, dtype: torch.dtype) -> str | None:
    return None if dtype.is_floating_point else "it computes floating point numbers only"


def run(spec: CellSpec, call: Call) -> Result:
    found = [_direction(spec, call, d) for d in range(len(call.weights))]
    y, h, c, trace = zip(*found, strict=True)
    return Result(torch.cat(y, -1), torch.stack(h), torch.stack(c), torch.stack(trace, 1) if call.trace else None)


def _direction(spec: CellSpec, call: Call, d: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, h, c = call.rows, call.h[d], call.c[d]
    visited: list[Tensor] = []
    outputs: list[Tensor] = []
    traced: list[Tensor] = []
    for s in range(rows.ahead.numel()):
        live = torch.nonzero(rows.lengths > s)[:, 0]
        t = rows.lengths[live] - 1 - s if d else torch.full_like(live, s)
        row = rows.first[live] + rows.ahead[t]
        made = step(
            spec,
            call.weights[d],
            call.x[row],
            h[live],
            c[live],
            None if call.elapsed is None else call.elapsed[d, row],
            _masks(spec, call, d, live, t),
        )
        h, c = h.index_copy(0, live, made.h), c.index_copy(0, live, made.c)
        visited.append(row)
        outputs.append(made.h)
        traced.append(torch.stack([*made[2:], made.c]).detach())
    n, size = call.x.shape[0], call.c.shape[-1]
    if not visited:
        return call.x.new_zeros(n, call.h.shape[-1]), h, c, call.x.new_zeros(5, n, size)
    where = torch.argsort(torch.cat(visited))
    return torch.cat(outputs)[where], h, c, torch.cat(traced, 1)[:, where]


def _masks(spec: CellSpec, call: Call, d: int, sequence: Tensor, t: Tensor) -> Masks:
    if call.seed is None:
        return Masks(1.0, spec.zoneout_c, spec.zoneout_h)
    widths = {"recurrent_dropout": call.h.shape[-1], "zoneout_c": call.c.shape[-1], "zoneout_h": call.h.shape[-1]}
    drawn: dict[str, Tensor | float] = dict.fromkeys(widths, 0.0)
    for name, width in widths.items():
        probability = getattr(spec, name)
        if probability:
            at = torch.zeros_like(t) if name == "recurrent_dropout" else t
            found = masks.hit(
                probability, int(call.seed) + d, masks.STREAMS[name], sequence.cpu().numpy(), at.cpu().numpy(), width
            )
            drawn[name] = torch.from_numpy(found).to(call.x.device, call.x.dtype)
    return Masks(
        (1 - drawn["recurrent_dropout"]) / (1 - spec.recurrent_dropout), drawn["zoneout_c"], drawn["zoneout_h"]
    )
