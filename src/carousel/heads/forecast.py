"""Forecasts as quantiles: what the head is, and its read-out from scaled outputs to the target's own units."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["DEFAULT_QUANTILES", "ForecastHead", "calibrate", "read_out"]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

DEFAULT_QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


@dataclass(frozen=True)
class ForecastHead:
    """All steps at once: one decoder, shared by the steps ahead, weighs naive forecasts and corrects their mean.

    `factors` stretch the distance of each quantile from the median; split-conformal calibration sets them.
    """

    quantiles: tuple[float, ...] = DEFAULT_QUANTILES
    width: int = 64
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

    def partners(self, k: int) -> tuple[int | None, int | None]:
        """The quantiles that bound the central interval of quantile `k`; None where it is not asked for."""
        mirror = [i for i, q in enumerate(self.quantiles) if abs(q + self.quantiles[k] - 1) < 1e-9]
        other = mirror[0] if mirror else None
        return (k, other) if k < self.median else (other, k)

    def shapes(
        self, *, state: int, static: int, ahead: int, context: int, horizon: int, targets: int, bases: int
    ) -> dict[str, tuple[int, ...]]:
        """The weights of the torch module, in the order of its `state_dict`."""
        d, out, gate = self.width, targets * len(self.quantiles), targets * bases
        shapes: dict[str, tuple[int, ...]] = {"step": (horizon, d), "gate_step": (horizon, gate)}
        shapes |= {"state.weight": (d, state + static), "state.bias": (d,)}
        if ahead:
            shapes["ahead.weight"] = (d, ahead)
        shapes |= {"hidden.weight": (d, d), "hidden.bias": (d,), "out.weight": (out, d), "out.bias": (out,)}
        shapes |= {"gate.weight": (gate, d), "gate.bias": (gate,)}
        shapes |= {"linear.weight": (horizon, context + 1), "linear.bias": (horizon,)}
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


def calibrate(head: ForecastHead, scaled: Floats, truth: Floats | Singles, independent: int) -> ForecastHead:
    """The head with factors such that each central interval covers its share of the held-out `truth` [n, H, K].

    Split-conformalized quantile regression (Romano et al. 2019) with the distance from the median in units of the
    predicted one as its score (after Lei et al. 2018), so that wide forecasts are stretched more. The same factor
    holds above and below; it is never less than 1, since a calm hold-out promises nothing. Errors of one window are
    alike, and windows overlap: were the steps of a window all one, the quantile of n `independent` windows would have
    to be taken at (n + 1) / n of its share, were they strangers, at the share itself; half way between is taken. Below
    ten observed points nothing is changed.
    """
    seen = np.isfinite(truth)
    if int(seen.sum()) < 10 or independent < 1:
        return head
    predicted, y = scaled[seen].astype(np.float64), truth[seen].astype(np.float64)
    away = y - predicted[:, head.median]
    factors = []
    for k, q in enumerate(head.quantiles):
        below, above = head.partners(k)
        if k == head.median or below is None or above is None:
            factors.append(1.0)
            continue
        edge = np.where(away < 0, predicted[:, below], predicted[:, above]) - predicted[:, head.median]
        score = np.abs(away) / np.maximum(np.abs(edge), 1e-12)
        inside = abs(2 * q - 1)
        share = (inside + min(1.0, inside * (independent + 1) / independent)) / 2
        factors.append(float(np.clip(np.quantile(score, share, method="higher"), 1.0, 5.0)))
    return replace(head, factors=tuple(factors))
