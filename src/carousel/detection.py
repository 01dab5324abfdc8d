"""Training a detector on pieces of sequences, and what it makes of rows: errors, views, limits."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from carousel.config import ModelConfig
from carousel.errors import DataError
from carousel.heads.detect import DetectHead, forecast, forecast_errors, last_values
from carousel.heads.detect_fit import fit_view
from carousel.heads.detect_net import student_loss
from carousel.inputs.sequence import Channels
from carousel.model import SequenceBatch, build, initialise, members_from, sequence_batch
from carousel.sequences import outputs
from carousel.train import Progress, TrainConfig, train

__all__ = ["DetectConfig", "DetectTask", "Rows", "errors_of", "train_detector"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Weights = dict[str, NDArray[Any]]

WARM_UP = 8  # rows at the start of a piece within a sequence that the state needs, and that do not count
PIECE = 64  # rows of a piece, where the settings say nothing else
MOST_HELD_OUT = 512  # pieces that a validation looks at
WINDOWS = 2048  # reconstructed at once


@dataclass(frozen=True)
class DetectConfig:
    """How rows are scored. Errors of the forecast are averaged over each number of rows in `smooth`, and values over
    each in `level` (empty: only errors count); the oddest of these views is the score.

    `risk` is the share of normal rows that may exceed the limit, `contamination` the share of the training rows that
    may be anomalies: the farthest are left out when limits are set (weights are learned robustly anyway). `window` and
    `code` are an autoencoder's rows and the numbers that a window passes through; `noise` is added to its inputs in
    training (in scaled units).

    Raises ValueError for a value out of range.
    """

    smooth: tuple[int, ...] = (1, 10)
    level: tuple[int, ...] = (20,)
    risk: float = 1e-3
    contamination: float = 0.0
    window: int = 20
    code: int = 4
    noise: float = 0.5

    def __post_init__(self) -> None:
        counts = (*self.smooth, *self.level)
        if not self.smooth or any(isinstance(k, bool) or not isinstance(k, int) or k < 1 for k in counts):
            raise ValueError(f"smooth and level must be rows, at least 1 each, got {self.smooth} and {self.level}")
        if not 0 < self.risk < 1:
            raise ValueError(f"risk must be a share in (0, 1), got {self.risk}")
        if not 0 <= self.contamination < 0.5:
            raise ValueError(f"contamination must be a share in [0, 0.5), got {self.contamination}")
        if self.window < 2 or self.code < 1 or self.noise < 0:
            raise ValueError("window must be at least 2, code at least 1 and noise at least 0")


class Rows(NamedTuple):
    """Channels of sequences with their scored numbers [N, C]: as the model counts them, and in their own units."""

    channels: Channels
    scaled: Floats
    values: Floats
    learned: Flags  # [N] rows to learn from
    held: Flags  # [N] rows to validate and calibrate on


class Batch(NamedTuple):
    seen: SequenceBatch
    base: Tensor  # [N, C] what the forecast begins with
    truth: Tensor  # [N, C] of the next row (forecast) or of this one (autoencoder)
    weight: Tensor  # [N, C] 0 where nothing is to be learned


class DetectTask:
    """Random pieces of the training rows: the next row of each is forecast, or the piece itself is reconstructed."""

    def __init__(self, model: ModelConfig, rows: Rows, options: DetectConfig, config: TrainConfig) -> None:
        self.config, self.rows, self.settings = model, rows, config
        self.head: DetectHead = model.head
        self.noise = options.noise if self.head.method == "autoencoder" else 0.0
        self.ahead = int(self.head.method == "forecast")
        self.length = (config.crop or PIECE) + 1 if self.ahead else options.window
        self.base = last_values(rows.scaled, rows.channels.offsets) * self.head.kept
        offsets = rows.channels.offsets
        self.owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        self.starts = self._starts(rows.learned)
        if not len(self.starts):
            raise DataError(
                "the rows to learn from lie too far apart: no piece of a sequence holds more of them than of others;"
                " give longer stretches without known anomalies."
            )
        held = self._starts(rows.held)[:: max(1, self.length // 2)]
        self.held_out = held[np.linspace(0, len(held) - 1, min(len(held), MOST_HELD_OUT)).astype(np.int64)]

    @property
    def examples(self) -> int:
        return len(self.starts)

    def model(self) -> nn.Module:
        member: nn.Module = build(self.config)
        initialise(member.stack, self.settings.span)  # type: ignore[arg-type]
        return member

    def rate(self, name: str) -> float:
        return 1.0

    def batch(self, rng: np.random.Generator, device: torch.device) -> Batch:
        found = self._pieces(rng.choice(self.starts, self.settings.batch_size), self.rows.learned, device)
        if not self.noise:
            return found
        values = found.seen.values
        jitter = (
            rng.normal(size=tuple(values.values.shape))
            + rng.normal(size=(len(values), values.values.shape[1]))[values.sequence.cpu().numpy()]
        )
        noisy = values.values + self.noise * torch.from_numpy(jitter.astype(np.float32)).to(device)
        return found._replace(seen=found.seen._replace(values=values.with_values(noisy)))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        made = model(batch.seen)
        if self.ahead:
            per = student_loss(made, batch.base, batch.truth)
        else:
            per = nn.functional.smooth_l1_loss(made, batch.truth, reduction="none")
        return (per * batch.weight).sum() / batch.weight.sum().clamp(min=1.0)

    def metric(self, model: nn.Module, device: torch.device) -> float | None:
        if not len(self.held_out):
            return None
        with torch.no_grad():
            return float(self.loss(model, self._pieces(self.held_out, self.rows.held, device)))

    def _starts(self, wanted: Flags) -> Ints:
        """First rows of pieces within one sequence that hold something to learn; short sequences are one piece."""
        offsets = self.rows.channels.offsets
        n, length = len(self.owner), self.length
        at = np.arange(n)
        end = offsets[self.owner + 1]
        whole = (at + length <= end) | ((at == offsets[self.owner]) & (end - at > self.ahead))
        counts = np.concatenate([[0], np.cumsum(wanted)])
        last = np.minimum(at + length, end)
        enough = counts[last] - counts[at] > (last - at) // 2
        return np.flatnonzero(whole & enough)

    def _pieces(self, starts: Ints, wanted: Flags, device: torch.device) -> Batch:
        offsets = self.rows.channels.offsets
        which = self.owner[starts]
        first = starts - offsets[which]
        stop = np.minimum(first + self.length, offsets[which + 1] - offsets[which]) - self.ahead
        seen, at = self.rows.channels.select(which, first, stop)
        truth = self.rows.scaled[at + self.ahead]
        weight = ~np.isnan(truth) & wanted[at + self.ahead][:, None]
        if self.ahead:
            position = np.arange(len(at)) - np.repeat(seen.offsets[:-1], np.diff(seen.offsets))
            cold = np.repeat((first > 0) & (stop - first > 2 * WARM_UP), np.diff(seen.offsets))
            weight &= ~(cold & (position < WARM_UP))[:, None]
        arrays = (self.base[at], np.nan_to_num(truth), weight)
        tensors = (torch.from_numpy(part.astype(np.float32)).to(device) for part in arrays)
        return Batch(sequence_batch(seen, device), *tensors)


def errors_of(members: list[Any], config: ModelConfig, rows: Rows) -> Floats:
    """Errors [N, C]: of the forecast, standardised by its scale; or of the reconstruction, the mean over the window
    that ends in the row (of rows before the first whole window, the mean over that one)."""
    head: DetectHead = config.head
    if head.method == "forecast":
        made = outputs(members, rows.channels)
        return forecast_errors(head, made, rows.scaled, rows.channels.offsets)
    offsets = rows.channels.offsets
    lengths = np.diff(offsets)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(len(owner)) - offsets[owner]
    size = np.minimum(head.window, lengths[owner])
    ends = np.flatnonzero(position >= size - 1)
    found = np.full(rows.scaled.shape, np.nan)
    with torch.no_grad():
        for k in range(0, len(ends), WINDOWS):
            at = ends[k : k + WINDOWS]
            stop = position[at] + 1
            seen, inside = rows.channels.select(owner[at], stop - size[at], stop)
            batch = sequence_batch(seen)
            made = torch.stack([member(batch).double() for member in members]).mean(0).numpy()
            error = rows.scaled[inside] - made
            known = ~np.isnan(error)
            total = np.add.reduceat(np.where(known, error, 0.0), seen.offsets[:-1], axis=0)
            count = np.add.reduceat(known.astype(np.int64), seen.offsets[:-1], axis=0)
            found[at] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    early = np.flatnonzero(position < size - 1)
    found[early] = found[offsets[owner[early]] + size[early] - 1]
    return found


class Trained(NamedTuple):
    config: ModelConfig
    weights: Weights
    provenance: dict[str, Any]


def train_detector(
    config: ModelConfig,
    rows: Rows,
    options: DetectConfig,
    settings: TrainConfig,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Trained:
    """Train with early stopping on the held-out rows, then fit the views on them and on those learned from."""
    mark = _fingerprint(config, rows, options)
    result = train(
        DetectTask(config, rows, options, settings),
        settings,
        seeds=config.seeds,
        checkpoint=checkpoint,
        resume=resume,
        fingerprint=mark,
        progress=progress,
    )
    weights = result.weights
    fitted = dataclasses.replace(config, head=_calibrated(config, weights, rows, options))
    provenance = {
        "data": mark,
        "rows": len(rows.values),
        "sequences": len(rows.channels.offsets) - 1,
        "steps": result.steps,
        "metrics": {"validation_loss": result.metrics},
    }
    return Trained(fitted, weights, provenance)


def _calibrated(config: ModelConfig, weights: Weights, rows: Rows, options: DetectConfig) -> DetectHead:
    head: DetectHead = config.head
    members = members_from(config, weights)
    used = rows.learned | rows.held
    if head.method == "forecast":  # a forecast is never taken for surer than it is half of the time
        made = outputs(members, rows.channels)
        _, scale = forecast(head, made, last_values(rows.scaled, rows.channels.offsets))
        head = dataclasses.replace(head, floor=tuple(float(s) for s in np.median(scale[used], 0)))
        smooth = options.smooth
    else:
        smooth = (1,)  # the window has averaged already
    errors = errors_of(members, dataclasses.replace(config, head=head), rows)
    offsets = rows.channels.offsets
    limits = (options.risk, options.contamination)
    span = head.window or 1
    views = [fit_view("error", k, errors, offsets, rows.learned, rows.held, *limits, span) for k in smooth]
    # Values are not learned, so that rows learned from tell as much as others.
    none = np.zeros(len(used), bool)
    views += [fit_view("value", k, rows.values, offsets, none, used, *limits) for k in options.level]
    return dataclasses.replace(head, views=tuple(views))


def _fingerprint(config: ModelConfig, rows: Rows, options: DetectConfig) -> str:
    made = json.dumps([config.to_json(), dataclasses.asdict(options)], sort_keys=True)
    found = hashlib.sha256(made.encode())
    for array in (*rows.channels, *rows[1:]):
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
