"""Texts as a model reads them: tokens and what is cut of them, tables, CoNLL files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from carousel.config import ModelConfig
from carousel.errors import DataError
from carousel.inputs.corpus import corpus_of_arrays, corpus_of_table, read_conll
from carousel.inputs.files import read_file
from carousel.inputs.roles import Roles
from carousel.inputs.text import MARKS, fit_vocabulary
from carousel.inputs.tokens import SPELLINGS, TextConfig, TokenInput, fit_tokens, shape_of, spelling
from carousel.tokenmodel import Rates, token_batch


def _input(form: str = "texts", kind: str = "word", **more: Any) -> TokenInput:
    texts = ["the film was good", "a dull plot", "Naïve café 東京"]
    return TokenInput(Roles(features=("t",)), form, fit_vocabulary(texts, kind=kind, size=300), 4, **more)


def _offsets(*lengths: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


# Tokens


def test_texts_become_tokens_one_after_another() -> None:
    seen = _input()
    made = seen.channels(["the film", "good", "plot xyzzy the"], np.arange(4))
    names = [seen.words.tokens[k] for k in made.ids]
    assert names == ["the", "film", "good", "plot", "<unk>", "the"]
    assert made.offsets.tolist() == [0, 2, 3, 6]
    assert made.first.tolist() == []
    chosen, _ = made.select(np.array([2, 0]))
    assert [seen.words.tokens[k] for k in chosen.ids] == ["plot", "<unk>", "the", "the", "film"]
    assert chosen.offsets.tolist() == [0, 3, 5]


def test_words_are_labelled_at_their_first_piece() -> None:
    seen = _input("cells", "bpe")
    words = ["the", "films", "Naïve", "good", "東京"]
    made = seen.channels(words, _offsets(2, 3))
    pieces = [seen.words.encode([word]).values.tolist() for word in words]
    assert made.ids.tolist() == [piece for part in pieces for piece in part]
    assert made.first.tolist() == np.cumsum([0, *map(len, pieces[:-1])]).tolist()
    assert made.words.tolist() == [0, 2, 5]
    chosen, rows = made.select(np.array([1]))
    assert chosen.ids[chosen.first].tolist() == [piece[0] for piece in pieces[2:]]
    assert rows.tolist() == [2, 3, 4]


@pytest.mark.parametrize(("keep", "kept"), [("first", "a b c"), ("last", "e f g"), ("ends", "a b g")])
def test_of_long_texts_the_named_part_is_kept(keep: str, kept: str) -> None:
    words = fit_vocabulary(["a b c d e f g"], kind="word")
    seen = TokenInput(Roles(features=("t",)), "texts", words, 4, longest=3, keep=keep)
    made = seen.channels(["a b c d e f g", "d"], np.arange(3))
    assert [words.tokens[k] for k in made.ids] == [*kept.split(), "d"]
    assert made.offsets.tolist() == [0, 3, 4]


def test_spelling_is_shared_by_words_alike() -> None:
    seen = _input("cells", spelling=3)
    made = seen.channels(["Walking", "talking", "W"], _offsets(3))
    assert made.spelling.shape == (3, len(SPELLINGS))
    same = made.spelling[0] == made.spelling[1]
    assert dict(zip(SPELLINGS, same.tolist(), strict=True)) == {
        "prefix 1": False, "prefix 2": False, "prefix 3": False,
        "suffix 1": True, "suffix 2": True, "suffix 3": True, "suffix 4": True, "shape": False,
    }  # fmt: skip
    assert (made.spelling // seen.buckets == np.arange(len(SPELLINGS))).all()
    assert spelling("Walking", seen.buckets) == made.spelling[0].tolist()
    assert shape_of("x86-64 GB") == "xdd-dd XX"


def test_vocabulary_of_words_leaves_out_rare_ones_and_says_so_in_its_config() -> None:
    given = TextConfig("word", 100, fewest=2)
    seen = fit_tokens(["a a b", "b c"], given, form="texts", roles=Roles(features=("t",)))
    assert set(seen.words.tokens[MARKS:]) == {"<unk>", "a", "b"}
    small = fit_tokens(["a a a b b c c"], TextConfig("word", MARKS + 2, fewest=1), form="texts", roles=Roles())
    assert set(small.words.tokens[MARKS:]) == {"<unk>", "a"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tokens": "syllable"}, "tokens are"),
        ({"merges": 0.1, "tokens": "word"}, "merges are of"),
        ({"spelling": 8}, "kind word"),
        ({"frozen": True}, "frozen is about vectors"),
        ({"word_dropout": 1.0}, r"\[0, 1\)"),
        ({"keep": "middle"}, "keep is"),
        ({"width": 0}, "width must be"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextConfig(**wrong)


# The model


def _model(**rates: float) -> tuple[Any, TokenInput]:
    from carousel.config import StackConfig
    from carousel.heads.classify import ClassifyHead
    from carousel.model import build

    seen = _input(spelling=2)
    head = ClassifyHead("label", "max", classes=("a", "b"))
    torch.manual_seed(1)
    net = build(ModelConfig("classify", seen, StackConfig(5, bidirectional=True), head))
    net.input.rates = Rates(**rates)
    return net, seen


def test_a_text_is_read_alike_alone_and_beside_others() -> None:
    net, seen = _model()
    texts = ["the film was good", "dull", "a plot the film was a dull plot was good"]
    with torch.no_grad():
        together = net.eval()(token_batch(seen.channels(texts, np.arange(4))))
        alone = [net(token_batch(seen.channels([text], np.arange(2)))) for text in texts]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=0)


def test_what_is_hidden_is_hidden_in_training_alone() -> None:
    net, seen = _model(word=0.5, embedding=0.3, input=0.4)
    batch = token_batch(seen.channels(["the film was good", "a dull plot"] * 3, np.arange(7)))
    plain = net.eval().input(batch)
    torch.testing.assert_close(plain, net.input(batch), atol=0, rtol=0)
    hidden = net.train().input(batch)
    assert not torch.equal(hidden, plain)
    dropped = (hidden == 0) & (plain != 0)
    sequence = batch.values.sequence
    net.input.rates = Rates(input=0.4)
    mask = net.input(batch) == 0
    for text in range(6):  # a channel is hidden all through a text, or not at all
        rows = mask[sequence == text]
        assert (rows.all(0) | ~rows.any(0)).all()
    assert dropped.any()
    net.input.rates = Rates(word=0.5)
    whole = net.input(batch)[:, : seen.width]
    unknown = net.input.embed.weight[MARKS]
    same = (whole == plain[:, : seen.width]).all(1)
    assert 0 < same.sum() < len(same)
    assert (whole[~same] == unknown).all()
    net.input.rates = Rates(embedding=0.5)
    rows = net.input(batch)[:, : seen.width]
    for token in batch.values.values.unique():  # a token is hidden everywhere in a batch, or nowhere
        assert len({bool(r.any()) for r in rows[batch.values.values == token]}) == 1


# Reading


def test_a_table_of_words_has_a_text_for_each_run_of_ids() -> None:
    table = pl.DataFrame({"s": [2, 2, 1], "w": ["None", "b", "007"], "t": ["X", "O", "X"], "i": ["p", "p", "q"]})
    found = corpus_of_table(table, Roles("s", None, ("t",), ("w",)), source="x", words=True, target=True, intent="i")
    assert (found.ids, found.offsets.tolist(), found.parts) == ([2, 1], [0, 2, 3], ("None", "b", "007"))
    assert found.intent.to_list() == ["p", "q"]


@pytest.mark.parametrize(
    ("table", "id", "message"),
    [
        ({"w": ["a b", "c"], "t": ["X", "X"]}, None, "row 1: 'w' has 2 words and 't' 1 labels"),
        ({"w": ["a b", " "], "t": ["X X", ""]}, None, "row 2, column 'w': the text is empty"),
        ({"w": ["a", None], "t": ["X", "X"]}, None, "row 2, column 'w': the text is empty"),
        ({"w": ["a", "b", "c"], "t": ["X", "Y", "Z"], "s": [1, 2, 1]}, "s", "row 3: the text 1 goes on after another"),
        ({"w": ["a"], "t": ["X"], "s": [None]}, "s", "row 1, column 's': the id is missing"),
        ({"w": ["a", "x" * (2**20 + 1)], "t": ["X", "X"]}, None, "row 2: the text has 1,048,577 characters"),
        ({"v": ["a"], "t": ["X"]}, None, "there is no column 'w'"),
        ({"w": [1.5], "t": ["X"]}, None, "column 'w': Float64 is no text"),
        ({"w": ["a b"], "t": [1]}, None, "column 't': expected as many labels"),
    ],
)
def test_faults_of_tables_name_their_place(table: dict[str, list[Any]], id: str | None, message: str) -> None:
    with pytest.raises(DataError) as error:
        corpus_of_table(pl.DataFrame(table), Roles(id, None, ("t",), ("w",)), source="x.csv", words=True, target=True)
    assert message in str(error.value)
    assert str(error.value).startswith("x.csv")


@pytest.mark.parametrize(
    ("given", "words", "message"),
    [
        (["a", 1], False, r"X\[1\]: expected a list of texts"),
        (["a b"], True, "expected a list of lists of words"),
        ([["a"], []], True, r"X\[1\]: the text or one of its words is empty"),
        (["a", " "], False, r"X\[1\]: the text"),
        ([], False, "there is no text"),
    ],
)
def test_faults_of_lists(given: list[Any], words: bool, message: str) -> None:
    with pytest.raises(DataError, match=message):
        corpus_of_arrays(given, words=words)


def test_conll_files_are_tables(tmp_path: Path) -> None:
    path = tmp_path / "x.conll"
    path.write_text("-DOCSTART- -X- O\n\nEU NNP B-org\nrejects VBZ O\n\n\nNone NN O\n", encoding="utf-8")
    found = read_file(path)
    assert found.columns == ["sentence", "word", "column2", "tag"]
    assert found["sentence"].to_list() == [1, 1, 2]
    assert found["word"].to_list() == ["EU", "rejects", "None"]
    path = tmp_path / "x.conllu"
    row = "{}\t{}\t_\tNOUN\t_\t_\t0\troot\t_\t_\n"
    lines = (
        "# text = a b\n" + row.format("1-2", "ab") + row.format(1, "a") + row.format(2, "b") + row.format("2.1", "x")
    )
    path.write_text(lines + "\n" + row.format(1, "c"), encoding="utf-8")
    found = read_conll(path)
    assert found["form"].to_list() == ["a", "b", "c"]
    assert found["upos"].to_list() == ["NOUN"] * 3
    path.write_text(row.format(1, "a") + "2\tb\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 2: expected 10 fields separated by tabs or blanks, got 2"):
        read_conll(path)


def test_a_hash_is_a_comment_or_a_word(tmp_path: Path) -> None:
    path = tmp_path / "x.conll"
    path.write_text("# id 7\n# new par\n# O\nyes O\n#tag O\n# O\n\n# B-x\n", encoding="utf-8")
    assert read_conll(path)["word"].to_list() == ["#", "yes", "#tag", "#"]  # no other word is tagged B-x
    path.write_text("a\tO\n#\tO\n# note of two\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 3: expected 2 fields separated by tabs or blanks, got 4"):
        read_conll(path)


def test_labels_that_say_none_are_labels_where_others_are_text(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("w,n,l,i\na,1,None,NA\nb,NA,yes,NA\nc,3,,7\n", encoding="utf-8")
    found = read_file(path, texts=("w",), labels=("l", "i", "n"))
    assert found["l"].to_list() == ["None", "yes", None]
    assert found["i"].to_list() == [None, None, 7]
    assert found["n"].to_list() == [1, None, 3]


TABS = {
    "plain": ('t\tl\n"Hm\tA\nhe said "no"\tB\nend"\tC\n', ['"Hm', 'he said "no"', 'end"']),
    "quoted": ('t\tl\n"a ""b"""\tA\nc\tB\n', ['a "b"', "c"]),
    "several lines": ('t\tl\n"a\nb\tc"\tA\nd\tB\n', ["a\nb\tc", "d"]),
}


@pytest.mark.parametrize("name", TABS)
def test_quotes_in_tables_of_tabs(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.tsv"
    path.write_text(TABS[name][0], encoding="utf-8")
    assert read_file(path, texts=("t",))["t"].to_list() == TABS[name][1]


def test_a_line_of_tabs_whose_quotes_do_not_pair_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text('t\tl\n"Hm\tA\nb\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"line 3: it has 1 fields where the header has 2, and its quotes"):
        read_file(path)


def test_columns_of_texts_are_taken_as_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("w,n\nNone,1\nNA,2\n007,\n2024-01-01,4\n", encoding="utf-8")
    found = read_file(path, texts=("w",))
    assert found["w"].to_list() == ["None", "NA", "007", "2024-01-01"]
    assert found["n"].to_list() == [1, 2, None, 4]


def test_bytes_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    for name in ("x.csv", "x.conll"):
        path = tmp_path / name
        path.write_bytes(b"w\tt\ngood\tA\ncaf\xe9\tB\n")
        with pytest.raises(DataError, match=r"line 3: byte 14 of the file is not UTF-8 \(0xe9\)"):
            read_file(path)
