"""What the answer rests on: integrated gradients over time and columns, and a deletion test of them."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carousel.errors import MissingExtra
from carousel.explain.subject import Subject, longest

__all__ = ["FRACTIONS", "Attribution", "Deletion", "attribute", "deletion"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST = 16  # sequences
STEPS = 48  # of the integral, Gauss-Legendre
NUMBERS = 1 << 21  # of leaves that go through the net at once
FRACTIONS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)  # of the cells deleted
ORDERS = 5  # random ones
CLEAR = 2.0  # standard errors between the two orders


class Attribution(NamedTuple):
    """Of n sequences: `values` [n, T, C] of channels (zeros after the end of a sequence), what they add up to and
    should (`total` and `expected` [n]), and the sequences `which` they are about."""

    which: Ints
    values: Floats
    columns: list[str]
    column_of: Ints  # [C]
    total: Floats
    expected: Floats
    deletion: Deletion
    through: float | None  # of the answer's spread, what goes through the rows; None: of one sequence, all alike

    @property
    def cells(self) -> Floats:
        """By step and column [n, T, K]."""
        made = np.zeros((*self.values.shape[:2], len(self.columns)))
        for k in range(len(self.columns)):
            made[..., k] = self.values[..., self.column_of == k].sum(-1)
        return made

    @property
    def shares(self) -> dict[str, float]:
        """Of each column in the sum of all absolute attributions, the largest first."""
        size = np.abs(self.values).sum((0, 1))
        parts = np.bincount(self.column_of, size, len(self.columns)) / max(float(size.sum()), 1e-30)
        return {self.columns[k]: float(parts[k]) for k in np.argsort(-parts)}


class Deletion(NamedTuple):
    """Cells are replaced by the average row's, those that count most first: how far the answer then is on its way to
    that of average rows [F], for this order and for random ones (mean); `lead` is the mean difference of the two in
    standard errors over the sequences (of a single one in the spread of the random orders)."""

    fractions: Floats
    attributed: Floats
    random: Floats
    spread: Floats  # of the random orders' mean over the sequences
    lead: float

    @property
    def trusted(self) -> bool:
        return self.lead > CLEAR


def attribute(subject: Subject, *, steps: int = STEPS, seed: int = 0) -> Attribution:
    """Integrated gradients (Sundararajan et al. 2017) of the answer from average rows to these, by Captum.

    Raises MissingExtra without captum.
    """
    try:
        from captum.attr import IntegratedGradients
    except ModuleNotFoundError:
        raise MissingExtra("captum", "explain", "Attribution") from None
    lengths = torch.from_numpy(subject.lengths)
    which = torch.from_numpy(longest(subject.lengths, MOST))
    leaves, plain = subject.leaves(which), _plain(subject, which)
    real = torch.arange(leaves.shape[1]) < lengths[which][:, None]
    baseline = torch.where(_like(real, leaves), _average(leaves, real), leaves)
    with torch.no_grad(), subject.reading(baseline):
        start = subject.run(which)

    def answer(x: Tensor, index: Tensor) -> Tensor:
        with subject.reading(x):
            return subject.run(index)

    size = max(1, NUMBERS // leaves[0].numel())
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Captum remarks on what it does to its own inputs
        found = IntegratedGradients(answer).attribute(
            leaves,
            baselines=baseline,
            additional_forward_args=(which,),
            n_steps=steps,
            internal_batch_size=max(size, len(which)),
        )
    values = subject.fold(found.detach()).double().numpy()
    names = [channel.column for channel in subject.channels]
    columns = list(dict.fromkeys(names))
    column_of = np.array([columns.index(name) for name in names], np.int64)
    made = Attribution(
        which.numpy(),
        values,
        columns,
        column_of,
        values.sum((1, 2)),
        (plain - start).double().numpy(),
        Deletion(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0), 0.0),
        _through(plain, plain - start),
    )
    return made._replace(deletion=deletion(subject, made, leaves, baseline, plain, start, seed))


def _through(plain: Tensor, own: Tensor) -> float | None:
    """The spread over the sequences of what average rows do not give, in that of the answer; at most 1."""
    spread = float(plain.std()) if len(plain) > 1 else 0.0
    return min(1.0, float(own.std()) / spread) if spread > 1e-9 else None


def _plain(subject: Subject, which: Tensor) -> Tensor:
    with torch.no_grad():
        return subject.run(which)


def _like(mask: Tensor, leaves: Tensor) -> Tensor:
    """[n, T] with as many axes as the leaves have."""
    return mask.reshape(*mask.shape, *[1] * (leaves.dim() - 2))


def _average(leaves: Tensor, real: Tensor) -> Tensor:
    return leaves[real].mean(0)


def deletion(
    subject: Subject, found: Attribution, leaves: Tensor, baseline: Tensor, plain: Tensor, start: Tensor, seed: int
) -> Deletion:
    """The deletion test (Samek et al. 2017; Petsiuk et al. 2018) of cells of a step and a column."""
    which = torch.from_numpy(found.which)
    cells = found.cells
    n, t, k = cells.shape
    real = np.arange(t) < subject.lengths[found.which][:, None]
    sign = np.where(found.expected >= 0, 1.0, -1.0)
    rank = np.where(real[..., None], cells * sign[:, None, None], -np.inf).reshape(n, -1)
    rng = np.random.default_rng(seed)
    curves = [_curve(subject, which, rank, found, leaves, baseline, plain, real)]
    for _ in range(ORDERS):
        random = np.where(real[..., None], rng.random((n, t, k)), -np.inf).reshape(n, -1)
        curves.append(_curve(subject, which, random, found, leaves, baseline, plain, real))
    scale = np.maximum(np.abs(found.expected), 0.1 * max(float(np.abs(found.expected).mean()), 1e-12))
    moved = np.stack(curves) * sign[:, None] / scale[:, None]  # [1 + R, n, F]
    own, random = moved[0], moved[1:].mean(0)
    width = np.diff(FRACTIONS)
    lead = (((own - random)[:, 1:] + (own - random)[:, :-1]) / 2 * width).sum(1)
    others = ((moved[1:, 0, 1:] + moved[1:, 0, :-1]) / 2 * width).sum(1)  # of one sequence, all orders
    error = float(lead.std(ddof=1) / np.sqrt(n)) if n > 1 else float(others.std(ddof=1))
    return Deletion(
        np.array(FRACTIONS),
        own.mean(0),
        random.mean(0),
        moved[1:].mean(1).std(0),
        float(lead.mean() / max(error, 1e-9)),
    )


def _curve(
    subject: Subject,
    which: Tensor,
    rank: Floats,
    found: Attribution,
    leaves: Tensor,
    baseline: Tensor,
    plain: Tensor,
    real: NDArray[np.bool_],
) -> Floats:
    """How far the answer falls [n, F] when the first cells of an order are deleted."""
    n, t = real.shape
    k = len(found.columns)
    place = np.argsort(np.argsort(-rank, 1, kind="stable"), 1, kind="stable")
    total = real.sum(1) * k
    gone = torch.from_numpy(
        np.stack([place < np.round(fraction * total)[:, None] for fraction in FRACTIONS], 0).reshape(-1, t, k)
    )
    made = []
    many, index = len(FRACTIONS), which.repeat(len(FRACTIONS))
    size = max(1, NUMBERS // leaves[0].numel())
    for begin in range(0, many * n, size):
        part = slice(begin, begin + size)
        row = torch.arange(begin, min(begin + size, many * n)) % n
        x = subject.without(leaves[row], baseline[row], gone[part], torch.from_numpy(found.column_of))
        with torch.no_grad(), subject.reading(x):
            made.append(subject.run(index[part]))
    fallen = plain.repeat(many) - torch.cat(made)
    return np.asarray(fallen.reshape(many, n).t().double().numpy())
