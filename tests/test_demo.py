"""The demo's story with a quick training; its figures are those of `make demo`."""

from __future__ import annotations

import json
import struct

import numpy as np
import polars as pl
import pytest

from carousel import cli, demo, modelfile, plots
from carousel.errors import CarouselError
from carousel.evaluate import backtest, rolling_origins
from carousel.inputs.files import read_file
from carousel.inputs.table import Roles, read_table
from carousel.train import TrainConfig

QUICK = TrainConfig(steps=3, warmup=1, hidden_size=4, width=4, batch_size=8)


def size_of(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


def test_the_data_are_the_weeks_with_their_gaps():
    frame = demo.co2()
    assert frame.schema == {"week": pl.Date, "co2": pl.Float64}
    assert (len(frame), frame["co2"].null_count()) == (2284, 59)
    assert set(np.diff(frame["week"].to_numpy()).astype(int)) == {7}
    assert frame["co2"][0] == 316.1


def test_the_baselines_of_the_demo_are_these():
    series = read_table(demo.co2(), Roles(None, "week", ("co2",)))
    origins = rolling_origins(series, 52, since=float(series.time[-260]), stride=demo.STRIDE)
    found = backtest(
        series,
        lambda s, o: np.full((len(o), 52, 1, 3), 370.0),
        origins,
        horizon=52,
        quantiles=(0.05, 0.5, 0.95),
        season=52,
    )
    mase = {row.model: round(row.mase, 3) for row in found.rows}
    assert mase["last value"] == 2.016
    assert mase["seasonal naive"] == 1.354
    assert mase["seasonal naive with drift"] == 0.619
    assert mase["linear autoregression"] == pytest.approx(0.426, abs=0.002)


def test_the_demo_writes_model_data_and_picture_and_tells_what_is_next(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "HORIZON", 9)
    told: list[str] = []
    found = demo.run(tmp_path / "new", say=told.append, config=QUICK)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["co2.csv", "co2.safetensors", "forecast.png"]
    assert size_of((tmp_path / "new" / "forecast.png").read_bytes()) == (1920, 1080)
    assert read_file(tmp_path / "new" / "co2.csv").equals(demo.co2())
    _, document = modelfile.read(tmp_path / "new" / "co2.safetensors")
    assert document["provenance"]["rows"] == 2284 - 260
    assert document["model"]["input"]["horizon"] == 9
    assert (found["horizon"], found["season"], found["origins"]) == (9, 52, 63)
    assert found["points"] == 63 * 9  # none of the last five years is missing
    assert found["notes"] == ()
    assert "2,284 weeks, 59 of them missing" in told[0]
    assert "Next:\n  carousel predict" in told[-1]
    assert " linear autoregression " in capsys.readouterr().out


def test_the_demo_as_json_and_in_a_place_that_cannot_be(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "run", lambda out, say: {"out": str(out), "say": say})
    assert cli.run(["demo", "--json", "--out", "here"]) == 0
    assert json.loads(capsys.readouterr().out) == {"out": "here", "say": None}
    monkeypatch.undo()
    (tmp_path / "file").write_text("in the way")
    assert cli.run(["demo", "--out", str(tmp_path / "file")]) == 2
    assert "file: the folder cannot be made (File exists); name another --out." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("history", "quantiles"), [(None, (0.05, 0.5, 0.95)), (30, (0.5,)), (20, (0.1, 0.25, 0.5, 0.75))]
)
def test_pictures_of_series_with_gaps_at_any_place(history, quantiles, tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=60)
    truth[[0, 17, 18, 59]] = np.nan
    plots.forecast_picture(
        tmp_path / "p.png",
        time=np.arange(60),
        truth=truth,
        origin=54,
        ahead=np.arange(55, 62),
        forecast=np.sort(rng.normal(size=(7, len(quantiles)))),
        quantiles=quantiles,
        title="Title",
        history=history,
    )
    assert size_of((tmp_path / "p.png").read_bytes()) == (1920, 1080)
    with pytest.raises(CarouselError, match="cannot be written"):
        plots.forecast_picture(
            tmp_path / "no" / "p.png",
            time=np.arange(60),
            truth=truth,
            origin=54,
            ahead=np.arange(55, 57),
            forecast=np.zeros((2, 1)),
            quantiles=(0.5,),
            title="Title",
        )
