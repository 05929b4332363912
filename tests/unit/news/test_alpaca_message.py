"""An item of Alpaca's stream becomes an article or a word of the server, or is refused by name."""

import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from newshead.news.alpaca_message import Word, parse_item, parse_items
from newshead.news.message import Action, Article, NoArticleError
from simulator.alpaca import news_item

NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def _it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times that are ahead of NOW are none, and these tests may run minutes after the import."""
    monkeypatch.setitem(globals(), "NOW", datetime.now(UTC))


def article(**fields: Any) -> Article:
    read = parse_item(news_item("Up", ["ABCD"]) | fields, NOW, 12.5)
    assert isinstance(read, Article)
    return read


def test_an_item_is_an_article() -> None:
    item = news_item(
        "A&#39;s <b>Up</b>", ["ABCD", "BRK.B", "BTCUSD"], article_id=7, content="<p>b</p>", age_s=60
    )
    read = parse_item(item, NOW, 12.5)
    assert isinstance(read, Article)
    assert read[:2] == (Action.CREATED, "7")
    assert (read.url, read.title) == ("https://www.benzinga.com/news/7", "A's Up")
    assert (read.tickers, read.body) == (("ABCD", "BRK.B"), "<p>b</p>")
    assert read.age_s == pytest.approx(60, abs=30)
    assert (read.source, read.received_at) == ("Alpaca_WebSocket", 12.5)


def test_an_item_that_was_changed_is_an_update() -> None:
    item = news_item("Up", ["ABCD"], age_s=600, updated=True)
    read = parse_item(item, NOW, 12.5)
    assert isinstance(read, Article)
    assert read.action is Action.UPDATED
    assert read.updated is not None
    assert abs(read.updated - NOW) < timedelta(seconds=30)


def test_a_missing_time_is_none() -> None:
    assert article(created_at="soon").created is None


@pytest.mark.parametrize(
    ("item", "word"),
    [
        ({"T": "success", "msg": "connected"}, Word("success", 0, "connected")),
        ({"T": "error", "code": 406, "msg": "limit"}, Word("error", 406, "limit")),
        ({"T": "subscription", "news": ["*"]}, Word("subscription", 0, "")),
        ({"T": "error", "code": "x", "msg": 7}, Word("error", 0, "")),
    ],
)
def test_a_word_of_the_server_is_none(item: dict[str, Any], word: Word) -> None:
    assert parse_item(item, NOW, 12.5) == word


@pytest.mark.parametrize(
    ("item", "told"),
    [
        (7, "its kind is ''"),
        ({"T": "t"}, "its kind is 't'"),
        (news_item("Up", []) | {"id": None, "url": None}, "neither id nor url"),
        (news_item("\x00", []), "no title"),
    ],
)
def test_what_is_neither_is_named(item: Any, told: str) -> None:
    with pytest.raises(NoArticleError, match=told):
        parse_item(item, NOW, 12.5)


def test_a_message_is_a_list_of_items_or_one() -> None:
    assert parse_items('[{"T": "n"}, 7]') == [{"T": "n"}, 7]
    assert parse_items('{"T": "n"}') == [{"T": "n"}]
    with pytest.raises(NoArticleError, match="not JSON"):
        parse_items("hello")


FIELDS = list(news_item("Up", []))


@given(
    st.dictionaries(
        st.sampled_from(FIELDS), st.none() | st.integers() | st.text() | st.lists(st.text())
    )
)
@hypothesis_settings(deadline=None)
def test_whatever_an_item_holds_it_is_read_or_refused(fields: dict[str, Any]) -> None:
    item = json.loads(json.dumps(news_item("Up", ["ABCD"]) | fields))
    with contextlib.suppress(NoArticleError):
        parse_item(item, NOW, 12.5)
