"""Rows on their way into ClickHouse: batches that are stored once, whatever fails meanwhile."""

import logging
import threading
import uuid
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from clickhouse_connect.driver.client import Client

from newshead.database.connection import Database
from newshead.database.tables import (
    FRESH_TICKER_LIST,
    INSERTS,
    ListedStock,
    Row,
    deduplicate,
    drop,
    existing_tables,
)

logger = logging.getLogger(__name__)

# Rows kept while the database is away; some 100 MB at the most.
MAX_KEPT_ROWS: Final = 200_000


class Batch(NamedTuple):
    """Rows of one kind for one insert, with the token that makes them be stored once."""

    rows: Sequence[Row]
    token: str


class Outbox:
    """Batches on their way into ClickHouse, kept in order until each was stored, once.

    Kept rows live in this process's memory only, and no more than `max_rows`
    (by default MAX_KEPT_ROWS) of them: beyond that the oldest are given up and
    counted. Any thread.
    """

    def __init__(self, max_rows: int | None = None) -> None:
        self._max_rows = MAX_KEPT_ROWS if max_rows is None else max_rows
        self._batches: deque[Batch] = deque()
        self._flushing = threading.Lock()
        self.given_up = 0

    def __len__(self) -> int:
        """Return the number of rows not stored yet."""
        return sum(len(batch.rows) for batch in tuple(self._batches))

    def add(self, rows: Sequence[Row]) -> None:
        """Put rows, all of one kind, behind those that wait already."""
        if rows:
            self._batches.append(Batch(rows, str(uuid.uuid4())))
        # A batch that is being stored right now is not the one to give up.
        while len(self) > self._max_rows and not self._flushing.locked():
            if not self.given_up:
                logger.error(
                    "Over %d rows wait for ClickHouse: from now on the oldest are given up.",
                    self._max_rows,
                )
            self.given_up += len(self._batches.popleft().rows)

    def flush(self, client: Client) -> None:
        """Store what waits, oldest first.

        Raises
        ------
        ClickHouseError, DatabaseError
            An insert failed; its batch and those behind it stay.
        """
        with self._flushing:
            while self._batches:
                insert(client, self._batches[0])
                self._batches.popleft()


def insert(client: Client, batch: Batch) -> None:
    """Store a batch; again with the same batch, it changes nothing."""
    row_type = type(batch.rows[0])
    table, types = INSERTS[row_type]
    client.insert(
        f"News.{table}",
        batch.rows,
        column_names=row_type._fields,
        column_type_names=types,
        settings={"insert_deduplication_token": batch.token},
    )


def replace_ticker_list(database: Database, stocks: Sequence[ListedStock]) -> None:
    """Put `stocks` in the place of the rows of `float_list`, all at once.

    Until then the old rows stay. The table keeps its columns: an earlier
    installation may have more.
    """
    fresh = FRESH_TICKER_LIST
    # What an interrupted attempt left.
    drop(database, fresh)
    database.define(f"CREATE TABLE News.{fresh} AS News.float_list")
    # What is created like a table has its settings.
    deduplicate(database, fresh, existing_tables(database)["float_list"])
    insert(database.client, Batch(stocks, str(uuid.uuid4())))
    database.define(f"EXCHANGE TABLES News.{fresh} AND News.float_list")
    database.define(f"DROP TABLE News.{fresh} SYNC")
