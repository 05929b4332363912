"""Blindness: noticed once, only while data is awaited and cannot come, and over with data."""

import math

from newshead.monitor.sight import BLIND_S, Change, Sight


def test_where_no_data_can_come_for_15_s_the_sight_is_lost_and_that_is_told_once() -> None:
    sight = Sight()
    assert sight.watch(100.0, -math.inf, awaited=True, cut=True) is None
    assert sight.watch(100.0 + BLIND_S - 0.1, -math.inf, awaited=True, cut=True) is None
    assert sight.watch(100.0 + BLIND_S, -math.inf, awaited=True, cut=True) is Change.LOST
    assert sight.watch(200.0, -math.inf, awaited=True, cut=True) is None
    assert sight.dark_s(200.0) == 100.0
    assert sight.blind


def test_stocks_that_nobody_trades_are_no_reason_to_be_blind() -> None:
    sight = Sight()
    for now in range(0, 1000, 5):
        assert sight.watch(now, -math.inf, awaited=True, cut=False) is None


def test_a_short_cut_after_a_long_quiet_time_does_not_make_blind() -> None:
    sight = Sight()
    sight.watch(0.0, -math.inf, awaited=True, cut=False)
    assert sight.watch(100.0, -math.inf, awaited=True, cut=True) is None
    assert sight.watch(114.0, -math.inf, awaited=True, cut=True) is None
    assert sight.watch(115.0, -math.inf, awaited=True, cut=False) is None
    assert sight.watch(116.0, -math.inf, awaited=True, cut=True) is None


def test_a_tws_that_serves_no_data_makes_blind_at_once() -> None:
    sight = Sight()
    assert sight.watch(0.0, -1.0, awaited=True, cut=True, unserved=True) is Change.LOST
    assert sight.watch(1.0, -1.0, awaited=True, cut=True, unserved=True) is None


def test_data_brings_the_sight_back_and_it_can_be_lost_again() -> None:
    sight = Sight()
    sight.watch(0.0, -math.inf, awaited=True, cut=True)
    assert sight.watch(20.0, -math.inf, awaited=True, cut=True) is Change.LOST
    assert sight.watch(21.0, -math.inf, awaited=True, cut=False) is None
    assert sight.watch(22.0, 21.5, awaited=True, cut=False) is Change.BACK
    assert not sight.blind
    sight.watch(30.0, 21.5, awaited=True, cut=True)
    assert sight.watch(30.0 + BLIND_S, 21.5, awaited=True, cut=True) is Change.LOST


def test_nothing_is_awaited_without_tickers_and_each_time_begins_anew() -> None:
    sight = Sight()
    sight.watch(0.0, -math.inf, awaited=True, cut=True)
    assert sight.watch(20.0, -math.inf, awaited=False, cut=True) is None
    assert sight.watch(30.0, -math.inf, awaited=True, cut=True) is None
    assert sight.watch(30.0 + BLIND_S, -math.inf, awaited=True, cut=True) is Change.LOST


def test_what_a_connection_heard_last_outlives_it() -> None:
    sight = Sight()
    sight.watch(10.0, 9.0, awaited=True, cut=False)
    sight.watch(11.0, -math.inf, awaited=True, cut=True)
    assert sight.data_at == 9.0
