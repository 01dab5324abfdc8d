"""What the command line says about frames: which column names the clips, and how pictures are taken."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from carousel.errors import CarouselError
from carousel.options import read

__all__ = ["Crop", "Encoder", "Every", "FramesColumn", "Grey", "Mirror", "Rate", "Size", "SkipBad", "choices", "clips"]

FramesColumn = Annotated[
    str | None,
    typer.Option(
        "--frames", metavar="COLUMN", help="DATA name clips: the column of videos, folders of images or .npy files."
    ),
]
Size = Annotated[str | None, typer.Option(metavar="PIXELS", help="frames: a side, or HEIGHTxWIDTH; without it 64.")]
Grey = Annotated[bool, typer.Option("--grey", help="frames: without colour.")]
Crop = Annotated[str | None, typer.Option(metavar="HOW", help="frames: centre cuts the longer side; without it none.")]
Rate = Annotated[float | None, typer.Option(metavar="FPS", help="frames: so many a second of a video, at most.")]
Every = Annotated[int | None, typer.Option(metavar="N", min=1, help="frames: only every N-th.")]
Mirror = Annotated[
    bool, typer.Option("--mirror", help="frames: mirror clips at random, where left is as good as right.")
]
Encoder = Annotated[
    str | None, typer.Option(metavar="SIZES", help="frames: filters of the encoder's convolutions, as 16,32,64.")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="frames: leave out what cannot be read, and count it.")]


def choices(column: str | None, data: Path, **given: Any) -> Any:
    """The `Frames` that the options say, paths counted from the folder of the table; None without --frames."""
    said = {name: value for name, value in given.items() if value not in (None, False)}
    if column is None:
        if said:
            name = next(iter(said)).replace("_", "-")
            raise CarouselError(f"--{name} is about clips; name their column with --frames, or leave it out.")
        return None
    from carousel.inputs.frames import Frames

    fields: dict[str, Any] = {"column": column, "root": data.parent}
    for name, value in said.items():
        if name == "size":
            fields["size"] = _size(value)
        elif name == "encoder":
            fields["filters"] = tuple(_numbers("--encoder", value, ","))
        else:
            fields["flip" if name == "mirror" else name] = value
    try:
        return Frames(**fields)
    except ValueError as error:
        raise CarouselError(f"the choices of frames are refused: {error}; correct the option.") from None


def clips(estimator: Any, data: Path, skip_bad: bool = False) -> Any:
    """The table of clips for a model of frames; a video, a folder or an array stands for a table that names it."""
    import dataclasses

    from carousel.inputs.files import SUFFIXES
    from carousel.inputs.frames import Frames

    given = Frames.of(estimator.frames)
    table = data.name.lower().endswith(SUFFIXES)
    estimator.frames = dataclasses.replace(given, root=data.parent if table else None, skip_bad=skip_bad)
    if table:
        return read(data)
    import polars as pl

    return pl.DataFrame({given.column or "clip": [str(data)]})


def _size(text: str) -> Any:
    sides = _numbers("--size", text.lower(), "x")
    return sides[0] if len(sides) == 1 else tuple(sides)


def _numbers(option: str, text: str, between: str) -> list[int]:
    parts = [part.strip() for part in text.split(between)]
    if not all(part.isdecimal() for part in parts):
        raise CarouselError(f"{option} must be whole numbers with {between!r} between them, got {text!r}.")
    return [int(part) for part in parts]
