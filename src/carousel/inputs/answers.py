"""What a model says as the user has it: a frame of the kind that came in, a row for each sequence or row, or arrays."""

from __future__ import annotations

from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from carousel.inputs.clips import Clips
from carousel.inputs.rows import Sequences

__all__ = ["id_table", "per_array", "row_table"]


def id_table(sequences: Sequences, rest: dict[str, Any]) -> Any:
    """A frame of the kind that the sequences came from, one row per sequence: its id, then the `rest`."""
    backend = sequences.backend
    made = []
    if sequences.roles.id:
        dtype = nw.String() if sequences.id_dtype in (nw.Categorical, nw.Enum) else sequences.id_dtype
        made.append(nw.new_series(sequences.roles.id, sequences.ids, dtype, backend=backend))
    made += [nw.new_series(name, values, backend=backend) for name, values in rest.items()]
    return nw.from_dict({column.name: column for column in made}).to_native()


def row_table(sequences: Sequences, found: dict[str, NDArray[Any]]) -> Any:
    """A frame of the kind that the sequences came from: id and time of each row as they stood, then what was found."""
    if isinstance(sequences, Clips):
        return sequences.rows_table(found)
    backend, place = sequences.backend, np.empty(len(sequences.row), np.int64)
    place[sequences.row - 1] = np.arange(len(sequences.row))
    made = [] if sequences.keys is None else [sequences.keys[name] for name in sequences.keys.columns]
    made += [nw.new_series(name, values[place].tolist(), backend=backend) for name, values in found.items()]
    return nw.from_dict({column.name: column for column in made}).to_native()


def per_array(values: NDArray[Any], sequences: Sequences, X: Any) -> Any:
    """A list of arrays [T, ...], or one array [B, T, ...] where X was one."""
    parts = np.split(values, sequences.offsets[1:-1])
    return np.stack(parts) if isinstance(X, np.ndarray) and X.dtype != object else parts
