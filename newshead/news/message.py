"""A message of Benzinga's news stream: bytes and the time of their arrival in, an article out."""

import json
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Any, Final, NamedTuple

from newshead.news.exchanges import MAX_NAMES, Listing, Security, named, securities
from newshead.text import folded, parse_time, plain_name, plain_title

MAX_TITLE: Final = 1_000
MAX_URL: Final = 2_000
MAX_ID: Final = 100
# Characters or bytes. Reading more would hold up the loop, and an article is a few thousand.
MAX_MESSAGE: Final = 2 * 2**20
# A time that lies further ahead is a mistake: clocks differ by less.
MAX_AHEAD: Final = timedelta(seconds=60)


class Action(StrEnum):
    """What happened to an article."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"


# The vendor's older documents call a deletion so.
_ACTIONS: Final = {**{str(action): action for action in Action}, "removed": Action.DELETED}


class Article(NamedTuple):
    """An article as a message told it. `title`, `url` and `id` are one line without characters
    that cannot be seen; `teaser` and `body` are HTML as it came."""

    action: Action
    id: str
    url: str
    title: str
    teaser: str
    body: str
    securities: tuple[Security, ...]
    """What it names, each once."""
    channels: frozenset[str]
    """The vendor's kinds of news that it is of, as `text.plain_name` spells them."""
    created: datetime | None
    """UTC; None if the message names no time."""
    updated: datetime | None
    """The same."""
    received: datetime
    """When the message came, UTC."""
    received_at: float
    """The same as time.perf_counter() gives it."""
    source: str = "Benzinga_WebSocket"
    """As the row names it."""
    replayed: bool = False
    """Whether it may be one of the last messages, which a stream sends again when asked to."""
    ahead_s: float = 0.0
    """How many seconds after `received` the message says that it was created; 0 if before."""

    @property
    def tickers(self) -> tuple[str, ...]:
        """The US tickers, as `tickers.parse_ticker` gives them."""
        return tuple(s.symbol for s in self.securities if s.listing is Listing.US)

    @property
    def published(self) -> datetime:
        """When it was created, UTC; when the message came if that names no time."""
        return self.received if self.created is None else self.created

    @property
    def age_s(self) -> float:
        """How old it was when the message came, in seconds; never less than 0."""
        return max(0.0, (self.received - self.published).total_seconds())


class NoArticleError(ValueError):
    """A message is no article; the text says what is wrong with it."""


class WordsError(NoArticleError):
    """A message is the server's own words, which are the text."""


def parse_json(message: str | bytes) -> Any:
    """Return what a message holds.

    Raises
    ------
    NoArticleError
        It is not JSON, or larger than any article.
    """
    if len(message) > MAX_MESSAGE:
        size = len(message) / 2**20
        raise NoArticleError(f"{size:.1f} MiB, and no article is larger than 2 MiB")
    try:
        return json.loads(message)
    except (ValueError, RecursionError):
        raise NoArticleError("it is not JSON") from None


def parse_message(message: str | bytes, received: datetime, received_at: float) -> Article:
    """Return the article in a message, in either of the vendor's spellings.

    Parameters
    ----------
    received, received_at
        When the message came: UTC, and the same as time.perf_counter() gives it.

    Raises
    ------
    NoArticleError
        It holds none.
    """
    envelope = parse_json(message)
    kind = text_of(envelope, "kind")
    # "news" in the current documents, "News/v1" in the older ones.
    if kind.partition("/")[0].lower() != "news":
        if words := _words(envelope):
            raise WordsError(words)
        raise NoArticleError(f"its kind is {kind[:MAX_TITLE]!a}")
    data = envelope.get("data")
    told = text_of(data, "action")
    action = _ACTIONS.get(told.lower())
    if action is None:
        raise NoArticleError(f"its action is {told[:MAX_TITLE]!a}")
    content = data.get("content")
    if not isinstance(content, dict):
        content = {}
    created = (
        text_of(content, "created") or text_of(content, "created_at"),
        text_of(data, "timestamp"),
    )
    article = Article(
        action=action,
        id=folded(str(content.get("id") or data.get("id") or ""), MAX_ID),
        url=folded(text_of(content, "url"), MAX_URL),
        title=plain_title(text_of(content, "title"), MAX_TITLE),
        teaser=text_of(content, "teaser"),
        body=text_of(content, "body"),
        securities=tuple(securities(content)),
        channels=frozenset(
            plain_name(name[:MAX_ID])
            for name, _ in islice(named(content.get("channels")), MAX_NAMES)
        ),
        created=time_in(received, created[0]) or time_in(received, created[1]),
        updated=time_in(received, text_of(content, "updated") or text_of(content, "updated_at")),
        received=received,
        received_at=received_at,
        ahead_s=ahead_s(received, created[0] or created[1]),
    )
    if not article.id and not article.url:
        raise NoArticleError("it has neither id nor url")
    if not article.title and action is not Action.DELETED:
        raise NoArticleError("it has no title")
    return article


def text_of(fields: Any, name: str) -> str:
    """Return a field's text; empty where there is none, or something else."""
    text = fields.get(name) if isinstance(fields, dict) else None
    return text if isinstance(text, str) else ""


def time_in(received: datetime, text: str) -> datetime | None:
    """Return the time in a text; None where there is none, or one that is yet to come."""
    time = parse_time(text)
    return None if time is None or time > received + MAX_AHEAD else time


def ahead_s(received: datetime, text: str) -> float:
    """Return how many seconds after `received` the time in a text is; 0 if before, or none."""
    time = parse_time(text)
    return 0.0 if time is None else max(0.0, (time - received).total_seconds())


def _words(envelope: Any) -> str:
    """Return what a server says of itself; empty where it does not."""
    fields = envelope if isinstance(envelope, dict) else {}
    said = [
        text_of(place, name)
        for place in (fields, fields.get("error"), fields.get("data"))
        for name in ("status", "error", "message", "msg", "reason")
    ]
    return folded(": ".join(text for text in said if text), MAX_TITLE)
