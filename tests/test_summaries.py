"""Summaries against slow ones written out, causal by a perturbed future; baselines that learn what there is."""

from __future__ import annotations

import numpy as np
import pytest

from carousel import summaries
from carousel.inputs.clock import Clock
from carousel.trust.parts import Part


def part(seed: int = 0, lengths: tuple[int, ...] = (9, 1, 30, 4)) -> Part:
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    n = int(offsets[-1])
    values = rng.normal(size=(n, 3))
    values[rng.random((n, 3)) < 0.4] = np.nan
    values[offsets[2] : offsets[3], 1] = np.nan  # a column that one sequence never has
    values[:, 2] = rng.integers(0, 3, n)
    time = np.concatenate([np.cumsum(rng.exponential(2.0, m)) for m in lengths])
    return Part(
        np.arange(len(lengths)),
        offsets,
        time,
        ("a", "b", "c"),
        values,
        rng.normal(size=n),
        frozenset({"c"}),
        np.arange(n) + 1,
        Clock("row"),
    )


def slow(x: np.ndarray, t: np.ndarray) -> dict[str, float]:
    seen = np.isfinite(x)
    if not seen.any():
        return dict.fromkeys(("first", "last", "mean", "min", "max", "sd", "slope", "age"), np.nan) | {"count": 0.0}
    y, s = x[seen], t[seen]
    return {
        "first": y[0],
        "last": y[-1],
        "mean": y.mean(),
        "min": y.min(),
        "max": y.max(),
        "sd": y.std(),
        "slope": np.polyfit(s, y, 1)[0] if len(y) > 1 else np.nan,
        "count": float(len(y)),
        "age": t[-1] - s[-1],
    }


def test_summaries_of_sequences_are_those_written_out() -> None:
    given = part()
    found, names = summaries.sequence_summaries(given)
    assert found.shape == (4, len(names))
    for b in range(4):
        rows = slice(given.offsets[b], given.offsets[b + 1])
        for k, column in enumerate(("a", "b")):
            for kind, expected in slow(given.values[rows, k], given.time[rows]).items():
                got = found[b, names.index(f"{column} {kind}")]
                np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12, err_msg=f"{b} {column} {kind}")
        assert found[b, names.index("c last")] == given.values[given.offsets[b + 1] - 1, 2]
        assert found[b, names.index("rows")] == given.lengths[b]


def test_summaries_of_rows_are_those_of_the_sequence_so_far() -> None:
    given = part(1)
    found, names = summaries.row_summaries(given)
    for row in range(len(given.time)):
        b = int(given.owner[row])
        so_far = slice(given.offsets[b], row + 1)
        x, t = given.values[so_far, 0], given.time[so_far]
        whole = slow(x, t)
        expected = {"a": x[-1], "a last": whole["last"], "a age": whole["age"], "a mean so far": whole["mean"]}
        for width in (5, 20):
            recent = slow(x[-width:], t[-width:])
            expected |= {f"a {kind} {width}": recent[kind] for kind in ("mean", "min", "max")}
        two = np.flatnonzero(np.isfinite(x))[-2:]
        moves = np.isfinite(x[-1]) and len(two) == 2
        expected["a slope"] = (x[two[1]] - x[two[0]]) / (t[two[1]] - t[two[0]]) if moves else np.nan
        for name, value in expected.items():
            np.testing.assert_allclose(found[row, names.index(name)], value, rtol=1e-9, atol=1e-12, err_msg=name)


def test_summaries_of_rows_do_not_see_the_future() -> None:
    given = part(2)
    before, _ = summaries.row_summaries(given)
    cut = int(given.offsets[2]) + 11
    given.values[cut:, :2] = 1e6
    after, _ = summaries.row_summaries(given)
    np.testing.assert_array_equal(before[:cut], after[:cut])
    assert not np.array_equal(before[cut:], after[cut:], equal_nan=True)


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_baselines_learn_what_there_is_in_their_order(classes: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 4))
    score = x[:, 0] * 2 + np.abs(x[:, 1]) * 3  # the first alone is linear
    truth = np.digitize(score, np.quantile(score, np.arange(1, classes) / classes)) if classes else score
    x[rng.random(x.shape) < 0.02] = np.nan
    names = ("a last", "a", "b last", "b")
    made = summaries.predictions(x[:600], truth[:600], x[600:], names, ("a",), classes=classes)
    assert tuple(made) == summaries.BASELINES
    test = truth[600:]

    def loss(p: np.ndarray) -> float:
        if not classes:
            return float(np.square(p - test).mean())
        assert p.shape == (300, classes)
        np.testing.assert_allclose(p.sum(1), 1)
        return float(-np.log(np.clip(p[np.arange(300), test], 1e-9, 1)).mean())

    losses = [loss(made[name]) for name in summaries.BASELINES]
    assert losses[3] < losses[2] <= losses[0]
    assert losses[1] < losses[0]


def test_a_class_that_training_lacks_gets_no_probability() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    truth = np.where(x[:, 0] > 0, 2, 0)
    made = summaries.predictions(x, truth, x, ("a last", "a slope"), ("a",), classes=4)
    for p in made.values():
        assert p.shape == (80, 4)
        assert (p[:, [1, 3]] == 0).all()
    one = summaries.predictions(x, np.ones(80, int), x, ("a last", "a slope"), ("a",), classes=2)
    assert all((p[:, 1] == 1).all() for p in one.values())
