"""How far the connection to TWS has come, whether data flows on it, and whether it lives.

No clock, no log and no I/O: the caller hands in `now` (monotonic seconds) and serialises
the calls; what to do comes back.
"""

import math
from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from newshead.tws.durations import DURATIONS, Durations


class ConnectionState(Enum):
    """How far the connection to TWS has come.

    An open socket, an API that takes requests, and data that flows are three
    things: SOCKET_OPEN is the first, STALE the first two, READY all of them,
    as far as TWS says.
    """

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    SOCKET_OPEN = "socket open"
    READY = "ready"
    STALE = "stale"


class Event(Enum):
    """What happens to a connection."""

    CONNECT = "an attempt begins"
    OPENED = "the socket is open"
    ACCEPTED = "TWS takes requests"
    DATA_LOST = "TWS has no data"
    DATA_BACK = "data flows"
    CLOSED = "the connection ends"


_DISCONNECTED: Final = ConnectionState.DISCONNECTED
_CONNECTING: Final = ConnectionState.CONNECTING
_SOCKET_OPEN: Final = ConnectionState.SOCKET_OPEN
_READY: Final = ConnectionState.READY
_STALE: Final = ConnectionState.STALE

TRANSITIONS: Final[dict[tuple[ConnectionState, Event], ConnectionState]] = {
    (_DISCONNECTED, Event.CONNECT): _CONNECTING,
    (_CONNECTING, Event.OPENED): _SOCKET_OPEN,
    # At the next address of the host.
    (_SOCKET_OPEN, Event.OPENED): _SOCKET_OPEN,
    (_SOCKET_OPEN, Event.ACCEPTED): _READY,
    # What TWS says of its data before it takes requests shows once it does.
    (_SOCKET_OPEN, Event.DATA_LOST): _SOCKET_OPEN,
    (_SOCKET_OPEN, Event.DATA_BACK): _SOCKET_OPEN,
    (_READY, Event.ACCEPTED): _READY,
    (_READY, Event.DATA_LOST): _STALE,
    (_READY, Event.DATA_BACK): _READY,
    (_STALE, Event.ACCEPTED): _READY,
    (_STALE, Event.DATA_LOST): _STALE,
    (_STALE, Event.DATA_BACK): _READY,
    # Whoever drives the callbacks by hand has no socket.
    (_DISCONNECTED, Event.ACCEPTED): _READY,
    # What was under way when the connection ended.
    (_DISCONNECTED, Event.DATA_LOST): _DISCONNECTED,
    (_DISCONNECTED, Event.DATA_BACK): _DISCONNECTED,
    **{(state, Event.CLOSED): _DISCONNECTED for state in ConnectionState},
}


class LinkError(RuntimeError):
    """An event that cannot happen in the state at hand."""


class Change(NamedTuple):
    """A change of the state."""

    before: ConnectionState
    after: ConnectionState


class AskForTime(NamedTuple):
    """Ask TWS for the time: it has been quiet."""


class GiveUp(NamedTuple):
    """End the connection: TWS gave no sign of life for `quiet_s` seconds."""

    quiet_s: float


class CheckSubscriptions(NamedTuple):
    """Subscribe again what had no data since it flows again, `since_s` seconds ago."""

    since_s: float


Task: TypeAlias = AskForTime | GiveUp | CheckSubscriptions


class Link:
    """One connection to TWS, from the first attempt to its end."""

    def __init__(self, durations: Durations = DURATIONS) -> None:
        self._durations = durations
        self.state = ConnectionState.DISCONNECTED
        # Why TWS has no connection to IBKR, and for each farm that is away why it is.
        self._offline = ""
        self._away: dict[str, str] = {}
        # When a message came last, and when TWS was asked for a sign of life since.
        self.message_at = -math.inf
        self._asked_at = math.inf
        # The begin of a time without data, and its end, from when data is given time to show.
        self._lost_at = -math.inf
        self._back_at = math.inf
        # When TWS took requests for the first time.
        self._accepted_at = math.inf
        # The state under the one that was assigned.
        self._true_state: ConnectionState | None = None

    @property
    def connected(self) -> bool:
        """Whether the API is ready: requests are taken and data can come."""
        return self.state in (ConnectionState.READY, ConnectionState.STALE)

    @property
    def stale_reason(self) -> str:
        """Why no data flows although TWS is connected; empty while it does."""
        if self.state is not ConnectionState.STALE:
            return ""
        return self._offline or " ".join(self._away[name] for name in sorted(self._away))

    @property
    def farms_away(self) -> list[str]:
        """The names of the farms with US stocks that are broken, sorted."""
        return sorted(self._away)

    def assign(self, connected: bool) -> Change | None:
        """Put the link into ready or disconnected until its next event."""
        if connected == self.connected:
            return None
        self._true_state = self._true_state or self.state
        return self._enter(ConnectionState.READY if connected else ConnectionState.DISCONNECTED)

    def on(self, event: Event) -> Change | None:
        """Follow an event; return the change of the state if it changes.

        Raises
        ------
        LinkError
            It cannot happen in this state.
        """
        after = TRANSITIONS.get((self.state, event))
        if after is None and self._true_state is not None:
            after = TRANSITIONS.get((self._true_state, event))
        if after is None:
            raise LinkError(f"{event.value} while {self.state.value}")
        self._true_state = None
        return self._enter(after)

    def quiet_s(self, now: float) -> float:
        """Return the seconds since the last message; 0 if there was none."""
        return max(0.0, now - self.message_at) if self.message_at > -math.inf else 0.0

    def heard(self, now: float) -> None:
        """Note that a message came."""
        self.message_at = now
        self._asked_at = math.inf

    def accepted(self, now: float) -> Change | None:
        """Note that TWS takes requests; whether it has data it may have said before."""
        self._accepted_at = min(self._accepted_at, now)
        before = self.state
        self.on(Event.ACCEPTED)
        if self._lost:
            self.on(Event.DATA_LOST)
        return Change(before, self.state) if before is not self.state else None

    def knows_stocks(self, now: float) -> bool:
        """Tell whether a stock that IBKR does not know is none: not in a connection's first
        seconds, nor while data is away."""
        fresh = now - self._accepted_at < self._durations.distrust_s
        return not fresh and self.state is not ConnectionState.STALE

    def offline(self, reason: str, now: float) -> Change | None:
        """Note that TWS has lost its connection to IBKR."""
        self._offline = reason
        return self._lose(now)

    def online_without_subscriptions(self) -> Change | None:
        """Note that TWS is connected to IBKR again, and that its subscriptions are gone."""
        self._offline = ""
        return self._recover()

    def online(self, now: float, away: Mapping[str, str] | None = None) -> Change | None:
        """Note that TWS is connected to IBKR again; each subscription has to show that it stands.

        Parameters
        ----------
        away
            Where TWS names them: the farms with US stocks that are still away, and why.
        """
        if not (self._lost or away):
            return None
        self._offline = ""
        if away is not None:
            self._away = dict(away)
        self._back_at = now
        if away:
            self._lost_at = now
            return self.on(Event.DATA_LOST)
        return self._recover()

    def farm_broke(self, name: str, reason: str, now: float) -> Change | None:
        """Note that a farm with US stocks is away, until its own return."""
        self._away[name] = reason
        return self._lose(now)

    def farm_back(self, name: str, now: float) -> Change | None:
        """Note that a farm is back; each subscription has to show that it stands."""
        # A break without a name may have been any farm's.
        if not {name, ""} & self._away.keys():
            return None
        self._away.pop(name, None)
        self._away.pop("", None)
        self._back_at = now
        return self._recover()

    def data_came(self, now: float) -> Change | None:
        """Note that data came, which ends a time without any unless it was on its way."""
        if self.state is ConnectionState.STALE and now - self._lost_at > self._durations.recovery_s:
            return self.on(Event.DATA_BACK)
        return None

    def watch(self, now: float) -> list[Task]:
        """Return what is to do now; to be called about once a second while connected."""
        tasks: list[Task] = []
        quiet_s = now - self.message_at
        if quiet_s >= self._durations.heartbeat_s and self._asked_at == math.inf:
            self._asked_at = now
            tasks.append(AskForTime())
        if now - self._asked_at >= self._durations.answer_s:
            return [GiveUp(quiet_s)]
        if now - self._back_at >= self._durations.recovery_s:
            tasks.append(CheckSubscriptions(now - self._back_at))
            self._back_at = math.inf
        return tasks

    @property
    def _lost(self) -> bool:
        return bool(self._offline or self._away)

    def _lose(self, now: float) -> Change | None:
        self._lost_at = now
        self._back_at = math.inf
        return self.on(Event.DATA_LOST)

    def _recover(self) -> Change | None:
        return None if self._lost else self.on(Event.DATA_BACK)

    def _enter(self, state: ConnectionState) -> Change | None:
        before, self.state = self.state, state
        return Change(before, state) if before is not state else None
