"""Models of texts with labels: batches, training, saving, evaluation."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from carousel import Classifier, Tagger, TrainConfig
from carousel.config import ModelConfig
from carousel.errors import CarouselError, DataError, NotSupported
from carousel.evaluate_sequences import evaluate
from carousel.inputs.corpus import corpus_of_arrays
from carousel.inputs.roles import Roles
from carousel.inputs.tokens import TextConfig, fit_tokens
from carousel.model import members_from
from carousel.sequences import Examples
from carousel.text_task import TextTask
from carousel.tokenmodel import token_batch

GOOD, BAD = ["good", "great", "fine", "lovely", "superb"], ["bad", "awful", "poor", "dull", "weak"]
FILL = ["the", "a", "film", "plot", "was", "it", "and", "actor", "very"]
SMALL = TrainConfig(
    steps=60, hidden_size=8, bidirectional=True, learning_rate=0.02, batch_size=16, least_steps=60, evaluate_every=20
)
WORDS = TextConfig("word", 200, fewest=1, width=12)


def _texts(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    found = []
    for k in range(count):
        words = list(rng.choice(FILL, rng.integers(0, 9)))
        words.insert(int(rng.integers(0, len(words) + 1)), rng.choice(GOOD if k % 2 else BAD))
        found.append(" ".join(words))
    return found, ["pos" if k % 2 else "neg" for k in range(count)]


def _tags(texts: list[str]) -> list[list[str]]:
    return [["B-w" if word in GOOD + BAD else "O" for word in text.split()] for text in texts]


def _task(kind: str = "word", count: int = 40, **more: Any) -> TextTask:
    texts, labels = _texts(count)
    corpus = corpus_of_arrays(texts, words=False)
    given = TextConfig(kind, 300, merges=more.pop("merges", 0.0))
    seen = fit_tokens(texts, given, form="texts", roles=Roles())
    from carousel.config import StackConfig
    from carousel.heads.classify import ClassifyHead

    config = ModelConfig("classify", seen, StackConfig(4), ClassifyHead("label", "max", classes=("neg", "pos")))
    truth = np.array([float(label == "pos") for label in labels])
    everything = np.arange(count)
    examples = Examples(corpus.made_channels(seen), truth, np.ones(count), everything, everything[:0])  # type: ignore[arg-type]
    return TextTask(config, examples, dataclasses.replace(SMALL, **more), corpus=corpus, hidden=given)


def test_batches_hold_so_many_texts_or_tokens_and_each_text_as_often() -> None:
    task = _task(batch_rows=30, batch_size=8)
    rng, counts = np.random.default_rng(0), np.zeros(40)
    for _ in range(900):
        which, start, stop = task._draw(rng)
        assert start is None
        assert stop is None
        assert len(set(which.tolist())) == len(which) <= 8
        assert task.lengths[which].sum() <= 30 or len(which) == 1
        counts[which] += 1
    assert counts.min() > 0.6 * counts.mean()
    assert counts.max() < 1.5 * counts.mean()
    again = [_task(batch_rows=30, batch_size=8)._draw(np.random.default_rng(5))[0].tolist() for _ in range(2)]
    assert again[0] == again[1]


def test_merges_are_dropped_anew_in_each_batch_and_never_when_judging() -> None:
    task, rng = _task("bpe", merges=0.5), np.random.default_rng(0)
    plain = task.config.input.channels(task.corpus.parts, task.corpus.offsets)
    which = np.array([3, 4])
    made = [task._batch_of(which, None, None, torch.device("cpu"), merges=0.5).seen.values for _ in range(3)]
    words = task.config.input.words
    assert len({tuple(part.values.tolist()) for part in made}) > 1
    for part in made:
        texts = words.decode([part[k].tolist() for k in range(2)])
        assert texts == [task.corpus.parts[k] for k in which]
    judged = task._batch_of(which, None, None, torch.device("cpu")).seen.values
    assert judged.values.tolist() == plain.select(which)[0].ids.tolist()
    assert len(task.batch(rng, torch.device("cpu")).truth) == SMALL.batch_size


def test_pieces_of_long_texts() -> None:
    task = _task(crop=3)
    which, start, stop = task._draw(np.random.default_rng(1))
    assert start is not None
    assert stop is not None
    batch = task._batch_of(which, start, stop, torch.device("cpu"))
    assert batch.seen.values.lengths.max() == 3
    whole = task.examples_.channels.select(which)[0]
    for k in range(len(which)):
        own = whole.ids[whole.offsets[k] : whole.offsets[k + 1]]
        assert batch.seen.values[k].tolist() == own[start[k] : stop[k]].tolist()


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_sentiment_is_learned_saved_and_evaluated(kind: str, tmp_path: Path) -> None:
    texts, labels = _texts(120)
    table = pl.DataFrame({"n": range(120), "review": texts, "label": labels})
    words = WORDS if kind == "word" else TextConfig("bpe", 300, width=12, merges=0.1)
    model = Classifier("label", id="n", text="review", words=words, config=SMALL).fit(table)
    others, truth = _texts(60, seed=9)
    fresh = pl.DataFrame({"n": range(60), "review": others, "label": truth})
    assert model.score(fresh) > 0.9
    made = model.predict(fresh)
    assert made.columns == ["n", "prediction", "p_neg", "p_pos"]
    assert made["n"].to_list() == list(range(60))
    np.testing.assert_allclose(made["p_neg"] + made["p_pos"], 1.0)
    assert isinstance(model.predict(fresh.to_pandas()), pd.DataFrame)
    model.save(tmp_path / "m.safetensors")
    again = Classifier.load(tmp_path / "m.safetensors")
    assert again.predict(fresh).equals(made)
    assert again.words == words
    assert again.text == "review"
    assert again.predict(others[:3]).tolist() == made["prediction"][:3].to_list()
    found = evaluate(again, fresh, train=table)
    assert found.of("LSTM")["accuracy"] == pytest.approx(again.score(fresh))
    assert set(found.rows) == {"LSTM", "TF-IDF + linear", "commonest"}
    assert found.of("commonest")["accuracy"] == pytest.approx(0.5)
    shared = {" ".join(text.split()) for text in texts} & set(others)
    assert any("of 60 test texts are word for word" in f.sentence for f in found.trust.audit.findings) == bool(shared)
    without = evaluate(again, fresh)
    assert "cross-validated" in without.notes[0]


def test_a_label_seen_only_at_evaluation_is_named() -> None:
    texts, labels = _texts(24)
    table = pl.DataFrame({"review": texts, "label": labels})
    model = Classifier("label", text="review", words=WORDS, config=dataclasses.replace(SMALL, steps=2)).fit(table)
    odd = table.with_columns(label=pl.Series(["neutral", *labels[1:]]))
    with pytest.raises(DataError, match="'neutral' was not among those of training"):
        model.score(odd)
    with pytest.raises(DataError, match="there is no column 'review'"):
        model.predict(table.rename({"review": "text"}))
    with pytest.raises(DataError, match=r"X\[1\]"):
        model.predict(["good", ""])


def test_sorted_and_shuffled_files_are_split_alike() -> None:
    texts, labels = _texts(60)
    order = np.argsort(labels, kind="stable")
    shuffled = np.random.default_rng(1).permutation(60)
    shares = []
    for rows in (order, shuffled):
        own = [labels[k] for k in rows]
        model = Classifier(words=WORDS, config=dataclasses.replace(SMALL, steps=1, refit=False))
        seen: list[Examples] = []
        make = model._text_task

        def spy(corpus: Any, make: Any = make, seen: list[Examples] = seen) -> Any:
            def task(config: Any, examples: Examples, settings: Any) -> Any:
                seen.append(examples)
                return make(corpus)(config, examples, settings)

            return task

        model._text_task = spy  # type: ignore[method-assign]
        model.fit([texts[k] for k in rows], own)
        found = np.array(own)
        parts = (seen[0].training, seen[0].held_out)
        shares.append([int((found[part] == name).sum()) for part in parts for name in ("neg", "pos")])
    assert shares[0] == shares[1] == [24, 24, 6, 6]


def test_numbers_are_learned_of_texts() -> None:
    texts, labels = _texts(80)
    stars = [5.0 if label == "pos" else 1.0 for label in labels]
    model = Classifier(kind="regression", words=WORDS, config=SMALL).fit(texts, stars)
    assert model.score(*_numbers()) > 0.8


def _numbers() -> tuple[list[str], list[float]]:
    texts, labels = _texts(40, seed=4)
    return texts, [5.0 if label == "pos" else 1.0 for label in labels]


@pytest.mark.parametrize("form", ["cells", "rows", "lists"])
@pytest.mark.parametrize("crf", [False, True])
def test_slots_and_intent_are_learned_in_one_go(form: str, crf: bool, tmp_path: Path) -> None:
    texts, intents = _texts(100)
    tags = _tags(texts)
    words = dataclasses.replace(WORDS, spelling=3) if crf else TextConfig("bpe", 300, width=12)
    given: dict[str, Any] = {"words": words, "crf": crf, "intent": "what", "config": SMALL}
    lengths = [len(part) for part in tags]
    if form == "lists":
        model = Tagger(**given).fit([text.split() for text in texts], (tags, intents))
        made = model.predict([text.split() for text in texts])
        assert all(intent in ("neg", "pos") for _, intent in made)
        assert [len(part) for part, _ in made] == lengths
        assert model.score([text.split() for text in texts], tags) > 0.95
        return
    if form == "cells":
        table = pl.DataFrame({"t": texts, "g": [" ".join(part) for part in tags], "what": intents})
        model = Tagger("g", text="t", **given).fit(table)
        assert model.predict(table).columns == ["prediction", "intent", "intent_neg", "intent_pos"]
        assert [len(cell.split()) for cell in model.predict(table)["prediction"]] == lengths
    else:
        flat = {"s": np.repeat(np.arange(100), lengths), "what": np.repeat(intents, lengths)}
        flat |= {"t": np.array(" ".join(texts).split()), "g": np.concatenate([np.array(part) for part in tags])}
        table = pl.DataFrame(flat)
        model = Tagger("g", id="s", text="t", **given).fit(table)
        made = model.predict(table)
        assert made.columns == ["s", "prediction", "p_B-w", "p_O", "intent", "intent_neg", "intent_pos"]
        assert len(made) == sum(lengths)
        np.testing.assert_allclose(made["p_B-w"] + made["p_O"], 1.0)
    found = evaluate(model, table, train=table)
    assert found.of("LSTM")["span_f1"] > 0.95  # type: ignore[operator]
    assert found.of("LSTM")["intent"] > 0.9  # type: ignore[operator]
    assert found.main == ("span_f1", True)
    model.save(tmp_path / "m.safetensors")
    again = Tagger.load(tmp_path / "m.safetensors")
    assert again.predict(table).equals(model.predict(table))
    assert (again.crf, again.intent, again.words) == (crf, "what", words)


def test_words_without_a_label_are_not_learned_from() -> None:
    texts, _ = _texts(60)
    tags = [[None if k % 3 == 2 else tag for k, tag in enumerate(part)] for part in _tags(texts)]
    for crf in (False, True):
        model = Tagger(words=WORDS, crf=crf, config=SMALL).fit([text.split() for text in texts], tags)
        assert model.classes_.tolist() == ["B-w", "O"]
        assert model.score([text.split() for text in texts], _tags(texts)) > 0.9


def test_members_of_an_ensemble_share_a_chain() -> None:
    texts, _ = _texts(40)
    model = Tagger(words=WORDS, crf=True, seeds=2, config=dataclasses.replace(SMALL, steps=5))
    model.fit([text.split() for text in texts], _tags(texts))
    corpus = model.read([text.split() for text in texts])
    one = dataclasses.replace(model.config_, seeds=1)
    each = []
    for k in ("0.", "1."):
        own = {"0." + name[2:]: weight for name, weight in model._weights.items() if name.startswith(k)}
        each.append(members_from(one, own))
    batch = token_batch(corpus.made_channels(model.config_.input))  # type: ignore[arg-type]
    with torch.no_grad():
        mean = sum(net[0](batch).double() for net in each) / 2
    np.testing.assert_allclose(model.outputs(corpus), mean.numpy(), atol=1e-6)


def test_training_is_taken_up_again_bit_for_bit(tmp_path: Path) -> None:
    texts, labels = _texts(40)
    config = dataclasses.replace(SMALL, steps=20, refit=False, checkpoint_every=10)
    words = TextConfig("bpe", 300, width=8, merges=0.2, word_dropout=0.1)
    whole = Classifier(words=dataclasses.replace(words, merges=0.0), config=config).fit(texts, labels)

    class Stop(Exception):
        pass

    def stop(event: Any) -> None:
        if event.step == 15:
            raise Stop

    place = tmp_path / "c"
    model = Classifier(words=dataclasses.replace(words, merges=0.0), config=config)
    with pytest.raises(Stop):
        model.fit(texts, labels, checkpoint=place, progress=stop)
    model.fit(texts, labels, checkpoint=place, resume=True)
    for name, weight in whole._weights.items():
        np.testing.assert_array_equal(weight, model._weights[name])


def test_pretrained_vectors_are_taken_and_frozen_ones_kept(tmp_path: Path) -> None:
    texts, labels = _texts(40)
    path = tmp_path / "v.txt"
    rng = np.random.default_rng(0)
    own = {word: rng.normal(size=5).round(3) for word in GOOD}
    path.write_text("".join(f"{w} {' '.join(map(str, v))}\n" for w, v in own.items()), encoding="utf-8")
    words = TextConfig("word", 200, fewest=1, vectors=str(path), frozen=True)
    model = Classifier(words=words, config=dataclasses.replace(SMALL, steps=10)).fit(texts, labels)
    table, names = model._weights["0.input.embed.weight"], model.config_.input.words.tokens
    assert model.config_.input.width == 5
    for word, vector in own.items():
        np.testing.assert_allclose(table[names.index(word)], vector, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Classifier(text="t", time="u"), "time is not about texts"),
        (lambda: Classifier(text="t", words=3), "words must be a TextConfig"),
        (lambda: Tagger(crf=True), "crf and intent are about words"),
        (lambda: Tagger(words=WORDS, crf=True, class_weight="balanced"), "a chain no class_weight"),
        (lambda: Tagger(words=WORDS, kind="regression"), "words have labels"),
        (lambda: Tagger(words=WORDS, config=dataclasses.replace(SMALL, crop=5)), "crop is about texts"),
    ],
)
def test_parameters_that_do_not_go_together(make: Any, message: str) -> None:
    model = make()
    texts, labels = _texts(12)
    given = ([text.split() for text in texts], _tags(texts)) if isinstance(model, Tagger) else (texts, labels)
    with pytest.raises(CarouselError, match=message):
        model.fit(*given)


def test_streams_and_exports_refuse_texts(tmp_path: Path) -> None:
    from carousel import Stream
    from carousel.export import write

    texts, labels = _texts(24)
    model = Classifier(words=WORDS, config=dataclasses.replace(SMALL, steps=2, bidirectional=False)).fit(texts, labels)
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(CarouselError, match="text"):
        Stream(tmp_path / "m.safetensors")
    for form in ("onnx", "c"):
        with pytest.raises(NotSupported, match="text"):
            write(tmp_path / "m.safetensors", form, tmp_path / "x.onnx" if form == "onnx" else tmp_path / "x")


def test_trees_of_sentiment_give_every_phrase_its_label() -> None:
    from carousel.bench.text_labels import _nodes

    found = _nodes("(3 (2 It) (4 (2 \\/) (4 WORKS)))")
    assert found == [(2, "it"), (2, "/"), (4, "works"), (4, "/ works"), (3, "it / works")]


@pytest.mark.parametrize("name", ["snips", "ud_ewt", "sst2"])
def test_public_sets_run(name: str) -> None:
    from carousel.bench.text_labels import SETS

    if not os.environ.get("CAROUSEL_DATA"):
        pytest.skip("CAROUSEL_DATA does not lead to the public sets of texts")
    found = SETS[name](0, quick=True)
    assert found["steps"] == 20
    assert all(np.isfinite(value) for value in found.values())
