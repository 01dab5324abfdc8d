"""Gradient flow: how much the loss depends on the states of earlier steps, in this model and in a plain RNN."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from carousel.explain.record import watch
from carousel.explain.subject import Subject, longest
from carousel.explain.twin import trained_twin
from carousel.train import TrainConfig

__all__ = ["Flow", "Flows", "flow", "flows"]

Floats = NDArray[np.float64]

MOST = 16  # sequences
MOST_TWIN_STEPS = 150


class Flow(NamedTuple):
    """Norms of the loss's gradient by lag [L] (0: the last step): geometric means over the sequences, of the first
    layer's h and c (None for a plain RNN, which has no c)."""

    name: str
    h: Floats
    c: Floats | None

    def ratio(self, far: int = 100, near: int = 1) -> float | None:
        """The norm at lag `far` by that at `near`, of the state that carries it; None where sequences are shorter, or
        nothing is left at lag `near` already."""
        carried = self.h if self.c is None else self.c
        if len(carried) <= far or not carried[near] > 1e-30:
            return None
        return float(carried[far] / carried[near])


class Flows(NamedTuple):
    """Of the model, and of twins begun anew and trained alike for `steps`; `missing` says why there are none."""

    model: Flow
    twins: list[Flow]
    steps: int
    loss: str
    missing: str = ""


def flow(subject: Subject, net: nn.Module, name: str) -> Flow:
    """By one backward pass through every step of up to 16 of the longest sequences (Hochreiter 1991; Pascanu et al.
    2013 plot the same norms). Those whose loss depends on nothing, as where the last row is missing, do not count."""
    judged = subject.judged()
    which = torch.from_numpy(judged[longest(subject.lengths[judged], MOST)])
    lengths = torch.from_numpy(subject.lengths)
    with torch.enable_grad(), watch(net) as visits:
        loss = subject.loss(which, net)
        loss.backward()
    for parameter in net.parameters():
        parameter.grad = None
    size = int(lengths[which].max())
    h, c = np.full((size, len(which)), np.nan), np.full((size, len(which)), np.nan)
    gated = False
    for visit in visits:
        if visit.layer:
            continue
        lag, live = visit.lag.numpy(), visit.live.numpy()
        if visit.h.grad is not None:
            h[lag, live] = visit.h.grad.double().norm(dim=1).numpy()
        if visit.c is not None and visit.c.grad is not None:
            c[lag, live] = visit.c.grad.double().norm(dim=1).numpy()
            gated = True
    moved = np.nansum(h, 0) > 0
    moved = moved if moved.any() else np.ones(len(which), bool)
    return Flow(name, _middle(h[:, moved]), _middle(c[:, moved]) if gated else None)


def _middle(norms: Floats) -> Floats:
    """Geometric means over the sequences [L], since a mean would show the one that explodes. Each sequence counts in
    units of its own norm at lag 1, so that those which are too short for a lag change nothing there."""
    seen = np.isfinite(norms)
    logs = np.log(np.maximum(np.where(seen, norms, 1.0), 1e-45))
    near = logs[min(1, len(logs) - 1)]
    counted = seen & seen[min(1, len(logs) - 1)]
    own = np.where(counted, logs - near, 0.0).sum(1) / np.maximum(counted.sum(1), 1)
    level = float(near[counted.any(0)].mean()) if counted.any() else 0.0
    return np.asarray(np.exp(own + level))


def flows(subject: Subject, settings: TrainConfig, *, steps: int = MOST_TWIN_STEPS) -> Flows:
    """The model's flow, and that of a plain RNN of the same size trained alike on these data.

    Where the twin is trained for fewer steps than the model was, an LSTM is begun anew and trained as long as it, so
    that the two can be compared.
    """
    own = flow(subject, subject.net, "this model")
    task = subject.training(settings) if steps else "it was not asked for"
    if isinstance(task, str):
        return Flows(own, [], 0, subject.loss_name, task)
    count = min(steps, subject.own_steps or steps)
    twins = []
    for plain in (True, False):
        if plain or count < subject.own_steps:
            net = trained_twin(subject.net, task, settings, count, plain=plain)
            name = "a plain RNN" if plain else "an LSTM begun anew"
            twins.append(flow(subject, net, f"{name} after {count} steps"))
    return Flows(own, twins, count, subject.loss_name)
