"""How long a model remembers: by its forget gates, over gaps, and by what becomes of the answer without a row."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from carousel.explain.record import Layer
from carousel.explain.subject import Pace, Subject

__all__ = ["Influence", "Memory", "influence", "memory"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ENDLESS = 1e6  # steps of half-life from which on a unit is said never to forget
MOST = 16  # sequences
DRAWS = 8  # other rows that are put in the place of a row


class Memory(NamedTuple):
    """Of the units of one layer: half-life in steps [H] (inf: it never forgets), mean forget gate [H], and, with a
    cell that decays over time, the half-life of the decay alone in steps' time [H]."""

    layer: str
    half_life: Floats
    forget: Floats
    fading: Floats | None

    def quantile(self, share: float) -> float:
        return float(np.sort(self.half_life)[min(len(self.half_life) - 1, int(share * len(self.half_life)))])


def memory(layer: Layer) -> Memory:
    """Half-lives from the mean log of what each row keeps of the state: after so many rows half of it is left.

    The time-scale of a gate (Tallec & Ollivier 2018), measured over the data instead of read from a bias.
    """
    loss = -np.log(np.maximum(layer.keep.astype(np.float64), 1e-30)).mean(0)
    with np.errstate(divide="ignore"):
        half = np.where(loss > math.log(2) / ENDLESS, math.log(2) / np.maximum(loss, 1e-30), np.inf)
    fading = None
    if layer.spec.decay:
        rate = F.softplus(layer.weights["decay_rate"].detach().double()).numpy()
        fading = np.asarray(math.log(2) / np.maximum(rate, 1e-30))
    return Memory(layer.name, np.asarray(half), layer.f.astype(np.float64).mean(0), fading)


def describe(half_life: float, pace: Pace) -> str:
    """A half-life in steps and, where the rows have times, in real time.

    >>> describe(26.0, Pace(604800.0, True)), describe(math.inf, Pace())
    ('26 steps (26 weeks)', 'infinite')
    """
    if math.isinf(half_life):
        return "infinite"
    steps = Pace().describe(half_life)
    return steps if pace.size is None else f"{steps} ({pace.describe(half_life)})"


class Influence(NamedTuple):
    """How far the answer moves (root mean square, in its spread over the sequences; of a single one in its own size)
    when the row `lag` steps before the end is another one's."""

    lag: Ints  # [L]
    change: Floats  # [L]
    scale: str = "its spread"

    @property
    def lasts(self) -> bool:
        """Whether the oldest row that was measured still matters half as much as the one that matters most."""
        return self.half == float(self.lag[-1])

    @property
    def half(self) -> float:
        """The lag from which on a row matters less than half as much as the one that matters most."""
        strong = np.flatnonzero(self.change >= 0.5 * self.change.max())
        return float(self.lag[strong[-1]])


def influence(subject: Subject, seed: int = 0) -> Influence | None:
    """Measured by putting rows of other sequences and times in the place of one row, all else equal.

    None where no two sequences differ in their answer, so that there is no scale, or all have one row only.
    """
    which = subject.everything()
    lengths = torch.from_numpy(subject.lengths)
    keep = np.flatnonzero(subject.lengths >= max(2, int(np.median(subject.lengths)) // 2))
    if not len(keep):
        return None
    which = which[torch.from_numpy(keep[np.linspace(0, len(keep) - 1, min(len(keep), MOST)).astype(np.int64)])]
    lengths = lengths[which]
    leaves = subject.leaves(which)
    with torch.no_grad():
        plain = subject.run(which)
    spread = float(plain.std()) if len(plain) > 1 else abs(float(plain[0]))
    if not spread > 1e-9:
        return None
    generator = torch.Generator().manual_seed(seed)
    lags = _lags(int(lengths.min()))
    real = torch.arange(leaves.shape[1]) < lengths[:, None]
    pool = leaves[real]
    found = []
    for lag in lags.tolist():
        total = 0.0
        for _ in range(DRAWS):
            changed = leaves.clone()
            other = pool[torch.randint(len(pool), (len(which),), generator=generator)]
            changed[torch.arange(len(which)), lengths - 1 - lag] = other
            with torch.no_grad(), subject.reading(changed):
                total += float((subject.run(which) - plain).square().mean())
        found.append(math.sqrt(total / DRAWS) / spread)
    return Influence(lags, np.array(found), "its spread" if len(plain) > 1 else "its size")


def _lags(length: int) -> Ints:
    """0, 1, 2, ... at first, then further and further apart, up to the last."""
    steps = np.unique(np.round(np.geomspace(1, length, 24)).astype(np.int64)) - 1
    return steps[steps < length]
