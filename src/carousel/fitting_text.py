"""`fit` for the tasks of text: translate and generate; and how texts are read and decoded on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from carousel.errors import CarouselError
from carousel.fitting import Out, Resume, Seeds, Set, Tune, run, search
from carousel.options import Debug, Json, Names, read, require_place, write_json

__all__ = ["decoding", "generate", "read_texts", "translate"]

Tokens = Annotated[str, typer.Option(metavar="KIND", help="bpe, unigram, char or word.")]
VocabularySize = Annotated[int, typer.Option("--vocabulary", metavar="N", help="How many different tokens.")]
Lowercase = Annotated[bool, typer.Option("--lowercase", help="Write all in lower case; it does not come back.")]
Texts = Annotated[
    Path, typer.Argument(metavar="DATA", help="A table (CSV, TSV, Parquet, JSONL) or a file of lines; .gz, .xz too.")
]


def translate(
    data: Texts,
    out: Out,
    source: Annotated[str, typer.Option(metavar="COLUMN", help="Column of the texts to translate.")] = "source",
    target: Annotated[str, typer.Option(metavar="COLUMN", help="Column of their translations, or replies.")] = "target",
    target_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Translations line by line, where DATA are lines.")
    ] = None,
    valid: Annotated[Path | None, typer.Option(metavar="FILE", help="Pairs to validate on, instead of some.")] = None,
    valid_target_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Translations of VALID line by line, where it is lines.")
    ] = None,
    tokens: Tokens = "bpe",
    vocabulary: VocabularySize = 6000,
    lowercase: Lowercase = False,
    seeds: Seeds = 1,
    set_: Set = None,
    tune: Tune = None,
    resume: Resume = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Learn one text from another: translation, replies.

    \b
    Example:
      carousel fit translate pairs.tsv --source de --target en --out m.safetensors
      carousel fit translate train.de --target-file train.en --out m.safetensors
    """
    require_place(out, (".safetensors",))
    from carousel.translator import Translator

    model = Translator(
        source,
        target,
        tokens=tokens,  # type: ignore[arg-type]
        vocabulary=vocabulary,
        lowercase=lowercase,
        merges=0.1 if tokens == "bpe" else 0.0,
        seeds=seeds,
        config=Translator.defaults.with_settings(set_ or []),
    )
    if valid_target_file is not None and valid is None:
        raise CarouselError("--valid-target-file needs --valid, the file that it belongs to.")
    held_out = None if valid is None else _pairs(valid, valid_target_file, source, target, "--valid-target-file")
    pairs = _pairs(data, target_file, source, target, "--target-file")
    seconds = run(model, pairs, out, resume, data, {"valid": held_out}, search(tune, set_), valid=valid)
    _tell(model, out, f"{model.provenance_['pairs']:,} pairs", seconds, as_json)


def generate(
    data: Texts,
    out: Out,
    text: Annotated[str, typer.Option(metavar="COLUMN", help="Column of the texts, where DATA are a table.")] = "text",
    valid: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text to validate on, instead of the last.")
    ] = None,
    tokens: Tokens = "bpe",
    vocabulary: VocabularySize = 8000,
    lowercase: Lowercase = False,
    seeds: Seeds = 1,
    set_: Set = None,
    tune: Tune = None,
    resume: Resume = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Learn a language model: what comes next in a text.

    \b
    Example:
      carousel fit generate input.txt --tokens char --out m.safetensors
    """
    require_place(out, (".safetensors",))
    from carousel.generator import Generator

    model = Generator(
        text,
        tokens=tokens,  # type: ignore[arg-type]
        vocabulary=vocabulary,
        lowercase=lowercase,
        seeds=seeds,
        config=Generator.defaults.with_settings(set_ or []),
    )
    held_out = None if valid is None else _whole(valid)
    seconds = run(model, _whole(data), out, resume, data, {"valid": held_out}, search(tune, set_), valid=valid)
    _tell(model, out, f"{model.provenance_['tokens']:,} tokens", seconds, as_json)


def read_texts(path: Path) -> Any:
    """A table, or the lines of a file that is none."""
    if is_table(path):
        return read(path)
    from carousel.inputs.texts import read_lines

    return read_lines(path)


def decoding(task: str, settings: Names) -> dict[str, Any]:
    """Options of `Translator.predict` and `Generator.predict` from "name=value" texts.

    >>> decoding("translate", ["size=1", "n_best=1"])["beam"].size
    1
    """
    from carousel.heads.search import Beam, Sampling

    how: type
    others: dict[str, type]
    if task == "translate":
        how, others = Beam, {"n_best": int, "longest": float}
    elif task == "generate":
        how, others = Sampling, {"samples": int, "length": int, "seed": int}
    else:
        if settings:
            raise CarouselError(f"--set is about how texts are made, and this model is for {task}; leave it out.")
        return {}
    known = {name: kind for name, kind in get_type_hints(how).items() if kind in (int, float)} | others
    given: dict[str, Any] = {}
    for setting in settings or []:
        name, equals, value = setting.partition("=")
        if name not in known or not equals:
            raise CarouselError(f"setting {setting!r} is none of {', '.join(f'{k}=' for k in known)}; correct it.")
        try:
            given[name] = known[name](value)
        except ValueError:
            raise CarouselError(f"setting {name} must be a number, got {value!r}.") from None
    try:
        chosen = how(**{name: value for name, value in given.items() if name not in others})
    except ValueError as error:
        raise CarouselError(f"{error}; correct the setting.") from None
    more = {name: value for name, value in given.items() if name in others}
    return more | {"beam" if task == "translate" else "sampling": chosen}


def is_table(path: Path) -> bool:
    from carousel.inputs.files import SUFFIXES

    return path.name.lower().endswith(SUFFIXES)


def _pairs(data: Path, other: Path | None, source: str, target: str, option: str) -> Any:
    """A table of pairs, or a table made of two files of lines."""
    if is_table(data):
        if other is not None:
            raise CarouselError(f"{option} goes with lines, and {data} is a table; leave it out.")
        return read(data)
    if other is None:
        raise CarouselError(f"{data}: the file is of lines, so {option} must name the lines that belong to them.")
    import polars as pl

    from carousel.inputs.texts import read_parallel

    left, right = read_parallel(data, other)
    kept = [(a, b) for a, b in zip(left, right, strict=True) if a.strip()]  # empty in both
    if len(kept) < len(left):
        typer.echo(f"carousel: note: {len(left) - len(kept):,} pairs of empty lines are left out", err=True)
    return pl.DataFrame({source: [a for a, _ in kept], target: [b for _, b in kept]})


def _whole(path: Path) -> Any:
    if is_table(path):
        return read(path)
    from carousel.inputs.texts import read_text

    return read_text(path)


def _tell(model: Any, out: Path, what: str, seconds: float, as_json: bool) -> None:
    if as_json:
        write_json({"model": str(out), "provenance": model.provenance_})
        return
    typer.echo(f"{out}: {what}, fitted in {seconds:.0f} s.\nNext: carousel predict {out} TEXTS")
