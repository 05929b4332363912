"""What every source of news is to the news side."""

import math
from typing import Final, Protocol

from newshead.core.parts import PartState
from newshead.news.parts import SourceState

CONNECTING: Final = "connecting."
"""The reason of a source whose first attempt goes on."""


class SourceRefusedError(Exception):
    """A source will not have this user; the text says what to do."""


class Source(Protocol):
    """Gives articles, for as long as it runs, to whom it was made for.

    Attributes
    ----------
    name
        As `NEWS_SOURCES` has it.
    state, reason
        How it fares, and why where it does not work, in a few words.
    messages
        How many messages came from it.
    message_at
        When the newest one did, by time.monotonic(); -inf before.
    no_articles
        How many of them were none.
    """

    name: str
    state: PartState
    reason: str
    messages: int
    message_at: float

    @property
    def no_articles(self) -> int: ...

    async def run(self) -> None:
        """Give articles until it is cancelled.

        Raises
        ------
        SourceRefusedError
            Another attempt is of no use until the user has acted.
        """


def state_of(source: Source, at: float) -> SourceState:
    """Return how a source fares; `at` is time.monotonic()."""
    age_s = None if source.message_at == -math.inf else at - source.message_at
    return SourceState(source.name, source.state, source.reason, source.messages, age_s)
