"""Every choice of training in one frozen value, and its reading from text."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from carousel.cell import CellSpec
from carousel.errors import CarouselError

__all__ = ["TrainConfig"]

MANY = 2**31 - 1
LARGEST = 1e9
RATE = 1000  # rates are multiplied with one another, in 32 bits
_BOUNDS: dict[str, tuple[float, float]] = {
    "hidden_size": (1, MANY),
    "num_layers": (1, 1000),
    "width": (0, MANY),
    "steps": (1, MANY),
    "least_steps": (1, MANY),
    "batch_size": (1, MANY),
    "checkpoints": (1, 1000),
    "evaluate_every": (1, MANY),
    "checkpoint_every": (1, MANY),
    "batch_rows": (1, MANY),
    "crop": (0, MANY),
    "span": (0, MANY),
    "warmup": (0, MANY),
    "patience": (0, MANY),
    "threads": (0, MANY),
    "seed": (0, 2**62),  # members and directions count on from it, in 64 bits
    "linear_rate": (0, RATE),
    "noise": (0, RATE),
    "weight_decay": (0, RATE),
}
_MEANT: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    CellSpec: "a CellSpec",
}


@dataclass(frozen=True)
class TrainConfig:
    """Every choice of training, with defaults that a practitioner expects.

    AdamW (Loshchilov & Hutter 2019) with linear warm-up and cosine decay, gradients clipped to norm 1, weights
    averaged over steps (Polyak & Juditsky 1992), early stopping that restores the best weights.

    Raises ValueError for a value out of range or of a wrong type.

    >>> TrainConfig().with_settings(["hidden_size=32", "cell.peephole=true"]).cell.peephole
    True
    """

    hidden_size: int = 64
    num_layers: int = 1
    dropout: float = 0.0
    cell: CellSpec = CellSpec()
    width: int = 64  # of the decoder; of classify and tag: of a hidden layer before the output, 0: none
    steps: int = 1500  # at most
    epochs: float = 20.0  # passes over the training windows, where these are fewer steps, but at least `least_steps`
    least_steps: int = 300
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup: int = 100  # steps
    clip: float = 1.0  # largest norm of the gradient
    averaging: float = 0.99  # of the weights, 0: none
    checkpoints: int = 1  # the mean of so many evaluated weights is judged as well (Sennrich et al. 2016)
    evaluate_every: int = 50  # steps
    patience: int = 8  # evaluations without a better one, then training stops; 0: never
    ridge: float = 0.03  # penalty of the linear path's starting weights, per window
    linear_rate: float = 0.1  # learning rate of the linear path, in units of the others'
    recency: float = 1.0  # origins are drawn with density ~ position ** (recency - 1); 2: later ones more often
    holdout: float = 0.2  # largest share of each series held out at its end; at least one horizon; 0: none
    refit: bool = True  # after early stopping and calibration, train anew with the held-out rows as well
    unseen: float = 0.02  # share of categories shown as never seen, so that the model knows what to do then
    level: Literal["last", "mean"] = "mean"  # what a window's values are measured from
    seed: int = 0
    accelerator: str = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    bidirectional: bool = False  # classify and tag: read sequences from both ends, which no stream can
    batch_rows: int = 8192  # of whole sequences: so many rows fill a batch before `batch_size` sequences do
    uneven_decay: bool = True  # where the time from row to row varies, cell.decay is on
    noise: float = 0.0  # of whole sequences: spread of what is added to scaled readings of columns without gaps
    hide: float = 0.0  # of whole sequences: share of readings hidden anew each time; less of columns with few gaps
    replicate: float = 0.0  # classify: share of the loss that asks every row for the label, after Lipton et al. 2016
    span: int = 0  # rows that memory shall reach from the start (Tallec & Ollivier 2018); 0: a few
    crop: int = 0  # of whole sequences: train on random pieces of at most so many rows; 0: on all of them
    threads: int = 0  # of the processor, while training; 0: as many as torch is set to
    checkpoint_every: int = 200  # steps

    def __post_init__(self) -> None:
        for name, kind in typing.get_type_hints(TrainConfig).items():
            self._check_type(name, kind)
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                side = f"at least {low}" if not value > high else f"at most {high}"
                raise ValueError(f"{name} must be {side}, got {value}")
        for name in ("learning_rate", "clip", "recency", "ridge", "epochs"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive, got {value}")
            if value > (high := RATE if name == "learning_rate" else LARGEST):
                raise ValueError(f"{name} must be at most {high:g}, got {value}")
        for name in ("dropout", "averaging", "holdout", "unseen", "hide", "replicate"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.cell.proj_size >= self.hidden_size:
            raise ValueError(
                f"cell.proj_size must be smaller than hidden_size ({self.hidden_size}), got {self.cell.proj_size}"
            )

    def _check_type(self, name: str, kind: Any) -> None:
        value = getattr(self, name)
        if typing.get_origin(kind) is Literal:
            if value not in typing.get_args(kind):
                known = ", ".join(typing.get_args(kind))
                raise ValueError(f"{name} must be one of {known}, got {value!r}")
        elif not isinstance(value, (int, float) if kind is float else kind) or (
            isinstance(value, bool) and kind is not bool
        ):
            raise ValueError(f"{name} must be {_MEANT[kind]}, got {value!r}")

    def require_threads(self) -> None:
        """CarouselError where `threads` is more than this machine has; a model file may name those of another."""
        have = os.cpu_count() or 1
        if self.threads > have:
            raise CarouselError(
                f"threads is {self.threads}, more than the processors of this machine ({have}); set at most {have}."
            )

    def total_steps(self, examples: int) -> int:
        """Steps of the schedule for a training set of that size.

        >>> TrainConfig().total_steps(1000), TrainConfig().total_steps(10**6), TrainConfig(steps=7).total_steps(1000)
        (300, 1500, 7)
        """
        return min(self.steps, max(self.least_steps, round(self.epochs * examples / self.batch_size)))

    def with_settings(self, settings: Sequence[str]) -> TrainConfig:
        """The config with fields set from "name=value" texts; fields of the cell are named `cell.peephole` or so.

        Raises CarouselError for an unknown name, a text that is no such value, and a value out of range.
        """
        values: dict[str, Any] = {}
        cell: dict[str, Any] = {}
        for setting in settings:
            name, equals, text = setting.partition("=")
            if not equals:
                raise CarouselError(f"setting {setting!r} has no value; write it as name=value.")
            inner = name.removeprefix("cell.")
            kind: type = CellSpec if inner != name or name in _kinds(CellSpec) else TrainConfig
            (cell if kind is CellSpec else values)[inner] = _parse(kind, inner, text)
        try:
            made = dataclasses.replace(self, **values, cell=dataclasses.replace(self.cell, **cell))
        except ValueError as error:
            raise CarouselError(f"the settings are refused: {error}.") from None
        made.require_threads()
        return made


def _kinds(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind) if f.name != "cell"}


def _parse(kind: type, name: str, text: str) -> Any:
    kinds = _kinds(kind)
    if name not in kinds:
        known = [*_kinds(TrainConfig), *(f"cell.{n}" for n in _kinds(CellSpec))]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}."
        raise CarouselError(f"there is no setting {name!r}; {hint}")
    wanted = kinds[name]
    if wanted is bool:
        found = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower())
        if found is None:
            raise CarouselError(f"setting {name} must be true or false, got {text!r}.")
        return found
    if typing.get_origin(wanted) is Literal:
        wanted = str
    try:
        return wanted(text)
    except ValueError:
        article = "a whole number" if wanted is int else "a number"
        raise CarouselError(f"setting {name} must be {article}, got {text!r}.") from None
