"""Which bars IBKR is asked for after a window, and when: one request at a time.

IBKR takes 60 such requests in ten minutes, and no identical one within 15 seconds; these stay far
below that.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

# The lengths of the bars of a window, each with the seconds after its first row that they cover.
SPANS_S: Final = {5: 120, 60: 1800}


@dataclass(frozen=True)
class Pace:
    """When bars are asked for, in seconds."""

    # All bars of a window are over then, also where it begins at the end of a minute.
    due_s: float = 1860.0
    # A window that began longer ago is let be.
    within_s: float = 86400.0
    # Between two requests: at most 40 in ten minutes.
    gap_s: float = 15.0
    # After a refusal, which may mean that TWS's other clients ask too much.
    refused_s: float = 60.0
    # A request that is not answered in so long is given up.
    answer_s: float = 60.0


class Bars(NamedTuple):
    """The bars of `bar_s` seconds of a ticker's window, which began with its row at `first_row`."""

    ticker: str
    first_row: datetime
    bar_s: int

    @property
    def begin(self) -> int:
        """When the first bar begins, Unix seconds: with or before the window."""
        return int(self.first_row.timestamp()) // self.bar_s * self.bar_s

    @property
    def end(self) -> int:
        """When the last bar ends, Unix seconds."""
        last = int(self.first_row.timestamp()) + SPANS_S[self.bar_s]
        return -(-last // self.bar_s) * self.bar_s


class Ask(NamedTuple):
    """Ask for these bars now."""

    bars: Bars


class GiveUp(NamedTuple):
    """Wait no longer for these bars."""

    bars: Bars


@dataclass
class Counts:
    """What came of the requests.

    `asked` = `answered` + `refused` + `missing` + the one under way: IBKR brought bars; said that
    there are none to be had; brought none, or did not answer.
    """

    asked: int = 0
    answered: int = 0
    refused: int = 0
    missing: int = 0


class FollowUps:
    """The bars that are to be asked for, the request under way, and what came of those before.

    `at` is monotonic seconds throughout.

    Attributes
    ----------
    counts
        Since this process began.
    """

    def __init__(self, pace: Pace) -> None:
        self.counts = Counts()
        self._pace = pace
        # By when their windows began.
        self._open: list[Bars] = []
        # What needs no request any more, as long as its window is young enough for one.
        self._done: set[Bars] = set()
        self._under_way: Bars | None = None
        # What a connection took with it; a second time it is not asked again.
        self._lost: Bars | None = None
        self._asked_at = self._not_before = float("-inf")

    @property
    def under_way(self) -> Bars | None:
        """What was asked for and is not answered."""
        return self._under_way

    def learn(
        self, windows: Iterable[tuple[str, datetime]], stored: Collection[Bars], now: datetime
    ) -> None:
        """Take in which windows there are, by ticker and first row, and which bars of them."""
        self._done = {bars for bars in self._done if self._is_young(bars, now)}
        known = self._done | set(stored) | {self._under_way}
        every = {Bars(*window, bar_s) for window in windows for bar_s in SPANS_S}
        self._open = sorted(every - known, key=lambda bars: (bars.first_row, bars))

    def next(self, now: datetime, at: float, *, ready: bool, waiting: bool) -> Ask | GiveUp | None:
        """Return what is to be done now.

        Parameters
        ----------
        ready
            Whether TWS takes requests.
        waiting
            Whether a trigger or a subscription waits, or has just been answered.
        """
        if self._under_way is not None:
            if at - self._asked_at < self._pace.answer_s:
                return None
            given_up = GiveUp(self._under_way)
            self.counts.missing += self._end(at, self._pace.refused_s)
            return given_up
        if not ready or waiting or at < self._not_before:
            return None
        self._open = [bars for bars in self._open if self._is_young(bars, now)]
        if not self._open or now - self._open[0].first_row < timedelta(seconds=self._pace.due_s):
            return None
        self._under_way = self._open.pop(0)
        self._asked_at = at
        self._not_before = at + self._pace.gap_s
        self.counts.asked += 1
        return Ask(self._under_way)

    def answered(self, at: float, *, found: bool) -> None:
        """Note the answer to the request under way, and whether there are bars in it."""
        if self._end(at):
            self.counts.answered += found
            self.counts.missing += not found

    def refused(self, at: float) -> None:
        """Note that the request under way was refused: it is not made again."""
        self.counts.refused += self._end(at, self._pace.refused_s)

    def lost(self, at: float) -> None:
        """Note that the connection ended with the request under way: it is made again, once."""
        bars = self._under_way
        if bars is None:
            return
        if bars == self._lost:
            self.counts.missing += self._end(at, self._pace.refused_s)
            return
        self.counts.asked -= 1
        self._lost, self._under_way = bars, None
        self._not_before = max(self._not_before, at + self._pace.refused_s)
        self._open.insert(0, bars)

    def _end(self, at: float, pause_s: float = 0.0) -> bool:
        """End the request under way, if there is one, and pause; return whether there was."""
        if self._under_way is None:
            return False
        self._done.add(self._under_way)
        self._under_way = None
        self._not_before = max(self._not_before, at + pause_s)
        return True

    def _is_young(self, bars: Bars, now: datetime) -> bool:
        return now - bars.first_row <= timedelta(seconds=self._pace.within_s)
