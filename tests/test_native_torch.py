"""The native backend as torch sees it: operators, derivatives, tracing, autocast."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from carousel.backends import Call, Rows, native
from carousel.cell import CellSpec
from carousel.errors import NotSupported
from carousel.lstm import LSTM
from carousel.ragged import Ragged

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
    written = native.written(spec)
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
        written = native.written(spec)
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


def refusals():
    """What the core must not read, and the derivatives that it does not compute."""
    x = torch.randn(7, 3, 4)

    def cast(dtype, *hx):
        with torch.autocast("cpu", dtype):
            LSTM(4, 5, backend="native")(x, *hx)

    def wrong_shape():
        lstm = LSTM(4, 5, backend="native")
        lstm.weight_hh_l0 = torch.nn.Parameter(torch.zeros(1))
        lstm(x)

    def wrong_dtype():
        lstm = LSTM(4, 5, backend="native", layer_norm=True).bfloat16()
        lstm.norm_c_l0.data = lstm.norm_c_l0.data.float()
        lstm(x.bfloat16())

    def exported_for_inference():
        with torch.no_grad():
            program = torch.export.export(LSTM(4, 5, backend="native"), (x,))
        program.module()(x)[0].sum().backward()

    def tangent():
        torch.func.jvp(lambda x: LSTM(4, 5, backend="native")(x)[0], (x,), (x,))

    def functional_gradient():
        torch.func.grad(lambda x: LSTM(4, 5, backend="native")(x)[0].sum())(x)

    def vectorised():
        lstm = LSTM(4, 5, backend="native")
        torch.autograd.functional.jacobian(lambda x: lstm(x)[0].sum((1, 2)), x, vectorize=True)

    doubles = (torch.zeros(1, 3, 5, dtype=torch.float64),) * 2
    return {
        "other device": (lambda: LSTM(4, 5, device="meta", backend="native")(x), RuntimeError, "same device"),
        "wrong shape": (wrong_shape, RuntimeError, "weight_hh must be"),
        "wrong dtype": (wrong_dtype, RuntimeError, "norm_c is torch.float32"),
        "double state under autocast": (lambda: cast(torch.bfloat16, doubles), RuntimeError, "h is torch.float64"),
        "autocast to float16": (lambda: cast(torch.float16), NotSupported, "torch.float16"),
        "backward without a reserve": (exported_for_inference, RuntimeError, "kept nothing for backward"),
        "forward mode": (tangent, NotSupported, "forward-mode"),
        "torch.func.grad": (functional_gradient, NotSupported, "torch.autograd.grad"),
        "vectorised Jacobian": (vectorised, NotSupported, "vmap"),
    }


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # of torch.func.jvp itself
@pytest.mark.parametrize("name", refusals())
def test_refuses_with_the_reason(name):
    act, kind, text = refusals()[name]
    with pytest.raises(kind, match=text):
        act()


@pytest.mark.filterwarnings("ignore")  # torch.jit.trace is deprecated, and warns of Python conditions
def test_a_traced_layer_computes():
    lstm, x = LSTM(4, 5, backend="native"), torch.randn(7, 3, 4)
    with torch.no_grad():
        traced = torch.jit.trace(lstm, x)
        other = torch.randn(7, 3, 4)
        assert torch.equal(traced(other)[0], lstm(other)[0])


def test_a_view_of_an_imaginary_part_is_read_with_its_sign():
    lstm = LSTM(1, 1, backend="native", dtype=torch.float64)
    x = torch.randn(7, 3, 1, dtype=torch.cdouble).conj().imag
    assert x.is_neg()
    torch.testing.assert_close(lstm(x)[0], lstm(x.resolve_neg())[0], rtol=0, atol=0)


def test_second_derivatives_of_sequences_without_rows():
    lstm = LSTM(2, 3, backend="native", dtype=torch.float64)
    h, c = (torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    empty = Ragged(torch.zeros(0, 2, dtype=torch.float64), torch.zeros(3, dtype=torch.int64))
    _, (last, _) = lstm(empty, (h, c))
    (first,) = torch.autograd.grad(last.square().sum(), h, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), h)
    torch.testing.assert_close(second, torch.full_like(h, 2.0))
