"""The forecast head's module, restated in NumPy: what `heads/forecast_net.py` computes of windows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from carousel.heads.forecast import ForecastHead

__all__ = ["scaled_quantiles"]

Singles = NDArray[np.float32]


def scaled_quantiles(
    head: ForecastHead,
    weights: Mapping[str, Singles],
    state: Singles,
    ahead: Singles,
    linear: Singles,
    base: Singles,
) -> Singles:
    """state [n, .], ahead [n, H, .], linear [n, C + 1, K], base [n, H, K, G] -> [n, H, K, Q] in scaled units."""
    w = weights
    z = (state @ w["state.weight"].T + w["state.bias"])[:, None] + w["step"]
    if "ahead.weight" in w:
        z = z + ahead @ w["ahead.weight"].T
    z = _silu(_silu(z) @ w["hidden.weight"].T + w["hidden.bias"])
    n, h, k = base.shape[:3]
    raw = (z @ w["out.weight"].T + w["out.bias"]).reshape(n, h, k, -1)
    gate = (z @ w["gate.weight"].T + w["gate.bias"] + w["gate_step"]).reshape(n, h, k, -1)
    gate = np.exp(gate - gate.max(-1, keepdims=True))
    gate /= gate.sum(-1, keepdims=True)
    straight = np.moveaxis(np.moveaxis(linear, 1, 2) @ w["linear.weight"].T + w["linear.bias"], 1, 2)
    middle = head.median
    median = (gate * base).sum(-1) + raw[..., middle] + straight
    away = np.logaddexp(raw - 1, np.float32(0))  # softplus
    away[..., middle] = 0
    above = np.cumsum(away[..., middle:], -1)
    below = np.cumsum(away[..., : middle + 1][..., ::-1], -1)[..., ::-1]
    spread = np.concatenate([-below, above[..., 1:]], -1)
    return np.asarray(median[..., None] + spread, np.float32)


def _silu(x: Singles) -> Singles:
    return np.asarray(x / (1 + np.exp(-x)), np.float32)
