"""The list of sessions, `News.sessions`: one begins where another one ends, by the move."""

import uuid
from datetime import UTC, datetime, timedelta
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

# The first row's time, null where there is none.
FIRST: Final = """
    SELECT minOrNull(timestamp)
    FROM (
        SELECT timestamp FROM News.price_tracking
        UNION ALL
        SELECT timestamp FROM News.news_alert
    )"""

# Per New York day: windows, alerts, rows, the first and the last row's time.
BY_DAY: Final = """
    SELECT toDate(timestamp, 'America/New_York') AS day, uniqExactIf(ticker, NOT alert),
        sum(alert), sum(NOT alert), min(timestamp), max(timestamp)
    FROM (
        SELECT timestamp, ticker, 0 AS alert FROM News.%(prices)s WHERE %(enclosed)s
        UNION ALL
        SELECT timestamp, ticker, 1 FROM News.%(alerts)s WHERE %(enclosed)s
    )
    GROUP BY day
    ORDER BY day"""

# The newest row's time, which the engine knows without reading any.
NEWEST: Final = """
    SELECT max(newest)
    FROM (
        SELECT max(timestamp) AS newest FROM News.price_tracking_history
        UNION ALL
        SELECT max(timestamp) FROM News.news_alert_history
    )"""

NEXT: Final = """
    SELECT minOrNull(begin) FROM News.sessions FINAL WHERE begin > {begin:DateTime64(3, 'UTC')}"""

WINDOWS: Final = """
    SELECT uniqExact(ticker) FROM News.price_tracking_history WHERE %(enclosed)s"""

# A history's order and parts are by UTC days.
ENCLOSED: Final = """
    timestamp >= {begin:DateTime('UTC')} AND timestamp < {until:DateTime('UTC')}
        AND toDate(timestamp, 'UTC') >= toDate({begin:DateTime('UTC')}, 'UTC')
        AND toDate(timestamp, 'UTC') <= toDate({until:DateTime('UTC')}, 'UTC')"""
_OF_HISTORY: Final = {
    "prices": "price_tracking_history",
    "alerts": "news_alert_history",
    "enclosed": ENCLOSED,
}


def note_begin(database: Database, now: datetime) -> None:
    """Let the session in the tables begin no later than its first row, before its rows move."""
    [(first,)] = database.rows(FIRST)
    if first is None:
        return
    session = _open(database)
    if session is None:
        _store(database, [_begun(min(first, now))])
    elif first < session.begin.replace(microsecond=0):
        # Of a session that began before sessions were listed.
        _store(database, [session._replace(begin=first)])


def turn(database: Database, now: datetime) -> None:
    """End the session that has moved at `now`, and begin the next one; one that held nothing
    goes on.

    What it held are the history's rows from its begin to its end, or to the begin of a session that
    is listed already: however often its move was interrupted.
    """
    session = _open(database)
    if session is None:
        _store(database, [_begun(now)])
        return
    [(newest,)] = database.rows(NEWEST)
    if newest < session.begin.replace(microsecond=0):
        return
    [(following,)] = database.rows(NEXT, begin=session.begin)
    until = following or now + timedelta(seconds=1)
    span: dict[str, Any] = {"begin": session.begin, "until": until}
    days = database.rows(BY_DAY % _OF_HISTORY, **span)
    if not days:
        return
    [(windows,)] = database.rows(WINDOWS % _OF_HISTORY, **span)
    ended = session._replace(
        end=now,
        windows=windows,
        alerts=sum(day[2] for day in days),
        rows=sum(day[3] for day in days),
        days=[(day, windows, alerts) for day, windows, alerts, *_ in days],
    )
    _store(database, [ended, _begun(now)])


def list_days(database: Database, prices: str, alerts: str) -> None:
    """List each New York day of tables from before sessions were listed as a session.

    Again with the same tables, it changes nothing.
    """
    tables = {"prices": prices, "alerts": alerts, "enclosed": "1"}
    _store(
        database,
        [
            SessionRow(
                first.isoformat(), first, last, windows, alerts, rows, [(day, windows, alerts)]
            )
            for day, windows, alerts, rows, first, last in database.rows(BY_DAY % tables)
        ],
    )


def _open(database: Database) -> SessionRow | None:
    rows = database.rows(OPEN)
    return SessionRow(*rows[0]) if rows else None


def _begun(at: datetime) -> SessionRow:
    begin = at.astimezone(UTC)
    return SessionRow(begin.isoformat(timespec="milliseconds"), begin, NOT_ENDED, 0, 0, 0, [])


def _store(database: Database, sessions: list[SessionRow]) -> None:
    if sessions:
        insert(database.client, Batch(sessions, str(uuid.uuid4())))
