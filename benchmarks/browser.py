"""What watching costs the browser: sixty tickers that alert at once, and an hour of that.

The page and its feed are the real ones; only the readings of the database are made up. Sixty
tickers come up at the same moment each minute and replace those of the minute before, which stay as
cards as long as the session has fewer than 300. Each has a row every two seconds, and from the
tenth second on every row is an alert. The reference is the same page without a session.
"""

import asyncio
import logging
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import uvicorn

from benchmarks.chromium import Tab, tab
from benchmarks.figures import Figure, Target
from dashboard.cards import Article, Card, make_card
from dashboard.feed import Feed, Round
from dashboard.queries import Mark
from dashboard.server import address_of, application, listen
from newshead.core.rule import ALERT_CHANGE_PCT, PricePoint
from newshead.database.queries import Rating
from newshead.database.shared import SharedConnection
from newshead.database.tables import StatusRow
from newshead.settings import Settings

TICKERS: Final = 60
KEPT: Final = 300
SLOT_S: Final = 2
SLOTS: Final = 30
BASELINE: Final = 2.0
# A price rises by so much a slot, from the fourth row on.
RISE: Final = 0.04
BUY: Final = Rating("positive", "BUY", "high")
SESSION: Final = "20260102T090000Z"

IDLE_S: Final = 20.0
# A whole minute: the sixty first alerts are in it.
WATCHED_S: Final = 60.0
SETTLE_S: Final = 2.0
# An hour in so many minutes' time: the feed, and the page's own timers.
SPEED: Final = 20
# The session is full by the first of these minutes. The least of several counts: an update that is
# on its way takes half a megabyte.
EARLY: Final = range(6, 11)
LATE: Final = range(56, 61)
# The slot of a minute at which memory is looked at.
LOOKED_AT: Final = 20
# What runs often is compiled, for hours on end, and that counts as memory in use.
INTERPRETED: Final = "--js-flags=--jitless"

WATCH_FRAMES: Final = """{
    let last = performance.now();
    window.longest = 0;
    const see = (now) => {
        window.longest = Math.max(window.longest, now - last);
        last = now;
        requestAnimationFrame(see);
    };
    requestAnimationFrame(see);
}"""
SPEED_TIMERS: Final = f"""{{
    const every = setInterval;
    window.setInterval = (act, ms) => every(act, ms / {SPEED});
}}"""
# The figure "cycles" counts the readings here.
UNTIL_SHOWN: Final = """(readings) => new Promise((tell) => {
    const look = () => {
        const shown = document.querySelectorAll("#figures dd")[1]?.textContent.replace(",", "");
        if (Number(shown) >= readings) tell();
        else setTimeout(look, 20);
    };
    look();
})"""


class Script(SharedConnection):
    """Readings of a database that is not there: each is two seconds after the one before."""

    def __init__(self, tickers: int) -> None:
        super().__init__(Settings())
        self._tickers = tickers
        self._began = datetime.now(UTC).replace(microsecond=0)
        self._marks: dict[str, Mark] = {}
        self.readings = 0

    def run(self, *_: Any, **__: Any) -> Any:
        """The next reading, whatever the question."""
        minute, slot = divmod(self.readings, SLOTS)
        now = self._began + timedelta(seconds=SLOT_S * self.readings)
        cards = [self._card(minute, slot, number) for number in range(self._tickers)]
        for card in cards:
            self._marks[card.ticker] = Mark(
                len(card.points), len(card.alerts), 1, self._began, None
            )
        self._marks = dict(list(self._marks.items())[-KEPT:])
        self.readings += 1
        read_at = time.monotonic()
        return Round(now, read_at, self._status(now), [], SESSION, self._marks, cards)

    def _card(self, minute: int, slot: int, number: int) -> Card:
        ticker = f"T{minute}N{number}"
        began = self._began + timedelta(seconds=SLOT_S * SLOTS * minute)
        times = [began + timedelta(seconds=SLOT_S * each) for each in range(slot + 1)]
        prices = [BASELINE + RISE * max(0, each - 2) for each in range(slot + 1)]
        rows = [
            PricePoint(int(at.timestamp()), price, 100 + each, BUY.recommendation)
            for each, (at, price) in enumerate(zip(times, prices, strict=True))
        ]
        alerts = [
            (ticker, at, 1 + number % 3, price)
            for at, price in zip(times, prices, strict=True)
            if price >= BASELINE * (1 + ALERT_CHANGE_PCT / 100)
        ]
        headline = f"The company of {ticker} wins a contract of two hundred million dollars"
        article = Article(
            *(began, began - timedelta(seconds=1), "wire", headline, "https://news.example/"),
            *(BUY, "It is a large contract for its size.", began, True),
        )
        return make_card(ticker, (ticker, began, times[-1], rows), [article], alerts[::-1])

    def _status(self, now: datetime) -> StatusRow:
        rows = self.readings * self._tickers
        state = (now, "ready", self._began, "PAPER", False, "******12")
        return StatusRow(
            *state, self._tickers, self.readings, rows * 9, rows, 20.0, 0, 0, 0.0, last_error=""
        )


class PacedFeed(Feed):
    """The page's feed at a pace of its own."""

    def __init__(self, script: Script, every_s: float) -> None:
        super().__init__(script)
        self._every_s = every_s

    async def _poll(self) -> None:
        while True:
            await self._read()
            self._wake()
            await asyncio.sleep(self._every_s)


def measure(quick: bool) -> list[Figure]:
    """The main thread's share and longest gap beside an idle page's; memory early and late."""
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="newshead-browser-") as folder:
        return asyncio.run(_measure(Path(folder), quick))


async def _measure(folder: Path, quick: bool) -> list[Figure]:
    idle_s, watched_s = (1.0, 3.0) if quick else (IDLE_S, WATCHED_S)
    early, late = (range(1), range(1, 2)) if quick else (EARLY, LATE)
    async with tab(folder / "watched") as page:
        idle_busy, idle_gap = await _watch(page, Script(0), idle_s)
        busy, gap = await _watch(page, _full_session(), watched_s)
    async with tab(folder / "hour", INTERPRETED) as page:
        (heap_early, nodes_early), (heap, nodes) = await _pass_hour(page, early, late)
    idle, after = "idle page", f"after {early.stop - 1} minutes"
    return [
        Figure("main thread busy, 60 tickers alert", busy, "%", idle, idle_busy, Target(10)),
        Figure("longest gap between two frames", gap, "ms", idle, idle_gap, Target(100)),
        Figure("page's memory, an hour", heap, "MB", after, heap_early, Target(1.1, of_ratio=True)),
        Figure(
            *("page's nodes, an hour", nodes, "", after, nodes_early),
            Target(1.05, of_ratio=True),
        ),
    ]


def _full_session() -> Script:
    """A session that has its 300 cards already."""
    script = Script(TICKERS)
    while script.readings < KEPT // TICKERS * SLOTS - 1:
        script.run()
    return script


async def _watch(page: Tab, script: Script, lasts_s: float) -> tuple[float, float]:
    """The main thread's share in percent; then, with every frame drawn, the longest time between
    two frames in milliseconds."""
    async with _served(script, SLOT_S) as url:
        await page.ask("Page.navigate", url=url)
        await asyncio.sleep(SETTLE_S)
        before, began = await page.metrics(), time.monotonic()
        await asyncio.sleep(lasts_s)
        after, ended = await page.metrics(), time.monotonic()
        await page.value(WATCH_FRAMES)
        await asyncio.sleep(lasts_s)
        busy_s = after["TaskDuration"] - before["TaskDuration"]
        return busy_s / (ended - began) * 100, await page.value("window.longest")


async def _pass_hour(page: Tab, *spans: range) -> list[tuple[float, float]]:
    """Memory in use in MB, and nodes, the least of each of these spans of minutes of a session that
    goes on faster."""
    script = Script(TICKERS)
    await page.ask("Page.addScriptToEvaluateOnNewDocument", source=SPEED_TIMERS)
    found = []
    async with _served(script, SLOT_S / SPEED) as url:
        await page.ask("Page.navigate", url=url)
        for minutes in spans:
            seen = []
            for minute in minutes:
                # By the page's own count, which may be behind.
                await page.value(f"({UNTIL_SHOWN})({minute * SLOTS + LOOKED_AT})")
                await page.ask("HeapProfiler.collectGarbage")
                seen.append(await page.metrics())
            heap = min(each["JSHeapUsedSize"] for each in seen)
            found.append((heap / 1e6, min(each["Nodes"] for each in seen)))
    return found


@asynccontextmanager
async def _served(script: Script, every_s: float) -> AsyncIterator[str]:
    listener = listen(Settings(dashboard_port=0))
    feed = PacedFeed(script, every_s)
    server = uvicorn.Server(
        uvicorn.Config(
            application(Settings(), feed, script),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield address_of(listener)
    finally:
        feed.close()
        server.should_exit = True
        await serving
