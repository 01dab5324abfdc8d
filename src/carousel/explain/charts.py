"""The figures of gradients, attribution and health."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from carousel.explain.attribution import FRACTIONS
from carousel.explain.canvas import Canvas, tinted
from carousel.explain.figures import NARROW
from carousel.explain.gradients import Flow
from carousel.explain.scales import Scale, log_ticks, nice_ticks, number

if TYPE_CHECKING:
    from carousel.explain.study import Explanation

__all__ = ["MOST_CHANNELS", "attribution", "deletion", "flow", "saturation"]

Floats = NDArray[np.float64]

LEAST = 1e-12  # of a gradient's norm, relative to lag 1
MOST_CHANNELS = 16
MOST_COLUMNS = 420


def flow(found: Explanation, width: float) -> Canvas:
    """Norms by lag, each line in units of its own at lag 1, on a logarithmic axis."""
    flows = found.flows
    lines: list[tuple[str, Floats, str, str, float]] = []
    for k, one in enumerate([flows.model, *flows.twins]):
        lines += _lines(one, k)
    lags = max(len(values) for _, values, *_ in lines)
    height = 250.0 if width < NARROW else 300.0
    legend = 18.0 * len(lines) + 14
    left, right, top, foot = 44.0, width - 8, 10.0, height - 36
    ends = [max(float(values[-1]), LEAST) for _, values, *_ in lines]
    low = max(LEAST, min(min(float(values.min()) for _, values, *_ in lines), min(ends)) * 0.5)
    high = max(2.0, *(float(values.max()) * 1.5 for _, values, *_ in lines))
    words = ", ".join(f"{name} {end:.1e}" for (name, *_), end in zip(lines, ends, strict=True))
    canvas = Canvas(width, height + legend, f"Gradient norms by lag relative to lag 1; at lag {lags - 1}: {words}.")
    x, y = Scale(0, max(lags - 1, 1), left, right), Scale(low, high, foot, top, log=True)
    for tick in log_ticks(low, high, 6):
        canvas.line([(left, y(tick)), (right, y(tick))], "grid", width=1)
        canvas.text(left - 6, y(tick) + 4, number(tick), size=10.5, fill="muted", anchor="end")
    for name, values, colour, dash, wide in lines:
        every = max(1, len(values) // 600)
        points = [(x(t), y(max(float(values[t]), low))) for t in range(0, len(values), every)]
        canvas.line(points, colour, width=wide, dash=dash, tip=name)
    for tick in nice_ticks(0, lags - 1, 4 if width < NARROW else 8):
        canvas.text(x(tick), foot + 15, number(tick), size=10.5, fill="muted", anchor="middle")
    canvas.text(left, foot + 30, "steps before the loss (gradient at lag 1 = 1)", size=11)
    for k, (name, _, colour, dash, wide) in enumerate(lines):
        at = height + 18.0 * k + 18
        canvas.line([(left, at - 4), (left + 26, at - 4)], colour, width=wide, dash=dash)
        canvas.text(left + 34, at, name, size=11)
    return canvas


def _lines(one: Flow, k: int) -> list[tuple[str, Floats, str, str, float]]:
    def scaled(values: Floats) -> Floats:
        return np.asarray(values / max(float(values[min(1, len(values) - 1)]), 1e-300))

    if one.c is None:
        return [(f"{one.name}: h", scaled(one.h), "plain", "", 2.4)]
    if k:
        return [(f"{one.name}: c", scaled(one.c), "cell", "6 4", 1.6)]
    return [
        (f"{one.name}: c", scaled(one.c), "cell", "", 2.4),
        (f"{one.name}: h", scaled(one.h), "forget", "2 4", 1.6),
    ]


def attribution(found: Explanation, width: float) -> Canvas | None:
    """Mean absolute attribution by channel and steps before the end, with the share of each channel beside it; None of
    texts, whose channels are nameless."""
    made, subject = found.attribution, found.subject
    if made.columns == ["token"]:
        return None
    lengths = subject.lengths[made.which]
    narrow = width < NARROW
    if len(subject.channels) <= MOST_CHANNELS:
        names, values = [channel.name for channel in subject.channels], np.abs(made.values)
    else:
        names, size = list(made.columns), np.abs(made.values)
        values = np.stack([size[..., made.column_of == k].sum(-1) for k in range(len(names))], -1)
    aligned = _by_lag(values, lengths)  # [T, R], the last step last
    share = aligned.sum(0) / max(float(aligned.sum()), 1e-30)
    rows = np.argsort(-share)[:MOST_CHANNELS]
    label = min(150.0 if narrow else 230.0, 16 + 6.4 * max(len(names[k]) for k in rows))
    each = 20.0
    left, right, top = label, width - 62, 58.0
    height = top + each * len(rows) + 40
    first = ", ".join(f"{names[k]} {share[k]:.0%}" for k in rows[:4])
    canvas = Canvas(width, height, f"Absolute attribution by channel and time. Largest shares: {first}.")
    steps = len(aligned)
    x = Scale(0, steps, left, right)
    total = aligned.sum(1)
    y = Scale(0, float(total.max()) or 1.0, top - 8, 8)
    pooled = _pooled(total[None])[0]
    places = np.linspace(left, right, len(pooled))
    canvas.area(
        [(left, top - 8), *((px, y(v)) for px, v in zip(places, pooled, strict=True)), (right, top - 8)],
        "cell",
        opacity=0.3,
    )
    canvas.line([(px, y(v)) for px, v in zip(places, pooled, strict=True)], "cell", width=1.4)
    picture = aligned[:, rows].T
    picture = np.sqrt(picture / max(float(np.quantile(picture, 0.995)), 1e-30))
    canvas.rect(left, top, right - left, each * len(rows), "wash")
    canvas.image(left, top, right - left, each * len(rows), tinted(_pooled(picture), "cell"))
    widest = float(share[rows].max()) or 1.0
    for n, k in enumerate(rows.tolist()):
        at = top + each * n
        name = names[k] if len(names[k]) * 6.2 < label - 8 else names[k][: int((label - 14) / 6.2)] + "…"
        canvas.text(left - 8, at + 14, name, size=11, anchor="end")
        canvas.rect(right + 4, at + 4, max(1.0, 18 * float(share[k]) / widest), each - 8, "cell", opacity=0.75)
        text = f"{share[k]:.0%}" if share[k] >= 0.01 else "<1 %"
        canvas.text(width - 2, at + 14, text, size=10.5, fill="muted", anchor="end")
    foot = top + each * len(rows)
    for tick in nice_ticks(0, steps, 3 if narrow else 6):
        px = x(steps - tick)
        if left + 8 <= px:
            canvas.text(
                min(px, right - 4),
                foot + 15,
                f"−{number(tick)}" if tick else "end",
                size=10.5,
                fill="muted",
                anchor="middle" if tick else "end",
            )
    canvas.text(left, foot + 31, "steps before the end", size=11)
    return canvas


def _by_lag(values: Floats, lengths: NDArray[np.int64]) -> Floats:
    """Means over sequences [T, R], aligned at their ends."""
    _, t, r = values.shape
    total, count = np.zeros((t, r)), np.zeros((t, 1))
    for row, length in zip(values, lengths.tolist(), strict=True):
        total[t - length :] += row[:length]
        count[t - length :] += 1
    return np.asarray(total / np.maximum(count, 1))


def _pooled(values: Floats) -> Floats:
    count = values.shape[1]
    if count <= MOST_COLUMNS:
        return values
    edges = np.linspace(0, count, MOST_COLUMNS + 1).astype(np.int64)
    return np.asarray(np.add.reduceat(values, edges[:-1], 1) / np.diff(edges))


def deletion(found: Explanation, width: float) -> Canvas:
    """How far the answer is on its way to that of average rows when cells are deleted, in both orders."""
    test = found.attribution.deletion
    height = 200.0 if width < NARROW else 240.0
    left, right, top, foot = 44.0, width - 10, 12.0, height - 36
    low, high = min(0.0, float(test.random.min()), float(test.attributed.min())), max(1.0, float(test.attributed.max()))
    alt = (
        f"Deletion test: with a fifth of the cells gone the answer is {test.attributed[4]:.0%} of its way when they go"
        f" by attribution, {test.random[4]:.0%} at random."
    )
    canvas = Canvas(width, height, alt)
    x, y = Scale(0, 1, left, right), Scale(low, high * 1.05, foot, top)
    for tick in nice_ticks(low, high, 4):
        canvas.line([(left, y(tick)), (right, y(tick))], "grid", width=1)
        canvas.text(left - 6, y(tick) + 4, f"{tick:.0%}", size=10.5, fill="muted", anchor="end")
    upper = [(x(f), y(v + s)) for f, v, s in zip(test.fractions, test.random, test.spread, strict=True)]
    lower = [(x(f), y(v - s)) for f, v, s in zip(test.fractions, test.random, test.spread, strict=True)]
    canvas.area([*upper, *lower[::-1]], "plain", opacity=0.25)
    canvas.line([(x(f), y(v)) for f, v in zip(test.fractions, test.random, strict=True)], "plain", width=2)
    canvas.line([(x(f), y(v)) for f, v in zip(test.fractions, test.attributed, strict=True)], "cell", width=2.4)
    at = FRACTIONS.index(0.5)
    canvas.text(x(0.5) - 8, y(test.attributed[at]) - 8, "by attribution", size=11, fill="cell", bold=True, anchor="end")
    below = y(float(np.interp(0.62, test.fractions, test.random))) + 24
    canvas.text(x(0.62), min(below, foot - 4), "at random", size=11, fill="muted", bold=True)
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        anchor = "end" if tick == 1 else "middle"
        canvas.text(x(tick), foot + 15, f"{tick:.0%}", size=10.5, fill="muted", anchor=anchor)
    canvas.text(left, foot + 30, "share of cells deleted", size=11)
    return canvas


def saturation(found: Explanation, width: float) -> Canvas:
    """Of each layer and gate: how often it is shut, in between, open."""
    tall, each = 26.0, 20.0
    height = sum(tall + 3 * each + 8 for _ in found.health) + 22
    words = "; ".join(
        f"{h.layer}: " + ", ".join(f"{g} shut {h.shut[g]:.0%} open {h.open[g]:.0%}" for g in h.shut)
        for h in found.health
    )
    canvas = Canvas(width, height, f"Saturation of the gates. {words}.")
    left, right, y = 58.0, width - 4, 0.0
    for h in found.health:
        canvas.text(0, y + 16, h.layer, bold=True, size=12)
        y += tall
        for gate in ("input", "forget", "output"):
            canvas.text(left - 8, y + 13, gate, size=11, anchor="end")
            x = Scale(0, 1, left, right)
            shut, opened = h.shut[gate], h.open[gate]
            canvas.rect(left, y + 2, right - left, each - 6, "wash", round=3)
            canvas.rect(left, y + 2, x(shut) - left, each - 6, "plain", round=3, tip=f"shut {shut:.1%}")
            canvas.rect(x(1 - opened), y + 2, right - x(1 - opened), each - 6, gate, round=3, tip=f"open {opened:.1%}")
            y += each
        y += 8
    canvas.text(left, y + 10, "grey: below 0.05, shut", size=11, fill="muted")
    canvas.text(right, y + 10, "colour: above 0.95, open", size=11, fill="muted", anchor="end")
    return canvas
