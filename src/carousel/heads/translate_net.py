"""Sequence to sequence: a bidirectional encoder, attention over what it said, an LSTM decoder."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.heads.crossentropy import linear_cross_entropy
from carousel.heads.dropping import Dropout
from carousel.heads.translate import TranslateHead
from carousel.lstm import LSTM
from carousel.ragged import Ragged

__all__ = ["Attention", "Memory", "TranslateDecoder", "TranslateNet"]

State = tuple[Tensor, Tensor]

ROUND = 8


class Memory(NamedTuple):
    """What the encoder says of R sequences: values and keys [R, S, .], which places are real [R, S], and the decoder's
    first state [L, R, H]."""

    values: Tensor
    keys: Tensor
    real: Tensor
    state: State

    def rows(self, rows: Tensor) -> Memory:
        h, c = (part[:, rows] for part in self.state)
        return Memory(self.values[rows], self.keys[rows], self.real[rows], (h, c))


class Attention(nn.Module):
    """Weights over the places of a memory: dot or general (Luong et al. 2015), additive (Bahdanau et al. 2015)."""

    def __init__(self, kind: str, query: int, memory: int) -> None:
        super().__init__()
        self.kind = kind
        self.key = nn.Identity() if kind == "dot" else nn.Linear(memory, query, bias=False)
        self.query = nn.Linear(query, query) if kind == "additive" else None
        self.score = nn.Linear(query, 1, bias=False) if kind == "additive" else None

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Queries [R, T, H] -> context [R, T, M] and weights [R, T, S]."""
        if self.query is None or self.score is None:
            scores = queries @ memory.keys.transpose(1, 2)
        else:
            scores = self.score(torch.tanh(self.query(queries)[:, :, None] + memory.keys[:, None]))[..., 0]
        weights = scores.float().masked_fill(~memory.real[:, None], float("-inf")).softmax(-1)
        return weights.to(memory.values.dtype) @ memory.values, weights


class TranslateNet(nn.Module):
    """Sources and targets as ragged ids -> logits of every target row.

    Without input feeding (Luong et al. 2015) the whole target runs through the decoder at once. Input and output
    embeddings of the target are tied (Press & Wolf 2017), and the source's too where both share a vocabulary.
    """

    def __init__(self, head: TranslateHead, encoder: LSTM, decoder: LSTM, *, source: int, target: int) -> None:
        super().__init__()
        size, memory, hidden = head.embedding, 2 * encoder.hidden_size, decoder.hidden_size
        self.head = head
        self.target = nn.Embedding(target, size)
        self.source = None if head.shared else nn.Embedding(source, size)
        self.encoder, self.decoder = encoder, decoder
        self.bridge_h = nn.Linear(memory, decoder.num_layers * hidden)
        self.bridge_c = nn.Linear(memory, decoder.num_layers * hidden)
        self.attention = Attention(head.attention, hidden, memory)
        self.mix = nn.Linear(hidden + memory, size)
        self.bias = nn.Parameter(torch.zeros(target))
        self.dropout = Dropout(head.dropout)
        for table in (self.source, self.target):
            if table is not None:
                nn.init.normal_(table.weight, std=size**-0.5)

    def encode(self, source: Ragged) -> Memory:
        """Ids [N] of R sequences, none of them empty."""
        table = self.target if self.source is None else self.source
        out, (h, c) = self.encoder(source.with_values(self.dropout(table(source.values))))
        said = self.dropout(out.values)
        values = _padded(out.with_values(said))
        keys = values if self.head.attention == "dot" else _padded(out.with_values(self.attention.key(said)))
        lengths = source.lengths
        real = torch.arange(values.shape[1], device=values.device) < lengths[:, None]
        last_h, last_c = (torch.cat([part[-2], part[-1]], 1) for part in (h, c))
        shape = (len(source), self.decoder.num_layers, -1)
        state = (
            torch.tanh(self.bridge_h(last_h)).view(shape).transpose(0, 1).contiguous(),
            self.bridge_c(last_c).view(shape).transpose(0, 1).contiguous(),
        )
        return Memory(values, keys, real, state)

    def forward(self, source: Ragged, target: Ragged, truth: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
        """Logits [N, V] of what follows every row of `target` (ids that begin with the mark of the beginning); given
        the truth [N], the mean cross-entropy instead, which never holds them all."""
        memory = self.encode(source)
        embedded = target.with_values(self.dropout(self.target(target.values)))
        mixed = self._fed(embedded, memory) if self.head.input_feeding else self._whole(embedded, memory)
        if truth is None:
            return self.logits(mixed)
        return linear_cross_entropy(mixed, self.target.weight, self.bias, truth, smoothing)

    def _whole(self, embedded: Ragged, memory: Memory) -> Tensor:
        out, _ = self.decoder(embedded, memory.state)
        context, _ = self.attention(_padded(out), memory)
        return self._mix(out.values, context[embedded.sequence, embedded.position])

    def _fed(self, embedded: Ragged, memory: Memory) -> Tensor:
        padded, state = embedded.to_padded(batch_first=True), memory.state
        fed, made = padded.new_zeros(len(embedded), self.head.embedding), []
        for t in range(padded.shape[1]):
            fed, state, _ = self.advance(padded[:, t], fed, state, memory)
            made.append(fed)
        return torch.stack(made, 1)[embedded.sequence, embedded.position]

    def advance(self, embedded: Tensor, fed: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor]:
        """One step of R rows: the mixed output [R, E], the state and the attention [R, S]; every source of
        the memory has as many rows, side by side."""
        x = torch.cat([embedded, fed], 1) if self.head.input_feeding else embedded
        out, state = self.decoder(x[None], state)
        context, weights = self.attention(out[0].view(len(memory.real), -1, out.shape[2]), memory)
        return self._mix(out[0], context.flatten(0, 1)), state, weights.flatten(0, 1)

    def _mix(self, out: Tensor, context: Tensor) -> Tensor:
        mixed: Tensor = self.dropout(torch.tanh(self.mix(torch.cat([out, context.to(out.dtype)], 1))))
        return mixed

    def logits(self, mixed: Tensor) -> Tensor:
        found: Tensor = F.linear(mixed, self.target.weight, self.bias)
        return found


def _padded(ragged: Ragged) -> Tensor:
    """[R, S, .], S rounded up: products of sizes that come again need no new code."""
    padded: Tensor = ragged.to_padded(batch_first=True, total_length=-(-ragged.longest // ROUND) * ROUND)
    return padded


class TranslateDecoder:
    """What `search` asks for, from an ensemble of nets that have read R sources: the mean of their probabilities."""

    def __init__(self, nets: list[TranslateNet], source: Ragged) -> None:
        self.nets = nets
        self.memories = [net.encode(source) for net in nets]  # of every source once, however many rows it has
        self.owner = torch.arange(len(source))  # the source of each row
        self.states = [memory.state for memory in self.memories]
        self.fed = [
            m.values.new_zeros(len(source), net.head.embedding) for net, m in zip(nets, self.memories, strict=True)
        ]

    def step(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        logs, attended = [], []
        for k, net in enumerate(self.nets):
            memory = self.memories[k]
            self.fed[k], self.states[k], weights = net.advance(net.target(tokens), self.fed[k], self.states[k], memory)
            logs.append(net.logits(self.fed[k]).float().log_softmax(1))
            attended.append(weights)
        attention = torch.stack(attended).mean(0).masked_fill(~self.memories[0].real[self.owner], 1.0)
        if len(logs) == 1:
            return logs[0], attention
        return torch.stack(logs).logsumexp(0) - torch.tensor(float(len(logs))).log(), attention

    def keep(self, rows: Tensor) -> None:
        owner, counts = self.owner[rows].unique_consecutive(return_counts=True)
        if len(counts) and not bool((counts == counts[0]).all()):  # some sources have more rows than others
            owner, counts = self.owner[rows], torch.ones_like(rows)
        if len(owner) != len(self.memories[0].real) or not torch.equal(owner, torch.arange(len(owner))):
            self.memories = [memory.rows(owner) for memory in self.memories]
        self.owner = torch.arange(len(owner)).repeat_interleave(counts)
        self.states = [(h[:, rows], c[:, rows]) for h, c in self.states]
        self.fed = [fed[rows] for fed in self.fed]
