"""A stream of news over a WebSocket: the connection, kept up, and its messages; nothing of the
database, and nothing of a vendor."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, NoReturn
from urllib.parse import quote, quote_plus, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from newshead.core.parts import PartState
from newshead.news.message import Article, NoArticleError, WordsError
from newshead.news.reconnect import Replay, pause_s
from newshead.news.source import CONNECTING, SourceRefusedError
from newshead.outage import Outage, Repeated
from newshead.text import folded

logger = logging.getLogger(__name__)
# It would log addresses, which may hold a key, and what it raises as well.
logging.getLogger("websockets.client").setLevel(logging.CRITICAL)

OPEN_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 1.0
# A connection that answers no ping for so long is given up.
PING_EVERY_S: Final = 10.0
PING_TIMEOUT_S: Final = 10.0
# A connection that was lost sooner is a failed attempt.
STEADY_S: Final = 10.0

MAX_MESSAGE_BYTES: Final = 16 * 2**20
# What the server says, in a line of the log.
MAX_LINE: Final = 200
# A key that is wrong, or may not read this stream.
REFUSED_STATUSES: Final = (401, 403)


class StreamError(Exception):
    """A server says on the connection that it serves no news on it; the text says why."""


class Stream:
    """A stream of articles, connected again whenever it is lost. One event loop.

    A vendor's own begins a connection in `_open` and reads its messages in `_read`. It says that
    news comes by `_note_open`, and passes articles on to `_take`.

    Attributes
    ----------
    name, state, reason, messages, message_at
        See `Source`.
    """

    name = ""
    title = ""
    """What the log calls it."""
    key_names = ""
    """The variables that hold its keys."""
    pongs: tuple[str, ...] = ()
    """Messages that only answer one of ours."""

    def __init__(
        self,
        address: str,
        secrets: Collection[str],
        take: Callable[[Article], None],
        *,
        headers: Mapping[str, str] | None = None,
        replay: bool = False,
    ) -> None:
        """
        Parameters
        ----------
        secrets
            What no line of the log may hold.
        take
            Is called with every article; it must not block.
        headers
            Of the request for a connection.
        replay
            Whether the stream is asked for its last messages.
        """
        self.state = PartState.DEGRADED
        self.reason = CONNECTING
        self.messages = 0
        self.message_at = -math.inf
        self._address = address
        self._secrets = {
            spelled
            for each in secrets
            for spelled in (each, quote(each, safe=""), quote_plus(each))
        } - {""}
        self._take = take
        self._headers = headers
        self._replay = Replay(wanted=replay)
        self._host = urlsplit(address).netloc.rpartition("@")[2]
        self._no_articles = Repeated()
        self._words = Repeated()
        self._last_words = ""
        self._outage = Outage()
        self._is_open = False
        self._lost: datetime | None = None

    async def _open(self, connection: ClientConnection) -> None:
        """Begin a new connection."""
        raise NotImplementedError

    async def _read(
        self, connection: ClientConnection, message: str | bytes, received_at: float
    ) -> None:
        """Read a message.

        Raises
        ------
        NoArticleError
            It is none.
        StreamError
            The connection is of no use.
        """
        raise NotImplementedError

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
            self._is_open = False
            problem = await self._follow()
            steady = self._is_open and time.monotonic() - began >= STEADY_S
            failures = 1 if steady else failures + 1
            pause = self._pause_s(problem, failures)
            if self._is_open:
                self._lost = datetime.now(UTC)
                self.state = PartState.LOST
                self.reason = f"the connection was lost ({self._reason(problem)}); reconnecting."
                logger.warning(
                    "%s was lost (%s); reconnecting in %.1f s.",
                    _begun(self.title),
                    self._reason(problem),
                    pause,
                )
            else:
                self._log_failure(problem)
            if self._replay.ended(time.monotonic()):
                logger.warning(
                    "%s ends the connection when asked for a replay: it is not asked again in "
                    "this run. Set BENZINGA_REPLAY=false.",
                    _begun(self.title),
                )
            await asyncio.sleep(pause)

    async def _follow(self) -> Exception:
        """Connect and pass on what comes; return why no more does."""
        try:
            connection = await connect(
                self._address,
                additional_headers=self._headers,
                open_timeout=OPEN_TIMEOUT_S,
                close_timeout=CLOSE_TIMEOUT_S,
                ping_interval=PING_EVERY_S,
                ping_timeout=PING_TIMEOUT_S,
                max_size=MAX_MESSAGE_BYTES,
            )
        except Exception as problem:
            return problem
        opening = asyncio.create_task(self._begin(connection))
        try:
            async with connection:
                while True:
                    await self._receive(connection, await connection.recv())
        except (ConnectionClosed, StreamError) as problem:
            return problem
        finally:
            opening.cancel()

    async def _begin(self, connection: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            await self._open(connection)

    async def _receive(self, connection: ClientConnection, message: str | bytes) -> None:
        received_at = time.perf_counter()
        if message in self.pongs:
            return
        self.messages += 1
        self.message_at = time.monotonic()
        try:
            await self._read(connection, message, received_at)
        except WordsError as words:
            self._log_words(self._without_key(str(words)))
        except NoArticleError as problem:
            self._log_no_article(problem)

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
            raise self._refused(f"HTTP {status}")
        # The header may come twice, which get() would not take.
        header = "".join(problem.response.headers.get_all("Retry-After")[:1])
        return pause_s(failures, header)

    def _refused(self, reason: str) -> SourceRefusedError:
        """Note that the key is refused; return the error that says so."""
        self.state = PartState.REFUSED
        self.reason = (
            f"{_begun(self.title)} refuses the key ({reason}): check {self.key_names} and start "
            "newshead again; until then no news comes from it."
        )
        return SourceRefusedError(self.reason)

    def _note_open(self) -> None:
        """Say that news comes from now on, and what the gap before it was."""
        self._is_open = True
        self._outage.ends()
        self.state, self.reason = PartState.OK, ""
        logger.info("Connected to %s at %s.", self.title, self._host)
        if self._lost is not None:
            end = datetime.now(UTC)
            logger.warning(
                "No news between %s and %s UTC (%.0f s): %s was lost%s.",
                f"{self._lost:%H:%M:%S}",
                f"{end:%H:%M:%S}",
                (end - self._lost).total_seconds(),
                self.title,
                "; asking it to send that again" if self._replay.wanted else "",
            )

    def _log_failure(self, problem: Exception) -> None:
        reason = self._reason(problem)
        self.state = PartState.LOST
        self.reason = f"no connection ({reason}); retrying until it works."
        level = logging.WARNING if self._outage.begins(reason) else logging.DEBUG
        logger.log(
            level,
            "No connection to %s at %s (%s); retrying until it works.",
            self.title,
            self._host,
            reason,
        )

    def _log_words(self, words: str) -> None:
        if words != self._last_words:
            self._words, self._last_words = Repeated(), words
        if self._words.happens(time.monotonic()):
            logger.warning("The server of %s says: %s", self.title, words)

    def _log_no_article(self, problem: NoArticleError) -> None:
        if count := self._no_articles.happens(time.monotonic()):
            logger.warning(
                "Ignored a message of %s: %s (%d such messages since the last line).",
                self.title,
                self._without_key(str(problem)),
                count,
            )

    def _reason(self, problem: Exception) -> str:
        """Return why a connection failed or was lost, without the key.

        The library's texts may hold the address, so none of them is used.
        """
        match problem:
            case StreamError():
                text = str(problem)
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
        for secret in self._secrets:
            text = text.replace(secret, "(the key)")
        return folded(text, MAX_LINE)


def _begun(title: str) -> str:
    """Return a title as a sentence begins with it."""
    return title[:1].upper() + title[1:]
