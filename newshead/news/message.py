"""A message of Benzinga's news stream: bytes and the time of their arrival in, an article out."""

import json
import logging
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

from newshead.core.tickers import parse_ticker
from newshead.text import folded, parse_time

logger = logging.getLogger(__name__)

MAX_TITLE: Final = 1_000
MAX_URL: Final = 2_000
MAX_ID: Final = 100
# As many stocks as IBKR serves at once; an article that names more is about none of them.
MAX_TICKERS: Final = 100

# The same letters stand for another company there.
FOREIGN_EXCHANGES: Final = frozenset(
    ("TSX", "TSXV", "CSE", "CNSX", "NEO", "LSE", "AIM", "ASX", "HKEX", "SEHK", "FRA", "XETRA")
)


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
    tickers: tuple[str, ...]
    """Each once, upper case, as `tickers.parse_ticker` gives them."""
    created: datetime | None
    """UTC; None if the message names no time."""
    received: datetime
    """When the message came, UTC."""
    received_at: float
    """The same as time.perf_counter() gives it."""
    replayed: bool = False
    """Whether it may be one of the last messages, which a stream sends again when asked to."""

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
    try:
        envelope = json.loads(message)
    except (ValueError, RecursionError):
        raise NoArticleError("it is not JSON") from None
    kind = _text(envelope, "kind")
    # "news" in the current documents, "News/v1" in the older ones.
    if kind.partition("/")[0].lower() != "news":
        raise NoArticleError(f"its kind is {kind[:MAX_TITLE]!a}")
    data = envelope.get("data")
    told = _text(data, "action")
    action = _ACTIONS.get(told.lower())
    if action is None:
        raise NoArticleError(f"its action is {told[:MAX_TITLE]!a}")
    content = data.get("content")
    if not isinstance(content, dict):
        content = {}
    article = Article(
        action=action,
        id=folded(str(content.get("id") or data.get("id") or ""), MAX_ID),
        url=folded(_text(content, "url"), MAX_URL),
        title=folded(_text(content, "title"), MAX_TITLE),
        teaser=_text(content, "teaser"),
        body=_text(content, "body"),
        tickers=_tickers(content),
        created=(
            parse_time(_text(content, "created") or _text(content, "created_at"))
            or parse_time(_text(data, "timestamp"))
        ),
        received=received,
        received_at=received_at,
    )
    if not article.id and not article.url:
        raise NoArticleError("it has neither id nor url")
    if not article.title and action is not Action.DELETED:
        raise NoArticleError("it has no title")
    return article


def _text(fields: Any, name: str) -> str:
    """Return a field's text; empty where there is none, or something else."""
    text = fields.get(name) if isinstance(fields, dict) else None
    return text if isinstance(text, str) else ""


def _tickers(content: Mapping[str, Any]) -> tuple[str, ...]:
    named = (content.get("securities"), content.get("stocks"))
    found: dict[str, None] = {}
    for security in (s for securities in named if isinstance(securities, list) for s in securities):
        text = _text(security, "symbol") or _text(security, "name")
        prefix, _, symbol = text.rpartition(":")
        ticker = parse_ticker(symbol)
        exchange = prefix or _text(security, "exchange")
        if ticker is None or exchange.strip().upper() in FOREIGN_EXCHANGES:
            logger.debug("Ignored %a (%a): not a US ticker.", text[:40], exchange[:40])
        elif len(found) < MAX_TICKERS:
            found[ticker] = None
        else:
            logger.warning("Ignored part of an article's tickers: it names over %d.", MAX_TICKERS)
            break
    return tuple(found)
