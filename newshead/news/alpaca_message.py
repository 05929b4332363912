"""The items of a message of Alpaca's news stream. No I/O, no clock."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from newshead.news.exchanges import securities
from newshead.news.message import (
    MAX_ID,
    MAX_TITLE,
    MAX_URL,
    Action,
    Article,
    NoArticleError,
    ahead_s,
    parse_json,
    text_of,
    time_in,
)
from newshead.text import folded, plain_title

SOURCE: Final = "Alpaca_WebSocket"


class Word(NamedTuple):
    """What the server says of the connection."""

    kind: str
    """success, error or subscription."""
    code: int
    """Of an error."""
    text: str


def parse_items(message: str | bytes) -> Sequence[Any]:
    """Return the items of a message.

    Raises
    ------
    NoArticleError
        It holds none.
    """
    items = parse_json(message)
    return items if isinstance(items, list) else [items]


def parse_item(item: Any, received: datetime, received_at: float) -> Article | Word:
    """Return what an item holds.

    Parameters
    ----------
    received, received_at
        When the message came: UTC, and the same as time.perf_counter() gives it.

    Raises
    ------
    NoArticleError
        It is neither an article nor a word of the server.
    """
    kind = text_of(item, "T")
    if kind in ("success", "error", "subscription"):
        code = item.get("code")
        text = folded(text_of(item, "msg"), MAX_TITLE)
        return Word(kind, code if isinstance(code, int) else 0, text)
    if kind != "n":
        raise NoArticleError(f"its kind is {kind[:MAX_TITLE]!a}")
    created = time_in(received, text_of(item, "created_at"))
    updated = time_in(received, text_of(item, "updated_at"))
    changed = created is not None and updated is not None and updated > created
    article = Article(
        action=Action.UPDATED if changed else Action.CREATED,
        id=folded(str(item.get("id") or ""), MAX_ID),
        url=folded(text_of(item, "url"), MAX_URL),
        title=plain_title(text_of(item, "headline"), MAX_TITLE),
        teaser=text_of(item, "summary"),
        body=text_of(item, "content"),
        securities=tuple(securities({"tickers": item.get("symbols")})),
        channels=frozenset(),
        created=created,
        updated=updated,
        received=received,
        received_at=received_at,
        source=SOURCE,
        ahead_s=ahead_s(received, text_of(item, "created_at")),
    )
    if not article.id and not article.url:
        raise NoArticleError("it has neither id nor url")
    if not article.title:
        raise NoArticleError("it has no title")
    return article
