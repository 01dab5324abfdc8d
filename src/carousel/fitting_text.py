"""`fit` for texts that are made: translate and generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from carousel.errors import CarouselError
from carousel.fitting import Out, Resume, Seeds, Set, Tune, run, search
from carousel.options import Debug, Json, require_place, write_json
from carousel.text_options import own_settings, read_dialogue_file, read_pairs, read_whole

__all__ = ["generate", "translate"]

Tokens = Annotated[str, typer.Option(metavar="KIND", help="bpe, unigram, char or word.")]
VocabularySize = Annotated[int, typer.Option("--vocabulary", metavar="N", help="How many different tokens.")]
Lowercase = Annotated[bool, typer.Option("--lowercase", help="Write all in lower case; it does not come back.")]
Texts = Annotated[
    Path, typer.Argument(metavar="DATA", help="A table (CSV, TSV, Parquet, JSONL) or a file of lines; .gz, .xz too.")
]

OF_PAIRS = ("merges", "smoothing", "shared", "attention", "input_feeding", "embedding", "encoder_layers")
OF_TEXT = ("embedding", "dropout", "input_dropout", "layer_dropout", "word_dropout", "activation", "slowness")


def translate(
    data: Texts,
    out: Out,
    source: Annotated[str, typer.Option(metavar="COLUMN", help="Column of the texts to translate.")] = "source",
    target: Annotated[str, typer.Option(metavar="COLUMN", help="Column of their translations, or replies.")] = "target",
    target_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Translations line by line, where DATA are lines.")
    ] = None,
    turns: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="DATA are dialogues, one a line, turns between tabs: learn replies to N turns."
        ),
    ] = 0,
    id: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Dialogues of a table, a turn a row: which dialogue it is of.")
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
      carousel fit translate dialogues.txt --turns 3 --out replies.safetensors
    """
    require_place(out, (".safetensors",))
    from carousel.translator import Translator

    own, rest = own_settings(Translator, OF_PAIRS, set_)
    model = Translator(
        source,
        target,
        tokens=tokens,  # type: ignore[arg-type]
        vocabulary=vocabulary,
        lowercase=lowercase,
        turns=turns,
        seeds=seeds,
        config=Translator.defaults.with_settings(rest),
        **({"merges": 0.1 if tokens == "bpe" else 0.0} | own),
    )
    if valid_target_file is not None and valid is None:
        raise CarouselError("--valid-target-file needs --valid, the file that it belongs to.")
    if id is not None and not turns:
        raise CarouselError("--id is about dialogues; say with --turns how many turns a reply is to.")

    def pairs_from(path: Path, other: Path | None, option: str) -> Any:
        if turns:
            return read_dialogue_file(path, other, option, id, source)
        return read_pairs(path, other, source, target, option)

    held_out = None if valid is None else pairs_from(valid, valid_target_file, "--valid-target-file")
    pairs = pairs_from(data, target_file, "--target-file")
    seconds = run(model, pairs, out, resume, data, {"valid": held_out}, search(tune, set_), valid=valid)
    then = f"chat {out}" if turns else f"predict {out} TEXTS"
    _tell(model, out, f"{model.provenance_['pairs']:,} pairs", seconds, as_json, then)


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

    own, rest = own_settings(Generator, OF_TEXT, set_)
    model = Generator(
        text,
        tokens=tokens,  # type: ignore[arg-type]
        vocabulary=vocabulary,
        lowercase=lowercase,
        seeds=seeds,
        config=Generator.defaults.with_settings(rest),
        **own,
    )
    held_out = None if valid is None else read_whole(valid, text)
    seconds = run(
        model, read_whole(data, text), out, resume, data, {"valid": held_out}, search(tune, set_), valid=valid
    )
    _tell(model, out, f"{model.provenance_['tokens']:,} tokens", seconds, as_json, f"predict {out} TEXTS")


def _tell(model: Any, out: Path, what: str, seconds: float, as_json: bool, then: str) -> None:
    if as_json:
        write_json({"model": str(out), "provenance": model.provenance_})
        return
    typer.echo(f"{out}: {what}, fitted in {seconds:.0f} s.\nNext: carousel {then}")
