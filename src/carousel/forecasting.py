"""Training a forecaster on windows of series: which origins, which weights, which metric."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from carousel.config import ModelConfig
from carousel.heads.forecast_net import pinball
from carousel.inputs.windows import FIRST, UNSEEN, Rows, Windows
from carousel.model import Batch, ForecastModel, build, initialise, to_batch
from carousel.train import TrainConfig

__all__ = ["ForecastTask", "Split", "fingerprint", "scaled_quantiles"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CHUNK = 256  # windows predicted at once
MOST_HELD_OUT = 4096  # windows that a validation looks at


@dataclass(frozen=True)
class Split:
    """Origins (rows of `Rows`): of each trainable series the first and last to train on, and the held-out ones."""

    first: Ints  # [S]
    last: Ints  # [S]
    held_out: Ints  # [n]


class ForecastTask:
    """Windows drawn series by series, later origins more often; the loss counts each series in its own scale."""

    def __init__(self, model: ModelConfig, rows: Rows, split: Split, config: TrainConfig) -> None:
        self.config, self.rows, self.split, self.settings = model, rows, split, config
        self.scale = _series_scale(rows, split, model.input.seasons)  # [B, K]
        self.quantiles = torch.tensor(model.head.quantiles)
        held_out = split.held_out
        if len(held_out) > MOST_HELD_OUT:
            held_out = held_out[np.linspace(0, len(held_out) - 1, MOST_HELD_OUT).astype(np.int64)]
        self.held_out = [rows.gather(held_out[k : k + CHUNK]) for k in range(0, len(held_out), CHUNK)]
        self.held_out_weights = [
            self._weights(w, held_out[k * CHUNK : (k + 1) * CHUNK]) for k, w in enumerate(self.held_out)
        ]

    def model(self) -> nn.Module:
        member = build(self.config)
        initialise(member.stack)
        return member

    def batch(self, rng: np.random.Generator, device: torch.device) -> tuple[Batch, Tensor]:
        size, split = self.settings.batch_size, self.split
        series = rng.integers(0, len(split.first), size)
        position = rng.random(size) ** (1 / self.settings.recency)
        room = split.last[series] - split.first[series] + 1
        at = split.first[series] + np.minimum((position * room).astype(np.int64), room - 1)
        windows = self._forget(self.rows.gather(at), rng)
        return to_batch(windows, device), torch.from_numpy(self._weights(windows, at)).to(device)

    def loss(self, model: nn.Module, batch: tuple[Batch, Tensor]) -> Tensor:
        windows, weights = batch
        return pinball(model(windows), windows.truth, weights, self.quantiles.to(weights.device))

    def metric(self, model: nn.Module, device: torch.device) -> float | None:
        total = count = 0.0
        with torch.no_grad():
            for windows, weights in zip(self.held_out, self.held_out_weights, strict=True):
                batch = to_batch(windows, device), torch.from_numpy(weights).to(device)
                total += float(self.loss(model, batch)) * len(weights)
                count += len(weights)
        return total / count if count else None

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
        weight = np.clip(windows.spread / scale, 0.01, 5.0)
        return np.asarray(weight / weight.mean(), np.float32)


def _series_scale(rows: Rows, split: Split, seasons: tuple[int, ...]) -> Floats:
    """Mean absolute change over the longest season within the training rows [B, K], as in MASE's denominator."""
    m = max(seasons, default=1)
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


def scaled_quantiles(
    members: list[ForecastModel], rows: Rows, at: Ints, device: torch.device | str = "cpu"
) -> tuple[Floats, Windows]:
    """Mean over the members of the quantiles [n, H, K, Q] in scaled units, and the windows without their inputs."""
    found, kept = [], []
    with torch.no_grad():
        for k in range(0, len(at), CHUNK):
            windows = rows.gather(at[k : k + CHUNK])
            batch = to_batch(windows, device)
            made = torch.stack([member(batch).double() for member in members]).mean(0)
            found.append(made.cpu().numpy())
            kept.append((windows.truth, windows.level, windows.spread))
    truth, level, spread = (np.concatenate(part) for part in zip(*kept, strict=True))
    empty = windows._replace(truth=truth, level=level, spread=spread)
    return np.concatenate(found), empty


def fingerprint(model: ModelConfig, rows: Rows, split: Split) -> str:
    """Of everything that training looks at, so that a checkpoint of other data is recognised."""
    found = hashlib.sha256(json.dumps(model.to_json(), sort_keys=True).encode())
    for array in (
        rows.time,
        rows.target,
        rows.numbers,
        rows.codes,
        rows.static,
        rows.static_codes,
        *vars(split).values(),
    ):
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
