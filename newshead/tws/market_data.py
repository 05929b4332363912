"""The market data of one connection: what is asked of TWS for it, and the trades it brings.

The rules stand in `subscriptions`, `trades`, `conditions` and `silence`; here they work together,
under one lock.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from ibapi.contract import Contract
from ibapi.ticktype import TickTypeEnum

from newshead.core.market import DELAYED, LIVE, NOT_HALTED
from newshead.tape import Kind, Tape
from newshead.tws import trades
from newshead.tws.codes import FINDINGS, REFUSALS, Code, Reaction
from newshead.tws.conditions import CONDITION_TICKS, DELAYED_TICKS
from newshead.tws.decode import MessageReader
from newshead.tws.durations import Durations
from newshead.tws.lines import Lines
from newshead.tws.listings import Finding, Refusal
from newshead.tws.memory import Memory
from newshead.tws.notices import Notices
from newshead.tws.silence import Step
from newshead.tws.subscriptions import (
    Cancel,
    Drop,
    FindListing,
    Note,
    Request,
    Subscribe,
    SubscribeReference,
    Subscriptions,
)
from newshead.tws.ticks import DAY_VOLUMES, TRADE_SIZES, TRADE_TIMES, Tick, TickReader
from newshead.tws.trades import Buffered, Recorded, TradeBuffer

# The log knows the connection and its data by one name.
logger = logging.getLogger("ibkr_client")

# What a trade's price is called live and delayed, with the source of its rows.
TRADE_PRICES: Final = {
    TickTypeEnum.LAST: "ibkr_last_trade",
    TickTypeEnum.DELAYED_LAST: "ibkr_delayed_last",
}


class MarketData:
    """The subscriptions of one connection, and the trades and conditions that they bring.

    Methods that take ticks belong to the API thread; the others may be called from any. `book`
    and `buffer` are guarded by `lock`, which may be taken twice: a request that fails is told of
    at once, in the middle of making it.
    """

    def __init__(
        self,
        memory: Memory,
        durations: Durations,
        notices: Notices,
        tape: Tape,
        *,
        market_data_type: int,
        reference: str,
        send: Callable[[Request], None],
        first: Callable[[], AbstractContextManager[None]],
        hand_on: Callable[[Sequence[Recorded]], None],
        data_came: Callable[[float], None],
    ) -> None:
        """
        Parameters
        ----------
        memory
            What earlier connections learnt.
        market_data_type
            The kind of data that is asked for.
        reference
            The stock whose data proves that TWS serves any; empty for none.
        send
            Sends a request to TWS; called under the lock.
        first
            Lets the requests that are sent in it pass those that wait; called under the lock.
        hand_on
            Called with the trades that came, once they are in the buffer, without the lock.
        data_came
            Called with `now` when a subscription had data, without the lock.
        """
        self.lock = threading.RLock()
        self.memory = memory
        self.book = Subscriptions(
            durations,
            memory.listings,
            Lines(memory.headlines, memory.last_trades.has_traded),
        )
        # The tick types that are taken for trades, with the source of their rows.
        sources = {
            tick_type: source
            for tick_type, source in TRADE_PRICES.items()
            if tick_type == TickTypeEnum.LAST or market_data_type != LIVE
        }
        self.buffer = TradeBuffer(memory.last_trades, sources)
        self._notices = notices
        self._tape = tape
        self._reference = reference
        self._send = send
        self._first = first
        self._hand_on = hand_on
        self._data_came = data_came
        # The tick types of data that is late although live data is asked for.
        self._late_ticks = DELAYED_TICKS if market_data_type == LIVE else frozenset()
        self._condition_ticks = CONDITION_TICKS | self._late_ticks
        self._told_ticks = self._condition_ticks | frozenset(DAY_VOLUMES)
        # Those that tell of a trade: its price, a lone size, its time.
        kinds = 1 if market_data_type == LIVE else 2
        self._trade_ticks = frozenset((*sources, *TRADE_SIZES[:kinds], *TRADE_TIMES[:kinds]))
        # The requests that had data in the messages at hand.
        self._heard: set[int] = set()
        # Those that are served data of a kind that does not count.
        self._unwanted: set[int] = set()
        # The day's volumes in the messages at hand, by request.
        self._volumes: dict[int, int] = {}

    # --- Ticks, on the API thread -------------------------------------------

    def take(self, messages: Iterable[bytes], read_tick: TickReader, reader: MessageReader) -> None:
        """Take the messages of one read; their trades come into the buffer together.

        What `read_tick` leaves to IBKR's decoder goes to `reader`, in its turn.

        Raises
        ------
        GatewayError
            A message is needed and makes no sense; those before it are taken.
        """
        heard, unwanted = self._heard, self._unwanted
        trade_ticks, told_ticks = self._trade_ticks, self._told_ticks
        ticks: list[Tick] = []
        for message in messages:
            tick = read_tick(message)
            if tick is None:
                self._settle(ticks)
                ticks = []
                for glued in reader.read(message):
                    self._settle([glued] if self.counts(glued) else [])
                continue
            req_id, tick_type, value, volume = tick
            # As `counts`, without its call.
            if tick_type in told_ticks and not self._take_told(tick):
                continue
            if req_id in unwanted:
                continue
            heard.add(req_id)
            if tick_type not in trade_ticks:
                continue
            # TWS tells a trade's size again right behind it.
            if value is None and ticks and ticks[-1][0] == req_id and ticks[-1][3] == volume:
                continue
            ticks.append(tick)
        self._settle(ticks)

    def counts(self, tick: Tick) -> bool:
        """Take in what a tick tells besides trades; return whether it tells of one that counts."""
        req_id, tick_type, *_ = tick
        if tick_type in self._told_ticks and not self._take_told(tick):
            return False
        if req_id in self._unwanted:
            return False
        self._heard.add(req_id)
        return tick_type in self._trade_ticks

    def record(self, ticks: Sequence[Tick]) -> None:
        """Put trades into the buffer and hand them on.

        Those without a subscription or a price are left out, and those that TWS only repeats.
        Held ones whose slot is over come with them. Any thread.
        """
        with self.lock:
            # Taken under the lock, so that whoever drains the buffer knows that
            # no tick from before can come after.
            now = self._tape.utc()
            recorded = self.buffer.record(ticks, self.book.reqid_to_ticker, now)
        self._hand_on(recorded)

    def add_size(self, req_id: int, volume: int) -> None:
        """Note the size of a last trade, told by itself."""
        with self.lock:
            ticker = self.book.reqid_to_ticker.get(req_id)
            if ticker is not None:
                self.buffer.add_size(ticker, volume)

    def take_data_type(self, req_id: int, data_type: int) -> None:
        """Note which kind of data a request is served; what was not asked for makes no rows."""
        with self.lock:
            ticker = self.book.reqid_to_ticker.get(req_id)
            if ticker is None:
                return
            conditions = self.memory.conditions
            line = conditions.take_data_type(ticker, data_type)
            counts = conditions.counts(ticker)
            self.book.expect(ticker, data=counts)
        if counts:
            self._unwanted.discard(req_id)
        else:
            self._unwanted.add(req_id)
        if line:
            logger.warning("%s", line)

    def _take_told(self, tick: Tick) -> bool:
        """Take in what a tick tells besides trades; False for data that is late."""
        req_id, tick_type, _, volume = tick
        if tick_type in DAY_VOLUMES:
            self._volumes[req_id] = volume
        if tick_type in self._condition_ticks:
            self._take_condition(tick)
        return tick_type not in self._late_ticks

    def _take_condition(self, tick: Tick) -> None:
        req_id, tick_type, value, _ = tick
        with self.lock:
            ticker = self.book.reqid_to_ticker.get(req_id)
            if ticker is None:
                return
            conditions = self.memory.conditions
            lines = [conditions.take_tick(ticker, tick_type, value)]
            self.book.set_halted(ticker, halted=conditions.of(ticker).halted != NOT_HALTED)
            if tick_type in self._late_ticks:
                lines.append(conditions.take_data_type(ticker, DELAYED))
                self.book.expect(ticker, data=False)
        for line in filter(None, lines):
            logger.warning("%s", line)

    def _settle(self, ticks: Sequence[Tick]) -> None:
        """Bring in what ticks have told so far, before anything else is looked at."""
        self.record(ticks)
        now = self._tape.monotonic()
        with self.lock:
            for req_id, volume in self._volumes.items():
                if (ticker := self.book.reqid_to_ticker.get(req_id)) is not None:
                    self.memory.conditions.note_volume(ticker, volume)
            heard = self.book.heard(self._heard, now)
        self._volumes.clear()
        reference_answered = self.book.reference_id in self._heard
        self._heard.clear()
        if reference_answered:
            self.reference_answered(now)
        if heard:
            self._data_came(now)

    # --- The buffer ---------------------------------------------------------

    def drain(self, tickers: set[str] | None = None) -> dict[str, list[Buffered]]:
        """Return and forget the buffered trades of some tickers, or of all."""
        self.record([])
        with self.lock:
            taken, lost = self.buffer.take(tickers)
        for ticker, count in lost.items():
            logger.warning(
                "Dropped %d ticks of %s: over %d arrived between cycles.",
                count,
                ticker,
                trades.MAX_TICKS_PER_TICKER,
            )
        return taken

    # --- Subscriptions ------------------------------------------------------

    def subscribe_first(self, ticker: str) -> bool:
        """As `subscribe`, before all requests that wait to be sent: for the newest headline."""
        return self._subscribe(ticker, self._first())

    def subscribe(self, ticker: str) -> bool:
        """Ask for the trades of a stock; True if asked, now or before."""
        return self._subscribe(ticker, nullcontext())

    def _subscribe(self, ticker: str, place: AbstractContextManager[None]) -> bool:
        with self.lock, place:
            if ticker in self.book.active:
                return True
            requests = self.book.subscribe(ticker, self._tape.monotonic())
            if not requests:
                return False
            self._make(requests)
            req_id = self.book.ticker_to_reqid[ticker]
        # Once it is on its way.
        logger.info("Subscribed %s, reqId=%d", ticker, req_id)
        return True

    def unsubscribe(self, ticker: str, *, connected: bool) -> None:
        """End a subscription, which only a connected TWS need be told of; forget its ticks."""
        with self.lock:
            self.buffer.forget(ticker)
            requests = self.book.unsubscribe(ticker)
            if not requests:
                return
            if connected:
                self._make(requests)
        logger.info("Unsubscribed %s", ticker)

    def subscribed(self) -> list[str]:
        """Return the tickers asked for at present, sorted."""
        with self.lock:
            return sorted(self.book.active)

    def forget_session(self) -> None:
        """Let the tickers that IBKR refused be asked for again."""
        with self.lock:
            self.book.forget_session()
            self.memory.conditions.forget_session()

    # --- What TWS says ------------------------------------------------------

    def ticker_of(self, req_id: int) -> str:
        """Return whose request it is; empty where it is none's."""
        with self.lock:
            return self.book.reqid_to_ticker.get(req_id, "")

    def note_problem(self, ticker: str, line: str) -> None:
        """Keep what TWS said against a ticker's data."""
        with self.lock:
            self.book.problems[ticker] = line

    def react(self, reaction: Reaction, req_id: int, *, trusted: bool) -> None:
        """Do what a code about a request asks for; see `Subscriptions.react`."""
        now = self._tape.monotonic()
        # Who is given another's line has the newest headline.
        hurry = self._first() if reaction is Reaction.NO_LINE else nullcontext()
        with self.lock, hurry:
            self._make(self.book.react(reaction, req_id, now, trusted=trusted))

    def renew_all(self) -> None:
        """Make all requests anew: TWS lost them."""
        with self.lock:
            self._make(self.book.renew_all(self._tape.monotonic()))

    def renew_silent(self, since_s: float) -> None:
        """Make the requests anew that had no data in the last seconds, refused ones too: what
        failed at IBKR is back."""
        with self.lock:
            self.book.forget_refusals()
            self._make(self.book.renew_silent(self._tape.monotonic(), since_s))

    def definitions_back(self) -> None:
        """Let the tickers of which IBKR knew nothing be asked for at once."""
        with self.lock:
            self.book.definitions_back()

    def add_listing(self, req_id: int, listing: Contract) -> None:
        """Take in one of the listings of a ticker."""
        with self.lock:
            self.book.add_listing(req_id, listing)

    def choose_listing(self, req_id: int, *, trusted: bool) -> None:
        """Choose the US listing: all of a ticker's have come."""
        now = self._tape.monotonic()
        with self.lock:
            self._make(self.book.choose_listing(req_id, now, trusted=trusted))

    def listing_unreadable(self) -> None:
        """Give up the requests for listings: a part of an answer cannot be read."""
        with self.lock:
            self._make(self.book.unanswered(self._tape.monotonic(), in_time=False))

    def reference_answered(self, now: float) -> None:
        """Note that TWS answered the request for the reference."""
        self._end_silence(self.memory.silence.served(now))

    # --- Watching over the data, on the API thread ---------------------------

    def watch(self, now: float, *, idle: bool, open_hours: bool, ready: bool) -> bool:
        """See whether every subscription has data; to be called once a second.

        Parameters
        ----------
        idle
            Whether no message waits to be sent.
        open_hours
            Whether stocks trade now.
        ready
            Whether data can come: connected, and nothing known that holds it back.

        Returns
        -------
        bool
            False if TWS serves none, so that only a new connection may bring some.
        """
        with self.lock:
            self._make(self.book.unanswered(now))
            # A market data request never waits behind one for listings; nor is one asked again
            # that has not left yet.
            if idle:
                self._make(self.book.verify(now))
            else:
                self.book.still_sending(now)
            overdue = self.book.renew_overdue(now) if open_hours else []
            for ticker, silence_s, requests in overdue:
                logger.warning(
                    "No data for %s for %.0f s while others have some: subscribing again.",
                    ticker,
                    silence_s,
                )
                self._make(requests)
            awaited = self.book.awaited
        steps = self.memory.silence.watch(
            now,
            self.book.last_data_at,
            awaited=awaited and idle and ready and open_hours,
            has_reference=bool(self._reference),
        )
        self._end_silence(steps)
        return Step.RECONNECT not in steps

    def _end_silence(self, steps: Iterable[Step]) -> None:
        """Find out whether TWS serves data."""
        for step in steps:
            with self.lock:
                match step:
                    case Step.ASK_AGAIN:
                        logger.info(
                            "No data for %s: subscribing again.", ", ".join(self.subscribed())
                        )
                        self._make(self.book.renew_silent(self._tape.monotonic(), 0.0))
                    case Step.LOG_NO_TRADES:
                        logger.info(
                            "No trades in %s: requests are answered.", ", ".join(self.subscribed())
                        )
                    case Step.ASK_REFERENCE:
                        self._make(self.book.ask_reference(self._reference))
                    case Step.END_REFERENCE:
                        self._make(self.book.end_reference())

    def _make(self, requests: Iterable[Request]) -> None:
        """Carry out what the book answers. Under the lock."""
        for request in requests:
            match request:
                case Note(ticker, finding, exchange):
                    self._tell(FINDINGS[finding], finding, ticker, exchange)
                case Drop(ticker, refusal, exchange):
                    if refusal in REFUSALS:
                        self._tell(REFUSALS[refusal], refusal, ticker, exchange)
                    self.buffer.forget(ticker)
                case Subscribe(req_id, ticker):
                    self._tape.note(Kind.REQUEST, "subscribe", req_id, ticker)
                    self.memory.last_trades.requested(ticker)
                    self._send(request)
                case SubscribeReference(req_id, ticker):
                    self._tape.note(Kind.REQUEST, "reference", req_id, ticker)
                    self._send(request)
                case Cancel(req_id):
                    self._tape.note(Kind.REQUEST, "cancel", req_id)
                    self._unwanted.discard(req_id)
                    self._send(request)
                case FindListing(req_id, ticker):
                    self._tape.note(Kind.REQUEST, "listings", req_id, ticker)
                    self._send(request)

    def _tell(self, code: Code, what: Finding | Refusal, ticker: str, exchange: str) -> None:
        """Log what became of a ticker's listings, and keep it as the ticker's problem."""
        _, level, line = self._notices.about(
            code, (what, ticker), ticker, exchange, now=self._tape.monotonic()
        )
        logger.log(level, "%s", line)
        if code.level >= logging.WARNING:
            self.book.problems[ticker] = line
        else:
            self.book.problems.pop(ticker, None)
