"""What training a forecaster is about: which windows are drawn, how the linear path starts, what the loss counts."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from carousel.config import ModelConfig
from carousel.errors import CarouselError
from carousel.heads.forecast_net import pinball
from carousel.inputs.fitted import FIRST, UNSEEN
from carousel.inputs.origins import Split
from carousel.inputs.windows import Rows, Windows
from carousel.model import Batch, ForecastModel, build, initialise, to_batch
from carousel.trainconfig import TrainConfig

__all__ = ["CHUNK", "ForecastTask", "available_memory"]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]

RIDGE_WINDOWS = 256 * 80
MANY = 256  # origins
EXTREME = 20.0  # scaled values
CHUNK = 256  # windows predicted at once
MOST_HELD_OUT = 4096  # windows that a validation looks at
FEW = 256  # windows: batches of so many are always allowed, since windows are drawn with replacement
TOGETHER = 128  # windows gathered at once for the next batches: few large steps of NumPy cost less than many small ones
GATES = 24  # float32 a unit and step: gates, states and their gradients


class ForecastTask:
    """Windows drawn series by series; the loss counts each series in its own scale."""

    def __init__(self, model: ModelConfig, rows: Rows, split: Split, config: TrainConfig) -> None:
        self.config, self.rows, self.settings = model, rows, config
        split = Split(*(rows.place(origins) for origins in vars(split).values()))
        self.split = split
        self._drawn = np.zeros(0, np.int64)  # origins of the batches that are ready
        self._ready: list[tuple[Windows, NDArray[np.float32]]] = []
        _refuse_batches(model, config.batch_size, self.examples)
        self.scale = _series_scale(rows, split, model.input.seasons)  # [B, K]
        self.quantiles = torch.tensor(model.head.quantiles)
        self.linear = torch.from_numpy(self._ridge())  # [H, C + 2]
        held_out = split.held_out
        if len(held_out) > MOST_HELD_OUT:
            held_out = held_out[np.linspace(0, len(held_out) - 1, MOST_HELD_OUT).astype(np.int64)]
        self.held_out = [rows.gather(held_out[k : k + CHUNK]) for k in range(0, len(held_out), CHUNK)]
        self.held_out_weights = [
            self._weights(w, held_out[k * CHUNK : (k + 1) * CHUNK]) for k, w in enumerate(self.held_out)
        ]

    @property
    def examples(self) -> int:
        return int((self.split.last - self.split.first + 1).sum())

    def model(self) -> nn.Module:
        self._make_ready(self._drawn[:0])
        member: ForecastModel = build(self.config)
        initialise(member.stack, self.settings.span)
        with torch.no_grad():
            member.head.linear.weight.copy_(self.linear[:, :-1])
            member.head.linear.bias.copy_(self.linear[:, -1])
        return member

    def rate(self, name: str) -> float:
        return self.settings.linear_rate if name.startswith("head.linear.") else 1.0

    def batch(self, rng: np.random.Generator, device: torch.device) -> tuple[Batch, Tensor]:
        size = self.settings.batch_size
        if not self._ready:
            self._make_ready(self._draw(rng, size * max(1, TOGETHER // size)))
        self._drawn = self._drawn[size:]
        windows, weights = self._ready.pop(0)
        return to_batch(self._forget(windows, rng), device), torch.from_numpy(weights).to(device)

    def carried(self) -> dict[str, Tensor]:
        """The origins of batches that are drawn and not yet used."""
        return {"drawn": torch.from_numpy(self._drawn.copy())}

    def carry(self, taken: dict[str, Tensor]) -> None:
        self._make_ready(taken["drawn"].cpu().numpy())

    def _make_ready(self, at: Ints) -> None:
        """Batches of the windows at the origins `at`."""
        self._drawn, self._ready, size = at, [], self.settings.batch_size
        if not len(at):
            return
        whole = self.rows.gather(at)
        for k in range(0, len(at), size):
            part = Windows._make(field[k : k + size] for field in whole)
            self._ready.append((part, self._weights(part, at[k : k + size])))

    def loss(self, model: nn.Module, batch: tuple[Batch, Tensor]) -> Tensor:
        windows, weights = batch
        if isinstance(model, ForecastModel):
            return model.loss(windows, weights, self.quantiles.to(weights.device))
        return pinball(model(windows), windows.truth, weights, self.quantiles.to(weights.device))

    def metric(self, model: nn.Module, device: torch.device) -> float | None:
        total = count = 0.0
        with torch.no_grad():
            for windows, weights in zip(self.held_out, self.held_out_weights, strict=True):
                batch = to_batch(windows, device), torch.from_numpy(weights).to(device)
                total += float(self.loss(model, batch)) * len(weights)
                count += len(weights)
        return total / count if count else None

    def _ridge(self) -> Singles:
        """Starting weights and bias of the linear path: ridge regression (Hoerl & Kennard 1970) of what the mean of
        the naive forecasts leaves, in closed form; windows with extreme values stay out of it."""
        rng = np.random.default_rng([self.settings.seed, 0xCB])
        h, size = self.config.input.horizon, self.config.input.context + 2
        products, targets, total = np.zeros((size, size)), np.zeros((h, size)), np.zeros(h)
        lacking: dict[int, Floats] = {}  # of the products: windows whose step k was not observed, which are few
        whole = self._whole()
        for _ in range(RIDGE_WINDOWS // CHUNK):
            at = rng.choice(whole, CHUNK)
            windows = self.rows.gather(at)
            share = windows.steps[..., self.config.input.targets : 2 * self.config.input.targets].mean(1)
            weight = (self._weights(windows, at) * share**2).reshape(-1)  # interpolated values tell less
            x = _samples(windows.linear)
            x = np.concatenate([x, np.ones((len(x), 1))], 1)
            y = _samples(windows.truth - windows.base.mean(-1))
            tame = np.asarray((np.abs(x) < EXTREME).all(1) & (np.nan_to_num(np.abs(y)) < EXTREME).all(1))
            seen: NDArray[np.bool_] = np.isfinite(y) & tame[:, None]
            weight = weight * tame
            products += (x * weight[:, None]).T @ x
            gone = tame[:, None] & ~seen
            for k in np.flatnonzero(gone.any(0)).tolist():
                part = x[gone[:, k]]
                lacking[k] = lacking.get(k, 0.0) + (part * weight[gone[:, k], None]).T @ part
            targets += (np.where(seen, y, 0) * weight[:, None]).T @ x
            total += (weight[:, None] * seen).sum(0)
        penalty = self.settings.ridge * np.ones(size)
        penalty[-1] = 1e-6  # of the bias: only so that a step never observed has a solution
        penalised = products + (np.maximum(total, 1)[:, None] * penalty)[:, None, :] * np.eye(size)  # [H, C + 2, C + 2]
        for k, missing in lacking.items():
            penalised[k] -= missing
        return np.asarray(np.linalg.solve(penalised, targets[..., None])[..., 0], np.float32)

    def _whole(self) -> Ints:
        """Origins to train on that have all the rows that a window looks at behind them, if these are many."""
        split, start = self.split, self.rows.start[self.rows.owner[self.split.first]]
        first = np.maximum(split.first, start + self.config.input.reach - 1)
        for begin in (first, split.first):
            room = np.maximum(split.last - begin + 1, 0)
            if room.sum() >= MANY:
                break
        number = np.arange(room.sum()) - np.repeat(np.cumsum(room) - room, room)
        return np.asarray(np.repeat(begin, room) + number)

    def _draw(self, rng: np.random.Generator, size: int) -> Ints:
        """Origins to train on: any series alike, and any origin in it, or the later ones more often."""
        series = rng.integers(0, len(self.split.first), size)
        position = rng.random(size) ** (1 / self.settings.recency)
        room = self.split.last[series] - self.split.first[series] + 1
        return np.asarray(self.split.first[series] + np.minimum((position * room).astype(np.int64), room - 1))

    def _forget(self, windows: Windows, rng: np.random.Generator) -> Windows:
        """Some categories become "never seen", each table for whole windows, so that this code is trained as well."""
        share = self.settings.unseen
        if not share or not self.config.input.embedded:
            return windows
        n = len(windows.level)

        def forget(codes: Ints) -> Ints:
            shape = (n,) + (1,) * (codes.ndim - 2) + (codes.shape[-1],)
            return np.where((rng.random(shape) < share) & (codes >= FIRST), UNSEEN, codes)

        return windows._replace(
            step_codes=forget(windows.step_codes),
            ahead_codes=forget(windows.ahead_codes),
            static_codes=forget(windows.static_codes),
        )

    def _weights(self, windows: Windows, at: Ints) -> NDArray[np.float32]:
        """[n, K]: from the window's spread to the series' own scale, so that the loss resembles MASE."""
        scale = self.scale[self.rows.owner[at]]
        weight = np.minimum(windows.spread / scale, 5.0)
        return np.asarray(weight / weight.mean(), np.float32)


def _refuse_batches(model: ModelConfig, size: int, examples: int) -> None:
    """CarouselError for more windows than there are, or than the memory holds: the system would kill the process."""
    most = max(examples, FEW)
    if size > most:
        raise CarouselError(
            f"batch_size is {size:,}, but there are {examples:,} windows to train on; set at most {most:,}."
        )
    table, stack = model.input, model.stack
    row = GATES * stack.hidden_size * stack.num_layers + 8 * table.step_size
    ahead = (
        GATES * model.head.width + 8 * table.ahead_size + 8 * table.targets * (table.bases + len(model.head.quantiles))
    )
    window = 4 * (table.context * row + table.horizon * ahead)
    free = available_memory()
    if size * window > free:
        raise CarouselError(
            f"a batch of {size:,} windows takes about {size * window / 1e6:,.0f} MB, more than the {free / 1e6:,.0f} MB"
            f" that are free; set batch_size to at most {max(1, free // window):,}, or a smaller hidden_size."
        )


def available_memory() -> int:
    """Bytes that a process may still take; all of the machine's where the system does not tell what is free."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**62


def _samples(values: Singles) -> Floats:
    """[n, X, K] as [n * K, X]: the linear path treats every target alike."""
    return np.moveaxis(values, 1, -1).reshape(-1, values.shape[1]).astype(np.float64)


def _series_scale(rows: Rows, split: Split, seasons: tuple[int, ...]) -> Floats:
    """Mean absolute change over the shortest season within the training rows [B, K], as in MASE's denominator."""
    m = min(seasons, default=1)
    later = np.arange(m, len(rows.owner))
    ends = np.full(len(rows.start), -1)
    ends[rows.owner[split.last]] = split.last + rows.config.horizon
    inside = (rows.owner[later] == rows.owner[later - m]) & (later <= ends[rows.owner[later]])
    later = later[inside]
    change = np.abs(rows.target[later] - rows.target[later - m])
    seen = np.isfinite(change)
    owner, count = rows.owner[later], len(rows.start)
    scale = np.empty((count, change.shape[1]))
    for k in range(change.shape[1]):
        total = np.bincount(owner, np.where(seen[:, k], change[:, k], 0), count)
        scale[:, k] = total / np.maximum(np.bincount(owner, seen[:, k], count), 1)
        fallback = scale[scale[:, k] > 0, k]
        scale[scale[:, k] <= 0, k] = np.median(fallback) if len(fallback) else 1.0
    return scale
