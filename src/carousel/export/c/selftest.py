"""The self-test that goes with a C file: recorded rows in, recorded outputs compared."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from carousel.export.c import emit, sequence
from carousel.export.c.forecast import template_values
from carousel.export.c.plan import Plan
from carousel.export.c.record import Recording, codes, numbers
from carousel.export.c.record_sequence import Pushed
from carousel.export.c.text import array
from carousel.heads.forecast import ForecastHead
from carousel.inputs.fitted import TableInput

__all__ = ["forecast_test", "sequence_test"]

GONE = 1e300


def forecast_test(plan: Plan, recorded: Recording, expected: NDArray[Any], raw: dict[str, NDArray[Any]]) -> str:
    """NAME_test.c: `expected` [checks, H, K, Q] is what the forecasts must be, within 1e-6 where it is floating point;
    `raw` replaces rows as integer C files want them."""
    table, head = cast(TableInput, plan.config.input), cast(ForecastHead, plan.config.head)
    series = recorded.series
    values = template_values(plan, table, head)
    single = expected.dtype == np.float64
    given = {
        "TIME": series.time,
        "WALL": series.time,
        "TARGET": series.target,
        "NUMBER": np.concatenate(
            [numbers(series, table.features, "features"), numbers(series, table.known, "known")], 1
        ),
        "CATEGORY": np.concatenate([codes(series, table.features, "features"), codes(series, table.known, "known")], 1),
        "FIXED_NUMBER": numbers(series, table.static, "static"),
        "FIXED_CATEGORY": codes(series, table.static, "static"),
    } | raw
    keep_times(given, values)
    text = [arrays(given)]
    text.append(array("CHECK", recorded.origins.astype(np.int32)))
    text.append(array("EXPECTED", expected))
    if single:  # of numbers near zero, the error relative to the spread counts
        text.append(f"#define SMALL {float(np.abs(expected).mean())!r}\n")
    features = [c.kind for c in table.features]
    values |= {
        "rows": len(series.time),
        "checks": len(recorded.origins),
        "arrays": "".join(text),
        "float": single,
        "number": "double" if single else "int32_t",
        "feature_numbers": features.count("number"),
        "feature_categories": features.count("category"),
    }
    return emit.template("forecast_test.c", values)


def sequence_test(plan: Plan, pushed: Pushed, expected: NDArray[Any], raw: dict[str, NDArray[Any]]) -> str:
    """NAME_test.c: `expected` [N, answers] is what rows must be answered, within 1e-6 where it is floating point."""
    values = sequence.template_values(plan)
    single = expected.dtype == np.float64
    given = {
        "TIME": pushed.time,
        "WALL": pushed.wall,
        "NUMBER": pushed.numbers,
        "CATEGORY": pushed.codes,
        "FIXED_NUMBER": pushed.static_numbers,
        "FIXED_CATEGORY": pushed.static_codes,
    } | raw
    keep_times(given, values)
    text = arrays(given) + array("BEGIN", pushed.offsets.astype(np.int32)) + array("EXPECTED", expected)
    if single:
        text += f"#define SIZE {max(1.0, float(np.abs(expected).max()))!r} /* what errors are relative to */\n"
    values |= {
        "sequences": len(pushed.offsets) - 1,
        "arrays": text,
        "float": single,
        "number": "double" if single else "int32_t",
    }
    return emit.template("sequence_test.c", values)


def keep_times(given: dict[str, NDArray[Any]], values: dict[str, Any]) -> None:
    """Only the times that rows have."""
    for name, flag in (("TIME", "time"), ("WALL", "calendar_features")):
        if not values[flag]:
            del given[name]


def arrays(given: dict[str, NDArray[Any]]) -> str:
    """Tables of what goes in; doubles that are missing get a mark, whole numbers but times have 32 bits."""
    text = []
    for name, rows in given.items():
        if not rows.size:
            continue
        kept = rows.astype(np.int32) if rows.dtype == np.int64 and name not in ("TIME", "WALL") else rows
        text.append(array(name, np.where(np.isnan(kept), GONE, kept) if kept.dtype == np.float64 else kept))
    return "".join(text)
