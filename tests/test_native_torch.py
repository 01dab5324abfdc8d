"""The native backend as torch sees it: operators, derivatives, tracing, autocast."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from carousel.backends import Call, Rows, native
from carousel.cell import CellSpec
from carousel.errors import NotSupported
from carousel.lstm import LSTM

EVERYTHING = CellSpec(
    peephole=True, coupled=True, layer_norm=True, decay=True, proj_size=2, cell_clip=1.0, zoneout_c=0.2, zoneout_h=0.1
)


def make_call(spec: CellSpec, *, directions: int = 2, seed: int | None = 3, trace: bool = False) -> Call:
    torch.manual_seed(0)
    lengths = torch.tensor([4, 1, 3])
    ends, size, hidden = lengths.cumsum(0), 3, 4
    rows = Rows(ends - lengths, torch.arange(4), lengths, False, False)
    n, out = int(ends[-1]), spec.output_size(hidden)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, requires_grad=True)

    return Call(
        random(n, size),
        rows,
        random(directions, 3, out),
        random(directions, 3, hidden),
        tuple({name: random(*shape) for name, shape in spec.shapes(size, hidden).items()} for _ in range(directions)),
        torch.rand(directions, n, dtype=torch.float64).requires_grad_() if spec.decay else None,
        None if seed is None else torch.tensor(seed),
        trace,
        0,
    )


def operands(spec: CellSpec, call: Call, *, keep: bool) -> tuple[object, ...]:
    weights = [w for direction in call.weights for w in direction.values()]
    written = native._written(spec)
    return (call.x, *call.rows[:3], call.h, call.c, weights, call.elapsed, call.seed, written, keep, call.trace, 0)


@pytest.mark.parametrize("spec", [CellSpec(), EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("trace", [False, True])
def test_opcheck(spec: CellSpec, trace: bool) -> None:
    arguments = operands(spec, make_call(spec, trace=trace), keep=True)
    torch.library.opcheck(torch.ops.carousel.lstm_layer.default, arguments)


def test_opcheck_of_backward() -> None:
    call = make_call(CellSpec())
    arguments = operands(CellSpec(), call, keep=True)
    with torch.no_grad():
        y, h, c, reserve, _ = torch.ops.carousel.lstm_layer(*arguments)
    upstream = [torch.randn_like(t).requires_grad_() for t in (y, h, c)]
    torch.library.opcheck(  # but for tracing the second derivative: the reference loops over the values of lengths
        torch.ops.carousel.lstm_layer_backward.default,
        (*upstream, *arguments[:9], y, reserve, arguments[9], 0, True),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


@pytest.mark.parametrize("spec", [CellSpec(), EVERYTHING], ids=["plain", "everything"])
def test_first_and_second_derivatives(spec: CellSpec) -> None:
    call = make_call(spec)
    names = list(call.weights[0])
    leaves = [call.x, call.h, call.c, *(w for d in call.weights for w in d.values())]
    leaves += [] if call.elapsed is None else [call.elapsed]

    def layer(*given: Tensor) -> tuple[Tensor, ...]:
        x, h, c, *rest = given
        weights = tuple(dict(zip(names, rest[k * len(names) :], strict=False)) for k in range(2))
        elapsed = rest[-1] if spec.decay else None
        return native.run(spec, call._replace(x=x, h=h, c=c, weights=weights, elapsed=elapsed))[:3]

    assert torch.autograd.gradcheck(layer, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(layer, leaves, fast_mode=True)


@pytest.mark.parametrize("spec", [CellSpec(), EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_width_of_the_reserve(spec: CellSpec, dtype: torch.dtype) -> None:
    for hidden in (1, 16, 33):
        written = native._written(spec)
        plan = native._plan(written, dtype, (3, hidden, spec.output_size(hidden), 1))
        shape = native._reserve_shape(written, dtype, 7, 5, (2, hidden, 1, 1), 0)
        assert shape == (1, 7, native._core.reserve_width(plan))


def test_compiles_without_a_graph_break() -> None:
    torch.manual_seed(1)
    layer, x = LSTM(5, 6, backend="native"), torch.randn(7, 3, 5)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    given, expected = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, (h, c) = compiled(given)
    z, (k, d) = layer(expected)
    torch.testing.assert_close((y, h, c), (z, k, d), rtol=0, atol=0)
    (y.sum() + c.sum()).backward()
    (z.sum() + d.sum()).backward()
    torch.testing.assert_close(given.grad, expected.grad, rtol=0, atol=0)


def test_exports() -> None:
    torch.manual_seed(1)
    layer, x = LSTM(5, 6, backend="native").eval(), torch.randn(7, 3, 5)
    program = torch.export.export(layer, (x,))
    torch.testing.assert_close(program.module()(x)[0], layer(x)[0], rtol=0, atol=0)


def test_vmap_is_refused_with_the_reason() -> None:
    call = make_call(CellSpec(), seed=None)

    def layer(x: Tensor) -> Tensor:
        return native.run(CellSpec(), call._replace(x=x)).y

    with pytest.raises(NotSupported, match="put the mapped dimension into the batch"):
        torch.func.vmap(layer)(torch.randn(2, *call.x.shape, dtype=torch.float64))


def test_autocast_computes_in_bfloat16() -> None:
    torch.manual_seed(1)
    layer, x = LSTM(5, 6, backend="native"), torch.randn(7, 3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = layer(x)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert layer.weight_ih_l0.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), layer(x)[0], rtol=0, atol=0.02)  # eight bits of mantissa


def test_only_the_gradients_asked_for() -> None:
    layer, x = LSTM(3, 4, backend="native"), torch.randn(7, 2, 3)
    layer.weight_ih_l0.requires_grad_(False)
    layer(x)[0].sum().backward()
    assert x.grad is None
    assert layer.weight_ih_l0.grad is None
    assert layer.weight_hh_l0.grad.abs().sum() > 0


def test_backward_twice_over_the_same_graph() -> None:
    layer, x = LSTM(3, 4, backend="native"), torch.randn(7, 2, 3, requires_grad=True)
    y = layer(x)[0].sum()
    first = torch.autograd.grad(y, x, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(y, x)[0], first, rtol=0, atol=0)


@pytest.mark.parametrize("order", ["hidden", "cell"])
def test_gradient_of_one_state_alone(order: str) -> None:
    torch.manual_seed(2)
    theirs, ours = nn.LSTM(3, 4, dtype=torch.float64), LSTM(3, 4, dtype=torch.float64, backend="native")
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(7, 3, 3, dtype=torch.float64)
    for layer in (theirs, ours):
        layer(x)[1][order == "cell"].sum().backward()
    torch.testing.assert_close(ours.weight_hh_l0.grad, theirs.weight_hh_l0.grad, rtol=1e-12, atol=1e-12)
