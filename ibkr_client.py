"""IBKR's TWS API: the connection, market data subscriptions and the trades they bring.

Built on IBKR's official client. What that is known to do wrong, and what is
done about it here, stands where it is done.

Threads: one API thread per client reads the socket, writes to it and runs all
callbacks. Every public method may be called from any thread; those that wait
for the API thread say so and belong off the event loop.
"""

import bisect
import functools
import itertools
import logging
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from enum import Enum
from operator import itemgetter
from typing import Any, Final, TypeAlias
from zoneinfo import ZoneInfo

from ibapi import comm
from ibapi.client import EClient
from ibapi.const import NO_VALID_ID, UNSET_DECIMAL, UNSET_DOUBLE
from ibapi.contract import Contract
from ibapi.decoder import Decoder
from ibapi.server_versions import MAX_CLIENT_VER, MIN_CLIENT_VER
from ibapi.ticktype import TickTypeEnum
from ibapi.wrapper import EWrapper

from newshead.core.times import in_trading_hours
from newshead.settings import Settings
from newshead.tws.codes import CODES, NO_US_LISTING, Reaction, meaning
from newshead.tws.last_trades import LastTrades
from newshead.tws.ticks import (
    LIBRARY_KNOWS_PROTOBUF,
    PROTOBUF_ID,
    RAW_ID_SERVER_VERSION,
    TRADE_SIZES,
    TRADE_TIMES,
    tick_reader,
)
from newshead.tws.wire import TwsSocket

logger = logging.getLogger(__name__)
# It logs every message sent, at INFO.
logging.getLogger("ibapi").setLevel(logging.WARNING)

CONNECT_TIMEOUT_S: Final = 9.0
DISCONNECT_TIMEOUT_S: Final = 2.0
# Without a message for so long TWS is asked for the time, and without an answer
# for so long again the connection is given up: an open socket tells nothing.
HEARTBEAT_S: Final = 10.0
ANSWER_S: Final = 10.0
# A subscription without data for so long, while others have some, is asked for
# again; each time after twice the pause.
SILENT_S: Final = 30.0
MAX_SILENT_S: Final = 600.0
# After TWS said that data flows again, it is given so long to show.
RECOVERY_S: Final = 2.0
WATCH_EVERY_S: Final = 1.0
# A ticker for which TWS has no line free, or fails, is asked for again after this.
PARKED_S: Final = 20.0
MAX_TICKS_PER_TICKER: Final = 5000
# From here on a size is no number of shares but a gateway's way to say "missing".
MAX_VOLUME: Final = 2**31 - 1

# The market data type that TWS serves unless asked for another.
LIVE: Final = 1
# What a trade's price is called live and delayed, with the source of its rows.
TRADE_PRICES: Final = {
    TickTypeEnum.LAST: "ibkr_last_trade",
    TickTypeEnum.DELAYED_LAST: "ibkr_delayed_last",
}

NEW_YORK: Final = ZoneInfo("America/New_York")
US_EXCHANGES: Final = frozenset({"NYSE", "NASDAQ", "ARCA", "AMEX", "BATS", "IEX", "PINK"})

# Ports as TWS and IB Gateway come; both let the user change them.
PAPER_PORTS: Final = (7497, 4002)
LIVE_PORTS: Final = (7496, 4001)

# Request id, tick type, price (USD) or Unix seconds, and volume (shares).
TradeTick: TypeAlias = tuple[int, int, float | None, int]
# A last_trades.Trade, as a plain tuple: they are made by the hundred thousand.
Recorded: TypeAlias = tuple[str, float, int, datetime, str]


class ConnectionState(Enum):
    """How far the connection to TWS has come.

    An open socket, an API that takes requests, and data that flows are three
    things: SOCKET_OPEN is the first, STALE the first two, READY all of them,
    as far as TWS says.
    """

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    SOCKET_OPEN = "socket open"
    READY = "ready"
    STALE = "stale"


class GatewayError(ConnectionError):
    """No connection to TWS; the text names the cause and the remedy.

    `accepted`: something accepted the connection, which then failed. False:
    nothing listens there, or nothing was reached. `final`: trying again is no
    use until the user has acted.
    """

    def __init__(self, text: str, *, accepted: bool, final: bool = False) -> None:
        super().__init__(text)
        self.accepted = accepted
        self.final = final


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
        market_data_type: int = LIVE,
        state_callback: Callable[[], object] | None = None,
        last_trades: LastTrades | None = None,
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
            and time (aware UTC) of each trade, once. What it raises is logged. A trade that
            was held until its slot's end may come on the thread that drains the buffer.
        market_data_type
            1 live; 3 takes trades 15 minutes late where the account has no live data.
        state_callback
            Called after each change of `state`, on the thread that made it; must not raise.
        last_trades
            What earlier connections learnt of the tickers' last trades; by default nothing.
        """
        EWrapper.__init__(self)
        EClient.__init__(self, self)
        self.host = host
        self.port = port
        self.client_id = client_id
        self.price_callback = price_callback
        self.state_callback = state_callback
        self.market_data_type = market_data_type
        # The tick types that are taken for trades, with the source of their rows.
        self._sources = {
            tick_type: source
            for tick_type, source in TRADE_PRICES.items()
            if tick_type == TickTypeEnum.LAST or market_data_type != LIVE
        }

        # The tick types that tell of a trade: its price, a lone size, its time.
        kinds = 1 if market_data_type == LIVE else 2
        self._trade_ticks = frozenset((*self._sources, *TRADE_SIZES[:kinds], *TRADE_TIMES[:kinds]))

        self.state = ConnectionState.DISCONNECTED
        self.next_order_id: int | None = None
        self.accounts: list[str] = []
        # Why the connection failed or ended; the monitor hands it on to the next client.
        self.failure: GatewayError | None = None
        self._settled = threading.Event()
        # An attempt either becomes ready or fails.
        self._settling = threading.RLock()
        self._messages: Iterator[list[bytes]] = iter(())
        # time.monotonic() of the last data of any subscription.
        self.last_data_at = -math.inf
        # Why no data flows although TWS is connected; empty while it does.
        self.stale_reason = ""

        # Everything below is shared with the API thread and guarded by the lock; a
        # request that fails calls error() at once, which takes it a second time.
        self.price_buffer_lock = threading.RLock()
        self.next_req_id = 1000
        self.reqid_to_ticker: dict[int, str] = {}
        self.ticker_to_reqid: dict[str, int] = {}
        self.active_subscriptions: set[str] = set()
        self.rejected_tickers: set[str] = set()
        # ticker → what TWS said last against its data.
        self.ticker_problems: dict[str, str] = {}
        self.price_buffer: dict[str, list[dict[str, Any]]] = {}
        self.last_volume: dict[str, int] = {}
        self.last_trades = LastTrades() if last_trades is None else last_trades
        self.ticks_pushed_out = 0
        self._pushed_out: dict[str, int] = {}

        # Tickers asked for again later, with the time.monotonic() of when.
        self._parked: dict[str, float] = {}

        # API thread only, from here on: the price of a trade whose size comes in
        # the next callback, with its tick type; the requests that had data in the
        # messages at hand, and when each had data last;
        self._price_without_size: dict[int, tuple[int, float]] = {}
        self._heard: set[int] = set()
        self._heard_at: dict[int, float] = {}
        # how often each silent ticker was asked for again, and who gets no data anyway;
        self._silent_asks: dict[str, int] = {}
        self._without_data: set[str] = set()
        # who was given another request id because its own was in use;
        self._renumbered: set[str] = set()
        # the listings found for an ambiguous ticker, and what was chosen;
        self._listings: dict[int, list[Contract]] = {}
        self._chosen: dict[str, Contract | None] = {}
        # when each line was told, when a message came last, when TWS was asked for a
        # sign of life since, and the begin and end of a time without data.
        self._told_at: dict[tuple[int, str], float] = {}
        self._message_at = -math.inf
        self._probed_at = math.inf
        self._stale_at = -math.inf
        self._recovered_at = math.inf

        self.api_thread: threading.Thread | None = None

    @property
    def connected(self) -> bool:
        """Whether the API is ready: requests are taken and data can come."""
        return self.state in (ConnectionState.READY, ConnectionState.STALE)

    @property
    def quiet_s(self) -> float:
        """The seconds since the last message from TWS; 0 if there was none."""
        return max(0.0, time.monotonic() - self._message_at) if self._message_at > 0 else 0.0

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

    @property
    def masked_account(self) -> str:
        """The account, all but its last two characters masked; empty as long as none is known."""
        return _masked(self.accounts[0]) if self.accounts else ""

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
            line = CODES[502].line.format(host=host, port=port)
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
        self._read_tick = tick_reader(self.serverVersion_)
        self.setConnState(EClient.CONNECTED)
        self.startApi()

    def run(self) -> None:
        """Takes messages until the connection ends. API thread; use `connect_and_run`."""
        self._message_at = next_watch = time.monotonic()
        for messages in self._messages:
            now = time.monotonic()
            if messages:
                self._message_at = now
                self._probed_at = math.inf
                self._take(messages)
            if now >= next_watch:
                next_watch = now + WATCH_EVERY_S
                self._record_overdue()
                self._watch(now)

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
            for messages in self._messages:
                for number, message in enumerate(messages, 1):
                    fields = message.split(b"\0")
                    if len(fields) == 3 and fields[0].isdigit():
                        self._messages = itertools.chain([messages[number:]], self._messages)
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
            if self.state_callback is not None:
                self.state_callback()

    def _take(self, messages: Iterable[bytes]) -> None:
        """Takes the messages of one read; their trades come into the buffer together.

        Raises
        ------
        GatewayError
            One of them makes no sense; those before it are taken.
        """
        read_tick, heard, trade_ticks = self._read_tick, self._heard, self._trade_ticks
        ticks: list[TradeTick] = []
        for message in messages:
            tick = read_tick(message)
            if tick is None:
                self._settle(ticks)
                ticks = []
                self._decode(message)
                continue
            req_id, tick_type, value, volume = tick
            heard.add(req_id)
            if tick_type not in trade_ticks:
                continue
            # TWS tells a trade's size again right behind it.
            if value is None and ticks and ticks[-1][0] == req_id and ticks[-1][3] == volume:
                continue
            ticks.append(tick)
        self._settle(ticks)

    def _settle(self, ticks: Sequence[TradeTick]) -> None:
        """Brings in what ticks have told so far, before anything else is looked at."""
        self._record(ticks)
        self._note_heard()

    def _decode(self, message: bytes) -> None:
        """Hands a message to IBKR's decoder, which calls the callbacks.

        Raises
        ------
        GatewayError
            The decoder cannot make sense of it.
        """
        try:
            if self.serverVersion_ >= RAW_ID_SERVER_VERSION:
                number, body = int.from_bytes(message[:4], "big"), message[4:]
            else:
                number_text, _, body = message.partition(b"\0")
                number = int(number_text)
            if number > PROTOBUF_ID and LIBRARY_KNOWS_PROTOBUF:
                self.decoder.processProtoBuf(body, number - PROTOBUF_ID)
                return
            fields = comm.read_fields(body)
            parameters = self.decoder.msgId2handleInfo[number].wrapperParams
            # The library would only log it. The version's field stands for `self`.
            if parameters is not None and len(parameters) != len(fields):
                raise ValueError(f"{len(fields)} fields instead of {len(parameters)}")
            if LIBRARY_KNOWS_PROTOBUF:
                self.decoder.interpret(fields, number)
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
        logger.info("IBKR account %s: %s trading.", self.masked_account, self.mode)
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
            if self.market_data_type != LIVE:
                # Before any subscription can be asked for: it counts for those that follow.
                self.reqMarketDataType(self.market_data_type)
            self._set_state(ConnectionState.READY)
            self._settled.set()
        logger.info("Connected to IBKR at %s:%d, client_id=%d", *self._address())
        if self.market_data_type != LIVE:
            logger.warning(
                "DELAYED DATA is asked for (IBKR_MARKET_DATA_TYPE=%d): alerts on it come 15 "
                "minutes late.",
                self.market_data_type,
            )

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
        code = meaning(number, text)
        line = self._line(code.line, ticker, text)
        if code.reaction in (Reaction.END_CONNECTION, Reaction.STOP):
            # It is logged as the reason for what follows.
            self._fail(GatewayError(line, accepted=True, final=code.reaction is Reaction.STOP))
            self.disconnect()
            return
        told = (number, ticker if "{ticker}" in code.line else "")
        now = time.monotonic()
        again = now - self._told_at.get(told, -math.inf) < code.again_s
        self._told_at[told] = now if not again else self._told_at[told]
        # About a request that is over there is no ticker left to name.
        over = not ticker and "{ticker}" in code.line and reqId != NO_VALID_ID
        level = logging.DEBUG if again or over else code.level
        logger.log(level, "IBKR code %d: %s", number, line)
        if ticker:
            with self.price_buffer_lock:
                self.ticker_problems[ticker] = line
        self._react(code.reaction, ticker, line)

    def _react(self, reaction: Reaction, ticker: str, line: str) -> None:
        match reaction:
            case Reaction.SLOW_DOWN:
                self.conn.slow_down()
            case Reaction.MARK_STALE:
                self._mark_stale(line)
            case Reaction.RESUBSCRIBE_ALL:
                self._stale_at = -math.inf
                self._data_flows()
                for each in self.subscribed():
                    # There is nothing left to cancel, and each message takes its time.
                    self._ask(each, cancel=False)
            # Not the state: data of some tickers makes it ready while others stay dark.
            case Reaction.RESUBSCRIBE_SILENT if self._stale_at > -math.inf:
                self._stale_at = -math.inf
                self._recovered_at = time.monotonic()
                self._data_flows()
            case _ if ticker:
                self._react_for(ticker, reaction)

    def _react_for(self, ticker: str, reaction: Reaction) -> None:
        match reaction:
            case Reaction.DROP_TICKER:
                self._drop(ticker)
            case Reaction.NO_DATA:
                self._without_data.add(ticker)
            case Reaction.PARK_TICKER:
                self._park(ticker)
            case Reaction.NEW_REQUEST_ID if ticker in self._renumbered:
                self._park(ticker)
            case Reaction.NEW_REQUEST_ID:
                self._renumbered.add(ticker)
                self._ask(ticker, cancel=False)
            case Reaction.FIND_LISTING:
                self._find_listing(ticker)

    def _line(self, template: str, ticker: str, text: str = "") -> str:
        host, port, client_id = self._address()
        return template.format(
            ticker=ticker or "IBKR",
            host=host,
            port=port,
            client_id=client_id,
            text=" ".join(str(text).split()),
        )

    # --- Watching over the data, on the API thread ---------------------------

    def _watch(self, now: float) -> None:
        """Once a second: is TWS alive, and does every subscription have data?

        Raises
        ------
        GatewayError
            TWS gave no sign of life.
        """
        quiet_s = now - self._message_at
        if quiet_s >= HEARTBEAT_S and self._probed_at == math.inf:
            self._probed_at = now
            self.reqCurrentTime()
        if now - self._probed_at >= ANSWER_S:
            raise GatewayError(
                f"TWS at {self.host}:{self.port} says nothing since {quiet_s:.0f} s although its "
                "socket is open: it hangs, or the network between is cut.",
                accepted=True,
            )
        if now - self._recovered_at >= RECOVERY_S:
            since_s = now - self._recovered_at
            self._recovered_at = math.inf
            for ticker, silence_s in self._silences(now).items():
                if silence_s > since_s:
                    self._ask(ticker)
        if in_trading_hours(datetime.now(UTC)):
            self._ask_for_the_silent(now)

    def _ask_for_the_silent(self, now: float) -> None:
        if now - self.last_data_at > SILENT_S:
            # None has data; that is no single subscription's fault.
            return
        for ticker, silence_s in self._silences(now).items():
            asks = self._silent_asks.get(ticker, 0)
            if silence_s >= min(MAX_SILENT_S, SILENT_S * 2**asks):
                self._silent_asks[ticker] = asks + 1
                logger.warning(
                    "%s has had no data for %.0f s while others have; it is asked for again.",
                    ticker,
                    silence_s,
                )
                self._ask(ticker)

    def _silences(self, now: float) -> dict[str, float]:
        """For how many seconds each subscription that could have data has had none."""
        with self.price_buffer_lock:
            return {
                ticker: now - self._heard_at[req_id]
                for ticker, req_id in self.ticker_to_reqid.items()
                if ticker not in self._without_data
            }

    def _mark_stale(self, reason: str) -> None:
        self.stale_reason = reason
        self._stale_at = time.monotonic()
        self._recovered_at = math.inf
        self._set_state(ConnectionState.STALE)

    def _data_flows(self) -> None:
        if self.state is ConnectionState.STALE:
            self.stale_reason = ""
            self._set_state(ConnectionState.READY)
            logger.info("Data from IBKR flows again.")

    def _note_heard(self) -> None:
        """Notes that the subscriptions in `_heard` had data, those that still stand."""
        now = time.monotonic()
        with self.price_buffer_lock:
            heard = self._heard & self._heard_at.keys()
            self._heard.clear()
            if not heard:
                return
            self._heard_at.update(dict.fromkeys(heard, now))
            self.last_data_at = now
            if self._silent_asks:
                for req_id in heard:
                    self._silent_asks.pop(self.reqid_to_ticker[req_id], None)
        if self.state is ConnectionState.STALE and now - self._stale_at > RECOVERY_S:
            self._data_flows()

    # --- Market data callbacks, on the API thread ---------------------------

    @never_raises
    def tickPrice(self, reqId: int, tickType: int, price: float, attrib: Any) -> None:  # noqa: ARG002
        """A price. One of a trade (LAST) waits for its size, which comes in the next callback.

        TWS sends both in one message; the library calls `tickPrice`, then `tickSize`.
        """
        self._heard.add(reqId)
        if tickType in self._sources:
            self._price_without_size[reqId] = (tickType, price)

    @never_raises
    def tickSize(self, reqId: int, tickType: int, size: Decimal) -> None:
        """A size. A trade's (LAST_SIZE) completes the price before it; a lone one is no tick."""
        self._heard.add(reqId)
        if tickType not in TRADE_SIZES:
            return
        if reqId in self._price_without_size:
            price_type, price = self._price_without_size.pop(reqId)
            self._record([(reqId, price_type, price, _shares(size))])
        elif tickType in self._trade_ticks:
            self._record([(reqId, tickType, None, _shares(size))])

    @never_raises
    def tickGeneric(self, reqId: int, tickType: int, value: float) -> None:  # noqa: ARG002
        """A sign of life of its subscription, no more."""
        self._heard.add(reqId)

    @never_raises
    def tickString(self, reqId: int, tickType: int, value: str) -> None:
        """A text: of a trade (LAST_TIMESTAMP) its time, else a sign of life."""
        self._heard.add(reqId)
        if tickType in TRADE_TIMES and tickType in self._trade_ticks and value.isdecimal():
            self._record([(reqId, tickType, int(value), 0)])

    @never_raises
    def contractDetails(self, reqId: int, contractDetails: Any) -> None:
        """One of the listings of an ambiguous ticker."""
        self._listings[reqId].append(contractDetails.contract)

    @never_raises
    def contractDetailsEnd(self, reqId: int) -> None:
        """All listings of an ambiguous ticker have come: take the US one."""
        with self.price_buffer_lock:
            ticker = self.reqid_to_ticker.pop(reqId, "")
        us = [c for c in self._listings.pop(reqId) if c.primaryExchange in US_EXCHANGES]
        if not ticker:
            return
        if not us:
            self._drop_foreign(ticker)
            return
        self._chosen[ticker] = us[0]
        logger.info("%s is taken to be the one listed on %s.", ticker, us[0].primaryExchange)
        self._ask(ticker, cancel=False)

    def _find_listing(self, ticker: str) -> None:
        if ticker in self._chosen:
            self._drop_foreign(ticker)
            return
        self._chosen[ticker] = None
        with self.price_buffer_lock:
            req_id = self._get_next_req_id()
            self.reqid_to_ticker[req_id] = ticker
        self._listings[req_id] = []
        self.reqContractDetails(req_id, self._create_stock_contract(ticker))

    def _drop_foreign(self, ticker: str) -> None:
        logger.error("%s", self._line(NO_US_LISTING, ticker))
        self._drop(ticker)

    def _record(self, ticks: Sequence[TradeTick]) -> None:
        """Puts trades into the buffer and hands them on; leaves out those without a subscription
        or a price, and those that TWS only repeats."""
        recorded: list[Recorded] = []
        last_trades, sources, tickers = self.last_trades, self._sources, self.reqid_to_ticker
        with self.price_buffer_lock:
            # Taken under the lock, so that whoever drains the buffer knows that
            # no tick from before can come after.
            now = datetime.now(UTC)
            for req_id, tick_type, value, volume in ticks:
                ticker = tickers.get(req_id)
                if ticker is None:
                    continue
                if value is None:
                    last_trades.add_size(ticker, volume)
                elif isinstance(value, int):
                    last_trades.add_time(ticker, value)
                # False for NaN and infinity too. UNSET_DOUBLE is the library's word for "missing".
                elif (
                    0 < value < UNSET_DOUBLE
                    and (source := sources.get(tick_type)) is not None
                    and last_trades.add_trade(ticker, value, volume, now, source)
                ):
                    recorded.append((ticker, value, volume, now, source))
            recorded += last_trades.released(now)
            self._buffer(recorded)
        self._hand_on(recorded)

    def _record_overdue(self) -> None:
        """Puts the held trades whose slot is over into the buffer and hands them on."""
        self._record([])

    def _buffer(self, trades: Sequence[Recorded]) -> None:
        buffer, last_volume = self.price_buffer, self.last_volume
        for ticker, price, volume, at, source in trades:
            last_volume[ticker] = volume
            tick = {"price": price, "volume": volume, "timestamp": at, "source": source}
            ticks = buffer.get(ticker)
            if ticks is None:
                buffer[ticker] = [tick]
                continue
            if len(ticks) >= MAX_TICKS_PER_TICKER:
                del ticks[0]
                self.ticks_pushed_out += 1
                self._pushed_out[ticker] = self._pushed_out.get(ticker, 0) + 1
            if ticks[-1]["timestamp"] > at:
                # It was held while newer ones came.
                bisect.insort(ticks, tick, key=itemgetter("timestamp"))
            else:
                ticks.append(tick)

    def _hand_on(self, trades: Sequence[Recorded]) -> None:
        if self.price_callback is None:
            return
        for ticker, price, volume, at, _ in trades:
            try:
                self.price_callback(ticker, price, volume, at)
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
            if ticker in self.rejected_tickers or self._is_parked(ticker):
                return False
            if self._parked.pop(ticker, None) is not None:
                self.ticker_problems.pop(ticker, None)
            self.active_subscriptions.add(ticker)
            self._ask(ticker)
            logger.info("Subscribed %s, reqId=%d", ticker, self.ticker_to_reqid[ticker])
            return True

    def unsubscribe_ticker(self, ticker: str) -> None:
        """Ends a subscription and forgets its buffered ticks. Never waits."""
        with self.price_buffer_lock:
            req_id = self._forget(ticker)
            if req_id is None:
                return
            if self.connected:
                self.cancelMktData(req_id)
        logger.info("Unsubscribed %s", ticker)

    def update_subscriptions(self, needed_tickers: set[str]) -> None:
        """Subscribes and unsubscribes until just `needed_tickers` are subscribed. Never waits."""
        with self.price_buffer_lock:
            current = set(self.active_subscriptions)
            added = {
                ticker
                for ticker in needed_tickers - current - self.rejected_tickers
                if not self._is_parked(ticker)
            }
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
                len(self.subscribed()),
            )

    def subscribed(self) -> list[str]:
        """The tickers asked for at present, sorted."""
        with self.price_buffer_lock:
            return sorted(self.active_subscriptions)

    def get_rejected_tickers(self) -> set[str]:
        """The tickers that IBKR refused on this connection; they are not asked for again."""
        with self.price_buffer_lock:
            return set(self.rejected_tickers)

    def _ask(self, ticker: str, *, cancel: bool = True) -> None:
        """Makes the request for a subscription, anew if there was one."""
        with self.price_buffer_lock:
            if ticker not in self.active_subscriptions:
                return
            old = self._end_request(ticker)
            if old is not None and cancel:
                self.cancelMktData(old)
            req_id = self._get_next_req_id()
            self.reqid_to_ticker[req_id] = ticker
            self.ticker_to_reqid[ticker] = req_id
            self._heard_at[req_id] = time.monotonic()
            self.last_trades.requested(ticker)
            contract = self._chosen.get(ticker) or self._create_stock_contract(ticker)
            self.reqMktData(req_id, contract, "", False, False, [])

    def _park(self, ticker: str) -> None:
        with self.price_buffer_lock:
            req_id = self._release(ticker)
            self._parked[ticker] = time.monotonic() + PARKED_S
            if req_id is not None:
                # TWS may hold on to it; if not, it answers with 300, which is ignored.
                self.cancelMktData(req_id)

    def _is_parked(self, ticker: str) -> bool:
        return self._parked.get(ticker, -math.inf) > time.monotonic()

    def get_ticker_problems(self) -> dict[str, str]:
        """What TWS said last against the data of a ticker."""
        with self.price_buffer_lock:
            return dict(self.ticker_problems)

    def _drop(self, ticker: str) -> None:
        with self.price_buffer_lock:
            self.rejected_tickers.add(ticker)
        self._forget(ticker)

    def _forget(self, ticker: str) -> int | None:
        """Forgets a subscription and its ticks; returns its request id if it had one."""
        with self.price_buffer_lock:
            self.price_buffer.pop(ticker, None)
            self.last_volume.pop(ticker, None)
            return self._release(ticker)

    def _release(self, ticker: str) -> int | None:
        with self.price_buffer_lock:
            self.active_subscriptions.discard(ticker)
            return self._end_request(ticker)

    def _end_request(self, ticker: str) -> int | None:
        with self.price_buffer_lock:
            req_id = self.ticker_to_reqid.pop(ticker, None)
            if req_id is not None:
                self.reqid_to_ticker.pop(req_id, None)
                self._heard_at.pop(req_id, None)
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
        self._record_overdue()
        with self.price_buffer_lock:
            taken, self.price_buffer = self.price_buffer, {}
            lost, self._pushed_out = self._pushed_out, {}
        _log_lost(lost)
        return taken

    def get_buffer_for_tickers(self, tickers: set[str]) -> dict[str, list[dict[str, Any]]]:
        """As `get_and_clear_buffer`, for some tickers; the others' ticks stay."""
        self._record_overdue()
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
