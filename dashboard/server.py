"""The page's server: its routes, and its life on a loop or in a process of its own."""

import asyncio
import contextlib
import functools
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from dashboard import earlier, queries, results, wire
from dashboard.access import LOOPBACK_NAMES, Guard
from dashboard.cards import Card
from dashboard.connections import guarded_protocol
from dashboard.feed import Feed
from dashboard.icon import icon
from dashboard.statements import PAGE_STATEMENTS
from newshead.core.tickers import parse_ticker
from newshead.database.connection import DATABASE_ERRORS, Database, one_line
from newshead.database.http import engine_served
from newshead.database.shared import SharedConnection
from newshead.loop import in_background, off_loop
from newshead.process import run_child
from newshead.settings import ConfigurationError, Settings

logger = logging.getLogger(__name__)
# It reports each start, and each request of strangers that is none; what fails comes through.
logging.getLogger("uvicorn").setLevel(logging.ERROR)

STATIC: Final = Path(__file__).with_name("static")
# A browser that lost the server tries again after so long.
RETRY_MS: Final = 1000
END_TIMEOUT_S: Final = 2
MAX_NAME_LENGTH: Final = 32

T = TypeVar("T")


def listen(settings: Settings) -> socket.socket:
    """Return the socket the page is to be served on.

    Raises
    ------
    ConfigurationError
        The address needs a password, is no address of this machine, or is taken.
    """
    host, port = settings.dashboard_host, settings.dashboard_port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        if not settings.dashboard_password and not _is_loopback(str(address[0])):
            raise ConfigurationError(
                f"DASHBOARD_HOST={host} shows the page to other machines: set DASHBOARD_PASSWORD, "
                "or use 127.0.0.1."
            )
        return socket.create_server((str(address[0]), port), family=family)
    except OSError as problem:
        # create_server tells the address again, behind the system's words.
        reason = str(problem.strerror).partition(" (while")[0]
        raise ConfigurationError(
            f"The page cannot be served at {host}:{port} ({reason}): set DASHBOARD_HOST "
            "to an address of this machine and DASHBOARD_PORT to a free port."
        ) from problem


def address_of(listener: socket.socket) -> str:
    """Return the page's address for a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def application(settings: Settings, feed: Feed, connection: SharedConnection) -> Starlette:
    """Return the page's routes.

    Parameters
    ----------
    feed
        The present session.
    connection
        A connection for what is asked singly: earlier sessions, CSV.
    """
    asked = Asked(connection)
    # A browser gives the password to the page it was typed for and to no other, so with one
    # the name does not matter, and a proxy may stand before the page.
    names = ["*"] if settings.dashboard_password else [*LOOPBACK_NAMES, settings.dashboard_host]
    return Starlette(
        routes=[
            Route("/", _index),
            Route("/icon.svg", _icon),
            Route("/feed", Stream(feed), methods=["GET"]),
            Route("/earlier/sessions", asked.sessions),
            Route("/earlier/windows", asked.windows),
            Route("/csv/{what}.csv", asked.csv),
            *results.Results(asked.read).routes,
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[
            Middleware(Guard, password=settings.dashboard_password),
            Middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False),
        ],
    )


async def _index(_request: Request) -> Response:
    return FileResponse(STATIC / "index.html")


async def _icon(request: Request) -> Response:
    alerts = request.query_params.get("alerts", "")
    number = int(alerts) if alerts.isascii() and alerts.isdigit() and len(alerts) < 6 else 0
    return Response(icon(request.query_params.get("state", ""), number), media_type="image/svg+xml")


class Stream:
    """The feed as server-sent events, until the viewer leaves."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """One viewer."""
        parts = [
            asyncio.create_task(self._send(send)),
            asyncio.create_task(_until_gone(receive)),
        ]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-type", b"text/event-stream"),
                    (b"cache-control", b"no-store"),
                    # A proxy is to pass each update on at once.
                    (b"x-accel-buffering", b"no"),
                ],
            }
        )
        await _send_text(send, f"retry: {RETRY_MS}\n\n")
        async with contextlib.aclosing(self._feed.follow()) as updates:
            async for update in updates:
                await _send_text(send, f"data: {update}\n\n")
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_text(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Asked:
    """What is read when someone asks for it, one request after the other."""

    def __init__(self, connection: SharedConnection) -> None:
        self._connection = connection
        self._turn = asyncio.Lock()

    async def read(self, query: Callable[[Database], T]) -> T:
        """Return what `query` gives; answer 503 where the database cannot be read."""
        try:
            async with self._turn:
                return await off_loop(self._connection.run, query)
        except (*DATABASE_ERRORS, ConfigurationError) as problem:
            raise HTTPException(503, f"ClickHouse cannot be read: {one_line(problem)}") from problem

    async def sessions(self, _request: Request) -> Response:
        """Return the earlier sessions, newest first, their times in Unix seconds."""
        found = await self.read(earlier.sessions)
        return _json([wire.session_json(each) for each in found])

    async def windows(self, request: Request) -> Response:
        """Return the windows of an earlier session, or of a ticker in all of them."""
        query = _earlier(request)
        if query is None:
            raise HTTPException(400, "session or ticker must be given.")
        now, cards = await self.read(functools.partial(_at, query))
        return _json([wire.card_json(card, card.reason(now), "") for card in cards])

    async def csv(self, request: Request) -> Response:
        """Return a list or a chart of the session, or with `session` or `ticker` of earlier ones;
        of the cards that `card` names, where it does, in that order."""
        what = request.path_params["what"]
        if what not in ("cards", "alerts", "points"):
            raise HTTPException(404, "There are cards.csv, alerts.csv and points.csv.")
        keys = request.query_params.getlist("card")
        query = _earlier(request) or functools.partial(queries.cards, tickers=keys or None)
        now, cards = await self.read(functools.partial(_at, query))
        cards = _named(cards, keys)
        if what == "cards":
            text = wire.cards_csv(cards, now)
        elif what == "alerts":
            text = wire.alerts_csv(cards)
        else:
            if len(cards) != 1:
                raise HTTPException(404, "There is no such window.")
            text = wire.points_csv(cards[0])
        return Response(
            text,
            media_type="text/csv; charset=utf-8",
            headers={
                "Content-Disposition": f'attachment; filename="newshead-{what}.csv"',
                "Cache-Control": "no-store",
            },
        )


def _at(query: Callable[[Database], list[Card]], database: Database) -> tuple[datetime, list[Card]]:
    return queries.clock(database), query(database)


def _earlier(request: Request) -> Callable[[Database], list[Card]] | None:
    """Return the reading of earlier sessions that a request asks for."""
    session, ticker = (request.query_params.get(name, "") for name in ("session", "ticker"))
    if not session and not ticker:
        return None
    if max(len(session), len(ticker)) > MAX_NAME_LENGTH:
        raise HTTPException(400, "session and ticker must be the names of one.")
    # Some tickers are told by their case, so that is not for the page to mend.
    return functools.partial(
        earlier.windows, session=session, ticker=parse_ticker(ticker) or ticker
    )


def _named(cards: list[Card], keys: list[str]) -> list[Card]:
    """Return the cards that these keys name, in their order; all where there are none."""
    if not keys:
        return cards
    by_key = {wire.card_key(card): card for card in cards}
    return [by_key[key] for key in keys if key in by_key]


def _json(value: object) -> Response:
    return Response(
        wire.compact(value), media_type="application/json", headers={"Cache-Control": "no-store"}
    )


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `until_stopped`."""
        yield


async def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve the page on `listener` until it is cancelled."""
    watched, asked = SharedConnection(settings), SharedConnection(settings)
    feed = Feed(watched)
    server = _Server(
        uvicorn.Config(
            application(settings, feed, asked),
            http=guarded_protocol(),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=END_TIMEOUT_S,
        )
    )
    serving_ = asyncio.create_task(server.serve(sockets=[listener]))
    logger.info("The page is at %s", address_of(listener))
    try:
        await asyncio.shield(serving_)
    finally:
        feed.close()
        server.should_exit = True
        await serving_
        for connection in (watched, asked):
            with suppress(TimeoutError):
                async with asyncio.timeout(END_TIMEOUT_S):
                    await off_loop(connection.close)


@asynccontextmanager
async def serving(settings: Settings, listener: socket.socket, folder: Path) -> AsyncIterator[None]:
    """Serve the embedded engine's page on `listener` from a process of its own, started in
    `folder`, while the context lasts. The user's configuration has no say in it.

    Raises as `engine_served`.
    """
    # In a folder without a .env, and with the user's variables emptied.
    nothing = dict.fromkeys(Settings.variables(), "")
    descriptor = listener.fileno()
    async with engine_served(settings, PAGE_STATEMENTS, queries.READ_SETTINGS) as environment:
        page = run_child(
            "Page",
            *("-m", "dashboard", "--listener", str(descriptor)),
            environment=nothing | environment,
            folder=folder,
            descriptors=[descriptor],
        )
        async with in_background(page):
            yield
