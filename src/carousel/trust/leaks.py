"""The leak audit: five ways in which a model is told at training or test time what it could not know in use.

1. group: a sequence (or group) is in the training and in the test part, and not simply later in time.
2. future: a column holds what the target will be.
3. duplicates: test sequences, or long runs of rows, are copies of training rows.
4. scaler: scales were fitted on the test part as well, by the model or by whoever prepared the table.
5. target: a column is the target under another name, or whether it is observed tells the class.

Each check looks at numbers alone, so it can be wrong both ways: a finding is a question to answer, not a verdict, and
a clean audit is no proof. What could not be checked is listed with the reason. Kinds after Kaufman et al. 2012 and
Kapoor & Narayanan 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.trust.parts import Part
from carousel.trust.runs import copied_runs, same_sequences
from carousel.trust.scales import Scaler, beyond_training, scaled_by_hand

__all__ = ["CHECKS", "Audit", "Finding", "Scaler", "audit", "check_future", "check_target"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CHECKS = {
    "group": "sequences in two splits",
    "future": "future in features",
    "duplicates": "duplicates across splits",
    "scaler": "scaler fitted beyond training",
    "target": "target among features",
}
LEAST = 30  # pairs, below which nothing is said
LAGS, AHEAD = 5, 16  # rows of the target's past that a column may know, and of its future that it may not
SAMPLE = 50_000  # rows are enough to see a copy
HELD = 0.9  # share of a column's own news that the target's future explains, where the column is called its copy


@dataclass(frozen=True)
class Finding:
    """One suspicion: its kind (see CHECKS), the column or "" where it is about rows, and a sentence with figures."""

    kind: str
    column: str
    sentence: str


@dataclass(frozen=True)
class Audit:
    """What was found, which kinds were looked for, and why others were not."""

    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    unchecked: Mapping[str, str]

    @property
    def clean(self) -> bool:
        return not self.findings


def audit(
    test: Part,
    train: Part | None,
    *,
    per_sequence: bool,
    scalers: Sequence[Scaler] = (),
    group: tuple[Sequence[Any], Sequence[Any]] | None = None,
    ids: bool = True,
    scaled: tuple[Part, Part] | None = None,
    coming: Part | None = None,
    no_train: str = "the training rows were not given",
    known: Sequence[str] | None = None,
    thresholds: bool = True,
) -> Audit:
    """All five checks on two parts; without `train` those that need it are listed as unchecked.

    per_sequence: the target is one label per sequence. `group` are the groups of the training and the test rows
    (patients of several stays), looked at instead of ids; `ids` False: sequences have none that mean anything.
    `scaled`: training and test part with all rows that scales are of, where not all are judged. `coming`: the part
    whose target goes on from row to row, where labels do not (an event that is warned of). `known`: the columns of the
    steps that are asked about (all, but for forecasts the columns known ahead only: a target's own past is no leak
    there). `thresholds`: whether a column of which a threshold tells the class is a finding; of a detector it is none,
    as anomalies are odd values.
    """
    findings: list[Finding] = []
    unchecked: dict[str, str] = {}
    if train is None:
        unchecked = dict.fromkeys(("group", "duplicates", "scaler"), no_train)
    else:
        if group is not None:
            findings += check_shared(*group)
        elif ids:
            findings += check_groups(train, test, per_sequence=per_sequence)
        else:
            unchecked["group"] = "arrays have no ids"
        findings += check_duplicates(train, test, per_sequence=per_sequence)
        findings += check_scalers(*(scaled or (train, test)), scalers)
    both = test if train is None else train
    if per_sequence:
        if len(both.ids) < LEAST:
            unchecked["target"] = f"fewer than {LEAST} sequences"
        findings += check_target_of_sequences(both)
        unchecked["future"] = "a label of the whole sequence has no next value; such columns are looked for as target"
    else:
        findings += check_future(both if coming is None else coming)
        findings += check_target(both, both.names if known is None else tuple(known), thresholds=thresholds)
        if len(both.time) < LEAST:
            unchecked |= dict.fromkeys(("future", "target"), f"fewer than {LEAST} rows")
    return Audit(tuple(findings), tuple(k for k in CHECKS if k not in unchecked), unchecked)


def in_both(train: Part, test: Part, *, per_sequence: bool) -> Ints:
    """Training sequences whose id is in the test part too, not simply later in time (with a label each: at all)."""
    _, a, b = np.intersect1d(train.ids.astype(str), test.ids.astype(str), return_indices=True)
    if per_sequence or not len(a):
        return np.asarray(a, np.int64)
    last, first = train.time[train.offsets[a + 1] - 1], test.time[test.offsets[b]]
    by_time = float(test.time.min()) >= float(train.time.max())
    return np.asarray(a[:0] if by_time else a[first <= last], np.int64)


def check_groups(train: Part, test: Part, *, per_sequence: bool) -> list[Finding]:
    """Ids of both parts, see `in_both`."""
    mixed = in_both(train, test, per_sequence=per_sequence)
    if not len(mixed):
        return []
    some = ", ".join(repr(train.ids[k]) for k in mixed[:3]) + (", ..." if len(mixed) > 3 else "")
    why = "" if per_sequence else ", with test rows that are not later than all training rows"
    return [
        Finding(
            "group",
            "",
            f"{len(mixed):,} of {len(test.ids):,} test sequences are in the training part as well ({some}){why}:"
            " split by sequence, or by one moment for all.",
        )
    ]


def check_shared(train: Sequence[Any], test: Sequence[Any]) -> list[Finding]:
    """Groups of both parts, whenever their rows are."""
    mixed = sorted({str(name) for name in train} & {str(name) for name in test})
    if not mixed:
        return []
    some = ", ".join(map(repr, mixed[:3])) + (", ..." if len(mixed) > 3 else "")
    return [
        Finding(
            "group",
            "",
            f"{len(mixed):,} of {len(test):,} groups of the test part are in the training part as well ({some}): split"
            " by group.",
        )
    ]


def check_duplicates(train: Part, test: Part, *, per_sequence: bool) -> list[Finding]:
    """Copies of whole sequences under other ids, and runs of copied rows that chance does not explain."""
    mixed = train.ids[in_both(train, test, per_sequence=per_sequence)].astype(str)  # of which enough is said
    other = ~np.isin(test.ids.astype(str), mixed)
    if not other.any():
        return []
    test = test.where(other[test.owner])
    pairs = same_sequences(train, test)
    if pairs:
        a, b = pairs[0]
        return [
            Finding(
                "duplicates",
                "",
                f"{len(pairs):,} of {len(test.ids):,} test sequences are copies of training sequences (test"
                f" {test.ids[b]!r} is training {train.ids[a]!r}): drop them from one part.",
            )
        ]
    found = copied_runs(train, test)
    if found is None:
        return []
    return [
        Finding(
            "duplicates",
            "",
            f"{found.windows:,} runs of {found.width} rows in the test part are copies of training rows (the first"
            f" begins in row {found.row} of the test table): drop them from one part.",
        )
    ]


def check_scalers(train: Part, test: Part, scalers: Sequence[Scaler]) -> list[Finding]:
    """Scales that are those of both parts together: in the table itself, or in the model."""
    by_hand = scaled_by_hand(train, test)
    if by_hand:
        named = ", ".join(map(repr, by_hand[:3])) + (", ..." if len(by_hand) > 3 else "")
        return [
            Finding(
                "scaler",
                by_hand[0],
                f"{len(by_hand)} column(s) ({named}) are scaled to both parts together, not to the training rows: scale"
                " with figures of the training rows, or leave it to the model.",
            )
        ]
    share = beyond_training(train, test, scalers)
    if share is None:
        return []
    return [
        Finding(
            "scaler",
            "",
            f"the model's means and scales lie {share:.0%} of the way from the training part's to those of both parts"
            " together: fit scalers on training rows only.",
        )
    ]


def check_future(part: Part) -> list[Finding]:
    """Columns of which the target's next rows explain nearly all that its past does not.

    A column's own news, the residual on the target's present and past, is compared with the target's coming news: a
    copy shifted ahead, a centred mean or a noisy look ahead give a share near 1, a real leading indicator seldom 0.5.
    """
    y = part.target
    k = np.arange(len(y))
    end = np.repeat(part.offsets[1:], part.lengths)
    start = np.repeat(part.offsets[:-1], part.lengths)
    ahead = int(min(AHEAD, max(1, np.median(part.lengths) // 4)))
    rows = k[(k - LAGS + 1 >= start) & (k + ahead < end)]
    if len(rows) < 2 * LEAST + LAGS + ahead:
        return []
    past = y[rows[:, None] - np.arange(LAGS)]  # [n, LAGS]
    future = y[rows[:, None] + np.arange(1, ahead + 1)]
    whole = np.isfinite(past).all(1) & np.isfinite(future).all(1)
    found = []
    for c, name in enumerate(part.names):
        if name in part.static or name in part.categorical:
            continue
        fine = whole & np.isfinite(part.values[rows, c])
        pick = np.flatnonzero(fine)
        if len(pick) < 2 * LEAST + LAGS + ahead:
            continue
        if len(pick) > SAMPLE:
            pick = pick[:: -(-len(pick) // SAMPLE)]
        share, step = _held(part.values[rows[pick], c], past[pick], future[pick])
        if share > HELD:
            what = f"its value {step} rows later" if step else "its next rows"
            found.append(
                Finding(
                    "future",
                    name,
                    f"{name!r} holds the target's future: {what} explain{'s' if step else ''} {share:.0%} of what the"
                    " target's past does not; lag the column until it is known in time, or leave it out.",
                )
            )
    return found


def _held(f: Floats, past: Floats, future: Floats) -> tuple[float, int]:
    """The share of the column's news that the future explains, and the step that does it alone (0: only together)."""
    design = np.column_stack([np.ones(len(f)), past])
    basis, _ = np.linalg.qr(design - np.r_[0.0, past.mean(0)])
    news = f - f.mean()
    total = float(news @ news)
    news = news - basis @ (basis.T @ news)
    centred = future - future.mean(0)
    coming = centred - basis @ (basis.T @ centred)
    left = np.square(coming).sum(0)
    enough = left > 1e-8 * np.square(centred).sum(0)  # the past does not settle it already
    own = float(news @ news)
    if total == 0 or own < 1e-8 * total or not enough.any():
        return 0.0, 0
    alone = np.where(enough, np.square(coming.T @ news) / np.where(enough, left, 1) / own, 0)
    if alone.max() > HELD:
        return float(alone.max()), int(alone.argmax()) + 1
    first = coming[:, enough][:, :8]
    fitted = first @ np.linalg.lstsq(first, news, rcond=None)[0]
    return 1 - float(np.square(news - fitted).sum()) / own, 0


def check_target(part: Part, names: Sequence[str], *, thresholds: bool = True) -> list[Finding]:
    """Columns of a row that are the row's own target, a monotone function of it, or observed for one class alone."""
    step = np.diff(part.target)
    inner = np.ones(len(step), bool)
    inner[part.offsets[1:-1] - 1] = False
    found = []
    for name in names:
        if name in part.static:
            continue
        column = part.values[:, part.names.index(name)]
        reason = _is_target(column, part.target, inner & np.isfinite(step), name in part.categorical, thresholds)
        if reason:
            found.append(Finding("target", name, f"{name!r} {reason}; leave the column out."))
    return found


def check_target_of_sequences(part: Part) -> list[Finding]:
    """As `check_target`, of a label per sequence: the last, largest and mean value of each column, and its presence."""
    y = part.target[part.offsets[:-1]]
    found = []
    for c, name in enumerate(part.names):
        values = part.values[:, c]
        seen = np.isfinite(values)
        count = np.add.reduceat(seen.astype(np.int64), part.offsets[:-1])
        total = np.add.reduceat(np.where(seen, values, 0.0), part.offsets[:-1])
        place = np.maximum.accumulate(np.where(seen, np.arange(len(values)), -1))[part.offsets[1:] - 1]
        some = count > 0
        last = np.where(some, values[np.maximum(place, 0)], np.nan)
        mean = np.where(some, total / np.maximum(count, 1), np.nan)
        peak = np.where(some, np.maximum.reduceat(np.where(seen, values, -np.inf), part.offsets[:-1]), np.nan)
        for summary in (last, mean, peak):
            reason = _is_target(summary, y, None, name in part.categorical, True)
            if reason:
                found.append(Finding("target", name, f"{name!r} {reason}; leave the column out."))
                break
    return found


def _is_target(f: Floats, y: Floats, steps: NDArray[np.bool_] | None, category: bool, thresholds: bool) -> str | None:
    """Why the column `f` is the target `y` (NaN allowed in both), or None. `steps`: pairs of rows to difference."""
    known = np.isfinite(y)
    seen = known & np.isfinite(f)
    classes, code = np.unique(y[known], return_inverse=True)
    if known.sum() < LEAST or len(classes) < 2:
        return None
    few = len(classes) <= max(20, 0.01 * known.sum()) and len(classes) < 0.2 * known.sum()
    if few and len(classes) == 2:
        there = np.isfinite(f[known])
        rare = min((code == 0).sum(), (code == 1).sum())
        if rare >= 10 and (there == (code == 1)).mean() in (0.0, 1.0):
            return "is observed in one class only, so that whether it is there tells the class"
    if seen.sum() < LEAST:
        return None
    if few:
        return _one_to_one(f[seen], y[seen], category, thresholds)
    return _monotone(f, y, seen, steps)


def _one_to_one(f: Floats, y: Floats, category: bool, thresholds: bool) -> str | None:
    """Classes: each value of the column, or range of values, belongs to one class, or classes are levels of it with
    next to no spread."""
    classes, code = np.unique(y, return_inverse=True)
    counts = np.bincount(code)
    if len(classes) < 2 or np.sort(counts)[-2] < 10:
        return None
    values, place = np.unique(f, return_inverse=True)
    if len(values) <= 2 * len(classes):
        table = np.zeros((len(values), len(classes)), np.int64)
        np.add.at(table, (place, code), 1)
        if (table > 0).sum(1).max() == 1:
            return "tells the class in every row: it is the target under another name"
        return None
    if category:
        return None
    if thresholds and counts.min() >= 10 and _apart(f, code):
        return "tells the class in every row by its size alone"
    means = np.bincount(code, f) / counts
    within = float(np.square(f - means[code]).mean())
    if within < 1e-3 * float(f.var()) and np.unique(np.round(means, 12)).size == len(classes):
        return "is the target but for noise of a few percent"
    return None


def _apart(f: Floats, code: Ints) -> bool:
    """The values of each class lie in a range of their own; of two classes the AUROC is 0 or 1."""
    low, high = np.full(code.max() + 1, np.inf), np.full(code.max() + 1, -np.inf)
    np.minimum.at(low, code, f)
    np.maximum.at(high, code, f)
    order = np.argsort(low)
    return bool((high[order][:-1] < low[order][1:]).all())


def _monotone(f: Floats, y: Floats, seen: NDArray[np.bool_], steps: NDArray[np.bool_] | None) -> str | None:
    """Numbers: the column is a monotone function of the target, to within 1 % of what the target moves in a row."""
    order = np.argsort(y[seen], kind="stable")
    ranks = np.empty(len(order))
    ranks[np.argsort(f[seen], kind="stable")] = np.arange(len(order))
    climb = np.corrcoef(np.arange(len(order)), ranks[order])[0, 1] if np.ptp(f[seen]) > 0 else 0.0
    if not abs(climb) > 0.99:
        return None
    fit = _isotonic(np.sign(climb) * f[seen][order])
    g = np.full(len(f), np.nan)
    g[np.flatnonzero(seen)[order]] = np.sign(climb) * fit
    noise = float(np.square(f[seen] - g[seen]).mean())
    if steps is None:
        scale = float(np.var(f[seen])) * 0.1
    else:
        pairs = np.flatnonzero(steps)
        pairs = pairs[seen[pairs] & seen[pairs + 1]]
        if len(pairs) < LEAST:
            return None
        scale = float(np.square(g[pairs + 1] - g[pairs]).mean())
    if noise < 0.01 * scale:
        return "is the target, or a monotone function of it"
    return None


def _isotonic(values: Floats) -> Floats:
    """The closest non-decreasing sequence (pool adjacent violators, Ayer et al. 1955)."""
    from sklearn.isotonic import isotonic_regression

    found: Floats = isotonic_regression(values)
    return found
