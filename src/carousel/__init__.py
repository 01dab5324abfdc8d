"""Carousel: LSTMs made practical.

The public names load on first use, so that `import carousel` brings in neither torch nor a table library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from carousel.cell import CellSpec
    from carousel.clip_stream import ClipStream
    from carousel.convlstm import ConvLSTM
    from carousel.detection import DetectConfig
    from carousel.errors import CarouselError, DataError, MissingExtra, ModelFileError, NotSupported
    from carousel.estimators import Classifier, Detector, Forecaster, Generator, Tagger, Translator
    from carousel.inputs.frames import Frames
    from carousel.inputs.tokens import TextConfig
    from carousel.lstm import LSTM, LSTMCell
    from carousel.ragged import Ragged
    from carousel.stream import Stream, Streams
    from carousel.train import TrainConfig

    __version__: str

__all__ = [
    "LSTM",
    "CarouselError",
    "CellSpec",
    "Classifier",
    "ClipStream",
    "ConvLSTM",
    "DataError",
    "DetectConfig",
    "Detector",
    "Forecaster",
    "Frames",
    "Generator",
    "LSTMCell",
    "MissingExtra",
    "ModelFileError",
    "NotSupported",
    "Ragged",
    "Stream",
    "Streams",
    "Tagger",
    "TextConfig",
    "TrainConfig",
    "Translator",
    "__version__",
]

_HOME = {
    "LSTM": "lstm",
    "LSTMCell": "lstm",
    "ConvLSTM": "convlstm",
    "CellSpec": "cell",
    "Ragged": "ragged",
    "Stream": "stream",
    "Streams": "stream",
    "Classifier": "estimators",
    "ClipStream": "clip_stream",
    "Frames": "inputs.frames",
    "DetectConfig": "detection",
    "Detector": "estimators",
    "Forecaster": "estimators",
    "Generator": "estimators",
    "Tagger": "estimators",
    "TextConfig": "inputs.tokens",
    "Translator": "estimators",
    "TrainConfig": "train",
} | dict.fromkeys(("CarouselError", "DataError", "MissingExtra", "ModelFileError", "NotSupported"), "errors")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("carousel-lstm")
    elif name in _HOME:
        value = getattr(_load(name), name)
    else:
        raise AttributeError(f"module 'carousel' has no attribute {name!r}")
    globals()[name] = value
    return value


def _load(name: str) -> Any:
    """The module of a public name; one that needs what is not installed says which extra brings it."""
    try:
        return importlib.import_module(f"carousel.{_HOME[name]}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "carousel":
            raise
        from carousel.errors import MissingExtra

        raise MissingExtra(error.name, "train", f"carousel.{name}") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
