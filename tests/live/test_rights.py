"""ClickHouse users with real grants and profiles: what newshead needs, and what it says without."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from clickhouse_connect.driver.exceptions import ClickHouseError
from clickhouse_server import ClickHouseServer
from monitoring import connected, with_tables

from clickhouse_manager import ClickHouseManager
from dashboard import earlier
from dashboard import queries as page
from newshead.database import queries, store
from newshead.database.connection import one_line
from newshead.database.tables import SESSION_TABLES, ListedStock
from newshead.settings import Settings

DOCS = Path(__file__).resolve().parents[2] / "docs/database.md"
STOCK = ListedStock("ABCD", "", "", "", "USA", 0.0, 0.0, 0.0, 0)


def documented(user: str) -> list[str]:
    """The GRANT statements of the docs for one of their users."""
    statements = re.findall(rf"^(GRANT [^;]+) TO {user};$", DOCS.read_text(), re.MULTILINE)
    assert statements
    return statements


@contextmanager
def as_user(
    folder: Path, rights: list[str] | None, profile: str = ""
) -> Iterator[ClickHouseManager]:
    """A connection of a user with these rights to the database in the folder."""
    with (
        ClickHouseServer(folder, rights=rights, profile=profile) as server,
        connected(settings_of(server)) as manager,
    ):
        yield manager


def create_and_insert(manager: ClickHouseManager) -> None:
    manager.create_tables()
    manager.client.command("INSERT INTO News.price_move (ticker) VALUES ('ABCD')")


def settings_of(server: ClickHouseServer) -> Settings:
    return Settings(clickhouse_host=server.host, clickhouse_port=server.port)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "clickhouse"


@pytest.fixture
def database(folder: Path) -> Path:
    """The folder with newshead's tables, and an alert."""
    with ClickHouseServer(folder) as server, with_tables(settings_of(server)) as manager:
        manager.client.command("INSERT INTO News.news_alert (ticker) VALUES ('ABCD')")
    return folder


def test_the_documented_rights_of_newshead_suffice_from_the_first_start_on(folder: Path) -> None:
    with as_user(folder, documented("newshead")) as manager:
        for _ in range(2):
            manager.create_tables()
            for table in SESSION_TABLES:
                manager.client.command(f"INSERT INTO News.{table} (ticker) VALUES ('ABCD')")
            assert set(manager.move_session().values()) == {1}
        manager.client.command("ALTER TABLE News.news_alert ADD COLUMN more UInt8")
        manager.client.command("INSERT INTO News.news_alert (ticker) VALUES ('ABCD')")
        assert manager.move_session()["news_alert"] == 1
        store.replace_ticker_list(manager, [STOCK])
        assert queries.recent_hashes(manager) == {}
        assert earlier.sessions(manager)


@pytest.mark.parametrize("profile", ["<readonly>1</readonly>", ""])
def test_the_page_needs_the_right_to_read_alone(database: Path, profile: str) -> None:
    with as_user(database, documented("page"), profile) as manager:
        assert page.status(manager) is None
        assert page.cards(manager, ["ABCD"]) == []
        assert [alert.ticker for alert in page.first_alerts(manager)] == ["ABCD"]


def test_where_all_tables_are_there_a_start_needs_no_right_to_create_them(database: Path) -> None:
    with as_user(database, ["GRANT SELECT ON News.*"]) as manager:
        manager.create_tables()


@pytest.mark.parametrize(
    ("rights", "lacking"),
    [
        (["GRANT SELECT ON News.*"], r"CREATE TABLE ON News\.price_move"),
        (["GRANT SELECT, CREATE TABLE ON News.*"], r"INSERT\(ticker\) ON News\.price_move"),
    ],
)
def test_a_right_that_lacks_is_named_in_one_line(
    database: Path, rights: list[str], lacking: str
) -> None:
    with ClickHouseServer(database) as server, connected(settings_of(server)) as manager:
        manager.client.command("DROP TABLE News.price_move SYNC")
    with as_user(database, rights) as manager:
        with pytest.raises(ClickHouseError) as caught:
            create_and_insert(manager)
        assert re.fullmatch(
            rf"The database's user default lacks the right {lacking}: grant it, as "
            r"docs/database\.md says\.",
            one_line(caught.value),
        )


@pytest.mark.parametrize(
    "profile",
    [
        "<constraints><max_execution_time><max>5</max></max_execution_time></constraints>",
        "<constraints><max_threads><const/></max_threads></constraints>",
        "<async_insert>1</async_insert><constraints><async_insert><const/></async_insert>"
        "</constraints>",
    ],
)
def test_settings_that_an_administrator_has_fixed_are_left_out(
    database: Path, profile: str, caplog: pytest.LogCaptureFixture
) -> None:
    with as_user(database, None, profile) as manager:
        manager.create_tables()
        assert [alert.ticker for alert in page.first_alerts(manager)] == ["ABCD"]
        assert manager.move_session()["news_alert"] == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
