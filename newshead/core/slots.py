"""A book of slots: ticks in, finished slots out. One row is made of each."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

# Live's slots, which begin at even UTC seconds.
SLOT_S: Final = 2.0

# A tick as IBKRClient's buffer has it: price, volume, timestamp (aware UTC) and source.
Tick = Mapping[str, Any]


class Slot(NamedTuple):
    """A ticker's slot: the `number` counts slots of equal length since 1970 in UTC."""

    ticker: str
    number: int


class SlotBook:
    """The newest tick of each slot that has no row yet."""

    def __init__(self, slot_s: float) -> None:
        self.slot_s = slot_s
        self._ticks: dict[Slot, Tick] = {}

    def __len__(self) -> int:
        return len(self._ticks)

    def __getitem__(self, slot: Slot) -> Tick:
        return self._ticks[slot]

    @property
    def all(self) -> list[Slot]:
        """All slots without a row."""
        return list(self._ticks)

    @property
    def tickers(self) -> set[str]:
        """The tickers with a slot that has no row yet."""
        return {slot.ticker for slot in self._ticks}

    def add(self, ticker: str, ticks: Iterable[Tick]) -> None:
        """Take a ticker's ticks in; of those of one slot the newest counts."""
        for tick in ticks:
            slot = Slot(ticker, self._number(tick["timestamp"]))
            newest = self._ticks.get(slot)
            # A trade that was held may come after newer ones.
            if newest is None or newest["timestamp"] <= tick["timestamp"]:
                self._ticks[slot] = tick

    def finished(self, now: datetime, tickers: Collection[str]) -> list[Slot]:
        """Return the slots of `tickers` that are over."""
        current = self._number(now)
        # A slot far ahead comes from a clock that was set back; it waits for nothing.
        return [
            slot
            for slot in self._ticks
            if slot.ticker in tickers and (slot.number < current or slot.number > current + 1)
        ]

    def end_s(self, slot: Slot) -> float:
        """Return the Unix time of a slot's end."""
        return (slot.number + 1) * self.slot_s

    def remove(self, slots: Iterable[Slot]) -> None:
        """Forget slots: their rows are made, or none is to be made of them."""
        for slot in slots:
            del self._ticks[slot]

    def _number(self, at: datetime) -> int:
        return int(at.timestamp() // self.slot_s)
