"""A card: which article it keeps, which one an alert's rating came from, and what it says."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dashboard.cards import (
    Article,
    Card,
    Told,
    article_began_with,
    article_rated,
    make_card,
)
from newshead.core.rule import Outcome
from newshead.database.queries import UNRATED, Rating

OPENED = datetime(2026, 11, 25, 14, 30, tzinfo=UTC)
BEGAN_S = int(OPENED.timestamp())


def at(seconds: float) -> datetime:
    return OPENED + timedelta(seconds=seconds)


def article(detected_s: float, rating: str = "BUY", analyzed_s: float | None = None) -> Article:
    return Article(
        detected_at=at(detected_s),
        published_at=None,
        source="Benzinga",
        headline=f"news of {detected_s}",
        url="",
        rating=Rating("positive", rating, "high"),
        explanation=f"why {rating}",
        analyzed_at=at(detected_s if analyzed_s is None else analyzed_s),
        rated=True,
    )


def window(*prices: float, rating: str = "BUY") -> tuple[Any, ...]:
    rows = [(BEGAN_S + 2 * n, price, 100, rating) for n, price in enumerate(prices)]
    return "ABCD", OPENED, at(2 * (len(prices) - 1)), rows


@pytest.mark.parametrize(
    ("detected_s", "opened", "kept"),
    [
        # The newest before the first row, whose slot may begin before the trigger.
        ([-30, -5, 20], OPENED, -5),
        ([-30, 1.5, 20], OPENED, 1.5),
        # Another program's row: no article was there before.
        ([20, 40], OPENED, 20),
        # Without a window, the newest.
        ([-30, -5], None, -5),
    ],
)
def test_a_card_keeps_the_article_its_window_began_with(
    detected_s: list[float], opened: datetime | None, kept: float
) -> None:
    articles = [article(each) for each in detected_s]
    assert article_began_with(articles, opened) == article(kept)


def test_later_articles_stand_under_it_newest_first() -> None:
    articles = [article(each) for each in (-5, 20, 40)]
    card = make_card("ABCD", window(2.0), articles, ())
    assert [each.headline for each in (card.article, *card.others) if each] == [
        "news of -5",
        "news of 40",
        "news of 20",
    ]


def test_an_alert_s_article_is_the_newest_rated_as_its_row_up_to_four_seconds_after_it() -> None:
    articles = [
        article(-20, "BUY", analyzed_s=-19),
        article(-10, "BUY", analyzed_s=3.9),
        article(-8, "HOLD", analyzed_s=3.95),
        article(-6, "BUY", analyzed_s=4.1),
    ]
    assert article_rated(articles, "BUY", OPENED) == articles[1]
    assert article_rated(articles, "HOLD", OPENED) is articles[2]
    assert article_rated(articles, "SELL", OPENED) is None


def test_each_alert_has_its_own_article() -> None:
    articles = [article(-5, analyzed_s=-4), article(2, analyzed_s=11)]
    alerted = [("ABCD", at(8), 3, 2.3), ("ABCD", at(6), 3, 2.2)]
    first, second = make_card("ABCD", window(2, 2, 2, 2.2, 2.3), articles, alerted).alerts
    assert (first.seconds, first.article) == (6, articles[0])
    assert (second.seconds, second.article) == (8, articles[1])


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (Card("ABCD", UNRATED, Outcome(), told=Told(at(-5))), "waiting for the"),
        (
            Card("ABCD", UNRATED, Outcome(), told=Told(at(-61))),
            "no news and no price",
        ),
        (
            Card("ABCD", UNRATED, Outcome(), told=Told(at(-61), refused="No such")),
            "No such",
        ),
        (make_card("ABCD", None, [article(-61)], ()), "no price since the news"),
    ],
)
def test_a_ticker_without_news_or_price_says_what_lacks(card: Card, said: str) -> None:
    assert card.reason(OPENED).startswith(said)


def test_the_gap_is_from_the_previous_close_and_a_halt_ends_with_the_window() -> None:
    card = make_card("ABCD", window(2.5), [], ())._replace(
        told=Told(OPENED, halted=1, previous_close=2.0)
    )
    assert card.gap_pct == 25
    assert card.condition(at(60)) == "halted (news pending)"
    assert card.condition(at(61)) == ""
    assert make_card("ABCD", window(2.5), [], ()).gap_pct is None


def test_the_explanation_is_that_of_the_newest_rating() -> None:
    unrated = article(20, "HOLD")._replace(rated=False, explanation="Not rated: no answer")
    assert make_card("ABCD", None, [article(-5), unrated], ()).explanation == "why BUY"
    assert make_card("ABCD", None, [unrated], ()).explanation == "Not rated: no answer"
    assert make_card("ABCD", window(2.5), [], ()).explanation == ""
