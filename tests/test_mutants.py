"""Each check must fail on the mistake that it is there for: mutants of the equations, the lengths and the masks.

A mutant is a module made from the true source with one piece of text replaced, in memory. The checks are the
functions that the other tests call; each mutant must make at least one of them fail, and the true source none.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import carousel.lstm
from carousel import Ragged, backends
from lstm_cases import GOLDEN_CASES, KINDS, check_layer_golden, check_step_golden

FAILURES = (AssertionError, IndexError, RuntimeError, ValueError)


def _mutant(name: str, old: str, new: str) -> ModuleType:
    """The module with the first `old` of its source replaced by `new`; it must be there."""
    true = importlib.import_module(name)
    assert true.__file__ is not None
    source = Path(true.__file__).read_text()
    assert old in source, f"{name} has no {old!r} any more: adapt the mutant"
    module = ModuleType(name)
    module.__dict__.update({"__file__": true.__file__, "__package__": name.rpartition(".")[0]})
    kept = sys.modules[name]
    sys.modules[name] = module  # dataclasses look their module up while it is made
    try:
        exec(compile(source.replace(old, new, 1), f"mutant of {name}", "exec"), module.__dict__)
    finally:
        sys.modules[name] = kept
    return module


def _step_survives(step: Callable[..., Any]) -> bool:
    try:
        for case in GOLDEN_CASES:
            check_step_golden(step, case, lambda value: np.asarray(value, np.float64))
    except FAILURES:
        return False
    return True


def _layer_survives(backend: str, ragged_class: Any = Ragged) -> bool:
    try:
        with torch.no_grad():
            for case in GOLDEN_CASES:
                for kind in KINDS:
                    check_layer_golden(case, backend, kind, ragged_class)
    except FAILURES:
        return False
    return True


def test_the_true_code_survives():
    assert _step_survives(_mutant("carousel.cell", "def step(", "def step(").step)
    assert _layer_survives("reference")


GATES = 'return "fgo" if self.coupled else "ifgo"'
SWAPS = [
    *(("plain", order) for order in ("figo", "gfio", "ofgi", "igfo", "iogf", "ifog")),
    *(("coupled", order) for order in ("gfo", "ogf", "fog")),
]


@pytest.mark.parametrize(("cell", "order"), SWAPS, ids=lambda value: value)
def test_swapping_any_two_gates_is_seen(cell: str, order: str):
    new = f'return "{order}" if self.coupled else "ifgo"' if cell == "coupled" else GATES.replace("ifgo", order)
    mutant = _mutant("carousel.cell", GATES, new)

    def step(spec: Any, *rest: Any) -> Any:  # the checks make their specs of the true class
        return mutant.step(mutant.CellSpec(**{name: getattr(spec, name) for name in spec.__dataclass_fields__}), *rest)

    assert not _step_survives(step)


EQUATIONS = {
    "the forget gate has no bias": (
        "z = {gate: z[:, k * size : (k + 1) * size] for k, gate in enumerate(spec.gates)}",
        "z = {gate: z[:, k * size : (k + 1) * size] for k, gate in enumerate(spec.gates)}\n"
        "    j = spec.gates.index('f') * size\n"
        "    z['f'] = z['f'] - (w['bias_ih'] + w['bias_hh'])[j : j + size] if spec.bias else z['f']",
    ),
    "no bias_ih": ('(w["bias_ih"] + w["bias_hh"] if', '(w["bias_hh"] if'),
    "no bias_hh": ('(w["bias_ih"] + w["bias_hh"] if', '(w["bias_ih"] if'),
    "h and c trade places": ("return Step(new_h, new_c,", "return Step(new_c, new_h,"),
    "the old c is forgotten": ("new_c = f * c + i * g", "new_c = f + i * g"),
    "i and f trade places": ("new_c = f * c + i * g", "new_c = i * c + f * g"),
    "the candidate is a sigmoid": ('g = xp.tanh(z["g"])', 'g = _sigmoid(xp, z["g"])'),
    "the output is not squashed": ("o * xp.tanh(exposed)", "o * exposed"),
    "the output sees the old c": ("exposed = new_c\n", "exposed = c\n"),
    "the output gate peeps at the old c": ('p["o"] * new_c', 'p["o"] * c'),
    "the forget gate peeps with the input gate's weights": ('p["f"] * c', 'p["i"] * c'),
    "the candidate peeps as well": ('g = xp.tanh(z["g"])', 'g = xp.tanh(z["g"] + p["f"] * c)'),
    "coupling without the complement": ("i = 1 - f if", "i = f if"),
    "coupling is ignored by the state": ("new_c = f * c + i * g", "new_c = f * c + (g if spec.coupled else i * g)"),
    "the projection is left out": ("if spec.proj_size:\n        new_h =", "if False:\n        new_h ="),
    "clipped on one side": ("xp.clip(new_c, -spec.cell_clip, spec.cell_clip)", "xp.clip(new_c, -9, spec.cell_clip)"),
    "clipped too late": ("if spec.cell_clip:", "if False:"),
    "the state grows with time": ("xp.exp(-elapsed", "xp.exp(elapsed"),
    "the decay rate may be negative": (
        "xp.exp(-elapsed[:, None] * rate)",
        'xp.exp(-elapsed[:, None] * w["decay_rate"])',
    ),
    "the decay is forgotten": ("if spec.decay:", "if False:"),
    "the gates see c before it has decayed": (
        'p["f"] * c)',
        'p["f"] * c / (xp.exp(-elapsed[:, None] * rate) if spec.decay else 1))',
    ),
    "the mean is not subtracted": ("centred = z - z.mean(axis=-1, keepdims=True)", "centred = z"),
    "the variance is unbiased": (
        "(centred * centred).mean(axis=-1, keepdims=True)",
        "(centred * centred).sum(axis=-1, keepdims=True) / (z.shape[-1] - 1)",
    ),
    "another epsilon": ("LAYER_NORM_EPS = 1e-5", "LAYER_NORM_EPS = 1e-6"),
    "W x and U h are normalised together": (
        'a, r = _normalise(a) * w["norm_ih"], _normalise(r) * w["norm_hh"]',
        'a, r = _normalise(a + r) * w["norm_ih"], 0.0',
    ),
    "c is not normalised": ('_normalise(new_c) * w["norm_c"]', 'new_c * w["norm_c"]'),
    "c without its offset": ('w["norm_bias_c"] if spec.bias else 0.0', "0.0"),
    "the carried c is the normalised one": (
        "new_h = o * xp.tanh(exposed)",
        "new_h, new_c = o * xp.tanh(exposed), exposed",
    ),
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_a_wrong_equation_is_seen(name: str):
    assert not _step_survives(_mutant("carousel.cell", *EQUATIONS[name]).step)


@pytest.mark.parametrize("name", ["no bias_ih", "h and c trade places", "the state grows with time"])
def test_a_wrong_equation_is_seen_through_the_layer(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backends.load("reference"), "step", _mutant("carousel.cell", *EQUATIONS[name]).step)
    assert not _layer_survives("reference")


REFERENCE = {
    "the reversed direction begins one late": (
        "t = rows.lengths[live] - 1 - s if",
        "t = (rows.lengths[live] - 2 - s).clamp(min=0) if",
    ),
    "the reversed direction begins in the padding": ("rows.lengths[live] - 1 - s if", "rows.ahead.shape[0] - 1 - s if"),
    "every sequence is one row shorter": ("(rows.lengths[:, None] > ", "(rows.lengths[:, None] - 1 > "),
    "every sequence is one row longer": ("(rows.lengths[:, None] > ", "(rows.lengths[:, None] >= "),
    "the shortest live longest": ("descending=True", "descending=False"),
    "states of finished sequences move on": ("h.index_copy(0, live, ", "h.index_copy(0, live * 0, "),
    "the outputs stay in the order of the visits": ("torch.cat(outputs)[where]", "torch.cat(outputs)"),
    "both directions use the same weights and states": (
        "n, h, c = call.x.shape[0], call.h[d], call.c[d]",
        "n, h, c = call.x.shape[0], call.h[0] * 0, call.c[0]",
    ),
    "the gaps of the forward direction": ("call.elapsed[d, row]", "call.elapsed[0, row]"),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_a_wrong_length_in_the_reference_is_seen(name: str, monkeypatch: pytest.MonkeyPatch):
    mutant = _mutant("carousel.backends.reference", *REFERENCE[name])
    monkeypatch.setitem(backends._LOADED, "reference", mutant)
    assert not _layer_survives("reference")


LAYOUT = {
    "packed lengths are one longer": (
        "sizes.shape[0] - torch.searchsorted(",
        "1 + sizes.shape[0] - torch.searchsorted(",
    ),
    "packed lengths are one shorter": (
        "sizes.shape[0] - torch.searchsorted(",
        "sizes.shape[0] - 1 - torch.searchsorted(",
    ),
    "packed lengths count equal sizes": ("first, right=True)", "first, right=False)"),
    "packed sequences keep the sorted order": ("first = packed.unsorted_indices\n", "first = packed.sorted_indices\n"),
    "packed steps begin one step late": ("sizes.cumsum(0) - sizes", "sizes.cumsum(0) - sizes + 1"),
    "ragged sequences end where the next begins": (
        "rows = Rows(ragged.offsets[:-1]",
        "rows = Rows(ragged.offsets[1:] - 1",
    ),
    "ragged sequences begin one row late": (
        "ragged.offsets[:-1], ahead",
        "(ragged.offsets[:-1] + 1).clamp(max=11), ahead",
    ),
    "ragged lengths are one shorter": ("ahead, ragged.lengths, False", "ahead, ragged.lengths - 1, False"),
    "dense rows are batch-first when they are not": (
        "first, ahead = (b, t * batch) if time_major",
        "first, ahead = (b, t * batch) if True",
    ),
    "reversed gaps are not shifted": ("later = (t + 1)", "later = t"),
    "reversed gaps cross into the next sequence": ("last = t + 1 == rows.lengths[b]", "last = t + 1 > rows.lengths[b]"),
}


@pytest.mark.parametrize("name", LAYOUT)
def test_a_wrong_length_in_the_layouts_is_seen(name: str, monkeypatch: pytest.MonkeyPatch):
    mutant = _mutant("carousel.layout", *LAYOUT[name])
    for function in ("layout_of", "flat_gaps", "reversed_gaps"):
        monkeypatch.setattr(carousel.lstm, function, getattr(mutant, function))
    assert not _layer_survives("reference")


RAGGED = {
    "sequences are cut one row late": (
        "int(self.offsets[b]) : int(self.offsets[b + 1])",
        "int(self.offsets[b]) + 1 : int(self.offsets[b + 1])",
    ),
    "a list begins one row late": (
        "self.values.split(self.lengths.tolist())",
        "self.values.roll(1, 0).split(self.lengths.tolist())",
    ),
    "packed rows keep the sorted order": ("place = packed.unsorted_indices", "place = packed.sorted_indices"),
    "packed lengths are off by one": (
        "return sizes.shape[0] - torch.searchsorted",
        "return sizes.shape[0] - 1 - torch.searchsorted",
    ),
    "packed rows are one step late": ("ahead = _offsets(sizes)[:-1]", "ahead = _offsets(sizes)[1:]"),
    "positions count from one": ("- self.offsets[:-1][self.sequence]", "- self.offsets[:-1][self.sequence] + 1"),
}


@pytest.mark.parametrize("name", RAGGED)
def test_a_wrong_length_in_ragged_is_seen(name: str, monkeypatch: pytest.MonkeyPatch):
    mutant = _mutant("carousel.ragged", *RAGGED[name]).Ragged
    monkeypatch.setattr("carousel.layout.Ragged", mutant)
    assert not _layer_survives("reference", mutant)
