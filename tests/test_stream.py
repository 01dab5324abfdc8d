"""Streams against `predict`: the same numbers row by row, in any chunks, after save and restore."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from carousel import Classifier, DataError, Detector, Tagger, _core
from carousel.cell import CellSpec
from carousel.config import StackConfig
from carousel.lstm import LSTM
from carousel.stream import Stream
from carousel.stream.loading import add_stack
from lstm_cases import SWITCHED
from stream_cases import classifier, detector, frame, plain_input, rich_rows, tagger, without, write

VARIANTS = {"plain": CellSpec(), "all": CellSpec(**SWITCHED)} | {
    name: CellSpec(**{name: value}) for name, value in SWITCHED.items()
}
CLOSE = 1e-6  # of probabilities: float32 sums of the head run in another order than torch's


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        if isinstance(value, float):
            assert found[name] == pytest.approx(value, rel=CLOSE, abs=CLOSE), name
        else:
            assert found[name] == value, name


def outputs(table: Any) -> list[dict[str, Any]]:
    return [without(row, "who", "when") for row in table.to_dicts()]


@pytest.mark.parametrize("stamps", [True, False])
@pytest.mark.parametrize("kind", ["label", "regression", "event"])
def test_tagger_row_by_row(tmp_path: Path, kind: str, stamps: bool) -> None:
    path = write(tagger(kind, stamps=stamps), tmp_path)
    rows = rich_rows(23, stamps=stamps)
    expected = outputs(Tagger.load(path).predict(frame(rows)))
    stream = Stream(path)
    for row, wanted in zip(rows, expected, strict=True):
        same(stream.push(row), wanted)
    assert stream.rows == 23


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
@pytest.mark.parametrize("width", [0, 5])
def test_classifier_says_after_each_row_what_predict_says_of_those_so_far(
    tmp_path: Path, pooling: str, width: int
) -> None:
    path = write(classifier(pooling, width=width, seeds=2), tmp_path)
    model, rows, stream = Classifier.load(path), rich_rows(9, seed=4), Stream(path)
    for k, row in enumerate(rows):
        same(stream.push(row), outputs(model.predict(frame(rows[: k + 1])))[0])


@pytest.mark.parametrize("reference", ["training", "history"])
def test_detector_row_by_row(tmp_path: Path, reference: str) -> None:
    path = write(detector(reference, seeds=2), tmp_path)
    rows = rich_rows(30, seed=12)
    expected = outputs(Detector.load(path).predict(frame(rows)))
    stream, found = Stream(path), []
    for k, row in enumerate(rows):
        if k % 7 == 3:
            state = stream.state()
            with pytest.raises(DataError):
                stream.push_many([row, row | {"steps": None}])
            assert stream.state() == state
            stream = Stream(path)
            stream.restore(state)
        found.append(stream.push(row))
        same(found[-1], expected[k])
    assert 0 < sum(f["anomaly"] for f in found) < 30
    assert any("," in (f["because"] or "") for f in found)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: replace(h, keep=(0.9, 1.0, 1.0)),
        lambda h: replace(h, floor=(0.05, 0.9, 0.05)),
        lambda h: replace(h, views=h.views[::-1][1:]),
        lambda h: replace(h, views=(replace(h.views[0], limit=2.01), *h.views[1:])),
        lambda h: replace(h, views=(*h.views[:2], replace(h.views[2], rows=4))),
        lambda h: replace(
            h, views=(*h.views[:2], replace(h.views[2], correlation=((1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0))))
        ),
    ],
)
def test_the_comparison_tells_another_score(tmp_path: Path, change: Any) -> None:
    true = detector()
    path, other = write(true, tmp_path), write(replace(true, head=change(true.head)), tmp_path / "other")
    rows = rich_rows(30, seed=12)
    expected = outputs(Detector.load(path).predict(frame(rows)))
    found = Stream(other).push_many(rows)

    def all_same() -> None:
        for one, wanted in zip(found, expected, strict=True):
            same(one, wanted)

    with pytest.raises(AssertionError):
        all_same()


def test_regression_of_sequences(tmp_path: Path) -> None:
    path = write(classifier("mean", kind="regression"), tmp_path)
    rows = rich_rows(8, seed=5)
    found = Stream(path).push_many(rows)
    same(found[-1], outputs(Classifier.load(path).predict(frame(rows)))[0])


def test_chunks_and_restarts_change_no_bit(tmp_path: Path) -> None:
    path = write(tagger(), tmp_path)
    rows = rich_rows(40, seed=7)
    whole = Stream(path).push_many(rows)
    stream, found, at = Stream(path), [], 0
    for size in (1, 7, 0, 19, 13):
        found += stream.push_many(rows[at : at + size])
        at += size
        state = stream.state()
        stream = Stream(path)  # another process, say
        stream.restore(state)
    assert found == whole


def test_a_restored_state_is_written_as_the_same_bytes(tmp_path: Path) -> None:
    path = write(classifier("attention", seeds=2), tmp_path)
    stream = Stream(path)
    stream.push_many(rich_rows(6))
    state = stream.state()
    stream.push_many(rich_rows(30)[6:])
    stream.restore(state)
    assert stream.state() == state
    assert stream.rows == 6


def test_reset_begins_anew(tmp_path: Path) -> None:
    path = write(tagger(), tmp_path)
    rows = rich_rows(5)
    stream = Stream(path)
    first = stream.push_many(rows)
    stream.reset()
    assert stream.push_many(rows) == first


def test_static_columns_may_come_once(tmp_path: Path) -> None:
    path = write(tagger(), tmp_path)
    rows = rich_rows(6)
    expected = Stream(path).push_many(rows)
    once = Stream(path)
    assert [once.push(row if k == 0 else without(row, "age", "sex")) for k, row in enumerate(rows)] == expected
    before = Stream(path, static={"age": rows[0]["age"], "sex": rows[0]["sex"]})
    assert [before.push(without(row, "age", "sex", "who")) for row in rows] == expected
    before.reset({"age": rows[0]["age"], "sex": rows[0]["sex"]})
    values = [tuple(row[n] for n in ("pulse", "ward", "pressure", "terminal", "steps")) for row in rows]
    assert before.push_many(values, [row["when"] for row in rows]) == expected


def test_rows_of_numbers_in_every_form(tmp_path: Path) -> None:
    path = write(classifier("last", rich=False), tmp_path)
    x = np.random.default_rng(0).normal(size=(7, 3))
    expected = Classifier.load(path).predict_proba([x[: k + 1] for k in range(7)])
    for form in (
        lambda row: row,
        lambda row: row.astype(np.float32).astype(np.float64),
        lambda row: row.tolist(),
        lambda row: tuple(row.tolist()),
        lambda row: dict(zip(("x0", "x1", "x2"), row.tolist(), strict=True)),
        lambda row: np.stack([row, row], 1)[:, 0],  # not contiguous
        lambda row: [np.float64(v) for v in row],
    ):
        stream = Stream(path)
        found = np.array([[v for n, v in stream.push(form(row)).items() if n != "prediction"] for row in x])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    one, many = Stream(path), Stream(path)
    assert many.push_many(x) == [one.push(row) for row in x]
    assert [one.push(row.astype(np.float32)) for row in x] == [many.push(row.astype(np.float32).tolist()) for row in x]


@pytest.mark.parametrize("name", sorted(VARIANTS))
@pytest.mark.parametrize("layers", [1, 3])
def test_the_stack_gives_the_bits_of_the_batch(name: str, layers: int) -> None:
    spec = VARIANTS[name]
    torch.manual_seed(layers)
    for inputs, hidden in ((5, 7), (20, 33)):
        lstm = LSTM(inputs, hidden, layers, **asdict(spec), backend="native").eval()
        with torch.no_grad():
            for weight in lstm.parameters():
                weight.uniform_(-0.6, 0.6)
        x = torch.randn(11, 3, inputs)
        elapsed = torch.rand(11, 3) if spec.decay else None
        with torch.no_grad():
            expected, _ = lstm(x, elapsed=elapsed)
        stack = _core.Stack()
        weights = {f"stack.{n}": w.detach().numpy() for n, w in lstm.named_parameters()}
        add_stack(stack.add_layer, StackConfig(hidden, layers, 0.0, spec), weights, "", inputs, "float32")
        for b in range(3):
            stack.reset()
            y = np.empty((11, expected.shape[2]), np.float32)
            for part in (slice(0, 4), slice(4, 5), slice(5, 11)):
                gaps = None if elapsed is None else elapsed[part, b].numpy().copy()
                stack.run(x[part, b].numpy().copy(), gaps, y[part])
            assert np.array_equal(y, expected[:, b].numpy())


@pytest.mark.parametrize(("weights", "loss"), [("bf16", 0.02), ("int8", 0.02)])
def test_smaller_weights_lose_little(tmp_path: Path, weights: str, loss: float) -> None:
    path = write(tagger("event"), tmp_path)
    rows = rich_rows(60, seed=9)
    whole = np.array([r["probability"] for r in Stream(path).push_many(rows)])
    small = np.array([r["probability"] for r in Stream(path, weights=weights).push_many(rows)])
    assert 0 < np.abs(whole - small).max() < loss


def test_a_row_allocates_nothing_that_stays(tmp_path: Path) -> None:
    import tracemalloc

    from carousel.config import ModelConfig
    from carousel.heads.tag import TagHead

    config = ModelConfig("tag", plain_input(), StackConfig(16), TagHead("label", 0, ("a", "b")))
    stream, row = Stream(write(config, tmp_path)), np.array([0.1, 0.2, 0.3])
    for _ in range(10):
        stream.push(row)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(1000):
        stream.push(row)
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 512
    assert peak - before < 2048  # one answer: a dict and three floats
