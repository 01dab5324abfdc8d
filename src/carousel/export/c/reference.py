"""The model in float64 NumPy, without torch: what the C files are tested against, and what calibration looks at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from carousel.cell import Masks, step
from carousel.export.c import detect
from carousel.export.c.plan import Plan
from carousel.export.c.record_sequence import Pushed
from carousel.heads.classify import probabilities
from carousel.heads.forecast import ForecastHead, read_out
from carousel.heads.tag import event_probability
from carousel.inputs.fitted import Column, TableInput
from carousel.inputs.sequence import Channels, SequenceInput
from carousel.inputs.windows import Windows

__all__ = ["Pool", "Ranges", "answer", "forecast", "sequence"]

Floats = NDArray[np.float64]


class Ranges(dict[str, float]):
    """The largest absolute value of everything that was seen, by name."""

    def see(self, name: str, values: Any) -> None:
        if np.size(values):
            self[name] = max(self.get(name, 0.0), float(np.abs(values).max()))


class State(NamedTuple):
    """h [B, P] and c [B, H] of every layer."""

    h: list[Floats]
    c: list[Floats]


def sigmoid(x: Floats) -> Floats:
    return np.asarray(0.5 * np.tanh(0.5 * x) + 0.5)


def softplus(x: Floats) -> Floats:
    return np.asarray(np.logaddexp(x, 0.0))


def start(plan: Plan, batch: int) -> State:
    stack = plan.config.stack
    sizes = [(batch, stack.output_size), (batch, stack.hidden_size)]
    return State(*([np.zeros(size) for _ in range(stack.num_layers)] for size in sizes))


def run_layers(plan: Plan, member: int, state: State, x: Floats, elapsed: Floats, ranges: Ranges) -> Floats:
    """One row x [B, I] through all layers, whose states move on; the output of the last [B, P]."""
    spec = plan.spec
    masks = Masks(1.0, spec.zoneout_c, spec.zoneout_h)
    for n in range(plan.config.stack.num_layers):
        weights = plan.named_layer(member, n)
        made = step(spec, weights, x, state.h[n], state.c[n], elapsed, masks)
        state.h[n], state.c[n] = made.h, made.c
        x = made.h
        ranges.see(f"c{n}", made.c)
        ranges.see(f"h{n}", made.h)
    return x


def embedded(plan: Plan, member: int, numbers: Any, codes: Any, tables: list[int]) -> Floats:
    """numbers [..., F] beside the embedded codes [..., number of tables]."""
    weights = plan.members[member]
    parts = [weights[f"input.embed.{t}.weight"][codes[..., k]] for k, t in enumerate(tables)]
    return np.concatenate([np.asarray(numbers, np.float64), *(p.astype(np.float64) for p in parts)], -1)


def tables(columns: tuple[Column, ...], table: TableInput) -> list[int]:
    order = [c.name for c in table.embedded]
    return [order.index(c.name) for c in columns if c.kind == "category"]


def forecast(plan: Plan, windows: Windows, ranges: Ranges | None = None) -> tuple[Floats, Floats]:
    """Quantiles [n, H, K, Q] in scaled units and in the target's own."""
    table, head = cast(TableInput, plan.config.input), cast(ForecastHead, plan.config.head)
    seen = Ranges() if ranges is None else ranges
    scaled = np.zeros((len(windows.level), table.horizon, table.targets, len(head.quantiles)))
    for m in range(plan.config.seeds):
        x = embedded(plan, m, windows.steps, windows.step_codes, tables(table.features + table.known, table))
        seen.see("x", x)
        state = start(plan, len(x))
        for t in range(table.context):
            out = run_layers(plan, m, state, x[:, t], windows.elapsed[:, t].astype(np.float64), seen)
        static = embedded(plan, m, windows.static, windows.static_codes, tables(table.static, table))
        ahead = embedded(plan, m, windows.ahead, windows.ahead_codes, tables(table.known, table))
        scaled += _decode(plan, m, np.concatenate([out, static], -1), ahead, windows, seen)
    scaled /= plan.config.seeds
    return scaled, read_out(head, scaled, windows.level, windows.spread)


def _decode(plan: Plan, m: int, state: Floats, ahead: Floats, windows: Windows, ranges: Ranges) -> Floats:
    """As `heads.forecast_net.ForecastNet`: [n, H, K, Q]."""
    table, head = cast(TableInput, plan.config.input), cast(ForecastHead, plan.config.head)

    def weight(name: str) -> Floats:
        return plan.members[m][f"head.{name}"].astype(np.float64)

    def apply(name: str, x: Floats) -> Floats:
        return np.asarray(x @ weight(f"{name}.weight").T + weight(f"{name}.bias"))

    for name, part in (("state", state), ("ahead", ahead), ("context", windows.linear)):
        ranges.see(name, part)
    z = apply("state", state)[:, None] + weight("step")
    if table.ahead_size:
        z = z + ahead @ weight("ahead.weight").T
    y = z * sigmoid(z)
    ranges.see("first", y)
    z = apply("hidden", y)
    y = z * sigmoid(z)
    ranges.see("second", y)
    n, h, k = len(y), table.horizon, table.targets
    raw = apply("out", y).reshape(n, h, k, -1)
    gate = (apply("gate", y) + weight("gate_step")).reshape(n, h, k, -1)
    gate = np.exp(gate - gate.max(-1, keepdims=True))
    gate /= gate.sum(-1, keepdims=True)
    linear = apply("linear", np.moveaxis(windows.linear.astype(np.float64), 1, 2))  # [n, K, H]
    middle = head.median
    median = (gate * windows.base).sum(-1) + raw[..., middle] + np.moveaxis(linear, 1, 2)
    away: Callable[[Floats], Floats] = lambda part: np.cumsum(softplus(part - 1), -1)  # noqa: E731
    above, below = away(raw[..., middle + 1 :]), away(raw[..., :middle][..., ::-1])[..., ::-1]
    median = median[..., None]
    return np.concatenate([median - below, median, median + above], -1)


def sequence(plan: Plan, channels: Channels, ranges: Ranges | None = None) -> Floats:
    """Head outputs after every row [N, K], of a classifier those of the rows so far."""
    table, head = cast(SequenceInput, plan.config.input), plan.config.head
    seen, batch = Ranges() if ranges is None else ranges, len(channels.lengths)
    made = np.zeros((len(channels.values), head.outputs))
    for m in range(plan.config.seeds):
        count = len(table.categories)
        static = embedded(plan, m, channels.static, channels.static_codes, list(range(count, len(table.embedded))))
        own = np.repeat(static, channels.lengths, 0)
        x = np.concatenate([embedded(plan, m, channels.values, channels.codes, list(range(count))), own], 1)
        seen.see("x", x)
        seen.see("static", static)
        state = start(plan, batch)
        if table.static_size:
            _begin(plan, m, state, static, seen)
        pool = Pool(plan, m, batch)
        for t in range(int(channels.lengths.max())):
            on = np.flatnonzero(channels.lengths > t)
            at = channels.offsets[:-1][on] + t
            part = State([h[on] for h in state.h], [c[on] for c in state.c])
            out = run_layers(plan, m, part, x[at], channels.elapsed[at].astype(np.float64), seen)
            for n in range(plan.config.stack.num_layers):
                state.h[n][on], state.c[n][on] = part.h[n], part.c[n]
            made[at] += _output(plan, m, pool.add(out, on, t), seen)
    return made / plan.config.seeds


def _begin(plan: Plan, m: int, state: State, static: Floats, ranges: Ranges) -> None:
    weights, stack = plan.members[m], plan.config.stack
    flat = static @ weights["static.weight"].astype(np.float64).T + weights["static.bias"]
    size = stack.num_layers * stack.output_size
    for n, h in enumerate(np.split(flat[:, :size], stack.num_layers, 1)):
        state.h[n][:] = h
        ranges.see(f"h{n}", h)
    for n, c in enumerate(np.split(flat[:, size:], stack.num_layers, 1)):
        state.c[n][:] = c
        ranges.see(f"c{n}", c)


class Pool:
    """What the rows so far make of the head's input."""

    def __init__(self, plan: Plan, member: int, batch: int) -> None:
        self.kind = getattr(plan.config.head, "pooling", "last")
        size = plan.config.stack.output_size
        self.total, self.weight, self.top = np.zeros((batch, size)), np.zeros((batch, 1)), np.full((batch, 1), -np.inf)
        if self.kind == "attention":
            self.score = plan.members[member]["head.attention.weight"].astype(np.float64)

    def add(self, out: Floats, on: Any, t: int) -> Floats:
        """Rows out [b, P] number t of the sequences `on` [b]."""
        if self.kind == "last":
            return out
        if self.kind == "max":
            self.total[on] = out if t == 0 else np.maximum(self.total[on], out)
            return np.asarray(self.total[on])
        fresh, old = np.ones((len(on), 1)), np.ones((len(on), 1))
        if self.kind == "attention":
            score = out @ self.score.T
            top = np.maximum(self.top[on], score)
            old, fresh, self.top[on] = np.exp(self.top[on] - top), np.exp(score - top), top
        self.total[on] = self.total[on] * old + out * fresh
        self.weight[on] = self.weight[on] * old + fresh
        return np.asarray(self.total[on] / self.weight[on])


def _output(plan: Plan, m: int, x: Floats, ranges: Ranges) -> Floats:
    weights = {n: w.astype(np.float64) for n, w in plan.members[m].items() if n.startswith("head.")}
    ranges.see("pooled", x)
    if plan.config.head.width:
        x = np.maximum(x @ weights["head.hidden.weight"].T + weights["head.hidden.bias"], 0.0)
        ranges.see("wide", x)
    y = x @ weights["head.out.weight"].T + weights["head.out.bias"]
    ranges.see("out", y)
    return np.asarray(y)


def answer(plan: Plan, outputs: Floats, pushed: Pushed) -> Floats:
    """Head outputs [N, K] of `pushed` as C answers: probabilities, probability and alarm, a number and its quantiles,
    or a detector's score, anomaly and parts."""
    if plan.config.task == "detect":
        return detect.answers(plan, outputs, pushed)
    head = plan.config.head
    if head.kind == "label":
        return probabilities(outputs, head.temperature)
    if head.kind == "event":
        p = event_probability(outputs, head.temperature)
        return np.stack([p, (p >= head.threshold).astype(np.float64)], 1)
    return np.asarray(head.numbers(outputs))
