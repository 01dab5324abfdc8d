"""The float C file of a model of sequences: classify, tag and detect, one row at a time."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from carousel.export.c import detect, emit
from carousel.export.c.calendars import FLOAT_LINES
from carousel.export.c.plan import Plan
from carousel.export.c.text import array, braces, comment, constants, number
from carousel.heads.classify import ClassifyHead
from carousel.heads.detect import DetectHead
from carousel.heads.tag import TagHead
from carousel.inputs.sequence import Channel, SequenceInput

__all__ = ["answers", "category_tables", "codes_check", "head_parts", "sizes", "source", "template_values"]


Head = ClassifyHead | TagHead | DetectHead


def parts_of(plan: Plan) -> tuple[SequenceInput, Head]:
    return cast(SequenceInput, plan.config.input), cast(Head, plan.config.head)


def kind_of(head: Head) -> str:
    """What is answered: label, regression, event or score."""
    return "score" if isinstance(head, DetectHead) else head.kind


def pooling(head: Head) -> str:
    """How rows are pooled before the head; "last" where each row is answered for itself."""
    return head.pooling if isinstance(head, ClassifyHead) else "last"


def answers(head: Head) -> list[str]:
    """What an answer holds."""
    if isinstance(head, DetectHead):
        parts = [f"the part of {comment([name])} in the oddest view" for name in head.columns]
        return ["score, NaN where nothing is observed", "anomaly: 1 from the threshold on, else 0", *parts]
    if head.kind == "label":
        return [f"probability of {comment([name])}" for name in head.classes]
    if head.kind == "event":
        return ["probability", "alarm: 1 from the threshold on, else 0"]
    return ["prediction", *(f"its quantile {q:g}" for q in head.quantiles)]


def source(plan: Plan) -> tuple[str, str]:
    """The header and the source file."""
    table, head = parts_of(plan)
    values = template_values(plan)
    layer_text, layer_rows = emit.layer_tables(plan)
    head_text, head_rows = emit.head_tables(plan, head_parts(plan))
    embedded = len(table.embedded)
    rows = []
    for stack, own in zip(layer_rows, head_rows, strict=True):
        named = own[: len(own) - embedded]
        rows.append(braces([braces(stack), *named, *([braces(own[len(own) - embedded :])] if embedded else [])]))
    values |= {
        "member_table": emit.table_of("member MODEL[MEMBERS]", rows),
        "column_tables": _column_tables(table),
        "codes": codes_check(table),
        "calendar_lines": "\n".join(f"    {FLOAT_LINES[name]}" for name in table.calendar),
    }
    values["calendar"] = emit.template("calendar_float.c", values) if table.calendar else ""
    parts = [
        f'/* {plan.name}.h says what this is and how to use it. */\n#include "{plan.name}.h"\n\n#include <string.h>\n',
        emit.stack_constants(plan),
        constants(sizes(plan)),
        f"#define UNIT {number(float(table.unit))} /* of elapsed time */\n" + _read_out_constants(head),
        category_tables(table),
        detect.tables(plan),
        layer_text,
        head_text,
        emit.template("math_float.c", values),
        emit.template("stack_float.c", values),
        emit.template("sequence_float.c", values),
    ]
    return emit.template("sequence_float.h", values), "\n".join(parts)


def head_parts(plan: Plan) -> dict[str, str]:
    """C name and weight of what stands beside the stack, in the order of the template's struct; embeddings last."""
    table, head = parts_of(plan)
    parts: dict[str, str] = {}
    if table.static_size:
        parts |= {"initial": "static.weight", "initial_bias": "static.bias"}
    if pooling(head) == "attention":
        parts["attention"] = "head.attention.weight"
    for name in ("hidden", "out") if head.width else ("out",):
        parts |= {name: f"head.{name}.weight", f"{name}_bias": f"head.{name}.bias"}
    return parts | {f"embed_{k}": f"input.embed.{k}.weight" for k in range(len(table.embedded))}


def template_values(plan: Plan) -> dict[str, Any]:
    table, head = parts_of(plan)
    stack, kind, what = plan.config.stack, pooling(head), kind_of(head)
    values: dict[str, Any] = {
        "name": plan.name,
        "NAME": plan.name.upper(),
        "about": _about(plan),
        "answer_note": " from the rows so far" if isinstance(head, ClassifyHead) else "",
        "reset_example": ", &fixed" if table.static else "",
        "answers": len(answers(head)),
        "answer_names": "\n".join(f" *     {k} {text}" for k, text in enumerate(answers(head))),
        "label": what == "label",
        "event": what == "event",
        "regression": what == "regression",
        "threshold": number(float(getattr(head, "threshold", 0.0))) if what in ("event", "score") else "",
        "time": table.roles.time is not None,
        "time_unit": "seconds since 1970" if table.stamps else "as in the data",
        "zone": emit.zone(getattr(table, "zone", None)),
        "uneven": table.uneven,
        "gaps": any(c.gaps for c in table.numbers),
        "fades": table.uneven or any(c.gaps for c in table.numbers),
        "any_numbers": any(c.kind == "number" for c in (*table.columns, *table.static)),
        "row_numbers": len(table.numbers),
        "row_number_names": emit.columns_comment(table.numbers),
        "row_categories": len(table.categories),
        "row_category_names": emit.columns_comment(table.categories),
        "empty_row": not table.columns and table.roles.time is None,
        "categories": bool(table.embedded),
        "category_names": _codes_comment(table.embedded),
        "embedded": len(table.embedded),
        "fixed": bool(table.static),
        "fixed_numbers": len(table.static_numbers),
        "fixed_number_names": emit.columns_comment(table.static_numbers),
        "fixed_categories": len(table.static_categories),
        "fixed_category_names": emit.columns_comment(table.static_categories),
        "static_size": table.static_size,
        "after_numbers": bool(table.static) or bool(table.categories),
        "members": plan.config.seeds,
        "layers": stack.num_layers,
        "hidden": stack.hidden_size,
        "output": stack.output_size,
        "wide": bool(head.width),
        "pooled": kind != "last",
        "attention": kind == "attention",
        "pool_mean": kind == "mean",
        "pool_max": kind == "max",
        "calendar_features": bool(table.calendar),
        "ahead_times": False,
    }
    values |= emit.stack_values(plan)
    odd = kind_of(head) == "score"
    values |= detect.values(plan)
    return values | emit.math_values(logarithm=odd, softplus=odd, layer_norm=plan.spec.layer_norm)


def sizes(plan: Plan) -> dict[str, int]:
    table, head = parts_of(plan)
    return {
        "NUMERIC": table.value_size,
        "STATIC": table.static_size,
        "WIDTH": head.width,
        "OUTPUTS": head.outputs,
        "FIXED_TABLES": len(table.categories),
    }


def _about(plan: Plan) -> str:
    table, head = parts_of(plan)
    stack, many = plan.config.stack, plan.config.seeds
    what = {
        "label": "A label",
        "regression": "A number",
        "event": f"The probability of an event within {getattr(head, 'ahead', 0):g}",
        "score": "How odd the columns are,",
    }[kind_of(head)]
    of = "sequence" if isinstance(head, ClassifyHead) else "row"
    members = f", {many} networks averaged" if many > 1 else ""
    seen = comment([c.name for c in table.columns])
    return (
        f" * {what} for each {of} from {seen}, by an LSTM of {stack.num_layers} x {stack.hidden_size} units{members}."
        " Written by `carousel export`."
    )


def _codes_comment(columns: tuple[Channel, ...]) -> str:
    """What the codes of each categorical column mean."""
    lines = []
    for column in columns:
        if column.kind == "hash":
            lines.append(f" * {comment([column.name])}: 2 + FNV-1a (32 bits) of the text, modulo {column.buckets}")
        else:
            lines.append(emit.categories_comment([column]))
    return "\n".join(lines)


def _column_tables(table: SequenceInput) -> str:
    found = []
    for part, columns in (("ROW", table.numbers), ("FIXED", table.static_numbers)):
        if columns:
            rows = [braces([number(c.mean), number(c.scale), number(c.squash), str(int(c.gaps))]) for c in columns]
            found.append(emit.table_of(f"column {part}_COLUMN[{len(rows)}]", rows))
    return "\n".join(found)


def _read_out_constants(head: Head) -> str:
    if isinstance(head, DetectHead):
        return ""
    if head.kind == "regression":
        found = f"#define TARGET_MEAN {number(float(head.mean))}\n#define TARGET_SCALE {number(float(head.scale))}\n"
        return found + array("ERRORS", np.asarray(head.errors, np.float64))
    return f"#define TEMPERATURE {number(float(head.temperature))}\n"


def category_tables(table: SequenceInput) -> str:
    """Widths of the embeddings."""
    found = ""
    for part, columns in (("ROW", table.categories), ("FIXED", table.static_categories)):
        if columns:
            found += array(f"{part}_WIDTHS", np.array([c.width for c in columns], np.int32))
    return found


def codes_check(table: SequenceInput) -> str:
    """The check of codes and their limits."""
    parts = (("ROW", table.categories), ("FIXED", table.static_categories))
    return emit.codes_check({part: [c.codes for c in columns] for part, columns in parts if columns})
