"""Kneser-Ney against a definition with dictionaries, and as a distribution."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from carousel.ngrams import KneserNey

V = 7


def slow(training: list[int], order: int, history: tuple[int, ...], token: int) -> float:
    grams = {n: Counter(tuple(training[k : k + n]) for k in range(len(training) - n + 1)) for n in range(1, order + 2)}

    def counts(n: int) -> Counter:
        if n == order:
            return grams[n]
        found: Counter = Counter()
        for gram in grams[n + 1]:
            found[gram[1:]] += 1
        return found

    p = 1 / V
    for n in range(1, order + 1):
        own, context = counts(n), history[len(history) - n + 1 :] if n > 1 else ()
        if len(context) < n - 1:
            break
        ones, twos = sum(c == 1 for c in own.values()), sum(c == 2 for c in own.values())
        discount = ones / (ones + 2 * twos) if ones else 0.5
        after: dict = defaultdict(int)
        for gram, count in own.items():
            if gram[:-1] == context:
                after[gram[-1]] += count
        total = sum(after.values())
        if total:
            p = max(after.get(token, 0) - discount, 0) / total + discount * len(after) / total * p
    return p


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_follow_the_definition(order):
    rng = np.random.default_rng(order)
    training = rng.choice(V - 1, 300, p=[0.4, 0.3, 0.15, 0.1, 0.04, 0.01]).tolist()
    text = [*training[50:60], *rng.integers(0, V, 30).tolist()]
    found = KneserNey(np.array(training), size=V, order=order).probability(np.array(text))
    for t in range(len(text)):
        assert found[t] == pytest.approx(slow(training, order, tuple(text[:t]), text[t]), rel=1e-9)


def test_probabilities_of_all_tokens_sum_to_one():
    rng = np.random.default_rng(0)
    training = np.cumsum(rng.integers(0, 3, 2000)) % (V - 1)
    model = KneserNey(training, size=V, order=4)
    for history in (training[:3], np.array([6, 6, 6]), np.array([0, 5, 2])):
        total = sum(model.probability(np.append(history, k))[-1] for k in range(V))
        assert total == pytest.approx(1)
    assert model.nats(training[:500]).mean() < np.log(3.2)
    assert len(model.nats(training[:500])) == 499


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match=r"must lie in \[0, 3\), got 0 to 3"):
        KneserNey(np.arange(4), size=3, order=2)
    with pytest.raises(ValueError, match="an order of 1 or more and two tokens, got 5 and 1 tokens"):
        KneserNey(np.arange(1), size=4)


def test_there_are_no_ngrams_longer_than_the_text():
    text = np.array([0, 1, 2, 0])
    short, long = (KneserNey(text, size=4, order=order).probability(text) for order in (3, 9))
    assert np.array_equal(short, long)


def test_what_never_came_has_a_chance_even_after_texts_that_only_repeat():
    model = KneserNey(np.array([0, 1, 2, 3] * 9), size=V, order=3)
    found = np.array([model.probability(np.array([0, 1, k]))[-1] for k in range(V)])
    assert found.min() > 0
    assert found.argmax() == 2
    assert found.sum() == pytest.approx(1)
