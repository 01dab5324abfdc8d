"""`Translator` end to end on a small language that can be learned whole, and on what users get wrong."""

from __future__ import annotations

import dataclasses
import tracemalloc
from itertools import product

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from carousel import TrainConfig
from carousel.config import ModelConfig, StackConfig
from carousel.errors import CarouselError, DataError
from carousel.heads.search import Beam, Sampling
from carousel.heads.translate import TranslateHead
from carousel.inputs.text import PairInput, fit_vocabulary
from carousel.translation import Pairs, TranslationTask
from carousel.translator import Translator

WORDS = {"ein": "a", "haus": "house", "hund": "dog", "sieht": "sees", "rot": "red", "alt": "old"}
NOUNS, KINDS = ("haus", "hund"), ("rot", "alt")
PAIRS = [
    (f"ein {n} {k} sieht ein {m} {j}", f"a {WORDS[k]} {WORDS[n]} sees a {WORDS[j]} {WORDS[m]}")
    for n, k, m, j in product(NOUNS, KINDS, NOUNS, KINDS)
] + [(f"ein {n} {k}", f"a {WORDS[k]} {WORDS[n]}") for n, k in product(NOUNS, KINDS)]
SOURCES, TARGETS = [a for a, _ in PAIRS], [b for _, b in PAIRS]
CONFIG = TrainConfig(
    hidden_size=64, steps=400, least_steps=400, warmup=10, learning_rate=0.008, averaging=0.8, holdout=0.0, threads=1
)


@pytest.fixture(scope="module")
def fitted() -> Translator:
    model = Translator("de", "en", vocabulary=400, embedding=64, merges=0.0, smoothing=0.05, config=CONFIG)
    return model.fit(pl.DataFrame({"de": SOURCES, "en": TARGETS}))


def test_a_small_language_is_learned_and_survives_saving(fitted, tmp_path):
    assert fitted.translate(SOURCES) == TARGETS
    assert fitted.score(SOURCES, TARGETS) == pytest.approx(100)
    fitted.save(tmp_path / "m.safetensors")
    again = Translator.load(tmp_path / "m.safetensors")
    assert again.search(SOURCES[:5]) == fitted.search(SOURCES[:5])
    assert again.get_params() | {"vocabulary": 0} == fitted.get_params() | {"vocabulary": 0}


def test_what_is_translated_does_not_hang_on_neighbours_or_how_many_are_asked(fitted):
    texts = [*SOURCES[::3], "", "hund hund hund", "東京 Tower"]
    together = fitted.search(texts)
    assert together[len(texts) - 3] == []
    for text, found in zip(texts, together, strict=True):
        alone = fitted.search([text])[0]
        assert [t for t, _ in alone] == [t for t, _ in found]
        assert [s for _, s in alone] == pytest.approx([s for _, s in found], abs=1e-4)
    one, three = (fitted.predict(texts[:4], n_best=n) for n in (1, 3))
    assert three.filter(pl.col("rank") == 1).drop("score").equals(one.drop("score"))
    assert three["rank"].to_list() == [1, 2, 3] * 4
    greedy = fitted.translate(texts[:4], beam=Beam(1))
    drawn = fitted.search(texts[:4], sampling=Sampling(temperature=0))
    assert [found[0][0] for found in drawn] == greedy


def test_tables_come_back_in_their_kind_and_order(fitted):
    for kind in (pl.DataFrame, pd.DataFrame):
        table = fitted.predict(kind({"de": SOURCES[:3], "more": [1, 2, 3]}))
        assert isinstance(table, kind)
        assert list(table.columns) == ["source", "rank", "score", "prediction"]
        assert list(table["source"]) == SOURCES[:3]
        assert list(table["prediction"]) == TARGETS[:3]


def test_answers_can_be_steered(fitted):
    asked = [SOURCES[0]] * 2
    begun = fitted.search(asked, prefixes=["a dog", "a red"])
    assert all(text.startswith("a dog") for text, _ in begun[0])
    assert all(text.startswith("a red") for text, _ in begun[1])
    assert all("red" not in text.split() for text, _ in fitted.search(asked, banned=["red"])[0])
    seeds = [fitted.search(SOURCES, sampling=Sampling(temperature=3.0), seed=s) for s in (1, 1, 2)]
    assert seeds[0] == seeds[1] != seeds[2]
    back = fitted.search(SOURCES[::-1], sampling=Sampling(temperature=3.0), seed=1)[::-1]
    alone = [fitted.search([text], sampling=Sampling(temperature=3.0), seed=1)[0] for text in SOURCES[:5]]
    for made in (back, alone):
        assert [[text for text, _ in one] for one in made] == [[t for t, _ in one] for one in seeds[0][: len(made)]]
    long = "a dog " * 40
    assert fitted.search(asked[:1], prefixes=[long])[0][0][0].startswith(long.strip())
    assert fitted.predict([]).shape == (0, 4)


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        ({"prefixes": ["a"]}, "there are 2 texts and 1 prefixes; give one for each"),
        ({"longest": float("nan")}, "longest must be positive and at most 1000, got nan"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_options_of_a_search_out_of_range_are_refused(fitted, ask, sentence):
    with pytest.raises(CarouselError, match=sentence):
        fitted.search(SOURCES[:2], **ask)


def test_texts_too_long_for_attention_are_refused(fitted, monkeypatch):
    monkeypatch.setattr("carousel.translation.MOST", 12)
    long = "a b c d " * 4
    with pytest.raises(DataError, match=r"^new, text 2: it has 29 tokens, at most 12 are read at once; split it"):
        fitted.predict([SOURCES[0], long], source="new")
    with pytest.raises(DataError, match=r"^data: the text that begins with 'a b c d a b c d a b ' has 29 tokens"):
        fitted.perplexity([SOURCES[0], SOURCES[1]], [TARGETS[0], long])
    with pytest.raises(DataError, match=r"^pairs.tsv: the text that begins with 'a b c d a b c d a b ' has 16 tokens"):
        Translator(tokens="word", merges=0.0, config=CONFIG).fit([*SOURCES, long], [*TARGETS, "a"], source="pairs.tsv")
    with pytest.raises(DataError, match=r"^valid: the text that begins with 'a b c d a b c d a b ' has 16 tokens"):
        Translator(tokens="word", merges=0.0, config=CONFIG).fit(SOURCES, TARGETS, valid=([long], ["a"]))


def test_texts_that_are_none_are_refused(fitted):
    with pytest.raises(DataError, match=r"^text 2: expected a text, got NoneType"):
        fitted.translate(["a", None])
    with pytest.raises(DataError, match=r"^ask.txt, text 2 has 1,048,577 characters"):
        fitted.predict(["a", "b" * (2**20 + 1)], source="ask.txt")


def test_texts_are_held_out_by_their_source_however_long_they_are():
    owners = ["x" * 100_000] + [str(k % 50) for k in range(200)]
    config = TrainConfig(holdout=0.3)
    tracemalloc.start()
    held = Translator._hold_out(owners, config)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**20
    assert {o for o, h in zip(owners, held, strict=True) if h}.isdisjoint(
        {o for o, h in zip(owners, held, strict=True) if not h}
    )
    assert 0 < held.sum() < len(owners)


def test_an_interrupted_training_goes_on_as_it_would_have(tmp_path):
    config = TrainConfig(hidden_size=8, steps=12, least_steps=12, warmup=2, holdout=0.2, checkpoint_every=5)

    def made(config: TrainConfig, **options) -> Translator:
        model = Translator(tokens="word", merges=0.0, embedding=8, seeds=2, config=config)
        return model.fit(SOURCES, TARGETS, **options)

    whole = made(config)

    class StopError(Exception):
        pass

    def stop(event):
        if event.member == 1 and event.step == 7:
            raise StopError

    place = tmp_path / "c"
    with pytest.raises(StopError):
        made(config, checkpoint=place, progress=stop)
    resumed = made(config, checkpoint=place, resume=True)
    assert resumed.search(SOURCES[:4]) == whole.search(SOURCES[:4])
    with pytest.raises(CarouselError, match="its data or columns differ"):
        Translator(tokens="word", merges=0.0, embedding=8, seeds=2, config=config).fit(
            TARGETS, SOURCES, checkpoint=place, resume=True
        )


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Translator().fit(["a", "b"], ["c"]), "2 sources and 1 targets"),
        (lambda: Translator().fit(["a", " "], ["c", "d"]), "row 2, column 'source': there is no text"),
        (
            lambda: Translator().fit(["a", "b" * (2**20 + 1)], ["c", "d"]),
            "row 2, column 'source': the text has 1,048,577 characters, at most 1,048,576 are taken at once",
        ),
        (lambda: Translator().fit(pl.DataFrame({"source": ["a"], "tagret": ["b"]})), "did you mean 'tagret'"),
        (lambda: Translator().fit(pl.DataFrame({"source": ["a"], "target": [1]})), "column 'target': Int64 is no text"),
        (lambda: Translator(vocabulary=100).fit(["a"], ["b"]), "size of at least 260.*correct the vocabulary"),
        (lambda: Translator(tokens="char").fit(["a"], ["b"]), "merges are of tokens='bpe', not of 'char'"),
        (lambda: Translator(smoothing=1.0).fit(["a"], ["b"]), "smoothing is out of range"),
        (lambda: Translator(config=TrainConfig(hidden_size=9)).fit(["a"] * 4, ["b"] * 4), "hidden_size is even"),
        (lambda: Translator().translate(["a"]), "not fitted yet"),
    ],
)
def test_mistakes_are_named(make, sentence):
    with pytest.raises(CarouselError, match=sentence):
        make()


def test_n_best_is_within_the_beam(fitted):
    with pytest.raises(CarouselError, match="between 1 and the beam's size 5, got 6"):
        fitted.predict(["ein"], n_best=6)
    with pytest.raises(DataError, match="text 1 has"):
        fitted.translate(["a" * (2**20 + 1)])


def test_dropped_merges_are_seen_in_training():
    given = PairInput(("a", "b"), fit_vocabulary(SOURCES + TARGETS, size=400))
    config = ModelConfig("translate", given, StackConfig(4), TranslateHead(embedding=4))

    def rows(merges: float) -> int:
        task = TranslationTask(config, Pairs.of(given, SOURCES, TARGETS), None, CONFIG, smoothing=0, merges=merges)
        return len(task.batch(np.random.default_rng(0), torch.device("cpu")).truth)

    assert rows(0.5) > rows(0.0) == sum(len(ids) + 1 for ids in given.out.encode(TARGETS))


@pytest.mark.parametrize(("most", "least"), [(4096, 0.8), (4, 0.3)])
def test_long_and_short_pairs_are_drawn_as_well(most, least):
    texts = [" ".join("ab"[k % 2] for k in range(n)) for n in range(1, 41)]
    given = PairInput(("a", "b"), fit_vocabulary(texts, kind="word", size=10))
    config = ModelConfig("translate", given, StackConfig(4), TranslateHead(embedding=4))
    settings = dataclasses.replace(CONFIG, batch_rows=120, batch_size=most)
    task = TranslationTask(config, Pairs.of(given, texts, texts), None, settings, smoothing=0, merges=0)
    rng, counts = np.random.default_rng(0), np.zeros(40)
    for _ in range(6000):
        which = task._draw(rng)
        assert len(set(which.tolist())) == len(which) <= most
        counts[which] += 1
    assert counts.min() > least * counts.mean()
