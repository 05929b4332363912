"""The trades of the subscribed tickers, from their ticks until somebody takes them.

No I/O and no clock: the caller hands in the time, and serialises the calls.
"""

import bisect
from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, Final, TypeAlias

from ibapi.const import UNSET_DOUBLE

from newshead.tws.last_trades import LastTrades
from newshead.tws.ticks import Tick

MAX_TICKS_PER_TICKER: Final = 5000

# A last_trades.Trade, as a plain tuple: they are made by the hundred thousand.
Recorded: TypeAlias = tuple[str, float, int, datetime, str]
# A buffered trade: `price`, `volume`, `timestamp` and `source`.
Buffered: TypeAlias = dict[str, Any]


class TradeBuffer:
    """The trades that count, per ticker, oldest first."""

    def __init__(self, last_trades: LastTrades, sources: Mapping[int, str]) -> None:
        """
        Parameters
        ----------
        last_trades
            What earlier connections learnt of the tickers' last trades.
        sources
            The tick types whose price is a trade's, with the source of their rows.
        """
        self._sources = sources
        self.last_trades = last_trades
        self.price_buffer: dict[str, list[Buffered]] = {}
        self.last_volume: dict[str, int] = {}
        self.ticks_pushed_out = 0
        self._pushed_out: dict[str, int] = {}

    def record(
        self, ticks: Sequence[Tick], tickers: Mapping[int, str], now: datetime
    ) -> list[Recorded]:
        """Put trades into the buffer and return them.

        Those without a subscription or a price are left out, and those that TWS only repeats.
        Held ones whose slot is over by `now` come with them.
        """
        recorded: list[Recorded] = []
        last_trades, sources = self.last_trades, self._sources
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
        self._add(recorded)
        return recorded

    def add_size(self, ticker: str, volume: int) -> None:
        """Note the size of a ticker's last trade, told by itself."""
        self.last_volume[ticker] = volume
        self.last_trades.add_size(ticker, volume)

    def forget(self, ticker: str) -> None:
        """Forget a ticker's trades."""
        self.price_buffer.pop(ticker, None)
        self.last_volume.pop(ticker, None)

    def take(
        self, tickers: set[str] | None = None
    ) -> tuple[dict[str, list[Buffered]], dict[str, int]]:
        """Return the trades of some tickers, or of all, and how many each had pushed out."""
        if tickers is None:
            taken, self.price_buffer = self.price_buffer, {}
            lost, self._pushed_out = self._pushed_out, {}
            return taken, lost
        taken = {t: self.price_buffer.pop(t) for t in tickers if t in self.price_buffer}
        lost = {t: self._pushed_out.pop(t) for t in tickers if t in self._pushed_out}
        return taken, lost

    def _add(self, trades: Sequence[Recorded]) -> None:
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
