"""One command per verb, without logic: options in, one call, its result out; nothing heavy is imported before it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from carousel import fitting, fitting_text
from carousel.errors import CarouselError
from carousel.export import FORMATS
from carousel.options import (
    Data,
    Debug,
    Json,
    Model,
    Names,
    load,
    names,
    naming,
    noting,
    read,
    require_place,
    write_json,
)

__all__ = ["UsageError", "app"]

UsageError: Any = typer.BadParameter.__mro__[1]  # typer names it nowhere

SUITES = {
    "layer": ("inference", "training"),
    "ragged": ("compare",),
    "variants": ("compare",),
    "peak": ("compare", "long_sequence"),
    "fit": ("compare",),
    "stream": ("steps", "from_python", "many", "cold"),
}

app = typer.Typer(
    name="carousel",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


fitting.app.command()(fitting_text.translate)
fitting.app.command()(fitting_text.generate)
app.add_typer(fitting.app, name="fit")


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
    """Measure a model on a table, beside baselines: a backtest of forecasts, anomalies against their labels.

    \b
    Example:
      carousel evaluate m.safetensors sales.csv --since 2024-01-01
    """
    if out is not None:
        require_place(out, (".md", ".json"))
    from carousel import atomic, progress
    from carousel import evaluate as evaluation

    estimator = load(model)
    task = estimator.config_.task
    if task not in ("forecast", "detect"):
        raise CarouselError(f"{model}: models of the task {task} are not evaluated by this verb yet.")
    of_forecasts = {"--since": since, "--windows": windows, "--stride": stride, "--season": season}
    if task != "forecast" and (given := [name for name, value in of_forecasts.items() if value is not None]):
        raise CarouselError(f"{given[0]} is for forecasts, and {model} is for the task {task}; leave it out.")
    frame = read(data)
    with noting(), progress.counting("forecasting" if task == "forecast" else "scoring") as show:
        if task == "detect":
            from carousel.evaluate_detection import evaluate_detection

            found: Any = evaluate_detection(estimator, frame, source=str(data))
        else:
            found = evaluation.evaluate(
                estimator,
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
        write_json(found.to_dict())
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
    set_: Annotated[
        Names,
        typer.Option("--set", metavar="NAME=VALUE", help="How texts are made, as size=5, n_best=3 or temperature=0.8."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Forecasts of each series, a label for each sequence, a label or warning for each row, or texts from texts.

    \b
    Example:
      carousel predict m.safetensors sales.csv --future holidays.csv --out next.parquet
    """
    from carousel import atomic
    from carousel.inputs.files import table_bytes

    if out is not None:
        require_place(out, (".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson"))
    estimator = load(model)
    task = estimator.config_.task
    more = fitting_text.decoding(task, set_)
    frame = fitting_text.read_texts(data) if more else read(data)
    if future is not None and task != "forecast":
        raise CarouselError(f"--future is for forecasts, and {model} is for the task {task}; leave it out.")
    if future is not None:
        more["future"] = read(future)
    with noting(), naming(future=future):
        found = estimator.predict(frame, source=str(data), **more)
    if out is not None:
        atomic.write_bytes(out, table_bytes(found, out.suffix))
        if as_json:
            write_json({"out": str(out), "rows": len(found), "columns": found.columns})
        return
    sys.stdout.write(table_bytes(found, ".jsonl" if as_json else ".csv").decode())
    sys.stdout.flush()


@app.command()
def stream(
    model: Model,
    data: Annotated[
        Path | None, typer.Argument(metavar="[LINES]", help="A file of JSON lines; without it standard input.")
    ] = None,
    weights: Annotated[
        str, typer.Option(metavar="TYPE", help="How the stack's matrices are stored: float32, bf16 or int8.")
    ] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="End with a line that counts rows and errors.")] = False,
    debug: Debug = False,
) -> None:
    """Take rows as JSON lines, one at a time, and answer each with a JSON line.

    A line that is refused gives a line with its number and the error, and the stream goes on.

    \b
    Example:
      carousel stream m.safetensors < rows.jsonl
    """
    from carousel.stream import answer_lines

    if data is not None and not data.is_file():
        raise CarouselError(f"{data}: there is no such file; check the path.")
    counts = [0, 0]
    with nullcontext(sys.stdin.buffer) if data is None else data.open("rb") as lines:
        for answer in answer_lines(model, iter(lines.readline, b""), weights):
            counts[answer.refused] += 1
            sys.stdout.write(answer.text + "\n")
            sys.stdout.flush()
    if as_json:
        sys.stdout.write(json.dumps({"rows": counts[0], "refused": counts[1]}) + "\n")


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
    member: Annotated[
        int | None, typer.Option(metavar="N", help="torch, keras, flax: which member of an ensemble, from 0.")
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

    with noting():
        found = formats.write(model, to, out, int8=int8, calibrate=calibrate, member=member)
    if as_json:
        write_json(found)
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

    with noting():
        found = story.run(out, say=None if as_json else typer.echo)
    if as_json:
        write_json(found)


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
        require_place(out, (".md", ".json"))
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
        write_json(found)
    else:
        typer.echo(surgery.render(found))
    if found["problems"]:
        raise typer.Exit(1)


def _sizes(option: str, given: Names, usual: Sequence[int]) -> tuple[int, ...]:
    texts = names(given)
    if texts is None:
        return tuple(usual)
    if not all(text.isdecimal() and int(text) for text in texts):
        raise CarouselError(f"{option} must be whole numbers of at least 1, got {', '.join(texts)!r}.")
    return tuple(int(text) for text in texts)
