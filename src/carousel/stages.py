"""Training in two stages: with early stopping on what is held out, then anew on everything."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from carousel.checkpoint import stage_of
from carousel.errors import CarouselError
from carousel.train import TrainConfig

__all__ = ["in_stages"]

Made = TypeVar("Made")
Stage = dict[str, Any]


def in_stages(
    run: Callable[[bool, TrainConfig, Stage, bool], Made],
    keep: Callable[[Made], Stage],
    settings: TrainConfig,
    *,
    refit: bool,
    checkpoint: Path | None,
    resume: bool,
) -> tuple[Made, Stage]:
    """What the last stage made, and what `keep` says of the first: its "steps" and more.

    `run(everything, settings, stage, resume)` trains on the training part, or with `refit` a second time on
    `everything`, for as many steps as were best. What the first stage found travels in the second one's checkpoints,
    so that either can be resumed. Raises CarouselError for a checkpoint that is missing or of another kind of training.
    """
    if resume and checkpoint is None:
        raise CarouselError("resume needs a checkpoint to go on from; name its file.")
    found = stage_of(checkpoint) if resume and checkpoint else {}
    if found and not refit:
        raise CarouselError(f"{checkpoint}: the checkpoint is of a training with refit; set it, or start anew.")
    stage = found
    if not found:
        made = run(False, settings, {}, resume)
        stage = keep(made)
    if refit:
        steps = max(settings.warmup + 1, round(fmean(stage["steps"])))
        made = run(True, dataclasses.replace(settings, steps=steps, least_steps=steps), stage, bool(found))
    return made, stage
