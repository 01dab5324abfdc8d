"""Exported C on rows that no training saw: huge, flat, missing and sparse ones, far from what calibration saw."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from c_cases import DETECTORS, FORECASTERS, SEQUENCES, weights
from carousel.export.c import (
    emit_int8,
    emit_int8_sequence,
    forecast,
    int8,
    int8_forecast,
    int8_sequence,
    record,
    record_sequence,
    reference,
    selftest,
    sequence,
)
from carousel.export.c.plan import plan
from edge import arm
from test_export_c import COMPILER, needs_compiler

FLAGS = ("-O0", "-fsanitize=undefined", "-fno-sanitize-recover=all")


def checked(name: str, header: str, source: str, test: str, folder: Path) -> float:
    """The self-test's relative error, 0 of integers, or AssertionError."""
    arm.write({f"{name}.h": header, f"{name}.c": source, f"{name}_test.c": test}, folder)
    said = arm.on_host(name, folder, COMPILER, FLAGS)
    assert said.split()[-2] == "ok"
    found = re.search(r"error (\d+) e-10", said)
    return int(found[1]) * 1e-10 if found else 0.0


def wild_series(series: Any, kind: str) -> Any:
    rng, y = np.random.default_rng(4), series.target.copy()
    features, known = series.features.copy(), series.known.copy()
    if kind == "huge":
        y = rng.choice([-1e12, 1e12, 0.0, 3.0], y.shape)
        features[:, :1] = rng.choice([-1e12, 1e12, np.nan], features[:, :1].shape)
        known[:, :1] = rng.choice([-1e12, 1e12], known[:, :1].shape)
    elif kind == "flat":
        y[:], y[-8:] = 100.0, 1e6
    else:
        y[rng.random(y.shape) < 0.95] = np.nan
        y[1] = 3.0
    return dataclasses.replace(series, target=y, features=features, known=known)


@needs_compiler
@pytest.mark.parametrize("kind", ["huge", "flat", "sparse"])
@pytest.mark.parametrize("name", ["covariates", "uneven"])
def test_forecasts_of_wild_series(name: str, kind: str, tmp_path: Path) -> None:
    config = FORECASTERS[name]
    ready, seen = plan(name, config, weights(config)), reference.Ranges()
    tame = record.recording(record.synthetic(config.input), config.input)
    reference.forecast(ready, tame.windows, seen)
    whole = int8.quantised(ready, tame.rows, seen)
    wild = record.recording(wild_series(record.synthetic(config.input), kind), config.input)
    expected = int8_forecast.forecast(whole, wild.rows, wild.origins).astype(np.int32)
    test = selftest.forecast_test(ready, wild, expected, int8.raw_rows(whole, wild.rows))
    checked(name, *emit_int8.source(whole), test, tmp_path)
    _, exact = reference.forecast(ready, wild.windows)
    test = selftest.forecast_test(ready, wild, np.asarray(exact), {})
    assert checked(name, *forecast.source(ready), test, tmp_path) <= 1e-6


def wild_rows(table: Any, rows: int = 300) -> record_sequence.Pushed:
    rng, tame = np.random.default_rng(5), record_sequence.synthetic(table)
    columns = []
    for c in table.numbers:
        values = rng.choice([-1e13, 1e13, 0.0, c.mean], rows)
        columns.append(np.where(rng.random(rows) < 0.3, np.nan, values) if c.gaps else values)
    codes = [rng.integers(0, c.codes, rows) for c in table.categories]
    time = np.cumsum(10.0 ** rng.uniform(-2, 6, rows)) if table.roles.time else np.arange(float(rows))
    return record_sequence.Pushed(
        time,
        np.stack(columns, 1),
        np.stack(codes, 1) if codes else np.zeros((rows, 0), np.int64),
        np.array([0, rows]),
        np.full((1, len(table.static_numbers)), 1e9),
        tame.static_codes[:1],
        time,
    )


@needs_compiler
@pytest.mark.parametrize("name", ["warning", "attention", "numbers", "odder"])
def test_answers_to_wild_rows(name: str, tmp_path: Path) -> None:
    config = (SEQUENCES | DETECTORS)[name]
    ready, seen = plan(name, config, weights(config)), reference.Ranges()
    tame, wild = record_sequence.synthetic(config.input), wild_rows(config.input)
    if name in SEQUENCES:
        reference.sequence(ready, tame.channels(config.input), seen)
        whole = int8_sequence.quantised(ready, tame, seen)
        expected = int8_sequence.answers(whole, wild).astype(np.int32)
        test = selftest.sequence_test(ready, wild, expected, int8_sequence.raw_rows(whole, wild))
        checked(name, *emit_int8_sequence.source(whole), test, tmp_path)
    exact = reference.answer(ready, reference.sequence(ready, wild.channels(config.input)), wild)
    test = selftest.sequence_test(ready, wild, np.asarray(exact), {})
    assert checked(name, *sequence.source(ready), test, tmp_path) <= 1e-6
