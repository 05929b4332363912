"""The order of all that the price monitor's decisions rest on.

The monitor and its clients ask a tape for the time and tell it what they do. Live without a
recording it gives the machine's clocks and keeps nothing; `recording` writes all of it down, and
the replay of a recording gives the same times and answers again.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, Final, TypeVar

from newshead.loop import off_loop

T = TypeVar("T")

# In a thread whose work is recorded: takes what the database answers there.
ANSWERS: Final[ContextVar[list[Any] | None]] = ContextVar("ANSWERS", default=None)
# Stands among the answers for an insert that succeeded.
STORED: Final = "stored"


class Kind(IntEnum):
    """What an entry tells of; the numbers are the format's."""

    # The recording itself.
    BEGIN = 1
    END = 2
    LATE = 3
    # A connection to TWS.
    CONNECT = 10
    OPENED = 11
    CHUNK = 12
    WATCH = 13
    DECIDE = 14
    DISCONNECT = 15
    CLOSED = 16
    # The monitor at work.
    NOW = 20
    TRIGGER = 21
    CYCLE = 22
    SUBSCRIBE = 23
    DRAIN = 24
    ROLL = 25
    RECONNECT = 26
    STOP = 27
    START = 28
    # Questions, mostly to the database.
    ASK = 30
    ANSWER = 31
    # What came of it.
    REQUEST = 40
    ROWS = 41
    GIVEN_UP = 42


class Tape:
    """Live without a recording."""

    def open(self) -> None:
        """Begin. Blocks."""

    def close(self) -> None:
        """End. Blocks."""

    def utc(self) -> datetime:
        """Return the time (aware UTC); in a step, that of its beginning."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the monotonic seconds; in a step, those of its beginning."""
        return time.monotonic()

    def step(
        self,
        kind: Kind,  # noqa: ARG002
        *details: Any,  # noqa: ARG002
        client: int = 0,  # noqa: ARG002
    ) -> AbstractContextManager[object]:
        """Return the context of a step, which no step of another thread interrupts.

        Parameters
        ----------
        details
            What it rests on: bytes, or what JSON can hold besides times.
        client
            The number of the client whose step it is.
        """
        return _ANY_STEP

    def note(self, kind: Kind, *details: Any, client: int = 0) -> None:
        """Note what was done."""

    def new_client(self, client: object) -> int:  # noqa: ARG002
        """Return the number of a new client, from 1."""
        return 0

    def hide(self, names: list[str]) -> None:
        """Keep these out of what is written: the ids of accounts."""

    async def ask(self, function: Callable[..., T], *args: Any) -> T:
        """Run a blocking question to the database off the loop."""
        return await off_loop(function, *args)

    async def store(self, function: Callable[..., T], *args: Any) -> T:
        """As `ask`, for what stores rows."""
        return await off_loop(function, *args)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Run blocking work of a client off the loop."""
        return await off_loop(function, *args)

    async def aside(self, function: Callable[..., object], *args: Any) -> None:
        """Run blocking work that no decision rests on off the loop."""
        await off_loop(function, *args)

    async def until(self, due: Callable[[], Awaitable[None]]) -> None:
        """Wait until a cycle is due."""
        await due()


_ANY_STEP: Final = nullcontext()
