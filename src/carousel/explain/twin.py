"""A plain RNN in the place of a model's LSTM, trained as the model was: what the gates are compared with."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from carousel.cell import CellSpec
from carousel.lstm import LSTM
from carousel.ragged import Ragged
from carousel.train import Task, TrainConfig, train

__all__ = ["PlainRNN", "trained_twin"]


class PlainRNN(nn.Module):
    """Elman's network (1990), h = tanh(W x + U h + b), with an LSTM's interface; its c is not used.

    Begins as our LSTMs do: Xavier-uniform input weights, orthogonal recurrent ones.
    """

    batch_first = False

    def __init__(self, input_size: int, hidden_size: int, num_layers: int, bidirectional: bool, dropout: float) -> None:
        super().__init__()
        self.hidden_size, self.num_layers, self.bidirectional = hidden_size, num_layers, bidirectional
        self.spec, self.proj_size = CellSpec(), 0
        self.rnn = nn.RNN(input_size, hidden_size, num_layers, bidirectional=bidirectional, dropout=dropout)
        for name, weight in self.rnn.named_parameters():
            if name.startswith("weight_ih"):
                nn.init.xavier_uniform_(weight)
            elif name.startswith("weight_hh"):
                nn.init.orthogonal_(weight)
            else:
                nn.init.zeros_(weight)

    @classmethod
    def like(cls, lstm: LSTM) -> PlainRNN:
        """As wide as what the LSTM puts out."""
        size = lstm.spec.output_size(lstm.hidden_size)
        return cls(lstm.input_size, size, lstm.num_layers, lstm.bidirectional, lstm.dropout)

    def forward(self, given: Any, hx: tuple[Tensor, Tensor] | None = None, *, elapsed: Any = None) -> Any:
        """As `LSTM.forward`, of time-major tensors [T, B, I] and Ragged; the c that comes back are zeros."""
        h0 = None if hx is None else hx[0].contiguous()
        if h0 is not None and h0.shape[-1] != self.hidden_size:
            h0 = h0[..., : self.hidden_size].contiguous()
        if isinstance(given, Ragged):
            out, h = self.rnn(given.to_packed(), h0)
            return Ragged.from_packed(out), (h, torch.zeros_like(h))
        out, h = self.rnn(given, h0)
        return out, (h, torch.zeros_like(h))

    def stepper(self, at: int) -> Callable[..., tuple[Tensor, Tensor]]:
        """One step of the layer and direction numbered `at`: (x, h, c, elapsed) -> (h, c)."""
        w, u, b, v = self.rnn.all_weights[at]

        def advance(x: Tensor, h: Tensor, c: Tensor, elapsed: Tensor | None) -> tuple[Tensor, Tensor]:
            return torch.tanh(x @ w.t() + h @ u.t() + b + v), c[:, : h.shape[1]]

        return advance


class _Alike:
    """A task whose model has plain RNNs for LSTMs, or is as it was; without validation."""

    def __init__(self, task: Task, plain: bool) -> None:
        self.task, self.plain = task, plain
        self.rate, self.batch, self.loss = task.rate, task.batch, task.loss

    @property
    def examples(self) -> int:
        return self.task.examples

    def model(self) -> nn.Module:
        net = self.task.model()
        return replaced(net) if self.plain else net

    def metric(self, model: nn.Module, device: torch.device) -> float | None:
        return None


def replaced(net: nn.Module) -> nn.Module:
    """The same module with plain RNNs in the places of its LSTMs."""
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LSTM):
                setattr(module, name, PlainRNN.like(child))
    return net


def trained_twin(net: nn.Module, task: Task, settings: TrainConfig, steps: int, *, plain: bool) -> nn.Module:
    """A model like `net` begun anew, of plain RNNs or of LSTMs, after `steps` of the same training, in evaluation mode.

    The same batches in the same order, optimiser and learning rates; no early stopping.
    """
    chosen = dataclasses.replace(
        settings,
        steps=steps,
        least_steps=steps,
        warmup=min(settings.warmup, max(1, steps // 10)),
        evaluate_every=steps,
        patience=0,
        threads=1,
    )
    made = train(_Alike(task, plain), chosen)
    twin = copy.deepcopy(net)
    twin = replaced(twin) if plain else twin
    twin.load_state_dict(made.members[0])
    return twin.eval()
