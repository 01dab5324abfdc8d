"""What is said about a model is true: of models built by hand whose gates, memory and inputs are known."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import carousel
from carousel import Classifier
from carousel.cell import CellSpec, step
from carousel.errors import CarouselError
from carousel.explain import record, watch
from carousel.explain.advice import advise, health
from carousel.explain.attribution import attribute, deletion
from carousel.explain.gates import order, roles
from carousel.explain.gradients import Flow, Flows, flow
from carousel.explain.memory import describe, influence, memory
from carousel.explain.record import Layer
from carousel.explain.sequences import sequence_subject
from carousel.explain.subject import Pace
from carousel.explain.twin import PlainRNN, replaced
from explain_cases import counting, events

LENGTHS = (9, 1, 7, 4)


def _ragged(seed: int = 0, features: int = 3, dtype: torch.dtype = torch.float64) -> carousel.Ragged:
    generator = torch.Generator().manual_seed(seed)
    return carousel.Ragged.from_list([torch.randn(n, features, generator=generator, dtype=dtype) for n in LENGTHS])


# What is recorded.


def test_layouts_give_the_same_rows_in_the_order_of_the_sequences():
    lstm = carousel.LSTM(3, 5, num_layers=2, bidirectional=True, dtype=torch.float64)
    lstm.reset_parameters()
    x = _ragged()
    ragged = record(lstm, lambda: lstm(x))
    packed = record(lstm, lambda: lstm(pack_sequence(x.to_list(), enforce_sorted=False)))
    alone = [record(lstm, lambda part=part: lstm(part)) for part in x.to_list()]
    assert [layer.name for layer in ragged] == ["layer 1", "layer 1 backwards", "layer 2", "layer 2 backwards"]
    for k, layer in enumerate(ragged):
        assert layer.offsets.tolist() == [0, 9, 10, 17, 21]
        for gate in ("i", "f", "g", "o", "c", "keep"):
            wanted = getattr(layer, gate)
            assert np.array_equal(wanted, getattr(packed[k], gate))
            np.testing.assert_allclose(wanted, np.concatenate([getattr(one[k], gate) for one in alone]), atol=1e-6)


@pytest.mark.parametrize("batch_first", [False, True])
def test_dense_batches_give_rows_sequence_by_sequence(batch_first):
    lstm = carousel.LSTM(3, 5, batch_first=batch_first, dtype=torch.float64)
    x = torch.randn(3, 7, 3, dtype=torch.float64)
    (layer,) = record(lstm, lambda: lstm(x if batch_first else x.transpose(0, 1)))
    for b in range(3):
        h, c = (torch.zeros(1, 5, dtype=torch.float64) for _ in range(2))
        for t in range(7):
            made = step(lstm.spec, layer.weights, x[b, t][None], h, c)
            h, c = made.h, made.c
            np.testing.assert_allclose(layer.c[7 * b + t], c[0].detach(), atol=1e-6)
            np.testing.assert_allclose(layer.o[7 * b + t], made.o[0].detach(), atol=1e-6)


def test_what_a_row_keeps_is_the_forget_gate_times_the_decay_of_its_own_gap():
    lstm = carousel.LSTM(3, 5, decay=True, bidirectional=True, dtype=torch.float64)
    x = _ragged()
    gaps = x.with_values(torch.rand(21, dtype=torch.float64) * 3)
    forwards, backwards = record(lstm, lambda: lstm(x, elapsed=gaps))
    for layer, direction in ((forwards, 0), (backwards, 1)):
        rate = nn.functional.softplus(layer.weights["decay_rate"].detach())
        # read backwards, the time before a row is that after it, and none before the last
        own = gaps.values if not direction else torch.cat([torch.cat([g[1:], 0 * g[:1]]) for g in gaps.to_list()])
        np.testing.assert_allclose(layer.keep, layer.f * torch.exp(-own[:, None] * rate).numpy(), atol=1e-6)


def test_a_module_without_our_lstm_is_refused_by_name():
    with pytest.raises(CarouselError, match=r"Linear has no carousel\.LSTM inside"):
        record(nn.Linear(2, 2), lambda: None)
    lstm = carousel.LSTM(2, 3)
    with pytest.raises(CarouselError, match="no LSTM inside the model ran"):
        record(lstm, lambda: None)
    assert not lstm._forward_hooks


# Gradients by state.

VARIANTS = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"peephole": True, "coupled": True},
    {"layer_norm": True},
    {"proj_size": 2},
    {"decay": True},
    {"zoneout_c": 0.2, "zoneout_h": 0.1},
    {"cell_clip": 0.3},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: ",".join(v) or "plain")
def test_watching_changes_nothing(variant):
    torch.manual_seed(3)
    lstm = carousel.LSTM(3, 4, dtype=torch.float64, **variant).eval()
    x = _ragged()
    more = {"elapsed": x.with_values(torch.rand(21, dtype=torch.float64))} if variant.get("decay") else {}
    size = (lstm.num_layers * (2 if lstm.bidirectional else 1), 4)
    states = torch.randn(*size, lstm.proj_size or 4).double(), torch.randn(*size, 4).double()
    plain, (h, c) = lstm(x, states, **more)
    with watch(lstm) as visits:
        seen, (h2, c2) = lstm(x, states, **more)
    for a, b in ((plain.values, seen.values), (h, h2), (c, c2)):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
    assert len(visits) == 9 * size[0]
    assert sum(len(visit.live) for visit in visits if visit.layer == 0) == 21
    assert not lstm._forward_hooks


@pytest.mark.parametrize("variant", [{}, {"peephole": True}, {"decay": True}], ids=str)
def test_gradients_of_states_are_those_of_going_on_from_them(variant):
    """The oracle starts anew from a leaf in the place of c at one step, and goes on by the cell's equations."""
    torch.manual_seed(5)
    lstm = carousel.LSTM(3, 4, dtype=torch.float64, **variant).eval()
    x = torch.randn(8, 3, dtype=torch.float64)
    gaps = torch.rand(8, dtype=torch.float64)
    more = {"elapsed": gaps} if lstm.spec.decay else {}
    with watch(lstm) as visits:
        out, _ = lstm(x, **more)
        out[-1].square().sum().backward()
    weights = dict(zip(lstm.spec.shapes(3, 4), lstm.all_weights[0], strict=True))

    def advance(t: int, h: torch.Tensor, c: torch.Tensor) -> Any:
        return step(lstm.spec, weights, x[t][None], h, c, gaps[t][None] if lstm.spec.decay else None)

    for visit, t in zip(visits, range(8), strict=True):
        h, c = (torch.zeros(1, 4, dtype=torch.float64) for _ in range(2))
        for s in range(t + 1):
            made = advance(s, h, c)
            h, c = made.h.detach(), made.c.detach()
        leaf, shown = c.clone().requires_grad_(), made.o.detach()
        if lstm.spec.peephole:
            logit = torch.log(shown / (1 - shown))
            shown = torch.sigmoid(logit + weights["weight_ch"][8:].detach() * (leaf - c))
        h, state = shown * torch.tanh(leaf), leaf
        for s in range(t + 1, 8):
            made = advance(s, h, state)
            h, state = made.h, made.c
        (wanted,) = torch.autograd.grad(h.square().sum(), leaf)
        torch.testing.assert_close(visit.c.grad, wanted, atol=1e-12, rtol=1e-9)
        assert int(visit.lag) == 7 - t


def test_the_oracle_tells_a_gradient_that_lacks_the_way_through_h(monkeypatch):
    """A mutant: masks that mix nothing make another c than h is computed from, whose gradient holds one path only."""
    from carousel.cell import Masks

    lstm = carousel.LSTM(3, 4, dtype=torch.float64).eval()
    x = torch.randn(8, 3, dtype=torch.float64)

    def norms() -> list[float]:
        with watch(lstm) as visits:
            lstm(x)[0][-1].square().sum().backward()
        return [0.0 if visit.c.grad is None else float(visit.c.grad.norm()) for visit in visits]

    right = norms()
    monkeypatch.setattr(sys.modules["carousel.explain.record"], "NO_MASKS", Masks())
    wrong = norms()
    assert right[-1] > 0
    assert wrong[-1] == 0.0
    assert all(abs(a - b) > 1e-6 for a, b in zip(right[-3:], wrong[-3:], strict=True))


def test_a_plain_rnn_steps_as_torchs_own():
    torch.manual_seed(1)
    rnn = PlainRNN(3, 4, 2, True, 0.0).double().eval()
    x = _ragged()
    plain = rnn(x)[0].values
    with watch(rnn) as visits:
        seen = rnn(x)[0].values
    torch.testing.assert_close(plain, seen, atol=1e-12, rtol=0)
    assert visits[0].c is None
    own, _ = rnn.rnn(x[2][:, None])
    torch.testing.assert_close(plain[10:17], own[:, 0], atol=1e-12, rtol=0)


# A model that counts, built by hand.


@pytest.fixture
def counter() -> Classifier:
    return counting()


def test_a_unit_that_counts_is_called_a_counter_and_never_forgets(counter):
    subject = sequence_subject(counter, events(), source="events.csv")
    (layer,) = subject.layers()
    found = roles(layer, subject, None)
    assert (found[0].kind, found[0].of) == ("counter", "event")
    assert found[0].strength > 0.999
    assert found[0].describe() == "counts event (r = 1.00)"
    assert [role.kind for role in found[1:]].count("counter") == 0
    half_life = memory(layer).half_life
    assert math.isinf(half_life[0])
    assert np.isfinite(half_life[1:]).all()
    assert describe(half_life[0], Pace()) == "infinite"


def test_what_is_not_looked_at_gets_no_attribution_and_what_is_passes_the_deletion_test(counter):
    subject = sequence_subject(counter, events(), source="events.csv")
    found = attribute(subject)
    assert found.shares["noise"] < 0.01
    assert found.shares["event"] > 0.99
    np.testing.assert_allclose(found.total, found.expected, atol=0.05 * np.abs(found.expected).max())
    assert found.deletion.trusted
    assert found.deletion.lead > 4


def test_an_attribution_at_random_does_not_pass_the_deletion_test(counter):
    subject = sequence_subject(counter, events(), source="events.csv")
    found = attribute(subject)
    which = torch.from_numpy(found.which)
    leaves = subject.leaves(which)
    real = torch.arange(leaves.shape[1]) < torch.from_numpy(subject.lengths)[which][:, None]
    baseline = torch.where(real[..., None], leaves[real].mean(0), leaves)
    with torch.no_grad():
        plain = subject.run(which)
        with subject.reading(baseline):
            start = subject.run(which)
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=found.values.shape), -found.values):  # chance, and the wrong way round
        wrong = found._replace(values=values * real.numpy()[..., None])
        assert not deletion(subject, wrong, leaves, baseline, plain, start, 1).trusted
    assert deletion(subject, found, leaves, baseline, plain, start, 1).trusted


def test_gradients_of_a_counter_do_not_vanish_and_those_of_a_plain_rnn_do(counter):
    subject = sequence_subject(counter, events(), source="events.csv")
    own = flow(subject, counter.model_[0], "this model")
    assert own.ratio(30) == pytest.approx(1.0, rel=1e-3)
    twin = replaced(sequence_subject(counter, events(), source="events.csv").net.__class__(counter.config_)).eval()
    plain = flow(subject, twin, "a plain RNN")
    assert plain.c is None
    assert plain.ratio(30) < own.ratio(30)
    assert own.ratio(100) is None  # the sequences are shorter


def test_an_old_row_of_a_counter_matters_as_much_as_a_new_one(counter):
    moved = influence(sequence_subject(counter, events(), source="events.csv"))
    assert moved.lag[0] == 0
    assert moved.lag[-1] > 30
    new, old = np.array_split(moved.change, 2)
    assert 0.6 < old.mean() / new.mean() < 1.6


# Time-scales, roles and their order.


def _layer(**gates: Any) -> Layer:
    """One layer of three sequences of 20 rows with constant gates, but for those given [60, H]."""
    units = next(iter(gates.values())).shape[1]
    lstm = carousel.LSTM(2, units)
    given = {name: np.full((60, units), 0.5, np.float32) for name in "ifgoc"} | gates
    weights = dict(zip(lstm.spec.shapes(2, units), lstm.all_weights[0], strict=True))
    keep = given.pop("keep", given["f"])
    return Layer("layer 1", False, CellSpec(), weights, np.array([0, 20, 40, 60]), **given, keep=keep)


def test_half_lives_are_those_of_the_mean_log():
    f = np.tile(np.array([0.5, 0.25, 1.0, 0.5**0.1], np.float32), (60, 1))
    f[::2, 1] = 1.0  # keeps all at every other step: half of log 4
    found = memory(_layer(f=f))
    np.testing.assert_allclose(found.half_life[[0, 1, 3]], [1.0, 1.0, 10.0], rtol=1e-5)
    assert math.isinf(found.half_life[2])
    assert describe(10.0, Pace(3600.0, True)) == "10 steps (10 h)"


class _Plain:
    """What roles ask of a subject."""

    seasons = (5,)
    pace = Pace()
    tokens = None
    channels: tuple = ()

    def __init__(self, **signals: Any) -> None:
        self.signals = signals


def test_units_are_named_after_what_they_follow():
    rng = np.random.default_rng(0)
    t = np.tile(np.arange(20.0), 3)
    price = rng.normal(size=60)
    alarm = np.zeros(60)
    alarm[[7, 15, 31, 33, 52]] = 1.0
    noise = 0.05 * rng.normal(size=(60, 6))
    c = np.stack([t, np.sin(2 * np.pi * t / 5), -price, np.cumsum(rng.normal(size=60)), np.zeros(60), t * 0], 1)
    held = 0.0
    for k in range(60):  # jumps up or down at an alarm, and stays
        held = 0.0 if t[k] == 0 else held + alarm[k] * (1 if k % 2 else -1)
        c[k, 4] = held
    c = (c + noise).astype(np.float32)
    c[:, 5] = np.random.default_rng(1).normal(size=60)
    found = roles(_layer(c=c), _Plain(price=price, alarm=alarm), None)
    kinds = [(role.kind, role.of) for role in found]
    assert kinds[:3] == [("trend", "time"), ("cycle", "5 steps"), ("follows", "price")]
    assert kinds[4] == ("event", "alarm")
    assert kinds[5][0] == "none"


def test_alike_units_stand_together():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 60))
    c = np.stack([a, b, -a, b, a, -b], 1) + 0.01 * rng.normal(size=(60, 6))
    leaves, groups = order(_layer(c=c.astype(np.float32)))
    assert sorted(leaves.tolist()) == list(range(6))
    assert {frozenset(leaves[:3].tolist()), frozenset(leaves[3:].tolist())} == {
        frozenset({0, 2, 4}),
        frozenset({1, 3, 5}),
    }
    assert len(set(groups.tolist())) == 2


# Advice.


def _advice(layer: Layer, flows_: Flows | None = None, length: int = 20) -> list[str]:
    class Subject:
        lengths = np.full(3, length)
        pace = Pace()
        task = "classify"

    level = np.ones(length)
    flows_ = flows_ or Flows(Flow("this model", level, level), [], 0, "the loss")
    return advise(Subject(), [layer], [health(layer)], [memory(layer)], flows_, None)  # type: ignore[arg-type]


def test_each_fault_has_its_sentence_and_health_has_none():
    rng = np.random.default_rng(0)
    lively = rng.normal(size=(60, 10)).astype(np.float32)
    assert _advice(_layer(c=lively, f=np.full((60, 10), 0.9, np.float32))) == []
    cases = {
        "begin with longer memories": _layer(c=lively, f=np.full((60, 10), 0.1, np.float32)),
        "the forget gates never close": _layer(c=50 * lively, f=np.full((60, 10), 0.99, np.float32)),
        "the output gates are shut": _layer(c=lively, o=np.full((60, 10), 0.01, np.float32)),
        "10 of 10 units never change": _layer(c=0 * lively),
        "saturated, where gradients hardly pass": _layer(
            c=lively, **{gate: np.full((60, 10), 0.99, np.float32) for gate in "ifo"}
        ),
        "say what another one says": _layer(c=np.repeat(lively[:, :1], 10, 1)),
        "cell state reaches": _layer(c=5000 * lively),
    }
    for words, layer in cases.items():
        found = _advice(layer)
        assert any(words in text for text in found), (words, found)
        assert all(text.endswith(".") and text.count(". ") == 0 for text in found)
    lags = np.arange(30.0)
    for rate, words in ((1.3, "smaller clip"), (0.5, "is not learned")):
        growing = Flow("this model", rate**lags, rate**lags)
        assert words in _advice(_layer(c=lively), Flows(growing, [], 0, "the loss"))[0]
    assert "No unit's half-life" in _advice(_layer(c=lively, f=np.full((60, 10), 0.4, np.float32)), length=200)[0]
