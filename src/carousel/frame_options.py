"""What the command line says about frames: which column names the clips, and how pictures are taken."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from carousel.errors import CarouselError
from carousel.options import read, require_place, write_json

__all__ = [
    "ConvLstm",
    "Crop",
    "Encoder",
    "Every",
    "FramesColumn",
    "Grey",
    "Mirror",
    "Rate",
    "Render",
    "Size",
    "SkipBad",
    "choices",
    "clips",
    "predict",
    "refuse",
    "table_of",
]

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
ConvLstm = Annotated[
    int | None,
    typer.Option("--convlstm", metavar="N", min=1, help="frames: a convolutional LSTM of N channels before the LSTM."),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="frames: leave out what cannot be read, and count it.")]

Render = Annotated[
    Path | None,
    typer.Option(
        metavar="PLACE",
        help="frames: draw what was said on the clip: a video, a folder for several clips, a .png of frames ahead.",
    ),
]


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
    """The table of clips for a model of frames, which count from its folder; a video, a folder of images or an array
    stands for a table that names it."""
    from carousel.inputs.files import SUFFIXES
    from carousel.inputs.frames import Frames

    given = Frames.of(estimator.frames)
    table = data.name.lower().endswith(SUFFIXES)
    estimator.frames = dataclasses.replace(given, root=data.parent if table else None, skip_bad=skip_bad)
    if table:
        return read(data)
    import polars as pl

    return pl.DataFrame({given.column or "clip": [str(data)]})


def table_of(given: Any, path: Path) -> Any:
    """Another table beside the one whose folder `given` counts from (None: no clips at all); its own paths count from
    its own folder."""
    import polars as pl

    table = read(path)
    if given is None or given.root is None or given.column not in table.columns:
        return table
    folder = path.parent.resolve()
    if folder == Path(given.root).resolve() or table[given.column].dtype != pl.String:
        return table
    names = [None if name is None else str(folder / name) for name in table[given.column].to_list()]
    return table.with_columns(pl.Series(given.column, names, pl.String))


def refuse(options: dict[str, Any], model: Path) -> None:
    """Options that say nothing to a model of frames."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise CarouselError(f"{given[0]} does not go with models of frames, as {model} is; leave it out.")


def predict(estimator: Any, data: Path, *, out: Path | None, show: Path | None, skip_bad: bool, as_json: bool) -> None:
    """Labels or scores as a table, frames ahead as arrays, and either drawn where that is wanted."""
    from carousel import atomic, frame_output, progress
    from carousel.inputs.files import table_bytes

    ahead = estimator.config_.task == "forecast"
    if out is not None:
        require_place(out, (".npz",) if ahead else (".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson"))
    if show is not None:
        frame_output.require_render(show, ahead)
    if ahead and out is None and show is None:
        raise CarouselError("frames ahead are no table; name a file with --out FILE.npz, or a picture with --render.")
    table = clips(estimator, data, skip_bad)
    with progress.counting("frames") as told:
        estimator.decoding_ = told
        source = str(data)
        found: Any = frame_output.ahead(estimator, table, source) if ahead else estimator.predict(table, source=source)
    with progress.counting("drawing") as told:
        drawn = [] if show is None else frame_output.draw(estimator, table, found, show, str(data), told)
    if ahead:
        if out is not None:
            frame_output.write_arrays(found, out)
        if as_json:
            write_json({"out": None if out is None else str(out), "clips": len(found), "drawn": drawn})
        return
    if out is None:
        sys.stdout.write(table_bytes(found, ".jsonl" if as_json else ".csv").decode())
        sys.stdout.flush()
        return
    atomic.write_bytes(out, table_bytes(found, out.suffix))
    if as_json:
        write_json({"out": str(out), "rows": len(found), "columns": found.columns, "drawn": drawn})


def _size(text: str) -> Any:
    sides = _numbers("--size", text.lower(), "x")
    return sides[0] if len(sides) == 1 else tuple(sides)


def _numbers(option: str, text: str, between: str) -> list[int]:
    parts = [part.strip() for part in text.split(between)]
    if not all(part.isdecimal() for part in parts):
        raise CarouselError(f"{option} must be whole numbers with {between!r} between them, got {text!r}.")
    return [int(part) for part in parts]
