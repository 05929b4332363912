"""newshead's commands as processes of their own."""

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
from typing import Any

import pytest
from clickhouse_server import ClickHouseServer
from deadlines import DEADLINE_S

from simulator import Gateway, GatewayThread, Market, Trade

PROJECT = Path(__file__).resolve().parents[2]


class Command:
    """A command of newshead's in a process of its own, with its output as it comes."""

    def __init__(self, folder: Path, script: str, *arguments: str, **variables: object) -> None:
        self.output = folder / f"{Path(script).stem}.output"
        environment = dict(os.environ) | {"PYTHONPATH": str(PROJECT)}
        environment |= {name: str(value) for name, value in variables.items()}
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(PROJECT / script), *arguments],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def text(self) -> str:
        return self.output.read_text()

    def shows(self, pattern: str) -> re.Match[str]:
        """Waits until the output holds `pattern`."""
        found = until(lambda: re.search(pattern, self.text()), lambda: f"{pattern}: {self.text()}")
        assert isinstance(found, re.Match)
        return found

    def ends(self) -> int:
        return self.process.wait(DEADLINE_S)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.ends()


def until(condition: Callable[[], Any], what: Callable[[], str]) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    pytest.fail(f"did not come about within {DEADLINE_S:.0f} s: {what()}")


def log_in(folder: Path) -> str:
    """What newshead has logged to its file, which is renamed at midnight."""
    files = sorted(folder.glob("logs/newshead.log*"), reverse=True)
    return "".join(file.read_text() for file in files)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Starts commands, in the test's folder or another, and ends them."""
    started: list[Command] = []

    def begin(
        script: str, *arguments: str, folder: Path = tmp_path, **variables: object
    ) -> Command:
        started.append(Command(folder, script, *arguments, **variables))
        return started[-1]

    yield begin
    for command in started:
        with contextlib.suppress(ProcessLookupError):
            command.process.kill()
        command.process.wait()


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    return False


def on_server(server: ClickHouseServer, gateway: Gateway) -> dict[str, object]:
    return {
        "CLICKHOUSE_HOST": server.host,
        "CLICKHOUSE_PORT": server.port,
        "IBKR_PORT": gateway.port,
    }


@contextlib.contextmanager
def ticking() -> Iterator[Gateway]:
    """A gateway where ABCD trades four times a second."""
    market = Market([Trade(s / 4, "ABCD", 5 + (s % 5) / 100, 100) for s in range(1000)])
    with GatewayThread(Gateway(market)) as thread:
        yield thread.gateway


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
