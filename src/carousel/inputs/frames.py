"""Frames as a model sees them: the fitted input, the user's choices, and how one picture is brought to it.

Torch-free. A clip is T pictures; each becomes bytes [H, W, C] by `prepare`, whatever it was: grey or coloured, with or
without transparency, 8 or 16 bits or numbers in [0, 1]. The encoder in the model sees (bytes / 255 - mean) / scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from carousel.cell import CellSpec
from carousel.errors import CarouselError, DataError, MissingExtra
from carousel.inputs.roles import Roles

__all__ = ["BadFrame", "Frames", "FramesInput", "Picture", "prepare"]

Bytes = NDArray[np.uint8]

Crop = Literal["none", "centre"]
LARGEST = 4096  # of a side in pixels: what the model sees, not the video


class BadFrame(ValueError):
    """A picture that cannot be used; the message says why, without naming it."""


@dataclass(frozen=True)
class Picture:
    """What every frame is brought to: `size` (height, width), channels 1 (grey) or 3; with the crop `centre` the
    longer side is cut to the shape of `size`, else the picture is squeezed into it. Every so many frames count, or
    about `rate` of them a second, never more than there are."""

    size: tuple[int, ...]
    channels: int
    crop: Crop = "none"
    every: int = 1
    rate: float | None = None

    def __post_init__(self) -> None:
        if len(self.size) != 2 or not all(1 <= side <= LARGEST for side in self.size):
            raise ValueError(f"size must be height and width in pixels, 1 to {LARGEST}, got {self.size}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (colour), got {self.channels}")
        if self.crop not in ("none", "centre"):
            raise ValueError(f"crop must be none or centre, got {self.crop!r}")
        if self.every < 1:
            raise ValueError(f"every must be at least 1, got {self.every}")
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise ValueError(f"rate must be frames a second, above 0, got {self.rate}")
        if self.rate is not None and self.every > 1:
            raise ValueError("every and rate both thin out frames; give one of them")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one frame: height, width, channels."""
        return self.size[0], self.size[1], self.channels


@dataclass(frozen=True)
class FramesInput:
    """Clips as a model of sequences reads them: pictures, and the encoder that turns each into `features` numbers.

    `mean` and `scale` [C] are of the training frames, of bytes as numbers in [0, 1]. The encoder has one convolution
    (3 x 3, stride 2, group norm, ReLU) for each of `filters`, then, with `convlstm` channels, a convolutional LSTM over
    what they give, then one linear layer; models that predict frames have no encoder. `shift` (share of the sides) and
    `flip` are how frames of a clip are moved and mirrored together in training.
    """

    roles: Roles
    picture: Picture
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    filters: tuple[int, ...] = ()
    features: int = 0
    convlstm: int = 0
    shift: float = 0.0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.convlstm < 0:
            raise ValueError(f"convlstm must be at least 0 channels, got {self.convlstm}")
        if len(self.mean) != self.picture.channels or len(self.scale) != self.picture.channels:
            raise ValueError(f"mean and scale need {self.picture.channels} numbers each")
        if not all(s > 0 for s in self.scale):
            raise ValueError(f"scale must be positive, got {self.scale}")
        if self.filters or self.features:
            _check_encoder(self.picture.size, self.filters, self.features)
        if not 0 <= self.shift < 0.5:
            raise ValueError(f"shift must be a share of the sides in [0, 0.5), got {self.shift}")

    # What models of sequences ask of their input; a clip has no columns, no clock and nothing static.
    uneven: ClassVar[bool] = False
    static_size: ClassVar[int] = 0
    numbers: ClassVar[tuple[Any, ...]] = ()
    categories: ClassVar[tuple[Any, ...]] = ()
    static_numbers: ClassVar[tuple[Any, ...]] = ()
    embedded: ClassVar[tuple[Any, ...]] = ()

    @property
    def step_size(self) -> int:
        return self.features

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of what the last convolution gives: halved, rounded up, by each."""
        height, width = self.picture.size
        for _ in self.filters:
            height, width = -(-height // 2), -(-width // 2)
        return height, width

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The weights of the encoder."""
        found: dict[str, tuple[int, ...]] = {}
        size = self.picture.channels
        for k, filters in enumerate(self.filters):
            found[f"convolutions.{k}.weight"] = (filters, size, 3, 3)
            found[f"norms.{k}.weight"] = found[f"norms.{k}.bias"] = (filters,)
            size = filters
        if self.convlstm:
            for name, shape in CellSpec().shapes(size, self.convlstm).items():
                found[f"memory.{name}_l0"] = shape + (3, 3) * (len(shape) == 2)
            size = self.convlstm
        height, width = self.grid
        found["out.weight"] = (self.features, size * height * width)
        found["out.bias"] = (self.features,)
        return found


def _check_encoder(size: Sequence[int], filters: tuple[int, ...], features: int) -> None:
    if not filters or any(f < 1 for f in filters):
        raise ValueError(f"filters must be one positive number or more, got {filters}")
    if features < 1:
        raise ValueError(f"features must be at least 1, got {features}")
    if 2 ** (len(filters) - 1) > max(size):
        raise ValueError(f"{len(filters)} convolutions halve pictures of {size[0]} x {size[1]} to nothing; use fewer")


@dataclass(frozen=True)
class Frames:
    """How an estimator takes clips: `Classifier("label", frames="clip")` for short, or with choices of its own.

    `column` holds in tables the place of each clip (a video file, a folder of images, an .npy or .npz file), from
    `root` (None: the working folder); arrays [T, H, W] or [T, H, W, C] need no column. `size` is a side or (height,
    width), `grey`, `crop`, `every` and `rate` say what is kept (see `Picture`); `filters`, `features`, `convlstm`,
    `shift` and `flip` are of the encoder and its training (see `FramesInput`), `patch` is the side of the pieces that
    models of the next frames see as one place. `skip_bad` leaves out what cannot be read, with a warning that counts
    it. `workers` processes decode (None: one a processor, 0: none); decoded frames stay in memory up to `cache` MiB,
    beyond that in a temporary file.

    Raises ValueError for a value out of range.

    >>> Frames("clip", size=32, grey=True).picture.shape
    (32, 32, 1)
    """

    column: str | None = None
    size: int | tuple[int, int] = 64
    grey: bool = False
    crop: Crop = "none"
    every: int = 1
    rate: float | None = None
    filters: tuple[int, ...] = (16, 32, 64, 64)
    features: int = 64
    convlstm: int = 0
    shift: float = 0.06
    flip: bool = False
    patch: int = 4
    skip_bad: bool = False
    workers: int | None = None
    cache: int = 256
    root: str | PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.column is not None and not isinstance(self.column, str):
            raise ValueError(f"column must be the name of a column as text, got {self.column!r}")
        _check_encoder(self.picture.size, self.filters, self.features)
        if not 0 <= self.shift < 0.5:
            raise ValueError(f"shift must be a share of the sides in [0, 0.5), got {self.shift}")
        if self.convlstm < 0:
            raise ValueError(f"convlstm must be at least 0 channels, got {self.convlstm}")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers must be at least 0, got {self.workers}")
        if self.cache < 1:
            raise ValueError(f"cache must be at least 1 MiB, got {self.cache}")

    @property
    def picture(self) -> Picture:
        size = (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)
        return Picture(size, 1 if self.grey else 3, self.crop, self.every, self.rate)

    @classmethod
    def of(cls, given: str | Frames) -> Frames:
        """The choices that a name of a column stands for; CarouselError for anything else."""
        if isinstance(given, str):
            return cls(given)
        if not isinstance(given, Frames):
            raise CarouselError(f"frames must be the name of a column or Frames(...), got {given!r}.")
        return given

    @classmethod
    def fitted(cls, seen: FramesInput, patch: int = 4) -> Frames:
        """The choices of a trained model."""
        p = seen.picture
        return cls(
            column=seen.roles.id,
            size=(p.size[0], p.size[1]),
            grey=p.channels == 1,
            crop=p.crop,
            every=p.every,
            rate=p.rate,
            filters=seen.filters or cls.filters,
            features=seen.features or cls.features,
            convlstm=seen.convlstm,
            shift=seen.shift,
            flip=seen.flip,
            patch=patch,
        )


def prepare(raw: Any, picture: Picture) -> Bytes:
    """One picture [h, w] or [h, w, 1 to 4] of bytes, 16 bits, booleans or numbers in [0, 1] -> bytes [H, W, C].

    Transparency is laid over black. Grey is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601). Raises BadFrame with the
    reason where the array is no picture, MissingExtra where it must be resized without Pillow.

    >>> prepare(np.full((4, 4), 65535, np.uint16), Picture((2, 2), 1))[0, 0].tolist()
    [255]
    """
    found = _channels(_bytes(np.asarray(raw)), picture.channels)
    height, width = picture.size
    h, w = found.shape[:2]
    if (h, w) == (height, width):
        return found
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("Pillow", "frames", "Resizing pictures") from None
    box = (0.0, 0.0, float(w), float(h))
    if picture.crop == "centre":
        wide, high = min(w, h * width / height), min(h, w * height / width)
        box = ((w - wide) / 2, (h - high) / 2, (w + wide) / 2, (h + high) / 2)
    image = Image.fromarray(found[..., 0] if found.shape[2] == 1 else found)
    small = np.array(image.resize((width, height), Image.Resampling.BILINEAR, box=box))
    return small.reshape(height, width, found.shape[2])


def _bytes(raw: NDArray[Any]) -> Bytes:
    """[h, w, c] as bytes."""
    if raw.ndim == 2:
        raw = raw[..., None]
    if raw.ndim != 3 or 0 in raw.shape or raw.shape[2] > 4:
        raise BadFrame(f"its shape is {list(raw.shape)}, where [height, width] with 1 to 4 channels was expected")
    if raw.dtype == np.uint8:
        return raw
    if raw.dtype == np.bool_:
        return raw.astype(np.uint8) * np.uint8(255)
    if raw.dtype == np.uint16:
        return ((raw.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if raw.dtype.kind == "f":
        if not np.isfinite(raw).all():
            raise BadFrame("it holds values that are not finite")
        if raw.min() < 0 or raw.max() > 1:
            raise BadFrame(f"its numbers lie in {raw.min():g} ... {raw.max():g}, where 0 ... 1 was expected")
        bright: Bytes = np.rint(raw * 255).astype(np.uint8)
        return bright
    if raw.dtype.kind in "iu":
        if raw.min() < 0 or raw.max() > 255:
            raise BadFrame(f"its numbers lie in {raw.min()} ... {raw.max()}, where 0 ... 255 was expected")
        return raw.astype(np.uint8)
    raise BadFrame(f"it holds {raw.dtype}, where numbers were expected")


def _channels(picture: Bytes, wanted: int) -> Bytes:
    """[h, w, 1 to 4] -> [h, w, wanted]."""
    if picture.shape[2] in (2, 4):
        opaque = picture[..., -1:].astype(np.uint16)
        picture = ((picture[..., :-1] * opaque + 127) // 255).astype(np.uint8)
    if picture.shape[2] == wanted:
        return picture
    if wanted == 3:
        return np.repeat(picture, 3, 2)
    weighed = picture.astype(np.uint32) @ np.array([299, 587, 114], np.uint32)
    grey: Bytes = ((weighed + 500) // 1000).astype(np.uint8)[..., None]
    return grey


def require_shape(frame: tuple[int, ...], first: tuple[int, ...]) -> None:
    """BadFrame where a picture has another size than the first of its clip."""
    if frame != first:
        raise BadFrame(
            f"its size is {frame[0]} x {frame[1]}, where the first frame has {first[0]} x {first[1]} (height x width)"
        )


def one_clip(array: NDArray[Any], what: str) -> NDArray[Any]:
    """An array as T pictures [T, H, W, C]; DataError for another shape, and for none at all."""
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or 0 in array.shape[1:] or array.shape[3] > 4:
        raise DataError(
            f"{what}: the shape is {list(array.shape)}; frames are [T, height, width] or [T, height, width, 1 to 4]."
        )
    if not len(array):
        raise DataError(f"{what}: there are no frames (T = 0); leave the clip out.")
    return array
