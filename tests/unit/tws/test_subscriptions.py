"""The book of subscriptions: no socket, no clock; what it answers is what TWS would be sent."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from ibapi.contract import Contract

from newshead.tws.codes import Reaction
from newshead.tws.durations import Durations
from newshead.tws.lines import Lines
from newshead.tws.listings import US_EXCHANGES, Finding, Refusal
from newshead.tws.subscriptions import (
    FIRST_REQ_ID,
    Cancel,
    Drop,
    FindListing,
    Note,
    Overdue,
    Request,
    Subscribe,
    SubscribeReference,
    Subscriptions,
)

DURATIONS = Durations(silent_s=30, max_silent_s=100, parked_s=20, listings_s=10)


def listing(exchange: str) -> Any:
    contract = Contract()
    contract.primaryExchange = exchange
    return contract


def book_with(*tickers: str) -> Subscriptions:
    """A book whose tickers were subscribed at 0, as request ids 1000, 1001, …"""
    book = Subscriptions(DURATIONS)
    for ticker in tickers:
        book.subscribe(ticker, 0)
    return book


# Subscribing


def test_a_ticker_is_subscribed_under_the_next_id() -> None:
    book = Subscriptions(DURATIONS)
    assert book.subscribe("AAPL", 0) == [Subscribe(1000, "AAPL")]
    assert book.subscribe("MSFT", 0) == [Subscribe(1001, "MSFT")]
    assert book.reqid_to_ticker == {1000: "AAPL", 1001: "MSFT"}
    assert book.ticker_to_reqid == {"AAPL": 1000, "MSFT": 1001}
    assert book.active == {"AAPL", "MSFT"}


def test_a_subscribed_ticker_is_not_asked_for_again() -> None:
    assert book_with("AAPL").subscribe("AAPL", 1) == []


def test_an_ended_subscription_is_cancelled_once_and_forgotten() -> None:
    book = book_with("AAPL")
    assert book.unsubscribe("AAPL") == [Cancel(1000)]
    assert book.unsubscribe("AAPL") == []
    assert (book.reqid_to_ticker, book.ticker_to_reqid, book.active) == ({}, {}, set())


def test_the_changes_leave_out_what_was_rejected_or_is_parked() -> None:
    book = book_with("AAPL", "BAD", "BUSY")
    book.react(Reaction.DROP_TICKER, 1001, 0)
    book.react(Reaction.PARK_TICKER, 1002, 0)
    needed = {"BAD", "BUSY", "TSLA", "NVDA"}
    assert book.changes(needed, 19) == (["AAPL"], ["NVDA", "TSLA"])
    # The newest first: those that were never asked for.
    assert book.changes(needed, 20) == (["AAPL"], ["NVDA", "TSLA", "BUSY"])


# Codes


def test_a_dropped_ticker_is_rejected_and_never_asked_for_again() -> None:
    book = book_with("AAPL")
    assert book.react(Reaction.DROP_TICKER, 1000, 0) == [Drop("AAPL", Refusal.REFUSED)]
    assert (book.rejected, book.active) == ({"AAPL"}, set())
    assert book.subscribe("AAPL", 1e9) == []


def test_a_parked_ticker_is_cancelled_and_asked_for_after_its_time_without_its_problem() -> None:
    book = book_with("AAPL")
    book.problems["AAPL"] = "no line is free"
    assert book.react(Reaction.PARK_TICKER, 1000, 5) == [Cancel(1000)]
    assert book.subscribe("AAPL", 24) == []
    assert book.problems == {"AAPL": "no line is free"}
    assert book.subscribe("AAPL", 25) == [Subscribe(1001, "AAPL")]
    assert book.problems == {}


def test_an_id_in_use_is_replaced_once_and_the_ticker_parked_the_second_time() -> None:
    book = book_with("AAPL")
    assert book.react(Reaction.NEW_REQUEST_ID, 1000, 0) == [Subscribe(1001, "AAPL")]
    assert book.react(Reaction.NEW_REQUEST_ID, 1001, 0) == [Cancel(1001)]
    assert book.subscribe("AAPL", 1) == []


@pytest.mark.parametrize("reaction", [Reaction.NONE, Reaction.SLOW_DOWN])
def test_a_code_that_is_no_ticker_s_fault_asks_for_nothing(reaction: Reaction) -> None:
    assert book_with("AAPL").react(reaction, 1000, 0) == []


def test_a_code_about_a_request_that_is_over_asks_for_nothing() -> None:
    book = book_with("AAPL")
    assert book.react(Reaction.DROP_TICKER, 7, 0) == []
    assert book.active == {"AAPL"}


# Listings


def asked_for_listings(*exchanges: str) -> Subscriptions:
    """A book whose AAPL was answered with a 200 at 0, and whose listings have come."""
    book = book_with("AAPL")
    assert book.react(Reaction.FIND_LISTING, 1000, 0) == [FindListing(1001, "AAPL")]
    for exchange in exchanges:
        book.add_listing(1001, listing(exchange))
    return book


@pytest.mark.parametrize("exchange", sorted(US_EXCHANGES))
def test_a_ticker_is_subscribed_by_its_us_listing_from_then_on(exchange: str) -> None:
    book = asked_for_listings("EBS", "OTCLNK")
    us = listing(exchange)
    for each in (us, listing("LSE")):
        book.add_listing(1001, each)
    subscribe = Subscribe(1002, "AAPL", us)
    assert book.choose_listing(1001, 1) == [Note("AAPL", Finding.CHOSEN, exchange), subscribe]
    assert book.renew_all(2) == [Subscribe(1003, "AAPL", us)]


def test_listings_that_are_known_from_an_earlier_connection_are_asked_for_at_once() -> None:
    listings = {"AAPL": listing("NASDAQ")}
    book = Subscriptions(DURATIONS, listings)
    assert book.subscribe("AAPL", 0) == [Subscribe(1000, "AAPL", listings["AAPL"])]
    assert book.verify(1) == []
    book.forget_session()
    assert listings == {}


def test_of_unknown_exchanges_the_first_is_asked_for_and_named() -> None:
    book = asked_for_listings("EBS", "OTCLNK")
    note, subscribe = book.choose_listing(1001, 1)
    assert note == Note("AAPL", Finding.UNKNOWN_EXCHANGE, "OTCLNK")
    assert isinstance(subscribe, Subscribe)
    assert subscribe.listing is not None


def test_a_ticker_that_is_listed_abroad_alone_is_dropped_and_its_exchange_named() -> None:
    book = asked_for_listings("EBS", "LSE")
    assert book.choose_listing(1001, 1) == [Drop("AAPL", Refusal.FOREIGN, "EBS")]
    assert book.rejected == {"AAPL"}


@pytest.mark.parametrize("answer", ["none", "refused"])
def test_a_ticker_without_any_listing_is_unknown(answer: str) -> None:
    book = asked_for_listings()
    if answer == "none":
        requests = book.choose_listing(1001, 1)
    else:
        requests = book.react(Reaction.FIND_LISTING, 1001, 1)
    assert requests == [Drop("AAPL", Refusal.UNKNOWN)]
    assert (book.rejected, book.reqid_to_ticker) == ({"AAPL"}, {})


def test_an_unknown_ticker_is_asked_for_again_while_definitions_are_not_complete() -> None:
    book = asked_for_listings()
    requests = book.react(Reaction.FIND_LISTING, 1001, 1, trusted=False)
    assert requests == [Note("AAPL", Finding.NOT_TRUSTED)]
    assert book.subscribe("AAPL", 20.9) == []
    assert book.subscribe("AAPL", 21) == [Subscribe(1002, "AAPL")]
    assert book.react(Reaction.FIND_LISTING, 1002, 22) == [FindListing(1003, "AAPL")]
    assert book.react(Reaction.FIND_LISTING, 1003, 23) == [Drop("AAPL", Refusal.UNKNOWN)]


def test_what_is_unknown_may_be_asked_for_at_once_when_definitions_are_back() -> None:
    book = book_with("AAPL", "BUSY")
    book.react(Reaction.PARK_TICKER, 1001, 0)
    book.react(Reaction.FIND_LISTING, 1000, 0)
    book.react(Reaction.FIND_LISTING, 1002, 1, trusted=False)
    book.definitions_back()
    assert book.changes({"AAPL", "BUSY"}, 2) == ([], ["AAPL"])


@pytest.mark.parametrize("how", ["in silence", "with an error"])
def test_listings_that_do_not_come_are_asked_for_again(how: str) -> None:
    book = asked_for_listings()
    assert book.unanswered(9.9) == []
    if how == "in silence":
        requests = book.unanswered(10)
    else:
        requests = book.react(Reaction.PARK_TICKER, 1001, 10)
    assert requests == [Note("AAPL", Finding.UNANSWERED)]
    assert book.choose_listing(1001, 11) == []
    assert book.subscribe("AAPL", 30) == [Subscribe(1002, "AAPL")]


def test_a_us_listing_that_is_refused_too_is_unknown() -> None:
    book = asked_for_listings("NYSE")
    book.choose_listing(1001, 0)
    assert book.react(Reaction.FIND_LISTING, 1002, 1) == [Drop("AAPL", Refusal.UNKNOWN)]


def test_a_ticker_that_is_renewed_while_its_listings_are_asked_for_keeps_one_request() -> None:
    book = asked_for_listings("NYSE")
    assert book.renew_all(1) == [Subscribe(1002, "AAPL")]
    assert book.react(Reaction.FIND_LISTING, 1002, 1) == []
    _, subscribe = book.choose_listing(1001, 2)
    assert isinstance(subscribe, Subscribe)
    assert book.ticker_to_reqid == {"AAPL": subscribe.req_id}


def test_each_ticker_has_a_request_for_its_own_listings() -> None:
    book = book_with("AAPL", "MSFT")
    assert book.react(Reaction.FIND_LISTING, 1000, 0) == [FindListing(1002, "AAPL")]
    assert book.react(Reaction.FIND_LISTING, 1001, 0) == [FindListing(1003, "MSFT")]


def test_a_code_that_says_nothing_of_listings_leaves_their_request_alone() -> None:
    book = asked_for_listings("NYSE")
    assert book.react(Reaction.NO_DATA, 1001, 1) == []
    assert len(book.choose_listing(1001, 2)) == 2


def test_listings_found_after_the_ticker_is_over_ask_for_nothing() -> None:
    book = asked_for_listings("NYSE")
    book.unsubscribe("AAPL")
    assert book.choose_listing(1001, 1) == []
    book = asked_for_listings()
    book.unsubscribe("AAPL")
    assert book.unanswered(10) == []


def test_listings_of_which_a_part_cannot_be_read_are_asked_for_again() -> None:
    book = asked_for_listings("NYSE")
    assert book.unanswered(1, in_time=False) == [Note("AAPL", Finding.UNANSWERED)]
    assert book.choose_listing(1001, 2) == []
    assert book.subscribe("AAPL", 21) == [Subscribe(1002, "AAPL")]


def test_listings_that_nobody_asked_for_are_ignored() -> None:
    book = book_with("AAPL")
    book.add_listing(1000, listing("NYSE"))
    assert book.choose_listing(1000, 1) == []


# Listings of tickers that have data


def test_each_ticker_s_listings_are_asked_for_once_and_one_at_a_time() -> None:
    book = book_with("AAPL", "MSFT")
    (first,), (second,) = book.verify(1), book.verify(2)
    for request, ticker in ((first, "AAPL"), (second, "MSFT")):
        assert isinstance(request, FindListing)
        assert request.ticker == ticker
        book.add_listing(request.req_id, listing("NASDAQ"))
        assert book.choose_listing(request.req_id, 3) == []
    assert book.verify(4) == []


def test_a_ticker_with_data_that_is_listed_abroad_alone_is_dropped_and_cancelled() -> None:
    book = book_with("AAPL")
    book.verify(1)
    book.add_listing(1001, listing("LSE"))
    drop = Drop("AAPL", Refusal.FOREIGN, "LSE")
    assert book.choose_listing(1001, 2) == [Cancel(1000), drop]


def test_a_ticker_with_data_on_an_unknown_exchange_keeps_its_request() -> None:
    book = book_with("AAPL")
    book.verify(1)
    book.add_listing(1001, listing("OTCLNK"))
    assert book.choose_listing(1001, 2) == [Note("AAPL", Finding.UNKNOWN_EXCHANGE, "OTCLNK")]
    assert book.ticker_to_reqid == {"AAPL": 1000}


def test_a_ticker_with_data_whose_listings_do_not_come_is_verified_later() -> None:
    book = book_with("AAPL")
    book.verify(1)
    assert book.unanswered(11) == []
    assert book.verify(30.9) == []
    assert book.verify(31) == [FindListing(1002, "AAPL")]
    book.react(Reaction.FIND_LISTING, 1002, 32)
    assert (book.active, book.verify(60)) == ({"AAPL"}, [])


def test_a_new_session_asks_for_what_was_refused() -> None:
    book = book_with("AAPL")
    book.react(Reaction.DROP_TICKER, 1000, 0)
    book.forget_session()
    assert book.subscribe("AAPL", 1) == [Subscribe(1001, "AAPL")]


# Lines


def test_the_newest_headline_gets_the_line_of_the_stock_that_waits_longest_for_a_trade() -> None:
    book = Subscriptions(DURATIONS, lines=Lines(has_traded={"OPEN"}.__contains__))
    for now, ticker in enumerate(("OPEN", "OLD", "MID", "NEW")):
        book.subscribe(ticker, now)
    assert book.react(Reaction.NO_LINE, 1003, 10) == [
        Cancel(1001),
        Note("OLD", Finding.DISPLACED, "NEW (1 so far)"),
        Cancel(1003),
        Subscribe(1004, "NEW"),
    ]
    # Who has just been given one and has none all the same takes no other.
    assert book.react(Reaction.NO_LINE, 1004, 11) == [Cancel(1004)]
    needed = {"OPEN", "OLD", "MID", "NEW"}
    assert book.changes(needed, 12) == ([], [])
    # A line that becomes free is the newest one's.
    assert book.unsubscribe("MID") == [Cancel(1002)]
    needed.remove("MID")
    assert book.changes(needed, 13) == ([], ["NEW"])
    assert book.subscribe("NEW", 13) == [Subscribe(1005, "NEW")]
    # The displaced one comes back, and takes nothing of a newer one.
    assert book.changes(needed, 30) == ([], ["OLD"])
    assert book.subscribe("OLD", 30) == [Subscribe(1006, "OLD")]
    assert book.react(Reaction.NO_LINE, 1006, 31) == [Cancel(1006)]
    assert book.unsubscribe("OPEN") == [Cancel(1000)]
    assert book.changes({"OLD", "NEW"}, 32) == ([], ["OLD"])


def test_a_request_that_has_not_left_yet_is_not_overdue() -> None:
    book = book_with("AAPL", "MSFT")
    book.heard({1000}, 39)
    book.still_sending(39)
    assert book.renew_overdue(40) == []
    assert [each.ticker for each in book.renew_overdue(69)] == ["AAPL", "MSFT"]


# Asking again


def test_lost_subscriptions_are_all_asked_for_again_in_order_and_none_is_cancelled() -> None:
    book = book_with("MSFT", "AAPL")
    assert book.renew_all(1) == [Subscribe(1002, "AAPL"), Subscribe(1003, "MSFT")]
    assert book.reqid_to_ticker == {1002: "AAPL", 1003: "MSFT"}


def test_what_has_been_silent_since_data_is_back_is_asked_for_again() -> None:
    book = book_with("AAPL", "MSFT")
    assert book.heard({1001}, 9)
    assert book.renew_silent(10, 2) == [Cancel(1000), Subscribe(1002, "AAPL")]
    assert book.renew_silent(11, 2) == []


def test_data_counts_for_requests_that_still_stand_alone() -> None:
    book = book_with("AAPL")
    assert not book.heard({7}, 5)
    assert not book.heard(set(), 5)
    assert book.last_data_at < 0
    assert book.heard({7, 1000}, 6)
    assert book.last_data_at == 6


def test_a_silent_ticker_is_asked_for_after_twice_the_pause_each_time_until_it_has_data() -> None:
    book = book_with("MSFT", "AAPL")
    asked_at = []
    for now in range(400):
        book.heard({book.ticker_to_reqid["MSFT"]}, now)
        for ticker, silence_s, requests in book.renew_overdue(now):
            assert ticker == "AAPL"
            req_id = book.ticker_to_reqid["AAPL"]
            assert requests == [Cancel(req_id - 1), Subscribe(req_id, "AAPL")]
            asked_at.append((now, silence_s))
    # 30, twice that, and no more than max_silent_s.
    assert asked_at == [(30, 30), (90, 60), (190, 100), (290, 100), (390, 100)]
    req_id = book.ticker_to_reqid["AAPL"]
    book.heard({req_id}, 400)
    book.heard({book.ticker_to_reqid["MSFT"]}, 430)
    again: list[Request] = [Cancel(req_id), Subscribe(req_id + 1, "AAPL")]
    assert book.renew_overdue(430) == [Overdue("AAPL", 30, again)]


def test_none_is_overdue_where_none_has_data() -> None:
    book = book_with("AAPL", "MSFT")
    assert book.renew_overdue(1000) == []
    book.heard({1001}, 1000)
    assert book.renew_overdue(1031) == []


def test_a_ticker_that_gets_no_data_anyway_is_not_overdue() -> None:
    book = book_with("AAPL", "MSFT")
    assert book.react(Reaction.NO_DATA, 1000, 0) == []
    book.heard({1001}, 1000)
    assert book.renew_overdue(1000) == []
    assert book.renew_silent(1000, 2) == []
    assert book.active == {"AAPL", "MSFT"}
    book.forget_refusals()
    assert book.renew_silent(1001, 2) == [Cancel(1000), Subscribe(1002, "AAPL")]


def test_data_is_awaited_while_any_subscription_could_have_some() -> None:
    book = Subscriptions(DURATIONS)
    assert not book.awaited
    book = book_with("AAPL", "MSFT")
    book.react(Reaction.NO_DATA, 1000, 0)
    assert book.awaited
    book.set_halted("MSFT", halted=True)
    assert not book.awaited
    book.set_halted("MSFT", halted=False)
    assert book.awaited


def test_a_ticker_whose_data_does_not_count_is_not_awaited_until_it_has_some_that_does() -> None:
    book = book_with("AAPL")
    book.expect("AAPL", data=False)
    assert (book.awaited, book.refused) == (False, {"AAPL": ""})
    book.heard({1000}, 1)
    assert (book.awaited, book.refused) == (True, {})
    book.expect("AAPL", data=False)
    book.expect("AAPL", data=True)
    assert book.awaited


def test_the_refused_tickers_come_with_what_tws_said() -> None:
    book = book_with("BAD", "BUSY", "AAPL")
    book.problems |= {"BAD": "unknown", "BUSY": "no line"}
    book.react(Reaction.DROP_TICKER, 1000, 0)
    book.react(Reaction.PARK_TICKER, 1001, 0)
    assert book.refused == {"BAD": "unknown", "BUSY": "no line"}


def test_the_reference_has_an_id_of_its_own_makes_no_ticker_active_and_is_cancelled_once() -> None:
    book = book_with("AAPL")
    assert book.ask_reference("SPY") == [SubscribeReference(1001, "SPY")]
    assert (book.reference_id, book.active) == (1001, {"AAPL"})
    assert not book.heard({1001}, 5)
    assert book.end_reference() == [Cancel(1001)]
    assert book.reference_id is None
    assert book.end_reference() == []
    assert book.subscribe("MSFT", 6) == [Subscribe(1002, "MSFT")]


# Changed from outside


def test_what_is_put_into_the_book_or_assigned_is_what_it_works_on() -> None:
    book = Subscriptions(DURATIONS)
    book.reqid_to_ticker = {7: "AAPL"}
    book.ticker_to_reqid["AAPL"] = 7
    book.active = {"AAPL", "MSFT"}
    book.next_req_id = 50
    assert book.heard({7}, 1)
    assert book.subscribe("AAPL", 1) == []
    assert book.renew("AAPL", 2) == [Cancel(7), Subscribe(50, "AAPL")]
    assert book.unsubscribe("MSFT") == []
    assert book.active == {"AAPL"}


def test_a_request_that_was_put_there_for_a_ticker_that_is_not_active_is_not_renewed() -> None:
    book = Subscriptions(DURATIONS)
    book.ticker_to_reqid["AAPL"] = 7
    assert book.renew("AAPL", 1) == []


def test_a_request_from_outside_is_silent_from_the_first_look_at_it_on() -> None:
    book = book_with("MSFT")
    book.active.add("AAPL")
    book.ticker_to_reqid["AAPL"] = 7
    book.heard({1000}, 100)
    assert book.renew_overdue(100) == []
    book.heard({1000}, 130)
    assert book.renew_overdue(130) == [Overdue("AAPL", 30, [Cancel(7), Subscribe(1001, "AAPL")])]


# Whatever happens

TICKERS = ["AAPL", "MSFT", "TSLA"]
# This one is ambiguous at TWS, which takes no request for it but by a listing.
AMBIGUOUS = "TSLA"
reactions = st.sampled_from(
    [
        *(Reaction.DROP_TICKER, Reaction.NO_DATA, Reaction.PARK_TICKER),
        *(Reaction.NEW_REQUEST_ID, Reaction.NO_LINE),
    ]
)


class Histories(RuleBasedStateMachine):
    """The book beside a TWS that does what it is sent, through any order of calls and codes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.book = Subscriptions(DURATIONS)
        # What TWS serves and what it was asked and has not answered; by request id.
        self.lines: dict[int, str] = {}
        self.questions: dict[int, str] = {}
        self.refused: list[int] = []
        self.asked: list[int] = []
        self.cancelled: list[int] = []
        self.dropped: set[str] = set()

    def send(self, requests: list[Request]) -> None:
        for request in requests:
            match request:
                case Subscribe(req_id, ticker, found):
                    self.asked.append(req_id)
                    if ticker == AMBIGUOUS and found is None:
                        self.refused.append(req_id)
                    else:
                        self.lines[req_id] = ticker
                case Cancel(req_id):
                    self.cancelled.append(req_id)
                    self.lines.pop(req_id, None)
                case FindListing(req_id, ticker):
                    self.asked.append(req_id)
                    self.questions[req_id] = ticker
                case Drop(ticker):
                    self.dropped.add(ticker)
                case Note():
                    pass

    @rule(seconds=st.sampled_from([1.0, 10.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(ticker=st.sampled_from(TICKERS))
    def one_is_wanted(self, ticker: str) -> None:
        self.send(self.book.subscribe(ticker, self.now))

    @rule(needed=st.sets(st.sampled_from(TICKERS)))
    def some_are_wanted_and_no_others(self, needed: set[str]) -> None:
        removed, added = self.book.changes(needed, self.now)
        for ticker in removed:
            self.send(self.book.unsubscribe(ticker))
        for ticker in added:
            requests = self.book.subscribe(ticker, self.now)
            assert requests
            self.send(requests)
        assert self.book.active <= needed

    @rule(heard=st.sets(st.integers(FIRST_REQ_ID, FIRST_REQ_ID + 20)))
    def data_comes(self, heard: set[int]) -> None:
        self.book.heard(heard & self.lines.keys(), self.now)

    @rule(reaction=reactions, data=st.data())
    def a_code_comes(self, reaction: Reaction, data: st.DataObject) -> None:
        if self.lines:
            req_id = data.draw(st.sampled_from(sorted(self.lines)))
            if reaction is not Reaction.NO_DATA:
                del self.lines[req_id]
            self.send(self.book.react(reaction, req_id, self.now))

    @rule(trusted=st.booleans())
    def tws_refuses_what_is_ambiguous(self, trusted: bool) -> None:
        refused, self.refused = self.refused, []
        for req_id in refused:
            requests = self.book.react(Reaction.FIND_LISTING, req_id, self.now, trusted=trusted)
            self.send(requests)

    @rule()
    def listings_are_verified(self) -> None:
        self.send(self.book.verify(self.now))

    @rule()
    def listings_that_do_not_come_are_given_up(self) -> None:
        self.send(self.book.unanswered(self.now))

    @rule(exchange=st.sampled_from(["NASDAQ", "EBS", "OTCLNK", ""]), trusted=st.booleans())
    def tws_answers_with_listings(self, exchange: str, trusted: bool) -> None:
        questions, self.questions = self.questions, {}
        for req_id in questions:
            if exchange:
                self.book.add_listing(req_id, listing("LSE"))
                self.book.add_listing(req_id, listing(exchange))
            self.send(self.book.choose_listing(req_id, self.now, trusted=trusted))

    @rule()
    def the_session_rolls(self) -> None:
        self.book.forget_session()
        self.dropped.clear()

    @rule()
    def tws_loses_all(self) -> None:
        self.lines.clear()
        self.send(self.book.renew_all(self.now))

    @rule(since_s=st.sampled_from([2.0, 20.0]))
    def data_is_back(self, since_s: float) -> None:
        self.send(self.book.renew_silent(self.now, since_s))

    @rule()
    def the_silent_are_looked_for(self) -> None:
        for _, silence_s, requests in self.book.renew_overdue(self.now):
            assert silence_s >= DURATIONS.silent_s
            self.send(requests)

    @invariant()
    def every_active_ticker_has_one_request_for_data_or_for_its_listings(self) -> None:
        book = self.book
        assert {book.reqid_to_ticker[r] for r in book.ticker_to_reqid.values()} == set(
            book.ticker_to_reqid
        )
        assert book.ticker_to_reqid.keys() <= book.active
        assert book.active <= set(book.reqid_to_ticker.values())

    @invariant()
    def tws_serves_no_line_that_the_book_does_not_know(self) -> None:
        assert {t: r for r, t in self.lines.items()}.items() <= self.book.ticker_to_reqid.items()
        assert len(set(self.lines.values())) == len(self.lines)

    @invariant()
    def no_id_is_used_twice_and_none_cancelled_twice_or_unasked(self) -> None:
        assert len(set(self.asked)) == len(self.asked)
        assert len(set(self.cancelled)) == len(self.cancelled)
        assert set(self.cancelled) <= set(self.asked)

    @invariant()
    def what_was_dropped_stays_away(self) -> None:
        assert self.book.rejected == self.dropped
        assert not self.book.rejected & self.book.active


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
