"""Which of many replies fits what was said, rather than anything that could have been said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carousel.heads.search import Found, Sampling

__all__ = ["Mutual"]

Floats = NDArray[np.float64]

DRAWN = Sampling(temperature=0.8, top_p=0.95)


@dataclass(frozen=True)
class Mutual:
    """Reranking by mutual information of context and reply (Li et al. 2016, MMI-antiLM): of `candidates` replies that
    are drawn as `sampling` says, the one with the largest (log p(reply | context) - weight * log p(reply)) /
    length ** length_penalty. With `weight` 0 the likeliest reply wins, which is often "i don't know".

    log p(reply) is the model's own, without a context. Raises ValueError for values out of range.
    """

    weight: float = 0.8
    candidates: int = 16
    length_penalty: float = 0.7
    sampling: Sampling = DRAWN

    def __post_init__(self) -> None:
        for name, good in (
            ("weight", 0 <= self.weight < 1),
            ("candidates", 1 <= self.candidates <= 10_000),
            ("length_penalty", 0 <= self.length_penalty <= 10),
        ):
            if not good:
                raise ValueError(f"{name} is out of range, got {getattr(self, name)}")

    def ranked(self, given: Sequence[Found], alone: Floats) -> list[Found]:
        """Candidates best first, each once, with their scores; `alone` [R] is log p(reply) of each.

        >>> found = [Found((5, 6), -2.0, 0.0), Found((7, 8), -3.0, 0.0)]
        >>> [f.tokens for f in Mutual(weight=0.9).ranked(found, np.array([-1.0, -9.0]))]  # the first fits anything
        [(7, 8), (5, 6)]
        """
        kept: dict[tuple[int, ...], Found] = {}
        for one, own in zip(given, alone, strict=True):
            if one.tokens:
                score = (one.logprob - self.weight * float(own)) / (len(one.tokens) + 1) ** self.length_penalty
                kept[one.tokens] = one._replace(score=score)
        return sorted(kept.values(), key=lambda one: -one.score)
