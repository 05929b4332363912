"""What fails no call and yet stops rows is told: a database that hangs, a folder moved away."""

import asyncio
import json
import logging
from pathlib import Path

import pytest
from commands import Command
from monitoring import until

from newshead.loop import in_background
from newshead.monitor import database_watch
from newshead.process import EXIT_OK
from simulator import Gateway, GatewayThread, Market, Trade


async def test_cycles_that_do_not_end_are_told_once_and_so_is_that_they_go_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(database_watch, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(database_watch, "HANGS_AFTER_S", 0.05)
    cycles = looks = 0

    def ended() -> int:
        nonlocal looks
        looks += 1
        return cycles

    async with in_background(database_watch.watch_cycles(ended)):
        await until(lambda: looks > 20, "the looks")
        assert caplog.text.count("No cycle has ended for") == 1
        cycles += 1
        await until(lambda: "Cycles end again" in caplog.text, "the end")
        assert caplog.text.count("No cycle has ended for") == 1


async def test_a_data_folder_that_is_moved_away_is_told_and_takes_its_rows_once_it_is_back(
    tmp_path: Path,
) -> None:
    rise = [Trade(float(second), "ABCD", 5 + second / 100, 100) for second in range(120)]
    with GatewayThread(Gateway(Market(rise))) as thread:
        command = Command(tmp_path, "run_system.py", "--skip-list", IBKR_PORT=thread.gateway.port)
        try:
            await asyncio.to_thread(command.shows, "Watching the folder")
            trigger = tmp_path / "triggers" / "immediate_ABCD_1.json"
            trigger.with_suffix(".new").write_text(json.dumps({"ticker": "ABCD"}))
            trigger.with_suffix(".new").rename(trigger)
            await asyncio.to_thread(command.shows, ": 1 rows, 1 active")
            folder = tmp_path / "data" / "clickhouse"
            folder.rename(tmp_path / "elsewhere")
            await asyncio.to_thread(command.shows, "was moved or removed: no row is stored")
            (tmp_path / "elsewhere").rename(folder)
            await asyncio.to_thread(command.shows, "The database's folder is back")
            stored = command.text().count(": 1 rows, 1 active")
            await until(lambda: command.text().count(": 1 rows, 1 active") > stored, "new rows")
            assert await asyncio.to_thread(command.stop) == EXIT_OK
        finally:
            command.process.kill()
    assert "rows could not be stored" not in command.text()
