"""Clips as subjects: attribution over pixels, in front of the encoder of frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carousel.config import ModelConfig
from carousel.explain.sequences import SequenceSubject, loss_words, read_labelled
from carousel.explain.subject import Channel, Pace, chosen
from carousel.inputs.rows import channels
from carousel.sequences import Examples

__all__ = ["FramesSubject", "frames_subject"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_CLIPS = 8
MOST_FRAMES = 64
GRID = 4  # parts of a side that attributions are summed over


@dataclass(kw_only=True)
class FramesSubject(SequenceSubject):
    """Leaves are pixels [n, T, H, W, C], as bytes in floating point; channels are the parts of a picture."""

    pixels: Tensor | None = None  # that are read instead of the clips' own
    maps: Tensor | None = None  # [n, T, H, W] attributions of the last fold

    def leaves(self, which: Tensor) -> Tensor:
        values = self._own(which).values
        padded: Tensor = values.with_values(values.values.float()).to_padded(batch_first=True)
        return padded

    @contextmanager
    def reading(self, leaves: Tensor) -> Iterator[None]:
        self.pixels = leaves
        try:
            yield
        finally:
            self.pixels = None

    def fold(self, values: Tensor) -> Tensor:
        self.maps = values.sum(-1)
        return torch.zeros(*values.shape[:2], GRID * GRID, dtype=values.dtype).index_add(
            2, self._parts(values), self.maps.flatten(2)
        )

    def without(self, leaves: Tensor, baseline: Tensor, gone: Tensor, column_of: Tensor) -> Tensor:
        mask = gone[..., column_of][..., self._parts(leaves)].unflatten(2, tuple(leaves.shape[2:4]))
        return torch.where(mask[..., None], baseline, leaves)

    def _parts(self, leaves: Tensor) -> Tensor:
        """The part that each pixel [H * W] lies in."""
        height, width = leaves.shape[2:4]
        y, x = torch.arange(height) * GRID // height, torch.arange(width) * GRID // width
        return (y[:, None] * GRID + x).flatten()

    def _own(self, which: Tensor) -> Any:
        return super()._batch(which)

    def _batch(self, which: Tensor) -> Any:
        batch = self._own(which)
        if self.pixels is None:
            return batch
        given = batch.values
        return batch._replace(values=given.with_values(self.pixels[given.sequence, given.position]))


def frames_subject(
    estimator: Any, frame: Any, *, source: str, wanted: tuple[str, ...] = (), member: int = 0, y: Any = None
) -> FramesSubject:
    """The clips that a table names, or arrays of frames; of long ones the last frames."""
    config: ModelConfig = estimator.config_
    clips, truth = read_labelled(estimator, frame, source, y)
    which, notes = chosen(clips.ids, wanted, source, MOST_CLIPS)
    everything = channels(clips, config.input)
    lengths = everything.lengths[which]
    if (lengths > MOST_FRAMES).any():
        notes.append(f"Of clips longer than {MOST_FRAMES} frames only the last {MOST_FRAMES} were looked at.")
    seen, _ = everything.select(which, np.maximum(lengths - MOST_FRAMES, 0), lengths)
    known, examples = np.full(len(which), np.nan), None
    if truth is not None:
        head = config.head
        scaled = (truth - head.mean) / head.scale if head.kind == "regression" else truth
        known = scaled[which] if config.task == "classify" else scaled[everything.offsets[which] + lengths - 1]
        every = np.arange(len(everything.offsets) - 1)
        examples = Examples(everything, scaled, np.ones(len(scaled)), every, every[:0])
    end = "" if config.task == "classify" else " in the last frame"
    parts = [f"part {y}.{x}" for y in range(1, GRID + 1) for x in range(1, GRID + 1)]
    notes.append(
        f"Pictures are divided into {GRID} x {GRID} parts, of which part 1.2 is the second from the left at the top."
    )
    return FramesSubject(
        title=source,
        task=config.task,
        net=estimator.model_[member],
        lengths=seen.lengths,
        names=[str(clips.ids[k]) if clips.roles.id else f"clip {k}" for k in which],
        channels=[Channel(name, name) for name in parts],
        answer=f"the log odds of the predicted label{end}" if config.head.kind == "label" else f"the answer{end}",
        pace=Pace(),
        notes=notes,
        member=member,
        own_steps=int((estimator.provenance_.get("steps") or [0])[min(member, config.seeds - 1)]),
        config=config,
        seen=seen,
        truth=known,
        examples=examples,
        loss_name=loss_words(config, None if truth is None else known),
    )
