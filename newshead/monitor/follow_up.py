"""What came after each window: past bars from IBKR, stored in `follow_up`.

What is asked for, and when, is decided in `core.follow_up`, from what the database has: whatever a
kill interrupts is asked for again.
"""

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from newshead.core.follow_up import Ask, Bars, Counts, FollowUps, GiveUp, Pace
from newshead.database.connection import DATABASE_ERRORS, Database, one_line
from newshead.database.follow_up import followed_up, windows_since
from newshead.database.store import Batch, insert
from newshead.database.tables import FollowUpRow
from newshead.loop import off_loop
from newshead.outage import Outage
from newshead.settings import ConfigurationError, Settings
from newshead.tws.past_bars import PastBars, Wanted

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rhythm:
    """How often what is looked at, in seconds, and the pace of the requests."""

    pace: Pace = Pace()
    # An answer, and whether it is time for the next request.
    check_s: float = 1.0
    # The database.
    look_s: float = 60.0
    # Triggers come in bursts: after one, no request goes out for so long.
    calm_s: float = 5.0


RHYTHM: Final = Rhythm()


class FollowUp:
    """Ask for the bars and store them, with a database connection of its own, so that no price row
    waits for it. Runs on the monitor's loop, which it never blocks."""

    def __init__(
        self,
        settings: Settings,
        past_bars: Callable[[], PastBars | None],
        quiet_s: Callable[[], float],
    ) -> None:
        """
        Parameters
        ----------
        past_bars
            Gives the requests of the present connection; None while it takes none.
        quiet_s
            Tells for how many seconds no trigger has come and no subscription has waited.
        """
        self._past_bars = past_bars
        self._quiet_s = quiet_s
        self._rhythm = RHYTHM
        self._book = FollowUps(self._rhythm.pace)
        self._database = Database(settings)
        self._connected = False
        self._look_at = -math.inf
        # Where the request under way was made.
        self._asked: PastBars | None = None
        # What came and is not stored.
        self._batch: Batch | None = None
        self._outage = Outage()

    @property
    def counts(self) -> Counts:
        """What came of the requests. Any thread."""
        return self._book.counts

    async def run(self) -> None:
        """Follow up windows until it is cancelled."""
        while True:
            await asyncio.sleep(self._rhythm.check_s)
            try:
                await self._check()
            except (*DATABASE_ERRORS, ConfigurationError) as problem:
                if self._outage.begins(one_line(problem)):
                    logger.warning(
                        "What came after the windows cannot be read or stored; it is tried "
                        "again: %s",
                        self._outage.reason,
                    )
                await asyncio.sleep(self._rhythm.look_s)
            except Exception:
                logger.exception("Following up the windows failed; it goes on.")
                await asyncio.sleep(self._rhythm.look_s)

    async def _check(self) -> None:
        if self._batch is not None:
            await off_loop(self._store, self._batch)
            self._batch = None
        at, now = time.monotonic(), datetime.now(UTC)
        if self._book.under_way is not None:
            self._take_answer(self._book.under_way, at)
            return
        if at >= self._look_at:
            self._look_at = at + self._rhythm.look_s
            since = now - timedelta(seconds=self._rhythm.pace.within_s)
            self._book.learn(*await off_loop(self._read, since), now)
        self._ask(at, now)
