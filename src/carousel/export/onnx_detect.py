"""Detectors as one ONNX graph: raw rows of ragged sequences in, the score of every row and its columns' parts out.

Forecasting detectors take and give what `heads.detect.DetectState` holds, so that a sequence can come in pieces; an
autoencoder sees whole sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.cell import CellSpec
from carousel.config import ModelConfig
from carousel.export.layers import Layers
from carousel.export.onnx_cells import Run, stack
from carousel.export.onnx_channels import Given, Seen, carry, channels, inputs
from carousel.export.onnx_graph import Graph, Value
from carousel.export.onnx_rows import at, linear, mean_of, missing, zeros
from carousel.export.onnx_sequence import mean_output, output, run_stack
from carousel.heads.detect import SMALLEST, DetectHead, View

__all__ = ["graph"]

Weights = Mapping[str, NDArray[np.float32]]


class _Rows(NamedTuple):
    """The scored columns [B, T, C], float64."""

    scaled: Value  # 0 where missing
    gone: Value
    last: Value
    values: Value  # in their own units


def graph(config: ModelConfig, weights: Weights, scan: bool = False) -> Graph:
    g, head = Graph("detect", scan=scan), config.head
    stateful = head.method == "forecast"
    given = inputs(g, config.input, decay=config.stack.cell.decay, stateful=stateful)
    seen = channels(g, config.input, given)
    rows = _scored(g, config, given, seen)
    if stateful:
        errors = _forecast_errors(g, config, weights, given, seen, rows)
        carry(g, seen)
    else:
        members = [{name: weights[f"{k}.{name}"] for name in config.member_shapes()} for k in range(config.seeds)]
        errors = _window_errors(g, config, members, given, seen, rows)
    score, parts = _score(g, head, errors, rows, seen, given.lengths if stateful else None)
    shape = ["batch", "time"]
    g.output(score, "score", shape, "1 is the limit; NaN where nothing is observed")
    g.output(_or(score, 0.0) >= head.threshold, "anomaly", shape, f"from {head.threshold:g} on")
    g.output(parts, "parts", [*shape, len(head.columns)], f"columns {list(head.columns)}")
    return g


def _or(value: Value, otherwise: float) -> Value:
    return value.graph.where(value.graph.op("IsNaN", value, dtype=bool), otherwise, value)


def _scored(g: Graph, config: ModelConfig, given: Given, seen: Seen) -> _Rows:
    """Rows behind the end of a sequence count as missing."""
    numbers, names = seen.numbers, [c.name for c in config.input.numbers]
    assert numbers is not None  # what is scored are number columns
    assert given.numbers is not None
    which = g.constant(np.array([names.index(name) for name in config.head.columns], np.int64))
    gone = numbers.gone | ~seen.live.unsqueeze(2)
    parts = (numbers.scaled, gone, numbers.last, given.numbers)
    return _Rows(*(g.op("Gather", part, which, axis=2) for part in parts))


def _forecast_errors(g: Graph, config: ModelConfig, weights: Weights, given: Given, seen: Seen, rows: _Rows) -> Value:
    """`heads.detect.forecast_errors`; the forecast of the row that comes next is carried on."""
    size, head = len(config.head.columns), config.head
    made = mean_output(g, config, weights, given, seen, lambda w, out: output(config, w, out))
    change, raw = made.split([size, size], 2)
    zero = g.constant(np.array(0.0))
    scale = g.op("Log", g.op("Exp", -g.op("Abs", raw)) + 1.0) + g.op("Max", raw, zero) + SMALLEST  # softplus
    scale = g.op("Max", scale, g.constant(np.asarray(head.floor)))
    mean = rows.last * g.constant(head.kept) + change
    expected = []
    for name, value, begin in (("forecast_mean", mean, np.nan), ("forecast_scale", scale, 1.0)):
        before = g.state(name, np.float64, ["batch", size], begin, "forecast of the first row, scaled")
        every = g.concat([before.unsqueeze(1), value], 1)
        g.carry(name, at(every, given.lengths.unsqueeze(1)).squeeze(1))
        expected.append(every.take(0, -1, 1))
    return g.where(rows.gone, np.nan, (rows.scaled - expected[0]) / expected[1])


def _window_errors(
    g: Graph, config: ModelConfig, members: Sequence[Weights], given: Given, seen: Seen, rows: _Rows
) -> Value:
    """Of an autoencoder: mean errors of the window that ends in the row, or of the first whole one before that."""
    head, width = config.head, config.head.window
    zero = g.constant(np.array(0, np.int64))
    steps = g.op("Range", zero, seen.live.size(1).squeeze(0), g.constant(np.array(1, np.int64))).unsqueeze(0)
    length = g.op("Min", given.lengths, g.constant(np.array(width, np.int64))).unsqueeze(1)  # [B, 1] of a window
    start = g.op("Max", steps - (length - 1), zero).unsqueeze(2)  # [B, T, 1]
    offset = g.constant(np.arange(width)[None, None])
    index = g.op("Min", start + offset, given.lengths.unsqueeze(1, 2) - 1).reshape(0, -1)  # [B, T * W]
    index = g.op("Max", index, zero)

    def windows(value: Value, *rest: int) -> Value:
        """[B, T, ...] -> [B * T, W, ...]."""
        return at(value, index).reshape(-1, width, *rest)

    def repeated(value: Value | None, size: int) -> Value | None:
        """[B, S] -> [B * T, S]."""
        if value is None:
            return None
        ones = g.constant(np.array([1], np.int64))
        return g.op("Expand", value.unsqueeze(1), g.concat([ones, steps.size(1), ones], 0)).reshape(-1, size)

    table = config.input
    lengths = (length + steps * 0).reshape(-1)  # [B * T]
    inside = given._replace(
        lengths=lengths,
        codes=None if given.codes is None else windows(given.codes, len(table.categories)),
        static_codes=repeated(given.static_codes, len(table.static_categories)),
    )
    count = sum(1 + c.gaps for c in table.static_numbers)
    part = seen._replace(
        values=windows(seen.values, table.value_size),
        elapsed=windows(seen.elapsed),
        static=repeated(seen.static, count),
    )
    made = mean_of([_reconstruct(g, config, w, inside, part).cast(np.float64) for w in members])
    size = len(head.columns)
    scaled, gone = windows(rows.scaled, size), windows(rows.gone, size)
    within = (offset < lengths.unsqueeze(1, 2)).transpose(0, 2, 1)  # [B * T, W, 1]
    known = (~gone & within).cast(np.float64)
    total = g.where(known > 0.0, scaled - made, 0.0).reduce("Sum", 1)
    counted = known.reduce("Sum", 1)
    error = g.where(counted > 0.0, total / g.op("Max", counted, g.constant(np.array(1.0))), np.nan)
    return g.op("Reshape", error, g.op("Shape", rows.scaled, dtype=np.int64))


def _reconstruct(g: Graph, config: ModelConfig, w: Weights, given: Given, seen: Seen) -> Value:
    """`heads.detect_net.Autoencoder` of windows: [N, W, C]."""
    head, zero = config.head, g.constant(np.array(0, np.int64))
    encoded, _ = run_stack(g, config, w, given, seen, [])
    ends = given.lengths.unsqueeze(1) - 1
    code = linear(at(encoded, ends), w["head.narrow.weight"], w["head.narrow.bias"])  # [N, 1, code]
    everywhere = code + zeros(g, [1, head.window, 1])
    own = {name.removeprefix("head.decoder."): v for name, v in w.items() if name.startswith("head.decoder.")}
    state = zeros(g, [1, given.lengths.size(0), head.width])
    run = Run(everywhere.transpose(1, 0, 2), state, state, given.lengths.cast(np.int32))
    decoded = stack(g, Layers(CellSpec(), head.code, head.width, weights=own), run).x.transpose(1, 0, 2)
    backwards = g.op("Max", ends - g.constant(np.arange(head.window)[None]), zero)
    return linear(at(decoded, backwards), w["head.out.weight"], w["head.out.bias"])


def _score(
    g: Graph, head: DetectHead, errors: Value, rows: _Rows, seen: Seen, lengths: Value | None
) -> tuple[Value, Value]:
    """`heads.detect.score_rows`: score [B, T] and parts [B, T, C]; with `lengths` its state is taken and carried on."""
    looked = {"error": errors, "value": g.where(rows.gone, np.nan, rows.values)}
    before = {}
    for kind in looked:
        longest = max((view.rows for view in head.views if view.of == kind), default=1)
        before[kind] = _ring(g, kind, looked[kind], len(head.columns), longest - 1, lengths)
    scores, parts = [], []
    for k, view in enumerate(head.views):
        means, known = _window_means(g, before[view.of], looked[view.of], view.rows)
        past = _Past(g, k, seen.live, lengths is not None)
        if head.reference == "history" and view.of == "value":
            score, part = _beyond_range(view, means, known, past)
        else:
            distance, part = _distance(g, view, means, known)
            score = distance / (view.limit if head.reference == "training" else _largest(distance, view.largest, past))
        scores.append(score)
        parts.append(part)
    best, chosen = rows.scaled.take(0, 1, 2).squeeze(2) * 0.0, rows.scaled * 0.0
    for score, part in zip(scores, parts, strict=True):
        better = _or(score, 0.0) > best
        best, chosen = g.where(better, score, best), g.where(better.unsqueeze(2), part, chosen)
    if head.reference == "history" and head.rest:
        best = _rested(best, head.rest, _Past(g, None, seen.live, lengths is not None))
    nothing = (~rows.gone).cast(np.float64).reduce("Max", 2) <= 0.0
    return g.where(nothing, np.nan, best), chosen


def _ring(g: Graph, kind: str, values: Value, size: int, rows: int, lengths: Value | None) -> Value | None:
    """The last `rows` rows before these [B, rows, C]; those before the first row of all are missing."""
    if not rows:
        return None
    if lengths is None:
        return zeros(g, [values.size(0), rows, size], np.float64, np.nan)
    about = f"{kind}s of the last rows, the oldest first"
    ring = g.state(f"ring_{kind}", np.float64, ["batch", rows, size], np.nan, about)
    index = lengths.unsqueeze(1) + g.constant(np.arange(rows)[None])
    g.carry(f"ring_{kind}", at(g.concat([ring, values], 1), index))
    return ring


def _window_means(g: Graph, before: Value | None, values: Value, rows: int) -> tuple[Value, Value]:
    """Means [B, T, C] of what is observed in the last `rows` rows, and how many [B, T, C]; added oldest first."""
    every = values if before is None or rows == 1 else g.concat([before.take(1 - rows, None, 1), values], 1)
    gone = missing(every)
    whole = [g.where(gone, 0.0, every), (~gone).cast(np.float64)]
    total, known = (part.take(0, 1 - rows or None, 1) for part in whole)
    for back in range(rows - 2, -1, -1):
        more = [part.take(rows - 1 - back, -back or None, 1) for part in whole]
        total, known = total + more[0], known + more[1]
    return g.where(known > 0.0, total / g.op("Max", known, g.constant(np.array(1.0))), np.nan), known


def _distance(g: Graph, view: View, means: Value, known: Value) -> tuple[Value, Value]:
    """`View.distance`, with the correlations of what is observed in each row."""
    some = known > 0.0
    centre, spread = g.constant(np.asarray(view.centre)), g.constant(np.asarray(view.spread))
    share = g.op("Sqrt", known / float(view.rows))
    d = g.where(some, (_or(means, 0.0) - centre) / spread * share, 0.0)
    seen = some.cast(np.float64)
    count = seen.reduce("Sum", 2)
    correlation = np.asarray(view.correlation)
    partly = (count > 0.0) & (count < float(len(correlation)))
    any_partly = partly.cast(np.float64).reduce("Max", 1).reduce("Max", 0) > 0.0

    def solved(body: Graph) -> Value:
        return _eliminate(body, correlation, body.within(seen), body.within(d))

    def whole(body: Graph) -> Value:
        return body.within(d) @ body.constant(np.linalg.inv(correlation))

    parts = d * g.choose(any_partly, solved, whole)
    total = g.op("Max", parts.reduce("Sum", 2), g.constant(np.array(0.0)))
    distance = g.op("Sqrt", total / g.op("Max", count, g.constant(np.array(1.0))))
    return g.where(count > 0.0, distance, np.nan), g.op("Max", parts, g.constant(np.array(0.0)))


def _eliminate(g: Graph, correlation: NDArray[np.float64], seen: Value, d: Value) -> Value:
    """The observed columns' correlations, inverted, times d [B, T, C]: Gauss and Jordan, all rows at once.

    Columns that are not observed get a 1 on the diagonal and nothing else; the matrix is positive definite, so that no
    pivots have to be looked for.
    """
    size = len(correlation)
    eye = np.eye(size)
    left = g.constant(correlation) * (seen.unsqueeze(3) * seen.unsqueeze(2))
    left = left + g.constant(eye) * (1.0 - seen).unsqueeze(3)
    system = g.concat([left, d.unsqueeze(3)], 3)  # [B, T, C, C + 1]
    for k in range(size):
        row, column = system.take(k, k + 1, 2), system.take(k, k + 1, 3)
        pivot = row / row.take(k, k + 1, 3)
        system = system - (column - g.constant(eye[:, k : k + 1])) * pivot
    return system.take(size, None, 3).squeeze(3)


class _Past:
    """What is known of the rows so far, stepped over those that are there."""

    def __init__(self, g: Graph, view: int | None, live: Value, carried: bool) -> None:
        self.g, self.live, self.carried = g, live.transpose(1, 0), carried
        self.suffix = "" if view is None else f"_{view}"

    def over(
        self,
        values: Value,
        begin: dict[str, tuple[float, ...] | float],
        step: Callable[[Graph, dict[str, Value]], tuple[list[Value], list[Value]]],
    ) -> list[Value]:
        """values [B, T] or [B, T, C]; `begin` the states of each sequence, a number or [C]. -> outputs, like values."""
        g, wide = self.g, next(iter(begin.values()))
        order = (1, 0, 2) if isinstance(wide, tuple) else (1, 0)
        first = _or(values.take(0, 1, 1).squeeze(1), 0.0) * 0.0
        states = {}
        for name, start in begin.items():
            fresh = first + g.constant(np.asarray(start))
            if self.carried:  # NaN: not begun
                width = [len(wide)] if isinstance(wide, tuple) else []
                kept = g.state(f"{name}{self.suffix}", np.float64, ["batch", *width], np.nan, f"{name} so far")
                fresh = g.where(g.op("IsNaN", kept, dtype=bool), fresh, kept)
            states[name] = fresh

        def live_step(body: Graph, given: dict[str, Value]) -> tuple[list[Value], list[Value]]:
            following, outputs = step(body, given)
            return [
                body.where(given["live"], new, given[name]) for name, new in zip(states, following, strict=True)
            ], outputs

        live = self.live.unsqueeze(2) if isinstance(wide, tuple) else self.live
        last, found = g.scan(states, {"now": values.transpose(*order), "live": live}, live_step, rank=len(order) - 1)
        if self.carried:
            for name, value in zip(states, last, strict=True):
                g.carry(f"{name}{self.suffix}", value)
        return [one.transpose(*order) for one in found]


def _largest(distance: Value, first: float, past: _Past) -> Value:
    """The largest distance [B, T] in the rows before, at least `first`."""

    def step(body: Graph, given: dict[str, Value]) -> tuple[list[Value], list[Value]]:
        so_far = given["largest"]
        return [body.op("Max", so_far, _or(given["now"], -np.inf))], [so_far]

    return past.over(distance, {"largest": first}, step)[0]


def _beyond_range(view: View, means: Value, known: Value, past: _Past) -> tuple[Value, Value]:
    """How far means of full windows lie from the middle of the range so far, in units of half of it."""
    g = past.g
    full = g.where(known >= float(view.rows), means, np.nan)

    def step(body: Graph, given: dict[str, Value]) -> tuple[list[Value], list[Value]]:
        low, high, now = given["low"], given["high"], given["now"]
        return [body.op("Min", low, _or(now, np.inf)), body.op("Max", high, _or(now, -np.inf))], [low, high]

    low, high = past.over(full, {"low": view.low, "high": view.high}, step)
    half, gone = (high - low) / 2.0, g.op("IsNaN", full, dtype=bool)
    some = half > 0.0
    away = g.op("Abs", full - (low + half)) / g.where(some, half, np.inf)
    constant = g.where(g.op("Equal", full, low, dtype=bool), 0.0, g.where(some, half * 0.0, 2.0))
    away = g.where(some | gone, away, constant)
    score = _or(away, -np.inf).reduce("Max", 2)
    score = g.where(g.op("IsInf", score, dtype=bool, detect_positive=0), np.nan, score)
    return score, g.op("Max", _or(away, 0.0) - 1.0, g.constant(np.array(0.0)))


def _rested(score: Value, rest: int, past: _Past) -> Value:
    """After a score above 1 only higher ones stand for `rest` rows; the others count as 1 at most."""

    def step(body: Graph, given: dict[str, Value]) -> tuple[list[Value], list[Value]]:
        now, held, left = given["now"], given["held"], given["left"]
        higher = now > held
        fewer = left - 1.0
        next_held = body.where(higher, now, body.where(fewer > 0.0, held, 1.0))
        next_left = body.where(higher, float(rest), body.op("Max", fewer, body.constant(np.array(0.0))))
        return [next_held, next_left], [body.where(higher, now, body.op("Min", now, body.constant(np.array(1.0))))]

    return past.over(score, {"held": 1.0, "left": 0.0}, step)[0]
