"""What is stored of this session and of those before it, read by commands. Functions block."""

import heapq
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from operator import itemgetter
from typing import Any, Final

from newshead.core.tickers import ibkr_name, spellings
from newshead.database.connection import Database
from newshead.database.schema import existing_tables
from newshead.settings import ConfigurationError, Settings

# Of the sessions before this one, and of this one.
PRICE_TABLES: Final = ("price_tracking_history", "price_tracking")
ALERT_TABLES: Final = ("news_alert_history", "news_alert")
MOVING: Final = "price_tracking_moving"

PRICE_ROWS: Final = """
    SELECT ticker, toUnixTimestamp(timestamp), price, volume, recommendation
    FROM News.%(table)s
    WHERE timestamp >= {since:DateTime('UTC')} AND timestamp < {until:DateTime('UTC')}
        AND (empty({tickers:Array(String)}) OR ticker IN {tickers:Array(String)})
    ORDER BY ticker, timestamp, _block_number, _part_offset"""

ALERT_ROWS: Final = """
    SELECT ticker, toUnixTimestamp(timestamp), alert, price
    FROM News.%(table)s
    WHERE timestamp >= {since:DateTime('UTC')} AND timestamp < {until:DateTime('UTC')}
    ORDER BY ticker, timestamp"""

SCORES: Final = """
    SELECT ticker, argMax(tuple(strength_score), scraped_at).1
    FROM News.float_list_detailed_dedup
    GROUP BY ticker
    ORDER BY max(scraped_at)"""


@contextmanager
def opened(settings: Settings) -> Iterator[Database]:
    """Connect to a database that is there, while the context lasts.

    Raises
    ------
    ConfigurationError
        It is not; and as `Database.connect`.
    """
    if settings.embedded and not settings.clickhouse_path.is_dir():
        raise ConfigurationError(
            f"there is no database in {settings.clickhouse_path}: start this where newshead is "
            "started, or set CLICKHOUSE_PATH or CLICKHOUSE_HOST."
        )
    database = Database(settings)
    try:
        database.connect()
        yield database
    finally:
        database.close()


def price_rows(
    database: Database, table: str, since: datetime, until: datetime, ticker: str = ""
) -> Sequence[Sequence[Any]]:
    """Return the rows of one of PRICE_TABLES, of one ticker in any spelling or (empty) of all, by
    ticker and time: ticker, Unix seconds, price, volume, recommendation."""
    tickers = spellings(ticker) if ticker else []
    return _rows(database, PRICE_ROWS, table, since=since, until=until, tickers=tickers)


def alert_rows(
    database: Database, table: str, since: datetime, until: datetime
) -> Sequence[Sequence[Any]]:
    """Return the alerts of one of ALERT_TABLES, by ticker and time: ticker, Unix seconds, priority,
    price."""
    return _rows(database, ALERT_ROWS, table, since=since, until=until)


def _rows(database: Database, statement: str, table: str, **asked: Any) -> Sequence[Sequence[Any]]:
    """Return the rows of a table, and those of its older layout that are not in it yet."""
    # In this order no row is missed: it leaves the older table after it is in the other.
    older = _rows_if_there(database, statement, f"{table}_old", **asked)
    rows = _rows_if_there(database, statement, table, **asked)
    if not older:
        return rows
    brought = set(older)
    fresh = [row for row in rows if row not in brought]
    return list(heapq.merge(older, fresh, key=itemgetter(0, 1)))


def _rows_if_there(
    database: Database, statement: str, table: str, **asked: Any
) -> Sequence[Sequence[Any]]:
    if table not in existing_tables(database):
        return []
    # It may go meanwhile: its rows are all in the other then.
    return database.rows_if_there(statement % {"table": table}, **asked)


def left_out(database: Database) -> str:
    """Return what is to be said of rows that an interrupted move has left between the tables; empty
    where there are none."""
    if MOVING not in existing_tables(database):
        return ""
    [(count,)] = database.rows(f"SELECT count() FROM News.{MOVING}")  # noqa: S608
    if not count:
        return ""
    return f"Left out {count} rows of an interrupted move: newshead's next start ends it."


def scores(database: Database) -> dict[str, float | None]:
    """Return the newest strength score of each ticker that has been scored, by IBKR's names."""
    if "float_list_detailed_dedup" not in existing_tables(database):
        return {}
    return {ibkr_name(str(ticker)): score for ticker, score in database.rows(SCORES)}
