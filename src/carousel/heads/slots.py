"""A label for each word of a text, in one go with a label for the text: what the head is, and its read-out in NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.heads.classify import ClassifyHead, output_shapes

__all__ = ["Chain", "SlotHead", "best_labels", "marginals"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class SlotHead:
    """Outputs of the stack at the first piece of each word [N, P] -> one logit for each label.

    With `crf` labels depend on their neighbours: a linear-chain conditional random field (Lafferty et al. 2001) over
    the logits, read out by the most likely sequence of labels (Viterbi 1967). `intent` is the head of a label for the
    whole text, learned in one go (Liu & Lane 2016). `width` and `temperature` as in `ClassifyHead`.
    """

    classes: tuple[str, ...]
    crf: bool
    intent: ClassifyHead | None
    type: Literal["text", "integer", "number", "boolean"] = "text"
    width: int = 0
    temperature: float = 1.0

    kind = "label"

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"a head of labels needs two different classes or more, got {self.classes}")
        if not self.temperature > 0 or self.width < 0:
            raise ValueError("temperature must be positive, and width not negative")
        if self.intent is not None and self.intent.kind != "label":
            raise ValueError("the intent is a label, not a number")

    @property
    def outputs(self) -> int:
        return len(self.classes)

    def shapes(self, state: int) -> dict[str, tuple[int, ...]]:
        """The weights of the torch module for outputs of the stack of that size."""
        k = self.outputs
        found = output_shapes(state, self.width, k)
        if self.crf:
            found |= {"chain.begin": (k,), "chain.follow": (k, k), "chain.end": (k,)}
        if self.intent is not None:
            found |= {f"intent.{name}": shape for name, shape in self.intent.shapes(state).items()}
        return found


class Chain(NamedTuple):
    """Scores of a label at the beginning [K], of one after another [K, K] (from, to), and at the end [K]."""

    begin: Floats
    follow: Floats
    end: Floats


def _steps(offsets: Ints) -> tuple[Ints, Ints, list[int]]:
    """The lengths of the sequences, longest first, their first rows, and for each step how many have it."""
    lengths = np.diff(offsets)
    order = np.argsort(-lengths, kind="stable")
    lengths = lengths[order]
    counts = np.searchsorted(-lengths, -np.arange(int(lengths.max(initial=0))), side="left")
    return lengths, offsets[:-1][order], counts.tolist()


def best_labels(logits: Floats, chain: Chain, offsets: Ints) -> Ints:
    """The most likely labels [N] of B sequences with logits [N, K] together (Viterbi 1967).

    >>> chain = Chain(np.zeros(2), np.array([[0.0, -9.0], [0.0, 0.0]]), np.zeros(2))
    >>> best_labels(np.array([[1.0, 0.5], [0.0, 1.0]]), chain, np.array([0, 2])).tolist()
    [1, 1]
    """
    x = np.asarray(logits, np.float64)
    _, first, counts = _steps(offsets)
    found = np.zeros(len(x), np.int64)
    if not counts:
        return found
    first = first[: counts[0]]
    back = np.zeros((len(counts), len(first), x.shape[1]), np.int64)
    score = chain.begin + x[first]  # [B, K] of the best labels up to here, by the last of them
    for t in range(1, len(counts)):
        n = counts[t]
        through = score[:n, :, None] + chain.follow  # [n, from, to]
        back[t, :n] = through.argmax(1)
        score[:n] = through.max(1) + x[first[:n] + t]
    label = (score + chain.end).argmax(1)
    for t in range(len(counts) - 1, -1, -1):
        n = counts[t]
        found[first[:n] + t] = label[:n]
        label[:n] = back[t, np.arange(n), label[:n]]
    return found


def marginals(logits: Floats, chain: Chain, offsets: Ints) -> Floats:
    """The probability [N, K] of each label at each row, over all sequences of labels (forward and backward).

    >>> chain = Chain(np.zeros(2), np.zeros((2, 2)), np.zeros(2))
    >>> marginals(np.array([[0.0, np.log(3.0)]]), chain, np.array([0, 1])).round(3).tolist()
    [[0.25, 0.75]]
    """
    x = np.asarray(logits, np.float64)
    lengths, first, counts = _steps(offsets)
    follow = np.exp(chain.follow - chain.follow.max())
    forward, backward = np.zeros_like(x), np.zeros_like(x)
    for t, count in enumerate(counts):
        at = first[:count] + t
        forward[at] = x[at] + (chain.begin if t == 0 else _log_mix(forward[at - 1], follow))
    for t in range(len(counts) - 1, -1, -1):
        n = counts[t]
        at = first[:n] + t
        goes_on = lengths[:n] > t + 1
        here = np.tile(chain.end, (n, 1))
        on = at[goes_on]
        here[goes_on] = _log_mix(backward[on + 1] + x[on + 1], follow.T)
        backward[at] = here
    both = forward + backward
    mass = np.exp(both - both.max(1, keepdims=True, initial=-np.inf))
    return np.asarray(mass / mass.sum(1, keepdims=True))


def _log_mix(scores: Floats, weights: Floats) -> Floats:
    """log(exp(scores) @ weights) up to a constant of the row, for probabilities alone."""
    top = scores.max(1, keepdims=True)
    return np.asarray(np.log(np.maximum(np.exp(scores - top) @ weights, 1e-300)))
