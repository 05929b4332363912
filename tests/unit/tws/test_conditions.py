"""Halts, kinds of data and the day's figures of tickers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newshead.core.market import DATA_TYPES
from newshead.tws.conditions import CONDITION_TICKS, UNKNOWN, Condition, Conditions

HALTED, CLOSE = 49, 9


@pytest.mark.parametrize(
    ("kind", "line"),
    [(1.0, "ABCD is halted: news pending."), (2.0, "ABCD is halted: volatility pause.")],
)
def test_a_halt_is_told_once_with_its_reason_and_so_is_its_end(kind: float, line: str) -> None:
    conditions = Conditions()
    assert conditions.take_tick("ABCD", HALTED, 0.0) == ""
    assert conditions.take_tick("ABCD", HALTED, kind) == line
    assert conditions.take_tick("ABCD", HALTED, kind) == ""
    assert conditions.of("ABCD").halted == kind
    assert conditions.take_tick("ABCD", HALTED, 0.0) == "ABCD trades again."
    assert conditions.of("ABCD") == Condition(was_halted=True)


def test_a_halt_of_an_unknown_kind_is_none() -> None:
    conditions = Conditions()
    assert conditions.take_tick("ABCD", HALTED, -1.0) == ""
    assert conditions.of("ABCD") == UNKNOWN


def test_the_day_s_figures_are_kept_and_what_is_no_price_is_not() -> None:
    conditions = Conditions()
    conditions.take_tick("ABCD", CLOSE, 4.5)
    conditions.note_volume("ABCD", 12_000)
    for price in (0.0, -1.0, math.nan, 1.7976931348623157e308):
        conditions.take_tick("ABCD", CLOSE, price)
    assert conditions.all() == {"ABCD": Condition(previous_close=4.5, day_volume=12_000)}


def test_other_ticks_tell_nothing() -> None:
    conditions = Conditions()
    assert conditions.take_tick("ABCD", 4, 5.0) == ""
    assert conditions.all() == {}


@pytest.mark.parametrize(
    ("asked_for", "counting"), [(1, {1}), (2, {1, 2}), (3, {1, 3}), (4, {1, 2, 3, 4})]
)
def test_live_data_counts_and_what_was_asked_for(asked_for: int, counting: set[int]) -> None:
    conditions = Conditions(asked_for)
    counted = set()
    for data_type in DATA_TYPES:
        conditions.take_data_type("ABCD", data_type)
        if conditions.counts("ABCD"):
            counted.add(data_type)
    assert counted == counting


def test_data_that_was_not_asked_for_is_told_once_for_each_ticker_and_so_is_its_end() -> None:
    conditions = Conditions()
    assert conditions.take_data_type("ABCD", 1) == ""
    assert conditions.take_data_type("ABCD", 3).startswith("TWS serves ABCD delayed data: it")
    assert conditions.take_data_type("ABCD", 2) == ""
    assert conditions.take_data_type("EFGH", 2).startswith("TWS serves EFGH frozen data: it")
    assert conditions.take_data_type("ABCD", 1) == "TWS serves ABCD live data now."
    assert conditions.take_data_type("ABCD", 7) == ""
    assert conditions.of("ABCD").data_type == 1


def test_a_ticker_that_is_tracked_anew_is_told_of_anew() -> None:
    conditions = Conditions()
    conditions.take_tick("ABCD", HALTED, 1.0)
    conditions.take_data_type("ABCD", 3)
    conditions.forget("ABCD")
    assert conditions.of("ABCD") == UNKNOWN
    assert conditions.take_data_type("ABCD", 3)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(CONDITION_TICKS)),
            st.none() | st.floats(allow_nan=False, allow_infinity=False),
        )
    )
)
def test_whatever_comes_a_halt_is_told_just_when_it_begins_or_ends(
    ticks: list[tuple[int, float | None]],
) -> None:
    conditions, halted = Conditions(), 0
    for tick_type, value in ticks:
        line = conditions.take_tick("ABCD", tick_type, value)
        now = conditions.of("ABCD").halted
        assert bool(line) == (now != halted)
        assert ("trades again" in line) == (now != halted and not now)
        halted = now
