"""run_system.py and its price monitor: settings, locks, signs of life, what is handed over."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clickhouse_server import ClickHouseServer
from commands import PROJECT, Command, alive, free_port, on_server, ticking
from monitoring import connected_to

from clickhouse_manager import ClickHouseManager
from newshead.database.owner import OwnedError, Owner, give_up, own, renew
from newshead.monitor.triggers import TriggerFolder
from newshead.process import EXIT_FAILED, EXIT_OK
from simulator import Gateway

Start = Callable[..., Command]


@pytest.fixture
def database(server: ClickHouseServer) -> Iterator[ClickHouseManager]:
    with connected_to(server) as manager:
        yield manager


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with ticking() as gateway:
        yield gateway


@pytest.mark.parametrize("embedded", [True, False])
def test_a_trigger_that_the_news_side_cannot_write_reaches_the_monitor_all_the_same(
    start: Start, server: ClickHouseServer, gateway: Gateway, tmp_path: Path, embedded: bool
) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text('{"seconds": 3, "title": "ABCD rises", "tickers": ["NYSE:ABCD"]}')
    (tmp_path / "triggers").write_text("no folder")
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "simulator.news", "--port", str(port), "--script", str(script)],
        cwd=PROJECT,
        stderr=subprocess.DEVNULL,
    ) as stream:
        command = start(
            *("run_system.py", "--skip-list", "--socket", "--any"),
            BENZINGA_API_KEY="x",
            BENZINGA_STREAM_URL=f"ws://127.0.0.1:{port}/",
            **({"IBKR_PORT": gateway.port} if embedded else on_server(server, gateway)),
        )
        try:
            command.shows("No trigger for ABCD .*the price monitor was told of it directly")
            command.shows("Subscribed ABCD")
            assert command.stop() == EXIT_OK
        finally:
            stream.terminate()


@pytest.mark.usefixtures("database")
def test_a_monitor_that_hangs_is_killed_and_started_again(
    start: Start, server: ClickHouseServer, gateway: Gateway
) -> None:
    command = start("run_system.py", "--skip-list", **on_server(server, gateway))
    pid = int(command.shows(r"Price monitor started, pid=(\d+)")[1])
    command.shows("Connected to IBKR")
    os.kill(pid, signal.SIGSTOP)
    stopped = time.monotonic()
    command.shows("Price monitor hangs: no sign of life for 20 s. It is killed.")
    # The promise is 30 s.
    assert time.monotonic() - stopped < 30
    command.shows("(?s)Connected to IBKR.*Connected to IBKR")
    assert command.stop() == EXIT_OK


def test_a_monitor_that_waits_for_the_database_gives_signs_of_life(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with subprocess.Popen(
        [sys.executable, str(PROJECT / "price_checker.py"), "--wait", "--pulse", str(writing)],
        cwd=tmp_path,
        env=os.environ | {"CLICKHOUSE_HOST": "127.0.0.1", "CLICKHOUSE_PORT": str(free_port())},
        pass_fds=[writing],
        stderr=subprocess.DEVNULL,
    ) as monitor:
        os.close(writing)
        try:
            assert [os.read(reading, 1) for _ in range(4)] == [b"\n"] * 4
        finally:
            monitor.terminate()
    os.close(reading)


@pytest.mark.usefixtures("database")
def test_an_edited_dotenv_does_not_count_for_a_monitor_that_is_started_again(
    start: Start, server: ClickHouseServer, gateway: Gateway, tmp_path: Path
) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"IBKR_PORT={gateway.port}\n")
    settings = on_server(server, gateway)
    del settings["IBKR_PORT"]
    command = start("run_system.py", "--skip-list", **settings)
    pid = int(command.shows(r"Price monitor started, pid=(\d+)")[1])
    command.shows("Connected to IBKR")
    dotenv.write_text(f"IBKR_PORT={free_port()}\nIBKR_CLIENT_ID=77\n")
    os.kill(pid, signal.SIGKILL)
    command.shows("(?s)client_id=10.*Connected to IBKR.*client_id=10")
    assert command.stop() == EXIT_OK


def test_a_start_waits_for_the_end_of_a_monitor_whose_newshead_was_killed(
    start: Start,
    server: ClickHouseServer,
    database: ClickHouseManager,
    gateway: Gateway,
    tmp_path: Path,
) -> None:
    first = start("run_system.py", "--skip-list", **on_server(server, gateway))
    orphan = int(first.shows(r"Price monitor started, pid=(\d+)")[1])
    first.shows("Connected to IBKR")
    TriggerFolder(tmp_path / "triggers").write("ABCD")
    first.shows(": 1 rows, 1 active tickers")
    # It takes its time to end, and has rows to store until then.
    os.kill(orphan, signal.SIGSTOP)
    first.process.kill()
    first.ends()
    second = start("run_system.py", "--skip-list", **on_server(server, gateway))
    second.shows("another newshead has this folder; waiting for its end")
    assert "Fresh session" not in second.text().partition("waiting for its end")[2]
    os.kill(orphan, signal.SIGCONT)
    second.shows("Fresh session: [1-9].* rows of price_tracking")
    assert not alive(orphan)
    second.shows("Connected to IBKR")
    assert database.windows() == {}
    assert second.stop() == EXIT_OK


def test_a_second_newshead_in_a_folder_is_refused_after_ten_seconds(
    start: Start, gateway: Gateway
) -> None:
    first = start("run_system.py", "--skip-list", IBKR_PORT=gateway.port)
    first.shows("Connected to IBKR")
    second = start("run_system.py", "--skip-list", IBKR_PORT=gateway.port)
    assert second.ends() == EXIT_FAILED
    assert len(re.findall("waiting for its end", second.text())) == 1
    assert "newshead runs in this folder already" in second.text()


@pytest.mark.usefixtures("database")
def test_a_second_newshead_on_a_database_is_refused_and_moves_nothing(
    start: Start, server: ClickHouseServer, gateway: Gateway, tmp_path: Path
) -> None:
    first = start("run_system.py", "--skip-list", **on_server(server, gateway))
    first.shows("Connected to IBKR")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    settings = on_server(server, gateway)
    refused = start("run_system.py", "--skip-list", folder=elsewhere, **settings)
    assert refused.ends() == EXIT_FAILED
    assert f"on {socket.gethostname()}, in {tmp_path}. Stop that one" in refused.text()
    assert "Fresh session" not in refused.text()
    assert first.stop() == EXIT_OK
    # At once: the first has said that it ended.
    later = start("run_system.py", "--skip-list", folder=elsewhere, **settings)
    later.shows("Fresh session")
    later.process.kill()
    # The same folder is never another.
    again = start("run_system.py", "--skip-list", folder=elsewhere, **settings)
    again.shows("(?s)waiting for its end.*Fresh session|Fresh session.*Fresh session")


def test_of_two_owners_that_come_at_once_the_first_goes_on(database: ClickHouseManager) -> None:
    one, other = Owner("1", "here", "a"), Owner("2", "there", "a")
    renew(database, one)
    with pytest.raises(OwnedError, match="on here, in a"):
        own(database, other)
    own(database, one)
    give_up(database, one)
    own(database, other._replace(id="3"))


def test_an_owner_that_says_nothing_for_fifteen_seconds_is_no_more(
    database: ClickHouseManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    own(database, Owner("1", "here", "a"))
    with pytest.raises(OwnedError):
        own(database, Owner("2", "there", "a"))
    monkeypatch.setattr("newshead.database.owner.SILENT_S", 0)
    own(database, Owner("3", "there", "a"))


@pytest.mark.usefixtures("database")
def test_a_monitor_that_was_stopped_for_a_while_says_for_how_long_and_what_it_cost(
    start: Start, server: ClickHouseServer, gateway: Gateway, tmp_path: Path
) -> None:
    command = start("run_system.py", "--skip-list", **on_server(server, gateway))
    pid = int(command.shows(r"Price monitor started, pid=(\d+)")[1])
    command.shows("Connected to IBKR")
    TriggerFolder(tmp_path / "triggers").write("ABCD")
    command.shows(": 1 rows, 1 active tickers")
    os.kill(pid, signal.SIGSTOP)
    time.sleep(8)
    os.kill(pid, signal.SIGCONT)
    told = command.shows(r"Newshead stood still for (\d+) s: (\d+) slots of 2 s have no rows")
    # A second of it may have been a pause that was due; a noisy machine adds to it.
    assert 6 <= int(told[1]) < 40
    assert int(told[2]) in (int(told[1]) // 2, int(told[1]) // 2 - 1)
    assert command.stop() == EXIT_OK
