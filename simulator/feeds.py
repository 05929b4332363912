"""Press releases as a wire publishes them by RSS, over real HTTP on loopback.

`python -m simulator.feeds` is the feed as a command of its own, with a script that repeats.
"""

import asyncio
import hashlib
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

from simulator.news import HOST, ScriptedArticle, ScriptedSource, next_id, run

DEFAULT_PORT: Final = 8767
# As many as wires have in a feed.
MAX_ITEMS: Final = 20


class FeedRequest(NamedTuple):
    """A request as it came, and what it was answered."""

    at: float
    """time.monotonic()."""
    headers: Mapping[str, str]
    """With names in lower case."""
    status: int


class FeedServer(ScriptedSource):
    """A simulated feed on this machine's loopback. Its attributes may be set from any thread.

    Attributes
    ----------
    port
        The real one, after the start.
    language, ttl
        What the feed declares; empty: nothing.
    status, retry_after
        What every request is answered with; 200 and empty: the feed.
    content
        What is sent instead of the feed; None: nothing.
    requests
        Every request so far.
    """

    def __init__(
        self, script: Iterable[ScriptedArticle] = (), *, repeat: bool = False, port: int = 0
    ) -> None:
        super().__init__(script, repeat=repeat, port=port)
        self.language = "en-US"
        self.ttl = ""
        self.status = 200
        self.retry_after = ""
        self.content: bytes | None = None
        self.requests: list[FeedRequest] = []
        self._items: list[str] = []
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        """The feed's address, for a client."""
        return f"http://{HOST}:{self.port}/rss"

    async def _listen(self) -> None:
        self._server = _Server(self)
        self.port = self._server.server_port
        threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="feed", daemon=True
        ).start()

    async def _close(self) -> None:
        if self._server is not None:
            await asyncio.to_thread(self._server.shutdown)
            self._server.server_close()

    def publish(
        self,
        title: str,
        text: str = "",
        *,
        age_s: float | None = 0.0,
        link: str | None = None,
        language: str = "",
        stocks: Iterable[str] = (),
    ) -> None:
        """Put a release into the feed.

        Parameters
        ----------
        title, text
            HTML.
        age_s
            How long ago it was published; None: it does not say.
        link
            By default one that no release had.
        language, stocks
            As GlobeNewswire declares them for a release; none: nothing is said.
        """
        link = f"https://wire.example/release/{next_id()}" if link is None else link
        published = ""
        if age_s is not None:
            at = format_datetime(datetime.now(UTC) - timedelta(seconds=age_s), usegmt=True)
            published = f"<pubDate>{at}</pubDate>"
        declared = f"<dc:language>{language}</dc:language>" if language else ""
        domain = "https://wire.example/rss/stock"
        categories = "".join(
            f'<category domain="{domain}">{escape(stock)}</category>' for stock in stocks
        )
        self._items.insert(
            0,
            f"<item><title>{escape(title)}</title><link>{escape(link)}</link>"
            f'<guid isPermaLink="true">{escape(link)}</guid>'
            f"<description>{escape(text)}</description>{published}{declared}{categories}</item>",
        )
        del self._items[MAX_ITEMS:]

    def feed(self) -> bytes:
        """The feed as it is now."""
        if self.content is not None:
            return self.content
        language = f"<language>{self.language}</language>" if self.language else ""
        ttl = f"<ttl>{self.ttl}</ttl>" if self.ttl else ""
        return (
            '<?xml version="1.0" encoding="utf-8"?>'
            '<rss version="2.0" xmlns:dc="http://purl.org/dc/elements/1.1/"><channel>'
            "<title>A wire</title><link>https://wire.example/</link>"
            f"<description>Releases</description>{language}{ttl}{''.join(self._items)}"
            "</channel></rss>"
        ).encode()

    def _publish_scripted(self, article: ScriptedArticle) -> None:
        named = [ticker if ":" in ticker else f"NASDAQ:{ticker}" for ticker in article.tickers]
        stocks = "; ".join(name.replace(":", ": ") for name in named)
        self.publish(article.title, f"<p>({stocks})</p>{article.teaser}{article.body}")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, feed: FeedServer) -> None:
        self.feed = feed
        super().__init__((HOST, feed.port), _Handler)

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        feed = self.server.feed
        headers = {name.lower(): value for name, value in self.headers.items()}
        content = feed.feed()
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        status = feed.status
        if status == 200 and headers.get("if-none-match") == tag:
            status = 304
        feed.requests.append(FeedRequest(time.monotonic(), headers, status))
        body = content if status == 200 else b""
        self.send_response(status)
        if status == 200:
            self.send_header("Content-Type", "application/rss+xml; charset=utf-8")
            self.send_header("ETag", tag)
        if feed.retry_after:
            self.send_header("Retry-After", feed.retry_after)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """The requests are recorded; nothing is written to the terminal."""


def main() -> int:
    """Run a feed until SIGINT or SIGTERM; return the exit code."""
    return run("python -m simulator.feeds", "wire's feed", FeedServer, DEFAULT_PORT)


if __name__ == "__main__":
    sys.exit(main())
