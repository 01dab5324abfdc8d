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
from carousel.export.c import forecast, record, record_sequence, reference, selftest, sequence
from carousel.export.c.plan import Plan, check_name, plan
from carousel.inputs.fitted import TableInput
from carousel.inputs.sequence import SequenceInput

__all__ = ["files", "write"]


def write(model: Path, out: Path, int8: bool = False, calibrate: Path | None = None) -> dict[str, Any]:
    """NAME.h, NAME.c and NAME_test.c of the model file, where NAME is the last part of `out`.

    With `int8` they compute with integers only, scaled by what the rows of `calibrate` make of the model. Raises
    CarouselError for a NAME that C cannot use, NotSupported with the reason for a model that has no C form.
    """
    check_name(out.name)
    if int8 and calibrate is None:
        raise CarouselError("--int8 needs rows to scale its numbers by; name a table of them with --calibrate.")
    if calibrate is not None and not int8:
        raise CarouselError("--calibrate is about --int8; give both, or leave it out.")
    weights, document = modelfile.read(model)
    config = ModelConfig.from_json(document["model"])
    try:
        made, report = files(out.name, config, weights)
    except NotSupported as error:
        raise NotSupported(f"{model}: {error}") from error
    paths = []
    for name, text in made.items():
        atomic.write_bytes(out.with_name(name), text.encode("ascii"))
        paths.append(str(out.with_name(name)))
    return {"out": paths} | report


def files(name: str, config: ModelConfig, weights: Mapping[str, NDArray[Any]]) -> tuple[dict[str, str], dict[str, Any]]:
    """The files by name and what is to be said about them."""
    ready = plan(name, config, weights)
    make = {"forecast": _forecast, "classify": _sequence, "tag": _sequence}[config.task]
    return make(ready), {"notes": []}


def _forecast(ready: Plan) -> dict[str, str]:
    table = cast(TableInput, ready.config.input)
    recorded = record.recording(record.synthetic(table), table)
    _, expected = reference.forecast(ready, recorded.windows)
    header, source = forecast.source(ready)
    test = selftest.forecast_test(ready, recorded, np.asarray(expected), {})
    return {f"{ready.name}.h": header, f"{ready.name}.c": source, f"{ready.name}_test.c": test}


def _sequence(ready: Plan) -> dict[str, str]:
    table = cast(SequenceInput, ready.config.input)
    pushed = record_sequence.synthetic(table)
    expected = reference.answer(ready, reference.sequence(ready, pushed.channels(table)))
    header, source = sequence.source(ready)
    test = selftest.sequence_test(ready, pushed, np.asarray(expected), {})
    return {f"{ready.name}.h": header, f"{ready.name}.c": source, f"{ready.name}_test.c": test}
