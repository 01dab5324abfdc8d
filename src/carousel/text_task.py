"""Training models of labelled texts: batches by tokens, what is hidden in them, and losses of words and texts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.config import ModelConfig
from carousel.errors import CarouselError
from carousel.heads.slots import Chain, SlotHead
from carousel.inputs.corpus import Corpus
from carousel.inputs.tokens import TextConfig
from carousel.model import sequence_batch
from carousel.sequences import Examples, SequenceTask, sequence_chunks
from carousel.tokenmodel import Rates, TokenBatch
from carousel.train import TrainConfig

__all__ = ["TextTask", "chain_of", "cut_batches"]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]

POOLED = 16  # batches whose texts are sorted by length together
EMBEDDED = 0.1  # spread of the embeddings' starting weights


class TextBatch(NamedTuple):
    seen: TokenBatch
    truth: Tensor  # [b] of texts or [N] of words
    weight: Tensor  # 0 where nothing is to be learned
    intent: Tensor  # [b] class numbers, -1 where there is none


class TextTask(SequenceTask):
    """Batches of texts alike in length, until they are so many, or so many tokens.

    `corpus` holds the texts themselves, for merges that are dropped anew in each batch. Words are learned with the
    cross-entropy of their labels, or as a chain; an intent adds its own to the mean of the words.
    """

    def __init__(
        self,
        model: ModelConfig,
        examples: Examples,
        config: TrainConfig,
        *,
        corpus: Corpus,
        hidden: TextConfig,
        vectors: tuple[Singles, NDArray[np.bool_]] | None = None,
    ) -> None:
        self.config, self.examples_, self.settings = model, examples, config
        self.corpus, self.merges, self.vectors, self.frozen = corpus, hidden.merges, vectors, hidden.frozen
        self.rates = Rates(hidden.word_dropout, hidden.embedding_dropout, hidden.input_dropout)
        self.per_row = model.task == "tag"
        self.lengths = examples.channels.lengths[examples.training]
        self.judged = self._judged()
        if self.per_row and config.crop:
            raise CarouselError("crop is about texts with one label; leave it out where words have labels.")

    def model(self) -> nn.Module:
        member: Any = super().model()
        with torch.no_grad():
            self._start_embeddings(member.input)
        member.input.rates = self.rates
        return member  # type: ignore[no-any-return]

    def _start_embeddings(self, own: Any) -> None:
        nn.init.normal_(own.embed.weight, std=EMBEDDED)
        if own.spell is not None:
            nn.init.zeros_(own.spell.weight)
        if self.vectors is None:
            return
        found, seen = self.vectors
        spread = float(found[seen].std()) if seen.any() else EMBEDDED
        own.embed.weight.mul_(spread / EMBEDDED)
        own.embed.weight[torch.from_numpy(seen)] = torch.from_numpy(found[seen])
        own.embed.weight.requires_grad_(not self.frozen)

    def _prior(self) -> Singles:
        if self.config.head.kind != "label" or not self.per_row:
            return super()._prior()
        found, inside = self.examples_, np.zeros(len(self.examples_.channels.offsets) - 1, bool)
        channels: Any = found.channels
        inside[found.training] = True
        used = np.repeat(inside, np.diff(channels.words)) & np.isfinite(found.truth)
        count = np.bincount(found.truth[used].astype(np.int64), minlength=self.config.head.outputs) + 0.5
        return np.asarray(np.log(count / count.sum()), np.float32)

    def batch(self, rng: np.random.Generator, device: torch.device) -> TextBatch:  # type: ignore[override]
        which, start, stop = self._draw(rng)
        return self._batch_of(which, start, stop, device, merges=self.merges)

    def _draw(self, rng: np.random.Generator) -> tuple[Ints, Ints | None, Ints | None]:
        """Texts of the next batch: some batches' worth at random, cut into batches by length, and one of these, so that
        every text is as likely as any other."""
        settings, crop, count = self.settings, self.settings.crop, len(self.lengths)
        some = rng.choice(count, min(POOLED * settings.batch_size, count), replace=False)
        lengths = np.minimum(self.lengths[some], crop) if crop else self.lengths[some]
        order = np.lexsort((rng.random(len(some)), lengths))
        cuts = cut_batches(lengths[order], settings.batch_rows, settings.batch_size)
        chosen = int(rng.integers(0, len(cuts) - 1))
        picked = some[order[cuts[chosen] : cuts[chosen + 1]]]
        which, lengths = self.examples_.training[picked], self.lengths[picked]
        if not crop or lengths.max() <= crop:
            return which, None, None
        start = (rng.random(len(which)) * (np.maximum(lengths - crop, 0) + 1)).astype(np.int64)
        return which, start, np.minimum(start + crop, lengths)

    def _batch_of(
        self, which: Ints, start: Ints | None, stop: Ints | None, device: torch.device, merges: float = 0.0
    ) -> TextBatch:
        found = self.examples_
        seen, words = found.channels.select(which, start, stop)
        if merges:
            seen = self._read_anew(which, merges)
            if start is not None and stop is not None:
                stop = np.minimum(stop, seen.lengths)
                seen = seen.select(np.arange(len(which)), np.minimum(start, stop - 1), stop)[0]
        at = words if self.per_row else which
        truth, weight = found.truth[at], found.weight[at]
        known = np.isfinite(truth)
        whole = np.full(len(which), np.nan) if found.intent is None else found.intent[which]
        made: Any = sequence_batch(seen, device)
        return TextBatch(
            made,
            torch.from_numpy(np.where(known, truth, 0.0).astype(np.float32)).to(device),
            torch.from_numpy((weight * known).astype(np.float32)).to(device),
            torch.from_numpy(np.where(np.isfinite(whole), whole, -1).astype(np.int64)).to(device),
        )

    def _read_anew(self, which: Ints, merges: float) -> Any:
        """The texts with other merges left out."""
        words = [self.corpus.words(int(k)) for k in which]
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in words])]).astype(np.int64)
        return self.config.input.channels([word for part in words for word in part], offsets, merges)

    def loss(self, model: nn.Module, batch: TextBatch) -> Tensor:  # type: ignore[override]
        if not self.per_row:
            return super().loss(model, batch)  # type: ignore[arg-type]
        total, weight, whole, texts = self._sums(model, batch)
        found = total / weight.clamp(min=1e-6)
        return found + whole / max(1, texts) if self.config.head.intent is not None else found

    def metric(self, model: nn.Module, device: torch.device) -> float | None:
        """The mean loss of what is held out: of texts, or of words with that of the intents beside it."""
        sums = np.zeros(4)
        with torch.no_grad():
            for which in sequence_chunks(self.examples_.channels, self.judged):
                batch = self._batch_of(which, None, None, device)
                if self.per_row:
                    sums += [float(part) for part in self._sums(model, batch)]
                else:
                    sums[:2] += float(self._losses(model(batch.seen), batch)), float(batch.weight.sum())
        if not sums[1]:
            return None
        return float(sums[0] / sums[1] + (sums[2] / sums[3] if sums[3] else 0.0))

    def _losses(self, found: Tensor, batch: TextBatch) -> Tensor:
        """Of texts, summed."""
        found = found.float()
        if self.config.head.kind == "regression":
            each = 0.5 * (found[:, 0] - batch.truth) ** 2
        else:
            each = F.cross_entropy(found, batch.truth.long(), reduction="none")
        return (each * batch.weight).sum()

    def _sums(self, model: Any, batch: TextBatch) -> tuple[Tensor, Tensor, Tensor, int]:
        """Of words the summed loss and weight, of intents the summed loss and how many there are."""
        head: SlotHead = self.config.head
        found = model(batch.seen).float()
        logits, truth, words = found[:, : head.outputs], batch.truth.long(), batch.seen.words
        if head.crf:
            chain: Any = model.head.chain
            total = chain.nats(logits, truth, batch.weight > 0, words).sum()
        else:
            total = (F.cross_entropy(logits, truth, reduction="none") * batch.weight).sum()
        if head.intent is None:
            return total, batch.weight.sum(), total.new_zeros(()), 0
        whole = found[words[:-1], head.outputs :]
        known = batch.intent >= 0
        return (
            total,
            batch.weight.sum(),
            F.cross_entropy(whole, batch.intent, ignore_index=-1, reduction="sum"),
            int(known.sum()),
        )


def cut_batches(lengths: Ints, rows: int, texts: int) -> list[int]:
    """Where to cut texts of these lengths into batches of at most so many rows and texts, one longer text by itself.

    >>> cut_batches(np.array([1, 2, 2, 5, 9]), 5, 2)
    [0, 2, 3, 4, 5]
    """
    cuts, total = [0], 0
    for k, length in enumerate(lengths.tolist()):
        if k > cuts[-1] and (total + length > rows or k - cuts[-1] == texts):
            cuts.append(k)
            total = 0
        total += length
    return [*cuts, len(lengths)]


def chain_of(config: ModelConfig, weights: dict[str, NDArray[Any]]) -> Chain | None:
    """The scores of neighbouring labels, mean over the members; None where the head has none."""
    head: SlotHead = config.head
    if not head.crf:
        return None

    def mean(name: str) -> Floats:
        each = [weights[f"{k}.head.chain.{name}"] for k in range(config.seeds)]
        return np.asarray(np.mean(each, 0, dtype=np.float64))

    return Chain(mean("begin"), mean("follow"), mean("end"))
