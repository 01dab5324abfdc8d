"""Replies on public dialogues, beside n-grams, the reply to the most similar context, and people."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np

from carousel.bench.sets import lines_of
from carousel.bench.text_made import QUICK, settings

__all__ = ["SETS", "daily_dialogue", "dialogue"]

Found = dict[str, float | int | str]
Dialogues = list[list[str]]
Pairs = tuple[list[str], list[str]]

STOPPING = 2000  # pairs of the validation part that stop the training
CONTEXTS = 1000  # of the test part that replies are made to
SHARE = 20  # one dialogue in so many is for validation, and as many are for the test
WORD = re.compile(r"\w+(?:'\w+)*|[^\w\s]")
CONVERSATION: dict[str, Any] = {
    "steps": 6000,
    "epochs": 1e6,
    "batch_rows": 2048,
    "evaluate_every": 500,
    "averaging": 0.997,
}


def dialogue(seed: int, *, quick: bool = False) -> Found:
    """Self-dialogue corpus (Fainberg et al. 2018), a twentieth of its dialogues for the test, without replies that
    follow the same turn in training: perplexity per word of replies, and the variety of replies to 1,000 contexts."""
    lines = lines_of("self_dialogue", "dialogues.tsv.xz")
    rows = [line.lower().replace("’", "'").split("\t")[1:] for line in lines]
    found = _distinct([[" ".join(WORD.findall(turn)) for turn in turns] for turns in rows])
    found = [found[k] for k in np.random.default_rng(0).permutation(len(found))[: QUICK if quick else None]]
    part = len(found) // SHARE
    chosen = {"learning_rate": 2.5e-3, "dropout": 0.1}
    return _measured(found[2 * part :], found[part : 2 * part], found[:part], seed, quick, turns=2, **chosen)


def daily_dialogue(seed: int, *, quick: bool = False) -> Found:
    """DailyDialog (Li et al. 2017) without the dialogues and replies of its test part that are in training too:
    perplexity per word of replies to three turns, and the variety of replies to 1,000 test contexts."""
    from carousel.inputs.dialogues import turns_of

    train, valid, test = (
        _distinct([turns_of(line.lower()) for line in lines_of("dailydialog", f"dialogues_{part}.txt.gz")])
        for part in ("train", "validation", "test")
    )
    most = QUICK if quick else None
    return _measured(train[:most], valid[:most], test[:most], seed, quick, turns=3, learning_rate=1.5e-3)


def _measured(
    train: Dialogues, valid: Dialogues, test: Dialogues, seed: int, quick: bool, *, turns: int, **chosen: Any
) -> Found:
    from carousel.evaluate_texts import ngram_perplexity, variety
    from carousel.inputs.dialogues import pairs_of
    from carousel.inputs.text import UNKNOWN
    from carousel.text_baselines import Retrieval, commonest
    from carousel.textmetrics import bleu
    from carousel.translator import Translator

    known = pairs_of(train, turns)
    held, asked = (_unseen(pairs_of(part, turns), known) for part in (valid, test))
    some = np.random.default_rng(0).permutation(len(held[0]))[:STOPPING]
    config = settings(Translator.defaults, seed, quick, **CONVERSATION, **chosen)
    model = Translator(
        tokens="word", vocabulary=12_000, merges=0.0, smoothing=0.0, turns=turns, embedding=256, config=config
    )
    started = time.process_time()
    model.fit(train, valid=tuple([side[k] for k in some] for side in held))
    seconds = time.process_time() - started
    # all turns of training, the first ones too, each after the one before it
    grams = ngram_perplexity(model.config_.input.out, [turn for turns in train for turn in turns], asked[1])
    perplexity = model.perplexity(*asked).per_word
    which = np.random.default_rng(0).permutation(len(asked[0]))[: 20 if quick else CONTEXTS]
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
        "validation_nats": model.provenance_["metrics"]["validation_nats_per_token"][0],
        "test_pairs": len(asked[0]),
        "steps": model.provenance_["steps"][0],
        "cpu_seconds": seconds,
    }


def _distinct(dialogues: Dialogues) -> Dialogues:
    """Those of two turns or more without empty ones, each once."""
    return [list(turns) for turns in dict.fromkeys(map(tuple, dialogues)) if len(turns) > 1 and all(turns)]


def _unseen(pairs: Pairs, known: Pairs) -> Pairs:
    """Pairs of which the last turn and its reply are not in training."""

    def last(side: Pairs) -> list[tuple[str, str]]:
        return [(context.split("\n")[-1], reply) for context, reply in zip(*side, strict=True)]

    seen = set(last(known))
    kept = [k for k, pair in enumerate(last(pairs)) if pair not in seen]
    return [pairs[0][k] for k in kept], [pairs[1][k] for k in kept]


SETS = {"dialogue": dialogue, "daily_dialogue": daily_dialogue}
