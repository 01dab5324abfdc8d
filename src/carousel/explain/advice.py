"""What is off, in one sentence each with what to do about it; and the figures that say so."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from carousel.explain.attribution import Attribution
from carousel.explain.gradients import Flows
from carousel.explain.memory import Memory
from carousel.explain.record import Layer
from carousel.explain.subject import Subject

__all__ = ["Health", "advise", "health"]

SHUT, OPEN = 0.05, 0.95  # gate values from which on a gate is saturated
DEAD = 1e-3  # spread of what a unit shows, below which it says nothing


class Health(NamedTuple):
    """Of one layer: the share of all gate values that are shut or open, units that never change, pairs of units that
    say the same, norms of the recurrent matrix, the largest cell state."""

    layer: str
    units: int
    shut: dict[str, float]
    open: dict[str, float]
    dead: list[int]
    doubles: int
    norm: float  # largest singular value of U
    radius: float  # largest |eigenvalue| of the candidate's block of U
    largest_c: float


def health(layer: Layer) -> Health:
    """From the gates over the data and the layer's own weights."""
    gates = {"input": layer.i, "forget": layer.f, "output": layer.o}
    shown = layer.exposed
    spread = shown.std(0) if len(shown) > 1 else np.ones(layer.units)
    dead = np.flatnonzero(spread < DEAD).tolist()
    alive = np.setdiff1d(np.arange(layer.units), dead)
    doubles = 0
    if len(alive) > 1 and len(shown) > 2:
        r = np.corrcoef(shown[:: max(1, len(shown) // 3000), alive].astype(np.float64), rowvar=False)
        doubles = int((np.triu(np.abs(np.nan_to_num(r)), 1) > 0.98).any(0).sum())
    u = layer.weights["weight_hh"].detach().double()
    k = layer.spec.gates.index("g") * layer.units
    block = u[k : k + layer.units]
    if layer.spec.proj_size:
        block = block @ layer.weights["weight_hr"].detach().double()
    return Health(
        layer.name,
        layer.units,
        {name: float((gate < SHUT).mean()) for name, gate in gates.items()},
        {name: float((gate > OPEN).mean()) for name, gate in gates.items()},
        dead,
        doubles,
        float(torch.linalg.matrix_norm(u, 2)),
        float(torch.linalg.eigvals(block).abs().max()),
        float(np.abs(layer.c).max()),
    )


def advise(
    subject: Subject,
    layers: list[Layer],
    healths: list[Health],
    memories: list[Memory],
    flows: Flows,
    attribution: Attribution | None,
) -> list[str]:
    """Sentences, most pressing first; none where nothing is off."""
    return [
        *_gradients(flows),
        *(text for layer, h, m in zip(layers, healths, memories, strict=True) for text in _layer(layer, h, m)),
        *_span(subject, memories, attribution),
        *_attribution(subject, attribution),
    ]


def _gradients(flows: Flows) -> list[str]:
    flow = flows.model
    carried = flow.h if flow.c is None else flow.c
    far = min(100, len(carried) - 1)
    ratio = flow.ratio(far) if far >= 20 else None
    if ratio is None:
        return []
    if ratio > 10:
        return [
            f"The gradient grows {ratio:.3g}-fold over {far} steps: train with a smaller clip (--set clip=0.25) or"
            " layer norm (--set cell.layer_norm=true)."
        ]
    if ratio < 1e-6:
        return [
            f"The gradient at lag {far} is {ratio:.0e} of that at lag 1, so what lies that far back is not learned:"
            " begin with longer memories (--set span={far}), or give shorter sequences."
        ]
    return []


def _layer(layer: Layer, h: Health, m: Memory) -> list[str]:
    found = []
    name = layer.name[0].upper() + layer.name[1:]
    closed = float((m.forget < 0.2).mean())
    if closed > 0.5:
        found.append(
            f"{name}: {closed:.0%} of the forget gates are closed most of the time, so the memory is wiped at every"
            " step: begin with longer memories (--set span=100, or how many rows back matter) or a lower learning rate."
        )
    if h.open["forget"] > 0.95 and h.largest_c > 30:
        found.append(
            f"{name}: the forget gates never close and the cell state grows to {h.largest_c:,.0f}: bound it with --set"
            " cell.cell_clip=10, or couple the gates with --set cell.coupled=true."
        )
    if h.shut["output"] > 0.9:
        found.append(
            f"{name}: the output gates are shut {h.shut['output']:.0%} of the time, so that little of the memory is"
            " seen: lower the learning rate."
        )
    saturated = np.mean([h.shut[g] + h.open[g] for g in ("input", "forget", "output")])
    if saturated > 0.8:
        found.append(
            f"{name}: {saturated:.0%} of all gate values are saturated, where gradients hardly pass: lower the learning"
            " rate, or add layer norm (--set cell.layer_norm=true)."
        )
    if len(h.dead) > 0.2 * h.units:
        found.append(
            f"{name}: {len(h.dead)} of {h.units} units never change, so a smaller model would do:"
            f" --set hidden_size={max(1, h.units - len(h.dead))}."
        )
    elif h.doubles > 0.4 * h.units and h.units > 8:
        found.append(
            f"{name}: {h.doubles} of {h.units} units say what another one says already, so a smaller model may do:"
            f" --set hidden_size={max(4, h.units - h.doubles)}."
        )
    if h.largest_c > 1000:
        found.append(
            f"{name}: the cell state reaches {h.largest_c:,.0f}, where tanh tells no values apart: scale the data, or"
            " --set cell.cell_clip=10."
        )
    return found


def _span(subject: Subject, memories: list[Memory], attribution: Attribution | None) -> list[str]:
    """Sequences that are shorter than what the model could use, or much longer than it remembers."""
    length = int(np.median(subject.lengths))
    longest = max(float(np.where(np.isinf(m.half_life), length * 10, m.half_life).max()) for m in memories)
    found = []
    if length >= 50 and longest < length / 20:
        pace = subject.pace.describe(longest)
        found.append(
            f"No unit's half-life is longer than {math.ceil(longest)} steps ({pace}), a small part of the {length}"
            " steps that are read: longer memories at the start (--set span={length}) would let it remember, or fewer"
            " steps would do."
        )
    if attribution is not None and subject.task == "forecast" and length >= 20:
        early = np.abs(attribution.cells)[:, : max(1, length // 20)].sum() / max(np.abs(attribution.cells).sum(), 1e-30)
        if early > 0.25:
            found.append(
                f"{early:.0%} of the attribution lies in the first twentieth of what the model sees: it might use"
                f" more, so try a longer context (--context {2 * length})."
            )
    return found


def _attribution(subject: Subject, attribution: Attribution | None) -> list[str]:
    if attribution is None:
        return []
    found = []
    if not attribution.deletion.trusted:
        found.append(
            "Deleting what the attribution names moves the answer no further than deleting at random: do not read the"
            " attribution of this model."
        )
    elif len(attribution.columns) > 1:
        idle = [name for name, share in attribution.shares.items() if share < 0.01 and name not in ("calendar", "time")]
        if idle:
            some = ", ".join(idle[:5]) + (f" and {len(idle) - 5} more" if len(idle) > 5 else "")
            verb, them = ("has less than 1 % of the attribution", "it")
            if len(idle) > 1:
                verb, them = ("have less than 1 % of the attribution each", "them")
            past = f", though past the LSTM {them} may count" if subject.aside else ""
            found.append(f"{some} {verb}{past}: a model without {them} is smaller, and may do as well.")
    return found
