"""A day of trades and news: the rows that live would have made of them.

News opens a ticker's subscription, TWS answers with the ticker's last trade, and each trade from
then on is a tick. Ticks become slots in the book that the price monitor uses too.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable
from datetime import datetime, timedelta
from operator import attrgetter

from newshead.core import rule
from newshead.core.rule import PricePoint
from newshead.core.slots import SLOT_S, SlotBook, Tick
from newshead.core.tickers import ibkr_name, parse_ticker
from newshead.replay.files import NewsLine, Trade
from newshead.replay.sessions import Session, Window


class Day:
    """Takes trades in, in any order, and makes windows of them.

    Of each ticker it keeps what its window may need, so that a file may be larger than the memory.
    """

    def __init__(self, begin: datetime, news: Iterable[NewsLine] | None, window_s: int) -> None:
        """
        Parameters
        ----------
        begin
            Second 0, aware.
        news
            In any order. None: each ticker's first trade opens its window, rated BUY.
        window_s
            The longest window that rows are asked for.
        """
        self._begin = begin
        self._window_s = window_s
        self._opened_by_trades = news is None
        self._stocks: dict[str, _Stock] = {}
        # Each spelling in the trades, and how the stock is known.
        self._symbols: dict[str, str] = {}
        for line in sorted(news or (), key=lambda line: line.seconds):
            stock = self._stocks.setdefault(
                ibkr_name(line.ticker), _Stock(line.ticker, line.seconds)
            )
            stock.ratings.append((line.seconds, line.recommendation))

    def add(self, trade: Trade) -> None:
        """Take a trade in; of two of one time the later one is the newer."""
        symbol = self._symbols.get(trade.ticker)
        if symbol is None:
            ticker = parse_ticker(trade.ticker) or trade.ticker
            symbol = self._symbols[trade.ticker] = ibkr_name(ticker)
        stock = self._stocks.get(symbol)
        if stock is None:
            if not self._opened_by_trades:
                return
            stock = self._stocks[symbol] = _Stock(trade.ticker.strip().upper(), 0.0)
            stock.ratings.append((0.0, rule.LIVE.ratings[0]))
        if trade.seconds < stock.opened:
            if stock.earlier is None or stock.earlier.seconds <= trade.seconds:
                stock.earlier = trade
        elif trade.seconds < stock.over:
            stock.slots.add(stock.ticker, [self._tick(trade, trade.seconds)])
            # The first row is older than the end of this one's slot.
            over = trade.seconds + SLOT_S + self._window_s
            stock.over = min(stock.over, over)

    def session(self) -> Session:
        """Return the windows, by their first rows; those without rows come last."""
        windows = [self._window(stock) for stock in self._stocks.values()]
        windows.sort(key=attrgetter("first_s", "ticker"))
        return Session(self._begin.isoformat(), windows)

    def _window(self, stock: "_Stock") -> Window:
        slots = SlotBook(SLOT_S)
        if stock.earlier is not None:
            slots.add(stock.ticker, [self._tick(stock.earlier, stock.opened)])
        slots.add(stock.ticker, [stock.slots[slot] for slot in stock.slots.all])
        begin_s = self._begin.timestamp()
        rated_at = [begin_s + seconds for seconds, _ in stock.ratings]
        prices: list[PricePoint] = []
        ends: list[float] = []
        for slot in sorted(slots.all):
            end_s = slots.end_s(slot)
            tick = slots[slot]
            _, recommendation = stock.ratings[bisect_right(rated_at, end_s) - 1]
            time_s = math.floor(tick["timestamp"].timestamp())
            prices.append(PricePoint(time_s, tick["price"], tick["volume"], recommendation))
            ends.append(end_s)
        return Window(stock.ticker, prices, slot_ends=ends)

    def _tick(self, trade: Trade, seconds: float) -> Tick:
        # Cut, as all times are: rounded up, a trade might be in the next slot.
        since_begin = timedelta(microseconds=math.floor(seconds * 1e6))
        return {
            "price": trade.price,
            # Whole shares, as TWS's ticks are read.
            "volume": max(1, math.floor(trade.size + 0.5)),
            "timestamp": self._begin + since_begin,
        }


class _Stock:
    """What a ticker's window may need.

    Attributes
    ----------
    opened, over
        Seconds since the begin: ticks count from the first on, and below the second.
    ratings
        With the seconds they came at, in order of time.
    earlier
        The last trade before it was opened.
    """

    def __init__(self, ticker: str, opened: float) -> None:
        self.ticker = ticker
        self.opened = opened
        self.over = math.inf
        self.ratings: list[tuple[float, str]] = []
        self.earlier: Trade | None = None
        self.slots = SlotBook(SLOT_S)
