"""What estimators of labelled texts have in common: reading tables and lists of texts, their vocabulary, the task."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from carousel.config import ModelConfig
from carousel.errors import CarouselError, DataError
from carousel.inputs.corpus import Corpus, corpus_of_arrays, corpus_of_table, join
from carousel.inputs.roles import Roles
from carousel.inputs.texts import read_vectors
from carousel.inputs.tokens import TextConfig, TokenInput, fit_tokens
from carousel.sequences import Examples
from carousel.text_task import TextTask
from carousel.train import TrainConfig

__all__ = ["CLASSIFY_TEXTS", "TAG_TEXTS", "WORDS_OF_TAGS", "WORDS_OF_TEXTS", "ReadsTexts"]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]


CLASSIFY_TEXTS = TrainConfig(
    hidden_size=128,
    bidirectional=True,
    batch_size=64,
    batch_rows=16384,
    steps=4000,
    epochs=8,
    learning_rate=2e-3,
    evaluate_every=50,
    patience=8,
    averaging=0.98,
    width=0,
    dropout=0.5,
)
TAG_TEXTS = dataclasses.replace(CLASSIFY_TEXTS, batch_size=32, batch_rows=8192, epochs=15, patience=10)
WORDS_OF_TEXTS = TextConfig(word_dropout=0.1, input_dropout=0.3)
WORDS_OF_TAGS = TextConfig("word", 30_000, spelling=16, word_dropout=0.05, input_dropout=0.3)


class ReadsTexts:
    """A mixin: `text` names the column of texts of a table, `words` says how they become tokens; either makes the
    estimator one of texts."""

    text: str | None = None
    words: TextConfig | None = None
    intent: str | None = None
    per_row: ClassVar[bool]
    text_defaults: ClassVar[TrainConfig]
    words_defaults: ClassVar[TextConfig]
    _vectors: tuple[Singles, NDArray[np.bool_]] | None = None

    @property
    def of_texts(self) -> bool:
        return self.text is not None or self.words is not None

    @property
    def text_config(self) -> TextConfig:
        """How texts are read: `words`, or the defaults of the task."""
        if self.words is not None and not isinstance(self.words, TextConfig):
            raise CarouselError(f"words must be a TextConfig, got {self.words!r}; write TextConfig(lowercase=True).")
        return self.words or self.words_defaults

    def _check_texts(self) -> None:
        """CarouselError for parameters that are about columns of numbers and categories."""
        for name in ("time", "features", "static", "categorical", "long", "frames", "event", "ahead"):
            if getattr(self, name, None):
                raise CarouselError(f"{name} is not about texts; leave it out.")
        if self.text is not None and not isinstance(self.text, str):
            raise CarouselError(f"text must be the name of a column, got {self.text!r}; give it as text.")

    def _text_roles(self) -> Roles:
        own: Any = self
        if self.text is None:
            return Roles()
        return Roles(own.id, None, () if own.target is None else (own.target,), (self.text,))

    def _read_texts(self, data: Any, roles: Roles, table: bool, source: str, target: bool) -> Corpus:
        if not table:
            return corpus_of_arrays(data, words=self.per_row, source=source)
        if not roles.features:
            raise DataError(f"{source}: which column holds the texts is not said; name it as text.")
        return corpus_of_table(data, roles, source=source, words=self.per_row, target=target, intent=self.intent)

    def _texts_with_valid(
        self, data: Any, y: Any, valid: Any, labelled: bool, table: bool, source: str
    ) -> tuple[Corpus, Any, Floats | None]:
        """The texts of `data` and `valid` together, their labels, and of each [B] -inf where it is held out, else inf
        (None: no `valid` was given). `labelled`: labels stand in the table."""
        self._check_texts()
        own = self._read_texts(data, self._text_roles(), table, source, labelled)
        if valid is None:
            return own, y, None
        if not table:
            if not isinstance(valid, tuple) or len(valid) != 2:
                raise CarouselError("valid goes with lists of texts as a pair (X, y); give both.")
            other = self._read_texts(valid[0], Roles(), False, "valid", True)
            y = tuple([*a, *b] for a, b in zip(y, valid[1], strict=True)) if self.intent else [*y, *valid[1]]
        else:
            other = self._read_texts(valid, self._text_roles(), True, "valid", labelled)
        held = np.repeat([np.inf, -np.inf], [len(own.ids), len(other.ids)])
        return join(own, other), y, held

    def _token_input(self, corpus: Corpus, parts: Ints) -> TokenInput:
        """The vocabulary learned from the training `parts`, and pretrained vectors of its words."""
        given = self.text_config
        try:
            seen = fit_tokens(
                [corpus.parts[k] for k in parts], given, form=corpus.form, roles=corpus.roles, intent=self.intent
            )
        except ValueError as error:
            raise CarouselError(f"{error}; correct the parameter.") from None
        self._vectors = None
        if given.vectors:
            self._vectors = read_vectors(given.vectors, seen.words.tokens)
            seen = dataclasses.replace(seen, width=self._vectors[0].shape[1])
        return seen

    def _text_task(self, corpus: Corpus) -> Any:
        """What makes of examples what is trained."""

        def task(config: ModelConfig, examples: Examples, settings: TrainConfig) -> TextTask:
            return TextTask(config, examples, settings, corpus=corpus, hidden=self.text_config, vectors=self._vectors)

        return task
