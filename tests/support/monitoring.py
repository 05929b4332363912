"""What the tests of the monitor at work share: a gateway, a database behind HTTP, a monitor."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from clickhouse_server import ClickHouseServer
from deadlines import DEADLINE_S

import price_checker
from clickhouse_manager import ClickHouseManager
from newshead.core import rule
from newshead.database.connection import DATABASE_ERRORS
from newshead.loop import in_background
from newshead.monitor import roll
from newshead.monitor.triggers import TriggerFolder
from newshead.settings import Settings
from price_checker import ContinuousPriceMonitor
from simulator import Gateway, Market

CYCLE_S = 0.5


@pytest.fixture(autouse=True)
def own_notifications(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue belongs to the event loop it is used on, and each test has its own."""
    monkeypatch.setattr(price_checker, "ticker_notification_queue", asyncio.Queue())


@pytest.fixture(scope="session")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    with ClickHouseServer(tmp_path_factory.mktemp("clickhouse")) as running:
        yield running


@pytest.fixture
def server(clickhouse: ClickHouseServer) -> Iterator[ClickHouseServer]:
    """A server with newshead's tables, empty, and without faults, however the last test left it."""
    with emptied(clickhouse, settings_on(clickhouse)):
        yield clickhouse


@pytest.fixture
def bare_server(clickhouse: ClickHouseServer) -> Iterator[ClickHouseServer]:
    """A server without faults and without a News database, however the last test left it."""
    with fresh(clickhouse, settings_on(clickhouse)):
        yield clickhouse


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway(Market(symbols=["ABCD", "EFGH", "BRK B"])) as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, server: ClickHouseServer, gateway: Gateway) -> Settings:
    return Settings(
        ibkr_port=gateway.port,
        clickhouse_host=server.host,
        clickhouse_port=server.port,
        trigger_folder=tmp_path / "triggers",
        log_folder=tmp_path / "logs",
        session_roll=None,
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[ClickHouseManager]:
    """The test's own way into the server's tables."""
    with connected(settings) as manager:
        yield manager


def settings_on(server: ClickHouseServer) -> Settings:
    return Settings(clickhouse_host=server.host, clickhouse_port=server.port)


def connected_to(server: ClickHouseServer) -> AbstractContextManager[ClickHouseManager]:
    """A connection to a server while the context lasts."""
    return connected(settings_on(server))


def tables_on(server: ClickHouseServer) -> AbstractContextManager[ClickHouseManager]:
    """The same of one that may have no tables yet."""
    return with_tables(settings_on(server))


@contextlib.contextmanager
def connected(settings: Settings) -> Iterator[ClickHouseManager]:
    """A connection while the context lasts."""
    manager = ClickHouseManager(settings)
    try:
        manager.connect()
        yield manager
    finally:
        manager.close()


@contextlib.contextmanager
def with_tables(settings: Settings) -> Iterator[ClickHouseManager]:
    """A connection to a database that has newshead's tables."""
    with connected(settings) as manager:
        manager.create_tables()
        yield manager


def fresh(server: ClickHouseServer, settings: Settings) -> AbstractContextManager[None]:
    """The server up, without faults and without a News database while the context begins."""
    return _made_good(server, settings, _drop)


def emptied(server: ClickHouseServer, settings: Settings) -> AbstractContextManager[None]:
    """The server up, without faults and with newshead's tables, empty, while the context begins."""
    return _made_good(server, settings, _empty)


@contextlib.contextmanager
def _made_good(
    server: ClickHouseServer, settings: Settings, prepare: Callable[[Settings], None]
) -> Iterator[None]:
    try:
        server.clear_faults()
        # An insert that hung in the last test would be a row in this one.
        server.wait_until_idle()
        prepare(settings)
    except (OSError, *DATABASE_ERRORS):
        # A test that failed left it stopped or stuck.
        server.kill()
        server.start()
        prepare(settings)
    yield
    # What hangs goes on; a server that is down has nothing of it.
    with contextlib.suppress(OSError):
        server.clear_faults()


def _drop(settings: Settings) -> None:
    with connected(settings) as manager:
        manager.client.command("DROP DATABASE IF EXISTS News SYNC")


def _empty(settings: Settings) -> None:
    """Four times as fast as new tables, where a test left them as they were made."""
    with connected(settings) as manager:
        if _MADE and manager.client.query(_TABLES).result_rows == _MADE:
            manager.client.command("TRUNCATE ALL TABLES FROM News")
        else:
            _drop(settings)
            manager.create_tables()
            _MADE[:] = manager.client.query(_TABLES).result_rows


_TABLES = """
    SELECT name, create_table_query FROM system.tables WHERE database = 'News' ORDER BY name"""
# As newshead makes them.
_MADE: list[Sequence[Any]] = []


@pytest.fixture
def short_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots of half a second."""
    monkeypatch.setattr(price_checker, "CYCLE_S", CYCLE_S)


def shorten_windows(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    """Lets windows end after so many seconds."""
    monkeypatch.setattr(rule, "WINDOW_S", seconds)
    monkeypatch.setattr(rule, "LIVE", rule.Rule(window_s=seconds))


def roll_once(monkeypatch: pytest.MonkeyPatch, in_s: float) -> datetime:
    """Lets the session roll over in so many seconds, and not again; returns when."""
    due = datetime.now(UTC) + timedelta(seconds=in_s)
    rolls = iter([due, None])
    monkeypatch.setattr(roll, "next_roll_after", lambda *_: next(rolls))
    return due


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[ContinuousPriceMonitor]:
    """A monitor at work, connected, and ended in order."""
    monitor = ContinuousPriceMonitor(settings)
    async with in_background(monitor.start()) as work:
        await asyncio.wait(
            {work, asyncio.ensure_future(monitor.ready_event.wait())},
            timeout=DEADLINE_S,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if work.done():
            await work
        yield monitor


async def until(condition: Callable[[], Any], what: str) -> Any:
    """What `condition` gives once it is true."""
    deadline = time.monotonic() + DEADLINE_S
    while (begun := time.monotonic()) < deadline:
        if value := condition():
            return value
        # A question to the database takes the processor from what it waits for.
        await asyncio.sleep(max(0.01, 5 * (time.monotonic() - begun)))
    pytest.fail(f"{what} did not come about within {DEADLINE_S:.0f} s")


def requested(gateway: Gateway, kind: str = "reqMktData") -> list[str]:
    return [request.symbol for request in gateway.requests if request.kind == kind]


async def tracked(gateway: Gateway, settings: Settings, ticker: str = "ABCD") -> None:
    """A trigger for `ticker`, and its subscription seen at the gateway."""
    before = len(requested(gateway))
    TriggerFolder(settings.trigger_folder).write(ticker)
    await until(lambda: len(requested(gateway)) > before, "a subscription")


def rows(database: ClickHouseManager, table: str = "price_tracking") -> list[dict[str, Any]]:
    order = "timestamp, _block_number, _part_offset"
    return list(
        database.client.query(f"SELECT * FROM News.{table} ORDER BY {order}").named_results()
    )


def rate(database: ClickHouseManager, ticker: str, recommendation: str, **columns: Any) -> None:
    """A row of breaking_news."""
    values = {
        "ticker": ticker,
        "headline": f"{ticker} in the news",
        "content_hash": f"{ticker}{time.time_ns()}",
        "sentiment": "positive",
        "recommendation": recommendation,
        "confidence": "high",
        # Older than a start looks back, so that only a trigger makes it active.
        "detected_at": datetime.now(UTC) - timedelta(minutes=10),
        **columns,
    }
    database.client.insert("News.breaking_news", [list(values.values())], column_names=list(values))


async def trade_each_slot(gateway: Gateway, ticker: str, prices: list[float]) -> None:
    """One trade in each slot."""
    for price in prices:
        await asyncio.sleep(CYCLE_S - time.time() % CYCLE_S + CYCLE_S / 4)
        gateway.trade(ticker, price, 100)
