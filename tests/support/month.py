"""A month of past sessions, made so that it is known what came after its alerts."""

import random
from datetime import UTC, datetime, time, timedelta
from itertools import count
from typing import Any, NamedTuple

from watching import noon_of_yesterday

from clickhouse_manager import ClickHouseManager

DAYS = 28
# Before the move that the kinds below tell, prices stay where they are for so long.
STILL_S = 120
PRICE_ROWS = ["timestamp", "ticker", "price", "volume", "recommendation", "confidence"]
BARS = ["ticker", "first_row", "bar_time", "bar_s", "open", "high", "low", "close", "volume"]


class Kind(NamedTuple):
    """So many windows after which the price changes by so much, 3 % more or less."""

    windows: int
    change_pct: float
    confidence: str
    source: str
    alert: int = 1
    price: float = 2.0
    recommendation: str = "BUY"


GOOD = Kind(60, 4.0, "high", "wire")
BAD = Kind(40, -2.0, "low", "stream", alert=2, price=0.5)
FEW = Kind(6, 30.0, "medium", "wire", alert=3, price=7.0)
NO_ALERT = Kind(50, -1.0, "low", "stream", alert=0, recommendation="HOLD")


def write_month(database: ClickHouseManager, *kinds: Kind) -> None:
    """Write the rows of past sessions, their alerts, news and follow-ups."""
    chance = random.Random(1)
    found: dict[str, list[list[Any]]] = {
        name: [] for name in ("price_tracking", "news_alert", "breaking_news", "follow_up")
    }
    numbers = count()
    for kind in kinds:
        for _ in range(kind.windows):
            number = next(numbers)
            ticker = f"{'ABCDEFGHIJ'[number // 26 % 10]}{chr(65 + number % 26)}"
            day = timedelta(days=number % DAYS)
            first = noon_of_yesterday() - day + timedelta(minutes=number // DAYS)
            _write_window(found, kind, f"{ticker}{number // 260 or ''}", first, chance)
    for name, columns in {
        "price_tracking": PRICE_ROWS,
        "news_alert": ["timestamp", "ticker", "alert", "price"],
        "breaking_news": ["timestamp", "detected_at", "ticker", "source", "content_hash"],
    }.items():
        database.client.insert(f"News.{name}_history", found[name], column_names=columns)
    database.client.insert("News.follow_up", found["follow_up"], column_names=BARS)
    days = sorted({row[0].date() for row in found["price_tracking"]})
    begins = [datetime.combine(day, time(8), UTC) for day in days]
    database.client.insert(
        "News.sessions",
        [
            [begin.isoformat(), begin, begin + timedelta(days=1), 1, 1, 1, [(begin.date(), 1, 1)]]
            for begin in begins
        ],
        column_names=["id", "begin", "end", "windows", "alerts", "rows", "days"],
    )


def _write_window(
    found: dict[str, list[list[Any]]],
    kind: Kind,
    ticker: str,
    first: datetime,
    chance: random.Random,
) -> None:
    top = kind.price * 1.06
    for number, price in enumerate([kind.price] * 3 + [top, top]):
        at = first + timedelta(seconds=2 * number)
        rating = kind.recommendation, kind.confidence
        found["price_tracking"].append([at, ticker, price, 100, *rating])
    if kind.alert:
        found["news_alert"].append([first + timedelta(seconds=6), ticker, kind.alert, top])
    news = first - timedelta(seconds=5)
    found["breaking_news"].append([news, news, ticker, kind.source, ticker])
    later = top * (1 + (kind.change_pct + chance.uniform(-3, 3)) / 100)
    for begin, end, bar_s in ((0, STILL_S, 5), (0, 1860, 60)):
        for offset in range(begin, end, bar_s):
            price = top if offset < STILL_S else later
            bar = first + timedelta(seconds=offset)
            found["follow_up"].append([ticker, first, bar, bar_s, *[price] * 4, 100])
