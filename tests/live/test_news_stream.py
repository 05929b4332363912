"""Benzinga's stream: a connection that is kept up, and what it costs when it is not."""

import asyncio
import contextlib
import itertools
import json
import logging
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from monitoring import until
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from newshead import outage
from newshead.news import benzinga, reconnect, stream
from newshead.news.benzinga import BenzingaStream
from newshead.news.message import Article
from newshead.news.source import SourceRefusedError
from newshead.settings import Settings
from simulator.news import NewsServer, news_message

KEY = "s3cret/key +1"
PAUSES_S = reconnect.PAUSES_S


@pytest.fixture
async def server() -> AsyncIterator[NewsServer]:
    async with NewsServer() as running:
        yield running


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "PAUSES_S", (0.1, 0.2))


class Reader:
    """A stream at work and what it passed on."""

    def __init__(self, settings: Settings) -> None:
        self.articles: list[Article] = []
        self.stream = BenzingaStream(settings, self.articles.append)
        self.work = asyncio.create_task(self.stream.run())

    @property
    def titles(self) -> list[str]:
        return [article.title for article in self.articles]


@contextlib.asynccontextmanager
async def reading(url: str, *, replay: bool = False, **settings: Any) -> AsyncIterator[Reader]:
    """A reader at work. The answer to `replay` may bring what a test published just now again."""
    settings |= {"benzinga_stream_url": url, "benzinga_replay": replay}
    reader = Reader(Settings(benzinga_api_key=KEY, **settings))
    try:
        yield reader
    finally:
        reader.work.cancel()
        with contextlib.suppress(asyncio.CancelledError, SourceRefusedError):
            await reader.work


def has(reader: Reader, count: int) -> bool:
    return len(reader.articles) == count


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


async def test_articles_come_and_the_key_goes_with_the_address(server: NewsServer) -> None:
    async with reading(f"{server.url}?channels=News") as reader:
        await until(lambda: server.connected, "the connection")
        server.publish(news_message("First", ["ABCD"], body="<p>" + "x" * 1_500_000))
        server.publish(json.dumps(news_message("Second", ["ABCD"], older=True)).encode())
        await until(lambda: len(reader.articles) == 2, "the articles")
        assert reader.titles == ["First", "Second"]
        assert len(reader.articles[0].body) > 1_500_000
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
        assert [line for line in warnings(caplog) if "Ignored" in line] == [
            "Ignored a message of the news stream: it is not JSON (1 such messages since the "
            "last line)."
        ]
        monkeypatch.setattr(outage, "SAY_EVERY_S", 0.0)
        server.publish("{}")
        await until(lambda: "its kind is '' (20 such messages" in caplog.text, "the next line")
        assert (reader.stream.messages, reader.stream.no_articles) == (22, 21)


async def test_the_stream_s_own_words_are_told_once_a_minute_each(
    server: NewsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with reading(server.url) as reader:
        await until(lambda: server.connected, "the connection")
        for _ in range(3):
            server.publish({"message": "license expired"})
        server.publish({"status": "error", "message": f"unknown key {KEY}"})
        server.publish(news_message("Article", ["ABCD"]))
        await until(lambda: reader.articles, "the article")
    assert [line for line in warnings(caplog) if "says" in line] == [
        "The server of the news stream says: license expired",
        "The server of the news stream says: error: unknown key (the key)",
    ]
    assert reader.stream.no_articles == 0


async def test_a_message_without_end_costs_the_connection_and_no_more(
    server: NewsServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MAX_MESSAGE_BYTES", 100_000)
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
    assert len([line for line in warnings(caplog) if "No news between" in line]) == 3


def tells_gaps(caplog: pytest.LogCaptureFixture, count: int) -> bool:
    return caplog.text.count("No news between") >= count


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
    monkeypatch.setattr(stream, "PING_EVERY_S", 0.3)
    monkeypatch.setattr(stream, "PING_TIMEOUT_S", 1.0)
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
        with pytest.raises(SourceRefusedError, match=f"HTTP {status}.*BENZINGA_API_KEY"):
            await reader.work
    assert len(server.asked) == 1


def pauses(server: NewsServer) -> list[float]:
    return [after.at - before.at for before, after in itertools.pairwise(server.asked)]


async def test_a_slot_that_is_freed_after_4_s_costs_under_8_s_and_no_article(
    server: NewsServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reconnect, "PAUSES_S", PAUSES_S)
    async with reading(server.url, replay=True) as reader:
        await until(lambda: server.received, "the first request for a replay")
        server.publish(news_message("Before", ["ABCD"]))
        await until(partial(has, reader, 1), "the article")
        server.slot_s = 4.0
        dropped = time.monotonic()
        server.drop()
        await until(lambda: not server.connected, "the drop")
        server.publish(news_message("Meanwhile", ["ABCD"]))
        await until(lambda: server.connected, "the next connection")
        away_s = time.monotonic() - dropped
        await until(lambda: len(reader.articles) == 3, "the replay")
    assert 4.0 < away_s < 8.0
    assert [asked.accepted for asked in server.asked] == [True, False, True]
    assert reader.titles == ["Before", "Before", "Meanwhile"]
    assert [article.replayed for article in reader.articles][1:] == [True, True]
    assert "the news stream was lost; asking it to send that again." in caplog.text


async def test_a_replay_is_asked_for_at_the_start_too_unless_it_is_not_wanted(
    server: NewsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnect, "REPLAY_LASTS_S", 0.5)
    server.publish(news_message("Before", ["ABCD"]))
    async with reading(server.url, replay=True) as reader:
        await until(partial(has, reader, 1), "the replay")
        await asyncio.sleep(0.6)
        server.publish(news_message("Now", ["ABCD"]))
        await until(partial(has, reader, 2), "the article")
    assert [(a.title, a.replayed) for a in reader.articles] == [("Before", True), ("Now", False)]
    async with reading(server.url) as reader:
        await until(lambda: server.connected, "the connection")
        server.publish(news_message("Later", ["ABCD"]))
        await until(lambda: reader.articles, "the article")
    assert [(a.title, a.replayed) for a in reader.articles] == [("Later", False)]
    assert server.received == ["replay"]


async def test_a_stream_that_ends_at_the_first_text_is_asked_for_no_further_replay(
    server: NewsServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.text_ends = True
    async with reading(server.url, replay=True) as reader:
        await until(lambda: len(server.asked) == 2 and server.connected, "the next connection")
        server.publish(news_message("Article", ["ABCD"]))
        await until(lambda: reader.articles, "the article")
    assert server.received == ["replay"]
    assert not reader.articles[0].replayed
    assert len([line for line in warnings(caplog) if "BENZINGA_REPLAY=false" in line]) == 1


async def test_a_server_that_says_when_to_come_again_is_believed(server: NewsServer) -> None:
    server.refuse_with, server.retry_after = 429, "1"
    async with reading(server.url):
        await until(lambda: len(server.asked) == 3, "three attempts")
    # Without that word, the pauses are those above.
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
        r.getMessage() + str(r.exc_text or "") for r in caplog.records if r.name == stream.__name__
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
    assert time.monotonic() - began < 5 * stream.CLOSE_TIMEOUT_S
