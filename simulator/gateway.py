"""The gateway: its socket, the playing of the market, and its Python interface."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Final

from simulator.book import Book, TimeTick
from simulator.history import Pacing
from simulator.market import Market
from simulator.session import Handshake, Request, Session
from simulator.wire import MAX_SERVER_VERSION, MIN_SERVER_VERSION

logger = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"


class Gateway:
    """A simulated TWS gateway on this machine's loopback.

    Everything here runs on the event loop that ran `start`; from another thread use
    `GatewayThread.call`. The gateway can be started again after it was stopped: on the same port,
    with nothing traded yet.

    Parameters
    ----------
    market
        Its trades are published from the start on; its symbols are those that are known.
    port
        0 for any free one.
    server_version
        176 to 226. A client gets the highest version that it, this gateway and the ibapi that is
        installed here all know.
    accounts
        The account ids that clients are told.

    Attributes
    ----------
    port
        The real one, after `start`.
    requests
        All that clients asked for, in order.
    handshake
        How clients that connect are treated from now on.
    silent
        True: connections stay open and are read, but nothing is sent any more.
    serving
        False: requests for market data bring nothing, not even a code, and never will; subscribers
        get no ticks. All else is answered.
    open_orders
        So many open orders a client is told of when it connects, unasked.
    gluing
        True: messages that are sent together, as all that a trade is told by, share a frame.
    garbled
        The kinds of messages, by their ids, whose bodies nobody can read, as those are that an
        older client does not know.
    ambiguous
        Symbols for which market data is refused (200, "… is ambiguous.") unless the client gives a
        primary exchange or a con id; the contract details of one show two listings.
    undefined
        Symbols of which IBKR has no definition for the time being: market data and contract details
        are refused (200).
    abroad
        Symbols whose only listing is on an exchange of another country, or an unknown one, by its
        name; served as all others are.
    data_types
        The market data type that a symbol's subscribers are told, where it is another than the one
        of their ticks; see `serve`.
    describing
        False: requests for contract details bring nothing.
    recalling
        False: requests for past bars bring nothing until they are cancelled. Else they are answered
        from what was traded, outside of regular hours too, or refused: 162 where there was nothing,
        or where IBKR's limits are passed.
    refusal
        TWS's words for a 200, in the user's language; empty for the English ones.
    opening_time, running_time
        Where the time of the last trade stands in what a new subscriber is told, and where that of
        a trade that happens stands: as TWS does it, or the other way round, or left out.
    lines
        How many subscriptions are served at once; more are refused with 101. None: any number.
    delayed_only
        Symbols of which there is no live data: refused with 10089, or served delayed with 10167 to
        a client that asked for market data type 3 or 4.

    Raises
    ------
    ValueError
        If the server version is not between 176 and 226.
    """

    def __init__(
        self,
        market: Market,
        *,
        port: int = 0,
        server_version: int = MAX_SERVER_VERSION,
        accounts: Sequence[str] = ("DU1234567",),
    ) -> None:
        if not MIN_SERVER_VERSION <= server_version <= MAX_SERVER_VERSION:
            raise ValueError(
                f"server_version must be {MIN_SERVER_VERSION} to {MAX_SERVER_VERSION}, "
                f"not {server_version}"
            )
        self.market = market
        self.port = port
        self.server_version = server_version
        self.accounts = tuple(accounts)
        self.requests: list[Request] = []
        self.handshake = Handshake.NORMAL
        self.silent = False
        self.serving = True
        self.open_orders = 0
        self.gluing = False
        self.garbled: set[int] = set()
        self.ambiguous: set[str] = set()
        self.undefined: set[str] = set()
        self.abroad: dict[str, str] = {}
        self.data_types: dict[str, int] = {}
        self.describing = True
        self.recalling = True
        self.refusal = ""
        self.delayed_only: set[str] = set()
        self.lines: int | None = None
        self.opening_time = TimeTick.AFTER
        self.running_time = TimeTick.BEFORE
        self.sessions: list[Session] = []
        self.pacing = Pacing()
        self._books: dict[str, Book] = {}
        self._unknown: set[str] = set()
        self._server: asyncio.Server | None = None
        self._playing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen, and open the market.

        Raises
        ------
        OSError
            If the port cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Session(self), HOST, self.port, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._books = {symbol: Book() for symbol in self.market.symbols}
        self._playing = asyncio.create_task(self._play(loop.time()))
        logger.info("Gateway listening. port=%d server_version=%d", self.port, self.server_version)

    async def stop(self) -> None:
        """Close the market, the port and every connection."""
        if self._server is None or self._playing is None:
            return
        # A server that closes loses a connection on its way (CPython's issue 109564): first none
        # is accepted any more, and those that were have their turn.
        for listener in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listener)
        await asyncio.sleep(0)
        self._server.close()
        self._playing.cancel()
        await asyncio.gather(self._playing, return_exceptions=True)
        self.drop()
        await self._server.wait_closed()
        self._server = None
        logger.info("Gateway stopped. port=%d", self.port)

    async def __aenter__(self) -> "Gateway":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _play(self, opening: float) -> None:
        loop = asyncio.get_running_loop()
        for trade in self.market.play():
            # Each time counts from the opening, so that delays do not add up.
            await asyncio.sleep(opening + trade.seconds - loop.time())
            self.trade(trade.ticker, trade.price, trade.size)

    # Control

    def trade(self, ticker: str, price: float, size: float) -> None:
        """Publish a trade now; price in USD, size in shares.

        Raises
        ------
        LookupError
            If the market does not know the ticker.
        """
        ticks = self.book(ticker).trade(price, size, time.time(), self.running_time)
        if not self.serving:
            return
        for session in list(self.sessions):
            session.tell_ticks(ticker, ticks)

    def halt(self, ticker: str, kind: int) -> None:
        """Halt a ticker's trading now: 1 news pending, 2 volatility; 0 lets it resume.

        Raises
        ------
        LookupError
            If the market does not know the ticker.
        """
        ticks = self.book(ticker).halt(kind)
        for session in list(self.sessions):
            session.tell_ticks(ticker, ticks)

    def serve(self, ticker: str, data_type: int) -> None:
        """Tell a ticker's subscribers, now and in future, which market data type they are served.

        Its ticks stay what they are.
        """
        self.data_types[ticker] = data_type
        for session in list(self.sessions):
            session.tell_data_type(ticker, data_type)

    def burst(
        self,
        ticker: str,
        prices: Sequence[float],
        size: float,
        *,
        total_bytes: int | None = None,
    ) -> int:
        """Write one TICK_PRICE(LAST) message per price to every subscriber of a ticker at once.

        Parameters
        ----------
        total_bytes
            Fill the write up to exactly so many bytes, by a tick string (type 84) before the
            prices and a longer spelling of the last size.

        Returns
        -------
        int
            The length of the write; the longest where subscribers' differ, 0 without subscribers.

        Raises
        ------
        LookupError
            If the market does not know the ticker.
        ValueError
            If there is no price, or the messages are longer than `total_bytes` as they are.
        """
        book = self.book(ticker)
        length = 0
        for session in list(self.sessions):
            length = max(length, session.burst(ticker, prices, size, total_bytes))
        now = time.time()
        for price in prices:
            book.record(price, size, now)
        return length

    def send_error(
        self, code: int, text: str, req_id: int = -1, *, client_id: int | None = None
    ) -> None:
        """Send an error message to one client, or to all.

        Raises
        ------
        LookupError
            If no client has that id.
        """
        for session in self._clients(client_id):
            session.tell_error(req_id, code, text)

    def raw(self, data: bytes, *, client_id: int | None = None) -> None:
        """Write bytes as they are to one client, or to all.

        Raises
        ------
        LookupError
            If no client has that id.
        """
        for session in self._clients(client_id):
            session.send(data)

    def accept(self) -> None:
        """Serve the clients that wait, and all that connect from now on."""
        self.handshake = Handshake.NORMAL
        for session in list(self.sessions):
            session.accept()

    def lose_subscriptions(self) -> None:
        """Forget every subscription without a word, as TWS does before it sends 1101."""
        for session in self.sessions:
            session.lose_subscriptions()

    def drop(self) -> None:
        """Cut every connection at once; what was not sent yet is lost."""
        for session in list(self.sessions):
            session.drop()

    # For the sessions

    def book(self, symbol: str) -> Book:
        """Return what is known of a symbol's trading.

        Raises
        ------
        LookupError
            If the market does not know the symbol, or the gateway was never started.
        """
        try:
            return self._books[symbol]
        except KeyError:
            raise LookupError(f"the market does not know {symbol!r}") from None

    def has_client(self, client_id: int) -> bool:
        """Tell whether a client with this id is connected."""
        return any(session.started and session.client_id == client_id for session in self.sessions)

    def log_unknown(self, kind: str) -> None:
        """Log a kind of request that has no answer here, the first time it comes."""
        if kind not in self._unknown:
            self._unknown.add(kind)
            logger.warning("Ignoring requests the simulator does not know. kind=%s", kind)

    def _clients(self, client_id: int | None) -> list[Session]:
        clients = [session for session in self.sessions if session.started]
        if client_id is None:
            return clients
        chosen = [session for session in clients if session.client_id == client_id]
        if not chosen:
            raise LookupError(f"no client {client_id} is connected")
        return chosen
