"""A news stream in Benzinga's format, over a real WebSocket on loopback.

`python -m simulator.news` is the stream as a command of its own, with a script that repeats.
"""

import asyncio
import itertools
import json
import logging
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from simulator import command

# Not __name__, which is __main__ when this is the command.
logger = logging.getLogger("simulator.news")
# Connections come and go here on purpose.
logging.getLogger("websockets.server").setLevel(logging.CRITICAL)

HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8765
REPEAT_PAUSE_S: Final = 10.0
# How many messages the text `replay` brings again.
REPLAYED: Final = 100
_ids: Final = itertools.count(40_000_000 + int(time.time()) % 10_000_000)


def next_id() -> int:
    """Return an id that no article had."""
    return next(_ids)


class ScriptError(ValueError):
    """A script that cannot be played; the text says what is wrong and where."""


class ScriptedArticle(NamedTuple):
    """An article and when it is published."""

    seconds: float
    """Since the stream's start, 0 or more."""
    title: str
    tickers: Sequence[str]
    teaser: str = ""
    body: str = ""
    """HTML."""
    action: str = "created"


SAMPLE: Final = (
    ScriptedArticle(
        3,
        "Soundwave Signs $120 Million Contract With Leading Carmaker",
        ["NASDAQ:SOUN"],
        body="<p><b>Soundwave</b> (NASDAQ: SOUN) today announced a contract.</p>",
    ),
    ScriptedArticle(
        13, "FDA Grants Approval To OcuGene's Lead Candidate", ["OCGN"], "<p>Approved.</p>"
    ),
    ScriptedArticle(23, "PlugIn Power Prices $200 Million Offering Of Shares", ["PLUG"]),
    ScriptedArticle(
        33, "10 Stocks Moving In Friday's Session", ["GEVO", "SENS", "CTXR", "BTC/USD"]
    ),
    ScriptedArticle(43, "BioNano Might Be Considering Alternatives, Sources Say", ["bngo"]),
)


def news_message(
    title: str,
    tickers: Sequence[str],
    *,
    action: str = "created",
    article_id: int | None = None,
    url: str | None = None,
    teaser: str = "",
    body: str = "",
    age_s: float = 0.0,
    channels: Sequence[str] = ("News",),
    older: bool = False,
) -> dict[str, Any]:
    """Make a message as Benzinga sends it.

    Parameters
    ----------
    tickers
        Each may have its exchange before it (`NYSE:BRK.B`).
    article_id
        By default one that no article had; with it comes the default for `url`.
    age_s
        How long ago the article was created, in seconds.
    channels
        The kinds of news it is of.
    older
        As the older documents spell it: RFC 3339 times with `_at`, capitalised actions, `stocks`.
    """
    article_id = next_id() if article_id is None else article_id
    now = datetime.now(UTC)
    created = now - timedelta(seconds=age_s)
    content: dict[str, Any] = {
        "id": article_id,
        "title": title,
        "teaser": teaser,
        "body": body,
        "url": f"https://www.benzinga.com/news/{article_id}" if url is None else url,
        "channels": list(channels),
        "tags": [],
    }
    pairs = [(symbol, exchange) for exchange, _, symbol in (t.rpartition(":") for t in tickers)]
    if older:
        content["created_at"] = created.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        content["updated_at"] = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        content["stocks"] = [{"name": symbol, "exchange": exchange} for symbol, exchange in pairs]
    else:
        content["created"] = format_datetime(created)
        content["updated"] = format_datetime(now)
        content["securities"] = [{"symbol": name, "exchange": exchange} for name, exchange in pairs]
    return {
        "id": f"{article_id}-{now.timestamp():.6f}",
        "api_version": "websocket/v1",
        "kind": "News/v1" if older else "news",
        "data": {
            "action": action.capitalize() if older else action,
            "id": article_id,
            "timestamp": now.isoformat(),
            "content": content,
        },
    }


class NewsConnection(NamedTuple):
    """A client that asked to connect."""

    at: float
    """time.monotonic()."""
    token: str
    accepted: bool


class ScriptedSource:
    """A source of news that publishes a script. One event loop.

    An async context manager: it listens from `async with` on until the block ends.

    Parameters
    ----------
    script
        Articles that are published from the start on.
    repeat
        Publish them again for ever, each time as new articles, 10 s after the last one.
    port
        0 for any free one.
    """

    def __init__(
        self, script: Iterable[ScriptedArticle] = (), *, repeat: bool = False, port: int = 0
    ) -> None:
        self.script = sorted(script, key=lambda article: article.seconds)
        self.repeat = repeat
        self.port = port
        self._playing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._listen()
        self._playing = asyncio.create_task(self._play())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._playing is not None:
            self._playing.cancel()
            await asyncio.gather(self._playing, return_exceptions=True)
        await self._close()

    async def _listen(self) -> None:
        raise NotImplementedError

    async def _close(self) -> None:
        raise NotImplementedError

    def _publish_scripted(self, article: ScriptedArticle) -> None:
        raise NotImplementedError

    async def _play(self) -> None:
        """Publish the articles of the script in time."""
        loop = asyncio.get_running_loop()
        opening = loop.time()
        for article in self._articles():
            await asyncio.sleep(opening + article.seconds - loop.time())
            self._publish_scripted(article)
            logger.info("Published. tickers=%s title=%s", ",".join(article.tickers), article.title)

    def _articles(self) -> Iterator[ScriptedArticle]:
        yield from self.script
        if not self.repeat or not self.script:
            return
        period = self.script[-1].seconds + REPEAT_PAUSE_S
        for round_ in itertools.count(1):
            for article in self.script:
                yield article._replace(seconds=article.seconds + round_ * period)


class WebSocketSource(ScriptedSource):
    """A scripted source on a WebSocket of this machine's loopback.

    It can be started again after it was stopped, on the same port.
    """

    def __init__(
        self, script: Iterable[ScriptedArticle] = (), *, repeat: bool = False, port: int = 0
    ) -> None:
        super().__init__(script, repeat=repeat, port=port)
        self.received: list[str | bytes] = []
        self._connections: set[ServerConnection] = set()
        self._joined = asyncio.Event()
        self._server: Server | None = None

    def drop(self) -> None:
        """Cut every connection at once."""
        for connection in self._connections:
            connection.transport.abort()

    async def _listen(self) -> None:
        self._server = await serve(
            self._handle, HOST, self.port, process_request=self._judge, close_timeout=1
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self.drop()
            self._server.close()
            await self._server.wait_closed()

    def _judge(self, connection: ServerConnection, request: Request) -> Response | None:  # noqa: ARG002
        """Return what a client is refused with; None accepts it."""
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        raise NotImplementedError


class NewsServer(WebSocketSource):
    """A simulated news stream of Benzinga.

    As Benzinga's, it takes one connection per key at a time, refuses others with 429, and sends its
    last 100 messages again to whoever sends the text `replay`.

    Attributes
    ----------
    port
        The real one, after the start.
    refuse_with
        The HTTP status that clients are refused with from now on; 0: they are accepted.
    retry_after
        The header of that name in a refusal; empty: none.
    slot_s
        How long a key's place stays taken after its connection was lost.
    text_ends
        Whether any text from a client ends its connection.
    asked
        Every client that asked to connect.
    received
        Every message from clients.
    """

    def __init__(
        self, script: Iterable[ScriptedArticle] = (), *, repeat: bool = False, port: int = 0
    ) -> None:
        super().__init__(script, repeat=repeat, port=port)
        self.refuse_with = 0
        self.retry_after = ""
        self.slot_s = 0.0
        self.text_ends = False
        self.asked: list[NewsConnection] = []
        # Per key, until when its place stays taken, by time.monotonic().
        self._freed_at: dict[str, float] = {}
        self._published: deque[str | bytes] = deque(maxlen=REPLAYED)

    @property
    def url(self) -> str:
        """The stream's address, for a client."""
        return f"ws://{HOST}:{self.port}/api/v1/news/stream"

    @property
    def connected(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    async def until_connected(self) -> None:
        """Wait until a client is connected."""
        await self._joined.wait()

    async def _listen(self) -> None:
        await super()._listen()
        logger.info("News stream listening. port=%d", self.port)

    async def _close(self) -> None:
        await super()._close()
        logger.info("News stream stopped. port=%d", self.port)

    def publish(self, message: dict[str, Any] | str | bytes) -> None:
        """Send a message to every client; a text or bytes as they are."""
        data = json.dumps(message) if isinstance(message, dict) else message
        self._published.append(data)
        broadcast(self._connections, data)

    def fall_silent(self) -> None:
        """Leave the present connections open, and neither send nor answer anything on them."""
        for connection in self._connections:
            connection.transport.pause_reading()
        for connection in tuple(self._connections):
            self._forget(connection)

    def _forget(self, connection: ServerConnection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
            self._freed_at[_token(connection.request)] = time.monotonic() + self.slot_s
        if not self._connections:
            self._joined.clear()

    def _judge(self, connection: ServerConnection, request: Request) -> Response | None:
        token = _token(request)
        present = {_token(other.request) for other in self._connections}
        taken = token in present or self._freed_at.get(token, 0.0) > time.monotonic()
        status = self.refuse_with or (429 if taken else 0)
        self.asked.append(NewsConnection(time.monotonic(), token, not status))
        if not status:
            return None
        response = connection.respond(status, "Refused.\n")
        if self.retry_after:
            response.headers["Retry-After"] = self.retry_after
        return response

    async def _handle(self, connection: ServerConnection) -> None:
        self._connections.add(connection)
        self._joined.set()
        logger.info("Client connected. clients=%d", len(self._connections))
        try:
            async for message in connection:
                self.received.append(message)
                if self.text_ends:
                    break
                if message == "ping":
                    await connection.send("pong")
                elif message == "replay":
                    for data in tuple(self._published):
                        await connection.send(data)
        except ConnectionClosed:
            pass
        finally:
            self._forget(connection)
            logger.info("Client gone. clients=%d", len(self._connections))

    def _publish_scripted(self, article: ScriptedArticle) -> None:
        self.publish(
            news_message(
                article.title,
                article.tickers,
                teaser=article.teaser,
                body=article.body,
                action=article.action,
            )
        )


def _token(request: Request | None) -> str:
    query = urlsplit(request.path).query if request is not None else ""
    return parse_qs(query).get("token", [""])[0]


def read_script(path: Path) -> list[ScriptedArticle]:
    """Read a script: a JSON object per line, with the fields of `ScriptedArticle`.

    Raises
    ------
    ScriptError
        The file cannot be read, or a line of it is wrong: the text names file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ScriptError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ScriptError(f"{path} is not a text file in UTF-8.") from error
    script = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                script.append(_article(line))
            except ScriptError as error:
                raise ScriptError(f"{path}, line {number}: {error}") from error
    return script


def _article(line: str) -> ScriptedArticle:
    try:
        article = ScriptedArticle(**json.loads(line))
    except (ValueError, TypeError, RecursionError) as error:
        raise ScriptError(f"no JSON object with seconds, title and tickers ({error}).") from error
    seconds, title, tickers, *texts = article
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ScriptError(f"seconds must be a number, not {seconds!r}.")
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ScriptError(f"seconds must be 0 or more, not {seconds!r}.")
    if not isinstance(tickers, list) or not all(isinstance(ticker, str) for ticker in tickers):
        raise ScriptError(f"tickers must be a list of texts, not {tickers!r}.")
    if not all(isinstance(text, str) for text in (title, *texts)):
        raise ScriptError("title, teaser, body and action must be texts.")
    return article


def run(prog: str, what: str, server: Callable[..., Any], port: int) -> int:
    """Run a simulated source with a script until SIGINT or SIGTERM; return the exit code."""
    parser = command.Parser(prog=prog, description=f"A simulated {what}.")
    parser.add_argument("--port", type=int, default=port, help=f"default {port}; 0 for a free one")
    parser.add_argument(
        "--script",
        type=Path,
        help="JSON lines: seconds, title, tickers and, where wanted, teaser, body, action",
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        script = read_script(arguments.script) if arguments.script else SAMPLE
        asyncio.run(command.serve(server(script, repeat=True, port=arguments.port)))
    except ScriptError as error:
        parser.error(str(error))
    except (OSError, OverflowError) as error:
        parser.error(f"cannot listen on port {arguments.port}: {error}.")
    return 0


def main() -> int:
    """Run a stream until SIGINT or SIGTERM; return the exit code."""
    return run("python -m simulator.news", "news stream of Benzinga", NewsServer, DEFAULT_PORT)


if __name__ == "__main__":
    sys.exit(main())
