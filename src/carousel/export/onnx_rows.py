"""What all models do to raw rows, in an ONNX graph: gathering, gaps, scaled numbers, the calendar, embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.export.onnx_graph import Graph, Value
from carousel.inputs.clock import DAY, PERIOD

__all__ = ["at", "calendar", "embed", "interleave", "linear", "mean_of", "missing", "so_far", "zeros"]


def at(data: Value, index: Value) -> Value:
    """data [B, T, ...] at index [B, R] -> [B, R, ...]."""
    return data.graph.op("GatherND", data, index.unsqueeze(2), dtype=data.dtype, batch_dims=1)


def missing(x: Value) -> Value:
    """NaN or infinite."""
    return x.graph.op("IsNaN", x - x, dtype=bool)


def zeros(g: Graph, sizes: Sequence[Value | int], dtype: Any = np.float32, fill: float = 0.0) -> Value:
    """A tensor of one number; sizes are Values [1] or numbers."""
    shape = g.concat([s if isinstance(s, Value) else g.constant(np.array([s], np.int64)) for s in sizes], 0)
    return g.op("Expand", g.constant(np.asarray(fill, dtype)), shape)


def so_far(x: Value, size: int, backwards: bool = False) -> Value:
    """The running maximum of x [B, C, K] along its axis of C = `size` steps: a pooling that looks at all before it."""
    pads = [0, size - 1] if backwards else [size - 1, 0]
    pooled = x.graph.op("MaxPool", x.transpose(0, 2, 1), kernel_shape=[size], pads=pads)
    return pooled.transpose(0, 2, 1)


def interleave(parts: Sequence[Value], last: int) -> Value:
    """Tensors [..., n] of three axes as [..., n * parts], element by element; `last` is n."""
    g = parts[0].graph
    return g.concat([p.unsqueeze(3) for p in parts], 3).reshape(0, 0, last * len(parts))


def linear(x: Value, weight: NDArray[Any], bias: NDArray[Any] | None = None) -> Value:
    """x W^T + b."""
    made = x @ x.graph.constant(weight.T)
    return made if bias is None else made + x.graph.constant(bias)


def mean_of(found: Sequence[Value]) -> Value:
    """Of the members of an ensemble."""
    total = found[0]
    for other in found[1:]:
        total = total + other
    return total / float(len(found))


def embed(numbers: Value, codes: Value | None, tables: Sequence[NDArray[Any]]) -> Value:
    """numbers [..., F] beside the embedded codes [..., number of tables]."""
    g, found = numbers.graph, [numbers]
    if codes is not None:
        for k, table in enumerate(tables):
            one = codes.take(k, k + 1, -1).squeeze(-1)
            found.append(g.op("Gather", g.constant(table), one, axis=0))
    return g.concat(found, -1)


def calendar(local: Value, names: tuple[str, ...]) -> list[Value]:
    """`inputs.clock.calendar_features` of the wall clock's seconds [B, T], float64: one [B, T, 1] for each channel."""
    g, found = local.graph, []
    for name in names:
        if name == "day_of_month":
            since = local - _civil(local)[0]
        elif name == "day_of_year":
            since = local - _civil(local)[1]
        else:
            since = local + 3 * DAY if name == "day_of_week" else local  # 1970-01-01 was a Thursday
        turns = since / PERIOD[name]
        angle = (turns - g.op("Floor", turns)) * (2 * np.pi)
        found += [g.op(kind, angle).unsqueeze(2) for kind in ("Sin", "Cos")]
    return found


def _civil(local: Value) -> tuple[Value, Value]:
    """Seconds since 1970 at which the month and the year of `local` began; days counted in years that begin in
    March, after Hinnant's chrono-compatible algorithms (2013)."""
    g = local.graph
    day = g.op("Floor", local / DAY)
    shifted = day + 719468.0  # from 0000-03-01
    era = g.op("Floor", shifted / 146097.0)
    inside = shifted - era * 146097.0
    leap = g.op("Floor", inside / 1460.0) - g.op("Floor", inside / 36524.0) + g.op("Floor", inside / 146096.0)
    year = g.op("Floor", (inside - leap) / 365.0)
    of_year = inside - (year * 365.0 + g.op("Floor", year / 4.0) - g.op("Floor", year / 100.0))
    month = g.op("Floor", (of_year * 5.0 + 2.0) / 153.0)  # 0 is March
    of_month = of_year - g.op("Floor", (month * 153.0 + 2.0) / 5.0)
    begins = day - of_month
    after = month >= 10.0  # January and February close the year that began in March
    before_march = g.where(after, of_year - 306.0, 0.0)
    ends = year + after.cast(np.float64)  # the civil year, within the era
    quarter = ends - g.op("Floor", ends / 4.0) * 4.0
    century = ends - g.op("Floor", ends / 100.0) * 100.0
    cycle = ends - g.op("Floor", ends / 400.0) * 400.0
    leaps = (quarter <= 0.0) & ((century > 0.0) | (cycle <= 0.0))
    since_january = of_year + 59.0 + leaps.cast(np.float64)
    of_civil = g.where(after, before_march, since_january)
    return begins * DAY, (day - of_civil) * DAY
