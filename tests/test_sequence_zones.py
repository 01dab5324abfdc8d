"""Models of sequences keep their time zone: moments count, and not the clock that they are written by."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from carousel import Classifier, DataError, Detector, Stream, Tagger
from carousel.estimators import load
from carousel.train import TrainConfig

BERLIN, TOKYO = "Europe/Berlin", "Asia/Tokyo"
QUICK = TrainConfig(steps=3, least_steps=3, hidden_size=4, warmup=1, refit=False, threads=1)


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    """Five weeks of two-hourly rows of four rooms over a change of the clocks, by Berlin's."""
    rng = np.random.default_rng(0)
    start = datetime(2024, 3, 11, tzinfo=ZoneInfo("UTC"))
    times = pl.Series([start + timedelta(hours=2 * k) for k in range(420)]).dt.convert_time_zone(BERLIN)
    parts = [
        pl.DataFrame(
            {"room": k, "time": times, "heat": rng.normal(size=420), "busy": (times.dt.hour() > 8).cast(pl.Int64)}
        )
        for k in range(4)
    ]
    return pl.concat(parts)


def fitted(kind: str, frame: pl.DataFrame) -> Tagger | Classifier | Detector:
    names = {"id": "room", "time": "time", "features": ["heat"], "config": QUICK}
    if kind == "tag":
        return Tagger("busy", **names).fit(frame)
    if kind == "detect":
        return Detector(**names).fit(frame)
    return Classifier("kind", **names).fit(frame.with_columns((pl.col("room") % 2).alias("kind")))


@pytest.mark.parametrize("kind", ["tag", "classify", "detect"])
def test_moments_count_and_not_the_clock_they_are_written_by(kind: str, frame: pl.DataFrame, tmp_path: Path) -> None:
    model = fitted(kind, frame)
    assert model.config_.input.zone == BERLIN
    assert "hour_of_day" in model.config_.input.calendar
    model.save(tmp_path / "m.safetensors")
    model = load(tmp_path / "m.safetensors")
    tokyo = frame.with_columns(pl.col("time").dt.convert_time_zone(TOKYO))
    here, there = model.predict(frame), model.predict(tokyo)
    numbers = [name for name, dtype in here.schema.items() if dtype.is_float()]
    assert numbers
    for name in numbers:
        np.testing.assert_array_equal(here[name].to_numpy(), there[name].to_numpy())
    if kind != "classify":
        assert there["time"].dtype == tokyo["time"].dtype
    plain = frame.with_columns(pl.col("time").dt.replace_time_zone(None))
    with pytest.raises(DataError, match="trained on times in the time zone Europe/Berlin, these are without a time"):
        model.predict(plain)
    shifted = frame.with_columns(pl.col("time").dt.replace_time_zone(None).dt.replace_time_zone("UTC"))
    moved = model.predict(shifted)  # other moments, which must not look alike
    assert any((here[name].to_numpy() != moved[name].to_numpy()).any() for name in numbers)


def test_times_without_a_zone_stay_without(frame: pl.DataFrame) -> None:
    plain = frame.with_columns(pl.col("time").dt.replace_time_zone(None))
    model = fitted("tag", plain.unique(["room", "time"], keep="first", maintain_order=True))
    assert model.config_.input.zone is None
    with pytest.raises(DataError, match="trained on times without a time zone, these are in the time zone Europe"):
        model.predict(frame)


def test_a_stream_reads_any_zone_by_the_models_clock(frame: pl.DataFrame, tmp_path: Path) -> None:
    model = fitted("tag", frame)
    model.save(tmp_path / "m.safetensors")
    one = frame.filter(pl.col("room") == 2).head(40)
    wanted = model.predict(one)["p_1"].to_numpy()
    stamps = one["time"].to_list()
    for zone in (BERLIN, TOKYO, "UTC"):
        stream = Stream(tmp_path / "m.safetensors")
        found = [
            stream.push({"heat": heat}, time=stamp.astimezone(ZoneInfo(zone)))["p_1"]
            for heat, stamp in zip(one["heat"].to_list(), stamps, strict=True)
        ]
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    with pytest.raises(DataError, match="in the time zone Europe/Berlin, these are without a time zone"):
        Stream(tmp_path / "m.safetensors").push({"heat": 0.0}, time=datetime(2024, 5, 1))
    with pytest.raises(DataError, match="in the time zone Europe/Berlin, these are without a time zone"):
        Stream(tmp_path / "m.safetensors").push({"heat": 0.0}, time="2024-05-01 12:00:00")
