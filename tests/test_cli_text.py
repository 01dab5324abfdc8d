"""Texts on the command line: lines and tables, what is made of them, and what users get wrong."""

from __future__ import annotations

import json

import polars as pl
import pytest

from carousel import Generator, Translator, cli
from carousel.heads.search import Beam

QUICK = [
    f"--set={choice}"
    for choice in ("steps=4", "least_steps=4", "hidden_size=8", "warmup=1", "evaluate_every=2", "holdout=0.2")
]
DE, EN = ["ein haus", "ein hund", "", "das haus", "der hund"] * 4, ["a house", "a dog", "", "the house", "the dog"] * 4


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.de").write_text("\n".join(DE) + "\n")
    (tmp_path / "a.en").write_text("\n".join(EN) + "\n")
    rows = [(a, b) for a, b in zip(DE, EN, strict=True) if a]
    pl.DataFrame({"de": [a for a, _ in rows], "en": [b for _, b in rows]}).write_csv("pairs.csv")
    (tmp_path / "b.txt").write_text("a house and a dog. " * 80)
    return tmp_path


def test_lines_are_fitted_and_translated(files, capsys):
    status = cli.run(["fit", "translate", "a.de", "--target-file=a.en", "--tokens=word", *QUICK, "--out=m.safetensors"])
    said = capsys.readouterr()
    assert status == 0, said.err
    assert "4 pairs of empty lines are left out" in said.err
    assert said.out.startswith("m.safetensors: ")
    assert sorted(p.name for p in files.iterdir()) == ["a.de", "a.en", "b.txt", "m.safetensors", "pairs.csv"]
    (files / "ask.txt").write_text("ein haus\n\nhund\n")
    assert cli.run(["predict", "m.safetensors", "ask.txt", "--set=n_best=2", "--set=size=3", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r["source"] for r in rows] == ["ein haus", "ein haus", "", "hund", "hund"]
    assert [r["rank"] for r in rows] == [1, 2, 1, 1, 2]
    model = Translator.load("m.safetensors")
    assert rows[0]["prediction"] == model.predict(["ein haus"], n_best=2, beam=Beam(3))["prediction"][0]


def test_tables_are_fitted_and_translated(files, capsys):
    arguments = ["fit", "translate", "pairs.csv", "--source=de", "--target=en", "--tokens=word", "--json"]
    assert cli.run([*arguments, *QUICK, "--out=m.safetensors"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["provenance"]["pairs"] in (10, 11, 12, 13, 14)
    assert cli.run(["predict", "m.safetensors", "pairs.csv", "--out=made.parquet"]) == 0
    assert pl.read_parquet("made.parquet").columns == ["source", "rank", "score", "prediction"]


def test_columns_of_pairs_are_texts_whatever_they_look_like(files, capsys):
    (files / "odd.csv").write_text("de,en\n" + "1,None\n2024-01-05,true\nNA,3.5\n" * 6)
    fit = ["fit", "translate", "odd.csv", "--source=de", "--target=en", "--tokens=word", *QUICK, "--set=holdout=0"]
    assert cli.run([*fit, "--out=m.safetensors"]) == 0, capsys.readouterr().err
    model = Translator.load("m.safetensors")
    assert {"1", "2024-01-05", "NA", "None", "true", "3.5"} <= set(model.config_.input.out.tokens)
    capsys.readouterr()
    assert cli.run(["predict", "m.safetensors", "odd.csv", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["source"] for row in rows[:3]] == ["1", "2024-01-05", "NA"]


def test_lines_of_windows_and_tiny_training_texts(files, capsys):
    (files / "w.txt").write_bytes(b"a house and a dog.\r\n" * 80)
    fit = ["fit", "generate", "w.txt", "--tokens=char", *QUICK, "--set=batch_size=4", "--out=m.safetensors"]
    assert cli.run(fit) == 0
    assert Generator.load("m.safetensors").provenance_["tokens"] == 2 + 0.8 * 80 * len("a house and a dog.\n")
    (files / "tiny.txt").write_text("a d")
    assert cli.run(["evaluate", "m.safetensors", "b.txt", "--train=tiny.txt"]) == 0
    assert "5-grams" in capsys.readouterr().out


def test_the_parts_of_a_model_are_settings_too(files):
    table = ["fit", "translate", "pairs.csv", "--source=de", "--target=en", "--tokens=word", *QUICK]
    chosen = ["--set=embedding=12", "--set=input_feeding=true", "--set=attention=additive", "--set=shared=false"]
    assert cli.run([*table, *chosen, "--out=m.safetensors"]) == 0
    found = Translator.load("m.safetensors").get_params()
    assert {k: found[k] for k in ("embedding", "input_feeding", "attention", "shared", "merges")} == {
        "embedding": 12,
        "input_feeding": True,
        "attention": "additive",
        "shared": False,
        "merges": 0.0,
    }
    fit = ["fit", "generate", "b.txt", "--tokens=char", *QUICK, "--set=batch_size=4", "--set=dropout=0.25"]
    assert cli.run([*fit, "--out=n.safetensors"]) == 0
    assert Generator.load("n.safetensors").config_.head.dropout == 0.25


def test_a_language_model_goes_on_from_prompts(files, capsys):
    fit = ["fit", "generate", "b.txt", "--tokens=char", *QUICK, "--set=batch_size=4", "--out=m.safetensors"]
    assert cli.run(fit) == 0
    (files / "ask.txt").write_text("a ho\nand\n")
    capsys.readouterr()
    ask = ["predict", "m.safetensors", "ask.txt", "--set=length=6", "--set=samples=2", "--set=seed=5", "--json"]
    assert cli.run(ask) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(r["prompt"], r["sample"]) for r in rows] == [("a ho", 1), ("a ho", 2), ("and", 1), ("and", 2)]
    made = Generator.load("m.safetensors").sample(["a ho", "and"], samples=2, length=6, seed=5)
    assert [r["prediction"] for r in rows] == [text for pair in made for text, _ in pair]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fit", "translate", "a.de"], "a.de: the file is of lines, so --target-file must name the lines"),
        (["fit", "translate", "pairs.csv", "--target-file=a.en"], "pairs.csv is a table; leave it out"),
        (["fit", "translate", "pairs.csv", "--source=d", "--target=en"], "there is no column 'd'"),
        (["fit", "translate", "a.de", "--target-file=b.txt"], "a.de has 20; line 2 stands alone"),
        (["fit", "translate", "a.de", "--target-file=a.en", "--valid-target-file=a.en"], "needs --valid"),
        (
            ["fit", "translate", "a.de", "--target-file=a.en", "--horizon=3"],
            "--horizon does not apply to fit translate",
        ),
        (["fit", "generate", "none.txt"], "none.txt: the file cannot be read"),
        (["fit", "generate", "b.txt", "--set=dropout=much"], "setting dropout must be a number, got 'much'"),
        (["fit", "generate", "b.txt", "--set=dropuot=0.1"], "did you mean dropout"),
        (
            ["fit", "translate", "pairs.csv", "--set=attention=dots"],
            "setting attention must be one of general, dot, additive, got 'dots'",
        ),
        (["fit", "generate", "b.txt", "--tokens=sylable"], "char, word, not 'sylable'; correct"),
    ],
)
def test_mistakes_have_status_2_and_leave_nothing(files, capsys, arguments, sentence):
    before = sorted(p.name for p in files.iterdir())
    assert cli.run([*arguments, *QUICK, "--out=m.safetensors"]) == 2
    assert sentence in capsys.readouterr().err
    assert sorted(p.name for p in files.iterdir()) == before


def test_settings_of_decoding_are_checked(files, capsys):
    fit = ["fit", "generate", "b.txt", "--tokens=char", *QUICK, "--set=batch_size=4", "--out=m.safetensors"]
    assert cli.run(fit) == 0
    for setting, sentence in (
        ("warmth=1", "setting 'warmth=1' is none of temperature="),
        ("length=long", "setting length must be a number, got 'long'"),
        ("top_p=2", "top_p is out of range, got 2.0"),
        ("length=0", "length and samples must be at least 1"),
    ):
        capsys.readouterr()
        assert cli.run(["predict", "m.safetensors", "b.txt", f"--set={setting}"]) == 2
        assert sentence in capsys.readouterr().err
