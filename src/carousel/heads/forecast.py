"""Forecasts as quantiles: what the head is, and its read-out from scaled outputs to the target's own units."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["BASES", "DEFAULT_QUANTILES", "ForecastHead", "calibrate", "read_out"]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

DEFAULT_QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
BASES = ("last", "season", "drift")


@dataclass(frozen=True)
class ForecastHead:
    """All steps at once: one decoder, shared by the steps ahead, corrects a naive forecast (`base`).

    `factors` stretch the distance of each quantile from the median; split-conformal calibration sets them.
    """

    quantiles: tuple[float, ...] = DEFAULT_QUANTILES
    width: int = 64
    base: Literal["last", "season", "drift"] = "drift"
    factors: tuple[float, ...] = (1.0,) * len(DEFAULT_QUANTILES)

    def __post_init__(self) -> None:
        q = self.quantiles
        if 0.5 not in q or any(not 0 < value < 1 for value in q) or list(q) != sorted(set(q)):
            raise ValueError(f"quantiles must ascend within (0, 1) and hold the median 0.5, got {q}")
        if len(self.factors) != len(q) or min(self.factors) <= 0:
            raise ValueError(f"factors must be {len(q)} positive numbers, got {self.factors}")
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")

    @property
    def median(self) -> int:
        return self.quantiles.index(0.5)

    def shapes(
        self, *, state: int, static: int, ahead: int, context: int, horizon: int, targets: int
    ) -> dict[str, tuple[int, ...]]:
        """The weights of the torch module, in the order of its `state_dict`."""
        d, out = self.width, targets * len(self.quantiles)
        shapes: dict[str, tuple[int, ...]] = {"step": (horizon, d)}
        shapes |= {"state.weight": (d, state + static), "state.bias": (d,)}
        if ahead:
            shapes["ahead.weight"] = (d, ahead)
        shapes |= {"hidden.weight": (d, d), "hidden.bias": (d,), "out.weight": (out, d), "out.bias": (out,)}
        shapes |= {"linear.weight": (horizon, context), "linear.bias": (horizon,)}
        return shapes


def read_out(head: ForecastHead, scaled: Singles | Floats, level: Floats, spread: Floats) -> Floats:
    """Quantiles [n, H, K, Q] in the target's own units from scaled ones, level and spread [n, K] of the windows.

    The quantiles ascend along the last axis.
    """
    values = scaled.astype(np.float64)
    middle = values[..., head.median, None]
    stretched = middle + (values - middle) * np.asarray(head.factors)
    stretched = np.sort(stretched, -1)
    return np.asarray(stretched * spread[:, None, :, None] + level[:, None, :, None])


def calibrate(head: ForecastHead, scaled: Floats, truth: Floats | Singles) -> ForecastHead:
    """The head with factors such that each quantile q covers q of the observed `truth` [n, H, K] on held-out windows.

    Split-conformal prediction with the distance from the median, in units of the predicted one, as its score (Lei
    et al. 2018; Romano et al. 2019, one-sided as in their section 4). Below ten observed points nothing is changed.
    """
    seen = np.isfinite(truth)
    count = int(seen.sum())
    if count < 10:
        return head
    predicted, y = scaled.astype(np.float64)[seen], truth[seen]
    middle = predicted[:, head.median]
    factors = []
    for k, q in enumerate(head.quantiles):
        distance = predicted[:, k] - middle
        if k == head.median or not np.all(np.abs(distance) > 0):
            factors.append(1.0)
            continue
        score = (y - middle) / distance
        tail = q if q > 0.5 else 1 - q
        at = min(1.0, np.ceil((count + 1) * tail) / count)
        factors.append(float(np.clip(np.quantile(score, at, method="higher"), 0.2, 5.0)))
    return replace(head, factors=tuple(factors))
