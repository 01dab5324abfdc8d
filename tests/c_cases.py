"""Models of every kind that is exported to C, with random weights, and the files made of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from carousel.cell import CellSpec
from carousel.config import ModelConfig, StackConfig
from carousel.export import c
from carousel.export.c import (
    emit_int8,
    emit_int8_sequence,
    int8,
    int8_forecast,
    int8_sequence,
    record,
    record_sequence,
    reference,
    selftest,
)
from carousel.export.c.plan import plan
from carousel.heads.classify import ClassifyHead
from carousel.heads.detect import DetectHead, View
from carousel.heads.forecast import ForecastHead
from carousel.heads.tag import TagHead
from carousel.inputs.clock import Grid
from carousel.inputs.fitted import Column, TableInput
from carousel.inputs.roles import Roles
from carousel.inputs.sequence import Channel, SequenceInput

ROWS = Grid("even", 1.0)
EVERY = CellSpec(
    peephole=True,
    coupled=True,
    proj_size=4,
    layer_norm=True,
    cell_clip=1.0,
    zoneout_c=0.1,
    zoneout_h=0.1,
    decay=True,
)


def forecaster(
    *,
    cell: CellSpec = CellSpec(),
    layers: int = 1,
    hidden: int = 9,
    seeds: int = 1,
    targets: int = 1,
    covariates: bool = False,
    stamps: bool = False,
    seasons: tuple[int, ...] = (12,),
    context: int = 17,
    horizon: int = 5,
    level: Any = "mean",
    calendar: tuple[str, ...] = (),
    grid: Grid = ROWS,
    width: int = 11,
    quantiles: tuple[float, ...] = (0.05, 0.25, 0.5, 0.9),
) -> ModelConfig:
    some = (
        (Column("f", "number", 7.0, 3.0), Column("fc", "category", values=("a", "b"))),
        (Column("kn", "number", 0.1, 1.1), Column("kc", "category", values=("u", "v"))),
        (Column("sn", "number", 1.0, 2.0), Column("sc", "category", values=("p", "q", "*/ r"))),
    )
    features, known, static = some if covariates else ((), (), ())
    names = [tuple(column.name for column in part) for part in (features, known, static)]
    target = tuple(f"y{k}" for k in range(targets))
    roles = Roles(time="t", target=target, features=names[0], known=names[1], static=names[2])
    table = TableInput(roles, grid, stamps, context, horizon, seasons, level, calendar, features, known, static)
    factors = tuple(1.0 + 0.1 * abs(q - 0.5) for q in quantiles)
    head = ForecastHead(quantiles, width, factors)
    return ModelConfig("forecast", table, StackConfig(hidden, layers, 0.0, cell=cell), head, seeds)


def tagger(
    head: ClassifyHead | TagHead,
    *,
    cell: CellSpec = CellSpec(),
    layers: int = 1,
    hidden: int = 10,
    seeds: int = 1,
    uneven: bool = False,
    static: bool = False,
    categories: bool = False,
    gaps: bool = True,
    stamps: bool = False,
    calendar: tuple[str, ...] = (),
    time: str | None = "t",
    squash: float = 0.0,
) -> ModelConfig:
    heavy = Channel("b", "number", -0.1, 0.2, squash=squash) if squash else Channel("b", "number", -3.0, 4.0)
    columns: tuple[Channel, ...] = (Channel("a", "number", 2.0, 1.5, gaps=gaps), heavy)
    if categories:
        columns += (Channel("c", "category", values=("x", "y", "z")), Channel("hh", "hash", buckets=17))
    fixed = (Channel("age", "number", 50.0, 20.0, gaps=True), Channel("sex", "category", values=("f", "m")))
    fixed = fixed if static else ()
    roles = Roles(time=time, features=tuple(c.name for c in columns), static=tuple(c.name for c in fixed))
    unit = 1.0 if time is None else 3600.0 if stamps else 2.5
    table = SequenceInput(roles, stamps, uneven, unit, calendar, columns, fixed)
    task = "classify" if isinstance(head, ClassifyHead) else "tag"
    return ModelConfig(task, table, StackConfig(hidden, layers, 0.0, cell=cell), head, seeds)


def detector(reference: Any, **choices: Any) -> ModelConfig:
    """Two views of the errors, one of the values; the column a has gaps."""
    ready = tagger(TagHead("label", 0, ("n", "o")), **choices)
    correlation = ((1.0, 0.3), (0.3, 1.0))

    def view(of: Any, rows: int, centre: tuple[float, ...], spread: tuple[float, ...]) -> View:
        low, high = (tuple(c + side * s for c, s in zip(centre, spread, strict=True)) for side in (-1, 1))
        return View(of, rows, centre, spread, correlation, low, high, 2.5, 1.5)

    views = (
        view("error", 1, (0.1, -0.1), (1.1, 0.9)),
        view("error", 3, (0.0, 0.0), (0.7, 0.6)),
        view("value", 2, (2.0, -3.0), (1.5, 4.0)),
    )
    head = DetectHead(
        "forecast",
        ("a", "b"),
        5,
        reference=reference,
        rest=3,
        threshold=0.9,
        floor=(0.3, 0.4),
        views=views,
        keep=(0.9, 1.0),
    )
    return dataclasses.replace(ready, task="detect", head=head)


CLASSES = ("k0", "k1", "k2", "k3")
WAVES = ("minute_of_hour", "hour_of_day", "day_of_week", "day_of_month", "day_of_year")

FORECASTERS = {
    "plain": forecaster(),
    "every": forecaster(cell=EVERY, layers=2),
    "ensemble": forecaster(cell=CellSpec(peephole=True, bias=False), layers=3, seeds=3, seasons=(5, 12)),
    "covariates": forecaster(targets=2, covariates=True),
    "bare": forecaster(targets=2, covariates=True, seasons=(), level="last"),
    "uneven": forecaster(targets=2, seasons=(), covariates=True, cell=CellSpec(decay=True), grid=Grid("uneven", 2.5)),
    "hours": forecaster(stamps=True, grid=Grid("even", 3600.0), calendar=WAVES),
    "business": forecaster(stamps=True, grid=Grid("business", 1.0), calendar=WAVES[2:]),
    "month": forecaster(stamps=True, grid=Grid("month", 1.0), calendar=WAVES[4:], layers=2, seasons=(2,)),
    "month_end": forecaster(stamps=True, grid=Grid("month_end", 3.0), calendar=WAVES[3:]),
}
SEQUENCES = {
    "tags": tagger(TagHead("label", 0, ("n", "o", "p"))),
    "warning": tagger(
        TagHead("event", 12, ahead=3.0, threshold=0.4, temperature=1.3),
        uneven=True,
        cell=CellSpec(decay=True),
        static=True,
    ),
    "numbers": tagger(
        TagHead("regression", 7, mean=50.0, scale=30.0, errors=(-3.0, 4.0)),
        categories=True,
        static=True,
        layers=2,
        seeds=2,
        cell=CellSpec(layer_norm=True, peephole=True, proj_size=4, zoneout_h=0.1, zoneout_c=0.1),
    ),
    "calendar": tagger(
        TagHead("label", 0, ("n", "o")), stamps=True, calendar=WAVES, uneven=True, squash=5.0, gaps=False
    ),
    "last": tagger(ClassifyHead("label", "last", 0, CLASSES), time=None, gaps=False),
    "mean": tagger(ClassifyHead("label", "mean", 8, CLASSES, temperature=0.7), categories=True, time=None),
    "max": tagger(ClassifyHead("regression", "max", 0, mean=2.0, scale=3.0, errors=(-1.0, 1.0)), seeds=2),
    "attention": tagger(ClassifyHead("label", "attention", 6, CLASSES), static=True, cell=CellSpec(coupled=True)),
}
DETECTORS = {"odd": detector("training", seeds=2), "odder": detector("history", static=True, uneven=True)}
# The setting that docs/edge.md recommends for a small device.
SMALL = forecaster(hidden=32, width=16, context=24, horizon=12, seasons=(12,), quantiles=(0.05, 0.5, 0.95))


def weights(config: ModelConfig, seed: int = 0) -> dict[str, Any]:
    """Random, of about the size that trained ones have."""
    rng = np.random.default_rng(seed)
    size = {name: 0.8 / np.sqrt(max(4, shape[-1])) for name, shape in config.shapes().items()}
    return {n: rng.normal(0, size[n], s).astype(np.float32) for n, s in config.shapes().items()}


def float_files(name: str, config: ModelConfig) -> dict[str, str]:
    return c.files(name, config, weights(config))[0]


def int8_files(name: str, config: ModelConfig) -> dict[str, str]:
    """In integers, scaled by made-up rows."""
    ready, ranges = plan(name, config, weights(config)), reference.Ranges()
    table: Any = config.input
    if isinstance(table, TableInput):
        recorded = record.recording(record.synthetic(table), table)
        reference.forecast(ready, recorded.windows, ranges)
        whole = int8.quantised(ready, recorded.rows, ranges)
        expected = int8_forecast.forecast(whole, recorded.rows, recorded.origins).astype(np.int32)
        header, source = emit_int8.source(whole)
        test = selftest.forecast_test(ready, recorded, expected, int8.raw_rows(whole, recorded.rows))
    else:
        pushed = record_sequence.synthetic(table)
        reference.sequence(ready, pushed.channels(table), ranges)
        model = int8_sequence.quantised(ready, pushed, ranges)
        answers = int8_sequence.answers(model, pushed).astype(np.int32)
        header, source = emit_int8_sequence.source(model)
        test = selftest.sequence_test(ready, pushed, answers, int8_sequence.raw_rows(model, pushed))
    return {f"{name}.h": header, f"{name}.c": source, f"{name}_test.c": test}
