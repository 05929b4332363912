"""What came of playing a recording: its rows, beside the database's and as sessions."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, time
from pathlib import Path
from typing import Any, Final, NamedTuple

from newshead.database import past
from newshead.database.connection import Database
from newshead.recording import time_of
from newshead.replay.comparing import Span, compare
from newshead.replay.sessions import Session, sessions, split

PRICES: Final = "price_tracking"
ALERTS: Final = "news_alert"


class Played(NamedTuple):
    """What came of a recording.

    `rows` are those that were made for each table, in their order, and `stored` those that it
    took; `requests` went to TWS and `messages` came from it. `began_at` and `ended_at` are the
    times of the first and the last entry, and `whole` says that this is the end. The `difference`
    names the first entry in which the replay differs; empty if there is none.
    """

    path: Path
    noted: int
    requests: int
    messages: int
    rows: dict[str, list[Sequence[Any]]]
    stored: dict[str, list[Sequence[Any]]]
    scores: dict[str, float | None]
    session_roll: time | None
    began_at: datetime
    ended_at: datetime
    whole: bool
    difference: str

    @property
    def summary(self) -> str:
        """What there was, in a line."""
        counts = (
            f"{self.noted} entries, {self.messages} messages, {self.requests} requests, "
            f"{len(self.rows.get(PRICES, []))} rows, {len(self.rows.get(ALERTS, []))} alerts"
        )
        if self.difference:
            return f"{self.path}: DIFFERENT after {counts}: {self.difference}"
        cut = "" if self.whole else f"; cut at {self.ended_at.isoformat()}, replayed up to there"
        return f"{self.path}: the same: {counts}{cut}"

    def span(self, table: str, row: Callable[[Sequence[Any]], tuple[Any, ...]]) -> Span:
        """Return what it tells of a table, each row as `row` makes it."""
        made = Counter(map(row, self.rows.get(table, [])))
        stored = Counter(map(row, self.stored.get(table, [])))
        return Span(
            self.began_at.timestamp(),
            self.ended_at.timestamp(),
            not self.whole,
            list(stored.elements()),
            list((made - stored).elements()),
        )


def compared(database: Database, played: Sequence[Played]) -> tuple[bool, list[str]]:
    """Return whether the stored rows and alerts are the recorded ones, and lines that tell."""
    lines: list[str] = []
    same = True
    for what, table, row, tables, read in (
        ("rows", PRICES, _price_row, past.PRICE_TABLES, past.price_rows),
        ("alerts", ALERTS, _alert_row, past.ALERT_TABLES, past.alert_rows),
    ):
        spans = [each.span(table, row) for each in played]
        times = [each[1] for span in spans for each in (*span.stored, *span.unsure)]
        since_s = min([*times, *(span.began_s for span in spans)])
        until_s = max([*times, *(span.ended_s for span in spans)])
        since, until = time_of(int(since_s) * 10**6), time_of(int(until_s + 1) * 10**6)
        there = [found for each in tables for found in read(database, each, since, until)]
        comparison = compare(there, spans)
        same = same and not (comparison.missing or comparison.unknown)
        lines += comparison.lines(what)
    return same, lines


def _price_row(row: Sequence[Any]) -> tuple[Any, ...]:
    """Return a row of PRICES as `past` reads it."""
    at, ticker, price, volume, _, _, recommendation, _ = row
    return ticker, int(at.timestamp()), price, volume, recommendation


def _alert_row(row: Sequence[Any]) -> tuple[Any, ...]:
    ticker, at, alert, price = row
    return ticker, int(at.timestamp()), alert, price


def sessions_of(played: Iterable[Played]) -> list[Session]:
    """Return the sessions whose rows were recorded."""
    rows: list[tuple[Any, ...]] = []
    scores: dict[str, float | None] = {}
    roll: time | None = None
    for each in played:
        scores |= each.scores
        roll = each.session_roll
        rows += map(_price_row, each.rows.get(PRICES, []))
    rows.sort(key=lambda row: row[:2])
    return list(sessions(split(rows, scores), roll))
