"""Which trades are new and which TWS only tells again, by the times and sizes that it tells."""

from datetime import UTC, datetime, timedelta

import pytest

from newshead.tws.last_trades import LastTrades, Trade

SOURCE = "ibkr_last_trade"
START = datetime(2026, 11, 25, 15, 0, 0, tzinfo=UTC)
UNIX = int(START.timestamp())


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def asked_again() -> LastTrades:
    """A trade of 5.00 at 0.5 s, its time known, and a repeated request."""
    trades = LastTrades()
    trades.requested("ABCD")
    assert trades.add_trade("ABCD", 5.0, 100, at(0.5), SOURCE)
    trades.add_time("ABCD", UNIX)
    trades.requested("ABCD")
    return trades


def test_the_first_trade_of_all_counts_at_once_however_often_it_was_asked_for() -> None:
    trades = LastTrades()
    trades.requested("ABCD")
    trades.requested("ABCD")
    assert trades.add_trade("ABCD", 5.0, 100, at(0), SOURCE)


@pytest.mark.parametrize("before", [True, False], ids=["45 before", "45 after"])
def test_a_trade_whose_time_is_not_later_is_old(before: bool) -> None:
    trades = asked_again()
    if before:
        trades.add_time("ABCD", UNIX)
        assert not trades.add_trade("ABCD", 4.0, 50, at(9), SOURCE)
    else:
        assert not trades.add_trade("ABCD", 4.0, 50, at(9), SOURCE)
        trades.add_size("ABCD", 50)
        trades.add_time("ABCD", UNIX)
    assert trades.released(at(60)) == []
    assert trades.add_trade("ABCD", 6.0, 1, at(10), SOURCE)


@pytest.mark.parametrize(
    ("told_s", "counts_s"),
    [(5, 5), (1, 2), (300, 9)],
    ids=["its own time", "not in a slot that has a row", "not after its arrival"],
)
def test_a_trade_of_the_gap_counts_at_its_own_time(told_s: int, counts_s: int) -> None:
    trades = asked_again()
    assert not trades.add_trade("ABCD", 5.5, 70, at(9), SOURCE)
    trades.add_time("ABCD", UNIX + told_s)
    assert trades.released(at(9)) == [Trade("ABCD", 5.5, 70, at(counts_s), SOURCE)]


def test_price_and_size_of_the_last_trade_are_that_trade_whatever_the_time_says() -> None:
    trades = asked_again()
    trades.add_size("ABCD", 30)
    assert not trades.add_trade("ABCD", 5.0, 100, at(9), SOURCE)
    trades.add_time("ABCD", UNIX + 5)
    assert trades.released(at(60)) == []


def test_without_a_time_a_trade_waits_until_its_slot_ends_and_no_longer() -> None:
    trades = asked_again()
    assert not trades.add_trade("ABCD", 5.5, 70, at(9), SOURCE)
    assert trades.released(at(9.9)) == []
    assert trades.released(at(10)) == [Trade("ABCD", 5.5, 70, at(9), SOURCE)]
    assert trades.released(at(12)) == []


def test_a_lone_size_is_a_trade_at_the_last_price() -> None:
    trades = LastTrades()
    assert trades.add_trade("ABCD", 5.0, 100, at(0), SOURCE)
    trades.add_size("ABCD", 30)
    trades.requested("ABCD")
    assert not trades.add_trade("ABCD", 5.0, 30, at(9), SOURCE)
    assert trades.released(at(10)) == []


def test_a_forgotten_ticker_begins_anew() -> None:
    trades = asked_again()
    trades.forget("ABCD")
    trades.requested("ABCD")
    assert trades.add_trade("ABCD", 5.0, 100, at(9), SOURCE)
