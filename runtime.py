"""What the commands share once they run: the log, blocking calls off the loop, signals."""

import argparse
import asyncio
import atexit
import fcntl
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
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

LOG_FILE: Final = "newshead.log"
LOGS_KEPT: Final = 5
LOG_FORMAT: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

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
    logging.basicConfig(level=logging.INFO, handlers=[QueueHandler(lines)], force=True)


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
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    name = getattr(function, "__name__", "call")
    threading.Thread(target=call, name=f"off-loop {name}", daemon=True).start()
    return await outcome


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


def on_stop_signals(stop: Callable[[], object]) -> None:
    """Calls `stop` on the running loop at Ctrl-C and at SIGTERM."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
