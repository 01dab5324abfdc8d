"""The `carousel` command: runs a verb of `commands.py` and turns errors into one sentence and an exit status.

Status 0: done. 1: a fault of Carousel itself. 2: something that the user can put right. 128 + signal: interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from carousel.errors import CarouselError, MissingExtra

__all__ = ["main", "run"]


def main() -> None:
    """What the console script calls."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """The exit status of `carousel ARGUMENTS`."""
    debug = "--debug" in arguments
    try:
        return _call(arguments)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt as error:
        if debug:
            raise
        return _interrupted(error)
    except CarouselError as error:
        if debug:
            raise
        return _say(str(error), 2)
    except ModuleNotFoundError as error:
        if debug or (error.name or "carousel").split(".")[0] == "carousel":
            raise
        package = str(error.name).split(".")[0]
        return _say(str(MissingExtra(package, "train", "This command")), 2)
    except MemoryError:
        return _say("not enough memory; give fewer or shorter series, or a smaller --set batch_size.", 2)
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).split()) or "no details"
        return _say(f"this is a fault of Carousel ({type(error).__name__}: {text}); --debug shows where.", 1)


def _call(arguments: Sequence[str]) -> int:
    """Without `app()`, which would swallow interrupts and broken pipes before they are seen here."""
    import typer.main

    from carousel import commands

    command = typer.main.get_command(commands.app)
    try:
        with command.make_context("carousel", list(arguments) or ["--help"]) as context:
            command.invoke(context)
    except typer.Exit as done:
        return int(done.exit_code)
    except commands.UsageError as error:
        return _say(f"{error.format_message().rstrip('.')}; see carousel --help.", 2)
    return 0


def _interrupted(error: KeyboardInterrupt) -> int:
    checkpoint = getattr(error, "checkpoint", None)
    number = getattr(error, "signum", signal.SIGINT)
    if checkpoint is None:
        return _say("interrupted; nothing was written.", 128 + number)
    return _say(f"interrupted; the checkpoint is {checkpoint}: the same command with --resume goes on.", 128 + number)


def _say(sentence: str, status: int) -> int:
    print(f"carousel: {sentence}", file=sys.stderr)  # noqa: T201
    return status
