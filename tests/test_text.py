"""Text in and out: any text comes back unchanged, marks cannot be written by users, faults name their place."""

from __future__ import annotations

import gzip
import random
from itertools import pairwise

import numpy as np
import pytest

from carousel.errors import DataError
from carousel.inputs.text import END, MARKS, Vocabulary, batches_by_tokens, fit_vocabulary
from carousel.inputs.texts import read_lines, read_parallel, read_text, read_vectors

LINES = ["Ein Haus am See.", "Das Haus ist weiß und steht am großen See.", "a  b\tc", "Zwei Männer am See"] * 5
ODD = [
    "",
    " ",
    "  two  blanks ",
    "</s> <s> <turn> <unk> <0x41>",
    "tab\tline\nfeed\r\n",
    "東京🙂\u0000\u200d",
    "é e\u0301",
]


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char"])
def test_any_text_comes_back_unchanged_and_never_turns_into_a_mark(kind):
    words = fit_vocabulary(LINES, kind=kind, size=300)
    rng = random.Random(3)
    wild = ["".join(chr(rng.choice([rng.randrange(32, 127), rng.randrange(0x2000, 0xD7FF)])) for _ in range(40))]
    texts = LINES + ODD + wild
    tokens = words.encode(texts)
    assert words.decode(tokens) == texts
    assert len(tokens) == len(texts)
    assert tokens.values.min() >= MARKS
    assert tokens.values.max() < words.size == len(words.tokens) <= 300
    assert Vocabulary(kind, words.tokenizer).encode(texts).values.tolist() == tokens.values.tolist()
    assert words.decode([[END, *tokens[1], END]]) == [LINES[1]]


def test_dropped_merges_change_the_tokens_and_not_the_text():
    words = fit_vocabulary(LINES, size=300)
    plain, dropped = words.encode(LINES), words.encode(LINES, dropout=0.5)
    assert len(dropped.values) > len(plain.values)
    assert words.decode(dropped) == LINES
    assert words.encode(LINES).values.tolist() == plain.values.tolist()
    with pytest.raises(ValueError, match="needs the kind 'bpe'"):
        fit_vocabulary(LINES, kind="word", size=20).encode(LINES, dropout=0.1)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_megabyte_without_a_blank_is_learned_from(kind):
    text = "to be " + "ab" * 2**19 + " or not\n" * 3
    words = fit_vocabulary([text], kind=kind, size=400)
    (ids,) = words.encode([text], longest=None)
    assert words.decode([ids]) == [text]
    assert len(ids) < 2**17


def test_words_have_unknowns_and_lower_case_is_a_choice():
    words = fit_vocabulary(["the cat", "The dog", "the end"], kind="word", size=MARKS + 3)
    assert words.tokens[MARKS:] == ("<unk>", "the", "The")
    assert words.decode(words.encode(["the mouse"])) == ["the <unk>"]
    lower = fit_vocabulary(["the cat", "The dog"], kind="word", size=20, lowercase=True)
    assert "The" not in lower.tokens
    assert lower.decode(lower.encode(["THE CAT"])) == ["the cat"]


def test_faults_of_text_are_named():
    words = fit_vocabulary(LINES, size=300)
    with pytest.raises(DataError, match=r"^text 2 has 1,048,577 characters, at most"):
        words.encode(["a", "b" * (2**20 + 1)])
    with pytest.raises(DataError, match=r"^text 1 is no valid Unicode at character 3"):
        words.encode(["ab\ud800"])
    with pytest.raises(DataError, match="there is no text"):
        fit_vocabulary(["", "  "])
    with pytest.raises(ValueError, match="size of at least 260"):
        fit_vocabulary(LINES, size=100)
    with pytest.raises(ValueError, match="needs a Unigram model, got BPE"):
        Vocabulary("unigram", words.tokenizer)


def test_batches_hold_every_sequence_once_within_the_tokens():
    lengths = np.random.default_rng(0).integers(0, 30, 200)
    for rng in (None, np.random.default_rng(1)):
        batches = list(batches_by_tokens(lengths, 64, rng))
        assert sorted(np.concatenate(batches).tolist()) == list(range(200))
        assert max(int(lengths[b].sum()) for b in batches) <= 64
        ends = sorted((int(lengths[b].min()), int(lengths[b].max())) for b in batches)
        assert all(low[1] <= high[0] for low, high in pairwise(ends))
    assert [b.tolist() for b in batches_by_tokens(np.array([100, 1]), 10)] == [[1], [0]]


def test_files_are_read_whole_or_refused_with_the_place(tmp_path):
    (tmp_path / "a.txt").write_bytes("eins\nzwei\u2028noch zwei\n\n".encode())
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"one\r\ntwo\r\n\r\n"))
    assert read_parallel(tmp_path / "a.txt", tmp_path / "b.txt.gz") == [
        ["eins", "zwei\u2028noch zwei", ""],
        ["one", "two", ""],
    ]
    (tmp_path / "c.txt").write_bytes(b"one\n")
    with pytest.raises(DataError, match=r"c.txt: it has 1 lines and .*a.txt has 3; line 2 stands alone"):
        read_parallel(tmp_path / "a.txt", tmp_path / "c.txt")
    (tmp_path / "d.txt").write_bytes(b"one\n \n\n")
    with pytest.raises(DataError, match=r"d.txt, line 2: it is empty and its partner is not"):
        read_parallel(tmp_path / "a.txt", tmp_path / "d.txt")
    (tmp_path / "e.txt").write_bytes(b"good\nbad \xff\n")
    with pytest.raises(DataError, match=r"e.txt, line 2: byte 9 of the file is not UTF-8 \(0xff\)"):
        read_text(tmp_path / "e.txt")
    (tmp_path / "f.txt").write_bytes(b"")
    with pytest.raises(DataError, match=r"f.txt: the file is empty"):
        read_lines(tmp_path / "f.txt")
    with pytest.raises(DataError, match=r"none.txt: the file cannot be read \(No such file"):
        read_text(tmp_path / "none.txt")
    whole = gzip.compress(b"some words and more " * 50)
    for broken in (whole[:30], whole[:20] + b"\0\0\0\0" + whole[24:], b"no gzip"):
        (tmp_path / "g.gz").write_bytes(broken)
        with pytest.raises(DataError, match=r"g.gz: the file cannot be unpacked \(.*\); pack it anew"):
            read_text(tmp_path / "g.gz")
    (tmp_path / "h.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert read_text(tmp_path / "h.txt") == "one\ntwo\n"
    (tmp_path / "h.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo \xff\r\n")
    with pytest.raises(DataError, match=r"h.txt, line 2: byte 12 of the file is not UTF-8 \(0xff\)"):
        read_text(tmp_path / "h.txt")
    (tmp_path / "i.txt").write_text("\n\n" + "b" * (2**20 + 1))
    with pytest.raises(DataError, match=r"i.txt, line 3: it has 1,048,577 characters, at most"):
        read_parallel(tmp_path / "i.txt", tmp_path / "i.txt")


def test_vectors_are_found_by_word(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("3 2\nsee 1 2\nhaus -0.5 4\nNew York 7 8\n")
    found, seen = read_vectors(path, ("haus", "am", "New York"))
    assert found.tolist() == [[-0.5, 4], [0, 0], [7, 8]]
    assert seen.tolist() == [True, False, True]
    path.write_text("see 1 2\nhaus 3\n")
    with pytest.raises(DataError, match="line 2: expected a word and 2 numbers"):
        read_vectors(path, ("haus",))
    path.write_text("see 1 2\nhaus 3 x\n")
    with pytest.raises(DataError, match="line 2: there is text among its numbers"):
        read_vectors(path, ("haus",))
    path.write_text("2 2\nsee 1 2\nhaus 3 nan\n")
    with pytest.raises(DataError, match="line 3: its numbers are not all finite"):
        read_vectors(path, ("haus",))
