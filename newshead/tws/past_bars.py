"""The requests for past bars of one connection, one at a time; other requests have other ids."""

import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from newshead.tws.codes import is_notice
from newshead.tws.ticks import shares

# Far above those of market data, which count from 1000, and within 32 bits.
FIRST_REQ_ID: Final = 1_000_000_000
# What TWS calls bars of so many seconds.
BAR_SIZES: Final = {5: "5 secs", 60: "1 min"}


class Wanted(NamedTuple):
    """The bars of `bar_s` seconds of a stock from `begin` to before `end`, Unix seconds."""

    ticker: str
    begin: int
    end: int
    bar_s: int

    @property
    def query(self) -> tuple[Any, ...]:
        """What `reqHistoricalData` takes behind the contract: trades at any hour, in UTC."""
        end = datetime.fromtimestamp(self.end, UTC)
        return (
            f"{end:%Y%m%d-%H:%M:%S}",
            f"{self.end - self.begin} S",
            BAR_SIZES[self.bar_s],
            "TRADES",
            0,
            # Times are Unix seconds.
            2,
            False,
            [],
        )


class Bar(NamedTuple):
    """What was traded from `time` (Unix seconds) on: USD and shares."""

    time: int
    open: float
    high: float
    low: float
    close: float
    volume: int


class Outcome(NamedTuple):
    """What came of a request: bars in the order of time, or a refusal."""

    bars: tuple[Bar, ...] = ()
    refused: bool = False


class PastBars:
    """What was asked for last, and what of it has come. Any thread; never waits."""

    def __init__(self, send: Callable[[int, Wanted], None], cancel: Callable[[int], None]) -> None:
        """
        Parameters
        ----------
        send, cancel
            Send a request with an id to TWS, and end it.
        """
        self._send = send
        self._cancel = cancel
        self._lock = threading.Lock()
        self._req_id = FIRST_REQ_ID
        # None once it is over.
        self._wanted: Wanted | None = None
        self._given_up = False
        self._bars: dict[int, Bar] = {}
        self._outcome: Outcome | None = None

    def ask(self, wanted: Wanted) -> None:
        """Ask for bars; what was asked for before is forgotten."""
        with self._lock:
            self._req_id += 1
            req_id = self._req_id
            self._wanted, self._given_up = wanted, False
            self._bars, self._outcome = {}, None
        # Not under the lock: a request that fails is told of at once, in the middle of sending it.
        self._send(req_id, wanted)

    def give_up(self) -> None:
        """Wait no longer for what was asked for."""
        with self._lock:
            req_id = self._req_id
            self._given_up, self._outcome = True, None
        # After that, since TWS may answer at once.
        self._cancel(req_id)

    @property
    def given_up(self) -> bool:
        """Whether the last request was given up: codes about it are of no interest."""
        return self._given_up

    def take(self) -> Outcome | None:
        """Return what came of the request, once; None as long as nothing did."""
        with self._lock:
            outcome, self._outcome = self._outcome, None
            return outcome

    def ticker_of(self, req_id: int) -> str:
        """Return whose bars a request that is not over is for; empty for any other request."""
        with self._lock:
            return self._wanted.ticker if self._wanted and req_id == self._req_id else ""

    # --- What TWS tells -----------------------------------------------------

    def add(self, req_id: int, bar: Any) -> None:
        """Take in one of IBKR's bars, if it is one that was asked for: TWS may tell others."""
        with self._lock:
            wanted = self._awaited(req_id)
            if wanted is None or not str(bar.date).isdecimal():
                return
            at = int(bar.date)
            prices = float(bar.open), float(bar.high), float(bar.low), float(bar.close)
            if wanted.begin <= at < wanted.end and all(0 < price < math.inf for price in prices):
                self._bars[at] = Bar(at, *prices, shares(bar.volume))

    def end(self, req_id: int) -> None:
        """Note that all bars of a request have come."""
        with self._lock:
            if self._awaited(req_id):
                self._wanted = None
                self._outcome = Outcome(tuple(self._bars[at] for at in sorted(self._bars)))

    def refuse(self, req_id: int, number: int) -> None:
        """Take in a code about a request: its bars do not come, if it is no mere notice."""
        with self._lock:
            if self._awaited(req_id) and not is_notice(number):
                self._wanted = None
                self._outcome = Outcome(refused=True)

    def _awaited(self, req_id: int) -> Wanted | None:
        """Return what a request that is neither over nor given up is for. Under the lock."""
        return self._wanted if req_id == self._req_id and not self._given_up else None
