"""`Translator`: from one text to another: translation, and replies to what was said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import narwhals as nw
import numpy as np
import torch
from numpy.typing import NDArray

from carousel.banned import Banned
from carousel.config import ModelConfig, StackConfig, to_json
from carousel.errors import CarouselError, DataError
from carousel.estimator import Estimator, versions
from carousel.heads.search import Beam, Found, Sampling, beam_search, sample
from carousel.heads.translate import TranslateHead
from carousel.heads.translate_net import TranslateDecoder
from carousel.inputs import columns
from carousel.inputs.dialogues import DialogueInput, context_of, pairs_of, require_dialogues
from carousel.inputs.text import BEGIN, END, LONGEST, PairInput, Tokens, Vocabulary, batches_by_tokens, fit_vocabulary
from carousel.replies import Mutual
from carousel.stages import in_stages
from carousel.textmetrics import Perplexity, bleu
from carousel.train import Progress, Result, TrainConfig
from carousel.translation import Pairs, framed, logprobs, require_short, train_translator

__all__ = ["Translator"]

Ints = NDArray[np.int64]
Text = str | Sequence[str]  # of a model of dialogues also the turns themselves

ROWS = 1500  # tokens of sources that are searched at once
BEAM = Beam()
MUTUAL = Mutual()


class Translator(Estimator):
    """One text from another, by a bidirectional LSTM, attention, and an LSTM decoder.

    `source`, `target` the columns of a table of pairs; `vocabulary` the number of tokens of kind `tokens` (see
    `inputs.text.fit_vocabulary`), one for both sides unless `shared` is False; `lowercase` both sides; `merges` share
    of merges skipped in training (BPE dropout, not drawn from the seed); `smoothing` of labels; `attention`,
    `input_feeding`, `embedding`, `encoder_layers`: see `TranslateHead`; `turns` more than 0: sources are dialogues, of
    which the last so many turns are read, and targets replies (see `inputs.dialogues`); `seeds` members of the
    ensemble; `config` None: `Translator.defaults`, of which `batch_rows` counts tokens of the target.

    >>> pairs = [(f"{a} {b}", f"{b} {a}") for a in "abcd" for b in "abcd"]
    >>> config = TrainConfig(hidden_size=32, steps=120, least_steps=120, warmup=10, learning_rate=0.02, holdout=0.0)
    >>> model = Translator(tokens="word", embedding=16, merges=0.0, config=config)
    >>> model.fit([a for a, _ in pairs], [b for _, b in pairs]).translate(["a d", "c b"])
    ['d a', 'b c']
    """

    task = "translate"
    defaults: ClassVar[TrainConfig] = TrainConfig(
        hidden_size=512,
        dropout=0.3,
        steps=100_000,
        epochs=24.0,
        least_steps=500,
        batch_size=4096,
        batch_rows=1280,
        learning_rate=1.5e-3,
        weight_decay=1e-2,
        warmup=300,
        evaluate_every=250,
        patience=6,
        averaging=0.995,
        checkpoints=5,
        holdout=0.02,
        refit=False,
        unseen=0.0,
    )
    _parameters = (
        "source",
        "target",
        "vocabulary",
        "tokens",
        "shared",
        "lowercase",
        "merges",
        "smoothing",
        "attention",
        "input_feeding",
        "embedding",
        "encoder_layers",
        "turns",
        "seeds",
        "config",
    )

    def __init__(
        self,
        source: str = "source",
        target: str = "target",
        *,
        vocabulary: int = 6000,
        tokens: Literal["bpe", "unigram", "char", "word"] = "bpe",
        shared: bool = True,
        lowercase: bool = False,
        merges: float = 0.1,
        smoothing: float = 0.1,
        attention: Literal["general", "dot", "additive"] = "general",
        input_feeding: bool = False,
        embedding: int = 256,
        encoder_layers: int = 1,
        turns: int = 0,
        seeds: int = 1,
        config: TrainConfig | None = None,
    ) -> None:
        self.source = source
        self.target = target
        self.vocabulary = vocabulary
        self.tokens = tokens
        self.shared = shared
        self.lowercase = lowercase
        self.merges = merges
        self.smoothing = smoothing
        self.attention = attention
        self.input_feeding = input_feeding
        self.embedding = embedding
        self.encoder_layers = encoder_layers
        self.turns = turns
        self.seeds = seeds
        self.config = config

    def fit(
        self,
        X: Any,
        y: Sequence[str] | None = None,
        *,
        valid: Any = None,
        checkpoint: str | PathLike[str] | None = None,
        resume: bool = False,
        progress: Progress | None = None,
        source: str = "data",
    ) -> Self:
        """Learn from a table of pairs, or from lists of sources `X` and targets `y`; with `turns` also from a list of
        dialogues, each a list of turns, of which every one but the first is a reply to those before it.

        A random share of the pairs (`config.holdout`; pairs whose source occurs several times, and those of a dialogue,
        stay together) is held out for early stopping, after which `config.refit` (off by default) trains anew on all;
        or `valid` brings the pairs to hold out: a table, (X, y), or dialogues. Vocabularies are learned from the
        training part. Raises DataError for empty texts and lists of unequal length, CarouselError for parameters out of
        range.
        """
        self._check()
        settings = self.settings
        left, right = self.pairs(X, y, source)
        if valid is None:
            held = self._hold_out(self._owners(X, left), settings)
            parts = [[text for text, h in zip(side, held, strict=True) if h] for side in (left, right)]
            left, right = ([t for t, h in zip(side, held, strict=True) if not h] for side in (left, right))
        else:
            other = valid if isinstance(valid, tuple) else (valid, None)
            parts = list(self.pairs(other[0], other[1], "valid"))
        if not left:
            raise DataError(f"{source}: no pair is left to train on; give more pairs, or a smaller holdout.")

        def run(
            everything: bool, settings: TrainConfig, stage: dict[str, Any], resume: bool
        ) -> tuple[ModelConfig, Result, int]:
            sides = (left + parts[0], right + parts[1]) if everything else (left, right)
            config = self._config(self._vocabularies(*sides))
            training = Pairs.of(config.input, *sides, name=source)
            result = train_translator(
                config,
                training,
                Pairs.of(config.input, parts[0], parts[1], beside) if parts[0] and not everything else None,
                settings,
                smoothing=self.smoothing,
                merges=self.merges,
                checkpoint=place,
                resume=resume,
                stage=stage,
                progress=progress,
            )
            return config, result, len(training)

        place, beside = None if checkpoint is None else Path(checkpoint), source if valid is None else "valid"
        (config, result, count), stage = in_stages(
            run,
            lambda made: {"steps": made[1].steps, "metrics": made[1].metrics},
            settings,
            refit=settings.refit and valid is None and bool(parts[0]),
            checkpoint=place,
            resume=resume,
        )
        self.provenance_ = {
            "versions": versions(),
            "train": to_json(settings),
            "pairs": count,
            "merges": self.merges,
            "smoothing": self.smoothing,
            "steps": stage["steps"],
            "metrics": {"validation_nats_per_token": stage["metrics"]},
        }
        self._keep(config, result.weights)
        return self

    def translate(self, texts: Sequence[Text], *, beam: Beam = BEAM) -> list[str]:
        """The best translation of each text."""
        return [found[0][0] if found else "" for found in self.search(texts, beam=beam)]

    def reply(
        self, contexts: Sequence[Text], *, mutual: Mutual = MUTUAL, banned: Sequence[str] = (), seed: int = 0
    ) -> list[str]:
        """A reply to each context, which is a list of turns, or a text with one turn a line; see `replies.Mutual`."""
        if not isinstance(self._fitted().input, DialogueInput):
            raise CarouselError("this model does not know of turns; fit a Translator with turns=3 or so on dialogues.")
        return [
            found[0][0] if found else "" for found in self.search(contexts, mutual=mutual, banned=banned, seed=seed)
        ]

    def search(
        self,
        texts: Sequence[Text],
        *,
        beam: Beam = BEAM,
        banned: Sequence[str] = (),
        prefixes: Sequence[str] | None = None,
        sampling: Sampling | None = None,
        mutual: Mutual | None = None,
        seed: int = 0,
        longest: float = 2.0,
    ) -> list[list[tuple[str, float]]]:
        """Of each text the hypotheses of a beam search and their scores, best first; with `sampling` one that is drawn,
        with `mutual` many that are drawn and ranked anew.

        `banned` words may not appear, `prefixes` are the beginnings of the answers, `longest` tokens of an answer in
        units of its source's, ten more (and the prefix) being always allowed. An empty text has no answer. What is
        drawn depends on the text and the seed, not on the texts beside it. Raises CarouselError for options out of
        range, DataError for what is no text or too long to be read at once.
        """
        given: PairInput = self._fitted().input
        words, read = given.out, [self._as_text(text) for text in texts]
        self._check_search(read, prefixes, seed, longest)
        if mutual is not None and sampling is not None:
            raise CarouselError("mutual reranking draws as its own sampling says; leave the other one out.")
        ids = given.read(read)
        require_short(ids, lambda k: f"text {k + 1}: it has")
        forbidden = Banned(words, banned) if banned else None
        found: list[list[tuple[str, float]]] = [[] for _ in texts]
        asked = np.flatnonzero(ids.lengths > 0)
        starts = words.encode(prefixes if prefixes is not None else [""] * len(read))
        with torch.no_grad():
            for part in batches_by_tokens(ids.lengths[asked], ROWS):
                which = asked[part]
                how = _How(
                    TranslateDecoder(self.model_, framed(ids, which, end=True)),
                    [int(longest * ids.lengths[k]) + 10 + int(starts.lengths[k]) for k in which],
                    [[int(i) for i in starts[k]] for k in which],
                    forbidden,
                    [read[k] for k in which],
                    seed,
                )
                hypotheses = self._decode(how, beam, sampling) if mutual is None else self._ranked(how, mutual)
                for k, made in zip(which, hypotheses, strict=True):
                    answers = words.decode(f.tokens for f in made)
                    for text, one in zip(answers, made, strict=True):  # best first, each text once
                        found[k] += [] if any(text == known for known, _ in found[k]) else [(text, one.score)]
        return found

    @staticmethod
    def _check_search(texts: list[Any], prefixes: Sequence[str] | None, seed: int, longest: float) -> None:
        for k, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(f"text {k + 1}: expected a text, got {type(text).__name__}; complete or remove it.")
        if prefixes is not None and len(prefixes) != len(texts):
            raise CarouselError(f"there are {len(texts):,} texts and {len(prefixes):,} prefixes; give one for each.")
        if seed < 0:
            raise CarouselError(f"seed must be at least 0, got {seed}.")
        if not 0 < longest <= 1000:
            raise CarouselError(f"longest must be positive and at most 1000, got {longest}.")

    def predict(self, X: Any, *, n_best: int = 1, source: str = "data", **options: Any) -> Any:
        """A table: source, rank (1 is the best), score, prediction; of a table or a list of texts, in its order.

        `n_best` of the beam's hypotheses, or of the ranked candidates, are given; other options as in `search`. Raises
        DataError where the column of the sources is missing.
        """
        mutual = options.get("mutual")
        most = mutual.candidates if mutual else options.setdefault("beam", BEAM).size
        if not 1 <= n_best <= most:
            what = "the number of candidates" if mutual else "the beam's size"
            raise CarouselError(f"n_best must lie between 1 and {what} {most}, got {n_best}.")
        texts, backend = self._texts(X, source)
        try:
            searched = self.search(texts, **options)
        except DataError as error:
            raise DataError(f"{source}, {error}") from None
        rows = [
            (text, rank, score, made)
            for text, found in zip(texts, searched, strict=True)
            for rank, (made, score) in enumerate(found[:n_best] or [("", 0.0)], 1)
        ]
        names = {"source": nw.String(), "rank": nw.Int64(), "score": nw.Float64(), "prediction": nw.String()}
        return columns.table_of(rows, names, backend)

    def perplexity(self, X: Any, y: Sequence[str] | None = None) -> Perplexity:
        """How surprising the targets of pairs are, given their sources; ends of targets count as tokens."""
        given: PairInput = self._fitted().input
        found = Pairs.of(given, *self.pairs(X, y, "data"))
        total = -float(logprobs(self.model_, found.source_ids, found.target_ids).sum())
        return Perplexity.of(total, len(found.target_ids.values) + len(found), found.target)

    def score(self, X: Any, y: Sequence[str] | None = None) -> float:
        """Corpus BLEU (see `textmetrics.bleu`) of the best translations."""
        source, target = self.pairs(X, y, "data")
        return bleu(self.translate(source), target, lowercase=self._fitted().input.out.lowercase).score

    def _decode(self, how: _How, beam: Beam, sampling: Sampling | None) -> list[list[Found]]:
        if sampling is not None:
            return [[one] for one in how.drawn(sampling)]
        return beam_search(
            how.decoder, how.limits, beam, begin=BEGIN, end=END, prefixes=how.begun, forbidden=how.forbidden
        )

    def _ranked(self, how: _How, mutual: Mutual) -> list[list[Found]]:
        many = mutual.candidates
        drawn = how.drawn(mutual.sampling, many)
        offsets = np.concatenate([[0], np.cumsum([len(one.tokens) for one in drawn])]).astype(np.int64)
        made = Tokens(np.array([t for one in drawn for t in one.tokens], np.int64), offsets)
        alone = logprobs(self.model_, made, made, blank=True)
        return [mutual.ranked(drawn[k : k + many], alone[k : k + many]) for k in range(0, len(drawn), many)]

    def _check(self) -> None:
        self._check_seeds()
        for name, good in (
            ("merges", 0 <= self.merges < 1),
            ("smoothing", 0 <= self.smoothing < 1),
            ("vocabulary", self.vocabulary >= 1),
            ("turns", self.turns >= 0),
        ):
            if not good:
                raise CarouselError(f"{name} is out of range, got {getattr(self, name)}; correct the parameter.")
        if self.merges and self.tokens != "bpe":
            raise CarouselError(f"merges are of tokens='bpe', not of {self.tokens!r}; set merges=0.")

    def _config(self, given: PairInput) -> ModelConfig:
        settings = self.settings
        try:
            head = TranslateHead(
                self.embedding, self.attention, self.input_feeding, self.shared, self.encoder_layers, settings.dropout
            )
            stack = StackConfig(settings.hidden_size, settings.num_layers, settings.dropout, settings.cell)
            return ModelConfig("translate", given, stack, head, int(self.seeds))
        except ValueError as error:
            raise CarouselError(f"{error}; correct the parameter.") from None

    def _vocabularies(self, source: list[str], target: list[str]) -> PairInput:
        def learn(texts: list[str]) -> Vocabulary:
            try:
                return fit_vocabulary(texts, kind=self.tokens, size=self.vocabulary, lowercase=self.lowercase)
            except DataError:
                raise
            except ValueError as error:
                raise CarouselError(f"{error}; correct the vocabulary.") from None

        names = (self.source, self.target)
        own, other = (learn(source + target), None) if self.shared else (learn(source), learn(target))
        if self.turns:
            return DialogueInput(names, own, other, turns=self.turns)
        return PairInput(names, own, other)

    def pairs(self, X: Any, y: Sequence[str] | None, name: str) -> tuple[list[str], list[str]]:
        """Sources and targets of what `fit` takes; DataError, which calls it `name`, where a text is missing."""
        if y is None and self._are_dialogues(X):
            require_dialogues(X, name)
            return pairs_of(X, self.turns)
        if y is None:
            table = columns.as_frame(X, name)
            columns.require(table, (self.source, self.target), name)
            source, target = (columns.texts(table, column, name) for column in (self.source, self.target))
        else:
            source, target = [self._as_text(text) for text in X], list(y)
            if len(source) != len(target):
                raise DataError(f"{name}: {len(source):,} sources and {len(target):,} targets; give one for each.")
        for side, texts in ((self.source, source), (self.target, target)):
            for k, text in enumerate(texts):
                if not isinstance(text, str) or not text.strip():
                    raise DataError(
                        f"{name}, row {k + 1}, column {side!r}: there is no text; complete or remove the pair."
                    )
                if len(text) > LONGEST:
                    raise DataError(
                        f"{name}, row {k + 1}, column {side!r}: the text has {len(text):,} characters, at most"
                        f" {LONGEST:,} are taken at once; split it into sentences."
                    )
        return source, target

    def _texts(self, X: Any, name: str) -> tuple[list[str], Any]:
        if isinstance(X, list | tuple):
            return [self._as_text(text) for text in X], "polars"
        table = columns.as_frame(X, name)
        column = self._fitted().input.columns[0]
        return columns.texts(table, column, name), table.implementation

    def _are_dialogues(self, X: Any) -> bool:
        return bool(self.turns) and isinstance(X, list | tuple)

    def _as_text(self, text: Any) -> Any:
        return context_of(text) if self.turns and isinstance(text, list | tuple) else text

    def _owners(self, X: Any, source: list[str]) -> list[Any]:
        """What pairs of the same owner may not be divided by: their source, or their dialogue."""
        if not self._are_dialogues(X):
            return source
        return [k for k, turns in enumerate(X) for _ in turns[1:]]

    @staticmethod
    def _hold_out(owners: list[Any], settings: TrainConfig) -> NDArray[np.bool_]:
        known: dict[Any, int] = {}
        owner = np.array([known.setdefault(one, len(known)) for one in owners])
        rng = np.random.default_rng([settings.seed, 0x40])
        count = round(settings.holdout * (owner.max() + 1))
        return np.asarray(np.isin(owner, rng.permutation(owner.max() + 1)[:count]))

    @classmethod
    def _parameters_of(cls, config: ModelConfig, provenance: dict[str, Any]) -> dict[str, Any]:
        head, given = config.head, config.input
        return {
            "source": given.columns[0],
            "target": given.columns[1],
            "vocabulary": given.source.size,
            "tokens": given.source.kind,
            "shared": head.shared,
            "lowercase": given.source.lowercase,
            "merges": provenance.get("merges", 0.0),
            "smoothing": provenance.get("smoothing", 0.0),
            "attention": head.attention,
            "input_feeding": head.input_feeding,
            "embedding": head.embedding,
            "encoder_layers": head.encoder_layers,
            "turns": getattr(given, "turns", 0),
            "seeds": config.seeds,
        }


@dataclass(frozen=True)
class _How:
    """A batch of B texts that answers are made of: at most `limits` tokens, which go on from `begun`."""

    decoder: TranslateDecoder
    limits: list[int]
    begun: list[list[int]]
    forbidden: Banned | None
    texts: list[str]
    seed: int

    def drawn(self, sampling: Sampling, many: int = 1) -> list[Found]:
        """`many` answers to each text, one after another; the decoder is used up."""
        self.decoder.keep(torch.arange(len(self.limits)).repeat_interleave(many))
        return sample(
            self.decoder,
            [limit for limit in self.limits for _ in range(many)],
            sampling,
            begin=BEGIN,
            end=END,
            seed=self.seed,
            names=[f"{k} {text}" for text in self.texts for k in range(many)],
            close=True,
            prefixes=[prefix for prefix in self.begun for _ in range(many)],
            forbidden=self.forbidden,
        )
