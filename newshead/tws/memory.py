"""What one connection to TWS learns and the next ones still need."""

from dataclasses import dataclass, field

from ibapi.contract import Contract

from newshead.core.market import LIVE
from newshead.tws.conditions import Conditions
from newshead.tws.durations import DURATIONS
from newshead.tws.last_trades import SLOT_S, LastTrades
from newshead.tws.silence import Silence


@dataclass(frozen=True)
class Memory:
    """What is kept from client to client; guarded by the lock of the client that has it.

    Attributes
    ----------
    last_trades
        The last trade of each ticker: a new connection brings it again.
    silence
        The time without data.
    conditions
        What TWS says of each ticker besides its trades.
    listings
        For a ticker whose listings are known the one to ask for, None where its name says enough;
        until the session's roll.
    headlines
        When each ticker came up, in monotonic seconds.
    """

    last_trades: LastTrades
    silence: Silence
    conditions: Conditions
    listings: dict[str, Contract | None] = field(default_factory=dict)
    headlines: dict[str, float] = field(default_factory=dict)

    @classmethod
    def new(cls, market_data_type: int = LIVE, slot_s: float = SLOT_S) -> "Memory":
        """Return a memory of nothing, for slots of so many seconds."""
        return cls(LastTrades(slot_s), Silence(DURATIONS), Conditions(market_data_type))

    def forget(self, ticker: str) -> None:
        """Forget a ticker's trades and conditions: it is tracked anew."""
        self.last_trades.forget(ticker)
        self.headlines.pop(ticker, None)
        self.conditions.forget(ticker)
