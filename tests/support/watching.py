"""What the tests of the page share: the page served, and the rows it shows, in the real tables."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from clickhouse_server import ClickHouseServer
from monitoring import connected

from clickhouse_manager import ClickHouseManager
from dashboard.server import address_of, listen, serve
from newshead.database.store import Outbox
from newshead.database.tables import AlertRow, PriceRow
from newshead.loop import in_background
from newshead.settings import Settings


@pytest.fixture
def page_settings(server: ClickHouseServer) -> Settings:
    """The page at a free port, on the tests' server."""
    return Settings(clickhouse_host=server.host, clickhouse_port=server.port, dashboard_port=0)


@pytest.fixture
def session(page_settings: Settings) -> Iterator[ClickHouseManager]:
    """The test's own way into the server's tables."""
    with connected(page_settings) as manager:
        yield manager


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[str]:
    """The page at work; gives its address."""
    listener = listen(settings)
    async with in_background(serve(settings, listener)):
        yield address_of(listener)


def now() -> datetime:
    return datetime.now(UTC)


def ago(seconds: float) -> datetime:
    return now() - timedelta(seconds=seconds)


def noon_of_yesterday() -> datetime:
    """A time of the day before in New York too, far from both its midnights."""
    return now().replace(hour=17, minute=0, second=0, microsecond=0) - timedelta(days=1)


def write_status(database: ClickHouseManager, **columns: Any) -> None:
    """A row of monitor_status, of a monitor that is well unless `columns` say otherwise."""
    values = {
        "timestamp": now(),
        "state": "ready",
        "state_since": ago(60),
        "mode": "PAPER",
        "delayed": 0,
        "account": "******12",
        "active_tickers": 1,
        "cycles": 30,
        "ticks": 123,
        "rows": 45,
        "last_cycle_ms": 14.2,
        "kept_rows": 0,
        "reconnects": 0,
        "clock_difference_s": 0.0,
        "last_error": "",
        **columns,
    }
    _insert(database, "monitor_status", values)


def write_part(database: ClickHouseManager, part: str, state: str, reason: str = "") -> None:
    """A row of part_status."""
    at = now()
    values = {
        "timestamp": at,
        "instance": "i",
        "host": "h",
        "folder": "f",
        "part": part,
        "state": state,
        "since": at,
        "reason": reason,
        "last_success": None,
        "counts": {},
    }
    _insert(database, "part_status", values)


def write_news(
    database: ClickHouseManager,
    ticker: str,
    headline: str,
    recommendation: str = "BUY",
    **columns: Any,
) -> None:
    """A row of breaking_news, its times as newshead sets them."""
    values = {
        "timestamp": columns.get("detected_at", now()),
        "ticker": ticker,
        "headline": headline,
        "content_hash": f"{ticker} {headline} {now()}",
        "sentiment": "positive",
        "recommendation": recommendation,
        "confidence": "high",
        **columns,
    }
    _insert(database, "breaking_news", values)


def write_ticker_status(database: ClickHouseManager, ticker: str, **columns: Any) -> None:
    """A row of ticker_status, of a ticker that trades live unless `columns` say otherwise."""
    values = {
        "ticker": ticker,
        "timestamp": now(),
        "halted": 0,
        "data_type": 1,
        "refused": "",
        "previous_close": 0.0,
        "day_volume": 0,
        **columns,
    }
    _insert(database, "ticker_status", values)


def write_company(
    database: ClickHouseManager, ticker: str, *, country: str, float_shares: float
) -> None:
    """A row of float_list."""
    _insert(
        database,
        "float_list",
        {"ticker": ticker, "country": country, "float_shares": float_shares},
    )


def write_prices(
    database: ClickHouseManager,
    ticker: str,
    prices: Sequence[float],
    *,
    began: datetime | None = None,
    recommendation: str = "BUY",
) -> None:
    """A row of price_tracking every 2 s; the newest of now unless `began` says when the first."""
    first = began or ago(2 * (len(prices) - 1))
    outbox = Outbox()
    outbox.add(
        [
            PriceRow(
                first + timedelta(seconds=2 * i),
                ticker,
                price,
                100 + i,
                "ibkr_last_trade",
                "positive",
                recommendation,
                "high",
            )
            for i, price in enumerate(prices)
        ]
    )
    outbox.flush(database.client)


def write_alerts(database: ClickHouseManager, *tickers: str) -> None:
    """What the monitor would: an alert for each row that meets the rule."""
    outbox = Outbox()
    outbox.add(
        [
            AlertRow(rise.ticker, rise.timestamp, rise.alert, rise.price)
            for rise in database.rises(tickers)
            if rise.qualifies
        ]
    )
    outbox.flush(database.client)


def _insert(database: ClickHouseManager, table: str, values: dict[str, Any]) -> None:
    database.client.insert(f"News.{table}", [list(values.values())], column_names=list(values))
