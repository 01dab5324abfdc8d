"""The members of a forecaster: a window through stack and head, in NumPy and the core."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel import _core
from carousel.inputs.fitted import Column, TableInput
from carousel.inputs.windows import Windows
from carousel.stream.forecast_head import scaled_quantiles
from carousel.stream.loading import Model, add_stack

__all__ = ["Member"]

Singles = NDArray[np.float32]


class Member:
    """Member `k` of an ensemble."""

    def __init__(self, model: Model, k: int) -> None:
        weights, config = model.weights, model.config
        self.config = config
        self.table: TableInput = config.input
        self._stack = _core.Stack()
        add_stack(self._stack.add_layer, config.stack, weights, f"{k}.", self.table.step_size, model.storage)
        prefix = f"{k}.head."
        self._head = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
        self._tables = {c.name: weights[f"{k}.input.embed.{e}.weight"] for e, c in enumerate(self.table.embedded)}

    def __call__(self, w: Windows) -> Singles:
        """Quantiles [1, H, K, Q] of a single window, in its scaled units."""
        table = self.table
        x = self._embedded(w.steps, w.step_codes, table.features + table.known)[0]
        elapsed = np.ascontiguousarray(w.elapsed[0], np.float32) if self.config.stack.cell.decay else None
        self._stack.reset()
        self._stack.run(x, elapsed, None)
        top = np.empty(self.config.stack.output_size, np.float32)
        self._stack.top(top)
        state = np.concatenate([top[None], self._embedded(w.static, w.static_codes, table.static)], -1)
        ahead = self._embedded(w.ahead, w.ahead_codes, table.known)
        return scaled_quantiles(self.config.head, self._head, state, ahead, w.linear, w.base)

    def _embedded(self, numbers: Any, codes: NDArray[np.int64], columns: tuple[Column, ...]) -> Singles:
        """numbers [..., F] beside the embedded codes [..., number of tables]."""
        own = [self._tables[c.name] for c in columns if c.kind == "category"]
        parts = [numbers, *(table[codes[..., k]] for k, table in enumerate(own))]
        return np.ascontiguousarray(np.concatenate(parts, -1), np.float32)
