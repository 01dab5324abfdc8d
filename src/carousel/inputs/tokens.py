"""Texts as a model of labels reads them: tokens of whole texts, or of words with the first piece of each marked.

Torch-free, as all inputs are; the embeddings themselves belong to the model.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError
from carousel.inputs.roles import Roles
from carousel.inputs.sequence import hash_text
from carousel.inputs.text import MARKS, Vocabulary, fit_vocabulary

__all__ = ["SPELLINGS", "Keep", "TextConfig", "TokenChannels", "TokenInput", "fit_tokens", "shape_of", "spelling"]

Ints = NDArray[np.int64]
Singles = NDArray[np.float32]
Keep = Literal["first", "last", "ends"]
Form = Literal["texts", "cells", "rows"]

BUCKETS = 4096  # of each spelling feature
RUN = 2  # letters of one kind in a row that a word's shape tells apart from one more


@dataclass(frozen=True)
class TextConfig:
    """How texts become tokens, and what of them is hidden in training; `None` of an estimator: its own defaults.

    `tokens` bpe, unigram, char or word (what stands between blanks; words seen fewer than `fewest` times are unknown),
    at most `vocabulary` of them. `width` is that of a token's embedding; `vectors` a file of pretrained ones in the
    text form of GloVe, word2vec or fastText (words only), which `frozen` keeps as they are. `spelling` > 0 shows words
    by prefixes, suffixes and shape as well, each embedded in so many numbers. `longest` > 0 keeps so many tokens of a
    text: its `first`, `last`, or half of either (`ends`).

    Hidden in training: `merges` of bpe (Provilkov et al. 2020), whole tokens (`word_dropout`), tokens everywhere in a
    batch (`embedding_dropout`, Gal & Ghahramani 2016), and channels all through a text (`input_dropout`, ibid.).

    Raises ValueError for values out of range or that do not go together.

    >>> TextConfig(tokens="word", spelling=8).width
    128
    """

    tokens: Literal["bpe", "unigram", "char", "word"] = "bpe"
    vocabulary: int = 8000
    fewest: int = 2
    lowercase: bool = False
    width: int = 128
    spelling: int = 0
    vectors: str = ""
    frozen: bool = False
    longest: int = 0
    keep: Keep = "first"
    merges: float = 0.0
    word_dropout: float = 0.0
    embedding_dropout: float = 0.0
    input_dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.tokens not in ("bpe", "unigram", "char", "word"):
            raise ValueError(f"tokens are bpe, unigram, char or word, got {self.tokens!r}")
        if self.keep not in ("first", "last", "ends"):
            raise ValueError(f"keep is first, last or ends, got {self.keep!r}")
        for name, least in (("vocabulary", 1), ("fewest", 1), ("width", 1), ("spelling", 0), ("longest", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("merges", "word_dropout", "embedding_dropout", "input_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.merges and self.tokens != "bpe":
            raise ValueError(f"merges are of tokens of kind bpe, not {self.tokens}")
        if (self.vectors or self.spelling) and self.tokens != "word":
            raise ValueError(f"vectors and spelling are of tokens of kind word, not {self.tokens}")
        if self.frozen and not self.vectors:
            raise ValueError("frozen is about vectors; name their file")


class TokenChannels(NamedTuple):
    """B texts of M tokens in all; tokens of text b are offsets[b]:offsets[b + 1].

    Where words are labelled, `first` [N] are the tokens that words begin with, those of text b being
    words[b]:words[b + 1]; else it is empty.
    """

    ids: Ints  # [M]
    spelling: Ints  # [M, S] of the word, S = 0 without
    offsets: Ints  # [B + 1]
    first: Ints  # [N]
    words: Ints  # [B + 1]

    @property
    def lengths(self) -> Ints:
        return np.diff(self.offsets)

    @property
    def values(self) -> Ints:
        """What there is to label: words [N], or tokens [M]."""
        return self.first if len(self.first) else self.ids

    def select(self, which: Ints, start: Ints | None = None, stop: Ints | None = None) -> tuple[TokenChannels, Ints]:
        """The texts `which` [b] and the words that were theirs; of each only its tokens start:stop, where given."""
        begin = self.offsets[:-1][which]
        low, high = (
            (begin if start is None else begin + start),
            (self.offsets[1:][which] if stop is None else begin + stop),
        )
        offsets, rows = _taken(low, high)
        words, labelled = _taken(self.words[:-1][which], self.words[1:][which])
        shift = np.repeat(offsets[:-1] - low, np.diff(words))
        return TokenChannels(
            self.ids[rows], self.spelling[rows], offsets, self.first[labelled] + shift, words
        ), labelled


def _taken(low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """Offsets [b + 1] of the ranges low:high one after another, and what is in them."""
    offsets = np.concatenate([[0], np.cumsum(high - low)]).astype(np.int64)
    return offsets, np.arange(offsets[-1]) + np.repeat(low - offsets[:-1], high - low)


@dataclass(frozen=True)
class TokenInput:
    """Which column holds the text, in which `form`, and its vocabulary.

    texts: one in each row, with one label. cells: one in each row, its words separated by blanks as their labels are.
    rows: one word in each row, those of a text one after another with the same id. `intent` is the column of the label
    of a whole text whose words are labelled.
    """

    roles: Roles
    form: Form
    words: Vocabulary
    width: int
    spelling: int = 0
    buckets: int = BUCKETS
    longest: int = 0
    keep: Keep = "first"
    intent: str | None = None

    def __post_init__(self) -> None:
        if self.width < 1 or self.spelling < 0 or self.buckets < 1 or self.longest < 0:
            raise ValueError("width and buckets must be positive, spelling and longest not negative")
        if self.longest and self.form != "texts":
            raise ValueError("longest is about texts with one label, where words have labels none may be left out")

    static_size = 0  # what a text has beside its tokens

    @property
    def step_size(self) -> int:
        """Channels of one step of the stack's input."""
        return self.width + len(SPELLINGS) * self.spelling

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The embeddings, as in the input module's `state_dict`."""
        found: dict[str, tuple[int, ...]] = {"embed.weight": (self.words.size, self.width)}
        if self.spelling:
            found["spell.weight"] = (len(SPELLINGS) * self.buckets, self.spelling)
        return found

    def channels(self, parts: Sequence[str], offsets: Ints, merges: float = 0.0) -> TokenChannels:
        """Tokens of B texts: `parts` are these, or their words, those of text b at offsets[b]:offsets[b + 1].

        `merges` is the share of merges to skip at random, in training. Raises DataError for a text without a token.
        """
        texts = self.form == "texts"
        if texts and self.words.kind == "word":
            split = [part.split() for part in parts]
            parts = [word for words in split for word in words]
            offsets = np.concatenate([[0], np.cumsum([len(words) for words in split])]).astype(np.int64)
        distinct = {part: k for k, part in enumerate(dict.fromkeys(parts))}  # words come again and again
        place = np.fromiter((distinct[part] for part in parts), np.int64, len(parts))
        if merges:
            found = self.words.encode(parts, dropout=merges)
            ids, lengths = found.values, found.lengths
        else:
            taken = self.words.encode(list(distinct))[place]
            ids, lengths = taken.values, taken.lengths
        ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        codes = np.zeros((len(ids), 0), np.int64)
        if self.spelling:
            table = np.array([spelling(word, self.buckets) for word in distinct], np.int64).reshape(-1, len(SPELLINGS))
            codes = np.repeat(table[place], lengths, 0)
        begin = ends[offsets]
        if not (np.diff(begin) > 0).all() or not (texts or (lengths > 0).all()):
            raise DataError("there is a text or a word of blanks alone; complete it or leave it out.")
        if not texts:
            return TokenChannels(ids, codes, begin, ends[:-1], np.ascontiguousarray(offsets, np.int64))
        if self.longest:
            kept, begin = _cut(begin, self.longest, self.keep)
            ids, codes = ids[kept], codes[kept]
        return TokenChannels(ids, codes, begin, np.zeros(0, np.int64), np.zeros(len(begin), np.int64))


def _cut(offsets: Ints, longest: int, keep: Keep) -> tuple[NDArray[np.bool_], Ints]:
    """Which of the tokens to keep, at most `longest` of each text, and the offsets of what is kept."""
    lengths = np.diff(offsets)
    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    left = np.repeat(lengths, lengths) - position  # tokens from here on
    head = {"first": longest, "last": 0, "ends": longest - longest // 2}[keep]
    kept = (position < head) | (left <= longest - head)
    return kept, np.concatenate([[0], np.cumsum(np.minimum(lengths, longest))]).astype(np.int64)


SPELLINGS = ("prefix 1", "prefix 2", "prefix 3", "suffix 1", "suffix 2", "suffix 3", "suffix 4", "shape")


def spelling(word: str, buckets: int = BUCKETS) -> list[int]:
    """The rows of the embedding of a word's spelling: one for each of SPELLINGS, by hashing.

    >>> spelling("Haus")[:4] == spelling("hat")[:2] + spelling("haut")[2:3] + spelling("los")[3:4]
    True
    """
    low = word.lower()
    parts = (low[:1], low[:2], low[:3], low[-1:], low[-2:], low[-3:], low[-4:], shape_of(word))
    return [k * buckets + hash_text(part) % buckets for k, part in enumerate(parts)]


def shape_of(word: str) -> str:
    """Capitals as X, other letters as x, digits as d; of a run of one kind two are kept.

    >>> shape_of("Carousel-2026"), shape_of("U.S."), shape_of("東京")
    ('Xxx-dd', 'X.X.', 'xx')
    """
    found: list[str] = []
    for letter in word:
        kind = unicodedata.category(letter)
        mark = "X" if kind in ("Lu", "Lt") else "x" if kind[0] in "LM" else "d" if kind[0] == "N" else letter
        if found[-RUN:] != [mark] * RUN:
            found.append(mark)
    return "".join(found)


def fit_tokens(
    parts: Sequence[str], given: TextConfig, *, form: Form, roles: Roles, intent: str | None = None, width: int = 0
) -> TokenInput:
    """Learn the vocabulary from training texts or words; `width` that of pretrained vectors, 0 without.

    Raises DataError where there is no text, ValueError for a vocabulary without room.
    """
    size = given.vocabulary
    if given.tokens == "word":
        counts = Counter(word for part in parts for word in (part.lower() if given.lowercase else part).split())
        size = min(size, MARKS + 1 + sum(count >= given.fewest for count in counts.values()))
        size = max(size, MARKS + 2)
    lines = parts if form == "texts" else [" ".join(parts)] if given.tokens == "word" else parts
    words = fit_vocabulary(lines, kind=given.tokens, size=size, lowercase=given.lowercase)
    return TokenInput(
        roles, form, words, width or given.width, given.spelling, BUCKETS, given.longest, given.keep, intent
    )
