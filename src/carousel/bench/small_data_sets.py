"""The sets of `bench small-data`: sequences of numbers or words, what is asked of each, and shares of them."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from carousel.bench import sets
from carousel.datasets import digits

__all__ = ["LOADERS", "Part", "Problem", "generated", "share_of"]

Array = NDArray[Any]
SIZE = 4_000  # windows of a long series, about


@dataclass(frozen=True)
class Part:
    """B sequences, each [T, C] numbers or a list of words; `y` [B] classes 0, 1, ... or numbers; `group` [B] what a
    sequence was cut from: where it is given, a share of the data is a share of these.
    """

    x: list[Any]
    y: Array
    group: Array | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, chosen: Array) -> Part:
        group = None if self.group is None else self.group[chosen]
        return Part([self.x[int(k)] for k in chosen], self.y[chosen], group)


@dataclass(frozen=True)
class Problem:
    """A set: `kind` "class" is judged by accuracy, "number" by the root of the mean squared error."""

    name: str
    said: str
    kind: Literal["class", "number"]
    text: bool
    train: Part
    test: Part

    @property
    def outputs(self) -> int:
        return int(self.train.y.max()) + 1 if self.kind == "class" else 1


def share_of(part: Part, share: float, rng: np.random.Generator) -> Array:
    """Indices of a random share: of groups where there are any, else of each class, at least two of each."""
    if share >= 1:
        return np.arange(len(part))
    if part.group is not None:
        names = np.unique(part.group)
        first = int(rng.integers(0, len(names)))
        count = max(1, round(share * len(names)))
        return np.flatnonzero(
            np.isin(part.group, np.roll(names, -first)[:count])
        )  # neighbours: of a series one stretch
    found = []
    for label in np.unique(part.y):
        own = rng.permutation(np.flatnonzero(part.y == label))
        found.append(own[: max(2, round(share * len(own)))])
    return np.sort(np.concatenate(found))


def _japanese_vowels() -> Problem:
    parts = [Part(x, y.astype(np.int64) - 1) for x, y in (sets.japanese_vowels(part) for part in ("TRAIN", "TEST"))]
    return Problem("japanese-vowels", "9 speakers by 12 channels of a vowel", "class", False, *parts)


def _digits() -> Problem:
    def rows(part: Any) -> Part:
        return Part(list(part.x.values.reshape(-1, 8, 8).astype(np.float64)), part.answer)

    return Problem("digits", "10 digits by 8 rows of 8 pixels", "class", False, *(rows(part) for part in digits()))


def _skeletons() -> Problem:
    with np.load(sets.folder("jhmdb_skeleton") / "jhmdb_skeleton.npz") as data:
        xy, offsets, label, test = data["xy"], data["offsets"], data["label"], data["split_is_test"][:, 0] == 1
    clips = []
    for start, stop in itertools.pairwise(offsets):
        clip = xy[start:stop].astype(np.float64)
        size = np.abs(clip - clip.mean((0, 1))).mean()
        still = (clip - clip.mean(1, keepdims=True)) / size  # of the body, wherever it stands and however large it is
        moves = np.diff(clip.mean(1), axis=0, prepend=clip[:1].mean(1)) / size
        clips.append(np.concatenate([still.reshape(len(clip), -1), moves], 1))
    whole = Part(clips, label.astype(np.int64))
    parts = [whole.take(np.flatnonzero(own)) for own in (~test, test)]
    return Problem("skeletons", "14 actions by 15 joints in JHMDB's videos, split 1", "class", False, *parts)


def _engines() -> Problem:
    parts = []
    for name in ("train", "test"):
        frame = sets.cmapss(name)
        columns = [c for c in frame.columns if c.startswith(("setting", "sensor"))]
        x, y, group = [], [], []
        for engine in frame.partition_by("engine", maintain_order=True):
            values, left = engine.select(columns).to_numpy(), engine["rul"].to_numpy()
            ends = range(20, len(values) + 1, 5) if name == "train" else (len(values),)
            for end in ends:
                x.append(values[max(0, end - 50) : end])
                y.append(left[end - 1])
                group.append(engine["engine"][0])
        parts.append(Part(x, np.array(y), np.array(group)))
    said = "remaining life of 100 engines by their last 50 cycles (C-MAPSS FD001)"
    return Problem("engines", said, "number", False, *parts)


def _pm25() -> Problem:
    import polars as pl

    with gzip.open(sets.folder("beijing_pm25") / "pollution.csv.gz", "rb") as file:
        frame = pl.read_csv(file.read(), null_values="NA", infer_schema_length=None)
    target = frame["pm2.5"].cast(pl.Float64)
    columns = [target.is_not_null().cast(pl.Float64), target.forward_fill().fill_null(0.0)]
    columns += [frame[name].cast(pl.Float64) for name in ("DEWP", "TEMP", "PRES", "Iws", "Is", "Ir", "hour", "month")]
    columns += [(frame["cbwd"] == way).cast(pl.Float64) for way in ("NW", "NE", "SE")]
    values, y = np.stack([c.to_numpy() for c in columns], 1), target.fill_null(np.nan).to_numpy()
    ahead, window, edge = 6, 24, int(0.8 * len(values))

    def part(first: int, stop: int) -> Part:
        ends = np.arange(first + window, stop - ahead, max(1, (stop - first) // SIZE))
        ends = ends[np.isfinite(y[ends + ahead - 1])]
        week = np.asarray((ends - first) // (7 * 24))
        return Part([values[end - window : end] for end in ends], y[ends + ahead - 1], week)

    said = "PM2.5 in Beijing 6 hours ahead by 24 hours of weather, later years asked"
    return Problem("pm25", said, "number", False, part(0, edge), part(edge, len(values)))


def _names() -> Problem:
    with gzip.open(sets.folder("names") / "names.tsv.gz", "rt") as file:
        rows = sorted({tuple(line.rstrip("\n").split("\t")) for line in file})
    languages = sorted({row[0] for row in rows})
    whole = Part([list(row[1]) for row in rows], np.array([languages.index(row[0]) for row in rows]))
    held = np.random.default_rng(18).permutation(len(rows)) < len(rows) // 5
    parts = [whole.take(np.flatnonzero(own)) for own in (~held, held)]
    return Problem("names", "18 languages by the letters of a surname", "class", True, *parts)


def _snips() -> Problem:
    labels: list[str] = []

    def part(*names: str) -> Part:
        x, y = [], []
        for name in names:
            for line, label in zip(
                _lines("nlu", f"snips.{name}.seq.in"), _lines("nlu", f"snips.{name}.label"), strict=True
            ):
                labels.extend([label] if label not in labels else [])
                x.append(line.split())
                y.append(labels.index(label))
        return Part(x, np.array(y))

    return Problem("snips", "7 intents of spoken requests", "class", True, part("train", "valid"), part("test"))


def _sst2() -> Problem:
    def part(*names: str) -> Part:
        rows = [line.split(" ", 1) for name in names for line in _lines("sent_cls", f"stsa.binary.{name}")]
        return Part([row[1].split() for row in rows], np.array([int(row[0]) for row in rows]))

    return Problem(
        "sst-2", "praise or blame in sentences about films", "class", True, part("train", "dev"), part("test")
    )


def _lines(folder: str, name: str) -> Iterator[str]:
    with gzip.open(sets.folder(folder) / f"{name}.gz", "rt", encoding="latin-1") as file:
        for line in file:
            if line.strip():
                yield line.strip()


def generated(seed: int = 0) -> Problem:
    """Two classes: does a bump come before or after a dip; for tests, and where there are no data."""
    rng = np.random.default_rng(seed)

    def part(count: int) -> Part:
        y = rng.integers(0, 2, count)
        x = []
        for label in y:
            row = rng.normal(0, 0.3, (int(rng.integers(12, 17)), 2))
            first, second = np.sort(rng.choice(np.arange(1, 11), 2, replace=False))
            row[first, 0] += 3.0 if label else -3.0
            row[second, 0] -= 3.0 if label else -3.0
            x.append(row)
        return Part(x, y)

    return Problem("generated", "is the bump before the dip", "class", False, part(400), part(400))


LOADERS: dict[str, Callable[[], Problem]] = {
    "japanese-vowels": _japanese_vowels,
    "digits": _digits,
    "skeletons": _skeletons,
    "engines": _engines,
    "pm25": _pm25,
    "names": _names,
    "snips": _snips,
    "sst-2": _sst2,
}
