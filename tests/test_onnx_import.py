"""LSTM nodes read from ONNX: ONNX's own cases, random weights beside ONNX Runtime, stacks, and what is refused."""

from __future__ import annotations

import io
import itertools
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnx.backend.test.case.node import _NodeTestCases
from onnx.backend.test.case.node import lstm as own_cases

from carousel import LSTM, CarouselError, NotSupported, Ragged
from carousel.export import onnx_import
from carousel.export.layers import Layers
from carousel.export.onnx import layers_model
from carousel.export.onnx_backend import CarouselBackend
from onnx_cases import VARIANTS, layer, node_model, require_close, rows, run

assert own_cases.LSTM is not None  # whose import made the cases
OWN = {case.name: case for case in _NodeTestCases if case.model.graph.node[0].op_type == "LSTM"}


def test_there_are_six_cases_of_onnx_itself() -> None:
    kinds = ("defaults", "with_initial_bias", "with_peepholes", "batchwise", "reverse", "bidirectional")
    assert set(OWN) == {f"test_lstm_{kind}" for kind in kinds}


@pytest.mark.parametrize("name", sorted(OWN))
def test_onnx_own_cases(name: str) -> None:
    case = OWN[name]
    assert case.model.opset_import[0].version == 22
    for given, expected in case.data_sets:
        for found, wanted in zip(CarouselBackend.prepare(case.model).run(given), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


RANDOM = [
    dict(zip(("direction", "input_forget", "peephole", "bias", "lengths", "states"), choices, strict=True))
    for choices in [
        *itertools.product(("forward", "reverse", "bidirectional"), (0, 1), (False, True), [True], [True], [True]),
        ("forward", 0, False, False, False, False),
        ("bidirectional", 0, True, False, False, True),
        ("reverse", 1, True, True, False, False),
    ]
]


def check_backend(choices: dict[str, Any]) -> None:
    model, fed = node_model(**choices)
    expected = run(model, fed)
    found = CarouselBackend.prepare(onnx.load_model_from_string(model)).run(fed)
    for ours, name in zip(found, ("Y", "Y_h", "Y_c"), strict=True):
        require_close(ours, expected[name])


@pytest.mark.parametrize("choices", RANDOM, ids=lambda choices: "-".join(str(value) for value in choices.values()))
def test_random_nodes_beside_onnx_runtime(choices: dict[str, Any]) -> None:
    check_backend(choices)


def test_default_activations_may_be_named() -> None:
    check_backend({"activations": ["sigmoid", "Tanh", "tanh"]})


@pytest.mark.parametrize(
    ("attribute", "mutant"),
    [
        ("OPERATOR_GATES", "ofgi"),
        ("reorder", lambda array, have, want: np.roll(array, 1, 0)),
    ],
)
def test_mutants_of_the_import_are_caught(attribute: str, mutant: Any, monkeypatch) -> None:
    monkeypatch.setattr(onnx_import, attribute, mutant)
    with pytest.raises(AssertionError, match="differs by"):
        check_backend(RANDOM[0])


def test_layout_1_is_batch_first() -> None:
    """ONNX Runtime does not have it: the same node in layout 0 is the oracle."""
    choices = {"direction": "bidirectional", "lengths": False}
    plain, fed = node_model(**choices)
    turned, given = node_model(layout=1, **choices)
    lstm = LSTM.from_onnx(turned).eval()
    assert lstm.batch_first
    hx = tuple(torch.from_numpy(given[name].swapaxes(0, 1).copy()) for name in ("initial_h", "initial_c"))
    out, (h, c) = lstm(torch.from_numpy(given["X"]), hx)
    expected = run(plain, fed)
    steps, directions, batch, size = expected["Y"].shape
    y = expected["Y"].transpose(2, 0, 1, 3).reshape(batch, steps, directions * size)
    for ours, theirs in ((out, y), (h, expected["Y_h"]), (c, expected["Y_c"])):
        require_close(ours.detach(), theirs)
    found = CarouselBackend.prepare(onnx.load_model_from_string(turned)).run(given)
    require_close(found[0], expected["Y"].transpose(2, 0, 1, 3))
    require_close(found[2], expected["Y_c"].swapaxes(0, 1))


@pytest.mark.parametrize("name", ["plain", "no bias", "peephole", "coupled", "coupled peephole"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_stacks_come_back(name: str, bidirectional: bool, tmp_path) -> None:
    lstm = layer(bidirectional=bidirectional, **VARIANTS[name])
    lstm.to_onnx(tmp_path / "m.onnx", ragged=True)
    again = LSTM.from_onnx(tmp_path / "m.onnx").eval()
    assert (again.num_layers, again.bidirectional, again.spec) == (2, bidirectional, lstm.spec)
    given = rows(lstm)
    (a, _), (b, _) = lstm(given.x, (given.h, given.c)), again(given.x, (given.h, given.c))
    # equal but for the order in which the two biases were added
    require_close(b.detach(), a.detach(), 3e-7)


@pytest.mark.parametrize("fixed", [False, True])
def test_what_torch_exports_is_read(fixed: bool) -> None:
    """With dynamic axes, and with the sizes of one example written into the graph."""
    theirs = torch.nn.LSTM(3, 5, 2, bidirectional=True, batch_first=True)
    file = io.BytesIO()
    axes = None if fixed else {"x": {0: "batch", 1: "time"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own exporter
        torch.onnx.export(theirs, (torch.zeros(2, 4, 3),), file, dynamo=False, input_names=["x"], dynamic_axes=axes)
    ours, x = LSTM.from_onnx(file.getvalue()), torch.randn(7, 3, 3)
    torch.testing.assert_close(ours(x)[0], theirs(x.transpose(0, 1))[0].transpose(0, 1), rtol=1e-6, atol=1e-6)


def test_ragged_sequences_after_an_import() -> None:
    model, fed = node_model()
    ours = LSTM.from_onnx(model).eval()
    x = Ragged.from_list([torch.from_numpy(fed["X"][:n, b]) for b, n in enumerate(fed["sequence_lens"])])
    _, (h, c) = ours(x, (torch.from_numpy(fed["initial_h"]), torch.from_numpy(fed["initial_c"])))
    expected = run(model, fed)
    require_close(h.detach(), expected["Y_h"])
    require_close(c.detach(), expected["Y_c"])


def edited(change: Any, **choices: Any) -> bytes:
    model = onnx.load_model_from_string(node_model(**choices)[0])
    change(model.graph)
    return model.SerializeToString()


def two_nodes(between: Any, **second: Any) -> bytes:
    """Two LSTM nodes with `between` (nodes from Y to X) and other sizes of the second where they are given."""
    rng = np.random.default_rng(0)
    sizes = {"size": 4, "input_forget": 0} | second
    first = [rng.normal(size=shape).astype(np.float32) for shape in ((1, 16, 3), (1, 16, 4))]
    size = sizes["size"]
    other = [rng.normal(size=shape).astype(np.float32) for shape in ((1, 4 * size, 4), (1, 4 * size, size))]
    names = ("W", "R", "W1", "R1")
    constants = [numpy_helper.from_array(v, k) for k, v in zip(names, first + other, strict=True)]
    constants.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
    nodes = [
        helper.make_node("LSTM", ["X", "W", "R"], ["Y", "", ""], name="a", hidden_size=4),
        *between,
        helper.make_node(
            "LSTM", ["X1", "W1", "R1"], ["Y1"], name="b", hidden_size=size, input_forget=sizes["input_forget"]
        ),
    ]
    x = helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, ["t", "b", 3])
    y = helper.make_tensor_value_info("Y1", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "two", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10).SerializeToString()


SQUEEZE = [helper.make_node("Squeeze", ["Y", "one"], ["X1"])]
RELU = [helper.make_node("Squeeze", ["Y", "one"], ["s"]), helper.make_node("Relu", ["s"], ["X1"])]
DOUBLED = [helper.make_node("Squeeze", ["Y", "one"], ["s"]), helper.make_node("Add", ["s", "s"], ["X1"])]
TURNED = [
    helper.make_node("Squeeze", ["Y", "one"], ["s"]),
    helper.make_node("Transpose", ["s"], ["X1"], perm=[1, 0, 2]),
]


def test_one_node_of_several_and_their_stack() -> None:
    model = two_nodes(SQUEEZE)
    assert LSTM.from_onnx(model).num_layers == 2
    assert LSTM.from_onnx(model, node="b").input_size == LSTM.from_onnx(model, node="Y1").input_size == 4
    assert LSTM.from_onnx(two_nodes(SQUEEZE, size=6), node="a").hidden_size == 4


def gone(graph: Any) -> None:
    graph.node[0].op_type = "GRU"


def odd(graph: Any) -> None:
    graph.node[0].attribute.append(helper.make_attribute("projection", 3))


def fed_weights(graph: Any) -> None:
    graph.initializer.pop(1)
    graph.input.append(helper.make_tensor_value_info("R", onnx.TensorProto.FLOAT, [1, 20, 5]))


def fixed(name: str, value: np.ndarray) -> Any:
    def change(graph: Any) -> None:
        kept = [one for one in graph.input if one.name != name]
        del graph.input[:]
        graph.input.extend(kept)
        graph.initializer.append(numpy_helper.from_array(value, name))

    return change


STATE = np.full((1, 4, 5), 0.5, np.float32)
REFUSED = [
    (node_model(activations=["HardSigmoid", "Tanh", "Tanh"])[0], "HardSigmoid as gate activation; only Sigmoid is"),
    (node_model(activations=["Sigmoid", "Relu", "Tanh"])[0], "Relu as candidate activation; only Tanh is supported"),
    (node_model(activations=["Sigmoid", "Tanh", "Affine"])[0], "Affine as output activation"),
    (node_model(activations=["Sigmoid", "Tanh"])[0], "the LSTM node has 2 activations; expected 3"),
    (node_model(clip=0.5)[0], "clip=0.5, which bounds what goes into the gates; cell_clip bounds the cell state"),
    (node_model(direction="reverse")[0], "the LSTM node 'lstm' goes backwards only"),
    (node_model(direction="sideways")[0], "direction 'sideways'; expected forward, reverse or bidirectional"),
    (edited(gone), "there is no LSTM node in the graph"),
    (edited(odd), "an attribute 'projection', which ONNX's LSTM does not know"),
    (edited(fed_weights), "'lstm' has weights 'R' that follow from the graph's inputs; only constant ones can be"),
    (edited(fixed("initial_c", STATE)), "begins with states that stand in the graph; give them as hx instead"),
    (edited(fixed("sequence_lens", np.array([9, 1, 4, 8], np.int32))), "fixed sequence_lens; give ragged sequences"),
    (two_nodes(RELU), "'a' and 'b' are no stack: something stands between them that changes values"),
    (two_nodes(DOUBLED), "'a' and 'b' are no stack: something stands between them that changes values"),
    (two_nodes(TURNED), "'a' and 'b' are no stack: something stands between them that changes values"),
    (two_nodes([helper.make_node("Identity", ["X"], ["X1"])]), "no stack: the second does not read the first one's Y"),
    (two_nodes(SQUEEZE, size=6), "the LSTM nodes 'a' and 'b' differ in hidden_size; read them one by one"),
    (two_nodes(SQUEEZE, input_forget=1), "the LSTM nodes 'a' and 'b' differ in input_forget"),
    (layers_model(Layers.of(layer(layer_norm=True))), "what we export as a Scan is read from its model file"),
]


@pytest.mark.parametrize(("model", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_what_has_no_equal_is_refused_with_the_reason(model: bytes, message: str) -> None:
    with pytest.raises(CarouselError) as caught:
        LSTM.from_onnx(model)
    assert message in str(caught.value)


def test_states_of_zeros_in_the_graph_are_what_a_layer_begins_with() -> None:
    assert LSTM.from_onnx(edited(fixed("initial_c", 0 * STATE))).hidden_size == 5


STRANGE = [helper.make_node("Shuffle", ["Y"], ["X1"], domain="acme")]


def test_other_wrong_use(tmp_path) -> None:
    with pytest.raises(CarouselError, match="the value 'X1' of the graph cannot be worked out"):
        LSTM.from_onnx(two_nodes(STRANGE))
    with pytest.raises(CarouselError, match=r"no\.onnx: it cannot be read \(No such file or directory\)"):
        LSTM.from_onnx(tmp_path / "no.onnx")
    (tmp_path / "m.onnx").write_bytes(b"\xff" * 40)
    with pytest.raises(CarouselError, match=r"m\.onnx: this is no readable ONNX model"):
        LSTM.from_onnx(tmp_path / "m.onnx")
    with pytest.raises(CarouselError, match="this is no readable ONNX model"):
        LSTM.from_onnx(b"")
    with pytest.raises(CarouselError, match=r"from_onnx takes a path, bytes or an onnx\.ModelProto, got int"):
        LSTM.from_onnx(3)
    with pytest.raises(CarouselError, match="there is no LSTM node 'c'; there are a, b"):
        LSTM.from_onnx(two_nodes(SQUEEZE), node="c")
    with pytest.raises(NotSupported, match="this backend runs graphs of one LSTM node, got LSTM, Squeeze, LSTM"):
        CarouselBackend.prepare(onnx.load_model_from_string(two_nodes(SQUEEZE)))
    with pytest.raises(NotSupported, match="runs on the CPU, not on 'CUDA'"):
        CarouselBackend.prepare(onnx.load_model_from_string(node_model()[0]), "CUDA")
