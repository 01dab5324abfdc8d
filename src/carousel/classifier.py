"""`Classifier`: one label, or one number, for each sequence."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from carousel.config import ModelConfig, to_json
from carousel.errors import CarouselError, DataError
from carousel.estimator import versions
from carousel.heads.calibration import conformal_errors, fit_temperature
from carousel.heads.classify import ClassifyHead, Pooling, class_values, probabilities
from carousel.inputs import columns
from carousel.inputs.answers import id_table
from carousel.inputs.frames import Frames
from carousel.inputs.holdout import FEWEST, spread_over
from carousel.inputs.labels import Labels, label_array, label_column, per_sequence
from carousel.inputs.rows import Sequences, channels
from carousel.inputs.tokens import TextConfig
from carousel.sequence_estimator import SequenceEstimator, is_frame
from carousel.sequences import Examples, train_sequences
from carousel.text_estimator import CLASSIFY_TEXTS, WORDS_OF_TEXTS
from carousel.train import Progress, TrainConfig
from carousel.trust.remembered import marks

__all__ = ["Classifier"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Classifier(SequenceEstimator):
    """One label for each sequence, or one number with `kind="regression"`, by an LSTM over whole ragged sequences.

    Of a table, one row per observation: `target` the column of the label, the same in all rows of a sequence (or see
    `labels` in `fit`), `id` which sequence, `time` when (None: the only timestamp column, else the order of rows),
    `features` (None: every column without a role), `static` constant in a sequence, `categorical` number columns that
    are categories, `long` the columns of variable and value in a table of events. Of arrays: `fit(X, y)` with X a list
    of arrays [T, C], or [B, T, C], or [B, T], and none of these names.

    Of texts, one in each row, `text` names their column and `words` how they are read (`TextConfig`); or fit lists of
    texts with `words` alone. Of clips `frames` names their column.

    `pooling` how rows become one: last, mean, max (usual of texts), attention; `class_weight` None, "balanced", or a
    weight for each label; `quantiles` of a number; `seeds` members of the ensemble; `config` None:
    `Classifier.defaults`, of texts `text_defaults`.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.normal(size=(rng.integers(5, 9), 2)) + k % 2 for k in range(40)]
    >>> model = Classifier(config=TrainConfig(steps=40, hidden_size=8)).fit(X, [k % 2 for k in range(40)])
    >>> model.predict([np.ones((6, 2)), np.zeros((7, 2))]).tolist()
    [1, 0]
    """

    task = "classify"
    per_row = False
    defaults: ClassVar[TrainConfig] = TrainConfig(
        batch_size=32,
        steps=2000,
        epochs=60,
        learning_rate=1.5e-3,
        evaluate_every=25,
        patience=16,
        averaging=0.98,
        width=0,
        dropout=0.4,
        hide=0.5,
        noise=0.5,
        replicate=0.5,
    )
    frame_defaults: ClassVar[TrainConfig] = TrainConfig(
        batch_size=16,
        batch_rows=512,
        steps=1500,
        epochs=60,
        learning_rate=1e-3,
        evaluate_every=25,
        patience=12,
        averaging=0.98,
        width=0,
        dropout=0.3,
        replicate=0.3,
    )
    text_defaults: ClassVar[TrainConfig] = CLASSIFY_TEXTS
    words_defaults: ClassVar[TextConfig] = WORDS_OF_TEXTS
    _parameters = (
        "target",
        "id",
        "time",
        "features",
        "static",
        "categorical",
        "long",
        "frames",
        "text",
        "words",
        "kind",
        "pooling",
        "class_weight",
        "quantiles",
        "seeds",
        "config",
    )

    def __init__(
        self,
        target: str | None = None,
        *,
        id: str | None = None,
        time: str | None = None,
        features: Sequence[str] | None = None,
        static: Sequence[str] = (),
        categorical: Sequence[str] = (),
        long: Sequence[str] | None = None,
        frames: str | Frames | None = None,
        text: str | None = None,
        words: TextConfig | None = None,
        kind: Literal["label", "regression"] = "label",
        pooling: Pooling | None = None,
        class_weight: Literal["balanced"] | Mapping[Any, float] | None = None,
        quantiles: Sequence[float] = (0.05, 0.95),
        seeds: int = 1,
        config: TrainConfig | None = None,
    ) -> None:
        self.target = target
        self.id = id
        self.time = time
        self.features = features
        self.static = static
        self.categorical = categorical
        self.long = long
        self.frames = frames
        self.text = text
        self.words = words
        self.kind = kind
        self.pooling = pooling
        self.class_weight = class_weight
        self.quantiles = quantiles
        self.seeds = seeds
        self.config = config

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        labels: Any = None,
        valid: Any = None,
        checkpoint: str | PathLike[str] | None = None,
        resume: bool = False,
        progress: Progress | None = None,
        source: str | None = None,
    ) -> Self:
        """Learn from a table, or from arrays `X` with `y` [B].

        `labels` is a table with one row per sequence (the id and the target column), where the label is no column of
        the data. A share of the sequences (`config.holdout`, of every class alike) is held out for early stopping and
        calibration, after which `config.refit` trains anew on all; or `valid` brings the sequences to hold out: a
        table, or (X, y). `checkpoint` and `resume`: see `carousel.train.train`.

        Raises DataError for faults of the data: fewer than two classes, a sequence without a label, an id both in `X`
        and `valid`; CarouselError for parameters out of range.
        """
        self._check_parameters()
        source = source or ("data" if is_frame(X) else "X")
        sequences, y, since = self._read_with_valid(X, y, valid, self.target if labels is None else None, source)
        truth = self._labels(sequences, y, labels, "label" if self.kind == "label" else "regression")
        self._refuse_unlabelled(sequences, truth)
        if self.kind == "label":
            classes = truth.classes
            if len(classes) < 2:
                raise DataError(
                    f"{source}: all sequences have the label {classes[0]!r}, one class only; give sequences of at"
                    " least two."
                )
        everything = np.arange(len(sequences.ids))
        if since is not None:
            held_out = np.flatnonzero(since < np.inf)
        else:
            share = self.settings.holdout if len(everything) >= FEWEST else 0.0
            held_out = spread_over(truth.values, share, self.settings.seed)
        training = np.setdiff1d(everything, held_out)

        def prepare(all_of_it: bool) -> tuple[ModelConfig, Examples]:
            part = everything if all_of_it else training
            config = self._configure(sequences, truth, part)
            target = truth.values if self.kind == "label" else (truth.values - config.head.mean) / config.head.scale
            return config, Examples(
                channels(sequences, config.input),
                target,
                self._class_weights(truth),
                part,
                held_out[:0] if all_of_it else held_out,
            )

        trained = train_sequences(
            prepare,
            self._calibrate,
            self.settings,
            refit=valid is None and self.settings.refit and len(held_out) > 0,
            checkpoint=None if checkpoint is None else Path(checkpoint),
            resume=resume,
            progress=progress,
            task=self._task(sequences),
        )
        made = {"versions": versions(), "train": to_json(self.settings)} | self._parameters_to_keep()
        self.provenance_ = made | trained.provenance | {"marks": marks(sequences)}
        if self.of_texts:
            self.provenance_["text"] = to_json(self.text_config)
        self._keep(trained.config, trained.weights)
        return self

    def predict(self, X: Any, *, source: str | None = None) -> Any:
        """Of arrays: labels or numbers [B]. Of a table: one of the same kind with a row per sequence, sorted by id.

        Columns: the id, `prediction`, and `p_<class>` for each class or `q0.05` and so on of a number. Raises
        DataError where columns or channels differ from training.
        """
        head: ClassifyHead = self._fitted().head
        source = source or ("data" if is_frame(X) else "X")
        sequences = self.read(X, source=source)
        made = self.outputs(sequences)
        if head.kind == "label":
            chance = probabilities(made, head.temperature)
            predicted = self.classes_[chance.argmax(1)]
            rest = {f"p_{name}": chance[:, k] for k, name in enumerate(head.classes)}
        else:
            numbers = head.numbers(made)
            predicted = numbers[:, 0]
            rest = {f"q{level:g}": numbers[:, 1 + k] for k, level in enumerate(head.quantiles)}
        if sequences.backend is None:
            return predicted
        return id_table(sequences, {"prediction": predicted.tolist()} | rest)

    def _predict_proba(self, X: Any, *, source: str | None = None) -> Floats:
        return self.proba_at(self.read(X, source=source or ("data" if is_frame(X) else "X")))

    def proba_at(self, sequences: Sequences) -> Floats:
        """Probabilities [B, K] of sequences that `read` gave; those of a table are sorted by id."""
        return probabilities(self.outputs(sequences), self._fitted().head.temperature)

    def score(self, X: Any, y: Any = None, *, labels: Any = None, source: str | None = None) -> float:
        """Accuracy of labels, R2 of numbers, as scikit-learn's `score`; without `y`, of the table's own target."""
        head: ClassifyHead = self._fitted().head
        sequences, truth = self.read_labelled(X, y, labels, source=source)
        made = self.outputs(sequences)
        if head.kind == "label":
            return float((made.argmax(1) == truth).mean())
        error = head.numbers(made)[:, 0] - truth
        return float(1 - (error**2).sum() / max(((truth - truth.mean()) ** 2).sum(), 1e-300))

    def read_labelled(
        self, X: Any, y: Any = None, labels: Any = None, *, source: str | None = None, named: str = "labels"
    ) -> tuple[Sequences, Floats]:
        """The sequences and their true classes (places among `classes_`) or numbers [B]; `named`: what errors call a
        table of labels.

        Raises DataError where a label is missing, or is none of those of training.
        """
        head: ClassifyHead = self._fitted().head
        source = source or ("data" if is_frame(X) else "X")
        sequences = self.read(X, source=source, target=y is None and labels is None)
        truth = self._labels(sequences, y, labels, head.kind, named)
        self._refuse_unlabelled(sequences, truth)
        return sequences, truth.among(head.classes, source) if head.kind == "label" else truth.values

    @property
    def classes_(self) -> NDArray[Any]:
        """The labels as they were given, in the order of the probabilities."""
        head: ClassifyHead = self._fitted().head
        return class_values(head.classes, head.type)

    @classmethod
    def _parameters_of(cls, config: ModelConfig, provenance: dict[str, Any]) -> dict[str, Any]:
        head: ClassifyHead = config.head
        more = {"kind": head.kind, "pooling": head.pooling, "quantiles": head.quantiles}
        return (
            super()._parameters_of(config, provenance) | more | {"target": next(iter(config.input.roles.target), None)}
        )

    def _check_parameters(self) -> None:
        if self.kind not in ("label", "regression"):
            raise CarouselError(f"kind must be label or regression, got {self.kind!r}.")
        if self.pooling not in (None, "last", "mean", "max", "attention"):
            raise CarouselError(f"pooling must be last, mean, max or attention, got {self.pooling!r}.")
        self._check_class_weight(self.kind)

    def _labels(self, sequences: Sequences, y: Any, labels: Any, kind: str, named: str = "labels") -> Labels:
        """The label of each sequence [B], NaN where none is given."""
        if sequences.backend is None:
            if y is None:
                raise DataError(
                    f"{type(self).__name__} requires y to be passed, but the target y is None: give one label for each"
                    " sequence."
                )
            found = label_array(y, kind)
            if len(found.values) != len(sequences.ids):
                raise DataError(
                    f"Found input variables with inconsistent numbers of samples: {sequences.source} has"
                    f" {len(sequences.ids)} sequences and y {len(found.values)} labels; give one for each."
                )
            return found
        if y is not None:
            raise CarouselError("y goes with arrays; of a table name the target column, or give a table of labels.")
        if self.target is None:
            raise CarouselError("which column is the label is not said; name the target.")
        if labels is not None:
            return joined(sequences, labels, self.target, kind, named)
        found = label_column(sequences.target, kind, sequences.source)
        in_order = Labels(sequences.given(found.values), found.classes, found.type)
        return per_sequence(in_order, sequences.offsets, sequences.row, self.target, sequences.source, sequences.ids)

    def _refuse_unlabelled(self, sequences: Sequences, truth: Labels) -> None:
        missing = np.flatnonzero(np.isnan(truth.values))
        if len(missing):
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise DataError(
                f"{sequences.source}: {sequences.name(int(missing[0]))} has no label{more} (NaN in y); give one, or"
                " leave the sequence out."
            )

    def _configure(self, sequences: Sequences, truth: Labels, part: Ints) -> ModelConfig:
        inside = np.zeros(len(sequences.ids), bool)
        inside[part] = True
        seen = self._input(sequences, np.flatnonzero(np.repeat(inside, sequences.lengths)))
        seen = dataclasses.replace(
            seen, roles=dataclasses.replace(seen.roles, target=() if self.target is None else (self.target,))
        )
        settings, pooling = self.settings, self.pooling or ("max" if self.of_texts else "last")
        if self.kind == "label":
            head = ClassifyHead("label", pooling, settings.width, truth.classes, truth.type)
        else:
            values, quantiles = truth.values[part], tuple(float(q) for q in self.quantiles)
            spread = float(values.std())
            head = ClassifyHead(
                "regression",
                pooling,
                settings.width,
                mean=float(values.mean()),
                scale=spread if spread > 0 else 1.0,
                quantiles=quantiles,
                errors=(0.0,) * len(quantiles),
            )
        return ModelConfig("classify", seen, self._stack(seen), head, int(self.seeds))

    def _calibrate(
        self, config: ModelConfig, examples: Examples, made: Floats
    ) -> tuple[ClassifyHead, dict[str, float]]:
        head: ClassifyHead = config.head
        truth, made = examples.truth[examples.held_out], made[examples.held_out]
        if head.kind == "label":
            head = dataclasses.replace(head, temperature=fit_temperature(made, truth, np.ones(len(truth))))
            return head, {"validation_accuracy": float((made.argmax(1) == truth).mean())}
        residuals = (truth - made[:, 0]) * head.scale
        errors = conformal_errors(residuals, head.quantiles)
        return dataclasses.replace(head, errors=errors), {"validation_rmse": float(np.sqrt((residuals**2).mean()))}


def joined(sequences: Sequences, labels: Any, target: str, kind: str, named: str = "labels") -> Labels:
    """The label [B] of each sequence from a table with one row per sequence, joined on the id.

    Raises DataError for an id that is labelled twice, and for a table without the two columns.
    """
    id = sequences.roles.id
    if id is None:
        raise CarouselError("a table of labels is joined on the id; name the id column.")
    table = columns.as_frame(labels, named)
    columns.require(table, (id, target), named)
    keys, row = columns.keys(table[id], named)
    if len(keys) < len(row):
        twice = int(np.flatnonzero(np.bincount(row) > 1)[0])
        raise DataError(f"{named}, column {id!r}: {keys[twice]!r} is labelled more than once; keep one row of it.")
    found = label_column(table[target], kind, named)
    place = {key: k for k, key in enumerate(keys)}
    values = np.append(found.values[np.argsort(row)], np.nan)
    at = np.array([place.get(key, len(keys)) for key in sequences.ids])
    used = values[at]
    if not found.classes:
        return Labels(used, found.classes, found.type)
    kept = np.unique(used[~np.isnan(used)]).astype(np.int64)  # classes that no sequence has are none
    renumber = np.full(len(found.classes) + 1, np.nan)
    renumber[kept] = np.arange(len(kept))
    values = renumber[np.where(np.isnan(used), len(found.classes), used).astype(np.int64)]
    return Labels(values, tuple(found.classes[k] for k in kept), found.type)
