"""What every source of news is to the news side."""

from typing import Protocol


class SourceRefusedError(Exception):
    """A source will not have this user; the text says what to do."""


class Source(Protocol):
    """Gives articles, for as long as it runs, to whom it was made for.

    Attributes
    ----------
    name
        As `NEWS_SOURCES` has it.
    state
        What it does now, in a few words.
    messages
        How many messages came from it.
    no_articles
        How many of them were none.
    """

    name: str
    state: str
    messages: int

    @property
    def no_articles(self) -> int: ...

    async def run(self) -> None:
        """Give articles until it is cancelled.

        Raises
        ------
        SourceRefusedError
            Another attempt is of no use until the user has acted.
        """
