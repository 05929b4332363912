"""Feeds of press releases over real HTTP: polled politely, each release passed on once."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from monitoring import until

from newshead.core.parts import PartState
from newshead.news import reconnect, wires
from newshead.news.message import Article
from newshead.news.wires import Wires
from newshead.settings import Settings
from simulator.feeds import FeedServer

SOUND_PAUSE_S = wires.HOST_PAUSE_S


@pytest.fixture
async def feed() -> AsyncIterator[FeedServer]:
    async with FeedServer() as running:
        yield running


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(wires, "HOST_PAUSE_S", 0.2)
    monkeypatch.setattr(reconnect, "PAUSES_S", (0.1, 0.2))
    caplog.set_level(logging.INFO)


class Reader:
    """The wires at work and what they passed on."""

    def __init__(self, *feeds: str, **settings: Any) -> None:
        self.articles: list[Article] = []
        self.wires = Wires(Settings(wire_feeds=feeds, **settings), self.articles.append)
        self.work = asyncio.create_task(self.wires.run())

    @property
    def titles(self) -> list[str]:
        return [article.title for article in self.articles]


@contextlib.asynccontextmanager
async def reading(*feeds: str, **settings: Any) -> AsyncIterator[Reader]:
    reader = Reader(*feeds, **settings)
    try:
        yield reader
    finally:
        reader.work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader.work


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


async def test_a_release_comes_once_and_only_those_of_the_first_poll_may_be_old(
    feed: FeedServer,
) -> None:
    feed.publish("Before", "(NASDAQ: ABCD)", age_s=30)
    async with reading(feed.url) as reader:
        await until(lambda: reader.articles, "the first poll")
        feed.publish("Now", "(NYSE American: EFGH)")
        await until(lambda: len(reader.articles) == 2, "the release")
        await until(lambda: feed.requests[-1].status == 304, "a poll without news")
        feed.publish("Later", "")
        await until(lambda: len(reader.articles) == 3, "the last release")
    assert [(a.title, a.replayed) for a in reader.articles] == [
        *(("Before", True), ("Now", False), ("Later", False))
    ]
    assert [article.tickers for article in reader.articles] == [("ABCD",), ("EFGH",), ()]
    assert (reader.wires.messages, reader.wires.state) == (3, PartState.OK)
    assert feed.requests[0].headers["user-agent"].startswith("newshead/")


async def test_a_host_is_asked_with_pauses_however_many_feeds_it_has(
    feed: FeedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SOUND_PAUSE_S == 5
    monkeypatch.setattr(wires, "HOST_PAUSE_S", 0.5)
    async with reading(feed.url, f"{feed.url}?2", f"{feed.url}?3"):
        await until(lambda: len(feed.requests) == 5, "five polls")
    pauses = [after.at - before.at for before, after in itertools.pairwise(feed.requests)]
    assert min(pauses) > 0.3


async def test_the_same_release_of_two_feeds_is_about_its_stock_once() -> None:
    async with (
        FeedServer() as one,
        FeedServer() as other,
        reading(one.url, other.url) as reader,
    ):
        await until(lambda: one.requests and other.requests, "the first polls")
        one.publish("Firm Wins", "(NASDAQ: ABCD)")
        await until(lambda: len(reader.articles) == 1, "the release")
        other.publish("FIRM WINS", "(NASDAQ: ABCD)")
        await until(lambda: len(reader.articles) == 2, "the same release")
    assert [article.tickers for article in reader.articles] == [("ABCD",), ()]


async def test_a_slow_feed_is_told_at_the_start_and_asked_as_rarely_as_it_says(
    feed: FeedServer, caplog: pytest.LogCaptureFixture
) -> None:
    feed.ttl = "15"
    async with reading(f"{feed.url}?token=s3cret"):
        await until(lambda: warnings(caplog), "the line")
        await asyncio.sleep(1)
    assert len(feed.requests) == 1
    [line] = warnings(caplog)
    assert "/rss may be asked only every 15 minutes: too slow" in line
    assert "s3cret" not in caplog.text


async def test_a_feed_that_fails_is_told_once_and_the_others_go_on(
    feed: FeedServer, caplog: pytest.LogCaptureFixture
) -> None:
    feed.status = 503
    async with FeedServer() as other, reading(feed.url, other.url) as reader:
        await until(lambda: len(feed.requests) > 3, "some attempts")
        assert reader.wires.reason.startswith("1 of 2 feeds fail")
        other.publish("Other", "(NASDAQ: ABCD)")
        await until(lambda: reader.titles == ["Other"], "the other feed's release")
        feed.status, feed.content = 200, b"<html>No</html>"
        await until(lambda: len(warnings(caplog)) == 2, "the next reason")
        feed.content = None
        feed.publish("One", "(NASDAQ: ABCD)")
        await until(lambda: reader.titles == ["Other", "One"], "the release")
    assert ["HTTP status 503" in warnings(caplog)[0], "no RSS" in warnings(caplog)[1]] == [True] * 2
    assert "works again" in caplog.text


async def test_a_feed_that_says_when_to_come_again_is_believed(feed: FeedServer) -> None:
    feed.status, feed.retry_after = 429, "2"
    async with reading(feed.url):
        await until(lambda: feed.requests, "the first poll")
        await asyncio.sleep(1)
        assert len(feed.requests) == 1
        await until(lambda: len(feed.requests) == 2, "the next poll")


async def test_releases_in_other_languages_are_left_out(feed: FeedServer) -> None:
    feed.publish("Hausse", "(NASDAQ: ABCD)", language="fr")
    feed.publish("Up", "(NASDAQ: ABCD)", language="en")
    async with reading(feed.url) as reader:
        await until(lambda: reader.articles, "the release")
    assert reader.titles == ["Up"]
    async with reading(feed.url, wire_languages=("en", "fr")) as reader:
        await until(lambda: len(reader.articles) == 2, "the releases")
