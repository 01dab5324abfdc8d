"""What came in, as rows: tensors (time-major, batch-first, unbatched), PackedSequence and Ragged alike.

A layout is a view: no layout copies its rows, sorts its sequences or pads them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from carousel.backends import Rows
from carousel.errors import DataError
from carousel.ragged import Ragged

__all__ = ["Layout", "check_gaps", "dense_rows", "flat_gaps", "layout_of", "ragged_rows", "reversed_gaps"]


class Layout(NamedTuple):
    x: Tensor  # [N, I]
    rows: Rows
    shape: tuple[int, ...]  # of the rows as they came: (T, B), (B, T), (T,) unbatched, or (N,)
    wrap: Callable[[Tensor], Any]  # [N, F] -> the kind that came in

    @property
    def batched(self) -> bool:
        return not (self.rows.dense and len(self.shape) == 1)

    @property
    def batch(self) -> int:
        return self.rows.first.shape[0]


def layout_of(given: Tensor | PackedSequence | Ragged, batch_first: bool) -> Layout:
    if isinstance(given, PackedSequence):
        return _packed(given)
    if isinstance(given, Ragged):
        return _ragged(given)
    if not isinstance(given, Tensor):
        raise TypeError(f"LSTM takes a Tensor, a PackedSequence or a carousel.Ragged, got {type(given).__name__}")
    if given.dim() not in (2, 3):
        raise ValueError(f"LSTM: Expected input to be 2D or 3D, got {given.dim()}D instead")
    return _dense(given, batch_first)


def _dense(x: Tensor, batch_first: bool) -> Layout:
    shape = x.shape[:-1]
    time_major = x.dim() == 2 or not batch_first
    batch = 1 if x.dim() == 2 else shape[1] if time_major else shape[0]
    steps = shape[0] if time_major else shape[1]
    if not steps:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    rows = dense_rows(steps, batch, time_major, x.device)
    return Layout(x.reshape(-1, x.shape[-1]), rows, tuple(shape), lambda y: y.view(*shape, y.shape[-1]))


def dense_rows(steps: int, batch: int, time_major: bool, device: torch.device) -> Rows:
    """Where the rows of a padded batch lie that has no padding."""
    b, t = torch.arange(batch, device=device), torch.arange(steps, device=device)
    first, ahead = (b, t * batch) if time_major else (b * steps, t)
    return Rows(first, ahead, torch.full_like(b, steps), True, time_major)


def _packed(packed: PackedSequence) -> Layout:
    data, sizes = packed.data, packed.batch_sizes.to(packed.data.device)
    _two_dimensional(data)
    # the place of each sequence among the sorted ones, so that states keep the order of the caller
    first = packed.unsorted_indices
    if first is None:
        first = torch.arange(int(packed.batch_sizes[0]), device=data.device)
    lengths = sizes.shape[0] - torch.searchsorted(sizes.flip(0), first, right=True)
    rows = Rows(first, sizes.cumsum(0) - sizes, lengths, False, True)
    return Layout(data, rows, (data.shape[0],), lambda y: packed._replace(data=y))


def _ragged(ragged: Ragged) -> Layout:
    if not isinstance(ragged.values, Tensor):
        raise TypeError("this Ragged holds NumPy arrays: give LSTM ragged.tensors()")
    _two_dimensional(ragged.values)
    return Layout(ragged.values, ragged_rows(ragged), (ragged.values.shape[0],), ragged.with_values)


def ragged_rows(ragged: Ragged) -> Rows:
    ahead = torch.arange(ragged.longest, device=ragged.values.device)
    rows = Rows(ragged.offsets[:-1], ahead, ragged.lengths, False, False)
    return rows


def _two_dimensional(rows: Tensor) -> None:
    if rows.dim() != 2:
        raise RuntimeError(f"input must have 2 dimensions, got {rows.dim()}")


def flat_gaps(elapsed: Any, given: Any, layout: Layout) -> Tensor:
    """Elapsed times of every row [N], from the kind of the `given` input or a tensor, without features."""
    if isinstance(elapsed, PackedSequence):
        _same(elapsed.batch_sizes, getattr(given, "batch_sizes", None))
        elapsed = elapsed.data
    elif isinstance(elapsed, Ragged):
        _same(elapsed.offsets, getattr(given, "offsets", None))
        elapsed = elapsed.values
    if not isinstance(elapsed, Tensor) or tuple(elapsed.shape) != layout.shape:
        got = list(elapsed.shape) if isinstance(elapsed, Tensor) else type(elapsed).__name__
        raise DataError(f"elapsed must be one number a row of the input, shape {list(layout.shape)}, got {got}.")
    check_gaps(elapsed)
    return elapsed.reshape(-1).to(layout.x.device, layout.x.dtype)


def check_gaps(elapsed: Tensor) -> None:
    """Time never runs backwards. Looked at on the CPU only: elsewhere and in compiled graphs looking means waiting."""
    if elapsed.device.type != "cpu" or torch.compiler.is_compiling():
        return
    wrong = ~(elapsed >= 0)
    if bool(wrong.any()):
        at = tuple(wrong.nonzero()[0].tolist())
        raise DataError(f"elapsed must never be negative or missing, got {elapsed[at].item()} at {list(at)}.")


def _same(mine: Any, theirs: Any) -> None:
    """Both are the offsets, or both the batch sizes, of the same sequences; a compiled graph can see the shape only."""
    if mine is theirs:
        return
    same = theirs is not None and mine.shape == theirs.shape
    if same and not torch.compiler.is_compiling():
        same = torch.equal(torch.as_tensor(mine, device=theirs.device), theirs)
    if not same:
        raise DataError("elapsed and the input are not of one kind with sequences of the same lengths.")


def reversed_gaps(elapsed: Tensor, rows: Rows) -> Tensor:
    """[N] -> [N]: what went by since the row that the reversed direction visited before; 0 for its first row."""
    n = elapsed.shape[0]
    if not n:
        return elapsed
    b = torch.arange(rows.first.shape[0], device=elapsed.device).repeat_interleave(rows.lengths, output_size=n)
    t = torch.arange(n, device=elapsed.device) - (rows.lengths.cumsum(0) - rows.lengths)[b]
    later = (t + 1).clamp(max=rows.ahead.shape[0] - 1)
    last = t + 1 == rows.lengths[b]
    source = torch.where(last, 0, rows.first[b] + rows.ahead[later])
    gaps = torch.where(last, 0, elapsed[source])
    return torch.zeros_like(elapsed).index_copy(0, rows.first[b] + rows.ahead[t], gaps)
