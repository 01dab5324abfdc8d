"""LSTMCell in place of torch.nn.LSTMCell, and as one step of LSTM."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.common_modules import module_error_inputs_torch_nn_LSTMCell

from carousel import LSTM, CarouselError, DataError, LSTMCell
from carousel.cell import CellSpec
from lstm_cases import able

F64 = torch.float64


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_torchs(bias: bool, batched: bool):
    theirs = nn.LSTMCell(3, 5, bias=bias, dtype=F64)
    for backend in able(CellSpec(bias=bias)):
        ours = LSTMCell(3, 5, bias=bias, dtype=F64, backend=backend)
        ours.load_state_dict(theirs.state_dict())
        theirs.load_state_dict(ours.state_dict())
        shape = (4,) if batched else ()
        x, h, c = (torch.randn(*shape, n, dtype=F64, requires_grad=True) for n in (3, 5, 5))
        for states in ((h, c), None):
            found, expected = ours(x, states), theirs(x, states)
            weights = [torch.randn_like(v) for v in expected]
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
            leaves = [x, *(states or ())]
            a = torch.autograd.grad(found, [*leaves, *ours.parameters()], weights, allow_unused=True)
            b = torch.autograd.grad(expected, [*leaves, *theirs.parameters()], weights, allow_unused=True)
            for mine, true in zip(a, b, strict=True):
                torch.testing.assert_close(mine, true, rtol=1e-11, atol=1e-12)


def test_a_seed_gives_torchs_initial_weights():
    torch.manual_seed(2)
    theirs = nn.LSTMCell(3, 5)
    torch.manual_seed(2)
    ours = LSTMCell(3, 5)
    for (name, a), (other, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"peephole": True, "decay": True},
        {"layer_norm": True, "proj_size": 2},
        {"coupled": True, "cell_clip": 0.3, "zoneout_c": 0.2, "zoneout_h": 0.1, "decay": True},
    ],
)
def test_its_steps_are_those_of_the_layer(kwargs: dict[str, Any]):
    layer, cell = LSTM(3, 5, dtype=F64, **kwargs).eval(), LSTMCell(3, 5, dtype=F64, **kwargs).eval()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    x, gaps = torch.randn(7, 4, 3, dtype=F64), torch.rand(7, 4, dtype=F64)
    h, c = torch.randn(4, cell.proj_size or 5, dtype=F64), torch.randn(4, 5, dtype=F64)
    elapsed = gaps if layer.spec.decay else None
    out, (h_n, c_n) = layer(x, (h[None], c[None]), elapsed=elapsed)
    one = LSTMCell.forward(cell, x[0, 0], (h[0], c[0]), elapsed=None if elapsed is None else elapsed[0, 0])
    torch.testing.assert_close(one[0], out[0, 0], rtol=1e-12, atol=1e-12)
    steps = []
    for t in range(7):
        h, c = cell(x[t], (h, c), elapsed=None if elapsed is None else elapsed[t])
        steps.append(h)
    torch.testing.assert_close(torch.stack(steps), out, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close((h, c), (h_n[0], c_n[0]), rtol=1e-12, atol=1e-12)


def test_zoneout_draws_anew_at_every_step():
    cell = LSTMCell(3, 64, zoneout_c=0.5, dtype=F64)
    x, c = torch.randn(2, 3, dtype=F64), torch.randn(2, 64, dtype=F64)
    h = torch.zeros_like(c)
    torch.manual_seed(1)
    first, second = cell(x, (h, c))[1], cell(x, (h, c))[1]
    torch.manual_seed(1)
    assert torch.equal(first, cell(x, (h, c))[1])
    kept = (first == c).double().mean()
    assert 0.3 < kept < 0.7
    assert not torch.equal(first, second)


def test_it_is_copied_and_pickled_and_says_what_it_is():
    cell = LSTMCell(3, 5, bias=False, proj_size=2, peephole=True)
    x = torch.randn(4, 3)
    for other in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
        assert torch.equal(other(x)[0], cell(x)[0])
        assert repr(other) == "LSTMCell(3, 5, proj_size=2, bias=False, peephole=True)"
    assert repr(LSTMCell(3, 5)) == repr(nn.LSTMCell(3, 5))
    assert repr(LSTMCell(3, 5, bias=False)) == repr(nn.LSTMCell(3, 5, bias=False))


def _samples() -> list[Any]:
    return module_error_inputs_torch_nn_LSTMCell(nn.LSTMCell, "cpu", torch.float32, requires_grad=False, training=True)


@pytest.mark.parametrize("number", range(4))
def test_torchs_own_error_inputs(number: int):
    assert len(_samples()) == 4
    sample = _samples()[number]
    build, call = sample.module_error_input.constructor_input, sample.module_error_input.forward_input
    with pytest.raises(sample.error_type, match=sample.error_regex):
        LSTMCell(*build.args, **build.kwargs)(*call.args)


def _states(*sizes: int) -> tuple[Tensor, ...]:
    return tuple(torch.zeros(4, size) for size in sizes)


def test_other_wrong_input():
    cell = LSTMCell(3, 5)
    with pytest.raises(ValueError, match="Expected input to be 1D or 2D, got 3D"):
        cell(torch.zeros(7, 4, 3))
    with pytest.raises(ValueError, match="does not match weight dtype"):
        cell(torch.zeros(4, 3, dtype=F64))
    with pytest.raises(RuntimeError, match="hidden1 has inconsistent hidden_size: got 4, expected 5"):
        cell(torch.zeros(4, 3), _states(5, 4))
    with pytest.raises(RuntimeError, match=r"hx\[1\] is torch.float64 but the input torch.float32"):
        cell(torch.zeros(4, 3), (torch.zeros(4, 5), torch.zeros(4, 5, dtype=F64)))
    with pytest.raises(CarouselError, match=r"elapsed must be \[4\], got \[4, 1\]"):
        LSTMCell(3, 5, decay=True)(torch.zeros(4, 3), elapsed=torch.zeros(4, 1))
    with pytest.raises(DataError, match=r"never be negative or missing, got -1.0 at \[2\]"):
        LSTMCell(3, 5, decay=True)(torch.zeros(4, 3), elapsed=torch.tensor([0.0, 1.0, -1.0, 0.0]))
    with pytest.raises(CarouselError, match="give elapsed="):
        LSTMCell(3, 5, decay=True)(torch.zeros(4, 3))
    with pytest.raises(TypeError, match="unexpected keyword argument 'recurrent_dropout'"):
        LSTMCell(3, 5, recurrent_dropout=0.1)  # type: ignore[call-arg]
