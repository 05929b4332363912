"""Rows on their way into ClickHouse: batches that are stored once, whatever fails meanwhile."""

import asyncio
import logging
import threading
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

from clickhouse_connect.driver import options
from clickhouse_connect.driver.client import Client

from newshead.database.connection import (
    DATABASE_ERRORS,
    Database,
    is_missing_table,
    one_line,
)
from newshead.database.schema import (
    create_like,
    create_tables,
    drop,
    existing_tables,
    find_kind,
    require_exchange,
    set_settings,
)
from newshead.database.table import deduplication
from newshead.database.tables import (
    FLOAT_LIST,
    FRESH_TICKER_LIST,
    INSERTS,
    ListedStock,
    Row,
)
from newshead.loop import off_loop
from newshead.outage import Outage
from newshead.tape import ANSWERS, STORED

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
        self.max_rows = MAX_KEPT_ROWS if max_rows is None else max_rows
        self._batches: deque[Batch] = deque()
        self._flushing = threading.Lock()
        self.given_up = 0

    def __len__(self) -> int:
        """Return the number of rows not stored yet."""
        return sum(len(batch.rows) for batch in tuple(self._batches))

    def add(self, rows: Sequence[Row], own_token: Callable[[Any], str] | None = None) -> None:
        """Put rows, all of one kind, behind those that wait already.

        Parameters
        ----------
        own_token
            Gives each row a token, with which it is an insert of its own; by default all are one.
        """
        if own_token is not None:
            self._batches.extend(Batch([row], own_token(row)) for row in rows)
        elif rows:
            self._batches.append(Batch(rows, str(uuid.uuid4())))
        # A batch that is being stored right now is not the one to give up.
        while len(self) > self.max_rows and not self._flushing.locked():
            if not self.given_up:
                logger.error(
                    "Over %d rows are waiting for ClickHouse: dropping the oldest from now on.",
                    self.max_rows,
                )
            self.given_up += len(self._batches.popleft().rows)

    def give_up(self, count: int) -> None:
        """Give up the oldest rows, at least so many."""
        while count > 0:
            given_up = len(self._batches.popleft().rows)
            self.given_up += given_up
            count -= given_up

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


class RowWriter:
    """Store what waits in its outbox, and say once per outage that the database fails.

    For an event loop, which it never blocks.

    Attributes
    ----------
    outbox
        The rows that wait.
    outage
        Lasts from a failure of the database until something is stored again.
    tables_missing
        Whether it failed for want of a table.
    """

    def __init__(
        self,
        database: Database,
        rows: str,
        log: logging.Logger,
        *,
        outbox: Outbox | None = None,
        run: Callable[..., Awaitable[object]] = off_loop,
    ) -> None:
        """
        Parameters
        ----------
        rows
            What the log calls the rows.
        log
            Their owner's.
        outbox
            By default a new one.
        run
            Does blocking work with the database.
        """
        self.outbox = Outbox() if outbox is None else outbox
        self.outage = Outage()
        self.tables_missing = False
        # Whether a stop has left an insert alone, which may go on.
        self._left_alone = False
        self._database = database
        self._rows = rows
        self._log = log
        self._run = run

    async def flush(self) -> bool:
        """Store what waits; return False if the database did not take it all."""
        waiting = len(self.outbox)
        # How far an insert that was left alone has come only its own thread knows: ask behind it.
        if not waiting and not self._left_alone:
            return True
        try:
            await self._run(self._flush)
        except asyncio.CancelledError:
            self._left_alone = True
            raise
        except DATABASE_ERRORS as problem:
            self.failed(problem)
            return False
        self._left_alone = False
        if self.outage.ends():
            self._log.info(
                "ClickHouse works again; %d %s that waited were stored.", waiting, self._rows
            )
            self.report_given_up()
        return True

    def _flush(self) -> None:
        self.outbox.flush(self._database.client)

    async def restore_tables(self) -> None:
        """Create the tables again where the database failed for want of one.

        Raises
        ------
        ClickHouseError, DatabaseError
            It failed; the next call tries it again.
        """
        if self.tables_missing:
            await self._run(create_tables, self._database)
            self.tables_missing = False

    def failed(self, problem: Exception) -> None:
        """Say once, until the database works again, that it does not."""
        self.note_missing_table(problem)
        self._log.log(
            logging.ERROR if self.outage.begins() else logging.DEBUG,
            "ClickHouse failed, %s are kept until it works: %s",
            self._rows,
            one_line(problem),
        )

    def note_missing_table(self, problem: Exception) -> None:
        """Let `restore_tables` do its work where the database failed for want of a table."""
        if is_missing_table(problem):
            self.tables_missing = True

    def report_given_up(self) -> int:
        """Log how many rows were given up since the last call, if any, and return it."""
        count, self.outbox.given_up = self.outbox.given_up, 0
        if count:
            self._log.error("Dropped %d %s for lack of memory.", count, self._rows)
        return count


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
    if (answers := ANSWERS.get()) is not None:
        answers.append(STORED)


def insert_without_data_frames() -> None:
    """Let inserts of this process load neither pandas nor NumPy, 80 MB and a third of a second, to
    see whether rows are a data frame. For a command's main: its client takes none from then on."""
    # As the library has it where they are not installed.
    options.pd = options.np = None


def replace_ticker_list(database: Database, stocks: Sequence[ListedStock]) -> None:
    """Put `stocks` in the place of the rows of `float_list`, all at once.

    Until then the old rows stay. The table keeps its columns: an earlier
    installation may have more.
    """
    fresh = FRESH_TICKER_LIST
    find_kind(database)
    require_exchange(database)
    # What an interrupted attempt left.
    drop(database, fresh)
    create_like(database, fresh, FLOAT_LIST)
    # What is created like a table has its settings.
    settings = deduplication(database.kind)
    set_settings(database, fresh, settings, existing_tables(database)["float_list"])
    insert(database.client, Batch(stocks, str(uuid.uuid4())))
    database.define(f"EXCHANGE TABLES News.{fresh} AND News.float_list")
    database.define(f"DROP TABLE News.{fresh} SYNC")
