"""What a C file costs: bytes of flash and RAM, products per call. Read off the very text that is written."""

from __future__ import annotations

import re
from typing import Any

from carousel.export.c.plan import Plan
from carousel.inputs.fitted import TableInput
from carousel.inputs.sequence import SequenceInput

__all__ = ["costs", "products", "stack_bytes", "state_bytes", "table_bytes"]

_SIZES = {"float": 4, "double": 8, "char": 1}
_CODE = {True: 5300, False: 3000}  # bytes on a Cortex-M4 with -Os of a forecaster, of another; docs/edge.md measures


def size_of(kind: str) -> int:
    """Of a plain type of C."""
    found = re.fullmatch(r"u?int(\d+)_t", kind)
    return int(found[1]) // 8 if found else _SIZES[kind]


def table_bytes(source: str) -> int:
    """Constants of a source file.

    >>> table_bytes("static const int16_t a[3] = {1,2,3};\\nstatic const double b[2] = {1.0,2.0};")
    22
    """
    found = re.findall(r"^static const (\w+) \w+\[(\d+)\]", source, re.M)
    return sum(size_of(kind) * int(count) for kind, count in found if kind not in ("member", "column"))


def state_bytes(name: str, header: str) -> int:
    """sizeof(NAME_state), by the rules of alignment that 32- and 64-bit machines share.

    >>> state_bytes("m", "typedef struct {\\n    int16_t a[3];\\n    double b, c[2]; /* x */\\n} m_state;")
    32
    """
    structs = re.findall(r"typedef struct \{\n(.*?)\} (\w+);", header, re.S)
    sizes: dict[str, tuple[int, int]] = {}
    for body, struct in structs:
        at, most = 0, 1
        for kind, fields in re.findall(r"^    (\w+) ([^;]+);", body, re.M):
            size, align = sizes.get(kind) or (size_of(kind), size_of(kind))
            for field in fields.split(","):
                count = 1
                for dimension in re.findall(r"\[(\d+)\]", field):
                    count *= int(dimension)
                at = -(-at // align) * align + size * count
            most = max(most, align)
        sizes[struct] = (-(-at // most) * most, most)
    return sizes[f"{name}_state"][0]


def products(plan: Plan) -> int:
    """Multiplications of weights: for each row pushed to a classifier or tagger, for each forecast of a forecaster."""
    config = plan.config
    stack = sum(w.size for n, w in plan.members[0].items() if n.startswith("stack.weight"))
    head = {n.removeprefix("head."): w.size for n, w in plan.members[0].items() if n.startswith("head.")}
    table = config.input
    if isinstance(table, TableInput):
        each = sum(
            n for name, n in head.items() if name.split(".")[0] in ("ahead", "hidden", "out", "gate") if "w" in name
        )
        once = head["state.weight"] + head["linear.weight"] * table.targets
        one = table.context * stack + table.horizon * each + once
    else:
        one = stack + sum(n for name, n in head.items() if name.endswith("weight"))
    return int(config.seeds * one)


def stack_bytes(plan: Plan, int8: bool) -> int:
    """About the stack of the deepest call: the arrays of the functions on its way."""
    config, spec, table, head = plan.config, plan.spec, plan.config.input, plan.config.head
    hidden, out, layers = config.stack.hidden_size, config.stack.output_size, config.stack.num_layers
    rows, one, word = len(spec.gates) * hidden, 2 if int8 else 4, 4
    step = one * hidden if int8 else word * (2 * rows + hidden * bool(spec.proj_size))
    step += word * hidden * spec.layer_norm + 2 * word * rows * (spec.layer_norm and int8)
    if isinstance(table, TableInput):
        k, context = table.targets, table.context + 1
        run = (one * 2 + word) * head.width + one * (out + table.static_size + context * k + table.ahead_size + 1)
        read = one * (layers * (out + hidden) + plan.channels)
        return int(run + word * k * table.bases + 40 * k + read + step)
    outputs = 12 * head.outputs + 16 * len(getattr(head, "columns", ())) + 8 * len(getattr(head, "columns", ())) ** 2
    return int(step + outputs + one * (table.value_size + 1 + plan.channels + out + head.width) + 100)


def costs(plan: Plan, header: str, source: str, int8: bool) -> dict[str, Any]:
    """Figures for the command line."""
    table = plan.config.input
    forecast = not isinstance(table, SequenceInput)
    tables, state = table_bytes(source), state_bytes(plan.name, header)
    each = "forecast" if forecast else "row"
    made = {"tables_bytes": tables, "state_bytes": state, f"products_per_{each}": products(plan)}
    made["stack_bytes"] = stack_bytes(plan, int8)
    code = f" and about {_CODE[forecast] / 1000:.1f} KB of code on a Cortex-M4" if int8 else " of tables, and its code"
    notes = [
        f"flash: {tables / 1000:.1f} KB{' of tables' if int8 else ''}{code}",
        f"RAM: {state:,} bytes for each stream, and about {made['stack_bytes']:,} of stack",
        f"products: {made[f'products_per_{each}']:,} for each {each}",
    ]
    return made | {"notes": notes}
