"""Banned words: in every segmentation, in no other word, in every kind of vocabulary."""

from __future__ import annotations

import pytest
import torch

from carousel.banned import Banned
from carousel.inputs.text import END, Vocabulary, fit_vocabulary

TEXTS = ["the cat sat", "a category of cats", "new york is new", "猫が好き", 'say "cat" and über'] * 3


def segmentations(words: Vocabulary, text: str) -> list[list[int]]:
    raw = text.encode()
    if words.kind != "char":
        raw = b" " + raw
    found: list[list[int]] = []

    def go(at: int, made: list[int]) -> None:
        if at == len(raw):
            found.append(made)
            return
        for k, own in enumerate(words.spelled):
            if own and raw.startswith(own, at) and len(found) < 400:
                go(at + len(own), [*made, k])

    go(0, [])
    return found


def allowed(banned: Banned, tokens: list[int]) -> bool:
    """Whether the tokens, and the end after them, can be made one after another."""
    return not any(
        banned(torch.tensor([tokens[:k]], dtype=torch.long))[0, token] for k, token in enumerate([*tokens, END])
    )


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char", "word"])
def test_spelled_tokens_are_the_text(kind) -> None:
    words = fit_vocabulary(TEXTS, kind=kind, size=330)
    for text in TEXTS:
        made = b"".join(words.spelled[k] for k in words.encode([text])[0]).decode()
        assert made.removeprefix(" ") == text


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char"])
def test_a_banned_word_appears_in_no_segmentation(kind) -> None:
    words = fit_vocabulary(TEXTS, kind=kind, size=330)
    banned = Banned(words, ["cat", "New York", "猫", "Über"])
    for text in ("the cat", "the cat sat", "Cat", "cat", "a new york", "x über x", "好猫", 'a "cat"'):
        several = segmentations(words, text)
        assert len(several) > 1 or kind != "bpe"
        assert not any(allowed(banned, tokens) for tokens in several), text
    for text in ("the concat", "new yor", "categor" if kind == "char" else "the caт", "darüber", "at", "c a t"):
        assert any(allowed(banned, tokens) for tokens in segmentations(words, text)), text


def test_rows_are_told_apart() -> None:
    words = fit_vocabulary(TEXTS, kind="bpe", size=330)
    banned = Banned(words, ["cat"])
    c, a, t = ([words.spelled.index(raw)] for raw in (b"c", b"a", b"t"))
    blank = [words.spelled.index(b" ")]
    history = torch.tensor([blank + c + a, a + c + a, blank + a + c])
    assert banned(history)[:, t[0]].tolist() == [True, False, False]
    for which in range(3):
        assert banned(history)[which].equal(banned(history[which : which + 1])[0])
