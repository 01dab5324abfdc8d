"""Exported C against the model it came from: every kind of model, in float and in integers; and mutants of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from c_cases import DETECTORS, FORECASTERS, SEQUENCES, SMALL, float_files, int8_files, weights
from carousel.export.c import int8, int8_forecast, int8_sequence, record, record_sequence, reference
from carousel.export.c.plan import plan
from carousel.export.c.report import stack_bytes, state_bytes, table_bytes
from carousel.forecasting import scaled_quantiles
from carousel.heads.forecast import read_out
from carousel.inputs.windows import Rows
from carousel.model import members_from
from carousel.sequences import outputs
from edge import arm

COMPILER = next((name for name in ("gcc", "clang") if shutil.which(name)), "")
needs_compiler = pytest.mark.skipif(not COMPILER, reason="there is no gcc or clang")
ALL = FORECASTERS | SEQUENCES


def ranges_of(name: str, config: Any) -> tuple[Any, Any, Any]:
    """The plan, made-up rows, and what the reference saw on them."""
    ready, seen = plan(name, config, weights(config)), reference.Ranges()
    if name in FORECASTERS:
        rows = record.recording(record.synthetic(config.input), config.input)
        reference.forecast(ready, rows.windows, seen)
    else:
        rows = record_sequence.synthetic(config.input)
        reference.sequence(ready, rows.channels(config.input), seen)
    return ready, rows, seen


@pytest.mark.parametrize("name", FORECASTERS)
def test_reference_of_forecasts_is_the_model(name: str) -> None:
    config = FORECASTERS[name]
    ready = plan(name, config, weights(config))
    series = record.synthetic(config.input, seed=3)
    rows = Rows(series, config.input)
    origins = np.arange(9, len(series.time) - config.input.horizon, 4)
    scaled, quantiles = reference.forecast(ready, rows.gather(rows.place(origins)))
    made = scaled_quantiles(members_from(config, weights(config)), rows, origins)
    expected = read_out(config.head, made.scaled, made.level, made.spread)
    np.testing.assert_allclose(scaled, made.scaled, rtol=0, atol=2e-5)  # the model computes in float32
    assert np.abs(quantiles - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("name", SEQUENCES | DETECTORS)
def test_reference_of_sequences_is_the_model(name: str) -> None:
    config = (SEQUENCES | DETECTORS)[name]
    channels = record_sequence.synthetic(config.input, seed=3).channels(config.input)
    found = reference.sequence(plan(name, config, weights(config)), channels)
    expected = outputs(members_from(config, weights(config)), channels, None, config.task != "classify")
    found = found if config.task != "classify" else found[channels.offsets[1:] - 1]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@needs_compiler
@pytest.mark.parametrize("name", ALL | DETECTORS)
def test_float_c_is_the_reference(name: str, tmp_path: Path) -> None:
    arm.write(float_files(name, (ALL | DETECTORS)[name]), tmp_path)
    said = arm.on_host(name, tmp_path, COMPILER, ("-O0", "-fsanitize=undefined", "-fno-sanitize-recover=all"))
    error = int(re.search(r"error (\d+) e-10", said)[1]) * 1e-10  # type: ignore[index]
    assert error <= 1e-7
    assert said.split()[-2] == "ok"


@needs_compiler
@pytest.mark.parametrize("name", ALL)
def test_integer_c_is_its_reference_bit_for_bit(name: str, tmp_path: Path) -> None:
    arm.write(int8_files(name, ALL[name]), tmp_path)
    said = arm.on_host(name, tmp_path, COMPILER, ("-O0", "-fsanitize=undefined", "-fno-sanitize-recover=all"))
    assert said.split()[-2] == "ok"


@needs_compiler
@pytest.mark.parametrize("files", [float_files, int8_files])
def test_memory_is_clean_and_what_is_reported_is_what_is_compiled(files: Any, tmp_path: Path) -> None:
    for name in ("covariates",) if files is float_files else ("warning",):
        made = files(name, ALL[name])
        arm.write(made, tmp_path)
        assert arm.on_host(name, tmp_path, COMPILER, ("-O1", *arm.SANITIZERS)).split()[-2] == "ok"
        body = f'int main(void) {{ printf("%d", (int)sizeof({name}_state)); return 0; }}'
        source = f'#include <stdio.h>\n#include "{name}.h"\n{body}\n'
        (tmp_path / "size.c").write_text(source)
        subprocess.run([COMPILER, "-o", tmp_path / "size", tmp_path / "size.c"], check=True)
        size = int(subprocess.run([tmp_path / "size"], check=True, capture_output=True).stdout)
        assert state_bytes(name, made[f"{name}.h"]) == size
        sizes = re.findall(r"^static const (\w+) (\w+)\[(\d+)\]", made[f"{name}.c"], re.M)
        assert table_bytes(made[f"{name}.c"]) < 200_000
        assert len({table for _, table, _ in sizes}) == len(sizes)


@pytest.mark.parametrize("name", FORECASTERS)
def test_integers_are_close_to_the_float_forecast(name: str) -> None:
    ready, rows, seen = ranges_of(name, FORECASTERS[name])
    whole = int8.quantised(ready, rows.rows, seen)
    found = int8_forecast.forecast(whole, rows.rows, rows.origins) / 2.0 ** np.array(whole.target_bits)[:, None]
    _, expected = reference.forecast(ready, rows.windows)
    away = np.abs(found - expected) / rows.windows.spread[:, None, :, None]
    assert away.mean() < 0.01
    assert away.max() < 0.06


@pytest.mark.parametrize("name", SEQUENCES)
def test_integers_are_close_to_the_float_answers(name: str) -> None:
    config = SEQUENCES[name]
    ready, rows, seen = ranges_of(name, config)
    whole = int8_sequence.quantised(ready, rows, seen)
    found = int8_sequence.answers(whole, rows).astype(np.float64)
    expected = reference.answer(ready, reference.sequence(ready, rows.channels(config.input)), rows)
    if config.head.kind == "regression":
        assert np.abs(found / 2.0 ** whole.read_out["bits"] - expected).max() < 0.003 * config.head.scale
    else:
        assert np.abs(found[:, 0] / 65536 - expected[:, 0]).max() < 0.002
    if config.head.kind == "label":
        np.testing.assert_allclose(found.sum(1), 65536, atol=2)


CONTEXT_LOOP = "for (back = CONTEXT; back-- > 0;) {\n        channels"
MUTANTS = [
    ("plain", "FORGET = 1,", "FORGET = 0,"),
    ("plain", "CANDIDATE = 2,", "CANDIDATE = 3,"),
    ("plain", CONTEXT_LOOP, CONTEXT_LOOP.replace("= CONTEXT", "= CONTEXT - 1")),
    ("plain", "x + x", "x"),
    ("plain", "sum[MEDIAN] += (double)median", "sum[MEDIAN] += 1.0001 * (double)median"),
    ("plain", "s->sum[k] += value", "s->sum[k] += 2.0 * value"),
    ("month", "gone * (now - anchor)", "(now - anchor)"),
    ("warning", "age / (1.0 + age)", "age / (2.0 + age)"),
    ("attention", "p[j] * old + fresh", "p[j] + fresh"),
    ("attention", "s->c[m][l][k] = dot", "s->h[m][l][k] = dot"),
    ("odd", "x[i] -= factor[k][i] * x[k]", "x[i] -= 0.0 * x[k]"),
    ("odd", "v->rows - 1; back", "v->rows; back"),
    ("odder", "s->left = REST", "s->left = REST + 1"),
]


@needs_compiler
@pytest.mark.parametrize(("name", "right", "wrong"), MUTANTS)
def test_the_self_test_kills_mutants(name: str, right: str, wrong: str, tmp_path: Path) -> None:
    files = float_files(name, (ALL | DETECTORS)[name])
    assert right in files[f"{name}.c"]
    arm.write(files | {f"{name}.c": files[f"{name}.c"].replace(right, wrong, 1)}, tmp_path)
    with pytest.raises(AssertionError, match=r"status 1\n(.*\n)*WRONG"):
        arm.on_host(name, tmp_path, COMPILER, ("-O0",))


@needs_compiler
def test_the_integer_self_test_sees_one_weight(tmp_path: Path) -> None:
    files = int8_files("plain", FORECASTERS["plain"])
    first = re.search(r"w0_0_hh_w\[\d+\] = \{.*\n    (-?\d+),", files["plain.c"])
    assert first
    at = first.start(1)
    changed = files["plain.c"][:at] + str(127 - abs(int(first[1]))) + files["plain.c"][first.end(1) :]
    arm.write(files | {"plain.c": changed}, tmp_path)
    with pytest.raises(AssertionError, match=r"status 1\n(.*\n)*WRONG"):
        arm.on_host("plain", tmp_path, COMPILER, ("-O0",))


@pytest.mark.skipif(bool(arm.missing_tools()), reason=f"needs {arm.PACKAGES}")
def test_small_forecaster_fits_a_cortex_m4(tmp_path: Path) -> None:
    arm.write(int8_files("small", SMALL), tmp_path)
    took = arm.footprint("small", tmp_path, arm.M4)
    assert took.flash <= 14_000
    assert took.state + took.stack <= 1_000
    estimate = stack_bytes(plan("small", SMALL, weights(SMALL)), True)
    assert took.stack / 1.2 < estimate < took.stack * 1.2
