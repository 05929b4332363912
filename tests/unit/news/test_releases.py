"""Press releases: the stocks that they name, their language and time, and the same one again."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from newshead.news.exchanges import Listing
from newshead.news.message import Article
from newshead.news.releases import (
    SAME_WITHIN_S,
    Feed,
    NoFeedError,
    SameReleases,
    named_in,
    read_feed,
)
from simulator.feeds import FeedServer

NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def _it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times that are ahead of NOW are none, and these tests may run minutes after the import."""
    monkeypatch.setitem(globals(), "NOW", datetime.now(UTC))


def read(content: bytes, languages: tuple[str, ...] = ("en",)) -> Feed:
    return read_feed(content, {}, NOW, 12.5, source="wire.example", languages=languages)


def feed(**release: Any) -> FeedServer:
    server = FeedServer()
    server.publish(**({"title": "Up"} | release))
    return server


@pytest.mark.parametrize(
    ("text", "tickers"),
    [
        ("Firm (NASDAQ: ABCD) said", ["ABCD"]),
        ("Firm (Nasdaq:ABCD) and (NYSE American: XYZ)", ["ABCD", "XYZ"]),
        ("Firm [OTCQB: QRST]", ["QRST"]),
        ("Firm (NYSE: ABC, ABC.PRA)", ["ABC", "ABC.PRA"]),
        ("Firm (NASDAQ: ABCD; TSX: AC)", ["ABCD"]),
        ("Firm (TSX: SHOP and NYSE: SHOP)", ["SHOP"]),
        ("Firm (NYSE/TSX: ABC)", ["ABC"]),
        ("Firm (TSX and NYSE: ABC)", ["ABC"]),
        ("Firm (Nasdaq Global Select Market: ABCD) (OTC Pink: EFGH)", ["ABCD", "EFGH"]),
        ('Firm ("Firm", NASDAQ: "ABCD")', ["ABCD"]),
        ("Firm (NASDAQ\uff1aABCD)", ["ABCD"]),
        ("(Source: IT) (Note: A) (CEO: B) NASDAQ: ABCD", []),
        ("Firm (TSX: AC) (Nasdaq Stockholm: ERIC) (FSE: 7XY)", []),
        ("(NASDAQ: ) (NASDAQ) ((:;,)) (and: and)", []),
    ],
)
def test_a_stock_is_named_with_its_exchange_in_brackets(text: str, tickers: list[str]) -> None:
    assert [s.symbol for s in named_in(text) if s.listing is Listing.US] == tickers


def test_a_release_is_an_article() -> None:
    server = feed(
        title="A&amp;B &lt;ABC&gt; wins",
        text="<p>A&amp;B (NYSE: <b>AB</b>) wins.</p>",
        age_s=90,
        link="https://x/7",
        stocks=["Nasdaq:EFGH"],
    )
    [article] = read(server.feed()).articles
    assert (article.title, article.url) == ("A&B <ABC> wins", "https://x/7")
    assert article.tickers == ("AB", "EFGH")
    assert article.teaser == "<p>A&amp;B (NYSE: <b>AB</b>) wins.</p>"
    assert article.age_s == pytest.approx(90, abs=30)
    assert (article.source, article.received_at) == ("wire.example", 12.5)


def test_atom_is_read_too() -> None:
    [article] = read(
        b"""<feed xmlns="http://www.w3.org/2005/Atom"><title>A wire</title><entry>
        <id>urn:7</id><title>Up</title><link href="https://x/7"/>
        <updated>2026-11-22T09:30:00-05:00</updated>
        <content type="html">&lt;p&gt;(NASDAQ: ABCD)&lt;/p&gt;</content></entry></feed>"""
    ).articles
    assert (article.id, article.url, article.tickers) == ("urn:7", "https://x/7", ("ABCD",))
    assert article.created == datetime(2026, 11, 22, 14, 30, tzinfo=UTC)


def test_releases_come_oldest_first() -> None:
    server = feed(title="First")
    server.publish("Second")
    assert [article.title for article in read(server.feed()).articles] == ["First", "Second"]


def test_known_releases_are_passed_over() -> None:
    server = feed(title="First", link="https://x/1")
    server.publish("Second", link="https://x/2")
    found = read_feed(
        server.feed(), {}, NOW, 12.5, source="", languages=["en"], known=["https://x/1"]
    )
    assert [article.title for article in found.articles] == ["Second"]


@pytest.mark.parametrize(
    ("of_feed", "of_release", "taken"),
    [
        ("", "", True),
        ("en-US", "", True),
        ("en", "fr", False),
        ("de", "", False),
        ("de", "EN", True),
    ],
)
def test_a_release_is_in_the_declared_language_or_else_in_english(
    of_feed: str, of_release: str, taken: bool
) -> None:
    server = feed(language=of_release)
    server.language = of_feed
    found = read(server.feed())
    assert (len(found.articles), found.left_out) == ((1, 0) if taken else (0, 1))


def test_a_release_that_names_no_time_or_one_to_come_is_undated() -> None:
    for age_s in (None, -3600):
        assert read(feed(age_s=age_s).feed()).articles[0].created is None


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [("", 0), ("1", 60), (" 15 ", 900), ("soon", 0), ("-5", 0), ("9" * 9, 86_400)],
)
def test_the_time_to_live_is_read_in_minutes(ttl: str, seconds: float) -> None:
    server = feed()
    server.ttl = ttl
    assert read(server.feed()).ttl_s == seconds


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"<html><body>No</body></html>", b"\xff\xfe", b"{}"]
)
def test_what_is_no_feed_is_refused(content: bytes) -> None:
    with pytest.raises(NoFeedError):
        read(content)


def test_a_broken_feed_is_read_as_far_as_it_goes() -> None:
    content = feed(title="Whole").feed().replace(b"</channel></rss>", b"<item><title>Half & ")
    assert "Whole" in [article.title for article in read(content).articles]


def test_entities_neither_cost_time_nor_read_files() -> None:
    began = time.process_time()
    grown = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    doctype = f'<!DOCTYPE x [<!ENTITY e0 "lol">{grown}<!ENTITY f SYSTEM "file:///etc/passwd">]>'
    for name in ("e11", "f"):
        content = feed(title="T").feed().replace(b"?><rss", f"?>{doctype}<rss".encode())
        content = content.replace(b"<title>T<", f"<title>T &{name};<".encode())
        for article in read(content).articles:
            assert len(article.title) <= 1_000
            assert "root" not in article.title
    assert time.process_time() - began < 10


def release(title: str, text: str) -> Article:
    return read(feed(title=title, text=text).feed()).articles[0]


def test_the_same_release_is_news_once_within_ten_minutes() -> None:
    same = SameReleases()
    first = release("Firm Wins", "(NASDAQ: ABCD)")
    again = release("FIRM WINS", "(NASDAQ: ABCD) (NYSE: EFG)")
    assert same.without_known(first, 100.0).tickers == ("ABCD",)
    assert same.without_known(again, 101.0).tickers == ("EFG",)
    assert same.without_known(release("Other", "(NASDAQ: ABCD)"), 102.0).tickers == ("ABCD",)
    assert same.without_known(first, 101.0 + SAME_WITHIN_S).tickers == ("ABCD",)
    assert timedelta(seconds=SAME_WITHIN_S) == timedelta(minutes=10)
