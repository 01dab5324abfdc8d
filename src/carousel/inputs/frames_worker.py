"""A process that decodes clips and writes their frames to its standard output.

It reads one line of JSON (the picture, the paths, whether to skip bad frames) and answers with messages, each a header
`kind, size in bytes` before its body. Whoever reads slowly makes it wait: the pipe is full, and no frame piles up.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from carousel.errors import CarouselError
from carousel.inputs.frames import Picture
from carousel.inputs.frames_files import Frame, read_clip

__all__ = ["END", "FAULT", "FRAMES", "HEADER", "chunks", "main"]

HEADER = struct.Struct("<BQ")  # kind, bytes that follow
FRAMES, END, FAULT = 0, 1, 2
CHUNK = 1 << 21  # bytes of frames sent at once


def chunks(path: str, picture: Picture, fault: Callable[[str], None] | None) -> Any:
    """The frames of a clip in lists of about CHUNK bytes."""
    most = max(1, CHUNK // int(np.prod(picture.shape)))
    part: list[Frame] = []
    for frame in read_clip(path, picture, fault):
        part.append(frame)
        if len(part) == most:
            yield part
            part = []
    if part:
        yield part


def main(lines: BinaryIO, out: BinaryIO) -> None:
    order = json.loads(lines.readline())
    picture = Picture(**order["picture"] | {"size": tuple(order["picture"]["size"])})

    def send(kind: int, body: bytes) -> None:
        out.write(HEADER.pack(kind, len(body)))
        out.write(body)
        out.flush()

    for path in order["paths"]:
        faults: list[str] = []
        try:
            for part in chunks(path, picture, faults.append if order["skip_bad"] else None):
                numbers = np.array([frame.number for frame in part], np.int64)
                seconds = np.array([frame.seconds for frame in part], np.float64)
                pictures = np.stack([frame.picture for frame in part])
                send(FRAMES, struct.pack("<I", len(part)) + numbers.tobytes() + seconds.tobytes() + pictures.tobytes())
            send(END, json.dumps({"faults": faults}).encode())
        except CarouselError as error:
            send(FAULT, json.dumps({"kind": type(error).__name__, "message": str(error), "faults": faults}).encode())


if __name__ == "__main__":
    try:
        main(sys.stdin.buffer, sys.stdout.buffer)
    except BrokenPipeError:  # whoever asked has enough
        sys.stderr.close()
