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
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
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
# A process that has not ended this long after its first signal ends at once.
END_TIMEOUT_S: Final = 8.0
# Signals so close together are one: some wrappers pass on what the terminal has sent already.
SAME_SIGNAL_S: Final = 0.2
# The log's last lines delay a sudden end no longer than this.
LAST_LINES_S: Final = 0.5

# The shortest that Linux takes.
SLICE_NS: Final = 100_000
# The number of Linux's sched_setattr, for which Python has no function.
SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
SCHED_FLAG_RESET_ON_FORK: Final = 1

LOG_FILE: Final = "newshead.log"
LOGS_KEPT: Final = 5
LOG_FORMAT: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

STDOUT: Final = 1
# Leaves the alternate screen and shows the cursor; changes nothing on a terminal without a table.
PLAIN_TERMINAL: Final = b"\x1b[?1049l\x1b[?25h"

logger = logging.getLogger(__name__)
# What a sudden end has to see to: the log's writers, and the processes of `run_child`.
_log_writers: list[QueueListener] = []
_children: set[asyncio.subprocess.Process] = set()

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
    _log_writers.append(writer)
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
    """An exception in one line; of a group, its first one."""
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    return f"{type(problem).__name__}: {' '.join(str(problem).split())}"[:300]


def stop_asked() -> bool:
    """Whether the running task was cancelled, even if something has swallowed that."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


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
    and given the time it takes to clean up, which no exception of the cleanup undoes.

    A second signal ends this process and its children at once, with exit code 1, and so does
    the first one after 8 s. This holds until the process ends, so this is for commands only.

    Parameters
    ----------
    with_parent
        End also when standard input closes: it is a pipe from the process that
        started this one, and closes however that process ends. Further signals
        are ignored: the parent passes on what a service manager may have sent
        to both, and kills this process if need be.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            task.cancel()

    def stop_soon() -> None:
        # The loop may have ended.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(stop)

    # The times of signals. A thread acts on them, since the loop may hang or have ended.
    signals: queue.SimpleQueue[float] = queue.SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: signals.put(time.monotonic()))
        # As asyncio has it: no blocking call of the engine's threads breaks.
        signal.siginterrupt(number, False)
    threading.Thread(
        target=_follow_signals, args=(signals, stop_soon, not with_parent), daemon=True
    ).start()
    if with_parent:
        threading.Thread(target=_follow_parent, args=(stop_soon,), daemon=True).start()
    try:
        await task
    except asyncio.CancelledError:
        pass
    except Exception as problem:
        if not stopping:
            raise
        logger.error("Stopped, but the cleanup failed: %s", described(problem))


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
    _children.add(child)
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
        _children.discard(child)


def _follow_parent(stop: Callable[[], None]) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stop()
    time.sleep(STOP_TIMEOUT_S)
    _end_at_once("Still running %.0f s after the parent's end: ending now.", STOP_TIMEOUT_S)


def _follow_signals(
    signals: "queue.SimpleQueue[float]", stop: Callable[[], None], second_counts: bool
) -> None:
    first = signals.get()
    stop()
    # The kernel's own timer, for what stops even this thread: a library that holds the
    # interpreter, or hangs once the interpreter has ended.
    signal.setitimer(signal.ITIMER_REAL, END_TIMEOUT_S + 1)
    with suppress(queue.Empty):
        while True:
            left_s = first + END_TIMEOUT_S - time.monotonic()
            another = signals.get(timeout=max(0.0, left_s))
            if second_counts and another - first >= SAME_SIGNAL_S:
                _end_at_once("Second signal: ending at once, rows not stored yet are lost.")
    _end_at_once("Still running %.0f s after the signal: ending now.", END_TIMEOUT_S)


def _end_at_once(told: str, *args: object) -> NoReturn:
    """End this process and its children now, with the log's last lines if they can be written."""
    for child in tuple(_children):
        if child.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
    # In a thread, since a terminal that stands still or a handler's lock may block it.
    last = threading.Thread(target=_write_last_lines, args=(told, *args), daemon=True)
    with suppress(RuntimeError):
        last.start()
        last.join(LAST_LINES_S)
    os._exit(EXIT_FAILED)


def _write_last_lines(told: str, *args: object) -> None:
    logger.error(told, *args)
    for writer in _log_writers:
        # The end in order may be at it too.
        with suppress(AttributeError):
            writer.stop()
    if os.isatty(STDOUT):
        os.write(STDOUT, PLAIN_TERMINAL)
