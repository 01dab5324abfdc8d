"""Texts that are made, on public sets: translations, language models, replies; each with its baselines.

Each set has a function of a seed that trains once, without pretrained weights, chooses on the validation part, looks
at the test part once, and gives plain figures with CPU seconds. Times are for two cores.
"""

from __future__ import annotations

import dataclasses
import gzip
import time
from typing import Any

import numpy as np

from carousel.bench.sets import folder

__all__ = ["SETS", "dialogue", "multi30k", "shakespeare", "shakespeare_3min"]

Found = dict[str, float | int | str]

QUICK = 300  # texts of a quick run, which shows that a set runs, not how good it is
PENALTIES = (0.6, 1.0, 1.4)  # of length, one of which is chosen on the validation part
STOPPING = 2000  # pairs of the validation part that stop the training on dialogues
CONTEXTS = 1000  # of the test part that replies are made to
UNKNOWN = "<unk>"


def multi30k(seed: int, *, quick: bool = False) -> Found:
    """Multi30k (Elliott et al. 2016), German to English, test2016: BLEU (sacrebleu -lc, 13a), beam 5."""
    from carousel.evaluate_texts import evaluate_pairs
    from carousel.heads.search import Beam
    from carousel.textmetrics import bleu
    from carousel.translator import Translator

    parts = [(_lines("multi30k", f"{p}.de.gz"), _lines("multi30k", f"{p}.en.gz")) for p in ("train", "val")]
    train, valid = ((a[:most], b[:most]) if quick else (a, b) for most, (a, b) in zip((QUICK, 30), parts, strict=True))
    test = tuple(_lines("multi30k", f"test_2016_flickr.{s}.gz")[: 40 if quick else None] for s in ("de", "en"))
    config = _settings(Translator.defaults, seed, quick, **TRANSLATION)
    started = time.process_time()
    model = Translator(lowercase=True, vocabulary=500 if quick else 6000, seeds=1 if quick else MEMBERS, config=config)
    model.fit(*train, valid=valid)
    fitted = time.process_time() - started
    tried = {p: bleu(model.translate(valid[0], beam=Beam(5, p)), valid[1], lowercase=True).score for p in PENALTIES}
    chosen = max(tried, key=lambda p: tried[p])
    started = time.process_time()
    model.translate(test[0], beam=Beam(5, chosen))
    decoding = time.process_time() - started
    found = evaluate_pairs(model, *test, train=train[0], train_y=train[1], beam=Beam(5, chosen))
    return {
        "BLEU": found.rows["LSTM"]["BLEU"],
        "BLEU_from": found.intervals["BLEU"][0],
        "BLEU_to": found.intervals["BLEU"][1],
        "chrF": found.rows["LSTM"]["chrF"],
        "phrase_by_phrase_BLEU": found.rows["phrase by phrase"]["BLEU"],
        "word_by_word_BLEU": found.rows["word by word"]["BLEU"],
        "copy_BLEU": found.rows["copy"]["BLEU"],
        "validation_BLEU": tried[chosen],
        "length_penalty": chosen,
        "decoding_cpu_seconds": decoding * 1000 / len(test[0]),
        "signature": next(note for note in found.notes if note.startswith("sacrebleu")),
        "members": len(model.provenance_["steps"]),
        "steps": model.provenance_["steps"][0],
        "cpu_seconds": fitted,
    }


MEMBERS = 2
TRANSLATION: dict[str, Any] = {
    "epochs": 18.0,
    "batch_rows": 1280,  # many small steps learn faster than few large ones
    "learning_rate": 1.5e-3,
    "evaluate_every": 500,
    "averaging": 0.997,
}


def shakespeare_3min(seed: int, *, quick: bool = False) -> Found:
    """Tiny Shakespeare, letter by letter, in 3 minutes; the last tenth is the test part, nats per character."""
    chosen = {"hidden_size": 512, "steps": 2100, "warmup": 100, "averaging": 0.99}
    return _shakespeare(seed, quick, {"embedding": 128, "dropout": 0.2}, chosen)


def shakespeare(seed: int, *, quick: bool = False) -> Found:
    """Tiny Shakespeare, letter by letter, in 30 minutes; the last tenth is the test part, nats per character."""
    from carousel.cell import CellSpec

    given = {"embedding": 256, "dropout": 0.4, "input_dropout": 0.1, "layer_dropout": 0.3}
    chosen = {"hidden_size": 768, "num_layers": 1, "steps": 8000, "cell": CellSpec(weight_drop=0.4)}
    return _shakespeare(seed, quick, given, chosen | {"warmup": 300, "learning_rate": 3e-3, "averaging": 0.998})


def _shakespeare(seed: int, quick: bool, given: dict[str, Any], chosen: dict[str, Any]) -> Found:
    from carousel.generation import stream_of
    from carousel.generator import Generator
    from carousel.ngrams import KneserNey

    whole = "\n".join(_lines("tinyshakespeare", "input.txt.gz")) + "\n"
    cut = int(0.9 * len(whole))
    train, test = whole[: 30 * QUICK if quick else cut], whole[cut : cut + 3 * QUICK if quick else None]
    config = _settings(Generator.defaults, seed, quick, epochs=1e6, holdout=0.03, patience=0, evaluate_every=500)
    config = dataclasses.replace(config, **({} if quick else chosen))
    started = time.process_time()
    model = Generator(tokens="char", config=config, **given).fit(train)
    seconds = time.process_time() - started
    words = model.config_.input.words
    known, asked = stream_of(words, [train]), stream_of(words, [test])
    grams = {n: KneserNey(known, size=words.size, order=n).nats(asked).sum() / len(test) for n in (5, 8)}
    return {
        "nats_per_character": model.perplexity(test).nats_per_character,
        "5_grams": float(grams[5]),
        "8_grams": float(grams[8]),
        "validation_nats": model.provenance_["metrics"]["validation_nats_per_token"][0],
        "steps": model.provenance_["steps"][0],
        "cpu_seconds": seconds,
    }


def dialogue(seed: int, *, quick: bool = False) -> Found:
    """DailyDialog (Li et al. 2017) without the dialogues and replies of its test part that are in training too:
    perplexity per word of replies to three turns, and the variety of replies to 1,000 test contexts."""
    from carousel.evaluate_texts import variety
    from carousel.inputs.dialogues import pairs_of
    from carousel.text_baselines import Retrieval, commonest
    from carousel.textmetrics import bleu
    from carousel.translator import Translator

    train, valid, test = (_dialogues(part, quick) for part in ("train", "validation", "test"))
    known = pairs_of(train, 3)
    held, asked = (_unseen(pairs_of(part, 3), known) for part in (valid, test))
    some = np.random.default_rng(0).permutation(len(held[0]))[:STOPPING]
    config = _settings(Translator.defaults, seed, quick, **CONVERSATION)
    model = Translator(
        tokens="word", vocabulary=12_000, merges=0.0, smoothing=0.0, turns=3, embedding=256, config=config
    )
    started = time.process_time()
    model.fit(train, valid=tuple([side[k] for k in some] for side in held))
    seconds = time.process_time() - started
    grams = _ngrams(model.config_.input.out, train, asked[1])
    perplexity = model.perplexity(*asked).per_word
    rng = np.random.default_rng(0)
    which = rng.permutation(len(asked[0]))[: 20 if quick else CONTEXTS]
    contexts, people = ([side[k] for k in which] for side in asked)
    started = time.process_time()
    made = model.reply(contexts, banned=[UNKNOWN])
    replying = time.process_time() - started
    methods = {
        "": made,
        "likeliest_": model.translate(contexts),
        "retrieval_": Retrieval(*known).reply(contexts),
    }
    found: Found = {"perplexity": perplexity, "5_grams": grams, "below_5_grams": 100 * (1 - perplexity / grams)}
    for name, texts in methods.items():
        found |= {f"{name}{figure.replace('-', '_')}": value for figure, value in variety(texts).items()}
        found[f"{name}BLEU"] = bleu(texts, people, lowercase=True).score
    return found | {
        "people_distinct_2": variety(people)["distinct-2"],
        "commonest_reply_of_training": commonest(known[1]),
        "replying_cpu_seconds": replying,
        "test_pairs": len(asked[0]),
        "steps": model.provenance_["steps"][0],
        "cpu_seconds": seconds,
    }


CONVERSATION: dict[str, Any] = {
    "steps": 6000,
    "epochs": 1e6,
    "batch_rows": 2048,
    "learning_rate": 1.5e-3,
    "evaluate_every": 500,
    "averaging": 0.997,
}


def _ngrams(words: Any, train: list[list[str]], texts: list[str]) -> float:
    """Perplexity per word of 5-grams of all turns of training, whose predecessors are those before the reply."""
    from carousel.evaluate_texts import ngram_perplexity

    return ngram_perplexity(words, [turn for turns in train for turn in turns], texts)


def _dialogues(part: str, quick: bool) -> list[list[str]]:
    from carousel.inputs.dialogues import turns_of

    found = [turns_of(line.lower()) for line in _lines("dailydialog", f"dialogues_{part}.txt.gz")]
    kept = list(dict.fromkeys(tuple(turns) for turns in found if len(turns) > 1 and all(turns)))
    return [list(turns) for turns in kept][: QUICK if quick else None]


def _unseen(pairs: tuple[list[str], list[str]], known: tuple[list[str], list[str]]) -> tuple[list[str], list[str]]:
    """Pairs of which the last turn and its reply are not in training."""

    def last(side: tuple[list[str], list[str]]) -> list[tuple[str, str]]:
        return [(context.split("\n")[-1], reply) for context, reply in zip(*side, strict=True)]

    seen = set(last(known))
    kept = [k for k, pair in enumerate(last(pairs)) if pair not in seen]
    return [pairs[0][k] for k in kept], [pairs[1][k] for k in kept]


def _settings(defaults: Any, seed: int, quick: bool, **chosen: Any) -> Any:
    short = {"steps": 4, "least_steps": 4, "warmup": 1, "hidden_size": 16, "evaluate_every": 2, "batch_rows": 640}
    return dataclasses.replace(defaults, seed=seed, **({"precision": "bf16-mixed"} | chosen | (short if quick else {})))


def _lines(name: str, file: str) -> list[str]:
    with gzip.open(folder(name) / file, "rt", encoding="utf-8", newline="\n") as lines:
        return str(lines.read()).rstrip("\n").split("\n")


SETS = {
    "multi30k": multi30k,
    "shakespeare_3min": shakespeare_3min,
    "shakespeare": shakespeare,
    "dialogue": dialogue,
}
