"""How accurate Carousel is on public sets, by the protocols of their own SOURCE files, beside baselines.

One registry for all sets: a name leads to a function that takes seeds and gives an `Outcome`. Each uses the defaults of
its estimator and the one setting that `flag` names, chosen on validation data inside the training part.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from carousel import atomic
from carousel.bench.machine import describe
from carousel.errors import CarouselError
from carousel.trust.metrics import spread

__all__ = ["SETS", "Outcome", "Stopwatch", "compare", "measure", "write"]

Figures = Mapping[str, float | None]

# name: module and function, called with seeds=(0, 1, ...). Slow ones run only where they are named.
SETS = {
    "physionet": "carousel.bench.accuracy_tables:physionet",
    "fraud": "carousel.bench.accuracy_tables:fraud",
    "cmapss": "carousel.bench.accuracy_tables:cmapss",
    "cgm": "carousel.bench.accuracy_tables:cgm",
    "japanese_vowels": "carousel.bench.accuracy_arrays:japanese_vowels",
    "m4_hourly": "carousel.bench.accuracy_forecast:m4_hourly",
    "m4_weekly": "carousel.bench.accuracy_forecast:m4_weekly",
    "etth1": "carousel.bench.accuracy_forecast:etth1",
    "pm25": "carousel.bench.accuracy_forecast:pm25",
    "co2": "carousel.bench.accuracy_forecast:co2_weekly",
    "nab": "carousel.bench.accuracy_detect:nab",
    "skab": "carousel.bench.accuracy_detect:skab",
    "skab_autoencoder": "carousel.bench.accuracy_detect:skab_autoencoder",
    "order": "carousel.bench.accuracy_frames:digits_in_order",
    "jhmdb_skeleton": "carousel.bench.accuracy_frames:jhmdb",
    "moving_mnist": "carousel.bench.accuracy_frames:moving_mnist",
    "mnist": "carousel.bench.accuracy_arrays:mnist",
    "mnist_permuted": "carousel.bench.accuracy_arrays:mnist_permuted",
}
DRAWN = ("moving_mnist",)  # sets whose pictures stand beside the figures
SLOW = ("moving_mnist", "mnist", "mnist_permuted")


@dataclass(frozen=True)
class Outcome:
    """Of one set: `rows` the methods' figures, `sd` of the LSTM's over the seeds, `must` what each figure has to reach.

    `seconds` are of the processor, over all seeds, fitting and predicting the LSTM; `limit` says in words what a must
    is compared with (the figure's name and the sign).
    """

    set: str
    protocol: str
    flag: str
    seeds: int
    rows: Mapping[str, Figures]
    sd: Figures
    must: Mapping[str, tuple[str, float]]  # figure: (">=" or "<=", bound)
    seconds: float
    published: Mapping[str, Figures] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def figures(self) -> list[str]:
        return [name for name in self.rows["LSTM"] if self.rows["LSTM"][name] is not None]

    def met(self) -> bool:
        """Whether the LSTM's means reach all that they must."""
        own = self.rows["LSTM"]
        return all(
            (value := own.get(name)) is not None and (value >= bound if sign == ">=" else value <= bound)
            for name, (sign, bound) in self.must.items()
        )


class Stopwatch:
    """Processor seconds of what runs within it, over all uses."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self.since = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.process_time() - self.since


def over_seeds(found: Sequence[Mapping[str, Figures]], keep: Sequence[str]) -> tuple[dict[str, Figures], Figures]:
    """The mean over the seeds of each method's figures, and the LSTM's deviations."""
    rows: dict[str, Figures] = {}
    for method in dict.fromkeys(name for one in found for name in one):
        given = [one[method] for one in found if method in one]
        known = {name: [v for one in given if (v := one.get(name)) is not None] for name in keep}
        rows[method] = {name: sum(values) / len(values) if values else None for name, values in known.items()}
    alone = {name: spread([one["LSTM"].get(name) for one in found]) for name in keep}
    return rows, {name: value[1] if value else None for name, value in alone.items()}


def compare(outcome: Outcome) -> list[str]:
    """The outcome as lines of Markdown."""
    names = outcome.figures
    lines = [f"### {outcome.set}", "", outcome.protocol, "", f"Settings: {outcome.flag or 'defaults'}.", ""]
    lines += ["| | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for method, row in {**outcome.rows, **{f"{k} (published)": v for k, v in outcome.published.items()}}.items():
        cells = []
        for name in names:
            value, sd = row.get(name), outcome.sd.get(name) if method == "LSTM" else None
            cells.append("–" if value is None else f"{value:.4g}" + (f" ± {sd:.2g}" if sd is not None else ""))
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    wanted = ", ".join(f"{name} {sign} {bound:g}" for name, (sign, bound) in outcome.must.items())
    lines += ["", f"- wanted: {wanted}: **{'reached' if outcome.met() else 'not reached'}**" if wanted else ""]
    lines += [f"- {outcome.seeds} seed(s), {outcome.seconds:.0f} s of processor time in all"]
    return [*lines, *(f"- {note}" for note in outcome.notes), ""]


def measure(
    names: Sequence[str],
    *,
    seeds: int = 3,
    out: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[Outcome]:
    """Run the sets named (all but the slow ones without a name) and write each one's outcome as soon as it is there."""
    unknown = [name for name in names if name not in SETS]
    if unknown:
        raise CarouselError(f"there is no set {unknown[0]!r}; choose from {', '.join(SETS)}.")
    found = []
    for name in names or [name for name in SETS if name not in SLOW]:
        module, _, function = SETS[name].partition(":")
        more = {"out": out} if name in DRAWN and out is not None else {}
        outcome: Outcome = getattr(importlib.import_module(module), function)(seeds=tuple(range(seeds)), **more)
        found.append(outcome)
        say("\n".join(compare(outcome)))
        if out is not None:
            write(outcome, out)
    return found


def write(outcome: Outcome, out: Path) -> None:
    """`accuracy-<set>.json`, and `accuracy.md` anew from all of them."""
    out.mkdir(parents=True, exist_ok=True)
    record = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "machine": describe()} | asdict(outcome)
    text = json.dumps(record, indent=1, allow_nan=False)
    atomic.write_bytes(out / f"accuracy-{outcome.set}.json", (text + "\n").encode())
    lines = ["# Accuracy on public sets", ""]
    machine: Mapping[str, Any] = {}
    for place in sorted(out.glob("accuracy-*.json"), key=lambda p: _order(p.stem)):
        record = json.loads(place.read_text())
        machine = record.pop("machine")
        record.pop("when")
        record["must"] = {name: tuple(bound) for name, bound in record["must"].items()}
        lines += compare(Outcome(**record))
    lines += ["; ".join(f"{name} {value}" for name, value in machine.items()), ""]
    atomic.write_bytes(out / "accuracy.md", "\n".join(lines).encode())


def _order(stem: str) -> tuple[int, str]:
    name = stem.removeprefix("accuracy-")
    return (list(SETS).index(name) if name in SETS else len(SETS), name)
