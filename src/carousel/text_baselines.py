"""What made texts have to beat: a dictionary word by word, the reply to the most similar context, the commonest one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Dictionary",
    "Retrieval",
    "commonest",
    "index_words",
    "join_words",
    "lexicon",
    "split_words",
    "words_beside_words",
]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

LONGEST = 100  # words of a text that are learned from
MOST = 20_000_000  # words beside words that are learned from
ROUNDS = 6  # of expectation and maximisation
VAGUE = 0.08  # a word that becomes nothing else with this probability becomes nothing
NOTHING = ""  # what words without a counterpart come from


def split_words(text: str) -> list[str]:
    """Words and marks of punctuation.

    >>> split_words("Ein Hund, zwei.")
    ['Ein', 'Hund', ',', 'zwei', '.']
    """
    return re.findall(r"\w+|[^\w\s]", text)


def join_words(words: Iterable[str]) -> str:
    """Words as text, marks of punctuation at the word before them.

    >>> join_words(["a", "dog", ",", "two", "."])
    'a dog, two.'
    """
    return re.sub(r" ([.,;:!?])(?=\s|$)", r"\1", " ".join(words))


class Dictionary:
    """Word by word, in the order of the source: each word by what it most probably becomes (IBM Model 1, Brown et al.
    1993), left out where that is nothing, and copied where it was never seen.

    >>> dictionary = Dictionary(["das Haus", "das Buch", "ein Buch"], ["the house", "the book", "a book"])
    >>> dictionary.translate(["ein Haus 7"])
    ['a house 7']
    """

    def __init__(self, source: Sequence[str], target: Sequence[str]) -> None:
        known = words_beside_words(source, target)
        self.sources, given = index_words(left for left, _ in known)
        self.targets, made = index_words(right for _, right in known)
        self.best = dict[str, str]()
        pairs, chance = lexicon(given, made, len(self.sources), len(self.targets))
        rows, columns = pairs // len(self.targets), pairs % len(self.targets)
        order = np.lexsort((chance, rows))
        last = np.flatnonzero(np.diff(np.append(rows[order], -1)))
        for k in order[last]:
            word = self.sources[rows[k]]
            self.best[word] = self.targets[columns[k]] if chance[k] > VAGUE else NOTHING

    def translate(self, texts: Iterable[str]) -> list[str]:
        found = []
        for text in texts:
            words = (self.best.get(word, word) for word in split_words(text))
            found.append(join_words(word for word in words if word))
        return found


def words_beside_words(source: Sequence[str], target: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """The first 100 words of both sides of each pair; every second, third, ... pair where they are too many to count
    which word stands beside which.

    >>> words_beside_words(["ein Hund"], ["a dog."])
    [(['ein', 'Hund'], ['a', 'dog', '.'])]
    """
    found = [(split_words(a)[:LONGEST], split_words(b)[:LONGEST]) for a, b in zip(source, target, strict=True)]
    return found[:: 1 + sum(len(a) * len(b) for a, b in found) // MOST]


def lexicon(given: list[Ints], made: list[Ints], sources: int, targets: int) -> tuple[Ints, Floats]:
    """IBM Model 1: keys source * targets + target of words that occur together, and p(target | source) of each; source
    0 is nothing.
    """
    keys, owner = [], []
    count = 0
    for left, right in zip(given, made, strict=True):
        whole = np.append(left, 0)
        keys.append((whole[None, :] * targets + right[:, None]).ravel())
        owner.append(np.repeat(np.arange(count, count + len(right)), len(whole)))
        count += len(right)
    pairs, place = np.unique(np.concatenate(keys), return_inverse=True)
    word = np.concatenate(owner)
    source = pairs // targets
    chance: Floats = np.ones(len(pairs))
    for _ in range(ROUNDS):
        own = chance[place]
        share = own / np.bincount(word, own, count)[word]
        summed = np.bincount(place, share, len(pairs))
        chance = summed / np.bincount(source, summed, sources)[source]
    return pairs, chance


def index_words(texts: Iterable[list[str]]) -> tuple[list[str], list[Ints]]:
    """Words by number, 0 being nothing, and the numbers of each text.

    >>> index_words([["a", "b"], ["b"]])
    (['', 'a', 'b'], [array([1, 2]), array([2])])
    """
    number = {NOTHING: 0}
    found = [np.array([number.setdefault(word, len(number)) for word in words], np.int64) for words in texts]
    return list(number), found


class Retrieval:
    """The reply to the most similar context that is known: cosine of TF-IDF, of equals the first.

    >>> known = Retrieval(["how are you", "where do you live"], ["fine", "here"])
    >>> known.reply(["and where do they live"])
    ['here']
    """

    def __init__(self, contexts: Sequence[str], replies: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.vectors = TfidfVectorizer(token_pattern=r"(?u)\w+|[^\w\s]", sublinear_tf=True, dtype=np.float32)
        self.known = self.vectors.fit_transform(contexts).T.tocsr()
        self.replies = list(replies)

    def reply(self, contexts: Sequence[str]) -> list[str]:
        found: list[str] = []
        for k in range(0, len(contexts), 256):
            likeness = self.vectors.transform(contexts[k : k + 256]) @ self.known
            found += [self.replies[int(best)] for best in np.asarray(likeness.argmax(1)).ravel()]
        return found


def commonest(replies: Sequence[str]) -> str:
    """The text that occurs most often, of equals the first.

    >>> commonest(["no", "i don't know", "i don't know"])
    "i don't know"
    """
    return Counter(replies).most_common(1)[0][0]
