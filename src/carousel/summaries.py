"""Baselines that need no network, for labels and numbers of sequences or rows: what every LSTM must stand beside.

Prior (majority or mean), last values (with their slope), a linear or logistic model and histogram gradient boosting on
summaries of each window: last, first, mean, smallest, largest, spread, slope, count and age of every column. Summaries
of a row look at that row and those before it only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.trust.parts import Part

__all__ = ["BASELINES", "predictions", "row_summaries", "sequence_summaries"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BASELINES = ("prior", "last values", "linear on summaries", "boosted trees on summaries")
WINDOWS = (5, 20)  # rows that rolling summaries look back on
MOST = {
    "linear on summaries": 50_000,
    "last values": 50_000,
    "boosted trees on summaries": 200_000,
}  # rows to learn from


def sequence_summaries(part: Part) -> tuple[Floats, tuple[str, ...]]:
    """[B, D] of whole sequences, and the names of the summaries; NaN where a column was never observed.

    >>> from carousel.trust.parts import read_parts
    >>> import polars as pl
    >>> frame = pl.DataFrame({"id": [1, 1, 1], "t": [0, 1, 2], "x": [3.0, None, 5.0], "y": [0, 0, 0]})
    >>> (part,) = read_parts([frame], id="id", time="t", target="y", names=["x"], sources=["data"])
    >>> values, names = sequence_summaries(part)
    >>> dict(zip(names, values[0].tolist()))["x slope"]
    1.0
    """
    start, end = part.offsets[:-1], part.offsets[1:] - 1
    since = part.time - np.repeat(part.time[start], part.lengths)
    made: dict[str, Floats] = {"rows": part.lengths.astype(float), "duration": since[end]}
    for k, name in enumerate(part.names):
        x = part.values[:, k]
        seen = np.isfinite(x)
        order = np.arange(len(x))
        last = np.maximum.accumulate(np.where(seen, order, -1))[end]
        last = np.where(last >= start, last, -1)
        made[f"{name} last"] = np.where(last >= 0, x[last], np.nan)
        if name in part.categorical or name in part.static:
            continue
        some = last >= 0
        first = np.minimum.accumulate(np.where(seen, order, len(x))[::-1])[::-1][start]
        count = np.add.reduceat(seen.astype(float), start)
        filled = np.where(seen, x, 0.0)
        mean = np.add.reduceat(filled, start) / np.maximum(count, 1)
        rest = np.where(seen, x - np.repeat(mean, part.lengths), 0.0)
        moment = np.add.reduceat(np.where(seen, since, 0.0), start) / np.maximum(count, 1)
        late = np.where(seen, since - np.repeat(moment, part.lengths), 0.0)
        spread = np.add.reduceat(np.square(late), start)
        slope = np.add.reduceat(rest * late, start) / np.where(spread > 0, spread, np.nan)
        made[f"{name} first"] = np.where(some, x[np.minimum(first, len(x) - 1)], np.nan)
        made[f"{name} mean"] = np.where(some, mean, np.nan)
        made[f"{name} min"] = np.where(some, np.minimum.reduceat(np.where(seen, x, np.inf), start), np.nan)
        made[f"{name} max"] = np.where(some, np.maximum.reduceat(np.where(seen, x, -np.inf), start), np.nan)
        made[f"{name} sd"] = np.where(some, np.sqrt(np.add.reduceat(rest * rest, start) / np.maximum(count, 1)), np.nan)
        made[f"{name} slope"] = slope
        made[f"{name} count"] = count
        made[f"{name} age"] = np.where(some, since[end] - since[np.maximum(last, 0)], np.nan)
    return np.stack(list(made.values()), 1), tuple(made)


def row_summaries(part: Part) -> tuple[Floats, tuple[str, ...]]:
    """[N, D] of each row and those before it in its sequence, and the names of the summaries."""
    import polars as pl

    start = np.repeat(part.offsets[:-1], part.lengths)
    order = np.arange(len(part.time))
    begin = order == start
    made: dict[str, Floats] = {
        "rows": (order - start + 1).astype(float),
        "since the first row": part.time - part.time[start],
        "since the row before": np.where(begin, np.nan, np.diff(part.time, prepend=part.time[:1])),
    }
    owner = pl.Series("owner", part.owner)
    for k, name in enumerate(part.names):
        x = part.values[:, k]
        made[name] = x
        if name in part.categorical or name in part.static:
            continue
        seen = np.isfinite(x)
        last = np.maximum.accumulate(np.where(seen, order, -1))
        last = np.where(last >= start, last, -1)
        held = np.where(last >= 0, x[np.maximum(last, 0)], np.nan)
        before = np.where(begin, -1, np.concatenate([[-1], last[:-1]]))
        made[f"{name} last"] = held
        made[f"{name} age"] = np.where(last >= 0, part.time - part.time[np.maximum(last, 0)], np.nan)
        step = part.time - part.time[np.maximum(before, 0)]
        made[f"{name} slope"] = np.where(
            seen & (before >= 0), (x - x[np.maximum(before, 0)]) / np.where(step > 0, step, np.nan), np.nan
        )
        frame = pl.DataFrame({"owner": owner, "x": x}).with_columns(pl.col("x").fill_nan(None))
        rolled = frame.select(
            *(
                getattr(pl.col("x"), f"rolling_{kind}")(width, min_samples=1).over("owner").alias(f"{kind} {width}")
                for width in WINDOWS
                for kind in ("mean", "min", "max")
            ),
            (pl.col("x").fill_null(0.0).cum_sum() / pl.col("x").cum_count()).over("owner").alias("mean so far"),
        )
        made |= {
            f"{name} {column}": rolled[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
            for column in rolled.columns
        }
    return np.stack(list(made.values()), 1), tuple(made)


def last_values(summaries: Floats, names: Sequence[str], columns: Sequence[str]) -> Floats:
    """Of the summaries those that tell where a column stands now and whither it goes."""
    wanted = {f"{name} {kind}" for name in columns for kind in ("last", "slope")}
    wanted |= {name for name in columns if f"{name} last" not in names}
    kept = [k for k, name in enumerate(names) if name in wanted]
    return summaries[:, kept] if kept else summaries


def predictions(
    train: Floats,
    truth: NDArray[Any],
    test: Floats,
    names: Sequence[str],
    columns: Sequence[str],
    *,
    classes: int,
    seed: int = 0,
    which: Sequence[str] = BASELINES,
) -> dict[str, Floats]:
    """What each baseline, fitted on summaries [n, D] and their truth [n], says of the test's: [m, C], or [m] numbers.

    `truth` are codes 0 ... classes - 1, or numbers where classes is 0. Large tables are sampled (see MOST).
    """
    found: dict[str, Floats] = {}
    rng = np.random.default_rng(seed)
    for name in which:
        if name == "prior":
            share = np.bincount(truth.astype(int), minlength=classes) / len(truth) if classes else None
            found[name] = np.tile(share, (len(test), 1)) if share is not None else np.full(len(test), truth.mean())
            continue
        a, b = (last_values(x, names, columns) for x in (train, test)) if name == "last values" else (train, test)
        pick = np.arange(len(a)) if len(a) <= MOST[name] else np.sort(rng.choice(len(a), MOST[name], replace=False))
        a, y = a[pick], truth[pick]
        if name.startswith("boosted"):  # which cannot bin a column that its own training part has no value of
            known = np.isfinite(a).sum(0) >= min(FEW, len(a))
            a, b = (x[:, known] if known.any() else np.zeros((len(x), 1)) for x in (a, b))
        model = _boosted(classes, seed, _can_split(y, classes)) if name.startswith("boosted") else _linear(classes, a)
        if classes and len(np.unique(y)) < 2:
            made = np.zeros((len(b), classes))
            made[:, int(y[0])] = 1
        elif classes:
            model.fit(a, y.astype(int))
            made = np.zeros((len(b), classes))
            made[:, model.classes_] = model.predict_proba(b)
        else:
            made = np.asarray(model.fit(a, y).predict(b), np.float64)
        found[name] = made
    return found


FEW = 20  # values


def _linear(classes: int, train: Floats) -> Any:
    """Medians where nothing was seen, a flag for that, scaled columns, an L2 penalty."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    missing = bool(np.isnan(train).any())
    last = LogisticRegression(C=0.1, max_iter=500) if classes else Ridge(1.0)
    clip = FunctionTransformer(np.clip, kw_args={"a_min": -10, "a_max": 10})
    return make_pipeline(
        SimpleImputer(strategy="median", add_indicator=missing, keep_empty_features=True), StandardScaler(), clip, last
    )


def _can_split(truth: NDArray[Any], classes: int) -> bool:
    """Whether early stopping can hold out a tenth with all classes in it, as scikit-learn wants."""
    if not classes:
        return True
    counts = np.unique(truth, return_counts=True)[1]
    return bool(counts.min() >= 2 and len(truth) >= 10 * len(counts))


def _boosted(classes: int, seed: int, early: bool) -> Any:
    """Histogram gradient boosting with scikit-learn's defaults but for a slower rate and early stopping."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    settings: Mapping[str, Any] = {
        "learning_rate": 0.05,
        "max_iter": 300,
        "l2_regularization": 1.0,
        "early_stopping": early,
        "random_state": seed,
    }
    return HistGradientBoostingClassifier(**settings) if classes else HistGradientBoostingRegressor(**settings)
