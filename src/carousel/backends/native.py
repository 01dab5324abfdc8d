"""The C++ core, bound to torch as the custom operators `carousel::lstm_layer` and its backward.

Both operators are pure functions with fake implementations, so they can be traced, compiled and exported. A second
derivative goes through the reference backend, whose loop torch differentiates as often as wanted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from carousel import _core
from carousel.backends import Call, Result, Rows, load
from carousel.backends.operands import check, check_gradients, plain, refuse_transforms, transformed
from carousel.cell import CellSpec
from carousel.errors import NotSupported

TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2}
COMPUTED = {torch.float32: torch.float32, torch.float64: torch.float64, torch.bfloat16: torch.float32}


def supports(spec: CellSpec, device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cpu":
        return "it runs on the CPU"
    if dtype not in TYPES:
        return "it computes float32, float64 and bfloat16"
    return None


def run(spec: CellSpec, call: Call) -> Result:
    x, rows, h, c, directions, elapsed, seed, trace, recompute = call
    weights = [w for direction in directions for w in direction.values()]
    operands = (x, h, c, elapsed, *weights)
    if not torch.compiler.is_compiling():
        refuse_transforms(operands)
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in operands)
    text, recompute = written(spec), recompute if keep else 0
    if torch.compiler.is_compiling() or not plain(operands):
        _check_autocast()
        found = torch.ops.carousel.lstm_layer(x, *rows[:3], h, c, weights, elapsed, seed, text, keep, trace, recompute)
    elif keep:
        apply: Any = _Layer.apply
        found = apply(x, *rows[:3], h, c, elapsed, seed, text, trace, recompute, *weights)
    else:
        found = _forward(x, *rows[:3], h, c, weights, elapsed, seed, text, False, trace, 0)
    y, h, c, _, traced = found
    return Result(y, h, c, traced if trace else None)


_WRITTEN: dict[CellSpec, str] = {}


def written(spec: CellSpec) -> str:
    """torch.compile asks once and keeps the answer in its graph; it would look behind an lru_cache."""
    if spec not in _WRITTEN:
        _WRITTEN[spec] = json.dumps(asdict(spec))
    return _WRITTEN[spec]


# As torch.compiler.assume_constant_result marks it, which would import the compiler: 1.4 s at every start.
written._dynamo_marked_constant = True  # type: ignore[attr-defined]


@lru_cache(maxsize=256)
def _read(spec: str) -> CellSpec:
    return CellSpec(**json.loads(spec))


@lru_cache(maxsize=256)
def _plan(spec: str, dtype: torch.dtype, sizes: tuple[int, int, int, int]) -> _core.Plan:
    return plan_of(_read(spec), dtype, sizes)


def plan_of(cell: CellSpec, dtype: torch.dtype, sizes: tuple[int, int, int, int]) -> _core.Plan:
    """What stays from call to call; sizes are I, H, P, D."""
    return _core.Plan(
        TYPES[dtype],
        cell.bias,
        cell.peephole,
        cell.coupled,
        cell.layer_norm,
        cell.decay,
        cell.proj_size > 0,
        float(cell.cell_clip),
        float(cell.recurrent_dropout),
        float(cell.zoneout_c),
        float(cell.zoneout_h),
        *sizes,
    )


def _reserve_shape(
    spec: str, dtype: torch.dtype, rows: int, steps: int, sizes: tuple[int, int, int, int], recompute: int
) -> tuple[int, ...]:
    """As the core's header says, but for symbolic sizes too; a test holds both together. sizes are B, H, P, D."""
    sequences, hidden, _, directions = sizes
    cell, lanes = _read(spec), int(_core.lanes(TYPES[dtype]))
    units = (hidden + lanes - 1) // lanes * lanes
    if recompute:
        return directions, (steps + recompute - 1) // recompute, sequences, units
    gates = len(cell.gates) * units
    return directions, rows, gates + units + (2 * gates + lanes if cell.layer_norm else 0)


def _sizes(x: Tensor, h: Tensor, c: Tensor) -> tuple[int, int, int, int]:
    return x.shape[-1], c.shape[-1], h.shape[-1], h.shape[0]


def _draws(seed: Tensor | None) -> tuple[bool, int]:
    return (False, 0) if seed is None else (True, int(seed) % 2**64)


def _inputs(
    spec: CellSpec,
    x: Tensor,
    rows: Sequence[Tensor],
    h: Tensor,
    c: Tensor,
    weights: Sequence[Tensor],
    elapsed: Tensor | None,
    recompute: int,
) -> tuple[list[int], list[int], list[int], list[Tensor]]:
    """Dimensions, addresses of inputs and of weights; and the tensors to hold on to while these are used."""
    check(spec, x, rows, h, c, weights, elapsed)
    x, h, c = x.resolve_neg(), h.resolve_neg(), c.resolve_neg()
    if x.stride(-1) != 1 and x.shape[-1] > 1:
        x = x.contiguous()
    held = [x, *(t.contiguous() for t in (*rows, h, c))]
    gaps = [] if elapsed is None else [elapsed.resolve_neg().contiguous()]
    used = [w.resolve_neg().contiguous() for w in weights]
    dims = [x.shape[0], h.shape[1], rows[1].shape[0], x.stride(0), recompute]
    addresses = [t.data_ptr() for t in held] + [gaps[0].data_ptr() if gaps else 0]
    return dims, addresses, [w.data_ptr() for w in used], [*held, *gaps, *used]


def _forward(
    x: Tensor,
    first: Tensor,
    ahead: Tensor,
    lengths: Tensor,
    h: Tensor,
    c: Tensor,
    weights: list[Tensor],
    elapsed: Tensor | None,
    seed: Tensor | None,
    spec: str,
    keep: bool,
    trace: bool,
    recompute: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    plan = _plan(spec, x.dtype, _sizes(x, h, c))
    dims, addresses, used, held = _inputs(_read(spec), x, (first, ahead, lengths), h, c, weights, elapsed, recompute)
    out = _outputs(x, first, ahead, lengths, h, c, weights, elapsed, seed, spec, keep, trace, recompute)
    _core.forward(
        plan,
        dims,
        addresses,
        used,
        [t.data_ptr() if t.numel() else 0 for t in out],
        *_draws(seed),
        torch.get_num_threads(),
    )
    del held
    return out


def _outputs(
    x: Tensor,
    first: Tensor,
    ahead: Tensor,
    lengths: Tensor,
    h: Tensor,
    c: Tensor,
    weights: list[Tensor],
    elapsed: Tensor | None,
    seed: Tensor | None,
    spec: str,
    keep: bool,
    trace: bool,
    recompute: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Empty y, h, c, reserve and trace: what the operator returns, as far as shapes go."""
    n, d, hidden = x.shape[0], h.shape[0], c.shape[-1]
    sizes = h.shape[1], hidden, h.shape[-1], d
    kept = _reserve_shape(spec, x.dtype, n, ahead.shape[0], sizes, recompute) if keep else (0,)
    return (
        x.new_empty((n, d * h.shape[-1])),
        h.new_empty(h.shape),
        c.new_empty(c.shape),
        x.new_empty(kept, dtype=COMPUTED[x.dtype]),
        x.new_empty((5, d, n, hidden) if trace else (0,)),
    )


class _Layer(torch.autograd.Function):
    """`lstm_layer` without the operator's machinery around it; the derivative is the same."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        first: Tensor,
        ahead: Tensor,
        lengths: Tensor,
        h: Tensor,
        c: Tensor,
        elapsed: Tensor | None,
        seed: Tensor | None,
        spec: str,
        trace: bool,
        recompute: int,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        inputs = (x, first, ahead, lengths, h, c, list(weights), elapsed, seed, spec, True, trace, recompute)
        found = _forward(*inputs)
        _setup(ctx, inputs, found)
        return found

    @staticmethod
    def backward(ctx: Any, *of: Tensor | None) -> tuple[Any, ...]:
        x, *rows, h, c, weights, elapsed, seed, _, _, _, _ = _vjp(ctx, *of)
        return (x, *rows, h, c, elapsed, seed, None, None, None, *weights)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, first, ahead, lengths, h, c, weights, elapsed, seed, spec, _, _, recompute = inputs
    y, _, _, reserve, traced = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(reserve, traced)
    ctx.save_for_backward(x, first, ahead, lengths, h, c, elapsed, seed, y, reserve, *weights)
    ctx.spec, ctx.recompute = spec, recompute


def _watched(tensors: Sequence[Tensor | None]) -> bool:
    return torch.is_grad_enabled() or torch.compiler.is_compiling() or not plain(tensors)


def _vjp(ctx: Any, *of: Tensor | None) -> tuple[Any, ...]:
    of_y, of_h, of_c, _, _ = of
    x, first, ahead, lengths, h, c, elapsed, seed, y, reserve, *weights = ctx.saved_tensors
    if not torch.compiler.is_compiling() and transformed(of):
        refuse_vmap()
    backward = torch.ops.carousel.lstm_layer_backward if _watched((x, *of)) else _backward
    of_x, of_h0, of_c0, *rest = backward(
        torch.zeros_like(y) if of_y is None else of_y,
        torch.zeros_like(h) if of_h is None else of_h,
        torch.zeros_like(c) if of_c is None else of_c,
        *(x, first, ahead, lengths, h, c, weights, elapsed, seed, y, reserve, ctx.spec, ctx.recompute),
        ctx.needs_input_grad[0],
    )
    of_weights, of_elapsed = rest[: len(weights)], rest[len(weights) :]
    return (
        *(of_x if ctx.needs_input_grad[0] else None, None, None, None, of_h0, of_c0, of_weights),
        of_elapsed[0] if of_elapsed else None,
        *[None] * 5,
    )


def _backward(
    of_y: Tensor,
    of_h: Tensor,
    of_c: Tensor,
    x: Tensor,
    first: Tensor,
    ahead: Tensor,
    lengths: Tensor,
    h: Tensor,
    c: Tensor,
    weights: list[Tensor],
    elapsed: Tensor | None,
    seed: Tensor | None,
    y: Tensor,
    reserve: Tensor,
    spec: str,
    recompute: int,
    of_x: bool,
) -> list[Tensor]:
    plan = _plan(spec, x.dtype, _sizes(x, h, c))
    dims, addresses, used, held = _inputs(_read(spec), x, (first, ahead, lengths), h, c, weights, elapsed, recompute)
    d, batch, output = h.shape
    kept = _reserve_shape(spec, x.dtype, x.shape[0], ahead.shape[0], (batch, c.shape[-1], output, d), recompute)
    check_gradients(x, h, c, y, (of_y, of_h, of_c), reserve, kept)
    of_y = of_y.resolve_neg() if of_y.stride(-1) == 1 else of_y.resolve_neg().contiguous()
    of_h, of_c, y, reserve = (t.resolve_neg().contiguous() for t in (of_h, of_c, y, reserve))
    inputs = [x.new_empty((d, *x.shape) if of_x else (0,)), h.new_empty(h.shape), c.new_empty(c.shape)]
    found = [w.new_empty(w.shape) for w in weights]
    gaps = [] if elapsed is None else [elapsed.new_empty(elapsed.shape)]
    _core.backward(
        plan,
        dims,
        addresses,
        used,
        [t.data_ptr() for t in (reserve, y, of_y, of_h, of_c)],
        of_y.stride(0),
        [t.data_ptr() if t.numel() else 0 for t in inputs] + [gaps[0].data_ptr() if gaps else 0],
        [w.data_ptr() for w in found],
        *_draws(seed),
        torch.get_num_threads(),
    )
    del held
    if of_x:
        inputs[0] = inputs[0][0] if d == 1 else inputs[0].sum(0)
    return [*inputs, *found, *gaps]


def _gradients(
    of_y: Tensor,
    of_h: Tensor,
    of_c: Tensor,
    x: Tensor,
    first: Tensor,
    ahead: Tensor,
    lengths: Tensor,
    h: Tensor,
    c: Tensor,
    weights: list[Tensor],
    elapsed: Tensor | None,
    seed: Tensor | None,
    y: Tensor,
    reserve: Tensor,
    spec: str,
    recompute: int,
    of_x: bool,
) -> list[Tensor]:
    inputs = [x.new_empty(x.shape if of_x else (0,)), *(t.new_empty(t.shape) for t in (h, c, *weights))]
    return inputs if elapsed is None else [*inputs, elapsed.new_empty(elapsed.shape)]


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    of_y, of_h, of_c, x, first, ahead, lengths, h, c, weights, elapsed, seed, _, _, spec, _, of_x = inputs
    ctx.save_for_backward(of_y, of_h, of_c, x, first, ahead, lengths, h, c, elapsed, seed, *weights)
    ctx.spec, ctx.of_x = spec, of_x
    ctx.set_materialize_grads(False)


def _second(ctx: Any, of_gradients: list[Tensor | None]) -> tuple[Any, ...]:
    """The derivative of backward itself, through the reference backend."""
    of_y, of_h, of_c, x, first, ahead, lengths, h, c, elapsed, seed, *weights = ctx.saved_tensors
    higher = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = [t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in (x, h, c, *weights)]
        if elapsed is not None:
            inputs.append(elapsed.view_as(elapsed) if elapsed.requires_grad else elapsed.detach().requires_grad_())
        upstream = [t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in (of_y, of_h, of_c)]
        found = _reference(ctx.spec, inputs, (first, ahead, lengths), len(weights), seed)
        given = [(made, of) for made, of in zip(found, upstream, strict=True) if made.requires_grad]  # no rows, no y
        of_inputs = torch.autograd.grad(
            [made for made, _ in given], inputs, [of for _, of in given], create_graph=True, allow_unused=True
        )
        pairs = [
            (g, of)
            for g, of, wanted in zip(of_inputs, of_gradients, [ctx.of_x] + [True] * (len(inputs) - 1), strict=True)
            if g is not None and of is not None and wanted and g.requires_grad
        ]
        back = torch.autograd.grad(
            [g for g, _ in pairs],
            [*upstream, *inputs],
            [of for _, of in pairs],
            create_graph=higher,
            allow_unused=True,
        )
    of_weights = list(back[6 : 6 + len(weights)])
    return (
        *back[:4],
        None,
        None,
        None,
        back[4],
        back[5],
        of_weights,
        back[6 + len(weights)] if elapsed is not None else None,
        *[None] * 6,
    )


def _reference(
    spec: str, inputs: list[Tensor], rows: tuple[Tensor, Tensor, Tensor], count: int, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    x, h, c, *rest = inputs
    cell = _read(spec)
    names = list(cell.shapes(x.shape[-1], c.shape[-1]))
    weights = rest[:count]
    directions = tuple(dict(zip(names, weights[k : k + len(names)], strict=True)) for k in range(0, count, len(names)))
    elapsed = rest[count] if len(rest) > count else None
    call = Call(x, Rows(*rows, False, False), h, c, directions, elapsed, seed, False, 0)
    result: Result = load("reference").run(cell, call)
    return result[:3]


def _check_autocast() -> None:
    if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is not torch.bfloat16:
        raise NotSupported(
            f"autocast to {torch.get_autocast_dtype('cpu')} is not computed by the native backend: use "
            "torch.autocast('cpu', torch.bfloat16), or backend='aten'."
        )


def refuse_vmap(*_: Any) -> Any:
    raise NotSupported(
        "torch.func.vmap over an LSTM is not supported by the native backend, which sees plain memory; "
        "put the mapped dimension into the batch, or use backend='reference'."
    )


_LIBRARY: Any = torch.library.Library("carousel", "DEF")
_ROWS = (
    "Tensor x, Tensor first, Tensor ahead, Tensor lengths, Tensor h, Tensor c, Tensor[] weights, "
    "Tensor? elapsed, Tensor? seed"
)
_LIBRARY.define(
    f"lstm_layer({_ROWS}, str spec, bool keep, bool trace, int recompute) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    f"lstm_layer_backward(Tensor of_y, Tensor of_h, Tensor of_c, {_ROWS}, Tensor y, Tensor reserve, str spec, "
    "int recompute, bool of_x) -> Tensor[]"
)
_LIBRARY.impl("lstm_layer", _forward, "CPU")
_LIBRARY.impl("lstm_layer_backward", _backward, "CPU")
torch.library.register_fake("carousel::lstm_layer", _outputs, lib=_LIBRARY)
torch.library.register_fake("carousel::lstm_layer_backward", _gradients, lib=_LIBRARY)
torch.library.register_autograd("carousel::lstm_layer", _vjp, setup_context=_setup, lib=_LIBRARY)
torch.library.register_autograd("carousel::lstm_layer_backward", _second, setup_context=_setup_backward, lib=_LIBRARY)
for _name in ("carousel::lstm_layer", "carousel::lstm_layer_backward"):
    torch.library.register_vmap(_name, refuse_vmap, lib=_LIBRARY)
torch.library.register_autocast("carousel::lstm_layer", "cpu", torch.bfloat16, lib=_LIBRARY)
