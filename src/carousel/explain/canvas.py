"""A drawing as a list of shapes, written as SVG whose colours follow the reader's light or dark, or as PNG.

Two writers of one list, rather than matplotlib's SVG: text stays text, colours stay names until the page is shown, and
a figure of a few hundred shapes is a few kilobytes.
"""

from __future__ import annotations

import base64
import html
import io
import os
import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel import atomic

__all__ = ["DARK", "LIGHT", "Canvas", "style", "tinted"]

# Every colour of text has a contrast of 4.5 or more with the paper it stands on, in both.
LIGHT = {
    "paper": "#ffffff",
    "wash": "#f3f5f8",
    "ink": "#18202a",
    "muted": "#596373",
    "grid": "#dfe4ea",
    "input": "#0d7f6c",
    "forget": "#2257c9",
    "output": "#9c4f00",
    "candidate": "#8a3fb8",
    "cell": "#c22d54",
    "plain": "#5f6876",
    "signal": "#18202a",
}
DARK = {
    "paper": "#12161c",
    "wash": "#1c222b",
    "ink": "#e9edf2",
    "muted": "#a5afbd",
    "grid": "#303845",
    "input": "#3ecbb0",
    "forget": "#7fa6ff",
    "output": "#f2a14b",
    "candidate": "#cf93f2",
    "cell": "#ff7d98",
    "plain": "#98a3b3",
    "signal": "#e9edf2",
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

Points = Sequence[tuple[float, float]]


def style() -> str:
    """CSS variables of both palettes."""
    light, dark = (";".join(f"--{name}:{value}" for name, value in p.items()) for p in (LIGHT, DARK))
    return f":root{{color-scheme:light dark;{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"


class _Shape(NamedTuple):
    kind: str
    at: Any
    paint: dict[str, Any]


class Canvas:
    """Shapes on paper of width x height pixels; y grows downwards. `alt` says in words what is to be seen."""

    def __init__(self, width: float, height: float, alt: str) -> None:
        self.width, self.height, self.alt = width, height, alt
        self.shapes: list[_Shape] = []

    def rect(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        fill: str,
        *,
        opacity: float = 1.0,
        round: float = 0,
        tip: str = "",
    ) -> None:
        self.shapes.append(_Shape("rect", (x, y, w, h), {"fill": fill, "opacity": opacity, "round": round, "tip": tip}))

    def line(
        self, points: Points, stroke: str, *, width: float = 1.5, opacity: float = 1.0, dash: str = "", tip: str = ""
    ) -> None:
        """Points that are not finite leave a gap."""
        parts: list[list[tuple[float, float]]] = [[]]
        for x, y in points:
            if np.isfinite(x) and np.isfinite(y):
                parts[-1].append((x, y))
            elif parts[-1]:
                parts.append([])
        paint = {"stroke": stroke, "width": width, "opacity": opacity, "dash": dash, "tip": tip}
        for part in parts:
            if len(part) == 1:
                self.circle(*part[0], width, stroke, opacity=opacity)
            elif part:
                self.shapes.append(_Shape("line", part, paint))

    def area(self, points: Points, fill: str, *, opacity: float = 0.2) -> None:
        self.shapes.append(_Shape("area", list(points), {"fill": fill, "opacity": opacity}))

    def circle(self, x: float, y: float, r: float, fill: str, *, opacity: float = 1.0, tip: str = "") -> None:
        self.shapes.append(_Shape("circle", (x, y, r), {"fill": fill, "opacity": opacity, "tip": tip}))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 11,
        fill: str = "ink",
        anchor: str = "start",
        bold: bool = False,
        turn: float = 0,
        mono: bool = False,
    ) -> None:
        paint = {"size": size, "fill": fill, "anchor": anchor, "bold": bold, "turn": turn, "mono": mono}
        self.shapes.append(_Shape("text", (x, y, text), paint))

    def image(self, x: float, y: float, w: float, h: float, rgba: NDArray[np.uint8]) -> None:
        """Pixels [rows, columns, 4], stretched without smoothing."""
        self.shapes.append(_Shape("image", (x, y, w, h), {"rgba": rgba}))

    def svg(self, *, alone: bool = False) -> str:
        """Inline SVG; `alone`: a file of its own, with the palettes in it."""
        body = "".join(_svg(shape) for shape in self.shapes)
        own = f"<title>{html.escape(self.alt)}</title><style>{style()}</style>" if alone else ""
        name = ' xmlns="http://www.w3.org/2000/svg"' if alone else ""
        w, h = _n(self.width), _n(self.height)
        paper = f'<rect width="{w}" height="{h}" style="fill:var(--paper)"/>' if alone else ""
        return (
            f'<svg{name} role="img" aria-label="{html.escape(self.alt)}" viewBox="0 0 {w} {h}" width="{w}" height="{h}"'
            f' font-family="{html.escape(FONT)}">'
            f"{own}{paper}{body}</svg>"
        )

    def png(self, path: str | os.PathLike[str], *, palette: dict[str, str] = LIGHT, scale: float = 2.0) -> None:
        """A picture of the same, `scale` dots a pixel."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure((self.width / 72, self.height / 72), dpi=72 * scale, facecolor=palette["paper"])
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, self.width), ylim=(self.height, 0))
        axes.set_axis_off()
        for order, shape in enumerate(self.shapes):
            _draw(axes, shape, palette, order)
        made = io.BytesIO()
        figure.savefig(made, format="png", facecolor=palette["paper"])
        atomic.write_bytes(path, made.getvalue())


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _svg(shape: _Shape) -> str:
    paint = shape.paint
    tip = f"<title>{html.escape(paint['tip'])}</title>" if paint.get("tip") else ""
    faint = f";opacity:{paint['opacity']:g}" if paint.get("opacity", 1.0) < 1 else ""
    if shape.kind == "rect":
        x, y, w, h = map(_n, shape.at)
        corner = f' rx="{_n(paint["round"])}"' if paint["round"] else ""
        at = f'x="{x}" y="{y}" width="{w}" height="{h}"{corner}'
        return f'<rect {at} style="fill:var(--{paint["fill"]}){faint}">{tip}</rect>'
    if shape.kind == "circle":
        x, y, r = map(_n, shape.at)
        return f'<circle cx="{x}" cy="{y}" r="{r}" style="fill:var(--{paint["fill"]}){faint}">{tip}</circle>'
    if shape.kind in ("line", "area"):
        points = " ".join(f"{_n(x)},{_n(y)}" for x, y in shape.at)
        if shape.kind == "area":
            return f'<polygon points="{points}" style="fill:var(--{paint["fill"]}){faint}"/>'
        dash = f";stroke-dasharray:{paint['dash']}" if paint["dash"] else ""
        css = f"fill:none;stroke:var(--{paint['stroke']});stroke-width:{paint['width']:g}{dash}{faint}"
        return (
            f'<polyline points="{points}" stroke-linejoin="round" stroke-linecap="round" style="{css}">{tip}</polyline>'
        )
    if shape.kind == "text":
        x, y, text = shape.at
        turn = f' transform="rotate({paint["turn"]:g} {_n(x)} {_n(y)})"' if paint["turn"] else ""
        bold = ' font-weight="650"' if paint["bold"] else ""
        mono = ' font-family="ui-monospace, Menlo, Consolas, monospace" xml:space="preserve"' if paint["mono"] else ""
        return (
            f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(paint["size"])}" text-anchor="{paint["anchor"]}"{bold}{mono}'
            f'{turn} style="fill:var(--{paint["fill"]})">{html.escape(text)}</text>'
        )
    x, y, w, h = map(_n, shape.at)
    data = base64.b64encode(_png(paint["rgba"])).decode()
    return (
        f'<image x="{x}" y="{y}" width="{w}" height="{h}" preserveAspectRatio="none" style="image-rendering:pixelated"'
        f' href="data:image/png;base64,{data}"/>'
    )


def _png(rgba: NDArray[np.uint8]) -> bytes:
    """The least that a PNG is: a header, one compressed block of rows, an end."""
    rows, columns = rgba.shape[:2]
    raw = np.concatenate([np.zeros((rows, 1), np.uint8), rgba.reshape(rows, -1)], 1).tobytes()

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", columns, rows, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")


def tinted(values: NDArray[Any], colour: str, other: str = "") -> NDArray[np.uint8]:
    """Numbers [rows, columns] as a colour that is the fuller the larger they are: 0 is clear, 1 full; below 0 in the
    `other` colour. Clear pixels let the paper through, be it light or dark."""
    values = np.nan_to_num(values)
    made = np.zeros((*values.shape, 4), np.uint8)
    for name, part in ((colour, values >= 0), (other or colour, values < 0)):
        made[part, :3] = [(int(LIGHT[name][k : k + 2], 16) + int(DARK[name][k : k + 2], 16)) // 2 for k in (1, 3, 5)]
    made[..., 3] = np.round(np.minimum(np.abs(values), 1.0) * 31) * 8  # few levels: they compress
    return made


def _draw(axes: Any, shape: _Shape, palette: dict[str, str], order: int) -> None:
    from matplotlib.patches import Circle, FancyBboxPatch, Polygon, Rectangle

    paint = shape.paint
    fill = palette.get(paint.get("fill", ""), "")
    if shape.kind == "rect":
        x, y, w, h = shape.at
        corner = min(paint["round"], w / 2, h / 2)
        box: Any = Rectangle((x, y), w, h)
        if corner:
            box = FancyBboxPatch((x, y), w, h, boxstyle=f"round,pad=0,rounding_size={corner}")
        box.set(facecolor=fill, alpha=paint["opacity"], linewidth=0, zorder=order)
        axes.add_patch(box)
    elif shape.kind == "circle":
        x, y, r = shape.at
        axes.add_patch(Circle((x, y), r, facecolor=fill, alpha=paint["opacity"], linewidth=0, zorder=order))
    elif shape.kind == "area":
        axes.add_patch(Polygon(shape.at, facecolor=fill, alpha=paint["opacity"], linewidth=0, zorder=order))
    elif shape.kind == "line":
        dash = [float(part) / max(paint["width"], 1) for part in paint["dash"].split()]
        xs, ys = zip(*shape.at, strict=True)
        axes.plot(
            xs,
            ys,
            color=palette[paint["stroke"]],
            lw=paint["width"],
            alpha=paint["opacity"],
            ls=(0, dash) if dash else "-",
            zorder=order,
        )
    elif shape.kind == "text":
        x, y, text = shape.at
        axes.text(
            x,
            y,
            text.replace("$", r"\$"),
            fontsize=paint["size"] * (0.9 if not paint["mono"] else 1),
            color=fill,
            ha={"start": "left", "middle": "center", "end": "right"}[paint["anchor"]],
            va="baseline",
            rotation=-paint["turn"],
            rotation_mode="anchor",
            fontweight="bold" if paint["bold"] else "normal",
            family="monospace" if paint["mono"] else "sans-serif",
            zorder=order,
        )
    else:
        x, y, w, h = shape.at
        axes.imshow(paint["rgba"], extent=(x, x + w, y + h, y), interpolation="nearest", aspect="auto", zorder=order)
