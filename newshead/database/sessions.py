"""The list of sessions, `News.sessions`: one begins where another one ends, by the move."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from newshead.database.connection import Database
from newshead.database.store import Batch, insert
from newshead.database.tables import NOT_ENDED, SessionRow

# Texts that are put together from parts hold names of tables only (S608); values are always bound.

OPEN: Final = """
    SELECT id, begin, end, windows, alerts, rows, days
    FROM News.sessions FINAL
    WHERE end = toDateTime64(0, 3)
    ORDER BY begin DESC
    LIMIT 1"""

# Per New York day: windows, alerts, rows, the first and the last row's time.
BY_DAY: Final = """
    SELECT toDate(timestamp, 'America/New_York') AS day, uniqExactIf(ticker, NOT alert),
        sum(alert), sum(NOT alert), min(timestamp), max(timestamp)
    FROM (
        SELECT timestamp, ticker, 0 AS alert FROM News.%(prices)s
        UNION ALL
        SELECT timestamp, ticker, 1 FROM News.%(alerts)s
    )
    GROUP BY day
    ORDER BY day"""

WINDOWS: Final = "SELECT uniqExact(ticker) FROM News.price_tracking"


def note(database: Database, now: datetime) -> None:
    """Note what the session in the tables holds, before it moves."""
    days = _by_day(database, "price_tracking", "news_alert")
    if not days:
        return
    [(windows,)] = database.rows(WINDOWS)
    first = min(day[4] for day in days)
    session = _open(database) or _begun(min(first, now))
    noted = session._replace(
        # Rows may be older: of a session that began before sessions were listed.
        begin=min(session.begin, first),
        windows=windows,
        alerts=sum(day[2] for day in days),
        rows=sum(day[3] for day in days),
        days=[(day, windows, alerts) for day, windows, alerts, *_ in days],
    )
    _store(database, [noted])


def turn(database: Database, now: datetime) -> None:
    """End the session that has moved at `now`, and begin the next one; one that held nothing
    goes on."""
    session = _open(database)
    if session is None:
        _store(database, [_begun(now)])
    elif session.days:
        _store(database, [session._replace(end=now), _begun(now)])


def list_days(database: Database, prices: str, alerts: str) -> None:
    """List each New York day of tables from before sessions were listed as a session.

    Again with the same tables, it changes nothing.
    """
    _store(
        database,
        [
            SessionRow(
                first.isoformat(), first, last, windows, alerts, rows, [(day, windows, alerts)]
            )
            for day, windows, alerts, rows, first, last in _by_day(database, prices, alerts)
        ],
    )


def _by_day(database: Database, prices: str, alerts: str) -> Sequence[Sequence[Any]]:
    return database.rows(BY_DAY % {"prices": prices, "alerts": alerts})


def _open(database: Database) -> SessionRow | None:
    rows = database.rows(OPEN)
    return SessionRow(*rows[0]) if rows else None


def _begun(at: datetime) -> SessionRow:
    begin = at.astimezone(UTC)
    return SessionRow(begin.isoformat(timespec="milliseconds"), begin, NOT_ENDED, 0, 0, 0, [])


def _store(database: Database, sessions: list[SessionRow]) -> None:
    if sessions:
        insert(database.client, Batch(sessions, str(uuid.uuid4())))
