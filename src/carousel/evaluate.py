"""How good are forecasts? Rolling-origin backtests, the field's metrics, and always the baselines beside the model."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from carousel.baselines import BASELINES, Floats, Ints, Rows, forecasts
from carousel.errors import DataError
from carousel.inputs import columns
from carousel.inputs.table import read_table
from carousel.moments import read_time, rows_until
from carousel.trust.forecasts import forecast_trust
from carousel.trust.metrics import spread as spread_over
from carousel.trust.report import Trust

if TYPE_CHECKING:
    from rich.table import Table

    from carousel.config import ModelConfig
    from carousel.inputs.table import Series

__all__ = ["Evaluation", "Score", "backtest", "evaluate", "rolling_origins", "rows_until"]

QuantilesAt = Callable[["Series", Ints], Floats]
Progress = Callable[[int, int], None]
MODEL = "LSTM"
BATCH = 512  # origins a call


@dataclass(frozen=True)
class Score:
    """One row of the table: how one method forecast one target.

    mase and smape (percent) are means over the series; rmse, pinball (mean over the quantiles) and width are in
    the target's own unit over all points; coverage and width are by interval, `"90"` for the 5 % to 95 % one.
    None where nothing can be said: MASE when every series is constant, intervals without a pair of quantiles.
    """

    model: str
    target: str
    mase: float | None
    smape: float
    rmse: float
    pinball: float
    coverage: dict[str, float]
    width: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """What a backtest found; `rows` holds the model first, then every baseline, target by target."""

    rows: tuple[Score, ...]
    horizon: int
    season: int
    series: int
    origins: int
    points: int
    quantiles: tuple[float, ...]
    notes: tuple[str, ...]
    seeds: dict[str, tuple[float, float]] = field(default_factory=dict)  # mean and deviation over the members alone
    trust: Trust | None = None

    def of(self, model: str, target: str | None = None) -> Score:
        """The row of a model; KeyError without one."""
        for row in self.rows:
            if row.model == model and target in (None, row.target):
                return row
        raise KeyError((model, target))

    def verdict(self) -> str:
        """One honest sentence and line a target: who has the lowest MASE, and by how much."""
        return "\n".join(self._verdict(target) for target in dict.fromkeys(row.target for row in self.rows))

    def _verdict(self, target: str) -> str:
        rows = [row for row in self.rows if row.target == target]
        if rows[0].mase is None:
            return f"{target}: every series is constant before its first origin, so MASE says nothing."
        model, best = rows[0].mase, min(rows[1:], key=lambda row: row.mase if row.mase is not None else np.inf)
        assert best.mase is not None
        if model < best.mase:
            return f"{target}: the LSTM's MASE is {1 - model / best.mase:.1%} below the best baseline ({best.model})."
        return f"{target}: a baseline wins; {best.model} has MASE {_short(best.mase)}, the LSTM {_short(model)}."

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        found = asdict(replace(self, trust=None))
        trust = None if self.trust is None else self.trust.to_dict()
        return found | {"rows": list(found["rows"]), "verdict": self.verdict(), "trust": trust}

    def markdown(self) -> str:
        """The table as Markdown, the best value of each column in bold."""
        head, body = self._cells()
        mark = [[f"**{text}**" if best else text for text, best in row] for row in body]
        rule = ["---" if n == 0 else "---:" for n in range(len(head))]
        return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *mark])

    def table(self) -> Table:
        """The table for a terminal."""
        from rich import box
        from rich.markup import escape
        from rich.table import Table

        head, body = self._cells()
        title = f"{self.origins:,} forecasts of {self.horizon} steps, {self.series:,} series, season {self.season}"
        made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for name in head:
            made.add_column(name, justify="left" if name in ("target", "model") else "right", no_wrap=True)
        methods = len(self.rows) // len({row.target for row in self.rows})
        for n, row in enumerate(body):
            if n and n % methods == 0:
                made.add_section()
            made.add_row(*(f"[bold]{text}[/bold]" if best else escape(text) for text, best in row))
        return made

    def show(self) -> None:
        """Print the table, the verdict and the notes."""
        from rich.console import Console

        console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
        console.print(self.table())
        trust = () if self.trust is None else ("", *self.trust.sentences())
        for sentence in (self.verdict(), *self.notes, *trust):
            console.print(sentence, markup=False)

    def _cells(self) -> tuple[list[str], list[list[tuple[str, bool]]]]:
        """Column names, and of each row the texts with whether it is the best of its column and target."""
        several = len({row.target for row in self.rows}) > 1
        widest = max(self.rows[0].coverage, key=float, default=None)
        head = [*(["target"] if several else []), "model", "MASE", "sMAPE %", "RMSE", "pinball"]
        if widest:
            head += [f"in {widest} %", f"width {widest} %"]

        def numbers(row: Score) -> list[float | None]:
            return [row.mase, row.smape, row.rmse, row.pinball]

        body = []
        for row in self.rows:
            peers = [numbers(other) for other in self.rows if other.target == row.target]
            cells = [(text, False) for text in ([row.target] if several else []) + [row.model]]
            for n, value in enumerate(numbers(row)):
                others = [other for p in peers if (other := p[n]) is not None]
                best = value is not None and value == min(others) < max(others)  # not where all are equal
                cells.append(("-" if value is None else _short(value, 2 if n == 1 else 3), best))
            if widest:
                cells += [(f"{row.coverage[widest]:.1%}", False), (_short(row.width[widest]), False)]
            body.append(cells)
        return head, body


def _short(value: float, digits: int = 3) -> str:
    """Decimals where they say enough, significant digits of what is small or huge.

    >>> _short(0.0), _short(0.00012345), _short(0.41234), _short(12.3456, 2), _short(12345.6), _short(1.5e20)
    ('0.000', '0.000123', '0.412', '12.35', '12,346', '1.5e+20')
    """
    size = abs(value)
    if 0 < size < 0.1 or size >= 1e12:
        return f"{value:.{digits}g}"
    return f"{value:.{digits}f}" if size < 1000 else f"{value:,.0f}"


def rolling_origins(
    series: Series,
    horizon: int,
    *,
    since: NDArray[np.float64] | float | None = None,
    windows: int | None = None,
    stride: int | None = None,
) -> Ints:
    """Row indices to forecast from, sorted, all with `horizon` rows after them up to the last observed target.

    Per series: the first origin is the last row before `since` (in the unit of `series.time`; one number, or one
    a series), then one every `stride` rows; or the last `windows` of them. Without `stride` about 64 origins a
    series are spread evenly. Raises DataError when no series has an origin.

    >>> from types import SimpleNamespace
    >>> two = SimpleNamespace(offsets=np.array([0, 10, 18]), time=np.r_[0.0:10.0, 0.0:8.0], target=np.ones((18, 1)))
    >>> rolling_origins(two, 3, since=4.0, stride=2)
    array([ 3,  5, 13])
    """
    begin, end = series.offsets[:-1], series.offsets[1:]
    observed = np.isfinite(series.target).any(axis=1)
    known = np.maximum.reduceat(np.where(observed, np.arange(len(series.time)), -1), begin)
    last = known - horizon
    lowest = begin
    if since is not None:
        bound = np.repeat(np.broadcast_to(np.asarray(since, np.float64), len(begin)), end - begin)
        before = np.concatenate([[0], np.cumsum(series.time < bound)])
        lowest = begin + np.maximum(before[end] - before[begin] - 1, 0)
    room = last - lowest + 1
    step = np.broadcast_to(stride or np.maximum(-(-room // 64), 1), len(begin))
    counts = np.maximum(-(-room // step), 0)
    first = lowest
    if windows is not None:
        counts = np.minimum(counts, windows)
        first = last - (counts - 1) * step
    if not counts.any():
        raise DataError(
            f"no series has {horizon} rows after its first origin, so nothing can be compared: give longer series, an "
            "earlier start or a shorter horizon."
        )
    index = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(np.repeat(first, counts) + index * np.repeat(step, counts), np.int64)


def backtest(
    series: Series,
    quantiles_at: QuantilesAt,
    origins: Ints,
    *,
    horizon: int,
    quantiles: Sequence[float],
    season: int = 1,
    targets: Sequence[str] = ("target",),
    members: Sequence[QuantilesAt] = (),
    progress: Progress | None = None,
) -> Evaluation:
    """Forecast from every origin with the model and every baseline, and compare with what came.

    quantiles_at(series, origins) gives [n, H, K, Q] in the target's own units, seeing rows up to each origin only.
    Unobserved truth counts for nobody; so do steps of a series that has no observed row up to the origin. Baselines
    are fitted on the rows up to each series' first origin, which also make the scale of MASE. `members` are those of
    an ensemble, each alone, to see how much another seed changes.
    """
    if 0.5 not in quantiles:
        raise ValueError(f"the median 0.5 must be among the quantiles, got {tuple(quantiles)}")
    _refuse_extremes(series, targets)
    owner = np.searchsorted(series.offsets, origins, side="right") - 1
    kept = np.unique(owner)
    first = series.offsets[:-1] - 1  # a series without origins lends no row
    first[kept] = len(series.time)
    np.minimum.at(first, owner, origins)
    rows = Rows(series, first, max(season, 1))
    row = origins[:, None] + np.arange(1, horizon + 1)
    truth = series.target[row].copy()
    truth[np.broadcast_to((rows.latest[origins] < 0)[:, None], truth.shape)] = np.nan
    if np.isnan(truth).all():
        raise DataError("no observed target follows any origin, so nothing can be compared: give later rows.")
    levels = tuple(float(q) for q in quantiles)
    median = levels.index(0.5)
    spread = _model(series, quantiles_at, origins, progress)
    if spread.shape != (*truth.shape, len(levels)):
        raise ValueError(f"quantiles_at gave shape {spread.shape}, expected {(*truth.shape, len(levels))}")
    made = {MODEL: (spread[..., median], spread)}
    made |= {name: forecasts(name, rows, origins, horizon, levels) for name in reversed(BASELINES)}
    scores = [
        _score(name, target, truth[..., k], point[..., k], fan[..., k, :], levels, owner, rows.scale[:, k])
        for k, target in enumerate(targets)
        for name, (point, fan) in made.items()
    ]
    alone = [_model(series, one, origins, None)[..., 0, :] for one in members]
    apart = [
        _score(MODEL, targets[0], truth[..., 0], f[..., median], f, levels, owner, rows.scale[:, 0]) for f in alone
    ]
    return Evaluation(
        rows=tuple(scores),
        horizon=horizon,
        season=rows.season,
        series=len(kept),
        origins=len(origins),
        points=int((~np.isnan(truth)).sum()),
        quantiles=levels,
        notes=_notes(series, rows, kept, targets),
        seeds={
            name: found
            for name in ("mase", "smape", "rmse", "pinball")
            if (found := spread_over([getattr(one, name) for one in apart])) is not None
        },
    )


def _model(series: Series, quantiles_at: QuantilesAt, origins: Ints, progress: Progress | None) -> Floats:
    parts = []
    for begin in range(0, len(origins), BATCH):
        parts.append(quantiles_at(series, origins[begin : begin + BATCH]))
        if progress:
            progress(min(begin + BATCH, len(origins)), len(origins))
    return np.concatenate(parts)


def _refuse_extremes(series: Series, targets: Sequence[str]) -> None:
    """Figures in JSON are finite."""
    for k, name in enumerate(targets):
        size = np.nan_to_num(np.abs(series.target[:, k]))
        at = int(size.argmax())
        if size[at] > columns.LARGEST:
            raise DataError(
                f"{series.source}, row {int(series.row[at])}, column {name!r}: errors of values as large as"
                f" {size[at]:g} cannot be measured, their squares leave the range of numbers; give them in a larger"
                " unit."
            )


def _notes(series: Series, rows: Rows, kept: Ints, targets: Sequence[str]) -> tuple[str, ...]:
    """What the figures leave out, said aloud."""
    notes = []
    for k, target in enumerate(targets):
        flat = [series.ids[b] for b in kept if not rows.scale[b, k] > 0]
        if flat:
            some = ", ".join(str(name) for name in flat[:3]) + (", ..." if len(flat) > 3 else "")
            notes.append(f"MASE of {target} leaves out {len(flat)} series that never change before ({some}).")
    return tuple(notes)


def _score(
    name: str,
    target: str,
    truth: Floats,  # [n, H]
    point: Floats,  # [n, H]
    spread: Floats,  # [n, H, Q]
    levels: tuple[float, ...],
    owner: Ints,  # [n]
    scale: Floats,  # [B]
) -> Score:
    at = ~np.isnan(truth)
    whose = np.broadcast_to(owner[:, None], at.shape)[at]
    y, p, fan = truth[at], point[at], spread[at]
    if not np.isfinite(fan).all() or not np.isfinite(p).all():
        raise ValueError(f"{name} gave forecasts of {target} that are not finite")
    error = np.abs(y - p)
    size = np.abs(y) + np.abs(p)
    relative = np.divide(200 * error, size, out=np.zeros_like(error), where=size > 0)
    count = np.bincount(whose, minlength=len(scale))
    seen, moving = count > 0, (count > 0) & (scale > 0)
    mean_error = np.bincount(whose, error, len(scale)) / np.maximum(count, 1)
    mean_relative = np.bincount(whose, relative, len(scale)) / np.maximum(count, 1)
    over = fan - y[:, None]
    q = np.asarray(levels)
    pairs = {
        f"{100 * (1 - 2 * low):g}": (levels.index(low), high)
        for low in levels
        if low < 0.5 and (high := _partner(levels, low)) is not None
    }
    return Score(
        model=name,
        target=target,
        mase=float((mean_error[moving] / scale[moving]).mean()) if moving.any() else None,
        smape=float(mean_relative[seen].mean()),
        rmse=float(np.sqrt(np.square(error).mean())),
        pinball=float(np.maximum((1 - q) * over, -q * over).mean()),
        coverage={k: float(((fan[:, a] <= y) & (y <= fan[:, b])).mean()) for k, (a, b) in pairs.items()},
        width={k: float((fan[:, b] - fan[:, a]).mean()) for k, (a, b) in pairs.items()},
    )


def _partner(levels: tuple[float, ...], low: float) -> int | None:
    return next((n for n, high in enumerate(levels) if abs(low + high - 1) < 1e-9), None)


class Forecasts(Protocol):
    """What `evaluate` asks of a fitted forecaster."""

    config_: ModelConfig
    season_: int
    provenance_: dict[str, Any]

    def quantiles_at(self, series: Series, origins: Ints) -> Floats: ...


def evaluate(
    model: Forecasts,
    frame: Any,
    *,
    since: str | float | None = None,
    windows: int | None = None,
    stride: int | None = None,
    season: int | None = None,
    source: str = "data",
    progress: Progress | None = None,
) -> Evaluation:
    """Backtest a fitted forecaster on a pandas, polars or Arrow table that goes on after its training rows.

    `since` is the first time to forecast, as the table writes times (None: the first after training); `windows`
    and `stride`, in rows, as in `rolling_origins`; `season` of the baselines and of MASE (None: the model's).
    Where rows that the model was trained on are forecast, a note says so; where there is no time column to tell by,
    it says that. Raises DataError for faults of the table and for a season that is longer than every series.
    """
    table = model.config_.input
    series = read_table(frame, table.roles, source=source, grid=table.grid, stamps=table.stamps)
    until = float(model.provenance_["until"])
    if since is not None:
        start = read_time(since, series.clock, "since", wall=series.grid.wall)
    else:
        start = float(np.nextafter(until, np.inf))
        later = np.isfinite(series.target).any(1) & (series.time > until)
        if windows is not None or not later.any():
            windows, start = windows or 1, -np.inf
    longest = int(series.lengths.max())
    if season is not None and season > longest:
        raise DataError(
            f"{source}: a season of {season} rows is longer than the longest series, which has {longest} rows; give a"
            " shorter season or longer series."
        )
    origins = rolling_origins(series, table.horizon, since=start, windows=windows, stride=stride)
    notes = []
    if table.roles.time is None and series.time[origins].min() < until:
        notes = [
            "Without a time column nobody can tell whether these rows were seen in training; where they were, the"
            " LSTM's figures flatter it."
        ]
    elif series.time[origins].min() < until:
        seen = series.clock.describe(until)
        notes = [
            f"Rows up to {seen} were seen in training, so the LSTM's figures here flatter it: evaluate on later ones."
        ]
    found = backtest(
        series,
        model.quantiles_at,
        origins,
        horizon=table.horizon,
        quantiles=model.config_.head.quantiles,
        season=season or model.season_,
        targets=table.roles.target,
        members=_alone(model),
        progress=progress,
    )
    members = model.config_.seeds
    trust = forecast_trust(
        table,
        series,
        origins,
        None if table.roles.time is None else until,
        coverage=found.rows[0].coverage,
        seeds=found.seeds,
        members=members,
    )
    return replace(found, notes=(*notes, *found.notes), trust=trust)


def _alone(model: Any) -> list[QuantilesAt]:
    """Each member of an ensemble as a forecaster of its own."""
    members = getattr(model, "model_", [])
    found: list[QuantilesAt] = []
    for member in members if len(members) > 1 else ():
        one = copy.copy(model)
        one.model_ = [member]
        found.append(one.quantiles_at)
    return found
