"""`inputs.windows` in an ONNX graph: from a series' raw rows to the window at its last one, in float64 as there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from carousel.export.onnx_graph import Graph, Value
from carousel.export.onnx_rows import at, calendar, interleave, missing, so_far, zeros
from carousel.inputs.fitted import MISSING, Column, TableInput
from carousel.inputs.windows import BOUND, FAR, LEAST, NEVER

__all__ = ["Given", "Window", "inputs", "window"]


class Given(NamedTuple):
    """The graph's inputs. T rows of B series from their first to their origin; lengths says how many each has."""

    lengths: Value  # [B]
    target: Value  # [B, T, K]
    features: Value | None  # [B, T, numbers]
    feature_codes: Value | None  # [B, T, categories]
    known: Value | None  # [B, T + H, numbers], those ahead right behind the row of the origin
    known_codes: Value | None  # [B, T + H, categories]
    static: Value | None  # [B, numbers]
    static_codes: Value | None  # [B, categories]
    time: Value | None  # [B, T + H], of an uneven clock
    wall_time: Value | None  # [B, T + H], with calendar features


class Window(NamedTuple):
    """As `inputs.windows.Windows`, of the last row of every series."""

    steps: Value
    step_codes: Value | None
    ahead: Value
    ahead_codes: Value | None
    static: Value
    static_codes: Value | None
    base: Value
    level: Value
    spread: Value
    elapsed: Value
    linear: Value


def _of(columns: tuple[Column, ...], kind: str) -> tuple[Column, ...]:
    return tuple(c for c in columns if c.kind == kind)


def inputs(g: Graph, config: TableInput) -> Given:
    """Only what the model looks at becomes an input."""
    rows, further = ["series", "rows"], ["series", "rows_and_ahead"]

    def numbers(name: str, columns: tuple[Column, ...], shape: list[str], about: str) -> Value | None:
        names = [c.name for c in _of(columns, "number")]
        return g.input(name, np.float64, [*shape, len(names)], f"{about}: {names}; NaN is missing") if names else None

    def codes(name: str, columns: tuple[Column, ...], shape: list[str], about: str) -> Value | None:
        names = [c.name for c in _of(columns, "category")]
        about = f"{about}: {names}; the codes stand in the metadata"
        return g.input(name, np.int64, [*shape, len(names)], about) if names else None

    ahead = "rows up to the origin and right behind it those ahead"
    targets = list(config.roles.target)
    return Given(
        lengths=g.input("lengths", np.int64, ["series"], "rows of each series; the last one is the origin"),
        target=g.input("target", np.float64, [*rows, config.targets], f"{targets}; NaN is missing"),
        features=numbers("features", config.features, rows, "columns"),
        feature_codes=codes("feature_codes", config.features, rows, "columns"),
        known=numbers("known", config.known, further, f"{ahead}: columns"),
        known_codes=codes("known_codes", config.known, further, f"{ahead}: columns"),
        static=numbers("static", config.static, ["series"], "columns"),
        static_codes=codes("static_codes", config.static, ["series"], "columns"),
        time=g.input("time", np.float64, further, f"{ahead}: when, in the clock's units") if config.uneven else None,
        wall_time=g.input("wall_time", np.float64, further, f"{ahead}: seconds since 1970 of the wall clock")
        if config.calendar
        else None,
    )


class _Place(NamedTuple):
    """Which rows the window looks at."""

    origin: Value  # [B, 1]
    reach: Value  # [B, reach], clipped to the series
    outside: Value  # [B, reach]
    number: Value  # [B, C, 1], float64: the context's rows, negative before the first
    out: Value  # [B, C, 1]
    context: Value  # [B, C], clipped
    following: Value  # [B, H]


def window(g: Graph, config: TableInput, given: Given) -> Window:
    """The same arithmetic in the same order as `inputs.windows.Rows.gather`."""
    place = _place(g, config, given)
    c = config.context
    values = g.where(place.outside.unsqueeze(2), np.nan, at(given.target, place.reach))
    history = _history(g, given)
    level, spread, last = _scale(g, config, values.take(-c, None, 1), history)
    past = _by(values - level.unsqueeze(1), spread.unsqueeze(1))
    latest = _by(last - level, spread)
    elapsed = _elapsed(g, config, given, place)
    steps = _channels(g, config, given, place, past, history)
    lags, base = _lags(g, config, given, past, latest, level, spread, history.row)
    ahead = [lags] if lags is not None else []
    numbers = _numbers(given.features, _of(config.features, "number"), place.context)
    both = [_numbers(given.known, _of(config.known, "number"), index) for index in (place.context, place.following)]
    numbers += both[0]
    ahead += both[1]
    if given.wall_time is not None:
        for part, index in ((numbers, place.context), (ahead, place.following)):
            part += [v.cast(np.float32) for v in calendar(at(given.wall_time, index), config.calendar)]
    if given.time is not None:
        numbers.append(g.op("Log", elapsed + 1.0).unsqueeze(2))
        now = at(given.time, place.origin)
        lead = (at(given.time, place.following) - now) / config.grid.step
        lead = g.op("Log", g.op("Max", lead, g.constant(np.array(0.0))) + 1.0)
        ahead.append(lead.cast(np.float32).unsqueeze(2))
    steps += [g.where(place.out, 0.0, part) for part in numbers]
    size = spread / (g.op("Abs", level) + spread)
    size = g.op("Log", g.op("Max", size, g.constant(np.array(1e-6)))) / 3.0
    static = [latest, size.cast(np.float32)]
    static += [
        part.squeeze(1) for part in _scaled(given.static and given.static.unsqueeze(1), _of(config.static, "number"))
    ]
    return Window(
        steps=g.concat(steps, -1),
        step_codes=_codes(g, [given.feature_codes, given.known_codes], place.context, place.out),
        ahead=g.concat(ahead, -1) if ahead else zeros(g, [given.lengths.size(0), config.horizon, 0]),
        ahead_codes=_codes(g, [given.known_codes], place.following, None),
        static=g.concat(static, -1),
        static_codes=given.static_codes,
        base=base,
        level=level,
        spread=spread,
        elapsed=elapsed,
        linear=_linear(g, config, past.take(-c, None, 1), level, spread, latest, history.mean),
    )


def _by(value: Value, spread: Value) -> Value:
    return (value / spread).cast(np.float32)


def _place(g: Graph, config: TableInput, given: Given) -> _Place:
    reach, c, none = config.reach, config.context, g.constant(np.array(0, np.int64))
    origin = given.lengths.unsqueeze(1) - 1
    index = origin + g.constant(np.arange(1 - reach, 1))
    outside = index < 0
    clipped = g.op("Max", index, none)
    out = outside.cast(np.int64).take(-c, None, 1).cast(bool)
    return _Place(
        origin=origin,
        reach=clipped,
        outside=outside,
        number=index.take(-c, None, 1).cast(np.float64).unsqueeze(2),
        out=out.unsqueeze(2),
        context=clipped.take(-c, None, 1),
        following=origin + g.constant(np.arange(1, config.horizon + 1)),
    )


class _History(NamedTuple):
    """Of all rows up to the origin: the latest observed row (-1: none) and value, and means so far; each [B, K]."""

    known: Value  # [B, T, K]
    number: Value  # [1, T, 1]
    row: Value
    last: Value
    running: Value
    mean: Value


def _history(g: Graph, given: Given) -> _History:
    zero, one = (g.constant(np.array(n, np.int64)) for n in (0, 1))
    number = g.op("Range", zero, given.target.size(1).squeeze(0), one).unsqueeze(0, 2)
    known = ~missing(given.target) & (number < given.lengths.unsqueeze(1, 2))
    row = g.where(known, number, -1).reduce("Max", 1)
    value = g.where(known, given.target, 0.0)
    found = g.op("GatherElements", value, g.op("Max", row, zero).unsqueeze(1), axis=1).squeeze(1)
    count = known.cast(np.float64).reduce("Sum", 1)
    least = g.constant(np.array(1.0))
    changes = _changes(g, value, known).reduce("Sum", 1)
    return _History(
        known=known,
        number=number,
        row=row,
        last=g.where(row >= 0, found, 0.0),
        running=changes / g.op("Max", count - 1.0, least),
        mean=value.reduce("Sum", 1) / g.op("Max", count, least),
    )


def _changes(g: Graph, value: Value, known: Value) -> Value:
    """Absolute changes [B, T, K] from the observed row before, at the rows that have one; 0 elsewhere.

    The observed values of all series stand one behind the other while their differences are taken.
    """
    zero, one = (g.constant(np.array(n, np.int64)) for n in (0, 1))
    columns = value.transpose(0, 2, 1)
    flat, mask = columns.reshape(-1), known.transpose(0, 2, 1).reshape(-1)
    places = g.op("Range", zero, flat.size(0).squeeze(0), one)
    place = g.op("Compress", places, mask, axis=0)
    seen = g.op("Compress", flat, mask, axis=0)
    owner = g.op("Div", place, value.size(1))  # rows of T belong to one series and column
    same = g.op("Equal", owner.take(1, None, 0), owner.take(0, -1, 0), dtype=bool)
    change = g.where(same, g.op("Abs", seen.take(1, None, 0) - seen.take(0, -1, 0)), 0.0)
    empty = zeros(g, [flat.size(0)], np.float64)
    spread = g.op("ScatterElements", empty, place.take(1, None, 0), change, axis=0)
    return g.op("Reshape", spread, g.op("Shape", columns, dtype=np.int64)).transpose(0, 2, 1)


def _scale(g: Graph, config: TableInput, x: Value, history: _History) -> tuple[Value, Value, Value]:
    seen = (~missing(x)).cast(np.float64)
    count = seen.reduce("Sum", 1)
    n = g.op("Max", count, g.constant(np.array(1.0)))
    filled = g.where(missing(x), 0.0, x)
    last = history.last
    level = last if config.level == "last" else g.where(count > 0.0, filled.reduce("Sum", 1) / n, last)
    spread = (g.op("Abs", filled - level.unsqueeze(1)) * seen).reduce("Sum", 1) / n
    spread = g.op("Max", g.where(count > 1.0, spread, 0.0), history.running * 0.1)
    size = g.op("Max", g.op("Abs", filled).reduce("Sum", 1) / n, g.op("Abs", last))
    least = g.op("Max", size, history.running)
    smallest = g.where(least > 0.0, g.op("Min", least * 1e-5, g.constant(np.array(LEAST))), LEAST)
    return level, g.op("Max", spread, size * 1e-4 + smallest), last


def _channels(g: Graph, config: TableInput, given: Given, place: _Place, past: Value, history: _History) -> list[Value]:
    c, reach, bound = config.context, config.reach, float(BOUND)
    x = past.take(-c, None, 1)
    gone = missing(x)
    value = g.where(gone, 0.0, x)
    before = g.concat([value.take(0, 1, 1), value.take(0, -1, 1)], 1)
    seen = (~gone).cast(np.float32)
    both = g.concat([seen.take(0, 1, 1), seen.take(0, -1, 1)], 1) * seen
    difference = g.where(both > 0.0, value - before, 0.0)
    age = g.where(place.out, float(NEVER), _age(g, config, given, place, gone, history))
    seasons = []
    for m in config.seasons:
        earlier = past.take(reach - c - m, reach - m, 1)
        seasons.append(g.clip(g.where(missing(earlier), 0.0, earlier), -bound, bound))
    return [g.clip(value, -bound, bound), seen, age, g.clip(difference, -bound, bound), *seasons]


def _age(g: Graph, config: TableInput, given: Given, place: _Place, gone: Value, history: _History) -> Value:
    """How long ago the target was observed at each of the context's rows [B, C, K]."""
    first = place.number.take(0, 1, 1)  # [B, 1, 1]
    number = history.number.cast(np.float64)
    earlier = g.where(history.known & (number <= first), number, -1.0).reduce("Max", 1, keep=True)
    inside = g.where(gone, -1.0, place.number)
    latest = g.op("Max", so_far(inside, config.context), earlier)
    if given.time is None:
        steps = place.number - latest
    else:
        known = g.op("Max", latest, g.constant(np.array(0.0))).cast(np.int64)
        then = at(given.time, known.reshape(0, -1))
        shape = g.op("Shape", latest, dtype=np.int64)
        now = at(given.time, place.context).unsqueeze(2)
        steps = (now - g.op("Reshape", then, shape)) / config.grid.step
    age = g.op("Log", g.op("Max", steps, g.constant(np.array(0.0))) + 1.0) / 3.0
    return g.where(latest >= 0.0, age, float(NEVER)).cast(np.float32)


def _elapsed(g: Graph, config: TableInput, given: Given, place: _Place) -> Value:
    """[B, C], 1 where the clock is even, before the series, and for its first row."""
    if given.time is None:
        return zeros(g, [given.lengths.size(0), config.context], fill=1.0)
    before = g.op("Max", place.context - 1, g.constant(np.array(0, np.int64)))
    gap = (at(given.time, place.context) - at(given.time, before)) / config.grid.step
    return g.where(place.number.squeeze(2) <= 0.0, 1.0, gap).cast(np.float32)


def _scaled(raw: Value | None, columns: tuple[Column, ...]) -> list[Value]:
    """Number columns [B, R, F], or static ones [B, F], as [B, R, 2 F] of (scaled, observed)."""
    if raw is None:
        return []
    g = raw.graph
    if not columns:
        return []
    gone = missing(raw)
    mean, scale = (g.constant(np.array([getattr(c, name) for c in columns])) for name in ("mean", "scale"))
    parts = [g.where(gone, 0.0, (raw - mean) / scale), (~gone).cast(np.float64)]
    return [interleave(parts, len(columns)).cast(np.float32)]


def _numbers(raw: Value | None, columns: tuple[Column, ...], index: Value) -> list[Value]:
    return [] if raw is None else _scaled(at(raw, index), columns)


def _codes(g: Graph, parts: list[Value | None], index: Value, out: Value | None) -> Value | None:
    found = [at(part, index) for part in parts if part is not None]
    if not found:
        return None
    codes = g.concat(found, -1)
    return codes if out is None else g.where(out, MISSING, codes)


def _lags(
    g: Graph, config: TableInput, given: Given, past: Value, latest: Value, level: Value, spread: Value, row: Value
) -> tuple[Value | None, Value]:
    h, reach = np.arange(1, config.horizon + 1), config.reach
    now = latest.unsqueeze(1) + g.constant(np.zeros((1, len(h), 1), np.float32))
    bases, found = [now, now * 0.0], []
    for m in config.seasons:
        ahead = -(-h // m)
        value = g.op("Gather", past, g.constant(reach - 1 + h - m * ahead), axis=1)
        gone = missing(value)
        value = g.where(gone, now, value)
        place = row - m
        zero = g.constant(np.array(0, np.int64))
        before = g.op("GatherElements", given.target, g.op("Max", place, zero).unsqueeze(1), axis=1).squeeze(1)
        known = (place >= 0) & ~missing(before)
        anchor = g.where(missing(before), 0.0, _by(before - level, spread)).unsqueeze(1)
        sure = ~gone & known.unsqueeze(1)
        found += [value, value - now, gone.cast(np.float32), g.where(sure, value - anchor, 0.0)]
        drift = (now - anchor) * g.constant(ahead[:, None].astype(np.float32))
        bases += [value, g.where(sure, value + drift, now)]
    lags = g.clip(g.concat(found, -1), -float(BOUND), float(BOUND)) if found else None
    return lags, g.concat([b.unsqueeze(3) for b in bases], 3)


def _linear(g: Graph, config: TableInput, x: Value, level: Value, spread: Value, latest: Value, mean: Value) -> Value:
    """[B, C + 1, K]: the context without gaps, and how far the level is from all history."""
    c, bound = config.context, float(BOUND)
    gone = missing(x)
    number = g.constant(np.arange(c, dtype=np.float64)[None, :, None])
    before = so_far(g.where(gone, -1.0, number), c)
    after = -so_far(g.where(gone, -float(c), -number), c, backwards=True)
    left = g.where(before < 0.0, g.op("Min", after, g.constant(np.array(c - 1.0))), before)
    right = g.where(after >= float(c), left, after)
    a, b = (g.op("GatherElements", x, side.cast(np.int64), axis=1) for side in (left, right))
    share = (number - left) / g.op("Max", right - left, g.constant(np.array(1.0)))
    filled = a + g.clip(share, 0.0, 1.0).cast(np.float32) * (b - a)
    filled = g.where(missing(filled), latest.unsqueeze(1), filled)
    away = g.clip((level - mean) / (spread * FAR), -1.0, 1.0).cast(np.float32)
    return g.concat([g.clip(filled, -bound, bound), away.unsqueeze(1)], 1)
