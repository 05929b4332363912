"""The last trade known of each ticker, and which trades from TWS are only that one again.

TWS answers every market data request with the stock's last trade, however old, as if it
happened now. On a ticker's first request it counts; after a repeated one (a new connection,
a lost subscription, a silent ticker) it is a trade that was counted before, unless it happened
in the gap. Tick 45 (LAST_TIMESTAMP) tells: TWS sends it before the trade or behind the sizes
of the opening burst.

No I/O and no clock: the caller hands in the time, and serialises the calls.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

SLOT_S: Final = 2.0


class Trade(NamedTuple):
    """A trade that counts: price (USD), volume (shares), and the time it counts for (aware UTC)."""

    ticker: str
    price: float
    volume: int
    at: datetime
    source: str


@dataclass(slots=True)
class _Held:
    """A trade that waits for its tick 45, and the earliest time it may count for."""

    trade: Trade
    repeated: bool
    earliest: datetime


@dataclass(slots=True)
class _Known:
    """What is known of one ticker's last trade; `traded_at` is its tick 45 (Unix seconds)."""

    price: float = 0.0
    volume: int = 0
    traded_at: int = 0
    recorded_at: datetime | None = None
    # Whether the next trade answers a repeated request, the tick 45 that came since that
    # request, and the answer while it waits for its own.
    questioned: bool = False
    told_at: int | None = None
    held: _Held | None = None


class LastTrades:
    """Tell new trades from those that TWS only repeats; outlives the connections to TWS."""

    def __init__(self, slot_s: float = SLOT_S) -> None:
        """
        Parameters
        ----------
        slot_s
            The length of the slots that rows are made of: a trade is held no longer than its slot.
        """
        self._slot_s = slot_s
        self._known: dict[str, _Known] = {}
        self._holding: set[str] = set()
        self._released: list[Trade] = []

    def forget(self, ticker: str) -> None:
        """Let the ticker's next request be its first."""
        self._known.pop(ticker, None)
        self._holding.discard(ticker)

    def restore(self, ticker: str, price: float, volume: int, at: datetime) -> None:
        """Note a trade that was counted before this process began."""
        self._known[ticker] = _Known(price, volume, recorded_at=at)

    def has_traded(self, ticker: str) -> bool:
        """Return whether a trade of a ticker is known that counts."""
        known = self._known.get(ticker)
        return known is not None and known.recorded_at is not None

    def requested(self, ticker: str) -> None:
        """Note a market data request: a repeated one puts the first trade after it in question."""
        known = self._known.get(ticker)
        if known is not None and known.recorded_at is not None:
            known.questioned = True
            known.told_at = None

    def add_trade(self, ticker: str, price: float, volume: int, now: datetime, source: str) -> bool:
        """Take a trade in; return whether it counts now. If not it is old, held, or released."""
        known = self._known.get(ticker)
        if known is None:
            known = self._known[ticker] = _Known()
        if known.questioned:
            self._question(known, Trade(ticker, price, volume, now, source))
            return False
        known.price = price
        known.volume = volume
        known.recorded_at = now
        return True

    def _question(self, known: _Known, trade: Trade) -> None:
        known.questioned = False
        repeated = (trade.price, trade.volume) == (known.price, known.volume)
        held = _Held(trade, repeated, self._earliest(known, trade.at))
        if known.told_at is not None:
            self._judge(known, held, known.told_at)
        else:
            known.held = held
            self._holding.add(trade.ticker)

    def add_time(self, ticker: str, traded_at: int) -> None:
        """Take a tick 45 (Unix seconds) in; it may release the held trade."""
        known = self._known.get(ticker)
        if known is None:
            known = self._known[ticker] = _Known()
        if known.held is not None:
            held, known.held = known.held, None
            self._holding.discard(ticker)
            self._judge(known, held, traded_at)
        elif known.questioned:
            known.told_at = traded_at
        elif traded_at > known.traded_at:
            known.traded_at = traded_at

    def add_size(self, ticker: str, volume: int) -> None:
        """Take a lone size in: a trade at the last price."""
        known = self._known.get(ticker)
        if known is not None and known.held is None and not known.questioned:
            known.volume = volume

    def released(self, now: datetime) -> list[Trade]:
        """Return the trades that turned out to count since the last call.

        Among them are those whose tick 45 did not come by the end of their slot.
        """
        for ticker in tuple(self._holding):
            known = self._known[ticker]
            if known.held is None or self._slot(known.held.trade.at) >= self._slot(now):
                continue
            held, known.held = known.held, None
            self._holding.discard(ticker)
            if not held.repeated:
                self._release(known, held.trade)
        released, self._released = self._released, []
        return released

    def _judge(self, known: _Known, held: _Held, traded_at: int) -> None:
        """Release the trade, at its own time, if it is a new one."""
        known_at, known.traded_at = known.traded_at, max(known.traded_at, traded_at)
        if held.repeated or traded_at <= known_at:
            return
        arrived = held.trade.at
        try:
            happened = datetime.fromtimestamp(traded_at, UTC)
        except (OverflowError, ValueError, OSError):
            happened = arrived
        at = min(arrived, max(happened, held.earliest))
        self._release(known, held.trade._replace(at=at))

    def _release(self, known: _Known, trade: Trade) -> None:
        # A trade that came while this one was held is the newer one.
        if known.recorded_at is None or known.recorded_at <= trade.at:
            known.price, known.volume, known.recorded_at = trade.price, trade.volume, trade.at
        self._released.append(trade)

    def _earliest(self, known: _Known, now: datetime) -> datetime:
        """Return the begin of the first slot that has no row of the ticker yet."""
        if known.recorded_at is None:
            return now
        slot = self._slot(known.recorded_at)
        if slot >= self._slot(now):
            return known.recorded_at
        return datetime.fromtimestamp(0, UTC) + timedelta(seconds=(slot + 1) * self._slot_s)

    def _slot(self, at: datetime) -> int:
        return int(at.timestamp() // self._slot_s)
