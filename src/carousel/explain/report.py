"""The report: one HTML file that needs no network, readable on a phone, by light and in the dark."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from carousel.explain import charts, figures, leaves, timescales
from carousel.explain.canvas import DARK, Canvas, style
from carousel.explain.memory import describe
from carousel.explain.words import findings, flow_sentence, through_sentence

if TYPE_CHECKING:
    from carousel.explain.record import Layer
    from carousel.explain.study import Explanation

__all__ = ["page", "pictures"]

WIDE, NARROW = 860.0, 348.0

Draw = Callable[["Explanation", float], Canvas | None]


class Figure(NamedTuple):
    name: str
    title: str
    draw: Draw
    caption: str


class Section(NamedTuple):
    """Text before the figures, the figures, and what folds out after them, as HTML."""

    anchor: str
    title: str
    text: str
    figures: list[Figure]
    more: str = ""


def page(found: Explanation) -> str:
    """The whole report."""
    sections = _sections(found)
    title = f"Inside {found.subject.title}"
    links = "".join(f'<li><a href="#{s.anchor}">{html.escape(s.title)}</a></li>' for s in sections)
    body = "".join(_section(found, s) for s in sections)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{html.escape(title)}</title><link rel="icon" href="data:,">'
        f"<style>{style()}{_css()}</style></head><body>"
        '<a class="skip" href="#short">To the findings</a>'
        f"<header><p class=eyebrow>Carousel: see inside</p><h1>{html.escape(title)}</h1>{_facts(found)}</header>"
        f'<div class=frame><nav aria-label="Contents"><h2>Contents</h2><ol>{links}</ol></nav><main>{body}</main></div>'
        "</body></html>\n"
    )


def pictures(found: Explanation, folder: str | os.PathLike[str]) -> list[str]:
    """Every figure as `name.png` and `name-dark.png` in `folder`, which is made where it is missing."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    made = []
    for section in _sections(found):
        for figure in section.figures:
            canvas = figure.draw(found, WIDE)
            if canvas is None:
                continue
            canvas.png(place / f"{figure.name}.png")
            canvas.png(place / f"{figure.name}-dark.png", palette=DARK)
            made += [f"{figure.name}.png", f"{figure.name}-dark.png"]
    return made


def _facts(found: Explanation) -> str:
    model, subject = found.model, found.subject
    size = f"{model['units']} units" if model["layers"] == 1 else f"{model['layers']} layers of {model['units']} units"
    member = f", member {model['member']} of {model['members']}" if model["members"] > 1 else ""
    parts = [
        ("Task", model["task"]),
        ("Model", f"{size}, {model['weights']:,} weights{member}"),
        ("Looked at", f"{len(subject.lengths):,} sequences, {int(subject.lengths.sum()):,} steps"),
        ("A step is", subject.pace.describe(1) if subject.pace.size else "a row"),
    ]
    return "<dl>" + "".join(f"<div><dt>{k}</dt><dd>{html.escape(str(v))}</dd></div>" for k, v in parts) + "</dl>"


def _section(found: Explanation, section: Section) -> str:
    drawn = "".join(_figure(found, figure) for figure in section.figures)
    title = f"<h2>{html.escape(section.title)}</h2>"
    return f'<section id="{section.anchor}">{title}{section.text}{drawn}{section.more}</section>'


def _figure(found: Explanation, figure: Figure) -> str:
    wide, narrow = figure.draw(found, WIDE), figure.draw(found, NARROW)
    if wide is None or narrow is None:
        return ""
    return (
        f'<figure id="figure-{figure.name}"><h3>{html.escape(figure.title)}</h3>'
        f"<div class=wide>{wide.svg()}</div><div class=narrow>{narrow.svg()}</div>"
        f"<figcaption>{html.escape(figure.caption)}</figcaption></figure>"
    )


def _p(*texts: str) -> str:
    return "".join(f"<p>{html.escape(text)}</p>" for text in texts if text)


def _list(texts: list[str], kind: str = "") -> str:
    return f"<ul{f' class={kind}' if kind else ''}>" + "".join(f"<li>{html.escape(t)}</li>" for t in texts) + "</ul>"


def _sections(found: Explanation) -> Iterator[Section] | list[Section]:
    advice = found.advice or ["Nothing is off: no advice."]
    short = _list(findings(found), "findings") + "<h3>Advice</h3>" + _list(advice, "advice")
    short += "".join(f"<p class=note>{html.escape(note)}</p>" for note in found.subject.notes)
    return [
        Section("short", "In short", short, []),
        _gates(found),
        _units(found),
        _memory(found),
        _gradients(found),
        _attribution(found),
        _health(found),
        Section("how", "How this was measured", _method(found), []),
    ]


def _gates(found: Explanation) -> Section:
    text = _p(
        "Each row is a unit, each column a step. At every step the forget gate says how much of the cell state c is"
        " kept, the input gate how much of the candidate is added, and the output gate how much of the result is"
        " shown. Units that do alike stand together."
    )

    def drawer(k: int) -> Draw:
        return lambda found, width: figures.gates(found, k, width)

    b, begin, end = figures.shown(found)
    steps = end - begin
    shown = [f"Shown: {found.subject.names[b]}, {steps:,} steps."]
    if steps > figures.MOST_COLUMNS:
        shown.append(f"Each column is the mean of {steps / figures.MOST_COLUMNS:.1f} steps.")
    if any(np.isnan(values[begin:end]).any() for values in found.subject.signals.values()):
        shown.append("Orange ticks are rows without an observation.")

    def title(layer: Layer) -> str:
        some = f"{figures.MOST_ROWS} of " if layer.units > figures.MOST_ROWS else ""
        return f"{layer.name[0].upper() + layer.name[1:]}: {some}{layer.units} units"

    drawn = [Figure(f"gates-{k + 1}", title(layer), drawer(k), " ".join(shown)) for k, layer in enumerate(found.layers)]
    return Section("gates", "The gates at work", text, drawn)


def _units(found: Explanation) -> Section:
    text = _p(
        "Some units can be read by themselves: they count, or go with a cycle, a trend, an event or a column. Found by"
        " the correlation of their cell state with each of these, within sequences."
    )
    rows = "".join(
        f"<tr><td>{html.escape(layer.name)}</td><td>{role.unit}</td><td>{html.escape(role.describe())}</td>"
        f"<td>{html.escape(describe(float(m.half_life[role.unit]), found.subject.pace))}</td>"
        f"<td>{m.forget[role.unit]:.2f}</td></tr>"
        for layer, roles, m in zip(found.layers, found.roles, found.memories, strict=True)
        for role in roles
    )
    table = (
        "<details><summary>All units as a table</summary><div class=scroll tabindex=0 role=region aria-label='All"
        " units'><table><thead><tr><th>layer</th><th>unit</th><th>what it does</th><th>half-life</th><th>forget"
        f" gate</th></tr></thead><tbody>{rows}</tbody></table></div></details>"
    )
    caption = "Red: the unit's cell state. Grey: what it follows. Each in its own scale."
    return Section(
        "units",
        "What single units do",
        text,
        [Figure("units", "A few units beside what they follow", figures.units, caption)],
        table,
    )


def _memory(found: Explanation) -> Section:
    text = _p(
        "A forget gate of 0.5 halves the memory at each step, one of 0.99 in 69 steps. The half-life of a unit is"
        " measured over the data: after so many steps half of what it held is left, if nothing is added.",
    )
    drawn = [
        Figure(
            "half-lives",
            "Half-life of every unit",
            timescales.half_lives,
            "Every dot is a unit; point at it to see which.",
        ),
        Figure(
            "gaps",
            "What is left after a gap",
            timescales.gaps,
            "What a gap between rows leaves of the memory: the learned decay of the cell state.",
        ),
        Figure(
            "influence",
            "How much a row matters, by how long ago it was",
            timescales.influence,
            "How far the answer moves when one row is replaced by another one's, in its spread over the sequences. The"
            " answer is " + found.subject.answer + "; only what passes through the LSTM is replaced.",
        ),
    ]
    return Section("memory", "How long it remembers", text, drawn)


def _gradients(found: Explanation) -> Section:
    flows = found.flows
    text = _p(
        "Training can only connect an answer with an early row if the gradient survives the way back. Along the cell"
        " state it is multiplied by the forget gate, which can be 1; in a plain RNN by the same matrix at every step,"
        " which makes it vanish or explode.",
        flow_sentence(found),
    )
    if flows.missing:
        text += _p(f"No plain RNN was trained beside the model: {flows.missing}.")
    else:
        text += _p(
            "The plain RNN has as many units and was trained on these data with the model's settings, batches and"
            f" optimiser alike, {flows.steps} steps (this model: {found.model['steps'] or 'not known'})."
        )
    caption = (
        f"Norm of the gradient of {flows.loss} by each step's cell state c and shown state h, geometric mean over"
        " sequences; first layer."
    )
    return Section(
        "gradients",
        "How gradients survive",
        text,
        [Figure("gradients", "How far back gradients reach", charts.flow, caption)],
    )


def _attribution(found: Explanation) -> Section:
    made = found.attribution
    test = made.deletion
    verdict = (
        "The test passes: what the attribution names moves the answer more than what chance names. You may read it."
        if test.trusted
        else "The test does not pass: chance names as well as the attribution does. Do not read it."
    )
    many = len(found.subject.channels) > charts.MOST_CHANNELS
    rows = "channel" if not many else "column"
    if many and len(made.columns) > charts.MOST_CHANNELS:
        rows = f"the {charts.MOST_CHANNELS} columns of {len(made.columns)} that count most"
    text = _p(
        f"Integrated gradients of {found.subject.answer}, from average rows to these, over {len(made.which)}"
        " sequences.",
        through_sentence(found) + "What follows is about the part that goes through it." * bool(found.subject.aside),
    )
    drawn = [
        Figure(
            "tokens",
            "Token by token",
            leaves.tokens,
            "The last tokens of some texts; the fuller, the more the answer rests on them. Red is for it, blue"
            " against.",
        ),
        Figure(
            "pixels",
            "Frame by frame",
            leaves.pixels,
            "Frames of one clip, and the pixels that the answer rests on: red speaks for it, blue against it.",
        ),
        Figure(
            "attribution",
            "Where and when",
            charts.attribution,
            f"Absolute attribution by {rows} (rows) and time; above, over all of them; right, the share of each.",
        ),
        Figure(
            "deletion",
            "The deletion test",
            charts.deletion,
            "Cells are replaced by average ones. Grey band: random orders. " + verdict,
        ),
    ]
    badge = f'<p class="badge {"good" if test.trusted else "bad"}">{html.escape(verdict)}</p>'
    return Section("attribution", "What the answer rests on", text + badge, drawn)


def _health(found: Explanation) -> Section:
    rows = "".join(
        f"<tr><td>{html.escape(h.layer)}</td><td>{h.units}</td><td>{len(h.dead)}</td><td>{h.doubles}</td><td>"
        f"{h.norm:.2f}</td><td>{h.radius:.2f}</td><td>{h.largest_c:.1f}</td></tr>"
        for h in found.health
    )
    table = (
        "<div class=scroll tabindex=0 role=region aria-label='Layers'><table><thead><tr><th>layer</th><th>units</th>"
        "<th>dead</th><th>doubles</th><th>norm of U</th><th>spectral radius</th><th>largest |c|</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )
    text = _p(
        "A gate that is always shut or open learns little, since its slope is flat there. Dead units never change;"
        " doubles say what another unit says already (|r| above 0.98). U is the recurrent matrix; the radius is of the"
        " candidate's part of it."
    )
    caption = "How often the gates are shut (grey), in between, and open (colour), over all units and steps."
    return Section(
        "health",
        "Health",
        text,
        [Figure("saturation", "Gates that are shut or open", charts.saturation, caption)],
        table,
    )


def _method(found: Explanation) -> str:
    sources = [
        "Gates and cell states come from the layer itself (trace), in evaluation mode.",
        "Half-lives: the mean logarithm of what a step keeps, after Tallec & Ollivier 2018.",
        "Gradients by lag: one backward pass through every step, after Hochreiter 1991 and Pascanu et al. 2013.",
        "Attribution: integrated gradients (Sundararajan et al. 2017) by Captum; deletion test after Samek et al."
        " 2017.",
        "Order of units: average linkage of 1 - |r|, with leaves ordered after Bar-Joseph et al. 2001.",
        f"Computed in {found.seconds:.0f} CPU seconds.",
    ]
    return _list(sources)


def _css() -> str:
    return (Path(__file__).parent / "report.css").read_text("utf-8")
