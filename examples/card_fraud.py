"""Is this payment a fraud? Each card is a sequence, each payment gets a probability as it comes.

With CAROUSEL_DATA set a week of simulated payments (fraud detection handbook), otherwise generated ones.
"""

import os
from pathlib import Path

import numpy as np
import polars as pl

from carousel import Tagger, TrainConfig
from carousel.bench.sets import fraud
from carousel.evaluate_sequences import evaluate


def generated(start: int, cards: int = 120) -> pl.DataFrame:
    """Some terminals are bad, and stolen cards pay five times as much as their owners do."""
    rng = np.random.default_rng(start)
    bad, tables = np.arange(400) % 29 == 0, []
    for card in range(cards):
        n, usual = int(rng.integers(10, 40)), rng.uniform(10, 80)
        terminal = rng.integers(0, 400, n)
        stolen = (rng.random() < 0.2) & (np.arange(n) >= n - 4)
        amount = usual * np.exp(0.2 * rng.normal(size=n)) * np.where(stolen, 5.0, 1.0)
        second = start + np.sort(rng.integers(0, 604_800, n))
        columns = {"card": card, "second": second, "amount": amount, "terminal": [f"T{k}" for k in terminal]}
        tables.append(pl.DataFrame({**columns, "fraud": (stolen | bad[terminal]).astype(int)}))
    return pl.concat(tables)


if (Path(os.environ.get("CAROUSEL_DATA", "")) / "fraud_handbook").is_dir():
    train, test = (fraud(first, first + 7).filter(pl.col("card") % 5 == 0) for first in (115, 129))  # a fifth
else:
    train, test = generated(0), generated(1_209_600)
quick = TrainConfig(steps=200, hidden_size=24, learning_rate=5e-3, width=0)  # leave it out for real use
model = Tagger("fraud", id="card", time="second", config=quick).fit(train)
found = evaluate(model, test, train=train)
found.show()
