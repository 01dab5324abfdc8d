"""Training a forecaster on windows of series in two stages, and forecasting from any origins."""

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

from carousel.config import ModelConfig
from carousel.forecast_task import CHUNK, ForecastTask
from carousel.heads.forecast import ForecastHead, calibrate
from carousel.inputs.origins import Split
from carousel.inputs.table import Series
from carousel.inputs.windows import Rows
from carousel.model import ForecastModel, members_from, to_batch
from carousel.stages import in_stages
from carousel.train import Progress, Result, TrainConfig, train

__all__ = ["Forecasts", "Trained", "fingerprint", "scaled_quantiles", "train_forecaster"]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Weights = dict[str, NDArray[Any]]


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
    rows for as many steps as were best (see `stages.in_stages`).
    """

    def run(
        everything: bool, settings: TrainConfig, stage: dict[str, Any], resume: bool
    ) -> tuple[ModelConfig, Rows, Result, str]:
        part = refit if everything and refit is not None else split
        config = config_for(part)
        rows = Rows(series, config.input)
        mark = fingerprint(config, rows, part)
        task = ForecastTask(config, rows, part, settings)
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

    def keep(made: tuple[ModelConfig, Rows, Result, str]) -> dict[str, Any]:
        config, rows, result, mark = made
        stage = {"data": mark, "validation_pinball": result.metrics, "steps": result.steps}
        return stage | {"factors": list(_calibrated(config, result, rows, split).factors)}

    (config, _, result, _), stage = in_stages(
        run, keep, settings, refit=refit is not None, checkpoint=checkpoint, resume=resume
    )
    head = dataclasses.replace(config.head, factors=tuple(stage["factors"]))
    provenance = {
        "data": stage["data"],
        "until": float(series.time[np.isfinite(series.target).any(1)].max()),  # where an honest backtest may begin
        "rows": int(series.offsets[-1]),
        "series": len(series.ids),
        "steps": stage["steps"],
        "metrics": {"validation_pinball": stage["validation_pinball"]},
    }
    return Trained(dataclasses.replace(config, head=head), result.weights, provenance)


def _calibrated(config: ModelConfig, result: Result, rows: Rows, split: Split) -> ForecastHead:
    head: ForecastHead = config.head
    if not len(split.held_out):
        return head
    origins = np.concatenate([split.held_out, split.beside])
    made = scaled_quantiles(members_from(config, result.weights), rows, origins)
    return calibrate(head, made.scaled, made.truth, split.independent(rows.config.horizon))


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
