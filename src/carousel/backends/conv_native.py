"""The C++ core, for convolutional layers on the CPU: forward, and backward through the states.

For backward every place of every frame keeps its gates, cell state and output, 6 H numbers in float32 or float64, and
with layer norm 8 H more. Where the core filters by Winograd's tiles it gives all gradients. Elsewhere backward needs
4 H numbers more for a while, and the gradients of the matrices are convolutions of all frames at once, which torch
does. A second derivative goes through the reference.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from carousel import _core
from carousel.backends import Rows
from carousel.backends.conv import ConvCall, ConvResult, Window, load
from carousel.backends.operands import refuse_transforms
from carousel.cell import CellSpec

__all__ = ["run", "supports"]

TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2}


def supports(spec: CellSpec, device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cpu":
        return "it runs on the CPU"
    if dtype not in TYPES:
        return "it computes float32, float64 and bfloat16"
    return None


class _Fixed(NamedTuple):
    """What is no tensor that wants a gradient."""

    spec: CellSpec
    window: Window
    rows: Rows
    names: tuple[str, ...]


@torch.compiler.disable  # type: ignore[untyped-decorator]
def run(spec: CellSpec, call: ConvCall) -> ConvResult:
    fixed = _Fixed(spec, call.window, call.rows, tuple(call.weights))
    operands = (call.x, call.h, call.c, *call.weights.values())
    refuse_transforms(operands)
    if torch.is_grad_enabled() and any(t.requires_grad for t in operands):
        apply: Any = _Layer.apply
        y, h, c = apply(fixed, *operands)
    else:
        y, h, c, _ = _forward(fixed, operands, keep=False)
    return ConvResult(*(t.permute(0, 3, 1, 2) for t in (y, h, c)))


def _places(frames: Tensor) -> Tensor:
    """[N, C, height, width] -> [N, height, width, C], contiguous: a view of what lies channels last."""
    return frames.permute(0, 2, 3, 1).contiguous()


def _frames(places: Tensor) -> Tensor:
    """The way back, as a view. Strides are spelt out, because torch goes by those of axes of length 1 as well."""
    n, height, width, channels = places.shape
    strides = (height * width * channels, 1, width * channels, channels)
    return places.as_strided((n, channels, height, width), strides)


@lru_cache(maxsize=256)
def _plan(spec: CellSpec, dtype: torch.dtype, input_size: int, hidden_size: int, window: Window) -> _core.ConvPlan:
    sizes = [n for pair in window for n in pair]
    flags = (spec.bias, spec.peephole, spec.coupled, spec.layer_norm, float(spec.cell_clip))
    return _core.ConvPlan(TYPES[dtype], *flags, input_size, hidden_size, sizes)


class _Inputs(NamedTuple):
    """What the core reads; the tensors must live as long as their addresses are in use."""

    plan: _core.ConvPlan
    dims: list[int]
    held: list[Tensor]  # x, first, ahead, lengths, h, c
    weights: list[Tensor]

    @property
    def addresses(self) -> tuple[list[int], list[int]]:
        return [t.data_ptr() for t in self.held], [t.data_ptr() for t in self.weights]


def _inputs(fixed: _Fixed, x: Tensor, h: Tensor, c: Tensor, weights: tuple[Tensor, ...]) -> _Inputs:
    _check(fixed, x, h, c, weights)
    rows = [t.contiguous() for t in fixed.rows[:3]]
    held = [_places(x), *rows, _places(h), _places(c)]
    used = [_places(w) if w.dim() == 4 else w.contiguous() for w in weights]
    dims = [x.shape[0], h.shape[0], rows[1].shape[0], *x.shape[2:], *h.shape[2:]]
    return _Inputs(_plan(fixed.spec, x.dtype, x.shape[1], h.shape[1], fixed.window), dims, held, used)


def _check(fixed: _Fixed, x: Tensor, h: Tensor, c: Tensor, weights: tuple[Tensor, ...]) -> None:
    """RuntimeError, before an address leaves torch, where a tensor is not what the others imply."""
    hidden, places = h.shape[1], fixed.window.places(*x.shape[2:])
    shapes = fixed.spec.shapes(x.shape[1], hidden)
    expected = [shape + fixed.window.kernel * (len(shape) == 2) for shape in shapes.values()]
    batch = fixed.rows.first.shape[0]
    wanted: list[tuple[str, Tensor, tuple[int, ...]]]
    wanted = [("h", h, (batch, hidden, *places)), ("c", c, (batch, hidden, *places))]
    wanted += [(name, t, shape) for name, t, shape in zip(fixed.names, weights, expected, strict=True)]
    for name, t, shape in wanted:
        if tuple(t.shape) != shape or t.dtype is not x.dtype or not t.is_cpu or t.layout is not torch.strided:
            raise RuntimeError(
                f"{name} must be {list(shape)} of {x.dtype} on the CPU, got {list(t.shape)} of {t.dtype}"
            )


def _forward(fixed: _Fixed, operands: tuple[Tensor, ...], keep: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, h and c, channels last, and what backward needs."""
    x, h, c, *weights = operands
    inputs = _inputs(fixed, x, h, c, tuple(weights))
    height, width = h.shape[2:]
    y, last_h, last_c = (x.new_empty(n, height, width, h.shape[1]) for n in (x.shape[0], h.shape[0], h.shape[0]))
    kept = (x.shape[0], height, width, _core.conv_reserve_width(inputs.plan)) if keep else (0,)
    reserve = x.new_empty(kept, dtype=torch.float64 if x.dtype is torch.float64 else torch.float32)
    out = [t.data_ptr() if t.numel() else 0 for t in (y, last_h, last_c, reserve)]
    _core.conv_forward(inputs.plan, inputs.dims, *inputs.addresses, out, torch.get_num_threads())
    return y, last_h, last_c, reserve


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fixed: _Fixed, *operands: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, h, c, reserve = _forward(fixed, operands, keep=True)
        ctx.save_for_backward(*operands, y, reserve)
        ctx.fixed = fixed
        return y, h, c

    @staticmethod
    def backward(ctx: Any, *of: Tensor) -> tuple[Tensor | None, ...]:
        *operands, y, reserve = ctx.saved_tensors
        apply: Any = _Backward.apply
        needs = ctx.needs_input_grad[1:]
        return (None, *apply(ctx.fixed, needs, reserve.detach(), y.detach(), *of, *operands))


class _Backward(torch.autograd.Function):
    """Backward, as a function that can be differentiated again."""

    @staticmethod
    def forward(
        ctx: Any, fixed: _Fixed, needs: tuple[bool, ...], reserve: Tensor, y: Tensor, *rest: Tensor
    ) -> tuple[Tensor | None, ...]:
        of, operands = rest[:3], rest[3:]
        ctx.save_for_backward(*rest)
        ctx.fixed, ctx.needs = fixed, needs
        return _gradients(fixed, needs, reserve, y, of, operands)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *of: Tensor | None) -> tuple[Tensor | None, ...]:
        return (None, None, None, None, *_second(ctx.fixed, ctx.needs, ctx.saved_tensors, of))


def _gradients(
    fixed: _Fixed,
    needs: tuple[bool, ...],
    reserve: Tensor,
    y: Tensor,
    of: tuple[Tensor, ...],
    operands: tuple[Tensor, ...],
) -> tuple[Tensor | None, ...]:
    x, h, c, *weights = operands
    inputs = _inputs(fixed, x, h, c, tuple(weights))
    of_y, of_h, of_c = (t.contiguous() for t in of)  # channels last already
    n, height, width, hidden = y.shape
    whole = _core.conv_gives_matrices(inputs.plan, height, width)  # then nobody needs the gradients of W x and of U h
    gates = 0 if whole else len(fixed.spec.gates) * hidden
    of_z = [y.new_empty(n, height, width, gates) for _ in range(1 + fixed.spec.layer_norm)]
    of_h0, of_c0 = torch.empty_like(of_h), torch.empty_like(of_c)
    by_core = needs[0] and not fixed.spec.layer_norm and fixed.window[1:] == ((1, 1), (1, 1))
    of_x: Tensor = torch.empty_like(inputs.held[0]) if by_core else y.new_empty(0)
    found = [torch.empty_like(w) for w in inputs.weights]
    _core.conv_backward(
        inputs.plan,
        inputs.dims,
        *inputs.addresses,
        [t.data_ptr() for t in (reserve, of_y, of_h, of_c, y)],
        [t.data_ptr() if t.numel() else 0 for t in (of_z[0], of_z[-1], of_h0, of_c0, of_x)],
        [w.data_ptr() for w in found],
        torch.get_num_threads(),
    )
    of_x = _frames(of_x) if by_core else x.new_empty(0)
    if whole:
        of_weights = [_frames(w) if w.dim() == 4 else w for w in found]
    else:
        w_ih, w_hh = (w.contiguous(memory_format=torch.channels_last) for w in weights[:2])
        frames, need_x = _frames(inputs.held[0]), needs[0] and not by_core
        made, of_ih = _convolution(_frames(of_z[0]), frames, w_ih, fixed.window, need_x, needs[3])
        of_x = made if need_x else of_x
        of_hh = _recurrent(fixed, _frames(of_z[-1]), _frames(y), _frames(inputs.held[4]), w_hh) if needs[4] else w_hh
        of_weights = [of_ih, of_hh, *found[2:]]
    every = [of_x, _frames(of_h0), _frames(of_c0), *of_weights]
    return tuple(t if needed else None for t, needed in zip(every, needs, strict=True))


def _convolution(
    of: Tensor, x: Tensor, weight: Tensor, window: Window, need_x: bool, need_weight: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of the frames and of the weight, from those of W x, over all frames at once."""
    if not x.shape[0] or not (need_x or need_weight):
        return torch.zeros_like(x), torch.zeros_like(weight)
    mask = [need_x, need_weight, False]
    padding, dilation = list(window.padding), list(window.dilation)
    of_x, of_weight, _ = torch.ops.aten.convolution_backward(
        of, x, weight, None, list(window.stride), padding, dilation, False, [0, 0], 1, mask
    )
    return of_x, of_weight


def _recurrent(fixed: _Fixed, of: Tensor, y: Tensor, h: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the recurrent weight: every step sees the output of the step before, the first one h."""
    rows, batch = fixed.rows, h.shape[0]
    window = Window(fixed.window.kernel, (1, 1), (1, 1))
    if not y.shape[0]:
        return torch.zeros_like(weight)
    if rows.dense and rows.time_major:
        found = _convolution(of[:batch], h, weight, window, False, True)[1]
        return found + _convolution(of[batch:], y[:-batch], weight, window, False, True)[1]
    begun = rows.lengths > 0
    first = rows.first[begun]
    found = _convolution(of[first], h[begun], weight, window, False, True)[1]
    t = torch.arange(1, rows.ahead.shape[0])
    later = t[None, :] < rows.lengths[:, None]  # [B, T - 1]
    now, before = ((rows.first[:, None] + rows.ahead[None, s])[later] for s in (t, t - 1))
    return found + _convolution(of[now], y[before], weight, window, False, True)[1]


def _second(
    fixed: _Fixed, needs: tuple[bool, ...], saved: tuple[Tensor, ...], of_gradients: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    """The derivative of backward itself, through the reference."""
    with torch.enable_grad():
        leaves = [t.detach().requires_grad_() for t in saved]
        of, (x, h, c, *weights) = leaves[:3], leaves[3:]
        call = ConvCall(x, fixed.rows, h, c, dict(zip(fixed.names, weights, strict=True)), fixed.window)
        made = [t.permute(0, 2, 3, 1) for t in load("reference").run(fixed.spec, call)]
        pairs = [(t, g) for t, g in zip(made, of, strict=True) if t.requires_grad]
        inputs = [t for t, needed in zip(leaves[3:], needs, strict=True) if needed]
        first = torch.autograd.grad(
            [t for t, _ in pairs], inputs, [g for _, g in pairs], create_graph=True, allow_unused=True
        )
        given = [g for g, needed in zip(of_gradients, needs, strict=True) if needed]
        both = [
            (a, g) for a, g in zip(first, given, strict=True) if a is not None and g is not None and a.requires_grad
        ]
        if not both:
            return tuple(None for _ in saved)
        return torch.autograd.grad([a for a, _ in both], leaves, [g for _, g in both], allow_unused=True)
