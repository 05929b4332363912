"""What a person wants to see, asked of ClickHouse: the monitor's state, and a card per ticker.

Everything here blocks and belongs off the event loop. Every query is bounded in
rows and time, runs on one thread of the database, and writes nothing. Times are
aware UTC.
"""

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from clickhouse_connect.driver.exceptions import ClickHouseError

from newshead.core import market, rule
from newshead.core.rule import WINDOW_S, Outcome, PricePoint
from newshead.database.connection import MISSING_TABLE_CODES, Database
from newshead.database.queries import PRICE_POINTS, RATED, UNRATED, Rating
from newshead.database.tables import StatusRow

# No more than so many are read: the newest.
MAX_TICKERS: Final = 1000
MAX_ALERTS: Final = 5000
MAX_NEWS: Final = 5000
MAX_POINTS: Final = 600
MAX_DAYS: Final = 400
MAX_HEADLINE: Final = 500
# A monitor that has not written for so long is taken for dead; it writes every 10 s.
STALE_S: Final = 15.0
# Whoever shows the session reads it once a cycle. Cycles begin at even seconds of the clock:
# readings stay out of their way, and find their rows soon.
READ_EVERY_S: Final = 2.0
READ_AT_S: Final = 0.5
# How far back a ticker's earlier windows are looked for.
MAX_HISTORY: Final = timedelta(days=400)
# How far back from its first price a rating counts.
MAX_RATING_AGE: Final = timedelta(hours=1)

# The page never takes the database from the monitor.
READ_SETTINGS: Final = {"max_threads": 1, "max_execution_time": 10}
NEW_YORK: Final = ZoneInfo("America/New_York")

# Texts below that are put together from parts hold constants and names of tables only
# (S608); values are always bound.

CLOCK: Final = "SELECT now64(3)"

STATUS: Final = f"""
    SELECT {", ".join(StatusRow._fields)}
    FROM News.monitor_status
    WHERE timestamp > now() - INTERVAL 7 DAY
    ORDER BY timestamp DESC
    LIMIT 1"""  # noqa: S608

# How newshead's parts fare, as long as somebody writes it.
PARTS: Final = """
    SELECT part, argMax((state, reason), timestamp)
    FROM News.part_status
    WHERE timestamp > now() - INTERVAL 1 HOUR
    GROUP BY part
    LIMIT 100"""

# Per ticker of the session, newest first, figures that change when its card does.
MARKS: Final = """
    SELECT ticker, sum(rows), sum(alerts), sum(news), max(rated) FROM (
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


# What TWS said last of a ticker besides its trades, as long as it can be of this session.
CONDITIONS: Final = """
    SELECT ticker, argMax((timestamp, halted, data_type, refused), timestamp)
    FROM News.ticker_status
    WHERE timestamp > now() - INTERVAL 1 HOUR
    GROUP BY ticker
    LIMIT {limit:UInt32}"""


def _windows(rows: str) -> str:
    return f"""
    SELECT ticker, min(timestamp) AS opened, max(timestamp),
        arraySlice({PRICE_POINTS}, 1, {{points:UInt32}})
    FROM {rows}
    GROUP BY ticker
    ORDER BY opened DESC
    LIMIT {{limit:UInt32}}"""  # noqa: S608


WINDOWS: Final = _windows("News.price_tracking WHERE ticker IN {tickers:Array(String)}")

# A ticker may have had a window in each of several sessions, even of one day. Rows of one
# session lie within a window's length; a longer pause parts two. The rule is then applied
# to each by itself, under the name (ticker, first row).
EARLIER_WINDOWS: Final = _windows("""(
        SELECT (name, max(begins) OVER in_time) AS ticker, timestamp, price, volume,
            recommendation, _block_number, _part_offset
        FROM (
            SELECT ticker AS name, timestamp, price, volume, recommendation,
                _block_number, _part_offset,
                if(dateDiff('second', lagInFrame(timestamp) OVER (
                        PARTITION BY ticker ORDER BY timestamp
                        ROWS BETWEEN 1 PRECEDING AND CURRENT ROW), timestamp)
                    > {window_s:UInt32}, timestamp, toDateTime(0)) AS begins
            FROM News.price_tracking_history
            WHERE timestamp >= {since:DateTime} AND timestamp < {until:DateTime}
                AND toDate(timestamp, 'UTC') >= toDate({since:DateTime}, 'UTC')
                AND toDate(timestamp, 'UTC') <= toDate({until:DateTime}, 'UTC')
                AND ({ticker:String} = '' OR ticker = {ticker:String})
        )
        WINDOW in_time AS (PARTITION BY name ORDER BY timestamp)
    )""")

_ALERT_COLUMNS: Final = "SELECT ticker, timestamp, alert, price FROM News."
_SESSION: Final = "WHERE ticker IN {tickers:Array(String)}"
_EARLIER: Final = """
    WHERE timestamp >= {since:DateTime} AND timestamp < {until:DateTime}
        AND toDate(timestamp, 'UTC') >= toDate({since:DateTime}, 'UTC')
        AND toDate(timestamp, 'UTC') <= toDate({until:DateTime}, 'UTC')
        AND ({ticker:String} = '' OR ticker = {ticker:String})"""
_NEWEST_ALERTS: Final = "ORDER BY timestamp DESC LIMIT {limit:UInt32}"
ALERTS: Final = f"{_ALERT_COLUMNS}news_alert {_SESSION} {_NEWEST_ALERTS}"
EARLIER_ALERTS: Final = f"{_ALERT_COLUMNS}news_alert_history {_EARLIER} {_NEWEST_ALERTS}"

NEWS: Final = f"""
    SELECT ticker,
        argMax((detected_at, substringUTF8(headline, 1, {MAX_HEADLINE}), article_url), detected_at),
        argMaxIf((sentiment, recommendation, confidence), analyzed_at, {RATED})
    FROM News.breaking_news
    WHERE ticker IN {{tickers:Array(String)}}
    GROUP BY ticker"""  # noqa: S608

# Parts and order of the history are by `timestamp`, which is about when news was detected.
EARLIER_NEWS: Final = f"""
    SELECT ticker, (detected_at, substringUTF8(headline, 1, {MAX_HEADLINE}), article_url),
        if({RATED}, (sentiment, recommendation, confidence), ('', '', ''))
    FROM News.breaking_news_history
    WHERE detected_at >= {{since:DateTime}} - INTERVAL 1 HOUR AND detected_at < {{until:DateTime}}
        AND timestamp >= {{since:DateTime}} - INTERVAL 1 DAY
        AND timestamp < {{until:DateTime}} + INTERVAL 1 DAY
        AND toDate(timestamp, 'UTC') >= toDate({{since:DateTime}} - INTERVAL 1 DAY, 'UTC')
        AND toDate(timestamp, 'UTC') <= toDate({{until:DateTime}} + INTERVAL 1 DAY, 'UTC')
        AND ticker != '' AND ({{ticker:String}} = '' OR ticker = {{ticker:String}})
    ORDER BY detected_at DESC, analyzed_at DESC
    LIMIT {{limit:UInt32}}"""  # noqa: S608

FIRST_ALERTS: Final = """
    SELECT ticker, min(timestamp), argMin(alert, timestamp), argMin(price, timestamp),
        dateDiff('second', min(timestamp), now())
    FROM News.news_alert
    WHERE timestamp >= now() - INTERVAL 1 DAY
    GROUP BY ticker
    ORDER BY min(timestamp) DESC
    LIMIT {limit:UInt32}"""

DAYS: Final = """
    SELECT (arrayJoin(days) AS day).1, sum(day.2), sum(day.3)
    FROM News.sessions FINAL
    WHERE end != toDateTime64(0, 3)
    GROUP BY 1
    ORDER BY 1 DESC
    LIMIT {limit:UInt32}"""


# All that is asked here: the embedded engine answers its readers nothing else.
STATEMENTS: Final = (
    CLOCK,
    STATUS,
    PARTS,
    MARKS,
    CONDITIONS,
    WINDOWS,
    EARLIER_WINDOWS,
    ALERTS,
    EARLIER_ALERTS,
    NEWS,
    EARLIER_NEWS,
    FIRST_ALERTS,
    DAYS,
)


class Point(NamedTuple):
    """A stored price: Unix time, USD, shares, change from the baseline in percent, and seconds
    since the ticker's first row. The first two have no change: 0."""

    time: int
    price: float
    volume: int
    change_pct: float
    seconds: int


class Alert(NamedTuple):
    """A row of `news_alert`, with its row's change and seconds: None where that row is gone."""

    ticker: str
    timestamp: datetime
    priority: int
    price: float
    change_pct: float | None
    seconds: int | None


class FirstAlert(NamedTuple):
    """A ticker's first alert of the session, and how many seconds ago by the database's clock."""

    ticker: str
    timestamp: datetime
    priority: int
    price: float
    age_s: int


class Card(NamedTuple):
    """All that is known of a ticker in one session.

    `news_at` is when its newest news was detected, `opened` and `last_row` are the times of its
    first and newest row; each is None where there is none. `baseline` in USD is 0 before the
    third price. `due` counts the rows that meet the whole alert rule. `halted` and `data_type`
    are what TWS said last of its trading and data, `refused` why it gets none.
    """

    ticker: str
    news_at: datetime | None
    headline: str
    article_url: str
    rating: Rating
    outcome: Outcome
    opened: datetime | None = None
    last_row: datetime | None = None
    baseline: float = 0.0
    due: int = 0
    points: tuple[Point, ...] = ()
    alerts: tuple[Alert, ...] = ()
    halted: int = market.NOT_HALTED
    data_type: int = market.LIVE
    refused: str = ""

    @property
    def price(self) -> float | None:
        """The newest price in USD."""
        return self.points[-1].price if self.points else None

    @property
    def change_pct(self) -> float | None:
        """The newest price's change from the baseline."""
        return self.points[-1].change_pct if self.baseline else None

    @property
    def began(self) -> datetime:
        """When the ticker came up: its newest news, or its first row where there is no news."""
        return self.news_at or self.opened or datetime.min.replace(tzinfo=UTC)

    @property
    def closes(self) -> datetime | None:
        """When the 60-second window ends, which counts whole seconds."""
        return self.opened + timedelta(seconds=WINDOW_S + 1) if self.opened else None

    def reason(self, now: datetime) -> str:
        """Return why it has or has not alerted, in a trader's words."""
        if self.closes is not None and now >= self.closes:
            return f"window over: {rule.describe(self.outcome)}"
        condition = market.describe(self.halted, self.data_type)
        reason = self._reason_while_open(now)
        return f"{condition}: {reason}" if condition else reason

    def _reason_while_open(self, now: datetime) -> str:
        if self.closes is not None:
            return rule.describe_open(self.outcome, self.due, self.rating.recommendation)
        if self.refused:
            return self.refused
        waits = self.news_at is not None and (now - self.news_at).total_seconds() <= WINDOW_S
        return "waiting for the first price" if waits else "no price since the news"


class Day(NamedTuple):
    """A New York day of earlier sessions."""

    day: date
    windows: int
    alerts: int


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
    [(now,)] = _read_if_there(manager, CLOCK)
    found: datetime = now
    return found


def status(manager: Database) -> StatusRow | None:
    """Return the monitor's newest status, its times by the database's clock.

    None where none wrote one in the last 7 days.
    """
    rows = _read_if_there(manager, STATUS)
    if not rows:
        return None
    found = StatusRow(*rows[0])
    ahead = timedelta(seconds=found.clock_difference_s)
    return found._replace(
        timestamp=found.timestamp + ahead,
        state_since=found.state_since + ahead,
        delayed=bool(found.delayed),
    )


def blind(manager: Database) -> str | None:
    """Return why no data of any ticker comes although the connection to IBKR stands; an empty text
    while data comes, None where the connection is lost or nobody says."""
    told: dict[str, tuple[str, str]] = {row[0]: row[1] for row in _read_if_there(manager, PARTS)}
    ibkr, market_data = told.get("ibkr"), told.get("market data")
    if ibkr is None or market_data is None:
        return None
    if market_data[0] != "lost":
        return ""
    return str(market_data[1]) if ibkr[0] == "ok" else None


def marks(manager: Database) -> dict[str, tuple[Any, ...]]:
    """Return a mark per ticker of the session, newest first: a card is as before while it stays."""
    rows = _read_if_there(manager, MARKS, limit=MAX_TICKERS)
    told = _conditions(manager)
    return {ticker: (*mark, *told.get(ticker, ())) for ticker, *mark in rows}


def cards(manager: Database, tickers: Collection[str] | None = None) -> list[Card]:
    """Return the cards of those of `tickers` (by default all) in the session, newest first."""
    asked = list(marks(manager)) if tickers is None else list(tickers)
    if not asked:
        return []
    # In this order no alert is found without the row that it stands for.
    alerted = _by_ticker(_read_if_there(manager, ALERTS, tickers=asked, limit=MAX_ALERTS))
    windows = {row[0]: row for row in _read_windows(manager, WINDOWS, tickers=asked)}
    news = {row[0]: row for row in _read_if_there(manager, NEWS, tickers=asked)}
    told = _conditions(manager)
    found = [
        _with_condition(
            _card(ticker, windows.get(ticker), news.get(ticker), alerted.get(ticker, ())),
            told.get(ticker),
        )
        for ticker in asked
        if ticker in windows or ticker in news
    ]
    return sorted(found, key=lambda card: card.began, reverse=True)


def first_alerts(manager: Database) -> list[FirstAlert]:
    """Return the first alerts, newest first, of the tickers that alerted in the last day."""
    rows = _read_if_there(manager, FIRST_ALERTS, limit=MAX_TICKERS)
    return [FirstAlert(*row) for row in rows]


def days(manager: Database) -> list[Day]:
    """Return the days of earlier sessions, newest first."""
    return [Day(*row) for row in _read_if_there(manager, DAYS, limit=MAX_DAYS)]


def earlier(manager: Database, *, day: date | None = None, ticker: str = "") -> list[Card]:
    """Return the windows of earlier sessions of a New York day, or of a ticker, newest first.

    Tickers that never had a price are not among them.
    """
    now = datetime.now(NEW_YORK)
    begin = now - MAX_HISTORY if day is None else datetime.combine(day, time_of_day(), NEW_YORK)
    end = now if day is None else datetime.combine(day + timedelta(days=1), time_of_day(), NEW_YORK)
    asked = {"since": begin, "until": end, "ticker": ticker}
    windows = _read_windows(manager, EARLIER_WINDOWS, **asked)
    news = _by_ticker(_read_if_there(manager, EARLIER_NEWS, limit=MAX_NEWS, **asked))
    alerted = _by_ticker(_read_if_there(manager, EARLIER_ALERTS, limit=MAX_ALERTS, **asked))
    found = []
    for (name, _), *window in windows:
        opened, last_row = window[0], window[1]
        before = [row for row in news.get(name, ()) if row[1][0] <= last_row]
        since = opened - MAX_RATING_AGE
        ratings = [row[2] for row in before if row[2][1] and row[1][0] >= since]
        newest = (*before[0][:2], *ratings[:1], UNRATED) if before else None
        inside = [row for row in alerted.get(name, ()) if opened <= row[1] <= last_row]
        found.append(_card(name, (name, *window), newest, inside))
    return found


def _read_if_there(manager: Database, statement: str, **parameters: Any) -> Sequence[Sequence[Any]]:
    """Return a query's rows, times in UTC; none where newshead has not made the table yet."""
    bound = {
        # Seconds since 1970, which no time zone can shift.
        name: int(value.timestamp()) if isinstance(value, datetime) else value
        for name, value in parameters.items()
    }
    try:
        return manager.client.query(
            statement,
            parameters=bound,
            settings=READ_SETTINGS,
            query_tz="UTC",
        ).result_rows
    except ClickHouseError as problem:
        if getattr(problem, "code", None) in MISSING_TABLE_CODES:
            return []
        raise


def _read_windows(manager: Database, statement: str, **asked: Any) -> Sequence[Sequence[Any]]:
    return _read_if_there(
        manager, statement, points=MAX_POINTS, limit=MAX_TICKERS, window_s=WINDOW_S, **asked
    )


def _by_ticker(rows: Iterable[Sequence[Any]]) -> Mapping[str, list[Sequence[Any]]]:
    found = defaultdict(list)
    for row in rows:
        found[row[0]].append(row)
    return found


def _card(
    ticker: str,
    window: Sequence[Any] | None,
    news: Sequence[Any] | None,
    alerted: Sequence[Sequence[Any]],
) -> Card:
    """Return a card of the rows that the queries of windows, news and alerts give of a ticker."""
    news_at, headline, url = news[1] if news else (None, "", "")
    rating = Rating(*news[2]) if news and news[2][1] else UNRATED
    card = Card(ticker, news_at, headline, url, rating, Outcome(len(alerted), 0, 0, 0.0, 0, 0))
    if window is None:
        return card
    _, opened, last_row, rows = window
    prices = list(map(PricePoint._make, rows))
    result = rule.outcome(rule.changes(prices), len(alerted))
    begun_s = prices[0].time
    # A day has tens of thousands: made in C, and judged only where a row may qualify.
    points = tuple(
        map(
            Point._make,
            zip(
                (price.time for price in prices),
                (price.price for price in prices),
                (price.volume for price in prices),
                rule.all_changes_pct(prices),
                (price.time - begun_s for price in prices),
                strict=True,
            ),
        )
    )
    by_time = {point.time: point for point in points} if alerted else {}
    return card._replace(
        outcome=result,
        opened=opened,
        last_row=last_row,
        baseline=rule.baseline(prices),
        due=sum(row.qualifies for row in rule.judge(prices)) if result.rises_in_range else 0,
        points=points,
        # They come newest first.
        alerts=tuple(_alert(row, by_time) for row in reversed(alerted)),
    )


def _conditions(manager: Database) -> dict[str, Sequence[Any]]:
    return {row[0]: row[1] for row in _read_if_there(manager, CONDITIONS, limit=MAX_TICKERS)}


def _with_condition(card: Card, told: Sequence[Any] | None) -> Card:
    """Return a card with what TWS said of the ticker, if anything."""
    if told is None:
        return card
    return card._replace(halted=told[1], data_type=told[2], refused=told[3])


def _alert(row: Sequence[Any], by_time: Mapping[int, Point]) -> Alert:
    point = by_time.get(int(row[1].timestamp()))
    return Alert(*row, *((point.change_pct, point.seconds) if point else (None, None)))
