"""Training and measuring language models: parallel streams of text whose state is carried from piece to piece."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from carousel.config import ModelConfig
from carousel.errors import CarouselError
from carousel.heads.generate_net import GenerateNet, States
from carousel.inputs.text import END, Vocabulary
from carousel.model import build, initialise
from carousel.train import Progress, Result, TrainConfig, train

__all__ = ["Cache", "Dynamic", "GenerationTask", "nats", "stream_of", "train_generator"]

Ints = NDArray[np.int64]

CHUNK = 512  # steps that are measured at once


def stream_of(words: Vocabulary, texts: Sequence[str]) -> Ints:
    """All texts one after another, with the mark END between them, before the first and after the last: what follows an
    end is a beginning.

    >>> from carousel.inputs.text import fit_vocabulary
    >>> words = fit_vocabulary(["ab"], kind="char")
    >>> [words.tokens[k] for k in stream_of(words, ["ab", "a"])]
    ['</s>', 'a', 'b', '</s>', 'a', '</s>']
    """
    ids = words.encode(texts, longest=None)
    return np.append(np.insert(ids.values, ids.offsets[:-1], END), END)


class Batch(NamedTuple):
    tokens: Tensor  # [T, B]
    truth: Tensor  # [T, B] what follows


@dataclass(frozen=True)
class Regularisation:
    """Of activations (Merity et al. 2017): `activation` times the mean square of the output, `slowness` times that of
    its change from step to step."""

    activation: float = 0.0
    slowness: float = 0.0


class GenerationTask:
    """`batch_size` streams side by side, read piece by piece of `batch_rows` / `batch_size` steps; gradients end at the
    borders of pieces, the state goes on (truncated backpropagation through time, Williams & Peng 1990)."""

    def __init__(
        self, model: ModelConfig, training: Ints, held_out: Ints, config: TrainConfig, regular: Regularisation
    ) -> None:
        self.config, self.settings, self.regular = model, config, regular
        self.training, self.held_out = torch.from_numpy(training), torch.from_numpy(held_out)
        self.steps = max(1, config.batch_rows // config.batch_size)
        self.rows = (len(training) - 1) // config.batch_size  # of a stream
        if self.rows < 1:
            raise CarouselError(
                f"{len(training):,} tokens are too few for batch_size={config.batch_size} streams; set a smaller one."
            )
        self.at, self.shift = 0, 0
        self.states: States | None = None

    @property
    def examples(self) -> int:
        """Pieces of an epoch times the batch size."""
        return math.ceil(self.rows / self.steps) * self.settings.batch_size

    def model(self) -> nn.Module:
        self.at, self.states = 0, None
        member: GenerateNet = build(self.config)
        for layer in member.layers:
            initialise(layer)  # type: ignore[arg-type]
        return member

    def rate(self, name: str) -> float:
        return 1.0

    def batch(self, rng: np.random.Generator, device: torch.device) -> Batch:
        if self.at >= self.rows:
            self.at, self.states = 0, None
        if self.at == 0:  # streams begin elsewhere in every epoch
            self.shift = int(rng.integers(0, len(self.training) - self.rows * self.settings.batch_size))
        count = min(self.steps, self.rows - self.at)
        begin = self.shift + self.at + self.rows * torch.arange(self.settings.batch_size)
        piece = self.training[begin + torch.arange(count + 1)[:, None]].to(device)
        self.at += count
        return Batch(piece[:-1], piece[1:])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        read = model(batch.tokens, self.states, batch.truth)
        self.states = [(h.detach(), c.detach()) for h, c in read.states]
        found: Tensor = read.loss
        if self.regular.activation:
            found = found + self.regular.activation * read.output.float().square().mean()
        if self.regular.slowness and len(read.raw) > 1:
            found = found + self.regular.slowness * read.raw.float().diff(dim=0).square().mean()
        return found

    def metric(self, model: nn.Module, device: torch.device) -> float | None:
        """Nats per token of the held-out text, read once from its beginning."""
        if len(self.held_out) < 2:
            return None
        total = sum(float(part.sum()) for part in nats([_plain(model)], self.held_out.to(device)))
        return total / (len(self.held_out) - 1)

    def carried(self) -> dict[str, Tensor]:
        """What the next batch depends on beside the weights."""
        found = {"at": torch.tensor([self.at, self.shift])}
        for k, (h, c) in enumerate(self.states or []):
            found |= {f"h{k}": h, f"c{k}": c}
        return found

    def carry(self, taken: dict[str, Tensor]) -> None:
        """Go on from what `carried` gave."""
        self.at, self.shift = (int(v) for v in taken["at"])
        self.states = [(taken[f"h{k}"], taken[f"c{k}"]) for k in range((len(taken) - 1) // 2)] or None


def _plain(model: nn.Module) -> GenerateNet:
    """The net behind Fabric's wrapper."""
    found = getattr(model, "module", model)
    assert isinstance(found, GenerateNet)
    return found


@dataclass(frozen=True)
class Cache:
    """A continuous cache (Grave et al. 2017): what followed states like this one among the last `size` tokens, with
    `share` of the probability; `sharpness` of the likeness. Raises ValueError for values out of range."""

    size: int = 500
    share: float = 0.1
    sharpness: float = 0.3

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 < self.share < 1 or self.sharpness < 0:
            raise ValueError(
                f"a cache has a size of 1 or more, a share in (0, 1), a sharpness of 0 or more, got {self}"
            )


@dataclass(frozen=True)
class Dynamic:
    """Dynamic evaluation (Krause et al. 2018): a step of gradient descent with `rate` after every `steps` tokens that
    were measured. Raises ValueError for values out of range."""

    rate: float = 0.05
    steps: int = 20

    def __post_init__(self) -> None:
        if not self.rate > 0 or self.steps < 1:
            raise ValueError(f"dynamic evaluation has a positive rate and at least 1 step, got {self}")


def nats(
    nets: Sequence[GenerateNet], tokens: Tensor, *, cache: Cache | None = None, dynamic: Dynamic | None = None
) -> Iterator[Tensor]:
    """-log p of each of tokens[1:], piece by piece, reading from the beginning with the state carried on; of an
    ensemble the mean of the probabilities.

    With `dynamic` the nets change while they read: give copies.
    """
    states: list[States | None] = [None] * len(nets)
    past: list[tuple[Tensor, Tensor]] = [(torch.empty(0, 0), torch.empty(0, dtype=torch.long))] * len(nets)
    chunk = dynamic.steps if dynamic else CHUNK
    for begin in range(0, len(tokens) - 1, chunk):
        piece = tokens[begin : begin + chunk + 1]
        truth, logs = piece[1:], []
        for k, net in enumerate(nets):
            with torch.set_grad_enabled(dynamic is not None):
                read = net(piece[:-1, None], states[k])
                states[k] = [(h.detach(), c.detach()) for h, c in read.states]
                log = read.logits[:, 0].float().log_softmax(1)
                own = log.gather(1, truth[:, None])[:, 0]
            if dynamic:
                _descend(net, -own.mean(), dynamic.rate)
            own = own.detach()
            if cache:
                own, past[k] = _recalled(own, read.raw[:, 0].detach(), truth, past[k], cache)
            logs.append(own)
        yield -(torch.stack(logs).logsumexp(0) - math.log(len(nets)))


def _descend(net: GenerateNet, loss: Tensor, rate: float) -> None:
    parameters = [p for p in net.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, parameters)
    norm = torch.stack([g.norm() for g in gradients]).norm().clamp(min=1.0)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.sub_(rate * gradient / norm)


def _recalled(
    own: Tensor, states: Tensor, truth: Tensor, past: tuple[Tensor, Tensor], cache: Cache
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """log p with the cache mixed in; each step looks at the `size` steps before it, of which it knows what followed."""
    before, followed = past
    keys = torch.cat([before.view(-1, states.shape[1]), states])
    answers = torch.cat([followed, truth])
    place = len(before) + torch.arange(len(states))
    index = place[:, None] - 1 - torch.arange(cache.size)  # [T, size]
    there = index >= 0
    index = index.clamp(min=0)
    scores = cache.sharpness * (states @ keys.t()).gather(1, index)
    weights = scores.masked_fill(~there, float("-inf")).softmax(1).nan_to_num(0.0)
    recalled = (weights * (answers[index] == truth[:, None])).sum(1)
    share = torch.where(there.any(1), cache.share, 0.0)
    mixed = torch.log((1 - share) * own.exp() + share * recalled)
    return mixed, (keys[-cache.size :], answers[-cache.size :])


def train_generator(
    config: ModelConfig,
    training: Ints,
    held_out: Ints,
    settings: TrainConfig,
    regular: Regularisation,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    stage: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Train all members; the averaged weights of the step with the least held-out loss are kept."""
    task = GenerationTask(config, training, held_out, settings, regular)
    mark = hashlib.sha256(json.dumps([config.to_json(), repr(regular)], sort_keys=True).encode())
    for tokens in (training, held_out):
        mark.update(np.ascontiguousarray(tokens).tobytes())
    return train(
        task,
        settings,
        seeds=config.seeds,
        checkpoint=checkpoint,
        resume=resume,
        fingerprint=mark.hexdigest(),
        stage=stage,
        progress=progress,
    )
