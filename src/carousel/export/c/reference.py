"""The model in float64 NumPy, without torch: what the C files are tested against, and what calibration looks at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from carousel.cell import Masks, step
from carousel.export.c.plan import Plan
from carousel.heads.forecast import ForecastHead, read_out
from carousel.inputs.fitted import Column, TableInput
from carousel.inputs.windows import Windows

__all__ = ["Ranges", "embedded", "forecast", "run_layers", "sigmoid", "softplus"]

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
