"""Dialogues: turn follows turn, two speakers alternate; a reply is learned from the turns before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from carousel.errors import DataError
from carousel.inputs import columns
from carousel.inputs.text import BEGIN, TURN, PairInput, Tokens
from carousel.inputs.texts import read_lines

__all__ = ["DialogueInput", "context_of", "dialogues_of", "pairs_of", "read_dialogues", "require_dialogues", "turns_of"]

MARK = "__eou__"  # ends a turn in DailyDialog's files (Li et al. 2017)


@dataclass(frozen=True)
class DialogueInput(PairInput):
    """Replies to at most `turns` turns: a source is a text of turns, one a line, the last one the one to reply to.

    Before every turn stands a mark of who speaks: TURN before what the other says, BEGIN before what is said by the one
    who replies, whose reply begins with BEGIN as well. No longer context is read than that, from its end.

    >>> from carousel.inputs.text import fit_vocabulary
    >>> words = fit_vocabulary(["how are you", "fine"], kind="word", size=20)
    >>> ids = DialogueInput(("source", "target"), words, turns=2).read(["fine\\nhow are\\nfine"])[0]
    >>> [words.tokens[k] for k in ids]  # the one who replies asked "how are"
    ['<s>', 'how', 'are', '<turn>', 'fine']
    """

    turns: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.turns < 1:
            raise ValueError(f"a context has at least 1 turn, got {self.turns}")

    def read(self, texts: Sequence[str], *, dropout: float = 0.0) -> Tokens:
        contexts = [[turn for turn in text.split("\n") if turn.strip()][-self.turns :] for text in texts]
        counts = np.array([len(turns) for turns in contexts], np.int64)
        ids = self.source.encode([turn for turns in contexts for turn in turns], dropout=dropout)
        left = np.repeat(np.cumsum(counts), counts) - np.arange(counts.sum())  # turns up to the reply
        marks = np.where(left % 2 == 1, TURN, BEGIN)
        ends = np.concatenate([[0], np.cumsum(ids.lengths + 1)])
        return Tokens(
            np.insert(ids.values, ids.offsets[:-1], marks),
            ends[np.concatenate([[0], np.cumsum(counts)])].astype(np.int64),
        )


def context_of(turns: Iterable[str]) -> str:
    """Turns as the text that a DialogueInput reads: one a line, their own line ends being blanks."""
    return "\n".join(" ".join(turn.split()) for turn in turns)


def pairs_of(dialogues: Sequence[Sequence[str]], turns: int) -> tuple[list[str], list[str]]:
    """Contexts and replies: every turn but a dialogue's first is a reply to the turns before it, at most `turns`.

    >>> pairs_of([["hi", "hello", "how are you"]], 2)
    (['hi', 'hi\\nhello'], ['hello', 'how are you'])
    """
    found = [(context_of(d[max(0, k - turns) : k]), context_of([d[k]])) for d in dialogues for k in range(1, len(d))]
    return [context for context, _ in found], [reply for _, reply in found]


def read_dialogues(path: str | Path) -> list[list[str]]:
    """Dialogues of a file: one a line, its turns between tabs, or each ended by `__eou__`; .gz and .xz are unpacked.

    Raises DataError as `read_lines` does, and for a dialogue of less than two turns or with an empty one.
    """
    found = [turns_of(line) for line in read_lines(path)]
    require_dialogues(found, str(path), "line")
    return found


def turns_of(line: str) -> list[str]:
    """The turns of a line.

    >>> turns_of("hi\\thello\\tbye"), turns_of("hi __eou__ hello __eou__")
    (['hi', 'hello', 'bye'], ['hi', 'hello'])
    """
    parts = line.split(MARK) if MARK in line else line.split("\t")
    if MARK in line and not parts[-1].strip():
        parts = parts[:-1]
    return [part.strip() for part in parts]


def dialogues_of(table: Any, id: str, text: str, source: str) -> list[list[str]]:
    """Dialogues of a table with one turn a row, in the order of its rows; `id` says which dialogue.

    Raises DataError where a column is missing, or a dialogue has less than two turns or an empty one.
    """
    frame = columns.as_frame(table, source)
    turns = columns.texts(frame, text, source)
    columns.require(frame, (id,), source)
    found: dict[Any, list[str]] = {}
    for key, turn in zip(frame[id].to_list(), turns, strict=True):
        found.setdefault(key, []).append(turn)
    require_dialogues(list(found.values()), source)
    return list(found.values())


def require_dialogues(dialogues: Sequence[Sequence[str]], source: str, place: str = "dialogue") -> None:
    """Raise DataError, which names the place, for dialogues that nothing can be learned from."""
    for number, turns in enumerate(dialogues, 1):
        if isinstance(turns, str) or len(turns) < 2:
            raise DataError(
                f"{source}, {place} {number:,}: a dialogue has two turns at least, between tabs or ended by {MARK};"
                " complete or remove it."
            )
        for k, turn in enumerate(turns, 1):
            if not isinstance(turn, str) or not turn.strip():
                raise DataError(f"{source}, {place} {number:,}: turn {k} is empty; complete or remove the dialogue.")
