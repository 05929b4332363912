"""Blocking calls beside the event loop."""

import asyncio
import threading
from contextvars import ContextVar

import pytest

from newshead.loop import off_loop

SEEN: ContextVar[str] = ContextVar("SEEN", default="nothing")


async def test_one_call_after_another_takes_one_thread() -> None:
    threads = {await off_loop(threading.get_ident) for _ in range(10)}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_a_call_that_hangs_delays_no_other_one() -> None:
    ends = threading.Event()
    hanging = asyncio.create_task(off_loop(ends.wait))
    await asyncio.sleep(0)
    assert [await off_loop(lambda: 1) for _ in range(3)] == [1, 1, 1]
    assert not hanging.done()
    ends.set()
    assert await hanging


async def test_what_a_call_sets_in_its_context_is_gone_for_the_next_one() -> None:
    await off_loop(SEEN.set, "something")
    assert await off_loop(SEEN.get) == "nothing"


async def test_what_a_call_raises_is_raised_and_its_thread_goes_on() -> None:
    thread = await off_loop(threading.get_ident)
    with pytest.raises(ZeroDivisionError):
        await off_loop(lambda: 1 // 0)
    assert await off_loop(threading.get_ident) == thread
