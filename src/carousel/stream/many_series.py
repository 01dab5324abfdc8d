"""Many series of a forecaster: their windows go through the core side by side."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel import _core
from carousel.errors import DataError
from carousel.stream.forecasting import forecaster
from carousel.stream.loading import Model
from carousel.stream.table_rows import Following
from carousel.stream.values import each
from carousel.stream.windows import WindowEngine, forecasts

__all__ = ["ManySeries"]

Ints = NDArray[np.int64]


class ManySeries:
    """Series by place, 0 to `count` - 1; who they are is not known here but for messages."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._shared = forecaster(model, rows=True)
        self._series = _core.SeriesSet(self._shared)
        self._engines: dict[int, WindowEngine] = {}

    @property
    def count(self) -> int:
        return int(self._series.count)

    def grow(self, count: int) -> None:
        self._series.grow(count)

    def begin(self, place: int, static: Mapping[str, Any] | None, where: str) -> None:
        if static is not None and not self.model.config.input.static:
            raise DataError(f"{where}: the model has no static columns; leave static out.")
        engine = WindowEngine(self.model, self._shared, self._series, place)
        engine.reset(static)
        self._engines[place] = engine

    def forget(self, place: int) -> None:
        self._engines.pop(place, None)

    def push(self, which: Ints, keys: Sequence[Hashable], rows: Any, time: Any, ahead: Any) -> dict[str, NDArray[Any]]:
        """Rows [n] of the series `which` [n]; none is taken where one is refused. Arrays [n, H K]."""
        n = len(which)
        times, following = each("time", time, n), each("ahead", ahead, n)
        kept: dict[int, Any] = {}
        found: list[dict[str, Any]] = [{}] * n
        waiting: dict[int, tuple[int, Following | None]] = {}
        try:
            for k, place in enumerate(which.tolist()):
                if place in waiting:  # its forecast comes before its next row
                    self._forecast(waiting, found)
                engine = self._engines[place]
                if place not in kept:
                    kept[place] = engine.keep()
                where = f"row {k + 1}, stream {keys[k]!r}"
                waiting[place] = k, engine.take(rows[k], times[k], following[k], where)
            self._forecast(waiting, found)
        except BaseException:
            for place, state in kept.items():
                self._engines[place].back(state)
            raise
        return _stacked(found)

    def save(self, place: int) -> bytes:
        return self._engines[place].save()

    def load(self, place: int, payload: bytes) -> bool:
        engine = self._engines.get(place)
        made = WindowEngine(self.model, self._shared, self._series, place) if engine is None else engine
        if not made.load(payload):
            return False
        self._engines[place] = made
        return True

    def _forecast(self, waiting: dict[int, tuple[int, Following | None]], found: list[dict[str, Any]]) -> None:
        """What waits, at once; nothing waits any more."""
        asked = [(k, self._engines[place], ahead) for place, (k, ahead) in waiting.items() if ahead is not None]
        waiting.clear()
        if not asked:
            return
        for (k, _, _), made in zip(asked, forecasts([e for _, e, _ in asked], [a for *_, a in asked]), strict=True):
            found[k] = made


def _stacked(found: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """Arrays [n, H K]; a row that no forecast was asked for has NaN for numbers and None for times."""
    first = next((made for made in found if made), None)
    if first is None:
        return {}

    def blank(name: str, values: Any) -> Any:
        if name in ("step", "target"):
            return values
        return np.full(len(values), np.nan) if isinstance(values, np.ndarray) else [None] * len(values)

    return {name: np.array([made[name] if made else blank(name, v) for made in found]) for name, v in first.items()}
