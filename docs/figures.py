"""Draws the figures of docs/inside.md: `python docs/figures.py` writes docs/images/inside-*.svg and prints the numbers.

The model is the demo's (`carousel demo --out demo`, made where it is missing); the counter is built by hand.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import torch

import carousel
from carousel.explain import charts, explain, figures, record, timescales
from carousel.explain.canvas import Canvas
from carousel.explain.scales import Scale, log_ticks, nice_ticks, number
from carousel.inputs.files import read_file

IMAGES = Path(__file__).parent / "images"
WIDTH = 860.0


def cell() -> Canvas:
    """The cell as a picture: the state runs along the top, three gates are valves on it."""
    canvas = Canvas(
        WIDTH,
        340,
        "An LSTM cell. The cell state c runs straight from left to right: it is multiplied by the forget gate, then the"
        " input gate times the candidate is added. The output gate lets tanh of the state out as h.",
    )
    belt, low = 84.0, 246.0
    canvas.rect(150, 30, 560, 250, "wash", round=18)
    canvas.line([(40, belt), (820, belt)], "cell", width=7)
    _arrow(canvas, 820, belt, "cell")
    canvas.text(40, belt - 16, "c", size=19, bold=True, fill="cell")
    canvas.text(58, belt - 16, "before", size=13, fill="muted")
    canvas.text(760, belt - 16, "c", size=19, bold=True, fill="cell")
    canvas.text(778, belt - 16, "after", size=13, fill="muted")
    places = {"forget": 240.0, "input": 365.0, "candidate": 475.0, "output": 620.0}
    letters = {"forget": "f", "input": "i", "candidate": "g", "output": "o"}
    canvas.line([(40, low + 54), (180, low + 54), (180, low + 32), (places["output"], low + 32)], "ink", width=2)
    for name, x in places.items():
        canvas.line([(x, low + 32), (x, low + 16)], "ink", width=2)
        half = 46 if name == "candidate" else 39
        canvas.rect(x - half, low - 20, 2 * half, 36, name, round=8)
        canvas.text(x, low + 3, name, size=14, fill="paper", anchor="middle", bold=True)
        canvas.text(x + half + 5, low - 22, letters[name], size=15, bold=True, fill=name)
    canvas.text(40, low + 44, "x and h before", size=13, fill="muted")
    canvas.line([(places["forget"], low - 20), (places["forget"], belt)], "forget", width=3)
    _knob(canvas, places["forget"], belt, "×", "forget")
    both = 420.0
    canvas.line([(places["input"], low - 20), (places["input"], 166), (both, 166)], "input", width=3)
    canvas.line([(places["candidate"], low - 20), (places["candidate"], 166), (both, 166)], "candidate", width=3)
    canvas.line([(both, 166), (both, belt)], "candidate", width=3)
    _knob(canvas, both, 166, "×", "input")
    _knob(canvas, both, belt, "+", "cell")
    canvas.line([(540, belt), (540, 166), (places["output"], 166)], "cell", width=3)
    canvas.text(532, 140, "tanh", size=13, fill="muted", anchor="end")
    canvas.line([(places["output"], low - 20), (places["output"], 166)], "output", width=3)
    canvas.line([(places["output"], 166), (820, 166)], "ink", width=3)
    _arrow(canvas, 820, 166, "ink")
    _knob(canvas, places["output"], 166, "×", "output")
    canvas.text(760, 152, "h", size=19, bold=True)
    canvas.text(778, 152, "shown", size=13, fill="muted")
    canvas.text(150, 322, "keep how much of c (f), add how much (i) of what (g), show how much (o)", size=14)
    return canvas


def _knob(canvas: Canvas, x: float, y: float, sign: str, colour: str) -> None:
    canvas.circle(x, y, 16, colour)
    canvas.text(x, y + 7, sign, size=21, fill="paper", anchor="middle", bold=True)


def _arrow(canvas: Canvas, x: float, y: float, colour: str) -> None:
    canvas.area([(x + 14, y), (x - 4, y - 9), (x - 4, y + 9)], colour, opacity=1.0)


def counter() -> Canvas:
    """A unit that counts events: the input gate opens at them, the forget gate stays at 1."""
    lstm = carousel.LSTM(1, 1)
    with torch.no_grad():
        for weight in lstm.parameters():
            weight.zero_()
        lstm.weight_ih_l0[0] = 40.0  # input gate: open where x is 1
        lstm.bias_ih_l0[:] = torch.tensor([-20.0, 40.0, 20.0, 40.0])  # i, f, g, o
    rng = np.random.default_rng(7)
    x = (rng.random(120) < 0.09).astype(np.float32)
    (layer,) = record(lstm, lambda: lstm(torch.from_numpy(x)[:, None, None]))
    count = int(x.sum())
    assert np.allclose(layer.c[:, 0], np.cumsum(x), atol=1e-5)
    canvas = Canvas(
        WIDTH, 240, f"{count} events, the input gate that opens at each, and a cell state that counts them."
    )
    steps = Scale(0, 120, 110, WIDTH - 30)
    for top, name, values, colour in ((14, "event", x, "ink"), (70, "input gate", layer.i[:, 0], "input")):
        canvas.text(6, top + 24, name, size=14, bold=True, fill=colour)
        y = Scale(0, 1, top + 36, top + 4)
        canvas.line([(steps(0), top + 36), (steps(120), top + 36)], "grid", width=1)
        for t, value in enumerate(values.tolist()):
            if value > 0.01:
                canvas.line([(steps(t + 0.5), top + 36), (steps(t + 0.5), y(value))], colour, width=3)
    canvas.text(6, 172, "cell state", size=14, bold=True, fill="cell")
    y = Scale(0, count, 222, 128)
    for tick in nice_ticks(0, count, 3):
        canvas.line([(steps(0), y(tick)), (steps(120), y(tick))], "grid", width=1)
        canvas.text(steps(120) + 6, y(tick) + 4, number(tick), size=12, fill="muted")
    stairs = [(steps(t + side), y(float(layer.c[t, 0]))) for t in range(120) for side in (0, 1)]
    canvas.line(stairs, "cell", width=3)
    return canvas


def factors() -> Canvas:
    """What is left of a gradient after so many steps along the cell state, for some forget gates."""
    canvas = Canvas(
        WIDTH, 330, "Share of the gradient left after up to 100 steps for forget gates of 1, 0.99, 0.9 and 0.5."
    )
    x, y = Scale(0, 100, 60, WIDTH - 175), Scale(1e-12, 3, 286, 12, log=True)
    for tick in log_ticks(1e-12, 1, 7):
        canvas.line([(60, y(tick)), (WIDTH - 175, y(tick))], "grid", width=1)
        canvas.text(52, y(tick) + 4, number(tick), size=12, fill="muted", anchor="end")
    for gate, name in (
        (1.0, "1"),
        (0.99, "0.99: half in 69 steps"),
        (0.9, "0.9: half in 6.6"),
        (0.5, "0.5: half in 1"),
    ):
        stop = min(100.0, math.log(1e-12) / math.log(gate)) if gate < 1 else 100.0
        canvas.line([(x(0), y(1)), (x(stop), y(gate**stop))], "forget", width=3, opacity=0.45 + 0.55 * gate)
        at = (x(100) + 8, y(gate**100) + (12 if gate == 0.99 else 2)) if gate > 0.6 else (x(stop) + 10, 276)
        canvas.text(*at, name, size=12.5, fill="forget", bold=True)
    for tick in nice_ticks(0, 100, 5):
        canvas.text(x(tick), 306, number(tick), size=12, fill="muted", anchor="middle")
    canvas.text(60, 325, "steps back, along a forget gate of ...", size=12.5)
    return canvas


def main(folder: Path) -> None:
    """Every figure of the page; the demo's files are read from `folder`, or made there."""
    model, data = folder / "co2.safetensors", folder / "co2.csv"
    if not model.exists():
        from carousel import demo

        demo.run(folder)
    found = explain(model, read_file(data), source="co2.csv")
    drawn = {
        "cell": cell(),
        "counter": counter(),
        "factors": factors(),
        "gates": figures.gates(found, 0, WIDTH),
        "units": figures.units(found, WIDTH),
        "half-lives": timescales.half_lives(found, WIDTH),
        "influence": timescales.influence(found, WIDTH),
        "gradients": charts.flow(found, WIDTH),
        "attribution": charts.attribution(found, WIDTH),
        "deletion": charts.deletion(found, WIDTH),
    }
    for name, canvas in drawn.items():
        if canvas is not None:
            (IMAGES / f"inside-{name}.svg").write_text(canvas.svg(alone=True) + "\n", "utf-8")
    for sentence in (*found.findings(), *found.advice, *found.subject.notes):
        print(sentence)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
