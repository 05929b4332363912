"""What the push tells of the parts: each loss that costs alerts, and its end. No I/O."""

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from apprise import NotifyType

from dashboard.services import Message
from newshead.core.parts import (
    DATABASE,
    IBKR,
    MARKET_DATA,
    MONITOR,
    PartState,
    Told,
    failing,
    is_stale,
    kind_of,
    newest,
)
from newshead.core.times import NEW_YORK

LOST: Final = timedelta(seconds=30)
# What has been waited for already, or does not pass by itself, is told at once.
AT_ONCE: Final = (MARKET_DATA,)
TITLES: Final = {IBKR: "connection to IBKR"}


class LossWatch:
    """Judge from the parts' rows what is lost, and for how long. Times are the database's."""

    def __init__(self, lost: Mapping[str, str], silenced: Collection[str] = ()) -> None:
        """
        Parameters
        ----------
        lost
            What was told lost before a restart, with the words for since when.
        silenced
            The kinds of which nothing is told.
        """
        self._lost = dict(lost)
        self._silenced = silenced
        self._rows: Sequence[Told] = ()
        # Since when each part fails, whoever tells it.
        self._began: dict[str, Told] = {}
        self._readable_since: datetime | None = None
        self._unreadable_since: datetime | None = None

    @property
    def lost(self) -> Mapping[str, str]:
        """What is told lost, with the words for since when."""
        return self._lost

    def cannot_read(self, reason: str, now: datetime, mode: str) -> list[Message]:
        """Return what is to be told of a reading that failed."""
        self._unreadable_since = self._unreadable_since or now
        self._readable_since = None
        since = self._unreadable_since
        text = f"ClickHouse cannot be read: {reason}"
        rows = [row for row in self._rows if row.name != DATABASE]
        return self._judge(
            [*newest(rows, now), Told(DATABASE, PartState.LOST, text, since, now)], now, mode
        )

    def see(self, rows: Sequence[Told], now: datetime, mode: str) -> list[Message]:
        """Return what is to be told of what the parts told in the last hour."""
        self._unreadable_since = None
        self._readable_since = self._readable_since or now
        self._rows = rows
        parts = newest(rows, now)
        names = {part.name for part in parts}
        if MONITOR not in names:
            text = "no price monitor has told anything within the hour: start newshead."
            parts.append(Told(MONITOR, PartState.LOST, text, self._readable_since, now))
        # It is read, whoever has ended.
        readable = Told(DATABASE, PartState.OK, "", self._readable_since, now)
        parts = [
            readable if part.name == DATABASE and is_stale(part, now) else part for part in parts
        ]
        if DATABASE not in names:
            parts.append(readable)
        return self._judge(parts, now, mode)

    def _judge(self, parts: Sequence[Told], now: datetime, mode: str) -> list[Message]:
        found = []
        lead = "" if mode in ("", "UNKNOWN") else f"{mode}: "
        self._began = {
            part.name: self._began.get(part.name, part) for part in parts if part.state.fails
        }
        for part in failing(parts, now):
            began = self._began[part.name].since
            # Nothing could be told while nothing could be read.
            waited = now - max(began, self._readable_since or began)
            if part.name not in self._lost and waited >= _patience(part):
                since = self._lost[part.name] = _clock(began)
                text = (
                    f"{lead}{part.reason} Since {since} New York time. No alert can be relied on."
                )
                found.append(self._message(part, text, f"lost {since}"))
        for part in parts:
            # Where newshead was stopped nothing was mended.
            if part.name in self._lost and part.state.works:
                since = self._lost.pop(part.name)
                text = f"{lead}it works again. It was lost at {since} New York time."
                found.append(self._message(part, text, f"back {since}"))
        return [message for message in found if message is not None]

    def _message(self, part: Told, text: str, key: str) -> Message | None:
        if kind_of(part.name) in self._silenced:
            return None
        state = part.state.value if part.state.fails else "back"
        return Message(
            f"newshead: {TITLES.get(part.name, part.name)} is {state}",
            text,
            NotifyType.FAILURE if part.state.fails else NotifyType.SUCCESS,
            time.monotonic(),
            f"{part.name} {key}",
        )


def _patience(part: Told) -> timedelta:
    at_once = part.name in AT_ONCE or part.state is PartState.REFUSED
    return timedelta() if at_once else LOST


def _clock(at: datetime) -> str:
    return f"{at.astimezone(NEW_YORK):%H:%M:%S}"
