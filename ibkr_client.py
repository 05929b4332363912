"""IBKR's TWS API: the connection, market data subscriptions and the trades they bring.

Built on IBKR's official client. What that is known to do wrong, and what is
done about it here, stands where it is done.

Threads: one API thread per client reads the socket, writes to it and runs all
callbacks. Every public method may be called from any thread; those that wait
for the API thread say so and belong off the event loop.
"""

import functools
import logging
import math
import re
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from enum import Enum
from typing import Any, Final, NamedTuple

from ibapi import comm
from ibapi.client import EClient
from ibapi.const import MAX_MSG_LEN, NO_VALID_ID, UNSET_DECIMAL, UNSET_DOUBLE
from ibapi.contract import Contract
from ibapi.decoder import Decoder
from ibapi.server_versions import MAX_CLIENT_VER, MIN_CLIENT_VER
from ibapi.ticktype import TickTypeEnum
from ibapi.wrapper import EWrapper

from settings import Settings

logger = logging.getLogger(__name__)
# It logs every message sent, at INFO.
logging.getLogger("ibapi").setLevel(logging.WARNING)

CONNECT_TIMEOUT_S: Final = 9.0
DISCONNECT_TIMEOUT_S: Final = 2.0
# TWS takes 50 messages a second, as it counts them when they arrive, and then
# cuts the connection. So many at once and then evenly spaced, they stay below
# that even if the network holds some back for a tenth of a second.
MAX_SENDS_AT_ONCE: Final = 10
MAX_SENDS_PER_S: Final = 35
MAX_TICKS_PER_TICKER: Final = 5000
# From here on a size is no number of shares but a gateway's way to say "missing".
MAX_VOLUME: Final = 2**31 - 1

SOURCE: Final = "ibkr_last_trade"

# Ports as TWS and IB Gateway come; both let the user change them.
PAPER_PORTS: Final = (7497, 4002)
LIVE_PORTS: Final = (7496, 4001)

# From this server version on a message begins with its id as 4 bytes, and ids
# above 200 mark protobuf. Library releases before it do not know either.
_RAW_ID_SERVER_VERSION: Final = 201
_PROTOBUF_ID: Final = 200
_LIBRARY_KNOWS_PROTOBUF: Final = hasattr(Decoder, "processProtoBuf")


class ConnectionState(Enum):
    """How far the connection to TWS has come."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    SOCKET_OPEN = "socket open"
    READY = "ready"


class Reaction(Enum):
    """What a code from TWS makes the client do, besides the line in the log."""

    NONE = "nothing"
    DROP_TICKER = "drop the ticker for this run"
    END_CONNECTION = "end the connection"


class Code(NamedTuple):
    """What a code means: the reaction, the log level, and the line for the trader.

    The line may hold {ticker}, {host}, {port}, {client_id} and {text}, TWS's own words.
    """

    reaction: Reaction
    level: int
    line: str


_FARM_NOTICE = Code(Reaction.NONE, logging.DEBUG, "{text}")
_NOT_CONNECTED = Code(
    Reaction.END_CONNECTION,
    logging.ERROR,
    "Not connected to TWS at {host}:{port}: start TWS or IB Gateway, enable its API "
    "(Configure > API > Settings > Enable ActiveX and Socket Clients) and compare its machine and "
    "socket port with IBKR_HOST and IBKR_PORT.",
)

# Sources: TWS API message codes, and what gateways were seen to send.
CODES: Final[dict[int, Code]] = {
    200: Code(
        Reaction.DROP_TICKER,
        logging.ERROR,
        "IBKR knows no US stock {ticker}; it is left out for this run. ({text})",
    ),
    326: Code(
        Reaction.END_CONNECTION,
        logging.ERROR,
        "Client id {client_id} is in use at {host}:{port}: stop the other program that holds it, "
        "or set IBKR_CLIENT_ID to a free one (tradehead holds 1).",
    ),
    354: Code(
        Reaction.NONE,
        logging.ERROR,
        "No data for {ticker}: the account has no live market data subscription for it; buy it in "
        "IBKR's Client Portal (Settings > Market Data Subscriptions). ({text})",
    ),
    502: _NOT_CONNECTED,
    504: _NOT_CONNECTED,
    2104: _FARM_NOTICE,
    2106: _FARM_NOTICE,
    2158: _FARM_NOTICE,
    10167: Code(
        Reaction.NONE,
        logging.WARNING,
        "IBKR serves {ticker} delayed only: its account has no live subscription for it. ({text})",
    ),
}
OTHER_CODE: Final = Code(Reaction.NONE, logging.WARNING, "{ticker}: {text}")


class GatewayError(ConnectionError):
    """No connection to TWS; the text names the cause and the remedy.

    `accepted`: something accepted the connection, which then failed. False:
    nothing listens there, or nothing was reached.
    """

    def __init__(self, text: str, *, accepted: bool) -> None:
        super().__init__(text)
        self.accepted = accepted


class TwsSocket:
    """The socket to TWS: every whole message in, paced messages out.

    It stands in for the library's Connection and EReader, which throw away
    everything received when a burst ends on a multiple of 4096 bytes and a
    second of quiet follows. The API thread owns the socket; `sendMsg`,
    `isConnected` and `disconnect` may be called from any thread and never wait.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._connection = connection
        self._received = bytearray()
        self._outbox: deque[bytes] = deque()
        self._unsent = b""
        # When the messages sent so far would have gone out one by one.
        self._paced_to = 0.0
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._ends_at = math.inf
        self._closed = False

    def isConnected(self) -> bool:
        """Whether the socket is open; that says nothing about TWS."""
        return not self._closed

    def sendMsg(self, message: bytes) -> None:
        """Puts a message on its way."""
        self._outbox.append(message)
        self._wake()

    def disconnect(self, within_s: float = 0.0) -> None:
        """Ends `messages`, at the latest in `within_s` seconds; sooner if all has been sent."""
        self._ends_at = time.monotonic() + within_s
        self._wake()

    def messages(self) -> Iterator[bytes]:
        """Whole messages as they arrive, until either side ends the connection. API thread.

        Raises
        ------
        OSError
            The connection broke.
        ValueError
            What arrives is not framed as TWS frames messages.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection, selectors.EVENT_READ)
            selector.register(self._wake_in, selectors.EVENT_READ)
            while True:
                pause = self._send()
                if self._finished():
                    return
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
                selector.modify(self._connection, events)
                pause = min(pause, self._ends_at - time.monotonic())
                selector.select(None if pause == math.inf else max(pause, 0.0))
                with suppress(BlockingIOError):
                    self._wake_in.recv(4096)
                with suppress(BlockingIOError):
                    data = self._connection.recv(1 << 18)
                    if not data:
                        return
                    self._received += data
                    yield from self._whole_messages()

    def close(self) -> None:
        """Closes the socket. API thread."""
        self._closed = True
        for each in (self._connection, self._wake_in, self._wake_out):
            each.close()

    def _wake(self) -> None:
        # A full pipe wakes too, and one that is closed has nobody left to wake.
        with suppress(OSError):
            self._wake_out.send(b"\0")

    def _finished(self) -> bool:
        now = time.monotonic()
        return now >= self._ends_at or (
            self._ends_at < math.inf and not self._outbox and not self._unsent
        )

    def _send(self) -> float:
        """Sends what may be sent now; returns the seconds until more may be, inf if none waits."""
        while self._unsent or self._outbox:
            if not self._unsent:
                now = time.monotonic()
                early = self._paced_to - now - (MAX_SENDS_AT_ONCE - 1) / MAX_SENDS_PER_S
                if early > 0:
                    return early
                self._paced_to = max(self._paced_to, now) + 1 / MAX_SENDS_PER_S
                self._unsent = self._outbox.popleft()
            try:
                self._unsent = self._unsent[self._connection.send(self._unsent) :]
            except BlockingIOError:
                break
        return math.inf

    def _whole_messages(self) -> Iterator[bytes]:
        start, end = 0, len(self._received)
        while end - start >= 4:
            size = int.from_bytes(self._received[start : start + 4], "big")
            if size > MAX_MSG_LEN:
                raise ValueError(f"a message of {size} bytes")
            if end - start - 4 < size:
                break
            yield bytes(self._received[start + 4 : start + 4 + size])
            start += 4 + size
        del self._received[:start]


def never_raises(callback: Callable[..., None]) -> Callable[..., None]:
    """Logs what a callback raises: an exception in one would end the API thread."""

    @functools.wraps(callback)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            callback(*args, **kwargs)
        except Exception:
            logger.exception("A callback failed: %s%r", callback.__name__, args[1:])

    return guarded


class IBKRClient(EWrapper, EClient):  # type: ignore[misc]
    """One connection to TWS or IB Gateway, and the trades of the subscribed tickers.

    For one connection only: after a loss, make a new one. The library's own
    state cannot be used twice.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 7497,
        client_id: int = 10,
        price_callback: Callable[[str, float, int, datetime], object] | None = None,
    ) -> None:
        """
        Parameters
        ----------
        host, port
            Where TWS listens; 7497 is its paper port, 7496 its live one.
        client_id
            Unique among all programs connected to the same TWS.
        price_callback
            Called on the API thread with ticker, price (USD), volume (shares)
            and time (aware UTC) of each trade, once. What it raises is logged.
        """
        EWrapper.__init__(self)
        EClient.__init__(self, self)
        self.host = host
        self.port = port
        self.client_id = client_id
        self.price_callback = price_callback

        self.state = ConnectionState.DISCONNECTED
        self.next_order_id: int | None = None
        self.accounts: list[str] = []
        # Why the connection failed or ended; the monitor hands it on to the next client.
        self.failure: GatewayError | None = None
        self._settled = threading.Event()
        # An attempt either becomes ready or fails.
        self._settling = threading.RLock()
        self._messages: Iterator[bytes] = iter(())

        # Everything below is shared with the API thread and guarded by the lock.
        self.price_buffer_lock = threading.Lock()
        self.next_req_id = 1000
        self.reqid_to_ticker: dict[int, str] = {}
        self.ticker_to_reqid: dict[str, int] = {}
        self.active_subscriptions: set[str] = set()
        self.rejected_tickers: set[str] = set()
        # ticker → what TWS said last against its data.
        self.ticker_problems: dict[str, str] = {}
        self.price_buffer: dict[str, list[dict[str, Any]]] = {}
        self.last_volume: dict[str, int] = {}
        self.ticks_pushed_out = 0
        self._pushed_out: dict[str, int] = {}

        # The price of a trade whose size comes in the next callback. API thread only.
        self._price_without_size: dict[int, float] = {}

        self.api_thread: threading.Thread | None = None

    @property
    def connected(self) -> bool:
        """Whether the API is ready: requests are taken and data can come."""
        return self.state is ConnectionState.READY

    @property
    def paper(self) -> bool | None:
        """Whether the account is a paper one; None as long as nothing tells.

        Paper accounts' ids begin with D, live ones' with U or F. The port is a
        hint only, for a gateway that named no account.
        """
        if self.accounts:
            return self.accounts[0].startswith("D")
        return _paper_by_port(self.port)

    @property
    def mode(self) -> str:
        """PAPER, LIVE or UNKNOWN; see `paper`."""
        return {True: "PAPER", False: "LIVE", None: "UNKNOWN"}[self.paper]

    # --- Connection ---------------------------------------------------------

    def connect_and_run(self) -> bool:
        """Connects and starts the API thread; answers within 10 s. Blocks.

        Returns
        -------
        bool
            True once the API is ready. False leaves the reason in `failure`
            and one line in the log, unless `failure` held the same before.
        """
        if self.api_thread is not None:
            raise RuntimeError("An IBKRClient is for one connection only; make a new one.")
        logger.debug("Connecting to TWS at %s:%d, client_id=%d", *self._address())
        known = self.failure
        self.failure = None
        self._set_state(ConnectionState.CONNECTING)
        self.api_thread = threading.Thread(target=self._live, name="ibkr-api", daemon=True)
        self.api_thread.start()
        self._settled.wait(CONNECT_TIMEOUT_S)
        with self._settling:
            if not self._settled.is_set():
                self._fail(self._silence())
        if self.failure is None:
            return True
        self.disconnect()
        level = logging.DEBUG if str(known) == str(self.failure) else logging.ERROR
        logger.log(level, "No connection to IBKR: %s", self.failure)
        return False

    def connect(self, host: str, port: int, clientId: int) -> None:
        """Opens the socket and shakes hands. API thread; use `connect_and_run`.

        In place of the library's, whose handshake has no deadline and loops
        for ever over an answer that is none.

        Raises
        ------
        GatewayError
            The connection or the handshake failed.
        """
        self.clientId = clientId
        try:
            connection = socket.create_connection((host, port), CONNECT_TIMEOUT_S)
        except (OSError, UnicodeError) as problem:  # UnicodeError: no host can be called that
            reason = getattr(problem, "strerror", None) or str(problem)
            line = _NOT_CONNECTED.line.format(host=host, port=port)
            raise GatewayError(f"{line} ({reason})", accepted=False) from problem
        self.conn = TwsSocket(connection)
        if self._settled.is_set():
            raise GatewayError("It was given up.", accepted=False)
        self._set_state(ConnectionState.SOCKET_OPEN)
        versions = f"v{MIN_CLIENT_VER}..{MAX_CLIENT_VER}".encode()
        self.conn.sendMsg(b"API\0" + len(versions).to_bytes(4, "big") + versions)
        self._messages = self.conn.messages()
        self.serverVersion_, self.connTime = self._server_version()
        self.decoder = Decoder(self, self.serverVersion_)
        self.setConnState(EClient.CONNECTED)
        self.startApi()

    def run(self) -> None:
        """Takes messages until the connection ends. API thread; use `connect_and_run`."""
        for message in self._messages:
            self._decode(message)

    def disconnect(self) -> None:
        """Ends the connection at once; `connectionClosed` follows on the API thread."""
        if self.conn is not None:
            self.conn.disconnect()

    def disconnect_safely(self) -> None:
        """Cancels all subscriptions and ends the connection. Blocks for at most 2 s."""
        self.update_subscriptions(set())
        self._set_state(ConnectionState.DISCONNECTED)
        self._fail(GatewayError("newshead ended it.", accepted=False))
        if self.conn is not None:
            self.conn.disconnect(within_s=DISCONNECT_TIMEOUT_S / 2)
        if self.api_thread is not None and self.api_thread is not threading.current_thread():
            self.api_thread.join(DISCONNECT_TIMEOUT_S)

    def _live(self) -> None:
        """The API thread, from the first connection attempt to the socket's end."""
        try:
            self.connect(self.host, self.port, self.client_id)
            self.run()
            if not self.connected:
                raise self._closed_early()
        except GatewayError as failure:
            self._fail(failure)
        except (OSError, ValueError) as problem:
            logger.debug("The connection broke: %s", problem)
            self._fail(
                GatewayError(f"The connection to TWS broke: {problem}.", accepted=True)
                if self.connected
                else self._closed_early()
            )
        except Exception:
            logger.exception("The API thread failed; the connection ends.")
        finally:
            if self.conn is not None:
                self.conn.close()
            self._fail(
                GatewayError(
                    "TWS ended it; see whether TWS restarts or shows a message.", accepted=True
                )
            )
            self.connectionClosed()

    def _server_version(self) -> tuple[int, str]:
        """Reads up to TWS's answer to the handshake; other messages may stand before it."""
        try:
            for message in self._messages:
                fields = message.split(b"\0")
                if len(fields) == 3 and fields[0].isdigit():
                    return int(fields[0]), fields[1].decode(errors="replace")
        except ValueError as problem:
            raise GatewayError(
                f"What listens on {self.host}:{self.port} is not TWS (it sent {problem}): "
                "compare IBKR_PORT with TWS's socket port.",
                accepted=True,
            ) from problem
        except OSError as problem:
            logger.debug("The handshake broke: %s", problem)
        raise self._closed_early()

    def _closed_early(self) -> GatewayError:
        return GatewayError(
            f"TWS at {self.host}:{self.port} closed the connection during the handshake: allow "
            "this machine under Configure > API > Settings > Trusted IPs, and see whether TWS "
            "takes more clients.",
            accepted=True,
        )

    def _silence(self) -> GatewayError:
        host, port, _ = self._address()
        if self.state is ConnectionState.CONNECTING:
            return GatewayError(
                f"Nothing answers at {host}:{port}: see that IBKR_HOST is right and no firewall "
                "stands between.",
                accepted=False,
            )
        return GatewayError(
            f"{host}:{port} accepted the connection but says nothing: TWS may be asking on its "
            "screen whether to accept it, or it hangs and needs a restart; or IBKR_PORT belongs "
            "to another program.",
            accepted=True,
        )

    def _fail(self, failure: GatewayError) -> None:
        """Notes why the connection failed; the first reason stands."""
        with self._settling:
            if self.failure is None:
                self.failure = failure
            self._settled.set()

    def _address(self) -> tuple[str, int, int]:
        return self.host, self.port, self.client_id

    def _set_state(self, state: ConnectionState) -> None:
        if state is not self.state:
            logger.debug("IBKR connection: %s -> %s", self.state.value, state.value)
            self.state = state

    def _decode(self, message: bytes) -> None:
        """Hands a message to IBKR's decoder, which calls the callbacks.

        Raises
        ------
        GatewayError
            The decoder cannot make sense of it.
        """
        try:
            if self.serverVersion_ >= _RAW_ID_SERVER_VERSION:
                number, body = int.from_bytes(message[:4], "big"), message[4:]
            else:
                number_text, _, body = message.partition(b"\0")
                number = int(number_text)
            if number > _PROTOBUF_ID and _LIBRARY_KNOWS_PROTOBUF:
                self.decoder.processProtoBuf(body, number - _PROTOBUF_ID)
            elif _LIBRARY_KNOWS_PROTOBUF:
                self.decoder.interpret(comm.read_fields(body), number)
            else:
                self.decoder.interpret(comm.read_fields(message))
        except Exception as problem:
            logger.debug("Undecodable message %r", message[:200], exc_info=True)
            raise GatewayError(
                f"TWS sent a message that IBKR's client cannot read ({problem!r}).", accepted=True
            ) from problem

    # --- Connection callbacks, on the API thread ----------------------------

    @never_raises
    def managedAccounts(self, accountsList: str) -> None:
        """The accounts of the login; TWS sends them before `nextValidId`."""
        self.accounts = [name for name in accountsList.split(",") if name]
        if not self.accounts:
            return
        logger.info("IBKR account %s: %s trading.", _masked(self.accounts[0]), self.mode)
        by_port = _paper_by_port(self.port)
        if by_port is not None and by_port is not self.paper:
            logger.warning(
                "ATTENTION: this is a %s account on port %d, which is usually TWS's port for %s "
                "trading. Check IBKR_PORT and the login.",
                self.mode,
                self.port,
                "PAPER" if by_port else "LIVE",
            )

    @never_raises
    def nextValidId(self, orderId: int) -> None:
        """The API is ready."""
        with self._settling:
            if self.failure is not None:
                return
            self.next_order_id = orderId
            self._set_state(ConnectionState.READY)
            self._settled.set()
        logger.info("Connected to IBKR at %s:%d, client_id=%d", *self._address())

    @never_raises
    def connectionClosed(self) -> None:
        """The connection has ended, wherever the end came from."""
        if self.connected:
            logger.warning("IBKR connection closed. %s", self.failure)
        self._set_state(ConnectionState.DISCONNECTED)

    @never_raises
    def error(self, reqId: int, *details: Any) -> None:
        """A code from TWS, in the library's old form or its new one.

        Parameters
        ----------
        reqId
            The request it belongs to; -1 for none.
        details
            `(errorCode, errorString, advancedOrderRejectJson)` up to 10.30,
            `(errorTime, errorCode, errorString, advancedOrderRejectJson)` since.
        """
        number, text = details[1:3] if isinstance(details[1], int) else details[0:2]
        with self.price_buffer_lock:
            ticker = self.reqid_to_ticker.get(reqId, "")
        code = CODES.get(number, OTHER_CODE)
        host, port, client_id = self._address()
        line = code.line.format(
            ticker=ticker or "IBKR",
            host=host,
            port=port,
            client_id=client_id,
            text=" ".join(str(text).split()),
        )
        if code.reaction is Reaction.END_CONNECTION:
            # It is logged as the reason for what follows.
            self._fail(GatewayError(line, accepted=True))
            self.disconnect()
            return
        # About a request that is over; there is no ticker left to name.
        over = not ticker and "{ticker}" in code.line and reqId != NO_VALID_ID
        logger.log(logging.DEBUG if over else code.level, "IBKR code %d: %s", number, line)
        if ticker:
            with self.price_buffer_lock:
                self.ticker_problems[ticker] = line
        if code.reaction is Reaction.DROP_TICKER and ticker:
            self._drop(ticker)

    # --- Market data callbacks, on the API thread ---------------------------

    @never_raises
    def tickPrice(self, reqId: int, tickType: int, price: float, attrib: Any) -> None:  # noqa: ARG002
        """A price. One of a trade (LAST) waits for its size, which comes in the next callback.

        TWS sends both in one message; the library calls `tickPrice`, then `tickSize`.
        """
        if tickType == TickTypeEnum.LAST:
            self._price_without_size.pop(reqId, None)
            if _is_price(price):
                self._price_without_size[reqId] = float(price)

    @never_raises
    def tickSize(self, reqId: int, tickType: int, size: Decimal) -> None:
        """A size. A trade's (LAST_SIZE) completes the price before it; a lone one is no tick."""
        if tickType == TickTypeEnum.LAST_SIZE:
            price = self._price_without_size.pop(reqId, None)
            if price is not None:
                self._record(reqId, price, _shares(size))

    @never_raises
    def tickGeneric(self, reqId: int, tickType: int, value: float) -> None:
        """Not used; without it the library would log each."""

    @never_raises
    def tickString(self, reqId: int, tickType: int, value: str) -> None:
        """Not used; without it the library would log each."""

    def _record(self, req_id: int, price: float, volume: int) -> None:
        with self.price_buffer_lock:
            ticker = self.reqid_to_ticker.get(req_id)
            if ticker is None:
                return
            # Taken under the lock, so that whoever drains the buffer knows that
            # no tick from before can come after.
            now = datetime.now(UTC)
            self.last_volume[ticker] = volume
            ticks = self.price_buffer.setdefault(ticker, [])
            if len(ticks) >= MAX_TICKS_PER_TICKER:
                del ticks[0]
                self.ticks_pushed_out += 1
                self._pushed_out[ticker] = self._pushed_out.get(ticker, 0) + 1
            ticks.append({"price": price, "volume": volume, "timestamp": now, "source": SOURCE})
        if self.price_callback is not None:
            try:
                self.price_callback(ticker, price, volume, now)
            except Exception:
                logger.exception("price_callback failed for %s", ticker)

    # --- Subscriptions ------------------------------------------------------

    def subscribe_ticker(self, ticker: str) -> bool:
        """Asks for the trades of a US stock; True if asked, now or before. Never waits."""
        if not self.connected:
            logger.warning("Cannot subscribe %s: not connected to IBKR.", ticker)
            return False
        with self.price_buffer_lock:
            if ticker in self.active_subscriptions:
                return True
            if ticker in self.rejected_tickers:
                return False
            req_id = self._get_next_req_id()
            self.reqid_to_ticker[req_id] = ticker
            self.ticker_to_reqid[ticker] = req_id
            self.active_subscriptions.add(ticker)
        self.reqMktData(req_id, self._create_stock_contract(ticker), "", False, False, [])
        logger.info("Subscribed %s, reqId=%d", ticker, req_id)
        return True

    def unsubscribe_ticker(self, ticker: str) -> None:
        """Ends a subscription and forgets its buffered ticks. Never waits."""
        req_id = self._forget(ticker)
        if req_id is not None:
            if self.connected:
                self.cancelMktData(req_id)
            logger.info("Unsubscribed %s", ticker)

    def update_subscriptions(self, needed_tickers: set[str]) -> None:
        """Subscribes and unsubscribes until just `needed_tickers` are subscribed. Never waits."""
        with self.price_buffer_lock:
            current = set(self.active_subscriptions)
            added = needed_tickers - current - self.rejected_tickers
        removed = current - needed_tickers
        for ticker in sorted(removed):
            self.unsubscribe_ticker(ticker)
        for ticker in sorted(added):
            self.subscribe_ticker(ticker)
        if added or removed:
            logger.info(
                "Subscriptions: +%d -%d = %d active",
                len(added),
                len(removed),
                len(self.active_subscriptions),
            )

    def get_rejected_tickers(self) -> set[str]:
        """The tickers that IBKR refused on this connection; they are not asked for again."""
        with self.price_buffer_lock:
            return set(self.rejected_tickers)

    def _drop(self, ticker: str) -> None:
        with self.price_buffer_lock:
            self.rejected_tickers.add(ticker)
        self._forget(ticker)

    def _forget(self, ticker: str) -> int | None:
        with self.price_buffer_lock:
            self.active_subscriptions.discard(ticker)
            self.price_buffer.pop(ticker, None)
            self.last_volume.pop(ticker, None)
            req_id = self.ticker_to_reqid.pop(ticker, None)
            if req_id is not None:
                self.reqid_to_ticker.pop(req_id, None)
            return req_id

    def _get_next_req_id(self) -> int:
        req_id = self.next_req_id
        self.next_req_id += 1
        return req_id

    def _create_stock_contract(self, ticker: str) -> Contract:
        contract = Contract()
        # IBKR writes share classes with a space: BRK B.
        contract.symbol = re.sub(r"[./-]", " ", ticker)
        contract.secType = "STK"
        contract.exchange = "SMART"
        contract.currency = "USD"
        return contract

    # --- The buffer ---------------------------------------------------------

    def get_and_clear_buffer(self) -> dict[str, list[dict[str, Any]]]:
        """All ticks since the last call, per ticker, oldest first; the caller owns the lists.

        A tick is a dict of `price` (USD), `volume` (shares), `timestamp`
        (aware UTC, when it arrived here) and `source`.
        """
        with self.price_buffer_lock:
            taken, self.price_buffer = self.price_buffer, {}
            lost, self._pushed_out = self._pushed_out, {}
        _log_lost(lost)
        return taken

    def get_buffer_for_tickers(self, tickers: set[str]) -> dict[str, list[dict[str, Any]]]:
        """As `get_and_clear_buffer`, for some tickers; the others' ticks stay."""
        with self.price_buffer_lock:
            taken = {t: self.price_buffer.pop(t) for t in tickers if t in self.price_buffer}
            lost = {t: self._pushed_out.pop(t) for t in tickers if t in self._pushed_out}
        _log_lost(lost)
        return taken


def _log_lost(lost: dict[str, int]) -> None:
    for ticker, count in lost.items():
        logger.warning(
            "%d ticks of %s were given up: more than %d came before they were taken.",
            count,
            ticker,
            MAX_TICKS_PER_TICKER,
        )


def _is_price(price: float) -> bool:
    # UNSET_DOUBLE, the library's word for "missing", is finite.
    return math.isfinite(price) and 0 < price < UNSET_DOUBLE


def _shares(size: Decimal) -> int:
    """A trade's size in whole shares: at least 1, but 0 where the size is missing."""
    size = Decimal(size)
    if not size.is_finite() or size == UNSET_DECIMAL or not 0 < size < MAX_VOLUME:
        return 0
    return max(1, int(size.quantize(Decimal(1), ROUND_HALF_UP)))


def _paper_by_port(port: int) -> bool | None:
    return True if port in PAPER_PORTS else False if port in LIVE_PORTS else None


def _masked(account: str) -> str:
    return "*" * (len(account) - 2) + account[-2:]


_ibkr_client: IBKRClient | None = None


def get_ibkr_client(
    host: str | None = None, port: int | None = None, client_id: int | None = None
) -> IBKRClient:
    """The process's one client, made at the first call, and anew once its connection
    has failed or ended. For scripts.

    Parameters
    ----------
    host, port, client_id
        By default IBKR_HOST, IBKR_PORT and IBKR_CLIENT_ID.

    Raises
    ------
    ConfigurationError
        A variable's value is wrong.
    """
    global _ibkr_client
    if _ibkr_client is None or _ibkr_client.failure is not None:
        settings = Settings.from_environment()
        _ibkr_client = IBKRClient(
            host=settings.ibkr_host if host is None else host,
            port=settings.ibkr_port if port is None else port,
            client_id=settings.ibkr_client_id if client_id is None else client_id,
        )
    return _ibkr_client
