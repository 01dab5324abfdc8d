"""`carousel bench memory`: who remembers what, for how long, after how many sequences.

First the claims (`memory_claims.py`), then each task for LSTM and its variants, GRU, plain RNN and a causal Transformer
at equal numbers of parameters. Each network is tuned alike: three learning rates, one run each, and the best of them
(learned after the fewest sequences, else the lowest error) is run anew from other seeds, which alone are reported.
Results are written after each run; what was measured with the same settings is not measured again.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from carousel import atomic
from carousel.bench import memory_claims, memory_plots
from carousel.bench.machine import describe
from carousel.bench.memory_learn import Effort, Learnt, learn
from carousel.bench.memory_nets import KINDS, build, parameters, size_for
from carousel.bench.memory_trials import Trial, quick, trials
from carousel.bench.store import Store, one_thread, plain
from carousel.errors import CarouselError

__all__ = ["HIDDEN", "RATES", "Memory", "measure"]

RATES = (1e-3, 3e-3, 1e-2)
HIDDEN = 48  # of the LSTM; the others get as many parameters
CHECKS = 24  # looks at fresh sequences, spread over the budget
CLAIMS = "claims"
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Memory:
    """`cells[task][kind]`: size, parameters, rate, runs; `claims`: one entry for each."""

    cells: dict[str, dict[str, dict[str, Any]]]
    claims: dict[str, dict[str, Any]]
    said: dict[str, str]
    machine: dict[str, str | int]

    def markdown(self) -> str:
        """The claims, one table of success rates, one of sequences, one of processor seconds."""
        lines = ["### Memory", ""]
        if self.claims:
            lines += [*memory_claims.table(self.claims), ""]
        kinds = [kind for kind in KINDS if any(kind in row for row in self.cells.values())]
        for title, told in (
            ("Runs that learned it", _share),
            ("Sequences until then (median of the runs that learned it)", _sequences),
            ("Processor seconds of a run (median, with or without success)", _seconds),
        ):
            if not kinds:
                break
            lines += [f"{title}:", "", "| task | asked | " + " | ".join(kinds) + " |"]
            lines += ["| --- | --- |" + " ---: |" * len(kinds)]
            for name, row in self.cells.items():
                cells = [told(row[kind]["runs"]) if kind in row else "–" for kind in kinds]
                lines.append(f"| {name} | {self.said[name]} | " + " | ".join(cells) + " |")
            lines.append("")
        lines += [f"- {line}" for line in self.verdict()]
        return "\n".join([*lines, "", "; ".join(f"{name} {value}" for name, value in self.machine.items()), ""])

    def verdict(self) -> list[str]:
        """Where the plain LSTM is not the best: losses are shown."""
        told = []
        for name, row in self.cells.items():
            if "LSTM" not in row:
                continue
            own = _score(row["LSTM"]["runs"])
            better = [kind for kind in row if kind != "LSTM" and _score(row[kind]["runs"]) > own]
            if better:
                told.append(f"{name}: {', '.join(better)} better than the plain LSTM (more runs, or fewer sequences).")
        return told


def measure(
    names: Sequence[str] = (),
    *,
    seeds: int | None = None,
    out: Path | None = None,
    quickly: bool = False,
    say: Say = lambda _: None,
) -> list[Memory]:
    """Measure tasks by name, or "claims", or without a name all; into memory.json, .md and .png of the folder `out`,
    where a later call goes on. `seeds` of the tasks (5; claims say theirs). `quickly` takes a minute: small tasks,
    one rate, one seed, in files of their own.

    Raises CarouselError for an unknown task, and for `seeds` where claims alone are measured.
    """
    known = quick() if quickly else trials()
    wanted = list(names) or [CLAIMS, *known]
    unknown = [name for name in wanted if name not in known and name != CLAIMS]
    if unknown:
        raise CarouselError(f"there is no task {unknown[0]!r}; choose from {', '.join((CLAIMS, *known))}.")
    if seeds is not None and wanted == [CLAIMS]:
        raise CarouselError("claims say themselves how many seeds they need: leave the number out, or name tasks.")
    stem = "memory-quick" if quickly else "memory"
    store = Store(None if out is None else out / f"{stem}.json", describe())
    rates, seeds = RATES[-1:] if quickly else RATES, seeds or (1 if quickly else 5)
    with one_thread():
        if CLAIMS in wanted:
            memory_claims.measure(store, memory_claims.quick() if quickly else memory_claims.claims(), say)
        for name in wanted:
            if name == CLAIMS:
                continue
            for kind in KINDS:
                cell = _cell(store, name, known[name], kind, rates, seeds)
                say(f"{name}, {kind}: {_share(cell['runs'])} learned it, {_sequences(cell['runs'])} sequences")
    found = _memory(store, known)
    if out is not None:
        atomic.write_bytes(out / f"{stem}.md", (found.markdown() + "\n").encode())
        if found.cells:
            memory_plots.tasks(found.cells, out / f"{stem}.png")
        memory_plots.adding(found.claims, out / f"{stem}-adding.png")
    say(found.markdown())
    return [found]


def _memory(store: Store, known: dict[str, Trial]) -> Memory:
    cells = store.get("cells")
    return Memory(
        {name: row for name in known if (row := _measured(cells.get(name, {})))},
        store.get("claims"),
        {name: trial.said for name, trial in known.items()},
        store.get("machine"),
    )


def _measured(row: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Without what was stopped before its first run."""
    return {kind: row[kind] for kind in KINDS if row.get(kind, {}).get("runs")}


def _cell(store: Store, name: str, trial: Trial, kind: str, rates: Sequence[float], seeds: int) -> dict[str, Any]:
    """One network on one task: tuned, then run from `seeds` other seeds."""
    ends = {"inputs": trial.train.inputs, "outputs": trial.train.outputs}
    budget = parameters(build("LSTM", size=HIDDEN, **ends))
    size = size_for(kind, trial.train.inputs, trial.train.outputs, budget)
    plan = f"{trial.plan}; size {size}; rates {', '.join(f'{r:g}' for r in rates)}"
    row = store.get("cells").setdefault(name, {})
    cell: dict[str, Any] = row.get(kind, {})
    if cell.get("plan") != plan:
        count = parameters(build(kind, size=size, **ends))
        cell = row[kind] = {"plan": plan, "size": size, "parameters": count, "tuning": {}, "runs": []}
    for rate in rates:
        if f"{rate:g}" not in cell["tuning"]:
            cell["tuning"][f"{rate:g}"] = plain(dataclasses.asdict(_run(trial, kind, size, rate, 0)))
            store.write()
    best = max(cell["tuning"], key=lambda rate: _score([cell["tuning"][rate]]))
    cell["rate"] = float(best)
    for seed in range(len(cell["runs"]) + 1, seeds + 1):
        cell["runs"].append(plain(dataclasses.asdict(_run(trial, kind, size, float(best), seed))))
        store.write()
    return cell


def _run(trial: Trial, kind: str, size: int, rate: float, seed: int) -> Learnt:
    torch.manual_seed(seed)
    net = build(kind, inputs=trial.train.inputs, outputs=trial.train.outputs, size=size, span=trial.span)
    effort = Effort(rate, trial.batch, trial.budget, max(trial.budget // CHECKS, trial.batch))
    return learn(net, trial.train, effort, seed=seed, good=trial.good, test=trial.test, fresh=trial.fresh)


Runs = list[dict[str, Any]]


def _score(runs: Runs) -> tuple[float, float, float]:
    """More runs that learned it, then fewer sequences, then a lower error."""
    good = [run["sequences"] for run in runs if run["success"]]
    errors = [math.inf if run["error"] is None else run["error"] for run in runs]
    return len(good) / len(runs), -statistics.median(good or [math.inf]), -statistics.median(errors)


def _share(runs: Runs) -> str:
    return f"{sum(run['success'] for run in runs)} of {len(runs)}"


def _sequences(runs: Runs) -> str:
    good = [run["sequences"] for run in runs if run["success"]]
    return f"{statistics.median(good):,.0f}" if good else "–"


def _seconds(runs: Runs) -> str:
    return f"{statistics.median(run['seconds'] for run in runs):.1f}"
