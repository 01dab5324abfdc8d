"""Models with random weights and rows for them: what streams are compared on needs no training."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from carousel.cell import CellSpec
from carousel.config import ModelConfig, StackConfig
from carousel.heads.classify import ClassifyHead
from carousel.heads.detect import DetectHead, View
from carousel.heads.tag import TagHead
from carousel.inputs.roles import Roles
from carousel.inputs.sequence import Channel, SequenceInput
from carousel.stream.examples import model_file

NUMBERS = (
    Channel("pulse", "number", mean=80.0, scale=12.0, gaps=True),
    Channel("pressure", "number", mean=0.2, scale=0.4, squash=30.0, gaps=True),
    Channel("steps", "number", mean=3.0, scale=2.0),
)
CATEGORIES = (
    Channel("ward", "category", values=("east", "north", "west")),
    Channel("terminal", "hash", buckets=7, gaps=True),
)
STATIC = (
    Channel("age", "number", mean=50.0, scale=20.0, gaps=True),
    Channel("sex", "category", values=("f", "m")),
)
START = datetime(2024, 3, 1)


def rich_input(*, stamps: bool = True) -> SequenceInput:
    """Every kind of column, an uneven clock, and a calendar where times are timestamps."""
    columns = (NUMBERS[0], CATEGORIES[0], NUMBERS[1], CATEGORIES[1], NUMBERS[2])
    roles = Roles(
        id="who",
        time="when",
        target=("truth",),
        features=tuple(c.name for c in columns),
        static=tuple(c.name for c in STATIC),
    )
    calendar = ("hour_of_day", "day_of_week") if stamps else ()
    return SequenceInput(roles, stamps, True, 600.0, calendar, columns, STATIC)


def plain_input(inputs: int = 3) -> SequenceInput:
    columns = tuple(Channel(f"x{k}", "number", mean=0.1 * k, scale=1.5) for k in range(inputs))
    return SequenceInput(Roles(features=tuple(c.name for c in columns)), False, False, 1.0, (), columns, ())


def decaying(hidden: int = 13) -> StackConfig:
    cell = CellSpec(decay=True, peephole=True, proj_size=6, cell_clip=2.0, zoneout_c=0.1, zoneout_h=0.05)
    return StackConfig(hidden, 2, 0.1, cell)


def classifier(pooling: str, *, kind: str = "label", width: int = 0, seeds: int = 1, rich: bool = True) -> ModelConfig:
    classes = ("calm", "ill", "worse") if kind == "label" else ()
    head = ClassifyHead(
        kind,
        pooling,
        width,
        classes,
        temperature=1.7,
        mean=4.0,
        scale=2.5,
        errors=(-1.25, 2.0),  # type: ignore[arg-type]
    )
    stack = decaying() if rich else StackConfig(9)
    return ModelConfig("classify", rich_input() if rich else plain_input(), stack, head, seeds)


def tagger(kind: str = "label", *, width: int = 5, seeds: int = 2, stamps: bool = True) -> ModelConfig:
    classes = ("0", "1", "2") if kind == "label" else ()
    more: dict[str, Any] = {"ahead": 3600.0, "threshold": 0.5} if kind == "event" else {}
    head = TagHead(kind, width, classes, "integer", 0.8, 1.0, 3.0, errors=(-0.5, 0.75), **more)  # type: ignore[arg-type]
    return ModelConfig("tag", rich_input(stamps=stamps), decaying(), head, seeds)


def detector(reference: str = "training", *, seeds: int = 1) -> ModelConfig:
    columns = ("pulse", "pressure", "steps")
    near = tuple(tuple(1.0 if i == j else 0.3 for j in range(3)) for i in range(3))

    def view(of: str, rows: int, limit: float) -> View:
        centre, spread = ((0.1, 0.0, -0.1), (1.2, 0.9, 1.1)) if of == "error" else ((80.0, 5.0, 4.0), (12.0, 40.0, 2.0))
        low, high = ((-2.0,) * 3, (2.0,) * 3) if of == "error" else ((70.0, -20.0, 2.0), (90.0, 30.0, 6.0))
        return View(of, rows, centre, spread, near, low, high, limit, 1.5)  # type: ignore[arg-type]

    views = (view("error", 1, 2.0), view("error", 4, 1.5), view("value", 3, 1.6))
    rest = 3 if reference == "history" else 0
    head = DetectHead(
        "forecast",
        columns,
        4,
        reference=reference,
        rest=rest,
        floor=(0.05,) * 3,
        views=views,  # type: ignore[arg-type]
    )
    return ModelConfig("detect", rich_input(), decaying(), head, seeds)


def write(config: ModelConfig, folder: Path, seed: int = 3) -> Path:
    folder.mkdir(exist_ok=True)
    return model_file(config, folder / f"{config.task}-{seed}.safetensors", seed)


def rich_rows(count: int, seed: int = 1, *, who: str = "a", stamps: bool = True) -> list[dict[str, Any]]:
    """Rows with gaps, categories never seen in training, values far out, equal times."""
    rng = np.random.default_rng(seed)
    age, sex = float(rng.integers(20, 90)), str(rng.choice(["f", "m", "x"]))
    rows, at = [], 0
    for _ in range(count):
        at += int(rng.choice([0, 300, 600, 4000]))
        rows.append(
            {
                "who": who,
                "when": START + timedelta(seconds=at) if stamps else float(at),
                "pulse": None if rng.random() < 0.3 else float(rng.normal(80, 15)),
                "ward": rng.choice([None, "east", "west", "south"]),
                "pressure": None if rng.random() < 0.4 else float(rng.standard_cauchy() * 50),
                "terminal": rng.choice([None, "t1", "t2", "terminal nine"]),
                "steps": float(rng.integers(0, 9)),
                "age": age,
                "sex": sex,
            }
        )
    return rows


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    stamps = isinstance(rows[0]["when"], datetime)
    schema = {
        "who": pl.String,
        "when": pl.Datetime("us") if stamps else pl.Float64,
        "pulse": pl.Float64,
        "ward": pl.String,
        "pressure": pl.Float64,
        "terminal": pl.String,
        "steps": pl.Float64,
        "age": pl.Float64,
        "sex": pl.String,
    }
    return pl.DataFrame(rows, schema=schema)


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k not in names}


def changed(config: ModelConfig, **of_stack: Any) -> ModelConfig:
    return dataclasses.replace(config, stack=dataclasses.replace(config.stack, **of_stack))
