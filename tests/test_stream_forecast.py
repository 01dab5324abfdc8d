"""Streams of forecasters against `Forecaster.predict` on the rows so far: grids with holes, uneven clocks, zones, known
columns, several targets, seasons longer than what was pushed."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from carousel import Forecaster
from carousel.cell import CellSpec
from carousel.config import ModelConfig, StackConfig
from carousel.errors import CarouselError, DataError
from carousel.heads.forecast import DEFAULT_QUANTILES, ForecastHead
from carousel.inputs.clock import Grid
from carousel.inputs.fitted import Column, TableInput
from carousel.inputs.roles import Roles
from carousel.stream import Stream
from stream_cases import write

HOUR = 3600.0
FACTORS = (1.3, 1.2, 1.1, 1.0, 1.1, 1.2, 1.3)


def config(grid: Grid, *, stamps: bool = False, rich: bool = False, targets: int = 1, seeds: int = 1) -> ModelConfig:
    features = (Column("heat", "number", 10.0, 4.0), Column("kind", "category", values=("a", "b"))) if rich else ()
    known = (Column("price", "number", 3.0, 1.5), Column("day", "category", values=("free", "work"))) if rich else ()
    static = (Column("size", "number", 5.0, 2.0), Column("city", "category", values=("Bonn", "Rome"))) if rich else ()
    names = ("y", "z")[:targets]
    roles = Roles(None, "t", names, *(tuple(c.name for c in part) for part in (features, static, known)))
    seasons = () if grid.kind == "uneven" else (3, 12)
    calendar = ("hour_of_day", "day_of_week") if stamps else ()
    table = TableInput(
        roles, grid, stamps, 14, 5, seasons, "mean" if rich else "last", calendar, features, known, static
    )
    cell = CellSpec(decay=grid.kind == "uneven", layer_norm=rich)
    head = ForecastHead(DEFAULT_QUANTILES, 7, FACTORS)
    return ModelConfig("forecast", table, StackConfig(9, 2 if rich else 1, 0.0, cell), head, seeds)


def wave(count: int, seed: int = 0, holes: float = 0.2) -> Any:
    rng = np.random.default_rng(seed)
    y = 50 + 10 * np.sin(np.arange(count) / 2) + rng.normal(size=count)
    return [None if k > 0 and k < count - 1 and rng.random() < holes else float(v) for k, v in enumerate(y)]


def compare(
    path: Path, rows: list[dict[str, Any]], schema: Any = None, *, least: int = 3, streamed: Path | None = None
) -> None:
    """After each row what predict says of the rows so far."""
    model, stream = Forecaster.load(path), Stream(streamed or path)
    for k, row in enumerate(rows):
        found = stream.push(row)
        if k + 1 < least:
            continue
        table = model.predict(pl.DataFrame(rows[: k + 1], schema=schema))
        assert list(found) == table.columns
        for name in table.columns:
            expected = table[name].to_list()
            if name in ("forecast", *(f"q{q:g}" for q in DEFAULT_QUANTILES)):
                np.testing.assert_allclose(found[name], expected, rtol=2e-6, atol=2e-6, err_msg=f"row {k}, {name}")
            else:
                assert list(found[name]) == expected


def test_an_even_grid_with_holes_and_absent_rows(tmp_path: Path) -> None:
    path = write(config(Grid("even", 2.0), seeds=2), tmp_path)
    y = wave(70)
    rows = [{"t": 2.0 * k + 7, "y": v} for k, v in enumerate(y) if k not in (4, 20, 21, 22, 50)]
    compare(path, rows[:40], {"t": pl.Float64, "y": pl.Float64}, least=4)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: replace(c, input=replace(c.input, level="mean")),
        lambda c: replace(c, input=replace(c.input, seasons=(4, 12))),
        lambda c: replace(c, input=replace(c.input, seasons=(12, 3))),
        lambda c: replace(c, head=replace(c.head, factors=FACTORS[::-1][:3] + FACTORS[3:6] + (1.0,))),
        lambda c: replace(c, stack=replace(c.stack, cell=CellSpec(cell_clip=0.05))),
    ],
)
def test_the_comparison_tells_another_model(tmp_path: Path, change: Any) -> None:
    true = config(Grid("even", 2.0))
    path, other = write(true, tmp_path), write(change(true), tmp_path / "other")
    rows = [{"t": 2.0 * k + 7, "y": v} for k, v in enumerate(wave(30))]
    compare(path, rows, {"t": pl.Float64, "y": pl.Float64}, least=29)
    with pytest.raises(AssertionError):
        compare(path, rows, {"t": pl.Float64, "y": pl.Float64}, least=29, streamed=other)


def test_a_gap_longer_than_a_window(tmp_path: Path) -> None:
    path = write(config(Grid("even", 1.0)), tmp_path)
    y = wave(60, 3, 0.0)
    rows = [{"t": k if k < 30 else k + 90, "y": v} for k, v in enumerate(y)]
    compare(path, rows[:45], {"t": pl.Int64, "y": pl.Float64})


def test_a_target_not_seen_for_longer_than_a_window(tmp_path: Path) -> None:
    path = write(config(Grid("even", 1.0), targets=2), tmp_path)
    z = wave(60, 4)
    rows = [{"t": k, "y": float(k % 5) if k < 12 else None, "z": v} for k, v in enumerate(z)]
    compare(path, rows, {"t": pl.Int64, "y": pl.Float64, "z": pl.Float64}, least=6)


def test_an_uneven_clock(tmp_path: Path) -> None:
    path = write(config(Grid("uneven", 1.5)), tmp_path)
    at = np.cumsum(np.random.default_rng(1).exponential(1.5, 40))
    compare(path, [{"t": float(t), "y": v} for t, v in zip(at, wave(40), strict=True)], least=4)


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_timestamps_with_a_calendar_over_a_change_of_the_clocks(tmp_path: Path, zone: str | None) -> None:
    path = write(config(Grid("even", HOUR, zone=zone), stamps=True), tmp_path)
    begin = datetime(2024, 3, 30, 12)
    info = None if zone is None else ZoneInfo(zone)
    at = [begin + timedelta(hours=k) for k in range(30)]
    if info is not None:
        at = [t.replace(tzinfo=ZoneInfo("UTC")).astimezone(info) for t in at]
    rows = [{"t": t, "y": v} for t, v in zip(at, wave(30, 2), strict=True)]
    compare(path, rows, {"t": pl.Datetime("us", zone), "y": pl.Float64}, least=4)


def test_months(tmp_path: Path) -> None:
    path = write(config(Grid("month", 1.0), stamps=True), tmp_path)
    rows = [{"t": datetime(2020 + k // 12, k % 12 + 1, 1), "y": v} for k, v in enumerate(wave(30, 5)) if k != 9]
    compare(path, rows, {"t": pl.Datetime("us"), "y": pl.Float64}, least=4)


def test_days_by_the_wall_clock(tmp_path: Path) -> None:
    zone = "Europe/Berlin"
    path = write(config(Grid("even", 24 * HOUR, wall=True, zone=zone), stamps=True), tmp_path)
    days = [datetime(2024, 3, 20, tzinfo=ZoneInfo(zone)) + timedelta(days=k) for k in range(24)]
    rows = [{"t": t, "y": v} for t, v in zip(days, wave(24, 6), strict=True)]
    compare(path, rows, {"t": pl.Datetime("us", zone), "y": pl.Float64}, least=4)
    stream = Stream(path)
    with pytest.raises(DataError, match="in the time zone Europe/Berlin, this is without a time zone"):
        stream.push({"t": datetime(2024, 3, 20), "y": 1.0})


def rich_rows(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(8)
    return [
        {
            "t": k,
            "y": v,
            "heat": None if rng.random() < 0.3 else float(rng.normal(10, 4)),
            "kind": str(rng.choice(["a", "b", "c"])),
            "price": float(rng.normal(3, 1)),
            "day": str(rng.choice(["free", "work"])),
            "size": 6.5,
            "city": "Rome",
        }
        for k, v in enumerate(wave(count, 9))
    ]


def test_covariates_known_ahead(tmp_path: Path) -> None:
    path = write(config(Grid("even", 1.0), rich=True), tmp_path)
    rows = rich_rows(36)
    model, stream = Forecaster.load(path), Stream(path)
    for k, row in enumerate(rows[:-5]):
        following = rows[k + 1 : k + 6]
        assert stream.push(row, ahead=following if k % 3 == 0 else None) == {} or k % 3 == 0
        if k < 4 or k % 3:
            continue
        again = Stream(path)
        again.restore(stream.state())
        table = model.predict(
            pl.DataFrame(rows[: k + 1]), pl.DataFrame([{n: r[n] for n in ("t", "price", "day")} for r in following])
        )
        twin = Stream(path)
        for j, earlier in enumerate(rows[: k + 1]):
            found = twin.push(earlier, ahead=following if j == k else None)
        np.testing.assert_allclose(found["q0.9"], table["q0.9"].to_numpy(), rtol=2e-6)
        assert again.state() == stream.state()


def test_chunks_and_restarts_change_no_bit(tmp_path: Path) -> None:
    path = write(config(Grid("even", 1.0)), tmp_path)
    rows = [{"t": k, "y": v} for k, v in enumerate(wave(40))]
    whole = Stream(path).push_many(rows)
    stream, found, at = Stream(path), [], 0
    for size in (3, 20, 17):
        found += stream.push_many(rows[at : at + size])
        at += size
        state = stream.state()
        stream = Stream(path)
        stream.restore(state)
    for a, b in zip(found, whole, strict=True):
        for name in a:
            assert np.array_equal(a[name], b[name], equal_nan=name != "t")
    assert np.isnan(whole[0]["forecast"]).all()  # one value tells no spread


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"t": 2.5, "y": 1.0}, "does not lie on the even grid"),
        ({"t": 1.0, "y": 1.0}, "lies before"),
        ({"t": 2.0, "y": 1.0}, "is that of the row before"),
        ({"t": 1e9, "y": 1.0}, "steps ahead"),
        ({"t": 3.0}, "'y' is missing"),
        ({"t": 3.0, "y": 1.0, "w": 2}, "'w' is unknown"),
        ({"t": 3.0, "y": float("inf")}, "infinite"),
        ({"t": 3.0, "y": "text"}, "is text"),
        ({"t": None, "y": 1.0}, "time is missing"),
        ({"t": "2024-01-01", "y": 1.0}, "held numbers"),
        ({"y": 1.0}, "time is missing"),
        ([1.0, 2.0], "make a row"),
        (np.zeros((2, 2)), "a row is a mapping"),
    ],
)
def test_refused_rows_change_nothing(tmp_path: Path, row: Any, words: str) -> None:
    stream = Stream(write(config(Grid("even", 1.0)), tmp_path))
    for k, v in enumerate(wave(3, holes=0.0)):
        stream.push({"t": float(k), "y": v})
    before = stream.state()
    with pytest.raises(DataError, match=words):
        stream.push(row)
    with pytest.raises(CarouselError):
        stream.push_many([{"t": 3.0, "y": 1.0}, row])
    assert stream.state() == before


def test_ahead_of_the_wrong_length(tmp_path: Path) -> None:
    stream = Stream(write(config(Grid("even", 1.0), rich=True), tmp_path))
    rows = rich_rows(8)
    with pytest.raises(DataError, match="all 5 steps"):
        stream.push(rows[0], ahead=rows[1:4])
    gone = [row | {"price": None} for row in rows[1:6]]
    with pytest.raises(DataError, match="step 1 ahead: there is no 'price'"):
        stream.push(rows[0], ahead=gone)
    assert stream.rows == 0
    stream.push(rows[0])
    with pytest.raises(DataError, match="may not change"):
        stream.push(rows[1] | {"city": "Bonn"})
    plain = Stream(write(config(Grid("even", 1.0)), tmp_path, 4))
    with pytest.raises(DataError, match="without known columns"):
        plain.push({"t": 0, "y": 1.0}, ahead=[{}] * 5)
