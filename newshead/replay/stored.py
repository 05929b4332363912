"""The sessions that are stored in the database."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Final

from newshead.core.times import midnight
from newshead.database import past
from newshead.database.connection import Database
from newshead.replay.sessions import Session, Window, sessions, split

# Rows around the days that are asked for, so that no window is cut at midnight.
MARGIN: Final = timedelta(hours=1)
# What the column can hold.
FIRST_TIME: Final = datetime(1970, 1, 2, tzinfo=UTC)
LAST_TIME: Final = datetime(2106, 1, 1, tzinfo=UTC)


def stored_sessions(
    database: Database,
    roll: time_of_day | None,
    since: date | None,
    until: date | None,
    ticker: str,
) -> Iterator[Session]:
    """Yield the sessions of the days from `since` to `until` in New York, oldest first.

    Parameters
    ----------
    roll
        When sessions roll over, in New York; None for never.
    ticker
        The one that is asked for; empty for all.
    """
    first = midnight(since) if since else FIRST_TIME + MARGIN
    end = midnight(until + timedelta(days=1)) if until else LAST_TIME - MARGIN
    scores = past.scores(database)

    def asked(window: Window) -> bool:
        return first.timestamp() <= window.first_s < end.timestamp()

    for table in past.PRICE_TABLES:
        rows = past.price_rows(database, table, first - MARGIN, end + MARGIN, ticker)
        yield from sessions(filter(asked, split(rows, scores)), roll)
