"""Files written whole or not at all: a temporary file in the same folder, fsync, rename, fsync of the folder."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from carousel.errors import CarouselError

__all__ = ["write_bytes"]


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Put `data` in the file, replacing what was there, so that a reader sees the old file or the new, never a part.

    A symbolic link is followed, the mode of an existing file is kept, and a pipe or device is written as it is.
    Raises CarouselError where the system refuses (full disk, no folder, no permission); the previous file then
    stands as it was and no temporary file is left.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_bytes(Path(folder) / "a.txt", b"one")
    ...     (Path(folder) / "a.txt").read_bytes()
    b'one'
    """
    try:
        target = Path(path).resolve()
        mode = target.stat().st_mode if target.exists() else None
        if mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            target.write_bytes(data)
            return
        _replace(target, data, None if mode is None else stat.S_IMODE(mode))
    except OSError as error:
        raise CarouselError(
            f"{os.fspath(path)}: cannot be written ({error.strerror or error}), and what was there before is "
            "unchanged: make room, or name another place."
        ) from error


def _replace(target: Path, data: bytes, mode: int | None) -> None:
    if target.is_dir():
        raise IsADirectoryError(None, "it is a folder")
    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if mode is not None:
                temporary.chmod(mode)
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:  # an interrupt must not leave the temporary file either
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself durable; Windows cannot open a folder, and journals the rename by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
