"""`Forecaster` and `Detector` of clips: the frames that come next, and the frame that nobody expected."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from carousel.cell import CellSpec
from carousel.config import ModelConfig, StackConfig, to_json
from carousel.detection import DetectConfig
from carousel.errors import CarouselError, DataError
from carousel.estimator import Estimator, versions
from carousel.framing import FrameWindows, Trained, odd_errors, predict_ahead, train_frames, windows
from carousel.heads.detect import Scores, score_rows
from carousel.heads.detect_fit import fit_view
from carousel.heads.frames import NextFramesHead, OddFramesHead, block_means
from carousel.inputs.clips import Clips, fit_frames, read_clips, read_pictures
from carousel.inputs.frames import Bytes, Frames, FramesInput
from carousel.inputs.roles import Roles
from carousel.model import members_from
from carousel.sequence_estimator import is_frame
from carousel.trainconfig import TrainConfig

__all__ = ["FRAME_DEFAULTS", "FrameForecasts", "fit_odd_frames", "score_frames"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

FRAME_DEFAULTS = TrainConfig(
    num_layers=2,
    batch_size=8,
    steps=600,
    epochs=40,
    least_steps=200,
    learning_rate=1e-3,
    warmup=30,
    evaluate_every=50,
    patience=6,
    averaging=0.98,
    weight_decay=1e-4,
    refit=False,
    width=0,
)
CONTEXT = 10  # frames that a forecast looks back on, where nothing else is said
BLOCKS = 4  # rows and columns of blocks that a detector tells apart, where the picture is large enough
PIECE = 12  # frames of a window that a detector learns from
FEWEST = 32  # frames to learn from
MANY = 5  # clips, of which some can be held out whole


class FrameForecasts(Estimator):
    """What `Forecaster` does where it is given `frames`."""

    frames: str | Frames | None
    horizon: int
    context: int | None
    time: str | None
    decoding_: Any = None
    frame_defaults: ClassVar[TrainConfig] = FRAME_DEFAULTS

    def _fit_frames(self, data: Any, valid: Any, source: str, **given: Any) -> None:
        for name in ("id", "target", "features", "static", "known", "season"):
            if getattr(self, name, None):
                raise CarouselError(f"{name} is about tables of numbers, and frames is given; leave it out.")
        choices, stack = self._choices(), stack_of(self.settings)
        clips = self._clips(data, choices, source)
        context = self.context or CONTEXT
        length = context + self.horizon
        found = windows(
            clips.frames, clips.offsets, length, 0.0 if valid is not None else self.settings.holdout, source
        )
        if valid is not None:
            other = self._clips(valid, choices, "valid")
            found = found.judged_by(windows(other.frames, other.offsets, length, 0.0, "valid"))
        head = NextFramesHead(context, self.horizon, choices.patch)
        config = ModelConfig("forecast", frames_input(clips, choices), stack, head, int(self.seeds))
        trained = train_frames(config, found, self.settings, **given)
        self.provenance_ = {"versions": versions(), "train": to_json(self.settings)} | trained.provenance
        self._keep(trained.config, trained.weights)

    def _choices(self) -> Frames:
        return Frames.of(self.frames or Frames())

    def _clips(self, data: Any, choices: Frames, source: str) -> Clips:
        return clips_of(data, choices, self.time, source, self.decoding_)

    def predict_frames(self, data: Any, *, source: str = "data") -> tuple[Clips, list[Bytes]]:
        """The clips, and of each the `horizon` frames [horizon, H, W, C] after its last."""
        config = self._fitted()
        clips = self._clips(data, self._choices(), source)
        parts = np.split(np.arange(len(clips.frames)), clips.offsets[1:-1])
        head: NextFramesHead = config.head
        each = [np.asarray(clips.frames[rows[-head.context :]]) for rows in parts]
        return clips, predict_ahead(self.model_, each, head.horizon, head.context)


def clips_of(
    data: Any, choices: Frames, time: str | None, source: str, progress: Any = None, target: str | None = None
) -> Clips:
    """The clips of a table or of arrays."""
    if not is_frame(data):
        return read_pictures(data, choices, source=source)
    if choices.column is None:
        raise CarouselError("which column holds the clips is not said; name it, as frames='path'.")
    roles = Roles(choices.column, time, () if target is None else (target,), (), ())
    return read_clips(data, roles, choices, source=source, target=target is not None, progress=progress)


def frames_input(clips: Clips, choices: Frames) -> FramesInput:
    """Without an encoder; the whole frames are seen."""
    made = fit_frames(clips, np.arange(len(clips.frames)), choices)
    return dataclasses.replace(made, filters=(), features=0, convlstm=0, shift=0.0)


def stack_of(settings: TrainConfig) -> StackConfig:
    """CarouselError for variants of the cell that convolutions do not have."""
    cell = settings.cell
    plain = CellSpec(
        bias=cell.bias,
        peephole=cell.peephole,
        coupled=cell.coupled,
        layer_norm=cell.layer_norm,
        cell_clip=cell.cell_clip,
    )
    if cell != plain:
        raise CarouselError(
            "cells of convolutions know bias, peephole, coupled, layer_norm and cell_clip; leave the others out."
        )
    try:
        return StackConfig(settings.hidden_size, settings.num_layers, settings.dropout, cell)
    except ValueError as error:
        raise CarouselError(f"{error}; correct the parameter.") from None


def fit_odd_frames(
    clips: Clips,
    normal: Flags,
    choices: Frames,
    scoring: DetectConfig,
    settings: TrainConfig,
    *,
    reference: Any,
    rest: int,
    seeds: int,
    threshold: float,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Any = None,
) -> Trained:
    """Learn how frames usually go on, and how large errors of that usually are; of `normal` [N] frames alone."""
    if normal.sum() < FEWEST:
        raise DataError(
            f"{clips.source}: {int(normal.sum())} frames are left to learn from, at least {FEWEST} are needed; give"
            " more."
        )
    runs = _runs(normal, clips.offsets)
    length = min(PIECE, int(np.diff(runs).max()))
    if length < 2:
        raise DataError(f"{clips.source}: clips of one frame show nothing that goes on; give longer ones.")
    held = _held_out(clips, normal, settings.holdout)
    starts = np.concatenate([np.arange(a, b - length + 1) for a, b in runs])
    spans = np.stack([held[starts + k] for k in range(length)])
    found = FrameWindows(clips.frames, clips.offsets, starts[~spans.any(0)], _few(starts[spans.all(0)]), length)
    if not len(found.learned):
        raise DataError(f"{clips.source}: nothing is left to learn from beside what is held out; set holdout=0.")
    height, width = choices.picture.size
    blocks = (min(BLOCKS, height), min(BLOCKS, width))
    head = OddFramesHead(blocks, choices.patch, reference=reference, rest=rest, threshold=threshold)
    config = ModelConfig("detect", frames_input(clips, choices), stack_of(settings), head, seeds)
    trained = train_frames(config, found, settings, checkpoint=checkpoint, resume=resume, progress=progress)
    errors, values = measured(members_from(config, trained.weights), clips, blocks)
    limits = (scoring.risk, scoring.contamination)
    learned = normal & ~held
    views = [fit_view("error", k, errors, clips.offsets, learned, held, *limits) for k in scoring.smooth]
    none = np.zeros(len(normal), bool)
    views += [fit_view("value", k, values, clips.offsets, none, normal, *limits) for k in scoring.level]
    return trained._replace(config=dataclasses.replace(config, head=dataclasses.replace(head, views=tuple(views))))


def _runs(normal: Flags, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """[n, 2] stretches of one clip without known anomalies."""
    edge = np.zeros(len(normal) + 1, bool)
    edge[offsets] = True
    begin = normal & (edge[:-1] | ~np.concatenate([[False], normal[:-1]]))
    end = normal & (edge[1:] | ~np.concatenate([normal[1:], [False]]))
    return np.stack([np.flatnonzero(begin), np.flatnonzero(end) + 1], 1)


def _held_out(clips: Clips, normal: Flags, share: float) -> Flags:
    """[N] the frames held out: of some clips all, or of few clips the last share of each."""
    lengths = clips.lengths
    if len(lengths) >= MANY:
        chosen = np.random.default_rng(0xF3).permutation(len(lengths)) < round(share * len(lengths))
        return normal & np.repeat(chosen, lengths)
    position = np.arange(len(normal)) - np.repeat(clips.offsets[:-1], lengths)
    return normal & (position >= np.repeat(np.ceil(lengths * (1 - share)), lengths))


def _few(starts: NDArray[np.int64], most: int = 64) -> NDArray[np.int64]:
    return starts[np.linspace(0, len(starts) - 1, min(len(starts), most)).astype(np.int64)]


def measured(members: list[Any], clips: Clips, blocks: tuple[int, ...], progress: Any = None) -> tuple[Floats, Floats]:
    """Errors and brightness [N, blocks] of all frames."""
    errors = odd_errors(members, clips.frames, clips.offsets, blocks, progress)
    return errors, block_means(clips.frames, blocks)


def score_frames(members: list[Any], config: ModelConfig, clips: Clips, progress: Any = None) -> Scores:
    """Of all frames; first frames of clips, of which nothing is expected, have no score where only errors count."""
    head: OddFramesHead = config.head
    errors, values = measured(members, clips, head.blocks, progress)
    found = score_rows(head, errors, values, clips.offsets)  # type: ignore[arg-type]
    first = clips.offsets[:-1]
    if not any(view.of == "value" for view in head.views):
        found.score[first] = np.nan
    return found
