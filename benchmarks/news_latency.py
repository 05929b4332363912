"""How long after a news message its trigger file is there.

A process of its own runs the news side with an embedded database and a scripted rating service;
this one publishes articles of 6 KB over a WebSocket on loopback and looks for the files. Times are
from the moment before the message is sent until the file can be seen.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure, Target
from benchmarks.parts import DEADLINE_S, PROJECT
from newshead.logs import configure_logging
from newshead.news.monitor import NewsMonitor
from newshead.news.rating import Analyst
from newshead.process import until_stopped
from newshead.settings import Settings
from simulator import MessagesServer
from simulator.news import NewsServer, news_message

MEDIAN: Final = Target(20)
LAST_OF_BURST: Final = Target(500)
BURST: Final = 200
BODY: Final = "<p>The company <b>announced</b> results far above what was expected.</p>" * 80
LOOK_EVERY_S: Final = 0.0005


def measure(quick: bool) -> list[Figure]:
    """The latency of single articles, and of the last of 200 at once."""
    singles, bursts = (20, 1) if quick else (200, 5)
    alone, last = asyncio.run(_measure(singles, bursts))
    return [
        Figure("news message to trigger file, p50", statistics.median(alone), "ms", target=MEDIAN),
        Figure("news message to trigger file, p99", statistics.quantiles(alone, n=100)[98], "ms"),
        Figure(
            f"{BURST} messages at once, the last file, worst of {bursts}",
            max(last),
            "ms",
            target=LAST_OF_BURST,
        ),
    ]


async def _measure(singles: int, bursts: int) -> tuple[list[float], list[float]]:
    with tempfile.TemporaryDirectory(prefix="newshead-news-latency-") as folder:
        triggers = Path(folder) / "triggers"
        triggers.mkdir()
        log = (Path(folder) / "news-side.log").open("w+b")
        async with MessagesServer() as service, NewsServer() as stream:
            news = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.news_latency"),
                *(folder, stream.url, service.url),
                cwd=PROJECT,
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
                raise RuntimeError(
                    f"The news side did not do its part:\n{log.read().decode()}"
                ) from None
            finally:
                if news.returncode is None:
                    news.terminate()
                await news.wait()
    return single, burst


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


if __name__ == "__main__":
    # The news side: the folder, the stream's address, the rating service's.
    asyncio.run(_news_side(Path(sys.argv[1]), *sys.argv[2:]))
