"""Alpaca's stream over a real WebSocket: its handshake, its errors, and what a gap costs."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest
from monitoring import until

from newshead.news import alpaca, reconnect
from newshead.news.alpaca import AlpacaStream
from newshead.news.message import Article
from newshead.news.source import SourceRefusedError
from newshead.settings import Settings
from simulator.alpaca import AlpacaServer, news_item

KEY, SECRET = "k3y/of+mine", "s3cret of mine"


@pytest.fixture
async def server() -> AsyncIterator[AlpacaServer]:
    async with AlpacaServer() as running:
        yield running


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(reconnect, "PAUSES_S", (0.1, 0.2))
    caplog.set_level(logging.DEBUG)


class Reader:
    """A stream at work and what it passed on."""

    def __init__(self, server: AlpacaServer) -> None:
        settings = Settings(
            alpaca_api_key=KEY, alpaca_api_secret=SECRET, alpaca_stream_url=server.url
        )
        self.articles: list[Article] = []
        self.work = asyncio.create_task(AlpacaStream(settings, self.articles.append).run())


@contextlib.asynccontextmanager
async def reading(server: AlpacaServer) -> AsyncIterator[Reader]:
    reader = Reader(server)
    try:
        yield reader
    finally:
        reader.work.cancel()
        with contextlib.suppress(asyncio.CancelledError, SourceRefusedError):
            await reader.work


async def test_all_articles_of_a_message_come_and_the_keys_go_as_headers(
    server: AlpacaServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with reading(server) as reader:
        await until(lambda: server.subscribed, "the subscription")
        server.publish(news_item("First", ["ABCD"]), {"T": "?"}, news_item("Second", ["EFGH"]))
        await until(lambda: len(reader.articles) == 2, "the articles")
    assert [article.title for article in reader.articles] == ["First", "Second"]
    assert server.asked == [(KEY, SECRET)]
    assert server.received == ['{"action": "subscribe", "news": ["*"]}']
    assert "Ignored a message of Alpaca's news stream: its kind is '?'" in caplog.text
    assert not [secret for secret in (KEY, SECRET) if secret in caplog.text]


async def test_a_dropped_stream_is_connected_again_and_its_gap_is_told(
    server: AlpacaServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with reading(server) as reader:
        await until(lambda: server.subscribed, "the subscription")
        server.drop()
        await until(lambda: not server.subscribed, "the drop")
        await until(lambda: server.subscribed, "the next subscription")
        server.publish(news_item("After", ["ABCD"]))
        await until(lambda: reader.articles, "the article")
    assert caplog.text.count("UTC (0 s): Alpaca's news stream was lost.") == 1


async def test_a_connection_too_many_is_tried_again_and_told_once(
    server: AlpacaServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.error = 406
    async with reading(server):
        await until(lambda: len(server.asked) == 4, "four attempts")
        server.error = 0
        await until(lambda: server.subscribed, "the subscription")
    told = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert [r.getMessage().partition(" (")[2] for r in told] == [
        "error 406: the reason of 406); retrying until it works."
    ]


@pytest.mark.parametrize("code", [402, 409])
async def test_refused_keys_end_the_stream_with_what_to_do(server: AlpacaServer, code: int) -> None:
    server.error = code
    async with reading(server) as reader:
        with pytest.raises(SourceRefusedError, match=f"{code}.*ALPACA_API_KEY and ALPACA_API_SE"):
            await reader.work
    assert len(server.asked) == 1


async def test_a_server_that_never_subscribes_is_given_up(
    server: AlpacaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alpaca, "OPEN_TIMEOUT_S", 0.2)
    server.subscribes = False
    async with reading(server):
        await until(lambda: len(server.asked) == 2, "the next attempt")
