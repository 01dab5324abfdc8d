"""The networks that are compared on memory: LSTMs and their variants, GRU, plain RNN and a small causal Transformer.

All read the rows of a ragged batch and give one row of features for each; none looks ahead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.errors import CarouselError
from carousel.lstm import LSTM
from carousel.ragged import Ragged

__all__ = ["KINDS", "VARIANTS", "Net", "build", "chrono", "parameters", "size_for"]

VARIANTS: dict[str, dict[str, Any]] = {
    "LSTM": {},
    "peephole LSTM": {"peephole": True},
    "coupled LSTM": {"coupled": True},
    "layer-norm LSTM": {"layer_norm": True},
}
KINDS = (*VARIANTS, "GRU", "plain RNN", "Transformer")
HEADS, BLOCKS = 2, 2


class Net(nn.Module):
    """A body over the rows and a linear answer at the rows that are asked.

    >>> import numpy as np
    >>> net = build("LSTM", inputs=3, outputs=2, size=5)
    >>> net(Ragged(torch.zeros(7, 3), torch.tensor([0, 4, 7])), torch.tensor([3, 6])).shape
    torch.Size([2, 2])
    """

    def __init__(self, body: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.body, self.answer = body, nn.Linear(width, outputs)

    def forward(self, x: Ragged, at: Tensor) -> Tensor:
        """x: values [N, I]; at: rows [M]; gives [M, outputs]."""
        found: Tensor = self.answer(self.body(x)[at])
        return found


def build(
    kind: str, *, inputs: int, outputs: int, size: int, span: int = 0, recompute: int = 0, layers: int = 1
) -> Net:
    """A network of that hidden size; with `span` gated ones begin to remember for times up to it (`chrono`).

    Raises CarouselError for an unknown kind.
    """
    if kind in VARIANTS:
        lstm = LSTM(inputs, size, layers, recompute=recompute, forget_bias=None if span else 1.0, **VARIANTS[kind])
        if span:
            chrono(lstm, span)
        return Net(_Rows(lstm), size, outputs)
    if kind == "GRU":
        gru = nn.GRU(inputs, size, layers)
        if span:
            _chrono_gru(gru, span)
        return Net(_Padded(gru), size, outputs)
    if kind == "plain RNN":
        rnn = nn.RNN(inputs, size, layers)
        for layer in range(layers):
            nn.init.orthogonal_(
                getattr(rnn, f"weight_hh_l{layer}")
            )  # Saxe et al. 2014: the longest memory it can begin with
        return Net(_Padded(rnn), size, outputs)
    if kind == "Transformer":
        return Net(_Padded(Transformer(inputs, size, layers=BLOCKS)), size, outputs)
    raise CarouselError(f"there is no network {kind!r} to compare; choose from {', '.join(KINDS)}.")


def chrono(lstm: LSTM, span: int) -> None:
    """Tallec & Ollivier 2018: forget gates begin with memories of 1 to `span` steps, b_f = log U(1, span - 1), and
    input gates with b_i = -b_f; the other gates' biases with 0.
    """
    size, gates = lstm.hidden_size, lstm.spec.gates
    with torch.no_grad():
        for layer in range(lstm.num_layers):
            bias, other = getattr(lstm, f"bias_ih_l{layer}"), getattr(lstm, f"bias_hh_l{layer}")
            bias.zero_()
            other.zero_()
            start = torch.log(torch.empty(size).uniform_(1, max(span - 1, 2)))
            for gate, value in (("f", start), ("i", -start)):
                if gate in gates:
                    k = gates.index(gate)
                    bias[k * size : (k + 1) * size] = value


def _chrono_gru(gru: nn.GRU, span: int) -> None:
    """The same for the update gate z, which keeps the old state: torch's order is r, z, n."""
    size = gru.hidden_size
    with torch.no_grad():
        for layer in range(gru.num_layers):
            bias, other = getattr(gru, f"bias_ih_l{layer}"), getattr(gru, f"bias_hh_l{layer}")
            bias.zero_()
            other.zero_()
            bias[size : 2 * size] = torch.log(torch.empty(size).uniform_(1, max(span - 1, 2)))


class _Rows(nn.Module):
    """Our layers read ragged batches as they are."""

    def __init__(self, layer: LSTM) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Ragged) -> Tensor:
        values: Tensor = self.layer(x)[0].values
        return values


class _Padded(nn.Module):
    """Layers that know padded batches only: sequences begin together, and what follows an end is not looked at."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Ragged) -> Tensor:
        time, owner = x.position, x.sequence
        padded = x.values.new_zeros(x.longest, len(x), x.values.shape[-1])
        padded[time, owner] = x.values
        found: Any = self.layer(padded)
        rows: Tensor = (found if isinstance(found, Tensor) else found[0])[time, owner]
        return rows


class Transformer(nn.Module):
    """Causal, on [T, B, I]: pre-norm blocks (Xiong et al. 2020), GELU, rotary positions (Su et al. 2021)."""

    def __init__(self, inputs: int, width: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x).transpose(0, 1)  # [B, T, width]
        turn = _angles(x.shape[0], y.shape[-1] // HEADS)
        for block in self.blocks:
            y = block(y, turn)
        found: Tensor = self.norm(y).transpose(0, 1)
        return found


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, y: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        batch, steps, width = y.shape
        q, k, v = self.qkv(self.first(y)).view(batch, steps, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(_turned(q, turn), _turned(k, turn), v, is_causal=True)
        y = y + self.out(seen.transpose(1, 2).reshape(batch, steps, width))
        found: Tensor = y + self.down(F.gelu(self.up(self.second(y))))
        return found


def _angles(steps: int, width: int) -> tuple[Tensor, Tensor]:
    rate = 10_000.0 ** (-torch.arange(0, width // 2) / max(width // 2, 1))
    angle = torch.arange(steps)[:, None] * rate
    return angle.cos(), angle.sin()  # [T, width / 2]


def _turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Pairs (k, k + width / 2) turned by their step's angle."""
    cos, sin = turn
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], -1)


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def size_for(kind: str, inputs: int, outputs: int, wanted: int) -> int:
    """The hidden size whose network has the number of parameters nearest to `wanted`.

    >>> size_for("LSTM", 2, 1, parameters(build("LSTM", inputs=2, outputs=1, size=24)))
    24
    """
    step = 2 * HEADS if kind == "Transformer" else 1

    def count(size: int) -> int:
        with torch.random.fork_rng(devices=[]):
            return parameters(build(kind, inputs=inputs, outputs=outputs, size=size))

    return _nearest(count, wanted, step)


def _nearest(count: Callable[[int], int], wanted: int, step: int) -> int:
    high = 1
    while count(high * step) < wanted:
        high *= 2
    low = max(high // 2, 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle * step) < wanted else (low, middle)
    return step * min((low, high), key=lambda n: math.fabs(count(n * step) - wanted))
