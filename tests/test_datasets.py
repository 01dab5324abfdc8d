"""The classic tasks: every answer is checked against a slow definition of its own, and streams are seeded."""

from __future__ import annotations

import re

import numpy as np
import pytest

from carousel.datasets import (
    Adding,
    Copy,
    Counting,
    CycleNavigation,
    Distractors,
    EmbeddedReber,
    EvenPairs,
    ModularArithmetic,
    Multiplication,
    NoisyLag,
    Parity,
    TemporalOrder,
    digits,
)

TASKS = [
    Adding(40),
    Multiplication(40),
    TemporalOrder(2, 40),
    TemporalOrder(3, 60),
    NoisyLag(30),
    NoisyLag(30, noise=True),
    Distractors(20),
    Copy(9, 4),
    Parity(longest=12),
    EvenPairs(longest=12, every_step=True),
    CycleNavigation(longest=12),
    ModularArithmetic(longest=13, every_step=True),
    Counting(2),
    Counting(3),
    EmbeddedReber(),
]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.name} {task.outputs}")
def test_a_stream_is_seeded_and_has_the_shapes_it_says(task):
    first, again, other = (next(task.stream(17, seed)) for seed in (3, 3, 4))
    assert np.array_equal(first.x.values, again.x.values)
    assert np.array_equal(first.answer, again.answer)
    assert first.x.values.shape != other.x.values.shape or not np.array_equal(first.x.values, other.x.values)
    assert len(first.x) == 17
    assert first.x.values.dtype == np.float32
    assert first.x.values.shape[1] == task.inputs
    assert len(first.at) == len(first.answer)
    assert set(first.owner) == set(range(17))
    if task.kind == "class":
        assert 0 <= first.answer.min() <= first.answer.max() < task.outputs
    else:
        assert first.answer.shape[1] == task.outputs


def test_adding_and_multiplication_follow_from_the_two_marked_numbers():
    for task, answer in ((Adding(50), lambda a, b: 0.5 + (a + b) / 4), (Multiplication(50), lambda a, b: a * b)):
        batch = next(task.stream(200))
        assert 50 <= batch.x.lengths.min() <= batch.x.lengths.max() <= 55
        for row, found in zip(batch.x, batch.answer, strict=True):
            marks = np.flatnonzero(row[:, 1] == 1)
            assert len(marks) == 2
            assert marks[0] < 25
            assert marks.min() < 10
            assert row[0, 1] == row[-1, 1] == -1
            assert found[0] == pytest.approx(answer(*row[marks, 0]), abs=1e-6)


def test_temporal_order_tells_all_classes_apart_by_their_order_alone():
    batch = next(TemporalOrder(3, 100).stream(400))
    assert set(batch.answer) == set(range(8))
    for row, answer in zip(batch.x, batch.answer, strict=True):
        symbol = row.argmax(1)
        at = np.flatnonzero(symbol >= 6)
        assert [symbol[0], symbol[-1]] == [1, 0]
        assert len(at) == 3
        assert 10 <= at[0] <= 20 < 33 <= at[1] <= 43 < 66 <= at[2] <= 76
        assert int("".join(str(s - 6) for s in symbol[at]), 2) == answer


def test_noisy_lags_have_their_class_in_the_first_steps_only():
    batch = next(NoisyLag(100, carriers=3).stream(2000, seed=2))
    means = np.array([[row[:3, 0].mean(), row[3:, 0].mean()] for row in batch.x])
    assert np.allclose(means[:, 0], 2 * batch.answer[:, 0] - 1)
    assert abs(np.corrcoef(means[:, 1], batch.answer[:, 0])[0, 1]) < 0.1
    assert batch.x.values[5:100, 0].std() == pytest.approx(np.sqrt(0.2), rel=0.2)
    noisy = next(NoisyLag(100, noise=True).stream(4000)).answer
    assert noisy[noisy > 0.5].mean() == pytest.approx(0.8, abs=0.01)
    assert noisy[noisy > 0.5].std() == pytest.approx(0.1, abs=0.01)


def test_modular_arithmetic_is_python_arithmetic():
    batch = next(ModularArithmetic(longest=21, every_step=True).stream(60))
    words = "01234+-*"
    texts = ["".join(words[k] for k in row.argmax(1)) for row in batch.x]
    found = [batch.answer[batch.owner == b] for b in range(len(texts))]
    for text, answers in zip(texts, found, strict=True):
        assert [eval(text[: k + 1]) % 5 for k in range(0, len(text), 2)] == answers.tolist()
    assert max(len(text) for text in texts) == 21


def test_counting_names_all_symbols_that_may_follow():
    batch = next(Counting(3, most=6).stream(50))
    for b, row in enumerate(batch.x):
        text = "".join("Sabc"[k] for k in row.argmax(1))
        n = text.count("a")
        assert text == "S" + "a" * n + "b" * n + "c" * n
        legal = ["".join("SabcE"[k] for k in np.flatnonzero(ok)) for ok in batch.answer[batch.owner == b]]
        assert legal == ["a"] + ["ab"] * n + ["b"] * (n - 1) + ["c"] * n + ["E"]


MIDDLE = "(?:XT*VP)*(?:S|XT*VV)"
REBER = f"B(?:TS*X{MIDDLE}|PT*V(?:V|P{MIDDLE}))E"


def test_embedded_reber_strings_belong_to_the_grammar_and_the_legal_symbols_are_all_seen():
    task = EmbeddedReber()
    batch = next(task.stream(3000))
    seen: dict[str, set[str]] = {}
    legal: dict[str, str] = {}
    for b, row in enumerate(batch.x):
        text = "".join(task.letters[k] for k in row.argmax(1)) + "E"
        assert text[0] == "B"
        assert text[1] == text[-2]
        assert re.fullmatch(REBER, text[2:-2])
        allowed = batch.answer[batch.owner == b]
        assert len(allowed) == len(text) - 1
        for k, ok in enumerate(allowed):
            letters = "".join(sorted(task.letters[j] for j in np.flatnonzero(ok)))
            assert text[k + 1] in letters
            if k < 5:
                seen.setdefault(text[: k + 1], set()).add(text[k + 1])
                legal[text[: k + 1]] = letters
    assert {prefix: "".join(sorted(found)) for prefix, found in seen.items() if len(prefix) < 4} == {
        prefix: letters for prefix, letters in legal.items() if len(prefix) < 4
    }


def test_an_answer_is_right_only_where_every_place_is():
    batch = next(Counting(2, least=3, most=3).stream(3))
    good = np.where(batch.answer, 1.0, 0.0)
    assert batch.right(good).tolist() == [True, True, True]
    bad = good.copy()
    bad[8] = 1 - bad[8]
    assert batch.right(bad).tolist() == [True, False, True]
    tied = np.ones_like(good)
    assert not batch.right(tied).any()
    numbers = next(Adding(30).stream(4))
    assert numbers.right(numbers.answer + 0.039).all()
    assert not numbers.right(numbers.answer - 0.041).any()


def test_digits_are_split_by_class_and_permuted_alike():
    train, test = digits()
    assert np.bincount(test.answer).tolist() == [round(0.2 * n) for n in np.bincount([*train.answer, *test.answer])]
    shuffled, _ = digits(permuted=True)
    assert not np.array_equal(train.x[0], shuffled.x[0])
    assert np.array_equal(np.sort(train.x[5], axis=0), np.sort(shuffled.x[5], axis=0))
    assert train.x.values.max() == 1


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Adding(5), "length must be at least 24, got 5"),
        (lambda: TemporalOrder(4), "marks must be 2 or 3, got 4"),
        (lambda: Parity(shortest=9, longest=3), "longest must be at least 9, got 3"),
        (lambda: ModularArithmetic(shortest=40, longest=40), "longest must be at least 41, got 40"),
        (lambda: Counting(4), "letters must be 2 or 3, got 4"),
        (lambda: next(Copy().stream(0)), "batch_size must be at least 1, got 0"),
        (lambda: digits(test=1.0), r"test is a share in \(0, 1\), got 1.0"),
    ],
)
def test_a_task_out_of_range_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
