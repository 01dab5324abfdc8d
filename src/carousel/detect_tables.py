"""What a detector found, as tables of the kind that the rows came from: a row each, or an interval each."""

from __future__ import annotations

from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from carousel.anomaly import runs
from carousel.heads.detect import Scores, most_of
from carousel.inputs.clips import Clips
from carousel.inputs.rows import Sequences

__all__ = ["frame_scores", "interval_table", "per_array", "score_table"]

Ints = NDArray[np.int64]


def score_table(sequences: Sequences, found: Scores, columns: tuple[str, ...]) -> Any:
    """A row for each row of the table, in its order: id and time, score, anomaly, because."""
    place = np.argsort(sequences.row)
    made = [] if sequences.keys is None else [sequences.keys[name] for name in sequences.keys.columns]
    because = [", ".join(most_of(found.parts[k], columns)) or None if found.anomaly[k] else None for k in place]
    rest: dict[str, tuple[list[Any], Any]] = {
        "score": ([None if np.isnan(s) else float(s) for s in found.score[place]], nw.Float64()),
        "anomaly": (found.anomaly[place].tolist(), nw.Boolean()),
        "because": (because, nw.String()),
    }
    made += [nw.new_series(n, values, kind, backend=sequences.backend) for n, (values, kind) in rest.items()]
    return nw.from_dict({column.name: column for column in made}).to_native()


def frame_scores(clips: Clips, found: Scores, columns: tuple[str, ...]) -> Any:
    """A row for each frame: its clip, number and seconds, then score, anomaly and because (where in the picture)."""
    because = [
        ", ".join(most_of(p, columns)) if odd else None for p, odd in zip(found.parts, found.anomaly, strict=True)
    ]
    score = [None if np.isnan(s) else float(s) for s in found.score]
    table = {
        "score": np.array(score, dtype=object),
        "anomaly": found.anomaly,
        "because": np.array(because, dtype=object),
    }
    return clips.rows_table(table, {"score": nw.Float64(), "anomaly": nw.Boolean(), "because": nw.String()})


def interval_table(sequences: Sequences, found: Scores, columns: tuple[str, ...], gap: int) -> Any:
    """A row for each run of anomalies with at most `gap` other rows between; of arrays a dict of lists."""
    spans = _merged(runs(found.anomaly, sequences.offsets), sequences.offsets, gap)
    parts = [found.parts[a : b + 1][found.anomaly[a : b + 1]].sum(0) for a, b in spans]
    rest: dict[str, list[Any]] = {
        "rows": [int(b - a + 1) for a, b in spans],
        "score": [float(np.nanmax(found.score[a : b + 1])) for a, b in spans],
        "because": [", ".join(most_of(part, columns)) for part in parts],
    }
    names = ("start", "end")
    if sequences.backend is None:
        owner = sequences.owner
        edges = {name: [int(sequences.row[span[k]]) for span in spans] for k, name in enumerate(names)}
        return {"id": [int(owner[a]) for a, _ in spans]} | edges | rest
    kinds = {"rows": nw.Int64(), "score": nw.Float64(), "because": nw.String()}
    if isinstance(sequences, Clips):
        sequences = sequences.keyed()
    keys, roles, backend, made = sequences.keys, sequences.roles, sequences.backend, []
    at = [sequences.row[spans[:, k]] - 1 for k in (0, 1)]
    if roles.id:
        made.append(keys[roles.id][at[0].tolist()])
    for name, rows in zip(names, at, strict=True):
        if roles.time:
            made.append(keys[roles.time][rows.tolist()].alias(name))
        else:
            made.append(nw.new_series(name, rows.tolist(), nw.Int64(), backend=backend))
    made += [nw.new_series(name, values, kinds[name], backend=backend) for name, values in rest.items()]
    return nw.from_dict({column.name: column for column in made}).to_native()


def per_array(values: NDArray[Any], sequences: Sequences, X: Any) -> Any:
    """A list of arrays [T], or one array [B, T] where X was one."""
    parts = np.split(values, sequences.offsets[1:-1])
    return np.stack(parts) if isinstance(X, np.ndarray) and X.dtype != object else parts


def _merged(spans: Ints, offsets: Ints, gap: int) -> Ints:
    """Runs of one sequence with at most `gap` rows between them become one."""
    owner = np.searchsorted(offsets, spans[:, 0], side="right")
    found: list[list[int]] = []
    for k, (a, b) in enumerate(spans.tolist()):
        if found and owner[k] == owner[k - 1] and a - found[-1][1] - 1 <= gap:
            found[-1][1] = b
        else:
            found.append([a, b])
    return np.array(found, np.int64).reshape(-1, 2)
