"""From a model file to the core's program: the same weights, the same scalers, no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel import _core, modelfile
from carousel.cell import CellSpec
from carousel.config import ModelConfig, StackConfig
from carousel.errors import CarouselError, ModelFileError, NotSupported
from carousel.heads.classify import class_values
from carousel.heads.detect import DetectHead
from carousel.inputs.clock import CALENDAR
from carousel.inputs.sequence import BOUND, SequenceInput

__all__ = ["STORAGE", "Model", "add_stack", "answers", "load", "program", "refusing"]

Weights = dict[str, NDArray[np.float32]]

STORAGE = {"float32": 0, "bf16": 1, "int8": 2}
_POOLING = {"last": 1, "mean": 2, "max": 3, "attention": 4}
_READ_OUT = {"label": 0, "regression": 1, "event": 2}
_SCORE = 3


class Model(NamedTuple):
    """A model file, read and found fit for streams."""

    name: str
    config: ModelConfig
    weights: Weights
    storage: str
    fingerprint: bytes  # of the config and the weights, 8 bytes


def load(path: str | os.PathLike[str], storage: str) -> Model:
    """Raises ModelFileError where the file is refused, NotSupported for a model without a streaming form."""
    if storage not in STORAGE:
        raise CarouselError(f"weights must be one of {', '.join(STORAGE)}, got {storage!r}.")
    weights, document = modelfile.read(path)
    config, name = ModelConfig.from_json(document["model"]), os.fspath(path)
    reason = _no_streaming_form(config)
    if reason:
        raise NotSupported(f"{name}: {reason}; use `carousel predict`.")
    _require_clock(name, config)
    mark = _core.fingerprint(0, json.dumps(document["model"], sort_keys=True).encode())
    for key in sorted(weights):
        mark = _core.fingerprint(mark, weights[key].data)
    return Model(name, config, weights, storage, mark.to_bytes(8, "little"))


def _no_streaming_form(config: ModelConfig) -> str:
    if config.task not in ("forecast", "classify", "tag", "detect"):
        return f"a model that can {config.task} has no streaming form"
    if hasattr(config.input, "picture"):
        return "frames pass through an encoder that streams of rows lack; for them there is `carousel.ClipStream`"
    if hasattr(config.input, "words"):
        return "texts are read whole, token by token after a vocabulary that streams of rows lack"
    if config.task == "detect" and config.head.method != "forecast":
        return "an autoencoder sees whole windows, so it has no streaming form"
    if config.stack.bidirectional:
        return "a bidirectional stack reads its sequence from both ends, so it has no streaming form"
    return ""


def _require_clock(name: str, config: ModelConfig) -> None:
    """That rows will find the calendar and the time zone that the model was trained with."""
    unknown = [word for word in config.input.calendar if word not in CALENDAR]
    if unknown:
        raise ModelFileError(f"{name}: the calendar has no {unknown[0]!r}: write the model again with `carousel fit`.")
    zone = getattr(config.input, "grid", config.input).zone
    if zone is None:
        return
    from zoneinfo import ZoneInfo  # imported for models with a time zone only

    try:
        ZoneInfo(zone)
    except (LookupError, ValueError, OSError):
        raise CarouselError(
            f"{name}: this machine does not know the time zone {zone!r} of the model; install the package tzdata."
        ) from None


def add_stack(
    add_layer: Any, config: StackConfig, weights: Weights, prefix: str, input_size: int, storage: str
) -> None:
    """Hand every layer of one member to `add_layer(input, hidden, output, ..., weights, storage)`."""
    cell: CellSpec = config.cell
    for layer in range(config.num_layers):
        own = [
            np.ascontiguousarray(weights[f"{prefix}stack.{name}_l{layer}"])
            for name in cell.shapes(input_size, config.hidden_size)
        ]
        add_layer(
            input_size,
            config.hidden_size,
            cell.output_size(config.hidden_size),
            cell.bias,
            cell.peephole,
            cell.coupled,
            cell.layer_norm,
            cell.decay,
            cell.proj_size > 0,
            cell.cell_clip,
            cell.zoneout_c,
            cell.zoneout_h,
            own,
            STORAGE[storage],
        )
        input_size = cell.output_size(config.hidden_size)


def program(model: Model, *, rows: bool) -> Any:
    """The core's program of a model of sequences; `rows`: many streams will be stepped together."""
    config, weights = model.config, model.weights
    seen: SequenceInput = config.input
    members = [f"{k}." for k in range(config.seeds)]
    made = _core.Program(
        unit=seen.unit,
        bound=BOUND,
        uneven=seen.uneven,
        calendar=2 * len(seen.calendar),
        members=len(members),
        rows=rows,
    )
    for fixed, columns in ((False, seen.numbers), (True, seen.static_numbers)):
        for c in columns:
            made.add_number(fixed, c.mean, c.scale, c.squash, c.gaps)
    for k in range(len(seen.embedded)):
        tables = np.stack([weights[f"{m}input.embed.{k}.weight"] for m in members])
        made.add_embedding(k >= len(seen.categories), tables)
    for k, member in enumerate(members):
        add_stack(_of_member(made, k), config.stack, weights, member, seen.step_size, model.storage)
        own = {name: weights.get(f"{member}head.{name}") for name in _HEAD}
        made.set_head(k, *own.values())
        if seen.static_size:
            made.set_initial(k, weights[f"{member}static.weight"], weights[f"{member}static.bias"])
    head = config.head
    if config.task == "detect":
        made.set_read_out(0, _SCORE, 1.0, 0.0, 1.0, [], 0.5)
        with refusing(model):
            _add_scores(made, head, [c.name for c in seen.numbers])
            made.finish()
        return made
    made.set_read_out(
        _POOLING[head.pooling] if config.task == "classify" else 0,
        _READ_OUT[head.kind],
        head.temperature,
        head.mean,
        head.scale,
        list(head.errors) if head.kind == "regression" else [],
        getattr(head, "threshold", 0.5),
    )
    with refusing(model):
        made.finish()
    return made


@contextmanager
def refusing(model: Model) -> Iterator[None]:
    """What the core says of a model that no `fit` makes becomes a ModelFileError."""
    try:
        yield
    except (ValueError, TypeError, MemoryError) as error:
        words = {TypeError: "a number is out of range", MemoryError: "there is not enough memory"}
        what = words.get(type(error), str(error))
        raise ModelFileError(f"{model.name}: the model cannot be streamed ({what}); fit it again.") from error


def _add_scores(made: Any, head: DetectHead, numbers: list[str]) -> None:
    made.set_scores(
        columns=[numbers.index(name) for name in head.columns],
        keep=head.kept.tolist(),
        floor=list(head.floor),
        history=head.reference == "history",
        rest=head.rest,
        threshold=head.threshold,
    )
    for view in head.views:
        correlation = np.array(view.correlation, np.float64)
        made.add_view(
            of_errors=view.of == "error",
            rows=view.rows,
            centre=list(view.centre),
            spread=list(view.spread),
            low=list(view.low),
            high=list(view.high),
            correlation=correlation.ravel().tolist(),
            inverse=np.linalg.inv(correlation).ravel().tolist(),
            limit=view.limit,
            largest=view.largest,
        )


_HEAD = ("hidden.weight", "hidden.bias", "out.weight", "out.bias", "attention.weight")


def _of_member(made: Any, member: int) -> Any:
    return lambda *layer: made.add_layer(member, *layer)


def answers(config: ModelConfig) -> tuple[tuple[str, ...], tuple[Any, ...] | None]:
    """The names of what a row gives, as `predict` names its columns; and the classes of a head that has some, or the
    columns that a score can be put down to."""
    head = config.head
    if config.task == "detect":
        return ("score", "anomaly", "because"), tuple(head.columns)
    if head.kind == "event":
        return ("probability", "alarm"), None
    if head.kind == "regression":
        return ("prediction", *(f"q{q:g}" for q in head.quantiles)), None
    names = ("prediction", *(f"p_{name}" for name in head.classes))
    return names, tuple(class_values(head.classes, head.type).tolist())
