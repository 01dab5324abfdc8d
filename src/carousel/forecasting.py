"""Training a forecaster on windows of series: which origins, which weights, which metric."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from carousel.checkpoint import stage_of
from carousel.config import ModelConfig
from carousel.errors import CarouselError
from carousel.heads.forecast import ForecastHead, calibrate
from carousel.heads.forecast_net import pinball
from carousel.inputs.origins import Split
from carousel.inputs.table import Series
from carousel.inputs.windows import FIRST, UNSEEN, Rows, Windows
from carousel.model import Batch, ForecastModel, build, initialise, members_from, to_batch
from carousel.train import Progress, Result, TrainConfig, train

__all__ = ["ForecastTask", "Forecasts", "Trained", "fingerprint", "scaled_quantiles", "train_forecaster"]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Weights = dict[str, NDArray[Any]]

CHUNK = 256  # windows predicted at once
MOST_HELD_OUT = 4096  # windows that a validation looks at


class ForecastTask:
    """Windows drawn series by series, later origins more often; the loss counts each series in its own scale."""

    def __init__(self, model: ModelConfig, rows: Rows, split: Split, config: TrainConfig) -> None:
        self.config, self.rows, self.settings = model, rows, config
        split = Split(*(rows.place(origins) for origins in vars(split).values()))
        self.split = split
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
        weight = np.minimum(windows.spread / scale, 5.0)
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


class Forecasts(NamedTuple):
    """Of n windows: quantiles [n, H, K, Q] and truth [n, H, K] in scaled units, level and spread [n, K]."""

    scaled: Floats
    truth: Singles
    level: Floats
    spread: Floats


def scaled_quantiles(
    members: list[ForecastModel], rows: Rows, origins: Ints, device: torch.device | str = "cpu"
) -> Forecasts:
    """The mean over the members of the forecasts from `origins` [n] (rows of the series)."""
    at = rows.place(origins)
    found, kept = [], []
    with torch.no_grad():
        for k in range(0, len(at), CHUNK):
            windows = rows.gather(at[k : k + CHUNK])
            batch = to_batch(windows, device)
            made = torch.stack([member(batch).double() for member in members]).mean(0)
            found.append(made.cpu().numpy())
            kept.append((windows.truth, windows.level, windows.spread))
    truth, level, spread = (np.concatenate(part) for part in zip(*kept, strict=True))
    return Forecasts(np.concatenate(found), truth, level, spread)


class Trained(NamedTuple):
    """What training leaves: the config with its calibrated head, all members' weights, and how it went."""

    config: ModelConfig
    weights: Weights
    provenance: dict[str, Any]


def train_forecaster(
    series: Series,
    config_for: Callable[[Split], ModelConfig],
    split: Split,
    refit: Split | None,
    settings: TrainConfig,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Trained:
    """Two stages: train with early stopping and calibrate on what `split` holds out; then, with `refit`, anew on its
    rows for as many steps as were best.

    What the first stage found travels in the second one's checkpoints, so that either can be resumed.
    """
    if resume and checkpoint is None:
        raise CarouselError("resume needs a checkpoint to go on from; name its file.")
    found = stage_of(checkpoint) if resume and checkpoint else {}
    if found and refit is None:
        raise CarouselError(f"{checkpoint}: the checkpoint is of a training with refit; set it, or start anew.")

    def run(
        split: Split, settings: TrainConfig, stage: dict[str, Any], resume: bool
    ) -> tuple[ModelConfig, Rows, Result, str]:
        config = config_for(split)
        rows = Rows(series, config.input)
        mark = fingerprint(config, rows, split)
        task = ForecastTask(config, rows, split, settings)
        result = train(
            task,
            settings,
            seeds=config.seeds,
            checkpoint=checkpoint,
            resume=resume,
            fingerprint=mark,
            stage=stage,
            progress=progress,
        )
        return config, rows, result, mark

    stage = found
    if not found:
        config, rows, result, mark = run(split, settings, {}, resume)
        stage = {"data": mark, "validation_pinball": result.metrics, "steps": result.steps}
        stage["factors"] = list(_calibrated(config, result, rows, split).factors)
    if refit is not None:
        steps = max(settings.warmup + 1, round(float(np.mean(stage["steps"]))))
        settings = dataclasses.replace(settings, steps=steps)
        config, rows, result, _ = run(refit, settings, stage, bool(found))
    head = dataclasses.replace(config.head, factors=tuple(stage["factors"]))
    provenance = {
        "data": stage["data"],
        "until": float(series.time.max()),  # where an honest backtest may begin
        "rows": int(series.offsets[-1]),
        "series": len(series.ids),
        "steps": stage["steps"],
        "metrics": {"validation_pinball": stage["validation_pinball"]},
    }
    return Trained(dataclasses.replace(config, head=head), _named(result), provenance)


def _calibrated(config: ModelConfig, result: Result, rows: Rows, split: Split) -> ForecastHead:
    if not len(split.held_out):
        return config.head
    made = scaled_quantiles(members_from(config, _named(result)), rows, split.held_out)
    return calibrate(config.head, made.scaled, made.truth, split.independent(rows.config.horizon))


def _named(result: Result) -> Weights:
    return {f"{k}.{n}": value.numpy() for k, member in enumerate(result.members) for n, value in member.items()}


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
