"""The embedded database on a full disk: nothing is lost or ruined, and one line says so.

The disks are real: file systems in memory, small enough to be filled.
"""

import asyncio
import logging
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from clickhouse_server import ClickHouseServer
from monitoring import CYCLE_S, connected, rows, running, shorten_windows, tracked, until

import clickhouse_manager
import price_checker
from clickhouse_manager import (
    AlertRow,
    Batch,
    ClickHouseManager,
    DiskFullError,
    ListedStock,
)
from clickhouse_sql import SESSION_TABLES
from runtime import EXIT_FAILED
from settings import Settings
from simulator import Gateway
from triggers import TriggerFolder

DISK_MIB = 128
MIB = 2**20
DEADLINE_S = 60.0


class Disk:
    """A file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"
        # On a full disk a file cannot even be begun.
        self._filler.touch()

    def fill(self, *, free: int = 0) -> None:
        """Leave `free` bytes."""
        block = os.statvfs(self.folder).f_frsize
        with self._filler.open("ab") as filler:
            while (more := shutil.disk_usage(self.folder).free - free) >= block:
                os.posix_fallocate(filler.fileno(), filler.seek(0, os.SEEK_END), more)

    def free(self) -> None:
        os.truncate(self._filler, 0)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as problem:
        pytest.skip(f"no small file system can be mounted here: {problem}")
    yield Disk(folder)
    unmount = ["umount", "--lazy", str(folder)]
    subprocess.run(unmount, check=True)


@pytest.fixture
def on_disk(disk: Disk) -> Settings:
    return Settings(clickhouse_path=disk.folder / "clickhouse")


def definitions(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """The engine's files of what tables are: whatever defines one writes such a file anew."""
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*.sql")
    }


def alert(ticker: str) -> Batch:
    return Batch([AlertRow(ticker, datetime.now(UTC), 1, 2.0)], str(uuid.uuid4()))


def fill_session(manager: ClickHouseManager) -> None:
    for table in SESSION_TABLES:
        manager.client.command(f"INSERT INTO News.{table} (ticker) VALUES ('ABCD')")


def count(manager: ClickHouseManager, table: str) -> Any:
    return manager.client.command(f"SELECT count() FROM News.{table}")


# What is there already is left alone


def test_a_second_start_changes_no_table(tmp_path: Path) -> None:
    settings = Settings(clickhouse_path=tmp_path / "clickhouse")
    with connected(settings) as manager:
        manager.create_tables()
        before = definitions(settings.clickhouse_path)
        assert len(before) >= 8
        manager.create_tables()
        manager.move_session()
        assert definitions(settings.clickhouse_path) == before


def changes(server: ClickHouseServer, begin: int) -> list[str]:
    """The statements since then that change tables, without their ends."""
    verbs = ("ALTER", "CREATE", "DROP", "EXCHANGE")
    return [s.split("(")[0].strip() for s in server.statements()[begin:] if s.startswith(verbs)]


def test_on_a_server_a_second_start_asks_and_changes_nothing(
    server: ClickHouseServer, database: ClickHouseManager
) -> None:
    begin = len(server.statements())
    database.create_tables()
    database.move_session()
    assert changes(server, begin) == []


def test_a_second_move_makes_no_statement_that_changes_nothing(
    server: ClickHouseServer, database: ClickHouseManager
) -> None:
    fill_session(database)
    database.move_session()
    fill_session(database)
    begin = len(server.statements())
    database.move_session()
    assert changes(server, begin) == [
        statement
        for table, expires in zip(SESSION_TABLES, (True, True, False), strict=True)
        for statement in (
            f"CREATE TABLE News.{table}_moving AS News.{table}",
            f"EXCHANGE TABLES News.{table} AND News.{table}_moving",
            *([f"ALTER TABLE News.{table}_moving REMOVE TTL"] if expires else []),
            f"DROP TABLE News.{table}_moving SYNC",
        )
    ]
    assert [count(database, f"{table}_history") for table in SESSION_TABLES] == [2, 2, 2]


def test_only_what_a_history_lacks_is_added(
    server: ClickHouseServer, database: ClickHouseManager
) -> None:
    fill_session(database)
    database.move_session()
    database.client.command("ALTER TABLE News.price_tracking ADD COLUMN venue String")
    fill_session(database)
    begin = len(server.statements())
    database.move_session()
    assert [s for s in changes(server, begin) if "_history" in s] == [
        "ALTER TABLE News.price_tracking_history ADD COLUMN IF NOT EXISTS `venue` String"
    ]


def test_a_second_ticker_list_sets_what_the_first_one_set_no_more(
    server: ClickHouseServer, database: ClickHouseManager
) -> None:
    stocks = [ListedStock("ABCD", "", "", "", "USA", 0.0, 0.0, 0.0, 0)]
    database.replace_ticker_list(stocks)
    begin = len(server.statements())
    database.replace_ticker_list(stocks)
    assert changes(server, begin) == [
        "CREATE TABLE News.float_list_fresh AS News.float_list",
        "EXCHANGE TABLES News.float_list_fresh AND News.float_list",
        "DROP TABLE News.float_list_fresh SYNC",
    ]
    assert database.listed_tickers() == {"ABCD": "USA"}


# Full disks


def test_a_start_on_a_full_disk_leaves_a_whole_database_as_it_is(
    disk: Disk, on_disk: Settings
) -> None:
    with connected(on_disk) as manager:
        manager.create_tables()
        clickhouse_manager.insert(manager.client, alert("ABCD"))
        disk.fill()
        manager.create_tables()
        disk.free()
    with connected(on_disk) as manager:
        assert count(manager, "news_alert") == 1


def test_without_room_no_table_is_created_altered_or_moved_and_the_folder_opens_again(
    disk: Disk, on_disk: Settings
) -> None:
    with connected(on_disk) as manager:
        manager.create_tables()
        fill_session(manager)
        manager.client.command("DROP TABLE News.price_move SYNC")
        manager.client.command(
            "ALTER TABLE News.monitor_status RESET SETTING non_replicated_deduplication_window"
        )
        before = definitions(on_disk.clickhouse_path)
        for free in (0, 15 * MIB):
            disk.fill(free=free)
            for work in (
                manager.create_tables,
                manager.move_session,
                lambda: manager.move_session(datetime.now(UTC)),
                lambda: manager.replace_ticker_list([]),
            ):
                with pytest.raises(DiskFullError, match="16 MiB") as caught:
                    work()
                assert str(disk.folder) in str(caught.value)
                assert "\n" not in str(caught.value)
            disk.free()
        assert definitions(on_disk.clickhouse_path) == before
    with connected(on_disk) as manager:
        disk.fill(free=24 * MIB)
        manager.create_tables()
        assert set(manager.move_session().values()) == {1}


def start(folder: Path, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
    """newshead as a user starts it, in `folder`."""
    script = Path(clickhouse_manager.__file__).with_name("run_system.py")
    return subprocess.Popen(
        [sys.executable, str(script), "--skip-list", *arguments],
        cwd=folder,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_first_start_on_a_full_disk_ends_with_one_line_and_the_next_one_works(
    disk: Disk, on_disk: Settings, tmp_path: Path
) -> None:
    disk.fill(free=12 * MIB)
    process = start(tmp_path, CLICKHOUSE_PATH=str(on_disk.clickhouse_path))
    try:
        output, _ = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    assert process.returncode == EXIT_FAILED
    [line] = output.splitlines()
    assert f"The disk of the embedded database {on_disk.clickhouse_path} is full" in line
    disk.free()
    with connected(on_disk) as manager:
        manager.create_tables()


@pytest.mark.usefixtures("short_cycles")
async def test_a_roll_waits_for_room_is_told_once_and_then_happens(
    disk: Disk,
    on_disk: Settings,
    settings: Settings,
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    shorten_windows(monkeypatch, 1)
    rolls = iter([datetime.now(UTC), None])
    monkeypatch.setattr(price_checker, "next_roll_after", lambda *_: next(rolls))
    with connected(on_disk) as database:
        database.create_tables()
        disk.fill(free=8 * MIB)
        settings = replace(settings, clickhouse_host="", clickhouse_path=on_disk.clickhouse_path)
        async with running(settings):
            await until(lambda: "cannot roll over" in caplog.text, "the line")
            await tracked(gateway, settings)
            gateway.trade("ABCD", 3.0, 1)
            await until(lambda: "Window of ABCD ended" in caplog.text, "the end of the window")
            await asyncio.sleep(6 * CYCLE_S)
            TriggerFolder(settings.trigger_folder).write("ABCD")
            await until(lambda: "ABCD: it had its window" in caplog.text, "the refusal")
            assert len(rows(database)) == 1
            disk.free()
            await until(lambda: "rows of breaking_news moved" in caplog.text, "the roll")
            await tracked(gateway, settings)
        assert count(database, "price_tracking_history") == 1
    assert caplog.text.count("cannot roll over") == 1
    assert "ClickHouse failed" not in caplog.text
    assert "Traceback" not in caplog.text
