"""Rows to scale the integers by, and what the integers cost in accuracy on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError
from carousel.export.c import int8, int8_forecast, int8_sequence, reference
from carousel.export.c.plan import Plan
from carousel.export.c.record_sequence import Pushed
from carousel.heads.forecast import ForecastHead
from carousel.heads.tag import TagHead, event_labels
from carousel.inputs.fitted import TableInput
from carousel.inputs.sequence import SequenceInput
from carousel.inputs.table import Series, read_table
from carousel.inputs.windows import Rows

__all__ = ["forecaster", "sequences"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WINDOWS = 512  # origins that are looked at, spread evenly
ROWS = 20_000  # rows of sequences that are looked at
LEAST = 8  # windows, or sequences' rows, below which nothing can be said


def read(path: Path) -> Any:
    from carousel.inputs.files import read_file

    return read_file(path)


def forecaster(plan: Plan, path: Path) -> tuple[int8.Whole, Series, dict[str, Any]]:
    """The integer model, the series it was scaled by, and the loss in pinball on them.

    Raises DataError where the table does not fit the model or is too short.
    """
    table, head = cast(TableInput, plan.config.input), cast(ForecastHead, plan.config.head)
    series = read_table(read(path), table.roles, source=str(path), grid=table.grid, stamps=table.stamps)
    rows = Rows(series, table)
    index = np.arange(int(series.offsets[-1]))
    which = np.searchsorted(series.offsets, index, side="right") - 1
    inside = (index - series.offsets[which] >= table.context - 1) & (index + table.horizon < series.offsets[which + 1])
    seen = rows.latest[rows.place(index)].min(1) >= 0
    origins = index[inside & seen]
    if len(origins) < LEAST:
        raise DataError(
            f"{path}: {len(origins)} windows of {table.context} rows with {table.horizon} rows after them are too few"
            f" to calibrate; give series of at least {table.context + table.horizon + LEAST} rows."
        )
    origins = origins[np.linspace(0, len(origins) - 1, min(WINDOWS, len(origins))).astype(np.int64)]
    windows, ranges = rows.gather(rows.place(origins)), reference.Ranges()
    _, exact = reference.forecast(plan, windows, ranges)
    whole = int8.quantised(plan, rows, ranges)
    scale = 2.0 ** np.asarray(whole.target_bits, np.float64)[:, None]
    made = int8_forecast.forecast(whole, rows, origins) / scale
    truth = rows.target[rows.place(origins)[:, None] + np.arange(1, table.horizon + 1)]
    spread = windows.spread[:, None]
    before, after = (_pinball(q, truth, head.quantiles, spread) for q in (exact, made))
    away = float(np.sqrt(np.mean(((exact - made)[..., head.median] / spread) ** 2)))
    found = _loss("pinball", before, after, f"{len(origins)} windows of {path}")
    found["notes"].append(f"the median moved by {away:.4f} of a window's spread (root mean square)")
    return whole, series, found


def _pinball(q: Floats, truth: Floats, quantiles: tuple[float, ...], spread: Floats) -> float:
    error = truth[..., None] - q
    level = np.asarray(quantiles)
    return float(np.nanmean(np.maximum(level * error, (level - 1) * error).mean(-1) / spread))


def _loss(metric: str, exact: float, made: float, where: str) -> dict[str, Any]:
    change = 100 * (made / exact - 1) if exact > 0 else 0.0
    note = f"{metric} on {where}: {exact:.5g} in float, {made:.5g} in integers ({change:+.2f} %)"
    return {"metric": metric, "float": exact, "int8": made, "loss_percent": change, "notes": [note]}


def sequences(plan: Plan, path: Path) -> tuple[int8_sequence.WholeSequence, Pushed, dict[str, Any]]:
    """The integer model, the sequences it was scaled by, and the loss on them: in the metric of the task where the
    table holds the target, else how far answers moved.

    Raises DataError where the table does not fit the model or is too short.
    """
    pushed, truth = _sequences(plan, path)
    table, ranges = cast(SequenceInput, plan.config.input), reference.Ranges()
    if len(pushed.time) < LEAST:
        raise DataError(f"{path}: {len(pushed.time)} rows are too few to calibrate; give at least {LEAST}.")
    outputs = reference.sequence(plan, pushed.channels(table), ranges)
    exact = reference.answer(plan, outputs, pushed)
    whole = int8_sequence.quantised(plan, pushed, ranges)
    made = int8_sequence.answers(whole, pushed) / _unit(whole)
    if plan.config.task == "classify":
        ends = pushed.offsets[1:] - 1
        exact, made = exact[ends], made[ends]
    return whole, pushed, _compare(plan, exact, made, truth, str(path))


def _unit(whole: int8_sequence.WholeSequence) -> Floats:
    if "bits" in whole.read_out:
        return np.asarray(2.0 ** whole.read_out["bits"])
    return np.asarray([65536.0, 1.0] if whole.plan.config.head.kind == "event" else 65536.0)


def _compare(plan: Plan, exact: Floats, made: Floats, truth: Floats | None, where: str) -> dict[str, Any]:
    head = plan.config.head
    moved = f"answers moved by {np.abs(exact - made)[:, : 1 if head.kind == 'event' else None].mean():.2g} on average"
    known = np.zeros(len(exact), bool) if truth is None else np.isfinite(truth)
    if truth is None or not known.any():
        same = (
            [] if head.kind != "label" else [f", {100 * (exact.argmax(1) == made.argmax(1)).mean():.2f} % same labels"]
        )
        return {"notes": [moved + "".join(same) + f" ({len(exact):,} answers on {where}, which holds no target)"]}
    y, count = truth[known], f"{int(known.sum()):,} answers on {where}"
    if head.kind == "regression":
        before, after = (float(np.sqrt(np.mean((a[known, 0] - y) ** 2))) for a in (exact, made))
        found = _loss("root mean squared error", before, after, count)
    else:
        chosen = [a[known, 0] if head.kind == "event" else a[known, y.astype(np.int64)] for a in (exact, made)]
        right = [np.where(y == 1, p, 1 - p) if head.kind == "event" else p for p in chosen]
        before, after = (float(-np.log(np.maximum(p, 2.0**-16)).mean()) for p in right)
        found = _loss("log loss", before, after, count)
    if head.kind == "label":
        shares = [100 * float((a[known].argmax(1) == y).mean()) for a in (exact, made)]
        found["notes"].append(f"accuracy: {shares[0]:.2f} % in float, {shares[1]:.2f} % in integers")
    found["notes"].append(moved)
    return found


def _sequences(plan: Plan, path: Path) -> tuple[Pushed, Floats | None]:
    """What goes in, and the truth: a class of each row or sequence, a number, or whether an event comes."""
    from carousel.inputs.rows import channels, read_sequences

    table, head = cast(SequenceInput, plan.config.input), plan.config.head
    frame, target = read(path), table.roles.target
    has = bool(target) and target[0] in frame.columns
    given = read_sequences(
        frame, table.roles, source=str(path), fitted=table, variable=table.variable, value=table.value, target=has
    )
    made = channels(given, table)
    names, fixed = given.roles.features, given.roles.static
    pushed = Pushed(
        given.time,
        given.features[:, [names.index(c.name) for c in table.numbers]],
        made.codes,
        given.offsets,
        given.static[:, [fixed.index(c.name) for c in table.static_numbers]],
        made.static_codes,
        given.local if table.calendar else given.time,
    )
    truth = _truth(head, given) if has else None
    if truth is not None and plan.config.task == "classify":
        truth = truth[given.offsets[:-1]]
    return _part(pushed, truth, plan.config.task == "classify")


def _part(pushed: Pushed, truth: Floats | None, whole: bool) -> tuple[Pushed, Floats | None]:
    """As many sequences as make up `ROWS` rows."""
    many = max(1, int(np.searchsorted(pushed.offsets, ROWS, side="right")) - 1)
    end = int(pushed.offsets[many])
    part = Pushed(
        pushed.time[:end],
        pushed.numbers[:end],
        pushed.codes[:end],
        pushed.offsets[: many + 1],
        pushed.static_numbers[:many],
        pushed.static_codes[:many],
        pushed.wall[:end],
    )
    return part, None if truth is None else truth[: many if whole else end]


def _truth(head: Any, given: Any) -> Floats:
    """[N] of all rows in the order of the sequences."""
    values = given.target.to_list()
    ordered = [values[k - 1] for k in given.row]
    if head.kind == "label":
        place = {text: k for k, text in enumerate(head.classes)}
        return np.array([place.get(_text(v), np.nan) for v in ordered], np.float64)
    numbers = np.array([np.nan if v is None else float(v) for v in ordered])
    if isinstance(head, TagHead) and head.kind == "event":
        return event_labels(given.time, numbers, given.offsets, head.ahead)
    return numbers


def _text(value: Any) -> str | None:
    """A class as the model file writes it."""
    if value is None or isinstance(value, str | bool):
        return None if value is None else str(value)
    return str(int(value)) if float(value) == int(value) else repr(float(value))
