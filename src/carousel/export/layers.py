"""The layers of an LSTM as plain NumPy arrays: what every format is written from and read into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.cell import CellSpec
from carousel.errors import CarouselError

__all__ = ["Layers", "reorder"]

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
        """The layers of a `carousel.LSTM`, float64 if it is, float32 otherwise."""
        cell = lstm.spec
        names = [
            name + suffix for suffix in lstm._suffixes() for name in cell.shapes(lstm.input_size, lstm.hidden_size)
        ]
        return cls(
            cell,
            lstm.input_size,
            lstm.hidden_size,
            getattr(lstm, "num_layers", 1),
            getattr(lstm, "bidirectional", False),
            getattr(lstm, "batch_first", False),
            {name if "_l" in name else f"{name}_l0": _array(getattr(lstm, name)) for name in names},
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
