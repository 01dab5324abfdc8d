"""`Tagger`: a label, a number, or an early warning for each row of a sequence."""

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
from carousel.heads.classify import class_values, probabilities
from carousel.heads.slots import SlotHead
from carousel.heads.tag import TagHead, choose_threshold, event_labels, event_probability
from carousel.inputs.answers import per_array, row_table
from carousel.inputs.clock import DAY, parse_span
from carousel.inputs.corpus import Corpus
from carousel.inputs.frames import Frames
from carousel.inputs.holdout import FEWEST, Split, last_rows, split_since, spread_over
from carousel.inputs.labels import Labels, label_array, label_column
from carousel.inputs.rows import Sequences, channels
from carousel.inputs.tokens import TextConfig
from carousel.sequence_estimator import SequenceEstimator, is_frame
from carousel.sequences import Examples, train_sequences
from carousel.text_estimator import TAG_TEXTS, WORDS_OF_TAGS
from carousel.text_tagging import fit_tags, labels_of, predict_tags, read_tags
from carousel.train import Progress, TrainConfig
from carousel.trust.remembered import marks
from carousel.trust.warnings import warning_report

__all__ = ["Tagger"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

DAY_OF_NUMBERS = 1000.0  # alarms of a clock of numbers are counted by so many of its units


class Tagger(SequenceEstimator):
    """A label for each row, or a number with `kind="regression"`, or with `event` and `ahead` an early warning.

    Causal: what is said of a row depends on that row and those before it. Columns by role as in `Classifier`; `target`
    holds the label of each row (null: not known, and not learned). `event` is a column that is 1 while an event lasts
    and 0 otherwise; the warning is the probability that one begins within `ahead` ("6h", "30min", "2d", or a number in
    the units of a clock of numbers) after the row. Rows during an event, and rows whose sequence ends within `ahead`
    without one, are not learned. The alarm's threshold is chosen on held-out rows: with `cost`, the cost of a missed
    row in false alarms, least cost; with `precision`, the most alarms of which that share is right; else the best F1.

    Of texts `text` names the column of words, one in each row or separated by blanks, `words` how they are read
    (`TextConfig`), `intent` the column of a label of the whole text, `crf` a chain of labels. Of clips `frames` names
    their column; each frame has a label.

    Held out are whole sequences at random where there are ten or more, else the last rows of each sequence.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.normal(size=(rng.integers(5, 9), 1)) for _ in range(40)]
    >>> y = [(x[:, 0] > 0).astype(int) for x in X]
    >>> model = Tagger(config=TrainConfig(steps=60, hidden_size=8, learning_rate=0.02)).fit(X, y)
    >>> model.predict([np.array([[2.0], [-2.0], [2.0]])])[0].tolist()
    [1, 0, 1]
    """

    task = "tag"
    per_row = True
    defaults: ClassVar[TrainConfig] = TrainConfig(
        batch_size=32, steps=2000, epochs=40, evaluate_every=25, patience=12, dropout=0.1, averaging=0.98, width=0
    )
    warning_defaults: ClassVar[TrainConfig] = TrainConfig(
        hidden_size=16,
        width=32,
        dropout=0.2,
        batch_size=128,
        crop=64,
        steps=800,
        least_steps=800,
        warmup=30,
        learning_rate=5e-3,
        evaluate_every=25,
        patience=12,
        averaging=0.98,
    )
    frame_defaults: ClassVar[TrainConfig] = TrainConfig(
        batch_size=16,
        batch_rows=512,
        crop=64,
        steps=1500,
        epochs=60,
        learning_rate=1e-3,
        evaluate_every=25,
        patience=12,
        averaging=0.98,
        width=0,
        dropout=0.2,
    )
    text_defaults: ClassVar[TrainConfig] = TAG_TEXTS
    words_defaults: ClassVar[TextConfig] = WORDS_OF_TAGS
    _parameters = (
        "target",
        "event",
        "ahead",
        "id",
        "time",
        "features",
        "static",
        "categorical",
        "long",
        "frames",
        "text",
        "words",
        "intent",
        "crf",
        "kind",
        "cost",
        "precision",
        "class_weight",
        "quantiles",
        "seeds",
        "config",
    )

    def __init__(
        self,
        target: str | None = None,
        *,
        event: str | None = None,
        ahead: str | float | None = None,
        id: str | None = None,
        time: str | None = None,
        features: Sequence[str] | None = None,
        static: Sequence[str] = (),
        categorical: Sequence[str] = (),
        long: Sequence[str] | None = None,
        frames: str | Frames | None = None,
        text: str | None = None,
        words: TextConfig | None = None,
        intent: str | None = None,
        crf: bool = False,
        kind: Literal["label", "regression"] = "label",
        cost: float | None = None,
        precision: float | None = None,
        class_weight: Literal["balanced"] | Mapping[Any, float] | None = None,
        quantiles: Sequence[float] = (0.05, 0.95),
        seeds: int = 1,
        config: TrainConfig | None = None,
    ) -> None:
        self.target = target
        self.event = event
        self.ahead = ahead
        self.id = id
        self.time = time
        self.features = features
        self.static = static
        self.categorical = categorical
        self.long = long
        self.frames = frames
        self.text = text
        self.words = words
        self.intent = intent
        self.crf = crf
        self.kind = kind
        self.cost = cost
        self.precision = precision
        self.class_weight = class_weight
        self.quantiles = quantiles
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
        """Learn from a table, or from arrays `X` with `y`: for each sequence an array [T].

        `valid` brings what is to be held out: a table of other sequences or of later rows of the same, or (X, y).
        `checkpoint` and `resume`: see `carousel.train.train`. Raises DataError for faults of the data: fewer than two
        classes, no row with a label, no event to learn from; CarouselError for parameters out of range.
        """
        self._check_parameters()
        source = source or ("data" if is_frame(X) else "X")
        column = self.event or self.target
        sequences, y, since = self._read_with_valid(X, y, valid, column, source)
        if isinstance(sequences, Corpus):
            more = {"checkpoint": checkpoint, "resume": resume, "progress": progress}
            made = {"versions": versions()} | self._parameters_to_keep()
            fit_tags(self, sequences, y, since, versions=made, **more)
            return self
        ahead = self._ahead(sequences)
        truth = self._truth(sequences, y, ahead)
        event = self._given(sequences, y, "event").values if ahead else None
        self._refuse_unlearnable(sequences, truth, event)
        split = self._split(sequences, truth, since)

        def prepare(all_of_it: bool) -> tuple[ModelConfig, Examples]:
            part = Split(np.arange(len(sequences.ids)), split.held_out[:0]) if all_of_it else split
            config = self._configure(sequences, truth, part)
            head: TagHead = config.head
            target = (truth.values - head.mean) / head.scale if head.kind == "regression" else truth.values
            return config, Examples(channels(sequences, config.input), target, self._class_weights(truth), *part)

        trained = train_sequences(
            prepare,
            lambda config, examples, made: self._calibrate(config, examples, made, sequences, event),
            self.settings,
            refit=valid is None and self.settings.refit and len(split.held_out) > 0,
            checkpoint=None if checkpoint is None else Path(checkpoint),
            resume=resume,
            progress=progress,
        )
        made = {"versions": versions(), "train": to_json(self.settings)} | self._parameters_to_keep()
        self.provenance_ = made | trained.provenance | {"marks": marks(sequences)}
        if sequences.backend is not None and sequences.roles.time is not None:
            self.provenance_["until"] = float(sequences.time.max())
        if event is not None:
            self.provenance_["learned"] = {
                "before an event": int((truth.values == 1).sum()),
                "not before one": int((truth.values == 0).sum()),
                "left out": int(np.isnan(truth.values).sum()),
            }
        self._keep(trained.config, trained.weights)
        return self

    def predict(self, X: Any, *, source: str | None = None) -> Any:
        """Of arrays: for each sequence an array [T]. Of a table: one of the same kind, a row for each of its rows in
        their order (of a table of events for each id and time, sorted).

        Columns: id and time, then `prediction` with `p_<class>` or quantiles, or `probability` and `alarm` of a
        warning. Raises DataError where columns or channels differ from training.
        """
        source = source or ("data" if is_frame(X) else "X")
        sequences = self.read(X, source=source)
        if isinstance(sequences, Corpus):
            return predict_tags(self, sequences)
        found = self._read_out(self.outputs(sequences))
        if sequences.backend is None:
            return per_array(next(iter(found.values())) if "alarm" not in found else found["alarm"], sequences, X)
        return row_table(sequences, found)

    def _predict_proba(self, X: Any, *, source: str | None = None) -> Any:
        sequences = self.read(X, source=source or ("data" if is_frame(X) else "X"))
        found = self.proba_at(sequences)
        if sequences.backend is None:
            return per_array(found, sequences, X)
        made = np.empty_like(found)
        made[sequences.row - 1] = found
        return made

    def proba_at(self, sequences: Sequences) -> Floats:
        """Probabilities [N, K] of the rows of sequences that `read` gave, in the sequences' order; of a warning those
        of no onset and of an onset."""
        head: TagHead = self._fitted().head
        if head.kind == "regression":
            raise CarouselError("a model of numbers has no probabilities; its predictions have quantiles.")
        made = self.outputs(sequences)
        if isinstance(head, SlotHead):
            return read_tags(self._fitted(), self._weights, made, sequences.offsets).chance
        if head.kind == "label":
            return probabilities(made, head.temperature)
        chance = event_probability(made, head.temperature)
        return np.stack([1 - chance, chance], 1)

    def score(self, X: Any, y: Any = None, *, source: str | None = None) -> float:
        """Over all rows with a truth: accuracy of labels, R2 of numbers, average precision of a warning."""
        head: TagHead = self._fitted().head
        sequences, truth = self.read_labelled(X, y, source=source)
        made = self.outputs(sequences)
        known = np.isfinite(truth)
        if isinstance(head, SlotHead):
            tags = read_tags(self._fitted(), self._weights, made, sequences.offsets)
            return float((tags.labels == truth)[known].mean())
        truth, made = truth[known], made[known]
        if head.kind == "label":
            return float((made.argmax(1) == truth).mean())
        if head.kind == "regression":
            error = head.numbers(made)[:, 0] - truth
            return float(1 - (error**2).sum() / max(((truth - truth.mean()) ** 2).sum(), 1e-300))
        from sklearn.metrics import average_precision_score

        return float(average_precision_score(truth, made[:, 0]))

    def read_labelled(self, X: Any, y: Any = None, *, source: str | None = None) -> tuple[Sequences, Floats]:
        """The sequences, and of each row [N], in the sequences' order, its class (a place among `classes_`), its
        number, or whether an event begins within `ahead`; NaN where that is not known."""
        head: TagHead = self._fitted().head
        source = source or ("data" if is_frame(X) else "X")
        sequences = self.read(X, source=source, target=y is None)
        if isinstance(sequences, Corpus):
            return sequences, labels_of(sequences, y).among(head.classes, source)
        truth = self._truth(sequences, y, head.ahead)
        return sequences, truth.among(head.classes, source) if head.kind == "label" else truth.values

    @property
    def classes_(self) -> NDArray[Any]:
        """The labels as they were given, in the order of the probabilities."""
        head: TagHead = self._fitted().head
        return np.array([0, 1]) if head.kind == "event" else class_values(head.classes, head.type)

    @classmethod
    def _parameters_of(cls, config: ModelConfig, provenance: dict[str, Any]) -> dict[str, Any]:
        head: TagHead = config.head
        column = next(iter(config.input.roles.target), None)
        if isinstance(head, SlotHead):
            own = {"target": column, "crf": head.crf, "intent": config.input.intent}
            return super()._parameters_of(config, provenance) | own
        warns = head.kind == "event"
        more: dict[str, Any] = {"kind": "label" if warns else head.kind, "quantiles": head.quantiles}
        more |= {"event": column, "ahead": head.ahead} if warns else {"target": column}
        return super()._parameters_of(config, provenance) | more

    @property
    def settings(self) -> TrainConfig:
        """The choices of training: `config`, or the defaults of labels and numbers, or of warnings, whose events are
        few: a small network on many short pieces."""
        return self.warning_defaults if self.config is None and self.ahead is not None else super().settings

    def _kind(self) -> Literal["label", "regression", "event"]:
        return "event" if self.ahead is not None else self.kind

    def _check_parameters(self) -> None:
        if self.kind not in ("label", "regression"):
            raise CarouselError(f"kind must be label or regression, got {self.kind!r}.")
        if self.event is not None and self.target is not None:
            raise CarouselError("target and event are two tasks; name one of them.")
        if self.event is not None and self.ahead is None:
            raise CarouselError("event needs ahead, how long before it a warning counts; give it, as '6h'.")
        if self.ahead is not None and (self.kind == "regression" or self.target is not None):
            raise CarouselError("ahead is about an event; name the event, or leave ahead out.")
        for name in ("cost", "precision"):
            value = getattr(self, name)
            if value is not None and self._kind() != "event":
                raise CarouselError(f"{name} is about the alarms of an event; leave it out.")
        if self.cost is not None and self.precision is not None:
            raise CarouselError("cost and precision each choose the threshold; give one of them.")
        if self.cost is not None and not self.cost > 0:
            raise CarouselError(f"cost must be positive, got {self.cost!r}.")
        if self.precision is not None and not 0 < self.precision <= 1:
            raise CarouselError(f"precision must be within (0, 1], got {self.precision!r}.")
        self._check_class_weight(self._kind())
        if not self.of_texts and (self.crf or self.intent):
            raise CarouselError("crf and intent are about words of texts; name the column of text.")
        if self.of_texts and (self.kind != "label" or (self.crf and self.class_weight is not None)):
            raise CarouselError("words have labels, and a chain no class_weight; leave kind or class_weight out.")

    def _ahead(self, sequences: Sequences) -> float:
        """In the clock's numbers."""
        if self.ahead is None:
            return 0.0
        return parse_span(self.ahead, sequences.clock.stamps, "ahead")

    def _truth(self, sequences: Sequences, y: Any, ahead: float) -> Labels:
        """What is to be learned of each row, in the sequences' order."""
        found = self._given(sequences, y, "event" if ahead else self.kind)
        if not ahead:
            return found
        return Labels(event_labels(sequences.time, found.values, sequences.offsets, ahead))

    def _given(self, sequences: Sequences, y: Any, kind: str) -> Labels:
        """The target or event of each row, in the sequences' order."""
        if sequences.backend is None:
            return self._array_truth(sequences, y, kind)
        if y is not None:
            raise CarouselError("y goes with arrays; of a table name the target column.")
        if sequences.target is None:
            raise CarouselError("which column is to be tagged is not said; name the target, or the event.")
        given = label_column(sequences.target, kind, sequences.source)
        return dataclasses.replace(given, values=sequences.given(given.values))

    def _array_truth(self, sequences: Sequences, y: Any, kind: str) -> Labels:
        if y is None:
            raise DataError(
                "Tagger requires y to be passed, but the target y is None: give an array for each sequence."
            )
        parts = [np.asarray(part).reshape(-1) for part in y]
        if len(parts) != len(sequences.ids):
            raise DataError(f"there are {len(sequences.ids)} sequences in X and {len(parts)} in y; give one for each.")
        for k, (part, length) in enumerate(zip(parts, sequences.lengths, strict=True)):
            if len(part) != length:
                raise DataError(f"y[{k}] has {len(part)} labels, and the sequence {length} rows; give one for each.")
        return label_array(np.concatenate(parts), kind)

    def _refuse_unlearnable(self, sequences: Sequences, truth: Labels, event: Floats | None) -> None:
        known = truth.values[np.isfinite(truth.values)]
        source = sequences.source
        if not len(known) and event is not None and np.isfinite(event).any():
            if (event[np.isfinite(event)] == 1).all():
                raise DataError(
                    f"{source}: the event lasts in every row, so there is nothing to warn of; give rows without it."
                )
            raise DataError(
                f"{source}: of no row is it known whether an event begins within {self.ahead} after it; give longer"
                " sequences, or less ahead."
            )
        if not len(known):
            raise DataError(f"{source}: no row has a label that can be learned; fill in the target.")
        kind = self._kind()
        if kind == "label" and len(truth.classes) < 2:
            raise DataError(
                f"{source}: all rows have the label {truth.classes[0]!r}, one class only; give two or more."
            )
        if kind == "event" and not (known == 1).any():
            raise DataError(
                f"{source}: no row lies within {self.ahead} before the beginning of an event, so there is nothing to"
                " learn; an event in the first row cannot be warned of."
            )
        if kind == "event" and not (known == 0).any():
            raise DataError(
                f"{source}: no row without an event to come is known; give longer sequences, or less ahead."
            )

    def _split(self, sequences: Sequences, truth: Labels, since: Floats | None) -> Split:
        share, seed, ahead = self.settings.holdout, self.settings.seed, self._ahead(sequences)
        if since is not None:
            return split_since(sequences, since, ahead)
        if len(sequences.ids) < FEWEST and share:
            return split_since(sequences, last_rows(sequences, share), ahead)
        often = np.zeros(len(sequences.ids))
        if self._kind() != "regression":  # evenly over how often the rarest is seen
            rarest = truth.values == np.argmin(np.bincount(truth.values[np.isfinite(truth.values)].astype(np.int64)))
            often = np.add.reduceat(rarest.astype(np.float64), sequences.offsets[:-1])
        held_out = spread_over(often, share, seed)
        return Split(np.setdiff1d(np.arange(len(often)), held_out), held_out)

    def _configure(self, sequences: Sequences, truth: Labels, split: Split) -> ModelConfig:
        inside = np.zeros(len(sequences.ids), bool)
        inside[split.training] = True
        rows = np.repeat(inside, sequences.lengths)
        if split.learn is not None and split.judge is not None:
            rows &= ~split.judge
        seen = self._input(sequences, np.flatnonzero(rows))
        kind, settings = self._kind(), self.settings
        if kind == "label":
            head = TagHead("label", settings.width, truth.classes, truth.type)
        elif kind == "event":
            head = TagHead("event", settings.width, ahead=self._ahead(sequences))
        else:
            values = truth.values[rows & np.isfinite(truth.values)]
            spread = float(values.std()) if len(values) else 0.0
            quantiles = tuple(float(q) for q in self.quantiles)
            head = TagHead(
                "regression",
                settings.width,
                mean=float(values.mean()) if len(values) else 0.0,
                scale=spread if spread > 0 else 1.0,
                quantiles=quantiles,
                errors=(0.0,) * len(quantiles),
            )
        return ModelConfig("tag", seen, self._stack(seen), head, int(self.seeds))

    def _calibrate(
        self, config: ModelConfig, examples: Examples, made: Floats, sequences: Sequences, event: Floats | None
    ) -> tuple[TagHead, dict[str, float]]:
        head: TagHead = config.head
        inside = np.zeros(len(sequences.ids), bool)
        inside[examples.held_out] = True
        held_out = np.repeat(inside, sequences.lengths)
        if examples.judge is not None:
            held_out &= examples.judge
        judged = held_out & np.isfinite(examples.truth)
        truth, own = examples.truth[judged], made[judged]
        if head.kind == "regression":
            residuals = (truth - own[:, 0]) * head.scale
            errors = conformal_errors(residuals, head.quantiles)
            return dataclasses.replace(head, errors=errors), {"validation_rmse": float(np.sqrt((residuals**2).mean()))}
        head = dataclasses.replace(head, temperature=fit_temperature(own, truth, np.ones(len(truth))))
        if event is None:
            return head, {"validation_accuracy": float((own.argmax(1) == truth).mean())}
        chance = event_probability(own, head.temperature)
        head = dataclasses.replace(head, threshold=choose_threshold(chance, truth, self.cost, self.precision))
        alarm = held_out & (event_probability(np.nan_to_num(made), head.temperature) >= head.threshold)
        day = DAY if sequences.clock.stamps else DAY_OF_NUMBERS
        report = warning_report(sequences.time, event, alarm, sequences.offsets, head.ahead, day, held_out)
        return head, {f"validation_{name}": value for name, value in report.items()}

    def _read_out(self, made: Floats) -> dict[str, NDArray[Any]]:
        """Columns [N] in the sequences' order."""
        head: TagHead = self._fitted().head
        if head.kind == "label":
            chance = probabilities(made, head.temperature)
            found: dict[str, NDArray[Any]] = {"prediction": self.classes_[chance.argmax(1)]}
            return found | {f"p_{name}": chance[:, k] for k, name in enumerate(head.classes)}
        if head.kind == "event":
            one = event_probability(made, head.temperature)
            return {"probability": one, "alarm": head.alarms(one)}
        numbers = head.numbers(made)
        found = {"prediction": numbers[:, 0]}
        return found | {f"q{level:g}": numbers[:, 1 + k] for k, level in enumerate(head.quantiles)}
