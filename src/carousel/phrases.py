"""A phrase-based translator (Koehn et al. 2003) as a baseline: word alignments, phrases, n-grams, no network."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.ngrams import KneserNey
from carousel.text_baselines import index_words, join_words, lexicon, split_words, words_beside_words

__all__ = ["PhraseTranslator"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Links = set[tuple[int, int]]

LONGEST = 5  # words of a phrase
ORDER = 4  # of the n-grams
STRAIGHT = 3.0  # how much less likely words are to belong together, the further apart they stand
CHOICES = 12  # translations of a phrase
KEPT = 24  # beginnings of a translation that are followed up
# of log p(target | source), log p(source | target), log p of the n-grams, a word, and a phrase
WEIGHTS = (0.3, 0.2, 0.5, 0.6, -0.3)
NEIGHBOURS = ((-1, 0), (0, -1), (1, 0), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))


class _Choice(NamedTuple):
    words: tuple[int, ...]
    score: float  # without the n-grams


class _Beginning(NamedTuple):
    score: float
    words: tuple[int, ...]


class PhraseTranslator:
    """From left to right, phrase by phrase, without reordering beyond that within phrases of up to 5 words.

    Words are aligned by IBM Model 1 in both directions, intersected and grown (Och & Ney 2003); phrases are all that
    agree with the alignment; the search weighs their frequencies with Kneser-Ney n-grams of the target.

    >>> source = ["das Haus ist alt", "das Buch", "ein Haus", "ein Buch ist rot", "rot", "alt"]
    >>> target = ["the house is old", "the book", "a house", "a book is red", "red", "old"]
    >>> PhraseTranslator(source, target).translate(["das Buch ist alt"])
    ['the book is old']
    """

    def __init__(self, source: Sequence[str], target: Sequence[str]) -> None:
        known = words_beside_words(source, target)
        self.sources, self.given = index_words(left for left, _ in known)
        self.targets, self.made = index_words(right for _, right in known)
        self.links = list(self._aligned())
        end = len(self.targets)  # stands before and after every text
        stream = np.concatenate([np.append(ids, end) for ids in self.made])
        self.grams = KneserNey(np.append(end, stream), size=end + 1, order=ORDER)
        self.end = end

    def translate(self, texts: Sequence[str]) -> list[str]:
        """The best translation of each text; words that were never seen are copied."""
        number = {word: k for k, word in enumerate(self.sources)}
        asked = [split_words(text) for text in texts]
        ids = [[number.get(word, -1 - k) for k, word in enumerate(words)] for words in asked]
        table = self._table({tuple(own[a:b]) for own in ids for a in range(len(own)) for b in _ends(a, len(own))})
        found = []
        for words, own in zip(asked, ids, strict=True):
            best = self._search(own, table) if own else ()
            found.append(join_words(self.targets[k] if k >= 0 else words[-1 - k] for k in best))
        return found

    def _aligned(self) -> Iterator[Links]:
        """Of each pair of texts which words belong together."""
        ways = []
        for left, right in ((self.given, self.made), (self.made, self.given)):
            sizes = (
                (len(self.sources), len(self.targets)) if left is self.given else (len(self.targets), len(self.sources))
            )
            ways.append((*lexicon(left, right, *sizes), sizes[1]))
        for f, e in zip(self.given, self.made, strict=True):
            if not len(f) or not len(e):
                yield set()
                continue
            apart = np.abs((np.arange(len(f)) / len(f))[:, None] - np.arange(len(e)) / len(e))
            forward = _chances(ways[0], f, e) * np.exp(-STRAIGHT * apart)  # [F, E]
            backward = _chances(ways[1], e, f).T * np.exp(-STRAIGHT * apart)
            one = {(int(i), j) for j, i in enumerate(forward.argmax(0))}
            other = {(i, int(j)) for i, j in enumerate(backward.argmax(1))}
            yield _grown(one & other, one | other)

    def _table(self, needed: set[tuple[int, ...]]) -> dict[tuple[int, ...], list[_Choice]]:
        """The best translations of the phrases needed."""
        counts: dict[tuple[int, ...], Counter[tuple[int, ...]]] = defaultdict(Counter)
        totals = Counter[tuple[int, ...]]()
        for f, e, links in zip(self.given, self.made, self.links, strict=True):
            source, target = tuple(f.tolist()), tuple(e.tolist())
            for a, b, c, d in _phrases(links, len(source), len(target)):
                made = target[c:d]
                totals[made] += 1
                if source[a:b] in needed:
                    counts[source[a:b]][made] += 1
        found = {}
        for phrase, seen in counts.items():
            whole = sum(seen.values())
            choices = [
                _Choice(
                    made,
                    WEIGHTS[0] * float(np.log((n - 0.5) / whole))  # what was seen once may be chance
                    + WEIGHTS[1] * float(np.log((n - 0.5) / totals[made]))
                    + WEIGHTS[3] * len(made)
                    + WEIGHTS[4],
                )
                for made, n in seen.items()
            ]
            found[phrase] = sorted(choices, key=lambda choice: -choice.score)[:CHOICES]
        return found

    def _search(self, source: list[int], table: dict[tuple[int, ...], list[_Choice]]) -> tuple[int, ...]:
        """Beginnings that cover the first 0, 1, ... words, of which the best few with different ends go on."""
        reached: list[dict[tuple[int, ...], _Beginning]] = [{} for _ in range(len(source) + 1)]
        start = (self.end,)
        reached[0][start] = _Beginning(0.0, start)
        for at in range(len(source)):
            kept = sorted(reached[at].values(), key=lambda one: -one.score)[:KEPT]
            steps = []
            for stop in _ends(at, len(source)):
                choices = table.get(tuple(source[at:stop]), [])
                if not choices and stop == at + 1:
                    choices = [_Choice((-1 - at,), -10.0)]
                steps += [(stop, one, choice) for one in kept for choice in choices]
            nats = self._nats([(one.words, choice.words) for _, one, choice in steps])
            for (stop, one, choice), cost in zip(steps, nats, strict=True):
                made = _Beginning(one.score + choice.score - WEIGHTS[2] * cost, one.words + choice.words)
                tail = made.words[1 - ORDER :]
                if tail not in reached[stop] or reached[stop][tail].score < made.score:
                    reached[stop][tail] = made
        last = list(reached[-1].values())
        ends = self._nats([(one.words, (self.end,)) for one in last])
        return max(zip(last, ends, strict=True), key=lambda pair: pair[0].score - WEIGHTS[2] * pair[1])[0].words[1:]

    def _nats(self, pairs: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[float]:
        """-log p of words after others, all together; copied words count as nothing."""
        rows = [(*before[1 - ORDER :], *after) for before, after in pairs]
        flat = np.array([max(word, 0) for row in rows for word in row], np.int64)
        nats = -np.log(self.grams.probability(flat))
        stops = np.cumsum([len(row) for row in rows])
        sums = np.concatenate([[0.0], np.cumsum(nats)])
        return [
            float(sums[stop] - sums[stop - len(after)]) for stop, (_, after) in zip(stops.tolist(), pairs, strict=True)
        ]


def _ends(begin: int, length: int) -> range:
    return range(begin + 1, min(begin + LONGEST, length) + 1)


def _chances(way: tuple[Ints, Floats, int], given: Ints, made: Ints) -> Floats:
    """p(made | given) of words that occur together [G, M]."""
    keys, chance, size = way
    found: Floats = chance[np.searchsorted(keys, given[:, None] * size + made)]
    return found


def _grown(links: Links, union: Links) -> Links:
    """Links of the union beside those that are there, as long as one of the two words is still alone."""
    links = set(links)
    rows, columns = {i for i, _ in links}, {j for _, j in links}
    todo = sorted(links)
    while todo:
        i, j = todo.pop(0)
        for di, dj in NEIGHBOURS:
            near = (i + di, j + dj)
            if near in union and near not in links and (near[0] not in rows or near[1] not in columns):
                links.add(near)
                rows.add(near[0])
                columns.add(near[1])
                todo.append(near)
    return links


def _phrases(links: Links, sources: int, targets: int) -> Iterator[tuple[int, int, int, int]]:
    """Spans [a, b) of the source and [c, d) of the target whose words belong to no word outside."""
    of_source: dict[int, list[int]] = defaultdict(list)
    of_target: dict[int, list[int]] = defaultdict(list)
    for i, j in links:
        of_source[i].append(j)
        of_target[j].append(i)
    for a in range(sources):
        low, high = targets, -1
        for b in _ends(a, sources):
            for j in of_source.get(b - 1, ()):
                low, high = min(low, j), max(high, j)
            if high < 0 or high - low >= LONGEST:
                continue
            if any(not a <= i < b for j in range(low, high + 1) for i in of_target.get(j, ())):
                continue
            c = low
            while c >= 0 and (c == low or c not in of_target):  # words without a counterpart may go with it
                d = high + 1
                while d <= targets and d - c <= LONGEST and (d == high + 1 or d - 1 not in of_target):
                    yield a, b, c, d
                    d += 1
                c -= 1
