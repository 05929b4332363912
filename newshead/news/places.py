"""Who may ask the rating service next: so many at once, and in which order. One event loop."""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple


class Rank(NamedTuple):
    """Where one stands among those who wait: the lowest is next."""

    late: bool
    """Behind all that are not, and displaced by them."""
    tickers: int
    age_s: float
    """How long before any fixed time, in seconds, its article came: the newest is next."""


class Places:
    """A number of places, each for one at a time."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._order = itertools.count()
        self._waiting: list[tuple[Rank, int, asyncio.Future[None]]] = []
        self._late: list[asyncio.Timeout] = []

    @asynccontextmanager
    async def turn(self, rank: Rank) -> AsyncIterator[None]:
        """Wait for a place and hold it while the context lasts.

        Raises
        ------
        TimeoutError
            It was late, and one that was not needed the place.
        """
        await self._wait(rank)
        try:
            async with asyncio.timeout(None) as holding:
                if rank.late:
                    self._late.append(holding)
                try:
                    yield
                finally:
                    with suppress(ValueError):
                        self._late.remove(holding)
        finally:
            self._pass_on()

    async def _wait(self, rank: Rank) -> None:
        if self._free:
            self._free -= 1
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (rank, next(self._order), mine))
        if self._late and not rank.late:
            self._late.pop(0).reschedule(asyncio.get_running_loop().time())
        try:
            await mine
        except asyncio.CancelledError:
            # It was given the place in the same moment.
            if not mine.cancelled():
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(None)
                return
        self._free += 1
