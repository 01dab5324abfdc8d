"""Which column of a table is what."""

from __future__ import annotations

from dataclasses import dataclass

from carousel.errors import DataError

__all__ = ["Roles"]


@dataclass(frozen=True)
class Roles:
    """Which column is what. `known` columns are known in advance for the times to forecast, `features` are not."""

    id: str | None = None
    time: str | None = None
    target: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    known: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for role in ("id", "time", "target", "features", "static", "known"):
            names = getattr(self, role)
            for name in (names,) if isinstance(names, str) else names or ():
                if name in seen:
                    raise DataError(
                        f"column {name!r} is named as {seen[name]} and as {role}; give every column one role."
                    )
                seen[name] = role

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are read, in order of their roles."""
        single = tuple(name for name in (self.id, self.time) if name)
        return single + self.target + self.features + self.static + self.known
