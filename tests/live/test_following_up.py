"""The price monitor follows up windows: requests at the simulated gateway, bars in the database."""

import asyncio
import logging
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from clickhouse_server import ClickHouseServer
from commands import Command, free_port, on_server, start
from monitoring import requested, running, tracked, trade_each_slot, until

import price_checker
from clickhouse_manager import ClickHouseManager
from newshead.core.follow_up import Counts, Pace
from newshead.monitor import follow_up, keeper
from newshead.monitor.follow_up import Rhythm
from newshead.monitor.triggers import TriggerFolder
from newshead.replay.recorded import play
from newshead.settings import Settings
from simulator import Gateway, Market
from simulator.session import Request

__all__ = ["start"]

pytestmark = pytest.mark.usefixtures("short_cycles")

ROWS: Final = ("ticker", "bar_s", "bar_time", "open", "high", "low", "close", "volume")
OF_EFGH: Final = "SELECT 1 FROM News.price_tracking WHERE ticker = 'EFGH'"
BURST: Final = [f"B{letter}" for letter in "ABCDEFGH"]


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway(Market(symbols=["ABCD", "EFGH", "NONE", "LATE", *BURST])) as running:
        yield running


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, follow_up=True)


def quickly(monkeypatch: pytest.MonkeyPatch, calm_s: float = 0.2, **pace: float) -> None:
    """Let monitors look often and ask soon."""
    every = Pace(**{"gap_s": 0.4, "refused_s": 0.5} | pace)
    rhythm = Rhythm(pace=every, check_s=0.02, look_s=0.2, calm_s=calm_s)
    monkeypatch.setattr(follow_up, "RHYTHM", rhythm)


def ago(**time_ago: float) -> datetime:
    """The begin of a second then."""
    return (datetime.now(UTC) - timedelta(**time_ago)).replace(microsecond=0)


def had_window(
    database: ClickHouseManager, ticker: str, first_row: datetime, table: str = "price_tracking"
) -> None:
    """A window of three rows."""
    found = [[first_row + timedelta(seconds=2 * n), ticker, 2.0, 100] for n in range(3)]
    columns = ["timestamp", "ticker", "price", "volume"]
    database.client.insert(f"News.{table}", found, column_names=columns)


def traded(gateway: Gateway, ticker: str, first_row: datetime, *prices: float) -> None:
    """Trades of 100 shares that the gateway remembers, 7 s apart."""
    for number, price in enumerate(prices):
        gateway.book(ticker).record(price, 100, first_row.timestamp() + 7 * number)


def asked(gateway: Gateway) -> list[Request]:
    return [each for each in list(gateway.requests) if each.kind == "reqHistoricalData"]


def floor(at: datetime, seconds: int) -> datetime:
    return datetime.fromtimestamp(int(at.timestamp()) // seconds * seconds, UTC)


def rows_of(database: ClickHouseManager, ticker: str, first_row: datetime) -> list[dict[str, Any]]:
    statement = (
        "SELECT * FROM News.follow_up FINAL WHERE ticker = {ticker:String} "
        "AND first_row = {first_row:DateTime('UTC')} ORDER BY bar_s, bar_time"
    )
    bound = {"ticker": ticker, "first_row": first_row}
    return list(database.client.query(statement, parameters=bound).named_results())


def followed(database: ClickHouseManager) -> list[tuple[str, int]]:
    """Of which windows which bars are stored."""
    return [
        (ticker, bar_s)
        for ticker, _, bar_s in database.rows(
            "SELECT DISTINCT ticker, first_row, bar_s FROM News.follow_up ORDER BY ALL"
        )
    ]


def metrics_at(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        text: str = answer.read().decode()
        return text


async def test_windows_of_a_day_are_asked_for_once_when_due_at_a_pace_and_their_bars_stored(
    gateway: Gateway,
    settings: Settings,
    database: ClickHouseManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quickly(monkeypatch)
    session, earlier, fresh = ago(minutes=40), ago(hours=20), ago(minutes=31) + timedelta(seconds=6)
    had_window(database, "ABCD", session)
    had_window(database, "ABCD", earlier, "price_tracking_history")
    had_window(database, "EFGH", ago(hours=25), "price_tracking_history")
    had_window(database, "LATE", fresh)
    for ticker, first_row in (("ABCD", session), ("ABCD", earlier), ("LATE", fresh)):
        traded(gateway, ticker, first_row, 2.0, 2.4, 1.8)
    async with running(settings) as monitor:
        await until(lambda: monitor.figures().follow_up == Counts(asked=6, answered=6), "answers")
        await until(lambda: len(followed(database)) == 6, "bars")
        due = fresh.timestamp() + 1860 - time.time() + time.monotonic()
    assert [r.symbol for r in asked(gateway)] == ["ABCD"] * 4 + ["LATE"] * 2
    first, second = asked(gateway)[:2]
    assert first.detail.startswith("5 secs 1")
    assert second.detail.startswith("1 min 18")
    # Three gaps of 0.4 s lie between them.
    assert asked(gateway)[3].at - first.at > 0.4
    # Both clocks are this machine's.
    assert -0.1 < asked(gateway)[4].at - due < 5
    stored = [tuple(row[name] for name in ROWS) for row in rows_of(database, "ABCD", session)]
    assert [row for row in stored if row[1] == 5] == [
        ("ABCD", 5, floor(session + timedelta(seconds=7 * n), 5), *([price] * 4), 100)
        for n, price in enumerate((2.0, 2.4, 1.8))
    ]
    assert sum(row[-1] for row in stored if row[1] == 60) == 300
    # A monitor that starts anew asks only for what is not stored.
    had_window(database, "NONE", ago(minutes=50))
    async with running(settings) as monitor:
        await until(lambda: monitor.figures().follow_up == Counts(2, refused=2), "two refusals")
    assert [r.symbol for r in asked(gateway)][6:] == ["NONE", "NONE"]


async def test_refused_and_missing_requests_are_counted_and_told(
    gateway: Gateway,
    settings: Settings,
    database: ClickHouseManager,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    quickly(monkeypatch, answer_s=0.3)
    caplog.set_level(logging.INFO)
    had_window(database, "ABCD", ago(minutes=41))
    had_window(database, "GONE", ago(minutes=40))
    port = free_port()
    async with running(replace(settings, metrics_port=port)) as monitor:
        # Of a stock without trades in that time, and of one that IBKR does not know any more.
        await until(lambda: monitor.figures().follow_up == Counts(4, refused=4), "refusals")
        gateway.recalling = False
        had_window(database, "EFGH", ago(minutes=39))
        await until(
            lambda: monitor.figures().follow_up == Counts(6, refused=4, missing=2), "no answers"
        )
        metrics = await asyncio.to_thread(metrics_at, port)
    assert [r.symbol for r in asked(gateway)] == ["ABCD", "ABCD", "GONE", "GONE", "EFGH", "EFGH"]
    assert len(requested(gateway, "cancelHistoricalData")) == 2
    for outcome, count in (("answered", 0), ("refused", 4), ("missing", 2)):
        assert f'newshead_follow_up_requests_total{{outcome="{outcome}"}} {count}.0' in metrics
    told = [record.getMessage() for record in caplog.records]
    assert sum("IBKR gives no past bars of ABCD" in line for line in told) == 2
    assert (
        sum("IBKR does not answer about the bars after the window of EFGH" in t for t in told) == 2
    )
    assert "Follow-up: 6 requests for past bars, 0 answered, 4 refused, 2 missing." in told
    assert followed(database) == []


async def test_no_request_comes_within_a_burst_of_triggers(
    gateway: Gateway,
    settings: Settings,
    database: ClickHouseManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quickly(monkeypatch, calm_s=1.5, gap_s=0.1)
    for minutes in range(20):
        first_row = ago(minutes=40 + 2 * minutes)
        had_window(database, "ABCD", first_row, "price_tracking_history")
        traded(gateway, "ABCD", first_row, 2.0)
    async with running(settings):
        await until(lambda: len(asked(gateway)) >= 3, "requests")
        folder = TriggerFolder(settings.trigger_folder)
        for ticker in BURST:
            folder.write(ticker)
            await asyncio.sleep(0.15)
        await until(lambda: len(requested(gateway)) == len(BURST), "subscriptions")
        before = len(asked(gateway))
        await until(lambda: len(asked(gateway)) > before, "the next request")
    burst = [r.at for r in gateway.requests if r.kind == "reqMktData"]
    assert not [r for r in asked(gateway) if burst[0] <= r.at < burst[-1] + 1.0]


async def test_a_kill_between_request_and_answer_loses_nothing_but_time(
    gateway: Gateway,
    settings: Settings,
    database: ClickHouseManager,
    server: ClickHouseServer,
    start: Callable[..., Command],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first_row = ago(minutes=40)
    had_window(database, "ABCD", first_row)
    traded(gateway, "ABCD", first_row, 2.0, 2.4)
    gateway.recalling = False
    killed = start("price_checker.py", FOLLOW_UP="true", **on_server(server, gateway))
    await until(lambda: asked(gateway), f"a request: {killed.text()}")
    killed.process.kill()
    await asyncio.to_thread(killed.ends)
    gateway.recalling = True
    quickly(monkeypatch)
    async with running(settings):
        await until(lambda: followed(database) == [("ABCD", 5), ("ABCD", 60)], "the bars")
    assert [row["open"] for row in rows_of(database, "ABCD", first_row)][:2] == [2.0, 2.4]


async def test_what_a_lost_connection_or_a_stuck_database_held_up_is_stored_later(
    gateway: Gateway,
    settings: Settings,
    database: ClickHouseManager,
    server: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quickly(monkeypatch)
    monkeypatch.setattr(keeper, "RETRY_S", 0.2)
    first_row = ago(minutes=40)
    had_window(database, "ABCD", first_row)
    traded(gateway, "ABCD", first_row, 2.0)
    gateway.recalling = False
    async with running(settings) as monitor:
        await until(lambda: asked(gateway), "a request")
        gateway.drop()
        gateway.recalling = True
        await until(lambda: len(asked(gateway)) == 2, "the request again")
        server.fault("refuse")
        await asyncio.sleep(1.0)
        server.clear_faults()
        await until(lambda: len(followed(database)) == 2, "the bars")
        assert monitor.figures().follow_up == Counts(2, answered=2)


async def test_a_stop_does_not_wait_for_an_answer_or_for_the_database(
    gateway: Gateway,
    settings: Settings,
    database: ClickHouseManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quickly(monkeypatch)
    had_window(database, "ABCD", ago(minutes=40))
    gateway.recalling = False
    async with running(settings):
        await until(lambda: asked(gateway), "a request")
        began = time.monotonic()
    assert time.monotonic() - began < price_checker.LAST_FLUSH_S


async def test_a_recording_made_meanwhile_is_replayed_without_it(
    gateway: Gateway,
    settings: Settings,
    database: ClickHouseManager,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    quickly(monkeypatch, calm_s=0.1)
    first_row = ago(minutes=40)
    had_window(database, "ABCD", first_row)
    had_window(database, "GONE", first_row)
    traded(gateway, "ABCD", first_row, 2.0)
    async with running(replace(settings, record_folder=tmp_path / "recordings")) as monitor:
        await until(lambda: asked(gateway), "a request")
        await tracked(gateway, settings, "EFGH")
        await trade_each_slot(gateway, "EFGH", [2.0, 2.01, 2.02])
        ended = Counts(4, answered=2, refused=2)
        await until(lambda: monitor.figures().follow_up == ended, "the outcomes")
        await until(lambda: len(database.rows(OF_EFGH)) == 3, "rows")
    (recording,) = (tmp_path / "recordings").iterdir()
    played = await asyncio.to_thread(play, recording)
    assert not played.difference
    assert played.whole
    assert [row[1] for row in played.rows["price_tracking"]] == ["EFGH"] * 3
    assert list(played.stored) == ["price_tracking"]


@pytest.mark.usefixtures("database")
async def test_windows_of_delayed_data_are_not_followed_up(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(replace(settings, ibkr_market_data_type=3)) as monitor:
        assert monitor.figures().follow_up is None
    assert any("FOLLOW_UP needs live data" in each.getMessage() for each in caplog.records)
