"""Pictures of what a model says of clips: videos with labels drawn on them, and strips of true and predicted frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carousel import atomic
from carousel.errors import CarouselError, DataError, MissingExtra
from carousel.inputs.frames import Bytes, Picture, prepare
from carousel.inputs.frames_files import clip_rate, raw_frames

__all__ = ["VIDEOS", "Caption", "encode", "render", "strip"]

VIDEOS = (".mp4", ".mkv", ".mov", ".avi", ".webm")
USUAL_RATE = 10  # frames a second of clips without a clock
LEAST = 240  # pixels of the shorter side of a rendered video, so that its text can be read
BAR, INK, GOOD, PALE = (16, 20, 28), (240, 242, 245), (64, 170, 110), (70, 78, 92)


class Caption(NamedTuple):
    """What is drawn from frame `number` of the file on: a label and how sure it is, in [0, 1] (None: not drawn)."""

    number: int
    label: str
    share: float | None = None
    alarm: bool = False


def render(
    clip: str | Path,
    captions: Sequence[Caption],
    out: str | Path,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the clip as a video in its own size and speed, with the captions drawn below; the number of its frames.

    Small pictures are enlarged. Raises DataError where the clip cannot be read, CarouselError for a suffix that is no
    video's; the video appears whole or not at all.
    """
    place = Path(out)
    if place.suffix.lower() not in VIDEOS:
        raise CarouselError(f"{out}: the suffix must be {', '.join(VIDEOS)} for a video; name the output so.")
    if not captions:
        raise CarouselError(f"{clip}: nothing was predicted of it, so there is nothing to draw.")
    ordered = sorted(captions, key=lambda caption: caption.number)

    def drawn() -> Iterator[Bytes]:
        at = 0
        for number, image in _whole(clip):
            while at + 1 < len(ordered) and ordered[at + 1].number <= number:
                at += 1
            yield _captioned(image, ordered[at] if ordered[at].number <= number else None)
            if progress:
                progress(number + 1, max(number + 1, ordered[-1].number + 1))

    return encode(drawn(), place, clip_rate(clip) or Fraction(USUAL_RATE))


def _whole(clip: str | Path) -> Iterator[tuple[int, Bytes]]:
    """All frames in colour, in the size of the first; a frame that cannot be read is left out."""
    size: tuple[int, ...] = ()
    for number, _, image in raw_frames(Path(clip)):
        try:
            found = image() if callable(image) else image
            size = size or found.shape[:2]
            yield number, prepare(found, Picture(size, 3))
        except ValueError as error:
            if isinstance(error, CarouselError):
                raise
            continue


def encode(frames: Iterator[Bytes], out: str | Path, rate: Fraction | float | int = USUAL_RATE) -> int:
    """Write frames [H, W, 3], or grey ones [H, W] or [H, W, 1], as a video; how many there were.

    H.264 where the suffix is not .webm (VP9). Raises DataError without frames.
    """
    try:
        import av
    except ImportError:
        raise MissingExtra("av", "frames", "Writing videos") from None
    place = Path(out)
    hidden = place.with_name(f".{place.stem}.part{place.suffix}")
    codec = "libvpx-vp9" if place.suffix.lower() == ".webm" else "libx264"
    count = 0
    try:
        with av.open(str(hidden), "w") as container:
            stream: Any = None
            for frame in frames:
                picture = np.ascontiguousarray(_even(_coloured(frame)))
                if stream is None:
                    stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1000))
                    stream.height, stream.width = picture.shape[:2]
                    stream.pix_fmt = "yuv420p"
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                count += 1
            if stream is None:
                raise DataError(f"{out}: there is no frame to write; give at least one.")
            container.mux(stream.encode(None))
        hidden.replace(place)
    except (OSError, av.FFmpegError) as error:
        raise CarouselError(f"{out}: the video cannot be written ({error}); check the folder and its space.") from None
    finally:
        hidden.unlink(missing_ok=True)
    return count


def _coloured(frame: NDArray[Any]) -> Bytes:
    frame = frame[..., None] if frame.ndim == 2 else frame
    return np.repeat(frame, 3, 2) if frame.shape[2] == 1 else frame


def _even(picture: Bytes) -> Bytes:
    """Codecs with halved colour need even sides."""
    return np.pad(picture, ((0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)), mode="edge")


def _captioned(picture: Bytes, caption: Caption | None) -> Bytes:
    from PIL import Image, ImageDraw

    scale = max(1, -(-LEAST // min(picture.shape[:2])))
    picture = picture.repeat(scale, 0).repeat(scale, 1)
    height, width = picture.shape[:2]
    bar = max(28, height // 10)
    canvas = Image.new("RGB", (width, height + bar), BAR)
    canvas.paste(Image.fromarray(picture), (0, 0))
    if caption is not None:
        draw = ImageDraw.Draw(canvas)
        font, edge = _font(bar * 11 // 20), bar // 4
        share = None if caption.share is None else f"{100 * caption.share:.0f} %"
        room = width - 2 * edge - (0 if share is None else int(draw.textlength(share, font)) + edge)
        middle = height + bar * 9 // 20
        draw.text((edge, middle), _fitting(caption.label, room, draw, font), INK, font, anchor="lm")
        if share is not None and caption.share is not None:
            draw.text((width - edge, middle), share, INK, font, anchor="rm")
            line = max(3, bar // 9)
            draw.rectangle((0, height + bar - line, width, height + bar), PALE)
            draw.rectangle((0, height + bar - line, round(width * caption.share), height + bar), GOOD)
        if caption.alarm:
            draw.rectangle((0, 0, width - 1, height - 1), outline=(226, 76, 60), width=max(3, height // 60))
    return np.asarray(canvas)


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _fitting(text: str, room: int, draw: Any, font: Any) -> str:
    """The text, cut off where it is wider than there is room."""
    while len(text) > 1 and draw.textlength(text, font) > room:
        text = text[:-2] + "…"
    return text


def strip(rows: Sequence[tuple[str, Sequence[Bytes | None]]], out: str | Path, side: int = 72) -> None:
    """Write a PNG with a row of frames [H, W, C] for each name; None leaves a place empty.

    Frames that follow one another stand side by side, so that rows can be compared from top to bottom.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        raise MissingExtra("Pillow", "frames", "Writing pictures") from None
    if not rows or not any(len(frames) for _, frames in rows):
        raise DataError(f"{out}: there is no frame to draw; give at least one.")
    first = next(frame for _, frames in rows for frame in frames if frame is not None)
    height, width = side, max(1, round(side * first.shape[1] / first.shape[0]))
    font, gap, head = _font(13), 3, 18
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    margin = 16 + round(max(probe.textlength(name, font) for name, _ in rows))
    most = max(len(frames) for _, frames in rows)
    canvas = Image.new(
        "RGB", (margin + most * (width + gap) + 8, head + len(rows) * (height + gap) + 8), (255, 255, 255)
    )
    draw = ImageDraw.Draw(canvas)
    for k in range(most):
        draw.text((margin + k * (width + gap) + width / 2, head / 2 + 2), str(k + 1), PALE, _font(11), anchor="mm")
    for r, (name, frames) in enumerate(rows):
        top = head + r * (height + gap)
        draw.text((margin - 8, top + height / 2), name, (20, 24, 32), font, anchor="rm")
        for k, frame in enumerate(frames):
            if frame is not None:
                image = Image.fromarray(_coloured(np.asarray(frame)))
                canvas.paste(image.resize((width, height), Image.Resampling.NEAREST), (margin + k * (width + gap), top))
    import io

    held = io.BytesIO()
    canvas.save(held, "PNG", optimize=True)
    atomic.write_bytes(Path(out), held.getvalue())
