"""The rows of monitor_status, from a monitor at work."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from clickhouse_server import ClickHouseServer
from monitoring import CYCLE_S, rate, rows, running, tracked, trade_each_slot, until

from clickhouse_manager import ClickHouseManager
from newshead.database import connection, part_writer
from newshead.database.tables import READY
from newshead.monitor.status import StatusWriter
from newshead.settings import Settings
from newshead.tws.link import ConnectionState
from price_checker import ContinuousPriceMonitor
from simulator import Gateway

pytestmark = pytest.mark.usefixtures("short_cycles")


def statuses(database: ClickHouseManager) -> list[dict[str, Any]]:
    return rows(database, "monitor_status")


def states(database: ClickHouseManager) -> list[str]:
    return [row["state"] for row in statuses(database)]


async def test_each_change_of_the_connection_gives_a_row_and_a_failed_attempt_gives_none(
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("newshead.monitor.keeper.RETRY_S", 0.2)
    async with running(settings) as monitor:
        await until(lambda: states(database)[-1:] == ["ready"], "the first row")
        await gateway.stop()
        await until(lambda: states(database)[-1] == "disconnected", "the row of the loss")
        before = len(statuses(database))
        client = monitor.ibkr_client
        await until(lambda: monitor.ibkr_client is not client, "an attempt in vain")
        await asyncio.sleep(1.0)
        # A part's change gives one too, at any time.
        since = {(row["state"], row["state_since"]) for row in statuses(database)[before - 1 :]}
        assert len(since) == 1, "an attempt in vain was taken for a change"
        await gateway.start()
        await until(lambda: states(database)[-1] == "ready", "the row of the new connection")
    last = statuses(database)[-1]
    assert (last["state"], last["reconnects"]) == ("disconnected", 1)
    assert all(row["state_since"] <= row["timestamp"] for row in statuses(database))


async def test_a_row_says_how_the_monitor_fares(
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(part_writer, "STATUS_EVERY_S", 0.3)
    async with running(settings) as monitor:
        logging.getLogger("anywhere").error("It went\n%s.", "wrong " * 100)
        await tracked(gateway, settings)
        await trade_each_slot(gateway, "ABCD", [3.0, 3.1])

        def both_rows() -> dict[str, Any] | None:
            # A slow cycle takes both slots together.
            found = [r for r in statuses(database) if r["rows"] == 2 and r["cycles"] >= 2]
            return found[0] if found else None

        row = await until(both_rows, "a status with both rows")
        assert (row["state"], row["mode"], row["delayed"]) == ("ready", "PAPER", 0)
        assert monitor.ibkr_client is not None
        account = monitor.ibkr_client.accounts[0]
        assert row["account"] == "*" * (len(account) - 2) + account[-2:]
        assert (row["active_tickers"], row["ticks"], row["kept_rows"]) == (1, 2, 0)
        assert row["cycles"] >= 2
        assert 0 < row["last_cycle_ms"] < 60_000
        assert abs(row["clock_difference_s"]) < 1
        assert row["last_error"][8:].startswith(" UTC It went wrong wrong")
        assert len(row["last_error"]) == 300
    times = [row["timestamp"] for row in statuses(database)]
    assert times == sorted(times)


async def test_an_idle_monitor_writes_its_status_without_another_question_to_the_database(
    settings: Settings,
    database: ClickHouseManager,
    server: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(part_writer, "STATUS_EVERY_S", 0.3)
    async with running(settings):
        await until(lambda: statuses(database), "the first row")
        before = len(server.statements())
        await asyncio.sleep(3.0)
        asked = server.statements()[before:]
    assert len(asked) >= 4
    written = ("monitor_status", "part_status")
    assert all(any(table in statement for table in written) for statement in asked)


async def test_a_database_that_takes_no_status_delays_no_row_and_no_alert_and_is_told_once(
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    server: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(part_writer, "STATUS_EVERY_S", 0.1)
    rate(database, "ABCD", "BUY")
    async with running(settings) as monitor:
        await until(lambda: statuses(database), "the first row")
        server.fault("hang", match="INSERT INTO News.monitor_status")
        await tracked(gateway, settings)
        await trade_each_slot(gateway, "ABCD", [2.0, 2.01, 2.2])
        await until(lambda: rows(database, "news_alert"), "the alert")
        assert monitor.kept_rows == 0
        server.clear_faults()
        server.fault("error", match="INSERT INTO News.monitor_status", code=243, text="no space")
        await until(lambda: "status cannot be stored" in caplog.text, "the line")
        failing = datetime.now(UTC)
        await asyncio.sleep(1.0)
        cleared = datetime.now(UTC) - timedelta(seconds=0.2)
        server.clear_faults()
        await until(lambda: "is stored again" in caplog.text, "the other line")
    # What could not be stored is not made good: the next row says it all.
    assert not [row for row in statuses(database) if failing < row["timestamp"] < cleared]
    lines = [
        r
        for r in caplog.records
        if r.name == "newshead.database.part_writer" and r.levelno >= logging.INFO
    ]
    assert len(lines) == 2


async def test_a_status_table_dropped_by_hand_is_created_again(
    settings: Settings, database: ClickHouseManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_writer, "STATUS_EVERY_S", 0.3)
    async with running(settings):
        await until(lambda: statuses(database), "the first row")
        database.client.command("DROP TABLE News.monitor_status SYNC")
        exists = "SELECT count() FROM system.tables WHERE name = 'monitor_status'"
        await until(lambda: database.client.command(exists), "the table")
        await until(lambda: statuses(database), "a row in it")


@pytest.mark.usefixtures("database")
async def test_the_clocks_are_compared_again_and_again(
    settings: Settings, server: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_writer, "STATUS_EVERY_S", 0.2)
    monkeypatch.setattr(part_writer, "CLOCK_EVERY_S", 0.5)
    monkeypatch.setattr(connection, "MAX_CLOCK_DIFFERENCE_S", 60.0)

    def comparisons() -> int:
        return sum(statement.startswith("SELECT now64(3)") for statement in server.statements())

    before = comparisons()
    async with running(settings):
        await until(lambda: comparisons() >= before + 3, "three comparisons")


async def test_without_a_gateway_the_state_is_disconnected(
    settings: Settings, gateway: Gateway, database: ClickHouseManager
) -> None:
    await gateway.stop()
    monitor = ContinuousPriceMonitor(settings, wait=True)
    work = asyncio.create_task(monitor.start())
    await until(lambda: statuses(database), "a row")
    await asyncio.sleep(CYCLE_S)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert set(states(database)) == {"disconnected"}
    assert statuses(database)[0]["account"] == ""


async def test_the_account_is_paper_or_live_as_it_was_last_known_after_a_restart_too(
    settings: Settings, gateway: Gateway, database: ClickHouseManager
) -> None:
    gateway.accounts = ("U1234567",)
    async with running(settings):
        await until(lambda: statuses(database), "a row")
    await gateway.stop()
    before = len(statuses(database))
    monitor = ContinuousPriceMonitor(settings, wait=True)
    work = asyncio.create_task(monitor.start())
    await until(lambda: len(statuses(database)) > before, "a row of the next run")
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert {row["mode"] for row in statuses(database)} == {"LIVE"}


@pytest.mark.usefixtures("database")
async def test_a_writer_that_is_cancelled_just_as_the_connection_changes_ends(
    settings: Settings,
) -> None:
    writer = StatusWriter(settings, ContinuousPriceMonitor(settings).figures)
    work = asyncio.create_task(writer.run())
    await asyncio.sleep(1.0)
    writer.state_changed()
    asyncio.get_running_loop().call_soon(work.cancel)
    ended, _ = await asyncio.wait({work}, timeout=5.0)
    work.cancel()
    await writer.close()
    assert ended


def test_the_tables_word_for_ready_is_the_connections() -> None:
    assert ConnectionState.READY.value == READY
