"""The book of subscriptions: no socket, no clock; what it answers is what TWS would be sent."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from ibapi.contract import Contract

from newshead.tws.codes import Reaction
from newshead.tws.durations import Durations
from newshead.tws.subscriptions import (
    FIRST_REQ_ID,
    US_EXCHANGES,
    Cancel,
    Drop,
    FindListing,
    Overdue,
    Request,
    Subscribe,
    SubscribeReference,
    Subscriptions,
)

DURATIONS = Durations(silent_s=30, max_silent_s=100, parked_s=20)


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
    book.react(Reaction.DROP_TICKER, "BAD", 0)
    book.react(Reaction.PARK_TICKER, "BUSY", 0)
    needed = {"BAD", "BUSY", "TSLA", "NVDA"}
    assert book.changes(needed, 19) == (["AAPL"], ["NVDA", "TSLA"])
    assert book.changes(needed, 20) == (["AAPL"], ["BUSY", "NVDA", "TSLA"])


# Codes


def test_a_dropped_ticker_is_rejected_and_never_asked_for_again() -> None:
    book = book_with("AAPL")
    assert book.react(Reaction.DROP_TICKER, "AAPL", 0) == [Drop("AAPL")]
    assert (book.rejected, book.active) == ({"AAPL"}, set())
    assert book.subscribe("AAPL", 1e9) == []


def test_a_parked_ticker_is_cancelled_and_asked_for_after_its_time_without_its_problem() -> None:
    book = book_with("AAPL")
    book.problems["AAPL"] = "no line is free"
    assert book.react(Reaction.PARK_TICKER, "AAPL", 5) == [Cancel(1000)]
    assert book.subscribe("AAPL", 24) == []
    assert book.problems == {"AAPL": "no line is free"}
    assert book.subscribe("AAPL", 25) == [Subscribe(1001, "AAPL")]
    assert book.problems == {}


def test_an_id_in_use_is_replaced_once_and_the_ticker_parked_the_second_time() -> None:
    book = book_with("AAPL")
    assert book.react(Reaction.NEW_REQUEST_ID, "AAPL", 0) == [Subscribe(1001, "AAPL")]
    assert book.react(Reaction.NEW_REQUEST_ID, "AAPL", 0) == [Cancel(1001)]
    assert book.subscribe("AAPL", 1) == []


@pytest.mark.parametrize("reaction", [Reaction.NONE, Reaction.SLOW_DOWN])
def test_a_code_that_is_no_ticker_s_fault_asks_for_nothing(reaction: Reaction) -> None:
    assert book_with("AAPL").react(reaction, "AAPL", 0) == []


# Listings


@pytest.mark.parametrize("exchange", sorted(US_EXCHANGES))
def test_an_ambiguous_ticker_is_subscribed_by_its_us_listing_from_then_on(exchange: str) -> None:
    book = book_with("AAPL")
    assert book.react(Reaction.FIND_LISTING, "AAPL", 0) == [FindListing(1001, "AAPL")]
    us = listing(exchange)
    for each in (listing("EBS"), us, listing("LSE")):
        book.add_listing(1001, each)
    assert book.choose_listing(1001, 1) == [Subscribe(1002, "AAPL", us)]
    assert book.renew_all(2) == [Subscribe(1003, "AAPL", us)]


def test_a_ticker_without_a_us_listing_is_dropped() -> None:
    book = book_with("AAPL")
    book.react(Reaction.FIND_LISTING, "AAPL", 0)
    book.add_listing(1001, listing("EBS"))
    assert book.choose_listing(1001, 1) == [Drop("AAPL", foreign=True)]
    assert book.rejected == {"AAPL"}


def test_a_us_listing_that_is_ambiguous_too_is_dropped() -> None:
    book = book_with("AAPL")
    book.react(Reaction.FIND_LISTING, "AAPL", 0)
    assert book.react(Reaction.FIND_LISTING, "AAPL", 0) == [Drop("AAPL", foreign=True)]


def test_a_listing_found_after_the_ticker_is_over_asks_for_nothing() -> None:
    book = book_with("AAPL")
    book.react(Reaction.FIND_LISTING, "AAPL", 0)
    book.unsubscribe("AAPL")
    book.add_listing(1001, listing("NYSE"))
    assert book.choose_listing(1001, 1) == []


def test_listings_that_nobody_asked_for_are_ignored() -> None:
    book = book_with("AAPL")
    book.add_listing(1000, listing("NYSE"))
    assert book.choose_listing(1000, 1) == []
    assert book.reqid_to_ticker == {1000: "AAPL"}


def test_listings_whose_request_was_taken_out_from_outside_are_ignored() -> None:
    book = book_with("AAPL")
    book.react(Reaction.FIND_LISTING, "AAPL", 0)
    book.reqid_to_ticker = {}
    assert book.choose_listing(1001, 1) == []


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
    assert book.react(Reaction.NO_DATA, "AAPL", 0) == []
    book.heard({1001}, 1000)
    assert book.renew_overdue(1000) == []
    assert book.renew_silent(1000, 2) == []
    assert book.active == {"AAPL", "MSFT"}


def test_data_is_awaited_while_any_subscription_could_have_some() -> None:
    book = Subscriptions(DURATIONS)
    assert not book.awaited
    book = book_with("AAPL", "MSFT")
    book.react(Reaction.NO_DATA, "AAPL", 0)
    assert book.awaited
    book.react(Reaction.NO_DATA, "MSFT", 0)
    assert not book.awaited


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
    [Reaction.DROP_TICKER, Reaction.NO_DATA, Reaction.PARK_TICKER, Reaction.NEW_REQUEST_ID]
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
            ticker = self.book.reqid_to_ticker[req_id]
            if reaction is not Reaction.NO_DATA:
                del self.lines[req_id]
            self.send(self.book.react(reaction, ticker, self.now))

    @rule()
    def tws_refuses_what_is_ambiguous(self) -> None:
        refused, self.refused = self.refused, []
        for req_id in refused:
            ticker = self.book.reqid_to_ticker.get(req_id)
            if ticker is not None:
                self.send(self.book.react(Reaction.FIND_LISTING, ticker, self.now))

    @rule(exchange=st.sampled_from(["NASDAQ", "EBS"]))
    def tws_answers_with_listings(self, exchange: str) -> None:
        questions, self.questions = self.questions, {}
        for req_id in questions:
            self.book.add_listing(req_id, listing("LSE"))
            self.book.add_listing(req_id, listing(exchange))
            self.send(self.book.choose_listing(req_id, self.now))

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
    def every_active_ticker_has_the_one_request_that_its_id_leads_back_to(self) -> None:
        book = self.book
        assert book.ticker_to_reqid.keys() == book.active
        assert {t: book.reqid_to_ticker[r] for t, r in book.ticker_to_reqid.items()} == {
            ticker: ticker for ticker in book.active
        }

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
