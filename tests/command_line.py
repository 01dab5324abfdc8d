"""Small tables, a quickly fitted model, and the command line called in this process."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from carousel import cli

QUICK = [
    f"--set={choice}"
    for choice in ("steps=6", "hidden_size=4", "width=4", "batch_size=8", "evaluate_every=3", "warmup=2")
]
ROLES = ["--id=shop", "--time=day", "--target=sold", "--known=holiday", "--static=size", "--horizon=3"]


class Result(NamedTuple):
    status: int
    out: str
    err: str


def shops(days: int = 60, gaps: bool = True) -> pl.DataFrame:
    """Two shops by the day: sold (with gaps), price, weather (text), holiday (known ahead), size (static)."""
    rng = np.random.default_rng(7)
    frames = []
    for shop, level in (("north", 20.0), ("south", 50.0)):
        t = np.arange(days)
        sold = level + 5 * np.sin(2 * np.pi * t / 7) + rng.normal(size=days)
        if gaps:
            sold[rng.random(days) < 0.1] = np.nan
        frames.append(
            pl.DataFrame(
                {
                    "shop": [shop] * days,
                    "day": pl.date_range(
                        pl.date(2024, 1, 1), pl.date(2024, 1, 1) + pl.duration(days=days - 1), eager=True
                    ),
                    "sold": pl.Series(sold, nan_to_null=True).round(3),
                    "price": pl.Series(rng.uniform(1, 2, days)).round(3),
                    "weather": rng.choice(["rain", "sun"], days),
                    "holiday": (t % 7 == 6).astype(int),
                    "size": [int(level)] * days,
                }
            )
        )
    return pl.concat(frames)


def later(days: int = 3, after: int = 60) -> pl.DataFrame:
    """What is known of the days after `shops`."""
    return (
        shops(after + days)
        .filter(pl.col("day") >= pl.date(2024, 1, 1) + pl.duration(days=after))
        .select("shop", "day", "holiday")
    )


def vitals(patients: int = 24) -> pl.DataFrame:
    """Patients with a pulse (with gaps) at uneven times: who fell ill and when, who survived, and what stays."""
    rng = np.random.default_rng(11)
    rows = []
    for k in range(patients):
        count, minute = int(rng.integers(12, 20)), 0.0
        onset = int(rng.integers(4, count)) if k % 2 else count
        for r in range(count):
            minute += 20 + rng.exponential(25)
            pulse = None if rng.random() < 0.2 else round(80 + 15 * (0 <= onset - r < 4) + rng.normal() * 3, 1)
            rows.append((f"p{k:02d}", 1_700_000_000 + round(60 * minute), pulse, 30 + k, "fm"[k % 2], int(r >= onset)))
    columns = ["patient", "at", "pulse", "age", "sex", "septic"]
    frame = pl.DataFrame(rows, schema=columns, orient="row").with_columns(pl.from_epoch("at"))
    return frame.with_columns(
        survived=pl.when(pl.col("septic").max().over("patient") == 1).then(pl.lit("no")).otherwise(pl.lit("yes"))
    )


@cache
def model_bytes() -> bytes:
    """A model file fitted to `shops` for a few steps."""
    with tempfile.TemporaryDirectory() as folder:
        data, model = Path(folder) / "shops.csv", Path(folder) / "m.safetensors"
        shops().write_csv(data)
        status = cli.run(["fit", "forecast", str(data), *ROLES, *QUICK, "--out", str(model)])
        assert status == 0
        assert sorted(p.name for p in Path(folder).iterdir()) == ["m.safetensors", "shops.csv"]
        return model.read_bytes()
