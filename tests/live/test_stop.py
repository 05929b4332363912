"""A stop is a stop: no exception of a cleanup undoes it, what is lost is counted, and it ends."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from clickhouse_server import ClickHouseServer
from ibapi.common import TickAttrib
from ibapi.ticktype import TickTypeEnum
from monitoring import rate, rows, running, tracked, trade_each_slot, until

import price_checker
from clickhouse_manager import ClickHouseManager
from ibkr_client import IBKRClient
from newshead import supervision
from newshead.database.connection import Database
from newshead.database.store import Outbox
from newshead.news import monitor as news_monitor
from newshead.news.monitor import NewsMonitor
from newshead.news.rating import Analyst
from newshead.settings import ConfigurationError, Settings
from price_checker import ContinuousPriceMonitor
from simulator import Gateway
from simulator.news import NewsServer, news_message


def fail(*_: object) -> None:
    raise OSError(28, "No space left on device")


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]


async def raises_an_error() -> str:
    try:
        await asyncio.Event().wait()
    finally:
        fail()
    return "ended"


async def raises_a_refusal() -> str:
    try:
        await asyncio.Event().wait()
    finally:
        raise ConfigurationError("The folder cannot be written.")


async def swallows_it() -> str:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    return "ended"


@pytest.mark.parametrize("part", [raises_an_error, raises_a_refusal, swallows_it])
async def test_a_part_that_was_stopped_is_not_started_again_however_it_ends(
    part: Callable[[], Awaitable[str]], caplog: pytest.LogCaptureFixture
) -> None:
    starts = 0

    async def run_part() -> str:
        nonlocal starts
        starts += 1
        return await part()

    supervised = asyncio.create_task(supervision.supervise("The part", run_part))
    await until(lambda: starts, "the start")
    await asyncio.sleep(0)
    supervised.cancel()
    await asyncio.wait({supervised}, timeout=2 * supervision.FIRST_PAUSE_S)
    ended = supervised.cancelled()
    supervised.cancel()
    assert ended
    assert starts == 1
    assert len(errors(caplog)) == (0 if part is swallows_it else 1)
    assert "Traceback" not in caplog.text


@pytest.mark.usefixtures("short_cycles", "database")
async def test_a_monitor_whose_every_step_of_the_cleanup_fails_ends_and_counts_what_is_lost(
    settings: Settings,
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Outbox, "flush", fail)
    # So that on a busy machine each step fails rather than takes too long.
    monkeypatch.setattr(price_checker, "CLOSE_TIMEOUT_S", 10.0)
    closed = threading.Event()
    disconnect = IBKRClient.disconnect_safely

    def disconnect_and_fail(client: IBKRClient) -> None:
        disconnect(client)
        fail()

    def close_and_fail(_: Database) -> None:
        closed.set()
        fail()

    monitor = ContinuousPriceMonitor(settings)
    work = asyncio.create_task(monitor.start())
    await monitor.ready_event.wait()
    await tracked(gateway, settings)
    await trade_each_slot(gateway, "ABCD", [3.0, 3.1])
    await until(lambda: monitor.stats["price_checks"], "a row that waits")
    caplog.clear()
    with monkeypatch.context() as patch:
        patch.setattr(IBKRClient, "disconnect_safely", disconnect_and_fail)
        patch.setattr(Database, "close", close_and_fail)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    assert "2 rows could not be stored and are lost." in errors(caplog)
    assert closed.is_set()
    assert not [record for record in caplog.records if record.exc_info]
    # A line for each step: the connection, the rows, two connections to the database.
    assert len([line for line in errors(caplog) if "No space left on device" in line]) == 4


@pytest.mark.usefixtures("short_cycles", "database")
async def test_a_stop_in_the_middle_of_a_dead_monitors_cleanup_counts_what_is_lost(
    settings: Settings,
    gateway: Gateway,
    server: ClickHouseServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monitor = ContinuousPriceMonitor(settings)
    work = asyncio.create_task(monitor.start())
    await monitor.ready_event.wait()
    await tracked(gateway, settings)
    server.fault("hang", match="INSERT INTO News.price_tracking")
    await trade_each_slot(gateway, "ABCD", [3.0, 3.1])
    await until(lambda: monitor.stats["price_checks"], "a row that waits")
    # It dies, and begins to clean up; then the stop comes.
    gateway.send_error(1300, "TWS socket port has been reset to 7498")
    await until(lambda: not gateway.sessions, "the end of the connection")
    await asyncio.sleep(0.3)
    assert not work.done()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert any("rows could not be stored and are lost." in line for line in errors(caplog))


@pytest.mark.usefixtures("short_cycles")
async def test_alerts_that_a_stop_leaves_without_their_copy_are_counted_and_copied_later(
    settings: Settings,
    gateway: Gateway,
    server: ClickHouseServer,
    database: ClickHouseManager,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rate(database, "ABCD", "BUY")
    async with running(settings) as monitor:
        await tracked(gateway, settings)
        server.fault("hang", match="SELECT headline, article_url")
        await trade_each_slot(gateway, "ABCD", [2.0, 2.02, 2.01, 2.2])
        await until(lambda: monitor.stats["alerts_triggered"], "an alert")
    assert any("1 alerts could not be copied into price_move" in line for line in errors(caplog))
    server.clear_faults()
    async with running(settings):
        await until(lambda: rows(database, "price_move"), "its copy")
    assert len(rows(database, "news_alert")) == 1


async def test_ticks_that_cannot_be_taken_from_the_client_any_more_are_counted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monitor = ContinuousPriceMonitor(settings)
    monitor.ibkr_client = IBKRClient()
    monitor.ibkr_client.reqid_to_ticker[1] = "ABCD"
    monitor.ibkr_client.tickPrice(1, TickTypeEnum.LAST, 3.0, TickAttrib())
    monkeypatch.setattr(IBKRClient, "get_and_clear_buffer", fail)
    await monitor.cleanup()
    assert "The ticks of 1 tickers since the last cycle are lost." in errors(caplog)
    assert len([line for line in errors(caplog) if "No space left on device" in line]) == 1


@pytest.fixture
async def stream() -> AsyncIterator[NewsServer]:
    async with NewsServer() as server:
        yield server


@pytest.mark.usefixtures("database")
async def test_a_news_side_whose_every_step_of_the_cleanup_fails_ends_and_counts_what_is_lost(
    settings: Settings,
    stream: NewsServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Outbox, "flush", fail)
    monkeypatch.setattr(news_monitor, "CLOSE_TIMEOUT_S", 10.0)
    settings = Settings(
        clickhouse_host=settings.clickhouse_host,
        clickhouse_port=settings.clickhouse_port,
        benzinga_api_key="x",
        benzinga_stream_url=stream.url,
        trigger_folder=settings.trigger_folder,
    )
    news = NewsMonitor(settings, Analyst(settings), any_ticker=True)
    work = asyncio.create_task(news.start())
    await stream.until_connected()
    stream.publish(news_message("ABCD rises", ["ABCD"]))
    await until(lambda: "Rows of news could not be stored" in caplog.text, "a row that waits")
    caplog.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Database, "close", fail)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    assert "1 rows of news could not be stored and are lost." in errors(caplog)
    assert len([line for line in errors(caplog) if "No space left on device" in line]) == 2


async def hang(_: object) -> None:
    await asyncio.Event().wait()


async def fail_soon(_: object) -> None:
    fail()


@pytest.mark.parametrize("close", [hang, fail_soon])
async def test_connections_to_the_rating_service_that_cannot_be_closed_delay_no_end(
    monkeypatch: pytest.MonkeyPatch, close: Callable[[object], Awaitable[None]]
) -> None:
    analyst = Analyst(Settings(anthropic_api_key="x"))
    monkeypatch.setattr("anthropic.AsyncAnthropic.close", close)
    async with asyncio.timeout(5):
        await analyst.close()
