"""A session's windows: a ticker's rows, as the alert rule sees them."""

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, time
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import NamedTuple

from newshead.core import rule
from newshead.core.rule import PricePoint, Rule
from newshead.core.tickers import ibkr_name
from newshead.core.times import next_roll_after


class Window(NamedTuple):
    """A ticker's window in a session.

    Attributes
    ----------
    prices
        Its rows in time order, those of one second in the order they were inserted.
    score
        The ticker's strength score; None if it is not known.
    slot_ends
        The end of each row's slot, Unix seconds, where rows after the window's end are still to be
        left out. Stored rows have none: the monitor left out what was outside.
    """

    ticker: str
    prices: Sequence[PricePoint]
    score: float | None = None
    slot_ends: Sequence[float] = ()

    @property
    def first_s(self) -> float:
        """The time of its first row, Unix seconds; infinite without rows."""
        return self.prices[0].time if self.prices else math.inf

    def rows(self, by: Rule) -> Sequence[PricePoint]:
        """Return the rows that the monitor would have made with this rule's window."""
        if not self.slot_ends:
            return self.prices
        # The first row opens the window, so it is inside whatever its slot's end.
        count = 1 + sum(rule.inside(self.first_s, end_s, by) for end_s in self.slot_ends[1:])
        return self.prices[:count]


class Session(NamedTuple):
    """The windows between two rolls; each ticker has at most one. `name` is when it began."""

    name: str
    windows: Sequence[Window]


def split(rows: Iterable[Sequence[object]], scores: dict[str, float | None]) -> Iterator[Window]:
    """Yield the windows that stored rows are of.

    Parameters
    ----------
    rows
        (ticker, Unix seconds, price, volume, recommendation), in the order of ticker and time.
    scores
        By IBKR's names.
    """
    for ticker, group in groupby(rows, itemgetter(0)):
        prices = [PricePoint._make(row[1:]) for row in group]
        for begin, end in rule.windows([row.time for row in prices]):
            window = prices[begin:end]
            yield Window(str(ticker), window, scores.get(ibkr_name(str(ticker))))


def sessions(windows: Iterable[Window], roll: time | None) -> Iterator[Session]:
    """Yield the sessions that windows with rows are of, oldest first.

    A session ends at the roll, and before a ticker's second window: newshead was started anew.
    """
    found: list[Window] = []
    tickers: set[str] = set()
    name, ends = "", None
    for window in sorted(windows, key=attrgetter("first_s", "ticker")):
        first = datetime.fromtimestamp(window.first_s, UTC)
        if found and (window.ticker in tickers or (ends is not None and first >= ends)):
            yield Session(name, found)
            found, tickers = [], set()
        if not found:
            name, ends = first.isoformat(), next_roll_after(first, roll)
        found.append(window)
        tickers.add(window.ticker)
    if found:
        yield Session(name, found)
