"""`Generator`: a language model: how likely a text is, and what comes next."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import narwhals as nw
import numpy as np
import torch
from numpy.typing import NDArray

from carousel.config import ModelConfig, StackConfig, to_json
from carousel.errors import CarouselError, DataError
from carousel.estimator import Estimator, versions
from carousel.generation import Cache, Dynamic, Regularisation, nats, stream_of, train_generator
from carousel.heads.generate import GenerateHead
from carousel.heads.generate_net import GenerateDecoder
from carousel.heads.search import Sampling, sample
from carousel.inputs import columns
from carousel.inputs.text import END, TextInput, Vocabulary, fit_vocabulary
from carousel.stages import in_stages
from carousel.textmetrics import Perplexity
from carousel.train import Progress, Result, TrainConfig

__all__ = ["Generator", "Perplexity", "stream_of"]

Ints = NDArray[np.int64]

SAMPLING = Sampling()


class Generator(Estimator):
    """A language model: an LSTM that says what comes next, trained on one text or many.

    `text` the column of a table of texts; `vocabulary` the number of `tokens` (see `inputs.text.fit_vocabulary`),
    `lowercase` the text; `embedding` its size, tied to the output; shares that are dropped, all with one mask for a
    whole sequence, and of the regularisation of activations: see `heads.generate.GenerateHead` and
    `generation.Regularisation`; the recurrent matrix by `config.cell.weight_drop`. `seeds` members of the ensemble;
    `config` None: `Generator.defaults`, of which `batch_size` counts parallel streams and `batch_rows` tokens a step.

    >>> config = TrainConfig(hidden_size=32, steps=150, least_steps=150, batch_size=4, batch_rows=64, warmup=5,
    ...     learning_rate=0.02, averaging=0.8)
    >>> model = Generator(tokens="char", config=config).fit("the cat sat. " * 60)
    >>> model.sample(["the c"], length=8, sampling=Sampling(temperature=0))[0][0][0]
    'at sat. '
    """

    task = "generate"
    defaults: ClassVar[TrainConfig] = TrainConfig(
        hidden_size=512,
        steps=100_000,
        epochs=20.0,
        least_steps=300,
        batch_size=64,
        batch_rows=6400,
        learning_rate=4e-3,
        warmup=100,
        evaluate_every=200,
        patience=6,
        averaging=0.99,
        holdout=0.05,
        refit=False,
        unseen=0.0,
    )
    _parameters = (
        "text",
        "vocabulary",
        "tokens",
        "lowercase",
        "embedding",
        "dropout",
        "input_dropout",
        "layer_dropout",
        "word_dropout",
        "activation",
        "slowness",
        "seeds",
        "config",
    )

    def __init__(
        self,
        text: str = "text",
        *,
        vocabulary: int = 8000,
        tokens: Literal["bpe", "unigram", "char", "word"] = "bpe",
        lowercase: bool = False,
        embedding: int = 128,
        dropout: float = 0.1,
        input_dropout: float = 0.0,
        layer_dropout: float = 0.1,
        word_dropout: float = 0.0,
        activation: float = 0.0,
        slowness: float = 0.0,
        seeds: int = 1,
        config: TrainConfig | None = None,
    ) -> None:
        self.text = text
        self.vocabulary = vocabulary
        self.tokens = tokens
        self.lowercase = lowercase
        self.embedding = embedding
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.layer_dropout = layer_dropout
        self.word_dropout = word_dropout
        self.activation = activation
        self.slowness = slowness
        self.seeds = seeds
        self.config = config

    def fit(
        self,
        X: Any,
        *,
        valid: Any = None,
        checkpoint: str | PathLike[str] | None = None,
        resume: bool = False,
        progress: Progress | None = None,
        source: str = "data",
    ) -> Self:
        """Learn from one text, a list of texts, or a table with a column of them.

        Texts are read one after another, with a mark between them. The last share (`config.holdout`, of the
        characters of one text or of the texts) is held out for early stopping, after which `config.refit` (off by
        default) trains anew on all; or `valid` brings what to hold out. The vocabulary is learned from the training
        part. Raises DataError where there is no text or too little of it, CarouselError for parameters out of range.
        """
        self._check_seeds()
        settings = self.settings
        if settings.dropout:
            raise CarouselError(
                f"dropout of the training's choices is {settings.dropout}, which a language model does not use; give"
                " Generator its own dropout, input_dropout or layer_dropout."
            )
        whole = texts = self.texts(X, source)
        if valid is None:
            texts, held_out = _split(texts, settings.holdout)
        else:
            held_out = self.texts(valid, "valid")

        def run(
            everything: bool, settings: TrainConfig, stage: dict[str, Any], resume: bool
        ) -> tuple[ModelConfig, Result, dict[str, int]]:
            part = whole if everything else texts
            config, words = self._config(part)
            training = stream_of(words, part)
            judged = held_out and not everything
            result = train_generator(
                config,
                training,
                stream_of(words, held_out) if judged else np.zeros(0, np.int64),
                settings,
                Regularisation(self.activation, self.slowness),
                checkpoint=place,
                resume=resume,
                stage=stage,
                progress=progress,
            )
            return config, result, {"texts": len(part), "tokens": len(training)}

        place = None if checkpoint is None else Path(checkpoint)
        (config, result, counts), stage = in_stages(
            run,
            lambda made: {"steps": made[1].steps, "metrics": made[1].metrics},
            settings,
            refit=settings.refit and valid is None and bool(held_out),
            checkpoint=place,
            resume=resume,
        )
        self.provenance_ = {
            "versions": versions(),
            "train": to_json(settings),
            **counts,
            "activation": self.activation,
            "slowness": self.slowness,
            "steps": stage["steps"],
            "metrics": {"validation_nats_per_token": stage["metrics"]},
        }
        self._keep(config, result.weights)
        return self

    def _config(self, texts: list[str]) -> tuple[ModelConfig, Vocabulary]:
        settings = self.settings
        try:
            words = fit_vocabulary(texts, kind=self.tokens, size=self.vocabulary, lowercase=self.lowercase)
            head = GenerateHead(self.embedding, self.dropout, self.input_dropout, self.layer_dropout, self.word_dropout)
            stack = StackConfig(settings.hidden_size, settings.num_layers, 0.0, settings.cell)
            return ModelConfig("generate", TextInput(self.text, words), stack, head, int(self.seeds)), words
        except CarouselError:
            raise
        except ValueError as error:
            raise CarouselError(f"{error}; correct the parameter.") from None

    def perplexity(
        self, X: Any, *, cache: Cache | None = None, dynamic: Dynamic | None = None, source: str = "data"
    ) -> Perplexity:
        """How surprising one text, or texts one after another, are, read once from the beginning.

        Marks between texts count as tokens. With `dynamic` a copy of the model learns as it reads.
        """
        config, texts = self._fitted(), self.texts(X, source)
        tokens = torch.from_numpy(stream_of(config.input.words, texts))
        nets = [copy.deepcopy(net).requires_grad_() for net in self.model_] if dynamic else self.model_
        total = sum(float(part.double().sum()) for part in nats(nets, tokens, cache=cache, dynamic=dynamic))
        return Perplexity.of(total, len(tokens) - 1, texts)

    def score(self, X: Any) -> float:
        """Minus the nats per token: larger is better."""
        found = self.perplexity(X)
        return -found.nats / found.tokens

    def sample(
        self,
        prompts: Sequence[str] = ("",),
        *,
        length: int = 100,
        samples: int = 1,
        sampling: Sampling = SAMPLING,
        seed: int = 0,
    ) -> list[list[tuple[str, float]]]:
        """Of each prompt `samples` texts of at most `length` tokens that may follow it, and their log-probabilities.

        A text ends before the limit where the model says that it is over. Prompts may be longer than any training text.
        What is drawn depends on the prompt and the seed, not on the prompts beside it. Raises CarouselError for numbers
        out of range, DataError for a prompt that is no text.
        """
        words: Vocabulary = self._fitted().input.words
        if length < 1 or samples < 1:
            raise CarouselError(f"length and samples must be at least 1, got {length} and {samples}.")
        if seed < 0:
            raise CarouselError(f"seed must be at least 0, got {seed}.")
        for k, text in enumerate(prompts):
            if not isinstance(text, str):
                raise DataError(f"prompt {k + 1}: expected a text, got {type(text).__name__}; complete or remove it.")
        ids = words.encode(prompts)
        begun = [[END, *(int(i) for i in row)] for row in ids for _ in range(samples)]
        names = [f"{k} {text}" for text in prompts for k in range(samples)]
        with torch.no_grad():
            decoder = GenerateDecoder(self.model_, begun)
            limits = [length] * len(begun)
            drawn = sample(decoder, limits, sampling, begin=begun, end=END, seed=seed, names=names)
        whole = words.decode([*b, *f.tokens] for b, f in zip(begun, drawn, strict=True))
        given = words.decode(begun)
        made = [(text[len(start) :], f.logprob) for text, start, f in zip(whole, given, drawn, strict=True)]
        return [made[k : k + samples] for k in range(0, len(made), samples)]

    def predict(self, X: Any, *, source: str = "data", **options: Any) -> Any:
        """A table: prompt, sample (1, 2, ...), prediction, logprob; options as in `sample`."""
        backend: Any = "polars"
        if isinstance(X, str | list | tuple):
            prompts = [X] if isinstance(X, str) else list(X)
        else:
            table = columns.as_frame(X, source)
            prompts, backend = columns.texts(table, self._fitted().input.column, source), table.implementation
        try:
            found = self.sample(prompts, **options)
        except DataError as error:
            raise DataError(f"{source}, {error}") from None
        rows = [(p, k, *made) for p, many in zip(prompts, found, strict=True) for k, made in enumerate(many, 1)]
        names = {"prompt": nw.String(), "sample": nw.Int64(), "prediction": nw.String(), "logprob": nw.Float64()}
        return columns.table_of(rows, names, backend)

    def texts(self, X: Any, source: str) -> list[str]:
        """The texts of what `fit` takes; DataError, which calls it `source`, where one is missing."""
        if isinstance(X, str):
            found = [X]
        elif isinstance(X, list | tuple):
            found = list(X)
        else:
            fitted: ModelConfig | None = getattr(self, "config_", None)
            column = fitted.input.column if fitted else self.text
            found = columns.texts(columns.as_frame(X, source), column, source)
        for k, text in enumerate(found):
            if not isinstance(text, str) or not text:
                raise DataError(f"{source}, text {k + 1}: there is no text; complete or remove it.")
        return found

    @classmethod
    def _parameters_of(cls, config: ModelConfig, provenance: dict[str, Any]) -> dict[str, Any]:
        head, given = config.head, config.input
        return {
            "text": given.column,
            "vocabulary": given.words.size,
            "tokens": given.words.kind,
            "lowercase": given.words.lowercase,
            "embedding": head.embedding,
            "dropout": head.dropout,
            "input_dropout": head.input_dropout,
            "layer_dropout": head.layer_dropout,
            "word_dropout": head.word_dropout,
            "activation": provenance.get("activation", 0.0),
            "slowness": provenance.get("slowness", 0.0),
            "seeds": config.seeds,
        }


def _split(texts: list[str], share: float) -> tuple[list[str], list[str]]:
    if not share:
        return texts, []
    if len(texts) == 1:
        cut = len(texts[0]) - round(share * len(texts[0]))
        return [texts[0][:cut]], [texts[0][cut:]] if cut < len(texts[0]) else []
    cut = len(texts) - max(1, round(share * len(texts)))
    return texts[:cut], texts[cut:]
