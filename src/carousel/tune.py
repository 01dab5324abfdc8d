"""Search for better settings on validation data only, resumable, for every estimator alike (Optuna, Akiba et al. 2019).

A trial is a fit with other settings and without refit; its value is what early stopping looked at. The first trial
is the settings as given, so that a search never ends worse than it began. What is found goes into one full fit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from carousel.config import to_json
from carousel.errors import CarouselError, DataError, MissingExtra
from carousel.train import Event, Interrupted, Progress
from carousel.trainconfig import TrainConfig

__all__ = ["SPACE", "Choice", "Range", "Tunable", "tune"]

SEED = 0x7C  # the sampler's, beside the seed of training


@dataclass(frozen=True)
class Choice:
    """One of these values.

    >>> Choice(32, 64).text(64)
    '64'
    """

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        object.__setattr__(self, "values", values)

    def suggest(self, trial: Any, name: str) -> Any:
        return trial.suggest_categorical(name, list(self.values))

    def holds(self, value: Any) -> bool:
        return value in self.values

    def text(self, value: Any) -> str:
        return str(value)


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, evenly or on a logarithmic scale."""

    low: float
    high: float
    log: bool = False

    def suggest(self, trial: Any, name: str) -> float:
        return float(trial.suggest_float(name, self.low, self.high, log=self.log))

    def holds(self, value: Any) -> bool:
        return bool(self.low <= value <= self.high)

    def text(self, value: Any) -> str:
        return f"{value:.3g}"


Space = Mapping[str, Choice | Range]

_COMMON: Space = {
    "hidden_size": Choice(16, 32, 64, 128),
    "num_layers": Choice(1, 2),
    "dropout": Range(0.0, 0.5),
    "learning_rate": Range(3e-4, 1e-2, log=True),
    "weight_decay": Range(1e-4, 0.3, log=True),
    "batch_size": Choice(32, 64, 128),
    "cell.recurrent_dropout": Range(0.0, 0.4),
}
_TEXT: Space = {
    "hidden_size": Choice(128, 256, 512),
    **{
        name: _COMMON[name]
        for name in ("num_layers", "dropout", "learning_rate", "weight_decay", "cell.recurrent_dropout")
    },
}
SPACE: Mapping[str, Space] = {
    "translate": _TEXT,
    "generate": {name: values for name, values in _TEXT.items() if name != "dropout"}  # its dropout is not training's
    | {"cell.weight_drop": Range(0.0, 0.5)},
    "forecast": {**_COMMON, "width": Choice(32, 64, 128), "recency": Range(1.0, 3.0), "ridge": Range(3e-3, 1.0, True)},
}
"""Settings that are searched for by task; of other tasks those that all have in common."""


class Tunable(Protocol):
    """An estimator in scikit-learn's manner whose `config` holds the choices of training."""

    provenance_: dict[str, Any]

    def get_params(self, deep: bool = True) -> dict[str, Any]: ...

    def set_params(self, **params: Any) -> Self: ...

    def fit(self, *data: Any, **given: Any) -> Self: ...


Estimator = TypeVar("Estimator", bound=Tunable)


def tune(
    estimator: Estimator,
    *data: Any,
    trials: int,
    storage: str | Path,
    space: Space | None = None,
    fixed: Sequence[str] = (),
    resume: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    checkpoint: str | Path | None = None,
    **given: Any,
) -> Estimator:
    """Fit `estimator` with the best settings of `trials` that are tried on validation data; the estimator itself.

    `data` and `given` go to its `fit`. `space` says which settings are searched and where (None: `SPACE` of its
    task, without those in `fixed`). The search is written to `storage`, one line of JSON at a time: with `resume`,
    an interrupted one goes on from there, and ends as if nothing had happened. `checkpoint` is that of the last,
    full fit. `say` hears one line about every trial. The table of trials is kept in `provenance_["tune"]`.

    Trials that are worse at a step than half of the others were at it are cut short (the median rule of Golovin et
    al. 2017); those with settings at which training breaks down count as failed. Raises CarouselError for a storage
    of another search, one that is there without `resume`, and where no trial succeeds; MissingExtra without Optuna;
    and whatever `fit` raises about the data.
    """
    if trials < 1:
        raise CarouselError(f"the number of trials must be at least 1, got {trials}; give a larger one.")
    params = estimator.get_params(deep=False)
    start = params.get("config") or getattr(estimator, "defaults", None) or TrainConfig()
    space = _space(estimator) if space is None else space
    space = {name: values for name, values in space.items() if name not in fixed}
    if not space:
        raise CarouselError("every setting that is searched for is fixed; fix fewer, or leave the search out.")
    mark = _identity(estimator, params, start, space, data, given)
    search = _Search(Path(storage), start, space, mark, resume)

    def attempt(config: TrainConfig, watch: Progress) -> float:
        made = type(estimator)(**{**params, "config": dataclasses.replace(config, refit=False)})
        made.fit(*data, progress=watch, **given)
        return validation(made)

    search.run(attempt, trials, progress, say)
    best = search.best()
    estimator.set_params(config=dataclasses.replace(best, refit=start.refit))
    whole = dict(given) if checkpoint is None else {**given, "checkpoint": checkpoint}
    if checkpoint is not None and resume and Path(checkpoint).exists():
        whole["resume"] = True
    estimator.fit(*data, progress=progress, **whole)
    estimator.provenance_["tune"] = search.table()
    return estimator


def validation(estimator: Tunable) -> float:
    """What early stopping looked at, mean over the members of the ensemble; lower is better.

    Raises CarouselError where nothing was held out.
    """
    values: list[float | None] = next(iter(estimator.provenance_.get("metrics", {}).values()), [])
    seen = [value for value in values if value is not None]
    if not seen:
        raise CarouselError("a search needs held-out data to judge by; give holdout a share, or rows to validate on.")
    return float(np.mean(seen))


class _Search:
    """A study in its file, which knows how to go on from any state that a process was stopped in."""

    def __init__(self, path: Path, start: TrainConfig, space: Space, mark: str, resume: bool) -> None:
        self.path, self.start, self.space = path, start, space
        self.optuna = _optuna()
        if path.exists() != resume:
            there = "there is a search already; resume it, or remove the file to start anew"
            raise CarouselError(f"{path}: {'there is no search to resume; start without resume' if resume else there}.")
        _require_journal(path)
        backend = self.optuna.storages.journal.JournalFileBackend(str(path))
        self.study = self.optuna.create_study(
            storage=self.optuna.storages.JournalStorage(backend),
            study_name="carousel",
            load_if_exists=True,
            pruner=self.optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=150),
        )
        found = self.study.user_attrs.get("identity")
        if found is None:
            self.study.set_user_attr("identity", mark)
        elif found != mark:
            raise CarouselError(
                f"{path}: the search is of other data, columns or settings; give the same, or remove the file."
            )

    def run(
        self,
        attempt: Callable[[TrainConfig, Progress], float],
        trials: int,
        progress: Progress | None,
        say: Callable[[str], None] | None,
    ) -> None:
        states = self.optuna.trial.TrialState
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state == states.RUNNING:  # a process was stopped in it: the same settings come again
                self.study.tell(trial.number, state=states.FAIL)
        while (done := len(self._done())) < trials:
            sampler = self.optuna.samplers.TPESampler(seed=SEED + self.start.seed + done, constant_liar=False)
            self.study.sampler = sampler  # seeded by what is done, so that a resumed search asks as a whole one
            if done == 0:
                self.study.enqueue_trial(self._given())
            trial = self.study.ask()
            config = self._config(trial)
            began = time.monotonic()
            try:
                value = attempt(config, self._watch(trial, progress))
            except self.optuna.TrialPruned:
                self.study.tell(trial, state=states.PRUNED)
            except DataError:
                raise
            except CarouselError as error:
                if done == 0:
                    raise
                trial.set_user_attr("refused", str(error))
                self.study.tell(trial, state=states.PRUNED)
            except KeyboardInterrupt as error:
                number = getattr(error, "signum", signal.SIGINT)
                raise Interrupted(number, self.path) from None
            else:
                self.study.tell(trial, value)
            if say:
                say(self._line(self._done()[-1], trials, time.monotonic() - began))

    def best(self) -> TrainConfig:
        """The settings of the best trial."""
        return self._with(self.study.best_trial.params)

    def table(self) -> dict[str, Any]:
        """Every trial that counts, and the best, as plain values."""
        rows = []
        for number, trial in enumerate(self._done(), 1):
            row = {"trial": number, "state": trial.state.name.lower(), "value": _finite(trial.value)}
            rows.append(row | {"settings": dict(trial.params)} | dict(trial.user_attrs))
        best = self.study.best_trial
        return {"trials": rows, "best": dict(best.params), "value": best.value, "sampler": "TPE"}

    def _done(self) -> list[Any]:
        states = self.optuna.trial.TrialState
        return list(self.study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED)))

    def _given(self) -> dict[str, Any]:
        """The settings to start from, as far as the space holds them; those outside it are left to the sampler."""
        found = {}
        for name, values in self.space.items():
            value = getattr(self.start.cell if name.startswith("cell.") else self.start, name.removeprefix("cell."))
            if values.holds(value):
                found[name] = value
        return found

    def _config(self, trial: Any) -> TrainConfig:
        return self._with({name: values.suggest(trial, name) for name, values in self.space.items()})

    def _with(self, found: Mapping[str, Any]) -> TrainConfig:
        cell = {name[5:]: value for name, value in found.items() if name.startswith("cell.")}
        own = {name: value for name, value in found.items() if not name.startswith("cell.")}
        try:
            return dataclasses.replace(self.start, **own, cell=dataclasses.replace(self.start.cell, **cell))
        except (TypeError, ValueError) as error:
            raise CarouselError(f"the search asks for settings that are refused: {error}.") from None

    def _watch(self, trial: Any, progress: Progress | None) -> Progress:
        """Passes events on, and cuts a trial short that falls behind; of an ensemble by its first member."""
        told = set()

        def watch(event: Event) -> None:
            if progress:
                progress(event)
            if event.metric is None or event.member or event.again or event.best is None:
                return
            looked = event.step - event.step % 50  # metrics change at evaluations only; the pruner compares steps
            if looked and looked not in told:
                told.add(looked)
                trial.report(event.best, looked)
                if trial.should_prune():
                    raise self.optuna.TrialPruned

        return watch

    def _line(self, trial: Any, trials: int, seconds: float) -> str:
        number = len(self._done())
        settings = ", ".join(f"{name}={self.space[name].text(value)}" for name, value in trial.params.items())
        value = "cut short" if trial.value is None or trial.state.name == "PRUNED" else f"{trial.value:.5g}"
        best = self.study.best_trial if any(t.state.name == "COMPLETE" for t in self._done()) else None
        mark = f", best {best.value:.5g}" if best is not None else ""
        return f"trial {number}/{trials}: {value} in {seconds:.0f} s ({settings}){mark}"


def _space(estimator: Any) -> Space:
    task = getattr(estimator, "task", "forecast" if type(estimator).__name__ == "Forecaster" else "")
    return SPACE.get(task, _COMMON)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise MissingExtra("optuna", "tune", "a search for settings") from None
    optuna.logging.set_verbosity(logging.WARNING)
    return optuna


def _require_journal(path: Path) -> None:
    """Lines of JSON, of which the last may be cut off by a crash; Optuna itself only asserts."""
    if not path.exists():
        if not path.parent.is_dir():
            raise CarouselError(f"{path}: there is no folder {path.parent}; make it first.")
        return
    try:
        lines = path.read_text("utf-8").splitlines()[:-1]
        sound = all("op_code" in json.loads(line) for line in lines)
    except (UnicodeDecodeError, ValueError, TypeError, OSError):
        sound = False
    if not sound or not lines:
        raise CarouselError(f"{path}: this is no search, or it is damaged; remove the file to start anew.")


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def _identity(
    estimator: Any,
    params: Mapping[str, Any],
    start: TrainConfig,
    space: Space,
    data: Sequence[Any],
    given: Mapping[str, Any],
) -> str:
    """Of everything that a trial depends on but its settings."""
    found = hashlib.sha256(type(estimator).__name__.encode())
    plain = {name: value for name, value in params.items() if name != "config"}
    found.update(json.dumps(plain, sort_keys=True, default=repr).encode())
    found.update(json.dumps(to_json(start), sort_keys=True).encode())
    found.update(repr(sorted(space.items())).encode())
    for value in (*data, *(given[name] for name in sorted(given) if name != "source")):
        _digest(found, value)
    return found.hexdigest()


def _digest(found: Any, value: Any) -> None:
    """Tables by their columns, arrays by their bytes, lists item by item, all else as it is written."""
    if hasattr(value, "shape") and hasattr(value, "columns"):
        import narwhals as nw

        table = nw.from_native(value, eager_only=True)
        for name in table.columns:
            found.update(name.encode())
            _digest(found, np.asarray(table[name].to_numpy()))
    elif isinstance(value, np.ndarray) and value.dtype != object:
        found.update(f"{value.dtype}{value.shape}".encode())
        found.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, list | tuple | np.ndarray):
        for item in value:
            _digest(found, item)
    else:
        found.update(repr(value).encode())
