"""Load of a transformer station a day ahead with 90 % intervals, beside the naive forecasts.

With CAROUSEL_DATA set two years of a Chinese station (ETTh1), otherwise a generated town with a cold winter.
"""

import datetime as dt
import os
from pathlib import Path

import numpy as np
import polars as pl

from carousel import Forecaster, TrainConfig
from carousel.evaluate import evaluate, rows_until

path = Path(os.environ.get("CAROUSEL_DATA", "")) / "etth" / "ETTh1.csv.gz"
if path.exists():
    table = pl.read_csv(path, try_parse_dates=True).select(hour="date", load="HUFL", oil="OT")
else:
    rng, t = np.random.default_rng(0), np.arange(24 * 120)
    oil = (
        5 + 8 * np.cos(2 * np.pi * t / 24 / 365) - 4 * np.cos(2 * np.pi * t / 24) + rng.normal(size=len(t)).cumsum() / 9
    )
    load = 30 + 6 * np.sin(2 * np.pi * t / 24) + 4 * (t // 24 % 7 < 5) - 0.5 * oil + rng.normal(size=len(t))
    load[500:530] = np.nan  # the meter was down
    hours = pl.datetime_range(dt.datetime(2024, 1, 1), interval="1h", end=dt.datetime(2025, 1, 1), eager=True)
    table = pl.DataFrame({"hour": hours[: len(t)], "load": load, "oil": oil}).with_columns(
        pl.col("load").fill_nan(None)
    )

cut = table["hour"][int(0.8 * table.height)]
early = rows_until(table, "hour", str(cut))
quick = TrainConfig(steps=150, hidden_size=32, batch_size=64)  # leave it out for real use
model = Forecaster(24, time="hour", target="load", config=quick).fit(early)
found = evaluate(model, table, stride=24)
print(found.markdown(), found.verdict(), sep="\n\n")

tomorrow = model.predict(table)
print(tomorrow.select("hour", "forecast", "q0.05", "q0.95").head(6))
