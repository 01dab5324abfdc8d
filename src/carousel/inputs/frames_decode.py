"""Many clips at once: decoded by worker processes, in the order of the clips, through bounded queues."""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.errors import CarouselError, DataError, MissingExtra
from carousel.inputs.frames import Bytes, Frames, Picture
from carousel.inputs.frames_files import expected_frames, is_media
from carousel.inputs.frames_worker import FAULT, FRAMES, HEADER, chunks

__all__ = ["Chunk", "Decoded", "Store", "decode"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

AHEAD = 4  # chunks that wait in the queue of a worker


class Chunk(NamedTuple):
    """Frames of clip `clip` that follow one another."""

    clip: int
    numbers: Ints  # [n] in the file
    seconds: Floats  # [n] since its first frame, NaN without a clock
    pictures: Bytes  # [n, H, W, C]


class Ended(NamedTuple):
    """A clip is over: what was left out of it, and why it could not be used at all (None: it could)."""

    clip: int
    faults: tuple[str, ...]
    refused: CarouselError | None


def decode(paths: Sequence[str], picture: Picture, *, skip_bad: bool, workers: int | None) -> Iterator[Chunk | Ended]:
    """The frames of all clips, one clip after the other, each closed by an `Ended`.

    `workers` processes decode the clips k, k + workers, ... each; arrays, and a clip alone, are read in this one.
    """
    media = sum(is_media(path) for path in paths)
    count = min(os.cpu_count() or 1 if workers is None else workers, media if media > 1 or workers else 0)
    if count:
        yield from _by_workers(paths, picture, skip_bad, count)
        return
    for k, path in enumerate(paths):
        faults: list[str] = []
        refused = None
        try:
            for part in chunks(path, picture, faults.append if skip_bad else None):
                numbers = np.array([frame.number for frame in part], np.int64)
                seconds = np.array([frame.seconds for frame in part], np.float64)
                yield Chunk(k, numbers, seconds, np.stack([frame.picture for frame in part]))
        except DataError as error:
            refused = error
        yield Ended(k, tuple(faults), refused)


def _by_workers(paths: Sequence[str], picture: Picture, skip_bad: bool, count: int) -> Iterator[Chunk | Ended]:
    crew = [_Worker(paths[w::count], picture, skip_bad) for w in range(count)]
    try:
        for k, path in enumerate(paths):
            worker = crew[k % count]
            while True:
                kind, body = worker.next(path)
                if kind == FRAMES:
                    yield _unpacked(k, body, picture)
                    continue
                told = json.loads(body)
                yield Ended(k, tuple(told["faults"]), _error(told) if kind == FAULT else None)
                break
    finally:
        for worker in crew:
            worker.close()


def _unpacked(clip: int, body: bytes, picture: Picture) -> Chunk:
    (n,) = struct.unpack_from("<I", body)
    numbers = np.frombuffer(body, np.int64, n, 4)
    seconds = np.frombuffer(body, np.float64, n, 4 + 8 * n)
    pictures = np.frombuffer(body, np.uint8, offset=4 + 16 * n).reshape(n, *picture.shape)
    return Chunk(clip, numbers, seconds, pictures)


def _error(told: dict[str, Any]) -> CarouselError:
    if told["kind"] == "MissingExtra":  # its constructor takes other arguments
        error = CarouselError.__new__(MissingExtra)
        error.args = (told["message"],)
        return error
    return DataError(told["message"])


class _Worker:
    """One process and the thread that reads from it into a bounded queue."""

    def __init__(self, paths: Sequence[str], picture: Picture, skip_bad: bool) -> None:
        home = str(Path(__file__).parents[2])
        given = os.environ.get("PYTHONPATH")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "carousel.inputs.frames_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": f"{home}{os.pathsep}{given}" if given else home},
        )
        self.queue: queue.Queue[tuple[int, bytes] | None] = queue.Queue(AHEAD)
        self.closed = threading.Event()
        order = {"picture": dataclasses.asdict(picture), "paths": list(paths), "skip_bad": skip_bad}
        out = _pipe(self.process.stdin)
        out.write(json.dumps(order).encode() + b"\n")
        out.close()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def next(self, path: str) -> tuple[int, bytes]:
        found = self.queue.get()
        if found is None:
            status = self.process.wait()
            raise CarouselError(
                f"{path}: the process that decodes it stopped (status {status}); decode in this one, with workers=0."
            )
        return found

    def close(self) -> None:
        self.closed.set()
        self.process.kill()
        self.process.wait()
        while self.thread.is_alive():
            try:
                self.queue.get(timeout=0.01)
            except queue.Empty:
                continue
        _pipe(self.process.stdout).close()

    def _read(self) -> None:
        pipe = _pipe(self.process.stdout)
        while not self.closed.is_set():
            head = pipe.read(HEADER.size)
            if len(head) < HEADER.size:
                break
            kind, size = HEADER.unpack(head)
            body = pipe.read(size)
            if len(body) < size:
                break
            self.queue.put((kind, body))
        self.queue.put(None)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise RuntimeError("a worker without its pipes")
    return pipe


class Store:
    """Frames one after another: in memory up to `limit` bytes, beyond that in a temporary file that is mapped."""

    def __init__(self, shape: tuple[int, int, int], limit: int) -> None:
        self.shape, self.limit = shape, limit
        self.parts: list[Bytes] = []
        self.size = self.frames = 0
        self.file: Any = None

    def add(self, pictures: Bytes) -> None:
        self.frames += len(pictures)
        self.size += pictures.nbytes
        try:
            if self.file is not None:
                self.file.write(np.ascontiguousarray(pictures).data)
                return
            self.parts.append(pictures)
            if self.size > self.limit:
                self.file = tempfile.TemporaryFile(prefix="carousel-frames-")  # noqa: SIM115 - as long as the store
                for part in self.parts:
                    self.file.write(np.ascontiguousarray(part).data)
                self.parts = []
        except OSError as error:
            raise CarouselError(
                f"decoded frames cannot be kept in {tempfile.gettempdir()} ({error.strerror}); make room, or set TMPDIR"
                " to a folder with more."
            ) from None

    def drop(self, frames: int) -> None:
        """Forget the last so many frames: their clip turned out to be of no use."""
        if not frames:
            return
        self.frames -= frames
        self.size -= frames * int(np.prod(self.shape))
        if self.file is not None:
            self.file.truncate(self.size)
            self.file.seek(self.size)
            return
        while frames:
            last = self.parts.pop()
            if len(last) > frames:
                self.parts.append(last[:-frames])
            frames -= min(frames, len(last))

    def close(self) -> None:
        if self.file is not None:
            self.file.close()

    def frozen(self) -> Bytes:
        """All frames [N, H, W, C]; nothing can be added afterwards."""
        if self.file is not None:
            self.file.flush()
            mapped = np.memmap(self.file, np.uint8, "r", shape=(self.frames, *self.shape))
            self.close()  # what is mapped stays
            return mapped
        found = np.empty((self.frames, *self.shape), np.uint8)
        at, parts = 0, self.parts[::-1]
        self.parts = []
        while parts:  # each is let go as soon as it is copied
            part = parts.pop()
            found[at : at + len(part)] = part
            at += len(part)
        return found


class Decoded(NamedTuple):
    """All frames of the clips that could be used: `kept` [B] are their places among the paths."""

    frames: Bytes  # [N, H, W, C]
    offsets: Ints  # [B + 1]
    numbers: Ints  # [N]
    seconds: Floats  # [N]
    kept: Ints  # [B]
    faults: tuple[tuple[int, str], ...]  # clip and what was left out


def decode_all(paths: Sequence[str], choices: Frames, progress: Callable[[int, int], None] | None = None) -> Decoded:
    """Raises the first clip's DataError, unless bad frames are to be skipped and some clip is left; `progress` counts
    frames of the files, as far as these say how many they have."""
    store = Store(choices.picture.shape, choices.cache << 20)
    try:
        return _decoded(paths, choices, store, progress)
    finally:
        store.close()


def _decoded(
    paths: Sequence[str], choices: Frames, store: Store, progress: Callable[[int, int], None] | None
) -> Decoded:
    numbers: list[Ints] = []
    seconds: list[Floats] = []
    lengths, kept, faults, refused = [], [], [], None
    length = done = 0
    whole = [expected_frames(path) for path in paths] if progress else []
    for found in decode(paths, choices.picture, skip_bad=choices.skip_bad, workers=choices.workers):
        if isinstance(found, Chunk):
            store.add(found.pictures)
            numbers.append(found.numbers)
            seconds.append(found.seconds)
            length += len(found.numbers)
            if progress:
                progress(done + min(int(found.numbers[-1]) + 1, whole[found.clip]), sum(whole))
            continue
        faults += [(found.clip, text) for text in found.faults]
        if found.refused is not None:
            if not choices.skip_bad or isinstance(found.refused, MissingExtra):
                raise found.refused
            refused = found.refused
            faults.append((found.clip, f"the clip is left out: {refused}"))
            store.drop(length)
            numbers, seconds = _without(numbers, length), _without(seconds, length)
        else:
            kept.append(found.clip)
            lengths.append(length)
        length = 0
        if progress:
            done += whole[found.clip]
            progress(done, sum(whole))
    if not kept:
        raise refused or DataError("there are no clips; give one at least.")
    return Decoded(
        store.frozen(),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate(numbers),
        np.concatenate(seconds),
        np.array(kept, np.int64),
        tuple(faults),
    )


def _without(parts: list[Any], rows: int) -> list[Any]:
    """All but the last so many rows, which end where a part ends."""
    while rows:
        rows -= len(parts.pop())
    return parts
