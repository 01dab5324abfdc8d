"""Anomaly detection on NAB and SKAB with one default configuration, beside baselines and published figures.

    CAROUSEL_DATA=... python benchmarks/accuracy_detect.py [nab] [skab] [--method forecast] [--seeds 1]
                                                           [--set name=value] [--out benchmarks/results]

NAB (Lavin & Ahmad 2015): one detector for each of the 58 series, fitted on its first 15 % (at most 750 rows), which is
the benchmark's probation, then scoring every row causally against the history so far. The threshold is the one best for
the corpus, as the benchmark optimises it for every detector. Choices of scoring were made on one half of the series;
both halves are reported.

SKAB (Katser & Kozitsin 2020): one detector for each of the 34 labelled files, fitted on its first 400 rows, with the
limit that the tail gives: no label is used. F1, false alarm and missed rate are over all rows, and over the rows after
the 400 first as the published figures are.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from carousel import DetectConfig, Detector
from carousel.anomaly import detection, vus_pr
from carousel.anomaly_baselines import BASELINES, windowed_gaussian
from carousel.bench.machine import describe
from carousel.heads.tail import tail_limit
from carousel.nab import NabSeries, nab_score, probation

NAB_PUBLISHED = {  # standard profile, of the repository's results
    "ARTime": 74.9,
    "Numenta HTM": 70.1,
    "CAD OSE": 69.9,
    "KNN-CAD": 58.0,
    "relative entropy": 54.6,
    "random cut forest": 51.7,
    "Twitter ADVec": 47.1,
    "windowed Gaussian": 39.6,
    "Skyline": 35.7,
    "random": 16.8,
}
SKAB_PUBLISHED = {  # F1, false alarms %, missed %, of the repository's table: rows after the first 400
    "Conv-AE": (0.78, 13.55, 28.02),
    "MSET": (0.78, 39.73, 14.13),
    "T-squared + Q": (0.76, 26.62, 24.92),
    "LSTM-AE": (0.74, 29.96, 25.92),
    "T-squared": (0.66, 19.21, 42.6),
    "LSTM-VAE": (0.56, 9.13, 55.03),
    "Vanilla LSTM": (0.54, 12.54, 59.53),
    "Isolation forest": (0.29, 2.56, 82.89),
}
NAB_SCORING = DetectConfig(smooth=(20, 100), level=(1, 100))
NAB_REST = 100
SKAB_TRAINING = 400
RISK = 1e-3
BUFFER = 100  # rows of VUS-PR's largest buffer


def nab(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    windows = json.loads((folder / "combined_windows.json").read_text())
    config = Detector.defaults.with_settings(["holdout=0", *args.set])
    series: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    scores: dict[str, dict[str, np.ndarray]] = {}
    started = time.monotonic()
    table = pl.read_parquet(folder / "nab.parquet").with_columns(pl.col("series").cast(pl.String))
    ours = 0.0
    for (name,), part in table.group_by(["series"], maintain_order=True):
        stamps, values = part["timestamp"].dt.to_string("%Y-%m-%d %H:%M:%S.%6f").to_list(), part["value"].to_numpy()
        spans = [[stamps.index(t) for t in pair] for pair in windows[str(name)]]
        series[str(name)] = values, np.array(spans, int).reshape(-1, 2)
        start, begun = probation(len(values)), time.process_time()
        rows = part.select("timestamp", "value")
        model = Detector(
            time="timestamp",
            reference="history",
            rest=NAB_REST,
            scoring=NAB_SCORING,
            seeds=args.seeds,
            config=config,
        )
        found = {"Carousel": np.nan_to_num(model.fit(rows[:start]).scores(rows))}
        ours += time.process_time() - begun
        found["windowed Gaussian"] = windowed_gaussian(values)
        for baseline, score in BASELINES.items():
            found[baseline] = score(values[:, None], start)
        found["flag nothing"] = np.zeros(len(values))
        scores[str(name)] = found
        _say(f"{name} {time.monotonic() - started:.0f} s")
    order = np.random.default_rng(0).permutation(len(series))
    chosen_on = {list(series)[k] for k in order[: len(series) // 2]}
    rows = {}
    for method in next(iter(scores.values())):
        parts = {
            half: [
                NabSeries(scores[n][method], series[n][1]) for n in series if half == "all" or (n in chosen_on) == own
            ]
            for half, own in (("all", True), ("chosen_on", True), ("other", False))
        }
        best = nab_score(parts["all"])
        rows[method] = asdict(best) | {half: nab_score(part).score for half, part in parts.items() if half != "all"}
    fixed = nab_score([NabSeries(scores[n]["Carousel"], series[n][1]) for n in series], threshold=1.05)
    return {
        "set": "nab",
        "protocol": "fitted on the first 15 % of each series; threshold best for the corpus, as NAB optimises it",
        "series": len(series),
        "rows": rows,
        "at_the_default_threshold": asdict(fixed),
        "published": NAB_PUBLISHED,
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds_of_the_model": round(ours, 1),
    }


def skab(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    table = pl.read_parquet(folder / "skab.parquet").with_columns(pl.col("file").cast(pl.String))
    config = Detector.defaults.with_settings(args.set)
    flags: dict[str, list[np.ndarray]] = {}
    scores: dict[str, list[np.ndarray]] = {}
    labels = []
    started, ours = time.monotonic(), 0.0
    for (name,), part in table.group_by(["file"], maintain_order=True):
        if part["anomaly"].null_count():
            continue
        labels.append(part["anomaly"].to_numpy())
        rows, begun = part.drop("file", "anomaly", "changepoint"), time.process_time()
        model = Detector(args.method, time="datetime", seeds=args.seeds, config=config).fit(rows[:SKAB_TRAINING])
        found = model.scores(rows)
        ours += time.process_time() - begun
        values = rows.drop("datetime").to_numpy()
        made = {"Carousel": (np.nan_to_num(found), model.threshold_)}
        for baseline, score in BASELINES.items():
            given = score(values, SKAB_TRAINING)
            made[baseline] = given, max(tail_limit(given[:SKAB_TRAINING], RISK), 1e-9)
        for method, (given, limit) in made.items():
            scores.setdefault(method, []).append(given / limit)
            flags.setdefault(method, []).append(given >= limit)
        _say(f"{name} {time.monotonic() - started:.0f} s")
    every = np.concatenate(labels)
    offsets = np.cumsum([0, *map(len, labels)])
    later = np.concatenate([np.arange(len(part)) >= SKAB_TRAINING for part in labels])
    after = np.cumsum([0, *(len(part) - SKAB_TRAINING for part in labels)])
    flags |= {"flag everything": [np.ones(len(y)) for y in labels], "flag nothing": [np.zeros(len(y)) for y in labels]}
    rows_of = {}
    for method, parts in flags.items():
        given = np.concatenate(parts)
        rows_of[method] = {
            "all": asdict(detection(given, every, offsets)),
            "after_training": asdict(detection(given[later], every[later], after)),
            "vus_pr": vus_pr(np.concatenate(scores[method]), every, offsets, window=BUFFER)
            if method in scores
            else None,
        }
    return {
        "set": "skab",
        "protocol": "fitted on the first 400 rows of each file, no labels; limits from the tail",
        "method": args.method,
        "series": len(labels),
        "rows": rows_of,
        "published_after_training": SKAB_PUBLISHED,
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds_of_the_model": round(ours, 1),
    }


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:70}", end="", file=sys.stderr)


def show(found: dict[str, Any]) -> None:
    title = f"{found['set'].upper()}, {found['series']} series, {found['protocol']}"
    print(f"\n{title}\nmodel: {found['cpu_seconds_of_the_model']} CPU s of {found['seconds']} s in all")
    if found["set"] == "nab":
        print(f"{'':26}{'standard':>9}{'windows':>9}{'false':>7}{'chosen on':>11}{'other half':>11}")
        for name, row in found["rows"].items():
            print(
                f"{name:26}{row['score']:9.1f}{row['windows_found']:9}{row['false_rows']:7}"
                f"{row['chosen_on']:11.1f}{row['other']:11.1f}"
            )
        fixed = found["at_the_default_threshold"]
        print(f"Carousel at its default threshold, no label used: {fixed['score']:.1f}")
        print("published: " + ", ".join(f"{name} {score}" for name, score in found["published"].items()))
        return
    head = ("F1", "alarms %", "missed %", "F1 after", "alarms %", "missed %", "events", "comp. F1", "VUS-PR")
    print(f"{'':26}" + "".join(f"{name:>10}" for name in head))
    for name, row in found["rows"].items():
        both = [row[part] for part in ("all", "after_training")]
        cells = [
            f(p) for p in both for f in (lambda p: f"{p['f1']:.3f}", lambda p: f"{100 * p['false_alarm_rate']:.1f}")
        ]
        missed = [f"{100 * p['missed_rate']:.1f}" for p in both]
        cells = [*cells[:2], missed[0], *cells[2:], missed[1], f"{both[0]['events_found']}/{both[0]['events']}"]
        cells += [f"{both[0]['composite_f1']:.3f}", "-" if row["vus_pr"] is None else f"{row['vus_pr']:.3f}"]
        print(f"{name:26}" + "".join(f"{cell:>10}" for cell in cells))
    for name, figures in found["published_after_training"].items():
        print(f"{name + ', published':26}{'':30}" + "".join(f"{value:>10}" for value in figures))


SETS = {"nab": nab, "skab": skab}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help="nab or skab; both without one")
    parser.add_argument("--method", default="forecast", choices=("forecast", "autoencoder"), help="of skab")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    folder = os.environ.get("CAROUSEL_DATA")
    for name in args.sets or SETS:
        if name not in SETS:
            parser.error(f"no set {name!r}; choose from {', '.join(SETS)}")
        if not folder or not (Path(folder) / name).is_dir():
            sys.exit(f"accuracy_detect: CAROUSEL_DATA does not lead to a folder that holds {name}/; set it.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant sensors and clocks that go back are the sets' own
            found = SETS[name](Path(folder) / name, args)
        show(found)
        args.out.mkdir(parents=True, exist_ok=True)
        when = datetime.now(UTC).isoformat(timespec="seconds")
        record = {"when": when, "machine": describe(), "seeds": args.seeds, "settings": args.set} | found
        suffix = "-autoencoder" if name == "skab" and args.method == "autoencoder" else ""
        (args.out / f"{name}{suffix}.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
