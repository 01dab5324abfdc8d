"""Search over a decoder whose every sequence can be enumerated: beams find what a full search finds."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from carousel.heads import search
from carousel.heads.search import Beam, Found, Sampling, beam_search, sample

V, END, BEGIN = 6, 1, 0


class Table:
    """Log-probabilities from a random table of the last two tokens, another one for every source."""

    def __init__(self, sources: list[int], sharp: float = 2.0) -> None:
        self.sources = torch.tensor(sources)
        tables = sharp * torch.randn(8, V, V, V, generator=torch.Generator().manual_seed(5))
        tables[..., BEGIN] = -1e9
        self.tables = tables.log_softmax(-1)
        self.before = torch.zeros(len(sources), dtype=torch.long)
        self.last: torch.Tensor | None = None

    def step(self, tokens):
        before = self.before if self.last is None else self.last
        self.last = tokens
        attention = torch.zeros(len(tokens), 4)
        attention[torch.arange(len(tokens)), tokens % 3] = 1.0
        attention[:, 3] = 1.0  # padding
        return self.tables[self.sources, before, tokens], attention

    def keep(self, rows):
        self.sources, self.before = self.sources[rows], self.before[rows]
        self.last = None if self.last is None else self.last[rows]


def logprob(source: int, tokens: tuple[int, ...]) -> float:
    table, before, last, total = Table([source]).tables[source], 0, BEGIN, 0.0
    for token in (*tokens, END):
        total += float(table[before, last, token])
        before, last = last, token
    return total


def best(source: int, beam: Beam, longest: int) -> Found:
    everything = [
        (tokens, logprob(source, tokens))
        for length in range(longest + 1)
        for tokens in product([2, 3, 4, 5], repeat=length)
    ]
    tokens, total = max(everything, key=lambda item: item[1] / beam.scale(len(item[0]) + 1))
    return Found(tokens, total, total / beam.scale(len(tokens) + 1))


def run(sources: list[int], beam: Beam, limits: list[int], **options) -> list[list[Found]]:
    return beam_search(Table(sources), limits, beam, begin=BEGIN, end=END, **options)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_of_all_sequences(penalty: float):
    beam = Beam(size=300, length_penalty=penalty)
    for source, found in enumerate(run([0, 1, 2, 3], beam, [4] * 4)):
        expected = best(source, beam, 4)
        assert found[0].tokens == expected.tokens
        assert found[0].logprob == pytest.approx(expected.logprob, abs=1e-4)
        assert found[0].score == pytest.approx(expected.score, abs=1e-4)
        assert [f.score for f in found] == sorted((f.score for f in found), reverse=True)
        assert len({f.tokens for f in found}) == len(found)


def test_a_beam_of_one_is_greedy_and_hypotheses_carry_their_own_probability():
    greedy = sample(Table([0, 1, 2, 3, 4]), [9] * 5, Sampling(temperature=0), begin=BEGIN, end=END)
    narrow = run([0, 1, 2, 3, 4], Beam(size=1), [9] * 5)
    for source, (one, (other,)) in enumerate(zip(greedy, narrow, strict=True)):
        assert one.tokens == other.tokens
        if len(one.tokens) < 9:
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert other.logprob == pytest.approx(logprob(source, other.tokens), abs=1e-4)


def test_neighbours_do_not_change_what_is_found():
    limits = [3, 9, 6, 1]
    together = run([3, 1, 2, 0], Beam(size=4), limits)
    for source, limit, found in zip([3, 1, 2, 0], limits, together, strict=True):
        assert run([source], Beam(size=4), [limit])[0] == found
        assert all(len(f.tokens) <= limit for f in found)


def test_constraints_hold():
    assert all(f.tokens[:2] == (5, 2) for f in run([1], Beam(size=3), [8], prefixes=[[5, 2]])[0])
    long = Beam(size=3, length_penalty=3)
    free = run([3], long, [12])[0][0].tokens
    word, pair = (free[0],), free[:2]
    assert len(pair) == 2
    (without,) = run([3], long, [12], forbidden=lambda history: torch.arange(V)[None] == word[0])
    assert all(word[0] not in f.tokens for f in without)

    def second(history: torch.Tensor) -> torch.Tensor:
        if not history.shape[1]:
            return torch.zeros(1, V, dtype=torch.bool)
        return (history[:, -1:] == pair[0]) & (torch.arange(V) == pair[1])

    for f in run([3], long, [12], forbidden=second)[0]:
        assert pair not in zip(f.tokens, f.tokens[1:], strict=False)
    for f in run([2, 3], Beam(size=3, no_repeat=2, length_penalty=3), [20, 20])[1]:
        pairs = list(zip(f.tokens, f.tokens[1:], strict=False))
        assert len(pairs) == len(set(pairs))


def test_coverage_counts_real_places_only():
    beam = Beam(size=4, coverage_penalty=0.7)
    for f in run([2], beam, [6])[0]:
        seen = {token % 3 for token in (BEGIN, *f.tokens)}
        missing = 3 - len(seen)
        expected = f.logprob / beam.scale(len(f.tokens) + 1) + 0.7 * missing * float(torch.tensor(1e-9).log())
        assert f.score == pytest.approx(expected, rel=1e-4)


def test_sampling_follows_the_probabilities_and_its_seed():
    n = 4000
    drawn = sample(Table([0] * n), [1] * n, Sampling(), begin=BEGIN, end=None, seed=1)
    share = torch.bincount(torch.tensor([f.tokens[0] for f in drawn]), minlength=V) / n
    assert torch.allclose(share, Table([0]).tables[0, 0, 0].exp(), atol=0.03)
    assert sample(Table([0] * n), [1] * n, Sampling(), begin=BEGIN, end=None, seed=1) == drawn
    assert sample(Table([0] * n), [1] * n, Sampling(), begin=BEGIN, end=None, seed=2) != drawn
    ranked = Table([0]).tables[0, 0, 0].sort(descending=True)
    two = sample(Table([0] * 500), [1] * 500, Sampling(top_k=2), begin=BEGIN, end=None)
    assert {f.tokens[0] for f in two} == set(ranked.indices[:2].tolist())
    mass = float(ranked.values.exp()[:2].sum()) - 1e-3
    nucleus = sample(Table([0] * 500), [1] * 500, Sampling(top_p=mass), begin=BEGIN, end=None)
    assert {f.tokens[0] for f in nucleus} == set(ranked.indices[:2].tolist())
    cold = sample(Table([0] * 50), [1] * 50, Sampling(temperature=1e-3), begin=BEGIN, end=None)
    assert {f.tokens[0] for f in cold} == {int(ranked.indices[0])}


@pytest.mark.parametrize("temperature", [1.0, 1e-40])
def test_what_is_drawn_depends_on_the_name_alone(temperature: float):
    names, limits = ["a", "b", "c", "a"], [80, 5, 0, 80]
    how = Sampling(temperature, top_k=5, top_p=0.99)
    together = sample(Table([3, 1, 2, 3]), limits, how, begin=BEGIN, end=END, names=names, close=True)
    for k in (2, 0, 1):
        source, limit, name = [3, 1, 2][k], limits[k], names[k]
        (alone,) = sample(Table([source]), [limit], how, begin=BEGIN, end=END, names=[name], close=True)
        assert alone.tokens == together[k].tokens
        assert alone.logprob == pytest.approx(logprob(source, alone.tokens), abs=1e-3)
    assert together[0] == together[3]


def test_how_many_tokens_are_looked_at_first_does_not_show(monkeypatch):
    sources, limits = [3, 1, 2, 0, 2], [9, 5, 7, 8, 7]
    how, names = Sampling(1.5, top_p=0.8), list("abcde")
    drawn = sample(Table(sources), limits, how, begin=BEGIN, end=END, names=names)
    for nucleus in (1, 2, 3):
        monkeypatch.setattr(search, "NUCLEUS", nucleus)
        assert sample(Table(sources), limits, how, begin=BEGIN, end=END, names=names) == drawn


def test_a_sequence_that_is_cut_is_ended_only_where_that_is_asked_for():
    table = Table([2]).tables[2]
    cut = 0
    for seed in range(20):
        open_, closed = (
            sample(Table([2]), [3], Sampling(), begin=BEGIN, end=END, seed=seed, close=close)[0]
            for close in (False, True)
        )
        assert open_.tokens == closed.tokens
        end = float(table[closed.tokens[1], closed.tokens[2], END]) if len(closed.tokens) == 3 else 0.0
        assert open_.logprob + end == pytest.approx(closed.logprob, abs=1e-4)
        cut += bool(end)
    assert cut > 3


def test_a_repetition_penalty_and_banned_ngrams_break_loops():
    def longest_run(how: Sampling) -> int:
        (found,) = sample(Table([4], sharp=6.0), [14], how, begin=BEGIN, end=None)
        pairs = list(zip(found.tokens, found.tokens[1:], strict=False))
        return max(pairs.count(p) for p in pairs)

    assert longest_run(Sampling(temperature=0)) > 2
    assert longest_run(Sampling(temperature=0, no_repeat=2)) == 1
    assert longest_run(Sampling(temperature=0, repetition_penalty=1e6)) < longest_run(Sampling(temperature=0))


def test_where_everything_is_banned_nothing_is():
    (found,) = sample(Table([4]), [60], Sampling(no_repeat=1), begin=BEGIN, end=None)
    assert len(found.tokens) == 60
    assert set(found.tokens[: V - 1]) == {1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Beam(size=0), "size must lie between 1 and 1000, got 0"),
        (lambda: Beam(length_penalty=-1), "length_penalty must lie between 0 and 10, got -1"),
        (lambda: Beam(length_penalty=1e9), "length_penalty must lie"),
        (lambda: Beam(coverage_penalty=float("nan")), "coverage_penalty must lie"),
        (lambda: Sampling(temperature=float("inf")), "temperature is out of range"),
        (lambda: Sampling(top_p=0), "top_p is out of range, got 0"),
        (lambda: Sampling(repetition_penalty=0.5), "repetition_penalty is out of range"),
    ],
)
def test_options_out_of_range_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
