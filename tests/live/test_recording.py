"""A monitor at work that records, and the recording played again."""

import asyncio
import logging
import os
import random
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from clickhouse_server import ClickHouseServer
from monitoring import rate, rows, running, shorten_windows, tracked, trade_each_slot, until

from clickhouse_manager import ClickHouseManager
from newshead import recording
from newshead.core.times import NEW_YORK
from newshead.database import store
from newshead.monitor import keeper
from newshead.recording import HEADER, MAGIC, NAME, VERSION, Entry, Recorder, encoded, entries
from newshead.replay.__main__ import main
from newshead.replay.played import ALERTS, PRICES, Played
from newshead.replay.recorded import play
from newshead.settings import Settings
from newshead.tape import Kind
from simulator import Gateway

pytestmark = pytest.mark.usefixtures("short_cycles")

ACCOUNT = "DU1234567"
RISE = [2.0, 2.02, 2.01, 2.09, 2.2, 2.22]


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return replace(settings, record_folder=tmp_path / "recordings")


@pytest.fixture
def reaching(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """Commands find the database."""
    monkeypatch.setenv("CLICKHOUSE_HOST", settings.clickhouse_host)
    monkeypatch.setenv("CLICKHOUSE_PORT", str(settings.clickhouse_port))


def recorded(settings: Settings) -> Path:
    """The one recording."""
    assert settings.record_folder is not None
    (path,) = settings.record_folder.iterdir()
    return path


def packed(data: bytes) -> bytes:
    return recording.zstd.compress(data)


def write(path: Path, found: Iterable[Entry]) -> Path:
    """A recording of these entries."""
    data = b"".join(
        HEADER.pack(len(e.body), e.kind, e.client, int(e.at.timestamp() * 1e6 + 0.5), e.monotonic)
        + e.body
        for e in found
    )
    path.write_bytes(packed(MAGIC % VERSION + data))
    return path


async def alert(gateway: Gateway, settings: Settings, database: ClickHouseManager) -> None:
    """A ticker's trigger, its trades, and its alert."""
    rate(database, "ABCD", "BUY")
    await tracked(gateway, settings)
    await trade_each_slot(gateway, "ABCD", RISE)
    await until(lambda: rows(database, "price_move"), "an alert")


async def replayed(settings: Settings) -> Played:
    """The recording played again, in a process's thread that has no loop."""
    played = await asyncio.to_thread(play, recorded(settings))
    assert not played.difference
    return played


def is_stored(played: Played, database: ClickHouseManager) -> None:
    stored = [(r["ticker"], r["price"], r["volume"], r["recommendation"]) for r in rows(database)]
    assert [(t, p, v, r) for _, t, p, v, _, _, r, _ in played.rows[PRICES]] == stored
    alerts = [(r["ticker"], r["timestamp"], r["alert"], r["price"]) for r in rows(database, ALERTS)]
    assert [tuple(row) for row in played.rows.get(ALERTS, [])] == alerts


async def test_a_replay_makes_the_same_requests_rows_and_alerts(
    gateway: Gateway, settings: Settings, database: ClickHouseManager
) -> None:
    async with running(settings):
        await alert(gateway, settings, database)
    played = await replayed(settings)
    assert played.whole
    assert played.requests == sum(request.req_id > 0 for request in gateway.requests)
    assert played.rows[ALERTS]
    is_stored(played, database)


async def test_a_replay_follows_a_lost_connection_and_a_database_that_failed(
    gateway: Gateway,
    settings: Settings,
    database: ClickHouseManager,
    server: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeper, "RETRY_S", 0.2)
    shorten_windows(monkeypatch, 8)
    rate(database, "ABCD", "BUY")
    async with running(settings) as monitor:
        await tracked(gateway, settings)
        await trade_each_slot(gateway, "ABCD", RISE[:2])
        server.fault("refuse")
        await trade_each_slot(gateway, "ABCD", RISE[2:4])
        before = len(gateway.requests)
        gateway.drop()
        await until(lambda: len(gateway.requests) > before, "a new connection")
        server.clear_faults()
        await trade_each_slot(gateway, "ABCD", RISE[4:])
        await until(lambda: "ABCD" not in monitor.active_tickers, "the window's end")
    played = await replayed(settings)
    assert played.whole
    is_stored(played, database)


async def test_a_replay_follows_a_fresh_session(
    gateway: Gateway,
    settings: Settings,
    database: ClickHouseManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shorten_windows(monkeypatch, 1)
    roll = (datetime.now(NEW_YORK) + timedelta(seconds=10)).time()
    async with running(replace(settings, session_roll=roll)) as monitor:
        await tracked(gateway, settings)
        await trade_each_slot(gateway, "ABCD", RISE[:3])
        await until(lambda: "ABCD" not in monitor.active_tickers, "the window's end")
        await until(lambda: not rows(database), "a fresh session")
        await tracked(gateway, settings)
        await trade_each_slot(gateway, "ABCD", RISE[:2])
        await until(lambda: rows(database), "rows of the fresh session")
    played = await replayed(settings)
    assert played.whole
    assert len(played.rows[PRICES]) > len(rows(database))


async def test_rows_that_were_given_up_are_given_up_again(
    gateway: Gateway,
    settings: Settings,
    database: ClickHouseManager,
    server: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "MAX_KEPT_ROWS", 2)
    async with running(settings) as monitor:
        await tracked(gateway, settings)
        server.fault("refuse")
        await trade_each_slot(gateway, "ABCD", RISE[:5])
        await until(lambda: monitor.outbox.given_up, "rows that are given up")
        server.clear_faults()
        # A batch is given up whole, and a slow cycle's has more rows than may be kept.
        await trade_each_slot(gateway, "ABCD", RISE[5:])
        await until(lambda: rows(database), "the rows that were kept")
    played = await replayed(settings)
    stored = [(row["ticker"], row["price"]) for row in rows(database)]
    assert [(ticker, price) for _, ticker, price, *_ in played.stored[PRICES]] == stored
    assert len(played.rows[PRICES]) > len(stored)


async def test_a_stop_while_the_database_hangs_is_replayed_with_the_rows_that_came_through(
    gateway: Gateway, settings: Settings, database: ClickHouseManager, server: ClickHouseServer
) -> None:
    async with running(settings):
        await tracked(gateway, settings)
        await trade_each_slot(gateway, "ABCD", RISE[:2])
        await until(lambda: len(rows(database)) == 2, "the rows")
        server.fault("slow", match="INSERT INTO News.price_tracking", seconds=1.5, times=1)
        await trade_each_slot(gateway, "ABCD", RISE[2:4])
    played = await replayed(settings)
    is_stored(played, database)


async def test_an_insert_that_a_stop_left_alone_may_end_just_before_the_next_question(
    gateway: Gateway,
    settings: Settings,
    database: ClickHouseManager,
    server: ClickHouseServer,
    tmp_path: Path,
) -> None:
    async with running(settings):
        await tracked(gateway, settings)
        await trade_each_slot(gateway, "ABCD", RISE[:2])
        await until(lambda: len(rows(database)) == 2, "the rows")
        server.fault("slow", match="INSERT INTO News.price_tracking", seconds=1.5, times=1)
        await trade_each_slot(gateway, "ABCD", RISE[2:4])
    found = list(entries(recorded(settings)))
    late = next(
        number
        for number, entry in enumerate(found)
        if entry.kind is Kind.ANSWER and entry.details[-1] is False
    )
    asked = max(n for n in range(late) if found[n].kind is Kind.ASK)
    found.insert(asked, found.pop(late))
    played = await asyncio.to_thread(play, write(tmp_path / "other.rec.zst", found))
    assert not played.difference
    assert played.whole


async def test_what_is_stored_is_in_the_file_of_a_monitor_that_is_killed_then(
    gateway: Gateway, settings: Settings, database: ClickHouseManager, tmp_path: Path
) -> None:
    async with running(settings):
        await tracked(gateway, settings)
        for price in RISE:
            await trade_each_slot(gateway, "ABCD", [price])
            await until(lambda: price in {r["price"] for r in rows(database)}, "a row")  # noqa: B023
            # As a kill would leave it.
            left = tmp_path / "left.rec.zst"
            left.write_bytes(recorded(settings).read_bytes())
            assert any(
                e.kind is Kind.ROWS and f",{price}," in e.body.decode() for e in entries(left)
            )
    played = await asyncio.to_thread(play, left)
    assert not played.difference
    assert not played.whole
    assert "cut at" in played.summary


@pytest.mark.parametrize("seed", [1])
async def test_a_recording_cut_anywhere_is_replayed_up_to_there_and_says_so(
    gateway: Gateway, settings: Settings, database: ClickHouseManager, tmp_path: Path, seed: int
) -> None:
    async with running(settings):
        await alert(gateway, settings, database)
    data = recorded(settings).read_bytes()
    found = list(entries(recorded(settings)))
    dice = random.Random(seed)
    cut = tmp_path / "cut.rec.zst"
    # In bytes of the file, and at every entry.
    for size in sorted(dice.sample(range(100, len(data)), 60)):
        cut.write_bytes(data[:size])
        left = list(entries(cut))
        assert left == found[: len(left)]
        played = await asyncio.to_thread(play, cut)
        assert not played.difference
        assert played.whole == (left == found)
    for count in range(1, len(found), 3):
        played = await asyncio.to_thread(play, write(cut, found[:count]))
        assert not played.difference
        assert not played.whole
        assert found[count - 1].at.isoformat() in played.summary


@pytest.mark.usefixtures("reaching")
async def test_the_command_compares_with_the_database_and_tries_variants(
    gateway: Gateway,
    settings: Settings,
    database: ClickHouseManager,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with running(settings):
        await alert(gateway, settings, database)
    arguments = [str(recorded(settings)), "--compare", "--change-pct", "3,50"]
    assert await asyncio.to_thread(main, arguments) == 0
    told = capsys.readouterr()
    assert re.search(r"^3 %.* 1 +\d", told.out, re.M)
    assert f"{len(RISE)} rows are the same." in told.err
    database.client.command(
        "ALTER TABLE News.price_tracking DELETE WHERE price = 2.09 SETTINGS mutations_sync = 1"
    )
    assert await asyncio.to_thread(main, arguments) == 1
    assert re.search(r"^Not in ClickHouse: ABCD \d+ 2.09 100 BUY$", capsys.readouterr().err, re.M)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.REQUEST, ["subscribe", 1000, "EFGH"]),
        (Kind.ASK, [8, "rises"]),
        (Kind.ROWS, ["price_tracking", []]),
    ],
)
async def test_the_first_entry_that_the_replay_does_not_make_is_named(
    gateway: Gateway,
    settings: Settings,
    database: ClickHouseManager,
    tmp_path: Path,
    kind: Kind,
    body: list[object],
) -> None:
    async with running(settings):
        await alert(gateway, settings, database)
    found = list(entries(recorded(settings)))
    number = next(n for n, entry in enumerate(found) if entry.kind is kind)
    found[number] = found[number]._replace(body=encoded(body))
    played = await asyncio.to_thread(play, write(tmp_path / "other.rec.zst", found))
    assert f"entry {number + 1} ({kind.name} at " in played.difference


async def test_a_recording_is_for_its_owner_and_has_no_account_in_it(
    settings: Settings,
) -> None:
    async with running(settings) as monitor:
        assert monitor.ibkr_client is not None
        assert monitor.ibkr_client.accounts == [ACCOUNT]
    path = recorded(settings)
    assert NAME.fullmatch(path.name)
    assert f"-{os.getpid()}." in path.name
    assert path.stat().st_mode & 0o777 == 0o600
    unpacked = b"".join(entry.body for entry in entries(path))
    assert b"*******67" in unpacked
    assert ACCOUNT.encode() not in unpacked


async def test_a_folder_that_cannot_be_written_costs_the_recording_and_nothing_else(
    gateway: Gateway,
    settings: Settings,
    database: ClickHouseManager,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").touch()
    async with running(replace(settings, record_folder=tmp_path / "file" / "recordings")):
        await alert(gateway, settings, database)
    ended = [r for r in caplog.records if "The recording ended" in r.getMessage()]
    assert [record.levelno for record in ended] == [logging.ERROR]


def test_the_oldest_recordings_go_first_and_nothing_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "PRUNE_EVERY_BYTES", 1)
    names = [f"newshead-2026010{day}T000000Z-1.rec.zst" for day in range(1, 4)]
    for name in (*names, "other.rec.zst"):
        (tmp_path / name).write_bytes(bytes(1000))
    recorder = Recorder(tmp_path, 2_500, {})
    recorder.open()
    recorder.close()
    left = {path.name for path in tmp_path.iterdir()}
    assert left & {*names, "other.rec.zst"} == {names[1], names[2], "other.rec.zst"}


def test_what_is_no_recording_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.rec.zst"
    path.write_bytes(b"nothing of the kind, but long enough for a head")
    assert main([str(path)]) == 2
    path.write_bytes(packed(MAGIC % (VERSION + 1)))
    assert main([str(path)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2] for line in told] == [
        f"{path} is no recording.",
        f"{path} is of another release.",
    ]
