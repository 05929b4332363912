"""Blindness: noticed once, only while data is awaited, and over as soon as data comes."""

import math

from newshead.monitor.sight import BLIND_S, Change, Sight


def test_without_data_for_15_s_the_sight_is_lost_and_that_is_told_once() -> None:
    sight = Sight()
    assert sight.watch(100.0, -math.inf, awaited=True) is None
    assert sight.watch(100.0 + BLIND_S - 0.1, -math.inf, awaited=True) is None
    assert sight.watch(100.0 + BLIND_S, -math.inf, awaited=True) is Change.LOST
    assert sight.watch(200.0, -math.inf, awaited=True) is None
    assert sight.dark_s(200.0) == 100.0


def test_data_brings_the_sight_back_and_it_can_be_lost_again() -> None:
    sight = Sight()
    sight.watch(0.0, -math.inf, awaited=True)
    assert sight.watch(20.0, -math.inf, awaited=True) is Change.LOST
    assert sight.watch(21.0, 20.5, awaited=True) is Change.BACK
    assert sight.watch(20.5 + BLIND_S, 20.5, awaited=True) is Change.LOST


def test_nothing_is_awaited_without_tickers_and_each_time_begins_anew() -> None:
    sight = Sight()
    sight.watch(0.0, -math.inf, awaited=True)
    assert sight.watch(20.0, -math.inf, awaited=False) is None
    assert sight.watch(30.0, -math.inf, awaited=True) is None
    assert sight.watch(30.0 + BLIND_S, -math.inf, awaited=True) is Change.LOST


def test_what_a_connection_heard_last_outlives_it() -> None:
    sight = Sight()
    sight.watch(10.0, 9.0, awaited=True)
    sight.watch(11.0, -math.inf, awaited=True)
    assert sight.data_at == 9.0
