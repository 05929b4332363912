"""What the price monitor costs while it waits: connected, with no ticker. Linux only."""

import os
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure, Target
from benchmarks.parts import running, until
from simulator import Gateway, GatewayThread, Market

DURATION_S: Final = 20.0
# After the connection, until the start's work is done.
SETTLED_S: Final = 3.0
# The original newshead's, with a folder that it looks into every millisecond (issue 5).
ORIGINAL_PERCENT: Final = 12.0


def measure(quick: bool) -> list[Figure]:
    """The share of one core."""
    seconds = 1.0 if quick else DURATION_S
    gateway = Gateway(Market())
    with (
        tempfile.TemporaryDirectory(prefix="newshead-idle-") as name,
        GatewayThread(gateway),
        running(Path(name), gateway.port) as process,
    ):
        until(lambda: gateway.requests, "the connection")
        time.sleep(SETTLED_S)
        before, began = _cpu_s(process.pid), time.monotonic()
        time.sleep(seconds)
        percent = (_cpu_s(process.pid) - before) / (time.monotonic() - began) * 100
    return [
        Figure("idle CPU", percent, "%", "original newshead", ORIGINAL_PERCENT, Target(1.0)),
    ]


def _cpu_s(pid: int) -> float:
    """The seconds that all threads of a process have run so far."""
    # Behind the command's name, which may hold anything, the 12th and 13th field.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
