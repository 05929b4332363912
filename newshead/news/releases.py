"""Press releases as wires publish them, by RSS or Atom. No I/O, no clock."""

import io
import re
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import feedparser

from newshead.news.exchanges import FOREIGN_EXCHANGES, US_EXCHANGES, Security, chosen
from newshead.news.message import MAX_ID, MAX_TITLE, MAX_URL, Action, Article, ahead_s, time_in
from newshead.text import folded, plain_name, plain_title, without_markup

# Of a release, where its tickers are looked for.
MAX_TEXT: Final = 8_000
SAME_WITHIN_S: Final = 600.0
MAX_TTL_MINUTES: Final = 24 * 60

_GROUP: Final = re.compile(r"[(\[]([^()\[\]]{3,200})[)\]]")
# Nasdaq runs exchanges in Stockholm and elsewhere too.
_US_NAME: Final = re.compile(
    "NASDAQ(?:GLOBAL(?:SELECT)?(?:MARKET)?|CAPITALMARKETS?|NMS|SELECT|STOCKMARKET)"
    "|NYSE(?:AMEX|AMERICANLLC|MARKET)|OTC(?:PINKS?|PINKMARKETS?|PK|MARKETS?|MKTS?|ID|EXPERT)"
)
# GlobeNewswire's, which name the stocks.
_STOCKS: Final = "/rss/stock"


class NoFeedError(ValueError):
    """The content is no feed."""


class Feed(NamedTuple):
    """What a feed holds."""

    articles: list[Article]
    """Oldest first, those of other languages left out."""
    left_out: int
    """How many these were."""
    ttl_s: float
    """How long it stays as it is, as it says; 0 where it does not."""


def read_feed(
    content: bytes,
    headers: Mapping[str, str],
    received: datetime,
    received_at: float,
    *,
    source: str,
    languages: Collection[str],
    known: Collection[str] = (),
) -> Feed:
    """Return what a feed holds. Blocks; any thread.

    Parameters
    ----------
    headers
        Of the answer, which may say how the content is encoded.
    received, received_at
        When it came: UTC, and the same as time.perf_counter() gives it.
    source
        As the rows name it.
    languages
        Codes of those that count, in lower case; a release that declares none is in English.
    known
        The ids, or else urls, of releases that are of no interest any more.

    Raises
    ------
    NoFeedError
        It is none.
    """
    parsed = feedparser.parse(
        # As a text it might be taken for an address.
        io.BytesIO(content),
        response_headers=dict(headers),
        sanitize_html=False,
        resolve_relative_uris=False,
    )
    if not parsed.get("version"):
        raise NoFeedError("it is no RSS or Atom feed")
    feed = parsed.feed
    found = []
    left_out = 0
    for entry in reversed(parsed.entries):
        declared = str(entry.get("language") or feed.get("language") or "en").lower()
        if not {declared, re.split("[-_]", declared)[0]} & set(languages):
            left_out += 1
        elif _key(entry) and _key(entry) not in known:
            article = _article(entry, received, received_at, source)
            if article.title:
                found.append(article)
    ttl = str(feed.get("ttl") or "").strip()
    minutes = min(int(ttl), MAX_TTL_MINUTES) if re.fullmatch("[0-9]{1,9}", ttl) else 0
    return Feed(found, left_out, minutes * 60.0)


def _key(entry: Mapping[str, Any]) -> str:
    return folded(str(entry.get("id") or ""), MAX_ID) or folded(
        str(entry.get("link") or ""), MAX_URL
    )


def _article(
    entry: Mapping[str, Any], received: datetime, received_at: float, source: str
) -> Article:
    summary = str(entry.get("summary") or "")
    contents = entry.get("content") or [{}]
    body = str(contents[0].get("value") or "")
    title = plain_title(str(entry.get("title") or ""), MAX_TITLE)
    texts = [title, *(without_markup(text, MAX_TEXT) for text in (summary, body) if text)]
    categories = [
        f"({tag.get('term')})"
        for tag in entry.get("tags") or ()
        if str(tag.get("scheme") or "").endswith(_STOCKS)
    ]
    published = str(entry.get("published") or entry.get("updated") or "")
    return Article(
        action=Action.CREATED,
        id=folded(str(entry.get("id") or ""), MAX_ID),
        url=folded(str(entry.get("link") or ""), MAX_URL),
        title=title,
        teaser=summary,
        body=body,
        securities=tuple(named_in(" ".join([*texts, *categories]))),
        channels=frozenset(),
        created=time_in(received, published),
        updated=None,
        received=received,
        received_at=received_at,
        source=source,
        ahead_s=ahead_s(received, published),
    )


def named_in(text: str) -> list[Security]:
    """Return the securities that a text names as `(NASDAQ: ABCD)`, `(NYSE American: XYZ; TSX: XY)`
    and the like, each once."""
    return chosen(pair for group in _GROUP.findall(text) for pair in _pairs(group))


def _pairs(group: str) -> Iterator[tuple[str, str]]:
    exchanges: list[str] = []
    for part in re.split("[;,]", group.replace("\uff1a", ":")):
        before, colon, symbols = part.rpartition(":")
        if colon:
            exchanges = [
                known for name in re.split(r"[/&:]|\band\b", before) if (known := _exchange(name))
            ]
        for symbol in re.split(r"\band\b", symbols):
            for exchange in exchanges:
                if symbol.strip(" $\"'*"):
                    yield symbol.strip(" $\"'*"), exchange


def _exchange(name: str) -> str:
    """Return an exchange that is known; empty for any other word before a colon."""
    plain = plain_name(name)
    if plain in US_EXCHANGES or plain in FOREIGN_EXCHANGES:
        return name.strip()
    return "OTC" if _US_NAME.fullmatch(plain) else ""


class SameReleases:
    """Which releases came within the last 10 minutes, from whatever feed."""

    def __init__(self) -> None:
        self._came: dict[tuple[str, str], float] = {}

    def without_known(self, article: Article, now: float) -> Article:
        """Return a release without the securities that one with the same title named already.

        Parameters
        ----------
        now
            Any clock in seconds that never goes back.
        """
        while self._came and next(iter(self._came.values())) < now - SAME_WITHIN_S:
            del self._came[next(iter(self._came))]
        new = []
        for security in article.securities:
            key = (security.symbol, article.title.casefold())
            if key not in self._came:
                self._came[key] = now
                new.append(security)
        return article._replace(securities=tuple(new))
