"""The equations against numbers worked out without them, and the spec's own rules."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import FrozenInstanceError, fields
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from carousel.cell import CellSpec, Masks, step
from lstm_cases import GOLDEN, GOLDEN_CASES, KINDS, SWITCHED, able, check_layer_golden, check_step_golden, golden


def _numpy(value: Any) -> Any:
    return np.asarray(value, np.float64)


def _torch(value: Any) -> Any:
    return torch.tensor(value, dtype=torch.float64)


def _make() -> ModuleType:
    found = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_golden_files_are_what_their_script_makes():
    make = _make()
    assert sorted(make.CASES) == GOLDEN_CASES
    for number, case in enumerate(make.CASES):
        fresh = json.loads(json.dumps(make.build(case, seed=1000 + 77 * number)))
        stored = golden(case)
        assert fresh.keys() == stored.keys()
        for way in ("forward", "reverse"):  # exp may differ in its last bit between machines
            for name, value in stored[way].items():
                np.testing.assert_allclose(fresh[way].pop(name), value, rtol=1e-14, atol=1e-15)
                stored[way][name] = None
        assert {k: v for k, v in fresh.items() if k not in ("forward", "reverse")} == {
            k: v for k, v in stored.items() if k not in ("forward", "reverse")
        }


def test_the_golden_clip_binds_on_both_sides():
    cells = np.asarray(golden("clip")["forward"]["c"])
    assert (cells == 0.4).any()
    assert (cells == -0.4).any()


@pytest.mark.parametrize("array", [_numpy, _torch], ids=["numpy", "torch"])
@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_step_gives_the_golden_numbers(case: str, array: Any):
    check_step_golden(step, case, array)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_every_backend_gives_the_golden_numbers(case: str, kind: str):
    spec = CellSpec(**golden(case)["spec"])
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            names = list(able(spec))
            assert "reference" in names
            for name in names:
                check_layer_golden(case, name, kind)


def test_masks_do_what_their_sources_say():
    """h masked before U alone (Gal & Ghahramani), then c and h mixed with the old ones (Krueger et al.)."""
    generator = np.random.default_rng(3)
    spec, size = CellSpec(), 4
    w = {name: generator.normal(size=shape) for name, shape in spec.shapes(3, size).items()}
    x, h, c = (generator.normal(size=(5, n)) for n in (3, size, size))
    mask, keep_c, keep_h = (generator.integers(0, 2, (5, size)).astype(float) for _ in range(3))

    plain, masked = step(spec, w, x, h * mask * 2, c), step(spec, w, x, h, c, masks=Masks(mask * 2, keep_c, keep_h))

    np.testing.assert_array_equal(masked.c, np.where(keep_c == 1, c, plain.c))
    np.testing.assert_array_equal(masked.h, np.where(keep_h == 1, h, plain.h))
    np.testing.assert_array_equal(masked.f, plain.f)
    average = step(spec, w, x, h, c, masks=Masks(1.0, 0.3, 0.2))
    free = step(spec, w, x, h, c)
    np.testing.assert_allclose(average.c, 0.3 * c + 0.7 * free.c, rtol=1e-14)
    np.testing.assert_allclose(average.h, 0.2 * h + 0.8 * free.h, rtol=1e-14)


def test_shapes_are_torchs_for_the_plain_cell():
    for bias, proj_size in ((True, 0), (False, 0), (True, 2), (False, 2)):
        theirs = torch.nn.LSTM(3, 5, bias=bias, proj_size=proj_size).state_dict()
        ours = CellSpec(bias=bias, proj_size=proj_size).shapes(3, 5)
        assert [(f"{k}_l0", v) for k, v in ours.items()] == [(k, tuple(v.shape)) for k, v in theirs.items()]


def test_shapes_of_the_variants():
    spec = CellSpec(peephole=True, coupled=True, layer_norm=True, decay=True, proj_size=2)
    assert spec.gates == "fgo"
    assert spec.shapes(3, 5) == {
        "weight_ih": (15, 3),
        "weight_hh": (15, 2),
        "bias_ih": (15,),
        "bias_hh": (15,),
        "weight_hr": (2, 5),
        "weight_ch": (10,),
        "norm_ih": (15,),
        "norm_hh": (15,),
        "norm_c": (5,),
        "norm_bias_c": (5,),
        "decay_rate": (5,),
    }
    assert "norm_bias_c" not in CellSpec(layer_norm=True, bias=False).shapes(3, 5)


def test_every_field_is_switched_by_the_tests():
    assert set(SWITCHED) == {field.name for field in fields(CellSpec)}
    assert all(getattr(CellSpec(), name) != value for name, value in SWITCHED.items())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peephole", 1),
        ("bias", "yes"),
        ("proj_size", 2.0),
        ("proj_size", True),
        ("proj_size", -1),
        ("cell_clip", -0.5),
        ("cell_clip", float("inf")),
        ("cell_clip", float("nan")),
        ("zoneout_c", 1.0),
        ("zoneout_h", -0.1),
        ("recurrent_dropout", "0.5"),
        ("recurrent_dropout", True),
        ("weight_drop", float("nan")),
    ],
)
def test_a_wrong_field_is_refused_by_name(field: str, value: Any):
    with pytest.raises(ValueError, match=f"CellSpec.{field}"):
        CellSpec(**{field: value})


def test_a_spec_is_a_value():
    assert CellSpec(zoneout_c=np.float64(0.25)) == CellSpec(zoneout_c=0.25)
    assert hash(CellSpec(peephole=True)) == hash(CellSpec(peephole=True))
    with pytest.raises(FrozenInstanceError):
        CellSpec().bias = False  # type: ignore[misc]
