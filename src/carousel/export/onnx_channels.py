"""`inputs.sequence` in an ONNX graph: raw rows of ragged sequences to channels, in float64 and in the same order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from carousel.export.onnx_graph import Graph, Value
from carousel.export.onnx_rows import at, calendar, interleave, missing
from carousel.inputs.sequence import BOUND, GAPPED, Channel, SequenceInput

__all__ = ["Given", "Memory", "Seen", "carry", "channels", "inputs"]


class Memory(NamedTuple):
    """`inputs.sequence.Memory` of B sequences; `time` NaN: this one has not begun."""

    time: Value  # [B]
    seen: Value | None  # [B, F], NaN: not yet
    last: Value | None  # [B, F]


class Given(NamedTuple):
    """The graph's inputs: T rows of B sequences, of which `lengths` says how many each has."""

    lengths: Value  # [B]
    numbers: Value | None  # [B, T, F]
    codes: Value | None  # [B, T, E]
    static: Value | None  # [B, numbers]
    static_codes: Value | None  # [B, categories]
    time: Value | None  # [B, T]
    wall_time: Value | None  # [B, T]
    memory: Memory | None


class Numbers(NamedTuple):
    """The number columns as the model counts them [B, T, F], float64."""

    scaled: Value  # 0 where it is missing
    gone: Value
    last: Value  # the last one observed, 0 where there is none yet
    seen: Value  # when that was, NaN where there is none yet


class Seen(NamedTuple):
    """`inputs.sequence.Channels`, padded, and the memory after the last row of each sequence."""

    values: Value  # [B, T, .]
    elapsed: Value  # [B, T]
    static: Value | None  # [B, .]
    live: Value  # [B, T]
    memory: Memory
    numbers: Numbers | None


def inputs(g: Graph, config: SequenceInput, *, decay: bool, stateful: bool) -> Given:
    """Only what the model looks at becomes an input."""
    rows = ["batch", "time"]
    counts = [config.numbers, config.categories, config.static_numbers, config.static_categories]
    names = [[c.name for c in columns] for columns in counts]
    coded = "the codes stand in the metadata"
    gaps = any(c.gaps for c in config.numbers)
    clock = config.roles.time is not None and (config.uneven or gaps or decay or stateful)
    memory = None
    if stateful:
        size: list[int | str | None] = ["batch", len(names[0])]
        about = "when and as what (scaled) each number was seen last"
        memory = Memory(
            g.state("last_time", np.float64, ["batch"], np.nan, "time of the row before"),
            g.state("last_seen", np.float64, size, np.nan, about) if names[0] else None,
            g.state("last_value", np.float64, size, 0.0, about) if names[0] else None,
        )
    return Given(
        lengths=g.input("lengths", np.int64, ["batch"], "rows of each sequence"),
        numbers=g.input("numbers", np.float64, [*rows, len(names[0])], f"columns {names[0]}; NaN is missing")
        if names[0]
        else None,
        codes=g.input("codes", np.int64, [*rows, len(names[1])], f"columns {names[1]}; {coded}") if names[1] else None,
        static=g.input("static", np.float64, ["batch", len(names[2])], f"columns {names[2]}; NaN is missing")
        if names[2]
        else None,
        static_codes=g.input("static_codes", np.int64, ["batch", len(names[3])], f"columns {names[3]}; {coded}")
        if names[3]
        else None,
        time=g.input("time", np.float64, rows, "when, in the clock's units; it ascends") if clock else None,
        wall_time=g.input("wall_time", np.float64, rows, "seconds since 1970 of the wall clock")
        if config.calendar
        else None,
        memory=memory,
    )


def channels(g: Graph, config: SequenceInput, given: Given) -> Seen:
    """`SequenceInput.transform` of the rows at hand, after those that the memory knows of."""
    zero, one = (g.constant(np.array(n, np.int64)) for n in (0, 1))
    some = given.numbers or given.codes or given.wall_time or given.time
    assert some is not None  # a SequenceInput has at least one column to see
    number = g.op("Range", zero, some.size(1).squeeze(0), one).unsqueeze(0)  # [1, T]
    live = number < given.lengths.unsqueeze(1)
    memory = given.memory
    time = given.time
    if time is None:  # rows are their own clock
        time = number.cast(np.float64) + given.lengths.unsqueeze(1).cast(np.float64) * 0.0
        if memory is not None:
            time = g.where(_nan(memory.time), time, time + (memory.time.unsqueeze(1) + 1.0))
    before = g.concat([time.take(0, 1, 1), time.take(0, -1, 1)], 1)
    if memory is not None:
        first = g.where(_nan(memory.time), time.take(0, 1, 1), memory.time.unsqueeze(1))
        before = g.concat([first, before.take(1, None, 1)], 1)
    elapsed = (time - before) / config.unit
    numbers = _numbers(g, config, given, time, live)
    found = [] if numbers is None else [_number_channels(g, config, numbers, time)]
    if config.uneven:
        found.append(_fade(elapsed).unsqueeze(2))
    if given.wall_time is not None:
        found += calendar(given.wall_time, config.calendar)
    found = [part.cast(np.float32) for part in found]
    values = g.concat(found, 2) if found else (time.unsqueeze(2).take(0, 0, 2)).cast(np.float32)
    end = at(time, g.op("Max", given.lengths.unsqueeze(1) - 1, zero)).squeeze(1)
    if memory is not None:
        end = g.where(given.lengths > 0, end, memory.time)
    static = None if given.static is None else _static(g, config, given.static)
    after = (
        (None, None) if numbers is None else tuple(v.take(-1, None, 1).squeeze(1) for v in (numbers.seen, numbers.last))
    )
    return Seen(values, elapsed.cast(np.float32), static, live, Memory(end, *after), numbers)


def carry(g: Graph, seen: Seen) -> None:
    """The memory after the last rows, for those that follow."""
    for name, value in zip(("last_time", "last_seen", "last_value"), seen.memory, strict=True):
        if value is not None:
            g.carry(name, value)


def _nan(time: Value) -> Value:
    return time.graph.op("IsNaN", time, dtype=bool).unsqueeze(1)


def _fade(age: Value) -> Value:
    return age / (age + 1.0)


def _numbers(g: Graph, config: SequenceInput, given: Given, time: Value, live: Value) -> Numbers | None:
    if given.numbers is None:
        return None
    gone = missing(given.numbers)
    scaled = _scaled(g, config.numbers, given.numbers, gone)
    latest = _latest(g, ~gone & live.unsqueeze(2))
    row = g.op("Max", latest, g.constant(np.array(0, np.int64)))
    last = g.op("GatherElements", scaled, row, axis=1)
    shape = g.op("Shape", row, dtype=np.int64)
    seen = g.op("Reshape", at(time, row.reshape(0, -1)), shape)
    earlier_last, earlier_seen = (g.constant(np.array(v)) for v in (0.0, np.nan))
    if given.memory is not None and given.memory.last is not None and given.memory.seen is not None:
        earlier_last, earlier_seen = given.memory.last.unsqueeze(1), given.memory.seen.unsqueeze(1)
    none = latest < 0
    return Numbers(scaled, gone, g.where(none, earlier_last, last), g.where(none, earlier_seen, seen))


def _number_channels(g: Graph, config: SequenceInput, numbers: Numbers, time: Value) -> Value:
    columns = config.numbers
    age = _fade((time.unsqueeze(2) - numbers.seen) / config.unit)
    age = g.where(g.op("IsNaN", numbers.seen, dtype=bool), 1.0, age)
    parts = [numbers.scaled, (~numbers.gone).cast(np.float64), age, numbers.last]
    wanted: list[int] = []
    for k, channel in enumerate(columns):
        wanted += range(GAPPED * k, GAPPED * (k + 1)) if channel.gaps else [GAPPED * k + GAPPED - 1]
    return g.op("Gather", interleave(parts, len(columns)), g.constant(np.array(wanted, np.int64)), axis=2)


def _scaled(g: Graph, columns: tuple[Channel, ...], raw: Value, gone: Value) -> Value:
    """`Channel.scaled`, and 0 where the value is missing."""
    x = g.where(gone, 0.0, raw)
    squash = np.array([c.squash for c in columns])
    if squash.any():
        some = g.constant(np.where(squash > 0, squash, 1.0))
        x = g.where(g.constant(squash > 0), x / (g.op("Abs", x) + some), x)
    mean, scale = (g.constant(np.array([getattr(c, name) for c in columns])) for name in ("mean", "scale"))
    return g.where(gone, 0.0, g.clip((x - mean) / scale, -BOUND, BOUND))


def _static(g: Graph, config: SequenceInput, raw: Value) -> Value:
    columns = config.static_numbers
    gone = missing(raw)
    parts = [_scaled(g, columns, raw, gone).unsqueeze(1), (~gone).cast(np.float64).unsqueeze(1)]
    every = interleave(parts, len(columns)).squeeze(1)
    wanted = [n for k, c in enumerate(columns) for n in ((2 * k, 2 * k + 1) if c.gaps else (2 * k,))]
    return g.op("Gather", every, g.constant(np.array(wanted, np.int64)), axis=1).cast(np.float32)


def _latest(g: Graph, seen: Value) -> Value:
    """The latest row up to each at which a column was seen: [B, T, F] -> [B, T, F], -1 where there is none.

    A running maximum, which ONNX lacks: as many rows as were seen so far, over all sequences and columns one behind the
    other, is the place of the latest one in the list of them.
    """
    zero, one = (g.constant(np.array(n, np.int64)) for n in (0, 1))
    columns = seen.transpose(0, 2, 1)
    flat = columns.reshape(-1)
    places = g.op("Range", zero, flat.size(0).squeeze(0), one)
    count = g.op("CumSum", flat.cast(np.int64), zero)
    none = g.constant(np.array([-1], np.int64))
    found = g.op("Gather", g.concat([none, g.op("Compress", places, flat, axis=0)], 0), count, axis=0)
    rows = seen.size(1)
    begin = g.op("Div", places, rows) * rows
    latest = g.where(found >= begin, found - begin, -1)
    return g.op("Reshape", latest, g.op("Shape", columns, dtype=np.int64)).transpose(0, 2, 1)
