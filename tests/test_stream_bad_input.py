"""What streams refuse: values no float holds, ends of the calendar, damaged states, hostile model files.

Nothing changes with a refused row, and a stream of lines goes on."""

from __future__ import annotations

import dataclasses
import json
import zlib
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from carousel.config import ModelConfig
from carousel.errors import CarouselError, DataError, ModelFileError
from carousel.inputs.clock import Grid
from carousel.stream import Stream, Streams, answer_lines
from carousel.stream.one import _HEAD
from stream_cases import detector, plain_input, rich_rows, tagger, write
from test_stream_forecast import config
from test_stream_forecast import rich_rows as series_rows

BIG = 10**400  # JSON holds it, and no float does


def numbers(*, time: str | None = None) -> ModelConfig:
    seen = plain_input()
    seen = dataclasses.replace(seen, roles=dataclasses.replace(seen.roles, time=time))
    return dataclasses.replace(tagger(), input=seen, seeds=1)


def refused(
    stream: Stream, words: str, act: Any, *given: Any, kind: type[CarouselError] = DataError, **more: Any
) -> None:
    before = stream.state()
    with pytest.raises(kind, match=words):
        act(*given, **more)
    assert stream.state() == before


def lines(path: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    text = [json.dumps(row, default=str).replace('"infinite"', "1e400").encode() for row in rows]
    return [json.loads(answer.text) for answer in answer_lines(path, text)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"t": BIG, "y": 1.0}, "time is not finite"),
        ({"t": 1e141, "y": 1.0}, "time is too large"),
        ({"t": 9.0, "y": BIG}, "too large to compute with"),
        ({"t": 9.0, "y": 1e141}, "beyond 1e140"),
        ({"t": "9", "y": 1.0}, "'9' is text; give a number"),
        ({"t": 1e139, "y": 1.0}, "steps ahead"),
        ({"t": np.array([1, 2]), "y": 1.0}, "is no time"),
        ({"t": 9.0, "y": np.array([1, 2])}, "is no number"),
    ],
)
def test_values_that_no_float_holds(tmp_path: Path, row: Any, words: str) -> None:
    step = 1e-200 if words == "steps ahead" else 1.0  # more of them than a float counts
    stream = Stream(write(config(Grid("even", step)), tmp_path))
    stream.push({"t": 0.0, "y": 1.0})
    refused(stream, words, stream.push, row)


def test_lines_go_on_after_what_json_holds_and_nobody_can_use(tmp_path: Path) -> None:
    path = write(config(Grid("even", 1.0), rich=True), tmp_path)
    good = series_rows(2)
    bad = [
        {"t": BIG},
        {"heat": BIG},
        {"ahead": 5},
        {"ahead": [1] * 5},
        {"ahead": "later"},
        {"ahead": False},
        {"kind": 3},
    ]
    found = lines(path, [*(good[0] | change for change in bad), *good])
    assert [f.get("line") for f in found] == [*range(1, len(bad) + 1), None, None]
    events = write(tagger(stamps=False), tmp_path)
    rows = rich_rows(2, stamps=False)
    found = lines(events, [rows[0] | {"who": "infinite"}, rows[0] | {"ward": BIG, "pulse": BIG}, *rows])
    assert [("error" in f) for f in found] == [True, True, False, False]


@pytest.mark.parametrize("zone", [None, "America/New_York", "Asia/Tokyo"])
def test_the_ends_of_the_calendar(tmp_path: Path, zone: str | None) -> None:
    path = write(config(Grid("even", 3600.0, zone=zone), stamps=True), tmp_path)
    offset = "" if zone is None else "+00:00"
    ends = ["0001-01-01T00:00:00", "9999-12-31T23:00:00", "9998-12-31T23:00:00"]
    found = lines(path, [{"t": end + offset, "y": 1.0} for end in (*ends, "2024-01-01T00:00:00")])
    assert [("error" in f) for f in found] == [True, True, True, False]
    if zone is None:
        stream = Stream(path)
        for end, words in zip(ends, ("years 2 to 9998", "years 2 to 9998", "forecast lies beyond"), strict=True):
            refused(stream, words, stream.push, {"t": end, "y": 1.0})


def test_static_columns_missing_as_nan_stay_as_they_are(tmp_path: Path) -> None:
    for path, rows, name in (
        (write(tagger(stamps=False), tmp_path), rich_rows(3, stamps=False), "age"),
        (write(config(Grid("even", 1.0), rich=True), tmp_path), series_rows(3), "size"),
    ):
        rows = [row | {name: gap} for row, gap in zip(rows, (float("nan"), None, pd.NA), strict=True)]
        stream, many = Stream(path), Streams(path)
        for row in rows:
            stream.push(row)
            many.push(["a"], [row], open_new=True)
        assert stream.state() == many.state("a")
        refused(stream, "may not change", stream.push, rows[2] | {name: 3.0})


def test_static_columns_as_decimals_and_refused_ones(tmp_path: Path) -> None:
    for path, row, name in (
        (write(tagger(stamps=False), tmp_path), rich_rows(1, stamps=False)[0], "age"),
        (write(config(Grid("even", 1.0), rich=True), tmp_path), series_rows(1)[0], "size"),
    ):
        fixed = {key: row[key] for key in row if key in ("age", "sex", "size", "city")}
        stream, twin = Stream(path), Stream(path)
        stream.push(row | {name: Decimal(3)})
        twin.push(row | {name: 3.0})
        assert stream.state() == twin.state()
        refused(stream, "is text", stream.reset, fixed | {name: "x"})
        refused(stream, "'w' is no static column", stream.reset, fixed | {"w": 1})
        refused(stream, "static column", stream.reset, {})


def test_ahead_as_it_is_wanted(tmp_path: Path) -> None:
    stream = Stream(write(config(Grid("even", 1.0), rich=True), tmp_path))
    rows = series_rows(6)
    stray = [row | {"prize": 1} for row in rows[1:]]
    refused(stream, "step 1 ahead: the column 'prize' is unknown", stream.push, rows[0], ahead=stray)
    refused(stream, "a mapping of the known columns", stream.push, rows[0], ahead=5)


def test_more_times_than_rows(tmp_path: Path) -> None:
    for made, times in ((numbers(time="at"), [1.0, 2.0]), (config(Grid("even", 1.0)), [1.0, 2.0])):
        stream = Stream(write(made, tmp_path))
        row = [1.0] * (3 if made.task == "tag" else 1)
        refused(stream, "more times than the 1 rows", stream.push_many, [row], times)
        refused(stream, "fewer times than rows", stream.push_many, [row] * 3, times)


def test_ids_and_tables_that_are_no_rows(tmp_path: Path) -> None:
    streams = Streams(write(numbers(), tmp_path))
    for id in ([1], float("nan"), None):
        with pytest.raises(DataError, match="tells no stream from another"):
            streams.push([id], [[1.0, 2.0, 3.0]], open_new=True)
        with pytest.raises(DataError, match="tells no stream from another"):
            streams.open(id)  # type: ignore[arg-type]
    table = pl.DataFrame({f"x{k}": [1.0, 2.0] for k in range(3)})
    for given in (table, table.to_pandas()):
        with pytest.raises(DataError, match="give its rows as mappings"):
            streams.push(["a", "b"], given, open_new=True)
    assert len(streams) == 0
    found = streams.push(["a", "b"], iter(table.to_dicts()), open_new=True)
    assert np.array_equal(
        found["p_0"], Streams(streams._model.name).push(["a", "b"], table.to_numpy(), open_new=True)["p_0"]
    )
    for nothing in ([], np.zeros((0, 3))):
        assert streams.push([], nothing)["prediction"].shape == (0,)


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (["x"], "row 1, stream 'a'.*: the time held numbers in training and 'x' is text"),
        (np.array(["2024-01-01"], "datetime64[s]"), "is a timestamp"),
        ([datetime(2024, 1, 1)], "is a timestamp"),
        ([None], "time is missing"),
        (np.ma.array([1.0], mask=[True]), "time is missing"),
        ([1e141], "beyond 1e140"),
        (5.0, "time has a float for 1 rows"),
        ([1.0, 2.0], "time has 2 items for 1 rows"),
    ],
)
def test_times_of_many(tmp_path: Path, times: Any, words: str) -> None:
    path = write(numbers(time="at"), tmp_path)
    for rows in (np.ones((1, 3)), [[1.0, 1.0, 1.0]]):
        if isinstance(times, np.ma.MaskedArray) and isinstance(rows, list):
            continue
        streams = Streams(path)
        with pytest.raises(DataError, match=words if isinstance(rows, np.ndarray) or "1e140" not in words else "large"):
            streams.push(["a"], rows, times, open_new=True)
        assert len(streams) == 0


def test_masked_values_are_missing(tmp_path: Path) -> None:
    path = write(numbers(), tmp_path)
    row = np.ma.array([1.0, 2.0, 3.0], mask=[True, False, False])
    stream = Stream(path)
    refused(stream, "column 'x0': the value is missing", stream.push, row)
    with pytest.raises(DataError, match="column 'x0': the value is missing"):
        Streams(path).push(["a"], row[None], open_new=True)


def forged(state: bytes, change: Any) -> bytes:
    """A state with another payload and the checksum that belongs to it."""
    magic, version, task, mark, _, _ = _HEAD.unpack_from(state)
    payload = change(state[_HEAD.size :])
    return _HEAD.pack(magic, version, task, mark, len(payload), zlib.crc32(payload)) + payload


def about(**changes: Any) -> Any:
    """The payload with another JSON document; `whole` replaces it."""

    def change(payload: bytes) -> bytes:
        size = int.from_bytes(payload[:4], "little")
        made = json.loads(payload[4 : 4 + size])
        made = changes.get("whole", {**(made or {}), **changes})
        text = json.dumps(made).encode()
        return len(text).to_bytes(4, "little") + text + payload[4 + size :]

    return change


def word(at: int, value: int) -> Any:
    """The payload with another whole number behind its JSON document."""

    def change(payload: bytes) -> bytes:
        start = 4 + int.from_bytes(payload[:4], "little") + 8 * at
        return payload[:start] + value.to_bytes(8, "little", signed=True) + payload[start + 8 :]

    return change


NAN, LAST = 0x7FF8 << 48, 2**63 - 1


@pytest.mark.parametrize(
    ("made", "change"),
    [
        *(
            (detector(), c)
            for c in (word(0, LAST), word(0, -1), word(1, 2), about(whole=[]), about(whole={}), about(x=1))
        ),
        (detector(), lambda p: p[:3]),
        (detector(), lambda p: b"\xff" * 4 + p[4:]),
        (detector(), lambda p: (8000).to_bytes(4, "little") + b"[" * 8000 + p),
        *((config(Grid("even", 1.0)), c) for c in (word(0, LAST), word(1, 99), word(2, -1), word(3, NAN))),
        *((config(Grid("even", 1.0)), c) for c in (about(whole=[1]), about(given="x"), about(given=-1), about(kind=3))),
        *((config(Grid("even", 1.0)), c) for c in (about(zone="../x"), about(zone=5), about(fixed=5), about(extra=1))),
        (config(Grid("even", 1.0)), lambda p: p[:2]),
    ],
)
def test_forged_states(tmp_path: Path, made: ModelConfig, change: Any) -> None:
    path = write(made, tmp_path)
    rows = rich_rows(3) if made.task == "detect" else [{"t": float(k), "y": 1.0 + k} for k in range(3)]
    stream, streams = Stream(path), Streams(path)
    stream.push_many(rows)
    state = stream.state()
    bad = forged(state, change)
    assert forged(state, lambda payload: payload) == state != bad
    refused(stream, "damaged", stream.restore, bad, kind=CarouselError)
    streams.restore("a", state)
    for id in ("a", "b"):
        with pytest.raises(CarouselError, match="damaged"):
            streams.restore(id, bad)
    assert streams.ids == ["a"]
    assert streams.state("a") == state


def test_model_files_that_ask_for_endless_memory(tmp_path: Path) -> None:
    def with_rows(rows: int) -> ModelConfig:
        made = detector()
        views = (dataclasses.replace(made.head.views[0], rows=rows),)
        return dataclasses.replace(made, head=dataclasses.replace(made.head, views=views))

    def with_season(rows: int) -> ModelConfig:
        made = config(Grid("even", 1.0))
        return dataclasses.replace(made, input=dataclasses.replace(made.input, seasons=(3, rows)))

    for make, words in ((with_rows, "more rows than a stream can keep"), (with_season, "further back than a stream")):
        for rows, why in ((10**12, words), (2**61 // 3, f"{words}|too many rows"), (2**64, "a number is out of range")):
            path = write(make(rows), tmp_path)
            for kind in (Stream, Streams):
                with pytest.raises(ModelFileError, match=f"{path.name}.*({why})"):
                    kind(path)


def test_a_detector_whose_correlations_have_no_inverse(tmp_path: Path) -> None:
    made = detector()
    views = (dataclasses.replace(made.head.views[0], correlation=((1.0,) * 3,) * 3),)
    path = write(dataclasses.replace(made, head=dataclasses.replace(made.head, views=views)), tmp_path)
    with pytest.raises(ModelFileError, match="cannot be streamed"):
        Stream(path)


def test_clocks_that_are_not_known_here(tmp_path: Path) -> None:
    made = tagger()
    for changes, words in (
        ({"zone": "Mars/Olympus"}, "time zone 'Mars/Olympus' of the model; install the package tzdata"),
        ({"zone": "../etc"}, "does not know the time zone"),
        ({"calendar": ("hour_of_sol",)}, "the calendar has no 'hour_of_sol'"),
    ):
        changed = dataclasses.replace(made, input=dataclasses.replace(made.input, **changes))
        with pytest.raises(CarouselError, match=words):
            Stream(write(changed, tmp_path))
