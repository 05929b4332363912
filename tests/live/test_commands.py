"""The commands as a user runs them: run_system.py, price_checker.py and the hands-on check."""

import asyncio
import contextlib
import json
import os
import pty
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from clickhouse_server import ClickHouseServer
from commands import (
    PROJECT,
    Command,
    alive,
    children,
    free_port,
    log_in,
    on_server,
    ticking,
    until,
)
from deadlines import DEADLINE_S
from monitoring import connected_to, rate, rows

import demo
import run_system
from clickhouse_manager import ClickHouseManager
from newshead.core.rule import Outcome
from newshead.database.folder import INSERTS_FOLDER
from newshead.database.store import Outbox
from newshead.database.tables import PriceRow
from newshead.monitor.triggers import TriggerFolder
from newshead.process import EXIT_FAILED, EXIT_MISCONFIGURED, EXIT_OK, SAME_SIGNAL_S
from newshead.settings import Settings
from simulator import (
    Gateway,
    GatewayThread,
    Handshake,
    Market,
    MessagesServer,
    ScriptedRating,
    Trade,
)
from simulator.feeds import FeedServer

# What `python -m dashboard` runs.
PAGE = "dashboard/__main__.py"


@pytest.fixture
def database(server: ClickHouseServer) -> Iterator[ClickHouseManager]:
    with connected_to(server) as manager:
        yield manager


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with ticking() as gateway:
        yield gateway


def slices_us(pid: int) -> dict[int, float]:
    """The slice of time that each thread of a process runs for, in microseconds."""
    found = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            text = (thread / "sched").read_text()
            found[int(thread.name)] = int(text.partition("se.slice")[2].split()[1]) / 1000
    return found


Start = Callable[..., Command]


@pytest.mark.parametrize(
    ("script", "arguments", "variables", "told"),
    [
        ("run_system.py", ["--bogus"], {}, "--bogus"),
        ("run_system.py", ["--demo", "--demo-seconds", "x"], {}, "--demo-seconds"),
        ("run_system.py", ["--skip-list"], {"IBKR_PORT": "abc"}, "IBKR_PORT"),
        ("run_system.py", [], {"CLICKHOUSE_PATH": "/dev/null/x"}, "CLICKHOUSE_PATH"),
        ("price_checker.py", ["--bogus"], {}, "--bogus"),
        ("price_checker.py", [], {"IBKR_CLIENT_ID": "-1"}, "IBKR_CLIENT_ID"),
        (PAGE, ["--bogus"], {}, "--bogus"),
        (PAGE, [], {}, "--dashboard"),
        (
            PAGE,
            [],
            {"CLICKHOUSE_HOST": "127.0.0.1", "DASHBOARD_HOST": "0.0.0.0"},
            "DASHBOARD_PASSWORD",
        ),
        (
            PAGE,
            [],
            {
                "CLICKHOUSE_HOST": "127.0.0.1",
                "DASHBOARD_HOST": "192.0.2.1",
                "DASHBOARD_PASSWORD": "x",
            },
            "192.0.2.1:8180",
        ),
    ],
)
def test_wrong_configuration_is_one_sentence_and_exit_code_2(
    start: Start, script: str, arguments: list[str], variables: dict[str, str], told: str
) -> None:
    command = start(script, *arguments, **variables)
    assert command.ends() == EXIT_MISCONFIGURED
    name = "python -m dashboard" if script == PAGE else script
    told_lines = [line for line in command.text().splitlines() if line.startswith(name)]
    assert len(told_lines) == 1
    assert told in told_lines[0]
    assert "Traceback" not in command.text()


def test_settings_come_from_dotenv_below_the_environment(start: Start, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("IBKR_PORT=abc\nIBKR_CLIENT_ID=xyz\n")
    command = start("price_checker.py", IBKR_PORT=free_port())
    assert command.ends() == EXIT_MISCONFIGURED
    assert "IBKR_CLIENT_ID" in command.text()


def test_the_monitor_alone_says_why_it_cannot_reach_ibkr(start: Start, gateway: Gateway) -> None:
    refused = start("price_checker.py", IBKR_PORT=free_port())
    assert refused.ends() == EXIT_FAILED
    assert refused.text().count("No connection to IBKR") == 1
    assert "start TWS or IB Gateway" in refused.text()
    assert "Traceback" not in refused.text()

    with socket.create_connection(("127.0.0.1", gateway.port)) as other:
        other.sendall(b"API\0" + b"\0\0\0\x09v100..187" + b"\0\0\0\x0871\x002\x0010\0\0")
        until(lambda: gateway.requests, lambda: "the other client")
        clashing = start("price_checker.py", IBKR_PORT=gateway.port)
        assert clashing.ends() == EXIT_FAILED
    assert clashing.text().count("No connection to IBKR: Client id 10 is in use") == 1
    assert "IBKR_CLIENT_ID" in clashing.text()


def test_a_waiting_monitor_serves_triggers_and_connects_when_ibkr_comes_up(
    start: Start, tmp_path: Path
) -> None:
    port = free_port()
    command = start("price_checker.py", "--wait", IBKR_PORT=port)
    command.shows("No connection to IBKR")
    TriggerFolder(tmp_path / "triggers").write("ABCD")
    command.shows("Trigger for ABCD: tracking it")
    with GatewayThread(Gateway(Market([Trade(0, "ABCD", 5.0, 100)]), port=port)):
        command.shows("Subscribed ABCD")
        command.shows(": 1 rows, 1 active tickers")
        assert command.stop() == EXIT_OK


def test_the_embedded_database_takes_rows_and_a_second_newshead_touches_nothing(
    start: Start, gateway: Gateway, tmp_path: Path
) -> None:
    first = start("run_system.py", "--skip-list", "--socket", IBKR_PORT=gateway.port)
    first.shows("BENZINGA_API_KEY")
    first.shows("Price monitor initialized")
    TriggerFolder(tmp_path / "triggers").write("ABCD")
    first.shows(": 1 rows, 1 active tickers")

    second = start("run_system.py", "--skip-list", IBKR_PORT=gateway.port)
    assert second.ends() == EXIT_FAILED
    assert "newshead runs in this folder already" in second.text()
    alone = start("price_checker.py", IBKR_PORT=gateway.port)
    assert alone.ends() == EXIT_FAILED
    assert "in use by another newshead" in alone.text()

    assert first.stop() == EXIT_OK
    assert "Traceback" not in first.text()
    manager = ClickHouseManager(Settings(clickhouse_path=tmp_path / "data" / "clickhouse"))
    manager.connect()
    try:
        assert manager.client.command("SELECT count() > 0 FROM News.price_tracking") == 1
    finally:
        manager.close()


def test_a_monitor_that_cannot_go_on_says_why_and_is_started_again(start: Start) -> None:
    with GatewayThread(Gateway(Market())) as thread:
        command = start("run_system.py", "--skip-list", IBKR_PORT=thread.gateway.port)
        command.shows("Connected to IBKR")
        thread.call(thread.gateway.send_error, 1300, "TWS socket port has been reset to 7498")
        command.shows("The price monitor stopped .*IBKR_PORT.* 7498.* is started again")
        command.shows("(?s)Connected to IBKR.*Connected to IBKR")
        assert command.stop() == EXIT_OK
    assert "Traceback" not in command.text()


def test_a_killed_monitor_is_started_again_and_ends_with_its_parent(
    start: Start, server: ClickHouseServer, database: ClickHouseManager, gateway: Gateway
) -> None:
    command = start("run_system.py", "--skip-list", **on_server(server, gateway))
    first_pid = int(command.shows(r"Price monitor started, pid=(\d+)")[1])
    command.shows("Connected to IBKR")
    os.kill(first_pid, signal.SIGKILL)
    command.shows(r"The price monitor ended with code -9")
    second_pid = int(command.shows(rf"pid=(?!{first_pid}\b)(\d+)")[1])
    command.shows(r"(?s)Connected to IBKR.*Connected to IBKR")
    command.process.kill()
    until(lambda: not alive(second_pid), lambda: "the end of the orphan")
    assert database.windows() == {}


def test_a_killed_monitor_goes_on_in_its_windows_and_doubles_nothing(
    start: Start,
    server: ClickHouseServer,
    database: ClickHouseManager,
    gateway: Gateway,
    tmp_path: Path,
) -> None:
    command = start("run_system.py", "--skip-list", **on_server(server, gateway))
    pid = int(command.shows(r"pid=(\d+)")[1])
    command.shows("Connected to IBKR")
    TriggerFolder(tmp_path / "triggers").write("ABCD")
    command.shows(r"(?s)(: 1 rows, 1 active tickers.*){2}")
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    command.shows(r"(?s)Subscribed ABCD.*Subscribed ABCD")
    # The promise is 2 s; a noisy machine gets five times as much.
    assert time.monotonic() - killed < 10
    command.shows(r"(?s)(: 1 rows, 1 active tickers.*){4}")
    assert command.stop() == EXIT_OK
    slots = database.client.query(
        "SELECT count(), uniqExact(intDiv(toUnixTimestamp(timestamp), 2)) "
        "FROM News.price_tracking WHERE ticker = 'ABCD'"
    ).result_rows[0]
    # The last slot's row is written at the end of the old and again by the new monitor only
    # if both ended in it, which a kill does not.
    assert slots[0] == slots[1] >= 4


def test_a_trigger_outlives_a_monitor_that_is_killed_before_the_first_row(
    start: Start, server: ClickHouseServer, database: ClickHouseManager, tmp_path: Path
) -> None:
    folder = TriggerFolder(tmp_path / "triggers")
    with GatewayThread(Gateway(Market(symbols=["ABCD"]))) as thread:
        command = start("run_system.py", "--skip-list", **on_server(server, thread.gateway))
        pid = int(command.shows(r"pid=(\d+)")[1])
        command.shows("Connected to IBKR")
        trigger = folder.write("ABCD")
        command.shows("Subscribed ABCD")
        assert not trigger.exists()
        os.kill(pid, signal.SIGKILL)
        command.shows("(?s)Subscribed ABCD.*Subscribed ABCD")
        thread.call(thread.gateway.trade, "ABCD", 5.0, 100)
        command.shows(": 1 rows, 1 active tickers")
        until(lambda: not list(folder.tracked.iterdir()), lambda: "the end of the trigger")
        assert command.stop() == EXIT_OK
    assert database.windows().keys() == {"ABCD"}


def test_no_kill_parts_an_alert_from_its_copy_in_price_move(
    start: Start, server: ClickHouseServer, database: ClickHouseManager, tmp_path: Path
) -> None:
    server.fault("error", match="INSERT INTO News.price_move")
    prices = iter(5 * 1.005**step for step in range(100))
    with GatewayThread(Gateway(Market(symbols=["ABCD"]))) as thread:
        command = start("run_system.py", "--skip-list", **on_server(server, thread.gateway))
        pid = int(command.shows(r"pid=(\d+)")[1])
        command.shows("Connected to IBKR")
        rate(database, "ABCD", "BUY")
        # Of another program.
        database.client.command("INSERT INTO News.news_alert (ticker, price) VALUES ('WXYZ', 1)")
        TriggerFolder(tmp_path / "triggers").write("ABCD")
        command.shows("Subscribed ABCD")
        while "ALERT 3 for ABCD" not in command.text():
            thread.call(thread.gateway.trade, "ABCD", next(prices), 100)
            time.sleep(0.5)
        os.kill(pid, signal.SIGKILL)
        server.clear_faults()
        command.shows("1 alerts of a price monitor that died are copied")
        until(lambda: rows(database, "price_move"), lambda: "the copy")
        assert command.stop() == EXIT_OK
    alerts = [row["timestamp"] for row in rows(database, "news_alert") if row["ticker"] == "ABCD"]
    copies = [row["current_price_timestamp"] for row in rows(database, "price_move")]
    assert copies == alerts


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_in_the_middle_of_a_hung_insert_and_a_reconnect_takes_its_time_and_no_more(
    start: Start,
    server: ClickHouseServer,
    database: ClickHouseManager,
    gateway: Gateway,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    command = start("run_system.py", "--skip-list", **on_server(server, gateway))
    pid = int(command.shows(r"pid=(\d+)")[1])
    command.shows("Connected to IBKR")
    TriggerFolder(tmp_path / "triggers").write("ABCD")
    command.shows(": 1 rows, 1 active tickers")
    gateway.handshake = Handshake.SILENT
    server.fault("hang", match="INSERT INTO News.price_tracking")
    time.sleep(3)
    gateway.silent = True
    stopped = time.monotonic()
    command.process.send_signal(number)
    assert command.ends() == EXIT_OK
    server.clear_faults()
    # The promise is 5 s; a noisy machine gets twice as much on top.
    assert time.monotonic() - stopped < 15
    assert not alive(pid)
    assert re.search(r"\d+ rows could not be stored and are lost", command.text())
    assert "Traceback" not in command.text()
    assert database.windows().keys() == {"ABCD"}


def use_up_descriptors(pid: int, _: Path) -> None:
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))


def move_the_inserts_folder(_: int, folder: Path) -> None:
    # Not rmdir: there may be a file at the moment.
    inserts = folder / "data" / "clickhouse" / INSERTS_FOLDER
    inserts.rename(folder / "moved")


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="not Linux")
@pytest.mark.parametrize("fault", [use_up_descriptors, move_the_inserts_folder])
def test_a_stop_where_the_engines_driver_fails_is_a_stop_and_counts_what_is_lost(
    start: Start, gateway: Gateway, tmp_path: Path, fault: Callable[[int, Path], None]
) -> None:
    command = start("run_system.py", "--skip-list", IBKR_PORT=gateway.port)
    command.shows("Connected to IBKR")
    TriggerFolder(tmp_path / "triggers").write("ABCD")
    command.shows(": 1 rows, 1 active tickers")
    fault(command.process.pid, tmp_path)
    # The next cycle has rows that it cannot store.
    command.shows("rows are kept until it works")
    assert command.stop() == EXIT_OK
    assert re.search(r"\d+ rows could not be stored and are lost", command.text())
    assert "is started again" not in command.text()


def inserts(server: ClickHouseServer) -> int:
    """How often price rows were sent."""
    return sum("INSERT INTO News.price_tracking" in sql for sql in server.statements())


@pytest.mark.parametrize("supervised", [True, False])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("database")
def test_a_second_signal_ends_everything_at_once_with_exit_code_1(
    start: Start,
    server: ClickHouseServer,
    gateway: Gateway,
    tmp_path: Path,
    number: signal.Signals,
    supervised: bool,
) -> None:
    script = ["run_system.py", "--skip-list"] if supervised else ["price_checker.py"]
    command = start(*script, **on_server(server, gateway))
    command.shows("Connected to IBKR")
    TriggerFolder(tmp_path / "triggers").write("ABCD")
    command.shows(": 1 rows, 1 active tickers")
    started = children(command.process.pid)
    assert len(started) == supervised
    # The cleanup takes its 3 s, since there are rows that it cannot store.
    server.fault("hang", match="INSERT INTO News.price_tracking")
    before = inserts(server)
    until(lambda: inserts(server) > before, lambda: "an insert that hangs")
    command.process.send_signal(number)
    until(lambda: not gateway.sessions, lambda: "the beginning of the cleanup")
    time.sleep(2 * SAME_SIGNAL_S)
    command.process.send_signal(number)
    assert command.ends() == EXIT_FAILED
    until(lambda: not any(map(alive, started)), lambda: f"the end of {started}")
    log = log_in(tmp_path)
    for told in (command.text(), log):
        assert told.splitlines()[-1].endswith(
            "Second signal: ending at once, rows not stored yet are lost."
        )


def test_a_second_signal_ends_newshead_with_the_embedded_engine_and_its_page_at_once(
    start: Start, gateway: Gateway
) -> None:
    command = start(
        *("run_system.py", "--skip-list", "--dashboard"),
        DASHBOARD_PORT=free_port(),
        IBKR_PORT=gateway.port,
    )
    command.shows("The page is at")
    command.shows("Connected to IBKR")
    started = children(command.process.pid)
    assert started
    # A page that hangs; newshead waits 5 s for it.
    for pid in started:
        os.kill(pid, signal.SIGSTOP)
    command.process.send_signal(signal.SIGTERM)
    time.sleep(1)
    command.process.send_signal(signal.SIGINT)
    assert command.ends() == EXIT_FAILED
    until(lambda: not any(map(alive, started)), lambda: f"the end of {started}")


def test_a_stop_that_reaches_the_monitor_too_or_comes_doubled_is_one(
    start: Start,
    server: ClickHouseServer,
    database: ClickHouseManager,
    gateway: Gateway,
    tmp_path: Path,
) -> None:
    command = start("run_system.py", "--skip-list", **on_server(server, gateway))
    command.shows("Connected to IBKR")
    TriggerFolder(tmp_path / "triggers").write("ABCD")
    command.shows(": 1 rows, 1 active tickers")
    pids = [*children(command.process.pid), command.process.pid]
    # As a service manager does it, and `timeout` of a shell.
    for pid in pids * 2:
        os.kill(pid, signal.SIGTERM)
    assert command.ends() == EXIT_OK
    assert not any(map(alive, pids))
    assert "Second signal" not in command.text()
    assert "ERROR" not in command.text()
    assert database.windows().keys() == {"ABCD"}


@pytest.mark.parametrize("embedded", [True, False])
@pytest.mark.usefixtures("database")
def test_output_that_nobody_reads_keeps_nothing_from_ending(
    server: ClickHouseServer, gateway: Gateway, embedded: bool, tmp_path: Path
) -> None:
    variables = {"IBKR_PORT": gateway.port} if embedded else on_server(server, gateway)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    with subprocess.Popen(
        [sys.executable, str(PROJECT / "run_system.py"), "--skip-list"],
        cwd=tmp_path,
        env=dict(os.environ) | {name: str(value) for name, value in variables.items()},
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=writing,
    ) as process:
        try:
            until(lambda: gateway.requests, lambda: "the connection to IBKR")
            pids = [*children(process.pid), process.pid]
            process.send_signal(signal.SIGTERM)
            # The promise is 10 s; a noisy machine gets as much on top.
            assert process.wait(20) == EXIT_OK
            assert "Connected to IBKR" in log_in(tmp_path)
            assert not any(map(alive, pids))
        finally:
            process.kill()
            os.close(writing)
            os.close(reading)


def serves(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return "<title>newshead</title>" in httpx.get(url).text
    return False


@pytest.mark.usefixtures("database")
def test_the_page_is_a_process_that_is_started_again_and_ends_with_newshead(
    start: Start, server: ClickHouseServer, gateway: Gateway
) -> None:
    port = free_port()
    command = start(
        "run_system.py",
        *("--skip-list", "--dashboard"),
        DASHBOARD_PORT=port,
        **on_server(server, gateway),
    )
    first_pid = int(command.shows(r"Page started, pid=(\d+)")[1])
    url = command.shows(r"The page is at (http://127.0.0.1:\d+/)")[1]
    assert serves(url)
    os.kill(first_pid, signal.SIGKILL)
    command.shows("The page ended with code -9 .* is started again")
    second_pid = int(command.shows(rf"Page started, pid=(?!{first_pid}\b)(\d+)")[1])
    until(lambda: serves(url), lambda: "the page")
    assert command.stop() == EXIT_OK
    assert not alive(second_pid)
    assert "The price monitor ended" not in command.text()
    assert "Traceback" not in command.text()


def test_with_the_embedded_engine_the_page_is_served_by_newshead_itself(
    start: Start, gateway: Gateway, tmp_path: Path
) -> None:
    command = start(
        "run_system.py",
        *("--skip-list", "--dashboard"),
        DASHBOARD_PORT=free_port(),
        IBKR_PORT=gateway.port,
    )
    url = command.shows(r"The page is at (\S+)")[1]
    command.shows("Connected to IBKR")
    TriggerFolder(tmp_path / "triggers").write("ABCD")
    command.shows(": 1 rows, 1 active tickers")
    assert serves(url)
    for path in ("earlier/sessions", "earlier/windows?ticker=ABCD", "results/figures"):
        assert httpx.get(f"{url}{path}", timeout=DEADLINE_S).status_code == 200, path
    with httpx.stream("GET", f"{url}feed", timeout=DEADLINE_S) as answer:
        told = answer.iter_text()
        until(lambda: "ABCD" in next(told), lambda: "ABCD on the page")
        # A viewer keeps nothing from ending.
        assert command.stop() == EXIT_OK
    assert not serves(url)
    assert "Traceback" not in command.text()
    assert "ERROR" not in command.text()


@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.usefixtures("database")
def test_a_page_that_cannot_be_served_is_told_once_and_the_monitor_goes_on(
    start: Start, server: ClickHouseServer, gateway: Gateway, embedded: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = start(
            "run_system.py",
            *("--skip-list", "--dashboard"),
            DASHBOARD_PORT=port,
            **({"IBKR_PORT": gateway.port} if embedded else on_server(server, gateway)),
        )
        command.shows(rf"The page cannot be served at 127.0.0.1:{port} \(Address already in use\)")
        command.shows("Connected to IBKR")
        time.sleep(2)
        assert command.stop() == EXIT_OK
    assert command.text().count("ERROR") == 1
    assert "Traceback" not in command.text()


def test_run_system_waits_for_a_server_that_is_not_there(
    start: Start, server: ClickHouseServer, database: ClickHouseManager, gateway: Gateway
) -> None:
    server.stop()
    command = start("run_system.py", "--skip-list", **on_server(server, gateway))
    command.shows("Connection refused.*Retrying every")
    server.start()
    command.shows("Connected to IBKR")
    assert command.stop() == EXIT_OK
    assert "Traceback" not in command.text()
    assert database.windows() == {}


def test_no_secret_appears_in_a_log(
    start: Start, server: ClickHouseServer, gateway: Gateway, tmp_path: Path
) -> None:
    secret = "Tr0ub4dor-and-3"
    command = start(
        "run_system.py",
        "--socket",
        BENZINGA_API_KEY=secret,
        CLICKHOUSE_PASSWORD=secret,
        **on_server(server, gateway),
    )
    command.shows("Retrying every")
    assert command.stop() == EXIT_OK
    assert "password" in command.text()
    assert secret not in command.text()
    assert secret not in log_in(tmp_path)


@pytest.mark.skipif(
    not Path("/proc/self/sched").exists()
    or tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) < (6, 12),
    reason="Linux older than 6.12, or another system: threads cannot ask for short slices",
)
def test_the_loops_of_prices_and_news_ask_for_short_slices_and_no_other_thread_does(
    start: Start, bare_server: ClickHouseServer, gateway: Gateway
) -> None:
    command = start(
        *("run_system.py", "--skip-list", "--socket", "--any", "--dashboard"),
        BENZINGA_API_KEY="x",
        BENZINGA_STREAM_URL=f"ws://127.0.0.1:{free_port()}/",
        DASHBOARD_PORT=free_port(),
        **on_server(bare_server, gateway),
    )
    prices = int(command.shows(r"Price monitor started, pid=(\d+)")[1])
    page = int(command.shows(r"Page started, pid=(\d+)")[1])
    command.shows("Connected to IBKR")
    command.shows("The page is at")
    until(lambda: slices_us(command.process.pid)[command.process.pid] == 100, lambda: "news")
    for pid in (prices, command.process.pid):
        slices = slices_us(pid)
        assert slices.pop(pid) == 100
        assert slices
        assert min(slices.values()) > 100
    assert min(slices_us(page).values()) > 100


def test_what_is_loaded_at_the_start_is_left_out_of_collections_of_garbage() -> None:
    code = """
import asyncio, gc
from newshead.process import run_promptly
async def main():
    run_promptly(loaded_after_s=0.2)
    begun = gc.isenabled()
    while not gc.isenabled():
        await asyncio.sleep(0.01)
    print(begun, gc.get_freeze_count() > 1000)
asyncio.run(main())"""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "False True\n"


def test_neither_prices_nor_news_load_pandas(
    start: Start, server: ClickHouseServer, database: ClickHouseManager, gateway: Gateway
) -> None:
    command = start("run_system.py", "--skip-list", **on_server(server, gateway))
    prices = int(command.shows(r"pid=(\d+)")[1])
    # Both write how they fare, which is an insert.
    until(
        lambda: {"price monitor", "rating"} <= {r["part"] for r in rows(database, "part_status")},
        lambda: "rows of both",
    )
    for pid in (prices, command.process.pid):
        assert "/pandas/" not in Path(f"/proc/{pid}/maps").read_text()


def test_sigterm_ends_both_processes_in_order(
    start: Start,
    server: ClickHouseServer,
    database: ClickHouseManager,
    gateway: Gateway,
    tmp_path: Path,
) -> None:
    command = start("run_system.py", "--skip-list", **on_server(server, gateway))
    pid = int(command.shows(r"pid=(\d+)")[1])
    command.shows("Connected to IBKR")
    TriggerFolder(tmp_path / "triggers").write("ABCD")
    command.shows(": 1 rows, 1 active tickers")
    assert command.stop() == EXIT_OK
    assert not alive(pid)
    assert "Traceback" not in command.text()
    assert "is started again" not in command.text()
    assert database.windows().keys() == {"ABCD"}
    # One log for both processes, each line once.
    logged = log_in(tmp_path).splitlines()
    assert sorted(logged) == sorted(command.text().splitlines())
    assert len([line for line in logged if "Trigger for ABCD" in line]) == 1


def test_a_fresh_session_moves_the_last_one_and_keep_session_does_not(
    start: Start, server: ClickHouseServer, database: ClickHouseManager, gateway: Gateway
) -> None:
    outbox = Outbox()
    at = datetime.now(UTC) - timedelta(minutes=5)
    outbox.add([PriceRow(at, "ABCD", 1.0, 1, "x", "neutral", "HOLD", "low")])
    outbox.flush(database.client)

    command = start("run_system.py", "--skip-list", "--keep-session", **on_server(server, gateway))
    command.shows("Connected to IBKR")
    assert command.stop() == EXIT_OK
    assert "ABCD" in database.windows()

    command = start("run_system.py", **on_server(server, gateway))
    command.shows("Fresh session: 1 rows of price_tracking moved to price_tracking_history")
    command.shows("News.float_list is unchanged")
    assert command.stop() == EXIT_OK
    assert database.windows() == {}
    assert database.client.command("SELECT count() FROM News.price_tracking_history") == 1


class _Refusing(BaseHTTPRequestHandler):
    """A news stream that refuses every key."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_error(401)

    def log_message(self, *_: object) -> None:
        pass


def test_a_refused_key_ends_the_news_and_not_the_prices(
    start: Start, gateway: Gateway, tmp_path: Path
) -> None:
    secret = "Tr0ub4dor-and-3"
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as refusing:
        threading.Thread(target=refusing.serve_forever, daemon=True).start()
        command = start(
            *("run_system.py", "--skip-list", "--socket", "--any"),
            BENZINGA_API_KEY=secret,
            BENZINGA_STREAM_URL=f"ws://127.0.0.1:{refusing.server_port}/",
            IBKR_PORT=gateway.port,
        )
        command.shows("HTTP 401.*BENZINGA_API_KEY.*until then no news comes from it")
        TriggerFolder(tmp_path / "triggers").write("ABCD")
        command.shows(": 1 rows, 1 active tickers")
        assert command.stop() == EXIT_OK
        refusing.shutdown()
    assert "Traceback" not in command.text()
    assert secret not in command.text()


def test_a_trigger_with_a_headline_is_tracked_rated_and_stored_without_any_stream(
    start: Start, gateway: Gateway, tmp_path: Path
) -> None:
    command = start("run_system.py", "--skip-list", IBKR_PORT=gateway.port)
    command.shows("Price monitor initialized")
    trigger = {"ticker": "ABCD", "headline": "ABCD rises", "url": 7}
    path = tmp_path / "triggers" / "immediate_ABCD_1.json"
    path.with_suffix(".new").write_text(json.dumps(trigger))
    path.with_suffix(".new").rename(path)
    command.shows("immediate_ABCD_1.json' counts as if it had no url")
    command.shows("News ABCD: ABCD rises .*HOLD low, from a trigger, row after")
    command.shows(": 1 rows, 1 active tickers")
    assert command.stop() == EXIT_OK
    assert list((tmp_path / "triggers" / "news").iterdir()) == []


async def test_without_any_key_press_releases_become_rows(start: Start, gateway: Gateway) -> None:
    async with FeedServer() as feed:
        command = start(
            *("run_system.py", "--skip-list", "--socket", "--any"),
            NEWS_SOURCES="wires",
            WIRE_FEEDS=feed.url,
            IBKR_PORT=gateway.port,
        )
        await asyncio.to_thread(command.shows, "nothing will alert: no key is set")
        feed.publish("Firm wins", "(NASDAQ: ABCD)")
        await asyncio.to_thread(command.shows, "News ABCD: Firm wins .*HOLD low, trigger after")
        await asyncio.to_thread(command.shows, ": 1 rows, 1 active tickers")
        assert await asyncio.to_thread(command.stop) == EXIT_OK


async def test_a_press_release_and_the_news_of_a_trigger_lead_to_alerts(
    start: Start, tmp_path: Path
) -> None:
    ratings = dict.fromkeys(("ABCD", "EFGH"), ScriptedRating("BUY", "high", "It rises."))
    rise = [
        Trade(second, ticker, 5 + second / 20, 100) for second in range(120) for ticker in ratings
    ]
    with GatewayThread(Gateway(Market(rise))) as thread:
        async with FeedServer() as feed, MessagesServer(ratings) as service:
            command = start(
                *("run_system.py", "--skip-list", "--socket", "--any"),
                NEWS_SOURCES="wires",
                WIRE_FEEDS=feed.url,
                ANTHROPIC_API_KEY="any",
                ANTHROPIC_BASE_URL=service.url,
                IBKR_PORT=thread.gateway.port,
            )
            await asyncio.to_thread(command.shows, "Watching the folder")
            feed.publish("Firm wins", "(NASDAQ: ABCD)")
            path = tmp_path / "triggers" / "immediate_EFGH_1.json"
            path.with_suffix(".new").write_text('{"ticker": "EFGH", "headline": "Other wins"}')
            path.with_suffix(".new").rename(path)
            for ticker in ratings:
                await asyncio.to_thread(command.shows, f"ALERT . for {ticker}")
            assert await asyncio.to_thread(command.stop) == EXIT_OK


def test_a_misspelt_variable_is_a_warning_and_in_the_env_file_one_sentence(
    start: Start, gateway: Gateway, tmp_path: Path
) -> None:
    command = start("run_system.py", "--skip-list", IBKR_PORT=gateway.port, BENZINGA_APIKEY="x")
    command.shows(
        "variable BENZINGA_APIKEY is unknown and has no effect: is BENZINGA_API_KEY meant"
    )
    command.shows("Price monitor initialized")
    assert command.stop() == EXIT_OK
    (tmp_path / ".env").write_text("IBKR_PROT=4001\n")
    command.output.unlink()
    command = start("run_system.py", "--skip-list")
    assert command.ends() == EXIT_MISCONFIGURED
    assert command.text() == "run_system.py: .env, line 1: IBKR_PROT must be IBKR_PORT.\n"


def test_an_unknown_source_is_one_sentence(start: Start) -> None:
    command = start("run_system.py", "--socket", NEWS_SOURCES="benzinga reuters")
    assert command.ends() == EXIT_MISCONFIGURED
    assert command.text() == (
        "run_system.py: NEWS_SOURCES must name sources (benzinga, alpaca, wires), not 'reuters'.\n"
    )


def test_a_headline_goes_from_the_stream_to_price_rows(
    start: Start,
    server: ClickHouseServer,
    database: ClickHouseManager,
    gateway: Gateway,
    tmp_path: Path,
) -> None:
    secret = "Tr0ub4dor-and-3"
    script = tmp_path / "script.jsonl"
    script.write_text('{"seconds": 3, "title": "ABCD rises", "tickers": ["NYSE:ABCD"]}')
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "simulator.news", "--port", str(port), "--script", str(script)],
        cwd=PROJECT,
        stderr=subprocess.DEVNULL,
    ) as stream:
        command = start(
            *("run_system.py", "--skip-list", "--socket", "--any"),
            BENZINGA_API_KEY=secret,
            BENZINGA_STREAM_URL=f"ws://127.0.0.1:{port}/",
            **on_server(server, gateway),
        )
        command.shows("Trigger for ABCD: tracking it")
        command.shows("News ABCD: ABCD rises .* HOLD low, trigger after .* ms, row after .* ms")
        command.shows(": 1 rows, 1 active tickers")
        assert command.stop() == EXIT_OK
        stream.terminate()
    assert "Traceback" not in command.text()
    assert secret not in command.text()
    news = database.newest_news("ABCD")
    assert news is not None
    assert news.headline == "ABCD rises"
    assert database.windows().keys() == {"ABCD"}


def test_a_short_demo_reads_no_settings_of_the_user(start: Start, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("IBKR_HOST=192.0.2.1\nCLICKHOUSE_HOST=192.0.2.1\n")
    with contextlib.ExitStack() as stack:
        # Its usual port is taken, by this test or by another.
        with contextlib.suppress(OSError):
            stack.enter_context(socket.create_server(("127.0.0.1", Settings().dashboard_port)))
        command = start(
            "run_system.py",
            *("--demo", "--demo-seconds", "3"),
            IBKR_PORT="abc",
            DASHBOARD_PASSWORD="x",
        )
        url = command.shows("^Watch it: (http://127.0.0.1:[0-9]+/)")[1]
        assert not url.endswith(f":{Settings().dashboard_port}/")
        until(lambda: serves(url), lambda: "the page")
        assert command.ends() == EXIT_OK
    assert command.text().count("not tested") == len(demo.ACTORS)
    assert "Traceback" not in command.text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".env", command.output.name]


def test_the_demo_leaves_the_page_up_until_enter_and_ends_with_what_to_do_next(
    tmp_path: Path,
) -> None:
    ours, its = pty.openpty()
    output = tmp_path / "output"
    with output.open("wb") as file:
        demo_ = subprocess.Popen(
            [sys.executable, str(PROJECT / "run_system.py"), "--demo", "--demo-seconds", "3"],
            cwd=tmp_path,
            stdin=its,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    with demo_, os.fdopen(ours, "wb", buffering=0) as terminal:
        until(lambda: "Press Enter to end" in output.read_text(), output.read_text)
        found = re.search("^Watch it: (.*)", output.read_text(), re.MULTILINE)
        assert found is not None
        assert serves(found[1])
        terminal.write(b"\n")
        assert demo_.wait(DEADLINE_S) == EXIT_OK
    os.close(its)
    assert output.read_text().endswith(demo.NEXT_STEPS + "\n")
    assert "--check" in demo.NEXT_STEPS
    assert max(map(len, demo.NEXT_STEPS.splitlines())) <= demo.WIDTH


def test_the_demo_fails_when_what_was_expected_did_not_come_about(
    capsys: pytest.CaptureFixture[str],
) -> None:
    nothing = demo.Result(Outcome(), False, "HOLD", 0)
    results = {actor.ticker: nothing for actor in demo.ACTORS}
    stats = {"ibkr_ticks_received": 0.0, "alerts_triggered": 0.0}
    assert not demo.report(results, stats, run_system.DEMO_S)
    told = capsys.readouterr().out
    assert "FAILED" in told
    assert max(map(len, told.splitlines())) <= demo.WIDTH


@pytest.mark.parametrize("port_from", ["IBKR_PORT", "--port"])
def test_the_hands_on_check_shows_trades(start: Start, gateway: Gateway, port_from: str) -> None:
    arguments = ["--ticker", "ABCD", "--seconds", "2"]
    if port_from == "--port":
        command = start(
            "testfiles/test_ibkr_connection.py", *arguments, "--port", str(gateway.port)
        )
    else:
        command = start("testfiles/test_ibkr_connection.py", *arguments, IBKR_PORT=gateway.port)
    assert command.ends() == EXIT_OK
    assert "OK: " in command.text()
    assert {request.client_id for request in gateway.requests} == {99}


@pytest.mark.parametrize(
    ("ticker", "told"),
    [("NOPE", "IBKR knows no US stock NOPE"), ("QUIET", r"market is closed|should be open")],
)
def test_the_hands_on_check_says_why_no_trades_came(start: Start, ticker: str, told: str) -> None:
    with GatewayThread(Gateway(Market(symbols=["QUIET"]))) as thread:
        command = start(
            "testfiles/test_ibkr_connection.py",
            *("--ticker", ticker, "--seconds", "1", "--port", str(thread.gateway.port)),
        )
        assert command.ends() == EXIT_FAILED
    assert re.search(told, command.text().split("FAILED")[1])


def test_the_hands_on_check_fails_without_a_gateway(start: Start) -> None:
    command = start("testfiles/test_ibkr_connection.py", "--port", str(free_port()))
    assert command.ends() == EXIT_FAILED
    assert "start TWS or IB Gateway" in command.text()
