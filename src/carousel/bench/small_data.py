"""`carousel bench small-data`: how much data does an LSTM need, and what needs less.

Learning curves at 1, 5, 10, 25 and 100 % of the training part, for an LSTM, a GRU and a Transformer with as many
parameters, and boosted trees (tables) or a linear model on n-grams (text). Every contender tries four settings on a
held-out third of the part of the first seed; the best is fitted to whole parts, one for each seed, and judged on the
test part. Results are written after each fit; what was measured with the same settings is not measured again.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from carousel import atomic
from carousel.bench.machine import describe
from carousel.bench.small_data_models import EPOCHS, GRIDS, HIDDEN, LEAST, MOST, Fitted, fit, kinds, score
from carousel.bench.small_data_sets import LOADERS, Part, Problem, generated, share_of
from carousel.bench.store import Store, one_thread, plain
from carousel.errors import CarouselError

__all__ = ["SHARES", "SmallData", "measure"]

SHARES = (0.01, 0.05, 0.1, 0.25, 1.0)
OWN = "LSTM"
Cells = dict[str, dict[str, dict[str, Any]]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class SmallData:
    """`cells[set][kind][share]`: settings, runs; `about[set]`: what is asked, and of how many."""

    cells: dict[str, Cells]
    about: dict[str, dict[str, Any]]
    machine: dict[str, str | int]

    def value(self, name: str, kind: str, share: str) -> float:
        """The mean over the seeds of accuracy, or of the root of the mean squared error."""
        return statistics.fmean(run["score"] for run in self.cells[name][kind][share]["runs"])

    def better(self, name: str, kind: str, share: str) -> float:
        """By how much the LSTM is better (in the set's own unit), negative where it is worse."""
        sign = 1 if self.about[name]["kind"] == "class" else -1
        return sign * (self.value(name, OWN, share) - self.value(name, kind, share))

    def verdict(self) -> list[str]:
        """Where curves cross: from which share on the LSTM is at least as good as each other."""
        told = []
        for name, row in self.cells.items():
            parts = []
            for kind in row:
                if kind == OWN:
                    continue
                ahead = [self.better(name, kind, share) >= 0 for share in row[OWN]]
                parts.append(f"{_crossing(list(row[OWN]), ahead)} {kind}")
            told.append(f"{name}: the LSTM is " + "; ".join(parts) + ".")
        return told

    def wins(self) -> list[str]:
        """Of all sets, at each share, in how many the LSTM is at least as good."""
        shares = sorted({share for row in self.cells.values() for share in row[OWN]}, key=float)
        lines = ["| share | " + " | ".join(told := self._rivals()) + " |", "| --- |" + " ---: |" * len(told)]
        for share in shares:
            cells = []
            for kind in told:
                ahead = [self.better(name, kind, share) >= 0 for name, row in self.cells.items() if kind in row]
                cells.append(f"{sum(ahead)} of {len(ahead)}")
            lines.append(f"| {float(share):.0%} | " + " | ".join(cells) + " |")
        return lines

    def _rivals(self) -> list[str]:
        return list(dict.fromkeys(kind for row in self.cells.values() for kind in row if kind != OWN))

    def markdown(self) -> str:
        lines = ["### Small data", ""]
        for name, row in self.cells.items():
            about = self.about[name]
            unit = "accuracy" if about["kind"] == "class" else "RMSE"
            shares = list(row[OWN])
            lines += [
                f"**{name}**: {about['said']}; {about['train']:,} to learn from, {about['test']:,} asked; {unit}.",
                "",
            ]
            lines += ["| | " + " | ".join(f"{float(share):.0%} ({about['counts'][share]:,})" for share in shares)]
            lines[-1] += " | processor s | ms a sequence | kB | operations a row |"
            lines += ["| --- |" + " ---: |" * (len(shares) + 4)]
            for kind, cells in row.items():
                texts = [_shown(cells[share]["runs"], about["kind"]) for share in shares]
                last = cells[shares[-1]]["runs"]
                cost = [
                    statistics.fmean(run[key] for run in last) for key in ("seconds", "asking", "bytes", "operations")
                ]
                texts += [f"{cost[0]:.1f}", f"{1e3 * cost[1]:.2f}", f"{cost[2] / 1e3:,.0f}", f"{cost[3]:,.0f}"]
                lines.append(f"| {kind} | " + " | ".join(texts) + " |")
            lines.append("")
        lines += ["The LSTM is at least as good as", "", *self.wins(), ""]
        lines += [f"- {line}" for line in self.verdict()]
        return "\n".join([*lines, "", "; ".join(f"{name} {value}" for name, value in self.machine.items()), ""])

    def plot(self, place: Path) -> None:
        """A panel for each set: score by share, a line for each contender, a bar for the spread over the seeds."""
        from matplotlib.figure import Figure

        across = min(4, len(self.cells))
        down = -(-len(self.cells) // across)
        figure = Figure(figsize=(3.2 * across, 2.8 * down), layout="constrained")
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for panel in panels[len(self.cells) :]:
            panel.set_axis_off()
        colors = {kind: f"C{k}" for k, kind in enumerate((OWN, *self._rivals()))}
        for panel, (name, row) in zip(panels, self.cells.items(), strict=False):
            for kind, cells in row.items():
                runs = {float(share): [run["score"] for run in cell["runs"]] for share, cell in cells.items()}
                mean = [statistics.fmean(values) for values in runs.values()]
                spread = [np.std(values) for values in runs.values()]
                panel.errorbar([100 * s for s in runs], mean, spread, marker="o", markersize=3, color=colors[kind])
            unit = "accuracy" if self.about[name]["kind"] == "class" else "RMSE (lower is better)"
            panel.set(title=name, xscale="log", xlabel="% of the training data", ylabel=unit)
            panel.grid(alpha=0.3)
        for kind, color in colors.items():
            panels[0].plot([], [], "o-", color=color, label=kind)
        figure.legend(loc="outside upper center", ncols=len(colors), frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        atomic.write_bytes(place, buffer.getvalue())


def _crossing(shares: list[str], ahead: list[bool]) -> str:
    """In words, for what stands after it.

    >>> _crossing(["0.01", "0.1", "1.0"], [False, True, True])
    'from 10 % on at least as good as'
    """
    told = [f"{100 * float(share):g} %" for share in shares]
    if all(ahead):
        return "everywhere at least as good as"
    if not any(ahead):
        return "everywhere worse than"
    first = ahead.index(True)
    if all(ahead[first:]):
        return f"from {told[first]} on at least as good as"
    if not any(ahead[ahead.index(False) :]):
        return f"up to {told[ahead.index(False) - 1]} at least as good as"
    good = ", ".join(share for share, is_ahead in zip(told, ahead, strict=True) if is_ahead)
    return f"at {good} at least as good as"


def _shown(runs: list[dict[str, Any]], kind: str) -> str:
    values = [run["score"] for run in runs]
    mean, spread = statistics.fmean(values), float(np.std(values))
    return f"{mean:.3f} ± {spread:.3f}" if kind == "class" else f"{mean:.3g} ± {spread:.2g}"


def measure(
    names: Sequence[str] = (),
    *,
    seeds: int | None = None,
    out: Path | None = None,
    quickly: bool = False,
    say: Say = lambda _: None,
) -> list[SmallData]:
    """Measure sets by name, or without a name all, from 3 (or `seeds`) seeds; into small-data.json, .md and .png of the
    folder `out`, where a later call goes on. `quickly` takes a minute: a generated set, one seed, in other files.

    Raises CarouselError for an unknown set, for names together with `quickly`, and where CAROUSEL_DATA lacks a set.
    """
    unknown = [name for name in names if name not in LOADERS]
    if unknown:
        raise CarouselError(f"there is no set {unknown[0]!r}; choose from {', '.join(LOADERS)}.")
    if quickly and names:
        raise CarouselError(f"the quick form has a set of its own: leave {names[0]!r} out.")
    stem = "small-data-quick" if quickly else "small-data"
    shares, seeds = (0.1, 1.0) if quickly else SHARES, seeds or (1 if quickly else 3)
    store = Store(None if out is None else out / f"{stem}.json", describe())
    with one_thread():
        for problem in [generated()] if quickly else (LOADERS[name]() for name in names or LOADERS):
            store.get("about")[problem.name] = _about(problem, shares)
            for kind in kinds(problem):
                for share in shares:
                    runs = _cell(store, problem, kind, share, seeds)
                    say(f"{problem.name}, {share:.0%}, {kind}: {_shown(runs, problem.kind)}")
    found = SmallData(*_complete(store, shares), store.get("machine"))
    if out is not None:
        atomic.write_bytes(out / f"{stem}.md", (found.markdown() + "\n").encode())
        found.plot(out / f"{stem}.png")
    say(found.markdown())
    return [found]


def _complete(store: Store, shares: Sequence[float]) -> tuple[dict[str, Cells], dict[str, dict[str, Any]]]:
    """The sets of which everything was measured, in the usual order."""
    cells, about = store.get("cells"), store.get("about")
    order = [name for name in (*LOADERS, *about) if name in cells]
    wanted = [str(share) for share in shares]
    whole = {
        name: {kind: {share: cells[name][kind][share] for share in wanted} for kind in about[name]["kinds"]}
        for name in dict.fromkeys(order)
        if all(
            cells[name].get(kind, {}).get(share, {}).get("runs") for kind in about[name]["kinds"] for share in wanted
        )
    }
    return whole, {name: about[name] for name in whole}


def _about(problem: Problem, shares: Sequence[float]) -> dict[str, Any]:
    counts = {str(share): len(share_of(problem.train, share, np.random.default_rng([0, 0x5A]))) for share in shares}
    sizes = {"train": len(problem.train), "test": len(problem.test), "counts": counts}
    return {"said": problem.said, "kind": problem.kind, "kinds": list(kinds(problem))} | sizes


def _cell(store: Store, problem: Problem, kind: str, share: float, seeds: int) -> list[dict[str, Any]]:
    """The runs of one contender on one share: settings first, then a fit for each seed."""
    row = store.get("cells").setdefault(problem.name, {}).setdefault(kind, {})
    plan = f"{problem.said}; {GRIDS[kind]}; {HIDDEN} {LEAST} {MOST} {EPOCHS}"
    cell: dict[str, Any] = row.get(str(share), {})
    if cell.get("plan") != plan:
        part = problem.train.take(share_of(problem.train, share, np.random.default_rng([0, 0x5A])))
        cell = row[str(share)] = {"plan": plan, "settings": _tuned(problem, kind, part), "runs": []}
    for seed in range(len(cell["runs"]), seeds):
        part = problem.train.take(share_of(problem.train, share, np.random.default_rng([seed, 0x5A])))
        started = time.process_time()
        fitted = fit(kind, problem, part, cell["settings"], seed)
        between = time.process_time()
        found = score(problem, fitted.outputs(problem.test.x), problem.test.y)
        asking = (time.process_time() - between) / len(problem.test)
        cell["runs"].append(plain(_run(fitted, found, between - started, asking, len(part))))
        store.write()
    return list(cell["runs"])


def _run(fitted: Fitted, found: float, seconds: float, asking: float, count: int) -> dict[str, Any]:
    return {
        "score": found,
        "seconds": seconds,
        "asking": asking,  # seconds a sequence
        "count": count,
        "bytes": fitted.bytes,
        "operations": fitted.operations,
    }


def _tuned(problem: Problem, kind: str, part: Part) -> dict[str, float]:
    """The settings with the best score on a third that is held out of the part."""
    held = _held(part, np.random.default_rng([0, 0x5E]))
    learn, judge = part.take(np.flatnonzero(~held)), part.take(np.flatnonzero(held))
    sign = 1 if problem.kind == "class" else -1
    found = []
    for settings in GRIDS[kind]:
        fitted = fit(kind, problem, learn, settings, 1_000)
        found.append(sign * score(problem, fitted.outputs(judge.x), judge.y))
    return GRIDS[kind][int(np.argmax(found))]


def _held(part: Part, rng: np.random.Generator) -> np.ndarray:
    """A third: of groups, or where there is one, its end; else of each class."""
    held = np.zeros(len(part), bool)
    if part.group is not None:
        names = np.unique(part.group)
        if len(names) == 1:
            held[-max(1, len(part) // 3) :] = True
            return held
        return np.isin(part.group, rng.permutation(names)[: max(1, len(names) // 3)])
    for label in np.unique(part.y):
        own = rng.permutation(np.flatnonzero(part.y == label))
        held[own[: max(1, len(own) // 3)]] = True
    return held
