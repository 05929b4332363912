"""The windows of past sessions and of this one that are over, with all that is known of each: for
judging whether alerts were any good. Functions block.

Statements are bounded in time, and read a week at a time. Times go to and from the database as
Unix seconds, which no time zone can shift.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from newshead.core import rule
from newshead.core.results import Alert, Bar, Watched
from newshead.core.rule import PricePoint
from newshead.core.tickers import ibkr_name
from newshead.core.times import midnight

# Rows around the time that is read, so that no window is cut.
MARGIN_S: Final = 3600
# How far back from a window's first row news counts.
MAX_NEWS_AGE_S: Final = 3600
WEEK_S: Final = 7 * 86400
# What the column can hold, margins included.
LAST_TIME_S: Final = 2**32 - 1 - 2 * MARGIN_S

# Asks a statement and returns its rows; none where the table is missing.
Ask = Callable[..., Sequence[Sequence[Any]]]

# A history is sorted by the day in UTC first.
_INSIDE: Final = """
    WHERE timestamp >= {since:DateTime} AND timestamp < {until:DateTime}
        AND toDate(timestamp, 'UTC') >= toDate({since:DateTime}, 'UTC')
        AND toDate(timestamp, 'UTC') <= toDate({until:DateTime}, 'UTC')"""


def _of_both(statement: str) -> tuple[str, str]:
    """Return a statement about the sessions before this one, and about this one."""
    return statement.replace("%s", "_history"), statement.replace("%s", "")


SPANS: Final = _of_both("""
    SELECT toUnixTimestamp(min(timestamp)), toUnixTimestamp(max(timestamp))
    FROM News.price_tracking%s""")

PRICES: Final = _of_both(f"""
    SELECT ticker, toUnixTimestamp(timestamp), price, volume, recommendation, confidence
    FROM News.price_tracking%s {_INSIDE}
    ORDER BY ticker, timestamp, _block_number, _part_offset""")  # noqa: S608

ALERTS: Final = _of_both(f"""
    SELECT ticker, toUnixTimestamp(timestamp), alert, price
    FROM News.news_alert%s {_INSIDE}
    ORDER BY ticker, timestamp""")  # noqa: S608

NEWS: Final = _of_both("""
    SELECT ticker, toUnixTimestamp(toDateTime(detected_at)) AS detected, source
    FROM News.breaking_news%s
    WHERE detected_at >= {since:DateTime} AND detected_at < {until:DateTime} AND ticker != ''
    ORDER BY detected""")

BARS: Final = """
    SELECT ticker, toUnixTimestamp(first_row), toUnixTimestamp(bar_time), bar_s, high, low, close
    FROM News.follow_up FINAL
    WHERE first_row >= {since:DateTime} AND first_row < {until:DateTime}
    ORDER BY ticker, first_row, bar_time"""

# All that is asked here.
STATEMENTS: Final = (*SPANS, *PRICES, *ALERTS, *NEWS, BARS)


def windows(ask: Ask, since: date | None, until: date | None, now_s: float) -> Iterator[Watched]:
    """Yield the windows that began on the days from `since` to `until` in New York and are over.

    Parameters
    ----------
    now_s
        The time, Unix seconds, by the database's clock.
    """
    for begin_s, end_s in _weeks(ask, since, until):
        asked = {"since": max(0, begin_s - MARGIN_S), "until": end_s + MARGIN_S}
        alerts = defaultdict(list)
        for statement in ALERTS:
            for ticker, *alert in ask(statement, **asked):
                alerts[ticker].append(Alert(*alert))
        news = _news(ask, **asked)
        bars = follow_ups(ask, begin_s, end_s)
        for statement in PRICES:
            for ticker, rows in groupby(ask(statement, **asked), itemgetter(0)):
                for window in _split(list(rows)):
                    first_s, last_s = window[0][1], window[-1][1]
                    if not begin_s <= first_s < end_s or rule.inside(first_s, now_s):
                        continue
                    yield Watched(
                        ticker,
                        [PricePoint(*row[1:5]) for row in window],
                        [row[5] for row in window],
                        sorted(each for each in alerts[ticker] if first_s <= each.time <= last_s),
                        _source(news[ibkr_name(ticker)], first_s, last_s),
                        bars.get((ticker, first_s), ()),
                    )


def follow_ups(ask: Ask, since_s: float, until_s: float) -> dict[tuple[str, int], list[Bar]]:
    """Return what IBKR said afterwards of the windows that began in this time, by ticker and first
    row."""
    rows = ask(BARS, since=int(since_s), until=int(until_s))
    return {
        key: [Bar(*row[2:]) for row in group] for key, group in groupby(rows, lambda row: row[:2])
    }


def _weeks(ask: Ask, since: date | None, until: date | None) -> Iterator[tuple[int, int]]:
    """Yield what there are rows of, a week at a time."""
    spans = [row for statement in SPANS for row in ask(statement) if row[1]]
    if not spans:
        return
    begin_s = min(row[0] for row in spans)
    end_s = min(max(row[1] for row in spans) + 1, LAST_TIME_S)
    if since is not None:
        begin_s = max(begin_s, int(midnight(since).timestamp()))
    if until is not None:
        end_s = min(end_s, int(midnight(until + timedelta(days=1)).timestamp()))
    for week_s in range(begin_s, end_s, WEEK_S):
        yield week_s, min(week_s + WEEK_S, end_s)


def _split(rows: Sequence[Sequence[Any]]) -> Iterator[Sequence[Sequence[Any]]]:
    for begin, end in rule.windows([row[1] for row in rows]):
        yield rows[begin:end]


def _news(ask: Ask, **asked: int) -> defaultdict[str, list[tuple[int, str]]]:
    """Return when each ticker's news were detected, and their sources, in time order."""
    found = defaultdict(list)
    for statement in NEWS:
        for ticker, detected, source in ask(statement, **asked):
            found[ibkr_name(ticker)].append((detected, source))
    for each in found.values():
        each.sort()
    return found


def _source(news: Sequence[tuple[int, str]], first_s: int, last_s: int) -> str:
    """Return the source of the news that a window began with; else of the first one in it."""
    before = [source for at, source in news if first_s - MAX_NEWS_AGE_S <= at <= first_s]
    inside = [source for at, source in news if first_s < at <= last_s]
    return (before[-1:] or inside[:1] or [""])[0]
