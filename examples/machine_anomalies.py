"""Which rows of a pump's sensors are odd, and because of what? Learned from its first rows, without labels."""

import os
from pathlib import Path

import numpy as np
import polars as pl

from carousel import Detector
from carousel.evaluate_detection import evaluate_detection

folder = Path(os.environ.get("CAROUSEL_DATA", "")) / "skab"
if folder.is_dir():  # Skoltech's test bench: a valve is closed while the pump runs
    table = pl.read_parquet(folder / "skab.parquet").filter(pl.col("file") == "valve1/6.csv")
    pump = table.drop("file", "changepoint").with_columns(pl.col("anomaly").cast(pl.Int64))
else:
    rng = np.random.default_rng(0)
    t = np.arange(900)
    flow = 30 + 2 * np.sin(t / 9) + 0.3 * rng.normal(size=900)
    current = 1.2 + 0.02 * flow + 0.02 * rng.normal(size=900)
    temperature = 60 + 2 * np.sin(t / 40) + 0.2 * rng.normal(size=900)
    flow[650:720] -= 4 * np.hanning(70)  # less water for the same current
    odd = ((t >= 655) & (t < 715)).astype(int)
    columns = {"datetime": t, "flow": flow, "current": current, "temperature": temperature, "anomaly": odd}
    pump = pl.DataFrame(columns).with_columns(pl.from_epoch(pl.col("datetime") + 1_600_000_000))

model = Detector(time="datetime", target="anomaly").fit(pump[:400])
found = model.predict(pump)
print(found.filter(pl.col("anomaly")).head(3))
print(model.intervals(pump, gap=10))

measured = evaluate_detection(model, pump)
measured.show()
