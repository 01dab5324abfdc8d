"""What the verbs of the command line share: types of options, reading, warnings, and results as JSON."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carousel.errors import CarouselError, DataError

if TYPE_CHECKING:
    import polars

__all__ = [
    "Data",
    "Debug",
    "Json",
    "Model",
    "Names",
    "load",
    "names",
    "naming",
    "noting",
    "read",
    "require_place",
    "write_json",
]

Names = list[str] | None
Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON, for machines.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.", expose_value=False)]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A model file that `carousel fit` wrote.")]
Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="A CSV, TSV, Parquet or JSONL file, one row per observation.")
]


def names(given: Names, columns: Sequence[str] = ()) -> tuple[str, ...] | None:
    """Names that were repeated or separated by commas; one that is a column as it stands is taken so.

    >>> names(["sold, net", "a, b"], ["sold, net", "a", " b"])
    ('sold, net', 'a', ' b')
    """
    if given is None:
        return None
    parts = [name for text in given for name in ([text] if text in columns else text.split(","))]
    return tuple(name if name in columns else name.strip() for name in parts if name in columns or name.strip())


def require_place(path: Path, suffixes: tuple[str, ...]) -> None:
    """Before the work, not after it: a suffix that says how to write, in a folder that is there."""
    if path.suffix not in suffixes:
        raise CarouselError(f"{path}: the suffix must be {' or '.join(suffixes)}; name the output so.")
    if not path.parent.is_dir():
        raise CarouselError(f"{path}: there is no folder {path.parent}; make it first.")


def read(path: Path, texts: Sequence[str] = (), labels: Sequence[str] = ()) -> polars.DataFrame:
    """The table in a file, the columns `texts` as they stand, and `labels` where they are text."""
    from carousel.inputs.files import read_file

    return read_file(path, texts=texts, labels=labels)


def load(path: Path) -> Any:
    """The fitted estimator of whatever task the file is for."""
    from carousel import estimators

    return estimators.load(path)


@contextmanager
def noting() -> Iterator[None]:
    """Warnings as one sentence each on standard error, without the line of code."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"carousel: note: {message}", file=sys.stderr)  # noqa: T201

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        yield


@contextmanager
def naming(**files: Path | None) -> Iterator[None]:
    """Errors about a table that a role names (`future`, `valid`) name its file."""
    try:
        yield
    except DataError as error:
        role, path = next(((r, p) for r, p in files.items() if p and re.match(rf"{r}[:,]", str(error))), ("", None))
        if path is None:
            raise
        raise DataError(f"{path}{str(error)[len(role) :]}") from error


def write_json(found: Any) -> None:
    typer.echo(json.dumps(found, indent=1, allow_nan=False))
