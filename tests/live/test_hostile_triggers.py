"""Trigger files written by anything but a friend: none stops the monitor, good ones all count."""

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from clickhouse_server import ClickHouseServer
from hypothesis import given, settings
from hypothesis import strategies as st
from monitoring import running, until

from clickhouse_manager import ClickHouseManager
from newshead.core.tickers import parse_ticker
from newshead.monitor.triggers import MAX_BYTES, Trigger, TriggerFolder
from newshead.settings import Settings
from simulator import Gateway, Market

HOSTILE_TEXTS = (
    "'; DROP TABLE News.price_tracking --",
    "$(rm -rf /)",
    "`reboot`",
    "../../etc/passwd",
    "AAPL\nTSLA",
    "\u0410\u0410PL",  # Cyrillic
    "\uff21\uff21PL",  # full width
    "\u0131BM",  # dotless i, upper case I
    "A" * 5000,
    "",
    "\0",
)
NESTED = "[" * 20_000 + "]" * 20_000

contents = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([b"", b"{", b'{"ticker": "AB', NESTED.encode(), b" " * (MAX_BYTES + 1)]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(HOSTILE_TEXTS),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    ).map(lambda value: json.dumps(value).encode()),
    st.one_of(st.sampled_from(HOSTILE_TEXTS), st.integers(), st.none(), st.lists(st.text())).map(
        lambda ticker: json.dumps({"ticker": ticker}).encode()
    ),
)


def holds_a_trigger(content: bytes) -> bool:
    """Whether a file of this content names a ticker."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and parse_ticker(value.get("ticker")) is not None


@settings(max_examples=150, deadline=None)
@given(hostile=st.lists(contents, max_size=6), good=st.integers(1, 3))
def test_good_triggers_are_taken_and_bad_ones_lie_aside(hostile: list[bytes], good: int) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        patch.setattr("newshead.monitor.triggers.SETTLE_S", 0.0)
        folder = TriggerFolder(Path(name) / "triggers")
        expected = sum(holds_a_trigger(content) for content in hostile)
        for number in range(good):
            folder.write(f"GOOD{'ABC'[number]}")
        for number, content in enumerate(hostile):
            (folder.folder / f"immediate_BAD{number}_1.json").write_bytes(content)
        taken = [trigger.ticker for _ in range(3) for trigger in folder.take()]
        assert len([ticker for ticker in taken if ticker.startswith("GOOD")]) >= good
        assert len(taken) == good + expected
        rejected = list(folder.rejected.glob("*")) if folder.rejected.exists() else []
        assert len(rejected) == len(hostile) - expected
        assert set(folder.folder.iterdir()) <= {folder.rejected, folder.tracked}


async def test_hundreds_of_hostile_files_neither_stop_the_monitor_nor_reach_sql(
    settings: Settings,
    database: ClickHouseManager,
    server: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    monkeypatch.setattr("newshead.monitor.triggers.SETTLE_S", 0.2)
    good = [f"G{chr(65 + n // 26)}{chr(65 + n % 26)}" for n in range(40)]
    outside = settings.log_folder.parent / "outside.json"
    outside.write_text('{"ticker": "LINK"}')
    async with (
        Gateway(Market(symbols=[*good, "LAST"])) as gateway,
        running(replace(settings, ibkr_port=gateway.port)) as monitor,
    ):
        folder = settings.trigger_folder
        before = len(server.statements())
        for number, ticker in enumerate(good):
            for each in range(10):
                path = folder / f"immediate_{number}x{each}_1.json"
                kind = chance.randrange(6)
                if kind == 0:
                    path.mkdir()
                elif kind == 1:
                    path.symlink_to(outside)
                elif kind == 2:
                    os.mkfifo(path)
                elif kind == 3:
                    with path.open("wb") as big:
                        big.truncate(100_000_000)
                elif kind == 4:
                    path.write_bytes(chance.randbytes(chance.randrange(300)))
                else:
                    path.write_text(json.dumps({"ticker": chance.choice(HOSTILE_TEXTS)}))
            TriggerFolder(folder).write(ticker)
            await asyncio.sleep(0.01)
        await until(lambda: set(good) <= monitor.active_tickers, "all good tickers")
        await until(
            lambda: len(list((folder / "rejected").iterdir())) == 10 * len(good), "the bad aside"
        )
        assert monitor.active_tickers == set(good)
        written = time.monotonic()
        TriggerFolder(folder).write("LAST")
        await until(lambda: "LAST" in monitor.active_tickers, "one more")
        assert time.monotonic() - written < 5
        sent = " ".join(server.statements()[before:])
    assert "DROP" not in sent
    assert "passwd" not in sent
    assert database.client.command("EXISTS TABLE News.price_tracking") == 1


class Swap:
    """Puts something else in a path's place the moment that it is opened."""

    def __init__(self) -> None:
        self._path = ""
        self._act: Callable[[], object] = str
        # There is no way to remove it: it does nothing but inside of `at`.
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and self._path and str(arguments[0]) == self._path:
            self._path = ""
            self._act()

    @contextmanager
    def at(self, path: Path, act: Callable[[], object]) -> Iterator[None]:
        self._path, self._act = str(path), act
        yield
        assert not self._path, "nothing opened it"


@pytest.fixture(scope="module")
def swap() -> Swap:
    return Swap()


@pytest.mark.parametrize("other", ["pipe", "link", "folder", "socket"])
def test_what_takes_a_triggers_place_as_it_is_opened_is_no_trigger(
    tmp_path: Path, swap: Swap, other: str
) -> None:
    folder = TriggerFolder(tmp_path / "triggers")
    path = folder.write("ABCD")
    secret = tmp_path / "secret"
    secret.write_text('{"ticker": "LINK"}')

    def replace_it() -> None:
        path.unlink()
        if other == "pipe":
            os.mkfifo(path)
        elif other == "link":
            path.symlink_to(secret)
        elif other == "folder":
            path.mkdir()
        else:
            with socket.socket(socket.AF_UNIX) as listener:
                # The system takes short names only.
                listener.bind(os.path.relpath(path))

    taken: list[Trigger] = []
    with swap.at(path, replace_it):
        thread = threading.Thread(target=lambda: taken.extend(folder.take()), daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive(), "it waits for a writer"
    assert taken == []
    assert [each.name for each in folder.rejected.iterdir()] == [path.name]


async def test_a_folder_that_stands_still_stops_no_cycle(
    settings: Settings, database: ClickHouseManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves_on = threading.Event()
    list_it = os.scandir

    def stand_still(path: Path) -> Any:
        moves_on.wait(60)
        return list_it(path)

    async with (
        Gateway(Market(symbols=["ABCD"])) as gateway,
        running(replace(settings, ibkr_port=gateway.port)) as monitor,
    ):
        monkeypatch.setattr(os, "scandir", stand_still)
        TriggerFolder(settings.trigger_folder).write("ABCD")
        await asyncio.sleep(1)
        cycles = monitor.stats["cycles"]
        await until(lambda: monitor.stats["cycles"] > cycles, "a cycle")
        assert not monitor.active_tickers
        moves_on.set()
        await until(lambda: "ABCD" in monitor.active_tickers, "the trigger")
    assert database.client.command("EXISTS TABLE News.price_tracking") == 1


FLOOD = """
import os, sys, time
os.chdir(sys.argv[1])
open("a", "w").close()
print(flush=True)
while True:
    os.rename("a", "immediate_X_1.json")
    os.rename("immediate_X_1.json", "a")
"""


@contextmanager
def flooding(folder: Path) -> Iterator[None]:
    """A process that renames without a pause."""
    command = [sys.executable, "-c", FLOOD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as flood:
        assert flood.stdout is not None
        flood.stdout.readline()
        try:
            yield
            assert flood.poll() is None
        finally:
            flood.kill()


async def test_a_flood_of_renames_stops_neither_the_loop_nor_a_trigger(
    settings: Settings, database: ClickHouseManager
) -> None:
    worst = 0.0
    async with (
        Gateway(Market(symbols=["ABCD"])) as gateway,
        running(replace(settings, ibkr_port=gateway.port)) as monitor,
    ):
        with flooding(settings.trigger_folder):
            for _ in range(30):
                before = time.monotonic()
                await asyncio.sleep(0.1)
                worst = max(worst, time.monotonic() - before - 0.1)
            TriggerFolder(settings.trigger_folder).write("ABCD")
            await until(lambda: "ABCD" in monitor.active_tickers, "the trigger")
    assert worst < 1.0
    assert database.client.command("EXISTS TABLE News.price_tracking") == 1
