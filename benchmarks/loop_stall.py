"""The longest stall of the monitor's event loop, with 50 tickers that trade four times a second.

A stall is what a loop waits beyond what it asked for: for the processor, for
other threads, or for its own work. The reference is an event loop that does
nothing, in a process of its own beside it: the machine's part of it. What the
loop's thread itself computes between two beats is told apart.
"""

import asyncio
import sys
import tempfile
import time
from contextlib import redirect_stderr
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure, Target
from benchmarks.parts import PROJECT, simulating
from clickhouse_manager import ClickHouseManager
from newshead.logs import configure_logging
from newshead.monitor.triggers import TriggerFolder
from newshead.process import run_promptly
from newshead.settings import Settings
from price_checker import ContinuousPriceMonitor

TICKERS: Final = [f"S{number}" for number in range(50)]
TRADE_EVERY_S: Final = 0.25
DURATION_S: Final = 60.0
# All are subscribed by then, however the messages are paced.
SETTLED_S: Final = 3.0
BEAT_S: Final = 0.001


def measure(quick: bool, *, record: bool = False) -> list[Figure]:
    """The longest stall in 60 s, while a window runs from its first row to its end; with `record`,
    while all of it is recorded."""
    seconds = 5.0 if quick else DURATION_S
    recorded = ", recorded" if record else ""
    with tempfile.TemporaryDirectory(prefix="newshead-stall-") as name:
        market = Path(name) / "market.csv"
        trades = [
            f"{step * TRADE_EVERY_S + place / 1000},{ticker},{5 + step % 8 / 100},100"
            for step in range(int((seconds + 30) / TRADE_EVERY_S))
            for place, ticker in enumerate(TICKERS)
        ]
        market.write_text("\n".join(["seconds,ticker,price,size", *trades]))
        with simulating(market) as port:
            stall_ms, work_ms, idle_ms = asyncio.run(
                _measure(Path(name), port, seconds, record=record)
            )
    return [
        Figure(
            f"longest stall of the loop in {seconds:.0f} s, {len(TICKERS)} tickers{recorded}",
            stall_ms,
            "ms",
            "an idle loop beside it",
            idle_ms,
            Target(20),
        ),
        Figure(
            f"longest work of the loop in one turn, 50 tickers{recorded}",
            work_ms,
            "ms",
            target=Target(20),
        ),
    ]


async def _measure(
    folder: Path, port: int, seconds: float, *, record: bool
) -> tuple[float, float, float]:
    settings = Settings(
        ibkr_port=port,
        record_folder=folder / "recordings" if record else None,
        clickhouse_path=folder / "clickhouse",
        trigger_folder=folder / "triggers",
        log_folder=folder / "logs",
    )
    # The console's lines are written too, but not among those of the benchmarks.
    with redirect_stderr((folder / "console").open("w")):
        configure_logging(settings.log_folder, rotate=True)
    run_promptly()
    monitor = ContinuousPriceMonitor(settings)
    work = asyncio.create_task(monitor.start())
    await monitor.ready_event.wait()
    await asyncio.to_thread(_rate, settings)
    for ticker in TICKERS:
        TriggerFolder(settings.trigger_folder).write(ticker)
    await asyncio.sleep(min(SETTLED_S, seconds))
    idle = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.loop_stall", str(seconds)),
        cwd=PROJECT,
        stdout=asyncio.subprocess.PIPE,
    )
    stall_ms, work_ms = await longest_stall(seconds)
    said, _ = await idle.communicate()
    if monitor.stats["price_checks"] < len(TICKERS):
        raise RuntimeError("The monitor was not at work.")
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    return stall_ms, work_ms, float(said)


def _rate(settings: Settings) -> None:
    manager = ClickHouseManager(settings)
    manager.connect()
    manager.client.insert(
        "News.breaking_news",
        [[ticker, ticker, "positive", "BUY", "high"] for ticker in TICKERS],
        column_names=["ticker", "content_hash", "sentiment", "recommendation", "confidence"],
    )
    manager.close()


async def longest_stall(seconds: float) -> tuple[float, float]:
    """How much later than asked this loop came back at the worst, and how long its thread
    computed meanwhile at most, in milliseconds."""
    stall = work = 0.0
    end = time.perf_counter() + seconds
    while (before := time.perf_counter()) < end:
        worked = time.thread_time()
        await asyncio.sleep(BEAT_S)
        work = max(work, time.thread_time() - worked)
        stall = max(stall, time.perf_counter() - before - BEAT_S)
    return stall * 1000, work * 1000


if __name__ == "__main__":
    print(asyncio.run(longest_stall(float(sys.argv[1])))[0])
