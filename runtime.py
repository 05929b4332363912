"""What the commands share: log, blocking calls off the loop, slices, signals, child processes."""

import argparse
import asyncio
import atexit
import ctypes
import fcntl
import logging
import os
import platform
import queue
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from logging.handlers import (
    QueueHandler,
    QueueListener,
    TimedRotatingFileHandler,
    WatchedFileHandler,
)
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from settings import ConfigurationError

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_MISCONFIGURED: Final = 2

CODE: Final = Path(__file__).parent.resolve()
# A process that has not ended this long after its parent ends at once.
STOP_TIMEOUT_S: Final = 5.0

# The shortest that Linux takes.
SLICE_NS: Final = 100_000
# The number of Linux's sched_setattr, for which Python has no function.
SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
SCHED_FLAG_RESET_ON_FORK: Final = 1

LOG_FILE: Final = "newshead.log"
LOGS_KEPT: Final = 5
LOG_FORMAT: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

logger = logging.getLogger(__name__)

T = TypeVar("T")


class CommandLine(argparse.ArgumentParser):
    """Refuses wrong arguments in one sentence, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_MISCONFIGURED, f"{self.prog}: {message}; --help shows what there is.\n")


def configure_logging(folder: Path, *, rotate: bool) -> None:
    """Sends the log to the console and to `newshead.log` in `folder`.

    A thread of its own writes both, so that a terminal that stands still
    (Ctrl-S, a slow connection) or a slow disk never stops the event loop.

    Parameters
    ----------
    folder
        Created if missing.
    rotate
        True in the one process that owns the file: it is renamed at midnight
        and five old ones are kept. Other processes follow the renaming.

    Raises
    ------
    ConfigurationError
        The folder or the file cannot be written.
    """
    path = folder / LOG_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        to_file: logging.Handler = (
            TimedRotatingFileHandler(path, when="midnight", backupCount=LOGS_KEPT, encoding="utf-8")
            if rotate
            else WatchedFileHandler(path, encoding="utf-8")
        )
    except OSError as problem:
        raise ConfigurationError(
            f"The log {path} cannot be written ({problem.strerror}); "
            "start newshead in a folder that you may write to."
        ) from problem
    to_console = logging.StreamHandler(sys.stderr)
    for handler in (to_file, to_console):
        handler.setFormatter(logging.Formatter(LOG_FORMAT))
    lines: queue.SimpleQueue[Any] = queue.SimpleQueue()
    writer = QueueListener(lines, to_file, to_console)
    writer.start()
    atexit.register(writer.stop)
    root = logging.getLogger()
    root.handlers = [QueueHandler(lines)]
    root.setLevel(logging.INFO)


async def off_loop(function: Callable[..., T], *args: Any) -> T:
    """Runs a blocking call in a daemon thread of its own and awaits what it returns or raises.

    Unlike `asyncio.to_thread`, a call that hangs never delays the end of the
    process. When the awaiting task is cancelled the call goes on unwatched.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if outcome.cancelled():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]

    def call() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = function(*args)
        except BaseException as raised:
            error = raised
        # The loop may have ended meanwhile; then nobody waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, error)

    name = getattr(function, "__name__", "call")
    threading.Thread(target=call, name=f"off-loop {name}", daemon=True).start()
    return await outcome


@asynccontextmanager
async def in_background(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Runs `work` while the context lasts; then it is cancelled and given the time it takes to
    clean up. What it raised by itself is raised at the end."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class _SchedulingAttributes(ctypes.Structure):
    """Linux's `struct sched_attr` in its first form; see sched_setattr(2)."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def ask_for_short_slices() -> None:
    """Asks that the calling thread, when it wakes, run before those that have the processors.

    Otherwise it may wait until a running thread's slice of time is over: with a browser
    beside newshead on two processors, now and then for 1 to 4 ms. From version 6.12 Linux
    lets a thread interrupt others that take longer slices than it asks for; its share of
    the time stays the same (Linux's Documentation/scheduler/sched-eevdf.rst). It takes no
    rights. Threads and processes that the caller starts do not inherit it. Elsewhere, and
    where a user chose another kind of scheduling, nothing changes.
    """
    call = SCHED_SETATTR.get(platform.machine())
    if sys.platform != "linux" or call is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    attributes = _SchedulingAttributes(
        size=ctypes.sizeof(_SchedulingAttributes),
        policy=os.SCHED_OTHER,
        flags=SCHED_FLAG_RESET_ON_FORK,
        nice=os.getpriority(os.PRIO_PROCESS, 0),
        runtime=SLICE_NS,
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(call, 0, ctypes.byref(attributes), 0):
        logger.debug("No short slices: %s", os.strerror(ctypes.get_errno()))


def retry_pause_s(failures: int, chance: float, *, first_s: float, max_s: float) -> float:
    """Seconds to wait after so many failures in a row: `first_s`, doubling up to `max_s`, and up
    to a fifth more or less by `chance` (0 to 1), so that clients do not return all at once."""
    pause = min(max_s, first_s * 2.0 ** min(failures - 1, 10))
    return pause * (0.8 + 0.4 * chance)


def lock_file(path: Path) -> int:
    """Takes a lock that lasts until the descriptor it returns is closed, or the process ends.

    Raises
    ------
    BlockingIOError
        Another process holds it.
    OSError
        The file cannot be written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


async def until_stopped(work: Coroutine[Any, Any, None], *, with_parent: bool = False) -> None:
    """Runs `work` until it ends, or until Ctrl-C or SIGTERM; then it is cancelled, once,
    and given the time it takes to clean up.

    Parameters
    ----------
    with_parent
        End also when standard input closes: it is a pipe from the process that
        started this one, and closes however that process ends.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    if with_parent:
        threading.Thread(target=_follow_parent, args=(loop, stop), daemon=True).start()
    with suppress(asyncio.CancelledError):
        await task


async def run_child(
    name: str,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    descriptors: Sequence[int] = (),
) -> int:
    """Runs a part of newshead as a process until it ends; gives its exit code.

    Its standard input is a pipe from here, so that it ends with this process
    however that ends.

    Parameters
    ----------
    environment
        Variables it has besides or in place of this process's.
    folder
        Where it is started; by default here.
    descriptors
        Those of this process that it has too.
    """
    paths = [str(CODE), *filter(None, [os.environ.get("PYTHONPATH")])]
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        "--supervised",
        stdin=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | dict(environment or {}),
        cwd=folder,
        pass_fds=descriptors,
        # Ctrl-C reaches this process alone, which then ends its children in order.
        start_new_session=True,
    )
    logger.info("%s started, pid=%d", name, child.pid)
    try:
        return await child.wait()
    finally:
        if child.returncode is None:
            child.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await child.wait()
        if child.returncode is None:
            child.kill()
            await child.wait()


def _follow_parent(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(stop)
    time.sleep(STOP_TIMEOUT_S)
    os._exit(EXIT_FAILED)
