"""Models and layers as ONNX files, opset 22, written node by node."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from carousel import atomic, modelfile
from carousel.config import ModelConfig
from carousel.errors import NotSupported
from carousel.export.layers import Layers
from carousel.export.onnx_cells import Run, stack
from carousel.export.onnx_graph import OPSET, Graph
from carousel.export.onnx_metadata import metadata
from carousel.inputs.frames import FramesInput
from carousel.inputs.tokens import TokenInput

__all__ = ["GRAPHS", "graph_of", "layers_model", "model_graph", "write"]


def layers_model(layers: Layers, *, ragged: bool = False, scan: bool = False) -> bytes:
    """Inputs `input` [T, B, I] ([B, T, I] with batch_first), `h0` [L * D, B, P] and `c0` [L * D, B, H]; outputs
    `output` [T, B, D * P], `hn` and `cn`; with decay the input `elapsed` [T, B], with `ragged` the input
    `sequence_lens` [B]: rows behind the end of a sequence are not looked at, their output is 0. `scan`: cells are
    written out even where the LSTM operator would do.
    """
    g = Graph("lstm", scan=scan)
    kind = next(iter(layers.weights.values())).dtype
    outer = ("batch", "time") if layers.batch_first else ("time", "batch")
    count = layers.num_layers * layers.directions
    x = g.input("input", kind, [*outer, layers.input_size])
    h = g.input("h0", kind, [count, "batch", layers.output_size])
    c = g.input("c0", kind, [count, "batch", layers.hidden_size])
    elapsed = g.input("elapsed", kind, outer) if layers.spec.decay else None
    lengths = g.input("sequence_lens", np.int32, ["batch"]) if ragged else None
    if layers.batch_first:
        x = x.transpose(1, 0, 2)
        elapsed = None if elapsed is None else elapsed.transpose(1, 0)
    made = stack(g, layers, Run(x, h, c, lengths, elapsed))
    y = made.x.transpose(1, 0, 2) if layers.batch_first else made.x
    g.output(y, "output", [*outer, layers.directions * layers.output_size])
    g.output(made.h, "hn", [count, "batch", layers.output_size])
    g.output(made.c, "cn", [count, "batch", layers.hidden_size])
    about: dict[str, Any] = {"cell": asdict(layers.spec), "hidden_size": layers.hidden_size}
    about |= {"input_size": layers.input_size, "num_layers": layers.num_layers, "bidirectional": layers.bidirectional}
    return g.model({"carousel": json.dumps(about)})


def model_graph(model: str | Path, scan: bool = False) -> bytes:
    """The model file `model` as one ONNX graph, from raw rows to what the head gives."""
    model = Path(model)
    weights, document = modelfile.read(model)
    config = ModelConfig.from_json(document["model"])
    g = graph_of(config, weights, scan)
    fingerprint = hashlib.sha256(model.read_bytes()).hexdigest()
    found = metadata(config, document["provenance"], fingerprint, g.states)
    return g.model(found, f"{config.task}, written by carousel export")


def graph_of(config: ModelConfig, weights: Mapping[str, Any], scan: bool = False) -> Graph:
    """The graph of a model; NotSupported for labels of texts, and for clips."""
    if isinstance(config.input, TokenInput):
        raise NotSupported("a model of labelled texts has no graph from raw rows: its texts are cut into tokens first.")
    if isinstance(config.input, FramesInput):
        raise NotSupported("a model of clips has no graph from rows: an encoder of pictures stands before its LSTM.")
    found: Graph = import_module(GRAPHS[config.task]).graph(config, weights, scan)
    return found


def write(model: str | Path, out: str | Path, scan: bool = False) -> dict[str, Any]:
    """`model_graph` as a file."""
    data = model_graph(model, scan)
    atomic.write_bytes(out, data)
    return {"out": [str(out)], "bytes": len(data), "notes": [f"opset {OPSET}, {len(data):,} bytes"]}


GRAPHS = {
    "forecast": "carousel.export.onnx_forecast",
    "classify": "carousel.export.onnx_sequence",
    "tag": "carousel.export.onnx_sequence",
    "detect": "carousel.export.onnx_detect",
    "generate": "carousel.export.onnx_generate",
    "translate": "carousel.export.onnx_translate",
}
