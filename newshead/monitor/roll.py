"""The session's roll: once a day a fresh session begins, as soon as nothing of the old is open."""

import logging
from collections.abc import Callable
from datetime import datetime
from datetime import time as time_of_day
from typing import Final

from newshead.core.times import next_roll_after
from newshead.database import history
from newshead.database.connection import CannotMoveError, Database, one_line
from newshead.outage import Outage
from newshead.tape import Kind, Tape

# It concerns all tickers, so it is told where traders look for them.
logger = logging.getLogger("price_checker")

# A roll that has to wait for so long is told.
WAIT_TOLD_S: Final = 60.0


class SessionRoll:
    """Moves the session's rows to the history when its time has come.

    For the monitor's loop, which it never blocks.
    """

    def __init__(
        self,
        at: time_of_day | None,
        database: Database,
        tape: Tape,
        *,
        holds: Callable[[], str],
        begin_session: Callable[[], datetime],
    ) -> None:
        """
        Parameters
        ----------
        at
            New York time; None for never.
        database
            Keeps the session.
        tape
            Is told when the session rolls over.
        holds
            Tells what the roll has to wait for; empty where there is nothing.
        begin_session
            Lets tickers have their window again; returns since when news is left where it is.
        """
        self._at = at
        self._database = database
        self._tape = tape
        self._holds = holds
        self._begin_session = begin_session
        self._due: datetime | None = None
        self._outage = Outage()
        self._wait = Outage()

    def plan(self, now: datetime) -> None:
        """Roll at the next time of day after `now`."""
        self._due = next_roll_after(now, self._at)

    async def roll_if_due(self, now: datetime) -> None:
        """Begin a fresh session if it is due and nothing holds it; else it is tried again at the
        next call.

        Raises
        ------
        ClickHouseError, DatabaseError
            The move broke off; the next call resumes it.
        """
        if self._due is None or now < self._due:
            return
        late_s = (now - self._due).total_seconds()
        reason = self._holds()
        if reason and late_s >= WAIT_TOLD_S and self._wait.begins():
            logger.warning("The session's roll has waited for %.0f s: %s.", late_s, reason)
        if not reason and await self._roll():
            self._wait.ends()
            self.plan(now)

    async def _roll(self) -> bool:
        """Roll over; False if that has to wait: for the database, or for a ticker that came up
        meanwhile."""
        try:
            await self._tape.ask(history.require_movable, self._database)
            if self._holds():
                return False
            # Before the move, so that a trigger in the middle of it is not refused.
            with self._tape.step(Kind.ROLL):
                kept_since = self._begin_session()
            await self._tape.ask(history.move_session, self._database, kept_since)
        except CannotMoveError as problem:
            level = logging.ERROR if self._outage.begins() else logging.DEBUG
            logger.log(level, "The session cannot roll over yet: %s", one_line(problem))
            return False
        self._outage.ends()
        return True
