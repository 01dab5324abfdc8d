"""Checkpoints of training: one safetensors file with a JSON document, written whole or not at all; no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from carousel import atomic
from carousel.errors import CarouselError

__all__ = ["Checkpoint", "Taken", "stage_of"]

FORMAT = 1


class Taken(NamedTuple):
    """What a checkpoint held: members that are finished, and the state of the one in training, if any."""

    members: list[dict[str, Tensor]]
    metrics: list[float | None]
    steps: list[int]
    state: dict[str, Any] | None
    arrays: dict[str, Tensor]


class Checkpoint:
    """A file for one training, recognised by its `identity`: config, seeds and a fingerprint of the data."""

    def __init__(self, path: Path, identity: dict[str, Any], stage: Mapping[str, Any]) -> None:
        self.path, self.identity, self.stage = path, identity, stage

    def write(
        self,
        members: list[dict[str, Tensor]],
        metrics: list[float | None],
        steps: list[int],
        state: dict[str, Any] | None,
        arrays: dict[str, Tensor],
    ) -> None:
        document = {"format": FORMAT, "metrics": metrics, "steps": steps, "state": state}
        document |= {"stage": dict(self.stage)} | self.identity
        tensors = {f"member.{k}.{name}": v for k, member in enumerate(members) for name, v in member.items()}
        tensors |= {f"state.{name}": v for name, v in arrays.items()}
        plain = {name: v.detach().cpu().clone().contiguous() for name, v in tensors.items()}
        atomic.write_bytes(self.path, save(plain, {"carousel-checkpoint": json.dumps(document)}))

    def read(self) -> Taken:
        """Raises CarouselError where the file is missing, damaged, or of another training."""
        document, tensors = _open(self.path)
        self._compare(document)
        members: list[dict[str, Tensor]] = [{} for _ in document["steps"]]
        arrays = {}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "state":
                arrays[rest] = value
            else:
                number, _, key = rest.partition(".")
                members[int(number)][key] = value
        return Taken(members, document["metrics"], document["steps"], document["state"], arrays)

    def _compare(self, document: dict[str, Any]) -> None:
        for name, wanted in self.identity.items():
            found: Any = document.get(name)
            if found == wanted:
                continue
            if name == "config":
                differ = [k for k in wanted if found.get(k) != wanted[k]]
                what = f"its {differ[0]} is {found.get(differ[0])}, not {wanted[differ[0]]}"
            elif name == "seeds":
                what = f"it trains {found} seeds, not {wanted}"
            else:
                what = "its data or columns differ"
            raise CarouselError(
                f"{self.path}: the checkpoint is of another training ({what}); give the same data and settings, or"
                " start without resume."
            )


def stage_of(path: Path) -> dict[str, Any]:
    """The stage that a checkpoint was written in; CarouselError as for `Checkpoint.read`."""
    stage: dict[str, Any] = _open(path)[0]["stage"]
    return stage


def _open(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        document = json.loads(metadata["carousel-checkpoint"])
    except FileNotFoundError:
        raise CarouselError(f"{path}: there is no checkpoint to resume from; start without resume.") from None
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise CarouselError(
            f"{path}: this is no checkpoint, or it is damaged ({error}); start without resume."
        ) from None
    if document.get("format") != FORMAT:
        raise CarouselError(f"{path}: the checkpoint is of another version; start without resume.")
    return document, tensors
