"""Measures of made text, with their signatures: BLEU, chrF, variety; and how sure they are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from carousel.errors import DataError, MissingExtra

__all__ = [
    "Measured",
    "Perplexity",
    "bleu",
    "bootstrap",
    "chrf",
    "distinct",
    "exp",
    "resampled_bleu",
    "share_of_commonest",
]


class Measured(NamedTuple):
    """A score, and what one must know to compare it."""

    score: float
    signature: str


class Perplexity(NamedTuple):
    """Nats of a whole text, and what a token, a word (between blanks) and a character cost: exp of nats each, and for
    characters also in nats."""

    nats: float
    tokens: int
    words: int
    characters: int

    @classmethod
    def of(cls, nats: float, tokens: int, texts: Sequence[str]) -> Self:
        return cls(nats, tokens, sum(len(text.split()) for text in texts), sum(len(text) for text in texts))

    @property
    def per_token(self) -> float:
        return exp(self.nats / self.tokens)

    @property
    def per_word(self) -> float:
        return exp(self.nats / self.words) if self.words else math.inf

    @property
    def per_character(self) -> float:
        return exp(self.nats / self.characters)

    @property
    def nats_per_character(self) -> float:
        return self.nats / self.characters


def exp(nats: float) -> float:
    """inf beyond what floats hold, as of words that are whole texts where a language puts no blanks."""
    return math.exp(nats) if nats < 700 else math.inf


def bleu(made: Sequence[str], reference: Sequence[str], *, lowercase: bool = False) -> Measured:
    """Corpus BLEU (Papineni et al. 2002) by sacrebleu, tokenized as 13a.

    >>> bleu(["the cat sat on the mat"], ["The cat sat on the mat"], lowercase=True).score.__round__(6)
    100.0
    """
    metric = _sacrebleu().BLEU(lowercase=lowercase)
    return _measured(metric, made, reference)


def resampled_bleu(
    made: Sequence[str], reference: Sequence[str], *, lowercase: bool = False
) -> Callable[[list[int]], float]:
    """`bleu` of the texts with these numbers, which may repeat, as `bootstrap` asks for it: every text is counted once.

    >>> score = resampled_bleu(["the cat sat on a mat", "no"], ["the cat sat on a mat", "yes"])
    >>> score([0, 0]).__round__(6) > score([0, 1]) > 0
    True
    """
    metric = _sacrebleu().BLEU(lowercase=lowercase, effective_order=True)  # counts are the same, without a warning
    found = [metric.sentence_score(text, [right]) for text, right in zip(made, reference, strict=True)]
    rows = np.array([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in found], np.int64)

    def score(which: list[int]) -> float:
        sums = [int(v) for v in rows[which].sum(0)]
        smooth = {"smooth_method": metric.smooth_method, "smooth_value": metric.smooth_value}
        return float(metric.compute_bleu(sums[:4], sums[4:8], sums[8], sums[9], **smooth).score)

    return score


def chrf(made: Sequence[str], reference: Sequence[str]) -> Measured:
    """chrF2 (Popovic 2015) by sacrebleu."""
    return _measured(_sacrebleu().CHRF(), made, reference)


def _measured(metric: Any, made: Sequence[str], reference: Sequence[str]) -> Measured:
    if len(made) != len(reference) or not len(made):
        raise DataError(f"{len(made)} texts were made for {len(reference)} references; give one for each.")
    found = metric.corpus_score(list(made), [list(reference)])
    return Measured(float(found.score), str(metric.get_signature()))


def _sacrebleu() -> Any:
    try:
        from sacrebleu import metrics
    except ImportError:
        raise MissingExtra("sacrebleu", "text", "Measuring translations") from None
    return metrics


def distinct(texts: Sequence[str], n: int) -> float:
    """Different n-grams of words as a share of all (Li et al. 2016); 0 where there are none.

    >>> distinct(["i do not know", "i do not care"], 2)
    0.6666666666666666
    """
    grams = [
        gram for text in texts for words in [text.split()] for gram in zip(*(words[k:] for k in range(n)), strict=False)
    ]
    return len(set(grams)) / len(grams) if grams else 0.0


def share_of_commonest(texts: Sequence[str]) -> float:
    """How many of the texts are the same one, the commonest.

    >>> share_of_commonest(["ok", "ok", "no", "yes"])
    0.5
    """
    return Counter(texts).most_common(1)[0][1] / len(texts) if texts else 0.0


def bootstrap(
    score: Callable[[list[int]], float], count: int, *, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """The central `level` interval of `score` over texts drawn anew (Koehn 2004).

    >>> low, high = bootstrap(lambda which: sum(which) / len(which), 100, draws=200)
    >>> low < 49.5 < high
    True
    """
    rng = np.random.default_rng([seed, 0xB0])
    found = [score(rng.integers(0, count, count).tolist()) for _ in range(draws)]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
