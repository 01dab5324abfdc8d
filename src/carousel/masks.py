"""Dropout masks of the recurrence as a pure function of (seed, stream, sequence, step, unit).

A counter-based generator keeps no state, so a mask depends neither on threads, nor on the order of the
sequences in memory, nor on the backend: the C++ core restates these lines and tests hold both together bit for bit.
The mixers are SplitMix64 (Steele et al. 2014) and lowbias32 (Wellons 2018).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["STREAMS", "hit"]

STREAMS = {"recurrent_dropout": 1, "zoneout_c": 2, "zoneout_h": 3}

_GOLDEN = 0x9E3779B97F4A7C15
_MASK64 = (1 << 64) - 1


def hit(
    probability: float, seed: int, stream: int, sequence: NDArray[np.int64], step: NDArray[np.int64], units: int
) -> NDArray[np.bool_]:
    """True with `probability`, independently for each row and unit: [rows, units].

    `sequence` and `step` [rows] say which row; `stream` which of the uses; `seed` any 64-bit number.

    >>> hit(0.5, 7, STREAMS["zoneout_c"], np.array([0, 0, 1]), np.array([0, 1, 0]), 4).shape
    (3, 4)
    """
    key = _mix64(np.uint64((seed + _GOLDEN * stream) & _MASK64))
    row = _mix64(key ^ (sequence.astype(np.uint64) << np.uint64(32) | step.astype(np.uint64)))
    low, high = row.astype(np.uint32), (row >> np.uint64(32)).astype(np.uint32)
    unit = np.arange(units, dtype=np.uint32) * np.uint32(0x9E3779B1)
    bits = _mix32(_mix32(unit[None, :] + low[:, None]) ^ high[:, None])
    return bits < np.uint32(threshold(probability))


def threshold(probability: float) -> int:
    """The 32-bit number below which a draw is a hit."""
    return min(int(probability * 2**32), 2**32 - 1)


def _mix64(x: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(x ^ (x >> np.uint64(31)))


def _mix32(x: NDArray[np.uint32]) -> NDArray[np.uint32]:
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))
