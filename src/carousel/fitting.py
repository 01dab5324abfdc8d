"""The verb `fit`: one subcommand per task, each with the options that apply to it."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import typer

from carousel.errors import CarouselError
from carousel.frame_options import Crop, Every, FramesColumn, Grey, Mirror, Rate, Size, SkipBad, choices, table_of
from carousel.options import Data, Debug, Json, Names, names, naming, noting, read, require_place, write_json

__all__ = ["app", "detect", "refusal", "rows_until", "run", "search", "sequence_columns", "tell"]

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)

Out = Annotated[Path, typer.Option(metavar="FILE", help="The model file to write, *.safetensors.")]
Id = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column that says which series; without it there is one.")
]
Time = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column that says when; without it the only timestamp column.")
]
Features = Annotated[
    Names, typer.Option(metavar="COLUMNS", help="Columns known up to now; without it all that have no role.")
]
Static = Annotated[Names, typer.Option(metavar="COLUMNS", help="Columns that are constant in a series.")]
Categorical = Annotated[
    Names, typer.Option(metavar="COLUMNS", help="Number columns that are categories, as codes are.")
]
Long = Annotated[
    Names, typer.Option(metavar="VARIABLE,VALUE", help="DATA are events: the columns of the variable and its value.")
]
Seeds = Annotated[int, typer.Option(metavar="N", help="Members of the ensemble.")]
Set = Annotated[
    Names,
    typer.Option("--set", metavar="NAME=VALUE", help="A choice of training, as hidden_size=128; may be repeated."),
]
Tune = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Try N settings on validation data and fit the best; --set fixes some."),
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Leave out rows after this time, to evaluate on them.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint of an interrupted fit.")]


@app.callback()
def fit_() -> None:
    """Train a model on a table and write it to a file.

    An interrupt (Ctrl-C, SIGTERM) leaves a checkpoint beside the model file, which --resume takes up. What each task
    takes: carousel fit TASK --help. Results as JSON: --json; tracebacks: --debug.

    \b
    Example:
      carousel fit forecast sales.csv --id store --time day --target sold --horizon 28 --out m.safetensors
    """


@app.command()
def forecast(
    data: Data,
    out: Out,
    horizon: Annotated[int, typer.Option(metavar="STEPS", help="How many steps ahead to forecast.")],
    id: Id = None,
    time: Time = None,
    target: Annotated[
        Names, typer.Option(metavar="COLUMNS", help="Column to forecast; repeat it or separate by commas.")
    ] = None,
    features: Features = None,
    static: Static = None,
    known: Annotated[Names, typer.Option(metavar="COLUMNS", help="Columns known ahead, as holidays are.")] = None,
    valid: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows to validate on, instead of the last of DATA.")
    ] = None,
    until: Until = None,
    season: Annotated[int | None, typer.Option(metavar="ROWS", help="Rows of a season; without it inferred.")] = None,
    context: Annotated[
        int | None, typer.Option(metavar="ROWS", help="Rows that the model sees; without it from season and horizon.")
    ] = None,
    frames: FramesColumn = None,
    size: Size = None,
    grey: Grey = False,
    crop: Crop = None,
    rate: Rate = None,
    every: Every = None,
    mirror: Mirror = False,
    skip_bad: SkipBad = False,
    seeds: Seeds = 1,
    set_: Set = None,
    tune: Tune = None,
    skip_short: Annotated[bool, typer.Option("--skip-short", help="Leave out series that are too short.")] = False,
    resume: Resume = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Learn to forecast the next steps of each series, or with --frames the next frames of clips.

    \b
    Example:
      carousel fit forecast sales.csv --id store --time day --target sold --known holiday \\
          --horizon 28 --out m.safetensors
    """
    require_place(out, (".safetensors",))
    from carousel.estimators import Forecaster
    from carousel.train import TrainConfig

    given = {"size": size, "grey": grey, "crop": crop, "rate": rate, "every": every, "mirror": mirror}
    clips = choices(frames, data, skip_bad=skip_bad, **given)
    config = (TrainConfig() if clips is None else Forecaster.frame_defaults).with_settings(set_ or [])
    frame = read(data)
    columns = frame.columns
    model = Forecaster(
        horizon,
        id=id,
        time=time,
        target=names(target, columns),
        features=names(features, columns),
        static=names(static, columns) or (),
        known=names(known, columns) or (),
        season=season,
        context=context,
        frames=clips,
        seeds=seeds,
        config=config,
    )
    frame = rows_until(frame, time, until, data)
    more = {"skip_short": skip_short, "valid": None if valid is None else table_of(clips, valid)}
    seconds = run(model, frame, out, resume, data, more, search(tune, set_), valid=valid)
    tell(model, out, data, seconds, as_json, until, " --future FILE" if known else "")


def detect(
    data: Data,
    out: Out,
    method: Annotated[
        str, typer.Option(metavar="HOW", help="forecast: the next row; autoencoder: windows of rows.")
    ] = "forecast",
    id: Id = None,
    time: Time = None,
    features: Features = None,
    static: Static = None,
    categorical: Categorical = None,
    long: Long = None,
    target: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column that is 1 in rows known to be anomalies, else 0.")
    ] = None,
    reference: Annotated[
        str, typer.Option(metavar="WHAT", help="Judge rows by the training part, or by their history so far.")
    ] = "training",
    rest: Annotated[
        int | None,
        typer.Option(metavar="ROWS", min=0, help="history: after an alarm only higher scores count so long; 100."),
    ] = None,
    smooth: Annotated[Names, typer.Option(metavar="ROWS", help="Rows that errors are averaged over, as 1,10.")] = None,
    level: Annotated[
        Names, typer.Option(metavar="ROWS", help="Rows that values are averaged over, as 20; 0: values do not count.")
    ] = None,
    risk: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Share of normal rows that may exceed the limit.")
    ] = None,
    valid: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows with labels, to choose the threshold on.")
    ] = None,
    until: Until = None,
    frames: FramesColumn = None,
    size: Size = None,
    grey: Grey = False,
    crop: Crop = None,
    rate: Rate = None,
    every: Every = None,
    mirror: Mirror = False,
    skip_bad: SkipBad = False,
    seeds: Seeds = 1,
    set_: Set = None,
    tune: Tune = None,
    resume: Resume = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Learn how rows usually go on, to find those that are odd; no labels are needed.

    \b
    Example:
      carousel fit detect pump.csv --id machine --time at --out m.safetensors
    """
    require_place(out, (".safetensors",))
    from carousel.estimators import Detector

    given = {"size": size, "grey": grey, "crop": crop, "rate": rate, "every": every, "mirror": mirror}
    clips = choices(frames, data, skip_bad=skip_bad, **given)
    plain = Detector.history_defaults if reference == "history" else Detector.defaults
    usual = plain if clips is None else Detector.frame_defaults
    frame = read(data)
    model = Detector(
        method,  # type: ignore[arg-type]
        id=id,
        time=time,
        **sequence_columns(frame, features, static, categorical, long),
        target=target,
        reference=reference,  # type: ignore[arg-type]
        rest=rest,
        scoring=_scoring(reference, smooth, level, risk),
        frames=clips,
        seeds=seeds,
        config=usual.with_settings(set_ or []),
    )
    frame = rows_until(frame, time, until, data)
    more = {"valid": None if valid is None else table_of(clips, valid)}
    seconds = run(model, frame, out, resume, data, more, search(tune, set_), valid=valid)
    tell(model, out, data, seconds, as_json, until)


def refusal(error: Any) -> str | None:
    """Of an option that a task of `fit` does not know: which tasks do; None for other usage errors."""
    option, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    group: Any = getattr(getattr(context, "parent", None), "command", None)
    if option is None or group is None or group.name != "fit":
        return None
    takes = [
        task
        for task, command in group.commands.items()
        if any(option in parameter.opts for parameter in command.params)
    ]
    if not takes:
        return None
    return f"{option} does not apply to fit {error.ctx.command.name}, only to {', '.join(takes)}; leave it out"


def sequence_columns(frame: Any, features: Names, static: Names, categorical: Names, long: Names) -> dict[str, Any]:
    columns = frame.columns
    return {
        "features": names(features, columns),
        "static": names(static, columns) or (),
        "categorical": names(categorical, columns) or (),
        "long": names(long, columns),
    }


def _scoring(reference: str, smooth: Names, level: Names, risk: float | None) -> Any:
    """The reference's own scoring with what was given, None where nothing was; a level of 0 rows is none."""
    from carousel.detector import usual_scoring

    given: dict[str, Any] = {}
    for option, texts in (("smooth", names(smooth)), ("level", names(level))):
        if texts is None:
            continue
        if not all(text.isdecimal() for text in texts):
            raise CarouselError(f"--{option} must be whole numbers of rows, got {', '.join(texts)!r}.")
        given[option] = tuple(int(text) for text in texts if option == "smooth" or int(text))
    if risk is not None:
        given["risk"] = risk
    try:
        return dataclasses.replace(usual_scoring(reference), **given) if given else None
    except ValueError as error:
        raise CarouselError(f"the scoring is refused: {error}.") from None


def rows_until(frame: Any, time: str | None, until: str | None, data: Path) -> Any:
    if until is None:
        return frame
    if time is None:
        raise CarouselError("--until needs --time, the column that it is about.")
    from carousel import evaluate

    return evaluate.rows_until(frame, time, until, source=str(data))


def search(trials: int | None, settings: Names) -> dict[str, Any]:
    """What a search is told: how many trials, and what `--set` has settled."""
    if trials is None:
        return {}
    given = [setting.partition("=")[0] for setting in settings or ()]
    return {"trials": trials, "fixed": [*given, *(f"cell.{name}" for name in given)]}


def run(
    model: Any,
    frame: Any,
    out: Path,
    resume: bool,
    data: Path,
    more: dict[str, Any],
    searched: dict[str, Any],
    **files: Path | None,
) -> float:
    """Fit, after a search for settings where one is asked for, and save; the seconds that it took."""
    from carousel import progress

    started = monotonic()
    checkpoint = out.with_name(out.name + ".checkpoint")
    with noting(), naming(**files), progress.training() as show:
        model.decoding_ = getattr(show, "count", None)
        given: dict[str, Any] = {
            "checkpoint": checkpoint,
            "resume": resume,
            "progress": show,
            "source": str(data),
            **more,
        }
        if searched:
            from carousel.tune import tune

            storage = out.with_name(out.name + ".tune")
            tune(model, frame, storage=storage, say=lambda line: typer.echo(line, err=True), **searched, **given)
        else:
            model.fit(frame, **given)
    model.decoding_ = None
    model.save(out)
    checkpoint.unlink(missing_ok=True)
    return monotonic() - started


def tell(
    model: Any, out: Path, data: Path, seconds: float, as_json: bool, until: str | None = None, future: str = ""
) -> None:
    found = model.provenance_
    if as_json:
        write_json({"model": str(out), "provenance": found})
        return
    count = f"{found['series']:,} series" if "series" in found else f"{found['sequences']:,} sequences"
    typer.echo(
        f"{out}: {count}, {found['rows']:,} rows, fitted in {seconds:.0f} s.\n"
        f"Next: carousel predict {out} {data}{future}, carousel evaluate {out} {_unseen(model, data, until)}"
    )


def _unseen(model: Any, data: Path, until: str | None) -> str:
    """What to evaluate on: rows that the model was not trained on."""
    if until is None:
        return "LATER" if "series" in model.provenance_ else "OTHERS"
    rows = getattr(model, "frames", None) is None and getattr(model, "text", None) is None
    if model.config_.task == "forecast" and rows:
        return str(data)
    return f"{data} --since {shlex.quote(until)}" if model.config_.task == "tag" and rows else "LATER"
