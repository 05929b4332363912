"""The log: to the console and to a file, each by a thread of its own."""

import atexit
import copy
import logging
import os
import queue
import threading
import time
import traceback
import zlib
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import TimedRotatingFileHandler
from pathlib import Path
from typing import Final

from newshead.loop import described
from newshead.settings import ConfigurationError
from newshead.text import visible

LOG_FILE: Final = "newshead.log"
LOGS_KEPT: Final = 5
LOG_FORMAT: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
# The descriptor that every process knows standard error by.
STDERR: Final = 2
# Lines that wait for a place that takes none; some 10 MB at the most.
MAX_WAITING: Final = 10_000
# How long the last lines delay the end, where they cannot be written.
LAST_LINES_S: Final = 1.0
# A bug's traceback is written once in so long.
TRACEBACK_EVERY_S: Final = 3600.0

_writers: list["_Writer"] = []


class _VisibleLine(logging.Formatter):
    """Makes a record one line that neither steers a terminal nor looks like others: TWS, news and
    files have their words in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return visible(super().formatMessage(record)).replace("\n", " ")


def configure_logging(folder: Path, *, rotate: bool) -> None:
    """Send the log to the console and to `newshead.log` in `folder`.

    Each is written by a thread of its own, so that a terminal that stands still (Ctrl-S, a pipe
    that nobody reads) stops neither the file nor the event loop. Lines that a place does not take
    are counted, and it is told their number once it takes lines again.

    Parameters
    ----------
    folder
        Created if missing, also where it is removed later.
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
        file = (
            _RotatedFile(path, when="midnight", backupCount=LOGS_KEPT, encoding="utf-8")
            if rotate
            else _LogFile(path, encoding="utf-8")
        )
    except OSError as problem:
        raise ConfigurationError(
            f"The log {path} cannot be written ({problem.strerror}); "
            "start newshead in a folder that you may write to."
        ) from problem
    _writers.extend((_Writer("file", file.write_line), _Writer("console", _write_to_console)))
    atexit.register(write_last_lines)
    root = logging.getLogger()
    root.handlers = [_Log(*_writers[-2:])]
    root.setLevel(logging.INFO)


def write_last_lines() -> None:
    """Write what is queued and end the writers; blocks for a second at the most per place."""
    for writer in _writers:
        writer.end()
    for writer in _writers:
        writer.join(LAST_LINES_S)


class _Writer(threading.Thread):
    """Writes lines to one place, and counts those that it does not take."""

    def __init__(self, name: str, write: Callable[[str], None]) -> None:
        super().__init__(name=f"log {name}", daemon=True)
        self._write = write
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._counting = threading.Lock()
        self._lost = 0
        self.start()

    def put(self, line: str) -> None:
        """Let a line be written. Never waits."""
        if self._lines.qsize() < MAX_WAITING:
            self._lines.put(line)
        else:
            self._count(1)

    def end(self) -> None:
        """Let the thread end after the lines that wait."""
        self._lines.put(None)

    def run(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                if lost := self._lost:
                    self._write(
                        _formatted(f"{lost} lines of the log were dropped before this one.")
                    )
                    self._count(-lost)
                self._write(line)
            except (OSError, ValueError):
                self._count(1)

    def _count(self, lines: int) -> None:
        with self._counting:
            self._lost += lines


class _Log(logging.Handler):
    """Hands each line to the two writers. A bug is one line with a reference; its traceback goes
    to the file alone, once per kind in an hour."""

    def __init__(self, file: _Writer, console: _Writer) -> None:
        super().__init__()
        self.setFormatter(_VisibleLine(LOG_FORMAT))
        self._file = file
        self._console = console
        self._told_at: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        try:
            problem = record.exc_info[1] if record.exc_info else None
            if problem is None:
                line, trace = self.format(record), ""
            else:
                line, trace = self._bug(record, problem)
        except Exception:
            self.handleError(record)
            return
        self._file.put(line + trace)
        self._console.put(line)

    def _bug(self, record: logging.LogRecord, problem: BaseException) -> tuple[str, str]:
        """Return a bug's line, and its traceback where that is due."""
        # Where it was raised, and what: the same bug has the same reference in every run.
        *_, frame = traceback.extract_tb(problem.__traceback__) or [None]
        place = f"{Path(frame.filename).name}:{frame.name}:{frame.line}" if frame else ""
        reference = f"{zlib.crc32(f'{type(problem).__name__} {place}'.encode()):08x}"
        record = copy.copy(record)
        record.msg = (
            f"{record.getMessage()} {described(problem)} (bug {reference}, its traceback is in "
            f"{LOG_FILE})"
        )
        record.args = record.exc_info = record.exc_text = None
        now = time.monotonic()
        if now - self._told_at.get(reference, -TRACEBACK_EVERY_S) < TRACEBACK_EVERY_S:
            return self.format(record), ""
        self._told_at[reference] = now
        trace = visible("".join(traceback.format_exception(problem)).rstrip())
        return self.format(record), f"\n{trace}"


class _LogFile(logging.FileHandler):
    """A file that is opened again where it, or its folder, was removed or renamed, and after it
    could not be written."""

    def write_line(self, line: str) -> None:
        """Append a line.

        Raises
        ------
        OSError
            It could not be written.
        """
        if self.stream is not None and not self._bears_its_name(self.stream.fileno()):
            self._leave()
        if self.stream is None:
            Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
            self.stream = self._open()
        self.handle(logging.makeLogRecord({"msg": line}))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802
        """Raise what went wrong; what is left in the buffer is not written later."""
        self._leave()
        raise

    def _bears_its_name(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(Path(self.baseFilename).stat(), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def _leave(self) -> None:
        # None already where the base class of a rotated file hands the same failure on.
        if self.stream is None:
            return
        stream, self.stream = self.stream, None
        with suppress(OSError):
            stream.close()


class _RotatedFile(_LogFile, TimedRotatingFileHandler):
    """The same, renamed at midnight."""


def _write_to_console(line: str) -> None:
    # Not through sys.stderr: a thread that hangs in it would hold its lock at the process's end.
    rest = f"{line}\n".encode(errors="backslashreplace")
    while rest:
        rest = rest[os.write(STDERR, rest) :]


def _formatted(text: str) -> str:
    record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)
    return logging.Formatter(LOG_FORMAT).format(record)
