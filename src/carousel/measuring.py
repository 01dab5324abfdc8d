"""The verbs of the command line that measure: models on tables, and Carousel itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from carousel import frame_options
from carousel.errors import CarouselError
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
from carousel.text_options import decoding, read_dialogue_file, read_pairs, read_whole
from carousel.word_options import table_for

__all__ = ["SUITES", "bench", "evaluate"]

SUITES = {
    "layer": ("inference", "training"),
    "ragged": ("compare",),
    "variants": ("compare",),
    "peak": ("compare", "long_sequence"),
    "fit": ("compare",),
    "conv": ("compare",),
    "stream": ("steps", "from_python", "many", "models", "cold"),
}
SETS = ("accuracy", "robust", "memory", "small-data", "text")  # on sets of data or tasks, which are named
QUICK = ("memory", "small-data", "text")  # those with a short form


def evaluate(
    model: Model,
    data: Data,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="First time to judge; without it the first after training.")
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
    train: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The training rows, for baselines and the leak audit.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="classify: labels of DATA, one row per id.")
    ] = None,
    train_labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="classify: labels of the training rows, one row per id.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Of which no value may be in training and in DATA.")
    ] = None,
    target_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="translate: what belongs to lines of DATA."),
    ] = None,
    train_target_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="translate: the same of the training lines.")
    ] = None,
    id: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Of dialogues in a table, a turn a row: which dialogue.")
    ] = None,
    set_: Annotated[
        Names, typer.Option("--set", metavar="NAME=VALUE", help="translate: how texts are made, as size=5.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the table here as well: .md or .json.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a model on a table, beside baselines, with a report of what speaks for and against the figures.

    \b
    Example:
      carousel evaluate m.safetensors later.csv --train earlier.csv
    """
    if out is not None:
        require_place(out, (".md", ".json"))
    from carousel import atomic, progress

    estimator = load(model)
    task = estimator.config_.task
    of_forecasts = {"--windows": windows, "--stride": stride, "--season": season}
    _refuse(of_forecasts, task, ("forecast",), model)
    _refuse({"--since": since}, task, ("forecast", "tag"), model)
    _refuse({"--train": train}, task, ("classify", "tag", "detect", "translate", "generate"), model)
    of_pairs = {"--target-file": target_file, "--train-target-file": train_target_file, "--id": id, "--set": set_}
    _refuse(of_pairs, task, ("translate",), model)
    _refuse({"--group": group}, task, ("classify", "tag"), model)
    _refuse({"--labels": labels, "--train-labels": train_labels}, task, ("classify",), model)
    frame = None if task in ("translate", "generate") else _table(estimator, data)
    found: Any
    with noting(), naming(train=train, labels=labels, train_labels=train_labels), progress.counting("judging") as show:
        if task == "translate":
            found = _pairs(estimator, (data, target_file), (train, train_target_file), id, set_)
        elif task == "generate":
            from carousel.evaluate_texts import evaluate_language

            known = None if train is None else read_whole(train, estimator.text)
            found = evaluate_language(estimator, read_whole(data, estimator.text), train=known, source=str(data))
        elif task == "detect":
            from carousel.evaluate_detection import evaluate_detection

            rows = None if train is None else _training(estimator, train)
            found = evaluate_detection(estimator, frame, train=rows, source=str(data), train_source=str(train))
        elif task == "forecast" and estimator.frames is not None:
            from carousel.evaluate_frames import evaluate_frames

            _refuse(of_forecasts | {"--since": since}, "frames", ("forecast",), model)
            found = evaluate_frames(estimator, frame, source=str(data), progress=show)
        elif task == "forecast":
            from carousel import evaluate as backtests

            found = backtests.evaluate(
                estimator,
                frame,
                since=since,
                windows=windows,
                stride=stride,
                season=season,
                source=str(data),
                progress=show,
            )
        else:
            from carousel import evaluate_sequences

            found = evaluate_sequences.evaluate(
                estimator,
                frame,
                labels=_labels(estimator, labels),
                train=None if train is None else _training(estimator, train),
                train_labels=_labels(estimator, train_labels),
                group=group,
                since=since,
                source=str(data),
                train_source="train",
            )
    if out is not None:
        text = found.markdown() if out.suffix == ".md" else json.dumps(found.to_dict(), indent=1, allow_nan=False)
        atomic.write_bytes(out, (text + "\n").encode())
    if as_json:
        write_json(found.to_dict())
        return
    found.show()


def _pairs(
    estimator: Any, data: tuple[Path, Path | None], train: tuple[Path | None, Path | None], id: str | None, set_: Names
) -> Any:
    """A translator on pairs, or on the replies of dialogues."""
    from carousel.evaluate_texts import evaluate_pairs

    turns = bool(getattr(estimator.config_.input, "turns", 0))
    options = decoding("translate", set_, replies=turns)
    others = [name for name in options if name not in ("beam", "mutual")]
    if others:
        raise CarouselError(f"setting {others[0]} is not about how good texts are; leave it out.")
    if id is not None and not turns:
        raise CarouselError("--id is about dialogues, and this model knows of no turns; leave it out.")

    def pairs(path: Path, other: Path | None, option: str) -> Any:
        if turns:
            return read_dialogue_file(path, other, option, id, estimator.source)
        return read_pairs(path, other, estimator.source, estimator.target, option)

    if train[0] is None and train[1] is not None:
        raise CarouselError("--train-target-file needs --train, the file that it belongs to.")
    known = None if train[0] is None else pairs(train[0], train[1], "--train-target-file")
    return evaluate_pairs(
        estimator, pairs(data[0], data[1], "--target-file"), train=known, source=str(data[0]), **options
    )


def _labels(estimator: Any, path: Path | None) -> Any:
    words = estimator.config_.input.roles.target if getattr(estimator, "of_texts", False) else ()
    return None if path is None else read(path, (), words)


def _table(estimator: Any, data: Path) -> Any:
    of_clips = getattr(estimator, "frames", None) is not None
    return frame_options.clips(estimator, data) if of_clips else table_for(estimator, data)


def _training(estimator: Any, train: Path) -> Any:
    given = getattr(estimator, "frames", None)
    return table_for(estimator, train) if given is None else frame_options.table_of(given, train)


def _refuse(options: dict[str, Any], task: str, wanted: Sequence[str], model: Path) -> None:
    """An option that is about other tasks."""
    given = [name for name, value in options.items() if value is not None]
    if given and task not in wanted:
        whose = " and ".join(wanted)
        raise CarouselError(f"{given[0]} is for models of {whose}, and {model} is for {task}; leave it out.")


def bench(
    what: Annotated[str, typer.Argument(metavar="WHAT", help=f"What to measure: {', '.join((*SUITES, *SETS))}.")],
    sets: Annotated[
        Names, typer.Argument(metavar="[SET]...", help="Which sets or tasks; without it the usual ones.")
    ] = None,
    hidden: Annotated[
        Names, typer.Option(metavar="SIZES", help="Hidden sizes; without it a grid of the usual ones.")
    ] = None,
    batch: Annotated[
        Names, typer.Option(metavar="SIZES", help="Batch sizes; without it a grid of the usual ones.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(metavar="TYPE", help="float32 (usual), float64 or bfloat16.")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.01, metavar="S", help="Time for each contender of a row; without it 1.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of sets and tasks: how many fits, each from another seed.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="memory, small-data, text: a short form of a minute or so.")
    ] = False,
    compiled: Annotated[bool, typer.Option("--compiled", help="variants: beside torch.compile as well.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="PLACE", help="Write the tables here: a .md or .json file; of sets and tasks a folder."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure: speed of LSTM layers beside others (equality first), accuracy, robustness to gaps, memory, small data.

    \b
    Example:
      carousel bench layer --hidden 64,128 --batch 1,32
      carousel bench accuracy physionet cgm --seeds 3 --out benchmarks/results
      carousel bench memory --quick
    """
    if quick and what not in QUICK:
        raise CarouselError(f"--quick is about {', '.join(QUICK)}, not about {what}; leave it out.")
    if what in SETS:
        of_speed = {"--hidden": hidden, "--batch": batch, "--dtype": dtype, "--seconds": seconds}
        _only(what, of_speed | {"--compiled": compiled or None})
        _sets(what, sets or [], {"seeds": seeds, "quickly": quick or None}, out, as_json)
        return
    if what not in SUITES:
        raise CarouselError(f"{what!r} cannot be measured; choose {', '.join((*SUITES, *SETS))}.")
    _only(what, {"a set": sets, "--seeds": seeds})
    if what == "stream":
        _only(what, {"--batch": batch, "--dtype": dtype})
    if what == "conv":
        _only(what, {"--dtype": dtype})
    if compiled and what != "variants":
        raise CarouselError(f"--compiled is about variants, not about {what}; leave it out.")
    if out is not None:
        require_place(out, (".md", ".json"))
    from importlib import import_module

    import torch

    from carousel import atomic
    from carousel.bench import conv
    from carousel.bench.layer import BATCH, HIDDEN, Grid

    dtype = dtype or "float32"
    if dtype not in ("float32", "float64", "bfloat16"):
        raise CarouselError(f"--dtype must be float32, float64 or bfloat16, got {dtype!r}.")
    usual = (conv.HIDDEN, conv.BATCH) if what == "conv" else (HIDDEN, BATCH)
    sizes = (_sizes("--hidden", hidden, usual[0]), _sizes("--batch", batch, usual[1]))
    grid = Grid(*sizes, dtype=getattr(torch, dtype), seconds=1.0 if seconds is None else seconds)
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


def _sets(what: str, sets: Sequence[str], choices: dict[str, Any], out: Path | None, as_json: bool) -> None:
    """What is measured on sets of data or tasks."""
    from dataclasses import asdict
    from importlib import import_module

    if out is not None and out.suffix:
        raise CarouselError(f"{out}: {what} writes several files; name a folder.")
    measure = import_module(f"carousel.bench.{what.replace('-', '_')}").measure
    given = {name: value for name, value in choices.items() if value is not None}
    with noting():
        found = measure(sets, out=out, say=(lambda _: None) if as_json else typer.echo, **given)
    if as_json:
        write_json([asdict(one) for one in found])


def _only(what: str, options: dict[str, Any]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise CarouselError(f"{given[0]} is not about {what}; leave it out.")


def _sizes(option: str, given: Names, usual: Sequence[int]) -> tuple[int, ...]:
    texts = names(given)
    if texts is None:
        return tuple(usual)
    if not all(text.isdecimal() and int(text) for text in texts):
        raise CarouselError(f"{option} must be whole numbers of at least 1, got {', '.join(texts)!r}.")
    return tuple(int(text) for text in texts)
