"""Which articles are taken: fresh ones, each once, about listed stocks."""

from datetime import UTC, datetime, timedelta

import pytest

from newshead.news.intake import MAX_AGE_S, MEMORY_S, Intake, Memory, content_hash
from newshead.news.message import Action, Article

NOW = 1_800_000_000.0
ARTICLE = Article(
    action=Action.CREATED,
    id="7",
    url="https://x/7",
    title="Up",
    teaser="",
    body="",
    tickers=("ABCD", "EFGH"),
    published=datetime.fromtimestamp(NOW, UTC),
    received=datetime.fromtimestamp(NOW, UTC),
    received_at=0.0,
)


def aged(age_s: float) -> Article:
    return ARTICLE._replace(published=ARTICLE.received - timedelta(seconds=age_s))


def test_an_article_is_taken_once_for_each_listed_ticker() -> None:
    intake = Intake()
    intake.list_tickers({"ABCD": "USA"})
    assert intake.take(ARTICLE, NOW) == ["ABCD"]
    assert intake.take(ARTICLE, NOW) == []
    assert intake.stats == {"articles": 2, "old": 0, "deleted": 0, "known": 1, "not_listed": 2}
    assert (intake.country("ABCD"), intake.country("EFGH")) == ("USA", "")


def test_without_a_list_nothing_is_taken_unless_any_ticker_is() -> None:
    assert Intake().takes_nothing
    assert Intake().take(ARTICLE, NOW) == []
    intake = Intake(any_ticker=True)
    assert not intake.takes_nothing
    assert intake.take(ARTICLE, NOW) == ["ABCD", "EFGH"]


@pytest.mark.parametrize(("age_s", "taken"), [(MAX_AGE_S, True), (MAX_AGE_S + 1, False)])
def test_an_article_over_two_minutes_old_is_left_out_and_stays_unknown(
    age_s: float, taken: bool
) -> None:
    intake = Intake(any_ticker=True)
    assert bool(intake.take(aged(age_s), NOW)) is taken
    assert intake.stats["old"] == (not taken)
    assert bool(intake.take(ARTICLE, NOW)) is not taken


def test_an_old_article_is_taken_where_that_is_asked_for() -> None:
    assert Intake(any_ticker=True, take_old=True).take(aged(86_400), NOW) == ["ABCD", "EFGH"]


def test_a_deleted_article_is_no_news() -> None:
    intake = Intake(any_ticker=True)
    assert intake.take(ARTICLE._replace(action=Action.DELETED), NOW) == []
    assert intake.stats["deleted"] == 1


def test_an_update_counts_once_for_the_tickers_the_article_did_not_have() -> None:
    intake = Intake(any_ticker=True)
    intake.take(ARTICLE, NOW)
    # Another headline makes another url; the id is the same.
    update = ARTICLE._replace(action=Action.UPDATED, title="More", url="https://x/more")
    assert intake.take(update, NOW) == []
    more = update._replace(tickers=("ABCD", "IJKL"))
    assert intake.take(more, NOW) == ["IJKL"]
    assert intake.take(more, NOW) == []


def test_an_update_of_an_article_that_never_came_is_taken() -> None:
    unseen = ARTICLE._replace(action=Action.UPDATED)
    assert Intake(any_ticker=True).take(unseen, NOW) == ["ABCD", "EFGH"]


def test_the_id_stands_for_a_missing_url_in_the_hash() -> None:
    without_url = ARTICLE._replace(url="")
    assert content_hash(without_url, "ABCD") == content_hash(ARTICLE._replace(url="7"), "ABCD")
    assert content_hash(ARTICLE, "ABCD") == "ef6ddf975a5acd64b3a3abba55bccd62"


def test_an_article_without_id_is_known_by_its_hash() -> None:
    intake = Intake(any_ticker=True)
    nameless = ARTICLE._replace(id="")
    assert intake.take(nameless, NOW)
    assert intake.take(nameless, NOW) == []


def test_the_memory_reaches_back_a_day_from_what_was_loaded_too() -> None:
    memory = Memory()
    memory.load({"a": int(NOW) - 10, "b": int(NOW)})
    assert not memory.add(["a"], NOW)
    assert not memory.add(["b", "c"], NOW + MEMORY_S - 1)
    assert memory.add(["a"], NOW + MEMORY_S - 1)
    assert memory.add(["b"], NOW + MEMORY_S + 1)
    assert not memory.add(["c"], NOW + MEMORY_S + 2)


@pytest.mark.parametrize("ticker", ["BRK.B", "BRK/B", "BRK-B", "BRK B"])
def test_a_share_class_is_listed_in_any_spelling(ticker: str) -> None:
    intake = Intake()
    intake.list_tickers({"BRK-B": "USA"})
    assert intake.take(ARTICLE._replace(tickers=(ticker,)), NOW) == [ticker]
