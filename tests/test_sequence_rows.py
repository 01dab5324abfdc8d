"""Sequences from tables of every kind, tables of events and arrays; every fault is named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

from carousel.errors import DataError
from carousel.inputs.roles import Roles
from carousel.inputs.rows import read_arrays, read_sequences, sequence_roles
from carousel.inputs.sequence import Channel, SequenceInput

ROLES = Roles("who", "at", ("ill",), ("pulse", "ward"), ("age",))


def table(n: int = 17) -> pl.DataFrame:
    """Three sequences in mixed order, with gaps."""
    rng = np.random.default_rng(3)
    who = np.array(["b", "a", "c"])[rng.integers(0, 3, n)]
    frame = pl.DataFrame(
        {
            "who": who,
            "at": pl.Series(1_700_000_000 + rng.permutation(n) * 61).cast(pl.Int64) * 1_000_000,
            "pulse": [None if k % 4 == 0 else 70.0 + k for k in range(n)],
            "ward": [None if k % 5 == 0 else "xyz"[k % 3] for k in range(n)],
            "age": [{"a": 40, "b": 50, "c": None}[w] for w in who],
            "ill": [w == "a" for w in who],
        }
    )
    return frame.with_columns(pl.col("at").cast(pl.Datetime("us"))).sort("at")


@pytest.mark.parametrize("kind", ["polars", "pandas", "arrow"])
def test_rows_are_sorted_by_sequence_and_time_and_nothing_is_filled_in(kind):
    frame = table()
    given = {"polars": frame, "pandas": frame.to_pandas(), "arrow": frame.to_arrow()}[kind]
    found = read_sequences(given, ROLES)
    ordered = frame.with_row_index(offset=1).sort("who", "at")
    assert found.ids == ["a", "b", "c"]
    assert found.lengths.tolist() == ordered.group_by("who").len().sort("who")["len"].to_list()
    np.testing.assert_array_equal(found.row, ordered["index"])
    np.testing.assert_array_equal(found.features[:, 0], ordered["pulse"].to_numpy())  # NaN where null
    texts = [None if np.isnan(c) else found.categories["ward"][int(c)] for c in found.features[:, 1]]
    assert texts == ordered["ward"].to_list()
    np.testing.assert_array_equal(found.static[:, 0], [40, 50, np.nan])
    np.testing.assert_array_equal(found.time, ordered["at"].dt.epoch("us").to_numpy() / 1e6)


def test_roles_are_inferred_and_columns_of_times_need_one():
    frame = table()
    roles = sequence_roles(frame, id="who", time=None, target=("ill",), features=None, static=("age",))
    assert roles == ROLES
    second = frame.with_columns(pl.col("at").alias("born"))
    with pytest.raises(DataError, match="column 'at': it holds times; name it as the time"):
        sequence_roles(second, id="who", time=None, target=("ill",), features=None, static=("age",))
    with pytest.raises(DataError, match="no column 'pulze'; did you mean 'pulse'"):
        sequence_roles(frame, id="who", time="at", target=(), features=("pulze",), static=())
    with pytest.raises(DataError, match="no column is left to learn from"):
        sequence_roles(frame.select("who", "at", "ill"), id="who", time="at", target=("ill",), features=None, static=())


def test_time_that_goes_backwards_is_noted_and_the_rows_are_sorted():
    frame = pl.DataFrame({"who": ["a", "b", "a", "b"], "at": [5, 1, 4, 2], "x": [1.0, 2.0, 3.0, 4.0]})
    with pytest.warns(UserWarning, match="backwards") as noted:
        found = read_sequences(frame, Roles("who", "at", features=("x",)))
    assert str(noted[0].message) == (
        "data, row 3, column 'at': time goes backwards within sequence 'a', to 4 (1 such rows); the rows are taken in"
        " order of time."
    )
    assert found.features[:, 0].tolist() == [3, 1, 2, 4]
    assert found.row.tolist() == [3, 1, 2, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pulse": ["fast"] * 17}, None),
        ({"at": [None] + [5] * 16}, "row 1, column 'at': the time is missing"),
        ({"who": [None] + ["a"] * 16}, "row 1, column 'who': the id is missing"),
        ({"pulse": [float("inf")] * 17}, "row 1, column 'pulse': the value is infinite"),
        ({"age": list(range(17))}, r"row \d+, column 'age': a static column may not change within sequence"),
    ],
)
def test_faults_name_row_and_column(change, message):
    frame = table().with_columns(pl.Series(name, values, strict=False) for name, values in change.items())
    if message is None:  # text that was a number in training
        seen = SequenceInput(ROLES, True, False, 1.0, (), (Channel("pulse", "number"), Channel("ward", "category")), ())
        with pytest.raises(DataError, match="row 1, column 'pulse': 'fast' is not a number"):
            read_sequences(frame, ROLES, fitted=seen)
        return
    with pytest.raises(DataError, match=message):
        read_sequences(frame, ROLES)


def test_a_clock_of_another_kind_is_refused():
    seen = SequenceInput(ROLES, True, False, 1.0, (), (Channel("pulse", "number"), Channel("ward", "category")), ())
    with pytest.raises(DataError, match="column 'at': it held timestamps in training and holds numbers here"):
        read_sequences(table().with_columns(pl.col("at").dt.epoch()), ROLES, fitted=seen)


def test_number_columns_can_be_categories():
    frame = pd.DataFrame({"shop": [70.0, np.nan, 7.0], "x": [1, 2, 3]})
    found = read_sequences(frame, Roles(features=("shop", "x")), categorical=("shop",))
    assert found.categories["shop"] == ("7", "70")
    np.testing.assert_array_equal(found.features, [[1, 1], [np.nan, 2], [0, 3]])


def events() -> pl.DataFrame:
    rows = [
        ("b", 1, "pulse", 70.0),
        ("a", 2, "pulse", 80.0),
        ("a", 1, "age", 33.0),
        ("a", 2, "flow", None),
        ("a", 1, "flow", 5.0),
        ("a", 2, "noise", 1.0),
        ("b", 3, "flow", 6.0),
    ]
    return pl.DataFrame(rows, schema=["who", "at", "what", "value"], orient="row")


def test_a_table_of_events_becomes_one_with_a_column_for_each_variable():
    roles = Roles("who", "at", features=("flow", "pulse"), static=("age",))
    found = read_sequences(events(), roles, variable="what", value="value")
    assert found.ids == ["a", "b"]
    assert found.time.tolist() == [1, 2, 1, 3]
    np.testing.assert_array_equal(found.features, [[5, np.nan], [np.nan, 80], [np.nan, 70], [6, np.nan]])
    np.testing.assert_array_equal(found.static, [[33], [np.nan]])
    inferred = sequence_roles(
        events(), id="who", time="at", target=(), features=None, static=("age",), variable="what", value="value"
    )
    assert inferred.features == ("flow", "noise", "pulse")


def test_of_two_readings_of_a_variable_at_one_time_the_last_counts():
    frame = pl.concat([events(), events().head(2).with_columns(value=pl.col("value") + 1)])
    with pytest.warns(UserWarning, match="second time") as noted:
        found = read_sequences(frame, Roles("who", "at", features=("pulse",)), variable="what", value="value")
    assert str(noted[0].message) == (
        "data, row 8: 'pulse' is given a second time at one time of one sequence (2 such rows); the last one counts."
    )
    assert found.features[~np.isnan(found.features)].tolist() == [81, 71]


def test_faults_of_events():
    roles = Roles("who", "at", features=("flow",), static=("height",))
    with pytest.raises(DataError, match="'height' is neither a column nor a variable"):
        read_sequences(events(), roles, variable="what", value="value")
    missing = events().with_columns(pl.when(pl.col("at") == 3).then(None).otherwise("what").alias("what"))
    with pytest.raises(DataError, match="row 7, column 'what': the variable is missing"):
        read_sequences(missing, Roles("who", "at", features=("flow",)), variable="what", value="value")
    with pytest.raises(DataError, match="needs a time column"):
        read_sequences(events(), Roles("who", features=("flow",)), variable="what", value="value")


def test_variables_that_a_model_does_not_know_are_no_silent_gaps():
    roles = Roles("who", "at", features=("Flow", "Pulse"))
    with pytest.raises(DataError) as refused:
        read_sequences(events(), roles, variable="what", value="value")
    assert str(refused.value) == (
        "data, column 'what': it names 'age', 'flow', 'noise', 'pulse' and none of the expected variables 'Flow',"
        " 'Pulse'; rename them."
    )
    seen = SequenceInput(
        Roles("who", "at", features=("Flow", "pulse")),
        False,
        False,
        1.0,
        (),
        (Channel("Flow", "number", gaps=True), Channel("pulse", "number", gaps=True)),
        (),
    )
    with pytest.warns(UserWarning, match="never names") as noted:
        found = read_sequences(events(), seen.roles, fitted=seen, variable="what", value="value")
    assert [str(w.message) for w in noted] == [
        "data, column 'what': it never names 'Flow', of which the model was told in training; such readings count as"
        " missing."
    ]
    np.testing.assert_array_equal(found.features[:, 1], [np.nan, 80, 70, np.nan])


def test_values_too_large_to_compute_with_are_refused():
    huge = table().with_columns(pulse=pl.Series([70.0, -1e300] + [None] * 15))
    with pytest.raises(
        DataError, match=r"data, row 2, column 'pulse': the value -1e\+300 is too large to compute with"
    ):
        read_sequences(huge, ROLES)
    wild = events().with_columns(value=pl.lit(1e200))
    with pytest.raises(DataError, match="row 1, column 'value': the value 1e\\+200 is too large"):
        read_sequences(wild, Roles("who", "at", features=("pulse",)), variable="what", value="value")
    with pytest.raises(DataError, match=r"X\[1\], step 2: the value is too large to compute with \(1e\+300\)"):
        read_arrays([[1.0, 2.0], [3.0, np.nan, -1e300]])
    assert read_arrays([[1e140]]).features[0, 0] == 1e140


COPIED = pl.DataFrame(
    {
        "who": ["a", "a", "b", "a", "b"],
        "at": [1, 2, 2, 2, 3],
        "x": [1.0, None, 2.0, 3.0, 4.0],
        "ill": ["no", "no", "yes", "no", "yes"],
    }
)


def test_rows_written_twice_are_named_and_do_not_count_as_times_going_backwards():
    roles = Roles("who", "at", ("ill",), ("x",))
    read_sequences(COPIED, roles)  # two readings at one time, and no warning
    read_sequences(pl.concat([COPIED.head(2), COPIED.head(2).tail(1).with_columns(ill=pl.lit("yes"))]), roles)
    twice = pl.concat([COPIED, COPIED.slice(1, 3)])
    with pytest.warns(UserWarning, match="same values") as noted:
        found = read_sequences(twice, roles)
    assert [str(w.message) for w in noted] == [
        "data, row 6, column 'at': sequence 'a' has the time 2 a second time with all the same values (first in row 2;"
        " 3 such rows); each counts, so drop the copies."
    ]
    assert found.row.tolist() == [1, 2, 4, 6, 8, 3, 7, 5]
    with pytest.warns(UserWarning, match="this is the time 1 a second time"):
        read_sequences(COPIED[[0, 0, 1]], Roles(None, "at", features=("x",)))


def test_static_values_that_come_late_are_named_where_rows_are_answered():
    frame = pl.DataFrame({"who": ["b", "a", "a", "b", "c"], "at": [1, 1, 2, 2, 1], "x": 1.0})
    frame = frame.with_columns(age=pl.Series([None, 40, None, 50, None]))
    roles = Roles("who", "at", features=("x",), static=("age",))
    read_sequences(frame, roles)
    with pytest.warns(UserWarning, match="static") as noted:
        found = read_sequences(frame, roles, answered=True)
    assert [str(w.message) for w in noted] == [
        "data, column 'age': the static value of sequence 'b' is first given after its first row (1 such sequences),"
        " and so what is said of the rows before knows it from later ones; give it in the first row."
    ]
    np.testing.assert_array_equal(found.static[:, 0], [40, 50, np.nan])


def test_what_changes_in_a_table_of_events_is_named_by_its_own_row():
    frame = events().with_columns(ill=pl.Series([None, "no", None, None, "yes", "no", "no"]), size=1.0)
    given = {"variable": "what", "value": "value"}
    roles = Roles("who", "at", ("ill",), ("flow", "pulse"), ("size",))
    assert read_sequences(frame, roles, **given, answered=True).lengths.tolist() == [2, 2]
    with pytest.raises(DataError) as refused:
        read_sequences(frame, roles, **given, answered=False)
    assert str(refused.value) == (
        "data, row 5, column 'ill': the label changes within sequence 'a'; a sequence has one label (for one a row"
        " there is `tag`)."
    )
    sizes = frame.with_columns(size=pl.Series([1.0, 2.0, None, 2.0, 2.0, 2.0, 3.0]))
    with pytest.raises(DataError, match="row 7, column 'size': a static column may not change within sequence 'b'"):
        read_sequences(sizes, roles, **given)


def test_arrays_of_every_shape():
    rng = np.random.default_rng(1)
    ragged = [rng.normal(size=(n, 2)) for n in (7, 1, 3)]
    found = read_arrays(ragged)
    assert found.offsets.tolist() == [0, 7, 8, 11]
    np.testing.assert_array_equal(found.features, np.concatenate(ragged))
    assert found.time[:8].tolist() == [*range(7), 0]
    assert read_arrays(rng.normal(size=(4, 7, 2))).features.shape == (28, 2)
    assert read_arrays(rng.normal(size=(4, 7))).features.shape == (28, 1)
    assert read_arrays([[1, 2, 3], [4, 5]]).lengths.tolist() == [3, 2]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([np.zeros((3, 2)), np.zeros((3, 1))], r"X\[1\]: 1 channels, where X\[0\] has 2"),
        ([np.zeros((0, 2))], "a sequence of 0 steps"),
        ([], "there is no sequence"),
        ([np.array([[1.0], [np.inf]])], r"X\[0\], step 1: the value is infinite"),
        ([np.zeros((2, 2, 2))], r"a sequence is \[T, C\], got shape \[2, 2, 2\]"),
        ([["a", "b"]], "these are no numbers"),
        (np.zeros(5), "expected 2-D"),
        (3.0, "expected a table or arrays, got float"),
    ],
)
def test_arrays_that_are_no_sequences(given, message):
    with pytest.raises(DataError, match=message):
        read_arrays(given)
