"""The measurement of training, on a small table: parts add up to steps, the process runs, others stand beside it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from carousel import CarouselError
from carousel.bench import fit
from carousel.bench.layer import Grid
from carousel.forecast_task import ForecastTask


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)  # a test is no measurement, and shall not wait for a second core
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rng, t = np.random.default_rng(0), np.arange(400)
    parts = [
        pl.DataFrame({"id": k, "t": t, "y": 5 + np.sin(t * np.pi / 12) + 0.1 * rng.normal(size=400)}) for k in "ab"
    ]
    parts = [part.with_columns(pl.col("y") + n) for n, part in enumerate(parts)]
    truth = np.stack([5 + n + np.sin(np.arange(400, 448) * np.pi / 12) for n in range(2)])
    monkeypatch.setattr(fit, "_table", lambda: (pl.concat(parts), truth))
    for name, value in {"MEASURED": 30, "WHOLE": 3, "LEARNT": 20, "PROCESSES": 1}.items():
        monkeypatch.setattr(fit, name, value)


def test_the_report_measures_steps_parts_a_process_and_what_was_learnt(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = fit._process(fit._table()[0], refit=False)
    monkeypatch.setattr(fit, "_process", lambda frame, refit: one)  # once is enough
    own = {name: getattr(ForecastTask, name) for name in ("batch", "loss", "metric")}
    found = fit.compare(Grid())
    assert all(getattr(ForecastTask, name) is method for name, method in own.items())
    name, step, busy, share, process, used, error = found.rows[0]
    assert name == "Carousel"
    assert 0.1 < step < process * 1e3
    assert busy > 0
    assert used > 0.5
    parts = [float(p.split()[-1]) for p in found.notes[0].split("ms: ")[1].split(";")[0].split(", ")]
    assert sum(parts) == pytest.approx(step, abs=0.02)
    assert share == f"{parts[0] / step:.0%}" or abs(parts[0] / step - float(share[:-1]) / 100) < 0.01
    assert 0 < error < 2
    assert [row[1] for row in found.rows[1:]] == [28.7, 8.1]
    assert found.summary["darts / Carousel, ms a step"] == pytest.approx(8.1 / step)


def test_other_sizes_are_refused() -> None:
    with pytest.raises(CarouselError, match="one setting"):
        fit.compare(Grid(hidden=(32,)))
