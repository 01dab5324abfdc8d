"""Clips from a table that names them, or from arrays: whole sequences of frames, with what belongs to each frame."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError
from carousel.inputs import columns
from carousel.inputs.clock import Clock
from carousel.inputs.frames import BadFrame, Bytes, Frames, FramesInput, one_clip, prepare
from carousel.inputs.frames_decode import Store, decode_all
from carousel.inputs.roles import Roles
from carousel.inputs.rows import Sequences
from carousel.inputs.sequence import Channels

__all__ = ["Clips", "fit_frames", "read_clips", "read_pictures"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Progress = Callable[[int, int], None]

SAMPLE = 2048  # frames that mean and scale are taken of


@dataclass(frozen=True, kw_only=True)
class Clips(Sequences):
    """Sequences whose rows are frames; `row` [N] is the row of the user's table that speaks of the frame, 0: none."""

    frames: Bytes  # [N, H, W, C]
    numbers: Ints  # [N] in the file
    seconds: Floats  # [N] since the first frame of the file, NaN without a clock
    faults: tuple[str, ...] = ()

    def made_channels(self, fitted: Any) -> Channels:
        """The frames as they are; the encoder in the model does the rest."""
        count = len(self.frames)
        none = np.zeros((len(self.ids), 0))
        return Channels(
            values=self.frames,  # type: ignore[arg-type]
            codes=np.zeros((count, 0), np.int64),
            elapsed=np.zeros(count, np.float32),
            offsets=self.offsets,
            static=none.astype(np.float32),
            static_codes=none.astype(np.int64),
        )

    def keyed(self) -> Clips:
        """As if the table had one row for each frame: its clip and its number."""
        place = self.roles.time or "frame"
        made = [
            nw.new_series(str(self.roles.id), [self.ids[k] for k in self.owner], backend=self.backend),
            nw.new_series(place, self.numbers.tolist(), backend=self.backend),
        ]
        keys = nw.from_dict({column.name: column for column in made})
        return replace(
            self, keys=keys, row=np.arange(len(self.numbers)) + 1, roles=replace(self.roles, time=place), target=None
        )

    def rows_table(self, found: dict[str, NDArray[Any]], kinds: dict[str, Any] | None = None) -> Any:
        """A table of the kind that the clips came in: a row for each frame, with its number and time in the clip."""
        keys, backend = self.keyed().keys, self.backend
        made = [keys[name] for name in keys.columns]
        if not np.isnan(self.seconds).all():
            made.append(nw.new_series("seconds", np.round(self.seconds, 6).tolist(), backend=backend))
        for name, values in found.items():
            made.append(nw.new_series(name, values.tolist(), (kinds or {}).get(name), backend=backend))
        return nw.from_dict({column.name: column for column in made}).to_native()


def read_clips(
    frame: Any,
    roles: Roles,
    choices: Frames,
    *,
    source: str = "data",
    target: bool = True,
    progress: Progress | None = None,
) -> Clips:
    """All clips that a table names in the column `roles.id`, decoded.

    With one row for a clip, that row speaks of all its frames. With several, `roles.time` is the column of the first
    frame (its number in the file) that each row speaks of; without that column they are its frames one by one.
    Raises DataError for a place that is missing or cannot be read (the row is named), for frames that the clip does
    not have, and for other counts of rows than of frames.
    """
    table = columns.as_frame(frame, source)
    wanted = roles if target else replace(roles, target=())
    needed = (*wanted.columns,) if target else (str(roles.id),)
    columns.require(table, [name for name in needed if name != roles.time or target], source)
    column = table[str(roles.id)]
    if not columns.is_text(column):
        raise DataError(f"{source}, column {roles.id!r}: it must hold paths as text; name the column of the clips.")
    paths = column.to_list()
    empty = next((k for k, path in enumerate(paths) if not path), None)
    if empty is not None:
        raise DataError(f"{source}, row {empty + 1}, column {roles.id!r}: the path is missing; fill it in.")
    ids, owner = columns.keys(column, source)
    root = Path(choices.root) if choices.root is not None else None
    places = [str(path if root is None else root / path) for path in ids]
    first = np.full(len(ids), len(paths))
    np.minimum.at(first, owner, np.arange(len(paths)))
    for k, place in enumerate(places):
        if not choices.skip_bad and not Path(place).exists():
            raise DataError(
                f"{source}, row {int(first[k]) + 1}, column {roles.id!r}: {place} does not exist; correct the path"
                " (they count from the table's folder), or leave such clips out with skip_bad (--skip-bad)."
            )
    found = decode_all(places, choices, progress)
    faults = tuple(text if ids[k] in text else f"{places[k]}: {text}" for k, text in found.faults)
    _remark(faults, source)
    kept = [ids[k] for k in found.kept]
    rows = [np.flatnonzero(owner == k) for k in found.kept]
    starts = _starts(table, roles, source) if roles.time and roles.time in table.columns and target else None
    exact = choices.every == 1 and choices.rate is None
    row = np.zeros(len(found.numbers), np.int64)
    for k, own in enumerate(rows):
        a, b = found.offsets[k], found.offsets[k + 1]
        if not target:  # nothing is said of frames
            row[a:b] = own[0] + 1
            continue
        row[a:b] = _rows_of_frames(own, starts, found.numbers[a:b], exact, kept[k], source) + 1
    return Clips(
        roles=roles,
        ids=kept,
        offsets=found.offsets,
        time=found.numbers.astype(np.float64),
        features=np.zeros((len(found.numbers), 0)),
        static=np.zeros((len(kept), 0)),
        categories={},
        clock=Clock("row"),
        row=row,
        source=source,
        id_dtype=column.dtype,
        backend=table.implementation,
        target=table[roles.target[0]] if wanted.target else None,
        frames=found.frames,
        numbers=found.numbers,
        seconds=found.seconds,
        faults=faults,
    )


def _starts(table: columns.Frame, roles: Roles, source: str) -> Floats:
    found = columns.numbers(table[str(roles.time)], source)
    wrong = np.flatnonzero(~(found >= 0) | (found != np.floor(found)))
    if len(wrong):
        raise DataError(
            f"{source}, row {int(wrong[0]) + 1}, column {roles.time!r}: {found[wrong[0]]:g} is no number of a frame;"
            " frames count 0, 1, 2, ..."
        )
    return found


def _rows_of_frames(own: Ints, starts: Floats | None, numbers: Ints, exact: bool, name: str, source: str) -> Ints:
    """Of each frame the row (from 0) of the table that speaks of it, -1: none does; `exact`: no frame was left out."""
    if starts is not None:
        at = starts[own]
        order = np.argsort(at, kind="stable")
        own, at = own[order], at[order]
        twice = np.flatnonzero(np.diff(at) == 0)
        if len(twice):
            raise DataError(
                f"{source}, row {int(own[twice[0] + 1]) + 1}: frame {at[twice[0]]:g} of {name!r} stands twice."
            )
        if at[-1] > numbers[-1]:
            raise DataError(
                f"{source}, row {int(own[-1]) + 1}: frame {at[-1]:g} is beyond the last frame of {name!r}, which is"
                f" {numbers[-1]}; correct the label file."
            )
        place = np.searchsorted(at, numbers, side="right") - 1
        return np.where(place >= 0, own[np.maximum(place, 0)], -1)
    if len(own) == 1:
        return np.full(len(numbers), own[0])
    count = int(numbers[-1]) + 1
    if len(own) < count or (exact and len(own) > count):
        raise DataError(
            f"{source}: the clip {name!r} has {count} frames and {len(own)} rows; give one row for a clip, one for each"
            " frame, or a column of frame numbers (time)."
        )
    return own[numbers]


def _remark(faults: Sequence[str], source: str) -> None:
    if faults:
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        warnings.warn(f"{source}: {len(faults)} left out as bad: {faults[0].removesuffix('.')}{more}.", stacklevel=4)


def read_pictures(arrays: Any, choices: Frames, *, source: str = "X") -> Clips:
    """Clips from a list of arrays [T, H, W] or [T, H, W, C], or one array [B, T, H, W(, C)].

    Raises DataError for other shapes, no frames, and values that are no pictures.
    """
    if choices.every > 1 or choices.rate is not None:
        raise DataError(f"{source}: every and rate are about files; of arrays give the frames that you want.")
    if isinstance(arrays, str) or not hasattr(arrays, "__len__"):
        raise DataError(f"{source}: expected a table or arrays, got {type(arrays).__name__}; give a list of arrays.")
    if not len(arrays):
        raise DataError(f"{source}: there is no clip; give at least one.")
    picture = choices.picture
    store = Store(picture.shape, choices.cache << 20)
    lengths = []
    for k, part in enumerate(arrays):
        clip = one_clip(np.asarray(part), f"{source}[{k}]")
        for t, raw in enumerate(clip):
            try:
                store.add(prepare(raw, picture)[None])
            except BadFrame as error:
                raise DataError(f"{source}[{k}], frame {t}: {error}; correct it.") from None
        lengths.append(len(clip))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    numbers = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    return Clips(
        roles=Roles(),
        ids=list(range(len(lengths))),
        offsets=offsets,
        time=numbers.astype(np.float64),
        features=np.zeros((len(numbers), 0)),
        static=np.zeros((len(lengths), 0)),
        categories={},
        clock=Clock("row"),
        row=numbers,
        source=source,
        frames=store.frozen(),
        numbers=numbers,
        seconds=np.full(len(numbers), np.nan),
    )


def fit_frames(clips: Clips, training: Ints, choices: Frames) -> FramesInput:
    """The input fitted on the frames `training` [n]: their mean and spread, of a sample evenly among them."""
    some = training[np.linspace(0, len(training) - 1, min(len(training), SAMPLE)).astype(np.int64)]
    pixels = np.asarray(clips.frames[some], np.float64).reshape(-1, choices.picture.channels) / 255
    spread = pixels.std(0)
    return FramesInput(
        roles=clips.roles,
        picture=choices.picture,
        mean=tuple(float(m) for m in pixels.mean(0)),
        scale=tuple(float(s) if s > 1e-3 else 1.0 for s in spread),
        filters=tuple(choices.filters),
        features=choices.features,
        convlstm=choices.convlstm,
        shift=choices.shift,
        flip=choices.flip,
    )
