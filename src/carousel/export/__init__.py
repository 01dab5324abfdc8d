"""Models for other programs: one module per format, which writes it and, where it can, reads it.

A module of `FORMATS` has `write(model, out, **choices)`: it reads the model file, writes the files of the format
atomically and returns what the command line shows, {"out": [paths], "notes": [sentences], ...} as plain JSON values.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from carousel.errors import CarouselError, MissingExtra

__all__ = ["FORMATS", "Format", "require", "write"]


class Format(NamedTuple):
    module: str
    suffixes: tuple[str, ...]
    choices: tuple[str, ...] = ()  # options of the command line that only some formats have


FORMATS = {
    "onnx": Format("carousel.export.onnx", (".onnx",), ("scan",)),
    "torch": Format("carousel.export.torch", (".safetensors",), ("member",)),
    "keras": Format("carousel.export.keras", (".npz",), ("member",)),
    "flax": Format("carousel.export.flax", (".safetensors",), ("member",)),
    "c": Format("carousel.export.c", ("",), ("int8", "calibrate")),
}


def write(model: Path, to: str, out: Path, **choices: Any) -> dict[str, Any]:
    """Write the model file `model` as format `to`; what was written, as the module of the format says.

    Raises CarouselError for an unknown format, a suffix that is not the format's, a folder that is not there, and a
    choice that the format does not have; NotSupported, with the reason, where the format has no equal of the model.
    """
    if to not in FORMATS:
        raise CarouselError(f"{to!r} is no format; choose {', '.join(FORMATS)}.")
    module, suffixes, known = FORMATS[to]
    if out.suffix not in suffixes:
        wanted = f"the suffix must be {' or '.join(suffixes)}" if any(suffixes) else "there must be no suffix"
        raise CarouselError(f"{out}: {wanted} for --to {to}; name the output so.")
    if not out.parent.is_dir():
        raise CarouselError(f"{out}: there is no folder {out.parent}; make it first.")
    given = {name: value for name, value in choices.items() if value is not None and value is not False}
    for name in given:
        if name not in known:
            raise CarouselError(f"--{name} is no choice of --to {to}; leave it out.")
    found: dict[str, Any] = import_module(module).write(model, out, **given)
    return found


def require(package: str, purpose: str) -> Any:
    """The imported package, or MissingExtra, which names the extra that brings it."""
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != package.split(".")[0]:
            raise
        raise MissingExtra(package.split(".")[0], "export", purpose) from error
