"""The ticker list: from a file and over HTTP into the real engine, and what is no list."""

import dataclasses
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from clickhouse_server import ClickHouseServer

from clickhouse_manager import ClickHouseManager
from newshead.database.store import replace_ticker_list
from newshead.database.tables import ListedStock
from newshead.news import ticker_list
from newshead.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "69d5c83f-secret"
EXPORT = """\
No.,Ticker,Company,Sector,Industry,Country,Market Cap,P/E,Shares Float,Price,Change,Volume
1,"ABCD","Alphabet Soup, Inc.","Technology","Software","USA",286.71,35.1,12.35,3.25,0.49%,7936368
2,"BRK-B","Berkshire","Financial","Insurance","China",,,-,500,0.00%,
"""
SOUP = "Alphabet Soup, Inc."
STORED = [
    ("ABCD", SOUP, "Technology", "Software", "USA", 286_710_000.0, 12_350_000.0, 3.25, 7_936_368),
    ("BRK-B", "Berkshire", "Financial", "Insurance", "China", 0.0, 0.0, 500.0, 0),
]
OLD = [ListedStock("OLD", "Old Corp", "", "", "USA", 1.0, 2.0, 3.0, 4)]


class Page(NamedTuple):
    """What the test's web server answers."""

    body: bytes = b""
    status: int = 200
    location: str = ""
    drips: bool = False
    """Some bytes and then nothing more."""


class WebServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, Page] = {}
        self.asked: list[str] = []
        self.ended = threading.Event()

    def address(self, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}/export?v=152&auth={TOKEN}"


class Handler(BaseHTTPRequestHandler):
    server: WebServer

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        page = self.server.pages[self.path.partition("?")[0]]
        self.send_response(page.status)
        if page.location:
            self.send_header("Location", page.location)
        if page.drips:
            self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.wfile.write(page.body)
        if page.drips:
            self.wfile.flush()
            self.server.ended.wait()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.ended.set()
    server.shutdown()
    server.server_close()


def stored(manager: ClickHouseManager) -> list[tuple[Any, ...]]:
    columns = ", ".join(ListedStock._fields)
    rows = manager.client.query(f"SELECT {columns} FROM News.float_list ORDER BY ticker")
    return [tuple(row) for row in rows.result_rows]


async def refreshed(settings: Settings, **changes: Any) -> None:
    settings = dataclasses.replace(settings, **changes)
    await ticker_list.refresh(settings, ClickHouseManager(settings))


def only_line(caplog: pytest.LogCaptureFixture) -> str:
    [line] = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert TOKEN not in caplog.text
    assert "\n" not in line
    return line


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "list.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


# A list


async def test_a_file_replaces_the_list(
    settings: Settings,
    database: ClickHouseManager,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    replace_ticker_list(database, OLD)
    await refreshed(settings, ticker_list_csv=write(tmp_path, EXPORT))
    assert stored(database) == STORED
    assert ": 2 stocks;" in only_line(caplog)


async def test_the_embedded_engine_takes_the_list_too(tmp_path: Path) -> None:
    settings = Settings(clickhouse_path=tmp_path / "clickhouse")
    manager = ClickHouseManager(settings)
    manager.connect()
    try:
        manager.create_tables()
        await refreshed(settings, ticker_list_csv=write(tmp_path, EXPORT))
        assert stored(manager) == STORED
    finally:
        manager.close()


async def test_finviz_is_asked_with_the_token_which_is_in_no_log(
    settings: Settings,
    database: ClickHouseManager,
    web: WebServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    web.pages["/export"] = Page(EXPORT.encode())
    await refreshed(settings, finviz_export_url=web.address())
    assert stored(database) == STORED
    assert web.asked == [f"/export?v=152&auth={TOKEN}"]
    assert "from Finviz" in only_line(caplog)


async def test_a_file_goes_before_finviz(
    settings: Settings, database: ClickHouseManager, web: WebServer, tmp_path: Path
) -> None:
    path = write(tmp_path, EXPORT)
    await refreshed(settings, ticker_list_csv=path, finviz_export_url=web.address())
    assert stored(database) == STORED
    assert not web.asked


async def test_a_redirect_on_the_same_host_is_followed(
    settings: Settings, database: ClickHouseManager, web: WebServer
) -> None:
    web.pages["/export"] = Page(status=302, location=f"/export/screener?auth={TOKEN}")
    web.pages["/export/screener"] = Page(EXPORT.encode())
    await refreshed(settings, finviz_export_url=web.address())
    assert stored(database) == STORED


async def test_rows_without_a_valid_ticker_are_left_out_and_counted(
    settings: Settings,
    database: ClickHouseManager,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = "3,,Nobody\n4,'; DROP TABLE News.float_list; --,Bobby\n5\n6,efgh,Lower\n"
    await refreshed(settings, ticker_list_csv=write(tmp_path, EXPORT + rows))
    assert [row[0] for row in stored(database)] == ["ABCD", "BRK-B", "EFGH"]
    assert "skipped 3 rows without a valid ticker" in only_line(caplog)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12.5", 12_500_000.0),
        ("", 0.0),
        ("-", 0.0),
        ("150.00M", 150_000_000.0),
        ("2.90T", 2_900_000_000_000.0),
        ("1.5b", 1_500_000_000.0),
        ('"3,000.5"', 3_000_500_000.0),
        ('"1,234.5K"', 1_234_500.0),
        ("12.5X", 0.0),
        ("M", 0.0),
        ("nan", 0.0),
        ("inf", 0.0),
        ("-3", 0.0),
    ],
)
def test_a_number_that_is_none_is_0(text: str, expected: float) -> None:
    [stock] = ticker_list.parse(f"Ticker,Market Cap\nABCD,{text}\n".encode()).stocks
    assert stock.market_cap == expected


def test_prices_and_volumes_are_read_in_each_spelling_too() -> None:
    text = 'Ticker,Price,Volume,Shares Float\nABCD,"3,000.5",1.25M,12.35M\n'
    [stock] = ticker_list.parse(text.encode()).stocks
    assert (stock.price, stock.volume, stock.float_shares) == (3_000.5, 1_250_000, 12_350_000.0)


def test_columns_are_found_by_name_and_may_be_missing() -> None:
    text = "\ufeffVolume, Ticker ,Company\r\n1e30,ABCD,Soup\r\n".replace(" ,", ",")
    [stock] = ticker_list.parse(text.encode()).stocks
    assert stock == ListedStock("ABCD", "Soup", "", "", "", 0.0, 0.0, 0.0, ticker_list.MAX_VOLUME)


def test_of_a_ticker_that_comes_twice_the_last_row_counts() -> None:
    [stock] = ticker_list.parse(b"Ticker,Company\nABCD,First\nabcd,Second\n").stocks
    assert stock.company_name == "Second"


# What is no list


async def test_a_list_that_shrank_by_more_than_half_is_refused_unless_it_is_forced(
    settings: Settings,
    database: ClickHouseManager,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    present = [OLD[0]._replace(ticker=f"OLD{number}") for number in range(5)]
    replace_ticker_list(database, present)
    settings = dataclasses.replace(settings, ticker_list_csv=write(tmp_path, EXPORT))
    await refreshed(settings)
    line = only_line(caplog)
    assert "2 stocks, the present list 5" in line
    assert "--force-list" in line
    assert stored(database) == present
    await ticker_list.refresh(settings, ClickHouseManager(settings), force=True)
    assert stored(database) == STORED
    replace_ticker_list(database, present[:4])
    await refreshed(settings)
    assert stored(database) == STORED


NO_LISTS = {
    "empty": ("", "is empty"),
    "web page": ("\n<!DOCTYPE html><html>Please log in</html>", "web page"),
    "no ticker": ("No.,Name\n1,Soup\n", "no Ticker column"),
    "head alone": (EXPORT.splitlines()[0], "no stock"),
    "no valid ticker": ("Ticker\n$$$\n", "no stock"),
    "huge field": ("Ticker\n" + "x" * 200_000, "not a CSV file"),
}


@pytest.mark.parametrize("case", NO_LISTS)
async def test_what_is_no_list_is_refused_and_the_old_one_stays(
    case: str,
    settings: Settings,
    database: ClickHouseManager,
    web: WebServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    replace_ticker_list(database, OLD)
    content, reason = NO_LISTS[case]
    web.pages["/export"] = Page(content.encode())
    await refreshed(settings, finviz_export_url=web.address())
    line = only_line(caplog)
    assert reason in line
    assert "News.float_list is unchanged" in line
    assert stored(database) == OLD


async def test_a_redirect_to_another_host_never_takes_the_token_along(
    settings: Settings,
    database: ClickHouseManager,
    web: WebServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    web.pages["/export"] = Page(status=302, location=web.address("localhost"))
    await refreshed(settings, finviz_export_url=web.address())
    assert len(web.asked) == 1
    assert "http://localhost, which must not receive the token" in only_line(caplog)
    assert not stored(database)


async def test_a_token_never_goes_out_unencrypted(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    await refreshed(settings, finviz_export_url=f"http://finviz.invalid/export?auth={TOKEN}")
    assert "needs https" in only_line(caplog)


@pytest.mark.parametrize("status", [401, 404, 500])
async def test_an_error_of_finviz_is_told_in_one_line(
    status: int, settings: Settings, web: WebServer, caplog: pytest.LogCaptureFixture
) -> None:
    web.pages["/export"] = Page(EXPORT.encode(), status)
    await refreshed(settings, finviz_export_url=web.address())
    assert f"answered with HTTP status {status}" in only_line(caplog)


async def test_a_server_that_is_not_there_is_told_in_one_line(
    settings: Settings, web: WebServer, caplog: pytest.LogCaptureFixture
) -> None:
    web.server_close()
    await refreshed(settings, finviz_export_url=web.address())
    assert "the connection failed" in only_line(caplog)


async def test_a_list_that_does_not_arrive_in_time_is_given_up(
    settings: Settings,
    web: WebServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ticker_list, "FETCH_TIMEOUT_S", 0.5)
    web.pages["/export"] = Page(EXPORT.encode(), drips=True)
    await refreshed(settings, finviz_export_url=web.address())
    assert "it timed out after" in only_line(caplog)


async def test_a_list_that_is_too_big_is_refused(
    settings: Settings,
    web: WebServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ticker_list, "MAX_BYTES", 100)
    web.pages["/export"] = Page(EXPORT.encode())
    await refreshed(settings, finviz_export_url=web.address())
    assert "over 100 bytes" in only_line(caplog)
    caplog.clear()
    await refreshed(settings, ticker_list_csv=write(tmp_path, EXPORT))
    assert "over 100 bytes" in only_line(caplog)


@pytest.mark.parametrize("name", ["missing.csv", "."])
async def test_a_file_that_cannot_be_read_names_its_variable(
    name: str, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await refreshed(settings, ticker_list_csv=tmp_path / name)
    assert "check TICKER_LIST_CSV" in only_line(caplog)


async def test_without_a_source_the_list_stays(
    settings: Settings, database: ClickHouseManager, caplog: pytest.LogCaptureFixture
) -> None:
    replace_ticker_list(database, OLD)
    await refreshed(settings)
    line = only_line(caplog)
    assert line == "No source for the ticker list is configured; News.float_list is unchanged."
    assert stored(database) == OLD


# The database


async def test_a_database_that_fails_halfway_keeps_the_old_list(
    settings: Settings,
    database: ClickHouseManager,
    server: ClickHouseServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    replace_ticker_list(database, OLD)
    path = write(tmp_path, EXPORT)
    server.fault("error", match="EXCHANGE", code=243, text="(NOT_ENOUGH_SPACE)")
    await refreshed(settings, ticker_list_csv=path)
    assert "cannot be stored, News.float_list is unchanged" in only_line(caplog)
    assert stored(database) == OLD
    server.clear_faults()
    await refreshed(settings, ticker_list_csv=path)
    assert stored(database) == STORED
    assert not database.client.query("SHOW TABLES FROM News LIKE 'float_list_fresh'").result_rows


async def test_a_database_that_is_away_is_told_in_one_line(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, EXPORT)
    await refreshed(settings, clickhouse_port=1, ticker_list_csv=path)
    assert "cannot be stored" in only_line(caplog)


def test_an_older_table_keeps_its_further_columns_and_its_types(
    database: ClickHouseManager,
) -> None:
    database.client.command(
        "ALTER TABLE News.float_list ADD COLUMN exchange LowCardinality(String) DEFAULT 'NASD', "
        "MODIFY COLUMN market_cap Nullable(String)"
    )
    replace_ticker_list(database, OLD)
    found = database.client.query("SELECT ticker, exchange, market_cap FROM News.float_list")
    assert found.result_rows == [("OLD", "NASD", "1")]


def test_a_list_whose_answer_was_lost_is_stored_once(
    database: ClickHouseManager, server: ClickHouseServer
) -> None:
    server.fault("drop_answer", match="INSERT", times=1)  # clickhouse-connect resends by itself
    replace_ticker_list(database, OLD)
    assert stored(database) == OLD


def test_the_commands_load_no_library_of_the_news_before_they_need_it() -> None:
    code = (
        "import run_system, price_checker, newshead.news.rating, sys; "
        "print({'anthropic', 'httpx2'} & {*sys.modules})"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout == "set()\n"
