"""Sequences from tables and arrays: whole, ragged, with every row that was given and no other.

Faults of the data are found here, before any training. Unlike the tables of forecasts, nothing is put on a grid: a row
is what was observed, and the time between rows is information.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError
from carousel.inputs import columns
from carousel.inputs.clock import Clock, Grid, require_zone
from carousel.inputs.longform import pivot
from carousel.inputs.roles import Roles
from carousel.inputs.sequence import Channels, SequenceInput

__all__ = ["Sequences", "channels", "raw_channels", "read_arrays", "read_sequences", "sequence_roles"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_PLAIN = Grid("uneven", 1.0)  # for the wall clock only: sequences lie on no grid


@dataclass(frozen=True)
class Sequences:
    """B sequences sorted by id, the rows of each by time, as flat arrays of N rows.

    NaN is not observed. Categorical columns are codes into `categories[name]`. `row` [N] is the 1-based row of the
    user's table (or the step within its array). `keys` are the id and time columns as they were given, in the order of
    the table.
    """

    roles: Roles
    ids: list[Any]
    offsets: Ints  # [B + 1]
    time: Floats  # [N]
    features: Floats  # [N, F]
    static: Floats  # [B, S]
    categories: Mapping[str, tuple[str, ...]]
    clock: Clock
    row: Ints  # [N]
    source: str
    id_dtype: Any = None
    backend: Any = None
    keys: Any = None
    target: Any = None  # narwhals series in the order of the table, or None

    @property
    def lengths(self) -> Ints:
        return np.diff(self.offsets)

    @property
    def owner(self) -> Ints:
        """[N] the sequence of each row."""
        return np.repeat(np.arange(len(self.ids)), self.lengths)

    @property
    def local(self) -> Floats:
        """[N] the times by the wall clock."""
        return self.clock.local(self.time, _PLAIN)

    def select(self, which: Ints) -> Sequences:
        """The sequences numbered `which`, in that order; without `keys` and `target`, which are of the whole table."""
        lengths = self.lengths[which]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        rows = np.arange(offsets[-1]) + np.repeat(self.offsets[which] - offsets[:-1], lengths)
        return replace(
            self,
            ids=[self.ids[k] for k in which],
            offsets=offsets,
            time=self.time[rows],
            features=self.features[rows],
            static=self.static[which],
            row=self.row[rows],
            keys=None,
            target=None,
        )

    def made_channels(self, fitted: Any) -> Channels:
        """What the model sees of them; sequences of other things than columns have their own way."""
        found: Channels = fitted.transform(*raw_channels(self, fitted))
        return found

    def given(self, values: Floats) -> Floats:
        """Of each row [N] the value in its row of the user's table [n]; NaN where none speaks of it."""
        return np.where(self.row > 0, values[self.row - 1], np.nan)

    def name(self, k: int) -> str:
        """A sequence as a message names it."""
        return f"sequence {self.ids[k]!r}" if self.roles.id else f"sequence {k}" if len(self.ids) > 1 else "the rows"

    def where(self, at: int) -> str:
        """A row as a message names it."""
        number = int(self.row[at])
        return f"{self.source}, row {number}" if self.backend is not None else f"{self.source}, step {number}"


def sequence_roles(
    frame: Any,
    *,
    id: str | None,
    time: str | None,
    target: tuple[str, ...],
    features: tuple[str, ...] | None,
    static: tuple[str, ...],
    variable: str | None = None,
    value: str | None = None,
    source: str = "data",
) -> Roles:
    """Fill in what the table makes plain: the only timestamp column is the time, and with `features` None every column
    without a role is a feature (in a table of events every variable).

    Raises DataError for names that are no columns and for columns of times that have no role.
    """
    table = columns.as_frame(frame, source)
    events = tuple(name for name in (variable, value) if name)
    taken = {name for name in (id, time, *target, *static, *events) if name}
    variables = {*static, *(features or ())} if events else set()  # may be names of either kind
    columns.require(table, sorted((taken | set(features or ())) - variables), source)
    free = [name for name in table.columns if name not in taken]
    if time is None:
        stamps = [n for n in free if table[n].dtype == nw.Date or isinstance(table[n].dtype, nw.Datetime)]
        time = stamps[0] if len(stamps) == 1 else None
        free = [name for name in free if name != time]
    if events:
        if features is None:
            names = {str(name) for name in table[events[0]].drop_nulls().unique().to_list()}
            features = tuple(sorted(names - set(static)))
        return Roles(id, time, target, features, static)
    if features is None:
        for name in free:
            dtype = table[name].dtype
            dated = columns.is_text(table[name]) and columns.first_date(table[name])
            if dated or dtype in (nw.Date, nw.Duration) or isinstance(dtype, nw.Datetime):
                raise DataError(
                    f"{source}, column {name!r}: it holds times; name it as the time, or name the features without it."
                )
        features = tuple(free)
    if not features and not static:
        raise DataError(f"{source}: no column is left to learn from; name features or static columns.")
    return Roles(id, time, target, features, static)


def read_sequences(
    frame: Any,
    roles: Roles,
    *,
    source: str = "data",
    fitted: SequenceInput | None = None,
    categorical: Sequence[str] = (),
    variable: str | None = None,
    value: str | None = None,
    target: bool = True,
    answered: bool | None = None,
) -> Sequences:
    """All sequences of a pandas, polars or Arrow table, wide (a column for each variable) or of events.

    `fitted` says how a model in use takes the columns; `categorical` names number columns that are categories.
    `target`: whether the target column must be there; `answered`: whether something is said of every row, or (False) of
    whole sequences. Raises DataError, which names source, row, column and remedy, for: no table, no rows, missing
    column, text in a number column, unreadable or missing time, infinite or huge values, a static column that changes
    within a sequence, times that are no longer timestamps. Warns where time goes backwards within a sequence (its rows
    are sorted), where rows are copies of others, where an event was given twice, and, of what is answered, where a
    static value comes late.
    """
    table = columns.as_frame(frame, source)
    wanted = roles if target else replace(roles, target=())
    if variable is not None and value is not None:
        table = pivot(table, wanted, variable, value, source, known=fitted is not None, one_label=answered is False)
    columns.require(table, wanted.columns, source)
    ids, owner = columns.keys(table[roles.id], source) if roles.id else ([0], np.zeros(len(table), np.int64))
    if roles.time:
        time, clock = columns.times(table[roles.time], source)
    else:
        time, clock = _row_numbers(owner, len(ids)), Clock("row")
    if fitted is not None and roles.time and clock.stamps != fitted.stamps:
        was, now = ("timestamps", "numbers") if fitted.stamps else ("numbers", "timestamps")
        raise DataError(
            f"{source}, column {roles.time!r}: it held {was} in training and holds {now} here; convert it to {was}."
        )
    if fitted is not None and roles.time:
        require_zone(clock.zone, fitted.zone, f"{source}, column {roles.time!r}")
        clock = replace(clock, zone=fitted.zone)
    order = np.lexsort((time, owner))
    offsets = np.searchsorted(owner[order], np.arange(len(ids) + 1)).astype(np.int64)
    found: dict[str, tuple[str, ...]] = {}
    kinds = (
        {c.name: c.kind for c in (*fitted.columns, *fitted.static)}
        if fitted
        else dict.fromkeys(categorical, "category")
    )
    features = _read(table, roles.features, kinds, found, source)[order]
    static = _read(table, roles.static, kinds, found, source)[order]
    label = table[roles.target[0]] if wanted.target else None
    copies = _copies(order, owner, time, np.column_stack([features, static]), label)
    _remark_copies(copies, owner, time, roles, ids, clock, source)
    _remark_backwards(owner, time, np.setdiff1d(order, copies[:, 1]), roles, ids, clock, source)
    names = [name for name in (roles.id, roles.time) if name]
    made = Sequences(
        roles=roles,
        ids=ids,
        offsets=offsets,
        time=time[order],
        features=features,
        static=np.zeros((len(ids), 0)),
        categories=found,
        clock=clock,
        row=order + 1,
        source=source,
        id_dtype=table[roles.id].dtype if roles.id else None,
        backend=table.implementation,
        keys=table.select(names) if names else None,
        target=label,
    )
    return replace(made, static=_constant(static, made, answered))


def read_arrays(arrays: Any, *, source: str = "X") -> Sequences:
    """Sequences from a list of arrays [T, C] (or [T]), a 3-D array [B, T, C] or a 2-D one [B, T] of single channels.

    Raises DataError for other shapes, different numbers of channels, empty sequences and infinite or huge values.
    """
    if hasattr(arrays, "toarray"):
        raise DataError(f"{source}: sparse data are not sequences; give dense arrays.")
    if not isinstance(arrays, list | tuple) and hasattr(arrays, "__array__"):
        arrays = np.asarray(arrays)
    if isinstance(arrays, np.ndarray) and (arrays.dtype != object or arrays.ndim > 1):
        if arrays.ndim not in (2, 3):
            raise DataError(
                f"{source}: expected 2-D [B, T] or 3-D [B, T, C] or a list of arrays [T, C], got {arrays.ndim}-D"
                f" with shape {list(arrays.shape)}. Reshape your data: array.reshape(-1, 1) for single values."
            )
        if 0 in arrays.shape[1:]:
            raise DataError(f"{source}: 0 feature(s) (shape={arrays.shape}) while a minimum of 1 is required.")
    if isinstance(arrays, str) or not isinstance(arrays, Iterable):
        raise DataError(f"{source}: expected a table or arrays, got {type(arrays).__name__}; give a list of arrays.")
    parts = list(arrays)
    if not parts:
        raise DataError(f"{source}: there is no sequence (0 samples); give at least one.")
    found = [_array(part, k, source) for k, part in enumerate(parts)]
    channels = found[0].shape[1]
    for k, part in enumerate(found):
        if part.shape[1] != channels:
            raise DataError(f"{source}[{k}]: {part.shape[1]} channels, where {source}[0] has {channels}; give as many.")
    lengths = np.array([len(part) for part in found])
    values = np.concatenate(found)
    bad = np.flatnonzero((np.abs(values) > columns.LARGEST).any(1))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    step = np.arange(len(values)) - np.repeat(offsets[:-1], lengths)
    if len(bad):
        k = int(np.searchsorted(offsets, bad[0], side="right")) - 1
        largest = np.nanmax(np.abs(values[bad[0]]))
        what = "infinite (inf)" if np.isinf(largest) else f"too large to compute with ({largest:g})"
        raise DataError(
            f"{source}[{k}], step {int(step[bad[0]])}: the value is {what}; correct it, or NaN for missing."
        )
    roles = Roles(features=tuple(f"x{c}" for c in range(channels)))
    return Sequences(
        roles=roles,
        ids=list(range(len(found))),
        offsets=offsets,
        time=step.astype(np.float64),
        features=values,
        static=np.zeros((len(found), 0)),
        categories={},
        clock=Clock("row"),
        row=step,
        source=source,
    )


def _array(part: Any, k: int, source: str) -> Floats:
    try:
        found = np.asarray(part)
        if np.iscomplexobj(found):
            raise DataError(f"{source}[{k}]: Complex data not supported; give real numbers.")
        found = found.astype(np.float64)
    except (TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{source}[{k}]: these are no numbers ({error}); give arrays [T, C] of numbers.") from None
    if found.ndim == 1:
        found = found[:, None]
    if found.ndim != 2:
        raise DataError(f"{source}[{k}]: a sequence is [T, C], got shape {list(found.shape)}; reshape it.")
    if not found.shape[0] or not found.shape[1]:
        raise DataError(
            f"{source}[{k}]: a sequence of {found.shape[0]} steps and {found.shape[1]} feature(s) (shape={found.shape})"
            " while a minimum of 1 is required."
        )
    return found


def channels(sequences: Sequences, fitted: SequenceInput) -> Channels:
    """What the model sees of them.

    >>> import polars as pl
    >>> from carousel.inputs.sequence import Channel
    >>> frame = pl.DataFrame({"who": ["a", "a"], "pulse": [70.0, 90.0]})
    >>> pulse = Channel("pulse", "number", mean=80.0, scale=10.0)
    >>> seen = SequenceInput(Roles("who", features=("pulse",)), False, False, 1.0, (), (pulse,), ())
    >>> channels(read_sequences(frame, seen.roles), seen).values.tolist()
    [[-1.0], [1.0]]
    """
    return sequences.made_channels(fitted)


def raw_channels(
    sequences: Sequences, fitted: SequenceInput
) -> tuple[Floats, Floats, Ints, Ints, Floats, Ints, Floats | None]:
    """What `SequenceInput.transform` takes: the columns in the fitted order, categories as their codes."""

    def numbers(role: str) -> Floats:
        values, names = getattr(sequences, role), getattr(sequences.roles, role)
        wanted = fitted.numbers if role == "features" else fitted.static_numbers
        return np.asarray(values[:, [names.index(c.name) for c in wanted]])

    def codes(role: str) -> Ints:
        values, names = getattr(sequences, role), getattr(sequences.roles, role)
        wanted = fitted.categories if role == "features" else fitted.static_categories
        made = np.zeros((len(values), len(wanted)), np.int64)
        for k, channel in enumerate(wanted):
            column = values[:, names.index(channel.name)]
            table = np.array([channel.code(None), *map(channel.code, sequences.categories.get(channel.name, ()))])
            made[:, k] = table[np.where(np.isnan(column), 0, column + 1).astype(np.int64)]
        return made

    return (
        sequences.time,
        numbers("features"),
        codes("features"),
        sequences.offsets,
        numbers("static"),
        codes("static"),
        sequences.local if fitted.calendar else None,
    )


def category_codes(column: columns.Column, source: str) -> tuple[Floats, tuple[str, ...]]:
    """Codes [N] into the texts that occur, NaN where missing; whole numbers are written without a point."""
    if columns.is_text(column):
        return columns.categories(column)
    values = columns.numbers(column, source)
    seen = ~np.isnan(values)
    distinct, inverse = np.unique(values[seen], return_inverse=True)
    found = np.full(len(values), np.nan)
    found[seen] = inverse
    return found, tuple(str(int(v)) if v == np.rint(v) else repr(float(v)) for v in distinct)


def _read(
    table: columns.Frame,
    names: tuple[str, ...],
    kinds: Mapping[str, str],
    found: dict[str, tuple[str, ...]],
    source: str,
) -> Floats:
    made = np.empty((len(table), len(names)))
    for k, name in enumerate(names):
        kind = kinds.get(name) or ("category" if columns.is_category(table[name]) else "number")
        if kind == "number":
            made[:, k] = columns.moderate(table[name], source)
        else:
            made[:, k], found[name] = category_codes(table[name], source)
    return made


def _row_numbers(owner: Ints, count: int) -> Floats:
    """0, 1, 2, ... within each sequence, in the order of the table."""
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], np.arange(count))
    number = np.empty(len(owner))
    number[order] = np.arange(len(owner)) - starts[owner[order]]
    return number


def _copies(order: Ints, owner: Ints, time: Floats, values: Floats, label: columns.Column | None) -> Ints:
    """Pairs [n, 2] of an earlier row and its copy of the same sequence, time, values and label, by the copy.

    `values` [N, C] are sorted as `order` says.
    """
    same = (np.diff(owner[order]) == 0) & (np.diff(time[order]) == 0)
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    if not len(tied):
        return np.zeros((0, 2), np.int64)
    rows = order[tied]
    texts = [""] * len(rows) if label is None else [str(value) for value in label[rows].to_list()]
    codes = np.unique(texts, return_inverse=True)[1]
    keys = np.column_stack([owner[rows], time[rows], codes, np.nan_to_num(values[tied], nan=-np.inf)])
    _, first, which = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    pairs = np.column_stack([rows[first[which.reshape(-1)]], rows])
    found = pairs[pairs[:, 0] != pairs[:, 1]]
    return np.asarray(found[found[:, 1].argsort()], np.int64)


def _remark_copies(
    copies: Ints, owner: Ints, time: Floats, roles: Roles, ids: list[Any], clock: Clock, source: str
) -> None:
    """Several readings at one time are well; with the same values they are rather one that was written twice."""
    if not len(copies):
        return
    first, row = (int(k) for k in copies[0])
    who = f"sequence {ids[owner[row]]!r} has" if roles.id else "this is"
    warnings.warn(
        f"{source}, row {row + 1}, column {roles.time!r}: {who} the time {clock.describe(time[row])} a second time with"
        f" all the same values (first in row {first + 1}; {len(copies)} such rows); each counts, so drop the copies.",
        stacklevel=4,
    )


def _remark_backwards(
    owner: Ints, time: Floats, rows: Ints, roles: Roles, ids: list[Any], clock: Clock, source: str
) -> None:
    """Rows are sorted by time; where they were not, a clock may be wrong, and a stream of them would be refused."""
    rows = np.sort(rows)
    given = rows[np.argsort(owner[rows], kind="stable")]  # by sequence, in the order of the table
    late = np.flatnonzero((np.diff(time[given]) < 0) & (np.diff(owner[given]) == 0))
    if not len(late):
        return
    row = int(given[late + 1].min())
    who = f" within sequence {ids[owner[row]]!r}" if roles.id else ""
    warnings.warn(
        f"{source}, row {row + 1}, column {roles.time!r}: time goes backwards{who}, to {clock.describe(time[row])}"
        f" ({len(late)} such rows); the rows are taken in order of time.",
        stacklevel=4,
    )


def _constant(values: Floats, made: Sequences, answered: bool | None) -> Floats:
    """The one value [B, S] that each static column has in each sequence, NaN where it is never given."""
    roles, offsets = made.roles, made.offsets
    if not values.shape[1]:
        return np.zeros((len(made.ids), 0))
    given = np.where(np.isnan(values), len(values), np.arange(len(values))[:, None])
    first = np.minimum.reduceat(given, offsets[:-1], axis=0)
    top = np.vstack([values, np.full(values.shape[1], np.nan)])[first, np.arange(values.shape[1])]
    differs = ~np.isnan(values) & (values != np.repeat(top, np.diff(offsets), axis=0))
    if differs.any():
        at, column = (int(v) for v in np.argwhere(differs)[0])
        raise DataError(
            f"{made.where(at)}, column {roles.static[column]!r}: a static column may not change within"
            f" {made.name(int(made.owner[at]))}; correct it, or give it as a feature."
        )
    if answered:
        _remark_late((first > offsets[:-1, None]) & ~np.isnan(top), made)
    return np.asarray(top)


def _remark_late(late: NDArray[np.bool_], made: Sequences) -> None:
    """`late` [B, S]: a static value that is not given in the first row of its sequence is known too early there."""
    if not late.any():
        return
    column = int(np.flatnonzero(late.any(0))[0])
    which = np.flatnonzero(late[:, column])
    who = f" of {made.name(int(which[0]))}" if made.roles.id else ""
    warnings.warn(
        f"{made.source}, column {made.roles.static[column]!r}: the static value{who} is first given after its first row"
        f" ({len(which)} such sequences), and so what is said of the rows before knows it from later ones; give it in"
        " the first row.",
        stacklevel=5,
    )
