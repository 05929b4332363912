"""A news stream in Alpaca's format, over a real WebSocket on loopback.

`python -m simulator.alpaca` is the stream as a command of its own, with a script that repeats.
"""

import asyncio
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from websockets.asyncio.server import Server, ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

from simulator.news import HOST, ScriptedArticle, next_id, play, run

DEFAULT_PORT: Final = 8766


def news_item(
    headline: str,
    symbols: Sequence[str],
    *,
    article_id: int | None = None,
    url: str | None = None,
    summary: str = "",
    content: str = "",
    age_s: float = 0.0,
    updated: bool = False,
) -> dict[str, Any]:
    """Make an item as Alpaca sends it.

    Parameters
    ----------
    article_id
        By default one that no article had; with it comes the default for `url`.
    age_s
        How long ago the article was created, in seconds.
    updated
        Whether it was updated now.
    """
    article_id = next_id() if article_id is None else article_id
    now = datetime.now(UTC)
    created = now - timedelta(seconds=age_s)
    return {
        "T": "n",
        "id": article_id,
        "headline": headline,
        "summary": summary,
        "author": "A. Writer",
        "created_at": _time(created),
        "updated_at": _time(now if updated else created),
        "content": content,
        "url": f"https://www.benzinga.com/news/{article_id}" if url is None else url,
        "symbols": list(symbols),
        "source": "benzinga",
    }


class AlpacaServer:
    """A simulated news stream of Alpaca on this machine's loopback. One event loop.

    An async context manager: it listens from `async with` on until the block ends. It takes one
    connection at a time and answers others with error 406.

    Parameters
    ----------
    script, repeat, port
        As `NewsServer` has them.

    Attributes
    ----------
    port
        The real one, after the start.
    error
        The code that every client is refused with from now on; 0: none is.
    subscribes
        Whether clients that ask for news get it.
    asked
        The key and the secret of every client that asked to connect.
    received
        Every message from clients.
    """

    def __init__(
        self, script: Iterable[ScriptedArticle] = (), *, repeat: bool = False, port: int = 0
    ) -> None:
        self.script = sorted(script, key=lambda article: article.seconds)
        self.repeat = repeat
        self.port = port
        self.error = 0
        self.subscribes = True
        self.asked: list[tuple[str, str]] = []
        self.received: list[str | bytes] = []
        self._connections: set[ServerConnection] = set()
        self._subscribed: set[ServerConnection] = set()
        self._joined = asyncio.Event()
        self._server: Server | None = None
        self._playing: Any = None

    @property
    def url(self) -> str:
        """The stream's address, for a client."""
        return f"ws://{HOST}:{self.port}/v1beta1/news"

    @property
    def subscribed(self) -> int:
        """How many clients get news."""
        return len(self._subscribed)

    async def until_subscribed(self) -> None:
        """Wait until a client gets news."""
        await self._joined.wait()

    async def __aenter__(self) -> "AlpacaServer":
        self._server = await serve(self._handle, HOST, self.port, close_timeout=1)
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        self._playing = play(self.script, self.repeat, self._publish_scripted)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._playing.cancel()
        if self._server is not None:
            self.drop()
            self._server.close()
            await self._server.wait_closed()

    def publish(self, *items: Any) -> None:
        """Send items, as one message, to every client that subscribed."""
        broadcast(self._subscribed, json.dumps(items))

    def drop(self) -> None:
        """Cut every connection at once."""
        for connection in self._connections:
            connection.transport.abort()

    def _publish_scripted(self, article: ScriptedArticle) -> None:
        symbols = [ticker.rpartition(":")[2] for ticker in article.tickers]
        self.publish(
            news_item(article.title, symbols, summary=article.teaser, content=article.body)
        )

    async def _handle(self, connection: ServerConnection) -> None:
        headers = connection.request.headers if connection.request is not None else {}
        names = ("APCA-API-KEY-ID", "APCA-API-SECRET-KEY")
        key, secret = (headers.get(name, "") for name in names)
        self.asked.append((key, secret))
        error = self.error or (402 if not key or not secret else 406 if self._connections else 0)
        try:
            await connection.send(json.dumps([{"T": "success", "msg": "connected"}]))
            if error:
                refusal = {"T": "error", "code": error, "msg": f"the reason of {error}"}
                await connection.send(json.dumps([refusal]))
                return
            self._connections.add(connection)
            await connection.send(json.dumps([{"T": "success", "msg": "authenticated"}]))
            async for message in connection:
                self.received.append(message)
                if self.subscribes and json.loads(message).get("action") == "subscribe":
                    await connection.send(json.dumps([{"T": "subscription", "news": ["*"]}]))
                    self._subscribed.add(connection)
                    self._joined.set()
        except ConnectionClosed:
            pass
        finally:
            self._connections.discard(connection)
            self._subscribed.discard(connection)
            if not self._subscribed:
                self._joined.clear()


def _time(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def main() -> int:
    """Run a stream until SIGINT or SIGTERM; return the exit code."""
    return run("python -m simulator.alpaca", "news stream of Alpaca", AlpacaServer, DEFAULT_PORT)


if __name__ == "__main__":
    sys.exit(main())
