"""The verb `chat`: a conversation with a model of replies, which keeps its context."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from carousel.errors import CarouselError, DataError
from carousel.options import Debug, Model, Names, load
from carousel.text_options import decoding

__all__ = ["chat"]

FORGET, LEAVE = "/new", "/quit"


def chat(
    model: Model,
    set_: Annotated[
        Names,
        typer.Option("--set", metavar="NAME=VALUE", help="How replies are made, as weight=0.8 or seed=1."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer each line with a line of JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Talk with a model of replies, line by line; it knows what was said before.

    /new begins anew, /quit or the end of the input leaves.

    \b
    Example:
      carousel chat replies.safetensors
    """
    estimator = load(model)
    given: Any = estimator.config_.input
    if not getattr(given, "turns", 0):
        raise CarouselError(f"{model}: this model knows of no turns; fit one with carousel fit translate --turns 3.")
    options = decoding("translate", set_, replies=True)
    if "n_best" in options:
        raise CarouselError("n_best is about tables; a conversation has one reply to each turn, leave it out.")
    seed = options.pop("seed", 0)
    turns: list[str] = []
    if sys.stdin.isatty():
        typer.echo(f"{model}: it remembers {given.turns} turns; {FORGET} begins anew, {LEAVE} leaves.", err=True)
    for said in _lines(sys.stdin.buffer):
        if said == LEAVE:
            break
        if said == FORGET:
            turns = []
        elif said:
            turns.append(said)
            found = estimator.search([turns], seed=seed + len(turns), **options)[0]
            reply, score = found[0] if found else ("...", 0.0)
            turns.append(reply)
            sys.stdout.write((json.dumps({"reply": reply, "score": score}) if as_json else reply) + "\n")
            sys.stdout.flush()


def _lines(given: Iterable[bytes]) -> Iterator[str]:
    """What is typed, or piped, with a mark where somebody types."""
    terminal = sys.stdin.isatty()
    lines, offset, number = iter(given), 0, 0
    while True:
        if terminal:
            typer.echo("> ", nl=False, err=True)
        line = next(lines, None)
        if line is None:
            return
        number += 1
        try:
            yield " ".join(line.decode("utf-8-sig" if number == 1 else "utf-8").split())
        except UnicodeDecodeError as error:
            raise DataError(
                f"standard input, line {number}: byte {offset + error.start:,} is not UTF-8; send UTF-8."
            ) from None
        offset += len(line)
