"""The trust report of a backtest: what leaks of forecasts look like, the split by time, seeds and coverage."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest

from carousel import Forecaster, TrainConfig
from carousel.evaluate import evaluate
from carousel.trust.leaks import CHECKS

QUICK = TrainConfig(steps=4, least_steps=2, hidden_size=4, width=4, batch_size=16, warmup=1, evaluate_every=2)


def shops(days: int = 160) -> pl.DataFrame:
    rng = np.random.default_rng(3)
    parts = []
    for shop in ("north", "south", "west"):
        t = np.arange(days)
        sold = 40 + 8 * np.sin(2 * np.pi * t / 7) + np.cumsum(rng.normal(size=days))
        parts.append(
            pl.DataFrame(
                {
                    "shop": shop,
                    "day": t,
                    "sold": sold,
                    "price": 2 + 0.3 * rng.normal(size=days),
                    "holiday": (t % 9 == 0) * 1.0,
                }
            )
        )
    return pl.concat(parts)


def trust(frame: pl.DataFrame, until: float = 120, since: float | None = None, **more: Any) -> Any:
    model = Forecaster(3, id="shop", time="day", target="sold", known=["holiday"], season=7, config=QUICK, **more)
    model.fit(frame.filter(pl.col("day") <= until))
    return evaluate(model, frame, since=since)


def test_a_clean_backtest_says_so_with_its_split_and_coverage() -> None:
    found = trust(shops(), seeds=2)
    report = found.trust
    assert report.audit.findings == ()
    assert set(report.audit.checked) == set(CHECKS)
    assert report.split.kind.startswith("by time (3 sequences go on")
    assert report.split.train["rows"] == 3 * 121
    assert report.coverage == found.of("LSTM").coverage
    assert report.members == 2
    mean, sd = report.seeds["mase"]
    assert mean > 0
    assert sd > 0
    again = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert again["trust"]["seeds"]["mase"] == {"mean": mean, "sd": sd}
    assert any(line.startswith("Split by time") for line in report.sentences())


def test_the_model_beside_its_members_is_their_mean() -> None:
    alone = trust(shops(), seeds=1)
    assert alone.trust.members == 1
    assert dict(alone.trust.seeds) == {}
    assert any(line.startswith("One seed only") for line in alone.trust.sentences())


@pytest.mark.parametrize(
    ("leak", "kind", "column"),
    [
        (pl.col("sold").shift(-1).over("shop"), "future", "price"),
        (pl.col("sold").rolling_mean(5, center=True).over("shop"), "future", "price"),
        (pl.col("sold") * 3 - 1, "target", "holiday"),
    ],
    ids=["ahead", "centred", "known"],
)
def test_columns_that_give_the_target_away_are_named(leak: pl.Expr, kind: str, column: str) -> None:
    found = trust(shops().with_columns(leak.alias(column)))
    assert [(f.kind, f.column) for f in found.trust.audit.findings] == [(kind, column)]


def test_a_copy_of_the_target_as_a_feature_is_no_leak_since_its_past_is_known() -> None:
    assert trust(shops().with_columns(price=pl.col("sold") * 2)).trust.audit.clean


def test_rows_that_were_trained_on_are_called_a_leak() -> None:
    found = trust(shops(), since=100)
    assert [f.kind for f in found.trust.audit.findings] == ["group"]
    assert "were trained on" in found.trust.audit.findings[0].sentence


def test_scales_from_beyond_training_are_found() -> None:
    frame = shops().with_columns(price=pl.col("price") + (pl.col("day") > 120) * 2.0)
    model = Forecaster(3, id="shop", time="day", target="sold", season=7, config=QUICK).fit(frame)
    model.provenance_["until"] = 120.0  # as if it had been trained on earlier rows only
    assert [f.kind for f in evaluate(model, frame).trust.audit.findings] == ["scaler"]


def test_without_a_time_column_nothing_is_claimed_about_training() -> None:
    frame = shops().filter(pl.col("shop") == "north").drop("shop", "day", "holiday")
    model = Forecaster(3, target="sold", season=7, config=QUICK).fit(frame[:120])
    found = evaluate(model, frame).trust
    assert {"group", "duplicates", "scaler"} <= set(found.audit.unchecked)
    assert "not known" in found.split.sentence()
