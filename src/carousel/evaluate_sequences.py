"""How good are labels, numbers and warnings? The field's metrics beside baselines, and the trust report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.errors import CarouselError, DataError
from carousel.evaluate_labels import evaluate_labels
from carousel.framing import summarised
from carousel.heads.classify import probabilities
from carousel.heads.tag import during, event_labels, event_probability, onsets
from carousel.inputs import columns
from carousel.inputs.frames import FramesInput
from carousel.inputs.labels import label_array, label_column
from carousel.inputs.rows import Sequences, channels
from carousel.inputs.tokens import TokenInput
from carousel.moments import read_time, rows_before
from carousel.sequences import outputs
from carousel.summaries import BASELINES, predictions, row_summaries, sequence_summaries
from carousel.trust.leaks import audit
from carousel.trust.metrics import Scores, binary_scores, class_scores, number_scores, spread
from carousel.trust.parts import Part, parts_of
from carousel.trust.remembered import with_remembered
from carousel.trust.report import Calibration, Trust, balance_of, calibration_of, split_of
from carousel.trust.scales import scalers_of
from carousel.trust.tables import MODEL, SequenceEvaluation, Warnings
from carousel.trust.warnings import Warned, alarms_within, warned

__all__ = ["Labelled", "evaluate", "score"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FOLDS = 5


@dataclass(frozen=True)
class Labelled:
    """Sequences with what is to be predicted: `values` [B] or [N], NaN where nothing is asked; of warnings the event.

    `late` are the rows from `since` on, all without it.
    """

    sequences: Sequences
    values: Floats
    late: Bools  # [N]
    event: Floats | None = None  # [N]

    @property
    def asked(self) -> Bools:
        return np.isfinite(self.values)

    @property
    def told(self) -> Bools:
        """What predictions are made of: what is asked, of warnings all rows outside events, where an alarm may ring."""
        if self.event is None:
            return self.asked
        return np.asarray(self.late & ~during(self.event, self.sequences.offsets))


def evaluate(
    model: Any,
    data: Any,
    y: Any = None,
    *,
    labels: Any = None,
    train: Any = None,
    train_y: Any = None,
    train_labels: Any = None,
    group: str | None = None,
    since: str | float | None = None,
    baselines: tuple[str, ...] = BASELINES,
    source: str = "data",
    train_source: str = "train",
) -> SequenceEvaluation:
    """Compare a fitted Classifier or Tagger with baselines on data that it was not trained on, with the trust report.

    `data`, `y` and `labels` as in its `fit`. `train` are the rows that it was trained on: baselines are fitted on them,
    and the leak audit compares both. Without them baselines are cross-validated within `data` by sequence, and the
    audit says what it could not check. `group` names a column of which no value may be in both parts (the patient of
    several stays). Of a Tagger `since` judges the rows of `data` from that time on, as the table writes times (after
    it, where it is the time of the last row of training): those before are their context, and the training rows where
    `train` is not given. Raises DataError for faults of the data.
    """
    config = model.config_
    if config.task not in ("classify", "tag"):
        raise CarouselError(f"a model of the task {config.task} is not evaluated as sequences.")
    if isinstance(config.input, TokenInput):
        if since is not None or group is not None:
            raise CarouselError("since and group are about rows with a time or an id, and the model is of texts.")
        more = {"labels": labels, "train": train, "train_y": train_y, "train_labels": train_labels}
        return evaluate_labels(model, data, y, **more, source=source, train_source=train_source)
    if isinstance(config.input, FramesInput) and (since is not None or group is not None):
        raise CarouselError("since and group are about rows with a time or a group, and the model is of clips.")
    if since is not None and (not model.per_row or y is not None):
        raise CarouselError("since is about the rows of a table with one label each; leave it out.")
    if since is not None and train is None:
        last = model.provenance_.get("until")
        train, train_source = rows_before(data, config.input.roles.time, since, source, last), source
    if train is None and (train_y is not None or train_labels is not None or group is not None):
        raise CarouselError("train_y, train_labels and group are about the training rows; give train as well.")
    test = _labelled(model, data, y, labels, "labels", source)
    if since is not None:
        first = read_time(since, test.sequences.clock, "since")
        early = (test.sequences.time < first) | (
            (test.sequences.time == first) & (first == model.provenance_.get("until"))
        )
        test = replace(test, values=np.where(early, np.nan, test.values), late=~early)
    own = None if train is None else _labelled(model, train, train_y, train_labels, "train_labels", train_source)
    if not test.asked.any():
        raise DataError(f"{source}: nothing can be scored, no label is given; give rows with their labels.")
    both = [test] if own is None else [test, own]
    classes = getattr(config.head, "classes", ())
    parts = parts_of([one.sequences for one in both], [one.values for one in both], classes)
    part, learned = parts[0], None if own is None else (_unlike(parts[1], own), own)
    members = _members(model, test)
    made = {MODEL: _read_out(config.head, members.mean(0))}
    made |= _baselines(config.head, part, test, learned, model.per_row, baselines)
    truth, asked = test.values[test.asked], test.asked[test.told]
    scores = {name: score(config.head, truth, p[asked]) for name, p in made.items()}
    judged, judged_train = _asked(model, part, test), learned and _asked(model, *learned)
    findings = audit(
        judged,
        judged_train,
        scaled=None if learned is None else (learned[0], part.where(test.late)),
        coming=_coming(*(learned or (part, test))),
        per_sequence=not model.per_row,
        scalers=scalers_of(config.input),
        ids=test.sequences.backend is not None,
        group=None if group is None else _groups(model, data, train, group, since, source, train_source),
    )
    if own is None:
        findings = with_remembered(findings, model.provenance_.get("marks", ""), test.sequences)
    trust = Trust(
        findings,
        split_of(judged_train, judged),
        _balance(config.head, test, own),
        _seeds(config.head, truth, members[:, asked]),
        config.seeds,
        _calibration(config.head, truth, made[MODEL][asked], scores[MODEL]),
        _coverage(config.head, scores[MODEL]),
    )
    notes = (
        []
        if own is not None
        else [f"The training rows were not given: baselines are cross-validated within {source} ({FOLDS} folds)."]
    )
    return SequenceEvaluation(
        config.task,
        config.head.kind,
        scores,
        len(truth),
        len(part.ids),
        trust,
        _warnings(config.head, test, part, made),
        tuple(notes),
    )


def score(head: Any, truth: Floats, made: Floats) -> Scores:
    """Metrics of predictions [n, C], of warnings [n, 2], of numbers [n] or [n, 1 + Q] with quantiles."""
    if head.kind == "regression":
        point = made[:, 0] if made.ndim > 1 else made
        bounds = (made[:, 1], made[:, -1]) if made.ndim > 1 and made.shape[1] > 2 else (None, None)
        return number_scores(truth, point, *bounds)
    if made.shape[1] == 2:
        return binary_scores(truth == 1, made[:, 1], getattr(head, "threshold", 0.5))
    return class_scores(truth.astype(np.int64), made)


def _labelled(model: Any, data: Any, y: Any, labels: Any, named: str, source: str) -> Labelled:
    head = model.config_.head
    if head.kind != "event":
        given = {} if model.per_row else {"labels": labels, "named": named}
        sequences, values = model.read_labelled(data, y, **given, source=source)
        return Labelled(summarised(sequences), values, np.ones(sequences.offsets[-1], bool))
    sequences, _ = model.read_labelled(data, y, source=source)
    if sequences.target is None:
        event = label_array(np.concatenate([np.asarray(part).reshape(-1) for part in y]), "event").values
    else:
        event = label_column(sequences.target, "event", source).values
        event = sequences.given(event)
    values = event_labels(sequences.time, event, sequences.offsets, head.ahead)
    return Labelled(summarised(sequences), values, np.ones(len(event), bool), event)


def _unlike(part: Part, labels: Labelled) -> Part:
    """Arrays are only counted, so that equal numbers in both parts mean nothing: training arrays get other names."""
    if labels.sequences.backend is not None:
        return part
    return replace(part, ids=np.array([f"training {name}" for name in part.ids], dtype=object))


def _asked(model: Any, part: Part, labels: Labelled) -> Part:
    """The rows whose labels are asked for; those that only lead up to them may be in both parts."""
    return part.where(labels.asked) if model.per_row else part


def _coming(part: Part, labels: Labelled) -> Part | None:
    """Of a warning all rows with the event itself: labels end where it begins, and show nothing of what comes."""
    return None if labels.event is None else replace(part, target=labels.event)


def _members(model: Any, test: Labelled) -> Floats:
    """Outputs of each member alone: [K, n, .] of `test.told`."""
    config = model.config_
    seen = channels(test.sequences, config.input)
    return np.stack([outputs([member], seen, None, model.per_row)[test.told] for member in model.model_])


def _read_out(head: Any, made: Floats) -> Floats:
    if head.kind == "regression":
        return np.asarray(head.numbers(made))
    if head.kind == "event":
        p = event_probability(made, head.temperature)
        return np.stack([1 - p, p], 1)
    return probabilities(made, head.temperature)


def _baselines(
    head: Any,
    part: Part,
    test: Labelled,
    learned: tuple[Part, Labelled] | None,
    per_row: bool,
    which: tuple[str, ...],
) -> dict[str, Floats]:
    """Fitted on the training rows; without them, on the other folds of the test sequences."""
    summarise: Callable[[Part], tuple[Floats, tuple[str, ...]]] = row_summaries if per_row else sequence_summaries
    classes = 0 if head.kind == "regression" else 2 if head.kind == "event" else len(head.classes)
    x, names = summarise(part)
    x, y = x[test.told], test.values[test.told]
    if learned is not None:
        other, labels = learned
        a = summarise(other)[0][labels.asked]
        return predictions(a, labels.values[labels.asked], x, names, part.names, classes=classes, which=which)
    owner = (part.owner if per_row else np.arange(len(part.ids)))[test.told]
    fold = np.random.default_rng(0).permutation(len(part.ids))[owner] % FOLDS
    found: dict[str, Floats] = {}
    for k in np.unique(fold):
        inside = fold == k
        learn = ~inside & np.isfinite(y)
        if not learn.any():
            raise DataError("one sequence alone cannot be cross-validated; give the training rows as `train`.")
        made = predictions(x[learn], y[learn], x[inside], names, part.names, classes=classes, which=which)
        for name, p in made.items():
            found.setdefault(name, np.zeros((len(y), *p.shape[1:])))[inside] = p
    return found


def _balance(head: Any, test: Labelled, own: Labelled | None) -> Mapping[str, tuple[float | None, float, int]]:
    if head.kind == "regression":
        return {}
    names = ("no event ahead", "event ahead") if head.kind == "event" else head.classes
    return balance_of(names, test.values, None if own is None else own.values)


def _seeds(head: Any, truth: Floats, members: Floats) -> dict[str, tuple[float, float]]:
    """Of each figure mean and deviation over the members, each taken alone."""
    alone = [score(head, truth, _read_out(head, made)) for made in members]
    found = {name: spread([one[name] for one in alone]) for name in alone[0]}
    return {name: value for name, value in found.items() if value is not None}


def _calibration(head: Any, truth: Floats, made: Floats, scores: Scores) -> Calibration | None:
    if head.kind == "regression":
        return None
    right, p = (truth == 1, made[:, 1]) if made.shape[1] == 2 else (made.argmax(1) == truth, made.max(1))
    return calibration_of(right, p, float(scores["brier"] or 0.0))


def _coverage(head: Any, scores: Scores) -> dict[str, float]:
    share = scores.get("coverage")
    if head.kind != "regression" or share is None:
        return {}
    return {f"{100 * (head.quantiles[-1] - head.quantiles[0]):g}": share}


def _warnings(head: Any, test: Labelled, part: Part, made: Mapping[str, Floats]) -> Warnings | None:
    """At the model's own threshold; the others at thresholds that give no more alarms than the model does."""
    if test.event is None:
        return None
    late, seen = test.late, part.where(test.late)
    onset, lasting = onsets(test.event, part.offsets)[late], during(test.event, part.offsets)[late]
    found: dict[str, Warned] = {}
    for name, p in made.items():
        chance = np.zeros(len(seen.time))
        chance[~lasting] = p[:, 1]
        threshold = head.threshold
        if name != MODEL:
            most = found[MODEL].alarms
            threshold = alarms_within(seen.time, chance, onset, seen.offsets, head.ahead, most, lasting)
        found[name] = warned(seen.time, onset, chance >= threshold, seen.offsets, head.ahead, lasting)
    return Warnings(head.threshold, head.ahead, part.clock.stamps, found)


def _groups(
    model: Any, data: Any, train: Any, group: str, since: str | float | None, source: str, train_source: str
) -> tuple[list[Any], list[Any]]:
    """The groups of the training rows and those of the judged rows."""
    found = []
    for frame, name, judged in ((train, train_source, False), (data, source, True)):
        table = columns.as_frame(frame, name)
        time = model.config_.input.roles.time
        columns.require(table, (group, time) if judged and since is not None else (group,), name)
        if judged and since is not None:
            when, clock = columns.times(table[time], name)
            table = table.filter((when >= read_time(since, clock, "since")).tolist())
        found.append(columns.keys(table[group], name)[0])
    return found[0], found[1]
