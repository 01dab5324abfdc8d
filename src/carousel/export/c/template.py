"""C text with holes: `${name}` is filled in, lines between `//@ if flag` and `//@ end` are kept where the flag holds.

The templates are C that a reader can follow; what a model does not need is left out of its file.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any

__all__ = ["fill", "load"]


def load(name: str) -> str:
    """The text of a template of this package."""
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")


def fill(text: str, values: Mapping[str, Any]) -> str:
    """The text with its holes filled; KeyError for a name that `values` lacks.

    A directive is `//@ if flag`, `//@ if not flag`, `//@ else` or `//@ end` on a line of its own; they nest.

    >>> fill("int a = ${n};\\n//@ if odd\\nint b;\\n//@ else\\nint c;\\n//@ end\\n", {"n": 3, "odd": True})
    'int a = 3;\\nint b;\\n'
    """
    kept: list[str] = []
    holds: list[bool] = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0] != "//@":
            if all(holds):
                kept.append(line)
        elif words[1] == "if":
            flag = all(holds) and bool(values[words[-1]]) != (words[2] == "not")
            holds.append(flag)
        elif words[1] == "else":
            holds[-1] = not holds[-1]
        else:
            holds.pop()
    return Template("\n".join(kept) + "\n").substitute(values)
