"""Who will die in intensive care? Vital signs as events, at uneven times, and a report beside baselines.

With CAROUSEL_DATA set stays of PhysioNet 2012, otherwise generated ones.
"""

import os
from pathlib import Path

import numpy as np
import polars as pl

from carousel import Classifier, TrainConfig
from carousel.bench.sets import physionet
from carousel.evaluate_sequences import evaluate


def generated(first: int, count: int = 150) -> pl.DataFrame:
    """A variable is read now and then; the heart is faster and lactate higher in those who will die."""
    rng = np.random.default_rng(first)
    usual, spread = {"HR": 85, "Lactate": 2, "Urine": 60}, {"HR": 10, "Lactate": 1, "Urine": 20}
    rows = []
    for stay in range(first, first + count):
        dies = int(rng.random() < 0.25)
        rows.append((stay, 0, "Age", float(rng.integers(30, 90)), dies))
        for minute in np.sort(rng.choice(2880, 40, replace=False)).tolist():
            name = str(rng.choice(["HR", "Lactate", "Urine"], p=[0.6, 0.2, 0.2]))
            rows.append((stay, minute, name, usual[name] + spread[name] * (0.4 * dies + rng.normal()), dies))
    return pl.DataFrame(rows, schema=["record_id", "minute", "parameter", "value", "death"], orient="row")


if (Path(os.environ.get("CAROUSEL_DATA", "")) / "physionet2012").is_dir():
    train, test = (physionet(part).filter(pl.col("record_id") % 10 == 3) for part in "ab")  # a tenth, to be quick
else:
    train, test = generated(0), generated(1000)
quick = TrainConfig(steps=120, hidden_size=16, dropout=0.2, hide=0.3)  # leave it out for real use
roles = {"id": "record_id", "time": "minute", "long": ("parameter", "value"), "static": ["Age"]}
model = Classifier("death", **roles, pooling="last", config=quick).fit(train)
found = evaluate(model, test, train=train)
found.show()
