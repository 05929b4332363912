"""The price monitor's status in `monitor_status`, and with it its parts in `part_status`."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from newshead.core.parts import OF_MONITOR, Part, Told, newest
from newshead.database.connection import Database
from newshead.database.part_writer import PartWriter
from newshead.database.queries import last_mode, told_parts
from newshead.database.tables import StatusRow
from newshead.monitor.figures import Figures
from newshead.monitor.parts import parts
from newshead.settings import Settings
from newshead.tws.link import ConnectionState

MAX_ERROR_LENGTH: Final = 300
# The states of an attempt to connect. One that is over sooner is no change, so
# that a connection that was lost stays lost since then.
ATTEMPT: Final = (ConnectionState.CONNECTING, ConnectionState.SOCKET_OPEN)
ATTEMPT_SHOWS_S: Final = 1.0


class StatusWriter(PartWriter):
    """Write a monitor's status. Runs on the monitor's loop."""

    what = "The monitor's status"

    def __init__(
        self, settings: Settings, figures: Callable[[], Figures], *, follow_others: bool = False
    ) -> None:
        """
        Parameters
        ----------
        figures
            Gives the monitor's figures of the moment. Called on the loop.
        follow_others
            Read what the other processes tell of their parts.
        """
        super().__init__(settings, lambda: parts(figures()))
        self._figures = figures
        self._state = ConnectionState.DISCONNECTED
        self._state_since = datetime.now(UTC)
        self._last_error = _LastError()
        # As the account told it, if only to an earlier run; None before that was asked.
        self._mode: str | None = None
        self._follow_others = follow_others
        # What they told when it was read last. Any thread.
        self.others: list[Told] = []

    async def run(self) -> None:
        """Write rows until it is cancelled."""
        logging.getLogger().addHandler(self._last_error)
        await super().run()

    async def close(self) -> None:
        """Write a last row and end the connection; may take as long as the database does."""
        logging.getLogger().removeHandler(self._last_error)
        await super().close()

    async def _settle(self) -> None:
        """Give an attempt to connect the time to end."""
        self._changed.clear()
        with suppress(TimeoutError):
            while self._figures().state in ATTEMPT:
                async with asyncio.timeout(ATTEMPT_SHOWS_S):
                    await self._changed.wait()
                self._changed.clear()

    def _see(self) -> bool:
        """Return whether the connection's state, or a part's, is another than the one seen last."""
        figures = self._figures()
        changed = figures.state is not self._state
        if changed:
            self._state, self._state_since = figures.state, datetime.now(UTC)
        return super()._see() or changed

    def _more(self) -> StatusRow:
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
            clock_difference_s=self.clock_difference_s,
            last_error=self._last_error.text,
        )

    def _insert(
        self, database: Database, parts: Sequence[tuple[Part, datetime]], more: StatusRow | None
    ) -> None:
        if more is not None:
            more = more._replace(mode=self._last_mode(database, more))
        super()._insert(database, parts, more)

    def _last_mode(self, database: Database, row: StatusRow) -> str:
        """Return PAPER or LIVE, also while the connection that told it is lost. Blocks."""
        if row.account:
            self._mode = row.mode
        elif self._mode is None:
            self._mode = last_mode(database)
        return self._mode or row.mode

    def _read_others(self, database: Database) -> None:
        if self._follow_others:
            _, host, folder = self._origin
            now, rows = told_parts(database, host, folder)
            self.others = [told for told in newest(rows, now) if told.name not in OF_MONITOR]


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
