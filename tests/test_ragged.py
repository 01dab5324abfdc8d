"""Ragged: every conversion there and back by values, for NumPy and torch, with sequences of length 0 and 1."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_sequence

from carousel import DataError, Ragged

LENGTHS = [3, 1, 7, 0, 2, 7]


def _sequences(kind: str, lengths: list[int] = LENGTHS, width: int = 2) -> list[Any]:
    """Every number occurs once, so that a row in the wrong place shows."""
    values = np.arange(sum(lengths) * width, dtype=np.float64).reshape(-1, width) + 0.5
    found = np.split(values, np.cumsum(lengths)[:-1])
    return [torch.from_numpy(part.copy()) for part in found] if kind == "torch" else found


def _ragged(kind: str, lengths: list[int] = LENGTHS) -> Ragged:
    return Ragged.from_list(_sequences(kind, lengths))


def _same(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


both = pytest.mark.parametrize("kind", ["numpy", "torch"])


@both
def test_from_list_and_back(kind: str):
    sequences = _sequences(kind)
    ragged = Ragged.from_list(sequences)
    assert len(ragged) == 6
    assert ragged.longest == 7
    _same(ragged.offsets, [0, 3, 4, 11, 11, 13, 20])
    _same(ragged.lengths, LENGTHS)
    assert ragged.offsets.dtype == (torch.int64 if kind == "torch" else np.int64)
    for found in (ragged.to_list(), list(ragged), [ragged[b] for b in range(6)]):
        assert len(found) == 6
        for a, b in zip(found, sequences, strict=True):
            _same(a, b)


@both
def test_rows_know_their_sequence_and_position(kind: str):
    ragged = _ragged(kind, [2, 0, 3, 1])
    _same(ragged.sequence, [0, 0, 2, 2, 2, 3])
    _same(ragged.position, [0, 1, 0, 1, 2, 0])


@both
@pytest.mark.parametrize("batch_first", [True, False])
def test_padded_and_back(kind: str, batch_first: bool):
    sequences, ragged = _sequences(kind), _ragged(kind)
    padded = ragged.to_padded(-1.0, batch_first=batch_first)
    expected = pad_sequence(
        [torch.as_tensor(s) for s in sequences], batch_first=batch_first, padding_value=-1.0
    ).numpy()
    _same(padded, expected)
    again = Ragged.from_padded(padded, LENGTHS, batch_first=batch_first)
    _same(again.values, ragged.values)
    _same(again.offsets, ragged.offsets)
    longer = ragged.to_padded(batch_first=batch_first, total_length=9)
    assert tuple(longer.shape) == ((6, 9, 2) if batch_first else (9, 6, 2))
    assert float(np.asarray(longer).sum()) == float(np.asarray(ragged.values).sum())
    with pytest.raises(DataError, match="total_length 6 is less than the longest sequence, 7"):
        ragged.to_padded(total_length=6)


@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_packed_and_back(enforce_sorted: bool):
    lengths = [7, 5, 5, 2, 1] if enforce_sorted else [2, 7, 1, 5, 5]
    sequences = _sequences("torch", lengths)
    ragged = Ragged.from_list(sequences)
    packed = pack_sequence(sequences, enforce_sorted=enforce_sorted)
    found = Ragged.from_packed(packed)
    _same(found.values, ragged.values)
    _same(found.offsets, ragged.offsets)
    assert found.longest == 7
    made = ragged.to_packed()
    padded = pad_sequence(sequences)
    expected = pack_padded_sequence(padded, torch.tensor(lengths), enforce_sorted=False)
    _same(made.data, expected.data)
    _same(made.batch_sizes, expected.batch_sizes)
    _same(torch.nn.utils.rnn.pad_packed_sequence(made)[0], padded)
    _same(Ragged.from_packed(made).values, ragged.values)


def test_packing_numpy_and_what_cannot_be_packed():
    _same(Ragged.from_packed(_ragged("numpy", [2, 3]).to_packed()).values, _ragged("numpy", [2, 3]).values)
    with pytest.raises(DataError, match="length 0"):
        _ragged("torch").to_packed()


@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_and_back(layout: torch.layout):
    sequences, ragged = _sequences("torch"), _ragged("torch")
    found = Ragged.from_nested(torch.nested.nested_tensor(sequences, layout=layout))
    _same(found.values, ragged.values)
    _same(found.offsets, ragged.offsets)
    nested = ragged.to_nested()
    assert nested.values().data_ptr() == ragged.values.data_ptr()
    for a, b in zip(nested.unbind(), sequences, strict=True):
        _same(a, b)


def test_nested_with_holes_or_another_ragged_axis():
    base = torch.arange(24.0).reshape(3, 4, 2)
    holes = torch.nested.narrow(base, 1, torch.tensor([1, 0, 2]), torch.tensor([3, 1, 2]), layout=torch.jagged)
    found = Ragged.from_nested(holes)
    _same(found.values, torch.cat([base[0, 1:4], base[1, 0:1], base[2, 2:4]]))
    _same(found.lengths, [3, 1, 2])
    other = torch.nested.nested_tensor([torch.zeros(3, 2), torch.zeros(1, 2)], layout=torch.jagged).transpose(1, 2)
    with pytest.raises(DataError, match="ragged axis"):
        Ragged.from_nested(other)


@both
def test_indexing(kind: str):
    sequences, ragged = _sequences(kind), _ragged(kind)
    _same(ragged[-2], sequences[4])
    _same(ragged[np.int64(2)], sequences[2])
    for index in (slice(1, 4), slice(None), slice(4, 1), slice(None, None, -1), slice(0, 6, 2), slice(-3, None)):
        found = ragged[index]
        expected = sequences[index]
        assert isinstance(found, Ragged)
        assert len(found) == len(expected)
        for a, b in zip(found.to_list(), expected, strict=True):
            _same(a, b)
    for chosen in ([5, 2, 2, 3], np.array([5, 2, 2, 3]), torch.tensor([5, 2, 2, 3])):
        found = ragged[chosen]
        for a, b in zip(found.to_list(), [sequences[k] for k in (5, 2, 2, 3)], strict=True):
            _same(a, b)
        assert found.longest == 7
    _same(ragged[[True, False, False, True, True, False]].lengths, [3, 0, 2])
    assert len(ragged[[]]) == 0
    _same(ragged[[-1]].values, sequences[5])
    for wrong in (6, -7):
        with pytest.raises(IndexError, match="sequence"):
            ragged[wrong]
    with pytest.raises(DataError, match="whole numbers"):
        ragged[[0.5]]


@both
def test_a_slice_is_a_view(kind: str):
    ragged = _ragged(kind)
    ragged[2:5].values[0, 0] = -9.0
    assert float(ragged.values[4, 0]) == -9.0


def test_moved_between_kinds_and_types():
    ragged = _ragged("numpy")
    tensors = ragged.tensors()
    assert isinstance(tensors.values, torch.Tensor)
    tensors.values[0, 0] = 77.0
    assert ragged.values[0, 0] == 77.0
    assert tensors.tensors() is tensors
    assert tensors.numpy().values is not None
    _same(tensors.numpy().values, ragged.values)
    assert ragged.to(dtype=np.float32).values.dtype == np.float32
    assert tensors.to(dtype=torch.float32).values.dtype == torch.float32
    meta = tensors.to("cpu", torch.bfloat16)
    assert meta.values.dtype == torch.bfloat16
    assert meta.offsets.dtype == torch.int64
    with pytest.raises(DataError, match="no device"):
        ragged.to("cpu")


def test_gradients_flow_through_every_conversion():
    leaf = torch.randn(13, 2, dtype=torch.float64, requires_grad=True)

    def there_and_back(values: torch.Tensor) -> torch.Tensor:
        ragged = Ragged(values, [0, 3, 4, 11, 13])
        ragged = Ragged.from_padded(ragged.to_padded(), ragged.lengths)
        ragged = Ragged.from_packed(ragged.to_packed())
        return ragged[[3, 2, 1, 0]][::-1].values

    _same(there_and_back(leaf).detach(), leaf.detach())
    assert torch.autograd.gradcheck(there_and_back, (leaf,))


@both
def test_with_values_keeps_the_sequences(kind: str):
    ragged = _ragged(kind)
    doubled = ragged.with_values(ragged.values * 2)
    _same(doubled[2], ragged[2] * 2)
    assert doubled.longest == 7
    with pytest.raises(DataError, match="expected values of 20 rows, got shape"):
        ragged.with_values(ragged.values[:-1])


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([1, 5], "begin with 1"),
        ([0, 4], "end with 4"),
        ([0, 4, 3, 5], "sequence 1 ends before it begins"),
        ([[0, 5]], r"\[B \+ 1\], got shape \[1, 2\]"),
        ([], r"\[B \+ 1\], got shape \[0\]"),
        ([0.0, 5.0], "whole numbers, got"),
    ],
)
@both
def test_offsets_that_do_not_fit_are_refused(kind: str, offsets: Any, message: str):
    values = torch.zeros(5, 2) if kind == "torch" else np.zeros((5, 2))
    with pytest.raises(DataError, match=message):
        Ragged(values, offsets)


def test_other_input_that_is_refused():
    with pytest.raises(DataError, match="single number"):
        Ragged(np.float64(3.0), [0, 1])
    with pytest.raises(DataError, match="one sequence at least"):
        Ragged.from_list([])
    with pytest.raises(DataError, match=r"got shape \[5\]"):
        Ragged.from_padded(np.zeros(5), [5])
    with pytest.raises(DataError, match="expected 3 lengths"):
        Ragged.from_padded(np.zeros((4, 3, 2)), [4, 1])
    with pytest.raises(DataError, match=r"0 \.\.\. 4, the padded steps, got \[4, 5, 1\]"):
        Ragged.from_padded(np.zeros((4, 3, 2)), [4, 5, 1])
    with pytest.raises(DataError, match="whole numbers"):
        Ragged.from_padded(np.zeros((4, 2, 2)), [4.0, 1.0])


def test_rows_of_any_shape():
    ragged = Ragged.from_list([np.arange(3), np.arange(2)])
    assert ragged.values.dtype == np.arange(1).dtype
    _same(ragged.to_padded(batch_first=True), [[0, 1, 2], [0, 1, 0]])
    frames = Ragged(np.zeros((4, 3, 5, 5)), [0, 1, 4])
    assert frames.to_padded().shape == (3, 2, 3, 5, 5)
    assert repr(frames) == "Ragged(2 sequences, values [4, 3, 5, 5] float64, numpy)"


def test_numpy_ragged_does_not_import_torch():
    code = (
        "import sys, numpy as np; from carousel import Ragged;"
        "r = Ragged.from_list([np.zeros(3), np.ones(1)]);"
        "Ragged.from_padded(r.to_padded(), r.lengths)[::-1].to_list();"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
