"""Whether any data comes while tickers are active. No clock: the caller hands in the time."""

import math
from enum import Enum
from typing import Final

# Without any data for so long, although tickers are active, the monitor is blind.
BLIND_S: Final = 15.0


class Change(Enum):
    """What became of the sight."""

    LOST = "no data comes"
    BACK = "data comes again"


class Sight:
    """Notices when data stops coming, and when it comes again. Times are monotonic seconds."""

    def __init__(self) -> None:
        # Of the last data, and of since when some is awaited.
        self.data_at = -math.inf
        self._awaited_since = math.inf
        self._blind = False

    def watch(self, now: float, data_at: float, *, awaited: bool) -> Change | None:
        """Take in when data came last, and whether any is awaited; return a change."""
        self.data_at = max(self.data_at, data_at)
        if not awaited:
            self._awaited_since = math.inf
            self._blind = False
            return None
        self._awaited_since = min(self._awaited_since, now)
        if self.dark_s(now) >= BLIND_S and not self._blind:
            self._blind = True
            return Change.LOST
        if self._blind and self.data_at > now - BLIND_S:
            self._blind = False
            return Change.BACK
        return None

    def dark_s(self, now: float) -> float:
        """Return for how long data that is awaited has not come."""
        return now - max(self.data_at, self._awaited_since)
