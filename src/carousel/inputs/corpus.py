"""Texts with labels, from tables, arrays and CoNLL files: whole texts, or texts as words that have a label each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError, MissingExtra
from carousel.inputs import columns
from carousel.inputs.roles import Roles
from carousel.inputs.text import LONGEST
from carousel.inputs.texts import read_lines
from carousel.inputs.tokens import Form, TokenChannels, TokenInput

if TYPE_CHECKING:
    import polars

__all__ = ["Corpus", "corpus_of_arrays", "corpus_of_table", "join", "read_conll"]

Ints = NDArray[np.int64]

CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")


@dataclass(frozen=True)
class Corpus:
    """B texts in the order in which they were given, of N parts in all: themselves, or their words.

    `row` [N] is the 1-based place of a part's label in `target`; `line` [N] the row of the user's table that it stands
    in. `intent` holds a label for each text. `backend` None: arrays.
    """

    roles: Roles
    form: Form
    ids: list[Any]
    parts: tuple[str, ...]
    offsets: Ints
    line: Ints
    source: str
    backend: Any = None
    id_dtype: Any = None
    keys: Any = None  # the id column of the table, where it has one
    target: Any = None  # narwhals series [N], or None
    intent: Any = None  # narwhals series or labels [B], or None

    @property
    def lengths(self) -> Ints:
        return np.diff(self.offsets)

    @property
    def row(self) -> Ints:
        return np.arange(1, len(self.parts) + 1)

    def given(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of each part [N] the value of its label."""
        return values

    def made_channels(self, fitted: TokenInput) -> TokenChannels:
        """What the model sees of them."""
        return fitted.channels(self.parts, self.offsets)

    def name(self, k: int) -> str:
        """A text as a message names it."""
        what = "row" if self.backend is not None else "text"
        return f"{what} {int(self.line[self.offsets[k]])}"

    def words(self, k: int) -> tuple[str, ...]:
        """The parts of a text."""
        return self.parts[int(self.offsets[k]) : int(self.offsets[k + 1])]


def corpus_of_table(
    frame: Any, roles: Roles, *, source: str, words: bool, target: bool, intent: str | None = None
) -> Corpus:
    """The texts of a table, whose column is the only feature of `roles`.

    `words`: each word has a label. Then with an id there is one word in each row, those of a text in a run of rows with
    the same id; without one each row holds a whole text, words and labels separated by blanks. `target`: the columns of
    labels must be there. Raises DataError for faults of the table, which name its rows.
    """
    table = columns.as_frame(frame, source)
    (name,) = roles.features
    found = columns.texts(table, name, source)
    wanted = [*roles.target, *([intent] if intent else [])] if target else []
    columns.require(table, ([roles.id] if roles.id else []) + wanted, source)
    _refuse_empty(found, source, name)
    keys = table.select([roles.id]) if roles.id else None
    whole = table[intent] if intent and target else None
    label = table[roles.target[0]] if target and roles.target else None
    numbers = np.arange(1, len(found) + 1)
    common: dict[str, Any] = {"source": source, "backend": table.implementation, "keys": keys}
    if keys is not None:
        common["id_dtype"] = keys[keys.columns[0]].dtype
    if not words:
        ids = keys[keys.columns[0]].to_list() if keys is not None else list(range(len(found)))
        offsets = np.arange(len(found) + 1)
        return Corpus(roles, "texts", ids, tuple(found), offsets, numbers, target=label, **common)
    if roles.id is not None:
        ids, offsets = _runs(table[roles.id], source)
        first = None if whole is None else _constant(whole, offsets, source)
        return Corpus(roles, "rows", ids, tuple(found), offsets, numbers, target=label, intent=first, **common)
    split = [text.split() for text in found]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in split])]).astype(np.int64)
    given = None if label is None else _split_labels(label, split, source, name)
    return Corpus(
        roles,
        "cells",
        list(range(len(found))),
        tuple(word for part in split for word in part),
        offsets,
        np.repeat(numbers, np.diff(offsets)),
        target=given,
        intent=whole,
        **common,
    )


def corpus_of_arrays(texts: Any, *, words: bool, source: str = "X") -> Corpus:
    """A list of texts, or with `words` of lists of words. Raises DataError for anything else and for empty ones."""
    parts = [texts] if isinstance(texts, str) else list(texts)
    kind = "a list of texts" if not words else "a list of lists of words"
    for k, part in enumerate(parts):
        fits = (
            isinstance(part, str) if not words else not isinstance(part, str) and all(isinstance(w, str) for w in part)
        )
        if not fits:
            raise DataError(f"{source}[{k}]: expected {kind}, got {type(part).__name__}; convert it.")
    if not parts:
        raise DataError(f"{source}: there is no text; give at least one.")
    split: list[list[str]] = [list(part) for part in parts] if words else [[part] for part in parts]
    flat = [word for part in split for word in part]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in split])]).astype(np.int64)
    empty = [k for k, part in enumerate(split) if not part or not all(word.strip() for word in part)]
    if empty:
        raise DataError(f"{source}[{empty[0]}]: the text or one of its words is empty; complete it or leave it out.")
    _refuse_long(flat, source, "text")
    line = np.repeat(np.arange(1, len(split) + 1), np.diff(offsets))
    return Corpus(Roles(), "cells" if words else "texts", list(range(len(split))), tuple(flat), offsets, line, source)


def join(first: Corpus, second: Corpus) -> Corpus:
    """Both, one after the other, as one to learn from."""
    return replace(
        first,
        ids=[*first.ids, *second.ids],
        parts=first.parts + second.parts,
        offsets=np.concatenate([first.offsets, first.offsets[-1] + second.offsets[1:]]),
        line=np.concatenate([first.line, second.line]),
        target=_together(first.target, second.target, second.source),
        intent=_together(first.intent, second.intent, second.source),
        keys=None,
    )


def read_conll(path: str | Path) -> polars.DataFrame:
    """A file of one word a line, an empty line after each sentence: a table with the columns `sentence` and those of
    the file.

    .conllu names its columns (form, upos, ...), and lines of multi-word tokens and of empty nodes are left out, as is
    usual; of other files the first column is `word`, the last `tag`, those between `column2` and so on. Fields are
    separated by tabs where a line has one, else by blanks. A line that begins with # is a comment, unless it is a word
    with a tag that other words have as well. Raises DataError for lines with another number of fields.
    """
    try:
        import polars as pl
    except ImportError:
        raise MissingExtra("polars", "train", "Reading tables from files") from None
    universal = "".join(Path(path).suffixes[-2:]).lower().startswith(".conllu") or Path(path).suffix == ".conllu"
    rows: list[list[str]] = []
    sentences: list[int] = []
    sentence, inside = 0, False
    lines = read_lines(path)
    sure = [_fields(line) for line in lines if line.strip() and not line.startswith(("#", "-DOCSTART-"))]
    width = len(CONLLU) if universal else len(sure[0]) if sure else 0
    tags = {fields[-1] for fields in sure if len(fields) == width}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            inside = False
            continue
        fields = _fields(line)
        marked = line.startswith("#") and (universal or len(fields) != width or fields[-1] not in tags)
        if line.startswith("-DOCSTART-") or (marked and (universal or not inside)):
            continue
        if len(fields) != width or width < 2:
            expected = f"{max(width, 2)} fields separated by tabs or blanks"
            raise DataError(f"{path}, line {number:,}: expected {expected}, got {len(fields)}; repair the line.")
        if universal and not fields[0].isdecimal():
            continue
        sentence += not inside
        inside = True
        rows.append(fields)
        sentences.append(sentence)
    if not rows:
        raise DataError(f"{path}: there is no sentence; give one word on each line with its labels.")
    names = CONLLU if universal else ("word", *(f"column{k}" for k in range(2, width)), "tag")
    made = {name: [row[k] for row in rows] for k, name in enumerate(names)}
    made.pop("id", None)
    return pl.DataFrame({"sentence": sentences} | made, schema_overrides=dict.fromkeys(made, pl.String))


def _fields(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else line.split()


def _together(first: Any, second: Any, source: str) -> Any:
    if first is None or second is None:
        return None
    if isinstance(first, list):
        return [*first, *second]
    if columns.is_text(first) != columns.is_text(second):
        raise DataError(f"{source}, column {first.name!r}: its type is not that of the other table; write both alike.")
    kind = nw.String() if columns.is_text(first) else first.dtype
    values = [*first.cast(kind).to_list(), *second.cast(kind).to_list()]
    return nw.new_series(first.name, values, kind, backend=nw.get_native_namespace(first))


def _refuse_empty(texts: Sequence[str], source: str, name: str) -> None:
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise DataError(
                f"{source}, row {number}, column {name!r}: the text is empty; complete the row or leave it out."
            )
    _refuse_long(texts, source, "row")


def _refuse_long(texts: Sequence[str], source: str, what: str) -> None:
    for number, text in enumerate(texts, 1):
        if len(text) > LONGEST:
            raise DataError(
                f"{source}, {what} {number}: the text has {len(text):,} characters, at most {LONGEST:,} are taken at"
                " once; split it."
            )


def _runs(column: nw.Series[Any], source: str) -> tuple[list[Any], Ints]:
    """The ids of the texts in the order of the table and where their rows begin; DataError for one that comes back."""
    values = column.to_list()
    if None in values:
        row = values.index(None) + 1
        raise DataError(f"{source}, row {row}, column {column.name!r}: the id is missing; fill it in.")
    begins = [k for k in range(len(values)) if k == 0 or values[k] != values[k - 1]]
    ids = [values[k] for k in begins]
    seen: set[Any] = set()
    for k in begins:
        if values[k] in seen:
            raise DataError(
                f"{source}, row {k + 1}: the text {values[k]!r} goes on after another one; keep its words together."
            )
        seen.add(values[k])
    return ids, np.array([*begins, len(values)], np.int64)


def _constant(whole: nw.Series[Any], offsets: Ints, source: str) -> Any:
    """The label of each text from a column that repeats it for each word."""
    values = whole.to_list()
    for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        for k in range(begin, end):
            if values[k] != values[begin]:
                raise DataError(
                    f"{source}, row {k + 1}, column {whole.name!r}: the label changes within a text; it has one label."
                )
    return whole[offsets[:-1].tolist()]


def _split_labels(label: nw.Series[Any], words: list[list[str]], source: str, text: str) -> Any:
    """The labels of all words; DataError where a cell holds another number of labels than its partner has words."""
    if not columns.is_text(label):
        raise DataError(
            f"{source}, column {label.name!r}: expected as many labels as the text has words, separated by blanks, got"
            f" {label.dtype}; where each row is a word, name the id of its text."
        )
    found: list[str] = []
    for number, (cell, part) in enumerate(zip(label.to_list(), words, strict=True), 1):
        labels = [] if cell is None else str(cell).split()
        if len(labels) != len(part):
            raise DataError(
                f"{source}, row {number}: {text!r} has {len(part)} words and {label.name!r} {len(labels)} labels; give"
                " one for each word."
            )
        found += labels
    return nw.new_series(label.name, found, nw.String(), backend=nw.get_native_namespace(label))
