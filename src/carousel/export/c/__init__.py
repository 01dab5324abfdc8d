"""Models as C99: NAME.h, NAME.c and their self-test NAME_test.c, in float or in integers only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from carousel import atomic, modelfile
from carousel.config import ModelConfig
from carousel.errors import CarouselError, NotSupported
from carousel.export.c import (
    calibrate as calibration,
)
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
from carousel.export.c.plan import Plan, check_name, plan
from carousel.export.c.report import costs
from carousel.inputs.fitted import TableInput
from carousel.inputs.sequence import SequenceInput

__all__ = ["files", "write"]

Files = dict[str, str]


def write(model: Path, out: Path, int8: bool = False, calibrate: Path | None = None) -> dict[str, Any]:
    """NAME.h, NAME.c and NAME_test.c of the model file, where NAME is the last part of `out`.

    With `int8` they compute with integers only, scaled by what the rows of `calibrate` make of the model. Raises
    CarouselError for a NAME that C cannot use, NotSupported with the reason for a model that has no C form, DataError
    for rows that do not fit the model or are too few.
    """
    check_name(out.name)
    if int8 and calibrate is None:
        raise CarouselError("--int8 needs rows to scale its numbers by; name a table of them with --calibrate.")
    if calibrate is not None and not int8:
        raise CarouselError("--calibrate is about --int8; give both, or leave it out.")
    weights, document = modelfile.read(model)
    config = ModelConfig.from_json(document["model"])
    try:
        made, report = files(out.name, config, weights, calibrate)
    except NotSupported as error:
        raise NotSupported(f"{model}: {error}") from error
    paths = []
    for name, text in made.items():
        atomic.write_bytes(out.with_name(name), text.encode("ascii"))
        paths.append(str(out.with_name(name)))
    return {"out": paths} | report


def files(
    name: str, config: ModelConfig, weights: Mapping[str, NDArray[Any]], calibrate: Path | None = None
) -> tuple[Files, dict[str, Any]]:
    """The files by name and what is to be said about them; in integers where there are rows to calibrate by."""
    ready = plan(name, config, weights)
    forecasts = config.task == "forecast"
    if calibrate is None:
        return (_forecast if forecasts else _sequence)(ready)
    if config.task == "detect":
        raise NotSupported(
            "a detector's distances range over ten powers of ten, beyond 32-bit integers, and 64-bit ones would cost"
            " more than floating point does; export it without --int8."
        )
    return (_forecast_int8 if forecasts else _sequence_int8)(ready, calibrate)


def _named(ready: Plan, header: str, source: str, test: str) -> Files:
    return {f"{ready.name}.h": header, f"{ready.name}.c": source, f"{ready.name}_test.c": test}


def _forecast(ready: Plan) -> tuple[Files, dict[str, Any]]:
    table = cast(TableInput, ready.config.input)
    recorded = record.recording(record.synthetic(table), table)
    _, expected = reference.forecast(ready, recorded.windows)
    header, source = forecast.source(ready)
    test = selftest.forecast_test(ready, recorded, np.asarray(expected), {})
    return _named(ready, header, source, test), costs(ready, header, source, False)


def _forecast_int8(ready: Plan, data: Path) -> tuple[Files, dict[str, Any]]:
    whole, series, loss = calibration.forecaster(ready, data)
    recorded = record.recording(series, whole.table)
    expected = int8_forecast.forecast(whole, recorded.rows, recorded.origins)
    header, source = emit_int8.source(whole)
    raw = int8.raw_rows(whole, recorded.rows)
    test = selftest.forecast_test(ready, recorded, expected.astype(np.int32), raw)
    return _named(ready, header, source, test), _joined(costs(ready, header, source, True), loss)


def _sequence(ready: Plan) -> tuple[Files, dict[str, Any]]:
    table = cast(SequenceInput, ready.config.input)
    pushed = record_sequence.synthetic(table)
    expected = reference.answer(ready, reference.sequence(ready, pushed.channels(table)), pushed)
    header, source = sequence.source(ready)
    test = selftest.sequence_test(ready, pushed, np.asarray(expected), {})
    return _named(ready, header, source, test), costs(ready, header, source, False)


def _sequence_int8(ready: Plan, data: Path) -> tuple[Files, dict[str, Any]]:
    whole, pushed, loss = calibration.sequences(ready, data)
    recorded = record_sequence.first(pushed, 3, 40)
    expected = int8_sequence.answers(whole, recorded)
    header, source = emit_int8_sequence.source(whole)
    raw = int8_sequence.raw_rows(whole, recorded)
    test = selftest.sequence_test(ready, recorded, expected.astype(np.int32), raw)
    return _named(ready, header, source, test), _joined(costs(ready, header, source, True), loss)


def _joined(cost: dict[str, Any], loss: dict[str, Any]) -> dict[str, Any]:
    return cost | loss | {"notes": cost["notes"] + loss["notes"]}
