"""Benzinga's news stream: the connection, kept up, and its messages; nothing of the database."""

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple, NoReturn
from urllib.parse import parse_qsl, quote, quote_plus, urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from newshead.core.tickers import parse_ticker
from newshead.core.times import retry_pause_s
from newshead.settings import Settings
from newshead.text import folded, parse_time

logger = logging.getLogger(__name__)
# It would log addresses, which hold the key, and what it raises as well.
logging.getLogger("websockets.client").setLevel(logging.CRITICAL)

OPEN_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 1.0
# A connection that answers no ping for so long is given up.
PING_EVERY_S: Final = 10.0
PING_TIMEOUT_S: Final = 10.0
TEXT_PING_EVERY_S: Final = 30.0
# The first pause before another attempt, and the longest; the same after a 429,
# which Benzinga gives to a key that is connected already.
RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 60.0
LIMITED_RETRY_S: Final = 30.0
MAX_LIMITED_RETRY_S: Final = 300.0
# The longest Retry-After that is waited for.
MAX_RETRY_AFTER_S: Final = 900.0
# A connection that was lost sooner is a failed attempt.
STEADY_S: Final = 10.0
# Messages that are no articles are told at most so often.
TELL_EVERY_S: Final = 60.0

MAX_MESSAGE_BYTES: Final = 16 * 2**20
MAX_TITLE: Final = 1_000
MAX_URL: Final = 2_000
MAX_ID: Final = 100
# What the server says, in a line of the log.
MAX_TOLD: Final = 200
# As many stocks as IBKR serves at once; an article that names more is about none of them.
MAX_TICKERS: Final = 100

# A key that is wrong, or may not read this stream.
REFUSED_STATUSES: Final = (401, 403)
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
    """Each once, upper case, as `triggers.parse_ticker` gives them."""
    published: datetime
    """UTC; when the message came if it names no time."""
    received: datetime
    """When the message came, UTC."""
    received_at: float
    """The same as time.perf_counter() gives it."""

    @property
    def age_s(self) -> float:
        """How old it was when the message came, in seconds; never less than 0."""
        return max(0.0, (self.received - self.published).total_seconds())


class NoArticleError(ValueError):
    """A message is no article; the text says what is wrong with it."""


class StreamRefusedError(Exception):
    """The stream will not have this key; the text says what to do."""


def parse_message(message: str | bytes) -> Article:
    """The article in a message that came just now, in either of the vendor's spellings.

    Raises
    ------
    NoArticleError
        It holds none.
    """
    received_at = time.perf_counter()
    received = datetime.now(UTC)
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
        published=(
            parse_time(_text(content, "created") or _text(content, "created_at"))
            or parse_time(_text(data, "timestamp"))
            or received
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
    """A field's text; empty where there is none, or something else."""
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
            logger.debug("%a (%a) is no US ticker; it is left out.", text[:40], exchange[:40])
        elif len(found) < MAX_TICKERS:
            found[ticker] = None
        else:
            logger.warning("An article names over %d tickers; the rest is left out.", MAX_TICKERS)
            break
    return tuple(found)


class NewsStream:
    """The stream of articles, connected again whenever it is lost. One event loop.

    Attributes
    ----------
    messages
        How many came.
    no_articles
        How many of them were none.
    """

    def __init__(self, settings: Settings, take: Callable[[Article], None]) -> None:
        """`take` is called with every article; it must not block."""
        self.messages = 0
        self.no_articles = 0
        self._take = take
        self._key = settings.benzinga_api_key
        self._text_ping = settings.benzinga_text_ping
        self._address = _with_token(settings.benzinga_stream_url, self._key)
        self._host = urlsplit(settings.benzinga_stream_url).netloc.rpartition("@")[2]
        self._told = ""
        self._lost: datetime | None = None
        self._no_articles_told = 0
        self._no_article_told_at = 0.0

    async def run(self) -> NoReturn:
        """Reads the stream until it is cancelled.

        Raises
        ------
        StreamRefusedError
            The key is refused.
        """
        failures = 0
        while True:
            began = time.monotonic()
            try:
                connection = await connect(
                    self._address,
                    open_timeout=OPEN_TIMEOUT_S,
                    close_timeout=CLOSE_TIMEOUT_S,
                    ping_interval=PING_EVERY_S,
                    ping_timeout=PING_TIMEOUT_S,
                    max_size=MAX_MESSAGE_BYTES,
                )
            except Exception as problem:
                failures += 1
                pause_s = self._pause_s(problem, failures)
                self._tell_failure(problem)
            else:
                self._tell_connected()
                closed = await self._read(connection)
                self._lost = datetime.now(UTC)
                failures = 1 if time.monotonic() - began >= STEADY_S else failures + 1
                pause_s = self._pause_s(closed, failures)
                logger.warning(
                    "The news stream was lost (%s); the next attempt is in %.1f s.",
                    self._reason(closed),
                    pause_s,
                )
            await asyncio.sleep(pause_s)

    async def _read(self, connection: ClientConnection) -> ConnectionClosed:
        """Passes on what comes until the connection is lost; returns why it was."""
        pinging = asyncio.create_task(self._ping(connection))
        try:
            async with connection:
                while True:
                    self._receive(await connection.recv())
        except ConnectionClosed as problem:
            return problem
        finally:
            pinging.cancel()

    async def _ping(self, connection: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            while self._text_ping:
                await asyncio.sleep(TEXT_PING_EVERY_S)
                await connection.send("ping")

    def _receive(self, message: str | bytes) -> None:
        if message == "pong":
            return
        self.messages += 1
        try:
            article = parse_message(message)
        except NoArticleError as problem:
            self.no_articles += 1
            self._tell_no_article(problem)
        else:
            self._take(article)

    def _pause_s(self, problem: Exception, failures: int) -> float:
        """Seconds until the next attempt; raises StreamRefusedError where none is of use."""
        chance = random.random()
        pause_s = retry_pause_s(failures, chance, first_s=RETRY_S, max_s=MAX_RETRY_S)
        if not isinstance(problem, InvalidStatus):
            return pause_s
        status = problem.response.status_code
        if status in REFUSED_STATUSES:
            raise StreamRefusedError(
                f"The news stream refuses the key (HTTP {status}): check BENZINGA_API_KEY and "
                "start newshead again; until then no news comes from it."
            ) from None
        # The header may come twice, which get() would not take.
        told = "".join(problem.response.headers.get_all("Retry-After")[:1])
        if told.isascii() and told.isdigit():
            return max(pause_s, min(float(told), MAX_RETRY_AFTER_S))
        if status == 429:
            return retry_pause_s(
                failures, chance, first_s=LIMITED_RETRY_S, max_s=MAX_LIMITED_RETRY_S
            )
        return pause_s

    def _tell_connected(self) -> None:
        self._told = ""
        logger.info("Connected to the news stream at %s.", self._host)
        if self._lost is not None:
            end = datetime.now(UTC)
            logger.warning(
                "There was no news from %s to %s UTC (%.0f s): the news stream was lost.",
                f"{self._lost:%H:%M:%S}",
                f"{end:%H:%M:%S}",
                (end - self._lost).total_seconds(),
            )

    def _tell_failure(self, problem: Exception) -> None:
        reason = self._reason(problem)
        level = logging.DEBUG if reason == self._told else logging.WARNING
        self._told = reason
        logger.log(
            level,
            "No connection to the news stream at %s (%s); it is tried until it works.",
            self._host,
            reason,
        )

    def _tell_no_article(self, problem: NoArticleError) -> None:
        now = time.monotonic()
        if self._no_articles_told and now - self._no_article_told_at < TELL_EVERY_S:
            return
        logger.warning(
            "A message of the news stream is left out: %s (%d such messages since the last line).",
            self._without_key(str(problem)),
            self.no_articles - self._no_articles_told,
        )
        self._no_articles_told = self.no_articles
        self._no_article_told_at = now

    def _reason(self, problem: Exception) -> str:
        """Why a connection failed or was lost, without the key.

        The library's texts may hold the address, so none of them is used.
        """
        match problem:
            case InvalidStatus():
                text = f"it answers with HTTP status {problem.response.status_code}"
            case ConnectionClosed():
                closed = problem.rcvd or problem.sent
                text = f"closed: {closed.code} {closed.reason}" if closed else "it broke off"
            case TimeoutError():
                text = f"no answer within {OPEN_TIMEOUT_S:.0f} s"
            case OSError():
                text = problem.strerror or str(problem)
            case _:
                text = type(problem).__name__
        return self._without_key(text)

    def _without_key(self, text: str) -> str:
        """A text of the server's as a short line; it may give back the address it was asked for."""
        for secret in {self._key, quote(self._key, safe=""), quote_plus(self._key)} - {""}:
            text = text.replace(secret, "(the key)")
        return folded(text, MAX_TOLD)


def _with_token(address: str, key: str) -> str:
    parts = urlsplit(address)
    query = [pair for pair in parse_qsl(parts.query) if pair[0] != "token"]
    return urlunsplit(parts._replace(query=urlencode([*query, ("token", key)]), fragment=""))
