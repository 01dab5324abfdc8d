"""The trust report of forecasts: a split by time, features that must not know the future, intervals that must cover."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from carousel.trust.leaks import Finding, audit, check_future, check_target
from carousel.trust.parts import Part
from carousel.trust.report import Trust, split_of
from carousel.trust.scales import Scaler

if TYPE_CHECKING:
    from carousel.inputs.fitted import TableInput
    from carousel.inputs.table import Series

__all__ = ["forecast_trust"]

Ints = NDArray[np.int64]


def forecast_trust(
    table: TableInput,
    series: Series,
    origins: Ints,
    until: float | None,
    *,
    coverage: Mapping[str, float],
    seeds: Mapping[str, tuple[float, float]],
    members: int,
) -> Trust:
    """Of forecasts from the rows `origins` by a model that was trained on rows up to the time `until`.

    `until` None: no time column tells which rows these were. A target's own past is an input by right, so only columns
    known ahead are compared with the target of their own row.
    """
    whole = _part(series, 0)
    owner = whole.owner
    first = np.full(len(series.ids), len(series.time))
    np.minimum.at(first, owner[origins], origins)
    judged = np.arange(len(series.time)) > first[owner]
    train = None
    if until is not None and (series.time <= until).any():
        train = whole.where(series.time <= until)
    test = whole.where(judged)
    scalers = [Scaler(c.name, c.mean, c.scale) for c in (*table.features, *table.known, *table.static) if not c.values]
    found = audit(
        test,
        train,
        per_sequence=False,
        scalers=scalers,
        known=table.roles.known,
        no_train="no time column tells the training rows" if until is None else "the table has no training rows",
    )
    base = test if train is None else train
    findings = [f for f in found.findings if f.kind != "group"]  # series go on by right; what counts is when
    if train is not None and until is not None and float(test.time.min()) <= until:
        findings.insert(0, _seen(int((test.time <= until).sum()), len(test.time)))
    base = test if train is None else train
    for k in range(1, series.target.shape[1]):
        other = replace(base, target=_target(series, base, k))
        said = {(f.kind, f.column) for f in findings}
        more = (*check_future(other), *check_target(other, table.roles.known))
        findings += [f for f in more if (f.kind, f.column) not in said]
    found = replace(found, findings=tuple(findings))
    return Trust(found, split_of(train, test), {}, seeds, members, None, coverage)


def _seen(count: int, total: int) -> Finding:
    return Finding(
        "group",
        "",
        f"{count:,} of the {total:,} rows that are forecast were trained on: evaluate on later ones.",
    )


def _part(series: Series, target: int) -> Part:
    roles = series.roles
    names = (*roles.target, *roles.features, *roles.known, *roles.static)
    lengths = np.diff(series.offsets)
    static = np.repeat(series.static, lengths, axis=0)
    return Part(
        np.array(series.ids, dtype=object),
        series.offsets,
        series.time,
        names,
        np.concatenate([series.target, series.features, series.known, static], axis=1),
        series.target[:, target],
        frozenset(name for name in names if name in series.categories),
        series.row,
        series.clock,
        (),
        frozenset(roles.static),
    )


def _target(series: Series, part: Part, target: int) -> NDArray[np.float64]:
    """Another target's values in the rows of a part, which are told by id and time."""
    number = {str(name): k for k, name in enumerate(series.ids)}
    found = []
    for k, name in enumerate(part.ids):
        rows = slice(*series.offsets[number[str(name)] : number[str(name)] + 2])
        own = part.time[part.offsets[k] : part.offsets[k + 1]]
        found.append(series.target[rows, target][np.searchsorted(series.time[rows], own)])
    return np.concatenate(found)
