"""Calls without layouts and operators give what the operators give, bit for bit, and step aside where they must."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from carousel import LSTM, Ragged
from carousel.backends import direct, native

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "deep, both ways": {"num_layers": 3, "bidirectional": True, "dropout": 0.4},
    "batch first": {"batch_first": True, "num_layers": 2},
    "without bias, projected": {"bias": False, "proj_size": 4, "bidirectional": True},
    "regularised": {"num_layers": 2, "recurrent_dropout": 0.3, "zoneout_c": 0.2, "zoneout_h": 0.1, "layer_norm": True},
}
KINDS = ("tensor", "unbatched", "ragged")


def given(kind: str, dtype: torch.dtype) -> Any:
    if kind == "tensor":
        return torch.randn(7, 3, 5, dtype=dtype).requires_grad_()
    if kind == "unbatched":
        return torch.randn(7, 5, dtype=dtype).requires_grad_()
    return Ragged(torch.randn(11, 5, dtype=dtype).requires_grad_(), torch.tensor([0, 7, 7, 8, 11]))


def states(lstm: LSTM, kind: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    count = lstm.num_layers * (2 if lstm.bidirectional else 1)
    batch = {"tensor": (7 if lstm.batch_first else 3,), "unbatched": (), "ragged": (4,)}[kind]
    sizes = lstm.spec.output_size(lstm.hidden_size), lstm.hidden_size
    h, c = (torch.randn(count, *batch, size, dtype=dtype).requires_grad_() for size in sizes)
    return h, c


def everything(lstm: LSTM, x: Any, hx: tuple[Tensor, Tensor] | None) -> list[Tensor]:
    """Output, states and gradients; with the gradient of nothing for h where the graph is cut."""
    torch.manual_seed(3)
    y, (h, c) = lstm(x, hx)
    y, leaf = (y.values, x.values) if isinstance(x, Ragged) else (y, x)
    leaves = [leaf, *(hx or ()), *lstm.parameters()]
    upstream = [torch.randn(t.shape, dtype=torch.float64).to(t.dtype) for t in (y, c)]
    return [y, h, c, *torch.autograd.grad([y, c], leaves, upstream)]


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_operators_agree_to_the_last_bit(
    name: str, kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    lstm = LSTM(5, 9, **VARIANTS[name]).to(dtype)
    x = given(kind, dtype)
    for training in (True, False):
        lstm.train(training)
        for hx in (None, states(lstm, kind, dtype)):
            monkeypatch.undo()
            assert lstm._directly(x, hx) is not None
            found = everything(lstm, x, hx)
            monkeypatch.setattr(direct, "quiet", lambda: False)
            for a, b in zip(found, everything(lstm, x, hx), strict=True):
                assert torch.equal(a, b)
                assert a.dtype == b.dtype


def test_a_second_derivative_goes_through_the_operators() -> None:
    torch.manual_seed(0)
    lstm = LSTM(3, 4).double()
    x = torch.randn(7, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda t: lstm(t)[0], (x,), atol=1e-4)


def test_what_is_not_ordinary_is_left_to_the_operators() -> None:
    lstm, x = LSTM(5, 9), torch.randn(7, 3, 5)
    good = torch.zeros(1, 3, 9), torch.zeros(1, 3, 9)
    assert lstm._directly(x, good) is not None
    wrong = (torch.zeros(1, 2, 9), torch.zeros(1, 3, 9).double(), torch.zeros(3, 1, 9).transpose(0, 1)[..., ::2])
    for state in wrong:
        assert lstm._directly(x, (state, good[1])) is None
    assert lstm._directly(x.transpose(0, 1), None) is None
    assert lstm._directly(x.double(), None) is None
    assert lstm._directly(x[:0], None) is None
    assert lstm._directly(x[..., :4], None) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert lstm._directly(x, None) is None
    assert LSTM(5, 9, backend="reference")._directly(x, None) is None


def test_states_that_nobody_gave_are_zeros_that_nobody_can_change() -> None:
    torch.manual_seed(0)
    lstm, x = LSTM(5, 9), torch.randn(7, 3, 5)
    y, (h, c) = lstm(x)
    h.data.add_(1)
    c.data.add_(1)
    zeros = torch.zeros(1, 3, 9)
    assert torch.equal(lstm(x)[0], lstm(x, (zeros, zeros))[0])
    assert torch.equal(lstm(x)[0], y)


def test_what_is_kept_between_calls_serves_training_after_inference() -> None:
    """Index tensors made under inference_mode could not be saved for a backward pass."""
    lstm, x = LSTM(5, 9), torch.randn(13, 2, 5)
    direct.dense.cache_clear()
    direct._ZEROS.clear()
    with torch.inference_mode():
        lstm(x)
    y = lstm(x)[0]
    (of_weight,) = torch.autograd.grad(y.sum(), [lstm.weight_hh_l0], create_graph=True)
    of_weight.sum().backward()
    assert native.supports(lstm.spec, x.device, x.dtype) is None
