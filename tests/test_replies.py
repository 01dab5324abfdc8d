"""Dialogues as pairs, contexts with marks of who speaks, replies ranked by what they say about their context."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from carousel import TrainConfig, Translator
from carousel.config import ModelConfig, StackConfig
from carousel.errors import CarouselError, DataError
from carousel.heads.search import Found, Sampling
from carousel.heads.translate import TranslateHead
from carousel.inputs.dialogues import DialogueInput, pairs_of, read_dialogues
from carousel.inputs.text import BEGIN, TURN, fit_vocabulary
from carousel.replies import Mutual
from carousel.translation import Pairs, TranslationTask, logprobs

ANSWERS = {"cats": "meow", "dogs": "woof", "cows": "moo"}
DIALOGUES = [
    [f"do you like {a}", "i do", f"and {b}", "not so much", "what do they say", f"{ANSWERS[a]} and {ANSWERS[b]}"]
    for a in ANSWERS
    for b in ANSWERS
    if a != b
]
CONFIG = TrainConfig(
    hidden_size=48, steps=700, least_steps=700, warmup=10, learning_rate=0.006, averaging=0.8, holdout=0.0, threads=1
)


@pytest.fixture(scope="module")
def fitted() -> Translator:
    return Translator(tokens="word", merges=0.0, smoothing=0.0, embedding=32, turns=5, config=CONFIG).fit(DIALOGUES)


def test_replies_follow_from_turns_long_before_and_survive_saving(fitted, tmp_path):
    asked = [dialogue[:5] for dialogue in DIALOGUES]
    expected = [dialogue[5] for dialogue in DIALOGUES]
    assert fitted.translate(asked) == expected
    assert fitted.translate(["\n".join(turns) for turns in asked]) == expected
    assert fitted.reply(asked, mutual=Mutual(weight=0.3, sampling=Sampling(temperature=0.7))) == expected
    fitted.save(tmp_path / "m.safetensors")
    again = Translator.load(tmp_path / "m.safetensors")
    assert again.get_params()["turns"] == 5
    assert isinstance(again.config_.input, DialogueInput)
    assert again.reply(asked, seed=3) == fitted.reply(asked, seed=3)
    hot = Mutual(candidates=3, sampling=Sampling(temperature=4.0))
    together = fitted.reply(asked, mutual=hot)
    assert [fitted.reply([turns], mutual=hot)[0] for turns in asked] == together
    assert fitted.reply(asked[::-1], mutual=hot)[::-1] == together
    found = fitted.perplexity(DIALOGUES)
    assert found.words == sum(len(turn.split()) for dialogue in DIALOGUES for turn in dialogue[1:])
    assert found.per_word < fitted.perplexity(["what do they say"] * 6, expected).per_word


def test_marks_say_who_speaks_and_old_turns_are_left_out():
    words = fit_vocabulary(["a b c d"], kind="word", size=20)
    given = DialogueInput(("source", "target"), words, turns=3)
    a, b, c, d = (int(words.encode([letter])[0][0]) for letter in "abcd")
    found = [ids.tolist() for ids in given.read(["a\nb a\nc\nd", "d", "", "b\n\n c c"])]
    assert found == [[TURN, b, a, BEGIN, c, TURN, d], [TURN, d], [], [BEGIN, b, TURN, c, c]]
    contexts, replies = pairs_of([["a", "b\n b", "c", "d"]], 2)
    assert contexts == ["a", "a\nb b", "b b\nc"]
    assert replies == ["b b", "c", "d"]


def test_probabilities_of_replies_are_sums_over_their_tokens(fitted):
    given, net = fitted.config_.input, fitted.model_[0]
    source = given.read(["do you like cats", "and dogs\nnot so much", "what"])
    target = given.out.encode(["i do", "", "meow and moo"])
    found = logprobs(fitted.model_ * 2, source, target)
    blank = logprobs(fitted.model_, target, target, blank=True)
    for k in range(3):
        for total, tokens in ((found[k], source[k]), (blank[k], np.zeros(0, np.int64))):
            memory = net.encode(_ragged([*tokens, 1]))
            state, log, before = memory.state, 0.0, 0
            for token in [*target[k], 1]:
                mixed, state, _ = net.advance(net.target(torch.tensor([before])), None, state, memory)
                log += float(net.logits(mixed).log_softmax(1)[0, int(token)].detach())
                before = int(token)
            assert total == pytest.approx(log, abs=1e-4)


def _ragged(ids):
    from carousel import Ragged

    return Ragged.from_list([torch.tensor([int(i) for i in ids])])


def test_reranking_prefers_what_is_likely_here_to_what_is_likely_anywhere():
    generic, own, empty = Found((5, 6), -2.0, 0), Found((7, 8), -3.0, 0), Found((), -0.1, 0)
    alone = np.array([-1.0, -9.0, -0.1])
    assert [f.tokens for f in Mutual(weight=0).ranked([generic, own, empty], alone)] == [(5, 6), (7, 8)]
    best = Mutual(weight=0.5, length_penalty=1.0).ranked([generic, own, own, empty], np.append(alone[[0, 1, 1]], 0))
    assert [f.tokens for f in best] == [(7, 8), (5, 6)]
    assert best[0].score == pytest.approx((-3.0 + 4.5) / 3)


def test_contexts_are_left_out_now_and_then_in_training():
    words = fit_vocabulary([turn for dialogue in DIALOGUES for turn in dialogue], kind="word", size=40)
    given = DialogueInput(("source", "target"), words, turns=2)
    config = ModelConfig("translate", given, StackConfig(4), TranslateHead(embedding=4))
    pairs = Pairs.of(given, *pairs_of(DIALOGUES * 30, 2))
    settings = TrainConfig(hidden_size=4, batch_rows=3000, batch_size=4000)
    task = TranslationTask(config, pairs, None, settings, smoothing=0, merges=0)
    batch = task.batch(np.random.default_rng(0), torch.device("cpu"))
    alone = (batch.source.lengths == 1).double().mean()  # the mark of the end
    assert 0.05 < float(alone) < 0.16


def test_dialogues_are_held_out_whole():
    many = [[f"{k} a", f"{k} b", f"{k} c", f"{k} d"] for k in range(20)]
    for refit, count in ((False, 14), (True, 20)):
        config = TrainConfig(hidden_size=4, steps=1, least_steps=1, holdout=0.3, refit=refit)
        model = Translator(tokens="word", merges=0.0, embedding=4, turns=2, config=config).fit(many)
        kept = {token for token in model.config_.input.source.tokens if token.isdecimal()}
        assert len(kept) == count
        assert model.provenance_["pairs"] == count * 3


def test_files_of_dialogues_are_read(tmp_path):
    place = tmp_path / "d.txt"
    place.write_text("hi\thello there\tbye\nhi __eou__ oh , you __eou__\n")
    assert read_dialogues(place) == [["hi", "hello there", "bye"], ["hi", "oh , you"]]
    for text, sentence in (
        ("a\tb\nc\n", "line 2: a dialogue has two turns at least"),
        ("a\t\tb\n", "line 1: turn 2 is empty"),
        ("a __eou__ __eou__ b __eou__\n", "line 1: turn 2 is empty"),
        ("", "the file is empty"),
    ):
        place.write_text(text)
        with pytest.raises(DataError, match=sentence):
            read_dialogues(place)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Translator(turns=-1).fit([["a", "b"]]), "turns is out of range, got -1"),
        (lambda: Translator(turns=2).fit([["a", "b"], ["c"]]), "dialogue 2: a dialogue has two turns at least"),
        (lambda: Translator(turns=2).fit([["a", " "]]), "dialogue 1: turn 2 is empty"),
        (lambda: Translator(turns=2).fit(["a b"]), "dialogue 1: a dialogue has two turns"),
    ],
)
def test_mistakes_are_named(make, sentence):
    with pytest.raises(CarouselError, match=sentence):
        make()


def test_a_translator_has_no_turns():
    config = TrainConfig(hidden_size=4, steps=1, least_steps=1, holdout=0.0)
    model = Translator(tokens="word", merges=0.0, embedding=4, config=config).fit(["a"] * 4, ["b"] * 4)
    with pytest.raises(CarouselError, match="does not know of turns"):
        model.reply([["a"]])
    with pytest.raises(ValueError, match="weight is out of range, got 1"):
        Mutual(weight=1.0)


def test_a_conversation_keeps_its_context(fitted, tmp_path, monkeypatch, capsys):
    import io
    import json
    import sys

    from carousel import cli

    place = tmp_path / "m.safetensors"
    fitted.save(place)

    def talk(said: bytes, *options: str) -> tuple[int, list[str], str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said)))
        status = cli.run(["chat", str(place), *options])
        found = capsys.readouterr()
        return status, found.out.splitlines(), found.err

    beginning = b"do you like cats\nand dogs\nwhat do they say\n"
    status, lines, _ = talk(beginning + b"/new\n\ndo you like cows\nand cats\nwhat do they say\n/quit\nhi\n")
    assert status == 0
    assert lines == ["i do", "not so much", "meow and woof", "i do", "not so much", "moo and meow"]
    status, lines, _ = talk(beginning[:17], "--json", "--set=weight=0", "--set=temperature=0.5", "--set=candidates=2")
    assert status == 0
    assert json.loads(lines[0])["reply"] == "i do"
    for said, options, sentence in (
        (b"hi\n\xff\xfe\n", (), "standard input, line 2: byte 3 is not UTF-8"),
        (b"hi\n", ("--set=warmth=1",), "setting 'warmth=1' is none of"),
        (b"hi\n", ("--set=weight=2",), "weight is out of range, got 2.0"),
        (b"hi\n", ("--set=n_best=2",), "one reply to each turn"),
    ):
        status, _, err = talk(said, *options)
        assert (status, sentence in err) == (2, True), err


def test_dialogues_go_through_the_command_line(tmp_path, monkeypatch, capsys):
    import json

    import polars as pl

    from carousel import cli

    monkeypatch.chdir(tmp_path)
    lines = "".join("\t".join(dialogue) + "\n" for dialogue in DIALOGUES)
    (tmp_path / "d.tsv").write_text(lines)
    quick = [
        f"--set={choice}" for choice in ("steps=3", "least_steps=3", "hidden_size=8", "warmup=1", "evaluate_every=2")
    ]
    fit = [
        "fit",
        "translate",
        "d.tsv",
        "--turns=2",
        "--tokens=word",
        *quick,
        "--set=holdout=0.2",
        "--out=m.safetensors",
    ]
    assert cli.run(fit) == 0
    assert "Next: carousel chat m.safetensors" in capsys.readouterr().out
    rows = [(k, turn) for k, dialogue in enumerate(DIALOGUES) for turn in dialogue]
    pl.DataFrame({"who": [k for k, _ in rows], "said": [t for _, t in rows]}).write_csv("d.csv")
    table = ["fit", "translate", "d.csv", "--id=who", "--source=said", *fit[3:-1], "--out=n.safetensors"]
    assert cli.run(table) == 0
    assert (
        Translator.load("n.safetensors").provenance_["pairs"] == Translator.load("m.safetensors").provenance_["pairs"]
    )
    capsys.readouterr()
    evaluate = ["evaluate", "m.safetensors", "d.tsv", "--train=d.tsv", "--set=candidates=3", "--json"]
    assert cli.run(evaluate) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"]["most similar context"]["BLEU"] > 60
    assert found["rows"]["commonest reply"]["commonest"] == 1.0
    assert found["rows"]["5-grams"]["perplexity"] < found["rows"]["LSTM"]["perplexity"]
    assert cli.run(["predict", "m.safetensors", "d.tsv", "--set=n_best=1", "--json"]) == 0
    made = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert made[0]["source"] == "\n".join(DIALOGUES[0])
    for arguments, sentence in (
        (["fit", "translate", "d.tsv", "--id=who", "--out=x.safetensors"], "say with --turns how many turns"),
        (["fit", "translate", "d.csv", "--turns=2", "--out=x.safetensors"], "--id must say which dialogue"),
        (["fit", "translate", "d.tsv", "--turns=2", "--target-file=d.tsv", "--out=x.safetensors"], "holds dialogues"),
        (["evaluate", "m.safetensors", "d.tsv", "--since=1"], "--since is for models of forecast and tag"),
    ):
        assert cli.run(arguments) == 2
        assert sentence in capsys.readouterr().err
