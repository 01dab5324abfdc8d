"""A small untrained model file, for examples and measurements: what streams cost does not depend on training."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from carousel import modelfile
from carousel.cell import CellSpec
from carousel.config import ModelConfig, StackConfig
from carousel.heads.tag import TagHead
from carousel.inputs.roles import Roles
from carousel.inputs.sequence import Channel, SequenceInput

__all__ = ["model_config", "model_file", "random_weights"]


def model_config(inputs: int = 2, hidden: int = 8, layers: int = 1, cell: CellSpec = CellSpec()) -> ModelConfig:
    """A tagger of three classes over `inputs` numbers."""
    columns = tuple(Channel(f"x{k}", "number", mean=0.1 * k, scale=1.5) for k in range(inputs))
    roles = Roles(features=tuple(c.name for c in columns))
    seen = SequenceInput(roles, False, False, 1.0, (), columns, ())
    return ModelConfig("tag", seen, StackConfig(hidden, layers, 0.0, cell), TagHead("label", 0, ("0", "1", "2")))


def random_weights(config: ModelConfig, seed: int = 0) -> dict[str, Any]:
    """Of about the size that trained ones have."""
    rng = np.random.default_rng(seed)
    size = config.stack.hidden_size**0.5
    return {n: (rng.uniform(-1, 1, s) / size).astype(np.float32) for n, s in config.shapes().items()}


def model_file(config: ModelConfig | None = None, path: str | Path | None = None, seed: int = 0) -> Path:
    """Writes the file; without a path into a new temporary folder."""
    config = config or model_config()
    path = Path(path) if path else Path(tempfile.mkdtemp()) / "example.safetensors"
    document = {"format": modelfile.FORMAT, "model": config.to_json(), "provenance": {}}
    modelfile.write(path, random_weights(dataclasses.replace(config), seed), document)
    return path
