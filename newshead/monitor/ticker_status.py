"""What TWS says of each ticker besides its trades, in `ticker_status`: a row when it is tracked,
and where it changed."""

import logging
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from newshead.database.connection import DATABASE_ERRORS, Database, one_line
from newshead.database.store import Batch, insert
from newshead.database.tables import TickerStatusRow
from newshead.loop import off_loop
from newshead.tws.conditions import UNKNOWN, Condition

logger = logging.getLogger(__name__)


class _Told(NamedTuple):
    """What a row tells of a ticker."""

    halted: int
    data_type: int
    refused: str
    previous_close: float
    day_volume: int


class TickerStatus:
    """Write the rows with the monitor's connection, for its loop, which it never blocks.

    A row that cannot be stored is not kept: the next cycle writes what holds then.
    """

    def __init__(
        self, database: Database, run: Callable[..., Awaitable[object]] = off_loop
    ) -> None:
        """
        Parameters
        ----------
        run
            Does blocking work with the database.
        """
        self._database = database
        self._run = run
        self._stored: dict[str, _Told] = {}

    async def store(
        self,
        tracked: Collection[str],
        conditions: Mapping[str, Condition],
        refused: Mapping[str, str],
    ) -> None:
        """Write a row for each ticker that is tracked, and for each of which something else holds
        than was written last."""
        told = {
            ticker: _told(conditions.get(ticker, UNKNOWN), refused.get(ticker, ""))
            for ticker in {*tracked, *conditions, *refused, *self._stored}
        }
        changed = {t: each for t, each in told.items() if self._stored.get(t) != each}
        if not changed:
            return
        now = datetime.now(UTC)
        rows = [TickerStatusRow(t, now, *changed[t]) for t in sorted(changed)]
        try:
            await self._run(self._insert, rows)
        except DATABASE_ERRORS as problem:
            # What it means for rows and alerts is told by the cycle.
            logger.debug("Tickers' status was not stored: %s", one_line(problem))
        else:
            self._stored |= changed

    def forget_session(self) -> None:
        """Begin anew: what was written belongs to an earlier session."""
        self._stored.clear()

    def _insert(self, rows: list[TickerStatusRow]) -> None:
        insert(self._database.client, Batch(rows, str(uuid.uuid4())))


def _told(condition: Condition, refused: str) -> _Told:
    return _Told(
        condition.halted,
        condition.data_type,
        refused,
        condition.previous_close,
        condition.day_volume,
    )
