"""Who has the next place: those that are not late, about the fewest stocks, the newest."""

import asyncio

import pytest
from deadlines import DEADLINE_S

from newshead.news.places import Places, Rank


async def test_the_next_place_goes_by_rank() -> None:
    places = Places(1)
    order: list[str] = []

    async def one(name: str, rank: Rank) -> None:
        async with places.turn(rank):
            order.append(name)
            await asyncio.sleep(0)

    ranks = {
        "first": Rank(False, 9, -1.0),
        "late": Rank(True, 1, -9.0),
        "many": Rank(False, 5, -5.0),
        "older": Rank(False, 1, -3.0),
        "newer": Rank(False, 1, -4.0),
    }
    await asyncio.gather(*(one(name, rank) for name, rank in ranks.items()))
    assert order == ["first", "newer", "older", "many", "late"]


async def test_one_that_is_late_is_displaced_by_one_that_is_not() -> None:
    places = Places(1)
    late_holds = asyncio.Event()

    async def late() -> None:
        async with places.turn(Rank(True, 1, 0.0)):
            late_holds.set()
            await asyncio.Event().wait()

    async with asyncio.timeout(DEADLINE_S):
        holding = asyncio.create_task(late())
        await late_holds.wait()
        async with places.turn(Rank(False, 9, 0.0)):
            with pytest.raises(TimeoutError):
                await holding


async def test_a_place_is_passed_on_however_a_turn_or_a_wait_ends() -> None:
    places = Places(1)
    rank = Rank(False, 1, 0.0)
    waiting: list[asyncio.Task[None]] = []

    async def turn() -> None:
        async with places.turn(rank):
            pass

    async def fail() -> None:
        async with places.turn(rank):
            waiting.extend(asyncio.create_task(turn()) for _ in range(3))
            await asyncio.sleep(0)
            waiting[0].cancel()
            raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        await fail()
    # The second has been given the place and is cancelled before it runs.
    waiting[1].cancel()
    await asyncio.wait(waiting)
    assert [task.cancelled() for task in waiting] == [True, True, False]
    async with places.turn(rank):
        pass
