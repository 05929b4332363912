"""What grows with the history: *Earlier*, a start and a roll over 1, 10 and 50 million rows.

The reference of starts and rolls is the same with an empty history, that of the cycle the same
without anybody who pages through *Earlier*.
"""

import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.cycle import cycle_and_floor_ms
from benchmarks.figures import Figure, Target
from benchmarks.parts import PROJECT
from clickhouse_manager import ClickHouseManager
from dashboard import earlier
from dashboard.queries import READ_SETTINGS
from dashboard.statements import PAGE_STATEMENTS
from newshead.database import queries, sessions
from newshead.database.http import engine_served
from newshead.process import collect_seldom
from newshead.settings import Settings

ROWS: Final = (1_000_000, 10_000_000, 50_000_000)
ROWS_A_WINDOW: Final = 25
DAYS: Final = 2000
ROUNDS: Final = 9
CYCLES: Final = 15
AT_ONCE: Final = 5_000_000
MERGED_EVERY_S: Final = 0.5
LAST_DAY: Final = datetime.now(UTC).replace(hour=14, minute=0, second=0, microsecond=0)
# How many sessions back the one is that is asked for.
BACK: Final = 100

# Window w of each day begins at its own second; each ticker has a window every few days.
INSERT_PRICES: Final = """
    INSERT INTO News.price_tracking_history (timestamp, ticker, price, volume, recommendation)
    SELECT toDateTime({last:UInt32} - 86400 * (1 + intDiv(w, {a_day:UInt32}))
            + w % {a_day:UInt32} * 5 % 20000 + 2 * (number % 25)),
        concat('T', toString(w * 7919 % 5003)), 5 + number % 7 / 10, 100, 'BUY'
    FROM (SELECT number, intDiv(number, 25) AS w FROM numbers({begin:UInt64}, {rows:UInt64}))"""

INSERT_ALERTS: Final = """
    INSERT INTO News.news_alert_history (ticker, timestamp, alert, price)
    SELECT ticker, timestamp, 1, price
    FROM News.price_tracking_history
    WHERE cityHash64(ticker, timestamp) % 500 = 0"""

INSERT_NEWS: Final = """
    INSERT INTO News.breaking_news_history
        (ticker, timestamp, detected_at, headline, full_content, content_hash, recommendation)
    SELECT ticker, timestamp, timestamp, 'Something happened', repeat('All of it. ', 20),
        toString(sipHash64(ticker, timestamp)), 'BUY'
    FROM News.price_tracking_history
    WHERE cityHash64(ticker, timestamp) % 25 = 0"""

INSERT_SESSION: Final = """
    INSERT INTO News.price_tracking (timestamp, ticker, price, volume)
    SELECT now() - number % 60, concat('T', toString(number % 40)), 5, 100 FROM numbers(1000)"""

# Someone who turns a page twice a second, in a process of their own as the page's server is.
PAGING: Final = """
import itertools, time
from benchmarks.growth import BACK
from dashboard import earlier
from newshead.database.connection import Database
from newshead.settings import Settings
database = Database(Settings.from_environment())
database.connect()
for number in itertools.count():
    key = earlier.sessions(database)[BACK - number % 50].key
    earlier.windows(database, session=key)
    time.sleep(0.5)
"""


def measure(quick: bool) -> list[Figure]:
    """Each size of the history in a database of its own."""
    logging.getLogger().setLevel(logging.WARNING)
    # As the page's process does.
    collect_seldom()
    figures: list[Figure] = []
    references: tuple[float, float] | None = None
    for rows in (0, 50_000) if quick else (0, *ROWS):
        with tempfile.TemporaryDirectory(prefix="newshead-growth-") as folder:
            settings = Settings(clickhouse_path=Path(folder) / "db", trigger_folder=Path(folder))
            manager = ClickHouseManager(settings)
            manager.connect()
            try:
                manager.create_tables()
                _fill(manager, rows)
                start, roll = (_median_ms(work, manager) for work in (_start, _roll))
                if references is None:
                    references = start, roll
                    continue
                figures += _figures(manager, rows, start, roll, references)
                figures += _cycle(settings, rows, 2 if quick else CYCLES)
            finally:
                manager.close()
    return figures


def _fill(manager: ClickHouseManager, rows: int) -> None:
    """A history of DAYS days, the same for each size but for the number of windows a day."""
    for begin in range(0, rows, AT_ONCE):
        manager.client.command(
            INSERT_PRICES,
            parameters={
                "last": int(LAST_DAY.timestamp()),
                "a_day": max(1, rows // ROWS_A_WINDOW // DAYS),
                "begin": begin,
                "rows": min(AT_ONCE, rows - begin),
            },
        )
    manager.client.command(INSERT_ALERTS)
    manager.client.command(INSERT_NEWS)
    sessions.list_days(manager, "price_tracking_history", "news_alert_history")
    for table in ("price_tracking", "news_alert", "breaking_news"):
        manager.client.command(f"OPTIMIZE TABLE News.{table}_history")
    # A history grows over years: that the engine still merges what came within minutes is no part
    # of what is measured.
    while manager.rows("SELECT 1 FROM system.merges WHERE database = 'News' LIMIT 1"):
        time.sleep(MERGED_EVERY_S)


def _figures(
    manager: ClickHouseManager,
    rows: int,
    start: float,
    roll: float,
    references: tuple[float, float],
) -> list[Figure]:
    key = earlier.sessions(manager)[BACK].key
    asked: dict[str, Callable[[ClickHouseManager], object]] = {
        "sessions": earlier.sessions,
        "a session": lambda database: earlier.windows(database, session=key),
        "a ticker": lambda database: earlier.windows(database, ticker="T7"),
    }
    of = f"{rows / 1e6:g} million rows"
    return [
        *(
            Figure(f"Earlier, {name}, {of}", _median_ms(work, manager), "ms", target=Target(100))
            for name, work in asked.items()
        ),
        Figure(f"a start, {of}", start, "ms", "no history", references[0]),
        Figure(f"a roll of 1,000 rows, {of}", roll, "ms", "no history", references[1]),
    ]


def _start(manager: ClickHouseManager) -> None:
    """What the processes ask of the database before they work."""
    manager.create_tables()
    manager.move_session()
    manager.windows()
    manager.active_tickers()
    queries.recent_hashes(manager)


def _roll(manager: ClickHouseManager) -> None:
    manager.client.command(INSERT_SESSION)
    manager.move_session()


def _cycle(settings: Settings, rows: int, rounds: int) -> list[Figure]:
    """Cycles with ten tickers beside someone who pages, and beside nobody, in turns."""
    alone: list[float] = []
    paged: list[float] = []
    for number in range(4):
        took_ms, _ = asyncio.run(_cycles(settings, rounds, paging=number % 2 == 1))
        (paged if number % 2 else alone).append(took_ms)
    name = f"cycle, someone pages, {rows / 1e6:g} million rows"
    target = Target(1.1, of_ratio=True)
    return [Figure(name, median(paged), "ms", "nobody", median(alone), target)]


async def _cycles(settings: Settings, rounds: int, *, paging: bool) -> tuple[float, float]:
    manager = ClickHouseManager(settings)
    manager.connect()
    manager.move_session()
    manager.close()
    async with engine_served(settings, PAGE_STATEMENTS, READ_SETTINGS) as environment:
        if not paging:
            return await cycle_and_floor_ms(settings, 10, 0, rounds)
        command = (sys.executable, "-c", PAGING)
        pager = await asyncio.create_subprocess_exec(*command, cwd=PROJECT, env=environment)
        try:
            await asyncio.sleep(1)
            return await cycle_and_floor_ms(settings, 10, 0, rounds)
        finally:
            pager.kill()
            await pager.wait()


def _median_ms(work: Callable[[ClickHouseManager], object], manager: ClickHouseManager) -> float:
    took: list[float] = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        work(manager)
        took.append((time.perf_counter() - began) * 1000)
    # The first round warms up.
    return median(took[1:])
