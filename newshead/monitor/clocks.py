"""This machine's clocks, read and watched."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from newshead.core.clocks import Clocks, ClockWatch, Disturbance, Kind

# It concerns rows and alerts, so it is told where traders look for them.
logger = logging.getLogger("price_checker")

CHECK_S: Final = 1.0

# It runs on while the machine sleeps; macOS has none.
_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


def elapsed_s() -> float:
    """Return the seconds since some time in the past, sleep included where this machine can tell;
    nobody sets this clock."""
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)


def read_clocks() -> Clocks:
    """Return what the clocks show now."""
    return Clocks(time.time(), elapsed_s(), time.monotonic())


async def watch_clocks(
    slot_s: float, tracked: Callable[[], int], note: Callable[[str], object]
) -> None:
    """Log when this machine's clock was set, the machine slept, or this loop stood still.

    Parameters
    ----------
    slot_s
        Seconds; each tracked ticker has a row in each.
    tracked
        Tells how many tickers are tracked.
    note
        Is told what happened.
    """
    watch = ClockWatch(CHECK_S)
    while True:
        for found in watch.look(read_clocks()):
            _log(found, slot_s, tracked())
            note(str(found))
        await asyncio.sleep(CHECK_S)


def _log(found: Disturbance, slot_s: float, tickers: int) -> None:
    match found.kind:
        case Kind.SET_FORWARD | Kind.SET_BACK:
            advice = "windows and alerts of this time are off by as much; synchronise it (NTP)"
        case _:
            slots = int(found.seconds // slot_s)
            advice = f"{slots} slots of {slot_s:g} s have no rows for any of {tickers} tickers"
    text = str(found)
    logger.warning("%s%s: %s.", text[0].upper(), text[1:], advice)
