"""What a model said of clips, drawn or written: videos with captions, strips and arrays of frames ahead."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from carousel import atomic
from carousel.errors import CarouselError
from carousel.framing import predict_ahead
from carousel.inputs.frames import Bytes, Frames
from carousel.render import VIDEOS, Caption, render, strip

__all__ = ["ahead", "captions", "draw", "require_render", "write_arrays"]

Progress = Callable[[int, int], None]
MOST_DRAWN = 4  # clips in a strip of frames ahead


def require_render(place: Path, ahead: bool) -> None:
    """Before the work: a place that can be drawn to."""
    wanted = (".png",) if ahead else VIDEOS
    folder = place if place.is_dir() else place.parent
    if not folder.is_dir():
        raise CarouselError(f"{place}: there is no folder {folder}; make it first.")
    if not (place.is_dir() and not ahead) and place.suffix.lower() not in wanted:
        more = "" if ahead else ", or a folder for several clips"
        raise CarouselError(f"{place}: the suffix must be {', '.join(wanted)}{more}; name the output so.")


def captions(estimator: Any, table: Any, clip: str) -> list[Caption]:
    """What `predict` gave for one clip, in the order of its frames; `table` is a polars table."""
    import polars as pl

    seen = estimator.config_.input.roles
    own = table.filter(pl.col(seen.id) == clip)
    number = own[seen.time or "frame"].to_list() if (seen.time or "frame") in own.columns else [0] * own.height
    if estimator.config_.task == "detect":
        return [
            Caption(n, "" if score is None else f"score {score:.2f}  {because or ''}", alarm=bool(odd))
            for n, score, odd, because in zip(number, own["score"], own["anomaly"], own["because"], strict=True)
        ]
    if "alarm" in own.columns:
        return [
            Caption(n, "alarm" if on else "", p, bool(on))
            for n, p, on in zip(number, own["probability"], own["alarm"], strict=True)
        ]
    shares = [name for name in own.columns if name.startswith("p_")]
    best = own.select(pl.max_horizontal(shares)).to_series().to_list() if shares else [None] * own.height
    return [
        Caption(n, label if isinstance(label, str) else f"{label:.4g}" if isinstance(label, float) else str(label), p)
        for n, label, p in zip(number, own["prediction"].to_list(), best, strict=True)
    ]


def draw(
    estimator: Any, clips: Any, found: Any, place: Path, source: str, progress: Progress | None = None
) -> list[str]:
    """Draw what was found on the clips; the files that were written."""
    if estimator.config_.task == "forecast":
        _draw_ahead(estimator, clips, place, source)
        return [str(place)]
    root = Frames.of(estimator.frames).root
    names = found[estimator.config_.input.roles.id].unique(maintain_order=True).to_list()
    if len(names) > 1 and not place.is_dir():
        raise CarouselError(
            f"{place}: there are {len(names)} clips to draw; name a folder that is there, for all of them."
        )
    written = []
    for k, name in enumerate(names):
        clip = Path(name) if root is None else Path(root) / name
        stem = clip.stem if clip.suffix else clip.name
        out = place / f"{k:04}-{stem}.mp4" if place.is_dir() else place
        render(clip, captions(estimator, found, name), out, progress)
        written.append(str(out))
    return written


def ahead(estimator: Any, table: Any, source: str) -> dict[str, Bytes]:
    """Of each clip, by its name, the frames after its last."""
    clips, found = estimator.predict_frames(table, source=source)
    return {str(name): made for name, made in zip(clips.ids, found, strict=True)}


def write_arrays(found: dict[str, Bytes], out: Path) -> None:
    held = io.BytesIO()
    np.savez_compressed(held, allow_pickle=False, **found)
    atomic.write_bytes(out, held.getvalue())


def _draw_ahead(estimator: Any, table: Any, place: Path, source: str) -> None:
    """The last frames of clips, what was predicted of them from those before, and the frames after the last."""
    clips, after = estimator.predict_frames(table[:MOST_DRAWN], source=source)
    head = estimator.config_.head
    rows: list[tuple[str, list[Bytes | None]]] = []
    for k in range(len(clips.ids)):
        own = np.asarray(clips.frames[clips.offsets[k] : clips.offsets[k + 1]])
        early, late = own[: -head.horizon], own[-head.horizon :]
        if len(early):
            (made,) = predict_ahead(estimator.model_, [early], head.horizon, head.context)
            rows += [("seen", list(early[-head.context :])), ("true", list(late)), ("predicted", list(made))]
        else:
            rows += [("seen", list(own))]
        rows += [("ahead", list(after[k]))]
    strip(rows, place)
