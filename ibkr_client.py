"""IBKR's TWS API: the connection, market data subscriptions and the trades they bring.

Built on IBKR's official client. What that is known to do wrong, and what is
done about it here, stands where it is done.

Threads: one API thread per client reads the socket, writes to it and runs all
callbacks. Every public method may be called from any thread; those that wait
for the API thread say so and belong off the event loop.
"""

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar

from ibapi.client import EClient
from ibapi.const import NO_VALID_ID
from ibapi.contract import Contract
from ibapi.decoder import Decoder
from ibapi.message import IN
from ibapi.wrapper import EWrapper

from newshead.core.market import LIVE
from newshead.core.tickers import ibkr_name
from newshead.core.times import in_trading_hours
from newshead.settings import Settings
from newshead.tape import Kind, Tape
from newshead.tws import failures
from newshead.tws.account import UNKNOWN, is_paper, masked, paper_by_port
from newshead.tws.attempt import Attempt
from newshead.tws.codes import CODES, NO_BARS, Reaction, is_notice
from newshead.tws.conditions import Condition
from newshead.tws.decode import MessageReader
from newshead.tws.durations import DURATIONS, Durations
from newshead.tws.failures import GatewayError
from newshead.tws.farms import carries_us_stocks, farm_name, farms_away
from newshead.tws.handshake import greet
from newshead.tws.link import (
    AskForTime,
    Change,
    CheckSubscriptions,
    ConnectionState,
    Event,
    GiveUp,
)
from newshead.tws.market_data import TRADE_PRICES, MarketData
from newshead.tws.memory import Memory
from newshead.tws.notices import Notice, Notices
from newshead.tws.past_bars import PastBars, Wanted
from newshead.tws.subscriptions import (
    Cancel,
    FindListing,
    Request,
    Subscribe,
    SubscribeReference,
)
from newshead.tws.ticks import TRADE_SIZES, TRADE_TIMES, shares, tick_reader
from newshead.tws.trades import Buffered, Recorded
from newshead.tws.wire import TwsSocket

__all__ = [
    "DURATIONS",
    "LIVE",
    "ConnectionState",
    "GatewayError",
    "IBKRClient",
    "get_ibkr_client",
]

logger = logging.getLogger(__name__)
# It logs every message sent, at INFO.
logging.getLogger("ibapi").setLevel(logging.WARNING)

# The answers to a request for the listings of a ticker.
LISTING_MESSAGES: Final = (IN.CONTRACT_DATA, IN.CONTRACT_DATA_END)

T = TypeVar("T")


class Shared(Generic[T]):
    """An attribute that one of the client's parts works on, read and assigned at the client."""

    def __init__(self, path: str) -> None:
        """
        Parameters
        ----------
        path
            Where it is, from the client on: `_part.name`.
        """
        part, _, self._name = path.rpartition(".")
        self._get, self._part_of = attrgetter(path), attrgetter(part)

    def __get__(self, client: object, _: type) -> T:
        value: T = self._get(client)
        return value

    def __set__(self, client: object, value: T) -> None:
        setattr(self._part_of(client), self._name, value)


def never_raises(callback: Callable[..., None]) -> Callable[..., None]:
    """Log what a callback raises: an exception in one would end the API thread."""

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
        memory: Memory | None = None,
        durations: Durations | None = None,
        reference: str = "",
        tape: Tape | None = None,
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
        memory
            What earlier connections learnt; by default nothing.
        durations
            How long to wait for what; by default DURATIONS.
        reference
            The stock whose data proves that TWS serves any; empty for none.
        tape
            Tells the time, and is told all that the client does; by default nothing is kept.
        """
        EWrapper.__init__(self)
        EClient.__init__(self, self)
        self.host = host
        self.port = port
        self.client_id = client_id
        self.price_callback = price_callback
        self.state_callback = state_callback
        self.market_data_type = market_data_type
        self._durations = DURATIONS if durations is None else durations
        self._tape = Tape() if tape is None else tape
        self._number = self._tape.new_client(self)

        self.next_order_id: int | None = None
        self.accounts: list[str] = []
        self._messages: Iterator[list[bytes]] = iter(())
        self.api_thread: threading.Thread | None = None

        self._attempt = Attempt(self._durations, self._state_changed)
        self._link = self._attempt.link

        self.memory = Memory.new(market_data_type) if memory is None else memory
        # API thread only.
        self._notices = Notices(host, port, client_id)
        self._data = MarketData(
            self.memory,
            self._durations,
            self._notices,
            self._tape,
            market_data_type=market_data_type,
            reference=reference,
            send=self._send,
            first=lambda: nullcontext() if self.conn is None else self.conn.first(),
            hand_on=self._hand_on,
            data_came=self._note_data,
        )
        # Recordings leave these out: no row and no alert rests on them.
        self.past_bars = PastBars(self._ask_for_bars, self.cancelHistoricalData)

    # Why the connection failed or ended; the monitor hands it on to the next client.
    failure = Shared[GatewayError | None]("_attempt.failure")
    # What the other parts work on, under the specification's names; the buffer and the
    # subscriptions are shared with the API thread and guarded by the lock.
    price_buffer_lock = Shared[threading.RLock]("_data.lock")
    next_req_id = Shared[int]("_data.book.next_req_id")
    reqid_to_ticker = Shared[dict[int, str]]("_data.book.reqid_to_ticker")
    ticker_to_reqid = Shared[dict[str, int]]("_data.book.ticker_to_reqid")
    active_subscriptions = Shared[set[str]]("_data.book.active")
    rejected_tickers = Shared[set[str]]("_data.book.rejected")
    ticker_problems = Shared[dict[str, str]]("_data.book.problems")
    last_data_at = Shared[float]("_data.book.last_data_at")
    price_buffer = Shared[dict[str, list[Buffered]]]("_data.buffer.price_buffer")
    last_volume = Shared[dict[str, int]]("_data.buffer.last_volume")
    ticks_pushed_out = Shared[int]("_data.buffer.ticks_pushed_out")

    @property
    def state(self) -> ConnectionState:
        """How far the connection has come."""
        return self._link.state

    @property
    def displaced_tickers(self) -> int:
        """How often a ticker gave its market data line to one with a newer headline."""
        return self._data.book.displaced

    @property
    def stale_reason(self) -> str:
        """Why no data flows although TWS is connected; empty while it does."""
        return self._link.stale_reason

    @property
    def farms_away(self) -> tuple[str, ...]:
        """The names of IBKR's data farms with US stocks that are broken, sorted."""
        with self._attempt.lock:
            return tuple(self._link.farms_away)

    @property
    def connected(self) -> bool:
        """Whether the API is ready: requests are taken and data can come.

        Assigned, it holds until the connection's next event.
        """
        return self._link.connected

    @connected.setter
    def connected(self, connected: bool) -> None:
        self._attempt.step(self._link.assign, connected)

    @property
    def unoccupied(self) -> bool:
        """Whether data flows, and no request waits to be sent."""
        return self.state is ConnectionState.READY and self.conn.idle()

    @property
    def serves_data(self) -> bool:
        """Whether TWS serves market data, as far as requests could tell."""
        return not self.memory.silence.blind

    @property
    def last_answer_at(self) -> float:
        """When data came last, or anything that proves that data can come (monotonic seconds)."""
        return max(self.last_data_at, self.memory.silence.served_at)

    @property
    def quiet_s(self) -> float:
        """The seconds since the last message from TWS; 0 if there was none."""
        return self._link.quiet_s(time.monotonic())

    @property
    def paper(self) -> bool | None:
        """Whether the account is a paper one; None as long as nothing tells."""
        return is_paper(self.accounts, self.port)

    @property
    def mode(self) -> str:
        """PAPER, LIVE or UNKNOWN; see `paper`."""
        return {True: "PAPER", False: "LIVE", None: UNKNOWN}[self.paper]

    @property
    def masked_account(self) -> str:
        """The account, all but its last two characters masked; empty as long as none is known."""
        return masked(self.accounts[0]) if self.accounts else ""

    # --- Connection ---------------------------------------------------------

    def connect_and_run(self, *, patient: bool = False) -> bool:
        """Connect and start the API thread; answer within 10 s. Blocks.

        Parameters
        ----------
        patient
            Give a TWS that has answered, but takes no requests yet, another minute.

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
        self.begin()
        self.api_thread = threading.Thread(target=self._live, name="ibkr-api", daemon=True)
        self.api_thread.start()
        self._attempt.wait(self._durations.connect_timeout_s)
        if patient and self._attempt.answered and not self._attempt.decided:
            timeout_s = self._durations.ready_timeout_s
            pending = self._not_in_time()
            level = logging.DEBUG if str(known) == str(pending) else logging.WARNING
            logger.log(level, "%s Waiting for up to %.0f s.", pending, timeout_s)
            known = pending
            self._attempt.wait(timeout_s)
        if self.decide():
            return True
        self.disconnect()
        level = logging.DEBUG if str(known) == str(self.failure) else logging.ERROR
        logger.log(level, "No connection to IBKR: %s", self.failure)
        return False

    # What follows up to `end` is called here on one thread or the other, and by a replay.

    def begin(self) -> None:
        """Begin an attempt to connect."""
        with self._tape.step(Kind.CONNECT, client=self._number):
            self.failure = None
            self._attempt.step(self._link.on, Event.CONNECT)

    def decide(self) -> bool:
        """Return whether the attempt succeeded; undecided, it fails."""
        with self._tape.step(Kind.DECIDE, client=self._number):
            return self._attempt.decide(self._not_in_time)

    def greeted(self, server_version: int, connected_at: str) -> None:
        """Go on with a socket whose other side speaks as this version does. API thread."""
        with self._tape.step(Kind.OPENED, server_version, client=self._number):
            self.serverVersion_, self.connTime = server_version, connected_at
            self.decoder = Decoder(self, server_version)
            self._read_tick = tick_reader(server_version)
            self._reader = MessageReader(
                self.decoder, server_version, self._read_tick, self._skipped
            )
            self._attempt.answered = True
            self._link.heard(self._tape.monotonic())
            self.setConnState(EClient.CONNECTED)
            self.startApi()

    def take(self, messages: Iterable[bytes], chunk: bytes) -> None:
        """Take the messages of one read, which are those in `chunk`. API thread.

        Raises
        ------
        GatewayError
            One of them is needed and makes no sense; those before it are taken.
        """
        with self._tape.step(Kind.CHUNK, chunk, client=self._number):
            self._link.heard(self._tape.monotonic())
            self._data.take(messages, self._read_tick, self._reader)

    def watch(self, *, idle: bool) -> None:
        """Once a second: see to the trades that were held, and to the connection. API thread.

        Parameters
        ----------
        idle
            Whether no message waits to be sent.

        Raises
        ------
        GatewayError
            TWS gave no sign of life.
        """
        with self._tape.step(Kind.WATCH, idle, client=self._number):
            self._data.record([])
            # Before it takes requests TWS may be silent for a while.
            if self._attempt.decided:
                self._watch(self._tape.monotonic(), idle=idle)

    def leave(self) -> None:
        """End what newshead wants of the connection, before the connection itself."""
        with self._tape.step(Kind.DISCONNECT, client=self._number):
            self.update_subscriptions(set())
            with self._attempt.lock:
                self._attempt.step(self._link.on, Event.CLOSED)
                self._attempt.fail(failures.newshead_ended_it())

    def end(self, failure: GatewayError) -> None:
        """Note that the connection has ended, and why. API thread."""
        details = str(failure), failure.accepted, failure.final
        with self._tape.step(Kind.CLOSED, *details, client=self._number):
            self._attempt.fail(failure)
            self.connectionClosed()

    def _not_in_time(self) -> GatewayError:
        if self._attempt.answered:
            return failures.not_ready(self.host, self.port)
        return failures.no_answer(self.host, self.port, self.state)

    def connect(self, host: str, port: int, clientId: int) -> None:
        """Open the socket and shake hands. API thread; use `connect_and_run`.

        Raises
        ------
        GatewayError
            The connection or the handshake failed.
        """
        self.clientId = clientId
        greeting = greet(host, port, self._durations.connect_timeout_s, self.opened)
        self._messages = greeting.messages
        self.greeted(greeting.server_version, greeting.connected_at)

    def opened(self, connection: TwsSocket) -> None:
        """Take a socket over, unless the attempt is over.

        Raises
        ------
        GatewayError
            It is.
        """
        self.conn = connection
        with self._attempt.lock:
            if self._attempt.decided:
                raise failures.given_up()
            self._attempt.step(self._link.on, Event.OPENED)

    def run(self) -> None:
        """Take messages until the connection ends. API thread; use `connect_and_run`."""
        next_watch = time.monotonic()
        try:
            for messages in self._messages:
                now = time.monotonic()
                if messages:
                    self.take(messages, self.conn.taken)
                if now >= next_watch:
                    next_watch = now + self._durations.watch_every_s
                    self.watch(idle=self.conn.idle())
        finally:
            if self._reader.skipped:
                logger.info("Skipped on this connection: %s.", self._reader.describe_skipped())

    def disconnect(self) -> None:
        """End the connection at once; `connectionClosed` follows on the API thread."""
        if self.conn is not None:
            self.conn.disconnect()

    def disconnect_safely(self) -> None:
        """Cancel all subscriptions and end the connection. Blocks for at most 2 s."""
        self.leave()
        timeout_s = self._durations.disconnect_timeout_s
        if self.conn is not None:
            self.conn.disconnect(within_s=timeout_s / 2)
        if self.api_thread is not None and self.api_thread is not threading.current_thread():
            self.api_thread.join(timeout_s)

    def _live(self) -> None:
        """Run the API thread, from the first connection attempt to the socket's end."""
        failure = failures.tws_ended_it()
        try:
            self.connect(self.host, self.port, self.client_id)
            self.run()
            if not self.connected:
                raise failures.closed_early(self.host, self.port)
        except GatewayError as problem:
            failure = problem
        except (OSError, ValueError) as problem:
            logger.debug("The connection broke: %s", problem)
            failure = (
                failures.broke(problem)
                if self.connected
                else failures.closed_early(self.host, self.port)
            )
        except Exception:
            logger.exception("The API thread failed; the connection ends.")
        finally:
            if self.conn is not None:
                self.conn.close()
            self.end(failure)

    def _address(self) -> tuple[str, int, int]:
        return self.host, self.port, self.client_id

    def _state_changed(self, change: Change) -> None:
        logger.debug("IBKR connection: %s -> %s", change.before.value, change.after.value)
        if self.state_callback is not None:
            self.state_callback()

    def _step_to_data(self, step: Callable[..., Change | None], *details: Any) -> None:
        if self._attempt.step(step, *details) and self.state is ConnectionState.READY:
            logger.info("Data from IBKR flows again.")

    def _skipped(self, kind: int) -> None:
        """Go on without a message that could not be read."""
        if kind in LISTING_MESSAGES:
            self._data.listing_unreadable()

    # --- Connection callbacks, on the API thread ----------------------------

    @never_raises
    def managedAccounts(self, accountsList: str) -> None:
        """Note the accounts of the login; TWS sends them before `nextValidId`."""
        self.accounts = [name for name in accountsList.split(",") if name]
        self._tape.hide(self.accounts)
        if not self.accounts:
            return
        logger.info("IBKR account %s: %s trading.", self.masked_account, self.mode)
        by_port = paper_by_port(self.port)
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
        """Note that the API is ready."""
        with self._attempt.lock:
            if self.failure is not None:
                return
            self.next_order_id = orderId
            if self.market_data_type != LIVE:
                # Before any subscription can be asked for: it counts for those that follow.
                self.reqMarketDataType(self.market_data_type)
            self._attempt.step(self._link.accepted, self._tape.monotonic())
            self.memory.silence.connected()
            self._attempt.succeed()
        logger.info("Connected to IBKR at %s:%d, client_id=%d", *self._address())
        if self.market_data_type != LIVE:
            logger.warning(
                "DELAYED DATA is asked for (IBKR_MARKET_DATA_TYPE=%d): alerts on it come 15 "
                "minutes late.",
                self.market_data_type,
            )

    @never_raises
    def connectionClosed(self) -> None:
        """Note that the connection has ended, wherever the end came from."""
        if self.connected:
            logger.warning("IBKR connection closed. %s", self.failure)
        self._attempt.step(self._link.on, Event.CLOSED)

    @never_raises
    def error(self, reqId: int, *details: Any) -> None:
        """React to a code from TWS, in the library's old form or its new one.

        Parameters
        ----------
        reqId
            The request it belongs to; -1 for none.
        details
            `(errorCode, errorString, advancedOrderRejectJson)` up to 10.30,
            `(errorTime, errorCode, errorString, advancedOrderRejectJson)` since.
        """
        number, text = details[1:3] if isinstance(details[1], int) else details[0:2]
        if past := self.past_bars.ticker_of(reqId):
            self._take_code_of_bars(reqId, past, number, text)
            return
        ticker, now = self._data.ticker_of(reqId), self._tape.monotonic()
        of_request = reqId != NO_VALID_ID
        notice = self._notices.read(number, text, ticker, now, of_request=of_request)
        if notice.reaction in (Reaction.END_CONNECTION, Reaction.STOP):
            # It is logged as the reason for what follows.
            final = notice.reaction is Reaction.STOP
            self._attempt.fail(GatewayError(notice.line, accepted=True, final=final))
            self.disconnect()
            return
        if reqId == self._data.book.reference_id:
            logger.debug("IBKR code %d about the reference: %s", number, text)
            self._data.reference_answered(now)
            return
        logger.log(notice.level, "IBKR code %d: %s", number, notice.line)
        if ticker:
            self._data.note_problem(ticker, notice.line)
        self._react(notice, reqId, text, now)

    def _take_code_of_bars(self, req_id: int, ticker: str, number: int, text: str) -> None:
        unimportant = is_notice(number) or self.past_bars.given_up
        level = logging.DEBUG if unimportant else NO_BARS.level
        line = self._notices.line(NO_BARS.line, ticker, text)
        logger.log(level, "IBKR code %d: %s", number, line)
        self.past_bars.refuse(req_id, number)

    def _react(self, notice: Notice, req_id: int, text: str, now: float) -> None:
        match notice.reaction:
            case Reaction.SLOW_DOWN:
                self.conn.slow_down()
            case Reaction.MARK_STALE:
                self._attempt.step(self._link.offline, notice.line, now)
            case Reaction.FARM_AWAY:
                self._attempt.step(self._link.farm_broke, farm_name(text), notice.line, now)
            case Reaction.FARM_BACK:
                self._step_to_data(self._link.farm_back, farm_name(text), now)
            case Reaction.RESUBSCRIBE_ALL:
                self._step_to_data(self._link.online_without_subscriptions)
                self._data.renew_all()
            case Reaction.RESUBSCRIBE_SILENT:
                self._step_to_data(self._link.online, now, self._farms_away(text))
            case Reaction.DEFINITIONS_BACK:
                self._data.definitions_back()
            case reaction:
                self._data.react(reaction, req_id, trusted=self._link.knows_stocks(now))

    def _farms_away(self, text: str) -> dict[str, str] | None:
        """Return the farms that code 1102 says are still away, each with a line; None if it
        names none at all."""
        away = farms_away(text)
        if away is None:
            return None
        line = CODES[2103].line
        names = filter(carries_us_stocks, away)
        return {name: self._notices.line(line, "", name) for name in names}

    # --- Watching over the data, on the API thread ---------------------------

    def _watch(self, now: float, *, idle: bool) -> None:
        """See whether TWS is alive, and whether every subscription has data.

        Raises as `watch`.
        """
        for task in self._link.watch(now):
            match task:
                case AskForTime():
                    self.reqCurrentTime()
                case GiveUp(quiet_s):
                    raise failures.fell_silent(self.host, self.port, quiet_s)
                case CheckSubscriptions(since_s):
                    self._data.renew_silent(since_s)
        open_hours = in_trading_hours(self._tape.utc())
        ready = self.state is ConnectionState.READY
        if not self._data.watch(now, idle=idle, open_hours=open_hours, ready=ready):
            raise failures.no_data(self.host, self.port)

    def _note_data(self, now: float) -> None:
        """Note that a subscription had data."""
        if self.state is ConnectionState.STALE:
            self._step_to_data(self._link.data_came, now)

    # --- Market data callbacks, on the API thread ---------------------------

    # Each trade that comes from TWS is read by tws/ticks, with its own size: only hands
    # call tickPrice with LAST.

    @never_raises
    def tickPrice(self, reqId: int, tickType: int, price: float, attrib: Any) -> None:  # noqa: ARG002
        """Take a price. One of a trade (LAST) is recorded with the last size known."""
        with self.price_buffer_lock:
            volume = self.last_volume.get(self.reqid_to_ticker.get(reqId, ""), 0)
        tick = reqId, tickType, float(price), volume
        if self._data.counts(tick) and tickType in TRADE_PRICES:
            self._data.record([tick])

    @never_raises
    def tickSize(self, reqId: int, tickType: int, size: Decimal) -> None:
        """Take a size. A trade's (LAST_SIZE) is the last one known from now on, without a tick."""
        if self._data.counts((reqId, tickType, None, shares(size))) and tickType in TRADE_SIZES:
            self._data.add_size(reqId, shares(size))

    @never_raises
    def tickGeneric(self, reqId: int, tickType: int, value: float) -> None:
        """Take a number: whether trading is halted (HALTED), else a sign of life."""
        self._data.counts((reqId, tickType, value, 0))

    @never_raises
    def tickString(self, reqId: int, tickType: int, value: str) -> None:
        """Take a text: of a trade (LAST_TIMESTAMP) its time, else a sign of life."""
        counts = self._data.counts((reqId, tickType, None, 0))
        if counts and tickType in TRADE_TIMES and value.isdecimal():
            self._data.record([(reqId, tickType, int(value), 0)])

    @never_raises
    def marketDataType(self, reqId: int, marketDataType: int) -> None:
        """Note which kind of data a request is served; what was not asked for makes no rows."""
        self._data.take_data_type(reqId, marketDataType)

    @never_raises
    def contractDetails(self, reqId: int, contractDetails: Any) -> None:
        """Take in one of the listings of a ticker."""
        self._data.add_listing(reqId, contractDetails.contract)

    @never_raises
    def contractDetailsEnd(self, reqId: int) -> None:
        """Choose the US listing: all of a ticker's have come."""
        trusted = self._link.knows_stocks(self._tape.monotonic())
        self._data.choose_listing(reqId, trusted=trusted)

    @never_raises
    def historicalData(self, reqId: int, bar: Any) -> None:
        """Take in a past bar."""
        self.past_bars.add(reqId, bar)

    @never_raises
    def historicalDataEnd(self, reqId: int, start: str, end: str) -> None:  # noqa: ARG002
        """Note that all past bars of a request have come."""
        self.past_bars.end(reqId)

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
        """Ask for the trades of a US stock; True if asked, now or before. Never waits.

        The request passes those that wait to be sent.
        """
        return self._subscribe(ticker, self._data.subscribe_first)

    def _subscribe(self, ticker: str, subscribe: Callable[[str], bool]) -> bool:
        if not self.connected:
            logger.warning("Cannot subscribe %s: not connected to IBKR.", ticker)
            return False
        return subscribe(ticker)

    def unsubscribe_ticker(self, ticker: str) -> None:
        """End a subscription and forget its buffered ticks. Never waits."""
        self._data.unsubscribe(ticker, connected=self.connected)

    def update_subscriptions(self, needed_tickers: set[str]) -> None:
        """Subscribe and unsubscribe until just `needed_tickers` are subscribed. Never waits."""
        with self.price_buffer_lock:
            removed, added = self._data.book.changes(needed_tickers, self._tape.monotonic())
        for ticker in removed:
            self.unsubscribe_ticker(ticker)
        for ticker in added:
            self._subscribe(ticker, self._data.subscribe)
        if added or removed:
            logger.info(
                "Subscriptions: +%d -%d = %d active",
                len(added),
                len(removed),
                len(self.subscribed()),
            )

    def subscribed(self) -> list[str]:
        """Return the tickers asked for at present, sorted."""
        return self._data.subscribed()

    def get_rejected_tickers(self) -> set[str]:
        """Return the tickers that IBKR refused on this connection and in this session; they are
        not asked for again."""
        with self.price_buffer_lock:
            return set(self.rejected_tickers)

    def forget_session(self) -> None:
        """Let the tickers that IBKR refused be asked for again. Never waits."""
        self._data.forget_session()

    def get_refusals(self) -> dict[str, str]:
        """Return the tickers that get no data, with what TWS said last against it."""
        with self.price_buffer_lock:
            return self._data.book.refused

    def get_conditions(self) -> dict[str, Condition]:
        """Return what TWS says of the tickers besides their trades."""
        with self.price_buffer_lock:
            return self.memory.conditions.all()

    def get_ticker_problems(self) -> dict[str, str]:
        """Return what TWS said last against the data of a ticker."""
        with self.price_buffer_lock:
            return dict(self.ticker_problems)

    def _send(self, request: Request) -> None:
        """Send a request of the market data's. Under the lock."""
        match request:
            case Subscribe(req_id, ticker, listing):
                contract = listing or self._create_stock_contract(ticker)
                self.reqMktData(req_id, contract, "", False, False, [])
            case SubscribeReference(req_id, ticker):
                contract = self._create_stock_contract(ticker)
                self.reqMktData(req_id, contract, "", False, False, [])
            case Cancel(req_id):
                self.cancelMktData(req_id)
            case FindListing(req_id, ticker):
                self.reqContractDetails(req_id, self._create_stock_contract(ticker))

    def _ask_for_bars(self, req_id: int, wanted: Wanted) -> None:
        with self.price_buffer_lock:
            listing = self.memory.listings.get(wanted.ticker)
        contract = listing or self._create_stock_contract(wanted.ticker)
        self.reqHistoricalData(req_id, contract, *wanted.query)

    def _create_stock_contract(self, ticker: str) -> Contract:
        contract = Contract()
        contract.symbol = ibkr_name(ticker)
        contract.secType = "STK"
        contract.exchange = "SMART"
        contract.currency = "USD"
        return contract

    # --- The buffer ---------------------------------------------------------

    def get_and_clear_buffer(self) -> dict[str, list[dict[str, Any]]]:
        """Return all ticks since the last call, by ticker, oldest first; the caller owns the lists.

        A tick is a dict of `price` (USD), `volume` (shares), `timestamp`
        (aware UTC, when it arrived here) and `source`.
        """
        return self._data.drain()

    def get_buffer_for_tickers(self, tickers: set[str]) -> dict[str, list[dict[str, Any]]]:
        """As `get_and_clear_buffer`, for some tickers; the others' ticks stay."""
        return self._data.drain(tickers)


_ibkr_client: IBKRClient | None = None


def get_ibkr_client(
    host: str | None = None, port: int | None = None, client_id: int | None = None
) -> IBKRClient:
    """Return the process's one client, made at the first call, and anew once its connection
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
