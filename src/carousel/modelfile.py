"""The only reader and writer of the model file: one safetensors file, no pickle, no torch.

Goals: weights in the canonical layout and one JSON document under the metadata key `carousel`; everything that the
reader does not understand is refused with a message that names the file, the field and what was expected; a file is
written whole or not at all; the same model gives the same bytes.
Non-goals: optimizer states, tensors that no ModelConfig names, partial or lazy loading.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from carousel.config import ModelConfig
from carousel.errors import ModelFileError

__all__ = ["FORMAT", "MAX_HEADER", "read", "write"]

FORMAT = 1
KEY = "carousel"
MAX_HEADER = 16 * 2**20  # bytes; a header beyond this is an attack or a mistake
MAX_LAYERS = 10_000  # of all members together
_FIELDS = ("format", "model", "provenance")
_OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive, as torch.save writes it (a pickle inside)",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip file",
    b"PAR1": "a Parquet file",
} | {bytes([0x80, protocol]): "a pickle" for protocol in range(2, 6)}


def write(path: str | os.PathLike[str], weights: Mapping[str, NDArray[Any]], document: Mapping[str, Any]) -> None:
    """Write the weights (float32, named and shaped as the config says) and the document, atomically.

    document is {"format": 1, "model": ModelConfig.to_json(), "provenance": {...}}. What `read` would refuse is
    refused here already, as ModelFileError; a full disk is a CarouselError and leaves the previous file intact.
    """
    from safetensors.numpy import save  # readers do without

    from carousel import atomic

    name = os.fspath(path)
    try:
        text = json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{name}: not written, since its document is not plain JSON ({error}).") from error
    _check_weights(name, weights, _check_document(name, _parse(name, "the document", text)))
    data = save({k: np.ascontiguousarray(weights[k]) for k in sorted(weights)}, {KEY: text})
    if int.from_bytes(data[:8], "little") > MAX_HEADER:
        raise ModelFileError(f"{name}: not written, since its header would exceed {MAX_HEADER:,} bytes.")
    atomic.write_bytes(path, data)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
    """The weights and the document of a model file.

    Raises ModelFileError, naming the file, the field and what was expected, for a file that is missing, truncated,
    no safetensors file, of a newer format, with unknown or missing or doubled fields, with weights that are
    missing, unknown, of another shape or dtype than the config says, or not finite.
    """
    name = os.fspath(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - pathlib takes 10 ms to import
            _refuse(name, "is no regular file", "name a .safetensors file that `carousel fit` wrote")
        with open(path, "rb") as file:  # noqa: PTH123 - likewise
            return _read(name, file)
    except FileNotFoundError as error:
        raise ModelFileError(f"{name}: there is no such model file; check the path, or run `carousel fit`.") from error
    except OSError as error:
        raise ModelFileError(f"{name}: the model file cannot be read ({error.strerror or error}).") from error


def _read(name: str, file: BinaryIO) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
    size = os.fstat(file.fileno()).st_size
    start = file.read(9)
    if start[8:] != b"{":
        found = next((what for magic, what in _OTHER_FORMATS.items() if start.startswith(magic)), None)
        what = f"is {found}" if found else "is empty" if not start else "has no safetensors header"
        _refuse(name, f"{what}; a safetensors file was expected", "name a file that `carousel fit` wrote")
    length = int.from_bytes(start[:8], "little")
    if length > MAX_HEADER:
        _refuse(name, f"says that its header has {length:,} bytes; at most {MAX_HEADER:,} are accepted")
    if 8 + length > size:
        _refuse(name, f"is truncated: its header alone needs {8 + length:,} bytes, there are {size:,}", _AGAIN)
    raw = start[8:] + file.read(length - 1)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        _refuse(name, "has a header that is not UTF-8", _AGAIN)
    header = _parse(name, "the header", text)
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get(KEY), str):
        _refuse(name, f"has no metadata field '{KEY}', so no Carousel model is in it", "name a file of `carousel fit`")
    if unknown := sorted(set(metadata) - {KEY}):
        _refuse(name, f"has an unknown metadata field '{unknown[0]}'; only '{KEY}' was expected")
    document = _parse(name, "the document", metadata[KEY])
    shapes = _check_document(name, document)
    places = _check_layout(name, header, shapes, size - 8 - length)
    weights = {k: np.empty(shape, np.float32) for k, shape in shapes.items()}
    data = file.read()
    if len(data) != size - 8 - length:
        _refuse(name, "changed while it was read", "read it again")
    for weight, begin in places.items():
        array = weights[weight]
        array[...] = np.frombuffer(data, "<f4", array.size, begin).reshape(array.shape)
    _check_weights(name, weights, shapes)
    return weights, document


_AGAIN = "copy it again from where it is whole"


def _parse(name: str, where: str, text: str) -> dict[str, Any]:
    """JSON without doubled keys, NaN or anything but an object at the top."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                _refuse(name, f"has the field '{key}' twice in {where}; each was expected once")
            found[key] = value
        return found

    def constant(word: str) -> NoReturn:
        _refuse(name, f"has {word} as a number in {where}; finite numbers were expected")

    def number(word: str) -> float:
        return float(word) if math.isfinite(float(word)) else constant(word)

    try:
        parsed = json.loads(text, object_pairs_hook=unique, parse_constant=constant, parse_float=number)
    except ModelFileError:
        raise
    except (ValueError, RecursionError) as error:
        _refuse(name, f"has no readable JSON in {where} ({str(error) or 'nested too deep'})", _AGAIN)
    if not isinstance(parsed, dict):
        _refuse(name, f"has a {type(parsed).__name__} as {where}; an object was expected")
    return parsed


def _check_document(name: str, document: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of all weights, from a document that is understood completely."""
    version = document.get("format")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        _refuse(name, f"has {version!r} as field 'format'; {FORMAT} was expected")
    if version > FORMAT:
        _refuse(name, f"is of format {version}, this version reads format {FORMAT}", "upgrade carousel-lstm")
    for field in _FIELDS:
        if field not in document:
            _refuse(name, f"has no field '{field}' in its document")
        if field != "format" and not isinstance(document[field], dict):
            _refuse(name, f"has a {type(document[field]).__name__} as field '{field}'; an object was expected")
    if unknown := sorted(set(document) - set(_FIELDS)):
        _refuse(name, f"has an unknown field '{unknown[0]}'; {', '.join(_FIELDS)} were expected")
    try:
        config = ModelConfig.from_json(document["model"])
    except ModelFileError as error:
        raise ModelFileError(f"{name}: {error}") from error
    layers = config.seeds * config.stack.num_layers
    if layers > MAX_LAYERS:
        _refuse(name, f"says that it has {layers:,} layers; at most {MAX_LAYERS:,} are accepted")
    return config.shapes()


def _check_layout(
    name: str, header: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], available: int
) -> dict[str, int]:
    """Where each weight begins, from entries that tile the data without hole, overlap or rest."""
    _check_names(name, header, shapes)
    places: dict[str, int] = {}
    spans: list[tuple[int, int, str]] = []
    for weight, entry in header.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            _refuse(name, f"describes weight '{weight}' otherwise than by dtype, shape and data_offsets")
        if entry["dtype"] != "F32":
            _refuse(name, f"has weight '{weight}' as {entry['dtype']!r}; F32 was expected")
        shape = shapes[weight]
        if not _integers(entry["shape"]) or tuple(entry["shape"]) != shape:
            _refuse(name, f"has weight '{weight}' with shape {entry['shape']}; {list(shape)} was expected")
        begin_end = entry["data_offsets"]
        if not _integers(begin_end) or len(begin_end) != 2 or begin_end[1] - begin_end[0] != 4 * math.prod(shape):
            _refuse(name, f"has weight '{weight}' at {begin_end}; {4 * math.prod(shape)} bytes were expected")
        places[weight] = begin_end[0]
        spans.append((begin_end[0], begin_end[1], weight))
    end = 0
    for begin, after, weight in sorted(spans):
        if begin != end:
            _refuse(name, f"has weight '{weight}' at byte {begin}; byte {end} was expected")
        end = after
    if end != available:
        what = "is truncated" if available < end else "has a rest that belongs to no weight"
        _refuse(name, f"{what}: {end:,} bytes of weights were expected, there are {available:,}", _AGAIN)
    return places


def _integers(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _check_names(name: str, found: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    if missing := sorted(set(shapes) - set(found)):
        _refuse(name, f"lacks weight '{missing[0]}', which its config needs (missing: {len(missing)})")
    if extra := sorted(set(found) - set(shapes)):
        _refuse(name, f"has weight '{extra[0]}', which its config does not know (unknown: {len(extra)})")


def _check_weights(name: str, weights: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    _check_names(name, weights, shapes)
    for weight, array in weights.items():
        if array.dtype != np.float32:
            _refuse(name, f"has weight '{weight}' as {array.dtype}; float32 was expected")
        if array.shape != shapes[weight]:
            _refuse(name, f"has weight '{weight}' with shape {list(array.shape)}; {list(shapes[weight])} was expected")
        if not np.isfinite(array).all():
            at = [int(n) for n in np.argwhere(~np.isfinite(array))[0]]
            _refuse(name, f"has {array[tuple(at)]} in weight '{weight}' at {at}; finite weights were expected")


def _refuse(name: str, why: str, remedy: str = "write the model again with `carousel fit`") -> NoReturn:
    raise ModelFileError(f"{name}: the file {why}: {remedy}.")
