"""Benzinga's stream: its messages in both spellings, and a connection that is kept up."""

import asyncio
import contextlib
import itertools
import json
import logging
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from monitoring import until
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from newshead.news import stream as benzinga
from newshead.news.stream import (
    Action,
    Article,
    NewsStream,
    NoArticleError,
    StreamRefusedError,
    parse_message,
)
from newshead.settings import Settings
from simulator.news import NewsServer, news_message

KEY = "s3cret/key +1"


@pytest.fixture
async def server() -> AsyncIterator[NewsServer]:
    async with NewsServer() as running:
        yield running


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benzinga, "RETRY_S", 0.1)
    monkeypatch.setattr(benzinga, "MAX_RETRY_S", 0.2)


class Reader:
    """A stream at work and what it passed on."""

    def __init__(self, settings: Settings) -> None:
        self.articles: list[Article] = []
        self.stream = NewsStream(settings, self.articles.append)
        self.work = asyncio.create_task(self.stream.run())

    @property
    def titles(self) -> list[str]:
        return [article.title for article in self.articles]


@contextlib.asynccontextmanager
async def reading(url: str, **settings: Any) -> AsyncIterator[Reader]:
    reader = Reader(Settings(benzinga_api_key=KEY, benzinga_stream_url=url, **settings))
    try:
        yield reader
    finally:
        reader.work.cancel()
        with contextlib.suppress(asyncio.CancelledError, StreamRefusedError):
            await reader.work


def has(reader: Reader, count: int) -> bool:
    return len(reader.articles) == count


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def message(**content: Any) -> dict[str, Any]:
    """A message with these fields of its content changed; None: without it."""
    made = news_message("Up", ["ABCD"])
    for name, value in content.items():
        made["data"]["content"][name] = value
        if value is None:
            del made["data"]["content"][name]
    return made


# --- Messages ------------------------------------------------------------------


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
    article = parse_message(json.dumps(made))
    assert article[:7] == (
        *(action, "7", "https://x/7", "Up", "<b>t</b>", "<p>b</p>"),
        ("ABCD", "BRK.B"),
    )
    assert article.age_s == pytest.approx(3600, abs=10)


def test_a_removed_article_is_a_deleted_one_even_without_content() -> None:
    data = {"action": "Removed", "id": 7, "content": None}
    article = parse_message(json.dumps({"kind": "News/v1", "data": data}))
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
    article = parse_message(json.dumps(made))
    assert article.published == datetime(2026, 11, 22, 14, 30, tzinfo=UTC)


@pytest.mark.parametrize("created", [None, "no time", 1_700_000_000])
def test_an_article_without_any_time_is_new(created: Any) -> None:
    made = message(created=created)
    del made["data"]["timestamp"]
    assert parse_message(json.dumps(made)).age_s == 0


def test_a_creation_in_the_future_is_new() -> None:
    assert parse_message(json.dumps(news_message("Up", ["ABCD"], age_s=-3600))).age_s == 0


def test_the_age_counts_from_the_message_s_time_where_there_is_no_creation() -> None:
    made = message(created=None)
    made["data"]["timestamp"] = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()
    assert parse_message(json.dumps(made)).age_s == pytest.approx(300, abs=30)


@pytest.mark.parametrize(
    ("named", "tickers"),
    [
        (["aapl", "AAPL", "NASDAQ:AAPL"], ("AAPL",)),
        (["BRK.B", "BF-A", "NYSE:BRK/B"], ("BRK.B", "BF-A", "BRK/B")),
        (["BTC/USDT", "$BTC", "", "TOOLONGNAME", "ABC'; DROP TABLE x", "\u017f"], ()),
        # Another company than the one with these letters in the US.
        (["TSX:AC", "tsxv:AC", "OTC:ABCD"], ("ABCD",)),
        ([f"T{number}" for number in range(150)], tuple(f"T{number}" for number in range(100))),
    ],
)
def test_tickers_are_found_whatever_they_carry(named: list[str], tickers: tuple[str, ...]) -> None:
    assert parse_message(json.dumps(news_message("Up", named))).tickers == tickers
    exchange_in_the_symbol = [{"symbol": name} for name in named]
    assert parse_message(json.dumps(message(securities=exchange_in_the_symbol))).tickers == tickers


def test_hostile_text_becomes_one_short_line() -> None:
    article = parse_message(
        json.dumps(message(title="A\nB\x00\x1b[2J\ud800" + "x" * 2_000_000, url="u\n" * 5_000))
    )
    assert article.title.startswith("A B [2J x")
    assert (len(article.title), len(article.url)) == (1_000, 1_999)


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
        parse_message(text)


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
            assert parse_message(json.dumps(anything)).age_s >= 0


@pytest.mark.parametrize("securities", [None, "AAPL", {"symbol": "AAPL"}, ["AAPL", None, [], {}]])
def test_an_article_without_securities_is_about_no_ticker(securities: object) -> None:
    assert parse_message(json.dumps(message(securities=securities))).tickers == ()


# --- The connection ------------------------------------------------------------


async def test_articles_come_and_the_key_goes_with_the_address(server: NewsServer) -> None:
    async with reading(f"{server.url}?channels=News") as reader:
        await until(lambda: server.connected, "the connection")
        server.publish(news_message("First", ["ABCD"], body="<p>" + "x" * 3_000_000))
        server.publish(json.dumps(news_message("Second", ["ABCD"], older=True)).encode())
        await until(lambda: len(reader.articles) == 2, "the articles")
        assert reader.titles == ["First", "Second"]
        assert len(reader.articles[0].body) > 3_000_000
    assert [asked.token for asked in server.asked] == [KEY]
    await until(lambda: not server.connected, "the end of the connection")


async def test_rubbish_is_told_once_a_minute_and_counted_and_articles_go_on(
    server: NewsServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(server.url) as reader:
        await until(lambda: server.connected, "the connection")
        for _ in range(20):
            server.publish("rubbish")
        server.publish(news_message("Article", ["ABCD"]))
        await until(lambda: reader.articles, "the article")
        assert [line for line in warnings(caplog) if "left out" in line] == [
            "A message of the news stream is left out: it is not JSON (1 such messages since the "
            "last line)."
        ]
        monkeypatch.setattr(benzinga, "TELL_EVERY_S", 0.0)
        server.publish("{}")
        await until(lambda: "its kind is '' (20 such messages" in caplog.text, "the next line")
        assert (reader.stream.messages, reader.stream.no_articles) == (22, 21)


async def test_a_message_without_end_costs_the_connection_and_no_more(
    server: NewsServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benzinga, "MAX_MESSAGE_BYTES", 100_000)
    async with reading(server.url) as reader:
        await until(lambda: server.connected, "the connection")
        server.publish(news_message("Huge", ["ABCD"], body="x" * 200_000))
        await until(lambda: len(server.asked) == 2 and server.connected, "the next connection")
        server.publish(news_message("Article", ["ABCD"]))
        await until(lambda: reader.titles == ["Article"], "the article")
    assert "The news stream was lost (closed: 1009" in caplog.text


async def test_a_dropped_stream_is_connected_again_and_the_gap_is_told(
    server: NewsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with reading(server.url) as reader:
        for count, title in enumerate(("First", "Second", "Third"), 1):
            await until(lambda: server.connected, "the connection")
            server.publish(news_message(title, ["ABCD"]))
            await until(partial(has, reader, count), "the article")
            server.drop()
            await until(lambda: not server.connected, "the drop")
            await until(partial(tells_gaps, caplog, count), "the line about it")
    assert reader.titles == ["First", "Second", "Third"]
    assert len([line for line in warnings(caplog) if "There was no news from" in line]) == 3


def tells_gaps(caplog: pytest.LogCaptureFixture, count: int) -> bool:
    return caplog.text.count("There was no news from") >= count


async def test_a_server_that_restarts_is_found_again_and_told_of_once(
    server: NewsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with reading(server.url) as reader:
        await until(lambda: server.connected, "the connection")
        await server.__aexit__()
        await until(lambda: "No connection to the news stream" in caplog.text, "the line")
        await asyncio.sleep(1)
        await server.__aenter__()
        await until(lambda: server.connected, "the next connection")
        server.publish(news_message("Article", ["ABCD"]))
        await until(lambda: reader.articles, "the article")
    assert len([line for line in warnings(caplog) if "No connection" in line]) == 1


async def test_a_stream_that_falls_silent_is_given_up(
    server: NewsServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benzinga, "PING_EVERY_S", 0.3)
    monkeypatch.setattr(benzinga, "PING_TIMEOUT_S", 1.0)
    async with reading(server.url):
        await until(lambda: server.connected, "the connection")
        server.fall_silent()
        await until(lambda: server.connected, "the next connection")
    assert "keepalive ping timeout" in caplog.text


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_ends_the_stream_with_what_to_do(
    server: NewsServer, status: int
) -> None:
    server.refuse_with = status
    async with reading(server.url) as reader:
        with pytest.raises(StreamRefusedError, match=f"HTTP {status}.*BENZINGA_API_KEY"):
            await reader.work
    assert len(server.asked) == 1


def pauses(server: NewsServer) -> list[float]:
    return [after.at - before.at for before, after in itertools.pairwise(server.asked)]


async def test_a_key_that_is_connected_already_waits_longer(
    server: NewsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benzinga, "LIMITED_RETRY_S", 1.0)
    monkeypatch.setattr(benzinga, "MAX_LIMITED_RETRY_S", 5.0)
    server.refuse_with = 429
    async with reading(server.url):
        await until(lambda: len(server.asked) == 3, "three attempts")
        assert pauses(server)[0] > 0.75
        assert pauses(server)[1] > 1.5
        server.refuse_with = 0
        await until(lambda: server.connected, "the connection")


async def test_a_server_that_says_when_to_come_again_is_believed(server: NewsServer) -> None:
    server.refuse_with, server.retry_after = 429, "1"
    async with reading(server.url):
        await until(lambda: len(server.asked) == 3, "three attempts")
    # Without that word, the first pause after a 429 is 30 s.
    assert all(1 <= pause < 10 for pause in pauses(server))


async def test_a_refusal_with_that_word_twice_is_an_ordinary_one() -> None:
    def refuse(connection: ServerConnection, _: Request) -> Response:
        response = connection.respond(503, "")
        response.headers["Retry-After"] = "0"
        response.headers["Retry-After"] = "999"
        return response

    async def nobody(_: ServerConnection) -> None:
        raise AssertionError("a client was accepted")

    async with serve(nobody, "127.0.0.1", 0, process_request=refuse) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with reading(f"ws://127.0.0.1:{port}/") as reader:
            await asyncio.sleep(1)
            assert not reader.work.done()


async def test_a_server_that_is_out_of_order_is_asked_again_and_told_of_once(
    server: NewsServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.refuse_with = 503
    async with reading(server.url):
        await until(lambda: len(server.asked) == 4, "four attempts")
        server.refuse_with = 0
        await until(lambda: server.connected, "the connection")
    assert len([line for line in warnings(caplog) if "HTTP status 503" in line]) == 1


@pytest.mark.parametrize("wanted", [False, True])
async def test_a_text_ping_is_sent_where_it_is_wanted(
    server: NewsServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wanted: bool,
) -> None:
    monkeypatch.setattr(benzinga, "TEXT_PING_EVERY_S", 0.05)
    async with reading(server.url, benzinga_text_ping=wanted) as reader:
        await until(lambda: server.connected, "the connection")
        if wanted:
            await until(lambda: len(server.received) > 2, "the pings")
        else:
            await asyncio.sleep(0.5)
        server.publish(news_message("Article", ["ABCD"]))
        await until(lambda: reader.articles, "the article")
    assert set(server.received) == ({"ping"} if wanted else set())
    assert not warnings(caplog)


async def test_the_key_stands_in_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    faults = itertools.count()

    def answer(connection: ServerConnection, request: Request) -> Response | None:
        # What was asked for, with the key as it stood in the address.
        query = request.path.partition("?")[2]
        match next(faults):
            case 0:
                response = connection.respond(302, "")
                response.headers["Location"] = f"http://elsewhere/?{query}#"
                return response
            case 1:
                response = connection.respond(302, "")
                response.headers["Location"] = f"/?{query}"
                return response
            case 2:
                return connection.respond(503, query)
            case 3:
                response = connection.respond(101, query)
                response.headers["Upgrade"] = query
                return response
        return None

    async def close(connection: ServerConnection) -> None:
        assert connection.request is not None
        query = connection.request.path.partition("?")[2]
        await connection.send(f'{{"kind": "{query}"}}')
        await connection.close(1008, f"{KEY} and {query} have expired")

    async with serve(close, "127.0.0.1", 0, process_request=answer) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with reading(f"ws://127.0.0.1:{port}/"):
            await until(lambda: "(the key)" in caplog.text, "all the faults")
        async with reading(f"ws://127.0.0.1:{port}/#fragment"):
            await until(lambda: "Connected" in caplog.text, "a connection")
    told = [
        r.getMessage() + str(r.exc_text or "")
        for r in caplog.records
        if r.name == benzinga.__name__
    ]
    assert len(told) > 3
    for spelling in (KEY, "s3cret"):
        assert spelling not in caplog.text


async def test_cancelling_ends_a_stream_that_does_not_answer_in_its_time(
    server: NewsServer,
) -> None:
    async with reading(server.url):
        await until(lambda: server.connected, "the connection")
        server.fall_silent()
        began = time.monotonic()
    assert time.monotonic() - began < 5 * benzinga.CLOSE_TIMEOUT_S
