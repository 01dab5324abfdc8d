"""One command per verb, without logic: options in, one call, its result out; nothing heavy is imported before it."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from carousel import (
    chatting,
    explaining,
    fitting,
    fitting_labels,
    fitting_text,
    frame_options,
    measuring,
    text_options,
    word_options,
)
from carousel.errors import CarouselError
from carousel.export import FORMATS
from carousel.frame_options import Render, SkipBad
from carousel.options import (
    Data,
    Debug,
    Json,
    Model,
    Names,
    load,
    naming,
    noting,
    read,
    require_place,
    write_json,
)

__all__ = ["UsageError", "app"]

UsageError: Any = typer.BadParameter.__mro__[1]  # typer names it nowhere

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


fitting.app.command()(fitting_labels.classify)
fitting.app.command()(fitting_labels.tag)
fitting.app.command()(fitting.detect)
fitting.app.command()(fitting_text.translate)
fitting.app.command()(fitting_text.generate)
app.add_typer(fitting.app, name="fit")


app.command()(measuring.evaluate)
app.command()(explaining.explain)
app.command()(chatting.chat)


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
    render: Render = None,
    skip_bad: SkipBad = False,
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

    estimator = load(model)
    task = estimator.config_.task
    if getattr(estimator, "frames", None) is not None:
        frame_options.refuse({"--future": future, "--set": set_}, model)
        with noting():
            frame_options.predict(estimator, data, out=out, show=render, skip_bad=skip_bad, as_json=as_json)
        return
    if skip_bad or render is not None:
        option = "--skip-bad" if skip_bad else "--render"
        raise CarouselError(f"{option} is about clips, and {model} reads tables; leave it out.")
    if out is not None:
        require_place(out, (".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson"))
    turns = bool(getattr(estimator.config_.input, "turns", 0))
    more = text_options.decoding(task, set_, replies=turns)
    if more:
        frame = text_options.read_texts(data, estimator.text if task == "generate" else estimator.source, turns)
    else:
        frame = word_options.table_for(estimator, data)
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
    keep: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Remember at most N sequences; the one idle for longest is forgotten."),
    ] = None,
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
        for answer in answer_lines(model, iter(lines.readline, b""), weights, keep):
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
    scan: Annotated[
        bool, typer.Option("--scan", help="onnx: write cells out, for runtimes whose LSTM operator lacks peepholes.")
    ] = False,
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
        found = formats.write(model, to, out, int8=int8, calibrate=calibrate, scan=scan, member=member)
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


app.command()(measuring.bench)


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
