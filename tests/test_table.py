"""Tables: every fault is found at reading, every clock keeps its type, absent rows become unobserved ones."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pytest

from carousel.errors import DataError
from carousel.inputs.clock import Clock, Grid, calendar_features, cycles, infer_grid, useful_calendar
from carousel.inputs.origins import SkippedSeries, last_origins, long_enough
from carousel.inputs.seasons import infer_seasons
from carousel.inputs.table import Roles, infer_roles, read_table, write_table

DAY = 86400.0
ROLES = Roles("shop", "day", ("sales",), ("price", "weather"), ("region",), ("promo",))


def shops() -> pl.DataFrame:
    """Two shops, unsorted; shop b lacks 4 January, and one value of sales is missing."""
    return pl.DataFrame(
        {
            "shop": ["b", "a", "a", "a", "b", "b", "a"],
            "day": [date(2024, 1, d) for d in (5, 1, 2, 3, 3, 2, 4)],
            "sales": [50.0, 1.0, None, 3.0, 30.0, 20.0, 4.0],
            "price": [1, 2, 3, 4, 5, 6, 7],
            "weather": ["sun", "rain", None, "sun", "snow", "sun", "rain"],
            "region": ["north", "south", "south", None, "north", "north", "south"],
            "promo": [0, 1, 0, 1, 0, 1, 0],
        }
    )


def test_rows_are_sorted_and_absent_ones_become_unobserved() -> None:
    s = read_table(shops(), ROLES)
    assert s.ids == ["a", "b"]
    assert s.offsets.tolist() == [0, 4, 8]
    assert s.grid == Grid("even", DAY)
    start = np.datetime64("2024-01-01").astype("datetime64[s]").astype(float)
    np.testing.assert_array_equal(s.time, start + DAY * np.array([0, 1, 2, 3, 1, 2, 3, 4]))
    np.testing.assert_array_equal(s.target[:, 0], [1, np.nan, 3, 4, 20, 30, np.nan, 50])
    np.testing.assert_array_equal(s.features[:, 0], [2, 3, 4, 7, 6, 5, np.nan, 1])
    np.testing.assert_array_equal(s.row, [2, 3, 4, 7, 6, 5, 0, 1])
    assert s.categories == {"weather": ("rain", "snow", "sun"), "region": ("north", "south")}
    np.testing.assert_array_equal(s.features[:, 1], [0, np.nan, 2, 0, 2, 1, np.nan, 2])
    np.testing.assert_array_equal(s.static[:, 0], [1, 0])
    np.testing.assert_array_equal(s.known[:, 0], [1, 0, 1, 0, 1, 0, np.nan, 0])


def test_select_keeps_every_part_of_the_chosen_series() -> None:
    s = read_table(shops(), ROLES).select(np.array([1]))
    assert s.ids == ["b"]
    np.testing.assert_array_equal(s.target[:, 0], [20, 30, np.nan, 50])
    np.testing.assert_array_equal(s.offsets, [0, 4])
    np.testing.assert_array_equal(s.static[:, 0], [0])


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow"])
def test_every_frame_gives_the_same_series_and_its_own_kind_back(kind: str) -> None:
    frame = shops()
    given = {"pandas": frame.to_pandas(), "polars": frame, "arrow": frame.to_arrow()}[kind]
    if kind == "pandas":
        given["day"] = pd.to_datetime(given["day"])
    s, reference = read_table(given, ROLES), read_table(frame, ROLES)
    for name in ("offsets", "time", "target", "features", "known", "static", "row"):
        np.testing.assert_array_equal(getattr(s, name), getattr(reference, name))
    last = s.time[s.offsets[1:] - 1]
    made = write_table(s, np.array([0, 1]), s.grid.ahead(last, np.array([1, 2])), {"step": np.array([1, 2])})
    assert type(made) is type(given)
    plain = made if kind == "polars" else pl.from_pandas(made) if kind == "pandas" else pl.from_arrow(made)
    assert plain["shop"].to_list() == ["a", "b"]
    assert plain["day"].cast(pl.Date).to_list() == [date(2024, 1, 5), date(2024, 1, 7)]
    assert plain["step"].to_list() == [1, 2]


def bad(frame: pl.DataFrame, roles: Roles = ROLES) -> str:
    with pytest.raises(DataError) as caught:
        read_table(frame, roles, source="shops.csv")
    text = str(caught.value)
    assert text.startswith("shops.csv")
    assert "\n" not in text
    assert text.endswith((".", "?"))
    return text


def test_faults_name_source_row_column_and_remedy() -> None:
    frame = shops()
    assert "no column 'sales'; did you mean 'sale'?" in bad(frame.rename({"sales": "sale"}))
    text = bad(frame.with_columns(sales=pl.Series(["1", "2", "x7", "4", "5", "6", "7"])))
    assert "row 3, column 'sales': 'x7' is not a number" in text
    text = bad(frame.with_columns(price=pl.Series(["1", "2", "3", "4", "?", "6", "7"])))
    assert "row 5, column 'price': '?' is not a number" in text
    text = bad(frame.with_columns(shop=pl.lit("a")))
    assert "row 6, column 'day': series 'a' has the time 2024-01-02 a second time (first in row 3)" in text
    text = bad(frame.with_columns(day=pl.Series(["2024-01-01"] * 3 + ["soon"] + ["2024-01-02"] * 3)))
    assert "row 4, column 'day': 'soon' is not a time" in text
    assert "column 'sales': no value of the target is observed" in bad(
        frame.with_columns(sales=pl.lit(None, pl.Float64))
    )
    text = bad(frame.with_columns(price=pl.Series([1.0, 2, 3, float("inf"), 5, 6, 7])))
    assert "row 4, column 'price': the value is infinite" in text
    assert "no rows" in bad(frame.clear())
    text = bad(frame.with_columns(region=pl.Series(["north", "south", "south", None, "east", "north", "south"])))
    assert "column 'region'" in text
    assert "series 'b'" in text
    text = bad(frame.with_columns(shop=pl.Series(["b", "a", None, "a", "b", "b", "a"])))
    assert "row 3, column 'shop': the id is missing" in text
    text = bad(frame.with_columns(day=pl.Series([*frame["day"][:6], None])))
    assert "row 7, column 'day': the time is missing" in text
    with pytest.raises(DataError, match="expected a pandas, polars or Arrow table but got list"):
        read_table([1, 2], ROLES)
    with pytest.raises(DataError, match="column 'sales' is named as target and as features"):
        Roles(target=("sales",), features=("sales",))


def test_roles_are_inferred_only_where_the_table_is_plain() -> None:
    frame = shops().select("day", "sales", "weather")
    given = {"id": None, "time": None, "target": (), "static": (), "known": ()}
    assert infer_roles(frame, features=None, **given) == Roles(None, "day", ("sales",), ("weather",))
    assert infer_roles(frame, features=(), **given) == Roles(None, "day", ("sales",))
    with pytest.raises(DataError, match="name the target, one of sales, price, promo"):
        infer_roles(shops(), features=None, **given)


def stamps(*texts: str) -> np.ndarray:
    return np.array(texts, "datetime64[s]").astype(float)


@pytest.mark.parametrize(
    ("times", "kind", "step", "later"),
    [
        (("2024-01-31", "2024-02-29", "2024-03-31", "2024-05-31"), "month_end", 1, "2024-07-31"),
        (("2023-11-15", "2023-12-15", "2024-01-15", "2024-02-15"), "month", 1, "2024-04-15"),
        (("2020-01-01", "2021-01-01", "2022-01-01", "2024-01-01"), "month", 12, "2026-01-01"),
        (("2024-01-01", "2024-04-01", "2024-07-01", "2024-10-01"), "month", 3, "2025-04-01"),
        (("2024-01-01", "2024-01-08", "2024-01-22", "2024-01-29"), "even", 7 * DAY, "2024-02-12"),
    ],
)
def test_grids_of_the_calendar(times: tuple[str, ...], kind: str, step: float, later: str) -> None:
    time = stamps(*times)
    grid = infer_grid(time, np.array([0, len(time)]), stamps=True)
    assert grid == Grid(kind, step)
    assert grid.ahead(time[-1:], 2).tolist() == stamps(later).tolist()


def test_business_days_skip_weekends_in_both_directions() -> None:
    days = pd.bdate_range("2024-01-01", periods=30).to_numpy().astype("datetime64[s]").astype(float)
    days = np.delete(days, 7)  # a holiday
    s = read_table(
        pl.DataFrame({"t": (days * 1e6).astype("datetime64[us]"), "y": np.arange(29.0)}), Roles(None, "t", ("y",))
    )
    assert s.grid == Grid("business", 1.0)
    assert len(s.time) == 30
    assert np.isnan(s.target[7, 0])
    assert s.grid.ahead(s.time[-1:], 1).tolist() == stamps("2024-02-12").tolist()


def test_uneven_clocks_keep_their_rows() -> None:
    time = np.array([0.0, 1.3, 1.9, 4.4, 10.0])
    s = read_table(pl.DataFrame({"t": time, "y": np.ones(5)}), Roles(None, "t", ("y",)))
    assert s.grid.kind == "uneven"
    np.testing.assert_array_equal(s.time, time)
    assert s.step == np.median(np.diff(time))


def test_times_off_the_trained_grid_are_refused() -> None:
    frame = pl.DataFrame({"t": [0.0, 1.0, 2.5], "y": [1.0, 2, 3]})
    with pytest.raises(DataError, match=r"row 3, column .t.: the time 2\.5 does not lie on the even grid of step 1"):
        read_table(frame, Roles(None, "t", ("y",)), grid=Grid("even", 1.0))


def test_local_days_over_a_change_of_the_clocks() -> None:
    zone = ZoneInfo("Europe/Berlin")
    days = [datetime(2024, 3, 28, tzinfo=zone) + timedelta(days=k) for k in range(7)]  # 31 March has 23 hours
    frame = pl.DataFrame({"t": pl.Series(days).dt.convert_time_zone("Europe/Berlin"), "y": np.arange(7.0)})
    s = read_table(frame, Roles(None, "t", ("y",)))
    assert s.grid == Grid("even", DAY, wall=True, zone="Europe/Berlin")
    made = write_table(s, np.zeros(1, int), s.grid.ahead(s.time[-1:], 1), {"x": [1.0]})
    assert made["t"].dtype == frame["t"].dtype
    assert made["t"][0] == datetime(2024, 4, 4, tzinfo=zone)


def test_hours_with_a_zone_stay_in_utc_and_have_a_local_calendar() -> None:
    start = datetime(2024, 3, 30, tzinfo=ZoneInfo("UTC"))
    hours = pl.Series([start + timedelta(hours=k) for k in range(72)]).dt.convert_time_zone("Europe/Berlin")
    s = read_table(pl.DataFrame({"t": hours, "y": np.arange(72.0)}), Roles(None, "t", ("y",)))
    assert s.grid == Grid("even", 3600.0, zone="Europe/Berlin")
    assert len(s.time) == 72
    local = s.clock.local(s.time, s.grid) / 3600 % 24
    assert local[:2].tolist() == [1, 2]  # UTC + 1
    assert local[48:50].tolist() == [2, 3]  # UTC + 2 after the change


@pytest.mark.parametrize("step", [timedelta(hours=1), timedelta(days=1)])
def test_the_same_moments_in_another_zone_are_read_in_that_of_the_model(step: timedelta) -> None:
    start = datetime(2024, 3, 25, tzinfo=ZoneInfo("Europe/Berlin"))
    moments = [start + k * step for k in range(240)]  # by the wall clock
    if step < timedelta(days=1):
        moments = [start.astimezone(ZoneInfo("UTC")) + k * step for k in range(240)]
    hours = pl.Series([m.astimezone(ZoneInfo("UTC")) for m in moments]).dt.convert_time_zone("Europe/Berlin")
    berlin = pl.DataFrame({"t": hours, "y": np.arange(240.0)})
    tokyo = berlin.with_columns(pl.col("t").dt.convert_time_zone("Asia/Tokyo"))
    s = read_table(berlin, Roles(None, "t", ("y",)))
    other = read_table(tokyo, s.roles, grid=s.grid, stamps=True)
    np.testing.assert_array_equal(other.time, s.time)
    np.testing.assert_array_equal(other.clock.local(other.time, s.grid), s.clock.local(s.time, s.grid))
    ahead = s.grid.ahead(s.time[-1:], 1)
    made = [write_table(one, np.zeros(1, int), ahead, {"x": [1.0]})["t"] for one in (s, other)]
    assert made[1].dtype == tokyo["t"].dtype
    assert made[0][0] == made[1][0]
    assert made[0][0] > moments[-1]
    plain = berlin.with_columns(pl.col("t").dt.replace_time_zone(None))
    with pytest.raises(
        DataError, match=r"column 't': .* in the time zone Europe/Berlin, these are without a time zone"
    ):
        read_table(plain, s.roles, grid=s.grid, stamps=True)
    grid = read_table(plain, s.roles).grid
    with pytest.raises(DataError, match="without a time zone, these are in the time zone Europe/Berlin; convert them"):
        read_table(berlin, s.roles, grid=grid, stamps=True)


@pytest.mark.parametrize(
    ("column", "written"),
    [
        (pl.Series([1, 2, 3]), 4),
        (pl.Series([0.5, 1.0, 1.5]), 2.0),
        (pl.Series(["2024-01", "2024-02", "2024-03"]), "2024-04"),
        (pl.Series(["2024-01-01", "2024-01-02", "2024-01-03"]), "2024-01-04"),
        (pl.Series(["2024-01-01 06:00:00", "2024-01-01 12:00:00", "2024-01-01 18:00:00"]), "2024-01-02 00:00:00"),
        (pl.Series([date(2024, 1, 1), date(2024, 1, 3), date(2024, 1, 5)]), date(2024, 1, 7)),
        (pl.Series([datetime(2024, 1, 1), datetime(2024, 1, 2), datetime(2024, 1, 3)]), datetime(2024, 1, 4)),
    ],
)
def test_times_go_back_in_the_users_type(column: pl.Series, written: object) -> None:
    s = read_table(pl.DataFrame({"t": column, "y": [1.0, 2, 3]}), Roles(None, "t", ("y",)))
    made = write_table(s, np.zeros(1, int), s.grid.ahead(s.time[-1:], 1), {"x": [1.0]})
    assert made["t"].dtype == column.dtype
    assert made["t"][0] == written


def test_rows_number_themselves_without_a_time_column() -> None:
    s = read_table(pl.DataFrame({"k": ["b", "a", "b"], "y": [1.0, 2, 3]}), Roles("k", None, ("y",)))
    assert s.time.tolist() == [0, 0, 1]
    assert s.target[:, 0].tolist() == [2, 1, 3]
    assert s.clock == Clock("row")


def test_future_rows_bring_known_columns_only() -> None:
    frame = shops()
    future = pl.DataFrame({"shop": ["a"], "day": [date(2024, 1, 5)], "promo": [1]})
    s = read_table(frame, ROLES, future=future)
    assert s.offsets.tolist() == [0, 5, 9]
    assert np.isnan(s.target[4, 0])
    assert s.known[4, 0] == 1
    assert s.row[4] == 8
    with pytest.raises(DataError, match="future: there is no column 'promo'"):
        read_table(frame, ROLES, future=future.drop("promo"))
    with pytest.raises(DataError, match=r"row 1 of the added rows, column 'day': series 'a'"):
        read_table(frame, ROLES, future=future.with_columns(day=date(2024, 1, 4)))
    with pytest.raises(DataError, match="future: give a polars table"):
        read_table(frame, ROLES, future=future.to_pandas())


def test_calendar_features_of_known_days() -> None:
    found = calendar_features(
        stamps("2024-01-01T06:00", "2024-07-01T00:00"), ("hour_of_day", "day_of_week", "day_of_year")
    )
    np.testing.assert_allclose(found[0, :2], [1, 0], atol=1e-12)  # six o'clock: a quarter of the day
    np.testing.assert_allclose(found[1, 2:4], [0, 1], atol=1e-12)  # a Monday starts the week
    angle = 2 * np.pi * 182 / 365.25  # 182 days from 1 January to 1 July of a leap year
    np.testing.assert_allclose(found[1, 4:], [np.sin(angle), np.cos(angle)], atol=1e-12)
    week = stamps("2020-01-01") + 7 * DAY * np.arange(150)
    assert useful_calendar(Grid("even", 7 * DAY), week) == ("day_of_year",)


def test_seasons_from_autocorrelation_and_clock() -> None:
    rng = np.random.default_rng(3)
    t = np.arange(600)
    wave = 3 * np.sin(2 * np.pi * t / 12) + rng.normal(size=600).cumsum() * 0.3
    both = 2 * np.sin(2 * np.pi * t / 6) + (t % 42 < 30) + 0.1 * rng.normal(size=600)
    hours = np.datetime64("2024-01-01", "us") + t * np.timedelta64(1, "h")
    roles = Roles(None, "t", ("y",))
    assert infer_seasons(read_table(pl.DataFrame({"t": t, "y": wave}), roles)) == (12,)
    assert infer_seasons(read_table(pl.DataFrame({"t": t, "y": both}), roles)) == (6, 42)
    assert infer_seasons(read_table(pl.DataFrame({"t": t, "y": rng.normal(size=600).cumsum()}), roles)) == ()
    assert infer_seasons(read_table(pl.DataFrame({"t": t, "y": rng.normal(size=600)}), roles)) == ()
    day = np.sin(2 * np.pi * t / 24) + 0.5 * rng.normal(size=600)
    assert infer_seasons(read_table(pl.DataFrame({"t": hours, "y": day}), roles)) == (24,)
    assert cycles(Grid("even", 7 * DAY)) == (52,)
    assert cycles(Grid("uneven", 1.0)) == ()


def bad_of(call) -> str:
    with pytest.raises(DataError) as caught:
        call()
    return str(caught.value)


def test_numbers_of_an_object_column_are_numbers() -> None:
    frame = pd.DataFrame({"t": [1, 2, 3], "y": pd.Series([1.5, None, 3], dtype=object)})
    np.testing.assert_array_equal(read_table(frame, Roles(None, "t", ("y",))).target[:, 0], [1.5, np.nan, 3])


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_timestamps_after_2262_keep_their_order(kind: str) -> None:
    days = [datetime(2261, 12, 31), datetime(2262, 12, 31), datetime(2263, 12, 31)]
    frame = pl.DataFrame({"t": pl.Series(days, dtype=pl.Datetime("us")), "y": [1.0, 2.0, 3.0]})
    s = read_table(frame.to_pandas() if kind == "pandas" else frame, Roles(None, "t", ("y",)))
    np.testing.assert_array_equal(s.time, stamps("2261-12-31", "2262-12-31", "2263-12-31"))
    assert s.target[:, 0].tolist() == [1, 2, 3]
    made = write_table(s, np.zeros(1, int), s.grid.ahead(s.time[-1:], 1), {"x": [1.0]})
    assert made["t"][0] == datetime(2264, 12, 30)


@pytest.mark.parametrize("kind", ["pandas", "polars"])
@pytest.mark.parametrize(
    ("first", "hour", "minute", "utc"),
    [
        (datetime(2024, 3, 25), 2, 30, datetime(2024, 3, 31, 1, 30)),  # 02:30 does not exist: 03:30 summer time
        (datetime(2024, 10, 21), 2, 30, datetime(2024, 10, 27, 0, 30)),  # 02:30 occurs twice: the first
    ],
)
def test_forecasts_over_a_change_of_the_clocks(kind: str, first, hour, minute, utc) -> None:
    zone = ZoneInfo("Europe/Berlin")
    # Two series, so that one has its change of the clocks behind it and the grid is that of the wall clock.
    old = [datetime(2023, 3, 24, hour, minute) + timedelta(days=k) for k in (0, 1, 3, 4, 5, 6)]
    new = [first.replace(hour=hour, minute=minute) + timedelta(days=k) for k in range(6)]
    days = pl.Series([d.replace(tzinfo=zone) for d in old + new]).dt.convert_time_zone("Europe/Berlin")
    frame = pl.DataFrame({"k": ["a"] * 6 + ["b"] * 6, "t": days, "y": np.arange(12.0)})
    s = read_table(frame.to_pandas() if kind == "pandas" else frame, Roles("k", "t", ("y",)))
    assert s.grid == Grid("even", DAY, wall=True, zone="Europe/Berlin")
    last = s.time[s.offsets[2] - 1]
    made = write_table(s, np.ones(2, int), s.grid.ahead(last, np.array([1, 2])), {"x": [1.0, 2.0]})
    expected = [utc, (utc + timedelta(days=1)).replace(hour=hour, minute=minute, tzinfo=zone)]
    assert made["t"][0].timestamp() == expected[0].replace(tzinfo=ZoneInfo("UTC")).timestamp()
    assert made["t"][1] == expected[1]


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt8, pl.Int32])
def test_times_ahead_do_not_overflow_narrow_integers(dtype) -> None:
    frame = pl.DataFrame({"t": pl.Series([125, 126, 127], dtype=dtype), "y": [1.0, 2, 3]})
    s = read_table(frame, Roles(None, "t", ("y",)))
    made = write_table(s, np.zeros(200, int), s.grid.ahead(s.time[-1:], np.arange(1, 201)), {"x": np.ones(200)})
    assert made["t"].dtype == pl.Int64
    assert made["t"].to_list() == list(range(128, 328))


@pytest.mark.parametrize("grid", [Grid("even", DAY), Grid("month", 1.0), Grid("month_end", 1.0)])
def test_a_row_off_the_grid_of_nearly_all_is_named(grid: Grid) -> None:
    first = stamps("2024-01-31" if grid.kind == "month_end" else "2024-01-01")
    time = grid.ahead(np.repeat(first, 24), np.arange(24))
    time[17] += 3600
    frame = pl.DataFrame({"t": (time * 1e6).astype("datetime64[us]"), "y": np.arange(24.0)})
    step = "1 day" if grid.kind == "even" else "1 month"
    with pytest.warns(UserWarning, match=rf"^log, row 18, column 't': the time .* 01:00:00 .* the grid of {step} that"):
        s = read_table(frame, Roles(None, "t", ("y",)), source="log")
    assert s.grid.kind == "uneven"
    assert len(s.time) == 24


def test_a_row_years_off_is_named_and_not_filled_up_to() -> None:
    roles = Roles(None, "t", ("y",))
    frame = pl.DataFrame({"t": [*range(40), 10**9], "y": np.arange(41.0)})
    with pytest.warns(UserWarning, match=r"row 41, column 't': the time 1e\+09 does not follow .* the grid of 1 that"):
        assert read_table(frame, roles).grid.kind == "uneven"
    text = bad_of(lambda: read_table(frame, roles, grid=Grid("even", 1.0)))
    assert "data, row 41, column 't': the time 1e+09 lies 999999961 steps of 1 after the row before" in text
    gap = pl.DataFrame({"t": [0, 1, 1000], "y": [1.0, 2, 3]})
    assert len(read_table(gap, roles, grid=Grid("even", 1.0)).time) == 1001


@pytest.mark.parametrize(
    ("times", "pattern"),
    [
        ([202211, 202212, 202301], r"'t': times like 202211 look like YYYYMM but count .* write them as 2022-12\."),
        ([20240228, 20240229, 20240301], r"times like 20240228 look like YYYYMMDD .* write them as 2022-12-30\."),
    ],
)
def test_dates_written_as_numbers_are_remarked_upon(times: list[int], pattern: str) -> None:
    with pytest.warns(UserWarning, match=pattern):
        read_table(pl.DataFrame({"t": times, "y": [1.0, 2, 3]}), Roles(None, "t", ("y",)))


@pytest.mark.parametrize("times", [[202211, 202212, 202213], [20230228, 20230229, 20230301], [1, 2, 3]])
def test_other_whole_numbers_pass_without_a_remark(times: list[int]) -> None:
    s = read_table(pl.DataFrame({"t": times, "y": [1.0, 2, 3]}), Roles(None, "t", ("y",)))
    assert s.time[: len(times)].tolist()[0] == times[0]


def test_series_with_too_few_observed_rows_are_refused() -> None:
    frame = pl.DataFrame(
        {
            "k": ["a"] * 120 + ["b"] * 120,
            "t": [*range(120)] * 2,
            "y": [*map(float, range(120)), *[None] * 119, 4.0],
        }
    )
    s = read_table(frame, Roles("k", "t", ("y",)))
    text = bad_of(lambda: last_origins(s, None))
    assert "data, column 'y': series 'b' has fewer than 2 observed rows to forecast from" in text
    assert last_origins(s.select(np.array([0])), None).tolist() == [119]
    text = bad_of(lambda: long_enough(s, 5, holdout=True, skip_short=False))
    assert "series 'b' has fewer than 2 observed values of the target (observed: 1 of 120 rows); fill them in" in text
    with pytest.warns(SkippedSeries, match="series 'b' has fewer than 2 observed values"):
        assert long_enough(s, 5, holdout=True, skip_short=True).ids == ["a"]


@pytest.mark.parametrize("role", ["target", "features", "known", "static"])
def test_values_too_large_to_compute_with_are_named(role: str) -> None:
    frame = pl.DataFrame({"t": range(9), "y": np.arange(9.0), "x": [1.0] * 9})
    name = "y" if role == "target" else "x"
    frame = frame.with_columns(pl.when(pl.col("t") == 4).then(-1e300).otherwise(pl.col(name)).alias(name))
    roles = Roles(None, "t", ("y",), **({} if role == "target" else {role: ("x",)}))
    with pytest.raises(DataError, match=rf"^data, row 5, column '{name}': the value -1e\+300 is too large to compute"):
        read_table(frame, roles)
