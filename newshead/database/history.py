"""The session's move: its tables' rows go into `<table>_history`, each once."""

import logging
import time
from datetime import UTC, datetime
from typing import Final

from newshead.database import sessions
from newshead.database.connection import QUERY_TIMEOUT_S, CannotMoveError, Database
from newshead.database.copying import Copy, Source
from newshead.database.queries import INSERTS_UNDER_WAY, MOVING_TABLE
from newshead.database.schema import (
    catch_up,
    columns_of,
    create_like,
    existing_tables,
    find_kind,
    keep_expired,
    provide_history,
    require_exchange,
)
from newshead.database.tables import DESCRIBED, SESSION_TABLES

logger = logging.getLogger(__name__)

# Longer than any insert is given.
INSERTS_END_S: Final = QUERY_TIMEOUT_S + 10
LOOK_EVERY_S: Final = 0.02


def require_movable(database: Database) -> None:
    """Make sure that the session can be moved now.

    Raises
    ------
    CannotMoveError
        It cannot; the text says why and what to do.
    """
    database.require_room()
    find_kind(database)
    require_exchange(database)
    catch_up(database, ["sessions", *SESSION_TABLES, *(f"{t}_history" for t in SESSION_TABLES)])


def move_session(database: Database, keep_news_since: datetime | None = None) -> dict[str, int]:
    """Empty the session's tables; their rows go to `<table>_history`, each once.

    An interrupted move is finished by the next one. The exchange of a
    table for an empty one is atomic, so its readers and writers notice
    nothing. What an interrupted move has not brought into the history
    is found by comparing the rows.

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
        It cannot begin, and nothing has changed; or it is interrupted, since this replica cannot
        catch up.
    """
    require_movable(database)
    now = datetime.now(UTC)
    sessions.note_begin(database, now)
    moved = {}
    for table in SESSION_TABLES:
        kept_since = keep_news_since if table == "breaking_news" else None
        count = _finish_move(database, table, resumed=True) + _begin_move(
            database, table, kept_since
        )
        logger.info("Fresh session: %d rows of %s moved to %s_history.", count, table, table)
        moved[table] = count
    sessions.turn(database, now)
    return moved


def _begin_move(database: Database, table: str, kept_since: datetime | None) -> int:
    if not database.rows(f"SELECT 1 FROM News.{table} LIMIT 1"):  # noqa: S608
        return 0
    create_like(database, f"{table}_moving", DESCRIBED[table])
    keep_expired(database, [f"{table}_moving"])
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
    _await_inserts(database, table)
    # Another replica may have taken rows until the tables were exchanged.
    catch_up(database, [moving])
    token, comment, replacing, expiring = found[0]
    # A second attempt must find the very same rows, whatever the engine merged
    # meanwhile: no row expires, and of one that was replaced only the newest counts.
    if expiring:
        database.define(f"ALTER TABLE News.{moving} REMOVE TTL")
    source = Source(moving, token, bool(replacing))
    provide_history(database, table, columns_of(database, moving))
    kept = f"detected_at >= parseDateTime64BestEffort('{comment}', 3, 'UTC')"
    destinations = {history: "1"} if not comment else {history: f"NOT {kept}", table: kept}
    for destination, condition in destinations.items():
        copy = Copy(database, source, destination, condition)
        if not resumed:
            copy.run()
        elif added := copy.resume():
            logger.info("Interrupted move resumed: %d rows added to %s.", added, destination)
    condition = destinations[history]
    [(moved,)] = database.rows(f"SELECT count() FROM News.{source.rows} WHERE {condition}")  # noqa: S608
    database.define(f"DROP TABLE News.{moving} SYNC")
    return int(moved)


def _await_inserts(database: Database, table: str) -> None:
    """Wait for the inserts into a table that began before it was exchanged: their rows come into
    what is being moved.

    Raises
    ------
    CannotMoveError
        One does not end.
    """

    def under_way() -> set[str]:
        return {query_id for (query_id,) in database.rows(INSERTS_UNDER_WAY, table=table)}

    deadline = time.monotonic() + INSERTS_END_S
    waited_for = under_way()
    while waited_for:
        if time.monotonic() >= deadline:
            raise CannotMoveError(
                f"An INSERT into News.{table} has not ended for {INSERTS_END_S:.0f} s: wait for "
                "its end or stop it (KILL QUERY). Until then --keep-session works."
            )
        time.sleep(LOOK_EVERY_S)
        waited_for &= under_way()
