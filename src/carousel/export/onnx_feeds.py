"""What an exported graph is run on, from a user's table: the same readers as `predict`, then plain arrays by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel import modelfile
from carousel.config import ModelConfig
from carousel.errors import DataError, NotSupported
from carousel.export import onnx, onnx_forecast, onnx_sequence
from carousel.inputs.text import END

__all__ = ["feeds", "start"]

Feeds = dict[str, NDArray[Any]]


def feeds(model: str | Path, data: Any, future: Any = None, *, source: str = "data") -> Feeds:
    """The inputs, by name, of the graph exported from the file `model`, for every series or sequence of `data`.

    data: a pandas, polars or Arrow table (arrays too for models of sequences, texts for models of text); future: as in
    `Forecaster.predict`.
    Series and sequences are sorted by id, as predict has them. A tagger's state is not among them: see `start`.
    Raises DataError for faults of the data, as `predict` does.
    """
    config = _config(model)
    if config.task == "forecast":
        return _forecast(config, data, future, source)
    if future is not None:
        raise DataError(f"future: a model that can {config.task} looks at no rows ahead; leave it out.")
    if config.task in ("generate", "translate"):
        return _texts(config, data, source)
    from carousel.inputs.rows import raw_channels, read_arrays, read_sequences

    seen = config.input
    if hasattr(data, "columns") or hasattr(data, "column_names"):
        events = {"variable": seen.variable, "value": seen.value}
        found = read_sequences(data, seen.roles, source=source, fitted=seen, target=False, **events)
    else:
        found = read_arrays(data, source=source)
        if found.features.shape[1] != len(seen.roles.features):
            raise DataError(
                f"{source}: arrays of {len(seen.roles.features)} channels are expected, got {found.features.shape[1]};"
                " give the channels of training."
            )
    return onnx_sequence.feeds(config, *raw_channels(found, seen))


def start(model: str | Path, batch: int) -> Feeds:
    """The states, by name, of `batch` sequences that have not begun; NotSupported for a graph without any.

    They stand in the file's metadata too: under `state` each one's shape and the number that it is filled with.
    """
    weights, document = modelfile.read(model)
    config = ModelConfig.from_json(document["model"])
    states = onnx.graph_of(config, weights).states
    if not states:
        raise NotSupported(f"{model}: its graph has no state; whole sequences go in.")
    sizes = {name: [size if isinstance(size, int) else batch for size in state.shape] for name, state in states.items()}
    return {name: np.full(sizes[name], state.begin, state.dtype) for name, state in states.items()}


def _config(model: str | Path) -> ModelConfig:
    _, document = modelfile.read(model)
    return ModelConfig.from_json(document["model"])


def _texts(config: ModelConfig, texts: Any, source: str) -> Feeds:
    """Prompts after the mark END, as language models are trained; sources before it, and how long answers may be."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{source}: a list of texts is expected; give one, as ['ein Haus'].")
    writes = config.task == "generate"
    ids = config.input.words.encode(texts) if writes else config.input.read(texts)
    lengths = np.asarray(ids.lengths, np.int64)
    if not writes and not lengths.all():
        raise DataError(f"{source}: text {int(lengths.argmin()) + 1} is empty; leave it out.")
    tokens = np.full((len(lengths), int(lengths.max()) + 1), END)
    own = tokens[:, 1:] if writes else tokens[:, :-1]
    own[np.arange(own.shape[1]) < lengths[:, None]] = ids.values
    found = {"tokens": tokens, "lengths": lengths + 1}
    return found if writes else found | {"limits": 2 * lengths + 10}


def _forecast(config: ModelConfig, data: Any, future: Any, source: str) -> Feeds:
    from carousel.inputs.origins import last_origins, require_known
    from carousel.inputs.table import read_table

    table = config.input
    if future is not None and not table.roles.known:
        raise DataError("future: the model was trained without known columns; leave it out.")
    series = read_table(data, table.roles, source=source, grid=table.grid, stamps=table.stamps, future=future)
    origins = last_origins(series, None if future is None else int(data.shape[0]))
    require_known(series, origins, table.horizon, source if future is None else "future")
    return onnx_forecast.feeds(config, series, np.asarray(origins, np.int64))
