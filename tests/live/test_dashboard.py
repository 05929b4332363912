"""The page's server over HTTP: who may see it, what it tells, and what it asks of the database."""

import asyncio
import csv
import io
import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from clickhouse_server import ClickHouseServer
from deadlines import DEADLINE_S
from watching import (
    ago,
    noon_of_yesterday,
    served,
    write_alerts,
    write_news,
    write_part,
    write_prices,
    write_status,
)

import dashboard.access
import dashboard.connections
import dashboard.feed
from clickhouse_manager import ClickHouseManager
from dashboard import earlier, queries
from dashboard.server import STATIC, listen
from newshead.settings import ConfigurationError, Settings

RISE = [2.0, 2.0, 2.0, 2.02, 2.2]
PASSWORD = "pass:wörd"


@asynccontextmanager
async def follow(url: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The updates of the feed, as the page gets them."""

    async def updates(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))

    async with (
        httpx.AsyncClient(timeout=DEADLINE_S) as client,
        client.stream("GET", f"{url}feed") as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield updates(answer)


async def until(updates: AsyncIterator[dict[str, Any]], holds: Any) -> dict[str, Any]:
    async with asyncio.timeout(DEADLINE_S):
        async for update in updates:
            if holds(update):
                return update
    pytest.fail("the feed ended")


def tickers(update: dict[str, Any]) -> list[str]:
    return sorted(card["ticker"] for card in update["cards"])


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# --- Who may see it ---------------------------------------------------------


@pytest.mark.usefixtures("session")
async def test_everything_is_served_with_the_security_headers(page_settings: Settings) -> None:
    async with served(page_settings) as url, httpx.AsyncClient() as client:
        for path in ("", "static/page.js", "csv/cards.csv", "nothing"):
            answer = await client.get(url + path)
            assert answer.status_code == (404 if path == "nothing" else 200)
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert "server" not in answer.headers


def test_the_page_names_no_outside_address_but_the_chart_makers() -> None:
    for path in STATIC.glob("*.*"):
        named = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", path.read_text()))
        assert named <= {"https://www.tradingview.com", "http://www.w3.org"}, path.name


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8180", "127.0.0.1.evil.example"])
@pytest.mark.usefixtures("session")
async def test_a_page_of_the_outside_cannot_read_it_under_its_own_name(
    page_settings: Settings, host: str
) -> None:
    # With a password the name does not matter, so that a proxy may stand before the page.
    guarded = replace(page_settings, dashboard_password=PASSWORD)
    async with served(guarded) as url, httpx.AsyncClient(auth=("any", PASSWORD)) as client:
        assert (await client.get(url, headers={"Host": host})).status_code == 200
    async with served(page_settings) as url, httpx.AsyncClient() as client:
        assert (await client.get(url, headers={"Host": host})).status_code == 400
        assert (await client.get(f"{url}feed", headers={"Host": host})).status_code == 400
        assert (await client.get(url, headers={"Host": "localhost:1234"})).status_code == 200


@pytest.mark.usefixtures("session")
async def test_other_machines_are_served_with_a_password_only(page_settings: Settings) -> None:
    outside = replace(page_settings, dashboard_host="0.0.0.0")
    with pytest.raises(ConfigurationError, match="set DASHBOARD_PASSWORD"):
        listen(outside)
    async with served(replace(outside, dashboard_password=PASSWORD)) as url:
        url = url.replace("0.0.0.0", "127.0.0.1")
        async with httpx.AsyncClient(auth=("any", PASSWORD)) as client:
            answer = await client.get(url, headers={"Host": "trader.lan:8180"})
            assert answer.status_code == 200


@pytest.mark.parametrize(
    "path", ["", "feed", "csv/cards.csv", "static/page.js", "earlier/sessions"]
)
@pytest.mark.usefixtures("session")
async def test_without_the_password_nothing_is_told(
    page_settings: Settings,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(dashboard.access, "WRONG_PASSWORD_PAUSE_S", 0.01)
    guarded = replace(page_settings, dashboard_password=PASSWORD)
    async with served(guarded) as url, httpx.AsyncClient() as client:
        refused = await client.get(url + path)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic ")
        for header in ("Basic !!!", "Basic", "Bearer x", "Basic " + "A" * 4000, "Basic w7w="):
            wrong = await client.get(url + path, headers={"Authorization": header})
            assert wrong.status_code == 401
        for given in ("", "wrong", PASSWORD + "x", PASSWORD[:-1]):
            assert (await client.get(url + path, auth=("newshead", given))).status_code == 401
        async with client.stream("GET", url + path, auth=("newshead", PASSWORD)) as right:
            assert right.status_code == 200
    assert "A wrong password for the page came from 127.0.0.1" in caplog.text
    assert PASSWORD not in caplog.text


@pytest.mark.usefixtures("session")
async def test_who_guesses_passwords_is_heard_one_by_one_and_told_of_once_a_minute(
    page_settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dashboard.access, "WRONG_PASSWORD_PAUSE_S", 0.2)
    guarded = replace(page_settings, dashboard_password=PASSWORD)
    async with served(guarded) as url, httpx.AsyncClient(timeout=DEADLINE_S) as client:

        async def guess(number: int) -> int:
            return (await client.get(url, auth=("any", f"guess {number}"))).status_code

        began = time.monotonic()
        codes = await asyncio.gather(*(guess(number) for number in range(40)))
        heard = codes.count(401)
        assert heard + codes.count(429) == 40
        # One after the other: no more than five in a second.
        assert heard <= (time.monotonic() - began) / 0.2 + 1
        assert (await client.get(url, auth=("any", PASSWORD))).status_code == 200
    lines = [r.getMessage() for r in caplog.records if "wrong password" in r.getMessage()]
    assert lines == ["A wrong password for the page came from 127.0.0.1 (1 times)."]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.usefixtures("session")
async def test_another_sites_page_makes_the_database_work_for_nobody(
    page_settings: Settings, site: str, server: ClickHouseServer
) -> None:
    async with served(page_settings) as url, httpx.AsyncClient() as client:
        before = len(server.statements())
        for path in ("feed", "csv/cards.csv", "earlier/sessions"):
            answer = await client.get(url + path, headers={"Sec-Fetch-Site": site})
            assert answer.status_code == 403
        assert len(server.statements()) == before
        # A link to the page may stand anywhere, and its own requests pass.
        for path in ("", "static/page.js"):
            answer = await client.get(url + path, headers={"Sec-Fetch-Site": site})
            assert answer.status_code == 200
        for own in ("same-origin", "none"):
            answer = await client.get(f"{url}earlier/sessions", headers={"Sec-Fetch-Site": own})
            assert answer.status_code == 200


@pytest.mark.usefixtures("session")
async def test_silent_connections_are_cut_off_and_give_way_to_viewers(
    page_settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="dashboard")
    monkeypatch.setattr(dashboard.connections, "REQUEST_S", 2.0)
    async with served(page_settings) as url:
        host, port = url.removeprefix("http://").rstrip("/").split(":")
        async with follow(url) as updates:
            await anext(updates)
            strangers = [await asyncio.open_connection(host, int(port)) for _ in range(1000)]
            for number, (_, writer) in enumerate(strangers):
                # After one request, half of another.
                begin = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n" if number % 2 else b""
                writer.write(begin + b"GET /feed HTTP/1.1\r\nX: ")
            async with follow(url) as others:
                await anext(others)
            await anext(updates)
            async with asyncio.timeout(DEADLINE_S):
                for reader, writer in strangers:
                    with suppress(ConnectionError):
                        await reader.read()
                    writer.close()
            await anext(updates)
    lines = [r.getMessage() for r in caplog.records if "turned away" in r.getMessage()]
    assert sorted(line.split(": ")[1].split(" (")[0] for line in lines) == [
        "more than 200 connections at once",
        "no request within 2 s",
    ]


@pytest.mark.usefixtures("session")
async def test_a_house_full_of_viewers_lets_the_next_one_in(
    page_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard.connections, "MAX_CONNECTIONS", 3)
    async with served(page_settings) as url, AsyncExitStack() as stack:
        viewers = [await stack.enter_async_context(follow(url)) for _ in range(3)]
        for viewer in viewers:
            await anext(viewer)
        async with follow(url) as late:
            await anext(late)
            # The oldest one has gone.
            with pytest.raises(httpx.RemoteProtocolError):
                await until(viewers[0], lambda update: not update)
            await anext(viewers[1])


@pytest.mark.usefixtures("session")
async def test_rubbish_at_the_pages_port_is_one_line(
    page_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with served(page_settings) as url:
        host, port = url.removeprefix("http://").rstrip("/").split(":")
        for _ in range(5):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"\x16\x03\x01 no HTTP\r\n\r\n")
            assert b" 400 " in await reader.read()
            writer.close()
    lines = [r.getMessage() for r in caplog.records if "HTTP" in r.getMessage()]
    assert [line for line in lines if "HTTP Request" not in line] == [
        "The page turned away: what is no HTTP (1 times)."
    ]


def test_an_address_that_cannot_be_had_is_told_in_a_sentence(page_settings: Settings) -> None:
    with listen(page_settings) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}.*DASHBOARD_PORT"):
            listen(replace(page_settings, dashboard_port=port))
    with pytest.raises(ConfigurationError, match=r"nowhere\.invalid"):
        listen(replace(page_settings, dashboard_host="nowhere.invalid"))


# --- The feed ---------------------------------------------------------------


async def test_a_viewer_gets_all_there_is_and_then_only_what_changed(
    session: ClickHouseManager, page_settings: Settings
) -> None:
    write_status(session)
    write_news(session, "ZOOM", "FDA approves")
    write_news(session, "CALM", "An award")
    write_prices(session, "ZOOM", RISE[:2])
    write_prices(session, "CALM", [5.0, 5.0, 5.0])
    async with served(page_settings) as url, follow(url) as updates:
        first = await anext(updates)
        assert first["full"]
        assert first["status"]["mode"] == "PAPER"
        assert first["rule"]["window_s"] == 60
        assert tickers(first) == ["CALM", "ZOOM"]
        second = await anext(updates)
        assert not second["full"]
        assert second["cards"] == []
        assert second["now"] > first["now"]

        session.client.command("TRUNCATE TABLE News.price_tracking")
        write_prices(session, "CALM", [5.0, 5.0, 5.0])
        write_prices(session, "ZOOM", RISE)
        write_alerts(session, "ZOOM")
        changed = await until(updates, lambda u: any(card["alerts"] for card in u["cards"]))
        assert tickers(changed) == ["ZOOM"]
        [card] = changed["cards"]
        assert card["article"]["headline"] == "FDA approves"
        assert card["baseline"] == 2.0
        assert [point[1] for point in card["points"]] == RISE
        [[_, priority, price, change, seconds, _]] = card["alerts"]
        assert (priority, price, round(change, 6), seconds) == (3, 2.2, 10.0, 8)
        assert card["reason"] == "alerted once"


async def test_a_late_rating_reaches_the_page(
    session: ClickHouseManager, page_settings: Settings
) -> None:
    write_news(session, "ZOOM", "FDA approves", "HOLD", content_hash="one")
    async with served(page_settings) as url, follow(url) as updates:
        assert (await anext(updates))["cards"][0]["recommendation"] == "HOLD"
        write_news(session, "ZOOM", "FDA approves", "BUY", content_hash="one")
        await until(updates, lambda u: u["cards"] and u["cards"][0]["recommendation"] == "BUY")


async def test_an_article_that_was_not_rated_takes_no_rating_s_place_on_the_page(
    session: ClickHouseManager, page_settings: Settings
) -> None:
    rated, unrated = ago(55), ago(50)
    reason = "Not rated: no answer within 8 s."
    write_news(session, "ZOOM", "FDA approves", detected_at=rated, analyzed_at=rated)
    write_news(session, "ZOOM", "More", "HOLD", detected_at=unrated, explanation=reason)
    write_prices(session, "ZOOM", RISE, began=ago(45))

    def shown(card: dict[str, Any]) -> tuple[str, str]:
        return card["article"]["headline"], card["recommendation"]

    async with served(page_settings) as url, httpx.AsyncClient() as client:
        async with follow(url) as updates:
            assert shown((await anext(updates))["cards"][0]) == ("More", "BUY")
        session.move_session()
        params = {"ticker": "ZOOM"}
        [card] = (await client.get(f"{url}earlier/windows", params=params)).json()
        assert shown(card) == ("More", "BUY")


async def test_a_window_that_ends_changes_its_card_by_the_clock_alone(
    session: ClickHouseManager, page_settings: Settings
) -> None:
    write_prices(session, "CALM", [5.0, 5.0, 5.0], began=ago(58))
    async with served(page_settings) as url, follow(url) as updates:
        assert (await anext(updates))["cards"][0]["reason"] == "+0.0 % of 5 %"
        ended = await until(updates, lambda u: u["cards"])
        assert ended["cards"][0]["reason"].startswith("window over: no alert")
        assert ended["now"] >= ended["cards"][0]["closes"]


async def test_the_page_is_told_how_the_parts_fare_and_what_is_mended(
    session: ClickHouseManager, page_settings: Settings
) -> None:
    write_status(session)
    write_part(session, "ibkr", "ok")
    write_part(session, "news wires", "degraded", "1 of 2 feeds fail.")
    async with served(page_settings) as url, follow(url) as updates:
        first = await anext(updates)
        assert [part[:3] for part in first["parts"]] == [
            ["ibkr", "ok", ""],
            ["news wires", "degraded", "1 of 2 feeds fail."],
        ]
        assert (first["failing"], first["mended"]) == ([], [])
        assert first["degraded"] == ["news wires: 1 of 2 feeds fail."]
        write_part(session, "ibkr", "lost", "not connected to IBKR.")
        told = await until(updates, lambda u: u["failing"])
        assert told["failing"] == ["ibkr: not connected to IBKR."]
        write_part(session, "ibkr", "ok")
        told = await until(updates, lambda u: not u["failing"])
        [[name, reason, since, ended]] = told["mended"]
        assert (name, reason) == ("ibkr", "not connected to IBKR.")
        assert 0 < ended - since < 60


async def test_a_fresh_session_takes_the_tickers_off_the_page(
    session: ClickHouseManager, page_settings: Settings
) -> None:
    write_news(session, "ZOOM", "FDA approves")
    write_prices(session, "ZOOM", RISE)
    async with served(page_settings) as url, follow(url) as updates:
        assert tickers(await anext(updates)) == ["ZOOM"]
        session.move_session()
        gone = await until(updates, lambda u: u["gone"])
        assert gone["gone"] == ["ZOOM"]
        write_prices(session, "ZOOM", RISE[:2])
        back = await until(updates, lambda u: u["cards"])
        assert back["cards"][0]["rows"] == 2
        assert back["gone"] == []


async def test_ten_viewers_cost_what_one_costs_and_none_costs_nothing(
    session: ClickHouseManager, page_settings: Settings, server: ClickHouseServer
) -> None:
    def readings() -> int:
        return sum("monitor_status" in sql for sql in server.statements())

    write_status(session)
    async with served(page_settings) as url:
        before = readings()
        await asyncio.sleep(1.5)
        assert readings() == before

        async def watch() -> int:
            async with follow(url) as updates:
                return sum([1 async for _, update in _numbered(updates, 4)])

        began = time.monotonic()
        assert await asyncio.gather(*(watch() for _ in range(10))) == [4] * 10
        lasted = time.monotonic() - began
        assert readings() - before <= lasted / dashboard.queries.READ_EVERY_S + 2

        # The last viewer's leaving is noticed at once, a reading may be under way.
        await asyncio.sleep(1)
        after = readings()
        await asyncio.sleep(2)
        assert readings() == after


async def test_a_viewer_who_comes_between_two_readings_is_told_the_clock_of_that_moment(
    session: ClickHouseManager, page_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboard.feed.queries.until_next_reading_s", lambda: 3600.0)
    async with served(page_settings) as url, follow(url) as updates:
        await anext(updates)
        await asyncio.sleep(2)
        asked = queries.clock(session)
        async with follow(url) as others:
            told = (await anext(others))["now"]
    # What the reading's clock took to come is not known.
    assert told > asked.timestamp() - 0.5


async def _numbered(
    updates: AsyncIterator[dict[str, Any]], count: int
) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    for number in range(count):
        yield number, await anext(updates)


async def test_a_viewer_who_reads_slowly_keeps_nobody_waiting(
    session: ClickHouseManager, page_settings: Settings
) -> None:
    for number in range(40):
        write_news(session, f"T{number}", "x" * 500)
    async with served(page_settings) as url:
        host, port = url.removeprefix("http://").rstrip("/").split(":")
        _, slow = await asyncio.open_connection(host, int(port), limit=1024)
        slow.write(b"GET /feed HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with follow(url) as updates:
            assert len((await anext(updates))["cards"]) == 40
            write_prices(session, "T1", [5.0])
            assert tickers(await until(updates, lambda u: u["cards"])) == ["T1"]
        slow.close()


async def test_the_page_says_that_the_database_is_away_and_goes_on_when_it_is_back(
    session: ClickHouseManager, page_settings: Settings, server: ClickHouseServer
) -> None:
    write_news(session, "ZOOM", "FDA approves")
    async with served(page_settings) as url, follow(url) as updates:
        await anext(updates)
        server.stop()
        away = await until(updates, lambda u: u["problem"])
        assert "Traceback" not in away["problem"]
        async with follow(url) as others:
            # Who comes now is shown what was known last.
            late = await anext(others)
            assert late["problem"]
            assert tickers(late) == ["ZOOM"]
        server.start()
        await until(updates, lambda u: not u["problem"])
        write_news(session, "CALM", "An award")
        assert tickers(await until(updates, lambda u: u["cards"])) == ["CALM"]


async def test_a_page_that_starts_without_a_database_waits_for_it(
    session: ClickHouseManager, page_settings: Settings, server: ClickHouseServer
) -> None:
    write_news(session, "ZOOM", "FDA approves")
    server.stop()
    try:
        async with served(page_settings) as url, httpx.AsyncClient() as client:
            answer = await client.get(f"{url}csv/cards.csv")
            assert answer.status_code == 503
            assert "ClickHouse" in answer.text
            async with follow(url) as updates:
                assert (await anext(updates))["problem"]
                server.start()
                assert tickers(await until(updates, lambda u: u["cards"])) == ["ZOOM"]
    finally:
        with pytest.raises(RuntimeError, match="running already"):
            server.start()


@pytest.mark.usefixtures("session")
async def test_a_database_that_stands_still_is_told_while_it_does(
    page_settings: Settings,
    server: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dashboard.feed, "ANSWER_S", 0.3)
    async with served(page_settings) as url, follow(url) as updates:
        await anext(updates)
        server.fault("hang", match="monitor_status")
        stuck = await until(updates, lambda u: u["problem"])
        assert stuck["problem"] == "ClickHouse does not answer."
        server.clear_faults()
        await until(updates, lambda u: not u["problem"])


async def test_a_database_newshead_never_used_is_shown_as_an_empty_session(
    session: ClickHouseManager, page_settings: Settings
) -> None:
    session.client.command("DROP DATABASE News SYNC")
    async with served(page_settings) as url, follow(url) as updates:
        update = await anext(updates)
        assert (update["problem"], update["status"], update["cards"]) == ("", None, [])
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{url}earlier/sessions")).json() == []


async def test_every_reading_is_bounded_and_takes_one_thread_of_the_database(
    session: ClickHouseManager, page_settings: Settings, server: ClickHouseServer
) -> None:
    write_news(session, "ZOOM", "FDA approves")
    write_prices(session, "ZOOM", RISE)
    session.move_session()
    write_prices(session, "ZOOM", RISE)
    before = len(server.statements())
    async with served(page_settings) as url, httpx.AsyncClient() as client:
        async with follow(url) as updates:
            await anext(updates)
        for path in ("earlier/sessions", "earlier/windows?ticker=ZOOM", "csv/alerts.csv"):
            assert (await client.get(url + path)).status_code == 200
    statements, settings = server.statements()[before:], server.settings()[before:]
    asked = [(sql, sent) for sql, sent in zip(statements, settings, strict=True) if "News." in sql]
    assert len(asked) > 8
    for sql, sent in asked:
        assert sent["max_threads"] == "1"
        assert int(sent["max_execution_time"]) <= 10
        assert "LIMIT" in sql or "IN {tickers:Array(String)}" in sql
        assert "ZOOM" not in sql


# --- Why it has or has not alerted --------------------------------------------


@pytest.mark.parametrize(
    ("prices", "recommendation", "began_s", "reason"),
    [
        ([], "BUY", 0, "waiting for the first price"),
        ([2.0], "BUY", 2, "waiting for the third price"),
        ([2.0, 2.0], "BUY", 4, "waiting for the third price"),
        ([2.0, 2.0, 2.0, 2.062], "BUY", 8, "+3.1 % of 5 %"),
        ([2.0, 2.0, 2.0, 1.9], "BUY", 8, "now -5.0 %, best +0.0 % of 5 %"),
        ([2.0, 2.0, 2.0, 2.2], "HOLD", 8, "held back: HOLD"),
        ([2.0, 2.0, 2.0, 2.2], "SELL", 8, "held back: SELL"),
        ([12.0, 12.0, 12.0, 13.0], "BUY", 8, "price outside 0.40 to 11"),
        ([2.0, 2.0, 2.0, 2.2], "BUY", 8, "alerted once"),
        ([2.0, 2.0, 2.0, 2.2, 2.3, 2.1], "BUY", 12, "alerted 3 times"),
        ([2.0, 2.0, 2.0, 2.062], "BUY", 80, "window over: no alert, best change +3.1 % of 5 %"),
        ([2.0, 2.0, 2.0, 2.2], "BUY", 80, "window over: 1 alert, best change +10.0 % of 5 %"),
    ],
)
def test_a_card_says_why_it_has_or_has_not_alerted(
    session: ClickHouseManager,
    prices: list[float],
    recommendation: str,
    began_s: float,
    reason: str,
) -> None:
    write_news(session, "ABCD", "news", recommendation)
    if prices:
        write_prices(session, "ABCD", prices, began=ago(began_s), recommendation=recommendation)
        write_alerts(session, "ABCD")
    [card] = queries.cards(session)
    assert card.reason(queries.clock(session)) == reason


def test_a_rise_before_its_rating_and_one_whose_alert_is_still_to_come_are_told_apart(
    session: ClickHouseManager,
) -> None:
    write_news(session, "ABCD", "news", "BUY")
    write_prices(session, "ABCD", [2.0, 2.0, 2.0, 2.2], recommendation="HOLD")
    write_news(session, "EFGH", "news", "BUY")
    write_prices(session, "EFGH", [2.0, 2.0, 2.0, 2.2])
    told = {card.ticker: card.reason(queries.clock(session)) for card in queries.cards(session)}
    assert told == {
        "ABCD": "held back: it rose before it was rated BUY",
        "EFGH": "the alert is on its way",
    }


def test_old_news_without_a_price_waits_no_more(session: ClickHouseManager) -> None:
    write_news(session, "GONE", "to the moon", detected_at=ago(90))
    [card] = queries.cards(session)
    assert card.reason(queries.clock(session)) == "no price since the news"


def test_a_monitor_whose_clock_is_off_is_judged_by_the_databases(
    session: ClickHouseManager,
) -> None:
    # The monitor's clock is 40 s behind, as it has noticed itself.
    write_status(session, timestamp=ago(41), state_since=ago(100), clock_difference_s=40.0)
    status = queries.status(session)
    assert status is not None
    age = queries.clock(session) - status.timestamp
    assert timedelta(0) < age < timedelta(seconds=10)
    assert status.timestamp - status.state_since > timedelta(seconds=50)


# --- Earlier sessions, and CSV ------------------------------------------------


async def test_each_earlier_session_has_its_own_windows_of_sixty_seconds_found_in_any_spelling(
    session: ClickHouseManager, page_settings: Settings
) -> None:
    noon = noon_of_yesterday()
    # The second one begins within a minute of the first one's last row.
    began = [noon, noon + timedelta(seconds=30), noon - timedelta(days=1)]
    heads = ["morning news", "later news", "old news"]
    for at, headline in zip(began, heads, strict=True):
        detected = at - timedelta(seconds=2)
        write_news(session, "BRK.B", headline, detected_at=detected, analyzed_at=detected)
        prices = {"later news": [3.0, 3.0, 3.0, 3.03], "old news": [*RISE, *[2.2] * 30]}
        write_prices(session, "BRK B", prices.get(headline, RISE), began=at)
        write_alerts(session, "BRK B")
        if headline == "morning news":
            write_prices(session, "CALM", [5.0, 5.0, 5.0], began=at)
        session.move_session()
    async with served(page_settings) as url, httpx.AsyncClient() as client:

        async def windows(**asked: str) -> list[dict[str, Any]]:
            answer = await client.get(f"{url}earlier/windows", params=asked)
            found: list[dict[str, Any]] = answer.json()
            return found

        sessions = (await client.get(f"{url}earlier/sessions")).json()
        assert [(each["windows"], each["alerts"]) for each in sessions] == [(1, 0), (2, 1), (1, 27)]
        keys = [each["key"] for each in sessions]
        assert keys[1] == f"{noon:%Y%m%dT%H%M%SZ}"

        [later] = await windows(session=keys[0])
        assert later["article"]["headline"] == "later news"
        assert later["reason"] == "window over: no alert, best change +1.0 % of 5 %"
        told = {
            card["ticker"]: (card["article"] and card["article"]["headline"], card["reason"])
            for card in await windows(session=keys[1])
        }
        assert told == {
            "BRK B": ("morning news", "window over: 1 alert, best change +10.0 % of 5 %"),
            "CALM": (None, "window over: no alert, best change +0.0 % of 5 %"),
        }
        for spelling in ("BRK.B", "brk/b", "BRK B"):
            found = await windows(ticker=spelling)
            assert [card["session"] for card in found] == keys
            assert [len(card["points"]) for card in found] == [4, 5, 31]

        points = await client.get(
            f"{url}csv/points.csv", params={"ticker": "BRK-B", "card": found[1]["key"]}
        )
        assert [float(row["price"]) for row in table(points.text)] == RISE


def test_a_tickers_oldest_windows_have_their_news_however_much_came_since(
    session: ClickHouseManager,
) -> None:
    newer, older = noon_of_yesterday(), noon_of_yesterday() - timedelta(days=1)
    session.client.command(
        "INSERT INTO News.breaking_news (ticker, headline, content_hash, timestamp, detected_at) "
        "SELECT 'ZOOM', 'again', toString(number), {at:DateTime}, {at:DateTime} "
        "FROM numbers({count:UInt32})",
        parameters={"at": int(newer.timestamp()), "count": queries.MAX_NEWS_OF_TICKER},
    )
    write_news(session, "ZOOM", "long ago", detected_at=older)
    for began in (newer, older):
        write_prices(session, "ZOOM", [2.0, 2.0, 2.0], began=began)
    session.move_session()
    found = earlier.windows(session, ticker="ZOOM")
    assert [card.headline for card in found] == ["again", "long ago"]


async def test_csv_is_quoted_and_no_cell_is_a_formula(
    session: ClickHouseManager, page_settings: Settings
) -> None:
    write_news(session, "ZOOM", '=HYPERLINK("http://evil.example","a, b")\nnext line')
    write_news(session, "CALM", '+1 for, "CALM"')
    write_news(session, "EVIL", 'up;=1+1\t@SUM(A1)| "-2+3",\uff1dcmd, 3-4; a = b')
    write_prices(session, "ZOOM", [2.0, 2.0, 2.0, 1.9])
    write_prices(session, "CALM", RISE)
    write_alerts(session, "CALM")
    async with served(page_settings) as url, httpx.AsyncClient() as client:
        answer = await client.get(f"{url}csv/cards.csv")
        assert answer.headers["content-type"].startswith("text/csv")
        assert "attachment" in answer.headers["content-disposition"]
        rows = {row["ticker"]: row for row in table(answer.text)}
        assert rows["ZOOM"]["headline"].startswith("'=HYPERLINK(")
        assert rows["CALM"]["headline"] == '\'+1 for, "CALM"'
        # Nor is any where the reader's spreadsheet cuts cells at something else.
        assert rows["EVIL"]["headline"] == "up;'=1+1 @SUM(A1)| \"'-2+3\",'\uff1dcmd, 3-4; a = b"
        assert float(rows["ZOOM"]["change_pct"]) == -5.0
        [alert] = table((await client.get(f"{url}csv/alerts.csv")).text)
        assert (alert["ticker"], alert["priority"], alert["seconds"]) == ("CALM", "3", "8")
        points = await client.get(f"{url}csv/points.csv", params={"card": "CALM"})
        assert [float(row["price"]) for row in table(points.text)] == RISE
        assert datetime.fromisoformat(table(points.text)[0]["timestamp"]).utcoffset() is not None


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("earlier/windows", 400),
        ("earlier/windows?session=" + "2" * 33, 400),
        ("earlier/windows?session=yesterday", 200),
        ("earlier/windows?ticker=" + "A" * 33, 400),
        ("earlier/windows?ticker=%27%20OR%201%3D1%20--", 200),
        ("earlier/windows?ticker=%00%0a%5c%27", 200),
        ("csv/points.csv?card=NONE", 404),
        ("csv/points.csv?ticker=NONE&card=x", 404),
        ("csv/secrets.csv", 404),
        ("static/../settings.py", 404),
        ("static/%2e%2e/server.py", 404),
        ("static/", 404),
    ],
)
@pytest.mark.usefixtures("session")
async def test_hostile_questions_are_refused_or_find_nothing(
    page_settings: Settings, path: str, code: int
) -> None:
    async with served(page_settings) as url, httpx.AsyncClient() as client:
        answer = await client.get(url + path)
        assert answer.status_code == code
        assert "Traceback" not in answer.text
        if code == 200:
            assert answer.json() == []


async def test_what_a_row_holds_cannot_break_the_feed(
    session: ClickHouseManager, page_settings: Settings
) -> None:
    write_news(
        session,
        "EVIL",
        "a\n\ndata: {}\r\n\u2028</script>\u202e" + "x" * 10_000,
        article_url="javascript:alert(1)",
    )
    write_status(session, last_error="\x1b[31mred\x9b\u202e", account="\u2066DU1")
    write_news(session, "<b>", "ticker of another program", article_url="https://ok.example/a")
    async with served(page_settings) as url, follow(url) as updates:
        cards = {card["ticker"]: card for card in (await anext(updates))["cards"]}
        # What cannot be seen is a blank: nothing turns the line's direction.
        assert cards["EVIL"]["article"]["headline"].startswith("a\n\ndata: {} \n </script> x")
        assert len(cards["EVIL"]["article"]["headline"]) == queries.MAX_HEADLINE
        assert cards["EVIL"]["article"]["url"] == ""
        assert cards["<b>"]["article"]["url"] == "https://ok.example/a"


def test_the_page_loads_nothing_of_ibkrs_client_or_the_monitor() -> None:
    code = "import sys, dashboard.__main__; print({'ibapi', 'price_checker'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"
    assert logging.getLogger("uvicorn").level == logging.ERROR
