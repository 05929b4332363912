"""Histories as earlier versions made them, brought into monthly parts while newshead runs."""

import logging
from collections.abc import Callable

from newshead.database import sessions
from newshead.database.connection import Database
from newshead.database.copying import Copy, Source
from newshead.database.queries import MOVING_TABLE
from newshead.database.schema import existing_tables, find_kind
from newshead.database.tables import SESSION_TABLES

logger = logging.getLogger(__name__)


def bring_over(database: Database, go_on: Callable[[float], bool]) -> None:
    """Bring the rows of `<table>_history_old` into `<table>_history`, each once, and drop it.

    Interrupted, it is resumed by the next call.

    Parameters
    ----------
    go_on
        Called after each slice with the seconds that it took; may pause. False ends it.
    """
    find_kind(database)
    old = [table for table in SESSION_TABLES if f"{table}_history_old" in existing_tables(database)]
    if {"price_tracking", "news_alert"} <= set(old):
        sessions.list_days(database, "price_tracking_history_old", "news_alert_history_old")
    for table in old:
        history = f"{table}_history"
        [(token, *_)] = database.rows(MOVING_TABLE, table=f"{history}_old")
        logger.info(
            "Bringing %s into monthly parts; until that is logged as done, earlier sessions take "
            "longer to find.",
            history,
        )
        # Rows of a history are all different ones, whatever its engine.
        copy = Copy(database, Source(f"{history}_old", token, replacing=False), history)
        added = copy.resume(go_on)
        if added is None:
            return
        database.define(f"DROP TABLE News.{history}_old SYNC")
        logger.info("%s is in monthly parts: %d rows brought over.", history, added)
