"""What is stored of this session and of those before it, read for a replay. Functions block."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from newshead.core.tickers import ibkr_name
from newshead.database.connection import Database
from newshead.database.schema import existing_tables

# Of the sessions before this one, and of this one.
PRICE_TABLES: Final = ("price_tracking_history", "price_tracking")
MOVING: Final = "price_tracking_moving"

PRICE_ROWS: Final = """
    SELECT ticker, toUnixTimestamp(timestamp), price, volume, recommendation
    FROM News.%(table)s
    WHERE timestamp >= {since:DateTime('UTC')} AND timestamp < {until:DateTime('UTC')}
        AND ({ticker:String} = '' OR ticker = {ticker:String})
    ORDER BY ticker, timestamp, _block_number, _part_offset"""

SCORES: Final = """
    SELECT ticker, argMax(tuple(strength_score), scraped_at).1
    FROM News.float_list_detailed_dedup
    GROUP BY ticker
    ORDER BY max(scraped_at)"""


def price_rows(
    database: Database, table: str, since: datetime, until: datetime, ticker: str
) -> Sequence[Sequence[Any]]:
    """Return the rows of one of PRICE_TABLES, of one ticker or (empty) of all, by ticker and time:
    ticker, Unix seconds, price, volume, recommendation."""
    if table not in existing_tables(database):
        return []
    statement = PRICE_ROWS % {"table": table}
    return database.rows(statement, since=since, until=until, ticker=ticker)


def unmoved_rows(database: Database) -> int:
    """Return the number of rows that an interrupted move has left between the tables."""
    if MOVING not in existing_tables(database):
        return 0
    [(count,)] = database.rows(f"SELECT count() FROM News.{MOVING}")  # noqa: S608
    return int(count)


def scores(database: Database) -> dict[str, float | None]:
    """Return the newest strength score of each ticker that has been scored, by IBKR's names."""
    if "float_list_detailed_dedup" not in existing_tables(database):
        return {}
    return {ibkr_name(str(ticker)): score for ticker, score in database.rows(SCORES)}
