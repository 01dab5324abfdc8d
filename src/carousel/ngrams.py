"""The baseline of language models: n-grams with interpolated Kneser-Ney smoothing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["KneserNey"]

Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]
Floats = NDArray[np.float64]

MIX = np.uint64(0x9E3779B97F4A7C15)


class _Order(NamedTuple):
    """Of n-grams of one length: sorted keys and their counts; of what stands before the last token its sorted keys, the
    sum of the counts, and how many different tokens follow."""

    grams: Keys
    counts: Floats
    contexts: Keys
    totals: Floats
    followers: Floats
    discount: float


class KneserNey:
    """p(token | the order - 1 tokens before it), interpolated over all shorter contexts (Kneser & Ney 1995, Chen &
    Goodman 1999), with one discount an order, n1 / (n1 + 2 n2) of its counts.

    `tokens` [N] are those of training, `size` is that of the vocabulary: every token of it has some probability.
    N-grams are looked up by 64-bit keys, which collide with negligible probability; there are none that are longer than
    the text.

    >>> model = KneserNey(np.array([0, 1, 2, 0, 1, 3, 0, 1, 2]), size=5, order=3)
    >>> bool(model.probability(np.array([0, 1, 2]))[2] > model.probability(np.array([0, 1, 3]))[2])
    True
    """

    def __init__(self, tokens: Ints, *, size: int, order: int = 5) -> None:
        if order < 1 or size < 1 or len(tokens) < 2:
            raise ValueError(f"expected an order of 1 or more and two tokens, got {order} and {len(tokens)} tokens")
        order = min(order, len(tokens) - 1)
        if tokens.min() < 0 or tokens.max() >= size:
            raise ValueError(f"tokens must lie in [0, {size}), got {tokens.min()} to {tokens.max()}")
        self.size, self.order = size, order
        self._orders: list[_Order] = []
        for n in range(1, order + 1):
            at = np.arange(n - 1, len(tokens))
            grams, contexts = _keys(tokens, at, n), _keys(tokens, at - 1, n - 1)
            if n < order:  # how many different tokens stand before it, rather than how often it stands there
                longer = np.unique(_keys(tokens, at[1:], n + 1), return_index=True)[1] + 1
                grams, contexts = grams[longer], contexts[longer]
            kept, first, counts = np.unique(grams, return_index=True, return_counts=True)
            heads, owner = np.unique(contexts[first], return_inverse=True)
            totals = np.bincount(owner, counts).astype(np.float64)
            ones, twos = int((counts == 1).sum()), int((counts == 2).sum())
            discount = ones / (ones + 2 * twos) if ones else 0.5  # what never came leaves no token without a chance
            followers = np.bincount(owner).astype(np.float64)
            self._orders.append(_Order(kept, counts.astype(np.float64), heads, totals, followers, discount))

    def probability(self, tokens: Ints) -> Floats:
        """Of each of tokens [N], given those before it."""
        found = np.full(len(tokens), 1 / self.size)
        for n, order in enumerate(self._orders, 1):
            at = np.arange(n - 1, len(tokens))
            grams, contexts = _keys(tokens, at, n), _keys(tokens, at - 1, n - 1)
            total = _look_up(order.contexts, order.totals, contexts)
            seen = total > 0
            at, total = at[seen], total[seen]
            count = _look_up(order.grams, order.counts, grams[seen])
            followers = _look_up(order.contexts, order.followers, contexts[seen])
            kept = np.maximum(count - order.discount, 0)
            found[at] = (kept + order.discount * followers * found[at]) / total
        return found

    def nats(self, tokens: Ints) -> Floats:
        """-log p of each of tokens[1:], as `generation.nats` measures an LSTM."""
        return np.asarray(-np.log(self.probability(tokens)[1:]))


def _keys(tokens: Ints, at: Ints, n: int) -> Keys:
    """Keys of the n tokens up to and including each place; of no token at all the same key for all."""
    key = np.full(len(at), np.uint64(n))
    for back in range(n - 1, -1, -1):
        key = (key ^ (tokens[at - back].astype(np.uint64) + MIX)) * MIX
        key ^= key >> np.uint64(29)
    return key


def _look_up(keys: Keys, values: Floats, wanted: Keys) -> Floats:
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0.0)
