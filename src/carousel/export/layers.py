"""The layers of an LSTM as plain NumPy arrays: what every format is written from and read into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel import modelfile
from carousel.cell import CellSpec
from carousel.config import ModelConfig
from carousel.errors import CarouselError, NotSupported

__all__ = ["Layers", "four_gates", "refuse", "reorder", "stack_layers", "stack_of"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Layers:
    """A stack as `carousel.LSTM` holds it: the weights are named and laid out as in its `state_dict`.

    Raises CarouselError where a weight is missing, unknown or of another shape than the sizes say.

    >>> Layers(CellSpec(bias=False), 1, 2, weights={"weight_ih_l0": np.ones((8, 1)), "weight_hh_l0": np.ones((8, 2))})
    Layers(1, 2, num_layers=1, bidirectional=False, bias=False)
    """

    spec: CellSpec
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    batch_first: bool = False
    dropout: float = 0.0  # between layers, in training
    weights: Mapping[str, Array] = ()  # type: ignore[assignment]

    def __post_init__(self) -> None:
        expected = {name + suffix: shape for _, suffix, shapes in self._places() for name, shape in shapes.items()}
        for name in [*expected, *self.weights]:
            if name not in self.weights or name not in expected:
                word = "is missing" if name in expected else "is not known to this cell"
                raise CarouselError(f"the weight {name} {word}; expected {', '.join(expected)}.")
            if tuple(self.weights[name].shape) != expected[name]:
                raise CarouselError(
                    f"the weight {name} has shape {list(self.weights[name].shape)}; expected {list(expected[name])}."
                )

    def __repr__(self) -> str:
        plain, spec = CellSpec(), self.spec
        chosen = "".join(f", {k}={v!r}" for k, v in vars(spec).items() if v != getattr(plain, k))
        sizes = f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"
        return f"Layers({sizes}, bidirectional={self.bidirectional}{chosen})"

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """Of one direction: P or H."""
        return self.spec.output_size(self.hidden_size)

    def layer(self, layer: int) -> list[dict[str, Array]]:
        """The weights of one layer, one dict for each direction, named without suffix."""
        found = []
        for number, suffix, shapes in self._places():
            if number == layer:
                found.append({name: self.weights[name + suffix] for name in shapes})
        return found

    def _places(self) -> Iterator[tuple[int, str, dict[str, tuple[int, ...]]]]:
        for layer in range(self.num_layers):
            size = self.input_size if layer == 0 else self.directions * self.output_size
            for suffix in ("", "_reverse")[: self.directions]:
                yield layer, f"_l{layer}{suffix}", self.spec.shapes(size, self.hidden_size)

    @classmethod
    def of(cls, lstm: Any) -> Layers:
        """The layers of a `carousel.LSTM`, or the one of a `carousel.LSTMCell`: float64 if it is, float32 otherwise."""
        names = [(suffix, name) for suffix in lstm._suffixes() for name in lstm._names]
        return cls(
            lstm.spec,
            lstm.input_size,
            lstm.hidden_size,
            getattr(lstm, "num_layers", 1),
            getattr(lstm, "bidirectional", False),
            getattr(lstm, "batch_first", False),
            getattr(lstm, "dropout", 0.0),
            {name + (suffix or "_l0"): _array(lstm._weight(name + suffix)) for suffix, name in names},
        )


def _array(weight: Any) -> Array:
    """A torch tensor without importing torch."""
    weight = weight.detach().cpu()
    made: Array = (weight if str(weight.dtype) == "torch.float64" else weight.float()).numpy()
    return made.copy()


def reorder(weight: Array, have: str, want: str) -> Array:
    """Blocks of rows, one a gate, from the order `have` to the order `want`.

    >>> reorder(np.array([1.0, 2.0, 3.0, 4.0]), "ifgo", "iofg").tolist()
    [1.0, 4.0, 2.0, 3.0]
    """
    blocks = dict(zip(have, np.split(np.asarray(weight), len(have)), strict=True))
    return np.concatenate([blocks[gate] for gate in want])


def four_gates(layers: Layers, layer: int) -> list[dict[str, Array]]:
    """The weights of one layer with all four gates in the order i, f, g, o, and one bias, 0 where there is none.

    With `coupled` the input gate is that of 1 - f: its weights are the forget gate's with the sign changed, since
    1 - sigmoid(z) = sigmoid(-z).
    """
    found = []
    for w in layers.layer(layer):
        rows = {name: w[name] for name in ("weight_ih", "weight_hh")}
        size = len(layers.spec.gates) * layers.hidden_size
        rows["bias"] = w["bias_ih"] + w["bias_hh"] if layers.spec.bias else np.zeros(size, w["weight_ih"].dtype)
        if layers.spec.coupled:  # stored as f, g, o
            rows = {name: np.concatenate([-v[: layers.hidden_size], v]) for name, v in rows.items()}
        found.append(rows)
    return found


_WHY = {
    "peephole": "its gates do not see the cell state",
    "layer_norm": "it has no layer norm",
    "decay": "its cell state knows nothing of elapsed time",
    "proj_size": "it has no projection",
    "cell_clip": "it does not bound the cell state",
    "zoneout_c": "it has no zoneout, which keeps a share of the old state in evaluation too",
    "zoneout_h": "it has no zoneout, which keeps a share of the old state in evaluation too",
}


def refuse(spec: CellSpec, target: str, able: tuple[str, ...] = ()) -> None:
    """NotSupported for the first variant of the cell that `target` has no equal of.

    Recurrent dropout and weight drop change nothing in evaluation and stay behind.
    """
    for name, why in _WHY.items():
        if getattr(spec, name) and name not in able:
            raise NotSupported(f"{name} has no equal in {target}: {why}; export to onnx, which has it.")


def stack_of(model: Path, member: int | None) -> Layers:
    """The LSTM of a model file without its input and head; of an ensemble, that of one `member`, counted from 0."""
    weights, document = modelfile.read(model)
    config = ModelConfig.from_json(document["model"])
    if member is None and config.seeds > 1:
        raise CarouselError(
            f"{model}: it is an ensemble of {config.seeds} members, of which this format holds one; choose it with"
            f" --member 0 to {config.seeds - 1}."
        )
    if member is not None and not 0 <= member < config.seeds:
        raise CarouselError(f"{model}: it has no member {member}; choose one of 0 to {config.seeds - 1}.")
    own = f"{member or 0}."
    return stack_layers(config, {k.removeprefix(own): v for k, v in weights.items() if k.startswith(own)})


def stack_layers(config: ModelConfig, member: Mapping[str, Array]) -> Layers:
    """The LSTM of one member of a model, whose weights are named as in `ModelConfig.member_shapes`."""
    if config.task == "translate":
        raise NotSupported("a translator has an encoder and a decoder with attention between them, not one LSTM.")
    if hasattr(config.head, "member_shapes"):
        raise NotSupported("frames ahead are made by convolutional LSTMs, which have no equal among layers of rows.")
    stack, weights = config.stack, {}
    for name, value in member.items():
        if name.startswith("layers."):  # of language models: layers.K.weight_ih_l0
            number, rest = name.removeprefix("layers.").split(".")
            weights[rest.removesuffix("_l0") + f"_l{number}"] = value
        elif name.startswith("stack."):
            weights[name.removeprefix("stack.")] = value
    return Layers(
        stack.cell,
        config.head.embedding if config.task == "generate" else config.input.step_size,
        stack.hidden_size,
        stack.num_layers,
        stack.bidirectional,
        dropout=stack.dropout if stack.num_layers > 1 else 0.0,
        weights=weights,
    )
