"""The price monitor: from triggers and trades to price rows and alerts.

`python price_checker.py` runs it on its own; `run_system.py` runs it as a part.
"""

import asyncio
import functools
import logging
import math
import os
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from clickhouse_manager import ClickHouseManager
from ibkr_client import ConnectionState, GatewayError, IBKRClient
from newshead.core import rule
from newshead.core.market import LIVE, NOT_HALTED
from newshead.core.rule import Rise
from newshead.core.slots import Slot, SlotBook
from newshead.core.tickers import Answer, TickerBook, parse_ticker
from newshead.database.connection import (
    DATABASE_ERRORS,
    one_line,
    until_database_works,
)
from newshead.database.queries import UNRATED
from newshead.database.store import Outbox, RowWriter, insert_without_data_frames
from newshead.database.tables import PriceMoveRow, PriceRow
from newshead.logs import configure_logging
from newshead.loop import attempt, off_loop
from newshead.monitor.alerts import AlertDesk
from newshead.monitor.clocks import watch_clocks
from newshead.monitor.database_watch import watch_cycles, watch_folder
from newshead.monitor.figures import Figures
from newshead.monitor.follow_up import FollowUp
from newshead.monitor.keeper import ConnectionKeeper
from newshead.monitor.questions import Question, Questions
from newshead.monitor.roll import SessionRoll
from newshead.monitor.standings import Standings
from newshead.monitor.status import StatusWriter
from newshead.monitor.taped import TapedOutbox, in_force
from newshead.monitor.ticker_status import TickerStatus
from newshead.monitor.triggers import TriggerFolder
from newshead.process import (
    EXIT_FAILED,
    EXIT_MISCONFIGURED,
    EXIT_OK,
    CommandLine,
    pulsing,
    run_promptly,
    until_stopped,
)
from newshead.proxies import outside_of, settle_proxies
from newshead.settings import ConfigurationError, Settings
from newshead.tape import Kind, Tape
from newshead.text import parse_time
from newshead.tws.account import UNKNOWN
from newshead.tws.memory import Memory

if TYPE_CHECKING:
    from newshead.monitor.metrics import Metrics

# Not __name__, which is __main__ when this is the command.
logger = logging.getLogger("price_checker")

# One row per ticker per slot of this length; slots begin at its multiples in UTC.
CYCLE_S: Final = 2.0
CLEANUP_EVERY_S: Final = 300.0
STATS_EVERY_S: Final = 300.0
LAST_FLUSH_S: Final = 3.0
CLOSE_TIMEOUT_S: Final = 1.0
# With the two above it stays within the 5 s after which run_system.py kills the monitor.
TASKS_END_S: Final = 0.5
# Rows that wait for so long for a cycle's end are no longer on their way.
KEPT_AFTER_S: Final = 5.0
# Rows of windows that began longer ago were judged, or are no news to a trader now.
RESTART_JUDGES_S: Final = 600
# The session's roll leaves the news of the last minute where it is, and of the minute before a
# ticker came up that is carried over.
ROLL_KEEPS_NEWS_S: Final = 60.0

# For code in the same process: has the effect of a trigger file.
ticker_notification_queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()


async def notify_new_ticker(ticker: str, timestamp: datetime | None = None) -> None:
    """Tell the monitor in this process of news about `ticker`, as a trigger file would."""
    await ticker_notification_queue.put(
        {"ticker": ticker, "timestamp": timestamp or datetime.now(UTC)}
    )


class ContinuousPriceMonitor:
    """Track the prices of tickers in the news for 60 seconds each and raise alerts.

    All methods run on one event loop and never block it.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        wait: bool = False,
        ch_manager: ClickHouseManager | None = None,
        tape: Tape | None = None,
    ) -> None:
        """
        Parameters
        ----------
        settings
            By default those of the environment.
        wait
            Keep trying when IBKR cannot be reached at the start, instead of giving up.
        ch_manager
            The database; by default the one that the settings name.
        tape
            Tells the time and is told all that decisions rest on; by default a recorder where the
            settings name a folder for recordings.
        """
        self.settings = settings or Settings.from_environment()
        self.wait = wait
        self.ch_manager = ch_manager or ClickHouseManager(self.settings)
        self._tape = tape or self._new_tape()
        self.ready_event = asyncio.Event()

        self.ibkr_client: IBKRClient | None = None
        # What was assigned to `ibkr_connected`; counts while there is no client.
        self._connected = False
        self.ibkr_host = self.settings.ibkr_host
        self.ibkr_port = self.settings.ibkr_port
        self.ibkr_client_id = self.settings.ibkr_client_id

        self.stats: dict[str, float] = {
            "tickers_monitored": 0,
            "price_checks": 0,
            "alerts_triggered": 0,
            "ibkr_ticks_received": 0,
            "ibkr_reconnections": 0,
            "cycles": 0,
            "last_cycle_s": 0.0,
            "start_time": time.time(),
        }

        self._triggers = TriggerFolder(self.settings.trigger_folder)
        # Handed to each new client.
        self._memory = Memory.new(self.settings.ibkr_market_data_type, CYCLE_S)
        self._tickers = TickerBook()
        self._slots = SlotBook(CYCLE_S)
        self._writer = RowWriter(
            self.ch_manager,
            "rows",
            logger,
            outbox=TapedOutbox(self._tape),
            run=self._tape.store,
        )
        self._questions = Questions(self._writer)
        self._standings = Standings(self.ch_manager, self._questions, self._tape.ask)
        # The tickers whose ratings the window check just read, or tried to.
        self._rated_now: set[str] = set()
        self._alerts = AlertDesk(
            self.ch_manager,
            self._writer,
            self._questions,
            self._tickers,
            self.stats,
            copy=self.log_price_alert,
            was_halted=lambda ticker: self._memory.conditions.of(ticker).was_halted,
            ask=self._tape.ask,
        )
        self._roll = SessionRoll(
            self.settings.session_roll,
            self.ch_manager,
            self._tape,
            holds=self._holds_roll,
            begin_session=self._begin_session,
        )
        self._status = StatusWriter(
            self.settings, self.figures, follow_others=bool(self.settings.metrics_port)
        )
        self._keeper = ConnectionKeeper(
            lambda: self.ibkr_client,
            self.reconnect_ibkr,
            self._status.state_changed,
            self.ready_event,
            self.stats,
        )
        self._ticker_status = TickerStatus(self.ch_manager, self._tape.aside)
        self._follow_up = self._new_follow_up() if self.settings.follow_up else None
        self._metrics: Metrics | None = None
        # time.monotonic() of the end of the last cycle.
        self.last_cycle_at = -math.inf

    def _new_tape(self) -> Tape:
        folder = self.settings.record_folder
        if folder is None:
            return Tape()
        # The packer's library is for those who record.
        from newshead.recording import Recorder

        told = in_force(self.settings, wait=self.wait, slot_s=CYCLE_S)
        return Recorder(folder, int(self.settings.record_max_gb * 1e9), told)

    def _new_follow_up(self) -> FollowUp | None:
        if self.settings.ibkr_market_data_type != LIVE:
            # Their rows are 15 minutes older than IBKR's bars of the same time.
            logger.warning(
                "FOLLOW_UP needs live data: windows of delayed data are not followed up."
            )
            return None
        return FollowUp(self.settings, lambda: self.ibkr_client, self._has_unserved)

    # What these tell, any thread may ask.

    @property
    def active_tickers(self) -> set[str]:
        """The tickers that are tracked; may be changed and assigned."""
        return self._tickers.active

    @active_tickers.setter
    def active_tickers(self, tickers: set[str]) -> None:
        self._tickers.active = tickers

    @property
    def ticker_timestamps(self) -> dict[str, datetime]:
        """When each ticker was tracked last (aware UTC); may be changed and assigned."""
        return self._tickers.since

    @ticker_timestamps.setter
    def ticker_timestamps(self, since: dict[str, datetime]) -> None:
        self._tickers.since = since

    @property
    def ibkr_connected(self) -> bool:
        """Whether IBKR takes requests now."""
        return self._connected if self.ibkr_client is None else self.ibkr_client.connected

    @ibkr_connected.setter
    def ibkr_connected(self, connected: bool) -> None:
        self._connected = connected
        if self.ibkr_client is not None:
            self.ibkr_client.connected = connected

    @property
    def outbox(self) -> Outbox:
        """The rows on their way into ClickHouse."""
        return self._writer.outbox

    @property
    def state(self) -> ConnectionState:
        """How far the connection to IBKR has come."""
        client = self.ibkr_client
        return client.state if client is not None else ConnectionState.DISCONNECTED

    @property
    def kept_rows(self) -> int:
        """The number of rows that wait because ClickHouse fails or does not answer."""
        stuck = time.monotonic() - self.last_cycle_at >= KEPT_AFTER_S
        return len(self._writer.outbox) if self._writer.outage.lasts or stuck else 0

    def figures(self) -> Figures:
        """Return the figures of the moment. Any thread."""
        client, stats = self.ibkr_client, self.stats
        conditions, active = self._memory.conditions, self.active_tickers.copy()
        return Figures(
            state=self.state,
            mode=client.mode if client is not None else UNKNOWN,
            delayed=self.settings.ibkr_market_data_type != LIVE,
            account=client.masked_account if client is not None else "",
            active_tickers=len(self.active_tickers),
            cycles=int(stats["cycles"]),
            ticks=int(stats["ibkr_ticks_received"]),
            rows=int(stats["price_checks"]),
            alerts=int(stats["alerts_triggered"]),
            reconnects=int(stats["ibkr_reconnections"]),
            kept_rows=self.kept_rows,
            unjudged=self._questions.unanswered(Question.RULE),
            last_cycle_s=stats["last_cycle_s"],
            cycle_age_s=time.monotonic() - self.last_cycle_at,
            tick_age_s=self._keeper.tick_age_s,
            message_age_s=client.quiet_s if client is not None and client.connected else None,
            dark_reason=self._keeper.dark_reason,
            refused=client is not None and client.failure is not None and client.failure.final,
            blind=self._keeper.blind,
            farms_away=client.farms_away if client is not None else (),
            halted_tickers=sum(conditions.of(t).halted != NOT_HALTED for t in active),
            late_tickers=sum(not conditions.counts(t) for t in active),
            stored_age_s=self._status.stored_age_s,
            clock_difference_s=self._status.clock_difference_s,
            trigger_problem=self._triggers.problem,
            displaced_tickers=client.displaced_tickers if client is not None else 0,
            follow_up=self._follow_up.counts if self._follow_up is not None else None,
        )

    # --- Life ---------------------------------------------------------------

    async def start(self) -> None:
        """Run the monitor until it is cancelled.

        Raises
        ------
        GatewayError
            IBKR cannot be reached; with `wait` only where trying again is no use.
        DatabaseError, ConfigurationError
            ClickHouse cannot be used.
        """
        tasks: list[asyncio.Task[None]] = []
        try:
            if self.settings.metrics_port:
                self._metrics = await off_loop(self._serve_metrics)
            await off_loop(self._tape.open)
            await self.initialize()
            for part in (
                self._keeper.keep(lambda: self.ibkr_connected),
                self._keeper.watch(lambda: len(self.active_tickers)),
                watch_clocks(CYCLE_S, lambda: len(self.active_tickers), self._tickers.note),
                watch_cycles(lambda: self.stats["cycles"]),
                *([watch_folder()] if self.settings.embedded else []),
                self._status.run(),
                self.file_trigger_monitor_async(),
                self.continuous_polling_loop(),
                *([self._follow_up.run()] if self._follow_up is not None else []),
            ):
                tasks.append(asyncio.create_task(part))
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            try:
                if tasks:
                    await asyncio.wait(tasks, timeout=TASKS_END_S)
            finally:
                await self.cleanup()

    def _serve_metrics(self) -> "Metrics":
        # Its library is for those who ask for it.
        from newshead.monitor.metrics import Metrics

        metrics = Metrics(self.figures, lambda: self._status.others)
        metrics.start(self.settings.metrics_port)
        return metrics

    async def initialize(self) -> None:
        """Connect to ClickHouse and, without `wait`, to IBKR; load the active tickers.

        Raises as `start`.
        """
        await off_loop(self._triggers.reject_old)
        patient = self.wait and not self.settings.embedded
        await until_database_works(self.ch_manager.connect, wait=patient)
        await self.take_up()
        for told in self._triggers.take_up():
            self.answer_trigger(self._tickers.spelling(told))
        if not self.wait:
            await self.connect_first()
        logger.info("Price monitor initialized: %d active tickers.", len(self.active_tickers))

    async def take_up(self) -> None:
        """Go on where the database says. Raises as `start`."""
        await self.create_essential_tables()
        await self._restore_windows()
        await self._alerts.restore()
        for told in sorted(await self.get_active_tickers_from_breaking_news()):
            ticker = self._tickers.spelling(told)
            if ticker not in self._tickers.ended:
                self._track(ticker)

    async def connect_first(self) -> None:
        """Connect to IBKR and subscribe what is active. Raises as `setup_ibkr_connection`."""
        self._tape.note(Kind.START)
        await self.setup_ibkr_connection()
        await self.update_ibkr_subscriptions()

    async def create_essential_tables(self) -> None:
        """Create the tables that are missing."""
        await self._tape.ask(self.ch_manager.create_tables)

    async def get_active_tickers_from_breaking_news(self) -> set[str]:
        """Return the tickers with news in the last 5 minutes, at most 100."""
        found = await self._tape.ask(self.ch_manager.active_tickers)
        checked = {text: parse_ticker(text) for text in found}
        for text in (text for text, ticker in checked.items() if ticker is None):
            logger.warning("Ignored %a in breaking_news: not a ticker.", text)
        return {ticker for ticker in checked.values() if ticker is not None}

    async def _restore_windows(self) -> None:
        """Go on where a monitor of this session was killed."""
        windows = await self._tape.ask(self.ch_manager.windows)
        for ticker, window in sorted(windows.items(), key=lambda each: each[1].first_row):
            # Rows that an earlier release wrote of it in another spelling as well.
            if self._tickers.spelling(ticker) != ticker:
                continue
            self._tickers.priced.add(ticker)
            if window.age_s > rule.WINDOW_S:
                self._tickers.ended[ticker] = window.first_row
            else:
                self._track(ticker)
                # This process's first request is not the window's first.
                self._memory.last_trades.restore(
                    ticker, window.price, window.volume, window.newest_row
                )
            # A kill may have come between the rows and their alerts.
            if window.age_s <= RESTART_JUDGES_S:
                self._tickers.await_row(ticker, int(window.newest_row.timestamp()))

    async def cleanup(self) -> None:
        """End the connection to IBKR, store what waits (for at most 3 s), close the database.

        What fails is logged, and the next step follows: nothing but a cancellation is raised.
        """
        try:
            await self.finish()
        finally:
            lost = len(self._writer.outbox) + len(self._slots)
            if lost:
                logger.error("%d rows could not be stored and are lost.", lost)
            if uncopied := self._alerts.uncopied:
                logger.error(
                    "%d alerts could not be copied into price_move in time; they are in "
                    "news_alert, and a start with --keep-session copies them.",
                    uncopied,
                )
            self._writer.report_given_up()
        if self.ready_event.is_set():
            await self.report_stats()
        closing = {
            "to close the database": off_loop(self.ch_manager.close),
            "to write the last status": self._status.close(),
            "to end the recording": off_loop(self._tape.close),
        }
        if self._follow_up is not None:
            closing["to close the follow-up's database"] = off_loop(self._follow_up.close)
        if self._metrics is not None:
            closing["to close the metrics"] = off_loop(self._metrics.close)
        await asyncio.gather(
            *(attempt(what, step, CLOSE_TIMEOUT_S) for what, step in closing.items())
        )

    async def finish(self) -> None:
        """End the connection to IBKR and store what waits, for at most 3 s."""
        self._tape.note(Kind.STOP)
        await asyncio.gather(
            # First, since it takes the last ticks.
            attempt("to end the connection to IBKR", self.close_ibkr(), LAST_FLUSH_S),
            attempt("to store the last rows", self._store_last_rows(), LAST_FLUSH_S),
        )

    async def _store_last_rows(self) -> None:
        if len(self._slots):
            await attempt("to read the windows", self.get_tickers_within_60_second_window())
            await self._make_rows(self._slots.all, self._slots.tickers)
        await self._alerts.store()
        await self.check_price_alerts_optimized()

    # --- IBKR ---------------------------------------------------------------

    async def setup_ibkr_connection(self) -> None:
        """Connect to IBKR with a new client.

        Raises
        ------
        GatewayError
            It failed; the client has logged why.
        """
        client = IBKRClient(
            self.ibkr_host,
            self.ibkr_port,
            self.ibkr_client_id,
            market_data_type=self.settings.ibkr_market_data_type,
            state_callback=self._status.state_changed,
            memory=self._memory,
            reference=self.settings.ibkr_reference,
            tape=self._tape,
        )
        if self.ibkr_client is not None:
            client.failure = self.ibkr_client.failure
        self.ibkr_client = client
        connect = functools.partial(client.connect_and_run, patient=True)
        if not await self._tape.run(connect) and client.failure is not None:
            raise client.failure
        logger.info("IBKR connection established on port %d, mode %s.", client.port, client.mode)

    async def close_ibkr(self) -> None:
        """End the connection to IBKR; its ticks stay."""
        if self.ibkr_client is not None:
            try:
                self._take_ticks()
            except Exception:
                lost = len(self.ibkr_client.price_buffer)
                logger.error("The ticks of %d tickers since the last cycle are lost.", lost)
                raise
            finally:
                await self._tape.run(self.ibkr_client.disconnect_safely)

    async def reconnect_ibkr(self) -> None:
        """Make one attempt at a new connection and subscribe what is active."""
        self._tape.note(Kind.RECONNECT)
        await self.close_ibkr()
        with suppress(GatewayError):
            await self.setup_ibkr_connection()
            await self.update_ibkr_subscriptions()

    async def update_ibkr_subscriptions(self) -> None:
        """Subscribe exactly the active tickers; untrack those that IBKR does not know."""
        with self._tape.step(Kind.SUBSCRIBE):
            if client := self._connected_client:
                self._tickers.reject(client.get_rejected_tickers())
                client.update_subscriptions(set(self.active_tickers))

    @property
    def _connected_client(self) -> IBKRClient | None:
        return self.ibkr_client if self.ibkr_connected else None

    # --- Tickers ------------------------------------------------------------

    async def file_trigger_monitor_async(self) -> None:
        """Take trigger files and notifications as they come, and subscribe their tickers."""
        logger.info("Watching the folder %s for triggers.", self.settings.trigger_folder)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._take_files())
            both.create_task(self._take_notifications())

    async def _take_files(self) -> None:
        async with aclosing(self._triggers.arrivals()) as triggers:
            async for trigger in triggers:
                ticker = self._tickers.spelling(trigger.ticker)
                known = ticker in self.active_tickers
                self.answer_trigger(ticker)
                if self._metrics is not None and not known and self._is_subscribed(ticker):
                    latency_s = time.time() - trigger.written_at
                    self._metrics.trigger_duration_seconds.observe(latency_s)

    def _has_unserved(self) -> bool:
        """Return whether a ticker waits for its subscription, and not for IBKR's leave."""
        client = self.ibkr_client
        if client is None:
            return bool(self.active_tickers)
        return bool(self.active_tickers - {*client.subscribed(), *client.get_refusals()})

    def _is_subscribed(self, ticker: str) -> bool:
        return self.ibkr_client is not None and ticker in self.ibkr_client.active_subscriptions

    async def _take_notifications(self) -> None:
        while True:
            told = (await ticker_notification_queue.get())["ticker"]
            if (ticker := parse_ticker(told)) is None:
                logger.warning("Ignored a notification for %a: not a ticker.", told)
            else:
                self.answer_trigger(self._tickers.spelling(ticker))

    def answer_trigger(self, ticker: str) -> None:
        """Track the ticker of a trigger, if it may be, and subscribe it at once."""
        if self._follow_up is not None:
            self._follow_up.give_way()
        with self._tape.step(Kind.TRIGGER, ticker):
            client = self._connected_client
            # While IBKR is away, what it knows is for the next connection to say.
            unknown = client.get_rejected_tickers() if client is not None else ()
            answer = self._tickers.answer(ticker, unknown)
            if answer is Answer.TRACK:
                self._track(ticker)
                # The next cycle subscribes what this does not reach.
                if client is not None:
                    client.subscribe_ticker(ticker)
            # Not before: the log's threads would take turns with the request.
            logger.info("Trigger for %s: %s.", ticker, answer.value)

    def _track(self, ticker: str) -> None:
        if ticker not in self.active_tickers:
            self.stats["tickers_monitored"] += 1
            self._memory.forget(ticker)
        self._tickers.track(ticker, self._tape.utc())

    async def cleanup_old_tickers(self) -> None:
        """Drop the tickers that have been tracked for over 30 minutes."""
        self._tickers.drop_old(self._tape.utc())

    async def get_tickers_within_60_second_window(self) -> set[str]:
        """Return the active tickers inside their window; untrack the others.

        The same answer brings the ratings, see `_get_sentiment_data`. If the database cannot
        say, all stay: better a row too many than a blind spot.
        """
        active = set(self.active_tickers)
        asked = active | self._slots.tickers
        ended = await self._standings.look_up(asked)
        if ended is None:
            return active
        self._tickers.end_windows(ended)
        return active - self._tickers.ended.keys()

    # --- The cycle ----------------------------------------------------------

    async def continuous_polling_loop(self) -> None:
        """Run a cycle at the end of each 2-second slot; a slow one costs no slot its row."""
        cycle = 0
        with self._tape.step(Kind.CYCLE, cycle):
            next_cleanup = self._tape.monotonic() + CLEANUP_EVERY_S
            self._roll.plan(self._tape.utc())
        next_stats = time.monotonic() + STATS_EVERY_S
        while True:
            await self._tape.until(_next_slot)
            cycle += 1
            with self._tape.step(Kind.CYCLE, cycle):
                begun, at = self._tape.monotonic(), self._tape.utc()
            started, idle = time.monotonic(), self._idle()
            try:
                await self._cycle(cycle)
                self._finish_triggers()
                self._count_cycle(started, idle=idle)
                if begun >= next_cleanup:
                    next_cleanup = begun + CLEANUP_EVERY_S
                    await self.cleanup_old_tickers()
                if time.monotonic() >= next_stats:
                    next_stats = time.monotonic() + STATS_EVERY_S
                    await self.report_stats()
                await self._roll.roll_if_due(at)
            except DATABASE_ERRORS as problem:
                self._writer.failed(problem)
            except Exception:
                logger.exception("Cycle %d failed; the next one goes on.", cycle)

    def _finish_triggers(self) -> None:
        # Rows that are not stored yet would be lost with this process.
        if not len(self._writer.outbox):
            self._triggers.keep_only(self._tickers.awaited)

    def _count_cycle(self, started: float, *, idle: bool) -> None:
        self.last_cycle_at = time.monotonic()
        self.stats["cycles"] += 1
        self.stats["last_cycle_s"] = self.last_cycle_at - started
        if self._metrics is not None and not idle:
            self._metrics.cycle_duration_seconds.observe(self.stats["last_cycle_s"])

    async def _cycle(self, number: int) -> None:
        await self.update_ibkr_subscriptions()
        if self._idle():
            logger.debug("Cycle %d: no active tickers.", number)
            return
        started = time.monotonic()
        rows_before = self.stats["price_checks"]
        await self.process_ibkr_prices()
        await self.check_price_alerts_optimized()
        await self._alerts.log_outcomes()
        if self.ibkr_client is not None:
            client = self.ibkr_client
            await self._ticker_status.store(
                self.active_tickers, client.get_conditions(), client.get_refusals()
            )
        logger.info(
            "Cycle %d: %d rows, %d active tickers, %.3f s.",
            number,
            self.stats["price_checks"] - rows_before,
            len(self.active_tickers),
            time.monotonic() - started,
        )

    def _idle(self) -> bool:
        """Return whether nothing is tracked and nothing waits."""
        waiting = len(self._slots) or len(self._writer.outbox)
        return not waiting and self._tickers.idle and self._alerts.idle

    def _holds_roll(self) -> str:
        """Return what the session's roll has to wait for; empty where there is nothing.

        A ticker that has no row yet is carried over.
        """
        if open_windows := self.active_tickers - self._tickers.awaited:
            return f"the windows of {', '.join(sorted(open_windows))} are open"
        if len(self._writer.outbox) or not self._alerts.idle:
            return "rows or alerts wait for ClickHouse"
        if len(self._slots) or self._tickers.unjudged or self._tickers.untold:
            return "rows are still to be judged"
        return ""

    def _begin_session(self) -> datetime:
        """Let tickers have their window again; return since when news stays where it is: of those
        that are carried over it has their rating."""
        self._tickers.roll()
        if self.ibkr_client is not None:
            self.ibkr_client.forget_session()
        self._ticker_status.forget_session()
        self._alerts.forget_session()
        self._standings.forget_session()
        came_up = min([self._tape.utc(), *self.ticker_timestamps.values()])
        return came_up - timedelta(seconds=ROLL_KEEPS_NEWS_S)

    async def process_ibkr_prices(self) -> None:
        """Write one row per ticker and finished slot: its newest tick, with the rating."""
        with suppress(*DATABASE_ERRORS):
            await self._writer.restore_tables()
        await self._alerts.store()
        # A ticker that comes up while these are checked has its first row in the next cycle.
        checked = self.active_tickers | self._slots.tickers
        if checked:
            await self.get_tickers_within_60_second_window()
        now = self._tape.utc()
        self._take_ticks()
        finished = self._slots.finished(now, checked)
        if not finished:
            return
        await self._make_rows(finished, checked)
        await self._alerts.store()

    def _take_ticks(self) -> None:
        if self.ibkr_client is None:
            return
        with self._tape.step(Kind.DRAIN):
            drained = self.ibkr_client.get_and_clear_buffer()
        for ticker, ticks in drained.items():
            self.stats["ibkr_ticks_received"] += len(ticks)
            self._slots.add(ticker, ticks)

    async def _make_rows(self, slots: Sequence[Slot], checked: set[str]) -> None:
        """Put the rows of these slots, oldest first, on their way; leave out those past
        their ticker's window."""
        inside = [
            slot for slot in slots if self._tickers.in_window(slot.ticker, self._slots.end_s(slot))
        ]
        self._rated_now = checked
        try:
            known = await self._get_sentiment_data({slot.ticker for slot in inside})
        finally:
            self._rated_now = set()
        unrated = UNRATED._asdict()
        rows = [
            PriceRow(
                tick["timestamp"],
                slot.ticker,
                tick["price"],
                tick["volume"],
                tick["source"],
                **known.get(slot.ticker, unrated),
            )
            for slot, tick in ((slot, self._slots[slot]) for slot in inside)
        ]
        # From here on without a pause: a cancelled task must not lose what it took.
        self._slots.remove(slots)
        self._writer.outbox.add(sorted(rows))
        self._tickers.priced.update(row.ticker for row in rows)
        for row in rows:
            self._tickers.await_row(row.ticker, int(row.timestamp.timestamp()))
        self.stats["price_checks"] += len(rows)

    async def _get_sentiment_data(self, tickers: set[str]) -> dict[str, dict[str, str]]:
        """Return the newest ratings of the last hour of those of `tickers` that have one; where the
        database fails, the last known ones.

        In a cycle the window check's answer serves for both.
        """
        if unread := tickers - self._rated_now:
            await self._standings.look_up(unread)
        return {t: each._asdict() for t, each in self._standings.ratings(tickers).items()}

    # --- Alerts -------------------------------------------------------------

    async def check_price_alerts_optimized(self) -> None:
        """Apply the alert rule to the active tickers and to those that got rows."""
        await self._alerts.check()

    async def log_price_alert(self, alert: Rise) -> None:
        """Put an alert, with the ticker's newest news, on its way into price_move.

        Raises
        ------
        ClickHouseError
            The news cannot be read.
        """
        news = await self._tape.ask(self.ch_manager.newest_news, alert.ticker)
        now = self._tape.utc()
        published = parse_time(news.published_utc) if news else None
        self._writer.outbox.add(
            [
                PriceMoveRow(
                    alert.ticker,
                    news.headline if news else "No recent news",
                    published or now,
                    news.article_url if news else "",
                    alert.price,
                    alert.timestamp,
                    alert.change_pct,
                    _milliseconds(alert.timestamp, now),
                    _milliseconds(published or now, now),
                )
            ]
        )

    # --- Statistics ---------------------------------------------------------

    async def report_stats(self) -> None:
        """Log the monitor's figures."""
        mode = self.ibkr_client.mode if self.ibkr_client is not None else UNKNOWN
        logger.info(
            "Stats: runtime=%.1f min, active_tickers=%d, tickers_monitored=%d, price_checks=%d, "
            "alerts_triggered=%d, ibkr_ticks_received=%d, ibkr_reconnections=%d, mode=%s",
            (time.time() - self.stats["start_time"]) / 60,
            len(self.active_tickers),
            self.stats["tickers_monitored"],
            self.stats["price_checks"],
            self.stats["alerts_triggered"],
            self.stats["ibkr_ticks_received"],
            self.stats["ibkr_reconnections"],
            mode,
        )
        if self._follow_up is not None:
            counts = self._follow_up.counts
            logger.info(
                "Follow-up: %d requests for past bars, %d answered, %d refused, %d missing.",
                counts.asked,
                counts.answered,
                counts.refused,
                counts.missing,
            )


def _milliseconds(begin: datetime, end: datetime) -> int:
    # The column is a UInt32.
    return min(max(0, round((end - begin).total_seconds() * 1000)), 2**32 - 1)


async def _next_slot() -> None:
    # A little more, since the timer's clock is not the wall clock.
    await asyncio.sleep(CYCLE_S - time.time() % CYCLE_S + 0.002)


def take_line(line: str) -> None:
    """Take a ticker from the process that started this one as a notification."""
    ticker_notification_queue.put_nowait({"ticker": line, "timestamp": datetime.now(UTC)})


async def run(settings: Settings, *, wait: bool, supervised: bool, pulse: int | None) -> int:
    """Run the monitor until it is told to stop; return the exit code."""
    run_promptly()
    monitor = ContinuousPriceMonitor(settings, wait=wait)
    try:
        async with pulsing(pulse):
            await until_stopped(monitor.start(), with_parent=supervised, take_line=take_line)
    except GatewayError:
        return EXIT_FAILED
    except DATABASE_ERRORS as problem:
        logger.error("%s", one_line(problem))
        return EXIT_FAILED
    return EXIT_OK


def main(arguments: Sequence[str] | None = None) -> int:
    command = CommandLine(prog="price_checker.py", description=__doc__)
    command.add_argument(
        "--wait", action="store_true", help="keep trying while IBKR cannot be reached"
    )
    command.add_supervision()
    options = command.parse_args(arguments)
    insert_without_data_frames()
    try:
        settings = Settings.from_environment(os.environ if options.supervised else None)
        settle_proxies(os.environ, outside_of(settings))
        configure_logging(settings.log_folder, rotate=not options.supervised)
        return asyncio.run(
            run(settings, wait=options.wait, supervised=options.supervised, pulse=options.pulse)
        )
    except ConfigurationError as problem:
        print(f"price_checker.py: {problem}", file=sys.stderr)
        return EXIT_MISCONFIGURED


if __name__ == "__main__":
    sys.exit(main())
