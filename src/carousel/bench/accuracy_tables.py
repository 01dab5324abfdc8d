"""Accuracy on public tables of sequences: intensive care, card fraud, turbofans, glucose."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from carousel.bench import sets
from carousel.bench.accuracy import Figures, Outcome, Stopwatch, over_seeds
from carousel.classifier import Classifier
from carousel.evaluate_sequences import evaluate
from carousel.summaries import BASELINES
from carousel.tagger import Tagger
from carousel.trust.tables import SequenceEvaluation

if TYPE_CHECKING:
    import polars as pl

__all__ = ["cgm", "cmapss", "fraud", "physionet"]

Floats = NDArray[np.float64]
Estimator = TypeVar("Estimator", Classifier, Tagger)


def repeat(
    make: Callable[[int], Any], train: Any, test: Any, seeds: Sequence[int], watch: Stopwatch
) -> list[SequenceEvaluation]:
    """Fit with each seed on `train` and evaluate on `test`; baselines, which hardly vary, with the first."""
    found = []
    for k, seed in enumerate(seeds):
        with watch:
            model = make(seed).fit(train)
        found.append(evaluate(model, test, train=train, baselines=BASELINES if not k else ()))
    return found


def seeded(estimator: Estimator, seed: int, **settings: Any) -> Estimator:
    """With the seed and the settings in the config of training."""
    config = dataclasses.replace(estimator.settings, seed=1000 * seed, **settings)
    estimator.set_params(config=config)
    return estimator


def leaks(found: Sequence[SequenceEvaluation]) -> tuple[str, ...]:
    return tuple(f"leak audit: {f.sentence}" for f in found[0].trust.audit.findings) or ("leak audit: none found",)


def physionet(seeds: Sequence[int] = (0, 1, 2)) -> Outcome:
    """Train on set a, test on set b, in-hospital death."""
    train, test = sets.physionet("a", hourly=True), sets.physionet("b", hourly=True)

    def make(seed: int) -> Classifier:
        return seeded(
            Classifier(
                "death",
                id="record_id",
                time="minute",
                long=("parameter", "value"),
                static=sets.PHYSIONET_STATIC,
                categorical=("ICUType",),
                seeds=5,
            ),
            seed,
        )

    watch = Stopwatch()
    found = repeat(make, train, test, seeds, watch)
    keep = ("auroc", "ap", "balanced_accuracy", "log_loss", "ece")
    rows, sd = over_seeds([one.rows for one in found], keep)
    return Outcome(
        "physionet",
        "PhysioNet 2012: death in hospital from 48 hours of irregular readings (means of each hour), trained on set a,"
        " tested on set b; the kind of unit is a category.",
        "seeds=5",
        len(seeds),
        rows,
        sd,
        {"auroc": (">=", 0.860), "ap": (">=", 0.53)},
        watch.seconds,
        {"boosted trees on mean/min/max/last/count": {"auroc": 0.858, "ap": 0.526}},
        leaks(found),
    )


HISTORY = 14  # days of transactions that the model reads before the labelled week


def fraud(seeds: Sequence[int] = (0, 1, 2)) -> Outcome:
    """Labels of 25 to 31 July for training, 8 to 14 August for the test; earlier rows are context without labels."""
    train, test = (labelled_week(first) for first in (115, 129))

    def make(seed: int) -> Tagger:
        return seeded(Tagger("fraud", id="card", time="second", seeds=3), seed)

    watch = Stopwatch()
    found = repeat(make, train, test, seeds, watch)
    rows, sd = over_seeds([one.rows for one in found], ("auroc", "ap", "log_loss", "ece"))
    return Outcome(
        "fraud",
        "Simulated card fraud: labels of 25 to 31 July 2018 for training, tested on 8 to 14 August; transactions of the"
        f" {HISTORY} days before are read without their labels; terminal fraud rates are known 7 days late.",
        "seeds=3",
        len(seeds),
        rows,
        sd,
        {"ap": (">=", 0.55), "auroc": (">=", 0.88)},
        watch.seconds,
        {
            "boosted trees on 5 features": {"auroc": 0.882, "ap": 0.471},
            "handbook LSTM, about": {"auroc": 0.86, "ap": 0.65},
        },
        leaks(found),
    )


def labelled_week(first: int) -> pl.DataFrame:
    """Transactions of the seven days from `first` on, and without labels those of the days before."""
    import polars as pl

    known = pl.col("second") >= first * sets.DAY
    return sets.fraud(first - HISTORY, first + 7).with_columns(pl.when(known).then("fraud").alias("fraud"))


def cmapss(seeds: Sequence[int] = (0, 1, 2)) -> Outcome:
    """Remaining life at the last row of each test engine; learned up to 125 cycles, scored against the whole truth."""
    import polars as pl

    train, test = sets.cmapss("train"), sets.cmapss("test")
    last = pl.col("cycle") == pl.col("cycle").max().over("engine")
    test = test.with_columns(pl.when(last).then("rul").alias("rul"))
    features = [name for name in train.columns if name not in ("engine", "cycle", "rul")]

    def make(seed: int) -> Tagger:
        return seeded(Tagger("rul", id="engine", time="cycle", features=features, kind="regression", seeds=3), seed)

    watch = Stopwatch()
    found = repeat(make, train, test, seeds, watch)
    rows, sd = over_seeds([one.rows for one in found], ("rmse", "mae", "coverage"))
    return Outcome(
        "cmapss",
        "C-MAPSS FD001: remaining life at the last row of each of 100 engines, trained with a limit of 125 cycles,"
        " scored against the whole truth (up to 145).",
        "seeds=3",
        len(seeds),
        rows,
        sd,
        {"rmse": ("<=", 16.0)},
        watch.seconds,
        {"deep LSTM (Zheng 2017)": {"rmse": 16.14}, "boosted trees, 15-step means": {"rmse": 20.18}},
        leaks(found),
    )


def cgm(seeds: Sequence[int] = (0, 1, 2), folds: int = 4) -> Outcome:
    """Low glucose (below 70 mg/dl) within 30 minutes, cross-validated over people."""
    import polars as pl

    minutes = (pl.col("time") - pl.col("time").min().over("id")).dt.total_seconds() / 60
    whole = sets.cgm().with_columns(minutes.alias("minute"))  # dates would tell one person from another
    people = sorted(whole["id"].unique().to_list())
    often = dict(whole.group_by("id").agg(pl.col("low").sum()).iter_rows())
    people.sort(key=lambda name: -often[name])  # those with many events are spread over the folds
    watch = Stopwatch()
    by_seed: list[Mapping[str, Figures]] = []
    found: list[SequenceEvaluation] = []
    for k, seed in enumerate(seeds):
        parts = []
        for fold in range(folds):
            inside = pl.col("id").is_in(people[fold::folds])
            model = seeded(Tagger(event="low", ahead=30, id="id", time="minute", features=["gl"], seeds=3), seed)
            with watch:
                model.fit(whole.filter(~inside))
            parts.append(
                evaluate(
                    model,
                    whole.filter(inside),
                    train=whole.filter(~inside),
                    baselines=BASELINES if not k else (),
                )
            )
        by_seed.append(over_folds(parts))
        found += parts
    rows, sd = over_seeds(by_seed, ("auroc", "ap", "events warned", "alarms a day", "median lead (min)", "ece"))
    beaten = rows["last values"]
    assert beaten["auroc"] is not None
    assert beaten["events warned"] is not None
    return Outcome(
        "cgm",
        f"Glucose below 70 mg/dl within 30 minutes, 19 people, {folds}-fold over people; baselines alarm as often as"
        " the LSTM does ('last values' are the last reading and its slope).",
        "seeds=3",
        len(seeds),
        rows,
        sd,
        {"auroc": (">=", beaten["auroc"]), "events warned": (">=", beaten["events warned"])},
        watch.seconds,
        {},
        leaks(found),
    )


def over_folds(parts: Sequence[SequenceEvaluation]) -> dict[str, Figures]:
    """Means over folds of metrics; of events the share of all that were warned of."""
    made: dict[str, Figures] = {}
    for name in parts[0].rows:
        row: dict[str, float | None] = {}
        for figure in ("auroc", "ap", "ece"):
            known = [v for part in parts if (v := part.rows[name][figure]) is not None]
            row[figure] = float(np.mean(known)) if known else None
        all_of_them = [part.warnings.by[name] for part in parts if part.warnings is not None]
        events = sum(w.events for w in all_of_them)
        leads = [w.lead_median for w in all_of_them if w.lead_median is not None]
        row["events warned"] = sum(w.warned for w in all_of_them) / events if events else None
        row["alarms a day"] = sum(w.alarms for w in all_of_them) * 1440 / sum(w.span for w in all_of_them)
        row["median lead (min)"] = float(np.mean(leads)) if leads else None
        made[name] = row
    return made
