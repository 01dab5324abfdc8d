"""One clip from its place on disk, picture by picture: a video, a folder of images, or an array in a file.

Nothing is held but the current picture. Every fault names the file and the last good frame.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError, MissingExtra
from carousel.inputs.frames import BadFrame, Bytes, Picture, one_clip, prepare, require_shape

__all__ = ["ARRAYS", "IMAGES", "Frame", "clip_rate", "expected_frames", "is_media", "raw_frames", "read_clip"]

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".pgm", ".ppm")
ARRAYS = (".npy", ".npz")
SLACK = 2  # frames that a file may have fewer of than it says: clocks are rounded
EARLY = 1e-6  # seconds by which a frame may come before it is due: clocks of videos are fractions


class Frame(NamedTuple):
    """`number` counts from 0 in the file, `seconds` from its first frame (NaN where the clip has no clock)."""

    number: int
    seconds: float
    picture: Bytes  # [H, W, C]


Fault = Callable[[str], None]
Raw = tuple[int, float, Any]


def is_media(path: str | Path) -> bool:
    """Whether a clip must be decoded, rather than read as an array."""
    return Path(path).suffix.lower() not in ARRAYS


def read_clip(path: str | Path, picture: Picture, fault: Fault | None = None) -> Iterator[Frame]:
    """The frames of a clip that `picture` wants, brought to its size.

    Raises DataError for a file that cannot be read, that breaks off, that has no frame, or whose frames change their
    size; with `fault` a frame that cannot be used is left out instead, and the callback is told why. MissingExtra
    where PyAV or Pillow are needed.
    """
    due, first, count, found = 0.0, None, 0, raw_frames(Path(path))
    while True:
        try:
            taken = next(found, None)
            if taken is None:
                break
            number, seconds, image = taken
            if number % picture.every:
                continue
            if picture.rate is not None:
                if np.isnan(seconds):
                    raise DataError(f"{path}: the clip has no clock, so that rate means nothing; use every instead.")
                if seconds < due / picture.rate - EARLY:
                    continue
                due = max(due + 1, np.floor(seconds * picture.rate + EARLY) + 1)
            image = image() if callable(image) else image
            first = image.shape[:2] if first is None else first
            require_shape(image.shape[:2], first)
            made = prepare(image, picture)
        except BadFrame as error:
            if fault is None:
                last = f"frame {count - 1} is the last good one" if count else "no frame before it is good"
                remedy = "correct the file, or leave bad frames out with skip_bad (--skip-bad)"
                raise DataError(f"{path}: {_what(error)}; {last}; {remedy}.") from None
            fault(_what(error))
            continue
        count = number + 1
        yield Frame(number, seconds, made)
    if not count:
        raise DataError(f"{path}: no frame could be read; leave the clip out.")


def raw_frames(place: Path) -> Iterator[Raw]:
    """All frames as they are: number, seconds (NaN without a clock), and the picture or what gives it."""
    if not place.exists():
        raise DataError(f"{place}: there is no such file or folder; check the path.")
    return (_folder if place.is_dir() else _array if place.suffix.lower() in ARRAYS else _video)(place)


def clip_rate(path: str | Path) -> Fraction | None:
    """Frames a second of a video; None of images and arrays, which have no clock."""
    place = Path(path)
    if place.is_dir() or place.suffix.lower() in ARRAYS:
        return None
    import av

    with av.open(str(place)) as container:
        rate = container.streams.video[0].average_rate
        return None if rate is None else Fraction(rate)


def expected_frames(path: str | Path) -> int:
    """How many frames a clip says it has, for progress bars alone: 1 where it does not say, or cannot be read."""
    place = Path(path)
    try:
        if place.is_dir():
            return max(1, sum(p.suffix.lower() in IMAGES for p in place.iterdir()))
        if place.suffix.lower() in ARRAYS:
            return len(load_array(place)) if place.suffix.lower() == ".npy" else 1
        import av

        with av.open(str(place)) as container:
            return max(1, _length(container, container.streams.video[0]))
    except (ImportError, OSError, ValueError, IndexError, TypeError):  # whatever it is, reading will say it
        return 1


class _At(BadFrame):
    """A fault with the name of the frame or file in it."""


def _what(error: BadFrame) -> str:
    return str(error) if isinstance(error, _At) else f"a frame cannot be used: {error}"


def _video(place: Path) -> Iterator[Raw]:
    try:
        import av
    except ImportError:
        raise MissingExtra("av", "frames", "Reading videos") from None
    try:
        container = av.open(str(place))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(
            f"{place}: the file cannot be read as a video ({_reason(error)}); check its contents."
        ) from None
    with container:
        if not container.streams.video:
            raise DataError(f"{place}: the file holds no video stream; give a video.")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stream.codec_context.options = {"err_detect": "explode"}  # a damaged frame shall not be made up from others
        expected, number, begin, seconds = _length(container, stream), 0, None, float("nan")
        for packet in _packets(container, stream):
            try:
                frames = packet.decode()
            except (av.FFmpegError, OSError, ValueError) as error:
                yield number, seconds, _bad(f"frame {number} cannot be decoded ({_reason(error)})")
                number += 1
                continue
            for frame in frames:
                begin = frame.time if begin is None else begin
                seconds = float("nan") if frame.time is None or begin is None else float(frame.time - begin)
                yield number, seconds, _still(frame, number)
                number += 1
        if number < expected - SLACK:
            yield number, seconds, _bad(f"the file breaks off after {number} of about {expected} frames")


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """All packets, up to where the file cannot be taken apart any more."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError):
            return
        if packet is None:
            return
        yield packet


def _length(container: Any, stream: Any) -> int:
    """Frames that the file says it has, as a count or as a duration; 0 where it says neither."""
    if stream.frames:
        return int(stream.frames)
    rate = stream.average_rate
    if stream.duration is not None and stream.time_base is not None and rate:
        return int(stream.duration * stream.time_base * rate)
    alone = len(container.streams) == 1
    return int(container.duration / 1e6 * rate) if alone and container.duration and rate else 0


def _bad(why: str) -> Callable[[], NDArray[Any]]:
    def image() -> NDArray[Any]:
        raise _At(why)

    return image


def _still(frame: Any, number: int) -> Callable[[], NDArray[Any]]:
    def image() -> NDArray[Any]:
        if frame.is_corrupt:
            raise _At(f"frame {number} is damaged")
        found: NDArray[Any] = frame.to_ndarray(format="rgb24")
        turns = round((frame.rotation or 0) / 90)
        return np.ascontiguousarray(np.rot90(found, turns)) if turns else found

    return image


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")


def _folder(place: Path) -> Iterator[Raw]:
    """Images in the order that people read numbers in: 2 before 10."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("Pillow", "frames", "Reading images") from None
    names = [p for p in place.iterdir() if p.suffix.lower() in IMAGES and not p.name.startswith(".")]
    if not names:
        raise DataError(f"{place}: the folder holds no images ({', '.join(IMAGES)}); check the path.")
    for number, name in enumerate(sorted(names, key=lambda p: _natural(p.name))):

        def image(name: Path = name) -> NDArray[Any]:
            try:
                with Image.open(name) as opened:
                    return _pixels(opened)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                reason = str(error).replace(repr(str(name)), "it").rstrip(".")
                raise _At(f"{name.name} is no readable image ({reason})") from None

        yield number, float("nan"), image


def _natural(name: str) -> list[Any]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _pixels(image: Any) -> NDArray[Any]:
    """An opened image as numbers, whatever its mode; 16-bit grey stays so, since Pillow would cut it off at 255."""
    from PIL import ImageOps

    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I"):
        deep = np.asarray(turned)
        return deep.astype(np.uint16) if deep.min() >= 0 and deep.max() <= 65535 else deep
    if turned.mode not in ("1", "L", "LA", "RGB", "RGBA", "F"):
        clear = turned.mode in ("PA", "La") or "transparency" in turned.info
        turned = turned.convert("RGBA" if clear else "RGB")
    return np.asarray(turned)


def _array(place: Path) -> Iterator[Raw]:
    found = one_clip(load_array(place), str(place))
    for number in range(len(found)):
        yield number, float("nan"), found[number]


def _one_of(archive: Any, place: Path) -> NDArray[Any]:
    with archive:
        names = archive.files
        name = names[0] if len(names) == 1 else "frames"
        if name not in names:
            raise DataError(
                f"{place}: the file holds {', '.join(names) or 'no array'}; name the one of frames 'frames'."
            )
        found: NDArray[Any] = archive[name]
        return found


def load_array(place: Path) -> NDArray[Any]:
    """The one array of an .npy (mapped, not read) or .npz file."""
    try:
        with place.open("rb") as file:
            begin = file.read(2)
            file.seek(0)
            loaded: Any = _one_of(np.load(file, allow_pickle=False), place) if begin == b"PK" else None
        if begin and loaded is None:
            loaded = np.load(place, mmap_mode="r", allow_pickle=False)
    except DataError:
        raise
    except (OSError, ValueError, EOFError, KeyError, SyntaxError) as error:
        raise DataError(f"{place}: the file cannot be read as an array ({_reason(error)}); write it anew.") from None
    except Exception as error:  # zipfile and zlib have their own
        if type(error).__module__ not in ("zipfile", "zlib"):
            raise
        raise DataError(f"{place}: the file cannot be read as an array ({_reason(error)}); write it anew.") from None
    if loaded is None:
        raise DataError(f"{place}: the file is empty; write it anew.")
    return np.asarray(loaded) if loaded.dtype == np.bool_ else loaded
