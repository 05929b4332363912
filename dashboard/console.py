"""The console: what the page shows, as a live table on the terminal, over the latest log lines.

It reads ClickHouse as the page does, in threads of its own, and touches nothing of the monitor.
"""

import functools
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final, NamedTuple, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from dashboard.cards import Card
from dashboard.feed import Reader
from dashboard.queries import (
    STALE_S,
    blind,
    cards_of,
    clock,
    marks,
    status,
    until_next_reading_s,
)
from newshead.core.rule import WINDOW_S
from newshead.database.connection import DATABASE_ERRORS, Database, one_line
from newshead.database.tables import READY, StatusRow
from newshead.settings import ConfigurationError, Settings
from newshead.text import visible

# The descriptor that every process knows standard error by.
STDERR: Final = 2
DRAW_EVERY_S: Final = 0.5
# A query that hangs delays the end no longer than this.
STOP_TIMEOUT_S: Final = 1.0
LOG_LINES_KEPT: Final = 200
MIN_LOG_LINES: Final = 5
# What stays on the terminal when the table has gone.
LOG_LINES_LEFT: Final = 20
# The state, the two rules, and the table's header.
LINES_WITHOUT_CARDS: Final = 4
WINDOW_CELLS: Final = 10

MODE_STYLES: Final = {"LIVE": "bold white on red", "PAPER": "bold black on green"}
STATE_STYLES: Final = {READY: "bold green", "stale": "bold yellow"}
RATING_STYLES: Final = {"BUY": "bold green", "SELL": "red"}
RIGHT_COLUMNS: Final = ("price", "change", "rows", "alerts")


class View(NamedTuple):
    """What was read last: the monitor's state and the newest cards, at `now` by the database's
    clock and at `read_at` by time.monotonic(). `tickers` counts all of the session; `problem` is
    why nothing newer could be read, `blind` why no data comes."""

    now: datetime
    read_at: float
    status: StatusRow | None
    cards: Sequence[Card]
    tickers: int
    problem: str = ""
    blind: str = ""


class LogLines:
    """The latest lines of the log. Any thread."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LOG_LINES_KEPT)

    def add(self, line: str) -> None:
        """Take a line."""
        self._lines.append(_printable(line))

    def newest(self, count: int) -> list[str]:
        """Return the newest lines, oldest first."""
        return list(self._lines.copy())[-count:] if count > 0 else []


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
        self._reader = Reader(settings)
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
                self._view = self._reader.read(read_view, self._terminal.height)
            except (*DATABASE_ERRORS, ConfigurationError) as problem:
                self._view = self._view._replace(problem=one_line(problem))
        self._reader.close()

    def _draw(self) -> None:
        while not self._ending.wait(DRAW_EVERY_S):
            height = self._terminal.height
            self._live.update(screen(self._view, self._log, height), refresh=True)


def read_view(database: Database, most: int) -> View:
    """Read the state and no more than the newest `most` cards. Blocks."""
    tickers = marks(database).tickers
    return View(
        clock(database),
        time.monotonic(),
        status(database),
        cards_of(database, dict(islice(tickers.items(), most))),
        len(tickers),
        blind=blind(database) or "",
    )


def screen(view: View, log: LogLines, height: int) -> RenderableType:
    """Return the state, the newest cards that fit, and the log below, in `height` lines."""
    now = view.now + timedelta(seconds=time.monotonic() - view.read_at)
    room = max(0, height - LINES_WITHOUT_CARDS - MIN_LOG_LINES)
    shown = view.cards[:room]
    left_out = view.tickers - len(shown)
    lines = log.newest(height - LINES_WITHOUT_CARDS - len(shown))
    return Group(
        state_line(view, now),
        Rule(style="dim"),
        _table(shown, now),
        Rule(Text(f"{left_out} more tickers" if left_out else ""), style="dim"),
        *(Text(line, style=_log_style(line), no_wrap=True, overflow="ellipsis") for line in lines),
    )


def state_line(view: View, now: datetime) -> Text:
    """Return the monitor's state in one line, behind what is away: monitor or database."""
    line = Text(no_wrap=True, overflow="ellipsis")
    found = view.status
    if view.problem:
        problem = _printable(view.problem)
        line.append(f" The database cannot be read: {problem} ", "bold white on red")
    if found is None:
        return line.append(" No monitor has written its status yet.", "bold")
    found = found._replace(
        state=_printable(found.state),
        mode=_printable(found.mode),
        account=_printable(found.account),
        last_error=_printable(found.last_error),
    )
    silent_s = (now - found.timestamp).total_seconds()
    if silent_s > STALE_S:
        line.append(f" NO SIGN OF THE MONITOR FOR {silent_s:.0f} s ", "bold white on red")
    if view.blind:
        line.append(f" {_printable(view.blind)} ", "bold white on red")
    held_s = (now - found.state_since).total_seconds()
    line.append(f" {found.mode} ", MODE_STYLES.get(found.mode, "bold reverse"))
    if found.delayed:
        line.append(" DELAYED DATA ", "bold black on yellow")
    line.append(f" {found.state} ", STATE_STYLES.get(found.state, "bold red"))
    line.append(
        f"for {timedelta(seconds=max(0, round(held_s)))}, account {found.account or 'unknown'}, "
        f"{found.active_tickers} tickers, cycle {found.cycles} in {found.last_cycle_ms:.0f} ms, "
        f"clock {found.clock_difference_s:+z.1f} s"
    )
    if found.kept_rows:
        line.append(f", {found.kept_rows} rows kept", "bold yellow")
    if found.last_error:
        line.append(f", last error {found.last_error}", "red")
    return line


def _table(shown: Sequence[Card], now: datetime) -> Table:
    table = Table(box=None, expand=True, pad_edge=False, header_style="dim")
    for name in ("ticker", "news", "rated", "price", "change", "window", "rows", "alerts", "why"):
        table.add_column(
            name,
            no_wrap=True,
            overflow="ellipsis",
            justify="right" if name in RIGHT_COLUMNS else "left",
            ratio={"news": 3, "why": 2}.get(name),
        )
    for card in shown:
        rating, outcome = card.rating, card.outcome
        table.add_row(
            Text(_printable(card.ticker), "bold"),
            Text(_printable(card.headline)),
            Text(
                _printable(f"{rating.recommendation} {rating.confidence}"),
                RATING_STYLES.get(rating.recommendation, ""),
            ),
            "" if card.price is None else f"{card.price:.4f}",
            "" if card.change_pct is None else f"{card.change_pct:+.1f} %",
            Text(_bar(card, now)),
            str(outcome.rows),
            Text(str(outcome.alerts), "bold green" if outcome.alerts else "dim"),
            Text(_printable(card.reason(now))),
        )
    return table


def _bar(card: Card, now: datetime) -> str:
    """Return what is left of the window; nothing once it is over."""
    left_s = 0.0 if card.closes is None else (card.closes - now).total_seconds()
    if left_s <= 0:
        return ""
    cells = round(min(1.0, left_s / WINDOW_S) * WINDOW_CELLS)
    return f"{'█' * cells}{'░' * (WINDOW_CELLS - cells)} {left_s:.0f} s"


def _log_style(line: str) -> str:
    if " ERROR " in line or " CRITICAL " in line:
        return "red"
    return "yellow" if " WARNING " in line else "bold green" if ": ALERT " in line else ""


def _printable(text: str) -> str:
    """Text of others with a blank for each character that could steer the terminal."""
    return visible(text).replace("\n", " ")
