"""What recording costs, and how fast a recording is replayed.

The reference of both is the receive path without a recording, as `ticks` measures it. What is
replayed is the recording of a price monitor with 100 tickers to which TWS's messages came as fast
as it took them in.
"""

import asyncio
import logging
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.figures import Figure, Target
from benchmarks.parts import until
from benchmarks.ticks import PROTOBUF, TICKERS, Course, block, feeder, run_newshead
from newshead.monitor.triggers import TriggerFolder
from newshead.recording import Recorder
from newshead.replay.recorded import play
from newshead.settings import Settings
from newshead.tape import Tape
from price_checker import ContinuousPriceMonitor

BLOCKS: Final = 1000
# Below what the buffer holds per ticker between two cycles.
RECORDED_BLOCKS: Final = 4000
ROUNDS: Final = 5


def measure(quick: bool) -> list[Figure]:
    """Medians, the courses in turns."""
    for name in ("ibkr_client", "price_checker", "newshead"):
        logging.getLogger(name).setLevel(logging.ERROR)
    blocks = 5 if quick else BLOCKS
    plain: list[float] = []
    recorded: list[float] = []
    replayed: list[float] = []
    with tempfile.TemporaryDirectory(prefix="newshead-recording-") as name, feeder() as orders:
        folder = Path(name)
        path = asyncio.run(_record(folder, orders, 20 if quick else RECORDED_BLOCKS))
        for _ in range(1 if quick else ROUNDS):
            plain.append(_ticks_per_s(orders, blocks, Tape()))
            recorder = Recorder(folder / "ticks", 10**10, {})
            recorder.open()
            recorded.append(_ticks_per_s(orders, blocks, recorder))
            recorder.close()
            for file in (folder / "ticks").iterdir():
                file.unlink()
            replayed.append(_messages_per_s(path))
    live = median(plain)
    return [
        Figure(
            "ticks, protobuf, recorded",
            median(recorded),
            "/s",
            "not recorded",
            live,
            Target(0.9, at_least=True, of_ratio=True),
        ),
        Figure(
            "messages of a recording, replayed",
            median(replayed),
            "/s",
            "received live",
            live,
            Target(0.4, at_least=True, of_ratio=True),
        ),
    ]


def _ticks_per_s(orders: Connection, blocks: int, tape: Tape) -> float:
    course = Course(orders, PROTOBUF, block(PROTOBUF), blocks)
    run_newshead(course, tape)
    return course.ticks_per_s


def _messages_per_s(path: Path) -> float:
    """The whole replay, from the file on."""
    began = time.perf_counter()
    played = play(path)
    took_s = time.perf_counter() - began
    if played.difference or not played.rows:
        raise RuntimeError(played.summary)
    return played.messages / took_s


async def _record(folder: Path, orders: Connection, blocks: int) -> Path:
    """Let a monitor with the embedded engine record; return the file."""
    orders.send((PROTOBUF, block(PROTOBUF).data, blocks))
    settings = Settings(
        ibkr_port=orders.recv(),
        clickhouse_path=folder / "clickhouse",
        trigger_folder=folder / "triggers",
        log_folder=folder / "logs",
        record_folder=folder / "recordings",
        session_roll=None,
    )
    monitor = ContinuousPriceMonitor(settings)
    work = asyncio.create_task(monitor.start())
    await asyncio.wait(
        [work, asyncio.create_task(monitor.ready_event.wait())],
        return_when=asyncio.FIRST_COMPLETED,
    )
    for ticker in TICKERS:
        TriggerFolder(settings.trigger_folder).write(ticker)
    await asyncio.to_thread(until, lambda: len(monitor.active_tickers) == len(TICKERS), "tickers")
    for _ in range(blocks):
        await asyncio.to_thread(orders.send_bytes, b"")
    await asyncio.to_thread(until, lambda: monitor.stats["price_checks"], "a row")
    await asyncio.to_thread(
        until, lambda: (monitor.figures().tick_age_s or 0) >= 1, "the last tick"
    )
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    (path,) = (folder / "recordings").iterdir()
    return path
