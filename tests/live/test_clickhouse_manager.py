"""The database: connection, tables, queries, inserts and the hand-over of a session.

The engine is the real one, embedded in this process and behind the HTTP test server.
"""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import ClickHouseError
from clickhouse_server import ClickHouseServer
from deadlines import DEADLINE_S
from monitoring import connected, emptied, fresh

from clickhouse_manager import ClickHouseManager
from newshead.database import connection, queries, store
from newshead.database.connection import CannotMoveError, DatabaseError
from newshead.database.folder import ENGINE_NOTE
from newshead.database.queries import News, Rating, Standing
from newshead.database.store import Batch, Outbox
from newshead.database.table import KEEP_EXPIRED
from newshead.database.tables import (
    SESSION_TABLES,
    AlertRow,
    PriceMoveRow,
    PriceRow,
    StatusRow,
)
from newshead.settings import ConfigurationError, Settings

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "sesame 'open'"
# What a slow machine may add to an age.
SLOWNESS_S = 30
HOSTILE = [
    "",
    "'",
    '"',
    "\\",
    "x' OR '1'='1",
    "AAPL'; DROP TABLE News.news_alert; --",
    "') UNION ALL SELECT 'AAPL', now(), 1 --",
    "AAPL\0",
    "AA\tPL\n",
    "{tickers:Array(String)}",
    "%(tickers)s %s {0}",
    "AAPL' /*",
    "☃ 中 \u0410APL",
    "%",
]


# Ways into the database


def settings_of(server: ClickHouseServer, **changes: Any) -> Settings:
    return Settings(
        **{
            "clickhouse_host": server.host,
            "clickhouse_port": server.port,
            "clickhouse_password": PASSWORD,
            **changes,
        }
    )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    with ClickHouseServer(tmp_path_factory.mktemp("clickhouse"), password=PASSWORD) as server:
        yield server


@pytest.fixture
def server(running: ClickHouseServer) -> Iterator[ClickHouseServer]:
    """A server without a News database, and without faults."""
    with fresh(running, settings_of(running)):
        yield running


@pytest.fixture
def over_http(running: ClickHouseServer) -> Iterator[ClickHouseManager]:
    settings = settings_of(running)
    with emptied(running, settings), connected(settings) as manager:
        yield manager


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[ClickHouseManager]:
    with connected(Settings(clickhouse_path=tmp_path / "clickhouse")) as manager:
        manager.create_tables()
        yield manager


@pytest.fixture(params=["embedded", "over_http"])
def manager(request: pytest.FixtureRequest) -> ClickHouseManager:
    found: ClickHouseManager = request.getfixturevalue(request.param)
    return found


def rows_of(
    manager: ClickHouseManager, table: str, columns: str = "*", order: str = "ALL"
) -> list[tuple[Any, ...]]:
    query = f"SELECT {columns} FROM News.{table} ORDER BY {order}"
    return [tuple(row) for row in manager.client.query(query).result_rows]


def tables(manager: ClickHouseManager) -> set[str]:
    sql = "SELECT name FROM system.tables WHERE database = 'News'"
    return {name for (name,) in manager.client.query(sql).result_rows}


def columns_of(manager: ClickHouseManager, table: str) -> list[tuple[str, str, str]]:
    sql = (
        "SELECT name, type, default_expression FROM system.columns "
        "WHERE database = 'News' AND table = {table:String} ORDER BY position"
    )
    result = manager.client.query(sql, parameters={"table": table})
    return [(name, kind, default) for name, kind, default in result.result_rows]


def engine_of(manager: ClickHouseManager, table: str) -> str:
    sql = "SELECT engine_full FROM system.tables WHERE database = 'News' AND name = {table:String}"
    return str(manager.client.query(sql, parameters={"table": table}).result_rows[0][0])


NEWS_DEFAULTS = {"sentiment": "positive", "recommendation": "BUY", "confidence": "high"}


def add_news(
    manager: ClickHouseManager,
    ticker: str,
    *,
    detected_s_ago: float = 0,
    analyzed_s_ago: float = 0,
    **texts: str,
) -> None:
    """A row of breaking_news, its times by the database's clock."""
    texts = NEWS_DEFAULTS | texts
    names = ", ".join(texts)
    values = ", ".join(f"{{{name}:String}}" for name in texts)
    manager.client.command(
        f"INSERT INTO News.breaking_news (ticker, content_hash, detected_at, analyzed_at, {names}) "
        "SELECT {ticker:String}, toString(generateUUIDv4()), "
        "now64(3) - toIntervalMillisecond({detected:Int64}), "
        f"now64(3) - toIntervalMillisecond({{analyzed:Int64}}), {values}",
        parameters={
            "ticker": ticker,
            "detected": int(detected_s_ago * 1000),
            "analyzed": int(analyzed_s_ago * 1000),
            **texts,
        },
    )


def add_prices(manager: ClickHouseManager, ticker: str, *seconds_ago: int) -> None:
    """Rows of price_tracking, their times by the database's clock."""
    manager.client.command(
        "INSERT INTO News.price_tracking (ticker, price, timestamp) SELECT {ticker:String}, 1.5, "
        "now() - toIntervalSecond(arrayJoin({ago:Array(Int64)}))",
        parameters={"ticker": ticker, "ago": list(seconds_ago)},
    )


# In the middle of an hour: the rows after it are of the same month, and so of one partition.
NOON = datetime.now(UTC).replace(minute=30, second=0, microsecond=0) - timedelta(hours=1)


def price_row(number: int, ticker: str = "AAPL") -> PriceRow:
    return PriceRow(
        NOON + timedelta(seconds=number), ticker, number / 4, number, "ibkr", "n", "BUY", "low"
    )


def in_background(call: Callable[[], object]) -> tuple[threading.Thread, list[Exception]]:
    raised: list[Exception] = []

    def run() -> None:
        try:
            call()
        except Exception as problem:
            raised.append(problem)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, raised


def eventually(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.005)


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Another newshead process."""
    imports = (
        "import sys\nfrom pathlib import Path\n"
        "from clickhouse_manager import ClickHouseManager\n"
        "from newshead.database.connection import DatabaseError\n"
        "from newshead.settings import Settings\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", imports + code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


# The tables

UUID = ("id", "UUID", "generateUUIDv4()")
TEXT = ("String", "")
NUMBER = ("Float64", "")
MOMENT = ("DateTime64(3)", "")
MOMENT_NOW = ("DateTime64(3)", "now64()")
RATING = [
    ("sentiment", "String", "'neutral'"),
    ("recommendation", "String", "'HOLD'"),
    ("confidence", "String", "'low'"),
]
COLUMNS = {
    "price_tracking": [
        ("timestamp", "DateTime", "now()"),
        ("ticker", *TEXT),
        ("price", *NUMBER),
        ("volume", "UInt64", ""),
        ("source", "String", "'ibkr'"),
        *RATING,
    ],
    "news_alert": [
        ("ticker", *TEXT),
        ("timestamp", "DateTime", "now()"),
        ("alert", "UInt8", "1"),
        ("price", *NUMBER),
    ],
    "breaking_news": [
        UUID,
        ("timestamp", *MOMENT_NOW),
        ("source", *TEXT),
        ("ticker", *TEXT),
        ("headline", *TEXT),
        ("published_utc", *TEXT),
        ("article_url", *TEXT),
        ("summary", *TEXT),
        ("full_content", *TEXT),
        ("detected_at", *MOMENT_NOW),
        ("processing_latency_ms", "UInt32", ""),
        ("market_relevant", "UInt8", "0"),
        ("source_check_time", *MOMENT),
        ("content_hash", *TEXT),
        ("news_type", "String", "'other'"),
        ("urgency_score", "UInt8", "0"),
        *RATING,
        ("explanation", "String", "''"),
        ("analysis_time_ms", "UInt32", "0"),
        ("analyzed_at", *MOMENT_NOW),
    ],
    "price_move": [
        UUID,
        ("timestamp", *MOMENT_NOW),
        ("ticker", *TEXT),
        ("news_headline", *TEXT),
        ("news_published_utc", *MOMENT),
        ("news_article_url", *TEXT),
        ("current_price", *NUMBER),
        ("current_price_timestamp", *MOMENT),
        ("minute_30_high", *NUMBER),
        ("minute_30_low", *NUMBER),
        ("minute_30_open", *NUMBER),
        ("minute_30_close", *NUMBER),
        ("minute_30_volume", "UInt64", ""),
        ("minute_30_timestamp", *MOMENT),
        ("price_move_percentage", *NUMBER),
        ("price_above_30min_high", "UInt8", "1"),
        ("price_check_latency_ms", "UInt32", ""),
        ("news_to_price_check_delay_ms", "UInt32", ""),
    ],
    "monitor_status": [
        ("timestamp", *MOMENT),
        ("state", *TEXT),
        ("state_since", *MOMENT),
        ("mode", *TEXT),
        ("delayed", "UInt8", ""),
        ("account", *TEXT),
        ("active_tickers", "UInt32", ""),
        ("cycles", "UInt64", ""),
        ("ticks", "UInt64", ""),
        ("rows", "UInt64", ""),
        ("last_cycle_ms", *NUMBER),
        ("kept_rows", "UInt32", ""),
        ("reconnects", "UInt32", ""),
        ("clock_difference_s", *NUMBER),
        ("last_error", *TEXT),
    ],
    "part_status": [
        ("timestamp", *MOMENT),
        ("instance", *TEXT),
        ("host", *TEXT),
        ("folder", *TEXT),
        ("part", *TEXT),
        ("state", "Enum8('ok' = 1, 'degraded' = 2, 'lost' = 3, 'refused' = 4, 'off' = 5)", ""),
        ("since", *MOMENT),
        ("reason", *TEXT),
        ("last_success", "Nullable(DateTime64(3))", ""),
        ("counts", "Map(String, UInt64)", ""),
    ],
    "ticker_status": [
        ("ticker", *TEXT),
        ("timestamp", *MOMENT),
        ("halted", "UInt8", ""),
        ("data_type", "UInt8", ""),
        ("refused", *TEXT),
        ("previous_close", *NUMBER),
        ("day_volume", "UInt64", ""),
    ],
    "sessions": [
        ("id", *TEXT),
        ("begin", *MOMENT),
        ("end", *MOMENT),
        ("windows", "UInt32", ""),
        ("alerts", "UInt32", ""),
        ("rows", "UInt64", ""),
        ("days", "Array(Tuple(Date, UInt32, UInt32))", ""),
    ],
    "follow_up": [
        ("ticker", *TEXT),
        ("first_row", "DateTime", ""),
        ("bar_time", "DateTime", ""),
        ("bar_s", "UInt16", ""),
        ("open", *NUMBER),
        ("high", *NUMBER),
        ("low", *NUMBER),
        ("close", *NUMBER),
        ("volume", "UInt64", ""),
    ],
    "owner": [
        ("id", *TEXT),
        ("host", *TEXT),
        ("folder", *TEXT),
        ("timestamp", *MOMENT),
        ("ended", "UInt8", ""),
    ],
    "float_list": [
        ("ticker", *TEXT),
        ("company_name", *TEXT),
        ("sector", *TEXT),
        ("industry", *TEXT),
        ("country", *TEXT),
        ("market_cap", *NUMBER),
        ("float_shares", *NUMBER),
        ("price", *NUMBER),
        ("volume", "UInt64", ""),
        ("last_updated", *MOMENT_NOW),
    ],
    "float_list_detailed_dedup": [
        ("ticker", *TEXT),
        ("scraped_at", *MOMENT_NOW),
        ("strength_score", "Nullable(Float64)", ""),
    ],
}
HISTORIES = {f"{table}_history" for table in SESSION_TABLES}
BY_MONTH = "toYYYYMM(timestamp)"
# engine, partition key, sorting key, TTL
ENGINES = {
    "price_tracking": ("MergeTree", BY_MONTH, "ticker, timestamp", "timestamp + toIntervalDay(7)"),
    "news_alert": ("MergeTree", BY_MONTH, "ticker, timestamp", "timestamp + toIntervalDay(30)"),
    "breaking_news": (
        "ReplacingMergeTree(detected_at)",
        BY_MONTH,
        "content_hash, article_url",
        None,
    ),
    "price_move": ("MergeTree", BY_MONTH, "timestamp, ticker", None),
    "monitor_status": ("MergeTree", "", "timestamp", "toDateTime(timestamp) + toIntervalDay(7)"),
    "part_status": ("MergeTree", "", "part, timestamp", "toDateTime(timestamp) + toIntervalDay(7)"),
    "ticker_status": ("ReplacingMergeTree(timestamp)", "", "ticker", None),
    "sessions": ("ReplacingMergeTree(end)", "", "id", None),
    "follow_up": (
        "ReplacingMergeTree",
        "toYYYYMM(first_row)",
        "ticker, first_row, bar_s, bar_time",
        None,
    ),
    "owner": ("MergeTree", "", "timestamp", "toDateTime(timestamp) + toIntervalDay(1)"),
    "float_list": ("ReplacingMergeTree(last_updated)", "", "ticker", None),
    "float_list_detailed_dedup": ("MergeTree", "", "ticker", None),
}


def ttl(engine: str) -> str | None:
    found = re.search(r" TTL (.+?)(?= SETTINGS |$)", engine)
    return found[1] if found else None


def test_exactly_the_documented_tables_are_created(manager: ClickHouseManager) -> None:
    assert tables(manager) == set(COLUMNS) | HISTORIES


@pytest.mark.parametrize("table", COLUMNS)
def test_a_table_is_created_as_documented(embedded: ClickHouseManager, table: str) -> None:
    assert columns_of(embedded, table) == COLUMNS[table]
    sql = "SELECT partition_key, sorting_key FROM system.tables WHERE name = {t:String}"
    keys = embedded.client.query(sql, parameters={"t": table}).result_rows[0]
    engine = engine_of(embedded, table)
    assert (engine.split(" ")[0], *keys, ttl(engine)) == ENGINES[table]


def test_breaking_news_has_its_skip_indexes(embedded: ClickHouseManager) -> None:
    sql = (
        "SELECT table, expr, type FROM system.data_skipping_indices "
        "WHERE database = 'News' AND table = 'breaking_news'"
    )
    assert set(embedded.client.query(sql).result_rows) == {
        ("breaking_news", "ticker", "bloom_filter"),
        ("breaking_news", "content_hash", "bloom_filter"),
        ("breaking_news", "timestamp", "minmax"),
    }


OLDER_TABLES = {
    "price_tracking": """CREATE TABLE News.price_tracking (
        ticker LowCardinality(String), venue String DEFAULT 'ARCA', timestamp DateTime,
        price Float64, volume UInt64, source String, sentiment String, recommendation String,
        confidence String, cents UInt64 MATERIALIZED toUInt64(price * 100),
        INDEX by_venue venue TYPE set(8)
    ) ENGINE = ReplacingMergeTree ORDER BY (ticker, timestamp, price)
    TTL timestamp + toIntervalDay(3) SETTINGS index_granularity = 512""",
    "news_alert": """CREATE TABLE News.news_alert (
        ticker String, timestamp DateTime, alert UInt8, price Float64, `a "note` Nullable(String)
    ) ENGINE = MergeTree ORDER BY timestamp""",
    "breaking_news": """CREATE TABLE News.breaking_news (
        ticker String, timestamp DateTime64(3), headline String, detected_at DateTime64(3),
        analyzed_at DateTime64(3), tags Array(String), INDEX t ticker TYPE bloom_filter
    ) ENGINE = ReplacingMergeTree ORDER BY headline PARTITION BY toYYYYMM(timestamp)""",
    "price_move": """CREATE TABLE News.price_move (
        timestamp DateTime64(3) DEFAULT now64(), ticker String, news_headline String,
        news_published_utc DateTime64(3), news_article_url String, current_price Float64,
        current_price_timestamp DateTime64(3), price_move_percentage Float64,
        price_check_latency_ms UInt32, news_to_price_check_delay_ms UInt32, comment String
    ) ENGINE = MergeTree ORDER BY timestamp""",
}


def create_older_tables(manager: ClickHouseManager) -> None:
    """Tables as an earlier newshead may have left them."""
    manager.client.command("DROP DATABASE IF EXISTS News SYNC")
    manager.client.command("CREATE DATABASE News")
    for statement in OLDER_TABLES.values():
        manager.client.command(statement)
    manager.client.command(
        "INSERT INTO News.price_tracking (ticker, venue, timestamp, price) "
        "SELECT 'AAPL', 'X', now() - number, number FROM numbers(5)"
    )
    manager.client.command(
        "INSERT INTO News.news_alert SELECT 'AAPL', now() - number, 1, 2, "
        "if(number = 0, NULL, 'it''s') FROM numbers(3)"
    )
    manager.client.command(
        "INSERT INTO News.breaking_news SELECT 'AAPL', now64(3), toString(number), now64(3), "
        "now64(3), ['x', 'y'] FROM numbers(4)"
    )


def price_move_row(number: int) -> PriceMoveRow:
    at = NOON + timedelta(milliseconds=1234 + number)
    return PriceMoveRow("AAPL", "it's ☃", at, "https://x/?a=1", 2.5, at, 5.25, 17, 18)


STATUS_ROW = StatusRow(
    NOON + timedelta(milliseconds=1),
    *("ready", NOON, "PAPER", True, "*****67", 3, 4, 2**40, 2**41, 12.5, 6, 7, -0.125, "it's ☃"),
)


def test_older_tables_stay_as_they_are_and_take_each_batch_once(
    manager: ClickHouseManager,
) -> None:
    create_older_tables(manager)
    names = sorted(tables(manager))
    before = [(columns_of(manager, t), rows_of(manager, t)) for t in names]
    manager.create_tables()
    manager.create_tables()
    assert [(columns_of(manager, t), rows_of(manager, t)) for t in names] == before
    assert tables(manager) == set(COLUMNS) | HISTORIES, "a table that was missing was not created"
    assert manager.rises(["AAPL"]) == []
    batches = {
        "price_tracking": Batch([price_row(1, "NEW")], "one token"),
        "news_alert": Batch([AlertRow("NEW", NOON, 2, 3.5)], "one token"),
        "price_move": Batch([price_move_row(0)._replace(ticker="NEW")], "one token"),
        "monitor_status": Batch([STATUS_ROW], "one token"),
    }
    for table, batch in batches.items():
        store.insert(manager.client, batch)
        store.insert(manager.client, batch)
        new = "ticker = 'NEW'" if table != "monitor_status" else "true"
        [(count,)] = rows_of(manager, f"{table} WHERE {new}", "count()")
        assert count == 1, f"{table} stored a batch that was sent again once more"


# Queries


def test_active_tickers_are_those_of_the_news_of_five_minutes(manager: ClickHouseManager) -> None:
    assert manager.active_tickers() == []
    add_news(manager, "OLD", detected_s_ago=300.5)
    add_news(manager, "", detected_s_ago=1)
    add_news(manager, "TWICE", detected_s_ago=400)
    add_news(manager, "TWICE", detected_s_ago=220)
    add_news(manager, "TWICE", detected_s_ago=100)
    add_news(manager, "LATER", detected_s_ago=200)
    # Whatever its rating, and however long ago the article was published or analysed.
    add_news(manager, "OLDER", detected_s_ago=300 - SLOWNESS_S, analyzed_s_ago=9999, sentiment="")
    add_news(manager, "NEW", detected_s_ago=2, recommendation="HOLD", published_utc="1999")
    assert manager.active_tickers() == ["NEW", "TWICE", "LATER", "OLDER"]


def test_there_are_at_most_100_active_tickers_the_newest(manager: ClickHouseManager) -> None:
    manager.client.command(
        "INSERT INTO News.breaking_news (ticker, content_hash, detected_at) SELECT "
        "concat('T', toString(number)), toString(number), now64(3) - number FROM numbers(120)"
    )
    assert manager.active_tickers() == [f"T{n}" for n in range(100)]


def test_a_window_begins_with_the_first_row_and_ages_by_the_databases_clock(
    manager: ClickHouseManager,
) -> None:
    add_prices(manager, "AAPL", 10)
    add_prices(manager, "AAPL", 45, 3)
    add_prices(manager, "MSFT", 300, 299)
    windows = manager.windows()
    assert set(windows) == {"AAPL", "MSFT"}
    for ticker, ago in [("AAPL", 45), ("MSFT", 300)]:
        assert ago <= windows[ticker].age_s <= ago + SLOWNESS_S
        off = datetime.now(UTC) - timedelta(seconds=ago) - windows[ticker].first_row
        assert abs(off) < timedelta(seconds=SLOWNESS_S)


def test_a_window_is_over_after_sixty_seconds_by_the_databases_clock(
    manager: ClickHouseManager,
) -> None:
    add_prices(manager, "OPEN", 60 - SLOWNESS_S, 5)
    add_prices(manager, "OVER", 62, 5)
    add_prices(manager, "OTHER", 300)
    ended = manager.standing(["OPEN", "OVER", "NONE"]).ended
    assert set(ended) == {"OVER"}
    off = datetime.now(UTC) - timedelta(seconds=62) - ended["OVER"]
    assert abs(off) < timedelta(seconds=SLOWNESS_S)


def test_one_ticker_is_rated_and_has_its_window_behind_it(manager: ClickHouseManager) -> None:
    add_prices(manager, "AAPL", 90)
    add_news(manager, "AAPL")
    standing = manager.standing(["AAPL"])
    assert (set(standing.ended), set(standing.ratings)) == ({"AAPL"}, {"AAPL"})
    assert manager.standing([]) == Standing({}, {})


def test_a_rating_is_the_newest_analysis_of_the_last_hour(manager: ClickHouseManager) -> None:
    # Analysed last, though its news came first.
    add_news(manager, "AAPL", detected_s_ago=900, analyzed_s_ago=5, recommendation="SELL")
    add_news(manager, "AAPL", detected_s_ago=1, analyzed_s_ago=60, recommendation="BUY")
    add_news(manager, "LATE", analyzed_s_ago=3600 - SLOWNESS_S, sentiment="negative")
    add_news(manager, "OLD", analyzed_s_ago=3600.5)
    add_news(manager, "OTHER")
    ratings = manager.standing(["AAPL", "LATE", "OLD", "NONE"]).ratings
    assert ratings == {
        "AAPL": Rating("positive", "SELL", "high"),
        "LATE": Rating("negative", "BUY", "high"),
    }


def test_an_analysis_without_sentiment_or_recommendation_is_no_rating(
    manager: ClickHouseManager,
) -> None:
    add_news(manager, "AAPL", analyzed_s_ago=60, sentiment="good", confidence="")
    add_news(manager, "AAPL", analyzed_s_ago=20, sentiment="")
    add_news(manager, "AAPL", analyzed_s_ago=10, recommendation="")
    add_news(manager, "NONE", sentiment="", recommendation="")
    ratings = manager.standing(["AAPL", "NONE"]).ratings
    assert ratings == {"AAPL": Rating("good", "BUY", "")}


def test_an_article_that_was_not_rated_takes_no_rating_s_place(
    manager: ClickHouseManager,
) -> None:
    add_news(manager, "AAPL", analyzed_s_ago=60)
    reason = "Not rated: no answer within 8 s."
    for ticker in ("AAPL", "NONE"):
        add_news(manager, ticker, recommendation="HOLD", explanation=reason)
    ratings = manager.standing(["AAPL", "NONE"]).ratings
    assert ratings == {"AAPL": Rating("positive", "BUY", "high")}
    add_news(manager, "AAPL", recommendation="HOLD", explanation="Routine notice.")
    assert manager.standing(["AAPL"]).ratings["AAPL"].recommendation == "HOLD"


def test_the_newest_news_is_that_detected_last(manager: ClickHouseManager) -> None:
    assert manager.newest_news("AAPL") is None
    add_news(manager, "AAPL", detected_s_ago=5, headline="new", article_url="u", published_utc="p")
    add_news(manager, "AAPL", detected_s_ago=50, headline="old", published_utc="q")
    add_news(manager, "MSFT", headline="of another")
    assert manager.newest_news("AAPL") == News("new", "u", "p")


def fill(manager: ClickHouseManager, ticker: str) -> None:
    add_news(manager, ticker, headline=f"of {ticker}")
    add_prices(manager, ticker, 30)


def test_hostile_text_finds_nothing_and_changes_nothing(manager: ClickHouseManager) -> None:
    fill(manager, "AAPL")
    before = {table: rows_of(manager, table) for table in COLUMNS}
    assert manager.standing(HOSTILE) == Standing({}, {})
    assert manager.rises(HOSTILE) == []
    assert manager.outcomes(HOSTILE) == {}
    assert [manager.newest_news(text) for text in HOSTILE] == [None] * len(HOSTILE)
    assert {table: rows_of(manager, table) for table in COLUMNS} == before


def test_hostile_text_finds_what_bears_that_very_name(manager: ClickHouseManager) -> None:
    names = [text for text in HOSTILE if text]
    outbox = Outbox()
    outbox.add([price_row(1, name) for name in names])
    outbox.flush(manager.client)
    for name in names:
        add_news(manager, name, headline=f"of {name}")
    standing = manager.standing(names)
    assert set(manager.windows()) == set(standing.ended) == set(standing.ratings) == set(names)
    assert {name: outcome.rows for name, outcome in manager.outcomes(names).items()} == (
        dict.fromkeys(names, 1)
    )
    assert [manager.newest_news(name) for name in names] == [
        News(f"of {name}", "", "") for name in names
    ]


LOCAL_OFFSET = datetime.now(UTC).astimezone().utcoffset()


def test_times_come_back_in_utc(embedded: ClickHouseManager) -> None:
    rows = [price_row(n)._replace(price=price) for n, price in enumerate([1.0, 1.0, 2.0])]
    store.insert(embedded.client, Batch(rows, "t"))
    window = embedded.windows()["AAPL"].first_row
    [rise] = embedded.rises(["AAPL"])
    assert (window, rise.timestamp) == (NOON, NOON + timedelta(seconds=2))
    assert window.utcoffset() == rise.timestamp.utcoffset() == timedelta(0)


# The outbox


def test_rows_come_back_as_they_went_in(manager: ClickHouseManager) -> None:
    prices = [price_row(2, "BRK/B"), price_row(1, "it's"), price_row(3)._replace(volume=2**64 - 1)]
    alerts = [AlertRow("AAPL", NOON, 3, 0.1), AlertRow("MSFT", NOON, 1, 10.99)]
    moves = [price_move_row(0), price_move_row(1)]
    outbox = Outbox()
    for rows in (prices, alerts, moves):
        outbox.add(rows)
    assert len(outbox) == 7
    outbox.flush(manager.client)
    assert len(outbox) == 0
    assert rows_of(manager, "price_tracking", ", ".join(PriceRow._fields)) == sorted(prices)
    assert rows_of(manager, "news_alert", ", ".join(AlertRow._fields)) == sorted(alerts)
    assert rows_of(manager, "price_move", ", ".join(PriceMoveRow._fields)) == sorted(moves)
    zeros = "minute_30_high, minute_30_low, minute_30_open, minute_30_close, minute_30_volume"
    assert rows_of(manager, "price_move", zeros) == [(0, 0, 0, 0, 0)] * 2


def volumes(manager: ClickHouseManager) -> list[int]:
    """The numbers of the price rows, in the order they were stored in."""
    return [
        n for (n,) in rows_of(manager, "price_tracking", "volume", "_block_number, _part_offset")
    ]


def outbox_of(*batches: list[int]) -> Outbox:
    outbox = Outbox()
    for numbers in batches:
        outbox.add([price_row(number) for number in numbers])
    return outbox


def test_batches_are_stored_in_the_order_they_came(manager: ClickHouseManager) -> None:
    outbox = outbox_of([5, 6], [], [1], [3])
    outbox.flush(manager.client)
    outbox.flush(manager.client)
    assert volumes(manager) == [5, 6, 1, 3]


def test_equal_rows_of_two_batches_are_both_stored(manager: ClickHouseManager) -> None:
    outbox_of([7], [7]).flush(manager.client)
    assert volumes(manager) == [7, 7]


def test_rows_are_stored_when_the_call_returns(
    server: ClickHouseServer, over_http: ClickHouseManager
) -> None:
    outbox_of([1]).flush(over_http.client)
    assert server.statements()[-1].startswith("INSERT")
    assert server.settings()[-1]["async_insert"] == "0"


def test_a_batch_whose_answer_was_lost_is_stored_once(
    server: ClickHouseServer, over_http: ClickHouseManager
) -> None:
    outbox = outbox_of([1], [2])
    server.fault("drop_answer", match="INSERT", times=1)  # clickhouse-connect resends by itself
    outbox.flush(over_http.client)
    assert volumes(over_http) == [1, 2]
    outbox.add([price_row(3)])
    server.fault("drop_answer", match="INSERT", times=4)
    for _ in range(2):
        with pytest.raises(ClickHouseError):
            outbox.flush(over_http.client)
        assert len(outbox) == 1
    outbox.flush(over_http.client)
    assert volumes(over_http) == [1, 2, 3]


@pytest.mark.parametrize(
    "fault",
    [{"kind": "error", "code": 243, "text": "(NOT_ENOUGH_SPACE)"}, {"kind": "refuse"}],
    ids=lambda fault: fault["kind"],
)
def test_what_was_not_stored_waits_in_order_behind_nothing(
    server: ClickHouseServer, over_http: ClickHouseManager, fault: dict[str, Any]
) -> None:
    outbox = outbox_of([8, 9], [7], [6])
    server.fault("slow", match="INSERT", times=1)  # the first batch gets through
    server.fault(**fault, match="INSERT")
    with pytest.raises(ClickHouseError):
        outbox.flush(over_http.client)
    assert (volumes(over_http), len(outbox)) == ([8, 9], 2)
    outbox.add([price_row(4), price_row(5)])
    with pytest.raises(ClickHouseError):
        outbox.flush(over_http.client)
    assert (volumes(over_http), len(outbox)) == ([8, 9], 4)
    server.clear_faults()
    outbox.flush(over_http.client)
    assert (volumes(over_http), len(outbox)) == ([8, 9, 7, 6, 4, 5], 0)


def test_two_flushes_at_a_time_lose_and_double_nothing(
    server: ClickHouseServer, over_http: ClickHouseManager
) -> None:
    outbox = outbox_of([1], [2], [3])
    server.fault("hang", match="INSERT")
    with connected(settings_of(server)) as other:
        flushes = [
            in_background(lambda m=m: outbox.flush(m.client))  # type: ignore[misc]
            for m in (over_http, other)
        ]
        eventually(lambda: server.statements()[-1].startswith("INSERT"))
        outbox.add([price_row(4)])
        time.sleep(0.2)  # for the other flush to reach its insert, if it may
        server.clear_faults()
        for thread, raised in flushes:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
            assert raised == []
    outbox.flush(over_http.client)
    assert volumes(over_http) == [1, 2, 3, 4]
    inserts = [sql for sql in server.statements() if sql.startswith("INSERT INTO `News`")]
    assert len(inserts) <= 4


# The connection


def assert_one_sentence(text: str) -> None:
    assert "\n" not in text
    assert len(text) < 600
    assert PASSWORD not in text


def test_without_a_connection_the_client_says_so(tmp_path: Path) -> None:
    manager = ClickHouseManager(Settings(clickhouse_path=tmp_path / "clickhouse"))
    with pytest.raises(DatabaseError, match="Not connected"):
        manager.client  # noqa: B018
    manager.connect()
    assert manager.client.command("SELECT 1") == 1
    manager.close()
    manager.close()
    with pytest.raises(DatabaseError, match="Not connected"):
        manager.windows()


def test_the_settings_of_the_environment_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICKHOUSE_PATH", "elsewhere")
    assert ClickHouseManager().settings.clickhouse_path == Path("elsewhere")


def test_rows_outlive_the_connection(embedded: ClickHouseManager) -> None:
    add_prices(embedded, "AAPL", 1)
    embedded.connect()
    assert set(embedded.windows()) == {"AAPL"}


def test_a_trigger_is_written_into_the_folder_of_the_settings(tmp_path: Path) -> None:
    folder = tmp_path / "for-triggers"
    manager = ClickHouseManager(Settings(trigger_folder=folder))
    assert manager.create_immediate_trigger("AAPL", NOON).parent == folder
    assert NOON.isoformat() in next(folder.iterdir()).read_text()


TRY_TO_CONNECT = """
manager = ClickHouseManager(Settings(clickhouse_path=Path(sys.argv[1])))
try:
    manager.connect()
except DatabaseError as problem:
    print(problem)
else:
    print("connected")
    manager.close()
"""


def told_by_another_process(path: Path) -> str:
    process = child(TRY_TO_CONNECT, path)
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    return out.strip()


def test_one_process_has_the_embedded_engine_until_its_last_manager_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clickhouse"
    monkeypatch.chdir(tmp_path)
    with connected(Settings(clickhouse_path=Path("clickhouse"))) as first:
        first.connect()  # again: it counts once
        first.create_tables()
        with connected(Settings(clickhouse_path=path)) as second:
            add_prices(first, "AAPL", 1)
            assert set(second.windows()) == {"AAPL"}
            first.close()
            assert set(second.windows()) == {"AAPL"}
            refusal = told_by_another_process(path)
    assert "in use by another newshead" in refusal
    assert str(path) in refusal
    assert "CLICKHOUSE_PATH" in refusal
    assert_one_sentence(refusal)
    assert told_by_another_process(path) == "connected"


@pytest.mark.parametrize("below", ["", "clickhouse/deep"])
def test_a_path_that_cannot_be_written_names_its_variable(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    manager = ClickHouseManager(Settings(clickhouse_path=tmp_path / "file" / below))
    with pytest.raises(ConfigurationError, match="CLICKHOUSE_PATH") as caught:
        manager.connect()
    assert_one_sentence(str(caught.value))
    assert str(tmp_path / "file") in str(caught.value)


@pytest.mark.parametrize("name", [":memory:", "file:x", "a%20b#c&d=e"])
def test_a_path_is_the_name_of_a_folder_whatever_the_engine_calls_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with connected(Settings(clickhouse_path=Path(name))) as manager:
            manager.create_tables()
            add_prices(manager, "AAPL", 1)
    assert (tmp_path / name / "store").is_dir()
    with connected(Settings(clickhouse_path=tmp_path / name)) as manager:
        assert rows_of(manager, "price_tracking", "count()") == [(2,)]


def test_an_engine_that_cannot_open_leaves_the_folder_free(tmp_path: Path) -> None:
    # One process can have one folder open at a time.
    with (
        connected(Settings(clickhouse_path=tmp_path / "one")),
        pytest.raises(DatabaseError, match="cannot be opened") as caught,
    ):
        ClickHouseManager(Settings(clickhouse_path=tmp_path / "two")).connect()
    assert_one_sentence(str(caught.value))
    assert told_by_another_process(tmp_path / "two") == "connected"


def test_a_folder_that_a_newer_engine_wrote_is_refused_and_left_alone(tmp_path: Path) -> None:
    settings = Settings(clickhouse_path=tmp_path / "clickhouse")
    with connected(settings) as manager:
        own = str(manager.client.command("SELECT version()"))
    note = settings.clickhouse_path / ENGINE_NOTE
    assert note.read_text().strip() == own
    for older in ("1.1.1.1", "", "no version"):
        note.write_text(older)
        with connected(settings):
            assert note.read_text().strip() == own
    note.write_text("99.1.2.3")
    with pytest.raises(DatabaseError, match=r"version 99\.1\.2\.3 of the engine") as caught:
        ClickHouseManager(settings).connect()
    assert own in str(caught.value)
    assert_one_sentence(str(caught.value))
    assert note.read_text() == "99.1.2.3"


def test_parts_that_the_engine_put_aside_are_told_once_and_a_users_own_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(clickhouse_path=tmp_path / "clickhouse")
    with connected(settings) as manager:
        manager.create_tables()
        for table in ("news_alert", "price_move"):
            manager.client.command(f"INSERT INTO News.{table} (ticker) VALUES ('AAPL')")
        [(month,)] = rows_of(manager, "price_move", "toYYYYMM(timestamp)")
        manager.client.command(f"ALTER TABLE News.price_move DETACH PARTITION {month}")
    for part in (settings.clickhouse_path / "data/News/news_alert").resolve().glob("2*"):
        (part / "columns.txt").write_text("columns format version: 9\n")
    with connected(settings) as manager:
        manager.create_tables()
        manager.create_tables()
        assert rows_of(manager, "news_alert") == []
    [line] = [line for line in warnings(caplog) if "put them aside" in line]
    assert "News.news_alert" in line
    assert "docs/troubleshooting.md" in line


def refusal_of(settings: Settings) -> str:
    with pytest.raises(DatabaseError, match="cannot be used") as caught:
        ClickHouseManager(settings).connect()
    assert f"{settings.clickhouse_host}:{settings.clickhouse_port}" in str(caught.value)
    assert "CLICKHOUSE_HOST" in str(caught.value)
    assert_one_sentence(str(caught.value))
    return str(caught.value)


def test_a_server_that_is_not_there_is_told_in_one_line(running: ClickHouseServer) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        settings = settings_of(running, clickhouse_port=unused.getsockname()[1])
        assert "Connection refused" in refusal_of(settings)


def test_a_host_without_an_address_is_told_in_one_line(running: ClickHouseServer) -> None:
    for host in ("no-such-host.invalid", "http://localhost", "local host"):
        refusal_of(settings_of(running, clickhouse_host=host))


def test_a_wrong_password_is_told_in_one_line_without_it(running: ClickHouseServer) -> None:
    refusal = refusal_of(settings_of(running, clickhouse_password="wrong-secret"))
    assert "Authentication failed" in refusal
    assert "wrong-secret" not in refusal


def test_an_error_of_many_lines_is_told_in_one(server: ClickHouseServer) -> None:
    server.fault("error", code=999, text="Keeper is away\nStack trace:\n" + "0. main\n" * 500)
    assert "Keeper is away" in refusal_of(settings_of(server))


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY"])
def test_a_server_on_this_machine_is_asked_without_the_environments_proxy(
    server: ClickHouseServer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for host in ("127.0.0.1", "localhost"):
            with connected(settings_of(server, clickhouse_host=host)) as manager:
                assert manager.client.command("SELECT 1") == 1
        proxy.settimeout(0)
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_a_server_elsewhere_is_asked_through_the_environments_proxy(
    running: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(DEADLINE_S)
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        settings = settings_of(running, clickhouse_host="clickhouse.invalid")
        thread, raised = in_background(ClickHouseManager(settings).connect)
        asked, _ = proxy.accept()
        with asked:
            assert asked.recv(4096).startswith(b"POST http://clickhouse.invalid:")
    thread.join(DEADLINE_S)
    assert isinstance(raised[0], DatabaseError)


@pytest.mark.parametrize("version", ["23.6.1.1524", "24.7.5.37"])
def test_a_server_that_is_too_old_is_refused_with_its_version(tmp_path: Path, version: str) -> None:
    with ClickHouseServer(tmp_path / "clickhouse", version=version) as server:
        with pytest.raises(DatabaseError, match=re.escape(version)) as caught:
            ClickHouseManager(settings_of(server, clickhouse_password="")).connect()
        assert "at least 24.8" in str(caught.value)
        assert_one_sentence(str(caught.value))


@pytest.mark.parametrize(("version", "told"), [("24.8.1.2", 1), ("25.7.9.1", 1), ("25.8.1.1", 0)])
def test_a_server_that_newshead_is_not_tested_with_is_warned_about_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, version: str, told: int
) -> None:
    with ClickHouseServer(tmp_path / "clickhouse", version=version) as server:
        for _ in range(2):
            with connected(settings_of(server, clickhouse_password="")):
                pass
    assert len(warnings(caplog)) == told
    assert all(version in warning for warning in warnings(caplog))


@pytest.fixture
def ordinary(over_http: ClickHouseManager) -> ClickHouseManager:
    """A database as very old installations have it."""
    over_http.client.command("DROP DATABASE News SYNC")
    over_http.client.command(
        "CREATE DATABASE News ENGINE = Ordinary",
        settings={"allow_deprecated_database_ordinary": 1},
    )
    return over_http


def test_an_ordinary_database_keeps_its_session_and_the_move_names_the_conversion(
    ordinary: ClickHouseManager,
) -> None:
    ordinary.create_tables()
    before = fill_session(ordinary)
    for work in (ordinary.move_session, lambda: store.replace_ticker_list(ordinary, [])):
        with pytest.raises(CannotMoveError, match="flags/convert_ordinary_to_atomic") as caught:
            work()
        assert "--keep-session" in str(caught.value)
        assert_one_sentence(str(caught.value))
    assert {table: rows_of(ordinary, table) for table in SESSION_TABLES} == before
    assert tables(ordinary) == set(COLUMNS) | HISTORIES


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name.startswith("newshead.database")]


@pytest.mark.parametrize(
    ("ahead_s", "words"),
    [(-60.0, "60.0 s ahead of"), (60.0, "60.0 s behind"), (-4.0, "ahead of"), (0.0, None)],
)
def test_a_clock_that_is_off_by_over_two_seconds_is_warned_about(
    manager: ClickHouseManager,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    ahead_s: float,
    words: str | None,
) -> None:
    # This machine's clock alone is moved; the engine reads the real one.
    moved = SimpleNamespace(now=lambda zone: datetime.now(zone) + timedelta(seconds=ahead_s))
    monkeypatch.setattr(connection, "datetime", moved)
    difference_s = manager.warn_of_clock_difference()
    assert difference_s == pytest.approx(-ahead_s, abs=1.0)
    if words is None:
        assert warnings(caplog) == []
    else:
        [warning] = warnings(caplog)
        assert re.sub(r"\b(59|60)\.\d s", "60.0 s", warning).startswith("The database's clock is")
        assert words in re.sub(r"\b(59|60)\.\d s", "60.0 s", warning)
        assert caplog.records[-1].levelno == logging.WARNING


def test_a_slow_answer_is_no_clock_difference(
    server: ClickHouseServer,
    over_http: ClickHouseManager,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(connection, "MAX_CLOCK_DIFFERENCE_S", 0.2)
    server.fault("slow", match="now64", seconds=1.0)
    over_http.warn_of_clock_difference()
    assert warnings(caplog) == []


# A fresh session


def fill_session(manager: ClickHouseManager) -> dict[str, list[tuple[Any, ...]]]:
    """Puts rows into the session's tables, some of them equal; gives what is there."""
    for ticker in ("AAPL", "AAPL", "MSFT"):
        outbox = Outbox()
        outbox.add([price_row(1, ticker), price_row(2, ticker)])
        outbox.add([AlertRow(ticker, NOON, 1, 2.5)])
        outbox.flush(manager.client)
        add_news(manager, ticker, headline="it's ☃", full_content="x\n\t\\\0")
    return {table: rows_of(manager, table) for table in SESSION_TABLES}


def history(manager: ClickHouseManager) -> dict[str, list[tuple[Any, ...]]]:
    return {table: rows_of(manager, f"{table}_history") for table in SESSION_TABLES}


def shape(manager: ClickHouseManager, table: str) -> tuple[object, ...]:
    sql = "SELECT name, expr, type FROM system.data_skipping_indices WHERE table = {t:String}"
    indexes = manager.client.query(sql, parameters={"t": table}).result_rows
    return columns_of(manager, table), engine_of(manager, table), indexes


def test_a_fresh_session_moves_every_row_into_the_history(manager: ClickHouseManager) -> None:
    before = fill_session(manager)
    shapes = [shape(manager, table) for table in SESSION_TABLES]
    assert manager.move_session() == {"price_tracking": 6, "news_alert": 3, "breaking_news": 3}
    assert history(manager) == before
    assert [rows_of(manager, table) for table in SESSION_TABLES] == [[], [], []]
    assert [shape(manager, table) for table in SESSION_TABLES] == shapes
    assert tables(manager) == set(COLUMNS) | HISTORIES
    for table in SESSION_TABLES:
        assert engine_of(manager, f"{table}_history").startswith("MergeTree ")
        assert ttl(engine_of(manager, f"{table}_history")) is None
        assert [column[:2] for column in columns_of(manager, f"{table}_history")] == [
            column[:2] for column in columns_of(manager, table)
        ]


def hashes_of(manager: ClickHouseManager, table: str = "breaking_news") -> set[str]:
    return {content_hash for (content_hash,) in rows_of(manager, table, "content_hash")}


def test_known_hashes_are_those_of_this_session_of_all_before_it_and_of_a_move_between(
    manager: ClickHouseManager,
) -> None:
    assert queries.recent_hashes(manager) == {}
    assert queries.stored_hashes(manager, ["it's"]) == set()
    add_news(manager, "OLD", detected_s_ago=90_000)
    add_news(manager, "AAPL", detected_s_ago=60)
    [old, *_] = hashes_of(manager) - queries.recent_hashes(manager).keys()
    # The history has other columns than a session of another version.
    manager.client.command("ALTER TABLE News.breaking_news ADD COLUMN more Array(String)")
    manager.move_session()
    manager.client.command("ALTER TABLE News.breaking_news DROP COLUMN more")
    add_news(manager, "MSFT", detected_s_ago=3_600)
    manager.client.command("CREATE TABLE News.breaking_news_moving AS News.breaking_news")
    manager.client.command("EXCHANGE TABLES News.breaking_news AND News.breaking_news_moving")
    add_news(manager, "TSLA")
    tables_in_order = ("breaking_news_moving", "breaking_news_history", "breaking_news")
    everything = [hashes_of(manager, table) for table in tables_in_order]
    assert list(queries.recent_hashes(manager)) == [
        found for hashes in everything for found in hashes if found != old
    ]
    assert max(queries.recent_hashes(manager).values()) == pytest.approx(time.time(), abs=60)
    assert queries.stored_hashes(manager, [old, "it's", ""]) == {old}


def test_listed_tickers_come_with_the_country_of_their_newest_row(
    manager: ClickHouseManager,
) -> None:
    for country in ("Israel", "USA"):
        manager.client.insert(
            "News.float_list",
            [["AAPL", country, NOON + timedelta(days=len(country) == 3)]],
            column_names=["ticker", "country", "last_updated"],
        )
    assert queries.listed_tickers(manager) == {"AAPL": "USA"}


def test_an_empty_session_moves_nothing(manager: ClickHouseManager) -> None:
    assert manager.move_session() == dict.fromkeys(SESSION_TABLES, 0)
    assert tables(manager) == set(COLUMNS) | HISTORIES


def test_each_session_adds_to_the_history_even_with_equal_rows(manager: ClickHouseManager) -> None:
    expected: list[tuple[Any, ...]] = []
    for _ in range(3):
        outbox = Outbox()
        outbox.add([price_row(1), price_row(1), price_row(2)])
        outbox.flush(manager.client)
        expected += rows_of(manager, "price_tracking")
        assert manager.move_session()["price_tracking"] == 3
        assert rows_of(manager, "price_tracking_history") == sorted(expected)


def test_the_new_session_takes_batches_once_too(manager: ClickHouseManager) -> None:
    fill_session(manager)
    manager.move_session()
    batch = Batch([price_row(9)], "of the new session")
    store.insert(manager.client, batch)
    store.insert(manager.client, batch)
    assert volumes(manager) == [9]


def test_an_older_installations_tables_move_too(manager: ClickHouseManager) -> None:
    create_older_tables(manager)
    manager.create_tables()
    before = {table: rows_of(manager, table) for table in SESSION_TABLES}
    shapes = [shape(manager, table) for table in SESSION_TABLES]
    assert manager.move_session() == {"price_tracking": 5, "news_alert": 3, "breaking_news": 4}
    assert history(manager) == before
    assert [rows_of(manager, table) for table in SESSION_TABLES] == [[], [], []]
    assert [shape(manager, table) for table in SESSION_TABLES] == shapes
    for table in SESSION_TABLES:
        assert engine_of(manager, f"{table}_history").startswith("MergeTree ")
        assert ttl(engine_of(manager, f"{table}_history")) is None


def test_a_history_with_other_columns_takes_the_session(manager: ClickHouseManager) -> None:
    """Roll back and forth: sessions of tables with other columns meet in one history."""
    create_older_tables(manager)
    manager.create_tables()
    manager.move_session()
    manager.client.command("DROP TABLE News.price_tracking SYNC")
    manager.create_tables()
    outbox_of([1, 2]).flush(manager.client)
    manager.client.command("ALTER TABLE News.news_alert ADD COLUMN more UInt8 DEFAULT 7")
    store.insert(manager.client, Batch([AlertRow("MSFT", NOON, 1, 2.0)], "t"))
    assert manager.move_session() == {"price_tracking": 2, "news_alert": 1, "breaking_news": 0}
    columns = "venue, volume, recommendation"
    assert rows_of(manager, "price_tracking_history", columns) == [
        ("", 1, "BUY"),
        ("", 2, "BUY"),
        *[("X", 0, "")] * 5,
    ]
    assert rows_of(manager, "news_alert_history", "ticker, more") == [
        *[("AAPL", 0)] * 3,
        ("MSFT", 7),
    ]


def test_a_move_whose_last_answers_are_lost_is_finished_by_the_next(
    server: ClickHouseServer, over_http: ClickHouseManager
) -> None:
    expected = fill_session(over_http)
    for lost in ("INSERT INTO News.price_tracking_history", "DROP TABLE News.news_alert_moving"):
        server.fault("drop_answer", match=lost)
        with pytest.raises(ClickHouseError):
            over_http.move_session()
        server.clear_faults()
    over_http.move_session()
    assert history(over_http) == expected


@pytest.mark.parametrize(
    ("statement", "belongs_to"),
    [
        ("EXCHANGE TABLES News.price_tracking ", "price_tracking_history"),
        ("INSERT INTO News.price_tracking_history ", "price_tracking"),
        ("DROP TABLE News.price_tracking_moving", "price_tracking"),
    ],
)
def test_a_row_written_during_the_move_is_in_one_session(
    server: ClickHouseServer, over_http: ClickHouseManager, statement: str, belongs_to: str
) -> None:
    outbox_of([1]).flush(over_http.client)
    server.fault("hang", match=statement)
    thread, raised = in_background(over_http.move_session)
    eventually(lambda: server.statements()[-1].startswith(statement))
    with connected(settings_of(server)) as writer:
        outbox_of([2]).flush(writer.client)
        server.clear_faults()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
        assert raised == []
        found = {t: rows_of(writer, t, "volume") for t in ("price_tracking_history", belongs_to)}
    assert found == {"price_tracking_history": [(1,)]} | (
        {belongs_to: [(2,)]} if belongs_to == "price_tracking" else {belongs_to: [(1,), (2,)]}
    )


def test_a_row_whose_insert_began_before_the_move_and_ended_in_it_is_moved_too(
    manager: ClickHouseManager,
) -> None:
    outbox_of([1]).flush(manager.client)
    slow = """
        INSERT INTO News.price_tracking (ticker, price, volume)
        SELECT 'SLOW', 1, 2 FROM numbers(1) WHERE sleep(1) = 0"""
    with connected(manager.settings) as writer:
        thread, raised = in_background(lambda: writer.client.command(slow))
        under_way = "SELECT 1 FROM system.processes WHERE query LIKE '%sleep(1)%' AND elapsed < 1"
        eventually(lambda: len(manager.rows(under_way)) == 2)
        manager.move_session()
        thread.join(DEADLINE_S)
    assert raised == []
    assert rows_of(manager, "price_tracking_history", "volume") == [(1,), (2,)]


def test_a_move_interrupted_before_any_change_is_finished_by_the_next(
    server: ClickHouseServer, over_http: ClickHouseManager
) -> None:
    command = over_http.client.command
    for table in SESSION_TABLES:  # few columns, few statements
        command(f"DROP TABLE News.{table} SYNC")
        command(
            f"CREATE TABLE News.{table} (ticker String, timestamp DateTime DEFAULT now(), n UInt8) "
            "ENGINE = MergeTree ORDER BY n"
        )

    def fill() -> dict[str, list[tuple[Any, ...]]]:
        for table in SESSION_TABLES:
            command(f"INSERT INTO News.{table} (ticker, n) VALUES ('A', 1), ('A', 1), ('B', 2)")
        return {table: rows_of(over_http, table) for table in SESSION_TABLES}

    def forget() -> None:
        for table in SESSION_TABLES:
            command(f"DROP TABLE News.{table}_history SYNC")

    # With nothing in it, it begins a session.
    over_http.move_session()
    fill()
    forget()
    begin = len(server.statements())
    over_http.move_session()
    undisturbed = server.statements()[begin:]
    # Interrupted at a question, a move leaves what it leaves at the next change.
    changes = ("INSERT", "CREATE", "ALTER", "EXCHANGE", "DROP")
    steps = [step for step, sql in enumerate(undisturbed) if sql.startswith(changes)]
    assert len(steps) >= 15
    for step in steps:
        forget()
        expected = fill()
        begin = len(server.statements())
        server.fault("slow", times=step)  # these pass
        server.fault("error", code=243, text="(NOT_ENOUGH_SPACE)")
        with pytest.raises(ClickHouseError):
            over_http.move_session()
        server.clear_faults()
        stopped_at = server.statements()[begin:][step]
        assert stopped_at.split("(")[0] == undisturbed[step].split("(")[0]
        over_http.move_session()
        assert history(over_http) == expected, f"before {stopped_at}"
        assert [rows_of(over_http, t) for t in SESSION_TABLES] == [[], [], []], (
            f"before {stopped_at}"
        )
        assert not any("_moving" in table for table in tables(over_http)), f"before {stopped_at}"


def lose(manager: ClickHouseManager, table: str, condition: str) -> int:
    """Takes rows away, as a kill may: the engine knows their blocks' tokens all the same."""
    before = len(rows_of(manager, table))
    manager.client.command(
        f"ALTER TABLE News.{table} DELETE WHERE {condition}", settings={"mutations_sync": 1}
    )
    return before - len(rows_of(manager, table))


def interrupt_a_move(server: ClickHouseServer, manager: ClickHouseManager, before: str) -> None:
    server.fault("error", match=before, code=243, text="(NOT_ENOUGH_SPACE)")
    with pytest.raises(ClickHouseError):
        manager.move_session(keep_news_since=NOON)
    server.clear_faults()


def test_rows_that_the_engine_lost_when_it_was_killed_are_moved_by_the_next(
    server: ClickHouseServer, over_http: ClickHouseManager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    outbox_of([7, 8]).flush(over_http.client)
    over_http.move_session()
    expected = rows_of(over_http, "price_tracking_history")
    fill_session(over_http)
    expected += rows_of(over_http, "price_tracking")
    interrupt_a_move(server, over_http, before="DROP TABLE News.price_tracking_moving")
    # One of each two equal rows, and another.
    assert lose(over_http, "price_tracking_history", "volume < 7 AND _part_offset % 2 = 0") == 3
    for statement in (
        "INSERT INTO News.price_tracking_history",
        "DROP TABLE News.price_tracking_moving",
    ):
        interrupt_a_move(server, over_http, before=statement)
    # So may rows be that such an attempt added.
    assert lose(over_http, "price_tracking_history", "ticker = 'MSFT' AND volume = 1") == 1
    over_http.move_session()
    assert rows_of(over_http, "price_tracking_history") == sorted(expected)
    assert tables(over_http) == set(COLUMNS) | HISTORIES
    assert [message for message in warnings(caplog) if "resumed" in message] == [
        f"Interrupted move resumed: {number} rows added to price_tracking_history."
        for number in (3, 1)
    ]


def test_news_that_the_engine_lost_is_found_on_both_its_ways(
    server: ClickHouseServer, over_http: ClickHouseManager
) -> None:
    for number in range(8):
        add_news(over_http, f"T{number}", detected_s_ago=0 if number < 4 else 7_200)
    expected = rows_of(over_http, "breaking_news", order="ticker")
    interrupt_a_move(server, over_http, before="DROP TABLE News.breaking_news_moving")
    for table in ("breaking_news", "breaking_news_history"):
        assert lose(over_http, table, "_part_offset % 2 = 0") == 2
    over_http.move_session(keep_news_since=NOON)
    assert rows_of(over_http, "breaking_news", order="ticker") == expected[:4]
    assert rows_of(over_http, "breaking_news_history", order="ticker") == expected[4:]


@pytest.mark.parametrize("note", ["String", "Nullable(String)"])
def test_lost_rows_are_found_in_a_history_of_other_types(
    server: ClickHouseServer, over_http: ClickHouseManager, note: str
) -> None:
    create_older_tables(over_http)
    over_http.create_tables()
    over_http.client.command("DROP TABLE News.news_alert_history SYNC")
    over_http.client.command(
        "CREATE TABLE News.news_alert_history (price Float32, ticker LowCardinality(String), "
        f'more Nullable(UInt8), timestamp DateTime64(3), alert String, `a "note` {note}) '
        "ENGINE = MergeTree ORDER BY ticker SETTINGS non_replicated_deduplication_window = 9"
    )
    over_http.client.command(
        "ALTER TABLE News.news_alert UPDATE price = 2.1 WHERE 1", settings={"mutations_sync": 1}
    )
    interrupt_a_move(server, over_http, before="DROP TABLE News.news_alert_moving")
    expected = rows_of(over_http, "news_alert_history")
    interrupt_a_move(server, over_http, before="DROP TABLE News.news_alert_moving")
    assert rows_of(over_http, "news_alert_history") == expected
    assert lose(over_http, "news_alert_history", "1") == 3
    over_http.move_session()
    assert rows_of(over_http, "news_alert_history") == expected


KILLED_ROWS = 200_000
MOVE_IN_SMALL_SLICES = """
from newshead.database import slices
slices.SLICE_ROWS = 4096
manager = ClickHouseManager(Settings(clickhouse_path=Path(sys.argv[1])))
manager.connect()
manager.client.command("SYSTEM STOP MERGES News.breaking_news")  # until this process ends
print(manager.move_session())
manager.close()
"""


MOVE_WITH_LITTLE_MEMORY = """
manager = ClickHouseManager(Settings(clickhouse_path=Path(sys.argv[1])))
manager.connect()
manager.client.set_client_setting("max_memory_usage", 256_000_000)
print(manager.move_session())
manager.close()
"""


def kill_a_move_halfway(path: Path) -> None:
    process = child(MOVE_IN_SMALL_SLICES, path)
    histories = [(path / "data/News" / name).resolve() for name in HISTORIES]
    eventually(lambda: any(any(folder.glob("??????_1_1_0")) for folder in histories))
    process.send_signal(signal.SIGKILL)
    assert process.communicate(timeout=DEADLINE_S)[0] == ""


def move_again(path: Path) -> None:
    process = child(MOVE_IN_SMALL_SLICES, path)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0


def test_a_move_killed_halfway_is_finished_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "clickhouse"
    with connected(Settings(clickhouse_path=path)) as manager:
        manager.create_tables()
        # Every row twice: equal rows are rows too.
        for half in range(2):
            manager.client.command(
                "INSERT INTO News.price_tracking (ticker, timestamp, price, volume) SELECT "
                f"concat('T', toString(volume % 997)), now() - volume % 86400, {half}, "
                f"intDiv(number, 2) AS volume FROM numbers({KILLED_ROWS // 2})"
            )
    kill_a_move_halfway(path)
    with connected(Settings(clickhouse_path=path)) as manager:
        [(copied,)] = rows_of(manager, "price_tracking_history", "count()")
        assert 0 < copied < KILLED_ROWS
        with suppress(ClickHouseError):  # as the engine does by itself, if the move lets it
            manager.client.command("OPTIMIZE TABLE News.price_tracking_moving FINAL")
        outbox_of([KILLED_ROWS]).flush(manager.client)  # a first row of the next session
    move_again(path)
    with connected(Settings(clickhouse_path=path)) as manager:
        counts = "count(), uniqExact(price, volume), sum(volume)"
        half = KILLED_ROWS // 4 * (KILLED_ROWS // 4 - 1)
        assert rows_of(manager, "price_tracking_history", counts) == [
            (KILLED_ROWS + 1, KILLED_ROWS // 2 + 1, 2 * half + KILLED_ROWS)
        ]
        assert rows_of(manager, "price_tracking") == []


def test_rows_of_one_second_keep_their_order_in_the_history(manager: ClickHouseManager) -> None:
    prices = [5.0, 3.0, 4.0, 1.0]
    for price in prices:
        outbox = Outbox()
        outbox.add([price_row(1)._replace(price=price)])
        outbox.flush(manager.client)
    manager.client.command("OPTIMIZE TABLE News.price_tracking FINAL")
    manager.move_session()
    order = "ticker, timestamp, _block_number, _part_offset"
    assert [p for (p,) in rows_of(manager, "price_tracking_history", "price", order)] == prices


OLD = "now() - INTERVAL 40 DAY"


def test_what_a_session_holds_is_moved_whatever_its_age(tmp_path: Path) -> None:
    settings = Settings(clickhouse_path=tmp_path / "clickhouse")
    old = [
        f"INSERT INTO News.{table} (ticker, timestamp) VALUES ('{ticker}', {OLD})"
        for table in ("price_tracking", "news_alert")
        for ticker in ("AAPL", "MSFT")
    ]
    with connected(settings) as manager:
        manager.create_tables()
        for statement in old:
            manager.client.command(statement)
    for _ in range(2):
        with connected(settings) as manager:
            manager.create_tables()
            for table in ("price_tracking", "news_alert"):
                manager.client.command(f"OPTIMIZE TABLE News.{table} FINAL")
                assert rows_of(manager, table, "count()") == [(2,)]
    with connected(settings) as manager:
        manager.create_tables()
        assert manager.move_session() == {"price_tracking": 2, "news_alert": 2, "breaking_news": 0}
        for statement in old:
            manager.client.command(statement)
        for table in ("price_tracking", "news_alert"):
            manager.client.command(f"OPTIMIZE TABLE News.{table} FINAL")
        # The tables of the next session are others.
        assert manager.move_session() == {"price_tracking": 2, "news_alert": 2, "breaking_news": 0}


def test_an_older_installations_tables_expire_no_more_rows(tmp_path: Path) -> None:
    settings = Settings(clickhouse_path=tmp_path / "clickhouse")
    with connected(settings) as manager:
        manager.client.command("CREATE DATABASE News")
        manager.client.command(OLDER_TABLES["price_tracking"])
        manager.create_tables()
        assert KEEP_EXPIRED in engine_of(manager, "price_tracking")


def test_articles_that_take_more_than_the_engine_may_have_are_moved_in_slices(
    tmp_path: Path,
) -> None:
    path = tmp_path / "clickhouse"
    with connected(Settings(clickhouse_path=path)) as manager:
        manager.create_tables()
        # In one part: the engine holds up to 34 MB of each at once, and merges them when it likes.
        manager.client.command(
            "INSERT INTO News.breaking_news (ticker, content_hash, full_content) SELECT "
            "'AAPL', toString(sipHash64(number)), repeat(toString(number), 1600) "
            "FROM numbers(40000)"
        )
    process = child(MOVE_WITH_LITTLE_MEMORY, path)
    assert "'breaking_news': 40000" in process.communicate(timeout=DEADLINE_S)[0]
    with connected(Settings(clickhouse_path=path)) as manager:
        assert rows_of(manager, "breaking_news_history", "count(), uniqExact(content_hash)") == [
            (40_000, 40_000)
        ]


def test_a_move_killed_halfway_loses_no_article_to_a_merge(tmp_path: Path) -> None:
    path, inserts, shared, own = tmp_path / "clickhouse", 12, 2_000, 8_000
    with connected(Settings(clickhouse_path=path)) as manager:
        manager.create_tables()
        manager.client.command("SYSTEM STOP MERGES News.breaking_news")
        # Some articles came with every insert: a merge keeps the newest row of each only.
        for number in range(inserts):
            manager.client.command(
                "INSERT INTO News.breaking_news (ticker, content_hash) SELECT 'AAPL', "
                f"if(number < {shared}, toString(number), concat('{number}-', toString(number))) "
                f"FROM numbers({shared + own})"
            )
    kill_a_move_halfway(path)
    with connected(Settings(clickhouse_path=path)) as manager:
        time.sleep(2)  # for the engine to merge
        assert 0 < rows_of(manager, "breaking_news_history", "count()")[0][0] < inserts * own
    move_again(path)
    with connected(Settings(clickhouse_path=path)) as manager:
        assert rows_of(manager, "breaking_news_history", "uniqExact(content_hash)") == [
            (shared + inserts * own,)
        ]


# Another time zone

ZONED = [
    test_active_tickers_are_those_of_the_news_of_five_minutes,
    test_a_window_begins_with_the_first_row_and_ages_by_the_databases_clock,
    test_a_rating_is_the_newest_analysis_of_the_last_hour,
    test_times_come_back_in_utc,
    test_rows_come_back_as_they_went_in,
    test_a_clock_that_is_off_by_over_two_seconds_is_warned_about,
    test_a_fresh_session_moves_every_row_into_the_history,
]


def test_all_of_it_holds_in_new_york_too() -> None:
    names = [f"{__file__}::{test.__name__}" for test in ZONED]
    rule = ROOT / "tests" / "live" / "test_alert_rule.py"
    names.append(f"{rule}::test_a_row_that_has_its_alert_gives_no_second_one")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *names],
        cwd=ROOT,
        env=os.environ | {"TZ": "America/New_York"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S * 2,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-5000:]
