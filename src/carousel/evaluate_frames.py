"""How good are frames ahead? Squared error and structural similarity, beside what needs no model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError
from carousel.framing import predict_ahead
from carousel.inputs.frames import Bytes

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["MODEL", "FramesEvaluation", "evaluate_frames", "ssim"]

Floats = NDArray[np.float64]

MODEL = "LSTM"
COPY = "last frame"
_COLUMNS = (("MSE a frame", 1, False), ("MSE a pixel", 5, False), ("SSIM", 4, True))


@dataclass(frozen=True)
class FramesEvaluation:
    """Of each method the means over clips and steps, the model first, and `steps`: its squared error at each step.

    `MSE a frame` is the sum over the pixels of a frame, as usual with moving digits, `MSE a pixel` their mean;
    brightness counts from 0 to 1.
    """

    rows: Mapping[str, Mapping[str, float]]
    steps: Mapping[str, tuple[float, ...]]
    clips: int
    horizon: int
    context: int

    def of(self, name: str) -> Mapping[str, float]:
        """The figures of a method; KeyError without one."""
        return self.rows[name]

    def verdict(self) -> str:
        """One honest sentence: against the best of the others."""
        rest = {name: row["MSE a frame"] for name, row in self.rows.items() if name != MODEL}
        best, own = min(rest, key=lambda name: rest[name]), self.rows[MODEL]["MSE a frame"]
        if own < rest[best]:
            return f"The LSTM's squared error is {1 - own / rest[best]:.0%} below that of the best baseline ({best})."
        return f"A baseline wins or draws: {best} has a squared error of {rest[best]:.4g}, the LSTM of {own:.4g}."

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "task": "forecast",
            "clips": self.clips,
            "horizon": self.horizon,
            "context": self.context,
            "rows": [{"model": name} | dict(row) for name, row in self.rows.items()],
            "steps": {name: list(values) for name, values in self.steps.items()},
            "verdict": self.verdict(),
        }

    def markdown(self) -> str:
        head = "| model | " + " | ".join(name for name, _, _ in _COLUMNS) + " |"
        lines = [head, "| --- |" + " ---: |" * len(_COLUMNS)]
        for name, row in self.rows.items():
            lines.append(f"| {name} | " + " | ".join(f"{row[c]:.{d}f}" for c, d, _ in _COLUMNS) + " |")
        return "\n".join([*lines, "", self.verdict()])

    def table(self) -> Table:
        from rich.table import Table

        title = f"{self.clips} clips, frames 1 to {self.horizon} after {self.context}"
        made = Table(title=title, title_justify="left")
        made.add_column("model")
        for name, _, _ in _COLUMNS:
            made.add_column(name, justify="right")
        for name, row in self.rows.items():
            cells = []
            for column, digits, larger in _COLUMNS:
                values = [other[column] for other in self.rows.values()]
                best = row[column] == (max(values) if larger else min(values))
                text = f"{row[column]:.{digits}f}"
                cells.append(f"[bold]{text}[/bold]" if best else text)
            made.add_row(name, *cells)
        return made

    def show(self) -> None:
        from rich.console import Console

        console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
        console.print(self.table())
        console.print(self.verdict(), markup=False)


def evaluate_frames(
    model: Any, data: Any, *, source: str = "data", progress: Callable[[int, int], None] | None = None
) -> FramesEvaluation:
    """Predict the last `horizon` frames of each clip from those before, beside copies of the last frame, the mean of
    the frames seen, and black; clips that are too short are left out.

    Raises DataError where no clip has a frame more than the horizon.
    """
    config = model.config_
    head = config.head
    clips = model._clips(data, model._choices(), source)
    each = [np.asarray(clips.frames[a:b]) for a, b in zip(clips.offsets[:-1], clips.offsets[1:], strict=True)]
    each = [clip for clip in each if len(clip) > head.horizon]
    if not each:
        raise DataError(f"{source}: no clip has more than {head.horizon} frames, the horizon; give longer ones.")
    total: dict[str, list[Floats]] = {}
    alike: dict[str, list[float]] = {}
    for start in range(0, len(each), 32):
        part = each[start : start + 32]
        seen = [clip[: -head.horizon][-head.context :] for clip in part]
        ahead = predict_ahead(model.model_, seen, head.horizon, head.context)
        for clip, before, made in zip(part, seen, ahead, strict=True):
            truth = clip[-head.horizon :].astype(np.float64) / 255
            for name, guess in _guesses(made, before, head.horizon).items():
                total.setdefault(name, []).append(((guess - truth) ** 2).sum((1, 2, 3)))
                alike.setdefault(name, []).append(
                    float(np.mean([ssim(g, t) for g, t in zip(guess, truth, strict=True)]))
                )
        if progress:
            progress(start + len(part), len(each))
    pixels = int(np.prod(config.input.picture.shape))
    rows, steps = {}, {}
    for name, errors in total.items():
        mean = np.stack(errors).mean(0)
        steps[name] = tuple(float(e) for e in mean)
        figures = (float(mean.mean()), float(mean.mean() / pixels), float(np.mean(alike[name])))
        rows[name] = dict(zip((c for c, _, _ in _COLUMNS), figures, strict=True))
    return FramesEvaluation(rows, steps, len(each), head.horizon, head.context)


def _guesses(made: Bytes, seen: Bytes, horizon: int) -> dict[str, Floats]:
    """Of the model, and of what needs none: [horizon, H, W, C] in [0, 1]."""
    before = seen.astype(np.float64) / 255
    shape = (horizon, *before.shape[1:])
    return {
        MODEL: made.astype(np.float64) / 255,
        COPY: np.broadcast_to(before[-1], shape),
        "mean of the frames seen": np.broadcast_to(before.mean(0), shape),
        "black": np.zeros(shape),
    }


def ssim(a: Floats, b: Floats) -> float:
    """Mean structural similarity of two pictures [H, W, C] in [0, 1] (Wang et al. 2004): Gaussian windows of spread 1.5
    within 11 x 11 pixels, K1 = 0.01, K2 = 0.03; the mean over the channels and over whole windows.

    >>> one = np.random.default_rng(0).random((16, 16, 1))
    >>> round(ssim(one, one), 6), ssim(one, 1 - one) < 0
    (1.0, True)
    """
    from scipy.ndimage import gaussian_filter

    def blurred(x: Floats) -> Floats:
        return np.asarray(gaussian_filter(x, (1.5, 1.5, 0), truncate=5 / 1.5))

    inside = slice(5, -5) if min(a.shape[:2]) > 10 else slice(None)
    mean_a, mean_b = blurred(a), blurred(b)
    var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    both = blurred(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    found = ((2 * mean_a * mean_b + c1) * (2 * both + c2)) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(found[inside, inside].mean())
