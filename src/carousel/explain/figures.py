"""The figures of gates and of single units. Each is drawn for a width in pixels, so that a phone gets its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from carousel.explain.canvas import Canvas, tinted
from carousel.explain.gates import Role
from carousel.explain.scales import Scale, nice_ticks, number, time_ticks

if TYPE_CHECKING:
    from carousel.explain.record import Layer
    from carousel.explain.study import Explanation
    from carousel.explain.subject import Subject

__all__ = ["MOST_COLUMNS", "MOST_ROWS", "NARROW", "gates", "shown", "units"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_COLUMNS = 420
MOST_ROWS = 72
NARROW = 500
GATES = (
    ("forget", "f", "forget gate", "full: the memory is kept"),
    ("input", "i", "input gate", "full: something new is let in"),
    ("candidate", "g", "candidate", "what would be written, in two signs"),
    ("output", "o", "output gate", "full: the memory is shown"),
)


def shown(found: Explanation) -> tuple[int, int, int]:
    """The sequence that figures show: the longest, of equals the last; its rows [begin, end)."""
    lengths = found.subject.lengths
    b = len(lengths) - 1 - int(np.argmax(lengths[::-1]))
    offsets = found.subject.offsets
    return b, int(offsets[b]), int(offsets[b + 1])


def gates(found: Explanation, layer: int, width: float) -> Canvas:
    """The input above, then cell state and gates of every unit over the same steps."""
    subject, what = found.subject, found.layers[layer]
    b, begin, end = shown(found)
    if len(what.c) != int(subject.offsets[-1]):  # a layer with rows of its own, as a decoder's
        begin, end = int(what.offsets[-2]), int(what.offsets[-1])
    narrow = width < NARROW
    left, right = 4.0, width - (4.0 if narrow else 178.0)
    signals = _signals(found, begin, end)
    heights = {"signal": 74.0 if narrow else 92.0, "c": 150.0 if narrow else 210.0, "gate": 62.0 if narrow else 84.0}
    height = len(signals) * (heights["signal"] + 26) + heights["c"] + 26 + 4 * (heights["gate"] + 26) + 30
    alt = (
        f"{what.name} of {subject.title}, sequence {subject.names[b]}: "
        f"{', '.join(signals) or 'the steps'} above the cell states and gates of {what.units} units over {end - begin}"
        " steps."
    )
    canvas = Canvas(width, height, alt)
    steps = Scale(0, end - begin, left, right)
    y = 16.0
    for name, values in signals.items():
        canvas.text(left, y, name, bold=True, size=12)
        _trace(canvas, values, steps, y + 8, heights["signal"], outside=not narrow)
        y += heights["signal"] + 26
    order, _ = found.orders[layer]
    rows = order[np.linspace(0, len(order) - 1, min(len(order), MOST_ROWS)).astype(np.int64)]
    canvas.text(left, y, "cell state c", bold=True, size=12, fill="cell")
    _hint(canvas, left + 80, y, "what each unit remembers: red above 0, blue below", right)
    c = what.c[begin:end][:, rows].T.astype(np.float64)
    size = np.quantile(np.abs(c), 0.98, axis=1, keepdims=True)
    c = c / np.maximum(size, max(0.15 * float(size.max()), 1e-9))
    canvas.rect(left, y + 8, right - left, heights["c"], "wash")
    canvas.image(left, y + 8, right - left, heights["c"], tinted(_pooled(c), "cell", "forget"))
    if not narrow:
        _labels(canvas, found.roles[layer], rows, right + 6, y + 8, heights["c"])
    y += heights["c"] + 26
    for colour, gate, name, hint in GATES:
        canvas.text(left, y, name, bold=True, size=12, fill=colour)
        _hint(canvas, left + 8.2 * len(name) + 4, y, hint, right)
        values = getattr(what, gate)[begin:end][:, rows].T.astype(np.float64)
        canvas.rect(left, y + 8, right - left, heights["gate"], "wash")
        pooled = _pooled(values)
        low, high = (0.0, 1.0) if gate == "g" else _range(pooled)
        pixels = tinted((pooled - low) / (high - low), colour, "output" if gate == "g" else "")
        canvas.image(left, y + 8, right - left, heights["gate"], pixels)
        if not narrow:
            scale = "−1 orange, 1 full" if gate == "g" else f"{low:.2f} clear, {high:.2f} full"
            canvas.text(right + 8, y + 20, scale, size=10.5, fill="muted")
            canvas.text(right + 8, y + 35, f"mean {values.mean():.2f}", size=10.5, fill="muted")
        y += heights["gate"] + 26
    _step_axis(canvas, subject, begin, end, steps, y - 14, 3 if narrow else 7)
    return canvas


def _range(values: Floats) -> tuple[float, float]:
    """The least and the largest value but for outliers, at least a tenth apart: small changes show, noise does not."""
    low, high = (float(v) for v in np.quantile(values, (0.01, 0.99)))
    spare = max(0.1 - (high - low), 0.0) / 2
    low, high = max(low - spare, 0.0), min(high + spare, 1.0)
    return low, max(high, low + 1e-6)


def _hint(canvas: Canvas, x: float, y: float, text: str, right: float) -> None:
    if x + 5.4 * len(text) < right:
        canvas.text(x, y, text, size=11, fill="muted")


def _signals(found: Explanation, begin: int, end: int) -> dict[str, Floats]:
    """Two columns at most: what is forecast, and those that the answer rests on most."""
    seen = {
        name: values[begin:end]
        for name, values in found.subject.signals.items()
        if end <= len(values) and np.isfinite(values[begin:end]).any()
    }
    shares = found.attribution.shares
    first = list(seen)[:1] if found.subject.task == "forecast" else []
    rest = sorted(seen.keys() - set(first), key=lambda name: (-shares.get(name, 0.0), name))
    return {name: seen[name] for name in [*first, *rest][:2]}


def _trace(canvas: Canvas, values: Floats, steps: Scale, top: float, height: float, *, outside: bool) -> None:
    """`outside`: there is room for the ticks' labels at the right."""
    seen = values[np.isfinite(values)]
    low, high = float(seen.min()), float(seen.max())
    y = Scale(low, high if high > low else low + 1, top + height - 6, top + 6)
    for tick in nice_ticks(low, high, 3):
        canvas.line([(steps.begin, y(tick)), (steps.end, y(tick))], "grid", width=1)
        if outside:
            canvas.text(steps.end + 8, y(tick) + 4, number(tick), size=10.5, fill="muted")
        else:
            canvas.text(steps.begin + 2, y(tick) - 3, number(tick), size=10, fill="muted")
    canvas.line([(steps(t + 0.5), y(v)) for t, v in enumerate(values)], "signal", width=1.6)
    for t in np.flatnonzero(~np.isfinite(values))[:400].tolist():
        canvas.line([(steps(t + 0.5), top + height - 4), (steps(t + 0.5), top + height)], "output", width=1.5)


def _pooled(values: Floats) -> Floats:
    """At most MOST_COLUMNS columns: means of neighbouring steps."""
    count = values.shape[1]
    if count <= MOST_COLUMNS:
        return values
    edges = np.linspace(0, count, MOST_COLUMNS + 1).astype(np.int64)
    return np.asarray(np.add.reduceat(values, edges[:-1], 1) / np.diff(edges))


def _labels(canvas: Canvas, roles: list[Role], rows: Ints, x: float, top: float, height: float) -> None:
    """Beside the rows: what the units follow, one label for each run of neighbours that do the same."""
    runs: list[tuple[str, int, int]] = []
    for place, unit in enumerate(rows.tolist()):
        role = roles[unit]
        text = "" if role.kind == "none" else _short(role)
        if runs and runs[-1][0] == text:
            runs[-1] = (text, runs[-1][1], place + 1)
        else:
            runs.append((text, place, place + 1))
    each, free = height / len(rows), -math.inf
    named = sorted((r for r in runs if r[0]), key=lambda r: r[1] - r[2])[: int(height // 15)]
    for text, first, last in sorted(named, key=lambda r: r[1]):
        y0, y1 = top + first * each, top + last * each
        canvas.rect(x - 3, y0 + 0.5, 2.5, max(y1 - y0 - 1, 1.5), "cell", round=1)
        at = max((y0 + y1) / 2 + 3.5, free + 13)
        if at > top + height + 8:
            continue
        count = last - first
        canvas.text(x + 5, at, text + (f" ({count} units)" if count > 1 else ""), size=10.5)
        free = at


def _short(role: Role) -> str:
    return {
        "counter": f"counts {role.of}",
        "cycle": f"cycle of {role.of}",
        "trend": "trend",
        "event": f"event: {role.of}",
        "follows": f"follows {role.of}",
    }[role.kind][:28]


def _step_axis(canvas: Canvas, subject: Subject, begin: int, end: int, steps: Scale, y: float, most: int) -> None:
    """Times where the rows have them, else steps."""
    ticks: list[tuple[float, str]] = []
    if subject.time is not None and subject.clock is not None and subject.clock.stamps and end <= len(subject.time):
        time = subject.time[begin:end]
        ticks = [
            (float(np.searchsorted(time, at)), label) for at, label in time_ticks(float(time[0]), float(time[-1]), most)
        ]
    if not ticks:
        ticks = [(tick, number(tick)) for tick in nice_ticks(0, end - begin, most)]
    last = -math.inf
    for at, label in ticks:
        x = steps(at)
        wide = 3.2 * len(label)
        if x - wide < last or x + wide > steps.end + 2:
            continue
        canvas.line([(x, y - 6), (x, y - 2)], "muted", width=1)
        canvas.text(max(x, steps.begin + wide), y + 10, label, size=10.5, fill="muted", anchor="middle")
        last = x + wide + 6


def units(found: Explanation, width: float) -> Canvas | None:
    """A few units beside what they follow, both in their own spread; None where none follows anything."""
    picked = chosen_units(found)
    if not picked:
        return None
    columns = 1 if width < NARROW else 2
    each, tall = (width - 24 * (columns - 1)) / columns, 128.0
    rows = -(-len(picked) // columns)
    words = "; ".join(f"{found.layers[k].name}, unit {role.unit} {role.describe()}" for k, role in picked)
    canvas = Canvas(width, rows * tall, f"Single units and what they follow: {words}.")
    _, begin, end = shown(found)
    for n, (k, role) in enumerate(picked):
        left, top = (n % columns) * (each + 24), (n // columns) * tall
        what = found.layers[k]
        c = what.c[begin:end, role.unit].astype(np.float64)
        canvas.text(left, top + 14, f"Unit {role.unit}", bold=True, size=12)
        prefix = f"{what.name}, " if len(found.layers) > 1 else ""
        canvas.text(left + 52, top + 14, prefix + role.describe(), size=11, fill="muted")
        steps = Scale(0, end - begin, left, left + each)
        canvas.rect(left, top + 22, each, tall - 40, "wash", round=4)
        other = _partner(found, role, what, begin, end)
        for values, colour, wide in ((other, "plain", 1.3), (c, "cell", 2.0)):
            if values is None or not np.isfinite(values).any():
                continue
            low, high = np.nanmin(values), np.nanmax(values)
            y = Scale(low, high if high > low else low + 1, top + tall - 24, top + 28)
            canvas.line([(steps(t + 0.5), y(v)) for t, v in _thinned(values)], colour, width=wide)
    return canvas


def _thinned(values: Floats) -> list[tuple[float, float]]:
    every = max(1, len(values) // 600)
    return [(float(t), float(values[t])) for t in range(0, len(values), every)]


def chosen_units(found: Explanation, most: int = 6) -> list[tuple[int, Role]]:
    """Of each kind and thing followed the unit that does so most clearly; counters and events first."""
    rank = {"counter": 0, "event": 1, "cycle": 2, "follows": 3, "trend": 4}
    best: dict[tuple[str, str], tuple[int, Role]] = {}
    spare: list[tuple[int, Role]] = []
    for k, roles in enumerate(found.roles):
        for role in sorted(roles, key=lambda role: -role.strength):
            if role.kind == "none":
                continue
            if (role.kind, role.of) in best:
                spare.append((k, role))
            else:
                best[role.kind, role.of] = (k, role)
    first = sorted(best.values(), key=lambda pair: (rank[pair[1].kind], -pair[1].strength))
    spare.sort(key=lambda pair: -pair[1].strength)
    return (first + spare)[:most]


def _partner(found: Explanation, role: Role, layer: Layer, begin: int, end: int) -> Floats | None:
    """What the unit follows, as its own trace with the sign of the unit's."""
    c = layer.c[begin:end, role.unit].astype(np.float64)
    t = np.arange(end - begin, dtype=np.float64)
    values: Floats
    if role.kind in ("follows", "event", "counter") and role.of in found.subject.signals:
        values = found.subject.signals[role.of][begin:end]
        if role.kind == "counter":
            values = np.cumsum(np.nan_to_num(values))
    elif role.kind in ("trend", "counter"):
        values = t
    elif role.kind == "cycle":
        waves = [np.ones_like(t), t]
        period = _period(role, found, len(t))
        for harmonic in (1, 2):
            waves += [np.sin(2 * np.pi * harmonic * t / period), np.cos(2 * np.pi * harmonic * t / period)]
        basis = np.stack(waves, 1)
        return np.asarray(basis @ np.linalg.lstsq(basis, c, rcond=None)[0])
    else:
        return None
    seen = np.isfinite(values)
    if seen.sum() > 2 and role.kind != "event" and np.std(values[seen]) > 0 and np.std(c[seen]) > 0:
        values = values * np.sign(np.corrcoef(values[seen], c[seen])[0, 1] or 1.0)
    return np.asarray(values)


def _period(role: Role, found: Explanation, steps: int) -> float:
    pace, usual = found.subject.pace, [float(m) for m in found.subject.seasons]
    longest = int(found.subject.lengths.max())
    for period in [*usual, *(longest / n for n in range(2, 41))]:
        if pace.describe(period) == role.of:
            return period
    return float(steps)
