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
from newshead.tws.lines import Lines
from newshead.tws.listings import Finding, Lookup, Refusal, Standing

FIRST_REQ_ID: Final = 1000


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
    """Request the listings of a ticker."""

    req_id: int
    ticker: str


class Drop(NamedTuple):
    """Forget a ticker's ticks: it was dropped for this connection."""

    ticker: str
    why: Refusal
    exchange: str = ""


class Note(NamedTuple):
    """Tell about a ticker's listing; nothing is to be requested."""

    ticker: str
    what: Finding
    exchange: str = ""


class Overdue(NamedTuple):
    """A ticker without data for too long, and the requests that subscribe it again."""

    ticker: str
    silence_s: float
    requests: list["Request"]


Request: TypeAlias = Subscribe | SubscribeReference | Cancel | FindListing | Drop | Note


class Subscriptions:
    """The subscriptions of one connection.

    The public collections may be changed or replaced from outside: the book works on
    whatever is there.
    """

    def __init__(
        self,
        durations: Durations = DURATIONS,
        listings: dict[str, Contract | None] | None = None,
        lines: Lines | None = None,
    ) -> None:
        """
        Parameters
        ----------
        listings
            What earlier connections learnt: for a ticker whose listings are known the one to
            ask for, None where its name says enough.
        lines
            Who gives way where no market data line is free.
        """
        self._durations = durations
        self._lines = lines or Lines()
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
        self._halted: set[str] = set()
        # The request for the reference, while there is one.
        self.reference_id: int | None = None
        # Tickers that are asked for again later, with the time of when.
        self._parked: dict[str, float] = {}
        # Those of them that wait for IBKR's definitions of stocks.
        self._undefined: set[str] = set()
        # Who was given another request id because its own was in use.
        self._renumbered: set[str] = set()
        # What is known of listings, the requests for them, and when each ticker's is due again.
        self._listings = {} if listings is None else listings
        self._lookups: dict[int, Lookup] = {}
        self._verify_at: dict[str, float] = {}

    # --- What the caller wants ----------------------------------------------

    def changes(self, needed: AbstractSet[str], now: float) -> tuple[list[str], list[str]]:
        """Return the tickers to unsubscribe and to subscribe, the newest first, until just `needed`
        are."""
        added = {t for t in needed - self.active - self.rejected if not self._is_parked(t, now)}
        self._lines.keep(needed)
        return sorted(self.active - needed), self._lines.newest_first(added)

    def subscribe(self, ticker: str, now: float) -> list[Request]:
        """Subscribe a ticker; return nothing if it is, or may not be now."""
        if ticker in self.active or ticker in self.rejected or self._is_parked(ticker, now):
            return []
        if self._parked.pop(ticker, None) is not None:
            self.problems.pop(ticker, None)
        self.active.add(ticker)
        self._lines.came(ticker, now)
        return self.renew(ticker, now)

    def unsubscribe(self, ticker: str) -> list[Request]:
        """End a subscription; its line goes to the newest ticker that waits for one."""
        requests = self._end(ticker)
        if requests and (waiting := self._lines.freed()) is not None:
            self._parked[waiting] = -math.inf
        return requests

    # --- What TWS says ------------------------------------------------------

    def heard(self, req_ids: AbstractSet[int], now: float) -> bool:
        """Note the requests that had data; return whether any of them still stands."""
        known = req_ids & self.reqid_to_ticker.keys()
        if not known:
            return False
        self._heard_at.update(dict.fromkeys(known, now))
        self.last_data_at = now
        if self._silent_asks or self._without_data:
            for req_id in known:
                self._silent_asks.pop(self.reqid_to_ticker[req_id], None)
                self._without_data.discard(self.reqid_to_ticker[req_id])
        return True

    def expect(self, ticker: str, *, data: bool) -> None:
        """Note whether data of a ticker should come: none of a kind that does not count."""
        if data:
            self._without_data.discard(ticker)
        else:
            self._without_data.add(ticker)

    def set_halted(self, ticker: str, *, halted: bool) -> None:
        """Note whether a ticker's trading is halted: then it is silent with good reason."""
        if halted:
            self._halted.add(ticker)
        else:
            self._halted.discard(ticker)

    @property
    def refused(self) -> dict[str, str]:
        """The tickers that get no data, and what TWS said last against it."""
        tickers = self.rejected | self._without_data | self._parked.keys()
        return {ticker: self.problems.get(ticker, "") for ticker in tickers}

    def react(
        self, reaction: Reaction, req_id: int, now: float, *, trusted: bool = True
    ) -> list[Request]:
        """Do what a code about a request asks for.

        Parameters
        ----------
        trusted
            Whether IBKR's definitions of stocks are complete, so that a stock that it does not
            know is none.
        """
        ticker = self.reqid_to_ticker.get(req_id, "")
        if not ticker:
            return []
        if req_id in self._lookups:
            return self._react_to_lookup(reaction, req_id, now, trusted=trusted)
        match reaction:
            case Reaction.DROP_TICKER:
                return self._drop(ticker, Refusal.REFUSED)
            case Reaction.NO_DATA:
                self._without_data.add(ticker)
            case Reaction.PARK_TICKER:
                return self._park(ticker, now)
            case Reaction.NO_LINE:
                return self._without_line(ticker, now)
            case Reaction.NEW_REQUEST_ID if ticker in self._renumbered:
                return self._park(ticker, now)
            case Reaction.NEW_REQUEST_ID:
                self._renumbered.add(ticker)
                # The request that has the id is somebody's: it is not cancelled.
                return self.renew(ticker, now, cancel=False)
            case Reaction.FIND_LISTING:
                return self._find_listing(ticker, now, trusted=trusted)
        return []

    # --- Listings -----------------------------------------------------------

    def verify(self, now: float) -> list[Request]:
        """Ask for the listings of one ticker of which none is known.

        A stock listed only abroad, in USD, takes a market data request as a US one does. One at
        a time: a burst of triggers that comes right behind it finds TWS free.
        """
        asked_for = {lookup.ticker for lookup in self._lookups.values()}
        for ticker in self.ticker_to_reqid:
            known = ticker in self._listings or ticker in asked_for
            if not known and self._verify_at.get(ticker, -math.inf) <= now:
                return self._look_up(ticker, now)
        return []

    def add_listing(self, req_id: int, listing: Contract) -> None:
        """Take in one of the listings of a ticker."""
        if req_id in self._lookups:
            self._lookups[req_id].found.append(listing)

    def choose_listing(self, req_id: int, now: float, *, trusted: bool = True) -> list[Request]:
        """Choose the one to ask for: all listings of a ticker have come."""
        lookup = self._end_lookup(req_id)
        if lookup is None or lookup.ticker not in self.active:
            return []
        ticker, needed = lookup.ticker, lookup.needed
        listing, standing = lookup.choose()
        exchange = listing.primaryExchange if listing is not None else ""
        match standing:
            case Standing.FOREIGN:
                return self._drop(ticker, Refusal.FOREIGN, exchange)
            case Standing.NONE if needed:
                return self._unknown(ticker, now, trusted=trusted)
        self._listings[ticker] = listing if needed else None
        requests = self.renew(ticker, now) if needed else []
        if standing is Standing.UNKNOWN_EXCHANGE:
            return [Note(ticker, Finding.UNKNOWN_EXCHANGE, exchange), *requests]
        return [Note(ticker, Finding.CHOSEN, exchange), *requests] if needed else []

    def unanswered(self, now: float, *, in_time: bool = True) -> list[Request]:
        """Give up the requests for listings that were not answered in time; they are made again.

        Parameters
        ----------
        in_time
            False gives up all of them: a part of an answer cannot be read.
        """
        late = [
            req_id
            for req_id, lookup in self._lookups.items()
            if not in_time or now - lookup.asked_at >= self._durations.listings_s
        ]
        return [request for req_id in late for request in self._not_answered(req_id, now)]

    def definitions_back(self) -> None:
        """Let the tickers of which IBKR knew nothing be asked for at once."""
        self._verify_at.clear()
        self._parked = {t: at for t, at in self._parked.items() if t not in self._undefined}
        self._undefined.clear()

    def forget_session(self) -> None:
        """Forget what was refused, and the listings: their names may mean others tomorrow."""
        self.rejected.clear()
        self._listings.clear()

    def _react_to_lookup(
        self, reaction: Reaction, req_id: int, now: float, *, trusted: bool
    ) -> list[Request]:
        match reaction:
            case Reaction.FIND_LISTING | Reaction.DROP_TICKER:
                return self.choose_listing(req_id, now, trusted=trusted)
            case Reaction.PARK_TICKER | Reaction.NO_LINE | Reaction.NEW_REQUEST_ID:
                return self._not_answered(req_id, now)
        return []

    def _find_listing(self, ticker: str, now: float, *, trusted: bool) -> list[Request]:
        """Do what a 200 to a market data request asks for; what it means only listings say."""
        self._end_request(ticker)
        if self._listings.pop(ticker, None) is not None:
            return self._unknown(ticker, now, trusted=trusted)
        for lookup in self._lookups.values():
            if lookup.ticker == ticker:
                lookup.needed = True
                return []
        return self._look_up(ticker, now, needed=True)

    def _look_up(self, ticker: str, now: float, *, needed: bool = False) -> list[Request]:
        req_id = self._next_req_id()
        self.reqid_to_ticker[req_id] = ticker
        self._lookups[req_id] = Lookup(ticker, now, needed)
        return [FindListing(req_id, ticker)]

    def _end_lookup(self, req_id: int) -> Lookup | None:
        self.reqid_to_ticker.pop(req_id, None)
        return self._lookups.pop(req_id, None)

    def _not_answered(self, req_id: int, now: float) -> list[Request]:
        lookup = self._end_lookup(req_id)
        if lookup is None or lookup.ticker not in self.active:
            return []
        self._verify_at[lookup.ticker] = now + self._durations.parked_s
        if not lookup.needed:
            return []
        self._undefined.add(lookup.ticker)
        return [Note(lookup.ticker, Finding.UNANSWERED), *self._park(lookup.ticker, now)]

    def _unknown(self, ticker: str, now: float, *, trusted: bool) -> list[Request]:
        if trusted:
            return self._drop(ticker, Refusal.UNKNOWN)
        self._undefined.add(ticker)
        return [Note(ticker, Finding.NOT_TRUSTED), *self._park(ticker, now)]

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
        subscribe = Subscribe(req_id, ticker, self._listings.get(ticker))
        return [*(_cancel(old) if cancel else []), subscribe]

    def renew_all(self, now: float) -> list[Request]:
        """Make all requests anew: TWS lost them."""
        # There is nothing left to cancel, and each message takes its time.
        newest_first = self._lines.newest_first(self.active)
        return [r for ticker in newest_first for r in self.renew(ticker, now, cancel=False)]

    def forget_refusals(self) -> None:
        """Let the tickers that got no data be asked for: what failed at IBKR is back."""
        self._without_data.clear()

    def renew_silent(self, now: float, since_s: float) -> list[Request]:
        """Make the requests anew that had no data in the last `since_s` seconds."""
        silences = self._silences(now)
        silent = [ticker for ticker, silence_s in silences.items() if silence_s > since_s]
        newest_first = self._lines.newest_first(silent)
        return [request for ticker in newest_first for request in self.renew(ticker, now)]

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

    def still_sending(self, now: float) -> None:
        """Count silence from now on: requests wait to be sent, and nobody knows which."""
        self._heard_at.update(dict.fromkeys(self._heard_at, now))

    def _silences(self, now: float) -> dict[str, float]:
        """Return for how many seconds each subscription that could have data has had none."""
        return {
            # A request that was put here from outside counts from the first look at it.
            ticker: now - self._heard_at.setdefault(req_id, now)
            for ticker, req_id in self.ticker_to_reqid.items()
            if ticker not in self._without_data and ticker not in self._halted
        }

    @property
    def displaced(self) -> int:
        """How often a ticker gave its line to a newer one, on this connection."""
        return self._lines.displaced

    # --- The reference --------------------------------------------------------

    @property
    def awaited(self) -> bool:
        """Whether any subscription should have data."""
        return any(
            ticker not in self._without_data and ticker not in self._halted
            for ticker in self.ticker_to_reqid
        )

    def ask_reference(self, ticker: str) -> list[Request]:
        """Request a stock that is sure to have data, to see whether TWS serves any."""
        self.reference_id = self._next_req_id()
        return [SubscribeReference(self.reference_id, ticker)]

    def end_reference(self) -> list[Request]:
        """Cancel that request, if there is one."""
        reference_id, self.reference_id = self.reference_id, None
        return _cancel(reference_id)

    # --- One ticker ---------------------------------------------------------

    def _drop(self, ticker: str, why: Refusal, exchange: str = "") -> list[Request]:
        self.rejected.add(ticker)
        # TWS may hold on to it; if not, it answers with 300, which is ignored.
        cancel = self._end(ticker)
        return [*(cancel if why is Refusal.FOREIGN else []), Drop(ticker, why, exchange)]

    def _park(self, ticker: str, now: float) -> list[Request]:
        self._parked[ticker] = now + self._durations.parked_s
        # TWS may hold on to it; if not, it answers with 300, which is ignored.
        return self._end(ticker)

    def _without_line(self, ticker: str, now: float) -> list[Request]:
        """Give a ticker for which no line is free the line of another, or let it wait for one."""
        other = self._lines.giving_way(ticker, self.ticker_to_reqid, now)
        if other is None:
            return self._park(ticker, now)
        told = Note(other, Finding.DISPLACED, f"{ticker} ({self.displaced} so far)")
        return [*self._park(other, now), told, *self.renew(ticker, now)]

    def _end(self, ticker: str) -> list[Request]:
        self.active.discard(ticker)
        self._halted.discard(ticker)
        return _cancel(self._end_request(ticker))

    def _is_parked(self, ticker: str, now: float) -> bool:
        return self._parked.get(ticker, -math.inf) > now

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
