"""A message, in either of the vendor's spellings, becomes an article or is refused by name."""

import contextlib
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from newshead.news.message import Action, Article, NoArticleError, WordsError, parse_message
from simulator.news import news_message

# Messages of the simulator name the times of now.
NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def _it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times that are ahead of NOW are none, and these tests may run minutes after the import."""
    monkeypatch.setitem(globals(), "NOW", datetime.now(UTC))


def parsed(text: str | bytes) -> Article:
    return parse_message(text, NOW, 12.5)


def message(**content: Any) -> dict[str, Any]:
    """A message with these fields of its content changed; None: without it."""
    made = news_message("Up", ["ABCD"])
    for name, value in content.items():
        made["data"]["content"][name] = value
        if value is None:
            del made["data"]["content"][name]
    return made


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("action", list(Action))
def test_an_article_is_read_in_both_spellings(older: bool, action: Action) -> None:
    made = news_message(
        "Up",
        ["ABCD", "NYSE:brk.b"],
        action=action,
        article_id=7,
        url="https://x/7",
        teaser="<b>t</b>",
        body="<p>b</p>",
        age_s=3600,
        older=older,
    )
    article = parsed(json.dumps(made))
    assert article[:6] == (action, "7", "https://x/7", "Up", "<b>t</b>", "<p>b</p>")
    assert article.tickers == ("ABCD", "BRK.B")
    assert article.channels == {"NEWS"}
    assert article.updated is not None
    assert abs((article.updated - NOW).total_seconds()) < 600
    assert article.age_s == pytest.approx(3600, abs=600)
    assert (article.received, article.received_at) == (NOW, 12.5)


def test_a_removed_article_is_a_deleted_one_even_without_content() -> None:
    data = {"action": "Removed", "id": 7, "content": None}
    article = parsed(json.dumps({"kind": "News/v1", "data": data}))
    assert (article.action, article.id, article.tickers) == (Action.DELETED, "7", ())


@pytest.mark.parametrize(
    "created",
    [
        "2026-11-22T09:30:00-05:00",
        "2026-11-22T14:30:00.000Z",
        "Sun, 22 Nov 2026 09:30:00 -0500",
    ],
)
@pytest.mark.parametrize("field", ["created", "created_at"])
def test_the_creation_is_read_as_iso_8601_and_rfc_2822(field: str, created: str) -> None:
    made = message(created=None)
    made["data"]["content"][field] = created
    article = parsed(json.dumps(made))
    assert article.published == datetime(2026, 11, 22, 14, 30, tzinfo=UTC)


@pytest.mark.parametrize("created", [None, "no time", 1_700_000_000])
def test_an_article_without_any_time_is_new(created: Any) -> None:
    made = message(created=created)
    del made["data"]["timestamp"]
    assert parsed(json.dumps(made)).age_s == 0


@pytest.mark.parametrize(("ahead_s", "counts"), [(50, True), (70, False)])
def test_a_time_over_a_minute_ahead_is_no_time(ahead_s: float, counts: bool) -> None:
    ahead = (NOW + timedelta(seconds=ahead_s)).isoformat()
    made = message(created=ahead, updated=ahead)
    del made["data"]["timestamp"]
    article = parsed(json.dumps(made))
    assert (article.created is not None) is (article.updated is not None) is counts
    assert (article.age_s, round(article.ahead_s)) == (0, ahead_s)


@pytest.mark.parametrize(
    "channels", [["Block Trades", "movers"], [{"name": "Block trades"}, {"name": "Movers"}]]
)
def test_channels_are_read_without_case_and_blanks(channels: object) -> None:
    assert parsed(json.dumps(message(channels=channels))).channels == {"BLOCKTRADES", "MOVERS"}


def test_the_age_counts_from_the_message_s_time_where_there_is_no_creation() -> None:
    made = message(created=None)
    made["data"]["timestamp"] = (NOW - timedelta(minutes=5)).isoformat()
    assert parsed(json.dumps(made)).age_s == pytest.approx(300, abs=30)


def test_a_title_comes_without_markup() -> None:
    article = parsed(json.dumps(message(title="<b>A&amp;B</b>: What&#39;s <ABC>?")))
    assert article.title == "A&B: What's <ABC>?"


def test_hostile_text_becomes_one_short_line() -> None:
    article = parsed(
        json.dumps(message(title="A\nB\x00\x1b[2J\ud800" + "x" * 2_000_000, url="u\n" * 5_000))
    )
    assert article.title.startswith("A B [2J x")
    assert (len(article.title), len(article.url)) == (1_000, 1_999)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"message": "license expired"}', "license expired"),
        ('{"status": "error", "message": "too many\\nconnections"}', "error: too many connections"),
        ('{"error": {"msg": "no entitlement"}}', "no entitlement"),
        ('{"kind": "error", "data": {"message": "slow client"}}', "slow client"),
    ],
)
def test_the_server_s_own_words_are_told_as_such(text: str, told: str) -> None:
    with pytest.raises(WordsError, match=f"^{told}$"):
        parsed(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hello", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
        ("9" * 10_000, "it is not JSON"),
        ("[]", "its kind is ''"),
        ('{"kind": "ratings"}', "its kind is 'ratings'"),
        ('{"kind": "news", "data": 1}', "its action is ''"),
        ('{"kind": "news", "data": {"action": "sold"}}', "its action is 'sold'"),
        ('{"kind": "news", "data": {"action": "created"}}', "it has neither id nor url"),
        (json.dumps(message(title="\x00")), "it has no title"),
        (json.dumps(message(title=["x"])), "it has no title"),
    ],
)
def test_what_is_no_article_is_named(text: str | bytes, told: str) -> None:
    with pytest.raises(NoArticleError, match=told):
        parsed(text)


FIELDS = (
    *("kind", "data", "action", "timestamp", "content", "id", "url", "title", "teaser", "body"),
    *("created", "securities", "stocks", "symbol", "name", "exchange"),
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(FIELDS), ANYTHING), ANYTHING)
@hypothesis_settings(deadline=None)
def test_whatever_a_message_holds_it_is_an_article_or_none(
    fields: dict[str, Any], other: object
) -> None:
    made = news_message("Up", ["ABCD"])
    made["data"]["content"] |= fields
    made["data"]["timestamp"] = other
    for anything in (made, other):
        with contextlib.suppress(NoArticleError):
            assert parsed(json.dumps(anything)).age_s >= 0


def test_an_article_without_securities_is_about_no_ticker() -> None:
    assert parsed(json.dumps(message(securities=None))).securities == ()


def test_a_message_that_is_larger_than_any_article_is_not_read() -> None:
    with pytest.raises(NoArticleError, match=r"^12\.0 MiB, and no article is larger than 2 MiB$"):
        parsed(json.dumps(message(body="x" * 12 * 2**20)))


def test_of_endless_names_the_first_thousand_are_read() -> None:
    names = [f"A{number}" for number in range(50_000)]
    began = time.monotonic()
    article = parsed(json.dumps(message(securities=names, channels=names, url="x " * 100_000)))
    assert time.monotonic() - began < 1
    assert (len(article.securities), len(article.channels), len(article.url)) == (1000, 1000, 1999)
