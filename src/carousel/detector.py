"""`Detector`: which rows of sequences are odd, learned without labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from carousel.anomaly import detection
from carousel.config import ModelConfig, from_record, to_json
from carousel.detect_tables import frame_scores, interval_table, per_array, score_table
from carousel.detection import DetectConfig, Rows, errors_of, train_detector
from carousel.errors import CarouselError, DataError
from carousel.frame_forecasts import FRAME_DEFAULTS, fit_odd_frames, score_frames
from carousel.heads.detect import DetectHead, Scores, score_rows
from carousel.heads.detect_fit import best_threshold
from carousel.inputs.clips import Clips
from carousel.inputs.frames import Frames, FramesInput
from carousel.inputs.labels import label_array, label_column
from carousel.inputs.rows import Sequences, channels
from carousel.inputs.sequence import SequenceInput
from carousel.sequence_estimator import SequenceEstimator, is_frame, versions
from carousel.train import Progress, TrainConfig

__all__ = ["Detector", "usual_scoring"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

FEWEST = 32  # rows to learn from
# Where rows are judged by their history: shocks last a row, shifts stay, and one alarm speaks for what follows it.
HISTORY = DetectConfig(smooth=(20, 100), level=(1, 100))
REST = 100
MARGIN = 1.05  # of the largest distance so far: an anomaly, where rows are judged by their history


def usual_scoring(reference: str) -> DetectConfig:
    """How rows are scored where nothing else is said."""
    return HISTORY if reference == "history" else DetectConfig()


class Detector(SequenceEstimator):
    """Which rows are odd, by an LSTM that knows how they usually go on.

    `method="forecast"` forecasts each row's numbers from the rows before it, with a scale (Student's t, so that
    anomalies among the training rows pull little), and scores what is off; it is causal and has a form for streams.
    `method="autoencoder"` reconstructs windows through a few numbers; it needs whole windows. Columns by role as in
    `Classifier`; categories and static columns are seen, and number columns are scored. `target` is a column that is 1
    in rows known to be anomalies: they are not learned from.

    `reference="training"` scores a row in units of the limit that hardly any normal row exceeds (peaks over
    threshold), and flags it from 1 on: good for states, as of a machine that fails. `reference="history"` scores it in
    units of the largest deviation in its sequence so far: good for alarms on data that drift; after an alarm only
    higher scores count for `rest` rows (None: 100). `scoring` says how errors are averaged (None: by the reference,
    `DetectConfig()` or longer means); `seeds` members of the ensemble; `config` None: `Detector.defaults`, or
    `Detector.history_defaults`, which hold nothing out, since no limit is set from it.

    >>> import numpy as np
    >>> wave = np.sin(np.arange(400) / 5)[:, None] + 0.05 * np.random.default_rng(0).normal(size=(400, 1))
    >>> model = Detector(config=dataclasses.replace(Detector.defaults, steps=60)).fit([wave[:300]])
    >>> wave[350] += 1.5
    >>> int(model.scores([wave])[0].argmax())
    350
    """

    task = "detect"
    per_row = True
    defaults: ClassVar[TrainConfig] = TrainConfig(
        hidden_size=32,
        width=0,
        batch_size=32,
        steps=600,
        least_steps=200,
        epochs=10,
        learning_rate=5e-3,
        warmup=20,
        evaluate_every=25,
        averaging=0.98,
        weight_decay=1e-3,
        crop=64,
        refit=False,
        threads=1,  # small steps: a second thread costs more than it brings
    )
    history_defaults: ClassVar[TrainConfig] = dataclasses.replace(defaults, holdout=0.0)
    frame_defaults: ClassVar[TrainConfig] = FRAME_DEFAULTS
    _parameters = (
        "method",
        "id",
        "time",
        "features",
        "static",
        "categorical",
        "long",
        "frames",
        "target",
        "reference",
        "rest",
        "scoring",
        "seeds",
        "config",
    )

    def __init__(
        self,
        method: Literal["forecast", "autoencoder"] = "forecast",
        *,
        id: str | None = None,
        time: str | None = None,
        features: Sequence[str] | None = None,
        static: Sequence[str] = (),
        categorical: Sequence[str] = (),
        long: Sequence[str] | None = None,
        frames: str | Frames | None = None,
        target: str | None = None,
        reference: Literal["training", "history"] = "training",
        rest: int | None = None,
        scoring: DetectConfig | None = None,
        seeds: int = 1,
        config: TrainConfig | None = None,
    ) -> None:
        self.method = method
        self.id = id
        self.time = time
        self.features = features
        self.static = static
        self.categorical = categorical
        self.long = long
        self.frames = frames
        self.target = target
        self.reference = reference
        self.rest = rest
        self.scoring = scoring
        self.seeds = seeds
        self.config = config

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        valid: Any = None,
        checkpoint: str | PathLike[str] | None = None,
        resume: bool = False,
        progress: Progress | None = None,
        source: str | None = None,
    ) -> Self:
        """Learn from a table or arrays; the last share of each sequence (`config.holdout`) is for early stopping.

        `y` of arrays, like the target column of tables, marks rows known to be anomalies. `valid` (a table with the
        target column, or (X, y)) chooses the threshold of the highest F1 over its rows instead of the limit from the
        tail. `checkpoint` and `resume`: see `carousel.train.train`. Raises DataError for faults of the data: fewer
        rows than needed, no number column with values, labels of another length; CarouselError for parameters.
        """
        self._check_parameters(valid)
        source = source or ("data" if is_frame(X) else "X")
        sequences = self._read_to_fit(X, self.target, source)
        marked = self._marked(sequences, y)
        if isinstance(sequences, Clips):
            return self._fit_frames(sequences, marked != 1, valid, checkpoint, resume, progress)
        learned, held = self._split(sequences, marked == 1)
        seen = self._input(sequences, np.flatnonzero(learned))
        config = ModelConfig("detect", seen, self._stack(seen), self._head(sequences, seen, learned), self.seeds)
        trained = train_detector(
            config,
            self._rows(sequences, config, learned, held),
            self._scoring,
            self.settings,
            checkpoint=None if checkpoint is None else Path(checkpoint),
            resume=resume,
            progress=progress,
        )
        self.provenance_ = {"versions": versions(), "train": to_json(self.settings)} | trained.provenance
        self.provenance_["scoring"] = to_json(self._scoring)
        self._keep(trained.config, trained.weights)
        if valid is not None:
            self._choose_threshold(valid)
        return self

    @property
    def settings(self) -> TrainConfig:
        """The choices of training: `config`, or the defaults of the reference and of what is read."""
        usual = self.config is None and self.reference == "history" and self.frames is None
        return self.history_defaults if usual else super().settings

    @property
    def _scoring(self) -> DetectConfig:
        return usual_scoring(self.reference) if self.scoring is None else self.scoring

    @property
    def _resting(self) -> int:
        return (REST if self.reference == "history" else 0) if self.rest is None else int(self.rest)

    def predict(self, X: Any, *, source: str | None = None) -> Any:
        """Of arrays: for each sequence an array [T], True for anomalies. Of a table: one of the same kind, a row for
        each of its rows in their order (of a table of events for each id and time, sorted).

        Columns: id and time, `score` (null where no number is observed), `anomaly`, and `because`: the columns that
        contributed most, most first (null of normal rows). Raises DataError where columns differ.
        """
        sequences, found = self._found(X, source)
        if sequences.backend is None:
            return per_array(found.anomaly, sequences, X)
        if isinstance(sequences, Clips):
            return frame_scores(sequences, found, self.columns_)
        return score_table(sequences, found, self.columns_)

    def scores(self, X: Any, *, source: str | None = None) -> Any:
        """Scores, NaN where no number is observed: of arrays an array [T] for each, of a table [N] in its order."""
        sequences, found = self._found(X, source)
        if sequences.backend is None:
            return per_array(found.score, sequences, X)
        if isinstance(sequences, Clips):
            return found.score
        made = np.empty_like(found.score)
        made[sequences.row - 1] = found.score
        return made

    def intervals(self, X: Any, *, gap: int = 0, source: str | None = None) -> Any:
        """Anomalies as intervals: a table with a row for each run of flagged rows with at most `gap` others between.

        Columns: id, `start` and `end` (times of the first and last flagged row, or their numbers), `rows`, `score`
        (the highest), `because` (the columns that contributed most over the interval). Of arrays a dict of lists,
        with the sequence's number as `id`.
        """
        if isinstance(gap, bool) or not isinstance(gap, int | np.integer) or gap < 0:
            raise CarouselError(f"gap must be a whole number of rows, at least 0, got {gap!r}.")
        sequences, found = self._found(X, source)
        return interval_table(sequences, found, self.columns_, int(gap))

    def score(self, X: Any, y: Any = None, *, source: str | None = None) -> float:
        """Composite F1 (row precision, event recall) of the flags against the target column, or `y` of arrays."""
        sequences, labels = self.read_labelled(X, y, source=source)
        found = detection(self.scored(sequences).anomaly, labels, sequences.offsets)
        if found.composite_f1 is None:
            raise DataError(f"{sequences.source}: no row is labelled as an anomaly, so there is no F1; give labels.")
        return found.composite_f1

    def read_labelled(self, X: Any, y: Any = None, *, source: str | None = None) -> tuple[Sequences, Flags]:
        """The sequences, and of each row [N], in the sequences' order, whether it is labelled as an anomaly.

        Raises DataError without labels, or where a row has none.
        """
        source = source or ("data" if is_frame(X) else "X")
        if is_frame(X) and not self._fitted().input.roles.target:
            raise CarouselError("the model knows no column of labels; name it as target when it is fitted.")
        sequences = self.read(X, source=source, target=y is None)
        marked = self._marked(sequences, y)
        if sequences.backend is None and y is None:
            raise DataError("labels are missing: give y, an array for each sequence.")
        missing = np.flatnonzero(np.isnan(marked))
        if len(missing):
            raise DataError(f"{sequences.where(int(missing[0]))}: the label is missing; fill it in with 0 or 1.")
        return sequences, marked == 1

    def scored(self, sequences: Sequences) -> Scores:
        """Of the rows of sequences that `read` gave, in the sequences' order."""
        config = self._fitted()
        if isinstance(sequences, Clips):
            return score_frames(self.model_, config, sequences, self.decoding_)
        rows = self._rows(sequences, config)
        return score_rows(config.head, errors_of(self.model_, config, rows), rows.values, sequences.offsets)

    @property
    def columns_(self) -> tuple[str, ...]:
        """The number columns that are scored."""
        head: DetectHead = self._fitted().head
        return head.columns

    @property
    def threshold_(self) -> float:
        """The score from which on a row is an anomaly."""
        head: DetectHead = self._fitted().head
        return head.threshold

    def _fit_frames(
        self,
        clips: Clips,
        normal: Flags,
        valid: Any,
        checkpoint: str | PathLike[str] | None,
        resume: bool,
        progress: Progress | None,
    ) -> Self:
        scoring = DetectConfig(level=()) if self.scoring is None else self.scoring  # frames have no level
        trained = fit_odd_frames(
            clips,
            normal,
            self._frames(),
            scoring,
            self.settings,
            reference=self.reference,
            rest=0 if self.rest is None else int(self.rest),
            seeds=int(self.seeds),
            threshold=1.0 if self.reference == "training" else MARGIN,
            checkpoint=None if checkpoint is None else Path(checkpoint),
            resume=resume,
            progress=progress,
        )
        self.provenance_ = {"versions": versions(), "train": to_json(self.settings)} | trained.provenance
        self.provenance_["scoring"] = to_json(scoring)
        self._keep(trained.config, trained.weights)
        if valid is not None:
            self._choose_threshold(valid)
        return self

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """The fitted estimator from a model file; ModelFileError where the file is refused or of another task."""
        made = super().load(path)
        if "scoring" in made.provenance_:
            made.scoring = from_record(DetectConfig, made.provenance_["scoring"], "provenance.scoring")
        return made

    @classmethod
    def _parameters_of(cls, config: ModelConfig, provenance: dict[str, Any]) -> dict[str, Any]:
        head: DetectHead = config.head
        if isinstance(config.input, FramesInput):
            found = super()._parameters_of(config, provenance)
            found["frames"] = Frames.fitted(config.input, config.head.patch)
            target = next(iter(config.input.roles.target), None)
            return found | {"reference": head.reference, "rest": head.rest, "target": target}
        more = {"method": head.method, "reference": head.reference, "rest": head.rest}
        return (
            super()._parameters_of(config, provenance) | more | {"target": next(iter(config.input.roles.target), None)}
        )

    def _check_parameters(self, valid: Any) -> None:
        if self.method not in ("forecast", "autoencoder"):
            raise CarouselError(f"method must be forecast or autoencoder, got {self.method!r}.")
        if self.reference not in ("training", "history"):
            raise CarouselError(f"reference must be training or history, got {self.reference!r}.")
        rest = 0 if self.rest is None else self.rest
        if isinstance(rest, bool) or not isinstance(rest, int | np.integer) or rest < 0:
            raise CarouselError(f"rest must be a whole number of rows, at least 0, got {self.rest!r}.")
        if self.rest and self.reference != "history":
            raise CarouselError("rest is about reference='history'; leave it out, or choose that.")
        if self.scoring is not None and not isinstance(self.scoring, DetectConfig):
            raise CarouselError(f"scoring must be a DetectConfig, got {self.scoring!r}.")
        if self.frames is not None and self.method != "forecast":
            raise CarouselError("an odd frame is one that was not expected: frames go with method='forecast' alone.")
        if self.settings.bidirectional:
            raise CarouselError("a detector reads forwards only; leave bidirectional out.")
        if valid is not None and is_frame(valid) and self.target is None:
            raise CarouselError("valid chooses the threshold by its labels; name their column as target.")

    def _split(self, sequences: Sequences, anomalous: Flags) -> tuple[Flags, Flags]:
        """Rows to learn from and rows held out, at the end of each sequence; known anomalies are neither."""
        lengths = sequences.lengths
        position = np.arange(len(sequences.time)) - np.repeat(sequences.offsets[:-1], lengths)
        late = position >= np.repeat(np.ceil(lengths * (1 - self.settings.holdout)), lengths)
        learned, held = ~late & ~anomalous, late & ~anomalous
        needed = max(FEWEST, 2 * self._scoring.window if self.method == "autoencoder" else 0)
        if learned.sum() < needed or (lengths < 2).all():
            raise DataError(
                f"{sequences.source}: {int(learned.sum())} rows are left to learn from, at least {needed} are needed"
                " in sequences of two or more; give more rows."
            )
        return learned, held

    def _head(self, sequences: Sequences, seen: SequenceInput, learned: Flags) -> DetectHead:
        names = sequences.roles.features
        columns = [c.name for c in seen.numbers]
        observed = [n for n in columns if (~np.isnan(sequences.features[learned, names.index(n)])).sum() > 1]
        if not observed:
            raise DataError(
                f"{sequences.source}: no number column has values to learn from, so there is nothing to score; name"
                " features that hold numbers."
            )
        settings, options = self.settings, self._scoring
        again = self.method == "autoencoder"
        return DetectHead(
            self.method,
            tuple(observed),
            width=settings.width or (settings.hidden_size if again else 0),
            window=options.window if again else 0,
            code=options.code if again else 0,
            reference=self.reference,
            rest=self._resting,
            threshold=1.0 if self.reference == "training" else MARGIN,
            floor=(1e-6,) * len(observed),
            keep=tuple(self._kept(sequences, seen, name, learned) for name in observed) if not again else (),
        )

    def _kept(self, sequences: Sequences, seen: SequenceInput, name: str, learned: Flags) -> float:
        """The share of a value that remains in the next one: least squares over neighbouring rows to learn from."""
        channel = next(c for c in seen.numbers if c.name == name)
        scaled = channel.scaled(sequences.features[:, sequences.roles.features.index(name)])
        x, y = scaled[:-1], scaled[1:]
        both = learned[:-1] & learned[1:] & (np.diff(sequences.owner) == 0) & ~np.isnan(x) & ~np.isnan(y)
        size = float(x[both] @ x[both])
        return float(np.clip(x[both] @ y[both] / size, 0.0, 1.0)) if size > 0 else 1.0

    def _rows(
        self, sequences: Sequences, config: ModelConfig, learned: Flags | None = None, held: Flags | None = None
    ) -> Rows:
        head: DetectHead = config.head
        names, numbers = sequences.roles.features, {c.name: c for c in config.input.numbers}
        values = sequences.features[:, [names.index(name) for name in head.columns]]
        scaled = np.stack([numbers[name].scaled(values[:, k]) for k, name in enumerate(head.columns)], 1)
        none = np.zeros(len(values), bool)
        seen = channels(sequences, config.input)
        return Rows(seen, scaled, values, none if learned is None else learned, none if held is None else held)

    def _marked(self, sequences: Sequences, y: Any) -> Floats:
        """Of each row 1 (an anomaly), 0, or NaN (not said)."""
        count = len(sequences.time)
        if sequences.backend is None:
            if y is None:
                return np.full(count, np.nan)
            parts = [np.asarray(part).reshape(-1) for part in y]
            lengths = sequences.lengths
            for k in range(max(len(parts), len(lengths))):
                if k >= len(parts) or k >= len(lengths) or len(parts[k]) != lengths[k]:
                    given = len(parts[k]) if k < len(parts) else "no"
                    rows = int(lengths[k]) if k < len(lengths) else "no"
                    raise DataError(f"y[{k}] has {given} labels, and the sequence {rows} rows; give one for each.")
            return label_array(np.concatenate(parts), "event").values
        if y is not None:
            raise CarouselError("y goes with arrays; of a table name the target column.")
        if sequences.target is None:
            return np.full(count, np.nan)
        return sequences.given(label_column(sequences.target, "event", sequences.source).values)

    def _choose_threshold(self, valid: Any) -> None:
        pair = isinstance(valid, tuple)
        sequences, labels = self.read_labelled(*(valid if pair else (valid,)), source="valid")
        if not labels.any():
            raise DataError("valid: no row is labelled as an anomaly, so no threshold can be chosen; leave it out.")
        threshold = best_threshold(self.scored(sequences).score, labels)
        config = self._fitted()
        head = dataclasses.replace(config.head, threshold=threshold)
        self._keep(dataclasses.replace(config, head=head), self._weights)
        self.provenance_["metrics"]["threshold_chosen_on_rows"] = len(labels)

    def _found(self, X: Any, source: str | None) -> tuple[Sequences, Scores]:
        sequences = self.read(X, source=source or ("data" if is_frame(X) else "X"))
        return sequences, self.scored(sequences)
