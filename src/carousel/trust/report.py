"""The trust report: what stands behind a table of figures, in a few lines that a terminal or JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.trust.leaks import CHECKS, Audit
from carousel.trust.metrics import ece, reliability
from carousel.trust.parts import Part

__all__ = ["Calibration", "Split", "Trust", "balance_of", "calibration_of", "split_of"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Split:
    """What was trained on and what was tested on: by sequence, by time, or both by turns."""

    kind: str
    train: Mapping[str, Any]
    test: Mapping[str, Any]

    def sentence(self) -> str:
        return f"Split {self.kind}: {_side('training', self.train)}; {_side('test', self.test)}."


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error and Brier score of the model, and (mean probability, share, count) of ten bins."""

    ece: float
    brier: float
    bins: tuple[tuple[float, float, int], ...] = ()


@dataclass(frozen=True)
class Trust:
    """`balance`: of each class its share in training (None: not known) and in the test part, and the test count.

    `seeds`: mean and standard deviation of each figure over the members of the ensemble, taken alone. `coverage`: the
    share of truths within each interval, by its nominal percent.
    """

    audit: Audit
    split: Split
    balance: Mapping[str, tuple[float | None, float, int]] = field(default_factory=dict)
    seeds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    members: int = 1
    calibration: Calibration | None = None
    coverage: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "leaks": {
                "found": [asdict(f) for f in self.audit.findings],
                "checked": list(self.audit.checked),
                "unchecked": dict(self.audit.unchecked),
            },
            "split": {"kind": self.split.kind, "train": dict(self.split.train), "test": dict(self.split.test)},
            "balance": {k: {"train": a, "test": b, "count": n} for k, (a, b, n) in self.balance.items()},
            "members": self.members,
            "seeds": {k: {"mean": m, "sd": s} for k, (m, s) in self.seeds.items()},
            "calibration": None if self.calibration is None else asdict(self.calibration),
            "coverage": dict(self.coverage),
        }

    def sentences(self) -> list[str]:
        """The report, a line each: leaks first."""
        found = [f"LEAK ({CHECKS[f.kind]}): {f.sentence}" for f in self.audit.findings]
        if self.audit.checked:
            names = ", ".join(CHECKS[k] for k in self.audit.checked)
            found.append(f"Leaks: {'none' if self.audit.clean else len(found)} found among {names}.")
        if self.audit.unchecked:
            by_reason: dict[str, list[str]] = {}
            for kind, reason in self.audit.unchecked.items():
                by_reason.setdefault(reason, []).append(CHECKS[kind])
            found.append("Not checked: " + "; ".join(f"{', '.join(k)} ({why})" for why, k in by_reason.items()) + ".")
        found.append(self.split.sentence())
        if self.balance:
            found.append("Classes: " + "; ".join(_class(k, *v) for k, v in _largest(self.balance)) + ".")
        if self.members > 1 and self.seeds:
            some = ", ".join(f"{k} {m:.4g} ± {s:.2g}" for k, (m, s) in self.seeds.items())
            found.append(f"Over the {self.members} members alone (mean ± sd): {some}.")
        elif self.members == 1:
            found.append("One seed only: how much another would differ is not known; fit with --seeds 3 or more.")
        if self.calibration is not None:
            c = self.calibration
            found.append(f"Calibration: expected error {c.ece:.3f}, Brier score {c.brier:.4f}.")
        for nominal, share in self.coverage.items():
            found.append(f"Intervals of {nominal} % cover {share:.1%} of the truths.")
        return found


def split_of(train: Part | None, test: Part) -> Split:
    """How the test part lies to the training part, with counts and times of both."""
    if train is None:
        return Split("not known, since the training rows were not given", {}, _counts(test))
    shared = len(set(train.ids.astype(str)) & set(test.ids.astype(str)))
    later = float(test.time.min()) > float(train.time.max())
    if not shared:
        kind = "by sequence" + (", and all test rows are later" if later and train.clock.kind != "row" else "")
    elif later:
        kind = f"by time ({shared:,} sequences go on in the test part)"
    else:
        kind = f"mixed ({shared:,} of {len(test.ids):,} test sequences are in the training part as well)"
    return Split(kind, _counts(train), _counts(test))


def _counts(part: Part) -> dict[str, Any]:
    found: dict[str, Any] = {"sequences": len(part.ids), "rows": len(part.time)}
    if part.clock.kind in ("timestamp", "text"):
        found |= {
            "from": part.clock.describe(float(part.time.min())),
            "to": part.clock.describe(float(part.time.max())),
        }
    return found


def _side(name: str, counts: Mapping[str, Any]) -> str:
    if not counts:
        return f"{name} not known"
    when = f", {counts['from']} to {counts['to']}" if "from" in counts else ""
    return f"{name} {counts['sequences']:,} sequences, {counts['rows']:,} rows{when}"


def balance_of(
    classes: Sequence[str], test: Floats, train: Floats | None
) -> dict[str, tuple[float | None, float, int]]:
    """Of each class its share in training and test, and its count in the test part; codes [n], NaN left out."""
    shares = []
    for codes in (train, test):
        known = None if codes is None else codes[np.isfinite(codes)].astype(np.int64)
        shares.append(None if known is None else np.bincount(known, minlength=len(classes)))
    own, counts = shares
    assert counts is not None
    return {
        name: (
            None if own is None or not own.sum() else float(own[k] / own.sum()),
            float(counts[k] / max(counts.sum(), 1)),
            int(counts[k]),
        )
        for k, name in enumerate(classes)
    }


def calibration_of(truth: NDArray[np.bool_], probability: Floats, brier: float) -> Calibration:
    """Of a probability [n] that something is true; of several classes, of the largest one being right."""
    return Calibration(ece(truth, probability), brier, tuple(reliability(truth, probability)))


def _largest(
    balance: Mapping[str, tuple[float | None, float, int]],
) -> list[tuple[str, tuple[float | None, float, int]]]:
    return sorted(balance.items(), key=lambda item: -item[1][2])[:6]


def _class(name: str, train: float | None, test: float, count: int) -> str:
    return f"{name} {test:.2%} of {'test' if train is not None else 'all'} ({count:,})" + (
        f", {train:.2%} in training" if train is not None else ""
    )
