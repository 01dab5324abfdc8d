"""The evaluation of labels, numbers and warnings as a table: for a terminal, Markdown or JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from carousel.trust.metrics import Scores
from carousel.trust.report import Trust
from carousel.trust.warnings import Warned

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["MODEL", "SequenceEvaluation", "Warnings"]

MODEL = "LSTM"
DAY = 86_400.0

# figure: heading, decimals, whether larger is better (None: neither)
_BINARY = {
    "auroc": ("AUROC", 3, True),
    "ap": ("AP", 3, True),
    "f1": ("F1", 3, True),
    "balanced_accuracy": ("bal. acc.", 3, True),
    "log_loss": ("log loss", 4, False),
    "brier": ("Brier", 4, False),
    "ece": ("ECE", 3, False),
}
_CLASSES = {"accuracy": ("accuracy", 3, True)} | _BINARY
_TEXTS = {"span_f1": ("span F1", 3, True), "intent": ("intent acc.", 3, True)} | _CLASSES
_NUMBERS = {
    "rmse": ("RMSE", 4, False),
    "mae": ("MAE", 4, False),
    "r2": ("R2", 3, True),
    "coverage": ("covered", 3, None),
    "width": ("width", 4, None),
}


@dataclass(frozen=True)
class Warnings:
    """Of each method what its alarms were worth; the baselines with no more alarms than the model has."""

    threshold: float
    ahead: float  # in the clock's units
    stamps: bool
    by: Mapping[str, Warned]


@dataclass(frozen=True)
class SequenceEvaluation:
    """`rows`: of each method its figures, the model first; `count` labels of `sequences` sequences were asked."""

    task: str
    kind: str
    rows: Mapping[str, Scores]
    count: int
    sequences: int
    trust: Trust
    warnings: Warnings | None = None
    notes: tuple[str, ...] = ()
    texts: bool = False

    def of(self, name: str) -> Scores:
        """The figures of a method; KeyError without one."""
        return self.rows[name]

    @property
    def main(self) -> tuple[str, bool]:
        """The figure that decides, and whether larger is better."""
        if self.kind == "regression":
            return "rmse", False
        if self.texts:
            return ("span_f1" if "span_f1" in self.rows[MODEL] else "accuracy"), True
        return ("accuracy", True) if len(self.trust.balance) > 2 else ("auroc", True)

    def verdict(self) -> str:
        """One honest sentence: who is best, and by how much."""
        figure, larger = self.main
        title = self._columns()[figure][0]
        known = {name: v for name, row in self.rows.items() if (v := row.get(figure)) is not None}
        if MODEL not in known:
            return f"{title} says nothing here: only one class occurs."
        rest = {name: v for name, v in known.items() if name != MODEL}
        if not rest:
            return f"The LSTM's {title} is {known[MODEL]:.4g}; no baseline was asked for."
        best = (max if larger else min)(rest, key=lambda name: rest[name])
        ours, theirs = known[MODEL], rest[best]
        ahead = ours > theirs if larger else ours < theirs
        if ahead:
            return f"The LSTM's {title} of {ours:.4g} is better than the best baseline's ({best}: {theirs:.4g})."
        return f"A baseline wins or draws: {best} has {title} {theirs:.4g}, the LSTM {ours:.4g}."

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        warnings = self.warnings and {
            "threshold": self.warnings.threshold,
            "ahead": self.warnings.ahead,
            "by": {name: one.to_dict() for name, one in self.warnings.by.items()},
        }
        return {
            "task": self.task,
            "kind": self.kind,
            "count": self.count,
            "sequences": self.sequences,
            "rows": [{"model": name} | dict(scores) for name, scores in self.rows.items()],
            "warnings": warnings,
            "trust": self.trust.to_dict(),
            "verdict": self.verdict(),
            "notes": list(self.notes),
        }

    def markdown(self) -> str:
        """The tables as Markdown, the best of each column in bold, then the trust report."""
        blocks = []
        for head, body in filter(None, (self._cells(), self._warning_cells())):
            rule = ["---" if n == 0 else "---:" for n in range(len(head))]
            marked = [[f"**{text}**" if best else text for text, best in row] for row in body]
            blocks.append("\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *marked]))
        lines = [self.verdict(), *self.notes, *self.trust.sentences()]
        return "\n\n".join([*blocks, "\n".join(f"- {line}" for line in lines)])

    def tables(self) -> list[Table]:
        """For a terminal."""
        from rich import box
        from rich.markup import escape
        from rich.table import Table

        one, many = ("words", "texts") if self.texts else ("rows", "sequences")
        what = many if self.task == "classify" else f"{one} of {self.sequences:,} {many}"
        titles = [f"{self.count:,} {what}"]
        if self.warnings is not None:
            ahead = _span(self.warnings.ahead, self.warnings.stamps)
            titles.append(f"alarms from {self.warnings.threshold:.3f} on, {ahead} ahead; baselines with as many alarms")
        made = []
        for title, (head, body) in zip(titles, filter(None, (self._cells(), self._warning_cells())), strict=True):
            table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
            for n, name in enumerate(head):
                table.add_column(name, justify="right" if n else "left", no_wrap=True)
            for row in body:
                table.add_row(*(f"[bold]{text}[/bold]" if best else escape(text) for text, best in row))
            made.append(table)
        return made

    def show(self) -> None:
        """Print the tables, the verdict, the notes and the trust report."""
        from rich.console import Console

        console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
        for table in self.tables():
            console.print(table)
        for sentence in (self.verdict(), *self.notes, "", *self.trust.sentences()):
            console.print(sentence, markup=False)

    def _columns(self) -> Mapping[str, tuple[str, int, bool | None]]:
        if self.kind == "regression":
            return _NUMBERS
        if self.texts:
            return _TEXTS
        return _CLASSES if len(self.trust.balance) > 2 else _BINARY

    def _cells(self) -> tuple[list[str], list[list[tuple[str, bool]]]]:
        columns = {
            k: v for k, v in self._columns().items() if any(row.get(k) is not None for row in self.rows.values())
        }
        body = []
        for name, row in self.rows.items():
            cells = [(name, False)]
            for figure, (_, digits, larger) in columns.items():
                value = row.get(figure)
                known = [v for other in self.rows.values() if (v := other.get(figure)) is not None]
                best = value is not None and larger is not None and value == (max if larger else min)(known)
                cells.append(("-" if value is None else _short(value, digits), best and min(known) < max(known)))
            body.append(cells)
        return ["model", *(title for title, _, _ in columns.values())], body

    def _warning_cells(self) -> tuple[list[str], list[list[tuple[str, bool]]]] | None:
        if self.warnings is None:
            return None
        stamps = self.warnings.stamps
        body = []
        for name, found in self.warnings.by.items():
            share = "-" if found.share is None else f"{found.share:.1%}"
            lead = "-" if found.lead_median is None else _span(found.lead_median, stamps)
            rate = found.per(DAY) if stamps else None
            body.append(
                [
                    (name, False),
                    (f"{found.warned:,} of {found.events:,}", False),
                    (share, share == max((_share(w) for w in self.warnings.by.values()), default="")),
                    (lead, False),
                    (f"{found.alarms:,}", False),
                    (f"{found.false_alarms:,}", False),
                    ("-" if rate is None else f"{rate:.2f}", False),
                ]
            )
        return ["model", "events warned of", "share", "median lead", "alarms", "false", "alarms a day"], body


def _share(found: Warned) -> str:
    return "-" if found.share is None else f"{found.share:.1%}"


def _short(value: float, digits: int) -> str:
    """
    >>> _short(0.12345, 3), _short(1234.5, 4), _short(12.345, 4)
    ('0.123', '1,234', '12.35')
    """
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, digits - (len(str(int(size))) if size >= 10 else 0))}f}"


def _span(time: float, stamps: bool) -> str:
    """A length of time in words.

    >>> _span(1800.0, True), _span(7200.0, True), _span(3.0, False)
    ('30 min', '2 h', '3')
    """
    if not stamps:
        return f"{time:g}"
    for unit, name in ((DAY, "d"), (3600.0, "h"), (60.0, "min")):
        if time >= 2 * unit or (time >= unit and time % unit == 0):
            return f"{time / unit:.3g} {name}"
    return f"{time:.3g} s"
