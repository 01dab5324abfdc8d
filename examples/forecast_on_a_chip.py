"""A forecaster for a microcontroller: trained on a table, written as integer C, its self-test compiled and run."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from carousel import Forecaster, TrainConfig
from carousel.export import write

# A pump's temperature every 10 minutes for four days, with a rhythm of 12 hours and some readings lost.
rng = np.random.default_rng(0)
t = np.arange(6 * 24 * 4)
heat = 60 + 8 * np.sin(2 * np.pi * t / 72) + rng.normal(0, 0.5, len(t))
heat[rng.random(len(t)) < 0.05] = np.nan
table = pl.DataFrame({"t": t, "heat": heat}).with_columns(pl.col("heat").fill_nan(None))

small = TrainConfig(hidden_size=16, width=12, steps=60, warmup=10, batch_size=32, threads=1)
model = Forecaster(12, time="t", season=72, context=24, quantiles=(0.05, 0.5, 0.95), config=small).fit(table)

with tempfile.TemporaryDirectory() as made:
    folder = Path(made)
    model.save(folder / "pump.safetensors")
    table.write_csv(folder / "pump.csv")
    report = write(folder / "pump.safetensors", "c", folder / "pump", int8=True, calibrate=folder / "pump.csv")
    print(*report["notes"], sep="\n")
    compiler = shutil.which("cc")
    if compiler:
        sources = [folder / "pump.c", folder / "pump_test.c"]
        subprocess.run([compiler, "-std=c99", "-Os", "-o", folder / "pump", *sources], check=True)
        print(subprocess.run([folder / "pump"], check=True, capture_output=True, text=True).stdout, end="")
