"""How good is a detector on rows with labels? Rows, events and both at once, beside baselines that flag as much."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carousel.anomaly import Detection, detection, runs, vus_pr
from carousel.anomaly_baselines import BASELINES
from carousel.errors import CarouselError, DataError

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["DetectionEvaluation", "evaluate_detection"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

MODEL = "LSTM"
LEARNS = 0.25  # share of each sequence that a baseline learns from
LONGEST = 100  # rows of the buffer of VUS-PR

# name of the column, field, whether larger is better (None: neither)
_COLUMNS: tuple[tuple[str, str, bool | None], ...] = (
    ("flagged", "flagged", None),
    ("precision", "precision", True),
    ("recall", "recall", True),
    ("F1", "f1", True),
    ("event recall", "event_recall", True),
    ("event precision", "event_precision", True),
    ("composite F1", "composite_f1", True),
    ("VUS-PR", "vus_pr", True),
)


@dataclass(frozen=True)
class DetectionEvaluation:
    """What was found; `rows` holds the model first, then every baseline, `vus` their volumes (None: flags only)."""

    rows: dict[str, Detection]
    vus: dict[str, float | None]
    count: int
    sequences: int
    window: int  # rows of the largest buffer of VUS-PR
    notes: tuple[str, ...]

    def of(self, name: str) -> Detection:
        """The figures of a method; KeyError without one."""
        return self.rows[name]

    def verdict(self) -> str:
        """One honest sentence: who has the highest composite F1."""
        ours = self.rows[MODEL].composite_f1
        rest = {name: row.composite_f1 for name, row in self.rows.items() if name != MODEL}
        best = max(rest, key=lambda name: rest[name] or 0.0)
        theirs = rest[best]
        if ours is None or theirs is None:
            return "No row is labelled as an anomaly, so that only the share flagged says something."
        if ours > theirs:
            return f"The LSTM's composite F1 of {ours:.3f} is above the best baseline's ({best}: {theirs:.3f})."
        return f"A baseline wins or draws: {best} has composite F1 {theirs:.3f}, the LSTM {ours:.3f}."

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = [{"model": name} | asdict(row) | {"vus_pr": self.vus[name]} for name, row in self.rows.items()]
        return {
            "task": "detect",
            "count": self.count,
            "sequences": self.sequences,
            "vus_window": self.window,
            "rows": rows,
            "verdict": self.verdict(),
            "notes": list(self.notes),
        }

    def markdown(self) -> str:
        """The table as Markdown, the best of each column in bold, then the verdict and the notes."""
        head, body = self._cells()
        marked = [[f"**{text}**" if best else text for text, best in row] for row in body]
        rule = ["---" if n == 0 else "---:" for n in range(len(head))]
        lines = ["| " + " | ".join(row) + " |" for row in [head, rule, *marked]]
        return "\n".join([*lines, "", *(f"- {line}" for line in (self.verdict(), *self.notes))])

    def table(self) -> Table:
        """The table for a terminal."""
        from rich import box
        from rich.markup import escape
        from rich.table import Table

        head, body = self._cells()
        events = self.rows[MODEL].events
        title = f"{self.count:,} rows of {self.sequences:,} sequences, {events:,} events"
        made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for n, name in enumerate(head):
            made.add_column(name, justify="right" if n else "left")
        for row in body:
            made.add_row(*(f"[bold]{text}[/bold]" if best else escape(text) for text, best in row))
        return made

    def show(self) -> None:
        """Print the table, the verdict and the notes."""
        from rich.console import Console

        console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
        console.print(self.table())
        for sentence in (self.verdict(), *self.notes):
            console.print(sentence, markup=False)

    def _cells(self) -> tuple[list[str], list[list[tuple[str, bool]]]]:
        def figure(name: str, field: str) -> float | None:
            found: float | None = self.vus[name] if field == "vus_pr" else getattr(self.rows[name], field)
            return found

        body = []
        for name in self.rows:
            cells = [(name, False)]
            for _, field, larger in _COLUMNS:
                value = figure(name, field)
                known = [v for other in self.rows if (v := figure(other, field)) is not None]
                best = bool(larger) and value is not None and value == max(known) > min(known)
                text = "-" if value is None else f"{value:.1%}" if field == "flagged" else f"{value:.3f}"
                cells.append((text, best))
            body.append(cells)
        return ["model", *(title for title, _, _ in _COLUMNS)], body


def evaluate_detection(
    model: Any, data: Any, y: Any = None, *, window: int | None = None, source: str | None = None
) -> DetectionEvaluation:
    """Compare a fitted Detector with baselines on rows whose anomalies are labelled: the target column, or `y`.

    Baselines learn from the first quarter of each sequence, and flag as large a share of the rows as the model does.
    `window` is the largest buffer of VUS-PR in rows (None: the median length of the labelled events, at most 100).
    Raises DataError for faults of the data; CarouselError for a model of another task.
    """
    task = model.config_.task
    if task != "detect":
        raise CarouselError(f"a model of the task {task} is not evaluated as a detector.")
    sequences, labels = model.read_labelled(data, y, source=source)
    offsets = sequences.offsets
    found = model.scored(sequences)
    unseen = np.isnan(found.score)
    events = runs(labels, offsets)
    if window is None:
        lengths = events[:, 1] - events[:, 0] + 1
        window = int(np.clip(np.median(lengths), 1, LONGEST)) if len(lengths) else 1
    elif window < 0:
        raise DataError(f"window must be at least 0 rows, got {window}; give more.")
    rows = {MODEL: detection(found.anomaly, labels, offsets)}
    scores = {MODEL: np.nan_to_num(found.score)}
    names = sequences.roles.features
    values = sequences.features[:, [names.index(name) for name in model.columns_]]
    share = float(found.anomaly.mean())
    for name, baseline in BASELINES.items():
        parts = [
            baseline(values[a:b], max(2, int(LEARNS * (b - a))))
            for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        ]
        scores[name] = np.concatenate(parts)
        rows[name] = detection(_highest(scores[name], share), labels, offsets)
    vus = {name: vus_pr(s, labels, offsets, window=window) if len(events) else None for name, s in scores.items()}
    for name, flags in (("flag everything", np.ones(len(labels))), ("flag nothing", np.zeros(len(labels)))):
        rows[name], vus[name] = detection(flags, labels, offsets), None
    notes = [f"Baselines flag the same share of the rows, {share:.1%}, and learn from the first quarter of a sequence."]
    if unseen.any():
        notes.append(f"{int(unseen.sum()):,} rows without any observed number have no score and count as normal.")
    return DetectionEvaluation(rows, vus, len(labels), len(offsets) - 1, window, tuple(notes))


def _highest(scores: Floats, share: float) -> Flags:
    """That share of the rows, those with the highest scores."""
    flags = np.zeros(len(scores), bool)
    flags[np.argsort(-scores, kind="stable")[: round(share * len(scores))]] = True
    return flags
