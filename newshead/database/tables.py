"""The tables in ClickHouse, each described once: its statement and its inserts come from that.

A row class names those columns of its table that newshead writes.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Final, NamedTuple

from newshead.database.table import Column, Table

# What a table of ours keeps of one session, in `<table>_history` afterwards.
# How the explanation of a row of `breaking_news` that was not rated begins.
NOT_RATED: Final = "Not rated: "
SESSION_TABLES: Final = ("price_tracking", "news_alert", "breaking_news")
# The columns by which a history is searched besides its order, with the types of their indexes.
HISTORY_INDEXES: Final = {
    "price_tracking": (("ticker", "bloom_filter"),),
    "news_alert": (("ticker", "bloom_filter"),),
    "breaking_news": (
        ("ticker", "bloom_filter"),
        ("content_hash", "bloom_filter"),
        ("detected_at", "minmax"),
    ),
}
# What a new ticker list is written to before it takes the place of `float_list`.
FRESH_TICKER_LIST: Final = "float_list_fresh"

# `monitor_status.state` while data flows: the value of newshead.tws.link's READY.
READY: Final = "ready"


def history_of(table: str, columns: Sequence[Column]) -> Table:
    """Return the table that keeps a session's rows: a day of all tickers lies together."""
    names = {column.name for column in columns}
    return Table(
        f"{table}_history",
        tuple(columns),
        order="(toDate(timestamp, 'UTC'), ticker, timestamp)",
        partition="toYYYYMM(timestamp)",
        indexes=tuple(index for index in HISTORY_INDEXES[table] if index[0] in names),
        # A ticker has few rows a day: no more than these are read for them.
        granularity=512,
    )


PRICE_TRACKING: Final = Table(
    "price_tracking",
    (
        Column("timestamp", "DateTime", "now()"),
        Column("ticker", "String"),
        Column("price", "Float64"),
        Column("volume", "UInt64"),
        Column("source", "String", "'ibkr'"),
        Column("sentiment", "String", "'neutral'"),
        Column("recommendation", "String", "'HOLD'"),
        Column("confidence", "String", "'low'"),
    ),
    order="(ticker, timestamp)",
    partition="toYYYYMM(timestamp)",
    ttl="timestamp + INTERVAL 7 DAY",
    session=True,
)

NEWS_ALERT: Final = Table(
    "news_alert",
    (
        Column("ticker", "String"),
        Column("timestamp", "DateTime", "now()"),
        Column("alert", "UInt8", "1"),
        Column("price", "Float64"),
    ),
    order="(ticker, timestamp)",
    partition="toYYYYMM(timestamp)",
    ttl="timestamp + INTERVAL 30 DAY",
    session=True,
)

BREAKING_NEWS: Final = Table(
    "breaking_news",
    (
        Column("id", "UUID", "generateUUIDv4()"),
        Column("timestamp", "DateTime64(3)", "now64()"),
        Column("source", "String"),
        Column("ticker", "String"),
        Column("headline", "String"),
        Column("published_utc", "String"),
        Column("article_url", "String"),
        Column("summary", "String"),
        Column("full_content", "String"),
        Column("detected_at", "DateTime64(3)", "now64()"),
        Column("processing_latency_ms", "UInt32"),
        Column("market_relevant", "UInt8", "0"),
        Column("source_check_time", "DateTime64(3)"),
        Column("content_hash", "String"),
        Column("news_type", "String", "'other'"),
        Column("urgency_score", "UInt8", "0"),
        Column("sentiment", "String", "'neutral'"),
        Column("recommendation", "String", "'HOLD'"),
        Column("confidence", "String", "'low'"),
        Column("explanation", "String", "''"),
        Column("analysis_time_ms", "UInt32", "0"),
        Column("analyzed_at", "DateTime64(3)", "now64()"),
    ),
    order="(content_hash, article_url)",
    engine="ReplacingMergeTree(detected_at)",
    partition="toYYYYMM(timestamp)",
    indexes=(("ticker", "bloom_filter"), ("content_hash", "bloom_filter"), ("timestamp", "minmax")),
    session=True,
)

PRICE_MOVE: Final = Table(
    "price_move",
    (
        Column("id", "UUID", "generateUUIDv4()"),
        Column("timestamp", "DateTime64(3)", "now64()"),
        Column("ticker", "String"),
        Column("news_headline", "String"),
        Column("news_published_utc", "DateTime64(3)"),
        Column("news_article_url", "String"),
        Column("current_price", "Float64"),
        Column("current_price_timestamp", "DateTime64(3)"),
        Column("minute_30_high", "Float64"),
        Column("minute_30_low", "Float64"),
        Column("minute_30_open", "Float64"),
        Column("minute_30_close", "Float64"),
        Column("minute_30_volume", "UInt64"),
        Column("minute_30_timestamp", "DateTime64(3)"),
        Column("price_move_percentage", "Float64"),
        Column("price_above_30min_high", "UInt8", "1"),
        Column("price_check_latency_ms", "UInt32"),
        Column("news_to_price_check_delay_ms", "UInt32"),
    ),
    order="(timestamp, ticker)",
    partition="toYYYYMM(timestamp)",
)

MONITOR_STATUS: Final = Table(
    "monitor_status",
    (
        Column("timestamp", "DateTime64(3)"),
        Column("state", "String"),
        Column("state_since", "DateTime64(3)"),
        Column("mode", "String"),
        Column("delayed", "UInt8"),
        Column("account", "String"),
        Column("active_tickers", "UInt32"),
        Column("cycles", "UInt64"),
        Column("ticks", "UInt64"),
        Column("rows", "UInt64"),
        Column("last_cycle_ms", "Float64"),
        Column("kept_rows", "UInt32"),
        Column("reconnects", "UInt32"),
        Column("clock_difference_s", "Float64"),
        Column("last_error", "String"),
    ),
    order="timestamp",
    ttl="toDateTime(timestamp) + INTERVAL 7 DAY",
)

PART_STATUS: Final = Table(
    "part_status",
    (
        Column("timestamp", "DateTime64(3)"),
        Column("instance", "String"),
        Column("host", "String"),
        Column("folder", "String"),
        Column("part", "String"),
        Column("state", "Enum8('ok'=1,'degraded'=2,'lost'=3,'refused'=4,'off'=5)"),
        Column("since", "DateTime64(3)"),
        Column("reason", "String"),
        Column("last_success", "Nullable(DateTime64(3))"),
        Column("counts", "Map(String, UInt64)"),
    ),
    order="(part, timestamp)",
    ttl="toDateTime(timestamp) + INTERVAL 7 DAY",
)

TICKER_STATUS: Final = Table(
    "ticker_status",
    (
        Column("ticker", "String"),
        Column("timestamp", "DateTime64(3)"),
        Column("halted", "UInt8"),
        Column("data_type", "UInt8"),
        Column("refused", "String"),
        Column("previous_close", "Float64"),
        Column("day_volume", "UInt64"),
    ),
    order="ticker",
    engine="ReplacingMergeTree(timestamp)",
)

FLOAT_LIST: Final = Table(
    "float_list",
    (
        Column("ticker", "String"),
        Column("company_name", "String"),
        Column("sector", "String"),
        Column("industry", "String"),
        Column("country", "String"),
        Column("market_cap", "Float64"),
        Column("float_shares", "Float64"),
        Column("price", "Float64"),
        Column("volume", "UInt64"),
        Column("last_updated", "DateTime64(3)", "now64()"),
    ),
    order="ticker",
    engine="ReplacingMergeTree(last_updated)",
    deduplicated=False,
)

FLOAT_LIST_DETAILED_DEDUP: Final = Table(
    "float_list_detailed_dedup",
    (
        Column("ticker", "String"),
        Column("scraped_at", "DateTime64(3)", "now64()"),
        Column("strength_score", "Nullable(Float64)"),
    ),
    order="ticker",
    deduplicated=False,
)

SESSIONS: Final = Table(
    "sessions",
    (
        Column("id", "String"),
        Column("begin", "DateTime64(3)"),
        Column("end", "DateTime64(3)"),
        Column("windows", "UInt32"),
        Column("alerts", "UInt32"),
        Column("rows", "UInt64"),
        Column("days", "Array(Tuple(Date, UInt32, UInt32))"),
    ),
    order="id",
    engine="ReplacingMergeTree(end)",
)

# What IBKR says afterwards of a window; `first_row`, the time of the ticker's first price row, and
# the ticker name the window, in whichever session it was.
FOLLOW_UP: Final = Table(
    "follow_up",
    (
        Column("ticker", "String"),
        Column("first_row", "DateTime"),
        Column("bar_time", "DateTime"),
        Column("bar_s", "UInt16"),
        Column("open", "Float64"),
        Column("high", "Float64"),
        Column("low", "Float64"),
        Column("close", "Float64"),
        Column("volume", "UInt64"),
    ),
    order="(ticker, first_row, bar_s, bar_time)",
    engine="ReplacingMergeTree",
    partition="toYYYYMM(first_row)",
)

OWNER: Final = Table(
    "owner",
    (
        Column("id", "String"),
        Column("host", "String"),
        Column("folder", "String"),
        Column("timestamp", "DateTime64(3)"),
        Column("ended", "UInt8"),
    ),
    order="timestamp",
    ttl="toDateTime(timestamp) + INTERVAL 1 DAY",
    deduplicated=False,
)

TABLES: Final = (
    PRICE_TRACKING,
    NEWS_ALERT,
    BREAKING_NEWS,
    PRICE_MOVE,
    MONITOR_STATUS,
    PART_STATUS,
    TICKER_STATUS,
    OWNER,
    FLOAT_LIST,
    FLOAT_LIST_DETAILED_DEDUP,
    SESSIONS,
    FOLLOW_UP,
)


DESCRIBED: Final = {table.name: table for table in TABLES}


class PriceRow(NamedTuple):
    """A row of `price_tracking`: the newest trade of one ticker in one 2-second slot."""

    timestamp: datetime
    ticker: str
    price: float
    volume: int
    source: str
    sentiment: str
    recommendation: str
    confidence: str


class AlertRow(NamedTuple):
    """A row of `news_alert`; `alert` is the priority, 1 (strong) to 3 (no score)."""

    ticker: str
    timestamp: datetime
    alert: int
    price: float


class PriceMoveRow(NamedTuple):
    """A row of `price_move`; the 30-minute columns, always zero, are left to their defaults."""

    ticker: str
    news_headline: str
    news_published_utc: datetime
    news_article_url: str
    current_price: float
    current_price_timestamp: datetime
    price_move_percentage: float
    price_check_latency_ms: int
    news_to_price_check_delay_ms: int


class NewsRow(NamedTuple):
    """A row of `breaking_news`: one article about one ticker."""

    timestamp: datetime
    source: str
    ticker: str
    headline: str
    published_utc: str
    article_url: str
    summary: str
    full_content: str
    detected_at: datetime
    processing_latency_ms: int
    market_relevant: int
    source_check_time: datetime
    content_hash: str
    news_type: str
    urgency_score: int
    sentiment: str
    recommendation: str
    confidence: str
    explanation: str
    analysis_time_ms: int
    analyzed_at: datetime


class ListedStock(NamedTuple):
    """A row of `float_list`: a stock of the ticker list, 0 or empty where something is unknown.

    `market_cap` and `price` are USD, `float_shares` and `volume` shares.
    """

    ticker: str
    company_name: str
    sector: str
    industry: str
    country: str
    market_cap: float
    float_shares: float
    price: float
    volume: int


class StatusRow(NamedTuple):
    """A row of `monitor_status`: how the price monitor fares at `timestamp`.

    `state` is a ConnectionState's value, held since `state_since`; `mode` is
    PAPER or LIVE as it was last known, else UNKNOWN; `delayed` says that data
    15 minutes late is asked for; `account` is masked. `cycles`, `ticks`, `rows`
    and `reconnects` count from the monitor's start; `kept_rows` wait because
    ClickHouse fails.
    `clock_difference_s` is by how much the database's clock is ahead of the
    monitor's.
    """

    timestamp: datetime
    state: str
    state_since: datetime
    mode: str
    delayed: bool
    account: str
    active_tickers: int
    cycles: int
    ticks: int
    rows: int
    last_cycle_ms: float
    kept_rows: int
    reconnects: int
    clock_difference_s: float
    last_error: str

    @property
    def ready(self) -> bool:
        """Whether IBKR takes requests and data flows, as far as TWS says."""
        return self.state == READY


class PartStatusRow(NamedTuple):
    """A row of `part_status`: how one part of newshead fares at `timestamp`, and since when.

    `instance` names the process that tells of it, with its host and folder; `state` is one of the
    column's words; `last_success` is when the part last did what it is for.
    """

    timestamp: datetime
    instance: str
    host: str
    folder: str
    part: str
    state: str
    since: datetime
    reason: str
    last_success: datetime | None
    counts: dict[str, int]


class TickerStatusRow(NamedTuple):
    """A row of `ticker_status`: what TWS says of a ticker besides its trades.

    `halted` is 0 while it trades, 1 when news is pending, 2 in a volatility pause; `data_type` is
    IBKR's market data type (1 is live); `refused` says why it gets no data, `previous_close` is
    USD and `day_volume` shares, 0 where unknown.
    """

    ticker: str
    timestamp: datetime
    halted: int
    data_type: int
    refused: str
    previous_close: float
    day_volume: int


class SessionRow(NamedTuple):
    """A row of `sessions`: a session, from its begin to its end by newshead's clock.

    `id` is the begin that was known first, in UTC; `end` is NOT_ENDED while it goes on. `windows`
    are the tickers that had prices. `days` has of each New York day of the session its windows
    and alerts: the sum of the days' windows may be higher.
    """

    id: str
    begin: datetime
    end: datetime
    windows: int
    alerts: int
    rows: int
    days: Sequence[tuple[date, int, int]]


class FollowUpRow(NamedTuple):
    """A row of `follow_up`: a bar of `bar_s` seconds from `bar_time` on, after a window began.

    `ticker` and `first_row` name the window, as its first price row has them. Prices are USD,
    `volume` shares. There are bars of 5 s for the window's first 2 minutes, and bars of 60 s for
    all 30; a bar may begin before `first_row`.
    """

    ticker: str
    first_row: datetime
    bar_time: datetime
    bar_s: int
    open: float
    high: float
    low: float
    close: float
    volume: int


NOT_ENDED: Final = datetime.fromtimestamp(0, UTC)

Row = (
    PriceRow
    | AlertRow
    | PriceMoveRow
    | NewsRow
    | ListedStock
    | StatusRow
    | PartStatusRow
    | TickerStatusRow
    | SessionRow
    | FollowUpRow
)


def _insert_of(row_class: type[Row], table: Table) -> tuple[str, list[str]]:
    types = {column.name: column.type for column in table.columns}
    return table.name, [types[name] for name in row_class._fields]


# Per row class, the table that its rows go to and the types of its fields. The types go with
# every insert: without them clickhouse-connect asks the server for them each time.
INSERTS: Final[dict[type[Row], tuple[str, list[str]]]] = {
    row_class: _insert_of(row_class, table)
    for row_class, table in (
        (PriceRow, PRICE_TRACKING),
        (AlertRow, NEWS_ALERT),
        (PriceMoveRow, PRICE_MOVE),
        (NewsRow, BREAKING_NEWS),
        (ListedStock, FLOAT_LIST._replace(name=FRESH_TICKER_LIST)),
        (StatusRow, MONITOR_STATUS),
        (PartStatusRow, PART_STATUS),
        (TickerStatusRow, TICKER_STATUS),
        (SessionRow, SESSIONS),
        (FollowUpRow, FOLLOW_UP),
    )
}
