"""See inside a fitted model: its gates, its memory, how gradients flow, what its answers rest on."""

from carousel.explain.record import Layer, record, watch
from carousel.explain.study import Explanation, explain
from carousel.explain.subject import Subject

__all__ = ["Explanation", "Layer", "Subject", "explain", "record", "watch"]
