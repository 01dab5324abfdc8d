"""The door, and every backend behind it against the reference: values and gradients over random specs and batches."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from carousel import NotSupported, Ragged, backends
from carousel.backends import Call, Result, pick
from carousel.cell import LAYER_NORM_EPS, CellSpec
from carousel.layout import layout_of, reversed_gaps
from carousel.lstm import LSTM
from lstm_cases import SWITCHED, able, tolerance

F32, F64 = torch.float32, torch.float64
CPU = torch.device("cpu")


def _layout(kind: str, lengths: list[int], width: int, generator: np.random.Generator) -> Any:
    steps, batch = max(lengths), len(lengths)
    if kind in ("time-major", "batch-first"):
        shape = (steps, batch) if kind == "time-major" else (batch, steps)
        return layout_of(torch.from_numpy(generator.normal(size=(*shape, width))), kind == "batch-first")
    ragged = Ragged.from_list([generator.normal(size=(n, width)) for n in lengths]).tensors()
    return layout_of(ragged.to_packed() if kind == "packed" else ragged, False)


def _call(
    spec: CellSpec,
    sizes: tuple[int, int],
    lengths: list[int],
    kind: str,
    directions: int,
    number: int,
    recompute: int = 0,
) -> Call:
    """A float64 call with random weights, states and gaps; `number` seeds all of it and the masks."""
    generator = np.random.default_rng(number)
    inputs, hidden = sizes
    layout = _layout(kind, lengths, inputs, generator)

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(generator.normal(size=shape))

    weights = tuple(
        {name: normal(*shape) * 0.7 for name, shape in spec.shapes(inputs, hidden).items()} for _ in range(directions)
    )
    elapsed = None
    if spec.decay:
        gaps = normal(layout.x.shape[0]).abs() * 2
        elapsed = torch.stack([gaps, reversed_gaps(gaps, layout.rows)][:directions])
    masked = spec.recurrent_dropout or spec.zoneout_c or spec.zoneout_h
    return Call(
        x=layout.x,
        rows=layout.rows,
        h=normal(directions, len(lengths), spec.output_size(hidden)),
        c=normal(directions, len(lengths), hidden),
        weights=weights,
        elapsed=elapsed,
        seed=torch.tensor(int(generator.integers(2**62))) if masked and number % 3 else None,
        trace=False,
        recompute=recompute,
    )


def _leaves(call: Call) -> list[Tensor]:
    gaps = [] if call.elapsed is None else [call.elapsed]
    return [call.x, call.h, call.c, *gaps, *(w for direction in call.weights for w in direction.values())]


def _with_leaves(call: Call, leaves: Any) -> Call:
    rest = iter(leaves)
    x, h, c = next(rest), next(rest), next(rest)
    elapsed = None if call.elapsed is None else next(rest)
    weights = tuple({name: next(rest) for name in direction} for direction in call.weights)
    return call._replace(x=x, h=h, c=c, elapsed=elapsed, weights=weights)


def _run(spec: CellSpec, call: Call, backend: str, dtype: torch.dtype, grad: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Results, and the gradients of one fixed random projection of them."""
    leaves = [leaf.detach().to(dtype).requires_grad_(grad) for leaf in _leaves(call)]
    with torch.set_grad_enabled(grad):
        found = list(backends.run(spec, _with_leaves(call, leaves), backend)[:3])
    assert [value.dtype for value in found] == [dtype] * 3
    if not grad:
        return found, []
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(value.shape, generator=generator, dtype=F64).to(dtype) for value in found]
    return found, list(torch.autograd.grad(found, leaves, weights))


def _assert_close(found: list[Tensor], expected: list[Tensor], spec: CellSpec, call: Call, dtype: torch.dtype) -> None:
    steps, width = call.rows.ahead.shape[0], call.x.shape[1] + call.h.shape[2]
    bound = tolerance(dtype, steps, width)["atol"]
    if spec.layer_norm:  # dividing by a standard deviation of nearly 0 enlarges every rounding
        bound *= LAYER_NORM_EPS**-0.5
    for a, b in zip(found, expected, strict=True):
        scale = 1.0 + (b.abs().max().item() if b.numel() else 0.0)
        assert torch.isfinite(a).all()
        assert (a.double() - b).abs().max().item() <= bound * scale if b.numel() else a.shape == b.shape


def _random_case(number: int) -> tuple[CellSpec, Call]:
    generator = np.random.default_rng(1000 + number)
    hidden, inputs, batch = (int(generator.integers(low, 10)) for low in (3, 1, 3))
    chosen = {name: value for name, value in SWITCHED.items() if generator.random() < 0.35}
    spec = CellSpec() if number < 6 else CellSpec(**chosen)
    if number in (3, 4, 5):  # torch's own kernel knows these
        spec = CellSpec(bias=number == 3, proj_size=2)
    kind = ["time-major", "batch-first", "packed", "ragged"][number % 4]
    steps = int(generator.integers(7, 13))
    lengths = [steps] * batch
    if kind in ("packed", "ragged"):
        lengths = [steps, 1, *generator.integers(1, steps + 1, batch - 2).tolist()]
        generator.shuffle(lengths)
    return spec, _call(spec, (inputs, hidden), lengths, kind, 1 + number % 2, number, (0, 0, 3)[number % 3])


@pytest.mark.parametrize("dtype", [F64, F32], ids=["float64", "float32"])
@pytest.mark.parametrize("number", range(48))
def test_every_backend_equals_the_reference(number: int, dtype: torch.dtype):
    spec, call = _random_case(number)
    call = call._replace(x=call.x.to(dtype).double(), recompute=0)
    for grad in (True, False):
        expected, gradients = _run(spec, call, "reference", F64, grad)
        for leaves in (False, True):
            needs = ("recompute",) if leaves else ()
            with torch.set_grad_enabled(grad):
                names = list(able(spec, dtype, needs))
            for name in names:
                found, slopes = _run(spec, call._replace(recompute=3 if leaves else 0), name, dtype, grad)
                _assert_close(found, expected, spec, call, dtype)
                _assert_close(slopes, gradients, spec, call, dtype)


def test_random_cases_reach_every_field_and_layout():
    specs = [_random_case(number)[0] for number in range(48)]
    for name, value in SWITCHED.items():
        assert sum(getattr(spec, name) == value for spec in specs) >= 5
    with torch.no_grad():
        assert sum("aten" in able(spec) for spec in specs) >= 6


PAIRS = [(name,) for name in SWITCHED] + list(combinations(SWITCHED, 2))


def _gradcheck_case(fields: tuple[str, ...]) -> tuple[CellSpec, Call]:
    spec = CellSpec(**{name: SWITCHED[name] for name in fields})
    directions = 1 + (len(fields) == 2 and PAIRS.index(fields) % 2)
    return spec, _call(spec, (2, 3), [2, 1, 3], "ragged", directions, 7)


def _function(spec: CellSpec, call: Call, backend: str) -> Any:
    def outputs(*leaves: Tensor) -> tuple[Tensor, ...]:
        return tuple(backends.run(spec, _with_leaves(call, leaves), backend)[:3])

    return outputs


@pytest.mark.parametrize("fields", PAIRS, ids=lambda fields: "-".join(fields))
def test_gradients_and_their_gradients_are_those_of_finite_differences(fields: tuple[str, ...]):
    """float64; single fields element by element, pairs along random directions."""
    torch.set_num_threads(1)
    spec, call = _gradcheck_case(fields)
    assert call.seed is not None or not {"recurrent_dropout", "zoneout_c", "zoneout_h"} & set(fields)
    for name in able(spec):
        leaves = [leaf.clone().requires_grad_() for leaf in _leaves(call)]
        function = _function(spec, call, name)
        assert gradcheck(function, leaves, fast_mode=len(fields) == 2)
        if len(fields) == 1 or name == "reference":  # the second derivative of the others goes through the reference
            assert gradgradcheck(function, leaves, fast_mode=True)


def test_the_plain_cell_passes_gradcheck_with_every_backend():
    spec, call = _gradcheck_case(())
    for name in able(spec):
        leaves = [leaf.clone().requires_grad_() for leaf in _leaves(call)]
        assert gradcheck(_function(spec, call, name), leaves)
        assert gradgradcheck(_function(spec, call, name), leaves, fast_mode=True)


def test_a_row_of_nan_stays_in_its_sequence():
    for number, kwargs in enumerate(({}, {"layer_norm": True, "peephole": True, "proj_size": 2})):
        spec = CellSpec(**kwargs)
        call = _call(spec, (3, 5), [7, 1, 9, 4], "ragged", 2, number)
        spoilt = call.x.clone()
        spoilt[3] = float("nan")
        with torch.no_grad():
            for name in able(spec):
                clean = backends.run(spec, call, name)
                found = backends.run(spec, call._replace(x=spoilt), name)
                assert found.y[:7].isnan().any()
                torch.testing.assert_close(found.y[7:], clean.y[7:], rtol=0, atol=1e-14)
                torch.testing.assert_close(found.h[:, 1:], clean.h[:, 1:], rtol=0, atol=1e-14)


def test_the_door_takes_the_first_that_can_and_says_why_others_cannot():
    peephole = CellSpec(peephole=True)
    with torch.no_grad():
        for spec in (CellSpec(), peephole):
            assert pick(spec, CPU, F64) is backends.load(next(able(spec)))
        found = backends.reasons(peephole, CPU, F64)
    assert set(found) == set(backends.BACKENDS)
    assert found["reference"] is None
    assert found["aten"] == "torch's kernel computes the plain cell, without peephole"
    assert pick(CellSpec(), CPU, F64, "aten").__name__ == "carousel.backends.aten"
    with pytest.raises(NotSupported, match=r"on cpu in torch\.float64: aten: torch's kernel hides its gates"):
        pick(CellSpec(), CPU, F64, "aten", ["trace"])
    with pytest.raises(NotSupported, match=r"native: .*; aten: .*; reference: it computes floating point numbers only"):
        pick(CellSpec(), CPU, torch.int64)
    with pytest.raises(ValueError, match="backend must be 'auto' or one of native, aten, reference, got 'cuda'"):
        pick(CellSpec(), CPU, F64, "cuda")


@pytest.mark.parametrize("dtype", [F32, F64])
def test_native_computes_every_cell_with_gradients_and_traces(dtype: torch.dtype):
    """So that the comparisons above cannot become empty."""
    for spec in (CellSpec(), CellSpec(**SWITCHED), *(CellSpec(**{name: value}) for name, value in SWITCHED.items())):
        assert "native" in able(spec, dtype, needs=("trace",))


def test_the_weight_drop_of_a_layer_is_not_the_backends_business():
    assert backends.load("aten").supports(CellSpec(weight_drop=0.5), CPU, F64) is None


def test_results_of_a_call_have_the_shapes_that_the_door_promises():
    spec = CellSpec(proj_size=2)
    call = _call(spec, (3, 5), [7, 1, 9], "ragged", 2, 3)._replace(trace=True)
    for name in able(spec, needs=("trace",)):
        result: Result = backends.run(spec, call, name)
        assert result.y.shape == (17, 4)
        assert result.h.shape == (2, 3, 2)
        assert result.c.shape == (2, 3, 5)
        assert result.trace is not None
        assert result.trace.shape == (5, 2, 17, 5)


def test_auto_says_once_where_only_the_slow_loop_computes():
    x = torch.randn(7, 3, 4, dtype=torch.float16)
    lstm = LSTM(4, 5, peephole=True, zoneout_c=0.25, dtype=torch.float16)
    with pytest.warns(UserWarning, match="runs as a Python loop over the steps.*float32, float64 and bfloat16"):
        lstm(x)
    lstm(x)  # once is enough; a second warning would fail here
    LSTM(4, 5, peephole=True, zoneout_h=0.25, dtype=torch.float16, backend="reference")(x)
