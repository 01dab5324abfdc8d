"""Text as a model sees it: subwords, characters or words, learned from the training part and kept in the model file.

Subwords are built from bytes and characters fall back to bytes, so every text has a form and comes back unchanged; only
`word` has unknown words. Marks such as the end of a text are no part of the tokenizer: nothing that a user writes can
become one.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError, MissingExtra
from carousel.ragged import Ragged

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["BEGIN", "END", "TURN", "UNKNOWN", "Tokens", "Vocabulary", "fit_vocabulary"]

Ints = NDArray[np.int64]
Kind = Literal["bpe", "unigram", "char", "word"]

BEGIN, END, TURN = 0, 1, 2  # before a text, after it, and between the turns of a dialogue
MARKS = 3
UNKNOWN = "<unk>"  # of kind "word"
LONGEST = 2**20  # characters of one text
_UNBROKEN = re.compile(r"\S{500}")


class Tokens(Ragged):
    """Ragged ids int64 [N], one sequence for each text."""


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as a frozen value: `tokenizer` is the JSON of the `tokenizers` library.

    Ids of tokens follow those of the marks BEGIN, END and TURN. `lowercase` is a choice that the text does not survive.

    >>> words = fit_vocabulary(["ein Haus am See", "ein See"], kind="bpe", size=300)
    >>> words.decode(words.encode(["Ein Haus </s> in 東京"]))
    ['Ein Haus </s> in 東京']
    """

    kind: Kind
    tokenizer: str
    lowercase: bool = False

    def __post_init__(self) -> None:
        try:
            model = json.loads(self.tokenizer)["model"]
            kind, vocabulary = model["type"], model["vocab"]
            ids = sorted(vocabulary.values()) if isinstance(vocabulary, dict) else list(range(len(vocabulary)))
        except (ValueError, KeyError, TypeError):
            raise ValueError("tokenizer is no JSON of a tokenizer") from None
        if kind != _MODELS[self.kind]:
            raise ValueError(f"a vocabulary of kind {self.kind} needs a {_MODELS[self.kind]} model, got {kind}")
        if ids != list(range(len(ids))):
            raise ValueError("the ids of tokens must count from 0 without a gap")

    @cached_property
    def size(self) -> int:
        """Tokens and marks; read from the JSON, so that a model file's shapes are known without the library."""
        return MARKS + len(json.loads(self.tokenizer)["model"]["vocab"])

    @cached_property
    def _engine(self) -> Tokenizer:
        engine: Tokenizer = _tokenizers().Tokenizer.from_str(self.tokenizer)
        return engine

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The tokens by id, as people read them; the marks first."""
        engine = self._engine
        decode = engine.decoder.decode if engine.decoder else "".join
        names = [str(engine.id_to_token(k)) for k in range(engine.get_vocab_size())]
        return ("<s>", "</s>", "<turn>", *(names if self.kind == "word" else (str(decode([n])) for n in names)))

    @cached_property
    def spelled(self) -> tuple[bytes, ...]:
        """What each token adds to a text; nothing for the marks."""
        engine = self._engine
        names = [str(engine.id_to_token(k)) for k in range(engine.get_vocab_size())]
        if self.kind == "word":
            made = [b" " + name.encode() for name in names]
        elif self.kind == "char":
            made = [bytes([k]) if k < 256 else name.encode() for k, name in enumerate(names)]
        else:
            byte = _byte_of()
            made = [bytes(byte[char] for char in name) for name in names]
        return (*[b""] * MARKS, *made)

    def encode(self, texts: Sequence[str], *, dropout: float = 0.0, longest: int | None = LONGEST) -> Tokens:
        """Ids of each text, without marks. `dropout` skips merges at random (BPE dropout, Provilkov et al. 2020).

        Raises ValueError for dropout with another kind than "bpe" or outside [0, 1), DataError for a text of more than
        `longest` characters or that is no valid Unicode.
        """
        if not 0 <= dropout < 1 or (dropout and self.kind != "bpe"):
            raise ValueError(
                f"dropout of merges is in [0, 1) and needs the kind 'bpe', got {dropout} for {self.kind!r}"
            )
        given = [self._given(k, text, longest) for k, text in enumerate(texts)]
        engine = self._engine
        if self.kind == "bpe":
            engine.model.dropout = dropout or None
        found = [encoding.ids for encoding in engine.encode_batch_fast(given)] if given else []
        offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in found])]).astype(np.int64)
        flat = np.fromiter((i for ids in found for i in ids), np.int64, int(offsets[-1]))
        return Tokens(flat + MARKS, offsets)

    def decode(self, tokens: Iterable[Any]) -> list[str]:
        """The text of each sequence of ids; marks are left out."""
        kept = [[int(i) - MARKS for i in ids if i >= MARKS] for ids in tokens]
        texts = self._engine.decode_batch(kept, skip_special_tokens=False) if kept else []
        return [text.removeprefix(" ") if self.kind in _SPACED else text for text in texts]

    def _given(self, k: int, text: str, longest: int | None) -> str:
        if longest is not None and len(text) > longest:
            raise DataError(
                f"text {k + 1} has {len(text):,} characters, at most {longest:,} are taken at once; split it into"
                " sentences or paragraphs."
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"text {k + 1} is no valid Unicode at character {error.start + 1}; read its file with its own encoding."
            ) from None
        return text.lower() if self.lowercase else text


_MODELS = {"bpe": "BPE", "unigram": "Unigram", "char": "BPE", "word": "WordLevel"}
_SPACED = ("bpe", "unigram")  # a blank before the first word makes it the same token as within a text


def fit_vocabulary(
    texts: Iterable[str], *, kind: Kind = "bpe", size: int = 8000, lowercase: bool = False
) -> Vocabulary:
    """Learn a vocabulary of at most `size` tokens, marks included, from the training texts.

    bpe: byte-level byte pair encoding (Sennrich et al. 2016; Radford et al. 2019); unigram: Kudo 2018; char: the
    commonest characters, others as bytes; word: what stands between blanks, others unknown. Raises DataError where
    there is no text, ValueError for a size that leaves no room, MissingExtra without the tokenizers library.

    >>> fit_vocabulary(["abba"], kind="char").tokens[-2:]
    ('a', 'b')
    """
    if kind not in _BUILD:
        raise ValueError(f"tokens are of kind {', '.join(_BUILD)}, not {kind!r}")
    least = {"bpe": 256, "unigram": 256, "char": 257, "word": 1}[kind] + MARKS + 1
    if size < least:
        raise ValueError(f"a vocabulary of kind {kind} needs a size of at least {least}, got {size}")
    lines = [text.lower() if lowercase else text for text in texts]
    if not any(line.strip() for line in lines):
        raise DataError("there is no text to learn a vocabulary from; give it at least one sentence.")
    engine = _BUILD[kind](lines, size - MARKS)
    return Vocabulary(kind, engine.to_str(), lowercase)


def _subwords(engine: Tokenizer, trainer: Any, lines: list[str]) -> Tokenizer:
    library = _tokenizers()
    engine.normalizer = library.normalizers.Prepend(" ")
    engine.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = library.decoders.ByteLevel()
    engine.train_from_iterator((piece for line in lines for piece in _pieces(line)), trainer)
    return engine


def _pieces(line: str) -> list[str]:
    """The line, cut within what is too long for a word: learning merges takes time quadratic in a word's length."""
    cuts = [match.end() for match in _UNBROKEN.finditer(line)]
    return [line[a:b] for a, b in pairwise([0, *cuts, len(line)]) if a < b] if cuts else [line]


def _bpe(lines: list[str], size: int) -> Tokenizer:
    library = _tokenizers()
    trainer = library.trainers.BpeTrainer(vocab_size=size, initial_alphabet=_bytes(), show_progress=False)
    return _subwords(library.Tokenizer(library.models.BPE()), trainer, lines)


def _unigram(lines: list[str], size: int) -> Tokenizer:
    library = _tokenizers()
    trainer = library.trainers.UnigramTrainer(vocab_size=size, initial_alphabet=_bytes(), show_progress=False)
    return _subwords(library.Tokenizer(library.models.Unigram()), trainer, lines)


def _char(lines: list[str], size: int) -> Tokenizer:
    library = _tokenizers()
    counts = Counter[str]()
    for line in lines:
        counts.update(line)
    kept = sorted(char for char, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: size - 256])
    vocabulary = {f"<0x{b:02X}>": b for b in range(256)} | {char: 256 + k for k, char in enumerate(kept)}
    engine: Tokenizer = library.Tokenizer(library.models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    engine.decoder = library.decoders.Sequence([library.decoders.ByteFallback(), library.decoders.Fuse()])
    return engine


def _word(lines: list[str], size: int) -> Tokenizer:
    library = _tokenizers()
    counts = Counter(word for line in lines for word in line.split())
    counts.pop(UNKNOWN, None)
    kept = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: size - 1]]
    vocabulary = {UNKNOWN: 0} | {word: 1 + k for k, word in enumerate(kept)}
    engine: Tokenizer = library.Tokenizer(library.models.WordLevel(vocabulary, unk_token=UNKNOWN))
    engine.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    return engine


_BUILD = {"bpe": _bpe, "unigram": _unigram, "char": _char, "word": _word}


def _bytes() -> list[str]:
    return sorted(_tokenizers().pre_tokenizers.ByteLevel.alphabet())


def _byte_of() -> dict[str, int]:
    """The byte that each letter of a byte-level alphabet stands for (Radford et al. 2019)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + k): byte for k, byte in enumerate(others)}


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise MissingExtra("tokenizers", "text", "Reading text") from None
    return tokenizers


@dataclass(frozen=True)
class TextInput:
    """Texts: the column they stand in and their vocabulary."""

    column: str
    words: Vocabulary


@dataclass(frozen=True)
class PairInput:
    """Pairs of texts: the columns they stand in and their vocabularies; with `target` None both share one."""

    columns: tuple[str, ...]
    source: Vocabulary
    target: Vocabulary | None = None

    def __post_init__(self) -> None:
        if len(self.columns) != 2 or self.columns[0] == self.columns[1]:
            raise ValueError(f"a pair has two different columns, got {self.columns}")

    @property
    def out(self) -> Vocabulary:
        """The vocabulary of the target."""
        return self.target or self.source

    def read(self, texts: Sequence[str], *, dropout: float = 0.0) -> Tokens:
        """Ids of sources; see `Vocabulary.encode`."""
        return self.source.encode(texts, dropout=dropout)


def batches_by_tokens(lengths: Ints, tokens: int, rng: np.random.Generator | None = None) -> Iterator[Ints]:
    """Indices of sequences in batches of at most `tokens` tokens (one longer sequence is a batch of its own), alike in
    length; with `rng` in random order, among equal lengths too.

    >>> [batch.tolist() for batch in batches_by_tokens(np.array([5, 1, 4, 2]), 6)]
    [[1, 3], [2], [0]]
    """
    order = np.argsort(lengths, kind="stable") if rng is None else np.lexsort((rng.random(len(lengths)), lengths))
    cuts, total = [0], 0
    for k, length in enumerate(lengths[order].tolist()):
        if total and total + length > tokens:
            cuts.append(k)
            total = 0
        total += length
    parts = [order[a:b] for a, b in zip(cuts, [*cuts[1:], len(order)], strict=True) if b > a]
    for k in range(len(parts)) if rng is None else rng.permutation(len(parts)):
        yield parts[k]
