"""Models and layers as ONNX files, opset 22, written node by node."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from carousel import modelfile
from carousel.errors import NotSupported
from carousel.export.layers import Layers
from carousel.export.onnx_cells import Run, stack
from carousel.export.onnx_graph import Graph

__all__ = ["layers_model", "write"]


def layers_model(layers: Layers, *, ragged: bool = False) -> bytes:
    """Inputs `input` [T, B, I] ([B, T, I] with batch_first), `h0` [L * D, B, P] and `c0` [L * D, B, H]; outputs
    `output` [T, B, D * P], `hn` and `cn`; with decay the input `elapsed` [T, B], with `ragged` the input
    `sequence_lens` [B]: rows behind the end of a sequence are not looked at, their output is 0.
    """
    g = Graph("lstm")
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


def write(model: Path, out: Path) -> dict[str, Any]:
    """The model file `model` as one ONNX graph, from raw rows to what the head gives."""
    _, document = modelfile.read(model)
    raise NotSupported(f"{model}: a model of the task {document['model']['task']!r} has no ONNX graph.")
