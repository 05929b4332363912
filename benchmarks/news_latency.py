"""How long after a news message its trigger file is there.

`.venv/bin/python benchmarks/news_latency.py` (`--quick`: a few seconds). A process of its own runs
the news side with an embedded database and a scripted rating service; this one publishes articles
of 6 KB over a WebSocket on loopback and looks for the files. Times are from the moment before the
message is sent until the file can be seen.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from news_monitor import NewsMonitor
from runtime import configure_logging, until_stopped
from sentiment import Analyst
from settings import Settings
from simulator import MessagesServer
from simulator.news import NewsServer, news_message

MEDIAN_TARGET_MS: Final = 20.0
BURST_TARGET_MS: Final = 500.0
BURST: Final = 200
BODY: Final = "<p>The company <b>announced</b> results far above what was expected.</p>" * 80
LOOK_EVERY_S: Final = 0.0005
DEADLINE_S: Final = 30.0


class Figures(NamedTuple):
    """Milliseconds from message to trigger file."""

    singles: int
    median_ms: float
    p99_ms: float
    bursts: int
    last_of_burst_ms: float
    """The last file of 200 articles sent at once: the worst burst."""

    @property
    def met(self) -> bool:
        """Whether the targets were met."""
        return self.median_ms < MEDIAN_TARGET_MS and self.last_of_burst_ms < BURST_TARGET_MS


def measure(quick: bool) -> Figures:
    """Measures; `quick` with few articles and one burst."""
    singles, bursts = (20, 1) if quick else (200, 5)
    return asyncio.run(_measure(singles, bursts))


async def _measure(singles: int, bursts: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="newshead-news-latency-") as folder:
        triggers = Path(folder) / "triggers"
        triggers.mkdir()
        log = (Path(folder) / "news-side.log").open("w+b")
        async with MessagesServer() as service, NewsServer() as stream:
            news = await asyncio.create_subprocess_exec(
                *(sys.executable, __file__, "--news-side", folder, stream.url, service.url),
                stderr=log.fileno(),
            )
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await stream.until_connected()
                # The first one loads what is loaded late.
                await _published(stream, triggers, 1)
                await asyncio.sleep(1)
                single = []
                for _ in range(singles):
                    single.append(await _published(stream, triggers, 1))
                    await asyncio.sleep(0.05)
                burst = []
                for _ in range(bursts):
                    # Until the last one's articles are rated and stored.
                    await asyncio.sleep(3)
                    burst.append(await _published(stream, triggers, BURST))
            except TimeoutError:
                log.seek(0)
                raise SystemExit(
                    f"The news side did not do its part:\n{log.read().decode()}"
                ) from None
            finally:
                if news.returncode is None:
                    news.terminate()
                await news.wait()
    p99_ms = statistics.quantiles(single, n=100)[98]
    return Figures(singles, statistics.median(single), p99_ms, bursts, max(burst))


async def _published(stream: NewsServer, triggers: Path, count: int) -> float:
    """Publishes articles about as many stocks; milliseconds until the last one's file is there."""
    tickers = [f"T{number}" for number in range(count)]
    messages = [news_message(f"{t} beats all estimates", [t], body=BODY) for t in tickers]
    began = time.perf_counter()
    for message in messages:
        stream.publish(message)
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        found = _files(triggers)
        took_ms = (time.perf_counter() - began) * 1000
        # Two files of one stock come of a burst that ends in another second than it began.
        if len({path.name.split("_")[1] for path in found}) == count:
            break
        if took_ms > DEADLINE_S * 1000:
            raise TimeoutError(f"{len(found)} of {count} triggers came within {DEADLINE_S:.0f} s")
    for path in found:
        path.unlink()
    return took_ms


def _files(triggers: Path) -> list[Path]:
    return list(triggers.glob("immediate_*"))


async def _news_side(folder: Path, stream: str, service: str) -> None:
    settings = Settings(
        clickhouse_path=folder / "clickhouse",
        benzinga_api_key="benchmark",
        benzinga_stream_url=stream,
        anthropic_api_key="benchmark",
        anthropic_base_url=service,
        trigger_folder=folder / "triggers",
        log_folder=folder / "logs",
    )
    configure_logging(settings.log_folder, rotate=True)
    analyst = Analyst(settings)
    await until_stopped(NewsMonitor(settings, analyst, any_ticker=True).start())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints the figures; exit code 0 only if they meet their targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds")
    parser.add_argument("--news-side", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.news_side:
        folder, stream, service = options.news_side
        asyncio.run(_news_side(Path(folder), stream, service))
        return 0
    figures = measure(options.quick)
    print(
        f"From a news message to its trigger file:\n"
        f"  {figures.singles} single articles: median {figures.median_ms:.1f} ms "
        f"(target < {MEDIAN_TARGET_MS:.0f}), p99 {figures.p99_ms:.1f} ms\n"
        f"  {figures.bursts} bursts of {BURST}: last file after {figures.last_of_burst_ms:.0f} ms "
        f"at the worst (target < {BURST_TARGET_MS:.0f})"
    )
    return 0 if figures.met else 1


if __name__ == "__main__":
    sys.exit(main())
