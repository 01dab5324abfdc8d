"""Sequences of different lengths without padding: all rows one after another, and where each sequence begins.

Works on NumPy and torch arrays alike and imports torch only when torch arrays come in, because streams and
exports use it without torch. No loop runs over the sequences: every conversion is index arithmetic.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from carousel.errors import DataError

__all__ = ["Ragged"]


@dataclass(frozen=True, eq=False, repr=False)
class Ragged:
    """B sequences: `values` [N, ...], of which sequence b is the rows `offsets[b]` up to `offsets[b + 1]`.

    `offsets` [B + 1] is int64 and lives where `values` lives. Sequences of length 0 are allowed.
    Raises DataError where the two do not fit together.

    >>> ragged = Ragged.from_list([np.array([1.0, 2.0, 3.0]), np.array([4.0])])
    >>> ragged.offsets.tolist(), len(ragged), ragged[1].tolist()
    ([0, 3, 4], 2, [4.0])
    >>> ragged.to_padded(batch_first=True).tolist()
    [[1.0, 2.0, 3.0], [4.0, 0.0, 0.0]]
    """

    values: Any
    offsets: Any
    longest: int = field(init=False, default=0)  # the largest length, as a plain number

    def __post_init__(self) -> None:
        if not _is_tensor(self.values):
            object.__setattr__(self, "values", np.asarray(self.values))
        if self.values.ndim == 0:
            raise DataError("Ragged.values is a single number: give an array whose first axis are the rows.")
        object.__setattr__(self, "offsets", _index_like(self.values, self.offsets, "Ragged.offsets"))
        self._check()
        object.__setattr__(self, "longest", int(self.lengths.max()) if len(self) else 0)

    def _check(self) -> None:
        rows, offsets = self.values.shape[0], self.offsets
        if offsets.ndim != 1 or not offsets.shape[0]:
            raise DataError(f"Ragged.offsets must be [B + 1], got shape {list(offsets.shape)}.")
        first, last = int(offsets[0]), int(offsets[-1])
        if first != 0 or last != rows:
            raise DataError(
                f"Ragged.offsets must begin with 0 and end with the number of rows, {rows}; "
                f"they begin with {first} and end with {last}."
            )
        if bool((self.lengths < 0).any()):
            at = int((self.lengths < 0).argmax() if not _is_tensor(offsets) else (self.lengths < 0).int().argmax())
            raise DataError(f"Ragged.offsets must never decrease; sequence {at} ends before it begins.")

    @property
    def lengths(self) -> Any:
        """[B] int64."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def sequence(self) -> Any:
        """[N] int64: the sequence that each row belongs to."""
        return _repeat(_arange(self.values, len(self)), self.lengths, self.values.shape[0])

    @property
    def position(self) -> Any:
        """[N] int64: the step within its sequence that each row is."""
        return _arange(self.values, self.values.shape[0]) - self.offsets[:-1][self.sequence]

    def __len__(self) -> int:
        return int(self.offsets.shape[0]) - 1

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to_list())

    def __getitem__(self, index: Any) -> Any:
        """One sequence [length, ...] for a number; a Ragged for a slice, or an array or list of numbers."""
        if isinstance(index, slice):
            start, stop, stride = index.indices(len(self))
            if stride == 1:
                stop = max(start, stop)
                low, high = int(self.offsets[start]), int(self.offsets[stop])
                return Ragged(self.values[low:high], self.offsets[start : stop + 1] - low)
            return self._take(_arange(self.values, len(self))[list(range(start, stop, stride))])
        if isinstance(index, int | np.integer):
            b = int(index) + (len(self) if index < 0 else 0)
            if not 0 <= b < len(self):
                raise IndexError(f"sequence {int(index)} of a Ragged of {len(self)}")
            return self.values[int(self.offsets[b]) : int(self.offsets[b + 1])]
        return self._take(_index_like(self.values, index, "the index of a Ragged"))

    def _take(self, chosen: Any) -> Ragged:
        starts, lengths = self.offsets[:-1][chosen], self.lengths[chosen]
        offsets = _offsets(lengths)
        rows = int(offsets[-1])
        shift = _repeat(starts - offsets[:-1], lengths, rows)
        return Ragged(self.values[_arange(self.values, rows) + shift], offsets)

    def __repr__(self) -> str:
        kind = "torch" if _is_tensor(self.values) else "numpy"
        return f"Ragged({len(self)} sequences, values {list(self.values.shape)} {self.values.dtype}, {kind})"

    def with_values(self, values: Any) -> Ragged:
        """The same sequences with other values [N, ...]: what a layer computed from each row."""
        if values.shape[:1] != self.values.shape[:1]:
            raise DataError(f"expected values of {self.values.shape[0]} rows, got shape {list(values.shape)}.")
        made = object.__new__(Ragged)  # the offsets were checked already; checking again would wait for a GPU
        for name, value in (("values", values), ("offsets", self.offsets), ("longest", self.longest)):
            object.__setattr__(made, name, value)
        return made

    def to(self, device: Any = None, dtype: Any = None) -> Ragged:
        """Moved to a torch device, or with values of another dtype, or both; NumPy arrays have a dtype only."""
        if not _is_tensor(self.values):
            if device is not None:
                raise DataError("a Ragged of NumPy arrays has no device: call .tensors() first.")
            return self if dtype is None else self.with_values(self.values.astype(dtype))
        if device is None:
            return self if dtype is None else self.with_values(self.values.to(dtype=dtype))
        return Ragged(self.values.to(device=device, dtype=dtype), self.offsets.to(device))

    def tensors(self) -> Ragged:
        """With torch tensors; NumPy arrays are shared, not copied."""
        if _is_tensor(self.values):
            return self
        import torch

        return Ragged(torch.from_numpy(self.values), torch.from_numpy(self.offsets))

    def numpy(self) -> Ragged:
        """With NumPy arrays; tensors in main memory are shared, not copied."""
        if not _is_tensor(self.values):
            return self
        return Ragged(self.values.detach().cpu().numpy(), self.offsets.cpu().numpy())

    @classmethod
    def from_list(cls, sequences: Sequence[Any]) -> Ragged:
        """From arrays [length, ...], one a sequence, concatenated once."""
        if not len(sequences):
            raise DataError("a Ragged from a list needs one sequence at least: an empty list has no shape.")
        if _is_tensor(sequences[0]):
            values = sys.modules["torch"].cat(list(sequences))
        else:
            sequences = [np.asarray(sequence) for sequence in sequences]
            values = np.concatenate(sequences)
        return cls(values, _offsets(_index_like(values, [len(sequence) for sequence in sequences], "the lengths")))

    @classmethod
    def from_padded(cls, padded: Any, lengths: Any, batch_first: bool = False) -> Ragged:
        """From [T, B, ...], or [B, T, ...] with batch_first, of which `lengths` [B] steps are real."""
        padded = padded if _is_tensor(padded) else np.asarray(padded)
        if padded.ndim < 2:
            raise DataError(f"a padded batch is [T, B, ...] or [B, T, ...], got shape {list(padded.shape)}.")
        padded = padded if batch_first else padded.swapaxes(0, 1)
        lengths = _index_like(padded, lengths, "the lengths")
        batch, steps = padded.shape[:2]
        if lengths.shape != (batch,):
            raise DataError(f"expected {batch} lengths, one a sequence, got shape {list(lengths.shape)}.")
        if bool(((lengths < 0) | (lengths > steps)).any()):
            raise DataError(f"every length must be 0 ... {steps}, the padded steps, got {lengths.tolist()}.")
        return cls(padded[_arange(padded, steps)[None, :] < lengths[:, None]], _offsets(lengths))

    def to_padded(self, padding_value: float = 0.0, batch_first: bool = False, total_length: int | None = None) -> Any:
        """To [T, B, ...], or [B, T, ...] with batch_first; T is the longest length or `total_length`."""
        steps = self.longest if total_length is None else total_length
        if steps < self.longest:
            raise DataError(f"total_length {total_length} is less than the longest sequence, {self.longest}.")
        shape = (len(self), steps, *self.values.shape[1:])
        if _is_tensor(self.values):
            padded = self.values.new_full(shape, padding_value)
        else:
            padded = np.full(shape, padding_value, self.values.dtype)
        padded[_arange(self.values, steps)[None, :] < self.lengths[:, None]] = self.values
        return padded if batch_first else padded.swapaxes(0, 1)

    def to_list(self) -> list[Any]:
        """Views [length, ...], one a sequence."""
        if _is_tensor(self.values):
            return list(self.values.split(self.lengths.tolist()))
        return np.split(self.values, self.offsets[1:-1]) if len(self) else []

    @classmethod
    def from_packed(cls, packed: Any) -> Ragged:
        """From torch's PackedSequence, with the sequences in the order they had before packing."""
        data, sizes = packed.data, packed.batch_sizes.to(packed.data.device)
        place = packed.unsorted_indices
        place = _arange(data, int(packed.batch_sizes[0])) if place is None else place
        lengths = _packed_lengths(sizes, place)
        ragged = cls(data, _offsets(lengths))  # for its index arithmetic; the values are still in packed order
        ahead = _offsets(sizes)[:-1]
        return ragged.with_values(data[ahead[ragged.position] + place[ragged.sequence]])

    def to_packed(self) -> Any:
        """To torch's PackedSequence; its indices remember the order of the sequences."""
        torch, ragged = _torch("PackedSequence"), self.tensors()
        if not len(self) or bool((ragged.lengths == 0).any()):
            raise DataError("a PackedSequence cannot hold sequences of length 0, nor no sequence: leave them out.")
        order = torch.argsort(ragged.lengths, descending=True, stable=True)
        rank = torch.argsort(order)
        t, j = ragged.position, rank[ragged.sequence]
        sizes = torch.bincount(t, minlength=self.longest)
        where = torch.empty_like(t).index_copy_(0, _offsets(sizes)[t] + j, _arange(t, t.shape[0]))
        return torch.nn.utils.rnn.PackedSequence(ragged.values[where], sizes.cpu(), order, rank)

    @classmethod
    def from_nested(cls, nested: Any) -> Ragged:
        """From torch's nested tensor [B, ragged, ...], jagged or strided."""
        torch = _torch("nested tensors")
        if nested.layout != torch.jagged:
            return cls.from_list(nested.unbind())
        if nested._ragged_idx != 1:
            raise DataError(f"the ragged axis of the nested tensor must be 1, the steps, not {nested._ragged_idx}.")
        if nested.lengths() is not None:  # with holes between the sequences
            return cls.from_list(nested.unbind())
        return cls(nested.values(), nested.offsets())

    def to_nested(self) -> Any:
        """To torch's jagged nested tensor [B, ragged, ...], which shares the values."""
        torch, ragged = _torch("nested tensors"), self.tensors()
        return torch.nested.nested_tensor_from_jagged(ragged.values, ragged.offsets)


def _is_tensor(array: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def _torch(what: str) -> Any:
    if "torch" not in sys.modules:
        raise DataError(f"{what} come from torch, which is not imported: import torch first.")
    return sys.modules["torch"]


def _index_like(values: Any, index: Any, what: str) -> Any:
    """`index` as int64 of the same kind and on the same device as `values`; booleans select."""
    if _is_tensor(values):
        torch = sys.modules["torch"]
        made = torch.as_tensor(index, device=values.device)
        whole = not made.is_floating_point() and not made.is_complex()
        made = made.nonzero()[:, 0] if made.dtype == torch.bool else made
    else:
        made = np.asarray(index)
        whole = made.dtype.kind in "iub"
        made = np.flatnonzero(made) if made.dtype.kind == "b" else made
    if made.shape[:1] == (0,) and not whole:  # an empty list has no kind of its own
        whole = not hasattr(index, "dtype")
    if not whole:
        raise DataError(f"{what} must be whole numbers, got {made.dtype}.")
    return made.to(sys.modules["torch"].int64) if _is_tensor(values) else made.astype(np.int64)


def _arange(like: Any, count: int) -> Any:
    if _is_tensor(like):
        return sys.modules["torch"].arange(count, device=like.device)
    return np.arange(count)


def _offsets(lengths: Any) -> Any:
    """[B] lengths -> [B + 1] offsets."""
    if _is_tensor(lengths):
        made = lengths.new_zeros(lengths.shape[0] + 1)
        made[1:] = lengths.cumsum(0)
        return made
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _repeat(array: Any, counts: Any, total: int) -> Any:
    if _is_tensor(array):
        return array.repeat_interleave(counts, output_size=total)
    return np.repeat(array, counts)


def _packed_lengths(sizes: Any, place: Any) -> Any:
    """How many of the never increasing batch sizes are larger than each sequence's place."""
    torch = sys.modules["torch"]
    return sizes.shape[0] - torch.searchsorted(sizes.flip(0), place, right=True)
