"""Training on windows of clips to predict their next frames, and what a trained network makes of clips."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.config import ModelConfig
from carousel.errors import DataError
from carousel.heads.frames import block_errors, block_means, block_names
from carousel.inputs.clips import Clips
from carousel.inputs.frames import Bytes
from carousel.model import build
from carousel.train import Progress, TrainConfig, train

__all__ = ["FrameWindows", "Trained", "odd_errors", "predict_ahead", "summarised", "train_frames"]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Weights = dict[str, NDArray[Any]]

JUDGED = 96  # windows that a validation looks at
TOGETHER = 32  # clips predicted at once
PIECE = 32  # frames that a detector reads at once, its state carried on


@dataclass(frozen=True)
class FrameWindows:
    """Clips [N, H, W, C] of bytes, rows offsets[b]:offsets[b + 1] of clip b, and the first frames of all windows of
    `length` frames to learn from and to judge by."""

    frames: Bytes
    offsets: Ints
    learned: Ints
    held: Ints
    length: int

    def judged_by(self, other: FrameWindows) -> FrameWindows:
        """With the windows of other clips held out."""
        shift = len(self.frames)
        frames = np.concatenate([self.frames, other.frames])
        offsets = np.concatenate([self.offsets, other.offsets[1:] + shift])
        return FrameWindows(frames, offsets, self.learned, _some(other.learned + shift), self.length)

    def read(self, starts: Ints, flip: bool = False, rng: np.random.Generator | None = None) -> Tensor:
        """Frames [T, B, C, H, W] in [0, 1] of the windows that begin there; with `flip` some are mirrored."""
        found = np.stack([self.frames[start : start + self.length] for start in starts], 1)
        if flip and rng is not None:
            mirrored = rng.random(len(starts)) < 0.5
            found[:, mirrored] = found[:, mirrored, :, ::-1]
        return as_numbers(found)


def as_numbers(frames: Bytes) -> Tensor:
    """Bytes [..., H, W, C] -> numbers in [0, 1] [..., C, H, W]."""
    return torch.from_numpy(np.moveaxis(frames, -1, -3).astype(np.float32, order="C")) / 255


def windows(frames: Bytes, offsets: Ints, length: int, share: float, source: str) -> FrameWindows:
    """Windows of whole clips, some of them held out; of few clips the last share of each is held out instead.

    Raises DataError where no clip is long enough.
    """
    lengths = np.diff(offsets)
    if not (lengths >= length).any():
        raise DataError(
            f"{source}: windows of {length} frames are needed, and the longest clip has {int(lengths.max())}; give"
            " longer clips, or a shorter context or horizon."
        )
    count = len(lengths)
    held_out = round(share * count) if count >= 5 else 0
    rng = np.random.default_rng(0xF2)
    held = np.zeros(count, bool)
    held[rng.permutation(count)[:held_out]] = True
    learned: list[Ints] = []
    judged: list[Ints] = []
    for b in range(count):
        starts = np.arange(offsets[b], offsets[b + 1] - length + 1)
        if held_out:
            (judged if held[b] else learned).append(starts)
            continue
        late = max(0, round(share * len(starts)))
        learned.append(starts[: max(0, len(starts) - late - (length - 1 if late else 0))])
        judged.append(starts[len(starts) - late :])
    if not sum(map(len, learned)):
        raise DataError(
            f"{source}: nothing is left to learn from beside what is held out; set holdout=0, or give more."
        )
    judge = _some(np.concatenate([*judged, np.zeros(0, np.int64)]))
    return FrameWindows(frames, offsets, np.concatenate(learned), judge, length)


def _some(starts: Ints) -> Ints:
    return starts[np.linspace(0, len(starts) - 1, min(len(starts), JUDGED)).astype(np.int64)].astype(np.int64)


def summarised(sequences: Any, blocks: tuple[int, int] = (8, 8)) -> Any:
    """Clips with the brightness of blocks of their pictures as columns, for what reads no pictures: baselines and
    audits; other sequences as they are."""
    if not isinstance(sequences, Clips):
        return sequences
    size = (min(blocks[0], sequences.frames.shape[1]), min(blocks[1], sequences.frames.shape[2]))
    roles = dataclasses.replace(sequences.roles, features=block_names(size))
    return dataclasses.replace(sequences, features=block_means(sequences.frames, size), roles=roles)


class FramesTask:
    """Random windows: of a forecast the frames after `context`, of a detector each frame from those before."""

    def __init__(self, model: ModelConfig, found: FrameWindows, config: TrainConfig) -> None:
        self.config, self.found, self.settings = model, found, config
        self.context = getattr(model.head, "context", found.length - 1)

    @property
    def examples(self) -> int:
        return len(self.found.learned)

    def model(self) -> nn.Module:
        member: nn.Module = build(self.config)
        return member

    def rate(self, name: str) -> float:
        return 1.0

    def batch(self, rng: np.random.Generator, device: torch.device) -> Tensor:
        starts = rng.choice(self.found.learned, self.settings.batch_size)
        return self.found.read(starts, self.config.input.flip, rng).to(device)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Cross-entropy of brightness, whose least is at the expected brightness, as that of squared errors is."""
        made = self._made(model, batch)
        return F.binary_cross_entropy_with_logits(made.float(), batch[1:])

    def metric(self, model: nn.Module, device: torch.device) -> float | None:
        """Mean squared error of the frames that are predicted."""
        if not len(self.found.held):
            return None
        total = 0.0
        with torch.no_grad():
            for starts in _parts(self.found.held, self.settings.batch_size):
                batch = self.found.read(starts).to(device)
                made = torch.sigmoid(self._made(model, batch).float())
                error = (made - batch[1:])[self.context - 1 :] ** 2
                total += float(error.mean((0, 2, 3, 4)).sum())
        return total / len(self.found.held)

    def _made(self, model: Any, batch: Tensor) -> Tensor:
        found: Tensor = model(batch[: self.context], self.found.length - self.context)
        return found


def _parts(starts: Ints, size: int) -> Iterator[Ints]:
    for k in range(0, len(starts), size):
        yield starts[k : k + size]


class Trained(NamedTuple):
    config: ModelConfig
    weights: Weights
    provenance: dict[str, Any]


def train_frames(
    config: ModelConfig,
    found: FrameWindows,
    settings: TrainConfig,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Trained:
    """Train with early stopping on the held-out windows, where there are some."""
    mark = hashlib.sha256(json.dumps(config.to_json(), sort_keys=True).encode())
    for array in (found.frames, found.offsets, found.learned, found.held):
        mark.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    result = train(
        FramesTask(config, found, settings),
        settings,
        seeds=config.seeds,
        checkpoint=checkpoint,
        resume=resume,
        fingerprint=mark.hexdigest(),
        progress=progress,
    )
    provenance = {
        "data": mark.hexdigest(),
        "rows": len(found.frames),
        "sequences": len(found.offsets) - 1,
        "steps": result.steps,
        "metrics": {"validation_mse": result.metrics},
    }
    return Trained(config, result.weights, provenance)


def predict_ahead(members: list[Any], clips: list[Bytes], horizon: int, context: int) -> list[Bytes]:
    """The `horizon` frames [horizon, H, W, C] after the last of each clip [T, H, W, C]; the mean over the members.

    The last `context` frames are looked at, or as many as there are.
    """
    order = sorted(range(len(clips)), key=lambda k: min(len(clips[k]), context))
    found: dict[int, Bytes] = {}
    with torch.no_grad():
        at = 0
        while at < len(order):
            steps = min(len(clips[order[at]]), context)
            part = [k for k in order[at : at + TOGETHER] if min(len(clips[k]), context) == steps]
            seen = as_numbers(np.stack([clips[k][-steps:] for k in part], 1))
            made = torch.stack([torch.sigmoid(member(seen, horizon)) for member in members]).mean(0)[-horizon:]
            pictures = np.rint(made.permute(1, 0, 3, 4, 2).numpy() * 255).astype(np.uint8)
            found |= dict(zip(part, pictures, strict=True))
            at += len(part)
    return [found[k] for k in range(len(clips))]


def odd_errors(
    members: list[Any],
    frames: Bytes,
    offsets: Ints,
    blocks: tuple[int, ...],
    progress: Callable[[int, int], None] | None = None,
) -> Floats:
    """Errors [N, blocks] of each frame's prediction from those before, NaN of first frames; clips piece by piece."""
    found = np.full((len(frames), blocks[0] * blocks[1]), np.nan)
    with torch.no_grad():
        for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            states: list[Any] = [None] * len(members)
            for start in range(a, b - 1, PIECE):
                stop = min(start + PIECE, b - 1)
                seen = as_numbers(np.asarray(frames[start:stop]))[:, None]
                made = torch.zeros(())
                for k, member in enumerate(members):
                    logits, states[k] = member.step(seen, states[k])
                    made = made + torch.sigmoid(logits) / len(members)
                truth = np.asarray(frames[start + 1 : stop + 1], np.float64) / 255
                guess = made[:, 0].permute(0, 2, 3, 1).double().numpy()
                found[start + 1 : stop + 1] = block_errors(guess, truth, blocks)
                if progress:
                    progress(stop + 1, len(frames))
    return found
