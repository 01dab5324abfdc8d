"""Pictures of forecasts: history with its gaps visible, median, intervals and what came."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carousel import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["forecast_picture"]

INK, MUTED, LINE, BAND = "#1b1f24", "#6b7280", "#0b5cad", "#4c9be8"


def forecast_picture(
    path: str | os.PathLike[str],
    *,
    time: NDArray[Any],
    truth: NDArray[np.float64],
    origin: int,
    ahead: NDArray[Any],
    forecast: NDArray[np.float64],
    quantiles: Sequence[float],
    title: str,
    subtitle: str = "",
    unit: str = "",
    history: int | None = None,
) -> None:
    """Write a PNG (200 dots an inch, 16:9) of one forecast of one series.

    time [N] and truth [N] (NaN is a gap, left open) are the series, `origin` the last row that the model saw, ahead [H]
    the times and forecast [H, Q] the quantiles of the steps to come. With `history`, that many rows before the origin
    are shown, under a strip of the whole series. Raises CarouselError where the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 5.4), dpi=200, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr, call-arg]
    FigureCanvasAgg(figure)
    begin = 0 if history is None else max(0, origin + 1 - history)
    after = slice(origin + 1, min(origin + 1 + len(ahead), len(time)))
    if begin:
        strip, axes = figure.subplots(2, height_ratios=(1, 3.2))
        _strip(strip, time, truth, begin, after.stop)
    else:
        axes = figure.subplots()
    _dress(axes)
    past = slice(begin, origin + 1)
    axes.plot(time[past], truth[past], color=INK, lw=1.4, label="observed", zorder=3)
    if np.isfinite(truth[after]).any():
        axes.plot(time[after], truth[after], "o", color=INK, ms=2.6, mew=0, label="what came", zorder=4)
    axes.plot(ahead, forecast[:, list(quantiles).index(0.5)], color=LINE, lw=2.0, label="forecast (median)", zorder=3)
    _intervals(axes, ahead, forecast, quantiles)
    _gaps(axes, time[begin : after.stop], truth[begin : after.stop])
    axes.axvline(time[origin], color=MUTED, lw=0.8, ls=(0, (4, 3)))
    axes.set_ylabel(unit, fontsize=11, color=INK)
    axes.legend(loc="upper left", frameon=False, fontsize=10, labelcolor=INK)
    figure.suptitle(title, x=0.02, ha="left", fontsize=15, fontweight="bold", color=INK)
    if subtitle:
        figure.axes[0].set_title(subtitle, loc="left", fontsize=10.5, color=MUTED)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    atomic.write_bytes(path, picture.getvalue())


def _strip(axes: Axes, time: NDArray[Any], truth: NDArray[np.float64], begin: int, end: int) -> None:
    """The whole series, small, with what the large picture shows of it in the shade."""
    _dress(axes)
    axes.plot(time, truth, color=INK, lw=0.9)
    axes.axvspan(time[begin], time[end - 1], color=BAND, alpha=0.16, lw=0)
    _gaps(axes, time, truth)
    axes.locator_params(axis="y", nbins=3)
    if np.isnan(truth).any():
        axes.legend(loc="upper left", frameon=False, fontsize=9, labelcolor=INK)


def _intervals(axes: Axes, ahead: NDArray[Any], forecast: NDArray[np.float64], quantiles: Sequence[float]) -> None:
    """The widest interval of symmetric quantiles, and the one nearest to 50 % inside it."""
    levels = list(quantiles)
    pairs = [
        (100 * (1 - 2 * low), n, m)
        for n, low in enumerate(levels)
        for m, high in enumerate(levels)
        if low < 0.5 and abs(low + high - 1) < 1e-9
    ]
    if not pairs:
        return
    chosen = {max(pairs), min(pairs, key=lambda pair: abs(pair[0] - 50))}
    for shade, (inside, low, high) in zip((0.22, 0.38), sorted(chosen, reverse=True), strict=False):
        label = f"{inside:g} % interval"
        axes.fill_between(ahead, forecast[:, low], forecast[:, high], color=BAND, alpha=shade, lw=0, label=label)


def _gaps(axes: Axes, time: NDArray[Any], truth: NDArray[np.float64]) -> None:
    """A tick at the foot of the picture for each time without an observation."""
    gaps = time[np.isnan(truth)]
    if len(gaps):
        low = axes.get_xaxis_transform()
        axes.plot(
            gaps, np.full(len(gaps), 0.012), "|", transform=low, color="#c2410c", ms=7, mew=1.4, label="not observed"
        )


def _dress(axes: Axes) -> None:
    axes.tick_params(colors=MUTED, labelsize=10, length=0)
    axes.grid(axis="y", color="#e5e7eb", lw=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.01)
    axes.locator_params(axis="y", nbins=6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#d1d5db")
