"""Cases and checks of the cell and the layer, as functions of the implementation that they hold to account.

The checks raise AssertionError, so that `test_mutants` can show that each of them fails where it should.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from carousel import LSTM, Ragged, backends, masks
from carousel.cell import CellSpec, Masks, step

GOLDEN = Path(__file__).parent / "golden"
GOLDEN_CASES = sorted(path.stem for path in GOLDEN.glob("*.json"))

# a value that switches each field of CellSpec away from its default
SWITCHED: dict[str, Any] = {
    "bias": False,
    "peephole": True,
    "coupled": True,
    "layer_norm": True,
    "decay": True,
    "proj_size": 2,
    "cell_clip": 0.3,
    "recurrent_dropout": 0.4,
    "zoneout_c": 0.3,
    "zoneout_h": 0.25,
    "weight_drop": 0.3,
}


def golden(case: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / f"{case}.json").read_text())
    return found


def able(spec: CellSpec, dtype: torch.dtype = torch.float64, needs: tuple[str, ...] = ()) -> Iterator[str]:
    """The backends that compute this spec here and now (with or without gradient, as torch stands)."""
    for name in backends.BACKENDS:
        module = backends.load(name)
        lacks = getattr(module, "LACKS", {})
        if module.supports(spec, torch.device("cpu"), dtype) is None and not any(need in lacks for need in needs):
            yield name


def tolerance(dtype: torch.dtype, steps: int, width: int) -> dict[str, float]:
    """Each step rounds sums of `width` products of magnitude about 1, and the steps add up: 8 is for the gates."""
    rounding = torch.finfo(dtype).eps * 8 * steps * max(width, 1) ** 0.5
    return {"rtol": rounding, "atol": rounding}


def check_step_golden(step: Callable[..., Any], case: str, array: Callable[[Any], Any]) -> None:
    """`step` row by row, in both directions, against literals; `array` makes a float64 array."""
    made = golden(case)
    spec = CellSpec(**made["spec"])
    weights = {name: array(value) for name, value in made["weights"].items()}
    for way in ("forward", "reverse"):
        start, expected = 0, made[way]
        for b, length in enumerate(made["lengths"]):
            h, c = array([made["h0"][b]]), array([made["c0"][b]])
            rows = range(start, start + length)
            for row in rows if way == "forward" else reversed(rows):
                elapsed = None if made["elapsed"] is None else array([_gap(made["elapsed"], row, start + length, way)])
                found = step(spec, weights, array([made["x"][row]]), h, c, elapsed)
                for name, value in zip(("y", "c", "i", "f", "g", "o"), found, strict=True):
                    np.testing.assert_allclose(
                        np.asarray(value)[0],
                        expected[name][row],
                        rtol=1e-13,
                        atol=1e-14,
                        err_msg=f"{case} {way} {name}",
                    )
                h, c = found.h, found.c
            start += length


def _gap(elapsed: list[float], row: int, end: int, way: str) -> float:
    if way == "forward":
        return elapsed[row]
    return elapsed[row + 1] if row + 1 < end else 0.0


def golden_layer(case: str, backend: str, dtype: torch.dtype = torch.float64) -> tuple[LSTM, dict[str, Any]]:
    """A bidirectional layer whose two directions have the golden weights."""
    made = golden(case)
    lstm = LSTM(2, 3, bidirectional=True, backend=backend, dtype=dtype, **made["spec"])
    state = {name: torch.tensor(value, dtype=dtype) for name, value in made["weights"].items()}
    lstm.load_state_dict({name + suffix: value for name, value in state.items() for suffix in ("_l0", "_l0_reverse")})
    return lstm, made


def check_layer_golden(case: str, backend: str, kind: str, ragged_class: Any = Ragged) -> None:
    """The layer on the golden rows as `kind`: ragged, packed, alone (each sequence unbatched), padded twins."""
    lstm, made = golden_layer(case, backend)
    lengths = made["lengths"]
    x = torch.tensor(made["x"], dtype=torch.float64)
    offsets = [0, *np.cumsum(lengths).tolist()]
    rows = ragged_class(x, offsets)
    gaps = None
    if made["elapsed"] is not None:
        gaps = ragged_class(torch.tensor(made["elapsed"], dtype=torch.float64), offsets)
    states = tuple(torch.tensor([made[name]] * 2, dtype=torch.float64) for name in ("h0", "c0"))
    y, h, c = _KINDS[kind](lstm, rows, gaps, states)
    width = y.shape[-1] // 2
    for d, way in enumerate(("forward", "reverse")):
        for name, value in (("y", y[:, d * width : (d + 1) * width]), ("h_n", h[d]), ("c_n", c[d])):
            expected = torch.tensor(made[way][name], dtype=torch.float64)
            torch.testing.assert_close(value, expected, rtol=1e-13, atol=1e-13)


def _as_ragged(lstm: LSTM, rows: Ragged, gaps: Ragged | None, states: Any) -> tuple[Tensor, Tensor, Tensor]:
    out, (h, c) = lstm(rows, states, elapsed=gaps)
    return out.values, h, c


def _as_packed(lstm: LSTM, rows: Ragged, gaps: Ragged | None, states: Any) -> tuple[Tensor, Tensor, Tensor]:
    packed = pack_sequence(rows.to_list(), enforce_sorted=False)
    elapsed = None if gaps is None else pack_sequence(gaps.to_list(), enforce_sorted=False)
    out, (h, c) = lstm(packed, states, elapsed=elapsed)
    return type(rows).from_packed(out).values, h, c


def _alone(lstm: LSTM, rows: Ragged, gaps: Ragged | None, states: Any) -> tuple[Tensor, Tensor, Tensor]:
    found = []
    for b in range(len(rows)):
        state = tuple(s[:, b] for s in states)
        found.append(lstm(rows[b], state, elapsed=None if gaps is None else gaps[b]))
    h, c = (torch.stack([states[k] for _, states in found], 1) for k in (0, 1))
    return torch.cat([out for out, _ in found]), h, c


def _as_twins(lstm: LSTM, rows: Ragged, gaps: Ragged | None, states: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Each sequence as a dense batch of two, batch-first, of which the second one answers."""
    lstm.batch_first = True
    found = []
    for b in range(len(rows)):
        x = torch.stack([-rows[b], rows[b]])
        state = tuple(torch.stack([-s[:, b], s[:, b]], 1) for s in states)
        elapsed = None if gaps is None else torch.stack([2 * gaps[b], gaps[b]])
        out, (h, c) = lstm(x, state, elapsed=elapsed)
        found.append((out[1], h[:, 1], c[:, 1]))
    y, h, c = zip(*found, strict=True)
    return torch.cat(y), torch.stack(h, 1), torch.stack(c, 1)


_KINDS = {"ragged": _as_ragged, "packed": _as_packed, "alone": _alone, "twins": _as_twins}
KINDS = sorted(_KINDS)


def loop(
    lstm: LSTM, sequences: list[Any], states: tuple[Any, Any], gaps: list[Any] | None = None, seed: int | None = None
) -> tuple[Any, Any, Any, Any]:
    """The layer again, in NumPy: one sequence, layer, direction and step after another, on `cell.step`.

    Returns the rows of every sequence [N, D * P], h [L * D, B, P], c [L * D, B, H] and the trace [5, L, D, N, H].
    `seed` None means evaluation; otherwise the seed from which the layer's masks follow.
    """
    spec, layers, directions = lstm.spec, lstm.num_layers, 1 + lstm.bidirectional
    h_n, c_n = (np.asarray(state, np.float64).copy() for state in states)
    rows, traces = [], []
    for b, sequence in enumerate(sequences):
        x = np.asarray(sequence, np.float64)
        trace = np.zeros((5, layers, directions, len(x), lstm.hidden_size))
        for layer in range(layers):
            y = np.zeros((len(x), directions, spec.output_size(lstm.hidden_size)))
            for d in range(directions):
                suffix, at = f"_l{layer}" + "_reverse" * d, layer * directions + d
                names = spec.shapes(x.shape[1], lstm.hidden_size)
                w = {name: lstm.get_parameter(name + suffix).detach().double().numpy() for name in names}
                h, c = h_n[at, b : b + 1], c_n[at, b : b + 1]
                for t in reversed(range(len(x))) if d else range(len(x)):
                    gap = None
                    if gaps is not None:
                        gap = np.asarray(gaps[b], np.float64)[t : t + 1]
                        if d:
                            gap = np.asarray([*gaps[b], 0.0], np.float64)[t + 1 : t + 2]
                    made = step(
                        spec,
                        w,
                        x[t : t + 1],
                        h,
                        c,
                        gap,
                        _one_mask(lstm, None if seed is None else seed + 2 * layer + d, b, t),
                    )
                    h, c = made.h, made.c
                    y[t, d], trace[:, layer, d, t] = h[0], [v[0] for v in (made.i, made.f, made.g, made.o, c)]
                h_n[at, b], c_n[at, b] = h[0], c[0]
            x = y.reshape(len(x), -1)
        rows.append(x)
        traces.append(trace)
    return np.concatenate(rows), h_n, c_n, np.concatenate(traces, axis=3)


def _one_mask(lstm: LSTM, seed: int | None, sequence: int, t: int) -> Masks:
    spec, size, output = lstm.spec, lstm.hidden_size, lstm.spec.output_size(lstm.hidden_size)
    if seed is None:
        return Masks(1.0, spec.zoneout_c, spec.zoneout_h)
    b, at, first = np.array([sequence]), np.array([t]), np.array([0])
    dropped = masks.hit(spec.recurrent_dropout, seed, 1, b, first, output)
    return Masks(
        np.where(dropped, 0.0, 1 / (1 - spec.recurrent_dropout)),
        masks.hit(spec.zoneout_c, seed, 2, b, at, size).astype(float),
        masks.hit(spec.zoneout_h, seed, 3, b, at, output).astype(float),
    )
