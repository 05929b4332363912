"""Silence: no data for any awaited ticker although TWS answers, and what to do about it.

TWS can stop serving data without a code. Only a new request shows whether it still serves
any: it brings a snapshot, even of a stock that nobody trades. No clock, no log and no I/O:
the caller hands in `now` (monotonic seconds) and does what comes back.
"""

import math
from enum import Enum
from typing import Final

from newshead.tws.durations import DURATIONS, Durations

# The pauses between requests for stocks that nobody trades: once, twice, four and eight times
# the first one.
MAX_DOUBLINGS: Final = 3


class Step(Enum):
    """What to do about the silence."""

    ASK_AGAIN = "make the requests of the silent tickers anew"
    LOG_NO_TRADES = "say that nobody trades these stocks: their requests are served"
    ASK_REFERENCE = "request the reference"
    END_REFERENCE = "cancel the request for the reference"
    RECONNECT = "end the connection: only a new one may bring data"


class _Phase(Enum):
    WAITING = "for data, until it is time to ask"
    ASKED = "again for the silent tickers"
    REFERENCE = "asked for"


class Silence:
    """Find out whether TWS still serves data; outlives the connections."""

    def __init__(self, durations: Durations = DURATIONS) -> None:
        self._durations = durations
        # Whether TWS serves no data, as far as requests could tell, and when one was answered last.
        self.blind = False
        self.served_at = -math.inf
        self._phase = _Phase.WAITING
        # The begin of the present phase, and of the time that counts as silent.
        self._phase_at = -math.inf
        self._quiet_since = math.inf
        # The requests made since data came that no request had asked for.
        self._asks = 0
        self._asked_at = -math.inf
        self._reconnected_at = -math.inf

    def connected(self) -> None:
        """Begin anew on a new connection: its first requests bring their snapshots."""
        self._phase = _Phase.WAITING
        self._quiet_since = math.inf

    def served(self, now: float) -> list[Step]:
        """Take in that TWS answered the request for the reference, with data or with a code."""
        if self._phase is not _Phase.REFERENCE:
            return []
        return [Step.END_REFERENCE, *self._answered(now)]

    def watch(
        self, now: float, data_at: float, *, awaited: bool, has_reference: bool
    ) -> list[Step]:
        """Return what to do now; to be called about once a second while connected.

        Parameters
        ----------
        data_at
            When any ticker had data last.
        awaited
            Whether data should come: in trading hours, for a ticker that is neither halted nor
            refused.
        has_reference
            Whether there is a reference to ask for.
        """
        if not awaited:
            return self._rest()
        self._quiet_since = min(self._quiet_since, now)
        if self._phase is _Phase.WAITING:
            return self._wait(now, data_at)
        if self._phase is _Phase.ASKED:
            return self._await_snapshot(now, data_at, has_reference=has_reference)
        return self._await_reference(now, data_at)

    def _wait(self, now: float, data_at: float) -> list[Step]:
        # Data that comes this long after a request is no snapshot.
        if data_at > self._asked_at + self._durations.snapshot_s:
            self._asks = 0
            self.blind = False
        silent_s = now - max(data_at, self._quiet_since, self._asked_at)
        if silent_s < self._durations.quiet_s * 2 ** min(self._asks, MAX_DOUBLINGS):
            return []
        self._asks += 1
        self._asked_at = now
        self._enter(_Phase.ASKED, now)
        return [Step.ASK_AGAIN]

    def _await_snapshot(self, now: float, data_at: float, *, has_reference: bool) -> list[Step]:
        if data_at > self._asked_at:
            return self._answered(now)
        if now - self._asked_at < self._durations.snapshot_s:
            return []
        self._enter(_Phase.REFERENCE, now)
        return [Step.ASK_REFERENCE] if has_reference else []

    def _await_reference(self, now: float, data_at: float) -> list[Step]:
        if data_at > self._asked_at:
            return [Step.END_REFERENCE, *self._answered(now)]
        if now - self._phase_at < self._durations.reference_s:
            return []
        return [Step.END_REFERENCE, *self._unanswered(now)]

    def _answered(self, now: float) -> list[Step]:
        self.blind = False
        self.served_at = now
        self._enter(_Phase.WAITING, now)
        return [Step.LOG_NO_TRADES]

    def _unanswered(self, now: float) -> list[Step]:
        self.blind = True
        self._enter(_Phase.WAITING, now)
        if now - self._reconnected_at < self._durations.silence_reconnect_s:
            return []
        self._reconnected_at = now
        return [Step.RECONNECT]

    def _rest(self) -> list[Step]:
        steps = [Step.END_REFERENCE] if self._phase is _Phase.REFERENCE else []
        self.blind = False
        self._phase = _Phase.WAITING
        self._quiet_since = math.inf
        self._asks = 0
        return steps

    def _enter(self, phase: _Phase, now: float) -> None:
        self._phase = phase
        self._phase_at = now
