"""Tables of events, one row per reading (id, time, variable, value), as tables with a column for each variable."""

from __future__ import annotations

import warnings
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError
from carousel.inputs import columns
from carousel.inputs.roles import Roles

__all__ = ["pivot"]

Ints = NDArray[np.int64]


def pivot(
    table: columns.Frame,
    roles: Roles,
    variable: str,
    value: str,
    source: str,
    *,
    known: bool = False,
    one_label: bool = False,
) -> columns.Frame:
    """One row for each id and time, sorted by them, with the variables that the roles name as columns.

    A variable that was read at other times only is null there. Of several readings of one variable at one time the
    last in the table counts, with a warning. A static name may be a column or a variable; other columns (the target)
    hold the last value given at that time. `known`: the roles are those of a model, so that a variable which the table
    never names is remarked. `one_label`: the target may not change within a sequence. Raises DataError for a missing
    variable name, for a name that is neither column nor variable, where none of the variables is named, for values that
    are no numbers or too large, and for what changes within a sequence and may not.
    """
    own = [n for n in (*roles.target, *roles.static) if n in table.columns]
    columns.require(table, [n for n in (roles.id, roles.time) if n] + list(roles.target) + [variable, value], source)
    if roles.time is None:
        raise DataError(f"{source}: a table of events needs a time column; name it.")
    names, which = _variables(table, roles, own, variable, source, known)
    values = columns.moderate(table[value], source)
    ids, owner = columns.keys(table[roles.id], source) if roles.id else ([], np.zeros(len(table), np.int64))
    _refuse_changes(table, roles, own, one_label, ids, owner, source)
    group, last = _groups(table, roles, owner, source)
    wide = np.full((len(last), len(names)), np.nan)
    given = np.flatnonzero((which >= 0) & ~np.isnan(values))
    cell = group[given] * len(names) + which[given]
    wide.reshape(-1)[cell] = values[given]  # of equal cells the last counts
    _remark_twice(table, roles, source, variable, given, cell)
    made = table[last].select([n for n in (roles.id, roles.time) if n])
    kept = [_last_given(table[name], group, last) for name in own]
    filled = [nw.new_series(n, wide[:, k], nw.Float64(), backend=table.implementation) for k, n in enumerate(names)]
    return made.with_columns(*kept, *filled)


def _variables(
    table: columns.Frame, roles: Roles, own: list[str], variable: str, source: str, known: bool
) -> tuple[list[str], Ints]:
    """The variables that become columns, and which of them each row [N] is about (-1: one that nobody asked for)."""
    column = table[variable]
    missing = np.flatnonzero(column.is_null().to_numpy())
    if len(missing):
        raise DataError(
            f"{source}, row {int(missing[0]) + 1}, column {variable!r}: the variable is missing; name it, or drop the"
            " row."
        )
    texts, codes = np.unique(np.array([str(v) for v in column.to_list()], dtype=str), return_inverse=True)
    names = [n for n in (*roles.features, *roles.static) if n not in own]
    for name in roles.static:
        if name not in own and name not in texts:
            raise DataError(f"{source}: {name!r} is neither a column nor a variable; correct the name.")
    _remark_absent(names, [str(text) for text in texts], variable, source, known)
    place = {name: k for k, name in enumerate(names)}
    return names, np.array([place.get(str(text), -1) for text in texts], np.int64)[codes]


def _remark_absent(names: list[str], given: list[str], variable: str, source: str, known: bool) -> None:
    """Warn of variables of a model that the table never names; DataError where it names none of them."""
    absent = [name for name in names if name not in given]
    if not absent:
        return
    if len(absent) == len(names):
        raise DataError(
            f"{source}, column {variable!r}: it names {_few(given)} and none of the expected variables {_few(names)};"
            " rename them."
        )
    if known:
        warnings.warn(
            f"{source}, column {variable!r}: it never names {_few(absent)}, of which the model was told in training;"
            " such readings count as missing.",
            stacklevel=6,
        )


def _few(names: list[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _refuse_changes(
    table: columns.Frame, roles: Roles, own: list[str], one_label: bool, ids: list[Any], owner: Ints, source: str
) -> None:
    """DataError for a column that has two values within a sequence and may not; of the pivot the row is another."""
    for name in own:
        if name in roles.target and not one_label:
            continue
        text = columns.is_text(table[name])
        values = columns.categories(table[name])[0] if text else columns.numbers(table[name], source)
        given = np.flatnonzero(~np.isnan(values))
        _, first, which = np.unique(owner[given], return_index=True, return_inverse=True)
        changed = given[values[given] != values[given[first[which.reshape(-1)]]]]
        if len(changed):
            row = int(changed[0])
            who = f"sequence {ids[owner[row]]!r}" if roles.id else "the rows"
            why = (
                f"the label changes within {who}; a sequence has one label (for one a row there is `tag`)."
                if name in roles.target
                else f"a static column may not change within {who}; correct it, or give it as a feature."
            )
            raise DataError(f"{source}, row {row + 1}, column {name!r}: {why}")


def _groups(table: columns.Frame, roles: Roles, owner: Ints, source: str) -> tuple[Ints, Ints]:
    """The number of each row's id and time [N], in their order, and the last row of each [G]."""
    time = columns.times(table[str(roles.time)], source)[0]
    order = np.lexsort((time, owner))
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(owner[order]) != 0) | (np.diff(time[order]) != 0)
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(new) - 1
    return group, order[np.concatenate([np.flatnonzero(new)[1:], [len(order)]]) - 1]


def _last_given(column: nw.Series[Any], group: Ints, last: Ints) -> nw.Series[Any]:
    """Of each group the last value that is not null, else null."""
    given = np.flatnonzero(~column.is_null().to_numpy())
    rows = last.copy()
    rows[group[given]] = given
    return column[rows]


def _remark_twice(table: columns.Frame, roles: Roles, source: str, variable: str, given: Ints, cell: Ints) -> None:
    order = np.argsort(cell, kind="stable")
    again = order[1:][np.diff(cell[order]) == 0]
    if not len(again):
        return
    row = int(given[again.min()])
    warnings.warn(
        f"{source}, row {row + 1}: {table[variable][row]!r} is given a second time at one time of one sequence"
        f" ({len(again)} such rows); the last one counts.",
        stacklevel=5,
    )
