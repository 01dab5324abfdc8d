"""One command per verb, without logic: options in, one call, its result out; nothing heavy is imported before it."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carousel.errors import CarouselError, DataError
from carousel.export import FORMATS

if TYPE_CHECKING:
    import polars

    from carousel.estimators import Forecaster

__all__ = ["TASKS", "UsageError", "app"]

UsageError: Any = typer.BadParameter.__mro__[1]  # typer names it nowhere

TASKS = ("forecast",)
SUITES = {
    "layer": ("inference", "training"),
    "ragged": ("compare",),
    "variants": ("compare",),
    "peak": ("compare", "long_sequence"),
}
_LATER = ("classify", "tag", "detect", "translate", "generate")

app = typer.Typer(
    name="carousel",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Names = list[str] | None
Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON, for machines.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.", expose_value=False)]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A model file that `carousel fit` wrote.")]
Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="A CSV, TSV, Parquet or JSONL file, one row per observation.")
]


def _version(wanted: bool) -> None:
    if wanted:
        import carousel

        typer.echo(f"carousel {carousel.__version__}")
        raise typer.Exit


@app.callback()
def carousel_(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which version.")
    ] = False,
) -> None:
    """LSTMs made practical: rows in, a trained and measured LSTM out.

    \b
    Example:
      carousel demo
    """


@app.command()
def fit(
    task: Annotated[str, typer.Argument(metavar="TASK", help=f"What to learn: {', '.join(TASKS)}.")],
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The model file to write, *.safetensors.")],
    horizon: Annotated[int, typer.Option(metavar="STEPS", help="How many steps ahead to forecast.")],
    id: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column that says which series; without it there is one.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column that says when; without it the only timestamp column.")
    ] = None,
    target: Annotated[
        Names, typer.Option(metavar="COLUMNS", help="Column to forecast; repeat it or separate by commas.")
    ] = None,
    features: Annotated[
        Names, typer.Option(metavar="COLUMNS", help="Columns known up to now; without it all that have no role.")
    ] = None,
    static: Annotated[Names, typer.Option(metavar="COLUMNS", help="Columns that are constant in a series.")] = None,
    known: Annotated[Names, typer.Option(metavar="COLUMNS", help="Columns known ahead, as holidays are.")] = None,
    valid: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows to validate on, instead of the last of DATA.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Leave out rows after this time, to evaluate on them.")
    ] = None,
    season: Annotated[int | None, typer.Option(metavar="ROWS", help="Rows of a season; without it inferred.")] = None,
    context: Annotated[
        int | None, typer.Option(metavar="ROWS", help="Rows that the model sees; without it from season and horizon.")
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Members of the ensemble.")] = 1,
    set_: Annotated[
        Names,
        typer.Option("--set", metavar="NAME=VALUE", help="A choice of training, as hidden_size=128; may be repeated."),
    ] = None,
    skip_short: Annotated[bool, typer.Option("--skip-short", help="Leave out series that are too short.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint of an interrupted fit.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a model on a table and write it to a file.

    An interrupt (Ctrl-C, SIGTERM) leaves a checkpoint beside the model file, which --resume takes up.

    \b
    Example:
      carousel fit forecast sales.csv --id store --time day --target sold --known holiday \\
          --horizon 28 --out m.safetensors
    """
    _require_task(task)
    _require_place(out, (".safetensors",))
    from carousel import evaluate, progress
    from carousel.estimators import Forecaster
    from carousel.train import TrainConfig

    config = TrainConfig().with_settings(set_ or [])
    frame = _read(data)
    columns = frame.columns
    forecaster = Forecaster(
        horizon,
        id=id,
        time=time,
        target=_names(target, columns),
        features=_names(features, columns),
        static=_names(static, columns) or (),
        known=_names(known, columns) or (),
        season=season,
        context=context,
        seeds=seeds,
        config=config,
    )
    if until is not None:
        if time is None:
            raise CarouselError("--until needs --time, the column that it is about.")
        frame = evaluate.rows_until(frame, time, until, source=str(data))
    started = monotonic()
    checkpoint = out.with_name(out.name + ".checkpoint")
    with _warnings(), _named(valid=valid), progress.training() as show:
        forecaster.fit(
            frame,
            valid=None if valid is None else _read(valid),
            checkpoint=checkpoint,
            resume=resume,
            skip_short=skip_short,
            progress=show,
            source=str(data),
        )
    forecaster.save(out)
    checkpoint.unlink(missing_ok=True)
    found = forecaster.provenance_
    if as_json:
        _write_json({"model": str(out), "provenance": found})
        return
    later = data if until is not None else "LATER"  # rows that the model has not seen
    typer.echo(
        f"{out}: {found['series']:,} series, {found['rows']:,} rows, fitted in {monotonic() - started:.0f} s.\n"
        f"Next: carousel predict {out} {data}{' --future FILE' if known else ''}, carousel evaluate {out} {later}"
    )


@app.command()
def evaluate(
    model: Model,
    data: Data,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="First time to forecast; without it the first after training.")
    ] = None,
    windows: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Origins a series, counted from its end.")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(metavar="ROWS", min=1, help="Rows from origin to origin; without it about 64 origins.")
    ] = None,
    season: Annotated[
        int | None,
        typer.Option(metavar="ROWS", min=1, help="Season of the baselines and of MASE; without it the model's."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the table here as well: .md or .json.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Backtest a model on a table, beside the baselines.

    \b
    Example:
      carousel evaluate m.safetensors sales.csv --since 2024-01-01
    """
    if out is not None:
        _require_place(out, (".md", ".json"))
    from carousel import atomic, progress
    from carousel import evaluate as evaluation

    forecaster = _load(model)
    frame = _read(data)
    with _warnings(), progress.counting("forecasting") as show:
        found = evaluation.evaluate(
            forecaster,
            frame,
            since=since,
            windows=windows,
            stride=stride,
            season=season,
            source=str(data),
            progress=show,
        )
    if out is not None:
        text = found.markdown() if out.suffix == ".md" else json.dumps(found.to_dict(), indent=1, allow_nan=False)
        atomic.write_bytes(out, (text + "\n").encode())
    if as_json:
        _write_json(found.to_dict())
        return
    found.show()


@app.command()
def predict(
    model: Model,
    data: Data,
    future: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows ahead with the columns that are known ahead.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write .csv, .tsv, .parquet or .jsonl; without it CSV on stdout."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Forecast the steps after the last row of each series.

    \b
    Example:
      carousel predict m.safetensors sales.csv --future holidays.csv --out next.parquet
    """
    from carousel import atomic
    from carousel.inputs.files import table_bytes

    if out is not None:
        _require_place(out, (".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson"))
    forecaster = _load(model)
    frame = _read(data)
    with _warnings(), _named(future=future):
        found = forecaster.predict(frame, None if future is None else _read(future), source=str(data))
    if out is not None:
        atomic.write_bytes(out, table_bytes(found, out.suffix))
        if as_json:
            _write_json({"out": str(out), "rows": len(found), "columns": found.columns})
        return
    sys.stdout.write(table_bytes(found, ".jsonl" if as_json else ".csv").decode())
    sys.stdout.flush()


@app.command()
def export(
    model: Model,
    to: Annotated[str, typer.Option(metavar="FORMAT", help=f"What to write: {', '.join(FORMATS)}.")],
    out: Annotated[Path, typer.Option(metavar="PATH", help="Where to write it; for c a NAME, without suffix.")],
    int8: Annotated[
        bool, typer.Option("--int8", help="c: 8-bit weights, integer arithmetic only; needs --calibrate.")
    ] = False,
    calibrate: Annotated[
        Path | None, typer.Option(metavar="DATA", help="c: a table of rows to scale the integers by.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a model for other programs, with its scalers and its head.

    \b
    Example:
      carousel export m.safetensors --to onnx --out m.onnx
      carousel export m.safetensors --to c --int8 --calibrate sales.csv --out sales_model
    """
    from carousel import export as formats

    with _warnings():
        found = formats.write(model, to, out, int8=int8, calibrate=calibrate)
    if as_json:
        _write_json(found)
        return
    for line in (f"wrote {', '.join(found['out'])}", *found["notes"]):
        typer.echo(line)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write the model and the picture to.")] = Path(
        "demo"
    ),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """The whole story on real data: weekly CO2 at Mauna Loa, with its gaps, a year ahead.

    \b
    Example:
      carousel demo --out demo
    """
    from carousel import demo as story

    with _warnings():
        found = story.run(out, say=None if as_json else typer.echo)
    if as_json:
        _write_json(found)


@app.command()
def bench(
    what: Annotated[str, typer.Argument(metavar="WHAT", help=f"What to measure: {', '.join(SUITES)}.")],
    hidden: Annotated[
        Names, typer.Option(metavar="SIZES", help="Hidden sizes; without it a grid of the usual ones.")
    ] = None,
    batch: Annotated[
        Names, typer.Option(metavar="SIZES", help="Batch sizes; without it a grid of the usual ones.")
    ] = None,
    dtype: Annotated[str, typer.Option(metavar="TYPE", help="float32, float64 or bfloat16.")] = "float32",
    seconds: Annotated[float, typer.Option(min=0.01, metavar="S", help="Time for each contender of a row.")] = 1.0,
    compiled: Annotated[bool, typer.Option("--compiled", help="variants: beside torch.compile as well.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the tables here as well: .md or .json.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure LSTM layers beside other implementations: equality first, then time, losses shown.

    \b
    Example:
      carousel bench layer --hidden 64,128 --batch 1,32
    """
    if what not in SUITES:
        raise CarouselError(f"{what!r} cannot be measured; choose {', '.join(SUITES)}.")
    if compiled and what != "variants":
        raise CarouselError(f"--compiled is about variants, not about {what}; leave it out.")
    if out is not None:
        _require_place(out, (".md", ".json"))
    from importlib import import_module

    import torch

    from carousel import atomic
    from carousel.bench.layer import BATCH, HIDDEN, Grid

    if dtype not in ("float32", "float64", "bfloat16"):
        raise CarouselError(f"--dtype must be float32, float64 or bfloat16, got {dtype!r}.")
    sizes = (_sizes("--hidden", hidden, HIDDEN), _sizes("--batch", batch, BATCH))
    grid = Grid(*sizes, dtype=getattr(torch, dtype), seconds=seconds)
    choices = {"compiled": True} if compiled else {}
    measures = [getattr(import_module(f"carousel.bench.{what}"), name) for name in SUITES[what]]
    reports = [measure(grid, **choices) for measure in measures]
    text = "[" + ",\n".join(report.json() for report in reports) + "]\n"
    if out is not None:
        tables = "\n".join(report.markdown() for report in reports)
        atomic.write_bytes(out, (tables if out.suffix == ".md" else text).encode())
    if as_json:
        sys.stdout.write(text)
        return
    for report in reports:
        report.show()


@app.command()
def doctor(as_json: Json = False, debug: Debug = False) -> None:
    """Say what this installation can do: versions, instruction sets, backends, threads, and what is missing.

    \b
    Example:
      carousel doctor --json
    """
    from carousel import doctor as surgery

    found = surgery.examine()
    if as_json:
        _write_json(found)
    else:
        typer.echo(surgery.render(found))
    if found["problems"]:
        raise typer.Exit(1)


def _names(given: Names, columns: Sequence[str] = ()) -> tuple[str, ...] | None:
    """Names that were repeated or separated by commas; one that is a column as it stands is taken so.

    >>> _names(["sold, net", "a, b"], ["sold, net", "a", " b"])
    ('sold, net', 'a', ' b')
    """
    if given is None:
        return None
    parts = [name for text in given for name in ([text] if text in columns else text.split(","))]
    return tuple(name if name in columns else name.strip() for name in parts if name in columns or name.strip())


def _sizes(option: str, given: Names, usual: Sequence[int]) -> tuple[int, ...]:
    texts = _names(given)
    if texts is None:
        return tuple(usual)
    if not all(text.isdecimal() and int(text) for text in texts):
        raise CarouselError(f"{option} must be whole numbers of at least 1, got {', '.join(texts)!r}.")
    return tuple(int(text) for text in texts)


def _require_task(task: str) -> None:
    if task not in TASKS:
        known = "comes in a later version" if task in _LATER else "is no task"
        raise CarouselError(f"{task!r} {known}; this version fits: {', '.join(TASKS)}.")


def _require_place(path: Path, suffixes: tuple[str, ...]) -> None:
    """Before the work, not after it: a suffix that says how to write, in a folder that is there."""
    if path.suffix not in suffixes:
        raise CarouselError(f"{path}: the suffix must be {' or '.join(suffixes)}; name the output so.")
    if not path.parent.is_dir():
        raise CarouselError(f"{path}: there is no folder {path.parent}; make it first.")


def _read(path: Path) -> polars.DataFrame:
    from carousel.inputs.files import read_file

    return read_file(path)


def _load(path: Path) -> Forecaster:
    from carousel.estimators import Forecaster

    return Forecaster.load(path)


@contextmanager
def _warnings() -> Iterator[None]:
    """Warnings as one sentence each on standard error, without the line of code."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"carousel: note: {message}", file=sys.stderr)  # noqa: T201

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        yield


@contextmanager
def _named(**files: Path | None) -> Iterator[None]:
    """Errors about a table that a role names (`future`, `valid`) name its file."""
    try:
        yield
    except DataError as error:
        role, path = next(((r, p) for r, p in files.items() if p and re.match(rf"{r}[:,]", str(error))), ("", None))
        if path is None:
            raise
        raise DataError(f"{path}{str(error)[len(role) :]}") from error


def _write_json(found: Any) -> None:
    typer.echo(json.dumps(found, indent=1, allow_nan=False))
