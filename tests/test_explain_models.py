"""Every task and input can be looked into; what cannot be done is refused, what is sampled is said."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from carousel import Classifier, Detector, Forecaster, Generator, Tagger, TrainConfig, Translator
from carousel.errors import CarouselError, DataError, MissingExtra
from carousel.explain import explain, watch
from carousel.explain.gradients import flows
from carousel.explain.sequences import sequence_subject
from carousel.explain.study import subject_of
from command_line import shops, vitals
from explain_cases import TINY, counting, events


@pytest.fixture
def counter() -> Classifier:
    return counting()


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
    frame = events()
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
    found = sequence_subject(counter, events(), source="events.csv")
    assert len(found.lengths) == 4
    assert "Of these 4 were looked at" in found.notes[-1]


def test_without_captum_the_extra_is_named(counter, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(MissingExtra, match=r"captum.*carousel-lstm\[explain\]"):
        explain(counter, events(), twin_steps=0)


def test_only_the_named_sequences_are_looked_at(counter):
    found = explain(counter, events(), ids=("s03", "s01"), twin_steps=0)
    assert found.subject.names == ["s03", "s01"]


def test_twins_see_the_same_batches_and_leave_the_model_as_it_was(counter):
    subject = sequence_subject(counter, events(), source="events.csv")
    before = {name: value.clone() for name, value in subject.net.state_dict().items()}
    first = flows(subject, TINY, steps=3)
    second = flows(subject, TINY, steps=3)
    assert [one.name for one in first.twins] == ["a plain RNN after 3 steps", "an LSTM begun anew after 3 steps"]
    for a, b in zip(first.twins, second.twins, strict=True):
        assert np.array_equal(a.h, b.h)
    for name, value in subject.net.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.grad is None for parameter in subject.net.parameters())
