"""The verb of the command line that looks inside a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from carousel import frame_options, text_options, word_options
from carousel.errors import CarouselError
from carousel.options import Data, Debug, Json, Model, Names, load, noting, require_place, write_json

__all__ = ["explain"]


def explain(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The report to write, .html.")],
    png: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write every figure as a PNG as well, light and dark.")
    ] = None,
    id: Annotated[
        Names, typer.Option(metavar="NAME", help="Look at these sequences only; repeated or separated by commas.")
    ] = None,
    member: Annotated[int, typer.Option(metavar="N", help="Which member of an ensemble, from 0.")] = 0,
    twin_steps: Annotated[
        int, typer.Option(metavar="N", min=0, help="Train a plain RNN alike for at most so many steps; 0: none.")
    ] = 150,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """See inside a model: its gates, its memory, how gradients survive, what its answers rest on.

    \b
    Example:
      carousel explain m.safetensors sales.csv --out report.html
    """
    require_place(out, (".html", ".htm"))
    if png is not None:
        _folder(png)
    from carousel import explain as inside

    estimator = load(model)
    with noting():
        found = inside.explain(
            estimator,
            _frame(estimator, data),
            ids=tuple(id or ()),
            member=member,
            twin_steps=twin_steps,
            source=data.name,
            say=_say,
        )
        found.write(out)
        drawn = [] if png is None else found.pictures(png)
    if as_json:
        write_json(found.to_dict() | {"out": str(out), "png": drawn})
        return
    for sentence in found.findings():
        typer.echo(sentence)
    for sentence in found.advice:
        typer.echo(f"Advice: {sentence}")
    for sentence in found.subject.notes:
        typer.echo(f"Note: {sentence}")
    typer.echo(f"wrote {out}" + (f" and {len(drawn)} pictures to {png}" if drawn else ""))


def _folder(place: Path) -> None:
    """Made before the work, so that what stands in the way is said then."""
    try:
        place.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise CarouselError(f"{place}: a file is in the way; name a folder for the pictures.") from None
    except OSError as error:
        raise CarouselError(f"{place}: {error.strerror}; name a folder that can be written to.") from None


def _say(stage: str) -> None:
    """What is being measured, on a terminal only."""
    if sys.stderr.isatty():
        print(f"measuring {stage} ...", file=sys.stderr)  # noqa: T201


def _frame(estimator: Any, data: Path) -> Any:
    """The data as the model takes them: a table, clips, texts, or lines."""
    if getattr(estimator, "frames", None) is not None:
        return frame_options.clips(estimator, data, False)
    if estimator.config_.task == "generate":
        return text_options.read_whole(data, estimator.text)
    return word_options.table_for(estimator, data)
