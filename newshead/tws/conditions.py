"""What TWS says of a ticker besides its trades: halts, the kind of its data, yesterday's close.

No I/O, no clock and no log: the caller serialises the calls and logs the lines that come back.
Sources: IBKR's list of tick types (49 is Halted), and its market data types.
"""

from typing import Final, NamedTuple

from ibapi.const import UNSET_DOUBLE
from ibapi.ticktype import TickTypeEnum

from newshead.core.market import DATA_TYPES, DELAYED, HALT_REASONS, LIVE, NOT_HALTED
from newshead.tws.ticks import HALTS

# What counts as data where another type than live is asked for.
_ACCEPTED: Final = {LIVE: {LIVE}, 2: {LIVE, 2}, DELAYED: {LIVE, DELAYED}, 4: set(DATA_TYPES)}

_CLOSES: Final = (TickTypeEnum.CLOSE, TickTypeEnum.DELAYED_CLOSE)
# The ticks that tell a condition. The day's volume comes with every trade, so it goes a way of
# its own, see `Conditions.note_volume`.
CONDITION_TICKS: Final = frozenset((*_CLOSES, *HALTS))
# Those of data that is 15 minutes late.
DELAYED_TICKS: Final = frozenset(range(TickTypeEnum.DELAYED_BID, TickTypeEnum.DELAYED_OPEN + 1))


class Condition(NamedTuple):
    """What is known of a ticker.

    `halted` is 0, or a key of HALT_REASONS, and `was_halted` says that it has been since it was
    tracked; `data_type` is a key of DATA_TYPES; `previous_close` is USD and `day_volume` shares,
    0 where they are unknown.
    """

    halted: int = NOT_HALTED
    was_halted: bool = False
    data_type: int = LIVE
    previous_close: float = 0.0
    day_volume: int = 0


UNKNOWN: Final = Condition()


class Conditions:
    """The conditions of all tickers; outlives the connections."""

    def __init__(self, asked_for: int = LIVE) -> None:
        """
        Parameters
        ----------
        asked_for
            The market data type that newshead asks for.
        """
        self._asked_for = asked_for
        self._known: dict[str, Condition] = {}
        self._day_volumes: dict[str, int] = {}
        # Whose kind of data was told.
        self._told: set[str] = set()

    def of(self, ticker: str) -> Condition:
        """Return what is known of a ticker."""
        known = self._known.get(ticker, UNKNOWN)
        return known._replace(day_volume=self._day_volumes.get(ticker, 0))

    def all(self) -> dict[str, Condition]:
        """Return what is known, by ticker."""
        return {ticker: self.of(ticker) for ticker in self._known | self._day_volumes}

    def counts(self, ticker: str) -> bool:
        """Tell whether a ticker's data is of a kind that newshead asks for."""
        return self.of(ticker).data_type in _ACCEPTED[self._asked_for]

    def forget(self, ticker: str) -> None:
        """Forget a ticker: it is tracked anew."""
        self._known.pop(ticker, None)
        self._day_volumes.pop(ticker, None)
        self._told.discard(ticker)

    def forget_session(self) -> None:
        """Forget all tickers."""
        self._known.clear()
        self._day_volumes.clear()
        self._told.clear()

    def note_volume(self, ticker: str, volume: int) -> None:
        """Take in the day's volume, in shares."""
        self._day_volumes[ticker] = volume

    def take_tick(self, ticker: str, tick_type: int, value: float | None) -> str:
        """Take in a tick, if it is one of CONDITION_TICKS; return the line to log, if any."""
        known = self.of(ticker)
        if tick_type in HALTS and value is not None:
            return self._halt(ticker, known, int(value))
        if tick_type in _CLOSES and value is not None and 0 < value < UNSET_DOUBLE:
            self._known[ticker] = known._replace(previous_close=float(value))
        return ""

    def take_data_type(self, ticker: str, data_type: int) -> str:
        """Take in which kind of data TWS serves; return the line to log, if any."""
        known = self.of(ticker)
        if data_type not in DATA_TYPES or data_type == known.data_type:
            return ""
        self._known[ticker] = known._replace(data_type=data_type)
        if self.counts(ticker):
            return f"TWS serves {ticker} {DATA_TYPES[data_type]} data now."
        if ticker in self._told:
            return ""
        self._told.add(ticker)
        return (
            f"TWS serves {ticker} {DATA_TYPES[data_type]} data: it makes no price rows. Subscribe "
            "to its live data at IBKR, or set IBKR_MARKET_DATA_TYPE=3 for data 15 minutes late."
        )

    def _halt(self, ticker: str, known: Condition, halted: int) -> str:
        halted = halted if halted in HALT_REASONS else NOT_HALTED
        if halted == known.halted:
            return ""
        self._known[ticker] = known._replace(halted=halted, was_halted=True)
        if halted == NOT_HALTED:
            return f"{ticker} trades again."
        return f"{ticker} is halted: {HALT_REASONS[halted]}."
