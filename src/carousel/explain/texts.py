"""Models of text as subjects: labels of texts and words, language models, translators. Rows are tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.config import ModelConfig
from carousel.errors import DataError
from carousel.explain.sequences import loss_words, pools, read_labelled
from carousel.explain.subject import MOST_SEQUENCES, Channel, Pace, Subject, affordable, chosen, log_odds
from carousel.generation import GenerationTask, Regularisation, stream_of
from carousel.inputs.tokens import TokenChannels
from carousel.model import sequence_batch
from carousel.sequences import Examples
from carousel.train import Task, TrainConfig
from carousel.translation import Pairs, TranslationTask, framed

__all__ = [
    "LabelSubject",
    "LanguageSubject",
    "TranslateSubject",
    "generate_subject",
    "token_subject",
    "translate_subject",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PIECE = 192  # tokens of a language model's text that are looked at together
MOST_TOKENS = 400  # of a labelled text


@dataclass(kw_only=True)
class LabelSubject(Subject):
    """The answer is the log odds of the predicted label (of a text, or of its last word), or the number."""

    config: ModelConfig
    seen: TokenChannels
    truth: Floats  # [B], NaN where it is not known
    task_: Any  # settings -> the training task, or why there is none
    predicted: Tensor = field(init=False)  # [B] class numbers that the answer is about

    def __post_init__(self) -> None:
        with torch.no_grad():
            self.predicted = self._outputs(self.everything(), self.net).argmax(1)

    def run(self, which: Tensor, net: nn.Module | None = None) -> Tensor:
        return self._answer(self._outputs(which, net or self.net), which)

    def _answer(self, made: Tensor, which: Tensor) -> Tensor:
        return log_odds(made, self.predicted[which]) if self.config.head.kind == "label" else made[:, 0]

    def loss(self, which: Tensor, net: nn.Module) -> Tensor:
        truth = torch.from_numpy(self.truth)[which].float()
        known = torch.isfinite(truth)
        if not bool(known.any()):
            return -self._answer(self._ending(which, net), which).sum()
        made, truth = self._ending(which, net)[known], truth[known]
        if self.config.head.kind == "label":
            return F.cross_entropy(made, truth.long(), reduction="sum")
        return 0.5 * (made[:, 0] - truth).square().sum()

    def judged(self) -> Ints:
        known = np.flatnonzero(np.isfinite(self.truth))
        return known if len(known) else super().judged()

    def training(self, settings: TrainConfig) -> Task | str:
        found: Task | str = self.task_(settings)
        return found

    def _ending(self, which: Tensor, net: nn.Module) -> Tensor:
        """What the head makes of the last token; by itself where it pools all of them, since lags count from there."""
        if not pools(self.config):
            return self._outputs(which, net)
        batch: Any = sequence_batch(self.seen.select(which.numpy())[0])
        made: Tensor = net(batch, every_row=True)[1][batch.values.offsets[1:] - 1]
        return made

    def _outputs(self, which: Tensor, net: nn.Module) -> Tensor:
        batch: Any = sequence_batch(self.seen.select(which.numpy())[0])
        made: Tensor = net(batch)
        if self.task == "classify":
            return made
        return made[batch.words[1:] - 1, : self.config.head.outputs]


def token_subject(
    estimator: Any, frame: Any, *, source: str, wanted: tuple[str, ...] = (), member: int = 0, y: Any = None
) -> LabelSubject:
    """The texts of a table or list, of long ones the last tokens (of whole texts with one label)."""
    config: ModelConfig = estimator.config_
    corpus, truth = read_labelled(estimator, frame, source, y)
    everything = corpus.made_channels(config.input)
    filled = np.flatnonzero(everything.lengths > 0)
    if not len(filled):
        raise DataError(f"{source}: no text has a token that the model can read; give texts.")
    which, notes = chosen([corpus.ids[k] for k in filled], wanted, source)
    which = filled[which]
    stack = config.stack
    units = stack.hidden_size * stack.num_layers * stack.directions
    which = which[affordable(which, np.minimum(everything.lengths[which], MOST_TOKENS), units, notes)]
    lengths = everything.lengths[which]
    start = None
    if config.task == "classify" and (lengths > MOST_TOKENS).any():
        start = np.maximum(lengths - MOST_TOKENS, 0)
        notes.append(f"Of texts longer than {MOST_TOKENS} tokens only the last {MOST_TOKENS} were looked at.")
    seen, _ = everything.select(which, start, None if start is None else lengths)
    known = np.full(len(which), np.nan)
    task: Any = lambda settings: "the data have no labels to train on"  # noqa: E731
    if truth is not None:
        head = config.head
        scaled = (truth - head.mean) / head.scale if head.kind == "regression" else truth
        known = scaled[which] if config.task == "classify" else scaled[everything.words[1:][which] - 1]
        every = np.arange(len(everything.offsets) - 1)
        examples = Examples(everything, scaled, np.ones(len(scaled)), every, every[:0])
        if not getattr(head, "intent", None):
            make = estimator._task(corpus)
            task = lambda settings: make(config, examples, settings)  # noqa: E731
        else:
            task = lambda settings: "its labels of words and of whole texts are learned together"  # noqa: E731
    size, width, names = config.input.step_size, config.input.width, config.input.words.tokens
    return LabelSubject(
        title=source,
        task=config.task,
        net=estimator.model_[member],
        lengths=seen.lengths,
        names=[f"text {corpus.ids[k]}" for k in which],
        channels=[Channel(f"[{k}]", "token" if k < width else "spelling") for k in range(size)],
        answer="the log odds of the predicted label"
        + (" of the last word" if config.task == "tag" else "")
        + (", before the chain weighs labels against each other" if getattr(config.head, "crf", False) else ""),
        pace=Pace(),
        tokens=[names[k] for k in seen.ids],
        notes=notes,
        member=member,
        own_steps=_own_steps(estimator, member),
        config=config,
        seen=seen,
        truth=known,
        task_=task,
        loss_name=loss_words(config, None if truth is None else known),
    )


@dataclass(kw_only=True)
class LanguageSubject(Subject):
    """The answer is the log probability of the token that follows a piece of text, read with an empty memory."""

    estimator: Any
    pieces: Tensor  # [B, T]
    follows: Tensor  # [B]
    stream: Ints

    def run(self, which: Tensor, net: nn.Module | None = None) -> Tensor:
        read: Any = (net or self.net)(self.pieces[which].t())
        found: Tensor = read.logits[-1].log_softmax(1).gather(1, self.follows[which][:, None])[:, 0]
        return found

    def loss(self, which: Tensor, net: nn.Module) -> Tensor:
        return -self.run(which, net).sum()

    def training(self, settings: TrainConfig) -> Task | str:
        config = self.estimator.config_
        if (len(self.stream) - 1) // settings.batch_size < 2:
            return f"the text has {len(self.stream):,} tokens, too few for {settings.batch_size} streams"
        return GenerationTask(config, self.stream, self.stream[:0], settings, Regularisation())


def generate_subject(
    estimator: Any, frame: Any, *, source: str, wanted: tuple[str, ...] = (), member: int = 0
) -> LanguageSubject:
    """Pieces of a text, or of texts one after another, spread evenly over it."""
    config: ModelConfig = estimator.config_
    words, names = config.input.words, config.input.words.tokens
    texts = estimator.texts(frame, source)
    picked, _ = chosen(list(range(1, len(texts) + 1)), wanted, source, len(texts))
    stream = stream_of(words, [texts[int(k)] for k in picked])
    size = min(PIECE, len(stream) - 2)
    if size < 2:
        raise DataError(f"{source}: the text has {len(stream)} tokens, too few to look at; give more of it.")
    room = len(stream) - 1 - size
    starts = np.unique(np.linspace(0, room, min(MOST_SEQUENCES, 1 + room // size)).astype(np.int64))
    pieces = stream[starts[:, None] + np.arange(size)]
    notes = (
        []
        if len(starts) * size >= len(stream) - size
        else [
            f"{len(starts)} pieces of {size} tokens, evenly among all {len(stream):,}, were looked at, each with an"
            " empty memory."
        ]
    )
    return LanguageSubject(
        title=source,
        task="generate",
        net=estimator.model_[member],
        lengths=np.full(len(starts), size, np.int64),
        names=[f"tokens from {k + 1:,} on" for k in starts.tolist()],
        channels=[Channel(f"[{k}]", "token") for k in range(config.head.embedding)],
        answer="the log probability of the token that follows",
        pace=Pace(),
        tokens=[names[k] for k in pieces.reshape(-1)],
        notes=notes,
        member=member,
        own_steps=_own_steps(estimator, member),
        estimator=estimator,
        pieces=torch.from_numpy(pieces),
        follows=torch.from_numpy(stream[starts + size]),
        stream=stream,
    )


@dataclass(kw_only=True)
class TranslateSubject(Subject):
    """The answer is the log probability of the given target, mean over its tokens; rows are the source's tokens."""

    estimator: Any
    pairs: Pairs
    picked: Ints  # [B] of the pairs

    def run(self, which: Tensor, net: nn.Module | None = None) -> Tensor:
        at = self.picked[which.numpy()]
        before, after = framed(self.pairs.target_ids, at, begin=True), framed(self.pairs.target_ids, at, end=True)
        logits = (net or self.net)(framed(self.pairs.source_ids, at, end=True), before)
        each = logits.float().log_softmax(1).gather(1, after.values[:, None])[:, 0]
        total = each.new_zeros(len(at)).index_add(0, before.sequence, each)
        found: Tensor = total / before.lengths
        return found

    def loss(self, which: Tensor, net: nn.Module) -> Tensor:
        return -self.run(which, net).sum()

    def training(self, settings: TrainConfig) -> Task | str:
        return TranslationTask(self.estimator.config_, self.pairs, None, settings, smoothing=0.0, merges=0.0)


def translate_subject(
    estimator: Any, frame: Any, *, source: str, wanted: tuple[str, ...] = (), member: int = 0
) -> TranslateSubject:
    """Pairs of a table with the columns of sources and targets."""
    config: ModelConfig = estimator.config_
    left, right = estimator.pairs(frame, None, source)
    which, notes = chosen(list(range(1, len(left) + 1)), wanted, source)
    pairs = Pairs.of(config.input, left, right)
    ids = framed(pairs.source_ids, which, end=True)
    lengths = np.asarray(ids.lengths, np.int64)
    names = config.input.source.tokens
    return TranslateSubject(
        title=source,
        task="translate",
        net=estimator.model_[member],
        lengths=lengths,
        names=[f"pair {k + 1}" for k in which.tolist()],
        channels=[Channel(f"[{k}]", "token") for k in range(config.head.embedding)],
        answer="the log probability of the given target, mean over its tokens",
        pace=Pace(),
        tokens=[names[k] for k in ids.values.tolist()],
        notes=notes,
        member=member,
        own_steps=_own_steps(estimator, member),
        estimator=estimator,
        pairs=pairs,
        picked=which,
    )


def _own_steps(estimator: Any, member: int) -> int:
    steps = estimator.provenance_.get("steps") or [0]
    return int(steps[min(member, len(steps) - 1)])
