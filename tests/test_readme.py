"""The blocks of the README and of docs/ run as they stand: Python is executed, console lines are called."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from carousel import cli
from command_line import QUICK, model_bytes, shops, vitals

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Line number and text of every block of a language."""
    text = page.read_text()
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text[: block.start()].count("\n") + 2, block[1]) for block in found]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_blocks_run_one_after_the_other(page, tmp_path, monkeypatch):
    """The blocks of a page share their names, as they do in a reader's session."""
    monkeypatch.chdir(tmp_path)
    if page.name == "model-file.md":
        (tmp_path / "m.safetensors").write_bytes(model_bytes())
    names: dict[str, object] = {"__name__": "__main__"}
    for line, code in blocks(page, "python"):
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)


def clips(folder: Path) -> None:
    """Two actions in arrays and a video, as a table of clips and one of frames."""
    from carousel.render import encode

    rng = np.random.default_rng(0)
    names = [f"c{k}.npy" for k in range(12)]
    for name in names:
        np.save(folder / name, rng.integers(0, 256, (5, 16, 16, 3), dtype=np.uint8))
    encode(iter(rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)), folder / "clip.mp4")
    table = pl.DataFrame({"path": names, "action": ["walk", "jump"] * 6})
    table.write_csv(folder / "clips.csv")
    table.with_columns(frame=0).write_csv(folder / "frames.csv")


def commands(page: Path) -> list[str]:
    """Every line of the `sh` and `console` blocks that calls carousel."""
    text = "".join(code for language in ("sh", "console") for _, code in blocks(page, language))
    lines = text.replace("\\\n", " ").splitlines()
    lines = [line.removeprefix("$ ").split("#")[0].split("|")[-1].strip() for line in lines]
    return [line for line in lines if line.startswith("carousel ")]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_commands_run_one_after_the_other(page, tmp_path, monkeypatch, capsys):
    """Called with small tables under the names that the page uses, and a quick training."""
    monkeypatch.chdir(tmp_path)
    lines = commands(page)
    sales = shops(348, gaps=False).rename({"shop": "store"})
    ahead = pl.col("day") > sales["day"].max() - timedelta(days=28)
    sales.filter(ahead).select("store", "day", "holiday").write_csv("holidays.csv")
    if any("--future" in line for line in lines):
        sales = sales.filter(~ahead)
    sales.with_columns(sold=pl.when(~ahead).then("sold")).write_csv("sales.csv")  # rows ahead have no target
    vitals().write_csv("vitals.csv")
    vitals(30).filter(pl.col("patient") >= "p12").with_columns(pl.col("patient") + "b").write_csv("ward2.csv")
    for name in ("train.de", "train.en", "val.de", "val.en", "test.de", "test.en", "prompts.txt"):
        (tmp_path / name).write_text("ein Hund\neine Katze\n" * 20)
    for name in ("dialogues.txt", "others.txt"):
        (tmp_path / name).write_text("hi\thello\twho are you\nhi\thow are you\tfine\n" * 10)
    reviews = [f"{text},{label}\n" for text, label in (("a good film", "good"), ("a bad film", "bad"))] * 20
    for name in ("reviews.csv", "others.csv"):
        (tmp_path / name).write_text("review,label\n" + "".join(reviews))
    for name in ("news.conll", "later.conll"):
        (tmp_path / name).write_text("Anna B-who\ncame O\n\nto O\nNew B-where\nYork I-where\n\n" * 12)
    asked = '{"words": "play Hey Jude", "slots": "O B-song I-song", "intent": "music"}\n'
    asked += '{"words": "rain in Oslo", "slots": "O O B-city", "intent": "weather"}\n'
    for name in ("utterances.jsonl", "new.jsonl"):
        (tmp_path / name).write_text(asked * 12)
    for name in ("input.txt", "later.txt"):
        (tmp_path / name).write_text("the cat sat on the mat. " * 99)
    if page.name in ("frames.md", "README.md"):
        clips(tmp_path)
    (tmp_path / "m.safetensors").write_bytes(model_bytes())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    for line in lines:
        words = shlex.split(line)
        if words[1] == "fit":
            words += QUICK
        if words[1] in ("demo", "doctor", "bench"):
            words.append("--help")
        status = cli.run(words[1:])
        assert status == 0, f"{line}\n{capsys.readouterr().err}"
