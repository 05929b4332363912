"""The price monitor's status in `monitor_status` and `part_status`: at each change, every 10 s.

What shows newshead to people reads these rows, so it needs nothing of the
monitor's process.
"""

import asyncio
import logging
import math
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from newshead.database.connection import DATABASE_ERRORS, MISSING_TABLE_CODES, Database, one_line
from newshead.database.schema import create_tables
from newshead.database.store import Batch, insert
from newshead.database.tables import PartStatusRow, StatusRow
from newshead.loop import off_loop
from newshead.monitor.figures import Figures
from newshead.monitor.parts import PartState, parts
from newshead.settings import ConfigurationError, Settings
from newshead.tws.link import ConnectionState

logger = logging.getLogger(__name__)

STATUS_EVERY_S: Final = 10.0
# Cycles begin at even seconds; a status that nothing urges stays out of their way.
STATUS_AT_S: Final = 1.0
CLOCK_EVERY_S: Final = 300.0
# A database that is away for a moment is the cycle's to tell.
TOLD_AT_FAILURE: Final = 3
MAX_ERROR_LENGTH: Final = 300
# The states of an attempt to connect. One that is over sooner is no change, so
# that a connection that was lost stays lost since then.
ATTEMPT: Final = (ConnectionState.CONNECTING, ConnectionState.SOCKET_OPEN)
ATTEMPT_SHOWS_S: Final = 1.0


class StatusWriter:
    """Write a monitor's status with a connection of its own, so that no price row waits for it.

    A row that cannot be stored is not kept: the next one holds all it said.
    Runs on the monitor's loop.
    """

    def __init__(self, settings: Settings, figures: Callable[[], Figures]) -> None:
        """
        Parameters
        ----------
        figures
            Gives the monitor's figures of the moment. Called on the loop.
        """
        self._figures = figures
        self._database = Database(settings)
        # A connection serves one caller at a time, and one who was cancelled may go on.
        self._writing = threading.Lock()
        self._connected = False
        self._failures = 0
        self._state = ConnectionState.DISCONNECTED
        self._state_since = datetime.now(UTC)
        # Per part its state, and since when; and what names this process among others.
        self._parts: dict[str, tuple[PartState, datetime]] = {}
        self._origin = uuid.uuid4().hex, socket.gethostname(), str(Path.cwd())
        self._clock_difference_s = 0.0
        self._clock_read_at = -math.inf
        self._last_error = _LastError()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()

    def state_changed(self) -> None:
        """Tell that the connection's state changed. Any thread; never waits."""
        if self._loop is not None:
            # The loop may have ended.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._changed.set)

    async def run(self) -> None:
        """Write rows until it is cancelled."""
        self._loop = asyncio.get_running_loop()
        logging.getLogger().addHandler(self._last_error)
        due = -math.inf
        while True:
            await self._await_attempt()
            if self._see_state() or time.monotonic() >= due:
                due = (
                    time.monotonic() + STATUS_EVERY_S - (time.time() - STATUS_AT_S) % STATUS_EVERY_S
                )
                await self._write()
            with suppress(TimeoutError):
                async with asyncio.timeout(due - time.monotonic()):
                    await self._changed.wait()

    async def close(self) -> None:
        """Write a last row and end the connection; may take as long as the database does."""
        logging.getLogger().removeHandler(self._last_error)
        if self._loop is not None:
            self._see_state()
            await self._write()
        await off_loop(self._database.close)

    async def _await_attempt(self) -> None:
        """Give an attempt to connect the time to end."""
        self._changed.clear()
        with suppress(TimeoutError):
            while self._figures().state in ATTEMPT:
                async with asyncio.timeout(ATTEMPT_SHOWS_S):
                    await self._changed.wait()
                self._changed.clear()

    def _see_state(self) -> bool:
        """Return whether the connection's state, or a part's, is another than the one seen last."""
        figures, now = self._figures(), datetime.now(UTC)
        changed = figures.state is not self._state
        if changed:
            self._state, self._state_since = figures.state, now
        for part in parts(figures):
            if part.name not in self._parts or self._parts[part.name][0] is not part.state:
                self._parts[part.name] = part.state, now
                changed = True
        return changed

    async def _write(self) -> None:
        try:
            await off_loop(self._store, self._row(), self._part_rows())
        except (*DATABASE_ERRORS, ConfigurationError) as problem:
            self._failures += 1
            logger.log(
                logging.WARNING if self._failures == TOLD_AT_FAILURE else logging.DEBUG,
                "The monitor's status cannot be stored; the page and push show an old one: %s",
                one_line(problem),
            )
        except Exception:
            logger.exception("The monitor's status was not stored; the next one is tried.")
        else:
            if self._failures >= TOLD_AT_FAILURE:
                logger.info("The monitor's status is stored again.")
            self._failures = 0

    def _row(self) -> StatusRow:
        figures = self._figures()
        return StatusRow(
            timestamp=datetime.now(UTC),
            state=self._state.value,
            state_since=self._state_since,
            mode=figures.mode,
            delayed=figures.delayed,
            account=figures.account,
            active_tickers=figures.active_tickers,
            cycles=figures.cycles,
            ticks=figures.ticks,
            rows=figures.rows,
            last_cycle_ms=figures.last_cycle_s * 1000,
            kept_rows=figures.kept_rows,
            reconnects=figures.reconnects,
            clock_difference_s=self._clock_difference_s,
            last_error=self._last_error.text,
        )

    def _part_rows(self) -> list[PartStatusRow]:
        now = datetime.now(UTC)
        return [
            PartStatusRow(
                now,
                *self._origin,
                part=part.name,
                state=part.state.value,
                since=self._parts[part.name][1],
                reason=part.reason,
                last_success=(
                    None
                    if part.success_age_s is None
                    else now - timedelta(seconds=part.success_age_s)
                ),
                counts=part.counts,
            )
            for part in parts(self._figures())
            if part.name in self._parts
        ]

    def _store(self, row: StatusRow, part_rows: list[PartStatusRow]) -> None:
        """Insert the rows. Blocks."""
        with self._writing:
            if not self._connected:
                self._database.connect()
                self._connected = True
            if time.monotonic() - self._clock_read_at >= CLOCK_EVERY_S:
                self._clock_difference_s = self._database.warn_of_clock_difference()
                self._clock_read_at = time.monotonic()
                row = row._replace(clock_difference_s=self._clock_difference_s)
            try:
                self._insert(row, part_rows)
            except DATABASE_ERRORS as problem:
                if getattr(problem, "code", None) not in MISSING_TABLE_CODES:
                    raise
                create_tables(self._database)
                self._insert(row, part_rows)

    def _insert(self, row: StatusRow, part_rows: list[PartStatusRow]) -> None:
        for rows in ([row], part_rows):
            if rows:
                insert(self._database.client, Batch(rows, str(uuid.uuid4())))


class _LastError(logging.Handler):
    """Hold the last line that was logged as an error, with its time."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = " ".join(record.getMessage().split())
        except Exception:
            self.handleError(record)
            return
        at = datetime.fromtimestamp(record.created, UTC)
        self.text = f"{at:%H:%M:%S} UTC {line}"[:MAX_ERROR_LENGTH]
