"""The whole story on real data: weekly CO2 at Mauna Loa 1958-2001, 59 of 2,284 weeks missing, a year ahead.

Data: C. D. Keeling and T. P. Whorf, as shipped by statsmodels (`statsmodels.datasets.co2`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from carousel import atomic, evaluate, plots, progress
from carousel.errors import CarouselError, MissingExtra
from carousel.estimators import Forecaster
from carousel.inputs.files import table_bytes
from carousel.inputs.table import read_table
from carousel.train import TrainConfig

if TYPE_CHECKING:
    import polars

__all__ = ["HELD_OUT", "HORIZON", "SEEDS", "co2", "run"]

HORIZON = 52  # weeks
SEEDS = 6  # members of the ensemble; of three it still depends on luck whether they beat a linear model
HELD_OUT = 260  # weeks, five years
STRIDE = 4  # weeks from origin to origin
SHOWN = 208  # weeks of history in the picture

Say = Callable[[str], object]


def co2() -> polars.DataFrame:
    """Columns `week` (date) and `co2` (ppm, null where it was not measured); MissingExtra without statsmodels."""
    try:
        from statsmodels.datasets import co2 as source
    except ModuleNotFoundError:
        raise MissingExtra("statsmodels", "bench", "The demo's data set") from None
    import polars as pl

    frame = source.load_pandas().data
    weeks = pl.Series("week", frame.index.to_numpy()).cast(pl.Date)
    return pl.DataFrame([weeks, pl.Series("co2", frame["co2"].to_numpy(), nan_to_null=True)])


def run(out: Path, *, say: Say | None = None, config: TrainConfig | None = None) -> dict[str, Any]:
    """Fit an ensemble before the last five years, backtest over them, write the model, the data and a picture.

    `say` gets the story, line by line. Returns the figures as plain JSON values. Raises CarouselError where the
    folder cannot be written.
    """
    tell = say or (lambda _: None)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CarouselError(f"{out}: the folder cannot be made ({error.strerror}); name another --out.") from error
    frame = co2()
    train = frame.head(len(frame) - HELD_OUT)
    tell(
        f"Weekly CO2 at Mauna Loa, {frame['week'][0]} to {frame['week'][-1]}: {len(frame):,} weeks, "
        f"{frame['co2'].null_count()} of them missing.\n"
        f"Fitting {SEEDS} LSTMs to the weeks until {train['week'][-1]} ..."
    )
    started = monotonic()
    # A net this small gains little from a second thread, and loses much to waiting where others use the machine.
    settings = config or TrainConfig(threads=1)
    forecaster = Forecaster(HORIZON, time="week", target="co2", seeds=SEEDS, config=settings)
    with progress.training() as show:
        forecaster.fit(train, progress=show, source="co2")
    fitted = monotonic()
    with progress.counting("backtest") as count:
        found = evaluate.evaluate(forecaster, frame, stride=STRIDE, source="co2", progress=count)
    done = monotonic()
    forecaster.save(out / "co2.safetensors")
    atomic.write_bytes(out / "co2.csv", table_bytes(frame, ".csv"))
    _picture(out / "forecast.png", forecaster, frame)
    tell(f"Fitted in {fitted - started:.0f} s, backtest over the last five years in {done - fitted:.0f} s.\n")
    if say:
        found.show()
    tell(
        f"\nWritten: {out}/co2.safetensors (the model), {out}/forecast.png (look at it), {out}/co2.csv (the data).\n"
        "Next:\n"
        f"  carousel predict {out}/co2.safetensors {out}/co2.csv           the year after the data end\n"
        f"  carousel explain {out}/co2.safetensors {out}/co2.csv --out {out}/inside.html   its gates and its memory\n"
        f"  carousel fit forecast {out}/co2.csv --time week --until 1996-12-28 --horizon 26"
        f" --out {out}/half.safetensors\n"
        f"  carousel evaluate {out}/half.safetensors {out}/co2.csv         half a year ahead\n"
        "  carousel fit forecast YOUR.csv --id ... --time ... --target ... --horizon ... --out yours.safetensors"
    )
    return found.to_dict() | {"seconds": {"fit": fitted - started, "backtest": done - fitted}, "out": str(out)}


def _picture(path: Path, forecaster: Forecaster, frame: polars.DataFrame) -> None:
    table = forecaster.config_.input
    series = read_table(frame, table.roles, grid=table.grid, source="co2")
    origin = len(series.time) - 1 - HORIZON
    forecast = forecaster.quantiles_at(series, np.array([origin]))[0, :, 0]
    weeks = series.time.astype("datetime64[s]")
    plots.forecast_picture(
        path,
        time=weeks,
        truth=series.target[:, 0],
        origin=origin,
        ahead=weeks[origin + 1 :],
        forecast=forecast,
        quantiles=forecaster.config_.head.quantiles,
        title="CO₂ at Mauna Loa: a year ahead by an LSTM",
        subtitle="weekly measurements; fitted to the weeks until 1996, asked at the end of 2000",
        unit="CO₂ (ppm)",
        history=SHOWN,
    )
