"""Five kinds of leaks are planted and found, each with the others absent; clean tables of many kinds raise none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from carousel.bench import sets
from carousel.errors import DataError
from carousel.trust.leaks import CHECKS, Audit, audit
from carousel.trust.parts import Part, read_parts
from carousel.trust.scales import Scaler, scaled_by_hand

Frames = tuple[pl.DataFrame, pl.DataFrame]
COLUMNS = ("pulse", "load", "ward")


def table(seed: int, sequences: int = 60, first: int = 0, gaps: float = 0.2, labels: bool = False) -> pl.DataFrame:
    """Ragged random walks with gaps, a category, and a target: the walk's smooth sum, or a rare label of its level."""
    rng = np.random.default_rng([seed, first])
    tables = []
    for k in range(sequences):
        n = int(rng.integers(20, 60))
        pulse = 70 + np.cumsum(rng.normal(size=n))
        load = 0.7 * pulse + 5 * rng.normal(size=n)
        y = np.convolve(pulse, np.ones(3) / 3, "full")[:n] + 3 * rng.normal(size=n)
        seen = rng.random(n) >= gaps
        tables.append(
            pl.DataFrame(
                {
                    "id": first + k,
                    "t": np.cumsum(rng.exponential(1.0, n)),
                    "pulse": np.where(seen, pulse, np.nan),
                    "load": load,
                    "ward": rng.choice(["a", "b", "c"], n),
                    "y": (y > 72).astype(float) if labels else y,
                }
            )
        )
    return pl.concat(tables)


def scalers(part: Part) -> list[Scaler]:
    return [
        Scaler(n, float(np.nanmean(part.values[:, k])), float(np.nanstd(part.values[:, k])))
        for k, n in enumerate(part.names)
        if n not in part.categorical
    ]


def examine(train: pl.DataFrame, test: pl.DataFrame, per_sequence: bool = False, **more: Any) -> Audit:
    names = [c for c in train.columns if c not in ("id", "t", "y")]
    a, b = read_parts([train, test], id="id", time="t", target="y", names=names, sources=("train", "test"))
    return audit(b, a, per_sequence=per_sequence, **({"scalers": scalers(a)} | more))


def ahead(steps: int) -> pl.Expr:
    return pl.col("y").shift(-steps).over("id")


def noise(seed: int, frame: pl.DataFrame) -> pl.Series:
    return pl.Series(np.random.default_rng(seed).normal(size=len(frame)))


PLANTED: dict[str, tuple[str, Callable[[pl.DataFrame, pl.DataFrame, int], Frames]]] = {
    "an id in both parts": ("group", lambda a, b, s: (a, b.with_columns(pl.col("id") - b["id"].min() + 59))),
    "a copy one step ahead": ("future", lambda a, b, s: (a.with_columns(f=ahead(1)), b.with_columns(f=ahead(1)))),
    "a copy three steps ahead": ("future", lambda a, b, s: (a.with_columns(f=ahead(3)), b.with_columns(f=ahead(3)))),
    "a noisy look ahead": (
        "future",
        lambda a, b, s: (
            a.with_columns(f=ahead(2) * 2 + 0.5 * noise(s, a)),
            b.with_columns(f=ahead(2) * 2 + 0.5 * noise(s + 1, b)),
        ),
    ),
    "a centred mean": (
        "future",
        lambda a, b, s: tuple(x.with_columns(f=pl.col("y").rolling_mean(5, center=True).over("id")) for x in (a, b)),
    ),
    "sequences under new ids": (
        "duplicates",
        lambda a, b, s: (a, pl.concat([b, a.filter(pl.col("id") < 2).with_columns(pl.col("id") + 9000)])),
    ),
    "a run of rows": (
        "duplicates",
        lambda a, b, s: (
            a,
            pl.concat([b, a.filter(pl.col("id") == 3).slice(2, 17).with_columns(pl.lit(9000, pl.Int32).alias("id"))]),
        ),
    ),
    "the target itself": ("target", lambda a, b, s: (a.with_columns(f="y"), b.with_columns(f="y"))),
    "a monotone function of it": (
        "target",
        lambda a, b, s: (a.with_columns(f=-(pl.col("y") / 40).exp()), b.with_columns(f=-(pl.col("y") / 40).exp())),
    ),
    "the target with small noise": (
        "target",
        lambda a, b, s: (
            a.with_columns(f=pl.col("y") + 0.1 * noise(s, a)),
            b.with_columns(f=pl.col("y") + 0.1 * noise(s + 1, b)),
        ),
    ),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_leak_is_found_and_no_other_is_seen(name: str, seed: int) -> None:
    kind, plant = PLANTED[name]
    train, test = plant(table(seed), table(seed, first=1000), seed)
    found = examine(train.with_columns(pl.col("id").cast(pl.Int32)), test.with_columns(pl.col("id").cast(pl.Int32)))
    assert {f.kind for f in found.findings} == {kind}
    if kind in ("future", "target"):
        assert [f.column for f in found.findings] == ["f"]
    assert set(found.checked) == set(CHECKS)


@pytest.mark.parametrize("seed", range(3))
def test_scales_of_both_parts_are_found_in_the_model_and_in_the_table(seed: int) -> None:
    train, test = table(seed), table(seed, first=1000)
    both = pl.concat([train, test])
    names = list(COLUMNS)
    (whole,) = read_parts([both], id="id", time="t", target="y", names=names, sources=("both",))
    (own,) = read_parts([train], id="id", time="t", target="y", names=names, sources=("train",))
    assert [f.kind for f in examine(train, test, scalers=scalers(whole)).findings] == ["scaler"]
    assert examine(train, test, scalers=scalers(own)).clean
    held_out = own.where(np.isin(own.owner, np.random.default_rng(seed).permutation(60)[:48]))
    assert examine(train, test, scalers=scalers(held_out)).clean  # a model that holds out some sequences

    by_hand = (pl.col("load") - both["load"].mean()) / both["load"].std(ddof=0)
    found = examine(train.with_columns(load=by_hand), test.with_columns(load=by_hand)).findings
    assert [(f.kind, f.column) for f in found] == [("scaler", "load")]
    low, high = both["load"].min(), both["load"].max()
    span = (pl.col("load") - low) / (high - low)
    found = examine(train.with_columns(load=span), test.with_columns(load=span)).findings
    only_train = low == train["load"].min() and high == train["load"].max()
    assert [f.kind for f in found] == ([] if only_train else ["scaler"])


def test_rounded_shares_are_not_scaled_by_hand_and_scaled_columns_are() -> None:
    train, test = table(0), table(0, first=1000)
    rows = (len(train), len(test))
    names = ["share", "odds"]

    def found(seed: int, decimals: int) -> list[str]:
        rng = np.random.default_rng(seed)
        made = []
        for frame, n in zip((train, test), rows, strict=True):
            columns = {"share": rng.random(n).round(decimals), "odds": rng.beta(0.8, 0.8, n).round(decimals)}
            made.append(frame.with_columns(**{name: pl.Series(x) for name, x in columns.items()}))
        a, b = read_parts(made, id="id", time="t", target="y", names=names, sources=("train", "test"))
        return scaled_by_hand(a, b)

    assert [found(seed, decimals) for seed in range(100) for decimals in (2, 3)] == [[]] * 200
    load = pl.concat([train, test])["load"]
    scaled = (pl.col("load") - load.min()) / (load.max() - load.min())
    parts = [frame.with_columns(load=scaled) for frame in (train.filter(pl.col("load") < load.max()), test)]
    whole = [parts[0], pl.concat([parts[1], train.filter(pl.col("load") == load.max()).with_columns(load=scaled)])]
    a, b = read_parts(whole, id="id", time="t", target="y", names=["load"], sources=("train", "test"))
    assert scaled_by_hand(a, b) == ["load"]


@pytest.mark.parametrize("seed", range(3))
def test_a_column_that_a_threshold_turns_into_the_class_is_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    died = np.arange(400) % 4 == 0
    hours = np.where(died, rng.integers(1, 49, 400), 0).astype(float)
    frame = pl.DataFrame(
        {"id": np.arange(400), "t": 0.0, "y": died.astype(float), "hours": hours, "x": rng.random(400)}
    )
    found = examine(frame, frame.with_columns(pl.col("id") + 1000, pl.col("x") + 2), per_sequence=True).findings
    assert [(f.kind, f.column) for f in found if f.kind == "target"] == [("target", "hours")]
    one = frame.with_columns(hours=pl.when(pl.col("id") == 4).then(0.0).otherwise(pl.col("hours")))  # one that overlaps
    found = examine(one, one.with_columns(pl.col("id") + 1000, pl.col("x") + 2), per_sequence=True).findings
    assert [f for f in found if f.kind == "target"] == []


@pytest.mark.parametrize("labels", [False, True], ids=["numbers", "labels"])
@pytest.mark.parametrize("seed", range(12))
def test_a_clean_split_raises_none(seed: int, labels: bool) -> None:
    found = examine(table(seed, labels=labels), table(seed, 30, 1000, labels=labels))
    assert found.findings == ()
    assert found.unchecked == {}


@pytest.mark.parametrize("seed", range(3))
def test_a_split_by_time_is_clean_and_one_with_earlier_test_rows_is_not(seed: int) -> None:
    whole = table(seed)
    cut = float(np.median(whole["t"]))
    train, test = whole.filter(pl.col("t") <= cut), whole.filter(pl.col("t") > cut)
    assert examine(train, test).clean
    mixed = np.random.default_rng(seed).random(len(whole)) < 0.7
    found = examine(whole.filter(mixed), whole.filter(~mixed))
    assert [f.kind for f in found.findings] == ["group"]
    assert [f.kind for f in examine(train, test, per_sequence=True).findings] == ["group"]  # a label is one of both


def test_labels_of_sequences_given_away_by_a_value_or_by_its_presence() -> None:
    rng = np.random.default_rng(0)
    train, test = table(1), table(1, first=1000)
    died = {k: float(rng.random() < 0.3) for k in (*range(60), *range(1000, 1060))}
    label = pl.col("id").replace_strict(died, return_dtype=pl.Float64)
    train, test = train.with_columns(y=label), test.with_columns(y=label)
    assert examine(train, test, per_sequence=True).clean
    code = pl.when(pl.col("y") == 1).then(pl.lit("X59")).otherwise(pl.lit("Z00"))
    for leak in (code, 4 - 3 * pl.col("y"), pl.when(pl.col("y") == 1).then(pl.col("load"))):
        found = examine(train.with_columns(f=leak), test.with_columns(f=leak), per_sequence=True)
        assert [(f.kind, f.column) for f in found.findings] == [("target", "f")]


def test_regular_and_repetitive_tables_are_no_false_alarm() -> None:
    """Noiseless waves, counters, flags and few categories recur by nature, and are no copies."""
    t = np.arange(400.0)
    for columns in (
        {"pulse": np.sin(t / 5), "load": np.round(np.cos(t / 7), 1), "ward": np.where(t % 3 == 0, "a", "b")},
        {"pulse": t % 24, "load": t % 7, "ward": np.where(t % 2 == 0, "a", "b")},
        {"pulse": np.zeros(400), "load": (t % 10 == 0) * 1.0, "ward": ["a"] * 400},
    ):
        y = np.random.default_rng(0).normal(size=400)
        frame = pl.DataFrame({"id": np.arange(400) // 40, "t": t, "y": y} | columns)
        found = examine(frame.filter(pl.col("id") < 7), frame.filter(pl.col("id") >= 7))
        assert found.findings == (), columns


def test_a_leading_indicator_and_lags_are_not_the_future() -> None:
    rng = np.random.default_rng(0)
    n = 2000
    lead = rng.normal(size=n + 1)
    y = np.zeros(n)
    for k in range(1, n):
        y[k] = 0.8 * y[k - 1] + lead[k - 1] + rng.normal()  # half of the news is known a step before
    frame = pl.DataFrame({"id": 0, "t": np.arange(n), "y": y, "lead": lead[:n], "lag": np.roll(y, 2)})
    frame = frame.with_columns(mean=pl.col("y").rolling_mean(5), diff=pl.col("y").diff())
    assert examine(frame[:1400], frame[1400:]).findings == ()


def test_what_cannot_be_checked_is_said() -> None:
    (part,) = read_parts([table(0, 5)], id="id", time="t", target="y", names=COLUMNS, sources=("test",))
    found = audit(part, None, per_sequence=False)
    assert found.checked == ("future", "target")
    assert set(found.unchecked) == {"group", "duplicates", "scaler"}
    small = audit(part.where(part.owner == 0), None, per_sequence=True)
    assert "fewer than 30 sequences" in small.unchecked["target"]


def test_reading_names_the_table_and_the_column() -> None:
    with pytest.raises(DataError, match=r"^test: there is no column 'load'"):
        read_parts(
            [table(0, 2), table(0, 2).drop("load")], id="id", time="t", target="y", names=COLUMNS, sources=("a", "test")
        )


def test_codes_of_categories_are_shared() -> None:
    one = pl.DataFrame({"id": [1, 1], "t": [0, 1], "ward": ["b", None], "y": ["no", "yes"]})
    two = pl.DataFrame({"id": [7, 7], "t": [1, 0], "ward": ["a", "b"], "y": ["yes", "yes"]})
    a, b = read_parts([one, two], id="id", time="t", target="y", names=["ward"], sources=("a", "b"))
    np.testing.assert_array_equal(a.values[:, 0], [1, np.nan])
    np.testing.assert_array_equal(b.values[:, 0], [1, 0])  # sorted by time
    np.testing.assert_array_equal(b.row, [2, 1])
    np.testing.assert_array_equal(a.target, [0, 1])
    assert a.labels == b.labels == ("no", "yes")


@pytest.mark.parametrize("name", ["etth", "cmapss_fd001", "cgm_glucose"])
def test_public_sets_raise_no_false_alarm(name: str) -> None:
    if not (Path(os.environ.get("CAROUSEL_DATA", "")) / name).is_dir():
        pytest.skip(f"CAROUSEL_DATA does not lead to {name}/")
    roles: dict[str, Any] = {"id": None, "time": "date", "target": "OT"}
    if name == "etth":
        frame = pl.read_csv(sets.folder(name) / "ETTh1.csv.gz", try_parse_dates=True)
        train, test = frame[:8640], frame[11520:14400]
    elif name == "cmapss_fd001":
        roles = {"id": "engine", "time": "cycle", "target": "rul"}
        train, test = sets.cmapss("train"), sets.cmapss("test")
    else:
        roles = {"id": "id", "time": "time", "target": "low"}
        frame = sets.cgm()
        people = frame["id"].unique(maintain_order=True)[:13].to_list()
        train, test = (frame.filter(pl.col("id").is_in(people, nulls_equal=True) == inside) for inside in (True, False))
    columns = [c for c in train.columns if c not in (*roles.values(), "gl")]
    a, b = read_parts([train, test], names=columns, sources=("train", "test"), **roles)
    some = np.random.default_rng(0).permutation(len(a.ids))[: max(1, int(0.8 * len(a.ids)))]
    for part in (a, a.where(np.isin(a.owner, some)) if len(a.ids) > 1 else a.where(np.arange(len(a.time)) < 7000)):
        assert audit(b, a, per_sequence=False, scalers=scalers(part)).findings == ()
