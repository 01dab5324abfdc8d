"""Language models: an LSTM that says what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.heads.crossentropy import linear_cross_entropy
from carousel.heads.generate import GenerateHead
from carousel.lstm import LSTM

__all__ = ["GenerateDecoder", "GenerateNet", "Read", "locked"]

States = list[tuple[Tensor, Tensor]]  # h and c [1, B, H] of every layer


class Read(NamedTuple):
    """Of T steps and B sequences: logits of what follows, what they come from, the last layer's own output, and the
    last states; where the truth was given, the loss instead of the logits."""

    logits: Tensor  # [T, B, V], or [0]
    output: Tensor  # [T, B, E]
    raw: Tensor  # [T, B, H] before dropout
    states: States
    loss: Tensor | None = None  # [], the mean cross-entropy


class GenerateNet(nn.Module):
    """Tokens [T, B] -> what follows each; regularised as AWD-LSTM (Merity et al. 2018) where the head says so."""

    def __init__(self, head: GenerateHead, layers: Sequence[LSTM], *, vocabulary: int) -> None:
        super().__init__()
        self.head = head
        self.embedding = nn.Embedding(vocabulary, head.embedding)
        self.layers = nn.ModuleList(layers)
        state = layers[-1].proj_size or layers[-1].hidden_size
        self.mix = nn.Linear(state, head.embedding) if state != head.embedding else None
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        nn.init.normal_(self.embedding.weight, std=head.embedding**-0.5)

    def forward(self, tokens: Tensor, states: States | None = None, truth: Tensor | None = None) -> Read:
        head, training = self.head, self.training
        weight = self.embedding.weight
        if training and head.word_dropout:
            kept = weight.new_empty(len(weight), 1).bernoulli_(1 - head.word_dropout) / (1 - head.word_dropout)
            weight = weight * kept
        x = locked(F.embedding(tokens, weight), head.input_dropout, training)
        last: States = []
        for k, layer in enumerate(self.layers):
            out, state = layer(x, None if states is None else states[k])
            last.append(state)
            x = locked(out, head.layer_dropout, training) if k + 1 < len(self.layers) else out
        output = locked(x if self.mix is None else self.mix(x), head.dropout, training)
        table = self.embedding.weight
        if truth is None:
            return Read(F.linear(output, table, self.bias), output, x, last)
        loss = linear_cross_entropy(output.flatten(0, 1), table, self.bias, truth.flatten())
        return Read(output.new_empty(0), output, x, last, loss)

    def beginning(self, count: int) -> States:
        """The states before any token."""
        found: States = []
        for layer in self.layers:
            assert isinstance(layer, LSTM)
            size = layer.proj_size or layer.hidden_size
            found.append((self.bias.new_zeros(1, count, size), self.bias.new_zeros(1, count, layer.hidden_size)))
        return found


def locked(x: Tensor, share: float, training: bool) -> Tensor:
    """Dropout of x [T, B, .] with one mask for all steps (Gal & Ghahramani 2016)."""
    if not training or not share:
        return x
    return x * (x.new_empty(1, *x.shape[1:]).bernoulli_(1 - share) / (1 - share))


class GenerateDecoder:
    """What `search` asks for, from an ensemble that has read the prompts: the mean of its probabilities."""

    def __init__(self, nets: list[GenerateNet], prompts: Sequence[Sequence[int]]) -> None:
        """Prompts of at least one token; all but the last token of each are read here, the last one is the first to
        step from."""
        self.nets = nets
        self.states: list[States] = [_primed(net, prompts) for net in nets]

    def step(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        logs = []
        for k, net in enumerate(self.nets):
            read = net(tokens[None], self.states[k])
            self.states[k] = read.states
            logs.append(read.logits[0].float().log_softmax(1))
        if len(logs) == 1:
            return logs[0], None
        return torch.stack(logs).logsumexp(0) - torch.tensor(float(len(logs))).log(), None

    def keep(self, rows: Tensor) -> None:
        self.states = [[(h[:, rows], c[:, rows]) for h, c in states] for states in self.states]


def _primed(net: GenerateNet, prompts: Sequence[Sequence[int]]) -> States:
    """The states after all but the last token of each prompt; prompts of one length are read together."""
    found = net.beginning(len(prompts))
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    for length in lengths.unique().tolist():
        if length == 1:
            continue
        rows = (lengths == length).nonzero()[:, 0]
        tokens = torch.tensor([prompts[int(k)][:-1] for k in rows]).t()
        for (h, c), (own_h, own_c) in zip(found, net(tokens).states, strict=True):
            h[:, rows], c[:, rows] = own_h, own_c
    return found
