"""Tables as files: every kind holds the same table, and what can be read two ways is refused."""

from __future__ import annotations

from datetime import date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from carousel.errors import DataError
from carousel.inputs.files import read_file
from carousel.inputs.table import Roles, infer_roles, read_table
from test_table import ROLES, bad, bad_of, shops


def test_files_of_every_kind_hold_the_same_table(tmp_path) -> None:
    frame = shops()
    frame.write_csv(tmp_path / "a.csv")
    frame.write_csv(tmp_path / "a.tsv", separator="\t")
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_ndjson(tmp_path / "a.jsonl")
    expected = read_table(frame, ROLES)
    for name in ("a.csv", "a.tsv", "a.parquet", "a.jsonl"):
        found = read_table(read_file(tmp_path / name), ROLES)
        np.testing.assert_array_equal(found.target, expected.target)
        np.testing.assert_array_equal(found.time, expected.time)
        np.testing.assert_array_equal(found.features, expected.features)


def test_files_that_cannot_be_read(tmp_path) -> None:
    def refused(name: str, content: bytes | None) -> str:
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            read_file(path)
        assert str(path) in str(caught.value)
        return str(caught.value)

    assert "No such file" in refused("missing.csv", None)
    assert "is empty" in refused("empty.csv", b"")
    assert "no rows" in refused("header.csv", b"a,b\n")
    assert "suffix '.xlsx' is unknown" in refused("a.xlsx", b"PK")
    assert "cannot be read as parquet" in refused("a.parquet", b"not parquet at all")
    assert "cannot be read as csv" in refused("bad.csv", b"a,b\n1,2\n1,2,3,4\n")


def test_a_pyarrow_table_with_nulls_reads_them_as_not_observed() -> None:
    table = pa.table({"t": [1, 2, 3], "y": pa.array([1, None, 3], pa.int64())})
    np.testing.assert_array_equal(read_table(table, Roles(None, "t", ("y",))).target[:, 0], [1, np.nan, 3])
    frame = pd.DataFrame({"t": [1, 2, 3], "y": pd.array([1, None, 3], dtype="Int64")})
    np.testing.assert_array_equal(read_table(frame, Roles(None, "t", ("y",))).target[:, 0], [1, np.nan, 3])


@pytest.mark.parametrize("text", ["20,1", "12.3 %", "x"])
def test_a_target_of_text_is_refused_and_not_taken_as_categories(text: str) -> None:
    frame = shops().with_columns(sales=pl.Series(["1", *[text] * 6]))
    assert f"row 2, column 'sales': {text!r} is not a number; correct it or leave it empty" in bad(frame)
    assert "row 1, column 'sales'" in bad(frame.with_columns(sales=pl.lit(text)))
    empty = frame.with_columns(sales=pl.lit(None, pl.String))
    assert "column 'sales': no value of the target is observed" in bad(empty)


def csv(tmp_path, text: str) -> pl.DataFrame:
    (tmp_path / "t.csv").write_text(text)
    return read_file(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("texts", "kind", "second"),
    [
        (("2024-01-31", "2024-02-01"), pl.Date(), date(2024, 2, 1)),
        (("2024/01/31", "2024/02/01"), pl.Date(), date(2024, 2, 1)),
        (("2024-01-31 12:30", "2024-02-01T13:30"), pl.Datetime("us"), datetime(2024, 2, 1, 13, 30)),
        (("2024-01-31 12:30:05", "2024-02-01 13:30:06.25"), pl.Datetime("us"), datetime(2024, 2, 1, 13, 30, 6, 250000)),
        (
            ("2024-01-31T12:30:05Z", "2024-02-01T00:30:06+01:00"),
            pl.Datetime("us", "UTC"),
            datetime(2024, 1, 31, 23, 30, 6, tzinfo=ZoneInfo("UTC")),
        ),
        (("01/02/2015", "02/02/2015"), pl.String(), "02/02/2015"),
        (("2024-01-31", "2024-02-30"), pl.String(), "2024-02-30"),
        (("2024-01", "2024-02"), pl.String(), "2024-02"),
        (("12", "007"), pl.String(), "007"),
        (("12", "7"), pl.Int64(), 7),
        (("0", "-7"), pl.Int64(), -7),
        (("9223372036854775807", "9223372036854775808"), pl.String(), "9223372036854775808"),
        (("1", "9" * 50), pl.String(), "9" * 50),
        (("0.5", "007"), pl.Float64(), 7.0),
    ],
)
def test_csv_takes_only_what_can_be_read_one_way(tmp_path, texts, kind, second) -> None:
    found = csv(tmp_path, "a,b\n" + "".join(f"{text},1\n" for text in (*texts, "")))
    assert found["a"].dtype == kind
    assert found["a"].to_list()[1:] == [second, None]


def test_ids_of_digits_keep_their_zeros_and_their_length(tmp_path) -> None:
    s = read_table(csv(tmp_path, "k,y\n007,1\n010,02\n007,3\n"), Roles("k", None, ("y",)))
    assert s.ids == ["007", "010"]
    assert s.target[:, 0].tolist() == [1, 3, 2]
    s = read_table(csv(tmp_path, "k,y\n18446744073709551617,1\n5,2\n"), Roles("k", None, ("y",)))
    assert s.ids == ["18446744073709551617", "5"]


def test_dates_of_which_day_and_month_are_not_clear_are_refused(tmp_path) -> None:
    frame = csv(tmp_path, "day,y\n01/01/2015,1\n02/01/2015,2\n03/01/2015,3\n")
    assert "row 1, column 'day': '01/01/2015' is not a time; write it as 2024-03-01" in bad_of(
        lambda: read_table(frame, Roles(None, "day", ("y",)))
    )
    given = {"id": None, "target": ("y",), "static": (), "known": ()}
    text = bad_of(lambda: infer_roles(frame, time=None, features=None, **given))
    assert "column 'day': text like '01/01/2015' looks like dates of which day and month" in text
    assert "write them as 2024-03-01" in text
    iso = pl.DataFrame({"day": ["2015-01", "2015-02"], "y": [1.0, 2.0]})
    text = bad_of(lambda: infer_roles(iso, time=None, features=None, **given))
    assert "column 'day': text like '2015-01' looks like a time; name the column as the time" in text
    assert infer_roles(frame, time=None, features=("day",), **given).features == ("day",)
    parts = pl.DataFrame({"part": ["1-2", "3/4"], "y": [1.0, 2.0]})
    assert infer_roles(parts, time=None, features=None, **given).features == ("part",)


def test_a_row_of_too_many_fields_is_named(tmp_path) -> None:
    text = bad_of(lambda: csv(tmp_path, 'a,b\n1,"2,5"\n1,2\n1,2,3,4\n'))
    assert "row 3 has 4 fields where the header has 2" in text
