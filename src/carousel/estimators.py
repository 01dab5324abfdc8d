"""Estimators in the manner of scikit-learn: `__init__` stores, `fit` learns, fitted names end in an underscore."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from os import PathLike
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from carousel import modelfile
from carousel.config import ModelConfig, StackConfig, from_json, to_json
from carousel.errors import CarouselError, DataError
from carousel.forecasting import ForecastTask, Split, fingerprint, scaled_quantiles
from carousel.heads.forecast import DEFAULT_QUANTILES, ForecastHead, calibrate, read_out
from carousel.inputs.clock import useful_calendar
from carousel.inputs.seasons import infer_seasons
from carousel.inputs.table import Series, infer_roles, read_table, write_table
from carousel.inputs.windows import Rows, TableInput, fit_columns
from carousel.model import members_from
from carousel.train import Progress, TrainConfig, train

__all__ = ["Forecaster", "SkippedSeries"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class SkippedSeries(UserWarning):
    """Series that were too short to train on and were left out because `skip_short` says so."""


class Forecaster:
    """Forecasts of many series by one global LSTM: quantiles of the next `horizon` steps.

    Columns by role: `id` which series (None: one), `time` when (None: the only timestamp column, else the order of
    rows), `target` one name or several (None: the only numeric column), `features` known up to the origin only
    (None: every column without a role), `static` constant in a series, `known` known for the steps ahead as well.
    Missing values are allowed in all but id and time. `season` in steps (None: inferred), `context` rows that the
    model sees (None: from season and horizon), `quantiles` with 0.5 among them, `seeds` members of the ensemble.

    Quantiles by direct multi-horizon regression (Wen et al. 2017), calibrated on held-out windows.

    >>> import numpy as np, polars as pl
    >>> wave = pl.DataFrame({"t": range(120), "y": np.sin(np.arange(120) * np.pi / 6)})
    >>> model = Forecaster(6, time="t", season=12, config=TrainConfig(steps=20, hidden_size=8))
    >>> model.fit(wave).predict(wave).columns[:4]
    ['t', 'step', 'forecast', 'q0.05']
    """

    def __init__(
        self,
        horizon: int,
        *,
        id: str | None = None,
        time: str | None = None,
        target: str | Sequence[str] | None = None,
        features: Sequence[str] | None = None,
        static: Sequence[str] = (),
        known: Sequence[str] = (),
        season: int | None = None,
        context: int | None = None,
        quantiles: Sequence[float] = DEFAULT_QUANTILES,
        seeds: int = 1,
        config: TrainConfig = TrainConfig(),
    ) -> None:
        self.horizon = horizon
        self.id = id
        self.time = time
        self.target = target
        self.features = features
        self.static = static
        self.known = known
        self.season = season
        self.context = context
        self.quantiles = quantiles
        self.seeds = seeds
        self.config = config

    _PARAMS = ("horizon", "id", "time", "target", "features", "static", "known", "season", "context", "quantiles", "seeds", "config")  # fmt: skip

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of `__init__`, as scikit-learn's clone and grid search want them."""
        return {name: getattr(self, name) for name in self._PARAMS}

    def set_params(self, **params: Any) -> Self:
        """Set arguments of `__init__`; ValueError for a name that is none."""
        for name, value in params.items():
            if name not in self._PARAMS:
                raise ValueError(f"Forecaster has no parameter {name!r}; it has {', '.join(self._PARAMS)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        return f"Forecaster({', '.join(f'{k}={v!r}' for k, v in self.get_params().items() if v is not None)})"

    def fit(
        self,
        frame: Any,
        *,
        valid: Any = None,
        checkpoint: str | PathLike[str] | None = None,
        resume: bool = False,
        skip_short: bool = False,
        progress: Progress | None = None,
    ) -> Self:
        """Learn from a pandas, polars or Arrow table, one row per observation.

        The last rows of each series (`config.holdout`, at least a horizon) are held out for early stopping and
        calibration, or the rows of `valid`, which may go on with the series or bring others. `checkpoint`
        and `resume`: see `carousel.train.train`. Raises DataError for faults of the data and for series that are
        too short, unless `skip_short` leaves those out with a warning; ValueError for parameters out of range.
        """
        self._check_params()
        roles = infer_roles(
            frame,
            id=self.id,
            time=self.time,
            target=_names(self.target),
            features=None if self.features is None else _names(self.features),
            static=_names(self.static),
            known=_names(self.known),
        )
        series = read_table(frame, roles)
        seasons = (self.season,) if self.season and self.season > 1 else () if self.season else infer_seasons(series)
        context = self.context or max(2 * max(seasons, default=1), 2 * self.horizon, 24)
        series, split = self._split(series, seasons, context, skip_short)
        config = self._model_config(series, split, seasons, context)
        rows = Rows(series, config.input)
        split = Split(*(rows.place(origins) for origins in (split.first, split.last, split.held_out)))
        task = ForecastTask(config, rows, split, self.config)
        result = train(
            task,
            self.config,
            seeds=self.seeds,
            checkpoint=None if checkpoint is None else str(checkpoint),
            resume=resume,
            fingerprint=(data := fingerprint(config, rows, split)),
            progress=progress,
        )
        self._weights = {
            f"{k}.{name}": value.numpy() for k, member in enumerate(result.members) for name, value in member.items()
        }
        self._set_fitted(config)
        if len(split.held_out):
            scaled, windows = scaled_quantiles(self.model_, rows, split.held_out)
            config = ModelConfig(
                config.task, config.input, config.stack, calibrate(config.head, scaled, windows.truth), config.seeds
            )
            self._set_fitted(config)
        self.provenance_ = {
            "versions": {name: version(name) for name in ("carousel-lstm", "torch", "numpy")}
            | {"python": platform.python_version()},
            "data": data,
            "rows": int(series.offsets[-1]),
            "series": len(series.ids),
            "train": to_json(self.config),
            "steps": result.steps,
            "metrics": {"validation_pinball": result.metrics},
            "seconds": round(result.seconds, 1),
        }
        return self

    def predict(self, frame: Any, future: Any = None) -> Any:
        """Forecast the `horizon` steps after the last row of each series of `frame`, as a table of the same kind.

        Columns: id, time, step (1 ... horizon), target (only with several), forecast (the median), q0.05 and so on.
        Known covariates of the steps ahead come in `future` (id, time and known columns), or as the rows of `frame`
        after the last observed target. Raises DataError where they are missing, where columns differ from
        training, or where a series has no observed target.
        """
        config = self._fitted()
        roles = config.input.roles
        series = read_table(frame, roles, grid=config.input.grid, future=future)
        origins = self._origins(series, frame, future)
        values = self.quantiles_at(series, origins)  # [n, H, K, Q]
        n, h, k, q = values.shape
        which = np.repeat(np.arange(n), h * k)
        rows = Rows(series, config.input)
        at = rows.place(origins)[:, None] + np.arange(1, h + 1)
        time = np.repeat(rows.time[at].reshape(-1), k)
        rest: dict[str, Any] = {"step": np.tile(np.repeat(np.arange(1, h + 1), k), n)}
        if k > 1:
            rest["target"] = list(roles.target) * (n * h)
        flat = values.reshape(-1, q)
        rest["forecast"] = flat[:, config.head.median]
        rest |= {f"q{level:g}": flat[:, i] for i, level in enumerate(config.head.quantiles)}
        return write_table(series, which, time, rest)

    def quantiles_at(self, series: Series, origins: Ints) -> Floats:
        """Quantiles [n, H, K, Q], in the target's own units, of the steps after the rows `origins` [n] of `series`.

        The model sees of each series the rows up to and including the origin, and known covariates after it.
        """
        config = self._fitted()
        rows = Rows(series, config.input)
        scaled, windows = scaled_quantiles(self.model_, rows, rows.place(np.asarray(origins, np.int64)))
        return read_out(config.head, scaled, windows.level, windows.spread)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model file, atomically."""
        config = self._fitted()
        document = {"format": modelfile.FORMAT, "model": config.to_json(), "provenance": self.provenance_}
        modelfile.write(path, self._weights, document)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """The fitted estimator from a model file; ModelFileError where the file is refused."""
        weights, document = modelfile.read(path)
        config = ModelConfig.from_json(document["model"])
        roles = config.input.roles
        made = cls(
            config.input.horizon,
            id=roles.id,
            time=roles.time,
            target=roles.target,
            features=roles.features,
            static=roles.static,
            known=roles.known,
            season=max(config.input.seasons, default=1),
            context=config.input.context,
            quantiles=config.head.quantiles,
            seeds=config.seeds,
            config=from_json(TrainConfig, document["provenance"].get("train"), "provenance.train"),
        )
        made._weights = weights
        made._set_fitted(config)
        made.provenance_ = document["provenance"]
        return made

    def _check_params(self) -> None:
        for name, low in (("horizon", 1), ("season", 1), ("context", 1), ("seeds", 1)):
            value = getattr(self, name)
            if value is None and name in ("season", "context"):
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
                raise DataError(f"{name} must be a whole number of at least {low}, got {value!r}.")

    def _set_fitted(self, config: ModelConfig) -> None:
        self.config_ = config
        self.model_ = members_from(config, self._weights)
        self.season_ = max(config.input.seasons, default=1)

    def _fitted(self) -> ModelConfig:
        config: ModelConfig | None = getattr(self, "config_", None)
        if config is None:
            raise CarouselError("this Forecaster is not fitted yet; call fit, or Forecaster.load.")
        return config

    def _model_config(self, series: Series, split: Split, seasons: tuple[int, ...], context: int) -> ModelConfig:
        used = np.searchsorted(series.offsets, split.last, side="right") - 1
        training = np.zeros(int(series.offsets[-1]), bool)
        for begin, end in zip(series.offsets[used], split.last + self.horizon + 1, strict=True):
            training[begin:end] = True
        calendar = useful_calendar(series.grid, series.time[training]) if series.clock.stamps else ()
        rows = np.flatnonzero(training)
        try:
            table = TableInput(
                roles=series.roles,
                grid=series.grid,
                stamps=series.clock.stamps,
                context=context,
                horizon=self.horizon,
                seasons=tuple(int(m) for m in seasons),
                level=self.config.level,
                calendar=calendar,
                features=fit_columns(series, "features", rows),
                known=fit_columns(series, "known", rows),
                static=fit_columns(series, "static", used),
            )
            stack = StackConfig(self.config.hidden_size, self.config.num_layers, self.config.dropout, self.config.cell)
            quantiles = tuple(float(q) for q in self.quantiles)
            head = ForecastHead(quantiles, self.config.width, self.config.base, (1.0,) * len(quantiles))
        except DataError:
            raise
        except ValueError as error:
            raise CarouselError(f"{error}.") from None
        return ModelConfig("forecast", table, stack, head, self.seeds)

    def _split(self, series: Series, seasons: tuple[int, ...], context: int, skip_short: bool) -> tuple[Series, Split]:
        """The series that are long enough, and their origins for training and for validation."""
        h, lengths = self.horizon, series.lengths
        held = np.maximum(h, (lengths * self.config.holdout).astype(np.int64)) if self.config.holdout else 0 * lengths
        least = 2
        needed = least + h + h * (self.config.holdout > 0)
        short = np.flatnonzero(lengths < needed)
        if len(short):
            shortest = int(lengths[short].min())
            text = (
                f"{series.source}: {series.name(short)} {'are' if len(short) > 1 else 'is'} shorter than the {needed}"
                f" rows that a horizon of {h} needs (shortest: {shortest})"
            )
            if not skip_short or len(short) == len(lengths):
                raise DataError(f"{text}; give more rows, a shorter horizon, or skip short series.")
            warnings.warn(SkippedSeries(f"{text}; they are left out of training."), stacklevel=3)
            long = np.flatnonzero(lengths >= needed)
            series, lengths, held = series.select(long), lengths[long], held[long]
        begin, end = series.offsets[:-1], series.offsets[1:]
        held = np.minimum(held, np.maximum(h if self.config.holdout else 0, lengths - needed + h))
        last = end - held - h - 1
        first = np.minimum(begin + np.maximum(least, int(0.3 * context)) - 1, begin + np.maximum(least, (last - begin + 1) // 2) - 1)  # fmt: skip
        spare = np.maximum(held - h + 1, 0) * (held > 0)
        start = np.repeat(end - held - 1, spare)
        k = np.arange(spare.sum()) - np.repeat(np.cumsum(spare) - spare, spare)
        return series, Split(first, last, start + k)

    def _origins(self, series: Series, frame: Any, future: Any) -> Ints:
        """The last row of each series that is not future."""
        observed = np.isfinite(series.target).any(1)
        begin, end = series.offsets[:-1], series.offsets[1:]
        index = np.arange(len(observed))
        if future is not None:
            inside = (series.row > 0) & (series.row <= len(frame))
        elif series.roles.known:
            inside = observed
        else:
            inside = np.ones(len(observed), bool)
        latest = np.maximum.accumulate(np.where(inside, index, -1))[end - 1]
        seen = np.maximum.accumulate(np.where(observed, index, -1))
        bad = np.flatnonzero((latest < begin) | (seen[np.maximum(latest, 0)] < begin))
        if len(bad):
            raise DataError(f"{series.source}: {series.name(bad)} has no observed target to forecast from.")
        if series.roles.known:
            self._require_known(series, latest, end)
        return np.asarray(latest)

    def _require_known(self, series: Series, origins: Ints, end: Ints) -> None:
        steps = np.arange(1, self._fitted().input.horizon + 1)
        wanted = origins[:, None] + steps
        inside = wanted < end[:, None]
        missing = ~inside | ~np.isfinite(series.known[np.where(inside, wanted, 0)]).any(-1)
        if missing.any():
            b, k = (int(v) for v in np.argwhere(missing)[0])
            when = series.clock.describe(float(series.grid.ahead(series.time[origins[b]], int(steps[k]))))
            raise DataError(
                f"future: {series.name(np.array([b]))} lacks the known covariates ({', '.join(series.roles.known)})"
                f" of step {k + 1} at {when}; give them for all {len(steps)} steps ahead."
            )


def _names(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if given is None else (given,) if isinstance(given, str) else tuple(given)
