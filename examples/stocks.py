"""Stocks, honestly: tomorrow's volatility can be forecast, tomorrow's direction hardly; naive rows beside both.

With CAROUSEL_DATA set the S&P 500 of 1999 to 2018, otherwise a generated market whose calm and storm take turns.
"""

import os
from pathlib import Path

import numpy as np
import polars as pl

from carousel import Forecaster, TrainConfig
from carousel.evaluate import evaluate
from carousel.inputs.table import read_table

path = Path(os.environ.get("CAROUSEL_DATA", "")) / "stocks_index" / "sp500.csv.gz"
if path.exists():
    prices = pl.read_csv(path).with_columns(pl.col("Date").str.to_date("%m/%d/%Y").alias("day"))
else:
    rng, storm, close = np.random.default_rng(0), np.zeros(900), np.ones(900)
    for k in range(1, 900):  # GARCH-like: yesterday's storm lasts
        storm[k] = 0.9 * storm[k - 1] + 0.3 * rng.normal()
        close[k] = close[k - 1] * np.exp(0.01 * np.exp(storm[k]) * rng.normal())
    spread = 1 + 0.006 * np.exp(storm + 0.3 * rng.normal(size=900))
    days = np.busday_offset("2015-01-01", np.arange(900))
    prices = pl.DataFrame({"day": days, "Close": close, "High": close * spread, "Low": close / spread})
table = prices.select("day", vol=(pl.col("High") / pl.col("Low")).log(), change=pl.col("Close").log().diff())[1:]

cut = table["day"][int(0.8 * table.height)]
quick = TrainConfig(steps=150, hidden_size=32, batch_size=64)  # leave it out for real use
model = Forecaster(1, time="day", target=["vol", "change"], config=quick).fit(table.filter(pl.col("day") <= cut))
found = evaluate(model, table, stride=1)
print(found.markdown(), found.verdict(), sep="\n\n")

series = read_table(table, model.config_.input.roles, grid=model.config_.input.grid)
truth = series.target[1:, 1]
later = np.flatnonzero((series.time[1:] > np.datetime64(cut, "s").astype(float)) & np.isfinite(truth))
said = model.quantiles_at(series, later)[:, 0, 1, 3] > 0  # is the median change above zero?
right, up = np.mean(said == (truth[later] > 0)), np.mean(truth[later] > 0)
print(f"direction: right on {right:.1%} of {len(later)} days; always saying up is right on {up:.1%}")
