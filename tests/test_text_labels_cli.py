"""Labelled texts on the command line: what is fitted, predicted and judged, and what users get wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from carousel import Classifier, Tagger, cli
from command_line import Result

QUICK = [
    f"--set={choice}"
    for choice in ("steps=30", "least_steps=30", "hidden_size=8", "warmup=3", "learning_rate=0.02", "evaluate_every=10")
]
Call = Callable[..., Result]
REVIEWS = [("a good film", "good"), ("None of it was dull", "good"), ("a bad film", "bad"), ("dull, 007 again", "bad")]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pl.DataFrame(REVIEWS * 10, schema=["review", "label"], orient="row").write_csv("reviews.csv")
    pl.DataFrame(REVIEWS * 10, schema=["review", "label"], orient="row").write_parquet("reviews.parquet")
    sentence = "Anna\tB-who\nNone\tO\nNew\tB-where\nYork\tI-where\n\nNA\tO\n\n"
    (tmp_path / "news.conll").write_text(sentence * 12)
    asked = {"words": "play Hey Jude", "slots": "O B-song I-song", "intent": "music"}
    other = {"words": "rain in Oslo", "slots": "O O B-city", "intent": "weather"}
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [asked, other] * 10))
    return tmp_path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: str) -> Result:
        capsys.readouterr()
        status = cli.run(arguments)
        return Result(status, *capsys.readouterr())

    return run


def fit(call: Call, *arguments: str) -> str:
    found = call("fit", *arguments, *QUICK, "--out=m.safetensors")
    assert found.status == 0, found.err
    return found.out


@pytest.mark.parametrize("name", ["reviews.csv", "reviews.parquet"])
def test_texts_are_classified(name: str, place: Path, call: Call) -> None:
    said = fit(call, "classify", name, "--text=review", "--target=label", "--vocabulary=300", "--set=words.width=8")
    assert said.startswith("m.safetensors: 40 sequences, ")
    model = Classifier.load("m.safetensors")
    assert (model.text, model.text_config.width, model.text_config.vocabulary) == ("review", 8, 300)
    assert model.score(pl.DataFrame(REVIEWS, schema=["review", "label"], orient="row")) == 1
    made = call("predict", "m.safetensors", name, "--out=p.csv")
    assert made.status == 0, made.err
    assert pl.read_csv("p.csv").columns == ["prediction", "p_bad", "p_good"]
    (place / "lines.txt").write_text("a good film\na bad film\n")
    lines = call("predict", "m.safetensors", "lines.txt", "--json")
    assert [json.loads(line)["prediction"] for line in lines.out.splitlines()] == ["good", "bad"]
    judged = call("evaluate", "m.safetensors", name, "--train", name, "--json")
    found = json.loads(judged.out)
    assert [row["model"] for row in found["rows"]] == ["LSTM", "TF-IDF + linear", "commonest"]
    assert "40 of 40 test texts are word for word in the training part" in json.dumps(found["trust"])


def test_words_of_conll_files_are_tagged_none_as_a_word(place: Path, call: Call) -> None:
    fit(call, "tag", "news.conll", "--text=word", "--id=sentence", "--target=tag", "--crf", "--set=words.fewest=1")
    model = Tagger.load("m.safetensors")
    assert "None" in model.config_.input.words.tokens
    made = call("predict", "m.safetensors", "news.conll", "--json")
    rows = [json.loads(line) for line in made.out.splitlines()]
    assert len(rows) == 60
    assert [row["prediction"] for row in rows[:4]] == ["B-who", "O", "B-where", "I-where"]
    judged = call("evaluate", "m.safetensors", "news.conll", "--train=news.conll")
    assert judged.status == 0, judged.err
    assert "60 words of 24 texts" in judged.out
    assert "span F1" in judged.out


def test_slots_and_intent_from_json_lines(place: Path, call: Call) -> None:
    fit(call, "tag", "asked.jsonl", "--text=words", "--target=slots", "--intent=intent", "--valid=asked.jsonl")
    (place / "lines.txt").write_text("play Hey Jude\nrain in Oslo\n")
    made = call("predict", "m.safetensors", "lines.txt", "--json")
    rows = [json.loads(line) for line in made.out.splitlines()]
    assert [(row["prediction"], row["intent"]) for row in rows] == [
        ("O B-song I-song", "music"),
        ("O O B-city", "weather"),
    ]


def test_a_fit_that_was_interrupted_goes_on(place: Path, call: Call) -> None:
    given = ["fit", "classify", "reviews.csv", "--text=review", "--target=label", *QUICK]
    given += ["--set=checkpoint_every=10", "--set=refit=false"]
    assert call(*given, "--out=a.safetensors").status == 0
    model = Classifier.load("a.safetensors")
    again = Classifier("label", text="review", config=model.config)
    table, checkpoint = pl.read_csv("reviews.csv"), "b.safetensors.checkpoint"
    with pytest.raises(ZeroDivisionError):
        again.fit(table, checkpoint=checkpoint, source="reviews.csv", progress=_stop)
    found = call(*given, "--resume", "--out=b.safetensors")
    assert found.status == 0, found.err
    resumed = Classifier.load("b.safetensors")
    for name, weight in model._weights.items():
        assert (weight == resumed._weights[name]).all()


def _stop(event: object) -> None:
    if event.step > 20:  # type: ignore[attr-defined]
        raise ZeroDivisionError


CLASSIFY = ["fit", "classify", "reviews.csv", "--target=label", "--out=m.safetensors"]
LABELS = ["--target=l", "--text=w", "--out=m.safetensors"]
TAG = ["fit", "tag", "news.conll", "--target=tag", "--id=sentence", "--out=m.safetensors"]
WRONG = {
    "a column that is not there": (
        [*CLASSIFY, "--text=reviews"],
        "there is no column 'reviews'; did you mean 'review'",
    ),
    "neither id nor text": (CLASSIFY, "name --id, or use --text or --frames"),
    "tokens without text": ([*CLASSIFY, "--id=review", "--tokens=bpe"], "--tokens is about texts; name their column"),
    "setting without text": ([*CLASSIFY, "--id=review", "--set=words.width=3"], "--set words.width=3 is about texts"),
    "crf without text": ([*TAG, "--crf"], "--intent and --crf are about words of texts"),
    "unknown setting": ([*CLASSIFY, "--text=review", "--set=words.wide=3"], "there is no setting words.wide=3"),
    "no number": ([*CLASSIFY, "--text=review", "--set=words.width=x"], "words.width must be a whole number, got 'x'"),
    "unknown tokens": ([*CLASSIFY, "--text=review", "--tokens=syllable"], "tokens are bpe, unigram, char or word"),
    "spelling of pieces": ([*CLASSIFY, "--text=review", "--spelling=4"], "vectors and spelling are of tokens of kind"),
    "keep without longest": ([*CLASSIFY, "--text=review", "--keep=last"], "--keep is about --longest"),
    "vectors that are not there": (
        [*CLASSIFY, "--text=review", "--tokens=word", "--vectors=v.txt"],
        "v.txt: the file cannot be read",
    ),
    "small vocabulary": ([*CLASSIFY, "--text=review", "--vocabulary=9"], "needs a size of at least 260, got 9"),
    "time of texts": ([*CLASSIFY, "--text=review", "--time=label"], "time is not about texts; leave it out"),
    "event of words": ([*TAG[:3], TAG[-1], "--text=word", "--event=tag", "--ahead=2"], "event is not about texts"),
    "crop of words": ([*TAG, "--text=word", "--set=crop=3"], "crop is about texts with one label"),
    "bytes": (["fit", "classify", "latin.csv", *LABELS], "byte 9 of the file"),
    "an empty text": (
        ["fit", "classify", "hole.csv", *LABELS],
        "row 2, column 'w'",
    ),
    "a megabyte in a line": (
        ["fit", "classify", "long.csv", *LABELS],
        "row 1: the text has 1,100,000 characters, at most 1,048,576",
    ),
    "labels that do not fit": (
        ["fit", "tag", "odd.csv", *LABELS],
        "row 2: 'w' has 2 words and 'l' 1 labels; give one for each word",
    ),
    "one label": (["fit", "classify", "one.csv", *LABELS], "one class only"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_one_sentence(case: str, place: Path, call: Call) -> None:
    (place / "latin.csv").write_bytes(b"w,l\na caf\xe9,x\nb,y\n")
    (place / "hole.csv").write_text("w,l\na,x\n,y\nb,x\n")
    (place / "long.csv").write_text("w,l\n" + "x" * 1_100_000 + ",x\nb,y\n")
    (place / "odd.csv").write_text("w,l\na b,X O\na b,X\n")
    (place / "one.csv").write_text("w,l\na,x\nb,x\n")
    arguments, message = WRONG[case]
    found = call(*arguments)
    assert found.status == 2, found.out
    assert message in found.err
    assert len(found.err.splitlines()) == 1
    assert not (place / "m.safetensors").exists()


def test_faults_of_new_texts_are_one_sentence(place: Path, call: Call) -> None:
    fit(call, "classify", "reviews.csv", "--text=review", "--target=label", "--vocabulary=300")
    (place / "odd.csv").write_text("review,label\na good film,splendid\n")
    (place / "other.csv").write_text("text\na good film\n")
    (place / "hole.txt").write_text("a good film\n\na bad one\n")
    for arguments, message in (
        (
            ["evaluate", "m.safetensors", "odd.csv"],
            "the label 'splendid' was not among those of training",
        ),
        (["predict", "m.safetensors", "other.csv"], "other.csv: there is no column 'review'"),
        (["predict", "m.safetensors", "hole.txt"], "hole.txt, row 2, column 'review': the text is empty"),
        (["stream", "m.safetensors", "hole.txt"], "texts are read whole"),
        (["export", "m.safetensors", "--to=onnx", "--out=m.onnx"], "no graph from raw rows"),
        (["export", "m.safetensors", "--to=c", "--out=m"], "has no C form"),
        (["evaluate", "m.safetensors", "reviews.csv", "--group=label"], "since and group are about rows"),
    ):
        found = call(*arguments)
        assert found.status == 2, (arguments, found.out)
        assert message in found.err, found.err
