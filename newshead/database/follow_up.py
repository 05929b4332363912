"""What is stored of the windows of the last day, and what came after them. Functions block."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from newshead.core import rule
from newshead.core.follow_up import Bars
from newshead.database.connection import Database
from newshead.database.past import PRICE_TABLES

# Rows before those that are asked for, so that no window is cut.
MARGIN: Final = timedelta(hours=1)

ROW_TIMES: Final = """
    SELECT ticker, arraySort(groupUniqArray(toUnixTimestamp(timestamp)))
    FROM News.%(table)s
    WHERE timestamp >= {since:DateTime('UTC')}
    GROUP BY ticker"""

STORED: Final = """
    SELECT DISTINCT ticker, first_row, bar_s
    FROM News.follow_up
    WHERE first_row >= {since:DateTime('UTC')}"""


def windows_since(database: Database, since: datetime) -> Iterator[tuple[str, datetime]]:
    """Yield the windows that began since then, of this session and of those before: the ticker and
    the time of its first row."""
    for table in PRICE_TABLES:
        for ticker, times in database.rows(ROW_TIMES % {"table": table}, since=since - MARGIN):
            for begin, _ in rule.windows(times):
                first_row = datetime.fromtimestamp(times[begin], UTC)
                if first_row >= since:
                    yield str(ticker), first_row


def followed_up(database: Database, since: datetime) -> set[Bars]:
    """Return of which windows that began since then which bars are stored."""
    return {Bars(*row) for row in database.rows(STORED, since=since)}
