"""Search for sequences, step by step, over anything that says what may come next: beams, greedy choice and sampling."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

__all__ = ["Beam", "Decoder", "Found", "Sampling", "beam_search", "sample"]

NEVER = float("-inf")
WIDEST = 1000  # beam
STEEPEST = 10.0  # penalty of a beam
MANY = 2**31 - 1
COLDEST = 1e-6  # temperature, below which the likeliest token is taken
NUCLEUS = 1024  # likeliest tokens that are sorted, where they hold the mass that is asked for
DRAWN = 64  # numbers that are drawn at once
Forbidden = Callable[[Tensor], Tensor]  # of tokens [R, T]: which may not follow them, [R or 1, V]


class Decoder(Protocol):
    """Remembers R rows; each `step` tells how likely every token is to follow."""

    def step(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tokens [R] that rows go on with -> log-probabilities [R, V], and attention [R, S], 1 at padding, if any."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows [R'], which may repeat."""
        ...


class Found(NamedTuple):
    """Tokens without the mark of the end; the sum of their log-probabilities with it; and what ranks them."""

    tokens: tuple[int, ...]
    logprob: float
    score: float


@dataclass(frozen=True)
class Beam:
    """How a beam search goes.

    Scores are log p / ((5 + length) / 6) ** length_penalty + coverage_penalty * (log of what was attended to), after
    Wu et al. 2016. `no_repeat` bans n-grams of that size from coming twice (Paulus et al. 2018). Raises ValueError for
    values out of range.
    """

    size: int = 5
    length_penalty: float = 0.6
    coverage_penalty: float = 0.0
    no_repeat: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.size <= WIDEST:
            raise ValueError(f"a beam's size must lie between 1 and {WIDEST}, got {self.size}")
        for name, most in (("length_penalty", STEEPEST), ("coverage_penalty", STEEPEST), ("no_repeat", MANY)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must lie between 0 and {most:g}, got {getattr(self, name)}")

    def scale(self, length: int) -> float:
        return float(((5 + length) / 6) ** self.length_penalty)


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: from log-probabilities divided by `temperature` (0: the likeliest), of the `top_k`
    likeliest (Fan et al. 2018; 0: all) and the smallest set that holds `top_p` of the mass (Holtzman et al. 2020);
    the probability of tokens that were there before is divided by `repetition_penalty` (after Keskar et al. 2019, who
    divide scores without an origin; 1: none).

    Raises ValueError for values out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat: int = 0

    def __post_init__(self) -> None:
        for name, good in (
            ("temperature", 0 <= self.temperature < math.inf),
            ("top_k", 0 <= self.top_k <= MANY),
            ("top_p", 0 < self.top_p <= 1),
            ("repetition_penalty", 1 <= self.repetition_penalty < math.inf),
            ("no_repeat", 0 <= self.no_repeat <= MANY),
        ):
            if not good:
                raise ValueError(f"{name} is out of range, got {getattr(self, name)}")


def beam_search(
    decoder: Decoder,
    limits: Sequence[int],
    beam: Beam,
    *,
    begin: int,
    end: int,
    prefixes: Sequence[Sequence[int]] | None = None,
    forbidden: Forbidden | None = None,
) -> list[list[Found]]:
    """The `beam.size` best continuations of B sequences of at most limits[b] tokens, best first.

    `decoder` begins with B rows. A sequence is settled as soon as `size` hypotheses have ended, and leaves the batch.
    `prefixes` are tokens that answers must begin with.
    """
    count, size = len(limits), beam.size
    found: list[list[Found]] = [[] for _ in range(count)]
    active = torch.arange(count)
    room = torch.tensor(list(limits))
    decoder.keep(active.repeat_interleave(size))
    history = torch.zeros(count * size, 0, dtype=torch.long)
    tokens = torch.full((count * size,), begin)
    score = torch.full((count, size), NEVER)
    score[:, 0] = 0
    covered: Tensor | None = None
    forced = _padded(prefixes, count)
    at = 0
    while len(active):
        logp, attention = decoder.step(tokens)
        logp = _constrain(logp.float(), history, beam.no_repeat, forbidden)
        if attention is not None:
            covered = attention.float() if covered is None else covered + attention.float()
        last = (room[active] <= at).repeat_interleave(size)
        logp = _only(logp, last, torch.full((len(logp),), end))
        if at < forced.shape[1]:
            wanted = forced[active, at].repeat_interleave(size)
            logp = _only(logp, (wanted >= 0) & ~last, wanted)
        v = logp.shape[1]
        best, index = (score[..., None] + logp.view(len(active), size, v)).flatten(1).topk(min(2 * size, size * v))
        parent = index // v + torch.arange(len(active))[:, None] * size
        token = index % v
        ends = (token == end) & (best > NEVER)
        for a, k in ends[:, :size].nonzero().tolist():
            row = int(parent[a, k])
            reached = _coverage(covered, row) * beam.coverage_penalty
            value = float(best[a, k])
            found[int(active[a])].append(
                Found(tuple(history[row].tolist()), value, value / beam.scale(at + 1) + reached)
            )
        order = ends.to(torch.uint8).argsort(dim=1, stable=True)[:, :size]
        score = torch.where(ends, NEVER, best).gather(1, order)
        open_ = torch.tensor([len(found[int(b)]) < size for b in active]) & (score > NEVER).any(1)
        rows = parent.gather(1, order)[open_].flatten()
        tokens = token.gather(1, order)[open_].flatten()
        history = torch.cat([history[rows], tokens[:, None]], 1)
        covered = None if covered is None else covered[rows]
        score, active = score[open_], active[open_]
        decoder.keep(rows)
        at += 1
    return [sorted(hypotheses, key=lambda f: -f.score)[:size] for hypotheses in found]


def sample(
    decoder: Decoder,
    limits: Sequence[int],
    how: Sampling,
    *,
    begin: Sequence[Sequence[int]] | int,
    end: int | None,
    seed: int = 0,
    names: Sequence[str] | None = None,
    close: bool = False,
    prefixes: Sequence[Sequence[int]] | None = None,
    forbidden: Forbidden | None = None,
) -> list[Found]:
    """One continuation of each of B sequences, drawn token by token; `end` None goes on to the limit.

    `begin` is the token before the first one; with `close` what reaches its limit is ended there, as by a beam. What is
    drawn depends on the seed and the sequence's name (without `names` its number), whatever stands beside it.
    """
    count, close = len(limits), close and end is not None
    tokens = torch.full((count,), begin) if isinstance(begin, int) else torch.tensor([row[-1] for row in begin])
    history, active = torch.zeros(count, 0, dtype=torch.long), torch.arange(count)
    room = torch.tensor(list(limits))
    alive = torch.full((count,), close) | (room > 0)
    lengths, total = torch.zeros(count, dtype=torch.long), torch.zeros(count)
    forced, chances = _padded(prefixes, count), _Chances(seed, names or [str(k) for k in range(count)])
    found: dict[int, Found] = {}
    at = 0
    while True:
        if 2 * int(alive.sum()) <= len(active):  # the decoder goes on with those that go on
            for k in (~alive).nonzero()[:, 0].tolist():
                value = float(total[k])
                found[int(active[k])] = Found(tuple(history[k, : lengths[k]].tolist()), value, value)
            rows = alive.nonzero()[:, 0]
            if not len(rows):
                return [found[k] for k in range(count)]
            decoder.keep(rows)
            chances.keep(rows)
            parts = (active, tokens, history, room, lengths, total, forced, alive)
            active, tokens, history, room, lengths, total, forced, alive = (part[rows] for part in parts)
        logp, _ = decoder.step(tokens)
        logp = logp.float()
        adjusted = _penalised(_constrain(logp, history, how.no_repeat, forbidden), history, how.repetition_penalty)
        tokens = _drawn(adjusted, how, chances)
        if at < forced.shape[1]:
            tokens = torch.where(forced[:, at] >= 0, forced[:, at], tokens)
        if close:
            tokens = torch.where(room <= at, torch.tensor(end), tokens)
        total += torch.where(alive, logp.gather(1, tokens[:, None])[:, 0], 0)
        history = torch.cat([history, tokens[:, None]], 1)
        ended = torch.zeros_like(alive) if end is None else tokens == end
        lengths += (alive & ~ended).long()
        alive = alive & ~ended & ((lengths < room) | close)
        at += 1


class _Chances:
    """Numbers in (0, 1] of each sequence: a function of the seed and its name."""

    def __init__(self, seed: int, names: Sequence[str]) -> None:
        self.rows = [np.random.default_rng([seed, zlib.crc32(name.encode())]) for name in names]
        self.at, self.drawn = 0, np.empty((len(names), 0))

    def keep(self, rows: Tensor) -> None:
        self.rows = [self.rows[k] for k in rows.tolist()]
        self.drawn = self.drawn[rows.numpy()]

    def next(self) -> Tensor:
        if self.at == self.drawn.shape[1]:
            self.at, self.drawn = 0, 1 - np.stack([row.random(DRAWN) for row in self.rows])
        self.at += 1
        return torch.from_numpy(self.drawn[:, self.at - 1]).float()


def _drawn(logp: Tensor, how: Sampling, chances: _Chances) -> Tensor:
    if how.temperature < COLDEST:
        return logp.argmax(1)
    logits, chance = (logp - logp.amax(1, keepdim=True)) / how.temperature, chances.next()
    if how.top_k:
        ordered, index = logits.topk(min(how.top_k, logits.shape[1]))
        return index.gather(1, _picked(ordered.softmax(1), how.top_p, chance))[:, 0]
    mass = logits.softmax(1)
    if how.top_p == 1:
        return _picked(mass, how.top_p, chance)[:, 0]
    ordered, index = mass.topk(min(NUCLEUS, mass.shape[1]))
    found = index.gather(1, _picked(ordered, how.top_p, chance))[:, 0]
    flat = (ordered.sum(1) < how.top_p).nonzero()[:, 0]
    if len(flat):
        ordered, index = mass[flat].sort(1, descending=True)
        found[flat] = index.gather(1, _picked(ordered, how.top_p, chance[flat]))[:, 0]
    return found


def _picked(mass: Tensor, top_p: float, chance: Tensor) -> Tensor:
    """Places [R, 1] in rows of masses; with `top_p` below 1 masses descend, and the first that hold it are meant."""
    if top_p < 1:
        mass = mass.where(mass.cumsum(1) - mass < top_p, 0)
    reached = mass.cumsum(1)
    return torch.searchsorted(reached, chance[:, None] * reached[:, -1:])


def _penalised(logp: Tensor, history: Tensor, penalty: float) -> Tensor:
    if penalty == 1 or not history.shape[1]:
        return logp
    return logp.scatter(1, history, logp.gather(1, history) - math.log(penalty))


def _constrain(given: Tensor, history: Tensor, no_repeat: int, forbidden: Forbidden | None) -> Tensor:
    """Log-probabilities without the tokens that would repeat an n-gram or are forbidden; a row to which nothing would
    be left stays as it is."""
    if not no_repeat and forbidden is None:
        return given
    logp = given.clone() if forbidden is None else given.masked_fill(forbidden(history), NEVER)
    if no_repeat and history.shape[1] >= no_repeat:
        grams = history.unfold(1, no_repeat, 1)  # [R, ., n]
        tail = history[:, history.shape[1] - no_repeat + 1 :]
        same = (grams[..., :-1] == tail[:, None]).all(-1)
        row, place = same.nonzero(as_tuple=True)
        logp[row, grams[row, place, -1]] = NEVER
    return torch.where((logp > NEVER).any(1, keepdim=True), logp, given)


def _only(given: Tensor, which: Tensor, token: Tensor) -> Tensor:
    """Log-probabilities that leave the rows `which` [R] no choice but `token` [R]."""
    rows = which.nonzero()[:, 0]
    if not len(rows):
        return given
    logp = given.clone()
    kept = logp[rows, token[rows]]
    logp[rows] = NEVER
    logp[rows, token[rows]] = kept.clamp(min=-1e4)  # a banned token may be forced, and then counts as very unlikely
    return logp


def _padded(prefixes: Sequence[Sequence[int]] | None, count: int) -> Tensor:
    longest = max((len(p) for p in prefixes), default=0) if prefixes else 0
    rows = [[*p, *[-1] * (longest - len(p))] for p in prefixes] if prefixes else [[]] * count
    return torch.tensor(rows, dtype=torch.long).view(count, longest)


def _coverage(covered: Tensor | None, row: int) -> float:
    return 0.0 if covered is None else float(covered[row].clamp(1e-9, 1).log().sum())
