"""What the command line says about texts with labels: which column, which tokens, and what is hidden in training."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Annotated, Any

import typer

from carousel.errors import CarouselError
from carousel.options import Names, read

__all__ = [
    "Crf",
    "Intent",
    "Keep",
    "Longest",
    "Lowercase",
    "Spelling",
    "TextColumn",
    "TokenKind",
    "Vectors",
    "VocabularySize",
    "read_labelled",
    "split_settings",
    "table_for",
    "words_of",
]

TextColumn = Annotated[str | None, typer.Option("--text", metavar="COLUMN", help="DATA are texts: their column.")]
TokenKind = Annotated[str | None, typer.Option("--tokens", metavar="KIND", help="text: bpe, unigram, char or word.")]
VocabularySize = Annotated[
    int | None, typer.Option("--vocabulary", metavar="N", min=1, help="text: at most so many different tokens.")
]
Lowercase = Annotated[bool, typer.Option("--lowercase", help="text: read all in lower case.")]
Spelling = Annotated[
    int | None,
    typer.Option("--spelling", metavar="N", min=0, help="text: N numbers for each prefix, suffix and shape; 0: none."),
]
Vectors = Annotated[
    Path | None, typer.Option("--vectors", metavar="FILE", help="text: pretrained vectors, as GloVe writes them.")
]
Longest = Annotated[
    int | None, typer.Option("--longest", metavar="N", min=1, help="text: so many tokens of each; without it all.")
]
Keep = Annotated[
    str | None, typer.Option("--keep", metavar="WHICH", help="--longest: the first, the last, or both ends.")
]
Intent = Annotated[
    str | None, typer.Option("--intent", metavar="COLUMN", help="text: label of the whole text, learned in one go.")
]
Crf = Annotated[bool, typer.Option("--crf", help="text: labels as a chain, the likeliest ones together.")]

PREFIX = "words."


def split_settings(settings: Names) -> tuple[list[str], list[str]]:
    """Those of texts, without their prefix, and those of training.

    >>> split_settings(["words.width=64", "steps=10"])
    (['width=64'], ['steps=10'])
    """
    given = settings or []
    own = [text.removeprefix(PREFIX) for text in given if text.startswith(PREFIX)]
    return own, [text for text in given if not text.startswith(PREFIX)]


def words_of(column: str | None, defaults: Any, settings: list[str], **given: Any) -> Any:
    """The `TextConfig` that the options say, the others as in `defaults`; None without --text."""
    said = {name: value for name, value in given.items() if value not in (None, False)}
    if column is None:
        if said or settings:
            name = f"--{next(iter(said))}" if said else f"--set {PREFIX}{settings[0]}"
            raise CarouselError(f"{name} is about texts; name their column with --text, or leave it out.")
        return None
    if "longest" not in said and "keep" in said:
        raise CarouselError("--keep is about --longest, how many tokens of a text are kept; give both.")
    if "vectors" in said:
        said["vectors"] = str(said["vectors"])
    kinds = typing.get_type_hints(type(defaults))
    for setting in settings:
        name, equals, text = setting.partition("=")
        if name not in kinds or not equals:
            raise CarouselError(f"there is no setting {PREFIX}{setting}; known are {', '.join(kinds)}, as name=value.")
        said[name] = _value(name, kinds[name], text)
    if said.get("tokens", defaults.tokens) != defaults.tokens:  # what is about the usual tokens alone
        usual = {"spelling": 0, "merges": 0.0}
        said = {name: value for name, value in usual.items() if name not in said} | said
    try:
        return dataclasses.replace(defaults, **said)
    except ValueError as error:
        raise CarouselError(f"the choices of texts are refused: {error}; correct the option.") from None


def _value(name: str, kind: Any, text: str) -> Any:
    if kind is bool:
        found = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower())
        if found is None:
            raise CarouselError(f"setting {PREFIX}{name} must be true or false, got {text!r}.")
        return found
    if kind not in (int, float):
        return text
    try:
        return kind(text)
    except ValueError:
        meant = "a whole number" if kind is int else "a number"
        raise CarouselError(f"setting {PREFIX}{name} must be {meant}, got {text!r}.") from None


def read_labelled(path: Path | None, column: str | None, *labels: str | None) -> Any:
    """A table whose column of texts is taken as it stands, as are its `labels` where they are text; None without a
    path."""
    if path is None:
        return None
    return read(path) if column is None else read(path, (column,), [name for name in labels if name is not None])


def table_for(estimator: Any, path: Path) -> Any:
    """A table for a fitted model; one of texts takes the lines of a file that is none as well."""
    from carousel.inputs.files import SUFFIXES

    seen = estimator.config_.input
    if not getattr(estimator, "of_texts", False):
        return read(path)
    (column,) = seen.roles.features or (None,)
    if path.name.lower().endswith(SUFFIXES):
        return read_labelled(path, column, *seen.roles.target, getattr(estimator, "intent", None))
    import polars

    from carousel.inputs.texts import read_lines

    if seen.form == "rows":
        raise CarouselError(f"{path}: the model reads tables with a word in each row; give one, or a .conll file.")
    return polars.DataFrame({column or "text": read_lines(path)})
