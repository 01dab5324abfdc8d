"""Progress bars on a terminal's standard error; nothing at all where it is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import ProgressColumn, TaskID

    from carousel.evaluate import Progress as Counter
    from carousel.train import Event, Progress

__all__ = ["counting", "training"]


@contextmanager
def training() -> Iterator[Progress | None]:
    """A callback for `train`: member, steps, loss, validation metric, rate and time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=console, transient=True) as bars:
        shown: dict[tuple[int, bool], TaskID] = {}

        def show(event: Event) -> None:
            key = event.member, event.again
            if key not in shown:
                name = f"seed {event.member + 1}/{event.members}" if event.members > 1 else "training"
                name += ", on all rows" if event.again else ""
                shown[key] = bars.add_task(name, total=event.total, figures="")
            parts = [f"loss {event.loss:.4f}"]
            if event.metric is not None:
                parts.append(f"valid {event.metric:.4f}")
            figures = " ".join([*parts, f"{event.rate:.1f}/s"])
            bars.update(shown[key], completed=event.step, figures=figures)

        def count(done: int, total: int) -> None:
            """Of what comes before training."""
            key = -1, False
            if key not in shown:
                shown[key] = bars.add_task("frames", total=total, figures="")
            bars.update(shown[key], completed=done, total=total, visible=done < total)

        show.count = count  # type: ignore[attr-defined]
        yield show


@contextmanager
def counting(what: str) -> Iterator[Counter | None]:
    """A callback (done, total) for work that only counts."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with Progress(console=console, transient=True) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
