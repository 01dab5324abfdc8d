"""A model: one input, one LSTM stack, one head, built from one frozen ModelConfig."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from carousel.config import ModelConfig, StackConfig
from carousel.framenet import FrameEncoder
from carousel.heads import forecast_loss
from carousel.heads.classify_net import ClassifyNet
from carousel.heads.detect_net import detect_net
from carousel.heads.forecast_net import ForecastNet, pinball
from carousel.heads.generate_net import GenerateNet
from carousel.heads.tag_net import TagNet
from carousel.heads.translate_net import TranslateNet
from carousel.inputs.fitted import Column, TableInput
from carousel.inputs.frames import FramesInput
from carousel.inputs.sequence import Channels, SequenceInput
from carousel.inputs.tokens import TokenChannels, TokenInput
from carousel.inputs.windows import Windows
from carousel.lstm import LSTM
from carousel.nextframe import NextFrame
from carousel.ragged import Ragged
from carousel.tokenmodel import TokenBatch, TokenModel, token_batch

__all__ = [
    "Batch",
    "ForecastModel",
    "SequenceBatch",
    "SequenceModel",
    "build",
    "initialise",
    "members_from",
    "sequence_batch",
    "to_batch",
]

Weights = dict[str, NDArray[Any]]


class Batch(NamedTuple):
    """`Windows` as tensors; level and spread stay behind, in float64."""

    steps: Tensor
    step_codes: Tensor
    ahead: Tensor
    ahead_codes: Tensor
    static: Tensor
    static_codes: Tensor
    base: Tensor
    truth: Tensor
    elapsed: Tensor
    linear: Tensor


def to_batch(windows: Windows, device: torch.device | str = "cpu") -> Batch:
    return Batch(**{name: torch.from_numpy(getattr(windows, name)).to(device) for name in Batch._fields})


class Embeddings(nn.Module):
    """One table for each categorical column; numbers pass by."""

    def __init__(self, config: TableInput) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Embedding(c.codes, c.width) for c in config.embedded)
        order = [c.name for c in config.embedded]

        def tables(columns: tuple[Column, ...]) -> list[int]:
            return [order.index(c.name) for c in columns if c.kind == "category"]

        self.steps = tables(config.features + config.known)
        self.ahead = tables(config.known)
        self.static = tables(config.static)

    def forward(self, numbers: Tensor, codes: Tensor, which: list[int]) -> Tensor:
        """numbers [..., F] beside the embedded codes [..., number of tables]."""
        if not which:
            return numbers
        return torch.cat([numbers, *(self.embed[t](codes[..., k]) for k, t in enumerate(which))], -1)


class ForecastModel(nn.Module):
    """One member: Batch -> quantiles [n, H, K, Q] in the windows' scaled units."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        table = config.input
        self.input = Embeddings(table)
        self.stack = _stack(config.stack, table.step_size)
        self.head = ForecastNet(
            config.head,
            state=config.stack.output_size,
            static=table.static_size,
            ahead=table.ahead_size,
            context=table.context,
            horizon=table.horizon,
            targets=table.targets,
            bases=table.bases,
        )
        self.dropout = nn.Dropout(config.stack.dropout)

    def forward(self, batch: Batch) -> Tensor:
        found: Tensor = self.head(*self._read(batch))
        return found

    def loss(self, batch: Batch, share: Tensor, quantiles: Tensor) -> Tensor:
        """The mean quantile loss of the windows' truth, each window and target counted as `share` [n, K] says."""
        read = self._read(batch)
        if forecast_loss.computes(self.head, read[0]):
            return forecast_loss.loss(self.head, *read, batch.truth, share)
        return pinball(self.head(*read), batch.truth, share, quantiles)

    def _read(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the head is given: the stack's state at the origin, the steps ahead, the context, naive forecasts."""
        x = self.input(batch.steps, batch.step_codes, self.input.steps)
        x = x.transpose(0, 1).contiguous()  # the core reads and writes whole steps at once
        elapsed = batch.elapsed.t() if self.stack.spec.decay else None
        _, (h, _) = self.stack(x, elapsed=elapsed)
        static = self.input(batch.static, batch.static_codes, self.input.static)
        state = torch.cat([self.dropout(h[-1]), static], -1)
        ahead = self.input(batch.ahead, batch.ahead_codes, self.input.ahead)
        return state, ahead, batch.linear, batch.base


class SequenceBatch(NamedTuple):
    """`Channels` as tensors: rows of b sequences, one after another."""

    values: Ragged  # [N, F]
    codes: Tensor  # [N, E]
    elapsed: Tensor  # [N]
    static: Tensor  # [b, S]
    static_codes: Tensor  # [b, ES]


@overload
def sequence_batch(channels: Channels, device: torch.device | str = "cpu") -> SequenceBatch: ...


@overload
def sequence_batch(channels: TokenChannels, device: torch.device | str = "cpu") -> TokenBatch: ...


def sequence_batch(
    channels: Channels | TokenChannels, device: torch.device | str = "cpu"
) -> SequenceBatch | TokenBatch:
    if isinstance(channels, TokenChannels):
        return token_batch(channels, device)
    rows = Ragged(torch.from_numpy(channels.values).to(device), torch.from_numpy(channels.offsets).to(device))
    rest = (channels.codes, channels.elapsed, channels.static, channels.static_codes)
    return SequenceBatch(rows, *(torch.from_numpy(part).to(device) for part in rest))


class SequenceEmbeddings(nn.Module):
    """One table for each categorical column: those of rows, then the static ones."""

    def __init__(self, config: SequenceInput) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Embedding(c.codes, c.width) for c in config.embedded)
        self.steps = len(config.categories)

    def forward(self, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
        """Channels [N, .] of the rows and [b, .] of the static columns."""
        own, fixed = self.embed[: self.steps], self.embed[self.steps :]
        rows = [batch.values.values, *(table(batch.codes[:, k]) for k, table in enumerate(own))]
        static = [batch.static, *(table(batch.static_codes[:, k]) for k, table in enumerate(fixed))]
        return torch.cat(rows, 1), torch.cat(static, 1)


class SequenceModel(nn.Module):
    """One member: SequenceBatch -> what its head makes of the stack's rows; whole sequences, or pieces with a state."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        table, stack = config.input, config.stack
        self.input = FrameEncoder(table) if isinstance(table, FramesInput) else SequenceEmbeddings(table)
        self.static = nn.Linear(table.static_size, stack.state_size) if table.static_size else None
        self.stack = _stack(stack, table.step_size)
        self.head = HEADS[config.task](config.head, stack.output_size, stack.directions, stack.dropout)

    def rows(
        self, batch: SequenceBatch, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Ragged, tuple[Tensor, Tensor]]:
        """The stack's outputs, Ragged [N, D * P], and its last state; `state` None: that of a sequence's beginning."""
        x, static = self.input(batch)
        ragged = batch.values
        if self.static is not None:
            x = torch.cat([x, static[ragged.sequence]], 1)
            state = self._initial(self.static(static)) if state is None else state
        elapsed = ragged.with_values(batch.elapsed) if self.stack.spec.decay else None
        out, state = self.stack(ragged.with_values(x), state, elapsed=elapsed)
        return out, state

    def forward(self, batch: SequenceBatch, every_row: bool = False) -> Any:
        """What the head makes of the rows; with `every_row` a pair: that, and the outputs of each row by itself."""
        rows = self.rows(batch)[0]
        return (self.head(rows), self.head.output(self.head.dropout(rows.values))) if every_row else self.head(rows)

    def _initial(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """h [L * D, b, P] and c [L * D, b, H] from a linear map [b, .] of what does not change."""
        stack = self.stack
        layers = stack.num_layers * (2 if stack.bidirectional else 1)
        size = layers * stack.spec.output_size(stack.hidden_size)
        h, c = flat[:, :size].unflatten(1, (layers, -1)), flat[:, size:].unflatten(1, (layers, -1))
        return h.transpose(0, 1).contiguous(), c.transpose(0, 1).contiguous()


HEADS: dict[str, Any] = {
    "classify": ClassifyNet,
    "tag": TagNet,
    "detect": detect_net,
}  # (head, state, directions, dropout) -> module


def _stack(config: StackConfig, input_size: int) -> LSTM:
    return LSTM(
        input_size,
        config.hidden_size,
        config.num_layers,
        dropout=config.dropout if config.num_layers > 1 else 0.0,
        bidirectional=config.bidirectional,
        **asdict(config.cell),
    )


def build(config: ModelConfig) -> Any:
    """One member with torch's default weights; `initialise` gives its stack those of training's start."""
    if config.task == "generate":
        sizes = [config.head.embedding, *(layer.output_size for layer in config.layers)]
        layers = [_stack(layer, size) for layer, size in zip(config.layers, sizes, strict=False)]
        return GenerateNet(config.head, layers, vocabulary=config.input.words.size)
    if config.task == "translate":
        return TranslateNet(
            config.head,
            _stack(config.encoder, config.head.embedding),
            _stack(config.stack, config.head.embedding * (2 if config.head.input_feeding else 1)),
            source=config.input.source.size,
            target=config.input.out.size,
        )
    if isinstance(config.input, TokenInput):
        return TokenModel(config, _stack(config.stack, config.input.step_size))
    if config.task in ("forecast", "detect") and isinstance(config.input, FramesInput):
        return NextFrame(config)
    return ForecastModel(config) if config.task == "forecast" else SequenceModel(config)


def initialise(stack: LSTM, span: int = 0) -> None:
    """Xavier-uniform input weights, orthogonal recurrent weights gate by gate, biases 0 and 1 for the forget gate.

    With `span` forget gates begin with memories of 1 to so many rows instead, b_f = log U(1, span - 1), and input gates
    with b_i = -b_f. Sources: Glorot & Bengio 2010; Saxe et al. 2014; Gers et al. 2000; Tallec & Ollivier 2018. Weights
    of the variants stay as they are.
    """
    size, gates = stack.hidden_size, stack.spec.gates
    forget = gates.index("f")
    for name, weight in stack.named_parameters():
        if name.startswith("weight_ih"):
            nn.init.xavier_uniform_(weight)
        elif name.startswith("weight_hh"):
            for k in range(len(gates)):
                nn.init.orthogonal_(weight[k * size : (k + 1) * size])
        elif name.startswith("bias"):
            nn.init.zeros_(weight)
            if name.startswith("bias_ih"):
                nn.init.ones_(weight[forget * size : (forget + 1) * size])
                if span:
                    start = weight.new_empty(size).uniform_(1, max(span - 1, 2)).log_()
                    for gate, value in (("f", start), ("i", -start)):
                        if gate in gates:
                            k = gates.index(gate)
                            weight.data[k * size : (k + 1) * size] = value


def members_from(config: ModelConfig, weights: Mapping[str, NDArray[Any]]) -> list[Any]:
    """The trained members of an ensemble, in evaluation mode, from weights named as `ModelConfig.shapes` says."""
    found = []
    for k in range(config.seeds):
        with torch.random.fork_rng(
            []
        ):  # starting weights are drawn in vain; the meta device imports all of torch.compile
            member = build(config)
        own = {name: torch.from_numpy(np.array(weights[f"{k}.{name}"])) for name in config.member_shapes()}
        member.load_state_dict(own, assign=True)
        found.append(member.eval())
    return found
