"""Many streams against as many single ones, and what either refuses without a change of state."""

from __future__ import annotations

import struct
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carousel.config import ModelConfig, StackConfig
from carousel.errors import CarouselError, DataError, ModelFileError, NotSupported
from carousel.inputs.clock import Grid
from carousel.stream import Stream, Streams
from stream_cases import changed, classifier, detector, plain_input, rich_rows, tagger, without, write
from test_stream_forecast import config
from test_stream_forecast import rich_rows as covariates


def interleaved(count: int = 30, seed: int = 0) -> tuple[list[str], list[dict[str, Any]]]:
    """Rows of three sequences in an order of their own, neighbours among them."""
    rng = np.random.default_rng(seed)
    parts = {who: rich_rows(count, k, who=who) for k, who in enumerate(("a", "b", "c"))}
    ids = [str(who) for who in rng.permutation(np.repeat(["a", "b", "c"], count))]
    return ids, [parts[who].pop(0) for who in ids]


@pytest.mark.parametrize("weights", ["float32", "bf16", "int8"])
@pytest.mark.parametrize("make", [lambda: tagger("event"), lambda: classifier("attention", width=4, seeds=2)])
def test_many_give_the_bits_of_single_ones(tmp_path: Path, make: Any, weights: str) -> None:
    path = write(make(), tmp_path)
    ids, rows = interleaved()
    singles = {who: Stream(path, weights=weights) for who in "abc"}
    expected = [singles[who].push(row) for who, row in zip(ids, rows, strict=True)]
    many, found = Streams(path, weights=weights), []
    for start, end in ((0, 1), (1, 40), (40, 90)):
        made = many.push(ids[start:end], rows[start:end], open_new=True)
        found += [dict(zip(made, values, strict=True)) for values in zip(*made.values(), strict=True)]
    assert found == expected
    assert {who: many.state(who) for who in "abc"} == {who: singles[who].state() for who in "abc"}


def test_arrays_of_many(tmp_path: Path) -> None:
    path = write(classifier("mean", rich=False), tmp_path)
    x = np.random.default_rng(0).normal(size=(4, 200, 3)).astype(np.float32)
    many, ids = Streams(path), np.arange(1000, 1200)
    for k in ids.tolist():
        many.open(k)
    order = np.random.default_rng(1).permutation(200)
    found = [many.push(ids[order], step[order]) for step in x]
    for k in (0, 63, 64, 65, 199):
        one = Stream(path)
        expected = [one.push(step[k].astype(np.float64)) for step in x]
        at = int(np.flatnonzero(order == k)[0])
        assert [{n: v[at] for n, v in made.items()} for made in found] == expected


def test_nothing_is_evicted_but_by_the_caller(tmp_path: Path) -> None:
    streams = Streams(write(classifier("last", rich=False), tmp_path), limit=3)
    x = np.zeros((1, 3))
    for name in ("a", "b", "c"):
        streams.push([name], x, open_new=True)
    streams.push(["a"], x)
    with pytest.raises(CarouselError, match="limit of 3"):
        streams.push(["d"], x, open_new=True)
    assert streams.idle(2) == ["b", "c"]
    kept = streams.state("b")
    streams.close("b")
    assert "b" not in streams
    assert len(streams.push(["d"], x, open_new=True)["prediction"]) == 1
    assert streams.ids == ["a", "c", "d"]
    with pytest.raises(CarouselError, match="limit"):
        streams.restore("b", kept)
    streams.close("d")
    streams.restore("b", kept)
    assert streams.state("b") == kept
    for wrong in (lambda: streams.push(["x"], x), lambda: streams.state("x"), lambda: streams.close("x")):
        with pytest.raises(DataError, match="'x' is not open"):
            wrong()
    with pytest.raises(DataError, match="open already"):
        streams.open("a")


def test_rows_are_taken_together_or_not_at_all(tmp_path: Path) -> None:
    path = write(tagger(), tmp_path)
    ids, rows = interleaved(4)
    many = Streams(path)
    many.push(ids[:6], rows[:6], open_new=True)
    names = list(many.ids)
    before = [many.state(who) for who in names]
    bad = [*rows[6:9], rows[9] | {"steps": None}]
    with pytest.raises(DataError, match=r"row 4, stream '.', column 'steps': the value is missing"):
        many.push(ids[6:10], bad)
    with pytest.raises(DataError, match="row 2, stream 'a': its time lies before"):
        many.push(["a", "a"], [rich_rows(9, 0, who="a")[-1], rich_rows(1, 0, who="a")[0]])
    with pytest.raises(DataError, match="one id for each row"):
        many.push(["a"], rows[:2])
    with pytest.raises(DataError):  # the second row is refused, so the first one's stream is not opened either
        many.push(["new", "newer"], [rows[0], rows[1] | {"steps": "x"}], open_new=True)
    assert many.ids == names
    assert [many.state(who) for who in names] == before


@pytest.mark.parametrize("reference", ["training", "history"])
def test_many_detectors(tmp_path: Path, reference: str) -> None:
    path = write(detector(reference, seeds=2), tmp_path)
    ids, rows = interleaved()
    singles = {who: Stream(path) for who in "abc"}
    expected = [singles[who].push(row) for who, row in zip(ids, rows, strict=True)]
    many, found = Streams(path), []
    for start, end in ((0, 1), (1, 50), (50, 90)):
        made = many.push(ids[start:end], rows[start:end], open_new=True)
        assert made["anomaly"].dtype == bool
        found += [dict(zip(made, values, strict=True)) for values in zip(*made.values(), strict=True)]
    found = [row | {"score": None if np.isnan(row["score"]) else row["score"]} for row in found]
    assert found == expected
    assert any(row["because"] for row in found)
    assert {who: many.state(who) for who in "abc"} == {who: singles[who].state() for who in "abc"}


def series_rows(count: int, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    at = np.cumsum(rng.integers(1, 3, count))  # some rows of the grid are absent
    return [{"t": int(t), "y": None if rng.random() < 0.2 else float(rng.normal(50, 9))} for t in at]


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_many_series_give_the_bits_of_single_ones(tmp_path: Path, weights: str) -> None:
    path = write(config(Grid("even", 1.0), targets=1, seeds=2), tmp_path)
    parts = {k: series_rows(24, k) for k in range(4)}
    ids = np.random.default_rng(1).permutation(np.repeat(np.arange(4), 24))
    rows = [parts[k].pop(0) for k in ids.tolist()]
    singles = {k: Stream(path, weights=weights) for k in range(4)}
    expected = [singles[k].push(row) for k, row in zip(ids.tolist(), rows, strict=True)]
    many, at = Streams(path, weights=weights), 0
    for size in (1, 60, 35):
        found = many.push(ids[at : at + size], rows[at : at + size], open_new=True)
        for name, values in found.items():
            assert np.array_equal(values, [e[name] for e in expected[at : at + size]], equal_nan=name[0] in "fq"), name
        at += size
    assert [many.state(k) for k in range(4)] == [singles[k].state() for k in range(4)]
    other = Streams(path, weights=weights)
    other.restore("again", many.state(2))
    more = {"t": 90, "y": 51.0}
    again, one = other.push(["again"], [more]), singles[2].push(more)
    assert np.array_equal(again["q0.9"][0], one["q0.9"])


def test_many_series_with_columns_known_ahead(tmp_path: Path) -> None:
    path = write(config(Grid("even", 1.0), rich=True), tmp_path)
    rows = covariates(20)
    one, many = Stream(path), Streams(path)
    for k, row in enumerate(rows[:-6]):
        following = rows[k + 1 : k + 6]
        expected = one.push(row, ahead=following)
        found = many.push(["a", "b"], [row, row], ahead=[following, None], open_new=True)
        assert np.array_equal(found["q0.1"][0], expected["q0.1"], equal_nan=True)
        assert np.isnan(found["forecast"][1]).all()
    assert many.push(["a"], [rows[-6]]) == {}
    before = [many.state("a"), many.state("b")]
    with pytest.raises(DataError, match="row 2, stream 'b': its time lies before"):
        many.push(["a", "b"], [rows[-5], rows[3]])
    with pytest.raises(DataError, match="ahead has 1 items for 2 rows"):
        many.push(["a", "b"], [rows[-5], rows[-5]], ahead=[None])
    with pytest.raises(DataError, match="may not change"):
        many.push(["a", "new"], [rows[-5] | {"city": "Bonn"}, rows[0]], open_new=True)
    assert [many.state("a"), many.state("b")] == before
    assert many.ids == ["a", "b"]


def test_ids_of_every_kind(tmp_path: Path) -> None:
    """Whole numbers in arrays are looked up in a table of the core, which follows what the caller opens and closes."""
    path = write(classifier("last", rich=False), tmp_path)
    many, rng = Streams(path), np.random.default_rng(3)
    x, known = rng.normal(size=(3,)), {}
    keys = np.concatenate([rng.integers(-(2**62), 2**62, 150), np.arange(150) * 64])
    for k in rng.choice(keys, 900):
        if int(k) in known:
            many.close(int(k))
            del known[int(k)]
        else:
            many.open(int(k) if k % 2 else k)
            many.push([int(k)], rng.normal(size=(1, 3)))
            known[int(k)] = many.state(int(k))
    ids = rng.permutation(np.array(list(known)))
    expected = [Stream(path) for _ in ids]
    for stream, k in zip(expected, ids.tolist(), strict=True):
        stream.restore(known[k])
    found = many.push(ids, np.repeat(x[None], len(ids), 0))
    assert found["p_calm"].tolist() == [stream.push(x)["p_calm"] for stream in expected]
    gone = next(k for k in keys.tolist() if k not in known)
    with pytest.raises(DataError, match=f"stream {gone} is not open"):
        many.push(np.array([ids[0], gone]), np.stack([x, x]))
    with pytest.raises(DataError, match=f"row 2, stream {ids[1]}, column 'x0': the value is missing"):
        many.push(ids[:2], np.stack([x, x * np.nan]))
    many.open(1.0 if 1 not in known else 3.0)
    many.push(np.array([1 if 1 not in known else 3], np.int32), x[None])


NUMBER = {"steps": 2.0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": None}, "column 'steps': the value is missing, and no row of the training had a gap"),
        ({"steps": float("nan")}, "column 'steps': the value is missing"),
        ({"pulse": float("inf")}, "column 'pulse': the value is infinite"),
        ({"pressure": -1e200}, "column 'pressure': the value is infinite, or beyond"),
        ({"pulse": "fast"}, "column 'pulse': 'fast' is text"),
        ({"pulse": [1]}, "column 'pulse': .* is no number"),
        ({"ward": [1]}, "column 'ward': .* neither text nor a number"),
        ({"when": datetime(2023, 1, 1)}, "its time lies before"),
        ({"when": 5.0}, "held timestamps in training"),
        ({"when": None}, "time is missing"),
        ({"when": "soon"}, "is not a time"),
        ({"age": 21.5}, "column 'age': a static column may not change"),
        ({"colour": 1}, "the column 'colour' is unknown"),
        ("steps", "the column 'steps' is missing"),
        ("when", "time is missing"),
    ],
)
def test_refused_rows_change_nothing(tmp_path: Path, change: Any, words: str) -> None:
    rows = rich_rows(5, 3)
    stream = Stream(write(tagger(), tmp_path))
    stream.push_many(rows[:4])
    before = stream.state()
    row = without(rows[4], change) if isinstance(change, str) else rows[4] | change
    with pytest.raises(DataError, match=f"row 5.*{words}"):
        stream.push(row)
    assert stream.state() == before
    with pytest.raises(DataError, match=words):
        stream.push_many([rows[4], row])
    assert stream.state() == before


@pytest.mark.parametrize(
    "row",
    [
        [1.0, 2.0],
        np.zeros(4),
        np.zeros((3, 1)),
        "abc",
        5.0,
        None,
        ["a", "b", "c"],
        np.array(["a", "b", "c"]),
        np.array([1.0, np.inf, 0.0]),
        np.array([1.0, np.nan, 0.0]),
        [1.0, None, 0.0],
        {"x0": 1.0},
    ],
)
def test_refused_rows_of_numbers(tmp_path: Path, row: Any) -> None:
    stream = Stream(write(classifier("last", rich=False), tmp_path))
    stream.push([1.0, 2.0, 3.0])
    before = stream.state()
    with pytest.raises(DataError, match="row 2"):
        stream.push(row)
    with pytest.raises(DataError):
        stream.push([1.0, 2.0, 3.0], time=5.0)
    with pytest.raises(DataError):
        stream.push([1.0, 2.0, 3.0], ahead=[{}])
    assert stream.state() == before


def test_integers_are_numbers(tmp_path: Path) -> None:
    path = write(classifier("last", rich=False), tmp_path)
    assert Stream(path).push(np.array([1, 2, 3])) == Stream(path).push([1, 2.0, np.float32(3)])


def test_times_beside_the_rows(tmp_path: Path) -> None:
    stream = Stream(write(tagger(stamps=False), tmp_path), static={"age": 40, "sex": "f"})
    values = (70.0, "east", 1.0, None, 2.0)
    stream.push(values, 10.0)
    with pytest.raises(DataError, match="time is missing"):
        stream.push(values)
    with pytest.raises(DataError, match="given twice"):
        stream.push(dict(zip(("pulse", "ward", "pressure", "terminal", "steps"), values, strict=True)) | {"when": 1}, 2)
    with pytest.raises(DataError, match="not finite"):
        stream.push(values, float("inf"))
    with pytest.raises(DataError, match="fewer times than rows"):
        stream.push_many([values, values], [11.0])
    for late, words in ((9.0, "lies before"), ("noon", "is text"), (datetime(2024, 1, 1), "held numbers")):
        with pytest.raises(DataError, match=words):
            stream.push(values, late)
    assert stream.rows == 1


def test_static_columns_are_asked_for(tmp_path: Path) -> None:
    path = write(tagger(), tmp_path)
    rows = rich_rows(2)
    stream = Stream(path)
    with pytest.raises(DataError, match="static column 'age' is missing"):
        stream.push(without(rows[0], "age"))
    with pytest.raises(DataError, match="static columns are not known yet"):
        stream.push(tuple(rows[0][n] for n in ("pulse", "ward", "pressure", "terminal", "steps")), rows[0]["when"])
    with pytest.raises(DataError, match="'weight' is no static column"):
        stream.reset({"weight": 3})
    stream.push(rows[0])
    with pytest.raises(DataError, match="static column 'age' is missing"):
        Streams(path).push(["a"], [without(rows[0], "age", "sex")], open_new=True)
    with pytest.raises(DataError, match="no static columns"):
        Stream(write(classifier("last", rich=False), tmp_path), static={"age": 1})


def test_states_of_others_are_refused(tmp_path: Path) -> None:
    path = write(tagger(), tmp_path)
    stream = Stream(path)
    stream.push_many(rich_rows(4))
    state = stream.state()
    others = [
        (write(tagger(), tmp_path, seed=4), "another model"),
        (write(changed(tagger(), hidden_size=12), tmp_path, seed=5), "another model"),
        (write(classifier("last"), tmp_path), "another model"),
    ]
    for other, words in others:
        with pytest.raises(CarouselError, match=words):
            Stream(other).restore(state)
        with pytest.raises(CarouselError, match=words):
            Streams(other).restore("a", state)
    for wrong, words in (
        (b"", "no state of a stream"),
        (b"crsl", "no state of a stream"),
        (state[4:], "no state of a stream"),
        (state[:-1], "damaged"),
        (state + b"x", "damaged"),
        (state[:4] + struct.pack("<H", 9) + state[6:], "version 9, this version reads 2"),
        (state[:80] + bytes([state[80] ^ 1]) + state[81:], "damaged"),
        ("text", "a state is bytes"),
    ):
        with pytest.raises(CarouselError, match=words):
            stream.restore(wrong)  # type: ignore[arg-type]
        assert stream.state() == state


def test_models_without_a_streaming_form(tmp_path: Path) -> None:
    for made, words in (
        (changed(classifier("last"), bidirectional=True), "bidirectional stack"),
        (changed(tagger(), bidirectional=True), "bidirectional stack"),
    ):
        with pytest.raises(NotSupported, match=words):
            Stream(write(made, tmp_path))
    with pytest.raises(CarouselError, match="weights must be one of float32, bf16, int8"):
        Stream(write(tagger(), tmp_path), weights="int4")


def test_files_that_are_no_models(tmp_path: Path) -> None:
    path = write(tagger(), tmp_path)
    whole = path.read_bytes()
    for size in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelFileError):
            Stream(path)
    with pytest.raises(ModelFileError, match="no such model file"):
        Stream(tmp_path / "none.safetensors")


def test_a_wide_model_of_one_unit(tmp_path: Path) -> None:
    from carousel.heads.tag import TagHead

    for inputs, hidden in ((1, 1), (70, 1), (1, 70)):
        made = ModelConfig("tag", plain_input(inputs), StackConfig(hidden), TagHead("regression"))
        path = write(made, tmp_path)
        x = np.random.default_rng(0).normal(size=(5, inputs))
        one, many = Stream(path), Streams(path)
        for row in x:
            assert many.push(["a"], row[None], open_new=True)["prediction"][0] == one.push(row)["prediction"]
