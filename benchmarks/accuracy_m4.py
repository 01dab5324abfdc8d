"""Accuracy on the M4 competition's hourly and weekly series with one default configuration, beside published figures.

    CAROUSEL_DATA=... python benchmarks/accuracy_m4.py [hourly] [weekly] [--seeds 1] [--set name=value]
                                                       [--hold-out] [--out benchmarks/results]

sMAPE and MASE are the competition's (Makridakis et al. 2020): MASE in units of the in-sample seasonal naive error,
with 24 steps for hourly and 1 for weekly series; both are means over series. `--hold-out` forecasts the last horizon
of the training part instead of the test part, which is what choices may be made on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from carousel import Forecaster, TrainConfig
from carousel.bench.machine import describe

SEASON = {"hourly": 24, "weekly": 1}
PUBLISHED = {  # sMAPE, MASE from the M4 workbook
    "hourly": {"ES-RNN (winner)": (9.328, 0.893), "RNN benchmark": (14.698, 3.048), "seasonal naive": (13.912, 1.193)},
    "weekly": {"ES-RNN (winner)": (7.817, 2.356), "RNN benchmark": (15.220, 5.132), "seasonal naive": (9.161, 2.777)},
}


def load(folder: Path, name: str, hold_out: bool) -> tuple[pl.DataFrame, np.ndarray]:
    """The series as a long table (id, t, y), and the values to forecast [B, H] in the order of the ids."""
    wide = pl.read_csv(folder / "m4" / f"{name.capitalize()}-train.csv.gz", infer_schema_length=None)
    test = pl.read_csv(folder / "m4" / f"{name.capitalize()}-test.csv.gz", infer_schema_length=None)
    wide, test = (f.rename({f.columns[0]: "id"}).sort("id") for f in (wide, test))
    horizon = len(test.columns) - 1
    long = (
        wide.unpivot(index="id", variable_name="t", value_name="y")
        .drop_nulls("y")
        .with_columns(pl.col("t").str.slice(1).cast(pl.Int64))
        .sort("id", "t")
    )
    truth = test.drop("id").to_numpy()
    if hold_out:
        ahead = pl.col("t") > pl.col("t").max().over("id") - horizon
        truth = long.filter(ahead)["y"].to_numpy().reshape(-1, horizon)
        long = long.filter(~ahead)
    return long, truth


def metrics(forecast: np.ndarray, truth: np.ndarray, history: list[np.ndarray], season: int) -> tuple[float, float]:
    """sMAPE in percent and MASE, means over the series."""
    error = np.abs(forecast - truth)
    smape = 200 * (error / (np.abs(forecast) + np.abs(truth))).mean()
    scale = np.array([np.abs(y[season:] - y[:-season]).mean() for y in history])
    return float(smape), float((error.mean(1) / scale).mean())


def run(name: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    frame, truth = load(folder, name, args.hold_out)
    horizon, season = truth.shape[1], SEASON[name]
    history = [part["y"].to_numpy() for part in frame.partition_by("id", maintain_order=True)]
    config = TrainConfig().with_settings(args.set)
    model = Forecaster(horizon, id="id", time="t", target="y", seeds=args.seeds, config=config)
    started = time.monotonic()
    model.fit(frame, progress=_progress if sys.stderr.isatty() else None)
    fitted = time.monotonic() - started
    made = model.predict(frame)
    seconds = time.monotonic() - started
    found = {q: made[q].to_numpy().reshape(-1, horizon) for q in ("forecast", "q0.05", "q0.95")}
    smape, mase = metrics(found["forecast"], truth, history, season)
    naive = np.stack([np.resize(y[-season:], horizon) for y in history])
    inside = (found["q0.05"] <= truth) & (truth <= found["q0.95"])
    return {
        "set": name,
        "protocol": "last horizon of the training part" if args.hold_out else "test part",
        "series": len(history),
        "horizon": horizon,
        "smape": smape,
        "mase": mase,
        "coverage_90": float(inside.mean()),
        "seasonal_naive_here": metrics(naive, truth, history, season),
        "published": PUBLISHED[name],
        "seasons": list(model.config_.input.seasons),
        "context": model.config_.input.context,
        "seeds": args.seeds,
        "settings": args.set,
        "steps": model.provenance_["steps"],
        "seconds": round(seconds, 1),
        "seconds_fit": round(fitted, 1),
    }


def _progress(event: Any) -> None:
    print(f"\r{event.step}/{event.total} loss {event.loss:.4f} {event.rate:.1f}/s ", end="", file=sys.stderr)


def show(found: dict[str, Any]) -> None:
    print(f"\nM4 {found['set']}, {found['series']} series, {found['horizon']} steps, {found['protocol']}")
    print(f"{'':32}{'sMAPE':>8}{'MASE':>8}")
    rows = {f"Carousel ({found['seconds']:.0f} s)": (found["smape"], found["mase"])}
    rows |= {"seasonal naive, computed here": found["seasonal_naive_here"]}
    rows |= {f"{who}, published": figures for who, figures in found["published"].items()}
    for who, (smape, mase) in rows.items():
        print(f"{who:32}{smape:8.3f}{mase:8.3f}")
    print(f"90 % intervals cover {found['coverage_90']:.1%}; seasons {found['seasons']}, context {found['context']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"{' or '.join(SEASON)}; both without one")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--hold-out", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    folder = os.environ.get("CAROUSEL_DATA")
    if not folder or not (Path(folder) / "m4").is_dir():
        sys.exit("accuracy_m4: CAROUSEL_DATA does not lead to a folder that holds m4/; set it.")
    if unknown := set(args.sets) - set(SEASON):
        parser.error(f"no set {unknown.pop()!r}; choose from {', '.join(SEASON)}")
    for name in args.sets or SEASON:
        found = run(name, Path(folder), args)
        show(found)
        args.out.mkdir(parents=True, exist_ok=True)
        record = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "machine": describe()} | found
        suffix = "-hold-out" if args.hold_out else ""
        (args.out / f"m4-{name}{suffix}.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
