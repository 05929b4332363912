"""A clock that is off is seen by news that is all old by the same amount."""

from collections.abc import Iterable

from newshead.news.clock import LEAST, SAY_EVERY_S, SPAN_S, ClockCheck


def told(ages: Iterable[float], every_s: float = 10.0) -> list[float]:
    check = ClockCheck(120.0)
    return [ahead for n, age in enumerate(ages) if (ahead := check.add(age, n * every_s))]


def test_articles_that_are_all_old_by_nearly_the_same_amount_show_it() -> None:
    assert told([600, 660, 610, 650, 630]) == [630]


def test_articles_that_are_all_from_the_future_by_nearly_the_same_amount_show_it() -> None:
    assert told([-600, -540, -570, -580, -560]) == [-570]
    assert told([-9, -1, 0, -5, -3] * 10) == []
    assert told([-600, -5_000, -86_400, 30, -2_000, -300] * 10) == []


def test_fresh_articles_show_nothing() -> None:
    assert told([0, 60, 119, 10, 30, 90] * 10) == []


def test_old_articles_of_various_ages_show_nothing() -> None:
    assert told([600, 9_000, 200, 86_400, 1_500, 400, 3_000] * 10) == []


def test_most_articles_must_be_old() -> None:
    assert told([5, 600, 5, 600, 5, 600, 5, 600, 5]) == []
    assert told([5, 600, 5, 600, 600, 600]) == [600]


def test_a_few_articles_are_too_few() -> None:
    assert told([600] * (LEAST - 1)) == []
    assert told([600] * 20, every_s=SPAN_S / 2) == []


def test_it_is_told_every_half_an_hour() -> None:
    count = int(2.5 * SAY_EVERY_S / 10)
    assert told([600] * count) == [600] * 3
