"""Times without a clock: trading hours, the session's roll, pauses between attempts."""

from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Final
from zoneinfo import ZoneInfo

# A gateway restarts within this, and TWS frees a client id; meanwhile it is tried this often.
SHORT_OUTAGE_S: Final = 300.0
SHORT_OUTAGE_PAUSE_S: Final = 5.0
# The part of a pause by which it may be longer or shorter.
JITTER: Final = 0.2

NEW_YORK: Final = ZoneInfo("America/New_York")


def in_trading_hours(at: datetime) -> bool:
    """Return whether US stocks trade at that time, holidays aside: 04:00 to 20:00 in New York."""
    there = at.astimezone(NEW_YORK)
    return there.weekday() < 5 and 4 <= there.hour < 20


def midnight(day: date) -> datetime:
    """Return when a day begins in New York, in UTC."""
    return datetime.combine(day, time_of_day(), NEW_YORK).astimezone(UTC)


def next_roll_after(now: datetime, roll: time_of_day | None) -> datetime | None:
    """Return when the session rolls over next: at `roll` New York time; None for never."""
    if roll is None:
        return None
    today = now.astimezone(NEW_YORK).replace(
        hour=roll.hour, minute=roll.minute, second=roll.second, microsecond=0
    )
    return today if today > now else today + timedelta(days=1)


def retry_pause_s(failures: int, chance: float, *, first_s: float, max_s: float) -> float:
    """Return the seconds to wait after so many failures in a row.

    `first_s`, doubling up to `max_s`, and up to a fifth more or less by `chance` (0 to 1), so that
    clients do not return all at once.
    """
    pause = min(max_s, first_s * 2.0 ** min(failures - 1, 10))
    return pause * (1 - JITTER + 2 * JITTER * chance)


def reconnect_pause_s(
    failures: int, chance: float, outage_s: float, *, first_s: float, max_s: float
) -> float:
    """Return the seconds to wait before the next attempt at a connection.

    As `retry_pause_s`, but at most 5 s in the first five minutes of an outage; `outage_s` is
    infinite where there was no connection before.
    """
    if outage_s < SHORT_OUTAGE_S:
        max_s = min(max_s, SHORT_OUTAGE_PAUSE_S / (1 + JITTER))
    return retry_pause_s(failures, chance, first_s=first_s, max_s=max_s)
