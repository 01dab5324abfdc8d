"""The only training loop; its choices are in `trainconfig.TrainConfig`."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import logging
import math
import signal
import sys
import threading
import time
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from carousel.adamw import AdamW
from carousel.checkpoint import Checkpoint
from carousel.errors import CarouselError
from carousel.trainconfig import TrainConfig

__all__ = ["Event", "Interrupted", "Result", "Task", "TrainConfig", "train"]


TIDY = 50  # steps, after which free memory goes back to the system


class Event(NamedTuple):
    """How training stands; `loss` is a running mean, `metric` the last validation metric (lower is better)."""

    step: int
    total: int
    member: int
    members: int
    loss: float
    metric: float | None
    best: float | None
    rate: float  # steps a second
    again: bool = False  # a second stage, on the held-out rows as well


class Progress(Protocol):
    def __call__(self, event: Event) -> None: ...


class Task(Protocol):
    """What is trained: how a model is made, what it sees, and how well it does."""

    @property
    def examples(self) -> int:
        """How many there are to train on."""
        ...

    def model(self) -> nn.Module:
        """A member with its starting weights, drawn from torch's generator."""
        ...

    def rate(self, name: str) -> float:
        """The learning rate of a parameter in units of the common one."""
        ...

    def batch(self, rng: np.random.Generator, device: torch.device) -> Any: ...

    def loss(self, model: nn.Module, batch: Any) -> Tensor: ...

    def metric(self, model: nn.Module, device: torch.device) -> float | None:
        """On held-out data, lower is better; None where there are none."""
        ...


@typing.runtime_checkable
class Stateful(Protocol):
    """A task whose batches go on from one another."""

    def carried(self) -> dict[str, Tensor]:
        """What the next batch depends on beside the weights and the generators."""
        ...

    def carry(self, taken: dict[str, Tensor]) -> None: ...


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal; `checkpoint` is where it can be taken up again."""

    def __init__(self, signum: int, checkpoint: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; resume from {checkpoint}")
        self.signum, self.checkpoint = signum, checkpoint


@dataclass
class Result:
    """The best weights of every member, and what was measured on the way."""

    members: list[dict[str, Tensor]] = field(default_factory=list)
    metrics: list[float | None] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def weights(self) -> dict[str, NDArray[Any]]:
        """Of all members, named as `ModelConfig.shapes` says."""
        return {f"{k}.{n}": value.numpy() for k, member in enumerate(self.members) for n, value in member.items()}


def train(
    task: Task,
    config: TrainConfig,
    *,
    seeds: int = 1,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    fingerprint: str = "",
    stage: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Train `seeds` members one after the other, member k from seed `config.seed + k`.

    A `checkpoint` is written every so many steps, and on SIGINT or SIGTERM, which then raise Interrupted; `resume`
    goes on from it, bit for bit as if nothing had happened (on the same machine and thread count). Raises
    CarouselError where it is missing or of another config or other data (`fingerprint`), and for more threads than
    there are processors. `stage` is kept in the
    checkpoint for a caller that trains in several stages, see `checkpoint.stage_of`. The checkpoint stays: the
    caller removes it when the model is safe.
    """
    config.require_threads()
    place = Checkpoint(Path(checkpoint), _identity(config, seeds, fingerprint), stage or {}) if checkpoint else None
    if resume and place is None:
        raise CarouselError("resume needs a checkpoint to go on from; name its file.")
    taken = place.read() if place and resume else None
    started = time.monotonic()
    result = Result()
    if taken:
        result.members, result.metrics, result.steps = taken.members, taken.metrics, taken.steps
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices), _threads(config.threads), _signals(place) as stop:
        for member in range(len(result.members), seeds):
            torch.manual_seed(config.seed + member)
            loop = _Loop(task, config, member, seeds, progress, again=bool(stage))
            if taken and taken.state is not None:
                loop.load_state(taken.state, taken.arrays)
                taken = None
            while not loop.done:
                loop.step()
                if place and (stop or loop.at % config.checkpoint_every == 0):
                    place.write(result.members, result.metrics, result.steps, *loop.state())
                if place and stop:
                    raise Interrupted(stop[0], place.path)
            weights, metric, step = loop.finish()
            result.members.append(weights)
            result.metrics.append(metric)
            result.steps.append(step)
            if place and member + 1 < seeds:
                place.write(result.members, result.metrics, result.steps, None, {})
    result.seconds = time.monotonic() - started
    return result


def _identity(config: TrainConfig, seeds: int, fingerprint: str) -> dict[str, Any]:
    return {"config": json.loads(json.dumps(dataclasses.asdict(config))), "seeds": seeds, "data": fingerprint}


class _Loop:
    """One member on its way: `step` until `done`, then `finish`."""

    def __init__(
        self,
        task: Task,
        config: TrainConfig,
        member: int,
        members: int,
        progress: Progress | None,
        again: bool = False,
    ) -> None:
        self.task, self.config, self.progress = task, config, progress
        self.total = config.total_steps(task.examples)
        self.member, self.members, self.again = member, members, again
        self.fabric = _fabric(config)
        self.rng = np.random.default_rng([config.seed + member, 0xCA])
        plain = task.model()
        groups = _groups(task, plain, config)
        if isinstance(self.fabric, _Processor):
            self.model, self.optimizer = plain, AdamW(groups)
        else:
            # not the fused one, which with 16-mixed unscales gradients by itself, so that Fabric refuses to clip them
            self.model, self.optimizer = self.fabric.setup(plain, torch.optim.AdamW(groups, lr=config.learning_rate))
        self.plain = plain.train()
        self.average = {k: v.detach().clone() for k, v in self.plain.state_dict().items()}
        self.best = {k: v.clone() for k, v in self.average.items()}
        self._pair()
        self.recent: list[dict[str, Tensor]] = []
        self.at, self.waited, self.stopped = 0, 0, False
        self.best_metric: float | None = None
        self.metric: float | None = None
        self.best_step = 0
        self.loss = math.nan
        self.clock = (0, time.monotonic())

    @property
    def done(self) -> bool:
        return self.stopped or self.at >= self.total

    def rate(self) -> float:
        """The learning rate at the next step: linear warm-up, then cosine down to 1 %."""
        c = self.config
        rise = min(1.0, (self.at + 1) / max(1, c.warmup))
        phase = max(0, self.at - c.warmup) / max(1, self.total - c.warmup)
        return c.learning_rate * rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * phase)))

    def step(self) -> None:
        rate = self.rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        batch = self.task.batch(self.rng, self.fabric.device)
        with self._autocast():
            loss = self.task.loss(self.model, batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise CarouselError(
                f"the loss is no longer finite at step {self.at + 1}; lower learning_rate"
                f" ({self.config.learning_rate}) or look for extreme values in the data."
            )
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if isinstance(self.optimizer, AdamW):
            self.optimizer.clip(self.config.clip)
        else:
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=self.config.clip, error_if_nonfinite=False)
        self.optimizer.step()
        self.at += 1
        self._average()
        self.loss = value if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * value
        if self.at % self.config.evaluate_every == 0 or self.at == self.total:
            self._evaluate()
        if self.at % TIDY == 0:
            _give_back()
        if self.progress:
            since, then = self.clock
            rate = (self.at - since) / max(1e-9, time.monotonic() - then)
            self.progress(
                Event(
                    self.total if self.stopped else self.at,
                    self.total,
                    self.member,
                    self.members,
                    self.loss,
                    self.metric,
                    self.best_metric,
                    rate,
                    self.again,
                )
            )

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Of bfloat16, around model and loss; Fabric's own converts what goes into a model, and refuses a Ragged."""
        if self.config.precision != "bf16-mixed":
            return contextlib.nullcontext()
        return torch.autocast(self.fabric.device.type, torch.bfloat16)

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(self.config.averaging, (1 + self.at) / (10 + self.at)) if self.config.averaging else 0.0
        averages, now = self.moving
        torch._foreach_lerp_(averages, now, 1 - keep)
        for mean, value in self.counting:
            mean.copy_(value)

    def _pair(self) -> None:
        """Averages beside the weights that they follow, listed once: `state_dict` takes longer than the averaging."""
        pairs = [(self.average[name], value) for name, value in self.plain.state_dict().items()]
        floating = [pair for pair in pairs if pair[1].is_floating_point()]
        self.moving = [pair[0] for pair in floating], [pair[1] for pair in floating]
        self.counting = [pair for pair in pairs if not pair[1].is_floating_point()]

    def _evaluate(self) -> None:
        """Judge the averaged weights, and their mean over evaluations; keep them where they are the best so far."""
        judged: list[float] = []
        better = False
        self.plain.eval()
        for weights in self._candidates():
            with torch.no_grad(), _weights(self.plain, weights):
                metric = self.task.metric(self.plain, self.fabric.device)
            if metric is None or self.best_metric is None or metric < self.best_metric:
                self.best_metric, self.best_step, better = metric, self.at, True
                for name, value in weights.items():
                    self.best[name].copy_(value)
            if metric is None:  # nothing says whether a mean over evaluations is better
                break
            judged.append(metric)
        self.plain.train()
        self.metric = min(judged, default=None)
        self.waited = 0 if better else self.waited + 1
        self.stopped = bool(self.config.patience) and self.waited >= self.config.patience

    def _candidates(self) -> Iterator[dict[str, Tensor]]:
        """The weights to judge: those of now, then the mean of the last `checkpoints` that were judged."""
        yield self.average
        if self.config.checkpoints == 1:
            return
        self.recent = [*self.recent, {k: v.clone() for k, v in self.average.items()}][-self.config.checkpoints :]
        if len(self.recent) > 1:
            yield {
                name: torch.stack([one[name] for one in self.recent]).mean(0) if value.is_floating_point() else value
                for name, value in self.average.items()
            }

    def finish(self) -> tuple[dict[str, Tensor], float | None, int]:
        return {k: v.cpu() for k, v in self.best.items()}, self.best_metric, self.best_step

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Everything that the next step depends on: plain values, and tensors by name."""
        arrays = {f"model.{k}": v for k, v in self.plain.state_dict().items()}
        arrays |= {f"average.{k}": v for k, v in self.average.items()}
        arrays |= {f"best.{k}": v for k, v in self.best.items()}
        arrays |= {f"recent.{n}.{k}": v for n, one in enumerate(self.recent) for k, v in one.items()}
        optimizer = self.optimizer.state_dict()
        for k, slots in optimizer["state"].items():
            arrays |= {f"optimizer.{k}.{name}": value for name, value in slots.items()}
        arrays["torch_rng"] = torch.get_rng_state()
        if self.fabric.device.type == "cuda":
            arrays["cuda_rng"] = torch.cuda.get_rng_state(self.fabric.device)
        if isinstance(self.task, Stateful):
            arrays |= {f"task.{k}": v for k, v in self.task.carried().items()}
        values = {name: getattr(self, name) for name in _VALUES}
        return values | {"numpy_rng": self.rng.bit_generator.state}, arrays

    def load_state(self, values: dict[str, Any], arrays: dict[str, Tensor]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

        self.plain.load_state_dict(part("model."))
        device = self.fabric.device
        self.average = {k: v.to(device) for k, v in part("average.").items()}
        self.best = {k: v.to(device) for k, v in part("best.").items()}
        self._pair()
        for name, value in part("recent.").items():
            number, _, key = name.partition(".")
            if int(number) == len(self.recent):
                self.recent.append({})
            self.recent[int(number)][key] = value.to(device)
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in part("optimizer.").items():
            number, _, slot = name.partition(".")
            slots.setdefault(int(number), {})[slot] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})
        if isinstance(self.task, Stateful):
            self.task.carry({k: v.to(device) for k, v in part("task.").items()})
        for name in _VALUES:
            setattr(self, name, values[name])
        self.rng.bit_generator.state = values["numpy_rng"]
        torch.set_rng_state(arrays["torch_rng"])
        if "cuda_rng" in arrays:
            torch.cuda.set_rng_state(arrays["cuda_rng"], device)
        self.clock = (self.at, time.monotonic())


class _Processor:
    """What the loop asks of Fabric, on the processor: there Fabric adds nothing but a second of imports and a quarter
    of a millisecond a step."""

    device = torch.device("cpu")

    def backward(self, loss: Tensor) -> None:
        loss.backward()


def _plain_processor(config: TrainConfig) -> bool:
    if config.precision == "16-mixed" or config.accelerator not in ("auto", "cpu"):
        return False
    return config.accelerator == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available())


def _fabric(config: TrainConfig) -> Any:
    """Lightning Fabric for one device; CarouselError where this machine has no such accelerator or precision."""
    if _plain_processor(config):
        return _Processor()
    from lightning_fabric import Fabric

    log = logging.getLogger("lightning_fabric.utilities.rank_zero")
    level = log.level
    log.setLevel(logging.WARNING)  # it announces the precision that was asked for
    try:
        precision = "32-true" if config.precision == "bf16-mixed" else config.precision
        return Fabric(accelerator=config.accelerator, devices=1, precision=precision)
    except (ValueError, RuntimeError) as error:
        reason = str(error).split(". ")[0]
        raise CarouselError(
            f"accelerator {config.accelerator!r} with precision {config.precision!r} cannot be used here: {reason}."
        ) from None
    finally:
        log.setLevel(level)


def _groups(task: Task, model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Parameters by learning rate; biases and gains do not decay."""
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        key = task.rate(name), config.weight_decay if parameter.ndim > 1 else 0.0
        found.setdefault(key, []).append(parameter)
    return [{"params": p, "factor": factor, "weight_decay": decay} for (factor, decay), p in found.items()]


_VALUES = ("at", "waited", "stopped", "best_metric", "metric", "best_step", "loss")


@contextlib.contextmanager
def _weights(model: nn.Module, weights: dict[str, Tensor]) -> Iterator[None]:
    """The model with other weights for a while."""
    own = {k: v.detach().clone() for k, v in model.state_dict().items()}
    model.load_state_dict(weights)
    try:
        yield
    finally:
        model.load_state_dict(own)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _signals(place: Checkpoint | None) -> Iterator[list[int]]:
    """A list that a first SIGINT or SIGTERM puts its number in; a second one acts as it always does."""
    seen: list[int] = []
    if place is None or threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before: dict[int, Any] = {}

    def note(signum: int, frame: types.FrameType | None) -> None:
        seen.append(signum)
        signal.signal(signum, before[signum])

    for signum in (signal.SIGINT, signal.SIGTERM):
        before[signum] = signal.signal(signum, note)
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _give_back() -> None:
    """Batches of ever other sizes leave gaps between what is used, which glibc keeps: gigabytes in an hour."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and needs none
        if trim is not None:
            trim(0)
