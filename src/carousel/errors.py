"""The errors that a user can cause; the command line prints them as one sentence and exits with status 2."""

from __future__ import annotations

__all__ = ["CarouselError", "DataError", "MissingExtra", "ModelFileError", "NotSupported"]


class CarouselError(ValueError):
    """Base of all: the message is one sentence that says what, where, and what to do."""


class DataError(CarouselError):
    """The data given (file, row, column named) cannot be used as they are."""


class ModelFileError(CarouselError):
    """A model file was refused: the file, the field and what was expected are named."""


class NotSupported(CarouselError):
    """A combination that no backend or head computes; the reason is given."""


class MissingExtra(CarouselError):
    """An optional dependency is not installed; the extra that brings it is named."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}, which is not installed: pip install 'carousel-lstm[{extra}]'.")
