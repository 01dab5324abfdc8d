"""What all estimators have in common: parameters, settings, the model file."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from carousel import modelfile
from carousel.config import ModelConfig, from_record
from carousel.errors import CarouselError
from carousel.model import members_from
from carousel.train import TrainConfig

__all__ = ["Estimator", "versions"]

Weights = dict[str, NDArray[Any]]


class Estimator:
    """`__init__` stores, `fit` learns, fitted names end in an underscore. Subclasses say which parameters they have."""

    task: ClassVar[str]
    defaults: ClassVar[TrainConfig]
    _parameters: ClassVar[tuple[str, ...]]

    config: TrainConfig | None
    seeds: int
    provenance_: dict[str, Any]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of `__init__`, as scikit-learn's clone and grid search want them."""
        return {name: getattr(self, name) for name in self._parameters}

    def set_params(self, **params: Any) -> Self:
        """Set arguments of `__init__`; ValueError for a name that is none."""
        for name, value in params.items():
            if name not in self._parameters:
                known = ", ".join(self._parameters)
                raise ValueError(f"{type(self).__name__} has no parameter {name!r}; it has {known}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        given = {k: v for k, v in self.get_params().items() if v is not None and v != ()}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in given.items())})"

    @property
    def settings(self) -> TrainConfig:
        """The choices of training: `config`, or the defaults of the task."""
        if self.config is None:
            return self.defaults
        if not isinstance(self.config, TrainConfig):
            raise CarouselError(
                f"config must be a TrainConfig, got {self.config!r}; write TrainConfig(steps=40) for other steps."
            )
        return self.config

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model file, atomically."""
        config = self._fitted()
        document = {"format": modelfile.FORMAT, "model": config.to_json(), "provenance": self.provenance_}
        modelfile.write(path, self._weights, document)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """The fitted estimator from a model file; ModelFileError where the file is refused or of another task."""
        weights, document = modelfile.read(path)
        config = ModelConfig.from_json(document["model"])
        if config.task != cls.task:
            raise CarouselError(f"{path}: the model is for the task {config.task}, not {cls.task}; load it as that.")
        settings = document["provenance"].get("train")
        made = cls(**cls._parameters_of(config, document["provenance"]))
        made.config = None if settings is None else from_record(TrainConfig, settings, "provenance.train")
        made.provenance_ = document["provenance"]
        made._keep(config, weights)
        return made

    @classmethod
    def _parameters_of(cls, config: ModelConfig, provenance: dict[str, Any]) -> dict[str, Any]:
        """Arguments of `__init__` from a fitted config."""
        raise NotImplementedError

    def _keep(self, config: ModelConfig, weights: Weights) -> None:
        self._weights = weights
        self.config_ = config
        self.model_ = members_from(config, weights)

    def _fitted(self) -> ModelConfig:
        config: ModelConfig | None = getattr(self, "config_", None)
        if config is None:
            raise _not_fitted(type(self).__name__)
        return config

    def _check_seeds(self) -> None:
        if isinstance(self.seeds, bool) or not isinstance(self.seeds, int | np.integer) or self.seeds < 1:
            raise CarouselError(f"seeds must be a whole number of at least 1, got {self.seeds!r}; give a larger one.")


def _not_fitted(name: str) -> CarouselError:
    """One that callers who use scikit-learn catch as its NotFittedError."""
    theirs = getattr(sys.modules.get("sklearn.exceptions"), "NotFittedError", None)
    kind: Any = CarouselError if theirs is None else type("NotFitted", (CarouselError, theirs), {})
    found: CarouselError = kind(f"this {name} is not fitted yet; call fit, or {name}.load.")
    return found


def versions() -> dict[str, str]:
    """Of what a model was made with, for its provenance."""
    found = {"python": platform.python_version()}
    for name in ("carousel-lstm", "torch", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a source tree that is not installed
            found[name] = "unknown"
    return found
