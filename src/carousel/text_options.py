"""How texts are read and decoded on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from carousel.errors import CarouselError, DataError
from carousel.options import Names, read

__all__ = ["decoding", "own_settings", "read_dialogue_file", "read_pairs", "read_texts", "read_whole"]


def read_texts(path: Path, text: str, turns: bool = False) -> Any:
    """A table with the column `text`, or the lines of a file that is none; with `turns` each line is the turns of a
    dialogue."""
    if is_table(path) and not (turns and is_lines(path)):
        return read(path, (text,))
    from carousel.inputs.dialogues import turns_of
    from carousel.inputs.texts import read_lines

    lines = read_lines(path)
    if not turns:
        return lines
    found = [turns_of(line) if line.strip() else [] for line in lines]
    for number, said in enumerate(found, 1):
        if not all(said):
            turn = said.index("") + 1
            raise DataError(f"{path}, line {number:,}: turn {turn} is empty; complete or remove the line.")
    return found


def decoding(task: str, settings: Names, replies: bool = False) -> dict[str, Any]:
    """Options of `Translator.predict` and `Generator.predict` from "name=value" texts; `replies` are ranked anew.

    >>> decoding("translate", ["size=1", "n_best=1"])["beam"].size
    1
    >>> decoding("translate", ["weight=0", "temperature=0.5"], replies=True)["mutual"].sampling.temperature
    0.5
    """
    from carousel.heads.search import Beam, Sampling
    from carousel.replies import Mutual

    how: type
    others: dict[str, type]
    if replies:
        how, others = Sampling, {"n_best": int, "longest": float, "seed": int} | _numbers(Mutual)
    elif task == "translate":
        how, others = Beam, {"n_best": int, "longest": float}
    elif task == "generate":
        how, others = Sampling, {"samples": int, "length": int, "seed": int}
    else:
        if settings:
            raise CarouselError(f"--set is about how texts are made, and this model is for {task}; leave it out.")
        return {}
    known = _numbers(how) | others
    given: dict[str, Any] = {}
    for setting in settings or []:
        name, equals, value = setting.partition("=")
        if name not in known or not equals:
            raise CarouselError(f"setting {setting!r} is none of {', '.join(f'{k}=' for k in known)}; correct it.")
        try:
            given[name] = known[name](value)
        except ValueError:
            raise CarouselError(f"setting {name} must be a number, got {value!r}.") from None
    more = {name: value for name, value in given.items() if name in others}
    own = {name: value for name, value in given.items() if name not in others}
    try:
        if replies:
            ranking = {name: more.pop(name) for name in _numbers(Mutual) if name in more}
            return more | {"mutual": Mutual(**ranking, sampling=replace(Mutual().sampling, **own))}
        return more | {"beam" if task == "translate" else "sampling": how(**own)}
    except ValueError as error:
        raise CarouselError(f"{error}; correct the setting.") from None


def _numbers(kind: type) -> dict[str, type]:
    return {name: hint for name, hint in get_type_hints(kind).items() if hint in (int, float)}


def own_settings(kind: type, names: Sequence[str], settings: Names) -> tuple[dict[str, Any], list[str]]:
    """Arguments of an estimator among "name=value" texts, and the other texts, which are choices of training.

    >>> from carousel import Translator
    >>> own_settings(Translator, ("embedding", "input_feeding"), ["embedding=64", "input_feeding=true", "steps=9"])
    ({'embedding': 64, 'input_feeding': True}, ['steps=9'])
    """
    hints = get_type_hints(kind.__init__)  # type: ignore[misc]
    found: dict[str, Any] = {}
    rest = []
    for setting in settings or []:
        name, equals, text = setting.partition("=")
        if name not in names or not equals:
            rest.append(setting)
            continue
        wanted = hints[name]
        known = {"true": True, "false": False} if wanted is bool else {v: v for v in get_args(wanted)}
        if known and text not in known:
            raise CarouselError(f"setting {name} must be one of {', '.join(map(str, known))}, got {text!r}.")
        try:
            found[name] = known[text] if known else wanted(text)
        except ValueError:
            what = "a whole number" if wanted is int else "a number"
            raise CarouselError(f"setting {name} must be {what}, got {text!r}.") from None
    return found, rest


def is_table(path: Path) -> bool:
    from carousel.inputs.files import SUFFIXES

    return path.name.lower().endswith(SUFFIXES)


def is_lines(path: Path) -> bool:
    """A table of tabs may as well be lines of turns."""
    return path.name.lower().endswith(".tsv")


def read_dialogue_file(data: Path, other: Path | None, option: str, id: str | None, text: str) -> list[list[str]]:
    """Dialogues, one a line, or of a table with one turn a row."""
    from carousel.inputs.dialogues import dialogues_of, read_dialogues

    if other is not None:
        raise CarouselError(f"{option} is about pairs, and {data} holds dialogues; leave it out.")
    if id is not None:
        return dialogues_of(read(data, (text,), (id,)), id, text, str(data))
    if is_table(data) and not is_lines(data):
        raise CarouselError(f"{data}: of a table --id must say which dialogue a row is of; or give a file of lines.")
    return read_dialogues(data)


def read_pairs(data: Path, other: Path | None, source: str, target: str, option: str) -> Any:
    """A table of pairs, or a table made of two files of lines; `option` names the other one."""
    if is_table(data):
        if other is not None:
            raise CarouselError(f"{option} goes with lines, and {data} is a table; leave it out.")
        return read(data, (source, target))
    if other is None:
        raise CarouselError(f"{data}: the file is of lines, so {option} must name the lines that belong to them.")
    import polars as pl

    from carousel.inputs.texts import read_parallel

    left, right = read_parallel(data, other)
    kept = [(a, b) for a, b in zip(left, right, strict=True) if a.strip()]  # empty in both
    if len(kept) < len(left):
        typer.echo(f"carousel: note: {len(left) - len(kept):,} pairs of empty lines are left out", err=True)
    return pl.DataFrame({source: [a for a, _ in kept], target: [b for _, b in kept]})


def read_whole(path: Path, text: str) -> Any:
    """A table with the column `text`, or the text of a file that is none."""
    if is_table(path):
        return read(path, (text,))
    from carousel.inputs.texts import read_text

    return read_text(path)
