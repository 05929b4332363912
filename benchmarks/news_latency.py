"""How long after a news message its trigger file is there.

A process of its own runs the news side with an embedded database and a scripted rating service;
this one publishes articles of 6 KB, as Benzinga, Alpaca and a wire do, over loopback, and looks for
the files. Times are from the moment before the message is sent, or a poll of the wire's feed is
answered, until the file can be seen.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from http.client import OK
from pathlib import Path
from typing import Final, NamedTuple, Self

from benchmarks.figures import Figure, Target
from benchmarks.parts import DEADLINE_S, PROJECT
from newshead.logs import configure_logging
from newshead.news import wires
from newshead.news.monitor import NewsMonitor
from newshead.news.rating import Analyst
from newshead.process import until_stopped
from newshead.settings import Settings
from simulator import MessagesServer
from simulator.alpaca import AlpacaServer, news_item
from simulator.feeds import FeedServer
from simulator.news import NewsServer, news_message, next_id

MEDIAN: Final = Target(20)
LAST_OF_BURST: Final = Target(500)
BURST: Final = 200
BODY: Final = "<p>The company <b>announced</b> results far above what was expected.</p>" * 80
TITLE: Final = "T beats all estimates"
LOOK_EVERY_S: Final = 0.0005
PAUSE_S: Final = 0.05
POLL_EVERY_S: Final = 0.5


def measure(quick: bool) -> list[Figure]:
    """The latency of single articles of each source, and of the last of 200 at once."""
    singles, bursts = (20, 1) if quick else (200, 5)
    found = asyncio.run(_measure(singles, bursts))
    return [
        Figure("news message to trigger file, p50", found.benzinga.p50, "ms", target=MEDIAN),
        Figure("news message to trigger file, p99", found.benzinga.p99, "ms"),
        Figure("Alpaca's message to trigger file, p50", found.alpaca.p50, "ms", target=MEDIAN),
        Figure("Alpaca's message to trigger file, p99", found.alpaca.p99, "ms"),
        Figure("wire's answer to trigger file, p50", found.wire.p50, "ms"),
        Figure("wire's answer to trigger file, p99", found.wire.p99, "ms"),
        Figure(
            f"{BURST} messages at once, the last file, worst of {bursts}",
            max(found.bursts),
            "ms",
            target=LAST_OF_BURST,
        ),
    ]


class Spread(NamedTuple):
    """Of some times, in milliseconds."""

    p50: float
    p99: float

    @classmethod
    def of(cls, times: Sequence[float]) -> Self:
        return cls(statistics.median(times), statistics.quantiles(times, n=100)[98])


class Latencies(NamedTuple):
    """What was measured, in milliseconds."""

    benzinga: Spread
    alpaca: Spread
    wire: Spread
    bursts: Sequence[float]


class Sources(NamedTuple):
    """The simulated sources."""

    benzinga: NewsServer
    alpaca: AlpacaServer
    wire: FeedServer


async def _measure(singles: int, bursts: int) -> Latencies:
    with tempfile.TemporaryDirectory(prefix="newshead-news-latency-") as folder:
        triggers = Path(folder) / "triggers"
        triggers.mkdir()
        log = (Path(folder) / "news-side.log").open("w+b")
        async with (
            MessagesServer() as service,
            NewsServer() as benzinga,
            AlpacaServer() as alpaca,
            FeedServer() as wire,
        ):
            news = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.news_latency"),
                *(folder, service.url, benzinga.url, alpaca.url, wire.url),
                cwd=PROJECT,
                stderr=log.fileno(),
            )
            try:
                sources = Sources(benzinga, alpaca, wire)
                return await _measured(sources, triggers, singles, bursts)
            except TimeoutError:
                log.seek(0)
                raise RuntimeError(
                    f"The news side did not do its part:\n{log.read().decode()}"
                ) from None
            finally:
                if news.returncode is None:
                    news.terminate()
                await news.wait()


async def _measured(sources: Sources, triggers: Path, singles: int, bursts: int) -> Latencies:
    benzinga, alpaca, wire = sources
    async with asyncio.timeout(DEADLINE_S):
        await benzinga.until_connected()
        await alpaca.until_subscribed()

    async def published(publish: Callable[[], None], count: int = 1) -> float:
        began = time.monotonic()
        publish()
        return (await _seen(triggers, count) - began) * 1000

    def one_of_benzinga() -> None:
        benzinga.publish(news_message(TITLE, ["T"], body=BODY))

    def one_of_alpaca() -> None:
        alpaca.publish(news_item(TITLE, ["T"], content=BODY))

    def burst_of_benzinga() -> None:
        for message in messages:
            benzinga.publish(message)

    times = []
    for publish in (one_of_benzinga, one_of_alpaca):
        # The first one loads what is loaded late.
        await published(publish)
        await asyncio.sleep(1)
        times.append([await published(publish) for _ in range(singles)])
    polls = [await _polled(wire, triggers) for _ in range(max(singles // 5, 10))]
    last = []
    for _ in range(bursts):
        # Until the last one's articles are rated and stored.
        await asyncio.sleep(3)
        names = [f"T{number}" for number in range(BURST)]
        messages = [news_message(TITLE, [name], body=BODY) for name in names]
        last.append(await published(burst_of_benzinga, BURST))
    return Latencies(Spread.of(times[0]), Spread.of(times[1]), Spread.of(polls), last)


async def _polled(wire: FeedServer, triggers: Path) -> float:
    """Publishes a release; milliseconds from the answer that brought it until its file is there."""
    wire.publish(f"{TITLE} ({next_id()})", f"(NASDAQ: T) {BODY}")
    seen = await _seen(triggers, 1)
    answered = next(poll.at for poll in reversed(wire.requests) if poll.status == OK)
    return (seen - answered) * 1000


async def _seen(triggers: Path, count: int) -> float:
    """Returns when the files of as many stocks were there (time.monotonic()), and removes them."""
    began = time.monotonic()
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        found = _files(triggers)
        now = time.monotonic()
        # Two files of one stock come of a burst that ends in another second than it began.
        if len({path.name.split("_")[1] for path in found}) == count:
            break
        if now - began > DEADLINE_S:
            raise TimeoutError(f"{len(found)} of {count} triggers came within {DEADLINE_S:.0f} s")
    for path in found:
        path.unlink()
    # The next article is one of its own.
    await asyncio.sleep(PAUSE_S)
    return now


def _files(triggers: Path) -> list[Path]:
    return list(triggers.glob("immediate_*"))


async def _news_side(folder: Path, service: str, benzinga: str, alpaca: str, wire: str) -> None:
    # The host is this machine's own.
    wires.HOST_PAUSE_S = POLL_EVERY_S  # type: ignore[misc]
    settings = Settings(
        clickhouse_path=folder / "clickhouse",
        news_sources=("benzinga", "alpaca", "wires"),
        benzinga_api_key="benchmark",
        benzinga_stream_url=benzinga,
        alpaca_api_key="benchmark",
        alpaca_api_secret="benchmark",  # noqa: S106
        alpaca_stream_url=alpaca,
        wire_feeds=(wire,),
        anthropic_api_key="benchmark",
        anthropic_base_url=service,
        trigger_folder=folder / "triggers",
        log_folder=folder / "logs",
    )
    configure_logging(settings.log_folder, rotate=True)
    analyst = Analyst(settings)
    await until_stopped(NewsMonitor(settings, analyst, any_ticker=True).start())


if __name__ == "__main__":
    # The news side: the folder, the rating service's address, those of the sources.
    asyncio.run(_news_side(Path(sys.argv[1]), *sys.argv[2:]))
