"""What the head of language models is."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GenerateHead"]


@dataclass(frozen=True)
class GenerateHead:
    """Says what comes next; its weights are those of the embedding (Press & Wolf 2017, Inan et al. 2017).

    Shares dropped in training, each with one mask for a whole sequence (Gal & Ghahramani 2016): `dropout` of the
    output, `input_dropout` of embedded tokens, `layer_dropout` between layers, `word_dropout` of whole tokens of the
    vocabulary. Raises ValueError for values out of range.
    """

    embedding: int = 128
    dropout: float = 0.0
    input_dropout: float = 0.0
    layer_dropout: float = 0.0
    word_dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.embedding < 1:
            raise ValueError(f"embedding must be at least 1, got {self.embedding}")
        for name in ("dropout", "input_dropout", "layer_dropout", "word_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is a probability in [0, 1), got {getattr(self, name)}")

    def shapes(self, *, state: int, vocabulary: int) -> dict[str, tuple[int, ...]]:
        """The weights of the torch module beside its layers; a stack of another size than the embedding is mapped."""
        shapes: dict[str, tuple[int, ...]] = {"bias": (vocabulary,), "embedding.weight": (vocabulary, self.embedding)}
        if state != self.embedding:
            shapes |= {"mix.weight": (self.embedding, state), "mix.bias": (self.embedding,)}
        return shapes
