"""The monitor's cycle: rows stored and judged, beside the least that the database could do.

The floor is one bare insert of the same rows and one bare query by the primary
key for the same tickers, in the same engine, taken in turns with the cycles.
"""

import asyncio
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.figures import Figure, Target
from clickhouse_manager import ClickHouseManager
from ibkr_client import IBKRClient
from newshead.database.store import Outbox
from newshead.database.tables import PriceRow
from newshead.settings import Settings
from price_checker import CYCLE_S, ContinuousPriceMonitor

OLD_ROWS: Final = 2_000_000
# Half a window's rows are there when the measurement begins.
ROWS_BEFORE: Final = 15
ROUNDS: Final = 15

# 5,000 tickers between and around the 1,000 that are tracked, over the last two days.
INSERT_OLD: Final = """
    INSERT INTO News.price_tracking (timestamp, ticker, price, volume, recommendation)
    SELECT now() - 3600 - number % 172800,
        concat('T', leftPad(toString(number % 5000), 4, '0'), 'X'), 5 + number % 7 / 10, 100, 'BUY'
    FROM numbers({rows:UInt64})"""


def measure(quick: bool) -> list[Figure]:
    """The cycle with 10 tickers, and with 1,000 over a table of 2 million old rows."""
    logging.getLogger().setLevel(logging.WARNING)
    rounds = 3 if quick else ROUNDS
    figures = []
    for count, old in ((10, 0), (1000, 20_000 if quick else OLD_ROWS)):
        with tempfile.TemporaryDirectory(prefix="newshead-cycle-") as folder:
            settings = Settings(clickhouse_path=Path(folder) / "db", trigger_folder=Path(folder))
            took_ms, floor_ms = asyncio.run(cycle_and_floor_ms(settings, count, old, rounds))
        name = f"cycle, {count:,} tickers" + (f", {old:,} old rows" if old else "")
        figures.append(Figure(name, took_ms, "ms", "floor", floor_ms, Target(2.5, of_ratio=True)))
    return figures


async def cycle_and_floor_ms(
    settings: Settings, count: int, old: int, rounds: int
) -> tuple[float, float]:
    """The medians of the cycle and of its floor, in milliseconds."""
    tickers = [f"T{number * 5:04}" for number in range(count)]
    monitor = ContinuousPriceMonitor(settings)
    monitor.ch_manager.connect()
    try:
        _fill(monitor.ch_manager, tickers, old)
        monitor.active_tickers |= set(tickers)
        monitor.ibkr_client = IBKRClient()
        cycles: list[float] = []
        floors: list[float] = []
        for number in range(rounds + 1):
            _trade(monitor.ibkr_client, tickers, number)
            with _timed(cycles):
                await monitor.process_ibkr_prices()
                await monitor.check_price_alerts_optimized()
            with _timed(floors):
                _floor(monitor.ch_manager, tickers, number)
        if (
            monitor.stats["price_checks"] != count * (rounds + 1)
            or monitor.stats["alerts_triggered"]
        ):
            raise RuntimeError("The cycles did not do what they are measured for.")
    finally:
        monitor.ch_manager.close()
    # The first round warms up.
    return median(cycles[1:]), median(floors[1:])


def _fill(manager: ClickHouseManager, tickers: list[str], old: int) -> None:
    manager.create_tables()
    # A table of the same kind takes the floor's rows, so that they do not count as prices.
    manager.client.command("CREATE OR REPLACE TABLE News.floor AS News.price_tracking")
    now = datetime.now(UTC)
    if old:
        for table in ("price_tracking", "floor"):
            manager.client.command(
                INSERT_OLD.replace("price_tracking", table), parameters={"rows": old}
            )
    outbox = Outbox()
    for step in range(ROWS_BEFORE, 0, -1):
        at = now - timedelta(seconds=step * CYCLE_S)
        outbox.add(
            [
                PriceRow(at, t, 5.0, 100, "ibkr_last_trade", "positive", "BUY", "high")
                for t in tickers
            ]
        )
    outbox.flush(manager.client)
    manager.client.insert(
        "News.breaking_news",
        [[ticker, ticker, "positive", "BUY", "high"] for ticker in tickers],
        column_names=["ticker", "content_hash", "sentiment", "recommendation", "confidence"],
    )


def _trade(client: IBKRClient, tickers: list[str], number: int) -> None:
    """One tick for each ticker, in a slot that is over."""
    at = datetime.now(UTC) - timedelta(seconds=CYCLE_S)
    with client.price_buffer_lock:
        for ticker in tickers:
            tick = {
                "price": 5 + number / 1000,
                "volume": 100,
                "timestamp": at,
                "source": "ibkr_last_trade",
            }
            client.price_buffer[ticker] = [tick]


def _floor(manager: ClickHouseManager, tickers: list[str], number: int) -> None:
    rows = [
        PriceRow(
            datetime.now(UTC),
            ticker,
            5 + number / 1000,
            100,
            "ibkr_last_trade",
            "positive",
            "BUY",
            "high",
        )
        for ticker in tickers
    ]
    types = ["DateTime", "String", "Float64", "UInt64", "String", "String", "String", "String"]
    manager.client.insert(
        "News.floor", rows, column_names=PriceRow._fields, column_type_names=types
    )
    manager.client.query(
        "SELECT count() FROM News.floor WHERE ticker IN {tickers:Array(String)}",
        parameters={"tickers": tickers},
    )


@contextmanager
def _timed(into: list[float]) -> Iterator[None]:
    """Adds the milliseconds that the block takes."""
    began = time.perf_counter()
    yield
    into.append((time.perf_counter() - began) * 1000)
