"""What torch.nn.LSTM does not have: variants, gaps, traces, recomputation, the regularisers of the recurrence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from carousel import LSTM, CarouselError, DataError, Ragged, masks
from carousel.layout import layout_of, reversed_gaps
from lstm_cases import SWITCHED, able, loop

F64 = torch.float64
LENGTHS = [4, 9, 1, 7]
MASKED = {"recurrent_dropout": 0.4, "zoneout_c": 0.3, "zoneout_h": 0.25}
CLOSE = {"rtol": 1e-11, "atol": 1e-12}


def _batch(lstm: LSTM, lengths: list[int] = LENGTHS) -> tuple[list[Tensor], tuple[Tensor, Tensor], list[Tensor]]:
    """Sequences [length, I], states, gaps [length]."""
    d = lstm.num_layers * (1 + lstm.bidirectional)
    sequences = [torch.randn(n, lstm.input_size, dtype=F64) for n in lengths]
    h = torch.randn(d, len(lengths), lstm.proj_size or lstm.hidden_size, dtype=F64)
    return (
        sequences,
        (h, torch.randn(d, len(lengths), lstm.hidden_size, dtype=F64)),
        [torch.rand(n, dtype=F64) * 3 for n in lengths],
    )


def _seed_of(seed: int) -> int:
    """The number that the layer will draw after manual_seed(seed)."""
    torch.manual_seed(seed)
    drawn = int(torch.randint(0, 2**62, (), dtype=torch.int64))
    torch.manual_seed(seed)
    return drawn


def _pack(parts: list[Tensor]) -> PackedSequence:
    return pack_sequence(parts, enforce_sorted=False)


EVERY = {name: value for name, value in SWITCHED.items() if name not in ("weight_drop", "bias")}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kind", ["ragged", "packed"])
@pytest.mark.parametrize("name", [*EVERY, "everything", "nothing"])
def test_ragged_batches_equal_a_loop_over_the_cell(name: str, kind: str, training: bool):
    kwargs = EVERY if name == "everything" else {} if name == "nothing" else {name: EVERY[name]}
    probe = LSTM(3, 5, **kwargs)
    for backend in able(probe.spec, needs=("trace",)):
        lstm = LSTM(3, 5, 2, bidirectional=True, dtype=F64, backend=backend, **kwargs).train(training)
        sequences, states, gaps = _batch(lstm)
        masked = training and any(kwargs.get(field) for field in MASKED)
        seed = _seed_of(11) if masked else None
        elapsed: Any = None
        if lstm.spec.decay:
            elapsed = Ragged.from_list(gaps) if kind == "ragged" else _pack(gaps)
        given = Ragged.from_list(sequences) if kind == "ragged" else _pack(sequences)
        out, (h, c), trace = lstm(given, states, elapsed=elapsed, trace=True)

        y, h_n, c_n, traced = loop(lstm, sequences, states, gaps if lstm.spec.decay else None, seed)
        ragged = out if kind == "ragged" else Ragged.from_packed(out)
        np.testing.assert_allclose(ragged.values.detach(), y, **CLOSE)
        np.testing.assert_allclose(h.detach(), h_n, **CLOSE)
        np.testing.assert_allclose(c.detach(), c_n, **CLOSE)
        for part, expected in zip(trace, traced, strict=True):
            assert not part.requires_grad
            if kind == "packed":  # [L, D, N, H] in packed order
                part = Ragged.from_packed(given._replace(data=part.permute(2, 0, 1, 3))).values.permute(1, 2, 0, 3)
            np.testing.assert_allclose(part, expected, **CLOSE)


@pytest.mark.parametrize("name", ["everything", "nothing"])
@pytest.mark.parametrize("kind", ["time-major", "batch-first", "unbatched"])
def test_dense_batches_equal_a_loop_over_the_cell(name: str, kind: str):
    kwargs = EVERY if name == "everything" else {}
    lengths = [7] if kind == "unbatched" else [7, 7, 7]
    for backend in able(LSTM(3, 5, **kwargs).spec, needs=("trace",)):
        lstm = LSTM(
            3, 5, 2, bidirectional=True, batch_first=kind == "batch-first", dtype=F64, backend=backend, **kwargs
        )
        sequences, states, gaps = _batch(lstm, lengths)
        axis = 0 if kind == "batch-first" else 1
        x, elapsed = torch.stack(sequences, axis), torch.stack(gaps, axis)
        given_states = states
        if kind == "unbatched":
            x, elapsed, given_states = x[:, 0], elapsed[:, 0], (states[0][:, 0], states[1][:, 0])
        seed = _seed_of(5) if kwargs else None
        out, (h, c), trace = lstm(x, given_states, elapsed=elapsed if kwargs else None, trace=True)

        y, h_n, c_n, traced = loop(lstm, sequences, states, gaps if kwargs else None, seed)
        shape = (len(lengths), 7)  # the loop's rows are batch-first

        def rows(part: Tensor, leading: int) -> Tensor:
            part = part.detach()
            if kind == "time-major":
                part = part.transpose(leading, leading + 1)
            return part if kind == "unbatched" else part.flatten(leading, leading + 1)

        np.testing.assert_allclose(rows(out, 0), y, **CLOSE)
        np.testing.assert_allclose(h.detach().reshape(h_n.shape), h_n, **CLOSE)
        np.testing.assert_allclose(c.detach().reshape(c_n.shape), c_n, **CLOSE)
        expected_shape = {"time-major": (7, 3), "batch-first": shape, "unbatched": (7,)}[kind]
        for part, expected in zip(trace, traced, strict=True):
            assert part.shape == (2, 2, *expected_shape, 5)
            np.testing.assert_allclose(rows(part, 2), expected, **CLOSE)


def test_gates_in_the_trace_are_activated_and_make_the_states():
    lstm = LSTM(3, 5, 2, dtype=F64, backend="reference")
    x, h, c = torch.randn(7, 3, 3, dtype=F64), torch.zeros(2, 3, 5, dtype=F64), torch.randn(2, 3, 5, dtype=F64)
    out, (_, c_n), trace = lstm(x, (h, c), trace=True)
    before = torch.cat([c[:, None, None], trace.c[:, :, :-1]], 2)
    torch.testing.assert_close(trace.c, trace.f * before + trace.i * trace.g, **CLOSE)
    torch.testing.assert_close(out, (trace.o * torch.tanh(trace.c))[1, 0], **CLOSE)
    torch.testing.assert_close(trace.c[:, 0, -1], c_n, **CLOSE)
    for gate in (trace.i, trace.f, trace.o):
        assert gate.min() > 0
        assert gate.max() < 1


@pytest.mark.parametrize("kind", ["time-major", "batch-first", "unbatched", "packed", "ragged"])
def test_gaps_of_the_reversed_direction(kind: str):
    lengths = {"unbatched": [5], "packed": LENGTHS, "ragged": LENGTHS}.get(kind, [5, 5, 5])
    parts = [torch.rand(n, dtype=F64) for n in lengths]
    expected = [torch.cat([part[1:], part.new_zeros(1)]) for part in parts]
    if kind == "ragged":
        given, gaps, wanted = (Ragged.from_list(p) for p in (parts, parts, expected))
        flat, wanted_flat = gaps.values, wanted.values
        layout = layout_of(Ragged(given.values[:, None], given.offsets), False)
    elif kind == "packed":
        flat, wanted_flat = _pack(parts).data, _pack(expected).data
        packed = _pack(parts)
        layout = layout_of(packed._replace(data=packed.data[:, None]), False)
    else:
        axis = 0 if kind == "batch-first" else 1
        stacked, target = torch.stack(parts, axis), torch.stack(expected, axis)
        flat, wanted_flat = stacked.flatten(), target.flatten()
        x = stacked[:, 0, None] if kind == "unbatched" else stacked[..., None]
        layout = layout_of(x, kind == "batch-first")
    assert torch.equal(reversed_gaps(flat, layout.rows), wanted_flat)


def test_elapsed_is_asked_for_and_checked():
    x = torch.randn(7, 3, 2)
    with pytest.raises(CarouselError, match="decay=True: give elapsed="):
        LSTM(2, 3, decay=True)(x)
    with pytest.raises(CarouselError, match="used by decay=True only"):
        LSTM(2, 3)(x, elapsed=torch.ones(7, 3))
    lstm = LSTM(2, 3, decay=True)
    for wrong in (torch.ones(3, 7), torch.ones(7), torch.ones(7, 3, 1), [1.0]):
        with pytest.raises(DataError, match=r"shape \[7, 3\], got"):
            lstm(x, elapsed=wrong)
    ragged = Ragged.from_list([torch.randn(4, 2), torch.randn(3, 2)])
    with pytest.raises(DataError, match="same lengths"):
        lstm(ragged, elapsed=Ragged.from_list([torch.ones(3), torch.ones(4)]))
    with pytest.raises(DataError, match="same lengths"):
        lstm(ragged.to_packed(), elapsed=_pack([torch.ones(2), torch.ones(5)]))
    with pytest.raises(DataError, match="one kind"):
        lstm(x, elapsed=Ragged.from_list([torch.ones(21)]))
    for value in (-0.5, float("nan")):
        gaps = torch.ones(7, 3)
        gaps[4, 1] = value
        with pytest.raises(DataError, match=rf"never be negative or missing, got {value} at \[4, 1\]"):
            lstm(x, elapsed=gaps)
    flat, _ = lstm(ragged, elapsed=torch.ones(7))
    same, _ = lstm(ragged, elapsed=Ragged.from_list([torch.ones(4), torch.ones(3)]))
    whole, _ = lstm(ragged, elapsed=torch.ones(7, dtype=torch.int64))
    assert torch.equal(flat.values, same.values)
    assert torch.equal(flat.values, whole.values)


@pytest.mark.parametrize("steps", [1, 3, 7, 50])
def test_recomputation_changes_neither_values_nor_gradients(steps: int):
    kwargs = {**EVERY, "num_layers": 2, "bidirectional": True, "dtype": F64}
    for backend in able(LSTM(3, 5, **EVERY).spec, needs=("recompute",)):
        plain = LSTM(3, 5, backend=backend, **kwargs)
        saving = LSTM(3, 5, backend=backend, recompute=steps, **kwargs)
        saving.load_state_dict(plain.state_dict())
        sequences, states, gaps = _batch(plain)
        found = []
        for lstm in (plain, saving):
            torch.manual_seed(4)
            x = Ragged.from_list(sequences)
            x.values.requires_grad_()
            out, (h, c) = lstm(x, states, elapsed=Ragged.from_list(gaps))
            ((out.values**2).sum() + h.sum() - (c**3).sum()).backward()
            found.append([out.values, h, c, x.values.grad, *(p.grad for p in lstm.parameters())])
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", [*MASKED, "weight_drop"])
def test_regularisers_follow_manual_seed_and_rest_in_evaluation(name: str):
    plain = LSTM(3, 5, 2, dtype=F64)
    lstm = LSTM(3, 5, 2, dtype=F64, **{name: 0.5})
    lstm.load_state_dict(plain.state_dict())
    x = torch.randn(9, 4, 3, dtype=F64)
    torch.manual_seed(1)
    first, second = lstm(x)[0], lstm(x)[0]
    torch.manual_seed(1)
    again = lstm(x)[0]
    assert torch.equal(first, again)
    assert not torch.allclose(first, second)
    lstm.eval()
    assert torch.equal(lstm(x)[0], lstm(x)[0])
    same = torch.allclose(lstm(x)[0], plain(x)[0], rtol=1e-12)
    assert same == (not name.startswith("zoneout"))  # zoneout evaluates in expectation


def test_weight_drop_is_one_mask_of_the_recurrent_weights_a_forward():
    lstm = LSTM(3, 5, bidirectional=True, dtype=F64, weight_drop=0.4)
    plain = LSTM(3, 5, bidirectional=True, dtype=F64)
    plain.load_state_dict(lstm.state_dict())
    torch.manual_seed(8)
    with torch.no_grad():
        for suffix in ("_l0", "_l0_reverse"):
            weight = plain.get_parameter("weight_hh" + suffix)
            weight.copy_(F.dropout(weight, 0.4))
            assert 0.1 < (weight == 0).double().mean() < 0.7
    x = torch.randn(9, 4, 3, dtype=F64, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(8)
    torch.testing.assert_close(lstm(x)[0], plain(x)[0], rtol=1e-12, atol=1e-12)


def test_layers_and_directions_draw_masks_of_their_own(monkeypatch: pytest.MonkeyPatch):
    seeds: list[int] = []
    true = masks.hit
    monkeypatch.setattr(masks, "hit", lambda p, seed, *rest: seeds.append(seed) or true(p, seed, *rest))
    LSTM(3, 5, 3, bidirectional=True, zoneout_c=0.2, backend="reference")(torch.randn(7, 2, 3))
    assert len(seeds) == 3 * 2 * 7
    assert len(set(seeds)) == 6


@pytest.mark.parametrize("name", ["everything", "nothing"])
def test_results_do_not_depend_on_the_threads_of_torch(name: str):
    kwargs = EVERY if name == "everything" else {}
    for backend in able(LSTM(3, 5, **kwargs).spec):
        lstm = LSTM(19, 37, 2, bidirectional=True, dtype=F64, backend=backend, **kwargs)
        sequences, states, gaps = _batch(lstm, [9, 33, 1, 20, 7, 14])
        elapsed = Ragged.from_list(gaps) if kwargs else None
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            torch.manual_seed(3)
            found.append(lstm(Ragged.from_list(sequences), states, elapsed=elapsed)[0].values)
        torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kwargs", [{}, {"proj_size": 3}, {"peephole": True, "layer_norm": True}])
def test_autocast(kwargs: dict[str, Any]):
    lstm = LSTM(6, 8, 2, bidirectional=True, **kwargs)
    x = torch.randn(9, 4, 6)
    expected = lstm(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = lstm(x)
        halves, _ = lstm(x.bfloat16())
    for found in (out, halves):  # bfloat16 keeps 8 bits; layer norm of a small c makes the error of some units larger
        difference = (found.float() - expected).abs()
        assert difference.mean() < 0.02
        assert difference.max() < (0.4 if lstm.spec.layer_norm else 0.03)
    out.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in lstm.parameters())


@pytest.mark.parametrize("kind", ["dense", "ragged"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_torch_compile_makes_one_graph_with_the_same_results(training: bool, kind: str):
    """Forward and backward, dropout and masks included: a compiled layer draws what an eager one draws."""
    torch._dynamo.reset()
    lstm = LSTM(3, 5, 2, bidirectional=True, dropout=0.2, dtype=F64, weight_drop=0.2, **EVERY).train(training)
    compiled = torch.compile(lstm, fullgraph=True, backend="aot_eager")
    sequences, states, gaps = _batch(lstm, [7, 7, 7] if kind == "dense" else LENGTHS)
    given: Any = torch.stack(sequences, 1) if kind == "dense" else Ragged.from_list(sequences)
    elapsed: Any = torch.stack(gaps, 1) if kind == "dense" else Ragged.from_list(gaps)
    found = []
    for layer in (lstm, compiled):
        torch.manual_seed(12)
        out, (h, c) = layer(given, states, elapsed=elapsed)
        y = out if kind == "dense" else out.values
        slopes = torch.autograd.grad((y**2).sum() + (h * c.sum(-1, keepdim=True)).sum(), list(lstm.parameters()))
        found.append([y, h, c, *slopes])
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)


def test_a_dense_reference_compiles_into_one_graph():
    lstm = LSTM(3, 5, 2, bidirectional=True, peephole=True, decay=True, backend="reference", dtype=F64)
    x, elapsed = torch.randn(7, 3, 3, dtype=F64), torch.rand(7, 3, dtype=F64)
    compiled = torch.compile(lstm, fullgraph=True, backend="eager")
    found, expected = compiled(x, elapsed=elapsed), lstm(x, elapsed=elapsed)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
