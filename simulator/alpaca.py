"""A news stream in Alpaca's format, over a real WebSocket on loopback.

`python -m simulator.alpaca` is the stream as a command of its own, with a script that repeats.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from websockets.asyncio.server import ServerConnection, broadcast
from websockets.exceptions import ConnectionClosed

from simulator.news import HOST, ScriptedArticle, WebSocketSource, next_id, run

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


class AlpacaServer(WebSocketSource):
    """A simulated news stream of Alpaca.

    It takes one connection at a time and answers others with error 406.

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
        super().__init__(script, repeat=repeat, port=port)
        self.error = 0
        self.subscribes = True
        self.asked: list[tuple[str, str]] = []
        self._subscribed: set[ServerConnection] = set()

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

    def publish(self, *items: Any) -> None:
        """Send items, as one message, to every client that subscribed."""
        broadcast(self._subscribed, json.dumps(items))

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
