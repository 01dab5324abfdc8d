"""Texts from files: columns of a table, files of lines beside one another, plain text; every fault names its place."""

from __future__ import annotations

import gzip
import lzma
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError
from carousel.inputs.text import LONGEST

__all__ = ["read_lines", "read_parallel", "read_text", "read_vectors"]

_OPEN: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}


def read_text(path: str | Path) -> str:
    """The whole file as text; .gz and .xz are unpacked, and the ends of lines are line feeds.

    Raises DataError where the file is missing, empty, or not UTF-8, with the offset of the first bad byte.
    """
    path = Path(path)
    try:
        with _OPEN.get(path.suffix.lower(), open)(path, "rb") as file:
            raw = bytes(file.read())
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
        raise DataError(f"{path}: the file cannot be unpacked ({error}); pack it anew.") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{path}: the file cannot be read ({reason}); check its name and permissions.") from None
    if not raw:
        raise DataError(f"{path}: the file is empty; give it at least one line.")
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        at = error.start + len(raw) - len(error.object)  # utf-8-sig counts after its mark
        line = raw.count(b"\n", 0, at) + 1
        raise DataError(
            f"{path}, line {line}: byte {at:,} of the file is not UTF-8 (0x{raw[at]:02x}); convert the file to UTF-8."
        ) from None


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file, split at line feeds only, without their ends.

    Raises DataError as `read_text` does.
    """
    lines = read_text(path).split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def read_parallel(*paths: str | Path) -> list[list[str]]:
    """The lines of files that belong together line by line.

    Raises DataError where they have unequal numbers of lines, a line is empty in one and not in another, or one has
    more than 2 ** 20 characters.
    """
    found = [read_lines(path) for path in paths]
    counts = [len(lines) for lines in found]
    if len(set(counts)) > 1:
        k = next(k for k, count in enumerate(counts) if count != counts[0])
        raise DataError(
            f"{paths[k]}: it has {counts[k]:,} lines and {paths[0]} has {counts[0]:,}; line {min(counts) + 1:,} stands"
            " alone, pair them line by line."
        )
    for number, together in enumerate(zip(*found, strict=True), 1):
        empty = [not line.strip() for line in together]
        if any(empty) and not all(empty):
            raise DataError(
                f"{paths[empty.index(True)]}, line {number:,}: it is empty and its partner is not; complete or remove"
                " the pair."
            )
        for path, line in zip(paths, together, strict=True):
            if len(line) > LONGEST:
                raise DataError(
                    f"{path}, line {number:,}: it has {len(line):,} characters, at most {LONGEST:,} are taken at once;"
                    " split it into sentences."
                )
    return found


def read_vectors(path: str | Path, words: tuple[str, ...]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Pretrained vectors in the text form of GloVe, word2vec and fastText: vectors [V, D] of `words`, and which were
    found; the others are zeros.

    Raises DataError for a line with another number of columns than the first, or no numbers in it.
    """
    place = {word: k for k, word in enumerate(words)}
    lines = read_lines(path)
    head = lines[0].split(" ")
    first = int(len(head) == 2 and all(part.isdigit() for part in head))  # word2vec's and fastText's count and width
    width = len(lines[first].rstrip().split(" ")) - 1 if len(lines) > first else 0
    if width < 1:
        raise DataError(f"{path}: there are no vectors; expected a word and its numbers on every line.")
    found, seen = np.zeros((len(words), width), np.float32), np.zeros(len(words), bool)
    for number, line in enumerate(lines[first:], first + 1):
        word, *numbers = line.rstrip().rsplit(" ", width)
        if len(numbers) != width:
            raise DataError(f"{path}, line {number:,}: expected a word and {width} numbers; repair or remove the line.")
        if word in place:
            try:
                vector = np.array(numbers, np.float32)
            except ValueError:
                raise DataError(f"{path}, line {number:,}: there is text among its numbers; repair the line.") from None
            if not np.isfinite(vector).all():
                raise DataError(f"{path}, line {number:,}: its numbers are not all finite; repair or remove the line.")
            found[place[word]], seen[place[word]] = vector, True
    return found, seen
