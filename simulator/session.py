"""One client's connection to the gateway."""

import asyncio
import enum
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from simulator.book import Tick
from simulator.decode import Asked, decode
from simulator.encode import Encoder
from simulator.history import CANCELLED, INVALID, NO_DATA, NO_QUERY, PACING, bars_of
from simulator.stocks import NO_DEFINITION, ContractQuery, Stock, find
from simulator.wire import HELLO, WireError, glue, negotiate, take_frames

if TYPE_CHECKING:
    from simulator.gateway import Gateway

logger = logging.getLogger(__name__)

NO_LINE: Final = "Max number of tickers has been reached."
MAX_BACKLOG_BYTES: Final = 256 * 1024 * 1024

NEXT_VALID_ID: Final = 1
LIVE_DATA: Final = 1
DELAYED_DATA: Final = 3
DELAYED_TYPES: Final = (3, 4)
"""The market data types, delayed and delayed frozen, with which a client accepts delayed data."""

FARM_NOTICES: Final = [
    (2104, "Market data farm connection is OK:usfarm"),
    (2106, "HMDS data farm connection is OK:ushmds"),
    (2158, "Sec-def data farm connection is OK:secdefnj"),
]

CLIENT_ID_IN_USE: Final = (
    "Unable to connect as the client id is already in use. Retry with a unique client id."
)
AMBIGUOUS: Final = "The contract description specified for {} is ambiguous."
NOT_SUBSCRIBED: Final = (
    "Requested market data requires additional subscription for API. See link in 'Market Data "
    "Connections' dialog for more details.Delayed market data is available."
)
DISPLAYING_DELAYED: Final = (
    "Requested market data is not subscribed. Displaying delayed market data."
)

PLAIN_ANSWERS: Final[dict[str, Callable[[Encoder, Asked], bytes]]] = {
    "reqAccountSummary": lambda encoder, asked: encoder.account_summary_end(asked.req_id),
    "reqAccountUpdates": lambda encoder, asked: encoder.account_download_end(asked.value),
    "reqAccountUpdatesMulti": lambda encoder, asked: encoder.account_update_multi_end(asked.req_id),
    "reqAllOpenOrders": lambda encoder, _: encoder.open_order_end(),
    "reqCompletedOrders": lambda encoder, _: encoder.completed_orders_end(),
    "reqCurrentTime": lambda encoder, _: encoder.current_time(),
    "reqExecutions": lambda encoder, asked: encoder.execution_details_end(asked.req_id),
    "reqIds": lambda encoder, _: encoder.next_valid_id(NEXT_VALID_ID),
    "reqOpenOrders": lambda encoder, _: encoder.open_order_end(),
    "reqPositions": lambda encoder, _: encoder.position_end(),
    "reqPositionsMulti": lambda encoder, asked: encoder.position_multi_end(asked.req_id),
}
"""Answers that depend on nothing but the request; the lists that they end are empty here."""


class Handshake(enum.Enum):
    """How a gateway treats clients that connect."""

    NORMAL = "normal"
    SILENT = "silent"
    """Accept the connection, never answer."""
    CLOSE = "close"
    """Close it after reading the client's hello."""
    CLOSE_AFTER_VERSION = "close after version"
    """Close it after answering with the server version."""
    PENDING = "pending"
    """Answer with the server version, and serve only once `Gateway.accept` is called: as while
    TWS asks on its screen whether to accept the connection, or logs in."""
    NOT_TWS = "not TWS"
    """Answer as a web server does, and close it."""


class Request(NamedTuple):
    """Something that a client asked for."""

    at: float
    """`time.monotonic()` when it came."""
    client_id: int
    kind: str
    """ibapi's method name; `message N` for one the simulator does not know."""
    req_id: int
    """-1 where there is none."""
    symbol: str
    """Empty where there is none."""
    detail: str = ""
    """The primary exchange of a contract, the market data type, or the account; of past bars
    their size, their duration and its end."""


class Subscription(NamedTuple):
    """A client's wish for one stock's ticks."""

    symbol: str
    delayed: bool


class Session(asyncio.Protocol):
    """Speak with one client, from its hello to the end of the connection."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._received = bytearray()
        self._greeted = False
        self._encoder: Encoder | None = None
        self._market_data_type = LIVE_DATA
        self._subscriptions: dict[int, Subscription] = {}
        # The requests for past bars that were not answered.
        self._queries: set[int] = set()
        self._closing = False
        # The client's wish to be served, while it waits.
        self._pending: Asked | None = None
        self.client_id = -1
        self.started = False
        # What answers the requests that depend on more than themselves.
        self._handlers: dict[str, Callable[[Encoder, Asked], None]] = {
            "reqMktData": self._subscribe,
            "cancelMktData": self._cancel,
            "reqMarketDataType": self._set_market_data_type,
            "reqContractDetails": self._describe_contract,
            "reqHistoricalData": self._tell_history,
            "cancelHistoricalData": self._cancel_query,
            "reqManagedAccts": self._tell_accounts,
        }

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._gateway.sessions.append(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._leave()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._received += data
        try:
            if self._encoder is None:
                self._shake_hands()
            if self._encoder is not None:
                self._answer_all(self._encoder)
        except WireError as error:
            logger.warning("Closing a connection that does not speak TWS: %s.", error)
            self._close()

    def send(self, *messages: bytes) -> None:
        """Write messages; a client that does not read them is dropped before memory runs out."""
        if self._closing or self._gateway.silent:
            return
        together = self._gateway.gluing and len(messages) > 1
        self._transport.write(glue(*messages) if together else b"".join(messages))
        backlog = self._transport.get_write_buffer_size()
        if backlog > MAX_BACKLOG_BYTES:
            logger.warning(
                "Dropping a client that does not read. client_id=%d backlog_bytes=%d",
                self.client_id,
                backlog,
            )
            self.drop()

    def drop(self) -> None:
        """Cut the connection; what was not sent yet is lost."""
        self._leave()
        self._transport.abort()

    def _close(self) -> None:
        """End the connection once everything written has been sent."""
        self._leave()
        self._transport.close()

    def _leave(self) -> None:
        self._closing = True
        if self in self._gateway.sessions:
            self._gateway.sessions.remove(self)
            if self.started:
                logger.info("Client disconnected. client_id=%d", self.client_id)

    # The handshake

    def _shake_hands(self) -> None:
        handshake = self._gateway.handshake
        if handshake is Handshake.SILENT:
            self._received.clear()
            return
        if handshake is Handshake.NOT_TWS:
            self.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self._close()
            return
        if not self._greeted:
            if len(self._received) < len(HELLO):
                return
            if not self._received.startswith(HELLO):
                raise WireError(f"it began with {bytes(self._received[:20])!r}")
            del self._received[: len(HELLO)]
            self._greeted = True
        versions = next(take_frames(self._received), None)
        if versions is None:
            return
        if handshake is Handshake.CLOSE:
            self._close()
            return
        version = negotiate(versions, self._gateway.server_version)
        self._encoder = Encoder(version, self._gateway.garbled)
        self.send(self._encoder.version())
        if handshake is Handshake.CLOSE_AFTER_VERSION:
            self._close()

    def _start(self, encoder: Encoder, asked: Asked) -> None:
        client_id = asked.number
        if self._gateway.has_client(client_id):
            logger.info("Client refused, its id is in use. client_id=%d", client_id)
            self.send(encoder.error(-1, 326, CLIENT_ID_IN_USE))
            self._close()
            return
        self.client_id = client_id
        self.started = True
        logger.info(
            "Client connected. client_id=%d server_version=%d", client_id, encoder.server_version
        )
        self.send(
            encoder.managed_accounts(",".join(self._gateway.accounts)),
            *(encoder.open_order(each + 1) for each in range(self._gateway.open_orders)),
            encoder.next_valid_id(NEXT_VALID_ID),
            *(encoder.error(-1, code, text) for code, text in FARM_NOTICES),
        )

    def _ask_to_be_served(self, asked: Asked) -> None:
        self._pending = asked
        if self._gateway.handshake is not Handshake.PENDING:
            self.accept()

    def accept(self) -> None:
        """Serve the client if it waits for that."""
        if self._encoder is not None and self._pending is not None:
            asked, self._pending = self._pending, None
            self._start(self._encoder, asked)

    # Requests

    def _answer_all(self, encoder: Encoder) -> None:
        for payload in take_frames(self._received):
            asked = decode(payload, encoder.server_version)
            self._gateway.requests.append(
                Request(
                    time.monotonic(),
                    asked.number if asked.kind == "startApi" else self.client_id,
                    asked.kind,
                    asked.req_id,
                    asked.contract.symbol,
                    asked.detail,
                )
            )
            self._answer(encoder, asked)
            if self._closing:
                return

    def _answer(self, encoder: Encoder, asked: Asked) -> None:
        if not self.started:
            if asked.kind == "startApi":
                self._ask_to_be_served(asked)
            return
        if handler := self._handlers.get(asked.kind):
            handler(encoder, asked)
        elif plain := PLAIN_ANSWERS.get(asked.kind):
            self.send(plain(encoder, asked))
        elif not asked.known:
            self._gateway.log_unknown(asked.kind)

    def _subscribe(self, encoder: Encoder, asked: Asked) -> None:
        if not self._gateway.serving:
            return
        req_id = asked.req_id
        if req_id in self._subscriptions:
            self.send(encoder.error(req_id, 102, "Duplicate ticker ID."))
            return
        lines = sum(len(each.subscriptions) for each in self._gateway.sessions)
        if self._gateway.lines is not None and lines >= self._gateway.lines:
            self.send(encoder.error(req_id, 101, NO_LINE))
            return
        symbol = self._symbol_of(encoder, asked)
        if not symbol:
            return
        delayed = symbol in self._gateway.delayed_only
        if delayed and self._market_data_type not in DELAYED_TYPES:
            self.send(encoder.error(req_id, 10089, NOT_SUBSCRIBED))
            return
        if delayed:
            self.send(encoder.error(req_id, 10167, DISPLAYING_DELAYED))
        self.send(
            encoder.market_data_type(
                req_id,
                self._gateway.data_types.get(symbol, DELAYED_DATA if delayed else LIVE_DATA),
            ),
            encoder.tick_req_params(req_id),
            *(
                encoder.tick(req_id, tick, delayed=delayed)
                for tick in self._gateway.book(symbol).state(self._gateway.opening_time)
            ),
        )
        if asked.snapshot:
            self.send(encoder.tick_snapshot_end(req_id))
            return
        self._subscriptions[req_id] = Subscription(symbol, delayed)
        logger.info(
            "Market data subscribed. client_id=%d req_id=%d symbol=%s",
            self.client_id,
            req_id,
            symbol,
        )

    def _cancel(self, encoder: Encoder, asked: Asked) -> None:
        req_id = asked.req_id
        subscription = self._subscriptions.pop(req_id, None)
        if subscription is None:
            text = f"Can't find EId with tickerId:{req_id}"
            self.send(encoder.error(req_id, 300, text))
            return
        logger.info(
            "Market data cancelled. client_id=%d req_id=%d symbol=%s",
            self.client_id,
            req_id,
            subscription.symbol,
        )

    def _set_market_data_type(self, encoder: Encoder, asked: Asked) -> None:
        self._market_data_type = asked.number
        self.send(
            *(
                encoder.market_data_type(
                    req_id, DELAYED_DATA if subscription.delayed else LIVE_DATA
                )
                for req_id, subscription in self._subscriptions.items()
            )
        )

    def _describe_contract(self, encoder: Encoder, asked: Asked) -> None:
        if not self._gateway.describing:
            return
        stocks = self._find(asked.contract)
        if not stocks:
            text = self._gateway.refusal or NO_DEFINITION
            self.send(encoder.error(asked.req_id, 200, text))
            return
        self.send(
            *(encoder.contract_details(asked.req_id, stock) for stock in stocks),
            encoder.contract_details_end(asked.req_id),
        )

    def _tell_history(self, encoder: Encoder, asked: Asked) -> None:
        req_id, query = asked.req_id, asked.history
        if not self._gateway.recalling:
            self._queries.add(req_id)
            return
        if problem := query.problem():
            self.send(encoder.error(req_id, 321, INVALID.format(problem)))
            return
        symbol = self._symbol_of(encoder, asked)
        if not symbol:
            return
        if self._gateway.pacing.violated(symbol, query):
            self.send(encoder.error(req_id, 162, PACING))
            return
        begin, end = query.span()
        bars = list(bars_of(self._gateway.book(symbol).past(begin, end), query))
        if not bars:
            self.send(encoder.error(req_id, 162, NO_DATA.format(symbol)))
            return
        self.send(encoder.historical_data(req_id, bars, str(begin), str(end)))

    def _cancel_query(self, encoder: Encoder, asked: Asked) -> None:
        req_id = asked.req_id
        if req_id in self._queries:
            self._queries.remove(req_id)
            self.send(encoder.error(req_id, 162, CANCELLED.format(req_id)))
        else:
            self.send(encoder.error(req_id, 366, NO_QUERY.format(req_id)))

    def _tell_accounts(self, encoder: Encoder, _: Asked) -> None:
        self.send(encoder.managed_accounts(",".join(self._gateway.accounts)))

    def _symbol_of(self, encoder: Encoder, asked: Asked) -> str:
        """Return the one stock that a request is about; else refuse it, and return nothing."""
        stocks = self._find(asked.contract)
        if len(stocks) == 1:
            return stocks[0].symbol
        text = AMBIGUOUS.format(asked.contract.symbol) if stocks else NO_DEFINITION
        self.send(encoder.error(asked.req_id, 200, self._gateway.refusal or text))
        return ""

    def _find(self, contract: ContractQuery) -> list[Stock]:
        gateway = self._gateway
        known = [s for s in gateway.market.symbols if s not in gateway.undefined]
        return find(contract, known, gateway.ambiguous, gateway.abroad)

    # What the gateway tells

    def tell_ticks(self, symbol: str, ticks: Sequence[Tick]) -> None:
        """Send ticks to each subscription of a symbol."""
        if self._encoder is None:
            return
        for req_id, subscription in self._subscriptions.items():
            if subscription.symbol == symbol:
                self.send(
                    *(
                        self._encoder.tick(req_id, tick, delayed=subscription.delayed)
                        for tick in ticks
                    )
                )

    def tell_data_type(self, symbol: str, data_type: int) -> None:
        """Tell each subscription of a symbol which kind of data it is served."""
        if self._encoder is None:
            return
        for req_id, subscription in self._subscriptions.items():
            if subscription.symbol == symbol:
                self.send(self._encoder.market_data_type(req_id, data_type))

    def tell_error(self, req_id: int, code: int, text: str) -> None:
        """Send an error message."""
        if self._encoder is not None:
            self.send(self._encoder.error(req_id, code, text))

    @property
    def subscriptions(self) -> list[Subscription]:
        """What it is served."""
        return list(self._subscriptions.values())

    def lose_subscriptions(self) -> None:
        """Send no more ticks to any subscription there is."""
        self._subscriptions.clear()

    def burst(
        self, symbol: str, prices: Sequence[float], size: float, total_bytes: int | None
    ) -> int:
        """Send trades to each subscription of a symbol in one write; return its length."""
        length = 0
        if self._encoder is None:
            return length
        for req_id, subscription in self._subscriptions.items():
            if subscription.symbol == symbol:
                data = self._encoder.burst(
                    req_id, prices, size, total_bytes, delayed=subscription.delayed
                )
                self.send(data)
                length = max(length, len(data))
        return length
