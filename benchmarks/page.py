"""What the page costs the monitor: its cycle, its loop and its triggers, watched and not.

The embedded engine, whose answers to the page come from the monitor's own process, which
is the dearest case. A ticker comes up every second and is traded every two, so
some sixty are tracked. Turns with a viewer and without follow one another.
"""

import asyncio
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from benchmarks.chromium import CHROMIUM, command
from benchmarks.figures import Figure, Target
from dashboard.server import address_of, listen, serving
from newshead.loop import in_background
from newshead.monitor.triggers import TriggerFolder
from newshead.process import run_promptly
from newshead.settings import Settings
from price_checker import ContinuousPriceMonitor
from simulator import Gateway, GatewayThread, Market, Trade

WARM_UP_S: Final = 62.0
TURN_S: Final = 20.0
TURNS: Final = 6
TRIGGER_EVERY_S: Final = 1.0
LAG_EVERY_S: Final = 0.005
# The browser has to start before it watches.
SETTLE_S: Final = 3.0
READ_FEED: Final = "import sys, urllib.request as r; [0 for _ in r.urlopen(sys.argv[1])]"


@dataclass
class Samples:
    """Milliseconds, of the turns of one kind."""

    cycles: list[float] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)
    triggers: list[float] = field(default_factory=list)


class TimedTickers(set[str]):
    """Active tickers, with how long after its trigger each became one, in milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        self.written: dict[str, float] = {}
        self.took: dict[str, float] = {}

    def add(self, ticker: str) -> None:
        """Notes a ticker, and when."""
        super().add(ticker)
        if ticker in self.written:
            self.took[ticker] = (time.perf_counter() - self.written.pop(ticker)) * 1000


def measure(quick: bool) -> list[Figure]:
    """Cycle, loop stalls and trigger latency with the page watched, beside those without."""
    logging.getLogger().setLevel(logging.ERROR)
    warm_up_s, turn_s, turns = (3.0, 4.0, 1) if quick else (WARM_UP_S, TURN_S, TURNS)
    with tempfile.TemporaryDirectory(prefix="newshead-page-") as folder:
        alone, watched = asyncio.run(_measure(Path(folder), warm_up_s, turn_s, turns))
    same, short = Target(1.05, of_ratio=True), Target(20)
    return [
        Figure(f"{name}, page watched", here, "ms", "unwatched", there, target)
        for name, here, there, target in (
            ("cycle, median", median(watched.cycles), median(alone.cycles), same),
            ("loop stall, 99 %", _p99(watched.stalls), _p99(alone.stalls), same),
            ("loop stall, longest", max(watched.stalls), max(alone.stalls), short),
            ("trigger, median", median(watched.triggers), median(alone.triggers), same),
        )
    ]


def _p99(values: list[float]) -> float:
    return quantiles(values, n=100)[98]


async def _measure(
    folder: Path, warm_up_s: float, turn_s: float, turns: int
) -> tuple[Samples, Samples]:
    lasts_s = warm_up_s + 2 * turns * (turn_s + SETTLE_S)
    tickers = [f"T{number}" for number in range(int(lasts_s / TRIGGER_EVERY_S) + 2)]
    alone, watched = Samples(), Samples()
    with GatewayThread(Gateway(_market(tickers, lasts_s))) as thread:
        settings = Settings(
            ibkr_port=thread.gateway.port,
            clickhouse_path=folder / "clickhouse",
            trigger_folder=folder / "triggers",
            dashboard_port=0,
        )
        run_promptly()
        monitor = ContinuousPriceMonitor(settings)
        monitor.active_tickers = active = TimedTickers()
        listener = listen(settings)
        url = address_of(listener)
        async with serving(settings, listener, folder), in_background(monitor.start()):
            await monitor.ready_event.wait()
            async with in_background(
                _report_news(TriggerFolder(settings.trigger_folder), active, tickers)
            ):
                await asyncio.sleep(warm_up_s)
                for _ in range(turns):
                    await asyncio.sleep(SETTLE_S)
                    await _sample(monitor, active, alone, turn_s)
                    with _viewer(url, folder):
                        await asyncio.sleep(SETTLE_S)
                        await _sample(monitor, active, watched, turn_s)
    return alone, watched


def _market(tickers: list[str], lasts_s: float) -> Market:
    """A trade of each ticker every two seconds."""
    return Market(
        Trade(float(second), ticker, 5 + second % 7 / 100, 100)
        for second in range(int(lasts_s) + 10)
        for number, ticker in enumerate(tickers)
        if number % 2 == second % 2
    )


async def _report_news(folder: TriggerFolder, active: TimedTickers, tickers: list[str]) -> None:
    for ticker in tickers:
        await asyncio.sleep(TRIGGER_EVERY_S)
        active.written[ticker] = time.perf_counter()
        folder.write(ticker)


async def _sample(
    monitor: ContinuousPriceMonitor, active: TimedTickers, samples: Samples, turn_s: float
) -> None:
    active.took.clear()
    cycle_at = monitor.last_cycle_at
    end = time.perf_counter() + turn_s
    while (began := time.perf_counter()) < end:
        await asyncio.sleep(LAG_EVERY_S)
        samples.stalls.append((time.perf_counter() - began - LAG_EVERY_S) * 1000)
        if monitor.last_cycle_at != cycle_at:
            cycle_at = monitor.last_cycle_at
            samples.cycles.append(monitor.stats["last_cycle_s"] * 1000)
    samples.triggers += active.took.values()


@contextmanager
def _viewer(url: str, folder: Path) -> Iterator[None]:
    """The page open in a browser; where there is none, in a program that reads its feed."""
    viewing = (
        command(url, folder / "browser")
        if CHROMIUM
        else [sys.executable, "-c", READ_FEED, f"{url}feed"]
    )
    viewer = subprocess.Popen(viewing, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # noqa: S603
    try:
        yield
    finally:
        viewer.terminate()
        viewer.wait()
