"""A trained model, one row at a time: in-process, without torch, from the model file alone."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from carousel.stream.lines import answer_lines
    from carousel.stream.many import Streams
    from carousel.stream.one import Stream

__all__ = ["Stream", "Streams", "answer_lines"]

_HOME = {"Stream": "one", "Streams": "many", "answer_lines": "lines"}


def __getattr__(name: str) -> Any:
    """Each name is imported when it is used: a process that streams shall start at once."""
    if name not in _HOME:
        raise AttributeError(f"module 'carousel.stream' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"carousel.stream.{_HOME[name]}"), name)
    globals()[name] = value
    return value
