"""What a person wants to see, asked of ClickHouse: the monitor's state, and a card per ticker.

Everything here blocks and belongs off the event loop. Every query is bounded in
rows and time, runs on one thread of the database, and writes nothing. Times are
aware UTC.
"""

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from dashboard.cards import Article, Card, Company, Told, article_of, make_card
from newshead.core.parts import Told as Part
from newshead.core.tickers import ibkr_name, spellings
from newshead.database.connection import Database
from newshead.database.queries import PARTS, PRICE_POINTS, RATED, told_part
from newshead.database.tables import StatusRow

# No more than so many are read: the newest.
MAX_TICKERS: Final = 1000
MAX_ALERTS: Final = 5000
MAX_NEWS: Final = 5000
MAX_NEWS_OF_TICKER: Final = 50
MAX_POINTS: Final = 600
MAX_HEADLINE: Final = 500
MAX_EXPLANATION: Final = 1000
# Whoever shows the session reads it once a cycle. Cycles begin at even seconds of the clock:
# readings stay out of their way, and find their rows soon.
READ_EVERY_S: Final = 2.0
READ_AT_S: Final = 0.5
# What TWS says of a ticker is of the session, and no older than this.
MAX_TOLD_AGE: Final = timedelta(days=1)

# The page never takes the database from the monitor.
READ_SETTINGS: Final = {"max_threads": 1, "max_execution_time": 10}

# Texts below that are put together from parts hold constants and names of tables only
# (S608); values are always bound.

CLOCK: Final = "SELECT now64(3)"

STATUS: Final = f"""
    SELECT {", ".join(StatusRow._fields)}
    FROM News.monitor_status
    WHERE timestamp > now() - INTERVAL 7 DAY
    ORDER BY timestamp DESC
    LIMIT 1"""  # noqa: S608

# Per ticker of the session, newest first, figures that change when its card does.
MARKS: Final = """
    SELECT ticker, sum(rows), sum(alerts), sum(news), max(rated), max(at) FROM (
        SELECT ticker, count() AS rows, 0 AS alerts, 0 AS news,
            toDateTime64(0, 3) AS rated, toDateTime64(max(timestamp), 3) AS at
        FROM News.price_tracking GROUP BY ticker
        UNION ALL
        SELECT ticker, 0, count(), 0, toDateTime64(0, 3), toDateTime64(max(timestamp), 3)
        FROM News.news_alert GROUP BY ticker
        UNION ALL
        SELECT ticker, 0, 0, uniqExact(content_hash), max(analyzed_at), max(detected_at)
        FROM News.breaking_news WHERE ticker != '' GROUP BY ticker
    )
    GROUP BY ticker
    HAVING sum(rows) + sum(news) > 0
    ORDER BY max(at) DESC
    LIMIT {limit:UInt32}"""

# The session that goes on.
SESSION: Final = """
    SELECT id, begin
    FROM News.sessions FINAL
    WHERE end = toDateTime64(0, 3)
    ORDER BY begin DESC
    LIMIT 1"""

# What TWS said last of a ticker besides its trades.
CONDITIONS: Final = """
    SELECT ticker, max(timestamp),
        argMax((halted, data_type, refused, previous_close, day_volume), timestamp)
    FROM News.ticker_status
    WHERE timestamp >= {since:DateTime}
    GROUP BY ticker
    ORDER BY max(timestamp) DESC
    LIMIT {limit:UInt32}"""

COMPANIES: Final = """
    SELECT ticker, argMax((country, float_shares), last_updated)
    FROM News.float_list
    WHERE ticker IN {tickers:Array(String)}
    GROUP BY ticker"""


WINDOWS: Final = f"""
    SELECT ticker, min(timestamp) AS opened, max(timestamp),
        arraySlice({PRICE_POINTS}, 1, {{points:UInt32}})
    FROM News.price_tracking
    WHERE ticker IN {{tickers:Array(String)}}
    GROUP BY ticker
    ORDER BY opened DESC
    LIMIT {{limit:UInt32}}"""  # noqa: S608

ALERT_COLUMNS: Final = "SELECT ticker, timestamp, alert, price FROM News."
NEWEST_ALERTS: Final = "ORDER BY timestamp DESC LIMIT {limit:UInt32}"
ALERTS: Final = (
    f"{ALERT_COLUMNS}news_alert WHERE ticker IN {{tickers:Array(String)}} {NEWEST_ALERTS}"
)


def news_of(rows: str, each: str = "ticker") -> str:
    """Return the statement that reads the articles that `rows` hold, newest first; of `each`, no
    more than MAX_NEWS_OF_TICKER."""
    # A row that is stored again with its rating stands for the one without.
    return f"""
    SELECT * FROM (
        SELECT ticker, detected_at, published_utc, source,
            substringUTF8(headline, 1, {MAX_HEADLINE}) AS title, article_url,
            sentiment, recommendation, confidence,
            substringUTF8(explanation, 1, {MAX_EXPLANATION}) AS why, analyzed_at, {RATED} AS rated
        FROM {rows}
        ORDER BY rated DESC, analyzed_at DESC
        LIMIT 1 BY ticker, content_hash, title, article_url
    )
    ORDER BY detected_at DESC
    LIMIT {MAX_NEWS_OF_TICKER} BY {each}
    LIMIT {{limit:UInt32}}"""  # noqa: S608


NEWS: Final = news_of("News.breaking_news WHERE ticker IN {tickers:Array(String)}")

FIRST_ALERTS: Final = """
    SELECT ticker, min(timestamp), argMin(alert, timestamp), argMin(price, timestamp),
        dateDiff('second', min(timestamp), now())
    FROM News.news_alert
    WHERE timestamp >= now() - INTERVAL 1 DAY
    GROUP BY ticker
    ORDER BY min(timestamp) DESC
    LIMIT {limit:UInt32}"""

# All that is asked of the session: the embedded engine answers its readers nothing else.
STATEMENTS: Final = (
    CLOCK,
    STATUS,
    PARTS,
    MARKS,
    SESSION,
    CONDITIONS,
    COMPANIES,
    WINDOWS,
    ALERTS,
    NEWS,
    FIRST_ALERTS,
)


class FirstAlert(NamedTuple):
    """A ticker's first alert of the session, and how many seconds ago by the database's clock."""

    ticker: str
    timestamp: datetime
    priority: int
    price: float
    age_s: int


class Mark(NamedTuple):
    """What changes when a ticker's card does, and what TWS said of the ticker; `news` counts its
    articles."""

    rows: int
    alerts: int
    news: int
    rated: datetime
    told: Told | None


class Marks(NamedTuple):
    """The marks of the session's tickers, newest first; `session` names it, as `session_key`."""

    session: str
    tickers: dict[str, Mark]


def session_key(session_id: str) -> str:
    """Return the name by which links know a session: its begin in UTC."""
    return f"{datetime.fromisoformat(session_id).astimezone(UTC):%Y%m%dT%H%M%SZ}"


def until_next_reading_s() -> float:
    """Return the seconds until the session is to be read again."""
    return READ_EVERY_S - (time.time() - READ_AT_S) % READ_EVERY_S


def clock(manager: Database) -> datetime:
    """Return the database's clock, by which windows are judged.

    Raises
    ------
    ClickHouseError, DatabaseError
        The database cannot be read; so do all functions here.
    """
    [(now,)] = read_if_there(manager, CLOCK)
    found: datetime = now
    return found


def clock_since(now: datetime, read_at: float) -> datetime:
    """Return the database's clock of this moment; it was `now` at `read_at` by time.monotonic()."""
    return now + timedelta(seconds=time.monotonic() - read_at)


def status(manager: Database) -> StatusRow | None:
    """Return the monitor's newest status, its times by the database's clock.

    None where none wrote one in the last 7 days.
    """
    rows = read_if_there(manager, STATUS)
    if not rows:
        return None
    found = StatusRow(*rows[0])
    ahead = timedelta(seconds=found.clock_difference_s)
    return found._replace(
        timestamp=found.timestamp + ahead,
        state_since=found.state_since + ahead,
        delayed=bool(found.delayed),
    )


def parts(manager: Database) -> tuple[datetime, list[Part]]:
    """Return the database's clock, and what newshead's parts told in the last hour, a row per state
    that one had."""
    rows = read_if_there(manager, PARTS, host="", folder="")
    return rows[0][-1] if rows else clock(manager), [told_part(row) for row in rows]


def marks(manager: Database) -> Marks:
    """Return a mark per ticker of the session: its card is as before while it stays.

    Spellings of one ticker are one, under the name that its prices have.
    """
    found = read_if_there(manager, SESSION)
    session_id, begin = found[0] if found else ("", datetime.min.replace(tzinfo=UTC))
    since = max(begin, datetime.now(UTC) - MAX_TOLD_AGE)
    told = {row[0]: Told(row[1], *row[2]) for row in _read_told(manager, since)}
    unknown = datetime.fromtimestamp(0, UTC)
    rows = [
        (ticker, *mark, told.pop(ticker, None))
        for ticker, *mark in read_if_there(manager, MARKS, limit=MAX_TICKERS)
    ]
    rows += [(ticker, 0, 0, 0, unknown, each.at, each) for ticker, each in told.items()]
    by_name: dict[str, list[Any]] = {}
    for row in rows:
        by_name.setdefault(ibkr_name(row[0]), []).append(row)
    merged = sorted(map(_merged, by_name.values()), key=lambda each: each[2], reverse=True)
    key = session_key(session_id) if session_id else ""
    return Marks(key, {ticker: mark for ticker, mark, _ in merged[:MAX_TICKERS]})


def _read_told(manager: Database, since: datetime) -> Sequence[Sequence[Any]]:
    return read_if_there(manager, CONDITIONS, since=since, limit=MAX_TICKERS)


def _merged(rows: Sequence[Any]) -> tuple[str, Mark, datetime]:
    """Return the mark of a ticker's rows, one a spelling, and the time of its newest."""
    # Prices and what TWS says have the spelling that is tracked.
    ticker = max(rows, key=lambda row: (row[1], row[6] is not None))[0]
    told = max((row[6] for row in rows if row[6]), default=None)
    counts = [sum(row[column] for row in rows) for column in (1, 2, 3)]
    mark = Mark(counts[0], counts[1], counts[2], max(row[4] for row in rows), told)
    return ticker, mark, max(row[5] for row in rows)


def cards(manager: Database, tickers: Collection[str] | None = None) -> list[Card]:
    """Return the cards of those of `tickers`, however spelled (by default of all), in the session,
    newest first."""
    if tickers is not None and not tickers:
        return []
    found = marks(manager).tickers
    if tickers is not None:
        names = {ibkr_name(ticker) for ticker in tickers}
        found = {ticker: mark for ticker, mark in found.items() if ibkr_name(ticker) in names}
    return cards_of(manager, found)


def cards_of(manager: Database, asked: Mapping[str, Mark]) -> list[Card]:
    """Return the cards of the tickers that these marks are of, newest first."""
    if not asked:
        return []
    named = {each: ticker for ticker in asked for each in spellings(ticker)}
    of_any_spelling = {"tickers": list(named)}
    # In this order no alert is found without the row that it stands for.
    alerted = by_ticker(
        read_if_there(manager, ALERTS, tickers=list(asked), limit=MAX_ALERTS), named
    )
    rows = read_if_there(
        manager, WINDOWS, points=MAX_POINTS, limit=MAX_TICKERS, tickers=list(asked)
    )
    windows = {row[0]: row for row in rows}
    news = articles_by_ticker(
        read_if_there(manager, NEWS, limit=MAX_NEWS, **of_any_spelling), named
    )
    listed = by_ticker(read_if_there(manager, COMPANIES, **of_any_spelling), named)
    found = [
        make_card(
            ticker, windows.get(ticker), news.get(ticker, ()), alerted.get(ticker, ())
        )._replace(
            told=mark.told,
            company=Company(*listed[ticker][0][1]) if ticker in listed else Company(),
        )
        for ticker, mark in asked.items()
        if ticker in windows or ticker in news or mark.told is not None
    ]
    return sorted(found, key=lambda card: card.began, reverse=True)


def first_alerts(manager: Database) -> list[FirstAlert]:
    """Return the first alerts, newest first, of the tickers that alerted in the last day."""
    rows = read_if_there(manager, FIRST_ALERTS, limit=MAX_TICKERS)
    return [FirstAlert(*row) for row in rows]


def read_if_there(manager: Database, statement: str, **parameters: Any) -> Sequence[Sequence[Any]]:
    """Return a query's rows, times in UTC; none where newshead has not made the table yet."""
    bound = {
        # Seconds since 1970, which no time zone can shift.
        name: int(value.timestamp()) if isinstance(value, datetime) else value
        for name, value in parameters.items()
    }
    return manager.rows_if_there(statement, settings=READ_SETTINGS, **bound)


def by_ticker(
    rows: Iterable[Sequence[Any]], named: Mapping[str, str]
) -> Mapping[str, list[Sequence[Any]]]:
    """Return rows by the ticker that is asked for, `named` by its spellings."""
    found = defaultdict(list)
    for row in rows:
        found[named.get(row[0], row[0])].append(row)
    return found


def articles_by_ticker(
    rows: Iterable[Sequence[Any]], named: Mapping[str, str]
) -> dict[str, list[Article]]:
    """Return the articles of the rows of a statement of `news_of`, newest first, likewise."""
    return {
        ticker: [article_of(row) for row in found]
        for ticker, found in by_ticker(rows, named).items()
    }
