"""What labels of texts and words have to beat: words counted and weighted, and the label that each word mostly has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["bag_of_words", "commonest", "most_frequent"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STRENGTH = 10.0  # inverse of the penalty of logistic regression
RIDGE = 1.0
MANY = 1000  # texts, of which words and pairs of words that stand in one alone are left out
SMOOTH = 0.5  # added to every count of a label


def bag_of_words(texts: Sequence[str], truth: Floats, others: Sequence[str], classes: int) -> Floats:
    """Words and pairs of words weighted by TF-IDF (Sparck Jones 1972), and logistic regression: probabilities of the
    `others` [n, C]; of numbers (`classes` 0) ridge regression, [n].

    >>> texts, truth = ["a good film", "a bad film"] * 3, np.array([1.0, 0.0] * 3)
    >>> bag_of_words(texts, truth, ["good"], classes=2).argmax(1).tolist()
    [1]
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge

    least = 2 if len(texts) >= MANY else 1
    reader = TfidfVectorizer(ngram_range=(1, 2), min_df=least, sublinear_tf=True, token_pattern=r"\S+", lowercase=True)
    seen, asked = reader.fit_transform(texts), reader.transform(others)
    if not classes:
        return np.asarray(Ridge(RIDGE).fit(seen, truth).predict(asked), np.float64)
    codes = truth.astype(np.int64)
    made = np.zeros((len(others), classes))
    if len(np.unique(codes)) == 1:
        made[:, codes[0]] = 1.0
        return made
    model = LogisticRegression(C=STRENGTH, max_iter=1000).fit(seen, codes)
    made[:, model.classes_] = model.predict_proba(asked)
    return made


def commonest(truth: Floats, count: int, classes: int) -> Floats:
    """The shares of the classes [count, C], or the mean of numbers [count], whatever the text."""
    if not classes:
        return np.full(count, truth.mean())
    share = np.bincount(truth.astype(np.int64), minlength=classes) + SMOOTH
    return np.tile(share / share.sum(), (count, 1))


def most_frequent(words: Sequence[str], truth: Floats, others: Sequence[str], classes: int) -> Floats:
    """The shares [n, C] of the labels that each of the `others` had in training; of unknown words those of all words.

    >>> most_frequent(["the", "run", "run"], np.array([0.0, 1.0, 1.0]), ["run"], classes=2).argmax(1).tolist()
    [1]
    """
    known = np.isfinite(truth)
    codes = truth[known].astype(np.int64)
    used = [word for word, k in zip(words, known.tolist(), strict=True) if k]
    total = np.bincount(codes, minlength=classes) + SMOOTH
    share = total / total.sum()
    counts = Counter(zip(used, codes.tolist(), strict=True))
    table: dict[str, Any] = {}
    for (word, code), count in counts.items():
        table.setdefault(word, share.copy())[code] += count
    return np.stack([one / one.sum() for one in (table.get(word, share) for word in others)])
