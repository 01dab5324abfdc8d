"""Classifiers, taggers and detectors as subjects: whole sequences, or their last rows where they are long."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.config import ModelConfig
from carousel.detection import DetectTask
from carousel.errors import DataError
from carousel.explain.subject import MOST_SEQUENCES, MOST_STEPS, Channel, Pace, Subject, affordable, chosen, log_odds
from carousel.heads.detect_net import student_loss
from carousel.inputs import columns
from carousel.inputs.rows import Sequences, channels
from carousel.inputs.sequence import GAPPED, Channels, SequenceInput
from carousel.model import sequence_batch
from carousel.sequence_estimator import is_frame
from carousel.sequences import Examples, SequenceTask
from carousel.train import Task, TrainConfig

__all__ = ["SequenceSubject", "loss_words", "pools", "read_labelled", "sequence_channels", "sequence_subject"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(kw_only=True)
class SequenceSubject(Subject):
    """The answer of a sequence at its end: log odds of the predicted class or of the event, or the
    number (in the target's spreads)."""

    config: ModelConfig
    seen: Channels
    truth: Floats  # [B] of the sequence (classify) or of its last row (tag); NaN where it is not known
    examples: Examples | None  # of all the data
    predicted: Tensor = field(init=False)  # [B] class numbers that the answer is about

    def __post_init__(self) -> None:
        with torch.no_grad():
            self.predicted = self._outputs(self.everything(), self.net).argmax(1)

    def run(self, which: Tensor, net: nn.Module | None = None) -> Tensor:
        return self._answer(self._outputs(which, net or self.net), which)

    def _answer(self, made: Tensor, which: Tensor) -> Tensor:
        return log_odds(made, self.predicted[which]) if self.config.head.kind == "label" else made[:, 0]

    def loss(self, which: Tensor, net: nn.Module) -> Tensor:
        truth = torch.from_numpy(self.truth)[which].float()
        known = torch.isfinite(truth)
        if not bool(known.any()):
            return -self._answer(self._ending(which, net), which).sum()
        made, truth = self._ending(which, net)[known], truth[known]
        kind = self.config.head.kind
        if kind == "label":
            return F.cross_entropy(made, truth.long(), reduction="sum")
        if kind == "event":
            return F.binary_cross_entropy_with_logits(made[:, 0], truth, reduction="sum")
        return 0.5 * (made[:, 0] - truth).square().sum()

    def judged(self) -> Ints:
        known = np.flatnonzero(np.isfinite(self.truth))
        return known if len(known) else super().judged()

    def training(self, settings: TrainConfig) -> Task | str:
        if self.examples is None:
            return "the data have no labels to train on"
        return SequenceTask(self.config, self.examples, settings)

    def _ending(self, which: Tensor, net: nn.Module) -> Tensor:
        """What the head makes of the last row; by itself where it pools all rows, since lags count from there."""
        if not pools(self.config):
            return self._outputs(which, net)
        batch = self._batch(which)
        made: Tensor = net(batch, every_row=True)[1][batch.values.offsets[1:] - 1]
        return made

    def _outputs(self, which: Tensor, net: nn.Module) -> Tensor:
        batch = self._batch(which)
        made: Tensor = net(batch)
        return made if self.task == "classify" else made[batch.values.offsets[1:] - 1]

    def _batch(self, which: Tensor) -> Any:
        return sequence_batch(self.seen.select(which.numpy())[0])


@dataclass(kw_only=True)
class DetectSubject(Subject):
    """The answer is how odd the last row is to the model, given the rows before it (negative log-likelihood); of an
    autoencoder how badly it reconstructs its last window."""

    config: ModelConfig
    seen: Channels
    base: Tensor  # [B, C] what the forecast of the last row begins with
    truth: Tensor  # forecast: [B, C] the last row; autoencoder: [N, C]
    task_: Any

    def run(self, which: Tensor, net: nn.Module | None = None) -> Tensor:
        seen, at = self.seen.select(which.numpy())
        batch = sequence_batch(seen)
        made = (net or self.net)(batch)
        if self.config.head.method == "forecast":
            made, base, truth = made[batch.values.offsets[1:] - 1], self.base[which], self.truth[which]
            per = student_loss(made, base, torch.nan_to_num(truth)) * torch.isfinite(truth)
            total: Tensor = per.sum(1)
            return total
        truth = self.truth[torch.from_numpy(at)]
        error = F.smooth_l1_loss(made, torch.nan_to_num(truth), reduction="none") * torch.isfinite(truth)
        windows: Tensor = made.new_zeros(len(which)).index_add(0, batch.values.sequence, error.mean(1))
        return windows

    def loss(self, which: Tensor, net: nn.Module) -> Tensor:
        return self.run(which, net).sum()

    def training(self, settings: TrainConfig) -> Task | str:
        task: Task = self.task_(settings)
        return task


def pools(config: ModelConfig) -> bool:
    """Whether the head reads more rows than the last."""
    return config.task == "classify" and (config.head.pooling != "last" or config.stack.bidirectional)


def loss_words(config: ModelConfig, known: Floats | None) -> str:
    """What the gradients are of; `known` [B] are the labels, NaN where there is none."""
    if known is None:
        own = "the answer (the data have no labels)"
    else:
        own = "the loss" if np.isfinite(known).any() else "the answer (no sequence is labelled at its end)"
    return f"{own} of the last row by itself (the head reads all rows)" if pools(config) else own


def sequence_subject(
    estimator: Any, frame: Any, *, source: str, wanted: tuple[str, ...] = (), member: int = 0, y: Any = None
) -> Subject:
    """The sequences of a table or arrays; DataError as the estimator's own reading."""
    config: ModelConfig = estimator.config_
    sequences, truth = read_labelled(estimator, frame, source, y)
    which, notes = chosen(sequences.ids, wanted, source)
    most = min(MOST_STEPS, config.head.window) if getattr(config.head, "window", 0) else MOST_STEPS
    ahead = int(config.task == "detect" and config.head.method == "forecast")
    which = which[sequences.lengths[which] > ahead]
    if not len(which):
        raise DataError(f"{source}: no sequence has the two rows that a forecast of a row needs; give longer ones.")
    which, start, stop = _pieces(which, sequences.lengths[which] - ahead, most, notes)
    stack = config.stack
    keep = affordable(which, stop - start, stack.hidden_size * stack.num_layers * stack.directions, notes)
    which, start, stop = which[keep], start[keep], stop[keep]
    everything = channels(sequences, config.input)
    seen, at = everything.select(which, start, stop)
    last = sequences.offsets[which] + stop - 1
    own: dict[str, Any] = {
        "title": source,
        "task": config.task,
        "net": estimator.model_[member],
        "lengths": seen.lengths,
        "names": [str(sequences.ids[k]) if sequences.roles.id else f"sequence {k}" for k in which],
        "channels": sequence_channels(config.input),
        "pace": Pace()
        if sequences.clock.kind == "row"
        else Pace(config.input.unit, sequences.clock.stamps, str(sequences.roles.time)),
        "clock": None if sequences.clock.kind == "row" else sequences.clock,
        "time": None if sequences.clock.kind == "row" else sequences.time[at],
        "signals": _signals(sequences, config.input, at),
        "notes": notes,
        "member": member,
        "own_steps": int((estimator.provenance_.get("steps") or [0])[min(member, config.seeds - 1)]),
        "config": config,
        "seen": seen,
    }
    if config.task == "detect":
        return _detect(estimator, sequences, last, at, own)
    return _labelled(config, everything, truth, which, last, own)


def _pieces(which: Ints, lengths: Ints, most: int, notes: list[str]) -> tuple[Ints, Ints, Ints]:
    """Of each sequence its rows start:stop; of one with more than `most` some pieces, evenly spread, the last at its
    end, as long as there are no more than MOST_SEQUENCES in all."""
    room = MOST_SEQUENCES // len(which)
    count = np.where(lengths > most, np.clip(lengths // most, 1, max(1, room)), 1)
    if (lengths > most).any():
        notes.append(
            f"Of sequences longer than {most:,} steps (the longest has {int(lengths.max()):,}) pieces of {most:,} steps"
            f" were looked at, {int(count[lengths > most].sum()):,} in all, each with an empty memory at its beginning."
        )
    owner = np.repeat(np.arange(len(which)), count)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    free = np.maximum(lengths - most, 0)[owner]
    share = np.where(count[owner] > 1, number / np.maximum(count[owner] - 1, 1), 1.0)
    start = np.round(free * share).astype(np.int64)
    return which[owner], start, np.minimum(start + most, lengths[owner])


def _labelled(
    config: ModelConfig, everything: Channels, truth: Floats | None, which: Ints, last: Ints, own: dict[str, Any]
) -> Subject:
    head = config.head
    known = examples = None
    if truth is not None:
        scaled = (truth - head.mean) / head.scale if head.kind == "regression" else truth
        known = scaled[which] if config.task == "classify" else scaled[last]
        all_of_them = np.arange(len(everything.offsets) - 1)
        examples = Examples(everything, scaled, np.ones(len(scaled)), all_of_them, all_of_them[:0])
    end = "" if config.task == "classify" else " in the last row"
    answer = {
        "label": f"the log odds of the predicted class{end}",
        "event": f"the log odds of the event{end}",
        "regression": f"the predicted number{end} (in the target's spreads)",
    }[head.kind]
    return SequenceSubject(
        **own,
        truth=np.full(len(which), np.nan) if known is None else known,
        examples=examples,
        answer=answer,
        loss_name=loss_words(config, known),
    )


def _detect(estimator: Any, sequences: Sequences, last: Ints, at: Ints, own: dict[str, Any]) -> Subject:
    config: ModelConfig = own["config"]
    every = np.ones(len(sequences.time), bool)
    rows = estimator._rows(sequences, config, every, ~every)
    scaled = torch.from_numpy(rows.scaled).float()
    task = lambda settings: DetectTask(config, rows, estimator._scoring, settings)  # noqa: E731
    if config.head.method == "autoencoder":
        answer = "how badly the last window is reconstructed"
        return DetectSubject(**own, answer=answer, base=scaled[:0], truth=scaled[at], task_=task)
    base = torch.from_numpy(DetectTask(config, rows, estimator._scoring, estimator.settings).base).float()
    answer = "how odd the last row is, given the rows before it (negative log-likelihood)"
    return DetectSubject(**own, answer=answer, base=base[last], truth=scaled[last + 1], task_=task)


def read_labelled(estimator: Any, frame: Any, source: str, y: Any = None) -> tuple[Any, Floats | None]:
    """The sequences (texts, clips), and their truth where it is given or the table has the target's column."""
    roles = estimator.config_.input.roles
    has = is_frame(frame) and roles.target and roles.target[0] in columns.as_frame(frame, source).columns
    if estimator.task == "detect" or not (has or y is not None):
        return estimator.read(frame, source=source), None
    found: tuple[Any, Floats] = estimator.read_labelled(frame, y, source=source)
    return found


def _signals(sequences: Sequences, seen: SequenceInput, at: Ints) -> dict[str, Floats]:
    names = sequences.roles.features
    return {c.name: sequences.features[at, names.index(c.name)] for c in seen.numbers}


def sequence_channels(seen: SequenceInput) -> list[Channel]:
    """Of a row as the stack reads it: its numbers, clock and calendar, embeddings, then what is static."""
    columns_: list[str] = []
    for c in seen.numbers:
        columns_ += [c.name] * (GAPPED if c.gaps else 1)
    columns_ += ["time"] * seen.uneven + ["calendar"] * (2 * len(seen.calendar))
    found = [Channel(name, column) for name, column in zip(seen.channel_names(), columns_, strict=True)]
    found += [Channel(f"{c.name} [{k}]", c.name) for c in seen.categories for k in range(c.width)]
    for c in seen.static_numbers:
        found += [Channel(c.name, c.name)] + [Channel(f"{c.name} observed", c.name)] * c.gaps
    return found + [Channel(f"{c.name} [{k}]", c.name) for c in seen.static_categories for k in range(c.width)]
