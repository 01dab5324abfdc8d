"""`carousel bench conv`: a training step of ConvLSTM beside the usual one, which is a convolution a Python step."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.bench import machine
from carousel.bench.layer import Grid
from carousel.bench.report import Cell, Report
from carousel.bench.timing import Contender, alternate, geometric_mean
from carousel.convlstm import ConvLSTM

__all__ = ["BATCH", "HIDDEN", "Usual", "compare"]

HIDDEN, BATCH, STEPS, SIDE = (64,), (8,), 10, 64
TOLERANCE = {"float32": 1e-5, "bfloat16": 0.05}


class Usual(nn.Module):
    """ConvLSTM as it is usually written in PyTorch: a convolution over cat(input, state), one Python step at a time."""

    def __init__(self, own: ConvLSTM) -> None:
        super().__init__()
        self.hidden_size, self.padding = own.hidden_size, (own.kernel_size[0] // 2, own.kernel_size[1] // 2)
        weights = own.state_dict()
        self.weight = nn.Parameter(torch.cat([weights["weight_ih_l0"], weights["weight_hh_l0"]], 1))
        self.bias = nn.Parameter(weights["bias_ih_l0"] + weights["bias_hh_l0"])

    def forward(self, frames: Tensor) -> Tensor:
        h = c = frames.new_zeros(frames.shape[1], self.hidden_size, *frames.shape[-2:])
        outputs = []
        for x in frames:
            z = F.conv2d(torch.cat([x, h], 1), self.weight, self.bias, padding=self.padding)
            i, f, g, o = z.chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        return torch.stack(outputs)


def compare(grid: Grid, *, side: int = SIDE, steps: int = STEPS) -> Report:
    """Forward and backward with gradients of weights and of frames; frames of H channels, and of one."""
    columns = ["channels", "H", "B", "usual ms", "carousel ms", "x usual", "carousel bfloat16 ms", "x own float32"]
    report = Report(f"ConvLSTM 3 x 3, training, {side} x {side}, T = {steps}", columns, machine.describe())
    gains: list[float] = []
    halves: list[float] = []
    for size, batch in itertools.product(grid.hidden, grid.batch):
        for channels in (size, 1):
            times = alternate(_contenders(channels, size, batch, side, steps), grid.seconds)
            usual, own, half = (times[name].median for name in ("usual", "carousel", "carousel bfloat16"))
            gains.append(usual / own)
            halves.append(own / half)
            row: list[Cell] = [channels, size, batch, 1e3 * usual, 1e3 * own, gains[-1], 1e3 * half, halves[-1]]
            report.rows.append(row)
    report.summary["geometric mean against the usual one"] = geometric_mean(gains)
    report.summary["worst against the usual one"] = min(gains)
    report.summary["worst of bfloat16 against own float32"] = min(halves)
    report.notes.append(f"outputs and gradients agree to {TOLERANCE['float32']:g} of the largest in each array")
    return report


def _contenders(channels: int, size: int, batch: int, side: int, steps: int) -> list[Contender]:
    torch.manual_seed(size)
    own = ConvLSTM(channels, size, backend="native")
    half = ConvLSTM(channels, size, backend="native", dtype=torch.bfloat16)
    half.load_state_dict(own.state_dict())
    x, seed = torch.randn(steps, batch, channels, side, side), torch.randn(steps, batch, size, side, side)
    return [
        _contender("usual", Usual(own), x, seed),
        _contender("carousel", own, x, seed),
        _contender("carousel bfloat16", half, x.bfloat16(), seed.bfloat16()),
    ]


def _contender(name: str, module: Any, x: Tensor, seed: Tensor) -> Contender:
    x = x.detach().requires_grad_(x.shape[2] > 1)  # one channel: a picture, not the output of another layer
    made: list[Tensor] = []

    def run() -> None:
        module.zero_grad(set_to_none=True)
        x.grad = None
        y = module(x)
        y = y if isinstance(y, Tensor) else y[0]
        y.backward(seed)
        made[:] = [y.detach()]

    def outputs() -> list[Any]:
        if isinstance(module, Usual):
            assert module.weight.grad is not None
            weights = [*module.weight.grad.split([x.shape[2], module.hidden_size], 1), module.bias.grad]
        else:
            weights = [module.weight_ih_l0.grad, module.weight_hh_l0.grad, module.bias_ih_l0.grad]
        frames = [] if x.grad is None else [x.grad]
        return [t.detach().float().numpy() for t in (*made, *weights, *frames) if t is not None]

    return Contender(name, run, outputs, TOLERANCE[str(x.dtype).removeprefix("torch.")])
