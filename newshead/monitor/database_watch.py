"""What fails no call and yet stops rows: a database that hangs, a folder that was moved away."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from newshead.database.folder import FolderLock
from newshead.loop import off_loop
from newshead.outage import Outage

# It concerns rows and alerts, so it is told where traders look for them.
logger = logging.getLogger("price_checker")

LOOK_EVERY_S: Final = 1.0
# Longer than a slow disk takes, shorter than a server is given to answer.
HANGS_AFTER_S: Final = 10.0
FOLDER_EVERY_S: Final = 2.0


async def watch_cycles(cycles: Callable[[], float]) -> None:
    """Say, until it is cancelled, that cycles wait for the database, and when they go on.

    Parameters
    ----------
    cycles
        Gives how many have ended. The loop runs on, so one that does not end waits for that alone.
    """
    seen, looks = cycles(), 0
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        hung_s = looks * LOOK_EVERY_S
        if cycles() != seen:
            if hung_s >= HANGS_AFTER_S:
                logger.info("Cycles end again, after %.0f s.", hung_s)
            seen, looks = cycles(), 0
            continue
        looks += 1
        if hung_s < HANGS_AFTER_S <= looks * LOOK_EVERY_S:
            logger.error(
                "No cycle has ended for %.0f s: the database does not answer, or moves a large "
                "session. No rows and no alerts until then; see whether its disk stands still.",
                HANGS_AFTER_S,
            )


async def watch_folder() -> None:
    """Say, until it is cancelled, that the embedded engine's folder was moved or removed, and when
    it is back."""
    outage = Outage()
    while True:
        gone = await off_loop(FolderLock.gone)
        if gone and outage.begins():
            logger.error(
                "The database's folder %s was moved or removed: no row is stored and no alert "
                "judged. Move it back, or stop newshead and start it again, which makes a new one.",
                ", ".join(map(str, gone)),
            )
        elif not gone and outage.ends():
            logger.info("The database's folder is back.")
        await asyncio.sleep(FOLDER_EVERY_S)
