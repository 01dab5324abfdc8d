"""What a C file is written from: the model's config and weights by member and layer, and what has no C form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.cell import CellSpec
from carousel.config import ModelConfig
from carousel.errors import CarouselError, NotSupported
from carousel.inputs.frames import FramesInput
from carousel.inputs.tokens import TokenInput

__all__ = ["Plan", "check_name", "plan"]

Singles = NDArray[np.float32]
Floats = NDArray[np.float64]

_KEYWORDS = (
    "auto|break|case|char|const|continue|default|do|double|else|enum|extern|float|for|goto|if|inline|int|long|register"
    "|restrict|return|short|signed|sizeof|static|struct|switch|typedef|union|unsigned|void|volatile|while|class|new"
    "|delete|this|template|namespace|operator|private|public|protected|virtual|bool|true|false|try|catch|using|friend"
)
TASKS = ("forecast", "classify", "tag", "detect")
_REASONS = {
    "translate": "a translator's search over sentences",
    "generate": "a generator's sampling of text",
}


@dataclass(frozen=True)
class Plan:
    """A model ready to be written: `members[k]` holds the weights of one member by their own names."""

    name: str
    config: ModelConfig
    members: tuple[Mapping[str, Singles], ...]

    @property
    def spec(self) -> CellSpec:
        return self.config.stack.cell

    def named_layer(self, member: int, layer: int) -> dict[str, Floats]:
        """The weights of one layer in float64, named without suffix."""
        stack = self.config.stack
        size = self.channels if layer == 0 else stack.output_size
        names = self.spec.shapes(size, stack.hidden_size)
        return {n: self.members[member][f"stack.{n}_l{layer}"].astype(np.float64) for n in names}

    def layer(self, member: int, layer: int) -> dict[str, Floats]:
        """As C takes them: both biases are one, decay is a rate."""
        found = self.named_layer(member, layer)
        if self.spec.bias:
            found["bias"] = found.pop("bias_ih") + found.pop("bias_hh")
        if self.spec.decay:
            found["rate"] = np.logaddexp(found.pop("decay_rate"), 0.0)
        return found

    @property
    def channels(self) -> int:
        """Of the first layer's input."""
        return int(self.members[0]["stack.weight_ih_l0"].shape[1])


def plan(name: str, config: ModelConfig, weights: Mapping[str, NDArray[Any]]) -> Plan:
    """The model's parts under the C name `name`; CarouselError for a name that C cannot use, NotSupported with the
    reason for a model that has no C form."""
    check_name(name)
    if config.task not in TASKS:
        raise NotSupported(f"{_REASONS.get(config.task, 'its head')} has no C form; {', '.join(TASKS)} have one.")
    if isinstance(config.input, TokenInput):
        raise NotSupported("a model of labelled texts has no C form: its texts are cut into tokens first.")
    if isinstance(config.input, FramesInput):
        raise NotSupported("a model of clips has no C form: an encoder of pictures stands before its LSTM.")
    if config.task == "detect" and config.head.method != "forecast":
        raise NotSupported("an autoencoder reads whole windows and has no form by rows; fit method='forecast'.")
    if config.stack.bidirectional:
        raise NotSupported(
            "a bidirectional stack reads each sequence to its end before its first output, so it cannot step through"
            " rows in C; train with bidirectional=false."
        )
    members = []
    for k in range(config.seeds):
        own = f"{k}."
        members.append({n.removeprefix(own): np.asarray(w) for n, w in weights.items() if n.startswith(own)})
    return Plan(name, config, tuple(members))


def check_name(name: str) -> None:
    """CarouselError for what is no identifier of C and C++, or reserved there."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,40}", name):
        raise CarouselError(
            f"{name!r} is no name for C: use at most 41 letters, digits and underscores, beginning with a letter."
        )
    if re.fullmatch(_KEYWORDS, name):
        raise CarouselError(f"{name!r} is a word of the language; choose another name, as {name}_model.")
