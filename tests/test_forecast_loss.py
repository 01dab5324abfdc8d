"""The native loss of the forecast head and its gradients against torch in float64, for every shape that it takes."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from carousel.heads import forecast_loss
from carousel.heads.forecast import DEFAULT_QUANTILES, ForecastHead
from carousel.heads.forecast_net import ForecastNet, pinball

LEVELS = {"usual": DEFAULT_QUANTILES, "median": (0.5,), "lower": (0.1, 0.3, 0.5), "upper": (0.5, 0.8, 0.9, 0.99)}
STATE, STATIC, CONTEXT = 5, 3, 9
# windows, steps, targets, naive forecasts, width, channels ahead
SHAPES = [(3, 7, 1, 6, 64, 8), (5, 70, 2, 4, 20, 3), (2, 130, 3, 2, 33, 0), (1, 1, 1, 2, 1, 1), (4, 13, 7, 4, 48, 6)]


def draw(shape: tuple[int, ...], levels: tuple[float, ...]) -> tuple[ForecastNet, list[Tensor]]:
    n, h, k, g, width, ahead = shape
    torch.manual_seed(sum(shape))
    head = ForecastNet(
        ForecastHead(levels, width, (1.0,) * len(levels)),
        state=STATE,
        static=STATIC,
        ahead=ahead,
        context=CONTEXT,
        horizon=h,
        targets=k,
        bases=g,
    )
    with torch.no_grad():
        for weight in head.parameters():
            weight.copy_(0.3 * torch.randn_like(weight))
    sizes = [(n, STATE + STATIC), (n, h, ahead), (n, CONTEXT + 1, k), (n, h, k, g), (n, h, k), (n, k)]
    given = [torch.randn(size) for size in sizes]
    given[4][torch.rand(n, h, k) < 0.2] = torch.nan
    given[4][0, :, 0] = torch.nan  # nothing observed
    given[5] = given[5].abs()
    return head, given


def gradients(head: ForecastNet, given: list[Tensor], native: bool) -> tuple[float, dict[str, Tensor]]:
    """The loss, and gradients by name: of what is given, and of the head's weights."""
    operands = [t.clone().requires_grad_() for t in given[:3]]
    head.zero_grad()
    if native:
        found = forecast_loss.loss(head, *operands, *given[3:])
    else:
        levels = torch.tensor(head.head.quantiles, dtype=given[0].dtype)
        found = pinball(head(*operands, given[3]), given[4], given[5], levels)
    (2 * found).backward()
    made = {name: t.grad for name, t in zip(("state", "ahead", "linear"), operands, strict=True)}
    made |= {name: weight.grad for name, weight in head.named_parameters()}
    return float(found.detach()), {name: g.clone() for name, g in made.items() if g is not None and g.numel()}


def largest_error(head: ForecastNet, given: list[Tensor]) -> float:
    """Of the loss and all gradients, each relative to its largest."""
    value, found = gradients(head, given, True)
    truth, wanted = gradients(head.double(), [t.double() for t in given], False)
    head.float()
    assert found.keys() == wanted.keys()
    errors = [abs(value - truth) / abs(truth)]
    errors += [float((found[k] - g).abs().max() / g.abs().max().clamp(min=1e-6)) for k, g in wanted.items()]
    return max(errors)


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_loss_and_every_gradient_are_those_of_torch(shape: tuple[int, ...], levels: str) -> None:
    head, given = draw(shape, LEVELS[levels])
    assert shape[0] == 1 or forecast_loss.computes(head, given[0])
    if shape[0] == 1:
        given[4] = torch.zeros_like(given[4])
    assert largest_error(head, given) < 5e-5  # sums of some thousand numbers in float32


def test_two_threads_find_the_same_up_to_rounding() -> None:
    head, given = draw((9, 60, 2, 4, 64, 5), DEFAULT_QUANTILES)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert largest_error(head, given) < 5e-5
    finally:
        torch.set_num_threads(before)


def test_the_comparison_tells_a_wrong_head() -> None:
    """Each change is one that a kernel could get wrong; the comparison must not pass over it."""
    head, given = draw((4, 13, 2, 4, 48, 6), DEFAULT_QUANTILES)
    value, found = gradients(head, given, True)
    for name, wrong in {
        "step": lambda: head.step.data.copy_(head.step.data.roll(1, 0)),
        "hidden": lambda: head.hidden.weight.data.copy_(head.hidden.weight.data.t().clone()),
        "gate": lambda: head.gate_step.data.copy_(head.gate_step.data.flip(1)),
        "out": lambda: head.out.bias.data.copy_(head.out.bias.data.flip(0)),
    }.items():
        kept = {k: v.clone() for k, v in head.state_dict().items()}
        wrong()
        other, moved = gradients(head.double(), [t.double() for t in given], False)
        head.float().load_state_dict(kept)
        assert abs(other - value) > 1e-4, name
        assert max(float((moved[k] - g).abs().max()) for k, g in found.items()) > 1e-3, name


def test_a_truth_on_the_forecast_divides_the_slope() -> None:
    """At an error of zero torch gives half of either side's gradient."""
    head, given = draw((3, 7, 1, 2, 8, 0), (0.5,))
    with torch.no_grad():
        for weight in head.parameters():
            weight.zero_()
    given[3], given[4] = torch.ones_like(given[3]), torch.ones_like(given[4])
    value, found = gradients(head, given, True)
    assert value == 0
    assert all(not g.any() for g in found.values())


def test_only_float32_on_the_processor_with_gradients() -> None:
    head, given = draw(SHAPES[0], DEFAULT_QUANTILES)
    with torch.no_grad():
        assert not forecast_loss.computes(head, given[0])
    assert not forecast_loss.computes(head.double(), given[0].double())
    head.float().hidden.weight.requires_grad_(False)
    assert not forecast_loss.computes(head, given[0])


@pytest.mark.parametrize("isa", ["portable", "avx2"])
def test_other_instruction_sets_agree(isa: str) -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); import test_forecast_loss as t\n"
        "print(max(t.largest_error(*t.draw(s, t.DEFAULT_QUANTILES)) for s in t.SHAPES if s[0] > 1))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"CAROUSEL_ISA": isa}, capture_output=True, text=True
    )
    if "is not an instruction set of this machine" in ran.stderr:
        pytest.skip(f"this machine has no {isa}")
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout.split()[-1]) < 5e-5


def test_sizes_that_make_no_sense_are_refused() -> None:
    from carousel import _core

    with pytest.raises(ValueError, match="positive"):
        _core.forecast_loss([0, 1, 1, 1, 0, 1, 1, 0], [0] * 7, [0] * 9, [0] * 3, [0] * 9, 1)
    with pytest.raises(ValueError, match="median"):
        _core.forecast_loss([1, 1, 1, 1, 1, 1, 1, 0], [0] * 7, [0] * 9, [0] * 3, [0] * 9, 1)


def test_training_goes_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit with it and one without end at forecasts that differ by rounding only."""
    import polars as pl

    from carousel import Forecaster
    from carousel.train import TrainConfig

    t = np.arange(90)
    frame = pl.DataFrame({"t": t, "y": np.sin(t * np.pi / 6) + 0.1 * np.random.default_rng(0).normal(size=90)})
    config = TrainConfig(steps=8, least_steps=8, hidden_size=8, batch_size=16, width=12, threads=1)

    def forecasts() -> np.ndarray:
        return Forecaster(6, time="t", season=12, config=config).fit(frame).predict(frame)["forecast"].to_numpy()

    calls = []
    own = forecast_loss.loss
    monkeypatch.setattr(forecast_loss, "loss", lambda *given: calls.append(1) or own(*given))
    found = forecasts()
    assert len(calls) >= 8
    monkeypatch.setattr(forecast_loss, "computes", lambda *given: False)
    np.testing.assert_allclose(found, forecasts(), rtol=2e-4, atol=2e-4)
