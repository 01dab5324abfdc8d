"""The stream of a detector: the core forecasts the next row, the head's `DetectState` scores this one."""

from __future__ import annotations

import copy
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from carousel.heads.detect import DetectHead, DetectState, most_of
from carousel.stream.loading import Model
from carousel.stream.rows import RowEngine

__all__ = ["ScoreEngine"]


class ScoreEngine(RowEngine):
    """One sequence of a detector that forecasts."""

    def __init__(self, model: Model, shared: Any = None) -> None:
        super().__init__(model, shared)
        self.head: DetectHead = model.config.head
        numbers = [c.name for c in model.config.input.numbers]
        self._scored = [numbers.index(name) for name in self.head.columns]
        self._channels = [model.config.input.numbers[k] for k in self._scored]
        self._scores = DetectState(self.head)

    def reset(self, static: Mapping[str, Any] | None) -> None:
        super().reset(static)
        self._scores = DetectState(self.head)

    def push(self, row: Any, time: Any, ahead: Any) -> dict[str, Any]:
        if ahead is not None:
            self.refuse_ahead()
        made, read = self.take(row, time)
        outputs = np.fromiter(made.values(), np.float64, len(made))
        values = np.array([read.numbers[k] for k in self._scored], np.float64)
        scaled = np.array([float(c.scaled(v)) for c, v in zip(self._channels, values, strict=True)])
        found = self._scores.step(outputs, scaled, values)
        score, odd = float(found.score[0]), bool(found.anomaly[0])
        because = most_of(found.parts[0], self.head.columns) if odd else []
        return {"score": None if np.isnan(score) else score, "anomaly": odd, "because": ", ".join(because) or None}

    def keep(self) -> Any:
        return super().keep(), copy.deepcopy(self._scores)

    def back(self, kept: Any) -> None:
        fixed, self._scores = kept
        super().back(fixed)

    def save(self) -> bytes:
        own = _bytes(self._scores)
        return struct.pack("<I", len(own)) + own + super().save()

    def load(self, payload: bytes) -> bool:
        (size,) = struct.unpack_from("<I", payload)
        scores = _state(self.head, payload[4 : 4 + size])
        if scores is None or not super().load(payload[4 + size :]):
            return False
        self._scores = scores
        return True


def _bytes(state: DetectState) -> bytes:
    arrays = [state.mean, state.scale, state.last, *state.rings, np.array(state.largest), *state.low, *state.high]
    return struct.pack("<dq", state.held, state.left) + b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)


def _state(head: DetectHead, payload: bytes) -> DetectState | None:
    state = DetectState(head)
    if len(payload) != len(_bytes(state)):
        return None
    state.held, state.left = struct.unpack_from("<dq", payload)
    at = 16

    def next_like(array: Any) -> Any:
        nonlocal at
        found = np.frombuffer(payload, np.float64, array.size, at).reshape(array.shape).copy()
        at += found.nbytes
        return found

    state.mean, state.scale, state.last = (next_like(a) for a in (state.mean, state.scale, state.last))
    state.rings = [next_like(ring) for ring in state.rings]
    state.largest = next_like(np.array(state.largest)).tolist()
    state.low = [next_like(low) for low in state.low]
    state.high = [next_like(high) for high in state.high]
    return state
