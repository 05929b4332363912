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
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from newshead.core.follow_up import Ask, Bars, Counts, FollowUps, GiveUp, Pace
from newshead.database.connection import DATABASE_ERRORS, Database, one_line
from newshead.database.follow_up import followed_up, windows_since
from newshead.database.shared import SharedConnection
from newshead.database.store import Batch, insert
from newshead.database.tables import FollowUpRow
from newshead.loop import off_loop
from newshead.outage import Outage
from newshead.settings import ConfigurationError, Settings
from newshead.tws.past_bars import Bar, PastBars, Wanted

if TYPE_CHECKING:
    from ibkr_client import IBKRClient

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rhythm:
    """How often what is looked at, in seconds, and the pace of the requests."""

    pace: Pace = field(default_factory=Pace)
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
        client: Callable[[], "IBKRClient | None"],
        unserved: Callable[[], bool],
    ) -> None:
        """
        Parameters
        ----------
        client
            Gives the present client.
        unserved
            Tells whether a ticker waits for its subscription.
        """
        self._client = client
        self._unserved = unserved
        self._rhythm = RHYTHM
        self._book = FollowUps(self._rhythm.pace)
        self._connection = SharedConnection(settings)
        # In monotonic seconds: the next look at the database, and the end of a burst of triggers.
        self._look_at = self._calm_at = -math.inf
        # Where the request under way was made.
        self._asked: PastBars | None = None
        # What came and is not stored.
        self._batch: Batch | None = None
        self._outage = Outage()

    @property
    def counts(self) -> Counts:
        """What came of the requests. Any thread."""
        return self._book.counts

    def give_way(self) -> None:
        """Let a trigger, and those that may follow, come first."""
        self._calm_at = time.monotonic() + self._rhythm.calm_s

    async def run(self) -> None:
        """Follow up windows until it is cancelled."""
        logger.info("Past bars are asked for after each window (FOLLOW_UP).")
        while True:
            await asyncio.sleep(self._rhythm.check_s)
            try:
                await self._check()
            except (*DATABASE_ERRORS, ConfigurationError) as problem:
                level = logging.WARNING if self._outage.begins(one_line(problem)) else logging.DEBUG
                logger.log(
                    level,
                    "The bars after the windows cannot be looked up or stored; trying again every "
                    "%.0f s: %s",
                    self._rhythm.look_s,
                    self._outage.reason,
                )
                await asyncio.sleep(self._rhythm.look_s)
            except Exception:
                logger.exception("Following up the windows failed; it goes on.")
                await asyncio.sleep(self._rhythm.look_s)

    def close(self) -> None:
        """Close the database connection; one that is in use is left alone. Blocks."""
        self._connection.close(wait=False)

    async def _check(self) -> None:
        if self._batch is not None:
            await off_loop(self._connection.run, _store, self._batch)
            self._batch = None
        at = time.monotonic()
        if self._book.under_way is not None and self._asked is not None:
            self._take_outcome(self._asked, self._book.under_way, at)
        elif at >= self._look_at:
            now = datetime.now(UTC)
            since = now - timedelta(seconds=self._rhythm.pace.within_s)
            windows, stored = await off_loop(self._connection.run, _read, since)
            self._book.learn(windows, stored, now)
            self._look_at = at + self._rhythm.look_s
        if self._outage.ends():
            logger.info("The bars after the windows are looked up and stored again.")
        self._act()

    def _act(self) -> None:
        at, client = time.monotonic(), self._client()
        match self._book.next(
            datetime.now(UTC),
            at,
            ready=client is not None and client.unoccupied,
            waiting=at < self._calm_at or self._unserved(),
        ):
            case Ask(bars) if client is not None:
                logger.debug("Asking for the bars of %d s after %s.", bars.bar_s, _named(bars))
                self._asked = client.past_bars
                self._asked.ask(Wanted(bars.ticker, bars.begin, bars.end, bars.bar_s))
            case GiveUp(bars) if self._asked is not None:
                logger.info("IBKR does not answer about the bars after %s.", _named(bars))
                self._asked.give_up()

    def _take_outcome(self, asked: PastBars, bars: Bars, at: float) -> None:
        """Take what came of the request under way, if anything did."""
        outcome, client = asked.take(), self._client()
        if outcome is None:
            if client is None or client.past_bars is not asked or not client.connected:
                self._book.lost(at)
        elif outcome.refused:
            # The client has logged why.
            self._book.refused(at)
        else:
            self._book.answered(at, found=bool(outcome.bars))
            if outcome.bars:
                rows = [_row(bars, bar) for bar in outcome.bars]
                self._batch = Batch(rows, str(uuid.uuid4()))


def _read(database: Database, since: datetime) -> tuple[list[tuple[str, datetime]], set[Bars]]:
    return list(windows_since(database, since)), followed_up(database, since)


def _store(database: Database, batch: Batch) -> None:
    insert(database.client, batch)


def _named(bars: Bars) -> str:
    return f"the window of {bars.ticker} that began at {bars.first_row:%Y-%m-%d %H:%M:%S} UTC"


def _row(bars: Bars, bar: Bar) -> FollowUpRow:
    at = datetime.fromtimestamp(bar.time, UTC)
    return FollowUpRow(bars.ticker, bars.first_row, at, bars.bar_s, *bar[1:])
