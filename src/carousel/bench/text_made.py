"""Texts that are made, on public sets: translations and language models; each with its baselines.

Each set has a function of a seed that trains once, without pretrained weights, chooses on the validation part, looks
at the test part once, and gives plain figures with CPU seconds. Times are for two cores.
"""

from __future__ import annotations

import dataclasses
import time
from statistics import fmean
from typing import Any

from carousel.bench.sets import lines_of

__all__ = ["QUICK", "SETS", "multi30k", "settings", "shakespeare", "shakespeare_3min"]

Found = dict[str, float | int | str]

QUICK = 300  # texts of a quick run, which shows that a set runs, not how good it is
HELD = 0.03  # of a training text, which stops the training
PENALTIES = (0.6, 1.0, 1.4)  # of length, one of which is chosen on the validation part


def multi30k(seed: int, *, quick: bool = False) -> Found:
    """Multi30k (Elliott et al. 2016), German to English, test2016: BLEU (sacrebleu -lc, 13a), beam 5."""
    from carousel.evaluate_texts import evaluate_pairs
    from carousel.heads.search import Beam
    from carousel.textmetrics import bleu
    from carousel.translator import Translator

    parts = [(lines_of("multi30k", f"{p}.de.gz"), lines_of("multi30k", f"{p}.en.gz")) for p in ("train", "val")]
    train, valid = ((a[:most], b[:most]) if quick else (a, b) for most, (a, b) in zip((QUICK, 30), parts, strict=True))
    test = tuple(lines_of("multi30k", f"test_2016_flickr.{s}.gz")[: 40 if quick else None] for s in ("de", "en"))
    config = settings(Translator.defaults, seed, quick, **TRANSLATION)
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

    given = {"embedding": 256, "dropout": 0.3, "layer_dropout": 0.3, "seeds": 1 if quick else 3}
    chosen = {"hidden_size": 768, "steps": 2800, "warmup": 300, "averaging": 0.998, "learning_rate": 2e-3}
    return _shakespeare(seed, quick, given, chosen | {"weight_decay": 0.05, "cell": CellSpec(weight_drop=0.4)})


def _shakespeare(seed: int, quick: bool, given: dict[str, Any], chosen: dict[str, Any]) -> Found:
    from carousel.generation import stream_of
    from carousel.generator import Generator
    from carousel.ngrams import KneserNey

    whole = "\n".join(lines_of("tinyshakespeare", "input.txt.gz")) + "\n"
    cut = int(0.9 * len(whole))
    train, test = whole[: 30 * QUICK if quick else cut], whole[cut : cut + 3 * QUICK if quick else None]
    config = settings(Generator.defaults, seed, quick, epochs=1e6, patience=0, evaluate_every=500)
    config = dataclasses.replace(config, **({} if quick else chosen))
    held = round(HELD * len(train))  # the beginning, since the test part goes on with the play that training ends in
    started = time.process_time()
    model = Generator(tokens="char", config=config, **given).fit(train[held:], valid=train[:held])
    seconds = time.process_time() - started
    words = model.config_.input.words
    known, asked = stream_of(words, [train]), stream_of(words, [test])
    grams = {n: KneserNey(known, size=words.size, order=n).nats(asked).sum() / len(test) for n in (5, 8)}
    return {
        "nats_per_character": model.perplexity(test).nats_per_character,
        "5_grams": float(grams[5]),
        "8_grams": float(grams[8]),
        "validation_nats": fmean(model.provenance_["metrics"]["validation_nats_per_token"]),
        "members": len(model.provenance_["steps"]),
        "steps": max(model.provenance_["steps"]),
        "cpu_seconds": seconds,
    }


def settings(defaults: Any, seed: int, quick: bool, **chosen: Any) -> Any:
    short = {"steps": 4, "least_steps": 4, "warmup": 1, "hidden_size": 16, "evaluate_every": 2, "batch_rows": 640}
    return dataclasses.replace(defaults, seed=seed, **({"precision": "bf16-mixed"} | chosen | (short if quick else {})))


SETS = {
    "multi30k": multi30k,
    "shakespeare_3min": shakespeare_3min,
    "shakespeare": shakespeare,
}
