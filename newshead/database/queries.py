"""The tables in ClickHouse and the text of every statement that newshead makes.

Values are bound, `{name:Type}`; `clickhouse_manager.py` binds them and says what comes back.
"""

from typing import Final

# What a table of ours keeps of one session, in `<table>_history` afterwards.
SESSION_TABLES: Final = ("price_tracking", "news_alert", "breaking_news")
# What a new ticker list is written to before it takes the place of `float_list`.
FRESH_TICKER_LIST: Final = "float_list_fresh"

DEDUPLICATION_WINDOW: Final = 1000
# Without this setting a plain MergeTree ignores insert_deduplication_token, and
# a batch that clickhouse-connect resends by itself would be stored twice.
DEDUPLICATION: Final = f"non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}"

SCHEMA: Final = {
    "price_tracking": f"""
        CREATE TABLE IF NOT EXISTS News.price_tracking (
            timestamp DateTime DEFAULT now(),
            ticker String,
            price Float64,
            volume UInt64,
            source String DEFAULT 'ibkr',
            sentiment String DEFAULT 'neutral',
            recommendation String DEFAULT 'HOLD',
            confidence String DEFAULT 'low'
        ) ENGINE = MergeTree
        ORDER BY (ticker, timestamp)
        PARTITION BY toYYYYMM(timestamp)
        TTL timestamp + INTERVAL 7 DAY
        SETTINGS {DEDUPLICATION}""",
    "news_alert": f"""
        CREATE TABLE IF NOT EXISTS News.news_alert (
            ticker String,
            timestamp DateTime DEFAULT now(),
            alert UInt8 DEFAULT 1,
            price Float64
        ) ENGINE = MergeTree
        ORDER BY (ticker, timestamp)
        PARTITION BY toYYYYMM(timestamp)
        TTL timestamp + INTERVAL 30 DAY
        SETTINGS {DEDUPLICATION}""",
    "breaking_news": f"""
        CREATE TABLE IF NOT EXISTS News.breaking_news (
            id UUID DEFAULT generateUUIDv4(),
            timestamp DateTime64(3) DEFAULT now64(),
            source String,
            ticker String,
            headline String,
            published_utc String,
            article_url String,
            summary String,
            full_content String,
            detected_at DateTime64(3) DEFAULT now64(),
            processing_latency_ms UInt32,
            market_relevant UInt8 DEFAULT 0,
            source_check_time DateTime64(3),
            content_hash String,
            news_type String DEFAULT 'other',
            urgency_score UInt8 DEFAULT 0,
            sentiment String DEFAULT 'neutral',
            recommendation String DEFAULT 'HOLD',
            confidence String DEFAULT 'low',
            explanation String DEFAULT '',
            analysis_time_ms UInt32 DEFAULT 0,
            analyzed_at DateTime64(3) DEFAULT now64(),
            INDEX ticker_index ticker TYPE bloom_filter GRANULARITY 1,
            INDEX content_hash_index content_hash TYPE bloom_filter GRANULARITY 1,
            INDEX timestamp_index timestamp TYPE minmax GRANULARITY 1
        ) ENGINE = ReplacingMergeTree(detected_at)
        PARTITION BY toYYYYMM(timestamp)
        ORDER BY (content_hash, article_url)
        SETTINGS {DEDUPLICATION}""",
    "price_move": f"""
        CREATE TABLE IF NOT EXISTS News.price_move (
            id UUID DEFAULT generateUUIDv4(),
            timestamp DateTime64(3) DEFAULT now64(),
            ticker String,
            news_headline String,
            news_published_utc DateTime64(3),
            news_article_url String,
            current_price Float64,
            current_price_timestamp DateTime64(3),
            minute_30_high Float64,
            minute_30_low Float64,
            minute_30_open Float64,
            minute_30_close Float64,
            minute_30_volume UInt64,
            minute_30_timestamp DateTime64(3),
            price_move_percentage Float64,
            price_above_30min_high UInt8 DEFAULT 1,
            price_check_latency_ms UInt32,
            news_to_price_check_delay_ms UInt32
        ) ENGINE = MergeTree
        PARTITION BY toYYYYMM(timestamp)
        ORDER BY (timestamp, ticker)
        SETTINGS {DEDUPLICATION}""",
    "monitor_status": f"""
        CREATE TABLE IF NOT EXISTS News.monitor_status (
            timestamp DateTime64(3),
            state String,
            state_since DateTime64(3),
            mode String,
            delayed UInt8,
            account String,
            active_tickers UInt32,
            cycles UInt64,
            ticks UInt64,
            rows UInt64,
            last_cycle_ms Float64,
            kept_rows UInt32,
            reconnects UInt32,
            clock_difference_s Float64,
            last_error String
        ) ENGINE = MergeTree
        ORDER BY timestamp
        TTL toDateTime(timestamp) + INTERVAL 7 DAY
        SETTINGS {DEDUPLICATION}""",
    "float_list": """
        CREATE TABLE IF NOT EXISTS News.float_list (
            ticker String,
            company_name String,
            sector String,
            industry String,
            country String,
            market_cap Float64,
            float_shares Float64,
            price Float64,
            volume UInt64,
            last_updated DateTime64(3) DEFAULT now64()
        ) ENGINE = ReplacingMergeTree(last_updated)
        ORDER BY ticker""",
    "float_list_detailed_dedup": """
        CREATE TABLE IF NOT EXISTS News.float_list_detailed_dedup (
            ticker String,
            scraped_at DateTime64(3) DEFAULT now64(),
            strength_score Nullable(Float64)
        ) ENGINE = MergeTree
        ORDER BY ticker""",
}
# The tables that newshead's own batches go into, which need the setting also
# where an earlier installation created them.
DEDUPLICATED_TABLES: Final = (
    "price_tracking",
    "news_alert",
    "breaking_news",
    "price_move",
    "monitor_status",
)

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

# Windows that are over and ratings, in one answer. A rating's sentiment is never empty.
STANDING: Final = """
    SELECT ticker, min(timestamp) AS first_row, ('', '', '')
    FROM News.price_tracking
    WHERE ticker IN {tickers:Array(String)}
    GROUP BY ticker
    HAVING dateDiff('second', first_row, now()) > {window_s:UInt32}
    UNION ALL
    SELECT ticker, toDateTime(0), argMax((sentiment, recommendation, confidence), analyzed_at)
    FROM News.breaking_news
    WHERE ticker IN {tickers:Array(String)}
        AND analyzed_at >= now64(3) - INTERVAL 1 HOUR
        AND sentiment != '' AND recommendation != ''
    GROUP BY ticker"""

# The tickers that the alert rule can hold for at all: all others are spared its cost,
# which is three times this one's. It asks for one percent less, lest a rounding decide.
MOVED: Final = """
    SELECT ticker
    FROM News.price_tracking
    WHERE ticker IN {tickers:Array(String)}
    GROUP BY ticker
    HAVING count() >= 3 AND NOT max(price) < (1 + ({change_pct:Float64} - 1) / 100) * arrayMin(
        arraySlice(
            arraySort(groupArray((timestamp, _block_number, _part_offset, price))).4, 2, 2))"""

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
        WHERE ticker IN {{tickers:Array(String)}}
        GROUP BY ticker
    ) AS alerts USING ticker
    LEFT JOIN (
        SELECT ticker, argMax(tuple(strength_score), scraped_at).1 AS score
        FROM News.float_list_detailed_dedup
        WHERE ticker IN {{tickers:Array(String)}}
        GROUP BY ticker
    ) AS scores USING ticker
    WHERE ticker IN {{tickers:Array(String)}}
    GROUP BY ticker"""  # noqa: S608

NEWEST_NEWS: Final = """
    SELECT headline, article_url, published_utc
    FROM News.breaking_news
    WHERE ticker = {ticker:String}
    ORDER BY detected_at DESC
    LIMIT 1"""

# Texts below that are put together from parts hold constants of this module and
# names of columns and tables only (S608); values are always bound.

# Of this session, of those before it and of a move between them that goes on.
_ALL_NEWS: Final = "merge('News', '^breaking_news(_history|_moving)?$')"

RECENT_HASHES: Final = f"""
    SELECT content_hash, toUnixTimestamp(max(detected_at)) AS newest
    FROM {_ALL_NEWS}
    WHERE detected_at >= now64(3) - INTERVAL 1 DAY AND content_hash != ''
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

TABLES: Final = """
    SELECT name, engine_full, comment
    FROM system.tables
    WHERE database = 'News'"""

MOVING_TABLE: Final = """
    SELECT toString(uuid), comment, engine LIKE 'Replacing%', engine_full LIKE '% TTL %'
    FROM system.tables
    WHERE database = 'News' AND name = {table:String}"""

COLUMNS: Final = """
    SELECT name, type FROM system.columns
    WHERE database = 'News' AND table = {table:String}
        AND default_kind NOT IN ('ALIAS', 'MATERIALIZED', 'EPHEMERAL')
    ORDER BY position"""

# The rows, by their hash, that %(expected)s has more often than %(destination)s: equal rows
# are rows too, and texts need not be held in memory.
LACKING: Final = """
    SELECT row_hash, sum(copies) AS lacking
    FROM (
        SELECT sipHash128(tuple(%(names)s)) AS row_hash, 1 AS copies
        FROM News.%(expected)s
        UNION ALL
        SELECT sipHash128(tuple(%(names)s)), -1
        FROM News.%(destination)s
        WHERE timestamp >= (SELECT minOrNull(timestamp) FROM News.%(expected)s)
    )
    GROUP BY row_hash
    HAVING lacking > 0"""

LACKING_ROWS: Final = f"""
    SELECT %(names)s
    FROM (
        SELECT %(names)s, lacking, row_number() OVER (PARTITION BY row_hash) AS row_copy
        FROM (
            SELECT %(names)s, sipHash128(tuple(%(names)s)) AS row_hash FROM News.%(expected)s
        ) AS hashed
        INNER JOIN ({LACKING}) AS short USING row_hash
    )
    WHERE row_copy <= lacking"""  # noqa: S608
