"""`carousel bench robust`: what is left of the accuracy when observations are missing or noisy at test.

An LSTM that is told of gaps (value, observed or not, age, last value, decay) against an LSTM of the same size on values
that were carried forward, and against boosted trees on summaries. All are trained once on the complete training part.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel import atomic
from carousel.bench import sets
from carousel.bench.corrupt import KINDS, carried, corrupt
from carousel.bench.machine import describe
from carousel.classifier import Classifier
from carousel.errors import CarouselError
from carousel.inputs.rows import Sequences
from carousel.summaries import sequence_summaries
from carousel.train import TrainConfig
from carousel.trust.metrics import auroc
from carousel.trust.parts import parts_of

__all__ = ["NOISE", "SHARES", "Robustness", "measure"]

Floats = NDArray[np.float64]

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)
NOISE = (0.0, 0.1, 0.5)
GAPS, CARRIED, TREES = "LSTM with gaps", "carry-forward + plain LSTM", "boosted trees on summaries"


@dataclass(frozen=True)
class Robustness:
    """AUROC of each method, `cells[method]` as {"kind share noise": mean over the seeds}."""

    set: str
    protocol: str
    seeds: int
    cells: dict[str, dict[str, float]]

    def at(self, method: str, kind: str, share: float, noise: float = 0.0) -> float:
        """The AUROC of a method in one cell; KeyError where it was not measured."""
        return self.cells[method][_key(kind, share, noise)]

    def verdict(self) -> list[str]:
        """What half of the readings less costs, and where carry-forward is better."""
        lost = {kind: self.at(GAPS, kind, 0.0) - self.at(GAPS, kind, 0.5) for kind in KINDS}
        told = ", ".join(f"{kind} {value:+.3f}" for kind, value in lost.items())
        worse = [key for key, value in self.cells[GAPS].items() if value < self.cells[CARRIED][key]]
        return [
            f"AUROC lost by the LSTM with gaps when half of the readings are removed: {told}.",
            f"Carry-forward is better in {len(worse)} of {len(self.cells[GAPS])} cells"
            + (f" ({', '.join(worse[:6])}{', ...' if len(worse) > 6 else ''})." if worse else "."),
        ]

    def markdown(self) -> str:
        """A table for each noise: methods by kind and share."""
        lines = [f"### {self.set}", "", self.protocol, ""]
        for noise in NOISE:
            lines += [f"Noise of {noise:g} standard deviations, AUROC:", ""]
            lines += ["| removed | method | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |"]
            lines += ["| --- | --- |" + " ---: |" * len(SHARES)]
            for kind in KINDS:
                for method in self.cells:
                    cells = [f"{self.at(method, kind, share, noise):.3f}" for share in SHARES]
                    lines.append(f"| {kind} | {method} | " + " | ".join(cells) + " |")
            lines.append("")
        return "\n".join([*lines, *(f"- {line}" for line in self.verdict()), f"- {self.seeds} seed(s)", ""])

    def plot(self, place: Path) -> None:
        """A picture: a panel for each way to lose readings, a line for each method, paler with more noise."""
        import io

        from matplotlib.figure import Figure

        figure = Figure(figsize=(11, 3.2), layout="constrained")
        panels = figure.subplots(1, len(KINDS), sharey=True)
        for panel, kind in zip(panels, KINDS, strict=True):
            for n, method in enumerate(self.cells):
                for k, noise in enumerate(NOISE):
                    values = [self.at(method, kind, share, noise) for share in SHARES]
                    label = method if kind == "points" and not k else None
                    style = {"color": f"C{n}", "alpha": 1 - 0.35 * k, "linewidth": 2 - 0.6 * k}
                    panel.plot([100 * s for s in SHARES], values, marker="o", markersize=3, label=label, **style)
            panel.set(title=kind, xlabel="% of readings removed at test")
            panel.grid(alpha=0.3)
        panels[0].set_ylabel("AUROC")
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        atomic.write_bytes(place, buffer.getvalue())


def _key(kind: str, share: float, noise: float) -> str:
    """Where nothing is removed, the way of removing is none."""
    return f"{kind if share else 'none'} {share:g} {noise:g}"


def measure(
    names: Sequence[str],
    *,
    seeds: int = 1,
    out: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[Robustness]:
    """Measure the sets named ("physionet", "generated"; without a name physionet where it is to be found).

    Writes robust-<set>.json, .md and .png into the folder `out`. Raises CarouselError for an unknown set.
    """
    known = {"physionet": _physionet, "generated": generated}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise CarouselError(f"there is no set {unknown[0]!r}; choose from {', '.join(known)}.")
    if not names:
        try:
            sets.folder("physionet2012")
            names = ("physionet",)
        except CarouselError as error:
            say(f"{error} Measured on a generated set instead.")
            names = ("generated",)
    found = []
    for name in names:
        train, test, estimator, protocol = known[name]()
        cells = [_cells(train, test, estimator, seed) for seed in range(seeds)]
        mean = {m: {key: float(np.mean([one[m][key] for one in cells])) for key in cells[0][m]} for m in cells[0]}
        one = Robustness(name, protocol, seeds, mean)
        say(one.markdown())
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            record = json.dumps({"machine": describe()} | asdict(one), indent=1, allow_nan=False)
            atomic.write_bytes(out / f"robust-{name}.json", (record + "\n").encode())
            atomic.write_bytes(out / f"robust-{name}.md", (one.markdown() + "\n").encode())
            one.plot(out / f"robust-{name}.png")
        found.append(one)
    return found


def _cells(train: Any, test: Any, estimator: Classifier, seed: int) -> dict[str, dict[str, float]]:
    """AUROC of the three methods in all cells."""
    estimator = estimator.set_params(config=dataclasses.replace(estimator.settings, seed=1000 * seed)).fit(train)
    own, y = estimator.read_labelled(train)
    sequences, truth = estimator.read_labelled(test)
    spread, means = _spread(own.features), _means(own.features)
    static = _means(own.static)
    plain = Classifier(
        pooling=estimator.pooling,
        seeds=estimator.seeds,
        config=dataclasses.replace(estimator.settings, uneven_decay=False, hide=0.0),
    ).fit(carried(own, means, static), y.astype(int))
    trees = _trees(own, y, seed)
    made: dict[str, dict[str, float]] = {GAPS: {}, CARRIED: {}, TREES: {}}
    for noise in NOISE:
        for share in SHARES:
            for kind in KINDS if share else ("points",):
                rng = np.random.default_rng([seed, int(100 * share), list(KINDS).index(kind)])
                given = corrupt(sequences, kind, share, noise, spread, rng)
                (part,) = parts_of([given], [truth])
                chances = {
                    GAPS: estimator.proba_at(given)[:, 1],
                    CARRIED: plain.predict_proba(carried(given, means, static))[:, 1],
                    TREES: trees.predict_proba(sequence_summaries(part)[0])[:, 1],
                }
                for method, chance in chances.items():
                    made[method][_key(kind, share, noise)] = float(auroc(truth == 1, chance) or 0.5)
    return made


def _spread(values: Floats) -> Floats:
    """Standard deviation of each column's usual values, those between the quantiles 0.5 % and 99.5 %."""
    low, high = (np.array([_quantile(column, q) for column in values.T]) for q in (0.005, 0.995))
    return np.asarray(np.nanstd(np.where(np.isfinite(values), np.clip(values, low, high), np.nan), 0))


def _quantile(column: Floats, level: float) -> float:
    seen = column[np.isfinite(column)]
    return float(np.quantile(seen, level)) if len(seen) else 0.0


def _means(values: Floats) -> Floats:
    """Of each column, 0 where nothing was ever observed."""
    count = np.isfinite(values).sum(0)
    return np.asarray(np.where(np.isfinite(values), values, 0.0).sum(0) / np.maximum(count, 1))


def _trees(own: Sequences, y: Floats, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    (part,) = parts_of([own], [y])
    model = HistGradientBoostingClassifier(
        learning_rate=0.05, max_iter=300, l2_regularization=1.0, early_stopping=True, random_state=seed
    )
    return model.fit(sequence_summaries(part)[0], y.astype(int))


def _physionet() -> tuple[Any, Any, Classifier, str]:
    estimator = Classifier(
        "death",
        id="record_id",
        time="minute",
        long=("parameter", "value"),
        static=sets.PHYSIONET_STATIC,
        categorical=("ICUType",),
        seeds=5,
    )
    train, test = sets.physionet("a", hourly=True), sets.physionet("b", hourly=True)
    stays = test["record_id"].unique().sort().gather_every(2)
    said = (
        f"PhysioNet 2012, death in hospital: trained on set a as it is, readings removed from {len(stays):,} stays of"
        " set b (every other); five members of either LSTM, defaults."
    )
    return train, test.filter(test["record_id"].is_in(stays.implode())), estimator, said


def generated(count: int = 400, config: TrainConfig | None = None, seed: int = 0) -> tuple[Any, Any, Classifier, str]:
    """Six sensors that report at random times; those of half of the sequences drift apart towards the end."""
    import polars as pl

    rng = np.random.default_rng(seed)

    def table(first: int) -> pl.DataFrame:
        parts = []
        for k in range(first, first + count):
            n, sick = int(rng.integers(15, 40)), int(rng.random() < 0.4)
            time = np.cumsum(rng.exponential(1.0, n))
            drift = np.maximum(time / time[-1] - 0.4, 0.0)[:, None] * rng.uniform(0.5, 2.0, 6) * sick
            level = rng.normal(size=6) * 0.7
            values = level + drift * np.array([1, 1, 1, -1, -1, 0]) + 0.7 * rng.normal(size=(n, 6))
            values[rng.random((n, 6)) < 0.5] = np.nan
            columns = {f"sensor_{c}": values[:, c] for c in range(6)}
            parts.append(pl.DataFrame({"id": k, "time": time, **columns, "sick": sick}))
        return pl.concat(parts)

    estimator = Classifier("sick", id="id", time="time")
    estimator.config = config or dataclasses.replace(estimator.settings, hidden_size=32, epochs=30.0)
    return table(0), table(count), estimator, "A generated set: six sensors, of which some drift before the end."
