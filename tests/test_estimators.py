"""Forecaster: from any frame to forecasts of the same kind, and back from a file; covariates, gaps, short series."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from sklearn.base import clone

from carousel import CarouselError, CellSpec, DataError, Forecaster, TrainConfig, modelfile
from carousel.checkpoint import stage_of
from carousel.errors import ModelFileError
from carousel.estimators import SkippedSeries
from carousel.evaluate import evaluate
from carousel.inputs.origins import split_by_table, split_by_time
from carousel.inputs.table import Roles, Series, read_table
from carousel.train import Event, Interrupted

QUICK = TrainConfig(hidden_size=8, width=8, steps=12, warmup=3, evaluate_every=4, batch_size=16, checkpoint_every=5)
H = 4


def shops(rows: int = 60, *, stamps: bool = True) -> pl.DataFrame:
    """Three shops of different lengths with a weekly season, gaps, and covariates of every sort."""
    rng = np.random.default_rng(11)
    parts = []
    for k, name in enumerate(("north", "south", "west")):
        n = rows - 7 * k
        t = np.arange(n)
        promo = rng.random(n) < 0.3
        y = 20 + 5 * k + 4 * np.sin(2 * np.pi * t / 7) + 6 * promo + rng.normal(0, 0.5, n)
        y[rng.random(n) < 0.1] = np.nan
        parts.append(
            pl.DataFrame(
                {
                    "shop": [name] * n,
                    "day": [datetime(2024, 1, 1) + timedelta(days=int(d)) for d in t] if stamps else t,
                    "sold": y,
                    "visits": rng.normal(size=n),
                    "weather": rng.choice(["sun", "rain"], n),
                    "promo": np.where(promo, "yes", "no"),
                    "size": [100.0 * (k + 1)] * n,
                    "kind": ["big" if k else "small"] * n,
                }
            ).with_columns(pl.col("sold").fill_nan(None))
        )
    return pl.concat(parts).sample(fraction=1.0, shuffle=True, seed=3)


def forecaster(**changes: Any) -> Forecaster:
    given: dict[str, Any] = {"id": "shop", "time": "day", "target": "sold", "features": ("visits", "weather")}
    given |= {"static": ("size", "kind"), "season": 7, "config": QUICK} | changes
    return Forecaster(changes.pop("horizon", H), **{k: v for k, v in given.items() if k != "horizon"})


@pytest.fixture(scope="module")
def fitted() -> Forecaster:
    return forecaster().fit(shops())


def test_forecasts_have_the_documented_columns_and_go_on_in_time(fitted: Forecaster) -> None:
    frame = shops()
    made = fitted.predict(frame)
    quantiles = ["q0.05", "q0.1", "q0.25", "q0.5", "q0.75", "q0.9", "q0.95"]
    assert made.columns == ["shop", "day", "step", "forecast", *quantiles]
    assert made["shop"].to_list() == [n for n in ("north", "south", "west") for _ in range(H)]
    assert made["step"].to_list() == [1, 2, 3, 4] * 3
    assert made.schema["day"] == frame.schema["day"]
    last = frame.group_by("shop").agg(pl.col("day").max().alias("last"))
    ahead = made.join(last, on="shop").select((pl.col("day") - pl.col("last")).dt.total_days())
    assert ahead.to_series().to_list() == [1, 2, 3, 4] * 3
    values = made.select(quantiles).to_numpy()
    assert np.isfinite(values).all()
    assert (np.diff(values, axis=1) >= 0).all()
    assert made["forecast"].to_list() == made["q0.5"].to_list()


@pytest.mark.parametrize("kind", ["pandas", "arrow"])
def test_every_kind_of_frame_gives_the_same_forecasts(fitted: Forecaster, kind: str) -> None:
    frame = shops()
    given = frame.to_pandas() if kind == "pandas" else frame.to_arrow()
    again = forecaster().fit(given)
    made = again.predict(given)
    assert type(made) is type(given)
    plain = pl.from_pandas(made) if kind == "pandas" else pl.from_arrow(made)
    expected = fitted.predict(frame)
    assert isinstance(plain, pl.DataFrame)
    assert plain["shop"].to_list() == expected["shop"].to_list()
    assert plain["day"].cast(pl.Datetime("us")).to_list() == expected["day"].to_list()
    np.testing.assert_array_equal(plain["q0.9"].to_numpy(), expected["q0.9"].to_numpy())


def test_a_file_brings_back_the_same_forecaster(fitted: Forecaster, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m.safetensors")
    loaded = Forecaster.load(tmp_path / "m.safetensors")
    assert loaded.predict(shops()).equals(fitted.predict(shops()))
    assert loaded.config_ == fitted.config_
    assert loaded.season_ == 7
    assert loaded.provenance_ == fitted.provenance_
    params, own = loaded.get_params(), fitted.get_params()
    for name in ("horizon", "id", "time", "features", "static", "season", "seeds", "config", "quantiles"):
        assert params[name] == own[name], name
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()
    refitted = loaded.fit(shops())
    assert refitted.predict(shops()).equals(fitted.predict(shops()))


def test_a_file_from_before_a_setting_came_is_read_and_an_unknown_setting_refused(
    fitted: Forecaster, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "m.safetensors")
    weights, document = modelfile.read(tmp_path / "m.safetensors")
    assert document["provenance"]["train"].pop("clip") is not None
    modelfile.write(tmp_path / "old.safetensors", weights, document)
    old = Forecaster.load(tmp_path / "old.safetensors")
    assert old.config == fitted.settings
    assert old.config.clip == TrainConfig().clip
    document["provenance"]["train"]["clap"] = 1
    modelfile.write(tmp_path / "new.safetensors", weights, document)
    with pytest.raises(ModelFileError, match=r"provenance\.train\.clap is not known"):
        Forecaster.load(tmp_path / "new.safetensors")


def series_of(model: Forecaster, frame: pl.DataFrame) -> Series:
    return read_table(frame, model.config_.input.roles, grid=model.config_.input.grid)


def test_quantiles_at_an_origin_see_nothing_after_it(fitted: Forecaster) -> None:
    frame = shops().sort("shop", "day")
    s = series_of(fitted, frame)
    origins = np.array([3, 30, 55, 59, 80, 100])
    found = fitted.quantiles_at(s, origins)
    assert found.shape == (6, H, 1, 7)
    for k, origin in enumerate(origins):
        b = int(np.searchsorted(s.offsets, origin, side="right")) - 1
        name, steps = s.ids[b], int(origin - s.offsets[b])
        cut = frame.filter((pl.col("shop") == name) & (pl.col("day") <= datetime(2024, 1, 1) + timedelta(days=steps)))
        alone = fitted.predict(cut)
        np.testing.assert_allclose(found[k, :, 0, 6], alone["q0.95"].to_numpy(), rtol=1e-5)


def test_several_targets_and_seeds() -> None:
    frame = shops()
    model = forecaster(target=("sold", "visits"), features=(), seeds=2).fit(frame)
    made = model.predict(frame)
    assert made.columns[:5] == ["shop", "day", "step", "target", "forecast"]
    assert made["target"].to_list()[:4] == ["sold", "visits", "sold", "visits"]
    assert made["step"].to_list()[:4] == [1, 1, 2, 2]
    by_target = made.group_by("target").agg(pl.col("forecast").mean()).sort("target")["forecast"].to_list()
    assert 15 < by_target[0] < 35
    assert abs(by_target[1]) < 3
    assert len(model.model_) == 2
    s = series_of(model, frame)
    members, both = model.model_, model.quantiles_at(s, np.array([50]))
    alone = []
    for member in members:
        model.model_ = [member]
        alone.append(model.quantiles_at(s, np.array([50])))
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    np.testing.assert_allclose(both, np.mean(alone, 0), rtol=1e-9)


def test_known_covariates_shape_the_forecast_and_must_be_there() -> None:
    frame = shops().drop("weather", "visits", "size", "kind").sort("shop", "day")
    train, rest = (
        frame.filter(pl.int_range(pl.len()).over("shop") < 40),
        frame.filter(pl.int_range(pl.len()).over("shop") >= 40),
    )
    config = TrainConfig(hidden_size=16, width=16, steps=250, batch_size=32, learning_rate=0.01, warmup=10)
    model = forecaster(features=(), static=(), known=("promo",), config=config).fit(train)
    future = rest.select("shop", "day", "promo").group_by("shop", maintain_order=True).head(H)
    made = model.predict(train, future)
    quiet = model.predict(train, future.with_columns(promo=pl.lit("no")))
    busy = model.predict(train, future.with_columns(promo=pl.lit("yes")))
    assert 2 < (busy["forecast"] - quiet["forecast"]).mean() < 10  # six, in truth
    promo = future.sort("shop", "day")["promo"] == "yes"
    np.testing.assert_array_equal(made.filter(promo)["forecast"], busy.filter(promo)["forecast"])

    joined = pl.concat([train, future.with_columns(sold=pl.lit(None, pl.Float64)).select(train.columns)])
    same = model.predict(joined)
    ends = train.group_by("shop", maintain_order=True).agg(pl.col("sold").last().is_not_null().alias("seen"))
    for name in ends.filter("seen")["shop"]:
        one, two = made.filter(pl.col("shop") == name), same.filter(pl.col("shop") == name)
        assert one.equals(two)

    with pytest.raises(DataError, match=r"future: series 'north' has no 'promo' at 2024-02-13 \(step 4 of 4\)"):
        model.predict(train, future.group_by("shop", maintain_order=True).head(H - 1))
    with pytest.raises(DataError, match=r"^data: series 'north' has no 'promo' at .* \(step 1 of 4\).*in future"):
        model.predict(train.filter(pl.col("sold").is_not_null()))
    with pytest.raises(DataError, match="future: there is no column 'promo'"):
        model.predict(train, future.drop("promo"))


def test_future_without_known_columns_is_refused(fitted: Forecaster) -> None:
    with pytest.raises(DataError, match="trained without known columns"):
        fitted.predict(shops(), shops())


def test_new_series_and_unseen_categories_are_forecast(fitted: Forecaster) -> None:
    new = shops().filter(pl.col("shop") == "west").with_columns(shop=pl.lit("east"), weather=pl.lit("fog"))
    made = fitted.predict(new)
    assert made["shop"].unique().to_list() == ["east"]
    assert np.isfinite(made["forecast"].to_numpy()).all()


def test_columns_that_differ_from_training_are_refused(fitted: Forecaster) -> None:
    frame = shops()
    with pytest.raises(DataError, match="no column 'visits'; columns are"):
        fitted.predict(frame.drop("visits"))
    with pytest.raises(DataError, match="column 'weather': it held text in training"):
        fitted.predict(frame.with_columns(weather=pl.lit(1)))
    hours = frame.with_columns(pl.col("day") + pl.duration(hours=pl.int_range(pl.len()) % 2))
    with pytest.raises(DataError, match="does not lie on the even grid of step 86400"):
        fitted.predict(hours)
    empty = frame.with_columns(sold=pl.when(pl.col("shop") == "west").then(None).otherwise(pl.col("sold")))
    with pytest.raises(DataError, match="series 'west' has no observed target to forecast from"):
        fitted.predict(empty)


def test_short_series_are_named_or_skipped() -> None:
    frame = pl.concat(
        [shops(), shops().filter(pl.col("shop") == "west").sort("day").head(5).with_columns(shop=pl.lit("tiny"))]
    )
    with pytest.raises(
        DataError, match=r"sales\.csv: series 'tiny' is shorter than the 6 rows .* or skip short series"
    ):
        forecaster().fit(frame, source="sales.csv")
    with pytest.warns(SkippedSeries, match="series 'tiny' is shorter"):
        model = forecaster().fit(frame, skip_short=True)
    assert model.provenance_["series"] == 3
    assert "tiny" in model.predict(frame)["shop"].to_list()
    alone = frame.filter(pl.col("shop") == "tiny")
    with pytest.raises(DataError, match=r"rows: 5\); give more rows or a shorter horizon\."):
        forecaster().fit(alone, skip_short=True)


def test_gaps_and_uneven_clocks_train_and_forecast() -> None:
    rng = np.random.default_rng(4)
    time = np.cumsum(rng.exponential(2.0, 150)).round(2)
    frame = pl.DataFrame({"t": time, "y": np.sin(time / 5) + 0.1 * rng.normal(size=150)})
    config = TrainConfig(**{**vars(QUICK), "cell": CellSpec(decay=True)})
    model = Forecaster(3, time="t", config=config).fit(frame)
    made = model.predict(frame)
    step = np.median(np.diff(time))
    np.testing.assert_allclose(made["t"].to_numpy(), time[-1] + step * np.array([1, 2, 3]), rtol=1e-9)
    assert model.season_ == 1
    shifted = frame.with_columns(pl.when(pl.int_range(pl.len()) < 149).then("t").otherwise(pl.col("t") + 3).alias("t"))
    assert (model.predict(shifted)["forecast"] - made["forecast"]).abs().max() > 1e-6  # the gap was seen


@pytest.mark.parametrize(
    "fields",
    [
        {"peephole": True, "layer_norm": True, "proj_size": 3},
        {"coupled": True, "zoneout_c": 0.1, "recurrent_dropout": 0.2, "weight_drop": 0.1},
    ],
)
def test_every_cell_trains_on_windows_that_begin_before_their_series(fields: dict[str, Any], tmp_path: Path) -> None:
    config = TrainConfig(**{**vars(QUICK), "cell": CellSpec(**fields), "num_layers": 2, "dropout": 0.1})
    model = forecaster(config=config, context=30).fit(shops())
    model.save(tmp_path / "m.safetensors")
    made = Forecaster.load(tmp_path / "m.safetensors").predict(shops())
    assert np.isfinite(made["q0.95"].to_numpy()).all()
    assert made.equals(model.predict(shops()))


def test_forecasts_beat_the_seasonal_naive_and_intervals_cover() -> None:
    rng = np.random.default_rng(12)
    t = np.arange(260)
    frame = pl.concat(
        pl.DataFrame({"k": [k] * 260, "t": t, "y": 5 * np.sin(2 * np.pi * (t + k) / 12) + rng.normal(0, 1, 260) + k})
        for k in range(6)
    )
    config = TrainConfig(hidden_size=16, width=16, steps=150, batch_size=64, warmup=20, learning_rate=5e-3)
    model = Forecaster(12, id="k", time="t", target="y", config=config).fit(frame.filter(pl.col("t") < 200))
    assert model.config_.input.seasons == (12,)
    s = series_of(model, frame)
    origins = (s.offsets[:-1, None] + np.arange(199, 248, 6)).reshape(-1)
    found = model.quantiles_at(s, origins)[:, :, 0]
    rows = origins[:, None] + np.arange(1, 13)
    truth, naive = s.target[rows, 0], s.target[rows - 12, 0]
    error, naive_error = np.abs(found[..., 3] - truth).mean(), np.abs(naive - truth).mean()
    assert error < 0.85 * naive_error  # the best possible is 0.71
    assert 0.82 < ((found[..., 0] <= truth) & (truth <= found[..., 6])).mean() < 0.97


def test_rows_to_validate_on_may_go_on_with_the_series() -> None:
    frame = shops().sort("shop", "day")
    number = pl.int_range(pl.len()).over("shop")
    train, later = frame.filter(number < 40), frame.filter(number >= 40)
    model = forecaster().fit(train, valid=later)
    assert model.provenance_["metrics"]["validation_pinball"][0] > 0
    assert model.provenance_["rows"] == 60 + 53 + 46
    other = later.filter(pl.col("shop") == "north").with_columns(shop=pl.lit("else"))
    assert forecaster().fit(train, valid=other).config_.head.factors != (1.0,) * 7
    with pytest.raises(DataError, match="valid, row 2, column 'visits'"):
        forecaster().fit(train, valid=later.with_columns(visits=pl.Series(["1", "x", *["2"] * (len(later) - 2)])))
    with pytest.raises(DataError, match="valid: no series has 4 rows"):
        forecaster().fit(train, valid=later.group_by("shop").head(2))


def test_as_many_windows_of_the_training_part_calibrate_beside_a_table_of_its_own() -> None:
    frame = pl.DataFrame({"id": ["a"] * 52 + ["b"] * 47, "t": [*range(52), *range(47)], "y": np.arange(99.0)})
    train, later = frame.filter(pl.col("t") < 40), frame.filter(pl.col("t") >= 40)
    later = pl.concat([later, later.filter(pl.col("id") == "a").with_columns(id=pl.lit("c"))])
    series = read_table(train, Roles("id", "t", ("y",), (), (), ()), valid=later)
    split = split_by_table(series, 4, 8, len(train))
    assert series.ids == ["a", "b", "c"]
    assert split.last.tolist() == [35, 52 + 35]  # the third has no rows to train on
    assert split.held_out.tolist() == [*range(39, 48), *range(52 + 39, 52 + 43), *range(99 + 1, 99 + 8)]
    assert split.beside.tolist() == [*range(27, 36), *range(52 + 32, 52 + 36)]
    assert split_by_time(series, 4, 8, 0.2).beside.tolist() == []


def test_progress_tells_both_stages() -> None:
    events: list[Event] = []
    forecaster(seeds=2).fit(shops(), progress=events.append)
    first = [(e.again, e.member) for e in events]
    assert list(dict.fromkeys(first)) == [(False, 0), (False, 1), (True, 0), (True, 1)]
    assert all(e.metric is None for e in events if e.again)


class Stop:
    """Sends a signal at the n-th step of a training."""

    def __init__(self, at: int) -> None:
        self.at, self.count = at, 0

    def __call__(self, event: Event) -> None:
        self.count += 1
        if self.count == self.at:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(("at", "stage"), [(3, False), (11, False), (14, True), (17, True)])
def test_an_interrupted_fit_resumes_bit_for_bit_in_either_stage(tmp_path: Path, at: int, stage: bool) -> None:
    path = tmp_path / "c"
    config = TrainConfig(**{**vars(QUICK), "dropout": 0.2, "patience": 0})
    whole = forecaster(config=config).fit(shops())
    with pytest.raises(Interrupted):
        forecaster(config=config).fit(shops(), checkpoint=path, progress=Stop(at))
    assert bool(stage_of(path)) == stage
    resumed = forecaster(config=config).fit(shops(), checkpoint=path, resume=True)
    assert resumed.config_ == whole.config_
    assert resumed.provenance_ == whole.provenance_
    for name, value in whole._weights.items():
        np.testing.assert_array_equal(resumed._weights[name], value)


def test_a_checkpoint_of_other_data_or_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with pytest.raises(Interrupted):
        forecaster().fit(shops(), checkpoint=path, progress=Stop(3))
    with pytest.raises(CarouselError, match="its data or columns differ"):
        forecaster().fit(shops().with_columns(pl.col("sold") + 1), checkpoint=path, resume=True)
    with pytest.raises(CarouselError, match="its batch_size is 16, not 8"):
        forecaster(config=TrainConfig(**{**vars(QUICK), "batch_size": 8})).fit(shops(), checkpoint=path, resume=True)
    with pytest.raises(CarouselError, match="resume needs a checkpoint"):
        forecaster().fit(shops(), resume=True)


def test_it_behaves_like_an_estimator(fitted: Forecaster) -> None:
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "config_")
    assert copy.set_params(horizon=9, seeds=3) is copy
    assert (copy.horizon, copy.seeds) == (9, 3)
    with pytest.raises(ValueError, match="no parameter 'horizont'"):
        copy.set_params(horizont=3)
    with pytest.raises(CarouselError, match="not fitted yet"):
        copy.predict(shops())
    assert repr(fitted).startswith("Forecaster(horizon=4, id='shop', time='day', target='sold'")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 0}, "horizon must be a whole number of at least 1, got 0"),
        ({"horizon": -3}, "got -3"),
        ({"horizon": 2.5}, "got 2.5"),
        ({"season": 0}, "season must be"),
        ({"context": 0}, "context must be"),
        ({"seeds": 0}, "seeds must be"),
        ({"quantiles": (0.1, 0.9)}, "quantiles must ascend"),
        ({"target": 0}, "target must be the name of a column as text, or several, got 0; give it as text"),
        ({"known": ("promo", 3)}, r"known must be .* got \('promo', 3\)"),
        ({"id": ["shop"]}, r"id must be the name of a column as text, got \['shop'\]"),
        (
            {"config": {"steps": 40}},
            r"config must be a TrainConfig, got \{'steps': 40\}; write TrainConfig\(steps=40\)",
        ),
        ({"target": "sould"}, "no column 'sould'; did you mean 'sold'"),
        ({"static": ("visits",), "features": ()}, "a static column may not change"),
        ({"features": ("sold",)}, "'sold' is named as target and as features"),
    ],
)
def test_parameters_out_of_range_say_so(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CarouselError, match=message):
        forecaster(**changes).fit(shops())


def test_columns_without_text_or_with_the_same_name_twice_are_refused(fitted: Forecaster) -> None:
    frame = shops().to_pandas()
    numbered = frame.set_axis(range(frame.shape[1]), axis=1)
    twice = frame.set_axis([*frame.columns[:-1], "shop"], axis=1)
    arrow = pa.Table.from_pandas(frame).rename_columns([*frame.columns[:-1], "shop"])
    for use in (forecaster().fit, fitted.predict, partial(evaluate, fitted)):
        with pytest.raises(DataError, match=r"^data: the names of columns must be text, got 0; rename the columns"):
            use(numbered)
        for table in (twice, arrow):
            with pytest.raises(DataError, match=r"^data: there is more than one column 'shop'; rename or drop"):
                use(table)
    with pytest.raises(DataError, match=r"^valid: there is more than one column 'shop'"):
        forecaster().fit(frame, valid=twice)


def test_batches_that_cannot_be_are_refused() -> None:
    few = TrainConfig(batch_size=10**9)
    with pytest.raises(
        CarouselError, match=r"^batch_size is 1,000,000,000, but there are \d+ windows to train on; set"
    ):
        forecaster(config=few).fit(shops())


def test_a_batch_beyond_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carousel.forecast_task.available_memory", lambda: 10**6)
    with pytest.raises(
        CarouselError, match=r"^a batch of 32 windows takes about \d+ MB, .* at most \d+, or a smaller hid"
    ):
        forecaster(config=TrainConfig(batch_size=32)).fit(shops())


@pytest.mark.parametrize("name", ["season", "context"])
def test_looking_back_further_than_any_series_is_refused(name: str) -> None:
    message = f"data: a {name} of 61 rows is longer than the longest series, which has 60 rows; give a shorter {name}"
    with pytest.raises(DataError, match=message):
        forecaster(**{name: 61}).fit(shops())
    assert forecaster(**{name: 60}).fit(shops()).config_.input.context >= 24


def test_other_columns_are_features_unless_named() -> None:
    frame = shops().drop("size", "kind")
    model = forecaster(features=None, static=(), known=("promo",)).fit(frame)
    assert model.config_.input.roles.features == ("visits", "weather")
    indexed = shops().filter(pl.col("shop") == "north").select("day", "sold")
    plain = Forecaster(H, config=QUICK).fit(indexed)
    assert plain.config_.input.roles == type(plain.config_.input.roles)(None, "day", ("sold",))
    assert plain.predict(indexed).columns[:2] == ["day", "step"]


def test_the_users_generator_and_threads_stay_as_they_were() -> None:
    torch.manual_seed(5)
    expected, threads = torch.rand(2), torch.get_num_threads()
    torch.manual_seed(5)
    one = forecaster().fit(shops())
    assert torch.equal(torch.rand(2), expected)
    assert torch.get_num_threads() == threads
    two = forecaster().fit(shops())
    assert all(np.array_equal(value, two._weights[name]) for name, value in one._weights.items())


def test_pandas_without_a_time_column_counts_rows() -> None:
    frame = pd.DataFrame({"shop": ["a"] * 40 + ["b"] * 30, "y": np.arange(70.0) % 7})
    made = Forecaster(2, id="shop", target="y", season=7, config=QUICK).fit(frame).predict(frame)
    assert made["row"].tolist() == [40, 41, 30, 31]


def test_neither_fitting_nor_loading_brings_what_they_do_not_need(tmp_path: Path) -> None:
    code = (
        "import sys, polars as pl; from carousel import Forecaster, TrainConfig\n"
        "config = TrainConfig(steps=3, warmup=1, hidden_size=4, batch_size=4, accelerator='cpu')\n"
        "frame = pl.DataFrame({'t': range(40), 'y': [float(k % 7) for k in range(40)]})\n"
        f"Forecaster(3, time='t', target='y', config=config).fit(frame).save({str(tmp_path / 'm')!r})\n"
        f"Forecaster.load({str(tmp_path / 'm')!r}).predict(frame)\n"
        "heavy = {'torch._dynamo', 'sympy', 'lightning_fabric', 'sklearn', 'pandas', 'matplotlib'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
