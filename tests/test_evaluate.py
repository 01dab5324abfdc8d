"""The backtest: baselines and metrics against slow loops and literal numbers, and nothing looks ahead."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from carousel import Forecaster, TrainConfig
from carousel.baselines import BASELINES, Rows, forecasts, seasonal_scale
from carousel.errors import DataError
from carousel.evaluate import MODEL, backtest, evaluate, rolling_origins
from carousel.inputs.table import Roles, Series, read_table

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def make(lengths=(40, 23, 31), targets=1, gaps=0.2, seed=0) -> Series:
    rng = np.random.default_rng(seed)
    frames = []
    for b, n in enumerate(lengths):
        t = np.arange(n)
        columns = {"who": [f"s{b}"] * n, "t": t}
        for k in range(targets):
            y = 10 + b + 0.3 * t + 3 * np.sin(2 * np.pi * t / 7 + k) + rng.normal(size=n)
            y[rng.random(n) < gaps] = np.nan
            columns[f"y{k}"] = y
        frames.append(pl.DataFrame(columns))
    roles = Roles("who", "t", tuple(f"y{k}" for k in range(targets)))
    return read_table(pl.concat(frames).with_columns(pl.selectors.float().fill_nan(None)), roles)


def first_of(series: Series, origins: np.ndarray) -> np.ndarray:
    owner = np.searchsorted(series.offsets, origins, side="right") - 1
    return np.array([origins[owner == b].min() for b in range(len(series.ids))])


def slow_naive(y: np.ndarray, origin: int, step: int, season: int, drift: bool) -> float:
    """One forecast of one series, by search."""
    observed = [t for t in range(origin + 1) if not math.isnan(y[t])]
    if not observed:
        return math.nan
    phase = [t for t in observed if (origin + step - t) % season == 0]
    source = phase[-1] if phase else observed[-1]
    changes = [y[t] - y[t - season] for t in observed if t >= season and not math.isnan(y[t - season])]
    slope = sum(changes) / len(changes) if drift and changes else 0.0
    return y[source] + slope * (origin + step - source) / season


@pytest.mark.parametrize("season", [1, 7])
@pytest.mark.parametrize("name", ["last value", "seasonal naive", "seasonal naive with drift"])
def test_naive_forecasts_equal_a_search_row_by_row(name, season):
    series = make(targets=2, gaps=0.35)
    origins = rolling_origins(series, 9, windows=8, stride=2)
    rows = Rows(series, first_of(series, origins), season)
    made = BASELINES[name](rows, origins, 9)
    for n, origin in enumerate(origins):
        b = int(np.searchsorted(series.offsets, origin, side="right")) - 1
        begin, end = series.offsets[b], series.offsets[b + 1]
        for k in range(2):
            y = series.target[begin:end, k]
            if name == "last value":
                seen = y[: origin - begin + 1]
                wanted = [seen[~np.isnan(seen)][-1]] * 9
            else:
                wanted = [slow_naive(y, origin - begin, h, season, "drift" in name) for h in range(1, 10)]
            np.testing.assert_allclose(made[n, :, k], wanted, rtol=1e-12)


@pytest.mark.parametrize("name", list(BASELINES))
def test_no_baseline_sees_what_comes_after_its_origin(name):
    series = make(gaps=0.2)
    origins = rolling_origins(series, 5, windows=6, stride=1)
    first = first_of(series, origins)
    point, spread = forecasts(name, Rows(series, first, 7), origins, 5, QUANTILES)
    for n, origin in enumerate(origins):
        b = int(np.searchsorted(series.offsets, origin, side="right")) - 1
        target = series.target.copy()
        target[origin + 1 : series.offsets[b + 1]] = 1e6
        changed = Series(**{f: getattr(series, f) for f in Series.__dataclass_fields__} | {"target": target})
        again = forecasts(name, Rows(changed, first, 7), origins, 5, QUANTILES)
        np.testing.assert_array_equal(again[0][n], point[n])
        np.testing.assert_array_equal(again[1][n], spread[n])


def test_the_linear_model_continues_what_a_linear_recurrence_makes():
    t = np.arange(160)
    y = 5 + np.sin(2 * np.pi * t / 7) + 0.5 * np.cos(2 * np.pi * t / 11)
    frame = pl.DataFrame({"t": t, "y": y})
    series = read_table(frame, Roles(None, "t", ("y",)))
    origins = rolling_origins(series, 9, windows=5, stride=3)
    made = BASELINES["linear autoregression"](Rows(series, first_of(series, origins), 7), origins, 9)
    wanted = y[origins[:, None] + np.arange(1, 10)]
    assert np.abs(made[..., 0] - wanted).max() < 0.01


def test_baselines_have_intervals_that_cover_about_what_they_say():
    rng = np.random.default_rng(3)
    series = read_table(pl.DataFrame({"t": np.arange(900), "y": rng.normal(size=900)}), Roles(None, "t", ("y",)))
    origins = rolling_origins(series, 5, since=450.0, stride=1)
    result = backtest(series, lambda s, o: np.zeros((len(o), 5, 1, 5)), origins, horizon=5, quantiles=QUANTILES)
    for name in BASELINES:
        assert 0.85 < result.of(name).coverage["90"] < 0.95, name
        assert 0.43 < result.of(name).coverage["50"] < 0.57, name


def slow_metrics(series, origins, first, model, season):
    """Every figure of one target by loops, from its definition."""
    owner = np.searchsorted(series.offsets, origins, side="right") - 1
    per_mase, per_smape, squares, pinballs, inside, widths = [], [], [], [], [], []
    for b in range(len(series.ids)):
        y = series.target[:, 0]
        begin = series.offsets[b]
        changes = [abs(y[t] - y[t - season]) for t in range(begin + season, first[b] + 1)]
        scale = np.nanmean(changes)
        errors, relative = [], []
        for n in np.flatnonzero(owner == b):
            for h in range(model.shape[1]):
                truth = y[origins[n] + 1 + h]
                if math.isnan(truth):
                    continue
                fan = model[n, h, 0]
                error = abs(truth - fan[2])
                errors.append(error)
                relative.append(200 * error / (abs(truth) + abs(fan[2])))
                squares.append(error**2)
                pinballs += [max(q * (truth - f), (q - 1) * (truth - f)) for q, f in zip(QUANTILES, fan, strict=True)]
                inside.append(fan[0] <= truth <= fan[4])
                widths.append(fan[4] - fan[0])
        per_mase.append(np.mean(errors) / scale)
        per_smape.append(np.mean(relative))
    return [np.mean(v) for v in (per_mase, per_smape, squares, pinballs, inside, widths)]


def test_metrics_equal_their_definitions_on_random_forecasts():
    series = make(lengths=(60, 33, 47), gaps=0.15, seed=5)
    origins = rolling_origins(series, 6, windows=5, stride=2)
    rng = np.random.default_rng(1)
    model = np.sort(rng.normal(15, 6, (len(origins), 6, 1, 5)), -1)
    place = {int(o): n for n, o in enumerate(origins)}
    result = backtest(
        series, lambda s, o: model[[place[int(v)] for v in o]], origins, horizon=6, quantiles=QUANTILES, season=7
    )
    mase, smape, square, pinball, inside, width = slow_metrics(series, origins, first_of(series, origins), model, 7)
    row = result.of(MODEL)
    assert row.mase == pytest.approx(mase, rel=1e-12)
    assert row.smape == pytest.approx(smape, rel=1e-12)
    assert row.rmse == pytest.approx(math.sqrt(square), rel=1e-12)
    assert row.pinball == pytest.approx(pinball, rel=1e-12)
    assert row.coverage["90"] == pytest.approx(inside, rel=1e-12)
    assert row.width["90"] == pytest.approx(width, rel=1e-12)
    assert result.points == int((~np.isnan(series.target[origins[:, None] + np.arange(1, 7)])).sum())


def test_metrics_of_a_case_worked_by_hand():
    frame = pl.DataFrame({"t": range(6), "y": [1.0, 2.0, 4.0, 7.0, None, 9.0]})
    series = read_table(frame, Roles(None, "t", ("y",)))
    fan = np.array([[[[6.0, 8.0, 10.0]], [[0.0, 1.0, 2.0]], [[7.0, 8.0, 9.5]]]])  # of rows 3, 4 (unobserved), 5
    result = backtest(series, lambda s, o: fan, np.array([2]), horizon=3, quantiles=(0.1, 0.5, 0.9), season=1)
    row = result.of(MODEL)
    assert row.mase == pytest.approx(1.0 / 1.5)  # errors 1 and 1; changes before: 1 and 2
    assert row.smape == pytest.approx(100 * (1 / 15 * 2 + 1 / 17 * 2) / 2)
    assert row.rmse == pytest.approx(1.0)
    assert row.pinball == pytest.approx(((0.1 * 1 + 0.5 * 1 + 0.1 * 3) + (0.1 * 2 + 0.5 * 1 + 0.1 * 0.5)) / 6)
    assert row.coverage == {"80": 1.0}
    assert row.width["80"] == pytest.approx((4.0 + 2.5) / 2)
    assert result.of("last value").rmse == pytest.approx(math.sqrt((9 + 25) / 2))


def test_the_table_shows_every_baseline_also_when_one_wins(capsys):
    series = make(targets=2)
    origins = rolling_origins(series, 4, windows=3)
    bad = backtest(
        series,
        lambda s, o: np.full((len(o), 4, 2, 5), 500.0),
        origins,
        horizon=4,
        quantiles=QUANTILES,
        season=7,
        targets=("load", "[/x] price"),
    )
    assert [r.model for r in bad.rows if r.target == "[/x] price"] == [MODEL, *reversed(BASELINES)]
    assert "load: a baseline wins" in bad.verdict()
    assert bad.markdown().count("\n") == 1 + 2 * 5
    for name in BASELINES:
        assert bad.markdown().count(name + " |") >= 2
    assert bad.to_dict()["rows"][0]["model"] == MODEL
    assert bad.table().row_count == 10
    bad.show()  # names of columns are no markup
    assert "[/x] price" in capsys.readouterr().out


def test_constant_and_unseen_series_are_said_and_left_out():
    frame = pl.DataFrame(
        {
            "who": ["flat"] * 12 + ["late"] * 12 + ["fine"] * 12,
            "t": [*range(12)] * 3,
            "y": [3.0] * 12 + [None] * 9 + [1.0, 2.0, 3.0] + [float(v % 5) for v in range(12)],
        }
    )
    series = read_table(frame, Roles("who", "t", ("y",)))
    origins = rolling_origins(series, 3, windows=1)
    truth = {int(o): series.target[o + 1 : o + 4] for o in origins}
    perfect = backtest(
        series,
        lambda s, o: np.nan_to_num(np.array([truth[int(v)] for v in o]))[..., None] * np.ones(3),
        origins,
        horizon=3,
        quantiles=(0.1, 0.5, 0.9),
    )
    assert perfect.points == 6  # "late" has nothing up to its origin, so it counts for nobody
    assert perfect.of(MODEL).mase == 0.0
    assert perfect.notes == ("MASE of target leaves out 2 series that never change before (flat, late).",)


def test_the_scale_of_a_series_shorter_than_its_season_is_its_steps_of_one():
    frame = pl.DataFrame({"t": range(5), "y": [1.0, 2.0, 4.0, 8.0, 16.0]})
    series = read_table(frame, Roles(None, "t", ("y",)))
    assert seasonal_scale(series, np.array([3]), 2).tolist() == [[(3 + 6) / 2]]
    assert seasonal_scale(series, np.array([3]), 7).tolist() == [[(1 + 2 + 4) / 3]]


def test_origins_have_their_whole_horizon_and_start_where_asked():
    series = make(lengths=(40, 23, 4))
    origins = rolling_origins(series, 6, since=20.0, stride=5)
    assert origins.tolist() == [19, 24, 29]  # the second series ends at 22, the third at 3
    assert rolling_origins(series, 6, windows=2, stride=3).tolist() == [30, 33, 40 + 13, 40 + 16]
    assert len(rolling_origins(make(lengths=(1000,)), 6)) <= 64
    with pytest.raises(DataError, match="no series has 50 rows after its first origin"):
        rolling_origins(series, 50)


def test_a_model_that_gives_something_else_than_forecasts_is_refused():
    series = make()
    origins = rolling_origins(series, 4, windows=1)
    with pytest.raises(ValueError, match="median"):
        backtest(series, lambda s, o: np.zeros((len(o), 4, 1, 1)), origins, horizon=4, quantiles=(0.9,))
    with pytest.raises(ValueError, match="gave shape"):
        backtest(series, lambda s, o: np.zeros((len(o), 3, 1, 1)), origins, horizon=4, quantiles=(0.5,))
    with pytest.raises(ValueError, match="not finite"):
        backtest(series, lambda s, o: np.full((len(o), 4, 1, 1), np.nan), origins, horizon=4, quantiles=(0.5,))


def test_small_figures_show_their_digits_and_only_real_minima_are_bold():
    value = make(lengths=(30,), gaps=0).target[:, 0]
    small = read_table(pl.DataFrame({"t": range(30), "y": 1e-6 * value}), Roles(None, "t", ("y",)))
    found = backtest(
        small,
        lambda s, o: np.full((len(o), 3, 1, 3), 1e-5),
        rolling_origins(small, 3, windows=4),
        horizon=3,
        quantiles=(0.1, 0.5, 0.9),
        season=7,
    )
    rows = [[cell.strip("* ") for cell in line.split("|")[1:-1]] for line in found.markdown().splitlines()[2:]]
    for shown, row in zip(rows, found.rows, strict=True):
        assert float(shown[3]) == pytest.approx(row.rmse, rel=6e-3) != 0
        assert float(shown[4]) == pytest.approx(row.pinball, rel=6e-3) != 0
    assert found.markdown().count("**") == 2 * 4  # one method a column
    equal = replace(found, rows=tuple(replace(row, mase=1.0, rmse=0.0) for row in found.rows))
    assert equal.markdown().count("**") == 2 * 2


def test_values_whose_squares_leave_the_range_of_numbers_are_refused():
    frame = pl.DataFrame({"t": range(20), "y": [1.0 + v % 3 for v in range(20)]})
    series = read_table(frame, Roles(None, "t", ("y",)), source="big.csv")
    series = replace(series, target=series.target * 1e300)
    with pytest.raises(
        DataError, match=r"^big\.csv, row 3, column 'y': errors of values as large as 3e\+300 cannot be"
    ):
        backtest(
            series,
            lambda s, o: np.zeros((len(o), 3, 1, 3)),
            rolling_origins(series, 3),
            horizon=3,
            quantiles=(0.1, 0.5, 0.9),
            targets=("y",),
        )


def test_without_a_time_column_nothing_is_said_to_be_seen():
    rng = np.random.default_rng(3)
    wave = pl.DataFrame({"y": 5 + np.sin(np.arange(250) * 2 * np.pi / 7) + rng.normal(0, 0.1, 250)})
    quick = TrainConfig(hidden_size=4, width=4, steps=3, warmup=1, batch_size=8)
    model = Forecaster(3, season=7, config=quick).fit(wave.head(200))
    notes = evaluate(model, wave.tail(50)).notes
    assert notes == (
        "Without a time column nobody can tell whether these rows were seen in training; where they were, the LSTM's"
        " figures flatter it.",
    )
    assert evaluate(model, wave).notes == ()  # goes on after the 200 rows
    timed = wave.with_row_index("t")
    model = Forecaster(3, time="t", season=7, config=quick).fit(timed.head(200))
    assert evaluate(model, timed.head(200)).notes[0].startswith("Rows up to 199 were seen in training")
