"""What a model is, as frozen values that go to JSON and back without loss, and the shapes of all its weights.

Torch-free: the model file is checked against these shapes before a single weight is used.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union

from carousel.cell import CellSpec
from carousel.errors import ModelFileError

__all__ = ["TASKS", "ModelConfig", "StackConfig", "from_json", "from_record", "to_json"]

if typing.TYPE_CHECKING:
    from carousel.inputs.text import PairInput, TextInput

Shapes = dict[str, tuple[int, ...]]
T = TypeVar("T")


@dataclass(frozen=True)
class StackConfig:
    """The LSTM itself: layers over time, all of one size and one cell.

    >>> StackConfig(hidden_size=4).shapes(input_size=3)["weight_hh_l0"]
    (16, 4)
    """

    hidden_size: int
    num_layers: int = 1
    dropout: float = 0.0
    cell: CellSpec = CellSpec()
    bidirectional: bool = False

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a probability in [0, 1), got {self.dropout}")
        if self.cell.proj_size >= self.hidden_size:
            raise ValueError(f"proj_size must be smaller than hidden_size, got {self.cell.proj_size}")

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """Features of a row: of both directions, where there are two."""
        return self.directions * self.cell.output_size(self.hidden_size)

    @property
    def state_size(self) -> int:
        """Numbers in h and c of all layers and directions: h [L * D, P], then c [L * D, H]."""
        one = self.cell.output_size(self.hidden_size) + self.hidden_size
        return self.num_layers * self.directions * one

    def shapes(self, input_size: int) -> Shapes:
        """Names as in `carousel.LSTM.state_dict()`."""
        sizes = [input_size] + [self.output_size] * (self.num_layers - 1)
        return {
            f"{name}_l{layer}{suffix}": shape
            for layer, size in enumerate(sizes)
            for suffix in ("", "_reverse")[: self.directions]
            for name, shape in self.cell.shapes(size, self.hidden_size).items()
        }


_ROWS = {"": "inputs.sequence.SequenceInput", "picture": "inputs.frames.FramesInput"}
_TEXTS = {"words": "inputs.tokens.TokenInput"}

# What each task is made of: the inputs and the heads it can have, by a field that no other of them has; the usual one
# by none. They are imported when a model needs them (a stream starts in 0.1 s). Tasks with a SequenceInput have a head
# whose `shapes` needs the stack's output size only.
TASKS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "forecast": (
        {"": "inputs.fitted.TableInput", "picture": "inputs.frames.FramesInput"},
        {"": "heads.forecast.ForecastHead", "patch": "heads.frames.NextFramesHead"},
    ),
    "classify": (_ROWS | _TEXTS, {"": "heads.classify.ClassifyHead"}),
    "tag": (_ROWS | _TEXTS, {"": "heads.tag.TagHead", "crf": "heads.slots.SlotHead"}),
    "detect": (_ROWS, {"": "heads.detect.DetectHead", "blocks": "heads.frames.OddFramesHead"}),
    "translate": (
        {"": "inputs.text.PairInput", "turns": "inputs.dialogues.DialogueInput"},
        {"": "heads.translate.TranslateHead"},
    ),
    "generate": ({"": "inputs.text.TextInput"}, {"": "heads.generate.GenerateHead"}),
}


@cache
def _find(place: str) -> type:
    module, _, name = place.rpartition(".")
    found: type = getattr(importlib.import_module(f"carousel.{module}"), name)
    return found


@dataclass(frozen=True)
class ModelConfig:
    """One input, one stack, one head, whose types the task says (`TASKS`); the `seeds` members of an ensemble share it
    and are averaged.
    """

    task: Literal["forecast", "classify", "tag", "detect", "translate", "generate"]
    input: Any
    stack: StackConfig
    head: Any
    seeds: int = 1

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {self.seeds}")
        for name, known in zip(("input", "head"), TASKS[self.task], strict=True):
            kind = type(getattr(self, name))
            if f"{kind.__module__}.{kind.__qualname__}" not in {f"carousel.{place}" for place in known.values()}:
                expected = " or ".join(place.rpartition(".")[2] for place in known.values())
                raise ValueError(f"the {name} of task {self.task} is a {expected}, got {getattr(self, name)!r}")
        if self.task not in ("classify", "tag") and self.stack.bidirectional:
            raise ValueError("bidirectional stacks are for sequences that are complete: classify and tag")
        if self.task == "generate" and self.stack.cell.decay:
            raise ValueError("text has no clock: a language model's cell is without decay")
        of_frames = type(self.input).__name__ == "FramesInput"
        if self.task in ("forecast", "detect") and of_frames != hasattr(self.head, "member_shapes"):
            raise ValueError(
                f"the input {type(self.input).__name__} does not go with the head {type(self.head).__name__}"
            )
        of_words = type(self.input).__name__ == "TokenInput"
        if self.task == "tag" and of_words != (type(self.head).__name__ == "SlotHead"):
            raise ValueError("labels of words have a SlotHead, labels of other rows a TagHead")
        if of_words and self.stack.cell.decay:
            raise ValueError("text has no clock: its cell is without decay")
        if self.task == "translate":
            if self.stack.hidden_size % 2 or self.stack.cell.proj_size or self.stack.cell.decay:
                raise ValueError("a translator's hidden_size is even, its cell without projection and decay")
            if self.head.shared != (self.input.target is None):
                raise ValueError("a translator shares its embeddings exactly where it shares its vocabulary")

    def member_shapes(self) -> Shapes:
        """The weights of one member of the ensemble."""
        if self.task == "translate":
            return self._translate_shapes(self.input)
        if self.task == "generate":
            return self._generate_shapes(self.input)
        if hasattr(self.head, "member_shapes"):  # frames ahead
            found: Shapes = self.head.member_shapes(self)
            return found
        parts = {"input": self.input.shapes()}
        if self.task == "forecast":
            parts["stack"] = self.stack.shapes(self.input.step_size)
            parts["head"] = self.head.shapes(
                state=self.stack.output_size,
                static=self.input.static_size,
                ahead=self.input.ahead_size,
                context=self.input.context,
                horizon=self.input.horizon,
                targets=self.input.targets,
                bases=self.input.bases,
            )
        else:
            if self.input.static_size:  # the initial state is a linear map of what does not change
                size = self.stack.state_size
                parts["static"] = {"weight": (size, self.input.static_size), "bias": (size,)}
            parts["stack"] = self.stack.shapes(self.input.step_size)
            parts["head"] = self.head.shapes(self.stack.output_size)
        return {f"{part}.{name}": shape for part, shapes in parts.items() for name, shape in shapes.items()}

    @property
    def encoder(self) -> StackConfig:
        """Of sequence to sequence: half as wide as the decoder, in each direction."""
        return dataclasses.replace(
            self.stack,
            hidden_size=self.stack.hidden_size // 2,
            num_layers=self.head.encoder_layers,
            bidirectional=True,
        )

    @property
    def layers(self) -> tuple[StackConfig, ...]:
        """Of a language model: every layer by itself, since what is dropped between them is dropped for all steps."""
        return (dataclasses.replace(self.stack, num_layers=1, dropout=0.0),) * self.stack.num_layers

    def _generate_shapes(self, given: TextInput) -> Shapes:
        found: Shapes = self.head.shapes(state=self.stack.output_size, vocabulary=given.words.size)
        size = self.head.embedding
        for k, layer in enumerate(self.layers):
            found |= {f"layers.{k}.{name}": shape for name, shape in layer.shapes(size).items()}
            size = layer.output_size
        return found

    def _translate_shapes(self, given: PairInput) -> Shapes:
        head, encoder, decoder = self.head, self.encoder, self.stack
        size = head.embedding
        parts = {
            "encoder": encoder.shapes(size),
            "decoder": decoder.shapes(2 * size if head.input_feeding else size),
        }
        own: Shapes = head.shapes(
            hidden=decoder.output_size,
            layers=decoder.num_layers,
            memory=encoder.output_size,
            source=given.source.size,
            target=given.out.size,
        )
        return own | {f"{part}.{name}": shape for part, shapes in parts.items() for name, shape in shapes.items()}

    def shapes(self) -> Shapes:
        """Every weight in the model file: the member's number, then the member's own name."""
        member = self.member_shapes()
        return {f"{k}.{name}": shape for k in range(self.seeds) for name, shape in member.items()}

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = to_json(self)
        return found

    @classmethod
    def from_json(cls, data: Any) -> ModelConfig:
        """The config in `data`; ModelFileError names the field that is unknown, missing or of a wrong type."""
        return from_json(cls, data, "model")

    @staticmethod
    def choose(data: Mapping[str, Any]) -> dict[str, Any]:
        """Which of several types the fields have, from what they hold: the task says so."""
        task = data.get("task")
        if not isinstance(task, str) or task not in TASKS:
            raise ModelFileError(f"the field model.task must be one of {_list(TASKS)}, got {task!r}.")
        return {name: _kind(known, data.get(name)) for name, known in zip(("input", "head"), TASKS[task], strict=True)}


def _kind(known: dict[str, str], given: Any) -> type:
    """The one whose own field is held, or the usual one."""
    held = given if isinstance(given, Mapping) else {}
    return _find(next((place for mark, place in known.items() if mark and mark in held), known[""]))


def to_json(value: Any) -> Any:
    """Dataclasses, tuples and plain values as JSON knows them.

    >>> to_json(StackConfig(8))["num_layers"]
    1
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[T], data: Any, where: str) -> T:
    """A frozen dataclass from what `to_json` made of it, every field required and of its declared type.

    Raises ModelFileError, which names the field by its path from `where`.
    """
    if not isinstance(data, Mapping):
        raise ModelFileError(f"the field {where} must be an object, got {type(data).__name__}.")
    hints = _hints(typing.cast(Any, kind))
    unknown = [name for name in data if name not in hints]
    if unknown:
        raise ModelFileError(f"the field {where}.{unknown[0]} is not known to this version; expected {_list(hints)}.")
    missing = [name for name in hints if name not in data]
    if missing:
        raise ModelFileError(f"the field {where}.{missing[0]} is missing; the file is damaged or from another version.")
    if isinstance(chosen := getattr(kind, "choose", None), types.FunctionType):
        hints = hints | chosen(data)
    values = {name: _value(hint, data[name], f"{where}.{name}") for name, hint in hints.items()}
    try:
        return kind(**values)
    except ModelFileError:
        raise
    except ValueError as error:
        raise ModelFileError(f"the field {where} is refused: {error}.") from None


def from_record(kind: type[T], data: Any, where: str) -> T:
    """As `from_json`, of settings that a model was made with: those that came later have their defaults."""
    return from_json(kind, to_json(kind()) | data if isinstance(data, Mapping) else data, where)


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind)}


def _value(hint: Any, data: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        if data is None and type(None) in args:
            return None
        (hint,) = [a for a in args if a is not type(None)]
        return _value(hint, data, where)
    if origin is Literal:
        if data not in args or isinstance(data, bool):
            raise ModelFileError(f"the field {where} must be one of {_list(args)}, got {data!r}.")
        return data
    if origin is tuple:
        if not isinstance(data, list):
            raise ModelFileError(f"the field {where} must be a list, got {type(data).__name__}.")
        return tuple(_value(args[0], item, f"{where}[{k}]") for k, item in enumerate(data))
    if dataclasses.is_dataclass(hint):
        return from_json(typing.cast(type, hint), data, where)
    accepted = (int, float) if hint is float else (hint,)
    if not isinstance(data, accepted) or (isinstance(data, bool) and hint is not bool):
        raise ModelFileError(f"the field {where} must be {_KINDS[hint]}, got {data!r}.")
    if hint is float:
        data = float(data)
        if not math.isfinite(data):
            raise ModelFileError(f"the field {where} must be finite, got {data}.")
    return data


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _list(names: Any) -> str:
    return ", ".join(str(name) for name in names)
