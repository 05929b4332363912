"""How newshead's parts fare, written to `part_status`: a row of each at a change and every 10 s.

What shows newshead to people reads these rows, so it needs nothing of the processes that write
them.
"""

import asyncio
import functools
import logging
import math
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from newshead.core.parts import Part, PartState
from newshead.database.connection import DATABASE_ERRORS, Database, is_missing_table, one_line
from newshead.database.schema import create_tables
from newshead.database.shared import SharedConnection
from newshead.database.store import Batch, insert
from newshead.database.tables import PartStatusRow, StatusRow
from newshead.loop import off_loop
from newshead.settings import ConfigurationError, Settings

logger = logging.getLogger(__name__)

STATUS_EVERY_S: Final = 10.0
# Cycles begin at even seconds; a status that nothing urges stays out of their way.
STATUS_AT_S: Final = 1.0
# Changes that nobody tells of are found this often.
LOOK_EVERY_S: Final = 1.0
CLOCK_EVERY_S: Final = 300.0
# A database that is away for a moment is the cycle's to tell.
TOLD_AT_FAILURE: Final = 3


class PartWriter:
    """Write how some parts fare, with a connection of its own, so that no other row waits for it.

    A row that cannot be stored is not kept: the next one holds all it said. Runs on one event
    loop, and never blocks it.
    """

    what = "The state of newshead's parts"
    """Of what the log says that it cannot be stored."""

    def __init__(self, settings: Settings, give: Callable[[], Sequence[Part]]) -> None:
        """
        Parameters
        ----------
        give
            Gives the parts of the moment. Called on the loop.
        """
        self._give = give
        self._connection = SharedConnection(settings)
        self._failures = 0
        # Per part its state, and since when; and what names this process among others.
        self._parts: dict[str, tuple[PartState, datetime]] = {}
        self._origin = uuid.uuid4().hex, socket.gethostname(), str(Path.cwd())
        self.clock_difference_s = 0.0
        self._clock_read_at = -math.inf
        # time.monotonic() of the newest row, or of the start.
        self._stored_at = math.inf
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()

    @property
    def stored_age_s(self) -> float:
        """The seconds since the database took a status, or else since the start. Any thread."""
        return max(0.0, time.monotonic() - self._stored_at)

    def state_changed(self) -> None:
        """Tell that a state changed. Any thread; never waits."""
        if self._loop is not None:
            # The loop may have ended.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._changed.set)

    async def run(self) -> None:
        """Write rows until it is cancelled."""
        self._loop = asyncio.get_running_loop()
        self._stored_at = time.monotonic()
        due = -math.inf
        while True:
            await self._settle()
            if self._see() or time.monotonic() >= due:
                due = (
                    time.monotonic() + STATUS_EVERY_S - (time.time() - STATUS_AT_S) % STATUS_EVERY_S
                )
                await self._write()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_EVERY_S, due - time.monotonic())):
                    await self._changed.wait()

    async def end(self) -> None:
        """Write that the parts are off, and end as `close`: newshead was stopped."""
        stopped = [Part(part.name, PartState.OFF, "newshead was stopped.") for part in self._give()]
        self._give = lambda: stopped
        await self.close()

    async def close(self) -> None:
        """Write a last row and end the connection; may take as long as the database does."""
        if self._loop is not None:
            self._see()
            await self._write()
        await off_loop(functools.partial(self._connection.close, wait=False))

    async def _settle(self) -> None:
        """Give a change that may be over at once the time to be."""
        self._changed.clear()

    def _see(self) -> bool:
        """Return whether a part's state is another than the one seen last."""
        # Whoever reads it goes by the database's clock.
        changed, now = False, datetime.now(UTC) + timedelta(seconds=self.clock_difference_s)
        for part in self._give():
            if part.name not in self._parts or self._parts[part.name][0] is not part.state:
                self._parts[part.name] = part.state, now
                changed = True
        return changed

    def _more(self) -> StatusRow | None:
        """Return what is stored besides the parts."""
        return None

    async def _write(self) -> None:
        parts = [(part, self._parts[part.name][1]) for part in self._give()]
        try:
            await off_loop(self._connection.run, self._store, parts, self._more())
        except (*DATABASE_ERRORS, ConfigurationError) as problem:
            self._failures += 1
            logger.log(
                logging.WARNING if self._failures == TOLD_AT_FAILURE else logging.DEBUG,
                "%s cannot be stored; the page and push show an old one: %s",
                self.what,
                one_line(problem),
            )
        except Exception:
            logger.exception("%s was not stored; the next one is tried.", self.what)
        else:
            self._stored_at = time.monotonic()
            if self._failures >= TOLD_AT_FAILURE:
                logger.info("%s is stored again.", self.what)
            self._failures = 0

    def _store(
        self, database: Database, parts: Sequence[tuple[Part, datetime]], more: StatusRow | None
    ) -> None:
        """Insert the rows. Blocks."""
        if time.monotonic() - self._clock_read_at >= CLOCK_EVERY_S:
            self.clock_difference_s = database.warn_of_clock_difference()
            self._clock_read_at = time.monotonic()
        try:
            self._insert(database, parts, more)
        except DATABASE_ERRORS as problem:
            if not is_missing_table(problem):
                raise
            create_tables(database)
            self._insert(database, parts, more)
        self._read_others(database)

    def _read_others(self, database: Database) -> None:
        """Read what other processes tell of their parts, where that is of use. Blocks."""

    def _insert(
        self, database: Database, parts: Sequence[tuple[Part, datetime]], more: StatusRow | None
    ) -> None:
        client = database.client
        if more is not None:
            row = more._replace(clock_difference_s=self.clock_difference_s)
            insert(client, Batch([row], str(uuid.uuid4())))
        now = datetime.now(UTC) + timedelta(seconds=self.clock_difference_s)
        rows = [
            PartStatusRow(
                now,
                *self._origin,
                part=part.name,
                state=part.state.value,
                since=since,
                reason=part.reason,
                last_success=(
                    None
                    if part.success_age_s is None or part.success_age_s == math.inf
                    else now - timedelta(seconds=part.success_age_s)
                ),
                counts=dict(part.counts),
            )
            for part, since in parts
        ]
        if rows:
            insert(client, Batch(rows, str(uuid.uuid4())))
