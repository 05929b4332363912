"""The parts of a newshead that are kept running, and how those fare that are processes."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final

from newshead.core.parts import PAGE, PUSH, Part, PartState, of_line
from newshead.database.connection import DATABASE_ERRORS, one_line
from newshead.loop import described, stop_asked
from newshead.process import EXIT_MISCONFIGURED, run_child
from newshead.settings import ConfigurationError

# It is told where users look for it.
logger = logging.getLogger("run_system")

# A part that lived less long than this is started again after a pause.
SHORT_LIFE_S: Final = 60.0
FIRST_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 60.0


class Children:
    """How the parts fare that are processes without a connection of their own to the database."""

    def __init__(self) -> None:
        self._parts = {
            name: Part(name, PartState.OFF, f"it is not started ({how}).")
            for name, how in ((PAGE, "--dashboard"), (PUSH, "ALERT_URLS"))
        }

    def parts(self) -> Collection[Part]:
        """Return how they fare."""
        return self._parts.values()

    async def run(
        self, name: str, title: str, module: str, environment: Mapping[str, str]
    ) -> str | None:
        """Run a part as a process of its own, once."""

        def take(line: str) -> None:
            self._parts[name] = of_line(name, line) or self._parts[name]

        self._parts[name] = Part(name, PartState.DEGRADED, "it is starting.")
        code = await run_child(title, "-m", module, environment=environment, take_pulse=take)
        if code == EXIT_MISCONFIGURED:
            # It has said why.
            reason = "it cannot run as it is configured: see the log, and start newshead again."
            self._parts[name] = Part(name, PartState.REFUSED, reason)
            return None
        end = f"ended with code {code}"
        self._parts[name] = Part(name, PartState.LOST, f"it {end} and is started again.")
        return end


async def supervise(name: str, run_part: Callable[[], Awaitable[str | None]]) -> None:
    """Run a part of newshead, again and again: at once, but after a growing pause where it
    died within 60 s of its start.

    Where another start is of no use until the user has acted, the rest goes on without it: the
    part says so by an error, or by None if it has been told already.
    """
    pause = 0.0
    while True:
        started = time.monotonic()
        try:
            end = await run_unless_stopped(name, run_part)
            if end is None:
                return
        except DATABASE_ERRORS as problem:
            end = f"stopped ({one_line(problem)})"
        except ConfigurationError as problem:
            logger.error("%s does not run, the rest goes on: %s", name, problem)
            return
        except Exception:
            logger.exception("%s failed.", name)
            end = "failed"
        lived = time.monotonic() - started
        pause = 0.0 if lived >= SHORT_LIFE_S else min(MAX_PAUSE_S, max(FIRST_PAUSE_S, pause * 2))
        logger.error("%s %s after %.0f s; it is started again in %.1f s.", name, end, lived, pause)
        await asyncio.sleep(pause)


async def run_unless_stopped(
    name: str, run_part: Callable[[], Awaitable[str | None]]
) -> str | None:
    """Run a part once. However it ends, by an exception of its cleanup too, a stop that was asked
    for meanwhile stays one.

    Raises what the part raises.
    """
    try:
        end = await run_part()
    except Exception as problem:
        if not stop_asked():
            raise
        logger.error("%s failed as it was stopped: %s", name, described(problem))
        raise asyncio.CancelledError from problem
    if stop_asked():
        raise asyncio.CancelledError
    return end
