"""Benzinga's news stream: the connection, kept up, and its messages; nothing of the database."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, NoReturn
from urllib.parse import parse_qsl, quote, quote_plus, urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from newshead.news.message import Article, NoArticleError, WordsError, parse_message
from newshead.news.reconnect import Replay, pause_s
from newshead.news.source import SourceRefusedError
from newshead.outage import Outage, Repeated
from newshead.settings import Settings
from newshead.text import folded

logger = logging.getLogger(__name__)
# It would log addresses, which hold the key, and what it raises as well.
logging.getLogger("websockets.client").setLevel(logging.CRITICAL)

OPEN_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 1.0
# A connection that answers no ping for so long is given up.
PING_EVERY_S: Final = 10.0
PING_TIMEOUT_S: Final = 10.0
TEXT_PING_EVERY_S: Final = 30.0
# A connection that was lost sooner is a failed attempt.
STEADY_S: Final = 10.0

MAX_MESSAGE_BYTES: Final = 16 * 2**20
# What the server says, in a line of the log.
MAX_LINE: Final = 200
# A key that is wrong, or may not read this stream.
REFUSED_STATUSES: Final = (401, 403)


class NewsStream:
    """The stream of articles, connected again whenever it is lost. One event loop.

    Attributes
    ----------
    name, state, messages
        See `Source`.
    """

    name = "benzinga"

    def __init__(self, settings: Settings, take: Callable[[Article], None]) -> None:
        """`take` is called with every article; it must not block."""
        self.state = "connecting"
        self.messages = 0
        self._no_articles = Repeated()
        self._words = Repeated()
        self._last_words = ""
        self._take = take
        self._key = settings.benzinga_api_key
        self._text_ping = settings.benzinga_text_ping
        self._replay = Replay(wanted=settings.benzinga_replay)
        self._address = _with_token(settings.benzinga_stream_url, self._key)
        self._host = urlsplit(settings.benzinga_stream_url).netloc.rpartition("@")[2]
        self._outage = Outage()
        self._lost: datetime | None = None

    @property
    def no_articles(self) -> int:
        """How many messages were neither articles nor the server's words."""
        return self._no_articles.count

    async def run(self) -> NoReturn:
        """Read the stream until it is cancelled.

        Raises
        ------
        SourceRefusedError
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
                pause = self._pause_s(problem, failures)
                self._log_failure(problem)
            else:
                self._log_connected()
                closed = await self._read(connection)
                self._lost = datetime.now(UTC)
                self.state = f"lost ({self._reason(closed)})"
                failures = 1 if time.monotonic() - began >= STEADY_S else failures + 1
                pause = self._pause_s(closed, failures)
                logger.warning(
                    "The news stream was lost (%s); reconnecting in %.1f s.",
                    self._reason(closed),
                    pause,
                )
                if self._replay.ended(time.monotonic()):
                    logger.warning(
                        "The news stream ends the connection when asked for a replay: it is not "
                        "asked again in this run. Set BENZINGA_REPLAY=false."
                    )
            await asyncio.sleep(pause)

    async def _read(self, connection: ClientConnection) -> ConnectionClosed:
        """Pass on what comes until the connection is lost; return why it was."""
        pinging = asyncio.create_task(self._ping(connection))
        try:
            async with connection:
                if self._replay.wanted:
                    self._replay.asked(time.monotonic())
                    await connection.send("replay")
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
        received_at = time.perf_counter()
        if message == "pong":
            return
        self.messages += 1
        self._replay.answered()
        try:
            article = parse_message(message, datetime.now(UTC), received_at)
        except WordsError as words:
            self._log_words(self._without_key(str(words)))
        except NoArticleError as problem:
            self._log_no_article(problem)
        else:
            self._take(article._replace(replayed=self._replay.covers(time.monotonic())))

    def _pause_s(self, problem: Exception, failures: int) -> float:
        """Return the seconds until the next attempt.

        Raises
        ------
        SourceRefusedError
            A further attempt is pointless.
        """
        if not isinstance(problem, InvalidStatus):
            return pause_s(failures)
        status = problem.response.status_code
        if status in REFUSED_STATUSES:
            self.state = "refused"
            raise SourceRefusedError(
                f"The news stream refuses the key (HTTP {status}): check BENZINGA_API_KEY and "
                "start newshead again; until then no news comes from it."
            ) from None
        # The header may come twice, which get() would not take.
        header = "".join(problem.response.headers.get_all("Retry-After")[:1])
        return pause_s(failures, header)

    def _log_connected(self) -> None:
        self._outage.ends()
        self.state = "connected"
        logger.info("Connected to the news stream at %s.", self._host)
        if self._lost is not None:
            end = datetime.now(UTC)
            logger.warning(
                "No news between %s and %s UTC (%.0f s): the news stream was lost%s.",
                f"{self._lost:%H:%M:%S}",
                f"{end:%H:%M:%S}",
                (end - self._lost).total_seconds(),
                "; asking it to send that again" if self._replay.wanted else "",
            )

    def _log_failure(self, problem: Exception) -> None:
        reason = self._reason(problem)
        self.state = f"no connection ({reason})"
        level = logging.WARNING if self._outage.begins(reason) else logging.DEBUG
        logger.log(
            level,
            "No connection to the news stream at %s (%s); retrying until it works.",
            self._host,
            reason,
        )

    def _log_words(self, words: str) -> None:
        if words != self._last_words:
            self._words, self._last_words = Repeated(), words
        if self._words.happens(time.monotonic()):
            logger.warning("The news stream says: %s", words)

    def _log_no_article(self, problem: NoArticleError) -> None:
        if count := self._no_articles.happens(time.monotonic()):
            logger.warning(
                "Ignored a message of the news stream: %s (%d such messages since the last line).",
                self._without_key(str(problem)),
                count,
            )

    def _reason(self, problem: Exception) -> str:
        """Return why a connection failed or was lost, without the key.

        The library's texts may hold the address, so none of them is used.
        """
        match problem:
            case InvalidStatus():
                text = f"answered with HTTP status {problem.response.status_code}"
            case ConnectionClosed():
                closed = problem.rcvd or problem.sent
                text = f"closed: {closed.code} {closed.reason}" if closed else "connection dropped"
            case TimeoutError():
                text = f"no answer within {OPEN_TIMEOUT_S:.0f} s"
            case OSError():
                text = problem.strerror or str(problem)
            case _:
                text = type(problem).__name__
        return self._without_key(text)

    def _without_key(self, text: str) -> str:
        """Return a server's text as a short line; it may repeat the address asked for."""
        for secret in {self._key, quote(self._key, safe=""), quote_plus(self._key)} - {""}:
            text = text.replace(secret, "(the key)")
        return folded(text, MAX_LINE)


def _with_token(address: str, key: str) -> str:
    parts = urlsplit(address)
    query = [pair for pair in parse_qsl(parts.query) if pair[0] != "token"]
    return urlunsplit(parts._replace(query=urlencode([*query, ("token", key)]), fragment=""))
