"""Earlier sessions, asked of ClickHouse: their list, and the windows of one or of a ticker.

Everything here blocks, as in `queries`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, Final, NamedTuple

from dashboard import queries
from dashboard.cards import Card, make_card
from dashboard.queries import (
    ALERT_COLUMNS,
    MAX_ALERTS,
    MAX_NEWS,
    MAX_TICKERS,
    NEWEST_ALERTS,
    articles_by_ticker,
    by_ticker,
    news_of,
    read_if_there,
    session_key,
    windows_of,
)
from newshead.core import rule
from newshead.core.rule import WINDOW_S
from newshead.core.tickers import ibkr_name, spellings
from newshead.database.connection import Database

MAX_SESSIONS: Final = 400
# How far back a ticker's windows are looked for.
MAX_HISTORY: Final = timedelta(days=400)
# How far back from its first price an article is a window's.
MAX_NEWS_AGE: Final = timedelta(hours=1)

# Texts below that are put together from parts hold constants and names of tables only
# (S608); values are always bound.

SESSIONS: Final = """
    SELECT id, begin, end, windows, alerts
    FROM News.sessions FINAL
    WHERE end != toDateTime64(0, 3)
    ORDER BY begin DESC
    LIMIT {limit:UInt32}"""

# The histories' rows of some days, of one ticker or of all.
_EARLIER: Final = """
    WHERE timestamp >= {since:DateTime} AND timestamp < {until:DateTime}
        AND toDate(timestamp, 'UTC') >= toDate({since:DateTime}, 'UTC')
        AND toDate(timestamp, 'UTC') <= toDate({until:DateTime}, 'UTC')
        AND (empty({tickers:Array(String)}) OR ticker IN {tickers:Array(String)})"""

# A ticker has a window in each of several sessions. A day of before sessions were listed is one
# session, of several windows: there a pause longer than a window parts two. The rule is then
# applied to each by itself, under the name (ticker, first row).
WINDOWS: Final = windows_of(f"""(
        SELECT (name, max(begins) OVER in_time) AS ticker, timestamp, price, volume,
            recommendation, _block_number, _part_offset
        FROM (
            SELECT ticker AS name, timestamp, price, volume, recommendation,
                _block_number, _part_offset,
                arrayCount(begin -> begin <= toUnixTimestamp(timestamp),
                    {{begins:Array(UInt32)}}) AS session,
                if(dateDiff('second', lagInFrame(timestamp) OVER (
                        PARTITION BY ticker, session ORDER BY timestamp
                        ROWS BETWEEN 1 PRECEDING AND CURRENT ROW), timestamp)
                    > {{window_s:UInt32}}, timestamp, toDateTime(0)) AS begins
            FROM News.price_tracking_history
            {_EARLIER}
        )
        WINDOW in_time AS (PARTITION BY name, session ORDER BY timestamp)
    )""")  # noqa: S608

ALERTS: Final = f"{ALERT_COLUMNS}news_alert_history {_EARLIER} {NEWEST_ALERTS}"

# The history's parts and their order are by `timestamp`, which is about when news was detected.
NEWS: Final = news_of("""News.breaking_news_history
        WHERE detected_at >= {since:DateTime} - INTERVAL 1 HOUR AND detected_at < {until:DateTime}
            AND timestamp >= {since:DateTime} - INTERVAL 1 DAY
            AND timestamp < {until:DateTime} + INTERVAL 1 DAY
            AND toDate(timestamp, 'UTC') >= toDate({since:DateTime} - INTERVAL 1 DAY, 'UTC')
            AND toDate(timestamp, 'UTC') <= toDate({until:DateTime} + INTERVAL 1 DAY, 'UTC')
            AND ticker != ''
            AND (empty({tickers:Array(String)}) OR ticker IN {tickers:Array(String)})""")

# While a history of an earlier version is brought into monthly parts, its rows are in
# `<table>_history_old`, and some of them in the history already.
BRINGING_OVER: Final = """
    SELECT 1 FROM system.tables
    WHERE database = 'News' AND endsWith(name, '_history_old')
    LIMIT 1"""
OLD: Final = {text: text.replace("_history", "_history_old") for text in (WINDOWS, ALERTS, NEWS)}

# All that is asked here, for the embedded engine.
STATEMENTS: Final = (
    SESSIONS,
    BRINGING_OVER,
    WINDOWS,
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
    asked = {
        "since": since,
        "until": until,
        "tickers": spellings(ticker) if ticker else [],
        "begins": [int(each.begin.timestamp()) for each in known],
        "window_s": WINDOW_S,
    }
    both = bool(read_if_there(database, BRINGING_OVER))
    found = _windows(database, asked, both=both)
    named = {each: ibkr_name(each) for each in {name for (name, _), *_ in found}}
    bound = {name: asked[name] for name in ("since", "until", "tickers")}
    news_rows = _rows(database, NEWS, both=both, limit=MAX_NEWS, **bound)
    alert_rows = _rows(database, ALERTS, both=both, limit=MAX_ALERTS, **bound)
    named |= {row[0]: ibkr_name(row[0]) for row in (*news_rows, *alert_rows)}
    news = articles_by_ticker(news_rows, named)
    alerted = by_ticker(alert_rows, named)
    cards = []
    for (name, _), opened, _, rows in found:
        last_row, prices = _within(opened, rows)
        same = [
            article
            for article in news.get(named[name], ())
            if opened - MAX_NEWS_AGE <= article.detected_at <= last_row
        ]
        inside = [row for row in alerted.get(named[name], ()) if opened <= row[1] <= last_row]
        card = make_card(name, (name, opened, last_row, prices), same, inside)
        cards.append(card._replace(session=_session_of(opened, known)))
    return cards


def _windows(
    database: Database, asked: Mapping[str, Any], *, both: bool
) -> Sequence[Sequence[Any]]:
    # First the old ones, which stay until they are all in the other table.
    old = queries.read_windows(database, OLD[WINDOWS], **asked) if both else ()
    found = queries.read_windows(database, WINDOWS, **asked)
    if not old:
        return found
    whole = by_ticker([(name, opened, last) for (name, _), opened, last, _ in old], {})
    fresh = [
        row
        for row in found
        if not any(
            opened <= row[2] and row[1] <= last for _, opened, last in whole.get(row[0][0], ())
        )
    ]
    return sorted([*old, *fresh], key=itemgetter(1), reverse=True)[:MAX_TICKERS]


def _rows(
    database: Database, statement: str, *, both: bool, **asked: Any
) -> Collection[Sequence[Any]]:
    old = read_if_there(database, OLD[statement], **asked) if both else ()
    # A row that is in both tables is one.
    return dict.fromkeys([*old, *read_if_there(database, statement, **asked)])


def _within(opened: datetime, rows: Iterable[Sequence[Any]]) -> tuple[datetime, list[Any]]:
    """Return the rows of a window until it ends, and the last one's time."""
    first_s = opened.timestamp()
    prices = [row for row in rows if rule.inside(first_s, row[0])]
    return datetime.fromtimestamp(prices[-1][0], UTC), prices


def _session_of(at: datetime, known: Sequence[Session]) -> str:
    """Return the key of the session that rows of a time belong to; empty where none is listed."""
    return next((each.key for each in known if each.begin.replace(microsecond=0) <= at), "")
