"""Estimators in the manner of scikit-learn: `__init__` stores, `fit` learns, fitted names end in an underscore."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from carousel import modelfile
from carousel.classifier import Classifier
from carousel.config import ModelConfig, StackConfig, to_json
from carousel.detector import Detector
from carousel.errors import CarouselError, DataError
from carousel.estimator import versions
from carousel.forecasting import scaled_quantiles, train_forecaster
from carousel.frame_forecasts import FrameForecasts
from carousel.generator import Generator
from carousel.heads.forecast import DEFAULT_QUANTILES, ForecastHead, read_out
from carousel.inputs.clock import useful_calendar
from carousel.inputs.fitted import TableInput, fit_columns
from carousel.inputs.frames import Frames, FramesInput
from carousel.inputs.origins import (
    SkippedSeries,
    Split,
    last_origins,
    long_enough,
    require_known,
    split_by_table,
    split_by_time,
)
from carousel.inputs.seasons import infer_seasons
from carousel.inputs.table import Roles, Series, infer_roles, read_table, write_table
from carousel.inputs.windows import Rows
from carousel.tagger import Tagger
from carousel.train import Progress, TrainConfig
from carousel.translator import Translator

__all__ = ["Classifier", "Detector", "Forecaster", "Generator", "SkippedSeries", "Tagger", "Translator", "load"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Forecaster(FrameForecasts):
    """Forecasts of many series by one global LSTM: quantiles of the next `horizon` steps.

    Columns by role: `id` which series (None: one), `time` when (None: the only timestamp column, else the order of
    rows), `target` one name or several (None: the only numeric column), `features` known up to the origin only
    (None: every column without a role), `static` constant in a series, `known` known for the steps ahead as well.
    Missing values are allowed in all but id and time. `season` in steps (None: inferred), `context` rows that the
    model sees (None: from season and horizon), `quantiles` with 0.5 among them, `seeds` members of the ensemble.
    With `frames` (the column that names clips, or `Frames(...)`) the next frames of clips are forecast instead.

    Quantiles by direct multi-horizon regression (Wen et al. 2017), calibrated on held-out windows.

    >>> import numpy as np, polars as pl
    >>> wave = pl.DataFrame({"t": range(120), "y": np.sin(np.arange(120) * np.pi / 6)})
    >>> model = Forecaster(6, time="t", season=12, config=TrainConfig(steps=20, hidden_size=8))
    >>> model.fit(wave).predict(wave).columns[:4]
    ['t', 'step', 'forecast', 'q0.05']
    """

    task = "forecast"
    defaults: ClassVar[TrainConfig] = TrainConfig()
    _parameters = (
        "horizon",
        "id",
        "time",
        "target",
        "features",
        "static",
        "known",
        "season",
        "context",
        "quantiles",
        "frames",
        "seeds",
        "config",
    )

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
        frames: str | Frames | None = None,
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
        self.frames = frames
        self.seeds = seeds
        self.config = config

        self._rows: Rows | None = None

    def fit(
        self,
        frame: Any,
        *,
        valid: Any = None,
        checkpoint: str | PathLike[str] | None = None,
        resume: bool = False,
        skip_short: bool = False,
        progress: Progress | None = None,
        source: str = "data",
    ) -> Self:
        """Learn from a pandas, polars or Arrow table, one row per observation; `source` is its name in messages.

        The last rows of each series (see `config.holdout`) are held out for early stopping and calibration, after
        which `config.refit` trains anew on all rows; or `valid` brings the rows to hold out, which may go on with
        the series or be others. `checkpoint` and `resume`: see `carousel.train.train`. Raises DataError for faults of
        the data and for series that are too short, unless `skip_short` leaves those out with a warning; CarouselError
        for parameters out of range.
        """
        self._check_params()
        if self.frames is not None:
            if skip_short:
                raise CarouselError("skip_short is about series; clips that are too short only give no windows.")
            place = None if checkpoint is None else Path(checkpoint)
            self._fit_frames(frame, valid, source, checkpoint=place, resume=resume, progress=progress)
            return self
        roles = infer_roles(
            frame,
            id=self.id,
            time=self.time,
            target=_names(self.target),
            features=None if self.features is None else _names(self.features),
            static=_names(self.static),
            known=_names(self.known),
            source=source,
        )
        self._refuse_taken_names(roles, source)
        series = read_table(frame, roles, source=source, valid=valid)
        h, share = self.horizon, self.settings.holdout
        series = long_enough(series, h, holdout=valid is None and share > 0, skip_short=skip_short)
        seasons = infer_seasons(series) if self.season is None else (self.season,) if self.season > 1 else ()
        self._refuse_long_looks(series, default_context(seasons, h))
        context = self.context or default_context(seasons, h)
        if valid is None:
            split = split_by_time(series, h, context, share)
        else:
            split = split_by_table(series, h, context, _height(frame))
        again = valid is None and self.settings.refit and len(split.held_out) > 0
        trained = train_forecaster(
            series,
            lambda split: self._configure(series, split, seasons, context),
            split,
            split_by_time(series, h, context, 0.0) if again else None,
            self.settings,
            checkpoint=None if checkpoint is None else Path(checkpoint),
            resume=resume,
            progress=progress,
        )
        self.provenance_ = {"versions": versions(), "train": to_json(self.settings)} | trained.provenance
        self._keep(trained.config, trained.weights)
        return self

    def predict(self, frame: Any, future: Any = None, *, source: str = "data") -> Any:
        """Forecast the `horizon` steps after the last row of each series of `frame`, as a table of the same kind.

        Columns: id, time, step (1 ... horizon), target (only with several), forecast (the median), q0.05 and so on.
        Known covariates of the steps ahead come in `future` (id, time and known columns), or as the rows of `frame`
        after the last observed target. Raises DataError where they are missing, where columns differ from
        training, or where a series has no observed target.
        """
        config = self._fitted()
        if isinstance(config.input, FramesInput):
            if future is not None:
                raise DataError("future: clips have nothing that is known ahead; leave it out.")
            return self.predict_frames(frame, source=source)[1]
        if future is not None and not config.input.roles.known:
            raise DataError("future: the model was trained without known columns; leave it out.")
        table = config.input
        series = read_table(frame, table.roles, source=source, grid=table.grid, stamps=table.stamps, future=future)
        origins = last_origins(series, None if future is None else _height(frame))
        require_known(series, origins, config.input.horizon, source if future is None else "future")
        rows = Rows(series, config.input)
        values = self._quantiles(rows, origins)
        n, h, k, q = values.shape
        time = rows.time[rows.place(origins)[:, None] + np.arange(1, h + 1)]
        rest: dict[str, Any] = {"step": np.tile(np.repeat(np.arange(1, h + 1), k), n)}
        if k > 1:
            rest["target"] = list(config.input.roles.target) * (n * h)
        flat = values.reshape(-1, q)
        rest["forecast"] = flat[:, config.head.median]
        rest |= {f"q{level:g}": flat[:, i] for i, level in enumerate(config.head.quantiles)}
        return write_table(series, np.repeat(np.arange(n), h * k), np.repeat(time.reshape(-1), k), rest)

    def quantiles_at(self, series: Series, origins: Ints) -> Floats:
        """Quantiles [n, H, K, Q], in the target's own units, of the steps after the rows `origins` [n] of `series`.

        The model sees of each series the rows up to and including the origin, and known covariates after it. Read
        the series with the roles and grid of `config_.input`.
        """
        config = self._fitted()
        if self._rows is None or self._rows.series is not series:
            self._rows = Rows(series, config.input)
        return self._quantiles(self._rows, np.asarray(origins, np.int64))

    @property
    def settings(self) -> TrainConfig:
        """The choices of training: `config`, or where that is the usual one and `frames` are given, theirs."""
        usual = self.frames is not None and self.config == TrainConfig()
        return self.frame_defaults if usual else super().settings

    @classmethod
    def _parameters_of(cls, config: ModelConfig, provenance: dict[str, Any]) -> dict[str, Any]:
        roles = config.input.roles
        if isinstance(config.input, FramesInput):
            more = {"frames": Frames.fitted(config.input, config.head.patch), "time": roles.time, "seeds": config.seeds}
            return more | {"horizon": config.head.horizon, "context": config.head.context}
        return {
            "horizon": config.input.horizon,
            "id": roles.id,
            "time": roles.time,
            "target": roles.target,
            "features": roles.features,
            "static": roles.static,
            "known": roles.known,
            "season": max(config.input.seasons, default=1),
            "context": config.input.context,
            "quantiles": config.head.quantiles,
            "seeds": config.seeds,
        }

    def _check_params(self) -> None:
        if not isinstance(self.settings, TrainConfig):
            raise CarouselError(
                f"config must be a TrainConfig, got {self.config!r}; write TrainConfig(steps=40) for other steps."
            )
        for name in ("id", "time", "target", "features", "static", "known"):
            value = getattr(self, name)
            several = name not in ("id", "time") and isinstance(value, Sequence) and not isinstance(value, str)
            for one in value if several else (value,):
                if not isinstance(one, str) and (several or one is not None):
                    more = "" if name in ("id", "time") else ", or several"
                    raise CarouselError(
                        f"{name} must be the name of a column as text{more}, got {value!r}; give it as text."
                    )
        for name in ("horizon", "season", "context", "seeds"):
            value = getattr(self, name)
            if value is None and name in ("season", "context"):
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise CarouselError(f"{name} must be a whole number of at least 1, got {value!r}; give a larger one.")
            setattr(self, name, int(value))

    def _refuse_long_looks(self, series: Series, usual: int) -> None:
        """A season or a context that no series has; the usual context of a short series pads, and may be named."""
        longest = int(series.lengths.max())
        for name, limit in (("season", longest), ("context", max(longest, usual))):
            value = getattr(self, name)
            if value is not None and value > limit:
                raise DataError(
                    f"{series.source}: a {name} of {value} rows is longer than the longest series, which has {longest}"
                    f" rows; give a shorter {name} or longer series."
                )

    def _refuse_taken_names(self, roles: Roles, source: str) -> None:
        """Forecasts have columns of their own beside those of id and time."""
        taken = ["step", "target", "forecast", *(f"q{q:g}" for q in self.quantiles)]
        for name in (roles.id, roles.time):
            if name in taken:
                raise DataError(f"{source}: forecasts have a column {name!r} of their own; rename the one in the data.")

    def _configure(self, series: Series, split: Split, seasons: tuple[int, ...], context: int) -> ModelConfig:
        """The model's config, its input fitted on the rows that `split` trains on."""
        used = np.searchsorted(series.offsets, split.last, side="right") - 1
        index = np.arange(int(series.offsets[-1]))
        end = np.full(len(series.ids), -1)
        end[used] = split.last + self.horizon
        rows = np.flatnonzero(index <= np.repeat(end, series.lengths))
        settings, quantiles = self.settings, tuple(float(q) for q in self.quantiles)
        try:
            table = TableInput(
                roles=series.roles,
                grid=series.grid,
                stamps=series.clock.stamps,
                context=context,
                horizon=self.horizon,
                seasons=tuple(int(m) for m in seasons),
                level=settings.level,
                calendar=useful_calendar(series.grid, series.time[rows]) if series.clock.stamps else (),
                features=fit_columns(series, "features", rows),
                known=fit_columns(series, "known", rows),
                static=fit_columns(series, "static", used),
            )
            stack = StackConfig(settings.hidden_size, settings.num_layers, settings.dropout, settings.cell)
            head = ForecastHead(quantiles, settings.width, (1.0,) * len(quantiles))
            return ModelConfig("forecast", table, stack, head, self.seeds)
        except CarouselError:
            raise
        except ValueError as error:
            raise CarouselError(f"{error}; correct the parameter.") from None

    def _keep(self, config: ModelConfig, weights: dict[str, NDArray[Any]]) -> None:
        super()._keep(config, weights)
        self._rows = None
        self.season_ = 1 if isinstance(config.input, FramesInput) else max(config.input.seasons, default=1)

    def _quantiles(self, rows: Rows, origins: Ints) -> Floats:
        made = scaled_quantiles(self.model_, rows, origins)
        return read_out(self.config_.head, made.scaled, made.level, made.spread)


TASKS: dict[str, Any] = {
    "forecast": Forecaster,
    "classify": Classifier,
    "tag": Tagger,
    "detect": Detector,
    "translate": Translator,
    "generate": Generator,
}


def load(path: str | PathLike[str]) -> Any:
    """The fitted estimator of whatever task the model file is for; ModelFileError where the file is refused."""
    return TASKS[modelfile.read(path)[1]["model"]["task"]].load(path)


def default_context(seasons: tuple[int, ...], horizon: int) -> int:
    """Rows that a model sees: the longest season, twice the shortest, twice the horizon; 24 to 336.

    >>> default_context((24, 168), 48), default_context((52,), 52), default_context((), 6)
    (168, 104, 24)
    """
    wanted = max(*seasons, 2 * min(seasons), 2 * horizon) if seasons else 2 * horizon
    return int(np.clip(wanted, 24, 336))


def _height(frame: Any) -> int:
    return int(frame.shape[0])


def _names(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if given is None else (given,) if isinstance(given, str) else tuple(given)
