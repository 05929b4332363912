"""Times without a clock: trading hours, the session's roll, pauses between attempts."""

from datetime import datetime, timedelta
from datetime import time as time_of_day
from typing import Final
from zoneinfo import ZoneInfo

NEW_YORK: Final = ZoneInfo("America/New_York")


def in_trading_hours(at: datetime) -> bool:
    """Return whether US stocks trade at that time, holidays aside: 04:00 to 20:00 in New York."""
    there = at.astimezone(NEW_YORK)
    return there.weekday() < 5 and 4 <= there.hour < 20


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
    return pause * (0.8 + 0.4 * chance)
