"""Work beside the event loop: blocking calls, background tasks, steps of a cleanup."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class _Worker(threading.Thread):
    """A daemon thread for one call after another; to start one for each takes longer than most
    calls do."""

    def __init__(self) -> None:
        super().__init__(name="off-loop", daemon=True)
        self.calls: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def run(self) -> None:
        """Make the calls as they come, for ever."""
        while True:
            self.calls.get()()


# Those that have nothing to do.
_idle: list[_Worker] = []


def _worker() -> _Worker:
    """Return one that has nothing to do; a call that hangs keeps its own busy, and no other."""
    try:
        return _idle.pop()
    except IndexError:
        worker = _Worker()
        worker.start()
        return worker


async def off_loop(function: Callable[..., T], *args: Any) -> T:
    """Run a blocking call in a daemon thread and await what it returns or raises.

    Unlike `asyncio.to_thread`, a call that hangs never delays another one or the end of the
    process. When the awaiting task is cancelled the call goes on unwatched.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    worker = _worker()

    def call() -> None:
        settle: Callable[[], None]
        try:
            # What an earlier call set in its context is no concern of this one.
            settle = partial(outcome.set_result, Context().run(function, *args))
        except BaseException as raised:
            settle = partial(outcome.set_exception, raised)
        _idle.append(worker)
        # The loop may have ended meanwhile; then nobody waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_unless_cancelled, outcome, settle)

    worker.calls.put(call)
    return await outcome


def _unless_cancelled(outcome: asyncio.Future[Any], settle: Callable[[], None]) -> None:
    if not outcome.cancelled():
        settle()


async def attempt(what: str, work: Awaitable[object], within_s: float | None = None) -> None:
    """Await a step of a cleanup, for at most `within_s`.

    A step that fails or takes longer is one line in the log: it neither keeps the next step from
    its turn nor replaces the cancellation that the cleanup is part of.
    """
    try:
        async with asyncio.timeout(within_s) as limit:
            await work
    except Exception as problem:
        if limit.expired():
            logger.warning("Failed %s within %.0f s.", what, within_s)
        else:
            logger.error("Failed %s: %s", what, described(problem))


def described(problem: BaseException) -> str:
    """Return an exception in one line; of a group, its first one."""
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    return f"{type(problem).__name__}: {' '.join(str(problem).split())}"[:300]


def stop_asked() -> bool:
    """Return whether the running task was cancelled, even if something has swallowed that."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@asynccontextmanager
async def in_background(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Run `work` while the context lasts; then it is cancelled and given the time it takes to
    clean up. What it raised by itself is raised at the end."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
