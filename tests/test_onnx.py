"""Layers as ONNX graphs on ONNX Runtime: every variant, ragged, in pieces, from other batches; and mutants."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch

from carousel import LSTM
from carousel.export import layers as layers_module
from carousel.export import onnx_cells
from carousel.export.layers import Layers
from carousel.export.onnx import layers_model
from onnx_cases import (
    VARIANTS,
    check_dense,
    check_pieces,
    check_ragged,
    feeds,
    layer,
    require_close,
    rows,
    session,
    tolerance,
)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_dense_and_ragged(name: str, bidirectional: bool) -> None:
    lstm = layer(bidirectional=bidirectional, **VARIANTS[name])
    check_dense(lstm)
    check_ragged(lstm)


@pytest.mark.parametrize("name", ["plain", "coupled peephole", "all"])
def test_pieces_go_on_with_the_states_of_those_before(name: str) -> None:
    check_pieces(layer(**VARIANTS[name]))


@pytest.mark.parametrize("name", ["plain", "decay"])
def test_batch_first(name: str) -> None:
    check_dense(layer(batch_first=True, **VARIANTS[name]))


@pytest.mark.parametrize("name", ["plain", "all"])
def test_batch_and_time_are_dynamic(name: str) -> None:
    lstm = layer(bidirectional=True, **VARIANTS[name])
    made = session(layers_model(Layers.of(lstm)))
    for steps, batch in ((1, 1), (40, 3)):
        given = rows(lstm, steps, batch)
        gaps = {"elapsed": given.elapsed} if lstm.spec.decay else {}
        with torch.no_grad():
            out, _ = lstm(given.x, (given.h, given.c), **gaps)
        require_close(made.run(None, feeds(lstm, given))[0], out, tolerance(lstm))


def test_the_operator_is_used_where_it_fits_and_nothing_is_left_over() -> None:
    for name, choices in VARIANTS.items():
        lstm = layer(bidirectional=True, **choices)
        graph = onnx.load_model_from_string(layers_model(Layers.of(lstm), ragged=True)).graph
        kinds = {node.op_type for node in graph.node}
        fits = name in ("plain", "no bias", "peephole", "coupled", "coupled peephole", "dropouts")
        assert ("LSTM" in kinds, "Scan" in kinds) == (fits, not fits)
        used = {name for node in graph.node for name in node.input}
        used |= {k for node in graph.node for a in node.attribute for inner in a.g.node for k in inner.input}
        assert {one.name for one in graph.initializer} <= used


@pytest.mark.parametrize("name", VARIANTS)
def test_in_float64_the_graphs_are_the_equations(name: str) -> None:
    """ONNX Runtime has the LSTM operator in float32 only, so that cells of float64 are written out."""
    lstm = layer(bidirectional=True, **VARIANTS[name]).double()
    check_dense(lstm)
    check_ragged(lstm)


@pytest.mark.parametrize("name", ["plain", "coupled peephole"])
def test_cells_may_be_written_out(name: str) -> None:
    lstm = layer(bidirectional=True, **VARIANTS[name]).double()
    given = rows(lstm)
    model = layers_model(Layers.of(lstm), scan=True)
    assert b"LSTM" not in {node.op_type.encode() for node in onnx.load_model_from_string(model).graph.node}
    with torch.no_grad():
        out, _ = lstm(given.x, (given.h, given.c))
    require_close(session(model).run(None, feeds(lstm, given))[0], out, 1e-12)


def test_coupled_gates_are_right_however_a_runtime_couples_them() -> None:
    """f = 1 - i and i = 1 - f, or both gates on their own: what is stored agrees with all three."""
    lstm = layer(**VARIANTS["coupled peephole"])
    model = onnx.load_model_from_string(layers_model(Layers.of(lstm)))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "input_forget":
                attribute.i = 0
    given = rows(lstm)
    with torch.no_grad():
        out, _ = lstm(given.x, (given.h, given.c))
    require_close(session(model.SerializeToString()).run(None, feeds(lstm, given))[0], out)


def test_files_say_what_they_hold(tmp_path) -> None:
    lstm = layer(peephole=True)
    lstm.to_onnx(tmp_path / "lstm.onnx", ragged=True)
    model = onnx.load(tmp_path / "lstm.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == 22
    assert [one.name for one in model.graph.input] == ["input", "h0", "c0", "sequence_lens"]
    assert '"peephole": true' in model.metadata_props[0].value
    assert layers_model(Layers.of(lstm), ragged=True) == (tmp_path / "lstm.onnx").read_bytes()  # the same twice


operator_weights, folded, steps = onnx_cells.operator_weights, onnx_cells._folded, onnx_cells._steps


def swapped(weight: Any, have: str, want: str) -> Any:
    return layers_module.reorder(weight, have, want[1] + want[0] + want[2:])


def without_forget_bias(spec: Any, directions: Any) -> Any:
    made = operator_weights(spec, directions)
    size = made["R"].shape[-1]
    made["B"][:, 2 * size : 3 * size] = 0
    return made


def late(spec: Any, w: Any) -> Any:
    made = folded(spec, w)
    made["bias"] = np.roll(made["bias"], 1)
    return made


@pytest.mark.parametrize(
    ("name", "attribute", "mutant"),
    [
        ("plain", "reorder", swapped),
        ("plain", "operator_weights", without_forget_bias),
        ("plain", "OPERATOR_GATES", "ifog"),
        ("projection", "_folded", late),
        ("layer norm", "LAYER_NORM_EPS", 1e-2),
        ("decay", "_reversed_gaps", lambda g, run: run.elapsed),
        ("zoneout", "_steps", lambda g, x: steps(g, x) - 1),
        ("decay", "_steps", lambda g, x: steps(g, x) + 1),
    ],
)
def test_mutants_are_caught(name: str, attribute: str, mutant: Any, monkeypatch) -> None:
    """Two gates swapped, the forget bias dropped, biases one unit late, gaps not turned, lengths off by one."""
    monkeypatch.setattr(onnx_cells, attribute, mutant)
    with pytest.raises(AssertionError, match="differs by"):
        check_ragged(layer(bidirectional=True, **VARIANTS[name]))


def test_a_stack_of_one_layer_and_no_states_given() -> None:
    """Zeros for h0 and c0 are what a layer begins with."""
    lstm = LSTM(3, 4).eval()
    x = torch.randn(7, 2, 3)
    zeros = np.zeros((1, 2, 4), np.float32)
    found = session(layers_model(Layers.of(lstm))).run(None, {"input": x.numpy(), "h0": zeros, "c0": zeros})
    require_close(found[0], lstm(x)[0].detach())
