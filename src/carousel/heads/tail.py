"""The limit of scores: peaks over a threshold follow a generalised Pareto distribution, which reaches beyond them.

Siffer et al. 2017, "Anomaly detection in streams with extreme value theory"; the distribution by probability-weighted
moments (Hosking & Wallis 1987), which few peaks suffice for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["tail_limit"]

Floats = NDArray[np.float64]

PEAKS = 0.1  # share of the scores that count as the tail
FEWEST = 10  # peaks; with fewer, the largest score is the limit
SHAPE = 0.5  # the heaviest tail believed in
PRIOR = 40  # peaks that an exponential tail counts as: the shape of a few is mostly chance


def tail_limit(scores: Floats, risk: float) -> float:
    """The score [N] that a share `risk` of rows like these exceeds; never below the quantile that was observed.

    >>> rng = np.random.default_rng(0)
    >>> limit = tail_limit(rng.exponential(size=2000), 1e-4)  # the true one is ln 10,000 = 9.21
    >>> 7.5 < limit < 11.5
    True
    """
    values = np.sort(np.asarray(scores, np.float64))
    count = len(values)
    peaks = int(PEAKS * count)
    if peaks < FEWEST:
        return float(values[-1])
    threshold = float(values[count - peaks - 1])
    excess = values[count - peaks :] - threshold
    mean = float(excess.mean())
    if mean <= 0:
        return float(values[-1])
    order = (np.arange(peaks, 0, -1) - 0.65) / peaks  # share above, from the smallest excess on
    moment = float((order * excess).mean())
    shape = 2 - mean / (mean - 2 * moment) if mean > 2 * moment else SHAPE
    shape = float(np.clip(shape, -SHAPE, SHAPE)) * peaks / (peaks + PRIOR)
    scale = mean * (1 - shape)
    ratio = risk * count / peaks
    if ratio >= 1:
        return float(np.quantile(values, 1 - risk))
    reach = -np.log(ratio) if abs(shape) < 1e-6 else (ratio**-shape - 1) / shape
    return max(threshold + scale * float(reach), float(np.quantile(values, 1 - risk)))
