"""The session's move: its tables' rows go into `<table>_history`, each once."""

import logging
import uuid
from datetime import datetime

from clickhouse_connect.driver.binding import quote_identifier

from newshead.database.connection import Database
from newshead.database.queries import COLUMNS, LACKING, LACKING_ROWS, MOVING_TABLE
from newshead.database.tables import (
    DEDUPLICATION,
    SESSION_TABLES,
    drop,
    existing_tables,
    require_exchange,
)

logger = logging.getLogger(__name__)


def require_movable(database: Database) -> None:
    """Make sure that the session can be moved now.

    Raises
    ------
    CannotMoveError
        It cannot; the text says why and what to do.
    """
    database.require_room()
    require_exchange(database)


def move_session(database: Database, keep_news_since: datetime | None = None) -> dict[str, int]:
    """Empty the session's tables; their rows go to `<table>_history`, each once.

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

    Raises
    ------
    CannotMoveError
        It cannot begin; nothing has changed.
    """
    require_exchange(database)
    moved = {}
    for table in SESSION_TABLES:
        kept_since = keep_news_since if table == "breaking_news" else None
        count = _finish_move(database, table, resumed=True) + _begin_move(
            database, table, kept_since
        )
        logger.info("Fresh session: %d rows of %s moved to %s_history.", count, table, table)
        moved[table] = count
    return moved


def _begin_move(database: Database, table: str, kept_since: datetime | None) -> int:
    if not database.rows(f"SELECT 1 FROM News.{table} LIMIT 1"):  # noqa: S608
        return 0
    database.define(f"CREATE TABLE News.{table}_moving AS News.{table}")
    # The comment goes with the rows, so that an interrupted move ends as it began.
    comment = "" if kept_since is None else kept_since.isoformat()
    if comment != existing_tables(database)[table].comment:
        database.define(f"ALTER TABLE News.{table} MODIFY COMMENT '{comment}'")
    database.define(f"EXCHANGE TABLES News.{table} AND News.{table}_moving")
    return _finish_move(database, table, resumed=False)


def _finish_move(database: Database, table: str, *, resumed: bool) -> int:
    moving, history = f"{table}_moving", f"{table}_history"
    found = database.rows(MOVING_TABLE, table=moving)
    if not found:
        return 0
    token, comment, replacing, expiring = found[0]
    # A second attempt must find the very same rows, whatever the engine merged
    # meanwhile: no row expires, and of one that was replaced only the newest counts.
    if expiring:
        database.define(f"ALTER TABLE News.{moving} REMOVE TTL")
    source = f"News.{moving} FINAL" if replacing else f"News.{moving}"
    columns = database.rows(COLUMNS, table=moving)
    typed = {name: f"{quote_identifier(name)} {kind}" for name, kind in columns}
    names = ", ".join(quote_identifier(name) for name in typed)
    there = {name for name, _ in database.rows(COLUMNS, table=history)}
    if not there:
        database.define(
            f"CREATE TABLE IF NOT EXISTS News.{history} ({', '.join(typed.values())}) "
            f"ENGINE = MergeTree ORDER BY (ticker, timestamp) SETTINGS {DEDUPLICATION}"
        )
    elif lacking := [column for name, column in typed.items() if name not in there]:
        added = ", ".join(f"ADD COLUMN IF NOT EXISTS {column}" for column in lacking)
        database.define(f"ALTER TABLE News.{history} {added}")
    kept = f"detected_at >= parseDateTime64BestEffort('{comment}', 3, 'UTC')"
    destinations = {history: "1"} if not comment else {history: f"NOT {kept}", table: kept}
    for destination, condition in destinations.items():
        rows = f"SELECT {names} FROM {source} WHERE {condition} ORDER BY {names}"  # noqa: S608
        _copy(database, rows, names, destination, f"{token} {destination}")
        if resumed:
            _add_lost(database, rows, names, destination, f"{table}_expected")
    condition = destinations[history]
    [(moved,)] = database.rows(f"SELECT count() FROM {source} WHERE {condition}")  # noqa: S608
    database.define(f"DROP TABLE News.{moving} SYNC")
    return int(moved)


def _copy(database: Database, rows: str, names: str, destination: str, token: str) -> None:
    # One thread and one order: a second attempt makes the very same blocks.
    database.client.command(
        f"INSERT INTO News.{destination} ({names}) {rows}",
        settings={
            "insert_deduplication_token": token,
            "max_threads": 1,
            "max_insert_threads": 1,
        },
    )


def _add_lost(database: Database, rows: str, names: str, destination: str, expected: str) -> None:
    """Add those of `rows` that did not get into `destination` for all their token says.

    The engine notes a block's token a moment before it has the block: killed
    in between, it takes a block that is not there for one that is.
    """
    # What an interrupted attempt left.
    drop(database, expected)
    # As the destination has them, the engine's conversions included.
    database.define(f"CREATE TABLE News.{expected} AS News.{destination}")
    _copy(database, rows, names, expected, str(uuid.uuid4()))
    parts = {"names": names, "expected": expected, "destination": destination}
    [(lost,)] = database.rows(f"SELECT sum(lacking) FROM ({LACKING % parts})")  # noqa: S608
    if lost:
        logger.warning(
            "Rows that the interrupted move lost on their way into %s, added now: %d.",
            destination,
            lost,
        )
        _copy(database, LACKING_ROWS % parts, names, destination, str(uuid.uuid4()))
    database.define(f"DROP TABLE News.{expected} SYNC")
