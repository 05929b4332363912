"""The history: sessions listed, histories of earlier versions brought into monthly parts."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from monitoring import connected, with_tables

from clickhouse_manager import ClickHouseManager
from dashboard import earlier
from newshead.database import past, queries, slices
from newshead.database.layout import bring_over
from newshead.database.tables import NOT_ENDED, SESSION_TABLES, SessionRow
from newshead.settings import Settings

OLD_ROWS = 600
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(clickhouse_path=tmp_path / "clickhouse")


@pytest.fixture
def database(settings: Settings) -> Iterator[ClickHouseManager]:
    with with_tables(settings) as manager:
        yield manager


def add_session(database: ClickHouseManager, *tickers: str) -> None:
    for ticker in tickers:
        for table in ("price_tracking", "news_alert"):
            database.client.command(
                f"INSERT INTO News.{table} (ticker, price) SELECT {{ticker:String}}, 1 + number "
                "FROM numbers(3)",
                parameters={"ticker": ticker},
            )


def sessions(database: ClickHouseManager) -> list[SessionRow]:
    fields = ", ".join(SessionRow._fields)
    rows = database.rows(f"SELECT {fields} FROM News.sessions FINAL ORDER BY begin")
    return [SessionRow(*row) for row in rows]


def count(database: ClickHouseManager, table: str) -> int:
    [(rows,)] = database.rows(f"SELECT count() FROM News.{table}")
    return int(rows)


def test_a_session_is_listed_from_its_begin_with_what_it_held_at_its_end(
    database: ClickHouseManager,
) -> None:
    database.move_session()
    [first] = sessions(database)
    assert (first.end, first.rows, first.days) == (NOT_ENDED, 0, [])
    assert abs(datetime.now(UTC) - first.begin) < timedelta(minutes=5)
    database.move_session()
    assert sessions(database) == [first], "a session that held nothing was ended"
    add_session(database, "AAPL", "MSFT")
    database.move_session()
    ended, begun = sessions(database)
    assert (ended.id, ended.windows, ended.alerts, ended.rows) == (first.id, 2, 6, 6)
    assert [day[1:] for day in ended.days] == [(2, 6)]
    assert (begun.begin, begun.end) == (ended.end, NOT_ENDED)
    [(enclosed,)] = database.rows(
        "SELECT count() FROM News.price_tracking_history, News.sessions FINAL "
        f"WHERE id = '{ended.id}' AND timestamp >= toDateTime(begin) AND timestamp <= end"
    )
    assert enclosed == 6


def test_a_session_from_before_sessions_were_listed_begins_with_its_first_row(
    database: ClickHouseManager,
) -> None:
    add_session(database, "AAPL")
    [(first,)] = database.rows("SELECT min(timestamp) FROM News.price_tracking")
    database.move_session()
    assert sessions(database)[0].begin == first


# Histories as earlier versions made them


@pytest.fixture
def older(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClickHouseManager]:
    """A database with histories that are not partitioned, cut into slices of a few rows."""
    monkeypatch.setattr(slices, "SLICE_ROWS", 64)
    with with_tables(settings) as manager:
        for table in SESSION_TABLES:
            columns = ", ".join(
                f"{name} {kind}"
                for name, kind in manager.rows(
                    "SELECT name, type FROM system.columns "
                    f"WHERE database = 'News' AND table = '{table}'"
                )
            )
            manager.client.command(f"DROP TABLE News.{table}_history SYNC")
            manager.client.command(
                f"CREATE TABLE News.{table}_history ({columns}, extra String) ENGINE = MergeTree "
                "ORDER BY (ticker, timestamp) "
                "SETTINGS non_replicated_deduplication_window = 1000"
            )
            # Pairs of equal rows, over a year.
            manager.client.command(
                f"INSERT INTO News.{table}_history (ticker, timestamp, extra) "
                "SELECT concat('T', toString(intDiv(number, 2) % 97)), "
                "toDateTime('2025-06-01 15:00:00', 'UTC') + intDiv(number, 2) * 86400, 'x' "
                f"FROM numbers({OLD_ROWS})"
            )
        manager.client.command(
            "ALTER TABLE News.breaking_news_history UPDATE detected_at = timestamp, "
            "content_hash = ticker WHERE 1",
            settings={"mutations_sync": 1},
        )
        yield manager


def content(database: ClickHouseManager) -> dict[str, list[Sequence[Any]]]:
    return {
        table: list(database.rows(f"SELECT * FROM News.{table}_history ORDER BY ALL"))
        for table in SESSION_TABLES
    }


def rows_of_a_replay(database: ClickHouseManager) -> list[Sequence[Any]]:
    span = datetime(2025, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    return [
        *past.price_rows(database, "price_tracking_history", *span),
        *past.alert_rows(database, "news_alert_history", *span),
    ]


def test_an_older_history_is_brought_into_monthly_parts_beside_new_sessions(
    older: ClickHouseManager,
) -> None:
    before = content(older)
    older.create_tables()
    add_session(older, "NEW")
    older.move_session()
    # The news side forgets no article meanwhile.
    assert queries.stored_hashes(older, ["T5", "none"]) == {"T5"}
    slept: list[float] = []

    def go_on(took_s: float) -> bool:
        slept.append(took_s)
        return True

    bring_over(older, go_on)
    assert len(slept) > 3 * OLD_ROWS / 2 / 64
    for table, rows in content(older).items():
        assert [row for row in rows if row[-1] == "x"] == before[table]
        [(partition,)] = older.rows(
            f"SELECT partition_key FROM system.tables WHERE name = '{table}_history'"
        )
        assert partition == "toYYYYMM(timestamp)"
    assert count(older, "price_tracking_history") == OLD_ROWS + 3
    assert not older.rows("SELECT 1 FROM system.tables WHERE name LIKE '%history_old'")
    days = earlier.sessions(older)
    assert (len(days), days[-1].windows, days[-1].alerts) == (OLD_ROWS // 2 + 1, 1, 2)


def test_bringing_over_is_resumed_wherever_it_ended_and_all_rows_are_read_meanwhile(
    older: ClickHouseManager, settings: Settings
) -> None:
    before, replayed = content(older), rows_of_a_replay(older)
    for end_after in (1, 4, 2, 7):
        older.create_tables()
        left = iter(range(end_after))
        bring_over(older, lambda _, left=left: next(left, None) is not None)  # type: ignore[misc]
        assert rows_of_a_replay(older) == replayed
        for session in earlier.sessions(older)[::30]:
            [card] = earlier.windows(older, session=session.key)
            assert (len(card.points), len(card.alerts), len(card.others)) == (2, 1, 0)
    with connected(settings) as again:
        again.create_tables()
        bring_over(again, lambda _: True)
        assert content(again) == before
        assert len(earlier.sessions(again)) == OLD_ROWS // 2
        again.create_tables()
        bring_over(again, lambda _: pytest.fail("there was something left to bring over"))


def test_an_exchange_that_was_interrupted_before_it_took_place_is_made_good(
    older: ClickHouseManager,
) -> None:
    before = content(older)
    older.create_tables()
    older.client.command("EXCHANGE TABLES News.news_alert_history AND News.news_alert_history_old")
    older.create_tables()
    bring_over(older, lambda _: True)
    assert content(older) == before
