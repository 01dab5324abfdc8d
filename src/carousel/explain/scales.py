"""Numbers and times to places on a canvas, and where to put their ticks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scale", "log_ticks", "nice_ticks", "number", "time_ticks"]

Floats = NDArray[np.float64]

_SPANS = [
    *((k, "s") for k in (1, 5, 15, 30)),
    *((k, "m") for k in (1, 5, 15, 30)),
    *((k, "h") for k in (1, 3, 6, 12)),
    *((k, "D") for k in (1, 2, 7, 14)),
    *((k, "M") for k in (1, 3, 6)),
    *((k, "Y") for k in (1, 2, 5, 10, 20, 50, 100)),
]
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "D": 86400.0, "M": 30.44 * 86400, "Y": 365.25 * 86400}


@dataclass(frozen=True)
class Scale:
    """From low ... high to the places begin ... end, straight or by logarithm.

    >>> Scale(1, 100, 0, 200, log=True)(10)
    100.0
    """

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, x = self.low, self.high, float(value)
        if self.log:
            low, high, x = math.log(low), math.log(high), math.log(max(x, 1e-300))
        return self.begin + (x - low) / ((high - low) or 1.0) * (self.end - self.begin)


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within low ... high.

    >>> nice_ticks(0, 97)
    [0.0, 20.0, 40.0, 60.0, 80.0]
    """
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    rough = span / most
    base = 10.0 ** math.floor(math.log10(rough))
    step = next(base * k for k in (1, 2, 2.5, 5, 10) if base * k >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Powers of ten within low ... high, at most so many.

    >>> log_ticks(0.5, 2000)
    [1.0, 10.0, 100.0, 1000.0]
    """
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = max(1, math.ceil((last - first + 1) / most))
    return [10.0**k for k in range(first, last + 1) if (last - k) % every == 0]


def number(value: float) -> str:
    """Short, for ticks.

    >>> number(0.00001), number(1200.0), number(0.25)
    ('1e-5', '1,200', '0.25')
    """
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e6):
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:,.0f}" if value == round(value) else f"{value:g}"


def time_ticks(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Round times within seconds since 1970, and their labels.

    >>> time_ticks(0.0, 86400.0 * 365 * 4, 3)
    [(0.0, '1970'), (63072000.0, '1972')]
    """
    size, unit = next(((k, u) for k, u in _SPANS if (high - low) / (k * _SECONDS[u]) <= most), _SPANS[-1])
    first = np.datetime64(math.floor(low), "s").astype(f"datetime64[{unit}]")
    last = np.datetime64(math.ceil(high), "s").astype(f"datetime64[{unit}]")
    count = int((last - first).astype(np.int64)) + 1
    points = first + np.arange(count)
    points = points[points.astype(np.int64) % size == 0]
    found = []
    for point in points:
        at = float(point.astype("datetime64[s]").astype(np.int64))
        if low <= at <= high:
            text = str(point.astype("datetime64[s]"))
            label = {"Y": text[:4], "M": text[:7], "D": text[5:10]}.get(
                unit, text[11:16] if unit != "s" else text[11:19]
            )
            found.append((at, label))
    return found
