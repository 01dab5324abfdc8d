"""Shares are fair, contenders learn what can be learned and say what they cost, crossings are told as they are."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from carousel import cli
from carousel.bench import small_data
from carousel.bench.small_data_models import (
    GRIDS,
    LINEAR,
    NETWORKS,
    TREES,
    _letters,
    _operations,
    _pairs,
    _summaries,
    _Words,
    fit,
    kinds,
    score,
)
from carousel.bench.small_data_sets import LOADERS, Part, Problem, generated, share_of
from carousel.errors import CarouselError


def classes(count: int = 200) -> Part:
    rng = np.random.default_rng(0)
    return Part([rng.normal(size=(5, 2)) for _ in range(count)], rng.choice(4, count, p=[0.7, 0.2, 0.08, 0.02]))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_a_share_has_its_part_of_each_class_and_at_least_two(share: float) -> None:
    part = classes()
    chosen = share_of(part, share, np.random.default_rng(1))
    assert len(np.unique(chosen)) == len(chosen)
    for label in range(4):
        own = int((part.y == label).sum())
        assert (part.y[chosen] == label).sum() == max(2, round(share * own))
    other = share_of(part, share, np.random.default_rng(2))
    assert not np.array_equal(chosen, other)


def test_a_share_of_groups_takes_whole_groups_that_are_neighbours() -> None:
    group = np.repeat(np.arange(20), 7)
    part = Part([np.zeros((3, 1))] * 140, np.arange(140.0), group)
    for seed in range(5):
        chosen = share_of(part, 0.1, np.random.default_rng(seed))
        found = np.unique(group[chosen])
        assert len(chosen) == 14
        assert len(found) == 2
        assert (found[1] - found[0]) in (1, 19)
    assert share_of(part, 1.0, np.random.default_rng(0)).tolist() == list(range(140))
    assert len(share_of(part, 0.01, np.random.default_rng(0))) == 7


def test_a_third_is_held_out_of_classes_groups_or_the_end() -> None:
    part = classes()
    held = small_data._held(part, np.random.default_rng(0))
    for label in range(4):
        own = part.y == label
        assert held[own].sum() == max(1, own.sum() // 3)
    group = np.repeat(np.arange(6), 5)
    grouped = Part([np.zeros((3, 1))] * 30, np.arange(30.0), group)
    held = small_data._held(grouped, np.random.default_rng(0))
    assert all(len(set(held[group == name])) == 1 for name in range(6))
    assert held.sum() == 10
    single = grouped.take(np.arange(5))
    assert small_data._held(single, np.random.default_rng(0)).tolist() == [False] * 4 + [True]


def test_scores() -> None:
    problem = generated()
    assert score(problem, np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), np.array([1, 0, 0, 1])) == 0.75
    numbers = Problem("n", "", "number", False, problem.train, problem.test)
    assert score(numbers, np.array([1.0, 5.0]), np.array([1.0, 1.0])) == pytest.approx(8**0.5)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_learns_the_order_of_two_events(kind: str) -> None:
    problem = generated()
    fitted = fit(kind, problem, problem.train, GRIDS[kind][3], 0)
    outputs = fitted.outputs(problem.test.x)
    assert outputs.shape == (400, 2)
    assert score(problem, outputs, problem.test.y) > 0.9
    np.testing.assert_allclose(fitted.outputs(problem.test.x[3:5]), outputs[3:5], atol=1e-5)
    assert fitted.bytes == pytest.approx(41_000, rel=0.1)
    assert fitted.operations == pytest.approx(20_000, rel=0.1)


def numbers(count: int = 120) -> Problem:
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(6, 2)) for _ in range(count)]
    part = Part(x, np.array([40 + 10 * one[:, 0].mean() for one in x]))
    return Problem("numbers", "", "number", False, part, part)


@pytest.mark.parametrize("kind", ["LSTM", TREES])
def test_numbers_are_answered_in_their_own_unit(kind: str) -> None:
    problem = numbers()
    fitted = fit(kind, problem, problem.train, GRIDS[kind][1 if kind == TREES else 3] | {"leaf": 5}, 0)
    error = score(problem, fitted.outputs(problem.test.x), problem.test.y)
    assert error < 0.5 * problem.train.y.std()


def texts() -> Problem:
    rng = np.random.default_rng(0)
    words = np.array(["good", "bad", "film", "the", "a", "was"])

    def part(count: int) -> Part:
        y = rng.integers(0, 2, count)
        x = [[*rng.choice(words[2:], 4), str(words[1 - label]), *rng.choice(words[2:], 2)] for label in y]
        return Part([[str(word) for word in one] for one in x], y)

    return Problem("texts", "", "class", True, part(80), part(60))


@pytest.mark.parametrize("kind", ["LSTM", LINEAR])
def test_words_are_learned(kind: str) -> None:
    problem = texts()
    assert kinds(problem) == (*NETWORKS, LINEAR)
    fitted = fit(kind, problem, problem.train, GRIDS[kind][3], 0)
    outputs = fitted.outputs([*problem.test.x, ["unheard", "of"]])
    assert outputs.shape == (61, 2)
    assert score(problem, outputs[:60], problem.test.y) == 1.0
    assert fitted.operations > 0


def test_words_seen_once_share_the_number_of_unknown_ones() -> None:
    words = _Words([["a", "b", "a"], ["b", "c"]])
    assert words.width == 3
    seen = words.read([["a", "b"], ["c", "zebra", "a"]])
    assert seen.values.tolist() == [1, 2, 0, 0, 1]
    assert seen.offsets.tolist() == [0, 2, 5]


def test_features_of_the_baselines() -> None:
    assert _pairs(["a", "b", "c"]) == ["a", "b", "c", "a b", "b c"]
    assert _letters(["h", "i"])[:4] == [" ", "h", "i", " "]
    assert " hi " in _letters(["h", "i"])
    ragged = _summaries([np.array([[1.0], [2.0], [3.0]]), np.array([[5.0]])], False)
    np.testing.assert_allclose(ragged[0], [2, np.std([1, 2, 3]), 1, 3, 1, 3, 1])
    np.testing.assert_allclose(ragged[1], [5, 0, 5, 5, 5, 5, 0])
    assert _summaries([np.zeros((4, 2)), np.ones((4, 2))], True).shape == (2, 7 * 2 + 8)


def test_operations_of_a_row() -> None:
    assert _operations("LSTM", 2, 48, 10.0) == 2 * 4 * 48 * 50
    assert _operations("GRU", 2, 48, 10.0) == 2 * 3 * 48 * 50
    assert _operations("Transformer", 2, 8, 10.0) == 2 * (2 * 8 + 2 * (12 * 64 + 8 * 10))


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        ([True, True, True], "everywhere at least as good as"),
        ([False, False, False], "everywhere worse than"),
        ([False, True, True], "from 10 % on at least as good as"),
        ([True, True, False], "up to 10 % at least as good as"),
        ([True, False, True], "at 1 %, 100 % at least as good as"),
    ],
)
def test_crossings_are_said(ahead: list[bool], said: str) -> None:
    assert small_data._crossing(["0.01", "0.1", "1.0"], ahead) == said


def test_errors_are_better_when_they_are_smaller() -> None:
    def cells(*scores: float) -> dict[str, object]:
        return {share: {"runs": [{"score": s}]} for share, s in zip(("0.1", "1.0"), scores, strict=True)}

    rows = {"LSTM": cells(2.0, 1.0), TREES: cells(1.0, 2.0)}
    about = {"said": "", "train": 9, "test": 9, "counts": {"0.1": 1, "1.0": 9}}
    found = small_data.SmallData(
        {"life": rows, "digits": rows}, {"life": about | {"kind": "number"}, "digits": about | {"kind": "class"}}, {}
    )
    assert found.verdict() == [
        "life: the LSTM is from 100 % on at least as good as boosted trees.",
        "digits: the LSTM is up to 10 % at least as good as boosted trees.",
    ]
    assert found.wins()[2:] == ["| 10% | 1 of 2 |", "| 100% | 1 of 2 |"]


def test_measuring_goes_on_and_settings_are_tuned_on_the_part_alone(monkeypatch, tmp_path) -> None:
    made: list[tuple[str, int, int]] = []
    problem = generated()

    class Fixed:
        bytes, operations = 1_000, 10.0

        def __init__(self, rate: float) -> None:
            self.rate = rate

        def outputs(self, x: list[np.ndarray]) -> np.ndarray:
            assert self.rate != 1e-3 or len(x) < 400  # the worst setting never sees the test part
            right = np.array([one[:, 0].argmax() < one[:, 0].argmin() for one in x], int)
            return np.eye(2)[1 - right if self.rate == 1e-3 else right]

    def fitted(kind: str, of: Problem, part: Part, settings: dict[str, float], seed: int) -> Fixed:
        made.append((kind, len(part), seed))
        return Fixed(settings["rate"])

    monkeypatch.setattr(small_data, "fit", fitted)
    monkeypatch.setattr(small_data, "LOADERS", {"generated": lambda: problem})
    (found,) = small_data.measure(["generated"], seeds=2, out=tmp_path)
    assert len(made) == 4 * 5 * (4 + 2)
    counts = found.about["generated"]["counts"]
    assert counts["1.0"] == 400
    tuned = [n for kind, n, seed in made if kind == "LSTM" and seed == 1_000]
    assert tuned[-1] == pytest.approx(400 * 2 / 3, abs=2)
    assert [n for kind, n, seed in made if kind == "LSTM" and seed == 0] == list(counts.values())
    assert found.value("generated", "LSTM", "1.0") > 0.95
    text = (tmp_path / "small-data.md").read_text()
    assert "everywhere at least as good as GRU" in text
    assert (tmp_path / "small-data.png").read_bytes().startswith(b"\x89PNG")
    made.clear()
    small_data.measure(["generated"], seeds=3, out=tmp_path)
    assert {seed for _, _, seed in made} == {2}
    assert len(made) == 4 * 5


def test_the_command(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(small_data, "kinds", lambda problem: ("LSTM", TREES))
    assert cli.run(["bench", "small-data", "--quick", "--json", "--out", str(tmp_path)]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["cells"]["generated"]["LSTM"]["1.0"]["runs"][0]["score"] > 0.9
    assert {one.name for one in tmp_path.iterdir()} == {f"small-data-quick.{end}" for end in ("json", "md", "png")}
    for arguments, said in (
        (["bench", "small-data", "cake"], "there is no set 'cake'; choose from japanese-vowels,"),
        (["bench", "small-data", "digits", "--quick"], "the quick form has a set of its own: leave 'digits' out."),
    ):
        assert cli.run(arguments) == 2
        assert said in capsys.readouterr().err


@pytest.mark.skipif(not os.environ.get("CAROUSEL_DATA"), reason="CAROUSEL_DATA is not set")
@pytest.mark.parametrize(
    ("name", "train", "test", "outputs"),
    [
        ("japanese-vowels", 270, 370, 9),
        ("engines", 3_786, 100, 1),
        ("snips", 13_784, 700, 7),
        ("sst-2", 7_792, 1_821, 2),
        ("names", 14_410, 3_602, 18),
        ("pm25", 4_143, 4_315, 1),
        ("skeletons", 433, 176, 14),
        ("digits", 1_438, 359, 10),
    ],
)
def test_sets_are_what_they_say(name: str, train: int, test: int, outputs: int) -> None:
    problem = LOADERS[name]()
    assert len(problem.train) == train
    assert len(problem.test) == test
    assert problem.outputs == outputs
    assert len(problem.train.x) == len(problem.train.y)
    if problem.kind == "class":
        assert set(problem.train.y) == set(range(outputs))
    if not problem.text:
        assert all(np.isfinite(one).all() and one.ndim == 2 for one in problem.train.x + problem.test.x)


def test_without_data_one_sentence(monkeypatch) -> None:
    monkeypatch.delenv("CAROUSEL_DATA", raising=False)
    with pytest.raises(CarouselError, match="CAROUSEL_DATA does not lead to a folder that holds"):
        small_data.measure(["snips"])
