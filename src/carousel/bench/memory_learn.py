"""Training on an endless task until it is learned, with sequences and processor seconds counted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.adamw import AdamW
from carousel.bench.memory_nets import Net
from carousel.datasets import Examples, Task
from carousel.ragged import Ragged

__all__ = ["Effort", "Learnt", "as_tensors", "judge", "learn", "loss_of", "shown", "updates"]

ROWS = 100_000  # that are judged together


@dataclass(frozen=True)
class Effort:
    """How one network is trained: AdamW without decay, gradients clipped, linear warm-up over 20 updates; with `fade`
    the rate falls to a tenth along half a cosine over the budget.
    """

    rate: float = 3e-3
    batch: int = 32
    budget: int = 20_000  # sequences
    check: int = 1_000  # sequences from one look at fresh ones to the next
    clip: float = 1.0
    fade: bool = False


@dataclass(frozen=True)
class Learnt:
    """How it ended: `right` is the share of sequences answered right in the last check, `error` its mean loss."""

    success: bool
    sequences: int
    seconds: float  # of the processor, checks included
    right: float
    error: float


def as_tensors(given: Examples) -> tuple[Ragged, Tensor, Tensor]:
    return given.x.tensors(), torch.from_numpy(given.at), torch.from_numpy(given.answer)


def loss_of(kind: str, output: Tensor, answer: Tensor) -> Tensor:
    """Squared error of numbers, cross-entropy of classes and of symbols (against equal chances of all legal ones)."""
    if kind == "number":
        return F.mse_loss(output, answer)
    if kind == "class":
        return F.cross_entropy(output, answer)
    chances = answer.float() / answer.sum(1, keepdim=True)
    return F.cross_entropy(output, chances)


def shown(kind: str, given: Examples) -> Examples:
    """What is learned from: of symbols not all that are legal, but the one that followed, as in the papers."""
    if kind != "symbols":
        return given
    after = np.zeros_like(given.answer)
    after[:-1] = given.x.values[1:] > 0
    last = given.x.offsets[1:] - 1
    after[last] = given.answer[last]  # of an end there is one
    return replace(given, answer=after[given.at])


@torch.no_grad()
def judge(net: nn.Module, kind: str, given: Examples, tolerance: float = 0.04) -> tuple[float, float]:
    """Share of sequences answered right at every place, and the mean loss; in pieces that the memory has room for."""
    net.eval()
    x, at, answer = as_tensors(given)
    few = max(1, ROWS // max(x.longest, 1))
    starts = range(0, len(x), few)
    ends = torch.searchsorted(at, x.offsets[[*starts, len(x)]])  # answers of each piece
    pieces = zip(starts, ends[:-1], ends[1:], strict=True)
    output = torch.cat([net(x[k : k + few], at[i:j] - x.offsets[k]) for k, i, j in pieces])
    error = float(loss_of(kind, output, answer))
    net.train()
    return float(given.right(output.numpy(), tolerance).mean()), error


def updates(net: nn.Module, kind: str, batches: Iterator[Examples], effort: Effort) -> Iterator[int]:
    """Train without end; gives the sequences seen after each update."""
    groups = [{"params": list(net.parameters()), "weight_decay": 0.0}]
    optimizer, seen, step = AdamW(groups), 0, 0
    net.train()
    for given in batches:
        x, at, answer = as_tensors(shown(kind, given))
        optimizer.zero_grad()
        loss_of(kind, net(x, at), answer).backward()
        nn.utils.clip_grad_norm_(net.parameters(), effort.clip)
        groups[0]["lr"] = effort.rate * _factor(effort, step, seen)
        optimizer.step()
        step, seen = step + 1, seen + len(given.x)
        yield seen


def _factor(effort: Effort, step: int, seen: int) -> float:
    warm = min(1.0, (step + 1) / 20)
    if not effort.fade:
        return warm
    return warm * (0.55 + 0.45 * math.cos(math.pi * min(seen / effort.budget, 1.0)))


def learn(
    net: Net,
    task: Task,
    effort: Effort,
    *,
    seed: int,
    good: Callable[[float, float], bool],
    test: Task | None = None,
    fresh: int = 500,
    batches: Iterator[Examples] | None = None,
) -> Learnt:
    """Train until `good(right, error)` holds on `fresh` new sequences of `test`, and again on as many others.

    Ends without success when the budget is spent, or when the loss is no number any more.
    """
    test = task if test is None else test
    rng = np.random.default_rng([seed, 0x7E57])
    started = time.process_time()
    right, error, seen, next_check = 0.0, math.inf, 0, effort.check
    source = task.stream(effort.batch, seed) if batches is None else batches
    for seen in updates(net, task.kind, source, effort):
        if seen < min(next_check, effort.budget):
            continue
        next_check = seen + effort.check
        right, error = judge(net, task.kind, test.draw(fresh, rng))
        if good(right, error):
            again = judge(net, task.kind, test.draw(fresh, rng))
            if good(*again):
                return Learnt(True, seen, time.process_time() - started, *again)
        if seen >= effort.budget or not math.isfinite(error):
            break
    return Learnt(False, seen, time.process_time() - started, right, error)
