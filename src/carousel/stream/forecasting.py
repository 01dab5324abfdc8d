"""From a model file to the core's forecaster: windows, members and decoders, no torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from carousel import _core
from carousel.inputs.fitted import TableInput
from carousel.stream.loading import Model, add_stack, refusing

__all__ = ["forecaster"]

_DECODER = ("step", "gate_step", "state", "ahead", "hidden", "out", "gate", "linear")


def forecaster(model: Model, *, rows: bool) -> Any:
    """The core's forecaster; `rows`: many series will be forecast together."""
    config, weights = model.config, model.weights
    table: TableInput = config.input
    numbers = [2 * sum(c.kind == "number" for c in part) for part in (table.features, table.known, table.static)]
    numbers[1] += 2 * len(table.calendar)
    with refusing(model):
        made = _core.Forecast(
            context=table.context,
            horizon=table.horizon,
            targets=table.targets,
            seasons=list(table.seasons),
            numbers=numbers,
            uneven=table.uneven,
            from_last=table.level == "last",
            step=table.grid.step,
            median=config.head.median,
            factors=list(config.head.factors),
            members=config.seeds,
            rows=rows,
        )
    members = [f"{k}." for k in range(config.seeds)]
    roles = [
        k for k, part in enumerate((table.features, table.known, table.static)) for c in part if c.kind == "category"
    ]
    for k, role in enumerate(roles):
        made.add_embedding(role, np.stack([weights[f"{m}input.embed.{k}.weight"] for m in members]))
    for k, member in enumerate(members):
        add_stack(_of_member(made, k), config.stack, weights, member, table.step_size, model.storage)
        made.set_decoder(k, **_decoder(model, f"{member}head."))
    with refusing(model):
        made.finish()
    return made


def _of_member(made: Any, member: int) -> Any:
    return lambda *layer: made.add_layer(member, *layer)


def _decoder(model: Model, prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in _DECODER:
        if name in ("step", "gate_step"):
            found[name] = model.weights[prefix + name]
            continue
        found[name] = model.weights.get(f"{prefix}{name}.weight")
        if name != "ahead":
            found[f"{name}_bias"] = model.weights[f"{prefix}{name}.bias"]
    return found
