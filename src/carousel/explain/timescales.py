"""The figures of memory: half-lives, gaps, and how long a row matters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from carousel.explain.canvas import Canvas
from carousel.explain.figures import NARROW
from carousel.explain.memory import describe
from carousel.explain.scales import Scale, log_ticks, nice_ticks, number

if TYPE_CHECKING:
    from carousel.explain.study import Explanation

__all__ = ["gaps", "half_lives", "influence"]

Floats = NDArray[np.float64]


def half_lives(found: Explanation, width: float) -> Canvas:
    """Every unit as a dot at its half-life, by layer; those that never forget stand at the right."""
    longest = float(np.median(found.subject.lengths))
    finite = np.concatenate([m.half_life[np.isfinite(m.half_life)] for m in found.memories])
    high = max(10.0, 1.2 * float(finite.max()) if len(finite) else 10.0, 1.2 * longest)
    low = min(0.5, 0.8 * float(finite.min())) if len(finite) else 0.5
    r = 3.4 if width >= NARROW else 2.8
    left, right = 6.0, width - 46.0
    x = Scale(max(low, 0.05), high, left, right, log=True)
    stacks = [_stacked(m.half_life, x, right + 26, r) for m in found.memories]
    bands = [max(y for _, y, _ in stack) + 2 * r + 26 for stack in stacks]
    canvas = Canvas(width, sum(bands) + 58, _half_life_alt(found))
    top, foot = 0.0, sum(bands) + 8
    if x.low < longest < x.high:
        at = x(longest)
        canvas.line([(at, 4), (at, foot)], "output", width=1, dash="4 3")
        canvas.text(at - 4, 14, "length of what is read", size=10.5, fill="output", anchor="end")
    for m, stack, band in zip(found.memories, stacks, bands, strict=True):
        base = top + band
        canvas.line([(left, base), (width - 4, base)], "grid", width=1)
        if len(found.memories) > 1:
            canvas.text(left, base - band + 22, m.layer, size=11, bold=True)
        for unit, (px, py, value) in enumerate(stack):
            tip = f"unit {unit}: {describe(value, found.subject.pace)}"
            canvas.circle(px, base - py - r - 1, r, "forget", opacity=0.85, tip=tip)
        top += band
    for tick in log_ticks(x.low, x.high, 5):
        canvas.line([(x(tick), foot), (x(tick), foot + 4)], "muted", width=1)
        anchor = "start" if x(tick) < 24 else "middle"
        canvas.text(x(tick), foot + 16, number(tick), size=10.5, fill="muted", anchor=anchor)
        if found.subject.pace.size is not None:
            canvas.text(x(tick), foot + 29, found.subject.pace.describe(tick), size=10.5, fill="muted", anchor=anchor)
    canvas.text(right + 26, foot + 17, "∞", size=15, fill="muted", anchor="middle")
    canvas.text(left, foot + 43, "half-life of each unit's memory, in steps", size=11)
    return canvas


def _half_life_alt(found: Explanation) -> str:
    parts = [f"{m.layer}: median {describe(float(np.median(m.half_life)), found.subject.pace)}" for m in found.memories]
    return f"Half-lives of all units as dots on a logarithmic axis. {'; '.join(parts)}."


def _stacked(values: Floats, x: Scale, endless: float, r: float) -> list[tuple[float, float, float]]:
    """Places of dots that do not overlap: columns of 2 r, piled up."""
    heaps: dict[int, int] = {}
    found = []
    most = max(1, len(values) // 60)
    for value in values.tolist():
        at = endless if math.isinf(value) else x(max(value, x.low))
        column = round(at / (2 * r + 0.6))
        heaps[column] = heaps.get(column, 0) + 1
        found.append((column * (2 * r + 0.6), (heaps[column] - 1) * (2 * r + 0.6) / most, value))
    return found


def influence(found: Explanation, width: float) -> Canvas | None:
    """How far the answer moves when one row is another one's, by how long ago it is."""
    moved = found.influence
    if moved is None:
        return None
    height = 190.0 if width < NARROW else 230.0
    left, right, top, foot = 40.0, width - 8, 12.0, height - 34
    high = float(moved.change.max()) * 1.08 or 1.0
    alt = (
        f"Change of the answer when one row is replaced, by lag: {moved.change[0]:.2f} of its spread for the last row,"
        f" {moved.change[-1]:.2g} at lag {int(moved.lag[-1])}."
    )
    canvas = Canvas(width, height, alt)
    x, y = Scale(1, float(moved.lag[-1]) + 1, left, right, log=True), Scale(0, high, foot, top)
    for tick in nice_ticks(0, high, 4):
        canvas.line([(left, y(tick)), (right, y(tick))], "grid", width=1)
        canvas.text(
            left - 6,
            y(tick) + 4,
            f"{tick:.0%}" if high > 0.05 else f"{tick:.1%}",
            size=10.5,
            fill="muted",
            anchor="end",
        )
    points = [(x(lag + 1), y(change)) for lag, change in zip(moved.lag.tolist(), moved.change.tolist(), strict=True)]
    canvas.area([(points[0][0], foot), *points, (points[-1][0], foot)], "cell", opacity=0.14)
    canvas.line(points, "cell", width=2)
    for (px, py), lag, change in zip(points, moved.lag.tolist(), moved.change.tolist(), strict=True):
        canvas.circle(px, py, 2.6, "cell", tip=f"{found.subject.pace.describe(lag)} ago: {change:.1%}")
    for lag in (0, 1, 3, 10, 30, 100, 300, 1000):
        if lag <= moved.lag[-1]:
            canvas.text(x(lag + 1), foot + 15, str(lag), size=10.5, fill="muted", anchor="middle")
    canvas.text(left, foot + 30, "steps before the end", size=11)
    return canvas


def gaps(found: Explanation, width: float) -> Canvas | None:
    """What a gap leaves of the cell state, of cells that decay over the time between rows; None where none does."""
    fading = [m.fading for m in found.memories if m.fading is not None]
    if not fading:
        return None
    halves = np.sort(np.concatenate(fading))
    height = 180.0 if width < NARROW else 210.0
    left, right, top, foot = 40.0, width - 60, 10.0, height - 46
    low, high = max(0.1, 0.1 * float(np.median(halves))), max(100.0, 5 * float(np.median(halves)))
    canvas = Canvas(width, height, "What is left of the cell state after a gap, for slow, middling and fast units.")
    x, y = Scale(low, high, left, right, log=True), Scale(0, 1, foot, top)
    for tick in (0.0, 0.5, 1.0):
        canvas.line([(left, y(tick)), (right, y(tick))], "grid", width=1)
        canvas.text(left - 6, y(tick) + 4, f"{tick:.0%}", size=10.5, fill="muted", anchor="end")
    at = np.geomspace(low, high, 60)
    for share, name in ((0.1, "fastest"), (0.5, "middle"), (0.9, "slowest")):
        half = float(np.quantile(halves, share))
        left_over = 0.5 ** (at / half)
        canvas.line(
            [(x(g), y(v)) for g, v in zip(at, left_over, strict=True)], "forget", width=2, opacity=0.5 + share / 2
        )
        if half < 0.8 * high:  # beside the curve, where half is left
            canvas.text(x(half) + 6, y(0.5) - 5, name, size=10.5, fill="forget")
        else:
            canvas.text(right + 4, y(float(left_over[-1])) + 4, name, size=10.5, fill="forget")
    for tick in log_ticks(low, high, 4):
        canvas.text(x(tick), foot + 15, number(tick), size=10.5, fill="muted", anchor="middle")
        if found.subject.pace.size is not None:
            canvas.text(x(tick), foot + 28, found.subject.pace.describe(tick), size=10.5, fill="muted", anchor="middle")
    canvas.text(left, foot + 42, "length of the gap, in steps", size=11)
    return canvas
