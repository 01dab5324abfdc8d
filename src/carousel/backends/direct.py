"""The native core without what torch lays around an operator, for eager calls on ordinary tensors.

A call of one step spends more time on views, index tensors and operators than on its sums. `quiet` says whether
nobody watches (a compiler, a tracer, a transform, a mode, autocast); `fit` and `ordinary` whether the operands are of
the usual kind. Where not, the operators compute the call, or say what is wrong with it. Results are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from carousel import _core
from carousel.backends.native import COMPUTED, TYPES, plan_of, refuse_vmap, written
from carousel.backends.operands import transformed
from carousel.cell import CellSpec

__all__ = ["Fixed", "Place", "dense", "fit", "layer", "ordinary", "quiet", "ragged"]

_KINDS = (Tensor, torch.nn.Parameter)
_C: Any = torch._C
_FUNCTORCH: Any = torch._C._functorch


class Place(NamedTuple):
    """Rows as the core takes them, with their addresses; the tensors are held as long as this is."""

    first: Tensor
    ahead: Tensor
    lengths: Tensor
    addresses: tuple[int, int, int]
    batch: int
    steps: int


@lru_cache(maxsize=256)
def dense(steps: int, batch: int, time_major: bool) -> Place:
    """Every sequence has every step."""
    with torch.inference_mode(False):  # kept for calls that autograd sees
        b, t = torch.arange(batch), torch.arange(steps)
        first, ahead = (b, t * batch) if time_major else (b * steps, t)
        return _place(first, ahead, torch.full_like(b, steps))


def ragged(offsets: Tensor, longest: int) -> Place:
    """Sequences one after another, as Ragged holds them."""
    return _place(offsets[:-1], dense(longest, 1, True).ahead, offsets.diff())


def _place(first: Tensor, ahead: Tensor, lengths: Tensor) -> Place:
    first = first.contiguous()
    addresses = first.data_ptr(), ahead.data_ptr(), lengths.data_ptr()
    return Place(first, ahead, lengths, addresses, first.shape[0], ahead.shape[0])


def quiet() -> bool:
    """Whether nobody looks on but autograd."""
    return not (
        torch.compiler.is_compiling()
        or _C._len_torch_dispatch_stack()
        or _C._len_torch_function_stack()
        or torch.is_autocast_enabled("cpu")
        or torch._ops._len_torch_dispatch_stack_pre_dispatch()
        or _C._get_tracing_state() is not None
        or _FUNCTORCH.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )


def ordinary(t: Any, dtype: torch.dtype) -> bool:
    """A tensor whose address may be handed on as it is."""
    return (
        type(t) in _KINDS
        and t.dtype is dtype
        and t.is_cpu
        and t.layout is torch.strided
        and t.is_contiguous()
        and not t.is_neg()
    )


class Fixed(NamedTuple):
    """What follows from the cell, the type and the sizes."""

    spec: CellSpec
    plan: Any
    shapes: tuple[tuple[int, ...], ...]  # of the weights, direction after direction
    size: int
    hidden: int
    output: int
    directions: int
    kept: int  # numbers that forward leaves for backward, a row and direction
    computed: torch.dtype


@lru_cache(maxsize=256)
def _fixed(spec: CellSpec, dtype: torch.dtype, size: int, hidden: int, directions: int) -> Fixed:
    output = spec.output_size(hidden)
    plan = plan_of(spec, dtype, (size, hidden, output, directions))
    shapes = tuple(spec.shapes(size, hidden).values()) * directions
    kept = int(_core.reserve_width(plan))
    return Fixed(spec, plan, shapes, size, hidden, output, directions, kept, COMPUTED[dtype])


_ZEROS: dict[torch.dtype, Tensor] = {}


def _zeros(count: int, dtype: torch.dtype) -> Tensor:
    """At least so many zeros, which nobody writes to and no caller sees."""
    found = _ZEROS.get(dtype)
    if found is None or found.shape[0] < count:
        with torch.inference_mode(False):
            found = _ZEROS[dtype] = torch.zeros(max(count, 1024), dtype=dtype)
    return found


class _Call(NamedTuple):
    """One call's plain numbers, for forward and backward alike."""

    fixed: Fixed
    place: Place
    zeros: Tensor  # that stand for the states where none are given
    seed: int | None

    def inputs(self, x: Tensor, h: Tensor | None, c: Tensor | None) -> tuple[list[int], list[int]]:
        """Dimensions, and the addresses of the inputs; no recompute, no elapsed times."""
        size, place, zeros = self.fixed.size, self.place, self.zeros.data_ptr()
        states = [zeros if t is None else t.data_ptr() for t in (h, c)]
        dims = [x.numel() // size, place.batch, place.steps, size, 0]
        return dims, [x.data_ptr(), *place.addresses, *states, 0]

    @property
    def draws(self) -> tuple[bool, int]:
        return (False, 0) if self.seed is None else (True, self.seed % 2**64)


def fit(
    spec: CellSpec, dtype: torch.dtype, size: int, hidden: int, directions: int, weights: Sequence[Any]
) -> Fixed | None:
    """What stays from call to call for a layer with these weights, direction after direction; None where one is
    not an ordinary tensor of its shape."""
    if dtype not in TYPES:
        return None
    fixed = _fixed(spec, dtype, size, hidden, directions)
    if len(weights) != len(fixed.shapes):
        return None
    for w, shape in zip(weights, fixed.shapes, strict=True):
        if not ordinary(w, dtype) or w.shape != shape:
            return None
    return fixed


def layer(
    fixed: Fixed,
    x: Tensor,
    place: Place,
    h: Tensor | None,
    c: Tensor | None,
    weights: Sequence[Tensor],
    seed: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer on ordinary operands: x [..., I] whose rows lie as `place` says, h [D, B, P] and c [D, B, H], or None
    for zeros. y [..., D * P], h [D, B, P] and c [D, B, H]."""
    call = _Call(fixed, place, _zeros(fixed.directions * place.batch * fixed.hidden, x.dtype), seed)
    if not torch.is_grad_enabled() or not any(t is not None and t.requires_grad for t in (x, h, c, *weights)):
        return _forward(call, x, h, c, weights, 0)
    apply: Any = _Layer.apply
    found: tuple[Tensor, Tensor, Tensor] = apply(call, x, h, c, *weights)
    return found


def _forward(
    call: _Call, x: Tensor, h: Tensor | None, c: Tensor | None, weights: Sequence[Tensor], reserve: int
) -> tuple[Tensor, Tensor, Tensor]:
    fixed, batch = call.fixed, call.place.batch
    width = fixed.directions * fixed.output
    y = torch.empty_like(x) if width == fixed.size else x.new_empty((*x.shape[:-1], width))
    last_h = x.new_empty((fixed.directions, batch, fixed.output))
    last_c = x.new_empty((fixed.directions, batch, fixed.hidden))
    dims, addresses = call.inputs(x, h, c)
    _core.forward(
        fixed.plan,
        dims,
        addresses,
        [w.data_ptr() for w in weights],
        [y.data_ptr(), last_h.data_ptr(), last_c.data_ptr(), reserve, 0],
        *call.draws,
        torch.get_num_threads(),
    )
    return y, last_h, last_c


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, call: _Call, x: Tensor, h: Tensor | None, c: Tensor | None, *weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        fixed = call.fixed
        shape = fixed.directions, x.numel() // fixed.size, fixed.kept
        reserve = x.new_empty(shape, dtype=fixed.computed)
        found = _forward(call, x, h, c, weights, reserve.data_ptr())
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, h, c, found[0], reserve, *weights)
        ctx.call = call
        return found

    @staticmethod
    def backward(ctx: Any, *of: Tensor | None) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        x, h, c, y, reserve, *weights = ctx.saved_tensors
        if torch.is_grad_enabled() or not quiet() or not all(t is None or _plain(t, x.dtype) for t in of):
            return _through_the_operator(call, x, h, c, y, reserve, weights, of, ctx.needs_input_grad[1])
        return _backward(call, x, h, c, y, reserve, weights, of, ctx.needs_input_grad)


def _backward(
    call: _Call,
    x: Tensor,
    h: Tensor | None,
    c: Tensor | None,
    y: Tensor,
    reserve: Tensor,
    weights: Sequence[Tensor],
    of: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    fixed, batch = call.fixed, call.place.batch
    of_y, of_h, of_c = (None if t is None else t.contiguous() for t in of)
    zeros = call.zeros.data_ptr()
    of_x = x.new_empty((fixed.directions, *x.shape)) if wanted[1] else None
    of_h0 = x.new_empty((fixed.directions, batch, fixed.output))
    of_c0 = x.new_empty((fixed.directions, batch, fixed.hidden))
    found = [torch.empty_like(w) for w in weights]
    dims, addresses = call.inputs(x, h, c)
    _core.backward(
        fixed.plan,
        dims,
        addresses,
        [w.data_ptr() for w in weights],
        [reserve.data_ptr(), y.data_ptr(), *(zeros if t is None else t.data_ptr() for t in (of_y, of_h, of_c))],
        0 if of_y is None else y.shape[-1],
        [0 if of_x is None else of_x.data_ptr(), of_h0.data_ptr(), of_c0.data_ptr(), 0],
        [w.data_ptr() for w in found],
        *call.draws,
        torch.get_num_threads(),
    )
    if of_x is not None:
        of_x = of_x[0] if fixed.directions == 1 else of_x.sum(0)
    return None, of_x, *(t if want else None for t, want in zip((of_h0, of_c0, *found), wanted[2:], strict=True))


def _plain(t: Tensor, dtype: torch.dtype) -> bool:
    """Whether a gradient may be read after `contiguous`."""
    return type(t) is Tensor and t.dtype is dtype and t.is_cpu and t.layout is torch.strided and not (
        t.is_neg() or t._is_zerotensor() or _FUNCTORCH.is_batchedtensor(t) or _FUNCTORCH.is_legacy_batchedtensor(t)
    )  # fmt: skip


def _through_the_operator(
    call: _Call,
    x: Tensor,
    h: Tensor | None,
    c: Tensor | None,
    y: Tensor,
    reserve: Tensor,
    weights: Sequence[Tensor],
    of: Sequence[Tensor | None],
    of_x: bool,
) -> tuple[Tensor | None, ...]:
    """The same where somebody watches, as create_graph does."""
    if transformed(of):
        refuse_vmap()
    fixed, place = call.fixed, call.place
    given = h is not None, c is not None
    h = x.new_zeros(fixed.directions, place.batch, fixed.output) if h is None else h
    c = x.new_zeros(fixed.directions, place.batch, fixed.hidden) if c is None else c
    rows = x.reshape(-1, fixed.size), place.first, place.ahead, place.lengths
    flat = y.reshape(-1, y.shape[-1])
    of_y, of_h, of_c = (torch.zeros_like(t) if g is None else g for g, t in zip(of, (y, h, c), strict=True))
    seed = None if call.seed is None else torch.tensor(call.seed)
    found = torch.ops.carousel.lstm_layer_backward(
        of_y.reshape(flat.shape), of_h, of_c, *rows, h, c, list(weights), None, seed, flat, reserve,
        written(fixed.spec), 0, of_x,
    )  # fmt: skip
    states = (t if was else None for t, was in zip(found[1:3], given, strict=True))
    return None, found[0].view(x.shape) if of_x else None, *states, *found[3:]
