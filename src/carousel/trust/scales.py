"""Were scales fitted on more than the training rows? By the model's own figures, and by those of the table itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from carousel.trust.parts import Part

__all__ = ["Scaler", "beyond_training", "scaled_by_hand", "scalers_of"]

Floats = NDArray[np.float64]

LEAST = 30  # observed values of a column
EXACT = 0.02  # a model's scales are those of both parts where they lie this close, in units of what the test part moves
CHANCE = 1e-5  # of scales that lean so far towards the test part by accident
TRIM = 0.005  # the quantile to which a model cuts columns before it fits their scales
DECIMALS = 5  # to which a column may be rounded that reaches 0 and 1 by nature
BLOCKS = 40  # of rows, where there are too few sequences to resample


@dataclass(frozen=True)
class Scaler:
    """A column's fitted mean and scale, as a model file holds them.

    With `squash` they are of x / (|x| + squash); with `trim` > 0 of values cut to the quantiles trim ... 1 - trim.
    """

    name: str
    mean: float
    scale: float
    squash: float = 0.0
    trim: float = 0.0

    def of(self, x: Floats) -> Floats:
        """The values as they were scaled, NaN kept."""
        x = x / (np.abs(x) + self.squash) if self.squash else x
        seen = x[np.isfinite(x)]
        if self.trim and len(seen) >= 200:
            low, high = np.quantile(seen, (self.trim, 1 - self.trim))
            if low < high:
                return np.asarray(np.clip(x, low, high))
        return x


def scalers_of(seen: Any) -> list[Scaler]:
    """The scales that a model of rows was fitted with, of its `input`."""
    return [Scaler(c.name, c.mean, c.scale, c.squash, TRIM) for c in (*seen.numbers, *seen.static_numbers)]


def beyond_training(train: Part, test: Part, scalers: Sequence[Scaler]) -> float | None:
    """How far, from 0 to 1, scales lie on the way from the training part's to those of both parts; None: not at all.

    Means and log scales, less the training part's, are projected on what the test part would add. A model that held
    out some training sequences differs by chance, in the directions in which sequences differ; so the coordinates are
    whitened by the covariance over sequences before a t-test of the projection.
    """
    at = {name: k for k, name in enumerate(train.names)}
    given, leak, influence = [], [], []
    for s in scalers:
        if s.name not in at or s.name in train.categorical:
            continue
        own, more = (observed(part, at[s.name], s.name in train.static) for part in (train, test))
        if len(own) < LEAST or len(more) < LEAST or s.of(own).std() == 0 or not s.scale > 0:
            continue
        union, own = s.of(np.concatenate([own, more])), s.of(own)
        sd = own.std()
        given += [(s.mean - own.mean()) / sd, np.log(s.scale / sd)]
        leak += [(union.mean() - own.mean()) / sd, np.log(union.std() / sd)]
        influence += _influence(train, s.of(train.values[:, at[s.name]]), s.name in train.static)
    moved, added = np.array(given), np.array(leak)
    if not len(moved) or np.abs(added).max() < 1e-9:
        return None
    if np.linalg.norm(moved - added) < EXACT * np.linalg.norm(added):
        return 1.0
    spread, axes = np.linalg.eigh(np.cov(np.stack(influence)) if len(influence) > 1 else np.eye(1))
    kept = spread > 1e-4 * spread.max()
    if kept.sum() < 4:
        return None
    moved, added = (axes[:, kept].T @ v / np.sqrt(spread[kept]) for v in (moved, added))
    share = float(moved @ added / (added @ added))
    rest = moved - share * added
    error = max(float(np.sqrt(rest @ rest / (len(rest) - 1) / (added @ added))), 1e-12)
    if 0.5 < share < 1.5 and student.sf(share / error, len(rest) - 1) < CHANCE:
        return min(share, 1.0)
    return None


def _influence(part: Part, values: Floats, static: bool) -> list[Floats]:
    """What each sequence (or block of rows) adds to the column's mean and log scale: two arrays [clusters]."""
    rows = part.offsets[:-1] if static else np.arange(len(part.time))
    x = values[rows]
    seen = np.isfinite(x)
    z = np.where(seen, (x - x[seen].mean()) / x[seen].std(), 0.0)
    second = np.where(seen, (np.square(z) - 1) / 2, 0.0)
    enough = len(part.ids) >= BLOCKS
    owner = part.owner[rows] if enough else np.arange(len(rows)) * BLOCKS // max(len(rows), 1)
    count = len(part.ids) if enough else BLOCKS
    return [np.asarray(np.bincount(owner, v, count), np.float64) for v in (z, second)]


def observed(part: Part, column: int, static: bool) -> Floats:
    """The column's values that are there; of a static column one of each sequence."""
    values = part.values[part.offsets[:-1] if static else slice(None), column]
    found: Floats = values[np.isfinite(values)]
    return found


def scaled_by_hand(train: Part, test: Part) -> list[str]:
    """Columns that came with mean 0 and deviation 1, or from 0 to 1, over both parts but not over training rows."""
    found = []
    for k, name in enumerate(train.names):
        own, more = observed(train, k, False), observed(test, k, False)
        if name in train.categorical or len(own) < LEAST or len(more) < LEAST or len(np.unique(own[:5000])) < 20:
            continue
        union = np.concatenate([own, more])
        ends = _unit_range(union) and not _on_grid(union) and not (own.min() == 0 and own.max() == union.max())
        if ends or (_unit_spread(union) and not _unit_spread(own)):
            found.append(name)
    return found


def _unit_spread(x: Floats) -> bool:
    return bool(abs(x.mean()) < 1e-5 and abs(x.std() - 1) < max(1e-5, 0.51 / len(x)))


def _unit_range(x: Floats) -> bool:
    """Both ends met exactly, and by single values: not shares or flags, which reach 0 and 1 by nature."""
    return bool(x.min() == 0 and abs(x.max() - 1) < 1e-12 and ((x == 0) | (x == x.max())).sum() <= 4)


def _on_grid(x: Floats) -> bool:
    """Rounded to a few decimals, as shares are written, so that 0 and 1 are met by chance."""
    return bool(np.allclose(x, np.round(x, DECIMALS), rtol=0, atol=1e-9))
