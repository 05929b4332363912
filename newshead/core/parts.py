"""How the parts of newshead fare: their states, and what the newest rows of them all tell together.

No I/O and no clock: `now` is handed in. Whoever writes, shows or tells of a part goes by these.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import Final, NamedTuple

from newshead.core.times import NEW_YORK

MONITOR: Final = "price monitor"
IBKR: Final = "ibkr"
MARKET_DATA: Final = "market data"
DATABASE: Final = "database"
NEWS: Final = "news"
"""A source's part is called `news` and its name."""
RATING: Final = "rating"
TRIGGERS: Final = "trigger folder"
TICKER_LIST: Final = "ticker list"
PAGE: Final = "page"
PUSH: Final = "push"

# Those that the price monitor tells of; run_system.py tells of all others.
OF_MONITOR: Final = (MONITOR, IBKR, MARKET_DATA, DATABASE, TRIGGERS)
# Without these an alert comes all the same.
COST_NO_ALERT: Final = (PAGE, PUSH)
# What the push can be told to be silent of.
ALERTS: Final = "alerts"
KINDS: Final = (
    *(ALERTS, "price-monitor", "ibkr", "market-data", "database", "news", "rating"),
    *("trigger-folder", "ticker-list"),
)
# A part that has told nothing for longer is lost; each does so every 10 s.
STALE_S: Final = 15.0


class PartState(Enum):
    """How a part fares; the words of `part_status.state`."""

    OK = "ok"
    DEGRADED = "degraded"
    LOST = "lost"
    REFUSED = "refused"
    OFF = "off"

    @property
    def fails(self) -> bool:
        """Whether the part does not do what it is for."""
        return self in (PartState.LOST, PartState.REFUSED)

    @property
    def works(self) -> bool:
        """Whether the part does what it is for, at least in part. One that is off does not."""
        return self in (PartState.OK, PartState.DEGRADED)


class Part(NamedTuple):
    """A part, how it fares and why; `success_age_s` is since it last did what it is for."""

    name: str
    state: PartState
    reason: str = ""
    success_age_s: float | None = None
    counts: Mapping[str, int] = {}

    def told(self, at: datetime) -> "Told":
        """Return the part as a row of it tells at that time."""
        age_s = self.success_age_s
        success = None if age_s is None else at - timedelta(seconds=age_s)
        return Told(self.name, self.state, self.reason, at, at, success)

    def line(self) -> str:
        """Return the state as a line for the process that started the part's own."""
        return json.dumps([self.state.value, self.reason, dict(self.counts)])


def of_line(name: str, line: str) -> Part | None:
    """Return a part from its line; None where it is none."""
    try:
        state, reason, counts = json.loads(line)
        return Part(name, PartState(state), str(reason), None, dict(counts))
    except (ValueError, TypeError):
        return None


class Told(NamedTuple):
    """A part as its rows tell: a state that it had since `since`, last told `at`."""

    name: str
    state: PartState
    reason: str
    since: datetime
    at: datetime
    success: datetime | None = None

    @property
    def problem(self) -> str:
        """The part and what is wrong with it."""
        return f"{self.name}: {self.reason or self.state.value}"


class Mended(NamedTuple):
    """A failure that is over."""

    name: str
    reason: str
    since: datetime
    until: datetime


def kind_of(name: str) -> str:
    """Return the kind of a part, one of KINDS."""
    return NEWS if name.startswith(f"{NEWS} ") else name.replace(" ", "-")


def is_stale(told: Told, now: datetime) -> bool:
    """Return whether a part tells nothing any more; one that is off need not."""
    return told.state is not PartState.OFF and now - told.at > timedelta(seconds=STALE_S)


def newest(rows: Iterable[Told], now: datetime) -> list[Told]:
    """Return how each part fares now, by the newest of its rows; sorted by name."""
    by_name: dict[str, Told] = {}
    for row in rows:
        if row.name not in by_name or row.at > by_name[row.name].at:
            by_name[row.name] = row
    return [_now(by_name[name], now) for name in sorted(by_name)]


def _now(told: Told, now: datetime) -> Told:
    if not is_stale(told, now):
        return told
    who = "the price monitor" if told.name in OF_MONITOR else "newshead"
    at = f"{told.at.astimezone(NEW_YORK):%H:%M:%S} New York time"
    reason = f"{who} has told nothing since {at}: it has ended or hangs; look at its log."
    return told._replace(state=PartState.LOST, reason=reason, since=told.at)


def failing(parts: Sequence[Told], now: datetime) -> list[Told]:
    """Return the failures that cost alerts, each cause once: what a failure brings with it is left
    out."""
    by_name = {part.name: part for part in parts}
    monitor, database = by_name.get(MONITOR), by_name.get(DATABASE)
    gone = monitor is not None and is_stale(monitor, now)
    away = database is not None and database.state.fails and not is_stale(database, now)
    ibkr = by_name.get(IBKR)
    found = []
    for part in parts:
        if not part.state.fails or part.name in COST_NO_ALERT:
            continue
        # Whoever has ended, or cannot be read, tells nothing of anything.
        if is_stale(part, now) and (away or (gone and part.name != MONITOR)):
            continue
        if part.name == MARKET_DATA and ibkr is not None and ibkr.state.fails:
            continue
        found.append(part)
    return found


def degraded(parts: Sequence[Told]) -> list[Told]:
    """Return what works in part only, as far as that costs alerts."""
    return [
        part
        for part in parts
        if part.state is PartState.DEGRADED and part.name not in COST_NO_ALERT
    ]


def mended(rows: Iterable[Told]) -> list[Mended]:
    """Return the failures in the rows that are over, newest first; silence is one."""
    by_name: dict[str, list[Told]] = {}
    for row in sorted(rows, key=lambda told: told.at):
        by_name.setdefault(row.name, []).append(row)
    found = []
    for name, spans in by_name.items():
        began: Told | None = None
        for span, following in zip(spans, [*spans[1:], None], strict=True):
            if span.state.fails:
                began = began or span
            elif began is not None and span.state.works:
                found.append(Mended(name, began.reason, began.since, span.since))
                began = None
            if following is not None and began is None and is_stale(span, following.since):
                began = _now(span, following.since)
    return sorted(found, key=lambda each: each.until, reverse=True)
