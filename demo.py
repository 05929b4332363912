"""`run_system.py --demo`: newshead at work on scripted news and a scripted market, and a check of
what came of it.

A simulated news stream, rating service and gateway, an embedded database of its
own and a folder that is removed at the end; nothing of the user's configuration
is read.
"""

import asyncio
import logging
import os
import socket
import sys
import tempfile
import textwrap
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from clickhouse_manager import ClickHouseManager
from dashboard.server import address_of, listen, serving
from newshead.core.rule import Outcome, describe
from newshead.database.queries import UNRATED
from newshead.logs import configure_logging
from newshead.loop import off_loop
from newshead.news.monitor import NewsMonitor
from newshead.news.rating import Analyst
from newshead.process import EXIT_FAILED, EXIT_OK, until_stopped
from newshead.replay import recorded
from newshead.replay.played import compared
from newshead.settings import ConfigurationError, Settings
from price_checker import ContinuousPriceMonitor
from simulator import Gateway, Market, MessagesServer, ScriptedRating, Trade
from simulator.news import NewsServer, news_message

TRADE_EVERY_S: Final = 0.5
# How long the page stays up at the end for who watches a terminal.
LINGER_S: Final = 60.0
WIDTH: Final = 80
NEXT_STEPS: Final = """
What next:
  cp .env.example .env     then set IBKR_PORT and your keys in it
  .venv/bin/python run_system.py --check
                           tries all of it and says what to do
  .venv/bin/python run_system.py --skip-list --socket --dashboard
                           runs newshead, with the page
  README.md and docs/      have the rest"""

PRIORITIES: Final = "SELECT ticker, min(alert) FROM News.news_alert GROUP BY ticker"


class Result(NamedTuple):
    """What came of one stock: its window's figures, whether it is tracked still, its rating, and
    its alerts' priority, 0 without any."""

    outcome: Outcome
    tracked: bool
    recommendation: str
    priority: int


class Actor(NamedTuple):
    """A stock of the demo: its news and how that is rated, its prices, and what must come of them.

    `prices` holds (seconds, USD) with lines between; none for a stock that
    IBKR does not know. `holds` judges the result, from `after_s` seconds on. `score` is what the
    program that scores stocks gives it, None for nothing.
    """

    ticker: str
    headline: str
    recommendation: str
    prices: Sequence[tuple[float, float]]
    expected: str
    holds: Callable[[Result], bool]
    after_s: float
    score: float | None = None


RISE = ((15.0, 1.0), (35.0, 1.12))


def _times(price: float, shape: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(at, price * factor) for at, factor in shape]


ACTORS: Final = (
    Actor(
        "ZOOM",
        "FDA approves ZOOM's only drug",
        "BUY",
        _times(2.0, RISE),
        "priority 1: BUY, over +5 %, scored 4.5",
        lambda result: result.outcome.alerts > 0 and result.priority == 1,
        45,
        score=4.5,
    ),
    Actor(
        "FAST",
        "FAST doubles its forecast",
        "BUY",
        _times(7.0, RISE),
        "priority 2: BUY, over +5 %, scored 2",
        lambda result: result.outcome.alerts > 0 and result.priority == 2,
        45,
        score=2.0,
    ),
    Actor(
        "SOLO",
        "SOLO is to be bought by a rival",
        "BUY",
        _times(4.0, RISE),
        "priority 3: BUY, over +5 %, no score",
        lambda result: result.outcome.alerts > 0 and result.priority == 3,
        45,
    ),
    Actor(
        "HOPE",
        "HOPE hopes for a contract",
        "HOLD",
        _times(2.0, RISE),
        "none: over +5 %, rated HOLD",
        lambda result: result.outcome.alerts == 0 < result.outcome.rises_in_range,
        45,
    ),
    Actor(
        "RICH",
        "RICH beats all estimates",
        "BUY",
        _times(14.0, RISE),
        "none: over +5 %, above 11 USD",
        lambda result: (
            result.outcome.alerts == result.outcome.rises_in_range == 0 < result.outcome.rises
        ),
        45,
    ),
    Actor(
        "CALM",
        "CALM wins an award",
        "BUY",
        _times(5.0, ((0.0, 1.0), (60.0, 1.01))),
        "none: price stays flat",
        lambda result: result.outcome.alerts == result.outcome.rises == 0 < result.outcome.judged,
        45,
    ),
    Actor(
        "GONE",
        "GONE goes to the moon",
        "BUY",
        (),
        "none: unknown to IBKR",
        lambda result: result.outcome.rows == 0 and not result.tracked,
        15,
    ),
    Actor(
        "LATE",
        "LATE signs a partner",
        "BUY",
        _times(3.0, ((68.0, 1.0), (69.0, 1.2))),
        "none: rises after its window",
        lambda result: result.outcome.alerts == result.outcome.rises == 0 and not result.tracked,
        75,
    ),
)


def market(duration_s: float) -> Market:
    """Return the scripted market."""
    trades = [
        Trade(step * TRADE_EVERY_S, actor.ticker, _price(actor, step * TRADE_EVERY_S), 100 + step)
        for step in range(int(duration_s / TRADE_EVERY_S) + 1)
        for actor in ACTORS
        if actor.prices
    ]
    return Market(trades)


def _price(actor: Actor, at: float) -> float:
    (begin, low), (end, high) = actor.prices
    share = min(1.0, max(0.0, (at - begin) / (end - begin)))
    # A cent's wobble, since TWS sends no price twice in a row.
    wobble = 0.001 * (int(at / TRADE_EVERY_S) % 2)
    return round(low + share * (high - low) + wobble, 4)


def break_news(stream: NewsServer) -> None:
    """Publish the headline of each stock."""
    for actor in ACTORS:
        stream.publish(news_message(actor.headline, [actor.ticker]))


def score(manager: ClickHouseManager) -> None:
    """Do what the program that scores stocks does."""
    manager.client.insert(
        "News.float_list_detailed_dedup",
        [[actor.ticker, actor.score] for actor in ACTORS if actor.score is not None],
        column_names=["ticker", "strength_score"],
    )


async def play(folder: Path, duration_s: float) -> bool:
    """Run the demo in `folder`; return whether what was expected came about."""
    ratings = {
        actor.ticker: ScriptedRating(actor.recommendation, "high", "It stands in the script.")
        for actor in ACTORS
    }
    async with MessagesServer(ratings) as service, NewsServer() as stream:
        settings = Settings(
            clickhouse_path=folder / "clickhouse",
            benzinga_api_key="demo",
            benzinga_stream_url=stream.url,
            anthropic_api_key="demo",
            anthropic_base_url=service.url,
            trigger_folder=folder / "triggers",
            log_folder=folder / "logs",
            # Whatever the hour, the script's session lasts to its end.
            session_roll=None,
            record_folder=folder / "recordings",
        )
        listener = _listen(settings)
        print(f"Watch it: {address_of(listener)}\n", flush=True)
        configure_logging(settings.log_folder, rotate=True)
        # The other side of what newshead tells itself.
        logging.getLogger("simulator").setLevel(logging.WARNING)
        # Before the market opens: loading the service's library takes over a second.
        analyst = await off_loop(Analyst, settings)
        try:
            async with Gateway(market(duration_s)) as gateway, serving(settings, listener, folder):
                settings = replace(settings, ibkr_port=gateway.port)
                return await _watch(settings, analyst, stream, duration_s)
        finally:
            await analyst.close()


async def _watch(
    settings: Settings, analyst: Analyst, stream: NewsServer, duration_s: float
) -> bool:
    """Break the news and watch newshead; return whether what was expected came about."""
    monitor = ContinuousPriceMonitor(settings)
    news = NewsMonitor(settings, analyst, any_ticker=True)
    manager = ClickHouseManager(settings)

    async def both() -> None:
        async with asyncio.TaskGroup() as parts:
            parts.create_task(monitor.start())
            await monitor.ready_event.wait()
            parts.create_task(news.start())

    at_work = asyncio.create_task(both())
    try:
        try:
            await _unless_ended(at_work, monitor.ready_event.wait())
            await off_loop(manager.connect)
            await off_loop(score, manager)
            await _unless_ended(at_work, stream.until_connected())
            break_news(stream)
            await _unless_ended(at_work, asyncio.sleep(duration_s))
            results = await off_loop(results_of, manager, set(monitor.active_tickers))
            as_expected = report(results, monitor.stats, duration_s)
            if as_expected:
                await _unless_ended(at_work, linger())
        finally:
            at_work.cancel()
            with suppress(asyncio.CancelledError):
                await at_work
        replayed, told = await off_loop(replay, settings, manager)
    finally:
        manager.close()
    print("\n".join(["", *told]))
    return as_expected and replayed


def results_of(manager: ClickHouseManager, tracked: set[str]) -> dict[str, Result]:
    """Return what came of each actor."""
    tickers = [actor.ticker for actor in ACTORS]
    outcomes = manager.outcomes(tickers)
    ratings = manager.standing(tickers).ratings
    priorities = {ticker: int(priority) for ticker, priority in manager.rows(PRIORITIES)}
    return {
        ticker: Result(
            outcomes.get(ticker, Outcome()),
            ticker in tracked,
            ratings.get(ticker, UNRATED).recommendation,
            priorities.get(ticker, 0),
        )
        for ticker in tickers
    }


async def linger() -> None:
    """Leave the page to who watches a terminal, until they press Enter or a minute has passed."""
    if not sys.stdin.isatty():
        return
    print(f"\nThe page stays up for {LINGER_S:.0f} s more. Press Enter to end.", flush=True)
    loop, terminal = asyncio.get_running_loop(), sys.stdin.fileno()
    pressed = asyncio.Event()
    loop.add_reader(terminal, pressed.set)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                await pressed.wait()
                # Else the shell gets it.
                os.read(terminal, 1024)
    finally:
        loop.remove_reader(terminal)


def replay(settings: Settings, manager: ClickHouseManager) -> tuple[bool, list[str]]:
    """Play the demo's recording again; return whether newshead did and stored the same, and lines
    that tell."""
    if settings.record_folder is None:
        raise ValueError("The demo is not recorded.")
    played = [recorded.play(path) for path in sorted(settings.record_folder.iterdir())]
    same, lines = compared(manager, played)
    whole = all(each.whole and not each.difference for each in played)
    return same and whole, [*(each.summary for each in played), *lines]


def _listen(settings: Settings) -> socket.socket:
    """Return a socket for the page at its usual port, or at a free one where that is taken."""
    try:
        return listen(settings)
    except ConfigurationError:
        return listen(replace(settings, dashboard_port=0))


async def _unless_ended(monitor: asyncio.Task[None], work: Coroutine[Any, Any, object]) -> None:
    """Await `work`, but no longer than the monitor lives; raises what that died of."""
    working = asyncio.ensure_future(work)
    await asyncio.wait({monitor, working}, return_when=asyncio.FIRST_COMPLETED)
    if monitor.done():
        working.cancel()
        await monitor


def report(results: dict[str, Result], stats: dict[str, float], duration_s: float) -> bool:
    """Print the summary; return whether every expectation that had its time came about."""
    rows = sum(result.outcome.rows for result in results.values())
    print(
        f"\n{stats['ibkr_ticks_received']:.0f} ticks, {rows} rows, "
        f"{stats['alerts_triggered']:.0f} alerts in {duration_s:.0f} s\n"
    )
    line = "{:6} {:6} {:>4} {:>6}  {}"
    print(line.format("ticker", "rating", "rows", "alerts", "expected; and what came of it"))
    failed = False
    for actor in ACTORS:
        result = results[actor.ticker]
        verdict = "not tested" if duration_s < actor.after_s else "ok"
        rated = result.recommendation == actor.recommendation
        if verdict == "ok" and not (rated and actor.holds(result)):
            verdict = "FAILED"
            failed = True
        outcome = result.outcome
        told = describe(outcome) if outcome.rows else "no rows"
        print(
            line.format(
                actor.ticker,
                result.recommendation,
                outcome.rows,
                outcome.alerts,
                f"{actor.expected}: {verdict}",
            )
        )
        indent = " " * len(line.format("", "", "", "", ""))
        print(textwrap.fill(told, WIDTH, initial_indent=indent, subsequent_indent=indent))
    print("\nThe demo FAILED." if failed else "\nAll as expected.")
    return not failed


def main(duration_s: float) -> int:
    """Play the demo; return the exit code."""
    succeeded = False

    async def show() -> None:
        nonlocal succeeded
        with tempfile.TemporaryDirectory(prefix="newshead-demo-") as folder:
            succeeded = await play(Path(folder), duration_s)

    asyncio.run(until_stopped(show()))
    if succeeded:
        print(NEXT_STEPS)
    return EXIT_OK if succeeded else EXIT_FAILED
