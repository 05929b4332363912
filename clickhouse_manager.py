"""ClickHouse: the connection, the rows, and what newshead asks and tells.

All but `until_database_works` blocks and belongs off the event loop. Times are aware UTC.
"""

import asyncio
import errno
import functools
import logging
import os
import shutil
import tempfile
import threading
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Final, NamedTuple

import clickhouse_connect
from clickhouse_connect.driver.binding import quote_identifier
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from clickhouse_connect.driver.query import QueryResult

from newshead.database.queries import (
    ACTIVE_TICKERS,
    COLUMNS,
    DEDUPLICATED_TABLES,
    DEDUPLICATION,
    FRESH_TICKER_LIST,
    LACKING,
    LACKING_ROWS,
    LISTED_TICKERS,
    MOVED,
    MOVING_TABLE,
    NEWEST_NEWS,
    OUTCOMES,
    RECENT_HASHES,
    RISING,
    SCHEMA,
    SESSION_TABLES,
    SESSION_WINDOWS,
    STANDING,
    STORED_HASHES,
    TABLES,
)
from newshead.loop import off_loop
from newshead.monitor.triggers import TriggerFolder
from newshead.process import lock_file
from newshead.settings import ConfigurationError, Settings

logger = logging.getLogger(__name__)
# They report what they raise as well.
for _name in ("clickhouse_connect", "urllib3"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

CONNECT_TIMEOUT_S: Final = 5
QUERY_TIMEOUT_S: Final = 30
RETRY_S: Final = 3.0
# The 60-second window compares the database's clock with this machine's.
MAX_CLOCK_DIFFERENCE_S: Final = 2.0
WINDOW_S: Final = 60
ALERT_CHANGE_PCT: Final = 5.0
# Alerts are for prices from the first (included) to the second (excluded), USD.
ALERT_PRICES: Final = (0.40, 11.0)
# Rows kept while the database is away; some 100 MB at the most.
MAX_KEPT_ROWS: Final = 200_000
# On a full disk the embedded engine says that a table was created or altered, but leaves an
# empty file of it, and its folder never opens again.
MIN_FREE_BYTES: Final = 16 * 2**20
# Where inserts into the embedded engine pass through files, in its folder.
INSERTS_FOLDER: Final = "newshead-inserts"
# A folder that cannot be written for these may be written later.
PASSING_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
# The engine's codes for a table or a database that does not exist.
MISSING_TABLE_CODES: Final = (60, 81)


class PriceRow(NamedTuple):
    """A row of `price_tracking`: the newest trade of one ticker in one 2-second slot."""

    timestamp: datetime
    ticker: str
    price: float
    volume: int
    source: str
    sentiment: str
    recommendation: str
    confidence: str


class AlertRow(NamedTuple):
    """A row of `news_alert`; `alert` is the priority, 1 (strong) to 3 (no score)."""

    ticker: str
    timestamp: datetime
    alert: int
    price: float


class PriceMoveRow(NamedTuple):
    """A row of `price_move`; the 30-minute columns, always zero, are left to their defaults."""

    ticker: str
    news_headline: str
    news_published_utc: datetime
    news_article_url: str
    current_price: float
    current_price_timestamp: datetime
    price_move_percentage: float
    price_check_latency_ms: int
    news_to_price_check_delay_ms: int


class NewsRow(NamedTuple):
    """A row of `breaking_news`: one article about one ticker."""

    timestamp: datetime
    source: str
    ticker: str
    headline: str
    published_utc: str
    article_url: str
    summary: str
    full_content: str
    detected_at: datetime
    processing_latency_ms: int
    market_relevant: int
    source_check_time: datetime
    content_hash: str
    news_type: str
    urgency_score: int
    sentiment: str
    recommendation: str
    confidence: str
    explanation: str
    analysis_time_ms: int
    analyzed_at: datetime


class ListedStock(NamedTuple):
    """A row of `float_list`: a stock of the ticker list, 0 or empty where something is unknown.

    `market_cap` and `price` are USD, `float_shares` and `volume` shares.
    """

    ticker: str
    company_name: str
    sector: str
    industry: str
    country: str
    market_cap: float
    float_shares: float
    price: float
    volume: int


class StatusRow(NamedTuple):
    """A row of `monitor_status`: how the price monitor fares at `timestamp`.

    `state` is a ConnectionState's value, held since `state_since`; `mode` is
    PAPER, LIVE or UNKNOWN; `delayed` says that data 15 minutes late is asked
    for; `account` is masked. `cycles`, `ticks`, `rows` and `reconnects` count
    from the monitor's start; `kept_rows` wait because ClickHouse fails.
    `clock_difference_s` is by how much the database's clock is ahead of the
    monitor's.
    """

    timestamp: datetime
    state: str
    state_since: datetime
    mode: str
    delayed: bool
    account: str
    active_tickers: int
    cycles: int
    ticks: int
    rows: int
    last_cycle_ms: float
    kept_rows: int
    reconnects: int
    clock_difference_s: float
    last_error: str


Row = PriceRow | AlertRow | PriceMoveRow | NewsRow | ListedStock | StatusRow

# The types go with every insert: without them clickhouse-connect asks the
# server for them each time.
_INSERTS: Final[dict[type, tuple[str, list[str]]]] = {
    PriceRow: (
        "price_tracking",
        ["DateTime", "String", "Float64", "UInt64", "String", "String", "String", "String"],
    ),
    AlertRow: ("news_alert", ["String", "DateTime", "UInt8", "Float64"]),
    PriceMoveRow: (
        "price_move",
        [
            "String",
            "String",
            "DateTime64(3)",
            "String",
            "Float64",
            "DateTime64(3)",
            "Float64",
            "UInt32",
            "UInt32",
        ],
    ),
    NewsRow: (
        "breaking_news",
        [
            "DateTime64(3)",
            *["String"] * 7,
            "DateTime64(3)",
            "UInt32",
            "UInt8",
            "DateTime64(3)",
            "String",
            "String",
            "UInt8",
            *["String"] * 4,
            "UInt32",
            "DateTime64(3)",
        ],
    ),
    ListedStock: (
        FRESH_TICKER_LIST,
        [*["String"] * 5, *["Float64"] * 3, "UInt64"],
    ),
    StatusRow: (
        "monitor_status",
        [
            "DateTime64(3)",
            "String",
            "DateTime64(3)",
            "String",
            "UInt8",
            "String",
            *["UInt32", "UInt64", "UInt64", "UInt64"],
            "Float64",
            *["UInt32", "UInt32"],
            "Float64",
            "String",
        ],
    ),
}


class Rating(NamedTuple):
    """What the sentiment analysis said of a ticker's newest news."""

    sentiment: str
    recommendation: str
    confidence: str


UNRATED: Final = Rating("neutral", "HOLD", "low")


class Window(NamedTuple):
    """When a ticker's first row was written, how many seconds ago by the database's clock, and its
    newest row's time, price (USD) and volume (shares)."""

    first_row: datetime
    age_s: int
    newest_row: datetime
    price: float
    volume: int


class Standing(NamedTuple):
    """Of some tickers, those whose window is over, with the time of their first row, and those
    that are rated, with their rating."""

    ended: dict[str, datetime]
    ratings: dict[str, Rating]


class Rise(NamedTuple):
    """A row at or above the alert threshold, not alerted yet.

    `qualifies`: the alert rule holds. `held_back`: only the rating is in its way.
    """

    ticker: str
    timestamp: datetime
    price: float
    change_pct: float
    seconds_elapsed: int
    qualifies: bool
    held_back: bool
    alert: int


class Outcome(NamedTuple):
    """What came of a ticker's window: counts of its rows, and its best change in percent."""

    alerts: int
    rows: int
    judged: int
    best_change_pct: float
    rises: int
    rises_in_range: int


class News(NamedTuple):
    """A ticker's newest news; `published_utc` is free text."""

    headline: str
    article_url: str
    published_utc: str


class DatabaseError(Exception):
    """ClickHouse cannot be used now; the text says why and what to do."""


class DiskFullError(DatabaseError):
    """Too little space is free for the embedded engine to change its tables unharmed."""


class Table(NamedTuple):
    """A table that exists: its engine with all settings, and its comment."""

    engine: str
    comment: str


# Whatever goes wrong with the database.
DATABASE_ERRORS: Final = (ClickHouseError, DatabaseError)


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
        """The number of rows not stored yet."""
        return sum(len(batch.rows) for batch in tuple(self._batches))

    def add(self, rows: Sequence[Row]) -> None:
        """Puts rows, all of one kind, behind those that wait already."""
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
        """Stores what waits, oldest first.

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
    """Stores a batch; again with the same batch, it changes nothing."""
    row_type = type(batch.rows[0])
    table, types = _INSERTS[row_type]
    client.insert(
        f"News.{table}",
        batch.rows,
        column_names=row_type._fields,
        column_type_names=types,
        settings={"insert_deduplication_token": batch.token},
    )


class ClickHouseManager:
    """One connection to ClickHouse, embedded or a server, and what newshead asks of it.

    Methods block. A connection serves one caller at a time: whoever works in
    parallel has a manager of its own.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """By default with the settings of the environment; see `Settings.from_environment`."""
        self.settings = settings or Settings.from_environment()
        self._client: Client | None = None
        self._lock: _PathLock | None = None
        self._triggers = TriggerFolder(self.settings.trigger_folder)

    @property
    def client(self) -> Client:
        """clickhouse-connect's client.

        Raises
        ------
        DatabaseError
            Not connected.
        """
        if self._client is None:
            raise DatabaseError("Not connected to ClickHouse.")
        return self._client

    def connect(self) -> None:
        """Opens the connection.

        Raises
        ------
        DatabaseError
            The server does not answer or refuses, or another process has the embedded engine.
        ConfigurationError
            The embedded engine's folder cannot be written.
        """
        self.close()
        if self.settings.embedded:
            client = self._open_embedded(self.settings.clickhouse_path)
        else:
            client = self._open_server()
        for name in ("query", "insert", "command"):
            setattr(client, name, _database_call(getattr(client, name)))
        self._client = client

    def close(self) -> None:
        """Closes the connection; without one it does nothing."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _open_embedded(self, path: Path) -> Client:
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _PathLock(path)
        except BlockingIOError as problem:
            raise DatabaseError(
                f"The embedded database {path} is in use by another newshead: "
                "stop that one, or set CLICKHOUSE_PATH to another folder."
            ) from problem
        except OSError as problem:
            if problem.errno in PASSING_ERRORS:
                raise DatabaseError(
                    f"The embedded database {path} cannot be opened: {one_line(problem)}"
                ) from problem
            raise ConfigurationError(
                f"The embedded database {path} cannot be written ({problem.strerror}): "
                "set CLICKHOUSE_PATH to a folder that you may write to."
            ) from problem
        try:
            _keep_inserts_in(path.resolve() / INSERTS_FOLDER)
            return clickhouse_connect.get_client(
                interface="chdb", path=str(path), tz_mode="aware", settings={"async_insert": 0}
            )
        except Exception as problem:
            self.close()
            raise DatabaseError(
                f"The embedded database {path} cannot be opened: "
                f"{_emptied_files(path) or one_line(problem)}"
            ) from problem

    def _open_server(self) -> Client:
        settings = self.settings
        where = f"{settings.clickhouse_host}:{settings.clickhouse_port}"
        try:
            return clickhouse_connect.get_client(
                host=settings.clickhouse_host,
                port=settings.clickhouse_port,
                username=settings.clickhouse_user,
                password=settings.clickhouse_password,
                secure=settings.clickhouse_secure,
                connect_timeout=CONNECT_TIMEOUT_S,
                send_receive_timeout=QUERY_TIMEOUT_S,
                autogenerate_session_id=False,
                tz_mode="aware",
                settings={"async_insert": 0},
            )
        except Exception as problem:
            raise DatabaseError(
                f"ClickHouse at {where} cannot be used: {one_line(problem)} "
                "Start it, or check CLICKHOUSE_HOST, _PORT, _USER, _PASSWORD and _SECURE."
            ) from problem

    def create_tables(self) -> None:
        """Creates the database and the tables that are missing; leaves what is there.

        Where nothing is missing, nothing is changed.
        """
        if not self._rows("SELECT 1 FROM system.databases WHERE name = 'News'"):
            self._define("CREATE DATABASE IF NOT EXISTS News")
        found = self._tables()
        for table, statement in SCHEMA.items():
            if table not in found:
                self._define(statement)
            elif table in DEDUPLICATED_TABLES:
                self._deduplicate(table, found[table])

    def require_room(self) -> None:
        """Make sure that the embedded engine can change its tables unharmed.

        Raises
        ------
        DiskFullError
            Too little space is free on its disk.
        DatabaseError
            Its folder cannot be read.
        """
        if not self.settings.embedded:
            return
        path = self.settings.clickhouse_path
        try:
            free = shutil.disk_usage(path).free
        except OSError as problem:
            raise DatabaseError(
                f"The embedded database {path} cannot be used: {one_line(problem)}"
            ) from problem
        if free < MIN_FREE_BYTES:
            raise DiskFullError(
                f"The disk of the embedded database {path} is full: {free / 2**20:.1f} MiB are "
                f"free, and creating or altering tables takes {MIN_FREE_BYTES // 2**20} MiB. "
                "Free some space there."
            )

    def _define(self, statement: str) -> None:
        """Run a statement that creates, alters, exchanges or drops tables (DDL)."""
        self.require_room()
        self.client.command(statement)

    def _tables(self) -> dict[str, Table]:
        return {name: Table(*table) for name, *table in self._rows(TABLES)}

    def _deduplicate(self, name: str, table: Table) -> None:
        if DEDUPLICATION not in table.engine:
            self._define(f"ALTER TABLE News.{name} MODIFY SETTING {DEDUPLICATION}")

    def _drop(self, name: str) -> None:
        if name in self._tables():
            self._define(f"DROP TABLE IF EXISTS News.{name} SYNC")

    def warn_of_clock_difference(self) -> float:
        """The seconds that the database's clock is ahead of this machine's; warns over 2 s."""
        before = datetime.now(UTC)
        [(there,)] = self._rows("SELECT now64(3)")
        here = before + (datetime.now(UTC) - before) / 2
        ahead_s: float = (there - here).total_seconds()
        # The answer may have been given at any moment between question and arrival.
        if abs(ahead_s) - (here - before).total_seconds() > MAX_CLOCK_DIFFERENCE_S:
            logger.warning(
                "The database's clock is %.1f s %s this machine's: windows and alerts are off by "
                "as much. Synchronise both clocks (NTP).",
                abs(ahead_s),
                "ahead of" if ahead_s > 0 else "behind",
            )
        return ahead_s

    def create_immediate_trigger(self, ticker: str, timestamp: datetime | None = None) -> Path:
        """Writes a trigger file for `ticker`; see `TriggerFolder.write`."""
        return self._triggers.write(ticker, timestamp)

    def active_tickers(self) -> list[str]:
        """The tickers of the news of the last 5 minutes, newest first, at most 100."""
        return [ticker for (ticker,) in self._rows(ACTIVE_TICKERS)]

    def windows(self) -> dict[str, Window]:
        """The windows of all tickers that have rows in this session."""
        return {ticker: Window(*window) for ticker, *window in self._rows(SESSION_WINDOWS)}

    def standing(self, tickers: Collection[str]) -> Standing:
        """Which of `tickers` have their window behind them, by the database's clock, and the
        newest ratings of the last hour."""
        standing = Standing({}, {})
        rows = self._rows(STANDING, tickers=list(tickers), window_s=WINDOW_S)
        for ticker, first_row, rating in rows:
            if rating[0]:
                standing.ratings[ticker] = Rating(*rating)
            else:
                standing.ended[ticker] = first_row
        return standing

    def rises(self, tickers: Collection[str]) -> list[Rise]:
        """The rows of `tickers` that reached the threshold and have no alert yet, in time order."""
        moved = self._rows(MOVED, tickers=list(tickers), change_pct=ALERT_CHANGE_PCT)
        if not moved:
            return []
        return [Rise(*row) for row in self._rows(RISING, **rule(ticker for (ticker,) in moved))]

    def outcomes(self, tickers: Collection[str]) -> dict[str, Outcome]:
        """What came of the windows of those of `tickers` that have rows."""
        rows = self._rows(OUTCOMES, **rule(tickers))
        return {ticker: Outcome(*outcome) for ticker, *outcome in rows}

    def newest_news(self, ticker: str) -> News | None:
        """The ticker's newest news of this session."""
        rows = self._rows(NEWEST_NEWS, ticker=ticker)
        return News(*rows[0]) if rows else None

    def recent_hashes(self) -> dict[str, int]:
        """The content hashes of the last day's news, of all sessions, oldest first; with the Unix
        time each was detected at."""
        return {found: int(at) for found, at in self._rows(RECENT_HASHES)}

    def stored_hashes(self, hashes: Collection[str]) -> set[str]:
        """Those of `hashes` that news of any session has."""
        return {found for (found,) in self._rows(STORED_HASHES, hashes=list(hashes))}

    def listed_tickers(self) -> dict[str, str]:
        """The tickers of `float_list`, each with its company's country."""
        return {ticker: str(country) for ticker, country in self._rows(LISTED_TICKERS)}

    def replace_ticker_list(self, stocks: Sequence[ListedStock]) -> None:
        """Puts `stocks` in the place of the rows of `float_list`, all at once.

        Until then the old rows stay. The table keeps its columns: an earlier
        installation may have more.
        """
        fresh = FRESH_TICKER_LIST
        # What an interrupted attempt left.
        self._drop(fresh)
        self._define(f"CREATE TABLE News.{fresh} AS News.float_list")
        # What is created like a table has its settings.
        self._deduplicate(fresh, self._tables()["float_list"])
        insert(self.client, Batch(stocks, str(uuid.uuid4())))
        self._define(f"EXCHANGE TABLES News.{fresh} AND News.float_list")
        self._define(f"DROP TABLE News.{fresh} SYNC")

    def move_session(self, keep_news_since: datetime | None = None) -> dict[str, int]:
        """Empties the session's tables; their rows go to `<table>_history`, each once.

        An interrupted move is finished by the next one. The exchange of a
        table for an empty one is atomic, so its readers and writers notice
        nothing, and the insert carries a token of the exchanged table, so
        blocks that got through before an interruption are not stored again.
        What the engine lost of them is found by comparing the rows.

        Parameters
        ----------
        keep_news_since
            News detected since then stays in `breaking_news`: a ticker that
            comes up in the middle of the move needs its rating.

        Returns
        -------
        dict[str, int]
            Per table, the rows moved; the log says so too.
        """
        moved = {}
        for table in SESSION_TABLES:
            kept_since = keep_news_since if table == "breaking_news" else None
            count = self._finish_move(table, resumed=True) + self._begin_move(table, kept_since)
            logger.info("Fresh session: %d rows of %s moved to %s_history.", count, table, table)
            moved[table] = count
        return moved

    def _begin_move(self, table: str, kept_since: datetime | None) -> int:
        if not self._rows(f"SELECT 1 FROM News.{table} LIMIT 1"):  # noqa: S608
            return 0
        self._define(f"CREATE TABLE News.{table}_moving AS News.{table}")
        # The comment goes with the rows, so that an interrupted move ends as it began.
        comment = "" if kept_since is None else kept_since.isoformat()
        if comment != self._tables()[table].comment:
            self._define(f"ALTER TABLE News.{table} MODIFY COMMENT '{comment}'")
        self._define(f"EXCHANGE TABLES News.{table} AND News.{table}_moving")
        return self._finish_move(table, resumed=False)

    def _finish_move(self, table: str, *, resumed: bool) -> int:
        moving, history = f"{table}_moving", f"{table}_history"
        found = self._rows(MOVING_TABLE, table=moving)
        if not found:
            return 0
        token, comment, replacing, expiring = found[0]
        # A second attempt must find the very same rows, whatever the engine merged
        # meanwhile: no row expires, and of one that was replaced only the newest counts.
        if expiring:
            self._define(f"ALTER TABLE News.{moving} REMOVE TTL")
        source = f"News.{moving} FINAL" if replacing else f"News.{moving}"
        columns = self._rows(COLUMNS, table=moving)
        typed = {name: f"{quote_identifier(name)} {kind}" for name, kind in columns}
        names = ", ".join(quote_identifier(name) for name in typed)
        there = {name for name, _ in self._rows(COLUMNS, table=history)}
        if not there:
            self._define(
                f"CREATE TABLE IF NOT EXISTS News.{history} ({', '.join(typed.values())}) "
                f"ENGINE = MergeTree ORDER BY (ticker, timestamp) SETTINGS {DEDUPLICATION}"
            )
        elif lacking := [column for name, column in typed.items() if name not in there]:
            added = ", ".join(f"ADD COLUMN IF NOT EXISTS {column}" for column in lacking)
            self._define(f"ALTER TABLE News.{history} {added}")
        kept = f"detected_at >= parseDateTime64BestEffort('{comment}', 3, 'UTC')"
        destinations = {history: "1"} if not comment else {history: f"NOT {kept}", table: kept}
        for destination, condition in destinations.items():
            rows = f"SELECT {names} FROM {source} WHERE {condition} ORDER BY {names}"  # noqa: S608
            self._copy(rows, names, destination, f"{token} {destination}")
            if resumed:
                self._add_lost(rows, names, destination, f"{table}_expected")
        condition = destinations[history]
        [(moved,)] = self._rows(f"SELECT count() FROM {source} WHERE {condition}")  # noqa: S608
        self._define(f"DROP TABLE News.{moving} SYNC")
        return int(moved)

    def _copy(self, rows: str, names: str, destination: str, token: str) -> None:
        # One thread and one order: a second attempt makes the very same blocks.
        self.client.command(
            f"INSERT INTO News.{destination} ({names}) {rows}",
            settings={
                "insert_deduplication_token": token,
                "max_threads": 1,
                "max_insert_threads": 1,
            },
        )

    def _add_lost(self, rows: str, names: str, destination: str, expected: str) -> None:
        """Adds those of `rows` that did not get into `destination` for all their token says.

        The engine notes a block's token a moment before it has the block: killed
        in between, it takes a block that is not there for one that is.
        """
        # What an interrupted attempt left.
        self._drop(expected)
        # As the destination has them, the engine's conversions included.
        self._define(f"CREATE TABLE News.{expected} AS News.{destination}")
        self._copy(rows, names, expected, str(uuid.uuid4()))
        parts = {"names": names, "expected": expected, "destination": destination}
        [(lost,)] = self._rows(f"SELECT sum(lacking) FROM ({LACKING % parts})")  # noqa: S608
        if lost:
            logger.warning(
                "Rows that the interrupted move lost on their way into %s, added now: %d.",
                destination,
                lost,
            )
            self._copy(LACKING_ROWS % parts, names, destination, str(uuid.uuid4()))
        self._define(f"DROP TABLE News.{expected} SYNC")

    def _rows(self, statement: str, **parameters: Any) -> Sequence[Sequence[Any]]:
        """A query's rows, with times in UTC also where the embedded engine has another zone."""
        return self.client.query(statement, parameters=parameters, query_tz="UTC").result_rows


def rule(tickers: Iterable[str] = ()) -> dict[str, Any]:
    """The parameters of a query about `JUDGED`."""
    lowest, highest = ALERT_PRICES
    return {
        "tickers": list(tickers),
        "window_s": WINDOW_S,
        "change_pct": ALERT_CHANGE_PCT,
        "lowest": lowest,
        "highest": highest,
    }


def describe(outcome: Outcome | None) -> str:
    """What came of a window, in a trader's words; None stands for a ticker without rows."""
    if outcome is None:
        return "no ticks"
    best = f"best change {outcome.best_change_pct:+.1f} % of {ALERT_CHANGE_PCT:.0f} %"
    if outcome.alerts:
        return f"{outcome.alerts} alert{'s' if outcome.alerts > 1 else ''}, {best}"
    if not outcome.judged:
        return f"no alert, only {outcome.rows} prices"
    if not outcome.rises:
        return f"no alert, {best}"
    if not outcome.rises_in_range:
        lowest, highest = ALERT_PRICES
        return f"no alert, price outside {lowest:.2f} to {highest:.0f}, {best}"
    return f"no alert, not rated BUY, {best}"


def one_line(problem: Exception) -> str:
    """An exception's cause in one line, in the system's own words where it has some."""
    cause: BaseException | None = None if isinstance(problem, DatabaseError) else problem
    while cause is not None:
        if isinstance(cause, OSError):
            return f"{cause.strerror or cause}."
        cause = cause.__cause__ or cause.__context__
    text = str(problem).strip() or type(problem).__name__
    return text.splitlines()[0][:300]


def _database_call(call: Callable[..., Any]) -> Callable[..., Any]:
    """Let whatever a call of clickhouse-connect's raises be one of DATABASE_ERRORS.

    Besides its own errors it raises those of files, sockets and answers cut short.
    """

    @functools.wraps(call)
    def checked(*arguments: Any, **named: Any) -> Any:
        try:
            result = call(*arguments, **named)
            if isinstance(result, QueryResult):
                # Otherwise rows are decoded, and may fail, where they are first used.
                result.result_rows  # noqa: B018
        except DATABASE_ERRORS:
            raise
        except Exception as problem:
            raise DatabaseError(f"{type(problem).__name__}: {one_line(problem)}") from problem
        return result

    return checked


def _keep_inserts_in(folder: Path) -> None:
    """Let the driver of the embedded engine pass inserts through files in `folder`.

    By itself it does so in TMPDIR, which may be full or gone, and has no option for it. Here its
    module alone gets another `tempfile`; the process keeps its own.
    """
    try:
        # Not above: with a server the engine's library is not needed.
        from clickhouse_connect.driver._backend import chdb_backend
    except ImportError:
        # Another release of the driver; it goes on with TMPDIR.
        return
    in_folder = functools.partial(tempfile.NamedTemporaryFile, dir=folder)
    vars(chdb_backend)["tempfile"] = SimpleNamespace(NamedTemporaryFile=in_folder)


def _emptied_files(path: Path) -> str:
    """What to do about an embedded database that a full disk has ruined; empty for any other."""
    found: list[str] = []
    with suppress(OSError):
        found = sorted(
            str(file.relative_to(path)) for file in path.rglob("*.sql") if not file.stat().st_size
        )
    if not found:
        return ""
    return (
        f"a full disk left these files empty: {', '.join(found)}. Copy the folder, then move them "
        "out of it: their tables start anew. docs/troubleshooting.md, "
        '"An embedded database that does not open", says how to keep their rows.'
    )


async def until_database_works(work: Callable[[], object], *, wait: bool) -> None:
    """Does blocking work with the database; with `wait`, until it succeeds.

    Raises
    ------
    DatabaseError, ClickHouseError
        It failed; not with `wait`.
    ConfigurationError
        It can never succeed.
    """
    told = ""
    while True:
        try:
            await off_loop(work)
        except DATABASE_ERRORS as problem:
            if not wait:
                raise
            if one_line(problem) != told:
                told = one_line(problem)
                logger.error("%s It is tried again every %.0f s.", told, RETRY_S)
            await asyncio.sleep(RETRY_S)
        else:
            return


class _PathLock:
    """This process's hold on an embedded database's folder, shared by its connections.

    chDB's own refusal of a second process says nothing that a user could act on.
    """

    _guard: ClassVar = threading.Lock()
    # folder → its lock's file descriptor and the number of connections that hold it
    _held: ClassVar[dict[Path, tuple[int, int]]] = {}

    def __init__(self, folder: Path) -> None:
        """Takes the hold; raises BlockingIOError when another process has it."""
        self._folder = folder.resolve()
        with self._guard:
            descriptor, holders = self._held.get(self._folder, (-1, 0))
            if holders == 0:
                descriptor = lock_file(self._folder / "newshead.lock")
                try:
                    self._empty_inserts()
                except OSError:
                    os.close(descriptor)
                    raise
            self._held[self._folder] = (descriptor, holders + 1)

    def _empty_inserts(self) -> None:
        """Remove what inserts of a killed process left."""
        inserts = self._folder / INSERTS_FOLDER
        inserts.mkdir(exist_ok=True)
        for left in inserts.iterdir():
            left.unlink()

    def release(self) -> None:
        with self._guard:
            descriptor, holders = self._held.pop(self._folder)
            if holders > 1:
                self._held[self._folder] = (descriptor, holders - 1)
            else:
                os.close(descriptor)
