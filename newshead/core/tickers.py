"""A book of tickers: which are tracked, whose window is over, and what is still to be done."""

import re
from collections.abc import Collection, Mapping
from datetime import datetime
from enum import Enum
from typing import Final

from newshead.core import rule

MAX_TRACKED_S: Final = 1800.0
# A row that was looked for so often, once a cycle, is no longer on its way to a replica.
MAX_UNSEEN: Final = 30

# What may stand before a share class, or another kind of security of the same company.
_SEPARATORS: Final = "./ -"
_PREFERRED: Final = "PR"
# Those with a sign of their own, and what else news calls them, by IBKR's word for them.
_SIGNS: Final = {"WS": "+", "RT": "^", "U": "="}
_WORDS: Final = {"WT": "WS"}

_BASE: Final = r"[A-Z][A-Z0-9]{0,5}"
_PREFERRED_BY_CASE: Final = re.compile(_BASE + "p[A-Z]")
_TICKER: Final = re.compile(
    _BASE + r"(?:[./ -](?:[A-Z]{1,3}|PR[./ -][A-Z])|[" + re.escape("".join(_SIGNS.values())) + "])?"
)


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
    priced
        Those that have a row of this session.
    unjudged
        Those with rows that the alert rule has not seen, with the newest one's Unix time.
    untold
        Those whose window is over and whose outcome has not been logged.
    """

    def __init__(self) -> None:
        self.active: set[str] = set()
        self.since: dict[str, datetime] = {}
        self.ended: dict[str, datetime] = {}
        self.priced: set[str] = set()
        self.unjudged: dict[str, int] = {}
        # How often each was judged without its newest row.
        self._unseen: dict[str, int] = {}
        self.untold: set[str] = set()
        self._meanwhile: dict[str, list[str]] = {}
        # By IBKR's name, how each ticker was spelled first.
        self._spelled: dict[str, str] = {}
        self._held_back: set[str] = set()

    @property
    def idle(self) -> bool:
        """Whether nothing is tracked and nothing is to be done."""
        return not (self.active or self.unjudged or self.untold)

    @property
    def awaited(self) -> set[str]:
        """The tickers that are tracked and have no row yet."""
        return self.active - self.priced

    def spelling(self, ticker: str) -> str:
        """Return how the session spells a ticker: as it was spelled first.

        All else here is told of a ticker in that spelling.
        """
        return self._spelled.setdefault(ibkr_name(ticker), ticker)

    def answer(self, ticker: str, unknown: Collection[str]) -> Answer:
        """Return what becomes of a trigger for a ticker: each has one window in a session.

        Parameters
        ----------
        unknown
            Those that IBKR does not know.
        """
        if ticker in unknown:
            return Answer.UNKNOWN
        return Answer.ENDED if ticker in self.ended else Answer.TRACK

    def track(self, ticker: str, now: datetime) -> None:
        """Make a ticker active."""
        if ticker not in self.active:
            self._meanwhile.pop(ticker, None)
        self.active.add(ticker)
        self.since[ticker] = now

    def untrack(self, ticker: str) -> None:
        """Make a ticker active no more."""
        self.active.discard(ticker)
        self.since.pop(ticker, None)

    def reject(self, unknown: Collection[str]) -> None:
        """Track those no more that IBKR does not know."""
        for ticker in self.active & set(unknown):
            self.untrack(ticker)

    def await_row(self, ticker: str, at_s: int) -> None:
        """Note a row of a ticker that is to be judged, by its time in Unix seconds."""
        self.unjudged[ticker] = at_s
        self._unseen.pop(ticker, None)

    def judge(self, tickers: Collection[str], newest: Mapping[str, int]) -> list[str]:
        """Note that `tickers` were judged by the rows that the database showed.

        Those whose newest row was not among them stay unjudged: another replica may lag.

        Parameters
        ----------
        newest
            The newest row's time of each ticker that has rows there, Unix seconds.

        Returns
        -------
        list[str]
            Those that are given up, sorted: their row was not seen for MAX_UNSEEN times.
        """
        asked = self.unjudged.keys() & set(tickers)
        unseen = {each for each in asked if newest.get(each, -1) < self.unjudged[each]}
        for ticker in asked - unseen:
            del self.unjudged[ticker]
            self._unseen.pop(ticker, None)
        for ticker in unseen:
            self._unseen[ticker] = self._unseen.get(ticker, 0) + 1
        given_up = sorted(each for each in unseen if self._unseen[each] >= MAX_UNSEEN)
        for ticker in given_up:
            del self.unjudged[ticker], self._unseen[ticker]
        return given_up

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

    def note(self, happened: str) -> None:
        """Note what happened to all tickers that are tracked, for their outcome."""
        for ticker in self.active:
            self._meanwhile.setdefault(ticker, []).append(happened)

    def meanwhile(self, ticker: str) -> list[str]:
        """Return what was noted since a ticker was tracked."""
        return self._meanwhile.get(ticker, [])

    def first_held_back(self, tickers: Collection[str]) -> list[str]:
        """Return those of `tickers`, sorted, that it was not asked about before in the session."""
        new = sorted(set(tickers) - self._held_back)
        self._held_back.update(new)
        return new

    def roll(self) -> None:
        """Begin a fresh session: tickers may have their window again."""
        self.ended.clear()
        self.priced.clear()
        self._spelled = {ibkr_name(ticker): ticker for ticker in self.active}
        self._held_back.clear()


def parse_ticker(value: object) -> str | None:
    """Return the ticker in `value`, upper case and without blanks around it, or None.

    A US ticker is up to six letters and digits. Behind a dot, slash, dash or space may stand a
    share class (`BRK.B`) or another kind of security: a preferred stock (`BAC-PL`, `BAC.PR.L`),
    warrants (`ABC.WS`), rights, units. Preferred stocks are also written with a small p (`BACpL`,
    which is kept), warrants, rights and units with a sign (`ABC+`, `ABC^`, `ABC=`).
    """
    # The look-alikes that upper() turns into ASCII letters are no letters of a ticker.
    if not isinstance(value, str) or not value.isascii():
        return None
    ticker = value.strip()
    if _PREFERRED_BY_CASE.fullmatch(ticker):
        return ticker
    ticker = ticker.upper()
    return ticker if _TICKER.fullmatch(ticker) else None


def ibkr_name(ticker: str) -> str:
    """Return IBKR's name for a ticker as `parse_ticker` gives it: equal for all its spellings."""
    if _PREFERRED_BY_CASE.fullmatch(ticker):
        return f"{ticker[:-2]} {_PREFERRED}{ticker[-1]}"
    for word, sign in _SIGNS.items():
        if ticker.endswith(sign):
            return f"{ticker[:-1]} {word}"
    base, *rest = re.split(f"[{_SEPARATORS}]", ticker)
    kind = "".join(rest)
    # PR alone is a preferred stock without a series.
    if len(kind) == 2 and kind[0] == "P" and kind != _PREFERRED:
        kind = _PREFERRED + kind[1]
    return f"{base} {_WORDS.get(kind, kind)}" if kind else base


def spellings(ticker: str) -> list[str]:
    """Return a ticker, and all its spellings that `parse_ticker` lets through."""
    base, _, kind = ibkr_name(ticker).partition(" ")
    if not kind:
        return [ticker]
    behind = [kind, *(word for word, known in _WORDS.items() if known == kind)]
    series = kind.removeprefix(_PREFERRED)
    others = [f"{base}{_SIGNS[kind]}"] if kind in _SIGNS else []
    if len(kind) == 3 and len(series) == 1:
        behind += [f"P{series}", *(f"{_PREFERRED}{each}{series}" for each in _SEPARATORS)]
        others.append(f"{base}p{series}")
    others += [f"{base}{each}{word}" for word in behind for each in _SEPARATORS]
    # What is none of these is no ticker, and is found under its own name alone.
    return list(dict.fromkeys([ticker, *others]))
