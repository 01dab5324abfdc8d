"""The float C file: the template of the task with the model's sizes and weights filled in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.export.c.plan import Plan
from carousel.export.c.template import fill, load
from carousel.export.c.text import array, braces, comment, constants, number

__all__ = ["ERRORS", "layers", "math_values", "stack_values"]

Arrays = dict[str, NDArray[Any]]

# Measured over all floats in [-87, 88], or [-20, 20], by tests/test_export_c_math.py.
ERRORS = {"error_exp": "1.1e-7", "error_sigmoid": "1.2e-7", "error_tanh": "1.8e-7"}

_LAYER = ("ih", "hh", "bias", "hr", "ch", "norm_ih", "norm_hh", "norm_c", "norm_bias_c", "rate")
_STORED = {"ih": "weight_ih", "hh": "weight_hh", "hr": "weight_hr", "ch": "weight_ch"}


def stack_values(plan: Plan) -> dict[str, Any]:
    """Flags and sizes of the stack's template."""
    spec = plan.spec
    return {
        "bias": spec.bias,
        "peephole": spec.peephole,
        "coupled": spec.coupled,
        "layer_norm": spec.layer_norm,
        "decay": spec.decay,
        "projection": bool(spec.proj_size),
        "cell_clip": bool(spec.cell_clip),
        "zoneout_c": bool(spec.zoneout_c),
        "zoneout_h": bool(spec.zoneout_h),
        "gate_names": "forget, candidate, output" if spec.coupled else "input, forget, candidate, output",
    }


def math_values(*, logarithm: bool, softplus: bool, layer_norm: bool) -> dict[str, Any]:
    return {"logarithm": logarithm, "softplus": softplus, "square_root": layer_norm} | ERRORS


def stack_sizes(plan: Plan) -> str:
    """An enum of the stack's sizes."""
    spec, stack = plan.spec, plan.config.stack
    sizes = {
        "MEMBERS": plan.config.seeds,
        "LAYERS": stack.num_layers,
        "CHANNELS": plan.channels,
        "HIDDEN": stack.hidden_size,
        "OUTPUT": stack.output_size,
        "GATES": len(spec.gates),
        **{word: spec.gates.index(gate) for word, gate in (("FORGET", "f"), ("CANDIDATE", "g"), ("OUT", "o"))},
    }
    return constants(sizes)


def stack_constants(plan: Plan) -> str:
    spec, found = plan.spec, stack_sizes(plan)
    for name in ("cell_clip", "zoneout_c", "zoneout_h"):
        if value := getattr(spec, name):
            found += f"#define {name.upper()} {number(np.float32(value))}\n"
    return found


def layers(plan: Plan) -> Iterator[tuple[int, int, Arrays]]:
    """Member, layer and its arrays as the template names them, in its order."""
    for m in range(plan.config.seeds):
        for n in range(plan.config.stack.num_layers):
            weights = plan.layer(m, n)
            own = {k: weights[_STORED.get(k, k)] for k in _LAYER if _STORED.get(k, k) in weights}
            yield m, n, {k: v.astype(np.float32) for k, v in own.items()}


def layer_tables(plan: Plan) -> tuple[str, list[list[str]]]:
    """The arrays of all layers as C, and the initialiser of each layer of each member."""
    text: list[str] = []
    rows: list[list[str]] = [[] for _ in range(plan.config.seeds)]
    for m, n, arrays in layers(plan):
        names = {}
        for part, values in arrays.items():
            names[part] = f"w{m}_{n}_{part}"
            text.append(array(names[part], values))
        rows[m].append(braces([str(arrays["ih"].shape[1]), *names.values()]))
    return "".join(text), rows


def head_tables(plan: Plan, parts: Mapping[str, str]) -> tuple[str, list[list[str]]]:
    """The arrays named by `parts` (C name: weight) of each member as C, and their names."""
    text: list[str] = []
    rows: list[list[str]] = []
    for m, weights in enumerate(plan.members):
        rows.append([])
        for part, weight in parts.items():
            rows[m].append(f"h{m}_{part}")
            text.append(array(rows[m][-1], weights[weight].astype(np.float32)))
    return "".join(text), rows


def columns_comment(columns: Any) -> str:
    return comment([c.name for c in columns])


def categories_comment(columns: Any) -> str:
    """Lines of a comment: the code of each value of each categorical column."""
    lines = []
    for column in columns:
        lines.append(f" * {comment([column.name])}:")
        for k, value in enumerate(column.values):
            lines.append(f" *     {k + 2} {comment([value])}")
    return "\n".join(lines)


def template(name: str, values: Mapping[str, Any]) -> str:
    return fill(load(name), values)


def table_of(what: str, rows: list[str]) -> str:
    """A constant array of structs, one a line."""
    return f"static const {what} = {{\n    " + ",\n    ".join(rows) + "\n};"


def codes_check(limits: Mapping[str, list[int]]) -> str:
    """The check of codes, and their limits by the part of the input that they belong to."""
    if not limits:
        return ""
    found = "".join(array(f"{part}_CODES", np.array(some, np.int32)) for part, some in limits.items())
    return (
        f"\n{found}\nstatic int codes_fit(const int32_t *codes, const int32_t *limits, int n)\n{{\n    int k;\n"
        "    for (k = 0; k < n; k++)\n        if (codes[k] < 0 || codes[k] >= limits[k]) return 0;\n    return 1;\n}\n"
    )


def zone(name: str | None) -> str:
    """A time zone for a comment.

    >>> zone("Europe/Berlin"), zone(None)
    (' of Europe/Berlin', '')
    """
    return f" of {comment([name])}" if name else ""
