"""This machine's clocks, read and watched."""

import logging
import time

from newshead.core.clocks import Clocks, Disturbance, Kind

# It concerns rows and alerts, so it is told where traders look for them.
logger = logging.getLogger("price_checker")

# It runs on while the machine sleeps; macOS has none.
_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


def elapsed_s() -> float:
    """Return the seconds since some time in the past, sleep included where this machine can tell;
    nobody sets this clock."""
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)


def read_clocks() -> Clocks:
    """Return what the clocks show now."""
    return Clocks(time.time(), elapsed_s(), time.monotonic())


def log_disturbance(found: Disturbance, slot_s: float, tickers: int) -> None:
    """Log what happened to the time while so many tickers were tracked."""
    match found.kind:
        case Kind.SET_FORWARD | Kind.SET_BACK:
            advice = "windows and alerts of this time are off by as much; synchronise it (NTP)"
        case _:
            slots = int(found.seconds // slot_s)
            advice = f"{slots} slots of {slot_s:g} s have no rows for any of {tickers} tickers"
    text = str(found)
    logger.warning("%s%s: %s.", text[0].upper(), text[1:], advice)
