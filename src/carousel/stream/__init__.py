"""A trained model, one row at a time: in-process, without torch, from the model file alone."""

from __future__ import annotations

from carousel.stream.lines import answer_lines
from carousel.stream.many import Streams
from carousel.stream.one import Stream

__all__ = ["Stream", "Streams", "answer_lines"]
