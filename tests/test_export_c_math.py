"""The exported C's own functions: float ones within their stated errors, integer ones equal to their twins in NumPy."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from carousel.export.c import emit, fixed
from carousel.export.c.emit_int8 import math_tables
from test_export_c import COMPILER, needs_compiler

FLOATS = {"logarithm": True, "softplus": True, "square_root": True} | emit.ERRORS
WHOLE = dict.fromkeys(
    ("tables", "division", "reciprocals", "root", "exponential", "logarithm", "softplus", "calendar_features"), True
)


def compiled(source: str, functions: dict[str, tuple[str, str]], folder: Path) -> Any:
    """A library with NAME_all(x, y, n) for each function from one type to another."""
    text = "#include <stdint.h>\n#include <string.h>\n" + source
    for name, (takes, gives) in functions.items():
        text += (
            f"void {name}_all(const {takes} *x, {gives} *y, int n) {{ while (n--) *y++ = ({gives}){name}(*x++); }}\n"
        )
    (folder / "math.c").write_text(text)
    flags = ["-std=c99", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-Wno-unused-function"]
    subprocess.run([COMPILER, *flags, "-o", folder / "math.so", folder / "math.c"], check=True)
    return ctypes.CDLL(str(folder / "math.so"))


def call(library: Any, name: str, x: Any, kind: Any) -> Any:
    torch.set_flush_denormal(False)  # other libraries in this process may have set it; the errors are those of IEEE 754
    y = np.empty(len(x), kind)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (x, y)]
    getattr(library, f"{name}_all")(*pointers, len(x))
    return y


@needs_compiler
def test_float_functions_keep_their_stated_errors(tmp_path: Path) -> None:
    names = dict.fromkeys(("exp_of", "sigmoid_of", "tanh_of", "softplus_of", "root_of"), ("float", "float"))
    source = emit.template("math_float.c", FLOATS)
    source += emit.template("calendar_float.c", {"calendar_lines": "", "ahead_times": False})
    library = compiled(source, names | {"log_of": ("double", "double"), "sine_of_turn": ("double", "double")}, tmp_path)
    rng = np.random.default_rng(5)
    near = np.concatenate([rng.uniform(-20, 20, 2_000_000), rng.normal(0, 0.1, 500_000)]).astype(np.float32)
    x = np.concatenate([rng.uniform(-87, 88, 2_000_000), near]).astype(np.float32)
    true = np.exp(x.astype(np.float64))
    assert np.abs(call(library, "exp_of", x, np.float32) / true - 1).max() <= float(emit.ERRORS["error_exp"])
    true = 1 / (1 + np.exp(-near.astype(np.float64)))
    assert np.abs(call(library, "sigmoid_of", near, np.float32) - true).max() <= float(emit.ERRORS["error_sigmoid"])
    true = np.tanh(near.astype(np.float64))
    assert np.abs(call(library, "tanh_of", near, np.float32) - true).max() <= float(emit.ERRORS["error_tanh"])
    assert np.abs(call(library, "tanh_of", near * 1e-3, np.float32) / np.tanh(near * np.float64(1e-3)) - 1).max() < 1e-6
    true = np.logaddexp(near.astype(np.float64), 0)
    np.testing.assert_allclose(call(library, "softplus_of", near, np.float32), true, rtol=3e-7)
    positive = np.abs(near) + np.float32(1e-5)
    np.testing.assert_allclose(call(library, "root_of", positive, np.float32), np.sqrt(positive), rtol=1e-7)
    wide = np.exp(rng.uniform(-300, 300, 200_000))
    np.testing.assert_allclose(call(library, "log_of", wide, np.float64), np.log(wide), rtol=1e-15, atol=1e-15)
    turns = rng.random(200_000)
    found = call(library, "sine_of_turn", turns, np.float64)
    assert np.abs(found - np.sin(2 * np.pi * turns)).max() < 2e-15


@needs_compiler
def test_integer_functions_are_their_twins_and_near_the_truth(tmp_path: Path) -> None:
    names = {
        "sigmoid16": ("int32_t", "int32_t"),
        "tanh15": ("int32_t", "int32_t"),
        "exp2_minus": ("int64_t", "int32_t"),
        "log2_of": ("uint64_t", "int32_t"),
        "softplus16": ("int32_t", "int32_t"),
        "root_of": ("int64_t", "int64_t"),
        "bit_length": ("uint64_t", "int32_t"),
        "sine15": ("uint32_t", "int32_t"),
    }
    source = "#define WIDE 1073741824\n" + math_tables(WHOLE) + emit.template("math_int8.c", WHOLE)
    source += emit.template("calendar_int8.c", {"calendar_lines": "", "ahead_times": False})
    library = compiled(source, names, tmp_path)
    rng = np.random.default_rng(6)

    def same(name: str, x: Any, twin: Any) -> Any:
        found = call(library, name, x, np.int64 if name == "root_of" else np.int32).astype(np.int64)
        np.testing.assert_array_equal(found, twin(x.astype(np.int64)))
        return found

    z = np.concatenate([rng.integers(-(2**18), 2**18, 100_000), [0, 1, -1, 98303, 98304, 98305, 2**20]])
    z = z.astype(np.int32)
    assert np.abs(same("sigmoid16", z, fixed.sigmoid16) / 65536 - 1 / (1 + np.exp(-z / 8192))).max() < 6e-5
    assert np.abs(same("tanh15", z, fixed.tanh15) / 32768 - np.tanh(z / 8192)).max() < 1.2e-4
    y = rng.integers(0, 20 << 16, 100_000)
    assert np.abs(same("exp2_minus", y, fixed.exp2_minus) / 32768 - 2.0 ** (-y / 65536)).max() < 1e-4
    x = np.floor(np.exp(rng.uniform(0, 43, 100_000))).astype(np.uint64)
    assert np.abs(same("log2_of", x, fixed.log2_of) / 65536 - np.log2(x.astype(np.float64))).max() < 1e-4
    s = rng.integers(-(15 << 16), 15 << 16, 100_000).astype(np.int32)
    assert np.abs(same("softplus16", s, fixed.softplus16) / 65536 - np.logaddexp(s / 65536, 0)).max() < 2e-4
    r = rng.integers(0, 2**61, 20_000)
    whole = same("root_of", r, fixed.root)
    assert ((whole**2 <= r) & (r < (whole + 1) ** 2)).all()
    same("bit_length", np.concatenate([r, [0, 1, 2, 3]]).astype(np.uint64), fixed.bit_length)
    turn = np.arange(65536, dtype=np.uint32)
    assert np.abs(same("sine15", turn, fixed.sine15) / 32768 - np.sin(2 * np.pi * turn / 65536)).max() < 2e-4


def test_division_and_shifts_round_to_the_nearest() -> None:
    a, b = np.arange(-50, 50), 7
    np.testing.assert_array_equal(fixed.divide(a, b), np.floor(a / b + 0.5))
    np.testing.assert_array_equal(fixed.rounded(a, 2), np.floor(a / 4 + 0.5))
    d, by = np.array([-(2**31), -5, 0, 17, 2**31]), fixed.reciprocal(np.array([3, 3, 1, 2**20 + 1, 2**31]))
    exact = d * 65536 / np.array([3, 3, 1, 2**20 + 1, 2**31])
    np.testing.assert_allclose(fixed.quotient(d, by, 16), np.clip(exact, -(2**30), 2**30), atol=0.51, rtol=1e-8)


@pytest.mark.parametrize("value", [np.float32(0.1), 1e-30, np.float32(3.4e38), -0.0, np.int8(-128), 5e-324])
def test_constants_read_back_as_the_same_bits(value: Any) -> None:
    from carousel.export.c.text import number

    text = number(value).rstrip("f")
    assert type(value)(text) == value
    assert ("." in text or "e" in text) == isinstance(value, float | np.floating)
