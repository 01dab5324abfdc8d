"""How good are labels of texts and of words? The field's metrics beside baselines, and the trust report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.errors import CarouselError, DataError
from carousel.heads.classify import probabilities
from carousel.inputs.corpus import Corpus
from carousel.label_baselines import bag_of_words, commonest, most_frequent
from carousel.sequences import outputs
from carousel.spans import span_scores, spans_of
from carousel.text_tagging import intents_of, read_tags
from carousel.trust.leaks import CHECKS, Audit, Finding
from carousel.trust.metrics import Scores, binary_scores, class_scores, number_scores, spread
from carousel.trust.remembered import with_remembered
from carousel.trust.report import Split, Trust, balance_of, calibration_of
from carousel.trust.tables import MODEL, SequenceEvaluation

__all__ = ["TextSide", "evaluate_labels"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FOLDS = 5


@dataclass(frozen=True)
class TextSide:
    """Texts with their labels `values`: of texts [B] or words [N], NaN where unknown; and `intent` [B] or None."""

    corpus: Corpus
    values: Floats
    intent: Floats | None = None

    def select(self, which: Ints) -> TextSide:
        """The texts `which`."""
        corpus = self.corpus
        kept = np.zeros(len(corpus.ids), bool)
        kept[which] = True
        parts = np.repeat(kept, corpus.lengths)
        offsets = np.concatenate([[0], np.cumsum(corpus.lengths[kept])]).astype(np.int64)
        words = tuple(word for word, k in zip(corpus.parts, parts.tolist(), strict=True) if k)
        ids = [name for name, k in zip(corpus.ids, kept.tolist(), strict=True) if k]
        made = Corpus(corpus.roles, corpus.form, ids, words, offsets, corpus.line[parts], corpus.source)
        return TextSide(made, self.values[parts], None if self.intent is None else self.intent[kept])

    @property
    def texts(self) -> list[str]:
        return [" ".join(self.corpus.words(k)) for k in range(len(self.corpus.ids))]


def evaluate_labels(
    model: Any,
    data: Any,
    y: Any = None,
    *,
    labels: Any = None,
    train: Any = None,
    train_y: Any = None,
    train_labels: Any = None,
    source: str = "data",
    train_source: str = "train",
) -> SequenceEvaluation:
    """Compare a Classifier or Tagger of texts with baselines on texts that it was not trained on.

    As `evaluate_sequences.evaluate`; without `train` baselines are cross-validated within `data`. Baselines are the
    commonest label, words counted and weighted with logistic regression (of texts and intents), and the label that each
    word mostly has (of words). The audit looks for texts that are in both parts. Raises DataError for faults of the
    data, such as a label that training did not have.
    """
    if train is None and (train_y is not None or train_labels is not None):
        raise CarouselError("train_y and train_labels are about the training texts; give train as well.")
    config, head = model.config_, model.config_.head
    test = _side(model, data, y, labels, source, "labels")
    if not np.isfinite(test.values).any():
        raise DataError(f"{source}: nothing can be scored, no label is given; give texts with their labels.")
    own = None if train is None else _side(model, train, train_y, train_labels, train_source, "train_labels")
    channels = test.corpus.made_channels(config.input)
    members = np.stack([outputs([member], channels, None, model.per_row) for member in model.model_])  # type: ignore[arg-type]
    made = _made(model, members.mean(0), test)
    rows = {MODEL: made} | _baselines(model, test, own)
    scores = {name: _scores(head, test, one) for name, one in rows.items()}
    alone = [_scores(head, test, _made(model, one, test)) for one in members]
    seeds = {name: s for name in alone[0] if (s := spread([one[name] for one in alone])) is not None}
    known = np.isfinite(test.values)
    findings = _audit(test, own)
    if own is None:
        findings = with_remembered(findings, model.provenance_.get("marks", ""), test.corpus)
    trust = Trust(
        findings,
        _split(test, own),
        {} if head.kind == "regression" else balance_of(head.classes, test.values, None if own is None else own.values),
        seeds,
        config.seeds,
        None
        if head.kind == "regression"
        else calibration_of(
            made.chance[known].argmax(1) == test.values[known],
            made.chance[known].max(1),
            float(scores[MODEL]["brier"] or 0.0),
        ),
    )
    notes = () if own is not None else (_NO_TRAIN.format(source, FOLDS),)
    return SequenceEvaluation(
        config.task, head.kind, scores, int(known.sum()), len(test.corpus.ids), trust, None, notes, True
    )


_NO_TRAIN = "The training texts were not given: baselines are cross-validated within {} ({} folds)."


@dataclass(frozen=True)
class _Made:
    """Probabilities [n, C] (or numbers [n] or [n, 1 + Q]) of texts or words, the words' labels, and intents [B, L]."""

    chance: Floats
    labels: Ints | None = None
    intent: Floats | None = None


def _side(model: Any, data: Any, y: Any, labels: Any, source: str, named: str) -> TextSide:
    head = model.config_.head
    given = {} if model.per_row else {"labels": labels, "named": named}
    own = y[0] if model.intent is not None and y is not None else y
    corpus, values = model.read_labelled(data, own, **given, source=source)
    if getattr(head, "intent", None) is None:
        return TextSide(corpus, values)
    wholes = intents_of(corpus, None if y is None else y[1])
    return TextSide(corpus, values, wholes.among(head.intent.classes, source))


def _made(model: Any, made: Floats, test: TextSide) -> _Made:
    head = model.config_.head
    if model.per_row:
        tags = read_tags(model.config_, model._weights, made, test.corpus.offsets)
        return _Made(tags.chance, tags.labels, tags.intent)
    return _Made(np.asarray(head.numbers(made)) if head.kind == "regression" else probabilities(made, head.temperature))


def _scores(head: Any, test: TextSide, made: _Made) -> Scores:
    known = np.isfinite(test.values)
    truth, chance = test.values[known], made.chance[known]
    if head.kind == "regression":
        bounds = (chance[:, 1], chance[:, -1]) if chance.ndim > 1 and chance.shape[1] > 2 else (None, None)
        return number_scores(truth, chance[:, 0] if chance.ndim > 1 else chance, *bounds)
    codes = truth.astype(np.int64)
    found = binary_scores(codes == 1, chance[:, 1]) if chance.shape[1] == 2 else class_scores(codes, chance)
    if made.labels is not None:  # a chain reads its labels out together
        found["accuracy"] = float((made.labels[known] == codes).mean())
        if any(name[:2] in ("B-", "I-") for name in head.classes) and known.all():
            found["span_f1"] = _spans(head.classes, codes, made.labels, test.corpus.offsets)
    if made.intent is not None and test.intent is not None:
        asked = np.isfinite(test.intent)
        found["intent"] = float((made.intent[asked].argmax(1) == test.intent[asked]).mean()) if asked.any() else None
    return found


def _spans(classes: tuple[str, ...], truth: Ints, made: Ints, offsets: Ints) -> float:
    names = np.array(classes, dtype=object)
    both = [[spans_of(part.tolist()) for part in np.split(names[codes], offsets[1:-1])] for codes in (truth, made)]
    return span_scores(*both)[2]


def _baselines(model: Any, test: TextSide, own: TextSide | None) -> dict[str, _Made]:
    """Fitted on the training texts; without them on the other folds of the test texts."""
    if own is not None:
        return _fitted(model, own, test)
    count = len(test.corpus.ids)
    fold = np.random.default_rng(0).permutation(count) % FOLDS
    if count < 2:
        raise DataError("one text alone cannot be cross-validated; give the training texts as `train`.")
    found: dict[str, _Made] = {}
    for k in np.unique(fold):
        inside = np.flatnonzero(fold == k)
        words = np.repeat(fold == k, test.corpus.lengths)
        for name, part in _fitted(model, test.select(np.flatnonzero(fold != k)), test.select(inside)).items():
            whole = found.setdefault(name, _empty(part, len(words), count))
            whole.chance[words] = part.chance
            if whole.labels is not None and part.labels is not None:
                whole.labels[words] = part.labels
            if whole.intent is not None and part.intent is not None:
                whole.intent[inside] = part.intent
    return found


def _empty(part: _Made, words: int, texts: int) -> _Made:
    return _Made(
        np.zeros((words, *part.chance.shape[1:])),
        None if part.labels is None else np.zeros(words, np.int64),
        None if part.intent is None else np.zeros((texts, part.intent.shape[1])),
    )


def _fitted(model: Any, train: TextSide, test: TextSide) -> dict[str, _Made]:
    head = model.config_.head
    classes = 0 if head.kind == "regression" else len(head.classes)
    known = np.isfinite(train.values)
    if not model.per_row:
        texts, truth = [t for t, k in zip(train.texts, known.tolist(), strict=True) if k], train.values[known]
        return {
            "TF-IDF + linear": _Made(bag_of_words(texts, truth, test.texts, classes)),
            "commonest": _Made(commonest(truth, len(test.values), classes)),
        }
    intents: Mapping[str, Floats | None] = dict.fromkeys(("linear", "commonest"))
    if train.intent is not None:
        asked = np.isfinite(train.intent)
        texts, truth = [t for t, k in zip(train.texts, asked.tolist(), strict=True) if k], train.intent[asked]
        count = len(head.intent.classes)
        intents = {
            "linear": bag_of_words(texts, truth, test.texts, count),
            "commonest": commonest(truth, len(test.corpus.ids), count),
        }
    per_word = most_frequent(train.corpus.parts, train.values, test.corpus.parts, classes)
    flat = commonest(train.values[known], len(test.values), classes)
    return {
        "each word's commonest": _Made(per_word, per_word.argmax(1), intents["linear"]),
        "commonest": _Made(flat, flat.argmax(1), intents["commonest"]),
    }


def _audit(test: TextSide, own: TextSide | None) -> Audit:
    """Texts that are in both parts, word for word."""
    reasons = {
        "group": "texts have no groups",
        "scaler": "texts are not scaled",
        "future": "texts have no clock",
        "target": "a text is one column",
    }
    if own is None:
        return Audit((), (), reasons | {"duplicates": "the training texts were not given"})
    known = {text: k for k, text in reversed(list(enumerate(own.texts)))}
    twice = [(k, known[text]) for k, text in enumerate(test.texts) if text in known]
    findings = []
    if twice:
        b, a = twice[0]
        findings.append(
            Finding(
                "duplicates",
                "",
                f"{len(twice):,} of {len(test.texts):,} test texts are word for word in the training part (test"
                f" {test.corpus.name(b)} is training {own.corpus.name(a)}): drop them from one part.",
            )
        )
    return Audit(tuple(findings), tuple(k for k in CHECKS if k not in reasons), reasons)


def _split(test: TextSide, own: TextSide | None) -> Split:
    def counts(side: TextSide) -> dict[str, Any]:
        return {"sequences": len(side.corpus.ids), "rows": len(side.corpus.parts)}

    return Split("as given", {} if own is None else counts(own), counts(test))
