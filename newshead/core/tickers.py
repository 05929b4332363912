"""A book of tickers: which are tracked, whose window is over, and what is still to be done."""

import re
from collections.abc import Collection, Mapping
from datetime import datetime
from enum import Enum
from typing import Final

from newshead.core import rule

MAX_TRACKED_S: Final = 1800.0


_TICKER = re.compile(r"[A-Z][A-Z0-9]{0,5}(?:[./ -][A-Z]{1,3})?")


class Answer(Enum):
    """What becomes of a trigger."""

    TRACK = "tracking it"
    ENDED = "it had its window in this session already"
    UNKNOWN = "IBKR knows no such stock, it stays left out"


class TickerBook:
    """The tickers of one session.

    Attributes
    ----------
    active
        Those that are tracked. Whoever holds it may change or replace it.
    since
        When each was tracked last (aware UTC). Likewise.
    ended
        Those that had their window in this session, with the time of their first row.
    unjudged
        Those with rows that the alert rule has not seen.
    untold
        Those whose window is over and whose outcome has not been logged.
    """

    def __init__(self) -> None:
        self.active: set[str] = set()
        self.since: dict[str, datetime] = {}
        self.ended: dict[str, datetime] = {}
        self.unjudged: set[str] = set()
        self.untold: set[str] = set()
        self._unknown: set[str] = set()
        self._held_back: set[str] = set()

    @property
    def idle(self) -> bool:
        """Whether nothing is tracked and nothing is to be done."""
        return not (self.active or self.unjudged or self.untold)

    def answer(self, ticker: str) -> Answer:
        """Return what becomes of a trigger for a ticker: each has one window in a session."""
        if ticker in self._unknown:
            return Answer.UNKNOWN
        return Answer.ENDED if ticker in self.ended else Answer.TRACK

    def track(self, ticker: str, now: datetime) -> None:
        """Make a ticker active."""
        self.active.add(ticker)
        self.since[ticker] = now

    def untrack(self, ticker: str) -> None:
        """Make a ticker active no more."""
        self.active.discard(ticker)
        self.since.pop(ticker, None)

    def reject(self, tickers: Collection[str]) -> None:
        """Leave out those of the active ones that IBKR does not know, until `forgive`."""
        for ticker in self.active & set(tickers):
            self._unknown.add(ticker)
            self.untrack(ticker)

    def forgive(self) -> None:
        """Let the tickers that IBKR did not know be tried again: it may know them by now."""
        self._unknown.clear()

    def drop_old(self, now: datetime) -> None:
        """Untrack those that have been tracked for over 30 minutes."""
        for ticker, since in list(self.since.items()):
            if (now - since).total_seconds() > MAX_TRACKED_S:
                self.untrack(ticker)
                self.untold.add(ticker)

    def end_windows(self, first_rows: Mapping[str, datetime]) -> None:
        """Note that the windows of these tickers, given with their first rows' times, are over."""
        for ticker in first_rows.keys() - self.ended.keys():
            self.untrack(ticker)
            self.untold.add(ticker)
        self.ended |= first_rows

    def in_window(self, ticker: str, at_s: float) -> bool:
        """Tell whether a cycle at that time (Unix seconds) would have found the window open."""
        if ticker not in self.ended:
            return True
        return rule.inside(self.ended[ticker].timestamp(), at_s)

    def first_held_back(self, tickers: Collection[str]) -> list[str]:
        """Return those of `tickers`, sorted, that it was not asked about before in the session."""
        new = sorted(set(tickers) - self._held_back)
        self._held_back.update(new)
        return new

    def roll(self) -> None:
        """Begin a fresh session: tickers may have their window again."""
        self.ended.clear()
        self._held_back.clear()
        self.forgive()


def parse_ticker(value: object) -> str | None:
    """Return the ticker in `value`, upper case and without blanks around it, or None.

    A US ticker is up to six letters and digits, with a share class behind a
    dot, slash, dash or space where there is one (`BRK.B`).
    """
    # The look-alikes that upper() turns into ASCII letters are no letters of a ticker.
    if not isinstance(value, str) or not value.isascii():
        return None
    ticker = value.strip().upper()
    return ticker if _TICKER.fullmatch(ticker) else None
