"""What is known of one stock's trading so far, and the ticks that TWS sends about it."""

import enum
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ibapi.ticktype import TickTypeEnum

from simulator.history import Bar

BID_SIZE_SHARES: Final = 300
ASK_SIZE_SHARES: Final = 200
DELAYED: Final[dict[int, int]] = {
    TickTypeEnum.BID: TickTypeEnum.DELAYED_BID,
    TickTypeEnum.ASK: TickTypeEnum.DELAYED_ASK,
    TickTypeEnum.LAST: TickTypeEnum.DELAYED_LAST,
    TickTypeEnum.LAST_SIZE: TickTypeEnum.DELAYED_LAST_SIZE,
    TickTypeEnum.HIGH: TickTypeEnum.DELAYED_HIGH,
    TickTypeEnum.LOW: TickTypeEnum.DELAYED_LOW,
    TickTypeEnum.VOLUME: TickTypeEnum.DELAYED_VOLUME,
    TickTypeEnum.CLOSE: TickTypeEnum.DELAYED_CLOSE,
    TickTypeEnum.HALTED: TickTypeEnum.DELAYED_HALTED,
    TickTypeEnum.LAST_TIMESTAMP: TickTypeEnum.DELAYED_LAST_TIMESTAMP,
}
"""Live tick types that a Book makes, and what they are called when the data is delayed."""


class TimeTick(enum.Enum):
    """Where a trade's time (LAST_TIMESTAMP) stands among the ticks that tell of the trade."""

    BEFORE = "before the trade"
    AFTER = "after the trade and the sizes"
    NEVER = "left out"


class PriceTick(NamedTuple):
    """A price in USD together with its size in shares: one TICK_PRICE message."""

    type: int
    price: float
    size: float


class SizeTick(NamedTuple):
    """A number of shares."""

    type: int
    size: float


class StringTick(NamedTuple):
    """A text."""

    type: int
    value: str


class GenericTick(NamedTuple):
    """A number."""

    type: int
    value: float


Tick = PriceTick | SizeTick | StringTick | GenericTick


@dataclass
class Book:
    """One stock's day so far. Prices are in USD, sizes in shares, time in Unix seconds."""

    price: float = 0.0
    """The last trade's; 0 as long as there has been none."""
    size: float = 0.0
    volume: float = 0.0
    high: float = 0.0
    low: float = 0.0
    time: int = 0
    previous_close: float = 0.0
    """0 where none is told."""
    halted: int = 0
    """1 for news pending, 2 for a volatility pause."""
    seconds: dict[int, Bar] = field(default_factory=dict)
    """What was traded in each Unix second with a trade."""

    def halt(self, halted: int) -> list[Tick]:
        """Halt trading, or let it resume with 0; return what a subscriber is told."""
        self.halted = halted
        return [GenericTick(TickTypeEnum.HALTED, float(halted))]

    def trade(
        self, price: float, size: float, time: float, place: TimeTick = TimeTick.BEFORE
    ) -> list[Tick]:
        """Take a trade in, and return what a subscriber is told of it.

        A trade at the last price is told by its size alone, as TWS does.
        """
        ticks: list[Tick] = []
        moved = price != self.price
        new_second = int(time) != self.time
        self.record(price, size, time)
        if moved:
            ticks += self._quotes()
        if new_second and place is TimeTick.BEFORE:
            ticks.append(self._time())
        if moved:
            ticks.append(PriceTick(TickTypeEnum.LAST, price, size))
        ticks.append(SizeTick(TickTypeEnum.LAST_SIZE, size))
        ticks.append(SizeTick(TickTypeEnum.VOLUME, self.volume))
        if new_second and place is TimeTick.AFTER:
            ticks.append(self._time())
        return ticks

    def record(self, price: float, size: float, time: float) -> None:
        """Take a trade in."""
        self.high = max(self.high, price)
        self.low = min(self.low, price) if self.low else price
        self.price = price
        self.size = size
        self.volume += size
        self.time = int(time)
        traded = Bar(self.time, price, price, price, price, size, price * size, 1)
        earlier = self.seconds.get(self.time)
        self.seconds[self.time] = traded if earlier is None else earlier.with_next(traded)

    def past(self, begin: int, end: int) -> list[Bar]:
        """Return what was traded in each second with a trade, from one to before another."""
        return [self.seconds[at] for at in sorted(self.seconds) if begin <= at < end]

    def state(self, place: TimeTick = TimeTick.AFTER) -> list[Tick]:
        """Return what a new subscriber is told: nothing before the first trade or a halt."""
        told: list[Tick] = self.halt(self.halted) if self.halted else []
        if self.previous_close:
            told.append(PriceTick(TickTypeEnum.CLOSE, self.previous_close, 0))
        if not self.price:
            return told
        return [
            *told,
            *self._quotes(),
            *([self._time()] if place is TimeTick.BEFORE else []),
            PriceTick(TickTypeEnum.LAST, self.price, self.size),
            SizeTick(TickTypeEnum.LAST_SIZE, self.size),
            SizeTick(TickTypeEnum.VOLUME, self.volume),
            PriceTick(TickTypeEnum.HIGH, self.high, 0),
            PriceTick(TickTypeEnum.LOW, self.low, 0),
            *([self._time()] if place is TimeTick.AFTER else []),
        ]

    def _time(self) -> Tick:
        return StringTick(TickTypeEnum.LAST_TIMESTAMP, str(self.time))

    def _quotes(self) -> list[Tick]:
        step, decimals = (0.01, 2) if self.price >= 1 else (0.0001, 4)
        return [
            PriceTick(TickTypeEnum.BID, round(self.price - step, decimals), BID_SIZE_SHARES),
            PriceTick(TickTypeEnum.ASK, round(self.price + step, decimals), ASK_SIZE_SHARES),
        ]
