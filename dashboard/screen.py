"""What the console draws: the monitor's state, the newest cards, and the log.

A colour always comes with its background, so that it can be read on light and dark terminals.
"""

import re
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from dashboard.cards import Card
from dashboard.queries import clock_since
from newshead.core.parts import STALE_S
from newshead.core.rule import WINDOW_S, percent
from newshead.database.tables import READY, StatusRow
from newshead.text import visible

LOG_LINES_KEPT: Final = 200
MIN_LOG_LINES: Final = 5
# The state, the page and the cycle, the two rules, and the table's header.
LINES_WITHOUT_CARDS: Final = 5
WINDOW_CELLS: Final = 10
# From which width on there is room for the headline, and for everything.
WIDE: Final = 110
WIDEST: Final = 140
WHY_WIDTH: Final = 44

GOOD: Final = "bold black on green"
DOUBTFUL: Final = "bold black on yellow"
BAD: Final = "bold white on red"
MODE_STYLES: Final = {"LIVE": BAD, "PAPER": GOOD}
STATE_STYLES: Final = {READY: GOOD, "stale": DOUBTFUL}
RATING_STYLES: Final = {"BUY": GOOD, "SELL": BAD}
RIGHT_COLUMNS: Final = ("price", "change", "left", "rows", "alerts")
# What deserves a look in a log line.
LOG_STYLES: Final = {
    re.compile(" (ERROR|CRITICAL) "): BAD,
    re.compile(" (WARNING) "): DOUBTFUL,
    re.compile(": (ALERT) "): GOOD,
}
# Said every two seconds, and shown in a place of its own.
_CYCLE: Final = re.compile(r"(Cycle \d+: \d+ rows, .*)")
_PAGE: Final = re.compile(r"The page is at (\S+)")


class View(NamedTuple):
    """What was read last: the monitor's state and the newest cards, at `now` by the database's
    clock and at `read_at` by time.monotonic(). `tickers` counts all of the session; `problem` is
    why nothing newer could be read, `failing` what else costs alerts."""

    now: datetime
    read_at: float
    status: StatusRow | None
    cards: Sequence[Card]
    tickers: int
    problem: str = ""
    failing: tuple[str, ...] = ()


class LogLines:
    """The latest lines of the log; the cycle's and the page's address apart. Any thread."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LOG_LINES_KEPT)
        self.cycle = ""
        self.page = ""

    def add(self, line: str) -> None:
        """Take a line."""
        text = _printable(line)
        if found := _CYCLE.search(text):
            self.cycle = found[1]
            return
        if found := _PAGE.search(text):
            self.page = found[1]
        self._lines.append(text)

    def newest(self, count: int) -> list[str]:
        """Return the newest lines, oldest first."""
        return list(self._lines.copy())[-count:] if count > 0 else []


def screen(view: View, log: LogLines, width: int, height: int) -> RenderableType:
    """Return the state, the newest cards that fit, and the log below, in `height` lines."""
    now = clock_since(view.now, view.read_at)
    room = max(0, height - LINES_WITHOUT_CARDS - MIN_LOG_LINES)
    shown = view.cards[:room]
    left_out = view.tickers - len(shown)
    lines = log.newest(height - LINES_WITHOUT_CARDS - len(shown))
    standing = "  ".join(filter(None, (log.page, log.cycle)))
    return Group(
        state_line(view, now),
        Text(f" {standing}", no_wrap=True, overflow="ellipsis"),
        Rule(style="dim"),
        _table(shown, now, width),
        Rule(
            Text(f"{left_out} more ticker{'s' if left_out > 1 else ''}" if left_out else ""),
            style="dim",
        ),
        *map(_log_line, lines),
    )


def state_line(view: View, now: datetime) -> Text:
    """Return the monitor's state in one line, behind what is away: monitor or database."""
    line = Text(no_wrap=True, overflow="ellipsis")
    found = view.status
    if view.problem:
        problem = _printable(view.problem)
        line.append(f" The database cannot be read: {problem} ", BAD)
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
        line.append(f" NO SIGN OF THE MONITOR FOR {silent_s:.0f} s ", BAD)
    for problem in view.failing:
        line.append(f" {_printable(problem)} ", BAD)
    held_s = (now - found.state_since).total_seconds()
    line.append(f" {found.mode} ", MODE_STYLES.get(found.mode, "bold reverse"))
    if found.delayed:
        line.append(" DELAYED DATA ", DOUBTFUL)
    line.append(f" {found.state} ", STATE_STYLES.get(found.state, BAD))
    line.append(
        f"for {timedelta(seconds=max(0, round(held_s)))}, account {found.account or 'unknown'}, "
        f"{_tickers(found.active_tickers)}, cycle {found.cycles} in {found.last_cycle_ms:.0f} ms, "
        f"clock {found.clock_difference_s:+z.1f} s"
    )
    if found.kept_rows:
        line.append(f", {found.kept_rows} rows kept ", DOUBTFUL)
    if found.last_error:
        line.append(f" last error {found.last_error}", BAD)
    return line


def _tickers(count: int) -> str:
    return f"{count} ticker{'' if count == 1 else 's'}"


def _table(shown: Sequence[Card], now: datetime, width: int) -> Table:
    table = Table(
        box=None, expand=True, pad_edge=False, padding=(0, 1, 0, 0), header_style="underline"
    )
    names = ["ticker", "rated", "price", "change", "left", "why"]
    if width >= WIDE:
        names[-1:] = ["alerts", "why", "news"]
    if width >= WIDEST:
        names.insert(names.index("alerts"), "rows")
    for name in names:
        table.add_column(
            name,
            no_wrap=True,
            overflow="ellipsis",
            justify="right" if name in RIGHT_COLUMNS else "left",
            ratio={"news": 3, "why": 2}.get(name),
            min_width=WHY_WIDTH if name == "why" else None,
        )
    for card in shown:
        cells = _cells(card, now, width)
        table.add_row(*(cells[name] for name in names))
    return table


def _cells(card: Card, now: datetime, width: int) -> dict[str, Text]:
    rating, outcome = card.rating, card.outcome
    rated = f"{rating.recommendation} {rating.confidence}" if width >= WIDE else ""
    # That it is over stands beside it.
    why = card.reason(now).removeprefix("window over: ").replace("best change", "best")
    return {
        "ticker": Text(_printable(card.ticker), "bold"),
        "rated": Text(
            _printable(rated or rating.recommendation),
            RATING_STYLES.get(rating.recommendation, ""),
        ),
        "price": Text(
            "" if card.price is None else f"{card.price:.{2 if card.price >= 1 else 4}f}"
        ),
        "change": Text("" if card.change_pct is None else percent(card.change_pct)),
        "left": Text(_left(card, now, width)),
        "rows": Text(str(outcome.rows)),
        "alerts": Text(str(outcome.alerts), GOOD if outcome.alerts else ""),
        "why": Text(_printable(why)),
        "news": Text(_printable(card.headline)),
    }


def _left(card: Card, now: datetime, width: int) -> str:
    """Return what is left of the window; nothing before it opens."""
    if card.closes is None:
        return ""
    if card.over(now):
        return "over"
    left_s = (card.closes - now).total_seconds()
    cells = round(min(1.0, left_s / WINDOW_S) * WINDOW_CELLS)
    bar = f"{'█' * cells}{'░' * (WINDOW_CELLS - cells)} " if width >= WIDEST else ""
    return f"{bar}{left_s:.0f} s"


def _log_line(line: str) -> Text:
    text = Text(line, no_wrap=True, overflow="ellipsis")
    for pattern, style in LOG_STYLES.items():
        if found := pattern.search(line):
            text.stylize(style, *found.span(1))
            break
    return text


def _printable(text: str) -> str:
    """Text of others with a blank for each character that could steer the terminal."""
    return visible(text).replace("\n", " ")
