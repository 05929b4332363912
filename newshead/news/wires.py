"""Press releases from wires' feeds, polled as politely as a window of a minute allows."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import httpx2

from newshead import __version__
from newshead.core.parts import PartState
from newshead.database.connection import one_line
from newshead.loop import off_loop
from newshead.news.message import Article
from newshead.news.reconnect import pause_s
from newshead.news.releases import Feed, NoFeedError, SameReleases, read_feed
from newshead.news.source import CONNECTING
from newshead.outage import Outage
from newshead.settings import Settings

logger = logging.getLogger(__name__)

# Between two requests to one host.
HOST_PAUSE_S: Final = 5.0
FETCH_TIMEOUT_S: Final = 15.0
MAX_BYTES: Final = 10_000_000
MAX_REDIRECTS: Final = 5
# A feed that changes more slowly misses the window after most releases.
SLOW_S: Final = 60.0
# Of a feed, the releases that are remembered.
MAX_SEEN: Final = 10_000


class _PollError(Exception):
    """A poll failed; the text says how."""

    def __init__(self, reason: str, retry_after: str = "") -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class _WireFeed:
    """A feed, and what is known of it from earlier polls."""

    def __init__(self, address: str) -> None:
        self.address = address
        parts = urlsplit(address)
        self.host = parts.netloc.rpartition("@")[2]
        # What else stands in it may be a secret.
        self.title = f"{self.host}{parts.path}"
        # What the server is told, so that it sends only what has changed.
        self.known: dict[str, str] = {}
        self.seen: dict[str, None] = {}
        self.polled = False
        self.ttl_s = 0.0
        self.outage = Outage()


class Wires:
    """Press releases of several feeds. One event loop.

    Attributes
    ----------
    name, state, reason, messages, message_at, no_articles
        See `Source`; a release in another language is none.
    """

    name = "wires"

    def __init__(self, settings: Settings, take: Callable[[Article], None]) -> None:
        """`take` is called with every article; it must not block."""
        self.state = PartState.DEGRADED
        self.reason = CONNECTING
        self.messages = 0
        self.message_at = -math.inf
        self.no_articles = 0
        self._feeds = [_WireFeed(address) for address in dict.fromkeys(settings.wire_feeds)]
        self._languages = [language.lower() for language in settings.wire_languages]
        self._take = take
        self._same = SameReleases()
        # Per host, when it may be asked again, by time.monotonic().
        self._next_at: dict[str, float] = {}

    async def run(self) -> None:
        """Poll the feeds until it is cancelled."""
        # It logs every request.
        for name in ("httpx2", "httpcore2"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        async with (
            httpx2.AsyncClient(
                follow_redirects=True,
                max_redirects=MAX_REDIRECTS,
                timeout=FETCH_TIMEOUT_S,
                headers={"User-Agent": f"newshead/{__version__}"},
            ) as client,
            asyncio.TaskGroup() as polling,
        ):
            for feed in self._feeds:
                polling.create_task(self._keep_polling(client, feed))

    async def _keep_polling(self, client: httpx2.AsyncClient, feed: _WireFeed) -> None:
        failures = 0
        while True:
            await self._turn(feed.host)
            try:
                await self._poll(client, feed)
            except _PollError as problem:
                failures += 1
                self._log_failure(feed, str(problem))
                await asyncio.sleep(pause_s(failures, problem.retry_after))
            else:
                failures = 0
                if feed.outage.ends():
                    logger.info("The feed %s works again.", feed.title)
                self._note_state()
                await asyncio.sleep(feed.ttl_s)

    async def _turn(self, host: str) -> None:
        """Wait until a host may be asked."""
        now = time.monotonic()
        at = max(now, self._next_at.get(host, now))
        self._next_at[host] = at + HOST_PAUSE_S
        await asyncio.sleep(at - now)

    async def _poll(self, client: httpx2.AsyncClient, feed: _WireFeed) -> None:
        """Ask for a feed once, and pass on what is new in it.

        Raises
        ------
        _PollError
            There is no usable answer.
        """
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                content, headers = await self._fetch(client, feed)
        except TimeoutError:
            raise _PollError(f"no answer within {FETCH_TIMEOUT_S:.0f} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as problem:
            raise _PollError(one_line(problem) or type(problem).__name__) from None
        if content is None:
            return
        received_at, received = time.perf_counter(), datetime.now(UTC)
        try:
            found = await off_loop(self._read, feed, content, headers, received, received_at)
        except NoFeedError as problem:
            raise _PollError(str(problem)) from None
        # Only what was understood need not be sent again.
        feed.known = {
            asks: headers[says]
            for asks, says in (("If-None-Match", "etag"), ("If-Modified-Since", "last-modified"))
            if says in headers
        }
        self._note_pace(feed, found.ttl_s)
        self._pass_on(feed, found)

    async def _fetch(
        self, client: httpx2.AsyncClient, feed: _WireFeed
    ) -> tuple[bytes | None, dict[str, str]]:
        """Return a feed's content, None where it has not changed, and the answer's headers."""
        async with client.stream("GET", feed.address, headers=feed.known) as response:
            if response.status_code == httpx2.codes.NOT_MODIFIED:
                return None, {}
            if response.status_code != httpx2.codes.OK:
                retry_after = response.headers.get("retry-after", "")
                raise _PollError(f"HTTP status {response.status_code}", retry_after)
            content = bytearray()
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > MAX_BYTES:
                    raise _PollError(f"it is over {MAX_BYTES:,} bytes")
            return bytes(content), {name.lower(): value for name, value in response.headers.items()}

    def _read(
        self,
        feed: _WireFeed,
        content: bytes,
        headers: dict[str, str],
        received: datetime,
        received_at: float,
    ) -> Feed:
        return read_feed(
            content,
            # It has been decoded; what stands there of the text's encoding counts.
            {"content-type": headers.get("content-type", "")},
            received,
            received_at,
            source=feed.host,
            languages=self._languages,
            known=feed.seen,
        )

    def _pass_on(self, feed: _WireFeed, found: Feed) -> None:
        first = not feed.polled
        feed.polled = True
        if first:
            self.no_articles += found.left_out
        for article in found.articles:
            feed.seen[article.id or article.url] = None
            if len(feed.seen) > MAX_SEEN:
                del feed.seen[next(iter(feed.seen))]
            self.messages += 1
            self.message_at = time.monotonic()
            new = self._same.without_known(article, time.monotonic())
            # What a feed held before may be of any age.
            self._take(new._replace(replayed=first))

    def _note_pace(self, feed: _WireFeed, ttl_s: float) -> None:
        if ttl_s > SLOW_S and not feed.polled:
            logger.warning(
                "The feed %s may be asked only every %.0f minutes: too slow for the window of 60 s "
                "after a release.",
                feed.title,
                ttl_s / 60,
            )
        feed.ttl_s = ttl_s

    def _note_state(self) -> None:
        failing = [feed for feed in self._feeds if feed.outage.lasts]
        if not failing:
            self.state, self.reason = PartState.OK, ""
            return
        self.state = PartState.LOST if len(failing) == len(self._feeds) else PartState.DEGRADED
        self.reason = (
            f"{len(failing)} of {len(self._feeds)} feeds fail ({failing[0].title}: "
            f"{failing[0].outage.reason}); asking until they work."
        )

    def _log_failure(self, feed: _WireFeed, reason: str) -> None:
        level = logging.WARNING if feed.outage.begins(reason) else logging.DEBUG
        logger.log(level, "The feed %s fails (%s); asking until it works.", feed.title, reason)
        self._note_state()
