"""What the head of sequence to sequence is: translation, replies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["TranslateHead"]


@dataclass(frozen=True)
class TranslateHead:
    """A decoder with attention over a bidirectional encoder of `encoder_layers`, half as wide each way.

    `shared`: one vocabulary and one embedding for both sides. `input_feeding` gives each step what the one before it
    attended to, at the price of running the decoder step by step. Raises ValueError for values out of range.
    """

    embedding: int = 256
    attention: Literal["general", "dot", "additive"] = "general"
    input_feeding: bool = False
    shared: bool = True
    encoder_layers: int = 1
    dropout: float = 0.3

    def __post_init__(self) -> None:
        for name in ("embedding", "encoder_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a probability in [0, 1), got {self.dropout}")

    def shapes(self, *, hidden: int, layers: int, memory: int, source: int, target: int) -> dict[str, tuple[int, ...]]:
        """The weights of the torch module beside its encoder and decoder; `memory` channels come from the encoder."""
        size = self.embedding
        shapes: dict[str, tuple[int, ...]] = {"bias": (target,), "target.weight": (target, size)}
        if not self.shared:
            shapes["source.weight"] = (source, size)
        for name in ("bridge_h", "bridge_c"):
            shapes |= {f"{name}.weight": (layers * hidden, memory), f"{name}.bias": (layers * hidden,)}
        if self.attention != "dot":
            shapes["attention.key.weight"] = (hidden, memory)
        if self.attention == "additive":
            shapes |= {"attention.query.weight": (hidden, hidden), "attention.query.bias": (hidden,)}
            shapes["attention.score.weight"] = (1, hidden)
        return shapes | {"mix.weight": (size, hidden + memory), "mix.bias": (size,)}
