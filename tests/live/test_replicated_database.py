"""A database of the engine Replicated or Shared, for which a plain one stands in: the session's
move, and a new ticker list."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from clickhouse_server import ClickHouseServer
from monitoring import connected, fresh, rate, rows, tables_on, with_tables

from clickhouse_manager import ClickHouseManager
from newshead.database import history
from newshead.database.connection import DATABASE_ERRORS, CannotMoveError
from newshead.database.queries import listed_tickers
from newshead.database.store import Batch, insert, replace_ticker_list
from newshead.database.tables import NOT_ENDED, SESSION_TABLES, AlertRow, ListedStock, PriceRow
from newshead.settings import Settings

BEGIN = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
CHANGES = ("INSERT", "CREATE", "ALTER", "EXCHANGE", "DROP")
RATING = ("ibkr_last_trade", "positive", "BUY", "high")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    with ClickHouseServer(tmp_path_factory.mktemp("replica"), kind="Replicated") as server:
        yield server


@pytest.fixture
def settings(running: ClickHouseServer) -> Settings:
    return Settings(clickhouse_host=running.host, clickhouse_port=running.port)


@pytest.fixture
def server(running: ClickHouseServer, settings: Settings) -> Iterator[ClickHouseServer]:
    with fresh(running, settings):
        yield running


@pytest.fixture
def database(server: ClickHouseServer) -> Iterator[ClickHouseManager]:
    with tables_on(server) as manager:
        yield manager


def fill_session(database: ClickHouseManager) -> dict[str, Counter[Any]]:
    """A session's rows, some of them equal, and an article whose rating came late; what of each
    table the history is to have."""
    prices = [PriceRow(BEGIN, ticker, 1.0, 100, *RATING) for ticker in ("ONE", "ONE", "TWO")]
    insert(database.client, Batch(prices, "prices"))
    insert(database.client, Batch([AlertRow("TWO", BEGIN, 1, 1.0)], "alert"))
    article = {"content_hash": "hash", "detected_at": BEGIN, "timestamp": BEGIN}
    rate(database, "ONE", "HOLD", **article)
    rate(database, "ONE", "BUY", **article)
    return {
        "price_tracking": Counter({"ONE": 2, "TWO": 1}),
        "news_alert": Counter({"TWO": 1}),
        "breaking_news": Counter({"ONE": 1}),
    }


def in_history(database: ClickHouseManager) -> dict[str, Counter[Any]]:
    return {
        table: Counter(row["ticker"] for row in rows(database, f"{table}_history"))
        for table in SESSION_TABLES
    }


def listed(database: ClickHouseManager) -> list[tuple[Any, ...]]:
    """Windows, alerts and rows of each session, and whether it has ended."""
    found = database.rows(
        "SELECT windows, alerts, rows, end FROM News.sessions FINAL ORDER BY begin"
    )
    return [(*counts, end != NOT_ENDED) for *counts, end in found]


def forget(database: ClickHouseManager) -> None:
    for table in ("sessions", *(f"{table}_history" for table in SESSION_TABLES)):
        database.client.command(f"TRUNCATE TABLE News.{table} SYNC")


def is_cut(statement: str) -> bool:
    """Whether a statement changes something, and in another way than one before it."""
    alike = "News.news_alert" in statement and not statement.startswith("EXCHANGE")
    return statement.startswith(CHANGES) and not alike


def test_a_move_cut_after_each_change_is_finished_by_the_next_start_with_each_row_once(
    server: ClickHouseServer, settings: Settings, database: ClickHouseManager
) -> None:
    expected = fill_session(database)
    begin = len(server.statements())
    database.move_session()
    undisturbed = server.statements()[begin:]
    assert in_history(database) == expected
    for step in [step for step, each in enumerate(undisturbed) if is_cut(each)]:
        forget(database)
        fill_session(database)
        server.fault("slow", times=step)  # these pass
        server.fault("drop_answer")
        with pytest.raises(DATABASE_ERRORS):
            database.move_session()
        server.clear_faults()
        with with_tables(settings) as anew:
            anew.move_session()
        cut = f"cut after {undisturbed[step]}"
        assert in_history(database) == expected, cut
        assert [rows(database, table) for table in SESSION_TABLES] == [[], [], []], cut
        assert listed(database) == [(2, 1, 3, True), (0, 0, 0, False)], cut


@pytest.mark.parametrize("fault", ["error", "drop_answer"])
def test_what_this_replica_lacks_comes_before_a_move_goes_on(
    server: ClickHouseServer, database: ClickHouseManager, fault: str
) -> None:
    # With nothing in it, it begins a session.
    database.move_session()
    expected = fill_session(database)
    server.fault(fault, match="INSERT INTO News.price_tracking_history", code=999)
    with pytest.raises(DATABASE_ERRORS):
        database.move_session()
    server.clear_faults()
    replicated = {*SESSION_TABLES, "sessions", "price_tracking_moving"}
    replicated |= {f"{table}_history" for table in SESSION_TABLES}
    for table in replicated:
        database.client.command(f"ALTER TABLE News.{table} DETACH PARTITION ALL")
    database.move_session()
    for table in replicated - {"price_tracking_moving"}:
        database.client.command(f"SYSTEM SYNC REPLICA News.{table} LIGHTWEIGHT")
    assert in_history(database) == expected
    assert [rows(database, table) for table in SESSION_TABLES] == [[], [], []]
    assert listed(database) == [(2, 1, 3, True), (0, 0, 0, False)]


@pytest.mark.parametrize("what", ["DATABASE REPLICA News", "REPLICA News.price_tracking "])
def test_a_move_waits_where_this_replica_cannot_catch_up(
    server: ClickHouseServer, database: ClickHouseManager, what: str
) -> None:
    expected = fill_session(database)
    session = [rows(database, table) for table in SESSION_TABLES]
    server.fault("error", match=f"SYSTEM SYNC {what}", code=159, text="Too long.")
    begin = len(server.statements())
    for move in (history.require_movable, history.move_session):
        with pytest.raises(CannotMoveError, match=r"cannot catch up: .+Too long.+--keep-session"):
            move(database)
    assert not any(each.startswith(CHANGES) for each in server.statements()[begin:])
    assert [rows(database, table) for table in SESSION_TABLES] == session
    server.clear_faults()
    database.move_session()
    assert in_history(database) == expected


def test_a_new_ticker_list_is_a_replicated_table_and_waits_for_no_dead_replica(
    server: ClickHouseServer, settings: Settings, database: ClickHouseManager
) -> None:
    begin = len(server.statements())
    with connected(settings) as other:
        replace_ticker_list(other, [ListedStock("ONE", "", "", "", "Israel", 0.0, 0.0, 1.0, 0)])
    assert listed_tickers(database) == {"ONE": "Israel"}
    told = zip(server.statements()[begin:], server.settings()[begin:], strict=True)
    changes = [(sql, given) for sql, given in told if sql.startswith(CHANGES[1:])]
    assert {given.get("distributed_ddl_output_mode") for _, given in changes} == {
        "none_only_active"
    }
    [made] = [sql for sql, _ in changes if sql.startswith("CREATE")]
    assert "ENGINE = ReplicatedReplacingMergeTree(last_updated)" in made


def test_in_a_shared_database_answers_have_all_that_was_stored_and_news_moves_once(
    tmp_path: Path,
) -> None:
    with (
        ClickHouseServer(tmp_path / "shared", kind="Shared") as server,
        tables_on(server) as database,
    ):
        expected = fill_session(database)
        database.move_session()
        assert in_history(database) == expected
        asked = zip(server.statements(), server.settings(), strict=True)
        assert {
            given.get("select_sequential_consistency")
            for statement, given in asked
            if statement.lstrip().startswith("SELECT") and "FROM News." in statement
        } == {"1"}
