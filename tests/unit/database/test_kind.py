"""The tables' statements for each kind of database."""

import pytest

from newshead.database.kind import Kind, is_another
from newshead.database.tables import BREAKING_NEWS, PRICE_TRACKING, TABLES, history_of

WEEK = "replicated_deduplication_window = 302400, replicated_deduplication_window_seconds = 604800"
PLAIN = "non_replicated_deduplication_window = 1000"


@pytest.mark.parametrize(
    ("kind", "engine", "newest_only", "window"),
    [
        (Kind.ATOMIC, "MergeTree", "ReplacingMergeTree", PLAIN),
        (Kind.REPLICATED, "ReplicatedMergeTree", "ReplicatedReplacingMergeTree", WEEK),
        # ClickHouse Cloud puts its own engines in place of these.
        (Kind.SHARED, "MergeTree", "ReplacingMergeTree", WEEK),
    ],
)
def test_engine_and_deduplication_of_each_table_are_those_of_the_databases_kind(
    kind: Kind, engine: str, newest_only: str, window: str
) -> None:
    assert PRICE_TRACKING.ddl(kind).partition("ENGINE = ")[2] == (
        f"{engine} PARTITION BY toYYYYMM(timestamp) ORDER BY (ticker, timestamp) "
        "TTL timestamp + INTERVAL 7 DAY "
        f"SETTINGS {window}, max_number_of_merges_with_ttl_in_pool = 0"
    )
    assert BREAKING_NEWS.storage(kind).startswith(f"ENGINE = {newest_only}(detected_at) PARTITION")
    for table in TABLES:
        for each in (table, history_of("news_alert", table.columns)):
            assert (window in each.ddl(kind)) == each.deduplicated
            assert each.storage(kind).startswith(("ENGINE = " + engine, "ENGINE = " + newest_only))


@pytest.mark.parametrize(
    ("word", "kind", "replicated"),
    [
        ("Atomic", Kind.ATOMIC, False),
        ("Ordinary", Kind.ATOMIC, False),
        ("", Kind.ATOMIC, False),
        ("Replicated", Kind.REPLICATED, True),
        ("Shared", Kind.SHARED, True),
    ],
)
def test_the_databases_engine_tells_its_kind(word: str, kind: Kind, replicated: bool) -> None:
    assert (Kind.of(word), Kind.of(word).replicated) == (kind, replicated)


def test_servers_that_were_never_given_an_id_are_not_told_apart() -> None:
    zero, one, two = ("00000000-0000-0000-0000-000000000000", "a0-1", "a0-2")
    assert is_another(one, two)
    assert not any(is_another(*pair) for pair in ((one, one), (zero, one), (one, zero)))
