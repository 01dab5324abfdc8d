"""Removing observations does what it says, and the comparison runs to its tables and picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from carousel.bench import robust
from carousel.bench.corrupt import KINDS, carried, corrupt
from carousel.errors import CarouselError
from carousel.inputs.rows import Sequences, read_sequences, sequence_roles
from carousel.train import TrainConfig


def sequences(count: int = 40, rows: int = 60) -> Sequences:
    rng = np.random.default_rng(0)
    n = count * rows
    frame = pl.DataFrame(
        {
            "id": np.repeat(np.arange(count), rows),
            "t": np.concatenate([np.cumsum(rng.exponential(1.0, rows)) for _ in range(count)]),
            **{f"x{c}": rng.normal(size=n) for c in range(8)},
            "age": np.repeat(rng.normal(size=count), rows),
        }
    )
    roles = sequence_roles(frame, id="id", time="t", target=(), features=None, static=("age",))
    return read_sequences(frame, roles)


def removed(given: Sequences, kind: str, share: float) -> np.ndarray:
    """[N, F] in the rows of `given`: what is not there afterwards, dropped rows being all gone."""
    found = corrupt(given, kind, share, 0.0, np.ones(8), np.random.default_rng(1))
    gone = np.ones(given.features.shape, bool)
    at = {(int(o), float(t)): k for k, (o, t) in enumerate(zip(given.owner, given.time, strict=True))}
    rows = [at[int(o), float(t)] for o, t in zip(found.owner, found.time, strict=True)]
    gone[rows] = np.isnan(found.features)
    kept = ~gone[rows]
    np.testing.assert_array_equal(found.features[kept], given.features[rows][kept])
    assert (found.lengths >= 1).all()
    assert len(found.ids) == len(given.ids)
    return gone


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_about_the_share_is_removed_in_the_way_that_is_said(kind: str, share: float) -> None:
    given = sequences()
    gone = removed(given, kind, share)
    expected = round(share * 8) / 8 if kind in ("sensor", "lost") else share
    assert gone.mean() == pytest.approx(expected, abs=0.05)
    by_sequence = gone.reshape(40, 60, 8)
    if kind == "lost":
        assert (by_sequence == by_sequence[0, 0]).all()
    if kind == "sensor":
        assert (by_sequence == by_sequence[:, :1]).all()
        assert not (by_sequence == by_sequence[0, 0]).all()
    if kind == "bursts":
        assert (by_sequence == by_sequence[:, :, :1]).all()
        starts = np.diff(by_sequence[:, :, 0].astype(int), axis=1, prepend=0) == 1
        assert starts.sum(1).max() <= 3
    if kind == "points":
        assert 0 < np.corrcoef(gone[:, 0], gone[:, 1])[0, 1] + 0.2 < 0.4


def test_nothing_removed_and_noise_of_a_size() -> None:
    given = sequences()
    rng = np.random.default_rng(0)
    same = corrupt(given, "points", 0.0, 0.0, np.ones(8), rng)
    np.testing.assert_array_equal(same.features, given.features)
    noisy = corrupt(given, "points", 0.0, 0.5, np.arange(8.0), rng)
    np.testing.assert_allclose((noisy.features - given.features).std(0), 0.5 * np.arange(8), rtol=0.1)
    with pytest.raises(ValueError, match="'cake' is no way to remove"):
        corrupt(given, "cake", 0.5, 0.0, np.ones(8), rng)


def test_carried_forward_values_are_those_of_a_slow_loop() -> None:
    given = corrupt(sequences(7, 9), "points", 0.6, 0.0, np.ones(8), np.random.default_rng(0))
    means = np.arange(8.0)
    for k, array in enumerate(carried(given, means, np.zeros(1))):
        rows = slice(given.offsets[k], given.offsets[k + 1])
        expected = means.copy()
        for step, row in enumerate(given.features[rows]):
            expected = np.where(np.isnan(row), expected, row)
            np.testing.assert_array_equal(array[step, :8], expected)
        assert (array[:, 8] == given.static[k, 0]).all()
        np.testing.assert_allclose(array[:, 9], given.time[rows] - given.time[given.offsets[k]])


def test_the_comparison_writes_tables_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(steps=8, least_steps=8, hidden_size=4, warmup=2, evaluate_every=4, hide=0.3, refit=False)
    small = robust.generated(30, config)
    monkeypatch.setattr(robust, "generated", lambda: small)
    monkeypatch.setattr(robust, "SHARES", (0.0, 0.5))
    monkeypatch.setattr(robust, "NOISE", (0.0, 0.5))
    said: list[str] = []
    (found,) = robust.measure(["generated"], out=tmp_path, say=said.append)
    assert set(found.cells) == {robust.GAPS, robust.CARRIED, robust.TREES}
    assert {len(cells) for cells in found.cells.values()} == {2 * (1 + len(KINDS))}
    assert found.at(robust.GAPS, "points", 0.0) == found.at(robust.GAPS, "lost", 0.0)
    assert all(0 <= value <= 1 for cells in found.cells.values() for value in cells.values())
    assert "| bursts | boosted trees on summaries |" in said[0]
    record = json.loads((tmp_path / "robust-generated.json").read_text())
    assert record["cells"] == found.cells
    assert (tmp_path / "robust-generated.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_set_is_refused() -> None:
    with pytest.raises(CarouselError, match="there is no set 'cake'; choose from physionet, generated"):
        robust.measure(["cake"])
