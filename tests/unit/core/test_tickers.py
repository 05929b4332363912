"""The book of tickers: one window each in a session, and nothing of it is forgotten."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from newshead.core.tickers import (
    MAX_TRACKED_S,
    MAX_UNSEEN,
    Answer,
    TickerBook,
    ibkr_name,
    parse_ticker,
    spellings,
)

START = datetime(2026, 11, 25, 15, 0, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def tracking(*tickers: str) -> TickerBook:
    book = TickerBook()
    for ticker in tickers:
        book.track(ticker, START)
    return book


def test_a_ticker_in_the_news_is_tracked_with_the_time_of_its_last_trigger() -> None:
    book = TickerBook()
    assert book.idle
    assert book.answer("ABCD", set()) is Answer.TRACK
    book.track("ABCD", at(0))
    book.track("ABCD", at(5))
    assert (book.active, book.since) == ({"ABCD"}, {"ABCD": at(5)})
    assert not book.idle


def test_a_window_that_is_over_leaves_its_outcome_to_tell_and_takes_no_trigger() -> None:
    book = tracking("ABCD", "EFGH")
    book.end_windows({"ABCD": at(0)})
    assert (book.active, set(book.since)) == ({"EFGH"}, {"EFGH"})
    assert book.untold == {"ABCD"}
    assert book.answer("ABCD", set()) is Answer.ENDED


def test_a_ticker_is_judged_once_its_newest_row_is_seen() -> None:
    book = TickerBook()
    book.await_row("ABCD", 100)
    book.await_row("ABCD", 102)
    book.await_row("EFGH", 100)
    assert book.judge({"ABCD"}, {"ABCD": 100, "EFGH": 100}) == []
    assert set(book.unjudged) == {"ABCD", "EFGH"}
    assert book.judge({"ABCD", "EFGH"}, {"ABCD": 102, "EFGH": 100}) == []
    assert book.idle


def test_a_row_that_is_never_seen_is_given_up_and_named() -> None:
    book = TickerBook()
    book.await_row("GONE", 100)
    for _ in range(MAX_UNSEEN - 1):
        assert book.judge({"GONE"}, {}) == []
    book.await_row("GONE", 102)
    for _ in range(MAX_UNSEEN - 1):
        assert book.judge({"GONE"}, {"GONE": 100}) == []
    assert book.judge({"GONE"}, {"GONE": 100}) == ["GONE"]
    assert book.idle


def test_a_window_is_told_once_however_often_the_database_names_it() -> None:
    book = tracking("ABCD")
    book.end_windows({"ABCD": at(0)})
    book.untold.clear()
    book.end_windows({"ABCD": at(0)})
    assert book.untold == set()
    assert book.idle


def test_a_stock_is_left_out_as_long_as_ibkr_does_not_know_it() -> None:
    book = tracking("ABCD")
    assert book.answer("ABCD", {"ABCD"}) is Answer.UNKNOWN
    book.reject({"ABCD", "WXYZ"})
    assert (book.active, book.since) == (set(), {})
    assert book.answer("ABCD", set()) is Answer.TRACK


def test_after_half_an_hour_a_ticker_is_dropped_and_told() -> None:
    book = tracking("ABCD")
    book.track("EFGH", at(1))
    book.drop_old(at(MAX_TRACKED_S + 1))
    assert (book.active, book.untold) == ({"EFGH"}, {"ABCD"})


def test_a_row_is_inside_up_to_the_sixtieth_second_from_the_first() -> None:
    book = tracking("ABCD")
    assert book.in_window("ABCD", at(10_000).timestamp())
    book.end_windows({"ABCD": at(0)})
    assert book.in_window("ABCD", at(60).timestamp())
    assert not book.in_window("ABCD", at(60.001).timestamp())


def test_what_is_held_back_is_named_once_in_a_session() -> None:
    book = TickerBook()
    assert book.first_held_back({"B", "A"}) == ["A", "B"]
    assert book.first_held_back({"A", "C"}) == ["C"]
    book.roll()
    assert book.first_held_back({"A"}) == ["A"]


def test_after_the_roll_a_ticker_may_have_its_window_again() -> None:
    book = tracking("ABCD")
    book.end_windows({"ABCD": at(0)})
    book.roll()
    assert book.answer("ABCD", set()) is Answer.TRACK


def test_the_sets_may_be_replaced_from_outside() -> None:
    book = tracking("ABCD")
    book.active = {"EFGH"}
    book.since = {"EFGH": at(3)}
    book.end_windows({"EFGH": at(3)})
    assert (book.active, book.since) == (set(), {})


@pytest.mark.parametrize(
    ("value", "ticker"),
    [
        ("AAPL", "AAPL"),
        ("A", "A"),
        ("ABCDEF", "ABCDEF"),
        ("aapl", "AAPL"),
        (" AAPL\n", "AAPL"),
        ("brk.b", "BRK.B"),
        ("BRK/B", "BRK/B"),
        ("BRK B", "BRK B"),
        ("BRK-B", "BRK-B"),
        ("ABC.WSA", "ABC.WSA"),
        ("X1", "X1"),
        ("BACpL", "BACpL"),
        ("bac-pl", "BAC-PL"),
        ("BAC.PR.L", "BAC.PR.L"),
        ("ABC+", "ABC+"),
        ("ABC^", "ABC^"),
        ("ABC=", "ABC="),
    ],
)
def test_a_ticker_is_recognised(value: str, ticker: str) -> None:
    assert parse_ticker(value) == ticker


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "ABCDEFG",
        "A" * 100_000,
        "BRK.ABCD",
        "BRK.",
        ".B",
        "BRK..B",
        "BRK  B",
        "BRK.B.C",
        "BAC.PR.",
        "ABC++",
        "+",
        "BRK.1",
        "BRK_B",
        "1ABC",
        "123",
        "AAPL\0",
        "AA\nPL",
        "AAPL\nMSFT",
        "A'B",
        "'; DROP TABLE News.news_alert; --",
        "x') OR 1=1 --",
        "../../etc/passwd",
        "/etc",
        "..",
        "$AAPL",
        "\u0410APL",  # Cyrillic A
        "\u0131BM",  # dotless i: upper() makes it I
        "\uff21\uff21\uff30\uff2c",  # fullwidth
        "\u017fPY",  # long s: upper() makes it S
        "\ufb01",  # fi ligature: upper() makes it FI
        "A\u0301",
        "AAPL\u200b",
        "\u00a0AAPL",
        "A\u0661",
        None,
        0,
        7,
        1.5,
        True,
        b"AAPL",
        ["AAPL"],
        {"ticker": "AAPL"},
    ],
)
def test_what_can_be_no_ticker_is_refused(value: object) -> None:
    assert parse_ticker(value) is None


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("AAPL", "AAPL"),
        ("BRK B", "BRK.B BRK/B BRK-B"),
        ("BAC PRL", "BAC-PL BACpL BAC.PR.L BAC-PRL BAC/PL BAC.PL"),
        ("BAC PR", "BAC.PR BAC-PR"),
        ("ABC WS", "ABC-WT ABC.WS ABC/WS ABC+ ABC.WT"),
        ("ABC RT", "ABC-RT ABC.RT ABC^"),
        ("ABC U", "ABC.U ABC/U ABC="),
        ("CCIV U", "CCIV="),
        ("ABC WSA", "ABC.WSA"),
    ],
)
def test_all_spellings_of_a_security_have_ibkrs_name(name: str, others: str) -> None:
    every = {name, *others.split()}
    assert {ibkr_name(ticker) for ticker in every} == {name}
    assert every <= set(spellings(name))
    for spelled in spellings(name):
        assert parse_ticker(spelled) == spelled
        assert ibkr_name(spelled) == name
        assert sorted(spellings(spelled)) == sorted(spellings(name))
    assert len(set(spellings(name))) == len(spellings(name))


def test_a_ticker_is_awaited_until_it_has_a_row() -> None:
    book = tracking("ABCD", "EFGH")
    book.priced.add("ABCD")
    assert book.awaited == {"EFGH"}
    book.roll()
    assert book.awaited == {"ABCD", "EFGH"}


def test_what_happens_is_noted_of_all_that_are_tracked_until_they_are_tracked_anew() -> None:
    book = tracking("ABCD", "EFGH")
    book.untrack("EFGH")
    book.note("the clock was set back by 4 s")
    book.track("ABCD", at(1))
    book.end_windows({"ABCD": at(0)})
    assert book.meanwhile("ABCD") == ["the clock was set back by 4 s"]
    assert book.meanwhile("EFGH") == []
    book.track("ABCD", at(2))
    assert book.meanwhile("ABCD") == []


def test_a_ticker_is_spelled_as_it_was_first_until_the_roll() -> None:
    book = TickerBook()
    assert [book.spelling(ticker) for ticker in ("BRK/B", "BRK.B", "ABCD")] == [
        "BRK/B",
        "BRK/B",
        "ABCD",
    ]
    book.roll()
    assert book.spelling("BRK.B") == "BRK.B"


def test_a_ticker_that_is_tracked_over_the_roll_keeps_its_spelling() -> None:
    book = tracking("BRK/B")
    book.roll()
    assert book.spelling("BRK.B") == "BRK/B"


tickers = st.sampled_from(["A", "B", "C"])


class Histories(RuleBasedStateMachine):
    """Whatever happens: no ticker has two windows in a session, none ends untold."""

    def __init__(self) -> None:
        super().__init__()
        self.book = TickerBook()
        self.now = START
        self.windows: set[str] = set()
        self.unknown: set[str] = set()
        self.to_tell: set[str] = set()

    @rule(seconds=st.integers(0, 2000))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(ticker=tickers)
    def trigger(self, ticker: str) -> None:
        answer = self.book.answer(ticker, self.unknown)
        refused = ticker in self.windows or ticker in self.unknown
        assert (answer is not Answer.TRACK) == refused
        if answer is Answer.TRACK:
            self.book.track(ticker, self.now)

    @rule(ticker=tickers)
    def window_over(self, ticker: str) -> None:
        if ticker in self.book.active:
            self.book.end_windows({ticker: self.now - timedelta(seconds=61)})
            self.windows.add(ticker)
            self.to_tell.add(ticker)

    @rule(ticker=tickers)
    def rejected(self, ticker: str) -> None:
        self.unknown.add(ticker)
        self.book.reject(self.unknown)

    @rule()
    def cleanup(self) -> None:
        limit = self.now - timedelta(seconds=MAX_TRACKED_S)
        self.to_tell |= {ticker for ticker, since in self.book.since.items() if since < limit}
        self.book.drop_old(self.now)

    @rule()
    def told(self) -> None:
        assert self.book.untold == self.to_tell
        self.book.untold.clear()
        self.to_tell.clear()

    @rule()
    def roll(self) -> None:
        if self.book.idle:
            self.book.roll()
            self.windows.clear()
            self.unknown.clear()

    @invariant()
    def what_is_active_has_its_time_and_no_window_behind_it(self) -> None:
        assert self.book.active == self.book.since.keys()
        assert not self.book.active & (self.windows | self.unknown)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
