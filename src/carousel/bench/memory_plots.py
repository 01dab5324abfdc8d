"""Pictures of `bench memory`: who learned what after how many sequences, and how that grows with the lag."""

from __future__ import annotations

import io
import statistics
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from carousel import atomic
from carousel.bench.memory_nets import KINDS

__all__ = ["adding", "tasks"]

IN_1997 = {100: 74_000, 500: 209_000, 1_000: 853_000}  # Hochreiter & Schmidhuber 1997, table 7
Cells = dict[str, dict[str, dict[str, Any]]]


def tasks(cells: Cells, place: Path) -> None:
    """A row for each task, a dot for each run that learned it, a cross at the budget for each that did not."""
    figure = Figure(figsize=(9, 1.2 + 0.62 * len(cells)), layout="constrained")
    axes = figure.subplots()
    for y, row in enumerate(cells.values()):
        for k, kind in enumerate(kind for kind in KINDS if kind in row):
            level = y + (KINDS.index(kind) - (len(KINDS) - 1) / 2) * 0.11
            color = f"C{KINDS.index(kind)}"
            good = [run["sequences"] for run in row[kind]["runs"] if run["success"]]
            lost = [run["sequences"] for run in row[kind]["runs"] if not run["success"]]
            axes.plot(good, [level] * len(good), "o", color=color, markersize=4, label=kind if y == 0 else None)
            axes.plot(lost, [level] * len(lost), "x", color=color, markersize=4, alpha=0.6)
            if k == 0 and y:
                axes.axhline(y - 0.5, color="0.85", linewidth=0.8)
    axes.set(xscale="log", xlabel="training sequences until learned (dot), or spent without success (cross)")
    axes.set_yticks(range(len(cells)), list(cells))
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(KINDS) // 2 + 1, frameon=False)
    _save(figure, place)


def adding(claims: dict[str, dict[str, Any]], place: Path) -> None:
    """Sequences until the adding problem is learned, by its length; nothing is drawn without a run of it."""
    lengths: dict[str, dict[int, Any]] = {}
    for name, one in claims.items():
        if name.startswith("adding-"):
            lengths.setdefault(one["kind"], {})[int(name.split("-")[1])] = one
    if not lengths:
        return
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for k, (kind, found) in enumerate(lengths.items()):
        learned = {
            t: statistics.median(run["sequences"] for run in one["runs"] if run["success"])
            for t, one in found.items()
            if any(run["success"] for run in one["runs"])
        }
        axes.plot(list(learned), list(learned.values()), "o-", color=f"C{k}", label=kind if learned else None)
        failed = {t: one["budget"] for t, one in found.items() if t not in learned}
        axes.plot(
            list(failed), list(failed.values()), "x", color=f"C{k}", label=f"{kind}, never within" if failed else None
        )
    axes.plot(list(IN_1997), list(IN_1997.values()), "s--", color="0.5", label="LSTM of 1997")
    axes.set(xscale="log", yscale="log", xlabel="steps T", ylabel="training sequences until learned")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    _save(figure, place)


def _save(figure: Figure, place: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    atomic.write_bytes(place, buffer.getvalue())
