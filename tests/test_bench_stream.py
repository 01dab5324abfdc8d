"""`carousel bench stream` on small sizes: contenders agree before they are timed, and tables are whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from carousel import cli
from carousel.bench import stream, stream_models
from carousel.bench.allocations import with_counter
from carousel.bench.layer import Grid
from carousel.bench.stream_peers import CStep, peers


@pytest.fixture
def grid() -> Grid:
    return Grid((8,), (1,), dtype=torch.float32, seconds=0.02)


def test_steps_inside_the_core(grid: Grid) -> None:
    report = stream.steps(grid)
    assert [row[:2] for row in report.rows] == [[8, "float32"], [8, "bf16"], [8, "int8"]]
    for row in report.rows:
        assert 0 < row[2] <= row[3]
    assert report.rows[0][-1] is None
    assert 0 < report.rows[1][-1] < 0.02
    assert 0 < report.rows[2][-1] < 0.02


def test_rows_from_python(grid: Grid) -> None:
    report = stream.from_python(grid)
    names = [row[1] for row in report.rows]
    assert names[:3] == ["Stream.push", "torch.nn.LSTM", "torch.nn.LSTMCell"]
    counts = {row[1]: row[-1] for row in report.rows}
    if counts["Stream.push"] is not None:  # there is a compiler
        assert counts["Stream.push"] == 0
        assert counts["torch.nn.LSTM"] > 0


def test_many_streams(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(stream, "STREAMS", 70)
    report = stream.many(grid)
    assert [row[:2] for row in report.rows] == [[8, 8]] * 2
    assert all(row[3] > 0 for row in report.rows)


def test_whole_models(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_models, "CONTEXT", 10)
    monkeypatch.setattr(stream_models, "SEASON", 3)
    monkeypatch.setattr(stream_models, "TOGETHER", 5)
    report = stream.models(grid)
    assert [row[:2] for row in report.rows] == [[8, "tag"], [8, "detect"], [8, "forecast"]]
    assert all(0 < cell < 1e5 for row in report.rows for cell in row[2:])


def test_a_cold_process(tmp_path) -> None:
    path = stream._model(stream._layer(64), tmp_path / "m.safetensors")
    cpu, wall, peak = stream._process(stream._COLD_STREAM, path, 1)
    assert cpu > 0
    assert wall > 0
    assert 5 < peak < 45  # MiB: what a stream may take


def test_contenders_that_disagree_are_not_timed(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    true = stream._after
    monkeypatch.setattr(stream, "_after", lambda layer, rows: true(layer, rows) + np.float32(1e-3))
    for measure in (stream.steps, stream.from_python):
        with pytest.raises(ArithmeticError, match="h is off by"):
            measure(grid)


def test_peers_walk_on_and_begin_anew() -> None:
    layer, rows = stream._layer(6), stream._rows(6, 3)
    expected = [stream._after(layer, np.repeat(rows[:1], n, 0)) for n in (1, 2, 3)]
    for peer in peers(layer, rows[0]):
        for _ in range(2):
            peer.reset()
            for wanted in expected:
                peer.step()
                np.testing.assert_allclose(peer.h(), wanted, atol=1e-6, err_msg=peer.name)


def test_the_step_in_c() -> None:
    layer, rows = stream._layer(6, 4), np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    try:
        made = CStep(layer)
    except FileNotFoundError:
        pytest.skip("no C compiler")
    made.run(rows, np.empty(9, np.int64))
    np.testing.assert_allclose(made.h, stream._after(layer, rows), atol=1e-6)


def test_allocations_are_counted() -> None:
    code = "from carousel.bench.allocations import allocations; print(allocations(lambda: bytearray(100_000)))"
    done = with_counter(["-c", code])
    if done is None:
        pytest.skip("no C compiler, or no Linux")
    assert float(done.stdout) >= 1


@pytest.mark.parametrize("option", [("--batch", "4"), ("--dtype", "float64")])
def test_options_of_other_suites_are_refused(option: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", "stream", *option]) == 2
    assert option[0] in capsys.readouterr().err
