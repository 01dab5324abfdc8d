"""One table of measurements, for people (rich, Markdown) and machines (JSON)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Report"]

Cell = str | int | float | None


@dataclass
class Report:
    """`columns` name the cells of each row; `summary` holds the figures that the rows boil down to."""

    title: str
    columns: Sequence[str]
    machine: dict[str, str | int]
    rows: list[list[Cell]] = field(default_factory=list)
    summary: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)

    def markdown(self) -> str:
        lines = [f"### {self.title}", "", _row(self.columns), _row(["---"] * len(self.columns))]
        lines += [_row([_text(cell) for cell in row]) for row in self.rows]
        lines += ["", *(f"- {name}: **{value:.2f}**" for name, value in self.summary.items())]
        lines += [f"- {note}" for note in self.notes]
        lines += ["", "; ".join(f"{name} {value}" for name, value in self.machine.items()), ""]
        return "\n".join(lines)

    def show(self) -> None:
        from rich.console import Console
        from rich.table import Table

        table = Table(title=self.title, title_justify="left")
        for k, name in enumerate(self.columns):
            table.add_column(name, justify="left" if k == 0 else "right")
        for row in self.rows:
            table.add_row(*[_text(cell) for cell in row])
        console = Console()
        console.print(table)
        for name, value in self.summary.items():
            console.print(f"{name}: [bold]{value:.2f}[/]", highlight=False)
        for note in self.notes:
            console.print(note, highlight=False)
        console.print("; ".join(f"{n} {v}" for n, v in self.machine.items()), style="dim", highlight=False)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _text(cell: Cell) -> str:
    if cell is None:
        return "–"
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)
