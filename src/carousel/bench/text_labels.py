"""Labelled texts on public sets by their own protocols: sentiment, slots with intents, parts of speech.

Each set has a function of a seed that trains once, without pretrained weights, chooses on the validation part, looks
at the test part once, and gives plain figures with CPU seconds. Baselines stand beside them.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from carousel.bench.sets import lines_of
from carousel.label_baselines import bag_of_words, most_frequent
from carousel.spans import span_scores, spans_of

__all__ = ["SETS", "imdb", "snips", "sst2", "ud_ewt"]

Found = dict[str, float | int | str]
Run = Callable[..., Found]

QUICK = 400  # texts of a quick run, which shows that a set runs, not how good it is


def snips(seed: int, *, quick: bool = False) -> Found:
    """SNIPS (Coucke et al. 2018), the usual split: F1 of slots and accuracy of intents of 700 test utterances."""
    from carousel import Tagger

    parts = {name: _snips(name, quick) for name in ("train", "valid", "test")}
    words = dataclasses.replace(Tagger.words_defaults, lowercase=True)
    config = _settings(Tagger.text_defaults, seed, quick, evaluate_every=200, steps=8000, epochs=20)
    started = time.process_time()
    model = Tagger(words=words, intent="intent", crf=True, config=config)
    model.fit(parts["train"][0], parts["train"][1:], valid=(parts["valid"][0], parts["valid"][1:]))
    seconds = time.process_time() - started
    made = model.predict(parts["test"][0])
    found = _spans(parts["test"][1], [labels for labels, _ in made])
    intents = np.array([intent for _, intent in made])
    baseline = _per_word(parts["train"], parts["test"])
    return {
        "slot_f1": found,
        "intent_accuracy": 100 * float((intents == np.array(parts["test"][2])).mean()),
        "tfidf_intent_accuracy": _counted(
            [" ".join(text) for text in parts["train"][0]],
            parts["train"][2],
            [" ".join(text) for text in parts["test"][0]],
            parts["test"][2],
        ),
        "most_frequent_slot_f1": _spans(parts["test"][1], baseline),
        "validation_intent_accuracy": 100 * _metric(model, "validation_intent_accuracy"),
        "steps": int(model.provenance_["steps"][0]),
        "cpu_seconds": seconds,
    }


def ud_ewt(seed: int, *, quick: bool = False) -> Found:
    """UD English EWT (Silveira et al. 2014): accuracy of universal parts of speech, by the words of the test part."""
    from carousel import Tagger

    parts = {name: _ud(name, quick) for name in ("train", "dev", "test")}
    words = dataclasses.replace(Tagger.words_defaults, lowercase=True)
    config = _settings(Tagger.text_defaults, seed, quick, evaluate_every=200, steps=8000, epochs=5)
    started = time.process_time()
    model = Tagger(words=words, config=config).fit(*parts["train"], valid=parts["dev"])
    seconds = time.process_time() - started
    usual = [tag for tags in _per_word(parts["train"], parts["test"]) for tag in tags]
    right = np.array(usual) == np.array([tag for tags in parts["test"][1] for tag in tags])
    return {
        "accuracy": 100 * model.score(*parts["test"]),
        "most_frequent_accuracy": 100 * float(right.mean()),
        "validation_accuracy": 100 * _metric(model, "validation_accuracy"),
        "steps": int(model.provenance_["steps"][0]),
        "cpu_seconds": seconds,
    }


def sst2(seed: int, *, quick: bool = False) -> Found:
    """SST-2 (Socher et al. 2013): accuracy on the 1,821 test sentences, trained on all labelled phrases."""
    from carousel import Classifier, TextConfig

    train, dev, test = _phrases("train", quick), _roots("dev"), _roots("test")
    config = _settings(Classifier.text_defaults, seed, quick, evaluate_every=200, steps=1400)
    words = TextConfig("word", 20_000, fewest=1, spelling=8, word_dropout=0.1, input_dropout=0.3)
    return _classify(Classifier(words=words, config=config), train, dev, test)


def imdb(seed: int, *, quick: bool = False) -> Found:
    """IMDb reviews (Maas et al. 2011): accuracy on the 25,000 test reviews; a tenth of the others is held out."""
    from carousel import Classifier, TextConfig

    texts, labels = _imdb("train", quick)
    order = np.random.default_rng([seed, 0x1D]).permutation(len(texts))
    cut = len(texts) // 10
    held, kept = order[:cut], order[cut:]
    train = ([texts[k] for k in kept], [labels[k] for k in kept])
    dev = ([texts[k] for k in held], [labels[k] for k in held])
    config = _settings(
        Classifier.text_defaults, seed, quick, crop=200, learning_rate=3e-3, evaluate_every=200, steps=4000, epochs=5
    )
    words = TextConfig("bpe", 16_000, lowercase=True, word_dropout=0.1, input_dropout=0.3)
    members = 1 if quick else 3
    return _classify(Classifier(words=words, seeds=members, config=config), train, dev, _imdb("test", quick))


SETS: dict[str, Run] = {"snips": snips, "sst2": sst2, "ud_ewt": ud_ewt, "imdb": imdb}


def _classify(model: Any, train: Any, dev: Any, test: Any) -> Found:
    started = time.process_time()
    model.fit(*train, valid=dev)
    seconds = time.process_time() - started
    return {
        "accuracy": 100 * model.score(*test),
        "tfidf_accuracy": _counted(*train, *test),
        "validation_accuracy": 100 * _metric(model, "validation_accuracy"),
        "steps": int(model.provenance_["steps"][0]),
        "cpu_seconds": seconds,
    }


def _settings(defaults: Any, seed: int, quick: bool, **chosen: Any) -> Any:
    short = {"steps": 20, "least_steps": 20, "warmup": 5, "hidden_size": 16} if quick else {}
    return dataclasses.replace(defaults, seed=seed, **(chosen | short))


def _metric(model: Any, name: str) -> float:
    return float(model.provenance_["metrics"][name])


def _spans(truth: list[list[str]], made: list[Any]) -> float:
    return 100 * span_scores([spans_of(t) for t in truth], [spans_of(list(m)) for m in made])[2]


def _per_word(train: Any, test: Any) -> list[list[str]]:
    """Of each word the label that it mostly has in training."""
    classes, codes = np.unique([tag for tags in train[1] for tag in tags], return_inverse=True)
    flat = [[word for text in part[0] for word in text] for part in (train, test)]
    made = classes[most_frequent(flat[0], codes.astype(np.float64), flat[1], len(classes)).argmax(1)]
    return [part.tolist() for part in np.split(made, np.cumsum([len(text) for text in test[0]])[:-1])]


def _counted(texts: list[str], labels: list[Any], others: list[str], truth: list[Any]) -> float:
    """Words counted and weighted, and logistic regression (per cent right)."""
    classes, codes = np.unique(labels, return_inverse=True)
    made = classes[bag_of_words(texts, codes.astype(np.float64), others, len(classes)).argmax(1)]
    return 100 * float((made == np.array(truth)).mean())


def _snips(part: str, quick: bool) -> tuple[list[list[str]], list[list[str]], list[str]]:
    columns = [lines_of("nlu", f"snips.{part}.{kind}.gz") for kind in ("seq.in", "seq.out", "label")]
    words, slots = ([line.split() for line in lines] for lines in columns[:2])
    stop = QUICK if quick else None
    return words[:stop], slots[:stop], [line.strip() for line in columns[2]][:stop]


def _ud(part: str, quick: bool) -> tuple[list[list[str]], list[list[str]]]:
    texts: list[list[str]] = []
    tags: list[list[str]] = []
    for block in "\n".join(lines_of("ud_ewt", f"{part}.tsv.gz")).split("\n\n"):
        rows = [line.split("\t") for line in block.split("\n") if line]
        if rows:
            texts.append([row[0] for row in rows])
            tags.append([row[1] for row in rows])
    stop = QUICK if quick else None
    return texts[:stop], tags[:stop]


def _roots(part: str) -> tuple[list[str], list[int]]:
    """The sentences with a sentiment, lower-cased, 1 where it is good."""
    return _unzip([_nodes(line)[-1] for line in lines_of("sent_cls", f"sst_trees.{part}.txt.gz")])


def _phrases(part: str, quick: bool) -> tuple[list[str], list[int]]:
    """All different phrases of the trees with a sentiment."""
    lines = lines_of("sent_cls", f"sst_trees.{part}.txt.gz")[: QUICK if quick else None]
    return _unzip(list(dict.fromkeys(node for line in lines for node in _nodes(line))))


def _unzip(nodes: list[tuple[int, str]]) -> tuple[list[str], list[int]]:
    kept = [(text, int(label > 2)) for label, text in nodes if label != 2]
    return [text for text, _ in kept], [label for _, label in kept]


def _nodes(tree: str) -> list[tuple[int, str]]:
    """Label and text of every node of "(3 (2 It) (4 works))", the whole sentence last."""
    found: list[tuple[int, str]] = []
    stack: list[tuple[int, list[str]]] = []
    for token in re.findall(r"\((\d)|([^()\s]+)|(\))", tree):
        if token[0]:
            stack.append((int(token[0]), []))
        elif token[1]:
            stack[-1][1].append(token[1].replace("\\/", "/").replace("\\*", "*").lower())
        else:
            label, words = stack.pop()
            found.append((label, " ".join(words)))
            if stack:
                stack[-1][1].extend(words)
    return found


def _imdb(part: str, quick: bool) -> tuple[list[str], list[int]]:
    rows = [line.split("\t") for line in lines_of("imdb", f"{part}.tsv.xz")]
    rows = rows[:: len(rows) // QUICK] if quick else rows
    return [row[3].replace("<br />", " ") for row in rows], [int(row[0]) for row in rows]
