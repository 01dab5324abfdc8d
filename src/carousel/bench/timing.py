"""Alternating, verified timing: no contender is timed before it gave the same numbers as the first."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Contender", "Timing", "alternate", "geometric_mean"]

PAUSE, PATIENCE = 0.01, 0.06  # seconds: one look whether threads still spin, and how long to wait for them at most
Arrays = Sequence[NDArray[np.floating]]


@dataclass(frozen=True)
class Contender:
    """`run` does the timed work; `outputs` gives what the last run made, for the check of equality in its group."""

    name: str
    run: Callable[[], object]
    outputs: Callable[[], Arrays]
    tolerance: float = 1e-4  # largest difference allowed, relative to the largest absolute value of each array
    group: str = ""  # who must agree: the first of a group is the oracle of the others


@dataclass(frozen=True)
class Timing:
    """Seconds per run: median and the 10th and 90th percentiles over `runs`."""

    median: float
    low: float
    high: float
    runs: int


def alternate(contenders: Sequence[Contender], seconds: float = 1.0, least: int = 7) -> dict[str, Timing]:
    """Times all contenders in turns, for about `seconds` each, once each group is found to agree.

    Raises ArithmeticError where a contender's numbers differ by more than its tolerance.
    """
    expected: dict[str, Arrays] = {}
    rough = []
    for contender in contenders:
        contender.run()
        started = time.perf_counter()
        contender.run()
        rough.append(time.perf_counter() - started)
        found = contender.outputs()
        if contender.group not in expected:
            expected[contender.group] = [np.array(a, copy=True) for a in found]
        _check(contender, expected[contender.group], found)

    rounds = max(least, int(seconds * len(contenders) / max(sum(rough), 1e-9)))
    rounds = min(rounds, 25)
    inner = [max(1, int(5e-3 / max(r, 1e-9))) for r in rough]  # 5 ms at least between two looks at the clock
    times: list[list[float]] = [[] for _ in contenders]
    for r in range(rounds):
        for k in range(len(contenders)):
            k = (k + r) % len(contenders)
            _rest()
            contenders[k].run()
            started = time.perf_counter()
            for _ in range(inner[k]):
                contenders[k].run()
            times[k].append((time.perf_counter() - started) / inner[k])
    return {c.name: _summary(t) for c, t in zip(contenders, times, strict=True)}


def _rest() -> None:
    """Until the threads of the contender before sleep: they spin for a while, and would take a core from the next."""
    for _ in range(round(PATIENCE / PAUSE)):
        before = time.process_time()
        time.sleep(PAUSE)
        if time.process_time() - before < PAUSE / 10:
            return


def geometric_mean(values: Sequence[float]) -> float:
    """
    >>> geometric_mean([1.0, 4.0])
    2.0
    """
    return math.exp(statistics.fmean(math.log(v) for v in values))


def _summary(times: list[float]) -> Timing:
    low, high = np.quantile(times, [0.1, 0.9])
    return Timing(statistics.median(times), float(low), float(high), len(times))


def _check(contender: Contender, expected: Arrays, found: Arrays) -> None:
    if len(expected) != len(found):
        raise ArithmeticError(f"{contender.name} gives {len(found)} arrays, {len(expected)} were expected")
    for k, (a, b) in enumerate(zip(expected, found, strict=True)):
        if a.shape != b.shape:
            raise ArithmeticError(f"{contender.name}: array {k} has shape {b.shape}, expected {a.shape}")
        scale = max(float(np.abs(a).max(initial=0.0)), 1e-30)
        error = float(np.abs(a - b).max(initial=0.0)) / scale
        if not error <= contender.tolerance:
            raise ArithmeticError(
                f"{contender.name}: array {k} is off by {error:.2e} (allowed {contender.tolerance:g})"
            )
