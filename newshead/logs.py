"""The log: to the console and to a file, by a thread of its own."""

import atexit
import logging
import queue
import sys
from contextlib import suppress
from logging.handlers import (
    QueueHandler,
    QueueListener,
    TimedRotatingFileHandler,
    WatchedFileHandler,
)
from pathlib import Path
from typing import Any, Final

from newshead.settings import ConfigurationError
from newshead.text import visible

LOG_FILE: Final = "newshead.log"
LOGS_KEPT: Final = 5
LOG_FORMAT: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

_writers: list[QueueListener] = []


class _VisibleLine(logging.Formatter):
    """Makes a record one line, and its traceback lines, that neither steer a terminal nor look like
    others: TWS, news and files have their words in them."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return visible(super().formatMessage(record)).replace("\n", " ")

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return visible(super().formatException(ei))


def configure_logging(folder: Path, *, rotate: bool) -> None:
    """Send the log to the console and to `newshead.log` in `folder`.

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
    _writers.append(writer)
    to_writer = QueueHandler(lines)
    to_writer.setFormatter(_VisibleLine())
    root = logging.getLogger()
    root.handlers = [to_writer]
    root.setLevel(logging.INFO)


def write_last_lines() -> None:
    """Write what is queued and end the writers. Blocks as long as the console or the disk does."""
    for writer in _writers:
        # The end in order may be at it too.
        with suppress(AttributeError):
            writer.stop()
