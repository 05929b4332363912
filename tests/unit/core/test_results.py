"""What came after alerts, and what windows say together."""

import math
import random
from collections.abc import Sequence

import pytest

from newshead.core import results
from newshead.core.results import (
    ALERTED,
    ALL,
    BEST,
    END,
    NOT_ALERTED,
    PATH_S,
    WORST,
    Alert,
    Bar,
    Case,
    Watched,
    after,
)
from newshead.core.rule import PricePoint, Rule
from newshead.core.samples import MIN_SIZE

FIRST = 1_700_000_000
MINUTE = FIRST // 60 * 60


def rows(*prices: float, rating: str = "BUY") -> list[PricePoint]:
    """A row every two seconds."""
    return [PricePoint(FIRST + 2 * n, price, 100, rating) for n, price in enumerate(prices)]


def bars(prices: Sequence[float], seconds: int = 60) -> list[Bar]:
    """Bars from the minute of the window's beginning on, 0.01 USD high and low around the close."""
    return [
        Bar(MINUTE + seconds * n, seconds, price + 0.01, price - 0.01, price)
        for n, price in enumerate(prices)
    ]


def judged(window: Watched, by: Rule | None = None) -> Case:
    found = results.case(window, by)
    assert found is not None
    return found


# One window


def test_a_window_is_judged_from_its_first_alert_on() -> None:
    window = Watched(
        "ABCD",
        rows(2.0, 2.0, 2.0, 2.1, 2.2, 2.0, 2.31),
        ["low", "low", "low", "low", "high", "low", "low"],
        [Alert(FIRST + 8, 1, 2.2), Alert(FIRST + 12, 1, 2.31)],
        "wire",
    )
    found = judged(window)
    assert (found.at_s, found.price, found.priority) == (FIRST + 8, 2.2, "1")
    assert (found.group, found.rating, found.confidence) == (ALERTED, "BUY", "high")
    assert found.rise_pct == pytest.approx(10.0)
    # Nobody asked IBKR: the window's end is all there is.
    assert not found.followed
    assert found.changes_pct == pytest.approx({END: 5.0, BEST: 5.0, WORST: (2.0 - 2.2) / 2.2 * 100})
    assert found.path_pct == ()


def test_a_window_without_an_alert_is_judged_from_its_highest_point_on() -> None:
    # The first row may be an old trade: it counts for nothing.
    found = judged(Watched("ABCD", rows(9.0, 2.0, 2.0, 2.05, 2.0, 2.05, 1.845, rating="HOLD")))
    assert (found.at_s, found.price, found.priority) == (FIRST + 6, 2.05, "")
    assert (found.group, found.rating, found.confidence) == (NOT_ALERTED, "HOLD", "")
    assert found.changes_pct[END] == pytest.approx(-10.0)


def test_a_window_that_ends_at_its_point_says_nothing_of_what_came_after() -> None:
    assert judged(Watched("ABCD", rows(2.0, 2.0, 2.0, 2.2))).changes_pct == {}


def test_what_a_terminal_or_a_spreadsheet_would_obey_is_no_name() -> None:
    found = judged(
        Watched("ABCD", rows(2.0, 2.0, 2.2), source="=wire\x1b[2J", confidences=["-"] * 3)
    )
    assert (found.source, found.confidence) == ("wire [2J", "")


@pytest.mark.parametrize(
    "window",
    [
        Watched("ABCD", []),
        Watched("ABCD", rows(2.0, 2.0)),
        Watched("ABCD", rows(2.0, 0.0, 0.0, 1.0)),
        Watched("ABCD", rows(2.0, 2.0, 2.0), alerts=[Alert(FIRST + 4, 3, 0.0)]),
        Watched("ABCD", rows(2.0, 2.0, math.inf)),
    ],
)
def test_a_window_without_baseline_or_usable_price_cannot_be_judged(window: Watched) -> None:
    assert results.case(window) is None


def test_windows_that_cannot_be_judged_are_counted() -> None:
    usable, unusable = Watched("ABCD", rows(2.0, 2.0, 2.0, 2.1)), Watched("EFGH", rows(2.0))
    assert results.cases([unusable, usable, unusable]) == ([judged(usable)], 2)


def test_bars_say_what_came_after_each_minute_and_on_the_way() -> None:
    window = Watched(
        "ABCD",
        rows(2.0, 2.0, 2.0, 2.0),
        alerts=[Alert(FIRST + 4, 2, 2.0)],
        # The alert is in the first bar: what that one reached may have been before it.
        bars=[Bar(MINUTE, 60, 9.0, 0.1, 2.0), *bars([2.0] + [2.0 + n / 10 for n in range(1, 32)])],
    )
    found = judged(window)
    begun = FIRST - MINUTE + 4
    # The bar that is over at a time tells the price.
    expected = {after(m): ((begun + 60 * m) // 60 - 1) * 5.0 for m in results.MINUTES}
    assert found.followed
    assert {name: found.changes_pct[name] for name in expected} == pytest.approx(expected)
    assert found.changes_pct[END] == 0.0
    assert found.changes_pct[BEST] == pytest.approx((2.0 + 3.1 + 0.01 - 2.0) / 2.0 * 100)
    assert found.changes_pct[WORST] == pytest.approx(0.0)
    assert len(found.path_pct) == len(PATH_S)
    assert (found.path_pct[0], found.path_pct[-1]) == (0.0, found.changes_pct[after(30)])


def test_a_stock_that_did_not_trade_any_more_stays_where_it_was() -> None:
    found = judged(Watched("ABCD", rows(2.0, 2.0, 2.2), bars=bars([2.2])[:1]))
    assert [found.changes_pct[after(m)] for m in results.MINUTES] == [0.0] * 4
    unusable = [Bar(MINUTE + 60 * n, 60, 0.0, 0.0, 0.0) for n in range(32)]
    assert judged(Watched("ABCD", rows(2.0, 2.0, 2.2), bars=unusable)).changes_pct[after(5)] == 0.0


def test_short_bars_alone_tell_the_first_minute_and_no_more() -> None:
    window = Watched("ABCD", rows(2.0, 2.0, 2.0), bars=bars([2.5] * 40, seconds=5))
    found = judged(window)
    assert not found.followed
    assert {after(m): found.changes_pct.get(after(m)) for m in results.MINUTES} == {
        after(1): pytest.approx(25.0),
        **dict.fromkeys([after(5), after(15), after(30)]),
    }


def test_rows_behind_the_windows_end_are_not_of_it_and_a_variant_has_its_own_end() -> None:
    window = Watched("ABCD", rows(*[2.0] * 5, 2.1, *[2.0] * 25, 9.0, 9.0))
    assert judged(window).price == 2.1
    assert judged(window).changes_pct[BEST] == pytest.approx((2.0 - 2.1) / 2.1 * 100)
    found = judged(window, Rule(window_s=8, baseline_rows=(1,)))
    assert (found.at_s, found.price) == (FIRST, 2.0)


# Windows together


def simulated(
    count: int,
    change_pct: float,
    *,
    alert: bool = True,
    confidence: str = "high",
    source: str = "wire",
    price: float = 2.0,
    seed: int = 1,
) -> list[Case]:
    """Windows after which the price changes by so much within 5 minutes, 3 % more or less."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        first = rows(price, price, price, price * 1.06, price * 1.05)
        later = price * 1.06 * (1 + (change_pct + chance.uniform(-3, 3)) / 100)
        window = Watched(
            f"T{number}",
            first,
            [confidence] * len(first),
            [Alert(FIRST + 6, 1 + number % 3, price * 1.06)] if alert else [],
            source,
            bars([price * 1.06] * 2 + [later] * 30),
        )
        found.append(judged(window))
    return found


def test_a_simulated_month_shows_what_it_was_made_of_and_where_it_says_too_little() -> None:
    cases = [
        *simulated(120, 4.0, confidence="high"),
        *simulated(80, -2.0, confidence="low", source="stream", price=0.5, seed=2),
        *simulated(7, 30.0, confidence="medium", source="rumours", price=7.0, seed=3),
        *simulated(300, -1.0, alert=False, confidence="", source="", seed=4),
    ]
    found = {line[:4]: line.figures for line in results.lines(cases)}
    main = after(5)
    assert results.main_measure(cases) == main

    good = found[ALERTED, "confidence", "high", main]
    assert good.enough
    assert good.size == 120
    for value, interval in (
        (good.median, good.median_interval),
        (good.mean, good.mean_interval),
    ):
        assert interval.low < 4.0 < interval.high
        assert value == pytest.approx(4.0, abs=0.6)
    assert good.above_zero == 1.0
    # Of a uniform distribution 6 wide.
    assert good.spread == pytest.approx(6 / math.sqrt(12), rel=0.1)

    bad = found[ALERTED, "source", "stream", main]
    assert bad.median_interval.low < -2.0 < bad.median_interval.high
    # Of -5 to +1 a sixth is above zero.
    assert bad.above_zero_interval.low < 1 / 6 < bad.above_zero_interval.high
    assert found[ALERTED, "price band", "under 1 USD", main] == bad

    few = found[ALERTED, "confidence", "medium", main]
    assert (few.size, few.enough) == (7, False)

    rest = found[NOT_ALERTED, "rating", "BUY", main]
    assert rest.median_interval.low < -1.0 < rest.median_interval.high

    assert found[ALERTED, ALL, ALL, main].size == 207
    assert [name[2] for name in found if name[:2] == (ALERTED, "priority")] == ["1", "2", "3"]
    assert [name[2] for name in found if name[:2] == (ALERTED, "price band")] == [
        "under 1 USD",
        "2 to 5 USD",
        "5 to 11 USD",
    ]
    # What no window of a group has is no grouping of it.
    assert {name[1] for name in found if name[0] == NOT_ALERTED} == {ALL, "rating", "price band"}


def test_what_only_some_windows_lack_is_unknown() -> None:
    cases = simulated(3, 1.0) + simulated(2, 1.0, source="")
    found = [line for line in results.lines(cases) if line.grouping == "source"]
    assert [(line.value, line.figures.size) for line in found] == [("wire", 3), ("unknown", 2)]


def test_ways_of_half_an_hour_and_of_less_than_a_minute_are_not_mixed() -> None:
    short = judged(
        Watched("S", rows(20.0, 20.0, 20.0, 21.0, 40.0), alerts=[Alert(FIRST + 6, 3, 21.0)])
    )
    cases = [*simulated(3, 1.0), short]
    best = {line.measure: line.figures for line in results.lines(cases) if line.grouping == ALL}
    assert (best[BEST].size, best[END].size) == (3, 4)
    alone = {line.measure: line.figures for line in results.lines([short])}
    assert alone[BEST].size == 1
    assert [line.value for line in results.lines([short]) if line.grouping == "price band"] == [
        "from 11 USD"
    ]


def test_without_a_follow_up_groups_are_compared_at_the_windows_end() -> None:
    window = Watched("ABCD", rows(2.0, 2.0, 2.0, 2.2, 2.1), alerts=[Alert(FIRST + 6, 3, 2.2)])
    cases = [judged(window), judged(Watched("E", rows(2.0, 2.0, 2.2)))]
    assert results.main_measure(cases) == END
    assert {line.measure for line in results.lines(cases) if line.grouping != ALL} == {END}
    assert [each.ticker for each in results.ranked(cases)] == ["ABCD"]
    assert results.paths(cases) == []


def test_the_first_windows_that_are_followed_up_do_not_hide_the_many_that_are_not() -> None:
    window = Watched("OLD", rows(2.0, 2.0, 2.0, 2.2, 2.1), alerts=[Alert(FIRST + 6, 3, 2.2)])
    before = [judged(window)] * 50
    # Windows without an alert are not what alerts are compared by.
    few = [*before, *simulated(MIN_SIZE - 1, 4.0), *simulated(50, 1.0, alert=False)]
    assert results.main_measure(few) == END
    assert len(results.ranked(few)) == 69
    best = {line[:4]: line.figures.size for line in results.lines(few)}
    assert best[ALERTED, ALL, ALL, BEST] == 50
    enough = [*before, *simulated(MIN_SIZE, 4.0)]
    assert results.main_measure(enough) == after(5)
    assert len(results.ranked(enough)) == MIN_SIZE
    assert results.main_measure([*before[:2], *simulated(2, 4.0)]) == after(5)


def test_paths_are_quartiles_of_the_windows_that_alerted() -> None:
    found = results.paths(
        [*simulated(50, 4.0), *simulated(50, -40.0, alert=False), *simulated(50, 6.0, seed=2)]
    )
    assert [step.seconds for step in found] == list(PATH_S)
    assert found[0].changes == (100, 0.0, 0.0, 0.0)
    last = found[-1].changes
    assert last.lower < last.median < last.upper
    assert last.median == pytest.approx(5.0, abs=1.0)


def test_windows_that_alerted_are_ranked_from_best_to_worst() -> None:
    cases = [
        *simulated(1, 1.0, seed=1),
        *simulated(1, 50.0, seed=2),
        *simulated(1, -50.0, seed=3),
        *simulated(1, 90.0, alert=False),
    ]
    ranked = [round(each.changes_pct[after(5)], -1) for each in results.ranked(cases)]
    assert ranked == sorted(ranked, reverse=True)
    assert (len(ranked), ranked[0], ranked[-1]) == (3, 50, -50)
