"""Learning labels of words, with a label of the whole text in one go, and reading them out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from carousel.config import ModelConfig, to_json
from carousel.errors import CarouselError, DataError
from carousel.heads.calibration import fit_temperature
from carousel.heads.classify import ClassifyHead, Pooling, class_values, probabilities
from carousel.heads.slots import SlotHead, best_labels, marginals
from carousel.inputs.corpus import Corpus
from carousel.inputs.holdout import spread_over
from carousel.inputs.labels import Labels, label_array, label_column
from carousel.sequences import Examples, train_sequences
from carousel.text_task import chain_of
from carousel.trust.remembered import marks

__all__ = ["Tags", "fit_tags", "intents_of", "labels_of", "predict_tags", "read_tags"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
POOLING: Pooling = "max"  # of the rows of a text for its intent


@dataclasses.dataclass(frozen=True)
class Tags:
    """What a model says: of each word its label [N] (a place among the classes) and probabilities [N, K]; of each text
    the probabilities of its intent [B, L], or None."""

    labels: Ints
    chance: Floats
    intent: Floats | None


def fit_tags(model: Any, corpus: Corpus, y: Any, held: Floats | None, **given: Any) -> None:
    """Train the Tagger `model` on words with labels; `held` [B] is -inf where a text is held out, None: choose some."""
    y, wholes = y if model.intent is not None and corpus.backend is None else (y, None)
    truth = labels_of(corpus, y)
    if len(truth.classes) < 2:
        seen = repr(truth.classes[0]) if truth.classes else "none"
        raise DataError(f"{corpus.source}: all words have one label ({seen}); give words of at least two.")
    whole = intents_of(corpus, wholes) if model.intent is not None else None
    everything = np.arange(len(corpus.ids))
    held_out = _held_out(model, corpus, truth, held)
    training = np.setdiff1d(everything, held_out)

    def prepare(all_of_it: bool) -> tuple[ModelConfig, Examples]:
        part = everything if all_of_it else training
        config = _configure(model, corpus, truth, whole, part)
        return (
            config,
            Examples(
                corpus.made_channels(config.input),  # type: ignore[arg-type]
                truth.values,
                model._class_weights(truth),
                part,
                held_out[:0] if all_of_it else held_out,
                intent=None if whole is None else whole.values,
            ),
        )

    trained = train_sequences(
        prepare,
        lambda config, examples, made: _calibrate(config, examples, made, corpus),
        model.settings,
        refit=held is None and model.settings.refit and len(held_out) > 0,
        checkpoint=None if given["checkpoint"] is None else Path(given["checkpoint"]),
        resume=given["resume"],
        progress=given["progress"],
        task=model._text_task(corpus),
    )
    more = {"train": to_json(model.settings), "text": to_json(model.text_config)}
    model.provenance_ = given["versions"] | more | trained.provenance | {"marks": marks(corpus)}
    model._keep(trained.config, trained.weights)


def labels_of(corpus: Corpus, y: Any) -> Labels:
    """The label of each word [N], NaN where none is given."""
    if corpus.backend is not None:
        if y is not None:
            raise CarouselError("y goes with lists of words; of a table name the target column.")
        if corpus.target is None:
            raise CarouselError("which column holds the labels is not said; name the target.")
        return label_column(corpus.target, "label", corpus.source)
    if y is None:
        raise DataError(
            "Tagger requires y to be passed, but the target y is None: give a list of labels for each text."
        )
    parts = [list(part) for part in y]
    if len(parts) != len(corpus.ids):
        raise DataError(f"there are {len(corpus.ids)} texts in X and {len(parts)} in y; give labels for each.")
    for k, (part, length) in enumerate(zip(parts, corpus.lengths.tolist(), strict=True)):
        if len(part) != length:
            raise DataError(f"y[{k}] has {len(part)} labels, and the text {length} words; give one for each.")
    return label_array([label for part in parts for label in part], "label")


def intents_of(corpus: Corpus, given: Any) -> Labels:
    """The label of each text [B] beside those of its words."""
    if corpus.backend is not None:
        return label_column(corpus.intent, "label", corpus.source)
    found = label_array(list(given), "label", "y[1]")
    if len(found.values) != len(corpus.ids):
        raise DataError(f"there are {len(corpus.ids)} texts in X and {len(found.values)} intents; give one for each.")
    return found


def read_tags(config: ModelConfig, weights: dict[str, Any], made: Floats, offsets: Ints) -> Tags:
    """What the outputs [N, K + L] of the words say, a chain's labels being the most likely ones together."""
    head: SlotHead = config.head
    logits = made[:, : head.outputs]
    chain = chain_of(config, weights)
    if chain is None:
        chance = probabilities(logits, head.temperature)
        labels = chance.argmax(1)
    else:
        chance, labels = marginals(logits, chain, offsets), best_labels(logits, chain, offsets)
    if head.intent is None:
        return Tags(labels, chance, None)
    return Tags(labels, chance, probabilities(made[offsets[:-1], head.outputs :], head.intent.temperature))


def predict_tags(model: Any, corpus: Corpus) -> Any:
    """Of lists of words: for each text an array of labels, or (labels, intent). Of a table with a word in each row: the
    id, `prediction` and `p_<label>`; with a text in each row: `prediction`, labels separated by blanks. An intent comes
    with `intent` and `p_<intent>`."""
    config: ModelConfig = model.config_
    head: SlotHead = config.head
    tags = read_tags(config, model._weights, model.outputs(corpus), corpus.offsets)
    labels = class_values(head.classes, head.type)[tags.labels]
    parts = np.split(labels, corpus.offsets[1:-1])
    intents = None
    if head.intent is not None and tags.intent is not None:
        intents = class_values(head.intent.classes, head.intent.type)[tags.intent.argmax(1)]
    if corpus.backend is None:
        return parts if intents is None else list(zip(parts, intents.tolist(), strict=True))
    found: dict[str, Any] = {}
    if corpus.form == "rows":
        found["prediction"] = labels.tolist()
        found |= {f"p_{name}": tags.chance[:, k] for k, name in enumerate(head.classes)}
    else:
        found["prediction"] = [" ".join(map(str, part)) for part in parts]
    if head.intent is not None and tags.intent is not None and intents is not None:
        again = np.diff(corpus.offsets) if corpus.form == "rows" else 1
        found["intent"] = np.repeat(intents, again).tolist()
        found |= {f"intent_{name}": np.repeat(tags.intent[:, k], again) for k, name in enumerate(head.intent.classes)}
    columns = [] if corpus.keys is None else [corpus.keys[name] for name in corpus.keys.columns]
    columns += [nw.new_series(name, values, backend=corpus.backend) for name, values in found.items()]
    return nw.from_dict({column.name: column for column in columns}).to_native()


def _held_out(model: Any, corpus: Corpus, truth: Labels, held: Floats | None) -> Ints:
    """Texts evenly over how often the rarest label is in them; none of fewer than ten."""
    if held is not None:
        return np.flatnonzero(held < np.inf)
    share = model.settings.holdout if len(corpus.ids) >= 10 else 0.0
    counts = np.bincount(truth.values[np.isfinite(truth.values)].astype(np.int64))
    rarest = (truth.values == counts.argmin()).astype(np.float64)
    return spread_over(np.add.reduceat(rarest, corpus.offsets[:-1]), share, model.settings.seed)


def _configure(model: Any, corpus: Corpus, truth: Labels, whole: Labels | None, part: Ints) -> ModelConfig:
    inside = np.zeros(len(corpus.ids), bool)
    inside[part] = True
    seen = model._token_input(corpus, np.flatnonzero(np.repeat(inside, corpus.lengths)))
    settings = model.settings
    intent = None
    if whole is not None:
        if len(whole.classes) < 2:
            raise DataError(f"{corpus.source}: all texts have one intent; give texts of at least two.")
        intent = ClassifyHead("label", POOLING, 0, whole.classes, whole.type)
    head = SlotHead(truth.classes, bool(model.crf), intent, truth.type, settings.width)
    return ModelConfig("tag", seen, model._stack(seen), head, int(model.seeds))


def _calibrate(
    config: ModelConfig, examples: Examples, made: Floats, corpus: Corpus
) -> tuple[SlotHead, dict[str, float]]:
    head: SlotHead = config.head
    inside = np.zeros(len(corpus.ids), bool)
    inside[examples.held_out] = True
    words = np.repeat(inside, corpus.lengths) & np.isfinite(examples.truth)
    truth, own = examples.truth[words], made[words]
    metrics = {}
    if not head.crf:  # what a chain says together is judged in training
        metrics["validation_accuracy"] = float((own[:, : head.outputs].argmax(1) == truth).mean())
        logits = own[:, : head.outputs]
        head = dataclasses.replace(head, temperature=fit_temperature(logits, truth, np.ones(len(truth))))
    if head.intent is not None and examples.intent is not None:
        known = examples.held_out[np.isfinite(examples.intent[examples.held_out])]
        logits, truth = made[corpus.offsets[known], head.outputs :], examples.intent[known]
        fitted = fit_temperature(logits, truth, np.ones(len(truth)))
        head = dataclasses.replace(head, intent=dataclasses.replace(head.intent, temperature=fitted))
        metrics["validation_intent_accuracy"] = float((logits.argmax(1) == truth).mean())
    return head, metrics
