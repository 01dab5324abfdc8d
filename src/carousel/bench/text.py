"""Text on public sets: made texts (`text_made`), replies (`text_dialogue`), labelled texts (`text_labels`); several
seeds, with CPU seconds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from carousel import atomic
from carousel.bench import text_dialogue, text_labels, text_made
from carousel.bench.machine import describe
from carousel.errors import CarouselError

__all__ = ["MUST", "SETS", "Measured", "measure"]

SETS: dict[str, Callable[..., dict[str, float | int | str]]] = text_made.SETS | text_dialogue.SETS | text_labels.SETS

REPLIES = {
    "below_5_grams": (True, 15.0, 25.0),
    "commonest": (False, 0.02, 0.01),
    "distinct_2": (True, 0.08, 0.12),
    "cpu_seconds": (False, 3600.0, 3600.0),
}
# set: figure: whether more is better, what it must reach, what it aims at
MUST: dict[str, dict[str, tuple[bool, float, float]]] = {
    "multi30k": {
        "BLEU": (True, 34.0, 38.5),
        "decoding_cpu_seconds": (False, 120, 40),
        "cpu_seconds": (False, 3600, 3600),
    },
    "shakespeare_3min": {"nats_per_character": (False, 1.88, 1.75), "cpu_seconds": (False, 360, 360)},
    "shakespeare": {"nats_per_character": (False, 1.65, 1.55), "cpu_seconds": (False, 3600, 3600)},
    "dialogue": REPLIES,
    "daily_dialogue": REPLIES,
    "imdb": {"accuracy": (True, 88.0, 90.0), "cpu_seconds": (False, 3600, 3600)},
    "sst2": {"accuracy": (True, 83.0, 86.3), "cpu_seconds": (False, 1200, 1200)},
    "snips": {
        "slot_f1": (True, 92.0, 94.2),
        "intent_accuracy": (True, 97.5, 98.3),
        "cpu_seconds": (False, 1200, 1200),
    },
    "ud_ewt": {"accuracy": (True, 93.5, 94.6), "cpu_seconds": (False, 1200, 1200)},
}
PUBLISHED = {
    "multi30k": "a phrase-based translator trained in 20 s 38.5, a GRU with attention as in tutorials 28.3",
    "shakespeare_3min": "nanoGPT on a processor 1.88 (about 3 minutes)",
    "shakespeare": "nanoGPT 1.4697 (10.7 million parameters, 3 minutes of an A100)",
    "sst2": "LSTM 86.3",
    "imdb": "LSTM 86.2",
    "snips": "F1 94.2, intents 98.0",
    "ud_ewt": "94.6",
}


@dataclass
class Measured:
    """Of one set the figures of each seed."""

    set: str
    protocol: str
    runs: list[dict[str, float | int | str]] = field(default_factory=list)

    def mean(self, name: str) -> float:
        return statistics.fmean(float(run[name]) for run in self.runs)

    def met(self) -> bool:
        """Whether the means over the seeds reach all that they must."""
        wanted = MUST.get(self.set, {})
        return all(
            self.mean(name) >= must if more else self.mean(name) <= must for name, (more, must, _) in wanted.items()
        )

    def lines(self) -> list[str]:
        """As Markdown."""
        lines = [
            f"### {self.set}",
            "",
            self.protocol,
            "",
            "| | mean | sd | must | aim |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        for name, value in self.runs[0].items():
            if isinstance(value, str):
                continue
            values = [float(run[name]) for run in self.runs]
            spread = f"{statistics.stdev(values):.2g}" if len(values) > 1 else "–"
            more, must, aim = MUST.get(self.set, {}).get(name, (True, None, None))
            bounds = ["–" if bound is None else f"{'>=' if more else '<='} {bound:g}" for bound in (must, aim)]
            lines.append(f"| {name} | {statistics.fmean(values):.4g} | {spread} | {bounds[0]} | {bounds[1]} |")
        said = [f"- {name}: {value}" for name, value in self.runs[0].items() if isinstance(value, str)]
        published = [f"- published: {PUBLISHED[self.set]}"] if self.set in PUBLISHED else []
        reached = f"- {len(self.runs)} seed(s); what it must: **{'reached' if self.met() else 'not reached'}**"
        return [*lines, "", *said, *published, reached, ""]


def measure(
    names: Sequence[str],
    *,
    seeds: int = 3,
    out: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    quickly: bool = False,
) -> list[Measured]:
    """Run the sets named, or all, and write each one as soon as it is there: `text-<set>.json` and `text.md` anew.

    `quickly` shows that they run, on little data and a few steps. Raises CarouselError for a set that is not known.
    """
    unknown = [name for name in names if name not in SETS]
    if unknown:
        raise CarouselError(f"there is no set {unknown[0]!r}; choose from {', '.join(SETS)}.")
    found = []
    for name in names or SETS:
        run = SETS[name]
        one = Measured(name, " ".join((run.__doc__ or "").split()))
        for seed in range(seeds):
            one.runs.append(run(seed, quick=quickly))
            if out is not None:
                _write(one, out)
        found.append(one)
        say("\n".join(one.lines()))
    return found


def _write(one: Measured, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe(),
        "set": one.set,
        "protocol": one.protocol,
        "runs": one.runs,
    }
    text = json.dumps(record, indent=1, allow_nan=False)
    atomic.write_bytes(out / f"text-{one.set}.json", (text + "\n").encode())
    lines, machine = ["# Text on public sets", ""], {}
    for name in SETS:
        place = out / f"text-{name}.json"
        if place.exists():
            record = json.loads(place.read_text())
            machine = record["machine"]
            lines += Measured(record["set"], record["protocol"], record["runs"]).lines()
    lines += ["; ".join(f"{name} {value}" for name, value in machine.items()), ""]
    atomic.write_bytes(out / "text.md", "\n".join(lines).encode())
