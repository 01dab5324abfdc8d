"""The model of labelled texts: embeddings of tokens, the stack, and a head of texts or of words."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.config import ModelConfig
from carousel.heads.classify_net import ClassifyNet
from carousel.heads.slots_net import SlotNet
from carousel.inputs.text import MARKS
from carousel.inputs.tokens import SPELLINGS, TokenChannels, TokenInput
from carousel.lstm import LSTM
from carousel.ragged import Ragged

__all__ = ["Rates", "TokenBatch", "TokenModel", "token_batch"]


class TokenBatch(NamedTuple):
    """`TokenChannels` as tensors; `values` holds the ids of b texts."""

    values: Ragged  # [M] int64
    spelling: Tensor  # [M, S]
    first: Tensor  # [N]
    words: Tensor  # [b + 1]


class Rates(NamedTuple):
    """What is hidden in training: tokens, tokens everywhere in a batch, channels all through a text."""

    word: float = 0.0
    embedding: float = 0.0
    input: float = 0.0


def token_batch(channels: TokenChannels, device: torch.device | str = "cpu") -> TokenBatch:
    ids = Ragged(torch.from_numpy(channels.ids).to(device), torch.from_numpy(channels.offsets).to(device))
    return TokenBatch(
        ids, *(torch.from_numpy(part).to(device) for part in (channels.spelling, channels.first, channels.words))
    )


class TokenEmbeddings(nn.Module):
    """Ids [M] and spelling [M, S] -> channels [M, .]."""

    def __init__(self, given: TokenInput) -> None:
        super().__init__()
        self.unknown = MARKS if given.words.kind == "word" else None
        self.embed = nn.Embedding(given.words.size, given.width)
        self.spell = nn.Embedding(len(SPELLINGS) * given.buckets, given.spelling) if given.spelling else None
        self.rates = Rates()

    def forward(self, batch: TokenBatch) -> Tensor:
        ids, weight, rates = batch.values.values, self.embed.weight, self.rates if self.training else Rates()
        hidden = torch.rand(len(ids), device=ids.device) < rates.word if rates.word else None
        if hidden is not None and self.unknown is not None:
            ids = ids.masked_fill(hidden, self.unknown)
        if rates.embedding:
            kept = torch.rand(len(weight), 1, device=weight.device) >= rates.embedding
            weight = weight * (kept / (1 - rates.embedding))
        x = F.embedding(ids, weight)
        if hidden is not None and self.unknown is None:
            x = x.masked_fill(hidden[:, None], 0.0)
        if self.spell is not None:
            x = torch.cat([x, self.spell(batch.spelling).flatten(1)], 1)
        if rates.input:
            kept = torch.rand(len(batch.values), x.shape[1], device=x.device) >= rates.input
            x = x * (kept / (1 - rates.input))[batch.values.sequence]
        return x


class TokenModel(nn.Module):
    """One member: TokenBatch -> logits of texts [b, K] or of words [N, .]."""

    def __init__(self, config: ModelConfig, stack: LSTM) -> None:
        super().__init__()
        self.input = TokenEmbeddings(config.input)
        self.stack = stack
        sizes: Any = (config.stack.output_size, config.stack.directions, config.stack.dropout)
        self.labels_words = config.task == "tag"
        self.head: Any = (SlotNet if self.labels_words else ClassifyNet)(config.head, *sizes)

    def rows(self, batch: TokenBatch) -> Ragged:
        """The stack's outputs for each token, Ragged [M, D * P]."""
        found: Ragged = self.stack(batch.values.with_values(self.input(batch)))[0]
        return found

    def forward(self, batch: TokenBatch, every_row: bool = False) -> Any:
        """What the head makes of the rows; of texts with `every_row` a pair: that, and the outputs of each token."""
        rows = self.rows(batch)
        if self.labels_words:
            return self.head(rows, batch.first, batch.words)
        found = self.head(rows)
        return (found, self.head.output(self.head.dropout(rows.values))) if every_row else found
