"""`explain`: everything there is to see in a fitted model on some data."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from time import process_time
from typing import Any

import numpy as np
import torch

from carousel.errors import CarouselError, NotSupported
from carousel.explain.advice import Health, advise, health
from carousel.explain.attribution import Attribution, attribute
from carousel.explain.gates import Role, order, roles
from carousel.explain.gradients import MOST_TWIN_STEPS, Flows, flows
from carousel.explain.memory import Influence, Memory, influence, memory
from carousel.explain.record import Layer
from carousel.explain.subject import Subject

__all__ = ["Explanation", "explain", "subject_of"]

MOST_LAYERS = 6

# Who reads which input (of which task, "": any); a new input is one line here.
READERS = {
    ("TableInput", ""): "forecasts.forecast_subject",
    ("SequenceInput", ""): "sequences.sequence_subject",
    ("TokenInput", ""): "texts.token_subject",
    ("TextInput", ""): "texts.generate_subject",
    ("PairInput", ""): "texts.translate_subject",
    ("DialogueInput", ""): "texts.translate_subject",
    ("FramesInput", "classify"): "frames.frames_subject",
    ("FramesInput", "tag"): "frames.frames_subject",
}
LABELLED = ("SequenceInput", "TokenInput", "FramesInput")


@dataclass
class Explanation:
    """What was found; `write` makes the report, `pictures` its figures, `to_dict` the numbers."""

    subject: Subject
    layers: list[Layer]
    roles: list[list[Role]]
    orders: list[tuple[Any, Any]]
    memories: list[Memory]
    influence: Influence | None
    flows: Flows
    attribution: Attribution
    health: list[Health]
    model: dict[str, Any]  # facts about the model, as text
    advice: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def findings(self) -> list[str]:
        """The most important in a few sentences."""
        from carousel.explain.words import findings

        return findings(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; infinite half-lives are null."""
        from carousel.explain.words import as_dict

        return as_dict(self)

    def write(self, path: str | os.PathLike[str]) -> None:
        """One HTML file that needs no network."""
        from carousel import atomic
        from carousel.explain.report import page

        atomic.write_bytes(path, page(self).encode())

    def pictures(self, folder: str | os.PathLike[str]) -> list[str]:
        """Every figure as a PNG; the names of the files."""
        from carousel.explain.report import pictures

        return pictures(self, folder)


def explain(
    estimator: Any,
    frame: Any,
    y: Any = None,
    *,
    ids: tuple[str, ...] = (),
    member: int = 0,
    twin_steps: int = MOST_TWIN_STEPS,
    source: str = "data",
    say: Callable[[str], object] | None = None,
) -> Explanation:
    """Look inside a fitted estimator (or the path of a model file) while it reads `frame`.

    `y` are the labels of arrays, so that a plain RNN can be trained beside the model; tables have a column of them.
    `ids` names the sequences to look at (none: evenly among all), `member` which of an ensemble, `twin_steps` for how
    many steps a plain RNN is trained beside it (0: none). Raises CarouselError for an empty selection and a member
    there is none of, DataError where the data do not fit the model, MissingExtra without captum.

    >>> import numpy as np, polars as pl
    >>> from carousel import Forecaster, TrainConfig
    >>> wave = pl.DataFrame({"t": range(120), "y": np.sin(np.arange(120) * np.pi / 6)})
    >>> model = Forecaster(6, time="t", season=12, config=TrainConfig(steps=20, hidden_size=8)).fit(wave)
    >>> found = explain(model, wave, twin_steps=3)
    >>> found.layers[0].units, len(found.roles[0]), found.attribution.columns
    (8, 8, ['y'])
    """
    tell = say or (lambda _: None)
    started = process_time()
    if isinstance(estimator, str | os.PathLike):
        from carousel.estimators import load

        estimator = load(estimator)
    config = estimator._fitted()
    if isinstance(member, bool) or not 0 <= member < config.seeds:
        raise CarouselError(
            f"member is {member}, but the model has {config.seeds}; count from 0 to {config.seeds - 1}."
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # nets this small lose more to waiting than a second thread brings
    try:
        subject = subject_of(estimator, frame, source=source, ids=tuple(str(name) for name in ids), member=member, y=y)
        tell("gates")
        layers = subject.layers()
        if len(layers) > MOST_LAYERS:
            subject.notes.append(f"The first {MOST_LAYERS} of {len(layers)} layers and directions are shown.")
            layers = layers[:MOST_LAYERS]
        inputs = _inputs(subject)
        memories = [memory(layer) for layer in layers]
        found = [roles(layer, subject, inputs) for layer in layers]
        tell("memory")
        moved = influence(subject)
        tell("attribution")
        attribution = attribute(subject)
        tell("gradients")
        settings = dataclasses.replace(estimator.settings, accelerator="cpu", precision="32-true")
        flow = flows(subject, settings, steps=twin_steps)
    finally:
        torch.set_num_threads(threads)
    healths = [health(layer) for layer in layers]
    made = Explanation(
        subject,
        layers,
        found,
        [order(layer) for layer in layers],
        memories,
        moved,
        flow,
        attribution,
        healths,
        _facts(estimator, subject),
        advise(subject, layers, healths, memories, flow, attribution),
    )
    made.seconds = process_time() - started
    return made


def subject_of(estimator: Any, frame: Any, *, source: str, ids: tuple[str, ...], member: int, y: Any = None) -> Subject:
    """The subject of whatever task and input the model has; NotSupported where nothing reads it yet."""
    config = estimator.config_
    kind = type(config.input).__name__
    place = READERS.get((kind, config.task)) or READERS.get((kind, ""))
    if place is not None:
        module, _, name = place.rpartition(".")
        read = getattr(importlib.import_module(f"carousel.explain.{module}"), name)
        labels = {} if y is None else {"y": y}
        if labels and kind not in LABELLED:
            raise CarouselError(
                f"y are labels of arrays, and a model of the task {config.task} learns none; leave it out."
            )
        found: Subject = read(estimator, frame, source=source, wanted=ids, member=member, **labels)
        return found
    raise NotSupported(
        f"a model of the task {config.task} with a {kind} has no carousel.LSTM inside (next frames come from a"
        " ConvLSTM, whose gates are pictures), so there are no gates to look at; give one that classifies or tags."
    )


def _inputs(subject: Subject) -> Any:
    """Rows as the first layer reads them [N, C], where they are plain rows of channels."""
    leaves = subject.leaves(subject.everything())
    if leaves.dim() != 3 or leaves.shape[2] != len(subject.channels):
        return None
    real = torch.arange(leaves.shape[1]) < torch.from_numpy(subject.lengths)[:, None]
    return leaves[real].numpy()


def _facts(estimator: Any, subject: Subject) -> dict[str, Any]:
    config = estimator.config_
    count = sum(int(np.prod(shape)) for shape in config.member_shapes().values())
    return {
        "task": config.task,
        "layers": config.stack.num_layers,
        "units": config.stack.hidden_size,
        "weights": count,
        "members": config.seeds,
        "member": subject.member,
        "cell": {
            k: v for k, v in dataclasses.asdict(config.stack.cell).items() if v not in (False, 0, 0.0) and k != "bias"
        },
        "steps": subject.own_steps,
    }
