"""How good is a detector on rows with labels? Rows, events and both at once, beside baselines that flag as much."""

from __future__ import annotations

import copy
import sys
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carousel.anomaly import Detection, detection, runs, vus_pr
from carousel.anomaly_baselines import BASELINES
from carousel.errors import CarouselError, DataError
from carousel.framing import summarised
from carousel.inputs.rows import Sequences
from carousel.trust.leaks import audit, check_future, check_target
from carousel.trust.metrics import spread
from carousel.trust.parts import parts_of
from carousel.trust.report import Trust, balance_of, split_of
from carousel.trust.scales import scalers_of

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
    trust: Trust | None = None

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
            "trust": None if self.trust is None else self.trust.to_dict(),
        }

    def markdown(self) -> str:
        """The table as Markdown, the best of each column in bold, then the verdict and the notes."""
        head, body = self._cells()
        marked = [[f"**{text}**" if best else text for text, best in row] for row in body]
        rule = ["---" if n == 0 else "---:" for n in range(len(head))]
        lines = ["| " + " | ".join(row) + " |" for row in [head, rule, *marked]]
        trust = () if self.trust is None else self.trust.sentences()
        return "\n".join([*lines, "", *(f"- {line}" for line in (self.verdict(), *self.notes, *trust))])

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
        trust = () if self.trust is None else ("", *self.trust.sentences())
        for sentence in (self.verdict(), *self.notes, *trust):
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
    model: Any,
    data: Any,
    y: Any = None,
    *,
    train: Any = None,
    window: int | None = None,
    source: str | None = None,
    train_source: str = "train",
) -> DetectionEvaluation:
    """Compare a fitted Detector with baselines on rows whose anomalies are labelled: the target column, or `y`.

    Baselines learn from the first quarter of each sequence, and flag as large a share of the rows as the model does.
    `window` is the largest buffer of VUS-PR in rows (None: the median length of the labelled events, at most 100).
    `train` are the rows that the model learnt from, for the leak audit. Raises DataError for faults of the data;
    CarouselError for a model of another task.
    """
    task = model.config_.task
    if task != "detect":
        raise CarouselError(f"a model of the task {task} is not evaluated as a detector.")
    sequences, labels = model.read_labelled(data, y, source=source)
    offsets = sequences.offsets
    found = model.scored(sequences)
    sequences = summarised(sequences, getattr(model.config_.head, "blocks", (1, 1)))
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
    learnt = None if train is None else model.read(train, source=train_source, target=False)
    learnt = summarised(learnt, getattr(model.config_.head, "blocks", (1, 1)))
    trust = _trust(model, sequences, labels, learnt)
    return DetectionEvaluation(rows, vus, len(labels), len(offsets) - 1, window, tuple(notes), trust)


def _trust(model: Any, sequences: Sequences, labels: Flags, learnt: Sequences | None) -> Trust:
    """The leak audit of labels that only the judge knows, and how much the members of an ensemble differ."""
    given = [sequences] if learnt is None else [sequences, learnt]
    targets = [labels.astype(np.float64), *(np.full(len(one.time), np.nan) for one in given[1:])]
    parts = parts_of(given, targets)
    train = parts[1] if learnt is not None else None
    if train is not None and sequences.backend is None:
        train = replace(train, ids=np.array([f"training {name}" for name in train.ids], dtype=object))
    scalers = scalers_of(model.config_.input)
    ids = sequences.backend is not None
    found = audit(parts[0], train, per_sequence=False, scalers=scalers, ids=ids, known=model.columns_, thresholds=False)
    hidden = check_target(parts[0], model.columns_, thresholds=False)  # training rows have no labels
    hidden += check_future(parts[0])
    said = {(f.kind, f.column) for f in found.findings}
    more = tuple(f for f in hidden if (f.kind, f.column) not in said)
    return Trust(
        replace(found, findings=(*found.findings, *more)),
        split_of(train, parts[0]),
        balance_of(("normal", "anomaly"), targets[0], None),
        _spread(model, sequences, labels),
        model.config_.seeds,
    )


def _spread(model: Any, sequences: Sequences, labels: Flags) -> dict[str, tuple[float, float]]:
    """Mean and deviation of the figures over the members, each alone at the model's thresholds."""
    alone = []
    for member in model.model_ if len(model.model_) > 1 else ():
        one = copy.copy(model)
        one.model_ = [member]
        alone.append(detection(one.scored(sequences).anomaly, labels, sequences.offsets))
    names = ("flagged", "f1", "event_recall", "composite_f1")
    found = {name: spread([getattr(one, name) for one in alone]) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _highest(scores: Floats, share: float) -> Flags:
    """That share of the rows, those with the highest scores."""
    flags = np.zeros(len(scores), bool)
    flags[np.argsort(-scores, kind="stable")[: round(share * len(scores))]] = True
    return flags
