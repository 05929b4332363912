"""The console: what the page shows, as a live table on the terminal, over the latest log lines.

It reads ClickHouse as the page does, in threads of its own, and touches nothing of the monitor.
"""

import functools
import os
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Final, Self

from rich.console import Console
from rich.live import Live

from dashboard.queries import cards_of, marks, parts, status, until_next_reading_s
from dashboard.screen import LogLines, View, screen
from newshead.core.parts import failing, newest
from newshead.database.connection import DATABASE_ERRORS, Database, one_line
from newshead.database.shared import SharedConnection
from newshead.settings import ConfigurationError, Settings

# The descriptor that every process knows standard error by.
STDERR: Final = 2
DRAW_EVERY_S: Final = 0.5
# A query that hangs delays the end no longer than this.
STOP_TIMEOUT_S: Final = 1.0
# What stays on the terminal when the table has gone.
LOG_LINES_LEFT: Final = 20


def can_draw() -> bool:
    """Return whether a table can be drawn: on a terminal, and not on a dumb one."""
    return sys.stdout.isatty() and sys.stderr.isatty() and not Console().is_dumb_terminal


class LiveTable:
    """The table on the terminal. A context manager: the terminal is as before when the block
    ends, with the newest log lines on it.

    What this process and those it starts meanwhile write to standard error comes into the table
    as log lines. Reading the log, reading the database and drawing have a thread each: a query
    that hangs stops neither the drawing nor the end.
    """

    def __init__(self, settings: Settings) -> None:
        self._terminal = Console()
        self._live = Live(console=self._terminal, screen=True, auto_refresh=False)
        self._log = LogLines()
        self._connection = SharedConnection(settings)
        self._view = View(datetime.now(UTC), time.monotonic(), None, (), 0, "not read yet.")
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._stderr = -1

    def __enter__(self) -> Self:
        self._stderr = os.dup(STDERR)
        begin, end = os.pipe()
        os.dup2(end, STDERR)
        os.close(end)
        self._live.start()
        for name, work in (
            ("log", functools.partial(self._read_log, begin)),
            ("read", self._read),
            ("draw", self._draw),
        ):
            thread = threading.Thread(target=work, name=f"console {name}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        os.dup2(self._stderr, STDERR)
        os.close(self._stderr)
        for thread in self._threads:
            thread.join(STOP_TIMEOUT_S)
        # The terminal may have gone.
        with suppress(OSError):
            self._live.stop()
            for line in self._log.newest(LOG_LINES_LEFT):
                self._terminal.out(line, highlight=False)

    def _read_log(self, descriptor: int) -> None:
        with open(descriptor, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                self._log.add(line.rstrip("\n"))

    def _read(self) -> None:
        while not self._ending.wait(until_next_reading_s()):
            try:
                self._view = self._connection.run(read_view, self._terminal.height)
            except (*DATABASE_ERRORS, ConfigurationError) as problem:
                self._view = self._view._replace(problem=one_line(problem))
        self._connection.close()

    def _draw(self) -> None:
        with suppress(OSError):
            while not self._ending.wait(DRAW_EVERY_S):
                width, height = self._terminal.size
                self._live.update(screen(self._view, self._log, width, height), refresh=True)


def read_view(database: Database, most: int) -> View:
    """Read the state and no more than the newest `most` cards. Blocks."""
    tickers = marks(database).tickers
    now, told = parts(database)
    return View(
        now,
        time.monotonic(),
        status(database),
        cards_of(database, dict(islice(tickers.items(), most))),
        len(tickers),
        failing=tuple(part.problem for part in failing(newest(told, now), now)),
    )
