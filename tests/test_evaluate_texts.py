"""Made texts beside what needs no network: baselines against slow definitions, and the tables that hold both."""

from __future__ import annotations

import gzip
import json
import lzma
import math
import re
from collections import Counter

import numpy as np
import pytest

from carousel import Generator, TrainConfig, Translator, cli
from carousel.bench import text as bench
from carousel.errors import CarouselError
from carousel.evaluate_texts import TextEvaluation, evaluate_language, evaluate_pairs
from carousel.generation import stream_of
from carousel.heads.search import Beam
from carousel.ngrams import KneserNey
from carousel.phrases import LONGEST, PhraseTranslator, _grown, _phrases
from carousel.text_baselines import ROUNDS, Dictionary, Retrieval, index_words, lexicon, split_words
from carousel.textmetrics import Perplexity, bleu, bootstrap, resampled_bleu

SOURCES = ["das Haus ist klein", "das Haus", "ein Buch ist klein", "das Buch", "ein Haus", "klein"]
TARGETS = ["the house is small", "the house", "a book is small", "the book", "a house", "small"]


def slow_lexicon(given: list[list[str]], made: list[list[str]]) -> dict[tuple[str, str], float]:
    """Brown et al. 1993, in the words of the paper, with the empty word on the side of the source."""
    chance = {(f, e): 1.0 for a, b in zip(given, made, strict=True) for f in [*a, ""] for e in b}
    for _ in range(ROUNDS):
        counts, totals = Counter[tuple[str, str]](), Counter[str]()
        for a, b in zip(given, made, strict=True):
            for e in b:
                whole = sum(chance[f, e] for f in [*a, ""])
                for f in [*a, ""]:
                    counts[f, e] += chance[f, e] / whole
                    totals[f] += chance[f, e] / whole
        chance = {(f, e): count / totals[f] for (f, e), count in counts.items()}
    return chance


def test_the_dictionary_is_what_expectation_maximisation_gives():
    sources, given = index_words(split_words(text) for text in SOURCES)
    targets, made = index_words(split_words(text) for text in TARGETS)
    pairs, chance = lexicon(given, made, len(sources), len(targets))
    expected = slow_lexicon([t.split() for t in SOURCES], [t.split() for t in TARGETS])
    found = {
        (sources[key // len(targets)], targets[key % len(targets)]): p for key, p in zip(pairs, chance, strict=True)
    }
    assert found.keys() == expected.keys()
    for pair, p in expected.items():
        assert found[pair] == pytest.approx(p, abs=1e-12)
    assert Dictionary(SOURCES, TARGETS).translate(["ein Buch , klein !", "Hund"]) == ["a book, small!", "Hund"]


def test_phrases_are_those_that_agree_with_the_alignment():
    """Against the definition of Koehn et al. 2003: some link inside, none from inside to outside."""
    draw = np.random.default_rng(5)
    for _ in range(40):
        m, n = (int(k) for k in draw.integers(1, 8, 2))
        links = {(int(draw.integers(m)), int(draw.integers(n))) for _ in range(int(draw.integers(1, 7)))}
        expected = {
            (a, b, c, d)
            for a in range(m)
            for b in range(a + 1, min(a + LONGEST, m) + 1)
            for c in range(n)
            for d in range(c + 1, min(c + LONGEST, n) + 1)
            if any(a <= i < b and c <= j < d for i, j in links)
            and not any((a <= i < b) != (c <= j < d) for i, j in links)
        }
        found = list(_phrases(links, m, n))
        assert len(found) == len(set(found))
        assert set(found) == expected


def test_links_grow_from_the_intersection_within_the_union():
    sure, union = {(0, 0), (3, 3)}, {(0, 0), (1, 1), (3, 3), (3, 2), (0, 5), (2, 3)}
    assert _grown(sure, union) == {(0, 0), (1, 1), (3, 3), (3, 2), (2, 3)}


def test_phrases_move_words_within_them_and_unseen_words_are_copied():
    source = ["hat den Ball gesehen", "hat den Hund gesehen", "der Mann", "der Mann hat den Hund", "Ball"] * 3
    target = ["saw the ball", "saw the dog", "the man", "the man saw the dog", "ball"] * 3
    model = PhraseTranslator(source, target)
    assert model.translate(["der Mann hat den Ball gesehen", "", "der Mann Xaver"]) == [
        "the man saw the ball",
        "",
        "the man Xaver",
    ]


def test_retrieval_is_the_largest_cosine():
    known = ["how are you", "where do you live", "you you you", "do cats live here"]
    asked = ["where are you", "cats live", "unheard of"]
    counts = Counter(word for text in known for word in set(text.split()))

    def vector(text: str) -> dict[str, float]:
        made = {
            word: (1 + math.log(n)) * (math.log((1 + len(known)) / (1 + counts[word])) + 1)
            for word, n in Counter(text.split()).items()
            if word in counts
        }
        size = math.sqrt(sum(v * v for v in made.values())) or 1.0
        return {word: v / size for word, v in made.items()}

    expected = []
    for text in asked:
        own = vector(text)
        likeness = [sum(own.get(w, 0) * v for w, v in vector(other).items()) for other in known]
        expected.append(str(int(np.argmax(likeness))))
    assert Retrieval(known, ["0", "1", "2", "3"]).reply(asked) == expected


def test_bleu_of_texts_drawn_anew_is_bleu_of_them():
    made = ["the cat sat on the mat today", "a dog ran away from me", "no", "the end of it all is near"]
    reference = ["the cat sat on a mat today", "a dog ran off from me", "yes", "The end of all is near"]
    for lowercase in (False, True):
        score = resampled_bleu(made, reference, lowercase=lowercase)
        for which in ([0, 1, 2, 3], [3, 3, 0], [1, 2, 2, 0, 1], [2, 1], [2]):  # the last without four right in a row
            drawn = [[side[k] for k in which] for side in (made, reference)]
            assert score(which) == pytest.approx(bleu(*drawn, lowercase=lowercase).score)


def test_a_word_that_is_a_whole_text_costs_more_than_floats_hold():
    found = Perplexity.of(800.0, 400, ["字" * 400])
    assert (found.per_word, found.per_token) == (math.inf, math.exp(2.0))
    assert Perplexity.of(3.0, 2, ["  "]).per_word == math.inf
    told = TextEvaluation("generate", 1, rows={"LSTM": {"per word": math.inf, "per token": 7.5}})
    assert told.to_dict()["rows"] == {"LSTM": {"per word": None, "per token": 7.5}}


@pytest.fixture(scope="module")
def translator() -> Translator:
    config = TrainConfig(hidden_size=16, steps=5, least_steps=5, warmup=1, holdout=0.0, threads=1)
    return Translator(tokens="word", merges=0.0, embedding=8, lowercase=True, config=config).fit(SOURCES, TARGETS)


def test_translations_stand_beside_copies_and_a_dictionary(translator):
    found = evaluate_pairs(translator, SOURCES, TARGETS, train=SOURCES, train_y=TARGETS, beam=Beam(2))
    made = translator.translate(SOURCES, beam=Beam(2))
    words = Dictionary([t.lower() for t in SOURCES], TARGETS).translate([t.lower() for t in SOURCES])
    assert found.rows["LSTM"]["BLEU"] == bleu(made, TARGETS, lowercase=True).score
    assert found.rows["word by word"]["BLEU"] == bleu(words, TARGETS, lowercase=True).score > 70
    assert found.intervals["BLEU"] == bootstrap(resampled_bleu(made, TARGETS, lowercase=True), 6)
    text = found.markdown()
    assert re.search(r"\| copy \| [\d.]+ \| [\d.]+ \|", text)
    assert "case:lc" in text
    assert "- 6 texts" in text
    phrases = PhraseTranslator([t.lower() for t in SOURCES], TARGETS).translate([t.lower() for t in SOURCES])
    assert found.rows["phrase by phrase"]["BLEU"] == bleu(phrases, TARGETS, lowercase=True).score > 99
    alone = evaluate_pairs(translator, SOURCES, TARGETS)
    assert "word by word" not in alone.rows
    assert "without the pairs of training" in alone.markdown()


def test_language_models_stand_beside_n_grams():
    train, test = "the cat sat on the mat. " * 30, "the mat sat on the cat. "
    config = TrainConfig(hidden_size=8, steps=3, least_steps=3, warmup=1, batch_size=2, batch_rows=40, threads=1)
    model = Generator(tokens="char", embedding=8, config=config).fit(train)
    found = evaluate_language(model, test, train=train)
    own, grams = found.rows["LSTM"], found.rows["5-grams"]
    assert own["per character"] == model.perplexity(test).per_character
    words = model.config_.input.words
    nats = KneserNey(stream_of(words, [train]), size=words.size, order=5).nats(stream_of(words, [test])).sum()
    assert grams["nats/character"] == pytest.approx(nats / len(test))
    assert grams["per word"] == pytest.approx(math.exp(nats / 6))
    assert "5-grams" not in evaluate_language(model, test).rows


def test_models_of_text_are_evaluated_on_the_command_line(translator, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    translator.save("m.safetensors")
    for name, lines in (("a.de", SOURCES), ("a.en", TARGETS)):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    arguments = ["evaluate", "m.safetensors", "a.de", "--target-file=a.en", "--set=size=2"]
    known = ["--train=a.de", "--train-target-file=a.en"]
    assert cli.run([*arguments, *known, "--json", "--out=table.md"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"]["word by word"]["BLEU"] > 70
    assert "| word by word |" in (tmp_path / "table.md").read_text()
    for extra, sentence in (
        (["--train-target-file=a.en"], "--train-target-file needs --train"),
        (["--id=who"], "--id is about dialogues"),
        (["--set=n_best=2"], "setting n_best is not about how good texts are"),
        (["--windows=3"], "--windows is for models of forecast"),
    ):
        assert cli.run([*arguments, *extra]) == 2
        assert sentence in capsys.readouterr().err


def compressed(place, text: str, how=gzip) -> None:
    place.parent.mkdir(exist_ok=True)
    with how.open(place, "wt", encoding="utf-8") as file:
        file.write(text)


def test_the_benchmark_of_texts_runs_and_says_what_is_reached(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CAROUSEL_DATA", str(tmp_path))
    for part, lines in (("train", SOURCES * 9), ("val", SOURCES), ("test_2016_flickr", SOURCES[:3])):
        compressed(tmp_path / "multi30k" / f"{part}.de.gz", "\n".join(lines) + "\n")
        others = (TARGETS * 9)[: len(lines)]
        compressed(tmp_path / "multi30k" / f"{part}.en.gz", "\n".join(others) + "\n")
    compressed(tmp_path / "tinyshakespeare" / "input.txt.gz", "To be, or not to be:\nthat is the question.\n" * 200)
    for k, part in enumerate(("train", "validation", "test")):
        lines = [f"how are you {n}? __eou__ fine, {n + k} . __eou__ good __eou__" for n in range(12)]
        compressed(tmp_path / "dailydialog" / f"dialogues_{part}.txt.gz", "\n".join(lines) + "\n")
    asked = [f"any\tSeen film {n}?\tYes. I don’t like film {n}\tWhy?" for n in range(80)]
    compressed(tmp_path / "self_dialogue" / "dialogues.tsv.xz", "\n".join([*asked, asked[0]]) + "\n", lzma)
    sets = ["multi30k", "shakespeare_3min", "dialogue", "daily_dialogue"]
    arguments = ["bench", "text", *sets, "--quick", "--seeds=2"]
    assert cli.run([*arguments, f"--out={tmp_path / 'out'}"]) == 0
    assert "what it must: **not reached**" in capsys.readouterr().out
    for name, pairs in (("dialogue", 2 * 4), ("daily_dialogue", 24 - 10)):  # what training has too is left out
        runs = json.loads((tmp_path / "out" / f"text-{name}.json").read_text())["runs"]
        assert [run["test_pairs"] for run in runs] == [pairs, pairs]
    table = (tmp_path / "out" / "text.md").read_text()
    places = [table.index(f"### {name}\n") for name in sets]
    assert places == sorted(places)
    assert re.search(r"\| BLEU \| [\d.]+ \| [\d.]+ \| >= 34 \| >= 38.5 \|", table)
    with pytest.raises(CarouselError, match="there is no set 'multi'; choose from multi30k, shakespeare_3min"):
        bench.measure(["multi"])


def test_what_is_reached_is_judged_by_the_mean():
    one = bench.Measured("shakespeare_3min", "p", [{"nats_per_character": 1.9, "cpu_seconds": 300.0, "note": "x"}])
    assert not one.met()
    one.runs.append({"nats_per_character": 1.8, "cpu_seconds": 320.0, "note": "x"})
    assert one.met()
    assert "| nats_per_character | 1.85 | 0.071 | <= 1.88 | <= 1.75 |" in one.lines()
