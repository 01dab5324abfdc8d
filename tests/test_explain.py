"""What is said about a model is true: of models built by hand whose gates, memory and inputs are known."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import carousel
from carousel import Classifier, Detector, Forecaster, Generator, Tagger, TrainConfig, Translator
from carousel.cell import CellSpec, step
from carousel.errors import CarouselError, DataError, MissingExtra
from carousel.explain import explain, record, watch
from carousel.explain.advice import advise, health
from carousel.explain.attribution import attribute, deletion
from carousel.explain.gates import order, roles
from carousel.explain.gradients import Flow, Flows, flow, flows
from carousel.explain.memory import describe, influence, memory
from carousel.explain.record import Layer
from carousel.explain.sequences import sequence_subject
from carousel.explain.study import subject_of
from carousel.explain.subject import Pace
from carousel.explain.twin import PlainRNN, replaced
from command_line import shops, vitals

TINY = TrainConfig(steps=4, least_steps=4, hidden_size=4, evaluate_every=2, warmup=1, width=0)
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


def _events(count: int = 24, length: int = 60) -> pl.DataFrame:
    """Sequences of a rare event, what it is worth, and noise; the label says whether there were many events."""
    rng = np.random.default_rng(4)
    frames = []
    for k in range(count):
        n = length - int(rng.integers(0, 20))
        event = (rng.random(n) < (0.05 if k % 2 else 0.15)).astype(float)
        frames.append(
            pl.DataFrame(
                {
                    "who": [f"s{k:02d}"] * n,
                    "event": event,
                    "noise": rng.normal(size=n),
                    "many": ["no" if k % 2 else "yes"] * n,
                }
            )
        )
    return pl.concat(frames)


@pytest.fixture(scope="module")
def counter() -> Classifier:
    """Unit 0 adds 1 for each event and forgets nothing, and its state decides; `noise` is not looked at."""
    model = Classifier("many", id="who", features=["event", "noise"], config=TINY).fit(_events())
    net, (channel, _) = model.model_[0], model.config_.input.numbers
    with torch.no_grad():
        lstm = net.stack
        for weight in lstm.parameters():
            weight.mul_(0.3)
        lstm.weight_ih_l0[:, 1] = 0.0
        for weight in (lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0):
            weight[0::4] = 0.0
        lstm.weight_ih_l0[0, 0] = 40 * channel.scale  # the input gate opens at an event, and only then
        lstm.bias_ih_l0[0] = 40 * channel.mean - 20
        lstm.bias_ih_l0[4] = 40.0  # the forget gate never closes
        lstm.bias_ih_l0[8] = 0.2  # what an event adds
        lstm.bias_ih_l0[12] = 40.0
        net.head.out.weight.zero_()
        net.head.out.weight[:, 0] = torch.tensor([-3.0, 3.0])
    return model


def test_a_unit_that_counts_is_called_a_counter_and_never_forgets(counter):
    subject = sequence_subject(counter, _events(), source="events.csv")
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
    subject = sequence_subject(counter, _events(), source="events.csv")
    found = attribute(subject)
    assert found.shares["noise"] < 0.01
    assert found.shares["event"] > 0.99
    np.testing.assert_allclose(found.total, found.expected, atol=0.05 * np.abs(found.expected).max())
    assert found.deletion.trusted
    assert found.deletion.lead > 4


def test_an_attribution_at_random_does_not_pass_the_deletion_test(counter):
    subject = sequence_subject(counter, _events(), source="events.csv")
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
    subject = sequence_subject(counter, _events(), source="events.csv")
    own = flow(subject, counter.model_[0], "this model")
    assert own.ratio(30) == pytest.approx(1.0, rel=1e-3)
    twin = replaced(sequence_subject(counter, _events(), source="events.csv").net.__class__(counter.config_)).eval()
    plain = flow(subject, twin, "a plain RNN")
    assert plain.c is None
    assert plain.ratio(30) < own.ratio(30)
    assert own.ratio(100) is None  # the sequences are shorter


def test_an_old_row_of_a_counter_matters_as_much_as_a_new_one(counter):
    moved = influence(sequence_subject(counter, _events(), source="events.csv"))
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
        "begin with a larger forget bias": _layer(c=lively, f=np.full((60, 10), 0.1, np.float32)),
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


# Every task and input.


def _wave(length: int = 70) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [
        np.sin(np.arange(length - 9 * k) / 5)[:, None] + 0.1 * rng.normal(size=(length - 9 * k, 1)) for k in range(3)
    ]


def _forecaster() -> tuple[Any, Any]:
    roles_ = {"id": "shop", "time": "day", "target": "sold", "known": ["holiday"], "static": ["size"]}
    frame = shops()
    return Forecaster(3, **roles_, config=TrainConfig(steps=4, hidden_size=4, width=4, batch_size=8)).fit(frame), frame


def _stays(**more: Any) -> dict[str, Any]:
    return {"id": "patient", "time": "at", "features": ["pulse", "sex"], "static": ["age"], "config": TINY} | more


def _generator() -> tuple[Any, Any]:
    config = TrainConfig(hidden_size=6, num_layers=2, steps=4, batch_size=2, batch_rows=16, warmup=1)
    text = "the cat sat on the mat. " * 20
    return Generator(tokens="char", embedding=5, config=config).fit(text), text


def _translator(**more: Any) -> tuple[Any, Any]:
    left = [f"{a} {b} {a}" for a in "abcd" for b in "abcd"]
    config = TrainConfig(hidden_size=6, steps=4, warmup=1, holdout=0.0)
    frame = pl.DataFrame({"source": left, "target": [text[::-1] for text in left]})
    return Translator(tokens="word", embedding=5, merges=0.0, config=config, **more).fit(frame), frame


def _texts() -> pl.DataFrame:
    rng = np.random.default_rng(1)
    words = ["good", "bad", "film", "plot", "very"]
    texts = [" ".join(rng.choice(words, rng.integers(1, 8))) for _ in range(24)]
    return pl.DataFrame({"text": texts, "label": ["yes" if "good" in text else "no" for text in texts]})


def _labelled_texts() -> tuple[Any, Any]:
    from carousel.inputs.tokens import TextConfig

    words = TextConfig("word", 50, fewest=1, width=6)
    return Classifier("label", text="text", words=words, config=TINY).fit(_texts()), _texts()


def _clips() -> tuple[Any, Any]:
    from carousel.inputs.frames import Frames

    rng = np.random.default_rng(2)
    clips = [(rng.random((n, 8, 8, 1)) * 255).astype(np.uint8) for n in (5, 3, 6, 4, 5, 3, 4, 6)]
    labels = ["dark" if k % 2 else "light" for k in range(8)]
    return Classifier(frames=Frames(size=8), config=TINY).fit(clips, labels), clips


def _bidirectional() -> tuple[Any, Any]:
    config = TrainConfig(steps=4, hidden_size=4, width=0, bidirectional=True, num_layers=2)
    return Classifier("survived", **_stays(config=config)).fit(vitals()), vitals()


KINDS = {
    "forecast": _forecaster,
    "classify": _bidirectional,
    "tag": lambda: (Tagger("septic", **_stays()).fit(vitals()), vitals()),
    "warn": lambda: (Tagger(event="septic", ahead="2h", **_stays()).fit(vitals()), vitals()),
    "detect": lambda: (Detector(config=TINY).fit(_wave()), _wave()),
    "autoencoder": lambda: (Detector("autoencoder", config=TINY).fit(_wave()), _wave()),
    "generate": _generator,
    "translate": _translator,
    "fed": lambda: _translator(input_feeding=True),
    "texts": _labelled_texts,
    "clips": _clips,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_can_be_looked_into(kind):
    model, data = KINDS[kind]()
    y = ["dark" if k % 2 else "light" for k in range(8)] if kind == "clips" else None
    found = explain(model, data, y, twin_steps=2)
    subject, made = found.subject, found.attribution
    assert [layer.offsets[-1] for layer in found.layers[:1]] == [subject.lengths.sum()]
    leaves = subject.leaves(subject.everything())
    assert leaves.shape[:2] == (len(subject.lengths), subject.lengths.max())
    assert made.values.shape[2] == len(subject.channels)
    # integrated gradients add up to what the answer changes by, but for the steps of the sum
    np.testing.assert_allclose(made.total, made.expected, atol=0.03 * np.abs(made.expected).max() + 1e-6)
    for one in (found.flows.model, *found.flows.twins):
        assert np.isfinite(one.h).all()
        assert (one.h > 0).any()
    assert len(found.flows.twins) == 2
    # what the inlet is given for what it reads anyway changes nothing
    with torch.no_grad():
        plain = subject.run(subject.everything())
        with subject.reading(leaves):
            torch.testing.assert_close(subject.run(subject.everything()), plain, atol=1e-5, rtol=1e-4)
    assert 200 < len(" ".join(found.findings())) < 2000


@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
def test_of_a_head_that_pools_gradients_are_of_the_last_row_by_itself(pooling):
    """The state of the last row gets all of it, whatever the other rows say to the pool."""
    model = Classifier("survived", pooling=pooling, **_stays()).fit(vitals())
    subject = subject_of(model, vitals(), source="data", ids=(), member=0)
    assert subject.loss_name == "the loss of the last row by itself (the head reads all rows)"
    net, which = subject.net, torch.tensor([2])
    with watch(net) as visits:
        subject.loss(which, net).backward()
    h = [float(visit.h.grad.norm()) for visit in visits]
    rows, _ = net.rows(subject._batch(which))
    truth = torch.tensor([int(subject.truth[2])])
    leaf = rows.values[-1:].detach().requires_grad_()
    torch.nn.functional.cross_entropy(net.head.output(leaf), truth).backward()
    assert h[-1] == pytest.approx(float(leaf.grad.norm()), rel=1e-5)
    for parameter in net.parameters():
        parameter.grad = None


def test_channels_are_named_in_the_order_in_which_rows_are_read():
    """A channel whose column is moved is the one that changes."""
    model, frame = _forecaster()
    subject = subject_of(model, frame, source="data", ids=(), member=0)
    before = subject.leaves(subject.everything())
    moved = frame.with_columns(price=pl.col("price") + 1.0)
    after = subject_of(model, moved, source="data", ids=(), member=0).leaves(subject.everything())
    changed = torch.nonzero((before != after).flatten(0, 1).any(0))[:, 0].tolist()
    assert [subject.channels[k].name for k in changed] == ["price"]
    model = Classifier("survived", **_stays()).fit(vitals())
    subject = subject_of(model, vitals(), source="data", ids=(), member=0)
    before = subject.leaves(subject.everything())
    for column, value in (("age", pl.col("age") + 9), ("sex", pl.lit("f")), ("pulse", pl.col("pulse") * 1.01)):
        other = subject_of(model, vitals().with_columns(value.alias(column)), source="data", ids=(), member=0)
        after = other.leaves(subject.everything())
        changed = torch.nonzero((before != after).flatten(0, 1).any(0))[:, 0].tolist()
        assert {subject.channels[k].column for k in changed} == {column}


# What is refused, and what is sampled.


def test_what_cannot_be_done_is_refused_in_a_sentence(counter):
    frame = _events()
    with pytest.raises(CarouselError, match=r"no sequence is called 'nobody'.*there are s00, s01"):
        explain(counter, frame, ids=("nobody",))
    with pytest.raises(CarouselError, match="member is 1, but the model has 1"):
        explain(counter, frame, member=1)
    with pytest.raises(DataError, match="column 'event'"):
        explain(counter, frame.drop("event"))
    with pytest.raises(CarouselError, match=r"events\.csv"):
        explain(counter, frame.head(0), source="events.csv")
    model, shops_ = _forecaster()
    with pytest.raises(CarouselError, match="y are labels of arrays"):
        explain(model, shops_, [1, 2])
    with pytest.raises(DataError, match="no series has rows to look back on"):
        explain(model, shops_.group_by("shop", maintain_order=True).head(1))
    with pytest.raises(DataError, match="column 'sold'"):
        explain(model, shops_.drop("sold"))
    with pytest.raises(DataError, match="too few to look at"):
        explain(_generator()[0], "t")


def test_next_frames_have_no_gates_of_ours():
    frames = type("FramesInput", (), {})()
    config = type("Config", (), {"task": "forecast", "input": frames})()
    model = type("Model", (), {"config_": config})()
    with pytest.raises(CarouselError, match=r"no carousel\.LSTM inside"):
        subject_of(model, None, source="data", ids=(), member=0)


def test_a_very_long_sequence_is_sampled_and_the_report_says_so(counter, monkeypatch):
    monkeypatch.setattr("carousel.explain.sequences.MOST_SEQUENCES", 4)  # enough, and quicker
    rng = np.random.default_rng(0)
    n = 100_000
    frame = pl.DataFrame({"who": ["a"] * n, "event": (rng.random(n) < 0.1).astype(float), "noise": rng.normal(size=n)})
    found = explain(counter, frame, twin_steps=0)
    assert found.subject.lengths.tolist() == [2000] * 4
    assert found.subject.notes == [
        "Of sequences longer than 2,000 steps (the longest has 100,000) pieces of 2,000 steps were looked at, 4 in all,"
        " each with an empty memory at its beginning."
    ]
    assert found.flows.missing == "it was not asked for"


def test_of_wide_models_fewer_sequences_are_looked_at_and_a_note_says_so(counter, monkeypatch):
    from carousel.explain import subject as module

    monkeypatch.setattr(module, "MOST_STATES", 4 * 50 * 5)
    found = sequence_subject(counter, _events(), source="events.csv")
    assert len(found.lengths) == 4
    assert "Of these 4 were looked at" in found.notes[-1]


def test_without_captum_the_extra_is_named(counter, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(MissingExtra, match=r"captum.*carousel-lstm\[explain\]"):
        explain(counter, _events(), twin_steps=0)


def test_only_the_named_sequences_are_looked_at(counter):
    found = explain(counter, _events(), ids=("s03", "s01"), twin_steps=0)
    assert found.subject.names == ["s03", "s01"]


def test_twins_see_the_same_batches_and_leave_the_model_as_it_was(counter):
    subject = sequence_subject(counter, _events(), source="events.csv")
    before = {name: value.clone() for name, value in subject.net.state_dict().items()}
    first = flows(subject, TINY, steps=3)
    second = flows(subject, TINY, steps=3)
    assert [one.name for one in first.twins] == ["a plain RNN after 3 steps", "an LSTM begun anew after 3 steps"]
    for a, b in zip(first.twins, second.twins, strict=True):
        assert np.array_equal(a.h, b.h)
    for name, value in subject.net.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.grad is None for parameter in subject.net.parameters())
