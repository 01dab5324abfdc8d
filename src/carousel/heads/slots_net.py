"""The module of labels of words: logits, the chain that ties neighbours, and the label of the whole text."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from carousel.heads.classify_net import ClassifyNet, Output
from carousel.heads.slots import SlotHead
from carousel.ragged import Ragged

__all__ = ["ChainNet", "SlotNet"]

FORBIDDEN = -1e4  # a score that no path survives, in any precision


class SlotNet(Output):
    """Rows of the stack, one for each piece of a word -> logits [N, K] of the words; with an intent [N, K + L], where
    the L logits of a text stand beside each of its words.
    """

    def __init__(self, head: SlotHead, state: int, directions: int, dropout: float = 0.0) -> None:
        super().__init__(state, head.width, head.outputs)
        self.share = dropout
        self.chain = ChainNet(head.outputs) if head.crf else None
        self.intent = None if head.intent is None else ClassifyNet(head.intent, state, directions, dropout)

    def forward(self, rows: Ragged, first: Tensor, words: Tensor) -> Tensor:
        """`first` [N] the pieces that words begin with, `words` [B + 1] where the words of each text begin."""
        values = rows.values
        sequence = rows.sequence
        if self.training and self.share:  # the same channels all through a text (Gal & Ghahramani 2016)
            kept = torch.rand(len(rows), values.shape[1], device=values.device) >= self.share
            values = values * (kept / (1 - self.share)).to(values.dtype)[sequence]
        found = self.output(values[first])
        if self.intent is None:
            return found
        whole: Tensor = self.intent(rows)
        return torch.cat([found, whole[torch.repeat_interleave(words[1:] - words[:-1])]], 1)


class ChainNet(nn.Module):
    """A linear-chain conditional random field over ragged sequences (Lafferty et al. 2001)."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.begin = nn.Parameter(torch.zeros(labels))
        self.follow = nn.Parameter(torch.zeros(labels, labels))  # from, to
        self.end = nn.Parameter(torch.zeros(labels))

    def nats(self, logits: Tensor, truth: Tensor, known: Tensor, offsets: Tensor) -> Tensor:
        """Minus the log-likelihood [B] of the labels `truth` [N] given logits [N, K]; where `known` [N] is False any
        label will do, so that a text without any known costs nothing.
        """
        allowed = torch.zeros_like(logits).scatter(1, truth[:, None], 1.0) > 0
        held = torch.where(allowed | ~known[:, None], logits, logits.new_full((), FORBIDDEN))
        if bool(known.all()):
            return self._log_total(logits, offsets) - self._score(logits, truth, offsets)
        return self._log_total(logits, offsets) - self._log_total(held, offsets)

    def _score(self, logits: Tensor, truth: Tensor, offsets: Tensor) -> Tensor:
        """Of one sequence of labels each [B]."""
        count = len(offsets) - 1
        sequence = torch.repeat_interleave(offsets[1:] - offsets[:-1])
        own = logits.gather(1, truth[:, None])[:, 0]
        inside = sequence[1:] == sequence[:-1]
        steps = self.follow[truth[:-1], truth[1:]] * inside
        total = logits.new_zeros(count).index_add(0, sequence, own).index_add(0, sequence[1:], steps.to(own.dtype))
        return total + self.begin[truth[offsets[:-1]]] + self.end[truth[offsets[1:] - 1]]

    def _log_total(self, logits: Tensor, offsets: Tensor) -> Tensor:
        """log of the sum over all sequences of labels [B]; matrix products of exp(follow), scaled row by row."""
        lengths = offsets[1:] - offsets[:-1]
        order = torch.argsort(lengths, descending=True, stable=True)
        first, sizes = offsets[:-1][order], lengths[order]
        top = self.follow.max()
        weights = torch.exp(self.follow - top)
        score = self.begin + logits[first]
        finished: list[Tensor] = []
        steps = torch.arange(1, int(sizes[0]), device=logits.device)
        for t, count in enumerate(torch.searchsorted(-sizes, -steps, side="left").tolist(), 1):
            if count < len(score):
                finished.append(score[count:])
                score = score[:count]
            peak = score.max(1, keepdim=True).values
            mixed = torch.exp(score - peak) @ weights
            score = torch.log(mixed.clamp(min=torch.finfo(mixed.dtype).tiny)) + peak + top + logits[first[:count] + t]
        finished.append(score)
        ended = torch.cat(finished[::-1]) + self.end
        return torch.logsumexp(ended, 1)[torch.argsort(order)]
