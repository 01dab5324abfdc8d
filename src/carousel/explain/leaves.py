"""The figures of attribution over what people read and see: tokens and pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from carousel.explain.canvas import Canvas, tinted
from carousel.explain.figures import NARROW
from carousel.explain.frames import FramesSubject

if TYPE_CHECKING:
    from carousel.explain.study import Explanation

__all__ = ["pixels", "tokens"]


def tokens(found: Explanation, width: float, most: int = 6, longest: int = 60) -> Canvas | None:
    """The last tokens of some texts, each the fuller the more the answer rests on it; None where there are none."""
    made, subject = found.attribution, found.subject
    if subject.tokens is None:
        return None
    size, tall = 12.5, 24.0
    each = size * 0.602
    between = 5 if any(len(token) > 2 for token in subject.tokens[:500]) else 0  # single letters are read as words
    cells = made.values.sum(2)
    placed: list[tuple[float, float, str, float]] = []
    x, y = 0.0, 20.0
    for n in range(min(most, len(made.which))):
        b = int(made.which[n])
        begin, length = int(subject.offsets[b]), int(subject.lengths[b])
        skip = max(0, length - longest)
        weight = cells[n, skip:length]
        top = max(float(np.abs(weight).max()), 1e-30)
        for token, value in zip(subject.tokens[begin + skip : begin + length], weight, strict=True):
            text = _plain(token)
            wide = each * len(text) + between
            if x + wide > width - 2:
                x, y = 0.0, y + tall
            placed.append((x, y, text, float(value) / top))
            x += wide
        x, y = 0.0, y + tall + 14
    canvas = Canvas(width, y - 16, "Tokens coloured by their attribution: red speaks for the answer, blue against it.")
    for x, y, text, value in placed:
        if abs(value) > 0.03:
            colour = "cell" if value > 0 else "forget"
            canvas.rect(
                x,
                y - 15,
                each * len(text) + min(between, 3),
                20,
                colour,
                opacity=0.06 + 0.44 * min(1.0, abs(value)),
                round=3,
            )
        canvas.text(x + min(between, 3) / 2, y, text, size=size, mono=True)
    return canvas


def _plain(token: str) -> str:
    return token.replace("▁", "·").replace("Ġ", "·").replace("\n", "⏎").replace("</s>", "∎").replace(" ", "·") or "·"


def pixels(found: Explanation, width: float) -> Canvas | None:
    """Some frames of the clip whose answer is surest, in grey, under their attribution; None where there are none."""
    subject = found.subject
    if not isinstance(subject, FramesSubject) or subject.maps is None:
        return None
    n = int(np.abs(found.attribution.expected).argmax())
    b = int(found.attribution.which[n])
    length, begin = int(subject.lengths[b]), int(subject.offsets[b])
    count = min(length, 4 if width < NARROW else 8)
    at = np.linspace(0, length - 1, count).round().astype(np.int64)
    clip = np.asarray(subject.seen.values[begin : begin + length]).astype(np.float64)
    maps = subject.maps[n].double().numpy()
    scale = max(float(np.quantile(np.abs(maps[:length]), 0.995)), 1e-30)
    gap, caption = 6.0, 18.0
    side = (width - gap * (count - 1)) / count
    tall = side * clip.shape[1] / clip.shape[2]
    alt = f"Frames of {subject.names[b]} with the pixels that the answer rests on: red for it, blue against it."
    canvas = Canvas(width, 2 * (tall + gap) + caption, alt)
    for k, t in enumerate(at.tolist()):
        x = k * (side + gap)
        canvas.text(x, 12, f"frame {t + 1}", size=10.5, fill="muted")
        grey = clip[t].mean(-1).round().astype(np.uint8)
        picture = np.stack([grey, grey, grey, np.full_like(grey, 255)], -1)
        canvas.image(x, caption, side, tall, picture)
        canvas.rect(x, caption + tall + gap, side, tall, "wash")
        canvas.image(x, caption + tall + gap, side, tall, tinted(maps[t] / scale, "cell", "forget"))
    return canvas
