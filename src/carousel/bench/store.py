"""Results of long measurements in one JSON file, written after each run, so that a stopped one goes on."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from carousel import atomic
from carousel.errors import CarouselError

__all__ = ["Store", "one_thread", "plain"]


class Store:
    """Named dicts, read from `place` where it is there; None: kept in memory. `machine`: what measures now.

    Raises CarouselError for a file that holds anything else.

    >>> store = Store(None)
    >>> store.get("cells")["parity"] = 1
    >>> store.get("cells")
    {'parity': 1}
    """

    def __init__(self, place: Path | None, machine: dict[str, str | int] | None = None) -> None:
        self.place, self._machine = place, machine or {}
        self._parts: dict[str, dict[str, Any]] = {}
        if place is None or not place.exists():
            return
        try:
            found = json.loads(place.read_text())
        except ValueError:
            found = None
        if not isinstance(found, dict) or not all(isinstance(part, dict) for part in found.values()):
            raise CarouselError(f"{place}: these are no results of this measurement; name another folder.")
        self._parts = found

    def get(self, name: str) -> dict[str, Any]:
        return self._parts.setdefault(name, {})

    def write(self) -> None:
        """Everything so far, with the machine it was measured on last."""
        self._parts["machine"] = self._machine
        if self.place is not None:
            self.place.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(self.place, (json.dumps(plain(self._parts), indent=1) + "\n").encode())


def plain(value: Any) -> Any:
    """What JSON can hold, to six digits: None for numbers that are none."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Small networks on one thread: seconds of the processor are then seconds of work, not of waiting."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
