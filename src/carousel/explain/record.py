"""What the LSTMs inside any module do while it runs: their gates, and the states that gradients flow through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from carousel.cell import LAYER_NORM_EPS, NO_MASKS, CellSpec, Masks, step
from carousel.errors import CarouselError
from carousel.explain.twin import PlainRNN
from carousel.layout import flat_gaps, layout_of, reversed_gaps
from carousel.lstm import LSTM
from carousel.ragged import Ragged

__all__ = ["Layer", "Visit", "record", "recurrent", "watch"]

Singles = NDArray[np.float32]
Ints = NDArray[np.int64]


class Layer(NamedTuple):
    """One layer of an LSTM in one direction, over N rows of B sequences: activated gates and carried cell state.

    `keep` is what remains of the cell state from row to row: the forget gate, less what zoneout leaves of it, times the
    decay over the time between.
    """

    name: str
    backwards: bool
    spec: CellSpec
    weights: dict[str, Tensor]
    offsets: Ints  # [B + 1]
    i: Singles  # [N, H]
    f: Singles
    g: Singles
    o: Singles
    c: Singles
    keep: Singles

    @property
    def units(self) -> int:
        return int(self.c.shape[1])

    @property
    def exposed(self) -> Singles:
        """What the units show [N, H]: the output gate times the squashed cell state, normalised as the cell does."""
        shown = self.c
        if self.spec.layer_norm:
            centred = shown - shown.mean(1, keepdims=True)
            shown = centred / np.sqrt((centred * centred).mean(1, keepdims=True) + LAYER_NORM_EPS)
            shown = shown * _numbers(self.weights["norm_c"])
            shown = shown + _numbers(self.weights["norm_bias_c"]) if self.spec.bias else shown
        return np.asarray(self.o * np.tanh(shown))


def _numbers(weight: Tensor) -> Singles:
    return np.asarray(weight.detach().float().cpu().numpy())


def recurrent(net: nn.Module) -> list[tuple[str, LSTM]]:
    """The LSTMs within a module, by name; CarouselError where there is none of ours."""
    found = [(name, module) for name, module in net.named_modules() if isinstance(module, LSTM)]
    if not found:
        raise CarouselError(
            f"this {type(net).__name__} has no carousel.LSTM inside, so there are no gates to look at; build it with"
            " carousel.LSTM, which takes the arguments and the weights of torch.nn.LSTM."
        )
    return found


def record(net: nn.Module, run: Callable[[], Any]) -> list[Layer]:
    """The layers of every LSTM inside `net`, traced while `run` calls it; without those that run more than once, as
    a decoder does that is fed what it made.

    Raises CarouselError where there is none of ours, or `run` calls none.

    >>> import carousel
    >>> lstm = carousel.LSTM(3, 5, num_layers=2)
    >>> layers = record(lstm, lambda: lstm(torch.randn(7, 2, 3)))
    >>> [layer.name for layer in layers], layers[1].f.shape, layers[1].offsets.tolist()
    (['layer 1', 'layer 2'], (14, 5), [0, 7, 14])
    """
    found: dict[str, list[Layer]] = {}
    modules = recurrent(net)
    hooks = []
    for name, module in modules:

        def look(lstm: Any, args: Any, kwargs: Any, output: Any, name: str = name) -> None:
            found[name] = [] if name in found else _layers(lstm, args, kwargs, _part(name, len(modules)))

        hooks.append(module.register_forward_hook(look, with_kwargs=True))
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    if not any(found.values()):
        raise CarouselError(
            "no LSTM inside the model ran once, so there are no gates to look at; run it on rows, once."
        )
    return [layer for name, _ in modules for layer in found.get(name, [])]


def _part(name: str, count: int) -> tuple[str, int]:
    """What an LSTM's layers are called, and the number of its first one less one."""
    own = [part for part in name.split(".") if part not in ("head", "stack", "layers") and not part.isdigit()]
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    return " ".join(own) if count > 1 else "", numbers[-1] if numbers else 0


def _layers(lstm: LSTM, args: Any, kwargs: Any, part: tuple[str, int]) -> list[Layer]:
    given = args[0] if args else kwargs["input"]
    trace = lstm.forward(*args, **{**kwargs, "trace": True})[2]
    elapsed = kwargs.get("elapsed")
    offsets = _offsets(given, lstm.batch_first)
    directions = 2 if lstm.bidirectional else 1
    names = tuple(lstm.spec.shapes(lstm.input_size, lstm.hidden_size))
    made = []
    for layer in range(lstm.num_layers):
        for d in range(directions):
            gates = [_flat(gate[layer, d], given, lstm.batch_first) for gate in trace]
            weights = dict(zip(names, lstm.all_weights[layer * directions + d], strict=True))
            stays = lstm.spec.zoneout_c
            keep = np.asarray(stays + (1 - stays) * gates[1], np.float32) if stays else gates[1]
            if elapsed is not None:
                rate = F.softplus(weights["decay_rate"].detach())
                gaps = _gaps(elapsed, given, lstm, d)
                keep = keep * np.exp(-gaps[:, None] * rate.float().cpu().numpy()).astype(np.float32)
            title = f"{part[0]} layer {part[1] + layer + 1}".strip() + (" backwards" if d else "")
            i, f, g, o, c = gates
            made.append(Layer(title, d == 1, lstm.spec, weights, offsets, i, f, g, o, c, keep))
    return made


def _flat(gate: Tensor, given: Any, batch_first: bool) -> Singles:
    """Rows of one layer and direction, sequence by sequence [N, H], from whatever layout the trace has."""
    if isinstance(given, PackedSequence):
        gate = Ragged.from_packed(given._replace(data=gate)).values
    elif isinstance(given, Tensor) and given.dim() == 3:
        gate = (gate if batch_first else gate.transpose(0, 1)).flatten(0, 1)
    return np.asarray(gate.detach().float().cpu().numpy())


def _gaps(elapsed: Any, given: Any, lstm: LSTM, direction: int) -> Singles:
    layout = layout_of(given, lstm.batch_first)
    gaps = flat_gaps(elapsed, given, layout)
    gaps = reversed_gaps(gaps, layout.rows) if direction else gaps
    gate = gaps.reshape(*layout.shape, 1) if isinstance(given, Tensor) else gaps[:, None]
    return _flat(gate, given, lstm.batch_first)[:, 0]


def _offsets(given: Any, batch_first: bool) -> Ints:
    if isinstance(given, Ragged):
        return np.asarray(given.offsets.cpu().numpy(), np.int64)
    if isinstance(given, PackedSequence):
        return np.asarray(Ragged.from_packed(given).offsets.cpu().numpy(), np.int64)
    if given.dim() == 2:
        return np.array([0, given.shape[0]], np.int64)
    steps, count = given.shape[:2] if not batch_first else (given.shape[1], given.shape[0])
    return np.arange(0, int(count) * int(steps) + 1, int(steps), dtype=np.int64)


class Visit(NamedTuple):
    """One step of one layer: which sequences it advanced, how many steps from their end, and their states."""

    layer: int  # among all layers and directions of the net, as `record` counts them
    live: Tensor  # [b]
    lag: Tensor  # [b]
    h: Tensor  # [b, P]
    c: Tensor | None  # [b, H]; a plain RNN has none


@contextmanager
def watch(net: nn.Module) -> Iterator[list[Visit]]:
    """Run every LSTM and plain RNN inside `net` step by step, with states that keep their gradients.

    Slow and differentiable: meant for one backward pass, after which each visit's `h.grad` and `c.grad` say how much
    the loss depends on that state (with zoneout: on the c that goes on to the next step).
    """
    visits: list[Visit] = []
    hooks, first = [], 0
    for module in net.modules():
        if isinstance(module, LSTM | PlainRNN):

            def unroll(layer: Any, args: Any, kwargs: Any, output: Any, first: int = first) -> Any:
                return _unrolled(layer, args, kwargs, first, visits)

            hooks.append(module.register_forward_hook(unroll, with_kwargs=True))
            first += module.num_layers * (2 if module.bidirectional else 1)
    try:
        yield visits
    finally:
        for hook in hooks:
            hook.remove()


def _unrolled(module: Any, args: Any, kwargs: Any, first: int, visits: list[Visit]) -> Any:
    given = args[0] if args else kwargs["input"]
    hx = args[1] if len(args) > 1 else kwargs.get("hx")
    elapsed = kwargs.get("elapsed")
    layout = layout_of(given, module.batch_first)
    directions = 2 if module.bidirectional else 1
    x, ends = layout.x, []
    for layer in range(module.num_layers):
        sides = []
        for d in range(directions):
            at = layer * directions + d
            state = None if hx is None else (hx[0][at], hx[1][at])
            gaps = None if elapsed is None else flat_gaps(elapsed, given, layout)
            if gaps is not None and d:
                gaps = reversed_gaps(gaps, layout.rows)
            y, end, seen = _direction(module, at, x, layout.rows, state, gaps, d == 1)
            visits += [visit._replace(layer=first + at) for visit in seen]
            sides.append(y)
            ends.append(end)
        x = torch.cat(sides, -1)
    h, c = (torch.stack(part) for part in zip(*ends, strict=True))
    return layout.wrap(x), (h, c)


def _direction(
    module: Any, at: int, x: Tensor, rows: Any, state: Any, gaps: Tensor | None, reverse: bool
) -> tuple[Tensor, tuple[Tensor, Tensor], list[Visit]]:
    advance, sizes = _stepper(module, at)
    count, lengths = rows.first.shape[0], rows.lengths
    h, c = state if state is not None else (x.new_zeros(count, size) for size in sizes)
    places, outputs, visits = [], [], []
    for s in range(int(lengths.max()) if count else 0):
        live = torch.nonzero(lengths > s)[:, 0]
        t = lengths[live] - 1 - s if reverse else torch.full_like(live, s)
        row = rows.first[live] + rows.ahead[t]
        new_h, new_c = advance(x[row], h[live], c[live], None if gaps is None else gaps[row])
        for part in (new_h, new_c):
            if part.requires_grad:
                part.retain_grad()
        lag = t if reverse else lengths[live] - 1 - t
        visits.append(Visit(0, live, lag, new_h, new_c if isinstance(module, LSTM) else None))
        h, c = h.index_copy(0, live, new_h), c.index_copy(0, live, new_c)
        places.append(row)
        outputs.append(new_h)
    where = torch.argsort(torch.cat(places))
    return torch.cat(outputs)[where], (h, c), visits


def _stepper(module: Any, at: int) -> tuple[Callable[..., tuple[Tensor, Tensor]], tuple[int, int]]:
    """One step of a layer and direction: (x, h, c, elapsed) -> (h, c); and the sizes of h and c."""
    if isinstance(module, PlainRNN):
        return module.stepper(at), (module.hidden_size, module.hidden_size)
    spec = replace(module.spec, weight_drop=0.0, recurrent_dropout=0.0)
    names = tuple(spec.shapes(module.input_size, module.hidden_size))
    weights = dict(zip(names, module.all_weights[at], strict=True))
    masks = Masks(1.0, spec.zoneout_c, spec.zoneout_h) if spec.zoneout_c or spec.zoneout_h else NO_MASKS

    def advance(x: Tensor, h: Tensor, c: Tensor, elapsed: Tensor | None) -> tuple[Tensor, Tensor]:
        made = step(spec, weights, x, h, c, elapsed, masks)
        return made.h, made.c

    return advance, (spec.output_size(module.hidden_size), module.hidden_size)
