"""What is said of a model stays true where data are odd: ties, no labels, short series, cycles out of phase."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import carousel
from carousel import Forecaster, TrainConfig
from carousel.cell import CellSpec, Masks, step
from carousel.errors import CarouselError
from carousel.explain import explain, record
from carousel.explain.advice import health
from carousel.explain.attribution import attribute
from carousel.explain.forecasts import forecast_subject
from carousel.explain.gates import roles
from carousel.explain.gradients import flow
from carousel.explain.memory import memory
from carousel.explain.record import Layer
from carousel.explain.sequences import sequence_subject
from carousel.explain.subject import Pace, chosen
from command_line import shops
from explain_cases import counting, events


def _shops_model() -> Forecaster:
    config = TrainConfig(steps=4, hidden_size=4, width=4, batch_size=8)
    return Forecaster(3, id="shop", time="day", target="sold", known=["holiday"], config=config).fit(shops())


def test_windows_of_equal_length_are_taken_evenly_from_all_series():
    model, frame = _shops_model(), shops()
    subject = forecast_subject(model, frame, source="shops.csv")
    found = attribute(subject)
    own = {subject.names[k].split(",")[0] for k in found.which}
    assert own == set(frame["shop"].unique())


def test_of_a_forecast_it_is_said_how_much_goes_past_the_lstm():
    found = explain(_shops_model(), shops(), twin_steps=0)
    subject, made = found.subject, found.attribution
    spread = subject.run(torch.from_numpy(made.which)).std().item()
    assert made.through == pytest.approx(min(1.0, made.expected.std(ddof=1) / spread), rel=1e-4)
    said = " ".join(found.findings())
    assert f"{made.through:.0%} of the answer's spread goes through the LSTM, the rest past it (the linear path" in said
    assert "What the LSTM adds to the answer rests on sold" in said


def test_sequences_without_a_label_at_their_end_do_not_dilute_gradients():
    model = counting()
    whole = sequence_subject(model, events(), source="events.csv")
    assert whole.loss_name == "the loss"
    some = sequence_subject(model, events(), source="events.csv")
    some.truth = some.truth.copy()
    some.truth[::2] = np.nan
    assert some.judged().tolist() == list(range(1, 24, 2))
    assert flow(some, model.model_[0], "").ratio(30) == pytest.approx(1.0, rel=1e-3)
    with_loss = some.loss(torch.arange(2), model.model_[0])  # the first is not known, the second is
    torch.testing.assert_close(with_loss, whole.loss(torch.tensor([1]), model.model_[0]))


def test_sequences_whose_loss_depends_on_nothing_do_not_count(monkeypatch):
    model = counting()
    subject = sequence_subject(model, events(), source="events.csv")
    subject.truth = subject.truth.copy()
    subject.truth[::2] = np.nan
    monkeypatch.setattr(subject, "judged", lambda: np.arange(24))
    assert flow(subject, model.model_[0], "").ratio(30) == pytest.approx(1.0, rel=1e-3)


def _layer(c: np.ndarray, count: int, spec: CellSpec | None = None, backwards: bool = False) -> Layer:
    """`count` equally long sequences with cell states c [N, H]."""
    spec, units = spec or CellSpec(), c.shape[1]
    lstm = carousel.LSTM(2, units, layer_norm=spec.layer_norm)
    weights = dict(zip(lstm.spec.shapes(2, units), lstm.all_weights[0], strict=True))
    gate = np.full(c.shape, 0.5, np.float32)
    offsets = np.arange(count + 1) * (len(c) // count)
    return Layer("layer 1", backwards, spec, weights, offsets, gate, gate, gate, gate, c.astype(np.float32), gate)


class _Subject:
    pace = Pace()
    tokens = None
    channels: tuple[Any, ...] = ()

    def __init__(self, seasons: tuple[int, ...], **signals: Any) -> None:
        self.seasons, self.signals = seasons, signals


def test_a_cycle_is_seen_wherever_sequences_begin_in_it():
    rng = np.random.default_rng(0)
    t = np.arange(60)
    starts = rng.uniform(0, 2 * np.pi, 16)
    c = np.concatenate([np.sin(2 * np.pi * t / 7 + start) for start in starts])[:, None]
    found = roles(_layer(c + 0.1 * rng.normal(size=c.shape), 16), _Subject((7,)), None)  # type: ignore[arg-type]
    assert (found[0].kind, found[0].of) == ("cycle", "7 steps")
    assert found[0].strength > 0.95


def test_noise_with_a_memory_is_no_cycle_and_nor_is_a_season_as_long_as_the_window():
    rng = np.random.default_rng(1)
    c = np.zeros((16, 52, 40))
    for k in range(1, 52):
        c[:, k] = 0.9 * c[:, k - 1] + rng.normal(size=(16, 40))
    for count in (1, 16):
        layer = _layer(c[:count].reshape(-1, 40), count)
        found = [role.kind for role in roles(layer, _Subject((52,)), None)]  # type: ignore[arg-type]
        assert found.count("cycle") <= 1


def test_a_unit_that_reads_backwards_answers_to_events():
    rng = np.random.default_rng(2)
    alarm = (rng.random((4, 30)) < 0.1).astype(float)
    jumps = alarm * rng.choice([-1.0, 1.0], alarm.shape)
    state = np.cumsum(jumps[:, ::-1], 1)[:, ::-1].reshape(-1, 1)  # from the end, each alarm's own included
    found = roles(_layer(state, 4, backwards=True), _Subject((), alarm=alarm.ravel()), None)  # type: ignore[arg-type]
    assert (found[0].kind, found[0].of) == ("event", "alarm")
    assert found[0].strength > 0.9


def test_half_lives_count_what_zoneout_keeps():
    lstm = carousel.LSTM(3, 4, zoneout_c=0.5, zoneout_h=0.2, decay=True, dtype=torch.float64).eval()
    x, gaps = torch.randn(9, 2, 3, dtype=torch.float64), torch.rand(9, 2, dtype=torch.float64)
    (layer,) = record(lstm, lambda: lstm(x, elapsed=gaps))
    c = torch.randn(1, 4, dtype=torch.float64, requires_grad=True)
    h = torch.zeros(1, 4, dtype=torch.float64)
    made = step(lstm.spec, layer.weights, x[0, :1], h, c, gaps[0, :1], Masks(1.0, 0.5, 0.2))
    (own,) = torch.autograd.grad(made.c.sum(), c)
    decay = torch.exp(-gaps[0, 0] * torch.nn.functional.softplus(layer.weights["decay_rate"]))
    torch.testing.assert_close(own[0], (decay * (0.5 + 0.5 * made.f[0])).detach())
    again = decay.detach().numpy() * (0.5 + 0.5 * layer.f[0])
    np.testing.assert_allclose(layer.keep[0], again, atol=1e-6)
    assert (memory(layer).half_life > 0).all()


def test_of_normalised_cells_what_units_show_is_what_they_put_out():
    lstm = carousel.LSTM(3, 4, layer_norm=True, dtype=torch.float64).eval()
    with torch.no_grad():
        weights = dict(zip(lstm.spec.shapes(3, 4), lstm.all_weights[0], strict=True))
        weights["norm_c"].copy_(torch.tensor([0.0, 0.5, 1.0, 2.0]))
        weights["norm_bias_c"].copy_(torch.tensor([0.0, 0.1, -0.2, 0.3]))
    x = torch.randn(1, 8, 3, dtype=torch.float64).transpose(0, 1)
    (layer,) = record(lstm, lambda: lstm(x))
    np.testing.assert_allclose(layer.exposed, lstm(x)[0][:, 0].detach(), atol=1e-6)
    assert 0 in health(layer).dead  # its state moves, and nothing of it is shown


def test_what_lasts_to_the_oldest_row_measured_is_said_so():
    found = explain(counting(), events(), twin_steps=0)
    assert found.influence.lasts
    (said,) = [text for text in found.findings() if text.startswith("Replacing")]
    assert f"even those {found.influence.half:.0f} steps older, the oldest that were replaced, do not" in said


def test_short_series_are_left_out_of_the_twins_and_do_not_stop_the_rest():
    model, frame = _shops_model(), shops()
    few = frame.head(3).with_columns(shop=pl.lit("tiny"))
    with pytest.warns(UserWarning, match="left out of training"):
        found = explain(model, pl.concat([frame, few]), twin_steps=2)
    assert len(found.flows.twins) == 2
    short = frame.group_by("shop", maintain_order=True).head(4)
    found = explain(model, short, twin_steps=2)
    assert found.flows.missing == "no series is long enough to train on"
    assert "No series has the" in " ".join(found.subject.notes)
    assert "before its beginning" in " ".join(found.subject.notes)


def test_sequences_of_one_row_can_be_looked_at():
    frame = events().group_by("who", maintain_order=True).head(1)
    found = explain(counting(), frame, twin_steps=0)
    assert found.influence is None
    assert "too short to speak of gradients" in " ".join(found.findings())
    assert found.attribution.values.shape[1] == 1


def test_the_only_sequence_is_measured_in_its_own_size():
    found = explain(counting(), events(), ids=("s03",), twin_steps=0)
    assert found.attribution.through is None
    assert "of its size" in " ".join(found.findings())


def test_ids_may_hold_commas_come_twice_and_not_be_empty():
    ids = ["Smith, John", "a", "b"]
    assert chosen(ids, ("Smith, John",), "x.csv")[0].tolist() == [0]
    assert chosen(ids, ("a,b", " b ", "a"), "x.csv")[0].tolist() == [1, 2]
    for wanted in (("",), (",", " ")):
        with pytest.raises(CarouselError, match=r"x\.csv: the ids that were asked for are empty"):
            chosen(ids, wanted, "x.csv")
