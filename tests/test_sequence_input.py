"""Sequences as channels: a table and a stream agree bit for bit, and both with an oracle written out row by row."""

from __future__ import annotations

import dataclasses
import warnings
from itertools import pairwise

import numpy as np
import pytest

from carousel.augment import blur_readings, hide_observations
from carousel.config import from_json, to_json
from carousel.errors import DataError, ModelFileError
from carousel.inputs.labels import Labels
from carousel.inputs.roles import Roles
from carousel.inputs.rows import Sequences, channels, read_arrays
from carousel.inputs.sequence import BOUND, Channel, Channels, SequenceInput, hash_text
from carousel.inputs.sequence_fit import fit_input

COLUMNS = (
    Channel("pulse", "number", mean=80.0, scale=7.0, gaps=True),
    Channel("ward", "category", values=("a", "b")),
    Channel("flow", "number", mean=0.4, scale=0.3, squash=3.0, gaps=True),
    Channel("steady", "number", mean=-1.0, scale=0.5),
    Channel("shop", "hash", buckets=8),
)
STATIC = (
    Channel("age", "number", mean=60.0, scale=11.0, gaps=True),
    Channel("sex", "category", values=("f", "m")),
    Channel("size", "number", mean=1.0, scale=2.0),
)
SEEN = SequenceInput(
    Roles("who", "at", features=tuple(c.name for c in COLUMNS), static=tuple(c.name for c in STATIC)),
    stamps=True,
    uneven=True,
    unit=60.0,
    calendar=("hour_of_day",),
    columns=COLUMNS,
    static=STATIC,
)


def raw(seed: int = 0, missing: float = 0.4) -> tuple:
    """time [N], numbers [N, 3], codes [N, 2], offsets of lengths 1, 9, 0, 7 and 12, static numbers [B, 2], codes."""
    rng = np.random.default_rng(seed)
    offsets = np.cumsum([0, 1, 9, 0, 7, 12])
    n = int(offsets[-1])
    gaps = rng.exponential(60.0, n) * (rng.random(n) > 0.2)  # some rows at the same time
    time = 1.7e9 + np.cumsum(gaps).round(3)
    numbers = rng.normal(size=(n, 3)) * (7.0, 30.0, 5.0) + (80.0, 1.0, -1.0)
    numbers[rng.random((n, 3)) < missing] = np.nan
    numbers[3, 0] = 1e9
    static = rng.normal(size=(5, 2))
    static[1, 0] = np.nan
    return time, numbers, rng.integers(0, 4, (n, 2)), offsets, static, rng.integers(0, 4, (5, 1))


def oracle(seen: SequenceInput, time, numbers, offsets) -> np.ndarray:
    """Row by row, with the definitions of the documentation, in float64."""
    rows = []
    for a, b in pairwise(offsets):
        for r in range(a, b):
            row = []
            for k, c in enumerate(seen.numbers):
                past = [q for q in range(a, r + 1) if not np.isnan(numbers[q, k])]

                def scaled(x: float, c: Channel = c) -> float:
                    x = x / (abs(x) + c.squash) if c.squash else x
                    return min(max((x - c.mean) / c.scale, -BOUND), BOUND)

                last = scaled(numbers[past[-1], k]) if past else 0.0
                if not c.gaps:
                    row.append(last)
                    continue
                age = (time[r] - time[past[-1]]) / seen.unit if past else np.inf
                now = bool(past) and past[-1] == r
                row += [last if now else 0.0, float(now), age / (1 + age) if past else 1.0, last]
            since = (time[r] - time[r - 1]) / seen.unit if r > a else 0.0
            angle = 2 * np.pi * (time[r] / 86400 % 1)
            rows.append([*row, since / (1 + since), np.sin(angle), np.cos(angle)])
    return np.array(rows)


def stream(seen: SequenceInput, time, numbers, offsets) -> tuple[np.ndarray, np.ndarray]:
    values, elapsed = [], []
    for a, b in pairwise(offsets):
        memory = seen.memory()
        for r in range(a, b):
            one, gap = seen.step(memory, float(time[r]), numbers[r])
            values.append(one)
            elapsed.append(gap)
    return np.array(values), np.array(elapsed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("seen", [SEEN, dataclasses.replace(SEEN, uneven=False, calendar=(), unit=7.0)])
def test_a_table_and_a_stream_agree_bit_for_bit(seed, seen):
    time, numbers, codes, offsets, *static = raw(seed)
    made = seen.transform(time, numbers, codes, offsets, *static)
    values, elapsed = stream(seen, time, numbers, offsets)
    assert made.values.dtype == made.elapsed.dtype == np.float32
    assert made.values.shape == (len(time), seen.value_size)
    np.testing.assert_array_equal(made.values, values)
    np.testing.assert_array_equal(made.elapsed, elapsed)


def test_channels_are_what_they_are_said_to_be():
    time, numbers, codes, offsets, *static = raw(1)
    made = SEEN.transform(time, numbers, codes, offsets, *static)
    np.testing.assert_allclose(made.values, oracle(SEEN, time, numbers, offsets), rtol=1e-6, atol=1e-7)  # of float32
    assert made.values[3, 0] == BOUND  # a wild reading
    assert len(SEEN.channel_names()) == SEEN.value_size == 4 + 4 + 1 + 1 + 2
    np.testing.assert_array_equal(made.codes, codes)
    scaled = (static[0] - (60.0, 1.0)) / (11.0, 2.0)
    expected = np.stack([np.nan_to_num(scaled[:, 0]), ~np.isnan(static[0][:, 0]), scaled[:, 1]], 1)
    np.testing.assert_allclose(made.static, expected, rtol=1e-6)


@pytest.mark.parametrize("fault", ["age of the row before", "last before the row", "state kept over sequences"])
def test_the_comparison_finds_a_faulty_stream(fault):
    time, numbers, codes, offsets, *static = raw(2)
    made = SEEN.transform(time, numbers, codes, offsets, *static).values
    wrong = made.copy()
    if fault == "age of the row before":
        wrong[1:, 2] = made[:-1, 2]
    elif fault == "last before the row":
        wrong[1:, 3] = made[:-1, 3]
    else:
        wrong = stream(SEEN, time, numbers, np.array([0, len(time)]))[0]
    assert not np.allclose(wrong, oracle(SEEN, time, numbers, offsets), rtol=1e-6, atol=1e-7)


def test_select_takes_whole_sequences_and_pieces():
    made = SEEN.transform(*raw(3))
    which = np.array([4, 1])
    part, rows = made.select(which, np.array([2, 0]), np.array([9, 5]))
    assert part.offsets.tolist() == [0, 7, 12]
    assert rows.tolist() == [*range(19, 26), *range(1, 6)]
    np.testing.assert_array_equal(part.values, made.values[rows])
    np.testing.assert_array_equal(part.static, made.static[which])
    assert isinstance(made.select(np.array([0]))[0], Channels)


def test_codes_of_missing_unseen_and_hashed_categories():
    ward, shop = COLUMNS[1], COLUMNS[4]
    assert [ward.code(text) for text in (None, "z", "a", "b")] == [0, 1, 2, 3]
    assert (ward.codes, ward.width) == (4, 3)
    assert shop.code(None) == 0
    assert shop.code("terminal 7") == 2 + hash_text("terminal 7") % 8 == 2 + 1044626588 % 8
    assert hash_text("") == 2166136261  # the literature's own constants
    assert hash_text("a") == 0xE40C292C
    assert hash_text("foobar") == 0xBF9CF968
    assert SEEN.row_codes(["b", None]).tolist() == [3, 0]


def test_the_input_survives_json_and_refuses_what_it_cannot_be():
    assert from_json(SequenceInput, to_json(SEEN), "input") == SEEN
    for change, message in (
        ({"unit": 0.0}, "unit must be positive"),
        ({"variable": "v"}, "named together"),
        ({"columns": (), "static": (), "calendar": (), "uneven": False}, "at least one column"),
    ):
        with pytest.raises(ModelFileError, match=message):
            from_json(SequenceInput, to_json(SEEN) | {k: list(v) if v == () else v for k, v in change.items()}, "input")
    with pytest.raises(ValueError, match="scale > 0"):
        Channel("x", "number", scale=0.0)
    with pytest.raises(ValueError, match="buckets"):
        Channel("x", "hash")


def sequences(features: np.ndarray, lengths: list[int], **more) -> Sequences:
    parts = np.split(features, np.cumsum(lengths)[:-1])
    return dataclasses.replace(read_arrays(parts), **more)


def test_fitting_takes_training_rows_only_and_notes_gaps_tails_and_idle_columns():
    rng = np.random.default_rng(4)
    x = rng.normal(5.0, 2.0, size=(400, 4))
    x[:, 1] = np.exp(3 * x[:, 1])  # heavy tails
    x[:, 2] = 7.0
    x[:, 3] = np.nan
    x[5, 0] = np.nan
    x[300:] = 1e6  # not of training
    found = sequences(x, [300, 100])
    with pytest.warns(UserWarning, match="in the training rows") as noted:
        seen = fit_input(found, np.arange(300))
    assert [str(w.message) for w in noted] == [
        "X, column 'x3': no value is observed in the training rows; the model is trained with it nonetheless and"
        " cannot learn from it.",
        "X, column 'x2': the value never changes in the training rows; the model is trained with it nonetheless and"
        " cannot learn from it.",
    ]
    plain, heavy, constant, never = seen.columns
    own = np.delete(x[:300, 0], 5)
    clipped = np.clip(own, *np.quantile(own, (0.005, 0.995)))
    assert (plain.mean, plain.scale, plain.squash, plain.gaps) == (clipped.mean(), clipped.std(), 0.0, True)
    assert heavy.squash == np.median(x[:300, 1])
    assert not heavy.gaps
    assert (constant.mean, constant.scale) == (7.0, 1.0)
    assert (never.mean, never.scale, never.gaps) == (0.0, 1.0, True)
    assert (seen.unit, seen.uneven, seen.calendar) == (1.0, False, ())
    assert np.isfinite(channels(found, seen).values).all()
    with pytest.raises(DataError, match="there is no row to train on"):
        fit_input(found, np.arange(0))


def test_idle_columns_with_gaps_and_static_ones_are_named():
    features = np.array([[1.0, 5.0], [2.0, np.nan], [3.0, 5.0], [9.0, 9.0]])
    static = np.array([[4.0, np.nan, 1.0, np.nan], [4.0, np.nan, 2.0, 7.0], [8.0, 8.0, 8.0, 8.0]])
    found = sequences(
        features,
        [2, 1, 1],
        static=static,
        roles=Roles("who", features=("x", "gappy"), static=("fixed", "off", "age", "seldom")),
    )
    with pytest.warns(UserWarning, match="in the training rows") as noted:
        fit_input(found, np.arange(3))
    nonetheless = "in the training rows; the model is trained with it nonetheless and"
    assert [str(w.message) for w in noted] == [
        f"X, column 'off': no value is observed {nonetheless} cannot learn from it.",
        f"X, column 'fixed': the value never changes {nonetheless} cannot learn from it.",
        f"X, columns 'gappy', 'seldom': the value never changes where there is one {nonetheless} can learn only from"
        " where it is missing.",
    ]


def test_the_clock_is_uneven_where_rows_are():
    x = np.random.default_rng(5).normal(size=(20, 1))
    time = np.concatenate([np.arange(10.0), 100 + 2.0 * np.arange(10)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        even = fit_input(sequences(x, [10, 10], time=np.tile(np.arange(10.0) * 5, 2)), np.arange(20))
        uneven = fit_input(sequences(x, [10, 10], time=time), np.arange(20))
    assert (even.unit, even.uneven) == (5.0, False)
    assert (uneven.unit, uneven.uneven) == (1.5, True)


def test_many_categories_share_hashed_embeddings():
    codes = np.arange(300.0)[:, None] % 150
    texts = {"x0": tuple(f"shop {k}" for k in range(150))}
    found = sequences(codes, [300], categories=texts)
    (many,) = fit_input(found, np.arange(300)).columns
    assert (many.kind, many.buckets) == ("hash", 256)
    (few,) = fit_input(found, np.arange(90)).columns
    assert (few.kind, len(few.values)) == ("category", 90)
    seen = fit_input(found, np.arange(90))
    assert channels(found, seen).codes[88:92, 0].tolist() == [2 + 88, 2 + 89, 1, 1]  # the rest was never seen


def remembered(values: np.ndarray, offsets: np.ndarray) -> bool:
    """Whether the last value is always that of the latest observed row of the sequence, for both gapped columns."""
    for first in (0, 4):
        for a, b in pairwise(offsets):
            last = np.float32(0)
            for row in values[a:b]:
                last = row[first] if row[first + 1] else last
                if row[first + 3] != last or (not row[first + 1] and row[first]):
                    return False
    return True


def test_noise_is_for_columns_without_gaps():
    seen = SEEN.transform(*raw(6))
    made = blur_readings(seen, SEEN, 0.5, np.random.default_rng(0))
    change = made.values - seen.values
    assert (np.delete(change, 8, 1) == 0).all()
    assert 0.4 < change[:, 8].std() < 0.6


def test_hidden_readings_are_as_if_they_had_never_been():
    seen = SEEN.transform(*raw(7, missing=0.2))
    made = hide_observations(seen, SEEN, 0.5, np.random.default_rng(0))
    assert remembered(made.values, made.offsets)
    kept, was = made.values[:, [1, 5]], seen.values[:, [1, 5]]
    assert (kept <= was).all()
    assert 0.3 < 1 - kept.sum() / was.sum() < 0.8
    time, numbers, codes, offsets, *static = raw(7, missing=0.2)
    numbers[:, :2] = np.where(kept > 0, numbers[:, :2], np.nan)
    np.testing.assert_allclose(made.values, SEEN.transform(time, numbers, codes, offsets, *static).values, atol=1e-6)


def test_columns_with_few_gaps_are_hidden_less():
    from carousel import Classifier, TrainConfig
    from carousel.sequences import Examples, SequenceTask

    rng = np.random.default_rng(9)
    x = rng.normal(size=(4000, 3))
    x[rng.random(4000) < 0.05, 0] = np.nan
    x[rng.random(4000) < 0.7, 1] = np.nan
    found = sequences(x, [40] * 100)
    model = Classifier(config=TrainConfig(hide=0.5))
    made = model._configure(found, Labels(np.arange(100.0) % 2, ("a", "b"), "text"), np.arange(100))
    examples = Examples(channels(found, made.input), np.arange(100.0) % 2, np.ones(100), np.arange(100), np.arange(0))
    assert SequenceTask(made, examples, model.settings).hidden == pytest.approx([0.05, 0.5], abs=0.02)
