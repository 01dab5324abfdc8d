"""Training sequence to sequence on pairs of texts: which pairs make a batch, which loss, which metric."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from carousel.config import ModelConfig
from carousel.errors import DataError
from carousel.heads.translate_net import TranslateNet
from carousel.inputs.dialogues import DialogueInput
from carousel.inputs.text import BEGIN, END, PairInput, Tokens, batches_by_tokens
from carousel.model import build, initialise
from carousel.ragged import Ragged
from carousel.train import Progress, Result, TrainConfig, train

__all__ = ["Pairs", "TranslationTask", "framed", "logprobs", "require_short", "train_translator"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BLUR = (0.7, 1.4)  # of the lengths that sources are put in order by, so that batches are never the same
BLANK = 0.1  # of contexts are left out in training
ROWS = 1500  # tokens of targets that are measured at once
MOST = 10_000  # tokens of a text: attention looks from every place at every other one


@dataclass(frozen=True)
class Pairs:
    """Texts that belong together, and their ids without dropped merges."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    source_ids: Tokens
    target_ids: Tokens

    @classmethod
    def of(cls, given: PairInput, source: Sequence[str], target: Sequence[str], name: str = "data") -> Pairs:
        """Raises DataError, which calls the data `name`, for a text that is too long to be read at once."""
        sides = given.read(source), given.out.encode(target)
        require_short(sides[0], lambda k: f"{name}: the text that begins with {source[k][:20]!r} has")
        require_short(sides[1], lambda k: f"{name}: the text that begins with {target[k][:20]!r} has")
        return cls(tuple(source), tuple(target), *sides)

    def __len__(self) -> int:
        return len(self.source)


def require_short(ids: Tokens, said: Callable[[int], str]) -> None:
    """Raise DataError, which begins as `said` of its number, for the longest text with more than MOST tokens."""
    k = int(ids.lengths.argmax()) if len(ids) else 0
    if len(ids) and ids.lengths[k] > MOST:
        raise DataError(
            f"{said(k)} {ids.lengths[k]:,} tokens, at most {MOST:,} are read at once; split it into sentences."
        )


class Batch(NamedTuple):
    source: Ragged  # [N], each text with the mark of its end
    target: Ragged  # [M], each with the mark of its beginning
    truth: Tensor  # [M] what follows


class TranslationTask:
    """Batches of pairs alike in length, of so many tokens of the target; the loss is cross-entropy per token, with
    label smoothing (Szegedy et al. 2016). Of dialogues some contexts are left out, so that the model knows as well how
    likely a reply is whatever was said before (see `replies`)."""

    def __init__(
        self,
        model: ModelConfig,
        training: Pairs,
        held_out: Pairs | None,
        config: TrainConfig,
        *,
        smoothing: float,
        merges: float,
    ) -> None:
        self.config, self.training, self.settings = model, training, config
        self.smoothing, self.merges = smoothing, merges
        self.lengths, self.sources = training.target_ids.lengths + 1, training.source_ids.lengths + 1
        self.held_out: list[Batch] = []
        if held_out is not None:
            for which in batches_by_tokens(held_out.target_ids.lengths + 1, config.batch_rows):
                self.held_out.append(_batch(held_out.source_ids, held_out.target_ids, which))

    @property
    def examples(self) -> int:
        """Batches of an epoch times their size: tokens fill a batch before pairs do."""
        batches = max(len(self.training) / self.settings.batch_size, int(self.lengths.sum()) / self.settings.batch_rows)
        return int(np.ceil(batches)) * self.settings.batch_size

    def model(self) -> nn.Module:
        member: nn.Module = build(self.config)
        initialise(member.encoder)  # type: ignore[arg-type]
        initialise(member.decoder)  # type: ignore[arg-type]
        return member

    def rate(self, name: str) -> float:
        return 1.0

    def batch(self, rng: np.random.Generator, device: torch.device) -> Batch:
        """A function of the generator alone, so that a training that was interrupted goes on as it would have."""
        which = self._draw(rng)
        found = self.training
        given: PairInput = self.config.input
        blank = rng.random(len(which)) < BLANK if isinstance(given, DialogueInput) else None
        if not self.merges:
            return _batch(found.source_ids, found.target_ids, which, device, blank)
        source = given.read([found.source[k] for k in which], dropout=self.merges)
        target = given.out.encode([found.target[k] for k in which], dropout=self.merges)
        return _batch(source, target, np.arange(len(which)), device, blank)

    def _draw(self, rng: np.random.Generator) -> Ints:
        """Pairs of about one length, each as likely as every other one: those that end within a stretch of tokens that
        begins anywhere, so that it may reach beyond the shortest and the longest. Among targets of one length sources
        are about alike, since attention pads them."""
        order = np.lexsort((self.sources * rng.uniform(*BLUR, len(self.sources)), self.lengths))
        ends = np.cumsum(self.lengths[order])
        rows, most, total = self.settings.batch_rows, self.settings.batch_size, int(ends[-1])
        begin = int(rng.integers(1 - rows, total)) if total > rows else 0
        which = order[(ends > begin) & (ends <= begin + rows)]
        if len(which) > most:
            which = rng.choice(which, most, replace=False, shuffle=False)
        if not len(which):
            which = order[[min(int(np.searchsorted(ends, begin, side="right")), len(order) - 1)]]
        return np.asarray(which, np.int64)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        found: Tensor = model(batch.source, batch.target, batch.truth, self.smoothing)
        return found

    def metric(self, model: nn.Module, device: torch.device) -> float | None:
        """Cross-entropy per token of the held-out pairs, in nats, without smoothing."""
        total = count = 0.0
        with torch.no_grad():
            for batch in self.held_out:
                source, target, truth = batch.source.to(device), batch.target.to(device), batch.truth.to(device)
                total += float(model(source, target, truth)) * len(truth)
                count += len(truth)
        return total / count if count else None


def framed(
    tokens: Tokens, which: Ints, *, begin: bool = False, end: bool = False, blank: Bools | None = None
) -> Ragged:
    """The sequences `which`, with marks around them, as tensors; nothing but the marks of those that are `blank`."""
    lengths = tokens.lengths[which] if blank is None else np.where(blank, 0, tokens.lengths[which])
    offsets = np.concatenate([[0], np.cumsum(lengths + begin + end)]).astype(np.int64)
    values = np.empty(int(offsets[-1]), np.int64)
    if begin:
        values[offsets[:-1]] = BEGIN
    if end:
        values[offsets[1:] - 1] = END
    inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    values[np.repeat(offsets[:-1] + begin, lengths) + inside] = tokens.values[
        np.repeat(tokens.offsets[:-1][which], lengths) + inside
    ]
    return Ragged(torch.from_numpy(values), torch.from_numpy(offsets))


def _batch(
    source: Tokens, target: Tokens, which: Ints, device: torch.device | str = "cpu", blank: Bools | None = None
) -> Batch:
    return Batch(
        framed(source, which, end=True, blank=blank).to(device),
        framed(target, which, begin=True).to(device),
        framed(target, which, end=True).values.to(device),
    )


def logprobs(nets: Sequence[TranslateNet], source: Tokens, target: Tokens, *, blank: bool = False) -> Floats:
    """Of R pairs log p(target and its end | source), with `blank` whatever the source; of an ensemble the mean of the
    probabilities of every token."""
    found = np.zeros(len(source))
    lengths = target.lengths + 1
    without = np.full(len(found), blank)
    with torch.no_grad():
        for which in batches_by_tokens(lengths, ROWS):
            batch = _batch(source, target, which, blank=without[which])
            logs = [net(batch.source, batch.target).float().log_softmax(1) for net in nets]
            own = torch.stack([log.gather(1, batch.truth[:, None])[:, 0] for log in logs]).double()
            rows = (own.logsumexp(0) - math.log(len(nets))).numpy()
            found[which] = np.add.reduceat(rows, batch.target.offsets[:-1].numpy())
    return found


def train_translator(
    config: ModelConfig,
    training: Pairs,
    held_out: Pairs | None,
    settings: TrainConfig,
    *,
    smoothing: float,
    merges: float,
    checkpoint: Path | None = None,
    resume: bool = False,
    stage: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Train all members; the weights of the step with the least held-out loss are kept (averaged over steps)."""
    task = TranslationTask(config, training, held_out, settings, smoothing=smoothing, merges=merges)
    mark = hashlib.sha256(json.dumps([config.to_json(), smoothing, merges], sort_keys=True).encode())
    for pairs in (training, held_out):
        for texts in (pairs.source, pairs.target) if pairs else ():
            mark.update("\0".join(texts).encode())
    return train(
        task,
        settings,
        seeds=config.seeds,
        checkpoint=checkpoint,
        resume=resume,
        fingerprint=mark.hexdigest(),
        stage=stage,
        progress=progress,
    )
