"""Who gives way where no market data line is free. No I/O, no clock: `now` in monotonic seconds.

IBKR gives a hundred lines, shared with TWS and its other clients, so that only TWS knows whether
one is free. A newer headline is worth more than a stock that nobody has traded since its own.
"""

import math
from collections.abc import Callable, Collection, Iterable
from typing import Final

# Who was given a line so recently and has none all the same takes no other one's.
AGAIN_S: Final = 20.0


class Lines:
    """The tickers by their headlines, and those that wait for a line."""

    def __init__(
        self,
        headlines: dict[str, float] | None = None,
        has_traded: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """
        Parameters
        ----------
        headlines
            When each ticker came up; earlier connections noted it.
        has_traded
            Whether a ticker had a trade since then: its window is open.
        """
        self._came_at = {} if headlines is None else headlines
        self._has_traded = has_traded
        self._given_at: dict[str, float] = {}
        self._waiting: set[str] = set()
        # How often a ticker gave its line to a newer one.
        self.displaced = 0

    def came(self, ticker: str, now: float) -> None:
        """Note that a ticker is asked for; its headline is from when it was so first."""
        self._came_at.setdefault(ticker, now)
        self._waiting.discard(ticker)

    def keep(self, tickers: Collection[str]) -> None:
        """Forget all tickers but these."""
        for ticker in self._came_at.keys() - set(tickers):
            del self._came_at[ticker]
            self._given_at.pop(ticker, None)
            self._waiting.discard(ticker)

    def newest_first(self, tickers: Iterable[str]) -> list[str]:
        """Return tickers in the order to ask for them; one that was never asked for is newest."""
        return sorted(tickers, key=lambda ticker: (-self._came_at.get(ticker, math.inf), ticker))

    def giving_way(self, ticker: str, subscribed: Iterable[str], now: float) -> str | None:
        """Return who gives its line to a ticker that got none, if anybody does; who has none then
        waits for one."""
        came_at = self._came_at.get(ticker, -math.inf)
        older = [
            other
            for other in subscribed
            if self._came_at.get(other, math.inf) < came_at and not self._has_traded(other)
        ]
        if not older or now - self._given_at.get(ticker, -math.inf) < AGAIN_S:
            self._waiting.add(ticker)
            return None
        self._given_at[ticker] = now
        self.displaced += 1
        gives = self.newest_first(older)[-1]
        self._waiting.add(gives)
        return gives

    def freed(self) -> str | None:
        """Return who is to have the line that became free, if anybody waits for one."""
        if not self._waiting:
            return None
        ticker = self.newest_first(self._waiting)[0]
        self._waiting.discard(ticker)
        return ticker
