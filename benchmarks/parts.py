"""What several benchmarks measure with: the price monitor and the gateway as processes."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from simulator import Gateway, Request

PROJECT: Final = Path(__file__).resolve().parent.parent
DEADLINE_S: Final = 60.0


@contextlib.contextmanager
def running(folder: Path, port: int, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The price monitor as a process that works in `folder`, with the embedded engine, and
    with the gateway on `port`; ended in order."""
    command = [sys.executable, str(PROJECT / "price_checker.py"), *arguments]
    environment = {**os.environ, "IBKR_PORT": str(port), "CLICKHOUSE_HOST": ""}
    with child(command, cwd=folder, env=environment) as process:
        yield process


@contextlib.contextmanager
def simulating(market: Path) -> Iterator[int]:
    """A gateway with the market of a CSV file, as a process of its own; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    command = [sys.executable, "-m", "simulator", "--port", str(port), "--market", str(market)]
    with child(command, cwd=PROJECT):
        until(lambda: _listens(port), "the gateway")
        yield port


@contextlib.contextmanager
def child(
    command: Sequence[str], cwd: Path, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, silent, that is told to end with the block."""
    with subprocess.Popen(command, cwd=cwd, env=env, stderr=subprocess.DEVNULL) as process:  # noqa: S603
        try:
            yield process
        finally:
            process.terminate()


def subscriptions(gateway: Gateway) -> list[Request]:
    """The requests for market data that have come so far."""
    return [request for request in tuple(gateway.requests) if request.kind == "reqMktData"]


def until(condition: Callable[[], object], what: str) -> None:
    """Waits for `condition`; blocks."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come within {DEADLINE_S:.0f} s")
        time.sleep(0.005)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False
