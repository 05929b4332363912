"""A connection to the database that several callers share."""

import threading
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from newshead.database.connection import Database
from newshead.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")


class SharedConnection:
    """A connection for callers that take turns, opened when it is first needed.

    One whose awaiting task was cancelled may go on with its turn. Methods block; any thread.
    """

    def __init__(self, settings: Settings) -> None:
        self._database = Database(settings)
        self._turn = threading.Lock()
        self._connected = False

    def run(
        self, work: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what `work` gives.

        Raises
        ------
        ClickHouseError, DatabaseError, ConfigurationError
            The database cannot be used.
        """
        with self._turn:
            if not self._connected:
                self._database.connect()
                self._connected = True
            return work(self._database, *args, **kwargs)

    def close(self, *, wait: bool = True) -> None:
        """Close the connection: with `wait` once the present turn is over, else only where there is
        none."""
        if self._turn.acquire(blocking=wait):
            try:
                self._connected = False
                self._database.close()
            finally:
                self._turn.release()
