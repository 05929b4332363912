"""The embedded database on a full disk: nothing is lost or ruined, and one line says so.

The disks are real: file systems in memory, small enough to be filled.
"""

import asyncio
import logging
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from clickhouse_server import ClickHouseServer
from deadlines import DEADLINE_S
from monitoring import (
    CYCLE_S,
    connected,
    roll_once,
    rows,
    running,
    shorten_windows,
    tracked,
    trade_each_slot,
    until,
)

import clickhouse_manager
from clickhouse_manager import ClickHouseManager
from newshead.database import queries, store
from newshead.database.connection import (
    DATABASE_ERRORS,
    DatabaseError,
    DiskFullError,
)
from newshead.database.folder import INSERTS_FOLDER
from newshead.database.store import Batch, Outbox
from newshead.database.tables import SESSION_TABLES, AlertRow, ListedStock
from newshead.monitor.triggers import TriggerFolder
from newshead.process import EXIT_FAILED
from newshead.recording import entries
from newshead.settings import Settings
from newshead.tape import Kind
from simulator import Gateway

DISK_MIB = 128
MIB = 2**20


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
    store.replace_ticker_list(database, stocks)
    begin = len(server.statements())
    store.replace_ticker_list(database, stocks)
    assert changes(server, begin) == [
        "CREATE TABLE News.float_list_fresh AS News.float_list",
        "EXCHANGE TABLES News.float_list_fresh AND News.float_list",
        "DROP TABLE News.float_list_fresh SYNC",
    ]
    assert queries.listed_tickers(database) == {"ABCD": "USA"}


# Full disks


def test_a_start_on_a_full_disk_leaves_a_whole_database_as_it_is(
    disk: Disk, on_disk: Settings
) -> None:
    with connected(on_disk) as manager:
        manager.create_tables()
        store.insert(manager.client, alert("ABCD"))
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
                lambda: store.replace_ticker_list(manager, []),
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


@pytest.mark.parametrize("free_mib", [12, 0])
def test_a_first_start_on_a_full_disk_ends_with_one_line_and_the_next_one_works(
    disk: Disk, on_disk: Settings, tmp_path: Path, free_mib: int
) -> None:
    disk.fill(free=free_mib * MIB)
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
    roll_once(monkeypatch, in_s=0)
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


# A folder that was ruined before


def ruined(settings: Settings, table: str = "price_move") -> Path:
    """A database with rows, and the file of one of its tables emptied as by a full disk."""
    with connected(settings) as manager:
        manager.create_tables()
        manager.client.command("INSERT INTO News.price_move (ticker) VALUES ('ABCD')")
        store.insert(manager.client, alert("ABCD"))
    [file] = settings.clickhouse_path.rglob(f"{table}.sql")
    os.truncate(file, 0)
    return file


def refusal(settings: Settings) -> str:
    with pytest.raises(DatabaseError) as caught:
        ClickHouseManager(settings).connect()
    return str(caught.value)


def test_files_that_a_full_disk_emptied_are_named_with_the_mend_and_left_alone(
    tmp_path: Path,
) -> None:
    settings = Settings(clickhouse_path=tmp_path / "clickhouse")
    emptied = [ruined(settings)]
    emptied += settings.clickhouse_path.rglob("monitor_status.sql")
    os.truncate(emptied[1], 0)
    before = definitions(settings.clickhouse_path)
    text = refusal(settings)
    assert "\n" not in text
    for file in emptied:
        assert str(file.relative_to(settings.clickhouse_path)) in text
    assert "docs/troubleshooting.md" in text
    assert definitions(settings.clickhouse_path) == before


def test_with_the_emptied_file_moved_away_the_database_opens_with_all_other_rows(
    tmp_path: Path,
) -> None:
    settings = Settings(clickhouse_path=tmp_path / "clickhouse")
    ruined(settings).rename(tmp_path / "price_move.sql")
    with connected(settings) as manager:
        manager.create_tables()
        assert (count(manager, "price_move"), count(manager, "news_alert")) == (0, 1)
        fill_session(manager)
        manager.move_session()


def test_a_database_whose_own_file_is_empty_opens_without_it(tmp_path: Path) -> None:
    settings = Settings(clickhouse_path=tmp_path / "clickhouse")
    file = ruined(settings, "News")
    assert "metadata/News.sql" in refusal(settings)
    file.rename(tmp_path / "News.sql")
    with connected(settings) as manager:
        manager.create_tables()
        assert count(manager, "price_move") == 0


def test_the_rows_of_an_emptied_table_come_back_as_the_readme_says(tmp_path: Path) -> None:
    settings = Settings(clickhouse_path=tmp_path / "clickhouse")
    file = ruined(settings)
    with connected(Settings(clickhouse_path=tmp_path / "fresh")) as manager:
        manager.create_tables()
    [model] = (tmp_path / "fresh").rglob("price_move.sql")
    rows_are_in = (settings.clickhouse_path / "data/News/price_move").readlink()
    own = re.sub("UUID '.*'", f"UUID '{rows_are_in.name}'", model.read_text(), count=1)
    file.write_text(own)
    with connected(settings) as manager:
        assert count(manager, "price_move") == 1


# What the driver raises


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[ClickHouseManager]:
    with connected(Settings(clickhouse_path=tmp_path / "clickhouse")) as manager:
        manager.create_tables()
        yield manager


def test_a_full_or_missing_tmpdir_hinders_no_insert(
    kept: ClickHouseManager, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.fill()
    for folder in (disk.folder, disk.folder / "missing"):
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        store.insert(kept.client, alert("ABCD"))
    assert count(kept, "news_alert") == 2
    inserts = kept.settings.clickhouse_path / INSERTS_FOLDER
    assert list(inserts.iterdir()) == []


def test_what_a_killed_insert_left_goes_with_the_first_opening_and_no_later_one(
    tmp_path: Path,
) -> None:
    settings = Settings(clickhouse_path=tmp_path / "clickhouse")
    left = settings.clickhouse_path / INSERTS_FOLDER / "tmp12345.native"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"rows")
    with connected(settings):
        assert not left.exists()
        left.write_bytes(b"an insert of the first connection, under way")
        with connected(settings):
            assert left.exists()


def test_an_insert_without_a_file_descriptor_left_is_a_failure_of_the_database(
    kept: ClickHouseManager,
) -> None:
    outbox = Outbox()
    outbox.add(alert("ABCD").rows)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(DATABASE_ERRORS, match="Too many open files"):
            outbox.flush(kept.client)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(outbox) == 1
    outbox.flush(kept.client)
    assert count(kept, "news_alert") == 1


def test_a_text_that_the_driver_cannot_encode_is_a_failure_of_the_database(
    kept: ClickHouseManager,
) -> None:
    with pytest.raises(DATABASE_ERRORS, match="surrogates not allowed"):
        store.insert(kept.client, alert("\ud800"))


def test_an_opening_without_a_file_descriptor_left_is_a_failure_of_the_database(
    tmp_path: Path,
) -> None:
    settings = Settings(clickhouse_path=tmp_path / "clickhouse")
    with connected(settings):
        pass
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert "Too many open files" in refusal(settings)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with connected(settings):
        pass


@pytest.mark.usefixtures("short_cycles")
async def test_rows_made_while_the_disk_is_full_are_kept_told_in_one_line_and_stored_later(
    disk: Disk,
    on_disk: Settings,
    settings: Settings,
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(tempfile, "tempdir", str(disk.folder))
    settings = replace(settings, clickhouse_host="", clickhouse_path=on_disk.clickhouse_path)
    prices = [3.0 + step / 100 for step in range(8)]
    with connected(on_disk) as database:
        async with running(settings):
            await tracked(gateway, settings)
            await trade_each_slot(gateway, "ABCD", prices[:2])
            await until(lambda: len(rows(database)) == 2, "the first rows")
            disk.fill()
            await trade_each_slot(gateway, "ABCD", prices[2:])
            await until(lambda: "ClickHouse failed" in caplog.text, "the line")
            disk.free()
            await until(lambda: len(rows(database)) == len(prices), "the kept rows")
            await until(lambda: "ClickHouse works again" in caplog.text, "the end of it")
        assert [row["price"] for row in rows(database)] == prices
    assert caplog.text.count("ClickHouse failed") == 1
    assert "Traceback" not in caplog.text


async def test_a_full_disk_ends_the_recording_and_costs_nothing_else(
    disk: Disk,
    settings: Settings,
    gateway: Gateway,
    database: ClickHouseManager,
    short_cycles: None,  # noqa: ARG001
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(replace(settings, record_folder=disk.folder / "recordings")):
        await tracked(gateway, settings)
        await trade_each_slot(gateway, "ABCD", [2.0])
        await until(lambda: len(rows(database)) == 1, "the first row")
        disk.fill()
        # More than the file's last block has room for.
        dice = random.Random(1)
        gateway.burst("ABCD", [dice.uniform(1, 3) for _ in range(20_000)], 100)
        await trade_each_slot(gateway, "ABCD", [2.1])
        await until(lambda: "The recording ended" in caplog.text, "the recording's end")
        await trade_each_slot(gateway, "ABCD", [2.2])
        await until(lambda: 2.2 in {row["price"] for row in rows(database)}, "rows as before")
    assert caplog.text.count("The recording ended") == 1
    assert "No space left on device" in caplog.text
    (path,) = (disk.folder / "recordings").iterdir()
    assert any(entry.kind is Kind.ROWS for entry in entries(path))
