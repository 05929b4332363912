"""The tables as the database has them: what is missing is created, what is there is left alone."""

import functools
import logging
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from clickhouse_connect.driver.exceptions import ClickHouseError

from newshead.database.connection import (
    ACCESS_DENIED_CODE,
    CannotMoveError,
    Database,
    DatabaseError,
    one_line,
)
from newshead.database.kind import Kind
from newshead.database.table import Column, Table
from newshead.database.tables import SESSION_TABLES, TABLES, history_of

logger = logging.getLogger(__name__)


class Existing(NamedTuple):
    """A table that exists: its engine with all settings, its comment and its partition key."""

    engine: str
    comment: str
    partition: str


# What a user has detached has no reason.
DETACHED: Final = """
    SELECT table, count(), groupUniqArray(reason)
    FROM system.detached_parts
    WHERE database = 'News' AND reason != ''
    GROUP BY table
    ORDER BY table"""

KIND: Final = """
    SELECT engine, toString(serverUUID())
    FROM system.databases
    WHERE name = 'News'"""

COLUMNS: Final = """
    SELECT name, type FROM system.columns
    WHERE database = 'News' AND table = {table:String}
        AND default_kind NOT IN ('ALIAS', 'MATERIALIZED', 'EPHEMERAL')
    ORDER BY position"""

EXISTING: Final = """
    SELECT name, engine_full, comment, partition_key
    FROM system.tables
    WHERE database = 'News'"""


def create_tables(database: Database) -> None:
    """Create the database and the tables that are missing; leave what is there.

    Where nothing is missing, nothing is changed.
    """
    if not find_kind(database):
        database.define("CREATE DATABASE IF NOT EXISTS News")
        # A server may make databases of another kind than Atomic by itself.
        find_kind(database)
    found = existing_tables(database)
    keep_expired(database, found)
    missing = [table for table in TABLES if table.name not in found]
    for table in missing:
        database.define(table.ddl(database.kind))
    for table in TABLES:
        if table.name in found:
            set_settings(database, table.name, table.settings(database.kind), found[table.name])
    for name in SESSION_TABLES:
        if f"{name}_history" not in found:
            provide_history(database, name, columns_of(database, name))
        elif not found[f"{name}_history"].partition and can_exchange(database):
            _set_aside(database, name)
    keep_expired(database, [table.name for table in missing])
    warn_of_detached_parts(database)


def find_kind(database: Database) -> bool:
    """Find out of what kind the database is; return whether it exists.

    In a Shared one, this connection then reads what was stored through any server.
    """
    found = database.rows(KIND)
    if not found:
        return False
    [(engine, server)] = found
    database.learn(engine, server)
    if database.kind is Kind.SHARED:
        database.client.set_client_setting("select_sequential_consistency", 1)
    return True


def catch_up(database: Database, tables: Collection[str]) -> None:
    """Let this replica catch up with the others: the list of tables, and those of `tables` that
    exist.

    Raises
    ------
    CannotMoveError
        It cannot.
    """
    if database.kind is not Kind.REPLICATED:
        return
    try:
        database.client.command("SYSTEM SYNC DATABASE REPLICA News")
        for name in sorted(existing_tables(database).keys() & set(tables)):
            database.client.command(f"SYSTEM SYNC REPLICA News.{name} LIGHTWEIGHT")
    except (ClickHouseError, DatabaseError) as problem:
        raise CannotMoveError(
            f"This replica of the database News cannot catch up: {one_line(problem)} "
            "Look at system.replicas. Until then --keep-session works."
        ) from problem


def create_like(database: Database, name: str, table: Table) -> None:
    """Create a table with the columns that another one has."""
    # Of a replicated table its own path would be copied.
    storage = f" {table.storage(database.kind)}" if database.kind is Kind.REPLICATED else ""
    database.define(f"CREATE TABLE News.{name} AS News.{table.name}{storage}")


def _set_aside(database: Database, table: str) -> None:
    """Put a history as earlier versions made it, not partitioned, into `<table>_history_old`.

    `layout.bring_over` then brings its rows into the new one.
    """
    history = f"{table}_history"
    fresh = history_of(table, columns_of(database, history))._replace(name=f"{history}_old")
    database.define(fresh.ddl(database.kind))
    database.define(f"EXCHANGE TABLES News.{history} AND News.{history}_old")


def keep_expired(database: Database, tables: Collection[str]) -> None:
    """Let the rows of the session's tables among `tables` outlive their time to live.

    They are moved to the history, whatever their age. This lasts until the engine ends.
    """
    for table in SESSION_TABLES:
        for name in (table, f"{table}_moving"):
            if name in tables:
                try:
                    database.client.command(f"SYSTEM STOP TTL MERGES News.{name}")
                except ClickHouseError as problem:
                    if getattr(problem, "code", None) != ACCESS_DENIED_CODE:
                        raise
                    _warn_of_expiry(one_line(problem))


@functools.cache
def _warn_of_expiry(reason: str) -> None:
    # Each process says it once.
    logger.warning("Rows of a session of over 7 days may be deleted before they move: %s", reason)


def columns_of(database: Database, table: str) -> list[Column]:
    """Return a table's columns, without defaults; those that are computed are left out."""
    return [Column(*column) for column in database.rows(COLUMNS, table=table)]


def warn_of_detached_parts(database: Database) -> None:
    """Log where the engine has put parts of tables aside, which it does in silence."""
    for table, parts, reasons in database.rows(DETACHED):
        if _told_detached.get(table) != parts:
            _told_detached[table] = parts
            logger.error(
                "ClickHouse cannot read parts of News.%s and has put them aside, their rows are "
                "missing: %d (%s). docs/troubleshooting.md says how to get them back.",
                table,
                parts,
                ", ".join(reasons),
            )


# Each process says it once; the tables with the numbers of their parts.
_told_detached: dict[str, int] = {}


def existing_tables(database: Database) -> dict[str, Existing]:
    """Return the tables that exist, by their names."""
    return {name: Existing(*table) for name, *table in database.rows(EXISTING)}


def can_exchange(database: Database) -> bool:
    """Return whether tables can be exchanged for others: not in databases of the old kind."""
    return not database.rows(
        "SELECT 1 FROM system.databases WHERE name = 'News' AND engine = 'Ordinary'"
    )


def require_exchange(database: Database) -> None:
    """Make sure that tables can be exchanged for others.

    Raises
    ------
    CannotMoveError
        The database is of a kind that cannot.
    """
    if database.rows("SELECT 1 FROM system.databases WHERE name = 'News' AND engine = 'Ordinary'"):
        raise CannotMoveError(
            "The database News has the old engine Ordinary, which cannot exchange tables: create "
            "the file flags/convert_ordinary_to_atomic in the server's data folder and restart "
            "the server. Until then --keep-session works."
        )


def provide_history(database: Database, table: str, columns: Sequence[Column]) -> None:
    """Create the history of a session's table, or give it those of `columns` that it lacks."""
    history = f"{table}_history"
    there = {column.name for column in columns_of(database, history)}
    lacking = [column.definition for column in columns if column.name not in there]
    if not there:
        database.define(history_of(table, columns).ddl(database.kind))
    elif lacking:
        added = ", ".join(f"ADD COLUMN IF NOT EXISTS {column}" for column in lacking)
        database.define(f"ALTER TABLE News.{history} {added}")


def set_settings(database: Database, name: str, settings: Sequence[str], table: Existing) -> None:
    """Give a table those of `settings` that it lacks."""
    lacking = [setting for setting in settings if setting not in table.engine]
    if lacking:
        database.define(f"ALTER TABLE News.{name} MODIFY SETTING {', '.join(lacking)}")


def drop(database: Database, name: str) -> None:
    """Drop a table that may exist."""
    if name in existing_tables(database):
        database.define(f"DROP TABLE IF EXISTS News.{name} SYNC")
