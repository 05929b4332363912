"""Past bars as TWS gives them: out of what was traded, and only so many requests at a time."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

NO_DATA: Final = (
    "Historical Market Data Service error message:HMDS query returned no data: {}@SMART Trades"
)
PACING: Final = (
    "Historical Market Data Service error message:Historical data request pacing violation"
)
CANCELLED: Final = "API historical data query cancelled: {}"
NO_QUERY: Final = "No historical data query found for ticker id:{}"
INVALID: Final = "Error validating request.-'bW' : cause - {}"

BAR_SIZES_S: Final = {"5 secs": 5, "1 min": 60}
# IBKR's limits: in ten minutes, and how long the same request is too soon.
MAX_REQUESTS: Final = 60
PERIOD_S: Final = 600.0
SAME_S: Final = 15.0
# The same stock's requests, and in how many seconds.
MAX_OF_ONE_STOCK: Final = 6
ONE_STOCK_S: Final = 2.0


class Query(NamedTuple):
    """What a client wants to know; as it wrote it."""

    end: str = ""
    duration: str = ""
    bar_size: str = ""
    what: str = ""
    regular_hours: bool = False
    format_date: int = 0

    @property
    def detail(self) -> str:
        """The bars' size, their duration and its end."""
        return " ".join(filter(None, (self.bar_size, self.duration, self.end)))

    def problem(self) -> str:
        """Tell why the simulator cannot answer it; empty if it can."""
        if self.bar_size not in BAR_SIZES_S:
            return f"Historical data bar size setting is invalid: {self.bar_size!r}"
        if (self.what, self.regular_hours, self.format_date) != ("TRADES", False, 2):
            return "only trades, outside of regular hours too, with dates in seconds"
        try:
            self.span()
        except ValueError as error:
            return f"invalid end or duration: {error}"
        return ""

    def span(self) -> tuple[int, int]:
        """Return the Unix seconds of the begin and the end that are asked for.

        Raises
        ------
        ValueError
            If they are not `20261125-15:00:00` (UTC) and `120 S`.
        """
        end = int(datetime.strptime(self.end, "%Y%m%d-%H:%M:%S").replace(tzinfo=UTC).timestamp())
        seconds, _, unit = self.duration.partition(" ")
        if unit != "S":
            raise ValueError(self.duration)
        return end - int(seconds), end


class Bar(NamedTuple):
    """What was traded in some seconds from `time` (Unix seconds) on; USD and shares."""

    time: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    value: float
    """The sum of price times size."""
    trades: int

    def with_next(self, other: "Bar") -> "Bar":
        """Return the bar of both, `other` being the later one."""
        return Bar(
            self.time,
            self.open,
            max(self.high, other.high),
            min(self.low, other.low),
            other.close,
            self.volume + other.volume,
            self.value + other.value,
            self.trades + other.trades,
        )


def bars_of(seconds: Iterable[Bar], query: Query) -> Iterator[Bar]:
    """Yield the bars that are asked for, out of those of each second with a trade, in order."""
    length = BAR_SIZES_S[query.bar_size]
    whole: Bar | None = None
    for second in seconds:
        start = second.time // length * length
        if whole is not None and whole.time == start:
            whole = whole.with_next(second)
            continue
        if whole is not None:
            yield whole
        whole = second._replace(time=start)
    if whole is not None:
        yield whole


class Pacing:
    """How often bars were asked for lately, by all clients."""

    def __init__(self) -> None:
        self._requests: deque[tuple[float, str, Query]] = deque()

    def violated(self, symbol: str, query: Query) -> bool:
        """Take a request in; tell whether it comes too soon."""
        now = time.monotonic()
        while self._requests and now - self._requests[0][0] >= PERIOD_S:
            self._requests.popleft()
        earlier = list(self._requests)
        self._requests.append((now, symbol, query))
        of_stock = [(at, same) for at, other, same in earlier if other == symbol]
        return (
            len(earlier) >= MAX_REQUESTS
            or any(same == query and now - at < SAME_S for at, same in of_stock)
            or sum(now - at < ONE_STOCK_S for at, _ in of_stock) >= MAX_OF_ONE_STOCK - 1
        )
