"""Pieces of C text: arrays of constants, names of columns in comments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["array", "braces", "comment", "constants", "number"]

_TYPES = {
    "float32": "float",
    "float64": "double",
    "int8": "int8_t",
    "int16": "int16_t",
    "uint16": "uint16_t",
    "int32": "int32_t",
    "uint32": "uint32_t",
    "int64": "int64_t",
    "uint8": "uint8_t",
}
_WIDTH = 110


def number(value: Any) -> str:
    """A constant of C that reads back as the same bits.

    >>> number(np.float32(0.1)), number(2.0), number(np.int8(-3)), number(np.int64(2**40))
    ('0.1f', '2.0', '-3', '1099511627776LL')
    """
    if isinstance(value, np.integer | int):
        if isinstance(value, np.int64) and not -(2**31) < value < 2**31:
            return f"{int(value)}LL"
        return f"{int(value)}u" if isinstance(value, np.uint32) else str(int(value))
    single = isinstance(value, np.float32)
    text = np.format_float_scientific(value, trim="0") if _far(float(value)) else str(value)
    return text + ("f" if single else "")


def _far(value: float) -> bool:
    return value != 0 and not 1e-4 <= abs(value) < 1e15


def array(name: str, values: NDArray[Any]) -> str:
    """A table in flash, flat, whatever its shape, which stands in a comment.

    >>> print(array("w", np.zeros((1, 2), np.float32)), end="")
    static const float w[2] = { /* [1][2] */
        0.0f,0.0f};
    """
    kind = _TYPES[str(values.dtype)]
    shape = "".join(f"[{n}]" for n in values.shape)
    head = f"static const {kind} {name}[{values.size}] = {{" + (f" /* {shape} */" if values.ndim > 1 else "")
    lines, line = [], "    "
    for value in values.reshape(-1):
        text = number(value) + ","
        if len(line) + len(text) > _WIDTH:
            lines.append(line)
            line = "    "
        line += text
    return "\n".join([head, *lines, line.rstrip(",") + "};"]) + "\n"


def braces(items: Iterable[str]) -> str:
    return "{" + ", ".join(items) + "}"


def constants(values: Mapping[str, int]) -> str:
    """An enum of sizes."""
    lines = [f"    {name} = {value}," for name, value in values.items()]
    return "\n".join(["enum {", *lines]).rstrip(",") + "\n};\n"


def comment(names: Sequence[str], most: int = 8) -> str:
    """Names for a comment, on one line; what would end the comment or is no ASCII is written otherwise.

    >>> comment(["a", "*/", "ü"])
    'a, * /, \\\\xfc'
    """
    shown = [name.encode("ascii", "backslashreplace").decode() for name in names[:most]]
    shown = [" ".join(name.replace("*/", "* /").replace("/*", "/ *").replace("\\\n", " ").split()) for name in shown]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")
