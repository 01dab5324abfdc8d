"""`LSTM` and `LSTMCell`: torch.nn's, with every variant. Layers, directions, dropout and lengths; no maths.

The equations stand in `cell.py`; what computes them stands behind `backends`.
"""

from __future__ import annotations

import numbers
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from carousel import backends
from carousel.backends import Call, direct
from carousel.cell import CellSpec
from carousel.interchange import Interchange
from carousel.layout import Layout, flat_gaps, layout_of, reversed_gaps
from carousel.lstmcell import LSTMCell
from carousel.ragged import Ragged
from carousel.recurrent import Recurrent, check_input_dtype, check_sizes, check_state

__all__ = ["LSTM", "LSTMCell", "Trace", "check_arguments"]


class Trace(NamedTuple):
    """The activated gates and the carried cell state of every step, without gradient.

    Each is [L, D, T, B, H], or [L, D, B, T, H] with batch_first, [L, D, T, H] for unbatched input, and
    [L, D, N, H] in the rows' own order for PackedSequence and Ragged; L layers, D directions.
    """

    i: Tensor
    f: Tensor
    g: Tensor
    o: Tensor
    c: Tensor


class LSTM(Interchange, Recurrent):
    """torch.nn.LSTM with every variant, ragged batches, and every gate visible.

    The positional arguments, their defaults, shapes and errors, the initial weights and the `state_dict` are
    torch.nn.LSTM's. The keywords are the fields of CellSpec, which names their sources, and

    - forget_bias: added to the forget gates' bias_ih at the start (Gers et al. 2000; 1.0 is common);
    - recompute: 0, or keep states only every so many steps and work the gates out again in backward;
    - backend: "auto", or one of carousel.backends.BACKENDS.

    Weights that torch lacks have names after the same pattern: weight_ch_l0 [3H] of peepholes (i, f, o),
    norm_ih_l0 [4H], norm_hh_l0 [4H], norm_c_l0 [H] and norm_bias_c_l0 [H] of layer norm, decay_rate_l0 [H] (before
    softplus). With `coupled` there is no input gate: 4H is 3H, and 3H is 2H.

    Raises ValueError, TypeError and RuntimeError where torch.nn.LSTM does; carousel.CarouselError (a ValueError)
    for what only we have; NotSupported with the reasons where no backend computes the combination.

    >>> import carousel, torch
    >>> lstm = carousel.LSTM(3, 5, num_layers=2, peephole=True, forget_bias=1.0)
    >>> out, (h, c) = lstm(torch.zeros(7, 2, 3))
    >>> out.shape, h.shape
    (torch.Size([7, 2, 5]), torch.Size([2, 2, 5]))
    """

    mode = "LSTM"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        peephole: bool = False,
        coupled: bool = False,
        layer_norm: bool = False,
        decay: bool = False,
        cell_clip: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout_c: float = 0.0,
        zoneout_h: float = 0.0,
        weight_drop: float = 0.0,
        forget_bias: float | None = None,
        recompute: int = 0,
        backend: str = "auto",
    ) -> None:
        check_arguments(num_layers, batch_first, dropout, recompute)
        check_sizes(input_size, hidden_size, bias, proj_size)
        spec = CellSpec(
            bias=bias,
            peephole=peephole,
            coupled=coupled,
            layer_norm=layer_norm,
            decay=decay,
            proj_size=proj_size,
            cell_clip=cell_clip,
            recurrent_dropout=recurrent_dropout,
            zoneout_c=zoneout_c,
            zoneout_h=zoneout_h,
            weight_drop=weight_drop,
        )
        super().__init__(input_size, hidden_size, spec, forget_bias, backend)
        self.num_layers, self.batch_first, self.dropout = num_layers, batch_first, float(dropout)
        self.bidirectional, self.recompute = bool(bidirectional), recompute
        for layer in range(num_layers):
            width = input_size if layer == 0 else self._directions * spec.output_size(hidden_size)
            for d in range(self._directions):
                self._register(_suffix(layer, d), width, device, dtype)
        self._flat_names = [
            [name + _suffix(layer, d) for d in range(self._directions) for name in self._names]
            for layer in range(num_layers)
        ]
        self.reset_parameters()

    @property
    def proj_size(self) -> int:
        return self.spec.proj_size

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _suffixes(self) -> list[str]:
        return [_suffix(layer, d) for layer in range(self.num_layers) for d in range(self._directions)]

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of each layer and direction, in torch's order."""
        return [[self._weight(name + suffix) for name in self._names] for suffix in self._suffixes()]

    def flatten_parameters(self) -> None:
        """Nothing to do: backends repack privately. It is here because callers of torch.nn.LSTM call it."""

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        defaults = {"proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0}
        defaults |= {"bidirectional": False, "recompute": 0}
        for name, default in defaults.items():
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text + self._variant_repr()

    def forward(
        self,
        input: Tensor | PackedSequence | Ragged,
        hx: tuple[Tensor, Tensor] | None = None,
        *,
        elapsed: Tensor | PackedSequence | Ragged | None = None,
        trace: bool = False,
    ) -> Any:
        """`out, (h, c)`, as torch.nn.LSTM gives them; with trace=True `out, (h, c), Trace`.

        input: [T, B, I], [B, T, I] with batch_first, [T, I], a PackedSequence, or a Ragged of values [N, I]; `out`
        is of the same kind with features D * P. hx: h [L * D, B, P] and c [L * D, B, H], without B for unbatched input.
        elapsed, with decay: what went by since the previous row (any unit, never negative), one number a row:
        the input's shape or kind without its features; the first gap counts from the initial state.
        """
        if elapsed is None and not trace:
            found = self._directly(input, hx)
            if found is not None:
                return found
        self.check_elapsed(elapsed)
        layout = layout_of(input, self.batch_first)
        self._check_input(layout.x)
        h, c = self._states(layout, hx)
        gaps = None if elapsed is None else self._gaps(elapsed, input, layout)
        y, h, c, traces = self._layers(layout, h, c, gaps, trace)
        if not layout.batched:
            h, c = h.squeeze(1), c.squeeze(1)
        if not trace:
            return layout.wrap(y), (h, c)
        stacked = torch.stack(traces, 1)  # [5, L, D, N, H]
        shape = (*stacked.shape[1:3], *layout.shape, self.hidden_size)
        return layout.wrap(y), (h, c), Trace(*(part.reshape(shape) for part in stacked))

    def _directly(self, given: Any, hx: tuple[Tensor, Tensor] | None) -> Any:
        """An eager call on ordinary operands, without layouts and operators; None where it is not one."""
        if not direct.quiet() or self.backend not in ("auto", "native") or self.recompute or self.spec.decay:
            return None
        is_ragged, training, directions = type(given) is Ragged, self.training, self._directions
        x = given.values if is_ragged else given
        if (training and self.spec.weight_drop) or not isinstance(x, Tensor) or not direct.ordinary(x, x.dtype):
            return None
        shape = x.shape
        if not x.numel() or shape[-1] != self.input_size or len(shape) not in ((2,) if is_ragged else (2, 3)):
            return None
        batched = is_ragged or len(shape) == 3
        if is_ragged:
            place = direct.ragged(given.offsets, given.longest)
        elif batched:
            place = direct.dense(shape[1], shape[0], False) if self.batch_first else direct.dense(*shape[:2], True)
        else:
            place = direct.dense(shape[0], 1, True)
        h, c = hx if hx is not None else (None, None)
        if hx is not None:
            if not self._ordinary_states(h, c, x, place.batch, batched):
                return None
            h, c = hx if batched else (t.unsqueeze(1) for t in hx)
        spec, width, layers = self._running_spec(), self.input_size, []
        for names in self._flat_names:
            weights: list[Any] = [self._parameters.get(name) for name in names]
            fixed = direct.fit(spec, x.dtype, width, self.hidden_size, directions, weights)
            if fixed is None:
                return None
            layers.append((fixed, weights))
            width = directions * fixed.output
        drawn = self._seed(x.device)
        seed = None if drawn is None else int(drawn)
        y, last = x, []
        for k, (fixed, weights) in enumerate(layers):
            if k and self.dropout and training:
                y = F.dropout(y, self.dropout)
            here = slice(k * directions, (k + 1) * directions)
            h_here, c_here = (t if t is None or len(layers) == 1 else t[here] for t in (h, c))
            y, *ends = direct.layer(fixed, y, place, h_here, c_here, weights, None if seed is None else seed + 2 * k)
            last.append(ends)
        h, c = last[0] if len(layers) == 1 else [torch.cat(ends) for ends in zip(*last, strict=True)]
        if not batched:
            h, c = h.squeeze(1), c.squeeze(1)
        return given.with_values(y) if is_ragged else y, (h, c)

    def _ordinary_states(self, h: Any, c: Any, x: Tensor, batch: int, batched: bool) -> bool:
        count, sizes = self.num_layers * self._directions, (self.spec.output_size(self.hidden_size), self.hidden_size)
        middle = (batch,) if batched else ()
        return all(
            direct.ordinary(t, x.dtype) and t.shape == (count, *middle, size)
            for t, size in zip((h, c), sizes, strict=True)
        )

    def _layers(
        self, layout: Layout, h: Tensor, c: Tensor, gaps: Tensor | None, trace: bool
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        x, spec, directions = layout.x, self._running_spec(), self._directions
        seed = self._seed(x.device)
        last_h, last_c, traces = [], [], []
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training:
                x = F.dropout(x, self.dropout)
            here = slice(layer * directions, (layer + 1) * directions)
            made = backends.run(
                spec,
                Call(
                    x=x,
                    rows=layout.rows,
                    h=h[here],
                    c=c[here],
                    weights=tuple(self._weights(_suffix(layer, d)) for d in range(directions)),
                    elapsed=gaps,
                    seed=None if seed is None else seed + layer * 2,  # a direction adds its own 0 or 1
                    trace=trace,
                    recompute=self.recompute,
                ),
                self.backend,
            )
            x = made.y
            last_h.append(made.h)
            last_c.append(made.c)
            if made.trace is not None:
                traces.append(made.trace)
        if self.num_layers == 1:
            return x, last_h[0], last_c[0], traces
        return x, torch.cat(last_h), torch.cat(last_c), traces

    def _check_input(self, x: Tensor) -> None:
        check_input_dtype(x, self._weight("weight_ih_l0"))
        if x.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {x.shape[-1]}"
            )

    def _states(self, layout: Layout, hx: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Checked and batched h [L * D, B, P] and c [L * D, B, H]."""
        count = self.num_layers * self._directions
        sizes = (self.spec.output_size(self.hidden_size), self.hidden_size)
        if hx is None:
            h, c = (layout.x.new_zeros(count, layout.batch, size) for size in sizes)
            return h, c
        h, c = hx
        wanted, kind = (3, "batched 3-D") if layout.batched else (2, "unbatched 2-D")
        if h.dim() != wanted or c.dim() != wanted:
            raise RuntimeError(
                f"For {kind} input, hx and cx should also be {wanted}-D but got ({h.dim()}-D, {c.dim()}-D) tensors"
            )
        if not layout.batched:
            h, c = h.unsqueeze(1), c.unsqueeze(1)
        for k, (state, size) in enumerate(zip((h, c), sizes, strict=True)):
            expected = (count, layout.batch, size)
            if tuple(state.shape) != expected:
                raise RuntimeError(f"Expected hidden[{k}] size {expected}, got {list(state.shape)}")
            check_state(f"hidden[{k}]", state, layout.x)
        return h, c

    def _gaps(self, elapsed: Any, given: Any, layout: Layout) -> Tensor:
        gaps = flat_gaps(elapsed, given, layout)
        return torch.stack([gaps, reversed_gaps(gaps, layout.rows)]) if self.bidirectional else gaps[None]


def _suffix(layer: int, direction: int) -> str:
    return f"_l{layer}" + ("_reverse" if direction else "")


def check_arguments(num_layers: int, batch_first: bool, dropout: float, recompute: int) -> None:
    """With torch's exceptions and words where torch has them."""
    if not isinstance(dropout, numbers.Number) or isinstance(dropout, bool) or not 0 <= dropout <= 1:
        raise ValueError(
            "dropout should be a number in range [0, 1] representing the probability of an element being zeroed"
        )
    if dropout > 0 and num_layers == 1:
        warnings.warn(
            "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
            f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}",
            stacklevel=3,
        )
    if not isinstance(batch_first, bool):
        raise TypeError(f"batch_first should be of type bool, got: {type(batch_first).__name__}")
    if num_layers <= 0:
        raise ValueError("num_layers must be greater than zero")
    if not isinstance(recompute, int) or isinstance(recompute, bool) or recompute < 0:
        raise ValueError(f"recompute must be a whole number >= 0 of steps, got {recompute!r}")
