"""One label or one number per sequence: what the head is, and its read-out in NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["ClassifyHead", "class_values", "probabilities", "softmax"]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

Pooling = Literal["last", "mean", "max", "attention"]


@dataclass(frozen=True)
class ClassifyHead:
    """Outputs of the stack [N, P] -> pooled over each sequence [B, P] -> one logit for each class, or one number.

    `pooling`: last row (of a bidirectional stack the last of either direction), mean, largest, or attention
    (softmax over the rows of a learned score, after Bahdanau et al. 2015). `width` > 0 puts one hidden layer of ReLUs
    before the output. Logits are divided by `temperature`, fitted on validation data (Guo et al. 2017). A number is
    y = output * scale + mean, and its quantiles are y + `errors`, by split-conformal prediction (Lei et al. 2018).
    """

    kind: Literal["label", "regression"]
    pooling: Pooling
    width: int = 0
    classes: tuple[str, ...] = ()
    type: Literal["text", "integer", "number", "boolean"] = "text"  # of the classes, which are kept as text
    temperature: float = 1.0
    mean: float = 0.0
    scale: float = 1.0
    quantiles: tuple[float, ...] = (0.05, 0.95)
    errors: tuple[float, ...] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if (self.kind == "label") != (len(self.classes) > 1):
            raise ValueError(f"a head of labels needs two classes or more, one of numbers none, got {self.classes}")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes must differ, got {self.classes}")
        for name in ("temperature", "scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.width < 0:
            raise ValueError(f"width must be at least 0, got {self.width}")
        if len(self.errors) != len(self.quantiles) or list(self.quantiles) != sorted(set(self.quantiles)):
            raise ValueError(f"quantiles must ascend and have one error each, got {self.quantiles} and {self.errors}")
        if any(not 0 < q < 1 for q in self.quantiles):
            raise ValueError(f"quantiles must lie within (0, 1), got {self.quantiles}")

    @property
    def outputs(self) -> int:
        return len(self.classes) or 1

    def shapes(self, state: int) -> dict[str, tuple[int, ...]]:
        """The weights of the torch module for outputs of the stack of that size."""
        shapes: dict[str, tuple[int, ...]] = {"attention.weight": (1, state)} if self.pooling == "attention" else {}
        return shapes | output_shapes(state, self.width, self.outputs)

    def numbers(self, outputs: Singles | Floats) -> Floats:
        """Outputs [B, 1] in the target's own units: the prediction and its quantiles [B, 1 + Q]."""
        y = np.asarray(outputs[:, :1], np.float64) * self.scale + self.mean
        return np.concatenate([y, y + np.asarray(self.errors)], 1)


def output_shapes(state: int, width: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """One linear layer, or a hidden one of `width` ReLUs before it."""
    hidden: dict[str, tuple[int, ...]] = {"hidden.weight": (width, state), "hidden.bias": (width,)} if width else {}
    return hidden | {"out.weight": (outputs, width or state), "out.bias": (outputs,)}


def softmax(logits: Singles | Floats) -> Floats:
    """Along the last axis, in float64.

    >>> softmax(np.array([0.0, np.log(3.0)])).round(3).tolist()
    [0.25, 0.75]
    """
    z = np.asarray(logits, np.float64)
    e = np.exp(z - z.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def probabilities(logits: Singles | Floats, temperature: float) -> Floats:
    """Of each class [..., K] from the logits [..., K]."""
    return softmax(np.asarray(logits, np.float64) / temperature)


def class_values(classes: tuple[str, ...], type: str) -> NDArray[Any]:
    """The classes as the user had them: text, whole numbers, numbers or booleans.

    >>> class_values(("0", "1"), "integer").tolist(), class_values(("False", "True"), "boolean").tolist()
    ([0, 1], [False, True])
    """
    if type == "boolean":
        return np.array([text == "True" for text in classes])
    if type == "text":
        return np.array(classes, dtype=object)
    return np.array(classes).astype(np.int64 if type == "integer" else np.float64)
