"""LSTM in place of torch.nn.LSTM: values, gradients, states, weights, errors, and how it behaves as a module."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence
from torch.testing._internal.common_modules import (
    ModuleErrorEnum,
    module_error_inputs_torch_nn_RNN_GRU,
    module_inputs_torch_nn_LSTM,
)

from carousel import LSTM, CarouselError, NotSupported, Ragged, backends
from carousel.cell import CellSpec
from lstm_cases import able

F64 = torch.float64
SAMPLES = [
    pytest.param(number, training, id=f"{number}-{'train' if training else 'eval'}")
    for number in range(32)
    for training in (True, False)
]


def _twins(backend: str, *args: Any, **kwargs: Any) -> tuple[LSTM, nn.LSTM]:
    """Ours and torch's with the same random weights, handed over in one direction and back."""
    theirs = nn.LSTM(*args, dtype=F64, **kwargs)
    ours = LSTM(*args, dtype=F64, backend=backend, **kwargs)
    assert ours.load_state_dict(theirs.state_dict()).missing_keys == []
    other = nn.LSTM(*args, dtype=F64, **kwargs)
    other.load_state_dict(ours.state_dict())
    assert list(other.state_dict()) == list(ours.state_dict())
    for name, value in other.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name], rtol=0, atol=0)
    return ours, other


def _flat(result: Any) -> list[Tensor]:
    out, (h, c) = result
    return [out.data if isinstance(out, PackedSequence) else out, h, c]


def _compare(ours: LSTM, theirs: nn.LSTM, args: Any, leaves: list[Tensor], grad: bool) -> None:
    """Outputs and states; with `grad` also the gradients of a random projection of them to every leaf."""
    with torch.set_grad_enabled(grad):
        found, expected = _flat(ours(*args)), _flat(theirs(*args))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    if not grad:
        return
    weights = [torch.randn_like(value) for value in expected]
    names = list(dict(theirs.named_parameters()))
    mine = torch.autograd.grad(found, [*leaves, *(ours.get_parameter(n) for n in names)], weights, retain_graph=True)
    true = torch.autograd.grad(
        expected, [*leaves, *(theirs.get_parameter(n) for n in names)], weights, retain_graph=True
    )
    for a, b in zip(mine, true, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("number", "training"), SAMPLES)
def test_torchs_own_module_inputs(number: int, training: bool):
    samples = module_inputs_torch_nn_LSTM(nn.LSTM, "cpu", F64, requires_grad=True, training=training)
    assert len(samples) == 32
    sample = samples[number]
    build, call = sample.constructor_input, sample.forward_input
    spec = CellSpec(bias=build.kwargs["bias"], proj_size=build.kwargs["proj_size"])
    ran = set()
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            names = list(able(spec))
        for name in names:
            ours, theirs = _twins(name, *build.args, **build.kwargs)
            ours.train(training)
            theirs.train(training)
            leaves = [call.args[0], *(call.args[1] if len(call.args) > 1 else ())]
            _compare(ours, theirs, call.args, leaves, grad)
            ran.add(name)
    assert {"aten", "reference"} <= ran


VARIANTS = [
    pytest.param(
        {"bias": bias, "proj_size": proj_size, "bidirectional": bidirectional},
        id=f"{'bias' if bias else 'nobias'}-p{proj_size}-{'bi' if bidirectional else 'uni'}",
    )
    for bias in (True, False)
    for proj_size in (0, 3)
    for bidirectional in (False, True)
]


@pytest.mark.parametrize("kwargs", VARIANTS)
@pytest.mark.parametrize("kind", ["time-major", "batch-first", "strided", "sorted", "unsorted"])
def test_real_batches_equal_torchs(kind: str, kwargs: Any):
    """T = 9, B = 4, I = 5, H = 6, L = 2, ragged lengths with a 1, random states."""
    lengths = [9, 7, 7, 1] if kind == "sorted" else [7, 1, 9, 7]
    d, p = 1 + kwargs["bidirectional"], kwargs["proj_size"] or 6
    h, c = torch.randn(2 * d, 4, p, dtype=F64), torch.randn(2 * d, 4, 6, dtype=F64)
    x = torch.randn(9, 4, 5, dtype=F64)
    if kind == "batch-first":
        x = torch.randn(4, 9, 5, dtype=F64)
    elif kind == "strided":
        x = torch.randn(4, 9, 11, dtype=F64)[:, :, 1::2].transpose(0, 1)
    for leaf in (leaves := [x.detach(), h, c]):
        leaf.requires_grad_()
    given: Any = leaves[0]
    if kind in ("sorted", "unsorted"):
        given = pack_padded_sequence(given, torch.tensor(lengths), enforce_sorted=kind == "sorted")
    spec = CellSpec(bias=kwargs["bias"], proj_size=kwargs["proj_size"])
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            names = list(able(spec))
        for name in names:
            ours, theirs = _twins(name, 5, 6, 2, batch_first=kind == "batch-first", **kwargs)
            _compare(ours, theirs, (given, (h, c)), leaves, grad)
            _compare(ours, theirs, (given,), leaves[:1], grad)


@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_packed_output_keeps_its_indices(enforce_sorted: bool):
    packed = pack_sequence([torch.randn(n, 3) for n in (5, 3, 1)], enforce_sorted=enforce_sorted)
    out, _ = LSTM(3, 4)(packed)
    theirs, _ = nn.LSTM(3, 4)(packed)
    assert isinstance(out, PackedSequence)
    assert torch.equal(out.batch_sizes, theirs.batch_sizes)
    for a, b in (
        (out.sorted_indices, theirs.sorted_indices),
        (out.unsorted_indices, theirs.unsorted_indices),
    ):
        assert (a is None and b is None) or torch.equal(a, b)


def test_ragged_equals_packed_in_its_order():
    sequences = [torch.randn(n, 3, dtype=F64) for n in (2, 9, 1, 7)]
    ours, theirs = _twins("auto", 3, 4, 2, bidirectional=True)
    h, c = torch.randn(4, 4, 4, dtype=F64), torch.randn(4, 4, 4, dtype=F64)
    out, found = ours(Ragged.from_list(sequences), (h, c))
    expected, states = theirs(pack_sequence(sequences, enforce_sorted=False), (h, c))
    assert isinstance(out, Ragged)
    torch.testing.assert_close(out.values, Ragged.from_packed(expected).values, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, states, rtol=1e-12, atol=1e-12)


def test_ragged_sequences_without_rows_keep_their_state():
    ragged = Ragged(torch.randn(5, 3, dtype=F64), [0, 0, 4, 4, 5])
    h, c = torch.randn(2, 4, 4, dtype=F64), torch.randn(2, 4, 4, dtype=F64)
    for name in able(CellSpec()):
        lstm = LSTM(3, 4, bidirectional=True, backend=name, dtype=F64)
        out, (h_n, c_n) = lstm(ragged, (h, c))
        assert torch.equal(h_n[:, [0, 2]], h[:, [0, 2]])
        assert torch.equal(c_n[:, [0, 2]], c[:, [0, 2]])
        alone, (h_1, _) = lstm(ragged[1], (h[:, 1], c[:, 1]))
        torch.testing.assert_close(out.values[:4], alone, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(h_n[:, 1], h_1, rtol=1e-12, atol=1e-12)
        nothing, (h_n, _) = lstm(Ragged(torch.zeros(0, 3, dtype=F64), [0, 0, 0, 0, 0]), (h, c))
        assert nothing.values.shape == (0, 8)
        assert torch.equal(h_n, h)


def test_an_empty_batch_gives_empty_outputs_as_torch_does():
    for name in able(CellSpec()):
        out, (h, c) = LSTM(3, 4, 2, backend=name, dtype=F64)(torch.zeros(7, 0, 3, dtype=F64))
        assert out.shape == (7, 0, 4)
        assert h.shape == c.shape == (2, 0, 4)


@pytest.mark.parametrize("kwargs", [{}, {"bias": False}, {"proj_size": 2, "bidirectional": True, "num_layers": 2}])
def test_a_seed_gives_torchs_initial_weights(kwargs: Any):
    torch.manual_seed(5)
    theirs = nn.LSTM(3, 4, **kwargs)
    torch.manual_seed(5)
    ours = LSTM(3, 4, **kwargs)
    for (name, a), (other, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(a, b)
    torch.manual_seed(6)
    theirs.reset_parameters()
    torch.manual_seed(6)
    ours.reset_parameters()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_dropout_between_layers_is_torchs_mask_for_mask():
    ours, theirs = _twins("auto", 3, 4, 3, dropout=0.4)
    x = torch.randn(7, 5, 3, dtype=F64)
    torch.manual_seed(9)
    expected, _ = theirs(x)
    torch.manual_seed(9)
    found, _ = ours(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(found, ours(x)[0])
    ours.eval()
    torch.testing.assert_close(ours(x)[0], theirs.eval()(x)[0], rtol=1e-12, atol=1e-12)


def test_all_weights_are_the_parameters_in_torchs_order():
    ours, theirs = _twins("auto", 3, 4, 2, bidirectional=True, proj_size=2)
    assert [[tuple(w.shape) for w in group] for group in ours.all_weights] == [
        [tuple(w.shape) for w in group] for group in theirs.all_weights
    ]
    assert ours.all_weights[3][4] is ours.weight_hr_l1_reverse


def test_forget_bias_is_added_to_the_forget_gates_of_bias_ih():
    for coupled in (False, True):
        torch.manual_seed(3)
        plain = LSTM(3, 4, 2, bidirectional=True, coupled=coupled)
        torch.manual_seed(3)
        remembering = LSTM(3, 4, 2, bidirectional=True, coupled=coupled, forget_bias=1.5)
        start = 0 if coupled else 4
        for name, value in remembering.named_parameters():
            added = value - plain.get_parameter(name)
            expected = torch.zeros_like(added)
            if name.startswith("bias_ih"):
                expected[start : start + 4] = 1.5
            torch.testing.assert_close(added, expected, atol=1e-6, rtol=0)
    with pytest.raises(CarouselError, match="needs bias=True"):
        LSTM(3, 4, bias=False, forget_bias=1.0)


def test_the_weights_that_torch_lacks_begin_as_documented():
    lstm = LSTM(3, 40, layer_norm=True, decay=True, peephole=True)
    assert torch.equal(lstm.norm_ih_l0, torch.ones(160))
    assert torch.equal(lstm.norm_hh_l0, torch.ones(160))
    assert torch.equal(lstm.norm_c_l0, torch.ones(40))
    assert torch.equal(lstm.norm_bias_c_l0, torch.zeros(40))
    constants = 1 / nn.functional.softplus(lstm.decay_rate_l0)
    assert constants.min() > 1.4
    assert constants.max() < 404
    assert constants.max() / constants.min() > 10
    assert lstm.weight_ch_l0.abs().max() <= 40**-0.5
    assert lstm.weight_ch_l0.std() > 0.05


def test_it_is_copied_pickled_and_saved_like_a_module():
    lstm = LSTM(3, 4, 2, bidirectional=True, peephole=True, zoneout_c=0.2, forget_bias=1.0, dropout=0.1).eval()
    x = torch.randn(7, 3, 3)
    expected = _flat(lstm(x))
    buffer = io.BytesIO()
    torch.save(lstm, buffer)
    buffer.seek(0)
    for other in (
        copy.deepcopy(lstm),
        pickle.loads(pickle.dumps(lstm)),
        torch.load(buffer, weights_only=False),
    ):
        assert all(torch.equal(a, b) for a, b in zip(_flat(other(x)), expected, strict=True))
        assert repr(other) == repr(lstm)
        with torch.no_grad():
            other.weight_hh_l0.add_(1.0)
        assert not torch.equal(_flat(other(x))[0], expected[0])
    assert all(torch.equal(a, b) for a, b in zip(_flat(lstm(x)), expected, strict=True))


def test_flatten_parameters_changes_nothing():
    lstm = LSTM(3, 4)
    before = {name: (value.data_ptr(), value.clone()) for name, value in lstm.named_parameters()}
    assert lstm.flatten_parameters() is None
    for name, value in lstm.named_parameters():
        assert value.data_ptr() == before[name][0]
        assert torch.equal(value, before[name][1])


def test_its_text_is_torchs_plus_the_variants():
    for kwargs in ({}, {"num_layers": 2, "dropout": 0.5}, {"bias": False, "batch_first": True}):
        assert repr(LSTM(3, 4, **kwargs)) == repr(nn.LSTM(3, 4, **kwargs))
    assert repr(LSTM(3, 4, proj_size=2, bidirectional=True)) == repr(nn.LSTM(3, 4, proj_size=2, bidirectional=True))
    text = repr(LSTM(3, 4, coupled=True, zoneout_c=0.1, forget_bias=1.0, recompute=8, backend="reference"))
    assert text == "LSTM(3, 4, recompute=8, coupled=True, zoneout_c=0.1, forget_bias=1.0, backend='reference')"


def test_attributes_are_torchs_and_count_when_changed():
    lstm = LSTM(3, 4, 2, proj_size=2)
    theirs = nn.LSTM(3, 4, 2, proj_size=2)
    for name in ("mode", "input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"):
        assert getattr(lstm, name) == getattr(theirs, name)
    assert lstm.proj_size == theirs.proj_size
    lstm.batch_first = True
    assert lstm(torch.zeros(5, 7, 3))[1][0].shape == (2, 5, 2)
    with pytest.raises(AttributeError):
        lstm.proj_size = 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_moved_to_another_dtype(dtype: torch.dtype):
    lstm = LSTM(3, 4, 2, bidirectional=True).to(dtype)
    out, (h, c) = lstm(torch.randn(7, 3, 3, dtype=dtype))
    assert {out.dtype, h.dtype, c.dtype} == {dtype}
    single = LSTM(3, 4, 2, bidirectional=True)
    single.load_state_dict(lstm.state_dict())
    x = torch.randn(7, 3, 3).to(dtype)
    torch.testing.assert_close(lstm(x)[0].float(), single(x.float())[0], atol=0.02, rtol=0.02)  # 2 ** -8 a step


def test_functional_call_and_parametrizations_use_the_weights_given():
    lstm = LSTM(3, 4, dtype=F64)
    x = torch.randn(7, 3, 3, dtype=F64)
    doubled = {name: 2 * value.detach() for name, value in lstm.named_parameters()}
    found = torch.func.functional_call(lstm, doubled, (x,))[0]
    nn.utils.parametrizations.weight_norm(lstm, "weight_hh_l0")
    normed = lstm(x)[0]
    other = LSTM(3, 4, dtype=F64)
    other.load_state_dict(doubled)
    torch.testing.assert_close(found, other(x)[0], rtol=0, atol=0)
    with torch.no_grad():
        lstm.parametrizations.weight_hh_l0.original0.mul_(3.0)
    assert not torch.allclose(lstm(x)[0], normed)


def _error_samples() -> list[Any]:
    samples = module_error_inputs_torch_nn_RNN_GRU(nn.LSTM, "cpu", torch.float32, requires_grad=False, training=True)
    assert len(samples) >= 12
    return samples


@pytest.mark.parametrize("number", range(len(_error_samples())))
def test_torchs_own_error_inputs(number: int):
    sample = _error_samples()[number]
    build, call = sample.module_error_input.constructor_input, sample.module_error_input.forward_input
    if sample.error_on == ModuleErrorEnum.CONSTRUCTION_ERROR:
        with pytest.raises(sample.error_type, match=sample.error_regex):
            LSTM(*build.args, **build.kwargs)
    else:
        lstm = LSTM(*build.args, **build.kwargs)
        with pytest.raises(sample.error_type, match=sample.error_regex):
            lstm(*call.args, **call.kwargs)


def _states(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.zeros(shape) for shape in shapes)


PACKED = pack_sequence([torch.zeros(2, 3), torch.zeros(4, 3)], enforce_sorted=False)
WRONG: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "four axes": ({}, (torch.zeros(7, 2, 3, 1),)),
    "one axis": ({}, (torch.zeros(3),)),
    "features": ({}, (torch.zeros(7, 2, 4),)),
    "features unbatched": ({}, (torch.zeros(7, 4),)),
    "no steps": ({}, (torch.zeros(0, 2, 3),)),
    "no steps batch-first": ({"batch_first": True}, (torch.zeros(2, 0, 3),)),
    "dtype": ({}, (torch.zeros(7, 2, 3, dtype=F64),)),
    "batch of h": ({}, (torch.zeros(7, 2, 3), _states((1, 3, 5), (1, 2, 5)))),
    "batch of c": ({}, (torch.zeros(7, 2, 3), _states((1, 2, 5), (1, 3, 5)))),
    "size of h": ({}, (torch.zeros(7, 2, 3), _states((1, 2, 4), (1, 2, 5)))),
    "size of projected h": ({"proj_size": 2}, (torch.zeros(7, 2, 3), _states((1, 2, 5), (1, 2, 5)))),
    "layers of h": ({"num_layers": 2}, (torch.zeros(7, 2, 3), _states((1, 2, 5), (2, 2, 5)))),
    "axes of h": ({}, (torch.zeros(7, 2, 3), _states((1, 5), (1, 5)))),
    "axes of h unbatched": ({}, (torch.zeros(7, 3), _states((1, 1, 5), (1, 1, 5)))),
    "dtype of h": ({}, (torch.zeros(7, 2, 3), (torch.zeros(1, 2, 5, dtype=F64), torch.zeros(1, 2, 5, dtype=F64)))),
    "packed batch of h": ({}, (PACKED, _states((1, 1, 5), (1, 1, 5)))),
    "packed size of h": ({}, (PACKED, _states((1, 2, 4), (1, 2, 5)))),
    "packed layers of h": ({}, (PACKED, _states((2, 2, 5), (2, 2, 5)))),
    "packed features": ({}, (PACKED._replace(data=torch.zeros(6, 4)),)),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_shapes_raise_what_torch_raises(name: str):
    kwargs, args = WRONG[name]
    with pytest.raises(Exception) as theirs:  # noqa: PT011 - its type is what we want to know
        nn.LSTM(3, 5, **kwargs)(*args)
    with pytest.raises(theirs.type) as ours:
        LSTM(3, 5, **kwargs)(*args)
    assert ours.type is theirs.type
    if not name.startswith(("packed", "dtype of h")):  # there torch's words come from deep inside
        assert str(ours.value) == str(theirs.value)


def test_what_is_not_a_batch_is_refused():
    with pytest.raises(TypeError, match=r"carousel\.Ragged, got list"):
        LSTM(3, 5)([torch.zeros(4, 3)])
    with pytest.raises(TypeError, match=r"ragged\.tensors\(\)"):
        LSTM(3, 5)(Ragged.from_list([torch.zeros(4, 3).numpy()]))
    with pytest.raises(RuntimeError, match="2 dimensions, got 3"):
        LSTM(3, 5)(Ragged(torch.zeros(4, 3, 1), [0, 4]))


def test_unknown_or_unable_backends_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="one of native, aten, reference, got 'cudnn'"):
        LSTM(3, 5, backend="cudnn")
    with pytest.raises(NotSupported, match="aten: torch's kernel computes the plain cell, without peephole"):
        LSTM(3, 5, peephole=True, backend="aten")(torch.zeros(7, 2, 3))
    with pytest.raises(NotSupported, match="hides its gates"):
        LSTM(3, 5, backend="aten")(torch.zeros(7, 2, 3), trace=True)
    with pytest.raises(NotSupported, match="keeps every step"):
        LSTM(3, 5, backend="aten", recompute=4)(torch.zeros(7, 2, 3))
    with pytest.raises(ValueError, match="recompute must be a whole number"):
        LSTM(3, 5, recompute=-1)
    assert backends.reasons(CellSpec(peephole=True), torch.device("cpu"), F64)["reference"] is None
