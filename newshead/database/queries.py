"""The text of every statement but the tables' own, and the functions that make the plain ones.

Values are bound, `{name:Type}`. Texts that are put together from parts hold constants and names
of columns and tables only (S608). Times are aware UTC. Functions block.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from newshead.core import rule
from newshead.core.parts import PartState, Told
from newshead.core.rule import Outcome, PricePoint, Rise
from newshead.core.tickers import spellings
from newshead.database.connection import Database
from newshead.database.tables import NOT_RATED

ACTIVE_TICKERS: Final = """
    SELECT ticker
    FROM News.breaking_news
    WHERE detected_at >= now64(3) - INTERVAL 5 MINUTE AND ticker != ''
    GROUP BY ticker
    ORDER BY max(detected_at) DESC
    LIMIT 100"""

SESSION_WINDOWS: Final = """
    WITH (timestamp, _block_number, _part_offset) AS in_order
    SELECT ticker, min(timestamp), dateDiff('second', min(timestamp), now()),
        max(timestamp), argMax(price, in_order), argMax(volume, in_order)
    FROM News.price_tracking
    GROUP BY ticker"""

# A cycle's tickers as JSON: the engine reads an array of a thousand in almost twice the time.
_TICKERS: Final = "JSONExtract({tickers:String}, 'Array(String)')"

# News and scores may spell a ticker in another way than the session does, see `_others`.
_ANY_SPELLING: Final = f"arrayConcat({_TICKERS}, {{others:Array(String)}})"

# Rows of news that were rated: no other takes the place of a rating.
RATED: Final = (
    f"sentiment != '' AND recommendation != '' AND NOT startsWith(explanation, '{NOT_RATED}')"
)

# Windows that are over and ratings, with the time of each, in one answer. A rating's sentiment is
# never empty.
STANDING: Final = f"""
    SELECT ticker, min(timestamp) AS first_row, ('', '', '')
    FROM News.price_tracking
    WHERE ticker IN {_TICKERS}
    GROUP BY ticker
    HAVING dateDiff('second', first_row, now()) > {{window_s:UInt32}}
    UNION ALL
    SELECT ticker, max(analyzed_at), argMax((sentiment, recommendation, confidence), analyzed_at)
    FROM News.breaking_news
    WHERE ticker IN {_ANY_SPELLING}
        AND analyzed_at >= now64(3) - INTERVAL 1 HOUR
        AND {RATED}
    GROUP BY ticker"""  # noqa: S608

# Per ticker its newest row, and whether the alert rule can hold for it at all: all others are
# spared its cost, which is three times this one's. It asks for one percent less, lest a rounding
# decide.
MOVED: Final = f"""
    SELECT ticker, toUnixTimestamp(max(timestamp)),
        count() >= 3 AND NOT max(price) < (1 + ({{change_pct:Float64}} - 1) / 100) * arrayMin(
            arraySlice(
                arraySort(groupArray((timestamp, _block_number, _part_offset, price))).4, 2, 2))
    FROM News.price_tracking
    WHERE ticker IN {_TICKERS}
    GROUP BY ticker"""  # noqa: S608

# A ticker's rows as core.rule.PricePoint has them, in time order. _block_number and _part_offset
# put rows of one second into the order they were inserted in.
PRICE_POINTS: Final = """
        arrayMap(row -> (row.1, row.4, row.5, row.6), arraySort(groupArray((
            toUnixTimestamp(timestamp), _block_number, _part_offset,
            price, volume, recommendation))))"""

# Of some tickers all that the alert rule looks at: their rows, the times of their alerts, and
# their newest score.
RULE_ROWS: Final = f"""
    SELECT ticker, {PRICE_POINTS}, any(times), any(score)
    FROM News.price_tracking
    LEFT JOIN (
        SELECT ticker, groupArray(toUnixTimestamp(timestamp)) AS times
        FROM News.news_alert
        WHERE ticker IN {_TICKERS}
        GROUP BY ticker
    ) AS alerts USING ticker
    LEFT JOIN (
        SELECT
            transform(ticker, {{others:Array(String)}}, {{asked:Array(String)}}, ticker) AS named,
            argMax(tuple(strength_score), scraped_at).1 AS score
        FROM News.float_list_detailed_dedup
        WHERE ticker IN {_ANY_SPELLING}
        GROUP BY named
    ) AS scores ON ticker = named
    WHERE ticker IN {_TICKERS}
    GROUP BY ticker"""  # noqa: S608

# The alerts that a kill parted from their copies. An hour for clocks that differ.
UNCOPIED: Final = """
    SELECT ticker, groupUniqArray(toUnixTimestamp(timestamp))
    FROM News.news_alert
    WHERE (ticker, timestamp) NOT IN (
        SELECT ticker, toDateTime(current_price_timestamp)
        FROM News.price_move
        WHERE timestamp >= (SELECT min(timestamp) FROM News.news_alert) - INTERVAL 1 HOUR
    )
    GROUP BY ticker"""

ALERTED: Final = "SELECT ticker, toUnixTimestamp(timestamp) FROM News.news_alert"

NEWEST_NEWS: Final = """
    SELECT headline, article_url, published_utc
    FROM News.breaking_news
    WHERE ticker IN {spellings:Array(String)}
    ORDER BY detected_at DESC
    LIMIT 1"""

LATEST_RATED: Final = f"""
    SELECT ticker, max(detected_at)
    FROM News.breaking_news
    WHERE ticker IN {{tickers:Array(String)}} AND {RATED}
    GROUP BY ticker"""  # noqa: S608

# Of this session, of those before it and of a move between them that goes on.
_ALL_NEWS: Final = "merge('News', '^breaking_news(_history(_old)?|_moving)?$')"

# The history's parts are by `timestamp`, which is about when news was detected.
RECENT_HASHES: Final = f"""
    SELECT content_hash, toUnixTimestamp(max(detected_at)) AS newest
    FROM {_ALL_NEWS}
    WHERE detected_at >= now64(3) - INTERVAL 1 DAY AND content_hash != ''
        AND timestamp >= now64(3) - INTERVAL 2 DAY
    GROUP BY content_hash
    ORDER BY newest"""  # noqa: S608

STORED_HASHES: Final = f"""
    SELECT DISTINCT content_hash
    FROM {_ALL_NEWS}
    WHERE content_hash IN {{hashes:Array(String)}}"""  # noqa: S608

LISTED_TICKERS: Final = """
    SELECT ticker, argMax(country, last_updated)
    FROM News.float_list
    GROUP BY ticker"""

# What the parts told in the last hour, a row per state that one had.
PARTS: Final = """
    SELECT part, state, argMax((reason, last_success), timestamp) AS newest, since,
        max(timestamp) AS at, now64(3)
    FROM News.part_status
    WHERE timestamp >= now64(3) - INTERVAL 1 HOUR
        AND ({host:String} = '' OR host = {host:String} AND folder = {folder:String})
    GROUP BY part, state, since
    ORDER BY at DESC
    LIMIT 500"""

LAST_MODE: Final = """
    SELECT mode
    FROM News.monitor_status
    WHERE account != '' AND timestamp >= now64(3) - INTERVAL 7 DAY
    ORDER BY timestamp DESC
    LIMIT 1"""

MOVING_TABLE: Final = """
    SELECT toString(uuid), comment, endsWith(engine, 'ReplacingMergeTree'),
        engine_full LIKE '% TTL %'
    FROM system.tables
    WHERE database = 'News' AND name = {table:String}"""

# The inserts into a table that are under way, this user's at least.
INSERTS_UNDER_WAY: Final = r"""
    SELECT query_id
    FROM system.processes
    WHERE query_kind = 'Insert'
        AND match(query, concat('(?i)into\\s+`?News`?\\.`?', {table:String}, '\\b'))"""


class Rating(NamedTuple):
    """What the sentiment analysis said of a ticker's newest news."""

    sentiment: str
    recommendation: str
    confidence: str


UNRATED: Final = Rating("neutral", "HOLD", "low")


class Window(NamedTuple):
    """When a ticker's first row was written, how many seconds ago by the database's clock, and its
    newest row's time, price (USD) and volume (shares)."""

    first_row: datetime
    age_s: int
    newest_row: datetime
    price: float
    volume: int


class Standing(NamedTuple):
    """Of some tickers, those whose window is over, with the time of their first row, and those
    that are rated, with their rating."""

    ended: dict[str, datetime]
    ratings: dict[str, Rating]


class Judgement(NamedTuple):
    """The rows of some tickers that reached the alert rule's threshold and have no alert yet, in
    time order, and of each ticker with rows the newest that was looked at (Unix seconds)."""

    rises: list[Rise]
    newest: dict[str, int]


class News(NamedTuple):
    """A ticker's newest news; `published_utc` is free text."""

    headline: str
    article_url: str
    published_utc: str


def active_tickers(database: Database) -> list[str]:
    """Return the tickers of the news of the last 5 minutes, newest first, at most 100."""
    return [ticker for (ticker,) in database.rows(ACTIVE_TICKERS)]


def windows(database: Database) -> dict[str, Window]:
    """Return the windows of all tickers that have rows in this session."""
    return {ticker: Window(*window) for ticker, *window in database.rows(SESSION_WINDOWS)}


def standing(database: Database, tickers: Collection[str], window_s: int) -> Standing:
    """Return which of `tickers` have their window of `window_s` behind them, by the database's
    clock, and the newest ratings of the last hour."""
    others = _others(tickers)
    ended: dict[str, datetime] = {}
    newest: dict[str, tuple[datetime, Rating]] = {}
    rows = database.rows(
        STANDING, window_s=window_s, tickers=json.dumps([*tickers]), others=list(others)
    )
    for spelled, at, rating in rows:
        ticker = others.get(spelled, spelled)
        if not rating[0]:
            ended[ticker] = at
        elif ticker not in newest or at > newest[ticker][0]:
            newest[ticker] = at, Rating(*rating)
    return Standing(ended, {ticker: rating for ticker, (_, rating) in newest.items()})


def rises(database: Database, tickers: Collection[str]) -> list[Rise]:
    """Return the rows of `tickers` that reached the alert rule's threshold and have no alert yet,
    in time order."""
    return judged(database, tickers).rises


def judged(database: Database, tickers: Collection[str]) -> Judgement:
    """Apply the alert rule to the rows of `tickers` that the database shows."""
    rows = database.rows(MOVED, tickers=json.dumps([*tickers]), change_pct=rule.LIVE.change_pct)
    newest = {str(ticker): int(at_s) for ticker, at_s, _ in rows}
    moved = [ticker for ticker, _, has_moved in rows if has_moved]
    if not moved:
        return Judgement([], newest)
    found: list[Rise] = []
    # The second answer may come from a replica that lags behind the first one's.
    seen = dict.fromkeys(moved, 0)
    for ticker, prices, alerted_s, score in _windows(database, moved):
        seen[ticker] = min(newest[ticker], prices[-1].time)
        found += rule.rises(ticker, rule.judge(prices), set(alerted_s), score)
    return Judgement(sorted(found, key=lambda rise: (rise.timestamp, rise.ticker)), newest | seen)


def alerted(database: Database) -> set[tuple[str, int]]:
    """Return the session's alerts: ticker and time (Unix seconds)."""
    return {(str(ticker), int(at_s)) for ticker, at_s in database.rows(ALERTED)}


def uncopied(database: Database) -> list[Rise]:
    """Return the session's alerts that are not in `price_move`, in time order.

    Those of other programs, which the alert rule does not give, are not among them.
    """
    lacking = {ticker: set(times) for ticker, times in database.rows(UNCOPIED)}
    if not lacking:
        return []
    found = {
        (rise.timestamp, rise.ticker): rise
        for ticker, prices, alerted, score in _windows(database, lacking)
        for rise in rule.rises(ticker, rule.judge(prices), set(alerted) - lacking[ticker], score)
        if rise.qualifies and rise.timestamp.timestamp() in lacking[ticker]
    }
    return [found[key] for key in sorted(found)]


def outcomes(database: Database, tickers: Collection[str]) -> dict[str, Outcome]:
    """Return what came of the windows of those of `tickers` that have rows."""
    return {
        ticker: rule.outcome(rule.changes(prices), len(alerted))
        for ticker, prices, alerted, _ in _windows(database, tickers)
    }


def _windows(
    database: Database, tickers: Collection[str]
) -> Iterator[tuple[str, list[PricePoint], Sequence[int], float | None]]:
    """Yield those of `tickers` that have rows, with these, the times of the alerts (Unix seconds)
    and the score."""
    others = _others(tickers)
    rows = database.rows(
        RULE_ROWS,
        tickers=json.dumps([*tickers]),
        others=list(others),
        asked=list(others.values()),
    )
    for ticker, prices, alerted, score in rows:
        yield ticker, [PricePoint(*row) for row in prices], alerted, score


def _others(tickers: Collection[str]) -> dict[str, str]:
    """Return the other spellings of `tickers`, each with the ticker that is asked for."""
    asked = set(tickers)
    return {each: ticker for ticker in asked for each in spellings(ticker) if each not in asked}


def newest_news(database: Database, ticker: str) -> News | None:
    """Return the ticker's newest news of this session, in whatever spelling."""
    rows = database.rows(NEWEST_NEWS, spellings=spellings(ticker))
    return News(*rows[0]) if rows else None


def latest_rated(database: Database, tickers: Collection[str]) -> dict[str, datetime]:
    """Return when the newest rated news of each of `tickers` that have any was detected."""
    rows = database.rows(LATEST_RATED, tickers=list(tickers))
    return {str(ticker): detected for ticker, detected in rows}


def recent_hashes(database: Database) -> dict[str, int]:
    """Return the content hashes of the last day's news, of all sessions, oldest first; with the
    Unix time each was detected at."""
    return {found: int(at) for found, at in database.rows(RECENT_HASHES)}


def stored_hashes(database: Database, hashes: Collection[str]) -> set[str]:
    """Return those of `hashes` that news of any session has."""
    return {found for (found,) in database.rows(STORED_HASHES, hashes=list(hashes))}


def told_parts(database: Database, host: str, folder: str) -> tuple[datetime, list[Told]]:
    """Return the database's clock, and what the newshead of a folder told of its parts."""
    rows = database.rows(PARTS, host=host, folder=folder)
    now = rows[0][-1] if rows else datetime.now(UTC)
    return now, [told_part(row) for row in rows]


def told_part(row: Sequence[Any]) -> Told:
    """Return a row that PARTS gives."""
    part, state, (reason, success), since, at, _ = row
    return Told(part, PartState(state), reason, since, at, success)


def last_mode(database: Database) -> str:
    """Return whether the account that was connected last is PAPER or LIVE; empty if none was."""
    rows = database.rows(LAST_MODE)
    return str(rows[0][0]) if rows else ""


def listed_tickers(database: Database) -> dict[str, str]:
    """Return the tickers of `float_list`, each with its company's country."""
    return {ticker: str(country) for ticker, country in database.rows(LISTED_TICKERS)}
