"""Forecast two shops' sales from a table with a closed week, a missing week and a holiday that is known ahead."""

import datetime as dt

import numpy as np
import polars as pl

from carousel import Forecaster, TrainConfig

rng = np.random.default_rng(0)
days = [dt.date(2024, 1, 1) + dt.timedelta(n) for n in range(300)]
holiday = np.arange(300) % 30 == 0
tables = []
for shop, level in (("north", 40.0), ("south", 90.0)):
    sold = level * (1 + 0.3 * np.sin(2 * np.pi * np.arange(300) / 7)) + 2 * rng.normal(size=300)
    sold[holiday] *= 1.5
    sold[100:107] = np.nan  # closed: not observed, which is not the same as none sold
    tables.append(pl.DataFrame({"shop": shop, "day": days, "sold": sold, "holiday": holiday.astype(float)}))
table = pl.concat([tables[0].filter(pl.col("day") != days[150]), tables[1]])  # one row is not there at all

history, future = table.filter(pl.col("day") < days[286]), table.filter(pl.col("day") >= days[286])
quick = TrainConfig(steps=60, hidden_size=16, batch_size=32)  # leave it out for real use
model = Forecaster(14, id="shop", time="day", target="sold", known=["holiday"], config=quick)
model.fit(history)
made = model.predict(history, future=future.select("shop", "day", "holiday"))

print(made.select("shop", "day", "forecast", "q0.05", "q0.95"))
error = made.join(future, on=["shop", "day"]).select((pl.col("forecast") - pl.col("sold")).abs().mean()).item()
print(f"mean absolute error {error:.1f} of about 65 sold a day")
