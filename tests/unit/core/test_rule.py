"""The alert rule on plain rows: its named examples, and what a trader is told of a window."""

import math
from datetime import UTC, datetime

import pytest

from newshead.core.rule import (
    Outcome,
    PricePoint,
    Rise,
    Rule,
    baseline,
    changes,
    describe,
    describe_open,
    inside,
    judge,
    outcome,
    percent,
    priority,
    rises,
    windows,
)

START = 1_795_000_000


def rows(*seconds_and_prices: tuple[int, float], rating: str = "BUY") -> list[PricePoint]:
    return [PricePoint(START + s, price, 100, rating) for s, price in seconds_and_prices]


def steps(*prices: float, rating: str = "BUY") -> list[PricePoint]:
    """A row every two seconds."""
    return rows(*((2 * n, price) for n, price in enumerate(prices)), rating=rating)


def qualifying(prices: list[PricePoint]) -> list[int]:
    """Seconds from the first row of the rows that qualify."""
    return [row.seconds_elapsed for row in judge(prices) if row.qualifies]


@pytest.mark.parametrize("second_and_third", [(2.0, 2.09), (2.09, 2.0)])
def test_the_baseline_is_the_lower_of_the_second_and_the_third_price(
    second_and_third: tuple[float, float],
) -> None:
    # From 2.0 it is 6 %, from 2.09 1.4 %; the first price, 1.0, is not looked at.
    prices = steps(1.0, *second_and_third, 2.12)
    assert baseline(prices) == 2.0
    [rise] = rises("AAPL", judge(prices), (), None)
    at = datetime.fromtimestamp(START + 6, UTC)
    assert rise == Rise("AAPL", at, 2.12, (2.12 - 2.0) / 2.0 * 100, 6, True, False, 3)


def test_before_the_third_row_there_is_no_baseline_and_no_change() -> None:
    prices = steps(1.0, 2.0)
    assert baseline(prices) == 0.0
    assert [row.change_pct for row in judge(prices)] == [0.0, 0.0]
    assert judge([]) == []


def test_the_third_row_can_be_an_alert_the_second_cannot() -> None:
    assert qualifying(steps(1.0, 2.0)) == []
    assert qualifying(steps(1.0, 2.0, 2.2)) == [4]


@pytest.mark.parametrize(
    ("base", "price", "qualifies"),
    [
        # Each of these would be judged the other way round by another order of operations:
        (1.57, 1.6485, True),  # price * 100 / baseline - 100
        (3.11, 3.2655, True),  # (price - baseline) * 100 / baseline
        (0.40, 0.42, False),  # price * 100 / baseline - 100
        (0.51, 0.5355, False),  # (price / baseline - 1) * 100
        (4.0, math.nextafter(4.2, 0), False),
        (4.0, math.nextafter(4.2, 5), True),
    ],
)
def test_five_percent_is_reckoned_in_the_documented_order(
    base: float, price: float, qualifies: bool
) -> None:
    assert qualifying(steps(base, base, base, price)) == ([6] if qualifies else [])


@pytest.mark.parametrize(
    ("price", "qualifies"),
    [
        (math.nextafter(0.40, 0), False),
        (0.40, True),
        (math.nextafter(11.0, 0), True),
        (11.0, False),
    ],
)
def test_prices_count_from_040_on_and_below_11(price: float, qualifies: bool) -> None:
    base = price / 1.2
    *_, last = judge(steps(base, base, base, price))
    assert (last.qualifies, last.held_back) == (qualifies, False)
    found = outcome(changes(steps(base, base, base, price)), 0)
    assert (found.rises, found.rises_in_range) == (1, int(qualifies))


def test_the_sixtieth_second_counts_and_the_next_does_not() -> None:
    prices = rows((0, 1.0), (2, 1.0), (4, 1.0), (60, 2.0), (61, 2.0))
    assert qualifying(prices) == [60]
    assert outcome(changes(prices), 0).judged == 2
    assert [inside(START, START + seconds) for seconds in (0, 60, 60.5)] == [True, True, False]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (Rule(), [6, 8, 10]),
        (Rule(change_pct=30.0), [8, 10]),
        (Rule(window_s=8), [6, 8]),
        (Rule(lowest=1.2, highest=1.5), [6, 8]),
        (Rule(ratings=("HOLD", "SELL")), []),
        (Rule(baseline_rows=(1,)), [2, 6, 8, 10]),
        (Rule(baseline_rows=(4, 5)), [8, 10]),
        (Rule(baseline_rows=(7,)), []),
    ],
)
def test_another_rule_than_the_live_one_can_be_handed_in(by: Rule, expected: list[int]) -> None:
    prices = steps(1.0, 1.1, 1.0, 1.2, 1.4, 1.6)
    judged = judge(prices, by)
    assert [row.seconds_elapsed for row in judged if row.qualifies] == expected
    found = outcome(changes(prices, by), 0, by)
    assert found == Outcome(
        0,
        6,
        sum(row.counts for row in judged),
        max((row.change_pct for row in judged if row.counts), default=0.0),
        sum(row.rises for row in judged),
        sum(row.rises and row.in_range for row in judged),
        len(expected),
    )


def test_hold_is_held_back_row_by_row() -> None:
    ratings = ["BUY", "BUY", "BUY", "HOLD", "BUY", "SELL", "buy"]
    prices = [
        PricePoint(START + n, 1.0 if n < 3 else 2.0, 100, rating)
        for n, rating in enumerate(ratings)
    ]
    judged = [(row.qualifies, row.held_back) for row in judge(prices)[3:]]
    assert judged == [(False, True), (True, False), (False, True), (False, True)]


def test_a_row_that_has_its_alert_gives_no_second_one() -> None:
    judged = judge(steps(1.0, 1.0, 1.0, 2.0, 2.0))
    found = rises("AAPL", judged, {START + 6}, None)
    assert [rise.seconds_elapsed for rise in found] == [8]


@pytest.mark.parametrize(
    ("score", "expected"),
    [(None, 3), (4.0, 1), (9.0, 1), (math.nextafter(4.0, 0), 2), (0.0, 2), (-1.0, 2)],
)
def test_the_score_gives_the_priority(score: float | None, expected: int) -> None:
    assert priority(score) == expected


def test_a_baseline_of_zero_stops_nothing() -> None:
    assert [row.change_pct for row in judge(steps(0.0, 0.0, 0.0))][2] != 0
    prices = steps(1.0, 0.0, 0.0, 1.0, -1.0)
    judged = judge(prices)
    assert [row.change_pct for row in judged[3:]] == [math.inf, -math.inf]
    assert math.isnan(judged[2].change_pct)
    assert outcome(changes(prices), 0).best_change_pct == math.inf
    assert outcome(changes(steps(1.0, 0.0, 0.0)), 0).best_change_pct == 0.0


def test_a_window_without_a_judged_row_has_no_best_change() -> None:
    prices = rows((0, 1.0), (2, 2.0), (61, 9.0))
    assert outcome(changes(prices), 0) == Outcome(0, 3)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (None, "no ticks"),
        (Outcome(0, 2), "no alert, only 2 prices"),
        (Outcome(0, 9, 7, 3.21), "no alert, best change +3.2 % of 5 %"),
        (
            Outcome(0, 9, 7, 8.0, 2),
            "no alert, price outside 0.40 to 11, best change +8.0 % of 5 %",
        ),
        (Outcome(0, 9, 7, 8.0, 2, 1), "no alert, not rated BUY, best change +8.0 % of 5 %"),
        (Outcome(1, 9, 7, 8.0, 3, 3), "1 alert, best change +8.0 % of 5 %"),
        (Outcome(3, 9, 7, 8.0, 3, 3), "3 alerts, best change +8.0 % of 5 %"),
    ],
)
def test_the_outcome_of_a_window_says_what_came_of_it(result: Outcome | None, text: str) -> None:
    assert describe(result) == text


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (Outcome(0, 9, 7, 3.21), "no alert, best change +3.2 % of 3.5 %"),
        (
            Outcome(0, 9, 7, 8.0, 2),
            "no alert, price outside 1.00 to 7.5, best change +8.0 % of 3.5 %",
        ),
        (
            Outcome(0, 9, 7, 8.0, 2, 1),
            "no alert, not rated BUY or HOLD, best change +8.0 % of 3.5 %",
        ),
    ],
)
def test_the_outcome_names_the_thresholds_of_its_rule(result: Outcome, text: str) -> None:
    assert describe(result, Rule(3.5, 60, 1.0, 7.5, ("BUY", "HOLD"))) == text


@pytest.mark.parametrize(
    ("result", "rating", "text"),
    [
        (Outcome(1, 9, 7, 8.0, 3, 3, 1), "BUY", "alerted once"),
        (Outcome(3, 9, 7, 8.0, 3, 3, 3), "BUY", "alerted 3 times"),
        (Outcome(0, 2), "BUY", "waiting for the third price"),
        (Outcome(0, 9, 7, 3.21), "BUY", "+3.2 % of 5 %"),
        (Outcome(0, 9, 7, 8.0, 2), "BUY", "price outside 0.40 to 11"),
        (Outcome(0, 9, 7, 8.0, 2, 1, 1), "BUY", "the alert is on its way"),
        (Outcome(0, 9, 7, 8.0, 2, 1), "BUY", "held back: it rose before it was rated BUY"),
        (Outcome(0, 9, 7, 8.0, 2, 1), "HOLD", "held back: HOLD"),
    ],
)
def test_an_open_window_says_what_is_in_the_way_of_an_alert(
    result: Outcome, rating: str, text: str
) -> None:
    assert describe_open(result, rating) == text


def test_stored_rows_are_of_one_window_to_its_end_and_as_long_as_they_follow_each_other() -> None:
    assert list(windows([0, 30, 60, 120, 181, 200])) == [(0, 4), (4, 6)]
    assert list(windows([])) == []


@pytest.mark.parametrize(
    ("change_pct", "text"),
    [
        (4.96, "+4.96 %"),
        (4.9996, "+4.99 %"),
        (5.04, "+5.0 %"),
        (4.94, "+4.9 %"),
        (-5.0, "-5.0 %"),
        (-0.01, "+0.0 %"),
    ],
)
def test_no_change_is_shown_on_the_wrong_side_of_the_threshold(
    change_pct: float, text: str
) -> None:
    assert percent(change_pct) == text


@pytest.mark.parametrize(
    ("change_pct", "text"),
    [
        (3.21, "+3.2 % of 5 %"),
        (1.0, "now +1.0 %, best +3.2 % of 5 %"),
        (-5.0, "now -5.0 %, best +3.2 % of 5 %"),
    ],
)
def test_an_open_window_says_where_the_price_is_beside_its_best(
    change_pct: float, text: str
) -> None:
    assert describe_open(Outcome(0, 9, 7, 3.21), "BUY", change_pct) == text
