"""Whether data can come while tickers are active. No clock: the caller hands in the time.

Stocks that nobody trades are no reason to be blind.
"""

import math
from enum import Enum
from typing import Final

# Without any data for so long, and without a way for any to come, the monitor is blind.
BLIND_S: Final = 15.0


class Change(Enum):
    """What became of the sight."""

    LOST = "no data comes"
    BACK = "data comes again"


class Sight:
    """Notice when data stops coming, and when it comes again. Times are monotonic seconds."""

    def __init__(self) -> None:
        # Of the last data, and of since when some is awaited.
        self.data_at = -math.inf
        self._awaited_since = math.inf
        self._cut_since = math.inf
        self.blind = False

    def watch(
        self, now: float, data_at: float, *, awaited: bool, cut: bool, unserved: bool = False
    ) -> Change | None:
        """Return a change.

        Parameters
        ----------
        data_at
            When data came last, or proof that it can.
        awaited
            Whether there is a ticker that should have data.
        cut
            Whether no data can come: there is no connection, or TWS has none itself.
        unserved
            Whether requests have shown that TWS serves no data.
        """
        self.data_at = max(self.data_at, data_at)
        self._cut_since = min(self._cut_since, now) if cut else math.inf
        if not awaited:
            self._awaited_since = math.inf
            self.blind = False
            return None
        self._awaited_since = min(self._awaited_since, now)
        if not self.blind and (unserved or now - self._cut_since >= BLIND_S <= self.dark_s(now)):
            self.blind = True
            return Change.LOST
        if self.blind and not unserved and self.data_at > now - BLIND_S:
            self.blind = False
            return Change.BACK
        return None

    def dark_s(self, now: float) -> float:
        """Return for how long data that is awaited has not come."""
        return now - max(self.data_at, self._awaited_since)
