"""Training models of whole sequences: which rows make a batch, which loss, which metric, and calibration afterwards."""

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

from carousel.augment import blur_readings, hide_observations
from carousel.config import ModelConfig, from_json, to_json
from carousel.framenet import move_pictures
from carousel.inputs.fitted import FIRST, UNSEEN
from carousel.inputs.frames import FramesInput
from carousel.inputs.sequence import GAPPED, Channels
from carousel.model import SequenceBatch, build, initialise, members_from, sequence_batch
from carousel.stages import in_stages
from carousel.train import Progress, Result, TrainConfig, train

__all__ = ["Examples", "Fitted", "SequenceTask", "outputs", "sequence_chunks", "train_sequences"]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Weights = dict[str, NDArray[Any]]

CHUNK_ROWS = 1 << 15  # rows predicted at once
CHUNK_FRAMES = 1 << 9
MOST_JUDGED = 1 << 17  # rows that an evaluation during training looks at


@dataclass(frozen=True)
class Examples:
    """Sequences as channels with what is to be learned of them.

    `truth` is [B] (classify) or [N] (tag): class numbers, scaled numbers, or 0 and 1 of a warning; NaN is not learned.
    `weight` of each has its shape. `training` and `held_out` are sequences; with `learn` [N] and `judge` [N] only those
    rows count in either (a split by time keeps the rows before as context).
    """

    channels: Channels
    truth: Floats
    weight: Floats
    training: Ints
    held_out: Ints
    learn: NDArray[np.bool_] | None = None
    judge: NDArray[np.bool_] | None = None
    intent: Floats | None = None  # [B] of texts whose words are learned, the class of the whole; NaN: not known


class Batch(NamedTuple):
    seen: SequenceBatch
    truth: Tensor
    weight: Tensor  # 0 where nothing is to be learned


class SequenceTask:
    """Batches of whole sequences (or random crops of them) until they are so many, or so many rows."""

    def __init__(self, model: ModelConfig, examples: Examples, config: TrainConfig) -> None:
        self.config, self.examples_, self.settings = model, examples, config
        self.per_row = len(examples.truth) == len(examples.channels.values) and model.task != "classify"
        self.lengths = examples.channels.lengths[examples.training]
        self.judged = self._judged()
        self.hidden = self._hidden()
        self.categories = [c.codes for c in model.input.embedded]

    @property
    def examples(self) -> int:
        """Batches of an epoch times their size: rows may fill a batch before sequences do."""
        rows = int(np.minimum(self.lengths, self.settings.crop or self.lengths.max()).sum())
        batches = max(len(self.lengths) / self.settings.batch_size, rows / self.settings.batch_rows)
        return int(np.ceil(batches)) * self.settings.batch_size

    def model(self) -> nn.Module:
        member: nn.Module = build(self.config)
        initialise(member.stack, self.settings.span)  # type: ignore[arg-type]
        with torch.no_grad():
            member.head.out.bias.copy_(torch.from_numpy(self._prior()))  # type: ignore[union-attr, operator]
        return member

    def _prior(self) -> Singles:
        """The output's starting bias: log shares of the classes, log odds of the event, 0 for scaled numbers.

        Without it the first hundred steps on rare events learn nothing but that they are rare (Lin et al. 2017).
        """
        found, head = self.examples_, self.config.head
        if head.kind == "regression":
            return np.zeros(1, np.float32)
        inside = np.zeros(len(found.channels.offsets) - 1, bool)
        inside[found.training] = True
        used = np.repeat(inside, found.channels.lengths) if self.per_row else inside
        if self.per_row and found.learn is not None:
            used = used & found.learn
        used = used & np.isfinite(found.truth)
        count = len(head.classes) if head.kind == "label" else 2
        mass = np.bincount(found.truth[used].astype(np.int64), found.weight[used], minlength=count) + 0.5
        logs = np.log(mass / mass.sum())
        return np.asarray(logs if head.kind == "label" else logs[1:] - logs[:1], np.float32)

    def rate(self, name: str) -> float:
        return 1.0

    def batch(self, rng: np.random.Generator, device: torch.device) -> Batch:
        which, start, stop = self._draw(rng)
        found = self.examples_
        seen, rows = found.channels.select(which, start, stop)
        truth, weight = (
            (found.truth[rows], found.weight[rows]) if self.per_row else (found.truth[which], found.weight[which])
        )
        if self.per_row and found.learn is not None:
            weight = weight * found.learn[rows]
        if isinstance(self.config.input, FramesInput):
            seen = move_pictures(seen, self.config.input, rng)
        if self.settings.hide:
            seen = hide_observations(seen, self.config.input, self.hidden, rng)
        if self.settings.noise:
            seen = blur_readings(seen, self.config.input, self.settings.noise, rng)
        return _batch(self._forget(seen, rng), truth, weight, device)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        weight, share = batch.weight, self.settings.replicate
        if self.per_row or not share:
            return _mean(_losses(self.config, model(batch.seen), batch.truth), weight)
        found, rows = model(batch.seen, every_row=True)
        sequence = batch.seen.values.sequence
        each = weight / batch.seen.values.lengths.clamp(min=1)  # of a sequence's rows together as much as itself
        own = _mean(_losses(self.config, found, batch.truth), weight)
        return (1 - share) * own + share * _mean(_losses(self.config, rows, batch.truth[sequence]), each[sequence])

    def metric(self, model: nn.Module, device: torch.device) -> float | None:
        total = count = 0.0
        found = self.examples_
        with torch.no_grad():
            for which in sequence_chunks(found.channels, self.judged):
                seen, rows = found.channels.select(which)
                at = rows if self.per_row else which
                weight = found.weight[at]
                if self.per_row and found.judge is not None:
                    weight = weight * found.judge[rows]
                batch = _batch(seen, found.truth[at], weight, device)
                total += float((_losses(self.config, model(batch.seen), batch.truth) * batch.weight).sum())
                count += float(batch.weight.sum())
        return total / count if count else None

    def _hidden(self) -> Floats:
        """The share of readings to hide of each column with gaps: less where fewer than half of them are missing, so
        that a column with a gap here and there is not made one of gaps."""
        seen, at, found = self.examples_.channels, 0, []
        inside = np.zeros(len(seen.offsets) - 1, bool)
        inside[self.examples_.training] = True
        rows = np.repeat(inside, seen.lengths)
        for channel in self.config.input.numbers:
            if channel.gaps:
                missing = 1.0 - float(seen.values[rows, at + 1].mean())
                found.append(self.settings.hide * min(1.0, 2.0 * missing))
            at += GAPPED if channel.gaps else 1
        return np.array(found)

    def _judged(self) -> Ints:
        """The held-out sequences that early stopping looks at: evenly among all, of about MOST_JUDGED rows."""
        held_out = self.examples_.held_out
        rows = int(self.examples_.channels.lengths[held_out].sum())
        if rows <= MOST_JUDGED:
            return held_out
        count = max(1, round(len(held_out) * MOST_JUDGED / rows))
        return held_out[np.linspace(0, len(held_out) - 1, count).astype(np.int64)]

    def _draw(self, rng: np.random.Generator) -> tuple[Ints, Ints | None, Ints | None]:
        """Sequences of the next batch, each at most once in it; a function of the generator alone, so that a training
        that was interrupted goes on as it would have."""
        settings, crop = self.settings, self.settings.crop
        count = len(self.lengths)
        picked = rng.choice(count, min(settings.batch_size, count), replace=False)
        rows = np.cumsum(np.minimum(self.lengths[picked], crop) if crop else self.lengths[picked])
        picked = picked[: max(1, int(np.searchsorted(rows, settings.batch_rows, side="right")))]
        which, lengths = self.examples_.training[picked], self.lengths[picked]
        if not crop or lengths.max() <= crop:
            return which, None, None
        start = (rng.random(len(which)) * (np.maximum(lengths - crop, 0) + 1)).astype(np.int64)
        return which, start, np.minimum(start + crop, lengths)

    def _forget(self, seen: Channels, rng: np.random.Generator) -> Channels:
        """Show some categories as never seen, all through a sequence, so that the model knows what to do then."""
        share = self.settings.unseen
        if not self.categories or not share:
            return seen

        def forget(codes: Ints, again: Ints | None) -> Ints:
            gone = rng.random((len(seen.offsets) - 1, codes.shape[1])) < share
            gone = gone if again is None else np.repeat(gone, again, 0)
            return np.where(gone & (codes >= FIRST), UNSEEN, codes)

        return seen._replace(codes=forget(seen.codes, seen.lengths), static_codes=forget(seen.static_codes, None))


def _batch(seen: Channels, truth: Floats, weight: Floats, device: torch.device | str) -> Batch:
    known = np.isfinite(truth)
    return Batch(
        sequence_batch(seen, device),
        torch.from_numpy(np.where(known, truth, 0.0).astype(np.float32)).to(device),
        torch.from_numpy((weight * known).astype(np.float32)).to(device),
    )


def _losses(config: ModelConfig, found: Tensor, truth: Tensor) -> Tensor:
    """Of each sequence or row: cross-entropy, of a warning the binary one, of a number half the squared error."""
    kind = config.head.kind
    if kind == "label":
        return F.cross_entropy(found, truth.long(), reduction="none")
    if kind == "event":
        return F.binary_cross_entropy_with_logits(found[:, 0], truth, reduction="none")
    return 0.5 * (found[:, 0] - truth) ** 2


def _mean(losses: Tensor, weight: Tensor) -> Tensor:
    return (losses * weight).sum() / weight.sum().clamp(min=1e-6)


def sequence_chunks(channels: Channels, which: Ints) -> Iterator[Ints]:
    """The sequences `which` in pieces of about CHUNK_ROWS rows, those of similar length together."""
    lengths = channels.lengths[which]
    order = np.argsort(lengths, kind="stable")
    ends = np.cumsum(lengths[order]) // (CHUNK_ROWS if channels.values.ndim <= 2 else CHUNK_FRAMES)
    for part in np.split(order, np.flatnonzero(np.diff(ends)) + 1) if len(order) else ():
        yield which[part]


def outputs(
    members: list[Any],
    channels: Channels,
    which: Ints | None = None,
    per_row: bool = True,
    told: Callable[[int, int], None] | None = None,
) -> Floats:
    """The mean over the members of what their heads give: [N, outputs] of rows, or [B, outputs] of sequences.

    Only the sequences `which` are computed, the others are NaN. `told` of rows that are done, of how many.
    """
    which = np.arange(len(channels.offsets) - 1) if which is None else which
    count = len(channels.values) if per_row else len(channels.offsets) - 1
    found: Floats | None = None
    done, every = 0, int(channels.lengths[which].sum()) * len(members)

    def count_on(rows: int) -> None:
        nonlocal done
        done += rows
        if told:
            told(done, every)

    with torch.no_grad():
        for part in sequence_chunks(channels, which):
            seen, rows = channels.select(part) if channels.values.ndim <= 2 else _without_frames(channels, part)
            made = (
                torch.stack([_made(member, channels, seen, rows, count_on).double() for member in members])
                .mean(0)
                .numpy()
            )
            if found is None:
                found = np.full((count, made.shape[1]), np.nan)
            found[rows if per_row else part] = made
    return np.zeros((count, 1)) if found is None else found


def _made(member: Any, channels: Channels, seen: Channels, rows: Ints, count_on: Callable[[int], None]) -> Tensor:
    """What a member makes of some sequences; frames are encoded piece by piece, so that only features are kept."""
    if channels.values.ndim > 2:
        features = member.input.encode_clips(_Some(channels.values, rows), seen.offsets, count_on)
        seen = seen._replace(values=features.numpy())
    else:
        count_on(len(rows))
    found: Tensor = member(sequence_batch(seen))
    return found


class _Some:
    """Some of the rows of an array, taken when they are asked for."""

    def __init__(self, values: Any, rows: Ints) -> None:
        self.values, self.rows = values, rows

    def __getitem__(self, part: slice) -> Any:
        return self.values[self.rows[part]]


def _without_frames(channels: Channels, which: Ints) -> tuple[Channels, Ints]:
    """`channels.select`, but of the frames only which they are."""
    return channels._replace(values=np.zeros((len(channels.values), 0), np.float32)).select(which)


class Fitted(NamedTuple):
    """What training leaves: the config with its calibrated head, all members' weights, and how it went."""

    config: ModelConfig
    weights: Weights
    provenance: dict[str, Any]


Prepare = Callable[[bool], tuple[ModelConfig, Examples]]
Calibrate = Callable[[ModelConfig, Examples, Floats], tuple[Any, dict[str, float]]]


def train_sequences(
    prepare: Prepare,
    calibrate: Calibrate,
    settings: TrainConfig,
    *,
    refit: bool,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    task: Callable[[ModelConfig, Examples, TrainConfig], SequenceTask] = SequenceTask,
) -> Fitted:
    """Two stages: train with early stopping and calibrate the head on what is held out; then, with `refit`, anew on
    all of it for as many steps as were best.

    `prepare(everything)` gives the config fitted on the training part, or on `everything`, and its examples.
    `calibrate(config, examples, outputs)` gives the head and more metrics from outputs of the held-out part.
    `task` makes of examples what is trained. See `stages.in_stages`.
    """

    def run(
        everything: bool, settings: TrainConfig, stage: dict[str, Any], resume: bool
    ) -> tuple[ModelConfig, Examples, Result, str]:
        config, examples = prepare(everything)
        mark = fingerprint(config, examples)
        result = train(
            task(config, examples, settings),
            settings,
            seeds=config.seeds,
            checkpoint=checkpoint,
            resume=resume,
            fingerprint=mark,
            stage=stage,
            progress=progress,
        )
        return config, examples, result, mark

    def keep(made: tuple[ModelConfig, Examples, Result, str]) -> dict[str, Any]:
        config, examples, result, mark = made
        head, metrics = config.head, dict[str, Any](validation_loss=result.metrics)
        if len(examples.held_out):
            members = members_from(config, result.weights)
            answers = outputs(members, examples.channels, examples.held_out, config.task != "classify")
            head, more = calibrate(config, examples, answers)
            metrics |= {name: value for name, value in more.items() if np.isfinite(value)}
        return {"data": mark, "metrics": metrics, "steps": result.steps, "head": to_json(head)}

    (config, examples, result, _), stage = in_stages(
        run, keep, settings, refit=refit, checkpoint=checkpoint, resume=resume
    )
    head = from_json(type(config.head), stage["head"], "stage.head")
    provenance = {
        "data": stage["data"],
        "rows": len(examples.channels.values),
        "sequences": len(examples.channels.offsets) - 1,
        "steps": stage["steps"],
        "metrics": stage["metrics"],
    }
    return Fitted(dataclasses.replace(config, head=head), result.weights, provenance)


def fingerprint(config: ModelConfig, examples: Examples) -> str:
    """Of everything that training looks at, so that a checkpoint of other data is recognised."""
    found = hashlib.sha256(json.dumps(config.to_json(), sort_keys=True).encode())
    for field in dataclasses.fields(examples):
        value = getattr(examples, field.name)
        for array in value if isinstance(value, tuple) else () if value is None else (value,):
            found.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return found.hexdigest()
