"""Which tickers are subscribed under which request ids, and what to ask TWS for next.

No socket, no clock, no log and no lock: the caller hands in `now` (monotonic seconds),
serialises the calls, and sends the requests that come back, in their order.
"""

import math
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple, TypeAlias

from ibapi.contract import Contract

from newshead.tws.codes import Reaction
from newshead.tws.durations import DURATIONS, Durations

FIRST_REQ_ID: Final = 1000
US_EXCHANGES: Final = frozenset({"NYSE", "NASDAQ", "ARCA", "AMEX", "BATS", "IEX", "PINK"})


class Subscribe(NamedTuple):
    """Request the market data of a ticker; of the chosen listing where it is ambiguous."""

    req_id: int
    ticker: str
    listing: Contract | None = None


class SubscribeReference(NamedTuple):
    """Request the market data of the reference, which makes no ticks."""

    req_id: int
    ticker: str


class Cancel(NamedTuple):
    """Cancel a market data request."""

    req_id: int


class FindListing(NamedTuple):
    """Request the listings of an ambiguous ticker."""

    req_id: int
    ticker: str


class Drop(NamedTuple):
    """Forget a ticker's ticks: it was dropped for this connection."""

    ticker: str
    # Whether that is because none of its listings is a US one.
    foreign: bool = False


class Overdue(NamedTuple):
    """A ticker without data for too long, and the requests that subscribe it again."""

    ticker: str
    silence_s: float
    requests: list["Request"]


Request: TypeAlias = Subscribe | SubscribeReference | Cancel | FindListing | Drop


class Subscriptions:
    """The subscriptions of one connection.

    The public collections may be changed or replaced from outside: the book works on
    whatever is there.
    """

    def __init__(self, durations: Durations = DURATIONS) -> None:
        self._durations = durations
        self.next_req_id = FIRST_REQ_ID
        # The requests for listings are among the first, not among the second.
        self.reqid_to_ticker: dict[int, str] = {}
        self.ticker_to_reqid: dict[str, int] = {}
        self.active: set[str] = set()
        self.rejected: set[str] = set()
        # ticker → what TWS said last against its data.
        self.problems: dict[str, str] = {}
        # When any subscription had data last, and each request; a new one counts from its start.
        self.last_data_at = -math.inf
        self._heard_at: dict[int, float] = {}
        # How often each silent ticker was asked for again, and who gets no data anyway.
        self._silent_asks: dict[str, int] = {}
        self._without_data: set[str] = set()
        # The request for the reference, while there is one.
        self.reference_id: int | None = None
        # Tickers that are asked for again later, with the time of when.
        self._parked: dict[str, float] = {}
        # Who was given another request id because its own was in use.
        self._renumbered: set[str] = set()
        # The listings found for an ambiguous ticker, by request, and the chosen one by ticker.
        self._listings: dict[int, list[Contract]] = {}
        self._chosen: dict[str, Contract | None] = {}

    # --- What the caller wants ----------------------------------------------

    def changes(self, needed: AbstractSet[str], now: float) -> tuple[list[str], list[str]]:
        """Return the tickers to unsubscribe and to subscribe until just `needed` are."""
        added = {t for t in needed - self.active - self.rejected if not self._is_parked(t, now)}
        return sorted(self.active - needed), sorted(added)

    def subscribe(self, ticker: str, now: float) -> list[Request]:
        """Subscribe a ticker; return nothing if it is, or may not be now."""
        if ticker in self.active or ticker in self.rejected or self._is_parked(ticker, now):
            return []
        if self._parked.pop(ticker, None) is not None:
            self.problems.pop(ticker, None)
        self.active.add(ticker)
        return self.renew(ticker, now)

    def unsubscribe(self, ticker: str) -> list[Request]:
        """End a subscription."""
        self.active.discard(ticker)
        return _cancel(self._end_request(ticker))

    # --- What TWS says ------------------------------------------------------

    def heard(self, req_ids: AbstractSet[int], now: float) -> bool:
        """Note the requests that had data; return whether any of them still stands."""
        known = req_ids & self.reqid_to_ticker.keys()
        if not known:
            return False
        self._heard_at.update(dict.fromkeys(known, now))
        self.last_data_at = now
        if self._silent_asks:
            for req_id in known:
                self._silent_asks.pop(self.reqid_to_ticker[req_id], None)
        return True

    def react(self, reaction: Reaction, ticker: str, now: float) -> list[Request]:
        """Do what a code about a ticker asks for."""
        match reaction:
            case Reaction.DROP_TICKER:
                return self._drop(ticker)
            case Reaction.NO_DATA:
                self._without_data.add(ticker)
            case Reaction.PARK_TICKER:
                return self._park(ticker, now)
            case Reaction.NEW_REQUEST_ID if ticker in self._renumbered:
                return self._park(ticker, now)
            case Reaction.NEW_REQUEST_ID:
                self._renumbered.add(ticker)
                # The request that has the id is somebody's: it is not cancelled.
                return self.renew(ticker, now, cancel=False)
            case Reaction.FIND_LISTING:
                return self._find_listing(ticker)
        return []

    def add_listing(self, req_id: int, listing: Contract) -> None:
        """Take in one of the listings of an ambiguous ticker."""
        if req_id in self._listings:
            self._listings[req_id].append(listing)

    def choose_listing(self, req_id: int, now: float) -> list[Request]:
        """Choose the US one: all listings of an ambiguous ticker have come."""
        listings = self._listings.pop(req_id, None)
        if listings is None:
            return []
        ticker = self.reqid_to_ticker.pop(req_id, "")
        us = [listing for listing in listings if listing.primaryExchange in US_EXCHANGES]
        if not ticker:
            return []
        if not us:
            return self._drop(ticker, foreign=True)
        self._chosen[ticker] = us[0]
        return self.renew(ticker, now, cancel=False)

    def forget_listings(self) -> None:
        """Take all requests for listings as unanswered: a part of an answer cannot be read."""
        for req_id in self._listings:
            self._chosen.pop(self.reqid_to_ticker.pop(req_id, ""), None)
        self._listings.clear()

    # --- Asking again -------------------------------------------------------

    def renew(self, ticker: str, now: float, *, cancel: bool = True) -> list[Request]:
        """Make the request of a subscription, anew if there was one."""
        if ticker not in self.active:
            return []
        old = self._end_request(ticker)
        req_id = self._next_req_id()
        self.reqid_to_ticker[req_id] = ticker
        self.ticker_to_reqid[ticker] = req_id
        self._heard_at[req_id] = now
        subscribe = Subscribe(req_id, ticker, self._chosen.get(ticker))
        return [*(_cancel(old) if cancel else []), subscribe]

    def renew_all(self, now: float) -> list[Request]:
        """Make all requests anew: TWS lost them."""
        # There is nothing left to cancel, and each message takes its time.
        return [r for ticker in sorted(self.active) for r in self.renew(ticker, now, cancel=False)]

    def renew_silent(self, now: float, since_s: float) -> list[Request]:
        """Make the requests anew that had no data in the last `since_s` seconds."""
        silences = self._silences(now)
        silent = [ticker for ticker, silence_s in silences.items() if silence_s > since_s]
        return [request for ticker in silent for request in self.renew(ticker, now)]

    def renew_overdue(self, now: float) -> list[Overdue]:
        """Make the requests anew that are silent for too long while others have data."""
        durations = self._durations
        if now - self.last_data_at > durations.silent_s:
            # None has data; that is no single subscription's fault.
            return []
        overdue = []
        for ticker, silence_s in self._silences(now).items():
            asks = self._silent_asks.get(ticker, 0)
            if silence_s >= min(durations.max_silent_s, durations.silent_s * 2**asks):
                self._silent_asks[ticker] = asks + 1
                overdue.append(Overdue(ticker, silence_s, self.renew(ticker, now)))
        return overdue

    def _silences(self, now: float) -> dict[str, float]:
        """Return for how many seconds each subscription that could have data has had none."""
        return {
            # A request that was put here from outside counts from the first look at it.
            ticker: now - self._heard_at.setdefault(req_id, now)
            for ticker, req_id in self.ticker_to_reqid.items()
            if ticker not in self._without_data
        }

    # --- The reference --------------------------------------------------------

    @property
    def awaited(self) -> bool:
        """Whether any subscription should have data."""
        return any(ticker not in self._without_data for ticker in self.ticker_to_reqid)

    def ask_reference(self, ticker: str) -> list[Request]:
        """Request a stock that is sure to have data, to see whether TWS serves any."""
        self.reference_id = self._next_req_id()
        return [SubscribeReference(self.reference_id, ticker)]

    def end_reference(self) -> list[Request]:
        """Cancel that request, if there is one."""
        reference_id, self.reference_id = self.reference_id, None
        return _cancel(reference_id)

    # --- One ticker ---------------------------------------------------------

    def _drop(self, ticker: str, *, foreign: bool = False) -> list[Request]:
        self.rejected.add(ticker)
        self.unsubscribe(ticker)
        return [Drop(ticker, foreign)]

    def _park(self, ticker: str, now: float) -> list[Request]:
        self._parked[ticker] = now + self._durations.parked_s
        # TWS may hold on to it; if not, it answers with 300, which is ignored.
        return self.unsubscribe(ticker)

    def _is_parked(self, ticker: str, now: float) -> bool:
        return self._parked.get(ticker, -math.inf) > now

    def _find_listing(self, ticker: str) -> list[Request]:
        if ticker in self._chosen:
            return self._drop(ticker, foreign=True)
        self._chosen[ticker] = None
        req_id = self._next_req_id()
        self.reqid_to_ticker[req_id] = ticker
        self._listings[req_id] = []
        return [FindListing(req_id, ticker)]

    def _end_request(self, ticker: str) -> int | None:
        req_id = self.ticker_to_reqid.pop(ticker, None)
        if req_id is not None:
            self.reqid_to_ticker.pop(req_id, None)
            self._heard_at.pop(req_id, None)
        return req_id

    def _next_req_id(self) -> int:
        req_id = self.next_req_id
        self.next_req_id += 1
        return req_id


def _cancel(req_id: int | None) -> list[Request]:
    return [] if req_id is None else [Cancel(req_id)]
