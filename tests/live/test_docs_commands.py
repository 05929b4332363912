"""Commands that README and docs show do what is said there; free ports stand in for the usual."""

import contextlib
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
from deadlines import DEADLINE_S
from monitoring import connected
from watching import write_prices

from newshead.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]
PORTS = ("7496", "7497", "8765", "8766")
# A person starts the next command once the simulator listens.
LISTENS = "until (: > /dev/tcp/127.0.0.1/\\1) 2> /dev/null; do sleep 0.1; done"
# At the end bash waits for what it runs.
END_WITH_CHILD = "trap : TERM\n"

Run = Callable[[str], Path]


def block_with(page: str, text: str) -> str:
    """The page's one code block that holds `text`."""
    blocks = re.findall(r"^```\n(.*?)^```$", (PROJECT / page).read_text(), re.M | re.S)
    [found] = [block for block in blocks if text in block]
    return str(found)


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Start commands as a person would in a checkout; the file with their output."""
    started: list[subprocess.Popen[bytes]] = []
    ports = {usual: free_port() for usual in PORTS}

    def start(commands: str) -> Path:
        commands = re.sub("|".join(PORTS), lambda usual: ports[usual[0]], commands)
        commands = commands.replace(".venv/bin/python", sys.executable)
        commands = re.sub(r"--port (\d+) +&.*", rf"--port \1 & {LISTENS}", commands)
        commands = re.sub(r" (\S+\.py)\b", rf" {PROJECT}/\1", commands)
        output = tmp_path / "output"
        with output.open("wb") as file:
            started.append(
                subprocess.Popen(
                    ["/bin/bash", "-c", END_WITH_CHILD + commands],
                    cwd=tmp_path,
                    env=os.environ | {"PYTHONPATH": str(PROJECT), "IBKR_PORT": ports["7497"]},
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
        return output

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(DEADLINE_S)


def shows(output: Path, *patterns: str) -> None:
    """Wait until the output holds each pattern."""
    deadline = time.monotonic() + DEADLINE_S
    while missing := [p for p in patterns if not re.search(p, output.read_text())]:
        assert time.monotonic() < deadline, f"{missing}: {output.read_text()}"
        time.sleep(0.1)


def test_newshead_runs_against_the_simulators_as_in_the_readme(run: Run) -> None:
    output = run(block_with("README.md", "python -m simulator.news"))
    shows(
        output,
        "IBKR connection established",
        "Connected to the news stream",
        r"Trigger for \w+: tracking it",
        r"Cycle \d+: [1-9]\d* rows",
        r"News \w+: .* BUY \w+, trigger after",
        r"ALERT \d for OCGN",
    )


def test_a_day_is_replayed_as_in_its_document(run: Run) -> None:
    output = run(block_with("docs/replay.md", "> trades.csv"))
    shows(output, re.escape(block_with("docs/replay.md", "against the live rule")))


def test_stored_sessions_are_replayed_as_in_their_document(run: Run, tmp_path: Path) -> None:
    with connected(Settings(clickhouse_path=tmp_path / "data/clickhouse")) as database:
        database.create_tables()
        write_prices(database, "ABCD", [2.0, 2.0, 2.0, 2.07, 2.09, 2.2])
    output = run(block_with("docs/replay.md", "--history"))
    shows(output, r"3 % .* \+2 -0 alerts\n4 % .* \+1 -0 alerts\n5 % .* the same\n")


def test_an_installation_is_checked_as_in_operations(run: Run) -> None:
    checks = block_with("docs/operations.md", "ibapi.__version__").partition(".venv/bin/python run")
    output = run(checks[0])
    shows(output, r"(?m)^10\.\d+\.\d+$", r"(?s)OK: .* trades of AAPL.*OK: .* trades of AAPL")
