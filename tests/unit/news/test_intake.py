"""Which articles are taken: fresh ones, each once, about listed stocks."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from newshead.news.exchanges import Security, judged
from newshead.news.intake import MAX_AGE_S, MEMORY_S, Intake, Memory, content_hash
from newshead.news.message import Action, Article

NOW = 1_800_000_000.0


def named(*texts: str) -> tuple[Security, ...]:
    return tuple(judged(text) for text in texts)


ARTICLE = Article(
    action=Action.CREATED,
    id="7",
    url="https://x/7",
    title="Up",
    teaser="",
    body="",
    securities=named("ABCD", "EFGH"),
    channels=frozenset(),
    created=datetime.fromtimestamp(NOW, UTC),
    updated=None,
    received=datetime.fromtimestamp(NOW, UTC),
    received_at=0.0,
)


def aged(age_s: float) -> Article:
    return ARTICLE._replace(created=ARTICLE.received - timedelta(seconds=age_s))


def test_an_article_is_taken_once_for_each_listed_ticker() -> None:
    intake = Intake()
    intake.list_tickers({"ABCD": "USA"})
    assert intake.take(ARTICLE, NOW) == ["ABCD"]
    assert intake.take(ARTICLE, NOW) == []
    counted = {name: count for name, count in intake.stats.items() if count}
    assert counted == {"articles": 2, "known": 1, "not_listed": 2}
    assert (intake.country("ABCD"), intake.country("EFGH")) == ("USA", "")


def test_without_a_list_nothing_is_taken_unless_any_ticker_is() -> None:
    assert Intake().needs_list
    assert Intake().take(ARTICLE, NOW) == []
    intake = Intake(any_ticker=True)
    assert not intake.needs_list
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


def test_what_a_replay_brings_is_taken_while_it_is_fresh_even_if_old_articles_are_wanted() -> None:
    intake = Intake(any_ticker=True, take_old=True)
    assert intake.take(aged(MAX_AGE_S + 1)._replace(replayed=True), NOW) == []
    assert intake.stats["old"] == 1
    assert intake.take(aged(MAX_AGE_S)._replace(replayed=True), NOW) == ["ABCD", "EFGH"]


def test_an_undated_article_of_a_replay_is_only_remembered() -> None:
    intake = Intake(any_ticker=True)
    undated = ARTICLE._replace(created=None)
    assert intake.take(undated._replace(replayed=True), NOW) == []
    assert intake.take(undated, NOW) == []
    assert (intake.stats["undated"], intake.stats["known"]) == (2, 2)
    assert intake.take(undated._replace(id="8", url="https://x/8"), NOW) == ["ABCD", "EFGH"]


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
    more = update._replace(securities=named("ABCD", "IJKL"))
    assert intake.take(more, NOW) == ["IJKL"]
    assert intake.take(more, NOW) == []


def test_an_update_of_an_article_that_never_came_is_taken() -> None:
    unseen = ARTICLE._replace(action=Action.UPDATED)
    assert Intake(any_ticker=True).take(unseen, NOW) == ["ABCD", "EFGH"]


def minutes_later(article: Article, minutes: float) -> Article:
    return article._replace(received=article.received + timedelta(minutes=minutes))


def test_an_update_s_time_counts_for_tickers_that_earlier_messages_did_not_name() -> None:
    intake = Intake(any_ticker=True)
    intake.take(ARTICLE, NOW)
    update = minutes_later(ARTICLE, 10)._replace(
        action=Action.UPDATED,
        securities=named("EFGH", "IJKL"),
        updated=ARTICLE.received + timedelta(minutes=9),
    )
    assert intake.take(update, NOW + 600) == ["IJKL"]
    # By now its name is nothing new.
    again = minutes_later(update, 1)._replace(id="7", url="https://x/another")
    assert intake.take(again, NOW + 660) == []
    assert intake.stats["old"] == 1


@pytest.mark.parametrize(
    "earlier",
    [
        # Those left out for what they are.
        ARTICLE._replace(action=Action.DELETED, securities=()),
        ARTICLE._replace(securities=named(*(f"T{number}" for number in range(11)))),
        # Another article.
        ARTICLE._replace(id="8"),
    ],
)
def test_an_update_without_an_earlier_message_is_as_old_as_its_article(earlier: Article) -> None:
    intake = Intake(any_ticker=True)
    intake.take(earlier, NOW)
    update = minutes_later(ARTICLE, 10)._replace(
        action=Action.UPDATED, updated=ARTICLE.received + timedelta(minutes=10)
    )
    assert intake.take(update, NOW + 600) == []


def test_an_update_that_is_late_itself_is_old() -> None:
    intake = Intake(any_ticker=True)
    intake.take(ARTICLE._replace(securities=()), NOW)
    update = minutes_later(ARTICLE, 10)._replace(updated=ARTICLE.received + timedelta(minutes=7.9))
    assert intake.take(update, NOW + 600) == []
    fresh = update._replace(updated=ARTICLE.received + timedelta(minutes=8))
    assert intake.take(fresh._replace(securities=named("IJKL")), NOW + 600) == ["IJKL"]


def test_an_article_that_names_too_many_tickers_is_about_none_and_not_remembered() -> None:
    intake = Intake(any_ticker=True, max_tickers=2)
    assert intake.take(ARTICLE._replace(securities=named("ABCD", "EFGH", "TSX:AC")), NOW) == []
    assert intake.stats["many_tickers"] == 1
    assert intake.take(ARTICLE, NOW) == ["ABCD", "EFGH"]


@pytest.mark.parametrize(
    ("channels", "taken"),
    [
        (["MOVERS"], False),
        (["MOVERS", "BLOCKTRADES"], False),
        (["MOVERS", "NEWS"], True),
        ([], True),
    ],
)
def test_an_article_all_of_whose_channels_are_skipped_is_left_out_and_not_remembered(
    channels: list[str], taken: bool
) -> None:
    intake = Intake(any_ticker=True, skipped_channels=["Movers", "block-trades"])
    assert bool(intake.take(ARTICLE._replace(channels=frozenset(channels)), NOW)) is taken
    assert intake.stats["skipped"] == (not taken)
    assert bool(intake.take(ARTICLE, NOW)) is not taken


def test_listings_abroad_and_pairs_are_left_out_and_counted() -> None:
    intake = Intake(any_ticker=True)
    mixed = ARTICLE._replace(securities=named("TSX:AC", "ABCD", "BTC/USD"))
    assert intake.take(mixed, NOW) == ["ABCD"]
    assert intake.stats["foreign"] == 2


def test_an_unknown_exchange_is_named_once_and_its_tickers_are_taken_where_they_are_listed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    intake = Intake(any_ticker=True)
    intake.list_tickers({"ABCD": "USA"})
    unknown = ARTICLE._replace(securities=named("Moon: ABCD", "MOON:EFGH"))
    assert intake.take(unknown, NOW) == ["ABCD"]
    assert intake.stats["unknown_exchange"] == 2
    assert len([r for r in caplog.records if "Unknown exchange 'Moon'" in r.getMessage()]) == 1
    assert len(caplog.records) == 1


def test_an_article_of_whose_tickers_none_is_understood_is_told_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    intake = Intake(any_ticker=True)
    riddle = ARTICLE._replace(securities=named("TOOLONGNAME"))
    for second in range(60):
        assert intake.take(riddle, NOW + second) == []
    for understood in (named("TOOLONGNAME", "TSX:AC"), named("BTC/USDT"), ()):
        intake.take(ARTICLE._replace(securities=understood), NOW + 59)
    assert intake.take(riddle, NOW + 60) == []
    assert intake.stats["not_understood"] == 61
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "such as 'TOOLONGNAME' (60 such articles" in told[1]


def test_a_clock_that_is_off_is_told_by_new_articles_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def come(**changes: Any) -> None:
        intake = Intake(any_ticker=True)
        for number in range(10):
            intake.take(aged(600)._replace(**({"id": str(number)} | changes)), NOW + number)

    for innocent in (
        {"replayed": True},
        {"action": Action.UPDATED},
        {"id": "one article again and again"},
        {"created": None},
    ):
        come(**innocent)
    assert not caplog.records
    come()
    [line] = caplog.records
    assert "clock seems to be about 600 s ahead" in line.getMessage()
    caplog.clear()
    come(created=None, ahead_s=570.0)
    [line] = caplog.records
    assert "clock seems to be about 570 s behind" in line.getMessage()


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
    assert intake.take(ARTICLE._replace(securities=named(ticker)), NOW) == [ticker]
