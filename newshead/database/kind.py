"""What kind of database `News` is: its engine decides how tables are made and written."""

from enum import Enum


class Kind(Enum):
    """The engines of databases that newshead works with, in ClickHouse's words."""

    ATOMIC = "Atomic"
    REPLICATED = "Replicated"
    SHARED = "Shared"

    @classmethod
    def of(cls, engine: str) -> "Kind":
        """Return the kind of a database with that engine; others are as Atomic."""
        return next((kind for kind in cls if kind.value == engine), cls.ATOMIC)

    @property
    def replicated(self) -> bool:
        """Whether several servers have the rows."""
        return self is not Kind.ATOMIC


def is_another(known: str, told: str) -> bool:
    """Return whether two answers of `serverUUID()` are of two servers.

    Embedded engines, and servers that were never given one, all say zero.
    """
    return known != told and any(known.strip("0-")) and any(told.strip("0-"))
