"""The integer C file of a forecaster: its templates with tables and formats filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.cell import CellSpec
from carousel.export.c import emit
from carousel.export.c.calendars import WHOLE_LINES
from carousel.export.c.fixed import EXP2, LOG1P_EXP, LOG2, SIGMOID, SINE, WIDE
from carousel.export.c.forecast import category_tables, codes_check, sizes, template_values
from carousel.export.c.int8 import LOG_THIRD, LOG_WHOLE, Member, Scaling, Whole
from carousel.export.c.plan import Plan
from carousel.export.c.quantise import Layer, Matrix
from carousel.export.c.text import array, braces, comment, constants
from carousel.inputs.fitted import Column

__all__ = ["Tables", "layer_row", "math_tables", "matrices_of", "source", "stack_constants"]


class Tables:
    """Arrays in flash, gathered as they are named."""

    def __init__(self) -> None:
        self.text: list[str] = []

    def add(self, name: str, values: NDArray[Any]) -> str:
        self.text.append(array(name, values))
        return name

    def matrix(self, name: str, m: Matrix) -> str:
        parts = [self.add(f"{name}_w", m.w), self.add(f"{name}_factor", m.factor)]
        parts.append("0" if m.bias is None else self.add(f"{name}_bias", m.bias))
        return braces([*parts, str(m.shift), str(m.bias_shift)])


def layer_row(tables: Tables, name: str, layer: Layer) -> str:
    """The initialiser of a `layer` of templates/stack_int8.c."""
    spec = layer.spec
    parts = [str(layer.ih.w.shape[1]), tables.matrix(f"{name}_ih", layer.ih), tables.matrix(f"{name}_hh", layer.hh)]
    parts += [str(layer.cell_bits), str(layer.out_bits)]
    if layer.hr is not None:
        parts.append(tables.matrix(f"{name}_hr", layer.hr))
    if layer.ch is not None:
        parts += [tables.add(f"{name}_ch", layer.ch), str(layer.peephole_shift)]
    if spec.layer_norm:
        for part in ("norm_ih", "norm_hh", "norm_c", "bias", "norm_bias_c"):
            values = getattr(layer, part)
            parts.append("0" if values is None else tables.add(f"{name}_{part}", values))
    if layer.rate is not None:
        parts.append(tables.add(f"{name}_rate", layer.rate))
    return braces(parts)


def stack_constants(plan: Plan, wide_sums: bool) -> str:
    """Sizes, and what the integer stack's template asks for."""
    spec: CellSpec = plan.spec
    found = emit.stack_sizes(plan)
    if spec.cell_clip:
        found += f"#define CELL_CLIP ((int64_t){round(spec.cell_clip * 32768)})\n"
    for name in ("zoneout_c", "zoneout_h"):
        if value := getattr(spec, name):
            found += f"#define {name.upper()} {round(value * 32768)}\n"
    found += f"#define WIDE {WIDE} /* the limit of 32-bit values */\n"
    if not spec.layer_norm:
        found += (
            "#define GATE(g) ((int32_t)sat((int64_t)row_of(&w->ih, (g) * HIDDEN + j, x, w->inputs)"
            " + row_of(&w->hh, (g) * HIDDEN + j, h, OUTPUT), 1 << 20))\n"
        )
    return found + f"typedef {'int64_t' if wide_sums else 'int32_t'} sum_of_products;\n"


def math_tables(flags: Mapping[str, Any]) -> str:
    found = array("SIGMOID", SIGMOID)
    for flag, name, values in (
        ("exponential", "EXP2", EXP2),
        ("logarithm", "LOG2", LOG2),
        ("softplus", "LOG1P_EXP", LOG1P_EXP),
        ("calendar_features", "SINE", SINE),
    ):
        found += array(name, values) if flags[flag] else ""
    return found


def source(whole: Whole) -> tuple[str, str]:
    """The header and the source file."""
    plan, table, head = whole.plan, whole.table, whole.head
    values = template_values(plan, table, head) | {
        "tables": True,
        "division": True,
        "reciprocals": True,
        "root": plan.spec.layer_norm,
        "exponential": True,
        "logarithm": True,
        "softplus": True,
        "checked": True,
        "requantises": True,
        "scales": _scales(whole),
        "column_tables": _column_tables(whole),
        "calendar_lines": "\n".join(f"    {WHOLE_LINES[name]}" for name in table.calendar),
        "grid_seconds": round(table.grid.step),
        "time_unit": "seconds since 1970" if table.stamps else "time * SCALE_TIME",
        "codes": codes_check(table),
    }
    values["calendar"] = emit.template("calendar_int8.c", values) if table.calendar else ""
    tables = Tables()
    rows = [_member_row(tables, m, member) for m, member in enumerate(whole.members)]
    values["member_table"] = emit.table_of("member MODEL[MEMBERS]", rows)
    matrices = [x for m in whole.members for x in [*m.matrices.values(), *matrices_of(m.stack)]]
    bits = {f"{name.upper()}_BITS": n for name, n in whole.bits.items()}
    own = sizes(table, head) | bits | {"LOG_THIRD": LOG_THIRD, "LOG_WHOLE": LOG_WHOLE, "LIMIT": WIDE // len(rows)}
    parts = [
        f'/* {plan.name}.h says what this is and how to use it. */\n#include "{plan.name}.h"\n\n#include <string.h>\n',
        stack_constants(plan, any(m.wide_sums for m in matrices)),
        constants(own),
        _other_tables(whole),
        math_tables(values),
        "".join(tables.text),
        emit.template("math_int8.c", values),
        emit.template("stack_int8.c", values),
        emit.template("forecast_int8.c", values),
    ]
    return emit.template("forecast_int8.h", values), "\n".join(parts)


def matrices_of(stack: tuple[Layer, ...]) -> list[Matrix]:
    return [m for layer in stack for m in (layer.ih, layer.hh, layer.hr) if m is not None]


def _member_row(tables: Tables, m: int, member: Member) -> str:
    stack = braces(layer_row(tables, f"w{m}_{n}", layer) for n, layer in enumerate(member.stack))
    parts = [stack]
    for name in ("state", "hidden", "out", "gate", "linear", "ahead"):
        if name in member.matrices:
            parts.append(tables.matrix(f"h{m}_{name}", member.matrices[name]))
    parts += [tables.add(f"h{m}_step_w", member.step.w), tables.add(f"h{m}_step_factor", member.step.factor)]
    parts += [tables.add(f"h{m}_gate_step", member.gate_step), str(member.step.shift), str(member.gate_step_shift)]
    if member.embed:
        parts.append(braces(tables.add(f"e{m}_{k}", e) for k, e in enumerate(member.embed)))
    return braces(parts)


def _scales(whole: Whole) -> str:
    """What numbers are multiplied with before they go in."""
    table, upper = whole.table, whole.plan.name.upper()
    lines = [
        (f"TARGET_{k}", bits, name)
        for k, (bits, name) in enumerate(zip(whole.target_bits, table.roles.target, strict=True))
    ]

    def numbers(part: str, columns: tuple[Column, ...], scalings: tuple[Scaling, ...]) -> None:
        some = [c for c in columns if c.kind == "number"]
        lines.extend((f"{part}_{k}", by.bits, c.name) for k, (c, by) in enumerate(zip(some, scalings, strict=True)))

    numbers("NUMBER", table.features + table.known, whole.columns["row"])
    if table.known:
        numbers("KNOWN", table.known, whole.columns["known"])
    numbers("STATIC", table.static, whole.columns["fixed"])
    if table.uneven and not table.stamps:
        lines.append(("TIME", whole.time_bits, table.roles.time or "row"))
    made = [f"#define {upper}_SCALE_{what} {2.0**bits!r} /* {comment([name])} */" for what, bits, name in lines]
    return "\n".join(made) + "\n"


def _column_tables(whole: Whole) -> str:
    found = []
    for part in ("row", "fixed"):
        if some := whole.columns[part]:
            rows = [braces([str(s.mean), str(s.factor), str(s.shift)]) for s in some]
            found.append(f"static const column {part.upper()}_COLUMN[{len(rows)}] = {braces(rows)};")
    return "\n".join(found)


def _other_tables(whole: Whole) -> str:
    table = whole.table
    found = array("FACTOR", np.rint(np.asarray(whole.head.factors) * 2**14).astype(np.int32))
    if table.seasons:
        found += array("SEASON", np.asarray(table.seasons, np.int32))
    if table.uneven:
        found += f"#define TICK_FACTOR ((int64_t){whole.tick[0]})\n#define TICK_SHIFT {whole.tick[1]}\n"
    return found + category_tables(table)
