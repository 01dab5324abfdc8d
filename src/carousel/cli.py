"""The `carousel` command: runs a verb of `commands.py` and turns errors into one sentence and an exit status.

Status 0: done. 1: a fault of Carousel itself. 2: something that the user can put right. 128 + signal: interrupted.
"""

from __future__ import annotations

import errno
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
        _abandon_output()
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
    except OSError as error:
        if debug or error.errno not in _REFUSALS:
            return _fault(error, debug)
        if error.filename is None:  # what is left in the buffer would be refused once more at the end
            _abandon_output()
        where = error.filename or "standard output"
        return _say(f"{where}: cannot be written ({error.strerror}); make room, or write to another place.", 2)
    except Exception as error:
        if _is_memory(error) and not debug:
            return _say(f"not enough memory; {_SMALLER}.", 2)
        return _fault(error, debug)


_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_SMALLER = "give fewer or shorter series, or a smaller --set hidden_size, num_layers, width or batch_size"
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "calculation overflowed")


def _is_memory(error: Exception) -> bool:
    """torch says it with a RuntimeError."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(part in str(error) for part in _NO_MEMORY)
    )


def _abandon_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fault(error: Exception, debug: bool) -> int:
    if debug:
        raise error
    text = " ".join(str(error).split()) or "no details"
    return _say(f"this is a fault of Carousel ({type(error).__name__}: {text}); --debug shows where.", 1)


def _call(arguments: Sequence[str]) -> int:
    """Without `app()`, which would swallow interrupts and broken pipes before they are seen here."""
    import typer.main

    from carousel import commands, fitting

    command = typer.main.get_command(commands.app)
    try:
        with command.make_context("carousel", list(arguments) or ["--help"]) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as done:
        return int(done.exit_code)
    except commands.UsageError as error:
        message = fitting.refusal(error) or f"{error.format_message().rstrip('.')}; see carousel --help"
        return _say(f"{message}.", 2)
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
