"""The door: `pick` says which backend computes a call, `run` computes it. Nobody else knows which backends exist.

A backend is a module with `supports(spec, device, dtype) -> None | reason` and `run(spec, call) -> Result`; one
that cannot `trace` or `recompute` says so in `LACKS = {"trace": reason}`. It computes one layer in all its
directions over rows that may lie in memory in any order that `Rows` can say, so padded, batch-first, packed and
ragged batches are one case.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Iterable
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from carousel.cell import CellSpec
from carousel.errors import NotSupported

__all__ = ["BACKENDS", "Call", "Result", "Rows", "pick", "reasons", "run"]

BACKENDS = ("native", "aten", "reference")  # in order of preference


class Rows(NamedTuple):
    """Where step t of sequence b lies: in row first[b] + ahead[t], for t < lengths[b]. All int64.

    Time-major dense: first = b, ahead = t * B. Batch-first dense: first = b * T, ahead = t. Ragged: first =
    offsets[:-1], ahead = t. PackedSequence: first = b, ahead[t] = the rows of all steps before t.
    `dense` says that every sequence has all T steps; with it come `time_major` and (T, B) as plain numbers.
    """

    first: Tensor  # [B]
    ahead: Tensor  # [T]
    lengths: Tensor  # [B]
    dense: bool
    time_major: bool


class Call(NamedTuple):
    """One layer, D directions, N rows. `seed` None means evaluation: no masks, zoneout in expectation."""

    x: Tensor  # [N, I]
    rows: Rows
    h: Tensor  # [D, B, P]
    c: Tensor  # [D, B, H]
    weights: tuple[dict[str, Tensor], ...]  # one a direction, named and shaped as CellSpec.shapes says
    elapsed: Tensor | None  # [D, N], with spec.decay: time since the row that the direction visited before
    seed: Tensor | None  # int64 scalar; direction d draws from seed + d
    trace: bool
    recompute: int  # 0, or: keep states only every so many steps for backward


class Result(NamedTuple):
    y: Tensor  # [N, D * P]
    h: Tensor  # [D, B, P]
    c: Tensor  # [D, B, H]
    trace: Tensor | None  # [5, D, N, H]: activated i, f, g, o and the carried c; not differentiable


_LOADED: dict[str, ModuleType] = {}


def load(name: str) -> ModuleType:
    if name not in BACKENDS:
        raise ValueError(f"backend must be 'auto' or one of {', '.join(BACKENDS)}, got {name!r}")
    if name not in _LOADED:  # torch.compile follows a look-up, but not an import
        _LOADED[name] = importlib.import_module(f"carousel.backends.{name}")
    return _LOADED[name]


def reasons(spec: CellSpec, device: torch.device, dtype: torch.dtype) -> dict[str, str | None]:
    """Why each backend cannot compute this; None where it can."""
    return {name: load(name).supports(spec, device, dtype) for name in BACKENDS}


def pick(
    spec: CellSpec,
    device: torch.device,
    dtype: torch.dtype,
    backend: str = "auto",
    needs: Iterable[str] = (),
) -> ModuleType:
    """The backend asked for, or the first that can; NotSupported says why none does. `needs`: trace, recompute.

    Warns once where "auto" is left with the slow loop."""
    names = BACKENDS if backend == "auto" else (backend,)
    refused: list[str] = []
    for name in names:
        module = load(name)
        lacks: dict[str, str] = getattr(module, "LACKS", {})
        reason = module.supports(spec, device, dtype) or next((lacks[need] for need in needs if need in lacks), None)
        if reason is None:
            if refused and backend == "auto" and hasattr(module, "SLOW") and not torch.compiler.is_compiling():
                _warn(f"this LSTM runs as {module.SLOW}, since no faster backend computes it ({'; '.join(refused)}).")
            return module
        refused.append(f"{name}: {reason}")
    raise NotSupported(f"no backend computes this LSTM on {device.type} in {dtype}: {'; '.join(refused)}.")


@functools.cache
def _warn(sentence: str) -> None:
    """Once for each sentence in a process."""
    warnings.warn(sentence + " backend='reference' asks for it without this warning.", stacklevel=2)


def run(spec: CellSpec, call: Call, backend: str = "auto") -> Result:
    needs = [need for need in ("trace", "recompute") if getattr(call, need)]
    result: Result = pick(spec, call.x.device, call.x.dtype, backend, needs).run(spec, call)
    return result
