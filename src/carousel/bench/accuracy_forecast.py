"""Accuracy of forecasts on public sets: M4 hourly and weekly, ETTh1 96 -> 96, PM2.5 the next hour, weekly CO2.

`part="valid"` forecasts the end of the training part instead of the test part: what choices may be made on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from carousel.bench import sets
from carousel.bench.accuracy import Outcome, Stopwatch, over_seeds
from carousel.demo import HELD_OUT, HORIZON, SEEDS, co2
from carousel.estimators import Forecaster
from carousel.inputs.table import Series, read_table
from carousel.train import TrainConfig

if TYPE_CHECKING:
    import polars as pl

__all__ = ["co2_weekly", "etth1", "m4", "m4_hourly", "m4_weekly", "mase", "pm25"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Part = Literal["test", "valid"]

COVER, OFF = "in 90 %", "off 90 %"  # the share inside the interval, and how far that is from what it says
M4_SEASON = {"hourly": 24, "weekly": 1}
M4_PUBLISHED = {  # of the competition's own tables (Makridakis et al. 2020)
    "hourly": {"ES-RNN (winner)": (0.893, 9.328), "RNN benchmark": (3.048, 14.698)},
    "weekly": {"ES-RNN (winner)": (2.356, 7.817), "RNN benchmark": (5.132, 15.220)},
}
M4_MUST = {"hourly": 0.95, "weekly": 2.45}
ETTH1_HISTORY, ETTH1_SEASON = 96, 24


def m4_hourly(seeds: Sequence[int] = (0, 1, 2), part: Part = "test", **settings: Any) -> Outcome:
    """414 series, 48 hours ahead."""
    return _m4("hourly", seeds, part, settings)


def m4_weekly(seeds: Sequence[int] = (0, 1, 2), part: Part = "test", **settings: Any) -> Outcome:
    """359 series, 13 weeks ahead."""
    return _m4("weekly", seeds, part, settings)


def _m4(name: str, seeds: Sequence[int], part: Part, settings: Mapping[str, Any]) -> Outcome:
    frame, truth = m4(name, part)
    horizon, season = truth.shape[1], M4_SEASON[name]
    history = [one["y"].to_numpy() for one in frame.partition_by("id", maintain_order=True)]
    watch, found = Stopwatch(), list[dict[str, dict[str, float | None]]]()
    naive = np.stack([np.resize(y[-season:], horizon) for y in history])
    for seed in seeds:
        model = Forecaster(horizon, id="id", time="t", target="y", config=_config(seed, settings))
        with watch:
            made = model.fit(frame).predict(frame)
        point, low, high = (made[q].to_numpy().reshape(-1, horizon) for q in ("forecast", "q0.05", "q0.95"))
        own = _of(mase(point, truth, frame, season), _smape(point, truth)) | _inside(low, truth, high)
        found.append({"LSTM": own, "seasonal naive": _of(mase(naive, truth, frame, season), _smape(naive, truth))})
    rows, sd = over_seeds(found, ("MASE", "sMAPE", COVER, OFF))
    return Outcome(
        f"m4_{name}",
        f"M4 {name}: {len(history)} series of their own lengths, {horizon} steps after the end of each, "
        f"{'the competition test part' if part == 'test' else 'held out of the training part'}; MASE with season "
        f"{season}, sMAPE in percent.",
        _flag(settings),
        len(seeds),
        rows,
        sd,
        {"MASE": ("<=", M4_MUST[name]), OFF: ("<=", 0.03)},
        watch.seconds,
        {who: _of(*figures) for who, figures in M4_PUBLISHED[name].items()},
    )


def m4(name: str, part: Part = "test") -> tuple[pl.DataFrame, Floats]:
    """The series of M4 as a long table (id, t, y), and the values to forecast [B, H] in the order of the ids.

    Raises CarouselError where CAROUSEL_DATA does not lead to them.
    """
    import polars as pl

    folder = sets.folder("m4")
    wide, test = (
        pl.read_csv(folder / f"{name.capitalize()}-{which}.csv.gz", infer_schema_length=None)
        for which in ("train", "test")
    )
    wide, test = (table.rename({table.columns[0]: "id"}).sort("id") for table in (wide, test))
    horizon = len(test.columns) - 1
    long = (
        wide.unpivot(index="id", variable_name="t", value_name="y")
        .drop_nulls("y")
        .with_columns(pl.col("t").str.slice(1).cast(pl.Int64))
        .sort("id", "t")
    )
    truth: Floats = test.drop("id").to_numpy()
    if part == "valid":
        ahead = pl.col("t") > pl.col("t").max().over("id") - horizon
        truth = long.filter(ahead)["y"].to_numpy().reshape(-1, horizon)
        long = long.filter(~ahead)
    return long, truth


def mase(forecast: Floats, truth: Floats, frame: pl.DataFrame, season: int) -> float:
    """Mean over the series of the error [B, H], in units of the seasonal naive one's within `frame`."""
    history = [one["y"].to_numpy() for one in frame.partition_by("id", maintain_order=True)]
    scale = np.array([np.abs(y[season:] - y[:-season]).mean() for y in history])
    return float((np.abs(forecast - truth).mean(1) / scale).mean())


def _smape(forecast: Floats, truth: Floats) -> float:
    return float(200 * (np.abs(forecast - truth) / (np.abs(forecast) + np.abs(truth))).mean())


def _of(error: float, smape: float) -> dict[str, float | None]:
    return {"MASE": error, "sMAPE": smape}


def etth1(seeds: Sequence[int] = (0, 1, 2), part: Part = "test", **settings: Any) -> Outcome:
    """Seven channels of a transformer station, 96 hours ahead from the last 96, in units of the training part's spread.

    Each channel is a series of one model. Trained on 8,640 hours, stopped early on the next 2,880, tested on the 2,880
    after these from every hour; a window holds 96 hours, so that context and season (72 + 24) fit into it.
    """
    import polars as pl

    frame = pl.read_csv(sets.folder("etth") / "ETTh1.csv.gz", try_parse_dates=True)
    channels, learnt = frame.columns[1:], frame[:8640]
    frame = frame.with_columns(
        (pl.col(c) - learnt[c].mean()) / learnt.select(pl.col(c).std(ddof=0)).item() for c in channels
    )
    start = {"valid": 8640, "test": 11520}[part]
    long = frame.unpivot(index="date", variable_name="channel", value_name="y")
    when = frame["date"]
    fit, valid = (long.filter(pl.col("date").is_between(when[a], when[b - 1])) for a, b in ((0, 8640), (8640, 11520)))
    watch, found = Stopwatch(), []
    for seed in seeds:
        model = Forecaster(
            96,
            id="channel",
            time="date",
            target="y",
            context=ETTH1_HISTORY - ETTH1_SEASON,
            season=ETTH1_SEASON,
            config=_config(seed, settings),
        )
        with watch:
            model.fit(fit, valid=valid)
            windows, truth = _windows(model, long, start, start + 2880)
            made = model.quantiles_at(windows, windows.offsets[1:] - 1)[:, :, 0]
        past = windows.target[:, 0].reshape(-1, ETTH1_HISTORY)
        low, point, high = made[..., 0], made[..., model.config_.head.median], made[..., -1]
        own = _squares(point, truth) | _inside(low, truth, high)
        day = np.tile(past[:, -24:], 4)
        found.append({"LSTM": own, "last day": _squares(day, truth), "last value": _squares(past[:, -1:], truth)})
    rows, sd = over_seeds(found, ("MSE", "MAE", COVER, OFF))
    return Outcome(
        "etth1",
        f"ETTh1, 96 hours to 96 hours, all 7 channels, standardised by rows 0 to 8639; {part} rows {start} to "
        f"{start + 2879}, stopped early on rows 8640 to 11519; each window shows the model its 96 rows only.",
        _flag(settings),
        len(seeds),
        rows,
        sd,
        {"MSE": ("<=", 0.386), OFF: ("<=", 0.03)},
        watch.seconds,
        {"SegRNN": {"MSE": 0.368}, "iTransformer": {"MSE": 0.386}, "DLinear": {"MSE": 0.386}},
    )


def _windows(model: Forecaster, long: pl.DataFrame, start: int, stop: int) -> tuple[Series, Floats]:
    """Every window of 96 rows whose 96 rows to come lie in start ... stop, each a series of its own; and these rows."""
    table = model.config_.input
    series = read_table(long, table.roles, grid=table.grid, stamps=table.stamps)
    first = np.arange(start, stop - 95)
    origins = (series.offsets[:-1, None] + first).reshape(-1)
    past = origins[:, None] + np.arange(-ETTH1_HISTORY, 0)
    truth = series.target[origins[:, None] + np.arange(96), 0]
    rows = past.reshape(-1)
    count = len(origins)
    cut = dataclasses.replace(
        series,
        ids=list(range(count)),
        offsets=ETTH1_HISTORY * np.arange(count + 1),
        time=series.time[rows],
        target=series.target[rows],
        features=series.features[rows],
        known=series.known[rows],
        static=np.zeros((count, 0)),
        row=series.row[rows],
    )
    return cut, truth


def _squares(forecast: Floats, truth: Floats) -> dict[str, float | None]:
    error = forecast - truth
    return {"MSE": float(np.square(error).mean()), "MAE": float(np.abs(error).mean())}


def pm25(seeds: Sequence[int] = (0, 1, 2), part: Part = "test", dropout: float = 0.2, **settings: Any) -> Outcome:
    """PM2.5 in Beijing, the next hour, from itself and the weather up to now; gaps as they are, observed hours count.

    Trained on 2010, tested on 2011 to 2014; for choices on the first three quarters of 2010, judged on the last.
    """
    settings = {"dropout": dropout} | settings
    frame = _beijing()
    end, stop = (8760, len(frame)) if part == "test" else (6570, 8760)
    watch, found = Stopwatch(), []
    for seed in seeds:
        model = Forecaster(1, time="time", target="pm25", config=_config(seed, settings))
        with watch:
            model.fit(frame[:end])
            series = read_table(frame[:stop], model.config_.input.roles, grid=model.config_.input.grid, stamps=True)
            y = series.target[:, 0]
            origins = np.arange(end - 1, stop - 1)
            origins = origins[np.isfinite(y[origins + 1])]
            made = model.quantiles_at(series, origins)[:, 0, 0]
        truth, low, high = y[origins + 1], made[:, 0], made[:, -1]
        point = made[:, model.config_.head.median]
        own = {"RMSE": _rmse(point, truth), "MAE": _mae(point, truth)} | _inside(low, truth, high)
        rest = {f"{hours} h before": _naive(y, origins, hours) for hours in (1, 24)} | {
            "ridge": _ridge(frame, end, origins)
        }
        found.append({"LSTM": own} | {k: {"RMSE": _rmse(v, truth), "MAE": _mae(v, truth)} for k, v in rest.items()})
    rows, sd = over_seeds(found, ("RMSE", "MAE", COVER, OFF))
    return Outcome(
        "pm25",
        f"PM2.5 in Beijing (ug/m3), one hour ahead from every hour of "
        f"{'2011 to 2014, fitted to 2010' if part == 'test' else 'October to December 2010, fitted to the rest of it'};"
        " weather up to now only; hours without a measurement are not filled in and not scored, but forecast from.",
        _flag(settings),
        len(seeds),
        rows,
        sd,
        {"RMSE": ("<=", 23.4), OFF: ("<=", 0.03)},
        watch.seconds,
        {},
    )


def _beijing() -> pl.DataFrame:
    import polars as pl

    frame = pl.read_csv(sets.folder("beijing_pm25") / "pollution.csv.gz", null_values=["NA"], infer_schema_length=None)
    numbers = ("DEWP", "TEMP", "PRES", "Iws", "Is", "Ir")
    return frame.select(
        pl.datetime("year", "month", "day", "hour").alias("time"),
        pl.col("pm2.5").cast(pl.Float64).alias("pm25"),
        *(pl.col(name).cast(pl.Float64) for name in numbers),
        "cbwd",
    )


def _naive(y: Floats, origins: Ints, hours: int) -> Floats:
    """The last value observed at least `hours` before each hour to come; the first of all where there is none."""
    seen = np.isfinite(y)
    latest = np.maximum.accumulate(np.where(seen, np.arange(len(y)), int(seen.argmax())))
    return np.asarray(y[latest[np.maximum(origins + 1 - hours, 0)]])


def _ridge(frame: pl.DataFrame, end: int, origins: Ints) -> Floats:
    """Ridge regression of the next change on 24 filled lags, the weather and its last change, the hour of the day."""
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    y = frame["pm25"].to_numpy().astype(np.float64)
    weather = frame.drop("time", "pm25").to_dummies("cbwd").to_numpy().astype(np.float64)
    filled = _naive(y, np.arange(len(y)) - 1, 0)

    def design(at: Ints) -> Floats:
        lags = filled[np.maximum(at[:, None] - np.arange(24), 0)]
        angle = 2 * np.pi * (at[:, None] + 1) / 24
        return np.concatenate([lags, weather[at], weather[at] - weather[at - 1], np.sin(angle), np.cos(angle)], 1)

    learn = np.arange(24, end - 1)
    learn = learn[np.isfinite(y[learn]) & np.isfinite(y[learn + 1])]
    scaler = StandardScaler().fit(design(learn))
    model = RidgeCV(10.0 ** np.arange(0, 5)).fit(scaler.transform(design(learn)), y[learn + 1] - y[learn])
    return np.asarray(filled[origins] + model.predict(scaler.transform(design(origins))))


def _rmse(forecast: Floats, truth: Floats) -> float:
    return float(np.sqrt(np.square(forecast - truth).mean()))


def _mae(forecast: Floats, truth: Floats) -> float:
    return float(np.abs(forecast - truth).mean())


def co2_weekly(seeds: Sequence[int] = (0, 1, 2), **settings: Any) -> Outcome:
    """The demo's backtest: weekly CO2 with 59 gaps, a year ahead over the last five years, an ensemble of three."""
    from carousel import evaluate

    frame = co2()
    watch, found = Stopwatch(), []
    for seed in seeds:
        model = Forecaster(HORIZON, time="week", target="co2", seeds=SEEDS, config=_config(SEEDS * seed, settings))
        with watch:
            model.fit(frame.head(len(frame) - HELD_OUT))
        made = evaluate.evaluate(model, frame, stride=4)
        found.append(
            {row.model: {"MASE": row.mase, "RMSE": row.rmse} | _cover(row.coverage["90"]) for row in made.rows}
        )
    rows, sd = over_seeds(found, ("MASE", "RMSE", COVER, OFF))
    return Outcome(
        "co2",
        "CO2 at Mauna Loa, weekly with 59 gaps: 52 weeks ahead from every fourth week of the last five years, fitted"
        f" to the rows before them; {SEEDS} members.",
        _flag(settings),
        len(seeds),
        rows,
        sd,
        {
            "MASE": ("<=", min(row["MASE"] or np.inf for name, row in rows.items() if name != "LSTM")),
            OFF: ("<=", 0.03),
        },
        watch.seconds,
        {},
    )


def _inside(low: Floats, truth: Floats, high: Floats) -> dict[str, float | None]:
    return _cover(float(((low <= truth) & (truth <= high)).mean()))


def _cover(share: float) -> dict[str, float | None]:
    return {COVER: share, OFF: abs(share - 0.9)}


def _config(seed: int, settings: Mapping[str, Any]) -> TrainConfig:
    return dataclasses.replace(TrainConfig(seed=1000 * seed), **settings)


def _flag(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items() if name != "threads")
