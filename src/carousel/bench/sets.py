"""The public sets that accuracy is measured on, read from the folder that CAROUSEL_DATA names, by their own protocols.

Nothing of them is shipped; each loader gives plain tables (training and test) or arrays, and says its protocol.
"""

from __future__ import annotations

import gzip
import lzma
import os
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carousel.errors import CarouselError

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "archive",
    "cgm",
    "cmapss",
    "folder",
    "fraud",
    "japanese_vowels",
    "jhmdb",
    "lines_of",
    "mnist",
    "mnist_images",
    "physionet",
]

DAY = 86_400
PHYSIONET_STATIC = ("Age", "Gender", "Height", "ICUType")


def folder(name: str) -> Path:
    """Of one set; CarouselError where CAROUSEL_DATA does not lead to it."""
    root = os.environ.get("CAROUSEL_DATA")
    if not root or not (Path(root) / name).is_dir():
        raise CarouselError(f"CAROUSEL_DATA does not lead to a folder that holds {name}/; set it to one.")
    return Path(root) / name


def lines_of(name: str, file: str) -> list[str]:
    """Of a compressed text of the set `name`, without the end of the last one."""
    opened: Any = lzma.open if file.endswith(".xz") else gzip.open
    with opened(folder(name) / file, "rt", encoding="utf-8", newline="\n") as text:
        return str(text.read()).rstrip("\n").split("\n")


def physionet(part: str, hourly: bool = False) -> pl.DataFrame:
    """Set "a" or "b" of PhysioNet/CinC 2012 as events (record_id, minute, parameter, value, death).

    -1 is missing; of several readings of a parameter in one minute the last counts. `hourly`: the mean of
    each parameter in each hour, at the hour's beginning, as is usual with this set.
    """
    import polars as pl

    place = folder("physionet2012")
    events = pl.read_parquet(place / f"set_{part}_events.parquet")
    died = pl.read_csv(place / f"Outcomes-{part}.csv").select(
        pl.col("RecordID").cast(pl.Int32).alias("record_id"), pl.col("In-hospital_death").alias("death")
    )
    missing = (pl.col("value") < 0) & pl.col("parameter").cast(pl.String).is_in([*PHYSIONET_STATIC, "Weight"])
    events = events.with_columns(
        pl.col("parameter").cast(pl.String),
        pl.when(missing).then(None).otherwise(pl.col("value")).alias("value"),
    ).unique(["record_id", "minute", "parameter"], keep="last", maintain_order=True)
    if hourly:
        keys = ["record_id", pl.col("minute") // 60 * 60, "parameter"]
        events = events.group_by(keys, maintain_order=True).agg(pl.col("value").mean())
    return events.join(died, on="record_id").sort("record_id", "minute", maintain_order=True)


def fraud(start: int, stop: int) -> pl.DataFrame:
    """Card transactions of the days start <= day < stop since 2018-04-01, with what a bank knows at that moment.

    To each transaction: amount, hour and weekday, and of its terminal the share of frauds (and the number of
    transactions) in the 1, 7 and 30 days that ended 7 days before it, since frauds are known a week later.
    """
    import polars as pl

    frame = pl.read_parquet(folder("fraud_handbook") / "transactions.parquet").sort("TX_TIME_SECONDS", "TRANSACTION_ID")
    time, terminal = frame["TX_TIME_SECONDS"].to_numpy().astype(np.int64), frame["TERMINAL_ID"].to_numpy()
    made = {}
    for days in (1, 7, 30):
        count, frauds = _delayed(time, terminal.astype(np.int64), frame["TX_FRAUD"].to_numpy(), 7 * DAY, days * DAY)
        made[f"terminal_count_{days}"] = count
        made[f"terminal_risk_{days}"] = frauds / np.maximum(count, 1)
    return frame.select(
        pl.col("CUSTOMER_ID").alias("card"),
        pl.col("TX_TIME_SECONDS").alias("second"),
        (pl.col("TX_AMOUNT_CENTS") / 100).alias("amount"),
        pl.col("TERMINAL_ID").cast(pl.String).alias("terminal"),
        (pl.col("TX_TIME_SECONDS") // 3600 % 24).alias("hour"),
        (pl.col("TX_TIME_SECONDS") // DAY % 7).alias("weekday"),
        *(pl.Series(name, values) for name, values in made.items()),
        pl.col("TX_FRAUD").alias("fraud"),
    ).filter(pl.col("second").is_between(start * DAY, stop * DAY, closed="left"))


def _delayed(
    time: NDArray[np.int64], key: NDArray[np.int64], mark: NDArray[np.int8], delay: int, window: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and marked rows of the same key at times in (t - delay - window, t - delay], for each row at time t."""
    order = np.lexsort((time, key))
    place = key[order] * (int(time.max()) + delay + window + 1)
    moment = place + time[order] + delay + window  # ascending, keys apart
    total = np.concatenate([[0], np.cumsum(mark[order].astype(np.float64))])
    base = np.searchsorted(moment, place, side="left")
    last = np.maximum(np.searchsorted(moment, moment - delay, side="right"), base)
    first = np.maximum(np.searchsorted(moment, moment - delay - window, side="right"), base)
    count, marked = np.empty(len(time)), np.empty(len(time))
    count[order], marked[order] = last - first, total[last] - total[first]
    return count, marked


def cmapss(part: str, most: int = 125) -> pl.DataFrame:
    """Engines of C-MAPSS FD001, `part` "train" or "test", with the remaining cycles `rul`, at most `most` in training.

    In the test part the last row of each engine has the true remaining life, without the limit, as the papers score.
    """
    import polars as pl

    names = ["engine", "cycle", *(f"setting_{k}" for k in (1, 2, 3)), *(f"sensor_{k}" for k in range(1, 22))]
    place = folder("cmapss_fd001")
    with gzip.open(place / f"{part}_FD001.txt.gz", "rt") as file:
        values = np.loadtxt(file)
    frame = pl.DataFrame(values, schema=names, orient="row").with_columns(pl.col("engine", "cycle").cast(pl.Int64))
    left = pl.col("cycle").max().over("engine") - pl.col("cycle")
    if part == "train":
        return frame.with_columns(pl.min_horizontal(left, pl.lit(most)).cast(pl.Float64).alias("rul"))
    with gzip.open(place / "RUL_FD001.txt.gz", "rt") as file:
        true = np.loadtxt(file)
    end = pl.Series(true)[frame["engine"].to_numpy() - 1]
    return frame.with_columns((left + end).cast(pl.Float64).alias("rul"), (pl.col("engine") + 1000).alias("engine"))


def cgm() -> pl.DataFrame:
    """Glucose of 19 people every 5 minutes (Hall et al. 2018): id, time, gl (mg/dl), low (1 below 70)."""
    import polars as pl

    frame = pl.read_csv(folder("cgm_glucose") / "example_data_hall.csv.gz", try_parse_dates=True)
    return (
        frame.select("id", "time", pl.col("gl").cast(pl.Float64))
        .with_columns((pl.col("gl") < 70).cast(pl.Int64).alias("low"))
        .unique(["id", "time"], keep="last", maintain_order=True)
        .sort("id", "time")
    )


def archive(place: str, name: str, part: str) -> tuple[list[NDArray[np.float64]], NDArray[np.str_]]:
    """Sequences [T, C] and their labels from a .ts.gz file of the UEA and UCR archives; `part` "TRAIN" or "TEST"."""
    sequences, labels = [], []
    with gzip.open(folder(place) / f"{name}_{part}.ts.gz", "rt") as file:
        body = file.read().split("@data")[1].strip().splitlines()
    for line in body:
        *channels, label = line.split(":")
        values = [np.array([float(v) if v != "?" else np.nan for v in c.split(",")]) for c in channels]
        sequences.append(np.stack(values, 1))
        labels.append(label)
    return sequences, np.array(labels)


def japanese_vowels(part: str) -> tuple[list[NDArray[np.float64]], NDArray[np.str_]]:
    """Utterances [T, 12] and their speakers "1" ... "9"; `part` "TRAIN" (270) or "TEST" (370)."""
    return archive("japanese_vowels", "JapaneseVowels", part)


def mnist(part: str, permuted: bool = False) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Digits pixel by pixel [B, 784, 1] in 0 ... 1; `permuted` by one fixed permutation."""
    with np.load(folder("mnist") / "mnist.npz") as data:
        x = data[f"x_{part}"].reshape(-1, 784, 1).astype(np.float32) / 255
        y = data[f"y_{part}"].astype(np.int64)
    return (x[:, np.random.default_rng(92916).permutation(784)] if permuted else x), y


def mnist_images(part: str) -> NDArray[np.uint8]:
    """Digits as images [B, 28, 28]."""
    with np.load(folder("mnist") / "mnist.npz") as data:
        return np.asarray(data[f"x_{part}"], np.uint8)


def jhmdb() -> tuple[list[NDArray[np.float64]], NDArray[Any], NDArray[np.bool_]]:
    """Clips of joints [T, 15, 2], their actions [B], and which clips each of the three splits tests [3, B]."""
    with np.load(folder("jhmdb_skeleton") / "jhmdb_skeleton.npz") as data:
        joints, offsets = data["xy"].astype(np.float64), data["offsets"]
        clips = [joints[a:b] for a, b in pairwise(offsets)]
        return clips, data["class_names"][data["label"]], data["split_is_test"].astype(bool).T
