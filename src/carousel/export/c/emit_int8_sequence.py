"""The integer C file of a classifier or tagger."""

from __future__ import annotations

from typing import Any

from carousel.export.c import emit, sequence
from carousel.export.c.calendars import WHOLE_LINES
from carousel.export.c.emit_int8 import Tables, layer_row, math_tables, matrices_of, stack_constants
from carousel.export.c.int8_sequence import WholeSequence
from carousel.export.c.text import array, braces, comment, constants

__all__ = ["source", "template_values"]


def source(whole: WholeSequence) -> tuple[str, str]:
    """The header and the source file."""
    plan, table = whole.plan, whole.table
    values = template_values(whole)
    tables = Tables()
    rows = []
    for m, member in enumerate(whole.members):
        parts = [braces(layer_row(tables, f"w{m}_{n}", layer) for n, layer in enumerate(member.stack))]
        for name in ("initial", "attention", "hidden", "out"):
            if name in member.matrices:
                parts.append(tables.matrix(f"h{m}_{name}", member.matrices[name]))
        if member.embed:
            parts.append(braces(tables.add(f"e{m}_{k}", e) for k, e in enumerate(member.embed)))
        rows.append(braces(parts))
    values["member_table"] = emit.table_of("member MODEL[MEMBERS]", rows)
    values["calendar"] = emit.template("calendar_int8.c", values) if table.calendar else ""
    matrices = [x for m in whole.members for x in [*m.matrices.values(), *matrices_of(m.stack)]]
    bits = {f"{name.upper()}_BITS": n for name, n in whole.bits.items()}
    parts = [
        f'/* {plan.name}.h says what this is and how to use it. */\n#include "{plan.name}.h"\n\n#include <string.h>\n',
        stack_constants(plan, any(m.wide_sums for m in matrices)),
        constants(sequence.sizes(plan) | bits),
        f"#define TICK_FACTOR ((int64_t){whole.tick[0]})\n#define TICK_SHIFT {whole.tick[1]}\n",
        _read_out_constants(whole),
        sequence.category_tables(table),
        math_tables(values),
        "".join(tables.text),
        emit.template("math_int8.c", values),
        emit.template("stack_int8.c", values),
        emit.template("sequence_int8.c", values),
    ]
    return emit.template("sequence_int8.h", values), "\n".join(parts)


def template_values(whole: WholeSequence) -> dict[str, Any]:
    plan, table, head = whole.plan, whole.table, whole.plan.config.head
    values = sequence.template_values(plan)
    kind, fades = sequence.pooling(head), values["fades"]
    squashes = any(c.squash for c in (*table.numbers, *table.static_numbers))
    clock = bool(values["time"] or fades or plan.spec.decay or table.calendar)
    return values | {
        "tables": True,
        "root": plan.spec.layer_norm,
        "reciprocals": plan.spec.layer_norm,
        "exponential": head.kind == "label" or kind == "attention" or plan.spec.decay,
        "division": True,
        "sums": kind in ("mean", "attention"),
        "clock": clock,
        "squashes": squashes,
        "requantises": not (plan.spec.layer_norm and plan.spec.proj_size),
        "scales": _scales(whole),
        "threshold": whole.read_out.get("threshold", ""),
        "answer_unit": _unit(whole),
        "column_tables": _column_tables(whole),
        "codes": sequence.codes_check(table),
        "calendar_lines": "\n".join(f"    {WHOLE_LINES[name]}" for name in table.calendar),
        "time_unit": values["time_unit"] if table.stamps else "time * SCALE_TIME",
    }


def _unit(whole: WholeSequence) -> str:
    if whole.plan.config.head.kind == "regression":
        return f"times {whole.plan.name.upper()}_SCALE_ANSWER"
    return "probabilities as 0 to 65536"


def _scales(whole: WholeSequence) -> str:
    """What numbers are multiplied with before they go in, or after they come out."""
    table, upper = whole.table, whole.plan.name.upper()
    lines = []
    for part, columns in (("NUMBER", table.numbers), ("STATIC", table.static_numbers)):
        by = whole.columns["row" if part == "NUMBER" else "fixed"]
        lines += [(f"{part}_{k}", b.bits, c.name) for k, (c, b) in enumerate(zip(columns, by, strict=True))]
    if table.roles.time is not None and not table.stamps:
        lines.append(("TIME", whole.time_bits, table.roles.time))
    if whole.plan.config.head.kind == "regression":
        lines.append(("ANSWER", whole.read_out["bits"], "prediction and quantiles"))
    return "".join(
        f"#define {upper}_SCALE_{what} {2.0**bits!r} /* {comment([name])} */\n" for what, bits, name in lines
    )


def _column_tables(whole: WholeSequence) -> str:
    found = []
    for part, columns in whole.columns.items():
        if columns:
            rows = [braces(str(int(v)) for v in (c.mean, c.factor, c.squash, c.shift, c.gaps)) for c in columns]
            found.append(emit.table_of(f"column {part.upper()}_COLUMN[{len(rows)}]", rows))
    return "\n".join(found)


def _read_out_constants(whole: WholeSequence) -> str:
    by = whole.read_out
    if "sharpness" in by:
        return f"#define SHARPNESS {by['sharpness']}\n"
    text = f"#define TARGET_MEAN ((int64_t){by['mean']})\n#define TARGET_FACTOR {by['factor']}\n"
    return text + f"#define TARGET_SHIFT {by['shift']}\n" + array("ERRORS", by["errors"])
