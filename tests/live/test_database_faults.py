"""The monitor outlives what ClickHouse does to it."""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from clickhouse_server import ClickHouseServer
from monitoring import (
    CYCLE_S,
    rate,
    requested,
    roll_once,
    rows,
    running,
    shorten_windows,
    tracked,
    trade_each_slot,
    until,
)

from clickhouse_manager import ClickHouseManager
from newshead.core.parts import DATABASE, Part, PartState
from newshead.database import connection, store
from newshead.database.connection import Database
from newshead.database.store import Outbox, RowWriter
from newshead.database.tables import PriceRow
from newshead.loop import in_background
from newshead.monitor import roll
from newshead.monitor.parts import parts
from newshead.monitor.triggers import TriggerFolder
from newshead.settings import Settings
from newshead.tws.durations import Durations
from price_checker import ContinuousPriceMonitor
from simulator import Gateway

pytestmark = pytest.mark.usefixtures("short_cycles")


def database_part(monitor: ContinuousPriceMonitor) -> Part:
    return next(part for part in parts(monitor.figures()) if part.name == DATABASE)


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines about rows that the database does not take, as a trader sees them."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.INFO
        and record.getMessage().startswith(("ClickHouse failed", "ClickHouse works again"))
    ]


async def test_a_killed_server_costs_no_row_once_it_is_back(
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    server: ClickHouseServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    prices = [3.0 + step / 100 for step in range(12)]
    async with running(settings):
        await tracked(gateway, settings)
        await trade_each_slot(gateway, "ABCD", prices[:3])
        await until(lambda: len(rows(database)) == 3, "the first rows")
        await asyncio.to_thread(server.kill)
        await trade_each_slot(gateway, "ABCD", prices[3:])
        await asyncio.to_thread(server.start)
        await until(lambda: len(rows(database)) == len(prices), "the kept rows")
        await until(lambda: len(failures(caplog)) == 2, "the line that it works again")
    assert [r["price"] for r in rows(database)] == prices
    assert "rows are kept until it works" in failures(caplog)[0]
    assert "works again" in failures(caplog)[1]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (243, "Cannot reserve 1.00 MiB, not enough space"),
        (497, "newshead: Not enough privileges. To execute this query, it's necessary to have"),
    ],
)
async def test_a_full_disk_and_missing_rights_are_one_line_and_are_mended_by_the_next_insert(
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    server: ClickHouseServer,
    caplog: pytest.LogCaptureFixture,
    code: int,
    text: str,
) -> None:
    caplog.set_level(logging.INFO)
    prices = [3.0, 3.1, 3.2, 3.3]
    async with running(settings):
        await tracked(gateway, settings)
        server.fault("error", match="INSERT INTO", code=code, text=text)
        await trade_each_slot(gateway, "ABCD", prices)
        await until(lambda: failures(caplog), "the line")
        server.clear_faults()
        await until(lambda: len(rows(database)) == len(prices), "the kept rows")
        await until(lambda: len(failures(caplog)) == 2, "the line that it works again")
    assert [r["price"] for r in rows(database)] == prices
    assert text in failures(caplog)[0]


async def test_a_table_dropped_by_hand_is_created_again(
    settings: Settings, gateway: Gateway, database: ClickHouseManager
) -> None:
    async with running(settings):
        await tracked(gateway, settings)
        await trade_each_slot(gateway, "ABCD", [3.0])
        await until(lambda: rows(database), "the first row")
        for table in ("price_tracking", "news_alert", "breaking_news", "price_move"):
            database.client.command(f"DROP TABLE News.{table} SYNC")
        await trade_each_slot(gateway, "ABCD", [3.1, 3.2])
        # Until the table is back the test's own question fails too.
        await asyncio.sleep(4 * CYCLE_S)
        await until(lambda: len(rows(database)) == 2, "the rows after")
    assert [r["price"] for r in rows(database)] == [3.1, 3.2]


async def test_a_long_query_delays_neither_triggers_nor_ticks_nor_the_connection(
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    server: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ibkr_client.DURATIONS", Durations(heartbeat_s=0.5))
    prices = [3.0 + step / 100 for step in range(20)]
    async with running(settings) as monitor:
        await tracked(gateway, settings)
        client = monitor.ibkr_client
        server.fault("slow", match="price_tracking", times=1, seconds=10)
        await trade_each_slot(gateway, "ABCD", prices)
        TriggerFolder(settings.trigger_folder).write("EFGH")
        await until(lambda: requested(gateway) == ["ABCD", "EFGH"], "the second subscription")
        await until(lambda: requested(gateway, "reqCurrentTime"), "a heartbeat")
        await until(lambda: len(rows(database)) == len(prices), "a row for each slot")
        assert monitor.ibkr_client is client
    assert [r["price"] for r in rows(database)] == prices


async def test_beyond_its_limit_the_oldest_kept_rows_are_given_up_and_counted(
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    server: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(store, "MAX_KEPT_ROWS", 3)
    prices = [3.0 + step / 100 for step in range(8)]
    async with running(settings) as monitor:
        await tracked(gateway, settings)
        server.fault("error", match="INSERT INTO", code=243, text="no space")
        await trade_each_slot(gateway, "ABCD", prices)
        await until(lambda: monitor.stats["price_checks"] == len(prices), "all rows made")
        await asyncio.sleep(2 * CYCLE_S)
        server.clear_faults()
        await until(lambda: "for lack of memory" in caplog.text, "the count")
    assert [r["price"] for r in rows(database)] == prices[-3:]
    assert caplog.text.count("dropping the oldest from now on") == 1
    assert "Dropped 5 rows" in caplog.text


async def test_alerts_come_through_an_outage_once(
    settings: Settings, gateway: Gateway, database: ClickHouseManager, server: ClickHouseServer
) -> None:
    rate(database, "ABCD", "BUY")
    async with running(settings):
        await tracked(gateway, settings)
        await trade_each_slot(gateway, "ABCD", [2.0, 2.0001, 2.0])
        server.fault("drop_answer", match="INSERT INTO News.news_alert", times=3)
        server.fault("error", match="INSERT INTO News.price_move", times=2, code=243, text="full")
        await trade_each_slot(gateway, "ABCD", [2.2, 2.21, 2.22, 2.23])
        await until(lambda: len(rows(database)) == 7, "the rows")
        await asyncio.sleep(4 * CYCLE_S)
    alerts = Counter((a["ticker"], a["timestamp"]) for a in rows(database, "news_alert"))
    moves = Counter(m["current_price_timestamp"] for m in rows(database, "price_move"))
    assert alerts
    assert set(alerts.values()) == {1}
    assert sorted(moves.elements()) == sorted(timestamp for _, timestamp in alerts)


async def test_the_session_rolls_over_once_nothing_is_tracked_and_loses_nothing(
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    shorten_windows(monkeypatch, 12)
    due = roll_once(monkeypatch, in_s=6)
    rate(database, "ABCD", "BUY")
    async with running(settings) as monitor:
        await tracked(gateway, settings)
        await trade_each_slot(gateway, "ABCD", [1.0])
        await until(lambda: datetime.now(UTC) > due + timedelta(seconds=1), "the roll's time")
        assert rows(database), "it rolled over although a window was open"
        # News that comes as the session rolls over, with its trigger behind it.
        rate(database, "EFGH", "BUY", detected_at=datetime.now(UTC) + timedelta(seconds=5))
        await until(lambda: "rows of breaking_news moved" in caplog.text, "the roll")
        await until(lambda: requested(gateway, "cancelMktData"), "the end of the subscription")
        assert rows(database) == []
        assert [r["price"] for r in rows(database, "price_tracking_history")] == [1.0]
        for ticker, price in (("ABCD", 2.0), ("EFGH", 3.0)):
            await tracked(gateway, settings, ticker)
            gateway.trade(ticker, price, 1)
        await until(lambda: len(rows(database)) == 2, "rows of second windows")
        assert monitor.active_tickers == {"ABCD", "EFGH"}
    assert {r["ticker"]: r["recommendation"] for r in rows(database)} == {
        "ABCD": "HOLD",
        "EFGH": "BUY",
    }
    assert [r["ticker"] for r in rows(database, "breaking_news_history")] == ["ABCD"]


async def test_a_ticker_without_a_tick_holds_no_roll_and_is_carried_over_with_its_rating(
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    roll_once(monkeypatch, in_s=6)
    monkeypatch.setattr(roll, "WAIT_TOLD_S", 1.0)
    shorten_windows(monkeypatch, 8)
    async with running(settings) as monitor:
        await tracked(gateway, settings, "EFGH")
        rate(database, "EFGH", "BUY", detected_at=datetime.now(UTC))
        since = monitor.ticker_timestamps["EFGH"]
        await tracked(gateway, settings, "ABCD")
        await trade_each_slot(gateway, "ABCD", [1.0])
        await until(lambda: "roll has waited for" in caplog.text, "the line about the wait")
        assert "the windows of ABCD are open" in caplog.text
        await until(lambda: "rows of breaking_news moved" in caplog.text, "the roll")
        assert monitor.ticker_timestamps == {"EFGH": since}
        gateway.trade("EFGH", 2.0, 1)
        await until(lambda: rows(database), "a row of the new session")
    assert [(r["ticker"], r["recommendation"]) for r in rows(database)] == [("EFGH", "BUY")]
    assert caplog.text.count("roll has waited for") == 1
    assert requested(gateway) == ["EFGH", "ABCD"]


async def test_a_monitor_that_waits_starts_once_the_server_is_there(
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    server: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(connection, "RETRY_S", 0.3)
    await asyncio.to_thread(server.stop)
    monitor = ContinuousPriceMonitor(settings, wait=True)
    work = asyncio.create_task(monitor.start())
    await until(lambda: "Connection refused" in caplog.text, "the line")
    await asyncio.sleep(1.0)
    await asyncio.to_thread(server.start)
    await tracked(gateway, settings)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert caplog.text.count("Connection refused") == 1
    assert rows(database) == []


def test_an_outbox_full_of_rows_never_gives_up_the_batch_being_stored(
    database: ClickHouseManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MAX_KEPT_ROWS", 2)
    outbox = Outbox()
    for step in range(5):
        at = datetime.now(UTC)
        outbox.add([PriceRow(at, "ABCD", 1.0 + step, 1, "x", "neutral", "HOLD", "low")])
    assert len(outbox) == 2
    assert outbox.given_up == 3
    outbox.flush(database.client)
    assert [r["price"] for r in rows(database)] == [4.0, 5.0]


async def test_where_only_the_alert_query_fails_that_is_told_once_and_health_is_ill(
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    server: ClickHouseServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with running(settings) as monitor:
        await tracked(gateway, settings)
        server.fault("error", match="NOT max(price) <", code=241, text="Memory limit exceeded")
        await trade_each_slot(gateway, "ABCD", [3.0, 3.01, 3.02, 3.03])
        await until(lambda: len(rows(database)) == 4, "rows, which are stored all the same")
        found = database_part(monitor)
        assert found.state is PartState.LOST
        assert found.reason == "alerts cannot be judged because ClickHouse does not answer."
        server.clear_faults()
        await until(lambda: database_part(monitor).state is PartState.OK, "health")
    told = [r.getMessage() for r in caplog.records if "ClickHouse" in r.getMessage()]
    assert [line.partition(":")[0] for line in told] == [
        "ClickHouse does not answer, alerts cannot be judged",
        "ClickHouse answers again; no more",
    ]


async def test_an_insert_that_a_stop_left_alone_is_asked_behind_once(settings: Settings) -> None:
    """Whether it has stored all only its own thread knows, and a recording tells no other order."""
    asked: list[str] = []

    async def run(function: Callable[[], object]) -> None:
        asked.append(function.__name__)
        if len(asked) == 1:
            await asyncio.Event().wait()

    writer = RowWriter(Database(settings), "rows", logging.getLogger(), run=run)
    writer.outbox.add([PriceRow(datetime.now(UTC), "ABCD", 1.0, 1, "x", "p", "BUY", "high")])
    async with in_background(writer.flush()):
        await until(lambda: asked, "the insert")
    writer.outbox.give_up(1)
    for _ in range(2):
        assert await writer.flush()
    assert asked == ["_flush", "_flush"]


async def test_a_database_that_hangs_at_the_start_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "SLOW_S", 0.01)
    goes_on = threading.Event()
    working = asyncio.create_task(connection.until_database_works(goes_on.wait, wait=False))
    await until(lambda: "The database has been at work for" in caplog.text, "the line")
    goes_on.set()
    await working
    assert len(caplog.records) == 1
