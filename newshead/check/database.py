"""Whether ClickHouse can be used as it is configured. Makes no table. Blocks."""

from typing import Final

from clickhouse_connect.driver.exceptions import ClickHouseError

from newshead.check.finding import Finding, failed, ok
from newshead.database.connection import (
    DATABASE_ERRORS,
    MAX_CLOCK_DIFFERENCE_S,
    Database,
    one_line,
)
from newshead.database.schema import existing_tables
from newshead.database.tables import TABLES
from newshead.settings import ConfigurationError, Settings

PART: Final = "database"
# What newshead's user needs.
RIGHTS: Final = (
    *("SELECT", "INSERT", "TRUNCATE", "CREATE DATABASE", "CREATE TABLE", "DROP TABLE"),
    *("ALTER TABLE", "SYSTEM TTL MERGES"),
)
# Of servers that do not know CHECK GRANT yet.
SYNTAX_ERROR_CODE: Final = 62


def database(settings: Settings) -> Finding:
    """Return how the database fares."""
    if settings.embedded and not settings.clickhouse_path.exists():
        return ok(PART, f"embedded, made at the first start in {settings.clickhouse_path}")
    connection = Database(settings)
    try:
        connection.connect()
        return _judge(connection, settings)
    except (*DATABASE_ERRORS, ConfigurationError) as problem:
        return failed(PART, one_line(problem))
    finally:
        connection.close()


def _judge(connection: Database, settings: Settings) -> Finding:
    where = (
        f"embedded in {settings.clickhouse_path}"
        if settings.embedded
        else f"{settings.clickhouse_host}:{settings.clickhouse_port}"
    )
    if settings.embedded:
        connection.require_room()
    elif lacking := _lacking(connection):
        return failed(
            PART,
            f"The database's user {settings.clickhouse_user} lacks the rights "
            f"{', '.join(lacking)} on News.*: grant them, as docs/database.md says.",
        )
    ahead_s = connection.warn_of_clock_difference()
    if abs(ahead_s) > MAX_CLOCK_DIFFERENCE_S:
        return failed(
            PART,
            f"Its clock is {abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} this "
            "machine's: synchronise both clocks (NTP).",
        )
    present = existing_tables(connection)
    missing = sum(table.name not in present for table in TABLES)
    tables = f"{missing} tables are made at the next start" if missing else "all tables there"
    return ok(PART, f"{where}, ClickHouse {connection.client.server_version}, {tables}")


def _lacking(connection: Database) -> list[str]:
    """Return the rights that the user lacks; none where the server cannot tell."""
    try:
        return [
            right for right in RIGHTS if not connection.rows(f"CHECK GRANT {right} ON News.*")[0][0]
        ]
    except ClickHouseError as problem:
        if getattr(problem, "code", None) != SYNTAX_ERROR_CODE:
            raise
        return []
