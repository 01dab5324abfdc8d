"""The protocols of the forecasting sets: windows, naive forecasts and metrics, on small tables and on the real ones."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from carousel.bench import accuracy, accuracy_forecast
from carousel.inputs.table import Roles, read_table


def model(long: pl.DataFrame) -> Any:
    roles = Roles("channel", "date", ("y",))
    grid = read_table(long, roles).grid
    return SimpleNamespace(config_=SimpleNamespace(input=SimpleNamespace(roles=roles, grid=grid, stamps=True)))


def test_windows_are_the_rows_before_each_forecast_and_nothing_else() -> None:
    hours = [datetime(2024, 1, 1) + timedelta(hours=k) for k in range(400)]
    parts = [pl.DataFrame({"channel": c, "date": hours, "y": 1000.0 * n + np.arange(400)}) for n, c in enumerate("ab")]
    long = pl.concat(parts)
    windows, truth = accuracy_forecast._windows(model(long), long, 200, 300)
    assert len(windows.ids) == len(truth) == 2 * 5
    past = windows.target[:, 0].reshape(-1, 96)
    np.testing.assert_array_equal(past[0], np.arange(104, 200))
    np.testing.assert_array_equal(truth[0], np.arange(200, 296))
    np.testing.assert_array_equal(past[-1], 1000 + np.arange(108, 204))
    np.testing.assert_array_equal(truth[:, 0], past[:, -1] + 1)


def test_naive_forecasts_equal_a_search_hour_by_hour() -> None:
    rng = np.random.default_rng(0)
    y = np.where(rng.random(200) < 0.3, np.nan, rng.normal(size=200))
    origins = np.arange(30, 190)
    for hours in (1, 24):
        made = accuracy_forecast._naive(y, origins, hours)
        for k, origin in enumerate(origins):
            at = origin + 1 - hours
            while np.isnan(y[at]):
                at -= 1
            assert made[k] == y[at]


def test_mase_of_a_case_worked_by_hand() -> None:
    frame = pl.DataFrame({"id": list("aaaabbbb"), "y": [1.0, 2, 4, 7, 0, 10, 0, 10]})
    made, truth = np.array([[5.0, 5], [1, 1]]), np.array([[7.0, 8], [2, 4]])
    assert accuracy_forecast.mase(made, truth, frame, 1) == pytest.approx((2.5 / 2 + 2 / 10) / 2)


def test_every_forecasting_set_is_in_the_registry() -> None:
    known = [place for place in accuracy.SETS.values() if "accuracy_forecast" in place]
    assert len(known) == 5
    assert all(hasattr(accuracy_forecast, place.partition(":")[2]) for place in known)


@pytest.mark.skipif(
    not (Path(os.environ.get("CAROUSEL_DATA", "")) / "m4").is_dir(), reason="CAROUSEL_DATA does not lead to m4/"
)
def test_the_seasonal_naive_row_is_the_published_one() -> None:
    frame, truth = accuracy_forecast.m4("hourly")
    history = [part["y"].to_numpy() for part in frame.partition_by("id", maintain_order=True)]
    naive = np.stack([np.resize(y[-24:], 48) for y in history])
    assert accuracy_forecast.mase(naive, truth, frame, 24) == pytest.approx(1.193, abs=5e-4)
    assert accuracy_forecast._smape(naive, truth) == pytest.approx(13.912, abs=5e-4)
    early, held_out = accuracy_forecast.m4("hourly", "valid")
    assert len(early) == len(frame) - 414 * 48
    np.testing.assert_array_equal(held_out[0], history[0][-48:])
