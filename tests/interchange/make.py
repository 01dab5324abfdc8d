"""Write frameworks.json: random weights of Keras, flax and haiku LSTMs with what these libraries themselves compute.

Run by hand in an environment of their own: pip install keras jax flax dm-haiku; KERAS_BACKEND=jax python make.py
"""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ["JAX_ENABLE_X64"] = "1"

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import keras
import numpy as np
from flax import nnx

T, B, H = 7, 3, 3
WIDTH = 2


def drawn(tree: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.7, np.shape(leaf)).round(3)), tree)


def plain(tree: Any) -> Any:
    if isinstance(tree, dict | list | tuple):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {k: plain(v) for k, v in items} if isinstance(tree, dict) else [plain(v) for _, v in items]
    return np.asarray(tree, np.float64).tolist()


def of_keras(x: Any) -> dict[str, Any]:
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    found = {}
    for name, layer in {
        "keras": keras.layers.LSTM(H, return_sequences=True),
        "keras without bias": keras.layers.LSTM(H, return_sequences=True, use_bias=False),
        "keras bidirectional": keras.layers.Bidirectional(keras.layers.LSTM(H, return_sequences=True)),
    }.items():
        layer.build(x.shape)
        layer.set_weights([np.asarray(w) for w in drawn(layer.get_weights(), len(name))])
        found[name] = {"weights": plain(layer.get_weights()), "y": plain(layer(x))}
    return found


def of_flax(x: Any) -> dict[str, Any]:
    found = {}
    for name, cell in {
        "flax LSTMCell": nn.LSTMCell(H, param_dtype=jnp.float64),
        "flax OptimizedLSTMCell": nn.OptimizedLSTMCell(H, param_dtype=jnp.float64),
    }.items():
        rnn = nn.RNN(cell)
        params = drawn(rnn.init(jax.random.key(0), x), len(name))
        found[name] = {"weights": plain(params), "y": plain(rnn.apply(params, x))}
    both = nn.Bidirectional(
        nn.RNN(nn.OptimizedLSTMCell(H, param_dtype=jnp.float64)),
        nn.RNN(nn.OptimizedLSTMCell(H, param_dtype=jnp.float64)),
    )
    params = drawn(both.init(jax.random.key(0), x), 5)
    found["flax Bidirectional"] = {"weights": plain(params), "y": plain(both.apply(params, x))}
    cell = nnx.LSTMCell(WIDTH, H, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
    _, state = nnx.split(cell, nnx.Param)[:2]
    nnx.update(cell, drawn(state, 6))
    pure = nnx.to_pure_dict(nnx.state(cell, nnx.Param))
    found["flax.nnx LSTMCell"] = {"weights": plain(pure), "y": plain(nnx.RNN(cell)(x))}
    return found


def of_haiku(x: Any) -> dict[str, Any]:
    def run(x: Any) -> Any:
        core = hk.LSTM(H)
        return hk.dynamic_unroll(core, x, core.initial_state(B), time_major=False)[0]

    net = hk.without_apply_rng(hk.transform(run))
    params = drawn(net.init(jax.random.key(0), x), 7)
    return {"haiku": {"weights": plain(params["lstm/linear"]), "y": plain(net.apply(params, x))}}


def main() -> None:
    x = np.random.default_rng(1).normal(size=(B, T, WIDTH)).round(3)
    made = {"x": plain(x)} | of_keras(x) | of_flax(x) | of_haiku(jnp.asarray(x))
    made["versions"] = {name: version(name) for name in ("keras", "jax", "flax", "dm-haiku")}
    Path(__file__).with_name("frameworks.json").write_text(json.dumps(made) + "\n")


if __name__ == "__main__":
    main()
