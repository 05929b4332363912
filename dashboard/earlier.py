"""Earlier sessions, asked of ClickHouse: their list, and the windows of one or of a ticker.

Everything here blocks, as in `queries`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from operator import attrgetter
from typing import Any, Final, NamedTuple

from dashboard.cards import Card, make_card
from dashboard.queries import (
    ALERT_COLUMNS,
    MAX_ALERTS,
    MAX_NEWS,
    MAX_POINTS,
    MAX_TICKERS,
    NEWEST_ALERTS,
    articles_by_ticker,
    by_ticker,
    news_of,
    read_if_there,
    session_key,
)
from newshead.core import rule
from newshead.core.rule import WINDOW_S
from newshead.core.tickers import ibkr_name, spellings
from newshead.database.connection import Database
from newshead.database.queries import PRICE_POINTS

MAX_SESSIONS: Final = 400
# How far back a ticker's windows are looked for.
MAX_HISTORY: Final = timedelta(days=400)
# How far back from its first price an article is a window's.
MAX_NEWS_AGE: Final = timedelta(hours=1)
# How long after its detection it may have been stored.
MAX_LATE: Final = timedelta(hours=1)

# Texts below that are put together from parts hold constants and names of tables only
# (S608); values are always bound.

SESSIONS: Final = """
    SELECT id, begin, end, windows, alerts
    FROM News.sessions FINAL
    WHERE end != toDateTime64(0, 3)
    ORDER BY begin DESC
    LIMIT {limit:UInt32}"""

_OF_TICKERS: Final = "(empty({tickers:Array(String)}) OR ticker IN {tickers:Array(String)})"

# Newest first, the rows of each ticker and day.
PRICES: Final = f"""
    SELECT ticker, arraySlice({PRICE_POINTS}, 1, {{points:UInt32}})
    FROM News.price_tracking_history
    WHERE timestamp >= {{since:DateTime}} AND timestamp < {{until:DateTime}} AND {_OF_TICKERS}
    GROUP BY ticker, toDate(timestamp, 'UTC')
    ORDER BY max(timestamp) DESC
    LIMIT {{limit:UInt32}}"""  # noqa: S608

# The order of the histories begins with the day: of a ticker, few are to be read. What lies there
# besides its windows' is left out afterwards; of all tickers that could be too much to read.
_ON_DAYS: Final = f"toDate(timestamp, 'UTC') IN {{days:Array(Date)}} AND {_OF_TICKERS}"
_OF_ONE: Final = "notEmpty({tickers:Array(String)})"

ALERTS: Final = f"""
    {ALERT_COLUMNS}news_alert_history
    WHERE {_ON_DAYS}
        AND ({_OF_ONE} OR (timestamp >= {{since:DateTime}} AND timestamp < {{until:DateTime}}))
    {NEWEST_ALERTS}"""

# Of each day, or a ticker's windows of long ago would have none.
NEWS: Final = news_of(
    f"""News.breaking_news_history
        WHERE {_ON_DAYS} AND ticker != ''
            AND ({_OF_ONE} OR (
                detected_at >= {{since:DateTime}} - INTERVAL 1 HOUR
                AND detected_at < {{until:DateTime}}))""",
    "ticker, toDate(detected_at, 'UTC')",
)

# While a history of an earlier version is brought into monthly parts, its rows are in
# `<table>_history_old`, and some of them in the history already.
BRINGING_OVER: Final = """
    SELECT 1 FROM system.tables
    WHERE database = 'News' AND endsWith(name, '_history_old')
    LIMIT 1"""
OLD: Final = {text: text.replace("_history", "_history_old") for text in (PRICES, ALERTS, NEWS)}

# All that is asked here, for the embedded engine.
STATEMENTS: Final = (
    SESSIONS,
    BRINGING_OVER,
    PRICES,
    ALERTS,
    NEWS,
    *OLD.values(),
)


class Session(NamedTuple):
    """An earlier session: its rows are those from its begin to the next one's.

    `key` is its name in links.
    """

    key: str
    begin: datetime
    end: datetime
    windows: int
    alerts: int


def sessions(database: Database) -> list[Session]:
    """Return the earlier sessions, newest first."""
    rows = read_if_there(database, SESSIONS, limit=MAX_SESSIONS)
    return [Session(session_key(row[0]), *row[1:]) for row in rows]


class _Window(NamedTuple):
    """A window's rows, as PRICE_POINTS gives them, and the times of its first and last one."""

    ticker: str
    opened: datetime
    last_row: datetime
    rows: Sequence[Sequence[Any]]


def windows(database: Database, *, session: str = "", ticker: str = "") -> list[Card]:
    """Return the windows of an earlier session, given by its key, or of a ticker in any spelling,
    newest first.

    Tickers that never had a price are not among them.
    """
    known = sessions(database)
    until = datetime.now(UTC)
    since = until - MAX_HISTORY
    if session:
        place = next((n for n, each in enumerate(known) if each.key == session), None)
        if place is None:
            return []
        since = known[place].begin
        until = known[place - 1].begin if place else until
    # Rows have whole seconds.
    begins = [each.begin.replace(microsecond=0) for each in reversed(known)]
    asked = {"since": since, "until": until, "tickers": spellings(ticker) if ticker else []}
    both = bool(read_if_there(database, BRINGING_OVER))
    found = _windows(database, asked, [] if session else begins, both=both)
    if not found:
        return []
    asked["days"] = _days(found)
    news_rows = _rows(database, NEWS, both=both, limit=MAX_NEWS, **asked)
    alert_rows = _rows(database, ALERTS, both=both, limit=MAX_ALERTS, **asked)
    names = {row[0] for row in (*found, *news_rows, *alert_rows)}
    named = {each: ibkr_name(each) for each in names}
    news = articles_by_ticker(news_rows, named)
    alerted = by_ticker(alert_rows, named)
    cards = []
    for window in found:
        name, opened, last_row, _ = window
        same = [
            article
            for article in news.get(named[name], ())
            if opened - MAX_NEWS_AGE <= article.detected_at <= last_row
        ]
        inside = [row for row in alerted.get(named[name], ()) if opened <= row[1] <= last_row]
        card = make_card(name, window, same, inside)
        cards.append(card._replace(session=_session_of(opened, begins, known)))
    return cards


def _windows(
    database: Database, asked: Mapping[str, Any], begins: Sequence[datetime], *, both: bool
) -> list[_Window]:
    """Return the windows of the rows that are asked for, newest first; `begins`, in time order,
    parts those of different sessions."""
    begins_s = [begin.timestamp() for begin in begins]

    def read(statement: str) -> list[_Window]:
        days = read_if_there(database, statement, points=MAX_POINTS, limit=MAX_TICKERS, **asked)
        rows: dict[str, list[Sequence[Any]]] = {}
        for ticker, of_a_day in reversed(days):
            rows.setdefault(ticker, []).extend(of_a_day)
        return [window for ticker in rows for window in _part(ticker, rows[ticker], begins_s)]

    # First the old ones, which stay until they are all in the other table.
    old = read(OLD[PRICES]) if both else []
    whole = by_ticker(old, {})
    fresh = [
        window
        for window in read(PRICES)
        if not any(
            opened <= window.last_row and window.opened <= last_row
            for _, opened, last_row, _ in whole.get(window.ticker, ())
        )
    ]
    return sorted([*old, *fresh], key=attrgetter("opened"), reverse=True)[:MAX_TICKERS]


def _part(
    ticker: str, rows: Sequence[Sequence[Any]], begins_s: Sequence[float]
) -> Iterator[_Window]:
    """Yield the windows that a ticker's rows, in time order, are of, without what is past their
    end."""
    times = [row[0] for row in rows]
    edges = sorted({0, *(bisect_left(times, begin_s) for begin_s in begins_s), len(times)})
    for since, until in pairwise(edges):
        for begin, _ in rule.windows(times[since:until]):
            first = since + begin
            end = bisect_right(times, times[first] + WINDOW_S, first, until)
            opened, last_row = (
                datetime.fromtimestamp(at, UTC) for at in (times[first], times[end - 1])
            )
            yield _Window(ticker, opened, last_row, rows[first:end])


def _days(found: Iterable[_Window]) -> list[date]:
    """Return the days that news and alerts of windows may be stored on: news may be late."""
    days = set()
    for window in found:
        days |= {
            (window.opened + apart).date() for apart in (-MAX_NEWS_AGE, timedelta(0), MAX_LATE)
        }
    return sorted(days)


def _rows(
    database: Database, statement: str, *, both: bool, **asked: Any
) -> Collection[Sequence[Any]]:
    old = read_if_there(database, OLD[statement], **asked) if both else ()
    # A row that is in both tables is one.
    return dict.fromkeys([*old, *read_if_there(database, statement, **asked)])


def _session_of(at: datetime, begins: Sequence[datetime], known: Sequence[Session]) -> str:
    """Return the key of the session that rows of a time belong to; empty where none is listed.

    Parameters
    ----------
    begins
        When those that are known, newest first, began, oldest first.
    """
    later = len(begins) - bisect_right(begins, at)
    return known[later].key if later < len(known) else ""
