"""Cross-entropy piece by piece, and dropout by bytes, against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from carousel.heads import crossentropy
from carousel.heads.crossentropy import linear_cross_entropy
from carousel.heads.dropping import Dropout

N, E, V = 331, 5, 17


def operands(dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(2)
    return [torch.randn(*shape, dtype=dtype).requires_grad_() for shape in ((N, E), (V, E), (V,))]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("cache", "block"), [(1, 1), (65 * V, 130 * V), (2**19, 2**25)])
def test_loss_and_gradients_are_those_of_all_logits_at_once(monkeypatch, smoothing, cache, block):
    monkeypatch.setattr(crossentropy, "CACHE", cache)
    monkeypatch.setattr(crossentropy, "BLOCK", block)
    truth = torch.arange(N) * 5 % V
    found, expected = operands(torch.float64), operands(torch.float64)
    loss = linear_cross_entropy(*found, truth, smoothing)
    (3 * loss).backward()
    slow = F.cross_entropy(F.linear(*expected), truth, label_smoothing=smoothing)
    (3 * slow).backward()
    assert float(loss.detach()) == pytest.approx(float(slow.detach()), abs=1e-12)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-12)


def test_gradients_agree_with_differences():
    truth = torch.arange(N) * 3 % V
    assert torch.autograd.gradcheck(lambda *x: linear_cross_entropy(*x, truth, 0.2), operands(torch.float64))


def test_autocast_computes_products_in_its_own_type():
    x, weight, bias = operands(torch.float32)
    truth = torch.arange(N) % V
    plain = linear_cross_entropy(x, weight, bias, truth)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = linear_cross_entropy(x, weight, bias, truth)
    rounded.backward()
    assert rounded.dtype == x.grad.dtype == torch.float32
    assert rounded != plain
    assert float(rounded.detach()) == pytest.approx(float(plain.detach()), rel=0.02)
    with torch.no_grad():
        assert linear_cross_entropy(x, weight, bias, truth) == plain


def test_dropped_shares_are_those_asked_for_and_means_stay():
    torch.manual_seed(0)
    x, dropout = torch.full((3, 70_001), 2.0, requires_grad=True), Dropout(0.3)
    found = dropout(x)
    share = float((found == 0).double().mean())
    assert share == pytest.approx(77 / 256, abs=0.003)
    assert float(found.detach().mean()) == pytest.approx(2.0, rel=0.01)
    found.sum().backward()
    assert torch.equal(x.grad * 2, found.detach())
    assert not torch.equal(dropout(x), found)
    assert dropout.eval()(x) is x
    assert Dropout(0.0)(x) is x
