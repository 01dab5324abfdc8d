"""What an LSTM must be able to remember, each claim with its budget, and runs from several seeds that hold or break it.

Beside some stands what another network of as many parameters makes of the same budget, at the best of three rates.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from carousel.bench.memory_digits import digit_tasks
from carousel.bench.memory_learn import Effort, judge, learn
from carousel.bench.memory_nets import build, parameters, size_for
from carousel.bench.store import Store, plain
from carousel.datasets import Adding, EmbeddedReber, ModularArithmetic, Parity, Task

__all__ = ["Claim", "claims", "measure", "quick", "table"]

RATES = (1e-3, 3e-3, 1e-2)
PER_STEP = 200  # sequences of the adding problem for each step of its length: 20,000 for 100 steps


@dataclass(frozen=True)
class Claim:
    """Runs of `seeds` seeds at each of `rates`, of which `least` learn the task, or none where `fails` is claimed.

    A run ends when two times `fresh` sequences of `test` are answered right, or with the budget; then `last` others are
    asked, once.
    """

    said: str
    train: Task
    test: Task
    effort: Effort
    seeds: int
    least: int | None = None  # None: no claim, shown beside one
    fails: bool = False
    rates: tuple[float, ...] = ()  # else that of `effort`
    stop: bool = True  # False: the whole budget is spent
    kind: str = "LSTM"
    size: int = 32
    span: int = 0
    recompute: int = 0
    right: float | None = 1.0  # share of sequences; None: squared error below `most`
    most: float = 0.01
    enough: float = 0.008  # squared error at which a run ends: below `most` in the end as well
    fresh: int = 500
    last: int = 1000

    @property
    def plan(self) -> str:
        """All that the runs depend on."""
        open_to_change = ("said", "seeds", "least", "fails", "rates")
        return repr({f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in open_to_change})

    def good(self, right: float, error: float) -> bool:
        return error < self.most if self.right is None else right >= self.right

    def ends(self, right: float, error: float) -> bool:
        return self.stop and (error < self.enough if self.right is None else right >= self.right)

    def holds(self, runs: list[dict[str, Any]]) -> bool | None:
        """None where nothing is claimed, or too few runs have ended to tell."""
        learned = sum(bool(run["success"]) for run in runs)
        left = max(0, self.seeds * max(1, len(self.rates)) - len(runs))
        if self.fails:
            return False if learned else (None if left else True)
        if self.least is None:
            return None
        return True if learned >= self.least else (None if learned + left >= self.least else False)

    @property
    def goal(self) -> str:
        if self.fails:
            return "none learns it"
        return "–" if self.least is None else f"{self.least} of {self.seeds}"


def claims() -> dict[str, Claim]:
    """In the order of the table; what is shown beside a claim comes after it."""
    reber = EmbeddedReber()
    made = {
        "reber": Claim(
            "embedded Reber: every symbol of every string",
            reber,
            reber,
            Effort(1e-2, batch=4, budget=8_440, check=200),
            seeds=30,
            least=30,
            size=64,
            span=20,
            fresh=2_000,
        )
    }
    for length, least in ((100, 4), (200, None), (400, None), (1_000, 4)):
        made[f"adding-{length}"] = _adding(length, least=least, seeds=5)
    for length, seeds in ((100, 1), (200, 2), (400, 1)):
        other: dict[str, Any] = {"kind": "plain RNN", "size": _equal("plain RNN", 2, 1, 32), "rates": RATES}
        made[f"adding-{length}-rnn"] = _adding(length, seeds=seeds, fails=length >= 200, **other)
    languages = (("parity", Parity, 32, 60_000, 5), ("arithmetic", ModularArithmetic, 128, 300_000, 3))
    for name, task, size, budget, seeds in languages:
        ends = task.inputs, task.outputs
        made[name] = _language(task, budget, size=size, seeds=seeds, least=seeds)
        other = {"kind": "Transformer", "size": _equal("Transformer", *ends, size), "rates": RATES, "fresh": 100}
        made[f"{name}-transformer"] = _language(task, budget, seeds=1, **other)
    return made | {"digits": _digits(200_000, seeds=5, least=5)}


def quick() -> dict[str, Claim]:
    """Two that end within seconds."""
    reber = dataclasses.replace(claims()["reber"], seeds=1, least=1)
    return {"reber": reber, "adding-30": _adding(30, seeds=1, least=1)}


def _adding(length: int, kind: str = "LSTM", **more: Any) -> Claim:
    task, gated = Adding(length), kind != "plain RNN"
    effort = Effort(1e-2, batch=20, budget=PER_STEP * length, check=500 if gated else 2_000)
    more = {"span": length if gated else 0, "recompute": 32 if gated and length >= 1_000 else 0} | more
    return Claim(f"{kind}, adding, {length:,} steps", task, task, effort, kind=kind, right=None, **more)


def _language(cls: Any, budget: int, kind: str = "LSTM", **more: Any) -> Claim:
    asked = cls(shortest=499, longest=500)  # other strings say when to stop: which weights last so long varies
    effort = Effort(3e-3, batch=32, budget=budget, check=budget // 40, fade=True)
    said = f"{kind}, {cls.name}: learned up to 40 symbols, asked for 500"
    return Claim(said, cls(longest=40, every_step=True), asked, effort, kind=kind, **{"fresh": 2_000} | more)


def _digits(budget: int, **more: Any) -> Claim:
    train, test = digit_tasks()
    effort = Effort(5e-3, batch=32, budget=budget, check=budget // 4, fade=True)
    said = "sequential digits: 97 % of 359 test digits"
    return Claim(said, train, test, effort, size=96, right=0.97, stop=False, **more)


def _equal(kind: str, inputs: int, outputs: int, size: int) -> int:
    """The size at which `kind` has as many parameters as an LSTM of `size`."""
    return size_for(kind, inputs, outputs, parameters(build("LSTM", inputs=inputs, outputs=outputs, size=size)))


def measure(store: Store, known: dict[str, Claim], say: Callable[[str], None] = lambda _: None) -> None:
    """Run what is not in the store yet."""
    for name, claim in known.items():
        found = store.get("claims").get(name, {})
        if found.get("plan") != claim.plan:
            found = store.get("claims")[name] = {"plan": claim.plan, "runs": []}
        found |= {"said": claim.said, "goal": claim.goal, "kind": claim.kind, "budget": claim.effort.budget}
        done = {(run["rate"], run["seed"]) for run in found["runs"]}
        for seed in range(claim.seeds):
            for rate in claim.rates or (claim.effort.rate,):
                if (rate, seed) not in done:
                    found["runs"].append({"rate": rate, "seed": seed} | _run(claim, rate, seed))
                    store.write()
        found["holds"] = claim.holds(found["runs"])
        store.write()
        say(" | ".join(_row(found)))


def _run(claim: Claim, rate: float, seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    ends = {"inputs": claim.train.inputs, "outputs": claim.train.outputs}
    net = build(claim.kind, size=claim.size, span=claim.span, recompute=claim.recompute, **ends)
    effort = dataclasses.replace(claim.effort, rate=rate)
    learnt = learn(
        net,
        claim.train,
        effort,
        seed=seed,
        good=claim.ends,
        test=claim.test,
        fresh=claim.fresh,
    )
    asked = claim.test.draw(claim.last, np.random.default_rng([seed, 0xA5]))
    right, error = judge(net, claim.train.kind, asked)
    learnt = dataclasses.replace(learnt, success=claim.good(right, error), right=right, error=error)
    found: dict[str, Any] = plain(dataclasses.asdict(learnt) | {"parameters": parameters(net)})
    return found


def table(found: dict[str, dict[str, Any]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = ["| what | budget, sequences | claimed | learned | sequences, median and most | error or right, worst |"]
    lines[0] += " processor s a run | holds |"
    lines += ["| --- | ---: | --- | ---: | ---: | ---: | ---: | --- |"]
    return lines + ["| " + " | ".join(_row(one)) + " |" for one in found.values()]


def _row(one: dict[str, Any]) -> list[str]:
    runs = one["runs"]
    spent = [run["sequences"] for run in runs if run["success"]]
    many = f"{statistics.median(spent):,.0f}, {max(spent):,}" if spent else "–"
    if "adding" in one["said"]:
        worst = f"{max(_finite(run['error']) for run in runs):.4f}"
    else:
        worst = f"{min(run['right'] for run in runs):.1%}"
    seconds = f"{statistics.median(run['seconds'] for run in runs):.1f}"
    holds = {None: "–", True: "yes", False: "**no**"}[one["holds"]]
    learned = f"{len(spent)} of {len(runs)}"
    return [one["said"], f"{one['budget']:,}", one["goal"], learned, many, worst, seconds, holds]


def _finite(error: float | None) -> float:
    return float("inf") if error is None else error
