"""The float C file of a forecaster."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from carousel.export.c import emit
from carousel.export.c.calendars import FLOAT_LINES
from carousel.export.c.plan import Plan
from carousel.export.c.text import array, braces, comment, constants, number
from carousel.heads.forecast import ForecastHead
from carousel.inputs.fitted import Column, TableInput

__all__ = ["category_tables", "codes_check", "head_parts", "sizes", "source", "template_values"]


def source(plan: Plan) -> tuple[str, str]:
    """The header and the source file."""
    table, head = cast(TableInput, plan.config.input), cast(ForecastHead, plan.config.head)
    values = template_values(plan, table, head)
    layer_text, layer_rows = emit.layer_tables(plan)
    head_text, head_rows = emit.head_tables(plan, head_parts(table))
    embedded = len(table.embedded)
    rows = []
    for stack, own in zip(layer_rows, head_rows, strict=True):
        named = own[: len(own) - embedded]
        rows.append(braces([braces(stack), *named, *([braces(own[len(own) - embedded :])] if embedded else [])]))
    values["member_table"] = emit.table_of("member MODEL[MEMBERS]", rows)
    values["codes"] = codes_check(table)
    values["calendar"] = emit.template("calendar_float.c", values) if values["calendar_features"] else ""
    parts = [
        f'/* {plan.name}.h says what this is and how to use it. */\n#include "{plan.name}.h"\n\n#include <string.h>\n',
        emit.stack_constants(plan),
        constants(sizes(table, head)),
        _tables(table, head),
        layer_text,
        head_text,
        emit.template("math_float.c", values),
        emit.template("stack_float.c", values),
        emit.template("forecast_float.c", values),
    ]
    return emit.template("forecast_float.h", values), "\n".join(parts)


def head_parts(table: TableInput) -> dict[str, str]:
    """C name and weight of what the head reads, in the order of the template's struct; the embeddings last."""
    parts = {"step": "head.step", "gate_step": "head.gate_step"}
    for name in ("state", "ahead", "hidden", "out", "gate", "linear"):
        if name == "ahead":
            parts |= {"ahead": "head.ahead.weight"} if table.ahead_size else {}
        else:
            parts |= {name: f"head.{name}.weight", f"{name}_bias": f"head.{name}.bias"}
    return parts | {f"embed_{k}": f"input.embed.{k}.weight" for k in range(len(table.embedded))}


def _kind(columns: tuple[Column, ...], kind: str) -> tuple[Column, ...]:
    return tuple(c for c in columns if c.kind == kind)


def template_values(plan: Plan, table: TableInput, head: ForecastHead) -> dict[str, Any]:
    rows = table.features + table.known
    numbers = 2 * len(_kind(rows, "number")) + 2 * len(table.calendar) + table.uneven
    values: dict[str, Any] = {
        "name": plan.name,
        "NAME": plan.name.upper(),
        "about": _about(plan, table),
        "spacing": "the times that they were observed at"
        if table.uneven
        else f"the spacing of the data ({_spacing(table)})",
        "targets": table.targets,
        "target_names": comment(table.roles.target),
        "horizon": table.horizon,
        "context": table.context,
        "reach": table.reach,
        "seasons": len(table.seasons),
        "quantiles": len(head.quantiles),
        "quantile_names": ", ".join(f"{q:g}" for q in head.quantiles),
        "median": head.median,
        "time": table.uneven,
        "time_unit": "seconds since 1970" if table.stamps else "as in the data",
        "zone": emit.zone(table.grid.zone),
        "uneven": table.uneven,
        "numbers": numbers,
        "any_numbers": any(c.kind == "number" for c in rows + table.static),
        "categories": bool(table.embedded),
        "category_names": emit.categories_comment(table.embedded),
        "embedded": len(table.embedded),
        "known": bool(table.known),
        "fixed": bool(table.static),
        "ahead": bool(table.ahead_size),
        "ahead_times": True,
        "calendar_features": bool(table.calendar),
        "calendar_lines": "\n".join(f"    {FLOAT_LINES[name]}" for name in table.calendar),
        "grid_even": table.grid.kind in ("even", "uneven"),
        "grid_business": table.grid.kind == "business",
        "grid_month": table.grid.kind in ("month", "month_end"),
        "grid_month_end": table.grid.kind == "month_end",
        "grid_step": int(table.grid.step) if table.grid.kind not in ("even", "uneven") else 1,
        "level_last": table.level == "last",
        "reset_example": ", &fixed" if table.static else "",
        "forecast_example": "ahead, " if table.known else "",
    }
    for part, columns in (("row", rows), ("known", table.known), ("fixed", table.static)):
        for kind, word in (("number", "numbers"), ("category", "categories")):
            some = _kind(columns, kind)
            values[f"{part}_{word}"] = len(some)
            values[f"{part}_{'number' if kind == 'number' else 'category'}_names"] = emit.columns_comment(some)
    values |= emit.stack_values(plan)
    return values | emit.math_values(logarithm=True, softplus=True, layer_norm=plan.spec.layer_norm)


def _about(plan: Plan, table: TableInput) -> str:
    stack, many = plan.config.stack, plan.config.seeds
    members = f", {many} networks averaged" if many > 1 else ""
    return (
        f" * Forecasts of {comment(table.roles.target)}: {table.horizon} steps ahead from the last {table.context}"
        f" rows, by an LSTM of {stack.num_layers} x {stack.hidden_size} units{members}. Written by `carousel export`."
    )


def _spacing(table: TableInput) -> str:
    unit = {"even": "seconds" if table.stamps else "units of the clock", "month": "months", "month_end": "months"}
    return f"{table.grid.step:g} {unit.get(table.grid.kind, 'business days')}"


def sizes(table: TableInput, head: ForecastHead) -> dict[str, int]:
    return {
        "TARGETS": table.targets,
        "CONTEXT": table.context,
        "REACH": table.reach,
        "HORIZON": table.horizon,
        "SEASONS": len(table.seasons),
        "QUANTILES": len(head.quantiles),
        "MEDIAN": head.median,
        "BASES": table.bases,
        "WIDTH": head.width,
        "AHEAD": table.ahead_size,
        "STATIC": table.static_size,
        "FEATURES": len(_kind(table.features, "number")),
        "KNOWN_TABLES": len(_kind(table.features, "category")),
        "FIXED_TABLES": len(_kind(table.features + table.known, "category")),
    }


def _tables(table: TableInput, head: ForecastHead) -> str:
    found = array("FACTOR", np.asarray(head.factors))
    if table.seasons:
        found += array("SEASON", np.asarray(table.seasons, np.uint32))
    if table.uneven or table.calendar:
        found += f"#define STEP_OF_CLOCK {number(float(table.grid.step))}\n"
    for part, columns in (("ROW", table.features + table.known), ("FIXED", table.static)):
        if numbers := _kind(columns, "number"):
            found += array(f"{part}_MEAN", np.array([c.mean for c in numbers]))
            found += array(f"{part}_SCALE", np.array([c.scale for c in numbers]))
    return found + category_tables(table)


def category_tables(table: TableInput) -> str:
    """Widths of the embeddings."""
    found = ""
    for part, columns in (("ROW", table.features + table.known), ("FIXED", table.static)):
        if categories := _kind(columns, "category"):
            found += array(f"{part}_WIDTHS", np.array([c.width for c in categories], np.int32))
    return found


def codes_check(table: TableInput) -> str:
    """The check of codes and their limits."""
    parts = (("ROW", table.features + table.known), ("KNOWN", table.known), ("FIXED", table.static))
    found = {part: [c.codes for c in _kind(columns, "category")] for part, columns in parts}
    return emit.codes_check({part: limits for part, limits in found.items() if limits})
