"""Starts newshead and keeps it running: database, price monitor, news.

`python run_system.py --skip-list --socket` is the usual call; `--demo` shows
everything on this machine without an account or a server.
"""

import argparse
import asyncio
import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from clickhouse_manager import ClickHouseManager
from dashboard import queries
from dashboard.console import LiveTable, can_draw
from dashboard.statements import PAGE_STATEMENTS
from ibkr_client import GatewayError
from newshead.core.parts import PAGE, PUSH, Part
from newshead.database.connection import (
    DATABASE_ERRORS,
    Database,
    one_line,
    until_database_works,
)
from newshead.database.http import engine_served
from newshead.database.layout import bring_over
from newshead.database.owner import RENEW_EVERY_S, OwnedError, Owner, give_up, own, renew
from newshead.database.part_writer import PartWriter
from newshead.database.store import insert_without_data_frames
from newshead.logs import configure_logging
from newshead.loop import attempt, in_background, off_loop
from newshead.news import ticker_list
from newshead.news.monitor import NewsMonitor
from newshead.news.rating import Analyst
from newshead.process import (
    CODE,
    EXIT_FAILED,
    EXIT_MISCONFIGURED,
    EXIT_OK,
    CommandLine,
    Lines,
    lock_file,
    run_child,
    run_promptly,
    until_stopped,
)
from newshead.proxies import outside_of, settle_proxies
from newshead.settings import ConfigurationError, Settings, given_variables, misspelt
from newshead.supervision import Children, supervise
from price_checker import ContinuousPriceMonitor, notify_new_ticker

# Not __name__, which is __main__ when this is the command.
logger = logging.getLogger("run_system")

LOCK: Final = Path(".newshead.lock")
OWNER_END_S: Final = 1.0
TELLING_END_S: Final = 0.5
LOCK_WAIT_S: Final = 10.0
LOCK_EVERY_S: Final = 0.1
# How long the demo lasts by default.
DEMO_S: Final = 80.0


def prepare_database(settings: Settings, owner: Owner, *, keep_session: bool) -> None:
    """Create what is missing and, unless told otherwise, begin a fresh session. Blocks.

    May be called again after it failed.

    Raises
    ------
    DatabaseError, ClickHouseError, ConfigurationError
        ClickHouse cannot be used.
    OwnedError
        Another newshead uses it.
    """
    manager = ClickHouseManager(settings)
    manager.connect()
    try:
        manager.create_tables()
        if not settings.embedded:
            own(manager, owner)
        if keep_session:
            logger.info("The session in the database goes on (--keep-session).")
        else:
            manager.move_session()
    finally:
        manager.close()


class NewsSide:
    """The news side, made anew where it failed."""

    def __init__(self, options: argparse.Namespace, settings: Settings, analyst: Analyst) -> None:
        self._options = options
        self._settings = settings
        self._analyst = analyst
        self._monitor: NewsMonitor | None = None

    def parts(self) -> Sequence[Part]:
        """Return how its parts fare; none before it was started."""
        return self._monitor.parts(datetime.now(UTC)) if self._monitor is not None else ()

    async def run(self, hand_over: Callable[[str], Awaitable[None]], list_problem: str) -> None:
        """Run it on this loop until it is cancelled."""
        options = self._options

        async def run_once() -> str:
            self._monitor = NewsMonitor(
                self._settings,
                self._analyst,
                any_ticker=options.any,
                take_old=options.enable_old,
                streams=options.socket,
                hand_over=hand_over,
                list_problem=list_problem,
            )
            await self._monitor.start()
            return "ended"

        try:
            # A wrong key is told before an article waits for its rating.
            async with in_background(self._analyst.try_keys()):
                await supervise("The news side", run_once)
        finally:
            await self._analyst.close()


class Inherited(NamedTuple):
    """What the child processes have from this one: newshead's variables as they were at its start,
    and the folder's lock, which the price monitor holds too."""

    variables: Mapping[str, str]
    lock: int


async def run(options: argparse.Namespace, settings: Settings, inherited: Inherited) -> None:
    """Start everything in order and run until it is cancelled."""
    owner = Owner.here()
    prepare = functools.partial(
        prepare_database, settings, owner, keep_session=options.keep_session
    )
    await until_database_works(prepare, wait=not settings.embedded)
    run_promptly()
    # In a thread of its own, since loading the service's library takes over a second.
    make_analyst = functools.partial(Analyst, settings, enabled=not options.no_sentiment)
    analyst = await off_loop(make_analyst)
    list_problem = ""
    if not options.skip_list:
        list_problem = await ticker_list.refresh(
            settings, ClickHouseManager(settings), force=options.force_list
        )
    if not options.socket:
        logger.info(
            "No source of news is read (--socket): only news that triggers bring, and rows that "
            "other programs write."
        )
    children, news, lines = Children(), NewsSide(options, settings, analyst), Lines()
    monitor = (
        functools.partial(monitor_here, settings)
        if settings.embedded
        else functools.partial(monitor_process, inherited, lines)
    )

    async def hand_over(ticker: str) -> None:
        if settings.embedded:
            await notify_new_ticker(ticker)
        else:
            lines.send(ticker)

    async with AsyncExitStack() as stack:
        if not settings.embedded:
            await stack.enter_async_context(in_background(keep_owning(settings, owner)))
        writer = PartWriter(settings, lambda: [*news.parts(), *children.parts()])
        await stack.enter_async_context(in_background(keep_telling(writer)))
        environment = dict(inherited.variables)
        if settings.embedded:
            environment |= await stack.enter_async_context(
                engine_served(settings, PAGE_STATEMENTS, queries.READ_SETTINGS)
            )
        # Unlike gather, it lets each part come to its own end before this one ends.
        parts = await stack.enter_async_context(asyncio.TaskGroup())
        parts.create_task(supervise("The price monitor", monitor))
        bringing = functools.partial(bring_history_over, settings)
        parts.create_task(supervise("Bringing the history over", bringing))
        if options.dashboard:
            page = functools.partial(children.run, PAGE, "Page", "dashboard", environment)
            parts.create_task(supervise("The page", page))
        if settings.alert_urls:
            push = functools.partial(children.run, PUSH, "Push", "dashboard.notify", environment)
            parts.create_task(supervise("The push", push))
        parts.create_task(news.run(hand_over, list_problem))


async def keep_owning(settings: Settings, owner: Owner) -> None:
    """Say again and again, until it is cancelled, that this newshead works with the database."""
    database = Database(settings)

    def write(say: Callable[[Database, Owner], None]) -> None:
        try:
            database.connect()
            say(database, owner)
        finally:
            database.close()

    try:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            # That the database fails is told by those whose rows it does not take.
            with suppress(*DATABASE_ERRORS):
                await off_loop(write, renew)
    finally:
        await attempt("to say that this newshead ended", off_loop(write, give_up), OWNER_END_S)


async def keep_telling(writer: PartWriter) -> None:
    """Write how the parts fare until it is cancelled, and at last that they are off."""
    try:
        await writer.run()
    finally:
        await attempt("to write the last states of newshead's parts", writer.end(), TELLING_END_S)


async def bring_history_over(settings: Settings) -> None:
    """Bring histories of earlier versions into their new form, beside everything else."""
    stopped = threading.Event()

    def work() -> None:
        database = ClickHouseManager(settings)
        database.connect()
        try:
            # At most half of the time, so that cycles are not kept waiting.
            bring_over(database, lambda took_s: not stopped.wait(took_s))
        finally:
            database.close()

    try:
        await off_loop(work)
    finally:
        stopped.set()


async def monitor_here(settings: Settings) -> str:
    """Run the monitor on this loop: the embedded engine belongs to one process."""
    try:
        await ContinuousPriceMonitor(settings, wait=True).start()
    except (ConfigurationError, GatewayError) as problem:
        # Without it newshead is of no use: it is tried again, whatever is wrong.
        return f"stopped ({problem})"
    return "ended"


async def monitor_process(inherited: Inherited, lines: Lines) -> str:
    """Run the monitor as a process of its own, which news handling cannot slow."""
    code = await run_child(
        "Price monitor",
        str(CODE / "price_checker.py"),
        "--wait",
        environment=inherited.variables,
        descriptors=[inherited.lock],
        lines=lines,
        take_pulse=str,
    )
    return f"ended with code {code}"


def demo_seconds(text: str) -> float:
    """Return the demo's duration, as the command line has it."""
    with suppress(ValueError):
        if 1 <= float(text) <= 3600:
            return float(text)
    raise argparse.ArgumentTypeError(f"it must be a number from 1 to 3600, not {text!r}")


def command_line() -> CommandLine:
    """Return the flags."""
    command = CommandLine(
        prog="run_system.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flag = command.add_argument
    flag("--skip-list", action="store_true", help="don't refresh the ticker list News.float_list")
    flag(
        "--force-list",
        action="store_true",
        help="take a ticker list too that is less than half as long as the present one",
    )
    flag("--socket", action="store_true", help="read news from the sources of NEWS_SOURCES")
    flag(
        "--any",
        action="store_true",
        help="with --socket: take any ticker, not only those in float_list",
    )
    flag("--enable-old", action="store_true", help="take articles older than 2 minutes too")
    flag("--no-sentiment", action="store_true", help="skip the sentiment analysis")
    flag(
        "--keep-session",
        action="store_true",
        help="go on with the session in the database instead of moving it to the history",
    )
    flag(
        "--dashboard",
        action="store_true",
        help="serve the page with charts too (DASHBOARD_HOST, _PORT, _PASSWORD)",
    )
    flag("--plain", action="store_true", help="plain log lines on a terminal, not the live table")
    flag(
        "--check",
        action="store_true",
        help="try every configured part, say what works and what to do, and end",
    )
    flag(
        "--send",
        action="store_true",
        help="with --check: send a message to each of ALERT_URLS too, and pay for one rating",
    )
    flag("--demo", action="store_true", help="show everything with a simulated gateway, then end")
    flag(
        "--demo-seconds",
        type=demo_seconds,
        default=DEMO_S,
        metavar="N",
        help=f"how long the demo lasts (default {DEMO_S:.0f})",
    )
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run newshead; return the exit code."""
    command = command_line()
    options = command.parse_args(arguments)
    insert_without_data_frames()
    if options.demo:
        # Not above: it needs the simulator and the web server.
        import demo

        return demo.main(options.demo_seconds)
    if options.check:
        return check(send=options.send)
    if options.send:
        command.error("--send belongs to --check")
    try:
        lock = lock_folder()
    except BlockingIOError:
        print("run_system.py: newshead runs in this folder already.", file=sys.stderr)
        return EXIT_FAILED
    except OSError as problem:
        print(f"run_system.py: this folder cannot be written: {problem}.", file=sys.stderr)
        return EXIT_MISCONFIGURED
    try:
        variables = given_variables()
        settings = Settings.from_environment(variables)
        outside = outside_of(
            settings,
            news=options.socket,
            rating=not options.no_sentiment,
            ticker_list=not options.skip_list,
        )
        settle_proxies(os.environ, outside)
        configure_logging(settings.log_folder, rotate=True)
        with LiveTable(settings) if can_draw() and not options.plain else nullcontext():
            return run_until_stopped(options, settings, Inherited(variables, lock))
    except ConfigurationError as problem:
        print(f"run_system.py: {problem}", file=sys.stderr)
        return EXIT_MISCONFIGURED
    finally:
        os.close(lock)


def lock_folder() -> int:
    """Take this folder's lock; where another holds it, wait for up to 10 s: a price monitor whose
    newshead was killed may be about to end.

    Raises as `lock_file`.
    """
    deadline = time.monotonic() + LOCK_WAIT_S
    told = False
    while True:
        try:
            return lock_file(LOCK)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
        if not told:
            told = True
            print(
                "run_system.py: another newshead has this folder; waiting for its end for up to "
                f"{LOCK_WAIT_S:.0f} s.",
                file=sys.stderr,
            )
        time.sleep(LOCK_EVERY_S)


def check(*, send: bool) -> int:
    """Try every configured part, or show how the newshead of this folder fares; return the exit
    code."""
    # Not above: it needs the web server and the push's library.
    from newshead.check import command

    lock = -1
    try:
        with suppress(BlockingIOError):
            lock = lock_file(LOCK)
        return command.main(Settings.from_environment(), running=lock < 0, send=send)
    except ConfigurationError as problem:
        print(f"run_system.py: {problem}", file=sys.stderr)
    except OSError as problem:
        print(f"run_system.py: this folder cannot be written: {problem}.", file=sys.stderr)
    finally:
        if lock >= 0:
            os.close(lock)
    return EXIT_MISCONFIGURED


def run_until_stopped(options: argparse.Namespace, settings: Settings, inherited: Inherited) -> int:
    """Run newshead until Ctrl-C or SIGTERM; return the exit code."""
    for name, meant in misspelt(os.environ).items():
        logger.warning("The variable %s is unknown and has no effect: is %s meant?", name, meant)
    try:
        asyncio.run(until_stopped(run(options, settings, inherited)))
    except DATABASE_ERRORS as problem:
        logger.error("%s", one_line(problem))
        return EXIT_FAILED
    except OwnedError as problem:
        logger.error("%s", problem)
        return EXIT_FAILED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
