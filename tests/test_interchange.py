"""Layers from and to torch, Keras, flax and haiku: their own outputs, both ways, what is refused, and mutants."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from carousel import LSTM, CarouselError, LSTMCell, NotSupported
from carousel.export import flax, keras

THEIRS = json.loads((Path(__file__).parent / "interchange" / "frameworks.json").read_text())
X = torch.tensor(THEIRS["x"], dtype=torch.float64)  # [B, T, I]
KERAS = sorted(name for name in THEIRS if name.startswith("keras"))
FLAX = sorted(name for name in THEIRS if name.startswith(("flax", "haiku")))


def arrays(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: arrays(v) for k, v in tree.items()}
    return np.asarray(tree)


def keras_weights(name: str) -> list[np.ndarray]:
    return [np.asarray(w) for w in THEIRS[name]["weights"]]


def imported(name: str) -> LSTM:
    if name.startswith("keras"):
        return LSTM.from_keras(keras_weights(name)).eval()
    return LSTM.from_flax(arrays(THEIRS[name]["weights"])).eval()


def check_theirs(name: str) -> None:
    """Their weights, and what they themselves computed from random inputs over seven steps."""
    out, _ = imported(name)(X)
    # flax and haiku count in float64; Keras on jax rounds its states to float32, 6e-8 of numbers below 1
    tolerance = 2e-7 if name.startswith("keras") else 1e-13
    np.testing.assert_allclose(out.detach().numpy(), THEIRS[name]["y"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", KERAS + FLAX)
def test_what_other_libraries_compute_is_computed_here(name: str) -> None:
    check_theirs(name)


def keras_by_hand(x: np.ndarray, kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The equations of Keras' LSTMCell as its documentation has them, in float64: x [B, T, I] -> [B, T, H]."""
    h = c = np.zeros((len(x), len(recurrent)))
    found = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=1)
        i, f, o = (1 / (1 + np.exp(-z)) for z in (i, f, o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        found.append(h)
    return np.stack(found, 1)


def test_keras_equations_by_hand() -> None:
    out, _ = imported("keras")(X)
    np.testing.assert_allclose(out.detach().numpy(), keras_by_hand(X.numpy(), *keras_weights("keras")), atol=1e-13)


@pytest.mark.parametrize(
    ("module", "constant", "mutant", "name"),
    [
        (keras, "GATES", "igfo", "keras"),
        (keras, "GATES", "ifog", "keras bidirectional"),
        (flax, "HAIKU_GATES", "ifgo", "haiku"),
        (flax, "HAIKU_FORGET", 0.0, "haiku"),
    ],
)
def test_mutants_of_the_import_are_caught(module, constant, mutant, name, monkeypatch) -> None:
    monkeypatch.setattr(module, constant, mutant)
    with pytest.raises(AssertionError, match="Not equal"):
        check_theirs(name)


def test_two_gates_of_flax_swapped_are_caught(monkeypatch) -> None:
    weights = THEIRS["flax OptimizedLSTMCell"]["weights"]["params"]["cell"]
    monkeypatch.setitem(weights, "if", weights["ii"])
    with pytest.raises(AssertionError, match="Not equal"):
        check_theirs("flax OptimizedLSTMCell")


def random_layer(**choices: Any) -> LSTM:
    torch.manual_seed(3)
    lstm = LSTM(3, 5, dtype=torch.float64, **choices).eval()
    with torch.no_grad():
        for weight in lstm.parameters():
            weight.normal_(0, 0.6)
    return lstm


def same(one: Any, two: Any, states: bool = True) -> None:
    """Outputs and states from random inputs [T, B, I] and states; batch-first layers get theirs turned."""
    torch.manual_seed(4)
    x = torch.randn(7, 4, 3, dtype=torch.float64)
    layers, size = one.num_layers * (1 + one.bidirectional), one.proj_size or one.hidden_size
    hx = (torch.randn(layers, 4, size).double(), torch.randn(layers, 4, one.hidden_size).double()) if states else None
    (a, (ah, ac)), (b, (bh, bc)) = (m(x.transpose(0, 1) if m.batch_first else x, hx) for m in (one, two))
    a, b = (out.transpose(0, 1) if m.batch_first else out for m, out in ((one, a), (two, b)))
    for ours, theirs in ((a, b), (ah, bh), (ac, bc)):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


PLAIN = [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}, {"coupled": True, "num_layers": 2}]


@pytest.mark.parametrize("choices", [*PLAIN, {"proj_size": 2, "coupled": True}, {"batch_first": True}])
def test_torch_both_ways(choices: dict[str, Any]) -> None:
    lstm = random_layer(**choices)
    theirs = lstm.to_torch()
    same(theirs, lstm)
    same(LSTM.from_torch(theirs), lstm)
    assert theirs.batch_first == lstm.batch_first


def test_dropout_between_layers_and_float32_travel_with_torch() -> None:
    theirs = torch.nn.LSTM(3, 5, 2, dropout=0.25, batch_first=True)
    ours = LSTM.from_torch(theirs)
    assert (ours.dropout, ours.batch_first, ours.weight_ih_l0.dtype) == (0.25, True, torch.float32)
    assert ours.to_torch().dropout == 0.25
    with torch.no_grad():
        ours.weight_ih_l0.zero_()
    assert theirs.weight_ih_l0.abs().max() > 0  # a copy


def test_a_parametrized_weight_is_read_as_it_acts() -> None:
    theirs = torch.nn.utils.parametrizations.weight_norm(torch.nn.LSTM(3, 5), "weight_hh_l0")
    with torch.no_grad():
        theirs.parametrizations.weight_hh_l0.original0.mul_(0.3)
    x = torch.randn(7, 2, 3)
    torch.testing.assert_close(LSTM.from_torch(theirs)(x)[0], theirs(x)[0], rtol=1e-6, atol=1e-6)


def test_cells_of_torch() -> None:
    theirs = torch.nn.LSTMCell(3, 5).double()
    x, h, c = (torch.randn(4, n, dtype=torch.float64) for n in (3, 5, 5))
    torch.testing.assert_close(LSTMCell.from_torch(theirs)(x, (h, c)), theirs(x, (h, c)), rtol=1e-12, atol=1e-13)
    _, states = LSTM.from_torch(theirs)(x[None], (h[None], c[None]))
    torch.testing.assert_close(tuple(s[0] for s in states), theirs(x, (h, c)), rtol=1e-12, atol=1e-13)
    with pytest.raises(TypeError, match=r"takes a torch.nn.LSTMCell, got LSTM"):
        LSTMCell.from_torch(torch.nn.LSTM(3, 5))


@pytest.mark.parametrize("choices", PLAIN)
def test_keras_and_flax_both_ways(choices: dict[str, Any]) -> None:
    lstm = random_layer(**choices)
    same(LSTM.from_keras(lstm.to_keras()), lstm)
    same(LSTM.from_flax(lstm.to_flax()), lstm)
    if not lstm.bidirectional:
        same(LSTM.from_flax(lstm.to_flax("haiku")), lstm)


def keras_layer(weights: list[np.ndarray], **attributes: Any) -> SimpleNamespace:
    """What from_keras looks at in a layer."""
    usual = {"activation": np.tanh, "recurrent_activation": "sigmoid", "go_backwards": False, "dropout": 0.0}
    return SimpleNamespace(get_weights=lambda: weights, **(usual | {"recurrent_dropout": 0.0} | attributes))


def test_keras_layers_bring_their_settings() -> None:
    weights = keras_weights("keras")
    assert LSTM.from_keras(keras_layer(weights, recurrent_dropout=0.3)).spec.recurrent_dropout == 0.3
    both = keras_weights("keras bidirectional")
    inner = {"forward_layer": keras_layer([]), "backward_layer": keras_layer([], go_backwards=True)}
    assert LSTM.from_keras(SimpleNamespace(get_weights=lambda: both, merge_mode="concat", **inner)).bidirectional


W = [np.ones((2, 12)), np.ones((3, 12)), np.ones(12)]
REFUSED = [
    (lambda: LSTM.from_keras(keras_layer(W, activation="relu")), r"layer 0 has activation='relu': the candidate"),
    (lambda: LSTM.from_keras(keras_layer(W, recurrent_activation="hard_sigmoid")), r"'hard_sigmoid': gates are sigm"),
    (lambda: LSTM.from_keras(keras_layer(W, go_backwards=True)), r"go_backwards=True: a single reversed direction"),
    (lambda: LSTM.from_keras(keras_layer(W, dropout=0.2)), r"dropout=0.2: dropout of a layer's input has no equal"),
    (lambda: LSTM.from_keras(SimpleNamespace(get_weights=lambda: W, merge_mode="sum")), r"merges .* by 'sum'"),
    (lambda: LSTM.from_keras(W[:1]), r"layer 0 has 1 weights; an LSTM has 2 or 3, a bidirectional one 4 or 6"),
    (lambda: LSTM.from_keras([W[0], W[1].T, W[2]]), r"kernels \[2, 12\] and \[12, 3\]; an LSTM has \[I, 4H\]"),
    (lambda: LSTM.from_keras([*W[:2], W[2][:9]]), r"a bias \[9\]; expected \[12\]"),
    (lambda: LSTM.from_keras("m.keras"), r"from_keras takes layers or their get_weights\(\), got str"),
    (lambda: LSTM.from_keras([]), r"from_keras got no layers"),
    (lambda: LSTM.from_keras([W, [np.ones((3, 8)), np.ones((2, 8))]]), r"layer 1 differs from layer 0 in its units"),
    (lambda: LSTM.from_flax({"ii": {}, "if": {}}), r"layer 0 is no LSTM cell of flax: 'hf' is missing"),
    (lambda: LSTM.from_flax({"w": np.ones((3, 12)), "b": np.ones(12)}), r"haiku's LSTM has w \[I \+ H, 4H\]"),
    (lambda: LSTM.from_flax(np.ones(3)), r"takes mappings of parameters, got ndarray"),
    (lambda: LSTM.from_torch(torch.nn.GRU(3, 5)), r"takes a torch.nn.LSTM or LSTMCell, got GRU"),
    (lambda: random_layer(peephole=True).to_torch(), r"peephole has no equal in torch.nn.LSTM: its gates do not see"),
    (lambda: random_layer(layer_norm=True).to_keras(), r"layer_norm has no equal in Keras' LSTM: it has no layer norm"),
    (lambda: random_layer(proj_size=2).to_keras(), r"proj_size has no equal in Keras' LSTM: it has no projection"),
    (lambda: random_layer(decay=True).to_flax(), r"decay has no equal in flax's LSTM cell: its cell state knows"),
    (lambda: random_layer(cell_clip=1.0).to_flax(), r"cell_clip has no equal in flax's LSTM cell"),
    (lambda: random_layer(zoneout_h=0.1).to_torch(), r"zoneout_h has no equal in torch.nn.LSTM: it has no zoneout"),
    (lambda: random_layer(bidirectional=True).to_flax("haiku"), r"haiku has no bidirectional LSTM"),
    (lambda: random_layer().to_flax("jax"), r"style must be flax or haiku, got 'jax'"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_what_has_no_equal_is_refused_with_the_reason(call, message) -> None:
    with pytest.raises(CarouselError, match=message):
        call()


def test_regularisers_that_evaluation_does_not_have_stay_behind() -> None:
    lstm = random_layer(recurrent_dropout=0.4, weight_drop=0.2)
    same(lstm.to_torch(), lstm)
    with pytest.raises(NotSupported):
        random_layer(zoneout_c=0.1).to_torch()
