"""LSTMs from and to `torch.nn.LSTM`: the same weights in the same layout, where the cell is the plain one."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from carousel import atomic
from carousel.cell import CellSpec
from carousel.errors import CarouselError
from carousel.export.layers import Array, Layers, four_gates, refuse, stack_of

__all__ = ["read", "state_dict", "to_module", "write"]


def read(module: Any) -> Layers:
    """The layers of a torch.nn.LSTM or torch.nn.LSTMCell, with both of its biases."""
    nn = import_module("torch").nn
    if not isinstance(module, nn.LSTM | nn.LSTMCell):
        raise CarouselError(f"from_torch takes a torch.nn.LSTM or LSTMCell, got {type(module).__name__}; convert it.")
    cell = isinstance(module, nn.LSTMCell)
    spec = CellSpec(bias=module.bias, proj_size=0 if cell else module.proj_size)
    layers, directions = (1, 1) if cell else (module.num_layers, 2 if module.bidirectional else 1)
    weights = {}
    for layer in range(layers):
        for way in ("", "_reverse")[:directions]:
            for name in spec.shapes(1, module.hidden_size):
                # an attribute, since a parametrization shows the weight there and not in the state_dict
                weight = getattr(module, name if cell else f"{name}_l{layer}{way}").detach().cpu()
                narrow = str(weight.dtype) in ("torch.bfloat16", "torch.float16")
                weights[f"{name}_l{layer}{way}"] = (weight.float() if narrow else weight).numpy().copy()
    return Layers(
        spec,
        module.input_size,
        module.hidden_size,
        layers,
        directions == 2,
        not cell and module.batch_first,
        0.0 if cell else module.dropout,
        weights,
    )


def state_dict(layers: Layers) -> dict[str, Array]:
    """The weights as torch.nn.LSTM names them; coupled gates become four."""
    refuse(layers.spec, "torch.nn.LSTM", ("proj_size",))
    if not layers.spec.coupled:
        return dict(layers.weights)
    found: dict[str, Array] = {}
    for layer in range(layers.num_layers):
        for d, (own, w) in enumerate(zip(layers.layer(layer), four_gates(layers, layer), strict=True)):
            suffix = f"_l{layer}" + "_reverse" * d
            found |= {f"{name}{suffix}": w[name] for name in ("weight_ih", "weight_hh")}
            if layers.spec.bias:
                found |= {f"bias_ih{suffix}": w["bias"], f"bias_hh{suffix}": np.zeros_like(w["bias"])}
            if layers.spec.proj_size:
                found[f"weight_hr{suffix}"] = own["weight_hr"]
    return found


def _arguments(layers: Layers) -> dict[str, Any]:
    return {
        "input_size": layers.input_size,
        "hidden_size": layers.hidden_size,
        "num_layers": layers.num_layers,
        "bias": layers.spec.bias,
        "batch_first": layers.batch_first,
        "dropout": layers.dropout,
        "bidirectional": layers.bidirectional,
        "proj_size": layers.spec.proj_size,
    }


def to_module(layers: Layers) -> Any:
    """A torch.nn.LSTM that computes the same."""
    torch = import_module("torch")
    weights = {name: torch.from_numpy(np.array(value)) for name, value in state_dict(layers).items()}
    made = torch.nn.LSTM(**_arguments(layers), dtype=weights["weight_ih_l0"].dtype)
    made.load_state_dict(weights)
    return made


def write(model: Path, out: Path, member: int | None = None) -> dict[str, Any]:
    """The model's stack as a state_dict in a safetensors file, with the arguments of torch.nn.LSTM as metadata."""
    layers = stack_of(model, member)
    weights, arguments = state_dict(layers), _arguments(layers)
    data = save({name: np.ascontiguousarray(value) for name, value in weights.items()}, {"lstm": json.dumps(arguments)})
    atomic.write_bytes(out, data)
    called = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    notes = [f"torch.nn.LSTM({called}).load_state_dict(safetensors.torch.load_file({str(out)!r}))"]
    return {"out": [str(out)], "lstm": arguments, "notes": [*notes, WITHOUT]}


WITHOUT = "the LSTM alone: the scalers of the input and the head stay in the model file; --to onnx and --to c take them"
