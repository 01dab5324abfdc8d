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
from carousel.heads.slots import Chain, SlotHead, best_labels
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
LOSS_SHARE = 0.1  # of the loss, beside the share of what is wrong
EMBEDDED = 0.1  # spread of the embeddings' starting weights


class TextBatch(NamedTuple):
    seen: TokenBatch
    truth: Tensor  # [b] of texts or [N] of words
    weight: Tensor  # 0 where nothing is to be learned
    intent: Tensor  # [b] class numbers, -1 where there is none


class Sums(NamedTuple):
    """Over a batch: the outputs, the summed loss, how many are wrong, and of how many."""

    found: Tensor
    loss: Tensor
    wrong: float
    total: float


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
        words = self._words(model, batch)
        loss = words.loss / batch.weight.sum().clamp(min=1e-6)
        if self.config.head.intent is None:
            return loss
        whole = self._intents(words.found, batch)
        return loss + whole.loss / max(1, whole.total)

    def metric(self, model: nn.Module, device: torch.device) -> float | None:
        """What is held out: the share of wrong labels, of words with that of wrong intents beside it, and a tenth of
        the loss, which tells apart what is equally right. Of numbers the loss."""
        sums = np.zeros((2, 3))  # of words or texts, and of intents: loss, wrong, count
        with torch.no_grad():
            for which in sequence_chunks(self.examples_.channels, self.judged):
                batch = self._batch_of(which, None, None, device)
                first = self._words(model, batch, judged=True) if self.per_row else self._texts(model, batch)
                sums[0] += float(first.loss), first.wrong, first.total
                if self.per_row and self.config.head.intent is not None:
                    second = self._intents(first.found, batch)
                    sums[1] += float(second.loss), second.wrong, second.total
        if not sums[0, 2]:
            return None
        loss, wrong, _ = (sums / np.maximum(sums[:, 2:], 1e-6)).sum(0)
        return float(loss) if self.config.head.kind == "regression" else float(wrong + LOSS_SHARE * loss)

    def _texts(self, model: Any, batch: TextBatch) -> Sums:
        found = model(batch.seen).float()
        if self.config.head.kind == "regression":
            each, wrong = 0.5 * (found[:, 0] - batch.truth) ** 2, 0.0
        else:
            each = F.cross_entropy(found, batch.truth.long(), reduction="none")
            wrong = float(((found.argmax(1) != batch.truth.long()) * batch.weight).sum())
        return Sums(found, (each * batch.weight).sum(), wrong, float(batch.weight.sum()))

    def _words(self, model: Any, batch: TextBatch, judged: bool = False) -> Sums:
        """`judged`: how many are wrong is counted as well, those of a chain after they were read out together."""
        head: SlotHead = self.config.head
        found = model(batch.seen).float()
        logits, truth, chain = found[:, : head.outputs], batch.truth.long(), model.head.chain
        if chain is None:
            loss = (F.cross_entropy(logits, truth, reduction="none") * batch.weight).sum()
        else:
            loss = chain.nats(logits, truth, batch.weight > 0, batch.seen.words).sum()
        if not judged:
            return Sums(found, loss, 0.0, 0.0)
        made = logits.argmax(1)
        if chain is not None:
            scores = Chain(*(part.cpu().double().numpy() for part in (chain.begin, chain.follow, chain.end)))
            best = best_labels(logits.cpu().double().numpy(), scores, batch.seen.words.cpu().numpy())
            made = torch.from_numpy(best).to(truth.device)
        wrong = float(((made != truth) * batch.weight).sum())
        return Sums(found, loss, wrong, float(batch.weight.sum()))

    def _intents(self, found: Tensor, batch: TextBatch) -> Sums:
        whole, known = found[batch.seen.words[:-1], self.config.head.outputs :], batch.intent >= 0
        loss = F.cross_entropy(whole, batch.intent, ignore_index=-1, reduction="sum")
        wrong = float(((whole.argmax(1) != batch.intent) & known).sum())
        return Sums(whole, loss, wrong, float(known.sum()))


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
